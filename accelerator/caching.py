"""
Functions whose answers are cached: what cacheable() makes of them.

The function is the loader of a view of the area, whose callers' keys are the arguments of calls.
So a decorated function has all that loaders have: one load per key and host, time limits, stale
answers, refresh-ahead, and it is counted as they are.

A second view is for the native part: its callers' keys are plain arguments as they are given.  It
answers hits and nothing else; whatever it does not know is asked of the first one.
"""

from __future__ import annotations

import logging
from types import CoroutineType
from typing import TYPE_CHECKING, Any, Final, NoReturn

from accelerator import local
from accelerator.calls import Arguments, Parameters, key_of
from accelerator.entry import MISS
from accelerator.errors import BackendError, CacheError, LoaderError, NotAttached
from accelerator.loader import LoadContext, LoadFailed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from accelerator.answers import Judge, Where
    from accelerator.twins import AsyncTwins

LOG: Final = logging.getLogger("accelerator")


CACHE_FAULTS: Final = (BackendError, NotAttached)
"""What on_cache_error is about, besides values that cannot be stored."""


class FunctionLoader:
    """The decorated function as the loader of calls."""

    def __init__(self, cached: Cacheable) -> None:
        self._cached = cached

    def load(self, arguments: Arguments, context: LoadContext) -> Any:
        """Call the function."""
        result = self._cached.call(arguments, context)
        if type(result) is CoroutineType:
            result.close()
            raise TypeError(
                f"{self._cached.parameters.name}() answered with a coroutine, which can be awaited "
                "only once: decorate an async function"
            )
        return self._cached.judged(arguments, result, context)


class AsyncFunctionLoader(FunctionLoader):
    """The same of a coroutine function."""

    async def load(self, arguments: Arguments, context: LoadContext) -> Any:
        """Call the function."""
        result = await self._cached.call(arguments, context)
        return self._cached.judged(arguments, result, context)


class Cacheable:
    """
    A function whose answers are cached.

    Args:
        function: The function.
        parameters: Its parameters.
        where: Its cache.
        key: Makes the key of a call.
        judge: What becomes of answers.
        unless: Function of the arguments: whether the cache has no part in a call.
        propagates: Faults of the cache are raised.
        overrides: Options that differ from the area's.
    """

    _loaders: tuple[type, type] = (FunctionLoader, AsyncFunctionLoader)

    def __init__(
        self,
        function: Callable[..., Any],
        parameters: Parameters,
        where: Where,
        key: Any,
        *,
        judge: Judge,
        unless: Callable[..., Any] | None,
        propagates: bool,
        overrides: dict[str, Any],
    ) -> None:
        self.function = function
        self.parameters = parameters
        self.where = where
        self.judge = judge
        self.is_async = parameters.is_async
        self._key = key
        self._unless = unless
        self._propagates = propagates
        self._overrides = overrides
        self._ttl = judge.fixed_ttl
        self.hit: Callable[..., Any] = _unset
        """Of a coroutine function: answers plain calls, or UNSET."""
        self._fixed = None if where.fixed is None else self._new_view(where.fixed)
        self.on_error = "raise" if propagates else "queue"

    # --- views ---

    def _new_view(self, cache: Any) -> AsyncTwins:
        loader = self._loaders[self.is_async](self)
        overrides = dict(self._overrides)
        if not hasattr(loader, "mload"):
            overrides.setdefault("batch_timeout", None)
        view: AsyncTwins = cache._view(
            converter=key_of, flags=local.BY_ANSWER, loader=loader, ttl=self._ttl, **overrides
        )
        view._propagates = self._propagates
        return view

    def hits(self) -> Any:
        """Give a view for calls with plain arguments; None: there are none."""
        if self._fixed is None or self._unless is not None:
            return None
        if self._key.needs_receiver or not self._key.is_pure:
            return None
        view = self.where.fixed._view(
            converter=self._key_of_plain, ttl=self._ttl, **self._overrides_of_hits()
        )
        view._propagates = self._propagates
        return view

    def _overrides_of_hits(self) -> dict[str, Any]:
        # With the loader the options are those of the other view, the time of refresh among them.
        loader = _anever if self.is_async else _never
        return {"batch_timeout": None, **self._overrides, "loader": loader}

    def _key_of_plain(self, given: Any) -> Any:
        """Make the key of a lone argument, or of (arguments, keywords); none is the receiver."""
        args: tuple[Any, ...]
        args, kwargs = given if type(given) is tuple else ((given,), {})
        if self.parameters.receiver is not None:
            args = (None, *args)
        return self._key.of(self.parameters.bind(args, kwargs), args, kwargs)

    def view(self, args: tuple[Any, ...]) -> AsyncTwins:
        """Give the view for a call."""
        if self._fixed is not None:
            return self._fixed
        views: dict[Any, AsyncTwins] = self.where.of(args)._views_of_functions
        found = views.get(self)
        if found is None:
            found = views.setdefault(self, self._new_view(self.where.of(args)))
        return found

    # --- receivers ---

    @property
    def needs_receiver(self) -> bool:
        """Whether key or cache are found by the receiver."""
        return self._key.needs_receiver or self._fixed is None

    def is_method_of(self, receiver: Any) -> bool:
        """Whether a class, or that of a class, has this function."""
        if not isinstance(receiver, type):
            return False
        bases: list[type] = [*type.mro(receiver), *type.mro(type(receiver))]
        members = (
            getattr(member, "__func__", member) for base in bases for member in vars(base).values()
        )
        return any(getattr(each, "__cached__", None) is self for each in members)

    # --- calls ---

    def arguments(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Arguments:
        """
        Make the caller's key of a call.

        Raises:
            TypeError, ValueError: The function cannot be called like this, or has no key then.
        """
        key = self._key.of(self.parameters.bind(args, kwargs), args, kwargs)
        return Arguments(key, args, kwargs)

    def call(self, arguments: Arguments, context: LoadContext) -> Any:
        """Call the function itself."""
        return self.with_context(context, *arguments.args, **arguments.kwargs)

    def with_context(self, context: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Call the function itself, with a context if it wants one."""
        if self.parameters.takes_context:
            return self.function(*args, **kwargs, context=context)
        return self.function(*args, **kwargs)

    def judged(self, arguments: Arguments, result: Any, context: LoadContext) -> Any:
        """Say what becomes of an answer; give it."""
        if not self.judge.keeps(result):
            context.skip()
            return result
        for ttl in self.judge.life(result):
            context.ttl = ttl
        if self.judge.has_tags:
            args, kwargs = arguments.args, arguments.kwargs
            bound = self.parameters.bind(args, kwargs)
            context.tags.update(self.judge.tags(result, bound, args, kwargs))
        return result

    def bypasses(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
        """Whether the cache has no part in a call."""
        return self._unless is not None and bool(self._unless(*args, **kwargs))

    def otherwise(self, /, *args: Any, **kwargs: Any) -> Any:
        """Answer a call that is not async."""
        if self.bypasses(args, kwargs):
            return self.uncached(*args, **kwargs)
        arguments = self.arguments(args, kwargs)
        try:
            return self.view(args).get(arguments)
        except CacheError as error:
            failure = error
        if self._is_ignored(failure):
            return self.uncached(*args, **kwargs)
        try:
            raise own_of(failure)
        finally:
            del failure  # see own_of()

    async def aotherwise(self, /, *args: Any, **kwargs: Any) -> Any:
        """Answer a call that is async."""
        found = self.hit(*args, **kwargs)
        if found is not local.UNSET:
            return found
        if self.bypasses(args, kwargs):
            return await self.uncached(*args, **kwargs)
        arguments = self.arguments(args, kwargs)
        try:
            view = self.view(args)
            found = view._hit(arguments)
            return found if found is not local.UNSET else await view.aget(arguments)
        except CacheError as error:
            failure = error
        if self._is_ignored(failure):
            return await self.uncached(*args, **kwargs)
        try:
            raise own_of(failure)
        finally:
            del failure  # see own_of()

    def _is_ignored(self, failure: CacheError) -> bool:
        if self._propagates or not isinstance(failure, CACHE_FAULTS):
            return False
        LOG.warning("%s() runs without its cache: %s", self.parameters.name, failure)
        return True

    # --- what is offered beside the function ---

    def uncached(self, /, *args: Any, **kwargs: Any) -> Any:
        """Call the function itself: nothing is read from the cache or stored."""
        area = self.where.area or ""
        return self.with_context(LoadContext(area, lambda: MISS), *args, **kwargs)

    def key(self, /, *args: Any, **kwargs: Any) -> Any:
        """Give the key of these arguments, as the area's own methods take it."""
        return self.arguments(args, kwargs).key

    def invalidate(self, /, *args: Any, **kwargs: Any) -> Any:
        """Forget the answer for these arguments; whether there was one."""
        view, arguments = self.view(args), self.arguments(args, kwargs)
        if self.is_async:
            return view.adelete(arguments, on_error=self.on_error)
        return view.delete(arguments, on_error=self.on_error)

    def peek(self, /, *args: Any, **kwargs: Any) -> Any:
        """Give the answer for these arguments if it is there, else None."""
        view, arguments = self.view(args), self.arguments(args, kwargs)
        return view.apeek(arguments) if self.is_async else view.peek(arguments)

    def refresh(self, /, *args: Any, **kwargs: Any) -> Any:
        """Call the function now, whatever is stored, and store its answer."""
        view, arguments = self.view(args), self.arguments(args, kwargs)
        if self.is_async:
            return aown(view.arefresh(arguments))
        try:
            return view.refresh(arguments)
        except LoaderError as error:
            failure = error
        try:
            raise own_of(failure)
        finally:
            del failure  # see own_of()


def _unset(*_: Any, **__: Any) -> Any:
    return local.UNSET


async def _anever(_: Any) -> NoReturn:
    """Stand for the same where loaders are async."""
    raise AssertionError("this view loads nothing")


def _never(_: Any) -> NoReturn:
    """Stand for the loader where nothing is loaded."""
    raise AssertionError("this view loads nothing")


async def aown(answer: Awaitable[Any]) -> Any:
    """
    Await an answer of a view.

    Raises:
        Exception: What the function itself has raised, as it did; else what the cache says.
    """
    try:
        return await answer
    except LoaderError as error:
        failure = error
    try:
        raise own_of(failure)
    finally:
        del failure  # see own_of()


def own_of(failure: CacheError) -> Exception:
    """
    Give what the function itself has raised, as it did; else what the cache says.

    Who raises it must keep neither: the frame is part of the traceback, and would hold it, and so
    all that the function had in its hands, until the next collection of garbage.
    """
    own = failure.__cause__ if isinstance(failure, LoaderError) else None
    return own if isinstance(own, Exception) and not isinstance(own, LoadFailed) else failure
