"""Checks of what lies in /dev/shm, and of the segment that is meant."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from accelerator import segment
from accelerator.cli import words
from accelerator.cli.doctor.finding import Finding, fail, ok, warn
from accelerator.cli.doctor.host import ALONE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from accelerator.cli.doctor.facts import Facts

_REPORT: Final = "report it, with the output of accelerator stats --json"


def there(facts: Facts) -> Iterator[Finding]:
    """The segment that is meant."""
    if not facts.native:
        return
    seen = facts.seen
    if seen is None:
        yield ok("segment", f"there is none called {facts.name}: the first process makes it")
        return
    numbers = seen.stats["segment"]
    yield ok(
        "segment",
        f"{seen.file.path}: {words.size(numbers['size'])}, "
        f"{words.plural(len(seen.workers), 'process', 'processes')}, "
        f"{words.plural(len(seen.stats['areas']), 'area')}",
    )


def refused(facts: Facts) -> Iterator[Finding]:
    """Files of our names that no process would use."""
    for it in facts.found:
        if it.refused is not None and it.file.uid == facts.uid:
            meant = it.file.name == facts.name and it.file.layout == _layout(facts)
            make = fail if meant else warn
            yield make(
                "permissions",
                f"{it.file.path} is refused: {it.refused}",
                f"{ALONE}, with this name" if meant else "nobody uses it",
                f"find out who made it, then accelerator unlink --force {it.file.name}",
            )


def _layout(facts: Facts) -> int:
    return segment.layout() if facts.native else 0


def namesakes(facts: Facts) -> Iterator[Finding]:
    """The same application under another user."""
    for it in facts.found:
        if it.file.name == facts.name and it.file.uid != facts.uid:
            yield warn(
                "other users",
                f"{it.file.path} is a segment of the same name of uid {it.file.uid}",
                "processes of different users share nothing and do not hear each other's deletes, "
                "except through Redis",
                "run all of the application as one user, or give the others another name",
            )


def layouts(facts: Facts) -> Iterator[Finding]:
    """Segments of other versions, and of another boot or time namespace."""
    own = [it for it in facts.found if it.file.uid == facts.uid and it.info is not None]
    for it in own:
        info = it.info
        assert info is not None
        if it.file.name == facts.name and not info.current:
            how = "processes use it" if info.alive else "nobody uses it any more"
            yield warn(
                "layouts",
                f"{it.file.path} was made by version {info.library_version or '?'}; {how}",
                "old and new code share nothing and do not hear each other's deletes, except "
                "through Redis; both take memory",
                "let the deploy come to its end"
                if info.alive
                else "accelerator gc, or wait: the next attach does it",
            )
        if it.file.name == facts.name and info.current and it.another_machine is not None:
            yield (fail if info.alive else warn)(
                "clock",
                f"{it.file.path}: {it.another_machine}",
                f"{ALONE}, as the ends of its values mean nothing here"
                if info.alive
                else "the next process makes another one instead",
                "give containers with time namespaces of their own different names"
                if info.alive
                else "nothing",
            )


def unused(facts: Facts) -> Iterator[Finding]:
    """Segments that only take memory."""
    own = [it for it in facts.found if it.file.uid == facts.uid and it.info is not None]
    dead = [it for it in own if it.info and not it.info.alive and it.info.age > segment.DEAD_AFTER]
    if dead:
        size = words.size(sum(it.size for it in dead))
        yield warn(
            "unused segments",
            f"{words.plural(len(dead), 'segment')} without processes, {size}: "
            f"{', '.join(it.file.name for it in dead[:5])}{', ...' if len(dead) > 5 else ''}",
            "they take memory until somebody collects them",
            "accelerator gc (it leaves those whose Gunicorn master is alive)",
        )


def size(facts: Facts) -> Iterator[Finding]:
    """Whether it has the size that is asked for."""
    if facts.seen is None or not facts.given("size"):
        return
    has = int(facts.seen.stats["segment"]["size"])
    if has != facts.wanted:
        yield warn(
            "segment size",
            f"it has {words.size(has)}, {words.size(facts.wanted)} is asked for",
            "there was no room for more when it was made, or the setting is younger than it",
            "stop all of its processes, and start them: the first one makes it anew",
        )


def processes(facts: Facts) -> Iterator[Finding]:
    """Slots of processes."""
    if facts.seen is None:
        return
    numbers = facts.seen.stats["segment"]
    all_of_them = facts.seen.stats["processes"]
    dead = [it for it in all_of_them if not it["alive"]]
    slots = int(numbers["process_slots"])
    if len(all_of_them) - len(dead) > slots * 3 // 4:
        yield warn(
            "processes",
            f"{len(all_of_them) - len(dead)} of {slots} slots are taken",
            f"without a slot a process cannot attach: {ALONE}",
            "make the segment larger: it has one slot for every 64 KiB, 64 at least",
        )
    elif dead:
        yield ok(
            "processes",
            f"{words.plural(len(dead), 'slot')} of ended processes, taken back when needed",
        )
    stopped = [it for it in facts.seen.workers if it.usage is not None and it.usage.state in "Tt"]
    for worker in stopped:
        yield warn(
            "processes",
            f"pid {worker.here} is stopped",
            "if that happened within a write, others give up their writes to that part of the "
            "segment after 20 ms each; loads that it leads block their key for their lease",
            f"kill -CONT {worker.here}, or end it",
        )


def areas(facts: Facts) -> Iterator[Finding]:
    """Slots of areas."""
    if facts.seen is None:
        return
    number, slots = len(facts.seen.stats["areas"]), facts.seen.stats["segment"]["area_slots"]
    if number > slots * 3 // 4:
        yield warn(
            "areas",
            f"{number} of {slots} slots are taken, and none is ever given back",
            "an area without a slot is cached in the memory of each process",
            "make the segment larger, and use keys where areas are made on the fly",
        )


def soundness(facts: Facts) -> Iterator[Finding]:
    """Whether the stored structure is sound."""
    if facts.seen is None:
        return
    numbers = facts.seen.stats["segment"]
    corrupt = sum(it["corrupt_item"] for it in facts.seen.stats["areas"].values())
    if facts.broken:
        yield fail(
            "soundness",
            f"{words.plural(len(facts.broken), 'violation')}, the first: {facts.broken[0]}",
            "whatever does not verify is a miss, never a wrong answer",
            f"{_REPORT}; accelerator unlink --force {facts.name} replaces the segment",
        )
    elif numbers["resets"] or corrupt:
        yield warn(
            "soundness",
            f"{numbers['resets']} rings and {corrupt} items were dropped, as they did not verify",
            "these were misses; memory may be faulty, or something wrote into the segment",
            _REPORT,
        )
    else:
        yield ok("soundness", "every item that can be found verifies")
    if numbers["stats_lost"]:
        yield warn(
            "soundness",
            f"{numbers['stats_lost']} times a process found no block of counters",
            "what it counts in that area is not seen",
            "make the segment larger: it has one block for every 32 KiB",
        )


def listener(facts: Facts) -> Iterator[Finding]:
    """Whether somebody listens for this host, and is heard."""
    if facts.seen is None:
        return
    link, leader = facts.seen.stats["link"], facts.seen.stats["leader"]
    watched = [row for row in facts.seen.rows if row.watched]
    if not leader["term"] or not watched or not facts.seen.workers:
        return
    behind = [row.name for row in watched if row.in_step_for is None or row.in_step_for < 0]
    if not leader["incarnation"] or link["connected_since"] is None:
        yield fail(
            "listener",
            "nobody of this host is connected to hear the others",
            "areas serve what was loaded within the bound, as their on_desync says, and ask Redis "
            "or the loader for the rest",
            "see the findings about Redis, and the logger accelerator of the process that "
            "accelerator listener names",
        )
    elif behind:
        yield warn(
            "listener",
            f"out of step: {', '.join(behind)}",
            "they serve what was loaded within the bound, as their on_desync says",
            "look again in a few seconds (accelerator listener); if it stays, see the logger "
            "accelerator of the listening process",
        )
    else:
        yield ok("listener", f"pid {leader['pid']}, {words.plural(len(watched), 'area')} in step")


def outbox(facts: Facts) -> Iterator[Finding]:
    """Whether the others have been told everything."""
    if facts.seen is None:
        return
    link = facts.seen.stats["link"]
    if link["outbox_depth"] or facts.seen.owed:
        yield warn(
            "outbox",
            f"{link['outbox_depth']} changes, and {len(facts.seen.owed)} clears of areas, that "
            "Redis has not heard of",
            "other hosts may serve what was changed here; it is sent when Redis is back",
            "see the findings about Redis",
        )


CHECKS: Final = (
    there,
    refused,
    namesakes,
    layouts,
    unused,
    size,
    processes,
    areas,
    soundness,
    listener,
    outbox,
)
