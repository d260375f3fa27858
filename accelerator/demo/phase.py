"""One phase of the demo: the load against one running server, and what came out of it."""

import asyncio
import json
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerator.demo.client import Visitor, get
from accelerator.demo.database import total_queries
from accelerator.demo.load import Load, Tally
from accelerator.demo.server import Server
from accelerator.demo.terminal import Terminal

_FIRST_ANSWERS = 200
"""This many first answers of a replaced worker tell whether it started with a warm cache."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is done to each server."""

    seconds: float
    products: int
    visitors: int
    workers: int
    seed: int


@dataclass(frozen=True, kw_only=True)
class Kill:
    """What happened when a worker was killed under load."""

    pid: int
    connections: int
    """Visitors' connections that the worker held."""
    lost: int
    """Requests that were on its connections; each was tried again once."""
    lost_elsewhere: int
    """Requests lost on connections to workers that live."""
    hit_ratio_before: float | None
    hit_ratio_after: float | None
    window_seconds: float
    """Length of the spans before and after the kill over which the two were taken."""
    slowest_ms: float
    """Slowest answer within the span after the kill."""
    replacement: int | None
    """Pid of the worker that Gunicorn started instead, if it answered anything."""
    replacement_seconds: float | None
    """From the kill to the replacement's first answer."""
    replacement_hit_ratio: float | None
    """Share of hits among the first answers of the replacement."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The figures of one phase."""

    cache: str
    seconds: float
    requests: int
    failed: int
    lost: int
    requests_per_second: float
    p50_ms: float
    p99_ms: float
    hit_ratio: float
    queries: int
    queries_per_1000: float
    """For 1,000 pages, whether a visitor asked for them or the writer's read-backs."""
    updates: int
    updates_seen_by_all_workers: int
    read_backs: int
    read_backs_stale: int
    answers_stale: int
    worker_bytes: int | None
    segment_bytes: int
    kill: Kill | None
    diagnostics: dict[str, Any]


@dataclass(frozen=True)
class _Blow:
    """The kill itself, before its consequences are known."""

    at: float
    pid: int
    connections: int
    workers: frozenset[int]


async def measure(
    cache: str, server: Server, counters: Path, plan: Plan, terminal: Terminal, *, kill: bool
) -> Outcome:
    """
    Run the load against a server.

    Args:
        cache: Name of the cache that the server uses.
        server: The server, up and running.
        counters: Directory of the workers' query counters.
        plan: Size and length of the load.
        terminal: Where progress is shown.
        kill: Kill a worker when half of the time is over.
    """
    load = Load(
        server.port,
        products=plan.products,
        visitors=plan.visitors,
        workers=plan.workers,
        seed=plan.seed,
    )
    start = time.monotonic()
    queries_before = total_queries(counters)
    ticker = asyncio.create_task(_show(terminal, cache, load, start, plan.seconds))
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(load.run(plan.seconds))
            blow = (
                group.create_task(_strike(server, load, plan.seconds / 2, terminal))
                if kill
                else None
            )
    finally:
        ticker.cancel()
        terminal.clear()
    seconds = time.monotonic() - start
    queries = total_queries(counters) - queries_before
    # Not of the other servers: asking would attach them to a segment of their own.
    diagnostics = await _diagnostics(server.port) if cache == "accelerator" else {}
    return _outcome(
        cache,
        load,
        seconds=seconds,
        queries=queries,
        worker_bytes=server.memory(),
        kill=_consequences(blow.result(), load.tally, start + seconds) if blow else None,
        diagnostics=diagnostics,
    )


async def _show(terminal: Terminal, cache: str, load: Load, start: float, seconds: float) -> None:
    """Show how the phase goes, until cancelled."""
    tally, before, last = load.tally, 0, start
    while True:
        await asyncio.sleep(terminal.interval)
        now = time.monotonic()
        rate = (tally.answers - before) / (now - last)
        before, last = tally.answers, now
        hits = tally.hits / tally.answers if tally.answers else 0
        stale = tally.stale + load.read_backs.stale
        terminal.progress(
            cache,
            min(1.0, (now - start) / seconds),
            f"{rate:6,.0f} requests/s   hits {hits:6.1%}   stale answers {stale:,}",
        )


async def _strike(server: Server, load: Load, delay: float, terminal: Terminal) -> _Blow:
    """After a delay, kill the worker that holds the most of the visitors' connections."""
    await asyncio.sleep(delay)
    workers = server.workers()
    held = load.connections()
    pid = max(workers, key=lambda worker: held[worker])
    server.kill(pid)
    blow = _Blow(time.monotonic(), pid, held[pid], frozenset(workers))
    terminal.line(f"  worker {pid} killed with SIGKILL, {held[pid]} connections on it")
    return blow


def _consequences(blow: _Blow, tally: Tally, end: float) -> Kill:
    """Read from the tally what a kill did."""
    window = min(2.0, end - blow.at)
    after = [
        seconds
        for at, seconds in zip(tally.at, tally.seconds, strict=True)
        if blow.at <= at < blow.at + window
    ]
    # A connection on which nobody had answered yet may have been the killed worker's, if it is
    # older than the kill.  One that no worker has accepted waits in the socket and is not lost.
    lost = [
        loss.worker == blow.pid or (loss.worker is None and loss.opened <= blow.at)
        for loss in tally.losses
    ]
    new = [
        (at, worker, hit)
        for at, worker, hit in zip(tally.at, tally.worker, tally.hit, strict=True)
        if worker not in blow.workers
    ]
    first_hits = [hit for _, _, hit in new[:_FIRST_ANSWERS]]
    return Kill(
        pid=blow.pid,
        connections=blow.connections,
        lost=sum(lost),
        lost_elsewhere=len(lost) - sum(lost),
        hit_ratio_before=tally.hit_ratio(blow.at - window, blow.at),
        hit_ratio_after=tally.hit_ratio(blow.at, blow.at + window),
        window_seconds=window,
        slowest_ms=1000 * max(after, default=0.0),
        replacement=new[0][1] if new else None,
        replacement_seconds=new[0][0] - blow.at if new else None,
        replacement_hit_ratio=statistics.fmean(first_hits) if new else None,
    )


async def _diagnostics(port: int) -> dict[str, Any]:
    """What the application's diagnostics page says."""
    visitor = Visitor(port, [])
    answer = await visitor.ask(get("/diagnostics"))
    visitor.leave()
    if answer is None or answer.status != 200:
        return {}
    report: dict[str, Any] = json.loads(answer.body)
    return report


def _outcome(
    cache: str,
    load: Load,
    *,
    seconds: float,
    queries: int,
    worker_bytes: int | None,
    kill: Kill | None,
    diagnostics: dict[str, Any],
) -> Outcome:
    tally, read_backs = load.tally, load.read_backs
    latencies = sorted(tally.seconds)
    return Outcome(
        cache=cache,
        seconds=seconds,
        requests=tally.answers,
        failed=tally.failed + read_backs.failed,
        lost=len(tally.losses),
        requests_per_second=tally.answers / seconds,
        p50_ms=_percentile_ms(latencies, 0.50),
        p99_ms=_percentile_ms(latencies, 0.99),
        hit_ratio=tally.hits / max(1, tally.answers),
        queries=queries,
        queries_per_1000=1000 * queries / max(1, tally.answers + read_backs.reads),
        updates=read_backs.updates,
        updates_seen_by_all_workers=read_backs.by_all_workers,
        read_backs=read_backs.reads,
        read_backs_stale=read_backs.stale,
        answers_stale=tally.stale,
        worker_bytes=worker_bytes,
        segment_bytes=_segment_bytes(diagnostics),
        kill=kill,
        diagnostics=diagnostics,
    )


def _percentile_ms(ordered: list[float], share: float) -> float:
    """The value below which *share* of the sorted seconds lie, in milliseconds."""
    return 1000 * ordered[int(share * (len(ordered) - 1))] if ordered else 0.0


def _segment_bytes(diagnostics: dict[str, Any]) -> int:
    """Size of the shared segment, all of it, used or not; 0 without one."""
    segment = diagnostics.get("segment") or {}
    return int(segment.get("size", 0))
