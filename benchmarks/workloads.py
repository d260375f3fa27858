"""What is asked of every contestant: values, key patterns, operations."""

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harness import KEY_FORMAT, KEY_OBJECTS, KEYS, Workload

BATCH = 20
"""Keys of one ``mget``, and calls of one turn of the 95/5 mix."""

HOT_KEY = KEY_OBJECTS[77]
MANY_KEYS = 100_000
_POOL = 40_000  # calls of one hot chunk at most: half a millisecond at 12 ns
_FRESH = "f'" + KEY_FORMAT.replace("number", "item") + "'"

KINDS = ("bytes 100 B", "dict of 10 fields", "bytes 4 KiB")
PATTERNS = ("hot", "random", "fresh")
OPERATIONS = ("get", "set", "mget", "95/5")


def values(kind: str, count: int = KEYS) -> list[Any]:
    """*count* different values of one kind."""
    if kind == "dict of 10 fields":
        return [_profile(number) for number in range(count)]
    size = {"bytes 100 B": 100, "bytes 1 KiB": 1024, "bytes 4 KiB": 4096}[kind]
    return [number.to_bytes(4, "little") * (size // 4) for number in range(count)]


def _profile(number: int) -> dict[str, Any]:
    """About 190 bytes as msgpack."""
    return {
        "id": number,
        "name": f"Ada Lovelace {number}",
        "email": f"ada.{number}@example.org",
        "active": number % 7 != 0,
        "score": number / 3,
        "roles": ["reader", "editor"],
        "city": "London",
        "visits": number * 11,
        "manager": None,
        "bio": "Wrote the first published program. " * 2,
    }


def shuffled(count: int = KEYS) -> list[int]:
    numbers = list(range(count))
    random.Random(2).shuffle(numbers)
    return numbers


@dataclass(frozen=True)
class Task:
    """
    One operation on one pattern of keys, as sent to the process that builds its workload.

    Args:
        operation: One of OPERATIONS, or "miss"; "mget" asks for BATCH keys at once and counts as
            many calls.
        pattern: "hot" repeats a key, "random" walks over shuffled key objects made before, "fresh"
            builds each key with an f-string at the call, as web code does (the f-string is part of
            the figure), "many" is "random" over MANY_KEYS.
        share: (index, of): only every *of*-th key, from *index* on.
    """

    operation: str
    pattern: str
    share: tuple[int, int] = (0, 1)

    @property
    def name(self) -> str:
        return f"{self.operation} {self.pattern}"

    def workload(self, values: Sequence[Any]) -> Workload:
        """Build it; *values* are what is stored, one after the other."""
        key = _FRESH if self.pattern == "fresh" else "item"
        items = self._items()
        match self.operation:
            case "get":
                return Workload(self.name, f"for item in sequence:\n    READ<{key}>", items)
            case "miss":
                # Keys of the same length that nobody ever stored.
                absent = [str(item).replace("key", "off") for item in items]
                return Workload(self.name, "for item in sequence:\n    READ<item>", absent)
            case "set":
                body = f"for item, value in sequence:\n    WRITE<{key}>"
                pairs = list(zip(items, itertools.cycle(values), strict=False))
                # Keys that were just written would be there the second time, and evict nobody.
                return Workload(self.name, body, pairs, warm=self.pattern != "many")
            case "mget":
                return self._many(items)
            case "95/5":
                return self._mixed(key, items, values)
        raise ValueError(self.operation)

    def _items(self) -> list[Any]:
        if self.pattern == "hot":
            return [HOT_KEY] * _POOL
        if self.pattern == "many":
            return [KEY_FORMAT.format(number=number) for number in shuffled(MANY_KEYS)]
        index, of = self.share
        numbers = shuffled()[index::of]
        return numbers if self.pattern == "fresh" else [KEY_OBJECTS[number] for number in numbers]

    def _many(self, items: list[Any]) -> Workload:
        if self.pattern == "hot":
            items = KEY_OBJECTS[:BATCH] * (_POOL // BATCH)
        keys = f"[{_FRESH} for item in many]" if self.pattern == "fresh" else "many"
        body = f"for many in sequence:\n    READ_MANY<{keys}>"
        return Workload(self.name, body, _batches(items), BATCH)

    def _mixed(self, key: str, items: list[Any], values: Sequence[Any]) -> Workload:
        body = (
            "for many, item, value in sequence:\n"
            f"    WRITE<{key}>\n"
            "    for item in many:\n"
            f"        READ<{key}>"
        )
        turns = [
            (many[:-1], many[-1], value)
            for many, value in zip(_batches(items), itertools.cycle(values), strict=False)
        ]
        return Workload(self.name, body, turns, BATCH)


def _batches(items: list[Any]) -> list[list[Any]]:
    return [items[start : start + BATCH] for start in range(0, len(items), BATCH)]
