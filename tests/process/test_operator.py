"""What an operator does from a process of his own, and what the workers of the host make of it."""

import mmap
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from accelerator import LevelCache, cli, local, runtime, testing

pytestmark = pytest.mark.skipif(not local.NATIVE, reason="processes share through the native part")

MODE, TTL = local.OVERRIDES.index("mode"), local.OVERRIDES.index("ttl")
LOCAL = 0
WORKERS = 4
PATIENCE = 30.0

Fork = Callable[..., Any]
Meet = Callable[..., Any]


@pytest.fixture
def shared() -> Iterator[testing.Isolated]:
    with testing.isolated(shared=True) as isolated:
        yield isolated
        assert [] == isolated.memory.check()


class Counting(LevelCache):
    """Counts how often it was bound, and what was in force then."""

    bound: list[Any]

    def _attach(self) -> None:
        print_ = runtime.current().memory.overrides_print()
        self.bound.append(runtime.current().memory.overrides())
        assert print_ >= 0
        super()._attach()


def counting(area: str) -> Counting:
    cache = Counting(area, ttl_jitter_ratio=None)
    cache.bound = []
    return cache


def until(condition: Callable[[], object]) -> None:
    """Look once a millisecond until *condition* holds, where nothing tells."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.001)


def outside(path: str, body: Callable[[Any], object]) -> None:
    """Run *body* in a process that has mapped the segment, and is none of the workers'."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            from accelerator import _native

            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            segment = _native.Segment(fd, os.fstat(fd).st_size)
            body(segment)
            assert 0 == segment.incarnation
            status = 0
        finally:
            os._exit(status)
    assert 0 == os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def path_of(memory: Any) -> str:
    return str(Path(f"/proc/self/fd/{memory.fd}").readlink())


class TestOverrides:
    def test_reaches_all_workers(self, shared: testing.Isolated, fork: Fork) -> None:
        """Set by a command, in force in every worker as soon as overrides_seen says so."""
        cache = counting("users")

        def body(meet: Meet) -> None:
            cache.set("key", os.getpid())
            cache.get("key")
            meet()
            while True:
                meet()
                before = len(cache.bound)
                cache.get("key")
                cache.get("key")
                meet((len(cache.bound) - before, [seen[:3] for seen in cache.bound[-1]]))

        workers = [fork(body) for _ in range(WORKERS)]
        for worker in workers:
            worker.meet()
        memory: Any = shared.memory
        assert (WORKERS + 1, WORKERS + 1) == memory.overrides_seen()
        for value in (5000, 6000, None):
            outside(path_of(memory), lambda segment, v=value: segment.override("users", TTL, v))
            until(lambda: memory.overrides_seen() == (WORKERS + 1, WORKERS + 1))
            expected = [] if value is None else [("users", TTL, value)]
            for worker in workers:
                worker.meet()
                assert (1, expected) == worker.meet()
        workers[0].kill()
        assert (WORKERS, WORKERS) == memory.overrides_seen()

    def test_stopped_worker(self, shared: testing.Isolated, fork: Fork) -> None:
        """Who is stopped lives, and has not seen it."""
        memory: Any = shared.memory

        def body(meet: Meet) -> None:
            memory.register()
            meet()
            meet()

        worker = fork(body)
        worker.meet()
        os.kill(worker.pid, signal.SIGSTOP)
        outside(path_of(memory), lambda segment: segment.override("", TTL, 5000))
        until(lambda: memory.overrides_seen() == (1, 2))
        os.kill(worker.pid, signal.SIGCONT)
        until(lambda: memory.overrides_seen() == (2, 2))
        worker.finish()

    def test_gap_of_a_command(self, shared: testing.Isolated) -> None:
        """A mode that is taken back by a process with no counters of its own is counted."""
        cache = counting("users")
        cache.set("key", 1)
        memory: Any = shared.memory
        for value in (0, None):  # local, and back
            outside(path_of(memory), lambda segment, v=value: segment.override("users", MODE, v))
        counters = cache._counters()
        assert (1, 1) == (counters["gap"], counters["flush"])
        assert cache.get("key") is None

    def test_end_of_its_time(self, shared: testing.Isolated, fork: Fork) -> None:
        """It ends by itself in all workers, also when who has set it is long gone."""
        cache = counting("users")
        cache.set("key", 1)
        memory: Any = shared.memory

        def body(meet: Meet) -> None:
            cache.get("key")
            until(lambda: not cache._bound)
            assert cache.get("key") == 1  # under the override
            meet([seen[:3] for seen in cache.bound[-1]])
            until(lambda: not cache._bound)
            meet(cache.get("key"))
            meet([seen[:3] for seen in cache.bound[-1]])

        workers = [fork(body) for _ in range(2)]
        until(lambda: memory.overrides_seen() == (3, 3))
        began = time.monotonic()
        outside(path_of(memory), lambda segment: segment.override("users", MODE, LOCAL, 1.0))
        for worker in workers:
            assert [("users", MODE, LOCAL)] == worker.meet()
        for worker in workers:
            assert worker.meet() is None  # it may have missed something, so it is forgotten
        assert 1.0 <= time.monotonic() - began < PATIENCE
        for worker in workers:
            assert [] == worker.meet()
        counters = memory.stats()["areas"]["users"]
        assert (1, 1) == (counters["gap"], counters["flush"])

    def test_forgets_for_all(self, shared: testing.Isolated) -> None:
        """What a command takes back counts for everybody before it has returned."""
        cache = LevelCache("users")
        memory: Any = shared.memory
        cache.set("key", "value")
        outside(path_of(memory), lambda segment: segment.override("users", MODE, LOCAL))
        assert "value" == cache.get("key")
        outside(path_of(memory), lambda segment: segment.override("users", MODE, None))
        assert cache.get("key") is None

    @pytest.mark.usefixtures("shared")
    def test_threads_go_on(self) -> None:
        """Threads in the middle of operations are not disturbed, and no count is lost."""
        cache = counting("users")
        memory = runtime.current().memory
        cache.set("key", {"a": 1})
        cache.get("key")
        before = cache._counters()["local_hit"]
        reads, failures, over = [0] * 3, [], threading.Event()

        def read(place: int) -> None:
            try:
                while not over.is_set():
                    assert {"a": 1} == cache.get("key")
                    reads[place] += 1
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=read, args=(place,)) for place in range(3)]
        for thread in threads:
            thread.start()
        for n in range(300):
            memory.override("users", TTL, 1000 + n)
            cache.set("other", n)
        over.set()
        for thread in threads:
            thread.join()
        assert [] == failures
        assert len(cache.bound) > 100
        assert sum(reads) == cache._counters()["local_hit"] - before


class TestEvents:
    def test_killed_in_the_middle(self, shared: testing.Isolated, fork: Fork) -> None:
        """What a killed worker was doing stays to be seen, as what was cut off."""
        memory: Any = shared.memory
        LevelCache("users").set("key", 1)

        def body(meet: Meet) -> None:
            memory.register()
            memory.event("users", "delete", "ok", "none", 0.001)
            memory.event_begin("users", "load", 42)
            meet(memory.incarnation)
            meet()

        worker = fork(body)
        incarnation = worker.meet()
        [load, delete] = memory.events()
        assert (True, True) == (load["running"], load["alive"])
        worker.kill()
        [load, delete] = memory.events()
        assert (worker.pid, incarnation, "users", "load", 42, True, False, None) == (
            load["pid"],
            load["incarnation"],
            load["area"],
            load["op"],
            load["hash"],
            load["running"],
            load["alive"],
            load["latency_ms"],
        )
        assert (worker.pid, "delete", False, False) == (
            delete["pid"],
            delete["op"],
            delete["running"],
            delete["alive"],
        )

    def test_by_a_command(self, shared: testing.Isolated) -> None:
        """A command that is none of the host's processes notes what it does."""
        memory: Any = shared.memory
        outside(path_of(memory), lambda segment: segment.event("", "flush", "ok", "none", 0.5))
        [seen] = memory.events()
        assert ("flush", 0, False) == (seen["op"], seen["incarnation"], seen["alive"])
        assert os.getpid() != seen["pid"] > 0

    def test_read_only(self, shared: testing.Isolated) -> None:
        """Who may only read sees all of it, and changes nothing."""
        from accelerator import _native

        memory: Any = shared.memory
        LevelCache("users").set("key", 1)
        memory.event("users", "delete", "ok", "none", 0.001)
        memory.override("users", TTL, 5000)
        fd = os.open(path_of(memory), os.O_RDONLY | os.O_CLOEXEC)
        reader = _native.Segment(fd, memory.size, readonly=True)
        assert memory.events() == reader.events()
        assert [("users", TTL, 5000, None)] == reader.overrides()
        assert memory.overrides_print() == reader.overrides_print()
        assert (1, 1) == memory.overrides_seen()
        for change in (
            lambda: reader.override("users", TTL, 1),
            lambda: reader.event("users", "set", "ok", "none", 1),
            lambda: reader.event_begin("users", "set"),
            lambda: reader.log_allowed("users", "set", "ok", "none", 1),
        ):
            with pytest.raises(ValueError, match="changing a segment"):
                change()


class TestLogLimit:
    def test_one_line_of_all(self, shared: testing.Isolated, fork: Fork) -> None:
        """Of all that workers want to log one line is written, and the next tells of the rest."""
        memory: Any = shared.memory
        calls = 1000

        def body(meet: Meet) -> None:
            meet()
            kind = ("users", "load", "error", "loader")
            answers = [memory.log_allowed(*kind, 3600.0) for _ in range(calls)]
            meet([answer for answer in answers if answer >= 0])

        workers = [fork(body) for _ in range(2)]
        for worker in workers:
            worker.meet()
        assert [[], [0]] == sorted(worker.meet() for worker in workers)
        memory.set_clock_shift(3601.0)
        left_out = memory.log_allowed("users", "load", "error", "loader", 3600.0)
        assert 2 * calls - 1 == left_out


class TestDamaged:
    """What has been damaged in a segment is shown as it is found, and stops nobody."""

    @pytest.fixture
    def file(self, shared: testing.Isolated) -> Iterator[mmap.mmap]:
        for name in ("first", "other"):
            LevelCache(name).set("key", 1)
        memory: Any = shared.memory
        memory.area_extend("first", time.monotonic() + 60)
        with mmap.mmap(memory.fd, 0) as raw:
            before = raw[:]
            yield raw
            raw[:] = before

    def test_names_alike(self, shared: testing.Isolated, file: mmap.mmap) -> None:
        """Two areas whose names were damaged into one are two rows."""
        at = file.find(b"first", 4096)
        file[at : at + 5] = b"other"
        rows = cast("Any", shared.memory).tables()["areas"]
        assert ["other", "other"] == [row[0] for row in rows]
        assert len({row[4] is None for row in rows}) == 2

    @pytest.mark.usefixtures("shared")
    def test_names_that_command(
        self, shared: testing.Isolated, file: mmap.mmap, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """A name that would command a terminal is shown, not obeyed."""
        at = file.find(b"first", 4096)
        file[at : at + 5] = b"\x1b[31m"
        for command in ("stats", "events", "listener", "set"):
            assert 0 == cli.main([command, "--name", shared.name])
        written = capsys.readouterr().out
        assert "?[31m" in written
        assert "\x1b" not in written
