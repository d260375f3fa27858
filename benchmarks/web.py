"""
Hot-key throughput of real Gunicorn workers.

One server per number of workers, with every contestant behind a path of its own, so that
contestants are compared in the very same processes, round by round.  The load comes from this
process, over keep-alive connections on a unix socket; it shares the machine with the workers, so
beside requests a second there is the CPU time that the workers spent on each request.
"""

import json
import os
import selectors
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import quote

from peers import Accelerator, Lmdb, Peer, Redis
from web_app import BODY
from workloads import BATCH

CONTESTANTS = ("dict", "accelerator", "warp_cache", "UltraDict", "lmdb", "redis")
"""One of each kind is enough here: below 100 ns nothing shows in a request."""

_CONNECTIONS = 8


@dataclass
class WebSeries:
    """Rounds of one contestant."""

    requests_per_second: list[float] = field(default_factory=list)
    cpu_us_per_request: list[float] = field(default_factory=list)

    def as_json(self, reads: int) -> dict[str, float]:
        best = max(self.requests_per_second)
        return {
            "requests_per_second_best": best,
            "requests_per_second_median": median(self.requests_per_second),
            "reads_per_second_best": best * reads,
            "worker_cpu_us_best": min(self.cpu_us_per_request),
            "worker_cpu_us_median": median(self.cpu_us_per_request),
        }


def measure(
    peers: Mapping[str, Peer], workers: Sequence[int], rounds: int, seconds: float
) -> list[dict[str, Any]]:
    """One row for each number of workers, reads a request and contestant."""
    peers = {name: peers[name] for name in CONTESTANTS if name in peers}
    rows = []
    for count in workers:
        with _server(count, peers) as server:
            paths = server.paths()
            for path in paths.values():
                server.load(path, seconds / 4)
            series = {key: WebSeries() for key in paths}
            for _ in range(rounds):
                for key, path in paths.items():
                    server.measure(path, seconds, series[key])
        rows += [
            {"workers": count, "contestant": name, "reads": reads, **one.as_json(reads)}
            for (name, reads), one in series.items()
        ]
        print(f"  {count} worker(s) measured", flush=True)
    return rows


@contextmanager
def _server(workers: int, peers: Mapping[str, Peer]) -> Iterator["_Server"]:
    directory = Path(tempfile.mkdtemp(prefix="accbench-web-"))
    # 4 threads a worker: every connection of the load finds a free one also with a single worker.
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "gunicorn", "web_app:application"),
            *("--workers", str(workers), "--worker-class", "gthread"),
            *("--threads", str(_CONNECTIONS), "--keep-alive", "30"),
            *("--bind", f"unix:{directory / 'http.sock'}", "--log-level", "error"),
            *("--config", str(Path(__file__).with_name("web_gunicorn.py"))),
        ],
        cwd=Path(__file__).parent,
        env={**os.environ, **_environment(peers)},
    )
    try:
        server = _Server(process, directory / "http.sock", list(peers))
        server.wait()
        yield server
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        shutil.rmtree(directory, ignore_errors=True)


def _environment(peers: Mapping[str, Peer]) -> dict[str, str]:
    setup: dict[str, Any] = {"names": list(peers)}
    for peer in peers.values():
        match peer:
            case Lmdb():
                setup["lmdb"] = str(peer.directory)
            case Redis():
                setup["redis"] = peer.url
    return {
        "ACCBENCH_WEB": json.dumps(setup),
        "ACCELERATOR_NAME": Accelerator.segment_name,
        "ACCELERATOR_SIZE": Accelerator.size,
        "ACCELERATOR_STRICT": "1",
    }


class _Server:
    def __init__(self, process: subprocess.Popen[bytes], address: Path, names: list[str]) -> None:
        self._process = process
        self._address = str(address)
        self._names = names

    def paths(self) -> dict[tuple[str, int], str]:
        batched = [f"{name} mget" for name in self._names if name in ("accelerator", "redis")]
        return {
            (name, reads): f"/{quote(name)}/{reads}"
            for reads in (1, BATCH)
            for name in ("constant", *self._names, *(batched if reads > 1 else ()))
        }

    def wait(self) -> None:
        deadline = time.monotonic() + 30
        while True:
            try:
                self.load("/constant/1", 0)
            except OSError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
            else:
                return

    def measure(self, path: str, seconds: float, series: WebSeries) -> None:
        before = self._cpu_ns()
        answered, elapsed = self.load(path, seconds)
        spent = self._cpu_ns() - before
        series.requests_per_second.append(answered / elapsed)
        series.cpu_us_per_request.append(spent / 1000 / answered)

    def _cpu_ns(self) -> int:
        """CPU time of all threads of all workers, from the scheduler's own account."""
        total = 0
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text()
        for child in children.split():
            for thread in Path(f"/proc/{child}/task").glob("*/schedstat"):
                total += int(thread.read_text().split()[0])
        return total

    def load(self, path: str, seconds: float) -> tuple[int, float]:
        """Ask over all connections for *seconds*, at least once each: answers, seconds."""
        request = f"GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n".encode()
        selector = selectors.DefaultSelector()
        sockets = [self._connection() for _ in range(_CONNECTIONS)]
        try:
            for connection in sockets:
                selector.register(connection, selectors.EVENT_READ)
                connection.sendall(request)
            return _pump(selector, request, seconds)
        finally:
            for connection in sockets:
                connection.close()
            selector.close()

    def _connection(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(30)
        connection.connect(self._address)
        return connection


def _pump(selector: selectors.BaseSelector, request: bytes, seconds: float) -> tuple[int, float]:
    """Send the next request over a connection as soon as its answer is in."""
    answered, waiting = 0, len(selector.get_map())
    begun = time.perf_counter()
    while waiting:
        for key, _ in selector.select(30) or _silence():
            connection: Any = key.fileobj
            _receive(connection)
            answered += 1
            if time.perf_counter() - begun < seconds:
                connection.sendall(request)
            else:
                waiting -= 1
    return answered, time.perf_counter() - begun


def _receive(connection: socket.socket) -> None:
    answer = connection.recv(65536)
    if not answer.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(f"the server answered {answer[:200]!r}")
    while not answer.endswith(BODY):  # the body may come in a packet of its own
        answer += connection.recv(65536)


def _silence() -> list[Any]:
    raise RuntimeError("no answer from the server in 30 s")
