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
    common,
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
    from collections.abc import Iterator, Sequence

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

READS_ONLY = "Reads only."
"""What the description of a command says that changes nothing anywhere."""
CHANGES = {
    "probe": "publishes a message in Redis for each area, which makes nothing old",
    "set": "overrides options in the processes of this host",
    "flush": "makes caches forget",
    "gc": "unlinks segments that no process uses",
    "unlink": "unlinks a segment",
    "demo": "starts servers, with segments of their own",
}
"""What the other commands do to something, by their names."""
EXIT_STATUS = "Exit status: 0 done, 1 it could not be done, 2 wrong usage or settings."


class _Parser(argparse.ArgumentParser):
    """Shows commands in two groups: those that only read, and the others."""

    def format_help(self) -> str:
        formatter = self._get_formatter()
        formatter.add_usage(self.usage, self._actions, self._mutually_exclusive_groups)
        formatter.add_text(self.description)
        for title, actions in self._sections():
            formatter.start_section(title)
            formatter.add_arguments(actions)
            formatter.end_section()
        formatter.add_text(self.epilog)
        return formatter.format_help()

    def _sections(self) -> Iterator[tuple[str, list[argparse.Action]]]:
        commands = commands_of(self)
        shown = list(commands._get_subactions())
        reading = [each for each in shown if reads_only(commands.choices[each.dest])]
        yield "commands that only read", reading
        yield "commands that change something", [each for each in shown if each not in reading]
        yield "options", [each for each in self._actions if each.option_strings]


class _Command(argparse.ArgumentParser):
    """Takes options and what they are between in any order, and names itself in its messages."""

    def parse_known_args(  # type: ignore[override]  # it has overloads for other namespaces
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        found, left = super().parse_known_args(args, namespace)
        # argparse takes OPTION=VALUE ... once only, and leaves those that follow on --yes.
        if isinstance(getattr(found, "options", None), list):
            found.options += [word for word in left if not word.startswith("-")]
            left = [word for word in left if word.startswith("-")]
        if left:
            self.error(f"unrecognized arguments: {' '.join(left)}")
        return found, []


def commands_of(top: argparse.ArgumentParser) -> common.Commands:
    """Find the parsers of the commands in that of all."""
    [found] = [each for each in top._actions if isinstance(each, argparse._SubParsersAction)]
    return found


def reads_only(command: argparse.ArgumentParser) -> bool:
    """Whether a command changes nothing."""
    return READS_ONLY in (command.description or "")


def parser() -> argparse.ArgumentParser:
    """Everything that the command understands."""
    top = _Parser(
        prog="accelerator",
        description="Look at and look after the caches of this host.",
        epilog="accelerator COMMAND --help tells more of each.",
    )
    top.add_argument("--version", action="version", version=f"accelerator {__version__}")
    commands = top.add_subparsers(metavar="COMMAND", required=True, parser_class=_Command)
    for command in COMMANDS:
        command.add_to(commands)
    for name, made in commands.choices.items():
        made.epilog = "\n\n".join(filter(None, (made.epilog, *_last_words(name, made))))
    return top


def _last_words(name: str, command: argparse.ArgumentParser) -> Iterator[str]:
    """Say what every --help ends with, where its own text does not."""
    if not reads_only(command):
        yield f"Not read-only: it {CHANGES[name]}."
    if "xit status" not in (command.description or ""):
        yield EXIT_STATUS


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
