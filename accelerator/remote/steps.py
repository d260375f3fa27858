"""What is sent for a plan, and in which case a second time."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any, TypeVar

from accelerator.remote import failures
from accelerator.remote.plans import Batch, Call, Command, Plan

T = TypeVar("T")

Sent = tuple[list[Sequence[Any]], bool]
"""Commands, and whether they are one transaction."""
Steps = Generator[Sent, list[Any], T]
"""Yields what is to be sent; is sent the replies, errors among them; returns the result."""


def steps(plan: Plan[T], area: str | None, operation: str) -> Steps[T]:
    """
    Turn a plan into what is sent.

    Raises:
        RemoteError: Redis answered with an error.
    """
    try:
        batch = next(plan)
        while True:
            replies = yield from _exchange(batch)
            for reply in replies:
                if failures.is_error(reply):
                    raise failures.failure(reply, area, operation) from None
            batch = plan.send(replies)
    except StopIteration as end:
        result: T = end.value
        return result


def _exchange(batch: Batch) -> Steps[list[Any]]:
    """Send scripts by digest, and those that Redis does not know again with their source."""
    replies = yield [_command(each) for each in batch.commands], batch.atomic
    missing = [at for at, reply in enumerate(replies) if failures.is_unknown_script(reply)]
    if not missing:
        return replies
    # A script that was not known did not run.  On a cluster each server gets the source, as we do
    # not know which of them lacks it.
    again = yield [_command(batch.commands[at], with_source=True) for at in missing], batch.atomic
    replies = list(replies)
    for at, reply in zip(missing, again, strict=True):
        replies[at] = reply
    return replies


def _command(command: Command, *, with_source: bool = False) -> Sequence[Any]:
    return command.command(with_source=with_source) if isinstance(command, Call) else command
