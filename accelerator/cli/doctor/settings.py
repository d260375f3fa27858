"""Checks of the settings: whether each is right, where it comes from, and what has no effect."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from accelerator.cli import words
from accelerator.cli.doctor.finding import Finding, fail, ok, warn
from accelerator.entry import CacheMode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from accelerator.cli.doctor.facts import Facts

_SAFE: Final = "attach() logs an ERROR, and the process caches in its own memory with defaults"


def each(facts: Facts) -> Iterator[Finding]:
    """Every setting that is wrong, not only the first."""
    wrong = [it for it in facts.origins if it.problem is not None]
    for it in wrong:
        where = "the command line" if it.source == "call" else it.source
        yield fail(
            "settings",
            f"{it.setting}, from {where}: {it.problem}",
            _SAFE,
            f"correct {where}, or leave it out",
            config=True,
        )
    if not wrong and facts.problem is not None:
        yield fail("settings", facts.problem, _SAFE, "correct the settings", config=True)
    elif not wrong:
        given = [it for it in facts.origins if it.source != "default"]
        shown = (f"{it.setting}={it.shown} ({_source(it.source)})" for it in given)
        yield ok("settings", ", ".join(shown) or "all of them are defaults")


def _source(source: str) -> str:
    return "command line" if source == "call" else source


def unknown(facts: Facts) -> Iterator[Finding]:
    """Variables that nobody reads."""
    for name, meant in facts.unknown.items():
        yield warn(
            "variables",
            f"{name} is no setting",
            "nobody reads it",
            f"did you mean {meant}?" if meant else "remove it",
        )


def redis_names(facts: Facts) -> Iterator[Finding]:
    """Redis needs a name that all hosts share."""
    problem = None if facts.settings is None else facts.settings.remote_problem
    if problem is not None:
        yield fail(
            "settings",
            problem,
            "attach() logs an ERROR, and areas are LOCAL",
            "set ACCELERATOR_NAMESPACE",
            config=True,
        )


_WITH_REDIS: Final = ("namespace", "redis_timeout", "reconnect", "freshness_bound")


def ineffective(facts: Facts) -> Iterator[Finding]:
    """Settings that have no effect beside the others."""
    settings = facts.settings
    if settings is None:
        return
    if settings.mode is CacheMode.OFF:
        yield warn(
            "combinations",
            "mode=off",
            "nothing is cached at all",
            "leave it out when it has served",
        )
    if settings.redis is None:
        given = [name for name in _WITH_REDIS if facts.given(name)]
        if given:
            yield warn(
                "combinations",
                f"{', '.join(given)} without redis",
                "without redis they have no effect, and hosts do not hear each other",
                "set ACCELERATOR_REDIS, or leave them out",
            )
    elif settings.mode is CacheMode.LOCAL:
        yield warn(
            "combinations",
            "mode=local beside redis",
            "no area uses Redis, and hosts do not hear each other",
            "leave one of them out",
        )
    if settings.local == "process":
        yield warn(
            "combinations",
            "local=process",
            "every process caches alone: workers neither share values nor hear each other's "
            "deletes, except through Redis",
            "leave it out where workers are to share",
        )


def bound(facts: Facts) -> Iterator[Finding]:
    """Whether heartbeats can come back within the bound."""
    settings = facts.settings
    if settings is None or settings.redis is None:
        return
    if settings.freshness_bound < 2 * settings.redis_timeout:
        yield warn(
            "combinations",
            f"freshness_bound={settings.freshness_bound:g} beside "
            f"redis_timeout={settings.redis_timeout:g}",
            "a single call that takes its whole time limit makes the host count as out of step",
            f"make freshness_bound at least {words.seconds(4 * settings.redis_timeout)}",
        )


def of_the_workers(facts: Facts) -> Iterator[Finding]:
    """Whether this shell and the workers have been told the same."""
    groups: dict[tuple[str, ...], list[int]] = {}
    for pid, differences in facts.others.items():
        groups.setdefault(tuple(differences), []).append(pid)
    for told, pids in groups.items():
        who = "process " + str(pids[0]) if len(pids) == 1 else f"{len(pids)} processes"
        yield warn(
            "environment",
            f"{who} of the segment {'has' if len(pids) == 1 else 'have'} {', '.join(told)}",
            "this shell has other settings than the application, and so has what is said here "
            "about settings and Redis",
            "run the doctor with the environment of the service",
        )


CHECKS: Final = (each, redis_names, unknown, ineffective, bound, of_the_workers)
