"""
LRU and S3-FIFO over a trace, counted in entries: the references that hit ratios are held against.

Keys are dense numbers from 0.  Every miss inserts, the cache starts cold, the whole trace counts.
"""

from collections import OrderedDict, deque
from collections.abc import Sequence


def lru_hits(trace: Sequence[int], capacity: int) -> int:
    """Hits of a cache that forgets what was not used for the longest time."""
    entries: OrderedDict[int, None] = OrderedDict()
    recent, oldest = entries.move_to_end, entries.popitem
    misses = 0
    for key in trace:
        if key in entries:
            recent(key)
        else:
            misses += 1
            if len(entries) >= capacity:
                oldest(last=False)
            entries[key] = None
    return len(trace) - misses


def s3fifo_hits(trace: Sequence[int], capacity: int) -> int:
    """
    Hits of S3-FIFO as its authors run it.

    A small queue of 10 %, a main queue of 90 %, a ghost queue with as many keys as main has room
    for.  A hit counts up to 3.  What leaves small goes to main if it was hit twice, else to the
    ghosts; what leaves main goes round once more for each counted hit; what is found among the
    ghosts starts in main.
    """
    cache = _S3Fifo(capacity, max(trace, default=0) + 1)
    counted, insert = cache.counted, cache.insert
    misses = 0
    for key in trace:
        count = counted[key]
        if count == 0:
            misses += 1
            insert(key)
        elif count < _MOST:
            counted[key] = count + 1
    return len(trace) - misses


_RESIDENT, _PROMOTED, _MOST = 1, 3, 4
"""``counted`` is one more than the hits of a resident key: 0 means absent, so one look decides."""


class _S3Fifo:
    def __init__(self, capacity: int, keys: int) -> None:
        self.counted = bytearray(keys)
        self._capacity = capacity
        self._small_room = max(1, int(0.1 * capacity))
        self._main_room = capacity - self._small_room
        self._ghost_room = int(0.9 * capacity)
        self._small: deque[int] = deque()
        self._main: deque[int] = deque()
        self._ghosts: OrderedDict[int, None] = OrderedDict()
        self._filled = False

    def insert(self, key: int) -> None:
        known = self._ghosts.pop(key, self) is None
        while len(self._small) + len(self._main) >= self._capacity:
            self._filled = True
            if self._small and len(self._main) <= self._main_room:
                self._evict_small()
            else:
                self._evict_main()
        self.counted[key] = _RESIDENT
        # Until the first eviction main takes what small has no room for.
        spill = not self._filled and len(self._small) >= self._small_room
        to_main = known or spill or self._small_room == 1
        (self._main if to_main else self._small).append(key)

    def _evict_small(self) -> None:
        """Take the oldest of small until one leaves the cache."""
        small, counted = self._small, self.counted
        while small:
            key = small.popleft()
            if counted[key] >= _PROMOTED:
                counted[key] = _RESIDENT
                self._main.append(key)
                continue
            counted[key] = 0
            if self._ghost_room:
                self._ghosts[key] = None
                if len(self._ghosts) > self._ghost_room:
                    self._ghosts.popitem(last=False)
            return

    def _evict_main(self) -> None:
        main, counted = self._main, self.counted
        while True:
            key = main.popleft()
            if counted[key] == _RESIDENT:
                counted[key] = 0
                return
            counted[key] -= 1
            main.append(key)
