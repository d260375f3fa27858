"""
What is not as it should be, in plain words: what it is, what it means, and which section of the
runbook says what to do.

Judged from what view.document() shows and from the events of the last minutes, so that one look is
enough: nothing is remembered between two of them.
"""  # noqa: D205  one sentence

from __future__ import annotations

from collections import Counter
from math import ceil
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from accelerator.errors import BackendError, LoaderError, LoaderTimeout
from accelerator.observability.events import CALL, KILLED, is_failure, outcome

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

Level = Literal["bad", "warn"]
Section = Literal[
    "redis-unreachable",
    "invalidation-broadcast-failure",
    "loader-timeout",
    "worker-killed",
    "segment-full",
    "dev-shm-too-small",
    "leader-stalled",
    "deploy-with-a-new-layout",
    "hot-key",
    "wrong-data-suspected",
    "the-endpoint",
]
"""Of the runbook; its heading has it as anchor."""

RUNBOOK: Final = "runbook.md"
_PATIENCE: Final = 5.0
"""Seconds after which what should be over soon is told."""
_NAMED: Final = 3
"""Areas that are named; of more the number is told."""
_RECENT: Final = 60.0
"""Seconds that failures and loads are looked back for."""
_MANY: Final = 10
"""Failures in that time that are told."""
_ENOUGH: Final = 20
"""Loads in that time of which a quantile means something."""
_NEAR: Final = 0.5
"""Share of its time limit that loads may take."""
_HOT: Final = 0.5
"""Share of all reads that one key may have,"""
_BUSY: Final = 1000.0
"""where there are so many a second: below, it harms nobody."""
_SURE: Final = 20_000
"""Reads of it that the sampled rate must rest on: about 20 samples,"""
_WINDOW: Final = 30.0
"""of so many seconds, or of those since the segment was made."""
_TURNS: Final = 600.0
"""Seconds in which processes that configure an area differently are found out."""


class Warning_(NamedTuple):  # noqa: N801  the name without it is a class of Python
    """Something that is not as it should be."""

    level: Level
    what: str
    means: str
    section: Section
    """Of the runbook."""

    def plain(self, docs: str | None) -> dict[str, str | None]:
        """Show it as plain data, with its link if there is a copy of the documentation."""
        page = f"{RUNBOOK}#{self.section}"
        url = None if docs is None else f"{docs.rstrip('/')}/{page}"
        shown = {"level": self.level, "what": self.what, "means": self.means}
        return {**shown, "page": f"docs/{page}", "url": url}


def of(shown: Mapping[str, Any], events: Sequence[Mapping[str, Any]] = ()) -> Iterator[Warning_]:
    """
    Judge; the worst comes first.

    Args:
        shown: As view.document() shows it.
        events: As Segment.events() lists them.
    """
    found = [*_overrides(shown), *_memory(shown), *_processes(shown), *_loads(shown)]
    found += [*_slow_loads(shown, events), *_failures(shown, events)]
    found += [*_hot_key(shown), *_configurations(shown, events)]
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
            "dev-shm-too-small",
        )
    if numbers["resets"]:
        yield Warning_(
            "bad",
            f"{_number(numbers['resets'], 'ring')} did not verify and had to be dropped.",
            "Values were lost, none was served damaged; something wrote where it should not.",
            "wrong-data-suspected",
        )
    if numbers["stats_lost"]:
        yield Warning_(
            "warn",
            "Some processes found no room for their counters.",
            "What they count in some area is not seen here; a larger segment has more room.",
            "segment-full",
        )


def _processes(shown: Mapping[str, Any]) -> Iterator[Warning_]:
    living = [each for each in shown["processes"] if each["alive"]]
    if not living:
        yield Warning_(
            "warn",
            "No process uses this segment.",
            "What it holds is out of use: the next process to attach starts empty.",
            "worker-killed",
        )
    stopped = [each for each in living if each["state"] in {"T", "t"}]
    if stopped:
        listens = any(each["listens"] for each in stopped)
        yield Warning_(
            "bad",
            f"Stopped: {_listed([str(each['pid']) for each in stopped], 'process', 'processes')}.",
            "What such a process holds, a lock or a load, the others wait for as long as they may.",
            "leader-stalled" if listens else "worker-killed",
        )
    slots = shown["segment"].get("process_slots", 0)
    if slots > 1 and len(living) >= 0.9 * slots:
        yield Warning_(
            "warn",
            f"{len(living)} of {slots} places for processes are taken.",
            "Processes that find none cache alone; a larger segment has more.",
            "segment-full",
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
            "loader-timeout" if any(each["alive"] for each in late) else "worker-killed",
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
            "invalidation-broadcast-failure",
        )


def _link(remote: Mapping[str, Any]) -> Iterator[Warning_]:
    meaning = "Reads are answered from this host and by loaders; changes wait in the outbox."
    if remote["refused"]:
        yield Warning_("bad", "Redis answers, but takes no writes.", meaning, "redis-unreachable")
    elif remote["breaker"] == "open":
        again = f"asked again in {remote['open_for']:.0f} s"
        yield Warning_("bad", f"Redis does not answer ({again}).", meaning, "redis-unreachable")
    elif not remote["ready"]:
        age = remote["confirmed_age"]
        since = "has not taken a write yet" if age is None else f"took no write for {age:.0f} s"
        yield Warning_("bad", f"Redis {since}.", meaning, "redis-unreachable")
    elif remote["breaker"] != "closed":
        yield Warning_("warn", "Redis is being tried again.", meaning, "redis-unreachable")
    elif not remote["settled"]:
        meaning = "It is read again within a second."
        yield Warning_("warn", "Redis has just come back.", meaning, "redis-unreachable")


def _listener(listener: Mapping[str, Any]) -> Iterator[Warning_]:
    meaning = (
        "Changes of other hosts are not heard; areas are out of step as soon as the bound has "
        "passed, and serve what on_desync says."
    )
    if listener["pid"] is None:
        yield Warning_("bad", "Nobody of this host listens.", meaning, "leader-stalled")
    elif listener["connected_since"] is None:
        retry = listener["next_retry_in"]
        tries = "" if retry is None else f"; it tries again in {retry:.1f} s"
        what = f"The listener, process {listener['pid']}, is not connected{tries}."
        yield Warning_("bad", what, meaning, "invalidation-broadcast-failure")


def _areas(shown: Mapping[str, Any]) -> Iterator[Warning_]:
    behind = [name for name, area in shown["areas"].items() if area["in_step"] is False]
    if behind:
        yield Warning_(
            "warn",
            f"Out of step with other hosts: {_listed(behind, 'area')}.",
            "It is not known that they are current: reads get what on_desync allows.",
            "invalidation-broadcast-failure",
        )
    owing = [name for name, area in shown["areas"].items() if area["owes_clear"]]
    if owing:
        yield Warning_(
            "bad",
            f"The other hosts are owed a clear of {_listed(owing, 'area')}.",
            "Changes did not fit into the outbox: the whole area is cleared when Redis is back.",
            "invalidation-broadcast-failure",
        )


# --- what an operator has set -------------------------------------------------------------------


class _Override(NamedTuple):
    """What it means that an option has some value."""

    section: Section
    meaning: Mapping[Any, str]
    """By value; None: whatever it is."""


_OVERRIDES: Final[Mapping[str, _Override]] = {
    "mode": _Override(
        "redis-unreachable",
        {
            "local": "Redis is not asked: what this host holds is served without a bound, and "
            "changes wait in the outbox.",
            "remote": "Nothing is kept on this host: every read asks Redis.",
            "both": "Reads are answered from this host and from Redis.",
            "off": "Nothing is cached: every read is a load.",
        },
    ),
    "loader_timeout": _Override("loader-timeout", {None: "A load may take as long as this."}),
    "max_loads": _Override(
        "loader-timeout", {None: "So many loads that nobody waits for may run at the same time."}
    ),
    "ttl": _Override(
        "wrong-data-suspected", {None: "Nothing that is stored from now on lives longer."}
    ),
    "allow_stale": _Override(
        "loader-timeout",
        {
            True: "Reads may be answered with a value past its life.",
            False: "Only reads that ask for it get a value past its life.",
        },
    ),
    "penetration_protect": _Override(
        "loader-timeout",
        {
            True: "A key that is missed is loaded once on this host, however many ask for it.",
            False: "Every process that misses a key loads it itself.",
        },
    ),
    "on_desync": _Override(
        "invalidation-broadcast-failure",
        {
            "cap": "While it is not known to be current, only what was loaded within the bound is "
            "served.",
            "bypass": "While it is not known to be current, nothing is served from this host.",
            "serve": "While it is not known to be current, it is served to the end of its life.",
        },
    ),
    "breaker": _Override(
        "redis-unreachable",
        {
            "open": "No process of this host asks Redis.",
            "closed": "Redis is asked whether it answers or not: every call may take its time.",
        },
    ),
}


def _overrides(shown: Mapping[str, Any]) -> Iterator[Warning_]:
    """One for each option and value."""
    kinds: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for each in shown["overrides"]:
        kinds.setdefault((each["option"], each["text"]), []).append(each)
    for (option, text), found in kinds.items():
        known = _OVERRIDES[option]
        means = known.meaning.get(found[0]["value"]) or known.meaning[None]
        yield Warning_(
            "warn",
            f"Overridden: {option}={text} for {_concerned(found)}{_until(found)}.",
            means + _acting(shown["overrides_seen"]),
            known.section,
        )


def _concerned(found: Sequence[Mapping[str, Any]]) -> str:
    names = [each["area"] for each in found]
    return "all areas" if "" in names else _listed(sorted(names), "area")


def _until(found: Sequence[Mapping[str, Any]]) -> str:
    left = [each["left"] for each in found]
    if None in left:
        return ", until it is reset"
    most = max(left)
    return f", for {most:.0f} s" if most < 120 else f", for {most / 60:.0f} min"


def _acting(seen: Sequence[int]) -> str:
    acting, of_all = seen
    return "" if acting >= of_all else f" So far {acting} of {of_all} processes act on it."


# --- what the last minutes tell -----------------------------------------------------------------


def _recent(shown: Mapping[str, Any], events: Sequence[Mapping[str, Any]], seconds: float) -> Any:
    since = shown["time"] - seconds
    return [each for each in events if each["time"] >= since]


_LOADS: Final = {"load": "loader_timeout", "mload": "batch_timeout"}
"""Operations that are loads, and the options that limit them."""


def _slow_loads(
    shown: Mapping[str, Any], events: Sequence[Mapping[str, Any]]
) -> Iterator[Warning_]:
    took: dict[tuple[str, str], list[float]] = {}
    for each in _recent(shown, events, _RECENT):
        if each["op"] in _LOADS and each["latency_ms"] is not None:
            took.setdefault((each["area"], each["op"]), []).append(each["latency_ms"] / 1000)
    for (area, op), found in sorted(took.items()):
        known = shown["areas"].get(area, {}).get("config") or {}
        limit = known.get(_LOADS[op]) or known.get("loader_timeout")
        if limit is None or len(found) < _ENOUGH:
            continue
        p99 = sorted(found)[ceil(0.99 * len(found)) - 1]
        if p99 >= _NEAR * limit:
            what = "Loads" if op == "load" else "Batches of loads"
            yield Warning_(
                "warn",
                f"{what} of area {area} come near {_LOADS[op]}: p99 is {_seconds(p99)} of "
                f"{_seconds(limit)}.",
                "Those that take longer are given up, and their readers get a stale value or an "
                "error.",
                "loader-timeout",
            )


class _Failures(NamedTuple):
    """A kind of failures."""

    one: str
    several: str
    means: str
    section: Section


_FAILED: Final[Mapping[str, _Failures]] = {
    "load": _Failures(
        "load has failed",
        "loads have failed",
        "Their readers got a stale value where that is allowed, else an error.",
        "loader-timeout",
    ),
    "redis": _Failures(
        "operation has done without Redis",
        "operations have done without Redis",
        "Redis answers, but not always, or not in time: what it did not answer is loaded, what it "
        "did not take waits in the outbox.",
        "redis-unreachable",
    ),
    "listen": _Failures(
        "message has not been understood or applied",
        "messages have not been understood or applied",
        "What is not understood makes the host forget the area, which costs loads.",
        "invalidation-broadcast-failure",
    ),
    "else": _Failures(
        "operation has failed",
        "operations have failed",
        "The events below say which, and of what kind.",
        "wrong-data-suspected",
    ),
}
_SAID_BY_LOADS: Final = frozenset({LoaderError.kind, LoaderTimeout.kind})
"""Kinds of failures of reads that are failures of loads, which have events of their own."""


def _family(event: Mapping[str, Any]) -> str | None:
    """Which kind of failure it is; None: another event, of the load or the operation, tells it."""
    op = event["op"]
    if op in _LOADS:
        return "load"
    if op == "listen":
        return "listen"
    if event["error_kind"] == BackendError.kind:
        return "redis"
    is_told = event["error_kind"] in _SAID_BY_LOADS or op.startswith(CALL)
    return None if is_told else "else"


def _is_held(shown: Mapping[str, Any], area: str) -> bool:
    """Tell whether an area is kept from Redis by order, so that its changes have to wait."""
    modes = {each["area"]: each["value"] for each in shown["overrides"] if each["option"] == "mode"}
    return modes.get(area, modes.get("")) in {"local", "off"}


def _failures(shown: Mapping[str, Any], events: Sequence[Mapping[str, Any]]) -> Iterator[Warning_]:
    kinds: dict[str, Counter[str]] = {}
    killed: list[str] = []
    for each in filter(is_failure, _recent(shown, events, _RECENT)):
        if outcome(each) == KILLED:
            killed.append(each["area"])
        elif (family := _family(each)) is not None:
            if family == "redis" and _is_held(shown, each["area"]):
                continue  # the override says it
            where = f"{each['op']} {each['area']}".strip() + f" {each['error_kind']}"
            # A batch that failed is one failure, whatever the number of its keys.
            number = 1 if each["op"] in _LOADS else each["count"]
            kinds.setdefault(family, Counter())[where] += number
    if shown["remote"] is not None and shown["remote"]["breaker"] != "closed":
        kinds.pop("redis", None)  # the breaker says it
    for family, found in kinds.items():
        number, known = found.total(), _FAILED[family]
        if number >= _MANY:
            most = ", ".join(f"{name} {n:,}" for name, n in found.most_common(_NAMED))
            what = known.one if number == 1 else known.several
            yield Warning_(
                "warn", f"{number:,} {what} in the last minute: {most}.", known.means, known.section
            )
    if killed:
        areas = _listed(sorted(set(filter(None, killed))) or ["?"], "area")
        yield Warning_(
            "warn",
            f"{_number(len(killed), 'operation')} of {areas} cut off by the death of a process.",
            "Whoever needs the key has taken over; look why the process had to die.",
            "worker-killed",
        )


def _hot_key(shown: Mapping[str, Any]) -> Iterator[Warning_]:
    counted = min(_WINDOW, shown["time"] - shown["segment"]["created"])
    for key in shown["hot_keys"][:1]:
        is_sure = key["share"] is not None and key["rate"] * counted >= _SURE
        if is_sure and key["share"] >= _HOT and key["rate"] >= _BUSY:
            yield Warning_(
                "warn",
                f"One key has {key['share']:.0%} of all reads: {key['hash']} of area "
                f"{key['area']}, {key['rate']:,.0f}/s.",
                "Hits of it cost little. When it is deleted or ends, all of its readers wait for "
                "one load at once.",
                "hot-key",
            )


def _configurations(
    shown: Mapping[str, Any], events: Sequence[Mapping[str, Any]]
) -> Iterator[Warning_]:
    """
    Find areas that processes configure differently.

    Each time that a process finds another configuration than its own it says so.  A deploy, or an
    override, is one such time; two processes that differ are one each time that one of them begins.
    """
    turns: dict[str, list[int]] = {}
    for each in _recent(shown, events, _TURNS):
        if each["op"] == "config":
            turns.setdefault(each["area"], []).append(each["pid"])
        elif each["op"] == "override":
            return  # processes take it over one by one
    differ = sorted(area for area, pids in turns.items() if len(set(pids)) > 1)
    if differ:
        yield Warning_(
            "warn",
            f"Processes configure {_listed(differ, 'area')} differently.",
            "Each uses its own options, so what a read gets depends on which process answers it; "
            "during a deploy that is so for a while.",
            "deploy-with-a-new-layout",
        )


def _seconds(number: float) -> str:
    return f"{number * 1000:.0f} ms" if number < 1 else f"{number:.1f} s".replace(".0 s", " s")


# --- how it is said -----------------------------------------------------------------------------


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
