"""
What asks the source of truth: protocols of loaders, what a loader is given, and how it is called.

A loader is a function of the key, or an object with ``load`` and perhaps ``mload``; each of them
``def`` or ``async def``.  One with a parameter called ``context`` is given a LoadContext, ``mload``
a BatchContext, by that name.
"""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any, Final, NoReturn, Protocol, runtime_checkable

from accelerator.durations import seconds
from accelerator.entry import UNSET, UnsetType
from accelerator.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from accelerator.durations import Duration


@runtime_checkable
class Loader(Protocol):
    """Answers for one key; may be ``async def``, and may have a parameter ``context``."""

    def load(self, key: Any, /) -> Any:
        """Ask the source of truth; ``None``: it knows no such key."""


@runtime_checkable
class MLoader(Loader, Protocol):
    """Answers for many keys at once, too."""

    def mload(self, keys: list[Any], /) -> Mapping[Any, Any] | Awaitable[Mapping[Any, Any]]:
        """
        Ask for *keys*; a mapping of those that were found.

        A key that is missing from it is not known, and that is not cached: see
        BatchContext.complete().
        """


class FnLoader:
    """
    A loader made of functions.

    Args:
        load: Function of the key.
        mload: Function of a list of keys, which returns a mapping; None: there is none.
    """

    def __init__(
        self,
        load: Callable[..., Any],
        mload: Callable[..., Any] | None = None,
    ) -> None:
        for name, function in (("load", load), ("mload", mload)):
            if function is not None and not callable(function):
                raise TypeError(f"{name} must be a function, not {type(function).__name__}")
        self.load = load
        if mload is not None:
            self.mload = mload

    def __repr__(self) -> str:
        return f"FnLoader({getattr(self.load, '__qualname__', self.load)})"


class LoadFailed(Exception):  # noqa: N818  what a loader said, not an error of its own
    """What LoadContext.fail() raises: the cause of a LoaderError."""


class _Context:
    """What the contexts of one key and of a batch have in common."""

    __slots__ = ("_ttl", "area", "namespace")

    def __init__(self, area: str) -> None:
        self.area = area
        self.namespace: tuple[str, ...] = ()
        self._ttl: Any = UNSET

    @property
    def ttl(self) -> Any:
        """
        Life of what is loaded: a duration, ``None`` for no expiry, 0 to store nothing and drop an
        older copy.  Until it is set: what the call or the area says.
        """  # noqa: D205  one sentence
        return self._ttl

    @ttl.setter
    def ttl(self, ttl: Duration | None) -> None:
        self._ttl = _checked_ttl(ttl)

    @property
    def tags(self) -> NoReturn:
        """Not supported by this version."""
        self._refuse_tags()

    @tags.setter
    def tags(self, _: Iterable[str]) -> None:
        self._refuse_tags()

    def _refuse_tags(self) -> NoReturn:
        raise ConfigError(
            "tags are not supported by this version of accelerator: leave them out",
            setting="tags",
            area=self.area,
        )

    def fail(self, reason: str) -> NoReturn:
        """Give up: as if the loader had raised, so a stale value may be the answer."""
        raise LoadFailed(reason)


class LoadContext(_Context):
    """
    What a loader of one key may know and say.

    *area* is the area's name, *namespace* the names of the namespaces that the key is in, the
    outermost first.
    """

    __slots__ = ("_skipped", "_stale")

    def __init__(self, area: str, stale: Callable[[], Any]) -> None:
        super().__init__(area)
        self._stale = stale
        self._skipped = False

    @property
    def stale_value(self) -> Any:
        """The value that the key had, if it is still there; else MISS."""
        return self._stale()

    def skip(self) -> None:
        """Store nothing: the caller, and who waits for this load, get the value all the same."""
        self._skipped = True

    def ttl_for(self, key: Any) -> Any:  # noqa: ARG002  as BatchContext
        """Life that was set for a key; UNSET: none was."""
        return self._ttl

    def skips(self, key: Any) -> bool:  # noqa: ARG002  as BatchContext
        """Whether nothing is to be stored for a key."""
        return self._skipped


class BatchContext(_Context):
    """What a loader of many keys may know and say; *area* and *namespace* as in LoadContext."""

    __slots__ = ("_all_skipped", "_complete", "_skipped", "_stale", "_ttls", "keys")

    def __init__(self, area: str, keys: list[Any], stale: Callable[[Any], Any]) -> None:
        super().__init__(area)
        self.keys = keys
        self._stale = stale
        self._ttls: dict[Any, Any] = {}
        self._skipped: set[Any] = set()
        self._all_skipped = False
        self._complete = False

    def stale_value_of(self, key: Any) -> Any:
        """The value that a key had, if it is still there; else MISS."""
        return self._stale(key)

    def ttl_of(self, key: Any, ttl: Duration | None) -> None:
        """Set the life of one key's value; counts more than *ttl* of the batch."""
        self._ttls[key] = _checked_ttl(ttl)

    def skip(self, *keys: Any) -> None:
        """Store nothing for these keys; without any: for none of the batch."""
        if keys:
            self._skipped.update(keys)
        else:
            self._all_skipped = True

    def complete(self) -> None:
        """Say that keys which are missing from the answer do not exist: they are cached as None."""
        self._complete = True

    @property
    def is_complete(self) -> bool:
        """Whether complete() was called."""
        return self._complete

    def ttl_for(self, key: Any) -> Any:
        """Life that was set for a key; UNSET: none was."""
        return self._ttls.get(key, self._ttl)

    def skips(self, key: Any) -> bool:
        """Whether nothing is to be stored for a key."""
        return self._all_skipped or key in self._skipped


def _checked_ttl(ttl: Any) -> Any:
    if isinstance(ttl, UnsetType):
        return ttl
    return seconds(ttl, name="ttl", allow_none=True, allow_zero=True)


# --- how a loader is called ---------------------------------------------------------------------


class Call:
    """One function of a loader, and what is known about it."""

    __slots__ = ("function", "is_async", "takes_context")

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.takes_context = takes_context(function)
        self.is_async = is_async(function)

    def __call__(self, argument: Any, context: Any) -> Any:
        """Call it; the answer may be awaitable."""
        if self.takes_context:
            return self.function(argument, context=context)
        return self.function(argument)


class Source:
    """A loader, looked at once."""

    __slots__ = ("load", "mload")

    def __init__(self, loader: Any) -> None:
        load = getattr(loader, "load", None)
        mload = getattr(loader, "mload", None)
        if callable(load):
            self.load = Call(load)
            self.mload = Call(mload) if callable(mload) else None
        elif callable(loader):
            self.load = Call(loader)
            self.mload = None
        else:
            raise TypeError(
                "a loader must be a function of the key, or an object with a method load, not "
                f"{type(loader).__name__}"
            )

    def of(self, *, batch: bool) -> Call:
        """What is asked for one key, or for many."""
        return self.mload if batch and self.mload is not None else self.load


def is_async(function: Any) -> bool:
    """Whether calling it makes a coroutine, as far as can be known without a call."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004  of an object: is its method async?
    )


_VARIABLE_KEYWORDS: Final = inspect.CO_VARKEYWORDS


def takes_context(function: Any) -> bool:
    """Whether a function, or what a decorator wrapped in it, has a parameter ``context``."""
    while True:
        code = getattr(getattr(function, "__func__", function), "__code__", None)
        if code is None:
            return _signature_has_context(function)
        # Far cheaper than a signature, which counts for a lambda that is new at each call.
        named = code.co_argcount + code.co_kwonlyargcount
        if "context" in code.co_varnames[code.co_posonlyargcount : named]:
            return True
        wrapped = getattr(function, "__wrapped__", None)
        if wrapped is None or not code.co_flags & _VARIABLE_KEYWORDS:
            return False
        function = wrapped


def _signature_has_context(function: Any) -> bool:
    if isinstance(function, functools.partial) and "context" in function.keywords:
        return False  # it is given already
    try:
        parameter = inspect.signature(function).parameters.get("context")
    except (TypeError, ValueError):  # of some functions in C nothing is known
        return False
    return parameter is not None and parameter.kind in {
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
        inspect.Parameter.KEYWORD_ONLY,
    }
