"""
A first level of the application's own: where values lie is its affair, whether they count is not.

The area is bound to the segment all the same, as in REMOTE mode: nothing is stored there, but
flights, counters, outbox and generations are.  An entry carries, as its stamp, the generations of
its key and its area from before its load began (a set: as its own raise leaves them), and
the name of the segment that they belong to.  A read believes it only while they are still the same.
So whatever makes a value old (a delete, expire, set or clear by any process of the host, or by the
listener for another host) raises a number in the segment, and no entry that is older is served any
more, in whichever process it lies, also if nobody tells the application's object, and if that loses
a delete, answers with what it had a while ago, or outlives its process.  A fill needs nothing else:
what a delete has overtaken is dead when it is stored.

What that cannot give is refused, or less than in the segment, and said so in docs:

- add, touch and incr are decided on what is stored, by one step: where there is no second level
  that decides, they are a ConfigError;
- entries with tags die of any delete or expiry by tag, as the segment alone knows which;
- keys that share a generation die together.
"""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, Any, Final, NoReturn, Self

from accelerator import local, policy
from accelerator.backend import LocalEntry
from accelerator.binding import COUNTER, Binding
from accelerator.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from accelerator.backend import LocalBackend
    from accelerator.memory import Reading

_SET: Final = COUNTER["set"]
_VERSIONS: Final = 1 << 31

Token = tuple[int, int, int]


class OwnLocal(Binding):
    """What is different in an area whose values lie in an object of the application's."""

    @property
    def _own(self) -> LocalBackend:
        own: LocalBackend = self._config.local
        return own

    # --- reading ---

    def _read(
        self,
        key: Any,
        *,
        touch: bool = True,  # noqa: ARG002  what is kept is the object's affair
        stale: bool = False,
        within: float | None = None,
    ) -> Reading | None:
        if not self._mode.uses_local:
            return None  # by an override: what was stored before it waits for its end
        entry = self._entry(key)
        now = time.monotonic()
        if entry is None or (entry.gone_at is not None and now >= entry.gone_at):
            return None
        age = max(0.0, now - entry.loaded_at)
        left = None if entry.stale_at is None else entry.stale_at - now
        is_stale = (left is not None and left <= 0) or self._is_behind(age, within)
        if is_stale and not stale:
            return None
        decoded = self._decode(entry.code, entry.payload)
        if decoded is None:
            return None
        return decoded[0], entry.code, age, left, is_stale, entry.version

    def _entry(self, key: Any) -> LocalEntry | None:
        """What is stored under a key, if nothing has made it old."""
        token = self._token(key)  # before: what comes after it is not promised to be seen
        entry = self._own.get(self._wire(key))
        if entry is None or entry.stamp != self._stamp(token, tagged=len(entry.stamp) > 3):
            return None
        return entry

    def _stamp(self, token: Token, *, tagged: bool) -> tuple[Any, ...]:
        key, area, tags = token
        where = self._memory.origin + self._config.area.encode()
        return (where, key, area, tags) if tagged else (where, key, area)

    def _is_behind(self, age: float, within: float | None) -> bool:
        """Whether a value may be further behind other hosts than is allowed."""
        second = self._second
        if second is None:
            return False
        lag = self._freshness()
        lag = 0.0 if lag is None else lag
        limit = policy.shorter(within, self._config.max_staleness)
        if lag > second.bound:
            if self._config.on_desync == "bypass":
                return True
            if self._config.on_desync == "cap":
                limit = policy.shorter(limit, second.bound)
        return limit is not None and min(age, lag) > limit

    def _contains_miss(self, key: object) -> bool:
        if self._read(key) is not None:
            return True
        found: bool = super()._contains_miss(key)  # type: ignore[misc]
        return found

    # --- storing and forgetting ---

    def _store(  # noqa: PLR0917  as in the segment
        self,
        key: Any,
        code: int,
        payload: bytes,
        ttl: float | None,
        stale_ttl: float,
        mode: int = local.SET,
        token: Token | None = None,
        age: float = 0.0,
        *,
        note: int = 0,  # noqa: ARG002  an own set that is heard of makes the copy go
        tags: Sequence[bytes] = (),
    ) -> int:
        if mode == local.ADD:
            self._refuse("add")
        if mode == local.SET:
            token = self._raise(key)
        now = time.monotonic()
        stamp = self._stamp(token or self._token(key), tagged=bool(tags))
        stale_at = None if ttl is None else now + ttl
        gone_at = None if stale_at is None else stale_at + stale_ttl
        version = random.randrange(1, _VERSIONS)  # noqa: S311  no secret
        entry = LocalEntry(code, payload, now - age, stale_at, gone_at, version, stamp)
        self._own.set(self._wire(key), entry)
        self._count(_SET)
        return local.STORED

    def _raise(self, key: Any) -> Token:
        """
        Make worthless what others have of a key; the generations as this very raise leaves them.

        Two that store at the same moment are not to be believed both, each in its own process:
        where another raise came in between, what is stored with this token never counts.
        """
        count, area, tags = self._token(key)
        super()._delete(key)
        return _next(count), area, tags

    def _delete(self, key: Any) -> bool:
        found = self._read(key, stale=True) is not None
        super()._delete(key)  # this is the delete; the rest makes room
        self._own.delete(self._wire(key))
        return found

    def _expire(self, key: Any) -> bool:
        entry = self._entry(key)
        was_fresh = self._read(key) is not None
        super()._delete(key)
        now = time.monotonic()
        if entry is not None and entry.gone_at is not None and entry.gone_at > now:
            # Whatever has come since it was read makes it worthless, tags included.
            where, count, *rest = entry.stamp
            stamp = (where, _next(count), *rest)
            ended = entry._replace(stale_at=min(now, entry.stale_at or now), stamp=stamp)
            self._own.set(self._wire(key), ended)
        else:
            self._own.delete(self._wire(key))
        return was_fresh

    def _clear(self) -> None:
        super()._clear()
        self._own.clear()

    def _touch(self, *_: Any) -> int:
        self._refuse("touch")

    def _incr(self, *_: Any) -> int | None:
        self._refuse("incr")

    def _refuse(self, operation: str) -> NoReturn:
        raise ConfigError(
            f"{operation} must be decided in one step, which an area with local= can have done by "
            "a second level only: give one, or leave local out",
            setting="local",
            area=self._config.area,
            operation=operation,
        )

    # --- loads ---

    def _enter(self, key: Any, lease: float, mode: int = local.JOIN, waits: bool = True, /) -> Any:
        made = super()._enter(key, lease, mode, waits)
        if made is None or mode == local.LOCK or made.state != local.FLIGHT_LEADING:
            return made
        token = self._token(key)  # after the claim, and before the load
        if mode == local.JOIN and self._read(key) is not None:
            made.fail()  # somebody was faster; who waits finds it, too
            return None
        return OwnFlight(made, self, key, token)

    def _enter_alone(self, key: Any, lease: float, most: int | None) -> Any:
        made = super()._enter_alone(key, lease, most)
        return None if made is None else OwnFlight(made, self, key, self._token(key))


def _next(count: int) -> int:
    return (count + 1) & 0xFFFF_FFFF


class OwnFlight:
    """A flight whose value is stored in an object of the application's."""

    __slots__ = ("_area", "_began", "_flight", "_key", "_token")

    def __init__(self, flight: Any, area: OwnLocal, key: Any, token: Token) -> None:
        self._flight = flight
        self._area = area
        self._key = key
        self._token = token
        self._began = time.monotonic()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._flight, name)

    @property
    def tag(self) -> Any:
        """Python's own."""
        return self._flight.tag

    @tag.setter
    def tag(self, tag: Any) -> None:
        self._flight.tag = tag

    def finish(
        self,
        code: int,
        payload: bytes,
        ttl: float | None,
        stale_ttl: float,
        age: float | None = None,
        *,
        tags: Sequence[bytes] = (),
    ) -> int:
        """Store the value unless it is overtaken, and give it to those who joined."""
        status = local.NOT_STORED
        try:
            if not self._flight.overtaken:
                since = time.monotonic() - self._began if age is None else age
                status = self._area._store(
                    *(self._key, code, payload, ttl, stale_ttl, local.FILL, self._token, since),
                    tags=tags,
                )
        finally:
            self._flight.hand(code, payload, tags=tags)
        return status

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._flight.__exit__(kind, error, traceback)
