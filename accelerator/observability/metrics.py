"""
The metrics: one table, from which everything that shows them is made.

``otel_metric_points``, texts for scrapers and the page of the reference all follow METRICS.  Names
are public: none changes its meaning.  The first 16, with ``area`` alone, are those of the Rust
crate, in its order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypedDict, cast

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

PREFIX: Final = "accelerator_cache_"
"""Of all names."""

Kind = Literal["counter", "gauge", "histogram"]
"""A counter rises as long as the segment lives; a gauge is measured when it is asked for."""


class MetricsSnapshot(TypedDict):
    """Counters of an area, over all processes of the host that ever were."""

    local_hit: int
    local_miss: int
    remote_hit: int
    remote_miss: int
    load_total: int
    load_success: int
    load_timeout: int
    load_error: int
    stale_fallback: int
    refresh_attempts: int
    refresh_success: int
    refresh_failures: int
    invalidation_publish: int
    invalidation_publish_failures: int
    invalidation_receive: int
    invalidation_receive_failures: int
    negative_hit: int
    object_hit: int
    set: int
    delete: int
    evictions: int
    expired: int
    store_rejected_size: int
    store_rejected_encode: int
    store_rejected_race: int
    lock_giveup: int
    corrupt_item: int
    read_race: int
    load_led: int
    load_joined: int
    load_taken_over: int
    load_lease_lost: int
    load_alone: int
    load_crowded: int
    load_wait_timeout: int
    load_refused: int
    load_paused: int
    l2_error_get: int
    l2_error_fill: int
    l2_error_set: int
    l2_error_del: int
    l2_error_atomic: int
    l2_timeout_get: int
    l2_timeout_fill: int
    l2_timeout_set: int
    l2_timeout_del: int
    l2_timeout_atomic: int
    l2_undecodable: int
    l2_fill_refused: int
    l2_skipped: int
    gap: int
    replayed: int
    flush: int
    invalidation_queued: int
    own_skipped: int
    receive_error_subscribe: int
    receive_error_decode: int
    receive_error_apply: int
    desync_read: int
    tag_delete: int
    stale_allowed: int
    consistency_violation: int


class Distribution(TypedDict):
    """A histogram."""

    count: int
    sum: float
    """Of everything counted, in seconds."""
    explicit_bounds: list[float]
    """Upper bounds of the buckets but the last, which has none."""
    bucket_counts: list[int]
    """Of each bucket alone, not of those before it."""


class MetricPoint(TypedDict):
    """One number, or histogram, in the shape of OpenTelemetry's data points."""

    name: str
    kind: Kind
    unit: str
    value: int | float | Distribution
    attributes: dict[str, str]


class Metric(NamedTuple):
    """What a name means."""

    name: str
    kind: Kind
    unit: str
    """As OpenTelemetry writes it: "1" is a number of things, "By" bytes, "s" seconds."""
    labels: tuple[str, ...]
    """Keys of the attributes; without ``area`` it is about the host."""
    help: str
    sources: Mapping[str, str]
    """
    What is shown, by the values of the labels behind ``area``, joined by "/"; "" if there are none.
    """


def _counter(name: str, text: str, *, of: str = "", labels: tuple[str, ...] = ("area",)) -> Metric:
    return Metric(f"{PREFIX}{name}_total", "counter", "1", labels, text, {"": of or name})


def _split(name: str, label: str, text: str, **sources: str) -> Metric:
    return Metric(f"{PREFIX}{name}_total", "counter", "1", ("area", label), text, sources)


def _by_op_and_kind(name: str, text: str) -> Metric:
    sources = {
        f"{op}/{kind}": f"l2_{kind}_{op}"
        for op in ("get", "fill", "set", "del", "atomic")
        for kind in ("error", "timeout")
    }
    return Metric(f"{PREFIX}{name}_total", "counter", "1", ("area", "op", "kind"), text, sources)


def _gauge(
    name: str, text: str, unit: str = "1", *, of: str = "", labels: tuple[str, ...] = ()
) -> Metric:
    return Metric(f"{PREFIX}{name}", "gauge", unit, labels, text, {"": of or name})


def _durations(name: str, text: str) -> Metric:
    return Metric(f"{PREFIX}{name}_seconds", "histogram", "s", ("area",), text, {"": name})


METRICS: Final[Sequence[Metric]] = (
    # Those of the crate.
    _counter("local_hit", "reads answered with a fresh value of the segment"),
    _counter("local_miss", "reads of a key that was not there, or not fresh"),
    _counter("remote_hit", "keys answered by Redis"),
    _counter("remote_miss", "keys that Redis was asked for and did not have"),
    _counter("load", "times that a loader was asked; a batch is one", of="load_total"),
    _counter("load_success", "of those: that answered in time"),
    _counter("load_timeout", "of those: that took longer than `loader_timeout` or `batch_timeout`"),
    _counter("load_error", "of those: that raised, or were cancelled"),
    _counter(
        "stale_fallback",
        "misses that were answered with a stale value, because the read or the area allowed it",
    ),
    _counter(
        "refresh_attempts",
        "refreshes ahead, and calls of `refresh`; one that joins another's load is neither a "
        "success nor a failure",
    ),
    _counter("refresh_success", "of those: that answered in time"),
    _counter("refresh_failures", "of those: that did not"),
    _counter(
        "invalidation_publish", "writes and deletes that Redis took and told the other hosts of"
    ),
    _counter(
        "invalidation_publish_failures",
        "attempts of that which failed, whether they were queued then or not",
    ),
    _counter("invalidation_receive", "messages applied to this host, each once"),
    _counter("invalidation_receive_failures", "messages or subscriptions that failed"),
    # Ours: reads and values.
    _counter("negative_hit", "of `local_hit` and `remote_hit`: those that found a stored `None`"),
    _counter(
        "object_hit",
        "of `local_hit`: those answered with an object that the process had decoded before",
    ),
    _counter("set", "values stored by `set`, `mset`, `add` and loads"),
    _counter(
        "delete",
        "keys given to `delete` and `mdelete`, or set with a life of 0, whether they were there or "
        "not",
    ),
    _counter(
        "tag_delete",
        "tags given to `delete_tags` and `expire_tags`, whether a value carried them or not",
    ),
    _counter("evictions", "live values that had to go for others"),
    _counter(
        "expired",
        "expired values that were cleared away to make room; those that nobody needed the room of "
        "are not counted",
    ),
    _split(
        "store_rejected",
        "reason",
        "values not stored: too large, not to be encoded (or given wrong tags, or too many, by a "
        "loader), or loads that a delete or a set had overtaken",
        size="store_rejected_size",
        encode="store_rejected_encode",
        race="store_rejected_race",
    ),
    _counter(
        "stale_allowed",
        "keys read that were not there, or not fresh, whose reads would have taken a stale value",
    ),
    _counter(
        "consistency_violations",
        "what no fault can do, only a bug, or somebody's hand: numbers of changes that go back or "
        "come twice, a log of other numbers than its entries say; above 0: report it",
        of="consistency_violation",
    ),
    _counter("lock_giveup", "writes given up after 20 ms"),
    _counter("corrupt_item", "items dropped because they did not verify or could not be decoded"),
    _counter("read_race", "reads that lost four races in a row against writers of their key"),
    # Loads.
    _counter("load_led", "keys that one caller got for the host, from Redis or by a load"),
    _counter("load_joined", "waits for another's load"),
    _counter(
        "load_taken_over",
        "of `load_led`: taken over from a dead worker, or one whose lease had passed",
    ),
    _counter("load_lease_lost", "loads not stored because something had overtaken them"),
    _counter("load_alone", "uncoordinated loads"),
    _counter("load_crowded", "reads that found no room in the table of flights, or it locked"),
    _counter("load_wait_timeout", "waits that were longer than `wait_timeout`"),
    _counter(
        "load_refused", "reads that would have been one uncoordinated load more than `max_loads`"
    ),
    _counter(
        "load_paused",
        "of `stale_fallback`: without asking the loader, because a load had just failed",
    ),
    _durations("load_latency", "how long loaders took"),
    # Redis and the other hosts.
    _by_op_and_kind(
        "l2_error",
        "calls of Redis that failed: no connection or an error as answer, or no answer within "
        "`redis_timeout`; by what they were for: reads, what loads store, `set`, `delete` and its "
        "like, and what Redis decides (`add`, `touch`, `incr`)",
    ),
    _counter(
        "l2_undecodable",
        "values in Redis that are damaged, foreign or of another version: each is a miss, and "
        "replaced by the next load",
    ),
    _counter(
        "l2_fill_refused",
        "loads not stored in Redis because a delete or a set had overtaken them",
    ),
    _counter(
        "l2_skipped",
        "calls not made, because Redis had failed just before, or what it has may be out of date, "
        "or this host has something queued for it",
    ),
    _durations("l2_latency", "how long calls of Redis took"),
    _counter("gap", "times that messages were missing"),
    _counter(
        "replayed",
        "writes told later from the outbox, and messages of others read later from the log",
    ),
    _counter("flush", "of `gap`: the whole area was cleared, as the log did not have them either"),
    _counter(
        "invalidation_queued",
        "of `invalidation_publish_failures`: kept in the outbox, to be told later",
    ),
    _counter("own_skipped", "messages of this host's own sets that had nothing to tell it"),
    _split(
        "invalidation_receive_error",
        "cause",
        "how `invalidation_receive_failures` came about: the channel could not be subscribed to, "
        "or a message could not be read, or not be applied",
        subscribe="receive_error_subscribe",
        decode="receive_error_decode",
        apply="receive_error_apply",
    ),
    _counter(
        "desync_read",
        "reads that were not answered from the segment while the host was out of step with the "
        "others",
    ),
    _gauge(
        "freshness_age_seconds",
        "by how much the area may be behind other hosts; absent before it is in step for the first "
        "time",
        "s",
        of="freshness_age",
        labels=("area",),
    ),
    # What the area has in the segment.
    _gauge("entries", "values of the area that can be read", labels=("area",)),
    _gauge("bytes", "what they take, keys and headers included", "By", labels=("area",)),
    # The host.
    _gauge("segment_bytes", "size of the segment", "By"),
    _counter("dead_owner_takeover", "locks taken over from dead processes", labels=()),
    _gauge("breaker_state", "whether Redis is called: 0 yes, 1 by one probe, 2 no"),
    _gauge("listener_term", "how often another process has begun to listen for the host"),
    _gauge("outbox_depth", "writes and deletes that Redis has not heard of"),
)

_PUBLIC_NAMES: Final = {"load": "load_total"}
"""Counters whose public names differ from those in the segment."""
_NOT_COUNTED: Final = frozenset({"bytes", "dead_owner_takeover", "entries"})
"""What the segment lists among an area's counters and is none: locks belong to no area."""
BREAKER_STATES: Final = {"closed": 0, "half-open": 1, "open": 2}


def split(metric: Metric, value: str) -> dict[str, str]:
    """Give the labels behind ``area`` that a key of *sources* says."""
    return dict(zip(metric.labels[1:], value.split("/"), strict=True)) if value else {}


def counters_of_area() -> Iterator[str]:
    """Fields of MetricsSnapshot, as the table has them."""
    for metric in METRICS:
        if metric.kind == "counter" and "area" in metric.labels:
            yield from metric.sources.values()


def snapshot(counters: Mapping[str, int]) -> MetricsSnapshot:
    """Give an area's counters their public names."""
    shown = {
        _PUBLIC_NAMES.get(name, name): number
        for name, number in counters.items()
        if name not in _NOT_COUNTED
    }
    return cast("MetricsSnapshot", shown)


def distribution(bounds: Sequence[float], latencies: Sequence[int]) -> Distribution:
    """
    Show a histogram of the segment.

    Args:
        bounds: Upper bounds of the buckets, in seconds.
        latencies: Number in each bucket, in the unbounded one, and the sum in microseconds.
    """
    *counts, total = latencies
    return {
        "count": sum(counts),
        "sum": total / 1e6,
        "explicit_bounds": list(bounds),
        "bucket_counts": counts,
    }


def points(area: str, values: Mapping[str, Any]) -> list[MetricPoint]:
    """
    Show numbers as data points, in the order of the table.

    Args:
        area: Name of the area they are of.
        values: By what METRICS calls their sources; what is missing or None is left out.
    """
    found: list[MetricPoint] = []
    for metric in METRICS:
        common = {"area": area} if "area" in metric.labels else {}
        for value, source in metric.sources.items():
            number = values.get(source)
            if number is None:
                continue
            found.append(
                {
                    "name": metric.name,
                    "kind": metric.kind,
                    "unit": metric.unit,
                    "value": number,
                    "attributes": {**common, **split(metric, value)},
                }
            )
    return found
