"""
The second level of this process, and of one area: Redis, what guards its callers, who listens.

One of this process per attachment.  Nothing is connected, and no thread starts, before an area uses
it.
"""

from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, cast

from accelerator import local, message, remote
from accelerator.backend import TAG_TYPE
from accelerator.breaker import Guard
from accelerator.codec import CODE_NULL
from accelerator.errors import SerializationError
from accelerator.invalidation import Listener
from accelerator.observability import diagnostics, events
from accelerator.remote import Change, EnvelopeError, Fill, Written
from accelerator.steps import Ask

if TYPE_CHECKING:
    from collections.abc import Sequence

    from accelerator.breaker import Guarded
    from accelerator.config import AreaConfig, Settings
    from accelerator.observability.diagnostics import AreaRemoteSnapshot, RemoteSnapshot
    from accelerator.remote import Envelope, Lease, Opened, Stored


LISTENER_TIMEOUT: Final = 0.2
"""Longest ``redis_timeout`` of the listener, in seconds: one that waits longer is replaced."""


class SecondLevel:
    """
    Redis, for the areas of one memory.

    Args:
        memory: Where this host knows its state.
        settings: Of the process; *redis* or *remote* is given.
    """

    def __init__(self, memory: local.Segment, settings: Settings) -> None:
        self.bound = settings.freshness_bound
        """Seconds that a change on another host may take to be seen here."""
        self._memory = memory
        self._remote = remote.open(settings)
        self._guard = Guard(memory, self.bound, self._remote.title)
        # With connections of its own, as it is in a thread of its own.
        limit = min(settings.redis_timeout, LISTENER_TIMEOUT)
        self._listener = Listener(
            memory, remote.open(replace(settings, redis_timeout=limit)), settings
        )

    @property
    def origin(self) -> bytes:
        """Name of this host's memory in messages."""
        return self._memory.origin

    def area(self, config: AreaConfig) -> RemoteArea:
        """Give what an area is in it."""
        return RemoteArea(self, config)

    def start(self) -> None:
        """Take part in listening for this host, from the first area on that uses Redis."""
        self._listener.start()

    def stop(self) -> None:
        """Leave listening to others at once, and close this process's connections."""
        self._listener.stop()
        self._remote.close()

    def confirmed_age(self) -> float:
        """Seconds since Redis last did what this host asked it for, whatever asked."""
        return self._memory.confirmed_age()

    # --- asking ---------------------------------------------------------------------------------

    def ask(self, area: local.AreaBase, name: str, wanted: Ask) -> Any:
        """
        Ask Redis, in the caller's thread.

        Raises:
            RemoteError: It is away, or refuses.
        """
        self._listener.start()  # a forked child has none yet
        self._check_decidable(area, name, wanted)
        with self._guarded(area, name, wanted):
            method = getattr(self._remote, wanted.method)
            return _result(method(*wanted.arguments, **wanted.keywords))

    async def aask(self, area: local.AreaBase, name: str, wanted: Ask) -> Any:
        """Ask Redis, in the caller's task; see ask()."""
        self._listener.start()
        self._check_decidable(area, name, wanted)
        with self._guarded(area, name, wanted):
            method = getattr(self._remote.for_loop(), wanted.method)
            return _result(await method(*wanted.arguments, **wanted.keywords))

    def _guarded(self, area: local.AreaBase, name: str, wanted: Ask) -> Guarded:
        return self._guard.call(
            area, name, wanted.method, reading=wanted.reading, counts_as=wanted.counts_as
        )

    def unsent(self, area: str) -> frozenset[bytes] | None:
        """
        Give the encoded keys whose change Redis has not heard of yet; None: it may be any of them.

        It may be well and have missed a single delete.  What it has of that key is what the delete
        was about: no reader on this host must be given that any more, and what is decided on it
        would be undone by the delete, told later.  The delete was queued before it returned, so
        whoever asks after that is told so, or, when it is no longer queued, is answered from after
        it.
        """
        if self.bound < self._memory.confirmed_age() < math.inf:
            return frozenset()  # it is not asked then anyway, and the outbox may be long
        return self._memory.outbox_unsent(area)

    def _check_decidable(self, area: local.AreaBase, name: str, wanted: Ask) -> None:
        """
        Let Redis decide about a key only when it knows what this host has done to it.

        Raises:
            RemoteError: A change of the key is queued.
        """
        if wanted.decides_about is None:
            return
        # However long nothing was heard of it: it may be back, and asked, before anything is sent.
        unsent = self._memory.outbox_unsent(name)
        # Nobody here knows which tags the value there has: it may be any that was deleted.
        if unsent is None or wanted.decides_about in unsent or _has_tags(unsent):
            why = "as it has not yet been told of an earlier change of the key, or of a tag"
            raise self._guard.skipped(area, name, wanted.method, why)

    # --- for an operator ------------------------------------------------------------------------

    def describe(self) -> RemoteSnapshot:
        """Where Redis is, whether it answers, who listens."""
        known = diagnostics.link(self._memory.link(), self._memory.leader())
        confirmed = known["confirmed_age"]
        shown = {
            **self._remote.describe(),  # first: what it calls its own must not hide the rest
            **known,
            "ready": confirmed is not None and confirmed <= self.bound,
            "bound": self.bound,
            "last_error": self._guard.last_error() or events.last_error(self._memory.events()),
        }
        return cast("RemoteSnapshot", shown)

    def channel(self, area: str) -> str:
        """Name the channel on which an area's invalidations are told."""
        return self._remote.channel(area)


class RemoteArea:
    """
    What one area is in Redis: how its values look there, and how its changes are asked for.

    Args:
        second: The second level of this process.
        config: Of the area.
    """

    def __init__(self, second: SecondLevel, config: AreaConfig) -> None:
        self._second = second
        self._config = config
        self.bound = second.bound
        self.fingerprint = remote.fingerprint_of(config.version)
        """What says how the area's values look."""
        self._version = {"fingerprint": self.fingerprint}

    @property
    def origin(self) -> bytes:
        """Name of this host's memory in messages."""
        return self._second.origin

    def start(self) -> None:
        """Take part in listening for this host; see SecondLevel.start()."""
        self._second.start()

    def confirmed_age(self) -> float:
        """Seconds since Redis last did what this host asked it for; see SecondLevel."""
        return self._second.confirmed_age()

    def unsent(self) -> frozenset[bytes] | None:
        """Give the keys whose change Redis has not heard of yet; see SecondLevel."""
        return self._second.unsent(self._config.area)

    # --- asking ---------------------------------------------------------------------------------

    def ask(self, area: local.AreaBase, wanted: Ask) -> Any:
        """
        Ask Redis, in the caller's thread; *area* counts it.

        Raises:
            RemoteError: It is away, or refuses.
        """
        return self._second.ask(area, self._config.area, wanted)

    async def aask(self, area: local.AreaBase, wanted: Ask) -> Any:
        """Ask Redis, in the caller's task; see ask()."""
        return await self._second.aask(area, self._config.area, wanted)

    def getting(self, keys: Sequence[bytes]) -> Ask:
        """How keys are read there."""
        return Ask("get", (self._config.area, keys), self._version, reading=True)

    def leasing(self, keys: Sequence[bytes], seconds: float) -> Ask:
        """How it is noted there that keys are being loaded."""
        return Ask("lease", (self._config.area, keys, seconds), self._version)

    def filling(self, fills: Sequence[Fill]) -> Ask:
        """How what was loaded is stored there."""
        return Ask("fill", (self._config.area, fills), self._version)

    def writing(self, kind: int, changes: Sequence[Change], *, broadcast: bool) -> Ask:
        """How keys are stored (message.SET) or deleted (message.FORGET) there."""
        wanted = self._config.area, kind, changes, self.origin
        counts_as = "del" if kind == message.FORGET else ""
        keywords = {"broadcast": broadcast, **self._version}
        return Ask("write", wanted, keywords, counts_as=counts_as)

    def expiring(self, key: bytes, note: int) -> Ask:
        """How the life of a key is ended there."""
        return Ask("expire", (self._config.area, [key], [note], self.origin), self._version)

    def tagging(self, kind: int, tags: Sequence[bytes], notes: Sequence[int]) -> Ask:
        """How all values with these tags are deleted (message.FORGET_TAGS) or expired there."""
        return Ask("mark_tags", (self._config.area, kind, tags, notes, self.origin))

    def clearing(self, note: int) -> Ask:
        """How the whole area is forgotten there."""
        return Ask("clear", (self._config.area, note, self.origin))

    def telling(self, keys: Sequence[bytes], notes: Sequence[int]) -> Ask:
        """How other hosts are told to forget keys."""
        return Ask("tell", (self._config.area, message.FORGET, keys, notes, self.origin))

    def adding(self, change: Change) -> Ask:
        """How a key is stored there if it has no fresh value."""
        wanted = self._config.area, change, self.origin
        return Ask("add", wanted, self._version, decides_about=change.key)

    def touching(self, key: bytes, life: float | None) -> Ask:
        """How a fresh value is given a new life there."""
        wanted = self._config.area, key, life, self._config.stale_life, 0, self.origin
        return Ask("touch", wanted, self._version, decides_about=key)

    def incrementing(self, key: bytes, delta: int, initial: Change | None) -> Ask:
        """How an int is added to there; *initial* None: a missing one is not created."""
        wanted = self._config.area, key, delta, initial, 0, self.origin
        return Ask("incr", wanted, self._version, decides_about=key)

    # --- values ---------------------------------------------------------------------------------

    def change(
        self,
        key: bytes,
        note: int = 0,
        encoded: tuple[int, bytes] | None = None,
        life: float | None = None,
        tags: Sequence[bytes] = (),
    ) -> Change:
        """Make an explicit change of a key; *encoded* None: it is forgotten."""
        value = None if encoded is None else self._sealed(encoded, 0.0, tags)
        return Change(key, value, life, note)

    def fill(  # noqa: PLR0917  called in one place
        self,
        key: bytes,
        lease: Lease,
        encoded: tuple[int, bytes],
        life: float | None,
        age: float,
        tags: Sequence[bytes] = (),
    ) -> Fill:
        """Make what is stored unless a delete has overtaken it; *age*: since its load began."""
        return Fill(key, self._sealed(encoded, age, tags), life, lease)

    def _sealed(self, encoded: tuple[int, bytes], age: float, tags: Sequence[bytes]) -> Envelope:
        code, payload = encoded
        return remote.seal(
            code,
            payload,
            fingerprint=self.fingerprint,
            stale=0.0 if code == CODE_NULL else self._config.stale_life,
            loaded_at=time.time() - age,
            compress_over=self._config.compress_over,
            tags=tags,
        )

    def opened(self, stored: Stored) -> Opened:
        """
        Open what lay in Redis.

        Raises:
            SerializationError: It cannot be read.
        """
        limit = self._config.max_value_size
        try:
            opened = remote.unseal(stored.blob, fingerprint=self.fingerprint, limit=limit)
        except EnvelopeError as error:
            raise SerializationError(f"what Redis has is no value of this area: {error}") from None
        return opened._replace(expired=True) if stored.expired else opened

    # --- for an operator ------------------------------------------------------------------------

    def describe(self, area: local.AreaBase) -> AreaRemoteSnapshot:
        """Where Redis is and who listens, as SecondLevel; the channel; how far *area* is behind."""
        return diagnostics.area_remote(
            self._second.describe(),
            channel=self._second.channel(self._config.area),
            age=area._freshness(),
            calls=diagnostics.latency(local.LATENCY_BOUNDS, area._l2_latencies()),
        )


def _has_tags(unsent: frozenset[bytes]) -> bool:
    """Tell whether a delete by tag is queued."""
    return any(each.startswith(TAG_TYPE) for each in unsent)


def _result(answer: Any) -> Any:
    """Of an explicit change only how many keys were there is of interest."""
    return answer.found if isinstance(answer, Written) else answer
