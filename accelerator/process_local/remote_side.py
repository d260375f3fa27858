"""
The segment's side that faces L2: election, link, outbox, and what the listener applies.

Times given are those of time.monotonic(), and compared with the segment's clock, which tests move.
"""

from __future__ import annotations

import os
import secrets
import threading
import time
from abc import ABC, abstractmethod
from math import isfinite, isnan
from typing import TYPE_CHECKING, Any, Final

from accelerator.keys import MAX_SIZE as KEY_MAX
from accelerator.process_local.constants import (
    COUNTERS,
    NOTE_CLEAR,
    NOTE_EXPIRE_TAG,
    NOTE_FORGET_TAG,
    NOTE_SET,
)
from accelerator.process_local.election import Election
from accelerator.process_local.link import Link
from accelerator.process_local.outbox import Outbox
from accelerator.process_local.tags import checked_tags

if TYPE_CHECKING:
    from collections.abc import Sequence

    from accelerator.process_local.items import AreaState, Item
    from accelerator.process_local.outbox import Note

_SLICE: Final = 0.05
"""Longest sleep, in seconds, before lead() looks again: a beat may be too old, or the clock of a
test may have been moved."""
_ORIGIN_BYTES: Final = 16
_UINT64: Final = range(1 << 64)
_SEQ_MAX: Final = (1 << 48) - 1
"""As in the native part.  No server gets there; what is said to be beyond is not believed."""


class RemoteSide(ABC):
    """What a segment has for a second level."""

    def __init__(self) -> None:
        self.incarnation = 0
        """Of this process; 0 before register() and after unregister()."""
        self._areas: dict[str, AreaState] = {}
        self._origin = secrets.token_bytes(_ORIGIN_BYTES)
        self._election = Election()
        self._link = Link()
        self._outbox = Outbox()

    @abstractmethod
    def lock(self) -> threading.RLock:
        """Give the one lock."""

    @abstractmethod
    def now(self) -> float:
        """Seconds of the segment's clock."""

    @property
    @abstractmethod
    def entered(self) -> bool:
        """Whether this very process is registered."""

    @abstractmethod
    def delete(self, area: AreaState, key: bytes) -> bool:
        """Forget a key."""

    @abstractmethod
    def expire(self, area: AreaState, key: bytes) -> bool:
        """End the fresh life of a key."""

    @abstractmethod
    def mark_tags(self, area: AreaState, tags: Sequence[bytes], *, expire: bool) -> None:
        """Make every value that carries one of some tags go, or only be stale."""

    @abstractmethod
    def clear(self, area: AreaState) -> None:
        """Forget a whole area."""

    @abstractmethod
    def current(self, area: AreaState, key: bytes) -> list[Item]:
        """List the items of a key, of all versions, that were not cleared."""

    def fork_remote_side(self) -> None:
        """
        Begin anew in a forked child, whose memory is its own from here on.

        It is another origin: what the parent writes is not in this memory, so its messages are
        those of a stranger.  What was applied before the fork is in the copy, and stays known.
        """
        self._origin = secrets.token_bytes(_ORIGIN_BYTES)
        self._election.forget()
        self._link.forget()
        self._outbox.forget()

    # --- areas, as the listener sees them ---

    @property
    def origin(self) -> bytes:
        """Random name of this memory among those that send messages."""
        with self.lock():  # a forked child has another one
            return self._origin

    def watch(self, area: AreaState) -> None:
        """Have the listener follow an area from now on."""
        with self.lock():
            area.base.watched = True

    def watched(self) -> list[str]:
        """Names of the areas that the listener is to follow."""
        with self.lock():
            return [area.name for area in list(self._areas.values()) if area.watched]

    def area_state(self, area: str) -> tuple[int, int]:
        """Replication id (hashed) and sequence number up to which all was applied; 0: never."""
        with self.lock():
            known = self._areas.get(area)
            return (0, 0) if known is None else known.applied

    def area_applied(self, area: str, replication: int, seq: int) -> None:
        """Raise what area_state() answers; another replication id begins anew, 0 forgets."""
        if replication not in _UINT64 or seq not in _UINT64:
            raise OverflowError("area_applied: the number does not fit 64 bits")
        with self.lock():
            known = self._areas.get(area)
            if known is None:
                return
            if known.applied[0] == replication:
                seq = max(seq, known.applied[1])
            is_known = replication != 0 and seq <= _SEQ_MAX
            known.applied = (replication, seq) if is_known else (0, 0)

    def invalidate(self, area: str, keys: Sequence[bytes], expire: bool = False) -> int:
        """Forget, or expire, encoded keys; tell how many were there."""
        keys = tuple(keys)  # holds what another thread may take off the list
        if not all(type(key) is bytes for key in keys):
            raise TypeError("invalidate: an encoded key is bytes")
        if not all(0 < len(key) <= KEY_MAX for key in keys):
            raise ValueError(f"invalidate: an encoded key has 1 to {KEY_MAX} bytes")
        known = self._areas.get(area)
        if known is None:
            return 0
        forget = self.expire if expire else self.delete
        return sum(forget(known, key) for key in keys)

    def invalidate_tags(self, area: str, tags: Sequence[bytes], expire: bool = False, /) -> None:
        """Forget, or expire, all values that carry one of some encoded tags."""
        checked = checked_tags(tags, most=None)
        known = self._areas.get(area)
        if known is not None:
            self.mark_tags(known, checked, expire=expire)

    def clear_area(self, area: str) -> None:
        """Forget a whole area."""
        known = self._areas.get(area)
        if known is not None:
            self.clear(known)

    def area_count(self, area: str, counter: int, n: int = 1) -> None:
        """Add to a counter of an area."""
        if not 0 <= counter < len(COUNTERS):
            raise ValueError("area_count: no such counter")
        with self.lock():
            known = self._areas.get(area)
            if known is not None:
                known.counters[counter] += n

    # --- election ---

    def lead(self, timeout: float) -> int:
        """
        Wait until this process leads, and give the term; 0: it does not after *timeout* seconds.

        At once 0 in a process that is not registered.
        """
        end = time.monotonic() + max(0.0, _number(timeout))
        waker = threading.Lock()
        waker.acquire()
        try:
            while True:
                with self.lock():
                    if not self.entered:
                        return 0
                    term = self._claim()
                    wakers = self._election.wakers
                    wakers.add(waker)
                left = end - time.monotonic()
                if term or left <= 0:
                    return term
                waker.acquire(timeout=min(left, _SLICE))
        finally:
            self._election.wakers.discard(waker)

    def _claim(self) -> int:
        return self._election.claim(self.incarnation, os.getpid(), self.now())

    def lead_beat(self, term: int) -> bool:
        """Show that the leader is well; False: it leads no more."""
        with self.lock():
            return self._election.beat(term, self.incarnation, self.now())

    def lead_resign(self, term: int) -> None:
        """End a term; who waits in lead() wakes at once."""
        with self.lock():
            over = self._election.resign(term, self.incarnation)
        if over:
            self._election.wake()

    def leader(self) -> dict[str, Any]:
        """Describe who leads."""
        with self.lock():
            return self._election.shown(self.now())

    # --- the link ---

    def link_confirm(self, sent: float) -> None:
        """Note that L2 executed the heartbeat sent then."""
        with self.lock():
            self._link.confirm(_finite(sent), self.now())

    def link_refused(self) -> None:
        """Note that L2 answered a heartbeat with an error."""
        with self.lock():
            self._link.refuse()

    def link_note(self, event: int, value: float = 0.0) -> None:
        """Note what only diagnostics show."""
        with self.lock():
            self._link.note(event, _number(value), self.now())

    def link(self) -> dict[str, Any]:
        """Describe link and outbox."""
        with self.lock():
            now = self.now()
            return {**self._link.shown(now), **self._outbox.shown(now, self.incarnation)}

    def remote_ask(self, bound: float, reading: bool) -> int:
        """Tell whether L2 may be asked: a REMOTE_ constant."""
        with self.lock():
            return self._ask_link(bound, reading=reading)

    def _ask_link(self, bound: float, *, reading: bool, whatever: bool = False) -> int:
        """With *whatever*, the breaker is not asked."""
        return self._link.ask(_number(bound), self.now(), reading=reading, whatever=whatever)

    def remote_ok(self, probe: bool) -> None:
        """Note an answer of L2."""
        with self.lock():
            self._link.breaker.succeeded(probe=probe)

    def remote_failed(self, since: float, probe: bool) -> None:
        """Note a call of L2, begun then, that got no answer."""
        with self.lock():
            self._link.failed(_finite(since), self.now(), probe=probe)

    def confirmed_age(self) -> float:
        """Seconds since L2 is known to have taken writes; inf: never."""
        with self.lock():
            return self._link.confirmed_age(self.now())

    # --- the outbox ---

    def note(self, area: AreaState, kind: int, key: bytes) -> int:
        """Append to the outbox what is about to be written."""
        with self.lock():
            return self._outbox.add(area.base, kind, key, self.incarnation, self.now())

    def note_clear(self, area: AreaState) -> int:
        """Append a clear."""
        return self.note(area, NOTE_CLEAR, b"")

    def outbox_settle(self, number: int, sent: bool) -> None:
        """Note whether L2 has taken an entry."""
        with self.lock():
            self._outbox.settle(number, self.now(), sent=sent)

    def outbox_due(self, limit: int = 256) -> list[Note]:
        """List at most *limit* entries that are to be replayed, oldest first."""
        with self.lock():
            return self._outbox.due(limit, self.incarnation)

    def outbox_recent(self, seconds: float) -> list[Note]:
        """List the entries that L2 took within the last *seconds*, oldest first."""
        with self.lock():
            return self._outbox.recent(self.now() - _number(seconds))

    def outbox_heard(self, number: int) -> bool:
        """
        Note that an own message arrived; True: it need not be applied.

        That is one of a set whose item is untouched, or of a delete by tag that was settled as
        sent: then it was done here once more behind L2, and newer values are not to go with it.
        """
        with self.lock():
            entry, was_taken = self._outbox.hear(number, self.now())
            if entry is None:
                return False
            if entry.kind in {NOTE_FORGET_TAG, NOTE_EXPIRE_TAG}:
                return was_taken
            if entry.kind != NOTE_SET:
                return False
            items = self.current(entry.area, entry.key)
            return any(item.version == entry.version for item in items)

    def outbox_given_up(self, number: int) -> bool:
        """Tell whether the caller of this write was told that L2 did not take it."""
        with self.lock():
            return self._outbox.is_given_up(number)

    def outbox_unsent(self, area: str) -> frozenset[bytes] | None:
        """List the encoded keys of an area whose change is queued; None: it may be any of them."""
        with self.lock():
            known = self._areas.get(area)
            return frozenset() if known is None else self._outbox.unsent(known)

    def outbox_owe(self, area: str) -> None:
        """Have an area owe a clear."""
        with self.lock():
            if area not in self._areas:
                raise KeyError(f"outbox_owe: no such area: {area}")
            self._outbox.owe(self._areas[area])

    def outbox_owed(self) -> list[str]:
        """List the areas that owe a clear, as entries were lost."""
        with self.lock():
            return self._outbox.owed()

    def outbox_paid(self, area: str) -> None:
        """Note that an area was cleared for what outbox_owed() has shown."""
        with self.lock():
            known = self._areas.get(area)
            if known is not None:
                self._outbox.pay(known)


def _number(seconds: float) -> float:
    if isnan(seconds):
        raise ValueError("a time must be a number")
    return seconds


def _finite(time_given: float) -> float:
    if not isfinite(time_given):
        raise ValueError("a time must be finite")
    return time_given
