"""How numbers, times and sizes are written for people, and text that fits a terminal."""

from __future__ import annotations

import unicodedata

NOTHING = "-"
"""What stands where there is no number."""


def count(number: float | None) -> str:
    """A number in at most six characters or so: 950, 12,345, 1.2M."""
    if number is None:
        return NOTHING
    for limit, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M")):
        if number >= limit:
            return f"{number / limit:.1f}{unit}"
    if 0 < number < 9.95 and number != int(number):
        return f"{number:.1f}"
    return f"{number:,.0f}"


def share(number: float | None) -> str:
    """A share of 1."""
    if number is None:
        return NOTHING
    # 100.0% is said of everything only: the one miss in a million reads is what is looked for.
    return f"{min(number, 0.999):.1%}" if 0.999 <= number < 1 else f"{number:.1%}"


def seconds(number: float | None) -> str:
    """A time: 0.03 ms, 0.4 ms, 25 ms, 1.5 s, 3 min, 2 h, 5 d."""
    if number is None:
        return NOTHING
    if number < 1:
        ms = number * 1000
        if ms >= 10:
            return f"{ms:.0f} ms"
        return (f"{ms:.1f}" if ms >= 0.1 else f"{ms:.2f}").removesuffix(".0") + " ms"
    for limit, unit in ((2 * 86400, "d"), (2 * 3600, "h"), (120, "min")):
        if number >= limit:
            per = {"d": 86400, "h": 3600, "min": 60}[unit]
            return f"{number / per:.0f} {unit}"
    return f"{number:.0f} s" if number >= 10 else f"{number:.1f}".removesuffix(".0") + " s"


def size(number: float | None) -> str:
    """A number of bytes."""
    if number is None:
        return NOTHING
    for limit, unit in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if number >= limit:
            return f"{number / limit:.1f} {unit}"
    return f"{number:.0f} B"


def printable(text: str) -> str:
    """Keep what comes from a segment from steering the terminal."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def width(text: str) -> int:
    """Columns that *text* takes on a terminal."""
    return sum(map(_columns, text))


def _columns(letter: str) -> int:
    if unicodedata.combining(letter):
        return 0
    return 2 if unicodedata.east_asian_width(letter) in {"W", "F"} else 1


def cut(text: str, columns: int) -> str:
    """Shorten *text* to so many columns; what was shortened ends with an ellipsis."""
    if width(text) <= columns:
        return text
    kept, used = "", 1
    for letter in text:
        used += _columns(letter)
        if used > columns:
            break
        kept += letter
    return kept + "…" if columns > 0 else ""


def left(text: str, columns: int) -> str:
    """Fill up behind."""
    return text + " " * (columns - width(text))


def right(text: str, columns: int) -> str:
    """Fill up before."""
    return " " * (columns - width(text)) + text


def plural(number: int, one: str, many: str | None = None) -> str:
    """1 worker, 2 workers."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"
