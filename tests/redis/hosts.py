"""Hosts, one segment each, with workers that do what they are told, and one Redis."""

import contextlib
import multiprocessing
import os
import re
import signal
import socket
import time
import traceback
import uuid
from collections.abc import Callable, Iterator, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Self

import accelerator
from accelerator import local, runtime
from accelerator.demo.redis_server import RedisServer
from accelerator.remote.names import Names

SHM_DIR = Path("/dev/shm")
PATIENCE = 60.0
"""Seconds after which what a test waits for will not come any more."""

Areas = Mapping[str, Mapping[str, Any]]
"""Options of LevelCache by area; made before the workers are forked."""


def failed_calls(counters: Mapping[str, int]) -> int:
    """Add up the calls of Redis that have failed, whatever they were for."""
    return sum(n for name, n in counters.items() if name.startswith(("l2_error_", "l2_timeout_")))


class WorkerError(AssertionError):
    """Something was raised in a worker; the text is its traceback."""


class Worker:
    """A forked process of a host."""

    def __init__(self, settings: Mapping[str, Any], areas: Areas) -> None:
        self._pipe, theirs = multiprocessing.Pipe()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                self._pipe.close()
                _serve(theirs, settings, areas)
            finally:
                os._exit(0)
        theirs.close()
        self._dead = False

    def begin(self, what: str | Callable[..., Any], *arguments: Any, **keywords: Any) -> None:
        """Have it call a method, "area.method" or a module's function, and do not wait for it."""
        self._pipe.send((what, arguments, keywords))

    def end(self, patience: float = PATIENCE) -> Any:
        """What the call that was begun has come to."""
        assert self._pipe.poll(patience), "the worker does not answer"
        result, error = self._pipe.recv()
        if error is not None:
            raise WorkerError(error)
        return result

    def has_answered(self) -> bool:
        """Whether the call that was begun has come to its end."""
        return self._pipe.poll()

    def call(self, what: str | Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
        """Have it call something, and give the result."""
        self.begin(what, *arguments, **keywords)
        return self.end()

    def signal(self, number: int) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def kill(self) -> None:
        """End it as the kernel would."""
        if not self._dead:
            self._dead = True
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self._pipe.close()


class Host:
    """
    One segment and its workers.

    Args:
        redis: URL.
        areas: What caches the workers have.
        workers: How many.
        settings: More settings, such as *freshness_bound*.
    """

    def __init__(
        self, redis: str, areas: Areas, *, workers: int = 1, namespace: str, **settings: Any
    ) -> None:
        self.name = f"test-{uuid.uuid4().hex[:12]}"
        self.settings = {
            "name": self.name,
            "namespace": namespace,
            "redis": redis,
            "size": "4MiB",
            **settings,
        }
        self.areas = areas
        self.workers = [Worker(self.settings, areas) for _ in range(workers)]

    def add_worker(self) -> Worker:
        """Fork one more."""
        self.workers.append(Worker(self.settings, self.areas))
        return self.workers[-1]

    def call(self, what: str | Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
        """Have the first worker call something."""
        return self.workers[0].call(what, *arguments, **keywords)

    def link(self) -> dict[str, Any]:
        """What the host knows of Redis."""
        return dict(self.call(link))

    def leader(self) -> dict[str, Any]:
        """Who listens."""
        return dict(self.call(leader))

    def leading_worker(self) -> Worker:
        """The worker that listens; waits until there is one."""
        until(lambda: self.leader()["pid"] in {worker.pid for worker in self.workers})
        pid = self.leader()["pid"]
        return next(worker for worker in self.workers if worker.pid == pid)

    def wait_in_step(self) -> Self:
        """Wait until every worker is ready, and every area is known to be current."""
        for worker in self.workers:
            worker.call(link)
        for area in self.areas:
            until(lambda area=area: self.call(freshness, area) < 1.5)
        return self

    def counters(self, area: str = "area") -> dict[str, int]:
        """Over all workers."""
        return dict(self.call(f"{area}.metrics_snapshot"))

    def failed_calls(self, area: str = "area") -> int:
        """Calls of Redis that have failed."""
        return failed_calls(self.counters(area))

    def count(self, counter: str, area: str = "area") -> int:
        """One of the counters."""
        return self.counters(area)[counter]

    def name_of(self, key: Any, area: str = "area") -> str:
        """Name of a key's value in Redis."""
        return Names(self.settings["namespace"], area).value(local.encode_key(key))

    def names(self, area: str = "area") -> Names:
        """Names of an area in Redis."""
        return Names(self.settings["namespace"], area)

    def close(self) -> None:
        """End the workers and remove the segment."""
        for worker in self.workers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker.pid, signal.SIGCONT)
            worker.kill()
        for path in SHM_DIR.glob(f"accelerator.*.{self.name}.*"):
            path.unlink()


class Monitor:
    """
    The commands that a server executes, scripts' own among them, from now on.

    Args:
        server: With a Unix socket.
    """

    def __init__(self, server: RedisServer) -> None:
        self._server = server
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(PATIENCE)
        self._socket.connect(server.socket)
        self._lines = self._socket.makefile("rb")
        self._socket.sendall(b"*1\r\n$7\r\nMONITOR\r\n")
        assert b"+OK\r\n" == self._lines.readline()

    def commands(self, *, by_scripts: bool = True) -> list[list[str]]:
        """What has come since the last call, each as its words; or only what clients sent."""
        marker = f"marker-{uuid.uuid4().hex}"
        self._server.command("ECHO", marker)
        found: list[list[str]] = []
        while True:
            line = self._lines.readline().decode()
            quoted = re.findall(r'"((?:[^"\\]|\\.)*)"', line)
            words = [word.encode().decode("unicode_escape") for word in quoted]
            if words == ["ECHO", marker]:
                return found
            if by_scripts or " lua] " not in line:
                found.append(words)

    def about(self, name: str) -> list[str]:
        """Commands since the last call that name *name*, but for the calls of scripts."""
        return [
            words[0].upper()
            for words in self.commands()
            if name in words and not words[0].upper().startswith("EVAL")
        ]

    def close(self) -> None:
        self._lines.close()
        self._socket.close()


def publish(server: RedisServer, channel: str, data: bytes) -> None:
    """Publish any bytes."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.connect(server.socket)
        name = channel.encode()
        head = b"*3\r\n$7\r\nPUBLISH\r\n$%d\r\n%s\r\n$%d\r\n" % (len(name), name, len(data))
        connection.sendall(head + data + b"\r\n")
        assert connection.recv(100).startswith(b":")


def until(condition: Callable[[], object], patience: float = PATIENCE) -> None:
    """Look every few milliseconds until *condition* holds, where nothing tells."""
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.002)


@contextlib.contextmanager
def closing(*hosts: Host) -> Iterator[None]:
    """Close hosts at the end of a block."""
    try:
        yield
    finally:
        for host in hosts:
            host.close()


# --- in the worker ------------------------------------------------------------------------------

_caches: dict[str, accelerator.LevelCache] = {}


def cache(area: str = "area") -> accelerator.LevelCache:
    """The cache of an area, in a worker."""
    return _caches[area]


def link() -> dict[str, Any]:
    """What is known of Redis, in a worker."""
    return runtime.current().memory.link()


def leader() -> dict[str, Any]:
    """Who listens, in a worker."""
    return runtime.current().memory.leader()


def freshness(area: str) -> float:
    """How far behind an area may be, in a worker; infinite before it is in step."""
    found = _caches[area]._freshness()
    assert found is not None
    return found


def get_entry(key: Any, area: str = "area", **options: Any) -> Any:
    """A value and what is known about it, in a worker."""
    return _caches[area].get_entry(key, **options)


def listening() -> bool:
    """Whether this very worker listens for the host."""
    second = runtime.current().second
    assert second is not None
    return second._listener.leading


def _serve(pipe: Connection, settings: Mapping[str, Any], areas: Areas) -> None:
    runtime.swap(None)  # whatever the tests' own process uses
    for area, options in areas.items():  # first: a new segment is laid out for their values
        _caches[area] = accelerator.LevelCache(area, **options)
    accelerator.attach(**settings, strict=True)
    for made in _caches.values():
        made.peek("nothing")  # so that the host listens
    while True:
        try:
            what, arguments, keywords = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send((_find(what)(*arguments, **keywords), None))
        except BaseException:
            pipe.send((None, traceback.format_exc()))


def _find(what: str | Callable[..., Any]) -> Callable[..., Any]:
    if callable(what):
        return what
    area, _, method = what.rpartition(".")
    found = getattr(_caches[area or "area"], method)
    assert callable(found)
    return found
