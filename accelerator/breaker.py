"""
The guard before every call to Redis: one answer for the whole host whether to try it.

The state lies in the segment, so that the failures of one worker spare all the others, and one
worker alone probes whether Redis is back.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, Protocol

from accelerator.errors import RemoteError
from accelerator.local import COUNTERS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

GO: Final = 0
PROBE: Final = 1
NO: Final = 2
"""Answers of ``remote_ask``."""

STARVED: Final = 0.05
"""Seconds past its limit after which a timeout says more about this thread than about Redis."""


class Words(Protocol):
    """The state of the link in the segment."""

    def remote_ask(self, bound: float, reading: bool) -> int:
        """Tell whether Redis may be asked: GO, PROBE (report how it went) or NO."""

    def remote_ok(self, probe: bool) -> None:
        """Redis answered."""

    def remote_failed(self, since: float, probe: bool) -> None:
        """A call that began at *since* (time.monotonic()) failed."""


class Meter(Protocol):
    """Where an area's calls are counted."""

    def _count(self, counter: int, n: int = ...) -> None:
        """Add to a counter."""

    def _l2_latency(self, seconds: float) -> None:
        """Add a call to the histogram."""


class Guard:
    """
    Guards the calls of one area.

    Args:
        words: The segment.
        meter: The area.
        area: Its name.
        bound: How old a confirmation by Redis may be for its values to be read, in seconds.
        counters: Names of the counters by number.
    """

    __slots__ = ("_area", "_bound", "_error", "_meter", "_skipped", "_timeout", "_words")

    def __init__(
        self,
        words: Words,
        meter: Meter,
        area: str,
        bound: float,
        *,
        counters: Sequence[str] = COUNTERS,
    ) -> None:
        self._words = words
        self._meter = meter
        self._area = area
        self._bound = bound
        numbers = {name: number for number, name in enumerate(counters)}
        self._error = numbers["l2_error"]
        self._timeout = numbers["l2_timeout"]
        self._skipped = numbers["l2_skipped"]

    def call(self, operation: str, *, reading: bool) -> Guarded:
        """
        Make the context for one call, also for one that is awaited in it.

        Entering raises RemoteError (reason "skipped") when Redis is not to be asked.

        Args:
            operation: By its name in logs.
            reading: Whether what Redis answers is to be believed; a write needs less.
        """
        return Guarded(self, operation, reading)

    def enter(self, operation: str, reading: bool) -> bool:
        """Ask; whether this call is the host's one probe."""
        answer = self._words.remote_ask(self._bound, reading)
        if answer == NO:
            self._meter._count(self._skipped)
            raise RemoteError(
                "Redis was not asked, as it is known to be away",
                reason="skipped",
                area=self._area,
                operation=operation,
            )
        return answer == PROBE

    def leave(self, started: float, probe: bool, error: BaseException | None) -> None:
        """Count, and report how it went."""
        self._meter._l2_latency(time.monotonic() - started)
        if not isinstance(error, RemoteError):
            # None; or what the answer led to (the value is no int): Redis did answer.
            self._words.remote_ok(probe)
            return
        timeout = error.reason == "timeout"
        self._meter._count(self._timeout if timeout else self._error)
        if not timeout or error.late < STARVED:
            self._words.remote_failed(started, probe)


class Guarded:
    """One call; a context manager."""

    __slots__ = ("_guard", "_operation", "_probe", "_reading", "_started")

    def __init__(self, guard: Guard, operation: str, reading: bool) -> None:
        self._guard = guard
        self._operation = operation
        self._reading = reading
        self._probe = False
        self._started = 0.0

    def __enter__(self) -> None:
        self._probe = self._guard.enter(self._operation, self._reading)
        self._started = time.monotonic()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # Cancelled, or the process is ending: nothing is known.  A probe's slot runs out by itself.
        if error is None or isinstance(error, Exception):
            self._guard.leave(self._started, self._probe, error)
