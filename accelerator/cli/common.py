"""What several commands share."""

from __future__ import annotations

import argparse
import os
import shutil
from typing import TypeAlias

from accelerator import segment
from accelerator.cli import words
from accelerator.config import Settings, derived_name
from accelerator.errors import NotAttached

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


def add_interval(parser: argparse.ArgumentParser, seconds: float) -> None:
    """Add the option that says how often to look."""
    parser.add_argument(
        "--interval",
        type=seconds_option,
        default=seconds,
        metavar="SECONDS",
        help=f"between two looks (default: {seconds:g})",
    )


def columns() -> int:
    """Width of the terminal; wide enough for all where there is none."""
    return shutil.get_terminal_size((160, 24)).columns


def seconds_option(text: str) -> float:
    """Read a pause that somebody has typed."""
    try:
        found = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds") from None
    if not SHORTEST <= found <= 3600.0:
        raise argparse.ArgumentTypeError(f"give {SHORTEST:g} to 3600 seconds")
    return found


SHORTEST = 0.1
"""Seconds between two looks, at least: each of them walks the segment."""


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
        raise NotAttached(
            f"there is no segment called {wanted}; {_listed(found)}{_of_others(wanted, uid)}"
        )
    derived = by_name.get(derived_name())
    if derived is not None:
        return derived
    alive = [info.file for info in found if info.alive]
    if len(alive) == 1:
        return alive[0]
    raise NotAttached(f"which segment? give --name; {_listed(found)}{_of_others(None, uid)}")


def _listed(found: list[segment.SegmentInfo]) -> str:
    if not found:
        return "there are none of this user and this version"
    names = ", ".join(f"{info.file.name}{'' if info.alive else ' (unused)'}" for info in found)
    return f"there are: {names}"


def _of_others(name: str | None, uid: int) -> str:
    """Say whose segments are meant perhaps: an operator is seldom the user of the service."""
    found = (it.file for it in segment.examine())
    files = [file for file in found if file.uid != uid and name in {None, file.name}]
    if not files:
        return ""
    there = ", ".join(dict.fromkeys(f"{file.name} of uid {file.uid}" for file in files))
    return f"; of other users: {there} (work as that user, or as root with --uid {files[0].uid})"


def table(rows: list[list[str]]) -> list[str]:
    """Lines of a table, indented: the first column to the left, the others to the right."""
    widths = [max(map(words.width, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join([words.left(row[0], widths[0]), *map(words.right, row[1:], widths[1:])])
        for row in rows
    )
    return [f"  {line.rstrip()}" for line in lines]
