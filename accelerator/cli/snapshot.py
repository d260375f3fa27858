"""What there is to see of a segment at one moment, and what has changed between two of them."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from accelerator import local, segment
from accelerator.observability import particulars, tables
from accelerator.observability.diagnostics import quantile
from accelerator.observability.processes import Usage, usage_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from accelerator.observability.particulars import HotKeySnapshot, OverrideSnapshot
    from accelerator.observability.tables import AreaRow, Block

_OBJECT_HIT: Final = local.COUNTERS.index("object_hit")
_LOCAL_HIT: Final = local.COUNTERS.index("local_hit")

Counted = dict[str, int]
"""By the names of the counters."""


@dataclass(frozen=True)
class Worker:
    """A living process that uses the segment."""

    incarnation: int
    pid: int
    """As it calls itself, perhaps in another PID namespace."""
    here: int
    """As it is called here; 0: it cannot be seen from here."""
    attached: float
    """Seconds ago."""
    usage: Usage | None
    """None: it cannot be seen from here."""


@dataclass(frozen=True)
class Snapshot:
    """
    A segment at one moment.

    Args:
        at: Seconds of a clock that does not jump.
        wall: Unix seconds.
        file: Of the segment.
        origin: Random name of the segment: another one has begun anew.
        stats: As Segment.stats().
        flights: As Segment.flights().
        workers: Of the living processes.
        rows: Of the areas.
        blocks: What each process has counted in each area.
        owed: Areas that owe the other hosts a clear.
        overrides: What an operator has set for now.
        acting: How many processes act on exactly these, of how many.
        keys: Which are read most, the hottest first.
    """

    at: float
    wall: float
    file: segment.SegmentFile
    origin: bytes
    stats: Mapping[str, Any]
    flights: Sequence[Mapping[str, Any]] = ()
    workers: Sequence[Worker] = ()
    rows: Sequence[AreaRow] = ()
    blocks: Mapping[int, Block] = field(default_factory=dict)
    owed: Sequence[str] = ()
    overrides: Sequence[OverrideSnapshot] = ()
    acting: tuple[int, int] = (0, 0)
    keys: Sequence[HotKeySnapshot] = ()


def take(file: segment.SegmentFile) -> Snapshot:
    """
    Look at a segment; reads only.

    Raises:
        NotAttached: There is none of that name any more, or it cannot be read.
    """
    memory = segment.inspect(file)
    stats = memory.stats()
    return Snapshot(
        at=time.monotonic(),
        wall=time.time(),
        file=file,
        origin=memory.origin,
        stats=stats,
        flights=sorted(memory.flights(), key=lambda each: -each["age"]),
        workers=[_worker(memory, process) for process in stats["processes"] if process["alive"]],
        rows=tables.areas(memory),
        blocks=tables.blocks(memory),
        owed=memory.outbox_owed(),
        overrides=particulars.in_force(memory),
        acting=memory.overrides_seen(),
        keys=particulars.hot_keys(memory),
    )


def _worker(memory: local.Segment, process: Mapping[str, Any]) -> Worker:
    pid = segment.pid_here(memory, process["incarnation"])
    usage = usage_of(pid) if pid else None
    return Worker(process["incarnation"], process["pid"], pid, process["attached"], usage)


class Change:
    """
    What has happened between two snapshots.

    Args:
        before: The earlier one; None: there is none, so nothing is known to have happened.
        after: The later one.
    """

    def __init__(self, before: Snapshot | None, after: Snapshot) -> None:
        if before is not None and before.origin != after.origin:
            before = None  # the segment was replaced: its counters began anew
        self.before = before
        self.after = after
        self.seconds = 0.0 if before is None else after.at - before.at

    def rate(self, number: float) -> float | None:
        """*number* a second; None: no time has passed that is known."""
        return number / self.seconds if self.seconds > 0 else None

    def area(self, name: str) -> Counted:
        """What an area has counted."""
        now = self.after.stats["areas"].get(name, {})
        then = {} if self.before is None else self.before.stats["areas"].get(name, {})
        if self.before is None:
            return dict.fromkeys(now, 0)
        return {counter: max(0, n - then.get(counter, 0)) for counter, n in now.items()}

    def total(self) -> Counted:
        """What all areas have counted."""
        return added(self.area(name) for name in self.after.stats["areas"])

    def worker(self, incarnation: int) -> Counted:
        """
        What a process has counted.

        By blocks and not by sums of its blocks: a block that it has taken over from a dead one
        came with what that had counted.
        """
        found = [0] * len(local.COUNTERS)
        for number, block in self.after.blocks.items():
            if block.incarnation == incarnation and self.before is not None:
                for place, n in enumerate(self._since(number, block, "counters")):
                    found[place] += n
        found[_LOCAL_HIT] += found[_OBJECT_HIT]
        return dict(zip(local.COUNTERS, found, strict=True))

    def loads(self, area: str | None = None) -> list[int]:
        """How many loads took how long, in an area or in all; as Block.loads."""
        return self._histogram("loads", area)

    def l2(self, area: str | None = None) -> list[int]:
        """How many calls of the second level took how long."""
        return self._histogram("l2", area)

    def cpu(self, worker: Worker) -> float | None:
        """Share of one processor that a process has used; None: it cannot be told."""
        then = {each.incarnation: each.usage for each in self.before.workers} if self.before else {}
        earlier = then.get(worker.incarnation)
        if worker.usage is None or earlier is None:
            return None
        return self.rate(max(0.0, worker.usage.cpu - earlier.cpu))

    def _histogram(self, which: str, area: str | None) -> list[int]:
        found = [0] * (len(local.LATENCY_BOUNDS) + 2)
        for number, block in self.after.blocks.items():
            if area in {None, block.area} and self.before is not None:
                for place, n in enumerate(self._since(number, block, which)):
                    found[place] += n
        return found

    def _since(self, number: int, block: Block, which: str) -> Iterable[int]:
        now: tuple[int, ...] = getattr(block, which)
        assert self.before is not None
        earlier = self.before.blocks.get(number)
        then: tuple[int, ...] = getattr(earlier, which) if earlier else (0,) * len(now)
        return (max(0, n - m) for n, m in zip(now, then, strict=True))


def added(counted: Iterable[Mapping[str, int]]) -> Counted:
    """The sums."""
    found: Counted = {}
    for each in counted:
        for name, n in each.items():
            found[name] = found.get(name, 0) + n
    return found


def reads(counted: Mapping[str, int]) -> int:
    """How many keys were read."""
    return counted.get("local_hit", 0) + counted.get("local_miss", 0)


class Tiers(NamedTuple):
    """Shares of the keys read, by what answered; of 1."""

    hits: float
    """From this host: objects and segment together."""
    objects: float
    segment: float
    redis: float


def tiers(counted: Mapping[str, int]) -> Tiers | None:
    """Who answered the reads; None: there were none."""
    number = reads(counted)
    if not number:
        return None
    objects = min(counted["object_hit"], counted["local_hit"])
    return Tiers(
        hits=counted["local_hit"] / number,
        objects=objects / number,
        segment=(counted["local_hit"] - objects) / number,
        redis=min(counted["remote_hit"], counted["local_miss"]) / number,
    )


def latency(share: float, histogram: Sequence[int]) -> float | None:
    """Upper bound in seconds of a quantile; see diagnostics.quantile()."""
    return quantile(share, local.LATENCY_BOUNDS, histogram[:-1])
