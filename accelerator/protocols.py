"""
What can be replaced by your own: the protocols, and what implementations of them need.

==========================  =====================================  ================================
protocol                    is plugged in with                     is proved with
==========================  =====================================  ================================
``Loader``, ``MLoader``     ``LevelCache(loader=)``                ``LoaderSuite``, ``MLoaderSuite``
``Codec``                   ``LevelCache(codec=)``                 ``CodecSuite``
``KeyConverter``            ``LevelCache(key_converter=)``         ``KeyConverterSuite``
``LocalBackend``            ``LevelCache(local=)``                 ``LocalBackendSuite``
``RemoteBackend``           ``configure(remote=)``                 ``RemoteBackendSuite``
``AsyncRemoteBackend``      ``RemoteBackend.for_loop()``           ``AsyncRemoteBackendSuite``
``InvalidationSubscriber``  ``RemoteBackend.subscriber()``         ``SubscriberSuite``
==========================  =====================================  ================================

The suites are in ``accelerator.testing``.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from accelerator.backend import (
    HEARD_BEAT,
    HEARD_CONFIRMED,
    HEARD_MESSAGE,
    AsyncRemoteBackend,
    Change,
    Envelope,
    Fill,
    Heard,
    InvalidationSubscriber,
    Lease,
    LocalBackend,
    LocalEntry,
    Received,
    RemoteBackend,
    Stored,
    Written,
)
from accelerator.codec import CODE_INT, Codec
from accelerator.errors import RemoteError
from accelerator.loader import Loader, MLoader
from accelerator.message import (
    CLEAR,
    EXPIRE,
    EXPIRE_TAGS,
    FORGET,
    FORGET_TAGS,
    SET,
    body,
    heartbeat,
    invalidation,
)
from accelerator.remote.envelope import EnvelopeError, Head, read_head, tags_of, with_stale

__all__ = [
    "CLEAR",
    "CODE_INT",
    "EXPIRE",
    "EXPIRE_TAGS",
    "FORGET",
    "FORGET_TAGS",
    "HEARD_BEAT",
    "HEARD_CONFIRMED",
    "HEARD_MESSAGE",
    "SET",
    "AsyncRemoteBackend",
    "Change",
    "Codec",
    "Envelope",
    "EnvelopeError",
    "Fill",
    "Head",
    "Heard",
    "InvalidationSubscriber",
    "KeyConverter",
    "Lease",
    "Loader",
    "LocalBackend",
    "LocalEntry",
    "MLoader",
    "Received",
    "RemoteBackend",
    "RemoteError",
    "Stored",
    "Written",
    "body",
    "heartbeat",
    "invalidation",
    "read_head",
    "tags_of",
    "with_stale",
]


@runtime_checkable
class KeyConverter(Protocol):
    """
    What a key of the application's is called in the cache.

    Two keys that mean the same must give equal ones, also in other processes and on other hosts
    (so nothing of ``id()``, ``hash()`` or ``repr()`` of objects), and two that do not must never:
    who shares a key shares a value.  Called from any thread, often; raises TypeError or ValueError
    for what is no key.
    """

    def __call__(self, key: Any, /) -> Any:
        """Give a key of the kinds that LevelCache takes: str, bytes, int, UUID, tuples of those."""
