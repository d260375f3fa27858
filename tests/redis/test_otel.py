"""OpenTelemetry with real processes and its SDK: one process of a host reports, and tells all."""

import signal
from collections.abc import Callable
from typing import Any

import hosts
import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from accelerator import admin, runtime
from accelerator.observability.metrics import METRICS, PREFIX

MEASURED = {"freshness_age_seconds", "bytes", "entries"}
Points = dict[str, list[tuple[dict[str, str], Any]]]

_held: list[Any] = []


def start() -> None:
    """In a worker: an SDK of its own, with a reader that collects when it is told to."""
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])
    _held[:] = [reader, provider, admin.otel_instruments(provider.get_meter("test"))]


def collect() -> Points:
    """In a worker: what its SDK would export."""
    reader = _held[0]
    data = reader.get_metrics_data()
    if data is None:
        return {}
    return {
        metric.name: [(dict(point.attributes), point.value) for point in metric.data.data_points]
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }


def kinds() -> dict[str, tuple[str, str, bool]]:
    """In a worker: of each metric the SDK's kind, its unit, and whether it only rises."""
    data = _held[0].get_metrics_data()
    return {
        metric.name: (
            type(metric.data).__name__,
            metric.unit,
            getattr(metric.data, "is_monotonic", False),
        )
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }


def attached() -> bool:
    """In a worker: whether it uses a segment."""
    return runtime.entered() is not None


def differing() -> list[str]:
    """In a worker: which metrics the SDK shows otherwise than the area does, at the same time."""
    expected = hosts.cache().otel_metric_points()
    seen = collect()
    found = []
    for point in expected:
        name = point["name"]
        # What time changes, and what is measured by a tick, is never twice the same.
        if point["kind"] == "histogram" or name.removeprefix(PREFIX) in MEASURED:
            continue
        values = [value for labels, value in seen[name] if labels == point["attributes"]]
        if values != [point["value"]]:
            found.append(name)
    return found


def detach() -> None:
    """In a worker."""
    runtime.detach()


def incarnation() -> int:
    """In a worker."""
    return runtime.current().memory.incarnation


@pytest.fixture(params=["redis", "alone"])
def host(request: pytest.FixtureRequest, make_host: Callable[..., Any], url: str) -> Any:
    """Four workers, with Redis and without."""
    areas = {"area": {"loader": len}}
    if request.param == "redis":
        made = make_host(areas, workers=4)
    else:
        made = make_host(areas, workers=4, redis=None, in_step=False)
    for worker in made.workers:
        worker.call(incarnation)  # it is attached
        worker.call(start)
    return made


def reporters(host: Any) -> list[Any]:
    """The workers that report something."""
    return [worker for worker in host.workers if worker.call(collect)]


def one_reporter(host: Any) -> Any:
    """The worker that reports, as soon as it is one: the listener may be about to change."""
    found: list[Any] = []

    def is_one() -> bool:
        found[:] = reporters(host)
        return len(found) == 1

    hosts.until(is_one)
    return found[0]


class TestReporter:
    def test_one(self, host: Any) -> None:
        """Of four processes one reports: the listener, or, without Redis, the oldest."""
        [reporter] = reporters(host)
        if host.settings["redis"] is None:
            oldest = min(host.workers, key=lambda worker: worker.call(incarnation))
            assert oldest.pid == reporter.pid
        else:
            assert host.leader()["pid"] == reporter.pid

    def test_listener(self, make_host: Callable[..., Any]) -> None:
        """The listener reports, also when it is not the oldest; one that is stopped does not."""
        made = make_host({"area": {}}, workers=2)
        for worker in made.workers:
            worker.call(start)
        former = made.leading_worker()
        former.signal(signal.SIGSTOP)
        other = next(worker for worker in made.workers if worker is not former)
        hosts.until(lambda: other.call(hosts.leader)["pid"] == other.pid)
        assert other.call(collect)
        former.signal(signal.SIGCONT)
        assert [other.pid] == [worker.pid for worker in reporters(made)]
        # Of two that take turns one at least is younger than the other, and has been the listener.
        other.signal(signal.SIGSTOP)
        hosts.until(lambda: former.call(hosts.leader)["pid"] == former.pid)
        other.signal(signal.SIGCONT)
        assert [former.pid] == [worker.pid for worker in reporters(made)]

    def test_killed(self, host: Any) -> None:
        """When it is killed another one reports, and tells no less than it did."""
        for worker in host.workers:
            worker.call("area.get", "four")
        first = one_reporter(host)
        before = first.call(collect)
        first.kill()
        host.workers.remove(first)
        assert reporters(host)  # at once: not before somebody listens again
        second = one_reporter(host)
        after = second.call(collect)
        assert first.pid != second.pid
        for counter in ("local_hit", "local_miss", "load", "set"):
            name = f"{PREFIX}{counter}_total"
            assert before[name] == after[name]

    def test_detached(self, host: Any) -> None:
        """A process that is not attached reports nothing, and is not attached by being asked."""
        worker = host.workers[-1]
        worker.call(detach)
        assert {} == worker.call(collect)
        assert not worker.call(attached)


class TestValues:
    def test_are_the_segments(self, host: Any) -> None:
        """Every metric, with the numbers of the whole host."""
        for number, worker in enumerate(host.workers):
            worker.call("area.get", "key")
            worker.call("area.get", "k" * (number + 1))
            worker.call("area.delete", "k")
        reporter = one_reporter(host)
        # Messages of the own deletes are still coming in.
        hosts.until(lambda: reporter.call(differing) == [])
        assert 4 == sum(value for _, value in reporter.call(collect)[f"{PREFIX}delete_total"])

    def test_histogram(self, host: Any) -> None:
        """A histogram is three counters: buckets with those before them, number, and sum."""
        for worker in host.workers:
            worker.call("area.get", f"key of {worker.pid}")
        reporter = one_reporter(host)
        seen = reporter.call(collect)
        [shown] = [
            point["value"]
            for point in reporter.call("area.otel_metric_points")
            if point["name"] == f"{PREFIX}load_latency_seconds"
        ]
        name = f"{PREFIX}load_latency_seconds"
        [(labels, count)] = seen[f"{name}_count"]
        assert ({"area": "area"}, 4, shown["count"]) == (labels, count, count)
        [(_, total)] = seen[f"{name}_sum"]
        assert shown["sum"] == pytest.approx(total)
        buckets = {labels["le"]: number for labels, number in seen[f"{name}_bucket"]}
        sums = [sum(shown["bucket_counts"][: n + 1]) for n in range(len(shown["bucket_counts"]))]
        assert [*map(str, shown["explicit_bounds"]), "+Inf"] == list(buckets)
        assert sums == list(buckets.values())

    def test_every_metric(self, host: Any) -> None:
        """Each row of the table is an instrument of its kind and unit."""
        host.call("area.get", "key")
        reporter = one_reporter(host)
        seen = reporter.call(kinds)
        wanted = {}
        for metric in METRICS:
            if metric.kind == "histogram":
                for part, unit in (("bucket", "1"), ("count", "1"), ("sum", "s")):
                    wanted[f"{metric.name}_{part}"] = ("Sum", unit, True)
            elif metric.kind == "counter":
                wanted[metric.name] = ("Sum", metric.unit, True)
            else:
                wanted[metric.name] = ("Gauge", metric.unit, False)
        if host.settings["redis"] is None:  # what is not known is not there
            wanted = {name: kind for name, kind in wanted.items() if name in seen}
            assert len(METRICS) - 5 < len(wanted)
        assert wanted == seen
