"""What the leader of a host sends of the outbox, and in which order."""

from typing import Any

import pytest

from accelerator.errors import RemoteError
from accelerator.invalidation.resend import PORTION, Resender
from accelerator.local import NOTE_FORGET


class Outbox:
    """An outbox of which *due* is queued, with an area that owes a clear."""

    def __init__(self, due: int) -> None:
        self.due = due
        self.owed = ["owing"]
        self.settled: list[tuple[int, bool]] = []

    def outbox_due(self, limit: int = 256, /) -> list[tuple[int, str, int, bytes]]:
        """Be as full as ever: somebody goes on writing."""
        return [(n, "area", NOTE_FORGET, b"sk") for n in range(1, 1 + min(self.due, limit))]

    def outbox_settle(self, number: int, sent: bool, /) -> None:
        """Note it."""
        self.settled.append((number, sent))

    def outbox_owed(self) -> list[str]:
        """Give the area until it is paid."""
        return list(self.owed)

    def outbox_paid(self, area: str, /) -> None:
        """Owe no more."""
        self.owed.remove(area)

    def area_count(self, area: str, counter: int, n: int = 1, /) -> None:
        """Count nothing."""


class Remote:
    """What it is told, in order."""

    def __init__(self, error: RemoteError | None = None) -> None:
        self.told: list[tuple[str, str]] = []
        self.error = error

    def clear(self, area: str, note: int, origin: bytes) -> None:
        """Take it, or fail."""
        if self.error is not None:
            raise self.error
        self.told.append(("clear", area))

    def write(self, area: str, kind: int, changes: Any, origin: bytes) -> None:
        """Take it."""
        self.told.append(("write", area))


def send(outbox: Outbox, remote: Remote) -> bool:
    resender = Resender(outbox, remote, b"origin", lambda: None)  # type: ignore[arg-type]
    return resender.send_due()


class TestOwed:
    @pytest.mark.parametrize("due", [0, 1, PORTION - 1])
    def test_beside_changes(self, due: int) -> None:
        """A clear that is owed does not wait until nobody writes any more."""
        outbox, remote = Outbox(due), Remote()
        assert not send(outbox, remote)
        assert [*[("write", "area")] * bool(due), ("clear", "owing")] == remote.told
        assert [] == outbox.owed
        assert due == [sent for _, sent in outbox.settled].count(True)

    def test_behind_a_backlog(self) -> None:
        """What is queued goes first, portion by portion."""
        outbox, remote = Outbox(PORTION), Remote()
        assert send(outbox, remote)
        assert ("clear", "owing") not in remote.told
        outbox.due = 3
        assert not send(outbox, remote)
        assert ("clear", "owing") == remote.told[-1]

    def test_not_taken(self) -> None:
        """It is owed until Redis has taken it."""
        outbox = Outbox(0)
        with pytest.raises(RemoteError):
            send(outbox, Remote(RemoteError("away", reason="connection")))
        assert ["owing"] == outbox.owed
