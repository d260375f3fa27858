"""Checks of Redis: whether it answers, is what we need, and lets us do what we need."""

from __future__ import annotations

import re
import statistics
from typing import TYPE_CHECKING, Final

from accelerator.cli import words
from accelerator.cli.doctor.finding import Finding, fail, ok, warn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from accelerator.cli.doctor.facts import Facts

_WITHOUT: Final = (
    "reads go on without it; hosts do not hear each other, and serve what they loaded within the "
    "bound"
)
_RIGHTS: Final = "give the user the rights listed in docs/how-to/use-redis.md"
_OLDEST: Final = (6, 2)
_CLOCK: Final = 0.5
"""Seconds of difference that are worth a word."""
_CURES: Final = {
    "NOAUTH": "give user and password in the URL: redis://USER:PASSWORD@host:6379/0",
    "WRONGPASS": "correct user and password in the URL",
    "LOADING": "wait: it reads its data from disk",
    "NOPERM": _RIGHTS,
}


def reachable(facts: Facts) -> Iterator[Finding]:
    """Whether it answers."""
    seen = facts.redis
    if seen is None:
        if facts.settings is not None and facts.settings.redis is None:
            yield ok("redis", "none in the settings: this host caches for itself")
        return
    where = f"{seen.where['redis']}, database {seen.where['db']}"
    if seen.error is not None:
        code = f" ({seen.code})" if seen.code else ""
        cure = _CURES.get(
            seen.code,
            "see that it runs, and that this machine reaches it: address, "
            "firewall, TLS (rediss://)",
        )
        yield fail("redis", f"{where}: {seen.error}{code}", _WITHOUT, cure)
    else:
        yield ok(
            "redis", f"{where}: answers, over RESP2; connected in {words.seconds(seen.connecting)}"
        )


def latency(facts: Facts) -> Iterator[Finding]:
    """Whether it answers in time."""
    seen, settings = facts.redis, facts.settings
    if seen is None or settings is None or not seen.pings:
        return
    middle, worst = statistics.median(seen.pings), max(seen.pings)
    told = (
        f"PING took {words.seconds(middle)}, the longest of {len(seen.pings)} "
        f"{words.seconds(worst)}; redis_timeout is {words.seconds(settings.redis_timeout)}"
    )
    cure = "see what slows it (SLOWLOG GET, LATENCY DOCTOR), or raise redis_timeout"
    if middle > settings.redis_timeout:
        yield fail("latency", told, "every call fails, and the breaker stays open", cure)
    elif max(worst, seen.connecting) > settings.redis_timeout / 2:
        yield warn("latency", told, "single calls fail, and five in a row open the breaker", cure)
    else:
        yield ok("latency", told)


def version(facts: Facts) -> Iterator[Finding]:
    """Whether it is recent enough."""
    seen = facts.redis
    if seen is None or seen.error is not None:
        return
    if seen.info is None:
        yield warn(
            "version",
            "this user may not read INFO",
            "a failover is noticed only by numbers that go back, and a Redis that begins anew from "
            "its disk not at all",
            "ACL SETUSER ... +info",
        )
        return
    server = "Valkey" if "valkey_version" in seen.info else "Redis"
    text = seen.info.get("valkey_version") or seen.info.get("redis_version", "")
    number = tuple(map(int, re.findall(r"\d+", text)[:2]))
    if server == "Redis" and number and number < _OLDEST:
        yield fail(
            "version",
            f"{server} {text}",
            "it lacks commands that are needed",
            "Redis 6.2 or later, or Valkey",
        )
    else:
        yield ok("version", f"{server} {text or '?'}, {seen.info.get('redis_mode', 'standalone')}")


def writes(facts: Facts) -> Iterator[Finding]:
    """Whether it takes writes."""
    seen = facts.redis
    if seen is None or seen.error is not None:
        return
    if (seen.info or {}).get("role") == "slave" or "READONLY" in seen.refusals:
        yield fail(
            "writes",
            "it is a replica, and takes no writes",
            _WITHOUT,
            "name the master, or give a client of Sentinel (docs/how-to/use-redis.md)",
        )
    elif seen.refusals:
        yield fail(
            "writes",
            f"it refuses writes now: {', '.join(seen.refusals)}",
            f"{_WITHOUT}; changes are queued on this host",
            "OOM: raise maxmemory, or set maxmemory-policy volatile-lru; MISCONF: see why it "
            "cannot save to disk; NOREPLICAS: see its replicas",
        )


def rights(facts: Facts) -> Iterator[Finding]:
    """Whether its user may do what is needed."""
    seen = facts.redis
    if seen is None or seen.error is not None:
        return
    if seen.missing:
        yield fail(
            "features",
            f"it has no {', '.join(seen.missing)}",
            _WITHOUT,
            "use a Redis or Valkey that has scripts, streams and pub/sub, not renamed",
        )
    if seen.denied:
        yield fail(
            "rights",
            f"its user may not: {', '.join(seen.denied)}",
            f"{_WITHOUT}; or a part of it fails, each time",
            _RIGHTS,
        )
    if not seen.missing and not seen.denied:
        yield ok("rights", "its user may do all that is needed: scripts, streams, pub/sub")


def memory(facts: Facts) -> Iterator[Finding]:
    """What happens when its memory is used up."""
    seen = facts.redis
    if seen is None or not seen.info or "maxmemory_policy" not in seen.info:
        return
    policy, limit = seen.info["maxmemory_policy"], int(seen.info.get("maxmemory", "0"))
    told = f"maxmemory {words.size(limit) if limit else 'not set'}, policy {policy}"
    cure = "CONFIG SET maxmemory-policy volatile-lru, in a Redis of the cache's own"
    if not limit:
        yield warn(
            "eviction",
            told,
            "it grows until the machine has no memory left",
            "CONFIG SET maxmemory ..., and maxmemory-policy volatile-lru",
        )
    elif policy == "noeviction":
        yield warn("eviction", told, "when it is full it refuses writes", cure)
    elif policy.startswith("allkeys"):
        yield warn(
            "eviction",
            told,
            "it may evict what areas need for themselves; hosts then drop what they hold of the "
            "area, which costs loads",
            cure,
        )
    else:
        yield ok("eviction", told)


def clock(facts: Facts) -> Iterator[Finding]:
    """Whether its clock agrees with ours: the ages of values are told in Unix time."""
    seen = facts.redis
    if seen is None or seen.clock is None:
        return
    apart = max(0.0, abs(seen.clock) - seen.clock_error)
    told = (
        f"{words.seconds(abs(seen.clock))} {'ahead of' if seen.clock > 0 else 'behind'} this host"
    )
    if apart > _CLOCK:
        yield warn(
            "clock",
            f"its clock is {told}",
            "if it is this host's that is wrong, other hosts take its values for older or younger "
            "than they are",
            "see that all hosts run NTP (chronyc tracking, timedatectl)",
        )
    else:
        yield ok("clock", f"its clock is {told}")


def subscribers(facts: Facts) -> Iterator[Finding]:
    """Whether the channels have the listeners that they should have: one of each host."""
    seen, here = facts.redis, facts.seen
    if seen is None or seen.error is not None or here is None:
        return
    if not any(row.watched for row in here.rows):
        return
    if seen.subscribers is None:
        yield ok("subscribers", "not counted: this user may not ask for it (+pubsub)")
        return
    if seen.where["kind"] == "cluster":
        yield ok("subscribers", "not counted: on a cluster each node knows its own only")
        return
    *channels, own = seen.subscribers.items()
    silent = [name for name, number in channels if not number]
    connected = here.stats["link"]["connected_since"] is not None
    if connected and own[1] == 0:
        yield fail(
            "subscribers",
            "this host says that it listens, and this Redis has no subscriber of it",
            "it listens to another Redis than the one in these settings",
            "give the same URL, database and namespace here as to the application",
        )
    elif connected and silent:
        yield warn(
            "subscribers",
            f"nobody listens to {', '.join(silent)}",
            "changes there reach no host until it is subscribed to",
            "look again in a few seconds (accelerator listener)",
        )
    else:
        told = ", ".join(f"{name.rpartition(':')[2]} {number}" for name, number in channels)
        yield ok("subscribers", f"{told} (expected: one of each host)")


CHECKS: Final = (reachable, latency, version, writes, rights, memory, clock, subscribers)
