"""``accelerator events``: what the processes of this host have done lately, and what failed."""

from __future__ import annotations

import argparse
import json
import select
import sys
import time
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from accelerator import segment
from accelerator.cli import asking, common, words
from accelerator.errors import ConfigError, NotAttached
from accelerator.keys import hash_text
from accelerator.observability import events

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from accelerator.cli.common import Commands
    from accelerator.observability.events import EventSum

MOST: Final = 1 << 13
"""Events that a ring has at most."""

# Of --follow the widths must be known before the lines are, so all have the same.
COLUMNS: Final = (
    ("time", 12),
    ("pid", 7),
    ("area", 12),
    ("op", 12),
    ("result", 16),
    ("kind", 16),
    ("took", 8),
    ("count", 6),
    ("key hash", 16),
)
SUM_HEAD: Final = ("area", "op", "result", "kind", "count", "last")


def add_to(commands: Commands) -> None:
    """Describe the command."""
    parser = commands.add_parser(
        "events",
        help="show what processes did lately: loads, deletes, failures, also of dead ones",
        description="Show the newest events of this host, the newest last: loads, what was "
        "forgotten on purpose, failures, and what the listener and the breaker did; also those of "
        "processes that have died since, with what they were loading then.  Hits and plain sets "
        "are none.  Keys are shown as hashes.  Reads only.",
    )
    common.add_name(parser)
    parser.add_argument("--pid", type=int, help="of this process only, as it calls itself")
    parser.add_argument("--area", help="of this area only")
    parser.add_argument("--op", help="of this operation only, such as load, mload, get, del")
    parser.add_argument("--failed", action="store_true", help="only what failed, or was cut off")
    parser.add_argument(
        "--limit",
        type=limit_option,
        default=50,
        metavar="N",
        help="show the newest N (default: 50)",
    )
    parser.add_argument(
        "--summary", action="store_true", help="sums by area, operation, result and kind of error"
    )
    parser.add_argument("--follow", action="store_true", help="go on until Ctrl-C")
    parser.add_argument("--json", action="store_true", help="for programs")
    common.add_interval(parser, 0.5)
    common.add_uid(parser)
    parser.set_defaults(run=run)


def limit_option(text: str) -> int:
    """Read a number of events that somebody has typed."""
    try:
        found = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number") from None
    if not 1 <= found <= MOST:
        raise argparse.ArgumentTypeError(f"give 1 to {MOST}")
    return found


def run(arguments: argparse.Namespace) -> int:
    """Show them."""
    if arguments.summary and arguments.follow:
        raise ConfigError("--summary is of what there is, --follow of what comes: give one of them")
    common.need_segments()
    file = common.choose(arguments.name, arguments.uid)
    if arguments.follow:
        return follow(file, arguments)
    memory = segment.inspect(file)
    found = chosen(memory.events(MOST), arguments)
    if arguments.area and not found:  # what there is of an area is shown, whatever it is called
        asking.check_area(memory, arguments.area, file.name)
    if arguments.summary:
        show_sums(file, events.aggregate(found), as_json=arguments.json)
    else:
        show(file, found[: arguments.limit][::-1], as_json=arguments.json)
    return 0


def chosen(
    found: Iterable[Mapping[str, Any]], arguments: argparse.Namespace
) -> list[Mapping[str, Any]]:
    """Those that were asked for, in their order."""
    wanted = {
        name: getattr(arguments, name)
        for name in ("pid", "area", "op")
        if getattr(arguments, name) is not None
    }
    return [
        event
        for event in found
        if all(event[name] == value for name, value in wanted.items())
        and (events.is_failure(event) or not arguments.failed)
    ]


# --- once ---------------------------------------------------------------------------------------


def show(file: segment.SegmentFile, found: Sequence[Mapping[str, Any]], *, as_json: bool) -> None:
    """Show what there is, the oldest first."""
    if as_json:
        data = {"path": str(file.path), "events": [as_data(each) for each in found]}
        json.dump(data, sys.stdout, indent=2)
        print()
        return
    print(f"segment {file.name}  {file.path}")
    print(f"events {len(found)}")
    if found:
        print("\n".join([HEAD, *map(line, found)]))


def show_sums(file: segment.SegmentFile, sums: Sequence[EventSum], *, as_json: bool) -> None:
    """Show the sums, what has happened last first."""
    if as_json:
        json.dump({"path": str(file.path), "summary": sums}, sys.stdout, indent=2)
        print()
        return
    print(f"segment {file.name}  {file.path}")
    print(f"kinds of events {len(sums)}")
    if sums:
        print("\n".join(common.table([list(SUM_HEAD), *map(sum_row, sums)])))


def as_data(event: Mapping[str, Any]) -> dict[str, Any]:
    """The same for programs."""
    key_hash = hash_text(event["hash"]) if event["hash"] else None
    return {**event, "outcome": events.outcome(event), "hash": key_hash}


def line(event: Mapping[str, Any]) -> str:
    """The same for people."""
    cells = [
        _clock(event["time"]),
        str(event["pid"]),
        _area(event["area"]),
        words.printable(event["op"]),
        _result(events.outcome(event)),
        _kind(event["error_kind"]),
        _took(event),
        f"{event['count']:,}",
        hash_text(event["hash"]) if event["hash"] else words.NOTHING,
    ]
    return _columns(cells)


def sum_row(each: EventSum) -> list[str]:
    """The cells of a sum."""
    return [
        _area(each["area"]),
        words.printable(each["op"]),
        _result(each["result"]),
        _kind(each["error_kind"]),
        f"{each['count']:,}",
        f"{words.seconds(max(0.0, time.time() - each['last']))} ago",
    ]


def _columns(cells: Sequence[str]) -> str:
    padded = (words.left(cell, width) for cell, (_, width) in zip(cells, COLUMNS, strict=True))
    return ("  " + "  ".join(padded)).rstrip()


HEAD: Final = _columns([title for title, _ in COLUMNS])


def _clock(at: float) -> str:
    """Time of day, behind the date unless that is today's."""
    when = datetime.fromtimestamp(at)  # noqa: DTZ006  the reader's own time
    text = f"{when:%H:%M:%S}.{when.microsecond // 1000:03}"
    is_today = when.date() == datetime.now().date()  # noqa: DTZ005  the same
    return text if is_today else f"{when:%Y-%m-%d} {text}"


def _area(name: str) -> str:
    return words.printable(name) or "(host)"


def _result(outcome: str) -> str:
    return "cut off by death" if outcome == events.KILLED else words.printable(outcome)


def _kind(kind: str) -> str:
    return words.NOTHING if kind in {"", "none"} else words.printable(kind)


def _took(event: Mapping[str, Any]) -> str:
    took_ms = event["latency_ms"]
    if took_ms is not None:
        # What happens at a moment, such as an election, takes no time.
        return words.seconds(took_ms / 1000) if took_ms >= 0.005 else words.NOTHING
    if not event["alive"]:
        return words.NOTHING
    return f"{words.seconds(max(0.0, time.time() - event['time']))}+"


# --- and what comes -----------------------------------------------------------------------------


class Following:
    """
    What has been shown of a ring.

    An event that was shown running is shown once more when it has ended.
    """

    def __init__(self) -> None:
        self._origin = b""
        self._shown: dict[int, str] = {}
        """By number the outcome, of the events that the ring had at the last look."""

    def new(self, memory: Any) -> list[Mapping[str, Any]]:
        """Those that have not been shown as they are, the newest first."""
        found = memory.events(MOST)
        if memory.origin != self._origin:  # another segment of that name
            self._origin, self._shown = memory.origin, {}
        shown = self._shown
        self._shown = {event["number"]: events.outcome(event) for event in found}
        return [event for event in found if shown.get(event["number"]) != events.outcome(event)]


def follow(file: segment.SegmentFile, arguments: argparse.Namespace) -> int:
    """Show events until Ctrl-C, which is no failure, or until nobody reads any more."""
    try:
        _follow(file, arguments)
    except KeyboardInterrupt:
        if sys.stdout.isatty():
            print()  # behind the ^C
    return 0


def _follow(file: segment.SegmentFile, arguments: argparse.Namespace) -> None:
    following = Following()
    limit, is_gone = arguments.limit, False
    if not arguments.json:
        print(HEAD, flush=True)
    while True:
        try:
            found = chosen(following.new(segment.inspect(file)), arguments)
        except NotAttached:
            # A restart of the application makes another one of that name.
            if not is_gone:
                print("the segment is gone; waiting for another one", file=sys.stderr)
            is_gone = True
        else:
            is_gone = False
            for event in found[:limit][::-1]:
                print(json.dumps(as_data(event)) if arguments.json else line(event))
            sys.stdout.flush()
            limit = MOST
        _pause(arguments.interval)


def _pause(seconds: float) -> None:
    """
    Wait, but not longer than somebody reads.

    Raises:
        BrokenPipeError: Nobody does; else that would show at the next event only.
    """
    try:
        watched = select.poll()
        watched.register(sys.stdout.fileno(), 0)
    except (OSError, ValueError):  # no file
        time.sleep(seconds)
        return
    if any(state & select.POLLERR for _, state in watched.poll(seconds * 1000)):
        raise BrokenPipeError
