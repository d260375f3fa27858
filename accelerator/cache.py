"""
LevelCache: the class that applications use, and which options it takes.

What it does is in the classes below it: operations (writing), reads, twins (for async code), and
the hit methods in C.
"""

from __future__ import annotations

import functools
import hashlib
from dataclasses import fields
from types import MethodDescriptorType
from typing import TYPE_CHECKING, Any, Final, TypedDict, TypeVar, overload

from accelerator import decorators, local, policy, runtime, tags
from accelerator.aio import AsyncView
from accelerator.config import AreaConfig
from accelerator.entry import MISS, K, V
from accelerator.keys import Converter
from accelerator.loader import Source
from accelerator.templates import flat
from accelerator.twins import AsyncTwins

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable
    from typing import Unpack

    from accelerator.decorated import (
        BatchOptions,
        CacheableDecorator,
        CacheableOptions,
        ChangeDecorator,
        EvictBatchOptions,
        EvictOptions,
        PutOptions,
    )
    from accelerator.durations import Duration
    from accelerator.entry import CacheMode, ReadOptions, ReadOptionValues
    from accelerator.loader import LoaderOf
    from accelerator.reads import D

_HIT_METHODS: Final = ("get", "mget", "set")

_NAMESPACES_MOST: Final = 1024
"""Views of namespaces that an area remembers."""


C = TypeVar("C", bound="LevelCache[Any, Any]")


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

    _namespaces: dict[str, Namespace[V]]
    _views_of_functions: dict[Any, Any]
    """Of decorated functions that find this cache when they are called."""

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
        self._begin_as(AreaConfig.build(area=area, loader=loader, **options))

    def _begin_as(self, config: AreaConfig) -> None:
        if config.local is not None:
            own: Any = type(self)
            self.__class__ = _with_own_local(own)
        self._config = self._own_config = config
        self._source = None if config.loader is None else Source(config.loader)
        self._own_tags = tags.encoded(config.tags)
        convert = config.key_converter
        self._converter = None if convert is None else Converter(convert, config.area)
        self._told = set()
        self._namespaces = {}
        self._views_of_functions = {}
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

    # --- views ----------------------------------------------------------------------------------

    def namespace(self, name: str) -> Namespace[V]:
        """
        Give a part of this area, with keys that meet none of the others: those of one tenant, say.

        It is a cache as this one, with its options, its loader (whose ``context.namespace`` tells
        the names), its counters and its locks.  Its clear() forgets what is in it, and nothing
        else; that of the area forgets it, too.  Namespaces nest; the values in one carry a tag for
        each name.  The same name gives the same object again, unless there are very many.

        Raises:
            TypeError, ValueError: *name* is no text, or empty, or has no UTF-8 form.
            ConfigError: There are too many names within each other, and tags of the area.
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
        """
        Cache what a function answers; see ``accelerator.cacheable``.

        Raises:
            ConfigError: What is given is wrong, or can have no effect: here or by the decorator.
        """
        return decorators.cacheable(self, key, **options)

    def cacheable_batch(
        self, key: str | Callable[..., Any] | None = None, **options: Unpack[BatchOptions]
    ) -> CacheableDecorator:
        """
        Cache what a function answers item by item; see ``accelerator.cacheable_batch``.

        Raises:
            ConfigError: What is given is wrong, or can have no effect: here or by the decorator.
        """
        return decorators.cacheable_batch(self, key, **options)

    def cache_put(
        self, key: str | Callable[..., Any], **options: Unpack[PutOptions]
    ) -> ChangeDecorator:
        """
        Store what a function answers each time it runs; see ``accelerator.cache_put``.

        Raises:
            ConfigError: What is given is wrong, or can have no effect: here or by the decorator.
        """
        return decorators.cache_put(self, key, **options)

    def cache_evict(
        self, key: str | Callable[..., Any] | None = None, **options: Unpack[EvictOptions]
    ) -> ChangeDecorator:
        """
        Forget what a function makes out of date; see ``accelerator.cache_evict``.

        Raises:
            ConfigError: What is given is wrong, or can have no effect: here or by the decorator.
        """
        return decorators.cache_evict(self, key, **options)

    def cache_evict_batch(
        self, keys: str | Callable[..., Iterable[Any]], **options: Unpack[EvictBatchOptions]
    ) -> ChangeDecorator:
        """
        Forget many keys after a function; see ``accelerator.cache_evict_batch``.

        Raises:
            ConfigError: What is given is wrong, or can have no effect: here or by the decorator.
        """
        return decorators.cache_evict_batch(self, keys, **options)

    # --- making views ---------------------------------------------------------------------------

    def _new_namespace(self, name: str) -> Namespace[V]:
        path = (*self._path, name)
        tag = _tag_of_namespace(path)
        view: Namespace[V] = self._viewed(
            Namespace, {"tags": (*(self._own_config.tags or ()), tag)}
        )
        view._path = path
        view._tag = tag
        convert = self._config.key_converter
        inner = None if convert is None else Converter(convert, self._config.area)
        view._converter = _Prefixed(path, inner)
        return view

    def _view(
        self,
        *,
        converter: Callable[[Any], Any] | None = None,
        flags: int = 0,
        ttl: Any = MISS,
        **overrides: Any,
    ) -> LevelCache[Any, Any]:
        """
        Make another object for this area, with a decoded-object cache of its own.

        What it shares with this one is decided by encoded keys: values, flights, generations.

        Args:
            converter: Makes of its callers' keys what this one's callers give; None: the same.
            flags: How its objects are kept, see ``local``.
            ttl: Life of its values, in seconds or None; MISS: as configured.
            overrides: Options that differ.

        Raises:
            ConfigError: An option is wrong, or can have no effect.
        """
        lives = {} if ttl is MISS else self._lives_of(ttl)
        view: LevelCache[Any, Any] = self._viewed(LevelCache, {**lives, **overrides})
        view._view_flags |= flags
        if lives and "local_ttl" not in overrides:
            view._whole_config = view._own_config
            view._local_limit = self._own_config.local_ttl
        if converter is not None:
            inner = self._converter
            view._converter = converter if inner is None else _Chained(converter, inner)
        return view

    def _lives_of(self, ttl: float | None) -> dict[str, Any]:
        null_ttl = policy.shorter(ttl, self._own_config.null_ttl)
        return {"local_ttl": ttl, "remote_ttl": ttl, "null_ttl": null_ttl}

    def _viewed(self, kind: type[C], overrides: dict[str, Any]) -> C:
        config = self._own_config
        options = {field.name: getattr(config, field.name) for field in fields(config)}
        view = kind.__new__(kind)
        view._begin_as(AreaConfig.build(**{**options, **overrides}))
        view._area_config = self._area_config or config
        view._converter = self._converter
        view._path = self._path
        view._told = self._told
        view._view_flags = local.OWN_OBJECTS
        return view


@functools.cache
def _with_own_local(cls: type) -> type:
    """Give the class of a cache whose values lie in an object of the application's."""
    from accelerator.own_local import OwnLocal  # noqa: PLC0415  only where there is one

    return type(cls.__name__, (OwnLocal, cls), {"__module__": cls.__module__})


class _Chained:
    """One converter in front of another."""

    __slots__ = ("_first", "_second")

    def __init__(self, first: Callable[[Any], Any], second: Callable[[Any], Any]) -> None:
        self._first = first
        self._second = second

    def __call__(self, given: Any) -> Any:
        return self._second(self._first(given))


_IN_NAMESPACE: Final = b"\x1fnamespace"
"""What the keys of namespaces begin with, so that they meet no tuple which is a key of the area."""


class _Prefixed:
    """Converter of a namespace: its keys lie in tuples with its names."""

    __slots__ = ("_inner", "_names")

    def __init__(self, path: tuple[str, ...], inner: Callable[[Any], Any] | None) -> None:
        self._names = path
        self._inner = inner

    def __call__(self, given: Any) -> Any:
        key = given if self._inner is None else self._inner(given)
        return (_IN_NAMESPACE, self._names, key)


def _tag_of_namespace(path: tuple[str, ...]) -> str:
    """Tag of all that is in a namespace: of one length, and like none that somebody would write."""
    encoded = flat(path)
    return f"\x1fnamespace:{hashlib.blake2b(encoded, digest_size=16).hexdigest()}"


class Namespace(LevelCache[Any, V]):
    """
    A part of an area, see LevelCache.namespace().

    Made by that method only.
    """

    _tag: str

    def __repr__(self) -> str:
        names = "".join(f".namespace({name!r})" for name in self._path)
        return f"LevelCache({self._config.area!r}){names}"

    def clear(self, *, on_error: str = "queue") -> None:
        """Forget all that is in this namespace at once, however much it is; see delete_tags()."""
        self.delete_tags(self._tag, on_error=on_error)

    async def aclear(self, *, on_error: str = "queue") -> None:
        """Do as clear()."""
        await self.adelete_tags(self._tag, on_error=on_error)


local.install(LevelCache)
local.install(Namespace)
