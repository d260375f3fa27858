"""One area as LevelCache inherits it: the hit methods, and the primitives for everything else."""

from __future__ import annotations

import contextlib
import random
from bisect import bisect_left
from math import inf, isfinite
from operator import index
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from accelerator.codec import CODE_NULL, RAW_CODES, decode_raw, encode_raw
from accelerator.entry import UNSET
from accelerator.errors import SerializationError
from accelerator.keys import encode as encode_key
from accelerator.process_local.constants import (
    ADD,
    BYPASS,
    CAP,
    CODE_LIMIT,
    COUNTERS,
    DELETE_TOTAL,
    FILL,
    FORCE,
    JOIN,
    LATENCY_BOUNDS,
    LOCAL_HIT,
    LOCAL_MISS,
    LOCK,
    NEGATIVE_HIT,
    NOT_STORED,
    NOTE_EXPIRE,
    NOTE_EXPIRE_TAG,
    NOTE_FORGET,
    NOTE_FORGET_TAG,
    NOTE_SET,
    OBJECT_HIT,
    OBJECTS_COPY,
    OBJECTS_SHARED,
    OFF,
    PLAIN_MISS,
    PLAIN_SET,
    SERVE,
    SET,
)
from accelerator.process_local.flights import (
    Flight,
    Seat,
    checked_age,
    checked_lease,
    checked_mode,
)
from accelerator.process_local.items import AreaState, Freshness, Item, Life
from accelerator.process_local.tags import TAG_TYPE, checked_tags

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from accelerator.process_local.segment import ProcessLocalSegment

_PLAIN_TTL_MAX: Final = 1e9
_NAME_TAG: Final = b"\xff"
_INT64: Final = range(-(1 << 63), 1 << 63)

_ATTACHES: Final = 16
"""_attach() calls before an area that is not bound is an error: other threads may detach."""

_REBINDS: Final = 4
"""... and before it is used as it was bound, though other overrides are in force by now: where they
change all the time no operation may fail for that, and the next one has it bound anew."""


class _Binding(NamedTuple):
    """What _bind() was told."""

    segment: ProcessLocalSegment
    area: AreaState
    ttl: float | None
    stale_ttl: float
    jitter: float
    max_value_size: int
    object_bytes: int
    flags: int
    refresh_window: float
    freshness: Freshness
    converter: Callable[[Any], Any] | None
    overrides: int
    """Print of those that it was bound under."""

    @property
    def current(self) -> bool:
        """Whether they are still those in force."""
        return self.overrides == self.segment.overrides_print()

    def encoded(self, key: Any) -> bytes:
        """What a caller's key is called here; a converter is run outside of all locks."""
        return encode_key(key if self.converter is None else self.converter(key))

    @property
    def shared(self) -> bool:
        """Whether objects of every kind are kept."""
        return bool(self.flags & OBJECTS_SHARED)

    def add(self, counter: int, n: int = 1) -> None:
        """Add to a counter."""
        with self.segment.lock():
            self.area.counters[counter] += n

    def add_latency(self, latencies: list[int], caller: str, seconds: float) -> None:
        """Add one to a histogram."""
        if not (isfinite(seconds) and seconds >= 0):
            raise ValueError(f"{caller}: seconds must be finite and not below 0")
        with self.segment.lock():
            latencies[bisect_left(LATENCY_BOUNDS, seconds)] += 1
            latencies[-1] += round(seconds * 1e6)

    def configured_life(self) -> Life:
        """Life that the area's configuration says, shortened at random."""
        if self.ttl is None:
            return Life(None, None)
        share = self.jitter * random.random()  # noqa: S311  no secret
        return self.given_life(self.ttl * (1 - share), self.stale_ttl)

    def given_life(self, ttl: float | None, stale_ttl: float) -> Life:
        """Life that a call says."""
        if ttl is None:
            return Life(None, None)
        if not (ttl > 0 and stale_ttl >= 0):
            raise ValueError("a life must be more than 0 seconds, a stale life not less than 0")
        expire_at = self.segment.now() + ttl
        return Life(expire_at, expire_at + stale_ttl if stale_ttl > 0 else None)


class ProcessLocalArea:
    """
    One area in one segment, with the methods of ``_native.Area``.

    A subclass must offer the methods that are only declared here.
    """

    _attach: Callable[[], object]
    """Called on the first operation and after _unbind(); must call _bind()."""
    _miss: Callable[..., Any]
    """(key, default, options, read_options)"""
    _mmiss: Callable[..., Any]
    """(missing, result, default, options, read_options); fills *result* in place"""
    _contains_miss: Callable[..., Any]
    """(key)"""
    _set: Callable[..., Any]
    """(key, value, ttl, options)"""
    _decode: Callable[[int, bytes], tuple[Any, bool] | None]
    """(code, payload) -> (object, immutable), None for what cannot be decoded"""
    _near_end: Callable[[Any], object]
    """(key), after a hit with less than *refresh_window* left; needed only if that is not 0"""

    # Mangled, so that no attribute of a subclass can be in its way.  On the class, so that nothing
    # depends on __init__ being called.
    __binding: _Binding | None = None

    def _bind(
        self,
        segment: ProcessLocalSegment,
        area: str,
        *,
        ttl: float | None,
        null_ttl: float | None,
        stale_ttl: float,
        jitter: float,
        max_value_size: int,
        object_cache_bytes: int,
        flags: int,
        refresh_window: float = 0.0,
        bound: float | None = None,
        limit: float = 0.0,
        on_desync: int = CAP,
        variant: int = 0,
        key_converter: Callable[[Any], Any] | None = None,
        overrides: int | None = None,
    ) -> None:
        """Tie this object to an area of a segment."""
        if overrides is None:
            overrides = segment.overrides_print()
        for life in (ttl, null_ttl):
            if life is not None and not life > 0:
                raise ValueError("_bind: a life must be None or more than 0 seconds")
        if not (0 <= jitter <= 1 and stale_ttl >= 0 and refresh_window >= 0):
            raise ValueError(
                "_bind: jitter must be within 0 to 1, stale_ttl and refresh_window not below 0"
            )
        if on_desync not in {CAP, BYPASS, SERVE}:
            raise ValueError("_bind: on_desync out of range")
        if bound is not None and not (0 < bound < inf and 0 <= limit <= bound):
            raise ValueError(
                "_bind: bound must be None or more than 0 seconds and finite, limit 0 to bound"
            )
        if not 0 <= variant < 1 << 32:
            raise ValueError("_bind: variant must be a number of 32 bits")
        if flags & OFF:
            flags = flags & ~PLAIN_SET | OBJECTS_COPY
        state = segment.version(area, variant)
        if bound is not None:
            segment.watch(state)
        self.__binding = _Binding(
            segment,
            state,
            ttl,
            stale_ttl,
            jitter,
            max_value_size,
            object_cache_bytes,
            flags,
            refresh_window,
            Freshness(bound, limit, on_desync),
            key_converter,
            overrides,
        )

    def _unbind(self) -> None:
        self.__binding = None

    @property
    def _bound(self) -> bool:
        binding = self.__binding
        return binding is not None and binding.current

    def __ready(self) -> _Binding:
        """Give the binding; attach first if need be."""
        binding = self.__binding
        for tries in range(_ATTACHES):
            if binding is not None and (tries >= _REBINDS or binding.current):
                break
            self._attach()
            binding = self.__binding
        if binding is None:
            raise RuntimeError("_attach() did not bind the area")
        if not binding.segment.entered:
            binding.segment.register()
        return binding

    # --- the hit methods ---

    def get(
        self, key: Any, /, default: Any = None, *, options: Any = None, **read_options: Any
    ) -> Any:
        """
        Read one key; with a loader, load it on a miss.

        A hit in the memory of this host takes no lock and runs no Python code.

        Args:
            key: str, bytes, int, UUID, None, bool, or a tuple of those.
            default: What to answer if the key is not known.  A stored None is no miss; with MISS
                as default both can be told apart.
            options: What this read allows, a ReadOptions.
            read_options: The same as keywords: allow_stale (bool), disable_load (bool),
                max_staleness (seconds, or another duration).

        Returns:
            The value, a stored None included, or *default*.

        Raises:
            LoaderError: The loader raised, and no stale value was there and allowed.
            LoaderTimeout: Others' loads took longer than ``wait_timeout``, and ``max_loads`` run.
            ConfigError: The loader is async: use aget().
            TypeError, ValueError: The key or an option is wrong.

        A miss blocks for at most ``redis_timeout``, and then for as long as the loader does, or
        for ``wait_timeout`` where another one loads.
        """
        binding = self.__ready()
        if options is not None or read_options:
            # Options may forbid what a plain hit returns.
            return self._miss(key, default, options, read_options)
        encoded = binding.encoded(key)
        found = self.__read_object(binding, encoded, mark=True, stale=False)
        if found is not None:
            self.__count_hit(binding, *found[:2])
            self.__watch_life(binding, key, found[0].life)
            return found[1]
        if binding.flags & PLAIN_MISS:
            binding.add(LOCAL_MISS)
            binding.segment.count_read(binding.area, encoded)
            return default
        return self._miss(key, default, None, {})

    def _hit(self, key: Any) -> Any:
        """What get() would answer if it is a plain hit whose refresh is not due; UNSET if not."""
        binding = self.__ready()
        found = self.__read_object(binding, binding.encoded(key), mark=True, stale=False)
        if found is None:
            return UNSET
        expire_at = found[0].life.expire_at
        if (
            binding.refresh_window
            and expire_at is not None
            and expire_at - binding.segment.now() < binding.refresh_window
        ):
            return UNSET  # whoever is asked next finds it again, and has it refreshed
        self.__count_hit(binding, *found[:2])
        return found[1]

    def mget(
        self,
        keys: Iterable[Any],
        /,
        default: Any = None,
        *,
        options: Any = None,
        **read_options: Any,
    ) -> dict[Any, Any]:
        """
        Read many keys; with a loader, load what is missing.

        The loader is asked once if it has ``mload``, else key by key.

        Args:
            keys: An iterable of keys, each as get() takes it.
            default: What to answer for those that are not known.
            options: As get() takes it.
            read_options: As get() takes them.

        Returns:
            A dict of every requested key, in the order of the request, each once.

        Raises:
            LoaderError, LoaderTimeout, ConfigError: As get() does, for any of the keys; what was
                loaded for the others is stored.
            TypeError: A key or an option is wrong.
            ValueError: The same, or keys that are equal in a dict and not here, as 1 and True.

        Misses block as with get().
        """
        binding = self.__ready()
        plain = options is None and not read_options
        result: dict[Any, Any] = {}
        missing = []
        names: dict[Any, bytes] = {}
        told_apart = True
        for key in _keys_of(keys):
            encoded = binding.encoded(key)
            told_apart &= names.setdefault(key, encoded) == encoded
            found = None
            if plain:  # options may forbid what a plain hit returns
                found = self.__read_object(binding, encoded, mark=True, stale=False)
            if found is not None:
                self.__count_hit(binding, *found[:2])
                result[key] = found[1]
            elif key not in result:
                result[key] = default
                missing.append(key)
                if plain and binding.flags & PLAIN_MISS:
                    binding.segment.count_read(binding.area, encoded)
        if not told_apart:
            raise ValueError(
                "mget() answers with a dict, in which some of these keys are equal though they are "
                "different keys here, as 1 and True are: ask for them in two calls"
            )
        if not missing:
            return result
        if plain and binding.flags & PLAIN_MISS:
            binding.add(LOCAL_MISS, len(missing))
        else:
            self._mmiss(missing, result, default, options, read_options)
        return result

    def __contains__(self, key: object, /) -> bool:
        """
        Tell whether a fresh value is there, a stored None included.

        Counts as no read, and never loads.

        Raises:
            TypeError, ValueError: The key is wrong.

        Never waits on this host; what Redis has is looked for within ``redis_timeout``.
        """
        binding = self.__ready()
        encoded = binding.encoded(key)
        if not binding.flags & OFF and binding.segment.find(
            binding.area, encoded, mark=False, stale=False, freshness=binding.freshness
        ):
            return True
        return not binding.flags & PLAIN_MISS and bool(self._contains_miss(key))

    def set(
        self,
        key: Any,
        value: Any,
        /,
        ttl: Any = UNSET,
        *,
        tags: Any = None,
        broadcast: Any = None,
    ) -> None:
        """
        Store one key, for all processes; with Redis for all hosts.

        Args:
            key: As get() takes it.
            value: What the area's codec can encode, up to ``max_value_size`` bytes.
            ttl: Its life: seconds, a timedelta, or text such as "5m"; None: no expiry; 0: nothing
                is stored, and an older copy goes.  Not given: as the area says.
            tags: An iterable of str, each of 1 to 255 bytes in UTF-8: delete_tags() forgets the
                value with all others that carry one of them.  A value carries at most 8, those of
                the area included.
            broadcast: Whether other hosts are told; None: as ``broadcast_sets`` says.

        Raises:
            SerializationError: The value cannot be encoded, or is too large; nothing has changed.
            TypeError, ValueError: The key, *ttl*, a tag or *broadcast* is wrong.

        What the memory or Redis does not take is logged, and raises nothing.  Blocks for at most
        20 ms, with Redis for at most ``redis_timeout``.
        """
        binding = self.__ready()
        raw = None
        is_plain = binding.flags & PLAIN_SET and tags is None and broadcast is None
        if is_plain and _is_plain_ttl(ttl):
            raw = encode_raw(value)
        if raw is None or raw[0] == CODE_NULL or len(raw[1]) > binding.max_value_size:
            given = {"tags": tags, "broadcast": broadcast}
            options = {name: value for name, value in given.items() if value is not None}
            self._set(key, value, ttl, options)
            return
        encoded = binding.encoded(key)
        life = (
            binding.configured_life()
            if ttl is UNSET
            else binding.given_life(ttl, binding.stale_ttl)
        )
        binding.segment.store(binding.area, encoded, *raw, life)

    # --- primitives for Python: times are seconds from now, ttl None is no expiry ---

    def _store(  # noqa: PLR0917  as in _native
        self,
        key: Any,
        code: int,
        payload: bytes,
        ttl: float | None,
        stale_ttl: float,
        mode: int = SET,
        token: tuple[int, int, int] | None = None,
        age: float = 0.0,
        *,
        note: int = 0,
        tags: Sequence[bytes] = (),
    ) -> int:
        if not 0 < code < CODE_LIMIT or mode not in {SET, ADD, FILL}:
            raise ValueError("_store: code or mode out of range")
        age = checked_age(age)
        checked = checked_tags(tags)
        binding = self.__ready()
        encoded = binding.encoded(key)
        life = binding.given_life(ttl, stale_ttl)
        if binding.flags & OFF:
            return NOT_STORED
        return binding.segment.store(
            binding.area,
            encoded,
            code,
            bytes(payload),
            life,
            mode=mode,
            token=token,
            age=age,
            freshness=binding.freshness,
            note=note,
            tags=binding.segment.slots_of(binding.area, checked),
        )

    def _token(self, key: Any) -> tuple[int, int, int]:
        binding = self.__ready()
        encoded = binding.encoded(key)
        with binding.segment.lock():
            key_count, area_count = binding.segment.token(binding.area, encoded)
            return key_count, area_count, binding.segment.tags.clock

    def _read(
        self, key: Any, *, touch: bool = True, stale: bool = False, within: float | None = None
    ) -> tuple[Any, int, float, float | None, bool, int] | None:
        """(object, code, age, ttl, is_stale, version); an expired value's ttl is negative."""
        if within is not None and not within >= 0:
            raise ValueError("_read: within must be None or not less than 0 seconds")
        binding = self.__ready()
        encoded = binding.encoded(key)
        if touch and not stale:
            binding.segment.count_read(binding.area, encoded)
        found = self.__read_object(binding, encoded, mark=touch, stale=stale, within=within)
        if found is None:
            return None
        item, value, is_fresh = found
        now = binding.segment.now()
        expire_at = item.life.expire_at
        ttl = None if expire_at is None else expire_at - now
        if ttl is not None and item.is_expired_by_tag:
            ttl = min(ttl, item.loaded_at - now)  # nobody knows when: since it was loaded
        return value, item.code, now - item.loaded_at, ttl, not is_fresh, item.version

    def _delete(self, key: Any) -> bool:
        binding = self.__ready()
        encoded = binding.encoded(key)
        binding.add(DELETE_TOTAL)
        return binding.segment.delete(binding.area, encoded)

    def _expire(self, key: Any) -> bool:
        binding = self.__ready()
        return binding.segment.expire(binding.area, binding.encoded(key))

    def _touch(self, key: Any, ttl: float | None, stale_ttl: float) -> int:
        binding = self.__ready()
        encoded = binding.encoded(key)
        return binding.segment.touch(binding.area, encoded, binding.given_life(ttl, stale_ttl))

    def _incr(
        self, key: Any, delta: int, initial: int | None, ttl: float | None, stale_ttl: float
    ) -> int | None:
        delta = _int64(delta)
        initial = None if initial is None else _int64(initial)
        binding = self.__ready()
        encoded = binding.encoded(key)
        life = binding.given_life(ttl, stale_ttl)
        return binding.segment.incr(binding.area, encoded, delta, initial, life)

    def _freshness(self) -> float | None:
        binding = self.__ready()
        bound = binding.freshness.bound
        if bound is None:
            return None
        return max(0.0, binding.segment.now() - (binding.area.base.fresh_until - bound))

    def _clear(self) -> None:
        binding = self.__ready()
        binding.segment.clear(binding.area)

    # --- tags, encoded in UTF-8 ---

    def _delete_tags(self, tags: Sequence[bytes]) -> None:
        self.__mark_tags(tags, expire=False)

    def _expire_tags(self, tags: Sequence[bytes]) -> None:
        self.__mark_tags(tags, expire=True)

    def __mark_tags(self, tags: Sequence[bytes], *, expire: bool) -> None:
        checked = checked_tags(tags, most=None)
        binding = self.__ready()
        binding.segment.count_tags(binding.area, len(checked))
        binding.segment.mark_tags(binding.area, checked, expire=expire)

    # --- what L2 and other hosts are to learn of ---

    def _note(self, key: Any, kind: int) -> int:
        if kind not in {NOTE_FORGET, NOTE_SET, NOTE_EXPIRE}:
            raise ValueError("_note: no such kind")
        binding = self.__ready()
        return binding.segment.note(binding.area, kind, binding.encoded(key))

    def _note_tag(self, tag: bytes, kind: int) -> int:
        if kind not in {NOTE_FORGET_TAG, NOTE_EXPIRE_TAG}:
            raise ValueError("_note_tag: no such kind")
        (checked,) = checked_tags((tag,))
        binding = self.__ready()
        return binding.segment.note(binding.area, kind, TAG_TYPE + checked)

    def _note_clear(self) -> int:
        binding = self.__ready()
        return binding.segment.note_clear(binding.area)

    def _count(self, counter: int, n: int = 1) -> None:
        if not 0 <= counter < len(COUNTERS):
            raise ValueError("_count: no such counter")
        self.__ready().add(counter, n)

    def _counters(self) -> dict[str, int]:
        return self.__ready().area.named_counters()

    def _hash(self, key: Any) -> int:
        binding = self.__ready()
        return binding.segment.hash_of(binding.area, binding.encoded(key))

    # --- loads ---

    def _enter(
        self,
        key: Any,
        lease: float,
        mode: int = JOIN,
        waits: bool = True,  # noqa: ARG002  for the lock of the native part
        /,
    ) -> Flight | None:
        """Lead the load of a key, or join who does; None: nothing to do, see ``_native.pyi``."""
        lease = checked_lease(lease)
        mode = checked_mode(mode)
        binding = self.__ready()
        encoded = _encode_name(key) if mode == LOCK else binding.encoded(key)
        seat = Seat()
        flight = self.__flight(binding, seat)
        window = None
        if not binding.flags & OFF and mode not in {FORCE, LOCK}:
            window = 0.0 if mode == JOIN else binding.refresh_window or None
        table = binding.segment.table
        area = binding.area.base if mode == LOCK else binding.area
        entered = table.enter(
            seat, area, encoded, lease, mode, window=window, freshness=binding.freshness
        )
        return flight if entered else None

    def _enter_alone(self, key: Any, lease: float, most: int | None) -> Flight | None:
        """Begin a load that nobody joins; None: *most* run already."""
        lease = checked_lease(lease)
        binding = self.__ready()
        encoded = binding.encoded(key)
        seat = Seat()
        flight = self.__flight(binding, seat)
        entered = binding.segment.table.enter_alone(seat, binding.area, encoded, lease, most)
        return flight if entered else None

    def __flight(self, binding: _Binding, seat: Seat) -> Flight:
        return Flight(
            binding.segment,
            seat,
            binding.given_life,
            self.__handed_over,
            binding.freshness,
            stores=not binding.flags & OFF,
        )

    def __handed_over(self, code: int, payload: bytes) -> tuple[Any] | None:
        if code not in RAW_CODES:
            pair = self._decode(code, payload)
            return None if pair is None else (pair[0],)
        try:
            return (decode_raw(code, payload),)
        except SerializationError:
            return None

    def _pause(self, key: Any, seconds: float) -> None:
        if not seconds >= 0:
            raise ValueError("_pause: seconds must not be below 0")
        binding = self.__ready()
        binding.segment.pause(binding.area, binding.encoded(key), seconds)

    def _pausing(self, key: Any) -> bool:
        binding = self.__ready()
        return binding.segment.pausing(binding.area, binding.encoded(key))

    def _latency(self, seconds: float) -> None:
        binding = self.__ready()
        binding.add_latency(binding.area.latencies, "_latency", seconds)

    def _latencies(self) -> list[int]:
        return self.__ready().area.latencies.copy()

    def _l2_latency(self, seconds: float) -> None:
        binding = self.__ready()
        binding.add_latency(binding.area.l2_latencies, "_l2_latency", seconds)

    def _l2_latencies(self) -> list[int]:
        return self.__ready().area.l2_latencies.copy()

    def __watch_life(self, binding: _Binding, key: Any, life: Life) -> None:
        if binding.refresh_window <= 0 or life.expire_at is None:
            return
        if life.expire_at - binding.segment.now() < binding.refresh_window:
            with contextlib.suppress(Exception):  # the hit stands, whatever becomes of a refresh
                self._near_end(key)

    # --- reading ---

    def __read_object(
        self,
        binding: _Binding,
        key: bytes,
        *,
        mark: bool,
        stale: bool,
        within: float | None = None,
    ) -> tuple[Item, Any, bool] | None:
        """Give item, object, and whether it is fresh; None for a miss."""
        if binding.flags & OFF:
            return None
        found = binding.segment.find(
            binding.area,
            key,
            mark=mark,
            stale=stale,
            freshness=binding.freshness,
            within=within,
        )
        if found is None:
            return None
        item, is_fresh = found
        read = self.__object_of(binding, item)
        return None if read is None else (*read, is_fresh)

    def __object_of(self, binding: _Binding, item: Item) -> tuple[Item, Any] | None:
        """Give item and object.  The object is decoded without the lock."""
        if item.code in RAW_CODES:
            return self.__raw_object(binding, item)
        if binding.flags & OBJECTS_COPY:
            return self.__decoded(binding, item, keep=False)
        kept = binding.segment.find_object(item, shared=binding.shared)
        if kept is not None:
            binding.add(OBJECT_HIT)
            return kept
        return self.__decoded(binding, item, keep=True)

    def __raw_object(self, binding: _Binding, item: Item) -> tuple[Item, Any] | None:
        try:
            return item, decode_raw(item.code, item.payload)
        except SerializationError:
            binding.segment.drop_corrupt(item)
            return None

    def __decoded(self, binding: _Binding, item: Item, *, keep: bool) -> tuple[Item, Any] | None:
        pair = self._decode(item.code, item.payload)
        if pair is None:
            binding.segment.drop_corrupt(item)
            return None
        if type(pair) is not tuple or len(pair) != 2:
            raise TypeError("_decode must answer (object, immutable) or None")
        value, immutable = pair
        if keep and (immutable is True or binding.shared):
            segment = binding.segment
            segment.keep_object(item, value, binding.object_bytes, shared=binding.shared)
        return item, value

    @staticmethod
    def __count_hit(binding: _Binding, item: Item, value: Any) -> None:
        binding.add(LOCAL_HIT)
        binding.segment.count_read(item.area, item.place[1])
        if value is None:
            binding.add(NEGATIVE_HIT)


def _keys_of(keys: Iterable[Any]) -> tuple[Any, ...]:
    """Copy, because user code that runs meanwhile may change the caller's list."""
    try:
        return tuple(keys)
    except TypeError:
        raise TypeError("mget() takes an iterable of keys") from None


def _encode_name(name: object) -> bytes:
    """Encode the name of a lock, which no key is equal to."""
    if not isinstance(name, str):
        raise TypeError(f"a lock's name must be a str, not {type(name).__name__}")
    return _NAME_TAG + encode_key(name)[1:]


def _is_plain_ttl(ttl: Any) -> bool:
    """Tell whether a ttl needs no judgement; 0, NaN, text and the rest are for the subclass."""
    if ttl is UNSET or ttl is None:
        return True
    return type(ttl) in {int, float} and 0 < ttl < _PLAIN_TTL_MAX


def _int64(number: int) -> int:
    exact = index(number)
    if exact not in _INT64:
        raise OverflowError("the number does not fit 64 bits")
    return exact
