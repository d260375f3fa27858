"""A Redis that begins anew from what it wrote to its disk some time ago."""

import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from accelerator.config import Settings
from accelerator.demo.redis_server import RedisServer
from accelerator.remote import RedisRemote, connect

ORIGIN = bytes(range(16))


@pytest.fixture
def client(server: RedisServer) -> Iterator[RedisRemote]:
    """A client of the test's own server."""
    made = connect(Settings(redis=server.url, namespace=f"test-{uuid.uuid4().hex}"))
    yield made
    made.close()


@pytest.fixture
def raw(server: RedisServer) -> Iterator[Any]:
    """What redis-py itself makes of it."""
    with redis.Redis.from_url(server.url) as made:
        yield made


class TestRecheck:
    def test_first_look(self, client: RedisRemote) -> None:
        """A server that nobody has looked at before is as good as any."""
        assert [] == client.recheck(["users", "orders"], ORIGIN)
        assert [] == client.recheck(["users", "orders"], ORIGIN)

    def test_began_anew(self, client: RedisRemote, raw: Any) -> None:
        """What another run noted before this one began: all of it is dropped, and told, once."""
        [before] = client.lease("users", [b"skey"], 1.0)
        raw.set(client.plans.names("users").run, b"abc 1")
        last = client.beat(["users"], "channel", 1)[1][0]
        assert ["users"] == client.recheck(["users"], ORIGIN)
        [after] = client.lease("users", [b"skey"], 1.0)
        assert before.generation != after.generation
        # Ahead of what the lost run may have given: no load of its time is taken for a later one.
        assert last < client.beat(["users"], "channel", 2)[1][0]
        assert [] == client.recheck(["users"], ORIGIN)

    def test_ran_already(self, client: RedisRemote, raw: Any) -> None:
        """What another run noted while this one ran already: it was promoted, and is kept."""
        raw.set(client.plans.names("users").run, f"abc {int(time.time()) + 5}")
        assert [] == client.recheck(["users"], ORIGIN)

    def test_garbage(self, client: RedisRemote, raw: Any) -> None:
        """A note that cannot be read is no reason to believe the rest."""
        raw.set(client.plans.names("users").run, b"\x00garbage")
        assert ["users"] == client.recheck(["users"], ORIGIN)


class TestHost:
    def test_deleted_stays_deleted(self, server: RedisServer, make_host: Any) -> None:
        """What was deleted behind the last snapshot is not back after a restart, for nobody."""
        host = make_host({"area": {}, "remote": {"mode": "remote"}}, redis=server.url)
        host.call("area.set", "key", "old")
        server.command("SAVE")
        assert host.call("area.delete", "key")
        server.restart()
        seen = {host.call("area.get", "key")}
        # Until Redis is believed again: what is written there is read there.
        deadline = time.monotonic() + 30.0
        while host.call("remote.get", "other") is None:
            assert time.monotonic() < deadline, "Redis is never read again"
            seen.add(host.call("area.get", "key"))
            host.call("remote.set", "other", 1)
        seen |= {host.call("area.get", "key") for _ in range(10)}
        assert {None} == seen
