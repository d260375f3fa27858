"""``accelerator stats``: what a segment holds and what became of its reads, host-wide."""

from __future__ import annotations

import json
import sys
from datetime import datetime
from typing import TYPE_CHECKING, Any

from accelerator import segment
from accelerator.cli import common
from accelerator.observability import diagnostics

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
    common.add_name(parser)
    parser.add_argument("--json", action="store_true", help="for programs")
    common.add_uid(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Show it."""
    common.need_segments()
    file = common.choose(arguments.name, arguments.uid)
    stats = segment.inspect(file).stats()
    if arguments.json:
        json.dump(plain(file, stats), sys.stdout, indent=2)
        print()
    else:
        print(render(file, stats))
    return 0


def plain(file: segment.SegmentFile, stats: dict[str, Any]) -> dict[str, Any]:
    """The same for programs, by the names of ``accelerator.diagnostics()``."""
    uses_redis = bool(stats["leader"]["term"])
    return {
        "path": str(file.path),
        "segment": stats["segment"],
        "remote": diagnostics.link(stats["link"], stats["leader"]) if uses_redis else None,
        "areas": diagnostics.areas(stats),
        "processes": stats["processes"],
    }


def render(file: segment.SegmentFile, stats: dict[str, Any]) -> str:
    """The same for people."""
    parts = _segment(file, stats["segment"]), _processes(stats), _redis(stats), _areas(stats)
    return "\n".join(line for part in parts for line in part)


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


def _redis(stats: dict[str, Any]) -> list[str]:
    """What the host knows of Redis; nothing if it has none."""
    link = diagnostics.link(stats["link"], stats["leader"])
    if not link["listener"]["term"]:
        return []
    confirmed = link["confirmed_age"]
    said = "has not answered yet" if confirmed is None else f"took a write {confirmed:.1f} s ago"
    state = [said, f"breaker {link['breaker']}", f"outbox {link['outbox_depth']}"]
    if link["refused"]:
        state.insert(1, "refuses writes now")
    return [f"redis {', '.join(state)}", f"  {', '.join(_listener(link['listener']))}"]


def _listener(listener: diagnostics.ListenerSnapshot) -> list[str]:
    if listener["pid"] is None:
        return ["nobody listens"]
    shown = [f"listener pid {listener['pid']}", f"term {listener['term']}"]
    since, retry = listener["connected_since"], listener["next_retry_in"]
    if since is not None:
        shown.append(f"connected for {since:.0f} s")
    else:
        shown.append("not connected" if retry is None else f"connects in {retry:.1f} s")
    return [*shown, f"{listener['reconnects']} reconnects"]


def _areas(stats: dict[str, Any]) -> list[str]:
    if not stats["areas"]:
        return ["areas 0"]
    head = ["area", "hit ratio", *(title for title, _ in _COLUMNS)]
    rows = [head]
    for name, numbers in sorted(diagnostics.areas(stats).items()):
        ratio = numbers["hit_ratio"]
        shown = "-" if ratio is None else f"{ratio:.1%}"
        rows.append([name, shown, *(str(numbers[counter]) for _, counter in _COLUMNS)])
    return [f"areas {len(stats['areas'])}", *common.table(rows)]
