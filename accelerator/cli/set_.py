"""
``accelerator set``: override options of areas for now, in all processes of this host.

Each option is one store of one word (value and deadline together), so killed at any point each of
them is set or is not.  A word that ends or changes a mode in which the area was kept from what
others tell (local, off) is stored behind the raise of the area's generation: nothing that was
stored meanwhile is believed after it.  Of two commands at the same moment the later counts, option
by option, and the other one says so.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from accelerator import overrides, segment
from accelerator.cli import asking, common, words
from accelerator.durations import seconds
from accelerator.entry import CacheMode
from accelerator.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from accelerator import local
    from accelerator.cli.common import Commands
    from accelerator.overrides import Override

PATIENCE: Final = 5.0
LONGEST: Final = 90 * 86400.0
"""Seconds that a time limit may be."""
DEFAULT: Final = "default"
_INDEX: Final = {name: number for number, name in enumerate(overrides.OPTIONS)}

COSTS: Final = {
    ("mode", CacheMode.LOCAL): "Redis is not asked; deletes and sets are told to it by the "
    "listener, a little later; add, incr and touch fail; nothing bounds how old values are; at its "
    "end the area is forgotten here",
    ("mode", CacheMode.REMOTE): "nothing is kept on this host: each read asks Redis",
    ("mode", CacheMode.BOTH): "values are kept on this host, and in Redis",
    ("mode", CacheMode.OFF): "each read is a load; nothing is stored; deletes are told to Redis "
    "all the same; at its end the area is forgotten here",
    "loader_timeout": "a load that takes longer counts as late; an async loader is cancelled",
    "max_loads": "more uncoordinated loads than that are refused (LoaderTimeout)",
    "ttl": "no value that is stored from now on lives longer; those that are there keep their "
    "lives (flush ends them)",
    ("allow_stale", True): "reads are given values past their lives, for up to the stale_ttl of "
    "the area (1 h if it has none) after them; only what is stored from now on is kept for that",
    ("allow_stale", False): "reads that do not ask for stale values are given none",
    ("penetration_protect", True): "one load per key and host",
    ("penetration_protect", False): "each miss is a load, however many want the same key",
    ("on_desync", "cap"): "while Redis does not answer, only what is younger than the bound",
    ("on_desync", "bypass"): "while Redis does not answer, nothing from this host",
    ("on_desync", "serve"): "while Redis does not answer, what is there, however old",
    ("breaker", "open"): "Redis is not asked; changes are queued",
    ("breaker", "closed"): "Redis is asked, however often it fails: each call waits its time limit",
}
"""By option, or option and value: what it does."""


class Order(NamedTuple):
    """One thing to be done."""

    area: str
    option: str
    value: Any
    """None: the override is removed."""


def add_to(commands: Commands) -> None:
    """Describe the command."""
    parser = commands.add_parser(
        "set",
        help="override options of an area, or of all, for a time; or show what is in force",
        description="Override options in all processes of this host, until --for has passed or "
        f"OPTION={DEFAULT} removes it.  An area's own overrides count before those of the host.  "
        "Without an option: show what is in force.  Says what it will do, and asks.  Exit status "
        "0: all living processes act on it; 1: some do not yet.",
        epilog=_possible(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("options", metavar="OPTION=VALUE", nargs="*", help="see below")
    parser.add_argument("--area", help="of this area only (default: of all areas of the host)")
    parser.add_argument(
        "--for",
        dest="limit",
        type=_limit,
        metavar="DURATION",
        help="how long: 90s, 10m, 1h30m (default: until it is removed)",
    )
    parser.add_argument(
        "--reset",
        action="store_true",
        help="remove all overrides of the area; without --area all that there are",
    )
    parser.add_argument("--json", action="store_true", help="show what is in force, for programs")
    asking.add_to(parser, PATIENCE)
    common.add_name(parser)
    common.add_uid(parser)
    parser.set_defaults(run=run)


def _possible() -> str:
    values = {
        "mode": "local, remote, both, off",
        "loader_timeout": "a duration, such as 5s",
        "max_loads": f"1 to {overrides.MOST_LOADS}",
        "ttl": "a duration: longest life of what is stored from now on",
        "allow_stale": "yes, no",
        "penetration_protect": "yes, no",
        "on_desync": ", ".join(overrides.ON_DESYNC),
        "breaker": "open, closed (of the host only)",
    }
    lines = (f"  {name:<21}{values[name]}" for name in overrides.OPTIONS)
    return "\n".join(["options:", *lines])


def _limit(text: str) -> float:
    try:
        found = seconds(text, name="DURATION")
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if not 1 <= found <= LONGEST:
        raise argparse.ArgumentTypeError("give 1 s to 90 d")
    return found


# --- what is wanted -----------------------------------------------------------------------------


def orders_of(arguments: argparse.Namespace, rows: Sequence[overrides.Row]) -> list[Order]:
    """
    Read what is to be done.

    Raises:
        ConfigError: It cannot be meant like that.
    """
    area = overrides.HOST if arguments.area is None else arguments.area
    if arguments.reset:
        if arguments.options:
            raise ConfigError("--reset removes all: give it without options")
        return [
            Order(each.area, each.option, None)
            for each in overrides.listed(rows)
            if arguments.area in {None, each.area}
        ]
    orders = [_order(area, text) for text in arguments.options]
    names = [each.option for each in orders]
    if len(set(names)) < len(names):
        raise ConfigError("an option is given twice")
    if arguments.limit is not None and any(each.value is None for each in orders):
        raise ConfigError(f"--for has no effect on {DEFAULT}, which removes an override at once")
    return orders


def _order(area: str, text: str) -> Order:
    option, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(f"{option!r} is no OPTION=VALUE")
    if value == DEFAULT and option in overrides.OPTIONS:
        parsed = None
    else:
        try:
            parsed = overrides.parse(option, value)
        except ValueError as error:
            raise ConfigError(str(error)) from None
    if area and option in overrides.HOST_ONLY:
        raise ConfigError(f"{option} is one for all areas of the host: leave --area out")
    return Order(area, option, parsed)


def check(orders: Sequence[Order], memory: local.Segment) -> None:
    """
    See whether an area can do what is wanted of it.

    Raises:
        ConfigError: It would need Redis, which it does not use.
    """
    watched = set(memory.watched())
    for each in orders:
        needs_redis = each.option == "mode" and each.value in {CacheMode.BOTH, CacheMode.REMOTE}
        if needs_redis and not (watched if each.area == overrides.HOST else {each.area} & watched):
            area = words.printable(each.area)
            why = f"area {area} does not use it" if area else "no area uses it"
            raise ConfigError(f"mode={each.value} needs Redis, and {why}")


# --- doing it -----------------------------------------------------------------------------------


def run(arguments: argparse.Namespace) -> int:
    """Show what is in force, or change it."""
    common.need_segments()
    file = common.choose(arguments.name, arguments.uid)
    seen = segment.inspect(file)
    if arguments.area is not None:
        asking.check_area(seen, arguments.area, file.name)
    orders = orders_of(arguments, seen.overrides())
    check(orders, seen)
    if not arguments.options and (arguments.json or not arguments.reset):
        return _show(file, seen, as_json=arguments.json)
    if not orders:
        print("there is nothing to be removed")
        return 0
    if not asking.agreed(plan(orders, arguments.limit, file.name), yes=arguments.yes):
        return 1
    with segment.writable(file) as memory:
        _carry_out(memory, orders, arguments.limit)
        return _judged(memory, orders, arguments.timeout)


def plan(orders: Sequence[Order], limit: float | None, name: str) -> Iterator[str]:
    """Say what will be done, and what it does."""
    until = "" if limit is None else f" for {words.seconds(limit)}"
    yield f"override options in segment {name}{until}:"
    for each in orders:
        where = f"area {words.printable(each.area)}" if each.area else "all areas"
        if each.value is None:
            yield f"  {where}: {each.option} as the application says"
            continue
        yield f"  {where}: {each.option}={overrides.written(each.option, each.value)}"
        cost = COSTS.get((each.option, each.value), COSTS.get(each.option, ""))
        yield f"    {cost}"


def _carry_out(memory: local.Segment, orders: Sequence[Order], limit: float | None) -> None:
    started = time.monotonic()
    for each in orders:
        number = None if each.value is None else overrides.encode(each.option, each.value)
        memory.override(each.area, _INDEX[each.option], number, None if number is None else limit)
    for area in dict.fromkeys(each.area for each in orders):
        memory.event(area, "override", "ok", asking.who(), time.monotonic() - started)


def _judged(memory: local.Segment, orders: Sequence[Order], patience: float) -> int:
    """Wait until all living processes act on it, and say how far it has got."""

    def is_seen() -> bool:
        seen, living = memory.overrides_seen()
        return seen >= living

    is_done = asking.until(is_seen, patience)
    others = [each for each in orders if not _is_in_force(memory, each)]
    for each in others:
        print(f"{each.option} is another by now: somebody else has set it, or its time is over")
    seen, living = memory.overrides_seen()
    if not is_done:
        print(
            f"set, and {living - seen} of {words.plural(living, 'process', 'processes')} have not "
            f"noticed after {words.seconds(patience)}: are they stopped?  They will when they run"
        )
    elif living:
        print(f"in force: {words.plural(living, 'process acts', 'processes act')} on it")
    else:
        print("set: no process runs, and what begins acts on it")
    return 0 if is_done and not others else 1


def _is_in_force(memory: local.Segment, order: Order) -> bool:
    found = {
        each.value
        for each in overrides.listed(memory.overrides())
        if (each.area, each.option) == (order.area, order.option)
    }
    return found == (set() if order.value is None else {order.value})


# --- showing ------------------------------------------------------------------------------------


def _show(file: segment.SegmentFile, memory: local.Segment, *, as_json: bool) -> int:
    rows = memory.overrides()
    if as_json:
        shown = {"path": str(file.path), "overrides": overrides.shown(rows)}
        json.dump(shown, sys.stdout, indent=2)
        print()
        return 0
    found = overrides.listed(rows)
    print(f"segment {file.name}  {file.path}")
    print(f"overrides {len(found)}")
    if found:
        head = ["area", "option", "value", "left"]
        print("\n".join(common.table([head, *map(_cells, found)])))
    return 0


def _cells(each: Override) -> list[str]:
    left = "until it is removed" if each.left is None else words.seconds(max(each.left, 0.0))
    area = words.printable(each.area) if each.area else "(all)"
    return [area, each.option, overrides.written(each.option, each.value), left]
