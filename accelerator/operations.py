"""
What LevelCache writes and forgets: each operation for callers that block.

How it goes, step by step, is in ``writing``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, overload

from accelerator.entry import K, V
from accelerator.local import UNSET
from accelerator.observability import oplog
from accelerator.writing import Writing

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from accelerator.changing import Item
    from accelerator.durations import Duration
    from accelerator.steps import Steps


class Operations(Writing, Generic[K, V]):
    """What LevelCache writes and forgets."""

    # --- writing --------------------------------------------------------------------------------

    def mset(
        self,
        mapping: Mapping[K, V],
        ttl: Duration | None = UNSET,
        *,
        tags: Iterable[str] | None = None,
        broadcast: bool | None = None,
    ) -> None:
        """
        Store many keys.  What cannot be stored is found before the first one is.

        Not one transaction: others may see some of the keys first.

        Args:
            mapping: Keys and their values.
            ttl: Life of each value, as set() takes it.
            tags: Of each value, as set() takes them.
            broadcast: As set() takes it.

        Raises:
            SerializationError: A value cannot be encoded, or is too large.
            TypeError, ValueError: A key, *ttl*, a tag or *broadcast* is wrong.

        Blocks for at most 20 ms a key, and with Redis for ``redis_timeout`` each 128 keys.
        """
        self._do(self._mset_steps(mapping, ttl, tags, broadcast))

    def add(
        self,
        key: K,
        value: V,
        ttl: Duration | None = UNSET,
        *,
        tags: Iterable[str] | None = None,
        broadcast: bool | None = None,
    ) -> bool:
        """
        Store only if the key is not known; of many that try at once, one succeeds.

        With Redis it is decided there, for all hosts.

        Args:
            key: The key.
            value: Its value.
            ttl: Its life, as set() takes it; without jitter.
            tags: As set() takes them.
            broadcast: Checked, and without effect: the other hosts always hear of it.

        Returns:
            True if it was not known.  With a *ttl* of 0 nothing is stored all the same.

        Raises:
            SerializationError: The value cannot be encoded, or is too large.
            BackendError: It could not be decided: the segment was busy, or Redis does not answer.
            TypeError, ValueError: The key, *ttl*, a tag or *broadcast* is wrong.

        Blocks for at most 20 ms, with Redis for at most ``redis_timeout``.
        """
        return self._do(self._add_steps(key, value, ttl, tags, broadcast))

    def touch(self, key: K, ttl: Duration | None = UNSET) -> bool:
        """
        Give a fresh value a new life, without jitter; it keeps its tags.

        With Redis it is decided there, for all hosts.

        Args:
            key: The key.
            ttl: The new life, as set() takes it; 0 forgets the value.

        Returns:
            Whether there was a fresh value.

        Raises:
            BackendError: It could not be done: the segment was busy, or Redis does not answer.
            TypeError, ValueError: The key or *ttl* is wrong.

        Blocks for at most 20 ms, with Redis for at most ``redis_timeout``.
        """
        return self._do(self._touching(key, ttl))

    @overload
    def incr(
        self, key: K, delta: int = 1, *, default: int = 0, ttl: Duration | None = UNSET
    ) -> int: ...
    @overload
    def incr(
        self, key: K, delta: int = 1, *, default: int | None, ttl: Duration | None = UNSET
    ) -> int | None: ...
    def incr(
        self,
        key: K,
        delta: int = 1,
        *,
        default: int | None = 0,
        ttl: Duration | None = UNSET,
    ) -> int | None:
        """
        Add to a stored int, atomically over all processes; with Redis over all hosts.

        A counter may be evicted like any other value: what must not be lost belongs elsewhere.

        Args:
            key: Key of the counter.
            delta: What to add; may be negative.
            default: What a missing counter starts from; None: it is not created.
            ttl: Life of a new counter, as set() takes it; a present one keeps its own.

        Returns:
            The new value; None if it is missing and *default* is None.

        Raises:
            TypeError: The stored value is no int, or an argument is of the wrong type.
            ValueError: The key or *ttl* is wrong.
            OverflowError: The result does not fit 64 bits.
            BackendError: It could not be done: the segment was busy, or Redis does not answer.

        Blocks for at most 20 ms, with Redis for at most ``redis_timeout``.
        """
        check_counter(delta, default)
        return self._do(self._incrementing("incr", key, delta, default, ttl))

    @overload
    def decr(
        self, key: K, delta: int = 1, *, default: int = 0, ttl: Duration | None = UNSET
    ) -> int: ...
    @overload
    def decr(
        self, key: K, delta: int = 1, *, default: int | None, ttl: Duration | None = UNSET
    ) -> int | None: ...
    def decr(
        self,
        key: K,
        delta: int = 1,
        *,
        default: int | None = 0,
        ttl: Duration | None = UNSET,
    ) -> int | None:
        """
        Subtract from a stored int; all the rest is as with incr().

        Raises:
            TypeError, ValueError, OverflowError, BackendError: As incr() does.
        """
        check_counter(delta, default)
        return self._do(self._incrementing("decr", key, -delta, default, ttl))

    # --- forgetting -----------------------------------------------------------------------------

    def delete(self, key: K, *, on_error: str = "queue") -> bool:
        """
        Forget a key, on this host at once, and tell whether it was there.

        Args:
            key: The key.
            on_error: What to do if Redis does not take it: "queue" (it is sent when Redis is back)
                or "raise" (the same, and the caller is told).

        Returns:
            Whether there was a value, fresh or stale, on this host or in Redis.

        Raises:
            BackendError: With "raise", and Redis did not take it; *queued* says that it will.
            TypeError, ValueError: The key or *on_error* is wrong.

        Never waits on this host; with Redis for at most ``redis_timeout``.
        """
        return self._do(self._deleting("del", [key], on_error=on_error)) > 0

    def mdelete(self, keys: Iterable[K], *, on_error: str = "queue") -> int:
        """
        Forget many keys, and tell how many of them were there.

        Args:
            keys: The keys; one that comes twice counts once.
            on_error: As delete() takes it.

        Raises:
            BackendError, TypeError, ValueError: As delete() does.

        Never waits on this host; with Redis for at most ``redis_timeout`` each 128 keys.
        """
        return self._do(self._deleting("mdel", self._distinct(keys), on_error=on_error))

    def expire(self, key: K, *, on_error: str = "queue") -> bool:
        """
        End the life of a value, keeping its stale copy for ``stale_ttl``.

        Args:
            key: The key.
            on_error: As delete() takes it.

        Returns:
            Whether the value was fresh.

        Raises:
            BackendError, TypeError, ValueError: As delete() does.

        Blocks for at most 20 ms, with Redis for at most ``redis_timeout``.
        """
        return self._do(self._expiring(key, on_error=on_error))

    def clear(self, *, on_error: str = "queue") -> None:
        """
        Forget the whole area at once, however large it is.

        Args:
            on_error: As delete() takes it.

        Raises:
            BackendError, ValueError: As delete() does.

        Never waits on this host; with Redis for at most ``redis_timeout``.
        """
        self._do(self._clearing(on_error=on_error))

    def delete_tags(self, *tags: str, on_error: str = "queue") -> None:
        """
        Forget every value of the area that carries one of these tags, their stale copies included.

        On this host at once and for all processes, however many values these are.  Not concerned
        are values that are stored after it, and loads that begin after it.

        Args:
            tags: As set() takes them, but as many as there are; without any nothing happens.
            on_error: As delete() takes it.

        Raises:
            BackendError: With "raise", and Redis did not take it; *queued* says that it will.
            TypeError, ValueError: A tag or *on_error* is wrong.

        Never waits on this host; with Redis for at most ``redis_timeout``.
        """
        self._do(self._forgetting_tags("delete_tags", tags, expire=False, on_error=on_error))

    def expire_tags(self, *tags: str, on_error: str = "queue") -> None:
        """
        End the lives of the values that carry one of these tags, keeping their stale copies.

        A stale copy stays usable until the end of its ``stale_ttl``, where staleness is allowed;
        values without a stale life are gone.

        Args:
            tags: As delete_tags() takes them.
            on_error: As delete() takes it.

        Raises:
            BackendError, TypeError, ValueError: As delete_tags() does.

        Never waits on this host; with Redis for at most ``redis_timeout``.
        """
        self._do(self._forgetting_tags("expire_tags", tags, expire=True, on_error=on_error))

    # --- steps ----------------------------------------------------------------------------------

    def _set(self, key: Any, value: Any, ttl: Any, options: dict[str, Any]) -> None:
        """What set() does when it is not plain; called by the native part."""
        for name in options:
            if name not in {"tags", "broadcast"}:
                raise TypeError(f"set() got an unexpected keyword argument {name!r}")
        tags, broadcast = options.get("tags"), options.get("broadcast")
        self._do(self._set_steps(key, value, ttl, tags, broadcast))

    def _set_steps(
        self, key: Any, value: Any, ttl: Any, tags: Iterable[str] | None, broadcast: bool | None
    ) -> Steps[bool]:
        since = self._begin()
        check_broadcast(broadcast)
        tagged = self._tags(tags)
        tiers = self._tiers
        lives = self._lives(value, ttl, tiers=tiers)
        item = key, self._encode("set", key, value, since), lives, tagged
        return (yield from self._setting("set", [item], since, tiers=tiers, broadcast=broadcast))

    def _mset_steps(
        self,
        mapping: Mapping[Any, Any],
        ttl: Any,
        tags: Iterable[str] | None,
        broadcast: bool | None,
    ) -> Steps[None]:
        since = self._begin()
        check_broadcast(broadcast)
        tagged = self._tags(tags)
        if not hasattr(mapping, "items"):
            raise TypeError(f"mset() takes a mapping, not {type(mapping).__name__}")
        tiers = self._tiers
        items: list[Item] = [
            (
                key,
                self._encode("mset", key, value, since),
                self._lives(value, ttl, tiers=tiers),
                tagged,
            )
            for key, value in mapping.items()
        ]
        if items:
            yield from self._setting("mset", items, since, tiers=tiers, broadcast=broadcast)
        else:
            oplog.succeeded(self._config.area, "mset", "ok", since)

    def _add_steps(
        self, key: Any, value: Any, ttl: Any, tags: Iterable[str] | None, broadcast: bool | None
    ) -> Steps[bool]:
        self._begin()
        check_broadcast(broadcast)
        return (yield from self._adding(key, value, ttl, self._tags(tags)))


# --- options ----------------------------------------------------------------------------------


def check_broadcast(broadcast: object) -> None:
    """Check what a write was told about other hosts."""
    if broadcast is not None and not isinstance(broadcast, bool):
        kind = type(broadcast).__name__
        raise TypeError(f"broadcast must be True, False or None, not {kind}")


def check_counter(delta: object, default: object) -> None:
    """Check what incr() and decr() are given."""
    _need_int("delta", delta)
    if default is not None:
        _need_int("default", default)


def _need_int(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, not {type(value).__name__}")
