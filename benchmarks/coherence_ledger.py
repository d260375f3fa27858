"""
What all processes of an experiment on staleness share: the source of truth, and what was read.

The source of truth is a version for each key and the time of each commit, in memory that all
processes map.  It answers at once, never fails, and never forgets, so that whatever a reader gets
that is too old is the cache's doing.  What readers saw lies there as well: a worker that is killed
takes nothing with it.

All times are of CLOCK_MONOTONIC, which is one clock for all processes of a machine.
"""

import mmap
import time
from collections.abc import Iterator
from typing import Final, NamedTuple

KEYS: Final = 48
DELETED: Final = 32
"""Keys below this number are committed and then deleted; the others are set."""
VERSIONS: Final = 4096
"""Commits of one key that an experiment has room for."""
BUCKET: Final = 0.1
"""Seconds of a point in the record."""
SLOTS: Final = 32
"""Workers."""
LATE: Final = 20_000
"""Reads older than the bound that a worker has room for."""
LONGEST: Final = 1200
"""Seconds of an experiment."""
_BUCKETS: Final = int(LONGEST / BUCKET)
_BOX: Final = 1 << 14

OURS: Final = 0
PLAIN: Final = 1
CONTESTANTS: Final = (OURS, PLAIN)

# What has become of the write of a version.
COMMITTED: Final = 1
CALLED: Final = 2
ACCEPTED: Final = 3
QUEUED: Final = 4


class _Memory:
    """Hands out zeroed parts of shared memory."""

    def part(self, kind: str, count: int) -> "memoryview[float]":
        made = mmap.mmap(-1, max(8 * count, mmap.PAGESIZE))
        return memoryview(made)[: 8 * count].cast(kind)  # type: ignore[return-value]


class Late(NamedTuple):
    """A read that got something older than the bound allows, as counted from the commit."""

    contestant: int
    key: int
    version: int
    began: float
    ended: float


class Point(NamedTuple):
    """The reads of one contestant in one worker in one bucket of time."""

    reads: int
    stale: float
    """The greatest staleness, counted from the commit; of:"""
    key: int
    version: int
    began: float
    slowest: float
    """Seconds of the slowest read."""
    errors: int


_POINT: Final = len(Point._fields)


class Ledger:
    """
    All of it.  To be made before anything is forked.

    Args:
        bound: Seconds; reads that are older are recorded one by one.
        keys: How many there are.
    """

    def __init__(self, bound: float, keys: int = KEYS) -> None:
        memory = _Memory()
        self.bound = bound
        self.keys = keys
        self.began = time.monotonic()
        self._flags = memory.part("d", 8)
        self.leaders = memory.part("d", 8)
        """Process that listens, by host."""
        self._versions = memory.part("q", keys)
        self._commits = memory.part("d", keys * VERSIONS)
        self._called = memory.part("d", keys * VERSIONS)
        self._returned = memory.part("d", keys * VERSIONS)
        self._status = memory.part("q", keys * VERSIONS)
        self._points = memory.part("d", SLOTS * 2 * _BUCKETS * _POINT)
        self._late_count = memory.part("q", SLOTS)
        self._late = memory.part("d", SLOTS * LATE * len(Late._fields))
        self._box = memory.part("q", _BOX)
        self._box_ends = memory.part("q", 2)
        self.loads = memory.part("q", SLOTS)
        """Loads from the source of truth by worker."""

    # --- running ---

    @property
    def stopped(self) -> bool:
        """The experiment is over."""
        return self._flags[0] != 0

    def stop(self) -> None:
        self._flags[0] = 1.0

    @property
    def writing(self) -> bool:
        """Writers are to write."""
        return self._flags[1] != 0

    @writing.setter
    def writing(self, value: bool) -> None:
        self._flags[1] = float(value)

    @property
    def redis_started(self) -> float:
        """When Redis was last about to be started."""
        return self._flags[2]

    @redis_started.setter
    def redis_started(self, value: float) -> None:
        self._flags[2] = value

    # --- the source of truth ---

    def version(self, key: int) -> int:
        """What is true of a key now."""
        return int(self._versions[key])

    def commit(self, key: int) -> int:
        """Make a new version true; each key has one writer."""
        version = int(self._versions[key]) + 1
        if version >= VERSIONS:
            raise RuntimeError("too many commits for this ledger")
        at = key * VERSIONS + version
        self._status[at] = COMMITTED
        self._commits[at] = time.monotonic()
        self._versions[key] = version
        return version

    def called(self, key: int, version: int) -> None:
        """The cache is about to be told."""
        at = key * VERSIONS + version
        self._called[at] = time.monotonic()
        self._status[at] = CALLED

    def returned(self, key: int, version: int, *, queued: bool) -> None:
        """The cache has been told."""
        at = key * VERSIONS + version
        self._returned[at] = time.monotonic()
        self._status[at] = QUEUED if queued else ACCEPTED

    def returned_at(self, key: int, version: int) -> float:
        """When the cache had been told of a version; 0: not yet."""
        return float(self._returned[key * VERSIONS + version])

    def staleness(self, key: int, version: int, now: float) -> float:
        """Seconds for which *version* had been outdated at *now*."""
        if version >= self._versions[key]:
            return 0.0
        return max(0.0, now - self._commits[key * VERSIONS + version + 1])

    def writes(self) -> Iterator[tuple[int, int, float, float, float, int]]:
        """Key, version, times of commit, call and return, and status of each write."""
        for key in range(self.keys):
            for version in range(1, self.version(key) + 1):
                at = key * VERSIONS + version
                yield (
                    key,
                    version,
                    self._commits[at],
                    self._called[at],
                    self._returned[at],
                    int(self._status[at]),
                )

    # --- telling through the other host ---

    def post(self, key: int, version: int) -> None:
        """Have the other host's writer tell its cache."""
        end = int(self._box_ends[1])
        self._box[end % _BOX] = key * VERSIONS + version
        self._box_ends[1] = end + 1

    def posted(self) -> Iterator[tuple[int, int]]:
        """Keys and versions of which this host's cache is to be told."""
        while self._box_ends[0] < self._box_ends[1]:
            begin = int(self._box_ends[0])
            self._box_ends[0] = begin + 1
            key, version = divmod(int(self._box[begin % _BOX]), VERSIONS)
            yield key, version

    # --- what was read ---

    def record(
        self, slot: int, contestant: int, key: int, version: int, began: float, ended: float
    ) -> None:
        """Note a read of a worker."""
        bucket = min(_BUCKETS - 1, int((began - self.began) / BUCKET))
        at = ((slot * 2 + contestant) * _BUCKETS + bucket) * _POINT
        points = self._points
        points[at] += 1
        points[at + 5] = max(points[at + 5], ended - began)
        if version < 0:
            points[at + 6] += 1
            return
        stale = self.staleness(key, version, began)
        if stale > points[at + 1]:
            points[at + 1] = stale
            points[at + 2], points[at + 3], points[at + 4] = key, version, began
        if stale > self.bound and contestant == OURS:
            self._note_late(slot, Late(contestant, key, version, began, ended))

    def _note_late(self, slot: int, late: Late) -> None:
        count = int(self._late_count[slot])
        if count < LATE:
            at = (slot * LATE + count) * len(late)
            for offset, value in enumerate(late):
                self._late[at + offset] = value
        self._late_count[slot] = count + 1

    def points(self, contestant: int, slot: int) -> Iterator[tuple[float, Point]]:
        """The record of one worker: seconds since the beginning, and what was read."""
        base = (slot * 2 + contestant) * _BUCKETS * _POINT
        for bucket in range(_BUCKETS):
            at = base + bucket * _POINT
            if self._points[at]:
                values = self._points[at : at + _POINT].tolist()
                reads, stale, key, version, began, slowest, errors = values
                yield (
                    bucket * BUCKET,
                    Point(int(reads), stale, int(key), int(version), began, slowest, int(errors)),
                )

    def late(self, slot: int) -> list[Late]:
        """Reads older than the bound of one worker."""
        size = len(Late._fields)
        found = []
        for number in range(min(LATE, int(self._late_count[slot]))):
            at = (slot * LATE + number) * size
            contestant, key, version, began, ended = self._late[at : at + size].tolist()
            found.append(Late(int(contestant), int(key), int(version), began, ended))
        return found

    def late_count(self) -> int:
        """How many there were in all workers, also those there was no room for."""
        return sum(int(count) for count in self._late_count)
