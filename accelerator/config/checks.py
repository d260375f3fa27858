"""Checks of one value: each takes a name and a value, and returns the value as it is kept."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import Any, Final

from accelerator.durations import seconds, size_bytes
from accelerator.entry import CacheMode
from accelerator.errors import ConfigError

Check = Callable[[str, Any], Any]
"""Takes name and value of an option; returns it as kept, or raises TypeError or ValueError."""

_AREA_BYTES: Final = 104  # what the segment's table of areas has room for


def duration(*, allow_none: bool = False, allow_zero: bool = False) -> Check:
    """A duration, kept in float seconds."""

    def check(name: str, value: Any) -> float | None:
        return seconds(value, name=name, allow_none=allow_none, allow_zero=allow_zero)

    return check


def whole(minimum: int, maximum: int) -> Check:
    """A whole number."""

    def check(name: str, value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"{name} must be a whole number, not {type(value).__name__}")
        return within(name, int(value), minimum, maximum)

    return check


def size(minimum: int, maximum: int) -> Check:
    """A number of bytes."""

    def check(name: str, value: Any) -> int:
        return within(name, size_bytes(value, name=name), minimum, maximum)

    return check


def within(name: str, value: int, minimum: int, maximum: int) -> int:
    """Refuse a number that is out of its range."""
    if not minimum <= value <= maximum:
        raise ValueError(f"{name} must be {minimum} to {maximum}, not {value}")
    return value


def ratio(name: str, value: Any) -> float | None:
    """A number from 0 to 1, or None."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number from 0 to 1, or None, not {type(value).__name__}")
    if not 0 <= value <= 1:  # NaN, too
        raise ValueError(f"{name} must be from 0 to 1 (0.1 shortens lives by up to a tenth)")
    return float(value)


def flag(name: str, value: Any) -> bool:
    """True or False, and nothing that is merely true or false."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, not {type(value).__name__}")
    return value


def maybe_flag(name: str, value: Any) -> bool | None:
    """True, False, or None for "it depends"."""
    return None if value is None else flag(name, value)


def one_of(*choices: str) -> Check:
    """One of a few words."""

    def check(name: str, value: Any) -> str:
        if not isinstance(value, str):
            raise TypeError(f"{name} must be one of {listed(choices)}, not {type(value).__name__}")
        if value not in choices:
            raise ValueError(f"{name} must be one of {listed(choices)}")
        return str(value)

    return check


def listed(choices: tuple[str, ...]) -> str:
    """Name the choices in a message."""
    return ", ".join(repr(choice) for choice in choices)


def mode_or_none(name: str, value: Any) -> CacheMode | None:
    """A CacheMode, also as text, or None."""
    if value is None:
        return None
    choices = tuple(mode.value for mode in CacheMode)
    if not isinstance(value, str):
        kind = type(value).__name__
        raise TypeError(
            f"{name} must be a CacheMode, one of {listed(choices)}, or None, not {kind}"
        )
    try:
        return CacheMode(value)
    except ValueError:
        raise ValueError(f"{name} must be one of {listed(choices)}, or None") from None


def name_of_area(name: str, value: Any) -> str:
    """A name that the table of areas has room for."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be text, not {type(value).__name__}")
    return label(name, str(value), _AREA_BYTES)


def label(name: str, value: str, most: int) -> str:
    """Check text that ends up in log lines and names of Redis keys."""
    if not value or value != value.strip() or not value.isprintable():
        raise ValueError(
            f"{name} must be printable text that is not empty and neither begins nor ends with "
            "a space"
        )
    if len(value.encode("utf-8")) > most:  # printable text has no surrogates
        raise ValueError(f"{name} must be at most {most} bytes long in UTF-8")
    return value


def maybe_callable(name: str, value: Any) -> Any:
    """A function, or None."""
    if value is not None and not callable(value):
        raise TypeError(f"{name} must be something to call, or None, not {type(value).__name__}")
    return value


def text_or_none(area: Any) -> str | None:
    """Give the area for an error message, which must not fail for a wrong area."""
    return area if isinstance(area, str) else None


def checked(name: str, check: Check, value: Any, *, area: str | None = None) -> Any:
    """Run a check; what it refuses becomes a ConfigError that names the option."""
    try:
        return check(name, value)
    except (TypeError, ValueError) as error:
        # Not "from error": some of the causes show the value, and it may be a secret.
        where = None if name == "area" else area
        raise ConfigError(str(error), setting=name, area=where) from None


def refuse_unknown(
    given: Mapping[str, Any], known: Mapping[str, Check], *, area: str | None = None
) -> None:
    """Refuse names that no option has, with the one that was meant."""
    for name in given:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(sorted(known))}"
            raise ConfigError(f"there is no option {name}: {hint}", setting=name, area=area)
