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


class Text(str):
    """A key whose hash runs code of the user."""

    __slots__ = ()
    during: Callable[[], object] = staticmethod(lambda: None)

    def __hash__(self) -> int:
        Text.during()
        return 1


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
