"""
Decorators: cacheable, cacheable_batch, cache_put, cache_evict, cache_evict_batch.

Each is a method of LevelCache, and a function here whose first argument is the cache, or a function
that gives it: of the receiver where the decorated function is a method, of nothing elsewhere.  They
work on functions and methods, static and class methods, ``def`` and ``async def``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from accelerator.answers import Where
from accelerator.batching import CacheableBatch
from accelerator.caching import Cacheable
from accelerator.callables import applied, call_of
from accelerator.calls import AutomaticKey, Parameters, TemplateKey
from accelerator.decorating import (
    Given,
    check_ignored,
    key_of_call,
    keys_of_call,
    name_of_item,
    parameter_of_items,
    refuse_receiver,
)
from accelerator.entry import MISS
from accelerator.evicting import Evict, Put, make_key, refuse_nothing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from accelerator.decorated import CacheableDecorator, ChangeDecorator
    from accelerator.twins import AsyncTwins

    CacheSource = AsyncTwins[Any, Any] | Callable[[Any], Any] | Callable[[], Any]
    """A LevelCache, or a function that gives one: of the receiver, or of nothing."""


def cacheable(
    cache: CacheSource,
    key: str | Callable[..., Any] | None = None,
    *,
    ignore: Iterable[str] = (),
    ttl: Any = MISS,
    tags: Iterable[str] | Callable[..., Iterable[str]] | None = None,
    condition: Callable[[Any], Any] | None = None,
    unless: Callable[..., Any] | None = None,
    cache_none: bool = True,
    on_cache_error: str = "ignore",
    **options: Any,
) -> CacheableDecorator:
    """
    Cache what a function answers, for all processes.

    The function is the loader of its calls: it runs once for many callers that miss at the same
    time, with the area's time limits, stale answers and refresh-ahead.  What it raises reaches its
    direct caller as it was raised.  If it has a parameter ``context`` it is given a LoadContext.

    Args:
        cache: A LevelCache, or a function that gives one: of the receiver, for methods.
        key: Template over the arguments, as ``"user:{user_id}"``; a function of the arguments; or
            None: all of them, with the function's name.
        ignore: Without *key*: parameters that do not count.
        ttl: Life of answers, as ``ttl=`` of set(): with Redis the copy in the segment ends by the
            area's *local_ttl*; jitter may shorten it.  Or a function of the answer.
        tags: Templates over the arguments and ``result``; or a function of the answer and the
            arguments.
        condition: Function of the answer: whether it is stored.
        unless: Function of the arguments: whether the cache has no part in a call.
        cache_none: Whether an answer of None is stored.
        on_cache_error: "ignore": a fault of the cache is logged, and the function runs;
            "propagate": it is raised, with the function's answer as *result* if that has run.
        options: Of the area, where they shall be others for this function: allow_stale,
            stale_on_error, refresh_ahead, loader_timeout, soft_timeout, error_ttl and such.

    Raises:
        ConfigError: What is given is wrong, or can have no effect.  Raised by the decorator.

    A call blocks as get_or_load() does; that of a coroutine function, its task only.
    """
    given = Given(tags, ttl, condition, unless, cache_none, on_cache_error, options)

    def decorate(function: Any, has_receiver: bool | None) -> Any:
        parameters = Parameters(function, has_receiver=has_receiver)
        where = Where(cache, parameters)
        made = key_of_call(function, parameters, key, ignore, where.area)
        return call_of(Cacheable(function, parameters, where, made, **given.for_loads(parameters)))

    decorator: CacheableDecorator = applied(decorate)
    return decorator


def cacheable_batch(
    cache: CacheSource,
    key: str | Callable[..., Any] | None = None,
    *,
    param: str | None = None,
    complete: bool = False,
    ignore: Iterable[str] = (),
    ttl: Any = MISS,
    tags: Iterable[str] | Callable[..., Iterable[str]] | None = None,
    condition: Callable[[Any], Any] | None = None,
    unless: Callable[..., Any] | None = None,
    cache_none: bool = True,
    on_cache_error: str = "ignore",
    **options: Any,
) -> CacheableDecorator:
    """
    Cache what a function answers for many items, each by itself.

    The function is given the items that are not known, each once and in the order of their first
    mention, as a list (as a tuple if it was called with one).  It answers a mapping of items, or a
    list of as many answers.  The call answers a dict of every item, None where nothing is known.

    Args:
        cache: As in cacheable().
        key: Template over the arguments and one more name, which stands for the item, as
            ``"user:{id}"``; a function of the item; or None: the item and all other arguments, with
            the function's name.
        param: The parameter that takes the items; None: the only one.
        complete: Items that the answer lacks do not exist: cached as None.
        ignore: As in cacheable().
        ttl: As in cacheable(), for each item.
        tags: The same; a function is given the answer and the item.
        condition: The same.
        unless: As in cacheable().
        cache_none: As in cacheable().
        on_cache_error: As in cacheable(); *result* is what the call would have answered.
        options: As in cacheable().

    Raises:
        ConfigError: What is given is wrong, or can have no effect.  Raised by the decorator.

    A call blocks as mget() of an area with a loader does; that of a coroutine function, its
    task only.
    """
    given = Given(tags, ttl, condition, unless, cache_none, on_cache_error, options)

    def decorate(function: Any, has_receiver: bool | None) -> Any:
        parameters = Parameters(function, has_receiver=has_receiver)
        where = Where(cache, parameters)
        chosen = parameter_of_items(parameters, param)
        item = name_of_item(key, parameters)
        if key is None:
            check_ignored(parameters, ignore)
            refuse_receiver(parameters, ignore, where.area)
            ignored = frozenset({*ignore, chosen})
            made: Any = AutomaticKey(function, parameters, ignored, where.area, item)
        elif isinstance(key, str):
            made = TemplateKey(key, parameters, [item])
        else:
            made = make_key(key, parameters)
        loads = given.for_loads(parameters, item)
        return call_of(
            CacheableBatch(
                *(function, parameters, where, made),
                parameter=chosen,
                item=item,
                complete=complete,
                **loads,
            )
        )

    decorator: CacheableDecorator = applied(decorate)
    return decorator


def cache_put(
    cache: CacheSource,
    key: str | Callable[..., Any],
    *,
    value: Callable[..., Any] | None = None,
    ttl: Any = MISS,
    tags: Iterable[str] | Callable[..., Iterable[str]] | None = None,
    condition: Callable[[Any], Any] | None = None,
    unless: Callable[..., Any] | None = None,
    cache_none: bool = True,
    on_cache_error: str = "ignore",
) -> ChangeDecorator:
    """
    Run a function, and store what it has answered.

    Args:
        cache: As in cacheable().
        key: Template over the arguments and ``result``, or a function of the arguments.
        value: Function of the answer and the arguments: what is stored (MISS: nothing); None: the
            answer.
        ttl: Life of the value, or a function of it; as ``ttl=`` of set().
        tags: As in cacheable().
        condition: Function of the answer: whether anything is stored.
        unless: Function of the arguments: nothing is stored.
        cache_none: Whether a value of None is stored.
        on_cache_error: "ignore": a fault of the cache is logged; "propagate": it is raised, with
            the function's answer as *result*.

    Raises:
        ConfigError: What is given is wrong.  Raised by the decorator.

    A call blocks for as long as the function, and then as set() does; that of a coroutine
    function, its task only.
    """
    given = Given(tags, ttl, None, unless, cache_none, on_cache_error, {})

    def decorate(function: Any, has_receiver: bool | None) -> Any:
        parameters = Parameters(function, has_receiver=has_receiver)
        change = Put(
            *(parameters, Where(cache, parameters)),
            key=key,
            value=value,
            judge=given.judge(parameters),
            condition=condition,
            **given.for_changes(),
        )
        return change.around(function)

    decorator: ChangeDecorator = applied(decorate)
    return decorator


def cache_evict(
    cache: CacheSource,
    key: str | Callable[..., Any] | None = None,
    *,
    tags: Iterable[str] | Callable[..., Iterable[str]] | None = None,
    all: bool = False,  # noqa: A002  what it forgets
    before: bool = False,
    expire: bool = False,
    condition: Callable[[Any], Any] | None = None,
    unless: Callable[..., Any] | None = None,
    on_cache_error: str = "ignore",
) -> ChangeDecorator:
    """
    Run a function, and forget what it has made out of date.

    Args:
        cache: As in cacheable().
        key: Template over the arguments and ``result``, or a function of the arguments.
        tags: What has one of these is forgotten; as in cacheable().
        all: The whole area is forgotten (of a namespace: all of that).
        before: Also before the function runs, and so even if it raises.  After it once more, as
            others may have loaded what was there meanwhile.
        expire: Stale copies stay usable.
        condition: Function of the answer: whether anything is forgotten after it.
        unless: Function of the arguments: nothing is forgotten.
        on_cache_error: As in cache_put().

    Raises:
        ConfigError: What is given is wrong.  Raised by the decorator.

    A call blocks for as long as the function, and as delete() does, once or, with *before*,
    twice; that of a coroutine function, its task only.
    """
    refuse_nothing(key, tags, all)
    given = Given(tags, MISS, None, unless, True, on_cache_error, {})

    def decorate(function: Any, has_receiver: bool | None) -> Any:
        parameters = Parameters(function, has_receiver=has_receiver)
        change = Evict(
            *(parameters, Where(cache, parameters)),
            key=key,
            keys=None,
            judge=given.judge(parameters),
            everything=all,
            expire=expire,
            first=before,
            condition=condition,
            **given.for_changes(),
        )
        return change.around(function)

    decorator: ChangeDecorator = applied(decorate)
    return decorator


def cache_evict_batch(
    cache: CacheSource,
    keys: str | Callable[..., Iterable[Any]],
    *,
    param: str | None = None,
    tags: Iterable[str] | Callable[..., Iterable[str]] | None = None,
    before: bool = False,
    expire: bool = False,
    condition: Callable[[Any], Any] | None = None,
    unless: Callable[..., Any] | None = None,
    on_cache_error: str = "ignore",
) -> ChangeDecorator:
    """
    Run a function, and forget many keys, each once.

    Args:
        cache: As in cacheable().
        keys: Template of the key of one item, as in cacheable_batch(); or a function of the
            arguments that gives the keys.
        param: With a template: the parameter that takes the items; None: the only one.
        tags: As in cache_evict().
        before: As in cache_evict().
        expire: As in cache_evict().
        condition: As in cache_evict().
        unless: As in cache_evict().
        on_cache_error: As in cache_put().

    Raises:
        ConfigError: What is given is wrong.  Raised by the decorator.

    A call blocks for as long as the function, and as mdelete() does, once or, with *before*,
    twice; that of a coroutine function, its task only.
    """
    given = Given(tags, MISS, None, unless, True, on_cache_error, {})

    def decorate(function: Any, has_receiver: bool | None) -> Any:
        parameters = Parameters(function, has_receiver=has_receiver)
        change = Evict(
            *(parameters, Where(cache, parameters)),
            key=None,
            keys=keys_of_call(keys, parameters, param),
            judge=given.judge(parameters),
            everything=False,
            expire=expire,
            first=before,
            condition=condition,
            **given.for_changes(),
        )
        return change.around(function)

    decorator: ChangeDecorator = applied(decorate)
    return decorator
