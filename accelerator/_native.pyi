"""Types of the C extension: one mapped segment, and the area type that LevelCache inherits."""

from collections.abc import Iterable
from typing import Any, Final, final

from typing_extensions import disjoint_base

LAYOUT: Final[int]
"""Fingerprint of every byte position in the segment; part of the segment's name."""
HEADER_SIZE: Final[int]
"""Bytes that never change place in any version (256)."""
LIVENESS_BASE: Final[int]
"""
File offset of the first liveness byte (2**40): byte ``LIVENESS_BASE + incarnation`` is locked by
its process.
"""
INIT_BYTE: Final[int]
"""File offset of the byte that serialises creation, attach and unlinking (2**40 - 1)."""
MIN_SIZE: Final[int]
MAX_SIZE: Final[int]
COUNTERS: Final[tuple[str, ...]]
"""Names of the per-area counters, in the order of their slots, without prefix and ``_total``."""

# Value codes, as stored beside every value.
CODE_BYTES: Final = 1
CODE_STR: Final = 2
CODE_INT: Final = 3
CODE_FLOAT: Final = 4
CODE_TRUE: Final = 5
CODE_FALSE: Final = 6
CODE_NULL: Final = 7
CODE_MSGPACK: Final = 8
CODE_RAW: Final = 9
CODE_PICKLE: Final = 10

# What a write answers.
STORED: Final = 0
NOT_STORED: Final = 1
"""
Nothing was changed (``add`` on a present key, ``touch`` on an absent one, a token that is out of
date).
"""
TOO_LARGE: Final = 2
"""Does not fit this segment; after a SET an older copy of the key is gone."""
BUSY: Final = 3
"""
The lock was not to be had within the budget; after a SET an older copy of the key is gone.
"""

# Modes of Area._store.
SET: Final = 0
ADD: Final = 1
FILL: Final = 2

# Flags of Area._bind.
PLAIN_MISS: Final = 1
"""A miss answers the default at once, without asking Python (no loader, no remote)."""
PLAIN_SET: Final = 2
"""``set`` of a raw type is stored at once, without asking Python."""
OBJECTS_SHARED: Final = 4
OBJECTS_COPY: Final = 8
VERIFY_FULL: Final = 16
CACHE_NULL: Final = 32
OFF: Final = 64
"""Nothing is cached: every read misses, every write is dropped."""

@final
class UnsetType: ...

UNSET: Final[UnsetType]
"""Default of ``ttl``: the life that the area's configuration says."""

def sys_boot_id() -> bytes: ...
def sys_namespaces() -> tuple[int, int]:
    """Inode numbers of this process's time and PID namespaces (0 where unknown)."""

def peek_header(data: bytes) -> dict[str, Any] | None:
    """
    Read the first HEADER_SIZE bytes of any segment of any version.

    Keys: magic_ok, library_version, layout, size, boot_id (bytes), uid, name, created (Unix
    seconds),
    time_ns, state ("new", "ready"), supervisor (pid, start time).  None: not one of ours.
    """

def format_segment(
    fd: int, size: int, *, name: str, max_value_size: int, boot_id: bytes, time_ns: int
) -> None:
    """
    Write an empty segment into the *size* bytes behind *fd* and mark it ready.  Caller holds
    INIT_BYTE.
    """

def encode_key(key: object) -> bytes:
    """Canonical bytes of a key (type tag first).  TypeError or ValueError, naming the type only."""

def key_hash(segment: Segment, area: str, key: object) -> int:
    """64-bit keyed hash of a key, as shown by diagnostics."""

def install(cls: type) -> None:
    """
    Give *cls* (a subclass of Area) the hit methods as descriptors of its own: an inherited one is
    slower.
    """

@final
class Segment:
    """
    One mapped segment.

    The file descriptor becomes the segment's: closing it, or any other descriptor of that file,
    drops the
    process's liveness lock.  The mapping lives as long as the process.
    """

    def __new__(cls, fd: int, size: int, *, readonly: bool = False) -> Segment: ...
    @classmethod
    def private(cls, size: int, max_value_size: int) -> Segment:
        """The same structure in anonymous memory of this process (no file, no other process)."""
    @property
    def fd(self) -> int: ...
    @property
    def size(self) -> int: ...
    @property
    def name(self) -> str: ...
    @property
    def readonly(self) -> bool: ...
    @property
    def is_private(self) -> bool: ...
    @property
    def incarnation(self) -> int:
        """Never-reused id of this process in this segment; 0 before register()."""
    @property
    def max_item(self) -> int:
        """Largest item (key + value + header, bytes) that fits."""
    def register(self) -> int:
        """
        Enter this process: liveness byte, process slot, maintenance thread.  Idempotent; once more
        after a fork.
        """
    def unregister(self) -> None:
        """Leave: slot and liveness byte are free at once."""
    def alive(self) -> list[dict[str, Any]]:
        """Registered processes: pid, incarnation, alive, attached (seconds ago), self."""
    def any_alive(self) -> bool:
        """True if any *other* process holds a liveness byte."""
    def reap(self, pid: int) -> int:
        """
        Free what the dead process *pid* left (slot, locks).  Number of slots freed; a living one is
        left alone.
        """
    def empty(self) -> None:
        """Drop every value, keep counters and generations (they only rise)."""
    def set_supervisor(self, pid: int, start_time: int) -> None: ...
    def set_clock_shift(self, seconds: float) -> None:
        """Tests: move this process's clock."""
    def clear_all(self) -> None:
        """Clear every area."""
    def stats(self) -> dict[str, Any]:
        """
        Everything there is to see, host-wide::

            {"segment": {name, size, layout, created, shards, max_item, data_bytes, live_bytes,
            entries, index_slots,
                         generation_slots, processes, ...},
             "areas": {name: {counter: n, ..., "bytes": n, "entries": n}},
             "processes": [...]}        # as alive()
        """
    def measure(self) -> None:
        """Walk the rings now and refresh the gauges (bytes and entries per area)."""
    def check(self) -> list[str]:
        """Violated invariants of the stored structure; empty when sound.  For tests and doctor."""
    def lock_shard(self, shard: int) -> None:
        """Tests: take a shard lock and keep it."""
    def unlock_shard(self, shard: int) -> None: ...
    def raw(self) -> memoryview:
        """Tests: the mapped bytes, writable."""

@disjoint_base
class Area:
    """
    One area in one segment: the hit path.

    A subclass must offer ``_attach()`` (called on the first operation, after detach, and when the
    segment was
    fenced; must call ``_bind``), ``_miss(key, default, options, read_options)``,
    ``_mmiss(missing, result, default, options, read_options)``,
    ``_contains_miss(key)``, ``_set(key, value, ttl, options)``, ``_decode(code, payload) ->
    (object, immutable)``.
    """

    def _bind(
        self,
        segment: Segment,
        area: str,
        *,
        ttl: float | None,
        null_ttl: float | None,
        stale_ttl: float,
        jitter: float,
        max_value_size: int,
        object_cache_bytes: int,
        flags: int,
    ) -> None: ...
    def _unbind(self) -> None: ...
    @property
    def _bound(self) -> bool: ...

    # The hit methods.  Everything but a plain hit (or plain miss) goes to the Python method named
    # beside it.
    def get(
        self, key: Any, /, default: Any = None, *, options: Any = None, **read_options: Any
    ) -> Any:
        """-> ``_miss(key, default, options, read_options)``"""
    def mget(
        self,
        keys: Iterable[Any],
        /,
        default: Any = None,
        *,
        options: Any = None,
        **read_options: Any,
    ) -> dict[Any, Any]:
        """
        -> ``_mmiss(missing_keys, result, default, options, read_options)``, which fills *result* in
        place
        """
    def __contains__(self, key: object, /) -> bool:
        """-> ``_contains_miss(key)``"""
    def set(self, key: Any, value: Any, /, ttl: Any = ..., **options: Any) -> None:
        """
        -> ``_set(key, value, ttl, options)`` unless raw type, PLAIN_SET, ttl UNSET/None/int/float
        and no options
        """

    # Primitives for Python.  Times are seconds from now; ttl None: no expiry.  All may be called
    # from any thread.
    def _store(
        self,
        key: Any,
        code: int,
        payload: bytes,
        ttl: float | None,
        stale_ttl: float,
        mode: int = ...,
        token: tuple[int, int] | None = None,
    ) -> int:
        """
        STORED, NOT_STORED, TOO_LARGE or BUSY.  *token* (from _token): store only what no delete
        overtook.
        """
    def _token(self, key: Any) -> tuple[int, int]:
        """Generations of key and area now: read before a load, given to its fill."""
    def _read(
        self, key: Any, *, touch: bool = True, stale: bool = False
    ) -> tuple[Any, int, float, float | None, bool, int] | None:
        """
        (object, code, age, ttl, is_stale, version) or None.

        touch=False leaves no mark (peek).  stale=True also returns what is past its ttl and within
        its stale_ttl.
        age and ttl in seconds; ttl None: no expiry.  Decoded through ``_decode``.
        """
    def _delete(self, key: Any) -> bool:
        """
        Forget at once, for every process; True if a live value (fresh or stale) was there.  Takes
        no lock.
        """
    def _expire(self, key: Any) -> bool:
        """End the fresh life now, keep the stale copy; True if it was fresh."""
    def _touch(self, key: Any, ttl: float | None, stale_ttl: float) -> int:
        """New life for a fresh value: STORED, NOT_STORED (absent) or BUSY."""
    def _incr(
        self, key: Any, delta: int, initial: int | None, ttl: float | None, stale_ttl: float
    ) -> int | None:
        """
        New value.  None: absent and *initial* is None.  A present key keeps its life.

        TypeError: the value is no int; OverflowError: past 64 bits; BlockingIOError: no lock within
        the budget.
        """
    def _clear(self) -> None:
        """Forget the whole area, O(1)."""
    def _count(self, counter: int, n: int = 1) -> None:
        """Add to this process's counter (index into COUNTERS)."""
    def _counters(self) -> dict[str, int]:
        """Host-wide sums of this area."""
    def _hash(self, key: Any) -> int: ...
