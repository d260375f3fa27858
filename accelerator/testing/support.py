"""What the suites have in common."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

T = TypeVar("T")

PATIENCE: Final = 20.0
"""Seconds that only something broken lets a test wait."""
LONGEST: Final = 60.0
"""Seconds after which calls that go on are taken for hung."""


def check(holds: object, what: str) -> None:
    """Fail with a sentence, whether assertions are switched on or not."""
    if not holds:
        raise AssertionError(what)


def equal(expected: object, found: object, what: str) -> None:
    """Fail with a sentence and both sides unless they are equal, and of one type."""
    same = type(expected) is type(found) and expected == found
    check(same, f"{what}: expected {expected!r}, found {found!r}")


@contextlib.contextmanager
def raises(
    kinds: type[BaseException] | tuple[type[BaseException], ...], what: str
) -> Iterator[None]:
    """Fail with a sentence unless the block raises one of *kinds*."""
    try:
        yield
    except kinds:
        return
    except Exception as error:
        raise AssertionError(f"{what}: raised {type(error).__name__} instead") from error
    raise AssertionError(f"{what}: raised nothing")


def wait_until(holds: Callable[[], object], what: str) -> None:
    """Look again and again until it holds, as time or another process makes it."""
    end = time.monotonic() + PATIENCE
    while not holds():
        check(time.monotonic() < end, f"{what}: never came true")
        time.sleep(0.002)


def together(*calls: Callable[[], T]) -> list[T]:
    """Call functions in threads that begin at the same moment; what they return, in order."""
    gate = threading.Barrier(len(calls))

    def run(call: Callable[[], T]) -> T:
        gate.wait(LONGEST)
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        return [each.result(LONGEST) for each in [pool.submit(run, call) for call in calls]]


def in_child(call: Callable[[], object]) -> None:
    """Call a function in a forked child, and fail with its error's type if it raises."""
    read, write = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # threads elsewhere are no concern
        pid = os.fork()
    if pid == 0:
        try:
            call()
            os.write(write, b"ok")
        except BaseException as error:
            os.write(write, f"{type(error).__name__}: {error}".encode()[:4000])
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as answer:
        said = answer.read()
    os.waitpid(pid, 0)
    check(said == b"ok", f"in a forked child: {said.decode(errors='replace') or 'it died'}")


class Awaited:
    """
    The part for one event loop of a RemoteBackend, to be called like one for threads.

    Its loop runs in a thread; a forked child has one of its own.
    """

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        self._pid = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = threading.Lock()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """Give an operation; what loops do not need is that for threads."""

        async def call(*arguments: Any, **keywords: Any) -> Any:
            method = getattr(self._backend.for_loop(), name)
            answer = method(*arguments, **keywords)
            check(inspect.isawaitable(answer), f"{name}() for a loop must be awaitable")
            return await answer

        if name not in ASYNC_METHODS:
            return getattr(self._backend, name)  # type: ignore[no-any-return]
        return lambda *arguments, **keywords: self._run(call(*arguments, **keywords))

    def _run(self, coroutine: Any) -> Any:
        with self._lock:
            loop = self._loop
            if loop is None or self._pid != os.getpid():
                self._pid = os.getpid()
                loop = self._loop = asyncio.new_event_loop()
                threading.Thread(target=loop.run_forever, daemon=True).start()
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result(LONGEST)

    def end(self) -> None:
        """End the loop."""
        loop = self._loop
        if loop is None:
            return
        self._run(loop.shutdown_asyncgens())
        loop.call_soon_threadsafe(loop.stop)
        wait_until(lambda: not loop.is_running(), "the loop stops")
        loop.close()


ASYNC_METHODS: Final[Sequence[str]] = (
    *("get", "lease", "fill", "write", "expire", "clear", "mark_tags", "add", "touch", "incr"),
    "tell",
)
"""What an AsyncRemoteBackend has."""
