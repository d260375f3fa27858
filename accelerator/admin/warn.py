"""What is not as it should be, in plain words: what it is, what it means, and where to read on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

Level = Literal["bad", "warn"]

OPERATE: Final = "how-to/operate.md"
REDIS: Final = "how-to/use-redis.md"
SIZE: Final = "how-to/size-the-segment.md"
LOADS: Final = "how-to/load-on-a-miss.md"
_PATIENCE: Final = 5.0
"""Seconds after which what should be over soon is told."""
_NAMED: Final = 3
"""Areas that are named; of more the number is told."""


class Warning_(NamedTuple):  # noqa: N801  the name without it is a class of Python
    """Something that is not as it should be."""

    level: Level
    what: str
    means: str
    page: str
    """Of the documentation, perhaps with an anchor."""

    def plain(self, docs: str | None) -> dict[str, str | None]:
        """Show it as plain data, with its link if there is a copy of the documentation."""
        url = None if docs is None else f"{docs.rstrip('/')}/{self.page}"
        return {**self._asdict(), "page": f"docs/{self.page}", "url": url}


def of(shown: Mapping[str, Any]) -> Iterator[Warning_]:
    """Judge what view.document() shows; the worst comes first."""
    found = [*_memory(shown), *_processes(shown), *_loads(shown)]
    if shown["remote"] is not None:
        found += [*_redis(shown["remote"]), *_areas(shown)]
    yield from sorted(found, key=lambda warning: warning.level != "bad")  # stable


def _memory(shown: Mapping[str, Any]) -> Iterator[Warning_]:
    numbers = shown["segment"]
    if shown["degraded"] is not None:
        yield Warning_(
            "bad",
            "The process that answers caches alone.",
            f"It does not use what its settings ask for: {shown['degraded']}",
            f"{OPERATE}#ask-what-is-wrong",
        )
    if numbers["resets"]:
        yield Warning_(
            "bad",
            f"{_number(numbers['resets'], 'ring')} did not verify and had to be dropped.",
            "Values were lost, none was served damaged; something wrote where it should not.",
            "reference/metrics.md#the-segment",
        )
    if numbers["stats_lost"]:
        yield Warning_(
            "warn",
            "Some processes found no room for their counters.",
            "What they count in some area is not seen here; a larger segment has more room.",
            SIZE,
        )


def _processes(shown: Mapping[str, Any]) -> Iterator[Warning_]:
    living = [each for each in shown["processes"] if each["alive"]]
    if not living:
        yield Warning_(
            "warn",
            "No process uses this segment.",
            "What it holds is out of use: the next process to attach starts empty.",
            f"{OPERATE}#the-life-of-a-segment",
        )
    stopped = [each for each in living if each["state"] in {"T", "t"}]
    if stopped:
        yield Warning_(
            "bad",
            f"Stopped: {_listed([str(each['pid']) for each in stopped], 'process', 'processes')}.",
            "What such a process holds, a lock or a load, the others wait for as long as they may.",
            f"{OPERATE}#what-happens-on-",
        )
    slots = shown["segment"].get("process_slots", 0)
    if slots > 1 and len(living) >= 0.9 * slots:
        yield Warning_(
            "warn",
            f"{len(living)} of {slots} places for processes are taken.",
            "Processes that find none cache alone; a larger segment has more.",
            SIZE,
        )


def _loads(shown: Mapping[str, Any]) -> Iterator[Warning_]:
    loads = [each for each in shown["flights"] if not each["lock"]]
    late = [each for each in loads if each["lease_left"] < 0 or not each["alive"]]
    if late:
        areas = sorted({each["area"] for each in late})
        yield Warning_(
            "warn",
            f"{_number(len(late), 'load')} should have ended, in {_listed(areas, 'area')}.",
            "Their process is dead or has been at it for longer than the lease: whoever needs the "
            "key takes over.",
            f"{LOADS}",
        )


def _redis(remote: Mapping[str, Any]) -> Iterator[Warning_]:
    yield from _link(remote)
    yield from _listener(remote["listener"])
    oldest = remote["outbox_oldest_age"]
    if remote["outbox_depth"] and oldest is not None and oldest > _PATIENCE:
        yield Warning_(
            "warn",
            f"{_number(remote['outbox_depth'], 'change')} not told to Redis, the oldest for "
            f"{oldest:.0f} s.",
            "Other hosts do not see them yet; they are kept, and sent when Redis takes them.",
            f"{REDIS}#when-redis-is-slow-gone-full-or-wrong",
        )


def _link(remote: Mapping[str, Any]) -> Iterator[Warning_]:
    page = f"{REDIS}#when-redis-is-slow-gone-full-or-wrong"
    meaning = "Reads are answered from this host and by loaders; changes wait in the outbox."
    if remote["refused"]:
        yield Warning_("bad", "Redis answers, but takes no writes.", meaning, page)
    elif remote["breaker"] == "open":
        again = f"asked again in {remote['open_for']:.0f} s"
        yield Warning_("bad", f"Redis does not answer ({again}).", meaning, page)
    elif not remote["ready"]:
        age = remote["confirmed_age"]
        since = "has not taken a write yet" if age is None else f"took no write for {age:.0f} s"
        yield Warning_("bad", f"Redis {since}.", meaning, page)
    elif remote["breaker"] != "closed":
        yield Warning_("warn", "Redis is being tried again.", meaning, page)
    elif not remote["settled"]:
        yield Warning_(
            "warn", "Redis has just come back.", "It is read again within a second.", page
        )


def _listener(listener: Mapping[str, Any]) -> Iterator[Warning_]:
    page = f"{OPERATE}#ask-who-listens"
    meaning = (
        "Changes of other hosts are not heard; areas are out of step as soon as the bound has "
        "passed, and serve what on_desync says."
    )
    if listener["pid"] is None:
        yield Warning_("bad", "Nobody of this host listens.", meaning, page)
    elif listener["connected_since"] is None:
        retry = listener["next_retry_in"]
        tries = "" if retry is None else f"; it tries again in {retry:.1f} s"
        what = f"The listener, process {listener['pid']}, is not connected{tries}."
        yield Warning_("bad", what, meaning, page)


def _areas(shown: Mapping[str, Any]) -> Iterator[Warning_]:
    behind = [name for name, area in shown["areas"].items() if area["in_step"] is False]
    if behind:
        yield Warning_(
            "warn",
            f"Out of step with other hosts: {_listed(behind, 'area')}.",
            "It is not known that they are current: reads get what on_desync allows.",
            "explanation/consistency.md#the-segment-is-a-lease",
        )
    owing = [name for name, area in shown["areas"].items() if area["owes_clear"]]
    if owing:
        yield Warning_(
            "bad",
            f"The other hosts are owed a clear of {_listed(owing, 'area')}.",
            "Changes did not fit into the outbox: the whole area is cleared when Redis is back.",
            f"{REDIS}#when-redis-is-slow-gone-full-or-wrong",
        )


def _number(number: int, one: str) -> str:
    return f"{number:,} {one}" if number == 1 else f"{number:,} {one}s"


def _listed(names: Sequence[str], one: str, many: str | None = None) -> str:
    """Name a few things; of many, tell the number."""
    if len(names) == 1:
        return f"{one} {names[0]}"
    several = many or f"{one}s"
    if len(names) > _NAMED:
        return f"{len(names)} {several}"
    return f"{several} {', '.join(names[:-1])} and {names[-1]}"
