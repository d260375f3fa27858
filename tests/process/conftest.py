"""Real processes: forked children that meet their parent at named points."""

import asyncio
import contextlib
import mmap
import multiprocessing
import os
import select
import signal
import sys
import threading
import time
import traceback
import uuid
import warnings
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import gevent.event
import gevent.monkey
import pytest

SHM_DIR = Path("/dev/shm")
PATIENCE = 60.0
"""Seconds after which what a test waits for will not come any more."""


class Child:
    """
    A forked process that runs *body(meet)* and then ends without cleaning up.

    ``meet(value=None)`` in the child pairs with ``child.meet(value=None)`` here: each gives its
    value and gets the other's.  What goes wrong in the child is raised at the next meeting.
    """

    def __init__(self, body: Callable[[Callable[..., Any]], object]) -> None:
        self._pipe, theirs = multiprocessing.Pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            self._pipe.close()
            self._run(body, theirs)
        theirs.close()
        self.status: int | None = None

    @staticmethod
    def _run(body: Callable[[Callable[..., Any]], object], pipe: Connection) -> None:
        def meet(value: object = None) -> Any:
            pipe.send(("met", value))
            return pipe.recv()

        try:
            body(meet)
        except BaseException:  # whatever it is, the parent must hear of it
            pipe.send(("failed", traceback.format_exc()))
        else:
            pipe.send(("ended", None))
        finally:
            os._exit(0)

    def meet(self, value: object = None) -> Any:
        what, theirs = self._pipe.recv()
        if what == "failed":
            pytest.fail(f"in the child:\n{theirs}")
        if what == "met":
            self._pipe.send(value)
        return theirs

    def has_ended(self) -> bool:
        """Whether it has failed or come to its end, where it is to go on until it is killed."""
        if self._pipe.poll():
            self.meet()
            return True
        return False

    def finish(self) -> None:
        """Let it run to its end."""
        with contextlib.suppress(BrokenPipeError):
            while True:
                what, theirs = self._pipe.recv()
                if what == "failed":
                    pytest.fail(f"in the child:\n{theirs}")
                if what == "ended":
                    break
                self._pipe.send(None)
        self.wait()

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        self.wait()

    def end_by(self, number: int) -> float:
        """Send a signal that ends it, sooner or later; when that was."""
        sent_at = time.monotonic()
        os.kill(self.pid, number)
        return sent_at

    def ended_at(self) -> float:
        """Wait until the kernel has ended it; when that was.  It stays a zombie until wait()."""
        os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        return time.monotonic()

    def wait(self) -> int:
        if self.status is None:
            self.status = os.waitpid(self.pid, 0)[1]
        self._pipe.close()
        return self.status


def make_end_slow() -> None:
    """
    Give this process so many pages that the kernel needs 0.3 s and more to end it.

    They are the same 64 MB again and again: what takes time is the tables.
    """
    size = 64 << 20
    fd = os.memfd_create("pages")
    os.truncate(fd, size)
    flags = mmap.MAP_SHARED | mmap.MAP_POPULATE
    _pages.extend(mmap.mmap(fd, size, flags=flags) for _ in range(128))


_pages: list[mmap.mmap] = []


@pytest.fixture
def slow_end() -> Callable[[], None]:
    """For the body of a child that is to take long to die."""
    return make_end_slow


@pytest.fixture
def fork() -> Iterator[Callable[..., Child]]:
    """Start a :class:`Child`; those still running at the end of the test are killed."""
    children: list[Child] = []

    def start(body: Callable[[Callable[..., Any]], object]) -> Child:
        children.append(Child(body))
        return children[-1]

    yield start
    for child in children:
        if child.status is None:
            child.kill()


@pytest.fixture
def name() -> Iterator[str]:
    """A segment name of this test alone; what it leaves in /dev/shm is removed."""
    unique = f"test-{uuid.uuid4().hex[:12]}"
    yield unique
    for path in SHM_DIR.glob(f"accelerator.*.{unique}.*"):
        path.unlink()


# --- loads ---


def until(condition: Callable[[], object]) -> None:
    """Look once a millisecond until *condition* holds, where nothing tells."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.001)


class Call(NamedTuple):
    """One call of a loader."""

    what: str
    at: float
    """By the clock that all processes share, time.monotonic()."""
    pid: int


class Calls:
    """What loaders were asked for, in all processes: one line of a file each, in their order."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)

    def add(self, what: object) -> int:
        """Note a call; how many there are now."""
        os.write(self._fd, f"{time.monotonic()!r} {os.getpid()} {what}\n".encode())
        return len(self)

    def all(self) -> list[Call]:
        lines = (line.split(" ", 2) for line in self._path.read_text().splitlines())
        return [Call(what, float(at), int(pid)) for at, pid, what in lines]

    def whats(self) -> list[str]:
        return [call.what for call in self.all()]

    def __len__(self) -> int:
        return self._path.read_bytes().count(b"\n")

    def wait_for(self, number: int) -> None:
        """Wait until there are so many."""
        until(lambda: len(self) >= number)

    def close(self) -> None:
        os.close(self._fd)


class Gate:
    """Closed until somebody opens it, in any process: then all who wait go through."""

    def __init__(self) -> None:
        self._fd = os.eventfd(0)

    def open(self) -> None:
        os.eventfd_write(self._fd, 1)

    def shut(self) -> None:
        os.eventfd_read(self._fd)

    def is_open(self, seconds: float = 0.0) -> bool:
        return bool(select.select([self._fd], [], [], seconds)[0])

    def wait(self) -> None:
        assert self.is_open(PATIENCE), "nobody opened the gate"

    def close(self) -> None:
        os.close(self._fd)


class Answer(NamedTuple):
    """What one caller got, and how long it took."""

    value: Any
    error: str | None
    seconds: float


class Crowd:
    """
    Callers of one kind in this process.

    Args:
        kind: "threads", "tasks" of asyncio in one loop, or "greenlets" of gevent in one hub (the
            whole process is patched then, as Gunicorn's workers are).
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.stall = 0.0
        """
        Longest time in the last run for which the loop or hub did nothing else, without the time
        for which its thread stood in the queue for a processor: that is the machine's.
        """
        self._runner = asyncio.Runner() if kind == "tasks" else None
        if kind == "greenlets":
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # ssl is imported already; nobody uses it
                gevent.monkey.patch_all()

    def pause(self, how_long: float | Gate) -> Any:
        """Pause the caller, for seconds or at a gate; to be awaited in a task."""
        if self.kind == "tasks":
            return self._pause_task(how_long)
        if self.kind == "threads":
            return how_long.wait() if isinstance(how_long, Gate) else time.sleep(how_long)
        if not isinstance(how_long, Gate):
            return gevent.sleep(how_long)
        while not how_long.is_open():
            gevent.sleep(0.001)
        return None

    @staticmethod
    async def _pause_task(how_long: float | Gate) -> None:
        if not isinstance(how_long, Gate):
            await asyncio.sleep(how_long)
            return
        while not how_long.is_open():  # noqa: ASYNC110  nothing of asyncio tells
            await asyncio.sleep(0.001)

    def loader(
        self, begin: Callable[[Any], Any], how_long: float | Gate, answer: Callable[[Any], Any]
    ) -> Callable[[Any], Any]:
        """Make a loader that calls *begin* with the key, pauses, and returns what *answer* says."""

        def load(key: Any) -> Any:
            begin(key)
            self.pause(how_long)
            return answer(key)

        async def load_async(key: Any) -> Any:
            begin(key)
            await self.pause(how_long)
            return answer(key)

        return load_async if self.kind == "tasks" else load

    def method(self, cache: Any, name: str) -> Callable[..., Any]:
        """Find the method of a cache that suits the callers."""
        return getattr(cache, f"a{name}" if self.kind == "tasks" else name)

    def run(
        self,
        number: int,
        function: Callable[..., Any],
        *arguments: Any,
        ready: Callable[[], object] = lambda: None,
        **keywords: Any,
    ) -> list[Answer]:
        """
        Have so many callers call *function* at once.

        Args:
            number: How many.
            function: A coroutine function for tasks.
            arguments: Its arguments, and *keywords*.
            ready: Called when all stand ready; they run when it returns.
            keywords: More arguments.
        """
        self.stall = 0.0
        if self._runner is not None:
            return self._runner.run(self._tasks(number, function, arguments, keywords, ready))
        if self.kind == "greenlets":
            return self._greenlets(number, function, arguments, keywords, ready)
        barrier = threading.Barrier(number + 1)
        answers: list[Answer] = []

        def one() -> None:
            barrier.wait()
            answers.append(_answer(function, arguments, keywords))

        threads = [threading.Thread(target=one) for _ in range(number)]
        for thread in threads:
            thread.start()
        ready()
        barrier.wait()
        for thread in threads:
            thread.join()
        return answers

    async def _tasks(
        self, number: int, function: Any, arguments: Any, keywords: Any, ready: Any
    ) -> list[Answer]:
        start = asyncio.Event()

        async def one() -> Answer:
            await start.wait()
            began = time.monotonic()
            try:
                value, error = await function(*arguments, **keywords), None
            except BaseException as raised:
                value, error = None, type(raised).__name__
            return Answer(value, error, time.monotonic() - began)

        async def tick() -> None:
            await start.wait()
            last = busy_clock()
            while True:
                await asyncio.sleep(TICK)
                last = self._ticked(last)

        ticker = asyncio.create_task(tick())
        tasks = [asyncio.create_task(one()) for _ in range(number)]
        await asyncio.sleep(0)
        ready()
        start.set()
        answers = await asyncio.gather(*tasks)
        ticker.cancel()
        return answers

    def _greenlets(
        self, number: int, function: Any, arguments: Any, keywords: Any, ready: Any
    ) -> list[Answer]:
        start = gevent.event.Event()

        def one() -> Answer:
            start.wait()
            return _answer(function, arguments, keywords)

        def tick() -> None:
            start.wait()
            last = busy_clock()
            while True:
                gevent.sleep(TICK)
                last = self._ticked(last)

        ticker = gevent.spawn(tick)
        greenlets = [gevent.spawn(one) for _ in range(number)]
        gevent.sleep(0)
        ready()
        start.set()
        gevent.joinall(greenlets)
        ticker.kill()
        return [greenlet.value for greenlet in greenlets]

    def _ticked(self, last: float) -> float:
        now = busy_clock()
        self.stall = max(self.stall, now - last - TICK)
        return now


TICK = 0.001
"""Seconds between two looks at how long a loop or hub did nothing else."""


def busy_clock() -> float:
    """Seconds that pass while this thread runs or sleeps, not while it waits for a processor."""
    try:
        waited_ns = int(Path("/proc/thread-self/schedstat").read_text().split()[1])
    except OSError:  # a kernel that does not tell
        waited_ns = 0
    return time.monotonic() - waited_ns / 1e9


def _answer(function: Any, arguments: Any, keywords: Any) -> Answer:
    began = time.monotonic()
    try:
        value, error = function(*arguments, **keywords), None
    except BaseException as raised:
        value, error = None, type(raised).__name__
    return Answer(value, error, time.monotonic() - began)


@pytest.fixture
def crowd() -> type[Crowd]:
    """For the body of a child: callers of one kind."""
    return Crowd


@pytest.fixture
def calls(tmp_path: Path) -> Iterator[Calls]:
    """Count calls of loaders in all processes."""
    made = Calls(tmp_path / "calls")
    yield made
    made.close()


@pytest.fixture
def gates() -> Iterator[Callable[[], Gate]]:
    """Make gates, before the processes that meet at them are forked."""
    made: list[Gate] = []

    def make() -> Gate:
        made.append(Gate())
        return made[-1]

    yield make
    for gate in made:
        gate.close()
