"""``accelerator probe`` with real hosts, all of whose answers come over a real Redis."""

import contextlib
import json
import os
import re
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import hosts
import pytest

from accelerator import cli, message
from accelerator.demo.redis_server import HOST, RedisServer
from accelerator.invalidation.listener import ANSWERS, ANSWERS_AT_ONCE
from accelerator.remote.names import answers_channel

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "use-redis.md"


@pytest.fixture
def probe(
    url: str, namespace: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, Any]]:
    """Run the command as somebody at a shell: its status, and its data."""
    monkeypatch.setenv("ACCELERATOR_NAMESPACE", namespace)

    def run(*options: str, redis: str = url) -> tuple[int, Any]:
        monkeypatch.setenv("ACCELERATOR_REDIS", redis)
        capsys.readouterr()
        status = cli.main(["probe", "--json", *options])
        return status, json.loads(capsys.readouterr().out)

    return run


def origins(area: Any) -> set[str]:
    return {each["origin"] for each in area["arrivals"]}


def origin_of(host: Any) -> str:
    found: str = host.call(own_origin)
    return found


def own_origin() -> str:
    """In a worker."""
    return hosts.runtime.current().memory.origin.hex()


class TestHosts:
    def test_all_answer(self, make_host: Callable[..., Any], probe: Callable[..., Any]) -> None:
        """Two hosts answer: each by its listener, with the number, and a time in between."""
        one, two = make_host(workers=2), make_host()
        began = time.monotonic()
        status, found = probe("--name", one.name)
        took = time.monotonic() - began
        [area] = found["areas"]
        assert (0, 2, 0, []) == (status, area["listeners"], area["missing"], area["silent"])
        assert {origin_of(one), origin_of(two)} == origins(area) == set(found["hosts"])
        by_origin = {each["origin"]: each for each in area["arrivals"]}
        mine = by_origin[origin_of(one)]
        assert (os.uname().nodename, one.leader()["pid"]) == (mine["host"], mine["pid"])
        assert {True, False} == {each["here"] for each in area["arrivals"]}
        assert mine["here"]
        for each in area["arrivals"]:
            assert 0 < each["round_trip_ms"] < 1000 * took
            assert area["seq"] == each["seq"]

    def test_in_order(self, make_host: Callable[..., Any], probe: Callable[..., Any]) -> None:
        """It is one of the area's changes: numbered behind the last, logged, received, no gap."""
        host = make_host()
        host.call("area.set", 1, "one")
        hosts.until(lambda: host.count("invalidation_receive") == 1)  # its own
        before = host.counters()
        _, found = probe("--area", "area")
        _, again = probe("--area", "area")
        assert found["areas"][0]["seq"] + 1 == again["areas"][0]["seq"]
        after = host.counters()
        assert before["invalidation_receive"] + 2 == after["invalidation_receive"]
        assert {name: before[name] for name in ("gap", "flush", "replayed")} == {
            name: after[name] for name in ("gap", "flush", "replayed")
        }
        assert "one" == host.call("area.peek", 1)

    def test_areas(self, make_host: Callable[..., Any], probe: Callable[..., Any]) -> None:
        """All areas of this host in one go; a host that has only one of them misses in none."""
        areas = {"users": {}, "stock": {}, "own": {"mode": "local"}}
        host = make_host(areas, in_step=False)
        for area in ("users", "stock"):
            hosts.until(lambda area=area: host.call(hosts.freshness, area) < 1.5)
        other = make_host({"users": {}})
        status, found = probe("--name", host.name)
        assert 0 == status
        listed = {area["area"]: origins(area) for area in found["areas"]}
        assert {
            "users": {origin_of(host), origin_of(other)},
            "stock": {origin_of(host)},
        } == listed

    def test_many_areas(self, make_host: Callable[..., Any], probe: Callable[..., Any]) -> None:
        """Again and again in as many areas as may be asked at once: no answer is missing."""
        areas = {f"area{number}": {} for number in range(message.MOST_PROBED + 3)}
        host = make_host(areas, size="64MiB")
        for _ in range(3):
            status, found = probe("--name", host.name)
            assert (0, 3) == (status, found["areas_left_out"])
            assert [1] * message.MOST_PROBED == [len(it["arrivals"]) for it in found["areas"]]

    def test_killed_listener(
        self, make_host: Callable[..., Any], probe: Callable[..., Any]
    ) -> None:
        """A probe right after SIGKILL of the listener is answered by the next one."""
        host = make_host(workers=2)
        leader = host.leading_worker()
        leader.kill()
        host.workers.remove(leader)
        status, found = probe("--area", "area", "--timeout", "30")
        # Nobody may be subscribed yet; what was told meanwhile is in the log.
        assert [host.workers[0].pid] == [each["pid"] for each in found["areas"][0]["arrivals"]]
        assert 0 == status

    def test_printed(
        self,
        make_host: Callable[..., Any],
        probe: Callable[..., Any],
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        """For people: who, and that the time is a round trip."""
        host = make_host()
        probe("--area", "area")
        assert 0 == cli.main(["probe", "--name", host.name])
        head, area, columns, row = capsys.readouterr().out.splitlines()
        assert head.startswith("accelerator probe  unix://")
        assert re.fullmatch(
            r"area area, number \d+: 1 listener, all answered, the slowest after .* m?s", area
        )
        assert columns.split() == ["host", "origin", "pid", "number", "round", "trip"]
        assert row.endswith("this host")
        assert f" {origin_of(host)[:8]} " in row


class TestMissing:
    def test_stopped_host(
        self,
        make_host: Callable[..., Any],
        probe: Callable[..., Any],
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        """A host that is stopped is missing, by name; it answers nothing to a look that is over."""
        one, two = make_host(), make_host()
        missing = origin_of(two)
        two.workers[0].signal(signal.SIGSTOP)
        status, found = probe("--name", one.name, "--timeout", "0.5")
        [area] = found["areas"]
        assert (1, 1, [missing]) == (status, area["missing"], area["silent"])
        assert {origin_of(one)} == origins(area)
        assert 1 == cli.main(["probe", "--name", one.name, "--timeout", "0.3"])
        shown = capsys.readouterr().out
        assert "1 of 2 answered, 1 MISSING" in shown
        assert f"missing: {missing[:8]}, within 300 ms" in shown
        two.workers[0].signal(signal.SIGCONT)
        hosts.until(lambda: probe("--name", one.name)[0] == 0)

    def test_stopped_listener(
        self, make_host: Callable[..., Any], probe: Callable[..., Any]
    ) -> None:
        """A listener that is stopped and replaced is no host that is missing."""
        host = make_host(workers=2)
        leader = host.leading_worker()
        leader.signal(signal.SIGSTOP)
        other = next(worker for worker in host.workers if worker is not leader)
        hosts.until(lambda: other.call(hosts.leader)["pid"] == other.pid)
        hosts.until(lambda: other.call(hosts.link)["connected_since"] is not None)
        status, found = probe("--area", "area", "--timeout", "30")
        [area] = found["areas"]
        assert (0, 0, [other.pid]) == (
            status,
            area["missing"],
            [each["pid"] for each in area["arrivals"]],
        )

    def test_nobody(self, url: str, probe: Callable[..., Any]) -> None:
        """Where nobody listens, nobody answers: that is no success."""
        status, found = probe("--area", "area", "--timeout", "0.1")
        [area] = found["areas"]
        assert (1, 0, 0, []) == (status, area["listeners"], area["missing"], area["arrivals"])

    def test_behind(self, make_host: Callable[..., Any], probe: Callable[..., Any]) -> None:
        """Who has missed something answers when it has made up for it, and not before."""
        host = make_host()
        names = host.names()
        with Sender(host) as sender:
            # Two numbers that are given and logged, and not told: the listener must read the log.
            for _ in range(2):
                seq = int(sender.server.execute_command("INCR", names.seq))
                data = message.invalidation(bytes(16), seq, message.body(0, [b"sk"], [0]))
                sender.server.execute_command("XADD", names.log, f"{seq}-0", "m", data)
        before = host.counters()
        status, _ = probe("--area", "area", "--timeout", "30")
        assert 0 == status
        assert before["replayed"] + 2 <= host.count("replayed")


class Sender:
    """A plain client of the Redis that a host has."""

    def __init__(self, host: Any) -> None:
        import redis

        found = host.settings["redis"].replace("valkey", "redis", 1)
        self.server = redis.Redis.from_url(found, protocol=2)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.server.close()


class TestFlood:
    def test_harmless(
        self, make_host: Callable[..., Any], url: str, namespace: str, clients: Any
    ) -> None:
        """Of a thousand probes a second few are answered, all are applied, and reads go on."""
        host = make_host(freshness_bound=2.0)
        client = clients.connect(url, namespace=namespace)
        with Sender(host) as sender:
            heard = sender.server.pubsub()
            channel = answers_channel(namespace, bytes(16)).replace("0" * 32, "*")
            heard.psubscribe(channel)
            assert "psubscribe" == heard.get_message(timeout=30)["type"]
            before = host.count("invalidation_receive")
            began = time.monotonic()
            for n in range(1000):
                client.probe("area", n.to_bytes(16, "big"), bytes(16))
            hosts.until(lambda: host.count("invalidation_receive") >= before + 1000)
            hosts.until(lambda: host.call(hosts.freshness, "area") < 1.5)
            answers = 0
            while heard.get_message(timeout=0.05) is not None:
                answers += 1
            took = time.monotonic() - began
            heard.close()
        assert ANSWERS <= answers <= ANSWERS_AT_ONCE + ANSWERS * (took + 1)
        assert (0, 0) == (host.count("gap"), host.count("flush"))

    def test_forged(self, make_host: Callable[..., Any], probe: Callable[..., Any]) -> None:
        """What is no answer, or one of another look, is not shown, and ends nothing."""
        host = make_host()
        junk = [b"", b"1 P ", b"1 P \xc1", os.urandom(300)]
        junk.append(message.answer(b"f" * 16, 1, "forged", [("area", 1)]))
        junk.append(message.answer(b"f" * 16, 1, "forged", [("other", 2**40)]))
        stop = threading.Event()
        with Sender(host) as sender, ended(stop, lambda: forge(sender, junk, stop)):
            status, found = probe("--area", "area")
        assert 0 == status
        assert {origin_of(host)} == origins(found["areas"][0])


def forge(sender: Sender, junk: list[bytes], stop: threading.Event) -> None:
    """Publish on every channel of answers that there is, until told to stop."""
    while not stop.is_set():
        for channel in sender.server.pubsub_channels("accelerator:heartbeat:*:probe:*"):
            for data in junk:
                sender.server.publish(channel, data)


@contextlib.contextmanager
def ended(stop: threading.Event, work: Callable[[], None]) -> Iterator[None]:
    """Have a thread work meanwhile."""
    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(hosts.PATIENCE)
        assert not thread.is_alive()


class TestServer:
    def test_away(
        self, namespace: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Redis away: status 1, and said."""
        monkeypatch.setenv("ACCELERATOR_NAMESPACE", namespace)
        assert 1 == cli.main(["probe", "--area", "a", "--redis", "unix:///nowhere/redis.sock"])
        assert "there is no connection to Redis" in capsys.readouterr().err

    def test_stopped(
        self,
        server: RedisServer,
        namespace: str,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        """A server that does not answer is waited for for some seconds, and said."""
        monkeypatch.setenv("ACCELERATOR_NAMESPACE", namespace)
        os.kill(server.pid, signal.SIGSTOP)
        try:
            assert 1 == cli.main(["probe", "--area", "a", "--redis", server.url])
        finally:
            os.kill(server.pid, signal.SIGCONT)
        assert "did not answer in time" in capsys.readouterr().err

    @pytest.mark.parametrize(("rules", "known"), [((), False), (("+pubsub",), True)])
    def test_rights_of_the_documentation(
        self,
        server: RedisServer,
        make_host: Callable[..., Any],
        probe: Callable[..., Any],
        rules: tuple[str, ...],
        known: bool,
    ) -> None:
        """The documented user can do it; with +pubsub it is also told which hosts are missing."""
        [line] = re.findall(r"^ACL SETUSER shop (.*)$", PAGE.read_text("utf-8"), re.MULTILINE)
        words = [word for word in line.split() if not word.startswith(">")]
        namespace = "shop"
        server.command("ACL", "SETUSER", "shop", *words, ">secret", *rules)
        url = f"redis://shop:secret@{HOST}:{server.port}/0"
        one = make_host(redis=url, namespace=namespace)
        two = make_host(redis=url, namespace=namespace)
        missing = origin_of(two)
        os.environ["ACCELERATOR_NAMESPACE"] = namespace  # restored by the fixture's monkeypatch
        assert 0 == probe("--name", one.name, redis=url)[0]
        two.workers[0].signal(signal.SIGSTOP)
        status, found = probe("--name", one.name, "--timeout", "0.5", redis=url)
        [area] = found["areas"]
        assert (1, 2, 1) == (status, area["listeners"], area["missing"])
        assert ([missing] if known else []) == area["silent"]
        assert known == (found["hosts"] is not None)

    def test_database(
        self, server: RedisServer, make_host: Callable[..., Any], probe: Callable[..., Any]
    ) -> None:
        """A database of its own has hosts of its own."""
        one = make_host(redis=f"{server.url}?db=1")
        make_host(redis=server.url)
        status, found = probe("--area", "area", redis=f"{server.url}?db=1")
        [area] = found["areas"]
        assert (0, 1, {origin_of(one)}) == (status, area["listeners"], origins(area))
        assert {origin_of(one)} == set(found["hosts"])

    def test_cluster(
        self,
        cluster: tuple[str, int],
        make_host: Callable[..., Any],
        probe: Callable[..., Any],
    ) -> None:
        """A URL of any node does: hosts are counted on all of them."""
        import redis

        host, port = cluster
        one = make_host(redis=redis.RedisCluster(host, port))
        two = make_host(redis=redis.RedisCluster(host, port))
        missing = origin_of(two)
        url = f"redis://{host}:{port}"
        status, found = probe("--area", "area", redis=url)
        assert (0, 2) == (status, found["areas"][0]["listeners"])
        two.workers[0].signal(signal.SIGSTOP)
        status, found = probe("--area", "area", "--timeout", "0.5", redis=url)
        assert (1, [missing]) == (status, found["areas"][0]["silent"])
        assert {origin_of(one)} == origins(found["areas"][0])

    def test_sentinel(
        self, namespace: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """A sentinel's URL: status 2, and what to give instead."""
        monkeypatch.setenv("ACCELERATOR_NAMESPACE", namespace)
        monkeypatch.setattr("accelerator.remote.arrivals._mode", lambda _: "sentinel")
        with RedisServer() as server:
            assert 2 == cli.main(["probe", "--area", "a", "--redis", server.url])
        assert "give the URL of the master" in capsys.readouterr().err


class TestSettings:
    def test_without_redis(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """No Redis in the settings: status 2; a second level of one's own has no such channel."""
        monkeypatch.delenv("ACCELERATOR_REDIS", raising=False)
        assert 2 == cli.main(["probe", "--area", "a"])
        assert "second level of their own (remote=) cannot be probed" in capsys.readouterr().err

    def test_without_area(
        self, url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """No segment here, and no area named: status 2."""
        monkeypatch.setenv("ACCELERATOR_REDIS", url)
        assert 2 == cli.main(["probe", "--name", f"none-{uuid.uuid4().hex[:8]}"])
        assert "--area" in capsys.readouterr().err
