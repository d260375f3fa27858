"""
One look at a whole segment that is cheap enough to be taken every few seconds by everybody.

``Segment.stats()`` walks every value to measure what areas hold: 20 ms for a hundred thousand.
Here that is taken as a process of the host last measured it, a second or a hundredth of its time
ago, and everything else as it is now.  A segment that no process uses is measured by nobody: what
areas hold is then as its last one left it.

Where there is no segment, but memory of this process in pure Python, it is all measured.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from accelerator import local
from accelerator.observability.mapped import Counted, Gauge, Tables, Totals

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

NO_LATENCIES: Final = (0,) * (len(local.LATENCY_BOUNDS) + 2)


@dataclass(frozen=True, slots=True)
class Area:
    """An area, over all processes that ever were."""

    gauge: Gauge
    totals: Totals


@dataclass(frozen=True, slots=True)
class Reading:
    """
    A segment at one moment.

    Args:
        at: Seconds of a clock that does not jump.
        wall: Unix seconds.
        origin: Random name of the segment: another one has begun anew.
        segment: As ``Segment.stats()["segment"]``; entries and live_bytes as last measured.
        areas: By name.
        counted: By process.
        processes: As Segment.alive().
        link: As Segment.link().
        leader: As Segment.leader().
        owed: Areas that owe the other hosts a clear.
    """

    at: float
    wall: float
    origin: bytes
    segment: Mapping[str, Any]
    areas: Mapping[str, Area]
    counted: Counted
    processes: Sequence[Mapping[str, Any]]
    link: Mapping[str, Any]
    leader: Mapping[str, Any]
    owed: Sequence[str]

    @property
    def has_remote(self) -> bool:
        """Whether anybody has a second level behind it, or had one."""
        watched = any(area.gauge.watched for area in self.areas.values())
        return watched or bool(self.leader["term"])


class Reader:
    """
    Who looks again and again.

    Args:
        memory: Mapped in whatever way.
    """

    def __init__(self, memory: local.Segment) -> None:
        self.memory = memory
        self._numbers: dict[str, Any] = memory.stats()["segment"]  # sizes, which never change
        self._tables = Tables(memory, self._numbers) if hasattr(memory, "raw") else None

    def read(self, *, processes: bool = True) -> Reading:
        """Look; no lock is taken, nothing stored, nobody asked."""
        memory = self.memory
        found = self._of_tables(processes) if self._tables else self._of_process()
        gauges, counted, summary = found
        return Reading(
            at=time.monotonic(),
            wall=time.time(),
            origin=memory.origin,
            segment={**self._numbers, **summary},
            areas={gauge.name: Area(gauge, counted.areas[gauge.name]) for gauge in gauges},
            counted=counted,
            processes=memory.alive(),
            link=memory.link(),
            leader=memory.leader(),
            owed=memory.outbox_owed(),
        )

    def _of_tables(self, processes: bool) -> tuple[list[Gauge], Counted, dict[str, Any]]:
        assert self._tables is not None
        gauges = self._tables.gauges()  # first: areas that come meanwhile are in what is counted
        summary = {
            **self._tables.summary(),
            "entries": sum(gauge.entries for gauge in gauges),
            "live_bytes": sum(gauge.bytes for gauge in gauges),
        }
        return gauges, self._tables.counted(processes=processes), summary

    def _of_process(self) -> tuple[list[Gauge], Counted, dict[str, Any]]:
        memory: Any = self.memory
        gauges = [Gauge(*each) for each in memory.gauges()]
        histograms, stats = memory.histograms(), memory.stats()
        areas = {}
        for gauge in gauges:
            counters = {name: stats["areas"][gauge.name][name] for name in local.COUNTERS}
            loads, l2 = histograms[gauge.name]
            areas[gauge.name] = Totals(counters, tuple(loads), tuple(l2))
        added = {
            name: sum(area.counters[name] for area in areas.values()) for name in local.COUNTERS
        }
        me = memory.incarnation
        own = Totals(added, NO_LATENCIES, NO_LATENCIES)
        return gauges, Counted(areas, {me: own}, {me: 0}), stats["segment"]
