"""
What an operator is shown of a segment beside its numbers: what is overridden, which keys are read
most, what has happened, and how its areas are configured.

Plain data, ready for JSON: keys as their hashes, values never.  All of it is told by the segment,
also where it is mapped for reading only.
"""  # noqa: D205  one sentence

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypedDict

from accelerator import local, overrides
from accelerator.keys import hash_text
from accelerator.observability import diagnostics, facts
from accelerator.observability.reading import Reader

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

KEYS: Final = 20
"""Hottest keys that are shown."""
LOOKED_AT: Final = 1000
"""Newest events that are looked at, for sums over them and for warnings."""


class OverrideSnapshot(TypedDict):
    """Something that an operator has set for now."""

    area: str
    """ "" is the whole host."""
    option: str
    value: Any
    text: str
    """The value as ``accelerator set`` takes it."""
    left: float | None
    """Seconds until it ends; None: when somebody ends it."""


class HotKeySnapshot(TypedDict):
    """A key that is read often."""

    area: str
    hash: str
    """As ``accelerator hash`` writes it."""
    rate: float
    """Reads by the second, as sampled in about the last minute."""
    share: float | None
    """Of all reads of the host."""


def in_force(memory: local.Segment) -> list[OverrideSnapshot]:
    """List the overrides, those of the host first."""
    return [
        {
            "area": each["area"],
            "option": each["option"],
            "value": each["value"],
            "text": overrides.written(each["option"], each["value"]),
            "left": None if each["left"] is None else max(0.0, each["left"]),
        }
        for each in overrides.shown(memory.overrides())
    ]


def hot_keys(memory: local.Segment, limit: int = KEYS) -> list[HotKeySnapshot]:
    """List the keys that are read most, the hottest first."""
    total = memory.hot_total()
    return [
        {
            "area": area,
            "hash": hash_text(key),
            "rate": rate,
            "share": min(1.0, rate / total) if total > 0 else None,
        }
        for area, key, rate in memory.hot_keys(limit)
    ]


def events(found: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Show those of Segment.events()."""
    return [{**each, "hash": hash_text(each["hash"]) if each["hash"] else None} for each in found]


def configurations(memory: local.Segment) -> dict[str, dict[str, Any]]:
    """Give the options of each area as they are in force; of areas that have told them."""
    return {area: facts.decode(numbers) for area, numbers in memory.area_facts().items()}


def of_areas(memory: local.Segment) -> dict[str, diagnostics.AreaFacts]:
    """Give what each area has told of itself, beside what its loads took."""
    configs = configurations(memory)
    return {
        name: diagnostics.area_facts(configs.get(name), local.LATENCY_BOUNDS, area.totals.loads)
        for name, area in Reader(memory).read(processes=False).areas.items()
    }
