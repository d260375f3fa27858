"""The connection on which invalidations and the own heartbeats come in."""

from __future__ import annotations

import contextlib
import os
import weakref
from typing import TYPE_CHECKING, Any, Final

from accelerator.backend import HEARD_BEAT, HEARD_CONFIRMED, HEARD_MESSAGE, Received
from accelerator.errors import RemoteError
from accelerator.message import LONGEST
from accelerator.remote.resp import Item, Parser, ReplyError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from accelerator.backend import Heard, InvalidationSubscriber

CHUNK: Final = 1 << 18
"""Bytes that are read in one go."""
_PING: Final = b"*1\r\n$4\r\nPING\r\n"
_MOST_CHANNELS: Final = 256
"""Of one SUBSCRIBE."""
_SILENCE: Final = Received([], False, False)


class Subscription:
    """
    One connection, and what is subscribed to on it.

    Args:
        connection: Of redis-py, connected and authenticated; ours alone.
        beats: Channel of the own heartbeats.
        channel_of: Gives the channel of an area.

    Every method may raise OSError (so it is gone; StreamError is one) or RemoteError.
    """

    def __init__(self, connection: Any, beats: str, channel_of: Callable[[str], str]) -> None:
        self._connection = connection
        self._beats = beats.encode()
        self._channel_of = channel_of
        self._areas: dict[bytes, str] = {}
        """By their channels."""
        # Its private socket: redis-py offers no way to read what comes in large parts, or to know
        # that nothing came.
        self._socket: Any = connection._sock
        if self._socket is None:
            raise ConnectionError("not connected")
        self._timeout = self._socket.gettimeout()
        self._parser = Parser(LONGEST)
        _open.add(self)

    def subscribe(self, areas: Iterable[str]) -> None:
        """Ask for the channels of these areas, and of the heartbeats; Redis confirms each."""
        channels = {self._channel_of(area).encode(): area for area in areas}
        names = [*channels] if self._areas else [self._beats, *channels]
        self._areas.update(channels)
        for start in range(0, len(names), _MOST_CHANNELS):
            part = names[start : start + _MOST_CHANNELS]
            strings = b"".join(b"$%d\r\n%s\r\n" % (len(name), name) for name in part)
            self._send(b"*%d\r\n$9\r\nSUBSCRIBE\r\n%s" % (len(part) + 1, strings))

    def ping(self) -> None:
        """Ask for a sign of life."""
        self._send(_PING)

    def read(self, timeout: float) -> Received:
        """Wait for at most so many seconds; gives what is complete of what came."""
        self._socket.settimeout(max(timeout, 0.001))  # 0 would be another mode, and other errors
        try:
            data = self._socket.recv(CHUNK)
        except TimeoutError:
            return _SILENCE
        if not data:
            raise ConnectionError("closed by Redis")
        try:
            pushes = self._parser.feed(data)
        except ReplyError as error:
            # Only its first word: what follows may name users and channels.
            raise RemoteError(str(error).partition(" ")[0], reason="refused") from None
        return Received(self._heard(pushes), True, len(data) >= CHUNK // 4)

    def _heard(self, pushes: Sequence[list[Item]]) -> list[Heard]:
        """Tell what pushes are about."""
        found: list[Heard] = []
        for push in pushes:
            if len(push) != 3:
                continue
            kind, channel, data = push
            if not isinstance(channel, bytes):
                continue
            area = self._areas.get(channel)
            if kind == b"message":
                said = data if isinstance(data, bytes) else None
                if area is not None:
                    found.append((HEARD_MESSAGE, area, said))
                elif channel == self._beats:
                    found.append((HEARD_BEAT, "", said))
            elif kind == b"subscribe" and (area is not None or channel == self._beats):
                found.append((HEARD_CONFIRMED, area or "", None))
        return found

    def close(self) -> None:
        """End the connection; it may be dead."""
        _open.discard(self)
        with contextlib.suppress(Exception):
            self._connection.disconnect()

    def _send(self, data: bytes) -> None:
        self._socket.settimeout(self._timeout)
        self._socket.sendall(data)

    def abandon(self) -> None:
        """
        In a forked child: give back its copy of the descriptor.

        Else Redis would go on sending to a connection that nobody reads, after the parent is gone.
        """
        with contextlib.suppress(Exception):
            os.close(self._socket.detach())


_open: Final[weakref.WeakSet[Subscription]] = weakref.WeakSet()


def _abandon_all() -> None:
    for subscription in list(_open):
        subscription.abandon()
    _open.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_abandon_all)

if TYPE_CHECKING:
    _subscriber: type[InvalidationSubscriber] = Subscription
