"""The same cache for async code, under the names of the methods that block."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic

from accelerator.entry import K, V

if TYPE_CHECKING:
    from accelerator.twins import AsyncTwins


class AsyncView(Generic[K, V]):
    """
    ``cache.aio``: each method is the one of the cache with the prefix ``a``, which is awaited.

    ``await cache.aio.get(key)`` is ``await cache.aget(key)``.  There is no copy of anything: the
    methods are those of the cache, its own where a subclass has them.  lock() is the same one.
    """

    def __init__(self, cache: AsyncTwins[K, V]) -> None:
        self.get = cache.aget
        self.mget = cache.amget
        self.peek = cache.apeek
        self.get_entry = cache.aget_entry
        self.get_or_load = cache.aget_or_load
        self.refresh = cache.arefresh
        self.warmup = cache.awarmup
        self.set = cache.aset
        self.mset = cache.amset
        self.add = cache.aadd
        self.touch = cache.atouch
        self.incr = cache.aincr
        self.decr = cache.adecr
        self.delete = cache.adelete
        self.mdelete = cache.amdelete
        self.expire = cache.aexpire
        self.clear = cache.aclear
        self.delete_tags = cache.adelete_tags
        self.expire_tags = cache.aexpire_tags
        self.lock = cache.lock
        self._cache = cache

    def __repr__(self) -> str:
        return f"{self._cache!r}.aio"
