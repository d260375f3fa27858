"""The connection on which invalidations and the own heartbeats come in."""

from __future__ import annotations

import contextlib
import os
import weakref
from typing import TYPE_CHECKING, Any, Final

from accelerator.invalidation.resp import Item, Parser, StreamError
from accelerator.message import LONGEST

if TYPE_CHECKING:
    from collections.abc import Iterable

CHUNK: Final = 1 << 18
"""Bytes that are read in one go."""
_PING: Final = b"*1\r\n$4\r\nPING\r\n"
_MOST_CHANNELS: Final = 256
"""Of one SUBSCRIBE."""


class Subscription:
    """
    One connection, and what is subscribed to on it.

    Args:
        connection: Of redis-py, connected and authenticated; ours alone.

    Every method may raise OSError (so it is gone), StreamError or ReplyError.
    """

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        # Its private socket: redis-py offers no way to read what comes in large parts, or to know
        # that nothing came.
        self._socket: Any = connection._sock
        if self._socket is None:
            raise ConnectionError("not connected")
        self._timeout = self._socket.gettimeout()
        self._parser = Parser(LONGEST)
        _open.add(self)

    def subscribe(self, channels: Iterable[str]) -> None:
        """Ask for these channels; Redis confirms each of them."""
        names = [channel.encode() for channel in channels]
        for start in range(0, len(names), _MOST_CHANNELS):
            part = names[start : start + _MOST_CHANNELS]
            strings = b"".join(b"$%d\r\n%s\r\n" % (len(name), name) for name in part)
            self._send(b"*%d\r\n$9\r\nSUBSCRIBE\r\n%s" % (len(part) + 1, strings))

    def ping(self) -> None:
        """Ask for a sign of life."""
        self._send(_PING)

    def read(self, timeout: float) -> tuple[list[list[Item]], int]:
        """Wait for at most so many seconds; gives what is complete, and how many bytes came."""
        self._socket.settimeout(max(timeout, 0.001))  # 0 would be another mode, and other errors
        try:
            data = self._socket.recv(CHUNK)
        except TimeoutError:
            return [], 0
        if not data:
            raise ConnectionError("closed by Redis")
        return self._parser.feed(data), len(data)

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

__all__ = ["CHUNK", "StreamError", "Subscription"]
