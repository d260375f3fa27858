"""
The metrics as Prometheus reads them: its text format 0.0.4, OpenMetrics 1.0, and a collector for
prometheus_client.

All of it is made from metrics.METRICS and one Reading, which has the numbers of the whole host: any
process answers for all of them, and a scrape costs one look, whatever the number of workers.
"""  # noqa: D205  one sentence

from __future__ import annotations

from functools import lru_cache
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from accelerator import local
from accelerator.observability import metrics

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from accelerator.observability.metrics import Metric
    from accelerator.observability.reading import Area, Reading

TEXT: Final = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS: Final = "application/openmetrics-text; version=1.0.0; charset=utf-8"
"""The two types of content."""

_UNITS: Final = {"s": "seconds", "By": "bytes"}
_BY_NAME: Final = {metric.name: metric for metric in metrics.METRICS}
_RAW_NAMES: Final = {"load_total": "load"}
"""Counters whose names in the segment differ from those in the table."""
_LE: Final = [*(str(bound) for bound in local.LATENCY_BOUNDS), "+Inf"]


class Histogram(NamedTuple):
    """How many took how long."""

    cumulative: Sequence[int]
    """Of each bucket with those before it; the unbounded one is the last, and has all."""
    sum: float


class Family(NamedTuple):
    """A metric with its series."""

    metric: Metric
    labels: tuple[tuple[str, ...], ...]
    """Values of the metric's labels, of each series."""
    values: list[Any]
    """A number, or a Histogram, of each series."""


def families(reading: Reading, bound: float) -> Iterator[Family]:
    """
    Give every metric that has any series, in the order of the table.

    Args:
        reading: What is to be shown.
        bound: The setting ``freshness_bound``, in seconds.
    """
    host = _of_host(reading)
    areas = [(name, area.totals.counters) for name, area in reading.areas.items()]
    gauges = {name: _of_area(area, bound) for name, area in reading.areas.items()}
    for metric in metrics.METRICS:
        labels: list[tuple[str, ...]] = []
        values: list[Any] = []
        for split, source in metric.sources.items():
            raw = _RAW_NAMES.get(source, source)
            if "area" not in metric.labels:
                if raw in host:
                    labels.append(())
                    values.append(host[raw])
            elif metric.kind == "counter":
                behind = tuple(metrics.split(metric, split).values())
                labels += [(name, *behind) for name, _ in areas]
                values += [counters[raw] for _, counters in areas]
            else:
                labels += [(name,) for name, of in gauges.items() if source in of]
                values += [of[source] for of in gauges.values() if source in of]
        if values:
            yield Family(metric, tuple(labels), values)


def _of_host(reading: Reading) -> dict[str, int]:
    found = {
        "segment_bytes": reading.segment["size"],
        "dead_owner_takeover": reading.segment["dead_owner_takeover"],
    }
    if reading.has_remote:
        found["breaker_state"] = metrics.BREAKER_STATES[reading.link["breaker"]]
        found["listener_term"] = reading.leader["term"]
        found["outbox_depth"] = reading.link["outbox_depth"]
    return found


def _of_area(area: Area, bound: float) -> dict[str, Any]:
    """Everything of an area that is no counter."""
    gauge, totals = area.gauge, area.totals
    found = {
        "entries": gauge.entries,
        "bytes": gauge.bytes,
        "load_latency": _histogram(totals.loads),
    }
    if gauge.watched or any(totals.l2):
        found["l2_latency"] = _histogram(totals.l2)
    if gauge.watched and gauge.in_step_for is not None:
        found["freshness_age"] = max(0.0, bound - gauge.in_step_for)
    return found


def _histogram(latencies: Sequence[int]) -> Histogram:
    return Histogram(list(accumulate(latencies[:-1])), latencies[-1] / 1e6)


# --- as text ------------------------------------------------------------------------------------


def text(reading: Reading, bound: float, *, openmetrics: bool = False) -> str:
    """Write it; see families()."""
    parts = []
    for metric, labels, values in families(reading, bound):
        if metric.kind == "histogram":
            numbers = [
                n for each in values for n in (*each.cumulative, each.cumulative[-1], each.sum)
            ]
        else:
            numbers = values
        parts.append(_template(metric.name, labels, openmetrics) % tuple(numbers))
    if openmetrics:
        parts.append("# EOF\n")
    return "".join(parts)


@lru_cache(maxsize=4 * len(metrics.METRICS))
def _template(name: str, labels: tuple[tuple[str, ...], ...], openmetrics: bool) -> str:
    """
    Write all of a metric but its numbers.

    Kept, as areas hardly ever change: to write them is most of what a scrape would take.
    """
    metric = _BY_NAME[name]
    family = name.removesuffix("_total") if openmetrics else name
    lines = [f"# HELP {family} {_help(metric)}", f"# TYPE {family} {metric.kind}"]
    if openmetrics and metric.unit in _UNITS:
        lines.append(f"# UNIT {family} {_UNITS[metric.unit]}")
    texts = [line.replace("%", "%%") for line in lines]
    for values in labels:
        pairs = zip(metric.labels, values, strict=True)
        shown = ",".join(f'{label}="{escaped(value)}"' for label, value in pairs)
        shown = shown.replace("%", "%%")
        if metric.kind == "histogram":
            texts += [f'{name}_bucket{{{shown},le="{le}"}} %s' for le in _LE]
            texts += [f"{name}_count{{{shown}}} %s", f"{name}_sum{{{shown}}} %s"]
        else:
            texts.append(f"{name}{{{shown}}} %s" if shown else f"{name} %s")
    return "".join(f"{text}\n" for text in texts)


def _help(metric: Metric) -> str:
    return metric.help.replace("\\", "\\\\").replace("\n", "\\n")


def escaped(value: str) -> str:
    """Write the value of a label."""
    if "\\" in value or '"' in value or "\n" in value:
        return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return value


def wanted(accept: str) -> bool:
    """Tell from a request's Accept whether OpenMetrics is asked for."""
    return "application/openmetrics-text" in accept


# --- for prometheus_client ----------------------------------------------------------------------


class Collector:
    """
    A collector for a registry of prometheus_client, which is imported when it is asked.

    It holds no state of the process, so that it works beside multiprocess mode: register it on the
    registry that the MultiProcessCollector is registered on, and a scrape has both.

    Args:
        look: Gives what is to be shown and the setting ``freshness_bound``; None: there is nothing.
    """

    def __init__(self, look: Callable[[], tuple[Reading, float] | None]) -> None:
        self._look = look

    def describe(self) -> list[Any]:
        """Name nothing, so that registering reads nothing."""
        return []

    def collect(self) -> Iterator[Any]:
        """Give one family a metric."""
        found = self._look()
        if found is None:
            return
        core = _client()
        for family in families(*found):
            yield _family(core, family)


def _client() -> Any:
    # Imported here: it is no dependency, and whoever has a registry has it.
    from prometheus_client import core  # noqa: PLC0415

    return core


def _family(core: Any, family: Family) -> Any:
    kinds: Mapping[str, Any] = {
        "counter": core.CounterMetricFamily,
        "gauge": core.GaugeMetricFamily,
        "histogram": core.HistogramMetricFamily,
    }
    metric = family.metric
    shown = kinds[metric.kind](
        metric.name.removesuffix("_total"), metric.help, labels=metric.labels
    )
    for labels, value in zip(family.labels, family.values, strict=True):
        if isinstance(value, Histogram):
            buckets = list(zip(_LE, map(float, value.cumulative), strict=True))
            shown.add_metric(labels, buckets=buckets, sum_value=value.sum)
        else:
            shown.add_metric(labels, value)
    return shown
