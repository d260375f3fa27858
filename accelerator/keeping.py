"""
What becomes of a value that a leader has got from Redis or the loader: who keeps it, and how long.

Where values lie in the segment, the flight ends there first, so that whoever waits goes on while
Redis is told.  Where they lie in Redis only, it ends when they do: else the next reader, who finds
neither flight nor value, would load again.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from accelerator import flight, local
from accelerator.binding import COUNTER
from accelerator.errors import BackendError, SerializationError
from accelerator.joining import STALE_FALLBACK, Joining, Wanted
from accelerator.observability import oplog
from accelerator.steps import Ask

if TYPE_CHECKING:
    from collections.abc import Sequence

    from accelerator.looking import Copy
    from accelerator.policy import Lives
    from accelerator.remote import Fill
    from accelerator.steps import Steps

_LEASE_LOST: Final = COUNTER["load_lease_lost"]
_FILL_REFUSED: Final = COUNTER["l2_fill_refused"]


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
            self._finish(one, copy.code, copy.payload, *self.cache._lives_of_copy(copy))
        else:
            one.flight.hand(copy.code, copy.payload)
        if one.found is None:
            one.found = copy.reading()

    def leasing(self, group: Sequence[Wanted]) -> Steps[None]:
        """Begin to load: Redis is to note it, and a delete takes the note away."""
        for one in group:
            one.asked = time.monotonic()
        second = self.cache._second
        if second is None:
            return
        keys = [local.encode_key(one.key) for one in group]
        try:
            leases = yield Ask("lease", (self.config.area, keys, self.config.lease))
        except BackendError:  # counted; then what is loaded is not stored there
            return
        for one, lease in zip(group, leases, strict=True):
            one.lease = lease

    # --- after the loader -----------------------------------------------------------------------

    def keeping(
        self, loaded: Sequence[tuple[Wanted, Any, tuple[Any, ...], bool]], *, late: bool
    ) -> Steps[None]:
        """
        Store what was loaded, or give it to those who wait.

        Args:
            loaded: Key, value, its life if the loader or the call says one, and whether the loader
                said that it is not to be stored.
            late: The loader took too long: a stale value is the caller's answer, if there is one.
        """
        fills: list[tuple[Wanted, Fill]] = []
        dropped: list[Any] = []
        for one, value, life, skips in loaded:
            lives = self.cache._lives(value, *life)
            old = self.stale(one) if late and self.stale_ok and one.is_pending else None
            try:
                code, payload = self.cache._encoded(self.op, value, self.since)
            except SerializationError as error:
                one.flight.decline()
                kind = type(value).__qualname__
                self.cache._tell(f"load {kind}", "what a loader returned is not cached: %s", error)
            else:
                if skips:
                    one.flight.hand(code, payload)
                elif lives.local == lives.remote == 0:
                    if not one.flight.overtaken:
                        dropped.append(one.key)
                    one.flight.hand(code, payload)
                else:
                    fills += self._keep(one, value, code, payload, lives)
            self._answer(one, value, lives, old)
        yield from self._fill(fills)
        if dropped and not self.cache._is_off:
            yield from self.cache._deleting("del", dropped)

    def _answer(self, one: Wanted, value: Any, lives: Lives, old: Any) -> None:
        if old is not None and old[4]:
            self.cache._count(STALE_FALLBACK)
            one.found = old
        elif one.found is None:
            life = lives.local if self.cache._mode.uses_local else lives.remote
            one.found = (value, 0, 0.0, life, False, 0)

    def _keep(
        self, one: Wanted, value: Any, code: int, payload: bytes, lives: Lives
    ) -> list[tuple[Wanted, Fill]]:
        """Store in memory, and give what is to be stored in Redis."""
        stale_life = 0.0 if value is None else self.config.stale_life
        fills: list[tuple[Wanted, Fill]] = []
        second = self.cache._second
        if second is not None and one.lease is not None and not one.flight.overtaken:
            age = time.monotonic() - one.asked
            fill = second.fill(self.config, one.key, one.lease, (code, payload), lives.remote, age)
            fills.append((one, fill))
        if self.cache._mode.uses_local:
            self._finish(one, code, payload, lives.local, stale_life)
        elif not fills:
            one.flight.hand(code, payload)
        else:
            one.payload = code, payload
        return fills

    def _finish(  # noqa: PLR0917  called in two places
        self,
        one: Wanted,
        code: int,
        payload: bytes,
        life: float | None,
        stale_life: float,
        age: float | None = None,
    ) -> None:
        led = one.flight
        status = led.finish(code, payload, life, stale_life, age)
        if status == local.TOO_LARGE:
            self.cache._tell_size()
        elif status == local.NOT_STORED and led.recorded and not self.cache._is_off:
            self.cache._count(_LEASE_LOST)

    def _fill(self, fills: list[tuple[Wanted, Fill]]) -> Steps[None]:
        """Store in Redis what no delete has overtaken there."""
        if not fills:
            return
        stored: list[bool] = []
        try:
            stored = yield Ask("fill", (self.config.area, [fill for _, fill in fills]))
        except BackendError as error:
            oplog.failed(self.config.area, self.op, error.kind, self.since)
        finally:
            for one, _ in fills:
                if one.payload is not None:
                    one.flight.hand(*one.payload)
        if self.enough is None:  # refresh(): whoever calls it wants the new value seen
            kept = [one.key for (one, _), done in zip(fills, stored, strict=False) if done]
            yield from self.cache._telling(self.op, kept, self.since)
        refused = [one.key for (one, _), kept in zip(fills, stored, strict=False) if not kept]
        if refused:
            # A delete has come, or another host was faster: what is there now is the truth.
            self.cache._count(_FILL_REFUSED, len(refused))
            self.cache._forget_again(refused)
