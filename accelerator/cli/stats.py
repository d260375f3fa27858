"""``accelerator stats``: what a segment holds and what became of its reads, host-wide."""

from __future__ import annotations

import json
import os
import sys
from datetime import datetime
from typing import TYPE_CHECKING, Any

from accelerator import segment
from accelerator.cli import common
from accelerator.config import Settings, derived_name
from accelerator.errors import NotAttached
from accelerator.observability.diagnostics import with_ratio

if TYPE_CHECKING:
    import argparse

    from accelerator.cli.common import Commands

_COLUMNS = (
    ("hits", "local_hit"),
    ("misses", "local_miss"),
    ("entries", "entries"),
    ("bytes", "bytes"),
    ("sets", "set"),
    ("deletes", "delete"),
    ("evicted", "evictions"),
    ("expired", "expired"),
)


def add_to(commands: Commands) -> None:
    """Describe the command."""
    parser = commands.add_parser(
        "stats",
        help="show a segment: memory, processes, and counters of its areas",
        description="Show what a segment holds and what became of its reads, over all processes of "
        "this host.  Reads only.",
    )
    parser.add_argument(
        "--name", help="the setting name (default: of this directory, or the only one in use)"
    )
    parser.add_argument("--json", action="store_true", help="for programs")
    common.add_uid(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Show it."""
    common.need_segments()
    file = _choose(arguments.name, arguments.uid)
    stats = segment.inspect(file).stats()
    if arguments.json:
        json.dump({"path": str(file.path), **stats}, sys.stdout, indent=2)
        print()
    else:
        print(render(file, stats))
    return 0


def _choose(name: str | None, uid: int) -> segment.SegmentFile:
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


def render(file: segment.SegmentFile, stats: dict[str, Any]) -> str:
    """The same for people."""
    return "\n".join([*_segment(file, stats["segment"]), *_processes(stats), *_areas(stats)])


def _segment(file: segment.SegmentFile, numbers: dict[str, Any]) -> list[str]:
    created = datetime.fromtimestamp(numbers["created"]).astimezone()
    live, room = numbers["live_bytes"], numbers["data_bytes"]
    made = [
        common.mebibytes(numbers["size"]),
        f"created {created:%Y-%m-%d %H:%M:%S}",
        f"{numbers['shards']} shards",
        f"largest item {common.mebibytes(numbers['max_item'])}",
    ]
    held = [
        f"{common.mebibytes(live)} of {common.mebibytes(room)} live ({live / room:.1%})",
        f"{numbers['entries']} entries",
    ]
    return [f"segment {file.name}  {file.path}", f"  {', '.join(made)}", f"  {', '.join(held)}"]


def _processes(stats: dict[str, Any]) -> list[str]:
    living = [each for each in stats["processes"] if each["alive"]]
    return [f"processes {len(living)}"] + [
        f"  pid {each['pid']}, attached {each['attached']:.0f} s ago" for each in living
    ]


def _areas(stats: dict[str, Any]) -> list[str]:
    if not stats["areas"]:
        return ["areas 0"]
    head = ["area", "hit ratio", *(title for title, _ in _COLUMNS)]
    rows = [head]
    for name, counted in sorted(stats["areas"].items()):
        numbers = with_ratio(counted)
        ratio = numbers["hit_ratio"]
        shown = "-" if ratio is None else f"{ratio:.1%}"
        rows.append([name, shown, *(str(numbers[counter]) for _, counter in _COLUMNS)])
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows
    ]
    return [f"areas {len(stats['areas'])}", *(f"  {line.rstrip()}" for line in lines)]
