"""
LevelCache over every kind of memory it can stand on.

"shared" is a segment in /dev/shm, "private" the same structure in memory of this process, and
"process" the twin in pure Python.  The last one is chosen when the package is imported, so the
modules above that choice are imported a second time, beside the first.

"redis" is private memory in front of Redis: what the public methods promise is the same there.  Not
asked of it is what is about memory alone, which such tests say with ``local_only``, and whatever
moves the clock, as Redis has one of its own.  "own" is the same in front of a second level of the
application's own, the example in docs.  What is about Redis alone asks for ``redis_only``.
"""

import contextlib
import importlib
import importlib.util
import os
import socket
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import accelerator
from accelerator import local
from accelerator.demo import redis_server
from accelerator.testing import Clock, Isolated

CHOOSING = (
    "local",
    "runtime",
    "binding",
    "own_local",
    "looking",
    "writing",
    "operations",
    "reads",
    "twins",
    "caching",
    "evicting",
    "batching",
    "callables",
    "decorating",
    "decorators",
    "cache",
    "testing",
)
"""Modules that know which of the two they have, in the order of their imports."""


def import_pure() -> dict[str, ModuleType]:
    """Import CHOOSING once more, on the twin in pure Python."""
    names = [f"accelerator.{module}" for module in CHOOSING]
    first = {name: sys.modules.pop(name, None) for name in names}
    attributes = {module: getattr(accelerator, module, None) for module in CHOOSING}
    before = os.environ.get("ACCELERATOR_PURE")
    os.environ["ACCELERATOR_PURE"] = "1"
    try:
        return {module: importlib.import_module(f"accelerator.{module}") for module in CHOOSING}
    finally:
        os.environ.pop("ACCELERATOR_PURE")
        if before is not None:
            os.environ["ACCELERATOR_PURE"] = before
        for name, module in first.items():
            if module is None:
                sys.modules.pop(name)
            else:
                sys.modules[name] = module
        for name, module in attributes.items():
            setattr(accelerator, name, module)


def normal() -> dict[str, ModuleType]:
    return {module: importlib.import_module(f"accelerator.{module}") for module in CHOOSING}


KINDS = ["shared", "private", "process"] if local.NATIVE else ["process"]
PURE = import_pure() if local.NATIVE else normal()


class Memory:
    """One kind of memory, and caches in it."""

    def __init__(self, kind: str, modules: dict[str, ModuleType], isolated: Isolated) -> None:
        self.kind = kind
        self.modules = modules
        self.cache_class: type = modules["cache"].LevelCache
        self.clock: Clock = isolated.clock
        self.segment = isolated.memory

    def cache(self, area: str = "area", **options: Any) -> Any:
        # Jitter makes lives random; the tests that want it say so.
        return self.cache_class(area, **{"ttl_jitter_ratio": None, **options})


EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "sqlite_backend.py"

OVER_REDIS = (
    *("test_basics", "test_atomic", "test_lives", "test_codecs", "test_snapshots"),
    *("test_tags_api", "test_views", "test_events"),
    *("test_seed_cache", "test_seed_operator", "test_seed_redis"),
)
"""Modules whose tests are about both levels alike."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run every test on each kind of memory that it is about."""
    if "memory" not in metafunc.fixturenames:
        return
    is_of_both = metafunc.module.__name__.rpartition(".")[2] in OVER_REDIS
    alone = {"clock", "local_only"} & set(metafunc.fixturenames)
    kinds = [*KINDS, "redis", "own"] if is_of_both and not alone else KINDS
    if "redis_only" in metafunc.fixturenames:
        kinds = ["redis"]
    metafunc.parametrize("memory", kinds, indirect=True)


@pytest.fixture
def local_only() -> None:
    """Asked for by tests of what is only so without Redis."""


@pytest.fixture
def redis_only() -> None:
    """Asked for by tests of what is only so with Redis."""


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """Where a Redis is: the one in the environment, or one of our own."""
    with redis_server.redis_url() as url:
        yield url


@pytest.fixture
def own_remote(tmp_path: Path) -> Any:
    """A second level of the application's own."""
    if not EXAMPLE.exists():
        pytest.skip("only the package is here")
    spec = importlib.util.spec_from_file_location("sqlite_backend", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["sqlite_backend"] = module
    spec.loader.exec_module(module)
    return module.SqliteBackend(tmp_path / "cache.db", wait=10.0)


def second_level(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Settings that say which second level there is."""
    if request.param not in {"redis", "own"}:
        return {}
    fixture = {"redis": "redis_url", "own": "own_remote"}[request.param]
    setting = {"redis": "redis", "own": "remote"}[request.param]
    return {
        setting: request.getfixturevalue(fixture),
        "namespace": uuid.uuid4().hex,
        "redis_timeout": 5.0,
        "freshness_bound": 60.0,  # nothing gets so old here
    }


@pytest.fixture
def memory(request: pytest.FixtureRequest) -> Iterator[Memory]:
    modules = PURE if request.param == "process" else normal()
    settings = second_level(request)
    is_shared = request.param == "shared"
    with modules["testing"].isolated(size="4MiB", shared=is_shared, **settings) as isolated:
        if settings:
            # Nobody listens: what an own write says of itself would come at any moment.
            second = modules["runtime"].current().second
            second._listener.start = lambda: None
        memory = Memory(request.param, modules, isolated)
        yield memory
        assert [] == memory.segment.check()


@pytest.fixture
def make(memory: Memory) -> Callable[..., Any]:
    """Make a cache; no jitter unless asked for."""
    return memory.cache


@pytest.fixture
def cache(memory: Memory) -> Any:
    return memory.cache()


@pytest.fixture
def clock(memory: Memory) -> Clock:
    return memory.clock


class Deaf:
    """A server that takes connections into its backlog, and answers nothing."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._socket.setblocking(False)
        self.url = f"redis://127.0.0.1:{self._socket.getsockname()[1]}"

    def was_called(self) -> bool:
        try:
            self._socket.accept()[0].close()
        except BlockingIOError:
            return False
        return True

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def deaf_redis(memory: Memory, local_only: None) -> Iterator[Deaf]:
    """A Redis that answers nothing, behind memory of the same kind; nobody listens."""
    deaf = Deaf()
    settings = {"redis": deaf.url, "namespace": uuid.uuid4().hex, "redis_timeout": 30.0}
    is_shared = memory.kind == "shared"
    try:
        with memory.modules["testing"].isolated(shared=is_shared, **settings):
            memory.modules["runtime"].current().second._listener.start = lambda: None
            yield deaf
    finally:
        deaf.close()


@contextlib.contextmanager
def unchanged(cache: Any, *keys: Any) -> Iterator[None]:
    """Hold that the block changes neither what is stored nor what is known about it."""
    before = {key: cache.get_entry(key) for key in keys}
    yield
    for key, entry in before.items():
        now = cache.get_entry(key)
        assert (entry is None) == (now is None)
        if entry is not None:
            assert (entry.value, entry.version) == (now.value, now.version)


@pytest.fixture(name="unchanged")
def unchanged_fixture() -> Callable[..., Any]:
    return unchanged
