"""Run a function of the package in a process and a segment of its own."""

import contextlib
import multiprocessing
import os
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any, ParamSpec, TypeVar

import accelerator
from accelerator import local, segment

_P = ParamSpec("_P")
_T = TypeVar("_T")


def apart(function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """Call *function* in a forked child: what it attaches to ends with it."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    child = context.Process(target=_answer, args=(theirs, function, args, kwargs), daemon=True)
    child.start()
    theirs.close()
    try:
        answer: Any = ours.recv()
    except EOFError:
        child.join()
        raise RuntimeError(f"the measuring process ended with status {child.exitcode}") from None
    child.join()
    if isinstance(answer, BaseException):
        raise answer
    result: _T = answer
    return result


def _answer(pipe: Connection, function: Callable[..., Any], args: Any, kwargs: Any) -> None:
    try:
        pipe.send(function(*args, **kwargs))
    except Exception as error:
        pipe.send(error)


@contextlib.contextmanager
def new_segment(size: int) -> Iterator[None]:
    """Attach this process to a fresh segment of *size* bytes; unlink it in the end."""
    if not local.NATIVE:
        raise SystemExit("the native part of accelerator is not built: there is nothing to measure")
    name = f"accbench-{os.getpid()}"
    accelerator.configure(name=name, size=size, strict=True)
    try:
        accelerator.attach()
        yield
    finally:
        accelerator.detach()
        segment.unlink(name, os.geteuid(), force=True)


def segment_stats() -> dict[str, Any]:
    """Measured now, by a walk over the segment."""
    stats: dict[str, Any] = accelerator.diagnostics()["segment"]
    return stats
