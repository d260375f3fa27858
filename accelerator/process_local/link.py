"""
The link to L2: until when its answers are current, and whether to ask it at all.

Knows neither locks nor clocks: the caller holds the segment's lock and says what time it is, by the
segment's clock.
"""

from __future__ import annotations

import random
from math import inf
from typing import Any, Final

from accelerator.process_local.constants import (
    LINK_CONNECTED,
    LINK_LOST,
    LINK_MESSAGE,
    REMOTE_GO,
    REMOTE_NO,
    REMOTE_PROBE,
)

FAILURES_MAX: Final = 5
"""Consecutive failures that open the breaker."""
OPEN_FIRST: Final = 0.5
OPEN_MAX: Final = 8.0
OPEN_SPREAD: Final = 0.2
"""Share by which a pause is longer or shorter at random: hosts must not come back as one."""
PROBE_MAX: Final = 1.0
"""Seconds that a probe may take; then another one is due, as its caller may have been killed."""
INTERRUPTED: Final = 1.0
"""Seconds between two confirmed heartbeats that make an interruption."""
SETTLING: Final = 1.0
"""Seconds after one in which L2 is not read: every host replays its outbox meanwhile."""


class Breaker:
    """Closed: ask.  Open: do not.  Half-open: one may ask, on behalf of all."""

    def __init__(self) -> None:
        self.failures = 0
        self._pause = OPEN_FIRST
        self._open_until = 0.0
        self._probe_until = 0.0
        """Deadline of the probe that runs; 0: none does."""

    @property
    def is_closed(self) -> bool:
        """Whether everybody may ask."""
        return self.failures < FAILURES_MAX

    def ask(self, now: float) -> int:
        """Tell what a caller may do; REMOTE_PROBE is given to one at a time."""
        if self.is_closed:
            return REMOTE_GO
        if now < self._open_until or now < self._probe_until:
            return REMOTE_NO
        self._probe_until = now + PROBE_MAX
        return REMOTE_PROBE

    def close(self) -> None:
        """Let everybody ask again."""
        self.failures = 0
        self._pause = OPEN_FIRST
        self._open_until = self._probe_until = 0.0

    def succeeded(self, *, probe: bool) -> None:
        """
        Note an answer.

        Once open only a probe's closes it: others were asked before, and tell of that time.
        """
        if probe or self.is_closed:
            self.close()

    def failed(self, since: float, now: float, *, probe: bool) -> None:
        """Note a call without an answer, which began then."""
        if self.is_closed:
            self.failures += 1
            if self.failures == FAILURES_MAX:
                self._open(now)
        elif probe and self._is_probe(since):
            self._pause = min(OPEN_MAX, 2 * self._pause)
            self._open(now)

    def forget_probe(self) -> None:
        """Drop the probe, in a forked child: who makes it reports to the parent's."""
        self._probe_until = 0.0

    def shown(self, now: float) -> dict[str, Any]:
        """Describe it."""
        left = 0.0 if self.is_closed else max(0.0, self._open_until - now)
        state = "closed" if self.is_closed else "open" if left > 0 else "half-open"
        return {"breaker": state, "failures": self.failures, "open_for": left}

    def _is_probe(self, since: float) -> bool:
        # One that began long before the present one is late, and another had its turn because of
        # that.
        began = self._probe_until - PROBE_MAX
        return self._probe_until > 0 and since >= began - PROBE_MAX / 2

    def _open(self, now: float) -> None:
        spread = random.uniform(1 - OPEN_SPREAD, 1 + OPEN_SPREAD)  # noqa: S311  no secret
        self._open_until = now + self._pause * spread
        self._probe_until = 0.0


class Link:
    """
    What this host knows of its link to L2.

    What L2 answers is as current as the last heartbeat that it executed as a *write*: who refuses
    writes refuses deletes too, so its copies are not to be believed.
    """

    def __init__(self) -> None:
        self.breaker = Breaker()
        self._confirmed: float | None = None
        """When the last heartbeat that L2 executed was sent; only raised."""
        self._heard: float | None = None
        """When its answer came."""
        self._refused = False
        self._settled_from = 0.0
        self._lost = 0.0
        """When the listener's connection broke last."""
        self._connected_since: float | None = None
        self._connections = 0
        self._message_at: float | None = None
        self._retry_at: float | None = None

    # --- what the listener tells ---

    def confirm(self, sent: float, now: float) -> None:
        """Note that L2 executed the heartbeat sent then."""
        sent = min(sent, now)  # nothing is current beyond now
        former = self._confirmed
        if former is not None and sent - former > INTERRUPTED:
            self._settled_from = now + SETTLING
        self._confirmed = sent if former is None else max(former, sent)
        self._heard = now
        self._refused = False
        self.breaker.close()

    def refuse(self) -> None:
        """Note that L2 answered a heartbeat with an error."""
        self._refused = True

    def note(self, event: int, value: float, now: float) -> None:
        """Note what becomes of the listener's connection; the rest is for diagnostics."""
        if event == LINK_CONNECTED:
            self._connected_since = now
            self._connections += 1
            self._retry_at = None
        elif event == LINK_LOST:
            self._connected_since = None
            self._retry_at = now + value
            self._lost = now
        elif event == LINK_MESSAGE:
            self._message_at = now
        else:
            raise ValueError("link_note: no such event")

    # --- what callers of L2 ask and tell ---

    def ask(self, bound: float, now: float, *, reading: bool, whatever: bool = False) -> int:
        """
        Tell whether L2 may be asked; what it answers must not be older than *bound*.

        *whatever* the breaker says, if it was closed by order.
        """
        if self._refused or (reading and not self._is_current(bound, now)):
            return REMOTE_NO
        return REMOTE_GO if whatever else self.breaker.ask(now)

    def failed(self, since: float, now: float, *, probe: bool) -> None:
        """Note a call without an answer, unless L2 was heard after it began: it was the caller."""
        if self._heard is None or not self._heard > since:
            self.breaker.failed(since, now, probe=probe)

    def confirmed_age(self, now: float) -> float:
        """Seconds since L2 is known to have taken writes; inf: never."""
        return inf if self._confirmed is None else now - self._confirmed

    # --- the rest ---

    def forget(self) -> None:
        """Begin anew with what is the parent's, in a forked child; what was confirmed, was."""
        self.breaker.forget_probe()
        self._connected_since = self._retry_at = None

    def shown(self, now: float) -> dict[str, Any]:
        """Describe it."""
        return {
            "confirmed_age": _age(self._confirmed, now),
            "heard_age": _age(self._heard, now),
            "refused": self._refused,
            "settled": now >= self._settled_from,
            **self.breaker.shown(now),
            "connected_since": _age(self._connected_since, now),
            "reconnects": max(0, self._connections - 1),
            "last_message_age": _age(self._message_at, now),
            "next_retry_in": None if self._retry_at is None else max(0.0, self._retry_at - now),
        }

    def _is_current(self, bound: float, now: float) -> bool:
        if now < self._settled_from:
            return False
        if self._confirmed is None:
            return True
        # Another server, or one that has begun anew from its disk, is not believed before it has
        # executed a write that was sent behind that.
        return now <= self._confirmed + bound and self._confirmed >= self._lost


def _age(then: float | None, now: float) -> float | None:
    return None if then is None else now - then
