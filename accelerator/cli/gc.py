"""``accelerator gc``: unlink the segments that no process uses any more."""

from __future__ import annotations

from typing import TYPE_CHECKING

from accelerator import segment
from accelerator.cli import common

if TYPE_CHECKING:
    import argparse

    from accelerator.cli.common import Commands


def add_to(commands: Commands) -> None:
    """Describe the command."""
    parser = commands.add_parser(
        "gc",
        help="unlink segments that no process uses any more",
        description="Unlink every segment of this user, of any version, that no process has used "
        f"for {segment.DEAD_AFTER:.0f} seconds.  Safe at any time.",
    )
    common.add_uid(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Do it, and say what went."""
    common.need_segments()
    removed = segment.collect(arguments.uid)
    for file in removed:
        print(f"unlinked {file.path}")
    if not removed:
        print("nothing to unlink")
    return 0
