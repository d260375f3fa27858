"""What is decided in one step: add, incr, decr, and loads against deletes."""

import threading
from collections.abc import Callable
from typing import Any

import pytest

from accelerator import MISS, LoaderError


class TestAdd:
    def test_only_if_absent(self, cache: Any) -> None:
        """The first one wins; a cached None is a value."""
        assert cache.add("key", 1) is True
        assert cache.add("key", 2) is False
        assert 1 == cache.get("key")
        cache.set("none", None)
        assert cache.add("none", 1) is False

    def test_expired_is_absent(self, make: Callable[..., Any], clock: Any) -> None:
        """An expired key counts as absent, a stale one too."""
        cache = make(stale_ttl=100)
        cache.set("key", 1, 10)
        clock.advance(11)
        assert cache.add("key", 2) is True
        assert 2 == cache.get("key")

    def test_zero(self, cache: Any) -> None:
        """With a ttl of 0 nothing is stored; the answer is as ever."""
        assert cache.add("key", 1, 0) is True
        assert "key" not in cache
        cache.set("key", 1)
        assert cache.add("key", 2, 0) is False
        assert 1 == cache.get("key")

    def test_one_of_many_threads(self, cache: Any) -> None:
        """Of eight threads that add one key, one succeeds; a hundred times."""
        for key in range(100):
            start = threading.Barrier(8)
            won: list[int] = []

            def run(me: int, key: int = key, start: Any = start, won: Any = won) -> None:
                start.wait()
                if cache.add(key, me):
                    won.append(me)

            threads = [threading.Thread(target=run, args=[n]) for n in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert [cache.get(key)] == won


class TestIncr:
    def test_counts(self, cache: Any) -> None:
        """A missing counter starts from the default."""
        assert 1 == cache.incr("a")
        assert 6 == cache.incr("a", 5)
        assert 4 == cache.decr("a", 2)
        assert 105 == cache.incr("b", 5, default=100)
        assert -1 == cache.decr("c")
        assert {"a": 4, "b": 105, "c": -1} == cache.mget(["a", "b", "c"])

    def test_not_created(self, cache: Any) -> None:
        """Without a default a missing counter stays missing."""
        assert cache.incr("a", default=None) is None
        assert cache.decr("a", default=None) is None
        assert "a" not in cache

    def test_of_a_set_value(self, cache: Any) -> None:
        """What was set can be counted on, and counted can be read as any value."""
        cache.set("a", 10)
        assert 11 == cache.incr("a")
        assert 5_000_000_000_000 == cache.incr("a", 5_000_000_000_000 - 11)
        assert int is type(cache.get("a"))

    def test_keeps_its_life(self, cache: Any, clock: Any) -> None:
        """Counting does not prolong; only a new counter gets a life."""
        cache.incr("a", ttl=10)
        clock.advance(6)
        assert 2 == cache.incr("a", ttl=10)
        clock.advance(6)
        assert 1 == cache.incr("a", ttl=None)
        clock.advance("1w")
        assert 2 == cache.incr("a")

    def test_zero_life(self, cache: Any) -> None:
        """A new counter with a ttl of 0 is not stored; a present one is counted."""
        assert 1 == cache.incr("a", ttl=0)
        assert "a" not in cache
        cache.set("a", 5)
        assert 6 == cache.incr("a", ttl=0)

    @pytest.mark.parametrize("value", ["1", 1.0, True, b"1", None, [1]], ids=repr)
    def test_no_int(self, cache: Any, value: object) -> None:
        """Only an int can be counted; anything else is a TypeError and stays."""
        cache.set("a", value)
        with pytest.raises(TypeError):
            cache.incr("a")
        assert value == cache.get("a", MISS)

    def test_overflow(self, cache: Any) -> None:
        """Past 64 bits is an OverflowError, and the counter stays."""
        cache.set("a", 2**63 - 1)
        with pytest.raises(OverflowError):
            cache.incr("a")
        with pytest.raises(OverflowError):
            cache.incr("b", 2**63)
        with pytest.raises(OverflowError):
            cache.decr("b", -(2**63))
        assert 2**63 - 1 == cache.get("a")
        assert "b" not in cache

    @pytest.mark.parametrize("delta", ["1", 1.0, None, True], ids=repr)
    def test_wrong_delta(self, cache: Any, delta: Any) -> None:
        """What is no int is a TypeError."""
        with pytest.raises(TypeError):
            cache.incr("a", delta)
        with pytest.raises(TypeError):
            cache.decr("a", delta)
        assert "a" not in cache

    def test_threads(self, cache: Any) -> None:
        """No count is lost."""

        def run() -> None:
            for _ in range(1000):
                cache.incr("a")

        threads = [threading.Thread(target=run) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert 4000 == cache.get("a")


class TestGetOrLoad:
    def test_loads_once(self, cache: Any) -> None:
        """The first read loads, the next ones do not; None is an answer."""
        asked: list[Any] = []

        def load(key: Any) -> Any:
            asked.append(key)
            return None if key == "none" else {"key": key}

        for _ in range(3):
            assert {"key": "a"} == cache.get_or_load("a", load)
            assert cache.get_or_load("none", load) is None
        assert ["a", "none"] == asked
        counted = cache.metrics_snapshot()
        assert (2, 2) == (counted["load_total"], counted["load_success"])

    def test_life(self, cache: Any, clock: Any) -> None:
        """What was loaded lives as told."""
        cache.get_or_load("a", str, ttl=10)
        assert "a" == cache.get("a")
        clock.advance(11)
        assert "a" not in cache
        cache.get_or_load("b", str, ttl=0)
        assert "b" not in cache

    @pytest.mark.parametrize("overtake", ["delete", "set", "clear", "expire"])
    def test_overtaken(self, cache: Any, overtake: str) -> None:
        """What happened to a key during its load counts more than the load."""

        def load(key: Any) -> str:
            if overtake == "set":
                cache.set(key, "newer")
            elif overtake == "clear":
                cache.clear()
            else:
                getattr(cache, overtake)(key)
            return "old"

        assert "old" == cache.get_or_load("key", load)
        assert ("newer" if overtake == "set" else None) == cache.get("key")

    def test_error(self, cache: Any) -> None:
        """The loader's exception is the cause of ours; nothing is stored."""

        def load(key: Any) -> Any:
            raise KeyError("database")

        with pytest.raises(LoaderError) as raised:
            cache.get_or_load("a", load)
        assert isinstance(raised.value.__cause__, KeyError)
        assert ("area", "get") == (raised.value.area, raised.value.operation)
        assert "a" not in cache
        assert 1 == cache.metrics_snapshot()["load_error"]

    def test_not_encodable(self, cache: Any) -> None:
        """What cannot be stored is returned all the same."""
        thing = object()
        assert thing is cache.get_or_load("a", lambda _: thing)
        assert "a" not in cache
        assert 1 == cache.metrics_snapshot()["store_rejected_encode"]

    def test_disabled(self, cache: Any) -> None:
        """A read that disables loading does not load."""
        assert cache.get_or_load("a", pytest.fail, disable_load=True) is None
