"""One breaker for all workers of a host: how much of a Redis that does not answer they notice."""

import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from accelerator import local
from accelerator.demo.fault_proxy import FaultProxy
from accelerator.demo.redis_server import RedisServer

pytestmark = pytest.mark.skipif(not local.NATIVE, reason="processes share through the native part")

hosts: Any = sys.modules["hosts"]  # beside this file, loaded by conftest.py
until = hosts.until
cache = hosts.cache

MakeHost = Callable[..., Any]

WORKERS = 4
FAILURES = 5
"""Failures in a row that open it."""
PATIENT = {"redis_timeout": 0.1, "freshness_bound": 60.0}
"""The usual time limit; and that Redis was not heard lately is no reason of its own."""


# --- in the workers -----------------------------------------------------------------------------


def ask(times: int) -> list[float]:
    """
    Delete what nobody knows; the seconds that each call took.

    Not read: when the listener has lost Redis, reads do not ask it whatever the breaker says.
    """
    took = []
    for number in range(times):
        began = time.monotonic()
        assert not cache().delete(f"unknown {number}")
        took.append(time.monotonic() - began)
    return took


def ask_starved(times: int, interval: float = 0.25) -> list[float]:
    """
    Do so while another thread gives the GIL away only every quarter of a second.

    Who waits for it may wait for less, when a third thread has waited before.
    """
    usual = sys.getswitchinterval()
    sys.setswitchinterval(interval)
    done = False

    def hog() -> None:
        while not done:
            pass

    thread = threading.Thread(target=hog)
    thread.start()
    try:
        return ask(times)
    finally:
        done = True
        thread.join()
        sys.setswitchinterval(usual)


# --- here ---------------------------------------------------------------------------------------


def all_ask(host: Any, times: int = 1) -> list[float]:
    """Have all workers ask at the same time; the seconds that each call took."""
    for worker in host.workers:
        worker.begin(ask, times)
    return [seconds for worker in host.workers for seconds in worker.end()]


@pytest.fixture
def host(make_host: MakeHost, server: RedisServer) -> Iterator[Any]:
    """A host whose Redis can be stopped."""
    yield make_host(redis=server.url, workers=WORKERS, **PATIENT)
    server.resume()


@pytest.fixture
def open_host(host: Any, server: RedisServer) -> Any:
    """The same, with the breaker open."""
    server.stop()
    until(lambda: all_ask(host) and host.link()["breaker"] == "open")
    return host


class TestOpening:
    def test_silent(self, host: Any, server: RedisServer) -> None:
        """
        Of a stopped Redis a host notices five calls, and those that are under way when the fifth
        has failed; each takes its time limit, and the rest nothing.
        """
        server.stop()
        took = all_ask(host, 6)
        failed = host.failed_calls()
        # Who did not get to run for 50 ms is not counted against Redis.
        starved = sum(seconds > 0.15 for seconds in took)
        assert FAILURES <= failed <= FAILURES + WORKERS - 1 + starved
        assert WORKERS * 6 - failed == host.count("l2_skipped")
        assert "open" == host.link()["breaker"]
        took.sort()
        # A slow machine slows all of them, but never the fastest to its time limit.
        assert 0.1 <= took[-failed]
        assert took[len(took) // 2] < 0.05

    def test_costs_nothing(self, open_host: Any) -> None:
        """Once it is open, a call takes less than a millisecond, in any worker."""
        medians = [statistics.median(worker.call(ask, 50)) for worker in open_host.workers]
        assert min(medians) < 0.001
        assert statistics.median(medians) < 0.001

    def test_no_command_before_the_probe(self, open_host: Any) -> None:
        """While it is open, no worker asks Redis anything."""
        host, before = open_host, open_host.failed_calls()
        left = host.link()["open_for"]
        rounds = 0
        while True:
            all_ask(host, 5)
            asked, link = host.failed_calls(), host.link()
            if not 0 < link["open_for"] <= left:
                break  # half-open, or open again after a probe
            left = link["open_for"]
            assert before == asked
            rounds += 1
        assert rounds > 0

    def test_one_probe(self, open_host: Any) -> None:
        """When its time is over, one worker asks, and while that takes, the others do not."""
        host = open_host
        for pause in (1.0, 2.0):
            until(lambda: host.link()["breaker"] == "half-open")
            before, skipped = host.failed_calls(), host.count("l2_skipped")
            all_ask(host)
            assert 1 == host.failed_calls() - before
            assert WORKERS - 1 == host.count("l2_skipped") - skipped
            if pause == 1.0:
                link = host.link()
                assert "open" == link["breaker"]
                assert link["open_for"] <= pause * 1.2

    def test_recovery(self, open_host: Any, server: RedisServer) -> None:
        """When Redis answers again, all workers use it, without another failure."""
        host = open_host
        server.resume()
        until(lambda: host.link()["breaker"] == "closed" and host.link()["settled"])
        before = host.failed_calls()
        host.call("set", "key", "value")
        for worker in host.workers:
            assert "value" == worker.call("get", "key")
        skipped = host.count("l2_skipped")
        assert all(seconds < 5 for seconds in all_ask(host, 5))
        assert before == host.failed_calls()
        assert skipped == host.count("l2_skipped")


class TestStarved:
    """A worker that does not get to run says nothing about Redis."""

    def test_slow_for_who_is_starved(
        self, make_host: MakeHost, server: RedisServer, proxy: FaultProxy
    ) -> None:
        """
        Timeouts that a worker notices late, as another of its threads holds the GIL, do not open
        the breaker; the same timeouts noticed in time do.
        """
        host = make_host(redis=proxy.url, workers=2, **PATIENT)
        other = host.leading_worker()  # whose listener would make the hog pause
        [starved] = [worker for worker in host.workers if worker is not other]
        proxy.mode("delay", seconds=0.3)
        starved.call(ask_starved, FAILURES)
        assert FAILURES == host.failed_calls()
        assert "closed" == other.call(hosts.link)["breaker"]
        other.call(ask, FAILURES)
        assert "open" == other.call(hosts.link)["breaker"]

    def test_never_opens(self, make_host: MakeHost, server: RedisServer) -> None:
        """A worker without rest beside a Redis that is well costs nobody an answer."""
        host = make_host(redis=server.url, workers=3, **PATIENT)
        leading = host.leading_worker()
        [other, _] = [worker for worker in host.workers if worker is not leading]
        leading.begin(ask_starved, 3, 0.1)
        while not leading.has_answered():
            other.call("set", "key", "value")
            other.call(ask, 5)
            assert "closed" == other.call(hosts.link)["breaker"]
        leading.end()
        assert 0 == other.call("metrics_snapshot")["l2_skipped"]
