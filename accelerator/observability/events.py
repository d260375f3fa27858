"""
What the ring of events tells: how one has ended, sums by kind, and what failed last.

An event is a dict as Segment.events() gives it, the newest first.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final, TypedDict

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from accelerator.observability.diagnostics import ErrorSnapshot

CALL: Final = "l2_"
"""What the op of a failed call of the second level begins with; the name of the call follows."""
BREAKER: Final = "breaker"
OPENED: Final = "opened"
CLOSED: Final = "closed"

RUNNING: Final = "running"
OK: Final = "ok"
KILLED: Final = "killed"
"""It was cut off by the death of its process."""


class EventSum(TypedDict):
    """Events of one kind."""

    area: str
    op: str
    result: str
    """As the events have it; "running", or "killed": cut off by the death of its process."""
    error_kind: str
    count: int
    """Operations that they stand for; of batches: keys."""
    last: float
    """Unix time of the newest."""


def outcome(event: Mapping[str, Any]) -> str:
    """Tell what has become of an operation."""
    if event["running"]:
        return RUNNING if event["alive"] else KILLED
    return str(event["result"])


def is_failure(event: Mapping[str, Any]) -> bool:
    """Whether it did not do what it was asked, or only later; a process's death is a failure."""
    became = outcome(event)
    if became == OK:
        return False  # behind a command's own event stands who gave it, where others have a kind
    return event["error_kind"] not in {"", "none"} or became == KILLED


def aggregate(events: Iterable[Mapping[str, Any]]) -> list[EventSum]:
    """Sum up events by area, op, result and error_kind; what has happened last comes first."""
    sums: dict[tuple[str, str, str, str], EventSum] = {}
    for event in events:
        kind = event["error_kind"] or "none"  # of one that runs nothing is known yet
        key = (event["area"], event["op"], outcome(event), kind)
        found = sums.get(key)
        if found is None:
            area, op, result, _ = key
            sums[key] = {
                "area": area,
                "op": op,
                "result": result,
                "error_kind": kind,
                "count": event["count"],
                "last": event["time"],
            }
        else:
            found["count"] += event["count"]
            found["last"] = max(found["last"], event["time"])
    return sorted(sums.values(), key=lambda each: -each["last"])


def last_error(events: Iterable[Mapping[str, Any]]) -> ErrorSnapshot | None:
    """Find the last call of the second level on this host that failed; None: no such event."""
    for event in events:
        if event["op"].startswith(CALL) and is_failure(event):
            return {
                "age": max(0.0, time.time() - event["time"]),
                "area": event["area"],
                "operation": event["op"].removeprefix(CALL),
                "reason": event["error_kind"],
            }
    return None


def breaker_was_open(events: Iterable[Mapping[str, Any]]) -> bool:
    """Whether the last that was told of the breaker is that it has opened."""
    for event in events:
        if event["op"] == BREAKER:
            return bool(event["result"] == OPENED)
    return False
