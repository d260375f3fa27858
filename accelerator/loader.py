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

from accelerator import tags as tagging
from accelerator.durations import seconds
from accelerator.entry import UNSET, UnsetType

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping
    from typing import TypeAlias, TypeVar

    from accelerator.durations import Duration
    from accelerator.entry import K, V, V_co

    K_contra = TypeVar("K_contra", contravariant=True)

    class WithContext(Protocol[K_contra, V_co]):
        """A function of the key that is given a LoadContext, too."""

        def __call__(self, key: K_contra, /, *, context: LoadContext) -> V_co:
            """Ask the source of truth."""

    class HasLoad(Protocol[K_contra, V_co]):
        """An object with such a function."""

        def load(self, key: K_contra, /) -> V_co:
            """Ask the source of truth."""

    class HasLoadWithContext(Protocol[K_contra, V_co]):
        """An object with one that is given a LoadContext, too."""

        def load(self, key: K_contra, /, *, context: LoadContext) -> V_co:
            """Ask the source of truth."""

    LoaderOf: TypeAlias = (
        Callable[[K], V] | WithContext[K, V] | HasLoad[K, V] | HasLoadWithContext[K, V]
    )
    """What answers with a value for one key; an async loader is one of ``Awaitable[V]``."""


@runtime_checkable
class Loader(Protocol):
    """Answers for one key; may be ``async def``, and may have a parameter ``context``."""

    def load(self, key: Any, /) -> Any:
        """
        Ask the source of truth; ``None``: it knows no such key.

        Raises:
            Exception: Whatever it likes; the caller gets a LoaderError with this as its cause, or a
                stale value.
        """


@runtime_checkable
class MLoader(Loader, Protocol):
    """Answers for many keys at once, too."""

    def mload(self, keys: list[Any], /) -> Mapping[Any, Any] | Awaitable[Mapping[Any, Any]]:
        """
        Ask for *keys*; a mapping of those that were found.

        A key that is missing from it is not known, and that is not cached: see
        BatchContext.complete().

        Raises:
            Exception: As load() does, for all of *keys*.
        """


class FnLoader:
    """
    A loader made of functions.

    Args:
        load: Function of the key.
        mload: Function of a list of keys, which returns a mapping; None: there is none.

    Raises:
        TypeError: One of them cannot be called.
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

    __slots__ = ("_tags", "_ttl", "area", "namespace")

    area: str
    """Name of the area."""
    namespace: tuple[str, ...]
    """Names of the namespaces that the key is in, the outermost first."""

    def __init__(self, area: str) -> None:
        self.area = area
        self.namespace = ()
        self._ttl: Any = UNSET
        self._tags: set[str] = set()

    @property
    def ttl(self) -> Duration | None:
        """
        Life of what is loaded, in seconds; settable.

        A duration (seconds, a timedelta, or text such as "5m"), ``None`` for no expiry, 0 to store
        nothing and drop an older copy.  Until it is set: what the call or the area says.

        Raises:
            TypeError, ValueError: What it is set to is no such thing.
        """
        life: Duration | None = self._ttl
        return life

    @ttl.setter
    def ttl(self, ttl: Duration | None) -> None:
        self._ttl = _checked_ttl(ttl)

    @property
    def tags(self) -> set[str]:
        """
        Tags of what is loaded, beside those of the area and of the call; empty at first.

        A set that may be added to, or replaced by any iterable of str.  With one that is empty or
        longer than 255 bytes in UTF-8, or with more than eight together, the value is returned, and
        not stored.

        Raises:
            TypeError: What it is set to is no iterable of str.
        """
        return self._tags

    @tags.setter
    def tags(self, tags: Iterable[str]) -> None:
        self._tags = set(tagging.listed(tags))

    def fail(self, reason: str) -> NoReturn:
        """
        Give up, as if the loader had raised: a stale value may be the answer.

        Args:
            reason: Message of the cause of the LoaderError that the caller gets otherwise.

        Raises:
            LoadFailed: Always; let it pass.
        """
        raise LoadFailed(reason)


class LoadContext(_Context):
    """
    What a loader of one key may know and say.

    A loader gets it by having a parameter called ``context``.  *area* is the area's name.
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
        """Life that was set for a key, in seconds; UNSET: none was."""
        return self._ttl

    def tags_for(self, key: Any) -> set[str]:  # noqa: ARG002  as BatchContext
        """Tags that were set for a key."""
        return self._tags

    def skips(self, key: Any) -> bool:  # noqa: ARG002  as BatchContext
        """Whether nothing is to be stored for a key."""
        return self._skipped


class BatchContext(_Context):
    """
    What a loader of many keys may know and say.

    ``mload`` gets it by having a parameter called ``context``.  *area* is the area's name, *keys*
    is what was asked for.
    """

    __slots__ = ("_all_skipped", "_complete", "_skipped", "_stale", "_tags_of", "_ttls", "keys")

    keys: list[Any]
    """What was asked for."""

    def __init__(self, area: str, keys: list[Any], stale: Callable[[Any], Any]) -> None:
        super().__init__(area)
        self.keys = keys
        self._stale = stale
        self._ttls: dict[Any, Any] = {}
        self._tags_of: dict[Any, tuple[str, ...]] = {}
        self._skipped: set[Any] = set()
        self._all_skipped = False
        self._complete = False

    def stale_value_of(self, key: Any) -> Any:
        """The value that a key had, if it is still there; else MISS."""
        return self._stale(key)

    def ttl_of(self, key: Any, ttl: Duration | None) -> None:
        """
        Set the life of one key's value; it counts more than *ttl* of the batch.

        Args:
            key: One of *keys*.
            ttl: As for the property *ttl*.

        Raises:
            TypeError, ValueError: *ttl* is no duration.
        """
        self._ttls[key] = _checked_ttl(ttl)

    def tags_of(self, key: Any, *tags: str) -> None:
        """
        Add tags to one key's value, beside those of the whole batch.

        Args:
            key: One of *keys*.
            tags: As for the property *tags*.

        Raises:
            TypeError: A tag is no str.
        """
        self._tags_of[key] = (*self._tags_of.get(key, ()), *tagging.listed(tags))

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
        """Life that was set for a key, in seconds; UNSET: none was."""
        return self._ttls.get(key, self._ttl)

    def tags_for(self, key: Any) -> set[str]:
        """Tags that were set for a key, those of the batch among them."""
        return self._tags.union(self._tags_of.get(key, ()))

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
