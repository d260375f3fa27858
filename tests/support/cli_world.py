"""Snapshots for tests of the command: of numbers that were never counted."""

from __future__ import annotations

from typing import Any

from accelerator import local
from accelerator.cli.snapshot import Snapshot, Usage, Worker
from accelerator.observability.tables import AreaRow, Block
from accelerator.segment import SegmentFile

BUCKETS = len(local.LATENCY_BOUNDS) + 2
FILE = SegmentFile(0, "shop", 0x12345678)
LINK = {
    "confirmed_age": 0.2,
    "heard_age": 0.2,
    "connected_since": 12.0,
    "last_message_age": 0.1,
    "outbox_oldest_age": None,
    "next_retry_in": None,
    "refused": False,
    "settled": True,
    "breaker": "closed",
    "failures": 0,
    "open_for": 0.0,
    "reconnects": 1,
    "outbox_depth": 0,
    "outbox_dropped": 0,
}
LEADER = {"term": 3, "incarnation": 7, "pid": 70, "beat_age": 0.05}
NOBODY = {"term": 0, "incarnation": 0, "pid": 0, "beat_age": None}
SEGMENT = {
    "name": "shop",
    "size": 64 << 20,
    "data_bytes": 60 << 20,
    "live_bytes": 45 << 20,
    "entries": 12345,
    "resets": 0,
    "stats_lost": 0,
    "process_slots": 64,
    "area_slots": 64,
}


def counted(**numbers: int) -> dict[str, int]:
    """Counters of an area; what is not named is 0."""
    unknown = set(numbers) - set(local.COUNTERS) - {"entries", "bytes"}
    assert not unknown, unknown
    return {**dict.fromkeys(local.COUNTERS, 0), "entries": 0, "bytes": 0, **numbers}


def block(
    incarnation: int, area: str, loads: dict[int, int] | None = None, **numbers: int
) -> Block:
    """Counters of a process; local_hit without those of object_hit."""
    histogram = [0] * BUCKETS
    for bucket, number in (loads or {}).items():
        histogram[bucket] = number
    ordered = counted(**numbers)
    return Block(
        incarnation,
        area,
        tuple(ordered[name] for name in local.COUNTERS),
        tuple(histogram),
        (0,) * BUCKETS,
    )


def worker(incarnation: int, cpu: float = 0.0, state: str = "S", here: int | None = None) -> Worker:
    """A process whose pid is ten times its incarnation, here as well if not said otherwise."""
    here = 10 * incarnation if here is None else here
    usage = Usage(state, cpu, 25 << 20) if here else None
    return Worker(incarnation, 10 * incarnation, here, 60.0, usage)


def row(name: str, in_step_for: float | None = 1.5, *, watched: bool = True) -> AreaRow:
    """An area with Redis behind it."""
    return AreaRow(name, watched, in_step_for)


def snapshot(
    areas: dict[str, dict[str, int]] | None = None,
    *,
    at: float = 100.0,
    origin: bytes = b"one",
    link: dict[str, Any] | None = None,
    leader: dict[str, Any] | None = None,
    numbers: dict[str, Any] | None = None,
    **more: Any,
) -> Snapshot:
    """A segment at one moment."""
    workers = more.get("workers", ())
    stats = {
        "segment": {**SEGMENT, **(numbers or {})},
        "areas": areas or {},
        "processes": more.pop("processes", None)
        or [{"pid": it.pid, "incarnation": it.incarnation, "alive": True} for it in workers],
        "link": {**LINK, **(link or {})},
        "leader": leader or NOBODY,
    }
    wall = 1_700_000_000.0 + at
    return Snapshot(at=at, wall=wall, file=FILE, origin=origin, stats=stats, **more)
