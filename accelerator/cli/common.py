"""What several commands share."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, TypeAlias

from accelerator import segment
from accelerator.errors import NotAttached

if TYPE_CHECKING:
    import argparse

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def add_uid(parser: argparse.ArgumentParser) -> None:
    """Add the option that only root has a use for."""
    parser.add_argument(
        "--uid",
        type=int,
        default=os.geteuid() if hasattr(os, "geteuid") else 0,
        help="segments of this user (default: yours; root may name any)",
    )


def need_segments() -> None:
    """Stop where there can be no segments."""
    if not segment.AVAILABLE:
        raise NotAttached(
            "there are no segments here: they need Linux and the native part of accelerator"
        )


def mebibytes(size: float) -> str:
    """A size for people."""
    return f"{size / 2**20:.1f} MiB"
