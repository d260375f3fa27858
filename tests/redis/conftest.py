"""Real servers for these tests, and the two kinds of clients under one roof."""

import asyncio
import importlib.util
import inspect
import os
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import redis

from accelerator import remote
from accelerator.config import Settings
from accelerator.demo.fault_proxy import FaultProxy
from accelerator.demo.redis_server import HOST, RedisServer, external_url

ORIGIN = bytes(range(16))


def load(name: str, path: str) -> ModuleType:
    """Import what is no test, once, under a name that forked workers know as well."""
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).parent / path)
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules[name]


hosts = load("hosts", "hosts.py")
processes: Any = load("processes", "../process/conftest.py")
calls, gates, crowd, fork = processes.calls, processes.gates, processes.crowd, processes.fork


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


@pytest.fixture
def namespace() -> str:
    """Names in Redis that no other test has."""
    return f"test-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def make_host(url: str, namespace: str) -> Iterator[Callable[..., Any]]:
    """
    Make hosts, in step with the shared server unless said otherwise; their workers end as it does.

    Their time limit is long, as the machine may be busy; tests of faults give the usual one.
    """
    made: list[Any] = []

    def make(
        areas: Mapping[str, Any] | None = None,
        *,
        redis: str = url,
        in_step: bool = True,
        **settings: Any,
    ) -> Any:
        settings = {"redis_timeout": 5.0, "namespace": namespace, **settings}
        host = hosts.Host(redis, areas or {"area": {}}, **settings)
        made.append(host)
        return host.wait_in_step() if in_step else host

    yield make
    for host in made:
        host.close()


@pytest.fixture
def make_monitor() -> Iterator[Callable[..., Any]]:
    """Watch the commands of a test's own server."""
    made: list[Any] = []

    def make(server: RedisServer) -> Any:
        made.append(hosts.Monitor(server))
        return made[-1]

    yield make
    for monitor in made:
        monitor.close()
