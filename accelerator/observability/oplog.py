"""
One line per operation that failed, and at DEBUG per operation that went well.

Hits are counted, never logged.  A failure that repeats is logged once a second per area, operation
and kind, with the number of those left out: a broken value in a hot path must not fill a disk.
Fields are in the message, for people, and in ``extra``, for machines.  Never a key, never a value.
"""

from __future__ import annotations

import logging
import time
from typing import Final

LOG: Final = logging.getLogger("accelerator.ops")
INTERVAL: Final = 1.0
"""Seconds between two lines about the same kind of failure."""

_last: dict[tuple[str, str, str, str], tuple[float, int]] = {}


def started() -> float:
    """Begin of an operation, for the functions below."""
    return time.monotonic()


def succeeded(area: str, op: str, result: str, since: float) -> None:
    """Note an operation that did what it was asked."""
    if LOG.isEnabledFor(logging.DEBUG):
        _write(logging.DEBUG, area, op, result=result, error_kind="none", since=since)


def failed(area: str, op: str, error_kind: str, since: float, *, result: str = "error") -> None:
    """Note an operation that did not; *result* is "queued" if it will be done later."""
    # Threads may race here: the worst is a second line about the same second.
    now = time.monotonic()
    kind = (area, op, error_kind, result)
    last, left_out = _last.get(kind, (-INTERVAL, 0))
    if now - last < INTERVAL:
        _last[kind] = (last, left_out + 1)
        return
    _last[kind] = (now, 0)
    _write(
        logging.WARNING,
        area,
        op,
        result=result,
        error_kind=error_kind,
        since=since,
        suppressed=left_out,
    )


def _write(
    level: int,
    area: str,
    op: str,
    *,
    result: str,
    error_kind: str,
    since: float,
    suppressed: int = 0,
) -> None:
    latency_ms = round((time.monotonic() - since) * 1000, 1)
    LOG.log(
        level,
        "area=%s op=%s result=%s error_kind=%s latency_ms=%.1f%s",
        area,
        op,
        result,
        error_kind,
        latency_ms,
        f" suppressed={suppressed}" if suppressed else "",
        extra={
            "area": area,
            "op": op,
            "result": result,
            "error_kind": error_kind,
            "latency_ms": latency_ms,
        },
    )
