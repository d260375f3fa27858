"""
The second level of this process: Redis, what guards its callers, and who listens to it.

One per attachment.  Nothing is connected, and no thread starts, before an area uses it.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

from accelerator import local, message, remote
from accelerator.breaker import Guard
from accelerator.codec import CODE_NULL
from accelerator.errors import SerializationError
from accelerator.invalidation import Listener
from accelerator.remote import Change, EnvelopeError, Fill, Written
from accelerator.steps import Ask

if TYPE_CHECKING:
    from collections.abc import Sequence

    from accelerator.config import AreaConfig, Settings
    from accelerator.remote import Envelope, Lease, Opened, Stored


class SecondLevel:
    """
    Redis, for the areas of one memory.

    Args:
        memory: Where this host knows its state.
        settings: Of the process; *redis* is given.
    """

    def __init__(self, memory: local.Segment, settings: Settings) -> None:
        self.bound = settings.freshness_bound
        """Seconds that a change on another host may take to be seen here."""
        self._memory = memory
        self._remote = remote.connect(settings)
        self._guard = Guard(memory, self.bound)
        # With connections of its own, as it is in a thread of its own.
        self._listener = Listener(memory, remote.connect(settings), settings)

    @property
    def origin(self) -> bytes:
        """Name of this host's memory in messages."""
        return self._memory.origin

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
        with self._guard.call(area, name, wanted.method, reading=wanted.reading):
            method = getattr(self._remote, wanted.method)
            return _result(method(*wanted.arguments, **wanted.keywords))

    async def aask(self, area: local.AreaBase, name: str, wanted: Ask) -> Any:
        """Ask Redis, in the caller's task; see ask()."""
        self._listener.start()
        with self._guard.call(area, name, wanted.method, reading=wanted.reading):
            method = getattr(self._remote.for_loop(), wanted.method)
            return _result(await method(*wanted.arguments, **wanted.keywords))

    def unsent(self, area: str) -> frozenset[bytes] | None:
        """
        Give the encoded keys whose change Redis has not heard of yet; None: it may be any of them.

        It may be well and have missed a single delete: what it has of that key is what the delete
        was about, and no reader on this host must be given that any more.  The delete was queued
        before it returned, so whoever asks after that is told so, or, when it is no longer queued,
        reads what Redis has after it.
        """
        if self.bound < self._memory.confirmed_age() < math.inf:
            return frozenset()  # it is not asked then anyway, and the outbox may be long
        return self._memory.outbox_unsent(area)

    def check_decidable(self, area: local.AreaBase, name: str, op: str, key: bytes) -> None:
        """
        Let Redis decide about a key only when it knows what this host has done to it.

        Else it would decide about what was deleted, and the delete, told later, undo its decision.

        Raises:
            RemoteError: A change of the key is queued.
        """
        unsent = self.unsent(name)
        if unsent is None or key in unsent:
            why = "as it has not yet been told of an earlier change of the key"
            raise self._guard.skipped(area, name, op, why)

    def write(self, area: str, kind: int, changes: Sequence[Change], *, broadcast: bool) -> Ask:
        """How an explicit change is asked for."""
        if kind == message.CLEAR:
            return Ask("clear", (area, changes[0].note, self.origin))
        if kind == message.EXPIRE:
            keys, notes = [each.key for each in changes], [each.note for each in changes]
            return Ask("expire", (area, keys, notes, self.origin))
        return Ask("write", (area, kind, changes, self.origin), {"broadcast": broadcast})

    # --- values ---------------------------------------------------------------------------------

    @staticmethod
    def fingerprint(config: AreaConfig) -> int:
        """What says how an area's values look."""
        return remote.fingerprint_of(config.version)

    def change(
        self,
        config: AreaConfig,
        key: Any,
        note: int,
        encoded: tuple[int, bytes] | None = None,
        life: float | None = None,
    ) -> Change:
        """Make an explicit change of a key; *encoded* None: it is forgotten."""
        value = None if encoded is None else self._sealed(config, encoded, 0.0)
        return Change(local.encode_key(key), value, life, note)

    @staticmethod
    def clear_change(note: int) -> Change:
        """Make what stands for the change of a whole area."""
        return Change(b"", None, None, note)

    def fill(  # noqa: PLR0917  called in one place
        self,
        config: AreaConfig,
        key: Any,
        lease: Lease,
        encoded: tuple[int, bytes],
        life: float | None,
        age: float,
    ) -> Fill:
        """Make what is stored unless a delete has overtaken it; *age*: since its load began."""
        return Fill(local.encode_key(key), self._sealed(config, encoded, age), life, lease)

    def _sealed(self, config: AreaConfig, encoded: tuple[int, bytes], age: float) -> Envelope:
        code, payload = encoded
        stale = 0.0 if code == CODE_NULL else config.stale_life
        return remote.seal(
            code,
            payload,
            fingerprint=self.fingerprint(config),
            stale=stale,
            loaded_at=time.time() - age,
            compress_over=config.compress_over,
        )

    def opened(self, config: AreaConfig, stored: Stored) -> Opened:
        """
        Open what lay in Redis.

        Raises:
            SerializationError: It cannot be read.
        """
        try:
            return remote.unseal(
                stored.blob, fingerprint=self.fingerprint(config), limit=config.max_value_size
            )
        except EnvelopeError as error:
            raise SerializationError(f"what Redis has is no value of this area: {error}") from None

    # --- for an operator ------------------------------------------------------------------------

    def describe(self) -> dict[str, Any]:
        """Where Redis is, whether it answers, who listens."""
        link = self._memory.link()
        return {
            **self._remote.describe(),
            "ready": link["confirmed_age"] is not None and link["confirmed_age"] <= self.bound,
            "bound": self.bound,
            **link,
            "listener": self._memory.leader(),
        }

    def describe_area(self, area: local.AreaBase, name: str) -> dict[str, Any]:
        """The same for one area: its channel, and how far it may be behind."""
        age = area._freshness()
        return {
            **self.describe(),
            "channel": self._remote.channel(name),
            "freshness_age": age,
            "in_step": age is not None and age <= self.bound,
        }


def _result(answer: Any) -> Any:
    """Of an explicit change only how many keys were there is of interest."""
    return answer.found if isinstance(answer, Written) else answer
