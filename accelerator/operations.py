"""
What LevelCache writes and forgets: each operation for callers that block.

How it goes, step by step, is in ``writing``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from accelerator.errors import ConfigError
from accelerator.local import UNSET
from accelerator.observability import oplog
from accelerator.writing import Writing

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from accelerator.changing import Item
    from accelerator.steps import Steps


class Operations(Writing):
    """What LevelCache writes and forgets."""

    # --- writing --------------------------------------------------------------------------------

    def mset(self, mapping: Mapping[Any, Any], ttl: Any = UNSET, **options: Any) -> None:
        """
        Store many keys.  What cannot be stored is found before the first one is.

        Raises:
            SerializationError: A value cannot be encoded, or is too large.
            TypeError, ValueError: A key, or *ttl*.
        """
        self._do(self._mset_steps(mapping, ttl, options))

    def add(self, key: Any, value: Any, ttl: Any = UNSET, **options: Any) -> bool:
        """
        Store only if the key is not known; of many that try at once, one succeeds.

        With Redis it is decided there, for all hosts.

        Returns:
            True if it was not known.  With a *ttl* of 0 nothing is stored all the same.

        Raises:
            SerializationError: The value cannot be encoded, or is too large.
            BackendError: It could not be decided: the segment was busy, or Redis does not answer.
        """
        broadcast_of("add", options)
        return self._do(self._adding(key, value, ttl))

    def touch(self, key: Any, ttl: Any = UNSET) -> bool:
        """
        Give a fresh value a new life, without jitter; a *ttl* of 0 ends it.

        With Redis it is decided there, for all hosts.

        Returns:
            Whether there was a fresh value.

        Raises:
            BackendError: It could not be done: the segment was busy, or Redis does not answer.
        """
        return self._do(self._touching(key, ttl))

    def incr(
        self, key: Any, delta: int = 1, *, default: int | None = 0, ttl: Any = UNSET
    ) -> int | None:
        """
        Add to a stored int, atomically over all processes; with Redis over all hosts.

        A counter may be evicted like any other value: what must not be lost belongs elsewhere.

        Args:
            key: Key of the counter.
            delta: What to add; may be negative.
            default: What a missing counter starts from; None: it is not created.
            ttl: Life of a new counter; a present one keeps its own.

        Returns:
            The new value; None if it is missing and *default* is None.

        Raises:
            TypeError: The stored value is no int.
            OverflowError: The result does not fit 64 bits.
            BackendError: It could not be done: the segment was busy, or Redis does not answer.
        """
        check_counter(delta, default)
        return self._do(self._incrementing("incr", key, delta, default, ttl))

    def decr(
        self, key: Any, delta: int = 1, *, default: int | None = 0, ttl: Any = UNSET
    ) -> int | None:
        """Subtract from a stored int; see incr()."""
        check_counter(delta, default)
        return self._do(self._incrementing("decr", key, -delta, default, ttl))

    # --- forgetting -----------------------------------------------------------------------------

    def delete(self, key: Any, *, on_error: str = "queue") -> bool:
        """
        Forget a key, on this host at once, and tell whether it was there.

        Args:
            key: The key.
            on_error: What to do if Redis does not take it: "queue" (it is sent when Redis is back)
                or "raise" (the same, and the caller is told).

        Raises:
            BackendError: With "raise", and Redis did not take it; *queued* says that it will.
        """
        return self._do(self._deleting("del", [key], on_error=on_error)) > 0

    def mdelete(self, keys: Iterable[Any], *, on_error: str = "queue") -> int:
        """Forget many keys, see delete(); tell how many of them were there."""
        return self._do(self._deleting("mdel", self._distinct(keys), on_error=on_error))

    def expire(self, key: Any, *, on_error: str = "queue") -> bool:
        """End the life of a value, keeping its stale copy; whether it was fresh.  See delete()."""
        return self._do(self._expiring(key, on_error=on_error))

    def clear(self, *, on_error: str = "queue") -> None:
        """Forget the whole area at once, however large it is; see delete()."""
        self._do(self._clearing(on_error=on_error))

    # --- steps ----------------------------------------------------------------------------------

    def _set(self, key: Any, value: Any, ttl: Any, options: dict[str, Any]) -> None:
        """What set() does when it is not plain; called by the native part."""
        self._do(self._set_steps(key, value, ttl, options))

    def _set_steps(self, key: Any, value: Any, ttl: Any, options: dict[str, Any]) -> Steps[bool]:
        since = self._begin()
        broadcast = broadcast_of("set", options)
        item = key, self._encode("set", key, value, since), self._lives(value, ttl)
        return (yield from self._setting("set", [item], since, broadcast=broadcast))

    def _mset_steps(
        self, mapping: Mapping[Any, Any], ttl: Any, options: dict[str, Any]
    ) -> Steps[None]:
        since = self._begin()
        broadcast = broadcast_of("mset", options)
        if not hasattr(mapping, "items"):
            raise TypeError(f"mset() takes a mapping, not {type(mapping).__name__}")
        items: list[Item] = [
            (key, self._encode("mset", key, value, since), self._lives(value, ttl))
            for key, value in mapping.items()
        ]
        if items:
            yield from self._setting("mset", items, since, broadcast=broadcast)
        else:
            oplog.succeeded(self._config.area, "mset", "ok", since)


# --- options ----------------------------------------------------------------------------------


def broadcast_of(op: str, options: Mapping[str, Any]) -> bool | None:
    """Check the keywords of a write that are neither value nor life."""
    for name in options:
        if name == "tags":
            raise ConfigError(
                "tags are not supported by this version of accelerator: leave them out",
                setting="tags",
                operation=op,
            )
        if name != "broadcast":
            raise TypeError(f"{op}() got an unexpected keyword argument {name!r}")
    broadcast = options.get("broadcast")
    if broadcast is not None and not isinstance(broadcast, bool):
        kind = type(broadcast).__name__
        raise TypeError(f"broadcast must be True, False or None, not {kind}")
    return broadcast


def check_counter(delta: object, default: object) -> None:
    """Check what incr() and decr() are given."""
    _need_int("delta", delta)
    if default is not None:
        _need_int("default", default)


def _need_int(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, not {type(value).__name__}")
