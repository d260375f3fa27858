"""
Who loads what: the flights of one read that has missed.

Each key is found stale because a load of it has just failed, or its flight is led, or joined; and
what a wait for others has come to is judged.  Nothing here waits, asks a loader, or stores.

A flight belongs to a Joining (or to the job that took it over) from the moment it is entered: the
``with`` around a round ends each that is not over, whatever was raised where.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final, Self

from accelerator import flight, local, policy
from accelerator.binding import COUNTER
from accelerator.errors import CacheError, LoaderError, LoaderTimeout
from accelerator.observability import oplog

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

    from accelerator.entry import ReadOptions
    from accelerator.memory import Reading
    from accelerator.operations import Operations
    from accelerator.remote import Lease

STALE_FALLBACK: Final = COUNTER["stale_fallback"]
STALE_ALLOWED: Final = COUNTER["stale_allowed"]
_LED: Final = COUNTER["load_led"]
_JOINED: Final = COUNTER["load_joined"]
_TAKEN_OVER: Final = COUNTER["load_taken_over"]
_ALONE: Final = COUNTER["load_alone"]
_CROWDED: Final = COUNTER["load_crowded"]
_WAIT_TIMEOUT: Final = COUNTER["load_wait_timeout"]
_REFUSED: Final = COUNTER["load_refused"]
_PAUSED: Final = COUNTER["load_paused"]

# How a key is to be loaded.
TOGETHER: Final = 0
ALONE_IF_POSSIBLE: Final = 1
"""Others have a value that they cannot hand over; if too many load alone, enter again."""
ALONE: Final = 2
"""There is no time or no room left for anything else."""

_UNREADABLE_MOST: Final = 100
"""How often a value that is said to be fresh may turn out not to be readable, 1 to 5 ms apart."""


class Wanted:
    """One key of a Load, and what has become of it."""

    __slots__ = (
        "absent",
        "asked",
        "copy",
        "counted",
        "error",
        "flight",
        "found",
        "key",
        "lease",
        "looked",
        "owner",
        "payload",
        "tags",
        "tries",
        "way",
    )

    def __init__(self, key: Any) -> None:
        self.key = key
        self.found: Reading | None = None
        self.error: BaseException | None = None
        self.absent = False
        """The loader's answer has nothing about it."""
        self.flight: Any = None
        self.owner: object | None = None
        """The job that ends the flight, instead of the Load."""
        self.way = TOGETHER
        self.tries = 0
        self.counted = False
        """It is among what was led."""
        self.looked = False
        """Redis has been asked for it."""
        self.copy: Reading | None = None
        """The stale copy that Redis has."""
        self.asked = 0.0
        """When the loader was."""
        self.payload: tuple[int, bytes] | None = None
        """Code and bytes that those who wait are given when Redis has them."""
        self.tags: tuple[bytes, ...] = ()
        """Encoded tags of what was loaded."""
        self.lease: Lease | None = None
        """What Redis must still know of when it is to store what is loaded."""

    @property
    def is_pending(self) -> bool:
        """Whether there is neither a value nor an error."""
        return self.found is None and self.error is None and not self.absent

    @property
    def is_led(self) -> bool:
        """Whether this caller has to load it now."""
        return self.flight is not None and self.flight.state == local.FLIGHT_LEADING

    @property
    def is_joined(self) -> bool:
        """Whether somebody else loads it."""
        return self.flight is not None and self.flight.state == local.FLIGHT_JOINED


class Joining:
    """
    What one call wants loaded, and the flights that this takes.

    Args:
        cache: The area.
        keys: No two are equal.
        op: Name of the operation in logs and errors.
        options: Of the read.
        is_batch: The loader is asked for several keys at once.
        refreshes: Load although there is a fresh value; never answer with a stale one.
    """

    def __init__(
        self,
        cache: Operations,
        keys: Iterable[Any],
        *,
        op: str,
        options: ReadOptions,
        is_batch: bool,
        refreshes: bool,
    ) -> None:
        config = cache._config
        self.cache = cache
        self.config = config
        self.op = op
        self.options = options
        self.is_batch = is_batch
        self.refreshes = refreshes
        self.since = oplog.started()
        self._was_busy = False
        self._leads = False  # some key, since this round began
        self._leads_alone = False
        self.is_busy = False
        """Some key could not be entered in this round, for want of a lock."""
        self.blocks = True
        """To wait stops the thread, and not a task."""
        self.stale_ok = not refreshes and (
            options.allow_stale or config.allow_stale or config.stale_on_error
        )
        self.unkept: CacheError | None = None
        """Why what was loaded is not stored, if that is a fault."""
        self.deadline = self.since + config.wait_limit
        self.wanted = [Wanted(key) for key in keys]
        if self.stale_ok:
            cache._count(STALE_ALLOWED, len(self.wanted))

    # --- whose flights are these ---

    def __enter__(self) -> Self:
        self.is_busy = self._leads = self._leads_alone = False
        for one in self.wanted:
            if one.is_pending:
                one.flight = one.owner = None  # of the round before
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for one in self.wanted:
            if one.owner is None and one.flight is not None:
                flight.end(one.flight)

    def pending(self) -> list[Wanted]:
        """Keys that still have no answer."""
        return [one for one in self.wanted if one.is_pending]

    def answers(self) -> list[Reading | None]:
        """
        What was found for each key, None where the loader knows nothing.

        Raises:
            CacheError: What happened to the first key that has no answer; or, where faults of the
                cache are passed on, why an answer is not stored (its *result* is that answer).
        """
        for one in self.wanted:
            error, one.error = one.error, None
            if error is not None and one.found is None:
                try:
                    raise error
                finally:
                    del error  # else it would hold this frame, which would hold it
        unkept, self.unkept = self.unkept, None
        if unkept is not None and self.cache._propagates:
            found = {one.key: None if one.found is None else one.found[0] for one in self.wanted}
            unkept.result = found if self.is_batch else found[self.wanted[0].key]
            try:
                raise unkept
            finally:
                del unkept
        if self.refreshes:  # and was waited for: what a hit has begun is not asked for its answers
            oplog.recorded(self.config.area, self.op, "ok", self.since, count=len(self.wanted))
        return [one.found for one in self.wanted]

    # --- entering ---

    def enter(self, one: Wanted) -> None:
        """Find out what is to be done about a key: nothing, load it, or wait for who does."""
        one.flight = one.owner = None  # of the round before
        if self.stale_ok and self.cache._pausing(one.key) and self.fall_back(one):
            self.cache._count(_PAUSED)
            return
        if one.way != TOGETHER or not self.config.penetration_protect or self.cache._is_off:
            self._enter_alone(one)
        if one.flight is None and one.is_pending:
            self._enter_together(one)

    def _enter_alone(self, one: Wanted) -> None:
        unlimited = not self.config.penetration_protect or self.cache._is_off
        if self.is_batch and self._leads_alone:
            unlimited = True  # all of a batch are one load
        most = None if unlimited else self.config.max_loads
        one.flight = flight.enter_alone(self.cache, one.key, self.config.lease, most)
        if one.flight.state == flight.BUSY:
            if time.monotonic() < self.deadline:
                self.is_busy = True
                return
            one.flight = flight.Unrecorded()  # never an error for want of a lock
        if one.flight.state != flight.REFUSED:
            self._leads_alone = True
            self.cache._count(_ALONE)
            return
        one.flight = None
        if one.way == ALONE_IF_POSSIBLE and time.monotonic() < self.deadline:
            one.way = TOGETHER
            return
        self.cache._count(_REFUSED)
        if not self._is_set_by_now(one) and not (self.stale_ok and self.fall_back(one)):
            oplog.failed(self.config.area, self.op, LoaderTimeout.kind, self.since)
            one.error = self.error(
                LoaderTimeout,
                f"{self.config.max_loads} uncoordinated loads (max_loads) run already",
            )

    def _enter_together(self, one: Wanted) -> None:
        # A fresh value in memory may be too far behind for this read.
        force = self.refreshes or self.options.max_staleness is not None
        mode = local.FORCE if force else local.JOIN
        one.flight = flight.enter(self.cache, one.key, self.config.lease, mode)
        state = one.flight.state
        if state == local.FLIGHT_LEADING:
            self._leads = True
            self.count_led(one)
        elif state == local.FLIGHT_JOINED:
            self._joined(one)
        elif state == flight.FRESH:
            self._is_there_by_now(one)
        else:
            self._crowded(one, busy=state == flight.BUSY)

    def count_led(self, one: Wanted) -> None:
        """Count a key that is loaded for the host: once, though its flight may be entered twice."""
        if not one.counted:
            one.counted = True
            self.cache._count(_LED)
        if one.flight.taken_over:
            self.cache._count(_TAKEN_OVER)

    def _joined(self, one: Wanted) -> None:
        if flight.is_reentrant(one.flight):
            if not (self.stale_ok and self.fall_back(one)):
                one.error = self.error(
                    LoaderError, "the loader asked for the very key that it was loading"
                )
        elif self.blocks and flight.blocks_own_leader(self.cache._memory, one.flight):
            self._go_alone(one)
        else:
            self.cache._count(_JOINED)

    def _is_there_by_now(self, one: Wanted) -> None:
        one.flight = None
        one.found = self.cache._read(one.key)
        if one.found is None:
            self.is_busy = True  # somebody moves it just now, or has lost the processor doing so
            one.tries += 1
            if one.tries > _UNREADABLE_MOST:
                one.way = ALONE_IF_POSSIBLE

    def _crowded(self, one: Wanted, *, busy: bool) -> None:
        one.flight = None
        if self.is_batch and self._leads and not busy:
            return  # this batch fills the table: the rest is asked for when it has been loaded
        if not busy or not self._was_busy:
            self.cache._count(_CROWDED)
        if self.stale_ok and self.fall_back(one):
            return
        if busy and time.monotonic() < self.deadline:
            self.is_busy = self._was_busy = True  # who holds the lock is soon done, or dead
        else:
            self._go_alone(one)

    def _go_alone(self, one: Wanted) -> None:
        if one.flight is not None:
            flight.end(one.flight)
            one.flight = None
        one.way = ALONE
        self._enter_alone(one)

    # --- waiting ---

    def soft_left(self, one: Wanted) -> float | None:
        """Seconds until a stale value is the answer; None: there is none, or no soft timeout."""
        soft = self.config.soft_timeout
        if soft is None or not self.stale_ok or self.stale(one) is None:
            return None
        return max(0.0, self.since + soft - time.monotonic())

    def patience(self, soft: float | None) -> float:
        """Seconds that this caller may wait for somebody else's load."""
        left = max(0.0, self.deadline - time.monotonic())
        return left if soft is None else min(left, soft)

    def has_led_since(self, then: float) -> None:
        """Keep the time that this caller's own loads took out of what it waits for others'."""
        self.deadline += time.monotonic() - then

    def woken(self, one: Wanted, answer: int, *, soft: bool) -> None:
        """Judge how a wait has ended; what is still pending then is to be entered again."""
        if answer == local.WAIT_TIMEOUT:
            if soft and self.fall_back(one):
                return
            if time.monotonic() >= self.deadline:
                self.cache._count(_WAIT_TIMEOUT)
                if not self._is_set_by_now(one) and not (self.stale_ok and self.fall_back(one)):
                    one.way = ALONE
        elif self.refreshes and one.tries == 0:
            one.tries = 1  # it may have begun before what the caller knows of; the next one has not
        elif answer == local.WAIT_ENDED:
            self._ended(one)

    def _is_set_by_now(self, one: Wanted) -> bool:
        """Look whether a set or an uncoordinated load was faster than the flight."""
        if not self.refreshes:
            one.found = self.cache._read(one.key)
        return one.found is not None

    def _ended(self, one: Wanted) -> None:
        result = one.flight.result()
        if result == local.RESULT_HANDED:
            taken = one.flight.take()
            if taken is not None:
                one.found = (taken[0], 0, 0.0, None, False, 0)
                return
        if result == local.RESULT_DECLINED:
            one.way = ALONE_IF_POSSIBLE
        elif result != local.RESULT_FAILED:
            one.found = self.cache._read(one.key)

    # --- stale values ---

    def stale(self, one: Wanted) -> Reading | None:
        """
        Find what a read may fall back on, in memory or else in Redis.

        A stale None is none: that something was not there once is no answer when the source cannot
        be asked.
        """
        found = self.cache._read(one.key, stale=True)
        if found is not None and not found[4]:
            return found  # a fresh one has come meanwhile
        if found is None:
            found = one.copy
        return None if found is None or found[0] is None or self._is_too_old(found) else found

    def _is_too_old(self, found: Reading) -> bool:
        """Whether a value may be further behind the source of truth than this read allows."""
        limit = self.options.max_staleness
        return limit is not None and policy.behind(found) > limit

    def fall_back(self, one: Wanted) -> bool:
        """Answer with a stale value, if there is one."""
        one.found = self.stale(one)
        if one.found is not None and one.found[4]:
            self.cache._count(STALE_FALLBACK)
        return one.found is not None

    def error(self, kind: type[CacheError], message: str) -> CacheError:
        """Make the error of a key."""
        return kind(message, area=self.config.area, operation=self.op)
