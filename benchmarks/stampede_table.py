"""
Write the results of bench_stampede.py into the documentation.

    python benchmarks/bench_stampede.py
    python benchmarks/stampede_table.py

Takes what the first command has left in results/stampede.json, replaces what stands between the
two marks in docs/explanation/stampede.md, and draws the picture beside it.
"""

import argparse
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import stampede_plots
from gate_table import HERE, place, replaced

DOCS = HERE.parent / "docs" / "explanation"


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n\n")[0].strip())
    parser.add_argument("--results", type=Path, default=HERE / "results" / "stampede.json")
    parser.add_argument("--page", type=Path, default=DOCS / "stampede.md")
    parser.add_argument("--picture", type=Path, default=DOCS / "images" / "stampede.svg")
    arguments = parser.parse_args()
    document = json.loads(arguments.results.read_text(encoding="utf-8"))
    page = arguments.page.read_text(encoding="utf-8")
    block = "".join(f"{line}\n" for line in _lines(document))
    arguments.page.write_text(replaced(page, "bench_stampede", block), encoding="utf-8")
    stampede_plots.draw(document, arguments.picture)
    print(f"written: {arguments.page}, {arguments.picture}")


Rows = Mapping[tuple[str, int, str], Mapping[str, Any]]


def _lines(document: Mapping[str, Any]) -> Iterator[str]:
    rows = {(row["event"], row["workers"], row["contestant"]): row for row in document["rows"]}
    names = list(dict.fromkeys(name for _, _, name in rows))
    workers = sorted({count for event, count, _ in rows if event == "expiry"})
    most = workers[-1]
    versions = document["versions"]
    peers = ("cachetools", "cashews", "Django", "dogpile.cache", "gunicorn", "redis")
    yield place(dict(document))
    yield ", ".join(f"{name} {versions[name]}" for name in peers) + "."
    yield ""
    yield from _expiries(rows, names, workers)
    yield ""
    yield f"With {most} workers, when the key is deleted, and when it expires while the source runs"
    yield "no more than 8 loads at a time:"
    yield ""
    yield from _others(rows, names, most)
    for name, reason in document["missing"].items():
        yield f"\nNot measured: {name}: {reason}"


def _expiries(rows: Rows, names: list[str], workers: list[int]) -> Iterator[str]:
    most = workers[-1]
    loads = [f"loads, {count} w" for count in workers]
    yield _row("the key expires", *loads, f"p50 ms, {most} w", "p99 ms", "max ms", "old answers")
    yield _row(*["---"] * (5 + len(workers)))
    for name in names:
        row = rows["expiry", most, name]
        yield _row(
            name,
            *(_loads(rows["expiry", count, name]) for count in workers),
            *(f"{row[f'{figure}_ms']['median']:.1f}" for figure in ("p50", "p99", "max")),
            f"{row['old_answers_median']:.0f}",
        )


def _others(rows: Rows, names: list[str], workers: int) -> Iterator[str]:
    yield _row("", "deleted: loads", "p99 ms", "max ms", "busy source: loads", "p99 ms", "max ms")
    yield _row(*["---"] * 7)
    for name in names:
        cells: list[str] = []
        for event in ("delete", "busy source"):
            row = rows.get((event, workers, name))
            if row is None:
                cells += ["", "", ""]
                continue
            cells += [_loads(row), *(f"{row[f'{f}_ms']['median']:.1f}" for f in ("p99", "max"))]
        yield _row(name, *cells)


def _loads(row: Mapping[str, Any]) -> str:
    """The median, and the worst if it is another."""
    median, worst = row["loads"]["median"], row["loads"]["worst"]
    return f"{median:g}" if median == worst else f"{median:g} (worst {worst})"


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
