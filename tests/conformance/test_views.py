"""Views of an area: callers' keys that are converted, and namespaces."""

from typing import Any

import pytest

from accelerator import ConfigError, LockError


class Converted:
    """A converter that counts, and fails for what it is told to."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def __call__(self, given: Any) -> Any:
        self.calls.append(given)
        return f"k:{given}"


class TestKeyConverter:
    def test_same_keys(self, memory: Any) -> None:
        """What callers of one area call 7, those without a converter call by its answer."""
        converter = Converted()
        cache, plain = memory.cache(key_converter=converter), memory.cache()
        cache.set(7, "value")
        assert "value" == plain.get("k:7") == cache.get(7) == cache.peek(7)
        assert 7 in cache
        assert 8 not in cache
        assert 7 not in plain
        assert {7: "value", 8: None} == cache.mget([7, 8])
        assert cache.delete(7)
        assert plain.get("k:7") is None
        assert cache.add(7, 1)
        assert 3 == cache.incr(7, 2) == plain.get("k:7")
        assert cache.touch(7, 5)
        assert cache.expire(7)

    def test_loader(self, memory: Any) -> None:
        """Loaders, contexts and stale values go by the callers' keys."""
        seen: list[Any] = []

        class Loader:
            def load(self, key: Any, context: Any) -> Any:
                seen.append((key, context.stale_value))
                return {"key": key}

            def mload(self, keys: Any, context: Any) -> Any:
                seen.append((list(keys), list(context.keys)))
                return {key: key for key in keys}

        cache = memory.cache(key_converter=Converted(), loader=Loader(), stale_ttl=60)
        assert {"key": 7} == cache.get(7)
        cache.expire(7)
        assert {"key": 7} == cache.get(7)
        assert {5: 5, 6: 6} == cache.mget([5, 6])
        assert [7, 7, [5, 6]] == [each[0] for each in seen]
        assert ({"key": 7}, [5, 6]) == (seen[1][1], seen[2][1])

    def test_any_key(self, memory: Any) -> None:
        """Callers' keys may be what no key is."""
        cache = memory.cache(key_converter=repr)
        cache.set(1.5, "value")
        assert {1.5: "value", frozenset({1}): None} == cache.mget([1.5, frozenset({1})])

    @pytest.mark.parametrize(
        ("converter", "kind"),
        [
            (lambda key: {}[key], TypeError),
            (lambda key: 1.5, TypeError),
            (lambda key: "x" * 600, ValueError),
            (lambda key: "\ud800", ValueError),
            (int, ValueError),
        ],
    )
    def test_wrong(self, memory: Any, converter: Any, kind: type[Exception]) -> None:
        """What it does wrong names the area, and never the key."""
        cache = memory.cache("things", key_converter=converter)
        for call in (cache.get, cache.delete, cache._wire, cache.peek):
            with pytest.raises(kind, match=r"key_converter.*area=things") as raised:
                call("s3cret")
            assert "s3cret" not in str(raised.value)

    def test_base_exception(self, memory: Any) -> None:
        """What ends the program is not turned into anything."""

        def end(key: Any) -> Any:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            memory.cache(key_converter=end).get(1)

    def test_told_apart(self, memory: Any) -> None:
        """Equal keys of a dict that are two keys here are refused, whatever is beside them."""
        cache = memory.cache(key_converter=lambda key: str(key).lower())
        cache.set("a", 1)
        assert {"a": 1, "A": 1} == cache.mget(["a", "A", "a"])
        with pytest.raises(ValueError, match="two calls"):
            cache.mget(["a", "A", 1, True])

    def test_hits_do_not_convert(self, memory: Any, local_only: None) -> None:
        """Objects are found by the callers' str, int or bytes."""
        if memory.kind == "process":
            pytest.skip("the twin keeps no objects")
        converter = Converted()
        cache = memory.cache(key_converter=converter)
        for key in (7, "seven", b"7"):
            cache.set(key, ("value", 1))
            assert ("value", 1) == cache.get(key)
            before = len(converter.calls)
            assert ("value", 1) == cache.get(key) == cache.mget([key])[key]
            assert before == len(converter.calls)
            cache.set(key, ("newer", 2))
            assert ("newer", 2) == cache.get(key)

    def test_objects_apart(self, memory: Any) -> None:
        """What one object calls by a key is nothing to another that calls something else by it."""
        first, second = (
            memory.cache(key_converter=lambda key: ("first", key)),
            memory.cache(key_converter=lambda key: ("second", key)),
        )
        for cache, value in ((first, (1, "a")), (second, (2, "b"))):
            cache.set("key", value)
            assert [value, value] == [cache.get("key"), cache.get("key")]
        assert (1, "a") == first.get("key")
        second.delete("key")
        assert ((1, "a"), None) == (first.get("key"), second.get("key"))

    def test_bound_anew_meanwhile(self, memory: Any) -> None:
        """A converter that has its area bound anew changes nothing for the caller."""
        cache: Any = None

        def convert(key: Any) -> Any:
            if key != "quiet":
                cache._unbind()
                cache.get("quiet")  # binds it
            return f"k:{key}"

        cache = memory.cache(key_converter=convert)
        for _ in range(3):
            cache.set("key", ("value",))
            assert ("value",) == cache.get("key") == cache.mget(["key"])["key"]
            assert "key" in cache
        assert cache.delete("key")
        assert cache.get("key") is None


class TestOwnObjects:
    def test_given_back(self, memory: Any) -> None:
        """Views that go leave nothing behind that the next ones would find."""
        cache = memory.cache()
        for number in range(50):
            view = cache._view(converter=lambda key, number=number: f"{number % 2}:{key}")
            if number < 2:
                view.set("key", (number, "x"))
            assert [(number % 2, "x")] * 3 == [view.get("key") for _ in range(3)]

    def test_refresh_window(self, memory: Any, local_only: None) -> None:
        """A view with refresh-ahead is not held up by one without."""
        seen: list[Any] = []
        cache = memory.cache(local_ttl=60)
        view = cache._view(
            loader=seen.append, refresh_ahead=True, refresh_ahead_window=59, local_ttl=60
        )
        cache.set("key", ("value",))
        assert ("value",) == cache.get("key") == cache.get("key")
        memory.clock.advance(30)
        assert ("value",) == cache.get("key")
        view.get("key")
        assert ["key"] == seen


class TestHit:
    def test_hit(self, memory: Any) -> None:
        """A plain hit is given and counted; what is none is neither loaded nor counted."""
        seen: list[Any] = []
        cache = memory.cache(loader=seen.append)
        before = cache.metrics_snapshot()
        missing = cache._hit("key")
        assert "UNSET" == repr(missing)
        assert before == cache.metrics_snapshot()
        cache.set("key", None)
        assert cache._hit("key") is None
        after = cache.metrics_snapshot()
        assert (1, 1) == (after["local_hit"], after["negative_hit"])
        assert [] == seen

    def test_near_its_end(self, memory: Any, local_only: None) -> None:
        """A hit whose refresh is due is left to whoever can see to that."""
        cache = memory.cache(
            loader=lambda key: key, refresh_ahead=True, refresh_ahead_window=50, local_ttl=60
        )
        cache.set("key", "value")
        assert "value" == cache._hit("key")
        memory.clock.advance(30)
        before = cache.metrics_snapshot()
        assert "UNSET" == repr(cache._hit("key"))
        assert before == cache.metrics_snapshot()


class TestNamespaces:
    def test_keys(self, memory: Any) -> None:
        """Keys of namespaces meet neither each other nor the area's."""
        cache = memory.cache()
        first, second = cache.namespace("first"), cache.namespace("second")
        inner = first.namespace("second")
        caches = (cache, first, second, inner)
        for number, each in enumerate(caches):
            each.set("key", number)
        assert [0, 1, 2, 3] == [each.get("key") for each in caches]
        assert first is cache.namespace("first")

    def test_meets_no_tuple(self, memory: Any) -> None:
        """Keys that are tuples are no keys of a namespace, nor of one within another."""
        cache = memory.cache()
        outer = cache.namespace("a")
        inner = outer.namespace("b")
        caches = (cache, outer, inner)
        for number, one in enumerate(caches):
            for key in (1, ("b", 1), ("a", 1), ("a", ("b", 1)), (("a", "b"), 1)):
                one.set(key, (number, key))
        for number, one in enumerate(caches):
            for key in (1, ("b", 1), ("a", 1), ("a", ("b", 1)), (("a", "b"), 1)):
                assert (number, key) == one.get(key)

    def test_clear(self, memory: Any) -> None:
        """clear() forgets a namespace with all in it, and nothing else; the area's forgets all."""
        cache = memory.cache()
        first, second = cache.namespace("first"), cache.namespace("second")
        inner = first.namespace("inner")
        caches = (cache, first, second, inner)

        def fill() -> None:
            for number, each in enumerate(caches):
                each.set("key", number)
                each.get("key")

        fill()
        inner.clear()
        assert [0, 1, 2, None] == [each.get("key") for each in caches]
        fill()
        first.clear()
        assert [0, None, 2, None] == [each.get("key") for each in caches]
        fill()
        cache.clear()
        assert [None] * 4 == [each.get("key") for each in caches]

    def test_converter(self, memory: Any) -> None:
        """The area's converter is given what callers of the namespace give."""
        converter = Converted()
        cache = memory.cache(key_converter=converter)
        inner = cache.namespace("n")
        inner.set(7, "value")
        assert "value" == inner.get(7) == memory.cache().get((b"\x1fnamespace", ("n",), "k:7"))
        assert {7} == set(converter.calls)

    def test_loader(self, memory: Any) -> None:
        """A loader is told the names."""
        cache = memory.cache(loader=lambda key, context: (context.namespace, key))
        inner = cache.namespace("a").namespace("b")
        assert ((), 1) == cache.get(1)
        assert (("a", "b"), 1) == inner.get(1)

    @pytest.mark.parametrize("name", [1, None, b"x", ("a",)])
    def test_name_type(self, memory: Any, name: Any) -> None:
        with pytest.raises(TypeError, match="name of a namespace"):
            memory.cache().namespace(name)

    def test_empty_name(self, memory: Any) -> None:
        with pytest.raises(ValueError, match="name of a namespace"):
            memory.cache().namespace("")

    def test_too_deep(self, memory: Any) -> None:
        """Each name takes a tag, of which a value has at most eight."""
        cache = memory.cache()
        for number in range(8):
            cache = cache.namespace(f"{number}")
        cache.set(1, 1)
        assert 1 == cache.get(1)
        with pytest.raises(ConfigError, match="tags"):
            cache.namespace("one more")

    def test_many(self, memory: Any) -> None:
        """Views of very many names are not all kept, and work all the same."""
        cache = memory.cache()
        first = cache.namespace("0")
        first.set(1, "first")
        for number in range(1100):
            cache.namespace(f"{number}")
        assert len(cache._namespaces) <= 1024
        assert "first" == cache.namespace("0").get(1) == first.get(1)

    def test_locks_are_the_area_s(self, memory: Any) -> None:
        """A lock of a namespace is the one of that name in the area."""
        cache = memory.cache()
        with cache.namespace("n").lock("job"), pytest.raises(LockError):
            cache.lock("job").acquire()
