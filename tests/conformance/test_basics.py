"""Values in, values out: get, mget, set, mset, in, peek, get_entry, delete, mdelete, clear."""

import math
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest

from accelerator import MISS, ReadOptions

RAW = [
    b"",
    b"bytes",
    b"\x00" * 5000,
    "",
    "text",
    "Zürich ✓",
    "\x00",
    0,
    1,
    -1,
    2**63 - 1,
    -(2**63),
    0.0,
    -0.0,
    1.5,
    math.inf,
    True,
    False,
    None,
]
KEYS = ["", "key", "Zürich", b"", b"key", 0, 1, -1, 2**64, UUID(int=7), None, True, False, (), (1,)]


class TestValues:
    @pytest.mark.parametrize("value", RAW, ids=repr)
    def test_round_trip(self, cache: Any, value: object) -> None:
        """A value comes back equal and of the same type, sign of zero included."""
        cache.set("key", value)
        for found in (cache.get("key", MISS), cache.mget(["key"])["key"], cache.peek("key", MISS)):
            assert value == found
            assert type(value) is type(found)
            assert repr(value) == repr(found)

    def test_nan(self, cache: Any) -> None:
        """NaN is a float like others."""
        cache.set("key", math.nan)
        assert math.isnan(cache.get("key"))

    @pytest.mark.parametrize("value", [{"a": [1, None, "x"]}, [1, [2]], [], {}], ids=repr)
    def test_containers(self, cache: Any, value: object) -> None:
        """Lists and dicts come back equal."""
        cache.set("key", value)
        assert value == cache.get("key")

    def test_no_aliasing(self, cache: Any) -> None:
        """Neither what was set nor what a read returned can change what others read."""
        given = {"names": ["a"]}
        cache.set("key", given)
        given["names"].append("b")
        cache.get("key")["names"].append("c")
        cache.get_entry("key").value["names"].append("d")
        assert {"names": ["a"]} == cache.get("key")

    def test_falsy_is_there(self, cache: Any) -> None:
        """What is false is cached all the same."""
        for value in (None, 0, False, "", b"", [], {}):
            cache.set("key", value)
            assert "key" in cache
            assert value == cache.get("key", MISS)

    @pytest.mark.parametrize(
        "value", [object(), lambda: None, type, NotImplemented], ids=lambda value: str(type(value))
    )
    def test_not_encodable(self, cache: Any, value: object, unchanged: Callable[..., Any]) -> None:
        """What cannot be encoded is refused, and nothing changes."""
        from accelerator import SerializationError

        cache.set("key", "old")
        with unchanged(cache, "key", "other"):
            for write in (
                lambda: cache.set("key", value),
                lambda: cache.mset({"other": 1, "key": value}),
                lambda: cache.add("other", value),
            ):
                with pytest.raises(SerializationError) as raised:
                    write()
                assert "area" == raised.value.area
                assert raised.value.operation in {"set", "mset", "add"}

    def test_too_large_for_the_area(self, make: Callable[..., Any]) -> None:
        """A value over max_value_size is refused, and nothing changes."""
        from accelerator import SerializationError

        cache = make(max_value_size=100)
        cache.set("key", b"old")
        cache.set("most", b"x" * 100)
        with pytest.raises(SerializationError, match="max_value_size=100"):
            cache.set("key", b"x" * 101)
        assert b"old" == cache.get("key")
        assert b"x" * 100 == cache.get("most")

    @pytest.mark.usefixtures("local_only")  # Redis takes it
    def test_too_large_for_the_memory(self, make: Callable[..., Any], memory: Any) -> None:
        """A value that fits the area but not the memory is dropped, with its older copy."""
        cache = make(max_value_size="16MiB")
        cache.set("key", "old")
        cache.set("key", b"x" * (memory.segment.max_item + 1))
        assert "key" not in cache
        assert 1 == cache.metrics_snapshot()["store_rejected_size"]


class TestKeys:
    def test_no_collisions(self, cache: Any) -> None:
        """Type and value count: 1, "1", True, b"1" and (1,) are different keys."""
        for number, key in enumerate(KEYS):
            cache.set(key, number)
        for number, key in enumerate(KEYS):
            assert number == cache.get(key)

    def test_separators(self, cache: Any) -> None:
        """No text in a tuple can make two tuples one key."""
        cache.set(("a", "b"), 1)
        for other in ("a:b", ("a:b",), ("a", "b", ""), ("ab",), (("a",), "b"), ("a", ("b",))):
            assert cache.get(other) is None

    @pytest.mark.parametrize("key", [1.0, [1], {}, object(), bytearray(b"x"), (1, [])], ids=repr)
    def test_wrong_type(self, cache: Any, key: Any) -> None:
        """Anything else is a TypeError at once, in every method."""
        for operation in self.operations(cache, key):
            with pytest.raises(TypeError):
                operation()

    @pytest.mark.parametrize("key", ["x" * 512, b"x" * 512, "\ud800", ("x" * 300, "y" * 300)])
    def test_wrong_value(self, cache: Any, key: Any) -> None:
        """Too long, or no text: a ValueError that does not show the key."""
        for operation in self.operations(cache, key):
            with pytest.raises(ValueError) as raised:  # noqa: PT011  the message is ours to word
                operation()
            assert "xxx" not in str(raised.value)

    def test_longest(self, cache: Any) -> None:
        """512 bytes, with the type."""
        cache.set("x" * 511, 1)
        assert 1 == cache.get("x" * 511)

    @staticmethod
    def operations(cache: Any, key: Any) -> list[Callable[[], object]]:
        return [
            lambda: cache.get(key),
            lambda: cache.get(key, allow_stale=True),
            lambda: cache.mget([key]),
            lambda: cache.mget([key], allow_stale=True),
            lambda: key in cache,
            lambda: cache.set(key, 1),
            lambda: cache.set(key, {}),
            lambda: cache.set(key, 1, 0),
            lambda: cache.add(key, 1),
            lambda: cache.touch(key),
            lambda: cache.incr(key),
            lambda: cache.delete(key),
            lambda: cache.mdelete([key]),
            lambda: cache.expire(key),
            lambda: cache.peek(key),
            lambda: cache.get_entry(key),
            lambda: cache.get_or_load(key, lambda _: 1),
        ]

    def test_batch_is_checked_first(self, cache: Any) -> None:
        """One wrong key, and nothing of the batch happens."""
        cache.set("kept", 1)
        with pytest.raises(TypeError):
            cache.mset({"new": 1, 1.5: 2})
        with pytest.raises(TypeError, match="takes a mapping, not list"):
            cache.mset(["new", 1])
        with pytest.raises(TypeError):
            cache.mdelete(["kept", 1.5])
        assert "new" not in cache
        assert "kept" in cache


class TestGet:
    def test_default(self, cache: Any) -> None:
        """Unknown is the default, known None is None."""
        cache.set("none", None)
        assert cache.get("unknown") is None
        assert "x" == cache.get("unknown", "x") == cache.get("unknown", default="x")
        assert cache.get("unknown", MISS) is MISS
        assert cache.get("none", "x") is None

    def test_options(self, cache: Any) -> None:
        """Read options as an object, as keywords, or both."""
        cache.set("key", 1)
        assert 1 == cache.get("key", options=ReadOptions(disable_load=True))
        assert 1 == cache.get("key", disable_load=True)
        assert 1 == cache.get("key", options=ReadOptions(), allow_stale=True)
        assert {"key": 1, "no": 9} == cache.mget(["key", "no"], 9, allow_stale=True)

    @pytest.mark.parametrize(
        "wrong", [{"nonsense": 1}, {"options": 1}, {"allow_stale": 1}, {"max_staleness": "x"}]
    )
    def test_wrong_options(self, cache: Any, wrong: dict[str, Any]) -> None:
        """What is no read option is refused, whether or not the key is there."""
        cache.set("key", 1)
        for key in ("key", "unknown"):
            with pytest.raises((TypeError, ValueError)):
                cache.get(key, **wrong)
            with pytest.raises((TypeError, ValueError)):
                cache.mget([key], **wrong)

    def test_arguments(self, cache: Any) -> None:
        """Too few or too many arguments are a TypeError."""
        for call in (
            cache.get,
            lambda: cache.get(1, 2, 3),
            cache.mget,
            lambda: cache.set(1),
            lambda: cache.set(1, 2, 3, 4),
            lambda: cache.mget(None),
            lambda: cache.mget(1),
        ):
            with pytest.raises(TypeError):
                call()


class TestMget:
    def test_shape(self, cache: Any) -> None:
        """Every requested key, in the order of the request, duplicates once."""
        cache.mset({"a": 1, "c": None})
        found = cache.mget(["b", "a", "c", "a", "b"], "?")
        assert {"b": "?", "a": 1, "c": None} == found
        assert ["b", "a", "c"] == list(found)

    def test_equal_keys(self, cache: Any) -> None:
        """Keys that a dict cannot tell apart are refused: their values would change places."""
        cache.set(1, "int")
        cache.set(True, "bool")
        for keys in ([1, True], [True, 1, "a"], [(1,), (True,)]):
            with pytest.raises(ValueError, match="mget") as raised:
                cache.mget(keys)
            assert "int" not in str(raised.value)
        assert {1: "int"} == cache.mget([1, 1])
        assert {True: "bool"} == cache.mget([True, True])

    def test_any_iterable(self, cache: Any) -> None:
        """Generators, sets and dict views are fine; so is nothing."""
        cache.set("a", 1)
        assert {"a": 1} == cache.mget(key for key in ["a"])
        assert {"a": 1} == cache.mget({"a"})
        assert {"a": 1} == cache.mget({"a": 0}.keys())
        assert {} == cache.mget([])

    def test_many(self, cache: Any) -> None:
        """More than one batch of the C loop."""
        cache.mset({number: number * 2 for number in range(500)})
        found = cache.mget(range(600), -1)
        assert {n: n * 2 if n < 500 else -1 for n in range(600)} == found

    def test_stale_in_order(self, make: Callable[..., Any], clock: Any) -> None:
        """Answers from Python keep the order of the request, too."""
        cache = make(stale_ttl=100)
        cache.mset({"a": 1, "b": 2}, 10)
        cache.set("c", 3)
        clock.advance(11)
        found = cache.mget(["x", "a", "c", "b"], allow_stale=True)
        assert [("x", None), ("a", 1), ("c", 3), ("b", 2)] == list(found.items())


class TestSet:
    def test_overwrites(self, cache: Any) -> None:
        """Any type replaces any other, a cached None included."""
        for value in (1, "text", None, {"a": 1}, b"bytes", None, 2.5):
            cache.set("key", value)
            assert value == cache.get("key", MISS)

    def test_none_not_cached(self, make: Callable[..., Any]) -> None:
        """Where None is not cached, setting it deletes."""
        cache = make(cache_null_value=False)
        cache.set("key", 1)
        cache.set("key", None)
        assert cache.get("key", MISS) is MISS
        cache.mset({"key": None, "other": 1})
        assert cache.get("key", MISS) is MISS
        assert cache.add("key", None)
        assert cache.get("key", MISS) is MISS

    def test_unknown_option(self, cache: Any) -> None:
        """What is no option of a write is refused, and nothing is stored."""
        for call in (
            lambda: cache.set("key", 1, nonsense=1),
            lambda: cache.mset({"key": 1}, nonsense=1),
            lambda: cache.add("key", 1, nonsense=1),
        ):
            with pytest.raises(TypeError, match="nonsense"):
                call()
        assert "key" not in cache

    def test_broadcast(self, cache: Any) -> None:
        """There are no other hosts to tell: the same code runs with Redis and without."""
        cache.set("key", 1, broadcast=False)
        assert 1 == cache.get("key")

    @pytest.mark.usefixtures("local_only")  # copies of Redis have none
    def test_version_changes(self, cache: Any) -> None:
        """Each write is another version, an equal value's included."""
        seen = set()
        for _ in range(10):
            cache.set("key", "same")
            seen.add(cache.get_entry("key").version)
        assert 10 == len(seen)


class TestForget:
    def test_delete(self, cache: Any) -> None:
        """Deleting tells whether the key was there; a cached None was."""
        cache.mset({"a": 1, "none": None})
        assert cache.delete("a") is True
        assert cache.delete("a") is False
        assert cache.delete("none") is True
        assert "a" not in cache

    def test_mdelete(self, cache: Any) -> None:
        """The count is of distinct keys that were there; 1 and True are two."""
        cache.mset({1: "int", "a": 1})
        cache.set(True, "bool")
        assert 3 == cache.mdelete([1, True, "a", "a", "unknown"])
        assert 0 == cache.mdelete([])
        assert 0 == cache.mdelete(key for key in [1, "a"])

    def test_clear(self, make: Callable[..., Any]) -> None:
        """A whole area goes, other areas stay."""
        one, other = make("one"), make("other")
        one.mset({n: n for n in range(100)})
        other.set(1, "kept")
        assert one.clear() is None
        assert dict.fromkeys(range(100)) == one.mget(range(100))
        assert "kept" == other.get(1)
        one.set(1, "new")
        assert "new" == one.get(1)

    def test_set_after_delete(self, cache: Any) -> None:
        """A deleted key can be set again at once."""
        for number in range(100):
            cache.set("key", number)
            assert number == cache.get("key")
            cache.delete("key")
            assert "key" not in cache


class TestAreas:
    def test_apart(self, make: Callable[..., Any]) -> None:
        """One key in two areas is two keys."""
        one, other = make("one"), make("other")
        one.set("key", 1)
        assert "key" not in other
        assert other.delete("key") is False
        assert 1 == one.get("key")

    def test_same_name(self, make: Callable[..., Any]) -> None:
        """Two objects of one area are one cache."""
        make("area").set("key", 1)
        assert 1 == make("area").get("key")


class TestPeek:
    def test_counts_nothing(self, cache: Any) -> None:
        """Peeking and "in" leave the counters of reads alone."""
        cache.set("key", 1)
        before = cache.metrics_snapshot()
        assert 1 == cache.peek("key")
        assert "x" == cache.peek("unknown", "x")
        assert "key" in cache
        assert "unknown" not in cache
        assert before == cache.metrics_snapshot()


class TestEntry:
    def test_value(self, cache: Any, clock: Any) -> None:
        """All that is known about a value."""
        cache.set("key", "value", 60)
        clock.advance(20)
        entry = cache.get_entry("key")
        assert ("value", "local", False, False) == (
            entry.value,
            entry.tier,
            entry.stale,
            entry.is_null,
        )
        assert 20 == pytest.approx(entry.age, abs=1)
        assert 40 == pytest.approx(entry.ttl, abs=1)

    def test_null(self, cache: Any) -> None:
        """A key known to be absent has an entry, an unknown key has none."""
        cache.set("key", None)
        assert cache.get_entry("key").is_null
        assert cache.get_entry("unknown") is None

    @pytest.mark.usefixtures("local_only")  # no copy here outlives local_ttl
    def test_no_expiry(self, cache: Any) -> None:
        """No expiry, no ttl."""
        cache.set("key", 1, None)
        assert cache.get_entry("key").ttl is None
