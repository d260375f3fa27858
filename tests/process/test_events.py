"""Events and log lines of several processes: what a dead one leaves, and what they share."""

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from accelerator import CacheError, LevelCache, cli, local, testing
from accelerator.observability import events, oplog

pytestmark = pytest.mark.skipif(not local.NATIVE, reason="processes share through the native part")

Fork = Callable[..., Any]
Meet = Callable[..., Any]


@pytest.fixture
def shared() -> Iterator[testing.Isolated]:
    with testing.isolated(shared=True) as isolated:
        yield isolated
        assert [] == isolated.memory.check()


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What the command prints."""
    capsys.readouterr()
    assert 0 == cli.main(["events", *arguments])
    return capsys.readouterr().out


class TestKilled:
    @pytest.mark.parametrize("batch", [False, True], ids=["load", "mload"])
    def test_in_a_load(
        self,
        shared: testing.Isolated,
        fork: Fork,
        capsys: pytest.CaptureFixture[str],
        batch: bool,
    ) -> None:
        """What a worker was loading when it was killed is seen by its pid."""

        def body(meet: Meet) -> None:
            class Loader:
                def load(self, key: str) -> Any:
                    meet()
                    signal.pause()

                def mload(self, keys: Any) -> Any:
                    self.load("")

            cache = LevelCache("users", loader=Loader())
            cache.delete("before")
            cache.mget(["key", "other"]) if batch else cache.get("key")

        worker = fork(body)
        worker.meet()
        name, pid = ("--name", shared.name), ("--pid", str(worker.pid))
        alive = shown(capsys, *name, *pid, "--op", "mload" if batch else "load").splitlines()[-1]
        assert "running" in alive
        worker.kill()
        cache = LevelCache("users")
        cache.delete("mine")
        text = shown(capsys, *name, *pid)
        head, count, titles, *lines = text.splitlines()
        assert (shared.name, "events 3") == (head.split()[1], count)
        assert ["time", "pid", "area", "op"] == titles.split()[:4]
        assert [str(worker.pid)] * 3 == [line.split()[1] for line in lines]
        assert ["attach", "del", "mload" if batch else "load"] == [
            line.split()[3] for line in lines
        ]
        assert "cut off by death" in lines[-1]
        assert lines[-1].endswith("-" if batch else f"{cache._hash('key'):016x}")
        (data,) = json.loads(shown(capsys, *name, "--json", "--failed"))["events"]
        assert ("killed", worker.pid, 2 if batch else 1) == (
            data["outcome"],
            data["pid"],
            data["count"],
        )
        assert "1" in shown(capsys, *name, "--summary", "--failed").splitlines()[1]


class TestFailingAlike:
    WORKERS = 4
    FAILURES = 300

    def test_one_line_a_second(
        self, shared: testing.Isolated, fork: Fork, gates: Any, monkeypatch: Any
    ) -> None:
        """Four workers that fail alike log together what one would, and no failure is lost."""
        monkeypatch.setattr(oplog, "INTERVAL", 0.3)
        gate = gates()
        cache = LevelCache("users")
        cache.get("key")
        lines: list[Any] = []

        def body(meet: Meet) -> None:
            told = []

            class Handler(logging.Handler):
                def emit(self, record: logging.LogRecord) -> None:
                    told.append(record.getMessage())

            logging.getLogger("accelerator.ops").addHandler(Handler())
            meet()
            gate.wait()
            for _ in range(self.FAILURES):
                fail(cache)
                time.sleep(0.002)
            meet(told)

        workers = [fork(body) for _ in range(self.WORKERS)]
        for worker in workers:
            worker.meet()
        began = time.monotonic()
        gate.open()
        for worker in workers:
            lines += worker.meet()
        took = time.monotonic() - began
        for worker in workers:
            worker.finish()
        # What was left out last is told by the next one that is not.
        limit = time.monotonic() + 10
        mine = 0
        while failures(shared)[0] < self.WORKERS * self.FAILURES + mine:
            assert time.monotonic() < limit
            time.sleep(0.1)
            fail(cache)
            mine += 1
        count, number = failures(shared)
        assert self.WORKERS * self.FAILURES + mine == count
        assert 2 <= len(lines) <= took / 0.2 + 1
        assert len(lines) < number
        left_out = sum(int(text.partition("suppressed=")[2] or 0) for text in lines)
        by_workers = [
            each["count"]
            for each in shared.memory.events()
            if each["op"] == "set" and each["pid"] != os.getpid()
        ]
        assert len(lines) + left_out == sum(by_workers)

    def test_threads(self, shared: testing.Isolated, monkeypatch: Any) -> None:
        """Nor is any lost among threads of one process."""
        monkeypatch.setattr(oplog, "INTERVAL", 0.3)
        cache = LevelCache("users")

        def run() -> None:
            for _ in range(self.FAILURES):
                fail(cache)

        threads = [threading.Thread(target=run) for _ in range(self.WORKERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        limit = time.monotonic() + 10
        expected = self.WORKERS * self.FAILURES
        while failures(shared)[0] < expected:
            assert time.monotonic() < limit
            time.sleep(0.1)
            fail(cache)
            expected += 1
        assert expected == failures(shared)[0]


def fail(cache: LevelCache) -> None:
    with pytest.raises(CacheError):
        cache.set("key", object())


def failures(shared: testing.Isolated) -> tuple[int, int]:
    """Failures that the events stand for, and the number of these."""
    found = [each["count"] for each in shared.memory.events() if each["op"] == "set"]
    return sum(found), len(found)


class TestSignals:
    def test_in_the_middle(self, shared: testing.Isolated) -> None:
        """A signal's handler that uses a cache may come anywhere, also while one is noted."""
        cache = LevelCache("users", loader=str.upper)
        called = 0

        def handle(*_: object) -> None:
            nonlocal called
            called += 1
            cache.delete("of the handler")
            fail(cache)

        former = signal.signal(signal.SIGALRM, handle)
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
        try:
            limit = time.monotonic() + 30
            while called < 200:
                assert time.monotonic() < limit
                cache.delete("key")
                cache.get("key")
                fail(cache)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, former)
        found = shared.memory.events()  # the ring has come round many times
        assert 100 < len(found) < found[0]["number"]
        assert not any(each["running"] for each in found)


def follow(shared: testing.Isolated, *arguments: str) -> Any:
    """Start the command on a pipe."""
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "accelerator", "events", "--follow", "--interval", "0.1"),
            *("--name", shared.name, *arguments),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


class TestFollow:
    def test_ctrl_c(self, shared: testing.Isolated) -> None:
        """What is there, then what comes, until Ctrl-C, which is no failure."""
        cache = LevelCache("users")
        cache.delete("first")
        process = follow(shared, "--json")
        assert cache._hash("first") == int(json.loads(process.stdout.readline())["hash"], 16)
        cache.delete("second")
        assert cache._hash("second") == int(json.loads(process.stdout.readline())["hash"], 16)
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=60)
        assert ("", "", 0) == (rest, errors, process.returncode)

    def test_closed_pipe(self, shared: testing.Isolated) -> None:
        """When nobody reads any more it ends, though nothing happens."""
        LevelCache("users").delete("key")
        process = follow(shared)
        assert "time" in process.stdout.readline()
        assert "del" in process.stdout.readline()
        process.stdout.close()
        assert 1 == process.wait(timeout=60)
        assert "" == process.stderr.read()
        process.stderr.close()

    def test_ended_later(self, shared: testing.Isolated) -> None:
        """A load that was shown running is shown again when it has ended."""
        process = follow(shared, "--json", "--op", "load")
        told = []

        def load(key: str) -> str:
            told.append(json.loads(process.stdout.readline()))
            return key

        LevelCache("users", loader=load).get("key")
        told.append(json.loads(process.stdout.readline()))
        assert ["running", "ok"] == [each["outcome"] for each in told]
        assert told[0]["number"] == told[1]["number"]
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        assert 0 == process.returncode


class TestGarbage:
    def test_in_the_ring(
        self, shared: testing.Isolated, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Bytes that nobody wrote are left out by all that read the ring; others are shown."""
        cache = LevelCache("users")
        for number in range(40):
            cache.delete(number)
        found = [each["number"] for each in shared.memory.events()]
        raw = shared.memory.raw()
        places = [at for at in range(0, len(raw) - 128, 8) if bytes(raw[at : at + 4]) == b"del\0"]
        assert len(found) <= len(places) + 1
        for at in places[::2]:
            raw[at : at + 4] = b"\xff\xfe\x00\x1b"
        raw.release()
        left = [each["number"] for each in shared.memory.events()]
        assert 0 < len(left) < len(found)
        assert set(left) < set(found)
        assert {"del", "attach"} >= {each["op"] for each in shared.memory.events()}
        text = shown(capsys, "--name", shared.name, "--limit", "8192")
        assert f"events {len(left)}" == text.splitlines()[1]
        assert "\x1b" not in text
        assert events.aggregate(shared.memory.events())
        cache.delete("after")
        assert cache._hash("after") == shared.memory.events()[0]["hash"]
