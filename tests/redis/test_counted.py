"""What is counted about Redis, for real: failures by what they were for, and violations."""

from collections.abc import Callable
from typing import Any

import hosts
import pytest

from accelerator.demo.redis_server import RedisServer

PURPOSES = ("get", "fill", "set", "del", "atomic")


def failures(host: Any) -> dict[str, int]:
    """By purpose, of whatever kind."""
    counted = host.counters()
    return {
        purpose: counted[f"l2_error_{purpose}"] + counted[f"l2_timeout_{purpose}"]
        for purpose in PURPOSES
    }


def add(key: Any) -> str:
    """In a worker: what has become of an add."""
    try:
        hosts.cache().add(key, 1)
    except Exception as error:
        return type(error).__name__
    return ""


class TestFailures:
    @pytest.mark.parametrize(
        ("operation", "purpose"),
        [
            (("area.set", 1, "x"), "set"),
            (("area.delete", 1), "del"),
            (("area.mdelete", [1, 2]), "del"),
            (("area.clear",), "del"),
        ],
        ids=lambda it: it if isinstance(it, str) else it[0],
    )
    def test_purpose(
        self,
        server: RedisServer,
        make_host: Callable[..., Any],
        operation: tuple[Any, ...],
        purpose: str,
    ) -> None:
        """The first call after Redis is gone fails, and is counted by what it was for."""
        host = make_host(redis=server.url)
        server.kill()
        host.call(*operation)
        assert 1 <= failures(host)[purpose]
        assert {purpose} == {name for name, n in failures(host).items() if n}

    def test_read(self, server: RedisServer, make_host: Callable[..., Any]) -> None:
        """A read that Redis refuses; the host goes on hearing from it."""
        host = make_host(redis=server.url)
        server.command("ACL", "SETUSER", "default", "-mget")
        assert None is host.call("area.get", 1)
        assert {"get"} == {name for name, n in failures(host).items() if n}

    def test_atomic(self, server: RedisServer, make_host: Callable[..., Any]) -> None:
        """What Redis decides fails for the caller."""
        host = make_host(redis=server.url)
        server.kill()
        assert "RemoteError" == host.call(add, 1)
        assert {"atomic"} == {name for name, n in failures(host).items() if n}


class TestViolations:
    def test_number_set_back(self, server: RedisServer, make_host: Callable[..., Any]) -> None:
        """Somebody sets an area's number back by hand: counted once, and the host goes on."""
        host = make_host(redis=server.url)
        host.call("area.set", 1, "one")
        server.command("SET", host.names().seq, "7")
        hosts.until(lambda: host.count("consistency_violation") == 1)
        host.wait_in_step()
        host.call("area.set", 1, "two")
        assert "two" == host.call("area.get", 1)
        assert 1 == host.count("consistency_violation")

    def test_made_up(self, server: RedisServer, make_host: Callable[..., Any]) -> None:
        """Somebody publishes a message of before once more: counted."""
        host = make_host(redis=server.url)
        host.call("area.set", 1, "one")
        names = host.names()
        said = server.command("XREVRANGE", names.log, "+", "-", "COUNT", "1")
        data = said[said.index(b"1 ") :].removesuffix(b"\r\n")
        hosts.publish(server, names.channel, data)
        hosts.until(lambda: host.count("consistency_violation") == 1)

    @pytest.mark.parametrize("fault", ["flushall", "evicted", "restarted", "log"])
    def test_faults_are_none(
        self, server: RedisServer, make_host: Callable[..., Any], fault: str
    ) -> None:
        """What a server may lose by itself is no violation."""
        host = make_host(redis=server.url)
        for n in range(5):
            host.call("area.set", n, "one")
        before = host.count("gap")
        if fault == "flushall":
            server.command("FLUSHALL")
        elif fault == "evicted":
            server.command("DEL", host.names().seq)
        elif fault == "log":
            server.command("DEL", host.names().log)
        else:
            server.kill()
            server.start()
        host.wait_in_step()
        host.call("area.set", 1, "two")
        host.call("area.delete", 1)
        hosts.until(lambda: host.call(hosts.freshness, "area") < 1.5)
        assert 0 == host.count("consistency_violation")
        assert before <= host.count("gap")
