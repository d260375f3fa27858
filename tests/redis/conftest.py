"""Real servers for these tests, and the two kinds of clients under one roof."""

import asyncio
import inspect
import os
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from accelerator import remote
from accelerator.config import Settings
from accelerator.demo.fault_proxy import FaultProxy
from accelerator.demo.redis_server import HOST, RedisServer, external_url

ORIGIN = bytes(range(16))


class Awaited:
    """
    An AsyncRedisRemote to be called like a RedisRemote, on a loop of its own.

    So that one test is about both.
    """

    def __init__(self, backend: remote.RedisRemote) -> None:
        self._backend = backend
        self._runner = asyncio.Runner()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*args: Any, **keywords: Any) -> Any:
            return self._runner.run(self._call(name, args, keywords))

        return call

    async def _call(self, name: str, args: Any, keywords: Any) -> Any:
        found = getattr(self._backend.for_loop(), name)(*args, **keywords)
        return await found if inspect.isawaitable(found) else found

    def end(self) -> None:
        self._runner.close()


class Clients:
    """Makes clients, and closes them at the end of the test."""

    def __init__(self) -> None:
        self._made: list[remote.RedisRemote] = []
        self._awaited: list[Awaited] = []

    def connect(self, redis: Any, *, namespace: str | None = None, **settings: Any) -> Any:
        """Make a client for threads; in a namespace that nobody else has, if none is given."""
        namespace = namespace or f"test-{uuid.uuid4().hex}"
        # On a busy machine 0.1 s are soon over; what is about that limit asks for it.
        settings.setdefault("redis_timeout", 5.0)
        made = remote.connect(Settings(redis=redis, namespace=namespace, **settings))
        self._made.append(made)
        return made

    def awaited(self, redis: Any, **settings: Any) -> Any:
        """Make a client for a loop."""
        made = Awaited(self.connect(redis, **settings))
        self._awaited.append(made)
        return made

    def close(self) -> None:
        for awaited in self._awaited:
            awaited.end()
        for made in self._made:
            made.close()


@pytest.fixture
def clients() -> Iterator[Clients]:
    """Makes clients."""
    made = Clients()
    yield made
    made.close()


@pytest.fixture(params=["sync", "async"])
def flavour(request: pytest.FixtureRequest, clients: Clients) -> Callable[..., Any]:
    """Makes a client, once for threads and once for a loop."""
    return clients.connect if request.param == "sync" else clients.awaited


@pytest.fixture(scope="session")
def shared_server() -> Iterator[RedisServer | None]:
    """One server for all tests that leave it as it is; None: the environment names another."""
    if external_url() is not None:
        yield None
        return
    with RedisServer() as server:
        yield server


@pytest.fixture
def url(shared_server: RedisServer | None) -> str:
    """Where a server is that tests share."""
    found = os.environ.get("ACCELERATOR_REDIS_URL") if shared_server is None else shared_server.url
    assert found is not None
    return found


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """A server of the test's own, to be killed, stopped and configured."""
    with RedisServer() as own:
        yield own


@pytest.fixture
def proxy(server: RedisServer) -> Iterator[FaultProxy]:
    """A proxy with faults in front of the test's own server."""
    with FaultProxy(server.socket) as own:
        yield own


@pytest.fixture(scope="session")
def cluster() -> Iterator[tuple[str, int]]:
    """Where a cluster of two servers is, each with half of the slots."""
    options = ("cluster-enabled", "yes")
    with RedisServer(*options) as one, RedisServer(*options) as two:
        one.command("CLUSTER", "ADDSLOTSRANGE", "0", "8191")
        two.command("CLUSTER", "ADDSLOTSRANGE", "8192", "16383")
        two.command("CLUSTER", "SET-CONFIG-EPOCH", "2")
        one.command("CLUSTER", "MEET", HOST, str(two.port))
        deadline = time.monotonic() + 30.0
        while not all(b"cluster_state:ok" in it.command("CLUSTER", "INFO") for it in (one, two)):
            assert time.monotonic() < deadline, "the servers did not become a cluster"
            time.sleep(0.01)
        yield HOST, one.port


@pytest.fixture(params=["server", "cluster"])
def raw(request: pytest.FixtureRequest) -> Any:
    """A plain client, to look behind the scenes: once of a server, and once of a cluster."""
    if request.param == "cluster":
        host, port = request.getfixturevalue("cluster")
        made: Any = redis.RedisCluster(host, port, protocol=2)
    else:
        found = request.getfixturevalue("url").replace("valkey", "redis", 1)
        made = redis.Redis.from_url(found, protocol=2)
    with made:
        yield made


@pytest.fixture
def backend(flavour: Callable[..., Any], raw: Any, request: pytest.FixtureRequest) -> Any:
    """A client of the shared server or cluster, once for threads and once for a loop."""
    if isinstance(raw, redis.RedisCluster):
        return flavour(raw)
    return flavour(request.getfixturevalue("url"))
