"""What an area tells of itself: counters, diagnostics, data points, over every kind of memory."""

import asyncio
import contextlib
import json
import time
import typing
from typing import Any

import pytest

from accelerator import LoaderError, local
from accelerator.observability import diagnostics, metrics
from accelerator.observability.diagnostics import DiagnosticSnapshot
from accelerator.observability.metrics import METRICS, PREFIX, MetricsSnapshot, split


def values(points: list[Any]) -> dict[tuple[str, ...], Any]:
    """Points by their names without the prefix and the values of their labels but the area."""
    return {
        (point["name"].removeprefix(PREFIX), *list(point["attributes"].values())[1:]): point[
            "value"
        ]
        for point in points
    }


class TestTable:
    def test_fields(self) -> None:
        """The table has each counter of the segment once, in one place."""
        public = ["load_total" if name == "load" else name for name in local.COUNTERS]
        public.remove("dead_owner_takeover")
        assert sorted(public) == sorted(metrics.counters_of_area())
        assert sorted(public) == sorted(typing.get_type_hints(MetricsSnapshot))

    def test_names(self) -> None:
        """Counters end in _total, durations in _seconds; labels and help are there."""
        assert len(METRICS) == len({metric.name for metric in METRICS})
        for metric in METRICS:
            assert metric.name.startswith(PREFIX)
            assert metric.name.endswith("_total") == (metric.kind == "counter"), metric.name
            assert metric.name.endswith("_seconds") == (metric.unit == "s"), metric.name
            assert metric.help
            assert ("" in metric.sources) == (metric.labels in {(), ("area",)}), metric.name


class TestMetrics:
    def test_counters(self, make: Any) -> None:
        """Every counter is there, as a number, and nothing else."""
        cache = make()
        cache.set("key", 1)
        cache.get("key")
        cache.get("unknown")
        shown = cache.metrics_snapshot()
        assert set(typing.get_type_hints(MetricsSnapshot)) == set(shown)
        assert {int} == {type(number) for number in shown.values()}
        assert (1, 1, 1) == (shown["local_hit"], shown["local_miss"], shown["set"])

    def test_own_area(self, make: Any) -> None:
        """What another area does is not in it; what another object of the same area does is."""
        make("other").set("key", 1)
        one, two = make(), make()
        two.set("key", 1)
        assert 1 == one.metrics_snapshot()["set"]


class TestDiagnostics:
    def test_keys(self, make: Any) -> None:
        """It has what its type says."""
        shown = make().diagnostic_snapshot()
        assert set(typing.get_type_hints(DiagnosticSnapshot)) == set(shown)
        assert set(typing.get_type_hints(diagnostics.LoadSnapshot)) == set(shown["load"])

    def test_json(self, make: Any) -> None:
        """It is JSON for readers that know no infinity, too, and shows no key and no value."""
        cache = make(loader=lambda key: f"value of {key}")
        cache.get("private key")
        text = json.dumps(
            [cache.metrics_snapshot(), cache.diagnostic_snapshot(), cache.otel_metric_points()],
            allow_nan=False,
        )
        assert "private" not in text
        assert "value of" not in text

    def test_measured(self, make: Any) -> None:
        """Entries and bytes of this area alone; the share of hits."""
        make("other").set("key", 1)
        cache = make()
        assert None is cache.diagnostic_snapshot()["hit_ratio"]
        cache.mset(dict.fromkeys(range(3), "value"))
        cache.mget([0, 1, 2, 3])
        shown = cache.diagnostic_snapshot()
        assert (3, 0.75) == (shown["entries"], shown["hit_ratio"])
        assert shown["bytes"] > 3 * len("value")

    def test_loads(self, make: Any) -> None:
        """How long loads took, beside how long they may."""
        cache = make(loader=str, loader_timeout=7, lease=30)
        assert None is cache.diagnostic_snapshot()["load"]["p50"]
        cache.mget(range(3))
        load = cache.diagnostic_snapshot()["load"]
        assert (3, 7.0) == (load["count"], load["loader_timeout"])
        assert 0 < load["p50"] <= load["p99"] <= 30.0
        assert 3 == sum(load["histogram"]["bucket_counts"])

    @pytest.mark.usefixtures("local_only")
    @pytest.mark.parametrize(("mode", "ready"), [("local", True), ("off", False), (None, True)])
    def test_mode(self, make: Any, mode: str | None, ready: bool) -> None:
        """The mode in force, and whether memory has values in it."""
        shown = make(mode=mode).diagnostic_snapshot()
        assert (mode or "local", ready) == (shown["mode"], shown["local_backend_ready"])

    def test_stale(self, make: Any) -> None:
        """Whether reads may be answered with stale values, and how many were."""

        def load(key: str) -> str:
            raise OSError(key)

        cache = make(allow_stale=True, stale_ttl=60, error_ttl=0.001)
        cache.set("key", "old")
        cache.expire("key")
        assert None is cache.get("unknown")
        assert "old" == cache.get_or_load("key", load, allow_stale=True)
        with pytest.raises(LoaderError):
            make("strict", error_ttl=0.001).get_or_load("key", load)
        expected = {"allow_stale": True, "on_error": False, "life": 60.0, "served": 1}
        expected["allowed"] = 2  # the plain read and the load
        assert expected == cache.diagnostic_snapshot()["stale"]


class TestPoints:
    def test_first_sixteen(self, make: Any) -> None:
        """The crate's counters, in its order, with no attribute but the area."""
        names = [
            *("local_hit", "local_miss", "remote_hit", "remote_miss"),
            *("load", "load_success", "load_timeout", "load_error", "stale_fallback"),
            *("refresh_attempts", "refresh_success", "refresh_failures"),
            *("invalidation_publish", "invalidation_publish_failures"),
            *("invalidation_receive", "invalidation_receive_failures"),
        ]
        first = make().otel_metric_points()[:16]
        assert [f"accelerator_cache_{name}_total" for name in names] == [it["name"] for it in first]
        assert [{"area": "area"}] * 16 == [point["attributes"] for point in first]
        assert {"counter"} == {point["kind"] for point in first}

    def test_values(self, make: Any) -> None:
        """They agree with the snapshot, and those with labels are split by them."""
        cache = make(loader=str)
        cache.mget([1, 2])
        cache.get(1)
        with contextlib.suppress(Exception):
            cache.set("key", object())
        shown, counted = values(cache.otel_metric_points()), cache.metrics_snapshot()
        for metric in METRICS:
            for label, source in metric.sources.items():
                if source in counted:
                    name = metric.name.removeprefix(PREFIX)
                    assert counted[source] == shown[(name, *split(metric, label).values())]
        assert 1 == shown["store_rejected_total", "encode"]
        assert 2 == shown["load_latency_seconds",]["count"]
        assert 2 == shown["entries",]

    def test_shape(self, make: Any) -> None:
        """Each point is what the table says of it, and the host's carry no area."""
        table = {metric.name: metric for metric in METRICS}
        points = make().otel_metric_points()
        for point in points:
            metric = table[point["name"]]
            assert (metric.kind, metric.unit) == (point["kind"], point["unit"])
            assert metric.labels == tuple(point["attributes"])
        of_the_host = {it["name"] for it in points if not it["attributes"]}
        assert {f"{PREFIX}segment_bytes", f"{PREFIX}dead_owner_takeover_total"} <= of_the_host

    @pytest.mark.usefixtures("local_only")
    def test_without_redis(self, make: Any) -> None:
        """What there is nothing to say about is left out."""
        names = {point["name"].removeprefix(PREFIX) for point in make().otel_metric_points()}
        assert not {"breaker_state", "freshness_age_seconds", "outbox_depth"} & names

    def test_histogram(self, make: Any) -> None:
        """A load is in the first bucket whose bound it does not exceed."""
        cache = make()
        for seconds in (0.0005, 0.02, 31.0):
            cache._latency(seconds)
        found = values(cache.otel_metric_points())["load_latency_seconds",]
        assert (3, pytest.approx(31.0205)) == (found["count"], found["sum"])
        bounds, counts = found["explicit_bounds"], found["bucket_counts"]
        assert len(bounds) + 1 == len(counts)
        assert [0, bounds.index(0.025), len(bounds)] == [i for i, n in enumerate(counts) if n]


class TestWithRedis:
    """Redis that is there, and Redis that answers nothing."""

    @pytest.mark.usefixtures("redis_only")
    def test_redis(self, memory: Any, make: Any) -> None:
        """Breaker, outbox, listener and how far behind: of the host, and of the area."""
        cache = make(mode="both")
        cache.set("key", 1)
        memory.segment.link_confirm(time.monotonic())
        memory.segment.area_extend("area", time.monotonic() + 59)
        memory.segment.outbox_settle(cache._note("key", local.NOTE_FORGET), False)
        shown = values(cache.otel_metric_points())
        assert (0, 0, 1) == tuple(
            shown[name,] for name in ("breaker_state", "listener_term", "outbox_depth")
        )
        assert 0 <= shown["freshness_age_seconds",] < 10
        assert 1 <= shown["l2_latency_seconds",]["count"]
        remote = cache.diagnostic_snapshot()["remote"]
        assert set(typing.get_type_hints(diagnostics.AreaRemoteSnapshot)) == set(remote)
        assert (True, 1, True) == (remote["ready"], remote["outbox_depth"], remote["in_step"])
        assert None is remote["listener"]["pid"]

    @pytest.mark.usefixtures("redis_only")
    def test_breaker(self, memory: Any, make: Any) -> None:
        """The states of the breaker as numbers."""
        cache = make(mode="both")
        cache.set("key", 1)  # enters
        for _ in range(5):
            memory.segment.remote_failed(time.monotonic(), False)
        assert 2 == values(cache.otel_metric_points())["breaker_state",]

    def test_never_waits(self, memory: Any, deaf_redis: Any) -> None:
        """In a task, too, nothing is asked of Redis, and nothing waits for it."""
        cache, runtime = memory.cache(), memory.modules["runtime"]

        async def look() -> tuple[Any, ...]:
            return (
                cache.metrics_snapshot(),
                cache.diagnostic_snapshot(),
                cache.otel_metric_points(),
                runtime.diagnostics(),
            )

        _, shown, _, _ = asyncio.run(look())
        assert not deaf_redis.was_called()
        assert ("both", False) == (shown["mode"], shown["remote_backend_ready"])
