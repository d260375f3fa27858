"""
One area: how it is bound to memory and to Redis, and what every operation on it needs.

The hot methods of this are C (or, without the native part, ProcessLocalArea), and call the
underscored methods of the classes above this one for everything that is not plain.

An area is bound anew whenever an operator's overrides change, which may be in the middle of
operations of other threads, so each of these decides once, by one look at ``_tiers``, which tiers
it is about.  What it has begun it ends as it began it, and asks Redis for the rest, whatever has
come meanwhile: at worst it is bound by its time limits for that once.

Where an override keeps an area from Redis (mode local or off), nothing is read or stored there and
nothing decided, but no change is kept from it either: each goes into the outbox, as when Redis is
away, and whoever listens for this host sends it.  So Redis and the other hosts never keep what was
deleted here, and until Redis has been told of it, no reader of this host is given its copy.  What
others delete meanwhile is heard as ever, or is a gap as ever; and the segment itself forgets the
area before a mode that was local or off ends.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from accelerator import codec, local, overrides, policy, runtime, tags
from accelerator.durations import seconds
from accelerator.entry import CacheMode
from accelerator.errors import BackendError, ConfigError, SerializationError
from accelerator.local import UNSET
from accelerator.observability import facts, oplog
from accelerator.steps import Steps, adrive, drive

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import TypeVar

    from accelerator.config import AreaConfig
    from accelerator.overrides import InForce, Row
    from accelerator.policy import Lives
    from accelerator.second import RemoteArea, SecondLevel
    from accelerator.steps import Ask

    T = TypeVar("T")

LOG: Final = logging.getLogger("accelerator")
OPS: Final = logging.getLogger("accelerator.ops")

COUNTER: Final = {name: number for number, name in enumerate(local.COUNTERS)}

OBJECT_CACHE_BYTES: Final = 16 << 20
"""Decoded objects that a process keeps, by their encoded size; less beside a small segment."""

_REJECTED_SIZE: Final = COUNTER["store_rejected_size"]
_REJECTED_ENCODE: Final = COUNTER["store_rejected_encode"]

_ON_DESYNC: Final = {"cap": local.CAP, "bypass": local.BYPASS, "serve": local.SERVE}

_SAID: Final[dict[str, InForce]] = {}
"""By area, the overrides that this process has logged last."""


class Tiers(NamedTuple):
    """Which tiers an area has.  Replaced as a whole: see the top."""

    mode: CacheMode
    second: RemoteArea | None
    """What it is in Redis, which is asked for everything; None: its mode does not use it."""
    held: RemoteArea | None = None
    """The same while an override keeps it from being asked: changes are queued."""

    @property
    def known(self) -> RemoteArea | None:
        """What it is in Redis, asked or not."""
        return self.held if self.second is None else self.second


class Binding(local.AreaBase):
    """An area of this process: its memory, its second level, its codec."""

    _own_config: AreaConfig
    """The options as the application has given them."""
    _config: AreaConfig
    """The options as they are followed, overrides included."""
    _told: set[str]
    """Subjects that were warned about."""
    _own_tags: tuple[bytes, ...]
    """Tags that every value of the area carries, encoded."""
    _memory: local.Segment
    """What the area is bound to."""
    _tiers: Tiers = Tiers(CacheMode.LOCAL, None)
    _attaching: int | None = None
    """Print of the overrides under which a thread has last begun to bind it; None: begin anew."""
    _longest: float | None = None
    """Longest life of whatever is stored, by an override; None: as the application says."""
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
    def _mode(self) -> CacheMode:
        return self._tiers.mode

    @property
    def _second(self) -> RemoteArea | None:
        """What it is in Redis; None: it is not to be asked, or there is none."""
        return self._tiers.second

    @property
    def _is_off(self) -> bool:
        return self._tiers.mode is CacheMode.OFF

    # --- binding --------------------------------------------------------------------------------

    def _attach(self) -> None:
        attachment = runtime.current()
        memory = attachment.memory
        seen, rows = memory.overrides_taken()
        self._attaching = seen
        self._take_on(attachment, attachment.second, rows)
        try:
            self._bind_to(memory, seen)
        except (OSError, ValueError) as error:
            # The table of areas is full: reads must go on all the same.  What is set on the host
            # does not reach what is not in its table, so nothing of it is taken on either: nobody
            # would take it back.
            self._tell("areas", "%s; it caches in memory of this process, alone", error)
            spare = None if self._tiers.known is None else runtime.spare_second()
            rows = []
            self._take_on(attachment, spare, rows)
            self._bind_to(runtime.spare_memory(), None)
        known = self._tiers.known
        if known is not None:
            known.start()
        self._tell_overrides(rows)
        if self._attaching != seen:
            # Another thread has begun under other overrides, and may have stored its part of this
            # object between ours, or bound what we have stored: the next operation, of whoever
            # ends last, begins anew.
            self._attaching = None
            self._unbind()

    def _take_on(
        self, attachment: runtime.Attachment, second: SecondLevel | None, rows: Sequence[Row]
    ) -> None:
        """Decide how the area is, with what an operator has set for it."""
        given = overrides.in_force(rows, self._own_config.area)
        own = self._own_config.mode_under(attachment.settings)
        mode = overrides.mode(own, given)
        if self._whole_config is not None:
            self._own_config = self._limited(self._whole_config, own)
        self._config = self._followed(given, mode)
        self._longest = overrides.longest(given)
        self._codec = codec.make(self._config.codec, attachment.settings.secret)
        self._tiers = self._tiers_of(second, own, mode)

    def _followed(self, given: InForce, mode: CacheMode) -> AreaConfig:
        """Give the options as they are to be followed with these overrides."""
        whole = self._whole_config
        config = self._own_config if whole is None else self._limited(whole, mode)
        try:
            return overrides.apply(config, given)
        except ConfigError as error:  # nobody calls to whom it could be said, and reads must go on
            self._tell("overrides", "it cannot follow what is set for it: %s", error)
            return config

    def _limited(self, config: AreaConfig, mode: CacheMode) -> AreaConfig:
        """Give the configuration for the tiers there are: with two, the segment has a limit."""
        life = policy.shorter(config.local_ttl, self._local_limit)
        both = mode.uses_local and mode.uses_remote
        if not both or life is None or life == config.local_ttl:
            return config
        window = config.refresh_ahead_window
        if window >= life:
            window = life / 2  # it was chosen for the whole life: not every read is to refresh
        return replace(config, local_ttl=life, refresh_ahead_window=window)

    def _tiers_of(self, second: SecondLevel | None, own: CacheMode, mode: CacheMode) -> Tiers:
        """Give the tiers of a mode, where the application's options say *own*."""
        if second is None or not own.uses_remote:
            return Tiers(mode, None)
        known = second.area(self._config)
        return Tiers(mode, known) if mode.uses_remote else Tiers(mode, None, known)

    def _bind_to(self, memory: local.Segment, seen: int | None) -> None:
        config = self._config
        self._memory = memory
        known = self._tiers.known
        bound = None if known is None else known.bound
        # Held or not, it is listened to: what others delete meanwhile must be gone behind it.
        on_desync = "serve" if self._tiers.held is not None else config.on_desync
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
            on_desync=_ON_DESYNC[on_desync],
            variant=codec.fingerprint_of(config.version),
            key_converter=self._converter,
            overrides=seen,
        )
        self._tell_facts(memory)

    def _tell_overrides(self, rows: Sequence[Row]) -> None:
        """Log what an operator has set for the area, or that it has ended: once per process."""
        area = self._config.area
        given = overrides.in_force(rows, area)
        former = _SAID.get(area, overrides.NONE)
        if given == former:
            return
        _SAID[area] = given
        told = overrides.sentence(rows, area)
        OPS.log(
            logging.WARNING if given else logging.INFO,
            "area=%s op=override result=%s%s",
            area,
            "ok" if given else "ended",
            f" {told}" if told else "",
            extra={"area": area, "op": "override", "result": "ok" if given else "ended"},
        )

    def _tell_facts(self, memory: local.Segment) -> None:
        """Tell how the area is configured; that others said something else is an event."""
        area = self._config.area
        told = facts.encode(self._area_config or self._config, self._mode)
        if memory.area_facts_write(area, told):
            oplog.recorded(area, "config", "changed", oplog.started(), memory=memory)

    def _flags(self) -> int:
        config = self._config
        own = config.local is not None
        remote = self._second is not None or own
        chosen = {
            local.PLAIN_MISS: config.loader is None and not config.allow_stale and not remote,
            local.LOADS: config.loader is not None or remote,
            # These store raw types as the memory itself does; the others have a say in it, as has
            # Redis, though it may be told later only, or a limit to what a caller gives for a life.
            local.PLAIN_SET: (
                isinstance(config.codec, str)
                and config.codec != "raw"
                and not config.tags
                and not own
                and self._tiers.known is None
                and self._longest is None
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
        second = self._tiers.known
        assert second is not None, "without a second level nothing is asked"
        return second.ask(self, wanted)

    async def _aask(self, wanted: Ask) -> Any:
        second = self._tiers.known
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

    def _lives(
        self, value: Any, ttl: Any = UNSET, *, jitter: bool = True, tiers: Tiers | None = None
    ) -> Lives:
        """How long a value is to live in which tier, of *tiers* or of those that there are now."""
        is_null = value is None
        mode = self._mode if tiers is None else tiers.mode
        if ttl is UNSET:
            chance = None if jitter else 0.0
            return policy.configured_lives(self._config, mode, is_null=is_null, chance=chance)
        given = seconds(ttl, name="ttl", allow_none=True, allow_zero=True)
        life = policy.shorter(given, self._longest)
        return policy.given_lives(self._config, mode, life, is_null=is_null)

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
            if self._tiers.known is not None:
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
