"""What is said on an area's channel: which keys changed, and how."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgpack

if TYPE_CHECKING:
    from collections.abc import Sequence

FORGET: Final = 0
"""The keys were deleted."""
SET: Final = 1
"""The keys have new values, or new lives."""
EXPIRE: Final = 2
"""The keys' fresh lives have ended; stale copies stay."""
CLEAR: Final = 3
"""All keys of the area are gone; names none, and has one note."""


def body(kind: int, keys: Sequence[bytes], notes: Sequence[int]) -> bytes:
    """
    Pack the part of an invalidation that its sender knows before Redis has numbered it.

    Args:
        kind: FORGET, SET, EXPIRE or CLEAR.
        keys: Encoded keys.
        notes: For each key the sender's number in its outbox; 0: none.
    """
    packed: bytes = msgpack.packb([kind, list(keys), list(notes)], use_bin_type=True)
    return packed
