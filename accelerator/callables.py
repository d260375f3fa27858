"""
What takes a decorated function's place: how it is called, bound to objects, and looked at.

What is called is local.Call; here is what surrounds it.
"""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any, Final

from accelerator import local

if TYPE_CHECKING:
    from collections.abc import Callable

    from accelerator.caching import Cacheable
    from accelerator.calls import Parameters

_OFFERED: Final = ("invalidate", "refresh", "peek", "uncached", "key")
"""What there is beside a decorated function, with its arguments."""

_CLASS_RECEIVERS: Final = frozenset({"cls", "mcs"})


class _ClassMethod(classmethod):  # type: ignore[type-arg]
    """A class method whose attributes are bound to the class, too."""

    def __get__(self, receiver: Any, owner: Any = None) -> Any:
        return self.__func__.__get__(type(receiver) if owner is None else owner)


def applied(decorate: Callable[[Any, bool | None], Any]) -> Any:
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
        del entry.__dict__["__wrapped__"]  # of an object there is one argument less
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


def call_of(cached: Cacheable) -> Any:
    """Make what takes the function's place."""
    parameters, function = cached.parameters, cached.function
    otherwise = cached.aotherwise if cached.is_async else cached.otherwise
    position = 0 if parameters.receiver is None else 1
    hits = cached.hits()
    if cached.is_async and hits is not None:
        # Its call has to give a coroutine, so what needs no Python is asked from within that.
        cached.hit = local.Call(cached.hit, BoundCall, hits, position)
        hits = None
    call: Any = local.Call(otherwise, BoundCall, hits, position)
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
