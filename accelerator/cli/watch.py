"""``accelerator stats --watch``: one line every so often, with what has happened since the last."""

from __future__ import annotations

import itertools
import json
import shutil
import sys
import time
from datetime import datetime
from typing import TYPE_CHECKING, Final

from accelerator.cli import words
from accelerator.cli.snapshot import Change, latency, reads, take, tiers
from accelerator.errors import NotAttached

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from accelerator import segment
    from accelerator.cli.snapshot import Snapshot

_COLUMNS: Final = (
    ("time", 8),
    ("reads/s", 8),
    ("hits", 6),
    ("objects", 7),
    ("Redis", 6),
    ("loads/s", 7),
    ("p99 <=", 7),
    ("sets/s", 7),
    ("dels/s", 7),
    ("evict/s", 7),
    ("entries", 8),
    ("live", 9),
    ("procs", 5),
)
_WITH_REDIS: Final = "outbox  link"
TITLES: Final = " ".join([*(words.right(title, width) for title, width in _COLUMNS), _WITH_REDIS])
"""Of a segment whose host listens to Redis."""


def run(file: segment.SegmentFile, interval: float, *, as_json: bool) -> int:
    """Write lines until Ctrl-C, which is no failure."""
    try:
        _watch(file, interval, as_json=as_json)
    except KeyboardInterrupt:
        if sys.stdout.isatty():
            print()  # behind the ^C
    return 0


def _watch(file: segment.SegmentFile, interval: float, *, as_json: bool) -> None:
    before: Snapshot | None = take(file)
    due = time.monotonic()
    for number in itertools.count():
        due = max(due + interval, time.monotonic())
        time.sleep(due - time.monotonic() if due > time.monotonic() else 0.0)
        try:
            after = take(file)
        except NotAttached:
            # A restart of the application makes another one of that name.
            before = None
            _say(json.dumps(None) if as_json else "the segment is gone; waiting for another one")
            continue
        if as_json:
            _say(json.dumps({"path": str(file.path), "time": after.wall, **after.stats}))
        else:
            if number % _page() == 0:
                _say(header(after))
            _say(line(Change(before, after)))
        before = after


def _page() -> int:
    """Lines between two headers."""
    return max(5, shutil.get_terminal_size().lines - 2) if sys.stdout.isatty() else 20


def _say(text: str) -> None:
    print(text, flush=True)  # at once: who reads may be another program


def header(after: Snapshot) -> str:
    """Name the columns."""
    return TITLES if after.stats["leader"]["term"] else TITLES.removesuffix(f" {_WITH_REDIS}")


def line(change: Change) -> str:
    """What has happened, in one line."""
    after, total = change.after, change.total()
    found = tiers(total)
    stats = after.stats

    def rate(counter: str) -> str:
        return words.count(change.rate(total.get(counter, 0)))

    cells = [
        f"{datetime.fromtimestamp(after.wall).astimezone():%H:%M:%S}",
        words.count(change.rate(reads(total))),
        words.share(found and found.hits),
        words.share(found and found.objects),
        words.share(found and found.redis),
        rate("load"),
        words.seconds(latency(0.99, change.loads())),
        rate("set"),
        rate("delete"),
        rate("evictions"),
        words.count(stats["segment"]["entries"]),
        words.size(stats["segment"]["live_bytes"]),
        str(len(after.workers)),
    ]
    shown = [words.right(cell, width) for cell, (_, width) in zip(cells, _COLUMNS, strict=True)]
    if stats["leader"]["term"]:
        shown.append(f"{words.count(stats['link']['outbox_depth']):>6}  {link_word(stats['link'])}")
    return " ".join(shown)


def link_word(link: Mapping[str, Any]) -> str:
    """The link to Redis in one word."""
    if link["refused"]:
        return "refuses"
    if link["breaker"] != "closed":
        return str(link["breaker"])
    return "connected" if link["connected_since"] is not None else "away"
