"""Named locks: who gets them, who waits, and when they are free again."""

import asyncio
import gc
import logging
import math
import os
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from accelerator import Lock, LockError, LockTimeout, flight
from accelerator.process_local import FLIGHT_JOINED, FLIGHT_LEADING, LOCK, NOT_STORED

LONG = 10.0
"""Seconds that only a broken lock lets a test wait."""


def in_thread(work: Callable[[], Any]) -> Any:
    """What *work* answers or raises in another thread."""
    answers: list[Any] = []

    def run() -> None:
        try:
            answers.append(work())
        except Exception as error:
            answers.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(2 * LONG)
    return answers[0]


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def waiters(memory: Any) -> int:
    return sum(flight["waiters"] for flight in memory.segment.flights())


@pytest.fixture(autouse=True)
def all_end(memory: Any) -> Any:
    """No test leaves a lock behind."""
    yield
    gc.collect()
    assert [] == memory.segment.flights()


class TestHolding:
    def test_block(self, cache: Any) -> None:
        """Held in the block, free after it, also when an exception leaves it."""
        lock = cache.lock("name")
        assert isinstance(lock, Lock)
        assert not lock.locked()
        with lock as held:
            assert held is lock
            assert lock.locked()
            assert not in_thread(lambda: cache.lock("name").acquire(timeout=0))
        assert (False, False) == (lock.locked(), lock.lost)
        with pytest.raises(ZeroDivisionError), lock:
            _ = 1 / 0
        assert in_thread(lambda: cache.lock("name").acquire(timeout=0))

    def test_names(self, cache: Any, make: Callable[..., Any]) -> None:
        """Other names and other areas are other locks; objects of one area share theirs."""
        with cache.lock("one"), cache.lock("two"), make("other").lock("one"), cache.lock("\u00e9"):
            assert not in_thread(lambda: make().lock("one").acquire(timeout=0))

    def test_acquire(self, cache: Any) -> None:
        """Without a block, and released by another thread."""
        lock = cache.lock("name")
        assert lock.acquire()
        assert "held" in repr(lock)
        in_thread(lock.release)
        assert not lock.locked()
        assert "not held" in repr(lock)
        assert lock.acquire(timeout=0)
        lock.release()

    def test_waiting(self, cache: Any, memory: Any) -> None:
        """Who waits gets it as soon as it is free, one after the other."""
        inside: list[int] = []

        def work(number: int) -> None:
            with cache.lock("name", timeout=LONG):
                inside.append(number)
                assert [number] == inside
                time.sleep(0.001)
                inside.clear()

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        with cache.lock("name"):
            for thread in threads:
                thread.start()
            until(lambda: waiters(memory) == len(threads))
        for thread in threads:
            thread.join(LONG)
        assert not any(thread.is_alive() for thread in threads)
        assert [] == inside

    def test_counter(self, cache: Any) -> None:
        """Nothing that is read and written under it is lost."""
        total = [0]

        def work() -> None:
            for _ in range(50):
                with cache.lock("name"):
                    seen = total[0]
                    time.sleep(0)
                    total[0] = seen + 1

        threads = [threading.Thread(target=work) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(3 * LONG)
        assert 300 == total[0]

    def test_timeout(self, cache: Any) -> None:
        """acquire() says so, a block raises; the object can be used again."""
        with cache.lock("name"):
            other = cache.lock("name", timeout="20ms")
            began = time.monotonic()
            assert not in_thread(other.acquire)
            assert 0.02 <= time.monotonic() - began < LONG
            assert not in_thread(lambda: other.acquire(timeout=0))
            error = in_thread(other.__enter__)
            assert isinstance(error, LockTimeout)
            assert ("lock_timeout", "area", "lock") == (error.kind, error.area, error.operation)
            assert "name" not in str(error)
        with other:
            assert other.locked()

    def test_last_reference(self, cache: Any) -> None:
        """A lock that nobody can release any more is free."""
        cache.lock("name").acquire()
        gc.collect()
        assert in_thread(lambda: cache.lock("name").acquire(timeout=0))

    def test_off(self, make: Callable[..., Any]) -> None:
        """Locks do not need that anything is cached."""
        cache = make(mode="off")
        with cache.lock("name"):
            assert not in_thread(lambda: make(mode="off").lock("name").acquire(timeout=0))

    def test_shown(self, cache: Any, memory: Any) -> None:
        """They are listed as what they are."""
        with cache.lock("name"):
            (shown,) = memory.segment.flights()
            assert ("area", True, False, False) == tuple(
                shown[what] for what in ("area", "lock", "alone", "overtaken")
            )


class TestApart:
    """Locks and keys do not meet."""

    def test_deletes(self, cache: Any, memory: Any) -> None:
        """No delete, expire, clear or set frees a lock."""
        with cache.lock("name"):
            for number in range(2000):
                cache.delete(number)
            cache.set("name", 1)
            cache.expire("name")
            cache.delete("name")
            cache.clear()
            memory.segment.clear_all()
            memory.segment.empty()
            (shown,) = memory.segment.flights()
            assert not shown["overtaken"]
            assert not in_thread(lambda: cache.lock("name").acquire(timeout=0))

    def test_loads(self, cache: Any) -> None:
        """A load of a key of the same text runs beside it."""
        with cache.lock("name"):
            assert 1 == cache.get_or_load("name", lambda _: 1)
            assert "name" in cache

    def test_stores_nothing(self, cache: Any) -> None:
        """The flight below stores and hands over nothing; it frees the lock instead."""
        for end in (lambda each: each.finish(1, b"x", 60.0, 0.0), lambda each: each.hand(1, b"x")):
            holder, waiting = (cache._enter("name", 30.0, LOCK) for _ in range(2))
            assert (FLIGHT_LEADING, FLIGHT_JOINED) == (holder.state, waiting.state)
            assert end(holder) in {None, NOT_STORED}
            assert waiting.take() is None
            assert "name" not in cache
            waiting.leave()


class TestMisuse:
    def test_twice(self, cache: Any) -> None:
        """An object is for one use at a time, whoever uses it."""
        lock = cache.lock("name")
        with lock:
            for again in (lock.acquire, lock.__enter__, lambda: in_thread(lock.acquire)):
                try:
                    error = again()
                except LockError as raised:
                    error = raised
                assert isinstance(error, LockError)
                assert lock.locked()
        assert lock.acquire()
        lock.release()

    def test_same_thread(self, cache: Any) -> None:
        """Who holds it and asks for it again through another object is told, and does not hang."""
        with cache.lock("name"):
            for _ in range(2):
                with pytest.raises(LockError, match="holds this lock already"):
                    cache.lock("name").acquire()

    def test_not_held(self, cache: Any) -> None:
        """Only what is held can be released."""
        lock = cache.lock("name")
        with pytest.raises(LockError):
            lock.release()
        with lock:
            pass
        with pytest.raises(LockError):
            lock.release()

    @pytest.mark.parametrize("name", [1, b"x", None, ("x",)])
    def test_no_name(self, cache: Any, name: Any) -> None:
        """A name is a str."""
        with pytest.raises(TypeError, match="name"):
            cache.lock(name)
        with pytest.raises(TypeError, match="name"):
            cache._enter(name, 30.0, LOCK)

    def test_long_name(self, cache: Any) -> None:
        """It may be as long as a key."""
        with cache.lock("x" * 511):
            pass
        with pytest.raises(ValueError, match="longer than"):
            cache.lock("x" * 512)

    def test_durations(self, cache: Any) -> None:
        """What is no duration is refused."""
        for lease in (0, -1, math.nan, math.inf):
            with pytest.raises(ValueError, match="lease"):
                cache.lock("name", lease=lease)
        with pytest.raises(ValueError, match="timeout"):
            cache.lock("name", timeout=-1)
        with pytest.raises(TypeError, match="timeout"):
            cache.lock("name").acquire(timeout=[])


class TestLease:
    def test_lost(
        self, cache: Any, memory: Any, clock: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Past its lease a lock is who wants it's; its former holder is told, and harms nobody."""
        lock, other = cache.lock("name", lease=5), cache.lock("name")
        lock.acquire()
        clock.advance(6)
        assert (True, False) == (lock.locked(), lock.lost)  # nobody wanted it
        assert in_thread(lambda: other.acquire(timeout=0))
        assert (False, True) == (lock.locked(), lock.lost)
        with caplog.at_level(logging.WARNING, "accelerator"):
            lock.release()
        (line,) = (each.getMessage() for each in caplog.records)
        assert "lease of 5 s" in line
        assert "name" not in line
        assert lock.lost
        assert other.locked()
        other.release()
        with lock:
            assert not lock.lost

    def test_not_lost(self, cache: Any, clock: Any, caplog: pytest.LogCaptureFixture) -> None:
        """A lease that has passed while nobody waited costs nothing."""
        with cache.lock("name", lease=5) as lock:
            clock.advance(6)
        assert not lock.lost
        assert [] == caplog.records

    def test_waiter(self, cache: Any, memory: Any) -> None:
        """Who waits already gets it when the lease has passed."""
        lock = cache.lock("name", lease=0.05)
        lock.acquire()
        assert in_thread(lambda: cache.lock("name", timeout=LONG).acquire())
        assert lock.lost
        lock.release()

    def test_area(self, make: Callable[..., Any], memory: Any) -> None:
        """Without one of its own it has the area's."""
        with make(lease=77).lock("name"):
            (shown,) = memory.segment.flights()
            assert 70 < shown["lease_left"] <= 77.01


class TestFork:
    def test_child(self, cache: Any, memory: Any) -> None:
        """A child does not hold its parent's lock, and cannot release it."""
        with cache.lock("name") as lock:
            pid = os.fork()
            if pid == 0:
                code = 1
                try:
                    held = lock.locked(), lock.lost
                    lock.release()
                    free = cache.lock("name").acquire(timeout=0)
                    # Private memory is the child's own copy.
                    code = held == (False, False) and free == (memory.kind == "process")
                    code = 0 if code or memory.kind == "private" else 1
                finally:
                    os._exit(code)
            assert 0 == os.waitpid(pid, 0)[1]
            assert lock.locked()
            assert not in_thread(lambda: cache.lock("name").acquire(timeout=0))


class TestAsync:
    def test_tasks(self, cache: Any) -> None:
        """Tasks of one loop take turns, and the loop goes on."""
        inside: list[int] = []
        order: list[int] = []

        async def work(number: int) -> None:
            async with cache.lock("name", timeout=LONG):
                inside.append(number)
                assert [number] == inside
                await asyncio.sleep(0.001)
                inside.clear()
                order.append(number)

        async def main() -> None:
            await asyncio.gather(*(work(number) for number in range(20)))

        asyncio.run(main())
        assert list(range(20)) == sorted(order)

    def test_timeout(self, cache: Any) -> None:
        """As without asyncio."""

        async def other() -> tuple[bool, bool]:
            lock = cache.lock("name", timeout=0.02)
            got = await lock.aacquire(), await lock.aacquire(timeout=0)
            with pytest.raises(LockTimeout):
                async with lock:
                    pass
            return got

        async def main() -> None:
            async with cache.lock("name"):
                assert (False, False) == await asyncio.create_task(other())
            assert await cache.lock("name").aacquire(timeout=0)

        asyncio.run(main())

    def test_cancelled(self, cache: Any, memory: Any) -> None:
        """A task that is cancelled waits no more; one that holds it frees it."""

        async def hold() -> None:
            async with cache.lock("name"):
                await asyncio.sleep(LONG)

        async def main() -> None:
            holder = asyncio.create_task(hold())
            await asyncio.sleep(0)
            waiting = asyncio.create_task(hold())
            await asyncio.sleep(0.01)
            assert 1 == waiters(memory)
            waiting.cancel()
            await asyncio.wait([waiting])
            assert 0 == waiters(memory)
            holder.cancel()
            await asyncio.wait([holder])
            assert [] == memory.segment.flights()

        asyncio.run(main())

    def test_misuse(self, cache: Any) -> None:
        """A task that would wait for itself, or stop the loop that it waits for, is told."""

        async def blocks() -> None:
            with pytest.raises(LockError, match="stop the loop"):
                cache.lock("name").acquire()

        async def main() -> None:
            async with cache.lock("name"):
                with pytest.raises(LockError, match="holds this lock already"):
                    await cache.lock("name").aacquire()
                await asyncio.create_task(blocks())

        asyncio.run(main())

    def test_threads_beside(self, cache: Any) -> None:
        """Threads and tasks share a lock."""

        async def main() -> list[bool]:
            loop = asyncio.get_running_loop()
            async with cache.lock("name"):
                thread = loop.run_in_executor(None, cache.lock("name", timeout=LONG).acquire)
                await asyncio.sleep(0.01)
            return [await thread]

        assert [True] == asyncio.run(main())


class TestNoRoom:
    def test_crowded(self, cache: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """A table without room, or locked, is asked again until the time is over."""
        cache.peek("key")  # attaches
        real, answers = flight.enter, [flight._BUSY, flight.NoFlight(3), flight._BUSY]
        monkeypatch.setattr(
            flight, "enter", lambda *each: answers.pop() if answers else real(*each)
        )
        with cache.lock("name", timeout=LONG):
            assert [] == answers
        answers += [flight._BUSY] * 1000
        assert not cache.lock("name").acquire(timeout=0.02)
        assert len(answers) < 1000
        answers.clear()
