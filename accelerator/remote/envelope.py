"""
How a value lies in Redis: a header of 28 bytes, what is said of its tags, then the payload.

====== ===== =====================================================================================
offset bytes
====== ===== =====================================================================================
0      1     magic
1      1     format number
2      1     code of the codec, as in the segment (1 to 31)
3      1     flags: 1 the payload is compressed, 2 its fresh life was ended by ``expire``, 4 it has
             tags: what is said of them comes before the payload (see ``tagging``)
4      4     fingerprint of what values look like
8      4     stale life in milliseconds
12     8     when it was loaded, in milliseconds of Unix time
20     8     generation of the area; of values of a version the id of its entry (see ``versions``)
====== ===== =====================================================================================

Numbers are big-endian.  The generation comes last because scripts put it in: a writer gives the
part before it and the payload.  The life of the Redis key is fresh and stale life together.

An int is decimal text, so that Redis itself can add to it.  A compressed payload is its full
length in 4 bytes, then a zstd frame.
"""

from __future__ import annotations

import math
import re
import struct
from typing import TYPE_CHECKING, Final, NamedTuple

from accelerator.backend import Envelope
from accelerator.codec import CODE_INT
from accelerator.compression import zstd
from accelerator.remote import tagging

if TYPE_CHECKING:
    from collections.abc import Sequence

MAGIC: Final = 0xAC
FORMAT: Final = 1
COMPRESSED: Final = 1
EXPIRED: Final = 2
TAGGED: Final = 4
HEAD: Final = struct.Struct(">BBBBIIQ")
"""The header without the generation."""
GENERATION_SIZE: Final = 8
HEADER_SIZE: Final = HEAD.size + GENERATION_SIZE

_LENGTH: Final = struct.Struct(">I")
_STALE: Final = struct.Struct(">I")
_STALE_AT: Final = 8
_STALE_MOST: Final = (1 << 32) - 1  # ms, 49 days: what a header has room for
_LIFE_MOST: Final = 1 << 53  # ms; Redis adds it to the present in 64 bits
_CODES: Final = range(1, 32)
_DECIMAL: Final = re.compile(rb"0|-?[1-9][0-9]{0,18}")
_INT64: Final = range(-(1 << 63), 1 << 63)
_BEGINNING: Final = bytes((MAGIC, FORMAT))


class EnvelopeError(ValueError):
    """Bytes that are no value of ours, or a damaged one, or one of another version."""


class Opened(NamedTuple):
    """A value that came from Redis."""

    code: int
    payload: bytes
    generation: bytes
    stale: float
    """How long after its fresh life it is usable as stale, in seconds."""
    loaded_at: float
    """Unix time in seconds."""
    expired: bool
    """Its fresh life was ended before its time."""
    tags: tuple[bytes, ...] = ()

    def fresh_left(self, left: float | None) -> float | None:
        """
        Tell how long it is fresh from now, in seconds, not above 0 if it is stale.

        Args:
            left: What is left of the Redis key's life; None: it does not expire.
        """
        if self.expired:
            # It may have been stale before: then no life is left, and less of the stale one.
            return 0.0 if left is None else min(0.0, left - self.stale)
        return None if left is None else left - self.stale


def seal(
    code: int,
    payload: bytes,
    *,
    fingerprint: int = 0,
    stale: float = 0.0,
    loaded_at: float = 0.0,
    compress_over: int | None = None,
    tags: Sequence[bytes] = (),
) -> Envelope:
    """
    Make an envelope.

    Args:
        code: The codec's code.
        payload: As in the segment.
        fingerprint: See *fingerprint_of*.
        stale: Stale life in seconds.
        loaded_at: Unix time in seconds.
        compress_over: Compress a payload of more bytes than this, if that makes it smaller.
        tags: Encoded tags.
    """
    flags = 0
    if code == CODE_INT:
        payload = b"%d" % int.from_bytes(payload, "little", signed=True)
    elif compress_over is not None and len(payload) > compress_over:
        compressed = _compressed(payload)
        if len(compressed) < len(payload):
            payload, flags = compressed, COMPRESSED
    flags |= TAGGED if tags else 0
    stale_ms = stale_milliseconds(stale)
    head = HEAD.pack(
        MAGIC, FORMAT, code, flags, fingerprint, stale_ms, max(0, round(loaded_at * 1000))
    )
    return Envelope(head, payload, stale_ms, tagging.packed(tags))


def unseal(blob: bytes, *, fingerprint: int = 0, limit: int) -> Opened:
    """
    Open an envelope.

    Args:
        blob: What lies in Redis.
        fingerprint: What values must look like.
        limit: Most bytes that a payload may have.

    Raises:
        EnvelopeError: It is foreign, damaged, too large, or of another version.
    """
    if len(blob) < HEADER_SIZE:
        raise EnvelopeError("shorter than a header")
    magic, version, code, flags, found, stale_ms, loaded_ms = HEAD.unpack_from(blob)
    if magic != MAGIC or version != FORMAT:
        raise EnvelopeError("another format")
    if code not in _CODES or flags & ~(COMPRESSED | EXPIRED | TAGGED):
        raise EnvelopeError("a header that cannot be")
    if found != fingerprint:
        raise EnvelopeError("values of another version")
    section = section_of(blob)
    payload = blob[HEADER_SIZE + section.size :]
    if code == CODE_INT:
        payload = _binary(payload) if not flags & COMPRESSED else _refuse_int()
    elif flags & COMPRESSED:
        payload = _decompressed(payload, limit)
    elif len(payload) > limit:
        raise EnvelopeError("a payload that is too large")
    return Opened(
        code,
        payload,
        blob[HEAD.size : HEADER_SIZE],
        stale_ms / 1000,
        loaded_ms / 1000,
        bool(flags & EXPIRED),
        section.tags,
    )


class Head(NamedTuple):
    """What a second level needs to know of a value."""

    code: int
    """CODE_INT: the payload is decimal text, to be added to."""
    fingerprint: int
    """Says how the area's values look; of another one a value counts as absent."""
    stale: float
    """Stale life in seconds."""


def read_head(head: bytes) -> Head:
    """
    Read the head of an Envelope, or the beginning of what Envelope.blob() gave.

    Raises:
        EnvelopeError: It is none.
    """
    if len(head) < HEAD.size:
        raise EnvelopeError("shorter than a header")
    magic, version, code, _, fingerprint, stale_ms, _ = HEAD.unpack_from(head)
    if magic != MAGIC or version != FORMAT:
        raise EnvelopeError("another format")
    return Head(code, fingerprint, stale_ms / 1000)


def with_stale(head: bytes, stale: float) -> bytes:
    """Give a head with another stale life, in seconds."""
    return head[:_STALE_AT] + _STALE.pack(stale_milliseconds(stale)) + head[_STALE_AT + 4 :]


def tags_of(tags: bytes) -> tuple[bytes, ...]:
    """Read the encoded tags of an Envelope from its part about them."""
    return tagging.parsed(bytes(tagging.STAMP_SIZE) + tags).tags if tags else ()


_UNTAGGED: Final = tagging.Section(0, (), 0)


def section_of(blob: bytes) -> tagging.Section:
    """
    Read what a value says of its tags; the blob has a header.

    Raises:
        EnvelopeError: It says that it has tags, and they cannot be.
    """
    if not blob[3] & TAGGED:
        return _UNTAGGED
    try:
        return tagging.parsed(blob[HEADER_SIZE:])
    except ValueError:
        raise EnvelopeError("tags that cannot be read") from None


def stale_ms_of(blob: bytes) -> int:
    """Read the stale life, in milliseconds; the blob has a header."""
    stale_ms: int = HEAD.unpack_from(blob)[5]
    return stale_ms


def generation_of(blob: bytes) -> bytes | None:
    """Read the generation; None: it is no envelope of this format."""
    if len(blob) < HEADER_SIZE or not blob.startswith(_BEGINNING):
        return None
    return blob[HEAD.size : HEADER_SIZE]


def stale_milliseconds(stale: float) -> int:
    """Give a stale life as the header has it."""
    return min(_STALE_MOST, max(0, math.ceil(min(stale * 1000, _STALE_MOST))))


def physical_ms(life: float | None, stale_ms: int) -> int:
    """Life of a Redis key in milliseconds; 0: no expiry."""
    if life is None or life == math.inf:
        return 0
    # Rounded down: a copy in the segment ends no earlier.  0 would be no expiry at all.
    return max(1, int(min(life * 1000, _LIFE_MOST)) + stale_ms)


def _compressed(payload: bytes) -> bytes:
    implementation = zstd()
    return (
        payload
        if implementation is None
        else _LENGTH.pack(len(payload)) + implementation.compress(payload)
    )


def _decompressed(payload: bytes, limit: int) -> bytes:
    implementation = zstd()
    if implementation is None:
        raise EnvelopeError("compressed, and there is no zstd here")
    if len(payload) < _LENGTH.size:
        raise EnvelopeError("a payload that is cut short")
    (length,) = _LENGTH.unpack_from(payload)
    if length > limit:
        raise EnvelopeError("a payload that is too large")
    try:
        # One more than promised, so that a longer one is seen without being read to its end.
        found = implementation.decompress(payload[_LENGTH.size :], length + 1)
    except Exception as error:
        raise EnvelopeError("a payload that is no zstd frame") from error
    if len(found) != length:
        raise EnvelopeError("a payload of another length")
    return found


def _binary(text: bytes) -> bytes:
    """Turn decimal text into an int as the segment has it."""
    number = int(text) if _DECIMAL.fullmatch(text) else None
    if number is None or number not in _INT64:
        raise EnvelopeError("an int that is none")
    return number.to_bytes(8, "little", signed=True)


def _refuse_int() -> bytes:
    raise EnvelopeError("a compressed int")
