"""
Named locks: mutual exclusion over all processes that share the memory of an area.

A lock is a flight that loads nothing.  Who leads it holds it, who joins it waits for it; it ends
when it is released, when its last reference goes, and when its holder's process dies.
"""

from __future__ import annotations

import logging
import math
import os
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any, Final, Self

from accelerator import flight as flights
from accelerator import local
from accelerator.durations import seconds
from accelerator.entry import UNSET, UnsetType
from accelerator.errors import LockError, LockTimeout
from accelerator.observability import oplog

if TYPE_CHECKING:
    from types import TracebackType

    from accelerator.durations import Duration
    from accelerator.operations import Operations

LOG: Final = logging.getLogger("accelerator")

_SLICE: Final = 3600.0
"""Longest single wait, in seconds: a timer of any loop can do it."""

_held: Final[weakref.WeakValueDictionary[tuple[int, int], Lock]] = weakref.WeakValueDictionary()
"""What objects of this process hold, by memory and flight: who would wait for himself?"""


class Lock:
    """
    One use at a time of a lock by name; from ``LevelCache.lock``.

    Whoever wants the same lock makes an object of his own.  Any thread, task or greenlet of the
    process may release it.  A forked child does not hold what its parent does.
    """

    __slots__ = (
        "__weakref__",
        "_cache",
        "_caller",
        "_claim",
        "_flight",
        "_lease",
        "_loop",
        "_lost",
        "_name",
        "_pid",
        "_place",
        "_timeout",
    )

    def __init__(
        self, cache: Operations, name: str, *, lease: Duration | None, timeout: Duration | None
    ) -> None:
        if not isinstance(name, str):
            raise TypeError(f"a lock's name must be a str, not {type(name).__name__}")
        local.encode_key(name)  # it is as long as a key may be
        self._cache = cache
        self._name = name
        self._lease = cache._config.lease if lease is None else seconds(lease, name="lease")
        self._timeout = _limit(timeout)
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._pid = os.getpid()
        self._claim = threading.Lock()
        """Taken from the beginning of acquire() until the lock is released, or not to be had."""
        # From the call that gives it straight in here, see flight.py.
        self._flight: Any = None
        self._place: tuple[int, int] | None = None
        """Where _held has it; None: not held."""
        self._caller: weakref.ref[Any] | None = None
        self._loop: weakref.ref[Any] | None = None
        self._lost = False

    def __repr__(self) -> str:
        state = "held" if self.locked() else "not held"
        return f"<Lock of area {self._cache._config.area!r}, {state}>"

    # --- what it is ---

    def locked(self) -> bool:
        """Whether this very object holds the lock."""
        return self._place is not None and self._pid == os.getpid() and self._is_live()

    @property
    def lost(self) -> bool:
        """Whether another one got the lock before this one released it: the lease had passed."""
        if self._pid != os.getpid():
            return False
        return self._lost if self._place is None else not self._is_live()

    def _is_live(self) -> bool:
        flight = self._flight
        return (
            flight is not None
            and flight.state == local.FLIGHT_LEADING  # not after detach()
            and not flight.overtaken
        )

    # --- taking it ---

    def acquire(self, timeout: Duration | UnsetType | None = UNSET) -> bool:
        """
        Wait for the lock; tell whether it is held now.

        Args:
            timeout: How long to wait (seconds, or another duration) instead of the object's; 0: do
                not wait, None: without limit.

        Raises:
            LockError: This object holds it or waits for it, or the caller holds it: waiting would
                never end.
            TypeError, ValueError: *timeout* is no duration.

        Blocks the thread or greenlet; a task of asyncio uses aacquire().
        """
        deadline = self._begin(timeout, waits=flights.can_wait())
        try:
            while not self._try(blocks=True):
                left = deadline - time.monotonic()
                if left <= 0:
                    break
                if self._is_joined:
                    flights.wait(self._cache._memory, self._flight, min(left, _SLICE))
                else:
                    flights.sleep(min(left, self._breath))
            else:
                return True
        except BaseException:
            self._drop()
            raise
        self._drop()
        return False

    async def aacquire(self, timeout: Duration | UnsetType | None = UNSET) -> bool:  # noqa: ASYNC109
        """
        Do as acquire(), without stopping the event loop.

        Raises:
            LockError: As acquire() does.
            TypeError, ValueError: *timeout* is no duration.
        """
        import asyncio  # noqa: PLC0415  imported where it is used only

        from accelerator import aflight  # noqa: PLC0415

        deadline = self._begin(timeout)
        try:
            while not self._try(blocks=False):
                left = deadline - time.monotonic()
                if left <= 0:
                    break
                if self._is_joined:
                    await aflight.wait(self._cache._memory, self._flight, min(left, _SLICE))
                else:
                    await asyncio.sleep(min(left, self._breath))
            else:
                return True
        except BaseException:
            self._drop()
            raise
        self._drop()
        return False

    def release(self) -> None:
        """
        Give it back, and wake who waits; does not block.

        In a forked child: nothing, if it was the parent's.

        Raises:
            LockError: This object does not hold it.

        If it was lost, that is logged, and nothing else happens: *lost* tells.
        """
        if self._pid != os.getpid():
            self._begin_anew()
            return
        if self._place is None:
            raise self._error("release() of a lock that this object does not hold")
        self._lost = not self._is_live()
        self._drop()
        if self._lost:
            LOG.warning(
                "area %s: a lock was lost: another one got it before its holder released it, "
                "because it was held for longer than its lease of %g s",
                self._cache._config.area,
                self._lease,
            )

    def __enter__(self) -> Self:
        since = oplog.started()
        if self.acquire():
            return self
        raise self._late(since)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()

    async def __aenter__(self) -> Self:
        since = oplog.started()
        if await self.aacquire():
            return self
        raise self._late(since)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()

    # --- steps ---

    def _begin(self, timeout: Duration | UnsetType | None, *, waits: bool = True) -> float:
        """When to give up."""
        limit = self._timeout if isinstance(timeout, UnsetType) else _limit(timeout)
        if self._pid != os.getpid():
            self._begin_anew()
        if not self._claim.acquire(blocking=False):
            raise self._error(
                "this Lock is held, or waited for, already: make another one with lock()"
            )
        self._lost = False
        return time.monotonic() + (limit if waits else 0.0)

    def _try(self, *, blocks: bool) -> bool:
        cache = self._cache
        self._flight = flights.enter(cache, self._name, self._lease, local.LOCK)
        place = id(cache._memory), self._flight.id
        if self._flight.state == local.FLIGHT_LEADING:
            loop = flights.running_loop()
            self._caller = weakref.ref(flights.caller())
            self._loop = None if loop is None else weakref.ref(loop)
            self._place = place
            _held[place] = self
            return True
        if self._is_joined and self._flight.own:
            self._refuse_endless_wait(_held.get(place), blocks=blocks)
        return False

    def _refuse_endless_wait(self, holder: Lock | None, *, blocks: bool) -> None:
        if holder is None or not holder.locked():
            return
        if holder._caller is not None and holder._caller() is flights.caller():
            raise self._error("who asks holds this lock already, and would wait for himself")
        loop = flights.running_loop()
        if blocks and loop is not None and holder._loop is not None and holder._loop() is loop:
            raise self._error(
                "a task of this event loop holds the lock, and acquire() would stop the loop: use "
                "'async with' or aacquire()"
            )

    @property
    def _is_joined(self) -> bool:
        return bool(self._flight.state == local.FLIGHT_JOINED)

    @property
    def _breath(self) -> float:
        """Seconds until the table is asked again: it is locked, or has no room."""
        return flights.BREATH if self._flight.state == flights.BUSY else flights.LOOK

    def _drop(self) -> None:
        """Hold nothing, and wait for nothing."""
        flight, place = self._flight, self._place
        self._flight = self._place = None
        if place is not None:
            _held.pop(place, None)
        if flight is not None:
            flights.end(flight)
        self._claim.release()

    def _late(self, since: float) -> LockTimeout:
        oplog.failed(self._cache._config.area, "lock", LockTimeout.kind, since)
        return LockTimeout(
            "the lock did not become free in time", area=self._cache._config.area, operation="lock"
        )

    def _error(self, message: str) -> LockError:
        return LockError(message, area=self._cache._config.area, operation="lock")


def _limit(timeout: object) -> float:
    limit = seconds(timeout, name="timeout", allow_none=True, allow_zero=True)
    return math.inf if limit is None else limit
