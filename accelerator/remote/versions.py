"""
Which versions of an area's values are in use: the registry.

Releases that give an area different versions have their values side by side in Redis, under names
of their own.  What one of them writes or deletes concerns the copies of all of them, so each has to
know which there are.

The registry is a string in the slot of the area's control keys, at most ``VERSIONS_MOST`` records
of 26 bytes: the 8 hex digits of a version's fingerprint, 8 random bytes (the *id* of its entry),
and when it last was in use, 10 digits of seconds of the server's clock.  A version enters itself
before it takes a lease, and with each change that it makes; it renews its time once an hour, and
the entry goes after ``VERSION_LIFE`` seconds, or as the oldest of too many.

**Promise.**  No host reads a value of its version that a change of another version has come after.

The values of a version carry the id of its entry where others carry the area's generation, and are
misses when the registry has another one, or none.  A change reads the registry in the script that
makes it, and refuses to go on with any other list of versions than the registry has: so it reaches
every copy that can still be read.  An entry that goes (too old, too many, the registry evicted, or
cleared with the area) takes the values with it: when the version enters itself again, it has a new
id.  Nothing depends on a life or a clock; the 30 days only let go of what nobody uses.

The lease of a key is the same for all versions, so each change of the key also ends the loads of
the others.

On a cluster a change reads the registry before, and once more with its announcement.  A version
that came in between has nothing of the key that was loaded before the change began: its load began
after its entry.  What it may have *set* meanwhile is deleted then.
"""

from __future__ import annotations

import re
from typing import Final

VERSIONS_MOST: Final = 16
VERSION_LIFE: Final = 30 * 86_400
"""Seconds for which a version that nobody uses is known, and the longest that its values live."""
RENEWED: Final = 3_600
"""Seconds after which an entry that is in use is renewed."""
RECORD: Final = 26
"""Bytes of an entry."""
DIGITS: Final = 8
_RECORD: Final = re.compile(rb"[0-9a-f]{8}[\0-\xff]{8}[0-9]{10}", re.DOTALL)
_LIST: Final = re.compile(rb"(?:[0-9a-f]{8})*")


def entry_of(registry: bytes | None, digits: str) -> bytes | None:
    """Give the id of a version; None: the registry, which may be any bytes, does not have it."""
    if registry is None or len(registry) % RECORD or len(registry) > VERSIONS_MOST * RECORD:
        return None
    records = [registry[at : at + RECORD] for at in range(0, len(registry), RECORD)]
    if not all(map(_RECORD.fullmatch, records)):
        return None
    ids = {record[:DIGITS]: record[DIGITS : 2 * DIGITS] for record in records}
    return ids.get(digits.encode())


def known(digits: bytes) -> str:
    """Take a list of versions, all their digits in a row, as a script gives it."""
    return digits.decode("ascii") if _LIST.fullmatch(digits) else ""


def others(listed: str, own: str) -> list[str]:
    """Give the versions that a change of *own* has to reach as well; "" is no version."""
    found = [listed[at : at + DIGITS] for at in range(0, len(listed), DIGITS)]
    return [each for each in ["", *found] if each != own]
