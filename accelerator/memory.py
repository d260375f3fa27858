"""
The memory of this host, as LevelCache needs it, whichever way it is made.

The native part and its twin in process memory both keep to these protocols; the type checker
compares them in ``local.py``, and the conformance tests run over both.  What applications may make
themselves is in ``backend.py``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

Reading = tuple[Any, int, float, float | None, bool, int]
"""
Object, code, age, ttl (None: no expiry; negative once it has passed), whether stale, version.

Stale is what is past its ttl, and what is not but is out of step with the second level.
"""


class LocalBell(Protocol):
    """What tells one event loop that flights have ended."""

    on_ring: Callable[[], object] | None
    """Called in the thread that ended a flight, where there is no descriptor."""

    def fileno(self) -> int:
        """Descriptor to be watched for reading; -1: none, set *on_ring*."""

    def clear(self) -> None:
        """Make the descriptor unreadable again."""

    def arm(self, n: int, /) -> None:
        """Change by *n* how many waits there are; while any, it rings every 50 ms as well."""

    def close(self) -> None:
        """Never ring again."""


class LocalFlight(Protocol):
    """
    One caller's part in the load of a key: it leads, or waits for who does.

    May be used from any thread, task or greenlet.  The last reference going away is fail() of who
    leads, leave() of who joined.
    """

    tag: Any
    """Python's own; None at first."""

    @property
    def state(self) -> int:
        """FLIGHT_LEADING, FLIGHT_JOINED, FLIGHT_CROWDED or FLIGHT_OVER."""

    @property
    def id(self) -> int:
        """Names the flight on this host, the same for who leads and who joined."""

    @property
    def alone(self) -> bool:
        """Whether nobody can join it."""

    @property
    def recorded(self) -> bool:
        """Whether there was room for a record; without one nothing is stored."""

    @property
    def taken_over(self) -> bool:
        """Whether the lease was a dead or a late leader's before."""

    @property
    def own(self) -> bool:
        """Whether this very process leads it."""

    @property
    def waiters(self) -> int:
        """How many wait for it on this host."""

    @property
    def overtaken(self) -> bool:
        """Whether nothing will be stored, as something came since it began."""

    def finish(
        self,
        code: int,
        payload: bytes,
        ttl: float | None,
        stale_ttl: float,
        age: float | None = ...,
        *,
        tags: Sequence[bytes] = ...,
    ) -> int:
        """Store the value unless overtaken, and end; else hand it to those who joined."""

    def hand(self, code: int, payload: bytes, *, tags: Sequence[bytes] = ...) -> None:
        """Give the value to those who joined, store nothing, and end."""

    def decline(self) -> None:
        """End without a value that others could have: each loads on its own."""

    def fail(self) -> None:
        """End without a value: one of those who wait leads next."""

    def __enter__(self) -> Self:
        """End it at the end of a block: fail(), unless it is over."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None:
        """Fail, unless it is over."""

    def wait(self, seconds: float) -> int:
        """Block this thread until it ends: WAIT_ENDED, WAIT_AGAIN or WAIT_TIMEOUT."""

    def poll(self) -> int:
        """Tell what wait() would, at once."""

    def ring(self, bell: Any) -> None:
        """Have a bell of the same memory rung when it ends."""

    def result(self) -> int:
        """How it ended: a RESULT_ constant."""

    def take(self) -> tuple[Any] | None:
        """Give the value that was handed over, decoded; None: gone."""

    def leave(self) -> None:
        """Stop waiting."""


class LocalMemory(Protocol):
    """Where values lie: a segment that processes share, or memory of one process."""

    @property
    def size(self) -> int:
        """Bytes, fixed."""

    @property
    def max_item(self) -> int:
        """Largest item, key and value and header together, that fits."""

    @property
    def incarnation(self) -> int:
        """Identity of this process in here; 0 before register()."""

    def register(self) -> int:
        """Enter this process.  Idempotent; to be called once more in a forked child."""

    def unregister(self) -> None:
        """Leave."""

    def alive(self) -> list[dict[str, Any]]:
        """List the registered processes."""

    def empty(self) -> None:
        """Drop every value; counters stay."""

    def clear_all(self) -> None:
        """Clear every area."""

    def area_extend(self, area: str, until: float) -> None:
        """Raise the time of time.monotonic() until which an area is in step with the others."""

    def bell(self) -> LocalBell:
        """Make a bell for one event loop."""

    def flights(self) -> list[dict[str, Any]]:
        """Describe the loads that run on this host."""

    def stats(self) -> dict[str, Any]:
        """Everything there is to see: segment, areas, processes, link, leader."""

    def tables(self, processes: bool = ...) -> dict[str, Any]:
        """What is held and counted: areas, processes, and what changes of the segment."""

    def hot_keys(self, limit: int = ...) -> list[tuple[str, int, float]]:
        """The most read keys: area, hash, reads a second."""

    def hot_total(self) -> float:
        """Reads a second of all keys."""

    def area_facts_write(self, area: str, facts: Sequence[int], /) -> bool:
        """Keep how an area is configured; whether something else was there."""

    def area_facts(self) -> dict[str, tuple[int, ...]]:
        """How areas are configured, and how often that was changed."""

    def check(self) -> list[str]:
        """Violated invariants; empty when sound."""

    def set_clock_shift(self, seconds: float, /) -> None:
        """Tests: move this process's clock."""

    # What the processes of this host know together of the second level.  Times are seconds of
    # time.monotonic().

    @property
    def origin(self) -> bytes:
        """Random name of this memory among the hosts."""

    def watched(self) -> list[str]:
        """Names of the areas that are to be listened to."""

    def area_state(self, area: str, /) -> tuple[int, int]:
        """Replication id and sequence of the last invalidation applied; (0, 0): none."""

    def area_applied(self, area: str, replication: int, seq: int, /) -> None:
        """Raise that."""

    def invalidate(self, area: str, keys: list[bytes], expire: bool = ...) -> int:
        """Forget, or expire, encoded keys; how many were there."""

    def invalidate_tags(self, area: str, tags: list[bytes], expire: bool = ..., /) -> None:
        """Forget, or expire, all values that carry one of some encoded tags."""

    def clear_area(self, area: str, /) -> None:
        """Forget an area."""

    def area_count(self, area: str, counter: int, n: int = ..., /) -> None:
        """Add to a counter of an area."""

    def lead(self, timeout: float, /) -> int:
        """Wait until this process leads the host; its term, 0: it does not."""

    def lead_beat(self, term: int, /) -> bool:
        """Prolong the lease; whether it still was ours."""

    def lead_resign(self, term: int, /) -> None:
        """Let another lead."""

    def leader(self) -> dict[str, Any]:
        """Who leads."""

    def link_confirm(self, sent: float, /) -> None:
        """The second level executed a write sent then."""

    def link_refused(self) -> None:
        """It answered one with an error."""

    def link_note(self, event: int, value: float = ..., /) -> None:
        """Note for diagnostics what happened to the connection."""

    def link(self) -> dict[str, Any]:
        """State of link, breaker and outbox."""

    def remote_ask(self, bound: float, reading: bool, /) -> int:
        """Whether the second level may be asked: a REMOTE_ constant."""

    def remote_ok(self, probe: bool, /) -> None:
        """It answered."""

    def remote_failed(self, since: float, probe: bool, /) -> None:
        """It did not."""

    def confirmed_age(self) -> float:
        """Seconds since it last executed a write of ours; inf: never."""

    # What operators do and see.

    def override(
        self, area: str, option: int, value: int | None, seconds: float | None = ...
    ) -> None:
        """Put a value in the place of what an area, or with "" the whole host, is configured."""

    def overrides(self) -> list[tuple[str, int, int, float | None]]:
        """What is in force: area, option, value, seconds left."""

    def overrides_taken(self) -> tuple[int, list[tuple[str, int, int, float | None]]]:
        """The same, and before it the print of exactly that, which _bind() is given."""

    def overrides_print(self) -> int:
        """Names what is in force."""

    def overrides_seen(self) -> tuple[int, int]:
        """How many living processes act on exactly that, of how many."""

    def event(  # noqa: PLR0917  called for much of what is no hit
        self,
        area: str,
        op: str,
        result: str,
        error_kind: str,
        seconds: float,
        hash: int = ...,  # noqa: A002
        count: int = ...,
    ) -> None:
        """Note an operation that is over."""

    def event_begin(
        self,
        area: str,
        op: str,
        hash: int = ...,  # noqa: A002  the word for it
        count: int = ...,
    ) -> int:
        """Note one that begins; its number, 0: not noted."""

    def event_end(self, number: int, result: str, error_kind: str, seconds: float) -> None:
        """Note that it is over."""

    def events(self, limit: int = ...) -> list[dict[str, Any]]:
        """The newest *limit* events, the newest first."""

    def log_allowed(self, area: str, op: str, result: str, error_kind: str, interval: float) -> int:
        """-1: this host has logged this kind within *interval*; else how many were left out."""

    def outbox_settle(self, number: int, sent: bool, /) -> None:
        """Say what became of a write."""

    def outbox_due(self, limit: int = ..., /) -> list[tuple[int, str, int, bytes]]:
        """Writes to be sent again: number, area, kind, encoded key."""

    def outbox_recent(self, seconds: float, /) -> list[tuple[int, str, int, bytes]]:
        """Writes that were sent within so many seconds."""

    def outbox_heard(self, number: int, /) -> bool:
        """An own message has come back; whether it need not be applied."""

    def outbox_given_up(self, number: int, /) -> bool:
        """Whether the caller of this write was told that L2 did not take it."""

    def outbox_unsent(self, area: str, /) -> frozenset[bytes] | None:
        """Encoded keys of an area whose change is queued; None: it may be any of them."""

    def outbox_owe(self, area: str, /) -> None:
        """Have an area owe a clear."""

    def outbox_owed(self) -> list[str]:
        """Areas that owe a clear."""

    def outbox_paid(self, area: str, /) -> None:
        """Such an area was cleared."""


class LocalArea(Protocol):
    """
    One area of a memory: what the hit methods (get, mget, in, set) leave to Python is built on it.

    Times are seconds from now; a ttl of None is no expiry.  May be called from any thread.  What a
    method answers in detail is described in ``_native.pyi``.
    """

    def _store(  # noqa: PLR0917  called for every write that is not plain
        self,
        key: Any,
        code: int,
        payload: bytes,
        ttl: float | None,
        stale_ttl: float,
        mode: int = ...,
        token: tuple[int, int, int] | None = ...,
        age: float = ...,
        *,
        note: int = ...,
        tags: Sequence[bytes] = ...,
    ) -> int:
        """Store a payload: always, if absent, or if no delete overtook *token*."""

    def _token(self, key: Any) -> tuple[int, int, int]:
        """What a fill must still find unchanged."""

    def _read(
        self, key: Any, *, touch: bool = ..., stale: bool = ..., within: float | None = ...
    ) -> Reading | None:
        """Read with all that is known; *touch* keeps the key from eviction."""

    def _delete(self, key: Any) -> bool:
        """Forget at once; whether it was there."""

    def _expire(self, key: Any) -> bool:
        """End the fresh life, keep the stale copy; whether it was fresh."""

    def _touch(self, key: Any, ttl: float | None, stale_ttl: float) -> int:
        """Give a fresh value a new life."""

    def _incr(
        self, key: Any, delta: int, initial: int | None, ttl: float | None, stale_ttl: float
    ) -> int | None:
        """Add to a stored int; a present one keeps its life."""

    def _clear(self) -> None:
        """Forget the whole area."""

    def _delete_tags(self, tags: Sequence[bytes]) -> None:
        """Forget every value that carries one of these tags (encoded)."""

    def _expire_tags(self, tags: Sequence[bytes]) -> None:
        """End their fresh lives, keep their stale copies."""

    def _freshness(self) -> float | None:
        """Seconds for which it has not heard all of the others' news; None: no bound."""

    def _enter(
        self, key: Any, lease: float, mode: int = ..., waits: bool = ..., /
    ) -> LocalFlight | None:
        """Lead the load of a key for *lease* seconds, or join who does; None: neither is due."""

    def _enter_alone(self, key: Any, lease: float, most: int | None) -> LocalFlight | None:
        """Begin a load that nobody joins; None: *most* such loads of the area run."""

    def _pause(self, key: Any, seconds: float) -> None:
        """Note for *seconds* that a load of a key failed."""

    def _pausing(self, key: Any) -> bool:
        """Whether such a note is in force."""

    def _latency(self, seconds: float) -> None:
        """Add a load to the histogram."""

    def _latencies(self) -> list[int]:
        """Loads per bucket over all processes, and the sum in microseconds."""

    def _l2_latency(self, seconds: float) -> None:
        """Add a call of the second level to its histogram."""

    def _l2_latencies(self) -> list[int]:
        """As _latencies, of those."""

    def _note(self, key: Any, kind: int) -> int:
        """Append a write to the outbox; its number, 0: not possible."""

    def _note_clear(self) -> int:
        """Append a clear of the area."""

    def _note_tag(self, tag: bytes, kind: int) -> int:
        """Append a delete or an expiry of an encoded tag."""

    def _count(self, counter: int, n: int = ...) -> None:
        """Add to a counter."""

    def _counters(self) -> dict[str, int]:
        """Sums over all processes."""
