"""
Reading an area: what is answered from memory, and what is loaded.

``get``, ``mget`` and ``in`` are C, and call the underscored methods here for what is no plain hit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar, overload

from accelerator import flight, loading, local, policy, runtime
from accelerator.binding import COUNTER
from accelerator.entry import MISS, Entry, K, ReadOptions, V
from accelerator.errors import ConfigError, LoaderError
from accelerator.joining import STALE_ALLOWED, STALE_FALLBACK
from accelerator.loader import Source
from accelerator.local import UNSET
from accelerator.lock import Lock
from accelerator.looking import FROM_REMOTE
from accelerator.observability import diagnostics, metrics, oplog
from accelerator.operations import Operations
from accelerator.warming import Warming

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Unpack

    from accelerator.config import AreaConfig
    from accelerator.durations import Duration
    from accelerator.entry import ReadOptionValues
    from accelerator.loader import LoaderOf
    from accelerator.looking import Copy
    from accelerator.memory import Reading
    from accelerator.observability.diagnostics import DiagnosticSnapshot
    from accelerator.observability.metrics import MetricPoint, MetricsSnapshot
    from accelerator.steps import Steps

D = TypeVar("D")

_native_get: Final = local.AreaBase.get
_LOCAL_HIT: Final = COUNTER["local_hit"]
_LOCAL_MISS: Final = COUNTER["local_miss"]
_NEGATIVE_HIT: Final = COUNTER["negative_hit"]
_DESYNC_READ: Final = COUNTER["desync_read"]
_REFRESH_ATTEMPTS: Final = loading.REFRESH_ATTEMPTS
PLAIN: Final = ReadOptions()


class Reads(Operations[K, V]):
    """What LevelCache reads, loads, and shows of itself."""

    _source: Source | None
    """The area's loader."""

    @property
    def config(self) -> AreaConfig:
        """The options of this area as the application gave them, durations in seconds."""
        return self._own_config

    # --- reading --------------------------------------------------------------------------------

    @overload
    def peek(self, key: K, default: None = None) -> V | None: ...
    @overload
    def peek(self, key: K, default: D) -> V | D: ...
    def peek(self, key: K, default: Any = None) -> Any:
        """
        Read a key without loading it, counting the read, or keeping the key from eviction.

        Args:
            key: The key.
            default: What to answer if there is no fresh value.

        Returns:
            The value, a stored ``None`` included, or *default*.

        Raises:
            TypeError, ValueError: The key is wrong.

        Never waits on this host; what Redis has is looked for within ``redis_timeout``.
        """
        self._begin()
        found = self._do(self._finding(key))
        return default if found is None else found[0]

    def get_entry(
        self,
        key: K,
        *,
        options: ReadOptions | None = None,
        **read_options: Unpack[ReadOptionValues],
    ) -> Entry[V] | None:
        """
        Read a key as get() does, with all that is known about it.

        Args:
            key: The key.
            options: What this read allows.
            read_options: The same as keywords, see ReadOptions.

        Returns:
            An Entry (times in seconds), or None if the key is not known.

        Raises:
            LoaderError, LoaderTimeout, ConfigError, TypeError, ValueError: As get() does.

        Blocks as get() does.
        """
        return entry(self._look(key, ReadOptions.of(options, read_options), op="get"))

    @overload
    def get_or_load(
        self,
        key: K,
        loader: LoaderOf[K, V],
        *,
        ttl: Duration | None = UNSET,
        tags: Iterable[str] | None = None,
    ) -> V: ...
    @overload
    def get_or_load(
        self,
        key: K,
        loader: LoaderOf[K, V],
        *,
        ttl: Duration | None = UNSET,
        tags: Iterable[str] | None = None,
        options: ReadOptions | None = None,
        **read_options: Unpack[ReadOptionValues],
    ) -> V | None: ...
    def get_or_load(
        self,
        key: K,
        loader: LoaderOf[K, V],
        *,
        ttl: Duration | None = UNSET,
        tags: Iterable[str] | None = None,
        options: ReadOptions | None = None,
        **read_options: Unpack[ReadOptionValues],
    ) -> V | None:
        """
        Read a key, or ask *loader* for it and store the answer.

        One caller on the host loads, the others that want the key wait for it.  A load that a
        delete or a set of the key, or a delete of one of its tags, overtakes is returned, but not
        stored.

        Args:
            key: The key.
            loader: Function of the key, or an object with ``load``; instead of the area's.
            ttl: Life of what it answers, as set() takes it.
            tags: Of what it answers, as set() takes them.
            options: What this read allows.
            read_options: The same as keywords, see ReadOptions.

        Returns:
            The value; with ``disable_load`` None if there is none.

        Raises:
            LoaderError: *loader* raised, and no stale value was there and allowed.
            LoaderTimeout: Others' loads took longer than ``wait_timeout``, and ``max_loads`` run.
            ConfigError: *loader* is async.
            TypeError, ValueError: The key or another argument is wrong.

        Blocks for as long as *loader* does, or for ``wait_timeout`` where another one loads.
        """
        found = None
        if options is None and not read_options and self._is_plain:
            hit: V = _native_get(self, key, MISS)  # not a subclass's, which may come back here
            if hit is not MISS:
                return hit
            chosen = PLAIN
        else:
            chosen = ReadOptions.of(options, read_options)
            if chosen.disable_load:
                found = self._look(key, chosen, op="get")
                return None if found is None else found[0]
            found = self._fresh(key, chosen)
        if found is None:
            [found] = loading.run(self._given(key, loader, ttl, tags, chosen))
        return None if found is None else found[0]

    def refresh(self, key: K) -> V:
        """
        Ask the loader now, whatever is stored, and store its answer.

        The load begins after this call does: one that already runs is waited for, and another led
        or joined.  The tags of the value are those that this load gives.

        Args:
            key: The key.

        Returns:
            What the loader answered.

        Raises:
            LoaderError, LoaderTimeout: It failed, or too many loads run; the old value stays.
            ConfigError: The area has no loader, or an async one.
            TypeError, ValueError: The key is wrong.

        Blocks as get_or_load() does.
        """
        [found] = loading.run(self._refreshing(key))
        answer: V = answered(found)
        return answer

    def warmup(self, keys: Iterable[K]) -> int:
        """
        Load what is not there yet, ``warmup_batch_size`` keys at a time.

        A batch that fails is logged, and the others go on.

        Args:
            keys: The keys.

        Returns:
            How many of the keys have a value now, ``None`` not counted; 0 without
            ``warmup_enabled``.

        Raises:
            LoaderError, LoaderTimeout: Every batch failed.
            ConfigError: The loader is async.
            TypeError, ValueError: A key is wrong.

        Blocks for as long as all of it takes.
        """
        warming = Warming(self._config)
        for batch in warming.batches(keys):
            with warming:
                warming.warm += known(self._look_for_all(batch, PLAIN, op="warmup").values())
        return warming.judged()

    # --- one at a time --------------------------------------------------------------------------

    def lock(
        self, name: str, *, lease: Duration | None = None, timeout: Duration | None = None
    ) -> Lock:
        """
        Make a lock by name, for one use at a time in ``with`` or ``async with``; takes nothing yet.

        Args:
            name: Of the lock, within this area; at most 511 bytes.  It meets no key.
            lease: How long a living holder may keep it (seconds, or another duration); None: the
                area's ``lease``.
            timeout: How long to wait for it (the same); None: without limit.

        Raises:
            TypeError, ValueError: One of these is wrong.

        Does not block; taking it does.
        """
        return Lock(self, name, lease=lease, timeout=timeout)

    # --- looking at it --------------------------------------------------------------------------

    def metrics_snapshot(self) -> MetricsSnapshot:
        """Counters of this area, over all processes of this host.  Does not block."""
        return metrics.snapshot(self._counters())

    def diagnostic_snapshot(self) -> DiagnosticSnapshot:
        """
        Everything about this area, for an operator, times in seconds; ready for JSON.

        Walks the segment to see what the area has in it, which takes milliseconds; does not block
        otherwise, and never asks Redis.
        """
        latencies = self._latencies()  # attaches, if nothing has yet
        return diagnostics.area_snapshot(
            self._config,
            mode=self._mode,
            degraded=runtime.current().degraded,
            stats=self._memory.stats(),
            load=diagnostics.latency(local.LATENCY_BOUNDS, latencies),
            remote=None if self._tiers.known is None else self._tiers.known.describe(self),
        )

    def otel_metric_points(self) -> list[MetricPoint]:
        """
        Every metric of this area and of its host, as data points in the shape of OpenTelemetry.

        The first 16 are counters with no attribute but ``area``; times are in seconds.  Walks the
        segment, which takes milliseconds; does not block otherwise, and never asks Redis.
        """
        latencies = self._latencies()
        area = self._config.area
        shown = diagnostics.figures(
            area,
            stats=self._memory.stats(),
            load=metrics.distribution(local.LATENCY_BOUNDS, latencies),
            remote=None if self._tiers.known is None else self._tiers.known.describe(self),
        )
        return metrics.points(area, shown)

    # --- what the hit methods call when something is not plain ----------------------------------

    def _miss(
        self, key: Any, default: Any, options: ReadOptions | None, read_options: dict[str, Any]
    ) -> Any:
        found = self._look(key, ReadOptions.of(options, read_options), op="get")
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
        for key, found in self._look_for_all(missing, chosen, op="mget").items():
            if found is not None:
                result[key] = found[0]

    def _contains_miss(self, key: object) -> bool:  # ``in`` never loads
        return self._second is not None and self._do(self._finding(key)) is not None

    def _near_end(self, key: Any) -> None:
        """Have one worker on the host load a value anew that a hit found near its end."""
        source = self._source
        if source is None or self._pausing(key):
            return
        window = self._config.refresh_ahead_window
        load = loading.Load(
            self, source, [key], op="refresh", options=PLAIN, refreshes=True, enough=window
        )
        if flight.running_loop() is not None:
            from accelerator import aloading  # noqa: PLC0415  asyncio only where it is used

            aloading.refresh_ahead(load)
        elif not source.load.is_async:  # else there is no loop to run it in
            loading.refresh_ahead(load)

    # --- steps ----------------------------------------------------------------------------------

    @property
    def _is_plain(self) -> bool:
        """Whether a plain get asks the segment only, and for nothing stale."""
        return self._source is None and self._second is None and not self._config.allow_stale

    def _look(self, key: Any, options: ReadOptions, *, op: str) -> Reading | None:
        """Read one key, and load it if the area has a loader."""
        self._begin()
        if self._source is None or options.disable_load:
            return self._do(self._knowing([key], options))[key]
        found = self._fresh(key, options)
        if found is None:
            load = loading.Load(self, self._source, [key], op=op, options=options)
            [found] = loading.run(load)
        return found

    def _look_for_all(
        self, keys: Iterable[Any], options: ReadOptions, *, op: str
    ) -> dict[Any, Reading | None]:
        """Read many keys, and load what is missing."""
        self._begin()
        if self._source is None or options.disable_load:
            return self._do(self._knowing(list(dict.fromkeys(keys)), options))
        found, load = self._split(keys, options, self._source, op=op)
        if load is not None:
            found.update(zip((one.key for one in load.wanted), loading.run(load), strict=True))
        return found

    def _split(
        self, keys: Iterable[Any], options: ReadOptions, source: Source, *, op: str
    ) -> tuple[dict[Any, Reading | None], loading.Load | None]:
        """Read many keys; what is found, and what is to be loaded."""
        found = {key: self._fresh(key, options) for key in dict.fromkeys(keys)}
        missing = [key for key, reading in found.items() if reading is None]
        if not missing:
            return found, None
        return found, loading.Load(self, source, missing, op=op, options=options, batch=True)

    def _given(
        self,
        key: Any,
        loader: Any,
        ttl: Any,
        tags: Iterable[str] | None,
        options: ReadOptions,
    ) -> loading.Load:
        """What a get_or_load() has to load."""
        given = () if ttl is UNSET else (ttl,)
        self._begin()
        self._lives(None, *given)  # what is wrong with it is said before anything is loaded
        return loading.Load(
            self,
            Source(loader),
            [key],
            op="get",
            options=options,
            given=given,
            tags=self._tags(tags),
        )

    def _refreshing(self, key: Any) -> loading.Load:
        """What a refresh() has to load."""
        if self._source is None:
            raise ConfigError(
                "refresh() needs a loader: give the area one, or use set()",
                setting="loader",
                area=self._config.area,
                operation="refresh",
            )
        self._begin()
        self._count(_REFRESH_ATTEMPTS)
        return loading.Load(
            self, self._source, [key], op="refresh", options=PLAIN, refreshes=True, enough=None
        )

    def _refreshing_all(self, keys: Sequence[Any]) -> loading.Load:
        """What a refresh of many keys has to load, at once if the loader can."""
        assert self._source is not None, "only where there is a loader"
        self._begin()
        self._count(_REFRESH_ATTEMPTS)
        return loading.Load(
            self,
            self._source,
            keys,
            op="refresh",
            options=PLAIN,
            batch=True,
            refreshes=True,
            enough=None,
        )

    def _fresh(self, key: Any, options: ReadOptions = PLAIN) -> Reading | None:
        """Read what is fresh, and count it; a value near its end is refreshed, as after a hit."""
        found = self._read(key, within=options.max_staleness)
        self._count_local(found)
        if found is None:
            return None
        config, left = self._config, found[3]
        if config.refresh_ahead and left is not None and left < config.refresh_ahead_window:
            try:
                self._near_end(key)
            except Exception:  # the hit stands
                oplog.failed(config.area, "refresh", LoaderError.kind, oplog.started())
        return found

    def _count_local(self, found: Reading | None) -> None:
        if not self._mode.uses_local and not self._is_off:
            return  # there is nothing that could be hit
        self._count(_LOCAL_MISS if found is None else _LOCAL_HIT)
        if found is None and self._is_out_of_step():
            self._count(_DESYNC_READ)
        if found is not None and found[0] is None:
            self._count(_NEGATIVE_HIT)

    def _is_out_of_step(self) -> bool:
        """Whether what is held may be further behind other hosts than the bound."""
        age = self._freshness()
        return age is not None and self._second is not None and age > self._second.bound

    def _knowing(
        self, keys: Sequence[Any], options: ReadOptions
    ) -> Steps[dict[Any, Reading | None]]:
        """Read what *options* allow without a load, in both tiers, and count it."""
        known: dict[Any, Reading | None] = {}
        tokens = {}
        is_asked = self._second is not None  # for all of this read: see binding
        for key in keys:
            if is_asked:
                tokens[key] = self._token(key)  # before either tier is asked
            known[key] = self._read(key, within=options.max_staleness)
            self._count_local(known[key])
        missing = [key for key, found in known.items() if found is None]
        if not missing:
            return known
        stale_ok = options.allow_stale or self._config.allow_stale
        if stale_ok:
            self._count(STALE_ALLOWED, len(missing))
        copies: Sequence[Copy | None] = [None] * len(missing)
        if is_asked:
            copies = yield from self._fetched(missing, options.max_staleness)
        for key, copy in zip(missing, copies, strict=True):
            if copy is not None and copy.is_fresh:
                self._keep_fetched(key, copy, tokens[key])
                known[key] = copy.reading()
            elif stale_ok:
                known[key] = self._stale_one(key, copy, options.max_staleness)
        return known

    def _keep_fetched(self, key: Any, copy: Copy, token: tuple[int, int, int]) -> None:
        """Keep what Redis has in memory, not longer than there, unless a delete has come."""
        if self._mode.uses_local:
            life, stale_life, age = copy.lives_here(self._config)
            self._store(
                *(key, copy.code, copy.payload, life, stale_life, local.FILL, token),
                age=age,
                tags=copy.tags,
            )

    def _stale_one(self, key: Any, copy: Copy | None, limit: float | None) -> Reading | None:
        """What is past its life, in memory or else in Redis, and not too far."""
        found = self._read(key, stale=True)
        if found is None and copy is not None:
            found = copy.reading()
        if found is None or (limit is not None and policy.behind(found) > limit):
            return None
        self._count(STALE_FALLBACK)
        return found


def known(found: Iterable[Reading | None]) -> int:
    """Count the values that there are, of which a stored None is none."""
    return sum(reading is not None and reading[0] is not None for reading in found)


def answered(found: Reading | None) -> Any:
    """Give the value that was found, or None."""
    return None if found is None else found[0]


def entry(found: Reading | None) -> Entry[Any] | None:
    """Show what a read has found."""
    if found is None:
        return None
    value, _, age, ttl, stale, version = found
    left = None if ttl is None else max(0.0, ttl)
    tier = "remote" if version == FROM_REMOTE else "local" if version else "loader"
    return Entry(value, tier=tier, age=age, ttl=left, stale=stale, version=version)
