"""
What requests notice when Redis stops answering, when it is gone, and when a worker is busy.

    python benchmarks/bench_outage.py            two minutes
    python benchmarks/bench_outage.py --quick    half a minute

stopped   Redis is stopped (SIGSTOP) under load: how many calls wait for it, for how long each, and
          what a call costs once the host knows.
killed    Redis is killed for a minute, with 200 hot keys on two hosts: loads from the source of
          truth, errors, the age of what readers get, and the p99 of their calls.
busy      One worker computes with the interpreter's lock held: whether its time-outs make the
          host give up a Redis that is well.

Writes JSON (machine, versions, method, results) and an SVG plot beside it.
Ends with status 1 if something is not as promised.
"""

import argparse
import bisect
import mmap
import os
import random
import statistics
import sys
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, Self

import coherence_plots
import harness
from bench_staleness import ALLOWANCE, DISTRIBUTIONS
from coherence_hosts import Caches, Complaint, Host, name_of
from coherence_ledger import OURS, SLOTS, Ledger

from accelerator.demo.redis_server import RedisServer

BOUND: Final = 2.0
HOT: Final = 200
"""Keys that everybody reads."""
CALL_LIMIT: Final = 0.12
"""Seconds that a call to a Redis that does not answer may take."""
FAILURES: Final = 5
"""Calls in a row that fail before the host gives Redis up."""
OPEN_LIMIT: Final = 0.001
"""Seconds that a call may take once it has."""
PACE: Final = 0.005
READS: Final = 4
SHORT_LIFE: Final = 0.25
"""Life on the host in "stopped", so that many reads ask Redis."""
FIRST_PROBE: Final = 0.38
"""Seconds after the fifth failure before which no probe comes: 0.5 less 20 %, and some."""

_OK, _FAILED, _SKIPPED = 0.0, 1.0, 2.0


def main() -> int:
    arguments = _arguments()
    harness.fixed_process(fixed_layout=False)
    document: dict[str, Any] = {
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": harness.machine(),
        "versions": harness.versions(DISTRIBUTIONS),
        "method": {
            "workers_a_host": arguments.workers,
            "down_s": arguments.down,
            "keys": HOT,
            "bound_s": BOUND,
            "reads": f"each worker {READS} every {PACE * 1000:.0f} ms",
            "stopped_life_s": SHORT_LIFE,
        },
    }
    for name in arguments.only:
        print(f"{name}", flush=True)
        document[name] = _EXPERIMENTS[name](arguments)
    document["machine"]["load_average_after"] = os.getloadavg()
    document["failed"] = [
        claim["claim"]
        for name in arguments.only
        for claim in document[name]["claims"]
        if not claim["held"]
    ]
    harness.write_json(arguments.out.with_suffix(".json"), document)
    print("\n".join(coherence_plots.claims(document, arguments.only)))
    if "killed" in document:
        coherence_plots.draw_outage(document, arguments.out.with_suffix(".svg"))
    print(f"written: {arguments.out.with_suffix('.json')}")
    return 1 if document["failed"] else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="15 s without Redis, 3 rounds")
    parser.add_argument("--down", type=float, help="seconds without Redis (60)")
    parser.add_argument("--workers", type=int, default=8, help="on each host (8)")
    parser.add_argument("--rounds", type=int, help="times that Redis is stopped (10)")
    parser.add_argument("--only", nargs="+", choices=list(_EXPERIMENTS), help="only these")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path(__file__).with_name("results") / "outage",
        help="path of the results, without suffix",
    )
    found = parser.parse_args()
    found.down = found.down or (15.0 if found.quick else 60.0)
    found.rounds = found.rounds or (3 if found.quick else 10)
    found.only = found.only or list(_EXPERIMENTS)
    return found


def claim(text: str, value: Any, limit: Any, *, held: bool) -> dict[str, Any]:
    """A line of the results."""
    return {"claim": text, "value": value, "limit": limit, "held": bool(held)}


# --- what workers leave behind --------------------------------------------------------------------


class Log:
    """Records of three numbers, in memory that all processes share; a part for each process."""

    def __init__(self, room: int) -> None:
        self._room = room
        self._size = 1 + 3 * room
        made = mmap.mmap(-1, 8 * SLOTS * self._size)
        self._all: Any = memoryview(made).cast("d")

    def add(self, slot: int, one: float, two: float, three: float) -> None:
        base = slot * self._size
        count = int(self._all[base])
        if count < self._room:
            at = base + 1 + 3 * count
            self._all[at], self._all[at + 1], self._all[at + 2] = one, two, three
            self._all[base] = count + 1

    def records(self) -> list[tuple[float, float, float]]:
        """In the order of the first number."""
        found = []
        for slot in range(SLOTS):
            base = slot * self._size
            for number in range(int(self._all[base])):
                at = base + 1 + 3 * number
                found.append((self._all[at], self._all[at + 1], self._all[at + 2]))
        return sorted(found)


def watch_calls(caches: Caches, log: Log, slot: int) -> None:
    """Have each call that may reach Redis noted: begin, end, what became of it."""
    from accelerator.errors import RemoteError  # noqa: PLC0415

    ask = caches.second.ask

    def noted(*arguments: Any) -> Any:
        began = time.monotonic()
        outcome = _OK
        try:
            return ask(*arguments)
        except RemoteError as error:
            outcome = _SKIPPED if error.reason == "skipped" else _FAILED
            raise
        finally:
            log.add(slot, began, time.monotonic(), outcome)

    caches.second.ask = noted


def reading(
    calls: Log, reads: Log, areas: Mapping[str, Mapping[str, Any]]
) -> Callable[[Ledger, int, int, dict[str, Any]], None]:
    """Make a worker that reads hot keys of the one area."""
    (area,) = areas

    def read(ledger: Ledger, slot: int, host: int, settings: dict[str, Any]) -> None:
        caches = Caches(ledger, slot, settings, areas)
        cache = caches.areas[area]
        cache.peek("nothing")
        watch_calls(caches, calls, slot)
        chance = random.Random(os.getpid())
        complaint = Complaint()
        names = [name_of(key) for key in range(ledger.keys)]
        while not ledger.stopped:
            time.sleep(PACE)
            ledger.leaders[host] = caches.leader()
            for _ in range(READS):
                key = chance.randrange(ledger.keys)
                began = time.monotonic()
                try:
                    version = cache.get(names[key])["version"]
                except Exception:
                    complaint.raised()
                    version = -1
                ended = time.monotonic()
                ledger.record(slot, OURS, key, version, began, ended)
                reads.add(slot, began, ended, float(version < 0))

    return read


def writing(rate: float) -> Callable[[Ledger, int, int, dict[str, Any]], None]:
    """Make a process that commits and deletes."""

    def write(ledger: Ledger, slot: int, _host: int, settings: dict[str, Any]) -> None:
        caches = Caches(ledger, slot, settings, {"hot": {}})
        chance = random.Random(os.getpid())
        while not ledger.stopped:
            time.sleep(chance.expovariate(rate))
            if ledger.writing:
                key = chance.randrange(ledger.keys)
                ledger.called(key, ledger.commit(key))
                caches.areas["hot"].delete(name_of(key))

    return write


class _Rig:
    """A Redis and hosts; a context manager."""

    def __init__(self, ledger: Ledger, hosts: int, roles: Any) -> None:
        self.ledger = ledger
        self._stack = ExitStack()
        self.server = self._stack.enter_context(RedisServer())
        namespace = f"bench-{uuid.uuid4().hex[:12]}"
        self.hosts = [
            Host(number, self.server.url, namespace, ledger, roles, freshness_bound=BOUND)
            for number in range(hosts)
        ]
        for host in self.hosts:
            self._stack.callback(host.close)
            host.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def rest(self, seconds: float) -> None:
        """Let the load go on."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(0.02)
            for host in self.hosts:
                host.check()

    def finish(self) -> None:
        self.ledger.stop()
        for host in self.hosts:
            host.join()


# --- stopped --------------------------------------------------------------------------------------


def _stopped(arguments: argparse.Namespace) -> dict[str, Any]:
    ledger = Ledger(BOUND + ALLOWANCE, HOT)
    calls, reads = Log(400_000), Log(400_000)
    roles = [reading(calls, reads, {"short": {"local_ttl": SHORT_LIFE}})] * arguments.workers
    stops: list[tuple[float, float]] = []
    with _Rig(ledger, 1, roles) as rig:
        rig.rest(3.0)
        for number in range(arguments.rounds):
            began = time.monotonic()
            rig.server.stop()
            rig.rest(2.0)
            rig.server.resume()
            stops.append((began, time.monotonic()))
            rig.rest(4.0)  # the next probe, and what settles after it
            print(f"  {number + 1} of {arguments.rounds}", flush=True)
        rig.finish()
    rounds = [_stop_figures(calls.records(), reads.records(), *stop) for stop in stops]
    return _stopped_result(arguments, rounds, reads.records())


def _stop_figures(calls: Any, reads: Any, began: float, ended: float) -> dict[str, Any]:
    within = [call for call in calls if began <= call[1] and call[0] < ended]
    failed = sorted(call[1] for call in within if call[2] == _FAILED)
    if len(failed) < FAILURES:
        return {"failed": len(failed), "opened": None}
    opened = failed[FAILURES - 1]
    first = [call for call in within if call[2] == _FAILED and call[1] < opened + FIRST_PROBE]
    later = [call for call in first if call[0] > opened]
    skipped = [call[1] - call[0] for call in within if call[2] == _SKIPPED and call[0] > opened]
    # Before the first probe: who joins a load that probes waits for it.
    open_reads = [
        read[1] - read[0] for read in reads if opened < read[0] and read[1] < opened + FIRST_PROBE
    ]
    probes = [call for call in within if call[2] == _FAILED and opened + FIRST_PROBE <= call[1]]
    return {
        "opened": opened - began,
        "failed": len(first),
        "in_flight": len(first) - FAILURES,
        "begun_after_opening": len(later),
        "longest_s": max(call[1] - call[0] for call in first),
        "skipped": len(skipped),
        "skipped_s": {"p50": _quantile(skipped, 0.5), "p99": _quantile(skipped, 0.99)},
        "reads_open_s": {
            "p50": _quantile(open_reads, 0.5),
            "p99": _quantile(open_reads, 0.99),
            "max": max(open_reads, default=0.0),
        },
        "probes": len(probes),
        "probe_s": max((call[1] - call[0] for call in probes), default=0.0),
    }


def _stopped_result(
    arguments: argparse.Namespace, rounds: list[dict[str, Any]], reads: Any
) -> dict[str, Any]:
    opened = [one for one in rounds if one["opened"] is not None]
    errors = sum(read[2] for read in reads)
    # Each of the other workers has a call under way when the fifth fails.
    allowed = FAILURES + arguments.workers - 1
    most = max((one["failed"] for one in opened), default=0)
    after = sum(one["begun_after_opening"] for one in opened)
    longest = max((one["longest_s"] for one in opened), default=0.0)
    p50 = statistics.median(one["reads_open_s"]["p50"] for one in opened) if opened else 1.0
    p99 = statistics.median(one["reads_open_s"]["p99"] for one in opened) if opened else 1.0
    skipped = statistics.median(one["skipped_s"]["p99"] for one in opened) if opened else 1.0
    return {
        "rounds": rounds,
        "claims": [
            claim("reads that failed", int(errors), 0, held=errors == 0),
            claim(
                "times the host gave Redis up",
                len(opened),
                len(rounds),
                held=len(opened) == len(rounds),
            ),
            claim("failing calls, most of a round", most, allowed, held=most <= allowed),
            claim("failing calls begun after the fifth had failed", after, 0, held=after == 0),
            claim("longest failing call, s", longest, CALL_LIMIT, held=longest <= CALL_LIMIT),
            claim("a skipped call, p99, s", skipped, OPEN_LIMIT, held=skipped <= OPEN_LIMIT),
            claim("a read once open, median, s", p50, OPEN_LIMIT, held=p50 <= OPEN_LIMIT),
            claim("a read once open, p99, s", p99, OPEN_LIMIT, held=p99 <= OPEN_LIMIT),
        ],
    }


def _quantile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0


# --- killed ---------------------------------------------------------------------------------------


def _killed(arguments: argparse.Namespace) -> dict[str, Any]:
    ledger = Ledger(BOUND + ALLOWANCE, HOT)
    calls, reads = Log(400_000), Log(400_000)
    roles = [*[reading(calls, reads, {"hot": {}})] * arguments.workers, writing(2.0)]
    with _Rig(ledger, 2, roles) as rig:
        rig.rest(2.0)
        ledger.writing = True
        rig.rest(5.0)
        before = _loads(ledger, len(roles))
        down = time.monotonic()
        rig.server.kill()
        rig.rest(arguments.down)
        after = _loads(ledger, len(roles))
        rig.server.start()
        up = time.monotonic()
        rig.rest(8.0)
        rig.finish()
    loads = [there - here for here, there in zip(before, after, strict=True)]
    return _killed_result(arguments, ledger, reads.records(), loads, down, up)


def _loads(ledger: Ledger, workers: int) -> list[int]:
    """From the source of truth, by host."""
    return [
        sum(int(ledger.loads[slot]) for slot in range(host * workers, (host + 1) * workers))
        for host in range(2)
    ]


def _killed_result(
    arguments: argparse.Namespace,
    ledger: Ledger,
    reads: Any,
    loads: list[int],
    down: float,
    up: float,
) -> dict[str, Any]:
    limit = HOT * arguments.down / BOUND * 1.2
    errors = int(sum(read[2] for read in reads))
    seconds: dict[int, list[float]] = defaultdict(list)
    for began, ended, _ in reads:
        seconds[int(began - ledger.began)].append(ended - began)
    within = [end - begin for begin, end, _ in _between(reads, down + 1.0, up)]
    oldest = max(point.stale for slot in range(SLOTS) for _, point in ledger.points(OURS, slot))
    late = ledger.late_count()
    return {
        "down_at": down - ledger.began,
        "up_at": up - ledger.began,
        "seconds": sorted(seconds),
        "p99_s": [_quantile(seconds[second], 0.99) for second in sorted(seconds)],
        "max_s": [max(seconds[second]) for second in sorted(seconds)],
        "reads": len(reads),
        "loads": loads,
        "claims": [
            claim("loads of a host, most", max(loads), limit, held=max(loads) <= limit),
            claim("reads that failed", errors, 0, held=errors == 0),
            claim(f"reads older than {BOUND + ALLOWANCE:g} s", late, 0, held=late == 0),
            claim("oldest read, s", oldest, BOUND + ALLOWANCE, held=oldest <= BOUND + ALLOWANCE),
            claim("p99 of the reads without Redis, s", _quantile(within, 0.99), None, held=True),
        ],
    }


def _between(records: Any, begin: float, end: float) -> Any:
    return records[bisect.bisect_left(records, (begin,)) : bisect.bisect_left(records, (end,))]


# --- busy -----------------------------------------------------------------------------------------


def _busy(arguments: argparse.Namespace) -> dict[str, Any]:
    ledger = Ledger(BOUND + ALLOWANCE, HOT)
    calls, reads, states = Log(400_000), Log(400_000), Log(100_000)
    seconds = 10.0 if arguments.quick else 30.0
    read = reading(calls, reads, {"remote": {"mode": "remote"}})

    def busy(ledger: Ledger, slot: int, host: int, settings: dict[str, Any]) -> None:
        threading.Thread(target=_hog, args=(ledger, states, slot), daemon=True).start()
        read(ledger, slot, host, settings)

    def watch(ledger: Ledger, slot: int, _: int, settings: dict[str, Any]) -> None:
        caches = Caches(ledger, slot, settings, {"remote": {"mode": "remote"}})
        caches.areas["remote"].peek("nothing")
        while not ledger.stopped:
            time.sleep(0.005)
            link = caches.memory.link()
            states.add(slot, time.monotonic(), float(link["failures"]), 0.0)
            if link["breaker"] != "closed":
                states.add(slot, time.monotonic(), -1.0, 0.0)

    roles = [busy, *[read] * (arguments.workers - 2), watch]
    with _Rig(ledger, 1, roles) as rig:
        rig.rest(2.0)
        ledger.writing = True  # here: the work with the lock held begins
        rig.rest(seconds)
        rig.finish()
    noted = states.records()
    hogs = [one for one in noted if one[2] > 0]
    opened = sum(one[1] < 0 for one in noted)
    failures = sum(call[2] == _FAILED for call in calls.records())
    skipped = sum(call[2] == _SKIPPED and call[0] > noted[0][0] + 2 for call in calls.records())
    errors = int(sum(read[2] for read in reads.records()))
    longest = max((one[2] for one in hogs), default=0.0)
    return {
        "hogs": len(hogs),
        "calls": len(calls.records()),
        "claims": [
            claim("times the lock was held, longest, s", longest, None, held=longest > 0.2),
            claim("looks at which the breaker was not closed", opened, 0, held=opened == 0),
            claim("calls of Redis that failed", failures, None, held=True),
            claim("calls of Redis that were skipped", skipped, 0, held=skipped == 0),
            claim("reads that failed", errors, 0, held=errors == 0),
        ],
    }


def _hog(ledger: Ledger, states: Log, slot: int) -> None:
    """Compute a power of an integer, in one C function that never lets go of the lock."""
    exponent = 1 << 18
    while not ledger.stopped:
        time.sleep(0.05)
        if not ledger.writing:
            continue
        began = time.monotonic()
        _ = 3**exponent
        took = time.monotonic() - began
        states.add(slot, began, 0.0, took)
        if took < 0.4:
            exponent *= 2


_EXPERIMENTS: Final = {"stopped": _stopped, "killed": _killed, "busy": _busy}


if __name__ == "__main__":
    sys.exit(main())
