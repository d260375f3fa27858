"""
Tags: what values may carry so that they can be forgotten together.

A tag is a str of 1 to 255 bytes in UTF-8 and belongs to an area.  A value carries at most eight:
those of its area, of the call that stores it, and of the loader, each once.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

MOST: Final = 8
"""Tags of one value; the same as ``local.TAGS_MAX``."""
SIZE_MAX: Final = 255
"""Bytes of one tag in UTF-8; the same as ``local.TAG_SIZE_MAX``."""


def listed(tags: Any, *, name: str = "tags") -> tuple[str, ...]:
    """
    Give tags as they came, each of them a str; nothing else about them is checked.

    Raises:
        TypeError: They are no iterable of str.  A single str is none, though it has letters.
    """
    if isinstance(tags, str | bytes) or not isinstance(tags, Iterable):
        raise TypeError(f"{name} must be an iterable of str, not {type(tags).__name__}")
    found = tuple(tags)
    for tag in found:
        if not isinstance(tag, str):
            raise TypeError(f"a tag must be a str, not {type(tag).__name__}")
    return found


def encoded(tags: Any, *, name: str = "tags") -> tuple[bytes, ...]:
    """
    Check and encode tags, each once, in the order in which they came.

    Raises:
        TypeError: They are no iterable of str.
        ValueError: One is empty, too long, or no text.
    """
    return tuple(dict.fromkeys(_encoded_one(tag) for tag in listed(tags, name=name)))


def _encoded_one(tag: str) -> bytes:
    try:
        found = str.encode(tag)
    except UnicodeEncodeError:
        raise ValueError("a tag must be text that can be encoded in UTF-8") from None
    if not 0 < len(found) <= SIZE_MAX:
        raise ValueError(f"a tag must have 1 to {SIZE_MAX} bytes in UTF-8, not {len(found)}")
    return found


def joined(first: tuple[bytes, ...], more: tuple[bytes, ...]) -> tuple[bytes, ...]:
    """
    Give all tags of a value, each once.

    Raises:
        ValueError: There are too many.
    """
    if not more:
        return first
    found = tuple(dict.fromkeys((*first, *more)))
    if len(found) > MOST:
        raise ValueError(
            f"a value carries at most {MOST} tags, those of its area and of its loader included, "
            f"not {len(found)}"
        )
    return found
