"""
How much of a segment holds live values, what an entry costs, and what a delete takes with it.

    python benchmarks/bench_space.py            (about a minute)
    python benchmarks/bench_space.py --quick    smaller segment, one second of rewrites

Exit status 1 if a goal is missed.
"""

import argparse
import itertools
import random
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import harness
from apart import apart, new_segment, segment_stats

import accelerator

_SMALLEST, _LARGEST = 100, 8192  # bytes of a value
_OVERFLOWS = 10
_INDEXED = 512
"""
The index has a word for so many bytes of segment: entries of this size fill it and the rings
alike.
"""


@dataclass(frozen=True)
class Result:
    """One figure; without a goal it is only told."""

    question: str
    value: float
    goal: float | None = None
    at_least: bool = False
    unit: str = ""
    note: str = ""

    @property
    def holds(self) -> bool:
        if self.goal is None:
            return True
        return self.value >= self.goal if self.at_least else self.value <= self.goal

    def line(self) -> str:
        word = "" if self.goal is None else "holds" if self.holds else "FAILS"
        sign = ">=" if self.at_least else "<="
        goal = "" if self.goal is None else f"{sign} {self.goal:g}"
        return f"{self.question:52} {self.value:8.3g} {self.unit:8} {goal:8} {word:6} {self.note}"


def main() -> int:
    arguments = _arguments()
    size = (16 if arguments.quick else 64) << 20
    results: list[Result] = []
    for measure in (_inserts, _zipf, _cost, _deletes, _rewrites):
        for result in apart(measure, size, arguments.quick):
            print(result.line(), flush=True)
            results.append(result)
    document = {
        "machine": harness.machine(),
        "versions": harness.versions(["accelerator-cache"]),
        "segment_bytes": size,
        "results": [{**asdict(result), "holds": result.holds} for result in results],
    }
    harness.write_json(arguments.out, document)
    print(f"written: {arguments.out}")
    return 0 if all(result.holds for result in results) else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="smaller segment, shorter")
    results = Path(__file__).with_name("results")
    parser.add_argument("--out", type=Path, default=results / "space.json")
    return parser.parse_args()


# --- live share ----------------------------------------------------------------------------------


def _uniform(chance: random.Random) -> int:
    return chance.randint(_SMALLEST, _LARGEST)


def _geometric(chance: random.Random) -> int:
    """As many from 100 to 200 as from 4,000 to 8,000."""
    return int(_SMALLEST * (_LARGEST / _SMALLEST) ** chance.random())


_SIZES: dict[str, Callable[[random.Random], int]] = {
    "uniform sizes": _uniform,
    "geometric sizes": _geometric,
}


def _inserts(size: int, quick: bool) -> list[Result]:  # noqa: ARG001
    """Every key is new."""
    return [
        _shares(f"live share, inserts only, {label}", size, _new_keys(draw))
        for label, draw in _SIZES.items()
    ]


def _new_keys(draw: Callable[[random.Random], int]) -> Callable[[Any], Iterator[int]]:
    chance = random.Random(1)

    def run(cache: Any) -> Iterator[int]:
        for number in itertools.count():
            length = draw(chance)
            cache.set(f"item:{number:012d}", _BYTES[:length])
            yield length

    return run


def _zipf(size: int, quick: bool) -> list[Result]:  # noqa: ARG001
    """Get, and on a miss set, with keys for four segments."""
    return [
        _shares(f"live share, zipf get/set-on-miss, {label}", size, _zipf_keys(draw, 4 * size))
        for label, draw in _SIZES.items()
    ]


def _zipf_keys(
    draw: Callable[[random.Random], int], total: int, exponent: float = 0.9
) -> Callable[[Any], Iterator[int]]:
    chance = random.Random(1)
    lengths, together = [], 0
    while together < total:
        lengths.append(draw(chance))
        together += lengths[-1]
    weights = list(itertools.accumulate((rank + 1) ** -exponent for rank in range(len(lengths))))

    def run(cache: Any) -> Iterator[int]:
        while True:
            for number in chance.choices(range(len(lengths)), cum_weights=weights, k=10_000):
                key = f"item:{number:012d}"
                if cache.get(key) is None:
                    cache.set(key, _BYTES[: lengths[number]])
                    yield lengths[number]

    return run


_BYTES = random.Random(3).randbytes(_LARGEST)


def _shares(question: str, size: int, run: Callable[[Any], Iterator[int]]) -> Result:
    """
    Overflow a fresh segment _OVERFLOWS times.

    The share is taken once more with every further segment's worth of values, from the second on.
    """
    shares = []
    with new_segment(size):
        cache = accelerator.LevelCache("space", local_ttl=None)
        data = segment_stats()["data_bytes"]
        stored, looked = 0, data
        for length in run(cache):
            stored += length
            if stored >= looked:
                stats = segment_stats()
                shares.append(stats["live_bytes"] / stats["data_bytes"])
                looked += data
                if len(shares) > _OVERFLOWS:
                    break
    after = shares[1:]
    note = f"lowest {min(after):.3f}, mean {fmean(after):.3f}"
    return Result(question, after[-1], 0.85, at_least=True, note=note)


# --- cost of an entry ----------------------------------------------------------------------------


def _cost(size: int, quick: bool) -> list[Result]:  # noqa: ARG001
    """
    Bytes of an entry beside its key and value.

    The index and the ghosts are tables laid out for one entry every _INDEXED bytes, so what they
    cost an entry depends on the entries; the goal is for the size that they are laid out for.
    """
    return [
        _cost_of(size, _INDEXED - 100, goal=64.0),
        _cost_of(size, _SMALLEST, goal=None),
        _cost_of(size, 4096, goal=None),
    ]


def _cost_of(size: int, length: int, goal: float | None) -> Result:
    with new_segment(size):
        cache = accelerator.LevelCache("space", local_ttl=None)
        count = 2 * size // (length + _ENTRY)
        for number in range(count):
            cache.set(f"item:{number:012d}", _BYTES[:length])
        stats = segment_stats()
    entries = stats["entries"]
    header = stats["live_bytes"] / entries - length - _KEY
    index, ghosts = stats["index_bytes"] / entries, stats["ghost_bytes"] / entries
    note = f"header and padding {header:.1f}, index {index:.1f}, ghosts {ghosts:.1f}"
    return Result(
        f"bytes an entry costs, values of {length} B", header + index + ghosts, goal, note=note
    )


_KEY = len("item:000000000000")
_ENTRY = 60


# --- what a delete takes with it -----------------------------------------------------------------


def _deletes(size: int, quick: bool) -> list[Result]:  # noqa: ARG001
    """Other entries lost, on average, because generations are counted for groups of keys."""
    return [
        _lost(f"others lost a delete, {label}", size, draw)
        for label, draw in {**_SIZES, "values of 100 B": lambda _chance: _SMALLEST}.items()
    ] + [_lost_beside_one(size)]


_DELETED = 1000


def _lost(question: str, size: int, draw: Callable[[random.Random], int]) -> Result:
    """Fill a segment, delete some of what is there, and see what else is gone."""
    chance = random.Random(5)
    with new_segment(size):
        cache = accelerator.LevelCache("space", local_ttl=None)
        present = _filled(cache, size, lambda: draw(chance))
        victims = set(chance.sample(present, _DELETED))
        for key in victims:
            cache.delete(key)
        gone = len(present) - len(_present(cache, present)) - len(victims)
        note = f"{gone} of {len(present)} by {len(victims)} deletes"
    return Result(question, gone / len(victims), 1.0, note=note)


def _lost_beside_one(size: int) -> Result:
    """One key is stored and deleted all the time."""
    with new_segment(size):
        cache = accelerator.LevelCache("space", local_ttl=None)
        present = _filled(cache, size, lambda: _INDEXED)
        own = present.pop()
        for _ in range(_DELETED):
            cache.delete(own)
            cache.set(own, b"again")
        gone = len(present) - len(_present(cache, present))
    note = f"{gone} of {len(present)} by {_DELETED} deletes"
    return Result("others lost a delete, one key over and over", gone / _DELETED, 1.0, note=note)


def _filled(cache: Any, size: int, draw: Callable[[], int]) -> list[str]:
    """Keys present after storing a little more than fits."""
    keys: list[str] = []
    stored = 0
    while stored < size and len(keys) < size // _INDEXED:
        length = draw()
        keys.append(f"item:{len(keys):012d}")
        cache.set(keys[-1], _BYTES[:length])
        stored += length + _KEY + _ENTRY
    return _present(cache, keys)


def _present(cache: Any, keys: Iterable[str]) -> list[str]:
    """Looked at without leaving a mark."""
    return [key for key in keys if cache.peek(key) is not None]


# --- rewrites ------------------------------------------------------------------------------------


def _rewrites(size: int, quick: bool) -> list[Result]:
    """10,000 rewrites a second of one key, of one size, for ten seconds."""
    return [
        _evicted_by_rewrites("segment half full", size, quick, share=0.5, goal=0),
        _evicted_by_rewrites("segment full", size, quick, share=1.0, goal=0),
        _evicted_at_worst(),
    ]


_TRIES = 20


def _evicted_at_worst() -> Result:
    """Look at the first rewrites in many segments: where the rings' ends lie is chance."""
    chance, size, gone = random.Random(7), 16 << 20, []
    for _ in range(_TRIES):
        with new_segment(size):
            cache = accelerator.LevelCache("space", local_ttl=None)
            present = _filled(cache, size, lambda: _INDEXED)
            own = present.pop(chance.randrange(len(present)))
            _rewrite(cache, own, 1000, seconds=0.01)
            gone.append(len(present) - len(_present(cache, present)))
    worst = float(max(gone))
    note = f"mean {fmean(gone):.1f}"
    return Result(f"the same, worst of {_TRIES} segments", worst, 0, note=note)


def _evicted_by_rewrites(label: str, size: int, quick: bool, share: float, goal: int) -> Result:
    seconds = 1 if quick else 10
    with new_segment(size):
        cache = accelerator.LevelCache("space", local_ttl=None)
        present = _filled(cache, int(share * size), lambda: _INDEXED)
        own = present.pop(len(present) // 2)
        pace = _rewrite(cache, own, 10_000 * seconds, seconds)
        gone = len(present) - len(_present(cache, present))
    note = f"of {len(present)}, at {pace:,.0f} rewrites/s"
    return Result(f"evicted by rewrites of one key, {label}", float(gone), goal, note=note)


def _rewrite(cache: Any, key: str, count: int, seconds: float) -> float:
    """Evenly over *seconds*; the rate reached."""
    begun = time.perf_counter()
    versions = itertools.cycle((_BYTES[:_INDEXED], _BYTES[1 : _INDEXED + 1]))
    for number, version in zip(range(count), versions, strict=False):
        cache.set(key, version)
        ahead = begun + (number + 1) * seconds / count - time.perf_counter()
        if ahead > 0.001:
            time.sleep(ahead)
    return count / (time.perf_counter() - begun)


if __name__ == "__main__":
    sys.exit(main())
