"""
Gunicorn workers and the load on them: connections that each ask at a steady pace.

Each worker has as many measured connections as threads, so nobody waits for a thread that Gunicorn
lacks; connections are opened until they are spread so.  A read that comes due while the one before
it on its connection is not answered yet begins when it was due, not when it could be sent: slow
answers do not hide the reads behind them.
"""

import heapq
import json
import os
import random
import selectors
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import harness
from peers import RUN
from stampede_peers import Contestant
from stampede_source import VALUE_SIZE, number_in

CONNECTIONS = 8
"""Threads of a worker, and measured connections to it."""
PACE = 0.06
"""Seconds between two reads of one connection: all have read once in little more than a load."""
SEGMENT = f"accbench-stampede-{RUN}"

_PATIENCE = 30
"""Seconds after which an answer is given up, and the benchmark with it."""


@dataclass(frozen=True)
class Read:
    """One answer: when its read began (time.monotonic), how long it took, what was in it."""

    begun: float
    seconds: float
    number: int
    """Of the load that made the value; -1: the server answered with an error."""


class Server:
    """A running Gunicorn, with its connections."""

    def __init__(self, process: subprocess.Popen[bytes], address: str, workers: int) -> None:
        self._process = process
        self._address = address
        self._measured: list[socket.socket] = []
        self._control: list[socket.socket] = []
        self._connect(workers)
        self._selector = selectors.DefaultSelector()
        for place, connection in enumerate(self._measured):
            self._selector.register(connection, selectors.EVENT_READ, place)

    def close(self) -> None:
        self._selector.close()
        for connection in (*self._measured, *self._control):
            connection.close()

    def _connect(self, workers: int) -> None:
        """Open connections until every worker has the same number; close those it has too many."""
        deadline = time.monotonic() + _PATIENCE
        held: Counter[bytes] = Counter()
        while sum(held.values()) < workers * (CONNECTIONS + 1):
            if time.monotonic() > deadline:
                raise RuntimeError(f"connections are spread {dict(held)} after {_PATIENCE} s")
            try:
                connection, worker = self._opened()
            except OSError:
                if self._process.poll() is not None:
                    raise
                time.sleep(0.05)
                continue
            if held[worker] > CONNECTIONS:
                connection.close()
                continue
            (self._measured if held[worker] else self._control).append(connection)
            held[worker] += 1

    def _opened(self) -> tuple[socket.socket, bytes]:
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.settimeout(_PATIENCE)
            connection.connect(self._address)
            connection.sendall(_request("worker"))
            worker = _body(connection)
        except BaseException:
            connection.close()
            raise
        if not worker:
            raise RuntimeError("a contestant could not be made (its words are above)")
        return connection, worker

    def command(self, action: str, place: int, kind: type[Contestant]) -> None:
        """Have one worker do it, or each, where each has a copy of its own."""
        self._send(action, place, kind)
        self._settle(kind)

    def _send(self, action: str, place: int, kind: type[Contestant]) -> None:
        for connection in self._asked(kind):
            connection.sendall(_request(f"{action}/{place}"))

    def _settle(self, kind: type[Contestant]) -> None:
        for connection in self._asked(kind):
            _body(connection)

    def _asked(self, kind: type[Contestant]) -> list[socket.socket]:
        return self._control[:1] if kind.shared else self._control

    def window(
        self, place: int, kind: type[Contestant], *, end: float, forget: float | None, seed: int
    ) -> list[Read]:
        """
        Read from now until *end*, and wait for what is not answered by then.

        Args:
            place: Number of the contestant in the application.
            kind: Its class.
            end: time.monotonic() after which no read begins.
            forget: When to delete the key; None: not at all.
            seed: Of the order in which the connections take turns.
        """
        reads: list[Read] = []
        request = _request(f"read/{place}")
        clock, measured, forgotten = time.monotonic, self._measured, False
        due = _phases(len(measured), seed)
        begun = list(due)
        idle = [(moment, number) for number, moment in enumerate(due)]
        heapq.heapify(idle)
        waiting = 0
        while idle or waiting:
            now = clock()
            if forget is not None and now >= forget and not forgotten:
                self._send("forget", place, kind)
                forgotten = True
            while idle and idle[0][0] <= now:
                _, number = heapq.heappop(idle)
                begun[number] = clock()  # what it is late is this process's doing
                measured[number].sendall(request)
                waiting += 1
            pause = idle[0][0] - now if idle else _PATIENCE
            if forget is not None and not forgotten:
                pause = min(pause, forget - now)
            ready = self._selector.select(max(0.0, pause))
            if not ready and not idle and clock() - now >= _PATIENCE:
                raise RuntimeError(f"{kind.name}: no answer in {_PATIENCE} s")
            for key, _ in ready:
                number = key.data
                answer = _body(measured[number])
                now = clock()
                reads.append(Read(begun[number], now - begun[number], _number(answer)))
                waiting -= 1
                due[number] += PACE
                if due[number] >= end:
                    continue
                if due[number] > now:
                    heapq.heappush(idle, (due[number], number))
                else:
                    begun[number] = due[number]
                    measured[number].sendall(request)
                    waiting += 1
        if forgotten:
            self._settle(kind)
        return reads


def _phases(count: int, seed: int) -> list[float]:
    """When each connection begins: evenly over the first PACE, in an order of its own."""
    order = list(range(count))
    random.Random(seed).shuffle(order)
    start = time.monotonic()
    return [start + PACE * place / count for place in order]


def _request(path: str) -> bytes:
    return f"GET /{path} HTTP/1.1\r\nHost: bench\r\n\r\n".encode()


def _body(connection: socket.socket) -> bytes:
    """Receive one answer: its body, or nothing if the server says that it failed."""
    answer = connection.recv(4096)
    while len(answer) != answer.find(b"\r\n\r\n") + 4 + VALUE_SIZE:
        more = connection.recv(4096)
        if not more:
            raise RuntimeError("the server closed a connection")
        answer += more
    body = answer[-VALUE_SIZE:]
    if answer.startswith(b"HTTP/1.1 200"):
        return body
    print(f"  error: ...{body.decode(errors='replace').strip()}", file=sys.stderr, flush=True)
    return b""


def _number(body: bytes) -> int:
    return number_in(body) if body else -1


@contextmanager
def server(workers: int, setup: Mapping[str, Any]) -> Iterator[Server]:
    """Start Gunicorn with so many workers, and stop it."""
    directory = Path(tempfile.mkdtemp(prefix="accbench-web-"))
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "gunicorn", "stampede_app:application"),
            *("--workers", str(workers), "--worker-class", "gthread"),
            *("--threads", str(CONNECTIONS), "--keep-alive", "75", "--timeout", "120"),
            *("--bind", f"unix:{directory / 'http.sock'}", "--log-level", "error"),
            *("--config", str(Path(__file__).with_name("web_gunicorn.py"))),
        ],
        cwd=Path(__file__).parent,
        env={
            **os.environ,
            "ACCBENCH_STAMPEDE": json.dumps(setup),
            "ACCELERATOR_NAME": SEGMENT,
            "ACCELERATOR_SIZE": "16MiB",
            "ACCELERATOR_STRICT": "1",
        },
        preexec_fn=harness.die_with_parent,  # noqa: PLW1509  no threads here
    )
    try:
        running = Server(process, str(directory / "http.sock"), workers)
        try:
            yield running
        finally:
            running.close()
    finally:
        stop(process)
        shutil.rmtree(directory, ignore_errors=True)


def stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
