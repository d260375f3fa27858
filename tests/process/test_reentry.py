"""Python code that runs in the middle of an operation, and takes the memory away."""

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from accelerator import LevelCache, codec, local, runtime, testing


class Decoded:
    """A value whose decoder runs code of the user."""

    during: Callable[[], object] = staticmethod(lambda: None)

    @classmethod
    def decode(cls, _: object) -> "Decoded":
        Decoded.during()
        return cls()


codec.register(Decoded, 93, lambda _: 1, Decoded.decode, immutable=True)


class Finalised:
    """A value whose end runs code of the user: that of the first one does."""

    during: Callable[[], object] | None = None

    def __del__(self) -> None:
        during, Finalised.during = Finalised.during, None
        if during is not None:
            during()


codec.register(Finalised, 94, lambda _: 1, lambda _: Finalised(), immutable=True)


class Text(str):
    """A key whose hash runs code of the user."""

    __slots__ = ()
    during: Callable[[], object] = staticmethod(lambda: None)

    def __hash__(self) -> int:
        Text.during()
        return 1


def codec_area() -> Any:
    """An area of the native part alone, whose values are of Finalised."""

    class Area(local.AreaBase):
        def _decode(self, _: int, __: bytes) -> tuple[object, bool]:
            return Finalised(), True

    return Area()


def bind(area: Any, memory: local.Segment, name: str, **options: Any) -> None:
    """As a view that keeps objects of its own."""
    flags = local.OWN_OBJECTS + local.PLAIN_SET + local.PLAIN_MISS
    lives = {"ttl": None, "null_ttl": None, "stale_ttl": 0.0, "jitter": 0.0}
    area._bind(
        memory,
        name,
        max_value_size=1024,
        object_cache_bytes=1 << 20,
        flags=flags,
        **lives,
        **options,
    )


@pytest.fixture
def taken_away() -> Iterator[Callable[[], None]]:
    """
    Take the memory away, as another thread may at any bytecode.

    Twice, so that nobody but the operation in progress keeps the first.
    """

    def take() -> None:
        for _ in range(2):
            runtime.swap(testing._private(4 << 20))
        LevelCache("other").set("key", 1)

    yield take
    Decoded.during = Text.during = staticmethod(lambda: None)
    Finalised.during = None


@pytest.mark.skipif(not local.NATIVE, reason="asks how the native part holds its memory")
class TestTakenAway:
    """Whatever the user's code does to the attachment, the operation ends well."""

    def test_decoder(self, taken_away: Callable[[], None]) -> None:
        """A codec runs between finding a value and remembering it."""
        reads: list[Callable[[LevelCache], object]] = [
            lambda cache: cache.get("key"),
            lambda cache: cache.mget(["key", "absent", "key"])["key"],
            lambda cache: cache.peek("key"),
            lambda cache: getattr(cache.get_entry("key", allow_stale=True), "value", None),
        ]
        for read in reads:
            for objects in ("auto", "copy"):
                for reads_before in (0, 1):
                    with testing.isolated():
                        cache = LevelCache("area", objects=objects)
                        cache.set("key", Decoded())
                        for _ in range(reads_before):
                            read(cache)

                        def during(cache: LevelCache = cache) -> None:
                            Decoded.during = staticmethod(lambda: None)
                            taken_away()
                            cache.set("bound", "anew")

                        Decoded.during = staticmethod(during)
                        assert isinstance(read(cache), Decoded)
                        Decoded.during = staticmethod(lambda: None)

    def test_undecodable(self, taken_away: Callable[[], None]) -> None:
        """What cannot be decoded is dropped where it was found."""

        def during() -> None:
            taken_away()
            cache.set("bound", "anew")
            raise ValueError

        with testing.isolated():
            cache = LevelCache("area")
            cache.set("key", Decoded())
            Decoded.during = staticmethod(during)
            assert cache.get("key", "default") == "default"

    def test_key(self, taken_away: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
        """Keys are encoded by Python code, some of them: UUID.bytes is a property."""

        def encoded(key: uuid.UUID) -> bytes:
            taken_away()
            return key.int.to_bytes(16, "big")

        monkeypatch.setattr(uuid.UUID, "bytes", property(encoded))
        operations: list[Callable[[LevelCache, Any], object]] = [
            lambda cache, key: cache.get(key),
            lambda cache, key: cache.mget([key, "x"]),
            lambda cache, key: key in cache,
            lambda cache, key: cache.set(key, 1),
            lambda cache, key: cache.set(key, [1]),
            lambda cache, key: cache.add(key, 1),
            lambda cache, key: cache.incr(key),
            lambda cache, key: cache.touch(key),
            lambda cache, key: cache.expire(key),
            lambda cache, key: cache.delete(key),
            lambda cache, key: cache.get_or_load(key, str),
        ]
        for operation in operations:
            with testing.isolated():
                operation(LevelCache("area"), uuid.UUID(int=5))

    def test_keys(self, taken_away: Callable[[], None]) -> None:
        """The keys of mget come from an iterator, and are compared by code of their own."""

        def keys() -> Iterator[str]:
            yield "one"
            taken_away()
            yield "two"

        with testing.isolated():
            cache = LevelCache("area")
            assert cache.mget(keys()) == {"one": None, "two": None}
            Text.during = staticmethod(taken_away)
            assert len(cache.mget([Text("a"), "b", Text("c"), "d"])) == 4

    def test_finaliser(self, taken_away: Callable[[], None]) -> None:
        """Objects that a process has kept end in the middle of a read, with their table."""

        def during() -> None:
            taken_away()
            cache.set("bound", "anew")

        for ends in ("cleared", "replaced"):
            with testing.isolated():
                runtime.swap(testing._private(4 << 20))  # which is held by what is bound to it
                cache = LevelCache("area")
                for key in range(50):
                    cache.set(key, Finalised())
                    cache.get(key)
                if ends == "cleared":
                    cache.clear()
                else:
                    cache.set(0, Finalised())
                Finalised.during = staticmethod(during)
                assert isinstance(cache.get(0), Finalised) is (ends == "replaced")
                assert "anew" == cache.get("bound")

    def test_finaliser_of_view(self, taken_away: Callable[[], None]) -> None:
        """Objects of one view alone end because it is bound anew."""

        def during() -> None:
            taken_away()
            bind(area, runtime.current().memory, "third")

        with testing.isolated():
            area: Any = codec_area()
            bind(area, testing._private(4 << 20).memory, "one")
            area._store("key", 20, b"", None, 0.0)
            assert isinstance(area.get("key"), Finalised)
            Finalised.during = staticmethod(during)
            bind(area, runtime.current().memory, "two")
            assert None is area.get("key")

    def test_converter(self, taken_away: Callable[[], None]) -> None:
        """Converters of keys are user code in front of every operation on one."""

        def converted(key: int) -> str:
            taken_away()
            return f"key {key}"

        operations: list[Callable[[LevelCache], object]] = [
            lambda cache: cache.get(1),
            lambda cache: cache.mget([1, 2, 1]),
            lambda cache: 1 in cache,
            lambda cache: cache.set(1, 1),
            lambda cache: cache.set(1, [1], tags=["tag"]),
            lambda cache: cache.mset({1: 1, 2: 2}),
            lambda cache: cache.add(1, 1),
            lambda cache: cache.incr(1),
            lambda cache: cache.touch(1),
            lambda cache: cache.expire(1),
            lambda cache: cache.delete(1),
            lambda cache: cache.peek(1),
            lambda cache: cache.get_entry(1, allow_stale=True),
            lambda cache: cache.get_or_load(1, str),
            lambda cache: cache.namespace("name").get(1),
        ]
        for operation in operations:
            with testing.isolated():
                operation(LevelCache("area", key_converter=converted))


@pytest.mark.skipif(not local.NATIVE, reason="reads a list where it lies")
class TestListChanged:
    """The list of keys that mget() is given is changed while it is read."""

    @pytest.fixture
    def keys(self) -> list[Any]:
        return [f"key {n}" + "." * 40 for n in range(100)]

    def test_finaliser(self, keys: list[Any]) -> None:
        """By the end of an object that is forgotten."""
        with testing.isolated():
            cache = LevelCache("area")
            for key in keys:
                cache.set(key, Finalised())
                cache.get(key)
            cache.clear()
            Finalised.during = staticmethod(keys.clear)
            assert {} == cache.mget(keys)

    def test_converter(self, keys: list[Any]) -> None:
        """By the converter of the third key."""

        def converted(key: str) -> str:
            if key == third:
                keys.clear()
            return key

        third = keys[2]
        with testing.isolated():
            assert 3 == len(LevelCache("area", key_converter=converted).mget(keys))

    @pytest.mark.parametrize("options", [{}, {"allow_stale": True}])
    def test_hash(self, keys: list[Any], options: dict[str, Any]) -> None:
        """By the hash of a key, also where Python reads every key."""
        keys[:] = [Text(key) for key in keys]
        Text.during = staticmethod(keys.clear)
        try:
            with testing.isolated():
                assert 1 == len(LevelCache("area").mget(keys, **options))
        finally:
            Text.during = staticmethod(lambda: None)


class TestBoundAnew:
    """What a view has kept of one area says nothing of the next one."""

    @pytest.mark.parametrize(
        "change",
        [{"name": "two"}, {"variant": 7}, {"key_converter": lambda key: f"other {key}"}],
    )
    def test_forgotten(self, change: dict[str, Any]) -> None:
        with testing.isolated() as isolated:
            area: Any = local.AreaBase()
            bind(area, isolated.memory, "one")
            area.set("key", "value")
            assert ["value"] * 2 == [area.get("key") for _ in range(2)]
            bind(area, isolated.memory, **{"name": "one", **change})
            assert None is area.get("key")
