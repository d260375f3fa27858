"""
Imports that are put off until something is used, in programs that fork.

Where another thread is in the middle of one when a process forks, the child inherits its lock, and
not the thread: whoever imports the same module there waits for ever.  So a fork waits until such an
import has ended.  (uWSGI, which tells nobody that it forks, imports the application first.)
"""

from __future__ import annotations

import _thread
import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from types import TracebackType

PATIENCE: Final = 5.0
"""Seconds that a fork waits at most: who forks may hold what the import waits for."""

_running: Final = _thread.RLock()  # not what gevent puts in its place: it is between threads
_held: Final[list[int]] = []
"""Threads that fork, and hold it while they do."""


class Importing:
    """Around imports; a context manager, also within another."""

    def __enter__(self) -> None:
        _running.acquire()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        _running.release()


def _before_fork() -> None:
    if _running.acquire(timeout=PATIENCE):
        _held.append(_thread.get_ident())


def _after_fork() -> None:
    if _held and _held[-1] == _thread.get_ident():
        _held.pop()
        _running.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork
    )
