"""
Functions after which the cache changes: what cache_put(), cache_evict() and cache_evict_batch() do.

Keys are made before the function runs, unless they are made of its answer.
"""

from __future__ import annotations

import functools
import logging
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from accelerator.calls import CalledKey, TemplateKey
from accelerator.entry import MISS
from accelerator.errors import BackendError, CacheError, ConfigError, SerializationError
from accelerator.local import UNSET

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from accelerator.answers import Judge, Where
    from accelerator.calls import KeyOfCall, Parameters

LOG: Final = logging.getLogger("accelerator")


class Action(NamedTuple):
    """One call of a method of a cache."""

    name: str
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = {}


class CallKey:
    """
    The key of a call by template or function, which may be made of the answer, too.

    Args:
        key: Template, or function of the arguments.
        parameters: Of the function.
    """

    def __init__(self, key: Any, parameters: Parameters) -> None:
        self._of = make_key(key, parameters, ["result"])
        self.needs_result = isinstance(self._of, TemplateKey) and (
            "result" in self._of.template.names - parameters.names
        )

    def of(self, bound: Mapping[str, Any], args: tuple[Any, ...], kwargs: Any) -> Any:
        """Make the key."""
        return self._of.of(bound, args, kwargs)


def make_key(key: Any, parameters: Parameters, more: Iterable[str] = ()) -> KeyOfCall:
    """
    Make what makes keys of a template or a function.

    Raises:
        ConfigError: It is neither.
    """
    if isinstance(key, str):
        return TemplateKey(key, parameters, more)
    if callable(key):
        return CalledKey(key, parameters)
    raise ConfigError(
        f"key must be a template, such as 'user:{{user_id}}', or a function of the arguments, not "
        f"{type(key).__name__}",
        setting="key",
        operation="decorate",
    )


class Around:
    """One call of a function after which the cache changes."""

    def __init__(self, change: Change, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        self.change = change
        self.args = args
        self.kwargs = kwargs
        self.bound = change.parameters.bind(args, kwargs)
        self.bypassed = change.unless is not None and bool(change.unless(*args, **kwargs))
        self.cache = change.where.of(args)
        # What is no key is refused before the function runs.
        self.keys = self.cache._distinct(() if self.bypassed else change.keys_before(self))
        self._failure: CacheError | None = None

    def before(self) -> list[Action]:
        """What is done before the function runs."""
        return [] if self.bypassed else self.change.before(self)

    def after(self, result: Any) -> list[Action]:
        """What is done when it has returned."""
        if self.bypassed or not self.change.applies(result):
            return []
        return self.change.after(self, result)

    def failed(self, error: CacheError) -> None:
        """Note a fault of the cache; what else there is to do is done all the same."""
        if self.change.propagates:
            self._failure = self._failure or error
        else:
            LOG.warning("%s(): the cache has not followed: %s", self.change.parameters.name, error)

    def settle(self) -> None:
        """Raise the first fault that was noted."""
        failure, self._failure = self._failure, None
        if failure is None:
            return
        try:
            raise failure
        finally:
            del failure  # else it would hold this frame, which would hold it


class _Keeping:
    """Whatever is raised inside has the function's answer as its *result*."""

    def __init__(self, result: Any) -> None:
        self._result = result

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, Exception):
            error.result = self._result  # type: ignore[attr-defined]


_FAULTS: Final = (BackendError, SerializationError)


class Change:
    """
    What happens to the cache around a function.

    Args:
        parameters: Of the function.
        where: Its cache.
        unless: Function of the arguments: nothing happens.
        condition: Function of the answer: whether anything happens.
        propagates: Faults of the cache are raised.
    """

    def __init__(
        self,
        parameters: Parameters,
        where: Where,
        *,
        unless: Callable[..., Any] | None,
        condition: Callable[[Any], Any] | None,
        propagates: bool,
    ) -> None:
        self.parameters = parameters
        self.where = where
        self.unless = unless
        self._condition = condition
        self.propagates = propagates

    @property
    def on_error(self) -> dict[str, str]:
        """Keyword of what forgets."""
        return {"on_error": "raise" if self.propagates else "queue"}

    def applies(self, result: Any) -> bool:
        """Whether an answer lets it happen."""
        return self._condition is None or bool(self._condition(result))

    def keys_before(self, call: Around) -> Sequence[Any]:
        """Make the keys that need no answer."""
        raise NotImplementedError

    def before(self, call: Around) -> list[Action]:
        """What is done before the function runs."""
        raise NotImplementedError

    def after(self, call: Around, result: Any) -> list[Action]:
        """What is done when it has returned."""
        raise NotImplementedError

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap the function."""
        if self.parameters.is_async:

            @functools.wraps(function)
            async def awrapper(*args: Any, **kwargs: Any) -> Any:
                call = Around(self, args, kwargs)
                for action in call.before():
                    try:
                        await _ado(call.cache, action)
                    except _FAULTS as error:
                        call.failed(error)
                call.settle()
                result = await function(*args, **kwargs)
                with _Keeping(result):
                    for action in call.after(result):
                        try:
                            await _ado(call.cache, action)
                        except _FAULTS as error:
                            call.failed(error)
                    call.settle()
                return result

            return awrapper

        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            call = Around(self, args, kwargs)
            for action in call.before():
                try:
                    _do(call.cache, action)
                except _FAULTS as error:
                    call.failed(error)
            call.settle()
            result = function(*args, **kwargs)
            with _Keeping(result):
                for action in call.after(result):
                    try:
                        _do(call.cache, action)
                    except _FAULTS as error:
                        call.failed(error)
                call.settle()
            return result

        return wrapper


def _do(cache: Any, action: Action) -> None:
    if action.name == "set":
        _check_stored(cache, cache._do(_setting(cache, action)))
    else:
        getattr(cache, action.name)(*action.args, **action.kwargs)


async def _ado(cache: Any, action: Action) -> None:
    if action.name == "set":
        _check_stored(cache, await cache._ado(_setting(cache, action)))
    else:
        await getattr(cache, "a" + action.name)(*action.args, **action.kwargs)


def _setting(cache: Any, action: Action) -> Any:
    cache._begin()
    key, value, ttl, tags = action.args
    return cache._set_steps(key, value, ttl, tags, None)


def _check_stored(cache: Any, stored: bool) -> None:
    if not stored:
        raise BackendError(
            "the value is not stored everywhere: what is older than it has been deleted, or will "
            "be",
            queued=True,
            area=cache.config.area,
            operation="set",
        )


class Put(Change):
    """Store the answer, or what is made of it."""

    def __init__(self, *positional: Any, key: Any, value: Any, judge: Judge, **options: Any):
        super().__init__(*positional, **options)
        self._key = CallKey(key, self.parameters)
        self._value = value
        self._judge = judge

    def keys_before(self, call: Around) -> Sequence[Any]:
        """Make the key, if it needs no answer."""
        if self._key.needs_result:
            return ()
        return (self._key.of(call.bound, call.args, call.kwargs),)

    def before(self, call: Around) -> list[Action]:  # noqa: ARG002  as Evict
        """Nothing is."""
        return []

    def after(self, call: Around, result: Any) -> list[Action]:
        """Store."""
        value = result
        if self._value is not None:
            value = self._value(result, *call.args, **call.kwargs)
        if value is MISS or not self._judge.keeps(value):
            return []
        [key] = call.keys or [
            self._key.of({**call.bound, "result": result}, call.args, call.kwargs)
        ]
        [ttl] = self._judge.life(value) or [UNSET if self._judge.ttl is MISS else self._judge.ttl]
        tags = self._judge.tags(value, call.bound, call.args, call.kwargs)
        return [Action("set", (key, value, ttl, tags))]


class Evict(Change):
    """
    Forget keys, tags, or all of the area.

    Args:
        positional: As of Change.
        key: Of the one key; None: there is none.
        keys: Function that makes many keys, or None.
        tags: Of what is forgotten, see Judge; None: there are none.
        everything: Forget the area.
        expire: Stale copies are kept.
        first: Before the function runs, too.
        options: As of Change.
    """

    def __init__(
        self,
        *positional: Any,
        key: Any,
        keys: Callable[[Mapping[str, Any], tuple[Any, ...], Any], list[Any]] | None,
        judge: Judge,
        everything: bool,
        expire: bool,
        first: bool,
        **options: Any,
    ) -> None:
        super().__init__(*positional, **options)
        self._key = None if key is None else CallKey(key, self.parameters)
        self._keys = keys
        self._judge = judge
        self._everything = everything
        self._expire = expire
        self._first = first
        if first and self._key is not None and self._key.needs_result:
            raise ConfigError(
                "before=True cannot forget a key that is made of the answer",
                setting="before",
                operation="decorate",
            )

    def keys_before(self, call: Around) -> Sequence[Any]:
        """Make the keys, if they need no answer."""
        if self._keys is not None:
            return self._keys(call.bound, call.args, call.kwargs)
        if self._key is None or self._key.needs_result:
            return ()
        return (self._key.of(call.bound, call.args, call.kwargs),)

    def before(self, call: Around) -> list[Action]:
        """Forget what is known by then."""
        return self._actions(call, call.keys, None) if self._first else []

    def after(self, call: Around, result: Any) -> list[Action]:
        """Forget: a second time if that was done before, as others may have loaded meanwhile."""
        keys: Sequence[Any] = call.keys
        if self._key is not None and self._key.needs_result:
            bound = {**call.bound, "result": result}
            keys = (self._key.of(bound, call.args, call.kwargs),)
        return self._actions(call, keys, result)

    def _actions(self, call: Around, keys: Sequence[Any], result: Any) -> list[Action]:
        found = []
        if self._everything:
            found.append(Action("clear", (), self.on_error))
        elif self._keys is not None:
            if keys and not self._expire:
                found.append(Action("mdelete", (keys,), self.on_error))
            elif keys:
                found += [Action("expire", (key,), self.on_error) for key in keys]
        else:
            name = "expire" if self._expire else "delete"
            found += [Action(name, (key,), self.on_error) for key in keys]
        tags = self._judge.tags(result, call.bound, call.args, call.kwargs)
        if tags and not self._everything:
            name = "expire_tags" if self._expire else "delete_tags"
            found.append(Action(name, tuple(tags), self.on_error))
        return found


def refuse_nothing(*given: Any) -> None:
    """
    Refuse a decorator that would forget nothing.

    Raises:
        ConfigError: Nothing is given.
    """
    if not any(given):
        raise ConfigError(
            "cache_evict() needs to know what to forget: give key=, tags= or all=True",
            setting="key",
            operation="decorate",
        )
