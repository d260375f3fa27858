"""
The segment's side that faces operators: overrides, the ring of events, the limiter of log lines.

Where processes share a segment the native part keeps all of it there, so that one command reaches
every worker and what a killed one has noted stays to be seen.  Here there is one process, and no
thread that ticks: what is over is removed by whoever looks next.
"""

from __future__ import annotations

import os
import time
from abc import abstractmethod
from collections import deque
from math import ceil, inf, isfinite
from typing import TYPE_CHECKING, Any, Final

from accelerator.process_local.constants import (
    COUNTERS,
    OVERRIDES,
    REMOTE_NO,
)
from accelerator.process_local.remote_side import RemoteSide

if TYPE_CHECKING:
    from accelerator.process_local.items import AreaState

_GAP: Final = COUNTERS.index("gap")
_FLUSH: Final = COUNTERS.index("flush")
_MODE: Final = OVERRIDES.index("mode")
_BREAKER: Final = OVERRIDES.index("breaker")
_MOST: Final = (1 << 32) - 2
_VALUES_MAX: Final = (3, _MOST, _MOST, _MOST, 1, 1, 2, 1)
"""Greatest value of each option."""
_SECONDS_MAX: Final = 90 * 86400.0
_UNTOLD_MODES: Final = frozenset({0, 3})
"""Modes in which an area does not hear of everything: local and off."""
_HOST: Final = ""

_EVENTS_MAX: Final = 1024
_OP_MAX: Final = 12
_RESULT_MAX: Final = 12
_ERROR_KIND_MAX: Final = 16
_COUNT_MAX: Final = (1 << 32) - 1
_HASH: Final = range(1 << 64)
_LIMITS_MAX: Final = 512


class OperatorSide(RemoteSide):
    """What a segment has for whoever operates it."""

    def __init__(self) -> None:
        super().__init__()
        self._overrides: dict[tuple[str, int], tuple[int, float]] = {}
        """By area and option: value, and when it ends (inf: never)."""
        self._overrides_end = inf
        """When the first of them ends."""
        self._overrides_print = 0
        """Another number after every change."""
        self._events: deque[dict[str, Any]] = deque(maxlen=_EVENTS_MAX)
        self._event_number = 0
        self._limits: dict[tuple[str, str, str, str], tuple[float, int]] = {}
        """By kind: when it was last logged, how many were left out since."""

    @property
    @abstractmethod
    def entered(self) -> bool:
        """Whether this very process is registered."""

    # --- overrides ---

    def override(
        self, area: str, option: int, value: int | None, seconds: float | None = None
    ) -> None:
        """Put a value in the place of what an area, or with "" all of the host, is configured."""
        _check_override(area, option, value)
        _check_seconds(seconds)
        # Whole seconds, as the native part counts them: never less than was asked for.
        end = inf if seconds is None else float(ceil(self.now() + seconds))
        with self.lock():
            if area != _HOST and area not in self._areas:
                raise KeyError(f"override: no such area: {area}")
            if value is None and (area, option) not in self._overrides:
                return
            self._replace(area, option, None if value is None else (value, end))

    def overrides(self) -> list[tuple[str, int, int, float | None]]:
        """List what is in force: area, option, value, seconds left (None: no limit)."""
        with self.lock():
            self._remove_ended()
            now = self.now()
            return [
                (area, option, value, None if end == inf else end - now)
                for (area, option), (value, end) in sorted(self._overrides.items())
            ]

    def overrides_taken(self) -> tuple[int, list[tuple[str, int, int, float | None]]]:
        """Give the print of what is in force, and all of it, by one look."""
        with self.lock():
            rows = self.overrides()
            return self._overrides_print, rows

    def overrides_print(self) -> int:
        """Give a number that tells what is in force apart from all else."""
        if self.now() >= self._overrides_end:
            with self.lock():
                self._remove_ended()
        return self._overrides_print

    def overrides_seen(self) -> tuple[int, int]:
        """Tell how many processes act on exactly the present overrides, of how many."""
        with self.lock():
            return (1, 1) if self.entered else (0, 0)

    def _replace(self, area: str, option: int, new: tuple[int, float] | None) -> None:
        key = (area, option)
        if option == _MODE and self._begins_anew(area, self._overrides.get(key), new):
            self._forget_untold(area)
        if new is None:
            self._overrides.pop(key, None)
        else:
            self._overrides[key] = new
        self._overrides_end = min((end for _, end in self._overrides.values()), default=inf)
        self._overrides_print += 1

    def _begins_anew(
        self, area: str, former: tuple[int, float] | None, new: tuple[int, float] | None
    ) -> bool:
        """Tell whether an area, or the host, leaves a mode in which it does not hear of all."""
        if former is not None:
            return former[0] in _UNTOLD_MODES and (new is None or new[0] != former[0])
        # One that has been told nothing of its own leaves what the host is told.
        of_host = self._overrides.get((_HOST, _MODE))
        if area == _HOST or new is None or of_host is None:
            return False
        return of_host[0] in _UNTOLD_MODES and new[0] != of_host[0]

    def _remove_ended(self) -> None:
        now = self.now()
        for (area, option), (_, end) in list(self._overrides.items()):
            if now >= end:
                self._replace(area, option, None)

    def _forget_untold(self, area: str) -> None:
        """An area may have missed what others have changed: it begins empty."""
        concerned: list[AreaState] = (
            list(self._areas.values()) if area == _HOST else [self._areas[area]]
        )
        for known in concerned:
            self.clear(known)
            known.counters[_GAP] += 1
            known.counters[_FLUSH] += 1

    # --- the breaker, by order ---

    def _forced_breaker(self) -> int | None:
        if not self._overrides:
            return None
        self._remove_ended()
        found = self._overrides.get((_HOST, _BREAKER))
        return None if found is None else found[0]

    def remote_ask(self, bound: float, reading: bool) -> int:
        """Tell whether L2 may be asked: a REMOTE_ constant."""
        with self.lock():
            forced = self._forced_breaker()
            if forced == 1:
                return REMOTE_NO
            return self._ask_link(bound, reading=reading, whatever=forced == 0)

    def link(self) -> dict[str, Any]:
        """Describe link and outbox."""
        with self.lock():
            forced = self._forced_breaker()
            text = None if forced is None else ("closed", "open")[forced]
            return {**super().link(), "breaker_forced": text}

    # --- events ---

    def event(  # noqa: PLR0917  as in _native
        self,
        area: str,
        op: str,
        result: str,
        error_kind: str,
        seconds: float,
        hash: int = 0,  # noqa: A002  as in _native
        count: int = 1,
    ) -> None:
        """Note an operation that is over."""
        with self.lock():
            noted = self._new_event(area, op, hash, count)
            _end_event(noted, result, error_kind, seconds)

    def event_begin(
        self,
        area: str,
        op: str,
        hash: int = 0,  # noqa: A002  as in _native
        count: int = 1,
    ) -> int:
        """Note an operation that begins; its number."""
        with self.lock():
            return int(self._new_event(area, op, hash, count)["number"])

    def event_end(self, number: int, result: str, error_kind: str, seconds: float) -> None:
        """Note that it is over."""
        with self.lock():
            place = number - self._events[0]["number"] if self._events else -1
            noted = self._events[place] if 0 <= place < len(self._events) else None
            if noted is not None and noted["running"] and noted["pid"] == os.getpid():
                _end_event(noted, result, error_kind, seconds)

    def events(self, limit: int = 1000) -> list[dict[str, Any]]:
        """List the newest *limit* events, the newest first."""
        with self.lock():
            pid = os.getpid()
            wanted = [] if limit <= 0 else list(self._events)[-limit:]
            return [
                {**noted, "alive": self.entered and noted["pid"] == pid}
                for noted in reversed(wanted)
            ]

    def _new_event(self, area: str, op: str, key_hash: int, count: int) -> dict[str, Any]:
        if key_hash not in _HASH:
            raise OverflowError("event: the hash does not fit 64 bits")
        self._event_number += 1
        noted = {
            "number": self._event_number,
            "time": time.time(),
            "pid": os.getpid(),
            "incarnation": self.incarnation,
            "alive": True,
            "area": area if area in self._areas else "",
            "op": _ascii(op, _OP_MAX),
            "result": "",
            "error_kind": "",
            "latency_ms": None,
            "hash": key_hash,
            "count": min(max(count, 0), _COUNT_MAX),
            "running": True,
        }
        self._events.append(noted)
        return noted

    # --- log lines ---

    def log_allowed(self, area: str, op: str, result: str, error_kind: str, interval: float) -> int:
        """Tell whether to log: -1 no, else how many of its kind were left out before."""
        kind = (area, op, result, error_kind)
        with self.lock():
            now = self.now()
            last, left_out = self._limits.pop(kind, (-inf, 0))
            allowed = not last <= now < last + interval
            self._limits[kind] = (now, 0) if allowed else (last, left_out + 1)
            while len(self._limits) > _LIMITS_MAX:
                self._limits.pop(next(iter(self._limits)))
            return left_out if allowed else -1


def _check_override(area: str, option: int, value: int | None) -> None:
    if not 0 <= option < len(OVERRIDES):
        raise ValueError("override: no such option")
    if option == _BREAKER and area != _HOST:
        raise ValueError("override: the breaker is the host's, not one area's")
    if value is not None and not 0 <= value <= _VALUES_MAX[option]:
        raise ValueError(f"override: {OVERRIDES[option]} cannot be {value}")


def _check_seconds(seconds: float | None) -> None:
    if seconds is not None and not (isfinite(seconds) and 0 < seconds <= _SECONDS_MAX):
        raise ValueError("override: seconds must be more than 0, and at most 90 days")


def _end_event(noted: dict[str, Any], result: str, error_kind: str, seconds: float) -> None:
    if not (isfinite(seconds) and seconds >= 0):
        raise ValueError("event: seconds must be finite and not below 0")
    noted["result"] = _ascii(result, _RESULT_MAX)
    noted["error_kind"] = _ascii(error_kind, _ERROR_KIND_MAX)
    noted["latency_ms"] = seconds * 1000.0
    noted["running"] = False


def _ascii(text: str, most: int) -> str:
    return text.encode("ascii", "replace")[:most].decode("ascii")
