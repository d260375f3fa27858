"""
The guard before every call to Redis: one answer for the whole host whether to try it.

The state lies in the segment, so that the failures of one worker spare all the others, and one
worker alone probes whether Redis is back.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Final, Protocol

from accelerator.errors import RemoteError
from accelerator.local import COUNTERS, REMOTE_NO, REMOTE_PROBE
from accelerator.observability import events, oplog

if TYPE_CHECKING:
    from types import TracebackType

    from accelerator.observability.diagnostics import ErrorSnapshot

STARVED: Final = 0.05
"""Seconds past its limit after which a timeout says more about this thread than about Redis."""

_PURPOSES: Final = {
    "get": "get",
    "lease": "fill",
    "fill": "fill",
    "write": "set",
    "expire": "del",
    "clear": "del",
    "mark_tags": "del",
    "tell": "del",
    "add": "atomic",
    "touch": "atomic",
    "incr": "atomic",
}
"""What a method of the second level is for: by that its failures are counted."""
_FAILED: Final = {
    (purpose, kind): COUNTERS.index(f"l2_{kind}_{purpose}")
    for purpose in frozenset(_PURPOSES.values())
    for kind in ("error", "timeout")
}
_SKIPPED: Final = COUNTERS.index("l2_skipped")


class Words(Protocol):
    """The state of the link in the segment."""

    def remote_ask(self, bound: float, reading: bool) -> int:
        """Tell whether Redis may be asked: a REMOTE_ constant."""

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
    Guards the calls of a process.

    Args:
        words: The segment.
        bound: How old a confirmation by Redis may be for its values to be read, in seconds.
        title: What Redis is called in messages, where it is another second level.
    """

    def __init__(self, words: Words, bound: float, title: str = "Redis") -> None:
        self._words = words
        self._bound = bound
        self._title = title
        # A tuple that is replaced as a whole: threads may race to be the last.
        self._failed: tuple[float, str, str, str] | None = None

    def last_error(self) -> ErrorSnapshot | None:
        """Tell of the last call of this process that failed; None: none has."""
        if self._failed is None:
            return None
        at, area, operation, reason = self._failed
        age = time.monotonic() - at
        return {"age": age, "area": area, "operation": operation, "reason": reason}

    def call(
        self, meter: Meter, area: str, operation: str, *, reading: bool, counts_as: str = ""
    ) -> Guarded:
        """
        Make the context for one call, also for one that is awaited in it.

        Entering raises RemoteError (reason "skipped") when Redis is not to be asked.

        Args:
            meter: The area, which counts.
            area: Its name.
            operation: By its name in logs.
            reading: Whether what Redis answers is to be believed; a write needs less.
            counts_as: What it is for, where that is not what the operation is for.
        """
        return Guarded(self, meter, area, operation, reading, counts_as or _PURPOSES[operation])

    def enter(self, meter: Meter, area: str, operation: str, reading: bool) -> bool:
        """Ask; whether this call is the host's one probe."""
        answer = self._words.remote_ask(self._bound, reading)
        if answer == REMOTE_NO:
            raise self.skipped(meter, area, operation, "as it is known to be away")
        return answer == REMOTE_PROBE

    def skipped(self, meter: Meter, area: str, operation: str, why: str) -> RemoteError:
        """Count a call that is not made; gives the error that says so."""
        meter._count(_SKIPPED)
        return RemoteError(
            f"{self._title} was not asked, {why}", reason="skipped", area=area, operation=operation
        )

    def leave(
        self,
        meter: Meter,
        purpose: str,
        started: float,
        probe: bool,
        error: BaseException | None,
    ) -> None:
        """Count, and report how it went."""
        meter._l2_latency(time.monotonic() - started)
        if not isinstance(error, RemoteError):
            # None; or what the answer led to (the value is no int): Redis did answer.
            self._words.remote_ok(probe)
            return
        timeout = error.reason == "timeout"
        meter._count(_FAILED[purpose, "timeout" if timeout else "error"])
        if error.reason == "other":  # of this key or this command: Redis is there
            self._words.remote_ok(probe)
        elif not timeout or error.late < STARVED:
            self._words.remote_failed(started, probe)

    def note(self, area: str, operation: str, reason: str, since: float) -> None:
        """Remember a call that failed, for last_error(), here and on the whole host."""
        self._failed = time.monotonic(), area, operation, reason
        # The operation that asked has a line of its own, or works around it.
        oplog.failed(area, events.CALL + operation, reason, since, level=logging.DEBUG)


class Guarded:
    """One call; a context manager."""

    __slots__ = (
        "_area",
        "_guard",
        "_meter",
        "_operation",
        "_probe",
        "_purpose",
        "_reading",
        "_started",
    )

    def __init__(  # noqa: PLR0917  called in one place
        self, guard: Guard, meter: Meter, area: str, operation: str, reading: bool, purpose: str
    ) -> None:
        self._guard = guard
        self._meter = meter
        self._area = area
        self._operation = operation
        self._purpose = purpose
        self._reading = reading
        self._probe = False
        self._started = 0.0

    def __enter__(self) -> None:
        self._probe = self._guard.enter(self._meter, self._area, self._operation, self._reading)
        self._started = time.monotonic()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # Cancelled, or the process is ending: nothing is known.  A probe's slot runs out by itself.
        if error is None or isinstance(error, Exception):
            self._guard.leave(self._meter, self._purpose, self._started, self._probe, error)
        if isinstance(error, RemoteError):
            self._guard.note(self._area, self._operation, error.reason, self._started)
