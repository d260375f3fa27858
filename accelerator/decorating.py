"""What decorators are given: checked, before there is a function or with it, and made use of."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from accelerator.answers import OVERRIDES, Judge
from accelerator.calls import AutomaticKey, Parameters, TemplateKey, items_of
from accelerator.config.checks import refuse_unknown
from accelerator.durations import seconds
from accelerator.entry import MISS
from accelerator.errors import ConfigError
from accelerator.evicting import make_key
from accelerator.templates import Template

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from accelerator.calls import KeyOfCall


class Given:
    """What the decorators have in common, checked before there is a function."""

    def __init__(  # noqa: PLR0917  of private use
        self,
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


def key_of_call(
    function: Any, parameters: Parameters, key: Any, ignore: Iterable[str], area: str | None
) -> KeyOfCall:
    """
    Make what makes the key of a call.

    Raises:
        ConfigError: What is given is wrong, or the function can have no key of all arguments.
    """
    if key is None:
        check_ignored(parameters, ignore)
        refuse_receiver(parameters, ignore, area)
        return AutomaticKey(function, parameters, frozenset(ignore), area)
    if [*ignore]:
        raise ConfigError(
            "ignore has no effect with a key=, which names what counts: leave one of them out",
            setting="ignore",
            operation="decorate",
        )
    return make_key(key, parameters)


def check_ignored(parameters: Parameters, ignore: Iterable[str]) -> None:
    """
    Check that there is what is to be ignored.

    Raises:
        ConfigError: There is not, or it is no list.
    """
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


def refuse_receiver(parameters: Parameters, ignore: Iterable[str], area: str | None) -> None:
    """
    Refuse the key of all arguments for a method, whose answer may be about its object.

    Raises:
        ConfigError: It is one, and nobody has said that its object does not count.
    """
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


def parameter_of_items(parameters: Parameters, param: str | None) -> str:
    """
    Name the parameter that takes the items of a batch.

    Raises:
        ConfigError: It is not known which one does.
    """
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


def name_of_item(key: Any, parameters: Parameters) -> str:
    """
    Give the name in a template that is no parameter.

    Raises:
        ConfigError: There is none, or more than one.
    """
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


def keys_of_call(keys: Any, parameters: Parameters, param: str | None) -> Any:
    """
    Make what gives all keys of a call.

    Raises:
        ConfigError: *keys* is neither a template nor a function.
    """
    if isinstance(keys, str):
        chosen, item = parameter_of_items(parameters, param), name_of_item(keys, parameters)
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
