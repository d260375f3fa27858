"""``accelerator flights``: loads that run on this host right now."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from accelerator import segment
from accelerator.cli import common
from accelerator.keys import hash_text

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

    from accelerator.cli.common import Commands

HEAD = ("area", "key hash", "pid", "alive", "age", "lease left", "waiters", "")


def add_to(commands: Commands) -> None:
    """Describe the command."""
    parser = commands.add_parser(
        "flights",
        help="show the loads that run and the locks that are held: who, for how long, who waits",
        description="Show the loads that run on this host, and the named locks: the process that "
        "loads or holds, for how long, and how many wait for it.  Keys and names are shown as "
        "hashes.  Reads only.",
    )
    common.add_name(parser)
    parser.add_argument("--json", action="store_true", help="for programs")
    common.add_uid(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Show them."""
    common.need_segments()
    file = common.choose(arguments.name, arguments.uid)
    flights = sorted(segment.inspect(file).flights(), key=lambda each: -each["age"])
    if arguments.json:
        shown = [{**each, "hash": hash_text(each["hash"])} for each in flights]
        json.dump({"path": str(file.path), "flights": shown}, sys.stdout, indent=2)
        print()
    else:
        print(render(file, flights))
    return 0


def render(file: segment.SegmentFile, flights: list[dict[str, Any]]) -> str:
    """The same for people."""
    head = f"segment {file.name}  {file.path}"
    if not flights:
        return f"{head}\nflights 0"
    lines = common.table([list(HEAD), *(row(each) for each in flights)])
    return "\n".join([head, f"flights {len(flights)}", *lines])


def row(each: Mapping[str, Any]) -> list[str]:
    """The cells of one."""
    notes = [name for name in ("alone", "lock", "overtaken") if each[name]]
    return [
        each["area"],
        hash_text(each["hash"]),
        str(each["pid"]),
        "yes" if each["alive"] else "no",
        f"{each['age']:.1f} s",
        f"{each['lease_left']:.1f} s",
        str(each["waiters"]),
        ", ".join(notes),
    ]
