"""
What :func:`accelerator.diagnostics` and ``LevelCache.diagnostic_snapshot`` show: plain data, ready
for JSON, without keys, values or secrets.
"""  # noqa: D205  one sentence

from __future__ import annotations

import os
from dataclasses import fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from accelerator.config import AreaConfig


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
    remote: Mapping[str, Any] | None,
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
        "areas": {area: with_ratio(numbers) for area, numbers in stats["areas"].items()},
        "processes": list(stats["processes"]),
    }


def with_ratio(numbers: Mapping[str, Any]) -> dict[str, Any]:
    """Add the hit ratio to the counters of an area; None before the first read."""
    hits, misses = numbers["local_hit"], numbers["local_miss"]
    ratio = round(hits / (hits + misses), 4) if hits + misses else None
    return {**numbers, "hit_ratio": ratio}


def area_snapshot(
    config: AreaConfig,
    *,
    mode: str,
    degraded: str | None,
    metrics: Mapping[str, int],
    load: Mapping[str, Any],
    remote: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Show one area: what it was told, what it does, what it has done on this host."""
    channel = None if remote is None else remote["channel"]
    listens = remote is not None and bool(remote["in_step"])
    return {
        "area": config.area,
        "mode": mode,
        "config": config_snapshot(config),
        "metrics": dict(metrics),
        "local_backend_ready": True,
        "degraded": degraded,
        "remote_backend_ready": remote is not None and bool(remote["ready"]),
        "remote": None if remote is None else dict(remote),
        "loader_configured": config.loader is not None,
        "load": dict(load),
        "invalidation_channel": channel,
        "invalidation_listener_started": listens,
    }


def load_snapshot(
    config: AreaConfig, bounds: Sequence[float], latencies: Sequence[int]
) -> dict[str, Any]:
    """
    Show how long loads took, beside what they may take.

    Args:
        config: Of the area.
        bounds: Upper bounds of the buckets, in seconds.
        latencies: Loads in each bucket, in the unbounded one, and the sum in microseconds.
    """
    *counts, total = latencies
    number = sum(counts)
    return {
        "count": number,
        "mean": total / number / 1e6 if number else None,
        "p50": quantile(0.5, bounds, counts),
        "p99": quantile(0.99, bounds, counts),
        "loader_timeout": config.loader_timeout,
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
