"""Election: which thread runs the listener.  Knows neither locks nor clocks."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import threading

BEAT_MAX: Final = 0.5
"""Seconds without a beat after which another one may lead."""


class Election:
    """
    A heartbeat lease with a term.

    There is only this one process to lead, but several of its threads may ask, and its incarnation
    changes.  A term is never given twice, so that a leader that was away for long finds out that
    it no longer is one.
    """

    def __init__(self) -> None:
        self.term = 0
        self.incarnation = 0
        """Of who leads; 0: nobody."""
        self.pid = 0
        self._beat_at = 0.0
        # Single operations on it are atomic, and each waker is taken out once.
        self.wakers: set[threading.Lock] = set()

    def claim(self, incarnation: int, pid: int, now: float) -> int:
        """Begin a term unless somebody leads; 0: somebody does."""
        if self.incarnation == incarnation and now - self._beat_at <= BEAT_MAX:
            return 0
        self.term += 1
        self.incarnation, self.pid, self._beat_at = incarnation, pid, now
        return self.term

    def beat(self, term: int, incarnation: int, now: float) -> bool:
        """Prolong a term; False: it is over."""
        if not self._is_of(term, incarnation):
            return False
        self._beat_at = now
        return True

    def resign(self, term: int, incarnation: int) -> bool:
        """End a term, so that another may begin; False: it was over."""
        if not self._is_of(term, incarnation):
            return False
        self.incarnation = self.pid = 0
        return True

    def wake(self) -> None:
        """Have all who wait look again; to be called without the lock."""
        # The last one may be taken by another thread, or by whom it was for.
        with contextlib.suppress(KeyError):
            while self.wakers:
                self.wakers.pop().release()

    def forget(self) -> None:
        """Begin anew, in a forked child: who leads or waits is in the parent."""
        self.incarnation = self.pid = 0
        self.wakers = set()

    def shown(self, now: float) -> dict[str, Any]:
        """Describe who leads, or whose term was the last."""
        return {
            "term": self.term,
            "incarnation": self.incarnation,
            "pid": self.pid,
            "beat_age": now - self._beat_at if self.incarnation else None,
        }

    def _is_of(self, term: int, incarnation: int) -> bool:
        return 0 < term == self.term and 0 < incarnation == self.incarnation
