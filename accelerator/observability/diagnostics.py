"""
What :func:`accelerator.diagnostics` and ``LevelCache.diagnostic_snapshot`` show: plain data, ready
for JSON, without keys, values or secrets.

All of it is known in the segment, or in this process: nothing here asks Redis.
"""  # noqa: D205  one sentence

from __future__ import annotations

import math
import os
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Final, NotRequired, TypedDict

from accelerator.observability import metrics

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from accelerator.config import AreaConfig
    from accelerator.entry import CacheMode


class LatencySnapshot(TypedDict):
    """How long something took on this host; seconds, None before the first time."""

    count: int
    mean: float | None
    p50: float | None
    p99: float | None
    histogram: metrics.Distribution


class LoadSnapshot(LatencySnapshot):
    """Loads, beside what they may take."""

    loader_timeout: float | None


class StaleSnapshot(TypedDict):
    """Whether reads may be answered with stale values, how many might have been, and were."""

    allow_stale: bool
    """Whether every read may; each read may ask for it itself."""
    on_error: bool
    life: float
    """Seconds that a value is kept as stale."""
    allowed: int
    """Reads that missed, and would have taken a stale value."""
    served: int


class ErrorSnapshot(TypedDict):
    """A call of Redis that failed."""

    age: float
    """Seconds ago."""
    area: str
    operation: str
    reason: str
    """As RemoteError has it."""


class ListenerSnapshot(TypedDict):
    """Who listens for this host; seconds ago, None: never, or not now."""

    pid: int | None
    """None: nobody does."""
    term: int
    """How often it has changed."""
    lease_age: float | None
    """Since the last beat of the lease, which is lost after 0.5 s."""
    connected_since: float | None
    reconnects: int
    last_message_age: float | None
    next_retry_in: float | None
    """Seconds until it connects again; None: it is connected."""


class LinkSnapshot(TypedDict):
    """What the host knows of Redis, whatever process asks; seconds ago, None: never."""

    confirmed_age: float | None
    """Since the last heartbeat that Redis executed was sent."""
    last_ok_age: float | None
    """Since the last answer to one."""
    refused: bool
    settled: bool
    breaker: str
    failures: int
    open_for: float
    outbox_depth: int
    outbox_oldest_age: float | None
    outbox_dropped: int
    listener: ListenerSnapshot


class RemoteSnapshot(LinkSnapshot):
    """
    The second level of a process: where it is, and what the host knows of it.

    ``redis`` and ``db`` are there with Redis; another second level may show fields of its own.
    """

    redis: NotRequired[str]
    """The URL without user, password and query; the class of a client."""
    db: NotRequired[int]
    kind: str
    ready: bool
    bound: float
    last_error: ErrorSnapshot | None
    """Of this process; if none of its calls has failed, of the host."""


class AreaRemoteSnapshot(RemoteSnapshot):
    """The same, and what is of one area."""

    channel: str
    calls: LatencySnapshot
    freshness_age: float | None
    """Seconds by which the area may be behind other hosts; None: it has never been in step."""
    in_step: bool


class DiagnosticSnapshot(TypedDict):
    """One area: what it was told, what it does, and what it has done on this host."""

    area: str
    mode: str
    """In force: "local", "remote", "both" or "off"."""
    config: dict[str, Any]
    metrics: metrics.MetricsSnapshot
    local_backend_ready: bool
    """Whether values are kept in memory: not in the modes "remote" and "off"."""
    remote_backend_ready: bool
    """Whether Redis has executed a heartbeat of this host within the bound."""
    loader_configured: bool
    invalidation_listener_started: bool
    """Whether the area is subscribed to, and as current as the bound asks."""
    invalidation_channel: str | None
    """None: without Redis there is none."""
    degraded: str | None
    """Why the process does not use what its settings ask for; None: it does."""
    hit_ratio: float | None
    entries: int
    bytes: int
    load: LoadSnapshot
    stale: StaleSnapshot
    remote: AreaRemoteSnapshot | None
    """None: the mode does not use Redis, or there is none."""


def detached() -> dict[str, Any]:
    """Nothing has used a cache in this process yet."""
    return {"pid": os.getpid(), "attached": False}


def attached(
    *,
    name: str,
    path: str | None,
    settings: Mapping[str, Any],
    degraded: str | None,
    stats: Mapping[str, Any],
    remote: RemoteSnapshot | None,
    told: Mapping[str, AreaFacts],
    overrides: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """
    Show a process and the segment it uses, and through that the whole host.

    Args:
        name: What processes share to share the segment.
        path: File of the segment; None: memory of this process alone.
        settings: As Settings.describe() shows them.
        degraded: Why the process does not use what its settings ask for.
        stats: As Segment.stats() shows them.
        remote: As SecondLevel.describe() shows it; None: there is no Redis.
        told: What areas have told of themselves, by their names.
        overrides: What an operator has set for now.
    """
    return {
        "pid": os.getpid(),
        "attached": True,
        "name": name,
        "local": "process" if path is None else "shared",
        "path": path,
        "degraded": degraded,
        "settings": dict(settings),
        "segment": dict(stats["segment"]),
        "remote": None if remote is None else dict(remote),
        "overrides": list(overrides),
        "areas": areas(stats, told),
        "processes": list(stats["processes"]),
    }


class AreaFacts(TypedDict):
    """What an area has told of itself, and what its loads took."""

    config: dict[str, Any] | None
    """Its options as they are in force, overrides included; None: it has not told them."""
    load_p50: float | None
    """Upper bound in seconds, since the segment was made; None: before the first load."""
    load_p99: float | None


UNTOLD: Final[AreaFacts] = {"config": None, "load_p50": None, "load_p99": None}


def area_facts(
    config: dict[str, Any] | None, bounds: Sequence[float], loads: Sequence[int]
) -> AreaFacts:
    """Put beside each other how an area is configured, and what its loads took; as latency()."""
    p50, p99 = (quantile(share, bounds, loads[:-1]) for share in (0.5, 0.99))
    return {"config": config, "load_p50": p50, "load_p99": p99}


def areas(stats: Mapping[str, Any], told: Mapping[str, AreaFacts]) -> dict[str, dict[str, Any]]:
    """
    Show the areas of Segment.stats(): MetricsSnapshot, and what was measured and told of each.

    That is ``entries``, ``bytes``, ``hit_ratio``, and AreaFacts.
    """
    shown = {}
    for area, numbers in stats["areas"].items():
        counted = metrics.snapshot(numbers)
        measured = {"entries": numbers["entries"], "bytes": numbers["bytes"]}
        known = told.get(area, UNTOLD)
        shown[area] = {**counted, **measured, "hit_ratio": hit_ratio(counted), **known}
    return shown


def hit_ratio(counted: metrics.MetricsSnapshot) -> float | None:
    """Give the share of reads that memory answered; None before the first read."""
    hits, misses = counted["local_hit"], counted["local_miss"]
    return round(hits / (hits + misses), 4) if hits + misses else None


def link(known: Mapping[str, Any], leader: Mapping[str, Any]) -> LinkSnapshot:
    """Show what Segment.link() and Segment.leader() tell."""
    return {
        "confirmed_age": known["confirmed_age"],
        "last_ok_age": known["heard_age"],
        "refused": known["refused"],
        "settled": known["settled"],
        "breaker": known["breaker"],
        "failures": known["failures"],
        "open_for": known["open_for"],
        "outbox_depth": known["outbox_depth"],
        "outbox_oldest_age": known["outbox_oldest_age"],
        "outbox_dropped": known["outbox_dropped"],
        "listener": {
            "pid": leader["pid"] or None,
            "term": leader["term"],
            "lease_age": leader["beat_age"],
            "connected_since": known["connected_since"],
            "reconnects": known["reconnects"],
            "last_message_age": known["last_message_age"],
            "next_retry_in": known["next_retry_in"],
        },
    }


def area_remote(
    host: RemoteSnapshot, *, channel: str, age: float | None, calls: LatencySnapshot
) -> AreaRemoteSnapshot:
    """
    Add what is of one area.

    Args:
        host: As SecondLevel.describe() shows it.
        channel: On which the area's invalidations are told.
        age: Seconds by which the area may be behind; None or infinite: it is not known.
        calls: How long its calls took.
    """
    known = None if age is None or math.isinf(age) else age  # infinity is no JSON
    return {
        **host,
        "channel": channel,
        "calls": calls,
        "freshness_age": known,
        "in_step": known is not None and known <= host["bound"],
    }


def area_snapshot(
    config: AreaConfig,
    *,
    mode: CacheMode,
    degraded: str | None,
    stats: Mapping[str, Any],
    load: LatencySnapshot,
    remote: AreaRemoteSnapshot | None,
) -> DiagnosticSnapshot:
    """Show one area; *stats* are those of the memory that it lies in."""
    numbers = stats["areas"][config.area]
    counted = metrics.snapshot(numbers)
    return {
        "area": config.area,
        "mode": mode.value,
        "config": config_snapshot(config),
        "metrics": counted,
        "local_backend_ready": mode.uses_local,
        "remote_backend_ready": remote is not None and remote["ready"],
        "loader_configured": config.loader is not None,
        "invalidation_listener_started": remote is not None and remote["in_step"],
        "invalidation_channel": None if remote is None else remote["channel"],
        "degraded": degraded,
        "hit_ratio": hit_ratio(counted),
        "entries": numbers["entries"],
        "bytes": numbers["bytes"],
        "load": {**load, "loader_timeout": config.loader_timeout},
        "stale": {
            "allow_stale": config.allow_stale,
            "on_error": config.stale_on_error,
            "life": config.stale_life,
            "allowed": counted["stale_allowed"],
            "served": counted["stale_fallback"],
        },
        "remote": remote,
    }


def figures(
    area: str,
    *,
    stats: Mapping[str, Any],
    load: metrics.Distribution,
    remote: AreaRemoteSnapshot | None,
) -> dict[str, Any]:
    """Gather what metrics.METRICS shows of an area and of the host, by the names it has there."""
    segment, numbers = stats["segment"], stats["areas"][area]
    shown = {
        **metrics.snapshot(numbers),
        "entries": numbers["entries"],
        "bytes": numbers["bytes"],
        "load_latency": load,
        "segment_bytes": segment["size"],
        "dead_owner_takeover": segment["dead_owner_takeover"],
    }
    if remote is not None:
        shown |= {
            "l2_latency": remote["calls"]["histogram"],
            "freshness_age": remote["freshness_age"],
            "breaker_state": metrics.BREAKER_STATES[remote["breaker"]],
            "listener_term": remote["listener"]["term"],
            "outbox_depth": remote["outbox_depth"],
        }
    return shown


def latency(bounds: Sequence[float], latencies: Sequence[int]) -> LatencySnapshot:
    """
    Show how long something took.

    Args:
        bounds: Upper bounds of the buckets, in seconds.
        latencies: Number in each bucket, in the unbounded one, and the sum in microseconds.
    """
    histogram = metrics.distribution(bounds, latencies)
    number, counts = histogram["count"], histogram["bucket_counts"]
    return {
        "count": number,
        "mean": histogram["sum"] / number if number else None,
        "p50": quantile(0.5, bounds, counts),
        "p99": quantile(0.99, bounds, counts),
        "histogram": histogram,
    }


def quantile(share: float, bounds: Sequence[float], counts: Sequence[int]) -> float | None:
    """
    Give an upper bound of a quantile in seconds: that of the bucket in which it lies.

    None without anything counted; in the unbounded bucket it is the largest bound, as there is no
    better one.
    """
    number = sum(counts)
    if not number:
        return None
    seen = 0
    for bound, count in zip(bounds, counts, strict=False):  # the last count has no bound
        seen += count
        if seen >= share * number:
            return bound
    return bounds[-1]


def config_snapshot(config: AreaConfig) -> dict[str, Any]:
    """Options of an area as plain data; objects of the user by their names."""
    shown: dict[str, Any] = {}
    for field in fields(config):
        value = getattr(config, field.name)
        plain = value is None or isinstance(value, bool | int | float | str)
        shown[field.name] = value if plain else _name_of(value)
    shown["tags"] = list(config.tags)
    shown["mode"] = None if config.mode is None else config.mode.value
    return shown


def _name_of(thing: object) -> str:
    return str(getattr(thing, "__qualname__", None) or type(thing).__qualname__)
