"""
LevelCache: the class that applications use, and which options it takes.

What it does is in the classes below it: operations (writing), reads, twins (for async code), and
the hit methods in C.  What is not there yet (tags) is refused by name when it is asked for.
"""

from __future__ import annotations

from types import MethodDescriptorType
from typing import TYPE_CHECKING, Any, Final, TypedDict

from accelerator import local, runtime
from accelerator.config import AreaConfig
from accelerator.errors import ConfigError
from accelerator.loader import Source
from accelerator.lock import Lock
from accelerator.twins import AsyncTwins

if TYPE_CHECKING:
    from datetime import timedelta
    from typing import Unpack

    from accelerator.durations import Duration
    from accelerator.entry import CacheMode

_HIT_METHODS: Final = ("get", "mget", "set")

_LATER: Final = ("key_converter",)
"""Options that nothing acts on in this version."""


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

    def __init__(self, area: str = "default", **options: Unpack[AreaOptions]) -> None:
        super().__init__()
        config = AreaConfig.build(area=area, **options)
        _refuse_what_comes_later(config)
        self._config = config
        self._source = None if config.loader is None else Source(config.loader)
        self._told = set()
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
