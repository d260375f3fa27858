"""
What the tables of a segment tell beside Segment.stats(): counters of each process, latencies, and
until when areas are in step.

Also where a segment was opened for reading only, as whoever is not registered binds no area.
"""  # noqa: D205  one sentence

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from accelerator import local


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


def areas(memory: local.Segment) -> list[AreaRow]:
    """Give every area once, whatever versions it has, in the order of their names."""
    return sorted(AreaRow(*row) for row in memory.areas())


def blocks(memory: local.Segment) -> dict[int, Block]:
    """Give the counters of every process in every area, by the number of the block."""
    return {block[0]: Block(*block[1:]) for block in memory.blocks()}
