"""What several commands share."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, TypeAlias

from accelerator import segment
from accelerator.config import Settings, derived_name
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


def add_name(parser: argparse.ArgumentParser) -> None:
    """Add the option that says which segment is meant."""
    parser.add_argument(
        "--name", help="the setting name (default: of this directory, or the only one in use)"
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


def choose(name: str | None, uid: int) -> segment.SegmentFile:
    """Find the segment that is meant."""
    found = [info for info in segment.survey(uid) if info.current and info.ready]
    wanted = name or Settings.resolve({}, {}, os.environ).name
    by_name = {info.file.name: info.file for info in found}
    if wanted is not None:
        if wanted in by_name:
            return by_name[wanted]
        raise NotAttached(f"there is no segment called {wanted}; {_listed(found)}")
    derived = by_name.get(derived_name())
    if derived is not None:
        return derived
    alive = [info.file for info in found if info.alive]
    if len(alive) == 1:
        return alive[0]
    raise NotAttached(f"which segment? give --name; {_listed(found)}")


def _listed(found: list[segment.SegmentInfo]) -> str:
    if not found:
        return "there are none of this user and this version"
    names = ", ".join(f"{info.file.name}{'' if info.alive else ' (unused)'}" for info in found)
    return f"there are: {names}"


def table(rows: list[list[str]]) -> list[str]:
    """Lines of a table, indented: the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows
    )
    return [f"  {line.rstrip()}" for line in lines]
