"""Types of the C extension: one mapped segment, and the area type that LevelCache inherits."""

from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
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
OVERRIDES: Final[tuple[str, ...]]
"""What can be overridden; the place of each is its number: Segment.override."""
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

TAGS_MAX: Final = 8
"""Most tags of a value."""
TAG_SIZE_MAX: Final = 255
"""Longest tag, in bytes of its UTF-8."""

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
LOADS: Final = 128
"""The area has a loader: every miss asks Python (so PLAIN_MISS is not given)."""
OWN_OBJECTS: Final = 256
"""Decoded objects are kept for this object alone; so with a *key_converter*."""
BY_ANSWER: Final = 512
"""
They are kept by what the converter answers, not by the caller's key, which then must be none of
str, int and bytes.
"""

# Area._bind: what reads are given once the area is out of step with its second level.
CAP: Final = 0
"""What was loaded no longer ago than the limit."""
BYPASS: Final = 1
"""Nothing."""
SERVE: Final = 2
"""Everything: no bound holds."""

# Modes of Area._enter.
JOIN: Final = 0
"""Lead, or join who leads."""
REFRESH: Final = 1
"""
Lead although a fresh value is there; never join.  With a ``refresh_window`` only if that value has
no more than so much left of its life.
"""
FORCE: Final = 2
"""Lead although a fresh value is there, or join who leads."""
LOCK: Final = 3
"""
Take the lock of a name, or join those who wait for it.  The name (a str) is no key of the area:
nothing is stored for it, and no delete, expire or clear ends it.
"""

# Flight.state.
FLIGHT_OVER: Final = 0
"""Finished or left."""
FLIGHT_LEADING: Final = 1
"""Holds the lease."""
FLIGHT_JOINED: Final = 2
"""Waits for who holds it."""
FLIGHT_CROWDED: Final = 3
"""The table has no room: neither."""

# What Flight.wait and Flight.poll answer.
WAIT_TIMEOUT: Final = 0
"""Still running."""
WAIT_ENDED: Final = 1
"""Over: see Flight.result."""
WAIT_AGAIN: Final = 2
"""The leader is dead, or its lease has passed: call Area._enter again."""

# What Flight.result answers.
RESULT_UNKNOWN: Final = 0
"""Still running, or too late to tell: read the key, else enter again."""
RESULT_STORED: Final = 1
"""The value was stored: read the key."""
RESULT_HANDED: Final = 2
"""The value was not stored, or not for the reads of an area out of step: Flight.take gives it."""
RESULT_DECLINED: Final = 3
"""There is a value that others cannot have: load without waiting for anybody."""
RESULT_FAILED: Final = 4
"""The load failed: enter again, one of those who waited leads."""

# Kinds of entries of the outbox.
NOTE_FORGET: Final = 0
NOTE_SET: Final = 1
NOTE_EXPIRE: Final = 2
NOTE_CLEAR: Final = 3
NOTE_FORGET_TAG: Final = 4
NOTE_EXPIRE_TAG: Final = 5

# What Segment.remote_ask answers.
REMOTE_GO: Final = 0
REMOTE_PROBE: Final = 1
"""The second level may be asked by this caller alone, who must report what came of it."""
REMOTE_NO: Final = 2

# Events of Segment.link_note.
LINK_CONNECTED: Final = 0
LINK_LOST: Final = 1
"""With the seconds until the next try."""
LINK_MESSAGE: Final = 2

LATENCY_BOUNDS: Final[tuple[float, ...]]
"""
Upper bounds (inclusive) of the buckets of Area._latencies, in seconds; the bucket after the last is
unbounded.
"""

@final
class UnsetType: ...

UNSET: Final[Any]  # an UnsetType: so that a ttl is a duration or None to who reads a signature
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
             "processes": [...],        # as alive()
             "link": {...},             # as link()
             "leader": {...}}           # as leader()
        """
    def areas(self) -> list[tuple[str, bool, float | None]]:
        """
        Tables: name, whether it was bound with a bound, and the seconds for which it is in step.

        Once for each name, whatever versions it has.  None: never in step.
        """
    def blocks(
        self,
    ) -> list[tuple[int, int, str, tuple[int, ...], tuple[int, ...], tuple[int, ...]]]:
        """
        Tables: what each process counted in each area, as they stand.

        Number of the block, incarnation of its owner (which may be dead, and 0), name of the area,
        counters as in COUNTERS (local_hit without the hits on objects), and the histograms of
        loads and of calls of the second level, each as _latencies().
        """
    def tables(self, processes: bool = True) -> dict[str, Any]:
        """
        Tables: what is held and counted, summed up, without a walk over the values::

            {"areas": [(name, entries, bytes, watched, in_step_for, counters, loads, l2), ...],
             "processes": {incarnation: (counters, loads, l2, blocks), ...},
             "segment": {...}}          # those of stats()["segment"] that change

        Areas once for each name, in the order of their names; entries and bytes as last measured.
        counters as in COUNTERS (local_hit with the hits on objects), histograms as _latencies().
        *blocks* is another number when the process counts in other blocks: one that was taken over
        from a dead process comes with what that had counted.  Without *processes* there are none.
        """
    def hot_keys(self, limit: int = 20) -> list[tuple[str, int, float]]:
        """
        The keys that all processes read most: area, hash as key_hash() gives it, reads a second.

        The hottest first.  Of the last 30 to 60 seconds, from one read in 1024: what was read n
        times in them is told to within about 32 * sqrt(n).
        """
    def hot_total(self) -> float:
        """Reads a second of all keys, from the same reads."""
    def area_facts_write(self, area: str, facts: Sequence[int], /) -> bool:
        """
        Keep how an area is configured: at most 30 numbers of 32 bits, of which Python knows the
        meaning.  True: other ones were there.  KeyError: no such area.  OSError: the segment was
        opened read-only.
        """
    def area_facts(self) -> dict[str, tuple[int, ...]]:
        """
        What was last written, by area: 30 numbers, and then how often a write said something else
        than what was there.  An area whose numbers do not verify is left out.
        """
    def measure(self) -> None:
        """Walk the rings now and refresh the gauges (bytes and entries per area)."""
    def area_extend(self, area: str, until: float) -> None:
        """
        Raise the time (seconds of CLOCK_MONOTONIC, whatever clock a test has set) until which an
        area is in step: what the second level had told by *until* less the bound is applied.

        Never lowers it; an area that was never opened is left alone.  ValueError: below 0, or more
        than 90 days ahead.  OSError: the segment was opened read-only.
        """
    def bell(self) -> Bell:
        """
        Make a bell, one for each event loop.  OSError: no file descriptor, or no thread.

        The first one starts the process's doorbell thread; once more after a fork.
        """
    def flights(self) -> list[dict[str, Any]]:
        """
        Loads that run on this host, in no order; those of dead owners until they are taken over.

        Keys: area (name), hash (64-bit keyed hash of the key), pid, incarnation, alive (of the
        leader), age and lease_left (seconds; lease_left is negative once the lease has passed),
        waiters, alone, overtaken, own (led by this process).
        """

    # The second level.  Times are seconds of time.monotonic(), areas are named, keys are encoded
    # (tag first).  None of these raises because another process misbehaved; those that store raise
    # ValueError where the segment was opened read-only.
    @property
    def origin(self) -> bytes:
        """Random name, 16 bytes, of this memory among hosts; a private one's fork has another."""
    def watched(self) -> list[str]:
        """Names of the areas that were bound with a bound."""
    def area_state(self, area: str, /) -> tuple[int, int]:
        """
        How far invalidations have been applied: replication id (a 64-bit hash), sequence number.

        (0, 0): never in step, or not known.
        """
    def area_applied(self, area: str, replication: int, seq: int, /) -> None:
        """
        Raise that, after the invalidations up to *seq* were applied; another id replaces it.

        Replication 0, or a *seq* of 2**48 or more: forget it.
        """
    def invalidate(self, area: str, keys: Iterable[bytes], expire: bool = False) -> int:
        """
        Forget (or expire) encoded keys of an area; the number of those that were there.

        Counts nothing else.  TypeError, ValueError: *keys* are not 1 to 512 bytes each; then none
        was forgotten.  Releases the GIL if there are more than a few.
        """
    def invalidate_tags(self, area: str, tags: Sequence[bytes], expire: bool = False, /) -> None:
        """
        Forget (or expire) all values of an area that carry one of some tags, as Area._delete_tags.

        Counts nothing.  TypeError, ValueError: a tag is not 1 to 255 bytes; then nothing was done.
        """
    def clear_area(self, area: str, /) -> None:
        """Forget a whole area, O(1)."""
    def area_count(self, area: str, counter: int, n: int = 1, /) -> None:
        """Add to this process's counter (index into COUNTERS) of an area."""
    def lead(self, timeout: float, /) -> int:
        """
        Wait until this process leads the host: its term.  0: after *timeout* it does not.

        Claims when nobody leads, or the leader has resigned, is dead, or has not beaten for 500 ms;
        a resignation wakes it at once.  0 at once if this process is not registered, as after a
        fork.  Releases the GIL while it waits; signals interrupt it.
        """
    def lead_beat(self, term: int, /) -> bool:
        """Prolong the lease of *term*; False: another leads, or nobody."""
    def lead_resign(self, term: int, /) -> None:
        """End *term* and wake all who wait in lead(); nothing if it has ended."""
    def leader(self) -> dict[str, Any]:
        """
        term, incarnation (0: nobody leads), pid (0: not known) and beat_age (seconds, None: none).
        """
    def link_confirm(self, sent: float, /) -> None:
        """Note that the second level executed a write of ours that was sent then."""
    def link_refused(self) -> None:
        """Note that it answered one with an error: nobody asks it until the next link_confirm()."""
    def link_note(self, event: int, value: float = 0.0, /) -> None:
        """Note what only link() shows: a LINK_ constant."""
    def link(self) -> dict[str, Any]:
        """
        The link as the host knows it.

        confirmed_age, heard_age, connected_since, last_message_age, outbox_oldest_age (seconds ago;
        None: never), next_retry_in (seconds; None: none is planned), refused, settled, breaker
        ("closed", "open", "half-open"), failures, open_for (seconds until the next probe),
        reconnects, outbox_depth (entries to be sent again), outbox_dropped, breaker_forced (None,
        "open" or "closed": by an override).
        """
    def remote_ask(self, bound: float, reading: bool, /) -> int:
        """
        Whether the second level may be asked: a REMOTE_ constant.

        Not while it refuses writes, or the breaker is open; an override says so in its place.  Not
        for *reading*, further, if it last confirmed a write more than *bound* seconds ago, or
        within a second after an interruption.
        """
    def remote_ok(self, probe: bool, /) -> None:
        """Report that it answered."""
    def remote_failed(self, since: float, probe: bool, /) -> None:
        """Report that a call that began at *since* failed; not counted if it was heard later."""
    def confirmed_age(self) -> float:
        """Seconds since it last confirmed a write; inf: never."""
    def outbox_settle(self, number: int, sent: bool, /) -> None:
        """Note that a write was sent, or has to be sent again; nothing if the entry is gone."""
    def outbox_due(self, limit: int = 256, /) -> list[tuple[int, str, int, bytes]]:
        """
        At most *limit* entries to be sent again, oldest first: number, area, kind, encoded key (of
        the kinds of tags: the tag behind the byte 0xfe).

        Drops those that a newer entry of the key, sent or to be sent, makes needless.
        """
    def outbox_recent(self, seconds: float, /) -> list[tuple[int, str, int, bytes]]:
        """Entries that were sent, or came back, within so many seconds, oldest first."""
    def outbox_heard(self, number: int, /) -> bool:
        """
        Note that an own message has come back.

        True: it is not to be applied: of a set whose item still is the key's (or was stored last),
        or of a delete by tag that was settled as sent.
        """
    def outbox_given_up(self, number: int, /) -> bool:
        """Whether the caller of this write was told that Redis did not take it."""
    def outbox_unsent(self, area: str, /) -> frozenset[bytes] | None:
        """
        Encoded keys of an area whose change is queued, so that Redis has what is old.

        None: any key may be one.
        """
    def outbox_owe(self, area: str, /) -> None:
        """
        Have the leader clear an area in the second level, and so on all hosts.

        Until it has, no reader of this host is given what the second level has of the area.  Wants
        a writable mapping, and no register().

        Raises:
            KeyError: No such area.
            ValueError: The segment was opened read-only.
        """
    def outbox_owed(self) -> list[str]:
        """Names of the areas that owe a clear, because entries were overwritten unsent."""
    def outbox_paid(self, area: str, /) -> None:
        """Note that an area was cleared for all that outbox_owed() last told of."""

    # Operators.  Everything but the lookers on wants a writable mapping, and no register().
    def override(
        self, area: str, option: int, value: int | None, seconds: float | None = None
    ) -> None:
        """
        Put a value in the place of what an area is configured, in all processes of the host.

        Every area object of a process is bound anew, by its ``_attach``, at its next operation
        after the process has noticed: at once in this one, within about 0.1 s in others.

        Args:
            area: Its name; "": the host, for what is not overridden for the area itself.
            option: Place in OVERRIDES.
            value: Milliseconds of loader_timeout and ttl, a count of max_loads; mode is 0 local, 1
                remote, 2 both, 3 off; allow_stale and penetration_protect are 0 or 1; on_desync is
                0 cap, 1 bypass, 2 serve; breaker (of the host only) is 0 closed, 1 open.  None:
                remove the override.
            seconds: How long it is in force, rounded up to whole ones; None: until it is removed.

        Raises:
            KeyError: No such area.
            ValueError: No such option or value, or the segment was opened read-only.

        Before a mode that was local or off is replaced or removed, what the area holds (of the
        host: what all areas hold) is forgotten, as it may have missed changes; counted as a gap
        and a flush, also if this process is not registered.
        """
    def overrides(self) -> list[tuple[str, int, int, float | None]]:
        """What is in force: area, option, value, seconds left (None: no limit)."""
    def overrides_taken(self) -> tuple[int, list[tuple[str, int, int, float | None]]]:
        """
        The print of what is in force, and all of it as overrides() tells it, by one look.

        To be given to Area._bind.  Of two looks the second could be of something that is over by
        the time of a third, and then the print would say that nothing has changed.  This process
        acts on the print from here on.
        """
    def overrides_print(self) -> int:
        """A number that names what is in force; this process acts on that from here on."""
    def overrides_seen(self) -> tuple[int, int]:
        """How many living processes act on exactly what is in force, of how many."""
    def event(
        self,
        area: str,
        op: str,
        result: str,
        error_kind: str,
        seconds: float,
        hash: int = 0,  # noqa: A002  the word for it
        count: int = 1,
    ) -> None:
        """
        Note an operation that is over in the host's ring of events.

        Of *op* and *result* 12 characters are kept, of *error_kind* 16, in ASCII; an *area* that is
        not in the segment is noted as "".  *seconds* is how long it took.
        """
    def event_begin(
        self,
        area: str,
        op: str,
        hash: int = 0,  # noqa: A002  the same
        count: int = 1,
    ) -> int:
        """Note one that begins, so that it is to be seen if its process dies; its number or 0."""
    def event_end(self, number: int, result: str, error_kind: str, seconds: float) -> None:
        """
        Note that it is over.

        Nothing if it was overwritten, is over already, or was begun by another process (the parent
        of one that was forked meanwhile).
        """
    def events(self, limit: int = 1000) -> list[dict[str, Any]]:
        """
        The newest *limit* events, the newest first.

        Keys: number, time (Unix seconds: of the beginning, or if that was not noted of the end),
        pid, incarnation (0: of a process that was not registered), alive, area, op, result,
        error_kind, latency_ms (None while it runs), hash (0: none), count, running (if not alive:
        cut off by the death of its process).
        """
    def log_allowed(self, area: str, op: str, result: str, error_kind: str, interval: float) -> int:
        """
        Whether to log a line of this kind.

        -1: some process of the host has within *interval* seconds (to 0.07 s); else how many were
        left out since then, by all.
        """
    def check(self) -> list[str]:
        """Violated invariants of the stored structure; empty when sound.  For tests and doctor."""
    def lock_shard(self, shard: int) -> None:
        """Tests: take a shard lock and keep it."""
    def unlock_shard(self, shard: int) -> None: ...
    def raw(self) -> memoryview:
        """Tests: the mapped bytes, writable."""

@final
class Bell:
    """
    What tells an event loop that flights have ended.  May be used from any thread.

    In a forked child a copy does nothing: make a new one.
    """

    on_ring: Callable[[], object] | None
    """
    process_local only: called, with whatever was set last, in the thread that ended a flight; an
    Exception that it raises is dropped.  The native part never calls it.
    """
    def fileno(self) -> int:
        """Descriptor that is readable from a ring to clear().  -1: none; use *on_ring*."""
    def clear(self) -> None:
        """Make the descriptor unreadable again.  Does not block."""
    def arm(self, n: int, /) -> None:
        """
        Change by *n* how many waits this bell has (never below 0).

        While there are any it also rings every 50 ms, so that dead leaders and leases that pass are
        noticed.
        """
    def close(self) -> None:
        """Give the descriptor back and never ring again.  Idempotent."""

@final
class Flight:
    """
    One caller's part in the load of a key: it leads, or it waits for who leads.

    From Area._enter and Area._enter_alone only.  May be used from any thread, task or greenlet.  A
    call that is not for its state (finish() on a joined one, wait() on a leading one) does nothing
    and answers as on one that is over.  So does every call in a forked child: only the process that
    entered can end a flight, and a child's copy is FLIGHT_OVER.  The last reference going away is
    fail() of a leader, leave() of who joined.
    """

    tag: Any
    """For Python to keep what it wants; None at first."""
    @property
    def state(self) -> int:
        """
        FLIGHT_LEADING until one of the leader's methods, FLIGHT_JOINED until leave(), also when the
        lease has passed or the flight has ended; then FLIGHT_OVER.  FLIGHT_CROWDED until leave().
        """
    @property
    def id(self) -> int:
        """Names the flight on this host, the same for leader and joined; 0 without a flight."""
    @property
    def alone(self) -> bool:
        """From _enter_alone: nobody can join it."""
    @property
    def recorded(self) -> bool:
        """There is a record for it.  Without one nothing is stored."""
    @property
    def taken_over(self) -> bool:
        """Leader: the lease was a dead or a late leader's before."""
    @property
    def own(self) -> bool:
        """This very process leads it."""
    @property
    def waiters(self) -> int:
        """
        How many wait for it on this host; 0 once it has ended.  One that was killed counts until
        then.
        """
    @property
    def overtaken(self) -> bool:
        """
        Leader: a delete, expire, clear or newer store came since it began, or another one took over
        its lease; nothing will be stored.  Of a LOCK: another one took it over.  Keeps its last
        answer when the flight is over.
        """

    # The leader's.  Each ends the flight and wakes all who wait, whatever it answers.
    def finish(
        self,
        code: int,
        payload: bytes,
        ttl: float | None,
        stale_ttl: float,
        age: float | None = None,
        *,
        tags: Sequence[bytes] = (),
    ) -> int:
        """
        Store the value, also over a fresh one, unless overtaken or the lease is another's by now.

        A delete or an expiry of one of its tags since the flight began has overtaken it.

        Times in seconds from now, as in Area._store; without an *age*, the value is as old as the
        flight.  STORED; NOT_STORED (overtaken, lost, no
        record, OFF, a LOCK, or over before); TOO_LARGE or BUSY, which leave an older copy of the
        key.  What is not stored is handed to those who joined, where it can be.

        ValueError, TypeError: code, payload, lives or age are wrong; the flight goes on.
        """
    def hand(self, code: int, payload: bytes, *, tags: Sequence[bytes] = ()) -> None:
        """
        Store nothing; those who joined get this value (else, if it cannot be kept for them,
        RESULT_DECLINED).  ValueError, TypeError: as finish().
        """
    def decline(self) -> None:
        """Nothing is stored, nothing handed over: who joined loads on its own."""
    def fail(self) -> None:
        """The load failed: one of those who wait leads next."""
    def __enter__(self) -> Flight: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None:
        """fail(), unless it is over."""

    # Theirs who joined.
    def wait(self, seconds: float) -> int:
        """
        Block this thread for at most *seconds* of real time: WAIT_ENDED, WAIT_AGAIN, WAIT_TIMEOUT.

        Without the GIL, and within 100 ms of a signal in its handler; what that raises propagates.
        A leader's death is noticed within 100 ms.  Less than 0 seconds are 0.  Not for a thread
        that runs an event loop.
        """
    def poll(self) -> int:
        """
        Answer as wait(0), without blocking.  Looks at the leader's liveness at most every 50 ms, at
        its lease each time.
        """
    def ring(self, bell: Bell) -> None:
        """Have *bell* rung once when it ends, at once if it has.  Does not block."""
    def result(self) -> int:
        """How it ended: a RESULT_ constant.  RESULT_UNKNOWN while it runs and after leave()."""
    def take(self) -> tuple[Any] | None:
        """
        Give the value that was handed over, decoded through the area's ``_decode``, in a tuple.

        None: there is none (any more), or it cannot be decoded, or one of its tags may have been
        deleted or expired after its load began and before this caller entered.  Values are kept
        for as long as somebody waits; each call decodes anew.
        """
    def leave(self) -> None:
        """Stop waiting."""

@final
class Call:
    """
    What a decorator leaves in place of a function: callable, with attributes of its own, and bound
    to a receiver as a function is.

    A call with one argument (behind a receiver if *position* is 1), an exact int or str, is
    answered as ``view._hit(argument)`` does.  One with any arguments of exact types, int, str,
    bytes, float, bool, None or UUID, is answered by what is remembered of such a call, and then by
    what the view's converter makes of ``(arguments, keywords)``.  For every other one, and whatever
    that raises, *otherwise* is called with the same arguments.  An attribute of an object gives
    ``bound_to(call, receiver)``.
    """

    __name__: str
    __qualname__: str
    __dict__: dict[str, Any]
    def __new__(
        cls,
        otherwise: Callable[..., Any],
        bound_to: Callable[[Any, Any], Any],
        view: Area | None = None,
        position: int = 0,
    ) -> Call: ...
    def __call__(self, /, *args: Any, **kwargs: Any) -> Any: ...
    def __get__(self, receiver: Any, owner: type | None = None, /) -> Any: ...
    def __reduce__(self) -> str: ...
    def __copy__(self) -> Call: ...
    def __deepcopy__(self, memo: object, /) -> Call: ...

@disjoint_base
class Area:
    """
    One area in one segment: the hit path.

    A subclass must offer ``_attach()`` (called on the first operation, after detach, and when the
    segment was
    fenced; must call ``_bind``), ``_miss(key, default, options, read_options)``,
    ``_mmiss(missing, result, default, options, read_options)``,
    ``_contains_miss(key)``, ``_set(key, value, ttl, options)``, ``_decode(code, payload) ->
    (object, immutable)``; and, if *refresh_window* is used, ``_near_end(key)``.
    """

    def _hit(self, key: Any) -> Any:
        """
        What get() would answer, if that is a plain hit whose refresh is not due; else UNSET.

        Only a hit is counted.
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
        refresh_window: float = 0.0,
        bound: float | None = None,
        limit: float = 0.0,
        on_desync: int = ...,
        variant: int = 0,
        key_converter: Callable[[Any], Any] | None = None,
        overrides: int | None = None,
    ) -> None:
        """
        Tie this object to an area of *segment*.  Times in seconds.

        *overrides* is the print that Segment.overrides_taken() gave beside the overrides that the
        other arguments come of.  Once others are in force, _bound is False, and the next
        operation calls ``_attach``.  None: of those that are in force now.

        *variant*, a number of 32 bits, tells versions of the area apart (0: none).  Values, flights
        and pauses are those of one version; _delete, _expire and _clear concern all of them, as
        does the segment's side of the listener, and _store with SET or ADD, _touch and _incr, where
        they store, delete the key in the others.  All else (_token, counters, locks, the number of
        loads alone, the outbox) is the area's.

        With a *bound* the area has a second level, and is in step with it as long as
        Segment.area_extend says so.  Once what is known of that is older than *limit* (0 to
        *bound*), reads are given as fresh what *on_desync* says, CAP by default; the rest counts as
        stale.  What holds for reads holds for what _enter finds there, and _store with ADD or FILL.

        A plain hit of get() (no options; not mget) with less than *refresh_window* left of its life
        calls ``_near_end(key)`` before it returns.  An Exception from there is dropped, any other
        BaseException propagates.
        """
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
    def set(
        self, key: Any, value: Any, /, ttl: Any = ..., *, tags: Any = None, broadcast: Any = None
    ) -> None:
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
        token: tuple[int, int, int] | None = None,
        age: float = 0.0,
        *,
        note: int = 0,
        tags: Sequence[bytes] = (),
    ) -> int:
        """
        STORED, NOT_STORED, TOO_LARGE or BUSY.  *token* (from _token): store only what no delete
        overtook.  *age*: how long ago the source had this value; cut at 90 days.  *note* (from
        _note): the entry that is to know what was stored.  *tags*: at most 8, encoded, 1 to
        255 bytes each; with a *token*, a delete or an expiry of one of them has overtaken it, too.
        """
    def _token(self, key: Any) -> tuple[int, int, int]:
        """
        Generations of key and area, and the clock of tags: read before a load, given to its fill.
        """
    def _read(
        self, key: Any, *, touch: bool = True, stale: bool = False, within: float | None = None
    ) -> tuple[Any, int, float, float | None, bool, int] | None:
        """
        (object, code, age, ttl, is_stale, version) or None.

        touch=False leaves no mark (peek).  stale=True also returns what is past its ttl and within
        its stale_ttl, and what is not past it but not given as fresh (see _bind).  *within*: a
        fresh value must be that young, in seconds, or the area in step that recently (without a
        bound it always is).
        age and ttl in seconds, age since its load began; ttl None: no expiry.  Decoded through
        ``_decode``.
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
    def _delete_tags(self, tags: Sequence[bytes]) -> None:
        """
        Forget every value that carries one of *tags* (encoded, any number), for every process.

        Takes no lock, and time for each tag, not for each value.  TypeError, ValueError: a tag is
        not 1 to 255 bytes; then nothing was done.
        """
    def _expire_tags(self, tags: Sequence[bytes]) -> None:
        """The same, but their stale copies stay; what has no stale life is gone."""
    def _freshness(self) -> float | None:
        """
        Seconds for which the area has not heard all of the second level's news; inf: never in step.
        None: no bound.
        """
    def _enter(
        self, key: Any, lease: float, mode: int = ..., waits: bool = ..., /
    ) -> Flight | None:
        """
        Lead the load of *key* on this host for *lease* seconds, or join who does.  Never waits for
        a load.

        JOIN: None: a fresh value is there by now: read again.  REFRESH: None: another leads, or has
        refreshed it.  FORCE, LOCK: never None.  The flight answered is FLIGHT_LEADING,
        FLIGHT_JOINED (JOIN, FORCE, LOCK) or FLIGHT_CROWDED.  A dead
        leader's flight, or one whose lease has passed, is taken over: its waiters get WAIT_AGAIN.
        One that was overtaken is never joined, a new one is led beside it; nor, while the area is
        out of step, is one older than the limit, which is overtaken thereby.

        ValueError: *lease* is not finite and above 0, or there is no such mode.  TypeError: the
        name of a LOCK is no str.  BlockingIOError: the table was not to be had within 20 ms or,
        without *waits*, 0.2 ms: enter again later.
        """
    def _enter_alone(self, key: Any, lease: float, most: int | None) -> Flight | None:
        """
        Begin a load that nobody joins (FLIGHT_LEADING, alone); whatever runs or is fresh.

        None: *most* such loads of this area run on this host; those without a record count too,
        those that were entered with *most* None (no limit) do not.  Stored unless overtaken; never
        if not ``recorded``.

        Errors as _enter.
        """
    def _pause(self, key: Any, seconds: float) -> None:
        """
        Note on this host, for *seconds*, that a load of *key* failed (0: forget that).  Best
        effort: such a note may be lost.  ValueError: below 0.
        """
    def _pausing(self, key: Any) -> bool:
        """Whether such a note is in force.  A delete, expire, clear or store may end it."""
    def _latency(self, seconds: float) -> None:
        """
        Add one load to the area's latency histogram of this host.  ValueError: below 0 or not
        finite.
        """
    def _latencies(self) -> list[int]:
        """
        Host-wide number of loads in each bucket of LATENCY_BOUNDS, then in the unbounded one (not
        cumulative), then the sum of all in microseconds.
        """
    def _l2_latency(self, seconds: float) -> None:
        """Add one call of the second level to its histogram, as _latency."""
    def _l2_latencies(self) -> list[int]:
        """As _latencies, of those."""
    def _note(self, key: Any, kind: int) -> int:
        """
        Append an explicit write of *key*, before anything of it is done, to the outbox.

        Its number, to be settled.  0: not possible, and the area owes a clear.  ValueError: *kind*
        is none of one key.
        """
    def _note_clear(self) -> int:
        """The same of a clear of the area."""
    def _note_tag(self, tag: bytes, kind: int) -> int:
        """The same of an encoded tag; *kind* is NOTE_FORGET_TAG or NOTE_EXPIRE_TAG."""
    def _count(self, counter: int, n: int = 1) -> None:
        """Add to this process's counter (index into COUNTERS)."""
    def _counters(self) -> dict[str, int]:
        """Host-wide sums of this area."""
    def _hash(self, key: Any) -> int: ...
