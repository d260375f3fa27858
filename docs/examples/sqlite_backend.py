"""
A second level in a SQLite file, for applications that share one machine and no segment.

Each operation is one transaction, so that the value, the end of its lease, the number of the
message and the message itself are there together, or not at all, also when the process is killed
or the power fails.  SQLite lets one writer in at a time: messages are numbered in the order in
which they are committed, and a subscriber that reads the table of messages in its order hears
them so.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import sqlite3
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from accelerator import protocols
from accelerator.protocols import (
    CLEAR,
    CODE_INT,
    EXPIRE,
    FORGET_TAGS,
    HEARD_BEAT,
    HEARD_CONFIRMED,
    HEARD_MESSAGE,
    SET,
    Change,
    Envelope,
    Fill,
    Heard,
    Lease,
    Received,
    RemoteError,
    Stored,
    Written,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

T = TypeVar("T")

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS history (name TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS areas (
    name TEXT PRIMARY KEY, number INTEGER, generation BLOB, floor INTEGER
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS entries (
    area TEXT, key BLOB, version INTEGER, head BLOB, generation BLOB, tags BLOB, stamp INTEGER,
    payload BLOB, ends REAL, expired INTEGER, PRIMARY KEY (area, key, version)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS tags (
    area TEXT, tag BLOB, deleted INTEGER, expired INTEGER, PRIMARY KEY (area, tag)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS leases (
    area TEXT, key BLOB, token BLOB, ends REAL, PRIMARY KEY (area, key)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS told (
    id INTEGER PRIMARY KEY AUTOINCREMENT, channel TEXT, number INTEGER, message BLOB
);
CREATE INDEX IF NOT EXISTS told_number ON told (channel, number);
INSERT INTO history SELECT lower(hex(randomblob(16))) WHERE NOT EXISTS (SELECT 1 FROM history);
"""
WAIT: Final = 0.2
"""Callers wait no longer, and so does the listener."""
POLL: Final = 0.005
"""Seconds between two looks for messages."""
LOG_LENGTH: Final = 20_000
"""Messages and heartbeats that are kept."""
MOST_KEYS: Final = 1_000
"""Keys of one message; it must not be more than 4,096."""
MOST_TAGS: Final = 10_000
"""Tags of an area whose last delete is remembered one by one."""
INT64: Final = range(-(1 << 63), 1 << 63)

_abandoned: Final[list[Any]] = []
"""Connections of a parent process.  SQLite forbids to use them here, or to close them."""


class SqliteBackend:
    """
    A RemoteBackend in a file.

    Args:
        path: Of the file, on a local disk; made if it is not there.
        wait: Longest wait in seconds for another writer.
    """

    def __init__(self, path: str | Path, wait: float = WAIT) -> None:
        self._path = str(path)
        self._wait = wait
        self._pid = os.getpid()
        self._free: list[sqlite3.Connection] = []
        with contextlib.closing(sqlite3.connect(self._path, timeout=30.0)) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.executescript(f"BEGIN IMMEDIATE; {SCHEMA} COMMIT;")

    def describe(self) -> dict[str, Any]:
        """Say where it is, for diagnostics."""
        return {"file": Path(self._path).name}

    # --- reads and fills ---

    def get(self, area: str, keys: Sequence[bytes], *, fingerprint: int = 0) -> list[Stored | None]:
        """Read values."""

        def get(it: Transaction) -> list[Stored | None]:
            return [it.stored(key) for key in keys]

        return self._run(area, "get", get, fingerprint, writes=False)

    def lease(
        self, area: str, keys: Sequence[bytes], seconds: float, *, fingerprint: int = 0
    ) -> list[Lease]:
        """Get or make leases, which all versions share."""
        return self._run(area, "lease", lambda it: [it.lease(key, seconds) for key in keys])

    def fill(self, area: str, fills: Sequence[Fill], *, fingerprint: int = 0) -> list[bool]:
        """Store what was loaded under a lease that still holds."""
        return self._run(area, "fill", lambda it: [it.fill(fill) for fill in fills], fingerprint)

    # --- explicit writes ---

    def write(
        self,
        area: str,
        kind: int,
        changes: Sequence[Change],
        origin: bytes,
        *,
        broadcast: bool = True,
        fingerprint: int = 0,
    ) -> Written:
        """Store or delete keys."""

        def write(it: Transaction) -> Written:
            found = sum(it.change(change) for change in changes)
            if not broadcast:
                return Written(0, found)
            keys = [change.key for change in changes]
            notes = [change.note for change in changes]
            return Written(it.tell(kind, keys, notes, origin), found)

        return self._run(area, "write", write, fingerprint)

    def expire(
        self,
        area: str,
        keys: Sequence[bytes],
        notes: Sequence[int],
        origin: bytes,
        *,
        fingerprint: int = 0,
    ) -> int:
        """End the fresh lives of keys."""

        def expire(it: Transaction) -> int:
            fresh = sum(it.expire(key) for key in keys)
            it.tell(EXPIRE, keys, notes, origin)
            return fresh

        return self._run(area, "expire", expire)

    def clear(self, area: str, note: int, origin: bytes) -> None:
        """Forget an area: its values are of another generation from now on."""

        def clear(it: Transaction) -> None:
            it.renew()
            it.announce(CLEAR, [], [note], origin)

        self._run(area, "clear", clear)

    def mark_tags(
        self, area: str, kind: int, tags: Sequence[bytes], notes: Sequence[int], origin: bytes
    ) -> None:
        """Note the number up to which values with these tags are deleted, or expired."""

        def mark(it: Transaction) -> None:
            number = it.announce(kind, tags, notes, origin) if tags else 0
            for tag in tags:
                it.mark(tag, number, deleted=kind == FORGET_TAGS)

        self._run(area, "mark_tags", mark)

    def add(self, area: str, change: Change, origin: bytes, *, fingerprint: int = 0) -> bool:
        """Store a key that has no fresh value."""

        def add(it: Transaction) -> bool:
            if it.fresh(change.key):
                return False
            it.change(change)
            it.tell(SET, [change.key], [change.note], origin)
            return True

        return self._run(area, "add", add, fingerprint)

    def touch(
        self,
        area: str,
        key: bytes,
        life: float | None,
        stale_life: float,
        note: int,
        origin: bytes,
        *,
        fingerprint: int | None = None,
    ) -> bool:
        """Give a fresh value a new life."""

        def touch(it: Transaction) -> bool:
            row = it.fresh(key)
            if row is None:
                return False
            head = protocols.with_stale(row.head, stale_life)
            it.put(key, row._replace(head=head, ends=it.end(head, life)))
            it.tell(SET, [key], [note], origin)
            return True

        return self._run(area, "touch", touch, fingerprint or 0)

    def incr(
        self,
        area: str,
        key: bytes,
        delta: int,
        initial: Change | None,
        note: int,
        origin: bytes,
        *,
        fingerprint: int | None = None,
    ) -> int | None:
        """Add to a fresh int."""

        def incr(it: Transaction) -> int | None:
            row = it.fresh(key)
            if row is None and initial is not None:
                row = it.row_of(initial)
            if row is None:
                return None
            if protocols.read_head(row.head).code != CODE_INT:
                raise TypeError("the cached value is no 64-bit int")
            number = int(row.payload) + delta
            if number not in INT64 or delta not in INT64:
                raise OverflowError("the result does not fit 64 bits")
            it.put(key, row._replace(payload=b"%d" % number))
            it.tell(SET, [key], [note], origin)
            return number

        return self._run(area, "incr", incr, fingerprint or 0)

    def tell(
        self, area: str, kind: int, keys: Sequence[bytes], notes: Sequence[int], origin: bytes
    ) -> int:
        """Tell all hosts of what was done by other means."""
        return self._run(area, "tell", lambda it: it.tell(kind, keys, notes, origin))

    # --- for the listener ---

    def beat(self, areas: Sequence[str], channel: str, n: int) -> tuple[str, list[int]]:
        """Write a heartbeat behind all messages that there are."""

        def beat(it: Transaction) -> tuple[str, list[int]]:
            numbers = [Transaction(it.connection, area).number() for area in areas]
            (history,) = it.one("SELECT name FROM history")
            it.put_before_subscribers(None, protocols.heartbeat(n, history, numbers))
            return history, numbers

        return self._run(_beats(channel), "beat", beat)

    def recheck(self, areas: Sequence[str], origin: bytes) -> list[str]:
        """Nothing: what was committed stays committed."""
        return []

    def log(self, area: str, first: int, last: int | None, limit: int) -> list[tuple[int, bytes]]:
        """Read messages by their numbers."""
        return self._run(area, "log", lambda it: it.log(first, last, limit), writes=False)

    def subscriber(self, channel: str) -> SqliteSubscriber:
        """Connect a subscriber."""
        return SqliteSubscriber(self._path, channel)

    def close(self) -> None:
        """Close the connections that nobody uses just now."""
        free, self._free = self._free, []
        if self._pid == os.getpid():
            for connection in free:
                connection.close()

    # --- details ---

    def _take(self) -> sqlite3.Connection:
        """Give a connection of this process that no other thread uses."""
        if self._pid != os.getpid():
            _abandoned.append(self._free)
            self._pid, self._free = os.getpid(), []
        try:
            return self._free.pop()
        except IndexError:
            return _connect(self._path, self._wait)

    def _run(
        self,
        area: str,
        operation: str,
        do: Callable[[Transaction], T],
        version: int = 0,
        *,
        writes: bool = True,
    ) -> T:
        """Do something in one transaction."""
        try:
            connection = self._take()
            try:
                connection.execute("BEGIN IMMEDIATE" if writes else "BEGIN")
                result = do(Transaction(connection, area, version))
                connection.execute("COMMIT")
            finally:
                if connection.in_transaction:  # nothing of it was done
                    connection.execute("ROLLBACK")
                self._free.append(connection)
        except sqlite3.Error as error:
            raise _failure(error, area, operation) from None
        return result


class Row(NamedTuple):
    """A value as it lies in the file."""

    head: bytes
    generation: bytes
    tags: bytes
    """What the value says of its tags."""
    stamp: int
    """The area's number from before it was loaded, or written."""
    payload: bytes
    ends: float | None
    expired: int


class Transaction:
    """What is read and changed of one version of an area within one transaction."""

    def __init__(self, connection: sqlite3.Connection, area: str, version: int = 0) -> None:
        self.connection = connection
        self._area = area
        self._version = version
        self._now = time.time()  # one machine, so one clock

    def one(self, sql: str, *arguments: Any) -> Any:
        """Give one row, or None."""
        return self.connection.execute(sql, arguments).fetchone()

    def do(self, sql: str, *arguments: Any) -> int:
        """Change something; how many rows."""
        return self.connection.execute(sql, arguments).rowcount

    # --- values ---

    def stored(self, key: bytes) -> Stored | None:
        """Give the value of a key as a host wants it."""
        row = self._row(key)
        if row is None:
            return None
        # By the time after the read: it may have waited, and no life is longer than it is.
        left = None if row.ends is None else row.ends - time.time()
        if left is not None and left <= 0:
            return None
        value = Envelope(row.head, row.payload, 0, row.tags)
        blob = value.blob(row.generation, row.stamp.to_bytes(6, "big"))
        return Stored(blob, left, bool(row.expired))

    def fresh(self, key: bytes) -> Row | None:
        """Give a value that is fresh."""
        row = self._row(key)
        if row is None or row.expired:
            return None
        stale = protocols.read_head(row.head).stale
        return None if row.ends is not None and row.ends - self._now <= stale else row

    def end(self, head: bytes, life: float | None) -> float | None:
        """When a value is gone, stale copy and all."""
        return None if life is None else self._now + life + protocols.read_head(head).stale

    def row_of(self, change: Change) -> Row:
        """Give what an explicit write stores: no change of before now concerns it."""
        value = change.value
        assert value is not None
        end = self.end(value.head, change.life)
        stamp = self.number()
        return Row(value.head, self.generation(), value.tags, stamp, value.payload, end, 0)

    def put(self, key: bytes, row: Row) -> None:
        """Store a value explicitly: nothing that was loaded, or is of another version, stays."""
        self._forget(key)
        self._put(key, row)

    def change(self, change: Change) -> bool:
        """Store or delete a key; whether it had a value."""
        found = any(each._row(change.key) for each in self._versions(change.key))
        if change.value is None:
            self._forget(change.key)
        else:
            self.put(change.key, self.row_of(change))
        return found

    def expire(self, key: bytes) -> bool:
        """End the fresh life of a key, in all versions; whether it was fresh."""
        was_fresh = [each._expire(key) for each in self._versions(key)]
        self.end_lease(key)
        return any(was_fresh)

    def _versions(self, key: bytes) -> list[Transaction]:
        sql = "SELECT version FROM entries WHERE area = ? AND key = ?"
        found = self.connection.execute(sql, (self._area, key)).fetchall()
        return [Transaction(self.connection, self._area, version) for (version,) in found]

    def _expire(self, key: bytes) -> bool:
        row, was_fresh = self._row(key), self.fresh(key) is not None
        if row is not None and row.ends is not None and protocols.read_head(row.head).stale:
            self._put(key, row._replace(expired=1))
        else:
            self.do(
                "DELETE FROM entries WHERE area = ? AND key = ? AND version = ?",
                *(self._area, key, self._version),
            )
        return was_fresh

    def _row(self, key: bytes) -> Row | None:
        """Give a value that is alive."""
        found = self.one(
            "SELECT head, entries.generation, tags, stamp, payload, ends, expired, floor"
            " FROM entries JOIN areas ON name = area AND areas.generation = entries.generation"
            " WHERE area = ? AND key = ? AND version = ? AND (ends IS NULL OR ends > ?)",
            *(self._area, key, self._version, self._now),
        )
        if found is None:
            return None
        *columns, floor = found
        row = Row(*columns)
        tags = protocols.tags_of(row.tags)
        marks = [self._marks(tag) for tag in tags]
        if tags and (row.stamp < floor or any(deleted > row.stamp for deleted, _ in marks)):
            return None
        ended = any(expired > row.stamp for _, expired in marks)
        if ended and (row.ends is None or not protocols.read_head(row.head).stale):
            return None
        return row._replace(expired=1) if ended else row

    def _put(self, key: bytes, row: Row) -> None:
        self.do(
            "INSERT OR REPLACE INTO entries VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            *(self._area, key, self._version, *row),
        )
        self._sweep("entries", key)

    def _forget(self, key: bytes) -> None:
        """Delete a key in all versions, and have loads of it not stored."""
        self.do("DELETE FROM entries WHERE area = ? AND key = ?", self._area, key)
        self.end_lease(key)

    def _sweep(self, table: str, key: bytes) -> None:
        """Delete what is past its end of a key and the next ones: all of it goes, bit by bit."""
        self.do(
            f"DELETE FROM {table} WHERE area = ? AND ends <= ? AND key IN"  # noqa: S608  ours
            f" (SELECT key FROM {table} WHERE area = ? AND key >= ? LIMIT 8)",
            *(self._area, self._now, self._area, key),
        )

    # --- tags ---

    def mark(self, tag: bytes, number: int, *, deleted: bool) -> None:
        """Note that what was loaded before *number* with a tag is deleted, or expired."""
        self.do("INSERT OR IGNORE INTO tags VALUES (?, ?, 0, 0)", self._area, tag)
        column = "deleted" if deleted else "expired"
        sql = f"UPDATE tags SET {column} = ? WHERE area = ? AND tag = ?"  # noqa: S608  ours
        self.do(sql, number, self._area, tag)
        oldest = self.one(
            "SELECT max(deleted, expired) FROM tags WHERE area = ?"
            " ORDER BY max(deleted, expired) DESC LIMIT 1 OFFSET ?",
            *(self._area, MOST_TAGS),
        )
        if oldest is not None:
            # What is not remembered of a tag is made up for: all that is as old is dead.
            sql = "DELETE FROM tags WHERE area = ? AND max(deleted, expired) <= ?"
            self.do(sql, self._area, oldest[0])
            self.do("UPDATE areas SET floor = ? WHERE name = ?", oldest[0], self._area)

    def _marks(self, tag: bytes) -> tuple[int, int]:
        sql = "SELECT deleted, expired FROM tags WHERE area = ? AND tag = ?"
        found: tuple[int, int] = self.one(sql, self._area, tag) or (0, 0)
        return found

    # --- leases ---

    def lease(self, key: bytes, seconds: float) -> Lease:
        """Get or make the lease of a key."""
        self._sweep("leases", key)
        self.do(
            "INSERT INTO leases VALUES (?, ?, ?, ?)"
            " ON CONFLICT DO UPDATE SET ends = max(ends, excluded.ends)",
            *(self._area, key, secrets.token_bytes(16), self._now + seconds),
        )
        return Lease(self._token(key), self.generation(), self.number())

    def fill(self, fill: Fill) -> bool:
        """Store a loaded value if its lease still holds."""
        if self._token(fill.key) != fill.lease.token:
            return False
        head, payload, _, tags = fill.value
        ends = self.end(head, fill.life)
        # Of the generation, and the number, of before it was loaded: what has come since counts.
        of_before = fill.lease.generation, tags, fill.lease.seq
        self._put(fill.key, Row(head, *of_before, payload, ends, 0))
        return True

    def end_lease(self, key: bytes) -> None:
        """See to it that nothing is stored that was loaded before now."""
        self.do("DELETE FROM leases WHERE area = ? AND key = ?", self._area, key)

    def _token(self, key: bytes) -> bytes:
        row = self.one(
            "SELECT token FROM leases WHERE area = ? AND key = ? AND ends > ?",
            *(self._area, key, self._now),
        )
        return row[0] if row else b""

    # --- the area, and what is told ---

    def generation(self) -> bytes:
        """Give the area's generation."""
        self._begin()
        found: bytes = self.one("SELECT generation FROM areas WHERE name = ?", self._area)[0]
        return found

    def number(self) -> int:
        """Give the number of the area's last message."""
        self._begin()
        return int(self.one("SELECT number FROM areas WHERE name = ?", self._area)[0])

    def renew(self) -> None:
        """Make all values those of a generation that is over."""
        self._begin()
        self.do(
            "UPDATE areas SET generation = ? WHERE name = ?", secrets.token_bytes(8), self._area
        )

    def _begin(self) -> None:
        # The number is never lost, as nothing deletes rows of this table: so it may begin at 1.
        self.do(
            "INSERT OR IGNORE INTO areas VALUES (?, 1, ?, 0)", self._area, secrets.token_bytes(8)
        )

    def tell(self, kind: int, keys: Sequence[bytes], notes: Sequence[int], origin: bytes) -> int:
        """Tell of keys; the number of the last message."""
        number = 0
        for start in range(0, len(keys), MOST_KEYS):
            part = slice(start, start + MOST_KEYS)
            number = self.announce(kind, keys[part], notes[part], origin)
        return number

    def announce(
        self, kind: int, keys: Sequence[bytes], notes: Sequence[int], origin: bytes
    ) -> int:
        """Take a number, and tell of it."""
        number = self.number() + 1
        self.do("UPDATE areas SET number = ? WHERE name = ?", number, self._area)
        message = protocols.invalidation(origin, number, protocols.body(kind, keys, notes))
        self.put_before_subscribers(number, message)
        return number

    def put_before_subscribers(self, number: int | None, message: bytes) -> None:
        """Add to the table that subscribers read, which is the log as well."""
        sql = "INSERT INTO told (channel, number, message) VALUES (?, ?, ?)"
        last = self.connection.execute(sql, (self._area, number, message)).lastrowid
        assert last is not None
        self.do("DELETE FROM told WHERE id <= ?", last - LOG_LENGTH)

    def log(self, first: int, last: int | None, limit: int) -> list[tuple[int, bytes]]:
        """Read messages by their numbers."""
        return self.connection.execute(
            "SELECT number, message FROM told WHERE channel = ? AND number BETWEEN ? AND ?"
            " ORDER BY number LIMIT ?",
            (self._area, first, INT64[-1] if last is None else last, limit),
        ).fetchall()


class SqliteSubscriber:
    """
    Hears by looking: what is behind the row that was read last.

    Args:
        path: Of the file.
        channel: Of the own heartbeats.
    """

    def __init__(self, path: str, channel: str) -> None:
        self._path = path
        self._pid = os.getpid()
        self._connection: sqlite3.Connection | None = None
        self._areas = {_beats(channel): ""}
        self._confirmed: list[Heard] = [(HEARD_CONFIRMED, "", None)]
        self._at = 0
        try:
            self._connection = _connect(path)
            self._at = self._last()
        except sqlite3.Error as error:
            raise _failure(error, None, "subscribe") from None

    def subscribe(self, areas: Sequence[str]) -> None:
        """Hear of these areas, too: from the row on that is the last one now."""
        # All rows behind _at are still to be looked at, those that came before this call among
        # them: one too many is no harm.
        self._areas.update((area, area) for area in areas)
        self._confirmed += [(HEARD_CONFIRMED, area, None) for area in areas]

    def ping(self) -> None:
        """Do nothing: each look is answered."""

    def read(self, timeout: float) -> Received:
        """Look until there is something, or the time is up."""
        until = time.monotonic() + timeout
        try:
            while True:
                heard = self._look()
                left = until - time.monotonic()
                if heard or left <= 0:
                    return Received(heard, alive=True, more=bool(heard))
                time.sleep(min(POLL, left))
        except sqlite3.Error as error:
            raise _failure(error, None, "listen") from None

    def close(self) -> None:
        """End it."""
        connection, self._connection = self._connection, None
        if connection is not None and self._pid == os.getpid():
            connection.close()

    def _look(self) -> list[Heard]:
        heard, self._confirmed = self._confirmed, []
        if self._connection is None:
            raise RemoteError("the subscriber was closed", reason="connection")
        rows = self._connection.execute(
            "SELECT id, channel, number, message FROM told WHERE id > ? ORDER BY id LIMIT 1000",
            (self._at,),
        ).fetchall()
        if rows and rows[0][0] != self._at + 1:
            raise RemoteError("messages were dropped before they were read", reason="connection")
        for self._at, channel, number, message in rows:
            area = self._areas.get(channel)
            if area is not None:
                heard.append((HEARD_BEAT if number is None else HEARD_MESSAGE, area, message))
        return heard

    def _last(self) -> int:
        assert self._connection is not None
        row = self._connection.execute("SELECT max(id) FROM told").fetchone()
        return row[0] or 0


def _connect(path: str, wait: float = WAIT) -> sqlite3.Connection:
    # Not used by two threads at once; but by one after the other.
    connection = sqlite3.connect(path, timeout=wait, isolation_level=None, check_same_thread=False)
    # What was committed is still there when the power has failed: a delete must not be undone.
    connection.execute("PRAGMA synchronous=FULL")
    return connection


def _beats(channel: str) -> str:
    """Name a channel of heartbeats so that it is no area's."""
    return f"beats {channel}"


def _failure(error: sqlite3.Error, area: str | None, operation: str) -> RemoteError:
    """Say what went wrong, and what it means for the next call."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    reasons = {
        sqlite3.SQLITE_BUSY: "timeout",
        sqlite3.SQLITE_LOCKED: "timeout",
        sqlite3.SQLITE_FULL: "refused",
        sqlite3.SQLITE_READONLY: "refused",
    }
    reason = reasons.get(code, "connection")
    return RemoteError(
        f"the file cannot be used ({type(error).__name__})",
        reason=reason,
        area=area,
        operation=operation,
    )
