"""
Two hosts under random load, while an operator overrides this and that and Redis stops for moments.

The source of truth is memory that all processes share: a version for each key that only rises.
Each writer has cells of its own, so that nobody needs a lock that a killed one would keep.
"""

import contextlib
import io
import mmap
import os
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from accelerator import cli, local
from accelerator.demo.redis_server import RedisServer

pytestmark = pytest.mark.skipif(not local.NATIVE, reason="processes share through the native part")

hosts: Any = sys.modules["hosts"]  # beside this file, loaded by conftest.py
until = hosts.until

MakeHost = Callable[..., Any]
KEYS = 12
WORKERS = 2
SLOTS = 2 * WORKERS
BOUND = 2.0
SECONDS = 8.0
AREAS = {"area": {"local_ttl": 600, "stale_ttl": 60}}
"""Lives that outlast the test: nothing is right because it has expired."""

OVERRIDES = (
    *(f"mode={mode}" for mode in ("local", "off", "remote", "both", "default", "default")),
    *(f"breaker={state}" for state in ("open", "closed", "default")),
    *(f"on_desync={choice}" for choice in ("cap", "bypass", "serve", "default")),
    *(f"ttl={life}" for life in ("1s", "30s", "default")),
)

# --- what all processes see ---------------------------------------------------------------------


class Truth:
    """Versions, by slot (a worker's place) and key, in memory that forked workers share."""

    def __init__(self) -> None:
        size = SLOTS * KEYS
        cells = memoryview(mmap.mmap(-1, 3 * 8 * size)).cast("Q")
        self._written = cells[:size]
        self._deleted = cells[size : 2 * size]
        self._open = cells[2 * size :]

    def version(self, key: int) -> int:
        """What the source has."""
        return max(self._written[key::KEYS])

    def floor(self, host: int, key: int) -> int:
        """The newest version whose delete has returned on a host."""
        mine = self._deleted[host * WORKERS * KEYS : (host + 1) * WORKERS * KEYS]
        return max(mine[key::KEYS])

    def write(self, slot: int, key: int) -> int:
        """Change the source: all of a time are in order, and those of slots differ."""
        self._open[slot * KEYS + key] = 1
        self._written[slot * KEYS + key] = time.monotonic_ns() * SLOTS + slot
        return self.version(key)

    def told(self, slot: int, key: int, version: int) -> None:
        """Its delete has returned."""
        self._deleted[slot * KEYS + key] = version
        self._open[slot * KEYS + key] = 0

    def untold(self, slot: int) -> list[int]:
        """Keys that a worker has written and, as it was killed, not deleted."""
        return [key for key in range(KEYS) if self._open[slot * KEYS + key]]


_truth = Truth()


# --- in the workers -----------------------------------------------------------------------------


def slow_source(key: int, pause: float) -> int:
    """Answer what was true a moment ago, which is the worst that a loader does."""
    version = _truth.version(key)
    if pause:
        time.sleep(pause)
    return version


def write_and_delete(slot: int, key: int, dropped: bool = False) -> None:
    """Change the source, then say so; or, the fault, claim to have said so."""
    version = _truth.write(slot, key)
    if not dropped:
        hosts.cache().delete(key)
    _truth.told(slot, key, version)


def read(rng: random.Random, slot: int, key: int) -> str | None:
    """Read in one of the ways, and say what is wrong with what was read."""
    cache, way = hosts.cache(), rng.random()
    pause = rng.choice((0.0, 0.0, 0.002))
    floor = _truth.floor(slot // WORKERS, key)
    if way < 0.6:
        found = cache.get_or_load(key, lambda key: slow_source(key, pause))
    elif way < 0.8:
        found = cache.get(key, allow_stale=way < 0.65)
    else:
        found = cache.mget([key]).get(key)
    if found is not None and found < floor:
        behind = (floor - found) / SLOTS / 1e9
        return f"slot {slot} key {key} way {way:.2f}: {behind:.3f} s older than a delete here\n"
    return None


def storm(seed: str, slot: int, ends: float, drops: float, report: str) -> int:
    """Read and write until a time; what is wrong is appended to a file.  How much was done."""
    rng = random.Random(seed)
    done = 0
    with Path(report).open("a", buffering=1) as file:
        while time.monotonic() < ends:
            key = rng.randrange(KEYS)
            try:
                if rng.random() < 0.1:
                    write_and_delete(slot, key, rng.random() < drops)
                elif wrong := read(rng, slot, key):
                    file.write(wrong)
            except Exception as error:
                file.write(f"slot {slot} key {key}: raised {error!r}\n")
            done += 1
            time.sleep(0.0005)  # two cores for all of them
    return done


def differing() -> list[str]:
    """Keys of which this worker is given what the source has no more."""
    found = {key: hosts.cache().get(key) for key in range(KEYS)}
    return [
        f"key {key}: {(_truth.version(key) - version) / SLOTS / 1e9:.3f} s behind the source"
        for key, version in found.items()
        if version not in {None, _truth.version(key)}
    ]


def load_all() -> None:
    """Fill the cache."""
    for key in range(KEYS):
        hosts.cache().get_or_load(key, lambda key: slow_source(key, 0.0))


# --- outside ------------------------------------------------------------------------------------


def command(host: Any, *words: str) -> None:
    """Be the operator, who does not wait for a worker that is busy."""
    with contextlib.redirect_stdout(io.StringIO()):
        cli.main(["set", *words, "--yes", "--timeout", "0.5", "--name", host.name])


def operate(rng: random.Random, pair: Any) -> None:
    """Override something, or take it back."""
    host = rng.choice(pair)
    text = rng.choice(OVERRIDES)
    area = () if text.startswith("breaker") or rng.random() < 0.3 else ("--area", "area")
    limit = () if text.endswith("default") or rng.random() < 0.8 else ("--for", "1s")
    if rng.random() < 0.1:
        command(host, "--reset")
    else:
        command(host, text, *area, *limit)


class Storm:
    """
    Workers that are busy, and what is done to them meanwhile.

    Args:
        pair: The hosts.
        seed: Of everything that is left to chance.
        report: File for what is found to be wrong.
    """

    def __init__(self, pair: Any, server: RedisServer, seed: int, report: Path) -> None:
        self._pair, self._server, self._seed, self._report = pair, server, seed, report
        self._rng = random.Random(seed)
        self._of = {slot: pair[slot // WORKERS].workers[slot % WORKERS] for slot in range(SLOTS)}
        report.touch()

    def begin(self, seconds: float, drops: float = 0.0) -> None:
        """Have all workers begin; *drops*: how many of the first one's deletes are none."""
        self._ends = time.monotonic() + seconds
        for slot in self._of:
            self._have(slot, drops if slot == 0 else 0.0)

    def _have(self, slot: int, drops: float = 0.0) -> None:
        worker = self._of[slot]
        seed = f"{self._seed} {slot} {worker.pid}"
        worker.begin(storm, seed, slot, self._ends, drops, str(self._report))

    def trouble(self) -> None:
        """Do to them what an operator, the network and the kernel do, until they end."""
        now = time.monotonic()
        stops = sorted(self._rng.uniform(now + 1, self._ends - 1) for _ in range(2))
        kill = self._rng.uniform(now + 1, self._ends - 1)
        while time.monotonic() < self._ends:
            operate(self._rng, self._pair)
            if stops and stops[0] < time.monotonic():
                stops.pop(0)
                self._stop_redis()
            if kill and kill < time.monotonic():
                kill = 0.0
                self._replace(self._rng.randrange(SLOTS))
            time.sleep(self._rng.uniform(0.0, 0.1))

    def _stop_redis(self) -> None:
        self._server.stop()
        began = time.monotonic()
        while time.monotonic() < began + 0.3:
            operate(self._rng, self._pair)
            time.sleep(0.02)
        self._server.resume()

    def _replace(self, slot: int) -> None:
        host = self._pair[slot // WORKERS]
        host.workers.remove(self._of[slot])
        self._of[slot].kill()
        self._of[slot] = worker = host.add_worker()
        for key in _truth.untold(slot):  # as who writes would, who does not know
            worker.call(write_and_delete, slot, key)
        self._have(slot)

    def end(self) -> tuple[int, list[str]]:
        """Wait for all; how much they have done, and what was wrong."""
        done = sum(worker.end() for worker in self._of.values())
        return done, self._report.read_text().splitlines()

    def disagreement(self) -> list[str]:
        """What any worker is given that is not what the source has."""
        return [text for worker in self._of.values() for text in worker.call(differing)]


@pytest.fixture
def pair(server: RedisServer, make_host: MakeHost) -> list[Any]:
    """Two hosts in step."""
    settings = {"redis": server.url, "redis_timeout": 0.1, "freshness_bound": BOUND}
    return [make_host(AREAS, workers=WORKERS, **settings) for _ in range(2)]


@pytest.fixture
def witness(server: RedisServer, make_host: MakeHost) -> Any:
    """A third host, which holds nothing itself: it is given what Redis has."""
    return make_host(AREAS, redis=server.url, freshness_bound=BOUND)


SEEDS = [int(seed) for seed in os.environ.get("STORM_SEEDS", "1").split()]
"""One is enough for every day; STORM_SEEDS="1 2 3" for a change in what it is about."""


class TestStorm:
    @pytest.mark.parametrize("seed", SEEDS)
    def test_storm(
        self, server: RedisServer, pair: Any, witness: Any, tmp_path: Path, seed: int
    ) -> None:
        """Nobody reads what was deleted on his host; in the end all agree with the source."""
        run = Storm(pair, server, seed, tmp_path / "wrong")
        run.begin(SECONDS)
        run.trouble()
        done, wrong = run.end()
        for host in pair:
            command(host, "--reset")
        deadline = time.monotonic() + BOUND + 2.0
        assert [] == wrong[:20], f"seed {seed}"
        assert 1000 < done
        with contextlib.suppress(AssertionError):  # told below, with what differs
            until(lambda: not run.disagreement(), deadline - time.monotonic())
        assert [] == run.disagreement(), f"seed {seed}"
        for host in pair:
            until(lambda host=host: host.link()["outbox_depth"] == 0)
        assert [] == witness.wait_in_step().call(differing), f"seed {seed}: Redis"
        for worker in (one for host in pair for one in host.workers):
            worker.call(load_all)
        assert [] == run.disagreement() + witness.call(differing), f"seed {seed}: afterwards"


class TestChecker:
    """What the storm looks for is found when it is there."""

    def test_own_host(self, server: RedisServer, pair: Any, tmp_path: Path) -> None:
        """One of ten deletes of one worker is none."""
        run = Storm(pair, server, 1, tmp_path / "wrong")
        run.begin(2.0, drops=0.1)
        done, wrong = run.end()
        assert any("older than a delete here" in text for text in wrong), done

    def test_agreement(self, server: RedisServer, pair: Any, witness: Any, tmp_path: Path) -> None:
        """A single delete that nobody is told of leaves all of them behind the source."""
        run = Storm(pair, server, 1, tmp_path / "wrong")
        for host in pair:
            host.call(load_all)
        assert [] == run.disagreement()
        pair[0].call(write_and_delete, 0, 0, dropped=True)
        assert SLOTS == len(run.disagreement())
        assert 1 == len(witness.call(differing))
        pair[0].call(write_and_delete, 0, 0)
        until(lambda: not run.disagreement())

    def test_raised(self, server: RedisServer, pair: Any, tmp_path: Path) -> None:
        """What an operation raises is in the report."""
        run = Storm(pair, server, 1, tmp_path / "wrong")
        for worker in pair[0].workers:
            worker.call(break_delete)
        run.begin(0.5)
        _, wrong = run.end()
        assert any("raised OSError" in text for text in wrong)


def break_delete() -> None:
    """Have deletes raise in this worker."""

    def fails(key: int) -> None:
        raise OSError(f"no delete of {key}")

    hosts.cache().delete = fails
