"""
What becomes of a value that a leader has got from Redis or the loader: who keeps it, and how long.

Where values lie in the segment, the flight ends there first, so that whoever waits goes on while
Redis is told.  Where they lie in Redis only, it ends when they do: else the next reader, who finds
neither flight nor value, would load again.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from accelerator import flight, local, policy
from accelerator.binding import COUNTER
from accelerator.codec import CODE_NULL
from accelerator.errors import BackendError, SerializationError
from accelerator.joining import STALE_FALLBACK, Joining, Wanted
from accelerator.observability import oplog

if TYPE_CHECKING:
    from collections.abc import Sequence

    from accelerator.looking import Copy
    from accelerator.memory import Reading
    from accelerator.policy import Lives
    from accelerator.remote import Fill
    from accelerator.steps import Steps

_LEASE_LOST: Final = COUNTER["load_lease_lost"]
_FILL_REFUSED: Final = COUNTER["l2_fill_refused"]


class Loaded(NamedTuple):
    """What a loader has answered for one key."""

    wanted: Wanted
    value: Any
    life: tuple[Any, ...]
    """Its life, if the loader or the call says one."""
    skips: bool
    """The loader said that it is not to be stored."""
    tags: tuple[bytes, ...] | None
    """All of its tags, encoded; None: they are wrong, and it is not to be stored."""


class Keeping(Joining):
    """The two tiers behind what one call leads."""

    enough: float | None
    """A copy that Redis has will do if it is fresh for longer than this; None: no copy will."""

    # --- Redis before the loader ----------------------------------------------------------------

    def looks_first(self, pending: Sequence[Wanted]) -> bool:
        """Whether Redis is asked for all keys at once, though the loader is for one at a time."""
        if self.cache._second is None or self.enough is None or len(pending) < 2:
            return False
        return not all(one.looked for one in pending)

    def looking_first(self, pending: Sequence[Wanted]) -> Steps[None]:
        """
        Enter the flights of many keys, and answer from Redis what it knows.

        What a loader is asked for one by one is not led meanwhile: somebody else may be faster.
        """
        for one in pending:
            self.enter(one)
        left = yield from self.fetching([one for one in pending if one.is_led])
        for one in left if not self.is_batch else ():
            flight.end(one.flight)
            one.flight = None

    def fetching(self, group: Sequence[Wanted]) -> Steps[list[Wanted]]:
        """Answer from Redis what it knows, and end those flights; what is left."""
        asked = [one for one in group if not one.looked]
        if self.enough is None or self.cache._second is None or not asked:
            return list(group)
        limit = self.options.max_staleness
        copies = yield from self.cache._fetched([one.key for one in asked], limit)
        for one, copy in zip(asked, copies, strict=True):
            one.looked = True
            if copy is None:
                continue
            if copy.left is None or copy.left > self.enough:
                self._keep_copy(one, copy)
            else:
                one.copy = copy.reading()
        return [one for one in group if one.is_led]

    def _keep_copy(self, one: Wanted, copy: Copy) -> None:
        """End a flight with what Redis has, which must not live longer here than there."""
        if self.cache._mode.uses_local:
            encoded = copy.code, copy.payload
            self._finish(one, encoded, *copy.lives_here(self.config), tags=copy.tags)
        else:
            one.flight.hand(copy.code, copy.payload, tags=copy.tags)
        if one.found is None:
            one.found = copy.reading()

    def leasing(self, group: Sequence[Wanted]) -> Steps[None]:
        """Begin to load: Redis is to note it, and a delete takes the note away."""
        for one in group:
            one.asked = time.monotonic()
        second = self.cache._second
        if second is None:
            return
        keys = [self.cache._wire(one.key) for one in group]
        try:
            leases = yield second.leasing(keys, self.config.lease)
        except BackendError as error:  # counted; then what is loaded is not stored there
            self.unkept = error
            return
        for one, lease in zip(group, leases, strict=True):
            one.lease = lease

    # --- after the loader -----------------------------------------------------------------------

    def keeping(self, loaded: Sequence[Loaded], *, late: bool) -> Steps[None]:
        """
        Store what was loaded, or give it to those who wait.

        Args:
            loaded: What the loader has answered.
            late: It took too long: a stale value is the caller's answer, if there is one.
        """
        fills: list[tuple[Wanted, Fill]] = []
        dropped: list[Any] = []
        for each in loaded:
            one = each.wanted
            lives = self.cache._lives(each.value, *each.life)
            # Before the new value takes its place.
            old = self.stale(one) if late and self.stale_ok and one.is_pending else None
            encoded = self._encoded(each.value)
            if encoded is None:
                one.flight.decline()
            elif each.tags is None:
                one.flight.decline()  # nobody could tell whether one of its tags was deleted
            elif each.skips:
                one.flight.hand(*encoded, tags=each.tags)
            elif lives == policy.NOWHERE:
                if not one.flight.overtaken:
                    dropped.append(one.key)
                one.flight.hand(*encoded, tags=each.tags)
            else:
                one.tags = each.tags
                fill = self._filling(one, encoded, lives)
                self._keep(one, encoded, lives, in_redis=fill is not None)
                fills += [] if fill is None else [(one, fill)]
            self._answer(one, each.value, lives, old)
        if fills:
            yield from self._fill(fills)
        if dropped and not self.cache._is_off:
            yield from self.cache._deleting("del", dropped)

    def _encoded(self, value: Any) -> tuple[int, bytes] | None:
        """Code and payload of what a loader returned; None: it cannot be cached."""
        try:
            return self.cache._encoded(self.op, value, self.since)
        except SerializationError as error:
            self.unkept = error
            kind = type(value).__qualname__
            self.cache._tell(f"load {kind}", "what a loader returned is not cached: %s", error)
            return None

    def _answer(self, one: Wanted, value: Any, lives: Lives, old: Reading | None) -> None:
        if old is not None and old[4]:
            self.cache._count(STALE_FALLBACK)
            one.found = old
        elif one.found is None:
            life = lives.remote if lives.local == 0 else lives.local
            one.found = (value, 0, 0.0, life, False, 0)

    def _filling(self, one: Wanted, encoded: tuple[int, bytes], lives: Lives) -> Fill | None:
        """What is to be stored in Redis; None: nothing."""
        second = self.cache._second
        if second is None or one.lease is None or lives.remote == 0 or one.flight.overtaken:
            return None
        age = time.monotonic() - one.asked
        key = self.cache._wire(one.key)
        return second.fill(key, one.lease, encoded, lives.remote, age, tags=one.tags)

    def _keep(
        self, one: Wanted, encoded: tuple[int, bytes], lives: Lives, *, in_redis: bool
    ) -> None:
        """Store in the segment, where values lie there, and let those go on who wait."""
        # Not by the mode of this moment: an override may have come since the lives were told.
        if lives.local != 0:
            stale_life = 0.0 if encoded[0] == CODE_NULL else self.config.stale_life
            self._finish(one, encoded, lives.local, stale_life, tags=one.tags)
        elif in_redis:
            one.payload = encoded  # handed over when it is there: see the top
        else:
            one.flight.hand(*encoded, tags=one.tags)

    def _finish(
        self,
        one: Wanted,
        encoded: tuple[int, bytes],
        life: float | None,
        stale_life: float,
        age: float | None = None,
        *,
        tags: tuple[bytes, ...] = (),
    ) -> None:
        """End a flight with a value that is stored; *age* None: it is as old as the flight."""
        led = one.flight
        status = led.finish(*encoded, life, stale_life, age, tags=tags)
        if status == local.TOO_LARGE:
            self.cache._tell_size()
        elif status == local.NOT_STORED and led.recorded and not self.cache._is_off:
            self.cache._count(_LEASE_LOST)

    def _fill(self, fills: Sequence[tuple[Wanted, Fill]]) -> Steps[None]:
        """Store in Redis what no delete has overtaken there."""
        second = self.cache._second
        assert second is not None, "there are fills"
        try:
            stored = yield second.filling([fill for _, fill in fills])
        except BackendError as error:
            self.unkept = error
            oplog.failed(self.config.area, self.op, error.kind, self.since)
            return
        finally:
            for one, _ in fills:
                if one.payload is not None:
                    one.flight.hand(*one.payload, tags=one.tags)
        kept = [one.key for (one, _), done in zip(fills, stored, strict=True) if done]
        refused = [one.key for (one, _), done in zip(fills, stored, strict=True) if not done]
        if self.enough is None:  # refresh(): whoever calls it wants the new value seen
            yield from self.cache._telling(self.op, kept, self.since)
        if refused:
            # A delete has come, or another host was faster: what is there now is the truth.
            self.cache._count(_FILL_REFUSED, len(refused))
            self.cache._forget_again(refused)
