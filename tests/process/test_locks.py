"""Named locks between processes: no update is lost, and a killed holder keeps nothing."""

import mmap
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from accelerator import LevelCache, LockTimeout, local, testing

pytestmark = [
    pytest.mark.skipif(not local.NATIVE, reason="processes share through the native part"),
    pytest.mark.slow,
]

Fork = Callable[..., Any]
Meet = Callable[..., Any]
LONG = 60.0
DEAD = 0.15
"""Seconds from a holder's death until another one holds the lock, as for loads."""


@pytest.fixture
def shared() -> Iterator[testing.Isolated]:
    with testing.isolated(shared=True) as isolated:
        yield isolated
        assert [] == isolated.memory.check()
        assert [] == [each for each in isolated.memory.flights() if each["alive"]]


@pytest.fixture
def number(tmp_path: Path) -> Iterator[mmap.mmap]:
    """A number in memory that children share, which only a lock protects."""
    path = tmp_path / "number"
    path.write_bytes(bytes(mmap.PAGESIZE))
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as made:
        yield made


def add_one(number: mmap.mmap, *, pause: float | None = 0) -> None:
    """Read, let others come in between, write."""
    seen = int.from_bytes(number[:8], "little")
    if pause is not None:
        time.sleep(pause)
    number[:8] = (seen + 1).to_bytes(8, "little")


def value(number: mmap.mmap) -> int:
    return int.from_bytes(number[:8], "little")


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.001)


def waiting(shared: testing.Isolated) -> int:
    return sum(each["waiters"] for each in shared.memory.flights())


class TestCounter:
    def test_mixed(self, shared: Any, fork: Fork, crowd: Any, number: mmap.mmap) -> None:
        """Six processes of threads, tasks and greenlets; meanwhile the area is cleared again."""
        kinds = ("threads", "tasks", "greenlets") * 2
        callers, times = 4, 40

        def body_of(kind: str) -> Callable[[Meet], None]:
            def body(meet: Meet) -> None:
                here = crowd(kind)
                cache = LevelCache("area")

                def many() -> None:
                    for turn in range(times):
                        with cache.lock("number", timeout=LONG):
                            add_one(number, pause=0 if turn % 2 else None)

                async def many_async() -> None:
                    for _ in range(times):
                        async with cache.lock("number", timeout=LONG):
                            seen = value(number)
                            await here.pause(0.0)
                            number[:8] = (seen + 1).to_bytes(8, "little")

                meet()
                found = here.run(callers, many_async if kind == "tasks" else many)
                meet([each.error for each in found])

            return body

        children = [fork(body_of(kind)) for kind in kinds]
        ended = threading.Event()

        def disturb() -> None:
            cache = LevelCache("area")
            while not ended.is_set():
                cache.clear()
                cache.set("number", 1)
                cache.delete("number")
                time.sleep(0.0005)

        thread = threading.Thread(target=disturb)
        thread.start()
        for child in children:
            child.meet()
        errors = [child.meet() for child in children]
        ended.set()
        thread.join()
        assert [[None] * callers] * len(kinds) == errors
        assert len(kinds) * callers * times == value(number)

    def test_killed_all_along(self, shared: Any, fork: Fork, number: mmap.mmap) -> None:
        """
        Holders are killed in the middle: the others go on, never two at a time.

        A killed one may leave its own pid in the number, and nobody else's.
        """

        def body(meet: Meet) -> None:
            cache = LevelCache("area")
            me = os.getpid().to_bytes(8, "little")
            while True:
                with cache.lock("number", timeout=LONG):
                    number[8:16] = me
                    for _ in range(20):
                        if number[8:16] != me:
                            number[16] = 1
                        time.sleep(0)
                    add_one(number, pause=None)

        children = [fork(body) for _ in range(4)]
        for _ in range(30):
            before = value(number)
            until(lambda before=before: value(number) > before + 3)
            victim = children.pop(0)
            os.kill(victim.pid, signal.SIGKILL)
            victim.wait()
            children.append(fork(body))
        before = value(number)
        until(lambda: value(number) > before + 20)
        for child in children:
            os.kill(child.pid, signal.SIGKILL)
            child.wait()
        assert 0 == number[16]


class TestDeath:
    def test_one_next(self, shared: Any, fork: Fork, crowd: Any, number: mmap.mmap) -> None:
        """The holder is killed: exactly one of those who wait gets it, then one after the other."""
        each = 5
        kinds = ("threads", "tasks", "greenlets")

        def holds(meet: Meet) -> None:
            with LevelCache("area").lock("name"):
                meet()
                time.sleep(LONG)

        def waits_of(kind: str) -> Callable[[Meet], None]:
            def body(meet: Meet) -> None:
                here = crowd(kind)
                cache = LevelCache("area")

                def got() -> float:
                    at = time.monotonic()
                    add_one(number, pause=None)
                    return at

                def take() -> float:
                    with cache.lock("name", timeout=LONG):
                        at = got()
                        here.pause(0.02)
                    return at

                async def take_async() -> float:
                    async with cache.lock("name", timeout=LONG):
                        at = got()
                        await here.pause(0.02)
                    return at

                meet()
                take_it = take_async if kind == "tasks" else take
                meet([one.value for one in here.run(each, take_it)])

            return body

        holder = fork(holds)
        holder.meet()
        children = [fork(waits_of(kind)) for kind in kinds]
        for child in children:
            child.meet()
        until(lambda: waiting(shared) == each * len(kinds))
        killed_at = holder.end_by(signal.SIGKILL)
        times = sorted(at for child in children for at in child.meet())
        holder.wait()
        assert each * len(kinds) == len(times) == value(number)
        gaps = [later - at for at, later in pairwise(times)]
        assert min(gaps) >= 0.015, gaps
        print(f"held again {(times[0] - killed_at) * 1000:.0f} ms after the kill")
        assert times[0] - killed_at < 2 * DEAD  # two processors, shared with other tests

    def test_stopped(self, shared: Any, fork: Fork, caplog: pytest.LogCaptureFixture) -> None:
        """A stopped holder keeps it for its lease, and is told when it goes on."""

        def holds(meet: Meet) -> None:
            lock = LevelCache("area").lock("name", lease=1.0)
            with lock:
                meet()
                os.kill(os.getpid(), signal.SIGSTOP)
                lost = lock.lost
            meet((lost, lock.lost))

        holder = fork(holds)
        holder.meet()
        until(
            lambda: (
                Path(f"/proc/{holder.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
            )
        )
        lock = LevelCache("area").lock("name", timeout=0)
        with pytest.raises(LockTimeout), lock:
            pass
        assert lock.acquire(timeout=LONG)
        os.kill(holder.pid, signal.SIGCONT)
        assert (True, True) == holder.meet()
        assert lock.locked()
        lock.release()

    def test_fork(self, shared: Any, fork: Fork) -> None:
        """A child of the holder has no part in it, also when it outlives the holder."""
        cache = LevelCache("area")
        with cache.lock("name") as lock:

            def body(meet: Meet) -> None:
                meet((lock.locked(), lock.acquire(timeout=0)))
                lock_again = LevelCache("area").lock("name")
                meet(lock_again.acquire(timeout=LONG))
                lock_again.release()

            child = fork(body)
            assert (False, False) == child.meet()
            until(lambda: waiting(shared) == 1)
            assert lock.locked()
        assert child.meet()
        child.finish()
