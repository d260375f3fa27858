"""``accelerator demo``: real Gunicorn workers, and the same load with three kinds of cache."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from accelerator.cli.common import Commands


def add_to(commands: Commands) -> None:
    """Describe the command; what the demo understands, it describes itself."""
    parser = commands.add_parser(
        "demo",
        help="watch Gunicorn workers share one cache",
        add_help=False,
        prefix_chars=" ",  # every argument is the demo's, those with dashes included
    )
    parser.add_argument("rest", nargs=argparse.REMAINDER)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Hand over to the demo."""
    # Late: the other commands need neither Gunicorn nor the demo's database.
    from accelerator.demo import main  # noqa: PLC0415

    return main(arguments.rest)
