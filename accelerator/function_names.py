"""
What functions are called in automatic keys: the same in every process, and no two share a name.

A name is that of the module and the function.  Who decorates the same function once more, as an
application factory does, or a module that is imported again, gets the same name.  What captures
variables has none: two such functions look alike, and answer differently.

A function that takes the place of another one of its name while the program runs (a cell of a
notebook, a module that is loaded again) has a name of its own in this process: neither sees what
the other has answered.
"""

from __future__ import annotations

import functools
import hashlib
import sys
import uuid
import weakref
from pathlib import Path
from types import CodeType, ModuleType
from typing import TYPE_CHECKING, Any, Final

from accelerator.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

_LONGEST: Final = 200
_PLAIN: Final = (str, bytes, int, float, bool, type(None), type, ModuleType)


class _Named:
    """The function that a name stands for."""

    def __init__(self, function: Any, name: str) -> None:
        self.name = name
        self.layers = [_Layer(each) for each in _layers(function)]
        try:
            self.function: Any = weakref.ref(function)
        except TypeError:  # of some functions in C
            self.function = lambda: function

    def is_same(self, other: _Named) -> bool:
        """Whether both answer alike, whatever they are called with."""
        return len(self.layers) == len(other.layers) and all(
            mine.is_same(its) for mine, its in zip(self.layers, other.layers, strict=True)
        )


class _Layer:
    """A function, or one that a decorator has put around it."""

    def __init__(self, function: Any) -> None:
        code = getattr(function, "__code__", None)
        self.text = _text(code) if isinstance(code, CodeType) else function
        surroundings = getattr(function, "__globals__", {})
        self.file = surroundings.get("__file__") or id(surroundings)
        self.defaults = getattr(function, "__defaults__", None)
        self.named_defaults = getattr(function, "__kwdefaults__", None)
        inner = getattr(function, "__wrapped__", None)
        self.captured = [each for each in _captured(function) if each is not inner]

    def is_same(self, other: _Layer) -> bool:
        """Whether both are of one text, in the same surroundings."""
        return (
            self.text == other.text
            and self.file == other.file
            and _is_equal(self.defaults, other.defaults)
            and _is_equal(self.named_defaults, other.named_defaults)
            and len(self.captured) == len(other.captured)
            and all(map(_is_constant, self.captured, other.captured))
        )


_known: Final[dict[tuple[str | None, str], _Named]] = {}
"""By area and name; kept for good, as the values are that they have left in the cache."""


def unique_name(function: Any, area: str | None) -> str:
    """
    Name of a function in its keys.

    Raises:
        ConfigError: It has none, as it captures variables; or another function has it.
    """
    name = _plain_name(function)
    _refuse_captured(function, name, area)
    named = _Named(function, name)
    before = _known.setdefault((area, name), named)
    if before is not named and before.is_same(named):
        before.function = named.function
        named = before
    elif before is not named:
        if not _is_replaced(before, function):
            raise ConfigError(
                f"two functions are called {name}, so their automatic keys would meet: give one "
                "of them a key=",
                setting="key",
                area=area,
                operation="decorate",
            )
        named.name = f"{name}#{uuid.uuid4().hex}"
        _known[area, name] = named
    if len(named.name) > _LONGEST:
        encoded = named.name.encode("utf-8", "surrogatepass")
        return hashlib.blake2b(encoded, digest_size=32).hexdigest()
    return named.name


def _plain_name(function: Any) -> str:
    module = getattr(function, "__module__", None) or "?"
    if module == "__main__":
        module = _main_name()
    own = getattr(function, "__qualname__", None)
    return f"{module}.{own or type(function).__qualname__}"


def _main_name() -> str:
    """What the program's main module is called where it is imported, or where it lies."""
    main = sys.modules.get("__main__")
    spec = getattr(main, "__spec__", None)
    if spec is not None and isinstance(spec.name, str):
        return spec.name
    path = getattr(main, "__file__", None)
    return "__main__" if path is None else f"__main__:{Path(path).resolve()}"


# --- what a function captures ------------------------------------------------------------------


def _refuse_captured(function: Any, name: str, area: str | None) -> None:
    *_, innermost = _layers(function)
    owner = getattr(innermost, "__self__", None)  # of a method; of a function in C its module
    has_state = not hasattr(innermost, "__qualname__") or not (
        owner is None or isinstance(owner, ModuleType)
    )
    code = getattr(innermost, "__code__", None)
    free = [*code.co_freevars] if isinstance(code, CodeType) and not has_state else []
    if "<locals>" not in name and "__class__" in free:
        free.remove("__class__")  # of super(): the class at that place, as the method itself
    if not has_state and not free:
        return
    what = f"the variables {', '.join(free)} of what is around it" if free else "an object"
    raise ConfigError(
        f"{name} captures {what}, and two such functions would have the same automatic keys: give "
        "it a key= that tells them apart",
        setting="key",
        area=area,
        operation="decorate",
    )


def _layers(function: Any) -> Iterator[Any]:
    """Give a function, and what decorators have wrapped in it, the outermost first."""
    seen = set()
    while id(function) not in seen:
        seen.add(id(function))
        yield function
        function = getattr(function, "__wrapped__", function)


def _captured(function: Any) -> Iterator[Any]:
    for cell in getattr(function, "__closure__", None) or ():
        try:
            yield cell.cell_contents
        except ValueError:  # it is empty yet
            yield cell


def _is_constant(one: Any, other: Any) -> bool:
    """Whether two captured values are the same for good."""
    if one is other:
        return True
    return type(one) is type(other) and isinstance(one, _PLAIN) and bool(one == other)


def _is_equal(one: Any, other: Any) -> bool:
    try:
        return bool(one == other) and repr(one) == repr(other)  # 1 and True are equal
    except Exception:  # of whatever somebody made
        return False


@functools.cache
def _text(code: CodeType) -> tuple[Any, ...]:
    """Give what a function does, wherever in its file it stands."""
    constants = tuple(
        _text(each) if isinstance(each, CodeType) else (type(each), repr(each))
        for each in code.co_consts
    )
    counts = code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags
    names = code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars
    return code.co_code, constants, counts, names


# --- what takes another one's place ------------------------------------------------------------


def _is_replaced(before: _Named, function: Any) -> bool:
    """Whether the function of before is what its module calls so, and is to be no more."""
    old = before.function()
    module = sys.modules.get(getattr(function, "__module__", None) or "?")
    found: Any = module
    for name in function.__qualname__.split("."):
        found = getattr(found, name, None)
    is_found = found is not None and any(each is old for each in _layers(found))
    if not is_found or old is None:
        return False
    return not _is_first_run(module, old, function)


def _is_first_run(module: Any, old: Any, function: Any) -> bool:
    """Whether both stand in one file that is being run for the first time: that is a mistake."""
    spec = getattr(module, "__spec__", None)
    files = {
        getattr(getattr(each, "__code__", None), "co_filename", None) for each in (old, function)
    }
    if len(files) > 1:
        return False  # cells of a notebook
    lines = {each.__code__.co_firstlineno for each in (old, function) if hasattr(each, "__code__")}
    if spec is None:
        return len(lines) > 1  # a program; where each statement begins at line 1 it is a dialogue
    return bool(getattr(spec, "_initializing", False))
