"""The segment: all areas, one lock, one clock."""

from __future__ import annotations

import hashlib
import itertools
import os
import secrets
import threading
import time
from typing import TYPE_CHECKING, Any, Final

from accelerator.codec import CODE_INT, decode_raw
from accelerator.keys import encode as encode_key
from accelerator.process_local.constants import (
    CORRUPT,
    EXPIRED_TOTAL,
    FILL,
    LAYOUT,
    MAX_SIZE,
    MIN_SIZE,
    NOT_STORED,
    REJECTED_RACE,
    REJECTED_SIZE,
    SET,
    SET_TOTAL,
    STORED,
    TAG_DELETE,
    TOO_LARGE,
)
from accelerator.process_local.flights import Bell, Handed, Record, Table
from accelerator.process_local.items import (
    CLEARED,
    EXPIRED,
    FRESH,
    READ_SOON,
    STALE,
    UNBOUND,
    AreaState,
    Freshness,
    Item,
    Life,
    Pause,
)
from accelerator.process_local.queues import Queues
from accelerator.process_local.reading_side import ReadingSide
from accelerator.process_local.tags import TagTable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from accelerator.process_local.tags import Slots

_AREA_BYTES: Final = 104
_GENERATION_GROUPS: Final = 1 << 14
_PAUSES_MAX: Final = 1024
_VERSIONS_KEPT: Final = 4
"""Versions of a key whose stale copies an expire keeps."""
_AHEAD_MOST: Final = 90 * 86400.0
_INT64: Final = range(-(1 << 63), 1 << 63)


class ProcessLocalSegment(ReadingSide):
    """
    Values of all areas, in the memory of this process.

    Args:
        size: Bytes that values, keys and what Python needs around them may take.
        max_value_size: Only told again in the statistics: areas have their own limit.
        name: Only shown.
    """

    fd: Final = -1
    readonly: Final = False
    is_private: Final = True

    def __init__(self, size: int, max_value_size: int, *, name: str = "") -> None:
        if not MIN_SIZE <= size <= MAX_SIZE:
            raise ValueError(f"size must be {MIN_SIZE} to {MAX_SIZE} bytes, not {size}")
        super().__init__()
        self.size = size
        self.name = name
        self._max_value_size = max_value_size
        self._clock_shift = 0.0
        self._created = int(time.time())
        self._attached_at = 0.0
        self._incarnations = 0
        self._versions = itertools.count(1)
        self._hash_key = secrets.token_bytes(16)
        # A word for each group of keys, raised by deletes, so that a load can tell whether its
        # value is out of date.  A neighbour's delete costs a fill, never an item.
        self._generations = [0] * _GENERATION_GROUPS
        self.tags = TagTable(self._hash_key)
        self._queues = Queues(size)
        self._area_numbers = itertools.count()
        self.table = Table(self)
        self._locks: dict[int, threading.RLock] = {}
        self._pid = 0

    @classmethod
    def private(cls, size: int, max_value_size: int) -> ProcessLocalSegment:
        """Make one, as ``_native.Segment.private`` does."""
        return cls(size, max_value_size)

    # --- this process ---

    def lock(self) -> threading.RLock:
        """
        Give the lock, a new one in a forked child: who held the old one does not exist here.

        Told by the process id, because not every server that forks runs os.register_at_fork's
        hooks; getpid() costs less than what follows.
        """
        pid = os.getpid()
        return self._locks.get(pid) or self._enter(pid)

    def _enter(self, pid: int) -> threading.RLock:
        # setdefault() is atomic: whichever of the child's threads is first, all get one lock.
        lock = self._locks.setdefault(pid, threading.RLock())
        with lock:
            if self._pid != pid:
                self._queues.recount()
                self.table.forget()
                self.fork_remote_side()
                for area in self._areas.values():
                    area.alone = {}
                    for version in area.all_versions():
                        version.forget_objects()
                self._locks = {pid: lock}
                self.incarnation = 0
                self._pid = pid
        return lock

    @property
    def entered(self) -> bool:
        """Whether this very process is registered."""
        return self.incarnation != 0 and self._pid == os.getpid()

    @property
    def max_item(self) -> int:
        """Largest item (key, value and what is around them, in bytes) that fits."""
        return self._queues.item_max

    def register(self) -> int:
        """Enter this process.  Idempotent; once more after a fork."""
        with self.lock():
            if self.incarnation == 0:
                self._incarnations += 1
                self.incarnation = self._incarnations
                self._attached_at = time.monotonic()
            return self.incarnation

    def unregister(self) -> None:
        """Leave.  Values stay."""
        with self.lock():
            self.incarnation = 0

    def alive(self) -> list[dict[str, Any]]:
        """List the one process that there is, if it is registered."""
        with self.lock():
            if self.incarnation == 0:
                return []
            return [
                {
                    "pid": self._pid,
                    "incarnation": self.incarnation,
                    "alive": True,
                    "attached": time.monotonic() - self._attached_at,
                    "self": True,
                }
            ]

    def any_alive(self) -> bool:
        """Tell that there is no other process."""
        return False

    def reap(self, pid: int) -> int:  # noqa: ARG002  as in _native
        """Free nothing: a dead process left nothing here."""
        return 0

    def set_supervisor(self, pid: int, start_time: int) -> None:
        """Do nothing: no other process will ask whose workers may find their values again."""

    # --- everything at once ---

    def empty(self) -> None:
        """Drop every value, keep counters and generations."""
        with self.lock():
            self._queues = Queues(self.size)
            for area in list(self._areas.values()):
                self.clear(area)

    def clear_all(self) -> None:
        """Clear every area."""
        with self.lock():
            for area in self._areas.values():
                area.generation += 1

    def set_clock_shift(self, seconds: float) -> None:
        """Tests: move this process's clock."""
        self._clock_shift = float(seconds)

    def now(self) -> float:
        """Seconds of the clock that lives are measured with."""
        return time.monotonic() + self._clock_shift

    def measure(self) -> None:
        """Drop what is expired or cleared, before its turn to be evicted comes."""
        with self.lock():
            now = self.now()
            for item in list(self._queues):
                age = item.age(now)
                if age in {EXPIRED, CLEARED}:
                    self._remove(item)
                if age == EXPIRED:
                    item.area.counters[EXPIRED_TOTAL] += 1

    def check(self) -> list[str]:
        """List violated invariants; empty when sound."""
        with self.lock():
            found = []
            for name, queue in (("small", self._queues.small), ("main", self._queues.main)):
                counted = sum(item.size for item in queue.items.values())
                if counted != queue.used:
                    found.append(f"{name} holds {counted} bytes, not {queue.used}")
                if queue.used > queue.capacity:
                    found.append(f"{name} holds {queue.used} bytes of {queue.capacity}")
            both = self._queues.small.items.keys() & self._queues.main.items.keys()
            if both:
                found.append(f"{len(both)} keys are in both queues")
            late = sum(bool(item.tags) and item.since > self.tags.clock for item in self._queues)
            if late:
                found.append(f"{late} items were loaded after the clock of tags")
            return found + self.tags.check() + self.table.check() + self._outbox.check()

    def flights(self) -> list[dict[str, Any]]:
        """Describe the loads that run."""
        with self.lock():
            return self.table.shown()

    def bell(self) -> Bell:
        """Make a bell for an event loop."""
        return Bell(self)

    def stats(self) -> dict[str, Any]:
        """Give everything there is to see, in the shape of ``_native.Segment.stats``."""
        with self.lock():
            now = self.now()
            live = [item for item in self._queues if item.age(now) in {FRESH, STALE}]
            areas: dict[str, dict[str, int]] = {
                area.name: {**area.named_counters(), "entries": 0, "bytes": 0}
                for area in self._areas.values()
            }
            for item in live:
                areas[item.area.name]["entries"] += 1
                areas[item.area.name]["bytes"] += item.size
            return {
                "segment": self._summary(live),
                "areas": areas,
                "processes": self.alive(),
                "link": self.link(),
                "leader": self.leader(),
            }

    def _summary(self, live: list[Item]) -> dict[str, Any]:
        shown = {
            "name": self.name,
            "private": True,
            "size": self.size,
            "layout": LAYOUT,
            "created": self._created,
            "shards": 1,
            "max_value_size": self._max_value_size,
            "max_item": self.max_item,
            "data_bytes": self.size,
            "used_bytes": self._queues.used,
            "live_bytes": sum(item.size for item in live),
            "entries": len(live),
            "generation_slots": _GENERATION_GROUPS,
            "process_slots": 1,
            "area_slots": sum(len(area.all_versions()) for area in self._areas.values()),
        }
        # What only a shared segment has.
        absent = ("fixed_bytes", "index_slots", "index_bytes", "ghost_bytes", "resets")
        return {**dict.fromkeys((*absent, "dead_owner_takeover", "stats_lost"), 0), **shown}

    # --- one key ---

    def area(self, name: str) -> AreaState:
        """Give the plain area of this name, a new one if need be."""
        if not 0 < len(name.encode()) <= _AREA_BYTES:
            raise ValueError(f"the name of an area must be 1 to {_AREA_BYTES} bytes long")
        with self.lock():
            known = self._areas.get(name)
            if known is None:
                new = AreaState(name, next(self._area_numbers), self.tags)
                known = self._areas.setdefault(name, new)
            return known

    def version(self, name: str, variant: int) -> AreaState:
        """Give the version of an area with this fingerprint (0: without one), to hold values."""
        base = self.area(name)
        with self.lock():
            known = base.versions.get(variant)
            if known is None:
                new = (
                    AreaState(name, next(self._area_numbers), self.tags, base) if variant else base
                )
                known = base.versions.setdefault(variant, new)
            return known

    def hash_of(self, area: AreaState, key: bytes) -> int:
        """Keyed hash of 64 bits."""
        text = area.base.number.to_bytes(4, "little") + key
        digest = hashlib.blake2b(text, digest_size=8, key=self._hash_key).digest()
        return int.from_bytes(digest, "little")

    def area_extend(self, area: str, until: float) -> None:
        """Raise the time until which an area is fresh, in seconds of time.monotonic()."""
        if not (0 <= until < self.now() + _AHEAD_MOST):
            raise ValueError(
                "area_extend: until must be a time of the monotonic clock, at most 90 days ahead"
            )
        with self.lock():
            known = self._areas.get(area)
            if known is not None:
                known.fresh_until = max(known.fresh_until, until)

    def find(
        self,
        area: AreaState,
        key: bytes,
        *,
        mark: bool,
        stale: bool,
        freshness: Freshness = UNBOUND,
        within: float | None = None,
    ) -> tuple[Item, bool] | None:
        """Give the item of a key, and whether it is fresh, if it is or stale will do."""
        place = (area.number, key)
        with self.lock():
            item = self._queues.find(place)
            if item is None:
                return None
            now = self.now()
            age = item.age_for(now, freshness.oldest(area.base.fresh_until, now, within))
            if age == FRESH or (age == STALE and stale):
                if mark:
                    self._queues.mark(place)
                return item, age == FRESH
            return None

    def current(self, area: AreaState, key: bytes) -> list[Item]:
        """List a key's items in all versions, whatever their lives, unless cleared since."""
        with self.lock():
            now = self.now()
            return [item for item in self._items(area, key) if item.age(now) != CLEARED]

    def token(self, area: AreaState, key: bytes) -> tuple[int, int]:
        """Generations of key and area."""
        with self.lock():
            return self._generations[self._group(area, key)], area.base.generation

    def store(
        self,
        area: AreaState,
        key: bytes,
        code: int,
        payload: bytes,
        life: Life,
        *,
        mode: int = SET,
        token: tuple[int, int, int] | None = None,
        age: float = 0.0,
        freshness: Freshness = UNBOUND,
        note: int = 0,
        tags: tuple[Slots, ...] = (),
    ) -> int:
        """Store a value and count what became of it; *note* is the outbox number of the write."""
        with self.lock():
            now = self.now()
            if mode != SET and self.is_current(area, key, freshness):
                return self._not_stored(area, mode)
            since = self.tags.clock if token is None else token[2]
            if token is not None and (
                token[:2] != self.token(area, key) or self.tags.changed(tags) > since
            ):
                return self._not_stored(area, mode)
            stored = self._store(
                area,
                key,
                code,
                payload,
                life,
                now - age,
                note=note,
                tags=tags,
                since=since,
                is_explicit=mode != FILL,
            )
            if stored == TOO_LARGE and mode == SET:
                self.delete(area, key)
            return stored

    def fill(self, record: Record, handed: Handed, life: Life, age: float | None) -> int:
        """
        Store what a flight has loaded, also over a fresh value, unless it was overtaken.

        So it was by an operation on one of its tags.  Without an *age* its load began when the
        flight did.
        """
        code, payload, tags = handed
        with self.lock():
            if not self.table.own(record) or self.tags.changed(tags) > record.since:
                return self._not_stored(record.area, FILL)
            self.table.step_aside(record)
            loaded_at = record.started if age is None else self.now() - age
            return self._store(
                record.area,
                record.place[1],
                code,
                payload,
                life,
                loaded_at,
                tags=tags,
                since=record.since,
            )

    def delete(self, area: AreaState, key: bytes) -> bool:
        """Forget a key, and what is being loaded for it; tell whether it was there."""
        with self.lock():
            self._generations[self._group(area, key)] += 1
            items = self._items(area, key)
            for item in items:
                self._remove(item)
            now = self.now()
            return any(item.age(now) in {FRESH, STALE} for item in items)

    def expire(self, area: AreaState, key: bytes) -> bool:
        """End the fresh life of a key, keep its stale copy; tell whether it was fresh."""
        with self.lock():
            self._generations[self._group(area, key)] += 1
            items = self._items(area, key)
            now = self.now()
            ages = [item.age(now) for item in items]
            for n, (item, age) in enumerate(zip(items, ages, strict=True)):
                stale_until = item.life.stale_until
                outlives = stale_until is not None and now < stale_until
                if n < _VERSIONS_KEPT and age in {FRESH, STALE} and outlives:
                    self._put_again(item, Life(now, stale_until), now)
                else:
                    self._remove(item)
            return FRESH in ages

    def touch(self, area: AreaState, key: bytes, life: Life) -> int:
        """Give a fresh value a new life."""
        with self.lock():
            now = self.now()
            item = self._queues.find((area.number, key))
            if item is None or item.age(now) != FRESH:
                return NOT_STORED
            self._put_again(item, life, now, is_explicit=True)
            return STORED

    def incr(
        self, area: AreaState, key: bytes, delta: int, initial: int | None, life: Life
    ) -> int | None:
        """Add to a stored int; a present one keeps its life and its tags."""
        tags: tuple[Slots, ...] = ()
        with self.lock():
            now = self.now()
            item = self._queues.find((area.number, key))
            if item is None or item.age(now) != FRESH:
                if initial is None:
                    return None
                value, loaded_at = initial, now
                since = 0
            else:
                if item.code != CODE_INT:
                    raise TypeError("the cached value is no 64-bit int")
                tags, since = item.tags, item.since
                value, loaded_at, life = (
                    decode_raw(CODE_INT, item.payload),
                    item.loaded_at,
                    item.life,
                )
            value += delta
            if value not in _INT64:
                raise OverflowError("the result does not fit 64 bits")
            payload = value.to_bytes(8, "little", signed=True)
            self._put(
                area,
                key,
                CODE_INT,
                payload,
                life,
                loaded_at=loaded_at,
                now=now,
                overtakes=True,
                tags=tags,
                since=since,
                is_explicit=True,
            )
            return value

    def clear(self, area: AreaState) -> None:
        """Forget a whole area, at once: its items die with its generation."""
        with self.lock():
            area.base.generation += 1
            for version in area.all_versions():
                version.forget_objects()

    # --- tags ---

    def slots_of(self, area: AreaState, tags: Sequence[bytes]) -> tuple[Slots, ...]:
        """Give the slots of tags."""
        return tuple(self.tags.slots(area.base.number, tag) for tag in tags)

    def mark_tags(self, area: AreaState, tags: Sequence[bytes], *, expire: bool) -> None:
        """Make every value of an area that carries one of some tags go, or only be stale."""
        if tags:
            with self.lock():
                self.tags.raise_all(self.slots_of(area, tags), expire=expire)

    def count_tags(self, area: AreaState, n: int) -> None:
        """Count deletes and expiries by tag."""
        with self.lock():
            area.counters[TAG_DELETE] += n

    # --- loads ---

    def is_readable(self, record: Record, age: float | None, freshness: Freshness) -> bool:
        """Tell whether those who waited for a load are given what it has stored."""
        now = self.now()
        old = now - record.started if age is None else age
        return old + READ_SOON <= freshness.oldest(record.area.base.fresh_until, now, None)

    def is_current(
        self, area: AreaState, key: bytes, freshness: Freshness, *, window: float = 0.0
    ) -> bool:
        """Tell, with the lock held, whether reads are given a value, fresh for *window* more."""
        item = self._queues.find((area.number, key))
        if item is None:
            return False
        now = self.now()
        oldest = freshness.oldest(area.base.fresh_until, now, None)
        return item.age(now + window) == FRESH and item.age_for(now, oldest) == FRESH

    def pause(self, area: AreaState, key: bytes, seconds: float) -> None:
        """Note that a load of a key failed."""
        with self.lock():
            area.pauses.pop(key, None)
            area.pauses[key] = Pause(self.now() + seconds, self.token(area, key))
            while len(area.pauses) > _PAUSES_MAX:
                area.pauses.pop(next(iter(area.pauses)), None)

    def pausing(self, area: AreaState, key: bytes) -> bool:
        """Tell whether such a note is in force: not past its time, nor overtaken by a delete."""
        with self.lock():
            noted = area.pauses.get(key)
            if noted is None:
                return False
            if self.now() < noted.until and noted.token == self.token(area, key):
                return True
            area.pauses.pop(key, None)
            return False

    # --- decoded objects ---

    def find_object(self, item: Item, *, shared: bool) -> tuple[Item, Any] | None:
        """Give the kept object of this very item."""
        with self.lock():
            return (item.area.shared if shared else item.area.immutable).find(item)

    def keep_object(self, item: Item, value: Any, most: int, *, shared: bool) -> None:
        """Keep a decoded object for further reads."""
        with self.lock():
            if self._queues.find(item.place) is item:
                (item.area.shared if shared else item.area.immutable).keep(item, value, most)

    def drop_corrupt(self, item: Item) -> None:
        """Drop what no codec can decode."""
        with self.lock():
            if self._queues.find(item.place) is item:
                self._remove(item)
                item.area.counters[CORRUPT] += 1

    # --- with the lock held ---

    def _group(self, area: AreaState, key: bytes) -> int:
        return hash((area.base.number, key)) % _GENERATION_GROUPS

    def _items(self, area: AreaState, key: bytes) -> list[Item]:
        """List the items that a key has in all versions of the area, that of *area* first."""
        found = [self._queues.find((each.number, key)) for each in area.all_versions()]
        return [item for item in found if item is not None]

    def _forget_others(self, area: AreaState, key: bytes) -> None:
        """An explicit write of one version comes: what others have, or load, is older than it."""
        if len(area.base.versions) > 1:
            self._generations[self._group(area, key)] += 1
            for item in self._items(area, key):
                if item.area is not area:
                    self._remove(item)

    @staticmethod
    def _not_stored(area: AreaState, mode: int) -> int:
        if mode == FILL:
            area.counters[REJECTED_RACE] += 1
        return NOT_STORED

    def _store(  # noqa: PLR0917  called in two places
        self,
        area: AreaState,
        key: bytes,
        code: int,
        payload: bytes,
        life: Life,
        loaded_at: float,
        *,
        note: int = 0,
        tags: tuple[Slots, ...] = (),
        since: int = 0,
        is_explicit: bool = False,
    ) -> int:
        """Store a new value: what is being loaded for its key is out of date."""
        now = self.now()
        kept = self._put(
            area,
            key,
            code,
            payload,
            life,
            loaded_at=loaded_at,
            now=now,
            overtakes=True,
            note=note,
            tags=tags,
            since=since,
            is_explicit=is_explicit,
        )
        area.counters[SET_TOTAL if kept else REJECTED_SIZE] += 1
        return STORED if kept else TOO_LARGE

    def _put(
        self,
        area: AreaState,
        key: bytes,
        code: int,
        payload: bytes,
        life: Life,
        *,
        loaded_at: float,
        now: float,
        overtakes: bool = False,
        note: int = 0,
        tags: tuple[Slots, ...] = (),
        since: int = 0,
        is_explicit: bool = False,
    ) -> bool:
        """Store an item, and name it in the outbox; False if it does not fit."""
        version = next(self._versions)
        place = (area.number, key)
        generation = area.base.generation
        item = Item(area, place, code, payload, life, loaded_at, generation, version, tags, since)
        if item.size > self.max_item:
            return False
        if is_explicit:
            self._forget_others(area, key)
        if overtakes:
            self.table.overtake(area, key)
        area.immutable.forget(place)
        area.shared.forget(place)
        if note:
            self._outbox.name_item(note, version)
        self._queues.insert(item, now)
        return True

    def _put_again(self, item: Item, life: Life, now: float, *, is_explicit: bool = False) -> None:
        self._put(
            item.area,
            item.place[1],
            item.code,
            item.payload,
            life,
            loaded_at=item.loaded_at,
            now=now,
            tags=item.tags,
            since=item.since,
            is_explicit=is_explicit,
        )

    def _remove(self, item: Item) -> None:
        self._queues.remove(item.place)
        item.area.immutable.forget(item.place)
        item.area.shared.forget(item.place)


def key_hash(segment: ProcessLocalSegment, area: str, key: object) -> int:
    """64-bit keyed hash of a key, as shown by diagnostics."""
    return segment.hash_of(segment.area(area), encode_key(key))
