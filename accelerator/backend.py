"""
The two levels, as applications may make them themselves: ``protocols`` offers them.

The second level over Redis, in ``remote``, keeps to the same protocols.  What this package's own
memory has beside them is in ``memory.py``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

TAG_TYPE: Final = b"\xfe"
"""What a tag begins with where encoded keys are listed: the outbox."""


# --- a first level of the application's own ------------------------------------------------------


class LocalEntry(NamedTuple):
    """A value in a first level of the application's own.  Times are of time.monotonic()."""

    code: int
    payload: bytes
    loaded_at: float
    stale_at: float | None
    """When it is no longer fresh; None: never."""
    gone_at: float | None
    """From when on it is of no use any more, also as stale; None: never."""
    version: int
    """Another one for each value."""
    stamp: tuple[Any, ...]
    """By what is known whether it is still to be believed: bytes and ints, of no other meaning."""


class LocalBackend(Protocol):
    """
    A first level of the application's own: where the values of one area lie.

    Given with ``LevelCache(local=...)``, and proved with ``accelerator.testing.LocalBackendSuite``.
    It may lie in this process, or be shared by the processes of this host; it serves one area.

    Only this is asked of it: what get() gives for a key was given to set() for that very key, and
    is unchanged.  It may lose what it likes whenever it likes, and need not look at times: what is
    past its end, deleted or overtaken is recognised by its stamp.  Called from any thread, and in
    forked children; what it raises is the caller's.
    """

    def get(self, key: bytes, /) -> LocalEntry | None:
        """Give what is stored under a key; None: nothing is."""

    def set(self, key: bytes, entry: LocalEntry, /) -> None:
        """Store; what was there goes."""

    def delete(self, key: bytes, /) -> None:
        """Forget a key; one that is not there is no error."""

    def clear(self) -> None:
        """Forget everything."""


LOCAL_METHODS: Final = ("get", "set", "delete", "clear")
"""What a first level must have."""


# --- the second level ----------------------------------------------------------------------------


class Envelope(NamedTuple):
    """
    A value on its way to the second level.

    The generation comes between *head* and *tags*; in front of tags their stamp.
    """

    head: bytes
    payload: bytes
    stale_ms: int
    """Stale life in milliseconds."""
    tags: bytes = b""
    """What it says of its tags, but for the stamp; empty: it has none."""

    def blob(self, generation: bytes, stamp: bytes = b"") -> bytes:
        """Give the whole of it; *stamp*: 6 bytes, used if it has tags."""
        if not self.tags:
            return self.head + generation + self.payload
        return self.head + generation + stamp + self.tags + self.payload


class Stored(NamedTuple):
    """What lies in the second level under a key."""

    blob: bytes
    """Head, generation and payload: what Envelope.blob() gives."""
    left: float | None
    """What is left of its physical life (fresh and stale) in seconds; None: no expiry."""
    expired: bool = False
    """Its fresh life was ended before its time: by expire(), or by one of its tags."""


class Lease(NamedTuple):
    """What a fill must still find unchanged: no explicit write of the key, no clear of the area."""

    token: bytes
    generation: bytes
    seq: int = 0
    """The area's last change before: what comes after it is not known to what is loaded."""


class Fill(NamedTuple):
    """A loaded value to be stored."""

    key: bytes
    value: Envelope
    life: float | None
    """Fresh life in seconds; None: no expiry."""
    lease: Lease


class Change(NamedTuple):
    """An explicit write of a key."""

    key: bytes
    value: Envelope | None
    """None deletes."""
    life: float | None = None
    """Fresh life in seconds; None: no expiry."""
    note: int = 0
    """Its number in this host's outbox; 0: none."""


class Written(NamedTuple):
    """What an explicit write did."""

    seq: int
    """Number of its message; 0: none was sent."""
    found: int
    """How many of the keys had a value, fresh or stale."""


HEARD_MESSAGE: Final = 0
"""A message of an area: its name, and the bytes (None: longer than one may be, or damaged)."""
HEARD_BEAT: Final = 1
"""One of the own heartbeats: "", and the bytes."""
HEARD_CONFIRMED: Final = 2
"""What is told about an area from now on will be heard: its name; "": the own heartbeats."""

Heard = tuple[int, str, "bytes | None"]
"""A HEARD_ constant, name of an area or "", and bytes or None."""


class Received(NamedTuple):
    """What one read of a subscriber has brought."""

    heard: Sequence[Heard]
    alive: bool
    """Whether anything came at all, be it only a sign of life; False: the time was up."""
    more: bool = False
    """Whether more is likely to be there already, so that it is worth to read again at once."""


class InvalidationSubscriber(Protocol):
    """
    One connection on which a host hears what all hosts tell, its own heartbeats among it.

    Made by RemoteBackend.subscriber(), used by one thread (a real one, also under gevent), closed
    by it; in a forked child it is left alone.  What must hold:

    - **Confirmed means heard.**  After (HEARD_CONFIRMED, area, None) every message of that area
      that is told later comes, until the subscriber raises.  One that may have lost a message
      (its queue ran over, a connection was made anew) must raise; it is then closed, and another
      one made.  Losing messages in silence costs time, not truth: the next heartbeat shows it.
    - **In order.**  Messages of an area, and the heartbeats, come in the order in which they were
      told.  A heartbeat that overtakes a message makes the host read the log for nothing.
    - **Alive means the second level spoke.**  What only this process knows (a clock, a queue) is no
      sign of life.  Where asking is the only way to hear (polling), an answer is one.

    Everything may raise RemoteError or OSError: the subscriber is given up then, and the next one
    is made after a pause.  RemoteError with reason "refused" says that what was asked for is not
    allowed; its text goes to the log.
    """

    def subscribe(self, areas: Sequence[str]) -> None:
        """
        Hear of these areas too, and, from the first call on, of the own heartbeats.

        Each area, and the heartbeats, are confirmed by a later read(), once they are heard.
        """

    def ping(self) -> None:
        """Ask for a sign of life; called as often as heartbeats are sent.  May do nothing."""

    def read(self, timeout: float) -> Received:
        """
        Wait until there is something, for at most *timeout* seconds; 0: do not wait.

        Never much longer, as everything else waits meanwhile: a listener that does not get on for
        0.5 s is replaced by another process's.
        """

    def close(self) -> None:
        """End it, whatever state it is in; never raises."""


REMOTE_METHODS: Final = (
    *("get", "lease", "fill", "write", "expire", "clear", "mark_tags", "add", "touch", "incr"),
    *("tell", "beat", "recheck", "log", "subscriber"),
)
"""What a second level must have; *for_loop*, *channel*, *describe* and *close* it may have."""


class RemoteBackend(Protocol):
    """
    The second level, shared by hosts, for threads; ``remote`` has the one over Redis.

    One of your own is given with ``accelerator.configure(remote=...)``, and proved with
    ``accelerator.testing.RemoteBackendSuite``.

    **What it keeps**, for each area: *values* by key, with an end of life; *leases* by key; a
    *generation*, 8 random bytes; a *number*, which only grows; a *log* of the last messages.  All
    areas together have one *history*, named by a text that changes when numbers that were given
    may have been lost (a failover, a restore from a backup).

    **What it is given**: *area*, a text of at most 1 KiB that names an area of one application;
    keys, encoded, of 1 to 512 bytes; *origin*, the sender's 16 bytes; notes, one for each key,
    which mean something to the sender only.  Values come as Envelope; ``protocols.read_head`` tells
    what of it matters.

    **Fresh** is a value of the area's generation that was not ended by expire(), and of whose life
    more is left than its stale life.  Its *physical* life is both together: ``life + stale``; after
    that it is gone.  A life of None has no end.

    **One step.**  Whatever changes a key (write, expire, add, touch, incr) changes the value, ends
    the lease of the key, takes the next number, and puts the message in the log and before the
    subscribers, as one step: no reader, no other writer, no subscriber and no crash comes between.
    Where that cannot be had, this order must be kept, and nothing less: the value, the lease, and
    only then number, log and subscribers together.  A crash in between leaves hosts with an old
    copy that nobody tells them of; then the caller must not have been answered, so that its host
    sends the key once more.

    **Done means done.**  When a call has returned, every later call of any host sees it.  A store
    that answers reads from replicas that lag behind cannot be a RemoteBackend.

    **A call that raised may have been done.**  Its host treats it as both.

    Any method may raise RemoteError, whose *reason* says what it means: "timeout" and "connection"
    count as a failure of the second level (five in a row, and it is left alone until a probe
    succeeds), "refused" likewise, "other" is about this key or command only.  Any other exception
    is taken for "timeout" if it is a TimeoutError, and else for "connection"; TypeError and
    OverflowError of incr() are the caller's.

    **Versions.**  *fingerprint* says which version's values are meant; 0: they have none.  Two
    releases that use an area with different ones have their values side by side, under the same
    keys.  Nobody is given another version's value.  What is deleted, expired or cleared is so for
    all versions; a set, add, touch or incr that has changed something deletes the key's values of
    the others.  Leases, numbers, log and generation are shared.

    **Tags.**  A value may carry up to 8 (``protocols.tags_of``).  It is stamped with the area's
    number: that of its lease if it was loaded, else that of when it is written, before its own.  It
    is *alive* unless one of its tags was deleted with a higher number than its stamp; if one was
    expired so, it counts as expired.  Whatever this text says of values is about those alive.

    Called from any thread, and in forked children: what must not be shared by processes
    (connections, locks) belongs to one process (``os.getpid()``).  Nothing should take longer than
    0.2 s: callers wait for it, and so does the listener, which is replaced after 0.5 s.
    """

    def get(
        self, area: str, keys: Sequence[bytes], *, fingerprint: int = ...
    ) -> list[Stored | None]:
        """
        Read values, one for each key, in order.

        What is past its physical life, dead by its tags, or of another generation than the area has
        now, is None.  The tags are judged by what is known of them after the values were read: one
        deleted in between makes a miss, never the reverse.  Stale values are given.  A life that is
        left is never longer than it is.
        """

    def lease(
        self, area: str, keys: Sequence[bytes], seconds: float, *, fingerprint: int = ...
    ) -> list[Lease]:
        """
        Get the leases of keys, one for each key, and make those that there are not.

        A lease is a random token that ends with *seconds* (one that is shared lives as long as the
        last of those who share it asked for), or at once when its key is changed by anybody.  The
        generation is that of before the tokens were read, and so is the area's number.  Two callers
        of one key may be given the same token; a token that has ended is never given again.
        """

    def fill(self, area: str, fills: Sequence[Fill], *, fingerprint: int = ...) -> list[bool]:
        """
        Store loaded values whose lease still is what it was; for each whether it was stored.

        To compare the lease and to store are one step for each key.  Nobody is told, no number is
        taken.  The value carries the generation of its lease, not the present one: after a clear it
        is not read.  The lease may go on for a second, for other hosts that loaded under it.
        """

    def write(
        self,
        area: str,
        kind: int,
        changes: Sequence[Change],
        origin: bytes,
        *,
        broadcast: bool = ...,
        fingerprint: int = ...,
    ) -> Written:
        """
        Store or delete keys, end their leases, and tell all hosts; see *One step*.

        A message names at most 4096 keys, so a large batch is several steps; kind is what it is to
        say, ``protocols.SET`` or ``FORGET``.  *broadcast* False: no number, no log, nobody is told,
        and Written.seq is 0.  Written.found counts the keys that had a value, fresh or stale.
        """

    def expire(
        self,
        area: str,
        keys: Sequence[bytes],
        notes: Sequence[int],
        origin: bytes,
        *,
        fingerprint: int = ...,
    ) -> int:
        """
        End the fresh lives of keys; count those that were fresh.  Tells all of them, as EXPIRE.

        A value with a stale life keeps the end of its physical life and is given with *expired*
        from now on; one without, or without an end, goes.
        """

    def clear(self, area: str, note: int, origin: bytes) -> None:
        """
        Forget a whole area: its generation is another one from now on; tells CLEAR, without keys.

        O(1) if it can be.  Values of the old generation are never read again, also those that are
        stored later under a lease of before.
        """

    def mark_tags(
        self, area: str, kind: int, tags: Sequence[bytes], notes: Sequence[int], origin: bytes
    ) -> None:
        """
        Delete (kind ``protocols.FORGET_TAGS``) or expire (``EXPIRE_TAGS``) by tag; tells the tags.

        One step: the next number is taken, noted for each of *tags* (encoded, 1 to 255 bytes), and
        told.  O(1) for each tag: no value is touched.  What is noted may be too high (if tags share
        a place, or old ones are given up), as values that die too early are only loaded again; it
        is never too low, and never forgotten while a value with a lower stamp may be there.
        """

    def add(self, area: str, change: Change, origin: bytes, *, fingerprint: int = ...) -> bool:
        """
        Store a key that has no fresh value; whether it had none.  Told as SET, if it was stored.

        A stale value, or one of another version, counts as none.
        """

    def touch(  # noqa: PLR0917  as its like in the first level
        self,
        area: str,
        key: bytes,
        life: float | None,
        stale_life: float,
        note: int,
        origin: bytes,
        *,
        fingerprint: int | None = ...,
    ) -> bool:
        """
        Give a fresh value a new life and stale life; whether there was one.  Then told as SET.

        The new stale life goes into the value's head, too (``protocols.with_stale``).
        *fingerprint*: the version; None: as 0.
        """

    def incr(  # noqa: PLR0917  as its like in the first level
        self,
        area: str,
        key: bytes,
        delta: int,
        initial: Change | None,
        note: int,
        origin: bytes,
        *,
        fingerprint: int | None = ...,
    ) -> int | None:
        """
        Add to a fresh int, which keeps its life; the new number.  Then told as SET.

        An int has code ``protocols.CODE_INT``, and decimal text as payload.  An absent one begins
        as *initial*, and is added to; with None it stays absent, and None is the answer.

        Raises:
            TypeError: The value is no int.
            OverflowError: The result does not fit 64 bits, signed.
        """

    def tell(
        self, area: str, kind: int, keys: Sequence[bytes], notes: Sequence[int], origin: bytes
    ) -> int:
        """Tell all hosts of what was done by other means; the number of the last message."""

    def beat(self, areas: Sequence[str], channel: str, n: int) -> tuple[str, list[int]]:
        """
        Write something, and tell *channel* a heartbeat; the history, and the areas' numbers.

        The bound stands on this, so nothing of it may be left out:

        - It really writes, so that a store that takes no writes refuses it.
        - The numbers are read where they are given, and are at least those of all writes that have
          returned before this call began.  An area without a number is given one now.
        - What is told, ``protocols.heartbeat(n, history, numbers)``, comes to the subscriber of
          *channel* behind every message with a number up to those.
        - A number is given once in a history.  A counter that was lost starts above whatever it had
          reached, or the history gets another name.
        """

    def recheck(self, areas: Sequence[str], origin: bytes) -> list[str]:
        """
        Forget the areas whose values are of an earlier time; which those are.

        Called when a connection was lost, and each minute.  For a store that may come back with
        what it had on its disk a while ago; one that never does answers [].
        """

    def log(self, area: str, first: int, last: int | None, limit: int) -> list[tuple[int, bytes]]:
        """
        Read at most *limit* of the messages from *first* to *last* (None: the newest), in order.

        Each with its number, and byte for byte as it was told.  Messages that the log has no more
        are left out, never made up: the host drops the area then.
        """

    def subscriber(self, channel: str) -> InvalidationSubscriber:
        """Connect one that hears, beside areas, the heartbeats that are told on *channel*."""


class Remote(RemoteBackend, Protocol):
    """The second level as this package uses it: what RemoteBackend may leave out is there."""

    title: str
    """What it is called in messages."""

    def for_loop(self) -> AsyncRemoteBackend:
        """Give the same for the event loop that runs here."""

    def heartbeat_channel(self, origin: bytes) -> str:
        """Name the channel on which a host hears its own heartbeats."""

    def channel(self, area: str) -> str:
        """Name, for an operator, where an area's invalidations are told."""

    def answer(self, nonce: bytes, data: bytes) -> None:
        """Answer a probe, where there is a channel for that."""

    def describe(self) -> dict[str, Any]:
        """Where it is, as far as that may be shown."""

    def close(self) -> None:
        """Let go of what this process holds of it; it may be used again."""


class AsyncRemoteBackend(Protocol):
    """The second level for the tasks of one event loop; see RemoteBackend."""

    async def get(
        self, area: str, keys: Sequence[bytes], *, fingerprint: int = ...
    ) -> list[Stored | None]:
        """Read values, as one batch; None: there is none of the area's generation."""

    async def lease(
        self, area: str, keys: Sequence[bytes], seconds: float, *, fingerprint: int = ...
    ) -> list[Lease]:
        """Get or make the leases under which keys are loaded, for at least *seconds*."""

    async def fill(self, area: str, fills: Sequence[Fill], *, fingerprint: int = ...) -> list[bool]:
        """Store loaded values, tell nobody; for each whether its lease still held."""

    async def write(
        self,
        area: str,
        kind: int,
        changes: Sequence[Change],
        origin: bytes,
        *,
        broadcast: bool = ...,
        fingerprint: int = ...,
    ) -> Written:
        """Store or delete keys, end their leases, and tell all hosts."""

    async def expire(
        self,
        area: str,
        keys: Sequence[bytes],
        notes: Sequence[int],
        origin: bytes,
        *,
        fingerprint: int = ...,
    ) -> int:
        """End the fresh lives of keys, keep what is usable as stale; count the fresh ones."""

    async def clear(self, area: str, note: int, origin: bytes) -> None:
        """Forget a whole area: its generation is another one from now on."""

    async def mark_tags(
        self, area: str, kind: int, tags: Sequence[bytes], notes: Sequence[int], origin: bytes
    ) -> None:
        """Make all values with one of *tags* miss (message.FORGET_TAGS) or stale; tell all."""

    async def add(
        self, area: str, change: Change, origin: bytes, *, fingerprint: int = ...
    ) -> bool:
        """Store a key that has no fresh value; whether it had none."""

    async def touch(  # noqa: PLR0917  as its like in the first level
        self,
        area: str,
        key: bytes,
        life: float | None,
        stale_life: float,
        note: int,
        origin: bytes,
        *,
        fingerprint: int | None = ...,
    ) -> bool:
        """Give a fresh value a new life; whether there was one."""

    async def incr(  # noqa: PLR0917  as its like in the first level
        self,
        area: str,
        key: bytes,
        delta: int,
        initial: Change | None,
        note: int,
        origin: bytes,
        *,
        fingerprint: int | None = ...,
    ) -> int | None:
        """Add to a stored int, which keeps its life; an absent one begins as *initial*."""

    async def tell(
        self, area: str, kind: int, keys: Sequence[bytes], notes: Sequence[int], origin: bytes
    ) -> int:
        """Tell all hosts of what has been done by other means; the number of the last message."""
