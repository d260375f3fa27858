"""
Counters against the truth, under Gunicorn whose workers are recycled and killed.

What the application does it writes into a ledger, before and after each operation, and what that
has added to the counters follows from what the operation returned (``counted_app``).  In the end
each counter is the sum of that, exactly, but for what was in flight when a worker was killed.
"""

import contextlib
import http.client
import importlib.util
import itertools
import json
import math
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

import pytest
from redis import Redis

import accelerator
from accelerator import local, segment
from accelerator.demo.redis_server import RedisServer
from accelerator.observability import metrics, reading

pytestmark = [
    pytest.mark.skipif(not local.NATIVE, reason="workers share through the native part"),
    pytest.mark.skipif(importlib.util.find_spec("gunicorn") is None, reason="needs gunicorn"),
]

WORKERS, THREADS = 4, 3
CONFIG = f"""
import accelerator
workers = {WORKERS}
worker_class = "gthread"
threads = {THREADS}
max_requests = 60
max_requests_jitter = 30
timeout = 60
graceful_timeout = 30
post_worker_init = accelerator.attach
child_exit = accelerator.on_child_exit
"""

APP = Path(__file__).parent.parent / "support"
SHM = Path("/dev/shm")
SAMPLE = re.compile(r"accelerator_cache_(\w+)\{(.*)\} (\d+)$")
LABEL = re.compile(r'(\w+)="([^"]*)"')


# --- the server ---------------------------------------------------------------------------------


class Server:
    """Gunicorn over ``counted_app``."""

    def __init__(self, folder: Path, name: str, **environment: str) -> None:
        (folder / "gunicorn.conf.py").write_text(CONFIG)
        self.ledger = folder / "ledger"
        self.log = folder / "log"
        self.killed: list[int] = []
        self._socket = folder / "socket"
        self._name = name
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "gunicorn", "--no-control-socket"),
                    *("--bind", f"unix:{self._socket}", "--pythonpath", str(APP)),
                    "counted_app:app",
                ],
                cwd=folder,
                env={
                    **os.environ,
                    "LEDGER": str(self.ledger),
                    "ACCELERATOR_NAME": name,
                    **environment,
                },
                stdout=log,
                stderr=log,
            )

    def ask(self, path: str, argument: str = "") -> bytes | None:
        """Ask any worker; None: it was killed meanwhile, or there is none just now."""
        try:
            with contextlib.closing(socket.socket(socket.AF_UNIX)) as plain:
                plain.settimeout(60)
                plain.connect(str(self._socket))
                connection = http.client.HTTPConnection("localhost")
                connection.sock = plain
                connection.request("GET", f"/{path}?{urllib.parse.quote(argument)}")
                response = connection.getresponse()
                body = response.read()
                return body if response.status == 200 else None
        except (OSError, http.client.HTTPException):
            return None

    def must(self, path: str) -> bytes:
        """Ask until there is an answer."""
        deadline = time.monotonic() + 60
        while (body := self.ask(path)) is None:
            assert time.monotonic() < deadline, self.log.read_text()[-4000:]
            assert self._process.poll() is None, self.log.read_text()[-4000:]
            time.sleep(0.02)
        return body

    def workers(self) -> list[int]:
        """Pids of the workers that run now."""
        pid = self._process.pid
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def kill_one(self, rng: random.Random) -> None:
        """SIGKILL for some worker, whatever it does."""
        pids = self.workers()
        if pids:
            victim = rng.choice(pids)
            self.killed.append(victim)
            with contextlib.suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)

    def file(self) -> segment.SegmentFile:
        """The segment's."""
        return segment.own_file(self._name)

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        try:
            self._process.wait(40)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Start a server, with a segment of its own."""
    name = f"test-counters-{os.getpid()}"
    servers: list[Server] = []

    def start(**environment: str) -> Server:
        servers.append(Server(tmp_path, name, **environment))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()
    for path in SHM.glob(f"accelerator.*.{name}.*"):
        path.unlink()


class Watcher:
    """Reads all counters again and again; none may ever be less than it was."""

    def __init__(self, server: Server) -> None:
        self._reader = reading.Reader(segment.inspect(server.file()))
        self._last: dict[str, dict[str, int]] = {}
        self.looks = 0

    def look(self) -> None:
        """Read once."""
        for name, area in self._reader.read(processes=False).areas.items():
            now = numbers_of(area)
            before = self._last.get(name, {})
            less = {each: (before[each], now[each]) for each in before if now[each] < before[each]}
            assert not less, f"{name} went back: {less}"
            self._last[name] = now
        self.looks += 1

    @property
    def counted(self) -> dict[str, dict[str, int]]:
        """All of it, as last read."""
        return self._last


def numbers_of(area: reading.Area) -> dict[str, int]:
    """Give the counters of an area, and how much its histograms have counted."""
    totals = area.totals
    counters = dict(totals.counters)
    counters["load_total"] = counters.pop("load")
    counters["load_latency"] = sum(totals.loads[:-1])
    counters["l2_latency"] = sum(totals.l2[:-1])
    return counters


# --- the run ------------------------------------------------------------------------------------


class Storm:
    """
    Asks for operations from many clients at once, and kills workers meanwhile.

    Args:
        server: Of the workers.
        seed: Of what is chosen at random.
    """

    def __init__(self, server: Server, seed: int) -> None:
        self._server = server
        self._seed = seed
        self._stop = threading.Event()
        self._failures: list[BaseException] = []
        server.must("show")
        self.watcher = Watcher(server)

    def run(self, seconds: float, pause: float) -> Watcher:
        """Let it rage, with *pause* seconds from one kill to the next on average."""
        works = [self._work] * 5 + [self._pairs, self._look]
        threads = [threading.Thread(target=work, args=[n]) for n, work in enumerate(works)]
        for thread in threads:
            thread.start()
        rng = random.Random(self._seed)
        end_at = time.monotonic() + seconds
        while time.monotonic() < end_at:
            time.sleep(rng.uniform(0.3, 1.7) * pause)
            self._server.kill_one(rng)
        self._stop.set()
        for thread in threads:
            thread.join()
        if self._failures:
            raise self._failures[0]
        self._server.must("show")
        self.watcher.look()
        return self.watcher

    def _work(self, number: int) -> None:
        for n in itertools.count():
            if self._stop.is_set():
                return
            if self._server.ask("run", f"{self._seed}-{number}-{n}") is None:
                self._stop.wait(0.01)

    def _pairs(self, _: int) -> None:
        for n in itertools.count():
            if self._stop.is_set():
                return
            name = f"pair {self._seed} {n}"
            two = [threading.Thread(target=self._server.ask, args=["pair", name]) for _ in "ab"]
            for thread in two:
                thread.start()
            for thread in two:
                thread.join()

    def _look(self, _: int) -> None:
        try:
            while not self._stop.wait(0.05):
                self.watcher.look()
        except BaseException as error:  # the test's to see
            self._failures.append(error)


# --- the ledger ---------------------------------------------------------------------------------


class Truth:
    """What the ledger says: by area, and within that by counter."""

    def __init__(self, ledger: Path) -> None:
        lines = [json.loads(line) for line in ledger.read_text().splitlines()]
        self.begun = {line["begun"]: line for line in lines if "begun" in line}
        self.done = {line["done"]: line for line in lines if "done" in line}
        self.failures = [line["failure"] for line in lines if line.get("failure")]
        self.lost = [line for number, line in self.begun.items() if number not in self.done]
        self.least: dict[str, Counter[str]] = {}
        self.most: dict[str, Counter[str]] = {}
        self.refusable = self._refusable()
        for number, line in self.begun.items():
            end = self.done.get(number)
            least, most = self._in_flight(line) if end is None else self._bounds(line, end)
            self.least.setdefault(line["area"], Counter()).update(least)
            self.most.setdefault(line["area"], Counter()).update(most)
        self.joined = 0
        self._judge_pairs()

    def _refusable(self) -> Counter[str]:
        """
        Count, by area, the fills of loads that a clear() can have overtaken.

        A clear that comes between the beginning of a load and its end has its store refused.  Who
        came first nobody outside can tell, but that they met in time both sides have written down.

        A key's neighbours in its generation word do not come into it: one that is deleted does not
        disturb a load, and that two did, both in one word of the 262,144, within the milliseconds
        of a load, is not to be expected in years of such runs (``native/core/generation.h``).
        """
        clears: dict[str, list[tuple[float, float]]] = {}
        for number, line in self.begun.items():
            if line["what"] == "clear":
                clears.setdefault(line["area"], []).append((line["at"], self._end(number)))
        found: Counter[str] = Counter()
        for number, line in self.begun.items():
            begin, end = line["at"], self._end(number)
            if any(begin <= last and first <= end for first, last in clears.get(line["area"], [])):
                found[line["area"]] += fills_of(line["most"])
        return found

    def _end(self, number: str) -> float:
        end = self.done.get(number)
        return math.inf if end is None else end["at"]

    @staticmethod
    def _in_flight(line: dict[str, Any]) -> tuple[dict[str, int], dict[str, int]]:
        most = Counter(line["most"])
        most["refused_only"] = fills_of(most)  # killed before it could count load_lease_lost
        if most["invalidation_publish"]:
            most["invalidation_publish"] += 1  # what it had noted is told by the listener
        return {}, most

    @staticmethod
    def _bounds(line: dict[str, Any], end: dict[str, Any]) -> tuple[dict[str, int], dict[str, int]]:
        did = Counter(end["did"])
        if end["took"] < 0.9 or "load_success" not in did or "pair" in end:
            return did, did
        # A loader that is quick was as long as one that is late: the machine was busy.
        either = Counter({name: did[name] for name in did.keys() - {"load_success"}})
        return either, did + Counter({"load_timeout": did["load_success"]})

    def _judge_pairs(self) -> None:
        """Add what a pair can have counted besides, where one of the two was lost or too late."""
        pairs: dict[str, list[dict[str, Any]]] = {}
        for end in self.done.values():
            if "pair" in end:
                pairs.setdefault(end["pair"], []).append(end)
        for ends in pairs.values():
            roles = sorted(end["role"] for end in ends)
            together = all(end.get("joined", True) for end in ends)
            if roles == ["followed", "led"] and together:
                self.joined += 1
                continue
            # The other one was killed, or came when it was too late to join.
            extra = Counter(local_hit=1, object_hit=1, load_joined=1, load_taken_over=1)
            for end in ends:
                self.most["pairs"].update(extra if end["role"] == "led" else {"local_hit": 1})
                if end["role"] == "followed":
                    self.least["pairs"].subtract(end["did"])

    def bounds(self, area: str, name: str) -> tuple[int, int]:
        """Give what a counter of an area can be at least, and at most."""
        least, most = self.least[area], self.most[area]
        if name == "stored_or_refused":
            names = ("set", "store_rejected_race")
            return sum(least[each] for each in names), sum(most[each] for each in names)
        refusable = self.refusable[area]
        return (
            least[name] - (refusable if name == "set" else 0),
            most[name] + (refusable if name in REFUSED else 0),
        )

    def check(self, server: Server) -> None:
        """Check that it is a ledger of what was to be tried."""
        assert not self.failures, self.failures[0]
        assert {line["pid"] for line in self.lost} <= set(server.killed)
        # One operation a thread, and one within its loader.
        assert len(self.lost) <= 2 * THREADS * len(server.killed)
        assert self.joined > 0


def fills_of(counts: Mapping[str, int]) -> int:
    """How many values an operation stores that it has loaded."""
    return counts.get("set", 0) if counts.get("load_total") else 0


def derived(numbers: Mapping[str, int]) -> dict[str, int]:
    """
    Add what is known exactly where its parts are not.

    What a load has brought is stored or refused, so the sum of both is what the ledger says; and
    each refused one is a load that has lost its lease.
    """
    set_, refused, lost = numbers["set"], *(numbers[name] for name in REFUSED)
    return {**numbers, "stored_or_refused": set_ + refused, "refused_only": refused - lost}


REFUSED = ("store_rejected_race", "load_lease_lost")

# What happens on a machine that is too busy: a lock was not had in time.  It changes what an
# operation does, and is itself counted.
BUSY = ("lock_giveup", "load_crowded")
PER_BUSY = 3  # what was not stored is read three times at most, by that operation or the next
CALLS = {"remote_hit", "remote_miss", "l2_latency"}
NOT_ASKED = {"bytes", "entries", "dead_owner_takeover", *BUSY}


def compare(
    truth: Truth,
    counted: dict[str, dict[str, int]],
    *,
    besides: Collection[str] = (),
    slack: Mapping[str, int] = MappingProxyType({}),
) -> None:
    """
    Compare each counter of each area with the ledger.

    Args:
        truth: The ledger.
        counted: By area and name.
        besides: Counters that it does not know.
        slack: By area: how far CALLS may be off, as some were not made.
    """
    wrong = []
    for area in truth.most:
        busy = PER_BUSY * sum(counted[area][name] for name in BUSY)
        for name, number in derived(counted[area]).items():
            least, most = truth.bounds(area, name)
            if name in NOT_ASKED or name in besides:
                continue
            more = busy + (slack.get(area, 0) if name in CALLS else 0)
            if not least - more <= number <= most + more:
                wrong.append(f"{area} {name}: {least} to {most} in truth, {number} counted")
    assert not wrong, "\n".join(wrong)


def shown(server: Server) -> dict[str, dict[str, dict[str, int]]]:
    """What each way of asking shows, by its name, area and counter."""
    _, answer = json.loads(server.must("show"))
    command = [sys.executable, "-m", "accelerator", "stats", "--name", server.file().name]
    as_json = json.loads(subprocess.check_output([*command, "--json"]))
    return {
        "metrics_snapshot": {name: each["metrics"] for name, each in answer["areas"].items()},
        "diagnostic_snapshot": {name: each["diagnostic"] for name, each in answer["areas"].items()},
        "stats --json": as_json["areas"],
        "diagnostics": answer["diagnostics"]["areas"],
        "otel_metric_points": {
            name: of_points(each["points"]) for name, each in answer["areas"].items()
        },
        "/metrics": of_text(server.must("metrics").decode()),
    }


SOURCES = {
    (metric.name, frozenset(metrics.split(metric, value).items())): source
    for metric in metrics.METRICS
    for value, source in metric.sources.items()
    if metric.kind == "counter"
}
"""What counters are called in METRICS, by name and the labels besides ``area``."""


def labelled(name: str, labels: dict[str, str], number: int) -> dict[str, int]:
    """Give a sample as metrics_snapshot() calls it; nothing if it is no counter of areas."""
    more = frozenset(pair for pair in labels.items() if pair[0] != "area")
    source = SOURCES.get((name, more))
    return {} if source is None or "area" not in labels else {source: number}


def of_points(points: list[dict[str, Any]]) -> dict[str, int]:
    """Counters of data points."""
    found = {}
    for point in points:
        found.update(labelled(point["name"], point["attributes"], point["value"]))
    return found


def of_text(text: str) -> dict[str, dict[str, int]]:
    """Counters of a text for Prometheus, by area."""
    found: dict[str, dict[str, int]] = {}
    for name, written, number in filter(None, map(parsed, text.splitlines())):
        labels = dict(LABEL.findall(written))
        found.setdefault(labels.get("area", ""), {}).update(labelled(name, labels, int(number)))
    return found


def parsed(line: str) -> tuple[str, str, str] | None:
    """Name, labels and value of a line that is an integer sample with labels."""
    found = SAMPLE.match(line)
    return found and (f"accelerator_cache_{found[1]}", found[2], found[3])


class TestCounters:
    @pytest.mark.slow
    @pytest.mark.watchdog(240)  # 12 s of operations, behind whatever else the machine does
    def test_killed_and_recycled(self, serve: Callable[..., Server]) -> None:
        """Four workers, recycled and killed: every counter is what the ledger says."""
        check_run(serve(), seconds=12, seed=1, pause=1.0)

    @pytest.mark.nightly
    @pytest.mark.watchdog(1200)  # four minutes of operations
    def test_killed_and_recycled_for_long(self, serve: Callable[..., Server]) -> None:
        """The same for long, with many more kills."""
        check_run(serve(), seconds=240, seed=random.randrange(10**6), pause=0.5)

    @pytest.mark.slow
    @pytest.mark.watchdog(240)
    def test_with_redis(self, serve: Callable[..., Server]) -> None:
        """The same with Redis: reads, writes and loads of both tiers, and messages."""
        with RedisServer() as redis:
            check_redis_run(serve, redis, seconds=12, seed=1, pause=2.0)

    @pytest.mark.nightly
    @pytest.mark.watchdog(1200)
    def test_with_redis_for_long(self, serve: Callable[..., Server]) -> None:
        """The same for long."""
        with RedisServer() as redis:
            check_redis_run(serve, redis, seconds=180, seed=random.randrange(10**6), pause=1.0)


def check_redis_run(
    serve: Callable[..., Server], redis: RedisServer, *, seconds: float, seed: int, pause: float
) -> None:
    """Run it with Redis, and compare."""
    print("seed", seed)
    server = serve(
        ACCELERATOR_REDIS=redis.url,
        ACCELERATOR_REDIS_TIMEOUT="5",
        ACCELERATOR_FRESHNESS_BOUND="20",  # as long as it takes a busy machine to elect another one
    )
    deadline = time.monotonic() + 60
    while not all(json.loads(server.must("show"))[1]["heard"]):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    with Told(redis) as told:
        watcher = Storm(server, seed).run(seconds, pause)
        settled(watcher, told.counted)
    messages = told.counted
    truth = Truth(server.ledger)
    truth.check(server)
    counted = watcher.counted
    # A load may be overtaken by what a new listener does, and what a killed worker has noted and
    # not sent is not read from Redis, eight keys at a time at most.
    slack = {
        name: numbers["load_lease_lost"] + 8 * numbers["l2_skipped"]
        for name, numbers in counted.items()
    }
    # What was fetched is stored, unless a delete or another fetch overtakes it: the sum is known.
    besides = {*OF_THE_LISTENER, *REFUSED, "set", "refused_only", "l2_skipped"}
    compare(truth, counted, besides=besides, slack=slack)
    for name, numbers in counted.items():
        # A few loads run when a listener begins anew, and that is rare.
        assert numbers["load_lease_lost"] <= max(10, numbers["load_led"] // 20), name
        refused_only = numbers["store_rejected_race"] - numbers["load_lease_lost"]
        if numbers["load_total"]:  # else it is what was fetched
            busy = sum(numbers[each] for each in BUSY)
            assert -busy <= refused_only <= truth.most[name]["refused_only"] + busy, name
    assert sum(messages.values()) > 500
    for name, number in messages.items():
        # A listener that was killed may have done, and counted, a few that the next one did again.
        heard = counted[name]["invalidation_receive"]
        assert heard <= number + 20 * len(server.killed), name
        assert number <= heard or counted[name]["flush"], name
        told = truth.least[name]["invalidation_publish"], truth.most[name]["invalidation_publish"]
        assert told[0] <= number <= told[1], name
    check_shown(server, watcher.counted)


OF_THE_LISTENER = {"invalidation_receive", "replayed", "own_skipped", "gap", "flush", "desync_read"}
"""What it counts, and what reads count because of it."""


class Told:
    """Counts what is published about areas, as another host would hear it."""

    def __init__(self, redis: RedisServer) -> None:
        self._client = Redis.from_url(redis.url)
        self._heard = self._client.pubsub(ignore_subscribe_messages=True)
        self._heard.psubscribe("accelerator:invalidation:*")
        self._heard.get_message(timeout=5)
        self.counted: Counter[str] = Counter()
        """How many messages there were, by area."""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def _listen(self) -> None:
        while not self._stop.is_set():
            while (message := self._heard.get_message(timeout=0.1)) is not None:
                if not message["data"].startswith(b"1 H "):  # no heartbeat
                    self.counted[message["channel"].decode().rpartition(":")[2]] += 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._heard.close()
        self._client.close()


def settled(watcher: Watcher, messages: Counter[str]) -> None:
    """Wait until the host has heard all messages, and until this process has."""
    deadline = time.monotonic() + 60
    before: Counter[str] = Counter()
    while before != messages or any(
        watcher.counted[name]["invalidation_receive"] < number
        and not watcher.counted[name]["flush"]  # then what was missing is not read
        for name, number in before.items()
    ):
        assert time.monotonic() < deadline
        before = messages.copy()
        time.sleep(0.3)  # nothing tells that there is nothing more to come
        watcher.look()


def check_run(server: Server, *, seconds: float, seed: int, pause: float) -> None:
    """Run it, and compare."""
    print("seed", seed)
    watcher = Storm(server, seed).run(seconds, pause)
    truth = Truth(server.ledger)
    truth.check(server)
    counted = watcher.counted
    print("loads that a clear can have overtaken:", dict(truth.refusable))
    compare(truth, counted)
    assert watcher.looks > 10
    assert 0 == sum(area["evictions"] for area in counted.values())
    assert len({line["pid"] for line in truth.begun.values()}) > WORKERS + len(server.killed)
    check_shown(server, counted)


def check_shown(server: Server, counted: dict[str, dict[str, int]]) -> None:
    """Check that whoever asks is shown the same."""
    names = list(metrics.counters_of_area())
    expected = {area: [numbers[name] for name in names] for area, numbers in counted.items()}
    for way, areas in shown(server).items():
        found = {area: [areas[area][name] for name in names] for area in counted}
        assert expected == found, way


class TestBlocks:
    def test_no_room(self, fork: Callable[..., Any], name: str) -> None:
        """What finds no block of counters is not seen, and is counted: it, and nothing else."""
        areas, processes = 40, 4

        def count(meet: Callable[..., Any]) -> None:
            accelerator.attach(name=name, size="4MiB")
            for number in range(areas):
                accelerator.LevelCache(f"area {number}").get("nowhere")
            meet()
            meet()  # it lives until everybody has counted

        children = [fork(count) for _ in range(processes)]
        for child in children:
            child.meet()
        found = reading.Reader(segment.inspect(segment.own_file(name))).read()
        blocks = 4 * 32  # one for each 32 KiB
        missed = sum(area.totals.counters["local_miss"] for area in found.areas.values())
        assert (blocks, areas * processes - blocks) == (missed, found.segment["stats_lost"])

    def test_continued(self, fork: Callable[..., Any], name: str) -> None:
        """Whoever comes next goes on with the blocks of the killed: nothing is lost."""

        def count(meet: Callable[..., Any]) -> None:
            accelerator.attach(name=name, size="4MiB")
            cache: Any = accelerator.LevelCache("area")
            for _ in range(100):
                cache.get("nowhere")
            meet(cache.metrics_snapshot()["local_miss"])

        seen = []
        for _ in range(140):  # more than there are blocks
            child = fork(count)
            seen.append(child.meet())
            child.kill()
        assert list(range(100, 14_100, 100)) == seen
        found = reading.Reader(segment.inspect(segment.own_file(name))).read()
        assert 0 == found.segment["stats_lost"]
