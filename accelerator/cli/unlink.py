"""``accelerator unlink NAME``: remove one segment by name."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from accelerator import segment
from accelerator.cli import common

if TYPE_CHECKING:
    import argparse

    from accelerator.cli.common import Commands


def add_to(commands: Commands) -> None:
    """Describe the command."""
    parser = commands.add_parser(
        "unlink",
        help="remove a segment by name",
        description="Unlink the segment called NAME, in all its versions.  Refused while processes "
        "use it; with --force they leave it within a second and share a new one.",
    )
    parser.add_argument("name", metavar="NAME", help="the setting name of the application")
    parser.add_argument("--force", action="store_true", help="even if processes use it")
    common.add_uid(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Do it, and say what went."""
    common.need_segments()
    removed = segment.unlink(arguments.name, arguments.uid, force=arguments.force)
    for file in removed:
        print(f"unlinked {file.path}")
    if not removed:
        print(f"accelerator: there is no segment called {arguments.name}", file=sys.stderr)
        return 1
    return 0
