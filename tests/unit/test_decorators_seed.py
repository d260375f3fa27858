"""
The assertions 37 to 66 of the crate that this package follows: its macros, asked of our decorators.

Faults are real ones: a Redis that was killed, and a value that cannot be stored.
"""

import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from accelerator import BackendError, LevelCache, SerializationError, testing
from accelerator.demo.redis_server import RedisServer


class BusinessError(Exception):
    pass


class Rows:
    """What the decorated functions are about: counts its calls, and fails when told to."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.fails = False

    def call(self, argument: Any, answer: Any) -> Any:
        self.calls.append(argument)
        if self.fails:
            raise BusinessError
        return answer


@pytest.fixture
def rows() -> Rows:
    return Rows()


@pytest.fixture
def cache() -> Iterator[LevelCache[Any, Any]]:
    with testing.isolated():
        yield LevelCache("area")


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with RedisServer() as own:
        yield own


@pytest.fixture
def away(server: RedisServer) -> Iterator[LevelCache[Any, Any]]:
    """An area in Redis only, whose Redis was killed; *server* can be restarted."""
    with testing.isolated(redis=server.url, namespace=f"test-{uuid.uuid4().hex}"):
        made: LevelCache[Any, Any] = LevelCache("area", mode="both")
        assert made.get("known") is None
        made.set(5, "five")
        server.kill()
        yield made


def counted(cache: LevelCache[Any, Any], name: str) -> int:
    return cache.metrics_snapshot()[name]


UNSTORABLE = object()


class TestCacheable:
    def test_second_call(self, cache: LevelCache[Any, Any], rows: Rows) -> None:
        """37: the second call is served from the cache, the body ran once."""

        @cache.cacheable("{key}")
        def load(key: int) -> Any:
            return rows.call(key, "value")

        assert ["value", "value"] == [load(7), load(7)]
        assert [7] == rows.calls
        assert "value" == cache.get(7)

    def test_ignored_get(self, away: LevelCache[Any, Any], server: RedisServer, rows: Rows) -> None:
        """38: if the cache cannot be asked the body runs; after recovery a call is a hit."""

        @away.cacheable("{key}")
        def load(key: int) -> Any:
            return rows.call(key, "value")

        assert "value" == load(7)
        server.restart()
        assert "value" == load(7)
        assert [7] == rows.calls

    def test_propagated_get(self, away: LevelCache[Any, Any], rows: Rows) -> None:
        """39: the cache's error is raised, and the body has not run."""

        @away.cacheable("{key}", on_cache_error="propagate")
        def load(key: int) -> Any:
            return rows.call(key, "value")

        with pytest.raises(BackendError) as raised:
            load(7)
        assert [] == rows.calls
        assert not hasattr(raised.value, "result")

    def test_propagated_set(self, cache: LevelCache[Any, Any], rows: Rows) -> None:
        """40: the cache's error is raised after the body ran; it has the body's result (W46)."""

        @cache.cacheable("{key}", on_cache_error="propagate")
        def load(key: int) -> Any:
            return rows.call(key, UNSTORABLE)

        with pytest.raises(SerializationError) as raised:
            load(7)
        assert [7] == rows.calls
        assert raised.value.result is UNSTORABLE

    def test_none_stored(self, cache: LevelCache[Any, Any], rows: Rows) -> None:
        """41: a None is stored; and, unlike there, the second call is answered by it (W6)."""

        @cache.cacheable("{key}", cache_none=True)
        def load(key: int) -> Any:
            return rows.call(key, None)

        assert [None, None] == [load(7), load(7)]
        assert [7] == rows.calls
        entry = cache.get_entry(7)
        assert entry is not None
        assert entry.is_null

    def test_none_not_stored(self, cache: LevelCache[Any, Any], rows: Rows) -> None:
        """42: with cache_none=False a None is not stored."""

        @cache.cacheable("{key}", cache_none=False)
        def load(key: int) -> Any:
            return rows.call(key, None)

        assert [None, None] == [load(7), load(7)]
        assert [7, 7] == rows.calls
        assert cache.get_entry(7) is None


class TestPut:
    def test_readable(self, cache: LevelCache[Any, Any], rows: Rows) -> None:
        """43: the value is readable after success, the body ran once."""

        @cache.cache_put("{key}", value=lambda result, key, name: {"name": result})
        def save(key: int, name: str) -> Any:
            return rows.call(key, name)

        assert "Ada" == save(7, "Ada")
        assert ({"name": "Ada"}, [7]) == (cache.get(7), rows.calls)

    def test_ignored(self, cache: LevelCache[Any, Any], rows: Rows) -> None:
        """44: if the value cannot be stored the caller sees success; it was tried once."""

        @cache.cache_put("{key}")
        def save(key: int) -> Any:
            return rows.call(key, UNSTORABLE)

        assert save(7) is UNSTORABLE
        assert 1 == counted(cache, "store_rejected_encode")

    def test_propagated(self, cache: LevelCache[Any, Any], rows: Rows) -> None:
        """45: the cache's error is raised though the body ran, and has its result (W46)."""

        @cache.cache_put("{key}", on_cache_error="propagate")
        def save(key: int) -> Any:
            return rows.call(key, UNSTORABLE)

        with pytest.raises(SerializationError) as raised:
            save(7)
        assert ([7], UNSTORABLE) == (rows.calls, raised.value.result)

    def test_propagated_from_redis(self, away: LevelCache[Any, Any], rows: Rows) -> None:
        """45: also where it is Redis that does not take it."""

        @away.cache_put("{key}", on_cache_error="propagate")
        def save(key: int) -> Any:
            return rows.call(key, "value")

        with pytest.raises(BackendError) as raised:
            save(7)
        assert ([7], "value") == (rows.calls, raised.value.result)


class TestEvict:
    def test_gone(self, cache: LevelCache[Any, Any], rows: Rows) -> None:
        """46: after success the entry is gone, the body ran once."""

        @cache.cache_evict("{key}")
        def drop(key: int) -> Any:
            return rows.call(key, "done")

        cache.set(7, "old")
        assert "done" == drop(7)
        assert (None, [7]) == (cache.get(7), rows.calls)

    def test_before_and_failing(self, cache: LevelCache[Any, Any], rows: Rows) -> None:
        """47: with before=True the entry is gone even if the body fails, whose error is raised."""

        @cache.cache_evict("{key}", before=True)
        def drop(key: int) -> Any:
            return rows.call(key, "done")

        cache.set(7, "old")
        rows.fails = True
        with pytest.raises(BusinessError):
            drop(7)
        assert cache.get(7) is None

    def test_after_and_failing(self, cache: LevelCache[Any, Any], rows: Rows) -> None:
        """48: without it a failing body leaves the entry; nothing is deleted."""

        @cache.cache_evict("{key}")
        def drop(key: int) -> Any:
            return rows.call(key, "done")

        cache.set(7, "old")
        rows.fails = True
        with pytest.raises(BusinessError):
            drop(7)
        assert ("old", 0) == (cache.get(7), counted(cache, "delete"))

    def test_before_deletes_once(self, cache: LevelCache[Any, Any], rows: Rows) -> None:
        """49: with before=True a failing body costs one delete."""

        @cache.cache_evict("{key}", before=True)
        def drop(key: int) -> Any:
            return rows.call(key, "done")

        cache.set(7, "old")
        rows.fails = True
        with pytest.raises(BusinessError):
            drop(7)
        assert (None, 1) == (cache.get(7), counted(cache, "delete"))

    def test_ignored(self, away: LevelCache[Any, Any], rows: Rows) -> None:
        """50: if the delete fails the caller sees success; and it is not lost, but queued."""

        @away.cache_evict("{key}")
        def drop(key: int) -> Any:
            return rows.call(key, "done")

        assert "done" == drop(5)
        assert (1, None) == (counted(away, "delete"), away.get(5))
        assert counted(away, "invalidation_queued") == 1

    def test_propagated(self, away: LevelCache[Any, Any], rows: Rows) -> None:
        """51: the cache's error is raised, the body ran once; its result is with it (W46)."""

        @away.cache_evict("{key}", on_cache_error="propagate")
        def drop(key: int) -> Any:
            return rows.call(key, "done")

        with pytest.raises(BackendError) as raised:
            drop(5)
        assert ([5], "done", True) == (rows.calls, raised.value.result, raised.value.queued)


class Recorded(LevelCache[Any, Any]):
    """An area that notes which keys it is told to forget together."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.forgotten: list[list[Any]] = []

    def mdelete(self, keys: Any, *, on_error: Any = "queue") -> int:
        self.forgotten.append([*keys])
        return super().mdelete(keys, on_error=on_error)


class TestEvictBatch:
    @pytest.fixture
    def recorded(self) -> Iterator[Recorded]:
        with testing.isolated():
            made = Recorded("area")
            made.mset({5: "five", 6: "six"})
            yield made

    def test_gone(self, recorded: Recorded, rows: Rows) -> None:
        """52: success is one mdelete, after which both keys are gone."""

        @recorded.cache_evict_batch("{key}", param="keys")
        def drop(keys: list[int]) -> Any:
            return rows.call(keys, len(keys))

        assert 2 == drop([5, 6])
        assert ([[5, 6]], {5: None, 6: None}) == (recorded.forgotten, recorded.mget([5, 6]))

    def test_after_and_failing(self, recorded: Recorded, rows: Rows) -> None:
        """53: without before=True a failing body deletes nothing."""

        @recorded.cache_evict_batch("{key}")
        def drop(keys: list[int]) -> Any:
            return rows.call(keys, len(keys))

        rows.fails = True
        with pytest.raises(BusinessError):
            drop([5, 6])
        assert ([], "five") == (recorded.forgotten, recorded.get(5))

    def test_before_and_failing(self, recorded: Recorded, rows: Rows) -> None:
        """54: with it there is one mdelete, and the body's error."""

        @recorded.cache_evict_batch("{key}", before=True)
        def drop(keys: list[int]) -> Any:
            return rows.call(keys, len(keys))

        rows.fails = True
        with pytest.raises(BusinessError):
            drop([5, 6])
        assert ([[5, 6]], None) == (recorded.forgotten, recorded.get(5))

    def test_ignored(self, away: LevelCache[Any, Any], rows: Rows) -> None:
        """55: if the deletes fail the caller sees success."""

        @away.cache_evict_batch("{key}")
        def drop(keys: list[int]) -> Any:
            return rows.call(keys, len(keys))

        assert 2 == drop([5, 6])
        assert away.get(5) is None

    def test_propagated(self, away: LevelCache[Any, Any], rows: Rows) -> None:
        """56: the cache's error is raised, with the body's result."""

        @away.cache_evict_batch("{key}", on_cache_error="propagate")
        def drop(keys: list[int]) -> Any:
            return rows.call(keys, len(keys))

        with pytest.raises(BackendError) as raised:
            drop([5, 6])
        assert 2 == raised.value.result

    def test_duplicates(self, recorded: Recorded, rows: Rows) -> None:
        """57: duplicates are dropped, in order, and there is a single mdelete."""

        @recorded.cache_evict_batch("{key}")
        def drop(keys: list[int]) -> Any:
            return rows.call(keys, len(keys))

        drop([5, 5, 5, 6])
        assert [[5, 6]] == recorded.forgotten

    def test_empty(self, recorded: Recorded, rows: Rows) -> None:
        """58: without keys there is no mdelete, and the body runs."""

        @recorded.cache_evict_batch("{key}")
        def drop(keys: list[int]) -> Any:
            return rows.call(keys, len(keys))

        assert 0 == drop([])
        assert ([], [[]]) == (recorded.forgotten, rows.calls)

    def test_any_sequence(self, recorded: Recorded, rows: Rows) -> None:
        """59: keys may come as a tuple or a slice of one; duplicates go all the same."""

        @recorded.cache_evict_batch(lambda keys: keys)
        def drop(keys: tuple[int, ...]) -> Any:
            return rows.call(keys, len(keys))

        drop((1, 5, 6, 5)[1:])
        assert [[5, 6]] == recorded.forgotten


class TestBatch:
    def test_mixed(self, cache: LevelCache[Any, Any], rows: Rows) -> None:
        """60: hits are kept, the body sees the misses only, what is unknown is None."""

        @cache.cacheable_batch("{key}", complete=True)
        def load(keys: list[int]) -> Any:
            return rows.call(keys, {key: f"{key}" for key in keys if key < 100})

        cache.set(5, "known")
        before = counted(cache, "load_total")
        assert {5: "known", 6: "6", 200: None} == load([5, 6, 200])
        assert ([[6, 200]], 1) == (rows.calls, counted(cache, "load_total") - before)
        assert {5: "known", 6: "6", 200: None} == load([5, 6, 200])
        assert 1 == len(rows.calls)

    def test_duplicates(self, cache: LevelCache[Any, Any], rows: Rows) -> None:
        """61: of duplicates the answer has one, and the body sees one."""

        @cache.cacheable_batch("{key}")
        def load(keys: list[int]) -> Any:
            return rows.call(keys, {key: f"{key}" for key in keys})

        assert {5: "5", 6: "6"} == load([5, 5, 6, 5])
        assert [[5, 6]] == rows.calls

    def test_empty(self, cache: LevelCache[Any, Any], rows: Rows) -> None:
        """62: nothing is asked for nothing: neither the body nor the cache."""

        @cache.cacheable_batch("{key}")
        def load(keys: list[int]) -> Any:
            return rows.call(keys, {})

        assert {} == load([])
        assert [] == rows.calls
        assert 0 == counted(cache, "local_miss")

    def test_ignored_mget(self, away: LevelCache[Any, Any], rows: Rows) -> None:
        """63: if the cache cannot be asked the body gets all keys, and the answer is complete."""

        @away.cacheable_batch("{key}")
        def load(keys: list[int]) -> Any:
            return rows.call(keys, {key: f"{key}" for key in keys})

        assert {7: "7", 8: "8"} == load([7, 8])
        assert [[7, 8]] == rows.calls

    def test_propagated_mget(self, away: LevelCache[Any, Any], rows: Rows) -> None:
        """64: the cache's error is raised, and the body has not run."""

        @away.cacheable_batch("{key}", on_cache_error="propagate")
        def load(keys: list[int]) -> Any:
            return rows.call(keys, {})

        with pytest.raises(BackendError):
            load([7, 8])
        assert [] == rows.calls

    def test_propagated_mset(self, cache: LevelCache[Any, Any], rows: Rows) -> None:
        """65: the cache's error is raised after the body ran; what it answered is not lost."""

        @cache.cacheable_batch("{key}", on_cache_error="propagate")
        def load(keys: list[int]) -> Any:
            return rows.call(keys, {6: "6", 7: UNSTORABLE})

        cache.set(5, "known")
        with pytest.raises(SerializationError) as raised:
            load([5, 6, 7])
        assert {5: "known", 6: "6", 7: UNSTORABLE} == raised.value.result
        assert ([[6, 7]], "6") == (rows.calls, cache.get(6))

    def test_failing(self, cache: LevelCache[Any, Any], rows: Rows) -> None:
        """66: the body's error is raised as it is, and nothing is stored."""

        @cache.cacheable_batch("{key}")
        def load(keys: list[int]) -> Any:
            return rows.call(keys, {})

        rows.fails = True
        with pytest.raises(BusinessError):
            load([7])
        assert (0, None) == (counted(cache, "set"), cache.get_entry(7))
