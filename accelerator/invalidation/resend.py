"""Telling Redis what it has not heard yet: the outbox, by the host's leader."""

from __future__ import annotations

import itertools
import logging
import time
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final, Protocol

from accelerator.backend import TAG_TYPE
from accelerator.errors import RemoteError
from accelerator.local import COUNTERS, NOTE_CLEAR, NOTE_EXPIRE_TAG, NOTE_FORGET_TAG
from accelerator.message import CLEAR, EXPIRE_TAGS, FORGET, FORGET_TAGS
from accelerator.remote import Change

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

LOG: Final = logging.getLogger("accelerator")

PORTION: Final = 256
"""Entries that are sent between two looks at everything else."""
PATIENCE: Final = 60.0
"""Seconds for which a repair is tried; what it would send is of no use to anybody later."""
_PUBLISH: Final = COUNTERS.index("invalidation_publish")
_PUBLISH_FAILURES: Final = COUNTERS.index("invalidation_publish_failures")

Entry = tuple[int, str, int, bytes]
"""Number, area, kind and encoded key, or tag behind TAG_TYPE."""

_SENT_AS: Final = {
    NOTE_CLEAR: CLEAR,
    NOTE_FORGET_TAG: FORGET_TAGS,
    NOTE_EXPIRE_TAG: EXPIRE_TAGS,
}
"""Kinds of messages for kinds of entries; all others are sent as FORGET."""


class Outbox(Protocol):
    """What is used of the segment; see there."""

    def outbox_due(self, limit: int = 256, /) -> list[Entry]: ...  # noqa: D102
    def outbox_settle(self, number: int, sent: bool, /) -> None: ...  # noqa: D102
    def outbox_recent(self, seconds: float, /) -> list[Entry]: ...  # noqa: D102
    def outbox_owed(self) -> list[str]: ...  # noqa: D102
    def outbox_paid(self, area: str, /) -> None: ...  # noqa: D102
    def invalidate_tags(self, area: str, tags: list[bytes], expire: bool = False, /) -> None: ...  # noqa: D102
    def area_count(self, area: str, counter: int, n: int = 1, /) -> None: ...  # noqa: D102


class Deposed(Exception):  # noqa: N818  it is no error: it ends a term
    """Another process leads."""


class Resender:
    """
    Sends as deletes what is in the outbox: a delete is right whatever has happened meanwhile.

    A delete by tag, or an expiry, is sent as what it is; and what this host holds is dropped once
    more behind it, before it counts as sent, because a reader may have fetched from Redis what was
    not dead there before, and nobody else is left to do it.  Killed in between, it is sent again.

    Args:
        memory: The segment.
        remote: Redis.
        origin: Name of the segment among those that send.
        prove: Called before each command; raises Deposed where it is another one's to send it.
    """

    def __init__(
        self, memory: Outbox, remote: Any, origin: bytes, prove: Callable[[], None]
    ) -> None:
        self._memory = memory
        self._remote = remote
        self._origin = origin
        self._prove = prove
        self._late: dict[str, dict[bytes, None]] = {}
        """By area the keys that are to be deleted; see forget()."""
        self._repair_from: float | None = None
        self._repair_asked = 0.0

    def send_due(self) -> bool:
        """
        Send what is queued, at most PORTION entries; True: there may be more.

        Raises:
            RemoteError: Redis does not take it.  It stays queued.
            Deposed: See *prove*.
        """
        self._send_late()
        due = self._memory.outbox_due(PORTION)
        for number, *_ in due:
            self._memory.outbox_settle(number, False)  # a dead one's, too: nobody waits for it
        self._send(due, lambda number: self._memory.outbox_settle(number, True))
        if due:
            LOG.info("sent %d invalidations that had been queued", len(due))
        if len(due) == PORTION:
            return True
        # Not only where nothing was due: of an area that is kept from Redis by order every change
        # is queued, and a clear would wait for as long as somebody writes.
        for area in self._memory.outbox_owed():
            self._prove()
            self._remote.clear(area, 0, self._origin)
            self._memory.outbox_paid(area)
            LOG.warning(
                "cleared area %s on all hosts: it was flushed, or more of its invalidations than "
                "the outbox holds could not be sent",
                area,
            )
        return False

    def forget(self, area: str, keys: Sequence[bytes]) -> None:
        """Have keys deleted that an own set has come to too late; what is newer goes with it."""
        self._late.setdefault(area, {}).update(dict.fromkeys(keys))

    def _send_late(self) -> None:
        # Not in the outbox, so a leader that is killed just now leaves them as they are.
        while self._late:
            area, keys = next(iter(self._late.items()))
            part = list(itertools.islice(keys, PORTION))
            self._prove()
            self._send_part(area, FORGET, [(0, key) for key in part])
            for key in part:
                del keys[key]
            if not keys:
                del self._late[area]

    def ask_for_repair(self, seconds: float) -> None:
        """Have the deletes of own writes that Redis took within the last *seconds* sent again."""
        now = time.monotonic()
        self._repair_asked = now
        if self._repair_from is None:
            self._repair_from = now - seconds

    def repair(self) -> None:
        """
        Send what ask_for_repair() asked for, if that was not done yet.

        Raises:
            RemoteError: Redis does not take it.  To be called again.
            Deposed: See *prove*.
        """
        if self._repair_from is None:
            return
        now = time.monotonic()
        if now - self._repair_asked < PATIENCE:
            entries = self._memory.outbox_recent(now - self._repair_from)
            self._send(entries, lambda _: None)
            if entries:
                LOG.info("sent %d invalidations again, that a failover may have lost", len(entries))
        self._repair_from = None

    def _send(self, entries: Iterable[Entry], settle: Callable[[int], None]) -> None:
        """Send runs of the same area, in their order."""
        for (area, kind), run in itertools.groupby(entries, lambda it: (it[1], _sent_as(it))):
            numbers_keys = [(number, key) for number, _, _, key in run]
            for start in range(0, len(numbers_keys), PORTION):
                part = numbers_keys[start : start + PORTION]
                self._prove()
                self._send_part(area, kind, part)
                for number in map(itemgetter(0), part):
                    settle(number)

    def _send_part(self, area: str, kind: int, part: Sequence[tuple[int, bytes]]) -> None:
        try:
            if kind == CLEAR:
                # One clear does for all of the run.
                self._remote.clear(area, part[-1][0], self._origin)
            elif kind in {FORGET_TAGS, EXPIRE_TAGS}:
                tags = [key.removeprefix(TAG_TYPE) for _, key in part]
                notes = [number for number, _ in part]
                self._remote.mark_tags(area, kind, tags, notes, self._origin)
                self._memory.invalidate_tags(area, tags, kind == EXPIRE_TAGS)
            else:
                changes = [Change(key, None, None, number) for number, key in part]
                self._remote.write(area, FORGET, changes, self._origin)
        except RemoteError:
            self._memory.area_count(area, _PUBLISH_FAILURES)
            raise
        self._memory.area_count(area, _PUBLISH)


def _sent_as(entry: Entry) -> int:
    """Give the kind of the message that tells of an entry."""
    _, _, kind, _ = entry
    return _SENT_AS.get(kind, FORGET)
