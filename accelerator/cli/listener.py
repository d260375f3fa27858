"""``accelerator listener``: who hears for this host what others have changed, and how well."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from accelerator.cli import common, frame, snapshot, words

if TYPE_CHECKING:
    import argparse

    from accelerator.cli.common import Commands
    from accelerator.cli.snapshot import Snapshot


def add_to(commands: Commands) -> None:
    """Describe the command."""
    parser = commands.add_parser(
        "listener",
        help="show who listens for this host, and how current each area is",
        description="Show which process of this host hears what others have changed, whether it "
        "is connected, and how current each area is.  From the segment alone: Redis is not asked.  "
        "Reads only.",
    )
    common.add_name(parser)
    parser.add_argument("--json", action="store_true", help="for programs")
    common.add_uid(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Show it."""
    common.need_segments()
    file = common.choose(arguments.name, arguments.uid)
    seen = snapshot.take(file)
    if arguments.json:
        json.dump(as_data(seen), sys.stdout, indent=2)
        print()
    else:
        print("\n".join(render(seen)))
    return 0


def as_data(seen: Snapshot) -> dict[str, Any]:
    """The same for programs."""
    leader, link = seen.stats["leader"], seen.stats["link"]
    return {
        "path": str(seen.file.path),
        "origin": seen.origin.hex(),
        "listener": {**leader, "alive": _alive(seen)},
        "link": dict(link),
        "areas": {
            row.name: {
                "in_step": row.in_step_for is not None and row.in_step_for >= 0,
                "in_step_for": row.in_step_for,
                "owes_clear": row.name in seen.owed,
            }
            for row in seen.rows
            if row.watched
        },
    }


def _alive(seen: Snapshot) -> bool:
    leader = seen.stats["leader"]["incarnation"]
    return any(worker.incarnation == leader for worker in seen.workers)


def render(seen: Snapshot) -> list[str]:
    """The same for people."""
    head = f"segment {seen.file.name}  {seen.file.path}  origin {seen.origin.hex()[:8]}"
    watched = [row for row in seen.rows if row.watched]
    if not seen.stats["leader"]["term"] and not watched:
        return [head, "no Redis: no area of this segment has a second level, so nobody listens"]
    return [head, *_listener(seen), *_link(seen), *_outbox(seen), *_areas(seen)]


def _listener(seen: Snapshot) -> list[str]:
    leader, link = seen.stats["leader"], seen.stats["link"]
    if not leader["incarnation"]:
        return [f"listener none, after term {leader['term']}"]
    beat = words.seconds(leader["beat_age"])
    alive = f"beat {beat} ago" if _alive(seen) else "DEAD, another takes over"
    since, retry = link["connected_since"], link["next_retry_in"]
    if since is not None:
        state = f"connected for {words.seconds(since)}"
    elif retry is None:
        state = "not connected"
    else:
        state = f"not connected, tries again in {words.seconds(retry)}"
    message = link["last_message_age"]
    heard = "nothing heard yet" if message is None else f"heard {words.seconds(message)} ago"
    return [
        f"listener pid {leader['pid']}, term {leader['term']}, {alive}",
        f"  {state}, {heard}, {words.plural(link['reconnects'], 'reconnect')}",
    ]


def _link(seen: Snapshot) -> list[str]:
    link = seen.stats["link"]
    confirmed = link["confirmed_age"]
    took = "no write yet" if confirmed is None else f"a write {words.seconds(confirmed)} ago"
    state = [f"took {took}", f"breaker {link['breaker']}"]
    if link["failures"]:
        state.append(words.plural(link["failures"], "failure") + " in a row")
    if link["breaker"] == "open":
        state.append(f"asked again in {words.seconds(link['open_for'])}")
    if link["refused"]:
        state.append("refuses writes")
    if not link["settled"]:
        state.append("back for less than a second, not read yet")
    return [f"redis {', '.join(state)}"]


def _outbox(seen: Snapshot) -> list[str]:
    link = seen.stats["link"]
    state = [f"{link['outbox_depth']} to be told"]
    if link["outbox_oldest_age"] is not None:
        state.append(f"the oldest for {words.seconds(link['outbox_oldest_age'])}")
    if link["outbox_dropped"]:
        state.append(f"{link['outbox_dropped']} did not fit since the segment was made")
    return [f"outbox {', '.join(state)}"]


def _areas(seen: Snapshot) -> list[str]:
    watched = [row for row in seen.rows if row.watched]
    if not watched:
        return ["areas 0"]
    rows = [["area", "in step", "for the next", "received", "gaps", "flushes", ""]]
    for row in watched:
        counted = seen.stats["areas"].get(row.name, {})
        left = row.in_step_for
        rows.append(
            [
                words.printable(row.name),
                frame.in_step(row),
                words.seconds(left) if left is not None and left >= 0 else words.NOTHING,
                *(str(counted.get(name, 0)) for name in ("invalidation_receive", "gap", "flush")),
                "owes the others a clear" if row.name in seen.owed else "",
            ]
        )
    return [f"areas {len(watched)}", *common.table(rows)]
