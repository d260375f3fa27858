"""How long values live: ttl, null_ttl, jitter, stale copies, touch, expire."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from accelerator import MISS, ReadOptions


class TestTtl:
    def test_configured(self, make: Callable[..., Any], clock: Any) -> None:
        """Without a ttl of its own a value lives as the area says."""
        cache = make(local_ttl="1m", null_ttl=10)
        cache.mset({"key": 1, "none": None})
        clock.advance(9)
        assert {"key": 1, "none": None} == cache.mget(["key", "none"], MISS)
        clock.advance(2)
        assert {"key": 1, "none": MISS} == cache.mget(["key", "none"], MISS)
        clock.advance(50)
        assert cache.get("key", MISS) is MISS
        assert "key" not in cache

    @pytest.mark.parametrize("ttl", [10, 10.0, "10s", timedelta(seconds=10), "10000ms"], ids=str)
    @pytest.mark.parametrize("value", [1, None, {"a": 1}], ids=repr)
    def test_given(self, cache: Any, clock: Any, ttl: Any, value: object) -> None:
        """A ttl in a call is the life, in any way to write it, also of None."""
        cache.set("set", value, ttl)
        cache.mset({"mset": value}, ttl=ttl)
        cache.add("add", value, ttl)
        clock.advance(9)
        assert dict.fromkeys(["set", "mset", "add"], value) == cache.mget(["set", "mset", "add"])
        clock.advance(2)
        assert {MISS} == set(cache.mget(["set", "mset", "add"], MISS).values())

    @pytest.mark.parametrize("objects", ["auto", "copy", "shared"])
    @pytest.mark.parametrize("value", [b"bytes", ("tuple", 1), {"a": 1}], ids=repr)
    def test_rewritten(
        self, make: Callable[..., Any], clock: Any, objects: str, value: object
    ) -> None:
        """A key that is set over and over has the life of its last set, however it is kept."""
        cache = make(objects=objects)
        for _ in range(5):
            cache.set("key", value, 100)
            cache.set("key", value, 10)
            assert value == cache.get("key") == cache.get("key") == cache.get("key")
            clock.advance(11)
            assert cache.get("key", MISS) is MISS
            cache.set("key", value, 100)
            assert value == cache.get("key") == cache.get("key")
            assert cache.touch("key", 5)
            clock.advance(6)
            assert cache.get("key", MISS) is MISS
            for forget in (lambda: cache.delete("key"), cache.clear):
                cache.set("key", value)
                cache.set("key", value)
                assert value == cache.get("key") == cache.get("key")
                forget()
                assert cache.get("key", MISS) is MISS

    def test_no_expiry(self, make: Callable[..., Any], clock: Any) -> None:
        """None: no expiry, in a call and in the area."""
        cache = make(local_ttl=5)
        cache.set("key", 1, None)
        forever = make("forever", local_ttl=None)
        forever.set("key", 1)
        clock.advance("4w")
        assert 1 == cache.get("key") == forever.get("key")

    def test_zero(self, cache: Any) -> None:
        """0: nothing is stored, and an older copy goes."""
        for write in (
            lambda: cache.set("key", 2, 0),
            lambda: cache.set("key", {"a": 1}, "0s"),
            lambda: cache.mset({"key": 2}, 0),
        ):
            cache.set("key", 1)
            write()
            assert "key" not in cache

    @pytest.mark.parametrize("ttl", [-1, -0.001, float("nan"), "-5s", "soon", float("inf")])
    def test_wrong_value(self, cache: Any, ttl: Any) -> None:
        """Negative, NaN, no duration: a ValueError, and nothing changes."""
        cache.set("key", "old")
        for write in self.writes(cache, ttl):
            with pytest.raises(ValueError, match="ttl"):
                write()
        assert "old" == cache.get("key")
        assert "new" not in cache

    @pytest.mark.parametrize("ttl", [True, [], b"5", object()], ids=repr)
    def test_wrong_type(self, cache: Any, ttl: Any) -> None:
        """What cannot be a duration: a TypeError, and nothing changes."""
        cache.set("key", "old")
        for write in self.writes(cache, ttl):
            with pytest.raises(TypeError, match="ttl"):
                write()
        assert "old" == cache.get("key")
        assert "new" not in cache

    @staticmethod
    def writes(cache: Any, ttl: Any) -> list[Callable[[], object]]:
        return [
            lambda: cache.set("key", 1, ttl),
            lambda: cache.set("key", "text", ttl=ttl),
            lambda: cache.set("key", {"a": 1}, ttl),
            lambda: cache.mset({"new": 1, "key": 1}, ttl),
            lambda: cache.add("new", 1, ttl),
            lambda: cache.touch("key", ttl),
            lambda: cache.incr("new", ttl=ttl),
        ]

    def test_long(self, cache: Any, clock: Any) -> None:
        """Very long lives do not wrap around."""
        cache.set("key", 1, 10**12)
        clock.advance("4w")
        assert 1 == cache.get("key")

    def test_short(self, cache: Any, clock: Any) -> None:
        """Very short lives are lives."""
        cache.set("key", 1, 0.001)
        clock.advance(0.1)
        assert "key" not in cache


class TestJitter:
    @pytest.mark.usefixtures("local_only")  # the shorter of two lives
    def test_only_shortens(self, make: Callable[..., Any]) -> None:
        """Configured lives are shortened, each by another part of at most the ratio."""
        cache = make(local_ttl=1000, ttl_jitter_ratio=0.5)
        for number in range(50):
            cache.set(number, number)
            cache.set(f"{number}", [number])
        lives = [cache.get_entry(key).ttl for n in range(50) for key in (n, str(n))]
        assert min(lives) >= 499
        assert max(lives) <= 1000
        assert max(lives) - min(lives) > 100

    @pytest.mark.usefixtures("local_only")  # no longer than local_ttl
    def test_not_on_given_lives(self, make: Callable[..., Any]) -> None:
        """A ttl in a call is exact; so are the lives of add, incr and touch."""
        cache = make(local_ttl=1000, ttl_jitter_ratio=1.0)
        cache.set("set", 1, 1000)
        cache.add("add", 1)
        cache.incr("incr")
        cache.set("touch", 1)
        cache.touch("touch")
        for key in ("set", "add", "incr", "touch"):
            assert 1000 == pytest.approx(cache.get_entry(key).ttl, abs=2)


class TestStale:
    def test_allowed(self, make: Callable[..., Any], clock: Any) -> None:
        """Past its life a value is a miss, unless stale values are allowed; then it is marked."""
        cache = make(local_ttl=10, stale_ttl=100)
        cache.set("key", {"a": 1})
        clock.advance(11)
        assert cache.get("key", MISS) is MISS
        assert "key" not in cache
        assert {"a": 1} == cache.get("key", allow_stale=True)
        assert {"a": 1} == cache.mget(["key"], options=ReadOptions(allow_stale=True))["key"]
        entry = cache.get_entry("key", allow_stale=True)
        assert (True, 0.0) == (entry.stale, entry.ttl)
        assert cache.get_entry("key") is None

    def test_not_revived(self, make: Callable[..., Any], clock: Any) -> None:
        """Serving a stale value does not prolong it."""
        cache = make(local_ttl=10, stale_ttl=100)
        cache.set("key", 1)
        for _ in range(9):
            clock.advance(12)
            assert 1 == cache.get("key", allow_stale=True)
            assert cache.get("key") is None
        clock.advance(12)
        assert cache.get("key", allow_stale=True) is None

    def test_counted(self, make: Callable[..., Any], clock: Any) -> None:
        """A stale answer is a miss and a stale fallback, not a hit."""
        cache = make(local_ttl=10, stale_ttl=100)
        cache.set("key", 1)
        clock.advance(11)
        cache.get("key", allow_stale=True)
        counted = cache.metrics_snapshot()
        assert (0, 1, 1) == tuple(
            counted[name] for name in ("local_hit", "local_miss", "stale_fallback")
        )

    def test_bounded_by_the_read(self, make: Callable[..., Any], clock: Any) -> None:
        """A read may bound how stale its answer is."""
        cache = make(local_ttl=10, stale_ttl=100)
        cache.set("key", 1)
        clock.advance(30)
        assert cache.get("key", allow_stale=True, max_staleness=15) is None
        assert 1 == cache.get("key", allow_stale=True, max_staleness="25s")

    def test_area_allows(self, make: Callable[..., Any], clock: Any) -> None:
        """An area may allow stale values for every read, for an hour unless it says otherwise."""
        cache = make(local_ttl=10, allow_stale=True)
        cache.mset({"a": 1, "b": [2]})
        clock.advance("59m")
        assert 1 == cache.get("a")
        assert {"a": 1, "b": [2], "c": 0} == cache.mget(["a", "b", "c"], 0)
        clock.advance("2m")
        assert cache.get("a") is None

    def test_given_ttl(self, make: Callable[..., Any], clock: Any) -> None:
        """A value with a ttl of its own has the area's stale life behind it."""
        cache = make(stale_ttl=100)
        cache.set("key", 1, 10)
        clock.advance(100)
        assert 1 == cache.get("key", allow_stale=True)
        clock.advance(20)
        assert cache.get("key", allow_stale=True) is None

    def test_none_by_default(self, cache: Any, clock: Any) -> None:
        """Without a stale life there is nothing to allow."""
        cache.set("key", 1, 10)
        clock.advance(11)
        assert cache.get("key", allow_stale=True) is None

    def test_replaced(self, make: Callable[..., Any], clock: Any) -> None:
        """A new value over a stale one is the only one there is."""
        cache = make(local_ttl=10, stale_ttl=100)
        cache.set("key", 1)
        clock.advance(11)
        cache.set("key", 2)
        assert 2 == cache.get("key") == cache.get("key", allow_stale=True)


class TestExpire:
    def test_keeps_stale_copy(self, make: Callable[..., Any]) -> None:
        """expire() ends the life and keeps the stale copy; delete() keeps nothing."""
        cache = make(stale_ttl=100)
        cache.mset({"a": 1, "b": 1})
        assert cache.expire("a") is True
        assert cache.delete("b") is True
        assert {"a": None, "b": None} == cache.mget(["a", "b"])
        assert {"a": 1, "b": None} == cache.mget(["a", "b"], allow_stale=True)
        assert cache.expire("a") is False
        assert cache.expire("unknown") is False

    def test_delete_of_stale(self, make: Callable[..., Any]) -> None:
        """A stale copy was there, and is gone."""
        cache = make(stale_ttl=100)
        cache.set("key", 1)
        cache.expire("key")
        assert cache.delete("key") is True
        assert cache.get("key", allow_stale=True) is None

    def test_without_stale_life(self, cache: Any) -> None:
        """Without a stale life it is a delete."""
        cache.set("key", 1)
        assert cache.expire("key") is True
        assert cache.get("key", allow_stale=True) is None


class TestTouch:
    def test_new_life(self, cache: Any, clock: Any) -> None:
        """A touched value lives on, by the area's ttl or the given one."""
        cache.mset({"a": 1, "b": {"x": 1}, "none": None}, 10)
        assert cache.touch("a", 100) is True
        assert cache.touch("b") is True
        assert cache.touch("none") is True
        clock.advance(20)
        assert {"a": 1, "b": {"x": 1}, "none": None} == cache.mget(["a", "b", "none"], MISS)
        clock.advance(15)  # null_ttl is 30
        assert cache.get("none", MISS) is MISS

    def test_absent(self, make: Callable[..., Any], clock: Any) -> None:
        """What is unknown, expired or stale is not touched."""
        cache = make(stale_ttl=100)
        cache.set("key", 1, 10)
        clock.advance(11)
        assert cache.touch("key") is False
        assert cache.touch("unknown") is False
        assert cache.get("key") is None

    def test_zero_and_none(self, cache: Any, clock: Any) -> None:
        """0 ends the life, None makes it endless."""
        cache.mset({"a": 1, "b": 1}, 10)
        assert cache.touch("a", 0) is True
        assert "a" not in cache
        assert cache.touch("a", 0) is False
        assert cache.touch("b", None) is True
        clock.advance("1w")
        assert 1 == cache.get("b")

    def test_age_stays(self, cache: Any, clock: Any) -> None:
        """A touched value is as old as before."""
        cache.set("key", 1, 100)
        clock.advance(50)
        cache.touch("key", 100)
        assert 50 == pytest.approx(cache.get_entry("key").age, abs=1)
