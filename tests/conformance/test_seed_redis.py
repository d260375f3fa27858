"""
What the crate's tests with a Redis and a database ask: assertions 67 to 72 and 74.

Each test is named after its number, which docs/reference/crate.md lists.  34 to 36, about the wire,
and 73, about two hosts, are in tests/redis.
"""

import asyncio
import sqlite3
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from accelerator import LoaderTimeout


@pytest.fixture
def both(memory: Any, redis_only: None) -> Any:
    """The memory with Redis behind it."""
    return memory


class Table:
    """A table of a database, and the queries that it was asked."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        self.queries: list[str] = []

    def load(self, key: int) -> str | None:
        self.queries.append("one")
        row = self._database.execute("SELECT name FROM users WHERE id = ?", [key]).fetchone()
        return None if row is None else str(row[0])

    def mload(self, keys: Any) -> dict[int, str | None]:
        self.queries.append("many")
        marks = ", ".join("?" * len(keys))
        query = f"SELECT id, name FROM users WHERE id IN ({marks})"
        found = dict(self._database.execute(query, list(keys)))
        return {key: found.get(key) for key in keys}


@pytest.fixture
def database() -> Iterator[sqlite3.Connection]:
    with sqlite3.connect(":memory:") as made:
        made.execute("CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT)")
        made.executemany("INSERT INTO users VALUES (?, ?)", [(1, "Ada"), (2, "Bob"), (3, "Cy")])
        yield made
    made.close()


class TestRedisIntegration:
    """tests/redis_integration.rs."""

    @pytest.mark.parametrize("mode", ["both", "remote"])
    def test_67_round_trip(self, both: Any, mode: str) -> None:
        """67: values, a stored None and what is missing are told apart; nothing can be deleted."""
        cache = both.cache(mode=mode)
        cache.set("one", 1)
        cache.mset({"two": 2, "null": None})
        both.segment.clear_all()
        found = cache.mget(["one", "two", "null", "missing"], "unknown")
        assert {"one": 1, "two": 2, "null": None, "missing": "unknown"} == found
        assert 2 == cache.mdelete(["one", "two", "missing"])
        assert 0 == cache.mdelete(["one", "two", "missing"])
        assert "unknown" == cache.get("one", "unknown")

    def test_68_backfill(self, both: Any) -> None:
        """68: what L1 has lost is answered by L2, and is in L1 then."""
        cache = both.cache(mode="both")
        cache.set("key", "value")
        both.segment.link_confirm(time.monotonic())  # Redis is current, so its copy may be kept
        both.segment.clear_all()
        tiers = [cache.get_entry("key").tier for _ in range(2)]
        assert ["remote", "local"] == tiers

    def test_69_remote(self, both: Any) -> None:
        """69: without a load nothing is known; then one load, and L2 has its answer."""
        loads: list[str] = []
        cache = both.cache(mode="remote", loader=lambda key: loads.append(key) or "value")
        assert None is cache.get("key", disable_load=True)
        assert [] == loads
        assert "value" == cache.get("key")
        assert ("value", "remote") == (cache.get_entry("key").value, cache.get_entry("key").tier)
        assert ["key"] == loads

    def test_70_mget(self, both: Any) -> None:
        """70: an mget of what is cached, loaded and nowhere; what was loaded is in L2 then."""

        class Loader:
            def load(self, key: str) -> None:
                raise AssertionError("one by one")

            def mload(self, keys: Any) -> dict[str, Any]:
                return {key: "loaded" if key == "c" else None for key in keys}

        cache = both.cache(mode="both", loader=Loader())
        cache.mset({"a": 1, "b": 2})
        found = cache.mget(["a", "b", "c", "d"], "unknown")
        assert {"a": 1, "b": 2, "c": "loaded", "d": None} == found
        both.segment.clear_all()
        entry = cache.get_entry("c", disable_load=True)
        assert ("loaded", "remote") == (entry.value, entry.tier)

    def test_71_concurrent(self, both: Any) -> None:
        """71: of 24 concurrent gets in REMOTE mode one loads."""
        loads: list[str] = []
        held = threading.Event()

        def load(key: str) -> str:
            loads.append(key)
            assert held.wait(60)
            return "value"

        cache = both.cache(mode="remote", loader=load)
        found: list[Any] = []
        threads = [
            threading.Thread(target=lambda: found.append(cache.get("key"))) for _ in range(24)
        ]
        for thread in threads:
            thread.start()
        while cache.metrics_snapshot()["load_joined"] < 23:
            threading.Event().wait(0.001)  # nothing tells when the others have joined
        held.set()
        for thread in threads:
            thread.join()
        assert ["value"] * 24 == found
        assert ["key"] == loads

    @pytest.mark.parametrize("mode", ["both", "remote"])
    def test_72_timeout(self, both: Any, mode: str) -> None:
        """72: a loader slower than its limit is a LoaderTimeout, with Redis too."""

        async def load(key: str) -> None:
            await asyncio.Event().wait()

        cache = both.cache(mode=mode, loader=load, loader_timeout=0.005)
        with pytest.raises(LoaderTimeout):
            asyncio.run(cache.aget("key"))


class TestStackIntegration:
    """tests/stack_integration.rs."""

    def test_74_stack(self, memory: Any, database: sqlite3.Connection) -> None:
        """74: an update of the database shows when it is told; a batch is one query."""
        table = Table(database)
        cache = memory.cache("users", loader=table)
        assert ["Ada", "Ada"] == [cache.get(1), cache.get(1)]
        assert ["one"] == table.queries
        database.execute("UPDATE users SET name = 'Eve' WHERE id = 1")
        assert "Ada" == cache.get(1)
        cache.delete(1)
        assert "Eve" == cache.get(1)
        assert {2: "Bob", 3: "Cy", 4: None} == cache.mget([2, 3, 4])
        assert ["one", "one", "many"] == table.queries
        assert {"area": "users"} == cache.otel_metric_points()[0]["attributes"]
        cache.delete(1)
        assert None is cache.get(1, disable_load=True)
