"""The constants of ``_native``, and what only this package needs of the counters."""

from __future__ import annotations

from typing import Final

LAYOUT: Final = 0
MIN_SIZE: Final = 2 << 20
MAX_SIZE: Final = 1 << 40

STORED: Final = 0
NOT_STORED: Final = 1
TOO_LARGE: Final = 2
BUSY: Final = 3
"""Never answered here: nobody keeps the lock for long."""

SET: Final = 0
ADD: Final = 1
FILL: Final = 2

PLAIN_MISS: Final = 1
PLAIN_SET: Final = 2
OBJECTS_SHARED: Final = 4
OBJECTS_COPY: Final = 8
VERIFY_FULL: Final = 16
CACHE_NULL: Final = 32
OFF: Final = 64
LOADS: Final = 128
OWN_OBJECTS: Final = 256
BY_ANSWER: Final = 512

CODE_LIMIT: Final = 32
"""Codes of values are below it."""

TAGS_MAX: Final = 8
"""Most tags of a value."""
TAG_SIZE_MAX: Final = 255
"""Longest tag, in bytes of its UTF-8."""

CAP: Final = 0
BYPASS: Final = 1
SERVE: Final = 2

JOIN: Final = 0
REFRESH: Final = 1
FORCE: Final = 2
LOCK: Final = 3

FLIGHT_OVER: Final = 0
FLIGHT_LEADING: Final = 1
FLIGHT_JOINED: Final = 2
FLIGHT_CROWDED: Final = 3

WAIT_TIMEOUT: Final = 0
WAIT_ENDED: Final = 1
WAIT_AGAIN: Final = 2

RESULT_UNKNOWN: Final = 0
RESULT_STORED: Final = 1
RESULT_HANDED: Final = 2
RESULT_DECLINED: Final = 3
RESULT_FAILED: Final = 4

NOTE_FORGET: Final = 0
NOTE_SET: Final = 1
NOTE_EXPIRE: Final = 2
NOTE_CLEAR: Final = 3
NOTE_FORGET_TAG: Final = 4
NOTE_EXPIRE_TAG: Final = 5

REMOTE_GO: Final = 0
REMOTE_PROBE: Final = 1
REMOTE_NO: Final = 2

LINK_CONNECTED: Final = 0
LINK_LOST: Final = 1
LINK_MESSAGE: Final = 2

OVERRIDES: Final = (
    "mode",
    "loader_timeout",
    "max_loads",
    "ttl",
    "allow_stale",
    "penetration_protect",
    "on_desync",
    "breaker",
)
"""What can be overridden; the place of each is its number."""

LATENCY_BOUNDS: Final = (
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
)
"""
Upper bounds, in seconds, of the buckets that loads, and calls of L2, are counted in by their
duration.
"""

COUNTERS: Final = (
    "local_hit",
    "local_miss",
    "remote_hit",
    "remote_miss",
    "load",
    "load_success",
    "load_timeout",
    "load_error",
    "stale_fallback",
    "refresh_attempts",
    "refresh_success",
    "refresh_failures",
    "invalidation_publish",
    "invalidation_publish_failures",
    "invalidation_receive",
    "invalidation_receive_failures",
    "negative_hit",
    "object_hit",
    "set",
    "delete",
    "evictions",
    "expired",
    "store_rejected_size",
    "store_rejected_encode",
    "store_rejected_race",
    "lock_giveup",
    "dead_owner_takeover",
    "corrupt_item",
    "read_race",
    "load_led",
    "load_joined",
    "load_taken_over",
    "load_lease_lost",
    "load_alone",
    "load_crowded",
    "load_wait_timeout",
    "load_refused",
    "load_paused",
    "l2_error_get",
    "l2_error_fill",
    "l2_error_set",
    "l2_error_del",
    "l2_error_atomic",
    "l2_timeout_get",
    "l2_timeout_fill",
    "l2_timeout_set",
    "l2_timeout_del",
    "l2_timeout_atomic",
    "l2_undecodable",
    "l2_fill_refused",
    "l2_skipped",
    "gap",
    "replayed",
    "flush",
    "invalidation_queued",
    "own_skipped",
    "receive_error_subscribe",
    "receive_error_decode",
    "receive_error_apply",
    "desync_read",
    "tag_delete",
    "stale_allowed",
    "consistency_violation",
)

# Places of the counters that this package itself raises.
LOCAL_HIT: Final = COUNTERS.index("local_hit")
LOCAL_MISS: Final = COUNTERS.index("local_miss")
NEGATIVE_HIT: Final = COUNTERS.index("negative_hit")
OBJECT_HIT: Final = COUNTERS.index("object_hit")
SET_TOTAL: Final = COUNTERS.index("set")
DELETE_TOTAL: Final = COUNTERS.index("delete")
EVICTIONS: Final = COUNTERS.index("evictions")
EXPIRED_TOTAL: Final = COUNTERS.index("expired")
REJECTED_SIZE: Final = COUNTERS.index("store_rejected_size")
REJECTED_RACE: Final = COUNTERS.index("store_rejected_race")
CORRUPT: Final = COUNTERS.index("corrupt_item")
TAG_DELETE: Final = COUNTERS.index("tag_delete")
