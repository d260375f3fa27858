"""
LevelCache: the order of the steps, and little else.

Hits and plain writes never come here: ``get``, ``mget``, ``in`` and ``set`` are C (or, without the
native part, ProcessLocalArea), and call the underscored methods below for everything that is not
plain.  What is not there yet (loaders, Redis, tags) is refused by name when it is asked for.
"""

from __future__ import annotations

import inspect
import logging
from types import MethodDescriptorType
from typing import TYPE_CHECKING, Any, Final, TypedDict

from accelerator import codec, local, policy, runtime
from accelerator.config import AreaConfig
from accelerator.durations import seconds
from accelerator.entry import MISS, CacheMode, Entry, ReadOptions
from accelerator.errors import BackendError, ConfigError, LoaderError, SerializationError
from accelerator.local import UNSET
from accelerator.observability import diagnostics, oplog

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from datetime import timedelta
    from typing import Unpack

LOG: Final = logging.getLogger("accelerator")

OBJECT_CACHE_BYTES: Final = 16 << 20
"""Decoded objects that a process keeps, by their encoded size; less beside a small segment."""

_HIT_METHODS: Final = ("get", "mget", "set")
_native_get: Final = local.AreaBase.get
_COUNTER: Final = {name: number for number, name in enumerate(local.COUNTERS)}
_LOCAL_HIT: Final = _COUNTER["local_hit"]
_LOCAL_MISS: Final = _COUNTER["local_miss"]
_NEGATIVE_HIT: Final = _COUNTER["negative_hit"]
_STALE_FALLBACK: Final = _COUNTER["stale_fallback"]
_LOAD: Final = _COUNTER["load"]
_LOAD_SUCCESS: Final = _COUNTER["load_success"]
_LOAD_ERROR: Final = _COUNTER["load_error"]
_REJECTED_SIZE: Final = _COUNTER["store_rejected_size"]
_REJECTED_ENCODE: Final = _COUNTER["store_rejected_encode"]

_LATER: Final = (
    "error_ttl",
    "max_staleness",
    "version",
    "loader",
    "loader_timeout",
    "batch_timeout",
    "wait_timeout",
    "lease",
    "max_loads",
    "penetration_protect",
    "background",
    "key_converter",
    "stale_on_error",
    "warmup_enabled",
    "warmup_batch_size",
    "refresh_ahead",
    "refresh_ahead_window",
)
"""Options that act together with a loader, which this version does not have."""


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


class LevelCache(local.AreaBase):
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
      included; *default* if the key is not known.
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
        self._told: set[str] = set()
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

    @property
    def config(self) -> AreaConfig:
        """The options of this area."""
        return self._config

    # --- reading --------------------------------------------------------------------------------

    def peek(self, key: Any, default: Any = None) -> Any:
        """Read a key without loading it, counting the read, or keeping the key from eviction."""
        found = self._read(key, touch=False)
        return default if found is None else found[0]

    def get_entry(
        self, key: Any, *, options: ReadOptions | None = None, **read_options: Any
    ) -> Entry[Any] | None:
        """Read a key with all that is known about it; None if the key is not known."""
        found = self._find(key, ReadOptions.of(options, read_options))
        if found is None:
            return None
        value, _, age, ttl, stale, version = found
        left = None if ttl is None else max(0.0, ttl)
        return Entry(value, tier="local", age=age, ttl=left, stale=stale, version=version)

    def get_or_load(
        self,
        key: Any,
        loader: Callable[[Any], Any],
        *,
        ttl: Any = UNSET,
        options: ReadOptions | None = None,
        **read_options: Any,
    ) -> Any:
        """
        Read a key, or ask *loader* for it and store the answer.

        A load that a delete or a set of the key overtakes is returned, but not stored.  Loads of
        one key by several callers at once are not joined in this version.

        Raises:
            LoaderError: *loader* raised.
        """
        value = self._known(key, options, read_options)
        if value is not MISS:
            return value
        since = oplog.started()
        token = self._token(key)
        self._count(_LOAD)
        try:
            value = loader(key)
        except Exception as error:
            raise self._load_failed(since) from error
        return self._loaded(key, value, ttl, token, since)

    # --- writing --------------------------------------------------------------------------------

    def mset(self, mapping: Mapping[Any, Any], ttl: Any = UNSET, **options: Any) -> None:
        """
        Store many keys.  What cannot be stored is found before the first one is.

        Raises:
            SerializationError: A value cannot be encoded, or is too large.
            TypeError, ValueError: A key, or *ttl*.
        """
        since = self._begin()
        _refuse_options("mset", options)
        if not hasattr(mapping, "items"):
            raise TypeError(f"mset() takes a mapping, not {type(mapping).__name__}")
        prepared = [
            (key, self._life(value, ttl), self._encode("mset", key, value, since))
            for key, value in mapping.items()
        ]
        stored = [self._put("mset", key, encoded, life, since) for key, life, encoded in prepared]
        if all(stored):
            oplog.succeeded(self._config.area, "mset", "ok", since)

    def add(self, key: Any, value: Any, ttl: Any = UNSET, **options: Any) -> bool:
        """
        Store only if the key is not known; of many that try at once, one succeeds.

        Returns:
            True if it was not known.  With a *ttl* of 0 nothing is stored all the same.

        Raises:
            SerializationError: The value cannot be encoded, or is too large.
            BackendError: It could not be decided, because the segment was busy.
        """
        since = self._begin()
        _refuse_options("add", options)
        life = self._life(value, ttl, jitter=False)
        encoded = self._encode("add", key, value, since)
        if encoded is None or life == 0 or self._is_off:
            return self._read(key, touch=False) is None
        status = self._store(key, *encoded, life, self._config.stale_life, local.ADD)
        if status == local.NOT_STORED:
            return False
        if status == local.BUSY:
            raise self._busy("add", since)
        return self._judge("add", status, since)

    def touch(self, key: Any, ttl: Any = UNSET) -> bool:
        """
        Give a fresh value a new life, without jitter; a *ttl* of 0 ends it.

        Returns:
            Whether there was a fresh value.

        Raises:
            BackendError: It could not be done, because the segment was busy.
        """
        since = oplog.started()
        found = self._read(key, touch=False)
        life = self._life(None if found is None else found[0], ttl, jitter=False)
        if found is None:
            return False
        if life == 0:
            self._delete(key)
            return True
        status = self._touch(key, life, self._config.stale_life)
        if status == local.BUSY:
            raise self._busy("touch", since)
        return status == local.STORED

    def incr(
        self, key: Any, delta: int = 1, *, default: int | None = 0, ttl: Any = UNSET
    ) -> int | None:
        """
        Add to a stored int, atomically over all processes.

        A counter may be evicted like any other value: what must not be lost belongs elsewhere.

        Args:
            key: Key of the counter.
            delta: What to add; may be negative.
            default: What a missing counter starts from; None: it is not created.
            ttl: Life of a new counter; a present one keeps its own.

        Returns:
            The new value; None if it is missing and *default* is None.

        Raises:
            TypeError: The stored value is no int.
            OverflowError: The result does not fit 64 bits.
            BackendError: It could not be done, because the segment was busy.
        """
        since = self._begin()
        _need_int("delta", delta)
        if default is not None:
            _need_int("default", default)
        life = self._life(delta, ttl, jitter=False)
        keep = life != 0 and not self._is_off
        try:
            value = self._incr(
                key, delta, default if keep else None, life or None, self._config.stale_life
            )
        except BlockingIOError as error:
            raise self._busy("incr", since) from error
        if value is None and default is not None and not keep:
            return default + delta
        return value

    def decr(
        self, key: Any, delta: int = 1, *, default: int | None = 0, ttl: Any = UNSET
    ) -> int | None:
        """Subtract from a stored int; see incr()."""
        _need_int("delta", delta)
        return self.incr(key, -delta, default=default, ttl=ttl)

    # --- forgetting -----------------------------------------------------------------------------

    def delete(self, key: Any) -> bool:
        """Forget a key at once, for all processes; tell whether it was there."""
        since = oplog.started()
        found = self._delete(key)
        oplog.succeeded(self._config.area, "del", "found" if found else "absent", since)
        return found

    def mdelete(self, keys: Iterable[Any]) -> int:
        """Forget many keys; tell how many of them were there."""
        since = oplog.started()
        # By their encoding: 1 and True are one key of a dict, and two keys here.
        distinct = {local.encode_key(key): key for key in keys}
        found = sum(map(self._delete, distinct.values()))
        oplog.succeeded(self._config.area, "mdel", "ok", since)
        return found

    def expire(self, key: Any) -> bool:
        """End the life of a value, keeping its stale copy; tell whether it was fresh."""
        since = oplog.started()
        found = self._expire(key)
        oplog.succeeded(self._config.area, "expire", "found" if found else "absent", since)
        return found

    def clear(self) -> None:
        """Forget the whole area at once, however large it is."""
        since = oplog.started()
        self._clear()
        oplog.succeeded(self._config.area, "clear", "ok", since)

    # --- looking at it --------------------------------------------------------------------------

    def metrics_snapshot(self) -> dict[str, int]:
        """Counters of this area, over all processes of this host."""
        counters = self._counters().items()
        return {"load_total" if name == "load" else name: n for name, n in counters}

    def diagnostic_snapshot(self) -> dict[str, Any]:
        """Everything about this area, for an operator."""
        metrics = self.metrics_snapshot()  # attaches, if nothing has yet
        attachment = runtime.current()
        return diagnostics.area_snapshot(
            self._config,
            mode=self._config.mode_under(attachment.settings).value,
            degraded=attachment.degraded,
            metrics=metrics,
        )

    # --- the same for async code: nothing here waits long enough to be worth a thread -----------

    async def aget(
        self,
        key: Any,
        default: Any = None,
        *,
        options: ReadOptions | None = None,
        **read_options: Any,
    ) -> Any:
        """Do as get()."""
        return self.get(key, default, options=options, **read_options)

    async def amget(
        self,
        keys: Iterable[Any],
        default: Any = None,
        *,
        options: ReadOptions | None = None,
        **read_options: Any,
    ) -> dict[Any, Any]:
        """Do as mget()."""
        return self.mget(keys, default, options=options, **read_options)

    async def apeek(self, key: Any, default: Any = None) -> Any:
        """Do as peek()."""
        return self.peek(key, default)

    async def aget_entry(
        self, key: Any, *, options: ReadOptions | None = None, **read_options: Any
    ) -> Entry[Any] | None:
        """Do as get_entry()."""
        return self.get_entry(key, options=options, **read_options)

    async def aget_or_load(
        self,
        key: Any,
        loader: Callable[[Any], Any],
        *,
        ttl: Any = UNSET,
        options: ReadOptions | None = None,
        **read_options: Any,
    ) -> Any:
        """Do as get_or_load(); *loader* may be async."""
        value = self._known(key, options, read_options)
        if value is not MISS:
            return value
        since = oplog.started()
        token = self._token(key)
        self._count(_LOAD)
        try:
            value = loader(key)
            if inspect.isawaitable(value):
                value = await value
        except Exception as error:
            raise self._load_failed(since) from error
        return self._loaded(key, value, ttl, token, since)

    async def aset(self, key: Any, value: Any, ttl: Any = UNSET, **options: Any) -> None:
        """Do as set()."""
        self.set(key, value, ttl, **options)

    async def amset(self, mapping: Mapping[Any, Any], ttl: Any = UNSET, **options: Any) -> None:
        """Do as mset()."""
        self.mset(mapping, ttl, **options)

    async def aadd(self, key: Any, value: Any, ttl: Any = UNSET, **options: Any) -> bool:
        """Do as add()."""
        return self.add(key, value, ttl, **options)

    async def atouch(self, key: Any, ttl: Any = UNSET) -> bool:
        """Do as touch()."""
        return self.touch(key, ttl)

    async def aincr(
        self, key: Any, delta: int = 1, *, default: int | None = 0, ttl: Any = UNSET
    ) -> int | None:
        """Do as incr()."""
        return self.incr(key, delta, default=default, ttl=ttl)

    async def adecr(
        self, key: Any, delta: int = 1, *, default: int | None = 0, ttl: Any = UNSET
    ) -> int | None:
        """Do as decr()."""
        return self.decr(key, delta, default=default, ttl=ttl)

    async def adelete(self, key: Any) -> bool:
        """Do as delete()."""
        return self.delete(key)

    async def amdelete(self, keys: Iterable[Any]) -> int:
        """Do as mdelete()."""
        return self.mdelete(keys)

    async def aexpire(self, key: Any) -> bool:
        """Do as expire()."""
        return self.expire(key)

    async def aclear(self) -> None:
        """Do as clear()."""
        self.clear()

    # --- what the hit methods call when something is not plain ----------------------------------

    def _attach(self) -> None:
        attachment = runtime.current()
        config = self._config
        mode = config.mode_under(attachment.settings)
        self._is_off = mode is CacheMode.OFF
        self._codec = codec.make(config.codec, attachment.settings.secret)
        try:
            self._bind_to(attachment.memory)
        except (OSError, ValueError) as error:
            # The table of areas is full: reads must go on all the same.
            self._tell("areas", "%s; it caches in memory of this process, alone", error)
            self._bind_to(runtime.spare_memory())

    def _bind_to(self, memory: local.Segment) -> None:
        config = self._config
        self._bind(
            memory,
            config.area,
            ttl=config.local_ttl,
            null_ttl=config.null_ttl,
            stale_ttl=config.stale_life,
            jitter=config.ttl_jitter_ratio or 0.0,
            max_value_size=config.max_value_size,
            object_cache_bytes=min(OBJECT_CACHE_BYTES, memory.size // 4),
            flags=self._flags(),
        )

    def _flags(self) -> int:
        config = self._config
        chosen = {
            local.PLAIN_MISS: not config.allow_stale,
            # These store raw types as the memory itself does; the others have a say in it.
            local.PLAIN_SET: isinstance(config.codec, str) and config.codec != "raw",
            local.OBJECTS_SHARED: config.objects == "shared",
            local.OBJECTS_COPY: config.objects == "copy",
            local.VERIFY_FULL: config.verify == "full",
            local.CACHE_NULL: config.cache_null_value,
            local.OFF: self._is_off,
        }
        return sum(flag for flag, is_set in chosen.items() if is_set)

    def _miss(
        self, key: Any, default: Any, options: ReadOptions | None, read_options: dict[str, Any]
    ) -> Any:
        found = self._find(key, ReadOptions.of(options, read_options))
        return default if found is None else found[0]

    def _mmiss(
        self,
        missing: list[Any],
        result: dict[Any, Any],
        default: Any,  # noqa: ARG002  is in result already
        options: ReadOptions | None,
        read_options: dict[str, Any],
    ) -> None:
        chosen = ReadOptions.of(options, read_options)
        for key in missing:
            found = self._find(key, chosen)
            if found is not None:
                result[key] = found[0]

    def _contains_miss(self, key: object) -> bool:  # noqa: ARG002  a loader may want to know it
        return False

    def _set(self, key: Any, value: Any, ttl: Any, options: dict[str, Any]) -> None:
        since = oplog.started()
        _refuse_options("set", options)
        life = self._life(value, ttl)
        encoded = self._encode("set", key, value, since)
        if self._put("set", key, encoded, life, since):
            oplog.succeeded(self._config.area, "set", "ok", since)

    def _decode(self, code: int, payload: bytes) -> tuple[Any, bool] | None:
        try:
            return self._codec.decode(code, payload)
        except SerializationError:
            oplog.failed(self._config.area, "get", SerializationError.kind, oplog.started())
            return None  # a miss: the caller drops it and counts it

    # --- steps ----------------------------------------------------------------------------------

    def _begin(self) -> float:
        """Begin an operation that needs to know the settings before it first asks the memory."""
        if not self._bound:
            self._attach()
        return oplog.started()

    def _known(self, key: Any, options: ReadOptions | None, read_options: dict[str, Any]) -> Any:
        """What a get_or_load() answers without loading; MISS if it must load."""
        if options is None and not read_options:
            return _native_get(self, key, MISS)  # not a subclass's, which may come back here
        chosen = ReadOptions.of(options, read_options)
        found = self._find(key, chosen)
        if found is None:
            return None if chosen.disable_load else MISS
        return found[0]

    def _find(
        self, key: Any, options: ReadOptions
    ) -> tuple[Any, int, float, float | None, bool, int] | None:
        """Read what *options* allow, and count it."""
        stale_too = options.allow_stale or self._config.allow_stale
        found = self._read(key, stale=stale_too)
        if found is None:
            self._count(_LOCAL_MISS)
            return None
        value, _, _, ttl, stale, _ = found
        if not stale:
            self._count(_LOCAL_HIT)
            if value is None:
                self._count(_NEGATIVE_HIT)
            return found
        self._count(_LOCAL_MISS)
        limit = options.max_staleness
        if limit is not None and ttl is not None and -ttl > limit:
            return None
        self._count(_STALE_FALLBACK)
        return found

    def _life(self, value: Any, ttl: Any, *, jitter: bool = True) -> float | None:
        """How long a value is to live; None: no expiry, 0: not at all."""
        config = self._config
        if ttl is not UNSET:
            return seconds(ttl, name="ttl", allow_none=True, allow_zero=True)
        life = config.null_ttl if value is None else config.local_ttl
        if life is None or not jitter:
            return life
        return policy.jittered(life, config.ttl_jitter_ratio)

    def _encode(self, op: str, key: Any, value: Any, since: float) -> tuple[int, bytes] | None:
        """Code and payload of a value; None if it is to be forgotten instead.  Checks the key."""
        local.encode_key(key)
        config = self._config
        if value is None and not config.cache_null_value:
            return None
        try:
            code, payload = self._codec.encode(value)
        except SerializationError as error:
            self._count(_REJECTED_ENCODE)
            oplog.failed(config.area, op, error.kind, since)
            error.area, error.operation = config.area, op
            raise
        if len(payload) > config.max_value_size:
            self._count(_REJECTED_SIZE)
            oplog.failed(config.area, op, SerializationError.kind, since)
            raise SerializationError(
                f"a value of {len(payload)} bytes is larger than max_value_size="
                f"{config.max_value_size}: store less, or raise max_value_size",
                area=config.area,
                operation=op,
            )
        return code, payload

    def _put(
        self, op: str, key: Any, encoded: tuple[int, bytes] | None, life: float | None, since: float
    ) -> bool:
        """Store, or forget where there is nothing to store; False if an explicit write was lost."""
        if encoded is None or life == 0:
            self._delete(key)
            return True
        return self._judge(op, self._store(key, *encoded, life, self._config.stale_life), since)

    def _judge(self, op: str, status: int, since: float) -> bool:
        """Tell whether a write was lost (then the older copy is gone as well), and log it."""
        if status == local.TOO_LARGE:
            self._tell(
                "size",
                "a value does not fit the segment, the largest item is %d bytes: values like it "
                "are not cached; raise the setting size",
                runtime.current().memory.max_item,
            )
        if status in {local.STORED, local.NOT_STORED}:  # OFF stores nothing, and is asked not to
            return True
        oplog.failed(self._config.area, op, BackendError.kind, since)
        return False

    def _loaded(self, key: Any, value: Any, ttl: Any, token: tuple[int, int], since: float) -> Any:
        """Store what a loader returned, unless it was overtaken or cannot be stored; return it."""
        self._count(_LOAD_SUCCESS)
        life = self._life(value, ttl)
        try:
            encoded = self._encode("get", key, value, since)
        except SerializationError as error:
            kind = type(value).__qualname__
            self._tell(f"load {kind}", "what a loader returned is not cached: %s", error)
            return value
        if encoded is not None and life != 0:
            self._store(key, *encoded, life, self._config.stale_life, local.FILL, token)
        return value

    def _load_failed(self, since: float) -> LoaderError:
        self._count(_LOAD_ERROR)
        oplog.failed(self._config.area, "get", LoaderError.kind, since)
        return LoaderError("the loader raised", area=self._config.area, operation="get")

    def _busy(self, op: str, since: float) -> BackendError:
        oplog.failed(self._config.area, op, BackendError.kind, since)
        return BackendError(
            "the segment was busy for too long: try again", area=self._config.area, operation=op
        )

    def _tell(self, subject: str, message: str, *arguments: object) -> None:
        """Warn once per area and subject."""
        if subject not in self._told:
            self._told.add(subject)
            LOG.warning("area %s: " + message, self._config.area, *arguments)  # noqa: G003


# --- options ------------------------------------------------------------------------------------


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
    if config.mode is not None and config.mode.uses_remote:
        raise ConfigError(
            f"mode={config.mode.value!r} needs Redis, which this version of accelerator does not "
            "support: leave mode out",
            setting="mode",
            area=config.area,
        )


def _refuse_options(op: str, options: Mapping[str, Any]) -> None:
    """Check the keywords of a write that are neither value nor life."""
    for name in options:
        if name == "tags":
            raise ConfigError(
                "tags are not supported by this version of accelerator: leave them out",
                setting="tags",
                operation=op,
            )
        if name != "broadcast":  # for other hosts, of which LOCAL mode knows none
            raise TypeError(f"{op}() got an unexpected keyword argument {name!r}")


def _need_int(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, not {type(value).__name__}")


local.install(LevelCache)
