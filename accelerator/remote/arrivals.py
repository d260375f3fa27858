"""
How long a message takes to each host, and who does not hear it.

A probe is told in each area as any invalidation is: numbered, logged, published.  Each listener
answers when it has applied all up to it, on a channel of this one look that is subscribed to
before.  Times are of one clock, from just before the probe was sent to when the answer was read:
the way there, what was to be done before it, and the way back.

Who should answer is what Redis counts: connections that are subscribed to the area's channel.  Each
host has one.  Its own channel, of its heartbeats, tells which hosts there are, and whether one has
more: the connection of a listener that was stopped, and replaced by another worker's.  A user that
may not ask this (PUBSUB) is still told how many connections the message went to.

What is read is bounded, and whoever may publish here can answer for any host: nothing is done by
what is answered, it is only shown.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from accelerator.backend import HEARD_BEAT, HEARD_CONFIRMED
from accelerator.errors import ConfigError, RemoteError
from accelerator.lazy import Importing
from accelerator.message import MOST_PROBED, NONCE_SIZE, MessageError, parse_answer
from accelerator.remote import failures, names
from accelerator.remote.probe import Refusal, ask, subscribers
from accelerator.remote.subscription import Subscription
from accelerator.remote.sync import RedisRemote, connect

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from accelerator.config.settings import Settings
    from accelerator.message import Answer

MOST_HOSTS: Final = 4096
"""Of whom answers are kept, and who are asked about."""
_LONGEST_WAIT: Final = 0.1


class Arrival(NamedTuple):
    """An answer."""

    origin: str
    """Hexadecimal digits that name the host's segment."""
    host: str
    pid: int
    seconds: float
    """From when the probe was sent to when the answer was read here."""


@dataclass
class Probed:
    """
    What became of the probe of one area.

    Args:
        area: Its name.
        seq: Number of the probe.
        listeners: Connections that hear the area; None: this user may not know, on a cluster.
        arrivals: By origin and pid.
    """

    area: str
    seq: int
    listeners: int | None
    arrivals: dict[tuple[str, int], Arrival] = field(default_factory=dict)

    def replaced(self, hosts: Mapping[str, int] | None) -> int:
        """How many connections are of hosts that have answered by another one."""
        answered: dict[str, int] = {}
        for origin, _ in self.arrivals:
            answered[origin] = answered.get(origin, 0) + 1
        connections = hosts or {}
        return sum(max(0, connections.get(origin, 0) - n) for origin, n in answered.items())

    def missing(self, hosts: Mapping[str, int] | None) -> int | None:
        """How many hosts have not answered; None: it is not known who should."""
        if self.listeners is None:
            return None
        return max(0, self.listeners - len(self.arrivals) - self.replaced(hosts))

    def silent(self, hosts: Mapping[str, int] | None) -> list[str]:
        """List the hosts that are connected and have not answered, by origin."""
        answered = {origin for origin, _ in self.arrivals}
        return sorted(set(hosts or ()) - answered)


@dataclass(frozen=True)
class Arrivals:
    """
    What was found.

    Args:
        hosts: Connections of each host, by origin; None: this user may not ask.
        areas: In the order in which they were asked about.
    """

    hosts: Mapping[str, int] | None
    areas: Sequence[Probed]

    @property
    def complete(self) -> bool:
        """Whether all that are known of have answered."""
        return all(it.arrivals and it.missing(self.hosts) == 0 for it in self.areas)


def reach(settings: Settings) -> RedisRemote:
    """
    Make the second level of *settings*; a URL may lead to a node of a cluster.

    Raises:
        ConfigError: It leads to a sentinel, or to no Redis at all.
        RemoteError: It does not answer.
    """
    made = connect(settings)
    if not isinstance(settings.redis, str):
        return made
    connection = made.connection()
    try:
        mode = _mode(connection)
    except Exception as error:
        raise failures.failure(error, None, "probe") from None
    finally:
        connection.disconnect()
    if mode == "sentinel":
        raise ConfigError(
            "redis leads to a sentinel, which has no values: give the URL of the master",
            setting="redis",
        )
    if mode != "cluster":
        return made
    made.close()
    return connect(replace(settings, redis=_cluster(settings)))


def _mode(connection: Any) -> str:
    answer = ask(connection, "INFO", "server")
    if isinstance(answer, Refusal):
        return ""  # this user may not know, so that it is one server as far as we know
    for line in answer.decode("utf-8", "replace").splitlines():
        name, _, value = line.partition(":")
        if name in {"redis_mode", "server_mode"}:
            return str(value.strip())
    return ""


def _cluster(settings: Settings) -> Any:
    """Make a client of a cluster that begins with the node that is known."""
    with Importing():
        from redis.cluster import RedisCluster  # noqa: PLC0415  only where there is one

        scheme, _, rest = settings.redis.partition("://")
        scheme = {"valkey": "redis", "valkeys": "rediss"}.get(scheme.lower(), scheme)
        try:
            return RedisCluster.from_url(
                f"{scheme}://{rest}",
                socket_timeout=settings.redis_timeout,
                socket_connect_timeout=settings.redis_timeout,
            )
        except Exception as error:
            raise failures.failure(error, None, "probe") from None


def measure(remote: RedisRemote, areas: Sequence[str], timeout: float) -> Arrivals:
    """
    Send a probe in each area, and wait for the answers.

    Args:
        remote: Whose hosts are meant.
        areas: At most MOST_PROBED.
        timeout: Seconds to wait at most for the answers, after all was sent.

    Raises:
        RemoteError: Redis does not take it, or the connection broke.
    """
    areas = areas[:MOST_PROBED]
    nonce, origin = os.urandom(NONCE_SIZE), os.urandom(16)  # of no segment: all of them apply it
    channel = names.answers_channel(remote.namespace, nonce, remote.db)
    heard = Subscription(remote.connection(), channel, remote.channel)
    try:
        _subscribe(heard, timeout)
        counted, hosts = _listeners(remote, areas)
        sent, probed = {}, []
        for area in areas:
            sent[area] = time.monotonic()
            seq, told = remote.probe(area, nonce, origin)
            # On a cluster only those of one node were counted.
            known = counted.get(area) if counted is not None else None if remote.cluster else told
            probed.append(Probed(area, seq, known))
        found = Arrivals(hosts, probed)
        _collect(heard, found, sent, time.monotonic() + timeout)
    except OSError as error:
        raise failures.failure(error, None, "probe") from None
    finally:
        heard.close()
    return found


def _subscribe(heard: Subscription, timeout: float) -> None:
    """Subscribe, and wait until that is so: what is answered from now on is heard."""
    heard.subscribe([])
    until = time.monotonic() + timeout
    while True:
        kinds = [kind for kind, _, _ in heard.read(_LONGEST_WAIT).heard]
        if HEARD_CONFIRMED in kinds:
            return
        if time.monotonic() > until:
            raise RemoteError(
                "Redis did not confirm a subscription", reason="timeout", operation="probe"
            )


def _collect(heard: Subscription, found: Arrivals, sent: Mapping[str, float], until: float) -> None:
    by_area = {it.area: it for it in found.areas}
    while not found.complete and (left := until - time.monotonic()) > 0:
        read = heard.read(min(left, _LONGEST_WAIT))
        now = time.monotonic()
        for kind, _, data in read.heard:
            if kind != HEARD_BEAT or data is None:
                continue
            try:
                said = parse_answer(data)
            except MessageError:
                continue
            _note(said, by_area, sent, now)


def _note(
    said: Answer, by_area: Mapping[str, Probed], sent: Mapping[str, float], now: float
) -> None:
    """Keep the first answer of each listener."""
    origin = said.origin.decode("ascii")
    for area, seq in said.applied:
        probed = by_area.get(area)
        if probed is None or seq != probed.seq or len(probed.arrivals) >= MOST_HOSTS:
            continue
        arrival = Arrival(origin, said.host, said.pid, now - sent[area])
        probed.arrivals.setdefault((origin, said.pid), arrival)


# --- who listens ---


def _listeners(
    remote: RedisRemote, areas: Sequence[str]
) -> tuple[dict[str, int] | None, dict[str, int] | None]:
    """Count the connections that hear each area, and those of each host; None: we may not ask."""
    channels = {remote.channel(area): area for area in areas}
    pattern = names.host_channels(remote.namespace, remote.db)
    by_area: dict[str, int] | None = dict.fromkeys(areas, 0)
    by_host: dict[str, int] | None = {}
    connections = remote.connections()
    try:
        for connection in connections:
            heard = subscribers(connection, list(channels))
            by_area = _added(by_area, heard, channels.__getitem__)
            listed = ask(connection, "PUBSUB", "CHANNELS", pattern)
            if isinstance(listed, Refusal):
                by_host = None
                continue
            own = [name.decode("ascii", "replace") for name in listed[:MOST_HOSTS]]
            heard = subscribers(connection, own) if own else {}
            by_host = _added(by_host, heard, names.origin_of)
    except Exception as error:
        raise failures.failure(error, None, "probe") from None
    finally:
        for connection in connections:
            connection.disconnect()
    return by_area, by_host


def _added(
    sums: dict[str, int] | None, more: Mapping[str, int] | None, named: Any
) -> dict[str, int] | None:
    if sums is None or more is None:
        return None
    for name, number in more.items():
        sums[named(name)] = sums.get(named(name), 0) + number
    return sums
