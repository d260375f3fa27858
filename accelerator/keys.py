"""
Keys as bytes: the canonical encoding, the same as that of the native part byte for byte.

One tag byte, then the payload, so that 1, "1", True and b"1" are four keys; the elements of a tuple
carry their lengths, so that no separator in a value can make two tuples look alike.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any, Final, NoReturn
from uuid import UUID

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_SIZE: Final = 512
"""Longest encoded key in bytes, tag included."""

_INT64: Final = range(-(1 << 63), 1 << 63)
_DEEPEST: Final = MAX_SIZE // 3  # each tuple around a key adds its tag and a length of two bytes


def encode(key: object) -> bytes:
    """
    Encode a key.

    Raises:
        TypeError: It is, or holds, something of a type that keys do not have.
        ValueError: It is longer than MAX_SIZE, or text that has no UTF-8 form.

    The messages name the type and never the key.
    """
    encoded = _encode(key, 0)
    if len(encoded) > MAX_SIZE:
        _refuse_long(key)
    return encoded


def coerce(key: object) -> Any:  # noqa: PLR0911  one for each type
    """
    Turn a key of a subclass or an enum into the plain value that it stands for.

    Raises:
        TypeError: There is none; the message names the type only.
    """
    if key is None or type(key) in _PLAIN:
        return key
    if isinstance(key, enum.Enum):
        return coerce(key.value)
    # The base classes' own methods: a subclass may have changed what str(key) or int(key) answers.
    if isinstance(key, str):
        return str.__str__(key)
    if isinstance(key, int):
        return int.__int__(key)
    if isinstance(key, bytes):
        return bytes(memoryview(key))
    if isinstance(key, tuple):
        return tuple(tuple.__iter__(key))
    if isinstance(key, UUID):
        return UUID(int=key.int)
    raise TypeError(
        "a cache key must be str, bytes, int, UUID, None, bool, or a tuple of those, "
        f"not {type(key).__name__}"
    )


class Converter:
    """
    The ``key_converter`` of an area: what it does wrong says where.

    Args:
        convert: Makes a key of what callers give.
        area: Name of the area, for messages.
    """

    __slots__ = ("_area", "_convert")

    def __init__(self, convert: Callable[[Any], Any], area: str) -> None:
        self._convert = convert
        self._area = area

    def __call__(self, given: Any) -> Any:
        """
        Make a key of what a caller gives.

        Raises:
            TypeError, ValueError: There is none; the message names the area, and never the key.
        """
        try:
            key = self._convert(given)
        except Exception as error:
            kind = ValueError if isinstance(error, ValueError) else TypeError
            problem = f"raised {type(error).__name__}"
            raise kind(self._message(problem, given)) from error
        if type(key) is str and key.isascii() and len(key) < MAX_SIZE:
            return key  # what almost all of them answer
        try:
            encode(key)
        except (TypeError, ValueError) as error:
            raise type(error)(self._message(f"answered what is no key: {error}", given)) from error
        return key

    def _message(self, problem: str, given: object) -> str:
        kind = type(given).__name__
        return (
            f"the key_converter, given a key of type {kind}, {problem} [area={self._area} op=key]"
        )


_PLAIN: Final = frozenset({str, bytes, int, bool, tuple, UUID})


def _encode(key: object, depth: int) -> bytes:  # noqa: PLR0911  one for each type
    plain: Any = key if type(key) in _PLAIN else coerce(key)
    kind = type(plain)
    if kind is str:
        return _encode_text(plain)
    if kind is int:
        return _encode_int(plain)
    if kind is bytes:
        return b"b" + bytes(plain)
    if kind is tuple:
        return _encode_tuple(plain, depth)
    if kind is bool:
        return b"T" if plain else b"F"
    if kind is UUID:
        return b"u" + bytes(plain.bytes)
    return b"N"


def _encode_text(text: str) -> bytes:
    try:
        return b"s" + text.encode()
    except UnicodeEncodeError:  # its own message shows a part of the key
        raise ValueError(
            "a cache key of type str holds a lone surrogate, which has no UTF-8 form"
        ) from None


def _encode_int(number: int) -> bytes:
    if number in _INT64:
        return b"i" + number.to_bytes(8, "little", signed=True)
    magnitude = abs(number)
    if magnitude.bit_length() > 8 * MAX_SIZE:
        _refuse_long(number)
    sign = b"-" if number < 0 else b"+"
    return b"I" + sign + magnitude.to_bytes((magnitude.bit_length() + 7) // 8, "big")


def _encode_tuple(elements: tuple[object, ...], depth: int) -> bytes:
    if depth > _DEEPEST:
        _refuse_long(elements)
    encoded = bytearray(b"(")
    for element in elements:
        part = _encode(element, depth + 1)
        if len(encoded) + 2 + len(part) > MAX_SIZE:
            _refuse_long(elements)
        encoded += len(part).to_bytes(2, "little") + part
    return bytes(encoded)


def _refuse_long(key: object) -> NoReturn:
    raise ValueError(
        f"a cache key of type {type(key).__name__} is longer than {MAX_SIZE} bytes encoded: "
        "hash long keys before use"
    )


def hash_text(key_hash: int) -> str:
    """Write the hash of a key as operators see it everywhere: 16 digits of base 16."""
    return f"{key_hash:016x}"
