"""
What LevelCache needs of L1, whichever way it is made.

The native part and its twin in process memory both keep to these protocols; the type checker
compares them in ``local.py``, and the conformance tests run over both.
"""

from __future__ import annotations

from typing import Any, Protocol

Reading = tuple[Any, int, float, float | None, bool, int]
"""Object, code, age, ttl (None: no expiry; negative once it is stale), whether stale, version."""


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

    def stats(self) -> dict[str, Any]:
        """Everything there is to see: segment, areas, processes."""

    def check(self) -> list[str]:
        """Violated invariants; empty when sound."""

    def set_clock_shift(self, seconds: float, /) -> None:
        """Tests: move this process's clock."""


class LocalBackend(Protocol):
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
        token: tuple[int, int] | None = ...,
    ) -> int:
        """Store a payload: always, if absent, or if no delete overtook *token*."""

    def _token(self, key: Any) -> tuple[int, int]:
        """What a fill must still find unchanged."""

    def _read(self, key: Any, *, touch: bool = ..., stale: bool = ...) -> Reading | None:
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

    def _count(self, counter: int, n: int = ...) -> None:
        """Add to a counter."""

    def _counters(self) -> dict[str, int]:
        """Sums over all processes."""
