"""
The operations, without any input or output.

A plan is a generator: it yields a Batch, is sent the replies, and returns the result.  Who runs it,
in a thread or on an event loop, only sends commands and reads replies.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Generator, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from accelerator import message
from accelerator.backend import Change, Fill, Lease, Stored, Written
from accelerator.remote import envelope, names, scripts

if TYPE_CHECKING:
    from collections.abc import Iterable

    from accelerator.backend import Envelope
    from accelerator.remote.scripts import Joined, Script

READ_CHUNK: Final = 256
"""Keys that one command reads."""
WRITE_CHUNK: Final = 128
"""Keys that one script writes: nobody else is served meanwhile."""
CHUNK_BYTES: Final = 4 << 20
"""Bytes of values that one script writes, unless a single one is larger."""

_INT64: Final = range(-(1 << 63), 1 << 63)
_FINGERPRINT: Final = struct.Struct(">I")
_STALE: Final = struct.Struct(">I")

T = TypeVar("T")


class Call(NamedTuple):
    """One run of a script."""

    script: Script
    keys: Sequence[str]
    args: Sequence[bytes | str | int]

    def command(self, *, with_source: bool) -> Sequence[Any]:
        """Give the command: by digest, or with the source, which Redis then remembers."""
        which = ("EVAL", self.script.source) if with_source else ("EVALSHA", self.script.sha)
        return (*which, len(self.keys), *self.keys, *self.args)


Command = Call | tuple[Any, ...]


class Batch(NamedTuple):
    """Commands to be sent together."""

    commands: Sequence[Command]
    atomic: bool = False
    """Between two of them, nothing else is done."""


Plan = Generator[Batch, list[Any], T]


class Plans:
    """
    The operations on the areas of one namespace.

    Args:
        namespace: As of the settings.
        db: Number of the database.
        cluster: Whether keys lie on several servers, each with a part of the slots.
    """

    def __init__(self, namespace: str, db: int, *, cluster: bool) -> None:
        self.namespace = namespace
        self.db = db
        self.cluster = cluster
        self._names: dict[str, names.Names] = {}

    def names(self, area: str) -> names.Names:
        """Give the names of an area."""
        found = self._names.get(area)
        if found is None:
            found = self._names[area] = names.Names(self.namespace, area, self.db)
        return found

    # --- reads and fills ---

    def get(self, area: str, keys: Sequence[bytes]) -> Plan[list[Stored | None]]:
        """Read values; None: there is none of the area's generation."""
        mine = self.names(area)
        read = _read_each if self.cluster else _read_together
        found: list[Stored | None] = []
        for chunk in _chunks(keys, READ_CHUNK):
            generation, pairs = yield from read(mine.gen, [mine.value(key) for key in chunk])
            found += [_stored(generation, blob, left) for blob, left in pairs]
        return found

    def lease(self, area: str, keys: Sequence[bytes], seconds: float) -> Plan[list[Lease]]:
        """Get or make the leases under which keys are loaded, for at least *seconds*."""
        mine = self.names(area)
        life = max(1, int(seconds * 1000))
        found: list[Lease] = []
        for chunk in _chunks(keys, READ_CHUNK):
            wanted = [names.lease(mine.value(key)) for key in chunk]
            groups = [[name] for name in wanted] if self.cluster else [wanted]
            calls = [
                Call(scripts.LEASE, group, [life, *(os.urandom(16) for _ in group)])
                for group in groups
            ]
            # The generation first: a clear after it makes what is loaded a miss, never the reverse.
            generation, *tokens = yield Batch([_generation_call(mine), *calls])
            found += [Lease(token, generation) for part in tokens for token in part]
        return found

    def fill(self, area: str, fills: Sequence[Fill]) -> Plan[list[bool]]:
        """Store loaded values; tell for each whether its lease still held."""
        mine = self.names(area)
        stored: list[bool] = []
        for chunk in _chunks_by_size(fills, 1 if self.cluster else WRITE_CHUNK):
            keys: list[str] = []
            args: list[Any] = []
            for fill in chunk:
                value = mine.value(fill.key)
                keys += [value, names.lease(value)]
                blob = fill.value.blob(fill.lease.generation)
                args += [
                    fill.lease.token,
                    blob,
                    envelope.physical_ms(fill.life, fill.value.stale_ms),
                ]
            (reply,) = yield Batch([Call(scripts.FILL, keys, args)])
            stored += [bool(each) for each in reply]
        return stored

    # --- explicit writes ---

    def write(
        self,
        area: str,
        kind: int,
        changes: Sequence[Change],
        origin: bytes,
        *,
        broadcast: bool = True,
    ) -> Plan[Written]:
        """Store or delete keys, and tell all hosts."""
        seq = found = 0
        for chunk in _chunks_by_size(changes, WRITE_CHUNK):
            args = [
                [
                    change.value.head,
                    change.value.payload,
                    envelope.physical_ms(change.life, change.value.stale_ms),
                ]
                if change.value is not None
                else ["", "", ""]
                for change in chunk
            ]
            keys, notes = [each.key for each in chunk], [each.note for each in chunk]
            said = _Said(kind, keys, notes, origin, broadcast=broadcast)
            answers, seq = yield from self._change(area, scripts.WRITE, args, said)
            found += sum(answers)
        return Written(seq, found)

    def expire(
        self, area: str, keys: Sequence[bytes], notes: Sequence[int], origin: bytes
    ) -> Plan[int]:
        """End the fresh lives of keys, keep what is usable as stale; count the fresh ones."""
        fresh = 0
        for start in range(0, len(keys), WRITE_CHUNK):
            part = slice(start, start + WRITE_CHUNK)
            said = _Said(message.EXPIRE, keys[part], notes[part], origin)
            answers, _ = yield from self._change(
                area, scripts.EXPIRE, [[] for _ in keys[part]], said
            )
            fresh += sum(answers)
        return fresh

    def clear(self, area: str, note: int, origin: bytes) -> Plan[None]:
        """Forget a whole area: its generation is another one from now on."""
        mine = self.names(area)
        said = _Said(message.CLEAR, [], [note], origin)
        args = said.arguments(mine.channel, os.urandom(envelope.GENERATION_SIZE), None)
        yield Batch([Call(scripts.CLEAR, [mine.seq, mine.log, mine.gen], args)])

    def add(self, area: str, change: Change, origin: bytes) -> Plan[bool]:
        """Store a key that has no fresh value; tell whether it had none."""
        assert change.value is not None, "there is nothing to add"
        value = change.value
        args = [value.head, value.payload, envelope.physical_ms(change.life, value.stale_ms)]
        said = _Said(message.SET, [change.key], [change.note], origin)
        fingerprint = envelope.HEAD.unpack(value.head)[4]
        answers, _ = yield from self._change(area, scripts.ADD, [args], said, fingerprint)
        return bool(answers[0])

    def touch(  # noqa: PLR0917  as the protocol says
        self,
        area: str,
        key: bytes,
        life: float | None,
        stale_life: float,
        note: int,
        origin: bytes,
        *,
        fingerprint: int | None = None,
    ) -> Plan[bool]:
        """Give a fresh value a new life; tell whether there was one."""
        stale_ms = envelope.stale_milliseconds(stale_life)
        args = [_STALE.pack(stale_ms), envelope.physical_ms(life, stale_ms)]
        said = _Said(message.SET, [key], [note], origin)
        answers, _ = yield from self._change(area, scripts.TOUCH, [args], said, fingerprint)
        return bool(answers[0])

    def incr(  # noqa: PLR0917  as the protocol says
        self,
        area: str,
        key: bytes,
        delta: int,
        initial: Change | None,
        note: int,
        origin: bytes,
        *,
        fingerprint: int | None = None,
    ) -> Plan[int | None]:
        """
        Add to an int, which keeps its life; an absent key begins as *initial*, then is added to.

        Returns:
            The new number; None: absent, and *initial* is None.

        Raises:
            TypeError: The value is no int of 64 bits.
            OverflowError: *delta*, or the result, does not fit 64 bits.
        """
        if delta not in _INT64:
            raise OverflowError("the result does not fit 64 bits")
        args: list[Any] = [delta, "", "", ""]
        if initial is not None and initial.value is not None:
            value = initial.value
            args = [
                delta,
                value.head,
                value.payload,
                envelope.physical_ms(initial.life, value.stale_ms),
            ]
            fingerprint = envelope.HEAD.unpack(value.head)[4]
        said = _Said(message.SET, [key], [note], origin)
        answers, _ = yield from self._change(
            area, scripts.INCR, [args], said, fingerprint, scratch=True
        )
        answer = answers[0]
        if answer == b"absent":
            return None
        if answer == b"type":
            raise TypeError("the cached value is no 64-bit int")
        if answer == b"overflow":
            raise OverflowError("the result does not fit 64 bits")
        return int(answer)

    def tell(
        self, area: str, kind: int, keys: Sequence[bytes], notes: Sequence[int], origin: bytes
    ) -> Plan[int]:
        """Tell all hosts of what has been done by other means; the number of the last message."""
        mine = self.names(area)
        seq = 0
        for start in range(0, len(keys), WRITE_CHUNK):
            chunk = slice(start, start + WRITE_CHUNK)
            said = _Said(kind, keys[chunk], notes[chunk], origin)
            common = said.arguments(mine.channel, b"", None)
            (seq,) = yield Batch([Call(scripts.ANNOUNCE, [mine.seq, mine.log], common)])
        return int(seq)

    def _change(
        self,
        area: str,
        script: Joined,
        args: Sequence[Sequence[Any]],
        said: _Said,
        fingerprint: int | None = None,
        *,
        scratch: bool = False,
    ) -> Plan[tuple[list[Any], int]]:
        """
        Run an operation on the keys that *said* names, each with its part of *args*.

        Returns:
            The operation's answers, and the number of the message; 0: none was sent.
        """
        mine = self.names(area)
        groups = []
        for key in said.keys:
            value = mine.value(key)
            more = [names.scratch(value)] if scratch else []
            groups.append([value, names.lease(value), *more])
        control = [mine.seq, mine.log]
        if not self.cluster:
            common = said.arguments(mine.channel, os.urandom(envelope.GENERATION_SIZE), fingerprint)
            keys = [*control, mine.gen, *_flat(groups)]
            (reply,) = yield Batch([Call(script.whole, keys, [*common, *_flat(args)])])
            return [reply[0]], int(reply[1])
        (generation,) = yield Batch([_generation_call(mine)])
        common = said.arguments(mine.channel, generation, fingerprint)
        replies = yield Batch(
            [
                Call(script.alone, group, [*common, *own])
                for group, own in zip(groups, args, strict=True)
            ]
        )
        # Data first: a host that hears of the change must not find the old value any more.
        seq = 0
        if any(changed for _, changed in replies):
            (seq,) = yield Batch([Call(scripts.ANNOUNCE, control, common)])
        return [answer for answer, _ in replies], int(seq)

    # --- for the listener ---

    def beat(self, areas: Sequence[str], channel: str, n: int) -> Plan[tuple[str, list[int]]]:
        """
        Write, read the areas' numbers, and say so on *channel*.

        Returns:
            The replication id ("?": not known), and for each area the number of its last message.
        """
        mine = [self.names(area) for area in areas]
        if not self.cluster or not areas:
            beat = mine[0].beat if mine else names.host_beat(self.namespace)
            keys = [beat, *(each.seq for each in mine)]
            (reply,) = yield Batch([Call(scripts.BEAT, keys, [channel, n])])
            return reply[0].decode("ascii"), [int(seq) for seq in reply[1]]
        replies = yield Batch([Call(scripts.BEAT, [each.beat, each.seq], ["", n]) for each in mine])
        seqs = [int(found[0]) for _, found in replies]
        replication = _one_id([identity for identity, _ in replies])
        yield Batch([("PUBLISH", channel, message.heartbeat(n, replication, seqs))])
        return replication, seqs

    def recheck(self, areas: Sequence[str], origin: bytes) -> Plan[list[str]]:
        """Forget the areas that a server has from its disk since it began anew; which those are."""
        said = _Said(message.CLEAR, [], [0], origin)
        calls = []
        for area in areas:
            mine = self.names(area)
            common = said.arguments(mine.channel, os.urandom(envelope.GENERATION_SIZE), None)
            calls.append(Call(scripts.RECHECK, [mine.seq, mine.log, mine.gen, mine.run], common))
        replies = (yield Batch(calls)) if calls else []
        return [area for area, cleared in zip(areas, replies, strict=True) if cleared]

    def log(
        self, area: str, first: int, last: int | None, limit: int
    ) -> Plan[list[tuple[int, bytes]]]:
        """Read at most *limit* of the messages from *first* to *last* (None: the newest)."""
        end = "+" if last is None else f"{last}-0"
        (found,) = yield Batch(
            [("XRANGE", self.names(area).log, f"{first}-0", end, "COUNT", limit)]
        )
        return [
            (int(identity.partition(b"-")[0]), fields.get(b"m", b"")) for identity, fields in found
        ]


class _Said(NamedTuple):
    """What is announced about an operation."""

    kind: int
    keys: Sequence[bytes]
    notes: Sequence[int]
    origin: bytes
    broadcast: bool = True

    def arguments(
        self, channel: str, generation: bytes, fingerprint: int | None
    ) -> list[bytes | str | int]:
        """Give the arguments that all scripts have in common."""
        return [
            channel if self.broadcast else "",
            f"1 {self.origin.hex()} ",
            message.body(self.kind, self.keys, self.notes) if self.broadcast else "",
            scripts.LOG_LENGTH,
            generation,
            "" if fingerprint is None else _FINGERPRINT.pack(fingerprint),
        ]


# --- how values are read ---

_Read = tuple[bytes | None, list[tuple[bytes | None, int]]]
"""Generation, and for each key what lies there and its life in ms: -1 no expiry, -2 absent."""


def _read_together(gen: str, values: Sequence[str]) -> Plan[_Read]:
    """Read on one server: lives and values of the same moment."""
    reads = [("MGET", gen, *values), *(("PTTL", value) for value in values)]
    (generation, *blobs), *lives = yield Batch(reads, atomic=True)
    return generation, list(zip(blobs, lives, strict=True))


def _read_each(gen: str, values: Sequence[str]) -> Plan[_Read]:
    """
    Read on a cluster, where only the commands of one key are in order.

    A value may be replaced between two commands.  Its life is asked before and after: the shorter
    one is no longer than that of the value that was read, whichever of the two it was.
    """
    reads: list[Command] = [("GET", gen)]
    for value in values:
        reads += [("PTTL", value), ("GET", value), ("PTTL", value)]
    generation, *replies = yield Batch(reads)
    pairs: list[tuple[bytes | None, int]] = []
    for before, blob, after in zip(replies[::3], replies[1::3], replies[2::3], strict=True):
        ends = [life for life in (before, after) if life != -1]
        pairs.append((blob, min(ends, default=-1)))
    return generation, pairs


def _stored(generation: bytes | None, blob: bytes | None, left: int) -> Stored | None:
    # left 0: it ends within this millisecond; taken for a life it would be none at all.
    if blob is None or generation is None or left in {0, -2}:
        return None
    carried = envelope.generation_of(blob)
    if carried is not None and carried != generation:
        return None
    return Stored(blob, None if left < 0 else left / 1000)


# --- details ---


def _generation_call(mine: names.Names) -> Call:
    return Call(scripts.GENERATION, [mine.gen], [os.urandom(envelope.GENERATION_SIZE)])


def _one_id(found: Sequence[bytes]) -> str:
    """Make one replication id of those of several servers: another one when any of them is."""
    if b"?" in found:
        return "?"
    joined = b" ".join(found)
    return hashlib.sha1(joined, usedforsecurity=False).hexdigest()


def _flat(parts: Iterable[Sequence[T]]) -> list[T]:
    return [each for part in parts for each in part]


def _chunks(items: Sequence[T], most: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), most):
        yield items[start : start + most]


Sized = TypeVar("Sized", Fill, Change)


def _chunks_by_size(items: Sequence[Sized], most: int) -> Iterator[list[Sized]]:
    """Cut into parts of at most *most*, none of them with much more than CHUNK_BYTES of values."""
    part: list[Sized] = []
    size = 0
    for item in items:
        value: Envelope | None = item.value
        weight = 0 if value is None else len(value.payload)
        if part and (len(part) == most or size + weight > CHUNK_BYTES):
            yield part
            part, size = [], 0
        part.append(item)
        size += weight
    if part:
        yield part
