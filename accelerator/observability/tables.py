"""
What the tables of a segment tell beside Segment.stats(): counters of each process, latencies, and
until when areas are in step.

Read from the mapped bytes, so that it can be had where a segment was opened for reading only, as
whoever is not registered binds no area.  Nothing is stored and no lock is taken: every word is read
once, and a word is all that must not be torn.

The places below repeat native/core/layout.h and the first lines of acc_geometry_of().  The package
and its native part are built together, and tests/unit/test_tables.py compares all of it with what
the native part says itself: whoever moves a field there is told so.
"""  # noqa: D205  one sentence

from __future__ import annotations

import struct
import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from accelerator import local

if TYPE_CHECKING:
    from collections.abc import Iterator

_PROCESSES_AT: Final = 4096
_PROCESS_SIZE: Final = 64
_AREA: Final = struct.Struct("=16xQ40xII16x104s16xI44x")
"""fresh_until, state, name_size, name, watched."""
_STATS_SLOTS: Final = 55
_LATENCIES: Final = len(local.LATENCY_BOUNDS) + 2
_STATS: Final = struct.Struct(f"=II{_STATS_SLOTS}Q{_LATENCIES}Q{_LATENCIES}Q")
_OWNER_AREA: Final = struct.Struct("=II")
_CLAIMED: Final = 1
_UNITS_PER_SECOND: Final = 250
_FRESH_MOST: Final = 90 * 86400.0
"""No lease of an area is longer, in seconds: what says so is garbage."""


class AreaRow(NamedTuple):
    """An area, as the listener and its readers know it."""

    name: str
    watched: bool
    """Whether it has a second level, so that somebody has to listen for it."""
    in_step_for: float | None
    """Seconds for which it is in step from now on; below 0: it is not.  None: it never was."""


class Block(NamedTuple):
    """
    What one process counted in one area.

    A block outlives its process, and whoever owns it next goes on counting in it: only the
    difference of two looks belongs to the owner.
    """

    incarnation: int
    area: str
    counters: tuple[int, ...]
    """As local.COUNTERS; local_hit is without those of object_hit."""
    loads: tuple[int, ...]
    """Number of loads in each bucket of local.LATENCY_BOUNDS, the unbounded one, and their sum in
    microseconds."""
    l2: tuple[int, ...]
    """The same of calls of the second level."""


class Tables:
    """
    The tables of one mapped segment.

    Args:
        memory: A segment of this version, mapped in whatever way.
        numbers: ``memory.stats()["segment"]``, which has the sizes of the tables.
    """

    def __init__(self, memory: local.Segment, numbers: dict[str, Any]) -> None:
        self._raw = memory.raw()
        self._areas = int(numbers["area_slots"])
        self._area_at = _PROCESSES_AT + _PROCESS_SIZE * int(numbers["process_slots"])
        self._stats_at = self._area_at + _AREA.size * self._areas
        self._blocks = min(max(int(numbers["size"]) >> 15, 64), 16384)

    def areas(self) -> list[AreaRow]:
        """Give every area, in the order of their names."""
        now = time.monotonic()
        return sorted(self._row(number, now) for number in self._used())

    def blocks(self) -> dict[int, Block]:
        """Give the counters of every process in every area, by the number of the block."""
        names = {number: self._name(number) for number in self._used()}
        found = {}
        for number in range(self._blocks):
            at = self._stats_at + number * _STATS.size
            _, area = _OWNER_AREA.unpack_from(self._raw, at)
            if area - 1 in names:
                found[number] = _block(names[area - 1], _STATS.unpack_from(self._raw, at))
        return found

    def _used(self) -> Iterator[int]:
        return (number for number in range(self._areas) if self._slot(number)[1] == _CLAIMED)

    def _slot(self, number: int) -> tuple[Any, ...]:
        return _AREA.unpack_from(self._raw, self._area_at + number * _AREA.size)

    def _name(self, number: int) -> str:
        _, _, size, name, _ = self._slot(number)
        return str(name[:size].decode("utf-8", "replace"))

    def _row(self, number: int, now: float) -> AreaRow:
        until, *_, watched = self._slot(number)
        ahead = until / _UNITS_PER_SECOND - now
        known = until != 0 and ahead <= _FRESH_MOST
        return AreaRow(self._name(number), watched == 1, ahead if known else None)


def _block(area: str, values: tuple[int, ...]) -> Block:
    owner, _, *rest = values
    counters = tuple(rest[: len(local.COUNTERS)])
    histograms = rest[_STATS_SLOTS:]
    return Block(
        owner, area, counters, tuple(histograms[:_LATENCIES]), tuple(histograms[_LATENCIES:])
    )
