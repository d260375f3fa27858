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
from typing import TYPE_CHECKING, Any

from accelerator.observability import mapped

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from accelerator import local
    from accelerator.observability.mapped import Counted, Gauge, Totals


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

    def read(self, *, processes: bool = True) -> Reading:
        """Look; no lock is taken, nothing stored, nobody asked."""
        memory = self.memory
        gauges, counted, changing = mapped.look(memory, processes=processes)
        held = {
            "entries": sum(gauge.entries for gauge in gauges),
            "live_bytes": sum(gauge.bytes for gauge in gauges),
        }
        return Reading(
            at=time.monotonic(),
            wall=time.time(),
            origin=memory.origin,
            segment={**self._numbers, **changing, **held},
            areas={gauge.name: Area(gauge, counted.areas[gauge.name]) for gauge in gauges},
            counted=counted,
            processes=memory.alive(),
            link=memory.link(),
            leader=memory.leader(),
            owed=memory.outbox_owed(),
        )
