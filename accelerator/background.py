"""
Loads off the request path: one small pool of threads per process, and tasks that are not lost.

Nothing starts before the first such load, and a forked child starts its own.
"""

from __future__ import annotations

import contextlib
import contextvars
import os
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

WORKERS: Final = 4
"""Threads; few, because each may hold a connection to a database."""
MOST_WAITING: Final = 16
"""Loads that may wait for a thread: each of them holds a lease meanwhile."""


class _Pool:
    """The threads of one process."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.executor = ThreadPoolExecutor(WORKERS, thread_name_prefix="accelerator-load")
        self.lock = threading.Lock()
        self.unfinished = 0

    def submit(self, function: Callable[[], object]) -> Future[object] | None:
        """Run it soon; None: too many wait already."""
        with self.lock:
            if self.unfinished >= WORKERS + MOST_WAITING:
                return None
            self.unfinished += 1
        try:
            future = self.executor.submit(contextvars.copy_context().run, function)
        except BaseException:
            self._done()
            raise
        future.add_done_callback(self._done)
        return future

    def _done(self, _: object = None) -> None:
        with self.lock:
            self.unfinished -= 1


_pool: _Pool | None = None
_tasks: Final[set[asyncio.Task[Any]]] = set()


def submit(function: Callable[[], object]) -> Future[object] | None:
    """
    Run *function* in a thread of the pool, in a copy of the caller's context.

    Returns:
        What tells that it has ended; None if it cannot be run soon, because the pool is busy or
        the interpreter ends.
    """
    global _pool  # noqa: PLW0603  one per process
    pool = _pool
    if pool is None or pool.pid != os.getpid():
        pool = _pool = _Pool()  # two threads may race here: then two small pools serve them
    try:
        return pool.submit(function)
    except RuntimeError:
        return None


def keep(task: asyncio.Task[Any]) -> None:
    """Hold a task until it is done: a loop keeps only weak references."""
    _tasks.add(task)
    task.add_done_callback(_forget)


def drop(task: asyncio.Task[Any]) -> None:
    """Hold it no longer: its loop is closed."""
    _tasks.discard(task)


def _forget(task: asyncio.Task[Any]) -> None:
    _tasks.discard(task)
    if not task.cancelled():
        task.exception()  # seen: whom it concerns was told otherwise


def surroundings(background: Callable[[], Any] | None) -> Any:
    """The area's context manager for what runs in another thread than the caller's."""
    return contextlib.nullcontext() if background is None else background()
