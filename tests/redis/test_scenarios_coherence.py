"""
What users of other caches rely on when hosts share values through Redis, and Redis misbehaves.

The numbers are those of the list that these behaviours were collected in; those up to 26 that need
no Redis stand beside the tests of loads.
"""

import contextlib
import multiprocessing.sharedctypes
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

from accelerator import LoaderError, local, runtime
from accelerator.demo.fault_proxy import FaultProxy
from accelerator.demo.redis_server import RedisServer
from accelerator.second import SecondLevel

pytestmark = pytest.mark.skipif(not local.NATIVE, reason="processes share through the native part")

hosts: Any = sys.modules["hosts"]  # beside this file, loaded by conftest.py
until = hosts.until
cache = hosts.cache
failed_calls = hosts.failed_calls

MakeHost = Callable[..., Any]
Load = Callable[[str], Any]

BRIEF: dict[str, Any] = {"redis_timeout": 0.1}
"""The time limit that there is by default, for what is about Redis being away."""
SOON = 0.2
"""Seconds in which other hosts follow; of a few tries the fastest counts: the machine is busy."""
GONE = "gone"
"""What a get answers when the key is not known."""

CHANGES: dict[str, Any] = {
    "set": ("set", ("key", 2), 2),
    "delete": ("delete", ("key",), GONE),
    "mdelete": ("mdelete", (["other", "key"],), GONE),
    "incr": ("incr", ("key", 4), 5),
    "expire": ("expire", ("key",), GONE),
    "clear": ("clear", (), GONE),
}
"""Method, arguments, and what a get answers afterwards."""


def number() -> Any:
    """An int that forked processes share; it is read and written in one piece."""
    return multiprocessing.sharedctypes.RawValue("q", 0)


# --- in the workers -----------------------------------------------------------------------------


def entry(key: Any, area: str = "area", **options: Any) -> tuple[Any, str] | None:
    """Value and tier of what a read finds."""
    found = cache(area).get_entry(key, **options)
    return None if found is None else (found.value, found.tier)


def left(key: Any) -> float | None:
    """Seconds that a value is still fresh."""
    found = cache().get_entry(key)
    assert found is not None
    return found.ttl


def failure(method: str, *arguments: Any, **keywords: Any) -> tuple[str, Any] | None:
    """What a call raises: its type, and whether it says that it is queued; None: nothing."""
    try:
        getattr(cache(), method)(*arguments, **keywords)
    except Exception as error:
        return type(error).__name__, getattr(error, "queued", None)
    return None


def seconds_until(key: Any, wanted: Any, deadline: float) -> float:
    """Read until there is what is wanted; the moment at which there was."""
    while cache().get(key, GONE) != wanted:
        assert time.monotonic() < deadline, "it never came"
    return time.monotonic()


def last_seen(key: Any, old: Any, deadline: float) -> tuple[float, float]:
    """
    Read until there is something other than *old*, and not nothing.

    Returns:
        When the last read began that answered *old*, and when the new value came.
    """
    last = 0.0
    while True:
        began = time.monotonic()
        assert began < deadline, "nothing else ever came"
        found = cache().get(key, GONE)
        if found == old:
            last = began
        elif found != GONE:
            return last, time.monotonic()


def timed(method: str, *arguments: Any, **keywords: Any) -> tuple[Any, float]:
    """What a call answers, and how long it takes."""
    began = time.monotonic()
    answer = getattr(cache(), method)(*arguments, **keywords)
    return answer, time.monotonic() - began


def hold_reads(reached: Any, gate: Any) -> None:
    """From now on, what Redis answers to a read is handed on when the gate is open."""
    ask = SecondLevel.ask

    def held(self: SecondLevel, area: Any, name: str, wanted: Any) -> Any:
        answer = ask(self, area, name, wanted)
        if wanted.method == "get":
            reached.open()
            gate.wait()
        return answer

    SecondLevel.ask = held  # type: ignore[method-assign]


_held: list[Any] = []


def hold_reads_here() -> None:
    """Do so at the gates that were made before this worker was forked."""
    hold_reads(*_held)


def read_along(key: str, done: Any, committed: Any) -> int:
    """Read until *done*; how often there was less than had been committed before the read."""
    stale = 0
    while not done.is_open():
        low = committed.value
        stale += cache().get(key, low) < low
    return stale


class TestCoherence:
    """A change is seen: on this host at once, on others soon, whatever is lost on the way."""

    @pytest.mark.parametrize("how", ["set", "delete", "both in turn"])
    def test_read_your_writes_across_workers(self, make_host: MakeHost, how: str) -> None:
        """
        27: when set() or delete() has returned in one worker, a get in the others is never the old
        value: 1,000 tries by turns in all workers, 0 stale.
        """
        truth = number()
        host = make_host({"area": {"loader": lambda _key: truth.value}}, workers=4)
        stale = []
        for value in range(1, 1001):
            writer, *readers = host.workers[value % 4 :] + host.workers[: value % 4]
            truth.value = value
            if how == "set" or (how != "delete" and value % 2):
                writer.call("set", "key", value)
            else:
                writer.call("delete", "key")
            for reader in readers[: 1 + value % 3]:
                reader.begin("get", "key")
            stale += [value for reader in readers[: 1 + value % 3] if reader.end() != value]
        assert [] == stale

    @pytest.mark.parametrize("how", ["set", "delete"])
    def test_read_your_writes_while_all_read(
        self, make_host: MakeHost, gates: Any, how: str
    ) -> None:
        """27: the same while the others load, fetch and store all the time."""
        truth, committed, done = number(), number(), gates()
        _shared[:] = [done, committed]
        host = make_host({"area": {"loader": lambda _key: truth.value}}, workers=3)
        for reader in host.workers[1:]:
            reader.begin(read_along_here)
        for value in range(1, 1001):
            truth.value = value
            host.call(how, "key", *([value] if how == "set" else []))
            committed.value = value
        done.open()
        assert [0, 0] == [reader.end() for reader in host.workers[1:]]

    @pytest.mark.parametrize("change", CHANGES)
    def test_other_hosts_follow(self, make_host: MakeHost, change: str) -> None:
        """
        28: what host A changes is seen on B within 200 ms; B publishes nothing in return, and A
        hears itself once and keeps its own fresh value.
        """
        method, arguments, wanted = CHANGES[change]
        a, b = make_host(), make_host()
        took = []
        for attempt in range(1, 4):
            a.call("mset", {"key": 1, "other": 1})
            until(lambda attempt=attempt: b.count("invalidation_receive") >= 2 * attempt - 1)
            assert 1 == b.call("get", "key")
            assert (1, "local") == b.call(entry, "key")
            a.call(method, *arguments)
            done = time.monotonic()
            took.append(b.call(seconds_until, "key", wanted, time.monotonic() + 20) - done)
            until(lambda attempt=attempt: a.count("invalidation_receive") >= 2 * attempt)
            until(lambda attempt=attempt: b.count("invalidation_receive") >= 2 * attempt)
        assert min(took) < SOON
        assert 6 == a.count("invalidation_publish")
        assert 0 == b.count("invalidation_publish")
        assert 6 == a.count("invalidation_receive") == b.count("invalidation_receive")
        if change == "set":
            assert (2, "local") == a.call(entry, "key")
            assert 3 * 3 == a.count("own_skipped")  # keys

    def test_touch_is_followed(self, make_host: MakeHost) -> None:
        """28: a touch on A gives the copy on B its new life, too."""
        a, b = make_host(), make_host()
        a.call("set", "key", 1, ttl=5)
        assert 5 >= b.call(left, "key") > 0
        assert a.call("touch", "key", 50)
        until(lambda: b.call(left, "key") > 5)

    def test_refresh(self, make_host: MakeHost) -> None:
        """28: what a refresh on A has loaded is seen on B, though B held the value before."""
        truth = number()
        truth.value = 1
        areas = {"area": {"loader": lambda _key: int(truth.value)}}
        a, b = make_host(areas), make_host(areas)
        assert 1 == b.call("get", "key")
        assert (1, "local") == b.call(entry, "key")
        truth.value = 2
        assert 2 == a.call("refresh", "key")
        b.call(seconds_until, "key", 2, time.monotonic() + 20)
        assert 1 == a.count("invalidation_publish")

    def test_lost_connection(
        self, make_host: MakeHost, server: RedisServer, proxy: FaultProxy
    ) -> None:
        """
        29: A is cut off, and nobody is told, while B writes: A serves what it held no longer than
        the bound, and the new value when it is back.
        """
        bound = 0.6
        b = make_host(redis=server.url, freshness_bound=bound)
        a = make_host(redis=proxy.url, freshness_bound=bound, **BRIEF)
        b.call("mset", {"key": "old", "other": "old"})
        a.call(seconds_until, "key", "old", time.monotonic() + 20)
        a.call(seconds_until, "other", "old", time.monotonic() + 20)
        proxy.mode("half_open")
        b.call("set", "key", "new")
        written = time.monotonic()
        a.workers[0].begin(last_seen, "key", "old", time.monotonic() + 30)
        until(lambda: time.monotonic() > written + 2 * bound)
        proxy.mode("pass")
        last, came = a.workers[0].end()
        assert last <= written + bound
        assert came >= written + 2 * bound  # else it was not cut off
        assert "new" == a.call("get", "key")
        assert a.count("gap") + a.count("replayed") + a.count("flush") > 0

    @pytest.mark.parametrize("how", ["SIGKILL", "SIGSTOP"])
    def test_elected_listener_dies(
        self, make_host: MakeHost, server: RedisServer, how: str
    ) -> None:
        """
        30: the worker that listens is killed, or stopped: another takes over within 750 ms, what
        was published in between is not lost, and there is one subscriber per host again.
        """
        a, b = make_host(redis=server.url, workers=3), make_host(redis=server.url)
        b.call("set", "key", "old")
        leading = a.leading_worker()
        [one, other] = [worker for worker in a.workers if worker is not leading]
        assert "old" == one.call("get", "key")
        term = one.call(hosts.leader)["term"]
        died = time.monotonic()
        leading.signal(getattr(signal, how))
        b.call("set", "key", "new")
        written = time.monotonic()
        other.begin(last_seen, "key", "old", time.monotonic() + 30)
        until(lambda: one.call(hosts.leader)["term"] > term and one.call(hosts.leader)["pid"])
        took = time.monotonic() - died
        last, _ = other.end()
        assert took < 0.75 + 0.25  # what the machine adds
        assert last <= written + 2.0
        assert one.call(hosts.leader)["pid"] in {one.pid, other.pid}
        leading.signal(signal.SIGCONT)
        channel = a.names().channel
        until(lambda: server.command("PUBSUB", "NUMSUB", channel).endswith(b":2\r\n"))
        until(lambda: one.call("get", "key") == "new")

    @pytest.mark.parametrize("loads", [False, True], ids=["plain", "with a loader"])
    @pytest.mark.parametrize("where", ["same host", "other host"])
    def test_fill_race(self, make_host: MakeHost, gates: Any, where: str, loads: bool) -> None:
        """
        31: a reader has fetched the old value from Redis and is held back, the invalidation comes,
        and the reader stores afterwards: the old value does not stay in L1.
        """
        _held[:] = [gates(), gates()]
        reached, gate = _held
        options = {"loader": lambda _key: "loaded"} if loads else {}
        b = make_host({"area": options})
        a = make_host({"area": options}, workers=2)
        reader, writer = a.workers
        b.call("set", "key", "old")
        until(lambda: a.count("invalidation_receive") == 1)
        reader.call(hold_reads_here)
        reader.begin("get", "key")
        reached.wait()
        if where == "same host":
            writer.call("delete", "key")
        else:
            b.call("delete", "key")
            until(lambda: writer.call("metrics_snapshot")["invalidation_receive"] == 2)
        gate.open()
        assert "old" == reader.end()  # it began before
        assert ("loaded" if loads else GONE) == writer.call("get", "key", GONE)
        assert ("loaded" if loads else GONE) == reader.call("get", "key", GONE)

    def test_late_joiner(self, make_host: MakeHost, server: RedisServer) -> None:
        """
        32: who starts later replays no old invalidations, and misses none that come after it has
        joined, though the log has wrapped.
        """
        b = make_host(redis=server.url)
        for value in range(50):
            b.call("set", "key", value)
        server.command("XTRIM", b.names().log, "MAXLEN", "5")
        a = make_host(redis=server.url)
        assert 49 == a.call("get", "key")
        counters = a.counters()
        assert 0 == counters["invalidation_receive"] == counters["replayed"] == counters["gap"]
        late = a.add_worker()
        assert (49, "local") == late.call(entry, "key")
        b.call("set", "key", "new")
        late.call(seconds_until, "key", "new", time.monotonic() + 20)
        assert 1 == a.count("invalidation_receive")
        assert 0 == a.count("replayed")

    def test_log_has_wrapped(
        self, make_host: MakeHost, server: RedisServer, proxy: FaultProxy
    ) -> None:
        """32: who was away while the log has wrapped drops all that it had from before."""
        b = make_host(redis=server.url)
        a = make_host(redis=proxy.url, **BRIEF)
        b.call("mset", {"key": "old", "other": "old"})
        a.call(seconds_until, "key", "old", time.monotonic() + 20)
        a.call(seconds_until, "other", "old", time.monotonic() + 20)
        until(lambda: a.count("invalidation_receive") == 1)
        proxy.mode("refuse")
        proxy.drop()
        b.call("set", "key", "new")
        b.call("set", "unrelated", 1)
        server.command("XTRIM", b.names().log, "MAXLEN", "1")
        proxy.mode("pass")
        until(lambda: a.count("flush") >= 1)
        until(lambda: a.call("get", "key") == "new")

    def test_garbage_on_the_channel(self, make_host: MakeHost, server: RedisServer) -> None:
        """
        33: random bytes, a message of another version and one of 10 MB are counted and handled as a
        gap; the next good message works, and the listener is the same.
        """
        a, b = make_host(redis=server.url), make_host(redis=server.url)
        a.call("set", "key", "old")
        assert "old" == b.call("get", "key")
        channel, term = b.names().channel, b.leader()["term"]
        for garbage in (os.urandom(200).hex(), "9 " + "0" * 32 + " 1 x", ""):
            server.command("PUBLISH", channel, garbage)
        until(lambda: b.count("receive_error_decode") >= 3)
        hosts.publish(server, channel, b"x" * 10_000_000)
        a.call("set", "key", "new")
        b.call(seconds_until, "key", "new", time.monotonic() + 20)
        until(lambda: b.call(hosts.freshness, "area") < 1.0)
        assert b.count("gap") >= 1
        assert term == b.leader()["term"]

    def test_isolation(self, make_host: MakeHost, server: RedisServer) -> None:
        """
        34: two applications on one Redis and one machine, and two areas of one: the same key is
        another one, and clear() and invalidations of one do not touch the others.
        """
        areas: dict[str, Any] = {"area": {}, "b": {}}
        one = make_host(areas, redis=server.url)
        two = make_host(areas, redis=server.url, namespace="another")
        one.call("area.set", "key", "one")
        one.call("b.set", "key", "one b")
        two.call("area.set", "key", "two")
        one.call("area.clear")
        assert GONE == one.call("area.get", "key", GONE)
        assert "one b" == one.call("b.get", "key")
        assert ("two", "local") == two.call(entry, "key")
        two.call("area.delete", "key")
        until(lambda: two.count("invalidation_receive") == 2)
        assert 2 == one.count("invalidation_receive")
        assert 1 == one.count("invalidation_receive", "b")


_shared: list[Any] = []


def read_along_here(key: str = "key") -> int:
    """Do as read_along() with what was made before this worker was forked."""
    return read_along(key, *_shared)


class TestRedisIsAway:
    """Redis is dead, slow or wrong: no request fails because of the cache."""

    @pytest.mark.parametrize("how", ["killed", "refused"])
    def test_dies_in_the_middle(
        self, make_host: MakeHost, server: RedisServer, calls: Any, gates: Any, how: str
    ) -> None:
        """
        35: Redis is gone between the miss and the store: the caller gets the value, L1 has it for
        all workers, the next get is a hit there; set and delete do not raise, unless told to.
        """
        gate = gates()

        def load(key: str) -> str:
            calls.add(key)
            gate.wait()
            return "value"

        host = make_host(
            {"area": {"loader": load}}, redis=server.url, workers=2, freshness_bound=20, **BRIEF
        )
        first, second = host.workers
        first.begin("get", "key")
        calls.wait_for(1)
        if how == "killed":
            server.kill()
        else:
            server.command("REPLICAOF", "127.0.0.1", "1")  # READONLY: it answers, and takes nothing
        gate.open()
        assert "value" == first.end()
        assert ("value", "local") == second.call(entry, "key")
        assert ("value", "local") == first.call(entry, "key")
        assert ["key"] == calls.whats()
        second.call("set", "key", "set")
        assert ("set", "local") == first.call(entry, "key")
        assert first.call("delete", "key")
        assert None is second.call("peek", "key")
        assert ("BackendError", True) == first.call(failure, "delete", "key", on_error="raise")
        counters = host.counters()
        assert 3 == counters["invalidation_publish_failures"] == counters["invalidation_queued"]

    def test_hangs(self, make_host: MakeHost, server: RedisServer) -> None:
        """
        36: Redis is stopped: a read with a stale value has it at the soft timeout, one without has
        loaded after the time limits of Redis, and a read of L1 notices nothing.
        """
        areas = {
            "area": {
                "loader": lambda _key: "loaded",
                "allow_stale": True,
                "soft_timeout": 0.05,
                "background": contextlib.nullcontext,
            }
        }
        host = make_host(areas, redis=server.url, workers=2, freshness_bound=20, redis_timeout=3.0)
        host.call("set", "stale", "old")
        # Heard after the expiry, the set would be one whose copy is not what was stored: a delete.
        until(lambda: host.count("own_skipped") == 1)
        host.call("expire", "stale")
        host.call("set", "hot", "hot")
        server.stop()
        assert ("hot", "local") == host.call(entry, "hot")
        answer, took = host.call(timed, "get", "stale")
        assert "old" == answer
        assert took < 2.0  # and not the limit of Redis
        assert min(host.call(timed, "get", "hot")[1] for _ in range(20)) < 0.001

    def test_hangs_with_nothing_stale(self, make_host: MakeHost, server: RedisServer) -> None:
        """36: without a stale value the loader has run after 0.1 s for each question to Redis."""
        host = make_host({"area": {"loader": str.upper}}, redis=server.url, workers=2, **BRIEF)
        server.stop()
        took = []
        for key in ("a", "b", "c"):
            answer, seconds = host.call(timed, "get", key)
            assert key.upper() == answer
            took.append(seconds)
        assert min(took) < 1.0

    def test_circuit_breaker(
        self, make_host: MakeHost, server: RedisServer, make_monitor: Any
    ) -> None:
        """
        37: after a few failures no worker of the host asks Redis for a while, then one does; when
        that succeeds, all go on.
        """
        host = make_host(redis=server.url, workers=3, freshness_bound=60, **BRIEF)
        server.kill()
        until(lambda: host.link()["connected_since"] is None)  # no heartbeat is under way
        for _ in range(4):
            for worker in host.workers:
                worker.call("delete", "key")
        counters = host.counters()
        assert 5 == failed_calls(counters)
        assert 7 == counters["l2_skipped"]
        assert "open" == host.link()["breaker"]
        until(lambda: host.link()["breaker"] == "half-open")
        for worker in host.workers:
            worker.begin("delete", "key")
        for worker in host.workers:
            worker.end()
        counters = host.counters()
        assert 6 == failed_calls(counters)
        assert 9 == counters["l2_skipped"]
        assert "open" == host.link()["breaker"]
        server.start()
        until(lambda: host.link()["breaker"] == "closed")
        monitor = make_monitor(server)
        for worker in host.workers:
            worker.call("set", worker.pid, "value")
        names = {host.name_of(worker.pid) for worker in host.workers}
        assert names == {it[1] for it in monitor.commands() if it[0] == "SET"} & names
        assert 6 == host.failed_calls()

    def test_catching_up(self, make_host: MakeHost, server: RedisServer, proxy: FaultProxy) -> None:
        """
        38: what A deletes and sets while it cannot reach Redis reaches it and B afterwards: deletes
        are deletes there, and of a set that Redis did not take no old copy is left; B is told
        nothing before that.
        """
        b = make_host(redis=server.url)
        a = make_host(redis=proxy.url, freshness_bound=1.0, **BRIEF)
        b.call("mset", {"deleted": "old", "set": "old", "both": "old", "kept": "old"})
        until(lambda: a.count("invalidation_receive") == 1)
        assert 4 == len(a.call("mget", ["deleted", "set", "both", "kept"]))
        proxy.mode("refuse")
        proxy.drop()
        a.call("delete", "deleted")
        a.call("set", "set", "new")
        a.call("delete", "both")
        a.call("set", "both", "new")
        assert ("new", "local") == a.call(entry, "set")
        assert 4 == a.link()["outbox_depth"]
        assert 1 == b.count("invalidation_receive")
        assert "old" == b.call("get", "set")
        proxy.mode("pass")
        until(lambda: a.link()["outbox_depth"] == 0)
        for key in ("deleted", "set", "both"):
            assert b":0\r\n" == server.command("EXISTS", a.name_of(key))
            b.call(seconds_until, key, GONE, time.monotonic() + 20)
        assert "old" == b.call("get", "kept")
        until(lambda: a.call("get", "kept") == "old")

    def test_l1_never_outlives_l2(self, make_host: MakeHost, server: RedisServer) -> None:
        """39: a value copied from Redis with 0.4 s left lives so long in L1, whatever is asked."""
        areas = {"area": {"local_ttl": 600, "remote_ttl": 600, "ttl_jitter_ratio": None}}
        a, b = make_host(areas, redis=server.url), make_host(areas, redis=server.url)
        a.call("mset", {"key": "value", "endless": "value"})
        until(lambda: b.count("invalidation_receive") == 1)
        before = time.monotonic()
        server.command("PEXPIRE", a.name_of("key"), "400")
        server.command("PERSIST", a.name_of("endless"))
        assert b.call(left, "key") <= 0.4
        assert b.call(left, "key") <= 0.4  # of the copy
        assert None is b.call(left, "endless")
        assert 590 < b.call(left, "endless") <= 600  # of the copy
        gone = b.call(seconds_until, "key", GONE, time.monotonic() + 20)
        assert gone - before < 5

    def test_l1_never_outlives_l2_by_set(self, make_host: MakeHost) -> None:
        """39: with a ttl of the call as well."""
        areas = {"area": {"local_ttl": 600, "remote_ttl": 600}}
        a, b = make_host(areas), make_host(areas)
        a.call("set", "key", "value", ttl=7)
        assert a.call(left, "key") <= 7
        assert b.call(left, "key") <= 7
        assert ("value", "local") == b.call(entry, "key")
        assert b.call(left, "key") <= 7

    def test_too_big_for_l1(self, make_host: MakeHost, calls: Any) -> None:
        """
        40: a value larger than L1 takes is returned, stored in Redis only, and an older smaller one
        of that key is gone from L1.
        """
        big = b"x" * (3 << 20)

        def load(key: str) -> bytes:
            calls.add(key)
            return big

        areas = {"area": {"loader": load, "max_value_size": "4MiB"}}
        a, b = make_host(areas, size="4MiB"), make_host(areas, size="64MiB")
        assert (big, "loader") == a.call(entry, "loaded")
        assert (big, "remote") == a.call(entry, "loaded") == b.call(entry, "loaded")
        assert (big, "local") == b.call(entry, "loaded")
        assert ["loaded"] == calls.whats()
        a.call("set", "key", b"small")
        assert (b"small", "local") == a.call(entry, "key")
        a.call("set", "key", big)
        assert (big, "remote") == a.call(entry, "key")
        assert ["loaded"] == calls.whats()

    @pytest.mark.parametrize(
        "garbage", ["", "garbage", "\x01" * 100], ids=["empty", "text", "bytes"]
    )
    def test_not_readable(
        self, make_host: MakeHost, server: RedisServer, calls: Any, garbage: str
    ) -> None:
        """
        40: bytes in Redis that nobody can read are a miss, counted, and replaced by the loader's
        value; there is no exception in a get.
        """

        def load(key: str) -> str:
            calls.add(key)
            return "loaded"

        areas = {"area": {"loader": load}}
        a, b = make_host(areas, redis=server.url), make_host(areas, redis=server.url)
        a.call("set", "another", 1)
        server.command("SET", a.name_of("key"), garbage)
        assert None is a.call("get", "key", disable_load=True)
        assert 1 == a.count("l2_undecodable")
        assert "loaded" == a.call("get", "key")
        assert ("loaded", "remote") == b.call(entry, "key")
        assert ["key"] == calls.whats()
        assert 2 == a.count("l2_undecodable")
        assert 0 == b.count("l2_undecodable")


class TestLoads:
    """What the scenarios of loads say about Redis."""

    def test_one_call_for_all_workers(
        self,
        make_host: MakeHost,
        server: RedisServer,
        make_monitor: Any,
        crowd: Any,
        calls: Any,
        gates: Any,
    ) -> None:
        """
        1: 6 processes of 8 threads ask for one key at once: the loader runs once, all 48 get the
        value, and Redis sees one read and one write of that key.
        """
        gate = gates()

        def load(key: str) -> str:
            calls.add(key)
            gate.wait()
            return "value"

        _shared[:] = [crowd("threads")]
        host = make_host({"area": {"loader": load}}, redis=server.url, workers=6)
        monitor = make_monitor(server)
        for worker in host.workers:
            worker.begin(all_at_once, "key")
        calls.wait_for(1)
        witness = host.add_worker()
        until(lambda: 47 == sum(flight["waiters"] for flight in witness.call(flights)))
        gate.open()
        assert [["value"] * 8] * 6 == [worker.end() for worker in host.workers[:6]]
        assert ["key"] == calls.whats()
        seen = monitor.about(host.name_of("key"))
        assert 1 == seen.count("MGET") + seen.count("GET")
        assert 1 == seen.count("SET")

    def test_two_hosts(self, make_host: MakeHost, calls: Any) -> None:
        """
        12: two hosts on one Redis: the loader runs once a host at most, once in all if the other
        one comes later, and both end with the same value.
        """

        def load(key: str) -> str:
            calls.add(key)
            return "value"

        areas = {"area": {"loader": load}}
        a, b = make_host(areas, workers=2), make_host(areas, workers=2)
        assert "value" == a.call("get", "first")
        assert "value" == b.call("get", "first")
        assert ["first"] == calls.whats()
        for worker in (*a.workers, *b.workers):
            worker.begin("get", "both")
        assert ["value"] * 4 == [worker.end() for worker in (*a.workers, *b.workers)]
        assert len(calls) <= 3

    def test_soft_timeout(self, make_host: MakeHost, calls: Any, gates: Any) -> None:
        """
        17: a stale value and a slow loader: the caller has the old value at the soft timeout; when
        the loader ends, L1 and Redis have the new one, and another host does not load again.
        """
        gate = gates()

        def load(key: str) -> str:
            calls.add(key)
            gate.wait()
            return "new"

        areas = {
            "area": {
                "loader": load,
                "allow_stale": True,
                "soft_timeout": 0.01,
                "background": contextlib.nullcontext,
            }
        }
        a, b = make_host(areas), make_host(areas)
        a.call("set", "key", "old")
        assert "old" == b.call("get", "key")
        a.call("expire", "key")
        until(lambda: b.count("invalidation_receive") == 2)
        assert "old" == a.call("get", "key")
        calls.wait_for(1)
        gate.open()
        until(lambda: a.call("peek", "key") == "new")
        until(lambda: b.call("get", "key") == "new")
        assert ["key"] == calls.whats()[:1]
        assert ("new", "local") == b.call(entry, "key")

    def test_expire_against_delete(self, make_host: MakeHost) -> None:
        """
        21: after expire() on one host a plain get misses on all, yet a failing loader can still
        fall back on the old value; after delete() it cannot.
        """

        def load(_key: str) -> str:
            raise OSError("no database")

        areas = {"area": {"loader": load, "stale_ttl": 60, "error_ttl": 0.001}}
        a, b = make_host(areas), make_host(areas)
        a.call("set", "key", "old")
        assert "old" == b.call("get", "key")
        a.call("expire", "key")
        until(lambda: b.count("invalidation_receive") == 2)
        for host in (a, b):
            assert GONE == host.call("get", "key", GONE, disable_load=True)
            assert "old" == host.call("get", "key", allow_stale=True)
            assert (LoaderError.__name__, None) == host.call(failure, "get", "key")
        # And a host that never had it falls back on the copy that Redis has.
        late = make_host(areas)
        assert "old" == late.call("get", "key", allow_stale=True)
        a.call("delete", "key")
        for host in (a, b, late):
            until(lambda host=host: host.call(failure, "get", "key", allow_stale=True) is not None)

    @pytest.mark.parametrize("value", [None, 0, False, "", b"", []], ids=repr)
    def test_none_is_a_value(self, make_host: MakeHost, calls: Any, value: Any) -> None:
        """23: a loader that returns None, 0, False, "", b"" or [] is called once for all hosts."""

        def load(key: str) -> Any:
            calls.add(key)
            return value

        areas = {"area": {"loader": load}}
        a, b = make_host(areas, workers=2), make_host(areas)
        for worker in (*a.workers, *b.workers):
            assert value == worker.call("get", "key", GONE)
            assert worker.call("__contains__", "key")
        assert ["key"] == calls.whats()
        assert 1 == b.count("remote_hit")

    def test_none_and_value_replace_each_other(self, make_host: MakeHost) -> None:
        """
        25: None set over a value and a value over None show in every worker and on the other host;
        no old one shines through from the other tier.
        """
        a, b = make_host(workers=2), make_host(workers=2)
        for value in ("value", None, "another", None):
            a.call("set", "key", value)
            for worker in a.workers:
                assert value == worker.call("get", "key", GONE)
            for worker in b.workers:
                worker.call(seconds_until, "key", value, time.monotonic() + 20)


def flights() -> list[dict[str, Any]]:
    """The loads that run on this host."""
    return list(runtime.current().memory.flights())


def all_at_once(key: str) -> list[Any]:
    """Have 8 threads get a key."""
    [here] = _shared
    return [answer.value for answer in here.run(8, cache().get, key)]
