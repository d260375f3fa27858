"""What a LocalBackend must hold."""

from __future__ import annotations

import os
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from accelerator.backend import LocalEntry
from accelerator.cache import LevelCache
from accelerator.entry import MISS
from accelerator.testing import isolated
from accelerator.testing.support import check, equal, together

if TYPE_CHECKING:
    from collections.abc import Iterator


def entry(payload: bytes = b"value", **more: Any) -> LocalEntry:
    """Make an entry."""
    now = time.monotonic()
    made = LocalEntry(1, payload, now, now + 60.5, now + 90.25, 7, (b"where\0\xff", 1, 2))
    return made._replace(**more)


class LocalBackendSuite:
    """
    Tests of a LocalBackend: subclass it, and give the fixture ``backend``: an empty one.

    ``keeps`` tells whether it keeps a few small entries for the time of a test.
    """

    keeps = True

    @pytest.fixture
    def cache(self, backend: Any) -> Iterator[LevelCache]:
        """Give a cache on it."""
        with isolated():
            yield LevelCache("suite", local=backend, ttl_jitter_ratio=None, stale_ttl=60)

    def there(self, backend: Any, key: bytes, expected: LocalEntry) -> None:
        """Hold that an entry is there as it was stored, or lost."""
        found = backend.get(key)
        if found is None and not self.keeps:
            return
        check(isinstance(found, LocalEntry), "get() gives a LocalEntry")
        equal(tuple(expected), tuple(found), "an entry")
        kinds = [type(each) for each in (*found[:6], *found.stamp)]
        equal([type(each) for each in (*expected[:6], *expected.stamp)], kinds, "its types")

    def test_stored(self, backend: Any) -> None:
        """An entry comes back as it was stored: bytes, times and stamp, to the last bit."""
        for at, made in enumerate(
            (
                entry(),
                entry(b""),
                entry(os.urandom(100_000)),
                entry(stale_at=None, gone_at=None, version=(1 << 31) - 1),
                entry(loaded_at=0.1 + 0.2, stamp=(b"", (1 << 32) - 1, 0, (1 << 64) - 1)),
            )
        ):
            key = b"i%d" % at
            backend.set(key, made)
            self.there(backend, key, made)

    def test_absent(self, backend: Any) -> None:
        """What was not stored is None, and to forget it is no error."""
        equal(None, backend.get(b"sabsent"), "an absent key")
        backend.delete(b"sabsent")
        equal(None, backend.get(b"sabsent"), "an absent key")

    def test_replaced(self, backend: Any) -> None:
        """What is stored last is what is there; what is deleted is gone."""
        backend.set(b"sa", entry(b"old"))
        backend.set(b"sa", entry(b"new"))
        found = backend.get(b"sa")
        check(found is None or found.payload == b"new", "the old entry is gone")
        backend.delete(b"sa")
        equal(None, backend.get(b"sa"), "a deleted key")

    def test_keys(self, backend: Any) -> None:
        """Keys are any bytes, and all of them differ."""
        keys = [b"a", b"A", b"a ", b"a\0", b"\0a", b"\xff", b"/", b"..", b"%61", b"x" * 512]
        for key in keys:
            backend.set(key, entry(key))
        for key in keys:
            found = backend.get(key)
            check(found is not None or not self.keeps, "a key that was set is there")
            check(found is None or found.payload == key, "no key has another one's entry")
        backend.delete(b"a")
        found = backend.get(b"A")
        check(found is not None or not self.keeps, "a delete is of one key")

    def test_clear(self, backend: Any) -> None:
        """After a clear nothing is there, and it works on."""
        for at in range(50):
            backend.set(b"i%d" % at, entry())
        backend.clear()
        equal([None] * 50, [backend.get(b"i%d" % at) for at in range(50)], "after a clear")
        made = entry(b"new")
        backend.set(b"sa", made)
        self.there(backend, b"sa", made)

    def test_threads(self, backend: Any) -> None:
        """Threads use it at once; none is given another key's entry, or half of one."""

        def use(name: int) -> None:
            for turn in range(100):
                for key in (b"shared", b"own%d" % name):
                    payload = key + b"%d" % turn * 50
                    backend.set(key, entry(payload))
                    found = backend.get(key)
                    check(found is None or found.payload.startswith(key), "another key's entry")
                    half = found is not None and (len(found.payload) - len(key)) % 50
                    check(not half, "half an entry")
                if turn % 10 == 0:
                    backend.delete(b"shared")

        together(*[partial(use, name) for name in range(4)])

    def test_cache(self, cache: LevelCache) -> None:
        """A cache on it does what a cache does."""
        cache.set("a", {"x": 1})
        cache.set("b", None)
        if self.keeps:
            equal({"x": 1}, cache.get("a"), "a value")
            equal(None, cache.get("b", MISS), "a stored None")
            check("a" in cache, "it is there")
            equal({"a": {"x": 1}, "b": None, "c": 7}, cache.mget(["a", "b", "c"], 7), "many")
            check(cache.expire("a"), "it was fresh")
            equal({"x": 1}, cache.get("a", MISS, allow_stale=True), "the stale copy")
        equal(MISS, cache.get("a", MISS) if self.keeps else MISS, "what is no longer fresh")
        cache.delete("a")
        equal(MISS, cache.get("a", MISS, allow_stale=True), "a deleted value")
        cache.set("a", 2)
        cache.clear()
        equal([MISS, MISS], [cache.get(key, MISS) for key in ("a", "b")], "after a clear")
