"""Commands that change something: they say what they will do and what it costs, and ask."""

from __future__ import annotations

import getpass
import sys
import time
from typing import TYPE_CHECKING, Final

from accelerator.cli import words
from accelerator.errors import CacheError, ConfigError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterable

    from accelerator import local

LOOK_EVERY: Final = 0.02
"""Seconds between two looks whether what was ordered has been done."""


def add_to(parser: argparse.ArgumentParser, patience: float) -> None:
    """Add the options of such a command."""
    parser.add_argument("--yes", "-y", action="store_true", help="do it without asking")
    parser.add_argument(
        "--timeout",
        type=_timeout,
        default=patience,
        metavar="SECONDS",
        help=f"wait so long until it is done everywhere (default: {patience:g})",
    )


def _timeout(text: str) -> float:
    found = float(text)
    if not 0 <= found <= 3600:
        raise ValueError
    return found


_timeout.__name__ = "number of seconds from 0 to 3600"  # argparse names it in its message


def agreed(plan: Iterable[str], *, yes: bool) -> bool:
    """
    Say what will be done, and ask whether to do it.

    Raises:
        ConfigError: Nobody is there to answer.
    """
    for line in plan:
        print(line)
    if yes:
        return True
    if not sys.stdin.isatty():
        raise ConfigError("nothing was done: give --yes where there is no terminal to ask on")
    try:
        answer = input("do it? [y/N] ")
    except EOFError:
        answer = ""
    if answer.strip().lower() in {"y", "yes"}:
        return True
    print("nothing was done")
    return False


def until(condition: Callable[[], bool], patience: float) -> bool:
    """Wait until something has been done; whether it has in time."""
    deadline = time.monotonic() + patience
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(LOOK_EVERY)
    return True


def check_area(memory: local.Segment, area: str, name: str) -> None:
    """
    See whether there is an area of that name.

    Raises:
        CacheError: There is none.
    """
    areas = sorted(memory.stats()["areas"])
    if area not in areas:
        there = ", ".join(map(words.printable, areas)) or "none"
        raise CacheError(f"there is no area {words.printable(area)} in {name}; there are: {there}")


def who() -> str:
    """Tell who has typed the command, for the ring of events."""
    try:
        return f"by {getpass.getuser()}"
    except (KeyError, OSError):  # a user without a name
        return "by somebody"
