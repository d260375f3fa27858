"""What processes see of each other's writes through LevelCache."""

import ctypes
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import accelerator
from accelerator import MISS, LevelCache, local, runtime, testing

pytestmark = pytest.mark.skipif(not local.NATIVE, reason="processes share through the native part")

Fork = Callable[..., Any]
Meet = Callable[..., Any]


@pytest.fixture
def shared() -> Iterator[testing.Isolated]:
    with testing.isolated(shared=True) as isolated:
        yield isolated
        assert [] == isolated.memory.check()


@pytest.fixture
def cache(shared: testing.Isolated) -> LevelCache:
    return LevelCache("area")


class TestSeenByAll:
    def test_writes(self, cache: LevelCache, fork: Fork) -> None:
        """Whatever one process did, the others see when the call has returned."""

        def body(meet: Meet) -> None:
            while (step := meet()) is not None:
                method, *arguments = step
                meet(getattr(cache, method)(*arguments))

        one, other = fork(body), fork(body)

        def run(child: Any, *step: Any) -> Any:
            child.meet(step)
            return child.meet()

        run(one, "set", "key", {"a": [1]})
        assert {"a": [1]} == run(other, "get", "key") == cache.get("key")
        run(other, "set", "key", "text")
        assert "text" == run(one, "get", "key")
        assert run(one, "delete", "key")
        assert not run(other, "delete", "key")
        assert run(one, "add", "key", 5)
        assert not run(other, "add", "key", 6)
        assert 7 == run(other, "incr", "key", 2)
        assert 7 == run(one, "get", "key")
        run(one, "mset", {"a": 1, "b": None})
        assert {"a": 1, "b": None, "c": None} == run(other, "mget", ["a", "b", "c"])
        assert 2 == run(other, "mdelete", ["a", "b", "c"])
        run(one, "clear")
        assert run(other, "get", "key") is None

    @pytest.mark.parametrize("value", ["text", ("tuple", 1), {"a": 1}], ids=repr)
    def test_no_old_value_after_delete(self, cache: LevelCache, fork: Fork, value: object) -> None:
        """A delete that returned in one process is never followed by the old value in another."""
        tries = 10_000 // 3

        def body(meet: Meet) -> None:
            for _ in range(tries):
                cache.set("key", value)
                meet()
                meet()  # here this process stands while the other one looks
                cache.delete("key")
                meet()
                meet()

        child = fork(body)
        stale = 0
        for _ in range(tries):
            child.meet()
            assert value == cache.get("key") == cache.get("key")
            child.meet()
            child.meet()
            stale += cache.get("key", MISS) is not MISS
            child.meet()
        assert 0 == stale

    def test_no_old_value_after_set(self, cache: LevelCache, fork: Fork) -> None:
        """Nor is a set."""

        def body(meet: Meet) -> None:
            for number in range(3000):
                cache.set("key", (number,))
                meet()
                meet()

        child = fork(body)
        for number in range(3000):
            child.meet()
            assert (number,) == cache.get("key")
            child.meet()


class TestRewritten:
    """A key that is written all the time is rewritten where it lies, in one of two copies."""

    WRITES = 10_000

    @pytest.mark.parametrize("objects", ["auto", "copy", "shared"])
    @pytest.mark.parametrize("make", [bytes, list])
    def test_whole_and_newer(
        self, shared: testing.Isolated, fork: Fork, objects: str, make: Callable[..., Any]
    ) -> None:
        """What is read meanwhile is whole, and never older than what was read before."""
        cache = LevelCache("area", objects=objects)

        def value_of(number: int) -> Any:
            return make([number % 256] * 100 + [number // 256])

        def body(meet: Meet) -> None:
            meet()
            for number in range(1, self.WRITES):
                cache.set("key", value_of(number))

        cache.set("key", value_of(0))
        child = fork(body)
        child.meet()
        last = 0
        while last < self.WRITES - 1:
            value = cache.get("key")
            number = value[0] + 256 * value[100]
            assert value_of(number) == value
            assert last <= number
            last = number


class TestAtomic:
    def test_incr(self, cache: LevelCache, fork: Fork) -> None:
        """No count of any process is lost."""

        def body(meet: Meet) -> None:
            meet()
            for _ in range(5000):
                cache.incr("count")

        children = [fork(body) for _ in range(4)]
        for child in children:
            child.meet()
        for child in children:
            child.finish()
        assert 20_000 == cache.get("count")

    def test_add(self, cache: LevelCache, fork: Fork) -> None:
        """Of processes that add one key, one succeeds."""

        def body(meet: Meet) -> None:
            meet()
            meet([key for key in range(2000) if cache.add(key, os.getpid())])

        children = [fork(body) for _ in range(3)]
        for child in children:
            child.meet()
        won = [key for child in children for key in child.meet()]
        assert list(range(2000)) == sorted(won)

    def test_overtaken_load(self, cache: LevelCache, fork: Fork) -> None:
        """A load that another process's delete overtook is not stored."""

        def body(meet: Meet) -> None:
            def load(key: Any) -> str:
                meet()
                return "old"

            meet(cache.get_or_load("key", load))

        child = fork(body)
        child.meet()
        cache.delete("key")
        assert "old" == child.meet()
        assert cache.get("key") is None


class TestFork:
    def test_before_first_use(self, fork: Fork) -> None:
        """A cache object made before the fork attaches in each child."""
        name = f"test-{uuid.uuid4().hex[:12]}"
        former = runtime.swap(None)
        cache = LevelCache("area")

        def body(meet: Meet) -> None:
            accelerator.configure(name=name)
            cache.incr("count")
            meet(accelerator.diagnostics()["path"])
            meet()

        try:
            children = [fork(body) for _ in range(3)]
            paths = {child.meet() for child in children}
            (path,) = paths
            accelerator.configure(name=name)
            assert 3 == cache.get("count")
        finally:
            accelerator.detach()
            runtime._runtime.configured.clear()
            runtime.swap(former)
            Path(path).unlink()

    def test_after_use(self, cache: LevelCache, shared: testing.Isolated, fork: Fork) -> None:
        """A child of an attached process is a process of its own at its first operation."""
        cache.set("key", (1, 2))
        cache.get("key")

        def body(meet: Meet) -> None:
            found = cache.get("key")
            meet((found, shared.memory.incarnation, accelerator.diagnostics()["pid"]))
            cache.set("key", "child")
            meet()
            os.kill(os.getpid(), signal.SIGKILL)

        child = fork(body)
        found, incarnation, pid = child.meet()
        assert (1, 2) == found
        assert shared.memory.incarnation not in {0, incarnation}
        assert child.pid == pid
        child.meet()
        assert "child" == cache.get("key")

    def test_attach_in_child(self, cache: LevelCache, shared: testing.Isolated, fork: Fork) -> None:
        """attach() in the child of an attached process enters it, and complains of nothing."""
        cache.set("key", 1)

        def body(meet: Meet) -> None:
            accelerator.attach()
            meet((shared.memory.incarnation, cache.get("key")))

        incarnation, found = fork(body).meet()
        assert incarnation > shared.memory.incarnation
        assert 1 == found

    def test_without_hooks(self, cache: LevelCache, shared: testing.Isolated) -> None:
        """A fork that runs no hooks of os.register_at_fork (as uWSGI's) is noticed all the same."""
        cache.set("key", "parent")
        mine = shared.memory.incarnation
        reader, writer = os.pipe()
        pid = ctypes.PyDLL(None).fork()
        if pid == 0:
            cache.set("key", "child")
            os.write(writer, b"%d" % shared.memory.incarnation)
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader, "rb") as pipe:
            incarnation = int(pipe.read())
        os.waitpid(pid, 0)
        assert "child" == cache.get("key")
        assert incarnation > mine == shared.memory.incarnation

    def test_grandchildren(self, cache: LevelCache, fork: Fork) -> None:
        """Children of children, whose parents are gone."""

        def body(meet: Meet) -> None:
            for _ in range(5):
                cache.incr("depth")
                if os.fork() != 0:
                    os._exit(0)
            cache.set("done", True)

        fork(body).wait()
        deadline = time.monotonic() + 10
        while "done" not in cache and time.monotonic() < deadline:
            time.sleep(0.001)
        assert 5 == cache.get("depth")

    def test_spawned(self, cache: LevelCache, shared: testing.Isolated) -> None:
        """A process with no common ancestor finds the segment by its name."""
        cache.set("key", "parent")
        code = (
            "import accelerator\n"
            "cache = accelerator.LevelCache('area')\n"
            "print(cache.get('key'))\n"
            "cache.set('key', 'spawned')\n"
        )
        environment = {**os.environ, "ACCELERATOR_NAME": shared.name}
        result = subprocess.run(
            [sys.executable, "-c", code],
            check=True,
            capture_output=True,
            text=True,
            env=environment,
        )
        assert "parent\n" == result.stdout
        assert "spawned" == cache.get("key")

    def test_own_memory(self, fork: Fork) -> None:
        """Memory of one process is not shared: a child has a copy, and its parent never knows."""
        with testing.isolated():
            cache = LevelCache("area")
            cache.mset({"key": 1, "count": 1})

            def body(meet: Meet) -> None:
                cache.incr("count")
                meet(cache.mget(["key", "count"]))

            assert {"key": 1, "count": 2} == fork(body).meet()
            assert 1 == cache.get("count")


class TestKilled:
    def test_slot_freed(self, cache: LevelCache, shared: testing.Isolated, fork: Fork) -> None:
        """on_child_exit frees the slot of a killed worker at once, from outside as well."""

        def body(meet: Meet) -> None:
            cache.get("key")
            meet()
            meet()

        child = fork(body)
        child.meet()
        child.kill()
        pids = [each["pid"] for each in shared.memory.alive()]
        assert child.pid in pids
        worker = type("Worker", (), {"pid": child.pid})()
        accelerator.on_child_exit(None, worker)
        assert child.pid not in [each["pid"] for each in shared.memory.alive()]

    def test_reaped_by_a_stranger(
        self, cache: LevelCache, shared: testing.Isolated, fork: Fork
    ) -> None:
        """A master that has not attached can do it too, and keeps nothing open."""

        def worker(meet: Meet) -> None:
            cache.get("key")
            meet()
            meet()

        dead = fork(worker)
        dead.meet()
        dead.kill()
        code = (
            "import os, sys, types, accelerator\n"
            "before = sorted(os.listdir('/proc/self/fd'))\n"
            "accelerator.on_child_exit(None, types.SimpleNamespace(pid=int(sys.argv[1])))\n"
            "assert before == sorted(os.listdir('/proc/self/fd'))\n"
            "assert 'accelerator.' not in open('/proc/self/maps').read().replace(\n"
            "    accelerator.__path__[0], '')\n"
        )
        subprocess.run([sys.executable, "-c", code, str(dead.pid)], check=True)
        assert dead.pid not in [each["pid"] for each in shared.memory.alive()]

    def test_living_is_left_alone(
        self, cache: LevelCache, shared: testing.Isolated, fork: Fork
    ) -> None:
        """A worker that lives is not freed, whatever somebody says."""

        def body(meet: Meet) -> None:
            cache.get("key")
            meet()
            meet(cache.incr("count"))

        child = fork(body)
        child.meet()
        accelerator.on_child_exit(None, type("Worker", (), {"pid": child.pid})())
        assert child.pid in [each["pid"] for each in shared.memory.alive()]
        assert 1 == child.meet()

    def test_counters_stay(self, cache: LevelCache, fork: Fork) -> None:
        """What a killed process has counted stays counted."""

        def body(meet: Meet) -> None:
            for _ in range(10):
                cache.get("unknown")
            meet()
            meet()

        for _ in range(5):
            child = fork(body)
            child.meet()
            child.kill()
        assert 50 == cache.metrics_snapshot()["local_miss"]

    def test_snapshots_are_the_hosts(self, cache: LevelCache, fork: Fork) -> None:
        """So do data points, histograms and diagnostics, whichever process is asked."""

        def body(meet: Meet) -> None:
            for key in range(10):
                cache.get_or_load((os.getpid(), key), lambda _: "value")
            meet()
            meet()

        for _ in range(3):
            child = fork(body)
            child.meet()
            child.kill()
        points = {point["name"]: point["value"] for point in cache.otel_metric_points()}
        shown = cache.diagnostic_snapshot()
        for name in ("load_total", "load_success_total", "entries"):
            assert 30 == points[f"accelerator_cache_{name}"]
        assert 30 == points["accelerator_cache_load_latency_seconds"]["count"]
        assert (30, 30) == (shown["entries"], shown["load"]["count"])


class TestClock:
    def test_shared_lives(self, cache: LevelCache, fork: Fork) -> None:
        """A life that one process gave ends for all."""

        def body(meet: Meet) -> None:
            cache.set("key", 1, 0.2)
            meet()

        fork(body).meet()
        assert 1 == cache.get("key")
        deadline = time.monotonic() + 10
        while "key" in cache and time.monotonic() < deadline:
            time.sleep(0.01)
        assert "key" not in cache
