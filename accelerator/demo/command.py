"""The demo's command: arguments, which demo, and the three phases of the one on one host."""

import argparse
import asyncio
import contextlib
import importlib.util
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from accelerator.demo.database import create_database
from accelerator.demo.phase import Outcome, Plan, measure
from accelerator.demo.redis_server import NoRedis
from accelerator.demo.report import TITLES, Report, judge, show
from accelerator.demo.server import Server, ServerError
from accelerator.demo.shop import COUNTERS_NAME, DATABASE_NAME
from accelerator.demo.stage import Stage
from accelerator.demo.terminal import Terminal
from accelerator.demo.two_hosts import TwoHosts

CANNOT_RUN = 2

_HINT = """
The shop's own view of its cache was at {url}/diagnostics while it ran.
Look at it yourself:  ./dev demo --keep-running   (or: python -m accelerator demo --keep-running)
Took {seconds:.0f} s.
"""

_STAYING = """
The shop goes on running until Ctrl-C:
  {url}/                a page with links
  {url}/product/1       a product
  {url}/diagnostics     what the cache says about itself
"""


def run(argv: Sequence[str] | None) -> int:
    """Run the command; see :func:`accelerator.demo.main`."""
    arguments = _parser().parse_args(argv)
    terminal = Terminal(sys.stdout)
    problem = _problem(arguments)
    if problem is not None:
        terminal.line(problem)
        return CANNOT_RUN
    demo = (TwoHosts if arguments.redis else Demo)(arguments, terminal)
    try:
        return asyncio.run(demo.run())
    except asyncio.CancelledError:
        terminal.line("Interrupted. Everything is stopped and removed.")
        return 128 + (demo.interrupted_by or signal.SIGINT)
    except BrokenPipeError:
        # Nobody reads the output any more; what is still buffered must not be tried again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return CANNOT_RUN
    except (ServerError, NoRedis, OSError) as error:
        terminal.line(f"The demo could not run: {error}")
        return CANNOT_RUN


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="accelerator demo",
        description=(
            "Run a small shop under Gunicorn with no cache, with a cache in each worker, and with"
            " accelerator; put the same load on each, change prices, kill a worker, and report."
        ),
    )
    parser.add_argument(
        "--redis",
        action="store_true",
        help="show two hosts and one Redis: an update on one is seen on the other, also when"
        " Redis stops or is killed",
    )
    parser.add_argument("--quick", action="store_true", help="a short run, for a first look")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report's data to FILE")
    parser.add_argument(
        "--keep-running",
        action="store_true",
        help="leave the shop with accelerator running after the report, until Ctrl-C",
    )
    parser.add_argument(
        "--workers",
        type=_worker_count,
        metavar="N",
        help="Gunicorn workers (default: 4; with --redis 2 on each host)",
    )
    parser.add_argument(
        "--port", type=int, default=0, help="port of the shop (default: any free one)"
    )
    parser.add_argument("--seed", type=int, default=1, help="of all that is random (default: 1)")
    return parser


def _worker_count(text: str) -> int:
    number = int(text)
    if number < 2:
        raise argparse.ArgumentTypeError("at least 2 workers are needed to show anything")
    return number


def _problem(arguments: argparse.Namespace) -> str | None:
    """Why the demo cannot run here, or ``None``."""
    file: Path | None = arguments.json
    if file is not None and not os.access(file.parent, os.W_OK):
        return f"The report cannot be written to {file}: no such directory, or not allowed."
    if sys.platform != "linux":
        return "The demo needs Linux: elsewhere there is no cache in shared memory to show."
    if importlib.util.find_spec("gunicorn") is None:
        return "The demo needs Gunicorn: pip install 'accelerator-cache[demo]'"
    return None


class Demo(Stage):
    """One run of the demo on one host."""

    def __init__(self, arguments: argparse.Namespace, terminal: Terminal) -> None:
        super().__init__(terminal)
        self._arguments = arguments
        self._plan = Plan(
            seconds=2.5 if arguments.quick else 9.0,
            products=400 if arguments.quick else 1500,
            visitors=16,
            workers=arguments.workers or 4,
            seed=arguments.seed,
        )
        self._segment_size = "4MiB" if arguments.quick else "16MiB"

    async def run(self) -> int:
        """Measure, judge, report; the exit status."""
        self._catch_signals()
        started = time.monotonic()
        plan = self._plan
        self._terminal.line(
            f"A shop: {plan.products:,} products in SQLite,"
            f" {plan.workers} Gunicorn workers (gthread), {os.cpu_count()} cores.\n"
            f"The same load for each kind of cache: {plan.visitors} visitors, {plan.seconds:g} s."
        )
        outcomes: list[Outcome] = []
        with self._scratch() as directory:
            for cache in TITLES:
                async with self._serve(cache, directory) as server:
                    outcomes.append(await self._measure(cache, server, directory))
                    if self._arguments.keep_running and cache == "accelerator":
                        self._publish(Report(plan=plan, outcomes=outcomes, claims=judge(outcomes)))
                        await self._stay(_STAYING.format(url=server.url))
        cleaning = self._judge_cleaning(directory)
        report = Report(plan=plan, outcomes=outcomes, claims=[*judge(outcomes), cleaning])
        if self._arguments.keep_running:
            self._terminal.line(f"Stopped; {cleaning.evidence}.")
        else:
            self._publish(report)
            self._terminal.line(_HINT.format(url=server.url, seconds=time.monotonic() - started))
        return 0 if report.held else 1

    @contextlib.asynccontextmanager
    async def _serve(self, cache: str, directory: Path) -> AsyncIterator[Server]:
        """The shop with one kind of cache, over a new database: all start from the same prices."""
        self._terminal.line(self._terminal.strong(TITLES[cache]))
        create_database(
            directory / DATABASE_NAME, products=self._plan.products, seed=self._plan.seed
        )
        async with self._server(
            cache,
            directory,
            workers=self._plan.workers,
            port=self._arguments.port,
            environment={"ACCELERATOR_NAME": self._segment, "ACCELERATOR_SIZE": self._segment_size},
        ) as server:
            yield server

    async def _measure(self, cache: str, server: Server, directory: Path) -> Outcome:
        outcome = await measure(
            cache,
            server,
            directory / COUNTERS_NAME,
            self._plan,
            self._terminal,
            kill=cache == "accelerator",
        )
        self._terminal.line(
            f"  {outcome.requests:,} requests, {outcome.requests_per_second:,.0f} per second"
        )
        if outcome.failed:
            self._terminal.line(f"  {outcome.failed:,} failed; the server's log ends with:")
            self._terminal.line(server.log_tail())
        return outcome

    def _publish(self, report: Report) -> None:
        """Show the report, and write its data where the user wants it."""
        show(report, self._terminal)
        if self._arguments.json is not None:
            self._arguments.json.write_text(json.dumps(report.as_json(), indent=2) + "\n")
