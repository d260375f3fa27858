"""
What a write or a delete does, step by step, over both tiers.

Order of an explicit change with Redis: a note in the outbox; the segment; Redis, in one script that
also tells the other hosts; for a delete the segment again, because a reader may have fetched the
old copy from Redis in between; then the note is settled.  Killed anywhere, the note is left with a
dead owner, and whoever listens for this host tells Redis to forget the key.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Self

from accelerator import local, message
from accelerator.binding import COUNTER
from accelerator.errors import BackendError
from accelerator.looking import Looking
from accelerator.observability import oplog
from accelerator.steps import Ask

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import TypeVar

    from accelerator.policy import Lives
    from accelerator.remote import Change
    from accelerator.steps import Steps

    T = TypeVar("T")

_PUBLISH: Final = COUNTER["invalidation_publish"]
_PUBLISH_FAILURES: Final = COUNTER["invalidation_publish_failures"]
_QUEUED: Final = COUNTER["invalidation_queued"]

PART: Final = 128
"""
Keys that are noted, and then written, at a time: as many as one script of Redis writes.

A batch that noted all its keys first would fill the outbox, whatever its size: then the notes of
others are lost, and whole areas cleared.
"""

Item = tuple[Any, tuple[int, bytes] | None, "Lives"]
"""Key, encoded value (None: it is to be forgotten), lives."""


class Writing(Looking):
    """Each operation that changes something, as steps."""

    # --- set ------------------------------------------------------------------------------------

    def _setting(
        self, op: str, items: Sequence[Item], since: float, *, broadcast: bool | None = None
    ) -> Steps[None]:
        if self._second is None:
            stored = [self._put(op, *item, since) for item in items]
        else:
            told = self._is_broadcast(broadcast, sets=True)
            stored = []
            for part in _parts(items):
                stored.append((yield from self._setting_part(op, part, since, told)))
        if all(stored):
            oplog.succeeded(self._config.area, op, "ok", since)

    def _setting_part(
        self, op: str, items: Sequence[Item], since: float, broadcast: bool
    ) -> Steps[bool]:
        """Store in both tiers; False if one of them has lost any of it."""
        with Notes(self._memory) as notes:
            pairs = [self._put_noted(op, *item, since, notes) for item in items]
            changes = [change for _, change in pairs]
            sent = yield from self._published(op, message.SET, changes, notes, since, broadcast)
        return sent is not None and all(is_stored for is_stored, _ in pairs)

    def _put(
        self, op: str, key: Any, encoded: tuple[int, bytes] | None, lives: Lives, since: float
    ) -> bool:
        """Store, or forget where there is nothing to store; False if an explicit write was lost."""
        if encoded is None or lives.local == 0:
            self._delete(key)
            return True
        status = self._store(key, *encoded, lives.local, self._config.stale_life)
        return self._judge(op, status, since)

    def _put_noted(  # noqa: PLR0917  as _put()
        self,
        op: str,
        key: Any,
        encoded: tuple[int, bytes] | None,
        lives: Lives,
        since: float,
        notes: Notes,
    ) -> tuple[bool, Change]:
        """Do as _put(), after a note in the outbox; and what is to become of it in Redis."""
        second = self._second
        assert second is not None
        keeps = encoded is not None and lives.remote != 0
        note = notes.add(self._note(key, local.NOTE_SET if keeps else local.NOTE_FORGET))
        if encoded is None or not keeps:
            self._delete(key)
            return True, second.change(self._config, key, note)
        stored = True
        if lives.local == 0:
            self._delete(key)  # of REMOTE mode: it overtakes loads that run
        else:
            status = self._store(
                key, *encoded, lives.local, self._config.stale_life, local.SET, None, note=note
            )
            stored = self._judge(op, status, since)
        return stored, second.change(self._config, key, note, encoded, lives.remote)

    # --- forget ---------------------------------------------------------------------------------

    def _deleting(self, op: str, keys: Sequence[Any], *, on_error: str = "queue") -> Steps[int]:
        since = self._begin()
        second = self._second
        if second is None:
            found = sum(map(self._delete, keys))
        else:
            _check_on_error(on_error)
            found, unsent = 0, False
            for part in _parts(keys):
                here, there = yield from self._deleting_part(op, part, since)
                found += max(here, there or 0)
                unsent = unsent or there is None
            self._sent(op, None if unsent else found, on_error)
        result = "ok" if op.startswith("m") else "found" if found else "absent"
        oplog.succeeded(self._config.area, op, result, since)
        return found

    def _deleting_part(
        self, op: str, keys: Sequence[Any], since: float
    ) -> Steps[tuple[int, int | None]]:
        """Forget in both tiers; how many keys each of them had, None if Redis was not told."""
        second = self._second
        assert second is not None
        with Notes(self._memory) as notes:
            changes = [
                second.change(self._config, key, notes.add(self._note(key, local.NOTE_FORGET)))
                for key in keys
            ]
            found = sum(map(self._delete, keys))
            told = self._is_broadcast(None)
            sent = yield from self._published(op, message.FORGET, changes, notes, since, told)
        self._forget_again(keys)
        return found, sent

    def _forget_again(self, keys: Sequence[Any]) -> None:
        """Drop what was fetched from Redis before it knew."""
        self._memory.invalidate(self._config.area, [local.encode_key(key) for key in keys])

    def _expiring(self, key: Any, *, on_error: str = "queue") -> Steps[bool]:
        since = self._begin()
        second = self._second
        if second is None:
            found = self._expire(key)
        else:
            _check_on_error(on_error)
            with Notes(self._memory) as notes:
                note = notes.add(self._note(key, local.NOTE_EXPIRE))
                change = second.change(self._config, key, note)
                found = self._expire(key)
                sent = yield from self._published("expire", message.EXPIRE, [change], notes, since)
            self._memory.invalidate(self._config.area, [local.encode_key(key)], expire=True)
            found = self._sent("expire", sent, on_error) > 0 or found
        oplog.succeeded(self._config.area, "expire", "found" if found else "absent", since)
        return found

    def _clearing(self, *, on_error: str = "queue") -> Steps[None]:
        since = self._begin()
        second = self._second
        if second is None:
            self._clear()
        else:
            _check_on_error(on_error)
            with Notes(self._memory) as notes:
                change = second.clear_change(notes.add(self._note_clear()))
                self._clear()
                sent = yield from self._published("clear", message.CLEAR, [change], notes, since)
            self._memory.clear_area(self._config.area)
            self._sent("clear", sent, on_error)
        oplog.succeeded(self._config.area, "clear", "ok", since)

    def _telling(self, op: str, keys: Sequence[Any], since: float) -> Steps[None]:
        """Have other hosts forget what they have of keys that Redis has new values of."""
        second = self._second
        if second is None or not keys or not self._is_broadcast(None, sets=True):
            return
        area = self._config.area
        with Notes(self._memory) as notes:
            numbers = [notes.add(self._note(key, local.NOTE_FORGET)) for key in keys]
            encoded = [local.encode_key(key) for key in keys]
            told = (area, message.FORGET, encoded, numbers, second.origin)
            try:
                yield Ask("tell", told)
            except BackendError as error:
                self._count(_PUBLISH_FAILURES)
                self._count(_QUEUED, len(keys))
                oplog.failed(area, op, error.kind, since, result="queued")
            else:
                notes.sent()
                self._count(_PUBLISH)

    # --- decided where the truth is -------------------------------------------------------------

    def _adding(self, key: Any, value: Any, ttl: Any) -> Steps[bool]:
        since = self._begin()
        lives = self._lives(value, ttl, jitter=False)
        encoded = self._encode("add", key, value, since)
        if encoded is None or self._is_off or lives in {(0, 0), (0.0, 0.0)}:
            return (yield from self._finding(key)) is None
        second = self._second
        if second is None:
            status = self._store(key, *encoded, lives.local, self._config.stale_life, local.ADD)
            if status == local.NOT_STORED:
                return False
            if status == local.BUSY:
                raise self._busy("add", since)
            return self._judge("add", status, since)
        change = second.change(self._config, key, 0, encoded, lives.remote)
        added: bool = yield from self._decided("add", "add", (self._config.area, change), since)
        if added:
            self._forget_again([key])
        return added

    def _touching(self, key: Any, ttl: Any) -> Steps[bool]:
        since = self._begin()
        second = self._second
        found = self._read(key, touch=False)
        lives = self._lives(None if found is None else found[0], ttl, jitter=False)
        if second is not None:
            return (yield from self._touching_remote(key, lives, since))
        if found is None:
            return False
        if lives.local == 0:
            self._delete(key)
            return True
        status = self._touch(key, lives.local, self._config.stale_life)
        if status == local.BUSY:
            raise self._busy("touch", since)
        return status == local.STORED

    def _touching_remote(self, key: Any, lives: Lives, since: float) -> Steps[bool]:
        if lives.remote == 0:
            return (yield from self._deleting("touch", [key])) > 0
        second = self._second
        assert second is not None
        area, stale_life = self._config.area, self._config.stale_life
        wanted = (area, local.encode_key(key), lives.remote, stale_life, 0)
        touched: bool = yield from self._decided(
            "touch", "touch", wanted, since, fingerprint=second.fingerprint(self._config)
        )
        if touched:
            self._forget_again([key])
        return touched

    def _incrementing(
        self, op: str, key: Any, delta: int, default: int | None, ttl: Any
    ) -> Steps[int | None]:
        since = self._begin()
        lives = self._lives(delta, ttl, jitter=False)
        second = self._second
        if second is not None:
            return (yield from self._incrementing_remote(op, key, delta, default, lives, since))
        keep = lives.local != 0 and not self._is_off
        try:
            value = self._incr(
                key, delta, default if keep else None, lives.local or None, self._config.stale_life
            )
        except BlockingIOError as error:
            raise self._busy(op, since) from error
        if value is None and default is not None and not keep:
            return default + delta
        return value

    def _incrementing_remote(  # noqa: PLR0917  called in one place
        self, op: str, key: Any, delta: int, default: int | None, lives: Lives, since: float
    ) -> Steps[int | None]:
        second = self._second
        assert second is not None
        keep = lives.remote != 0
        initial = None
        if default is not None and keep:
            encoded = self._encoded(op, default, since)
            initial = second.change(self._config, key, 0, encoded, lives.remote)
        wanted = (self._config.area, local.encode_key(key), delta, initial, 0)
        value: int | None = yield from self._decided(
            op, "incr", wanted, since, fingerprint=second.fingerprint(self._config)
        )
        if value is not None:
            self._forget_again([key])
        elif default is not None and not keep:
            return default + delta
        return value

    def _decided(
        self, op: str, method: str, wanted: tuple[Any, ...], since: float, **more: Any
    ) -> Steps[Any]:
        """
        Ask Redis to decide.

        Raises:
            BackendError: It does not answer: there is no guess.
        """
        second = self._second
        assert second is not None
        _, what, *_ = wanted
        key = what if isinstance(what, bytes) else what.key
        try:
            second.check_decidable(self, self._config.area, op, key)
            answer = yield Ask(method, (*wanted, second.origin), more)
        except BackendError as error:
            oplog.failed(self._config.area, op, error.kind, since)
            error.area, error.operation = self._config.area, op
            raise
        self._count(_PUBLISH)
        return answer

    # --- telling Redis --------------------------------------------------------------------------

    def _is_broadcast(self, given: bool | None, *, sets: bool = False) -> bool:
        """Whether other hosts are told: as the call says, or else the area."""
        config = self._config
        area = config.broadcast_invalidation is not False
        if not sets:
            return area
        if given is not None:
            return given
        return area if config.broadcast_sets is None else config.broadcast_sets

    def _published(  # noqa: PLR0917  called in four places, all alike
        self,
        op: str,
        kind: int,
        changes: Sequence[Change],
        notes: Notes,
        since: float,
        broadcast: bool = True,
    ) -> Steps[int | None]:
        """
        Have Redis do it and tell the other hosts.

        Returns:
            How many of the keys it knew; None: it is queued, which has been logged.
        """
        second = self._second
        assert second is not None
        try:
            found = yield second.write(self._config.area, kind, changes, broadcast=broadcast)
        except BackendError as error:
            self._count(_PUBLISH_FAILURES)
            self._count(_QUEUED, len(changes))
            # A set is not sent later: the old copy is deleted instead.
            result = "error" if kind == message.SET else "queued"
            oplog.failed(self._config.area, op, error.kind, since, result=result)
            return None
        notes.sent()
        self._count(_PUBLISH)
        return int(found or 0)

    def _sent(self, op: str, found: int | None, on_error: str) -> int:
        """How many keys Redis knew; if it has not been told yet, whether to say so."""
        if found is None and on_error == "raise":
            raise BackendError(
                "Redis did not take it: it is done on this host, and queued until Redis is back",
                queued=True,
                area=self._config.area,
                operation=op,
            )
        return found or 0


def _parts(things: Sequence[T]) -> Iterator[Sequence[T]]:
    """Cut what is written together."""
    return (things[start : start + PART] for start in range(0, len(things), PART))


class Notes:
    """What one operation has written into the outbox.  What is not sent in the end is queued."""

    def __init__(self, memory: local.Segment) -> None:
        self._memory = memory
        self._open: list[int] = []

    def add(self, note: int) -> int:
        """Know one more."""
        self._open.append(note)
        return note

    def sent(self) -> None:
        """Redis has taken all of it."""
        while self._open:
            self._memory.outbox_settle(self._open[-1], True)
            self._open.pop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # Also when the caller is stopped in between: then nobody knows what Redis has done.
        for note in self._open:
            self._memory.outbox_settle(note, False)


def _check_on_error(on_error: str) -> None:
    if on_error not in {"queue", "raise"}:
        raise ValueError(f"on_error must be 'queue' or 'raise', not {on_error!r}")
