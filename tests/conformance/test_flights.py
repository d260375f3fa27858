"""Loads of which there is one at a time: who leads, who joins, and what becomes of the value."""

import copy
import gc
import math
import os
import pickle
import select
import signal
import statistics
import sys
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from accelerator import codec
from accelerator.process_local import (
    FLIGHT_CROWDED,
    FLIGHT_JOINED,
    FLIGHT_LEADING,
    FLIGHT_OVER,
    JOIN,
    LATENCY_BOUNDS,
    NOT_STORED,
    REFRESH,
    RESULT_DECLINED,
    RESULT_FAILED,
    RESULT_HANDED,
    RESULT_STORED,
    RESULT_UNKNOWN,
    STORED,
    TOO_LARGE,
    WAIT_AGAIN,
    WAIT_ENDED,
    WAIT_TIMEOUT,
)

LEASE = 30.0
LONG = 10.0
"""Seconds that only a broken flight lets a test wait."""


def fill(flight: Any, value: Any, ttl: float | None = 60.0) -> Any:
    return flight.finish(*codec.encode(value), ttl, 0.0)


def hand(flight: Any, value: Any) -> None:
    flight.hand(*codec.encode(value))


def pair(cache: Any, key: Any = "key", lease: float = LEASE) -> tuple[Any, Any]:
    """One flight that leads a key, and one that joined it."""
    leader, joined = cache._enter(key, lease), cache._enter(key, lease)
    assert (FLIGHT_LEADING, FLIGHT_JOINED) == (leader.state, joined.state)
    return leader, joined


def leads(flight: Any) -> bool:
    return flight is not None and flight.state == FLIGHT_LEADING


def in_threads(count: int, work: Callable[[int], Any]) -> list[Any]:
    """What *work* answers, called with 0 to *count* - 1 by as many threads at once."""
    start = threading.Barrier(count)
    answers: list[Any] = [None] * count

    def run(number: int) -> None:
        start.wait(LONG)
        answers[number] = work(number)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(2 * LONG)
    return answers


def in_child(work: Callable[[], bool]) -> bool:
    """Whether *work* holds in a forked child."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            code = 0 if work() else 1
        finally:
            os._exit(code)
    return os.waitpid(pid, 0)[1] == 0


class Ear:
    """A bell, and whether it rings."""

    def __init__(self, memory: Any) -> None:
        self.bell = memory.segment.bell()
        self._rung = threading.Event()
        if self.bell.fileno() < 0:
            self.bell.on_ring = self._rung.set

    def hears(self, seconds: float) -> bool:
        """Wait for the next ring."""
        if self.bell.fileno() < 0:
            rung = self._rung.wait(seconds)
            self._rung.clear()
            return rung
        rung = bool(select.select([self.bell.fileno()], [], [], seconds)[0])
        self.bell.clear()
        return rung


@pytest.fixture(autouse=True)
def all_end(memory: Any) -> Any:
    """No test leaves a flight behind, whatever became of it."""
    yield
    gc.collect()
    assert [] == memory.segment.flights()


class TestEnter:
    def test_one_leads(self, cache: Any) -> None:
        """Of two who want an absent key one leads and one joins the same flight."""
        leader, joined = pair(cache)
        assert leader.id == joined.id != 0
        assert (False, True, False) == (leader.alone, leader.recorded, leader.taken_over)
        assert (True, True) == (leader.own, joined.own)
        assert cache._enter("other", LEASE).id != leader.id

    def test_fresh(self, cache: Any) -> None:
        """Who wants a key that is there by now is told to read it."""
        cache.set("key", 1)
        assert cache._enter("key", LEASE) is None
        assert cache._enter("key", LEASE, JOIN) is None

    def test_expired(self, make: Callable[..., Any], clock: Any) -> None:
        """An expired value, also one that can be used as stale, is to be loaded."""
        cache = make(stale_ttl=100)
        cache.set("key", 1, 5)
        clock.advance(6)
        assert leads(cache._enter("key", LEASE))

    def test_areas(self, make: Callable[..., Any]) -> None:
        """The same key of two areas is two flights; two objects of one area share theirs."""
        leader = make("one")._enter("key", LEASE)
        other = make("two")._enter("key", LEASE)
        assert leads(other)
        assert FLIGHT_JOINED == make("one")._enter("key", LEASE).state
        assert FLIGHT_LEADING == leader.state

    @pytest.mark.parametrize("lease", [0, -1, math.nan, math.inf])
    def test_lease(self, cache: Any, lease: float) -> None:
        """A lease that is no span of time is an error."""
        with pytest.raises(ValueError, match="lease"):
            cache._enter("key", lease)
        with pytest.raises(ValueError, match="lease"):
            cache._enter_alone("key", lease, None)

    def test_mode(self, cache: Any) -> None:
        """So is a mode that there is not."""
        with pytest.raises(ValueError, match="mode"):
            cache._enter("key", LEASE, 4)

    def test_key(self, cache: Any) -> None:
        """A key that cannot be one is the error that it is everywhere."""
        with pytest.raises(TypeError):
            cache._enter(object(), LEASE)

    def test_crowded(self, cache: Any, memory: Any) -> None:
        """Without room for a record a key is neither led nor joined; with room again it is."""
        flights = []
        for number in range(1 << 17):
            flights.append(cache._enter(number, LEASE))
            if flights[-1].state == FLIGHT_CROWDED:
                break
        crowded = flights[-1]
        assert FLIGHT_CROWDED == crowded.state
        assert (0, 0, False) == (crowded.id, crowded.waiters, crowded.own)
        assert NOT_STORED == fill(crowded, 1)
        assert WAIT_ENDED == crowded.wait(0)
        last = len(flights) - 1
        alone = cache._enter_alone(last, LEASE, 1)
        assert leads(alone)
        assert cache._enter_alone(last, LEASE, 1) is None
        without_turn = cache._enter_alone(last, LEASE, None)
        assert leads(without_turn)
        without_turn.fail()
        assert (STORED if alone.recorded else NOT_STORED) == fill(alone, 1)
        cache.delete(last)
        del alone, crowded
        flights.clear()
        assert leads(cache._enter(last, LEASE))

    def test_crowded_by_late(self, cache: Any, clock: Any) -> None:
        """Leaders that are past their lease make room."""
        flights = [cache._enter(0, LEASE)]
        while flights[-1].state != FLIGHT_CROWDED:
            flights.append(cache._enter(len(flights), LEASE))
        clock.advance(LEASE + 1)
        assert leads(cache._enter(len(flights) - 1, LEASE))


class TestEnd:
    def test_finish(self, cache: Any) -> None:
        """A value that is finished is stored; who joined reads it."""
        leader, joined = pair(cache)
        assert WAIT_TIMEOUT == joined.poll()
        assert RESULT_UNKNOWN == joined.result()
        assert STORED == fill(leader, {"a": 1})
        assert WAIT_ENDED == joined.poll() == joined.wait(LONG)
        assert RESULT_STORED == joined.result()
        assert joined.take() is None
        assert {"a": 1} == cache.get("key")
        assert FLIGHT_OVER == leader.state
        assert leader.overtaken is False

    def test_ttl(self, cache: Any, clock: Any) -> None:
        """The value has the life that finish() was told."""
        fill(cache._enter("key", LEASE), 1, 5.0)
        fill(cache._enter("ever", LEASE), 1, None)
        clock.advance(6)
        assert {"key": None, "ever": 1} == cache.mget(["key", "ever"])

    def test_stale_ttl(self, make: Callable[..., Any], clock: Any) -> None:
        """So has its stale copy."""
        cache = make(stale_ttl=50)
        cache._enter("key", LEASE).finish(*codec.encode(1), 5.0, 50.0)
        clock.advance(6)
        assert cache._read("key", stale=True)[4] is True

    @pytest.mark.parametrize("value", [None, 7, b"\0", "text", {"a": [1]}], ids=repr)
    def test_hand(self, cache: Any, value: Any) -> None:
        """A value that is handed over is not stored; all who joined get it, also twice."""
        leader, joined = pair(cache)
        other = cache._enter("key", LEASE)
        hand(leader, value)
        assert RESULT_HANDED == joined.result() == other.result()
        assert (value,) == joined.take() == joined.take() == other.take()
        assert "key" not in cache
        assert leads(cache._enter("key", LEASE))

    def test_handed_copies(self, cache: Any) -> None:
        """Each who joined gets an object of its own."""
        leader, joined = pair(cache)
        value = {"a": [1]}
        hand(leader, value)
        first, second = joined.take()[0], joined.take()[0]
        first["a"].append(2)
        assert {"a": [1]} == second == value

    def test_hand_to_nobody(self, cache: Any) -> None:
        """Nobody has to be there to get it."""
        leader = cache._enter("key", LEASE)
        hand(leader, 1)
        assert FLIGHT_OVER == leader.state

    def test_decline(self, cache: Any) -> None:
        """A value that nobody else can have ends the wait all the same."""
        leader, joined = pair(cache)
        leader.decline()
        assert (WAIT_ENDED, RESULT_DECLINED) == (joined.poll(), joined.result())
        assert joined.take() is None
        assert FLIGHT_OVER == leader.state

    def test_fail(self, cache: Any) -> None:
        """After a failure one of those who joined leads, and the others join that one."""
        leader = cache._enter("key", LEASE)
        joined = [cache._enter("key", LEASE) for _ in range(5)]
        leader.fail()
        assert [RESULT_FAILED] * 5 == [flight.result() for flight in joined]
        again = [cache._enter("key", LEASE) for _ in range(5)]
        assert [FLIGHT_LEADING] + [FLIGHT_JOINED] * 4 == [flight.state for flight in again]
        assert not again[0].taken_over

    def test_block(self, cache: Any) -> None:
        """The end of a block is a failure, unless the flight is over; exceptions go on."""
        leader, joined = pair(cache)
        with leader as entered:
            assert leader is entered
        assert RESULT_FAILED == joined.result()
        leader, joined = pair(cache)
        with pytest.raises(KeyboardInterrupt), leader:
            raise KeyboardInterrupt
        assert RESULT_FAILED == joined.result()
        leader, joined = pair(cache)
        with leader:
            fill(leader, 1)
        assert RESULT_STORED == joined.result()

    def test_last_reference(self, cache: Any) -> None:
        """A leader that is forgotten has failed."""
        leader, joined = pair(cache)
        del leader
        gc.collect()
        assert RESULT_FAILED == joined.result()

    def test_cycle(self, cache: Any) -> None:
        """So has one that the garbage collector finds."""
        leader, joined = pair(cache)
        leader.tag = [leader]
        del leader
        gc.collect()
        assert (WAIT_ENDED, RESULT_FAILED) == (joined.poll(), joined.result())

    def test_other_thread(self, cache: Any) -> None:
        """A flight can be ended by another thread than the one that began it."""
        leader, joined = pair(cache)
        assert [STORED] == in_threads(1, lambda _: fill(leader, 1))
        assert RESULT_STORED == joined.result()

    def test_twice(self, cache: Any) -> None:
        """A flight ends once; whatever is called on it after that changes nothing."""
        leader, joined = pair(cache)
        assert STORED == fill(leader, 1)
        assert NOT_STORED == fill(leader, 2)
        hand(leader, 3)
        leader.decline()
        leader.fail()
        assert RESULT_STORED == joined.result()
        assert 1 == cache.get("key")

    def test_wrong_side(self, cache: Any) -> None:
        """Who joined cannot end a flight, who leads cannot wait for it."""
        leader, joined = pair(cache)
        assert NOT_STORED == fill(joined, 1)
        joined.fail()
        joined.decline()
        hand(joined, 1)
        assert (FLIGHT_LEADING, FLIGHT_JOINED) == (leader.state, joined.state)
        assert WAIT_TIMEOUT == joined.poll()
        assert WAIT_ENDED == leader.wait(LONG) == leader.poll()
        assert (RESULT_UNKNOWN, None) == (leader.result(), leader.take())
        leader.leave()
        assert FLIGHT_LEADING == leader.state

    @pytest.mark.parametrize(
        "wrong", [(0, b"", 1.0, 0.0), (64, b"", 1.0, 0.0), (1, b"", 0.0, 0.0), (1, b"", 1.0, -1.0)]
    )
    def test_wrong_value(self, cache: Any, wrong: Any) -> None:
        """A code or a life that cannot be is an error, and the flight goes on."""
        leader, joined = pair(cache)
        with pytest.raises(ValueError, match=r"code|life|ttl"):
            leader.finish(*wrong)
        assert FLIGHT_LEADING == leader.state
        assert WAIT_TIMEOUT == joined.poll()

    def test_too_large(self, cache: Any, memory: Any) -> None:
        """A value that does not fit leaves an older copy, and ends the flight."""
        cache.set("key", 1)
        leader = cache._enter("key", LEASE, REFRESH)
        payload = bytes(memory.segment.max_item + 1)
        assert TOO_LARGE == leader.finish(codec.CODE_BYTES, payload, 60.0, 0.0)
        assert FLIGHT_OVER == leader.state
        assert 1 == cache.get("key")
        leader, joined = pair(cache, "joined")
        assert TOO_LARGE == leader.finish(codec.CODE_BYTES, payload, 60.0, 0.0)
        assert joined.result() in {RESULT_HANDED, RESULT_DECLINED}

    def test_reused(self, cache: Any) -> None:
        """Long after the end, with many flights since, the answer is the same or none."""
        leader, joined = pair(cache)
        leader.fail()
        del leader
        for number in range(10_000):
            fill(cache._enter(number, LEASE), number)
        assert WAIT_ENDED == joined.poll()
        assert joined.result() in {RESULT_FAILED, RESULT_UNKNOWN}


class TestObject:
    def test_tag(self, cache: Any) -> None:
        """A flight carries one thing for whoever holds it, and can be referred to weakly."""
        leader, joined = pair(cache)
        assert leader.tag is None
        leader.tag = "mine"
        assert ("mine", None) == (leader.tag, joined.tag)
        reference = weakref.ref(leader)
        assert leader is reference()
        with pytest.raises(AttributeError):
            leader.other = 1

    def test_no_copies(self, cache: Any) -> None:
        """There is no second one that could end it."""
        leader = cache._enter("key", LEASE)
        with pytest.raises(TypeError):
            copy.copy(leader)
        with pytest.raises(TypeError):
            pickle.dumps(leader)

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork() here")
    def test_fork(self, cache: Any) -> None:
        """In a forked child the flights of its parent are over, and their end there is nobody's."""
        flights = list(pair(cache))

        def end() -> bool:
            leader, joined = flights
            over = (FLIGHT_OVER, FLIGHT_OVER, False) == (leader.state, joined.state, leader.own)
            ended = (NOT_STORED, WAIT_ENDED) == (fill(leader, "child"), joined.wait(0))
            leader.fail()
            joined.leave()
            flights.clear()
            del leader, joined
            return over and ended

        assert in_child(end)
        leader, joined = flights
        assert (1, WAIT_TIMEOUT) == (leader.waiters, joined.poll())
        assert STORED == fill(leader, "parent")
        assert RESULT_STORED == joined.result()

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork() here")
    def test_fork_leads(self, cache: Any, memory: Any) -> None:
        """A child leads what its parent does not, and joins or leads what it does."""
        leader = cache._enter("key", LEASE)
        state = FLIGHT_JOINED if memory.kind == "shared" else FLIGHT_LEADING

        def enter() -> bool:
            flight = cache._enter("key", LEASE)
            mine = cache._enter("mine", LEASE)
            return flight.state == state and leads(mine) and fill(mine, 1) == STORED

        assert in_child(enter)
        assert FLIGHT_LEADING == leader.state


class TestJoined:
    def test_waiters(self, cache: Any) -> None:
        """Those who wait are counted until they leave or are forgotten."""
        leader, joined = pair(cache)
        others = [cache._enter("key", LEASE) for _ in range(3)]
        assert 4 == leader.waiters == joined.waiters
        joined.leave()
        assert 3 == leader.waiters
        others.clear()
        gc.collect()
        assert 0 == leader.waiters
        fill(leader, 1)
        assert 0 == leader.waiters

    def test_leave(self, cache: Any) -> None:
        """Who left is told nothing any more, and changes nothing for the others."""
        leader, joined = pair(cache)
        other = cache._enter("key", LEASE)
        joined.leave()
        joined.leave()
        hand(leader, 1)
        assert (FLIGHT_OVER, WAIT_ENDED) == (joined.state, joined.wait(LONG))
        assert (RESULT_UNKNOWN, None) == (joined.result(), joined.take())
        assert (RESULT_HANDED, (1,)) == (other.result(), other.take())

    def test_timeout(self, cache: Any) -> None:
        """A wait ends after its time, and can be begun again."""
        leader, joined = pair(cache)
        begin = time.monotonic()
        assert WAIT_TIMEOUT == joined.wait(0.15)
        assert 0.15 <= time.monotonic() - begin < 5
        assert WAIT_TIMEOUT == joined.wait(0) == joined.wait(-1)
        fill(leader, 1)
        assert WAIT_ENDED == joined.wait(LONG)

    def test_wakes_all(self, cache: Any) -> None:
        """Of fifty threads on one key one leads, and forty-nine wake at once when it ends."""
        lateness = []
        for key in range(3):
            entered = threading.Barrier(50)
            finished = []

            def work(
                _: int, key: int = key, entered: Any = entered, finished: Any = finished
            ) -> Any:
                flight = cache._enter(key, LEASE)
                entered.wait(LONG)
                if flight.state == FLIGHT_LEADING:
                    while flight.waiters < 49:
                        time.sleep(0.001)
                    finished.append(time.monotonic())
                    return fill(flight, key)
                answer = flight.wait(LONG), flight.result()
                return *answer, time.monotonic()

            answers = in_threads(50, work)
            woken = [answer for answer in answers if isinstance(answer, tuple)]
            assert 1 == answers.count(STORED)
            assert [(WAIT_ENDED, RESULT_STORED)] * 49 == [answer[:2] for answer in woken]
            lateness.append(statistics.median(answer[2] for answer in woken) - finished[0])
        # Far less than the slices in which they would see it without being woken.
        assert min(lateness) < 0.03

    def test_failures_in_threads(self, cache: Any) -> None:
        """Loads that fail, one by one, for many who wait: each is told, and at last one stores."""
        failures = iter(range(5))

        def work(_: int) -> str:
            while (flight := cache._enter("key", LEASE)) is not None:
                if flight.state == FLIGHT_JOINED:
                    if flight.wait(LONG) == WAIT_TIMEOUT:
                        return "asleep"
                    continue
                with flight:
                    if next(failures, None) is not None:
                        return "failed"
                    fill(flight, "value")
            return str(cache.get("key"))

        answers = in_threads(20, work)
        assert (5, 15) == (answers.count("failed"), answers.count("value"))

    def test_signal(self, cache: Any) -> None:
        """A signal is handled within 150 ms while the main thread waits, and may end the wait."""

        class HandledError(Exception):
            pass

        def handle(*_: Any) -> None:
            raise HandledError

        leader, joined = pair(cache)
        former = signal.signal(signal.SIGALRM, handle)
        taken = []
        try:
            for _ in range(3):
                begin = time.monotonic()
                signal.setitimer(signal.ITIMER_REAL, 0.05)
                with pytest.raises(HandledError):
                    joined.wait(LONG)
                taken.append(time.monotonic() - begin - 0.05)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, former)
        assert min(taken) < 0.15
        fill(leader, 1)
        assert RESULT_STORED == joined.result()

    def test_ended_by_handler(self, cache: Any) -> None:
        """A signal handler may end the very flight that the thread below it waits for."""
        leader, joined = pair(cache)
        former = signal.signal(signal.SIGALRM, lambda *_: fill(leader, 1))
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.02)
            assert WAIT_ENDED == joined.wait(LONG)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, former)
        assert RESULT_STORED == joined.result()


FORGET: dict[str, Callable[[Any], object]] = {
    "delete": lambda cache: cache._delete("key"),
    "expire": lambda cache: cache._expire("key"),
    "clear": lambda cache: cache._clear(),
    "mdelete": lambda cache: cache.mdelete(["key", "other"]),
}


def fill_alone(cache: Any) -> None:
    assert STORED == fill(cache._enter_alone("key", LEASE, None), "newer")


STORE: dict[str, Callable[[Any], object]] = {
    "set": lambda cache: cache.set("key", "newer"),
    "set object": lambda cache: cache.set("key", ["newer"]),
    "mset": lambda cache: cache.mset({"key": "newer"}),
    "add": lambda cache: cache.add("key", "newer"),
    "fill": fill_alone,
}


class TestOvertaken:
    @pytest.mark.parametrize("how", FORGET)
    def test_forgotten(self, cache: Any, how: str) -> None:
        """A load that a delete overtook is for those who joined before; later ones lead anew."""
        leader, joined = pair(cache)
        assert leader.overtaken is False
        FORGET[how](cache)
        assert leader.overtaken is True
        later = cache._enter("key", LEASE)
        assert leads(later)
        assert not later.taken_over
        assert FLIGHT_JOINED == cache._enter("key", LEASE).state
        assert NOT_STORED == fill(leader, "old")
        assert leader.overtaken is True
        assert (RESULT_HANDED, ("old",)) == (joined.result(), joined.take())
        assert "key" not in cache
        assert STORED == fill(later, "new")
        assert "new" == cache.get("key")

    @pytest.mark.parametrize("how", FORGET)
    def test_new_one_first(self, cache: Any, how: str) -> None:
        """The older load does not replace what the newer one has stored."""
        leader, joined = pair(cache)
        FORGET[how](cache)
        assert STORED == fill(cache._enter("key", LEASE), "new")
        assert NOT_STORED == fill(leader, "old")
        assert ("old",) == joined.take()
        assert "new" == cache.get("key")

    def test_other_key(self, cache: Any) -> None:
        """A delete of another key, and a store into one, change nothing for this one."""
        leader = cache._enter("key", LEASE)
        cache.set("other", 1)
        assert STORED == fill(leader, 1)

    def test_other_area(self, make: Callable[..., Any]) -> None:
        """Neither do stores and clears of another area."""
        leader = make("one")._enter("key", LEASE)
        make("two").set("key", 1)
        make("two").clear()
        assert STORED == fill(leader, 1)

    def test_everything(self, cache: Any, memory: Any) -> None:
        """clear_all() and empty() are as good as a clear."""
        for forget in (memory.segment.clear_all, memory.segment.empty):
            leader = cache._enter("key", LEASE)
            forget()
            assert NOT_STORED == fill(leader, "old")

    @pytest.mark.parametrize("how", STORE)
    def test_stored(self, cache: Any, how: str) -> None:
        """A load that a newer store overtook is for those who joined, and does not replace it."""
        leader, joined = pair(cache)
        STORE[how](cache)
        newer = cache.get("key")
        assert leader.overtaken is True
        assert cache._enter("key", LEASE) is None
        assert NOT_STORED == fill(leader, "loaded")
        assert (RESULT_HANDED, ("loaded",)) == (joined.result(), joined.take())
        assert newer == cache.get("key")

    @pytest.mark.parametrize("how", STORE)
    def test_stored_and_gone(self, cache: Any, clock: Any, how: str) -> None:
        """Who comes after the newer store has expired does not join the older load either."""
        leader = cache._enter("key", 1e6)
        STORE[how](cache)
        cache.set("key", "newer", 1)
        clock.advance(100)
        later = cache._enter("key", LEASE)
        assert leads(later)
        assert later.id != leader.id
        assert NOT_STORED == fill(leader, "loaded")
        assert STORED == fill(later, "later")

    def test_refused_store(self, cache: Any) -> None:
        """An add() that stores nothing overtakes nothing."""
        cache.set("key", 1)
        refresh = cache._enter("key", LEASE, REFRESH)
        assert cache.add("key", 2) is False
        assert STORED == fill(refresh, 3)

    def test_touch(self, cache: Any) -> None:
        """A new life for the value overtakes nothing."""
        cache.set("key", 1)
        refresh = cache._enter("key", LEASE, REFRESH)
        assert cache.touch("key", 100)
        assert STORED == fill(refresh, 2)

    def test_hand(self, cache: Any) -> None:
        """An overtaken load can be handed over, declined or fail as any other."""
        for end, result in (
            (lambda flight: hand(flight, 1), RESULT_HANDED),
            (lambda flight: flight.decline(), RESULT_DECLINED),
            (lambda flight: flight.fail(), RESULT_FAILED),
        ):
            leader, joined = pair(cache)
            cache.delete("key")
            end(leader)
            assert result == joined.result()


class TestRefresh:
    def test_replaces(self, cache: Any) -> None:
        """A refresh leads although a value is there, and replaces it; a second one is none."""
        cache.set("key", 1)
        leader = cache._enter("key", LEASE, REFRESH)
        assert leads(leader)
        assert cache._enter("key", LEASE, REFRESH) is None
        assert cache._enter("key", LEASE) is None
        assert STORED == fill(leader, 2)
        assert 2 == cache.get("key")

    def test_absent(self, cache: Any) -> None:
        """It leads too if there is nothing; it never joins."""
        leader = cache._enter("key", LEASE, REFRESH)
        assert leads(leader)
        leader.fail()
        leader = cache._enter("key", LEASE)
        assert cache._enter("key", LEASE, REFRESH) is None
        assert 0 == leader.waiters

    def test_joined(self, cache: Any, clock: Any) -> None:
        """Who misses while a refresh runs joins it."""
        cache.set("key", 1, 5)
        leader = cache._enter("key", LEASE, REFRESH)
        clock.advance(6)
        joined = cache._enter("key", LEASE)
        assert (FLIGHT_JOINED, leader.id) == (joined.state, leader.id)

    def test_set_meanwhile(self, cache: Any) -> None:
        """It does not replace what was set while it ran."""
        cache.set("key", 1)
        leader = cache._enter("key", LEASE, REFRESH)
        cache.set("key", 2)
        assert NOT_STORED == fill(leader, 3)
        assert 2 == cache.get("key")

    def test_late(self, cache: Any, clock: Any) -> None:
        """A refresh that is late is taken over by the next one."""
        cache.set("key", 1, None)
        leader = cache._enter("key", LEASE, REFRESH)
        clock.advance(LEASE + 1)
        again = cache._enter("key", LEASE, REFRESH)
        assert leads(again)
        assert again.taken_over
        assert NOT_STORED == fill(leader, 2)
        assert STORED == fill(again, 3)


class TestLease:
    def test_taken_over(self, cache: Any, clock: Any) -> None:
        """A leader that is past its lease loses it to the next who comes; its value is lost."""
        leader, joined = pair(cache)
        clock.advance(LEASE - 1)
        assert WAIT_TIMEOUT == joined.poll()
        clock.advance(2)
        assert WAIT_AGAIN == joined.poll() == joined.wait(LONG)
        taker = cache._enter("key", LEASE)
        assert leads(taker)
        assert taker.taken_over
        assert leader.overtaken is True
        assert FLIGHT_JOINED == cache._enter("key", LEASE).state
        assert NOT_STORED == fill(leader, "late")
        assert "key" not in cache
        assert FLIGHT_LEADING == taker.state
        assert STORED == fill(taker, "in time")
        assert "in time" == cache.get("key")

    def test_old_waiters(self, cache: Any, clock: Any) -> None:
        """Those who joined the late leader are sent to its successor."""
        leader, joined = pair(cache)
        clock.advance(LEASE + 1)
        taker = cache._enter("key", LEASE)
        found = joined.wait(LONG)
        assert found == WAIT_AGAIN or (WAIT_ENDED, RESULT_UNKNOWN) == (found, joined.result())
        again = cache._enter("key", LEASE)
        assert (FLIGHT_JOINED, taker.id) == (again.state, taker.id)
        leader.fail()
        assert WAIT_TIMEOUT == again.poll()

    def test_late_alone(self, cache: Any, clock: Any) -> None:
        """A late value that nobody else loads is stored."""
        leader, joined = pair(cache)
        clock.advance(LEASE + 1)
        assert STORED == fill(leader, "late")
        assert (WAIT_ENDED, RESULT_STORED) == (joined.poll(), joined.result())
        assert cache._enter("key", LEASE) is None

    def test_passes(self, cache: Any) -> None:
        """A wait ends with the lease; of all who waited one takes over."""
        leader = cache._enter("key", 0.2)
        over = threading.Barrier(20)

        def work(_: int) -> Any:
            joined = cache._enter("key", LEASE)
            answer = joined.wait(LONG)
            flight = cache._enter("key", LEASE)
            over.wait(LONG)
            return answer, flight.state, flight.taken_over

        answers = in_threads(20, work)
        assert FLIGHT_LEADING == leader.state
        assert 1 == answers.count((WAIT_AGAIN, FLIGHT_LEADING, True))
        joined = [answer for answer in answers if answer[1] == FLIGHT_JOINED]
        assert 19 == len(joined)
        assert {(WAIT_AGAIN, False), (WAIT_ENDED, False)} >= {
            (answer, taken_over) for answer, _, taken_over in joined
        }


class TestAlone:
    def test_joined_by_nobody(self, cache: Any) -> None:
        """Others lead beside it, and the first value that is stored stays."""
        alone = cache._enter_alone("key", LEASE, None)
        assert (FLIGHT_LEADING, True, True) == (alone.state, alone.alone, alone.recorded)
        leader, joined = pair(cache)
        assert not leader.alone
        assert STORED == fill(alone, "alone")
        assert NOT_STORED == fill(leader, "led")
        assert (RESULT_HANDED, ("led",)) == (joined.result(), joined.take())
        assert "alone" == cache.get("key")

    def test_overtaken(self, cache: Any) -> None:
        """What others store or delete overtakes it."""
        for overtake in (
            lambda: fill(cache._enter("key", LEASE), "led"),
            lambda: cache.set("key", "set"),
            lambda: cache.delete("key"),
            lambda: fill(cache._enter_alone("key", LEASE, None), "other"),
        ):
            cache.delete("key")
            alone = cache._enter_alone("key", LEASE, None)
            overtake()
            before = cache.get("key")
            assert alone.overtaken is True
            assert NOT_STORED == fill(alone, "alone")
            assert before == cache.get("key")

    def test_fresh(self, cache: Any) -> None:
        """It begins although a value is there, and replaces it."""
        cache.set("key", 1)
        assert STORED == fill(cache._enter_alone("key", LEASE, 1), 2)
        assert 2 == cache.get("key")

    def test_limit(self, make: Callable[..., Any]) -> None:
        """No more of an area run than it is told, whichever way they end."""
        cache, other = make("one"), make("two")
        for end in (
            lambda flight: fill(flight, 1),
            lambda flight: hand(flight, 1),
            lambda flight: flight.decline(),
            lambda flight: flight.fail(),
        ):
            first, second = (cache._enter_alone(key, LEASE, 2) for key in "ab")
            assert cache._enter_alone("c", LEASE, 2) is None
            assert leads(other._enter_alone("c", LEASE, 1))
            assert leads(cache._enter_alone("c", LEASE, None))
            assert leads(cache._enter("led", LEASE))
            end(first)
            third = cache._enter_alone("c", LEASE, 2)
            assert leads(third)
            del second, third
            assert cache._enter_alone("c", LEASE, 0) is None

    def test_exact(self, cache: Any) -> None:
        """Of twenty threads at once exactly as many begin as may."""
        for most in (1, 7, 19):
            flights = in_threads(20, lambda n, most=most: cache._enter_alone(n, LEASE, most))
            assert most == sum(map(leads, flights))
            del flights

    def test_late(self, cache: Any, clock: Any) -> None:
        """A late one is nobody's to take over: it still counts, and is stored."""
        alone = cache._enter_alone("key", LEASE, 1)
        clock.advance(LEASE + 1)
        assert STORED == fill(alone, 1)


class TestBell:
    def test_end(self, cache: Any, memory: Any) -> None:
        """A bell rings when a flight ends that it was tied to."""
        ear = Ear(memory)
        leader, joined = pair(cache)
        joined.ring(ear.bell)
        assert not ear.hears(0)
        fill(leader, 1)
        assert ear.hears(LONG)
        assert not ear.hears(0.12)
        ear.bell.close()

    def test_over(self, cache: Any, memory: Any) -> None:
        """It rings at once if the flight is over."""
        ear = Ear(memory)
        leader, joined = pair(cache)
        leader.fail()
        joined.ring(ear.bell)
        assert ear.hears(LONG)
        ear.bell.close()

    def test_threads(self, cache: Any, memory: Any) -> None:
        """Each bell rings that was tied to a flight, whichever thread ends it."""
        ears = [Ear(memory) for _ in range(5)]
        leader = cache._enter("key", LEASE)
        joined = [cache._enter("key", LEASE) for _ in ears]
        for ear, flight in zip(ears, joined, strict=True):
            flight.ring(ear.bell)
        in_threads(1, lambda _: leader.fail())
        assert [True] * 5 == [ear.hears(LONG) for ear in ears]
        for ear in ears:
            ear.bell.close()

    def test_armed(self, memory: Any) -> None:
        """While it is armed it also rings by itself, so that a lease that passes is noticed."""
        ear = Ear(memory)
        ear.bell.arm(2)
        assert ear.hears(LONG)
        ear.bell.arm(-1)
        assert ear.hears(LONG)
        assert ear.hears(LONG)
        ear.bell.arm(-1)
        ear.hears(0.12)  # one that was on its way
        assert not ear.hears(0.2)
        ear.bell.close()

    def test_closed(self, cache: Any, memory: Any) -> None:
        """A closed bell is silent, and in nobody's way."""
        bell = memory.segment.bell()
        leader, joined = pair(cache)
        joined.ring(bell)
        bell.arm(1)
        bell.close()
        bell.close()
        fill(leader, 1)
        assert RESULT_STORED == joined.result()

    def test_raises(self, cache: Any, memory: Any) -> None:
        """A bell whose loop is closed keeps nobody else from being woken."""
        bell = memory.segment.bell()
        bell.on_ring = lambda: 1 / 0
        leader, joined = pair(cache)
        joined.ring(bell)
        ear = Ear(memory)
        joined.ring(ear.bell)
        assert STORED == fill(leader, 1)
        assert ear.hears(LONG)
        bell.close()
        ear.bell.close()


class TestNotes:
    def test_pause(self, cache: Any, clock: Any) -> None:
        """A failure is noted for a time, for its key only."""
        assert cache._pausing("key") is False
        cache._pause("key", 5)
        assert cache._pausing("key") is True
        assert cache._pausing("other") is False
        clock.advance(6)
        assert cache._pausing("key") is False

    def test_pause_again(self, cache: Any) -> None:
        """A later note replaces the former; 0 seconds end it."""
        cache._pause("key", 5)
        cache._pause("key", 0)
        assert cache._pausing("key") is False

    def test_pause_area(self, make: Callable[..., Any]) -> None:
        """Another area knows nothing of it, another object of the same area does."""
        make("one")._pause("key", 5)
        assert make("one")._pausing("key") is True
        assert make("two")._pausing("key") is False

    def test_pause_keeps(self, cache: Any) -> None:
        """The value that is there stays, and can be read."""
        cache.set("key", 1)
        cache._pause("key", 5)
        assert 1 == cache.get("key")
        assert cache._pausing("key") is True

    def test_pause_wrong(self, cache: Any) -> None:
        """Less than 0 seconds are an error."""
        with pytest.raises(ValueError, match="seconds"):
            cache._pause("key", -1)

    def test_latencies(self, make: Callable[..., Any]) -> None:
        """A load is counted in the first bucket whose bound it does not exceed."""
        cache = make("one")
        assert [0] * (len(LATENCY_BOUNDS) + 2) == cache._latencies()
        for bound in LATENCY_BOUNDS:
            cache._latency(bound)
        cache._latency(100)
        *buckets, microseconds = cache._latencies()
        assert [1] * (len(LATENCY_BOUNDS) + 1) == buckets
        assert abs(sum(LATENCY_BOUNDS) * 1e6 + 100e6 - microseconds) < 100
        cache._latency(0)
        assert 2 == cache._latencies()[0]
        assert 0 == sum(make("two")._latencies())

    def test_latency_wrong(self, cache: Any) -> None:
        """What is no span of time is an error."""
        for wrong in (-1, math.nan, math.inf):
            with pytest.raises(ValueError, match="seconds"):
                cache._latency(wrong)

    def test_counters(self, cache: Any) -> None:
        """The counters of loads are there, and nothing but _count() raises them."""
        leader, joined = pair(cache)
        cache.delete("key")
        fill(leader, 1)
        del joined
        counted = cache._counters()
        names = [
            "load_led",
            "load_joined",
            "load_taken_over",
            "load_lease_lost",
            "load_alone",
            "load_crowded",
            "load_wait_timeout",
            "load_refused",
            "load_paused",
        ]
        first = list(counted).index(names[0])
        assert names == list(counted)[first : first + len(names)]
        assert {0} == {counted[name] for name in names}


class TestListing:
    def test_flights(self, cache: Any, memory: Any, clock: Any) -> None:
        """What runs is listed, with keys as hashes."""
        leader, joined = pair(cache)
        clock.advance(10)
        alone = cache._enter_alone("alone", LEASE, None)
        cache.delete("alone")
        shown = {flight["hash"]: flight for flight in memory.segment.flights()}
        assert {cache._hash("key"), cache._hash("alone")} == set(shown)
        led = shown[cache._hash("key")]
        assert 10 <= led.pop("age") < 20
        assert 10 < led.pop("lease_left") <= 20
        assert {
            "area": "area",
            "hash": cache._hash("key"),
            "pid": os.getpid(),
            "incarnation": memory.segment.incarnation,
            "alive": True,
            "waiters": 1,
            "alone": False,
            "lock": False,
            "overtaken": False,
            "own": True,
        } == led
        other = shown[cache._hash("alone")]
        assert (0, True, True) == (other["waiters"], other["alone"], other["overtaken"])
        fill(leader, 1)
        alone.fail()
        assert [] == memory.segment.flights()
        assert RESULT_STORED == joined.result()

    def test_late(self, cache: Any, memory: Any, clock: Any) -> None:
        """A lease that has passed shows as less than nothing left."""
        leader = cache._enter("key", LEASE)
        clock.advance(LEASE + 5)
        (shown,) = memory.segment.flights()
        assert -10 < shown["lease_left"] < 0
        leader.fail()


class TestStress:
    def test_threads(self, cache: Any, memory: Any) -> None:
        """Threads that load, delete, set and leave on few keys: nobody hangs, nothing stays."""
        interval = sys.getswitchinterval()

        def work(number: int) -> int:
            hung = 0
            for turn in range(200):
                key = (number + turn) % 3
                if turn % 17 == number % 17:
                    cache.delete(key)
                if turn % 23 == number % 23:
                    cache.set(key, turn)
                flight = cache._enter(key, LEASE)
                if flight is None:
                    cache.delete(key)
                elif flight.state == FLIGHT_LEADING:
                    end: list[Callable[[], object]] = [
                        lambda flight=flight, turn=turn: fill(flight, turn),
                        lambda flight=flight, turn=turn: hand(flight, [turn]),
                        flight.decline,
                        flight.fail,
                        lambda: None,
                    ]
                    end[turn % 5]()
                    end.clear()  # what it refers to would go on leading
                elif turn % 7:
                    hung += flight.wait(LONG) == WAIT_TIMEOUT
                del flight
            return hung

        sys.setswitchinterval(1e-5)
        try:
            assert [0] * 16 == in_threads(16, work)
        finally:
            sys.setswitchinterval(interval)
        gc.collect()
        assert [] == memory.segment.flights()
