"""Durations and sizes as people write them: ``90``, ``"5m"``, a timedelta, ``"64MiB"``."""

from __future__ import annotations

import math
import re
from datetime import timedelta
from itertools import pairwise
from typing import Final, Literal, TypeAlias, overload

Duration: TypeAlias = int | float | timedelta | str
"""Seconds as a number, a timedelta, or text such as "90s", "250ms", "1h30m"."""

_UNITS: Final = {
    "w": 7 * 86400.0,
    "d": 86400.0,
    "h": 3600.0,
    "m": 60.0,
    "s": 1.0,
    "ms": 0.001,
}
_NUMBER: Final = r"[0-9]+(?:\.[0-9]+)?"
_PART: Final = rf"({_NUMBER})\s*(ms|[wdhms])\s*"
_PARTS: Final = re.compile(rf"(?:{_PART})+", re.IGNORECASE)
_NEXT_PART: Final = re.compile(_PART, re.IGNORECASE)
_PLAIN: Final = re.compile(_NUMBER)
_SIZE: Final = re.compile(rf"({_NUMBER})\s*(?:([kmgt])i?b?|b)?", re.IGNORECASE)
_SIZE_UNITS: Final = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_TEXT_MAX: Final = 64


@overload
def seconds(
    value: object, *, name: str, allow_none: Literal[False] = ..., allow_zero: bool = ...
) -> float: ...
@overload
def seconds(
    value: object, *, name: str, allow_none: bool, allow_zero: bool = ...
) -> float | None: ...
def seconds(
    value: object, *, name: str, allow_none: bool = False, allow_zero: bool = False
) -> float | None:
    """
    Read a duration.

    Args:
        value: A Duration, or ``None`` where that is allowed.
        name: What the duration is, for the message.
        allow_none: ``None`` is an answer (no limit) and comes back as it is.
        allow_zero: 0 is an answer, not a mistake.

    Returns:
        Float seconds, finite and not negative.

    Raises:
        TypeError: It is none of the types above (bool is no number here).
        ValueError: It is negative, NaN, infinite, or text that is no duration.
    """
    if value is None and allow_none:
        return None
    found = _raw_seconds(value, name)
    if math.isnan(found):
        raise ValueError(f"{name} is not a number (NaN): give seconds")
    if math.isinf(found):
        raise ValueError(f"{name} is infinite: {_instead_of_infinity(allow_none=allow_none)}")
    if found < 0 or (found == 0 and not allow_zero):
        raise ValueError(f"{name} must be {'0 or more' if allow_zero else 'more than 0'} seconds")
    return found + 0.0  # turns -0.0 into 0.0


def _raw_seconds(value: object, name: str) -> float:
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, str):
        return _parse(value, name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(
            f"{name} must be seconds (int or float), a timedelta, or text such as '90s' or "
            f"'1h30m', not {type(value).__name__}"
        )
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _instead_of_infinity(*, allow_none: bool) -> str:
    return "write None for no limit" if allow_none else "give a finite number of seconds"


def _parse(text: str, name: str) -> float:
    stripped = text.strip()
    if len(stripped) <= _TEXT_MAX:  # no excerpt of megabytes in a message, no work on them either
        if _PLAIN.fullmatch(stripped):
            return float(stripped)
        parts = _NEXT_PART.findall(stripped.lower()) if _PARTS.fullmatch(stripped) else []
        units = [_UNITS[unit] for _, unit in parts]
        # Large units first and each at most once, so that a slip such as "1m1m" is noticed.
        if units and all(before > after for before, after in pairwise(units)):
            return math.fsum(
                float(number) * unit for (number, _), unit in zip(parts, units, strict=True)
            )
    raise ValueError(
        f"{name} is no duration: write a number of seconds, or a number with a unit "
        f"({', '.join(_UNITS)}) such as '90s', '250ms' or '1h30m'"
    )


def size_bytes(value: object, *, name: str) -> int:
    """
    Read a size in bytes: an int, or text such as ``"256MiB"``, ``"64m"``, ``"1.5g"``.

    k, m, g and t are powers of 1024 however they are written, as in Docker and Gunicorn.

    Raises:
        TypeError: It is neither int nor text (bool is no number here).
        ValueError: It is negative, or text that is no size.
    """
    if isinstance(value, str):
        match = _SIZE.fullmatch(value.strip()) if len(value) <= _TEXT_MAX else None
        if match is None:
            raise ValueError(
                f"{name} is no size: write a number of bytes, or a number with a unit "
                "such as '512k', '64m', '256MiB' or '1.5g'"
            )
        return int(float(match[1]) * _SIZE_UNITS[(match[2] or "").lower()])
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(
            f"{name} must be a number of bytes (int) or text such as '64MiB', "
            f"not {type(value).__name__}"
        )
    if value < 0:
        raise ValueError(f"{name} must be 0 or more bytes")
    return int(value)
