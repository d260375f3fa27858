"""
Which keys are asked for most: one read in SAMPLE is counted, in a table that does not grow.

What is counted is of this window of time and of the one before it; what is older is forgotten.
Whoever is new in a full table takes the place of the least counted, the less often the more that
one was: so a flood of keys that are asked for once does not wash out those that are hot.

Knows neither locks nor clocks, as link.py.
"""

from __future__ import annotations

import random
from typing import Final, NamedTuple

SAMPLE: Final = 1024
"""Reads for each that is counted."""
WINDOW: Final = 30.0
"""Seconds."""
ENTRIES_MAX: Final = 1024

Place = tuple[str, int]
"""Name of the area, hash of the key."""


class Count(NamedTuple):
    """How often something was counted in a window, and in the one before."""

    window: int
    now: int
    before: int

    def at(self, window: int) -> Count:
        """Give the same as seen from a later window."""
        passed = window - self.window
        if passed == 0:
            return self
        return Count(window, 0, self.now if passed == 1 else 0)

    def more(self, window: int) -> Count:
        """Count once more."""
        seen = self.at(window)
        return seen._replace(now=seen.now + 1)


_NOTHING: Final = Count(0, 0, 0)


class HotKeys:
    """The table."""

    def __init__(self) -> None:
        self._counts: dict[Place, Count] = {}
        self._total = _NOTHING
        self._since: float | None = None
        self._left = 0
        """Reads until the next one that is counted."""
        self._rest = 0
        """Of the present SAMPLE those behind that one."""
        self._draw()

    def is_due(self) -> bool:
        """Tell whether this read is the one in SAMPLE: any of them, at random."""
        self._left -= 1
        if self._left > 0:
            return False
        self._draw()
        return True

    def _draw(self) -> None:
        at = random.randint(1, SAMPLE)  # noqa: S311  no secret
        self._left = self._rest + at
        self._rest = SAMPLE - at

    def count(self, place: Place, now: float) -> None:
        """Count a read that was due."""
        window = int(now / WINDOW)
        if self._since is None:
            self._since = now
        self._total = self._total.more(window)
        known = self._counts.get(place)
        if known is None and not self._makes_room(window):
            return
        self._counts[place] = (known or _NOTHING).more(window)

    def _makes_room(self, window: int) -> bool:
        if len(self._counts) < ENTRIES_MAX:
            return True
        least = min(self._counts, key=lambda place: _size(self._counts[place].at(window)))
        size = _size(self._counts[least].at(window))
        if random.randint(0, size) != 0:  # noqa: S311  no secret
            return False
        del self._counts[least]
        return True

    def top(self, limit: int, now: float) -> list[tuple[str, int, float]]:
        """List the most read keys: area, hash, reads a second; the hottest first."""
        found = [(*place, self._rate(count, now)) for place, count in self._counts.items()]
        found.sort(key=lambda row: (-row[2], row[:2]))
        return [row for row in found[:limit] if row[2] > 0]

    def total(self, now: float) -> float:
        """Tell how many reads a second there are of all keys, as far as they were counted."""
        return self._rate(self._total, now)

    def _rate(self, count: Count, now: float) -> float:
        if self._since is None:
            return 0.0
        seen = now % WINDOW + WINDOW
        if 0 <= now - self._since < seen:
            seen = max(now - self._since, 1.0)
        return _size(count.at(int(now / WINDOW))) * SAMPLE / seen


def _size(count: Count) -> int:
    return count.now + count.before
