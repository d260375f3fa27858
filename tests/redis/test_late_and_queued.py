"""What Redis has not been told yet, what it is told too late, and what others have put there."""

import sys
import time
from collections.abc import Callable
from typing import Any

import pytest
import redis

from accelerator import local, runtime
from accelerator.demo.redis_server import RedisServer
from accelerator.errors import RemoteError

pytestmark = pytest.mark.skipif(not local.NATIVE, reason="processes share through the native part")

hosts: Any = sys.modules["hosts"]  # beside this file, loaded by conftest.py
until = hosts.until

MakeHost = Callable[..., Any]


# --- in the workers -----------------------------------------------------------------------------

_held: list[tuple[Any, Any]] = []


def remote() -> Any:
    """What this worker asks."""
    second = runtime.current().second
    assert second is not None
    return second._remote


def hold_next_write() -> None:
    """Have the next explicit write time out here, and stay under way until it is let go."""
    mine = remote()

    def write(*arguments: Any, **keywords: Any) -> None:
        del mine.write  # back to that of the class
        _held.append((arguments, keywords))
        raise RemoteError("Redis did not answer in time", reason="timeout")

    mine.write = write


def let_go() -> None:
    """Have Redis execute what was under way."""
    arguments, keywords = _held.pop()
    remote().write(*arguments, **keywords)


def change_and_look(change: str, *arguments: Any) -> Any:
    """Change something that Redis does not take, and look at once, as any caller would."""
    hold_next_write()
    getattr(hosts.cache(), change)(*arguments)
    return hosts.cache().get("key")


def look_without_local(change: str, *arguments: Any) -> Any:
    """Do the same, and look at what Redis has, as the copy here is gone."""
    hold_next_write()
    getattr(hosts.cache(), change)(*arguments)
    runtime.current().memory.invalidate("area", [local.encode_key("key")])
    return hosts.cache().get("key"), hosts.cache().mget(["key", "other"])


class TestQueued:
    @pytest.mark.parametrize("change", ["delete", "mdelete"])
    def test_deleted_for_the_whole_host(self, make_host: MakeHost, change: str) -> None:
        """What is deleted here is not fetched from a Redis that has yet to hear of it."""
        host = make_host(workers=1)
        wanted = ["key"] if change == "mdelete" else "key"
        for turn in range(5):
            host.call("set", "key", turn)
            assert host.call(change_and_look, change, wanted) is None
            until(lambda: host.link()["outbox_depth"] == 0)
        assert host.call("get", "key") is None

    def test_set_and_lost_here(self, make_host: MakeHost) -> None:
        """What Redis did not take of a set is not read as it was before; other keys are."""
        host = make_host(workers=1)
        host.call("set", "key", "old")
        host.call("set", "other", "there")
        expected = (None, {"key": None, "other": "there"})
        assert expected == host.call(look_without_local, "set", "key", "new")

    def test_read_again_when_told(self, make_host: MakeHost) -> None:
        """Behind the replay of what was queued, Redis is read again for the key."""
        host, other = make_host(workers=1), make_host()
        host.call("set", "key", "old")
        assert host.call(change_and_look, "delete", "key") is None
        until(lambda: host.link()["outbox_depth"] == 0)
        other.call("set", "key", "newer")
        until(lambda: host.call("get", "key") == "newer")


class TestLate:
    @pytest.mark.parametrize("replayed", [False, True])
    @pytest.mark.parametrize("change", [("delete", "key"), ("set", "key", "new")])
    def test_set_behind_a_change(
        self, make_host: MakeHost, change: tuple[str, ...], replayed: bool
    ) -> None:
        """
        A set that was given up does not come back behind what was changed since.

        Its connection may still carry it on, for as long as a lost packet is sent again.
        """
        host, other = make_host(workers=2), make_host()
        worker = host.workers[0]
        worker.call(hold_next_write)
        worker.call("set", "key", "given up")
        if replayed:
            until(lambda: host.link()["outbox_depth"] == 0)
        worker.call(*change)
        worker.call(let_go)
        looking = [*host.workers, *other.workers]
        until(lambda: all(each.call("get", "key") != "given up" for each in looking))
        # And it stays like that: nobody has it any more.
        assert {None} == {each.call("get", "key") for each in looking}


class TestForeign:
    @pytest.fixture
    def raw(self, server: RedisServer) -> Any:
        with redis.Redis.from_url(server.url) as made:
            yield made

    def test_of_another_type(self, make_host: MakeHost, server: RedisServer, raw: Any) -> None:
        """A list under the name of a value is no value, and the next write replaces it."""
        host = make_host(redis=server.url)
        for change in (("set", "key", 1), ("add", "key", 1), ("incr", "key", 1)):
            raw.delete(host.name_of("key"))
            raw.lpush(host.name_of("key"), "foreign")
            assert host.call("get", "key") is None
            arguments = {"default": 0} if change[0] == "incr" else {}
            host.call(*change, **arguments)
            assert b"string" == raw.type(host.name_of("key")), change[0]
            host.call("delete", "key")
            assert 0 == raw.exists(host.name_of("key"))
        assert 0 == host.link()["outbox_depth"]

    def test_does_not_stop_the_outbox(
        self, make_host: MakeHost, server: RedisServer, raw: Any
    ) -> None:
        """A foreign key among those that are queued keeps none of the others from being sent."""
        host = make_host(redis=server.url)
        raw.lpush(host.name_of("foreign"), "foreign")
        host.call("set", "key", "old")
        for key in ("foreign", "key"):
            host.call(hold_next_write)
            host.call("delete", key)
        until(lambda: host.link()["outbox_depth"] == 0)
        assert 0 == raw.exists(host.name_of("key"))

    @pytest.mark.parametrize("name", ["seq", "log", "gen", "run", "beat"])
    def test_control_keys(
        self, make_host: MakeHost, server: RedisServer, raw: Any, name: str
    ) -> None:
        """Hosts agree again when somebody has put a list where the area keeps its numbers."""
        host, other = make_host(redis=server.url), make_host(redis=server.url)
        host.call("set", "key", 1)
        raw.delete(getattr(host.names(), name))
        raw.lpush(getattr(host.names(), name), "foreign")
        deadline = time.monotonic() + hosts.PATIENCE
        number = 1
        while other.call("get", "key") != number:
            assert time.monotonic() < deadline, "the other host never hears again"
            number += 1
            host.call("set", "key", number)
            time.sleep(0.05)
        until(lambda: host.link()["outbox_depth"] == 0)


class TestMany:
    def test_more_than_the_outbox_holds(self, make_host: MakeHost) -> None:
        """A large mset or mdelete costs its area nothing but its keys."""
        host, other = make_host(), make_host()
        host.call("set", "kept", "value")
        other.call("get", "kept")
        values = {f"key{number}": number for number in range(3_000)}
        host.call("mset", values)
        assert values == other.call("mget", list(values))
        assert 3_000 == host.call("mdelete", list(values))
        assert 0 == host.link()["outbox_dropped"]
        for each in (host, other):
            assert "value" == each.call("get", "kept")
