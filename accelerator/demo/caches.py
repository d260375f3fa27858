"""
The three ways in which the shop keeps its product pages' data.

All offer the same two methods: ``find`` (the product, and whether a cache knew it) and ``forget``
(called by the worker that changed the product, after its commit).  Both caches keep a product for
the same time, so what differs is only who sees what.
"""

import threading
import time
from collections import OrderedDict
from typing import Protocol

from accelerator import LevelCache
from accelerator.demo.database import Database, Product

TTL = 60.0
"""Seconds that a product is kept by either cache: longer than a phase of the demo."""


class Products(Protocol):
    """Where the shop gets its products from."""

    def find(self, product_id: int) -> tuple[Product | None, bool]:
        """The product, and whether a cache answered."""

    def forget(self, product_id: int) -> None:
        """The product has changed in the database."""


class UncachedProducts:
    """Asks the database every time: always right, never fast."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def find(self, product_id: int) -> tuple[Product | None, bool]:
        """Ask the database."""
        return self._database.product(product_id), False

    def forget(self, product_id: int) -> None:
        """Nothing is kept, so there is nothing to forget."""


class PerWorkerProducts:
    """
    A dict in each worker: what many applications do today, done decently.

    Bounded (the least recently used product goes), with a time to live, safe for threads, and the
    worker that changes a product drops its own copy at once.  The copies of the other workers live
    on until their time is up: no worker can reach into another's memory.
    """

    def __init__(self, database: Database, *, ttl: float = TTL, max_entries: int = 10_000) -> None:
        self._database = database
        self._ttl = ttl
        self._max_entries = max_entries
        self._lock = threading.Lock()
        self._entries: OrderedDict[int, tuple[float, Product | None]] = OrderedDict()

    def find(self, product_id: int) -> tuple[Product | None, bool]:
        """Look into this worker's dict, then ask the database."""
        now = time.monotonic()
        with self._lock:
            entry = self._entries.get(product_id)
            if entry is not None and now < entry[0]:
                self._entries.move_to_end(product_id)
                return entry[1], True
        product = self._database.product(product_id)
        with self._lock:
            self._entries[product_id] = (now + self._ttl, product)
            self._entries.move_to_end(product_id)
            if len(self._entries) > self._max_entries:
                self._entries.popitem(last=False)
        return product, False

    def forget(self, product_id: int) -> None:
        """Drop this worker's copy."""
        with self._lock:
            self._entries.pop(product_id, None)


class AcceleratorProducts:
    """One cache in shared memory for all workers of this host."""

    def __init__(self, database: Database, *, ttl: float = TTL) -> None:
        self._database = database
        self._cache = LevelCache("products", local_ttl=ttl)

    def find(self, product_id: int) -> tuple[Product | None, bool]:
        """Look into the shared cache, then ask the database."""
        hit = True

        def load(product_id: int) -> Product | None:
            nonlocal hit
            hit = False
            return self._database.product(product_id)

        # An application that does not count its hits writes
        #     self._cache.get_or_load(product_id, self._database.product)
        # It stores what the loader brought only if no delete came in between: with get() and set()
        # a slow reader could store the old row after the delete that followed its update.
        product: Product | None = self._cache.get_or_load(product_id, load)
        return product, hit

    def forget(self, product_id: int) -> None:
        """
        Drop the one copy there is.

        When this returns no worker is given the old copy any more, and no load that began before it
        is stored after it.
        """
        self._cache.delete(product_id)
