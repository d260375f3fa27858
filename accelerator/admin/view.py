"""
What ``/diagnostics`` shows: plain data, from which the page and programs make what they need.

Names are those of ``accelerator.diagnostics()``, where it has the same.  Numbers count up: whoever
wants rates makes the differences between two looks, as long as ``origin`` is the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import accelerator
from accelerator import local, segment
from accelerator.admin import warn
from accelerator.keys import hash_text
from accelerator.observability import diagnostics, events, metrics, particulars
from accelerator.observability.processes import usage_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from accelerator.admin.sources import Seen
    from accelerator.observability.reading import Area, Reading

EVENTS: Final = 100
"""Newest events that are shown one by one."""


def document(seen: Seen, *, docs: str | None, points: bool = False) -> dict[str, Any]:
    """
    Show all of it.

    Args:
        seen: What there is to see.
        docs: URL of the documentation.
        points: Whether every metric is to be shown as data points of OpenTelemetry, too.
    """
    reading = seen.reading
    happened = seen.memory.events(particulars.LOOKED_AT)
    configs = particulars.configurations(seen.memory)
    shown: dict[str, Any] = {
        "version": accelerator.__version__,
        "pid": seen.pid,
        "attached": seen.pid is not None,
        "name": seen.name,
        "path": seen.path,
        "local": "process" if seen.path is None else "shared",
        "degraded": seen.degraded,
        "settings": None if seen.settings is None else dict(seen.settings),
        "at": reading.at,
        "time": reading.wall,
        "origin": reading.origin.hex(),
        "bound": seen.bound,
        "segment": dict(reading.segment),
        "areas": {
            name: {
                **_area(area, seen.bound, owes=name in reading.owed),
                **diagnostics.area_facts(
                    configs.get(name), local.LATENCY_BOUNDS, area.totals.loads
                ),
            }
            for name, area in sorted(reading.areas.items())
        },
        "processes": [_process(seen, each) for each in reading.processes],
        "flights": _flights(seen.memory),
        "overrides": particulars.in_force(seen.memory),
        "overrides_seen": list(seen.memory.overrides_seen()),
        "hot_keys": particulars.hot_keys(seen.memory),
        "events": particulars.events(happened[:EVENTS]),
        "events_by": events.aggregate(happened),
        "remote": _remote(seen, happened),
        "latency_bounds": list(local.LATENCY_BOUNDS),
        "docs": docs,
    }
    shown["warnings"] = [warning.plain(docs) for warning in warn.of(shown, happened)]
    if points:
        shown["points"] = _points(reading, seen.bound)
    return shown


def readiness(seen: Seen) -> dict[str, Any]:
    """Tell whether the memory is what was asked for, and whether Redis answers within the bound."""
    remote = _remote(seen)
    return {
        "degraded": seen.degraded,
        "local": "process" if seen.path is None else "shared",
        "remote": None if remote is None else remote["ready"],
    }


def _area(area: Area, bound: float, *, owes: bool) -> dict[str, Any]:
    counted = metrics.snapshot(area.totals.counters)
    gauge = area.gauge
    left = gauge.in_step_for if gauge.watched else None
    return {
        **counted,
        "entries": gauge.entries,
        "bytes": gauge.bytes,
        "hit_ratio": diagnostics.hit_ratio(counted),
        "load_latency": list(area.totals.loads),
        "l2_latency": list(area.totals.l2),
        "remote": gauge.watched,
        "in_step": left is not None and left >= 0 if gauge.watched else None,
        "in_step_for": left,
        "freshness_age": None if left is None else max(0.0, bound - left),
        "owes_clear": owes,
    }


def _process(seen: Seen, process: Mapping[str, Any]) -> dict[str, Any]:
    incarnation = process["incarnation"]
    here = 0
    if process["alive"]:
        is_own = process["self"] or seen.memory.is_private
        here = process["pid"] if is_own else segment.pid_here(seen.memory, incarnation)
    usage = usage_of(here) if here else None
    counted = seen.reading.counted
    totals = counted.processes.get(incarnation)
    counters = totals.counters if totals else dict.fromkeys(local.COUNTERS, 0)
    return {
        **process,
        "here": here,
        "listens": seen.reading.leader["incarnation"] == incarnation,
        "state": usage and usage.state,
        "cpu": usage and usage.cpu,
        "memory": usage and usage.memory,
        "local_hit": counters["local_hit"],
        "local_miss": counters["local_miss"],
        "object_hit": counters["object_hit"],
        "load_total": counters["load"],
        "set": counters["set"],
        "blocks": counted.blocks.get(incarnation, 0),
    }


def _flights(memory: local.Segment) -> list[dict[str, Any]]:
    found = sorted(memory.flights(), key=lambda each: -each["age"])
    return [{**each, "hash": hash_text(each["hash"])} for each in found]


def _remote(seen: Seen, happened: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any] | None:
    """What is known of Redis; None: nobody of this host has it."""
    if seen.remote is not None:
        return dict(seen.remote)
    reading = seen.reading
    if not reading.has_remote:
        return None
    known = diagnostics.link(reading.link, reading.leader)
    confirmed = known["confirmed_age"]
    ready = confirmed is not None and confirmed <= seen.bound
    return {**known, "ready": ready, "bound": seen.bound, "last_error": events.last_error(happened)}


def _points(reading: Reading, bound: float) -> list[metrics.MetricPoint]:
    """Every metric as ``otel_metric_points()`` shows it, of all areas."""
    found: list[metrics.MetricPoint] = []
    for name, area in reading.areas.items():
        shown: dict[str, Any] = {
            **metrics.snapshot(area.totals.counters),
            "entries": area.gauge.entries,
            "bytes": area.gauge.bytes,
            "load_latency": metrics.distribution(local.LATENCY_BOUNDS, area.totals.loads),
        }
        if area.gauge.watched:
            latency = metrics.distribution(local.LATENCY_BOUNDS, area.totals.l2)
            left = area.gauge.in_step_for
            age = None if left is None else max(0.0, bound - left)
            shown |= {"l2_latency": latency, "freshness_age": age}
        found += metrics.points(name, shown)
    host: dict[str, Any] = {
        "segment_bytes": reading.segment["size"],
        "dead_owner_takeover": reading.segment["dead_owner_takeover"],
    }
    if reading.has_remote:
        host |= {
            "breaker_state": metrics.BREAKER_STATES[reading.link["breaker"]],
            "listener_term": reading.leader["term"],
            "outbox_depth": reading.link["outbox_depth"],
        }
    return [*found, *metrics.points("", host)]
