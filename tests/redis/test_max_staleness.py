"""How far behind an answer may be, where an area or a read asks for more than the bound."""

import uuid
from collections.abc import Iterator

import pytest

from accelerator import LevelCache, testing

INSTANT = 1e-6
"""Seconds: no heartbeat is as lately."""


@pytest.fixture
def isolated(url: str) -> Iterator[testing.Isolated]:
    """A cache with Redis behind it, in a namespace of its own."""
    namespace = f"test-{uuid.uuid4().hex}"
    with testing.isolated(redis=url, namespace=namespace, redis_timeout=5.0) as own:
        yield own


@pytest.fixture
def old(isolated: testing.Isolated) -> LevelCache:
    """An area whose only value lies in Redis."""
    cache = LevelCache("area")
    cache.set("key", "old")
    isolated.memory.clear_all()
    assert "old" == cache.peek("key")
    return cache


class TestMaxStaleness:
    def test_bound(self, old: LevelCache) -> None:
        """Within the bound a copy that Redis has will do."""
        cache = LevelCache("area", loader=lambda _: "new")
        assert "old" == cache.get("key")

    def test_area(self, old: LevelCache) -> None:
        """An area that asks for more does not get it from Redis either."""
        cache = LevelCache("area", loader=lambda _: "new", max_staleness=INSTANT)
        assert "new" == cache.get("key")

    def test_area_without_loader(self, old: LevelCache) -> None:
        """Nor without a loader: then nothing is known."""
        assert "nothing" == LevelCache("area", max_staleness=INSTANT).get("key", "nothing")

    def test_read(self, old: LevelCache) -> None:
        """Nor does a read that asks for more."""
        cache = LevelCache("area", loader=lambda _: "new")
        assert "new" == cache.get("key", max_staleness=INSTANT)
