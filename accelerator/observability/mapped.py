"""
What a segment holds and has counted, cheap enough to be read every few seconds by everybody.

Summed up by the memory itself, without a walk over its values, also where a segment was opened for
reading only.  Nothing is stored and no lock is taken: every word is read once, and a word is all
that must not be torn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from accelerator import local

if TYPE_CHECKING:
    from collections.abc import Sequence


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


class Tables(NamedTuple):
    """The tables of a memory, at one moment."""

    gauges: list[Gauge]
    """In the order of their names."""
    counted: Counted
    segment: dict[str, Any]
    """Those of ``stats()["segment"]`` that change."""


def look(memory: local.Segment, *, processes: bool = True) -> Tables:
    """
    Look at the tables.

    Args:
        memory: Mapped in whatever way.
        processes: Whether what each process has counted is wanted, too.
    """
    tables = memory.tables(processes)
    owners = tables["processes"]
    counted = Counted(
        {row[0]: _totals(*row[-3:]) for row in tables["areas"]},
        {owner: _totals(*row[:3]) for owner, row in owners.items()},
        {owner: row[3] for owner, row in owners.items()},
    )
    return Tables([Gauge(*row[:5]) for row in tables["areas"]], counted, tables["segment"])


def _totals(counters: Sequence[int], loads: tuple[int, ...], l2: tuple[int, ...]) -> Totals:
    return Totals(dict(zip(local.COUNTERS, counters, strict=True)), loads, l2)
