"""
Functions whose answers are cached: what cacheable() and cacheable_batch() leave in their place.

The function is the loader of a view of the area, whose callers' keys are the arguments of calls.
So a decorated function has all that loaders have: one load per key and host, time limits, stale
answers, refresh-ahead, and it is counted as they are.

A second view is for the native part: its callers' keys are the one argument of a plain call.  It
answers hits and nothing else; whatever it does not know is asked of the first one.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from types import CoroutineType
from typing import TYPE_CHECKING, Any, Final, NoReturn

from accelerator import loading, local
from accelerator.calls import Arguments, Parameters, TemplateKey, items_of, key_of
from accelerator.entry import MISS
from accelerator.errors import BackendError, CacheError, ConfigError, LoaderError, NotAttached
from accelerator.loader import BatchContext, LoadContext, LoadFailed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from accelerator.twins import AsyncTwins

LOG: Final = logging.getLogger("accelerator")

OVERRIDES: Final = frozenset(
    {
        "local_ttl",
        "remote_ttl",
        "null_ttl",
        "ttl_jitter_ratio",
        "stale_ttl",
        "stale_on_error",
        "allow_stale",
        "error_ttl",
        "max_staleness",
        "objects",
        "loader_timeout",
        "batch_timeout",
        "wait_timeout",
        "soft_timeout",
        "lease",
        "max_loads",
        "penetration_protect",
        "background",
        "refresh_ahead",
        "refresh_ahead_window",
    }
)
"""Options of an area that a decorator may change for its function."""

CACHE_FAULTS: Final = (BackendError, NotAttached)
"""What on_cache_error is about, besides values that cannot be stored."""


class Where:
    """
    The cache of a decorated function: given, or found when it is called.

    Args:
        source: The cache, or a function that gives it: of the receiver, if there is one.
        parameters: Of the function.
    """

    def __init__(self, source: Any, parameters: Parameters) -> None:
        self.fixed: Any = source if hasattr(source, "_view") else None
        if self.fixed is None and not callable(source):
            kind = type(source).__name__
            raise ConfigError(
                f"the cache of {parameters.name}() must be a LevelCache, or a function that gives "
                f"one, not {kind}",
                setting="cache",
                operation="decorate",
            )
        self._source = source
        self._of_receiver = parameters.receiver is not None
        self._name = parameters.name

    @property
    def area(self) -> str | None:
        """Name of the area, if it is known before a call."""
        return None if self.fixed is None else self.fixed.config.area

    def of(self, args: tuple[Any, ...]) -> Any:
        """Give the cache of a call."""
        if self.fixed is not None:
            return self.fixed
        found = self._source(*args[:1]) if self._of_receiver else self._source()
        if not hasattr(found, "_view"):
            kind = type(found).__name__
            raise TypeError(f"the cache of {self._name}() must be a LevelCache, not {kind}")
        return found


class Judge:
    """
    What becomes of an answer.

    Args:
        parameters: Of the function.
        ttl: Life: a duration, a function of the answer, or MISS for what the area says.
        tags: Templates over the parameters and ``result``, or a function of the answer and the
            arguments.
        condition: Function of the answer: whether it is stored.
        cache_none: Whether None is.
        more: Other names that the templates may use.
    """

    def __init__(
        self,
        parameters: Parameters,
        *,
        ttl: Any,
        tags: Any,
        condition: Callable[[Any], Any] | None,
        cache_none: bool,
        more: Iterable[str] = (),
    ) -> None:
        self.ttl = ttl
        self._condition = condition
        self._cache_none = cache_none
        self._tags_of = tags if callable(tags) else None
        texts = () if tags is None or callable(tags) else _texts(tags)
        self._tags = [
            TemplateKey(text, parameters, ["result", *more], what="tags") for text in texts
        ]

    @property
    def fixed_ttl(self) -> Any:
        """Life of every answer; MISS: it is for the area, or for the answer, to say."""
        return MISS if callable(self.ttl) else self.ttl

    @property
    def has_tags(self) -> bool:
        """Whether any answer may have tags."""
        return bool(self._tags) or self._tags_of is not None

    def keeps(self, result: Any) -> bool:
        """Whether an answer is to be stored."""
        if result is None and not self._cache_none:
            return False
        return self._condition is None or bool(self._condition(result))

    def life(self, result: Any) -> tuple[Any, ...]:
        """Life of an answer, if it is for the answer to say."""
        return (self.ttl(result),) if callable(self.ttl) else ()

    def tags(
        self, result: Any, arguments: Mapping[str, Any], args: tuple[Any, ...], kwargs: Any
    ) -> list[str]:
        """Tags of an answer; of None, those that are not about the answer."""
        if self._tags_of is not None:
            return list(self._tags_of(result, *args, **kwargs))
        known = {**arguments, "result": result}
        return [
            tag.template.tag(known)
            for tag in self._tags
            if result is not None or "result" not in tag.template.names
        ]


def _texts(tags: Any) -> list[str]:
    found = None if isinstance(tags, str) else list(tags)
    if found is None or not all(isinstance(tag, str) for tag in found):
        raise ConfigError(
            "tags must be a list of texts, or a function", setting="tags", operation="decorate"
        )
    return found


# --- loaders -----------------------------------------------------------------------------------


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


# --- one call, one value -----------------------------------------------------------------------


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
        if self._fixed is None or self._unless is not None or self.is_async:
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
        return {"batch_timeout": None, **self._overrides, "loader": _never}

    def _key_of_plain(self, given: Any) -> Any:
        """Make the key of a lone argument, or of (arguments, keywords); none is the receiver."""
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
        members = (
            getattr(member, "__func__", member)
            for base in (*receiver.__mro__, *type(receiver).__mro__)
            for member in vars(base).values()
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
        raise own_of(failure)

    async def aotherwise(self, /, *args: Any, **kwargs: Any) -> Any:
        """Answer a call that is async."""
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
        raise own_of(failure)

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
            return _aown(view.arefresh(arguments))
        try:
            return view.refresh(arguments)
        except LoaderError as error:
            failure = error
        raise own_of(failure)


def _never(_: Any) -> NoReturn:
    """Stand for the loader where nothing is loaded."""
    raise AssertionError("this view loads nothing")


async def _aown(answer: Awaitable[Any]) -> Any:
    try:
        return await answer
    except LoaderError as error:
        failure = error
    raise own_of(failure)


def own_of(failure: CacheError) -> Exception:
    """Give what the function itself has raised, as it did; else what the cache says."""
    own = failure.__cause__ if isinstance(failure, LoaderError) else None
    return own if isinstance(own, Exception) and not isinstance(own, LoadFailed) else failure


# --- one call, many values ---------------------------------------------------------------------


class BatchLoader:
    """The decorated function of many items as the loader of calls."""

    def __init__(self, cached: CacheableBatch) -> None:
        self._cached = cached

    def load(self, arguments: Arguments, context: LoadContext) -> Any:
        """Call the function for one item."""
        found = self._cached.call_for([arguments], context)
        return self._cached.judged_alone(arguments, found, context)

    def mload(self, wanted: list[Arguments], context: BatchContext) -> dict[Arguments, Any]:
        """Call the function for many items."""
        return self._cached.judged_all(wanted, self._cached.call_for(wanted, context), context)


class AsyncBatchLoader:
    """The same of a coroutine function."""

    def __init__(self, cached: CacheableBatch) -> None:
        self._cached = cached

    async def load(self, arguments: Arguments, context: LoadContext) -> Any:
        """Call the function for one item."""
        found = await self._cached.call_for([arguments], context)
        return self._cached.judged_alone(arguments, found, context)

    async def mload(self, wanted: list[Arguments], context: BatchContext) -> dict[Arguments, Any]:
        """Call the function for many items."""
        found = await self._cached.call_for(wanted, context)
        return self._cached.judged_all(wanted, found, context)


class CacheableBatch(Cacheable):
    """
    A function of many items whose answers are cached item by item.

    Args:
        parameter: Name of the parameter that takes the items.
        item: What one of them is called in *key*.
        complete: Items that the function's answer lacks do not exist, which is cached.
        options: As of Cacheable.
    """

    _loaders = (BatchLoader, AsyncBatchLoader)

    def __init__(
        self, *positional: Any, parameter: str, item: str, complete: bool, **options: Any
    ) -> None:
        self._parameter = parameter
        self._item = item
        self._complete = complete
        super().__init__(*positional, **options)

    def hits(self) -> Any:
        """None: a call has many keys."""
        return None

    # --- items ---

    def wanted(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Arguments]:
        """Make the callers' keys of a call: one for each item, in the order of first mention."""
        bound = self.parameters.bind(args, kwargs)
        items = items_of(self.parameters, self._parameter, bound)
        if isinstance(items, Iterator):  # it can be asked once, and others want to know as well
            items = bound[self._parameter] = list(items)
            whole = self.parameters.signature.bind(*args, **kwargs)
            whole.arguments[self._parameter] = items
            args, kwargs = whole.args, whole.kwargs
        found: dict[Arguments, None] = {}
        for item in items:
            self._check_item(item)
            key = self._key.of({**bound, self._item: item}, (item,), {})
            found.setdefault(Arguments(key, args, kwargs, item))
        return list(found)

    def _check_item(self, item: Any) -> None:
        try:
            hash(item)
        except TypeError:
            kind = type(item).__name__
            raise TypeError(
                f"{self.parameters.name}() answers with a dict of its items, in which a {kind} "
                "cannot be a key: take a list of what can, such as ids"
            ) from None

    def call_for(self, wanted: Sequence[Arguments], context: Any) -> Any:
        """Call the function itself for some of the items."""
        args, kwargs = wanted[0].args, wanted[0].kwargs
        bound = self.parameters.signature.bind(*args, **kwargs)
        items = bound.arguments[self._parameter]
        chosen = [one.item for one in wanted]
        bound.arguments[self._parameter] = tuple(chosen) if isinstance(items, tuple) else chosen
        return self.with_context(context, *bound.args, **bound.kwargs)

    def _by_item(self, wanted: Sequence[Arguments], result: Any) -> dict[Arguments, Any]:
        if isinstance(result, Mapping):
            return {one: result[one.item] for one in wanted if one.item in result}
        if isinstance(result, list | tuple) and len(result) == len(wanted):
            return dict(zip(wanted, result, strict=True))
        kind = type(result).__name__
        if isinstance(result, list | tuple):
            kind += f" of {len(result)}"
        raise TypeError(
            f"{self.parameters.name}() must answer a mapping of the items, or a list of as many "
            f"answers as it was asked for ({len(wanted)}), not {kind}"
        )

    def judged_all(
        self, wanted: Sequence[Arguments], result: Any, context: BatchContext
    ) -> dict[Arguments, Any]:
        """Say what becomes of each answer; give them."""
        found = self._by_item(wanted, result)
        if self._complete:
            context.complete()
            found.update({one: None for one in wanted if one not in found})
        for one, value in found.items():
            if not self.judge.keeps(value):
                context.skip(one)
                continue
            for ttl in self.judge.life(value):
                context.ttl_of(one, ttl)
            if self.judge.has_tags:
                context.tags_of(one, *self._tags_for(one, value))
        return found

    def judged_alone(self, one: Arguments, result: Any, context: LoadContext) -> Any:
        """Say what becomes of the answer for one item; give it."""
        found = self._by_item([one], result)
        value = found.get(one)
        if (one not in found and not self._complete) or not self.judge.keeps(value):
            context.skip()
            return value
        for ttl in self.judge.life(value):
            context.ttl = ttl
        if self.judge.has_tags:
            context.tags.update(self._tags_for(one, value))
        return value

    def _tags_for(self, one: Arguments, value: Any) -> list[str]:
        bound = {**self.parameters.bind(one.args, one.kwargs), self._item: one.item}
        return self.judge.tags(value, bound, (one.item,), {})

    def _as_dict(self, wanted: Iterable[Arguments], found: Mapping[Any, Any]) -> dict[Any, Any]:
        answer = {one.item: found[one] for one in wanted}
        if len(answer) != len(found):
            raise ValueError(
                f"{self.parameters.name}() answers with a dict, in which some of these items are "
                "equal though they have different keys, as 1 and True have: ask for them in two "
                "calls"
            )
        return answer

    # --- calls ---

    def otherwise(self, /, *args: Any, **kwargs: Any) -> Any:
        """Answer a call that is not async."""
        wanted = self.wanted(args, kwargs)
        if not wanted:
            return {}
        if self.bypasses(wanted[0].args, wanted[0].kwargs):
            return self._uncached(wanted)
        try:
            return self._as_dict(wanted, self.view(args).mget(wanted))
        except CacheError as error:
            failure = error
        self._complete_result(wanted, args, failure)
        if self._is_ignored(failure):
            return self._uncached(wanted)
        raise own_of(failure)

    async def aotherwise(self, /, *args: Any, **kwargs: Any) -> Any:
        """Answer a call that is async."""
        wanted = self.wanted(args, kwargs)
        if not wanted:
            return {}
        if self.bypasses(wanted[0].args, wanted[0].kwargs):
            return await self._uncached(wanted)
        try:
            view = self.view(args)
            return self._as_dict(wanted, await view.amget(wanted))
        except CacheError as error:
            failure = error
        self._complete_result(wanted, args, failure)
        if self._is_ignored(failure):
            return await self._uncached(wanted)
        raise own_of(failure)

    def uncached(self, /, *args: Any, **kwargs: Any) -> Any:
        """Call the function itself for all items: nothing is read from the cache or stored."""
        return self._uncached(self.wanted(args, kwargs))

    def _uncached(self, wanted: list[Arguments]) -> Any:
        if self.is_async:
            return self._auncached(wanted)
        if not wanted:
            return {}
        return self._uncached_dict(wanted, self.call_for(wanted, self._context(wanted)))

    def _complete_result(
        self, wanted: list[Arguments], args: tuple[Any, ...], failure: CacheError
    ) -> None:
        """Add what was found in the cache to what the function has answered, for who is told."""
        if hasattr(failure, "result"):
            loaded: dict[Any, Any] = failure.result
            view = self.view(args)
            readings = {one: view._read(one) for one in wanted if one not in loaded}
            found = {one: None if read is None else read[0] for one, read in readings.items()}
            failure.result = {one.item: {**found, **loaded}[one] for one in wanted}

    async def _auncached(self, wanted: list[Arguments]) -> dict[Any, Any]:
        if not wanted:
            return {}
        return self._uncached_dict(wanted, await self.call_for(wanted, self._context(wanted)))

    def _context(self, wanted: list[Arguments]) -> BatchContext:
        return BatchContext(self.where.area or "", [*wanted], lambda _: MISS)

    def _uncached_dict(self, wanted: list[Arguments], result: Any) -> dict[Any, Any]:
        found = self._by_item(wanted, result)
        return {one.item: found.get(one) for one in wanted}

    def key(self, /, *args: Any, **kwargs: Any) -> Any:
        """Give the key of each item."""
        return {one.item: one.key for one in self.wanted(args, kwargs)}

    def invalidate(self, /, *args: Any, **kwargs: Any) -> Any:
        """Forget the answers for these items; how many there were."""
        view, wanted = self.view(args), self.wanted(args, kwargs)
        if self.is_async:
            return view.amdelete(wanted, on_error=self.on_error)
        return view.mdelete(wanted, on_error=self.on_error)

    def peek(self, /, *args: Any, **kwargs: Any) -> Any:
        """Give what is there of the answers for these items, without calling the function."""
        view, wanted = self.view(args), self.wanted(args, kwargs)
        if self.is_async:
            return self._apeek(view, wanted)
        return {one.item: view.peek(one) for one in wanted}

    @staticmethod
    async def _apeek(view: AsyncTwins, wanted: list[Arguments]) -> dict[Any, Any]:
        return {one.item: await view.apeek(one) for one in wanted}

    def refresh(self, /, *args: Any, **kwargs: Any) -> Any:
        """Call the function for all these items now, and store its answers."""
        view, wanted = self.view(args), self.wanted(args, kwargs)
        if self.is_async:
            return _aown(self._arefresh(view, wanted))
        if not wanted:
            return {}
        try:
            return self._refreshed(wanted, loading.run(view._refreshing_all(wanted)))
        except LoaderError as error:
            failure = error
        raise own_of(failure)

    async def _arefresh(self, view: AsyncTwins, wanted: list[Arguments]) -> dict[Any, Any]:
        from accelerator import aloading  # noqa: PLC0415  asyncio is imported where it is used only

        if not wanted:
            return {}
        return self._refreshed(wanted, await aloading.run(view._refreshing_all(wanted)))

    @staticmethod
    def _refreshed(wanted: list[Arguments], readings: list[Any]) -> dict[Any, Any]:
        return {
            one.item: None if reading is None else reading[0]
            for one, reading in zip(wanted, readings, strict=True)
        }
