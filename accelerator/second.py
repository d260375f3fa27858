"""
The second level of this process: Redis, what guards its callers, and who listens to it.

One per attachment.  Nothing is connected, and no thread starts, before an area uses it.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any

from accelerator import local, message, remote
from accelerator.breaker import Guard
from accelerator.invalidation import Listener
from accelerator.remote import Change, Envelope, Fill
from accelerator.steps import Ask

if TYPE_CHECKING:
    from collections.abc import Sequence

    from accelerator.config import AreaConfig, Settings
    from accelerator.remote import Lease, Stored


class SecondLevel:
    """
    Redis, for the areas of one memory.

    Args:
        memory: Where this host knows its state.
        settings: Of the process; *redis* is given.
    """

    def __init__(self, memory: local.Segment, settings: Settings) -> None:
        self.bound = settings.freshness_bound
        """Seconds that a change on another host may take to be seen here."""
        self.origin = memory.origin
        self._memory = memory
        self._settings = settings
        self._remote = remote.connect(settings)
        self._guard = Guard(memory, settings)
        self._listener = Listener(memory, self._remote, settings)
