"""
What a write or a delete does, as steps: in the segment alone, or in Redis too.

How a change goes that concerns both tiers is in ``changing``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from accelerator import codec, local, policy, tags
from accelerator.changing import ExplicitChange
from accelerator.looking import Looking
from accelerator.observability import oplog

if TYPE_CHECKING:
    from collections.abc import Sequence

    from accelerator.binding import Tiers
    from accelerator.changing import Item
    from accelerator.policy import Lives
    from accelerator.steps import Steps


class Writing(Looking):
    """Each operation that changes something, as steps."""

    def _changing(self, op: str, since: float, tiers: Tiers | None = None) -> ExplicitChange | None:
        """Begin a change that Redis hears of, now or later; None: there is one tier only."""
        _, second, held = self._tiers if tiers is None else tiers
        if second is not None:
            return ExplicitChange(self, second, op, since)
        return None if held is None else ExplicitChange(self, held, op, since, is_held=True)

    # --- set ------------------------------------------------------------------------------------

    def _setting(
        self,
        op: str,
        items: Sequence[Item],
        since: float,
        *,
        tiers: Tiers,
        broadcast: bool | None = None,
    ) -> Steps[bool]:
        """Store; whether all of it is done, here and in Redis.  *tiers*: those of the lives."""
        change = self._changing(op, since, tiers)
        if change is not None:
            is_done = yield from change.setting(items, broadcast)
        else:
            stored = [
                self._put(op, key, encoded, lives, since, tagged=tagged)
                for key, encoded, lives, tagged in items
            ]
            is_done = all(stored)
        if is_done:
            oplog.succeeded(self._config.area, op, "ok", since)
        return is_done

    # --- forget ---------------------------------------------------------------------------------

    def _deleting(self, op: str, keys: Sequence[Any], *, on_error: str = "queue") -> Steps[int]:
        _check_on_error(on_error)
        since = self._begin()
        change = self._changing(op, since)
        if change is not None:
            found = yield from change.deleting(keys, on_error)
        elif len(keys) == 1:
            found = int(self._delete(keys[0]))
        else:
            found = sum(map(self._delete, keys))
        if keys:
            result = "ok" if op == "mdel" else "found" if found else "absent"
            self._forgot(op, result, since, change, keys)
        return found

    def _expiring(self, key: Any, *, on_error: str = "queue") -> Steps[bool]:
        _check_on_error(on_error)
        since = self._begin()
        change = self._changing("expire", since)
        if change is not None:
            found = yield from change.expiring(key, on_error)
        else:
            found = self._expire(key)
        self._forgot("expire", "found" if found else "absent", since, change, [key])
        return found

    def _clearing(self, *, on_error: str = "queue") -> Steps[None]:
        _check_on_error(on_error)
        since = self._begin()
        change = self._changing("clear", since)
        if change is not None:
            yield from change.clearing(on_error)
        else:
            self._clear()
        self._forgot("clear", "ok", since, change)

    def _forgetting_tags(
        self, op: str, given: tuple[str, ...], *, expire: bool, on_error: str = "queue"
    ) -> Steps[None]:
        """Forget every value that carries one of these tags, or end their lives."""
        _check_on_error(on_error)
        encoded = tags.encoded(given)
        since = self._begin()
        change = self._changing(op, since)
        if not encoded:
            pass
        elif change is not None:
            yield from change.tagging(encoded, on_error, expire=expire)
        elif expire:
            self._expire_tags(encoded)
        else:
            self._delete_tags(encoded)
        self._forgot(op, "ok", since, change)

    def _forgot(
        self,
        op: str,
        result: str,
        since: float,
        change: ExplicitChange | None,
        keys: Sequence[Any] = (),
    ) -> None:
        """Note what was forgotten on purpose; what Redis does not know yet has been noted."""
        if change is None or not change.is_queued:
            count = len(keys) or 1
            key_hash = self._hash(keys[0]) if keys and count == 1 else 0
            oplog.recorded(self._config.area, op, result, since, key_hash, count)

    # --- after a load ---------------------------------------------------------------------------

    def _telling(self, op: str, keys: Sequence[Any], since: float) -> Steps[None]:
        """Have other hosts forget what they have of keys of which Redis has new values."""
        change = self._changing(op, since)
        if change is not None:
            yield from change.telling(keys)

    # --- decided where the truth is -------------------------------------------------------------

    def _adding(self, key: Any, value: Any, ttl: Any, tagged: tuple[bytes, ...]) -> Steps[bool]:
        since = self._begin()
        tiers = self._tiers
        lives = self._lives(value, ttl, jitter=False, tiers=tiers)
        encoded = self._encode("add", key, value, since)
        change = self._changing("add", since, tiers)
        if change is not None:
            change.check_decidable()
        if encoded is None or lives == policy.NOWHERE:
            return (yield from self._finding(key)) is None
        if change is not None:
            return (yield from change.adding(key, encoded, lives.remote, tagged))
        life, stale_life = lives.local, self._config.stale_life
        status = self._store(key, *encoded, life, stale_life, local.ADD, tags=tagged)
        if status == local.NOT_STORED:
            return False
        if status == local.BUSY:
            raise self._busy("add", since)
        return self._judge("add", status, since)

    def _touching(self, key: Any, ttl: Any) -> Steps[bool]:
        since = self._begin()
        tiers = self._tiers
        found = self._read(key, touch=False)
        lives = self._lives(None if found is None else found[0], ttl, jitter=False, tiers=tiers)
        change = self._changing("touch", since, tiers)
        if change is not None:
            change.check_decidable()
            if lives.remote == 0:
                return (yield from self._deleting("touch", [key])) > 0
            return (yield from change.touching(key, lives.remote))
        if found is None:
            return False
        if lives.local == 0:
            self._delete(key)
            return True
        status = self._touch(key, lives.local, self._config.stale_life)
        if status == local.BUSY:
            raise self._busy("touch", since)
        return status == local.STORED

    def _incrementing(
        self, op: str, key: Any, delta: int, default: int | None, ttl: Any
    ) -> Steps[int | None]:
        since = self._begin()
        tiers = self._tiers
        lives = self._lives(delta, ttl, jitter=False, tiers=tiers)
        change = self._changing(op, since, tiers)
        is_kept = lives != policy.NOWHERE
        initial = default if is_kept else None
        if change is not None:
            change.check_decidable()
            life, own = lives.remote, self._own_tags
            value = yield from change.incrementing(key, delta, initial, life, own)
        else:
            value = self._increment_here(op, key, delta, initial, lives, since)
        if value is None and default is not None and not is_kept:
            return default + delta
        return value

    def _increment_here(  # noqa: PLR0917  called in one place
        self, op: str, key: Any, delta: int, initial: int | None, lives: Lives, since: float
    ) -> int | None:
        life, stale_life = lives.local or None, self._config.stale_life
        is_tagged = initial is not None and bool(self._own_tags)
        while True:
            try:
                value = self._incr(key, delta, None if is_tagged else initial, life, stale_life)
            except BlockingIOError as error:
                raise self._busy(op, since) from error
            if value is not None or initial is None or not is_tagged:
                return value
            if self._begin_counter(op, key, initial + delta, life, since):
                return initial + delta

    def _begin_counter(
        self, op: str, key: Any, value: int, life: float | None, since: float
    ) -> bool:
        """Store a counter that carries the area's tags; False: somebody else was faster."""
        encoded = codec.encode_raw(value)
        if encoded is None:
            raise OverflowError("the result does not fit 64 bits")
        status = self._store(
            key, *encoded, life, self._config.stale_life, local.ADD, tags=self._own_tags
        )
        if status == local.BUSY:
            raise self._busy(op, since)
        return status != local.NOT_STORED


def _check_on_error(on_error: str) -> None:
    if on_error not in {"queue", "raise"}:
        raise ValueError(f"on_error must be 'queue' or 'raise', not {on_error!r}")
