"""
One area: how it is bound to memory and to Redis, and what every operation on it needs.

The hot methods of this are C (or, without the native part, ProcessLocalArea), and call the
underscored methods of the classes above this one for everything that is not plain.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from accelerator import codec, local, policy, runtime, tags
from accelerator.durations import seconds
from accelerator.entry import CacheMode
from accelerator.errors import BackendError, SerializationError
from accelerator.local import UNSET
from accelerator.observability import facts, oplog
from accelerator.steps import Steps, adrive, drive

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import TypeVar

    from accelerator.config import AreaConfig
    from accelerator.policy import Lives
    from accelerator.second import RemoteArea, SecondLevel
    from accelerator.steps import Ask

    T = TypeVar("T")

LOG: Final = logging.getLogger("accelerator")

COUNTER: Final = {name: number for number, name in enumerate(local.COUNTERS)}

OBJECT_CACHE_BYTES: Final = 16 << 20
"""Decoded objects that a process keeps, by their encoded size; less beside a small segment."""

_REJECTED_SIZE: Final = COUNTER["store_rejected_size"]
_REJECTED_ENCODE: Final = COUNTER["store_rejected_encode"]

_ON_DESYNC: Final = {"cap": local.CAP, "bypass": local.BYPASS, "serve": local.SERVE}


class Binding(local.AreaBase):
    """An area of this process: its memory, its second level, its codec."""

    _config: AreaConfig
    _told: set[str]
    """Subjects that were warned about."""
    _own_tags: tuple[bytes, ...]
    """Tags that every value of the area carries, encoded."""
    _memory: local.Segment
    """What the area is bound to."""
    _mode: CacheMode = CacheMode.LOCAL
    _second: RemoteArea | None = None
    """What it is in Redis; None: its mode does not use it, or there is none."""
    _codec: codec.Codec
    _converter: Callable[[Any], Any] | None = None
    """Makes a key of what callers give; None: they give keys."""
    _path: tuple[str, ...] = ()
    """Names of the namespaces that this is in, the outermost first."""
    _propagates: bool = False
    """Faults of Redis are raised by reads and loads, too, instead of being worked around."""
    _view_flags: int = 0
    """Of a view: how objects are kept for it."""
    _whole_config: AreaConfig | None = None
    """Of a view with a life of its own: the configuration where there is one tier."""
    _area_config: AreaConfig | None = None
    """Of a view: the configuration of the area itself, which is what people are shown."""
    _local_limit: float | None = None
    """The same: where there are two, the longest life in the segment."""

    @property
    def _is_off(self) -> bool:
        return self._mode is CacheMode.OFF

    # --- binding --------------------------------------------------------------------------------

    def _attach(self) -> None:
        attachment = runtime.current()
        config = self._config
        self._mode = config.mode_under(attachment.settings)
        if self._whole_config is not None:
            config = self._config = self._limited(self._whole_config)
        self._second = self._remote_area(attachment.second)
        self._codec = codec.make(config.codec, attachment.settings.secret)
        try:
            self._bind_to(attachment.memory)
        except (OSError, ValueError) as error:
            # The table of areas is full: reads must go on all the same.
            self._tell("areas", "%s; it caches in memory of this process, alone", error)
            if self._second is not None:
                self._second = self._remote_area(runtime.spare_second())
            self._bind_to(runtime.spare_memory())
        if self._second is not None:
            self._second.start()

    def _limited(self, config: AreaConfig) -> AreaConfig:
        """Give the configuration for the tiers there are: with two, the segment has a limit."""
        life = policy.shorter(config.local_ttl, self._local_limit)
        both = self._mode.uses_local and self._mode.uses_remote
        if not both or life is None or life == config.local_ttl:
            return config
        window = config.refresh_ahead_window
        if window >= life:
            window = life / 2  # it was chosen for the whole life: not every read is to refresh
        return replace(config, local_ttl=life, refresh_ahead_window=window)

    def _remote_area(self, second: SecondLevel | None) -> RemoteArea | None:
        if second is None or not self._mode.uses_remote:
            return None
        return second.area(self._config)

    def _bind_to(self, memory: local.Segment) -> None:
        config = self._config
        self._memory = memory
        bound = None if self._second is None else self._second.bound
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
            bound=bound,
            limit=0.0 if bound is None else min(bound, config.max_staleness or bound),
            on_desync=_ON_DESYNC[config.on_desync],
            variant=codec.fingerprint_of(config.version),
            key_converter=self._converter,
        )
        memory.area_facts_write(config.area, facts.encode(self._area_config or config, self._mode))

    def _flags(self) -> int:
        config = self._config
        own = config.local is not None
        remote = self._second is not None or own
        chosen = {
            local.PLAIN_MISS: config.loader is None and not config.allow_stale and not remote,
            local.LOADS: config.loader is not None or remote,
            # These store raw types as the memory itself does; the others have a say in it.
            local.PLAIN_SET: (
                isinstance(config.codec, str)
                and config.codec != "raw"
                and not config.tags
                and not remote
            ),
            local.OBJECTS_SHARED: config.objects == "shared",
            local.OBJECTS_COPY: config.objects == "copy",
            local.VERIFY_FULL: config.verify == "full",
            local.CACHE_NULL: config.cache_null_value,
            # Values are not in here; loads are coordinated in here all the same.
            local.OFF: not self._mode.uses_local or own,
        }
        return self._view_flags + sum(flag for flag, is_set in chosen.items() if is_set)

    def _decode(self, code: int, payload: bytes) -> tuple[Any, bool] | None:
        try:
            return self._codec.decode(code, payload)
        except SerializationError:
            oplog.failed(self._config.area, "get", SerializationError.kind, oplog.started())
            return None  # a miss: the caller drops it and counts it

    # --- running --------------------------------------------------------------------------------

    def _begin(self) -> float:
        """Begin an operation that needs to know the settings before it first asks the memory."""
        if not self._bound:
            self._attach()
        return oplog.started()

    def _do(self, steps: Steps[T]) -> T:
        """Run an operation, in the caller's thread."""
        return drive(steps, self._ask)

    async def _ado(self, steps: Steps[T]) -> T:
        """Run an operation, in the caller's task."""
        return await adrive(steps, self._aask)

    def _ask(self, wanted: Ask) -> Any:
        second = self._second
        assert second is not None, "without a second level nothing is asked"
        return second.ask(self, wanted)

    async def _aask(self, wanted: Ask) -> Any:
        second = self._second
        assert second is not None, "without a second level nothing is asked"
        return await second.aask(self, wanted)

    # --- keys -----------------------------------------------------------------------------------

    def _wire(self, key: Any) -> bytes:
        """
        Give a caller's key as it is called outside of this process: its type tag and its payload.

        Raises:
            TypeError, ValueError: It cannot be a key.
        """
        return local.encode_key(key if self._converter is None else self._converter(key))

    def _distinct(self, keys: Iterable[Any]) -> list[Any]:
        """Give each key once."""
        # By what they are called: 1 and True are one key of a dict, and two keys here.
        return list({self._wire(key): key for key in keys}.values())

    # --- tags -----------------------------------------------------------------------------------

    def _tags(self, given: Iterable[str] | None = None) -> tuple[bytes, ...]:
        """
        Give the encoded tags of a value: the area's, and those that a call gives.

        Raises:
            TypeError, ValueError: One of them is wrong, or there are too many.
        """
        own = self._own_tags
        return own if given is None else tags.joined(own, tags.encoded(given))

    # --- values and lives -----------------------------------------------------------------------

    def _lives(self, value: Any, ttl: Any = UNSET, *, jitter: bool = True) -> Lives:
        """How long a value is to live in which tier."""
        is_null = value is None
        if ttl is UNSET:
            chance = None if jitter else 0.0
            return policy.configured_lives(self._config, self._mode, is_null=is_null, chance=chance)
        given = seconds(ttl, name="ttl", allow_none=True, allow_zero=True)
        return policy.given_lives(self._config, self._mode, given, is_null=is_null)

    def _encode(self, op: str, key: Any, value: Any, since: float) -> tuple[int, bytes] | None:
        """Code and payload of a value; None if it is to be forgotten instead.  Checks the key."""
        self._wire(key)
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

    def _put(  # noqa: PLR0917  called in two places
        self,
        op: str,
        key: Any,
        encoded: tuple[int, bytes] | None,
        lives: Lives,
        since: float,
        note: int = 0,
        *,
        tagged: tuple[bytes, ...] = (),
    ) -> bool:
        """
        Store in the segment, or forget what has nothing to be stored there.

        Args:
            op: Name of the operation in logs.
            key: The key.
            encoded: Code and payload; None: it is to be forgotten.
            lives: Of the value.
            since: When the operation began.
            note: Number of an entry of the outbox that is to name the item; 0: there is none.
            tagged: Its tags, encoded.

        Returns:
            False if an explicit write was lost, which has been logged.
        """
        if encoded is None or lives.local == 0:
            self._delete(key)  # in REMOTE mode, too: it overtakes loads that run
            return True
        life, stale_life = lives.local, self._config.stale_life
        status = self._store(key, *encoded, life, stale_life, note=note, tags=tagged)
        return self._judge(op, status, since)

    # --- what became of it ----------------------------------------------------------------------

    def _judge(self, op: str, status: int, since: float) -> bool:
        """Tell whether a write was lost (then the older copy is gone as well), and log it."""
        if status == local.TOO_LARGE:
            self._tell_size()
            if self._second is not None:
                return True  # it lives in Redis only
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
