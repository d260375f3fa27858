"""Redis as the second level, for one event loop."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any, Final, TypeVar

from accelerator.errors import ConfigError, RemoteError
from accelerator.remote import failures
from accelerator.remote.steps import steps

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from accelerator.backend import Change, Fill, Lease, Stored, Written
    from accelerator.remote.plans import Plan, Plans
    from accelerator.remote.source import Source

T = TypeVar("T")

_MOST_AT_ONCE: Final = 128
"""Connections of a loop.  Redis answers one in about 0.1 ms, so nobody waits long for one."""


class AsyncRedisRemote:
    """
    The operations of RedisRemote for tasks of one event loop, on connections of its own.

    Args:
        source: Where Redis is.
        plans: The operations.
    """

    def __init__(self, source: Source, plans: Plans) -> None:
        self.plans = plans
        self.pid = os.getpid()
        self._source = source
        self._client: Any = None
        self._free = asyncio.Semaphore(_MOST_AT_ONCE)
        self._end: AsyncGenerator[None, None] | None = None

    async def close(self) -> None:
        """Close its connections."""
        client, self._client = self._client, None
        if client is not None:
            await _close(client)

    # --- operations: see Plans ---

    async def get(
        self, area: str, keys: Sequence[bytes], *, fingerprint: int = 0
    ) -> list[Stored | None]:
        """Read values; None: there is none of the area's generation."""
        return await self._run(self.plans.get(area, keys, fingerprint=fingerprint), area, "get")

    async def lease(
        self, area: str, keys: Sequence[bytes], seconds: float, *, fingerprint: int = 0
    ) -> list[Lease]:
        """Get or make the leases under which keys are loaded, for at least *seconds*."""
        return await self._run(
            self.plans.lease(area, keys, seconds, fingerprint=fingerprint), area, "lease"
        )

    async def fill(self, area: str, fills: Sequence[Fill], *, fingerprint: int = 0) -> list[bool]:
        """Store loaded values; tell for each whether its lease still held."""
        return await self._run(self.plans.fill(area, fills, fingerprint=fingerprint), area, "fill")

    async def write(
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
        return await self._run(plan, area, "write")

    async def expire(
        self,
        area: str,
        keys: Sequence[bytes],
        notes: Sequence[int],
        origin: bytes,
        *,
        fingerprint: int = 0,
    ) -> int:
        """End the fresh lives of keys, keep what is usable as stale; count the fresh ones."""
        return await self._run(
            self.plans.expire(area, keys, notes, origin, fingerprint=fingerprint), area, "expire"
        )

    async def clear(self, area: str, note: int, origin: bytes) -> None:
        """Forget a whole area."""
        await self._run(self.plans.clear(area, note, origin), area, "clear")

    async def mark_tags(
        self, area: str, kind: int, tags: Sequence[bytes], notes: Sequence[int], origin: bytes
    ) -> None:
        """Delete (message.FORGET_TAGS) or expire all values that carry one of *tags*; tell all."""
        await self._run(self.plans.mark_tags(area, kind, tags, notes, origin), area, "tags")

    async def add(self, area: str, change: Change, origin: bytes, *, fingerprint: int = 0) -> bool:
        """Store a key that has no fresh value; tell whether it had none."""
        return await self._run(
            self.plans.add(area, change, origin, fingerprint=fingerprint), area, "add"
        )

    async def touch(  # noqa: PLR0917  as the protocol says
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
        return await self._run(plan, area, "touch")

    async def incr(  # noqa: PLR0917  as the protocol says
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
        return await self._run(plan, area, "incr")

    async def tell(
        self, area: str, kind: int, keys: Sequence[bytes], notes: Sequence[int], origin: bytes
    ) -> int:
        """Tell all hosts of what has been done by other means; the number of the last message."""
        return await self._run(self.plans.tell(area, kind, keys, notes, origin), area, "tell")

    async def beat(self, areas: Sequence[str], channel: str, n: int) -> tuple[str, list[int]]:
        """Write, and tell *channel*; the replication id and the areas' numbers."""
        return await self._run(self.plans.beat(areas, channel, n), None, "beat")

    async def log(
        self, area: str, first: int, last: int | None, limit: int
    ) -> list[tuple[int, bytes]]:
        """Read at most *limit* of the messages from *first* to *last* (None: the newest)."""
        return await self._run(self.plans.log(area, first, last, limit), area, "log")

    # --- details ---

    async def _run(self, plan: Plan[T], area: str | None, operation: str) -> T:
        todo = steps(plan, area, operation)
        try:
            commands, atomic = next(todo)
            while True:
                replies = await self._send(commands, atomic, area, operation)
                commands, atomic = todo.send(replies)
        except StopIteration as end:
            result: T = end.value
            return result

    async def _send(
        self, commands: Sequence[Sequence[Any]], atomic: bool, area: str | None, operation: str
    ) -> list[Any]:
        """Send commands together, and give their replies, errors among them."""
        # Two limits together, for connecting and reading; redis-py keeps to each of them.
        loop = asyncio.get_running_loop()
        started, limit = loop.time(), self._source.timeout
        try:
            async with asyncio.timeout_at(started + 2 * limit), self._free:
                client = self._client or await self._connect()
                if len(commands) == 1:
                    return [await _one(client, commands[0])]
                pipeline = client.pipeline(transaction=atomic)
                for command in commands:
                    pipeline.execute_command(*command)
                replies: list[Any] = await pipeline.execute(raise_on_error=False)
        except (ConfigError, RemoteError):
            raise
        # Whatever it is: a cache must not fail because its client library does.
        except Exception as error:
            # A loop that was held up notices a timeout late.
            late = max(0.0, loop.time() - started - limit)
            raise failures.failure(error, area, operation, late=late) from None
        return replies

    async def _connect(self) -> Any:
        """Make the client, and have it closed before the loop is."""
        # Nothing is awaited between these two, so that no other task makes a second one.
        self._client = client = self._source.async_client()
        # Loops close their asynchronous generators before they close (shutdown_asyncgens): one
        # that waits for that is the only hook there is.
        self._end = _at_the_end(client)
        await self._end.asend(None)
        return client


async def _at_the_end(client: Any) -> AsyncGenerator[None, None]:
    try:
        yield
    finally:
        await _close(client)


async def _one(client: Any, command: Sequence[Any]) -> Any:
    from redis.exceptions import ResponseError  # noqa: PLC0415  the client is there, so is this

    try:
        return await client.execute_command(*command)
    except ResponseError as error:
        return error


async def _close(client: Any) -> None:
    pool = getattr(client, "connection_pool", None)
    await (pool.disconnect() if pool is not None else client.aclose())
