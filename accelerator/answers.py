"""Answers of decorated functions: which cache they belong to, and what becomes of each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from accelerator.calls import Parameters, TemplateKey
from accelerator.entry import MISS
from accelerator.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

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
