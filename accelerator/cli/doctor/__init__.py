"""
``accelerator doctor``: whether all is well with a host, what is not, and what to do about it.

Exit status: 0 nothing fails (there may be warnings), 1 something fails, or with ``--strict``
something is warned of, 2 the settings are wrong.  A check is a function of the facts; a new one
is a function more in a list.
"""

from __future__ import annotations

import json
import sys
import textwrap
from typing import TYPE_CHECKING, Any, Final

from accelerator.cli import common, words
from accelerator.cli.doctor import host, redis, segments, settings
from accelerator.cli.doctor.facts import gather
from accelerator.cli.doctor.finding import Level

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from accelerator.cli.common import Commands
    from accelerator.cli.doctor.facts import Facts
    from accelerator.cli.doctor.finding import Finding

    Check = Callable[[Facts], Iterator[Finding]]

CHECKS: Final[Sequence[Check]] = (
    *settings.CHECKS,
    *host.CHECKS,
    *segments.CHECKS,
    *redis.CHECKS,
)


def add_to(commands: Commands) -> None:
    """Describe the command."""
    parser = commands.add_parser(
        "doctor",
        help="check settings, shared memory, the segment and Redis; say what to do",
        description="Check what the cache needs, as this shell would have it: settings and where "
        "they come from, /dev/shm and limits, the segment and its processes, Redis and what its "
        "user may do.  Reads only.  Exit status: 0 nothing fails, 1 something fails, 2 the "
        "settings are wrong.",
    )
    common.add_name(parser)
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument(
        "--redis", metavar="URL", help="instead of ACCELERATOR_REDIS; others may see it in ps"
    )
    parser.add_argument(
        "--strict", action="store_true", help="warnings count as failures: status 1"
    )
    common.add_uid(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Look at everything, and say what was found."""
    given = {"name": arguments.name, "redis": arguments.redis}
    call = {name: value for name, value in given.items() if value is not None}
    facts = gather(call, arguments.uid)
    findings = examine(facts)
    if arguments.json:
        json.dump(as_data(facts, findings), sys.stdout, indent=2)
        print()
    else:
        print("\n".join(render(facts, findings, common.columns())))
    return status(findings, strict=arguments.strict)


def examine(facts: Facts) -> list[Finding]:
    """All that is to say about the facts."""
    return [finding for check in CHECKS for finding in check(facts)]


def status(findings: Iterable[Finding], *, strict: bool = False) -> int:
    """The exit status."""
    found = list(findings)
    if any(it.config for it in found):
        return 2
    bad = {Level.FAIL, Level.WARN} if strict else {Level.FAIL}
    return int(any(it.level in bad for it in found))


def as_data(facts: Facts, findings: Iterable[Finding]) -> dict[str, Any]:
    """The same for programs."""
    found = list(findings)
    return {
        "name": facts.name,
        "status": status(found),
        "counts": {level.value: _number(found, level) for level in Level},
        "settings": {
            it.setting: {"value": it.shown, "source": it.source, "problem": it.problem}
            for it in facts.origins
        },
        "findings": [
            {
                "check": it.check,
                "level": it.level.value,
                "what": it.what,
                "means": it.means,
                "cure": it.cure,
            }
            for it in found
        ],
    }


def render(facts: Facts, findings: Sequence[Finding], columns: int) -> list[str]:
    """The same for people."""
    wide = max(len(it.check) for it in findings)
    lines = [f"accelerator doctor  {facts.name}"]
    for it in findings:
        begun = f"{it.level.value:<4}  {it.check:<{wide}}  "
        lines += _wrapped(begun, words.printable(it.what), columns)
        for title, text in (("means", it.means), ("do", it.cure)):
            if text:
                lines += _wrapped(f"{'':{wide + 8}}{title + ':':<7}", text, columns)
    numbers = (_number(findings, level) for level in (Level.OK, Level.WARN, Level.FAIL))
    fine, warned, failed = numbers
    return [*lines, f"{fine} ok, {words.plural(warned, 'warning')}, {failed} failed"]


def _wrapped(begun: str, text: str, columns: int) -> list[str]:
    return textwrap.wrap(
        text,
        max(60, min(columns, 100)),
        initial_indent=begun,
        subsequent_indent=" " * len(begun),
        break_long_words=False,
        break_on_hyphens=False,
    )


def _number(findings: Iterable[Finding], level: Level) -> int:
    return sum(it.level is level for it in findings)
