"""``accelerator stats``: what a segment holds and what became of its reads, host-wide."""

from __future__ import annotations

import json
import os
import sys
import textwrap
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from accelerator import segment
from accelerator.cli import common, watch, words
from accelerator.config import Settings
from accelerator.errors import ConfigError
from accelerator.observability import diagnostics, particulars, prometheus, reading

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence

    from accelerator import local
    from accelerator.cli.common import Commands
    from accelerator.observability.particulars import OverrideSnapshot

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
    parser.add_argument(
        "--config",
        action="store_true",
        help="show instead how each area is configured, overrides included, and beside the time "
        "limit of loads what they took; with --json that is always shown",
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
    memory = segment.inspect(file)
    stats = memory.stats()
    if arguments.json:
        json.dump(plain(file, stats, memory), sys.stdout, indent=2)
        print()
    elif arguments.config:
        print("\n".join(configurations(particulars.of_areas(memory))))
    else:
        print(render(file, stats, particulars.in_force(memory)))
    return 0


def _prometheus(arguments: argparse.Namespace, file: segment.SegmentFile) -> int:
    if arguments.watch is not None:
        raise ConfigError("--prom is one look: leave out --watch, and let Prometheus come again")
    bound = Settings.resolve({}, {}, os.environ).freshness_bound
    found = reading.Reader(segment.inspect(file)).read(processes=False)
    sys.stdout.write(prometheus.text(found, bound))
    return 0


def plain(
    file: segment.SegmentFile, stats: Mapping[str, Any], memory: local.Segment
) -> dict[str, Any]:
    """The same for programs, by the names of ``accelerator.diagnostics()``."""
    uses_redis = bool(stats["leader"]["term"])
    return {
        "path": str(file.path),
        "segment": stats["segment"],
        "remote": diagnostics.link(stats["link"], stats["leader"]) if uses_redis else None,
        "overrides": particulars.in_force(memory),
        "hot_keys": particulars.hot_keys(memory),
        "areas": diagnostics.areas(stats, particulars.of_areas(memory)),
        "processes": stats["processes"],
    }


def render(
    file: segment.SegmentFile, stats: dict[str, Any], overrides: Sequence[OverrideSnapshot] = ()
) -> str:
    """The same for people."""
    parts = (
        _segment(file, stats["segment"]),
        [f"overrides {len(overrides)}", *(f"  {override(each)}" for each in overrides)]
        if overrides
        else [],
        _processes(stats),
        _redis(stats),
        _areas(stats),
    )
    return "\n".join(line for part in parts for line in part)


_GROUPS: Final[Mapping[str, Sequence[str]]] = {
    "values": (
        "mode",
        "local_ttl",
        "remote_ttl",
        "null_ttl",
        "ttl_jitter_ratio",
        "cache_null_value",
        "max_value_size",
        "objects",
        "version",
    ),
    "loads": (
        "loader",
        "loader_timeout",
        "batch_timeout",
        "wait_timeout",
        "soft_timeout",
        "lease",
        "max_loads",
        "penetration_protect",
        "error_ttl",
        "refresh_ahead",
        "refresh_ahead_window",
        "warmup_enabled",
    ),
    "stale": ("allow_stale", "stale_on_error", "stale_ttl", "max_staleness", "on_desync"),
    "redis": ("redis", "broadcast_invalidation", "broadcast_sets", "compress_over"),
}
_PLAIN: Final = frozenset({"ttl_jitter_ratio", "max_loads", "max_value_size", "compress_over"})
"""Numbers that are no seconds."""


def configurations(told: Mapping[str, diagnostics.AreaFacts]) -> list[str]:
    """Lines that show how each area is configured, beside what its loads took."""
    lines = []
    for name, facts in sorted(told.items()):
        lines.append(f"area {words.printable(name)}")
        config = facts["config"]
        if config is None:
            lines.append("  no process has told its configuration yet")
            continue
        for group, options in _GROUPS.items():
            shown = [f"{option} {_option(option, config[option])}" for option in options]
            if group == "loads" and facts["load_p99"] is not None:
                p50, p99 = (words.seconds(facts[each]) for each in ("load_p50", "load_p99"))
                shown.insert(2, f"its loads p50 <= {p50} p99 <= {p99}")
            lines += textwrap.wrap(
                f"{group:<8}{', '.join(shown)}",
                100,
                initial_indent="  ",
                subsequent_indent=" " * 10,
                break_on_hyphens=False,
            )
    return lines


def _option(name: str, value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value) if isinstance(value, str) or name in _PLAIN else words.seconds(value)


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


def override(each: OverrideSnapshot) -> str:
    """Write an override in a few words."""
    where = words.printable(each["area"]) or "all areas"
    left = "until reset" if each["left"] is None else f"for {words.seconds(each['left'])}"
    return f"{each['option']}={each['text']} on {where} {left}"


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
    for name, numbers in sorted(diagnostics.areas(stats, {}).items()):
        ratio = numbers["hit_ratio"]
        shown = "-" if ratio is None else f"{ratio:.1%}"
        rows.append(
            [words.printable(name), shown, *(str(numbers[counter]) for _, counter in _COLUMNS)]
        )
    return [f"areas {len(stats['areas'])}", *common.table(rows)]
