"""Metrics as Prometheus reads them, judged by the parser of prometheus_client."""

import os
import re
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import prometheus_client
import pytest
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_of
from prometheus_client.parser import text_string_to_metric_families as families_of

from accelerator import LevelCache, admin, cli, local, segment, testing
from accelerator.observability import metrics, prometheus
from accelerator.observability.reading import Reader

BOUND = 2.0
NATIVE = local.NATIVE and segment.AVAILABLE


@pytest.fixture(
    params=[
        "process",
        pytest.param(
            "shared", marks=pytest.mark.skipif(not NATIVE, reason="segments need the native part")
        ),
    ]
)
def own(request: pytest.FixtureRequest) -> Iterator[testing.Isolated]:
    with testing.isolated(shared=request.param == "shared") as found:
        yield found


def watched(memory: Any, name: str) -> Any:
    """An area with Redis behind it."""
    area: Any = local.AreaBase()
    lives = {"ttl": None, "null_ttl": None, "stale_ttl": 0.0, "jitter": 0.0}
    sizes = {"max_value_size": 1024, "object_cache_bytes": 0, "flags": local.PLAIN_SET}
    area._bind(memory, name, **lives, **sizes, bound=BOUND)
    area.set("key", 1)
    return area


def text(memory: Any, **options: bool) -> str:
    memory.measure()
    return prometheus.text(Reader(memory).read(processes=False), BOUND, **options)


def samples(shown: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    found = {}
    for family in families_of(shown):
        for sample in family.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            assert key not in found, f"{key} is there twice"
            found[key] = sample.value
    return found


class TestText:
    def test_counters(self, own: testing.Isolated) -> None:
        """Those of every area, by the names of the table, equal to its snapshot."""
        cache = LevelCache("users")
        cache.mset({n: n for n in range(4)})
        cache.mget(range(6))
        LevelCache("prices").get("x")
        found = samples(text(own.memory))
        for name in ("users", "prices"):
            shown = LevelCache(name).metrics_snapshot()
            for metric in metrics.METRICS:
                if metric.kind != "counter" or "area" not in metric.labels:
                    continue
                for split, source in metric.sources.items():
                    more = metrics.split(metric, split).items()
                    labels = tuple(sorted((("area", name), *more)))
                    assert shown[source] == found[metric.name, labels]  # type: ignore[literal-required]
        users = (("area", "users"),)
        assert (4, 2) == tuple(
            found[f"{metrics.PREFIX}local_{what}_total", users] for what in ("hit", "miss")
        )
        assert 4 == found[f"{metrics.PREFIX}entries", users]

    def test_kinds(self, own: testing.Isolated) -> None:
        """Every metric has its type and its help; a name comes once."""
        watched(own.memory, "users")
        own.memory.area_extend("users", time.monotonic() + BOUND)
        shown = {family.name: family for family in families_of(text(own.memory))}
        table = {metric.name.removesuffix("_total"): metric for metric in metrics.METRICS}
        assert set(table) == set(shown)
        for name, family in shown.items():
            assert (table[name].kind, table[name].help) == (family.type, family.documentation)

    def test_histogram(self, own: testing.Isolated) -> None:
        """Buckets are cumulative and end with all; the sum is in seconds."""
        cache = LevelCache("users")
        cache.get(1)
        for seconds in (0.0005, 0.002, 0.02, 0.02, 99.0):
            cache._latency(seconds)
        found = samples(text(own.memory))
        name = f"{metrics.PREFIX}load_latency_seconds"
        buckets = {
            dict(labels)["le"]: value
            for (of, labels), value in found.items()
            if of == name + "_bucket"
        }
        assert [*(str(bound) for bound in local.LATENCY_BOUNDS), "+Inf"] == list(buckets)
        assert sorted(buckets.values()) == list(buckets.values())
        assert (1, 2, 4, 5) == tuple(buckets[le] for le in ("0.001", "0.0025", "0.025", "+Inf"))
        assert 5 == found[name + "_count", (("area", "users"),)]
        assert found[name + "_sum", (("area", "users"),)] == pytest.approx(99.0425)

    @pytest.mark.parametrize("name", ['a"b', "back\\slash", "100 %d", "ü-日本", "a,b={}"])
    def test_escaping(self, name: str) -> None:
        """A label comes out as the name went in."""
        with testing.isolated() as own:
            LevelCache(name).get(1)
            found = samples(text(own.memory))
            assert 1 == found[f"{metrics.PREFIX}local_miss_total", (("area", name),)]

    def test_line_end(self) -> None:
        """No name of an area has one; a foreign segment's must not begin a line all the same."""
        assert 'a\\nb\\\\c\\"d' == prometheus.escaped('a\nb\\c"d')

    def test_without_redis(self, own: testing.Isolated) -> None:
        """What is about Redis is absent, not 0, where there is none."""
        LevelCache("users").get(1)
        shown = text(own.memory)
        for name in ("breaker_state", "listener_term", "outbox_depth", "l2_latency", "freshness"):
            assert f"{metrics.PREFIX}{name}" not in shown

    def test_freshness(self, own: testing.Isolated) -> None:
        """Absent before an area was in step, then by how much it may be behind."""
        area = watched(own.memory, "users")
        name = f"{metrics.PREFIX}freshness_age_seconds"
        assert name not in text(own.memory)
        own.memory.area_extend("users", time.monotonic() + BOUND - 1.0)
        found = samples(text(own.memory))[name, (("area", "users"),)]
        assert found == pytest.approx(area._freshness(), abs=0.2)
        assert found > 0.9

    def test_openmetrics(self, own: testing.Isolated) -> None:
        """The stricter parser takes it as well, with units."""
        watched(own.memory, "users")
        shown = text(own.memory, openmetrics=True)
        found = {family.name: family for family in openmetrics_of(shown)}
        assert shown.endswith("# EOF\n")
        assert "seconds" == found[f"{metrics.PREFIX}load_latency_seconds"].unit
        assert "bytes" == found[f"{metrics.PREFIX}segment_bytes"].unit
        assert "counter" == found[f"{metrics.PREFIX}local_hit"].type

    def test_versions(self) -> None:
        """An area's versions count in one row, and are no series of their own."""
        with testing.isolated() as own:
            for version in ("1", "2"):
                LevelCache("users", version=version).get(1)
            found = samples(text(own.memory))
            assert 2 == found[f"{metrics.PREFIX}local_miss_total", (("area", "users"),)]


@pytest.mark.skipif(not NATIVE, reason="segments need the native part")
class TestReader:
    def test_as_measured(self) -> None:
        """What is read from the tables is what the native part sums up and measures."""
        with testing.isolated(shared=True) as own:
            for name, number in (("users", 30), ("prices", 7)):
                cache = LevelCache(name)
                cache.mset({n: (n, "kept decoded") for n in range(number)})
                cache.mget(range(number))
                cache.mget(range(number + 3))
                cache._latency(0.02)
                cache._l2_latency(0.002)
            own.memory.measure()
            seen, stats = Reader(own.memory).read(), own.memory.stats()
            assert stats["segment"] == seen.segment
            assert set(stats["areas"]) == set(seen.areas)
            for name, numbers in stats["areas"].items():
                area = seen.areas[name]
                assert numbers == {
                    **area.totals.counters,
                    "entries": area.gauge.entries,
                    "bytes": area.gauge.bytes,
                }
                cache = LevelCache(name)
                cache.peek(1)
                assert cache._latencies() == list(area.totals.loads)
                assert cache._l2_latencies() == list(area.totals.l2)
            mine = seen.counted.processes[own.memory.incarnation]
            assert 74 == mine.counters["local_hit"]
            assert 0 < mine.counters["object_hit"]

    def test_shards(self) -> None:
        """Locks taken over are found in every shard, where stats() finds them."""
        with testing.isolated(shared=True, size="40MiB") as own:
            LevelCache("users").set(1, 1)
            reader = Reader(own.memory)
            shards = reader.read().segment["shards"]
            pid = os.fork()
            if pid == 0:
                own.memory.register()
                own.memory.lock_shard(shards - 1)
                os._exit(0)
            os.waitpid(pid, 0)
            own.memory.lock_shard(shards - 1)
            own.memory.unlock_shard(shards - 1)
            assert 1 == own.memory.stats()["segment"]["dead_owner_takeover"]
            assert 1 == reader.read().segment["dead_owner_takeover"]

    def test_of_the_dead(self, tmp_path: Path) -> None:
        """A segment that nobody uses can be read, by whoever may only read it."""
        name = f"test-{uuid.uuid4().hex[:12]}"
        code = "import accelerator as a; a.LevelCache('users').get(1)"
        environment = {**os.environ, "ACCELERATOR_NAME": name, "ACCELERATOR_SIZE": "4MiB"}
        subprocess.run([sys.executable, "-c", code], check=True, env=environment, cwd=tmp_path)
        try:
            seen = Reader(segment.inspect(segment.own_file(name))).read()
            assert 1 == seen.areas["users"].totals.counters["local_miss"]
            assert [] == [each for each in seen.processes if each["alive"]]
        finally:
            segment.unlink(name, os.geteuid())

    def test_blocks_taken_over(self) -> None:
        """A process that goes on in a dead one's block can be told from one that counted it."""
        with testing.isolated(shared=True) as own:
            LevelCache("users").get(1)
            reader = Reader(own.memory)
            before = reader.read().counted.blocks[own.memory.incarnation]
            assert before == reader.read().counted.blocks[own.memory.incarnation]
            LevelCache("prices").get(1)
            assert before != reader.read().counted.blocks[own.memory.incarnation]


class TestCollector:
    def test_registry(self, own: testing.Isolated) -> None:
        """What a registry writes is what we write, but for the order of labels."""
        LevelCache("users").get(1)
        watched(own.memory, "prices")
        own.memory.measure()
        registry = prometheus_client.CollectorRegistry()
        registry.register(admin.prometheus_collector())
        shown = prometheus_client.generate_latest(registry).decode()
        assert samples(text(own.memory)) == samples(shown)

    def test_registering(self) -> None:
        """To register it reads nothing and attaches nothing."""
        collector = prometheus.Collector(lambda: pytest.fail("it looked"))
        prometheus_client.CollectorRegistry().register(collector)
        assert [] == collector.describe()

    def test_nothing(self) -> None:
        """Without anything to see it gives nothing."""
        assert [] == list(prometheus.Collector(lambda: None).collect())

    def test_beside_multiprocess(self, own: testing.Isolated, tmp_path: Path) -> None:
        """On the registry of multiprocess mode both are there."""
        LevelCache("users").get(1)
        code = "import prometheus_client as p; p.Counter('requests', 'of the app').inc()"
        environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
        subprocess.run([sys.executable, "-c", code], check=True, env=environment)
        registry = prometheus_client.CollectorRegistry()
        MultiProcessCollector(registry, path=str(tmp_path))
        registry.register(admin.prometheus_collector())
        found = samples(prometheus_client.generate_latest(registry).decode())
        assert 1 == found["requests_total", ()]
        assert 1 == found[f"{metrics.PREFIX}local_miss_total", (("area", "users"),)]


@pytest.mark.skipif(not NATIVE, reason="segments need the native part")
class TestCommand:
    def test_prom(self, capsys: pytest.CaptureFixture[str]) -> None:
        """``accelerator stats --prom``."""
        with testing.isolated(shared=True) as own:
            LevelCache("users").get(1)
            assert 0 == cli.main(["stats", "--prom", "--name", own.name])
            found = samples(capsys.readouterr().out)
            assert 1 == found[f"{metrics.PREFIX}local_miss_total", (("area", "users"),)]

    def test_not_both(self, capsys: pytest.CaptureFixture[str]) -> None:
        """It is one look, in one shape."""
        with testing.isolated(shared=True) as own:
            assert 2 == cli.main(["stats", "--prom", "--watch", "1", "--name", own.name])
            assert "leave out --watch" in capsys.readouterr().err
            with pytest.raises(SystemExit):
                cli.main(["stats", "--prom", "--json", "--name", own.name])


ALERTS = Path(__file__).parents[2] / "docs" / "how-to" / "alerts.md"


@pytest.mark.skipif(not ALERTS.is_file(), reason="only the package is here")
class TestAlerts:
    page = ALERTS.read_text("utf-8") if ALERTS.is_file() else ""

    def test_names(self) -> None:
        """Every metric that a rule names exists, with the labels that the rule uses."""
        exist = set()
        for metric in metrics.METRICS:
            exist.add(metric.name)
            if metric.kind == "histogram":
                exist |= {f"{metric.name}_{part}" for part in ("bucket", "count", "sum")}
        named = set(re.findall(r"accelerator_cache_\w+", self.page))
        assert set() == named - exist
        assert len(named) > 8

    def test_labels(self) -> None:
        """And each matcher in braces names a label of that metric, and a value that it has."""
        table = {metric.name: metric for metric in metrics.METRICS}
        found = re.findall(r'(accelerator_cache_\w+)\{(\w+)="(\w+)"\}', self.page)
        assert found
        for name, label, value in found:
            assert label in table[name].labels
            splits = [metrics.split(table[name], split) for split in table[name].sources]
            assert value in {split.get(label) for split in splits}

    def test_pages(self) -> None:
        """Each rule leads to a page, and to a heading of it, that exists."""
        root = ALERTS.parents[2]
        found = re.findall(r"runbook: (\S+?\.md)(?:#(\S+))?$", self.page, re.MULTILINE)
        assert len(re.findall(r"- alert:", self.page)) == len(found)
        for name, anchor in found:
            heads = re.findall(r"^#+ (.*)$", (root / name).read_text("utf-8"), re.MULTILINE)
            anchors = {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}
            assert not anchor or anchor in anchors, (name, anchor)
