"""
``accelerator flush``: forget an area, on this host and everywhere.

Two stores, in this order, each of them whole whenever the command is killed::

    1. the area owes a clear: from here on no reader of this host is given what Redis has of it,
       until the listener has cleared it in Redis and told all hosts, this one among them
    2. its generation is raised: what this host holds is forgotten

Killed before 1, nothing has happened.  Killed between them, the listener does all of it, and if it
is killed, the next one; the command has not said then that anything is done.  Nothing takes either
of them back.  A reader that has fetched a copy from Redis before 1 does not store it behind 2, as
the generation is not that of before.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from accelerator import segment
from accelerator.cli import asking, common, words

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from accelerator import local
    from accelerator.cli.common import Commands

PATIENCE: Final = 5.0


def add_to(commands: Commands) -> None:
    """Describe the command."""
    parser = commands.add_parser(
        "flush",
        help="forget an area, on all hosts and in Redis, or on this host only",
        description="Forget all values of an area: on this host at once, and, where it uses Redis, "
        "there and on all other hosts as soon as the listener gets to it.  Says what it will do, "
        "and asks.  Exit status 0: done everywhere; 1: it is not, or not yet.",
    )
    parser.add_argument("--area", required=True, help="which one")
    parser.add_argument(
        "--host-only",
        action="store_true",
        help="leave Redis and the other hosts as they are; readers here take the copies from Redis",
    )
    asking.add_to(parser, PATIENCE)
    common.add_name(parser)
    common.add_uid(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Do it, and say how far it has got."""
    common.need_segments()
    file = common.choose(arguments.name, arguments.uid)
    seen, area = segment.inspect(file), arguments.area
    asking.check_area(seen, area, file.name)
    in_redis = area in seen.watched() and not arguments.host_only
    if not asking.agreed(plan(seen, file.name, area, arguments), yes=arguments.yes):
        return 1
    started = time.monotonic()
    with segment.writable(file) as memory:
        if in_redis:
            memory.outbox_owe(area)
        memory.clear_area(area)
        memory.event(area, "flush", "ok", asking.who(), time.monotonic() - started)
        print("this host: done")
        if not in_redis:
            return 0
        if asking.until(lambda: area not in memory.outbox_owed(), arguments.timeout):
            print(f"Redis and all hosts: done, {words.seconds(time.monotonic() - started)}")
            return 0
        print(f"Redis and all hosts: queued.  {_why_not(memory)}")
    return 1


def plan(memory: local.Segment, name: str, area: str, arguments: Any) -> Iterator[str]:
    """Say what will be done, and what it costs."""
    held = memory.stats()["areas"][area]
    yield f"flush area {words.printable(area)} of segment {name}"
    yield (
        f"  this host: about {words.plural(held['entries'], 'entry', 'entries')}, "
        f"{words.size(held['bytes'])}, are forgotten at once"
    )
    if area not in memory.watched():
        yield "  the area does not use Redis: each miss is a load, as on a cold start"
    elif arguments.host_only:
        yield "  Redis and the other hosts keep theirs: readers here take the copies from Redis"
    else:
        yield "  Redis and all hosts: the listener of this host clears the area there"
        yield "  each first read of a key is a load, on all hosts, as on a cold start"


def _why_not(memory: local.Segment) -> str:
    """Say why it is not done yet, and what happens next."""
    if not memory.leader()["incarnation"]:
        return "No process of this host listens: it is done when one does."
    age = memory.link()["confirmed_age"]
    since = "has not answered yet" if age is None else f"last answered {words.seconds(age)} ago"
    return f"Redis {since}: it is done as soon as Redis takes it; nothing has to be repeated."
