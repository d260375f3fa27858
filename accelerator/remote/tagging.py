"""
Tags in Redis: what a value says of its tags, and what its area says of deletes by tag.

**Promise.**  A value whose load began before one of its tags was deleted is never read as current
once Redis has taken the delete: by no host, whenever it starts, whoever stored it, and however
late.  It costs one step for each tag, and no list of the keys that carry it.

**Numbers.**  A delete or an expiry by tag is a change of the area like any other: one script gives
it the next number (*seq*), writes that number into two words of the area's table for each tag, logs
and publishes it.  All of these keys lie in one slot, so on a cluster it is one script, too.  Two
tags may share a word; a word only ever rises, so the smaller of a tag's two is never below the
number of its last delete.  That is the error this makes: a value may be taken for deleted that is
not, if both words of one of its tags are others' as well.

**Stamps.**  A value with tags carries, as its stamp, the area's number from before its load began:
the lease brings it.  A value that is set gets the number of the moment in which Redis stores it
(on a cluster: of just before).  It is current if no word pair of its tags is above its stamp.  So a
delete that Redis takes after the lease has a higher number, and kills the value whether the fill
comes before it or after it, at once, from a process that was stopped for an hour, or not at all.
Readers ask for the words *after* they have the value: a delete in between makes a miss, and never
the reverse.

**What may get lost.**  Each makes values with tags misses, and brings none back:

- the table (evicted, replaced by foreign bytes): it is made anew with the area's present number as
  its *floor*, and what has a lower stamp is dead, as nobody knows any more what was deleted before.
  Without a table all are dead.
- the counter: it starts again above all numbers ever given (see the scripts), and so above all
  words and stamps.
- both, with the values (FLUSHALL): nothing is left to be read.
- what a server had after it last wrote its disk: it is another run; the area's generation is
  renewed, and every value is a miss.
- the last changes before a failover: numbers would be given twice, and a load that had its lease
  from the lost history would carry a stamp that deletes of the new one do not reach.  So the first
  listener that meets another run raises the counter above all that the lost one can have given,
  before anybody's recent deletes are sent again.  A stamp above the counter is dead in any case.

**A queued delete** is not in the table yet.  No reader of its host is given a copy with that tag
while it is queued (see ``looking``), and Redis decides nothing about any key of the area meanwhile.
When it is sent it gets its number then, and kills what was stored before that, on all hosts: some
values too many, and none too few.

A value's part about its tags lies between header and payload:

====== ===== ===================================================================================
offset bytes
====== ===== ===================================================================================
0      6     stamp
6      2     bytes that follow this field
8      1     number of tags, 1 to 8
9      4 n   for each tag the numbers of its two words, 2 bytes each
       ...   for each tag its length, 1 byte, and its bytes
====== ===== ===================================================================================

The table is a string: 6 bytes that say so, 6 with its floor, then ``SLOTS`` pairs of 6 bytes, the
last delete and the last expiry.  It grows as it is used, to 768 KiB at most, and does not expire.
With so many pairs a value is taken for dead wrongly once in 1,000 for each of its tags when 1,000
others were deleted since it was loaded, and once in 14 when it were 10,000.
"""

from __future__ import annotations

import hashlib
import struct
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

SLOTS: Final = 1 << 16
"""Pairs of words in a table."""
TABLE: Final = b"\xacTAGS\x01"
"""How a table begins."""
PAIR: Final = 12
"""Bytes of the beginning of a table, and of each pair of words."""
TAGS_MOST: Final = 8
LONGEST_TAG: Final = 255
STAMP_SIZE: Final = 6
NUMBER_MOST: Final = (1 << 48) - 1

DEAD: Final = "d"
"""One of its tags was deleted since."""
ENDED: Final = "e"
"""One of its tags was expired since: it is stale."""
VALID: Final = "f"

_FIXED: Final = struct.Struct(">HB")
_SLOTS: Final = struct.Struct(">HH")
_PAIR: Final = struct.Struct(">HIHI")


class Section(NamedTuple):
    """What a value says of its tags."""

    stamp: int
    """The area's number from before it was loaded."""
    tags: tuple[bytes, ...]
    size: int
    """Bytes that it takes."""


def slots_of(tag: bytes) -> tuple[int, int]:
    """Give the two places that a tag has in its area's table."""
    first, second = _SLOTS.unpack(hashlib.blake2b(tag, digest_size=4).digest())
    return first, second if second != first else (second + 1) % SLOTS


def packed(tags: Sequence[bytes]) -> bytes:
    """
    Give the part about tags, but for the stamp; nothing for no tags.

    Raises:
        ValueError: They are too many, or one is empty or too long.
    """
    if not tags:
        return b""
    if len(tags) > TAGS_MOST or not all(0 < len(tag) <= LONGEST_TAG for tag in tags):
        raise ValueError("at most 8 tags of 1 to 255 bytes")
    slots = b"".join([_SLOTS.pack(*slots_of(tag)) for tag in tags])
    names = b"".join([bytes((len(tag),)) + tag for tag in tags])
    return _FIXED.pack(1 + len(slots) + len(names), len(tags)) + slots + names


def stamp(number: int) -> bytes:
    """Write a number as values carry it."""
    return max(0, min(number, NUMBER_MOST)).to_bytes(STAMP_SIZE, "big")


def parsed(data: bytes) -> Section:
    """
    Read the part about tags at the beginning of *data*.

    Raises:
        ValueError: It is none.
    """
    if len(data) < STAMP_SIZE + _FIXED.size:
        raise ValueError("cut short")
    following, count = _FIXED.unpack_from(data, STAMP_SIZE)
    names = STAMP_SIZE + _FIXED.size + count * _SLOTS.size
    end = STAMP_SIZE + 2 + following
    if not 0 < count <= TAGS_MOST or len(data) < end:
        raise ValueError("cut short")
    tags: list[bytes] = []
    while names < end and len(tags) < count:
        tag = data[names + 1 : names + 1 + data[names]]
        names += 1 + data[names]
        tags.append(tag)
    # Scripts judge by the places, readers by the tags: they must mean the same.
    if names != end or len(tags) != count or not all(tags) or packed(tags) != data[STAMP_SIZE:end]:
        raise ValueError("tags that cannot be")
    return Section(int.from_bytes(data[:STAMP_SIZE], "big"), tuple(tags), end)


class Words(NamedTuple):
    """What an area knew at one moment of the deletes of some tags."""

    floor: int
    """Values of before this number are dead."""
    number: int
    """The area's last number."""
    pairs: Mapping[int, tuple[int, int]]
    """By their places: numbers of the last delete and the last expiry."""

    @staticmethod
    def read(places: Sequence[int], data: bytes) -> Words | None:
        """Take the answer of the script WORDS, which was asked for *places*; None: no table."""
        if len(data) != PAIR * (1 + len(places)):
            return None
        pairs = [_unpacked(data, PAIR * each) for each in range(1 + len(places))]
        return Words(*pairs[0], dict(zip(places, pairs[1:], strict=True)))

    @staticmethod
    def joined(parts: Sequence[Words | None]) -> Words | None:
        """
        Join what was read one after the other, all of it after the values.

        Of a table that was lost in between only what is above the new floor is known.
        """
        known = [part for part in parts if part is not None]
        if len(known) < len(parts):
            return None
        pairs = {place: pair for part in known for place, pair in part.pairs.items()}
        floor = max(part.floor for part in known)
        return Words(floor, min(part.number for part in known), pairs)


def places_of(tags: Iterable[bytes]) -> list[int]:
    """Give all places of these tags, each once."""
    return sorted({place for tag in tags for place in slots_of(tag)})


def places_seen(seen: bytes) -> tuple[int, list[tuple[int, int]]]:
    """Read stamp and places from what a script shows of a value: from its stamp to its places."""
    first = STAMP_SIZE + _FIXED.size
    pairs = [_SLOTS.unpack_from(seen, at) for at in range(first, len(seen), _SLOTS.size)]
    return int.from_bytes(seen[:STAMP_SIZE], "big"), [(one, other) for one, other in pairs]


def judged(words: Words | None, stamped: int, tags: Iterable[bytes]) -> str:
    """Tell what has become of a value with this stamp and these tags: DEAD, ENDED or VALID."""
    return judged_places(words, stamped, map(slots_of, tags))


def judged_places(words: Words | None, stamped: int, pairs: Iterable[tuple[int, int]]) -> str:
    """Do as judged(), by the places of the tags."""
    if words is None or not words.floor <= stamped <= words.number:
        return DEAD
    found = VALID
    for places in pairs:
        one, other = (words.pairs[place] for place in places)
        if min(one[0], other[0]) > stamped:
            return DEAD
        if min(one[1], other[1]) > stamped:
            found = ENDED
    return found


def _unpacked(data: bytes, at: int) -> tuple[int, int]:
    high, low, other_high, other_low = _PAIR.unpack_from(data, at)
    return high << 32 | low, other_high << 32 | other_low
