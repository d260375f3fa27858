"""
L1: the native area and segment, or their twins in process memory where there is no native part.

Everything to the right asks here and cannot tell which it has.  ``ACCELERATOR_PURE=1`` asks for
the twins, for tests.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from accelerator.errors import NotAttached

try:
    import accelerator._native  # noqa: F401  whether it can be imported is the question
except ImportError:
    NATIVE = False
else:
    NATIVE = os.environ.get("ACCELERATOR_PURE") != "1"

# The twins have the same names with the same meaning; the type checker is shown one of the two.
if TYPE_CHECKING or NATIVE:
    from accelerator._native import (
        ADD,
        BUSY,
        BY_ANSWER,
        BYPASS,
        CACHE_NULL,
        CAP,
        COUNTERS,
        FILL,
        FLIGHT_CROWDED,
        FLIGHT_JOINED,
        FLIGHT_LEADING,
        FLIGHT_OVER,
        FORCE,
        JOIN,
        LATENCY_BOUNDS,
        LINK_CONNECTED,
        LINK_LOST,
        LINK_MESSAGE,
        LOADS,
        LOCK,
        MIN_SIZE,
        NOT_STORED,
        NOTE_CLEAR,
        NOTE_EXPIRE,
        NOTE_EXPIRE_TAG,
        NOTE_FORGET,
        NOTE_FORGET_TAG,
        NOTE_SET,
        OBJECTS_COPY,
        OBJECTS_SHARED,
        OFF,
        OVERRIDES,
        OWN_OBJECTS,
        PLAIN_MISS,
        PLAIN_SET,
        REFRESH,
        REMOTE_GO,
        REMOTE_NO,
        REMOTE_PROBE,
        RESULT_DECLINED,
        RESULT_FAILED,
        RESULT_HANDED,
        RESULT_STORED,
        RESULT_UNKNOWN,
        SERVE,
        SET,
        STORED,
        TAG_SIZE_MAX,
        TAGS_MAX,
        TOO_LARGE,
        UNSET,
        VERIFY_FULL,
        WAIT_AGAIN,
        WAIT_ENDED,
        WAIT_TIMEOUT,
        Bell,
        Call,
        Flight,
        Segment,
        encode_key,
        install,
    )
    from accelerator._native import Area as AreaBase
else:
    from accelerator.process_local import (
        ADD,
        BUSY,
        BY_ANSWER,
        BYPASS,
        CACHE_NULL,
        CAP,
        COUNTERS,
        FILL,
        FLIGHT_CROWDED,
        FLIGHT_JOINED,
        FLIGHT_LEADING,
        FLIGHT_OVER,
        FORCE,
        JOIN,
        LATENCY_BOUNDS,
        LINK_CONNECTED,
        LINK_LOST,
        LINK_MESSAGE,
        LOADS,
        LOCK,
        MIN_SIZE,
        NOT_STORED,
        NOTE_CLEAR,
        NOTE_EXPIRE,
        NOTE_EXPIRE_TAG,
        NOTE_FORGET,
        NOTE_FORGET_TAG,
        NOTE_SET,
        OBJECTS_COPY,
        OBJECTS_SHARED,
        OFF,
        OVERRIDES,
        OWN_OBJECTS,
        PLAIN_MISS,
        PLAIN_SET,
        REFRESH,
        REMOTE_GO,
        REMOTE_NO,
        REMOTE_PROBE,
        RESULT_DECLINED,
        RESULT_FAILED,
        RESULT_HANDED,
        RESULT_STORED,
        RESULT_UNKNOWN,
        SERVE,
        SET,
        STORED,
        TAG_SIZE_MAX,
        TAGS_MAX,
        TOO_LARGE,
        UNSET,
        VERIFY_FULL,
        WAIT_AGAIN,
        WAIT_ENDED,
        WAIT_TIMEOUT,
        Bell,
        Call,
        Flight,
        Segment,
        encode_key,
        install,
    )
    from accelerator.process_local import Area as AreaBase

if TYPE_CHECKING:
    from accelerator import process_local
    from accelerator.memory import LocalArea, LocalBell, LocalFlight, LocalMemory

    # Both of each keep to the protocol, or this does not type-check.
    _areas: tuple[type[LocalArea], ...] = (AreaBase, process_local.Area)
    _flights: tuple[type[LocalFlight], ...] = (Flight, process_local.Flight)
    _bells: tuple[type[LocalBell], ...] = (Bell, process_local.Bell)
    _memories: tuple[type[LocalMemory], ...] = (Segment, process_local.Segment)

__all__ = [
    "ADD",
    "BUSY",
    "BYPASS",
    "BY_ANSWER",
    "CACHE_NULL",
    "CAP",
    "COUNTERS",
    "FILL",
    "FLIGHT_CROWDED",
    "FLIGHT_JOINED",
    "FLIGHT_LEADING",
    "FLIGHT_OVER",
    "FORCE",
    "JOIN",
    "LATENCY_BOUNDS",
    "LINK_CONNECTED",
    "LINK_LOST",
    "LINK_MESSAGE",
    "LOADS",
    "LOCK",
    "MIN_SIZE",
    "NATIVE",
    "NOTE_CLEAR",
    "NOTE_EXPIRE",
    "NOTE_EXPIRE_TAG",
    "NOTE_FORGET",
    "NOTE_FORGET_TAG",
    "NOTE_SET",
    "NOT_STORED",
    "OBJECTS_COPY",
    "OBJECTS_SHARED",
    "OFF",
    "OVERRIDES",
    "OWN_OBJECTS",
    "PLAIN_MISS",
    "PLAIN_SET",
    "REFRESH",
    "REMOTE_GO",
    "REMOTE_NO",
    "REMOTE_PROBE",
    "RESULT_DECLINED",
    "RESULT_FAILED",
    "RESULT_HANDED",
    "RESULT_STORED",
    "RESULT_UNKNOWN",
    "SERVE",
    "SET",
    "STORED",
    "TAGS_MAX",
    "TAG_SIZE_MAX",
    "TOO_LARGE",
    "UNSET",
    "VERIFY_FULL",
    "WAIT_AGAIN",
    "WAIT_ENDED",
    "WAIT_TIMEOUT",
    "AreaBase",
    "Bell",
    "Call",
    "Flight",
    "Segment",
    "encode_key",
    "install",
    "private_segment",
]

_PAGE = 4096


def private_segment(size: int, max_value_size: int) -> Segment:
    """
    Make the same structure in memory of this process.

    Raises:
        NotAttached: There is not even that much memory.
    """
    try:
        # Pages are taken when they are first used, so the size is a bound and no cost.
        return Segment.private(max(MIN_SIZE, size // _PAGE * _PAGE), max_value_size)
    except (OSError, ValueError) as error:
        raise NotAttached(f"no memory for a cache of {size} bytes: {error}") from error
