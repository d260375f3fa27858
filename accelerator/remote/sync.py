"""Redis as the second level, for threads and greenlets."""

from __future__ import annotations

import asyncio
import os
import weakref
from typing import TYPE_CHECKING, Any, Final, TypeVar

from accelerator.errors import ConfigError, RemoteError
from accelerator.remote import bounded, failures
from accelerator.remote.aio import AsyncRedisRemote
from accelerator.remote.names import host_channel
from accelerator.remote.plans import Plans
from accelerator.remote.source import Source
from accelerator.remote.steps import steps
from accelerator.remote.subscription import Subscription

if TYPE_CHECKING:
    from collections.abc import Sequence

    from accelerator.backend import (
        AsyncRemoteBackend,
        Change,
        Fill,
        Lease,
        Remote,
        Stored,
        Written,
    )
    from accelerator.config.settings import Settings
    from accelerator.remote.plans import Plan

    # Both keep to the protocols, or this does not type-check.
    _async: type[AsyncRemoteBackend] = AsyncRedisRemote

T = TypeVar("T")

_abandoned: Final[list[Any]] = []
"""Clients of a parent process.  Never closed here: its sockets are still in use, and its locks may
be held for ever by threads that this process does not have."""


def connect(settings: Settings) -> RedisRemote:
    """
    Make the second level that *settings* say; nothing is connected, or imported, before it is used.

    Raises:
        ConfigError: There is no Redis in the settings, or a URL that cannot be one.
    """
    namespace = settings.namespace or settings.name
    if settings.redis is None or namespace is None:
        raise ConfigError("there is no redis, or no name and no namespace", setting="redis")
    return RedisRemote(Source(settings), namespace)


class RedisRemote:
    """
    The operations on Redis.  Every method may raise RemoteError, and takes at most two time limits
    (connecting, reading) for each batch that it sends; usually one.

    May be used from any thread, and after a fork: a child has connections of its own.
    """  # noqa: D205  one sentence

    title = "Redis"

    def __init__(self, source: Source, namespace: str) -> None:
        self.plans = Plans(namespace, source.db, cluster=source.cluster)
        self._source = source
        self._client: tuple[int, Any] | None = None
        self._loops: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, AsyncRedisRemote] = (
            weakref.WeakKeyDictionary()
        )

    @property
    def namespace(self) -> str:
        """First part of all names."""
        return self.plans.namespace

    def channel(self, area: str) -> str:
        """Name the channel on which an area's invalidations are told."""
        return self.plans.names(area).channel

    def heartbeat_channel(self, origin: bytes) -> str:
        """Name the channel on which a host hears its own heartbeats."""
        return host_channel(self.plans.namespace, origin, self.plans.db)

    @property
    def db(self) -> int:
        """Number of the database."""
        return self.plans.db

    @property
    def cluster(self) -> bool:
        """Whether keys lie on several servers."""
        return self.plans.cluster

    def describe(self) -> dict[str, Any]:
        """Where Redis is, as far as that may be shown: redis, db, kind."""
        return self._source.describe()

    def for_loop(self) -> AsyncRedisRemote:
        """Give the same for the event loop that runs here; its connections end with the loop."""
        loop = asyncio.get_running_loop()
        found = self._loops.get(loop)
        if found is None or found.pid != os.getpid():
            self._forget_loops()
            found = self._loops[loop] = AsyncRedisRemote(self._source, self.plans)
        return found

    def _forget_loops(self) -> None:
        """Let go of loops that are closed, and keep a parent process's ones from being closed."""
        for loop, remote in list(self._loops.items()):
            if remote.pid != os.getpid():
                # To collect its connections would end the parent's watch of their sockets: what
                # a selector watches is shared by the processes.
                _abandoned.append(remote)
            elif loop.is_closed():
                # What is left of it refers to the loop, so that neither would ever be collected.
                del self._loops[loop]

    def close(self) -> None:
        """Close the connections of this process's threads."""
        current, self._client = self._client, None
        if current is not None and current[0] == os.getpid():
            _close(current[1])

    # --- operations: see Plans ---

    def get(self, area: str, keys: Sequence[bytes], *, fingerprint: int = 0) -> list[Stored | None]:
        """Read values; None: there is none of the area's generation."""
        return self._run(self.plans.get(area, keys, fingerprint=fingerprint), area, "get")

    def lease(
        self, area: str, keys: Sequence[bytes], seconds: float, *, fingerprint: int = 0
    ) -> list[Lease]:
        """Get or make the leases under which keys are loaded, for at least *seconds*."""
        return self._run(
            self.plans.lease(area, keys, seconds, fingerprint=fingerprint), area, "lease"
        )

    def fill(self, area: str, fills: Sequence[Fill], *, fingerprint: int = 0) -> list[bool]:
        """Store loaded values; tell for each whether its lease still held."""
        return self._run(self.plans.fill(area, fills, fingerprint=fingerprint), area, "fill")

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
        """Store or delete keys, and tell all hosts."""
        plan = self.plans.write(
            area, kind, changes, origin, broadcast=broadcast, fingerprint=fingerprint
        )
        return self._run(plan, area, "write")

    def expire(
        self,
        area: str,
        keys: Sequence[bytes],
        notes: Sequence[int],
        origin: bytes,
        *,
        fingerprint: int = 0,
    ) -> int:
        """End the fresh lives of keys, keep what is usable as stale; count the fresh ones."""
        return self._run(
            self.plans.expire(area, keys, notes, origin, fingerprint=fingerprint), area, "expire"
        )

    def clear(self, area: str, note: int, origin: bytes) -> None:
        """Forget a whole area."""
        self._run(self.plans.clear(area, note, origin), area, "clear")

    def mark_tags(
        self, area: str, kind: int, tags: Sequence[bytes], notes: Sequence[int], origin: bytes
    ) -> None:
        """Delete (message.FORGET_TAGS) or expire all values that carry one of *tags*; tell all."""
        self._run(self.plans.mark_tags(area, kind, tags, notes, origin), area, "tags")

    def add(self, area: str, change: Change, origin: bytes, *, fingerprint: int = 0) -> bool:
        """Store a key that has no fresh value; tell whether it had none."""
        return self._run(self.plans.add(area, change, origin, fingerprint=fingerprint), area, "add")

    def touch(  # noqa: PLR0917  as the protocol says
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
        """Give a fresh value a new life; tell whether there was one."""
        plan = self.plans.touch(area, key, life, stale_life, note, origin, fingerprint=fingerprint)
        return self._run(plan, area, "touch")

    def incr(  # noqa: PLR0917  as the protocol says
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
        """Add to an int; TypeError if it is none, OverflowError past 64 bits, None if absent."""
        plan = self.plans.incr(area, key, delta, initial, note, origin, fingerprint=fingerprint)
        return self._run(plan, area, "incr")

    def tell(
        self, area: str, kind: int, keys: Sequence[bytes], notes: Sequence[int], origin: bytes
    ) -> int:
        """Tell all hosts of what has been done by other means; the number of the last message."""
        return self._run(self.plans.tell(area, kind, keys, notes, origin), area, "tell")

    def probe(self, area: str, nonce: bytes, origin: bytes) -> tuple[int, int]:
        """Have all hosts answer; the number of the message, and how many connections were told."""
        return self._run(self.plans.probe(area, nonce, origin), area, "probe")

    # --- for the listener ---

    def answer(self, nonce: bytes, data: bytes) -> None:
        """Answer a probe."""
        self._run(self.plans.answer(nonce, data), None, "answer")

    def beat(self, areas: Sequence[str], channel: str, n: int) -> tuple[str, list[int]]:
        """Write, and tell *channel*; the replication id and the areas' numbers."""
        return self._run(self.plans.beat(areas, channel, n), None, "beat")

    def recheck(self, areas: Sequence[str], origin: bytes) -> list[str]:
        """Forget the areas that a server has from its disk since it began anew; which those are."""
        return self._run(self.plans.recheck(areas, origin), None, "recheck")

    def log(self, area: str, first: int, last: int | None, limit: int) -> list[tuple[int, bytes]]:
        """Read at most *limit* of the messages from *first* to *last* (None: the newest)."""
        return self._run(self.plans.log(area, first, last, limit), area, "log")

    def subscriber(self, channel: str) -> Subscription:
        """Connect one that hears, beside areas, the heartbeats that are told on *channel*."""
        return Subscription(self.connection(), channel, self.channel)

    def connection(self) -> Any:
        """
        Connect: a ``redis.Connection`` of the caller's own, authenticated, RESP2, with our limits.

        The caller disconnects it.  On a cluster it leads to any node: all of them hear channels.
        """
        return self._connected_to(None)

    def connections(self) -> list[Any]:
        """Connect as connection() does, on a cluster to each of its nodes."""
        if not self._source.cluster:
            return [self.connection()]
        made: list[Any] = []
        try:
            for node in self._nodes():
                made.append(self._connected_to(node))  # noqa: PERF401  closed if one fails
        except RemoteError:
            for each in made:
                each.disconnect()
            raise
        return made

    def _nodes(self) -> list[Any]:
        try:
            return list(self._own_client().get_nodes())
        except Exception as error:
            raise failures.failure(error, None, "connect") from None

    def _connected_to(self, node: Any) -> Any:
        """Connect to a node of the cluster (None: any), or to the server."""
        made = None
        try:
            client = self._own_client()
            if self._source.cluster:
                client = client.get_redis_connection(node or client.get_default_node())
            made = client.connection_pool.make_connection()
            made.connect()
        except ConfigError:
            raise
        except Exception as error:
            if made is not None:
                made.disconnect()
            raise failures.failure(error, None, "connect") from None
        return made

    # --- details ---

    def _run(self, plan: Plan[T], area: str | None, operation: str) -> T:
        todo = steps(plan, area, operation)
        try:
            commands, atomic = next(todo)
            while True:
                commands, atomic = todo.send(self._send(commands, atomic, area, operation))
        except StopIteration as end:
            result: T = end.value
            return result

    def _send(
        self, commands: Sequence[Sequence[Any]], atomic: bool, area: str | None, operation: str
    ) -> list[Any]:
        """Send commands together, and give their replies, errors among them."""
        bounded.start()
        try:
            client = self._own_client()
            # Not for one script alone: a pipeline costs as much again.
            if len(commands) == 1:
                return [_one(client, commands[0])]
            pipeline = client.pipeline(transaction=atomic)
            for command in commands:
                pipeline.execute_command(*command)
            replies: list[Any] = pipeline.execute(raise_on_error=False)
        except ConfigError:
            raise
        # Whatever it is: a cache must not fail because its client library does.
        except Exception as error:
            late = bounded.lateness() or 0.0
            raise failures.failure(error, area, operation, late=late) from None
        return replies

    def _own_client(self) -> Any:
        """Give the client of this process."""
        current = self._client
        if current is not None and current[0] == os.getpid():
            return current[1]
        if current is not None:
            _abandoned.append(current)
        # Two threads may both come here: the one that is late has a client for one call.
        made = self._source.client()
        self._client = os.getpid(), made
        return made


def _one(client: Any, command: Sequence[Any]) -> Any:
    from redis.exceptions import ResponseError  # noqa: PLC0415  the client is there, so is this

    try:
        return client.execute_command(*command)
    except ResponseError as error:
        return error


def _close(client: Any) -> None:
    pool = getattr(client, "connection_pool", None)
    if pool is not None:
        pool.disconnect()
    else:
        client.close()


if TYPE_CHECKING:
    _sync: type[Remote] = RedisRemote
