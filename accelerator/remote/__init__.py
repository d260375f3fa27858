"""L2: Redis, through redis-py; the only place that knows it."""

from accelerator.remote.aio import AsyncRedisRemote
from accelerator.remote.envelope import (
    Envelope,
    EnvelopeError,
    Opened,
    can_compress,
    fingerprint_of,
    seal,
    unseal,
)
from accelerator.remote.names import Names, host_channel
from accelerator.remote.plans import Change, Fill, Lease, Stored, Written
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
    "can_compress",
    "connect",
    "fingerprint_of",
    "host_channel",
    "seal",
    "unseal",
]
