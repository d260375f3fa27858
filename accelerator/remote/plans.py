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
from accelerator.errors import RemoteError
from accelerator.remote import envelope, names, scripts, tagging, versions
from accelerator.remote.names import Names

if TYPE_CHECKING:
    from collections.abc import Iterable

    from accelerator.backend import Envelope
    from accelerator.remote.scripts import Joined, Script

READ_CHUNK: Final = 256
"""Keys that one command reads."""
WRITE_CHUNK: Final = 128
"""Keys that one script writes: nobody else is served meanwhile."""
WORDS_CHUNK: Final = 1024
"""Places of tags that one script reads, in about a millisecond; a value has up to 16."""
CHUNK_BYTES: Final = 4 << 20
"""Bytes of values that one script writes, unless a single one is larger."""

TRIES: Final = 16
"""How often an operation begins anew as others were faster, before it is given up."""

_INT64: Final = range(-(1 << 63), 1 << 63)
_FINGERPRINT: Final = struct.Struct(">I")
_STALE: Final = struct.Struct(">I")
_VERSION_MS: Final = 1000 * versions.VERSION_LIFE

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
        self._names: dict[str, Names] = {}
        self._versions: dict[str, str] = {}
        """By area the versions that there were when one was looked at last: their digits."""

    def names(self, area: str) -> Names:
        """Give the names of an area."""
        found = self._names.get(area)
        if found is None:
            found = self._names[area] = Names(self.namespace, area, self.db)
        return found

    # --- reads and fills ---

    def get(
        self, area: str, keys: Sequence[bytes], *, fingerprint: int = 0
    ) -> Plan[list[Stored | None]]:
        """Read values; None: there is none of the area's generation, or its tags were deleted."""
        mine = self.names(area)
        digits = names.fingerprint_digits(fingerprint)
        read = _read_each if self.cluster else _read_together
        found: list[Stored | None] = []
        for chunk in _chunks(keys, READ_CHUNK):
            wanted = [names.version(mine.value(key), digits) for key in chunk]
            generation, pairs = yield from read(mine.versions if digits else mine.gen, wanted)
            if digits:
                generation = versions.entry_of(generation, digits)
            found += [_stored(generation, blob, left) for blob, left in pairs]
        return (yield from self._judged(mine, found))

    def _judged(self, mine: Names, found: list[Stored | None]) -> Plan[list[Stored | None]]:
        """Look what has become of values with tags: after they were read, so never too early."""
        sections = [None if one is None else _section(one.blob) for one in found]
        tags = {tag for section in sections if section is not None for tag in section.tags}
        if not tags:
            return found
        words = yield from self._words(mine, tagging.places_of(tags))
        return [
            one
            if one is None or section is None
            else _with_verdict(one, tagging.judged(words, section.stamp, section.tags))
            for one, section in zip(found, sections, strict=True)
        ]

    def _words(self, mine: Names, places: Sequence[int]) -> Plan[tagging.Words | None]:
        """Read what the area knows of the deletes of tags, by their places; None: nothing."""
        parts = list(_chunks(places, WORDS_CHUNK))
        keys = [mine.seq, mine.tags]
        replies = yield Batch([Call(scripts.WORDS, keys, part) for part in parts])
        return tagging.Words.joined(
            [tagging.Words.read(part, reply) for part, reply in zip(parts, replies, strict=True)]
        )

    def lease(
        self, area: str, keys: Sequence[bytes], seconds: float, *, fingerprint: int = 0
    ) -> Plan[list[Lease]]:
        """Get or make the leases under which keys are loaded, for at least *seconds*."""
        mine = self.names(area)
        digits = names.fingerprint_digits(fingerprint)
        life = max(1, int(seconds * 1000))
        found: list[Lease] = []
        for chunk in _chunks(keys, READ_CHUNK):
            wanted = [names.lease(mine.value(key)) for key in chunk]
            groups = [[name] for name in wanted] if self.cluster else [wanted]
            calls = [
                Call(scripts.LEASE, group, [life, *(os.urandom(16) for _ in group)])
                for group in groups
            ]
            # The generation first: a clear after it makes what is loaded a miss, never the reverse;
            # and so does a delete by tag after the number, which comes with it.
            first, *tokens = yield Batch([_generation_call(mine, digits), *calls])
            generation, seq = first[0], int(first[1])
            found += [Lease(token, generation, seq) for part in tokens for token in part]
        return found

    def fill(self, area: str, fills: Sequence[Fill], *, fingerprint: int = 0) -> Plan[list[bool]]:
        """Store loaded values; tell for each whether its lease still held."""
        mine = self.names(area)
        digits = names.fingerprint_digits(fingerprint)
        stored: list[bool] = []
        for chunk in _chunks_by_size(fills, 1 if self.cluster else WRITE_CHUNK):
            keys: list[str] = []
            args: list[Any] = []
            for fill in chunk:
                value = mine.value(fill.key)
                keys += [names.version(value, digits), names.lease(value)]
                blob = fill.value.blob(fill.lease.generation, tagging.stamp(fill.lease.seq))
                args += [fill.lease.token, blob, _physical_ms(fill.life, fill.value, digits)]
            before = _table_calls(mine, [fill.value for fill in chunk])
            *_, reply = yield Batch([*before, Call(scripts.FILL, keys, args)])
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
        fingerprint: int = 0,
    ) -> Plan[Written]:
        """Store or delete keys, and tell all hosts."""
        seq = found = 0
        digits = names.fingerprint_digits(fingerprint)
        for chunk in _chunks_by_size(changes, WRITE_CHUNK):
            args = [
                ["", "", ""] if change.value is None else _stored_args(change, digits)
                for change in chunk
            ]
            keys, notes = [each.key for each in chunk], [each.note for each in chunk]
            said = _Said(kind, keys, notes, origin, broadcast=broadcast)
            values = [change.value for change in chunk if change.value is not None]
            uncounted = tagging.DEAD if kind == message.FORGET else ""
            work = _Work(scripts.WRITE, args, said, digits, values=values, uncounted=uncounted)
            answers, seq = yield from self._change(area, work)
            found += sum(answers)
        return Written(seq, found)

    def expire(
        self,
        area: str,
        keys: Sequence[bytes],
        notes: Sequence[int],
        origin: bytes,
        *,
        fingerprint: int = 0,
    ) -> Plan[int]:
        """End the fresh lives of keys, keep what is usable as stale; count the fresh ones."""
        fresh = 0
        digits = names.fingerprint_digits(fingerprint)
        for start in range(0, len(keys), WRITE_CHUNK):
            part = slice(start, start + WRITE_CHUNK)
            said = _Said(message.EXPIRE, keys[part], notes[part], origin)
            args: list[list[Any]] = [[] for _ in keys[part]]
            uncounted = tagging.DEAD + tagging.ENDED
            work = _Work(scripts.EXPIRE, args, said, digits, uncounted=uncounted)
            answers, _ = yield from self._change(area, work)
            fresh += sum(answers)
        return fresh

    def clear(self, area: str, note: int, origin: bytes) -> Plan[None]:
        """Forget a whole area: its generation is another one from now on, for all versions."""
        mine = self.names(area)
        said = _Said(message.CLEAR, [], [note], origin)
        args = said.arguments(mine.channel, os.urandom(envelope.GENERATION_SIZE))
        yield Batch([Call(scripts.CLEAR, [mine.seq, mine.log, mine.gen, mine.versions], args)])

    def mark_tags(
        self, area: str, kind: int, tags: Sequence[bytes], notes: Sequence[int], origin: bytes
    ) -> Plan[None]:
        """Make all values that carry one of *tags* miss, or stale, as *kind* says; tell all."""
        mine = self.names(area)
        expires = kind == message.EXPIRE_TAGS
        word = tagging.STAMP_SIZE if expires else 0
        for start in range(0, len(tags), WRITE_CHUNK):
            part = slice(start, start + WRITE_CHUNK)
            said = _Said(kind, tags[part], notes[part], origin)
            offsets = [tagging.PAIR * (1 + place) + word for place in tagging.places_of(tags[part])]
            args = [*said.arguments(mine.channel, b"expire" if expires else b""), *offsets]
            yield Batch([Call(scripts.TAGS, [mine.seq, mine.log, mine.tags], args)])

    def add(self, area: str, change: Change, origin: bytes, *, fingerprint: int = 0) -> Plan[bool]:
        """Store a key that has no fresh value; tell whether it had none."""
        value = change.value
        assert value is not None, "there is nothing to add"
        digits = names.fingerprint_digits(fingerprint)
        said = _Said(message.SET, [change.key], [change.note], origin)
        look = envelope.HEAD.unpack(value.head)[4]
        args = [_stored_args(change, digits)]
        work = _Work(scripts.ADD, args, said, digits, look, values=[value], decides=True)
        answers, _ = yield from self._change(area, work)
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
        digits = names.fingerprint_digits(fingerprint or 0)
        stale_ms = envelope.stale_milliseconds(stale_life)
        args = [_STALE.pack(stale_ms), _bounded_ms(life, stale_ms, digits)]
        said = _Said(message.SET, [key], [note], origin)
        work = _Work(scripts.TOUCH, [args], said, digits, fingerprint, decides=True)
        answers, _ = yield from self._change(area, work)
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
        digits = names.fingerprint_digits(fingerprint or 0)
        args: list[Any] = [delta, "", "", "", ""]
        values = []
        if initial is not None and initial.value is not None:
            value = initial.value
            life = _physical_ms(initial.life, value, digits)
            args = [delta, value.head, value.payload, life, value.tags]
            fingerprint = envelope.HEAD.unpack(value.head)[4]
            values = [value]
        said = _Said(message.SET, [key], [note], origin)
        work = _Work(
            *(scripts.INCR, [args], said, digits, fingerprint),
            values=values,
            decides=True,
            scratch=True,
        )
        answers, _ = yield from self._change(area, work)
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
            common = said.arguments(mine.channel, b"")
            (reply,) = yield Batch([_announce_call(mine, common)])
            seq = reply[0]
        return int(seq)

    def probe(self, area: str, nonce: bytes, origin: bytes) -> Plan[tuple[int, int]]:
        """
        Tell all hosts nothing but to answer when they have come so far.

        Returns:
            The number of the message, and how many connections of this server were told.
        """
        mine = self.names(area)
        common = _Said(message.PROBE, [nonce], [0], origin).arguments(mine.channel, b"")
        (reply,) = yield Batch([Call(scripts.PROBE, [mine.seq, mine.log], common)])
        return int(reply[0]), int(reply[1])

    def answer(self, nonce: bytes, data: bytes) -> Plan[None]:
        """Answer a probe."""
        yield Batch([("PUBLISH", names.answers_channel(self.namespace, nonce, self.db), data)])

    # --- how keys are changed ---

    def _change(self, area: str, work: _Work) -> Plan[tuple[list[Any], int]]:
        """
        Run an operation on the keys that it is about.

        Returns:
            Its answers, and the number of the message; 0: none was sent.
        """
        change = self._change_each if self.cluster else self._change_together
        return (yield from change(area, self.names(area), work))

    def _change_together(self, area: str, mine: Names, work: _Work) -> Plan[tuple[list[Any], int]]:
        """Run it on one server: one script, which also tells of it."""
        control = [mine.seq, mine.log, mine.gen, mine.tags, mine.versions]
        for _ in range(TRIES):
            listed = self._versions.get(area, "")
            common = work.arguments(mine.channel, os.urandom(envelope.GENERATION_SIZE), listed)
            keys = [*control, *_flat(work.groups(mine, listed))]
            call = Call(work.script.whole, keys, [*common, *_flat(work.args)])
            (reply,) = yield Batch([call])
            if reply[0] != b"versions":
                return [reply[0]], int(reply[1])
            self._versions[area] = versions.known(reply[1])
        raise _overtaken(area)

    def _change_each(self, area: str, mine: Names, work: _Work) -> Plan[tuple[list[Any], int]]:
        """Run it on a cluster, key by key; then tell of it."""
        first = [_generation_call(mine, work.digits), *_table_calls(mine, work.values)]
        (generation, seq, digits), *_ = yield Batch(first)
        listed, stamp = versions.known(digits), tagging.stamp(int(seq))
        groups = work.groups(mine, listed)
        verdict: bytes = b""
        for _ in range(TRIES):
            common = work.arguments(mine.channel, generation, listed, stamp, verdict)
            replies = yield Batch(
                [
                    Call(work.script.alone, group, [*common, *own])
                    for group, own in zip(groups, work.args, strict=True)
                ]
            )
            if not work.decides or replies[0][0] != b"tagged":
                break
            seen = replies[0][2]
            verdict = (yield from self._verdict(mine, seen)).encode() + seen
        else:
            raise _overtaken(area)
        # Data first: a host that hears of the change must not find the old value any more.
        number = 0
        if any(changed for _, changed, _ in replies):
            ((told, after),) = yield Batch([_announce_call(mine, common)])
            number = int(told)
            yield from self._reach_new(mine, work, listed, versions.known(after))
        answers = [answer for answer, _, _ in replies]
        if work.uncounted:
            answers = yield from self._recounted(mine, work, replies)
        return answers, number

    def _verdict(self, mine: Names, seen: bytes) -> Plan[str]:
        """Look what has become of a value of which a script says this about its tags."""
        stamp, pairs = tagging.places_seen(seen)
        words = yield from self._words(mine, sorted({place for pair in pairs for place in pair}))
        return tagging.judged_places(words, stamp, pairs)

    def _recounted(self, mine: Names, work: _Work, replies: Sequence[Any]) -> Plan[list[Any]]:
        """Do not count what was found, but was dead by its tags."""
        answers = []
        for answer, _, seen in replies:
            is_found = answer
            if answer and seen and (yield from self._verdict(mine, seen)) in work.uncounted:
                is_found = 0
            answers.append(is_found)
        return answers

    def _reach_new(self, mine: Names, work: _Work, before: str, after: str) -> Plan[None]:
        """Delete the copies of versions that have come in meanwhile."""
        new = set(versions.others(after, work.digits)) - set(versions.others(before, work.digits))
        if new:
            yield Batch(
                [
                    ("DEL", names.version(mine.value(key), digits))
                    for key in work.said.keys
                    for digits in sorted(new)
                ]
            )

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
            common = said.arguments(mine.channel, os.urandom(envelope.GENERATION_SIZE))
            control = [mine.seq, mine.log, mine.gen, mine.run, mine.versions]
            calls.append(Call(scripts.RECHECK, control, common))
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

    def arguments(self, channel: str, generation: bytes) -> list[bytes | str | int]:
        """Give the arguments that all scripts have in common which announce something."""
        return [
            channel if self.broadcast else "",
            f"1 {self.origin.hex()} ",
            message.body(self.kind, self.keys, self.notes) if self.broadcast else "",
            scripts.LOG_LENGTH,
            generation,
        ]


class _Work(NamedTuple):
    """An operation on keys: those that *said* names, each with its part of *args*."""

    script: Joined
    args: Sequence[Sequence[Any]]
    said: _Said
    digits: str
    """Version of this host."""
    look: int | None = None
    """What values must look like to count as known; None: anything."""
    values: Sequence[Envelope] = ()
    """What it may store."""
    decides: bool = False
    """What it does depends on the value of its one key."""
    uncounted: str = ""
    """Verdicts on tags by which a value is not to be counted as found."""
    scratch: bool = False

    def groups(self, mine: Names, listed: str) -> list[list[str]]:
        """Give the names that belong to each key, where there are these versions."""
        found = []
        others = versions.others(listed, self.digits) if listed else []
        for key in self.said.keys:
            value = mine.value(key)
            group = [names.version(value, self.digits), names.lease(value)]
            group += [names.version(value, digits) for digits in others]
            if self.scratch:
                group.append(names.scratch(value))
            found.append(group)
        return found

    def arguments(
        self,
        channel: str,
        generation: bytes,
        listed: str,
        stamp: bytes = b"",
        verdict: bytes = b"",
    ) -> list[bytes | str | int]:
        """Give the arguments that all operations have in common."""
        look = b"" if self.look is None else _FINGERPRINT.pack(self.look)
        common = self.said.arguments(channel, generation)
        return [*common, look, stamp, self.digits, listed, verdict]


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


def _section(blob: bytes) -> tagging.Section | None:
    """Read what a value says of its tags; None: nothing, or nothing that can be read."""
    if envelope.generation_of(blob) is None:
        return None
    try:
        section = envelope.section_of(blob)
    except envelope.EnvelopeError:
        return None  # who opens it finds out, and counts it
    return section if section.tags else None


def _with_verdict(one: Stored, verdict: str) -> Stored | None:
    if verdict == tagging.VALID:
        return one
    # As expire() does: what has no stale life is gone.
    if verdict == tagging.DEAD or not envelope.stale_ms_of(one.blob):
        return None
    return one._replace(expired=True)


def _generation_call(mine: Names, digits: str) -> Call:
    fresh = os.urandom(envelope.GENERATION_SIZE)
    return Call(scripts.GENERATION, [mine.gen, mine.seq, mine.versions], [fresh, digits])


def _table_calls(mine: Names, values: Iterable[Envelope]) -> list[Call]:
    """See to it that there is a table of deletes by tag, if a value has tags."""
    if not any(value.tags for value in values):
        return []
    return [Call(scripts.MAKE_TABLE, [mine.seq, mine.tags], [])]


def _announce_call(mine: Names, arguments: Sequence[Any]) -> Call:
    return Call(scripts.ANNOUNCE, [mine.seq, mine.log, mine.versions], arguments)


def _stored_args(change: Change, digits: str) -> list[Any]:
    """What a script needs to store a value; the stamp comes before what is said of its tags."""
    value = change.value
    assert value is not None, "there is nothing to store"
    return [value.head, value.tags + value.payload, _physical_ms(change.life, value, digits)]


def _physical_ms(life: float | None, value: Envelope, digits: str) -> int:
    return _bounded_ms(life, value.stale_ms, digits)


def _bounded_ms(life: float | None, stale_ms: int, digits: str) -> int:
    """Life of a Redis key in milliseconds, 0: no expiry; that of a version's value ends."""
    found = envelope.physical_ms(life, stale_ms)
    if not digits:
        return found
    return min(found or _VERSION_MS, _VERSION_MS)


def _overtaken(area: str) -> RemoteError:
    return RemoteError(
        "others changed the same all the time: try again", area=area, operation="change"
    )


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
