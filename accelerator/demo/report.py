"""The demo's report: what was claimed, whether it held, and the figures behind it."""

import dataclasses
import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from accelerator import __version__
from accelerator.demo.caches import TTL
from accelerator.demo.phase import Kill, Outcome, Plan
from accelerator.demo.terminal import Terminal

TITLES = {"none": "no cache", "per-worker": "per-worker dict", "accelerator": "accelerator"}

# 78 columns in all: the table fits the narrowest of terminals.
_LABEL_WIDTH = 30
_COLUMN_WIDTH = 16

WARM_LOSS = 0.05
"""The hit ratio may be this much lower after a worker was killed: spans of a second or two, and of
a few hundred answers, differ by as much anyway.  An empty cache would lose several times that."""

ONCE = 1.1
"""Loads of each version of a product that still count as one: an update may overtake a load."""


@dataclass(frozen=True)
class Claim:
    """Something that the demo promises to show."""

    name: str
    text: str
    held: bool
    evidence: str


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything there is to tell about one run."""

    plan: Plan
    outcomes: Sequence[Outcome]
    claims: Sequence[Claim]

    @property
    def held(self) -> bool:
        """Whether every claim held."""
        return all(claim.held for claim in self.claims)

    def as_json(self) -> dict[str, Any]:
        """The report as plain data."""
        return {
            "accelerator": __version__,
            "python": platform.python_version(),
            "machine": platform.machine(),
            "cores": os.cpu_count(),
            "plan": dataclasses.asdict(self.plan),
            "phases": {outcome.cache: dataclasses.asdict(outcome) for outcome in self.outcomes},
            "claims": [dataclasses.asdict(claim) for claim in self.claims],
            "held": self.held,
        }


def judge(outcomes: Sequence[Outcome]) -> list[Claim]:
    """The claims about the three phases."""
    by_name = {outcome.cache: outcome for outcome in outcomes}
    none, own, shared = (by_name[name] for name in TITLES)
    claims = [
        Claim(
            "shared",
            "All workers share one cache in shared memory.",
            shared.segment_bytes > 0,
            _mebibytes(shared.segment_bytes) + " segment" if shared.segment_bytes else "no segment",
        ),
        Claim(
            "never-stale",
            "After an acknowledged update no worker serves the old price.",
            shared.answers_stale + shared.read_backs_stale == 0
            and shared.updates_seen_by_all_workers > 0,
            f"{shared.answers_stale + shared.read_backs_stale} stale of"
            f" {shared.requests + shared.read_backs:,} answers,"
            f" every worker asked after {shared.updates_seen_by_all_workers}"
            f" of {shared.updates} updates",
        ),
        Claim(
            "test-can-tell",
            "The same check finds the stale copies of per-worker caches.",
            own.read_backs_stale > 0 == none.read_backs_stale + none.answers_stale,
            f"{own.read_backs_stale:,} of {own.read_backs:,} read-backs were stale;"
            f" {none.read_backs_stale} without a cache",
        ),
        Claim(
            "fewer-queries",
            "A product is loaded once for all workers, not once by each.",
            shared.loads_per_version <= ONCE < own.loads_per_version,
            f"{shared.loads_per_version:.2f} loads of each version of a product,"
            f" {own.loads_per_version:.2f} with per-worker caches",
        ),
        Claim(
            "cheaper",
            "A page costs less than half the CPU time of an uncached one.",
            shared.cpu_ms_per_page < none.cpu_ms_per_page / 2,
            f"{shared.cpu_ms_per_page:.2f} ms against {none.cpu_ms_per_page:.2f} ms",
        ),
        Claim(
            "no-failures",
            "No request failed in any phase.",
            not any(outcome.failed for outcome in outcomes),
            f"{sum(outcome.failed for outcome in outcomes)} failed",
        ),
    ]
    return [*claims, *_judge_kill(shared.kill)]


def _judge_kill(kill: Kill | None) -> list[Claim]:
    """The claims about the worker that was killed."""
    if kill is None:
        return []
    before, after = kill.hit_ratio_before, kill.hit_ratio_after
    first = kill.replacement_hit_ratio
    return [
        Claim(
            "kill-contained",
            "A killed worker costs only requests that were on its connections.",
            kill.lost_elsewhere == 0,
            f"{kill.lost} lost on its connections, then retried; {kill.lost_elsewhere} elsewhere",
        ),
        Claim(
            "stays-warm",
            "The cache stays warm when a worker is killed.",
            before is not None and after is not None and after >= before - WARM_LOSS,
            f"hit ratio {_percent(before)} before, {_percent(after)} after",
        ),
        Claim(
            "starts-warm",
            "The worker that replaces it starts with a warm cache.",
            first is not None and before is not None and first >= before - 2 * WARM_LOSS,
            f"hit ratio of its first answers {_percent(first)}",
        ),
    ]


def show(report: Report, terminal: Terminal) -> None:
    """Write the report for a person."""
    terminal.line()
    _show_table(report.outcomes, terminal)
    for outcome in report.outcomes:
        if outcome.kill is not None:
            terminal.line()
            _show_kill(outcome.kill, terminal)
    terminal.line()
    show_claims(report.claims, terminal)


def _show_table(outcomes: Sequence[Outcome], terminal: Terminal) -> None:
    heads = "".join(f"{TITLES[outcome.cache]:>{_COLUMN_WIDTH}}" for outcome in outcomes)
    terminal.line(terminal.strong(f"{'':<{_LABEL_WIDTH}}{heads}"))
    for label, cell in _ROWS:
        cells = "".join(f"{cell(outcome):>{_COLUMN_WIDTH}}" for outcome in outcomes)
        terminal.line(f"{label:<{_LABEL_WIDTH}}{cells}")
    terminal.line(
        f"Both caches keep a product for {TTL:.0f} s.  The segment counts in full, used or not,"
    )
    terminal.line("and is left out of the workers' memory (their proportional set size).")


def _show_kill(kill: Kill, terminal: Terminal) -> None:
    terminal.line(terminal.strong("A worker was killed with SIGKILL in the middle of the last run"))
    rows = [
        ("connections it held", str(kill.connections)),
        ("requests lost and retried", str(kill.lost)),
        ("requests lost elsewhere", str(kill.lost_elsewhere)),
        (
            f"hit ratio {kill.window_seconds:.1f} s before, after",
            f"{_percent(kill.hit_ratio_before)}, {_percent(kill.hit_ratio_after)}",
        ),
        ("slowest answer after it", f"{kill.slowest_ms:.0f} ms"),
        ("replacement answers after", _or_dash(kill.replacement_seconds, "{:.2f} s")),
        ("hit ratio of its first answers", _percent(kill.replacement_hit_ratio)),
    ]
    for label, value in rows:
        terminal.line(f"{label:<{_LABEL_WIDTH}}{value:>{_COLUMN_WIDTH}}")


def show_claims(claims: Sequence[Claim], terminal: Terminal) -> None:
    """Write which claims held, and what shows it."""
    terminal.line(terminal.strong("What the demo claims"))
    for claim in claims:
        mark = terminal.good("held  ") if claim.held else terminal.bad("FAILED")
        terminal.line(f"  {mark}  {claim.text}")
        terminal.line(f"          {claim.evidence}")
    failed = [claim.name for claim in claims if not claim.held]
    terminal.line()
    if failed:
        terminal.line(terminal.bad(f"Claims that did not hold: {', '.join(failed)}"))
    else:
        terminal.line(terminal.good(f"All {len(claims)} claims held."))


def _percent(share: float | None) -> str:
    return _or_dash(share, "{:.1%}")


def _or_dash(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)


def _mebibytes(size: int | None) -> str:
    return _or_dash(None if size is None else size / 2**20, "{:.1f} MiB")


def _total_memory(outcome: Outcome) -> int | None:
    if outcome.worker_bytes is None:
        return None
    return outcome.worker_bytes + outcome.segment_bytes


_ROWS: Sequence[tuple[str, Callable[[Outcome], str]]] = [
    ("requests answered", lambda o: f"{o.requests:,}"),
    ("requests per second", lambda o: f"{o.requests_per_second:,.0f}"),
    ("latency, median", lambda o: f"{o.p50_ms:.1f} ms"),
    ("latency, 99th percentile", lambda o: f"{o.p99_ms:.1f} ms"),
    ("hit ratio", lambda o: "-" if o.cache == "none" else f"{o.hit_ratio:.1%}"),
    ("database queries", lambda o: f"{o.queries:,}"),
    ("  for 1,000 pages", lambda o: f"{o.queries_per_1000:,.0f}"),
    ("loads of each product version", lambda o: f"{o.loads_per_version:.2f}"),
    ("server CPU time per page", lambda o: f"{o.cpu_ms_per_page:.2f} ms"),
    ("updates acknowledged", lambda o: f"{o.updates:,}"),
    ("stale reads after an update", lambda o: f"{o.read_backs_stale:,} of {o.read_backs:,}"),
    ("stale answers in all traffic", lambda o: f"{o.answers_stale:,}"),
    ("memory of all workers", lambda o: _mebibytes(o.worker_bytes)),
    ("  shared segment", lambda o: _mebibytes(o.segment_bytes) if o.segment_bytes else "-"),
    ("  together", lambda o: _mebibytes(_total_memory(o))),
]
