"""``accelerator stats``: what a segment holds and what became of its reads, host-wide."""

from __future__ import annotations

import json
import os
import sys
from datetime import datetime
from typing import TYPE_CHECKING, Any

from accelerator import segment
from accelerator.cli import common, watch
from accelerator.config import Settings
from accelerator.errors import ConfigError
from accelerator.observability import diagnostics, prometheus, reading

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

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
    shape = parser.add_mutually_exclusive_group()
    shape.add_argument("--json", action="store_true", help="for programs")
    shape.add_argument(
        "--prom", action="store_true", help="for Prometheus: every metric in its text format"
    )
    parser.add_argument(
        "--watch",
        nargs="?",
        type=common.seconds_option,
        const=1.0,
        metavar="SECONDS",
        help="one line every so often (default: every second), until Ctrl-C; with --json: all of "
        "it in one line",
    )
    common.add_uid(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Show it."""
    common.need_segments()
    file = common.choose(arguments.name, arguments.uid)
    if arguments.prom:
        return _prometheus(arguments, file)
    if arguments.watch is not None:
        return watch.run(file, arguments.watch, as_json=arguments.json)
    stats = segment.inspect(file).stats()
    if arguments.json:
        json.dump(plain(file, stats), sys.stdout, indent=2)
        print()
    else:
        print(render(file, stats))
    return 0


def _prometheus(arguments: argparse.Namespace, file: segment.SegmentFile) -> int:
    if arguments.watch is not None:
        raise ConfigError("--prom is one look: leave out --watch, and let Prometheus come again")
    bound = Settings.resolve({}, {}, os.environ).freshness_bound
    found = reading.Reader(segment.inspect(file)).read(processes=False)
    sys.stdout.write(prometheus.text(found, bound))
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
    link, leader = stats["link"], stats["leader"]
    if not leader["term"]:
        return []
    return [
        f"redis {', '.join(redis_state(link))}",
        f"  {', '.join(redis_listener(link, leader))}",
    ]


def redis_state(link: Mapping[str, Any]) -> list[str]:
    """Whether Redis takes what this host tells it."""
    confirmed = link["confirmed_age"]
    said = "has not answered yet" if confirmed is None else f"took a write {confirmed:.1f} s ago"
    state = [said, f"breaker {link['breaker']}", f"outbox {link['outbox_depth']}"]
    if link["refused"]:
        state.insert(1, "refuses writes now")
    return state


def redis_listener(link: Mapping[str, Any], leader: Mapping[str, Any]) -> list[str]:
    """Who listens for this host."""
    if not leader["pid"]:
        return ["nobody listens"]
    shown = [f"listener pid {leader['pid']}", f"term {leader['term']}"]
    since, retry = link["connected_since"], link["next_retry_in"]
    if since is not None:
        shown.append(f"connected for {since:.0f} s")
    else:
        shown.append("not connected" if retry is None else f"connects in {retry:.1f} s")
    return [*shown, f"{link['reconnects']} reconnects"]


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
