"""
Decorators: cacheable, cacheable_batch, cache_put, cache_evict, cache_evict_batch.

Each is a method of LevelCache, and a function here whose first argument is the cache, or a function
that gives it: of the receiver where the decorated function is a method, of nothing elsewhere.  They
work on functions and methods, static and class methods, ``def`` and ``async def``.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Final,
    ParamSpec,
    Protocol,
    TypedDict,
    TypeVar,
    overload,
)

from accelerator import local
from accelerator.caching import OVERRIDES, Cacheable, CacheableBatch, Judge, Where
from accelerator.calls import AutomaticKey, Parameters, TemplateKey, items_of
from accelerator.config.checks import refuse_unknown
from accelerator.durations import seconds
from accelerator.entry import MISS
from accelerator.errors import ConfigError
from accelerator.evicting import Evict, Put, make_key, refuse_nothing
from accelerator.templates import Template

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Mapping

    from accelerator.durations import Duration
    from accelerator.twins import AsyncTwins

    CacheSource = AsyncTwins[Any, Any] | Callable[[Any], Any] | Callable[[], Any]
    """A LevelCache, or a function that gives one: of the receiver, or of nothing."""

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
S = TypeVar("S")
F = TypeVar("F", bound="Callable[..., Any]")

_OFFERED: Final = ("invalidate", "refresh", "peek", "uncached", "key")
"""What there is beside a decorated function, with its arguments."""

_CLASS_RECEIVERS: Final = frozenset({"cls", "mcs"})


# --- what type checkers see --------------------------------------------------------------------


class Cached(Protocol[P, R_co]):
    """A function whose answers are cached."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Answer from the cache, or call the function."""

    def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """
        Forget the answer for these arguments; whether there was one.

        Raises:
            TypeError, ValueError: The function cannot be called like this, or has no key then.
            BackendError: With on_cache_error="propagate": Redis did not take it.
        """

    def refresh(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """
        Call the function now, whatever is stored, and store its answer.

        Raises:
            Exception: What the function raises, as it does.
            LoaderTimeout: Too many loads run, or an async one took too long.
        """

    def peek(self, *args: P.args, **kwargs: P.kwargs) -> R_co | None:
        """
        Give the answer for these arguments if it is there, else None.

        Raises:
            TypeError, ValueError: The function cannot be called like this, or has no key then.
        """

    def uncached(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """
        Call the function itself: nothing is read from the cache or stored.

        Raises:
            Exception: What the function raises.
        """

    def key(self, *args: P.args, **kwargs: P.kwargs) -> Any:
        """
        Give the key of these arguments, as the cache's own methods take it.

        Raises:
            TypeError, ValueError: The function cannot be called like this, or has no key then.
        """

    @property
    def cache(self) -> Any:
        """The cache; of a method that finds it on its receiver, only through an object."""

    @property
    def __wrapped__(self) -> Callable[..., Any]: ...

    @property
    def __name__(self) -> str: ...

    @overload
    def __get__(self, receiver: None, owner: Any = None) -> Cached[P, R_co]: ...
    @overload
    def __get__(
        self: Cached[Concatenate[Any, Q], R], receiver: object, owner: Any = None
    ) -> Cached[Q, R]: ...


class AsyncCached(Protocol[P, R_co]):
    """A coroutine function whose answers are cached."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R_co]:
        """Answer from the cache, or call the function."""

    def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, bool]:
        """
        Forget the answer for these arguments; whether there was one.

        Raises:
            TypeError, ValueError: The function cannot be called like this, or has no key then.
            BackendError: With on_cache_error="propagate": Redis did not take it.
        """

    def refresh(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R_co]:
        """
        Call the function now, whatever is stored, and store its answer.

        Raises:
            Exception: What the function raises, as it does.
            LoaderTimeout: Too many loads run, or an async one took too long.
        """

    def peek(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R_co | None]:
        """
        Give the answer for these arguments if it is there, else None.

        Raises:
            TypeError, ValueError: The function cannot be called like this, or has no key then.
        """

    def uncached(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R_co]:
        """
        Call the function itself: nothing is read from the cache or stored.

        Raises:
            Exception: What the function raises.
        """

    def key(self, *args: P.args, **kwargs: P.kwargs) -> Any:
        """
        Give the key of these arguments, as the cache's own methods take it.

        Raises:
            TypeError, ValueError: The function cannot be called like this, or has no key then.
        """

    @property
    def cache(self) -> Any:
        """The cache; of a method that finds it on its receiver, only through an object."""

    @property
    def __wrapped__(self) -> Callable[..., Any]: ...

    @property
    def __name__(self) -> str: ...

    @overload
    def __get__(self, receiver: None, owner: Any = None) -> AsyncCached[P, R_co]: ...
    @overload
    def __get__(
        self: AsyncCached[Concatenate[Any, Q], R], receiver: object, owner: Any = None
    ) -> AsyncCached[Q, R]: ...


class CacheableDecorator(Protocol):
    """What cacheable() and cacheable_batch() give, to be applied to a function."""

    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, function: Callable[P, Coroutine[Any, Any, R]], /
    ) -> AsyncCached[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> Cached[P, R]: ...


class ChangeDecorator(Protocol):
    """What the others give."""

    def __call__(self, function: F, /) -> F:
        """Wrap a function."""


class _Common(TypedDict, total=False):
    tags: Iterable[str] | Callable[..., Iterable[str]] | None
    condition: Callable[[Any], Any] | None
    unless: Callable[..., Any] | None
    on_cache_error: str


class CacheableOptions(_Common, total=False):
    """Keywords of cacheable()."""

    ignore: Iterable[str]
    ttl: Any
    cache_none: bool
    local_ttl: Duration | None
    remote_ttl: Duration | None
    null_ttl: Duration | None
    ttl_jitter_ratio: float | None
    stale_ttl: Duration | None
    stale_on_error: bool
    allow_stale: bool
    error_ttl: Duration
    max_staleness: Duration | None
    objects: str
    loader_timeout: Duration | None
    batch_timeout: Duration | None
    wait_timeout: Duration | None
    soft_timeout: Duration | None
    lease: Duration
    max_loads: int
    penetration_protect: bool
    background: Any
    refresh_ahead: bool
    refresh_ahead_window: Duration


class BatchOptions(CacheableOptions, total=False):
    """Keywords of cacheable_batch()."""

    param: str | None
    complete: bool


class PutOptions(_Common, total=False):
    """Keywords of cache_put()."""

    value: Callable[..., Any] | None
    ttl: Any
    cache_none: bool


class EvictOptions(_Common, total=False):
    """Keywords of cache_evict()."""

    all: bool
    before: bool
    expire: bool


class EvictBatchOptions(_Common, total=False):
    """Keywords of cache_evict_batch()."""

    param: str | None
    before: bool
    expire: bool


# --- the decorators ----------------------------------------------------------------------------


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
    """
    given = _Given(cache, tags, ttl, condition, unless, cache_none, on_cache_error, options)

    def decorate(function: Any, has_receiver: bool | None) -> Any:
        parameters = Parameters(function, has_receiver=has_receiver)
        where = Where(cache, parameters)
        made = _key_of_call(function, parameters, key, ignore, where.area)
        return _call(Cacheable(function, parameters, where, made, **given.for_loads(parameters)))

    decorator: CacheableDecorator = _applied(decorate)
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
    """
    given = _Given(cache, tags, ttl, condition, unless, cache_none, on_cache_error, options)

    def decorate(function: Any, has_receiver: bool | None) -> Any:
        parameters = Parameters(function, has_receiver=has_receiver)
        where = Where(cache, parameters)
        chosen = _parameter_of_items(parameters, param)
        item = _name_of_item(key, parameters)
        if key is None:
            _check_ignored(parameters, ignore)
            _refuse_receiver(parameters, ignore, where.area)
            ignored = frozenset({*ignore, chosen})
            made: Any = AutomaticKey(function, parameters, ignored, where.area, item)
        elif isinstance(key, str):
            made = TemplateKey(key, parameters, [item])
        else:
            made = make_key(key, parameters)
        loads = given.for_loads(parameters, item)
        return _call(
            CacheableBatch(
                *(function, parameters, where, made),
                parameter=chosen,
                item=item,
                complete=complete,
                **loads,
            )
        )

    decorator: CacheableDecorator = _applied(decorate)
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
    """
    given = _Given(cache, tags, ttl, None, unless, cache_none, on_cache_error, {})

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

    decorator: ChangeDecorator = _applied(decorate)
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
    """
    refuse_nothing(key, tags, all)
    given = _Given(cache, tags, MISS, None, unless, True, on_cache_error, {})

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

    decorator: ChangeDecorator = _applied(decorate)
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
    """
    given = _Given(cache, tags, MISS, None, unless, True, on_cache_error, {})

    def decorate(function: Any, has_receiver: bool | None) -> Any:
        parameters = Parameters(function, has_receiver=has_receiver)
        change = Evict(
            *(parameters, Where(cache, parameters)),
            key=None,
            keys=_keys_of_call(keys, parameters, param),
            judge=given.judge(parameters),
            everything=False,
            expire=expire,
            first=before,
            condition=condition,
            **given.for_changes(),
        )
        return change.around(function)

    decorator: ChangeDecorator = _applied(decorate)
    return decorator


# --- what they were given ----------------------------------------------------------------------


class _Given:
    """What the decorators have in common, checked before there is a function."""

    def __init__(  # noqa: PLR0917  of private use
        self,
        cache: Any,
        tags: Any,
        ttl: Any,
        condition: Any,
        unless: Any,
        cache_none: Any,
        on_cache_error: Any,
        options: dict[str, Any],
    ) -> None:
        if tags is not None and not callable(tags) and not isinstance(tags, str):
            tags = [*tags]  # it may be asked for its elements more than once
        if on_cache_error not in {"ignore", "propagate"}:
            raise ConfigError(
                "on_cache_error must be 'ignore' or 'propagate'",
                setting="on_cache_error",
                operation="decorate",
            )
        if not isinstance(cache_none, bool):
            raise ConfigError(
                f"cache_none must be True or False, not {type(cache_none).__name__}",
                setting="cache_none",
                operation="decorate",
            )
        for name, each in (("condition", condition), ("unless", unless)):
            if each is not None and not callable(each):
                raise ConfigError(
                    f"{name} must be a function, not {type(each).__name__}",
                    setting=name,
                    operation="decorate",
                )
        refuse_unknown(options, dict.fromkeys(OVERRIDES))  # type: ignore[arg-type]
        self._tags = tags
        self._ttl = _checked_ttl(ttl)
        self._condition = condition
        self._unless = unless
        self._cache_none = cache_none
        self._propagates = on_cache_error == "propagate"
        self._options = options

    def judge(self, parameters: Parameters, item: str | None = None) -> Judge:
        """Make what judges answers."""
        return Judge(
            parameters,
            ttl=self._ttl,
            tags=self._tags,
            condition=self._condition,
            cache_none=self._cache_none,
            more=() if item is None else (item,),
        )

    def for_changes(self) -> dict[str, Any]:
        """Options of a Change."""
        return {"unless": self._unless, "propagates": self._propagates}

    def for_loads(self, parameters: Parameters, item: str | None = None) -> dict[str, Any]:
        """Options of a Cacheable."""
        return {
            "judge": self.judge(parameters, item),
            "overrides": self._options,
            **self.for_changes(),
        }


def _checked_ttl(ttl: Any) -> Any:
    if ttl is MISS or callable(ttl):
        return ttl
    try:
        return seconds(ttl, name="ttl", allow_none=True)
    except (TypeError, ValueError) as error:
        raise ConfigError(str(error), setting="ttl", operation="decorate") from None


def _key_of_call(
    function: Any, parameters: Parameters, key: Any, ignore: Iterable[str], area: str | None
) -> Any:
    if key is None:
        _check_ignored(parameters, ignore)
        _refuse_receiver(parameters, ignore, area)
        return AutomaticKey(function, parameters, frozenset(ignore), area)
    if [*ignore]:
        raise ConfigError(
            "ignore has no effect with a key=, which names what counts: leave one of them out",
            setting="ignore",
            operation="decorate",
        )
    return make_key(key, parameters)


def _check_ignored(parameters: Parameters, ignore: Iterable[str]) -> None:
    if isinstance(ignore, str):
        raise ConfigError(
            "ignore must be a list of names, not text", setting="ignore", operation="decorate"
        )
    unknown = {*ignore} - parameters.names
    takes_any = any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters.own)
    if unknown and not takes_any:
        raise ConfigError(
            f"{parameters.name}() has no parameter {', '.join(sorted(unknown))} to ignore",
            setting="ignore",
            operation="decorate",
        )


def _refuse_receiver(parameters: Parameters, ignore: Iterable[str], area: str | None) -> None:
    """Refuse the key of all arguments for a method, whose answer may be about its object."""
    receiver = parameters.receiver
    # A cache that the object has, or names, is for the object to know about.
    if receiver is None or area is None or receiver in {*ignore}:
        return
    raise ConfigError(
        f"all objects would share what {parameters.name}() has answered for one of them: give a "
        f"key= that tells them apart, such as '{{{receiver}.id}}', or say that there is nothing to "
        f"tell, with ignore=['{receiver}']",
        setting="key",
        area=area,
        operation="decorate",
    )


def _parameter_of_items(parameters: Parameters, param: str | None) -> str:
    names = [one.name for one in parameters.own]
    if param is None and len(names) == 1:
        return names[0]
    if param is None or param not in names:
        raise ConfigError(
            f"param must name the parameter of {parameters.name}() that takes the items: one of "
            f"{', '.join(names) or 'none'}",
            setting="param",
            operation="decorate",
        )
    return param


def _name_of_item(key: Any, parameters: Parameters) -> str:
    """The name in a template that is no parameter."""
    if not isinstance(key, str):
        return "item"
    free = sorted(Template(key).names - parameters.names)
    if len(free) != 1:
        raise ConfigError(
            "the key template of a batch must have one name that is no parameter of "
            f"{parameters.name}(): it stands for the item; there are {', '.join(free) or 'none'}",
            setting="key",
            operation="decorate",
        )
    return free[0]


def _keys_of_call(keys: Any, parameters: Parameters, param: str | None) -> Any:
    """Make what gives all keys of a call, each once."""
    if isinstance(keys, str):
        chosen, item = _parameter_of_items(parameters, param), _name_of_item(keys, parameters)
        one = TemplateKey(keys, parameters, [item])

        def of_items(bound: Mapping[str, Any], args: Any, kwargs: Any) -> list[Any]:
            items = items_of(parameters, chosen, bound)
            if isinstance(items, Iterator):
                kind = type(items).__name__
                raise TypeError(
                    f"{parameters.name}() takes a list of items as {chosen}, not a {kind}, of "
                    "which nothing would be left for it"
                )
            return [one.of({**bound, item: each}, args, kwargs) for each in items]

        return of_items
    if not callable(keys):
        raise ConfigError(
            f"keys must be a template, or a function of the arguments, not {type(keys).__name__}",
            setting="keys",
            operation="decorate",
        )
    return lambda _, args, kwargs: [*keys(*args, **kwargs)]


# --- what takes the function's place -----------------------------------------------------------


class _ClassMethod(classmethod):  # type: ignore[type-arg]
    """A class method whose attributes are bound to the class, too."""

    def __get__(self, receiver: Any, owner: Any = None) -> Any:
        return self.__func__.__get__(type(receiver) if owner is None else owner)


def _applied(decorate: Callable[[Any, bool | None], Any]) -> Any:
    """Make a decorator that sees through what makes static and class methods."""

    def decorator(function: Any) -> Any:
        if isinstance(function, staticmethod):
            return staticmethod(decorate(function.__func__, False))
        if isinstance(function, classmethod):
            return _class_method(decorate(function.__func__, True))
        return decorate(function, None)

    return decorator


def _class_method(made: Any) -> Any:
    return _ClassMethod(made) if isinstance(made, local.Call) else classmethod(made)


class BoundCall:
    """A cached method of an object."""

    def __init__(self, call: Any, receiver: Any) -> None:
        self.__func__ = call
        self.__self__ = receiver

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        """Call it."""
        return self.__func__(self.__self__, *args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        call = self.__func__
        if name in _OFFERED:
            return functools.partial(getattr(call, name), self.__self__)
        if name == "cache":
            return call.__cached__.where.of((self.__self__,))
        if name == "__signature__":
            signature = inspect.signature(call)
            _, *rest = signature.parameters.values()
            return signature.replace(parameters=rest)
        return getattr(call, name)

    def __repr__(self) -> str:
        return f"<bound {self.__func__!r} of {type(self.__self__).__name__} object>"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, BoundCall):
            return NotImplemented
        return self.__func__ is other.__func__ and self.__self__ is other.__self__

    def __hash__(self) -> int:
        return hash((id(self.__func__), id(self.__self__)))


def _looks_of(parameters: Parameters) -> dict[str, Any]:
    """Give what a function has, and an object that is called as one, a partial, may lack."""
    name = parameters.name.rpartition(".")[2]
    return {"__name__": name, "__qualname__": parameters.name, "__annotations__": {}}


def _entry(call: Any, function: Any, parameters: Parameters) -> Any:
    """
    Make what ``call.__call__`` shows: a function, with the signature of what it stands for.

    Celery and unittest.mock look there when something is called and is no function.  Calls
    themselves do not come here.
    """

    def entry(*args: Any, **kwargs: Any) -> Any:
        return call(*args, **kwargs)

    functools.update_wrapper(entry, function)
    if parameters.receiver is None:
        entry.__signature__ = parameters.signature  # type: ignore[attr-defined]
    else:
        del entry.__wrapped__  # type: ignore[attr-defined]  of an object there is one argument less
    return entry


def _for_class(cached: Cacheable, offered: Any, /, *args: Any, **kwargs: Any) -> Any:
    """
    Call what is beside a class method, whether or not it is given the class.

    From Python 3.13 on, what ``@classmethod`` makes of the callable below it gives the class to
    calls, and to nothing that is beside it.

    Raises:
        TypeError: It cannot do without the class.
    """
    if args and cached.is_method_of(args[0]):
        return offered(*args, **kwargs)
    name = offered.__name__
    if name in {"refresh", "uncached"} or cached.needs_receiver:
        raise TypeError(
            f"{cached.parameters.name}.{name}() does not know the class: put the decorator of the "
            "cache above @classmethod"
        )
    return offered(None, *args, **kwargs)


async def _coroutine_function() -> None:
    """Stand for a coroutine function whose code is asked what it is."""


def _call(cached: Cacheable) -> Any:
    """Make what takes the function's place."""
    parameters, function = cached.parameters, cached.function
    otherwise = cached.aotherwise if cached.is_async else cached.otherwise
    position = 0 if parameters.receiver is None else 1
    call: Any = local.Call(otherwise, BoundCall, cached.hits(), position)
    functools.update_wrapper(call, function)
    for name, value in _looks_of(parameters).items():
        call.__dict__.setdefault(name, value)
    call.__signature__ = parameters.signature
    call.__call__ = _entry(call, function, parameters)
    call.__cached__ = cached
    for name in _OFFERED:
        offered = getattr(cached, name)
        if parameters.receiver in _CLASS_RECEIVERS:
            offered = functools.partial(_for_class, cached, offered)
        setattr(call, name, offered)
    if cached.where.fixed is not None:
        call.cache = cached.where.fixed
    if cached.is_async:
        # What makes inspect.iscoroutinefunction() take it for a function, and for a coroutine's.
        call.__code__ = _coroutine_function.__code__
        call.__defaults__ = call.__kwdefaults__ = None
        if hasattr(inspect, "markcoroutinefunction"):
            inspect.markcoroutinefunction(call)
    return call
