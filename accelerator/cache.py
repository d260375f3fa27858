"""
LevelCache: the class that applications use, and which options it takes.

What it does is in the classes below it: operations (writing), reads, twins (for async code), and
the hit methods in C.
"""

from __future__ import annotations

import functools
from types import MethodDescriptorType
from typing import TYPE_CHECKING, Any, Final, TypedDict, overload

from accelerator import local, runtime, tags
from accelerator.aio import AsyncView
from accelerator.config import AreaConfig
from accelerator.entry import K, V
from accelerator.errors import ConfigError
from accelerator.loader import Source
from accelerator.twins import AsyncTwins

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterable
    from typing import Unpack

    from accelerator.durations import Duration
    from accelerator.entry import CacheMode, ReadOptions, ReadOptionValues
    from accelerator.loader import LoaderOf
    from accelerator.reads import D

_HIT_METHODS: Final = ("get", "mget", "set")

_LATER: Final = ("key_converter",)
"""Options that nothing acts on in this version."""


class AreaOptions(TypedDict, total=False):
    """Options of an area as LevelCache takes them; AreaConfig tells what each does."""

    mode: CacheMode | str | None
    local_ttl: Duration | None
    remote_ttl: Duration | None
    null_ttl: Duration | None
    ttl_jitter_ratio: float | None
    cache_null_value: bool
    stale_ttl: Duration | None
    stale_on_error: bool
    allow_stale: bool
    error_ttl: Duration
    max_staleness: Duration | None
    on_desync: str
    max_value_size: int | str
    objects: str
    codec: Any
    local: Any
    verify: str
    version: str | int | None
    loader_timeout: Duration | None
    batch_timeout: Duration | None
    wait_timeout: Duration | None
    soft_timeout: Duration | None
    lease: Duration
    max_loads: int
    penetration_protect: bool
    background: Any
    key_converter: Any
    warmup_enabled: bool
    warmup_batch_size: int
    refresh_ahead: bool
    refresh_ahead_window: Duration
    broadcast_invalidation: bool | None
    broadcast_sets: bool | None
    compress_over: int | None
    quota: int | None
    tags: Iterable[str]


class LevelCache(AsyncTwins[K, V]):
    """
    One area of the cache that all processes of an application share on a host.

    May be created at import time, before the server forks: the first use attaches.

    ``LevelCache[int, User]("users")`` tells type checkers what keys and values are; nothing is
    checked when the program runs.  Where ``None`` is stored, it is one of the values:
    ``LevelCache[int, User | None]``.

    Args:
        area: Name of the area; its keys meet no other area's.
        loader: What is asked on a miss: a function of the key, or an object with ``load`` and
            perhaps ``mload``; each may be async, and have a parameter ``context``.
        options: See AreaConfig; durations are seconds, timedelta, or text such as "5m", sizes are
            bytes or text such as "64KiB".

    Raises:
        ConfigError: An option is wrong, can never have an effect, or is not supported yet.  At the
            first use: *mode* or *codec* needs a setting that is not given.

    The hot methods get(), mget(), set() and ``key in cache`` are implemented in C.

    Keys are str, bytes, int, UUID, None, bool, or tuples of those.  All methods may be called from
    any thread; a method with the prefix ``a`` is the same for async code, and so is the method
    without a prefix of *aio*.
    """

    @overload
    def __init__(
        self, area: str = ..., *, loader: None = ..., **options: Unpack[AreaOptions]
    ) -> None: ...
    @overload
    def __init__(
        self,
        area: str = ...,
        *,
        loader: LoaderOf[K, Awaitable[V]],
        **options: Unpack[AreaOptions],
    ) -> None: ...
    @overload
    def __init__(
        self, area: str = ..., *, loader: LoaderOf[K, V], **options: Unpack[AreaOptions]
    ) -> None: ...
    def __init__(
        self, area: str = "default", *, loader: Any = None, **options: Unpack[AreaOptions]
    ) -> None:
        super().__init__()
        config = AreaConfig.build(area=area, loader=loader, **options)
        _refuse_what_comes_later(config)
        if config.local is not None:
            own: Any = type(self)
            self.__class__ = _with_own_local(own)
        self._config = config
        self._source = None if config.loader is None else Source(config.loader)
        self._own_tags = tags.encoded(config.tags)
        self._told = set()
        runtime.add(self, config.max_value_size)

    if TYPE_CHECKING:  # what the inherited ones take and answer, which are C and know no types

        @overload  # type: ignore[override]
        def get(
            self,
            key: K,
            /,
            default: None = None,
            *,
            options: ReadOptions | None = None,
            **read_options: Unpack[ReadOptionValues],
        ) -> V | None: ...
        @overload
        def get(
            self,
            key: K,
            /,
            default: D,
            *,
            options: ReadOptions | None = None,
            **read_options: Unpack[ReadOptionValues],
        ) -> V | D: ...
        def get(self, key: Any, /, default: Any = None, **read_options: Any) -> Any:
            """Read one key."""

        @overload  # type: ignore[override]
        def mget(
            self,
            keys: Iterable[K],
            /,
            default: None = None,
            *,
            options: ReadOptions | None = None,
            **read_options: Unpack[ReadOptionValues],
        ) -> dict[K, V | None]: ...
        @overload
        def mget(
            self,
            keys: Iterable[K],
            /,
            default: D,
            *,
            options: ReadOptions | None = None,
            **read_options: Unpack[ReadOptionValues],
        ) -> dict[K, V | D]: ...
        def mget(self, keys: Any, /, default: Any = None, **read_options: Any) -> Any:
            """Read many keys."""

        def set(
            self,
            key: K,
            value: V,
            /,
            ttl: Duration | None = ...,
            *,
            tags: Iterable[str] | None = None,
            broadcast: bool | None = None,
        ) -> None:
            """Store one key."""

    def __init_subclass__(cls, **keywords: Any) -> None:
        """Give the class C methods of its own, which CPython calls faster than inherited ones."""
        super().__init_subclass__(**keywords)
        overridden = [
            (name, cls.__dict__.get(name))
            for name in _HIT_METHODS
            if not isinstance(getattr(cls, name), MethodDescriptorType)
        ]
        local.install(cls)
        for name, own in overridden if local.NATIVE else ():
            if own is not None:
                setattr(cls, name, own)
            else:
                delattr(cls, name)  # a class between this one and LevelCache has its own

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._config.area!r})"

    @functools.cached_property
    def aio(self) -> AsyncView[K, V]:
        """The same cache for async code: ``await cache.aio.get(key)`` is ``cache.aget(key)``."""
        return AsyncView(self)


@functools.cache
def _with_own_local(cls: type) -> type:
    """Give the class of a cache whose values lie in an object of the application's."""
    from accelerator.own_local import OwnLocal  # noqa: PLC0415  only where there is one

    return type(cls.__name__, (OwnLocal, cls), {"__module__": cls.__module__})


def _refuse_what_comes_later(config: AreaConfig) -> None:
    """Silence about an option that nothing acts on would be a promise."""
    defaults = AreaConfig()
    for name in _LATER:
        if getattr(config, name) != getattr(defaults, name):
            raise ConfigError(
                f"{name} is not supported by this version of accelerator: leave it out",
                setting=name,
                area=config.area,
            )


local.install(LevelCache)
