"""
Write the results of the experiments on staleness into the documentation.

    python benchmarks/bench_staleness.py
    python benchmarks/bench_outage.py
    python benchmarks/bench_coherence.py
    python benchmarks/coherence_table.py

Takes what the others have left in results/, replaces what stands between the marks of each in
docs/explanation/staleness.md, and draws the pictures beside it.
"""

import argparse
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import coherence_plots
from coherence_plots import counts, figure
from gate_table import HERE, place, replaced

DOCS = HERE.parent / "docs" / "explanation"
HEADINGS = {
    "stopped": "Redis stopped under load",
    "killed": "Redis killed",
    "busy": "A worker that holds the interpreter's lock",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n\n")[0].strip())
    parser.add_argument("--results", type=Path, default=HERE / "results")
    parser.add_argument("--page", type=Path, default=DOCS / "staleness.md")
    parser.add_argument("--pictures", type=Path, default=DOCS / "images")
    arguments = parser.parse_args()
    page = arguments.page.read_text(encoding="utf-8")
    for name, (lines, draw) in _PARTS.items():
        path = arguments.results / f"{name}.json"
        if not path.exists():
            print(f"not there: {path}")
            continue
        document = json.loads(path.read_text(encoding="utf-8"))
        block = "".join(f"{line}\n" for line in (place(document), "", *lines(document)))
        page = replaced(page, f"bench_{name}", block)
        if draw is not None:
            draw(document, arguments.pictures / f"{name}.svg")
    arguments.page.write_text(page, encoding="utf-8")
    print(f"written: {arguments.page}")


def _row(*cells: object) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def _staleness(document: Mapping[str, Any]) -> Iterator[str]:
    method = document["method"]
    limit = f"{method['bound_s'] + method['allowance_s']:g} s"
    seconds, tenths = method["seconds"], document["plain_beyond_tenths"]
    yield (
        f"{seconds:g} s, {method['workers_a_host']} reading workers on each host, "
        f"{document['writes']:,} writes, of which Redis did not take {document['queued']:,} at "
        f"once, {counts(document).total()} faults."
    )
    yield ""
    yield _row(f"{document['reads']:,} reads", f"older than {limit}", "oldest")
    yield _row("---", "---", "---")
    yield _row(
        "since Redis took the invalidation",
        f"{document['beyond']:,}",
        f"{document['worst_since_taken']:.2f} s",
    )
    yield _row(
        "since the commit, while no host alone was cut off from Redis",
        f"{document['beyond_since_commit_together']:,}",
        f"{document['worst_together']:.2f} s" if document["worst_together"] else f"below {limit}",
    )
    yield _row(
        "since the commit, all",
        f"{document['beyond_since_commit']:,}",
        f"{document['worst_since_commit']:.2f} s",
    )
    yield _row(
        "plain pub/sub, since the commit",
        f"some in {tenths / 10:.0f} s of the run",
        f"{document['plain_worst']:.1f} s",
    )
    yield ""
    yield f"Reads that failed: {document['errors']}."
    kinds = ", ".join(f"{what} {count}" for what, count in sorted(counts(document).items()))
    yield f"Faults: {kinds}."


def _claims(found: Mapping[str, Any]) -> Iterator[str]:
    yield _row("what", "measured", "limit", "")
    yield _row("---", "---", "---", "---")
    for one in found["claims"]:
        limit = "" if one["limit"] is None else figure(one["limit"])
        verdict = "" if one["limit"] is None else "held" if one["held"] else "missed"
        yield _row(one["claim"], figure(one["value"]), limit, verdict)


def _outage(document: Mapping[str, Any]) -> Iterator[str]:
    method = document["method"]
    yield (
        f"{method['workers_a_host']} workers on each host, {method['keys']} hot keys; Redis is "
        f"killed for {method['down_s']:g} s."
    )
    for name, heading in HEADINGS.items():
        if name in document:
            yield from ("", f"{heading}:", "")
            yield from _claims(document[name])


def _coherence(document: Mapping[str, Any]) -> Iterator[str]:
    method = document["method"]
    yield (
        f"{method['workers_a_host']} workers on each of two hosts, {method['tries']} deletes, "
        f"{method['take_overs']} changes of the listener of each kind."
    )
    yield ""
    yield from _claims(document)


_PARTS = {
    "staleness": (_staleness, coherence_plots.draw_staleness),
    "outage": (_outage, coherence_plots.draw_outage),
    "coherence": (_coherence, None),
}


if __name__ == "__main__":
    main()
