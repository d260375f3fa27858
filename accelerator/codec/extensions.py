"""
Types beyond those of msgpack: how each becomes an ext of a code and bytes, and back.

Only exact types are looked up here.  A subclass is refused, never turned into its base: what comes
out of the cache is what went in.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Callable, Iterable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Final, NamedTuple, TypeVar, overload
from uuid import UUID

from accelerator.codec import leaves
from accelerator.codec.leaves import Unsupported
from accelerator.errors import ConfigError, SerializationError

MAX_DEPTH: Final = 64
"""Containers within containers, the outermost included."""

Pack = Callable[[Any], bytes]
Unpack = Callable[[bytes], Any]
_C = TypeVar("_C", bound=type)

_TUPLE: Final = 1
_SET: Final = 2
_FROZENSET: Final = 3
_DATETIME: Final = 4
_DATE: Final = 5
_TIME: Final = 6
_TIMEDELTA: Final = 7
_UUID: Final = 8
_DECIMAL: Final = 9
_BIG_INT: Final = 10
_DATACLASS: Final = 11
_USER_CODES: Final = range(32, 128)

_SCALARS: Final = frozenset({str, bytes, int, float, bool, type(None)})
_SORTABLE: Final = frozenset({str, bytes, int})
_BASES: Final = (str, bytes, bool, int, float, dict, list, tuple, set, frozenset, datetime, date)
_NAME_MAX: Final = 32
_PATH_MAX: Final = 200

Parts = Iterable[tuple[str, Any]]
"""What a value holds, each part with what to append to the path of the value."""


class Extension(NamedTuple):
    """One type: its code, the two directions, and what is known about its values."""

    code: int
    dump: Callable[[Any, Pack], bytes]
    load: Callable[[bytes, Unpack], Any]
    parts: Callable[[Any], Parts]
    frozen: bool
    """Nobody can change a value without changing one of its parts."""
    leaf: bool = False
    """It holds nothing."""


def _leaf(code: int, dump: Callable[[Any], bytes], load: Callable[[bytes], Any]) -> Extension:
    return Extension(
        code,
        lambda value, _: dump(value),
        lambda data, _: load(data),
        lambda _: (),
        frozen=True,
        leaf=True,
    )


def _indexed(values: Iterable[Any]) -> Parts:
    return ((f"[{index}]", value) for index, value in enumerate(values))


def _unnamed(values: Iterable[Any]) -> Parts:
    return ((".<element>", value) for value in values)


def _dump_sequence(values: Iterable[Any], pack: Pack) -> bytes:
    return pack(list(values))


def _dump_unordered(values: Iterable[Any], pack: Pack) -> bytes:
    """In an order that depends on nothing but the values, so that equal sets give equal bytes."""
    if len(set(map(type, values))) == 1 and _SORTABLE.issuperset(map(type, values)):
        return pack(sorted(values))
    # sorted() would answer something for sets in a set, too, but "less" is "subset" there.
    packed = sorted(map(pack, values))
    return _array_header(len(packed)) + b"".join(packed)


def _array_header(length: int) -> bytes:
    if length < 16:
        return bytes([0x90 | length])
    if length < 1 << 16:
        return b"\xdc" + length.to_bytes(2, "big")
    return b"\xdd" + length.to_bytes(4, "big")


def _loader(kind: Callable[[list[Any]], Any]) -> Callable[[bytes, Unpack], Any]:
    def load(data: bytes, unpack: Unpack) -> Any:
        values = unpack(data)
        if type(values) is not list:
            raise ValueError("no list")
        return kind(values)

    return load


_by_type: Final[dict[type, Extension]] = {
    tuple: Extension(_TUPLE, _dump_sequence, _loader(tuple), _indexed, frozen=True),
    set: Extension(_SET, _dump_unordered, _loader(set), _unnamed, frozen=False),
    frozenset: Extension(_FROZENSET, _dump_unordered, _loader(frozenset), _unnamed, frozen=True),
    datetime: _leaf(_DATETIME, leaves.dump_datetime, leaves.load_datetime),
    date: _leaf(_DATE, leaves.dump_date, leaves.load_date),
    time: _leaf(_TIME, leaves.dump_time, leaves.load_time),
    timedelta: _leaf(_TIMEDELTA, leaves.dump_timedelta, leaves.load_timedelta),
    UUID: _leaf(_UUID, leaves.dump_uuid, leaves.load_uuid),
    Decimal: _leaf(_DECIMAL, leaves.dump_decimal, leaves.load_decimal),
    int: _leaf(_BIG_INT, leaves.dump_int, leaves.load_int),  # asked only beyond 64 bits
}
_by_code: Final[dict[int, Callable[[bytes, Unpack], Any]]] = {
    extension.code: extension.load for extension in _by_type.values()
}


def dump(value: Any, pack: Pack) -> tuple[int, bytes]:
    """
    Turn a value that msgpack does not know into code and bytes; *pack* packs its parts.

    Raises:
        Unsupported: Its type is not registered, or this value of it cannot be stored.
    """
    extension = _by_type.get(type(value))
    if extension is None:
        raise Unsupported(_complaint(value))
    return extension.code, extension.dump(value, pack)


def load(code: int, data: bytes, unpack: Unpack) -> Any:
    """
    Inverse of dump().

    Raises:
        SerializationError: The code is not registered in this process.
        Exception: Whatever bytes that are damaged lead to.
    """
    loader = _by_code.get(code)
    if loader is None:
        raise SerializationError(
            f"a stored value has the ext code {code}, which is not registered in this process: "
            "call codec.register() where the module of the type is imported"
        )
    return loader(data, unpack)


def is_immutable(value: Any) -> bool:
    """Tell whether nobody can change the value or anything in it."""
    kind = type(value)
    if kind in _SCALARS:
        return True
    extension = _by_type.get(kind)
    if extension is None or not extension.frozen:
        return False
    return all(is_immutable(part) for _, part in extension.parts(value))


def is_container(kind: type) -> bool:
    """Tell whether values of a type hold others."""
    if kind is dict or kind is list:
        return True
    extension = _by_type.get(kind)
    return extension is not None and not extension.leaf


def is_too_deep(value: Any, left: int = MAX_DEPTH) -> bool:
    """Tell whether a value that can be packed has more than *left* levels (keys aside)."""
    kind = type(value)
    if kind in _SCALARS:
        return False
    if kind is dict:
        parts: Iterable[Any] = value.values()
    elif kind in {list, tuple, set, frozenset}:
        parts = value
    else:
        extension = _by_type.get(kind)
        if extension is None or extension.leaf:
            return False
        parts = [part for _, part in extension.parts(value)]
    # Most containers hold no others; map() and issuperset() find that out without a loop here.
    if left > 0 and _SCALARS.issuperset(map(type, parts)):
        return False
    return left == 0 or any(is_too_deep(part, left - 1) for part in parts)


# --- registration -------------------------------------------------------------------------------


def register(
    kind: Any,
    code: Any,
    encode: Callable[[Any], Any],
    decode: Callable[[Any], Any],
    *,
    immutable: bool = False,
) -> None:
    """
    Make values of a type storable.  To be done on import, in every process, with the same code.

    Args:
        kind: The exact type; subclasses need a registration of their own.
        code: 32 to 127, its own for each type.
        encode: Turns a value into one that can be stored.
        decode: Turns that back.
        immutable: Nobody changes such values, so that reads may share them.

    Raises:
        ConfigError: Code or type is taken, or of a wrong kind.
    """
    if not isinstance(kind, type) or kind in _BUILT_IN:
        raise _refused("the type of codec.register() must be a class, not one known already")
    if isinstance(code, bool) or not isinstance(code, int) or code not in _USER_CODES:
        raise _refused("the code of codec.register() must be a whole number from 32 to 127")
    if not all(map(callable, (encode, decode))):
        raise _refused("encode and decode of codec.register() must be functions")
    owner = _user_types.get(code)
    # The same type once more is a module that was reloaded.
    if owner is not None and _name_of(owner) != _name_of(kind):
        raise _refused(f"ext code {code} is already that of {_name_of(owner)}: choose another one")
    former = _by_type.get(kind)
    if former is not None and former.code != code:
        raise _refused(f"{_name_of(kind)} is already registered, with ext code {former.code}")
    name = _name_of(kind)
    _user_types[code] = kind
    _by_code[code] = lambda data, unpack: _call(decode, unpack(data), name, "decoder")
    _by_type[kind] = Extension(
        code,
        lambda value, pack: pack(_call(encode, value, name, "encoder")),
        _by_code[code],
        # Not its encoded form: to see whether something is immutable must not encode it.
        lambda _: (),
        frozen=immutable,
    )


@overload
def register_dataclass(kind: _C, /) -> _C: ...
@overload
def register_dataclass(*, name: str | None = ...) -> Callable[[_C], _C]: ...
def register_dataclass(kind: Any = None, /, *, name: str | None = None) -> Any:
    """
    Make values of a dataclass storable; also a decorator, to stand above ``@dataclass``.

    Its fields are stored, and nothing else.  They are restored as they were: neither ``__init__``
    nor ``__post_init__`` runs again.  A value that was stored when the class had other fields is
    not read (it counts as a miss).

    Args:
        kind: The class.
        name: By which stored values find it; default: module and name of the class.

    Raises:
        ConfigError: It is no dataclass, or the name is another class's.
    """
    if kind is None:
        return lambda decorated: _register_dataclass(decorated, name)
    return _register_dataclass(kind, name)


class _Dataclass(NamedTuple):
    kind: type
    fields: tuple[str, ...]
    shape: int
    """Changes with the names of the fields."""


_user_types: Final[dict[int, type]] = {}
_dataclasses: Final[dict[str, _Dataclass]] = {}


def _register_dataclass(kind: Any, name: str | None) -> Any:
    if not isinstance(kind, type) or not dataclasses.is_dataclass(kind):
        raise _refused("codec.register_dataclass() takes a dataclass; it stands above @dataclass")
    name = _name_of(kind) if name is None else name
    known = _dataclasses.get(name)
    if known is not None and _name_of(known.kind) != _name_of(kind):
        raise _refused(f"the name {name!r} is already that of {_name_of(known.kind)}")
    names = tuple(each.name for each in dataclasses.fields(kind))
    entry = _Dataclass(kind, names, zlib.crc32("\0".join(names).encode()))
    _dataclasses[name] = entry

    def dump_instance(value: Any, pack: Pack) -> bytes:
        return pack([name, entry.shape, *(part for _, part in parts(value))])

    def parts(value: Any) -> Parts:
        try:
            return [(f".{each}", getattr(value, each)) for each in names]
        except AttributeError:
            raise Unsupported("lacks one of its fields") from None

    # Only a class that says frozen promises that nobody assigns to its fields.
    frozen = bool(kind.__dataclass_params__.frozen)  # type: ignore[attr-defined]
    _by_type[kind] = Extension(_DATACLASS, dump_instance, _load_dataclass, parts, frozen=frozen)
    return kind


def _load_dataclass(data: bytes, unpack: Unpack) -> Any:
    name, shape, *values = unpack(data)
    entry = _dataclasses.get(name)
    if entry is None or shape != entry.shape or len(values) != len(entry.fields):
        raise SerializationError(
            "a stored value is of a dataclass that is not registered in this process, or had "
            "other fields when it was stored"
        )
    value: Any = object.__new__(entry.kind)
    for field, part in zip(entry.fields, values, strict=True):
        object.__setattr__(value, field, part)  # works for frozen classes, too
    return value


_by_code[_DATACLASS] = _load_dataclass
_BUILT_IN: Final = frozenset({*_by_type, *_SCALARS, dict, list})


def _call(function: Callable[[Any], Any], value: Any, name: str, what: str) -> Any:
    try:
        return function(value)
    except Exception as error:
        raise SerializationError(f"the registered {what} of {name} failed") from error


def _refused(message: str) -> ConfigError:
    return ConfigError(message, setting="codec")


# --- what is wrong with a value -----------------------------------------------------------------


def find_problem(value: Any) -> str | None:
    """
    Say what in a value cannot be stored, and where; None if nothing is wrong.

    Names types, indexes and those keys that look like names of fields, and no values.
    """
    return _find_problem(value, "value", 0)


def _find_problem(value: Any, path: str, depth: int) -> str | None:
    """Depth first, so that a value that contains itself is noticed at once."""
    kind = type(value)
    if kind is str:
        return _surrogate_problem(value, path)
    if kind in _SCALARS:
        return None
    if depth == MAX_DEPTH and is_container(kind):
        return f"{_short(path)} is nested deeper than {MAX_DEPTH} levels, or contains itself"
    try:
        parts = list(_parts_of(value))
    except Unsupported as error:
        return f"{_short(path)} {error}"
    problems = (_find_problem(part, path + suffix, depth + 1) for suffix, part in parts)
    return next(filter(None, problems), None)


def _parts_of(value: Any) -> Parts:
    kind = type(value)
    if kind is dict:
        keys = ((".<key>", key) for key in value)
        return [*keys, *((f"[{_shown(key)}]", part) for key, part in value.items())]
    if kind is list:
        return _indexed(value)
    if kind in {bytearray, memoryview}:
        return ()
    extension = _by_type.get(kind)
    if extension is None:
        raise Unsupported(_complaint(value))
    parts = list(extension.parts(value))
    if not parts:
        # For what only the attempt shows: a tzinfo, what a registered encoder makes of the value.
        def note(part: Any) -> bytes:
            parts.append((".<encoded>", part))
            return b""

        extension.dump(value, note)
    return parts


def _surrogate_problem(text: str, path: str) -> str | None:
    try:
        text.encode()
    except UnicodeEncodeError:
        return f"{_short(path)} is text with a lone surrogate, which has no UTF-8 form"
    return None


def _complaint(value: Any) -> str:
    kind = type(value)
    base = next((each for each in _BASES if isinstance(value, each)), None)
    if base is not None:
        return (
            f"is of type {_name_of(kind)}, a subclass of {base.__name__}: only exact types are "
            f"stored, so convert it to {base.__name__} if that is what readers expect"
        )
    if dataclasses.is_dataclass(kind):
        return f"is of the dataclass {_name_of(kind)}: make it known by codec.register_dataclass()"
    return f"is of type {_name_of(kind)}: convert it, or make it known by codec.register()"


def _shown(key: Any) -> str:
    """Give a key only if it looks like the name of a field: others may be somebody's data."""
    if type(key) is str and key.isidentifier() and len(key) <= _NAME_MAX:
        return repr(key)
    return f"<{type(key).__name__}>"


def _short(path: str) -> str:
    return path if len(path) <= _PATH_MAX else f"{path[:_PATH_MAX]}..."


def _name_of(kind: type) -> str:
    module = kind.__module__
    return kind.__qualname__ if module == "builtins" else f"{module}.{kind.__qualname__}"
