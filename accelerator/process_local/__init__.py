"""
The segment's twin in the memory of one process, for where there is no native part.

``ProcessLocalSegment`` and ``ProcessLocalArea`` have the methods of ``_native.Segment`` and
``_native.Area`` and mean the same by them, so that LevelCache can stand on either.  Values are kept
encoded: what a hit returns is never the object that a caller passed to ``set``.

Bounded by bytes, evicting as the segment does: two queues, of which the small one keeps what is
asked for only once from pushing out the rest; what is asked for again after it was evicted goes to
the main one at once.

One lock, held for microseconds and never while user code (a codec) runs.  It is re-entrant because
a signal handler or a finaliser may use the cache while the thread below it is inside.  After a
fork the child goes on with its copy of everything and a lock of its own.
"""

from __future__ import annotations

from accelerator.codec import (
    CODE_BYTES,
    CODE_FALSE,
    CODE_FLOAT,
    CODE_INT,
    CODE_MSGPACK,
    CODE_NULL,
    CODE_PICKLE,
    CODE_RAW,
    CODE_STR,
    CODE_TRUE,
)
from accelerator.entry import UNSET, UnsetType
from accelerator.keys import encode as encode_key
from accelerator.process_local.area import ProcessLocalArea
from accelerator.process_local.calls import Call
from accelerator.process_local.constants import (
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
    LAYOUT,
    LINK_CONNECTED,
    LINK_LOST,
    LINK_MESSAGE,
    LOADS,
    LOCK,
    MAX_SIZE,
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
    VERIFY_FULL,
    WAIT_AGAIN,
    WAIT_ENDED,
    WAIT_TIMEOUT,
)
from accelerator.process_local.flights import Bell, Flight
from accelerator.process_local.segment import ProcessLocalSegment, key_hash

__all__ = [
    "ADD",
    "BUSY",
    "BYPASS",
    "BY_ANSWER",
    "CACHE_NULL",
    "CAP",
    "CODE_BYTES",
    "CODE_FALSE",
    "CODE_FLOAT",
    "CODE_INT",
    "CODE_MSGPACK",
    "CODE_NULL",
    "CODE_PICKLE",
    "CODE_RAW",
    "CODE_STR",
    "CODE_TRUE",
    "COUNTERS",
    "FILL",
    "FLIGHT_CROWDED",
    "FLIGHT_JOINED",
    "FLIGHT_LEADING",
    "FLIGHT_OVER",
    "FORCE",
    "JOIN",
    "LATENCY_BOUNDS",
    "LAYOUT",
    "LINK_CONNECTED",
    "LINK_LOST",
    "LINK_MESSAGE",
    "LOADS",
    "LOCK",
    "MAX_SIZE",
    "MIN_SIZE",
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
    "Area",
    "Bell",
    "Call",
    "Flight",
    "ProcessLocalArea",
    "ProcessLocalSegment",
    "Segment",
    "UnsetType",
    "encode_key",
    "install",
    "key_hash",
]

Area = ProcessLocalArea
Segment = ProcessLocalSegment


def install(cls: type) -> None:
    """Do nothing: here an inherited method is as fast as one of the class's own."""
