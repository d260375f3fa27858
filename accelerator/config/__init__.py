"""
Options of an area and settings of the process, checked once, when they are given.

Whatever is wrong, and whatever can never have an effect, is a ConfigError that names the option and
says what to write instead.  What merely has no effect *here* (an option of Redis on a developer's
machine without Redis) is accepted: the same code has to run there.
"""

from accelerator.config.area import MAX_VALUE_SIZE, STALE_LIFE, AreaConfig
from accelerator.config.settings import (
    Origin,
    Settings,
    derived_name,
    origins,
    redacted_url,
    unknown_variables,
)

__all__ = [
    "MAX_VALUE_SIZE",
    "STALE_LIFE",
    "AreaConfig",
    "Origin",
    "Settings",
    "derived_name",
    "origins",
    "redacted_url",
    "unknown_variables",
]
