"""
One frame of ``accelerator top`` as lines of text: two snapshots in, nothing else, so that it can be
tested on text.
"""  # noqa: D205  one sentence

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from accelerator.cli import words
from accelerator.cli.flights import HEAD as FLIGHTS_HEAD
from accelerator.cli.flights import row as flight_row
from accelerator.cli.snapshot import Change, Tiers, latency, reads, tiers
from accelerator.cli.stats import override, redis_listener, redis_state

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from accelerator.cli.snapshot import Counted, Worker
    from accelerator.observability.tables import AreaRow


class Style(Enum):
    """How a line is shown where there are styles."""

    PLAIN = ""
    TITLE = "1"
    HEAD = "7"
    BAD = "31;1"
    DIM = "2"


class Line(NamedTuple):
    """One line of a frame."""

    text: str
    style: Style = Style.PLAIN


class AreaNumbers(NamedTuple):
    """What is shown of an area."""

    name: str
    reads: int
    tiers: Tiers | None
    counted: Counted
    loads: Sequence[int]
    entries: int
    bytes: int
    row: AreaRow | None


class Sort(NamedTuple):
    """An order of areas and workers."""

    title: str
    of_area: Callable[[AreaNumbers], Any]
    of_worker: Callable[[Counted], Any]


def _hits_of(counted: Counted) -> float:
    found = tiers(counted)
    return 2.0 if found is None else found.hits


_KEYS: Final = 5
"""Hottest keys that are shown."""
_SHORT: Final = 20
"""Lines of a terminal that has none to spare."""

SORTS: Final = {
    "r": Sort("reads", lambda it: -it.reads, lambda it: -reads(it)),
    "h": Sort(
        "hits, worst first",
        lambda it: 2.0 if it.tiers is None else it.tiers.hits,
        _hits_of,
    ),
    "l": Sort("loads", lambda it: -it.counted["load"], lambda it: -it["load"]),
    "p": Sort("latency", lambda it: -(latency(0.99, it.loads) or 0.0), lambda it: -it["load"]),
    "e": Sort("evictions", lambda it: -it.counted["evictions"], lambda it: -it["evictions"]),
    "m": Sort("memory", lambda it: -it.bytes, lambda it: -it["set"]),
    "n": Sort("name", lambda it: it.name, lambda _: 0),
}
"""By the key that asks for it."""


@dataclass(frozen=True)
class View:
    """
    How the frame is to look.

    Args:
        columns: Of the terminal.
        lines: Of the terminal; None: as many as it takes.
        sort: A key of SORTS.
        keys: Whether there is somebody to press keys.
        notice: Something to say in the last line.
    """

    columns: int = 100
    lines: int | None = None
    sort: str = "r"
    keys: bool = False
    notice: str = ""


def render(change: Change, view: View) -> list[Line]:
    """The frame; no line is wider, and there are no more of them, than *view* says."""
    head = _title(change, view)
    for paragraph in (
        *_overrides(change),
        _memory(change),
        _reads(change),
        _loads(change),
        *_redis(change),
    ):
        head += paragraph.lines(view)
    tables = [_areas(change, view), _keys(change), _workers(change, view), _flights(change)]
    foot = _foot(view)
    room = math.inf if view.lines is None else view.lines - len(head) - len(foot)
    _shorten(tables, room)
    lines = head + [line for table in tables for line in table.lines(view.columns)]
    if view.lines is not None:
        lines = lines[: view.lines - len(foot)]
        lines += [Line("")] * (view.lines - len(foot) - len(lines))
    return [Line(words.cut(line.text, view.columns), line.style) for line in lines + foot]


# --- the head -----------------------------------------------------------------------------------


class _Paragraph(NamedTuple):
    """A few things about one subject, each of which stays in one piece."""

    subject: str
    things: Sequence[str]
    bad: bool = False

    def lines(self, view: View) -> list[Line]:
        """As few lines as they fit into; where there are few, one, with what comes first."""
        style = Style.BAD if self.bad else Style.PLAIN
        texts = [f"{self.subject:<8}{self.things[0]}"]
        for thing in self.things[1:]:
            longer = f"{texts[-1]}, {thing}"
            if words.width(longer) <= view.columns:
                texts[-1] = longer
            else:
                texts.append(f"{'':<8}{thing}")
        short = view.lines is not None and view.lines < _SHORT
        return [Line(text, style) for text in (texts[:1] if short else texts)]


def _title(change: Change, view: View) -> list[Line]:
    after = change.after
    at = datetime.fromtimestamp(after.wall).astimezone()
    begun = f"accelerator top  {after.file.name}"
    end = f"{words.plural(len(after.workers), 'process', 'processes')}  {at:%H:%M:%S}"
    middle = words.right(end, view.columns - words.width(begun)) if view.keys else f"  {end}"
    return [Line(begun + middle, Style.TITLE)]


def _overrides(change: Change) -> list[_Paragraph]:
    """First, as it changes what all that follows means."""
    after = change.after
    if not after.overrides:
        return []
    acting, of_all = after.acting
    late = [f"only {acting} of {of_all} processes act on it"] if acting < of_all else []
    return [_Paragraph("set", [*map(override, after.overrides), *late], bad=True)]


def _memory(change: Change) -> _Paragraph:
    numbers, total = change.after.stats["segment"], change.total()
    live, room = numbers["live_bytes"], numbers["data_bytes"]
    shown = [
        f"{words.size(live)} of {words.size(room)} live ({words.share(live / room)})",
        f"{words.count(numbers['entries'])} entries",
        f"evicted {_rate(change, total.get('evictions', 0))}",
        f"expired {_rate(change, total.get('expired', 0))}",
    ]
    harm = [
        f"{words.count(numbers[name])} {what}"
        for name, what in (
            ("resets", "rings dropped, as something in them did not verify"),
            ("stats_lost", "times no room for the counters of a process"),
        )
        if numbers[name]
    ]
    return _Paragraph("memory", harm + shown, bad=bool(harm))


def _reads(change: Change) -> _Paragraph:
    total = change.total()
    found = tiers(total)
    shown = [_rate(change, reads(total))]
    if found is not None:
        shown.append(
            f"{words.share(found.hits)} hits ({words.share(found.objects)} objects, "
            f"{words.share(found.segment)} segment)"
        )
        if change.after.stats["leader"]["term"]:
            shown.append(f"{words.share(found.redis)} from Redis")
    shown += [
        f"sets {_rate(change, total.get('set', 0))}",
        f"deletes {_rate(change, total.get('delete', 0))}",
    ]
    return _Paragraph("reads", shown)


def _loads(change: Change) -> _Paragraph:
    total, histogram = change.total(), change.loads()
    shown = [_rate(change, total.get("load", 0))]
    if latency(0.5, histogram) is not None:
        shown.append(_quantiles(histogram))
    for counter, what in (
        ("load_error", "failed"),
        ("load_timeout", "late"),
        ("stale_fallback", "answered stale"),
        ("load_joined", "waited for another's"),
    ):
        if total.get(counter):
            shown.append(f"{what} {_rate(change, total[counter])}")
    bad = any(total.get(counter) for counter in ("load_error", "load_timeout"))
    return _Paragraph("loads", shown, bad=bad)


def _redis(change: Change) -> list[_Paragraph]:
    stats = change.after.stats
    link, leader = stats["link"], stats["leader"]
    if not leader["term"]:
        return []
    state = redis_state(link)
    histogram = change.l2()
    if latency(0.5, histogram) is not None:
        state.append(f"calls {_rate(change, sum(histogram[:-1]))}, {_quantiles(histogram)}")
    harmed = link["refused"] or link["breaker"] != "closed" or link["outbox_depth"]
    alone = not leader["pid"] or link["connected_since"] is None
    return [
        _Paragraph("redis", state, bad=bool(harmed)),
        _Paragraph("", redis_listener(link, leader), bad=alone),
    ]


def _quantiles(histogram: Sequence[int]) -> str:
    p50, p99 = latency(0.5, histogram), latency(0.99, histogram)
    return f"p50 <= {words.seconds(p50)}, p99 <= {words.seconds(p99)}"


def _rate(change: Change, number: float) -> str:
    return f"{words.count(change.rate(number))}/s"


# --- the tables ---------------------------------------------------------------------------------


@dataclass
class _Table:
    """
    A table that can do with less room.

    Args:
        head: Titles of the columns.
        rows: As many cells each.
        first_to_go: Titles of the columns that are left out first where it is too wide.
    """

    head: Sequence[str]
    rows: list[list[str]]
    first_to_go: Sequence[str] = ()
    left_out: int = 0

    @property
    def height(self) -> int:
        """Lines that it takes."""
        return 0 if not self.head else 2 + len(self.rows) + bool(self.left_out)

    def lines(self, columns: int) -> list[Line]:
        """Write it, with an empty line before."""
        if not self.head:
            return []
        head, rows = self._narrowed(columns)
        widths = [max(map(words.width, column)) for column in zip(head, *rows, strict=True)]
        texts = [_joined(cells, widths) for cells in (head, *rows)]
        lines = [Line(""), Line(words.left(texts[0], columns), Style.HEAD)]
        lines += [Line(text) for text in texts[1:]]
        if self.left_out:
            lines.append(Line(f"... {self.left_out} more", Style.DIM))
        return lines

    def shorten(self) -> None:
        """Take a line less."""
        if self.left_out:
            self.rows.pop()
            self.left_out += 1
        else:
            del self.rows[-2:]  # one for the line that says so
            self.left_out = 2

    def _narrowed(self, columns: int) -> tuple[list[str], list[list[str]]]:
        kept = list(range(len(self.head)))
        for title in [None, *self.first_to_go]:
            kept = [place for place in kept if self.head[place] != title]
            cells = [[row[place] for place in kept] for row in (self.head, *self.rows)]
            cells = [[words.cut(row[0], max(12, columns // 4)), *row[1:]] for row in cells]
            widths = [max(map(words.width, column)) for column in zip(*cells, strict=True)]
            if sum(widths) + 2 * (len(widths) - 1) <= columns:
                break
        return cells[0], cells[1:]


def _joined(cells: Sequence[str], widths: Sequence[int]) -> str:
    rest = map(words.right, cells[1:], widths[1:])
    return "  ".join([words.left(cells[0], widths[0]), *rest]).rstrip()


def _shorten(tables: Sequence[_Table], room: float) -> None:
    """Take lines from the longest table until all fit, or all are as short as they can be."""
    while sum(table.height for table in tables) > room:
        longest = max(tables, key=lambda table: len(table.rows))
        if len(longest.rows) < 2:
            return
        longest.shorten()


def _areas(change: Change, view: View) -> _Table:
    rows = {row.name: row for row in change.after.rows}
    found = [
        _area(change, name, numbers, rows.get(name))
        for name, numbers in sorted(change.after.stats["areas"].items())
    ]
    found.sort(key=SORTS[view.sort].of_area)
    head = ["area", "reads/s", "hits", "objects", "loads/s", "p50 <=", "p99 <=", "sets/s"]
    head += ["evicted/s", "entries", "memory"]
    with_redis = any(row.watched for row in rows.values())
    if with_redis:
        head = [*head[:4], "Redis", *head[4:], "in step"]
    cells = [_area_cells(change, each, with_redis) for each in found]
    return _Table(
        head,
        cells or [["(no area yet)", *[""] * (len(head) - 1)]],
        ("p50 <=", "sets/s", "objects", "evicted/s", "entries", "Redis", "loads/s"),
    )


def _area(change: Change, name: str, numbers: dict[str, int], row: AreaRow | None) -> AreaNumbers:
    counted = change.area(name)
    return AreaNumbers(
        name=name,
        reads=reads(counted),
        tiers=tiers(counted),
        counted=counted,
        loads=change.loads(name),
        entries=numbers["entries"],
        bytes=numbers["bytes"],
        row=row,
    )


def _area_cells(change: Change, it: AreaNumbers, with_redis: bool) -> list[str]:
    def rate(number: int) -> str:
        return words.count(change.rate(number))

    found = it.tiers
    cells = [
        words.printable(it.name),
        rate(it.reads),
        words.share(found and found.hits),
        words.share(found and found.objects),
        rate(it.counted["load"]),
        words.seconds(latency(0.5, it.loads)),
        words.seconds(latency(0.99, it.loads)),
        rate(it.counted["set"]),
        rate(it.counted["evictions"]),
        words.count(it.entries),
        words.size(it.bytes),
    ]
    if with_redis:
        cells = [*cells[:4], words.share(found and found.redis), *cells[4:], in_step(it.row)]
    return cells


def in_step(row: AreaRow | None) -> str:
    """Whether the segment may be believed about an area."""
    if row is None or not row.watched:
        return words.NOTHING
    if row.in_step_for is None:
        return "never"
    return "yes" if row.in_step_for >= 0 else f"no, for {words.seconds(-row.in_step_for)}"


def _keys(change: Change) -> _Table:
    keys = change.after.keys[:_KEYS]
    return _Table(
        ["hottest keys", "key hash", "reads/s", "of all"] if keys else (),
        [
            [
                words.printable(each["area"]),
                each["hash"],
                words.count(each["rate"]),
                words.share(each["share"]),
            ]
            for each in keys
        ],
    )


def _workers(change: Change, view: View) -> _Table:
    found = [(worker, change.worker(worker.incarnation)) for worker in change.after.workers]
    found.sort(key=lambda each: (SORTS[view.sort].of_worker(each[1]), each[0].incarnation))
    head = ["process", "reads/s", "hits", "objects", "loads/s", "sets/s", "processor", "memory"]
    head += ["loading", "attached", ""]
    cells = [_worker_cells(change, worker, counted) for worker, counted in found]
    return _Table(
        head if cells else [],
        cells,
        ("sets/s", "attached", "objects", "loading", "loads/s"),
    )


_STATES: Final = {"T": "stopped", "t": "traced", "Z": "zombie", "D": "waits for a disk"}


def _worker_cells(change: Change, worker: Worker, counted: Counted) -> list[str]:
    found, usage = tiers(counted), worker.usage
    leads = sum(
        each["incarnation"] == worker.incarnation and not each["lock"]
        for each in change.after.flights
    )
    notes = []
    if change.after.stats["leader"]["incarnation"] == worker.incarnation:
        notes.append("listens")
    if not worker.here:
        notes.append("elsewhere")
    elif worker.here != worker.pid:
        notes.append(f"here {worker.here}")
    if usage is not None and usage.state in _STATES:
        notes.append(_STATES[usage.state])
    return [
        str(worker.pid),
        words.count(change.rate(reads(counted))),
        words.share(found and found.hits),
        words.share(found and found.objects),
        words.count(change.rate(counted["load"])),
        words.count(change.rate(counted["set"])),
        words.share(change.cpu(worker)),
        words.size(None if usage is None else usage.memory),
        str(leads),
        words.seconds(worker.attached),
        ", ".join(notes),
    ]


def _flights(change: Change) -> _Table:
    flights = change.after.flights
    return _Table(
        FLIGHTS_HEAD if flights else (),
        [[words.printable(cell) for cell in flight_row(each)] for each in flights],
        ("alive", "lease left"),
    )


def _foot(view: View) -> list[Line]:
    if view.notice:
        return [Line(view.notice, Style.BAD)]
    if not view.keys:
        return []
    order = f"by {SORTS[view.sort].title}"
    titles = "  ".join(f"{key} {sort.title.partition(',')[0]}" for key, sort in SORTS.items())
    full = f"{order}; sort: {titles}; space holds, q quits"
    if words.width(full) > view.columns:
        full = f"{order}; sort: {' '.join(SORTS)}; space holds, q quits"
    return [Line(full, Style.DIM)]
