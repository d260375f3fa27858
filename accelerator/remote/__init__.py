"""L2: Redis, through redis-py; the only place that knows it."""

from accelerator.backend import Change, Envelope, Fill, Lease, Stored, Written
from accelerator.codec import fingerprint_of
from accelerator.remote.aio import AsyncRedisRemote
from accelerator.remote.envelope import (
    EnvelopeError,
    Opened,
    seal,
    unseal,
)
from accelerator.remote.names import Names, host_channel
from accelerator.remote.sync import RedisRemote, connect

__all__ = [
    "AsyncRedisRemote",
    "Change",
    "Envelope",
    "EnvelopeError",
    "Fill",
    "Lease",
    "Names",
    "Opened",
    "RedisRemote",
    "Stored",
    "Written",
    "connect",
    "fingerprint_of",
    "host_channel",
    "seal",
    "unseal",
]
