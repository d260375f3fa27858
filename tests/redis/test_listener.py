"""The listener against a real Redis: what hosts hear of each other, and what goes wrong."""

import contextlib
import importlib.util
import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import accelerator
from accelerator import local, message, runtime
from accelerator.demo.redis_server import RedisServer
from accelerator.errors import RemoteError
from accelerator.remote.names import host_channel

if not hasattr(os, "fork"):
    pytest.skip("needs processes that fork", allow_module_level=True)


def load(name: str) -> Any:
    """Import what lies beside this file and is no test."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


listening = load("listening")
wait_until = listening.wait_until
AREA = listening.AREA
BOUND = 2.0


@pytest.fixture
def make() -> Iterator[Callable[..., Any]]:
    """Make a host, in step."""
    hosts = []

    def start(server: RedisServer, **settings: Any) -> Any:
        host = listening.Host(server.url, **settings)
        hosts.append(host)
        host.start()
        return host

    yield start
    for host in hosts:
        host.close()


@pytest.fixture
def pair(server: RedisServer, make: Callable[..., Any]) -> tuple[Any, Any]:
    """Two hosts in step."""
    return make(server), make(server)


class TestHosts:
    def test_delete(self, pair: tuple[Any, Any]) -> None:
        """What one host deletes is gone on the other, within 200 ms."""
        mine, theirs = pair
        slowest = 0.0
        for number in range(100):
            theirs.store(f"key{number}")
            began = time.monotonic()
            mine.delete(f"key{number}")
            assert wait_until(lambda number=number: not theirs.has(f"key{number}"))
            slowest = max(slowest, time.monotonic() - began)
        assert 0.2 > slowest
        assert 0 == theirs.count("flush")

    def test_many_keys(self, pair: tuple[Any, Any]) -> None:
        """All keys of a large delete are gone, and no others."""
        mine, theirs = pair
        keys = [f"key{number}" for number in range(2_000)]
        for key in [*keys, "kept"]:
            theirs.store(key)
        mine.delete(*keys)
        theirs.catch_up()
        assert ["kept"] == [key for key in [*keys, "kept"] if theirs.has(key)]

    def test_clear(self, pair: tuple[Any, Any]) -> None:
        """A clear empties the area on all hosts."""
        mine, theirs = pair
        for host in pair:
            host.store("key")
        mine.remote.clear(AREA, 0, mine.memory.origin)
        assert wait_until(lambda: not theirs.has("key"))
        assert wait_until(lambda: not mine.has("key"))

    def test_own_set(self, pair: tuple[Any, Any]) -> None:
        """A host keeps what it has set when it hears of that, and the other drops its own."""
        mine, theirs = pair
        note = mine.areas[AREA]._note("key", message.SET)
        theirs.store("key")
        mine.store("key", note)
        mine.write(message.SET, "key", note=note)
        assert wait_until(lambda: not theirs.has("key"))
        mine.catch_up()
        assert mine.has("key")
        assert 1 == mine.count("own_skipped")

    def test_own_set_replaced(self, pair: tuple[Any, Any]) -> None:
        """It does not keep another one than it has set."""
        mine, _ = pair
        note = mine.areas[AREA]._note("key", message.SET)
        mine.store("key", note)
        mine.store("key")
        mine.write(message.SET, "key", note=note)
        assert wait_until(lambda: not mine.has("key"))

    def test_own_delete(self, pair: tuple[Any, Any]) -> None:
        """An own delete is done once more: its sender may have died before its second drop."""
        mine, _ = pair
        note = mine.areas[AREA]._note("key", message.FORGET)
        mine.store("key")
        mine.write(message.FORGET, "key", note=note)
        assert wait_until(lambda: not mine.has("key"))

    def test_tags(self, pair: tuple[Any, Any]) -> None:
        """What carries the tag is gone on the other host, what carries another stays."""
        mine, theirs = pair
        theirs.store("key", tags=[b"red", b"round"])
        theirs.store("other", tags=[b"green"])
        theirs.store("plain")
        mine.delete_tag(b"red")
        assert wait_until(lambda: not theirs.has("key"))
        theirs.catch_up()
        assert [True, True] == [theirs.has(key) for key in ("other", "plain")]

    def test_own_tags_unsettled(self, pair: tuple[Any, Any]) -> None:
        """An own delete by tag is done again while its sender may die before its second drop."""
        mine, _ = pair
        note = mine.areas[AREA]._note_tag(b"red", local.NOTE_FORGET_TAG)
        mine.store("key", tags=[b"red"])
        mine.delete_tag(b"red", note)
        assert wait_until(lambda: not mine.has("key"))

    def test_own_tags_settled(self, pair: tuple[Any, Any]) -> None:
        """It is not when its sender has said that it has dropped twice: newer values stay."""
        mine, theirs = pair
        note = mine.areas[AREA]._note_tag(b"red", local.NOTE_FORGET_TAG)
        mine.memory.outbox_settle(note, True)
        mine.store("key", tags=[b"red"])
        theirs.store("key", tags=[b"red"])
        mine.delete_tag(b"red", note)
        assert wait_until(lambda: not theirs.has("key"))
        mine.catch_up()
        assert mine.has("key")
        assert 1 == mine.count("own_skipped")

    def test_own_tags_without_note(self, pair: tuple[Any, Any]) -> None:
        """What has no note is applied: nobody can say that it is done."""
        mine, _ = pair
        mine.store("key", tags=[b"red"])
        mine.delete_tag(b"red")
        assert wait_until(lambda: not mine.has("key"))

    def test_another_namespace(self, server: RedisServer, make: Callable[..., Any]) -> None:
        """Two caches with other namespaces on one Redis do not touch each other."""
        mine, theirs = make(server), make(server, namespace="another")
        for host in (mine, theirs):
            host.store("key")
        mine.delete("key")
        assert wait_until(lambda: not mine.has("key"))
        theirs.catch_up()
        assert theirs.has("key")

    def test_new_area(self, pair: tuple[Any, Any]) -> None:
        """What an area held before its subscription is confirmed is not served after."""
        mine, theirs = pair
        theirs.add("new")
        theirs.store("key", area="new")
        assert wait_until(lambda: theirs.in_step("new"))
        assert not theirs.has("key", area="new")
        theirs.store("key", area="new")
        mine.delete("key", area="new")
        assert wait_until(lambda: not theirs.has("key", area="new"))
        assert 0 == theirs.count("flush", area="new")


class TestConnection:
    def test_killed(self, server: RedisServer, pair: tuple[Any, Any]) -> None:
        """After CLIENT KILL the listener is back at once; what it missed comes from the log."""
        mine, theirs = pair
        for key in ("gone", "kept"):
            theirs.store(key)
        server.command("CLIENT", "KILL", "TYPE", "pubsub")
        mine.delete("gone")
        began = time.monotonic()
        theirs.catch_up()
        assert 1.5 > time.monotonic() - began
        assert (False, True) == (theirs.has("gone"), theirs.has("kept"))
        assert 0 == theirs.count("flush")
        assert 1 <= theirs.memory.link()["reconnects"]

    def test_log_gone(self, server: RedisServer, pair: tuple[Any, Any]) -> None:
        """What was missed and is no longer in the log costs the whole area."""
        mine, theirs = pair
        theirs.store("kept")
        server.command("CLIENT", "KILL", "TYPE", "pubsub")
        mine.delete("gone")
        server.command("DEL", mine.remote.plans.names(AREA).log)
        assert wait_until(lambda: theirs.count("flush"))
        theirs.catch_up()
        assert not theirs.has("kept")

    def test_flushall(self, server: RedisServer, pair: tuple[Any, Any]) -> None:
        """After FLUSHALL nothing of before is served, and hosts hear each other."""
        mine, theirs = pair
        theirs.store("key")
        server.command("FLUSHALL")
        mine.delete("other")
        assert wait_until(lambda: not theirs.has("key"))
        theirs.catch_up()
        theirs.store("key")
        mine.delete("key")
        assert wait_until(lambda: not theirs.has("key"))

    def test_restart(self, server: RedisServer, make: Callable[..., Any]) -> None:
        """A restarted Redis is another history: nothing of before is served."""
        host = make(server, reconnect=(0.05, 0.2))
        host.store("key")
        server.restart()
        host.catch_up()
        assert not host.has("key")

    def test_stopped(self, server: RedisServer, make: Callable[..., Any]) -> None:
        """A Redis that is silent is noticed, and nothing is served that it could have changed."""
        host = make(server, reconnect=(0.05, 0.2))
        host.store("key")
        server.stop()
        try:
            stopped = time.monotonic()
            assert wait_until(lambda: host.memory.link()["connected_since"] is None)
            assert wait_until(lambda: not host.in_step())
            assert BOUND + 0.1 > time.monotonic() - stopped
        finally:
            server.resume()
        host.catch_up()

    def test_refusing(self, server: RedisServer, make: Callable[..., Any]) -> None:
        """A Redis that takes no writes is not read either."""
        host = make(server)
        server.config("min-replicas-to-write", "1")
        assert wait_until(lambda: host.memory.link()["refused"])
        server.config("min-replicas-to-write", "0")
        assert wait_until(lambda: not host.memory.link()["refused"])
        host.catch_up()

    def test_away_at_first(self, server: RedisServer) -> None:
        """Without Redis nothing waits and nothing fails; it is used as soon as it is there."""
        server.kill()
        host = listening.Host(server.url, reconnect=(0.05, 0.2))
        try:
            began = time.monotonic()
            host.listener.start()
            assert 0.05 > time.monotonic() - began
            assert wait_until(lambda: host.listener.leading)
            assert wait_until(lambda: host.memory.link()["next_retry_in"] is not None)
            assert wait_until(lambda: host.count("receive_error_subscribe") >= 2)
            server.start()
            host.catch_up()
            failures = host.count("receive_error_subscribe")
            assert failures == host.count("invalidation_receive_failures")
        finally:
            host.close()

    def test_no_right_to_subscribe(self, server: RedisServer) -> None:
        """Each subscription that Redis refuses is counted, and it is tried again."""
        server.command("ACL", "SETUSER", "default", "resetchannels")
        host = listening.Host(server.url, reconnect=(0.05, 0.2))
        try:
            host.listener.start()
            assert wait_until(lambda: host.count("receive_error_subscribe") >= 2)
            server.command("ACL", "SETUSER", "default", "allchannels")
            host.catch_up()
            failures = host.count("receive_error_subscribe")
            assert failures == host.count("invalidation_receive_failures")
        finally:
            host.close()

    def test_no_right_to_another(self, server: RedisServer) -> None:
        """So is that of an area which is used later, on a connection that was well until then."""
        host = listening.Host(server.url, reconnect=(60.0, 60.0))
        try:
            host.start()
            own = host_channel(host.remote.namespace, host.memory.origin)
            allowed = [f"&{channel}" for channel in (own, host.remote.channel(AREA))]
            server.command("ACL", "SETUSER", "default", "resetchannels", *allowed)
            host.add("another")
            assert wait_until(lambda: host.count("receive_error_subscribe") == 1)
        finally:
            host.close()

    def test_stalled(self, server: RedisServer, make: Callable[..., Any]) -> None:
        """A listener that did not get to run for long takes what has come, and loses nothing."""
        other = make(server)
        workers = Workers(server.url)
        try:
            workers.start(1)
            leader = workers.wait_for_leader()
            host = listening.Host(server.url, workers.memory)
            assert wait_until(lambda: (0, 0) != workers.memory.area_state(AREA))
            host.store("kept")
            os.kill(leader, signal.SIGSTOP)
            time.sleep(2.0)  # longer than any silence that is allowed
            for number in range(1_000):
                host.store(f"key{number}")
                other.delete(f"key{number}")
            os.kill(leader, signal.SIGCONT)
            assert wait_until(lambda: not any(host.has(f"key{number}") for number in range(1_000)))
            assert host.has("kept")
            assert (0, 0) == (host.count("replayed"), workers.memory.link()["reconnects"])
        finally:
            workers.close()

    def test_nothing_to_follow(self, server: RedisServer) -> None:
        """Without an area that uses Redis there is no connection, and no work."""
        host = listening.Host(server.url, areas=[])
        try:
            host.listener.start()
            assert wait_until(lambda: host.listener.leading)
            used = time.process_time()
            time.sleep(0.5)  # nothing must happen
            assert 0.1 > time.process_time() - used
            assert None is host.memory.link()["connected_since"]
            host.add(AREA)
            host.catch_up()
        finally:
            host.close()

    def test_long_replay(self, pair: tuple[Any, Any], server: RedisServer) -> None:
        """Thousands of messages that were missed are read from the log at once."""
        mine, theirs = pair
        theirs.store("kept")
        theirs.memory.areas.clear()
        state = theirs.memory.area_state(AREA)
        theirs.listener.stop()
        client = mine.remote._own_client()
        names = mine.remote.plans.names(AREA)
        pipeline = client.pipeline(transaction=False)
        for seq in range(state[1] + 1, state[1] + 10_001):
            body = message.body(message.FORGET, [b"skey%d" % seq], [0])
            data = b"1 %s %d %s" % (b"b" * 32, seq, body)
            pipeline.execute_command("XADD", names.log, f"{seq}-0", "m", data)
        pipeline.execute_command("SET", names.seq, state[1] + 10_000)
        pipeline.execute()
        theirs.memory.areas.append(AREA)
        theirs.listener.start()
        theirs.catch_up()
        assert (10_000, 0) == (theirs.count("replayed"), theirs.count("flush"))
        assert theirs.has("kept")


class TestGarbage:
    @pytest.mark.parametrize(
        "garbage",
        [
            random.Random(1).randbytes(200),
            b"",
            b"2 " + b"a" * 32 + b" 7 what a later version says",
            b"1 " + b"a" * 32 + b" 99999999999999999999 x",
            b"1 H 1",
            pytest.param(b"x" * (10 << 20), id="10 MB"),
        ],
    )
    def test_ignored(self, server: RedisServer, pair: tuple[Any, Any], garbage: bytes) -> None:
        """It is counted as a gap, nothing is dropped for it, and the next message is heard."""
        mine, theirs = pair
        client = mine.remote._own_client()
        for key in ("key", "kept"):
            theirs.store(key)
        client.execute_command("PUBLISH", mine.remote.channel(AREA), garbage)
        assert wait_until(lambda: theirs.count("receive_error_decode"))
        mine.delete("key")
        assert wait_until(lambda: not theirs.has("key"))
        theirs.catch_up()
        assert theirs.has("kept")
        assert (1, 0) == (theirs.count("gap"), theirs.count("flush"))

    def test_often(self, pair: tuple[Any, Any]) -> None:
        """A flood of it is a gap once a second, and what comes between is heard."""
        mine, theirs = pair
        client = mine.remote._own_client()
        began = time.monotonic()
        for number in range(200):
            theirs.store("key")
            client.execute_command("PUBLISH", mine.remote.channel(AREA), b"garbage")
            mine.delete("key")
            assert wait_until(lambda: not theirs.has("key")), number
        assert wait_until(lambda: 200 == theirs.count("receive_error_decode"))
        assert 2 + time.monotonic() - began > theirs.count("gap")

    def test_with_a_number(self, pair: tuple[Any, Any]) -> None:
        """What has a place in the log, and cannot be read there either, costs the whole area."""
        mine, theirs = pair
        names = mine.remote.plans.names(AREA)
        client = mine.remote._own_client()
        theirs.store("kept")
        seq = client.execute_command("INCR", names.seq)
        client.execute_command("XADD", names.log, f"{seq}-0", "m", b"2 of a later version")
        client.execute_command("PUBLISH", names.channel, b"2 of a later version")
        assert wait_until(lambda: theirs.count("flush"))
        theirs.catch_up()
        assert not theirs.has("kept")

    def test_own_channel(self, pair: tuple[Any, Any]) -> None:
        """It does no harm on the channel of the heartbeats either."""
        mine, _ = pair
        client = mine.remote._own_client()
        for garbage in (b"", b"\xff" * 100, b"1 H 5", b"1 H 5 x -1", b"x" * (5 << 20)):
            channel = f"accelerator:heartbeat:listening:{mine.memory.origin.hex()}"
            assert 1 == client.execute_command("PUBLISH", channel, garbage)
        mine.catch_up()


class TestOutbox:
    def test_queued(self, server: RedisServer, make: Callable[..., Any]) -> None:
        """What could not be sent is sent when Redis is back: the other host drops its copy."""
        mine = make(server, reconnect=(0.05, 0.2))
        server.kill()
        number = mine.areas[AREA]._note("key", message.FORGET)
        with contextlib.suppress(RemoteError):
            mine.delete("key")
        mine.memory.outbox_settle(number, False)
        assert 1 == mine.memory.link()["outbox_depth"]
        server.start()
        theirs = make(server)
        assert wait_until(lambda: 0 == mine.memory.link()["outbox_depth"])
        theirs.store("key")
        number = mine.areas[AREA]._note("key", message.SET)
        mine.memory.outbox_settle(number, False)
        assert wait_until(lambda: not theirs.has("key"), 1.0)

    def test_clear(self, pair: tuple[Any, Any]) -> None:
        """A clear that could not be sent is sent as one."""
        mine, theirs = pair
        theirs.store("key")
        mine.memory.outbox_settle(mine.areas[AREA]._note_clear(), False)
        assert wait_until(lambda: not theirs.has("key"))
        assert wait_until(lambda: 0 == mine.memory.link()["outbox_depth"])

    def test_many(self, pair: tuple[Any, Any]) -> None:
        """More than one portion is sent without a pause."""
        mine, theirs = pair
        keys = [f"key{number}" for number in range(1_000)]
        for key in keys:
            theirs.store(key)
            mine.memory.outbox_settle(mine.areas[AREA]._note(key, message.FORGET), False)
        assert wait_until(lambda: not any(map(theirs.has, keys)))
        assert wait_until(lambda: 0 == mine.memory.link()["outbox_depth"])

    def test_failover(self, server: RedisServer, make: Callable[..., Any]) -> None:
        """After a change of the history own recent writes are sent again, as deletes."""
        mine = make(server, reconnect=(0.05, 0.2))
        note = mine.areas[AREA]._note("key", message.FORGET)
        mine.write(message.FORGET, "key", note=note)
        mine.memory.outbox_settle(note, True)
        server.restart()
        mine.catch_up()
        names = mine.remote.plans.names(AREA)
        entries = mine.remote.log(AREA, 0, None, 10)
        assert [[b"skey"]] == [message.parse(data).keys for _, data in entries], names.log


# --- processes ----------------------------------------------------------------------------------


class Workers:
    """Processes over one segment, each with a listener; this process shares the segment too."""

    def __init__(self, url: str) -> None:
        if not local.NATIVE:
            pytest.skip("processes share through the native part")
        self.url = url
        self.name = f"listening-{uuid.uuid4().hex[:12]}"
        self.pids: list[int] = []
        accelerator.attach(name=self.name, size="4MiB")
        self.memory: Any = runtime.current().memory

    def start(self, count: int) -> None:
        for _ in range(count):
            reading, writing = os.pipe()
            pid = os.fork()
            if pid == 0:
                self.work(writing)
            os.close(writing)
            assert b"1" == os.read(reading, 1)
            os.close(reading)
            self.pids.append(pid)

    def work(self, writing: int) -> None:
        """In the child: listen until SIGTERM."""
        status = 1
        try:
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
            accelerator.attach()
            host = listening.Host(self.url, runtime.current().memory)
            host.listener.start()
            os.write(writing, b"1")
            with contextlib.suppress(SystemExit):
                while True:
                    signal.pause()
            host.listener.stop()
            status = 0
        finally:
            os._exit(status)

    def leader(self) -> int:
        """Pid of who leads and does."""
        shown = self.memory.leader()
        lively = shown["beat_age"] is not None and shown["beat_age"] < 0.2
        return int(shown["pid"]) if lively else 0

    def wait_for_leader(self, but: int = 0) -> int:
        assert wait_until(lambda: self.leader() not in {0, but})
        return self.leader()

    def end(self, pid: int, number: int) -> None:
        """End one of them, and wait for it."""
        os.kill(pid, number)
        os.waitpid(pid, 0)
        self.pids.remove(pid)

    def close(self) -> None:
        for pid in list(self.pids):
            os.kill(pid, signal.SIGCONT)
            self.end(pid, signal.SIGKILL)
        accelerator.detach()
        subprocess.run(
            [sys.executable, "-m", "accelerator", "unlink", "--name", self.name],
            check=False,
            capture_output=True,
        )


@pytest.fixture
def workers(server: RedisServer) -> Iterator[Workers]:
    made = Workers(server.url)
    yield made
    made.close()


def subscribers(server: RedisServer, host: Any) -> int:
    """How many connections hear of the area."""
    reply = server.command("PUBSUB", "NUMSUB", host.remote.channel(AREA))
    return int(reply.rpartition(b":")[2])


class TestProcesses:
    def test_one_subscriber(
        self, server: RedisServer, workers: Workers, make: Callable[..., Any]
    ) -> None:
        """Eight processes of a host subscribe once, also after the one that did was killed."""
        other = make(server)
        workers.start(8)
        leader = workers.wait_for_leader()
        assert wait_until(lambda: 2 == subscribers(server, other))
        workers.end(leader, signal.SIGKILL)
        workers.wait_for_leader(but=leader)
        assert wait_until(lambda: 2 == subscribers(server, other))

    @pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
    def test_take_over(
        self, workers: Workers, number: int, server: RedisServer, make: Callable[..., Any]
    ) -> None:
        """
        Another process leads within 750 ms after the leader was killed or stopped, and what was
        said meanwhile is not lost.
        """
        other = make(server)
        workers.start(3)
        host = listening.Host(server.url, workers.memory)
        leader = workers.wait_for_leader()
        assert wait_until(lambda: 2 == subscribers(server, other))
        assert wait_until(lambda: (0, 0) != workers.memory.area_state(AREA))
        for key in ("gone", "kept"):
            host.store(key)
        began = time.monotonic()
        os.kill(leader, number)
        other.delete("gone")
        workers.wait_for_leader(but=leader)
        taken = time.monotonic() - began
        assert wait_until(lambda: not host.has("gone"))
        assert host.has("kept")
        assert 0.75 > taken

    def test_hand_over(self, workers: Workers) -> None:
        """Another process leads within 200 ms after the leader has ended in good order."""
        workers.start(3)
        leader = workers.wait_for_leader()
        began = time.monotonic()
        os.kill(leader, signal.SIGTERM)
        workers.wait_for_leader(but=leader)
        assert 0.2 > time.monotonic() - began
        assert 0 == os.waitpid(leader, 0)[1]
        workers.pids.remove(leader)

    def test_stopped_and_back(
        self, server: RedisServer, workers: Workers, make: Callable[..., Any]
    ) -> None:
        """A leader that was stopped finds out that it is none any more."""
        other = make(server)
        workers.start(2)
        leader = workers.wait_for_leader()
        os.kill(leader, signal.SIGSTOP)
        successor = workers.wait_for_leader(but=leader)
        os.kill(leader, signal.SIGCONT)
        assert wait_until(lambda: 2 == subscribers(server, other))
        assert successor == workers.wait_for_leader()


class TestLife:
    def test_idempotent(self, server: RedisServer) -> None:
        """start() and stop() may be called again and again."""
        host = listening.Host(server.url)
        for _ in range(2):
            host.listener.start()
            host.start()
            assert host.listener.running
            host.listener.stop()
            host.listener.stop()
            assert not host.listener.running
            host.memory.until.clear()
        host.close()

    def test_child_lets_go(self, server: RedisServer, make: Callable[..., Any]) -> None:
        """A forked child does not hold the parent's connection, nor listens by itself."""
        host = make(server)
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(writing)
            os.read(reading, 1)
            os._exit(2 * host.listener.running + host.listener.leading)
        host.listener.stop()
        assert wait_until(lambda: 0 == subscribers(server, host))
        os.close(writing)
        os.close(reading)
        assert 0 == os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    @pytest.mark.parametrize("patched", [False, True], ids=["threads", "gevent"])
    def test_end_of_interpreter(self, server: RedisServer, patched: bool) -> None:
        """The interpreter ends quietly while the listener works, and does not wait for it."""
        out = script(
            server,
            """
            host = listening.Host(url)
            host.start()
            print(json.dumps(host.listener.leading))
            """,
            patched=patched,
        )
        assert [True] == out

    def test_gevent_hog(self, server: RedisServer, make: Callable[..., Any]) -> None:
        """A greenlet that does not yield does not stop the host from hearing."""
        make(server)
        out = script(
            server,
            """
            host = listening.Host(url)
            host.start()
            term = host.memory.leader()["term"]
            end = time.monotonic() + 2.5
            while time.monotonic() < end:
                pass
            print(json.dumps([host.in_step(), term == host.memory.leader()["term"]]))
            host.listener.stop()
            """,
            patched=True,
        )
        assert [[True, True]] == out


def script(server: RedisServer, body: str, *, patched: bool) -> list[Any]:
    """Run *body* in a process of its own; gives the lines of JSON that it prints."""
    head = "from gevent import monkey; monkey.patch_all()\n" if patched else ""
    head += (
        "import json, sys, time\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "import listening\n"
        f"url = {server.url!r}\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", head + textwrap.dedent(body)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (0, "") == (done.returncode, done.stderr)
    return [json.loads(line) for line in done.stdout.splitlines()]
