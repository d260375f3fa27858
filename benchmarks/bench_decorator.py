"""
What a decorated function costs when its answer is known, beside the decorators of others.

    python benchmarks/bench_decorator.py             ends with status 1 if a claim fails
    python benchmarks/bench_decorator.py --quick     fewer rounds

Every contestant decorates the same function and is called with the same argument, in turns of half
a millisecond in one process.  Writes JSON (machine, versions, method, every figure) and an SVG plot
beside it.
"""

import argparse
import functools
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import harness
import peers
from gate import NOISY, Report, Verdict
from harness import Calls, Chunk, Series, Workload, interleave, ratio

LIMIT_TO_LRU = 2.2
LIMIT_TO_CACHETOOLS = 10.0
LIMIT_OF_TWO = 3.0
ATTEMPTS = 3
HOT = 777
"""The argument: an int that CPython keeps no object for."""
CALLS = 20_000

OURS, LRU, CACHETOOLS = "accelerator.cacheable", "functools.lru_cache", "cachetools.cached"
TWO, TWO_LRU = "accelerator.cacheable, two arguments", "functools.lru_cache, two arguments"


def main() -> int:
    arguments = _arguments()
    harness.fixed_process()
    harness.pin(harness.cores()[0])
    started = time.time()
    report, series = _measured(100 if arguments.quick else 400)
    document: dict[str, Any] = {
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
        "machine": harness.machine(),
        "versions": harness.versions((*peers.DISTRIBUTIONS, "cachetools")),
        "method": harness.method(),
        "seconds": round(time.time() - started, 1),
        "results": {name: one.as_json() for name, one in series.items()},
        "gate": report.as_json(),
    }
    print("\n".join(_table(series)))
    print("\n".join(report.table()))
    harness.write_json(arguments.out.with_suffix(".json"), document)
    _draw(series, arguments.out.with_suffix(".svg"))
    print(f"written: {arguments.out.with_suffix('.json')}")
    return 0 if report.holds else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    out = Path(__file__).with_name("results") / "decorator"
    parser.add_argument("--out", type=Path, default=out, help="path of the results, no suffix")
    return parser.parse_args()


def _measured(rounds: int) -> tuple[Report, Mapping[str, Series]]:
    """Measure, and again if the host was too busy for a verdict."""
    from accelerator.testing import isolated  # noqa: PLC0415  --help works without the package

    for _ in range(ATTEMPTS):
        with isolated(size="64MiB"):
            report = Report()
            series = interleave(_chunks(report), rounds)
            report.verdicts = _verdicts(series)
        if report.holds or not any(verdict.noisy for verdict in report.verdicts):
            break
    return report, series


def _chunks(report: Report) -> dict[str, Chunk]:
    harness.quieten()
    workload = Workload("hot", "for key in sequence: READ<key>", [HOT] * CALLS)
    chunks = {}
    for name, (call, called) in _contestants(report).items():
        chunks[name] = Chunk(workload, Calls(call, None, {"called": called}))
    return chunks


def _contestants(report: Report) -> dict[str, tuple[str, Any]]:
    """How each is called, as source text, and on what."""
    import accelerator  # noqa: PLC0415  as above

    cache: Any = accelerator.LevelCache("bench", local_ttl=peers.TTL)

    def answer(number: int) -> str:
        return f"answer {number}"

    class Repository:
        @cache.cacheable("method:{number}")
        def method(self, number: int) -> str:
            return answer(number)

        @cache.cacheable("two:{self.shop}:{number}")
        def named(self, number: int) -> str:
            return answer(number)

        shop = "north"

    def two(number: int, other: int) -> str:
        return f"{other} answer {number}"

    cache.set(HOT, answer(HOT))
    plain = {HOT: answer(HOT)}
    functions: dict[str, Callable[[int], Any]] = {
        OURS: cache.cacheable("user:{number}")(answer),
        "the same, all in the key": cache.cacheable()(answer),
        "LevelCache.get": cache.get,
        LRU: functools.lru_cache(maxsize=1024)(answer),
        "no cache": answer,
        "dict.get": plain.get,
    }
    found = {name: ("called({key})", function) for name, function in functions.items()}
    found["the same, a method"] = ("called.method({key})", Repository())
    found["the same, a method, its object in the key"] = ("called.named({key})", Repository())
    pairs: dict[str, Callable[[int, int], Any]] = {
        TWO: cache.cacheable("two:{number}:{other}")(two),
        "the same, two arguments, all in the key": cache.cacheable()(two),
        "the same, two arguments, key by a function": cache.cacheable(lambda *both: both)(two),
        TWO_LRU: functools.lru_cache(maxsize=1024)(two),
    }
    found |= {name: ("called({key}, 888)", function) for name, function in pairs.items()}
    found["the same, two arguments, one by name"] = ("called({key}, other=888)", pairs[TWO])
    try:
        cachetools = peers.module("cachetools")
    except peers.Missing as error:
        report.missing[CACHETOOLS] = str(error)
    else:
        decorated = cachetools.cached(cachetools.TTLCache(1024, peers.TTL))(answer)
        found[CACHETOOLS] = ("called({key})", decorated)
    return found


def _verdicts(series: Mapping[str, Series]) -> list[Verdict]:
    noisy = series[LRU].noise > NOISY
    to_lru = ratio(series[OURS], series[LRU])
    found = [
        Verdict(f"a hit of {OURS}, to {LRU}", to_lru.best, to_lru.median, LIMIT_TO_LRU, noisy=noisy)
    ]
    of_two = ratio(series[TWO], series[TWO_LRU])
    found.append(
        Verdict(
            f"a hit of {TWO}, to that of lru_cache",
            *(of_two.best, of_two.median, LIMIT_OF_TWO),
            noisy=noisy,
        )
    )
    if CACHETOOLS in series:
        faster = ratio(series[CACHETOOLS], series[OURS])
        found.append(
            Verdict(
                f"{CACHETOOLS} (TTLCache) slower by",
                *(faster.best, faster.median, LIMIT_TO_CACHETOOLS),
                at_least=True,
                noisy=noisy,
            )
        )
    return found


def _table(series: Mapping[str, Series]) -> list[str]:
    wide = max(map(len, series))
    rows = [f"{'ns a call':{wide}}  {'best':>8}  {'median':>8}  {'to lru_cache':>12}"]
    for name, one in sorted(series.items(), key=lambda item: item[1].best):
        to_lru = ratio(one, series[LRU])
        rows.append(f"{name:{wide}}  {one.best:8.1f}  {one.median:8.1f}  {to_lru.best:12.2f}")
    return rows


def _draw(series: Mapping[str, Series], path: Path) -> None:
    try:
        from matplotlib import pyplot as plt  # noqa: PLC0415  not needed for the figures
    except ImportError:
        print("no plot: matplotlib is not installed")
        return
    names = sorted(series, key=lambda name: -series[name].best)
    figure, ax = plt.subplots(figsize=(8, 4), layout="constrained")
    colours = ["#c44e52" if "same" in name or name == OURS else "#4c72b0" for name in names]
    bars = ax.barh(names, [series[name].best for name in names], color=colours)
    ax.bar_label(bars, fmt=" %.0f ns")
    ax.set_xscale("log")
    ax.set_xlabel("nanoseconds a call whose answer is known, best of the rounds")
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
    print(f"written: {path}")


if __name__ == "__main__":
    sys.exit(main())
