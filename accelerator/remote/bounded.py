"""
Connections whose replies come in time, or not at all.

A time limit of a socket is one for each byte that arrives: a peer that sends one byte now and then
could hold a caller for minutes.  Here it counts from when the commands were sent.
"""

from __future__ import annotations

import contextlib
import functools
import threading
import time
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

_SLOWEST: Final = 4 << 20
"""Bytes a second that a reply must keep up, after its first time limit."""
_LEAST: Final = 0.001
"""Seconds that a read may always take: what has arrived is taken, even if we are late."""


class _Thread(threading.local):
    late: float | None = None


_thread: Final = _Thread()


def start() -> None:
    """Begin a call in this thread."""
    _thread.late = None


def lateness() -> float | None:
    """
    Tell how many seconds after its limit the call's timeout was noticed; None: not known.

    A peer that is slow makes us notice in time.  A thread that did not get to run notices late.
    """
    return _thread.late


@contextlib.contextmanager
def _noticing(until: float) -> Iterator[None]:
    try:
        yield
    except TimeoutError:
        _thread.late = max(0.0, time.monotonic() - until)
        raise


class BoundedSocket:
    """A socket as redis-py uses it, with a time limit for all of what follows a send."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self._limit: float | None = inner.gettimeout()
        self.until = self._next()
        """By when, on time.monotonic(), the reply must be there."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def settimeout(self, limit: float | None) -> None:
        """Set the limit of what is sent or asked for from now on."""
        self._limit = limit
        self._inner.settimeout(limit)
        self.until = self._next()

    def sendall(self, data: Any, *flags: int) -> None:
        """Send, and start the clock."""
        self._inner.settimeout(self._limit)
        with _noticing(self._next()):
            self._inner.sendall(data, *flags)
        self.until = self._next()

    def recv(self, size: int, *flags: int) -> bytes:
        """Receive what there is, before the time is up."""
        self._set_rest()
        with _noticing(self.until):
            data: bytes = self._inner.recv(size, *flags)
        self.until += len(data) / _SLOWEST
        return data

    def recv_into(self, buffer: Any, *more: int) -> int:
        """Receive what there is, before the time is up."""
        self._set_rest()
        with _noticing(self.until):
            size: int = self._inner.recv_into(buffer, *more)
        self.until += size / _SLOWEST
        return size

    def _next(self) -> float:
        # No limit, and 0 for "do not wait", are the socket's own affair.
        return time.monotonic() + self._limit if self._limit else float("inf")

    def _set_rest(self) -> None:
        if self._limit:
            self._inner.settimeout(max(_LEAST, self.until - time.monotonic()))


@functools.cache
def bounded(kind: type) -> type:
    """Make a class of connections like *kind*, on such sockets."""

    def connect(self: Any) -> BoundedSocket:
        # redis-py 5.0 forgets it on Unix sockets; without one a stopped server is waited for.
        self.socket_timeout = self.socket_timeout or self.socket_connect_timeout
        # A name may have two addresses, each of which is tried for as long as allowed.
        longest = 2 * (self.socket_connect_timeout or 0.0)
        with _noticing(time.monotonic() + longest):
            return BoundedSocket(kind._connect(self))  # type: ignore[attr-defined]

    return type(kind.__name__, (kind,), {"_connect": connect})
