"""
The command ``accelerator``: what an operator does from a shell.

Exit status: 0 done, 1 it could not be done, 2 wrong usage or configuration.
"""

from __future__ import annotations

import argparse
import io
import sys
from typing import TYPE_CHECKING

from accelerator import __version__
from accelerator.cli import (
    demo,
    doctor,
    events,
    flights,
    flush,
    gc,
    hash_,
    listener,
    probe,
    set_,
    stats,
    top,
    unlink,
    web,
)
from accelerator.errors import CacheError, ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

COMMANDS = (
    doctor,
    stats,
    top,
    web,
    listener,
    probe,
    flights,
    events,
    flush,
    set_,
    hash_,
    gc,
    unlink,
    demo,
)


def parser() -> argparse.ArgumentParser:
    """Everything that the command understands."""
    top = argparse.ArgumentParser(
        prog="accelerator", description="Look at and look after the caches of this host."
    )
    top.add_argument("--version", action="version", version=f"accelerator {__version__}")
    commands = top.add_subparsers(metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.add_to(commands)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; its exit status."""
    arguments = parser().parse_args(argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a name of an area is no reason to fail
    try:
        return int(arguments.run(arguments))
    except BrokenPipeError:  # the reader of our output has seen enough
        sys.stderr.close()
        return 1
    except ConfigError as error:
        print(f"accelerator: {error}", file=sys.stderr)
        return 2
    except CacheError as error:
        print(f"accelerator: {error}", file=sys.stderr)
        return 1
