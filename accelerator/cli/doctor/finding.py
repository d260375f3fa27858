"""What the doctor says about one thing."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Level(Enum):
    """How bad it is."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True)
class Finding:
    """
    One thing that was looked at.

    Args:
        check: What about: a word or two, the same in every version.
        level: How bad it is.
        what: What was found.
        means: What that means for the application.
        cure: What to do.
        config: It is a setting that is wrong.
    """

    check: str
    level: Level
    what: str
    means: str = ""
    cure: str = ""
    config: bool = False


def ok(check: str, what: str) -> Finding:
    """All is well."""
    return Finding(check, Level.OK, what)


def warn(check: str, what: str, means: str, cure: str) -> Finding:
    """It works, and not as well as it could, or not for long."""
    return Finding(check, Level.WARN, what, means, cure)


def fail(check: str, what: str, means: str, cure: str, *, config: bool = False) -> Finding:
    """Something that was asked for does not work."""
    return Finding(check, Level.FAIL, what, means, cure, config)
