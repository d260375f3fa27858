"""
Flights: one miss load of a key at a time, led by one caller and joined by the others.

A named lock is a flight that loads nothing.

A record says that a load runs; whoever leads or joins it holds a ``Flight``, and the record ends
with its leader's, from whichever thread, task or greenlet.  Everything here is judged under the
segment's lock.  Waking happens after it was given back, because it calls what a bell was told.

The lock is re-entrant, so a signal handler or a finaliser may come in between any two steps, and
may end a flight or start one.  Hence the order of steps: a Flight exists before its record is in
the table, so that an exception in between leaves a finaliser that takes it out again; whatever
ends can be ended again; and what is looped over is a copy.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
import time
from math import isfinite
from typing import TYPE_CHECKING, Any, Final, NamedTuple, final

from accelerator.process_local.constants import (
    CODE_LIMIT,
    FLIGHT_CROWDED,
    FLIGHT_JOINED,
    FLIGHT_LEADING,
    FLIGHT_OVER,
    FORCE,
    JOIN,
    LOCK,
    NOT_STORED,
    REFRESH,
    RESULT_DECLINED,
    RESULT_FAILED,
    RESULT_HANDED,
    RESULT_STORED,
    RESULT_UNKNOWN,
    STORED,
    WAIT_AGAIN,
    WAIT_ENDED,
    WAIT_TIMEOUT,
)
from accelerator.process_local.tags import checked_tags

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    from accelerator.process_local.items import AreaState, Freshness, Life, Place
    from accelerator.process_local.segment import ProcessLocalSegment
    from accelerator.process_local.tags import Slots

RECORDS_MAX: Final = 4096
_AGE_MAX: Final = 90 * 86400.0
_SLICE: Final = 0.1
"""Longest sleep, in seconds, before a waiter looks again: the lease may be over, or the clock of a
test may have been moved."""
_TICK: Final = 0.05
_TAKEN_OVER: Final = -1
"""Outcome of a flight that another one took the place of because its lease had passed."""


class Handed(NamedTuple):
    """What a load has found, for those who joined it."""

    code: int
    payload: bytes
    tags: tuple[Slots, ...] = ()


class Record:
    """One running load.  Changed under the segment's lock only, but for wakers and bells."""

    def __init__(  # noqa: PLR0917  made in two places
        self,
        number: int,
        area: AreaState,
        place: Place,
        token: tuple[int, int] | None,
        started: float,
        deadline: float,
        since: int = 0,
    ) -> None:
        self.number = number
        self.area = area
        self.place = place
        self.token = token
        """Generations when it began; None: a lock, which none of them ends."""
        self.started = started
        self.deadline = deadline
        self.since = since
        """Count of the clock of tags when it began."""
        self.alone = False
        self.counts = False
        """As one of those alone of which there is a most."""
        self.recorded = True
        self.overtaken = False
        self.outcome: int | None = None
        """How it ended, a RESULT_ constant or _TAKEN_OVER; None: it runs."""
        self.handed: Handed | None = None
        """For those who joined, while there are any."""
        self.seats: dict[int, Seat] = {}
        """Who joined."""
        # Single operations on these two are atomic, and each waker is taken out once.
        self.wakers: set[threading.Lock] = set()
        self.bells: set[Bell] = set()

    def wake(self) -> None:
        """Wake all who wait, all at once; to be called when it has ended, without the lock."""
        # The last one may be taken by another thread, or by whom it was for.
        with contextlib.suppress(KeyError):
            while self.wakers:
                self.wakers.pop().release()
        while self.bells:
            try:
                bell = self.bells.pop()
            except KeyError:
                break
            bell.ring()


class Seat:
    """What a Flight holds of a record, and as what."""

    def __init__(self) -> None:
        self.record: Record | None = None
        self.state: int = FLIGHT_OVER
        self.taken_over = False
        self.since = 0
        """Count of the clock of tags when it was taken."""


class Table:
    """The records of one segment."""

    def __init__(self, segment: ProcessLocalSegment) -> None:
        self._segment = segment
        self._numbers = itertools.count(1)
        self.records: dict[int, Record] = {}
        """All that run and have room, by number."""
        self.leads: dict[Place, Record] = {}
        """The one of a key that can be joined, as long as nothing overtakes it."""

    def forget(self) -> None:
        """Begin anew, in a forked child: what runs, runs in the parent."""
        self.records = {}
        self.leads = {}

    def enter(
        self,
        seat: Seat,
        area: AreaState,
        key: bytes,
        lease: float,
        mode: int,
        *,
        window: float | None,
        freshness: Freshness,
    ) -> bool:
        """
        Take the lead or join, or note that there is no room; False: neither is called for.

        A value that is fresh for longer than *window* seconds is not loaded; None: every one is.
        """
        ended: list[Record] = []
        try:
            with self._segment.lock():
                return self._enter(
                    seat, area, key, lease, mode, ended, window=window, freshness=freshness
                )
        finally:
            for record in ended:
                record.wake()

    def enter_alone(
        self, seat: Seat, area: AreaState, key: bytes, lease: float, most: int | None
    ) -> bool:
        """Take a flight that nobody joins; False: *most* of the area run."""
        ended: list[Record] = []
        try:
            with self._segment.lock():
                record = self._record(area, key, lease)
                record.alone = True
                record.recorded = self._has_room(ended)
                seat.record = record
                seat.state = FLIGHT_LEADING
                record.counts = most is not None
                # First in, then counted: who comes in between counts this one too.
                area.base.alone[record.number] = record
                if (
                    most is not None
                    and sum(each.counts for each in area.base.alone.values()) > most
                ):
                    self._drop(seat, record)
                    return False
                if record.recorded:
                    self.records[record.number] = record
                return True
        finally:
            for record in ended:
                record.wake()

    def end(self, seat: Seat, outcome: int, handed: Handed | None = None) -> None:
        """End the flight that *seat* leads, once; wake all who wait, also the second time."""
        record = seat.record
        if record is None:
            return
        with self._segment.lock():
            self.settle(seat, outcome, handed)
        if record.outcome is not None:
            record.wake()

    def settle(self, seat: Seat, outcome: int, handed: Handed | None = None) -> None:
        """End it with the lock held; wake() is still to come."""
        record = seat.record
        if record is None or seat.state != FLIGHT_LEADING:
            return
        if record.outcome is None:
            record.overtaken = self.is_overtaken(record)
            record.handed = handed if record.seats else None
            record.outcome = outcome
        self._drop(seat, record)

    def leave(self, seat: Seat) -> None:
        """Stop waiting."""
        record = seat.record
        if record is None:
            return
        with self._segment.lock():
            record.seats.pop(id(seat), None)
            if not record.seats:
                record.handed = None
            seat.state = FLIGHT_OVER

    def overtake(self, area: AreaState, key: bytes) -> None:
        """Note, with the lock held, that a value is about to be stored: never for a lock."""
        place = (area.number, key)
        record = self.leads.pop(place, None)
        if record is not None:
            record.overtaken = True
        for record in area.base.alone.copy().values():
            if record.place == place:
                record.overtaken = True
        area.pauses.pop(key, None)

    def own(self, record: Record) -> bool:
        """Tell, with the lock held, whether the value of this very flight may be stored."""
        return (
            record.recorded
            and record.outcome is None
            and self.records.get(record.number) is record
            and not self.is_overtaken(record)
        )

    def step_aside(self, record: Record) -> None:
        """Let the value of *record* overtake every flight of its key but itself."""
        if self.leads.get(record.place) is record:
            del self.leads[record.place]
        record.area.base.alone.pop(record.number, None)

    def is_overtaken(self, record: Record) -> bool:
        """Tell whether a delete, clear or newer store came since the record began."""
        if record.outcome is not None:
            return record.overtaken or record.outcome == _TAKEN_OVER
        return record.overtaken or (
            record.token is not None
            and record.token != self._segment.token(record.area, record.place[1])
        )

    def shown(self) -> list[dict[str, Any]]:
        """Describe what runs, with the lock held."""
        segment = self._segment
        now = segment.now()
        return [
            {
                "area": record.area.name,
                "hash": segment.hash_of(record.area, record.place[1]),
                "pid": os.getpid(),
                "incarnation": segment.incarnation,
                "alive": True,
                "age": now - record.started,
                "lease_left": record.deadline - now,
                "waiters": len(record.seats),
                "alone": record.alone,
                "lock": record.token is None,
                "overtaken": self.is_overtaken(record),
                "own": True,
            }
            for record in self.records.copy().values()
        ]

    def check(self) -> list[str]:
        """List violated invariants, with the lock held."""
        found = [
            f"flight {record.number} can be joined and has no record"
            for record in self.leads.values()
            if self.records.get(record.number) is not record
        ]
        found += [
            f"flight {record.number} has ended and is still there"
            for record in self.records.values()
            if record.outcome is not None
        ]
        if len(self.records) > RECORDS_MAX:
            found.append(f"{len(self.records)} flights, not {RECORDS_MAX} at most")
        return found

    # --- with the lock held ---

    def _enter(  # noqa: PLR0917  called in one place
        self,
        seat: Seat,
        area: AreaState,
        key: bytes,
        lease: float,
        mode: int,
        ended: list[Record],
        *,
        window: float | None,
        freshness: Freshness,
    ) -> bool:
        place = (area.number, key)
        while True:
            now = self._segment.now()
            segment = self._segment
            if window is not None and segment.is_current(area, key, freshness, window=window):
                return False
            current = self.leads.get(place)
            if current is not None:
                late = now >= current.deadline
                joined = freshness.oldest_joined(area.base.fresh_until, now)
                if mode != LOCK and not late and now - current.started > joined:
                    current.overtaken = True
                if not late and not self.is_overtaken(current):
                    return mode != REFRESH and self._join(seat, current)
                # An overtaken one runs on, for those who joined it.
                self.leads.pop(place, None)
                if not self.is_overtaken(current):
                    self._give_up(current, ended)
                    seat.taken_over = True
            if not self._has_room(ended):
                seat.state = FLIGHT_CROWDED
                return True
            record = self._record(area, key, lease, locks=mode == LOCK)
            seat.record = record
            seat.state = FLIGHT_LEADING
            self.records[record.number] = record
            if self.leads.setdefault(place, record) is record:
                return True
            self._drop(seat, record)  # a signal handler or finaliser was faster

    def _record(self, area: AreaState, key: bytes, lease: float, *, locks: bool = False) -> Record:
        now = self._segment.now()
        token = None if locks else self._segment.token(area, key)
        since = self._segment.tags.clock
        return Record(next(self._numbers), area, (area.number, key), token, now, now + lease, since)

    def _join(self, seat: Seat, record: Record) -> bool:
        seat.since = self._segment.tags.clock
        seat.record = record
        seat.state = FLIGHT_JOINED
        record.seats[id(seat)] = seat
        return True

    def _has_room(self, ended: list[Record]) -> bool:
        if len(self.records) < RECORDS_MAX:
            return True
        now = self._segment.now()
        for record in self.records.copy().values():
            if now >= record.deadline:
                self._give_up(record, ended)
        return len(self.records) < RECORDS_MAX

    def _give_up(self, record: Record, ended: list[Record]) -> None:
        """End a flight in its leader's place."""
        ended.append(record)
        record.outcome = _TAKEN_OVER
        self._remove(record)

    def _drop(self, seat: Seat, record: Record) -> None:
        self._remove(record)
        seat.state = FLIGHT_OVER

    def _remove(self, record: Record) -> None:
        if self.leads.get(record.place) is record:
            del self.leads[record.place]
        record.area.base.alone.pop(record.number, None)
        self.records.pop(record.number, None)


@final
class Flight:
    """
    One caller's part in a load: it leads, or it waits for who leads.

    Calls that are not for its state do nothing.  In a forked child it is over: the parent leads.
    """

    __slots__ = (
        "__weakref__",
        "_decode",
        "_freshness",
        "_life",
        "_pid",
        "_seat",
        "_segment",
        "_stores",
        "tag",
    )

    def __init__(
        self,
        segment: ProcessLocalSegment,
        seat: Seat,
        life: Callable[[float | None, float], Life],
        decode: Callable[[int, bytes], tuple[Any] | None],
        freshness: Freshness,
        *,
        stores: bool,
    ) -> None:
        self._freshness = freshness
        self._stores = stores
        self._segment = segment
        self._life = life
        self._decode = decode
        self._pid = os.getpid()
        self.tag: Any = None
        self._seat = seat  # last: the finaliser asks for it

    def __reduce__(self) -> str:
        raise TypeError("a Flight can be neither copied nor pickled")

    def __del__(self) -> None:
        if hasattr(self, "_seat"):
            try:
                self.fail()
                self.leave()
            except BaseException:  # of a signal handler; it is only reported, so once more
                self.fail()
                self.leave()
                raise

    # --- what it is ---

    @property
    def state(self) -> int:
        """FLIGHT_LEADING, FLIGHT_JOINED, FLIGHT_CROWDED or FLIGHT_OVER."""
        return self._seat.state if self._pid == os.getpid() else FLIGHT_OVER

    @property
    def id(self) -> int:
        """Number of the flight, the same for who leads and who joined; 0 without one."""
        record = self._seat.record
        return 0 if record is None else record.number

    @property
    def alone(self) -> bool:
        """Whether nobody can join it."""
        record = self._seat.record
        return record is not None and record.alone

    @property
    def recorded(self) -> bool:
        """Whether there was room for a record; without one nothing is stored."""
        record = self._seat.record
        return record is not None and record.recorded

    @property
    def taken_over(self) -> bool:
        """Whether the lease of another leader had passed."""
        return self._seat.taken_over

    @property
    def own(self) -> bool:
        """Whether this process leads it."""
        return self._seat.record is not None and self._pid == os.getpid()

    @property
    def waiters(self) -> int:
        """How many wait for it."""
        record = self._seat.record
        return 0 if record is None or record.outcome is not None else len(record.seats)

    @property
    def overtaken(self) -> bool:
        """Whether nothing will be stored, because of a delete, a clear or a newer store."""
        record = self._seat.record
        if record is None:
            return False
        with self._segment.lock():
            return self._segment.table.is_overtaken(record)

    # --- who leads ---

    def finish(
        self,
        code: int,
        payload: bytes,
        ttl: float | None,
        stale_ttl: float,
        age: float | None = None,
        *,
        tags: Sequence[bytes] = (),
    ) -> int:
        """Store the value unless it is out of date, and end."""
        life = self._life(ttl, stale_ttl)
        if age is not None:
            age = checked_age(age)
        handed = self._handed(code, payload, tags)
        record = self._seat.record
        if self.state != FLIGHT_LEADING or record is None:
            self.fail()  # in case that an exception left waiters asleep
            return NOT_STORED
        if record.token is None:
            self.fail()
            return NOT_STORED
        table = self._segment.table
        with self._segment.lock():
            stored = NOT_STORED
            if self._stores:
                stored = self._segment.fill(record, handed, life, age)
            if stored == STORED and self._segment.is_readable(record, age, self._freshness):
                table.settle(self._seat, RESULT_STORED)
            else:
                table.settle(self._seat, RESULT_HANDED, handed)
        record.wake()
        return stored

    def hand(self, code: int, payload: bytes, *, tags: Sequence[bytes] = ()) -> None:
        """Give the value to those who joined, store nothing, and end."""
        handed = self._handed(code, payload, tags)
        record = self._seat.record
        if record is not None and record.token is None:
            self.fail()
        else:
            self._end(RESULT_HANDED, handed)

    def decline(self) -> None:
        """End without a value that others could have."""
        self._end(RESULT_DECLINED)

    def fail(self) -> None:
        """End without a value, so that one of those who wait leads next."""
        self._end(RESULT_FAILED)

    def __enter__(self) -> Flight:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.fail()

    def _handed(self, code: int, payload: bytes, tags: Sequence[bytes]) -> Handed:
        if not 0 < code < CODE_LIMIT:
            raise ValueError("a flight's value: code out of range")
        checked = checked_tags(tags)
        record = self._seat.record
        slots = () if record is None else self._segment.slots_of(record.area, checked)
        return Handed(code, bytes(payload), slots)

    def _end(self, outcome: int, handed: Handed | None = None) -> None:
        if self._seat.state in {FLIGHT_LEADING, FLIGHT_OVER} and self._pid == os.getpid():
            self._segment.table.end(self._seat, outcome, handed)

    # --- who joined ---

    def wait(self, seconds: float) -> int:
        """Block this thread until it ends: WAIT_ENDED, WAIT_AGAIN or WAIT_TIMEOUT."""
        end = time.monotonic() + max(0.0, seconds)
        found = self.poll()
        record = self._seat.record
        if found != WAIT_TIMEOUT or record is None:
            return found
        # A lock of its own, and not a Condition: this thread may be interrupted by a handler that
        # ends the flight, which then must not ask for a lock that is held below it.
        waker = threading.Lock()
        waker.acquire()
        record.wakers.add(waker)
        try:
            while True:
                found = self.poll()
                left = end - time.monotonic()
                if found != WAIT_TIMEOUT or left <= 0:
                    return found
                lease_left = record.deadline - self._segment.now()
                waker.acquire(timeout=max(0.0, min(left, lease_left, _SLICE)))
        finally:
            record.wakers.discard(waker)

    def poll(self) -> int:
        """Tell what wait() would, at once."""
        record = self._seat.record
        if record is None or self.state != FLIGHT_JOINED:
            return WAIT_ENDED
        outcome = record.outcome
        if outcome is None:
            return WAIT_AGAIN if self._segment.now() >= record.deadline else WAIT_TIMEOUT
        return WAIT_AGAIN if outcome == _TAKEN_OVER else WAIT_ENDED

    def ring(self, bell: Bell) -> None:
        """Have *bell* rung when it ends; at once if it has."""
        record = self._seat.record
        if record is None or self.state != FLIGHT_JOINED:
            bell.ring()
            return
        record.bells.add(bell)
        if record.outcome is not None:
            record.wake()

    def result(self) -> int:
        """Tell how it ended."""
        record = self._seat.record
        if record is None or self.state != FLIGHT_JOINED:
            return RESULT_UNKNOWN
        outcome = record.outcome
        return RESULT_UNKNOWN if outcome is None or outcome == _TAKEN_OVER else outcome

    def take(self) -> tuple[Any] | None:
        """Decode the value that was handed over."""
        record = self._seat.record
        if record is None or self.state != FLIGHT_JOINED:
            return None
        handed = record.handed
        if handed is None or not self._may_take(record, handed):
            return None
        return self._decode(handed.code, handed.payload)

    def _may_take(self, record: Record, handed: Handed) -> bool:
        """
        Tell whether no operation on a tag of the value lies between its load and this entry.

        Only the last one is known: if it came later than both, there may have been one in between,
        unless none on any tag did.
        """
        if not handed.tags or self._seat.since <= record.since:
            return True
        with self._segment.lock():
            return self._segment.tags.changed(handed.tags) <= record.since

    def leave(self) -> None:
        """Stop waiting."""
        if self.state in {FLIGHT_JOINED, FLIGHT_CROWDED}:
            self._segment.table.leave(self._seat)
            self._seat.state = FLIGHT_OVER


@final
class Bell:
    """
    What tells an event loop that a flight has ended, without a file descriptor.

    Calls *on_ring* in the thread that ended the flight, and every 50 ms in a thread of its own
    while it is armed: a lease that passes ends nothing.
    """

    def __init__(self, segment: ProcessLocalSegment) -> None:
        self.on_ring: Callable[[], object] | None = None
        self._segment = segment
        self._pid = os.getpid()
        self._armed = 0
        self._closed = False
        self._ticking = False

    def fileno(self) -> int:
        """Tell that there is no descriptor."""
        return -1

    def clear(self) -> None:
        """Do nothing: there is no descriptor to be read."""

    def arm(self, n: int, /) -> None:
        """Count *n* more (or fewer) waits."""
        with self._segment.lock():
            if self._pid != os.getpid():  # the thread did not come along
                self._pid = os.getpid()
                self._armed = 0
                self._ticking = False
            self._armed = max(0, self._armed + n)
            starts = self._armed > 0 and not self._ticking and not self._closed
            self._ticking = self._ticking or starts
        if starts:
            threading.Thread(target=self._tick, name="accelerator-bell", daemon=True).start()

    def close(self) -> None:
        """Never ring again."""
        self._closed = True
        self.on_ring = None

    def ring(self) -> None:
        """Call *on_ring*, unless this is a copy in a forked child."""
        on_ring = self.on_ring
        if self._closed or on_ring is None or self._pid != os.getpid():
            return
        with contextlib.suppress(Exception):  # a loop that is closed; others still wait
            on_ring()

    def _tick(self) -> None:
        while True:
            time.sleep(_TICK)
            with self._segment.lock():
                if self._armed <= 0 or self._closed:
                    self._ticking = False
                    return
            self.ring()


def checked_lease(lease: float) -> float:
    """
    Give back a lease in seconds.

    Raises:
        ValueError: It is no finite number of more than 0 seconds.
    """
    if not (isfinite(lease) and lease > 0):
        raise ValueError("a lease must be more than 0 seconds")
    return float(lease)


def checked_age(age: float) -> float:
    """
    Give back how old a value is already, in seconds, cut at 90 days.

    Raises:
        ValueError: It is less than 0, or no number.
    """
    if not age >= 0:
        raise ValueError("an age must not be less than 0 seconds")
    return min(float(age), _AGE_MAX)


def checked_mode(mode: int) -> int:
    """
    Give back a mode of entering.

    Raises:
        ValueError: There is no such mode.
    """
    if mode not in {JOIN, REFRESH, FORCE, LOCK}:
        raise ValueError("_enter: no such mode")
    return mode
