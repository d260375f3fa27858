"""L2: Redis, through redis-py, which only this place knows; or what the application brings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from accelerator.backend import Change, Envelope, Fill, Lease, Stored, Written
from accelerator.codec import fingerprint_of
from accelerator.errors import ConfigError
from accelerator.remote.aio import AsyncRedisRemote
from accelerator.remote.arrivals import Arrivals, Probed, measure, reach
from accelerator.remote.envelope import (
    EnvelopeError,
    Head,
    Opened,
    read_head,
    seal,
    unseal,
    with_stale,
)
from accelerator.remote.foreign import ForeignRemote
from accelerator.remote.names import Names, host_channel
from accelerator.remote.probe import Seen, probe
from accelerator.remote.sync import RedisRemote, connect

if TYPE_CHECKING:
    from accelerator.backend import Remote
    from accelerator.config import Settings

__all__ = [
    "Arrivals",
    "AsyncRedisRemote",
    "Change",
    "Envelope",
    "EnvelopeError",
    "Fill",
    "ForeignRemote",
    "Head",
    "Lease",
    "Names",
    "Opened",
    "Probed",
    "RedisRemote",
    "Seen",
    "Stored",
    "Written",
    "connect",
    "fingerprint_of",
    "host_channel",
    "measure",
    "open",
    "probe",
    "reach",
    "read_head",
    "seal",
    "unseal",
    "with_stale",
]


def open(settings: Settings) -> Remote:  # noqa: A001  it is called as remote.open()
    """
    Make the second level that *settings* say; nothing is connected, or imported, before it is used.

    Raises:
        ConfigError: As connect().
    """
    if settings.remote is None:
        return connect(settings)
    namespace = settings.namespace or settings.name
    if namespace is None:
        raise ConfigError("there is no name and no namespace", setting="remote")
    return ForeignRemote(settings.remote, namespace)
