"""
What a segment holds and has counted, cheap enough to be read every few seconds by everybody.

Read from the mapped bytes, without a walk over its values, also where a segment was opened for
reading only.  Nothing is stored and no lock is taken: every word is read once, and a word is all
that must not be torn.

The places below repeat native/core/layout.h and the first lines of acc_geometry_of().  The package
and its native part are built together, and a test compares all of it with what the native part says
itself: whoever moves a field there is told so.
"""

from __future__ import annotations

import struct
import sys
import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from accelerator import local

if TYPE_CHECKING:
    from collections.abc import Iterator

_PROCESSES_AT: Final = 4096
_PROCESS_SIZE: Final = 64
_STATS_SLOTS: Final = 55
_LATENCIES: Final = len(local.LATENCY_BOUNDS) + 2
_STATS: Final = struct.Struct(f"=II{_STATS_SLOTS}Q{_LATENCIES}Q{_LATENCIES}Q")
_OWNER_AREA: Final = struct.Struct("=II")
_GAUGES: Final = struct.Struct("=16xQ4xI32xIIQQ104s16xI44x")
"""fresh_until, base, state, name_size, entries, bytes, name, watched."""
_STATS_LOST: Final = struct.Struct("=392xQ")
_RING_UNITS: Final = struct.Struct("=276xIQQ")
"""shards, and the units of the two rings of each."""
_RING_UNIT: Final = 8
_SHARD: Final = struct.Struct("=144xQQ32x")
"""resets, takeovers."""
_CLAIMED: Final = 1
_UNITS_PER_SECOND: Final = 250
_FRESH_MOST: Final = 90 * 86400.0
"""No lease of an area is longer, in seconds: what says so is garbage."""
_PRINT: Final = (1 << 32) - 1


class Totals(NamedTuple):
    """What was counted in one area, or by one process."""

    counters: dict[str, int]
    """By the names of local.COUNTERS."""
    loads: tuple[int, ...]
    """As those of Block."""
    l2: tuple[int, ...]


class Gauge(NamedTuple):
    """What an area has in the segment, as last measured by a process that uses it."""

    name: str
    entries: int
    bytes: int
    watched: bool
    in_step_for: float | None
    """As that of AreaRow."""


class Counted(NamedTuple):
    """The sums over all blocks."""

    areas: dict[str, Totals]
    """Every area, whether anything was counted in it or not."""
    processes: dict[int, Totals]
    """By incarnation."""
    blocks: dict[int, int]
    """
    By incarnation: a number that is another one when it counts in other blocks.

    A block that was taken over from a dead process comes with what that had counted, so only looks
    with the same number may be compared.
    """


class Tables:
    """
    The tables of one mapped segment.

    Args:
        memory: A segment of this version, mapped in whatever way.
        numbers: ``memory.stats()["segment"]``, which has the sizes of the tables.
    """

    def __init__(self, memory: local.Segment, numbers: dict[str, Any]) -> None:
        self._raw = memory.raw()
        self._numbers = numbers
        self._areas = int(numbers["area_slots"])
        self._area_at = _PROCESSES_AT + _PROCESS_SIZE * int(numbers["process_slots"])
        self._stats_at = self._area_at + _GAUGES.size * self._areas
        self._blocks = min(max(int(numbers["size"]) >> 15, 64), 16384)

    def gauges(self) -> list[Gauge]:
        """Give every area with what was last measured of it, in the order of their names."""
        now = time.monotonic()
        return sorted(gauge for _, gauge in self._gauges(now))

    def _gauges(self, now: float) -> Iterator[tuple[int, Gauge]]:
        for number in range(self._areas):
            at = self._area_at + number * _GAUGES.size
            until, base, state, size, entries, held, name, watched = _GAUGES.unpack_from(
                self._raw, at
            )
            if state == _CLAIMED and base == 0:  # else it is a version, which counts in its area
                text = str(name[:size].decode("utf-8", "replace"))
                ahead = _ahead(until, now)
                yield number, Gauge(text, entries, held, watched == 1, ahead)

    def counted(self, *, processes: bool = True) -> Counted:
        """
        Sum up what all processes have counted, by area and, if wanted, by process.

        A block is added as one long number: its words are digits that no sum of them overflows, so
        one addition adds all of them, and thousands of blocks take milliseconds.
        """
        names = {number + 1: gauge.name for number, gauge in self._gauges(0.0)}
        size, head = _STATS.size, _OWNER_AREA.size
        # One copy of them all: a view of each would take longer.
        data = bytes(self._raw[self._stats_at : self._stats_at + self._blocks * size])
        heads = memoryview(data).cast("I")
        owners = heads[:: size // heads.itemsize].tolist()
        sums = dict.fromkeys(names, 0)
        by_owner: dict[int, int] = {}
        blocks: dict[int, int] = {}
        digits_of, order = int.from_bytes, sys.byteorder
        for number, area in enumerate(heads[1 :: size // heads.itemsize].tolist()):
            if area in sums:
                at = number * size
                digits = digits_of(data[at + head : at + size], order)
                sums[area] += digits
                if processes:
                    owner = owners[number]
                    by_owner[owner] = by_owner.get(owner, 0) + digits
                    blocks[owner] = hash((blocks.get(owner, 0), number)) & _PRINT
        return Counted(
            {names[area]: _totals(digits) for area, digits in sums.items()},
            {owner: _totals(digits) for owner, digits in by_owner.items()},
            blocks,
        )

    def summary(self) -> dict[str, int]:
        """Give those of ``stats()["segment"]`` that change, without walking its values."""
        (lost,) = _STATS_LOST.unpack_from(self._raw)
        shards, small, main = _RING_UNITS.unpack_from(self._raw)
        tables = int(self._numbers["index_bytes"]) + int(self._numbers["ghost_bytes"])
        at = int(self._numbers["fixed_bytes"]) - tables - shards * _SHARD.size
        found = [_SHARD.unpack_from(self._raw, at + n * _SHARD.size) for n in range(shards)]
        return {
            "data_bytes": shards * (small + main) * _RING_UNIT,
            "resets": sum(resets for resets, _ in found),
            "dead_owner_takeover": sum(takeovers for _, takeovers in found),
            "stats_lost": int(lost),
        }


def _ahead(until: int, now: float) -> float | None:
    """Seconds for which an area is in step; None: it never was."""
    ahead = until / _UNITS_PER_SECOND - now
    return ahead if until != 0 and ahead <= _FRESH_MOST else None


def _totals(digits: int) -> Totals:
    words = memoryview(digits.to_bytes(_STATS.size - _OWNER_AREA.size, sys.byteorder))
    numbers = words.cast("Q").tolist()
    counters = dict(zip(local.COUNTERS, numbers, strict=False))  # some places are not in use
    counters["local_hit"] += counters["object_hit"]  # as the native part sums them up
    at = _STATS_SLOTS
    histograms = tuple(numbers[at : at + _LATENCIES]), tuple(numbers[at + _LATENCIES :])
    return Totals(counters, *histograms)
