"""
What hosts tell each other on the channels of Redis, as bytes.

An invalidation is ``1 <origin> <seq> <body>``.  The script that makes the change puts the head
before the body, as only it knows the number.  A heartbeat is ``1 H <n> <replication id> <seq> ...``
with one number for each area that was asked about, in that order.

A probe is an invalidation that makes nothing old: it is numbered, logged, told and replayed like
all others, and whoever has applied all up to its number answers ``1 P <body>``, on a channel named
by the probe's nonce.  Its body holds who answers, and how far it has come in which areas.

Whatever comes from a channel may be anything: everything here is bounded, and what cannot be read
raises MessageError.  Its text never shows what was in the message.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgpack

if TYPE_CHECKING:
    from collections.abc import Sequence

FORGET: Final = 0
"""The keys are gone."""
SET: Final = 1
"""The keys have new values."""
EXPIRE: Final = 2
"""The keys are to be loaded again; the stale copies may stay."""
CLEAR: Final = 3
"""The whole area is gone; no keys, one note."""
FORGET_TAGS: Final = 4
"""All values that carry one of these tags are gone; tags take the place of keys."""
EXPIRE_TAGS: Final = 5
"""All values that carry one of these tags are to be loaded again; the stale copies may stay."""
PROBE: Final = 6
"""Nothing is old; a nonce takes the place of the one key, and each host answers when it has come so
far.  To releases that do not know it, it is something unreadable: they drop the area."""

NONCE_SIZE: Final = 16
"""Bytes of what names the channel of the answers to a probe."""

LONGEST: Final = 4 << 20
"""Bytes of a message."""
MOST_KEYS: Final = 4096
LONGEST_KEY: Final = 512
"""Bytes of an encoded key."""
LONGEST_TAG: Final = 255
"""Bytes of an encoded tag."""
MOST_AREAS: Final = 4096
"""Numbers in a heartbeat."""
LONGEST_ANSWER: Final = 1 << 17
"""Bytes of an answer to a probe."""
MOST_PROBED: Final = 64
"""Areas that one answer tells of."""
LONGEST_HOST: Final = 64
"""Bytes of a host's name."""

_ORIGIN_DIGITS: Final = 32
_LARGEST_BEAT: Final = 2**63 - 1
_LARGEST_SEQ: Final = 2**48 - 1  # what the segment keeps of it
_DIGITS: Final = 19
_LARGEST_NOTE: Final = 2**64 - 1
_LARGEST_PID: Final = 2**31 - 1
_LONGEST_AREA: Final = 1024


class MessageError(ValueError):
    """Bytes on one of our channels that are no message of this version."""


class Invalidation(NamedTuple):
    """What one explicit write of some host asks of all hosts."""

    origin: bytes
    """Hexadecimal digits of the segment that wrote."""
    seq: int
    """Its place in the order of the area's writes."""
    kind: int
    keys: list[bytes]
    notes: list[int]
    """Numbers in the sender's outbox, one per key (one for CLEAR); 0: none."""


class Heartbeat(NamedTuple):
    """What a listener hears of its own heartbeat."""

    number: int
    replication: int
    """Names the history that the numbers belong to; never 0."""
    seqs: list[int]
    """The last number given in each area; 0: none was."""


class Answer(NamedTuple):
    """What a listener says when it has come to a probe."""

    origin: bytes
    """Hexadecimal digits of its segment."""
    pid: int
    """As it calls itself."""
    host: str
    """Name of its machine, as that calls itself."""
    applied: list[tuple[str, int]]
    """Areas, and the probe's number in each: all up to it has been applied."""


def body(kind: int, keys: Sequence[bytes], notes: Sequence[int]) -> bytes:
    """
    Give the part of an invalidation that its sender knows.

    Args:
        kind: FORGET, SET, EXPIRE, CLEAR, FORGET_TAGS, EXPIRE_TAGS or PROBE.
        keys: Encoded keys or tags, at most MOST_KEYS; none for CLEAR, a nonce for PROBE.
        notes: Numbers of the outbox, one per key; one for CLEAR.
    """
    packed: bytes = msgpack.packb([kind, list(keys), list(notes)], use_bin_type=True)
    return packed


def invalidation(origin: bytes, seq: int, said: bytes) -> bytes:
    """
    Give the whole of an invalidation.

    Args:
        origin: The sender's 16 bytes.
        seq: Its number.
        said: What body() gave.
    """
    return b"1 %s %d %s" % (origin.hex().encode(), seq, said)


def heartbeat(number: int, history: str, seqs: Sequence[int]) -> bytes:
    """
    Give a heartbeat.

    Args:
        number: Of the heartbeat, as its sender counts them.
        history: What the numbers belong to: printable ASCII without a space.
        seqs: The last number given in each area that was asked about, in that order.
    """
    return " ".join(["1 H", str(number), history, *map(str, seqs)]).encode("ascii")


def answer(origin: bytes, pid: int, host: str, applied: Sequence[tuple[str, int]]) -> bytes:
    """
    Give an answer to a probe.

    Args:
        origin: The listener's 16 bytes.
        pid: Of its process.
        host: Name of its machine; what is longer than LONGEST_HOST is cut.
        applied: Areas and numbers, at most MOST_PROBED.
    """
    name = host.encode("utf-8", "replace")[:LONGEST_HOST]
    pairs = [[area.encode(), seq] for area, seq in applied[:MOST_PROBED]]
    packed: bytes = msgpack.packb([origin, pid, name, pairs], use_bin_type=True)
    return b"1 P " + packed


def parse_answer(data: bytes) -> Answer:
    """
    Read an answer to a probe.

    Raises:
        MessageError: It is none, or out of bounds.
    """
    head, packed = data[:4], data[4:]
    if head != b"1 P " or len(data) > LONGEST_ANSWER:
        raise MessageError("not an answer of version 1")
    match _unpacked(packed, most=MOST_PROBED, longest=_LONGEST_AREA):
        case [bytes(origin), int(pid), bytes(host), list(pairs)]:
            pass
        case _:
            raise MessageError("an answer of another shape")
    if len(origin) * 2 != _ORIGIN_DIGITS or not 0 <= pid <= _LARGEST_PID:
        raise MessageError("an answer of nobody")
    if len(host) > LONGEST_HOST:
        raise MessageError("a name of a host that is too long")
    applied = [_applied(pair) for pair in pairs]
    return Answer(origin.hex().encode(), int(pid), host.decode("utf-8", "replace"), applied)


def _applied(pair: Any) -> tuple[str, int]:
    match pair:
        case [bytes(area), int(seq)] if 0 <= seq <= _LARGEST_SEQ:
            return area.decode("utf-8", "replace"), int(seq)
        case _:
            raise MessageError("an area and a number that are none")


def parse(data: bytes) -> Invalidation:
    """
    Read an invalidation.

    Raises:
        MessageError: It is none, or out of bounds.
    """
    if len(data) > LONGEST:
        raise MessageError("longer than a message may be")
    parts = data.split(b" ", 3)
    if len(parts) != 4 or parts[0] != b"1":
        raise MessageError("not an invalidation of version 1")
    origin, seq, packed = parts[1:]
    if len(origin) != _ORIGIN_DIGITS:
        raise MessageError("no origin of 32 digits")
    return Invalidation(origin, _number(seq, _LARGEST_SEQ), *_read_body(packed))


def parse_heartbeat(data: bytes) -> Heartbeat:
    """
    Read a heartbeat.

    Raises:
        MessageError: It is none, or out of bounds.
    """
    if len(data) > LONGEST:
        raise MessageError("longer than a heartbeat may be")
    parts = data.split(b" ", MOST_AREAS + 4)
    if len(parts) < 4 or len(parts) > MOST_AREAS + 4 or parts[:2] != [b"1", b"H"]:
        raise MessageError("not a heartbeat of version 1")
    if not parts[3]:
        raise MessageError("no replication id")
    return Heartbeat(
        _number(parts[2], _LARGEST_BEAT),
        replication_hash(parts[3]),
        [_number(each, _LARGEST_SEQ) for each in parts[4:]],
    )


@lru_cache(maxsize=8)
def replication_hash(replication_id: bytes) -> int:
    """Give the number that stands for a replication id in the segment: 64 bits, never 0."""
    return int.from_bytes(hashlib.blake2b(replication_id, digest_size=8).digest(), "little") or 1


def _number(digits: bytes, largest: int) -> int:
    # isdigit() of bytes knows the ten ASCII digits only.
    if not digits.isdigit() or len(digits) > _DIGITS:
        raise MessageError("a number that is none")
    number = int(digits)
    if number > largest:
        raise MessageError("a number out of range")
    return number


def _unpacked(packed: bytes, *, most: int, longest: int) -> Any:
    """Read lists, bytes and numbers: lists of at most *most*, bytes of at most *longest*."""
    try:
        return msgpack.unpackb(
            packed,
            raw=False,
            strict_map_key=True,
            max_array_len=most,
            max_bin_len=longest,
            max_str_len=0,
            max_map_len=0,
            max_ext_len=0,
        )
    except Exception:  # msgpack has a handful of its own, and recursion
        raise MessageError("a body that cannot be read") from None


def _read_body(packed: bytes) -> tuple[int, list[bytes], list[int]]:
    content = _unpacked(packed, most=MOST_KEYS, longest=LONGEST_KEY)
    if type(content) is not list or len(content) != 3:
        raise MessageError("a body of another shape")
    kind, keys, notes = content
    if type(kind) is not int or type(keys) is not list or type(notes) is not list:
        raise MessageError("a body of another shape")
    if not FORGET <= kind <= PROBE:
        raise MessageError("an unknown kind")
    if len(notes) != (1 if kind == CLEAR else len(keys)) or (kind == CLEAR) == bool(keys):
        raise MessageError("keys and notes that do not match")
    for key in keys:
        if type(key) is not bytes or not key:
            raise MessageError("a key that is none")
        if kind > CLEAR and len(key) > LONGEST_TAG:
            raise MessageError("a tag that is too long")
    for note in notes:
        if type(note) is not int or not 0 <= note <= _LARGEST_NOTE:
            raise MessageError("a note that is none")
    if kind == PROBE and [*map(len, keys)] != [NONCE_SIZE]:
        raise MessageError("a probe without its nonce")
    return kind, keys, notes
