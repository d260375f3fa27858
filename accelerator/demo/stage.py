"""What both demos stand on: servers, a folder, segments, signals, and cleaning up in any case."""

import asyncio
import contextlib
import os
import secrets
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path

from accelerator import segment
from accelerator.demo.report import Claim
from accelerator.demo.server import Server, serve
from accelerator.demo.shop import COUNTERS_NAME
from accelerator.demo.terminal import Terminal


class Stage:
    """One run of a demo."""

    def __init__(self, terminal: Terminal) -> None:
        self.interrupted_by: int | None = None
        self._terminal = terminal
        # A name of its own: neither another demo's segment nor that of an application here.
        self._segment = f"demo-{os.getpid()}-{secrets.token_hex(4)}"
        self._servers: list[Server] = []
        self._end_of_stay: asyncio.Event | None = None

    def _segments(self) -> list[str]:
        """Names of the segments that this run makes."""
        return [self._segment]

    @contextlib.contextmanager
    def _scratch(self) -> Iterator[Path]:
        """A directory for this run; it and the run's segments are removed at the end."""
        with tempfile.TemporaryDirectory(prefix="accelerator-demo-") as name:
            try:
                (Path(name) / COUNTERS_NAME).mkdir()
                yield Path(name)
            finally:
                for each in self._segments():
                    segment.unlink(each, os.geteuid(), force=True)

    @contextlib.asynccontextmanager
    async def _server(
        self,
        cache: str,
        directory: Path,
        *,
        workers: int,
        port: int,
        environment: Mapping[str, str],
    ) -> AsyncIterator[Server]:
        """A server that is known to this run, which has to see to it that nothing of it is left."""
        async with serve(
            cache, directory, workers=workers, port=port, environment=environment
        ) as server:
            self._servers.append(server)
            yield server

    async def _stay(self, words: str) -> None:
        """Say what can be looked at, and leave it running until a signal comes."""
        self._terminal.line(words)
        self._end_of_stay = asyncio.Event()
        await self._end_of_stay.wait()
        self._end_of_stay = None

    def _judge_cleaning(self, directory: Path) -> Claim:
        """The claim that nothing of this run is left."""
        left = [f"process {pid}" for server in self._servers for pid in server.remains()]
        left += [
            f"segment {info.file.path}"
            for info in segment.survey(os.geteuid())
            if info.file.name in self._segments()
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
