"""
The outbox: explicit writes that L2 and the other hosts have yet to learn of.

An entry is made before L1 is changed, and settled when L2 has taken the write or has not: whoever
goes away in between leaves an entry that says so.  Bounded: the oldest go, and an area that loses
one that nobody has heard of owes a clear instead.

Knows neither locks nor clocks.  The segment's lock is re-entrant, so a signal handler may add an
entry between any two steps: numbers come from a counter, and what is looped over is a copy.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final

from accelerator.process_local.constants import NOTE_CLEAR, NOTE_EXPIRE, NOTE_EXPIRE_TAG

if TYPE_CHECKING:
    from accelerator.process_local.items import AreaState, Place

ENTRIES_MAX: Final = 4096

EXPIRES: Final = frozenset({NOTE_EXPIRE, NOTE_EXPIRE_TAG})
"""Kinds that leave stale copies."""

# States of an entry.
PENDING: Final = 0
"""Its owner is about to tell L2."""
QUEUED: Final = 1
"""L2 could not be told: the listener will."""
SENT: Final = 2
"""L2 has taken it."""
HEARD: Final = 3
"""Its message has come back."""

Note = tuple[int, str, int, bytes]
"""Number, area, kind, encoded key (of a clear: empty) or tag, behind its type."""


class Entry:
    """One explicit write."""

    def __init__(  # noqa: PLR0917  made in one place
        self, number: int, area: AreaState, kind: int, key: bytes, owner: int, now: float
    ) -> None:
        self.number = number
        self.area = area
        self.kind = kind
        self.key = key
        self.owner = owner
        """Incarnation that settles it."""
        self.state = PENDING
        self.version = 0
        """Of the item that was stored with it; 0: none was."""
        self.noted_at = now
        self.settled_at = 0.0
        """When it became SENT, or HEARD."""

    @property
    def place(self) -> Place:
        """Where its key lies."""
        return self.area.number, self.key

    @property
    def note(self) -> Note:
        """What the listener gets of it."""
        return self.number, self.area.name, self.kind, self.key

    def is_due(self, alive: int) -> bool:
        """Tell whether the listener is to replay it; *alive* is the one living incarnation."""
        return self.state == QUEUED or (self.state == PENDING and self.owner != alive)


class Newest:
    """
    Which entries make older ones needless.

    A clear speaks for its area, a set and a delete for their key.  An expire leaves the stale copy
    in L2, which is what an older delete of the key was about: it speaks for older expires only.
    Tags are to their operations what keys are to theirs.
    """

    def __init__(self, numbers: dict[tuple[Place, bool], int] | None = None) -> None:
        self.numbers = {} if numbers is None else numbers
        """Newest number of a key, and whether of its expires."""

    def copy(self) -> Newest:
        """Give one that goes on from here on its own."""
        return Newest(self.numbers.copy())

    def add(self, entry: Entry) -> None:
        """Take an entry into account."""
        spoken = entry.place, entry.kind in EXPIRES
        self.numbers[spoken] = max(entry.number, self.numbers.get(spoken, 0))

    def remove(self, entry: Entry) -> None:
        """Forget an entry, unless there is a newer one."""
        spoken = entry.place, entry.kind in EXPIRES
        if self.numbers.get(spoken) == entry.number:
            del self.numbers[spoken]

    def speaks_for(self, entry: Entry) -> bool:
        """Tell whether a newer one makes an entry needless."""
        area = entry.area.number, b""
        heard = [(area, False), (entry.place, False)]
        if entry.kind in EXPIRES:
            heard.append((entry.place, True))
        return any(self.numbers.get(each, 0) > entry.number for each in heard)


class Outbox:
    """Entries in the order of their numbers."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._dropped = 0
        self.forget()

    def forget(self) -> None:
        """Begin anew, in a forked child: the parent sends what is its own.  Numbers go on."""
        self._entries: OrderedDict[int, Entry] = OrderedDict()
        self._waiting: dict[int, Entry] = {}
        """Those PENDING or QUEUED.  None ever comes back, so they too are in order."""
        self._taken = Newest()
        """What L2 has taken.  Never of an entry that is gone."""
        self._given_up: OrderedDict[int, None] = OrderedDict()
        """The last that were QUEUED, whatever has become of them."""
        self._owed: dict[AreaState, bool] = {}
        """Areas that owe a clear, and whether the listener has seen all that they owe it for."""

    # --- who writes ---

    def add(self, area: AreaState, kind: int, key: bytes, owner: int, now: float) -> int:
        """Append an entry, PENDING; give its number."""
        entry = Entry(next(self._numbers), area, kind, key, owner, now)
        self._entries[entry.number] = self._waiting[entry.number] = entry
        while len(self._entries) > ENTRIES_MAX:
            self._overflow(self._entries.popitem(last=False)[1])
        return entry.number

    def name_item(self, number: int, version: int) -> None:
        """Write down which item was stored with an entry."""
        entry = self._entries.get(number)
        if entry is not None:
            entry.version = version

    def settle(self, number: int, now: float, *, sent: bool) -> None:
        """Note whether L2 has taken it; what once was taken stays so."""
        entry = self._waiting.get(number)
        if entry is None:
            return
        if sent:
            self._take(entry, SENT, now)
        else:
            entry.state = QUEUED
            self._given_up[number] = None
            while len(self._given_up) > ENTRIES_MAX:
                self._given_up.popitem(last=False)

    # --- the listener ---

    def due(self, limit: int, alive: int) -> list[Note]:
        """List what is to be replayed, oldest first; drop what has become moot."""
        newest = self._taken.copy()
        found: list[Note] = []
        for entry in reversed(list(self._waiting.values())):
            if not entry.is_due(alive):
                continue
            if newest.speaks_for(entry):
                self._remove(entry)
            else:
                newest.add(entry)
                found.append(entry.note)
        found.reverse()
        return found[: max(0, limit)]

    def recent(self, since: float) -> list[Note]:
        """List what L2 has taken since then, oldest first: a failover may have lost it."""
        return [
            entry.note
            for entry in list(self._entries.values())
            if entry.state in {SENT, HEARD} and entry.settled_at >= since
        ]

    def hear(self, number: int, now: float) -> tuple[Entry | None, bool]:
        """Note that its message has come; give the entry, and whether L2 was known to have it."""
        entry = self._entries.get(number)
        if entry is None:
            return None, False
        was_taken = entry.state >= SENT
        self._take(entry, HEARD, now)
        return entry, was_taken

    def is_given_up(self, number: int) -> bool:
        """Tell whether an entry was ever QUEUED."""
        return number in self._given_up

    def unsent(self, area: AreaState) -> frozenset[bytes] | None:
        """List the keys of an area whose entries are QUEUED; None: it may be any of them."""
        queued = [
            entry
            for entry in list(self._waiting.values())
            if entry.area is area and entry.state == QUEUED
        ]
        if area in self._owed or any(entry.kind == NOTE_CLEAR for entry in queued):
            return None
        return frozenset(entry.key for entry in queued)

    def owe(self, area: AreaState) -> None:
        """Have an area owe a clear, one more than it may owe already."""
        self._owed[area] = False

    def owed(self) -> list[str]:
        """List the areas that owe a clear."""
        areas = list(self._owed)
        self._owed.update(dict.fromkeys(areas, True))
        return [area.name for area in areas]

    def pay(self, area: AreaState) -> None:
        """Note that an area was cleared, for all that it owed at the last call of owed()."""
        if self._owed.get(area, False):
            del self._owed[area]

    # --- the rest ---

    def shown(self, now: float, alive: int) -> dict[str, Any]:
        """Describe it."""
        due = [entry for entry in list(self._waiting.values()) if entry.is_due(alive)]
        return {
            "outbox_depth": len(due),
            "outbox_oldest_age": now - due[0].noted_at if due else None,
            "outbox_dropped": self._dropped,
        }

    def check(self) -> list[str]:
        """List violated invariants; empty when sound."""
        found = []
        waiting = [number for number, each in self._entries.items() if each.state < SENT]
        if waiting != list(self._waiting):
            found.append(f"{len(self._waiting)} entries wait, not {len(waiting)}")
        if waiting != sorted(waiting):
            found.append("entries are out of order")
        gone = sum(number not in self._entries for number in self._taken.numbers.values())
        if gone:
            found.append(f"{gone} entries are known as taken, and are gone")
        return found

    def _take(self, entry: Entry, state: int, now: float) -> None:
        if entry.state < state:
            entry.settled_at = now
        self._waiting.pop(entry.number, None)
        entry.state = state
        self._taken.add(entry)

    def _overflow(self, entry: Entry) -> None:
        """Let the oldest entry go; its area owes a clear if nobody has heard of it."""
        self._remove(entry)
        if entry.state < SENT and not self._taken.speaks_for(entry):
            self._owed[entry.area] = False
            self._dropped += 1

    def _remove(self, entry: Entry) -> None:
        self._entries.pop(entry.number, None)
        self._waiting.pop(entry.number, None)
        self._taken.remove(entry)
