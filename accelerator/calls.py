"""
Calls of a decorated function: its parameters, the arguments of one call, and the key of those.

A receiver (``self`` or ``cls``) is no part of a key unless a template names it.  A parameter called
``context`` is the cache's to fill in, and no caller's.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterable, Mapping
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final, Protocol

from accelerator import keys
from accelerator.errors import ConfigError
from accelerator.function_names import unique_name
from accelerator.loader import is_async, takes_context
from accelerator.templates import Template, canonical, flat

if TYPE_CHECKING:
    from collections.abc import Callable

_RECEIVERS: Final = frozenset({"self", "cls", "mcs"})
_POSITIONAL: Final = (
    inspect.Parameter.POSITIONAL_ONLY,
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
)
_INT64: Final = 1 << 63
_VARIABLE: Final = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


class Arguments:
    """
    The arguments of one call, as the caller's key of an area.

    Args:
        key: What they are called in the area.
        args: As they were given.
        kwargs: As they were given.
        item: Of a batch: which element this is.
    """

    __slots__ = ("args", "item", "key", "kwargs")

    def __init__(
        self, key: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], item: Any = None
    ) -> None:
        self.key = key
        self.args = args
        self.kwargs = kwargs
        self.item = item

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Arguments):
            return NotImplemented
        return self is other or keys.encode(self.key) == keys.encode(other.key)

    def __hash__(self) -> int:
        return hash(self.key)


key_of: Final[Callable[[Any], Any]] = attrgetter("key")
"""Converter of areas whose callers' keys are Arguments."""


class Parameters:
    """
    What a function takes.

    Args:
        function: The function.
        has_receiver: Whether its first parameter is one; None: as it looks.

    Raises:
        ConfigError: It cannot be cached.
    """

    def __init__(self, function: Any, *, has_receiver: bool | None = None) -> None:
        self.name = getattr(function, "__qualname__", type(function).__qualname__)
        _refuse_uncacheable(function, self.name)
        self.is_async = is_async(function)
        self.takes_context = takes_context(function)
        signature = _signature(function, self.name)
        parameters = [
            parameter
            for parameter in signature.parameters.values()
            if not (self.takes_context and parameter.name == "context")
        ]
        self.signature = signature.replace(parameters=parameters)
        """Without the context."""
        first = parameters[0].name if parameters and parameters[0].kind in _POSITIONAL else None
        if has_receiver is None:
            has_receiver = first in _RECEIVERS and _is_in_class(self.name)
        self.receiver = first if has_receiver else None
        self.names = frozenset(parameter.name for parameter in parameters)
        self.own = [one for one in parameters if one.name != self.receiver]
        """Without the receiver."""
        self.defaults = {
            one.name: one.default for one in parameters if one.default is not one.empty
        }
        self._positional = [one.name for one in parameters if one.kind in _POSITIONAL]
        self._is_plain = not any(one.kind in _VARIABLE for one in parameters)
        self._by_name = frozenset(
            one.name for one in parameters if one.kind is not inspect.Parameter.POSITIONAL_ONLY
        )
        required = [one for one in parameters if one.name not in self.defaults]
        self._required_positional = sum(one.kind in _POSITIONAL for one in required)
        self._required_named = len(required) - self._required_positional

    def bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """
        Give each parameter its argument, or its default.

        Raises:
            TypeError: The function could not be called like this.
        """
        if self._is_plain and len(args) <= len(self._positional):
            found = {**self.defaults, **dict(zip(self._positional, args, strict=False))}
            if not kwargs:
                if len(args) >= self._required_positional and not self._required_named:
                    return found
            elif self._names_match(args, kwargs):
                found.update(kwargs)
                if len(found) == len(self.names):
                    return found
        try:
            bound = self.signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{self.name}() {error}") from None
        bound.apply_defaults()
        return bound.arguments

    def _names_match(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
        """Whether keywords name parameters that no positional argument is for."""
        if not self._by_name.issuperset(kwargs):
            return False
        return not args or kwargs.keys().isdisjoint(self._positional[: len(args)])


def _signature(function: Any, name: str) -> inspect.Signature:
    try:
        return inspect.signature(function)
    except (TypeError, ValueError):
        raise ConfigError(
            f"{name} does not tell which arguments it takes: cache a function around it",
            operation="decorate",
        ) from None


def _refuse_uncacheable(function: Any, name: str) -> None:
    problem = None
    if inspect.isclass(function) or not callable(function):
        problem = "is no function: decorate a function or a method"
    elif inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        problem = (
            "is a generator function, whose answer can be used up only once: return a list instead"
        )
    if problem is not None:
        raise ConfigError(f"{name} {problem}", operation="decorate")


def _is_in_class(qualname: str) -> bool:
    outside, _, _ = qualname.rpartition(".")
    return bool(outside) and not outside.endswith("<locals>")


def items_of(parameters: Parameters, name: str, bound: Mapping[str, Any]) -> Any:
    """
    Give the items that a call of a function of many is about.

    Raises:
        TypeError: They are no list or the like.
    """
    items = bound[name]
    if isinstance(items, str | bytes | Mapping) or not isinstance(items, Iterable):
        kind = type(items).__name__
        raise TypeError(f"{parameters.name}() takes a list of items as {name}, not {kind}")
    return items


# --- keys --------------------------------------------------------------------------------------


class KeyOfCall(Protocol):
    """Makes the key of a call."""

    needs_receiver: bool
    """It may be made of the receiver, too."""
    is_pure: bool
    """It is made of the arguments and of nothing else, for good."""

    def of(
        self, arguments: Mapping[str, Any], args: tuple[Any, ...], kwargs: Mapping[str, Any], /
    ) -> Any:
        """
        Make the key.

        Args:
            arguments: By parameter.
            args: As they were given.
            kwargs: As they were given.
        """


class TemplateKey:
    """
    Key by a template over the parameters.

    Args:
        text: The template.
        parameters: Of the function.
        more: Other names that it may use.
    """

    is_pure = True

    def __init__(
        self, text: str, parameters: Parameters, more: Iterable[str] = (), *, what: str = "key"
    ) -> None:
        self.template = Template(text, what=what)
        unknown = self.template.names - parameters.names - set(more)
        if unknown:
            raise ConfigError(
                f"the {what} template of {parameters.name}() names {', '.join(sorted(unknown))}, "
                f"and there is only {', '.join(sorted(parameters.names | set(more))) or 'nothing'}",
                setting=what,
                operation="decorate",
            )
        self.needs_receiver = parameters.receiver in self.template.names

    def of(self, arguments: Mapping[str, Any], _args: Any, _kwargs: Any, /) -> Any:
        """Make the key of a call."""
        return self.template.key(arguments)


class CalledKey:
    """Key by a function of the same arguments, which may ask for more: the language, a tenant."""

    is_pure = False

    def __init__(self, function: Callable[..., Any], parameters: Parameters) -> None:
        self._function = function
        self.needs_receiver = parameters.receiver is not None

    def of(self, _arguments: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], /) -> Any:
        """Make the key of a call."""
        return self._function(*args, **kwargs)


class AutomaticKey:
    """
    Key by the function's name and all arguments, of whatever type has a canonical form.

    Args:
        function: The function.
        parameters: Its parameters.
        ignored: Names of those that do not count.
        area: Name of the area; None: not known yet.
        item: What an element of a batch is called; its parameter is among *ignored*.
    """

    needs_receiver = False
    is_pure = True

    def __init__(
        self,
        function: Any,
        parameters: Parameters,
        ignored: frozenset[str],
        area: str | None,
        item: str | None = None,
    ) -> None:
        self._name = unique_name(function, area)
        self._room = keys.MAX_SIZE - len(keys.encode((self._name, ())))
        self._ignored = ignored
        self._item = item
        self._counted = [one for one in parameters.own if one.name not in ignored]

    def of(self, arguments: Mapping[str, Any], _args: Any, _kwargs: Any, /) -> Any:
        """
        Make the key of a call.

        Raises:
            TypeError: An argument has no canonical form; names its parameter and its type.
        """
        parts = [] if self._item is None else [canonical(arguments[self._item], self._item)]
        for one in self._counted:
            value = arguments[one.name]
            if one.kind is inspect.Parameter.VAR_KEYWORD:
                parts.append(self._named(value))
            else:
                parts.append(canonical(value, one.name))
        key = (self._name, tuple(parts))
        if _size_at_most(parts) <= self._room:
            return key
        try:
            keys.encode(key)
        except ValueError:
            # Too long, or text without UTF-8 form.  Bytes, where the other keys have a tuple.
            return self._name, hashlib.blake2b(flat(key[1]), digest_size=32).digest()
        return key

    def _named(self, given: Mapping[str, Any]) -> tuple[Any, ...]:
        pairs = sorted((name, one) for name, one in given.items() if name not in self._ignored)
        return ("named", *(part for name, one in pairs for part in (name, canonical(one, name))))


def _size_at_most(parts: list[Any]) -> int:
    """Bytes that elements of a tuple take in a key; more than there are, if that is not plain."""
    size = 0
    for part in parts:
        kind = type(part)
        if kind is str and part.isascii():
            size += len(part) + 3
        elif kind is int and -_INT64 <= part < _INT64:
            size += 11
        else:
            return keys.MAX_SIZE
    return size
