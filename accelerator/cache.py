"""
LevelCache: the class that applications use, and which options it takes.

What it does is in the classes below it: operations (writing), reads, twins (for async code), and
the hit methods in C.
"""

from __future__ import annotations

from dataclasses import fields
from types import MethodDescriptorType
from typing import TYPE_CHECKING, Any, Final, TypedDict, TypeVar

from accelerator import decorators, local, runtime
from accelerator.config import AreaConfig
from accelerator.keys import Converter
from accelerator.loader import Source
from accelerator.lock import Lock
from accelerator.twins import AsyncTwins

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import timedelta
    from typing import Unpack

    from accelerator.decorators import (
        BatchOptions,
        CacheableDecorator,
        CacheableOptions,
        ChangeDecorator,
        EvictBatchOptions,
        EvictOptions,
        PutOptions,
    )
    from accelerator.durations import Duration
    from accelerator.entry import CacheMode

_HIT_METHODS: Final = ("get", "mget", "set")

_NAMESPACES_MOST: Final = 1024
"""Views of namespaces that an area remembers."""


C = TypeVar("C", bound="LevelCache")


class AreaOptions(TypedDict, total=False):
    """Options of an area as LevelCache takes them; AreaConfig tells what each does."""

    mode: CacheMode | str | None
    local_ttl: float | str | timedelta | None
    remote_ttl: float | str | timedelta | None
    null_ttl: float | str | timedelta | None
    ttl_jitter_ratio: float | None
    cache_null_value: bool
    stale_ttl: float | str | timedelta | None
    stale_on_error: bool
    allow_stale: bool
    error_ttl: float | str | timedelta
    max_staleness: float | str | timedelta | None
    on_desync: str
    max_value_size: int | str
    objects: str
    codec: Any
    verify: str
    version: str | int | None
    loader: Any
    loader_timeout: float | str | timedelta | None
    batch_timeout: float | str | timedelta | None
    wait_timeout: float | str | timedelta | None
    soft_timeout: float | str | timedelta | None
    lease: float | str | timedelta
    max_loads: int
    penetration_protect: bool
    background: Any
    key_converter: Any
    warmup_enabled: bool
    warmup_batch_size: int
    refresh_ahead: bool
    refresh_ahead_window: float | str | timedelta
    broadcast_invalidation: bool | None
    broadcast_sets: bool | None
    compress_over: int | None
    quota: int | None
    tags: Any


class LevelCache(AsyncTwins):
    """
    One area of the cache that all processes of an application share on a host.

    May be created at import time, before the server forks: the first use attaches.

    Args:
        area: Name of the area; its keys meet no other area's.
        options: See AreaConfig; durations are seconds, timedelta, or text such as "5m".

    Raises:
        ConfigError: An option is wrong, can never have an effect, or is not supported yet.

    The hot methods are implemented in C:

    - ``get(key, default=None, *, options=None, **read_options)``: the value, a cached ``None``
      included; with a loader, what that answers on a miss; *default* if the key is not known.
    - ``mget(keys, default=None, *, options=None, **read_options)``: a dict of every requested key,
      in request order.
    - ``set(key, value, ttl=UNSET, **options)``: store for all processes; *ttl* is the value's life,
      ``None`` for no expiry, 0 to store nothing and drop an older copy.
    - ``key in cache``: whether a fresh value (a cached ``None`` included) is there.

    Keys are str, bytes, int, UUID, None, bool, or tuples of those.  All methods may be called from
    any thread; a method with the prefix ``a`` is the same for async code.
    """

    _namespaces: dict[str, Namespace]
    _views_of_functions: dict[Any, Any]
    """Of decorated functions that find this cache when they are called."""

    def __init__(self, area: str = "default", **options: Unpack[AreaOptions]) -> None:
        super().__init__()
        self._begin_as(AreaConfig.build(area=area, **options))

    def _begin_as(self, config: AreaConfig) -> None:
        self._config = config
        self._source = None if config.loader is None else Source(config.loader)
        convert = config.key_converter
        self._converter = None if convert is None else Converter(convert, config.area)
        self._told = set()
        self._namespaces = {}
        self._views_of_functions = {}
        runtime.add(self, config.max_value_size)

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

    def lock(
        self, name: str, *, lease: Duration | None = None, timeout: Duration | None = None
    ) -> Lock:
        """
        Make a lock by name, for one use at a time in ``with`` or ``async with``; takes nothing yet.

        Args:
            name: Of the lock, within this area; at most 511 bytes.  It meets no key.
            lease: How long a living holder may keep it; None: the area's ``lease``.
            timeout: How long to wait for it; None: without limit.

        Raises:
            TypeError, ValueError: One of these is wrong.
        """
        return Lock(self, name, lease=lease, timeout=timeout)

    @property
    def config(self) -> AreaConfig:
        """The options of this area."""
        return self._config

    # --- views ----------------------------------------------------------------------------------

    def namespace(self, name: str) -> Namespace:
        """
        Give a part of this area, with keys that meet none of the others: those of one tenant, say.

        It is a cache as this one, with its options, its loader (whose ``context.namespace`` tells
        the names) and its counters.  Namespaces nest.  The same name gives the same object again,
        unless there are very many.

        Raises:
            TypeError, ValueError: *name* is no text, or empty.
        """
        if not isinstance(name, str):
            raise TypeError(f"the name of a namespace must be a str, not {type(name).__name__}")
        if not name:
            raise ValueError("the name of a namespace must not be empty")
        found = self._namespaces.get(name)
        if found is None:
            found = self._new_namespace(str(name))
            while len(self._namespaces) >= _NAMESPACES_MOST:
                # The oldest; another thread may have been faster.
                self._namespaces.pop(next(iter([*self._namespaces])), None)
            found = self._namespaces.setdefault(name, found)
        return found

    # --- decorators -----------------------------------------------------------------------------

    def cacheable(
        self, key: str | Callable[..., Any] | None = None, **options: Unpack[CacheableOptions]
    ) -> CacheableDecorator:
        """Cache what a function answers; see ``accelerator.cacheable``."""
        return decorators.cacheable(self, key, **options)

    def cacheable_batch(
        self, key: str | Callable[..., Any] | None = None, **options: Unpack[BatchOptions]
    ) -> CacheableDecorator:
        """Cache what a function answers item by item; see ``accelerator.cacheable_batch``."""
        return decorators.cacheable_batch(self, key, **options)

    def cache_put(
        self, key: str | Callable[..., Any], **options: Unpack[PutOptions]
    ) -> ChangeDecorator:
        """Store what a function answers each time it runs; see ``accelerator.cache_put``."""
        return decorators.cache_put(self, key, **options)

    def cache_evict(
        self, key: str | Callable[..., Any] | None = None, **options: Unpack[EvictOptions]
    ) -> ChangeDecorator:
        """Forget what a function makes out of date; see ``accelerator.cache_evict``."""
        return decorators.cache_evict(self, key, **options)

    def cache_evict_batch(
        self, keys: str | Callable[..., Iterable[Any]], **options: Unpack[EvictBatchOptions]
    ) -> ChangeDecorator:
        """Forget many keys after a function; see ``accelerator.cache_evict_batch``."""
        return decorators.cache_evict_batch(self, keys, **options)

    # --- making views ---------------------------------------------------------------------------

    def _new_namespace(self, name: str) -> Namespace:
        view = self._viewed(Namespace, {})
        view._path = (*self._path, name)
        convert = self._config.key_converter
        inner = None if convert is None else Converter(convert, self._config.area)
        view._converter = _Prefixed(view._path, inner)
        return view

    def _view(
        self,
        *,
        converter: Callable[[Any], Any] | None = None,
        flags: int = 0,
        **overrides: Any,
    ) -> LevelCache:
        """
        Make another object for this area, with a decoded-object cache of its own.

        What it shares with this one is decided by encoded keys: values, flights, generations.

        Args:
            converter: Makes of its callers' keys what this one's callers give; None: the same.
            flags: How its objects are kept, see ``local``.
            overrides: Options that differ.

        Raises:
            ConfigError: An option is wrong, or can have no effect.
        """
        view = self._viewed(LevelCache, overrides)
        view._view_flags |= flags
        if converter is not None:
            inner = self._converter
            view._converter = converter if inner is None else _Chained(converter, inner)
        return view

    def _viewed(self, kind: type[C], overrides: dict[str, Any]) -> C:
        config = self._config
        options = {field.name: getattr(config, field.name) for field in fields(config)}
        view = kind.__new__(kind)
        view._begin_as(AreaConfig.build(**{**options, **overrides}))
        view._converter = self._converter
        view._path = self._path
        view._told = self._told
        view._view_flags = local.OWN_OBJECTS
        return view


class _Chained:
    """One converter in front of another."""

    __slots__ = ("_first", "_second")

    def __init__(self, first: Callable[[Any], Any], second: Callable[[Any], Any]) -> None:
        self._first = first
        self._second = second

    def __call__(self, given: Any) -> Any:
        return self._second(self._first(given))


class _Prefixed:
    """Converter of a namespace: its keys lie in tuples with its names."""

    __slots__ = ("_inner", "_names")

    def __init__(self, path: tuple[str, ...], inner: Callable[[Any], Any] | None) -> None:
        self._names = path[::-1]
        self._inner = inner

    def __call__(self, given: Any) -> Any:
        key = given if self._inner is None else self._inner(given)
        for name in self._names:
            key = (name, key)
        return key


class Namespace(LevelCache):
    """
    A part of an area, see LevelCache.namespace().

    Made by that method only.
    """

    def __repr__(self) -> str:
        names = "".join(f".namespace({name!r})" for name in self._path)
        return f"LevelCache({self._config.area!r}){names}"


local.install(LevelCache)
local.install(Namespace)
