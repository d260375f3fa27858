"""What a decorator leaves in place of a function, with the methods of ``_native.Call``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Callable

    from accelerator.process_local.area import ProcessLocalArea


class Call:
    """A callable with attributes of its own, which is bound to a receiver as a function is."""

    def __init__(
        self,
        otherwise: Callable[..., Any],
        bound_to: Callable[[Any, Any], Any],
        view: ProcessLocalArea | None = None,  # noqa: ARG002  a hit is Python's here, too
        position: int = 0,
    ) -> None:
        if position not in {0, 1}:
            raise ValueError("Call: the position must be 0 or 1")
        self.__otherwise = otherwise
        self.__bound_to = bound_to

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        """Call what is behind it."""
        return self.__otherwise(*args, **kwargs)

    def __get__(self, receiver: Any, owner: type | None = None) -> Any:
        return self if receiver is None else self.__bound_to(self, receiver)

    def __repr__(self) -> str:
        name = getattr(self, "__qualname__", None)
        named = "" if name is None else f" {name}"
        return f"<cached function{named} at {id(self):#x}>"

    def __reduce__(self) -> str:
        name: str = self.__dict__["__qualname__"]
        return name  # by its name, as a function

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self
