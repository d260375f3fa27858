"""Events about Redis: listener, breaker, failed calls, as whoever looks at the host sees them."""

import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from accelerator import local, runtime
from accelerator.demo.redis_server import RedisServer
from accelerator.observability import events

pytestmark = pytest.mark.skipif(not local.NATIVE, reason="processes share through the native part")

hosts: Any = sys.modules["hosts"]  # beside this file, loaded by conftest.py
until = hosts.until

MakeHost = Callable[..., Any]

QUICK = {"redis_timeout": 0.1, "freshness_bound": 2.0, "reconnect": (0.05, 0.2)}


# --- in the workers -----------------------------------------------------------------------------


def ring() -> list[dict[str, Any]]:
    """The events of the host, the oldest first."""
    return runtime.current().memory.events(8192)[::-1]


def delete(times: int = 1) -> None:
    for number in range(times):
        hosts.cache().delete(f"unknown {number}")


def last_error() -> Any:
    """What a process of whose own calls none has failed says."""
    second = runtime.current().second
    assert second is not None
    return second._guard.last_error(), second.describe()["last_error"]


def stop_listening() -> None:
    """End the thread, as at the end of the process."""
    second = runtime.current().second
    assert second is not None
    second._listener.stop()


# --- here ---------------------------------------------------------------------------------------


def told(host: Any, op: str) -> list[tuple[str, str, int]]:
    """Results, kinds and processes of the events with that op."""
    return [
        (events.outcome(each), each["error_kind"], each["pid"])
        for each in host.call(ring)
        if each["op"] == op
    ]


@pytest.fixture
def host(make_host: MakeHost, server: RedisServer) -> Iterator[Any]:
    """A host of three workers, whose Redis can be stopped."""
    yield make_host(redis=server.url, workers=3, **QUICK)
    server.resume()


class TestListener:
    def test_life(self, host: Any, server: RedisServer) -> None:
        """Who is elected, connected; loses its connection, and has one again."""
        leader = host.leading_worker()
        until(lambda: ("connected", "none", leader.pid) in told(host, "listen"))
        assert ("elected", "none", leader.pid) == told(host, "listen")[0]
        server.command("CLIENT", "KILL", "TYPE", "pubsub")
        lost = lambda: [it for it in told(host, "listen") if it[0] == "lost"]  # noqa: E731
        until(lost)
        [(_, kind, pid)] = lost()
        assert leader.pid == pid
        assert kind not in {"", "none"}
        until(lambda: told(host, "listen")[-1][0] == "connected")

    def test_elected_after_a_death(self, host: Any) -> None:
        """Who takes over from one that is killed."""
        leader = host.leading_worker()
        host.workers.remove(leader)
        leader.kill()
        elected = lambda: [  # noqa: E731
            pid for result, _, pid in told(host, "listen") if result == "elected"
        ]
        until(lambda: len(elected()) > 1)
        assert leader.pid == elected()[0]
        assert elected()[1] in {worker.pid for worker in host.workers}
        until(lambda: ("connected", "none", elected()[1]) in told(host, "listen"))

    def test_resigned(self, host: Any) -> None:
        """One that ends leaves it to another."""
        leader = host.leading_worker()
        leader.call(stop_listening)
        until(lambda: ("resigned", "none", leader.pid) in told(host, "listen"))
        until(lambda: [it for it in told(host, "listen") if it[0] == "elected"][1:])

    def test_unreachable(self, host: Any, server: RedisServer) -> None:
        """Tries to connect that fail are not one event each."""
        host.leading_worker()
        server.kill()
        until(lambda: any(it[0] == "lost" for it in told(host, "listen")))
        end = time.monotonic() + 3
        failed = lambda: [  # noqa: E731
            each["count"]
            for each in host.call(ring)
            if (each["op"], each["result"]) == ("listen", "error")
        ]
        until(lambda: sum(failed()) >= 6)
        assert len(failed()) <= 2 + time.monotonic() - end + 3
        server.start()

    def test_unreadable(self, host: Any, server: RedisServer) -> None:
        """A message that nobody can read, and the gap that it may be."""
        channel = runtime_channel(host)
        hosts.publish(server, channel, b"garbage")
        until(lambda: "gap" in [kind for _, kind, _ in told(host, "listen")])
        kinds = [kind for result, kind, _ in told(host, "listen") if result == "error"]
        assert ["decode", "gap"] == sorted(kinds)


def runtime_channel(host: Any) -> str:
    """The channel of the host's one area."""
    return str(host.call("area.diagnostic_snapshot")["invalidation_channel"])


class TestBreaker:
    def test_once_for_the_host(self, host: Any, server: RedisServer) -> None:
        """It opens and closes for all workers, and that is told once, by who listens."""
        leader = host.leading_worker()
        server.stop()
        for worker in host.workers:
            worker.begin(delete, 6)
        for worker in host.workers:
            worker.end()
        until(lambda: told(host, "breaker"))
        assert [("opened", "backend", leader.pid)] == told(host, "breaker")
        server.resume()
        until(lambda: len(told(host, "breaker")) > 1 or host.call(delete))
        pids = {worker.pid for worker in host.workers}  # another may listen by now
        [_, (result, kind, pid)] = told(host, "breaker")
        assert ("closed", "none") == (result, kind)
        assert pid in pids

    def test_a_new_leader(self, host: Any, server: RedisServer) -> None:
        """Who takes over while it is open does not tell that it has opened once more."""
        leader = host.leading_worker()
        server.stop()
        host.call(delete, 6)
        until(lambda: told(host, "breaker"))
        elected = [it for it in told(host, "listen") if it[0] == "elected"]
        leader.call(stop_listening)
        until(lambda: len([it for it in told(host, "listen") if it[0] == "elected"]) > len(elected))
        server.resume()
        until(lambda: len(told(host, "breaker")) > 1 or host.call(delete))
        assert ["opened", "closed"] == [result for result, _, _ in told(host, "breaker")]


class TestLastError:
    def test_of_the_host(self, host: Any, server: RedisServer) -> None:
        """A process of whose own calls none has failed tells of another's."""
        one, other, _ = host.workers
        assert (None, None) == one.call(last_error)
        server.stop()
        other.call(delete)
        own, shown = one.call(last_error)
        assert own is None
        assert ("area", "write", "timeout") == (shown["area"], shown["operation"], shown["reason"])
        assert 0 <= shown["age"] < 60
        own, shown = other.call(last_error)
        assert own is not None
        assert ("write", "timeout") == (shown["operation"], shown["reason"])

    def test_calls(self, host: Any, server: RedisServer) -> None:
        """A failed call is an event beside that of its operation, and no line of its own."""
        server.stop()
        host.call(delete, 3)
        assert {("error", "timeout")} == {it[:2] for it in told(host, "l2_write")}
        assert {("queued", "backend")} == {it[:2] for it in told(host, "del")}
        counts = [each["count"] for each in host.call(ring) if each["op"] == "del"]
        assert 1 <= sum(counts) <= 3
