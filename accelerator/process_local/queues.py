"""Eviction: which items stay, in a given number of bytes.  Knows neither locks nor clocks."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from accelerator.process_local.constants import EVICTIONS, EXPIRED_TOTAL
from accelerator.process_local.items import CLEARED, EXPIRED, Item, Place

if TYPE_CHECKING:
    from collections.abc import Iterator

_MARK_MAX: Final = 3
_SPARED_MAX: Final = 32
"""Marked items that one write may spare before one goes all the same: bounds its time."""


class Queue:
    """Items in the order of their arrival, and their bytes."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.items: OrderedDict[Place, Item] = OrderedDict()
        self.used = 0

    def add(self, item: Item) -> None:
        """Append."""
        self.items[item.place] = item
        self.used += item.size

    def remove(self, place: Place) -> bool:
        """Take out; tell whether it was there."""
        item = self.items.pop(place, None)
        if item is not None:
            self.used -= item.size
        return item is not None

    def pop_oldest(self) -> Item:
        """Take out what has been there longest."""
        _, item = self.items.popitem(last=False)
        self.used -= item.size
        return item

    def lacks_room(self, size: int) -> bool:
        """Tell whether something must go before *size* bytes fit."""
        return self.used + size > self.capacity and bool(self.items)

    def recount(self) -> None:
        """Compute the sum anew."""
        self.used = sum(item.size for item in self.items.values())


class Queues:
    """
    Which items there are, and which go when bytes run out.

    A new item enters *small*.  At its old end it goes on to *main* if it was asked for meanwhile or
    if main has room; else it goes out and leaves a ghost, by which it is known should it return.
    At the old end of *main* an item that was asked for goes round once more.
    """

    def __init__(self, capacity: int) -> None:
        self.small = Queue(capacity // 10)
        self.main = Queue(capacity - capacity // 10)
        self._marks: dict[Place, int] = {}
        self._ghosts: OrderedDict[int, None] = OrderedDict()
        self._spared = 0

    def __len__(self) -> int:
        return len(self.small.items) + len(self.main.items)

    def __iter__(self) -> Iterator[Item]:
        yield from self.small.items.values()
        yield from self.main.items.values()

    @property
    def used(self) -> int:
        """Bytes of all items."""
        return self.small.used + self.main.used

    @property
    def item_max(self) -> int:
        """Size of the largest item that is taken."""
        return self.main.capacity // 4

    def find(self, place: Place) -> Item | None:
        """Give the item of a key, whatever its age."""
        return self.small.items.get(place) or self.main.items.get(place)

    def mark(self, place: Place) -> None:
        """Note that a key was asked for."""
        self._marks[place] = min(_MARK_MAX, self._marks.get(place, 0) + 1)

    def remove(self, place: Place) -> None:
        """Take an item out."""
        self._marks.pop(place, None)
        if not self.small.remove(place):
            self.main.remove(place)

    def insert(self, item: Item, now: float) -> None:
        """Put an item among the newest, instead of an older one of its key."""
        queue = self._choose(item)
        if not self.small.remove(item.place):
            self.main.remove(item.place)
        self._spared = 0
        while queue.lacks_room(item.size):
            if queue is self.small:
                self._shrink_small(now)
            else:
                self._shrink_main(now)
        queue.add(item)

    def recount(self) -> None:
        """Make the sums right after a fork that came in the middle of a change."""
        for place in self.small.items.keys() & self.main.items.keys():
            del self.small.items[place]
        self.small.recount()
        self.main.recount()

    def _choose(self, item: Item) -> Queue:
        if item.size > self.small.capacity or item.place in self.main.items:
            return self.main
        if item.place in self.small.items or hash(item.place) not in self._ghosts:
            return self.small
        del self._ghosts[hash(item.place)]
        return self.main

    def _shrink_small(self, now: float) -> None:
        item = self.small.pop_oldest()
        mark = self._marks.pop(item.place, 0)
        if self._is_gone(item, now):
            return
        if mark == 0 and self.main.lacks_room(item.size):
            self._evict(item, ghost=True)
            return
        while self.main.lacks_room(item.size):
            self._shrink_main(now)
        self.main.add(item)

    def _shrink_main(self, now: float) -> None:
        item = self.main.pop_oldest()
        mark = self._marks.pop(item.place, 0)
        if self._is_gone(item, now):
            return
        if mark == 0 or self._spared >= _SPARED_MAX:
            self._evict(item, ghost=mark > 0)
            return
        self._spared += 1
        self.main.add(item)
        if mark > 1:
            self._marks[item.place] = mark - 1

    def _is_gone(self, item: Item, now: float) -> bool:
        age = item.age(now)
        if age == EXPIRED:
            item.area.counters[EXPIRED_TOTAL] += 1
        return age in {EXPIRED, CLEARED}

    def _evict(self, item: Item, *, ghost: bool) -> None:
        item.area.counters[EVICTIONS] += 1
        if not ghost:
            return
        self._ghosts[hash(item.place)] = None
        while len(self._ghosts) > max(16, len(self) * 9 // 10):
            self._ghosts.popitem(last=False)
