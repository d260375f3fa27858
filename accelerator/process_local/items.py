"""What is stored: items, the decoded objects of an area, and the area itself."""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from accelerator.process_local.constants import BYPASS, CAP, COUNTERS, LATENCY_BOUNDS

if TYPE_CHECKING:
    from accelerator.process_local.flights import Record
    from accelerator.process_local.tags import Slots, TagTable

OVERHEAD: Final = 560
"""Bytes that Python needs for an item besides those of key and payload (a test measures it)."""

TAGS_OVERHEAD: Final = 96
TAG_OVERHEAD: Final = 136
"""The same for what an item knows of its tags, and of each of them."""

# How old an item is.
FRESH: Final = 0
STALE: Final = 1
EXPIRED: Final = 2
CLEARED: Final = 3

Place = tuple[int, bytes]
"""Number of the area, encoded key."""


class Life(NamedTuple):
    """Absolute times: fresh until, usable as stale until.  None: no expiry; never stale."""

    expire_at: float | None
    stale_until: float | None


ANY_AGE: Final = math.inf
NO_AGE: Final = -1.0
_JOINED_ANYWAY: Final = 0.04
"""Seconds that a load may have run whatever the limit: or 0 would let everybody load at once."""
READ_SOON: Final = 0.1
"""Seconds until those who waited for a load have read what it stored."""


class Freshness(NamedTuple):
    """How stale reads may be, see ``_native.Area._bind``."""

    bound: float | None = None
    limit: float = 0.0
    on_desync: int = CAP

    def oldest(self, fresh_until: float, now: float, within: float | None) -> float:
        """Tell the greatest age of what is given as fresh."""
        if self.bound is None:
            return ANY_AGE
        known_age = now - (fresh_until - self.bound)
        oldest = ANY_AGE if known_age <= self.limit else self._capped()
        return oldest if within is None or known_age <= within else min(oldest, within)

    def oldest_joined(self, fresh_until: float, now: float) -> float:
        """Tell the greatest age of a load that readers may join."""
        oldest = self.oldest(fresh_until, now, None)
        return ANY_AGE if oldest == ANY_AGE else max(self.limit, _JOINED_ANYWAY)

    def _capped(self) -> float:
        if self.on_desync == CAP:
            return self.limit
        return NO_AGE if self.on_desync == BYPASS else ANY_AGE


UNBOUND: Final = Freshness()


class Item(NamedTuple):
    """A stored value.  Never changed, only replaced: who holds one needs no lock to read it."""

    area: AreaState
    place: Place
    code: int
    payload: bytes
    life: Life
    loaded_at: float
    generation: int
    """That of the area when it was stored."""
    version: int
    tags: tuple[Slots, ...] = ()
    """Where those that it carries are written down."""
    since: int = 0
    """Count of the clock of tags when its load began; only compared if it has tags."""

    @property
    def size(self) -> int:
        """Bytes that it takes."""
        size = OVERHEAD + len(self.place[1]) + len(self.payload)
        return size + TAGS_OVERHEAD + TAG_OVERHEAD * len(self.tags) if self.tags else size

    @property
    def is_expired_by_tag(self) -> bool:
        """Whether its fresh life was ended so, whatever it was."""
        return bool(self.tags) and self.area.tags.expired(self.tags) > self.since

    def age(self, now: float) -> int:
        """Tell what can be done with it: FRESH, STALE, EXPIRED or CLEARED."""
        if self.generation != self.area.base.generation:
            return CLEARED
        if self.tags and self.area.tags.deleted(self.tags) > self.since:
            return CLEARED
        expire_at, stale_until = self.life
        if self.is_expired_by_tag:
            # As if by expire(): only what may be used as stale is left.
            return STALE if stale_until is not None and now < stale_until else CLEARED
        if expire_at is None or now < expire_at:
            return FRESH
        return STALE if stale_until is not None and now < stale_until else EXPIRED

    def age_for(self, now: float, oldest: float) -> int:
        """Tell the same to a reader for whom nothing older than *oldest* is fresh."""
        age = self.age(now)
        too_old = oldest != ANY_AGE and now - self.loaded_at > oldest
        return STALE if age == FRESH and too_old else age


class Pause(NamedTuple):
    """Until when a key is not to be loaded again, unless it is deleted before."""

    until: float
    token: tuple[int, int]


class Objects:
    """Decoded objects, each with the item that it was decoded from; oldest out first."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Place, tuple[Item, Any]] = OrderedDict()
        self._bytes = 0

    def find(self, item: Item) -> tuple[Item, Any] | None:
        """Give item and object, if the object is of this very item."""
        kept = self._kept.get(item.place)
        return kept if kept is not None and kept[0] is item else None

    def keep(self, item: Item, value: Any, most: int) -> None:
        """Keep an object, and no more than *most* bytes of payloads in all."""
        self.forget(item.place)
        if len(item.payload) > most:
            return
        self._kept[item.place] = (item, value)
        self._bytes += len(item.payload)
        while self._bytes > most:
            self.forget(next(iter(self._kept)))

    def forget(self, place: Place) -> None:
        """Drop the object of a key, so that its memory is free at once."""
        kept = self._kept.pop(place, None)
        if kept is not None:
            self._bytes -= len(kept[0].payload)


class AreaState:
    """
    One area, common to all cache objects of its name and version.

    Its versions (fingerprints other than 0) have values, flights, pauses and objects apart; all
    else is that of their *base*, the plain area of the name, which there always is.  What is
    changed in place is the same object there and here.
    """

    def __init__(
        self, name: str, number: int, tags: TagTable, base: AreaState | None = None
    ) -> None:
        self.name = name
        self.number = number
        self.tags = tags
        """That of the segment."""
        self.base = base or self
        self.versions: dict[int, AreaState] = {}
        """Of a base: those that were ever bound, itself among them if it was, by fingerprint."""
        self.generation = 0
        self.fresh_until = -math.inf
        """What other hosts have told until then less the bound is in here; never: not in step."""
        self.counters: list[int] = base.counters if base else [0] * len(COUNTERS)
        self.latencies: list[int] = base.latencies if base else [0] * (len(LATENCY_BOUNDS) + 2)
        """Loads per bucket; last the sum in microseconds."""
        self.l2_latencies: list[int] = base.l2_latencies if base else self.latencies.copy()
        """Likewise the calls of L2."""
        self.watched = False
        """Whether the listener is to follow it."""
        self.applied = (0, 0)
        """Replication id (hashed) and sequence number up to which every message was applied."""
        self.alone: dict[int, Record] = {}
        """Running loads that nobody can join, by number."""
        self.pauses: dict[bytes, Pause] = {}
        """Keys that are not to be loaded again yet."""
        self.forget_objects()

    def all_versions(self) -> list[AreaState]:
        """List all that have this name, this one first."""
        others = (self.base, *self.base.versions.copy().values())
        return list(dict.fromkeys((self, *others)))

    def forget_objects(self) -> None:
        """Drop all decoded objects."""
        # Apart from each other, because a cache object that was not promised that nobody changes
        # its objects must not hand out what another one keeps under that promise.
        self.immutable = Objects()
        self.shared = Objects()

    def named_counters(self) -> dict[str, int]:
        """All counters by name."""
        return dict(zip(COUNTERS, self.counters, strict=True))
