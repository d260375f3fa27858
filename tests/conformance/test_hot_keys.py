"""Which keys are read most: found by the hash that other commands show, in each kind of memory."""

import asyncio
from typing import Any

import pytest

READS = 40 * 1024
"""So many that ten times the error of drawing them is left of any that are checked here."""


def hashes(memory: Any) -> dict[int, float]:
    return {found: rate for _, found, rate in memory.segment.hot_keys()}


class TestHotKeys:
    def test_empty(self, memory: Any) -> None:
        """Before anything was read there is nothing."""
        assert [] == memory.segment.hot_keys()
        assert 0 == memory.segment.hot_total()

    @pytest.mark.parametrize("objects", ["auto", "copy"])
    def test_hits(self, memory: Any, make: Any, objects: str) -> None:
        """The hottest first, with its area, its hash and the share that it has of all reads."""
        cache, other = make("users", objects=objects), make("prices", objects=objects)
        cache.mset({"hot": ("a", 1), "warm": "b", 3: b"c"})
        other.set("hot", "d")
        for n in range(3 * READS):
            cache.get("hot" if n % 4 else "warm")
            if n % 8 == 0:
                other.get("hot")
        first, *others = memory.segment.hot_keys()
        assert ("users", cache._hash("hot")) == first[:2]
        assert {("users", cache._hash("warm")), ("prices", other._hash("hot"))} == {
            row[:2] for row in others
        }
        total = memory.segment.hot_total()
        assert total == pytest.approx(first[2] + sum(rate for _, _, rate in others), rel=0.05)
        assert 0.45 < first[2] / total < 0.9  # two thirds, of 135 that were drawn

    def test_limit(self, memory: Any, make: Any) -> None:
        """As many as were asked for."""
        cache = make()
        cache.mset({n: n for n in range(8)})
        for n in range(4 * READS):
            cache.get(n % 8)
        found = [row[1] for row in memory.segment.hot_keys()]
        assert 8 == len(found)
        assert found[:3] == [row[1] for row in memory.segment.hot_keys(3)]
        assert found[:3] == [row[1] for row in memory.segment.hot_keys(limit=3)]
        assert [] == memory.segment.hot_keys(0)
        assert 8 == len(memory.segment.hot_keys(1 << 40))
        with pytest.raises(ValueError, match="limit"):
            memory.segment.hot_keys(-1)

    @pytest.mark.parametrize("options", [{}, {"loader": lambda _key: None, "null_ttl": 1e-9}])
    def test_misses(self, memory: Any, make: Any, options: dict[str, Any]) -> None:
        """What is not there counts as well, also where it is Python that counts misses."""
        cache = make(**options)
        reads = READS if not options else READS // 4
        for _ in range(reads):
            cache.get("absent", disable_load=True) if options else cache.get("absent")
        assert [cache._hash("absent")] == list(hashes(memory))

    def test_mget(self, memory: Any, make: Any) -> None:
        """Each key of a call counts."""
        cache = make()
        keys = list(range(16))
        cache.mset({n: n for n in keys if n % 2})
        for _ in range(READS // 8):
            cache.mget(keys)
        found = hashes(memory)
        assert set(found) <= {cache._hash(key) for key in keys}
        assert len(found) > 12
        assert any(cache._hash(key) in found for key in keys if key % 2)
        assert any(cache._hash(key) in found for key in keys if key % 2 == 0)

    def test_converted(self, memory: Any, make: Any) -> None:
        """By what the key is called in the memory, whatever its callers call it."""
        cache = make(key_converter=lambda key: f"user:{key}")
        cache.set(7, "value")
        for _ in range(READS):
            cache.get(7)
        assert [cache._hash(7)] == list(hashes(memory))

    def test_decorated(self, memory: Any, make: Any) -> None:
        """Hits of decorated functions, of one argument and of many; a miss counts once."""
        cache = make("users")

        @cache.cacheable()
        def answer(number: int, factor: int = 1) -> int:
            return number * factor

        for _ in range(READS):
            answer(1)
            answer(2, factor=3)
        counters = cache.metrics_snapshot()
        assert 2 * READS == counters["local_hit"] + counters["local_miss"]
        found = memory.segment.hot_keys()
        assert 2 == len(found)
        assert {"users"} == {area for area, _, _ in found}

    def test_async(self, memory: Any, make: Any) -> None:
        """Reads of the async twins count, too."""
        cache = make()
        cache.set("key", "value")

        async def read() -> None:
            for _ in range(READS // 4):
                await cache.aget("key")

        asyncio.run(read())
        assert [cache._hash("key")] == list(hashes(memory))

    def test_no_read(self, memory: Any, make: Any) -> None:
        """Writes, ``in`` and peek() are no reads."""
        cache = make()
        for n in range(READS // 8):
            cache.set("key", n)
            assert "key" in cache
            cache.peek("key")
            cache.delete("key")
        assert [] == memory.segment.hot_keys()

    def test_bounded(self, memory: Any, make: Any) -> None:
        """Ever new keys do not make the table grow, and leave those that are hot in it."""
        cache = make()
        cache.set("hot", "value")
        for n in range(READS):
            cache.get("hot")
            cache.get(n)
        found = memory.segment.hot_keys(1 << 20)
        assert len(found) <= 1280
        assert cache._hash("hot") == found[0][1]

    def test_forgotten(self, memory: Any, make: Any, clock: Any) -> None:
        """After two windows of 30 seconds nothing of it is left."""
        cache = make()
        cache.set("key", "value", ttl=None)
        for _ in range(READS):
            cache.get("key")
        before = hashes(memory)
        clock.advance(30)
        later = hashes(memory)
        assert list(before) == list(later)
        assert later[cache._hash("key")] < before[cache._hash("key")]
        clock.advance(60)
        assert [] == memory.segment.hot_keys()
        assert 0 == memory.segment.hot_total()
