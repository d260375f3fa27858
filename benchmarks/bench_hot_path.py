"""
What one call costs: hot, random and fresh keys, small and large values, alone and in company.

    python benchmarks/bench_hot_path.py              everything (about ten minutes)
    python benchmarks/bench_hot_path.py --quick      the same questions, fewer cells (one to two
    minutes) python benchmarks/bench_hot_path.py --gate       only the claims, each against its
    limit; exit status 1 if one fails

Writes JSON (machine, versions, method, every cell) and an SVG plot beside it.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gate
import harness
import peers
import plots
import web
from crew import Crew, CrewError
from workloads import KINDS, OPERATIONS, PATTERNS, Task, values

WRITERS: dict[str, int | None] = {"10,000/s": 10_000, "flat out": None}


@dataclass(frozen=True)
class Scope:
    """Which cells are measured, and for how long."""

    kinds: Sequence[str] = KINDS
    patterns: Sequence[str] = PATTERNS
    operations: Sequence[str] = OPERATIONS
    processes: Sequence[int] = (1, 2, 4)
    writers: Mapping[str, int | None] = field(default_factory=lambda: dict(WRITERS))
    rounds: int = 40
    windows: int = 5
    workers: Sequence[int] = (1, 2, 3, 4)
    web_rounds: int = 3
    web_seconds: float = 0.6


FULL = Scope()
QUICK = Scope(
    kinds=KINDS[:2],
    patterns=("hot", "random"),
    operations=("get", "set", "mget"),
    processes=(1, 2),
    writers={"10,000/s": 10_000},
    rounds=20,
    windows=3,
    workers=(1, 2),
    web_rounds=2,
    web_seconds=0.3,
)


def main() -> int:
    arguments = _arguments()
    if arguments.gate and arguments.layouts > 1:
        return _gate_in_layouts(arguments)
    harness.fixed_process(fixed_layout=arguments.layouts != 0)
    started = time.time()
    document: dict[str, Any] = {
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
        "machine": harness.machine(),
        "versions": harness.versions(peers.DISTRIBUTIONS),
        "native": _native(),
        "method": harness.method(),
    }
    status = (_gate if arguments.gate else _measure)(document, arguments)
    document["seconds"] = round(time.time() - started, 1)
    harness.write_json(arguments.out.with_suffix(".json"), document)
    print(f"written: {arguments.out.with_suffix('.json')}")
    return status


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n\n")[0])
    parser.add_argument("--gate", action="store_true", help="check the claims")
    parser.add_argument(
        "--parts", nargs="+", choices=gate.PARTS, default=[], help="of the claims, not all"
    )
    parser.add_argument(
        "--layouts",
        type=int,
        default=3,
        help="of addresses in which the claims are measured: the first fixed, the others by chance"
        " (0: one by chance)",
    )
    parser.add_argument("--quick", action="store_true", help="fewer cells, fewer rounds")
    parser.add_argument("--without-web", action="store_true", help="no Gunicorn part")
    parser.add_argument("--out", type=Path, help="path of the results, without suffix")
    arguments = parser.parse_args()
    if arguments.out is None:
        name = "gate" if arguments.gate else "hot_path"
        arguments.out = Path(__file__).with_name("results") / name
    return arguments


def _gate_in_layouts(arguments: argparse.Namespace) -> int:
    """
    Measure the claims in processes whose code and data lie elsewhere.

    Where they lie decides what evicts what from a processor's caches: the same binary was seen to
    need 2.1 and 2.8 times a dict store for a set.  What counts is the middle one of the layouts.
    """
    documents = []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(arguments.layouts):
            out = Path(folder) / str(number)
            print(f"layout {number + 1} of {arguments.layouts}", flush=True)
            layout = "1" if number == 0 else "0"
            more = ["--layouts", layout, "--out", str(out)]
            subprocess.run([sys.executable, *sys.argv, *more], check=False)
            if not out.with_suffix(".json").exists():
                return 1
            documents.append(json.loads(out.with_suffix(".json").read_text(encoding="utf-8")))
    report = gate.middle([document["gate"] for document in documents])
    document = {**documents[0], "layouts": documents, "gate": report.as_json()}
    document["seconds"] = sum(each["seconds"] for each in documents)
    harness.write_json(arguments.out.with_suffix(".json"), document)
    print(f"\nThe middle of {arguments.layouts} layouts:")
    status = _judge(report)
    print(f"written: {arguments.out.with_suffix('.json')}")
    return status


def _native() -> bool:
    """Whether the extension is in use; without it the figures are those of the pure twin."""
    from accelerator import local  # noqa: PLC0415  --help works without the package

    return bool(local.NATIVE)


def _gate(document: dict[str, Any], arguments: argparse.Namespace) -> int:
    plan = gate.Plan(rounds=100, windows=40) if arguments.quick else gate.Plan()
    report = gate.run(plan, arguments.parts)
    document["gate"] = report.as_json()
    return _judge(report)


def _judge(report: gate.Report) -> int:
    print("\n".join(report.table()))
    print("all measured claims hold" if report.holds else "NOT all claims hold")
    return 0 if report.holds else 1


def _measure(document: dict[str, Any], arguments: argparse.Namespace) -> int:
    scope = QUICK if arguments.quick else FULL
    with peers.Field() as entered:
        document["missing"] = entered.missing
        document["cells"] = _Matrix(entered.peers, scope).run()
        if not arguments.without_web:
            print("Gunicorn", flush=True)
            document["web"] = web.measure(
                entered.peers, scope.workers, scope.web_rounds, scope.web_seconds
            )
    print("\n".join(plots.tables(document)))
    plots.draw(document, arguments.out.with_suffix(".svg"))
    print(f"written: {arguments.out.with_suffix('.svg')}")
    return 0


Cell = dict[str, Any]


class _Matrix:
    """All cells, one crew for each kind of value and number of processes."""

    def __init__(self, contestants: Mapping[str, peers.Peer], scope: Scope) -> None:
        self._peers = contestants
        self._scope = scope
        self._cells: list[Cell] = []

    def run(self) -> list[Cell]:
        for kind in self._scope.kinds:
            running = self._entered(kind)
            for size in self._scope.processes:
                print(f"{kind}, {size} process(es)", flush=True)
                with Crew(running, size, values(kind), encode=kind == KINDS[1]) as crew:
                    self._crew_cells(kind, crew)
        return self._cells

    def _entered(self, kind: str) -> dict[str, peers.Peer]:
        """Leave out what is the same: bytes are shared anyway, and a dict is decoded anyway."""
        same = "accelerator copy" if kind == KINDS[1] else "accelerator shared"
        return {name: peer for name, peer in self._peers.items() if name != same}

    def _crew_cells(self, kind: str, crew: Crew) -> None:
        for operation in self._scope.operations:
            for pattern in self._scope.patterns:
                for measure in (
                    (self._rounds, self._windows) if crew.size == 1 else (self._windows,)
                ):
                    cells = measure(crew, Task(operation, pattern))
                    common = {"value": kind, "operation": operation, "keys": pattern}
                    self._cells += [{**common, "processes": crew.size, **cell} for cell in cells]

    def _prepared(self, crew: Crew, task: Task, results: dict[str, Any]) -> list[str]:
        """Contestants that can do it; why the others cannot goes into the results."""
        able = []
        for name in crew.peers:
            if name in crew.broken:
                results[name] = {"error": crew.broken[name]}
                continue
            try:
                if crew.prepare(name, task, range(crew.size)):
                    able.append(name)
            except CrewError as error:
                results[name] = {"error": str(error)}
        return able

    def _rounds(self, crew: Crew, task: Task) -> list[Cell]:
        """One undisturbed process: the finest figures."""
        results: dict[str, Any] = {}
        able = self._prepared(crew, task, results)
        series = crew.rounds({name: (name, task.name) for name in able}, self._scope.rounds)
        for name, one in series.items():
            to_dict = harness.ratio(one, series["dict"])
            results[name] = {**one.as_json(), "to_dict": vars(to_dict)}
        return [{"writer": None, "unit": "ns a call", "results": results}]

    def _windows(self, crew: Crew, task: Task) -> list[Cell]:
        """Several processes, or one beside a writer: calls a second of all, in common windows."""
        errors: dict[str, Any] = {}
        able = self._prepared(crew, task, errors)
        quiet: dict[str, Any] = dict(errors)
        written: dict[str, dict[str, Any]] = {label: dict(errors) for label in self._scope.writers}
        for name in able:
            try:
                quiet[name] = self._together(crew, name, task)
                if self._peers[name].shared:
                    for label, speed in self._scope.writers.items():
                        written[label][name] = self._beside(crew, name, task, speed)
            except CrewError as error:
                quiet[name] = {"error": str(error)}
        cells: list[Cell] = [
            {"writer": label, "unit": _UNIT, "results": one} for label, one in written.items()
        ]
        if crew.size > 1:
            cells.insert(0, {"writer": None, "unit": _UNIT, "results": quiet})
        return cells

    def _together(self, crew: Crew, name: str, task: Task) -> dict[str, float]:
        """All processes at once, and each round also one of them alone."""
        length = _window_ns(crew)
        alone, together = [], []
        for turn in range(self._scope.windows):
            single = crew.window(name, task.name, (turn % crew.size,), length)
            alone.append(single[0].per_second)
            together.append(_sum(crew.window(name, task.name, range(crew.size), length)))
        return {
            **_figures(together),
            "to_one_process_best": max(together) / max(alone),
            "to_one_process_median": statistics.median(
                both / one for both, one in zip(together, alone, strict=True)
            ),
        }

    def _beside(self, crew: Crew, name: str, task: Task, speed: int | None) -> dict[str, float]:
        """All processes while one more rewrites the hot key, and each round also without it."""
        length = _window_ns(crew)
        quiet, written, speeds = [], [], []
        for _ in range(self._scope.windows):
            quiet.append(_sum(crew.window(name, task.name, range(crew.size), length)))
            with crew.writer(name, speed) as writer:
                written.append(_sum(crew.window(name, task.name, range(crew.size), length)))
            speeds.append(writer["per_second"])
        return {
            **_figures(written),
            "ns_a_call_to_quiet_best": max(quiet) / max(written),
            "ns_a_call_to_quiet_median": statistics.median(
                one / other for one, other in zip(quiet, written, strict=True)
            ),
            "writes_per_second": statistics.median(speeds),
        }


_UNIT = "calls a second, all processes"


def _window_ns(crew: Crew) -> int:
    """Processes without a core of their own take turns: a window must hold many of them."""
    return 4_000_000 if crew.size <= len(harness.cores()) else 40_000_000


def _sum(rates: Sequence[Any]) -> float:
    return sum(rate.per_second for rate in rates)


def _figures(rates: Sequence[float]) -> dict[str, float]:
    return {"best": max(rates), "median": statistics.median(rates), "rounds": len(rates)}


if __name__ == "__main__":
    sys.exit(main())
