"""
Write the results of the gate into the documentation.

    python benchmarks/bench_hot_path.py --gate --quick
    python benchmarks/gate_table.py

Takes what the first command has left in results/gate.json, and replaces what stands between the
two marks in docs/explanation/performance.md.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "explanation" / "performance.md"


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n\n")[0].strip())
    parser.add_argument("--results", type=Path, default=HERE / "results" / "gate.json")
    parser.add_argument("--page", type=Path, default=PAGE)
    arguments = parser.parse_args()
    document = json.loads(arguments.results.read_text(encoding="utf-8"))
    page = arguments.page.read_text(encoding="utf-8")
    arguments.page.write_text(replaced(page, "gate", table(document)), encoding="utf-8")
    print(f"written: {arguments.page}")


def replaced(page: str, name: str, block: str) -> str:
    """Give *page* with *block* between the marks called *name*."""
    begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->\n"
    before, _, rest = page.partition(begin)
    _, _, after = rest.partition(end)
    return f"{before}{begin}{block}{end}{after}"


def place(document: dict[str, Any]) -> str:
    """Say on which machine and Python it was measured."""
    machine = document["machine"]
    cores = "1 core" if machine["cores"] == 1 else f"{machine['cores']} cores"
    system, *_, processor = machine["system"].split()
    python = document["versions"].get("python", "?")
    return f"{machine['cpu']}, {cores}, {system} {processor}, Python {python}."


def table(document: dict[str, Any]) -> str:
    return "".join(f"{line}\n" for line in _lines(document))


def _lines(document: dict[str, Any]) -> Iterator[str]:
    gate = document["gate"]
    yield place(document)
    yield ""
    yield "| claim | best | median | limit | verdict |"
    yield "| --- | --- | --- | --- | --- |"
    for claim in gate["claims"]:
        unit = claim["unit"]
        best, median = (f"{claim[figure]:.3g} {unit}" for figure in ("best", "median"))
        sign = "at least" if claim["at_least"] else "at most"
        limit = "" if claim["limit"] is None else f"{sign} {claim['limit']:g} {unit}"
        verdict = {"-": ""}.get(claim["verdict"], claim["verdict"])
        yield f"| {claim['claim']} | {best} | {median} | {limit} | {verdict} |"
    for name, reason in gate["missing"].items():
        yield f"| {name} |  |  |  | not measured: {reason} |"


if __name__ == "__main__":
    main()
