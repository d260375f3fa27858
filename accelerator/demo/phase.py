"""One phase of the demo: the load against one running server, and what came out of it."""

import asyncio
import itertools
import json
import statistics
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerator.demo.client import Visitor, get
from accelerator.demo.database import total_queries
from accelerator.demo.load import Load, Tally
from accelerator.demo.server import Server
from accelerator.demo.terminal import Terminal

_FIRST_ANSWERS = 200
"""So many first answers of a replacement tell whether it started with a warm cache."""

_ENOUGH_ANSWERS = 50
"""The load goes on until a replacement has given this many, if that does not take too long."""

_PATIENCE = 10.0


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
    """For 1,000 pages, those of the writer's read-backs included."""
    loads_per_version: float
    """How often a product was loaded from the database for each state that it was in."""
    cpu_ms_per_page: float
    """Of master and workers; unlike the rate, hardly touched by what else the machine does."""
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
    queries_before, cpu_before = total_queries(counters), server.cpu_seconds()
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
    cpu_seconds = server.cpu_seconds() - cpu_before
    diagnostics = await _diagnostics(server.port)
    return _outcome(
        cache,
        load,
        seconds=seconds,
        queries=queries,
        cpu_seconds=cpu_seconds,
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
    while (
        len(_answers_of_others(load.tally, workers, _ENOUGH_ANSWERS)) < _ENOUGH_ANSWERS
        and time.monotonic() < blow.at + _PATIENCE
    ):
        load.go_on(0.5)
        await asyncio.sleep(0.1)
    return blow


def _answers_of_others(
    tally: Tally, workers: Collection[int], limit: int
) -> list[tuple[float, int, int]]:
    """The first answers of workers not in *workers*: moment, worker, hit."""
    answers = zip(tally.at, tally.worker, tally.hit, strict=True)
    return list(itertools.islice((a for a in answers if a[1] not in workers), limit))


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
    new = _answers_of_others(tally, blow.workers, _FIRST_ANSWERS)
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
        replacement_hit_ratio=statistics.fmean(hit for _, _, hit in new) if new else None,
    )


async def _diagnostics(port: int) -> dict[str, Any]:
    """What the application's diagnostics page says."""
    with Visitor(port, []) as visitor:
        answer = await visitor.ask(get("/diagnostics"))
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
    cpu_seconds: float,
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
        queries_per_1000=1000 * queries / max(1, load.pages),
        loads_per_version=load.loads_per_version,
        cpu_ms_per_page=1000 * cpu_seconds / max(1, load.pages),
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
    """Size of the shared segment, all of it, used or not; 0 if the workers share none."""
    return int(diagnostics["segment"]["size"]) if diagnostics.get("local") == "shared" else 0
