"""What kinds of values survive, who shares decoded objects, and codecs other than the default."""

import collections
import datetime as dt
import decimal
import enum
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest

from accelerator import ConfigError, SerializationError

UTC = dt.UTC
FAITHFUL = [
    (1, (2, "x"), None),
    {1, 2},
    frozenset({"a"}),
    dt.datetime(2026, 1, 2, 3, 4, 5, 678901),  # noqa: DTZ001  naive ones survive, too
    dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    dt.date(2026, 1, 2),
    dt.time(1, 2, 3),
    dt.timedelta(days=-1, microseconds=1),
    UUID(int=2**127),
    decimal.Decimal("1.10"),
    2**64,
    -(2**200),
    {"nested": [(1, {"deep": {2**70, UUID(int=1)}})], 1: 2, None: 3},
]


class Text(str):
    __slots__ = ()


class Level(enum.IntEnum):
    LOW = 1


SUBCLASSES = [
    Text("safe"),
    Level.LOW,
    collections.OrderedDict(a=1),
    collections.Counter("aab"),
    collections.namedtuple("Point", "x y")(1, 2),  # noqa: PYI024  it is the untyped one we mean
    {"nested": [Text("x")]},
]


class TestTypes:
    @pytest.mark.parametrize("value", FAITHFUL, ids=repr)
    def test_faithful(self, cache: Any, value: object) -> None:
        """What comes out equals what went in, types included."""
        cache.set("key", value)
        for found in (cache.get("key"), cache.get("key"), cache.mget(["key"])["key"]):
            assert value == found
            assert type(value) is type(found)

    @pytest.mark.parametrize("value", SUBCLASSES, ids=lambda value: type(value).__name__)
    def test_subclasses(self, cache: Any, value: object) -> None:
        """A subclass is refused, never turned into its base."""
        cache.set("key", "old")
        for write in (cache.set, cache.add):
            with pytest.raises(SerializationError, match="area"):
                write("key", value)
        assert "old" == cache.get("key")
        assert value is cache.get_or_load("loaded", lambda _: value)
        assert "loaded" not in cache

    def test_message(self, cache: Any) -> None:
        """The error names type, area and operation, never the value."""
        with pytest.raises(SerializationError) as raised:
            cache.set("the-key", {"user": Text("the-value")})
        message = str(raised.value)
        assert "Text" in message
        assert "area=area" in message
        assert "op=set" in message
        assert "the-value" not in message
        assert "the-key" not in message


MUTABLE = {"a": [1]}
IMMUTABLE = (1, "a", dt.date(2026, 1, 1))


class TestObjects:
    @pytest.mark.usefixtures("local_only")  # none is used before the host is in step
    def test_auto(self, make: Callable[..., Any]) -> None:
        """Immutable objects are decoded once, mutable ones for every read."""
        cache = make(objects="auto")
        cache.mset({"mutable": MUTABLE, "immutable": IMMUTABLE})
        assert cache.get("immutable") is cache.get("immutable")
        assert cache.get("mutable") is not cache.get("mutable")
        assert cache.get("immutable") is not IMMUTABLE

    @pytest.mark.usefixtures("local_only")  # as above
    def test_shared(self, make: Callable[..., Any]) -> None:
        """All objects are decoded once, as callers promise not to change them."""
        cache = make(objects="shared")
        cache.set("mutable", MUTABLE)
        assert cache.get("mutable") is cache.get("mutable")
        assert cache.get("mutable") is cache.mget(["mutable"])["mutable"]
        assert cache.get("mutable") is not MUTABLE

    def test_copy(self, make: Callable[..., Any]) -> None:
        """Nothing is kept: every read decodes."""
        cache = make(objects="copy")
        cache.mset({"mutable": MUTABLE, "immutable": IMMUTABLE})
        assert cache.get("immutable") is not cache.get("immutable")
        assert cache.get("mutable") is not cache.get("mutable")
        assert 0 == cache.metrics_snapshot()["object_hit"]

    @pytest.mark.parametrize("objects", ["auto", "shared", "copy"])
    def test_never_old(self, make: Callable[..., Any], clock: Any, objects: str) -> None:
        """A kept object is gone as soon as its value is: by set, delete, clear, incr and time."""
        cache = make(objects=objects, local_ttl=60)
        for value in ((1,), "text", {"a": 1}, 5):
            cache.set("key", value)
            assert value == cache.get("key")
            cache.set("key", (2,))
            assert (2,) == cache.get("key")
            cache.delete("key")
            assert cache.get("key") is None
            cache.set("key", value)
            cache.get("key")
            cache.clear()
            assert cache.get("key") is None
            cache.set("key", value)
            cache.get("key")
            clock.advance(61)
            assert cache.get("key") is None
        cache.set("key", 1)
        cache.get("key")
        cache.incr("key")
        assert 2 == cache.get("key")

    @pytest.mark.parametrize("objects", ["auto", "shared"])
    def test_types_apart(self, make: Callable[..., Any], objects: str) -> None:
        """Keys that are equal to Python, and two keys here, keep two objects."""
        cache = make(objects=objects)
        cache.set(1, ("int",))
        cache.set(True, ("bool",))
        for _ in range(3):
            assert ("int",) == cache.get(1)
            assert ("bool",) == cache.get(True)


class TestOptions:
    def test_verify_full(self, make: Callable[..., Any]) -> None:
        """Checking every checksum changes no answer."""
        cache = make(verify="full")
        cache.mset({n: f"value {n}" for n in range(100)})
        assert {n: f"value {n}" for n in range(100)} == cache.mget(range(100))

    def test_raw(self, make: Callable[..., Any]) -> None:
        """codec="raw": bytes and None, nothing else."""
        cache = make(codec="raw")
        cache.mset({"a": b"bytes", "none": None})
        assert {"a": b"bytes", "none": None} == cache.mget(["a", "none"], "?")
        for value in ("text", 1, True, 1.0, [b""]):
            with pytest.raises(SerializationError, match="raw"):
                cache.set("a", value)
        assert b"bytes" == cache.get("a")

    def test_pickle_needs_secret(self, make: Callable[..., Any]) -> None:
        """codec="pickle" without a secret: a ConfigError at first use."""
        with pytest.raises(ConfigError, match="secret"):
            make(codec="pickle").get("key")

    def test_own(self, make: Callable[..., Any]) -> None:
        """A codec of the user's own, asked for raw types, too."""

        class Reversed:
            def encode(self, value: Any) -> tuple[int, bytes]:
                return 20, value[::-1].encode()

            def decode(self, code: int, payload: bytes) -> tuple[Any, bool]:
                return payload.decode()[::-1], False

        cache = make(codec=Reversed())
        cache.set("a", "text")
        assert "text" == cache.get("a") == cache.mget(["a"])["a"]
        with pytest.raises(SerializationError):
            cache.set("a", 1)
        assert "text" == cache.get("a")

    def test_undecodable(self, make: Callable[..., Any]) -> None:
        """What a codec cannot decode is a counted miss, and gone."""

        class Broken:
            def encode(self, value: Any) -> tuple[int, bytes]:
                return 21, b"x"

            def decode(self, code: int, payload: bytes) -> tuple[Any, bool]:
                raise ValueError(payload)

        cache = make(codec=Broken())
        cache.set("a", 1)
        assert "?" == cache.get("a", "?")
        assert "a" not in cache
        assert 1 == cache.metrics_snapshot()["corrupt_item"]
