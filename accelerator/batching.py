"""
Functions of many items whose answers are cached item by item: what cacheable_batch() makes.

Each item of a call is a key of the view, and the function the ``mload`` of its loader.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from accelerator import loading
from accelerator.caching import Cacheable, aown, own_of
from accelerator.calls import Arguments, items_of
from accelerator.entry import MISS
from accelerator.errors import CacheError, LoaderError
from accelerator.loader import BatchContext, LoadContext

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from accelerator.twins import AsyncTwins


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
        try:
            raise own_of(failure)
        finally:
            del failure  # see own_of()

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
        try:
            raise own_of(failure)
        finally:
            del failure  # see own_of()

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
            return aown(self._arefresh(view, wanted))
        if not wanted:
            return {}
        try:
            return self._refreshed(wanted, loading.run(view._refreshing_all(wanted)))
        except LoaderError as error:
            failure = error
        try:
            raise own_of(failure)
        finally:
            del failure  # see own_of()

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
