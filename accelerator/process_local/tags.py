"""
Tags: what makes many values go at once, without a list of who carries which.

A tag owns two slots of a table, as in a Bloom filter, and its last deletion (or expiry) is the
lesser of what the two say: never less than the truth, and more only if neighbours have raised both.
A slot says when, in counts of a clock that every operation by tag advances by one.  A value knows
the count at which its load began, and the slots of its tags: it is gone once one of them was
deleted at a later count.  Nothing is listed, so the table never grows.

Knows neither locks nor lives.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Final

from accelerator.process_local.constants import TAG_SIZE_MAX, TAGS_MAX

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

TAG_TYPE: Final = b"\xfe"
"""Stands before a tag where keys have their type: no key is a tag."""

_SLOTS: Final = 1 << 14

Slots = tuple[int, int]
"""Where a tag is written down."""


class TagTable:
    """What was deleted and expired by tag, and when."""

    def __init__(self, hash_key: bytes) -> None:
        self._hash_key = hash_key
        self.clock = 0
        """How many operations by tag there were."""
        # No more entries than there are slots; a slot that is not there says 0.
        self._deleted: dict[int, int] = {}
        self._expired: dict[int, int] = {}

    def slots(self, area: int, tag: bytes) -> Slots:
        """Give the slots of a tag of an area."""
        text = area.to_bytes(4, "little") + TAG_TYPE + tag
        digest = hashlib.blake2b(text, digest_size=8, key=self._hash_key).digest()
        first = int.from_bytes(digest[:4], "little") % _SLOTS
        # Never the first one again: two slots that are one protect nobody.
        other = int.from_bytes(digest[4:], "little") % (_SLOTS - 1)
        return first, (first + 1 + other) % _SLOTS

    def raise_all(self, tags: Iterable[Slots], *, expire: bool) -> None:
        """Note a deletion, or expiry, of some tags."""
        self.clock += 1
        table = self._expired if expire else self._deleted
        for pair in tags:
            for slot in pair:
                table[slot] = self.clock

    def deleted(self, tags: Iterable[Slots]) -> int:
        """Tell when one of some tags was last deleted; 0: none ever was."""
        return _last(self._deleted, tags)

    def expired(self, tags: Iterable[Slots]) -> int:
        """Tell when one of some tags was last expired; 0: none ever was."""
        return _last(self._expired, tags)

    def changed(self, tags: Iterable[Slots]) -> int:
        """Tell when one of some tags was last deleted or expired."""
        tags = tuple(tags)
        return max(self.deleted(tags), self.expired(tags))

    def check(self) -> list[str]:
        """List violated invariants; empty when sound."""
        return [
            f"a tag was {name} at {last}, and the clock says {self.clock}"
            for name, table in (("deleted", self._deleted), ("expired", self._expired))
            if (last := max(table.values(), default=0)) > self.clock
        ]


def checked_tags(tags: Sequence[bytes], most: int | None = TAGS_MAX) -> tuple[bytes, ...]:
    """
    Give encoded tags back, in a tuple.

    Raises:
        TypeError: One is no bytes.
        ValueError: There are more than *most*, or one is empty or too long.
    """
    checked: tuple[Any, ...] = tuple(tags)
    given: Any = tags
    if isinstance(given, str | bytes):  # a sequence, too, but of no tags
        raise TypeError("tags: a sequence of encoded tags is wanted, not one")
    if most is not None and len(checked) > most:
        raise ValueError(f"tags: a value has at most {most}")
    for tag in checked:
        if type(tag) is not bytes:
            raise TypeError("tags: an encoded tag is bytes")
        if not 0 < len(tag) <= TAG_SIZE_MAX:
            raise ValueError(f"tags: an encoded tag has 1 to {TAG_SIZE_MAX} bytes")
    return checked


def _last(table: dict[int, int], tags: Iterable[Slots]) -> int:
    return max((min(table.get(a, 0), table.get(b, 0)) for a, b in tags), default=0)
