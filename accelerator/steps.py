"""
Operations over two tiers, written once for callers that block and for callers that await.

An operation is a generator.  It does itself what takes no time worth waiting for (the segment), and
yields what it wants asked of Redis; whoever drives it asks, in its own way, and sends the answer
back or throws what went wrong.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

T = TypeVar("T")


class Ask(NamedTuple):
    """A method of the remote backend, and what it is to be called with."""

    method: str
    arguments: tuple[Any, ...]
    keywords: Mapping[str, Any] = {}
    reading: bool = False
    """It only reads, so what it answers must be as current as the bound asks."""
    counts_as: str = ""
    """What it is for, where that is not what the method is for: "del" of a write that deletes."""
    decides_about: bytes | None = None
    """The encoded key whose fate Redis decides on what it has of it; None: it decides nothing."""


Steps: TypeAlias = Generator[Ask, Any, T]


def drive(steps: Steps[T], ask: Callable[[Ask], Any]) -> T:
    """Run an operation to its end, asking with *ask*, which may raise."""
    try:
        wanted = next(steps)
        while True:
            try:
                answer = ask(wanted)
            except Exception as error:
                wanted = steps.throw(error)
            else:
                wanted = steps.send(answer)
    except StopIteration as ended:
        result: T = ended.value
        return result
    finally:
        steps.close()


async def adrive(steps: Steps[T], ask: Callable[[Ask], Awaitable[Any]]) -> T:
    """Do as drive() in the running task."""
    try:
        wanted = next(steps)
        while True:
            try:
                answer = await ask(wanted)
            except Exception as error:
                wanted = steps.throw(error)
            else:
                wanted = steps.send(answer)
    except StopIteration as ended:
        result: T = ended.value
        return result
    finally:
        steps.close()
