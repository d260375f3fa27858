"""The demo's command: arguments, the three phases in order, and cleaning up whatever happens."""

import argparse
import asyncio
import contextlib
import importlib.util
import json
import os
import secrets
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

from accelerator import segment
from accelerator.demo.database import create_database
from accelerator.demo.phase import Outcome, Plan, measure
from accelerator.demo.report import TITLES, Claim, Report, judge, show
from accelerator.demo.server import Server, ServerError, serve
from accelerator.demo.shop import COUNTERS_NAME, DATABASE_NAME
from accelerator.demo.terminal import Terminal

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
    demo = Demo(arguments, terminal)
    try:
        return asyncio.run(demo.run())
    except asyncio.CancelledError:
        terminal.line("Interrupted. Everything is stopped and removed.")
        return 128 + (demo.interrupted_by or signal.SIGINT)
    except BrokenPipeError:
        # Nobody reads the output any more; what is still buffered must not be tried again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return CANNOT_RUN
    except (ServerError, OSError) as error:
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
        default=4,
        metavar="N",
        help="Gunicorn workers (default: 4)",
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


class Demo:
    """One run of the demo."""

    def __init__(self, arguments: argparse.Namespace, terminal: Terminal) -> None:
        self.interrupted_by: int | None = None
        self._arguments = arguments
        self._terminal = terminal
        self._plan = Plan(
            seconds=2.5 if arguments.quick else 9.0,
            products=400 if arguments.quick else 1500,
            visitors=16,
            workers=arguments.workers,
            seed=arguments.seed,
        )
        self._segment_size = "4MiB" if arguments.quick else "16MiB"
        # A name of its own: neither another demo's segment nor that of an application here.
        self._segment = f"demo-{os.getpid()}-{secrets.token_hex(4)}"
        self._servers: list[Server] = []
        self._end_of_stay: asyncio.Event | None = None

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
                        await self._stay(server)
        cleaning = self._judge_cleaning(directory)
        report = Report(plan=plan, outcomes=outcomes, claims=[*judge(outcomes), cleaning])
        if self._arguments.keep_running:
            self._terminal.line(f"Stopped; {cleaning.evidence}.")
        else:
            self._publish(report)
            self._terminal.line(_HINT.format(url=server.url, seconds=time.monotonic() - started))
        return 0 if report.held else 1

    @contextlib.contextmanager
    def _scratch(self) -> Iterator[Path]:
        """A directory for this run; it and the run's segment are removed at the end."""
        with tempfile.TemporaryDirectory(prefix="accelerator-demo-") as name:
            try:
                (Path(name) / COUNTERS_NAME).mkdir()
                yield Path(name)
            finally:
                segment.unlink(self._segment, os.geteuid(), force=True)

    @contextlib.asynccontextmanager
    async def _serve(self, cache: str, directory: Path) -> AsyncIterator[Server]:
        """The shop with one kind of cache, over a new database: all start from the same prices."""
        self._terminal.line(self._terminal.strong(TITLES[cache]))
        create_database(
            directory / DATABASE_NAME, products=self._plan.products, seed=self._plan.seed
        )
        async with serve(
            cache,
            directory,
            workers=self._plan.workers,
            port=self._arguments.port,
            environment={"ACCELERATOR_NAME": self._segment, "ACCELERATOR_SIZE": self._segment_size},
        ) as server:
            self._servers.append(server)
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

    async def _stay(self, server: Server) -> None:
        """Leave the server running until a signal comes."""
        self._terminal.line(_STAYING.format(url=server.url))
        self._end_of_stay = asyncio.Event()
        await self._end_of_stay.wait()
        self._end_of_stay = None

    def _judge_cleaning(self, directory: Path) -> Claim:
        """The claim that nothing of this run is left."""
        left = [f"process {pid}" for server in self._servers for pid in server.remains()]
        left += [
            f"segment {info.file.path}"
            for info in segment.survey(os.geteuid())
            if info.file.name == self._segment
        ]
        left += [str(directory)] if directory.exists() else []
        return Claim(
            "cleaned-up",
            "Nothing is left behind: no process, no shared segment, no file.",
            not left,
            f"left: {', '.join(left)}" if left else "nothing left behind",
        )

    def _catch_signals(self) -> None:
        """Let the signals that end a program end this one in order."""
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None

        def interrupt(number: int) -> None:
            if self._end_of_stay is not None:
                self._end_of_stay.set()
                return
            self.interrupted_by = number
            task.cancel()

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, interrupt, number)
