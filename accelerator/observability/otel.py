"""
The metrics as instruments of OpenTelemetry, over its API alone: the SDK is the application's.

Every instrument is observable: the numbers lie in the segment, host-wide, and are read when the SDK
collects.  One look serves all instruments of a collection.

**One process of the host reports**, or sums over processes would count each number once for each
worker.  It is the one that listens for the host, which is elected; where nobody listens, as there
is no Redis, the living process that entered first.  Both are read from the segment at each
collection, so that a process that is killed is followed by another one at the next.  For a moment
two may report, or none: what they tell are totals since the segment was made, so nothing is lost.

**Histograms.**  The API has no observable histogram: it wants each duration, in the process that
reports, and ours are counted in all processes.  (The SDK's way to bring ready histograms, a
MetricProducer, does not exist in Python.)  So a histogram is three observable counters, as in
Prometheus: ``..._bucket`` with the attribute ``le``, each with those before it, ``..._count`` and
``..._sum``.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from accelerator import local
from accelerator.observability import metrics, prometheus
from accelerator.observability.prometheus import Histogram

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from accelerator.observability.prometheus import Family
    from accelerator.observability.reading import Reading

    Look = Callable[[], tuple[Reading, float] | None]
    Series = tuple[dict[str, str], int | float]

METER: Final = "accelerator"
"""Name of the meter, where the application gives none."""
ONE_LOOK: Final = 0.1
"""Seconds for which a look serves: an SDK asks all instruments one after the other."""
_LE: Final = [*(str(bound) for bound in local.LATENCY_BOUNDS), "+Inf"]
_PARTS: Final = {
    "_bucket": ("1", "how many took at most `le` seconds"),
    "_count": ("1", "how many there were"),
    "_sum": ("s", "how long all of them took together"),
}
"""What a histogram is shown as: unit and meaning."""


def is_reporter(memory: local.Segment) -> bool:
    """Tell whether this process is the one of its host that reports."""
    alive = [process["incarnation"] for process in memory.alive() if process["alive"]]
    listener = memory.leader()["incarnation"]
    chosen = listener if listener in alive else min(alive, default=0)
    return chosen != 0 and chosen == memory.incarnation


class Instruments:
    """
    One observable instrument for each metric; for a histogram three.

    Args:
        look: Gives what is to be reported and the setting ``freshness_bound``; None: this process
            is not the one that reports.
        meter: Of the API; None: that of the global provider.
    """

    def __init__(self, look: Look, meter: Any = None) -> None:
        self._look = look
        self._seen: tuple[float, Mapping[str, Family]] = float("-inf"), {}
        if meter is None:
            meter = _api().get_meter(METER)
        self.instruments: list[Any] = []
        """Kept by whoever makes them: some SDKs hold them weakly."""
        for metric in metrics.METRICS:
            self.instruments += self._made(meter, metric)

    def _made(self, meter: Any, metric: metrics.Metric) -> Iterator[Any]:
        name, text = metric.name, metric.help
        if metric.kind == "histogram":
            for part, (unit, meaning) in _PARTS.items():
                yield meter.create_observable_counter(
                    f"{name}{part}", [self._asked(name, part)], unit, f"{text}: {meaning}"
                )
        elif metric.kind == "counter":
            yield meter.create_observable_counter(name, [self._asked(name)], metric.unit, text)
        else:
            yield meter.create_observable_gauge(name, [self._asked(name)], metric.unit, text)

    def _asked(self, name: str, part: str = "") -> Callable[[Any], Sequence[Any]]:
        """Make what an SDK calls for the present numbers of a metric."""

        def asked(_options: Any) -> Sequence[Any]:
            family = self._families().get(name)
            if family is None:
                return []
            observation = _api().Observation
            return [observation(value, labels) for labels, value in _series(family, part)]

        return asked

    def _families(self) -> Mapping[str, Family]:
        """Look, unless that was done just now; nothing to report is not remembered."""
        at, families = self._seen
        now = time.monotonic()
        if families and now - at < ONE_LOOK:
            return families
        found = self._look()
        families = (
            {} if found is None else {it.metric.name: it for it in prometheus.families(*found)}
        )
        # As a whole: threads of two SDKs may both come here.
        self._seen = now, families
        return families


def _series(family: Family, part: str) -> Iterator[Series]:
    for values, value in zip(family.labels, family.values, strict=True):
        labels = dict(zip(family.metric.labels, values, strict=True))
        if not isinstance(value, Histogram):
            yield labels, value
        elif part == "_bucket":
            for le, number in zip(_LE, value.cumulative, strict=True):
                yield {**labels, "le": le}, number
        else:
            yield labels, value.sum if part == "_sum" else value.cumulative[-1]


def _api() -> Any:
    # Imported here: it is no dependency, and whoever has a meter has it.
    from opentelemetry import metrics as api  # noqa: PLC0415

    return api
