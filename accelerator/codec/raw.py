"""Values as bytes: a code that says what they are, and a payload."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Final

from accelerator.errors import SerializationError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

CODE_BYTES: Final = 1
CODE_STR: Final = 2
CODE_INT: Final = 3
CODE_FLOAT: Final = 4
CODE_TRUE: Final = 5
CODE_FALSE: Final = 6
CODE_NULL: Final = 7
CODE_MSGPACK: Final = 8
CODE_RAW: Final = 9
CODE_PICKLE: Final = 10

_INT64: Final = range(-(1 << 63), 1 << 63)
_FLOAT: Final = struct.Struct("<d")


# --- the types that need no codec ---------------------------------------------------------------


def encode_raw(value: Any) -> tuple[int, bytes] | None:  # noqa: PLR0911  one for each type
    """Encode a value of a type that needs no codec; None if it is none of those."""
    kind = type(value)
    if kind is bytes:
        return CODE_BYTES, value
    if kind is str:
        try:
            return CODE_STR, value.encode()
        except UnicodeEncodeError:
            return None
    if kind is int:
        if value not in _INT64:
            return None
        return CODE_INT, value.to_bytes(8, "little", signed=True)
    if kind is float:
        return CODE_FLOAT, _FLOAT.pack(value)
    if kind is bool:
        return (CODE_TRUE if value else CODE_FALSE), b""
    return (CODE_NULL, b"") if value is None else None


def decode_raw(code: int, payload: bytes) -> Any:
    """
    Decode what encode_raw() made.

    Raises:
        SerializationError: It made no such thing.
    """
    decoder = _RAW_DECODERS.get(code)
    if decoder is None:
        raise SerializationError(f"a stored value has the unknown code {code}")
    try:
        return decoder(payload)
    except (ValueError, struct.error):
        raise SerializationError(f"a stored value of code {code} is damaged") from None


def _decode_int(payload: bytes) -> int:
    if len(payload) != 8:
        raise ValueError
    return int.from_bytes(payload, "little", signed=True)


def _decode_float(payload: bytes) -> float:
    number: float = _FLOAT.unpack(payload)[0]
    return number


_RAW_DECODERS: Final[Mapping[int, Callable[[bytes], Any]]] = {
    CODE_BYTES: bytes,
    CODE_STR: lambda payload: str(payload, "utf-8"),
    CODE_INT: _decode_int,
    CODE_FLOAT: _decode_float,
    CODE_TRUE: lambda _: True,
    CODE_FALSE: lambda _: False,
    CODE_NULL: lambda _: None,
}
RAW_CODES: Final = frozenset(_RAW_DECODERS)
