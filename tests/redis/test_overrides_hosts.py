"""``accelerator set`` and ``accelerator flush``, on real hosts with a real Redis that goes away."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from accelerator import local, overrides, runtime, segment
from accelerator.demo.redis_server import RedisServer

pytestmark = pytest.mark.skipif(not local.NATIVE, reason="processes share through the native part")

hosts: Any = sys.modules["hosts"]  # beside this file, loaded by conftest.py
until = hosts.until

MakeHost = Callable[..., Any]
AREAS = {"area": {"stale_ttl": 60}}


def command(host: Any, *words: str, status: int = 0) -> str:
    """Run the command, as an operator on that host does; what it prints."""
    line = [sys.executable, "-m", "accelerator", *words, "--name", host.name]
    done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=60)
    assert status == done.returncode, done.stdout + done.stderr
    return done.stdout + done.stderr


def value_of_truth(host: Any) -> None:
    """Wait until the host is in step with the others."""
    until(lambda: host.call(hosts.freshness, "area") < 1.0)


# --- in the workers -----------------------------------------------------------------------------


def effective(name: str) -> Any:
    """An option of the area as this worker follows it."""
    cache = hosts.cache()
    cache._begin()
    return getattr(cache._config, name)


def mode() -> str:
    """The mode that this worker follows."""
    hosts.cache()._begin()
    return str(hosts.cache()._mode)


def breaker_forced() -> Any:
    """How the breaker is forced."""
    return runtime.current().memory.link()["breaker_forced"]


def seen() -> list[Any]:
    """What is in force."""
    return overrides.shown(runtime.current().memory.overrides())


@pytest.fixture
def pair(server: RedisServer, make_host: MakeHost) -> tuple[Any, Any]:
    """Two hosts in step, with two workers each."""
    one = make_host(redis=server.url, areas=AREAS, workers=2, redis_timeout=0.3)
    other = make_host(redis=server.url, areas=AREAS, workers=2, redis_timeout=0.3)
    return one.wait_in_step(), other.wait_in_step()


class TestLocal:
    def test_outage(self, server: RedisServer, pair: Any) -> None:
        """While Redis is away a host goes on by itself; afterwards nobody reads what is old."""
        one, other = pair
        for key in ("deleted here", "deleted there", "set here"):
            one.call("set", key, "old")
            assert "old" == other.call("get", key)
        server.stop()
        said = command(one, "set", "mode=local", "--area", "area", "--yes")
        assert "in force: 2 processes act on it" in said
        assert ["local", "local"] == [each.call(mode) for each in one.workers]

        assert one.call("delete", "deleted here")
        one.call("set", "set here", "new")
        one.call("set", "only here", 1)
        assert ["new", 1] == [one.workers[1].call("get", key) for key in ("set here", "only here")]
        assert "old" == one.workers[1].call("get", "deleted there")  # it cannot know
        other.call("delete", "deleted there")
        assert 3 <= one.link()["outbox_depth"]

        server.resume()
        until(lambda: one.link()["outbox_depth"] == 0)
        until(lambda: other.link()["outbox_depth"] == 0)
        until(lambda: all(other.call("get", k) is None for k in ("deleted here", "set here")))
        command(one, "set", "mode=default", "--area", "area", "--yes")
        for host in pair:
            for worker in host.workers:
                for key in ("deleted here", "deleted there"):
                    assert worker.call("get", key) is None
                assert "old" != worker.call("get", "set here")
        assert one.call("get", "only here") is None  # what was stored meanwhile is not believed
        assert ["both", "both"] == [each.call(mode) for each in one.workers]

    def test_back_before_redis(self, server: RedisServer, pair: Any) -> None:
        """Left before Redis is back: what is queued is told then, and not read before."""
        one, other = pair
        one.call("set", "key", "old")
        assert "old" == other.call("get", "key")
        server.stop()
        command(one, "set", "mode=local", "--yes")
        one.call("delete", "key")
        command(one, "set", "mode=default", "--yes")
        assert one.workers[1].call("get", "key") is None
        server.resume()
        until(lambda: one.link()["outbox_depth"] == 0)
        value_of_truth(one)
        assert one.call("get", "key") is None
        until(lambda: other.call("get", "key") is None)

    @pytest.mark.parametrize("mode", ["local", "off"])
    def test_redis_is_there(self, pair: Any, mode: str) -> None:
        """Changes are told at once by who listens, and those of others are heard."""
        one, other = pair
        for key in ("a", "b"):
            one.call("set", key, "old")
            assert "old" == other.call("get", key)
        command(one, "set", f"mode={mode}", "--area", "area", "--yes")
        one.call("delete", "a")
        until(lambda: other.call("get", "a") is None)
        other.call("set", "b", "new")
        if mode == "local":
            until(lambda: one.call("get", "b") is None)  # Redis, which has it, is not asked
            one.call("set", "c", "kept")
            until(lambda: one.link()["outbox_depth"] == 0)
            # Its own message, heard, is no reason to drop it.
            assert "kept" == one.workers[1].call("get", "c")
        command(one, "set", "--reset", "--yes")
        assert "new" == one.call("get", "b")

    def test_killed(self, pair: Any) -> None:
        """A worker that is killed behind its delete leaves it to who listens."""
        one, other = pair
        one.call("set", "key", "old")
        assert "old" == other.call("get", "key")
        leading = one.leading_worker()
        victim = next(worker for worker in one.workers if worker is not leading)
        command(one, "set", "mode=local", "--area", "area", "--yes")
        leading.signal(signal.SIGSTOP)
        victim.call("delete", "key")
        victim.kill()
        one.workers.remove(victim)
        leading.signal(signal.SIGCONT)
        until(lambda: other.call("get", "key") is None)

    def test_new_worker(self, pair: Any) -> None:
        """One that starts under it follows it."""
        one, _ = pair
        command(one, "set", "mode=off", "ttl=7s", "--area", "area", "--yes")
        worker = one.add_worker()
        assert ("off", 7.0) == (worker.call(mode), worker.call(effective, "local_ttl"))


class TestOthers:
    def test_each(self, pair: Any) -> None:
        """Every worker follows, and goes back to what the application says."""
        one, other = pair
        wanted = {
            "loader_timeout": ("250ms", 0.25, 5.0),
            "max_loads": ("3", 3, 8),
            "ttl": ("20s", 20.0, None),
            "allow_stale": ("yes", True, False),
            "penetration_protect": ("no", False, True),
            "on_desync": ("serve", "serve", "cap"),
        }
        given = [f"{name}={text}" for name, (text, *_) in wanted.items()]
        command(one, "set", "--area", "area", "--yes", *given)
        for worker in one.workers:
            for name, (_, value, _) in wanted.items():
                found = worker.call(effective, "local_ttl" if name == "ttl" else name)
                assert value == found, name
        shown = command(one, "set")
        assert all(re.search(rf"area +{name} ", shown) for name in wanted)
        assert 8 == other.call(effective, "max_loads")
        command(one, "set", "--area", "area", "--reset", "--yes")
        for worker in one.workers:
            for name, (_, _, value) in wanted.items():
                if name != "ttl":
                    assert value == worker.call(effective, name), name
            assert 60.0 == worker.call(effective, "local_ttl")
        assert "overrides 0" in command(one, "set")

    def test_breaker(self, server: RedisServer, pair: Any) -> None:
        """Open: Redis is left alone by all workers; closed: it is asked although it fails."""
        one, _ = pair
        one.call("set", "key", 1)
        command(one, "set", "breaker=open", "--yes")
        assert ["open", "open"] == [each.call(breaker_forced) for each in one.workers]
        before = one.count("l2_skipped")
        assert one.call("get", "unknown") is None
        assert before < one.count("l2_skipped")
        command(one, "set", "breaker=closed", "--yes")
        server.stop()
        for _ in range(8):  # five in a row would open it
            one.call("delete", "key")
        assert "closed" == one.call(breaker_forced)
        command(one, "set", "breaker=default", "--yes")
        assert one.call(breaker_forced) is None

    def test_ends(self, pair: Any) -> None:
        """Its time over, it ends by itself, and what was stored meanwhile is not believed."""
        one, _ = pair
        command(one, "set", "mode=local", "--for", "1s", "--area", "area", "--yes")
        one.call("set", "key", "kept here")
        gaps = one.count("gap")
        until(lambda: one.call(seen) == [])
        until(lambda: one.call(mode) == "both")
        assert one.workers[1].call("get", "key") is None
        assert gaps < one.count("gap")

    def test_ends_while_nobody_lives(self, server: RedisServer, make_host: MakeHost) -> None:
        """It is over for whoever comes next."""
        one = make_host(redis=server.url, areas=AREAS).wait_in_step()
        command(one, "set", "mode=off", "--for", "1s", "--yes")
        began = time.monotonic()
        one.workers.pop().kill()
        until(lambda: time.monotonic() > began + 1.5)
        worker = one.add_worker()
        until(lambda: worker.call(mode) == "both")
        assert "overrides 0" in command(one, "set")

    def test_stopped_worker(self, pair: Any) -> None:
        """One that does not run has not noticed, which is said."""
        one, _ = pair
        one.workers[1].signal(signal.SIGSTOP)
        said = command(one, "set", "max_loads=2", "--yes", "--timeout", "0.5", status=1)
        assert "1 of 2 processes have not noticed" in said
        one.workers[1].signal(signal.SIGCONT)
        assert "2 processes act" in command(one, "set", "max_loads=2", "--yes")

    def test_two_commands(self, pair: Any) -> None:
        """Of two at the same time one counts, and both say what is true in the end."""
        one, _ = pair
        lines = [
            [sys.executable, "-m", "accelerator", "set", f"max_loads={n}", "--yes"] for n in (2, 3)
        ]
        running = [
            subprocess.Popen([*line, "--name", one.name], stdout=subprocess.PIPE, text=True)
            for line in lines
        ]
        said = [each.communicate(timeout=60)[0] for each in running]
        [left] = one.call(seen)
        assert left["value"] in {2, 3}
        assert "in force" in said[left["value"] - 2]
        assert left["value"] == one.workers[1].call(effective, "max_loads")


class TestFlush:
    @pytest.fixture
    def full(self, pair: Any) -> tuple[Any, Any]:
        """Both hosts have a value of which Redis has a copy."""
        one, other = pair
        one.call("set", "key", "wrong")
        assert "wrong" == other.call("get", "key")
        return one, other

    def test_everywhere(self, full: Any) -> None:
        """It is gone on all hosts and in Redis when the command says so."""
        one, other = full
        assert "Redis and all hosts: done" in command(one, "flush", "--area", "area", "--yes")
        assert one.call("get", "key") is None
        until(lambda: other.call("get", "key") is None)
        one.call("set", "key", "right")
        assert "right" == other.call("get", "key")
        assert not one.workers[1].call(owed)

    def test_beside_writers(self, full: Any) -> None:
        """An area of which each change has to wait is cleared while somebody goes on changing."""
        one, other = full
        command(one, "set", "mode=local", "--area", "area", "--yes")
        ended = threading.Event()

        def change() -> None:
            while not ended.is_set():
                one.workers[1].call("delete", "another key")

        writer = threading.Thread(target=change)
        writer.start()
        try:
            assert "Redis and all hosts: done" in command(one, "flush", "--area", "area", "--yes")
            until(lambda: other.call("get", "key") is None)
        finally:
            ended.set()
            writer.join()

    def test_host_only(self, full: Any) -> None:
        """The other host keeps its own, and this one takes what Redis has."""
        one, other = full
        said = command(one, "flush", "--area", "area", "--host-only", "--yes")
        assert "keep theirs" in said
        assert "wrong" == other.call("get", "key")
        hits = one.count("remote_hit")
        assert "wrong" == one.call("get", "key")
        assert hits + 1 == one.count("remote_hit")

    def test_redis_away(self, server: RedisServer, full: Any) -> None:
        """Done here, and queued for the rest, which is said; done when Redis is back."""
        one, other = full
        server.stop()
        said = command(one, "flush", "--area", "area", "--yes", "--timeout", "0.5", status=1)
        assert "this host: done" in said
        assert "queued.  Redis last answered" in said
        assert one.call("get", "key") is None
        server.resume()
        until(lambda: not one.call(owed))
        value_of_truth(one)
        assert one.call("get", "key") is None
        until(lambda: other.call("get", "key") is None)

    def test_nobody_listens(self, full: Any) -> None:
        """Without any process it waits for one."""
        one, other = full
        for worker in one.workers:
            worker.kill()
        one.workers.clear()
        said = command(one, "flush", "--area", "area", "--yes", "--timeout", "0.2", status=1)
        assert "queued" in said
        one.add_worker()
        until(lambda: other.call("get", "key") is None)
        assert one.call("get", "key") is None

    @pytest.mark.parametrize("step", ["outbox_owe", "clear_area", "event"])
    @pytest.mark.parametrize("when", ["before", "behind"])
    def test_killed(self, full: Any, step: str, when: str) -> None:
        """The command is killed at each of its steps: nothing has happened, or all of it does."""
        one, other = full
        pid = os.fork()
        if pid == 0:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            flush_and_die(one.name, step, when)
        _, status = os.waitpid(pid, 0)
        assert signal.SIGKILL == os.WTERMSIG(status)
        if (step, when) == ("outbox_owe", "before"):
            assert ["wrong", "wrong"] == [each.call("get", "key") for each in full]
            return
        until(lambda: not one.call(owed))
        until(lambda: one.call("get", "key") is None)
        until(lambda: other.call("get", "key") is None)


def owed() -> list[str]:
    """Areas that owe a clear."""
    return runtime.current().memory.outbox_owed()


def flush_and_die(name: str, step: str, when: str) -> None:
    """Run the command in this process, and kill it around one of its stores."""
    from accelerator import cli

    mapped = segment.writable

    class Dying:
        def __init__(self, memory: Any) -> None:
            self._memory = memory

        def __getattr__(self, method: str) -> Any:
            real = getattr(self._memory, method)
            return real if method != step else lambda *given: self._die(real, given)

        def _die(self, real: Any, given: Any) -> None:
            if when == "behind":
                real(*given)
            os.kill(os.getpid(), signal.SIGKILL)

    class Borrowed:
        def __init__(self, file: Any) -> None:
            self._real = mapped(file)

        def __enter__(self) -> Any:
            return Dying(self._real.__enter__())

        def __exit__(self, *error: object) -> None:
            self._real.__exit__(None, None, None)

    segment.writable = Borrowed
    try:
        cli.main(["flush", "--area", "area", "--yes", "--name", name])
    finally:
        os._exit(1)
