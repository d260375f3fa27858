"""
The source of truth of bench_stampede.py: a process of its own that answers after 50 ms, and counts.

It stands for a database.  Over a unix socket it takes lines and answers each with one:

    load NAME      the next number of NAME, after DELAY seconds
    count NAME T   how many loads of NAME have begun before T (time.monotonic), and how many ran
                   at one time at most
    forget NAME    count NAME from 0 again
    capacity N     let at most N loads run at a time, the others wait for them; 0: no limit
"""

import asyncio
import socket
import sys
import threading
import time
from bisect import bisect
from collections import Counter, defaultdict
from contextlib import nullcontext, suppress
from typing import Any

import harness

DELAY = 0.05
"""Seconds that a load takes: a query of some weight."""

OLD = 0
"""Number of the value that is stored before the expiry; loads answer 1, 2, 3..."""


# --- in the source's process ---------------------------------------------------------------------


class _Served:
    """Counts, and the limit."""

    def __init__(self) -> None:
        self._begun: defaultdict[str, list[float]] = defaultdict(list)
        self._running: Counter[str] = Counter()
        self._most: Counter[str] = Counter()
        self._slots: Any = nullcontext()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while line := await reader.readline():
                command, *arguments = line.decode().split()
                answer = await getattr(self, f"_{command}")(*arguments)
                writer.write(f"{answer}\n".encode())
        writer.close()

    async def _load(self, name: str) -> int:
        self._begun[name].append(time.monotonic())
        number = len(self._begun[name])
        self._running[name] += 1
        self._most[name] = max(self._most[name], self._running[name])
        async with self._slots:
            await asyncio.sleep(DELAY)
        self._running[name] -= 1
        return number

    async def _count(self, name: str, before: str) -> str:
        return f"{bisect(self._begun[name], float(before))} {self._most[name]}"

    async def _forget(self, name: str) -> int:
        self._begun[name].clear()
        self._most[name] = 0
        return 0

    async def _capacity(self, slots: str) -> int:
        self._slots = asyncio.Semaphore(int(slots)) if int(slots) else nullcontext()
        return 0


async def _serve(path: str) -> None:
    server = await asyncio.start_unix_server(_Served().serve, path, backlog=1024)
    async with server:
        await server.serve_forever()


# --- in processes that ask it --------------------------------------------------------------------


class Source:
    """
    What a loader asks; one for each contestant and process, used from any thread or loop.

    While *filling* is set it answers at once: with what is in the cache before the key expires.
    """

    def __init__(self, path: str, name: str) -> None:
        self.filling = False
        self._path = path
        self._line = f"load {name}\n".encode()
        self._local = threading.local()

    def load(self) -> bytes:
        if self.filling:
            return value(OLD)
        return value(int(self._line_over_socket()))

    async def aload(self) -> bytes:
        if self.filling:
            return value(OLD)
        reader, writer = await asyncio.open_unix_connection(self._path)
        writer.write(self._line)
        answer = await reader.readline()
        writer.close()
        return value(int(answer))

    def _line_over_socket(self) -> bytes:
        lines = getattr(self._local, "lines", None)
        if lines is None:
            lines = self._local.lines = lines_to(self._path)
        lines.write(self._line)
        lines.flush()
        return bytes(lines.readline())


def lines_to(path: str) -> Any:
    """A connection as a file of lines, to be read and written."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        return connection.makefile("rwb")


VALUE_SIZE = 200


def value(number: int) -> bytes:
    return f"{number:08d}".encode().ljust(VALUE_SIZE, b"x")


def number_in(stored: bytes) -> int:
    return int(stored[:8])


if __name__ == "__main__":
    harness.die_with_parent()
    with suppress(KeyboardInterrupt):
        asyncio.run(_serve(sys.argv[1]))
