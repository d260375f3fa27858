"""What Redis has of a key, and what that is worth: reads of the second level, step by step."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from accelerator import policy
from accelerator.backend import TAG_TYPE
from accelerator.binding import COUNTER, Binding
from accelerator.errors import BackendError, SerializationError
from accelerator.observability import oplog

if TYPE_CHECKING:
    from collections.abc import Sequence

    from accelerator.config import AreaConfig
    from accelerator.memory import Reading
    from accelerator.remote import Stored
    from accelerator.second import RemoteArea
    from accelerator.steps import Steps

_REMOTE_HIT: Final = COUNTER["remote_hit"]
_REMOTE_MISS: Final = COUNTER["remote_miss"]
_NEGATIVE_HIT: Final = COUNTER["negative_hit"]
_SKIPPED: Final = COUNTER["l2_skipped"]
_UNDECODABLE: Final = COUNTER["l2_undecodable"]

FROM_REMOTE: Final = -1
"""Version in a Reading of what was found in Redis."""


class Copy(NamedTuple):
    """A value as Redis has it."""

    confirmed: float
    """When Redis was last known to do as it is told, before it was asked (time.monotonic())."""
    value: Any
    code: int
    payload: bytes
    age: float
    """Seconds since its load began, on whichever host."""
    left: float | None
    """Seconds that it is still fresh; not above 0: it is stale; None: it does not expire."""
    stale_left: float
    """Seconds that it is usable as stale after that."""
    tags: tuple[bytes, ...] = ()
    """Encoded; none of them was deleted after its load had begun, as far as Redis knew."""

    @property
    def is_fresh(self) -> bool:
        """Whether it is still within its life."""
        return self.left is None or self.left > 0

    def lives_here(self, config: AreaConfig) -> tuple[float | None, float, float]:
        """
        Life, stale life and age in the segment, in seconds; to be asked for just before storing.

        It lives no longer here than there.  It is as current as the last word of Redis before it
        was asked, not as this very moment, nor as what Redis has said meanwhile: else a copy that
        was fetched while Redis hung, or whose reader was held up, would outlive the bound.
        """
        configured = config.null_ttl if self.value is None else config.local_ttl
        life = policy.shorter(policy.jittered(configured, config.ttl_jitter_ratio), self.left)
        behind = time.monotonic() - self.confirmed
        return life, min(config.stale_life, self.stale_left), max(self.age, behind)

    def reading(self) -> Reading:
        """The same as a read of the segment would tell it."""
        return self.value, self.code, self.age, self.left, not self.is_fresh, FROM_REMOTE


class Looking(Binding):
    """Reads of Redis."""

    def _fetched(
        self, keys: Sequence[Any], within: float | None = None, *, counted: bool = True
    ) -> Steps[list[Copy | None]]:
        """
        What Redis has of *keys*; nothing if it must not be believed, or does not answer.

        Args:
            keys: No two are equal.
            within: Seconds that the answers may be behind the source of truth, if that is less
                than what the area allows; None: that.
            counted: They are reads of the application's.
        """
        second = self._second
        nothing: list[Copy | None] = [None] * len(keys)
        limit = policy.shorter(within, self._config.max_staleness)
        if second is None or (limit is not None and second.confirmed_age() > limit):
            return nothing
        since = oplog.started()
        encoded = [self._wire(key) for key in keys]
        # Finite also if Redis has said nothing yet.
        confirmed = time.monotonic() - min(second.confirmed_age(), 2 * second.bound)
        unsent = second.unsent()  # before Redis is asked
        if unsent is None or not unsent.isdisjoint(encoded):
            self._count(_SKIPPED)
        if unsent is None or unsent.issuperset(encoded):
            return nothing
        try:
            found: list[Stored | None] = yield second.getting(encoded)
        except BackendError as error:
            oplog.failed(self._config.area, "get", error.kind, since)
            if self._propagates:
                raise
            return nothing
        copies = [
            None if one is None or key in unsent else self._opened(second, one, confirmed)
            for key, one in zip(encoded, found, strict=True)
        ]
        if unsent:
            copies = [self._unless_queued(copy, unsent) for copy in copies]
        if counted:
            fresh = [copy for copy in copies if copy is not None and copy.is_fresh]
            self._count(_REMOTE_HIT, len(fresh))
            self._count(_REMOTE_MISS, len(copies) - len(fresh))
            self._count(_NEGATIVE_HIT, sum(copy.value is None for copy in fresh))
        return copies

    def _opened(self, second: RemoteArea, stored: Stored, confirmed: float) -> Copy | None:
        """Decode a copy; None if it cannot be, which is counted: the next load replaces it."""
        try:
            opened = second.opened(stored)
            value, _ = self._codec.decode(opened.code, opened.payload)
        except SerializationError:
            self._count(_UNDECODABLE)
            oplog.failed(self._config.area, "get", SerializationError.kind, oplog.started())
            return None
        age = max(0.0, time.time() - opened.loaded_at)
        left = opened.fresh_left(stored.left)
        return Copy(
            *(confirmed, value, opened.code, opened.payload),
            *(age, left, opened.stale, opened.tags),
        )

    def _unless_queued(self, copy: Copy | None, unsent: frozenset[bytes]) -> Copy | None:
        """Give a copy unless Redis does not know yet that one of its tags was deleted."""
        if copy is None or unsent.isdisjoint(TAG_TYPE + tag for tag in copy.tags):
            return copy
        self._count(_SKIPPED)
        return None

    def _forget_again(self, keys: Sequence[Any]) -> None:
        """Drop what was fetched from Redis before it knew of a change."""
        self._memory.invalidate(self._config.area, [self._wire(key) for key in keys])

    def _finding(self, key: Any) -> Steps[Reading | None]:
        """Look for a fresh value in both tiers, without moving or counting it as a read."""
        found = self._read(key, touch=False)
        if found is None and self._second is not None:
            [copy] = yield from self._fetched([key], counted=False)
            if copy is not None and copy.is_fresh:
                found = copy.reading()
        return found
