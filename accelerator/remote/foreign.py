"""
A second level that the application brings: what it may leave out, and what it may get wrong.

Whatever it raises becomes a RemoteError, so that no request fails because of it, and what it
answers is checked for its shape.  The areas that it is given carry the namespace: two applications
may share one.
"""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NoReturn

from accelerator.backend import Lease, Received, Stored, Written
from accelerator.errors import RemoteError
from accelerator.remote.names import escape

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from accelerator.backend import InvalidationSubscriber, Remote

_OF_AN_AREA: Final = frozenset(
    {
        *("get", "lease", "fill", "write", "expire", "clear", "add", "touch", "incr", "tell"),
        *("log", "mark_tags"),
    }
)
"""Methods whose first argument is an area."""


def _is_stored(answer: Any) -> bool:
    if answer is None:
        return True
    if not isinstance(answer, Stored) or type(answer.blob) is not bytes:
        return False
    left: Any = answer.left
    return left is None or (isinstance(left, int | float) and left >= 0)


def _is_written(answer: Any) -> bool:
    return isinstance(answer, Written) and isinstance(answer.found, int)


def _is_entry(answer: Any) -> bool:
    return isinstance(answer, tuple) and [*map(type, answer)] == [int, bytes]


_ITEMS: Final[dict[str, Callable[[Any], bool]]] = {
    "get": _is_stored,
    "lease": lambda answer: isinstance(answer, Lease),
    "fill": lambda answer: isinstance(answer, bool),
    "log": _is_entry,
}
"""What the items are of the lists that these methods answer."""
_ANSWERS_EACH: Final = frozenset({"get", "lease", "fill"})
"""Methods of them that answer one item for each of their second argument."""
_ANSWERS: Final[dict[str, Callable[[Any], bool]]] = {
    "write": _is_written,
    "expire": lambda answer: isinstance(answer, int),
    "tell": lambda answer: isinstance(answer, int),
    "add": lambda answer: isinstance(answer, bool),
    "touch": lambda answer: isinstance(answer, bool),
    "incr": lambda answer: answer is None or type(answer) is int,
}
"""What these methods answer; what all others do is of no interest, and not passed on."""
_CALLERS_OWN: Final = (TypeError, OverflowError)
"""What incr() raises about the value."""


class ForeignRemote:
    """
    A RemoteBackend of the application's, as the package uses one.

    Args:
        backend: It.
        namespace: Of the settings.
    """

    def __init__(self, backend: Any, namespace: str) -> None:
        self.title = type(backend).__name__
        self._backend = backend
        self._namespace = escape(namespace.encode())

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """Give an operation on an area."""
        if name not in _OF_AN_AREA:
            raise AttributeError(name)
        return partial(self._call, name)

    def area_of(self, area: str) -> str:
        """Name an area as the backend is given it."""
        return f"{self._namespace}:{escape(area.encode())}"

    def _call(self, name: str, area: str, *arguments: Any, **keywords: Any) -> Any:
        try:
            method = getattr(self._backend, name)
            answer = method(self.area_of(area), *arguments, **keywords)
        except Exception as error:
            self.fail(error, area, name)
        return self.checked(name, area, arguments, answer)

    def checked(self, name: str, area: str, arguments: Sequence[Any], answer: Any) -> Any:
        """Refuse an answer that does not fit what was asked."""
        if name in _ITEMS:
            fits = isinstance(answer, list) and all(map(_ITEMS[name], answer))
            if name in _ANSWERS_EACH:
                fits = fits and len(answer) == len(arguments[0])
        else:
            fits = name not in _ANSWERS or _ANSWERS[name](answer)
        if not fits:
            raise self.misfit(name, area)
        return answer if name in _ITEMS or name in _ANSWERS else None

    def misfit(self, name: str, area: str | None) -> RemoteError:
        """Give the error that says so of an answer."""
        return RemoteError(
            f"what {self.title}.{name}() answered is not what the protocol says",
            area=area,
            operation=name,
        )

    def fail(self, error: Exception, area: str | None, name: str) -> NoReturn:
        """
        Raise what an exception of the backend means.

        Its own text may show keys and values, so nothing of that is passed on.
        """
        if isinstance(error, RemoteError):
            raise error
        if name == "incr" and isinstance(error, _CALLERS_OWN):
            raise error
        raise RemoteError(
            f"{self.title} failed ({type(error).__name__})",
            reason="timeout" if isinstance(error, TimeoutError) else "connection",
            area=area,
            operation=name,
        ) from None

    # --- what is not about one area ---

    def beat(self, areas: Sequence[str], channel: str, n: int) -> tuple[str, list[int]]:
        """Write, and tell *channel*; the history and the areas' numbers."""
        try:
            history, seqs = self._backend.beat([self.area_of(area) for area in areas], channel, n)
        except Exception as error:
            self.fail(error, None, "beat")
        return history, seqs

    def recheck(self, areas: Sequence[str], origin: bytes) -> list[str]:
        """Forget the areas whose values are of an earlier time; which those are."""
        names = {self.area_of(area): area for area in areas}
        try:
            found = [*self._backend.recheck(list(names), origin)]
        except Exception as error:
            self.fail(error, None, "recheck")
        return [area for name, area in names.items() if name in found]

    def subscriber(self, channel: str) -> ForeignSubscriber:
        """Connect one that hears, beside areas, the heartbeats that are told on *channel*."""
        try:
            made = self._backend.subscriber(channel)
        except Exception as error:
            self.fail(error, None, "subscribe")
        return ForeignSubscriber(self, made)

    # --- what it may leave out ---

    def for_loop(self) -> Any:
        """Give the same for the event loop that runs here."""
        own = getattr(self._backend, "for_loop", None)
        return ForeignLoop(self, own()) if callable(own) else ThreadedLoop(self)

    def heartbeat_channel(self, origin: bytes) -> str:
        """Name the channel on which a host hears its own heartbeats."""
        return f"{self._namespace}:{origin.hex()}"

    def answer(self, nonce: bytes, data: bytes) -> None:
        """Do nothing: the protocol has no channel on which a probe is answered."""

    def channel(self, area: str) -> str:
        """Name, for an operator, where an area's invalidations are told."""
        own = getattr(self._backend, "channel", None)
        return str(own(self.area_of(area))) if callable(own) else self.area_of(area)

    def describe(self) -> dict[str, Any]:
        """Where it is, as far as that may be shown."""
        own = getattr(self._backend, "describe", None)
        shown: dict[str, Any] = {"kind": "custom", "backend": self.title}
        if callable(own):
            with contextlib.suppress(Exception):  # what is known besides is shown all the same
                shown.update(own())
        return shown

    def close(self) -> None:
        """Let go of what this process holds of it; it may be used again."""
        own = getattr(self._backend, "close", None)
        if callable(own):
            with contextlib.suppress(Exception):  # there is nothing that the caller could do
                own()


class ForeignLoop:
    """A RemoteBackend's own part for one event loop."""

    def __init__(self, remote: ForeignRemote, backend: Any) -> None:
        self._remote = remote
        self._backend = backend

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """Give an operation on an area."""
        if name not in _OF_AN_AREA:
            raise AttributeError(name)
        return partial(self._call, name)

    async def _call(self, name: str, area: str, *arguments: Any, **keywords: Any) -> Any:
        try:
            method = getattr(self._backend, name)
            answer = await method(self._remote.area_of(area), *arguments, **keywords)
        except Exception as error:
            self._remote.fail(error, area, name)
        return self._remote.checked(name, area, arguments, answer)


class ThreadedLoop:
    """The same for a RemoteBackend that knows nothing of loops: its calls run in threads."""

    def __init__(self, remote: ForeignRemote) -> None:
        self._remote = remote

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """Give an operation on an area."""
        if name not in _OF_AN_AREA:
            raise AttributeError(name)
        return partial(self._call, name)

    async def _call(self, name: str, area: str, *arguments: Any, **keywords: Any) -> Any:
        call = partial(getattr(self._remote, name), area, *arguments, **keywords)
        # A caller that is cancelled leaves the call to its thread: nobody knows what has become of
        # it, which is what its host assumes of a call that was given up.
        try:
            return await asyncio.to_thread(call)
        except RuntimeError as error:  # the loop has shut its threads down
            self._remote.fail(error, area, name)


class ForeignSubscriber:
    """
    What a RemoteBackend's subscriber() gave.

    Args:
        remote: Of which it is.
        subscriber: It.
    """

    def __init__(self, remote: ForeignRemote, subscriber: Any) -> None:
        self._remote = remote
        self._subscriber = subscriber
        self._areas = {"": ""}
        """What they are called here, by what the backend calls them."""

    def subscribe(self, areas: Sequence[str]) -> None:
        """Hear of these areas too."""
        names = {self._remote.area_of(area): area for area in areas}
        self._areas.update(names)
        try:
            self._subscriber.subscribe(list(names))
        except Exception as error:
            self._remote.fail(error, None, "subscribe")

    def ping(self) -> None:
        """Ask for a sign of life."""
        try:
            self._subscriber.ping()
        except Exception as error:
            self._remote.fail(error, None, "listen")

    def read(self, timeout: float) -> Received:
        """Wait until there is something, for at most *timeout* seconds."""
        try:
            heard, alive, more = self._subscriber.read(timeout)
            known = [
                (kind, self._areas[area], data) for kind, area, data in heard if area in self._areas
            ]
            received = Received(known, bool(alive), bool(more))
        except Exception as error:
            self._remote.fail(error, None, "listen")
        if any(type(data) is not bytes and data is not None for *_, data in known):
            raise self._remote.misfit("read", None)
        return received

    def close(self) -> None:
        """End it."""
        with contextlib.suppress(Exception):
            self._subscriber.close()


if TYPE_CHECKING:
    _subscriber: type[InvalidationSubscriber] = ForeignSubscriber

    def _as_remote(foreign: ForeignRemote) -> Remote:
        whole: Any = foreign  # the operations on an area are passed on by name
        return whole  # type: ignore[no-any-return]
