"""The segment's side that faces people: hot keys, how areas are configured, and the tables."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import TYPE_CHECKING, Any, Final

from accelerator.process_local.constants import LOCAL_HIT, OBJECT_HIT
from accelerator.process_local.hot_keys import HotKeys
from accelerator.process_local.operator_side import OperatorSide

if TYPE_CHECKING:
    from collections.abc import Sequence

    from accelerator.process_local.items import AreaState

FACTS_MAX: Final = 30
"""Numbers that can be kept of an area."""
_UINT32: Final = range(1 << 32)


def _apart(counters: list[int]) -> tuple[int, ...]:
    """Give counters with the hits on objects beside the other local ones, not among them."""
    found = counters.copy()
    found[LOCAL_HIT] = max(0, found[LOCAL_HIT] - found[OBJECT_HIT])
    return tuple(found)


class ReadingSide(OperatorSide):
    """What a segment has for those who look at it."""

    def __init__(self) -> None:
        super().__init__()
        self._hot_keys = HotKeys()
        self._facts: dict[str, tuple[int, ...]] = {}

    @abstractmethod
    def hash_of(self, area: AreaState, key: bytes) -> int:
        """Keyed hash of 64 bits."""

    @abstractmethod
    def stats(self) -> dict[str, Any]:
        """Give everything there is to see."""

    # --- hot keys ---

    def count_read(self, area: AreaState, key: bytes) -> None:
        """Count a read of a key, hit or miss; most are not."""
        if self._hot_keys.is_due():
            with self.lock():
                self._hot_keys.count((area.name, self.hash_of(area, key)), self.now())

    def hot_keys(self, limit: int = 20) -> list[tuple[str, int, float]]:
        """List the most read keys."""
        if limit < 0:
            raise ValueError("hot_keys: limit must not be below 0")
        with self.lock():
            return self._hot_keys.top(limit, self.now())

    def hot_total(self) -> float:
        """Tell how many reads a second there are of all keys."""
        with self.lock():
            return self._hot_keys.total(self.now())

    # --- facts ---

    def area_facts_write(self, area: str, facts: Sequence[int], /) -> bool:
        """Keep how an area is configured; whether something else was there."""
        if len(facts) > FACTS_MAX:
            raise ValueError(f"area_facts_write: at most {FACTS_MAX} numbers")
        if not all(number in _UINT32 for number in facts):
            raise OverflowError("area_facts_write: a number must have 32 bits")
        written = (*facts, *(0,) * (FACTS_MAX - len(facts)))
        with self.lock():
            if area not in self._areas:
                raise KeyError(area)
            *before, changed = self._facts.get(area, (*written, 0))
            differs = tuple(before) != written
            self._facts[area] = (*written, changed + differs)
            return differs

    def area_facts(self) -> dict[str, tuple[int, ...]]:
        """Give by area what was written last, and how often it was something else than before."""
        with self.lock():
            return self._facts.copy()

    # --- tables ---

    def areas(self) -> list[tuple[str, bool, float | None]]:
        """List the areas as ``_native.Segment.areas`` does."""
        with self.lock():
            areas = self._areas.values()
            return [(area.name, area.watched, self._in_step_for(area)) for area in areas]

    def _in_step_for(self, area: AreaState) -> float | None:
        ahead = area.fresh_until - self.now()
        return ahead if math.isfinite(ahead) else None

    def blocks(
        self,
    ) -> list[tuple[int, int, str, tuple[int, ...], tuple[int, ...], tuple[int, ...]]]:
        """List what the one process counted as ``_native.Segment.blocks`` does."""
        with self.lock():
            return [
                (
                    number,
                    self.incarnation,
                    area.name,
                    _apart(area.counters),
                    tuple(area.latencies),
                    tuple(area.l2_latencies),
                )
                for number, area in enumerate(self._areas.values())
            ]

    def tables(self, processes: bool = True) -> dict[str, Any]:
        """Give what is held and counted as ``_native.Segment.tables`` does; all is measured."""
        with self.lock():
            stats = self.stats()
            areas = [self._row(area, stats["areas"][name]) for name, area in self._areas.items()]
            return {
                "areas": sorted(areas, key=lambda row: row[0]),
                "processes": {self.incarnation: self._sums()} if processes and areas else {},
                "segment": stats["segment"],
            }

    def _row(self, area: AreaState, shown: dict[str, int]) -> tuple[Any, ...]:
        return (
            area.name,
            shown["entries"],
            shown["bytes"],
            area.watched,
            self._in_step_for(area),
            tuple(area.counters),
            tuple(area.latencies),
            tuple(area.l2_latencies),
        )

    def _sums(self) -> tuple[Any, ...]:
        """What the one process counted, in all areas; and which blocks those are."""
        areas = list(self._areas.values())
        columns = (
            [area.counters for area in areas],
            [area.latencies for area in areas],
            [area.l2_latencies for area in areas],
        )
        return (*(tuple(map(sum, zip(*rows, strict=True))) for rows in columns), len(areas))
