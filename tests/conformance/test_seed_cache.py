"""
What the tests of the Rust crate ask of a cache, asked of this one: assertions 1 to 33.

Each test is named after its number, which docs/reference/crate.md lists.  Where this cache differs
on purpose, the docstring says how.
"""

import asyncio
import threading
from typing import Any

import pytest

from accelerator import (
    BackendError,
    CacheMode,
    ConfigError,
    FnLoader,
    LoaderError,
    LoaderTimeout,
)
from accelerator.observability.metrics import METRICS, PREFIX


class Source:
    """A table that counts its queries, as a repository does."""

    def __init__(self, **rows: Any) -> None:
        self.rows = rows
        self.singles: list[str] = []
        self.batches: list[list[str]] = []

    def load(self, key: str) -> Any:
        self.singles.append(key)
        return self.rows.get(key)

    def mload(self, keys: Any) -> dict[str, Any]:
        self.batches.append(list(keys))
        return {key: self.rows.get(key) for key in keys}


class TestBuilder:
    """src/builder.rs."""

    @pytest.mark.usefixtures("local_only")
    def test_01_both_needs_backends(self, make: Any) -> None:
        """1: mode BOTH where one tier is missing is an error that says what it needs."""
        with pytest.raises(ConfigError, match="needs Redis"):
            make(mode=CacheMode.BOTH).get("key")

    def test_02_zero_life(self, make: Any) -> None:
        """2: a local_ttl of 0 is an error that names it."""
        with pytest.raises(ConfigError, match="local_ttl"):
            make(local_ttl=0)

    def test_03_key_converter(self, make: Any) -> None:
        """3: an area in LOCAL mode may have a key converter; callers keep their keys."""
        cache = make(mode="local", key_converter=lambda key: ("converted", key))
        cache.set("key", "value")
        assert "value" == cache.get("key")
        assert {"key": "value"} == cache.mget(["key"])

    def test_04_jitter_ratio(self, make: Any) -> None:
        """4: a jitter of 1.5 is an error that names it."""
        with pytest.raises(ConfigError, match="ttl_jitter_ratio"):
            make(ttl_jitter_ratio=1.5)

    def test_05_warmup_batch(self, make: Any) -> None:
        """5: batches of 0 keys are an error that names the option."""
        with pytest.raises(ConfigError, match="warmup_batch_size"):
            make(warmup_batch_size=0)


class TestCache:
    """src/cache.rs."""

    def test_07_set_get(self, make: Any) -> None:
        """7: what was set is read."""
        cache = make()
        cache.set("key", "value")
        assert "value" == cache.get("key")

    def test_08_no_loader(self, make: Any) -> None:
        """8: a miss without a loader is None, and no error."""
        assert None is make().get("key")

    def test_09_loaded_once(self, make: Any) -> None:
        """9: the loader runs once, the second get finds its answer."""
        source = Source(key="value")
        cache = make(loader=source.load)
        assert ["value", "value"] == [cache.get("key"), cache.get("key")]
        assert ["key"] == source.singles

    def test_10_negative(self, make: Any) -> None:
        """10: a loader's None is remembered: two gets, one load."""
        source = Source()
        cache = make(loader=source.load)
        assert [None, None] == [cache.get("key", "unknown"), cache.get("key", "unknown")]
        assert ["key"] == source.singles

    def test_11_disable_load(self, make: Any) -> None:
        """11: with disable_load a miss is None, and the loader is not asked."""
        source = Source(key="value")
        assert None is make(loader=source.load).get("key", disable_load=True)
        assert [] == source.singles

    def test_12_concurrent(self, make: Any) -> None:
        """12: of 32 concurrent gets of one key one loads, and all have the value."""
        loads: list[str] = []
        all_are_there = threading.Barrier(32)
        cache = make(loader=lambda key: loads.append(key) or (held.wait(60) and "value"))
        held = threading.Event()
        found: list[Any] = []

        def read() -> None:
            all_are_there.wait(60)
            found.append(cache.get("key"))

        threads = [threading.Thread(target=read) for _ in range(32)]
        for thread in threads:
            thread.start()
        while cache.metrics_snapshot()["load_joined"] < 31:
            threading.Event().wait(0.001)  # nothing tells when the others have joined
        held.set()
        for thread in threads:
            thread.join()
        assert ["value"] * 32 == found
        assert ["key"] == loads

    def test_13_mget(self, make: Any) -> None:
        """13: mget answers for each key, None for what is not there."""
        cache = make()
        cache.mset({1: "one", 2: "two"})
        assert {1: "one", 2: "two", 3: None} == cache.mget([1, 2, 3])

    def test_14_one_batch(self, make: Any) -> None:
        """14: three misses of an mget are one mload, and no single load."""
        source = Source(a=1, b=2, c=3)
        assert {"a": 1, "b": 2, "c": 3} == make(loader=source).mget(["a", "b", "c"])
        assert ([["a", "b", "c"]], []) == (source.batches, source.singles)

    def test_15_forget(self, make: Any) -> None:
        """15: delete and mdelete remove."""
        cache = make()
        cache.mset({1: 1, 2: 2, 3: 3})
        cache.delete(1)
        cache.mdelete([2, 3])
        assert {1: None, 2: None, 3: None} == cache.mget([1, 2, 3])

    def test_16_timeout(self, make: Any) -> None:
        """16: a loader slower than its limit is a LoaderTimeout: one load, one timeout."""

        async def load(key: str) -> None:
            await asyncio.Event().wait()

        cache = make(loader=load, loader_timeout=0.01, error_ttl=0.001)
        with pytest.raises(LoaderTimeout) as raised:
            asyncio.run(cache.aget("key"))
        assert "timeout" == raised.value.kind
        counted = cache.metrics_snapshot()
        assert (1, 1) == (counted["load_total"], counted["load_timeout"])

    def test_17_jitter(self, make: Any) -> None:
        """17: keys stored together end apart.  Jitter only shortens, by at most the ratio."""
        cache = make(local_ttl=1000, remote_ttl=1000, ttl_jitter_ratio=0.5)
        cache.mset(dict.fromkeys(range(10), "value"))
        lives = {round(cache.get_entry(key).ttl) for key in range(10)}
        assert len(lives) > 1
        assert 400 < min(lives) <= max(lives) <= 1000

    def test_18_counters(self, make: Any) -> None:
        """18: a load, a hit and a miss that may not load are counted as that."""
        cache = make(loader=lambda key: key)
        cache.get("key")
        cache.get("key")
        cache.get("other", disable_load=True)
        counted = cache.metrics_snapshot()
        assert counted["local_hit"] >= 1
        assert counted["local_miss"] >= 2
        loads = ("load_total", "load_success", "load_timeout")
        assert [1, 1, 0] == [counted[name] for name in loads]

    def test_19_loader_error(self, make: Any) -> None:
        """19: what a loader raises is a LoaderError, counted as one load and one error."""
        cache = make(loader=lambda key: {}[key])
        with pytest.raises(LoaderError) as raised:
            cache.get("key")
        assert ("loader", KeyError) == (raised.value.kind, type(raised.value.__cause__))
        counted = cache.metrics_snapshot()
        loads = ("load_total", "load_error", "load_success")
        assert [1, 1, 0] == [counted[name] for name in loads]

    @pytest.mark.usefixtures("local_only")
    def test_20_diagnostics(self, make: Any) -> None:
        """20: the flags of an area without Redis.  With LOCAL itself a broadcast is refused."""
        cache = make("users", broadcast_invalidation=True, loader=lambda key: key)
        cache.get("key")
        shown = cache.diagnostic_snapshot()
        assert ("users", True) == (shown["area"], shown["loader_configured"])
        assert (True, False) == (shown["local_backend_ready"], shown["remote_backend_ready"])
        assert not shown["invalidation_listener_started"]
        assert None is shown["invalidation_channel"]
        assert 1 == shown["metrics"]["load_success"]
        with pytest.raises(ConfigError, match="broadcast_invalidation"):
            make(broadcast_invalidation=True, mode="local")

    def test_21_points(self, make: Any) -> None:
        """21: the crate's 16 points have the area as their only attribute.  Ours follow them."""
        points = make("users").otel_metric_points()
        assert [{"area": "users"}] * 16 == [point["attributes"] for point in points[:16]]

    def test_22_warmup(self, make: Any) -> None:
        """22: warmup of 3 keys in batches of 2 loads each, and mget then loads none."""
        source = Source(a=1, b=2, c=3)
        cache = make(loader=FnLoader(source.load), warmup_enabled=True, warmup_batch_size=2)
        assert 3 == cache.warmup(["a", "b", "c"])
        assert ["a", "b", "c"] == source.singles
        assert {"a": 1, "b": 2, "c": 3} == cache.mget(["a", "b", "c"])
        assert 3 == len(source.singles)

    def test_23_warmup_disabled(self, make: Any) -> None:
        """23: without warmup_enabled it is 0, and nothing is loaded."""
        source = Source(a=1)
        assert 0 == make(loader=source.load).warmup(["a"])
        assert [] == source.singles

    def test_24_stale_on_error(self, make: Any, clock: Any) -> None:
        """24: a value has expired, the loader fails: the old value is the answer; and again."""
        cache = make(stale_on_error=True, loader=lambda key: {}[key])
        cache.set("key", "old", ttl=0.03)
        clock.advance(1)
        assert "old" == cache.get("key", allow_stale=True)
        assert 1 == cache.metrics_snapshot()["stale_fallback"]
        assert "old" == cache.get("key", allow_stale=True)

    def test_25_refresh_ahead(self, make: Any, clock: Any) -> None:
        """25: a read near the end has the old value, the next the new one, after one load."""
        cache = make(
            local_ttl=120, refresh_ahead=True, refresh_ahead_window=30, loader=lambda _: "loaded"
        )
        cache.set("key", "seed")
        clock.advance(95)
        assert ["seed", "loaded"] == [cache.get("key"), cache.get("key")]
        counted = cache.metrics_snapshot()
        names = ("load_total", "refresh_attempts", "refresh_success", "refresh_failures")
        assert [1, 1, 1, 0] == [counted[name] for name in names]


class TestError:
    """src/error.rs."""

    def test_26_kinds(self) -> None:
        """26: the kinds that logs and metrics name."""
        kinds = [each.kind for each in (ConfigError, BackendError, LoaderError, LoaderTimeout)]
        assert ["invalid_config", "backend", "loader", "timeout"] == kinds


class TestLoader:
    """src/loader.rs."""

    def test_27_nothing(self, make: Any) -> None:
        """27: a batch of nothing but None answers for each key.  There is no NoopLoader."""
        assert {"a": None, "b": None} == make(loader=Source()).mget(["a", "b"], "unknown")

    def test_28_function(self, make: Any) -> None:
        """28: one function loads single keys and batches."""
        cache = make(loader=FnLoader(str.upper))
        assert "A" == cache.get("a")
        assert {"b": "B", "c": "C"} == cache.mget(["b", "c"])

    def test_29_repository(self, make: Any) -> None:
        """29: a repository's query is called for what is there and what is not, in order."""
        source = Source(a=1)
        cache = make(loader=source)
        assert [1, None] == [cache.get("a"), cache.get("b")]
        assert ["a", "b"] == source.singles

    def test_30_repository_batch(self, make: Any) -> None:
        """30: mload is one query for all keys, None for unknown ones; never for duplicates."""
        source = Source(a=1, b=2)
        found = make(loader=source).mget(["a", "b", "a", "c"], "unknown")
        assert {"a": 1, "b": 2, "c": None} == found
        assert [["a", "b", "c"]] == source.batches


class TestLocal:
    """src/local.rs."""

    def test_31_round_trip(self, make: Any) -> None:
        """31: what is stored under a key of the memory comes back."""
        cache = make()
        cache.set("key", {"id": 1})
        assert ({"id": 1}, "local") == (cache.peek("key"), cache.get_entry("key").tier)


class TestObservability:
    """src/observability.rs."""

    def test_32_order(self, make: Any) -> None:
        """32: local_hit comes first, invalidation_receive_failures 16th, values in that order."""
        cache = make(loader=lambda key: key)
        for _ in range(3):
            cache.get("key")
        points = cache.otel_metric_points()[:16]
        assert f"{PREFIX}local_hit_total" == points[0]["name"]
        assert f"{PREFIX}invalidation_receive_failures_total" == points[15]["name"]
        counted = cache.metrics_snapshot()
        assert list(counted.values())[:16] == [point["value"] for point in points]
        assert 2 == points[0]["value"]

    def test_33_point(self, make: Any) -> None:
        """33: a point has the name, the value and the area."""
        cache = make("users")
        cache.set("key", 1)
        cache.get("key")
        point = cache.otel_metric_points()[0]
        expected = (METRICS[0].name, 1, {"area": "users"})
        assert expected == (point["name"], point["value"], point["attributes"])
