"""
``accelerator probe``: whether an invalidation reaches every host, and how soon.

Exit status: 0 every host that is known of has answered, 1 one has not, nobody listens, or Redis
failed, 2 the settings are wrong.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from accelerator import segment
from accelerator.cli import common, words
from accelerator.config import Settings
from accelerator.errors import ConfigError, NotAttached
from accelerator.message import MOST_PROBED
from accelerator.observability import tables

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

    from accelerator.cli.common import Commands
    from accelerator.remote import Arrivals, Probed

_PATIENCE: Final = 2.0
"""Seconds that Redis is given here for each call, whatever ``redis_timeout`` says."""
_TIMEOUT: Final = 5.0
_SHORT: Final = 8
"""Digits of an origin that are shown."""


@dataclass(frozen=True)
class Result:
    """
    What is shown.

    Args:
        where: Of Redis, as far as that may be shown.
        timeout: Seconds that the answers were waited for at most.
        here: Origin of this host's own segment; "": there is none.
        left_out: Areas of this host that were not asked about, as they are too many.
        found: What Redis and the hosts said.
    """

    where: Mapping[str, Any]
    timeout: float
    here: str
    left_out: int
    found: Arrivals


def add_to(commands: Commands) -> None:
    """Describe the command."""
    parser = commands.add_parser(
        "probe",
        help="send a test invalidation, and time its arrival on every host",
        description="Publish an invalidation that makes nothing old, in one area or in all that "
        "this host has in Redis, by the way that all take: numbered, logged, told.  Each host "
        "answers when it has applied all up to it.  Shows the time to each answer, and who does "
        "not answer.  Changes no value; the number of each area rises by one.  Exit status: 0 all "
        "have answered, 1 one has not, 2 the settings are wrong.",
    )
    common.add_name(parser)
    parser.add_argument("--area", help="only this one (default: all that this host has in Redis)")
    parser.add_argument(
        "--redis", metavar="URL", help="instead of ACCELERATOR_REDIS; others may see it in ps"
    )
    parser.add_argument(
        "--timeout",
        type=common.seconds_option,
        default=_TIMEOUT,
        metavar="SECONDS",
        help=f"to wait for the answers (default: {_TIMEOUT:g})",
    )
    parser.add_argument("--json", action="store_true", help="for programs")
    common.add_uid(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Send it, and show what came back."""
    result = probe(arguments)
    if arguments.json:
        json.dump(as_data(result), sys.stdout, indent=2)
        print()
    else:
        print("\n".join(render(result)))
    return status(result)


def probe(arguments: argparse.Namespace) -> Result:
    """Ask all hosts."""
    settings = _settings(arguments)
    here, watched = _host(arguments)
    areas = [arguments.area] if arguments.area else watched
    if not areas:
        raise ConfigError("this host has no area in Redis: name one with --area", setting="area")
    from accelerator import remote  # noqa: PLC0415  only where there is Redis

    reached = remote.reach(settings)
    try:
        found = remote.measure(reached, areas, arguments.timeout)
        where = reached.describe()
    finally:
        reached.close()
    return Result(where, arguments.timeout, here, max(0, len(areas) - MOST_PROBED), found)


def _settings(arguments: argparse.Namespace) -> Settings:
    given = {"name": arguments.name, "redis": arguments.redis}
    call = {name: value for name, value in given.items() if value is not None}
    settings = Settings.resolve(call, {}, os.environ)
    if settings.redis is None:
        raise ConfigError(
            "there is no Redis in these settings: give --redis or ACCELERATOR_REDIS.  Hosts with a "
            "second level of their own (remote=) cannot be probed: there is no channel on which "
            "they could answer",
            setting="redis",
        )
    if settings.remote_problem is not None:
        raise ConfigError(settings.remote_problem, setting="redis")
    return replace(settings, redis_timeout=max(_PATIENCE, settings.redis_timeout))


def _host(arguments: argparse.Namespace) -> tuple[str, list[str]]:
    """Give origin and areas of this host's segment; it may have none."""
    if not segment.AVAILABLE:
        return "", []
    try:
        memory = segment.inspect(common.choose(arguments.name, arguments.uid))
    except NotAttached:
        return "", []
    return memory.origin.hex(), [row.name for row in tables.areas(memory) if row.watched]


def status(result: Result) -> int:
    """The exit status: of what is not known nothing is said."""
    hosts = result.found.hosts
    areas = result.found.areas
    fine = all(it.arrivals and not it.missing(hosts) for it in areas)
    return 0 if fine else 1


def as_data(result: Result) -> dict[str, Any]:
    """The same for programs."""
    hosts = result.found.hosts
    return {
        "redis": result.where["redis"],
        "db": result.where["db"],
        "timeout": result.timeout,
        "status": status(result),
        "areas_left_out": result.left_out,
        "hosts": None if hosts is None else dict(hosts),
        "areas": [
            {
                "area": it.area,
                "seq": it.seq,
                "listeners": it.listeners,
                "missing": it.missing(hosts),
                "replaced": it.replaced(hosts),
                "silent": it.silent(hosts) if it.missing(hosts) else [],
                "arrivals": [
                    {
                        "host": each.host,
                        "origin": each.origin,
                        "pid": each.pid,
                        "seq": it.seq,
                        "round_trip_ms": round(each.seconds * 1000, 3),
                        "here": each.origin == result.here,
                    }
                    for each in it.arrivals.values()
                ],
            }
            for it in result.found.areas
        ],
    }


def render(result: Result) -> list[str]:
    """The same for people."""
    where = result.where
    lines = [f"accelerator probe  {where['redis']}, database {where['db']}"]
    for it in result.found.areas:
        lines += _area(result, it)
    if result.left_out:
        lines.append(f"{words.plural(result.left_out, 'area')} more were not asked: give --area")
    return lines


def _area(result: Result, it: Probed) -> list[str]:
    lines = [f"area {words.printable(it.area)}, number {it.seq}: {_verdict(result, it)}"]
    if it.arrivals:
        rows = [["host", "origin", "pid", "number", "round trip", ""]]
        for each in sorted(it.arrivals.values(), key=lambda each: each.seconds):
            here = "this host" if each.origin == result.here else ""
            host = words.cut(words.printable(each.host), 32)
            took = words.seconds(each.seconds)
            rows.append([host, each.origin[:_SHORT], str(each.pid), str(it.seq), took, here])
        lines += common.table(rows)
    return lines + _missing(result, it)


def _verdict(result: Result, it: Probed) -> str:
    missing = it.missing(result.found.hosts)
    answered = len(it.arrivals)
    if missing is None:
        told = f"{words.plural(answered, 'answer')}, of how many is not known"
    elif not it.listeners and not answered:
        return "NOBODY LISTENS"
    elif missing:
        return f"{answered} of {answered + missing} answered, {missing} MISSING"
    else:
        told = f"{words.plural(answered, 'listener')}, all answered"
    if not answered:
        return told
    slowest = max(each.seconds for each in it.arrivals.values())
    return f"{told}, the slowest after {words.seconds(slowest)}"


def _missing(result: Result, it: Probed) -> list[str]:
    """Tell who has not answered, as far as it is known."""
    hosts = result.found.hosts
    lines = []
    missing = it.missing(hosts)
    if missing is None:
        lines.append("  who should answer is not known: on a cluster that takes the right +pubsub")
    elif missing:
        silent = it.silent(hosts)
        named = ", ".join(_named(result, origin) for origin in silent)
        if hosts is None:
            lines.append("  which hosts that is takes the right +pubsub")
        elif len(silent) == missing:
            lines.append(f"  missing: {named}, within {words.seconds(result.timeout)}")
        elif silent:
            lines.append(f"  missing: {missing} of {named}, within {words.seconds(result.timeout)}")
        else:
            lines.append("  no host is: somebody else subscribes to this channel")
    if replaced := it.replaced(hosts):
        lines.append(
            f"  {words.plural(replaced, 'connection')} more of hosts that answered: of listeners "
            "that were stopped, and replaced"
        )
    return lines


def _named(result: Result, origin: str) -> str:
    return f"{origin[:_SHORT]}{' (this host)' if origin == result.here else ''}"
