"""
What the operations of this process leave for an operator: events in the host's ring, and log lines.

Hits are counted, never noted here; sets that go well are lines at DEBUG only.  Loads, all that is
forgotten on purpose, what the listener and the breaker do, and failures are events in the memory
that this process is attached to: they survive it, even a SIGKILL in the middle of a load.

A failure that repeats is one event and one line a second per area, operation, result and kind, for
all processes of the host together, with the number of those left out: a broken value in a hot path
must not fill a disk, nor push everything else out of the ring.  What is left out is added to the
next one that is not, so no failure is missing from the sum of the counts but those of the last
second.  Without memory each process does the same on its own.

Fields of a line are in the message, for people, and in ``extra``, for machines.  Never a key, never
a value; an event has the hash of its key.

Nothing here raises or blocks: an operation must not fail, or wait, for the sake of its record.
"""

from __future__ import annotations

import contextvars
import logging
import time
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from typing import Any

LOG: Final = logging.getLogger("accelerator.ops")
INTERVAL: Final = 1.0
"""Seconds between two lines about the same kind of failure."""
NO_ERROR: Final = "none"
"""What stands for the kind of an error where there is none."""
started: Final = time.monotonic
"""Begin of an operation, for the functions below.  Itself, as each of its calls is in some path."""
_NEVER: Final = 3600.0
"""An INTERVAL for what may be counted as left out, but not logged."""


class Ring(Protocol):
    """What is used of a memory; see there."""

    def event(  # noqa: D102, PLR0917
        self,
        area: str,
        op: str,
        result: str,
        error_kind: str,
        seconds: float,
        hash: int = ...,  # noqa: A002
        count: int = ...,
    ) -> None: ...
    def event_begin(self, area: str, op: str, hash: int = ..., count: int = ...) -> int: ...  # noqa: A002, D102
    def event_end(self, number: int, result: str, error_kind: str, seconds: float) -> None: ...  # noqa: D102
    def log_allowed(  # noqa: D102
        self, area: str, op: str, result: str, error_kind: str, interval: float
    ) -> int: ...


_memory: Ring | None = None
"""What this process is attached to."""

_last: dict[tuple[str, str, str, str], tuple[float, int]] = {}
"""Without a memory: when a kind was logged, and how many were left out since."""

_writing: Final[contextvars.ContextVar[bool]] = contextvars.ContextVar(
    "accelerator_writing", default=False
)
"""
Whether a line is being written here.  A handler may use a cache, and that may fail: what comes of
it is counted and not logged, else each line could be the cause of the next.
"""


def use(memory: Ring | None) -> None:
    """Note what follows in *memory*; None: nowhere, as this process is attached to nothing."""
    global _memory  # noqa: PLW0603  one per process
    _memory = memory


# --- what went well -----------------------------------------------------------------------------


def succeeded(area: str, op: str, result: str, since: float) -> None:
    """Log an operation that did what it was asked."""
    if LOG.isEnabledFor(logging.DEBUG):
        _write(logging.DEBUG, area, op, result, NO_ERROR, time.monotonic() - since)


def recorded(  # noqa: PLR0917  called for much of what is no hit
    area: str,
    op: str,
    result: str,
    since: float,
    key_hash: int = 0,
    count: int = 1,
    *,
    error_kind: str = NO_ERROR,
    memory: Ring | None = None,
    level: int = logging.DEBUG,
) -> None:
    """
    Note, as an event and a line, what is neither so frequent nor alike that it must be limited.

    Args:
        area: Its area; "": it concerns the host.
        op: Its name.
        result: What came of it.
        since: When it began, or happened.
        key_hash: Hash of the key; 0: none, or there are several.
        count: How many keys it was about.
        error_kind: Why it was no success, if it was none.
        memory: Where to note it; None: where this process does.
        level: Of the line.
    """
    took = started() - since
    ring = _memory if memory is None else memory
    if ring is not None:
        try:  # noqa: SIM105  suppress() costs more than the event
            ring.event(area, op, result, error_kind, took, key_hash, count)
        except Exception:  # noqa: S110  see the top
            pass
    if LOG.isEnabledFor(level):
        _write(level, area, op, result, error_kind, took)


# --- what did not -------------------------------------------------------------------------------


def failed(
    area: str,
    op: str,
    error_kind: str,
    since: float,
    *,
    result: str = "error",
    memory: Ring | None = None,
    level: int = logging.WARNING,
) -> None:
    """
    Note an operation that did not, unless this host has just noted one of its kind.

    Args:
        area: Its area; "": it concerns the host.
        op: Its name.
        error_kind: Why it failed.
        since: When it began.
        result: "queued" if it will be done later.
        memory: Where to note it; None: where this process does.
        level: Of the line; DEBUG where another line tells of it.
    """
    ring = _memory if memory is None else memory
    interval = _NEVER if _writing.get() else INTERVAL
    left_out = _left_out(ring, (area, op, result, error_kind), interval)
    if left_out < 0:
        return
    took = time.monotonic() - since
    if ring is not None:
        try:  # noqa: SIM105  suppress() costs more than the event
            ring.event(area, op, result, error_kind, took, 0, left_out + 1)
        except Exception:  # noqa: S110  see the top
            pass
    _write(level, area, op, result, error_kind, took, left_out)


def _left_out(ring: Ring | None, kind: tuple[str, str, str, str], interval: float) -> int:
    """How many of this kind were left out since the last one that was not; -1: this one is."""
    if ring is not None:
        try:
            return ring.log_allowed(*kind, interval)
        except Exception:  # noqa: S110  see the top
            pass
    # Threads may race here: the worst is a second line about the same second.
    now = time.monotonic()
    last, left_out = _last.get(kind, (-interval, 0))
    if now - last < interval:
        _last[kind] = (last, left_out + 1)
        return -1
    _last[kind] = (now, 0)
    return left_out


# --- what takes its time ------------------------------------------------------------------------


class Begun:
    """
    An operation that others can see running, until it is told how it has ended: once.

    May be ended from any thread or task.
    """

    __slots__ = ("_number", "_ring", "since")

    def __init__(self, since: float, ring: Ring | None = None, number: int = 0) -> None:
        self.since = since
        """When it began."""
        self._ring = ring
        self._number = number

    def end(self, result: str, error_kind: str = NO_ERROR) -> None:
        """Note how it has ended; nothing if that has been noted."""
        number, self._number = self._number, 0
        if number and self._ring is not None:
            try:  # noqa: SIM105  suppress() costs more than the event
                self._ring.event_end(number, result, error_kind, time.monotonic() - self.since)
            except Exception:  # noqa: S110  see the top
                pass


def begun(area: str, op: str, key_hash: int = 0, count: int = 1) -> Begun:
    """Note an operation that begins; see recorded()."""
    ring, number = _memory, 0
    if ring is not None:
        try:  # noqa: SIM105  suppress() costs more than the event
            number = ring.event_begin(area, op, key_hash, count)
        except Exception:  # noqa: S110  see the top
            pass
    return Begun(time.monotonic(), ring, number)


# --- lines --------------------------------------------------------------------------------------


def _write(  # noqa: PLR0917  called in this module only
    level: int,
    area: str,
    op: str,
    result: str,
    error_kind: str,
    took: float,
    left_out: int = 0,
) -> None:
    if _writing.get():
        return
    latency_ms = round(took * 1000, 1)
    extra: dict[str, Any] = {
        "area": area,
        "op": op,
        "result": result,
        "error_kind": error_kind,
        "latency_ms": latency_ms,
    }
    token = _writing.set(True)
    try:
        LOG.log(
            level,
            "area=%s op=%s result=%s error_kind=%s latency_ms=%.1f%s",
            *(area, op, result, error_kind, latency_ms),
            f" suppressed={left_out}" if left_out else "",
            extra=extra,
        )
    except Exception:  # noqa: S110  of a handler or filter of the application's
        pass
    finally:
        _writing.reset(token)
