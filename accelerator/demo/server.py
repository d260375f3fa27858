"""
One Gunicorn server: started on a free port, watched, and certainly stopped.

The listening socket is opened here and handed to Gunicorn, so no other program can take the port
in between.  Gunicorn runs in a process group of its own: a Ctrl-C in the terminal reaches the demo
only, which then stops the group in order, and whatever is left of it by force.
"""

import asyncio
import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import accelerator
from accelerator.demo.database import counting_workers
from accelerator.demo.shop import CACHE_VARIABLE, COUNTERS_NAME, DIRECTORY_VARIABLE

HOST = "127.0.0.1"
START_SECONDS = 20.0
STOP_SECONDS = 8.0
_LOG_TAIL = 2000


class ServerError(RuntimeError):
    """The server did not come up; the message holds the end of its log."""


class Server:
    """A running Gunicorn with the shop; use :func:`serve`."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self._process = process
        self._log = log
        self.port = port

    @property
    def url(self) -> str:
        """Where the shop is."""
        return f"http://{HOST}:{self.port}"

    def workers(self) -> set[int]:
        """Pids of the living workers."""
        return {pid for pid, stat in _processes() if stat.parent == self._process.pid}

    def memory(self) -> int | None:
        """
        Bytes that the workers hold in all, shared memory left out; ``None`` where Linux cannot say.

        The proportional set size counts what several processes share (code, libraries) once.
        """
        try:
            return sum(_private_bytes(pid) for pid in self.workers())
        except (OSError, KeyError):
            return None

    def cpu_seconds(self) -> float:
        """CPU time that master and workers have used so far, dead workers included."""
        return sum(stat.cpu_seconds for _, stat in _processes() if stat.group == self._process.pid)

    def kill(self, pid: int) -> None:
        """Kill a worker with SIGKILL."""
        os.kill(pid, signal.SIGKILL)

    async def wait_ready(self, counters: Path, workers: int) -> None:
        """Wait until *workers* workers have loaded the application."""
        deadline = time.monotonic() + START_SECONDS
        # A worker opens its counter when it has loaded the application.
        while len(self.workers() & counting_workers(counters)) < workers:
            if self._process.poll() is not None:
                problem = f"Gunicorn ended with status {self._process.returncode}"
                raise ServerError(f"{problem}.\n{self.log_tail()}")
            if time.monotonic() > deadline:
                problem = f"Gunicorn's workers were not up after {START_SECONDS:.0f} s"
                raise ServerError(f"{problem}.\n{self.log_tail()}")
            await asyncio.sleep(0.05)

    def log_tail(self) -> str:
        """The end of what Gunicorn and its workers wrote."""
        return self._log.read_text(errors="replace")[-_LOG_TAIL:]

    async def stop(self) -> None:
        """
        Stop master and workers, in order, or by force after ``STOP_SECONDS`` or when cancelled.

        Runs the event loop meanwhile: clients that were cancelled still close their connections.
        """
        self._process.terminate()
        deadline = time.monotonic() + STOP_SECONDS
        try:
            while self._process.poll() is None:
                if time.monotonic() > deadline:
                    break
                await asyncio.sleep(0.02)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def remains(self) -> set[int]:
        """Pids of this server's processes that live; after :meth:`stop` there should be none."""
        return {pid for pid, stat in _processes() if stat.group == self._process.pid}


@contextlib.asynccontextmanager
async def serve(
    cache: str,
    directory: Path,
    *,
    workers: int,
    port: int = 0,
    environment: Mapping[str, str],
) -> AsyncIterator[Server]:
    """
    Run the shop with one kind of cache.

    Args:
        cache: A key of ``shop.CACHES``.
        directory: Holds the database; logs and counters are written there.
        workers: Number of Gunicorn workers.
        port: Port to listen on; 0 takes a free one.
        environment: Further variables for the server's environment.

    Raises:
        ServerError: The server did not come up.
    """
    counters = directory / COUNTERS_NAME
    for old in counters.iterdir():
        old.unlink()
    server = _start(cache, directory, workers, port, environment)
    try:
        await server.wait_ready(counters, workers)
        yield server
    finally:
        await server.stop()


def _start(
    cache: str, directory: Path, workers: int, port: int, environment: Mapping[str, str]
) -> Server:
    """Start Gunicorn on a socket that listens already."""
    log = directory / f"gunicorn-{cache}.log"
    with socket.create_server((HOST, port), backlog=256) as listener, log.open("wb") as output:
        process = subprocess.Popen(
            _command(cache, workers, listener.fileno()),
            cwd=directory,
            env=_environment(cache, directory, environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            pass_fds=[listener.fileno()],
            start_new_session=True,
        )
        return Server(process, listener.getsockname()[1], log)


def _command(cache: str, workers: int, listener: int) -> list[str]:
    kind = "accelerator" if cache == "accelerator" else "plain"
    return [
        *(sys.executable, "-m", "gunicorn"),
        *("--config", f"python:accelerator.demo.gunicorn_{kind}"),
        *("--workers", str(workers)),
        *("--bind", f"fd://{listener}"),
        "accelerator.demo.shop:create_app()",
    ]


def _environment(cache: str, directory: Path, more: Mapping[str, str]) -> dict[str, str]:
    """The caller's environment without what would change the servers' behaviour."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name == "ACCELERATOR_PURE" or not name.startswith(("ACCELERATOR_", "GUNICORN_"))
    }
    # The server's working directory is a temporary one: say where this very package was found.
    package = str(Path(accelerator.__file__).absolute().parent.parent)
    path = os.pathsep.join(filter(None, [package, kept.get("PYTHONPATH")]))
    own = {"PYTHONPATH": path, DIRECTORY_VARIABLE: str(directory), CACHE_VARIABLE: cache}
    return {**kept, **own, **more}


class _Stat(NamedTuple):
    """Where a living process belongs."""

    parent: int
    group: int
    cpu_seconds: float
    """Of the process and of its children that have ended."""


def _stat(pid: int) -> _Stat | None:
    """Read /proc for a process; ``None`` for one that is gone, or dead and not yet reaped."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The name in parentheses may hold anything, so count fields from behind its end.
    state, *numbers = text.rpartition(")")[2].split()
    if state in "ZX":
        return None
    ticks = sum(map(int, numbers[10:14]))
    return _Stat(int(numbers[0]), int(numbers[1]), ticks / os.sysconf("SC_CLK_TCK"))


def _processes() -> Iterator[tuple[int, _Stat]]:
    """Pid and state of every living process."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and (stat := _stat(int(entry.name))) is not None:
            yield int(entry.name), stat


def _private_bytes(pid: int) -> int:
    """Proportional set size of one process in bytes, less its share of shared memory."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    kilobytes = dict(re.findall(r"^(\w+): +(\d+) kB$", rollup, re.MULTILINE))
    return 1024 * (int(kilobytes["Pss"]) - int(kilobytes["Pss_Shmem"]))
