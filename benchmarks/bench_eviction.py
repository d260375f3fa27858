"""
How many requests of real traces are hits, through the public API, against LRU and S3-FIFO.

    python benchmarks/bench_eviction.py --traces DIRECTORY
    python benchmarks/bench_eviction.py --traces DIRECTORY --verify    (the simulators alone)

For each request get(key); on a miss set(key, value).  Values have one size a cell, chosen so that
the wanted share of the keys is resident; then the entries that are really resident are counted
while the trace runs, and the references are simulated with exactly as many.  So what entries cost
in bytes is judged elsewhere (bench_space.py), and what is kept is judged here.
"""

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import harness
import policies
import traces

MEAN_GOAL = 0.075
"""Mean miss reduction against LRU over all cells."""
WORST_GOAL = -0.01
"""No cell may lie more than this below S3-FIFO, in hit ratio."""

_ITEM_BYTES = 640  # of the segment for one entry, where that makes more than the smallest segment
_SMALLEST = 4 << 20
_FILLED = 0.87  # share of a segment that holds entries, for a first guess of its size
_SAMPLES = 10


@dataclass(frozen=True)
class Replay:
    """One trace in one segment."""

    hit_ratio: float
    resident: int
    value_bytes: int
    segment_bytes: int
    seconds: float


@dataclass(frozen=True)
class Cell:
    """A replay beside its references."""

    trace: str
    fraction: float
    wanted: int
    replay: Replay
    lru: float
    s3fifo: float

    @property
    def reduction(self) -> float:
        """Misses saved, as a share of the larger of the two."""
        ours, theirs = 1 - self.replay.hit_ratio, 1 - self.lru
        return (theirs - ours) / max(theirs, ours)

    @property
    def to_s3fifo(self) -> float:
        return self.replay.hit_ratio - self.s3fifo

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "miss_reduction": self.reduction, "to_s3fifo": self.to_s3fifo}


def main() -> int:
    arguments = _arguments()
    if arguments.verify:
        return _verify(arguments.traces)
    document: dict[str, Any] = {
        "machine": harness.machine(),
        "versions": harness.versions(["accelerator-cache"]),
        "method": str(__doc__),
    }
    cells: list[Cell] = []
    for name in arguments.only or traces.LARGE:
        cells += _trace(arguments.traces, name, arguments.fractions)
    document |= {"cells": [cell.as_json() for cell in cells], "summary": _summary(cells)}
    harness.write_json(arguments.out, document)
    print(f"written: {arguments.out}")
    return 0 if all(goal["holds"] for goal in document["summary"].values()) else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n\n")[0])
    parser.add_argument("--traces", type=Path, required=True, help="folder of *.keys.u64.gz")
    parser.add_argument("--only", nargs="+", metavar="TRACE", help="instead of the large ones")
    parser.add_argument(
        "--fractions", nargs="+", type=float, default=traces.FRACTIONS, help="of the unique keys"
    )
    parser.add_argument("--verify", action="store_true", help="only check the simulators")
    results = Path(__file__).with_name("results")
    parser.add_argument("--out", type=Path, default=results / "eviction.json")
    return parser.parse_args()


# --- measuring -----------------------------------------------------------------------------------


def _trace(directory: Path, name: str, fractions: Sequence[float]) -> Iterator[Cell]:
    trace = traces.load(directory, name)
    texts = traces.texts(max(trace) + 1)
    keys = [texts[number] for number in trace]
    for fraction in fractions:
        wanted = max(1, int(fraction * len(texts)))
        replay = _replay(keys, texts, wanted)
        lru, s3fifo = (
            hits(trace, replay.resident) / len(trace)
            for hits in (policies.lru_hits, policies.s3fifo_hits)
        )
        cell = Cell(name, fraction, wanted, replay, lru, s3fifo)
        print(_line(cell), flush=True)
        yield cell


def _replay(keys: list[str], texts: list[str], wanted: int) -> Replay:
    from apart import apart  # noqa: PLC0415  --verify works without the package

    size = max(_SMALLEST, -(-int(wanted * _ITEM_BYTES / _FILLED) >> 20) << 20)
    value_bytes = apart(_value_bytes, texts, wanted, size)
    return apart(_replay_here, keys, value_bytes, size)


def _value_bytes(texts: list[str], wanted: int, size: int) -> int:
    """Size of the values of which *wanted* fit: fill a segment with a guess, and scale."""
    from apart import new_segment, segment_stats  # noqa: PLC0415

    import accelerator  # noqa: PLC0415

    guess = max(1, int(size * _FILLED / wanted) - _HEADER_GUESS)
    with new_segment(size):
        cache = accelerator.LevelCache("traces", local_ttl=None)
        for text in _repeated(texts, 2 * wanted):
            cache.set(text, b"v" * guess)
        found = segment_stats()
    item = found["live_bytes"] / found["entries"]
    return max(1, round(guess + item * (found["entries"] / wanted - 1)))


_HEADER_GUESS = 60


def _repeated(texts: list[str], count: int) -> Iterator[str]:
    yield from texts[:count]
    for number in range(len(texts), count):
        yield f"more{number:016x}"


def _replay_here(keys: list[str], value_bytes: int, size: int) -> Replay:
    from apart import new_segment, segment_stats  # noqa: PLC0415

    import accelerator  # noqa: PLC0415

    begun = time.perf_counter()
    value = b"v" * value_bytes
    misses, resident = 0, []
    with new_segment(size):
        cache = accelerator.LevelCache("traces", local_ttl=None)
        step = -(-len(keys) // _SAMPLES)
        for start in range(0, len(keys), step):
            misses += _ask(cache, keys[start : start + step], value)
            resident.append(segment_stats()["entries"])
    return Replay(
        hit_ratio=1 - misses / len(keys),
        # The first half of the trace may still be filling the segment.
        resident=round(fmean(resident[len(resident) // 2 :])),
        value_bytes=value_bytes,
        segment_bytes=size,
        seconds=round(time.perf_counter() - begun, 2),
    )


def _ask(cache: Any, keys: list[str], value: bytes) -> int:
    misses = 0
    for key in keys:
        if cache.get(key) is None:
            misses += 1
            cache.set(key, value)
    return misses


# --- telling -------------------------------------------------------------------------------------


def _line(cell: Cell) -> str:
    replay = cell.replay
    return (
        f"{cell.trace:14} {cell.fraction:6.0%}  {replay.resident:7} of {cell.wanted:7} wanted  "
        f"hits {replay.hit_ratio:.4f}  LRU {cell.lru:.4f}  S3-FIFO {cell.s3fifo:.4f}  "
        f"misses {-cell.reduction:+7.2%}  to S3-FIFO {100 * cell.to_s3fifo:+.2f} points  "
        f"{replay.seconds:.1f} s"
    )


def _summary(cells: Sequence[Cell]) -> dict[str, dict[str, Any]]:
    mean = fmean(cell.reduction for cell in cells)
    worst = min(cells, key=lambda cell: cell.to_s3fifo)
    goals = {
        "mean miss reduction against LRU": (mean, MEAN_GOAL, ""),
        "worst cell against S3-FIFO": (
            worst.to_s3fifo,
            WORST_GOAL,
            f"{worst.trace} at {worst.fraction:.0%}",
        ),
    }
    summary = {}
    for goal, (value, limit, note) in goals.items():
        holds = value >= limit
        word = "holds" if holds else "FAILS"
        print(f"{goal}: {value:+.2%}, goal {limit:+.2%}: {word} {note}".rstrip())
        summary[goal] = {"value": value, "goal": limit, "holds": holds, "cell": note}
    return summary


def _verify(directory: Path) -> int:
    """Compare the simulators with the reference, at its capacities."""
    worst = 0.0
    for name in traces.names(directory):
        trace = traces.load(directory, name)
        for capacity, known in traces.references(directory, name).items():
            ours = {
                "LRU": policies.lru_hits(trace, capacity) / len(trace),
                "S3-FIFO": policies.s3fifo_hits(trace, capacity) / len(trace),
            }
            off = max(abs(ours[policy] - known[policy]) for policy in ours)
            worst = max(worst, off)
            print(f"{name:20} {capacity:7}  {ours}  off by {off:.1e}", flush=True)
    print(f"largest difference: {worst:.1e}")
    return 0 if worst < 1e-6 else 1


if __name__ == "__main__":
    sys.exit(main())
