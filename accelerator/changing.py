"""
One explicit change of an area that lies in Redis too: the order of its steps.

Set, delete, expire, clear, in parts of at most ``PART`` keys::

    1. a note in the outbox of this host, for each key
    2. the segment: what is there is replaced, or goes
    3. Redis, in one script that also tells the other hosts
    4. unless it is a set: the segment again, as a reader may have fetched the old copy from Redis
       between 2 and 3
    5. the notes are settled: sent if Redis has taken it, queued if not

Whoever listens for this host sends what is queued, and what a dead owner has noted: a clear as a
clear, a tag as what it is, all else as a delete.  Killed before 2, it is a delete too many.  Killed
between 2 and 5, the host has the change or misses the key, and Redis is told to forget it, which
also makes up for 4.  Stopped there by an exception (also a cancelled task: nobody knows what Redis
has done), the notes are queued.

A delete by tag (or an expiry) goes the same way, with a note for each tag, and in 2 and 4 the clock
of tags instead of keys::

    2. what this host holds with the tag is dead, and so is what is loaded right now
    3. Redis gives it a number and writes that into its table: what was loaded before, on whatever
       host, is dead there, too
    4. what a reader has fetched from Redis between 2 and 3 is dead

Until 5 its own message, which may be faster, is applied like another host's.  After that it is
skipped: nothing that is older is left, and what was set since must stay.  Queued it is sent as
what it is, and whoever sends it does 4 as well before 5.  Until then no reader of this host is
given a copy with that tag from Redis.

Add, touch, incr are decided by Redis, and nothing is done here before: the copy in the segment goes
when Redis has answered.  Killed in between, it goes when the message of the script comes back.

Where an operator keeps the area from Redis (see ``binding``), 3 is left out and the notes are
queued: all of the above holds as when Redis does not answer.  Nothing is decided then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Self

from accelerator import local, message
from accelerator.binding import COUNTER
from accelerator.errors import BackendError
from accelerator.observability import oplog

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import TypeVar

    from accelerator.looking import Looking
    from accelerator.policy import Lives
    from accelerator.remote import Change
    from accelerator.second import RemoteArea
    from accelerator.steps import Ask, Steps

    T = TypeVar("T")

_PUBLISH: Final = COUNTER["invalidation_publish"]
_PUBLISH_FAILURES: Final = COUNTER["invalidation_publish_failures"]
_QUEUED: Final = COUNTER["invalidation_queued"]

PART: Final = 128
"""
Keys that are noted, and then changed, at a time: as many as one script of Redis writes.

A batch that noted all its keys first would fill the outbox, whatever its size: then the notes of
others are lost, and whole areas cleared.
"""

Item = tuple[Any, tuple[int, bytes] | None, "Lives", tuple[bytes, ...]]
"""Key, encoded value (None: it is to be forgotten), lives, encoded tags."""


class ExplicitChange:
    """
    One explicit change of an area that has a second level.

    Args:
        area: The area.
        second: What it is in Redis.
        op: Name of the operation in logs and errors.
        since: When it began.
        is_held: An override keeps the area from Redis.
    """

    def __init__(
        self, area: Looking, second: RemoteArea, op: str, since: float, *, is_held: bool = False
    ) -> None:
        self._area = area
        self._is_held = is_held
        self._config = area._config
        self._second = second
        self._op = op
        self._since = since
        self._notes = Notes(area._memory)
        self.is_queued = False
        """Redis has not taken all of it, which has been logged."""

    # --- set and forget -------------------------------------------------------------------------

    def setting(self, items: Sequence[Item], broadcast: bool | None) -> Steps[bool]:
        """
        Store keys, or forget those that have nothing to be stored.

        Args:
            items: The keys.
            broadcast: Whether other hosts are told; None: as the area says.

        Returns:
            Whether all of it is done, here and in Redis; what is not has been logged.
        """
        is_told = self._tells_of_sets if broadcast is None else broadcast
        is_done = True
        for part in _parts(items):
            is_done &= yield from self._setting_part(part, is_told)
        return is_done

    def _setting_part(self, items: Sequence[Item], is_told: bool) -> Steps[bool]:
        area = self._area
        stored = []
        with self._notes:
            changes = [self._noted(*item) for item in items]
            for change, (key, encoded, lives, tagged) in zip(changes, items, strict=True):
                kept = encoded if self._is_held or change.value is not None else None
                put = self._op, key, kept, lives, self._since, change.note
                stored.append(area._put(*put, tagged=tagged))
            wanted = self._second.writing(message.SET, changes, broadcast=is_told)
            # A set is not sent later: the old copy is deleted instead.
            found = yield from self._publishing(
                wanted, len(changes), told=is_told, failed_as="error"
            )
            self._settle(found)
        # On this host it is all that there is to be done while the area is kept from Redis.
        return all(stored) and (self._is_held or found is not None)

    def deleting(self, keys: Sequence[Any], on_error: str) -> Steps[int]:
        """Forget keys; how many of them were there.  See _check_taken()."""
        found = 0
        is_taken = True
        for part in _parts(keys):
            here, there = yield from self._deleting_part(part)
            found += max(here, there or 0)
            is_taken &= there is not None
        self._check_taken(is_taken, on_error)
        return found

    def _deleting_part(self, keys: Sequence[Any]) -> Steps[tuple[int, int | None]]:
        """Forget in both tiers; how many keys each of them had, None if Redis was not told."""
        area = self._area
        with self._notes:
            changes = [self._forgotten(key) for key in keys]
            here = sum(map(area._delete, keys))
            wanted = self._second.writing(message.FORGET, changes, broadcast=self._tells)
            there = yield from self._publishing(wanted, len(changes), told=self._tells)
            area._forget_again(keys)
            self._settle(there)
        return here, there

    def expiring(self, key: Any, on_error: str) -> Steps[bool]:
        """End the life of a key; whether it was fresh.  See _check_taken()."""
        area = self._area
        encoded = area._wire(key)
        with self._notes:
            note = self._note(key, local.NOTE_EXPIRE)
            was_fresh_here = area._expire(key)
            found = yield from self._publishing(self._second.expiring(encoded, note), 1)
            area._memory.invalidate(self._config.area, [encoded], expire=True)
            self._settle(found)
        self._check_taken(found is not None, on_error)
        return bool(found) or was_fresh_here

    def clearing(self, on_error: str) -> Steps[None]:
        """Forget the whole area.  See _check_taken()."""
        area = self._area
        with self._notes:
            note = self._notes.add(area._note_clear())
            area._clear()
            found = yield from self._publishing(self._second.clearing(note), 1)
            area._memory.clear_area(self._config.area)
            self._settle(found)
        self._check_taken(found is not None, on_error)

    def tagging(self, tags: Sequence[bytes], on_error: str, *, expire: bool) -> Steps[None]:
        """Forget, or expire, all values that carry one of some tags.  See _check_taken()."""
        is_taken = True
        for part in _parts(tags):
            taken = yield from self._tagging_part(part, expire=expire)
            is_taken &= taken is not None
        self._check_taken(is_taken, on_error)

    def _tagging_part(self, tags: Sequence[bytes], *, expire: bool) -> Steps[int | None]:
        area = self._area
        note_kind = local.NOTE_EXPIRE_TAG if expire else local.NOTE_FORGET_TAG
        kind = message.EXPIRE_TAGS if expire else message.FORGET_TAGS
        with self._notes:
            notes = [self._notes.add(area._note_tag(tag, note_kind)) for tag in tags]
            if expire:
                area._expire_tags(tags)
            else:
                area._delete_tags(tags)
            taken = yield from self._publishing(self._second.tagging(kind, tags, notes), len(tags))
            area._memory.invalidate_tags(self._config.area, list(tags), expire)
            self._settle(taken)
        return taken

    def telling(self, keys: Sequence[Any]) -> Steps[None]:
        """Have other hosts forget what they have of keys of which Redis has new values."""
        if not keys or not self._tells_of_sets:
            return
        with self._notes:
            notes = [self._note(key, local.NOTE_FORGET) for key in keys]
            wanted = self._second.telling([self._area._wire(key) for key in keys], notes)
            self._settle((yield from self._publishing(wanted, len(keys))))

    # --- their steps ----------------------------------------------------------------------------

    @property
    def _tells(self) -> bool:
        """Whether other hosts are told of what is forgotten."""
        return self._config.broadcast_invalidation is not False

    @property
    def _tells_of_sets(self) -> bool:
        """Whether other hosts are told of what is stored, unless the call says otherwise."""
        told = self._config.broadcast_sets
        return self._tells if told is None else told

    def _note(self, key: Any, kind: int) -> int:
        return self._notes.add(self._area._note(key, kind))

    def _change(
        self,
        key: Any,
        note: int,
        encoded: tuple[int, bytes],
        life: float | None,
        tags: Sequence[bytes],
    ) -> Change:
        return self._second.change(self._area._wire(key), note, encoded, life, tags)

    def _forgotten(self, key: Any) -> Change:
        """Note a delete in the outbox; what is to become of the key in Redis."""
        return self._second.change(self._area._wire(key), self._note(key, local.NOTE_FORGET))

    def _noted(
        self,
        key: Any,
        encoded: tuple[int, bytes] | None,
        lives: Lives,
        tags: tuple[bytes, ...],
    ) -> Change:
        """Note a set in the outbox; what is to become of the key in Redis."""
        if self._is_held:
            kind = local.NOTE_FORGET if encoded is None or lives.local == 0 else local.NOTE_SET
            return self._second.change(self._area._wire(key), self._note(key, kind))
        if encoded is None or lives.remote == 0:
            return self._forgotten(key)
        note = self._note(key, local.NOTE_SET)
        return self._change(key, note, encoded, lives.remote, tags)

    def _publishing(
        self, wanted: Ask, count: int, *, told: bool = True, failed_as: str = "queued"
    ) -> Steps[int | None]:
        """
        Have Redis do it and tell the other hosts.

        Args:
            wanted: What is asked of it.
            count: Number of notes that are queued if it does not take it.
            told: It tells the other hosts.
            failed_as: Result in the log then.

        Returns:
            How many of the keys it knew; None: it has not taken it, which has been logged.
        """
        if self._is_held:
            self._area._count(_QUEUED, count)
            kind = BackendError.kind
            oplog.failed(self._config.area, self._op, kind, self._since, result="queued")
            return None
        try:
            found = yield wanted
        except BackendError as error:
            self._area._count(_PUBLISH_FAILURES)
            self._area._count(_QUEUED, count)
            self.is_queued = True
            oplog.failed(self._config.area, self._op, error.kind, self._since, result=failed_as)
            return None
        if told:
            self._area._count(_PUBLISH)
        return int(found or 0)

    def _settle(self, found: int | None) -> None:
        """Settle the notes as sent if Redis has taken it, and else leave them to be queued."""
        if found is not None:
            self._notes.sent()

    def _check_taken(self, is_taken: bool, on_error: str) -> None:
        """
        Tell the caller that Redis does not know yet, if that is what it wants.

        Raises:
            BackendError: It has not taken all of it, and *on_error* is "raise".
        """
        if not is_taken and on_error == "raise":
            why = "is not asked, by an override of mode" if self._is_held else "did not take it"
            raise BackendError(
                f"Redis {why}: it is done on this host, and queued until Redis is back",
                queued=True,
                area=self._config.area,
                operation=self._op,
            )

    # --- decided where the truth is -------------------------------------------------------------

    def adding(
        self,
        key: Any,
        encoded: tuple[int, bytes],
        life: float | None,
        tags: tuple[bytes, ...] = (),
    ) -> Steps[bool]:
        """Store a key that has no fresh value; whether it had none.  See _deciding()."""
        wanted = self._second.adding(self._change(key, 0, encoded, life, tags))
        added: bool = yield from self._deciding(wanted)
        if added:
            self._decided(key)
        return added

    def touching(self, key: Any, life: float | None) -> Steps[bool]:
        """Give a fresh value a new life; whether there was one.  See _deciding()."""
        wanted = self._second.touching(self._area._wire(key), life)
        touched: bool = yield from self._deciding(wanted)
        if touched:
            self._decided(key)
        return touched

    def incrementing(
        self,
        key: Any,
        delta: int,
        default: int | None,
        life: float | None,
        tags: tuple[bytes, ...] = (),
    ) -> Steps[int | None]:
        """
        Add to an int.  See _deciding().

        Args:
            key: The key.
            delta: What to add.
            default: What a missing one starts from; None: it is not created.
            life: That of a new one.
            tags: Those of a new one, encoded.

        Returns:
            The new value; None: it is missing, and was not created.
        """
        initial = None
        if default is not None:
            encoded = self._area._encoded(self._op, default, self._since)
            initial = self._change(key, 0, encoded, life, tags)
        wanted = self._second.incrementing(self._area._wire(key), delta, initial)
        value: int | None = yield from self._deciding(wanted)
        if value is not None:
            self._decided(key)
        return value

    def check_decidable(self) -> None:
        """
        See whether Redis may be asked to decide.

        Raises:
            BackendError: An override keeps the area from it: there is no guess.
        """
        if self._is_held:
            oplog.failed(self._config.area, self._op, BackendError.kind, self._since)
            raise BackendError(
                "Redis decides about it, and is not asked as long as the mode is overridden",
                area=self._config.area,
                operation=self._op,
            )

    def _deciding(self, wanted: Ask) -> Steps[Any]:
        """
        Ask Redis to decide.

        Raises:
            BackendError: It does not answer: there is no guess.
        """
        try:
            answer = yield wanted
        except BackendError as error:
            oplog.failed(self._config.area, self._op, error.kind, self._since)
            error.area, error.operation = self._config.area, self._op
            raise
        return answer

    def _decided(self, key: Any) -> None:
        """Note that Redis has changed a key, and told the other hosts."""
        self._area._count(_PUBLISH)
        self._area._forget_again([key])


def _parts(things: Sequence[T]) -> Iterator[Sequence[T]]:
    """Cut what is changed together."""
    return (things[start : start + PART] for start in range(0, len(things), PART))


class Notes:
    """What one part of a change has noted in the outbox.  What is not sent in the end is queued."""

    def __init__(self, memory: local.Segment) -> None:
        self._memory = memory
        self._open: list[int] = []

    def add(self, note: int) -> int:
        """Know one more."""
        self._open.append(note)
        return note

    def sent(self) -> None:
        """Redis has taken all of it."""
        self._settle(True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._settle(False)

    def _settle(self, sent: bool) -> None:
        while self._open:
            # Taken off the list only then: a signal's exception in between is no reason to forget.
            self._memory.outbox_settle(self._open[-1], sent)
            self._open.pop()
