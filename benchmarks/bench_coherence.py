"""
How fast hosts agree when nothing fails, and how fast a host finds another listener.

    python benchmarks/bench_coherence.py            two hosts, 8 workers each, a minute and a half
    python benchmarks/bench_coherence.py --quick    fewer rounds (20 s)

same host    reads by other workers after a delete has returned: how many get what was deleted.
other host   from the return of the delete until a worker of the other host no longer gets it.
listener     how long a host is without a listener after its worker was killed, stopped, or ended
             as it should; how many connections of a host are subscribed.

Writes JSON (machine, versions, method, results).  Ends with status 1 if something is not as
promised.
"""

import argparse
import mmap
import os
import signal
import statistics
import sys
import time
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import coherence_plots
import harness
from bench_outage import claim
from bench_staleness import DISTRIBUTIONS
from coherence_hosts import Caches, Host, name_of
from coherence_ledger import SLOTS, VERSIONS, Ledger

from accelerator.demo.redis_server import RedisServer

KEY: Final = 0
AREA: Final = "hot"
LOOK: Final = 0.0001
"""Seconds between two reads of the worker that measures."""
PACE: Final = 0.005
"""The same of the others."""
SPACE: Final = 0.015
"""Seconds between two deletes: all have loaded again."""
MEDIAN_LIMIT: Final = 0.002
TAKE_OVER_LIMIT: Final = 0.75
HAND_OVER_LIMIT: Final = 0.2
PATIENCE: Final = 10.0


def main() -> int:
    arguments = _arguments()
    harness.fixed_process(fixed_layout=False)
    document: dict[str, Any] = {
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": harness.machine(),
        "versions": harness.versions(DISTRIBUTIONS),
        "method": {
            "workers_a_host": arguments.workers,
            "tries": arguments.tries,
            "take_overs": arguments.rounds,
            "other_host": "from the call of the delete to the last read there that began and got "
            "the deleted value; a reader begins one every 0.15 ms or so",
            "take_over": "from the signal until another process of the host is its listener",
        },
    }
    document |= _experiment(arguments)
    document["machine"]["load_average_after"] = os.getloadavg()
    harness.write_json(arguments.out.with_suffix(".json"), document)
    print("\n".join(coherence_plots.claims({"coherence": document}, ["coherence"])))
    print(f"written: {arguments.out.with_suffix('.json')}")
    return 0 if all(one["held"] for one in document["claims"]) else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="200 tries, 3 take-overs of a kind")
    parser.add_argument("--workers", type=int, default=8, help="on each host (8)")
    parser.add_argument("--tries", type=int, help="deletes (1000)")
    parser.add_argument("--rounds", type=int, help="take-overs of each kind (20)")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path(__file__).with_name("results") / "coherence",
        help="path of the results, without suffix",
    )
    found = parser.parse_args()
    found.tries = found.tries or (200 if found.quick else 1000)
    found.rounds = found.rounds or (3 if found.quick else 20)
    return found


# --- in the processes -----------------------------------------------------------------------------


class Sights:
    """The last time that each worker got each version, in memory that all share."""

    def __init__(self) -> None:
        self._last: Any = memoryview(mmap.mmap(-1, 8 * SLOTS * VERSIONS)).cast("d")
        self._stale: Any = memoryview(mmap.mmap(-1, 8 * SLOTS)).cast("q")
        self._reads: Any = memoryview(mmap.mmap(-1, 8 * SLOTS)).cast("q")

    def saw(self, ledger: Ledger, slot: int, version: int, began: float) -> None:
        self._last[slot * VERSIONS + version] = began
        self._reads[slot] += 1
        if version < ledger.version(KEY):
            told = ledger.returned_at(KEY, version + 1)
            self._stale[slot] += told != 0 and began > told

    def last(self, slots: range, version: int) -> float:
        """When a worker of these last got it."""
        return max(float(self._last[slot * VERSIONS + version]) for slot in slots)

    def reads(self, slots: range) -> int:
        return sum(int(self._reads[slot]) for slot in slots)

    def stale(self, slots: range) -> int:
        """Reads that began after the delete had returned, and got what it deleted."""
        return sum(int(self._stale[slot]) for slot in slots)


def _leave(*_: object) -> None:
    raise SystemExit


def reading(sights: Sights, pace: float) -> Callable[[Ledger, int, int, dict[str, Any]], None]:
    """Make a worker that reads one key; SIGTERM ends it as Gunicorn ends a worker."""

    def read(ledger: Ledger, slot: int, _host: int, settings: dict[str, Any]) -> None:
        import accelerator  # noqa: PLC0415

        harness.exact_sleep()
        caches = Caches(ledger, slot, settings, {AREA: {}})
        cache, name = caches.areas[AREA], name_of(KEY)
        signal.signal(signal.SIGTERM, _leave)
        try:
            while not ledger.stopped:
                time.sleep(pace)
                began = time.monotonic()
                sights.saw(ledger, slot, cache.get(name)["version"], began)
        finally:
            accelerator.detach()

    return read


def deleting(tries: int) -> Callable[[Ledger, int, int, dict[str, Any]], None]:
    """Make a worker that commits and deletes."""

    def delete(ledger: Ledger, slot: int, host: int, settings: dict[str, Any]) -> None:
        import accelerator  # noqa: PLC0415

        caches = Caches(ledger, slot, settings, {AREA: {}})
        cache, name = caches.areas[AREA], name_of(KEY)
        cache.get(name)
        signal.signal(signal.SIGTERM, _leave)
        try:
            _delete_all(ledger, cache, name, tries if host == 0 else 0)
        finally:
            accelerator.detach()

    return delete


def _delete_all(ledger: Ledger, cache: Any, name: str, tries: int) -> None:
    while not (ledger.writing or ledger.stopped):
        time.sleep(0.01)
    for _ in range(tries):
        version = ledger.commit(KEY)
        ledger.called(KEY, version)
        cache.delete(name)
        ledger.returned(KEY, version, queued=False)
        time.sleep(SPACE)
    while not ledger.stopped:
        time.sleep(PACE)


def watching(ledger: Ledger, _slot: int, host: int, settings: dict[str, Any]) -> None:
    """Note who listens; uses no area, and so never listens itself."""
    import accelerator  # noqa: PLC0415
    from accelerator import runtime  # noqa: PLC0415

    accelerator.attach(**settings)
    memory: Any = runtime.current().memory
    while not ledger.stopped:
        time.sleep(0.001)
        ledger.leaders[host] = float(memory.leader()["pid"])


# --- the experiment -------------------------------------------------------------------------------


def _experiment(arguments: argparse.Namespace) -> dict[str, Any]:
    ledger, sights = Ledger(60.0, 1), Sights()
    roles = [
        reading(sights, LOOK),
        *[reading(sights, PACE)] * (arguments.workers - 2),
        deleting(arguments.tries),
        watching,
    ]
    namespace = f"bench-{uuid.uuid4().hex[:12]}"
    with ExitStack() as stack:
        server = stack.enter_context(RedisServer())
        hosts = [Host(number, server.url, namespace, ledger, roles) for number in range(2)]
        for host in hosts:
            stack.callback(host.close)
            host.start()
        time.sleep(3.0)
        subscribed = _subscribed(server, namespace)
        print("deletes", flush=True)
        ledger.writing = True
        deadline = time.monotonic() + 30 + arguments.tries * 0.1
        while ledger.version(KEY) < arguments.tries:
            if time.monotonic() > deadline:
                raise RuntimeError("the deletes take too long")
            time.sleep(0.1)
        time.sleep(0.5)
        figures = _latencies(ledger, sights, len(roles))
        print("take-overs", flush=True)
        changes = {kind: _changes(hosts[1], kind, arguments.rounds) for kind in _KINDS}
        ledger.stop()
        for host in hosts:
            host.join()
    return _result(figures, changes, subscribed)


def _subscribed(server: RedisServer, namespace: str) -> int:
    import redis  # noqa: PLC0415

    from accelerator.remote.names import Names  # noqa: PLC0415

    with redis.Redis(unix_socket_path=server.socket) as client:
        ((_, count),) = client.pubsub_numsub(Names(namespace, AREA).channel)
    return int(count)


def _latencies(ledger: Ledger, sights: Sights, workers: int) -> dict[str, Any]:
    here, there = range(workers), range(workers, 2 * workers)
    waits, deletes = [], []
    for _, version, _, called, returned, _ in ledger.writes():
        waits.append(max(0.0, sights.last(there, version - 1) - called))
        deletes.append(returned - called)
    return {
        "deletes": len(waits),
        "reads_same_host": sights.reads(here),
        "stale_same_host": sights.stale(here),
        "other_host_s": _spread(waits),
        "delete_s": _spread(deletes),
    }


def _spread(values: list[float]) -> dict[str, float]:
    ordered = sorted(values)
    return {
        "median": statistics.median(ordered),
        "p99": ordered[int(len(ordered) * 0.99)],
        "max": ordered[-1],
    }


_KINDS: Final = {
    "killed": (signal.SIGKILL, TAKE_OVER_LIMIT),
    "stopped": (signal.SIGSTOP, TAKE_OVER_LIMIT),
    "ended": (signal.SIGTERM, HAND_OVER_LIMIT),
}


def _changes(host: Host, kind: str, rounds: int) -> list[float]:
    """Seconds until another worker listens, each time."""
    number, _ = _KINDS[kind]
    found = []
    for _ in range(rounds):
        former = _leader(host, None)
        began = time.monotonic()
        host.signal(former, number)
        _leader(host, former)
        found.append(time.monotonic() - began)
        host.replace(former)
        time.sleep(0.5)
    return found


def _leader(host: Host, former: int | None) -> int:
    end = time.monotonic() + PATIENCE
    while (pid := host.leader) is None or pid == former:
        if time.monotonic() > end:
            raise RuntimeError("nobody listens")
        time.sleep(0.001)
    return pid


def _result(
    figures: dict[str, Any], changes: dict[str, list[float]], subscribed: int
) -> dict[str, Any]:
    other, stale = figures["other_host_s"], figures["stale_same_host"]
    median = other["median"]
    claims = [
        claim("stale reads on the same host after the delete", stale, 0, held=stale == 0),
        claim("reads on the same host", figures["reads_same_host"], None, held=True),
        claim("other host, median, s", median, MEDIAN_LIMIT, held=median <= MEDIAN_LIMIT),
        claim("other host, p99, s", other["p99"], None, held=True),
        claim("a delete, median, s", figures["delete_s"]["median"], None, held=True),
        claim("subscribed connections of two hosts", subscribed, 2, held=subscribed == 2),
    ]
    for kind, seconds in changes.items():
        limit = _KINDS[kind][1]
        longest = max(seconds)
        text = f"another listener after it was {kind}"
        claims.append(claim(f"{text}, median, s", statistics.median(seconds), None, held=True))
        claims.append(claim(f"{text}, longest, s", longest, limit, held=longest <= limit))
    return {**figures, "changes_s": changes, "subscribed": subscribed, "claims": claims}


if __name__ == "__main__":
    sys.exit(main())
