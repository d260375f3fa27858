"""
What stands between callers and a Redis that is slow or gone.

The state is in the segment: what one worker has found out, all of the host know.  A call is tried,
or not, and its outcome reported; the decisions are those of the memory (``remote_ask`` and what
follows it).
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Final

from accelerator import local
from accelerator.errors import RemoteError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from accelerator.config import Settings

STARVED: Final = 0.05
"""Seconds after the time limit: a thread that notices a timeout later than this did not run."""

_ERROR: Final = local.COUNTERS.index("l2_error")
_TIMEOUT: Final = local.COUNTERS.index("l2_timeout")
_SKIPPED: Final = local.COUNTERS.index("l2_skipped")


class Guard:
    """
    Around each call of Redis.

    Args:
        memory: Where the host's state is.
        settings: Of the process.
    """

    def __init__(self, memory: local.Segment, settings: Settings) -> None:
        self._memory = memory
        self._bound = settings.freshness_bound

    @contextlib.contextmanager
    def call(self, area: local.AreaBase, name: str, *, reading: bool) -> Iterator[None]:
        """
        Try a call, in a ``with``.

        Args:
            area: Where it is counted.
            name: The area's name.
            reading: It only reads, so it needs a Redis that is known to be current as well.

        Raises:
            RemoteError: It must not be tried now; or what the call raised.
        """
        answer = self._memory.remote_ask(self._bound, reading)
        if answer == local.REMOTE_NO:
            area._count(_SKIPPED)
            raise RemoteError(
                "Redis was not asked, as it is known to be away", reason="skipped", area=name
            )
        probe = answer == local.REMOTE_PROBE
        since = time.monotonic()
        try:
            yield
        except RemoteError as error:
            area._count(_ERROR)
            if error.reason == "timeout":
                area._count(_TIMEOUT)
            if _counts(error):
                self._memory.remote_failed(since, probe)
            elif error.reason in {"other", "refused"}:
                self._memory.remote_ok(probe)  # it answers; whether it takes writes, the link knows
            raise
        area._l2_latency(time.monotonic() - since)
        self._memory.remote_ok(probe)


def _counts(error: RemoteError) -> bool:
    """Whether it says something about Redis, and not about this thread."""
    if error.reason == "timeout":
        return error.late < STARVED
    return error.reason == "connection"
