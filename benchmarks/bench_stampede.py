"""
What the source of truth sees, and what readers wait, when a hot key expires under load.

    python benchmarks/bench_stampede.py            Gunicorn with 1, 2, 4 and 8 workers (six minutes)
    python benchmarks/bench_stampede.py --quick    with 1 and 4, fewer expiries (a minute)

Real Gunicorn workers with 8 threads each, a steady read on every thread, and a source of truth
that takes 50 ms and counts how often it is asked.  A contestant's key is stored a second before it
expires; the reads of it begin 130 ms before that and go on for 205 ms after it.  Contestants take
turns, so that each expiry of one lies between expiries of the others.

Writes JSON (machine, versions, method, every expiry) and an SVG plot beside it.
"""

import argparse
import importlib.util
import itertools
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from shutil import rmtree
from typing import Any, Self

import harness
import stampede_load
import stampede_plots
from peers import Missing, RedisServer, module
from stampede_load import CONNECTIONS, PACE, Read, Server
from stampede_peers import ALL, DISTRIBUTIONS, EARLY, TTL, Constant, Contestant, NoCache
from stampede_source import DELAY, OLD, lines_to

BEFORE = 0.13
"""Seconds of reads before the key expires; more than EARLY and one PACE."""
GAP = 0.08
"""Seconds between two windows, in which the next contestant but one is filled."""
SPOILT = 0.02
"""A window that begins so many seconds late does not count, and is repeated."""
MOST_REPEATS = 3
AGAIN = TTL - 2 * EARLY
"""Seconds after which the new value may be loaded anew, while very slow readers still wait."""
SURE = 0.005
"""A read that began so many seconds after the event did begin after it, whoever's clock says so."""

EXPIRY, DELETE, BUSY = "expiry", "delete", "busy source"


@dataclass(frozen=True)
class Scenario:
    """What happens to the key, on how many workers, how often."""

    name: str
    workers: int
    expiries: int

    @property
    def capacity(self) -> int:
        """Loads that the source runs at a time; 0: all that come."""
        return 8 if self.name == BUSY else 0

    @property
    def ahead(self) -> int:
        """Windows that begin between a fill and the expiry after it."""
        return {EXPIRY: 2, BUSY: 1, DELETE: 0}[self.name]

    @property
    def pace(self) -> float:
        """Seconds from one window to the next: a fill falls into the gap before a window."""
        if self.name == DELETE:
            return Scenario(EXPIRY, 1, 1).pace
        return (TTL - BEFORE - GAP / 2) / self.ahead

    def suits(self, kind: type[Contestant]) -> bool:
        # Reads that never meet a cache need more than such a source can do: they never end.
        return not (self.capacity and kind is NoCache)

    def times(self, kind: type[Contestant]) -> int:
        """Windows of a contestant; where nothing expires, all are alike."""
        return min(3, self.expiries) if kind in (Constant, NoCache) else self.expiries


FULL = (
    *(Scenario(EXPIRY, workers, 10) for workers in (1, 2, 4, 8)),
    Scenario(DELETE, 8, 6),
    Scenario(BUSY, 8, 5),
)
QUICK = (
    *(Scenario(EXPIRY, workers, 3) for workers in (1, 4)),
    Scenario(DELETE, 4, 3),
    Scenario(BUSY, 4, 2),
)


def main() -> int:
    arguments = _arguments()
    harness.fixed_process()
    started = time.time()
    document: dict[str, Any] = {
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
        "machine": harness.machine(),
        "versions": harness.versions(DISTRIBUTIONS),
        "native": bool(module("accelerator.local").NATIVE),
        "method": _method(),
    }
    with _Places(arguments.contestants) as places:
        document["missing"] = places.missing
        document["rows"] = [
            row for scenario in _scenarios(arguments) for row in _measured(scenario, places)
        ]
    document["seconds"] = round(time.time() - started, 1)
    document["machine"]["load_average_after"] = os.getloadavg()
    harness.write_json(arguments.out.with_suffix(".json"), document)
    print("\n".join(stampede_plots.tables(document)))
    stampede_plots.draw(document, arguments.out.with_suffix(".svg"))
    print(f"written: {arguments.out.with_suffix('.json')} and .svg")
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer workers, fewer expiries")
    parser.add_argument("--workers", type=int, nargs="+", help="only these of the numbers")
    parser.add_argument(
        "--only", nargs="+", choices=(EXPIRY, DELETE, BUSY), help="only these of the events"
    )
    parser.add_argument(
        "--contestants",
        nargs="+",
        choices=[kind.name for kind in ALL],
        default=[kind.name for kind in ALL],
        help="only these",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path(__file__).with_name("results") / "stampede",
        help="path of the results, without suffix",
    )
    return parser.parse_args()


def _scenarios(arguments: argparse.Namespace) -> list[Scenario]:
    return [
        scenario
        for scenario in (QUICK if arguments.quick else FULL)
        if scenario.workers in (arguments.workers or (scenario.workers,))
        and scenario.name in (arguments.only or (scenario.name,))
    ]


def _method() -> dict[str, Any]:
    return {
        "load": f"{CONNECTIONS} threads and {CONNECTIONS} connections a worker, each reading every "
        f"{PACE * 1000:.0f} ms",
        "source_ms": DELAY * 1000,
        "ttl_s": TTL,
        "early_s": EARLY,
        "window_ms": [-BEFORE * 1000, (Scenario(EXPIRY, 1, 1).pace - GAP - BEFORE) * 1000],
        "figures": "per expiry; loads: all from the first read to 0.8 s after the event, so that "
        "the new value's own expiry does not count; ms: from when a read was due to its answer; "
        "best and median of the expiries, and pooled: over all reads of them",
        "dbm": _dbm(),
    }


def _dbm() -> str:
    """What dogpile.cache's files are on this Python."""
    names = ("_gdbm", "_dbm")
    return next((name for name in names if importlib.util.find_spec(name)), "dbm.dumb")


# --- what all workers share ----------------------------------------------------------------------


class _Places:
    """Source, Redis, folder; a context manager that stops them."""

    def __init__(self, names: Sequence[str]) -> None:
        self.kinds: list[type[Contestant]] = []
        self._names = names
        self.missing: dict[str, str] = {}
        self.setup: dict[str, Any] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            folder = Path(tempfile.mkdtemp(prefix="accbench-", dir="/dev/shm"))
            stack.callback(rmtree, folder, ignore_errors=True)
            stack.callback(_unlink_segment)
            self.source = stack.enter_context(_source(folder / "source.sock"))
            places = {"folder": str(folder)}
            redis = self._redis(stack)
            if isinstance(redis, str):
                places["redis"] = redis
            for kind in [kind for kind in ALL if kind.name in self._names]:
                self._enter(kind, redis)
            self.setup = {
                "names": [kind.name for kind in self.kinds],
                "source": str(folder / "source.sock"),
                "places": places,
            }
            self._stack = stack.pop_all()
        return self

    @staticmethod
    def _redis(stack: ExitStack) -> "str | Missing":
        url = os.environ.get("ACCELERATOR_REDIS_URL")
        if url:
            return str(url)
        try:
            server = RedisServer()
        except (Missing, OSError) as reason:
            return Missing(str(reason))
        stack.callback(server.stop)
        return server.url

    def _enter(self, kind: type[Contestant], redis: "str | Missing") -> None:
        try:
            kind.check()
            if kind.redis and isinstance(redis, Missing):
                raise redis
        except Missing as reason:
            self.missing[kind.name] = str(reason)
            print(f"missing peer: {kind.name}: {reason}", flush=True)
        else:
            self.kinds.append(kind)

    def __exit__(self, *_: object) -> None:
        self._stack.close()


class _Asked:
    """The source of truth, as the benchmark asks it how often it was asked."""

    def __init__(self, lines: Any) -> None:
        self._lines = lines

    def say(self, *words: object) -> list[int]:
        self._lines.write(f"{' '.join(map(str, words))}\n".encode())
        self._lines.flush()
        return [int(word) for word in self._lines.readline().split()]


@contextmanager
def _source(path: Path) -> Iterator[_Asked]:
    program = Path(__file__).with_name("stampede_source.py")
    process = subprocess.Popen([sys.executable, str(program), str(path)])
    try:
        deadline = time.monotonic() + 10
        while not path.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("the source of truth did not start")
            time.sleep(0.02)
        with lines_to(str(path)) as lines:
            yield _Asked(lines)
    finally:
        stampede_load.stop(process)


def _unlink_segment() -> None:
    with suppress(Missing):
        segment = module("accelerator.segment")
        segment.unlink(stampede_load.SEGMENT, os.getuid(), force=True)


# --- expiries ------------------------------------------------------------------------------------


@dataclass
class _Window:
    """One expiry of one contestant."""

    place: int
    kind: type[Contestant]
    seed: int
    filled: float = 0.0
    """When the fill had been answered."""


@dataclass
class Series:
    """All expiries of one contestant in one scenario."""

    loads: list[int] = field(default_factory=list)
    at_once: list[int] = field(default_factory=list)
    old: list[int] = field(default_factory=list)
    reads: list[list[float]] = field(default_factory=list)
    errors: int = 0

    def add(self, reads: Sequence[Read], counted: Sequence[int], expired: float) -> None:
        self.loads.append(counted[0])
        self.at_once.append(counted[1])
        self.errors += sum(read.number < 0 for read in reads)
        self.old.append(sum(read.number == OLD and read.begun > expired + SURE for read in reads))
        self.reads.append(sorted(read.seconds * 1000 for read in reads))

    def as_json(self) -> dict[str, Any]:
        pooled = sorted(itertools.chain.from_iterable(self.reads))
        each = {
            "p50": [_quantile(one, 0.5) for one in self.reads],
            "p99": [_quantile(one, 0.99) for one in self.reads],
            "max": [one[-1] for one in self.reads],
        }
        return {
            "loads": {
                "best": min(self.loads),
                "median": statistics.median(self.loads),
                "mean": statistics.fmean(self.loads),
                "worst": max(self.loads),
                "each": self.loads,
            },
            "loads_at_once_worst": max(self.at_once),
            "old_answers_median": statistics.median(self.old),
            "errors": self.errors,
            "reads": len(pooled),
            **{
                f"{name}_ms": {"best": min(values), "median": statistics.median(values)}
                for name, values in each.items()
            },
            "pooled_ms": {
                "p50": _quantile(pooled, 0.5),
                "p99": _quantile(pooled, 0.99),
                "max": pooled[-1],
            },
        }


def _quantile(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def _measured(scenario: Scenario, places: _Places) -> list[dict[str, Any]]:
    """One row for each contestant."""
    print(f"{scenario.name}, {scenario.workers} worker(s)", flush=True)
    series = {kind.name: Series() for kind in places.kinds if scenario.suits(kind)}
    places.source.say("capacity", scenario.capacity)
    with stampede_load.server(scenario.workers, places.setup) as server:
        runner = _Runner(scenario, server, places.source, series)
        for place, kind in enumerate(places.kinds):
            server.command("fill", place, kind)  # and whatever the first call does besides
        windows = list(_turns(scenario, places.kinds))
        for _ in range(1 + MOST_REPEATS):
            windows = runner.run(windows)
    if windows:
        print(f"  {len(windows)} window(s) were late each time: this machine is busy", flush=True)
    common = {"event": scenario.name, "workers": scenario.workers}
    return [
        {**common, "contestant": name, **one.as_json()} for name, one in series.items() if one.loads
    ]


def _turns(scenario: Scenario, kinds: Sequence[type[Contestant]]) -> Iterator[_Window]:
    """Every contestant once a round, each round in another order."""
    for turn in range(scenario.expiries):
        order = list(enumerate(kinds))
        random.Random(turn).shuffle(order)
        for place, kind in order:
            if scenario.suits(kind) and turn < scenario.times(kind):
                yield _Window(place, kind, turn)


class _Runner:
    """
    Fills and windows in the order of their time.

    A key needs a second from its fill to its expiry; the windows of others are measured meanwhile.
    """

    def __init__(
        self, scenario: Scenario, server: Server, source: _Asked, series: Mapping[str, Series]
    ) -> None:
        self._scenario = scenario
        self._server = server
        self._source = source
        self._series = series

    def run(self, windows: Sequence[_Window]) -> list[_Window]:
        """Measure; return those that began too late."""
        spoilt: list[_Window] = []
        pace, ahead = self._scenario.pace, self._scenario.ahead
        begin = time.monotonic() + GAP
        coming = list(windows)
        filled: dict[int, _Window] = {}
        said = begin
        for slot in itertools.count():
            start = begin + slot * pace
            chosen = self._next(coming, filled.values())
            if chosen is not None:
                _sleep_until(start - GAP / 2)
                filled[slot + ahead] = self._filled(chosen)
            if slot in filled and not self._window(filled[slot], start):
                spoilt.append(filled[slot])
            filled.pop(slot, None)
            if not coming and not filled:
                return spoilt
            if time.monotonic() - said > 5:
                said = time.monotonic()
                print(f"  {len(windows) - len(coming)} of {len(windows)} windows", flush=True)
        raise AssertionError("not reached")

    @staticmethod
    def _next(coming: list[_Window], filled: Iterable[_Window]) -> _Window | None:
        """Take the first whose key is not waiting for its expiry already."""
        taken = {window.place for window in filled}
        for number, window in enumerate(coming):
            if window.place not in taken:
                return coming.pop(number)
        return None

    def _filled(self, window: _Window) -> _Window:
        self._server.command("fill", window.place, window.kind)
        window.filled = time.monotonic()
        return window

    def _window(self, window: _Window, start: float) -> bool:
        """Measure one; False if it begins too late."""
        if self._scenario.ahead:
            start = window.filled + TTL - BEFORE
        _sleep_until(start)
        if time.monotonic() > start + SPOILT:
            return False
        self._source.say("forget", window.place)
        event = start + BEFORE
        reads = self._server.window(
            window.place,
            window.kind,
            end=start + self._scenario.pace - GAP,
            forget=None if self._scenario.ahead else event,
            seed=window.seed,
        )
        counted = self._source.say("count", window.place, event + AGAIN)
        self._series[window.kind.name].add(reads, counted, event)
        return True


def _sleep_until(moment: float) -> None:
    time.sleep(max(0.0, moment - time.monotonic()))


if __name__ == "__main__":
    sys.exit(main())
