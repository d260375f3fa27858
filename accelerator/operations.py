"""
One area: how it is bound to memory, what is written to it and forgotten, and the steps of that.

The hot methods of this are C (or, without the native part, ProcessLocalArea), and call the
underscored methods here for everything that is not plain.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from accelerator import codec, local, policy, runtime
from accelerator.durations import seconds
from accelerator.entry import CacheMode
from accelerator.errors import BackendError, ConfigError, SerializationError
from accelerator.local import UNSET
from accelerator.observability import oplog

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from accelerator.config import AreaConfig

LOG: Final = logging.getLogger("accelerator")

OBJECT_CACHE_BYTES: Final = 16 << 20
"""Decoded objects that a process keeps, by their encoded size; less beside a small segment."""

_REJECTED_SIZE: Final = local.COUNTERS.index("store_rejected_size")
_REJECTED_ENCODE: Final = local.COUNTERS.index("store_rejected_encode")


class Operations(local.AreaBase):
    """What LevelCache writes and forgets, and what reading needs to know of an area."""

    _config: AreaConfig
    _told: set[str]
    """Subjects that were warned about."""
    _memory: local.Segment
    """What the area is bound to."""
    _is_off: bool
    _codec: codec.Codec

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
        self._memory = memory
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
            refresh_window=config.refresh_ahead_window if config.refresh_ahead else 0.0,
        )

    def _flags(self) -> int:
        config = self._config
        chosen = {
            local.PLAIN_MISS: config.loader is None and not config.allow_stale,
            local.LOADS: config.loader is not None,
            # These store raw types as the memory itself does; the others have a say in it.
            local.PLAIN_SET: isinstance(config.codec, str) and config.codec != "raw",
            local.OBJECTS_SHARED: config.objects == "shared",
            local.OBJECTS_COPY: config.objects == "copy",
            local.VERIFY_FULL: config.verify == "full",
            local.CACHE_NULL: config.cache_null_value,
            local.OFF: self._is_off,
        }
        return sum(flag for flag, is_set in chosen.items() if is_set)

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

    def _life(self, value: Any, ttl: Any = UNSET, *, jitter: bool = True) -> float | None:
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
        if value is None and not self._config.cache_null_value:
            return None
        return self._encoded(op, value, since)

    def _encoded(self, op: str, value: Any, since: float) -> tuple[int, bytes]:
        """Code and payload of a value."""
        config = self._config
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
            self._tell_size()
        if status in {local.STORED, local.NOT_STORED}:  # OFF stores nothing, and is asked not to
            return True
        oplog.failed(self._config.area, op, BackendError.kind, since)
        return False

    def _busy(self, op: str, since: float) -> BackendError:
        oplog.failed(self._config.area, op, BackendError.kind, since)
        return BackendError(
            "the segment was busy for too long: try again", area=self._config.area, operation=op
        )

    def _tell_size(self) -> None:
        self._tell(
            "size",
            "a value does not fit the segment, the largest item is %d bytes: values like it are "
            "not cached; raise the setting size",
            self._memory.max_item,
        )

    def _tell(self, subject: str, message: str, *arguments: object) -> None:
        """Warn once per area and subject."""
        if subject not in self._told:
            self._told.add(subject)
            LOG.warning("area %s: " + message, self._config.area, *arguments)  # noqa: G003


# --- options ----------------------------------------------------------------------------------


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
