"""
Request traces: ``NAME.keys.u64.gz`` holds one little-endian u64 key number a request, dense from 0.

``reference.json`` beside them, where present, holds hit ratios of other simulators, for comparison.
"""

import array
import gzip
import json
import sys
from pathlib import Path
from typing import Any

LARGE = ("arc-P3", "twitter52-a", "scarab-recs", "arc-OLTP", "orm-night")
"""
Block storage, key-value, recommendations, database pages, database objects: 0.9 to 5 M requests
each.
"""

FRACTIONS = (0.01, 0.1, 0.25)


def load(directory: Path, name: str) -> list[int]:
    keys = array.array("Q")
    keys.frombytes(gzip.decompress((directory / f"{name}.keys.u64.gz").read_bytes()))
    if sys.byteorder == "big":
        keys.byteswap()
    return keys.tolist()


def names(directory: Path) -> list[str]:
    return sorted(path.name.partition(".")[0] for path in directory.glob("*.keys.u64.gz"))


def references(directory: Path, name: str) -> dict[int, dict[str, float]]:
    """``{capacity: {policy: hit ratio}}``."""
    path = directory / "reference.json"
    if not path.exists():
        return {}
    cells: list[dict[str, Any]] = json.loads(path.read_text())["count"][name]["cells"]
    return {cell["capacity"]: cell["sim"] for cell in cells}


def texts(count: int) -> list[str]:
    """A key for each number, mixed so that neighbours in a scan share no prefix."""
    return [f"k{_mix(number):016x}" for number in range(count)]


def _mix(number: int) -> int:
    """One step of splitmix64."""
    word = (number + 1) * 0x9E3779B97F4A7C15 & _WORD
    word = (word ^ word >> 30) * 0xBF58476D1CE4E5B9 & _WORD
    word = (word ^ word >> 27) * 0x94D049BB133111EB & _WORD
    return word ^ word >> 31


_WORD = (1 << 64) - 1
