"""The canonical encoding of keys."""

import contextlib
import enum
import os
import uuid
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accelerator import keys

U = uuid.UUID(int=0x0123456789ABCDEF0123456789ABCDEF)

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.text(max_size=40),
    st.binary(max_size=40),
    st.uuids(),
)
any_key = st.recursive(scalars, lambda inner: st.lists(inner, max_size=4).map(tuple), max_leaves=8)
anything = st.one_of(any_key, st.floats(), st.lists(any_key, max_size=2), st.text(), st.dates())


class Text(str):
    __slots__ = ()

    def __str__(self) -> str:
        return "changed"

    def encode(self, *args: Any) -> bytes:
        return b"changed"


class Number(int):
    def __int__(self) -> int:
        return -1

    def __index__(self) -> int:
        return -1


class Blob(bytes):
    def __bytes__(self) -> bytes:
        return b"changed"


class Id(uuid.UUID):
    pass


class Several(tuple):
    __slots__ = ()

    def __iter__(self) -> Any:
        return iter(("changed",))


class Pair(NamedTuple):
    one: int
    two: int


class Colour(enum.Enum):
    RED = "red"
    PAIR = (1, "two")
    WRONG = 1.5


class Level(enum.IntEnum):
    LOW = 1


class Name(enum.StrEnum):
    BOB = "bob"


def nested(levels: int) -> tuple[Any, ...]:
    key: tuple[Any, ...] = ()
    for _ in range(levels):
        key = (key,)
    return key


class TestEncoding:
    @pytest.mark.parametrize(
        ("expected", "key"),
        [
            (b"s", ""),
            (b"susers", "users"),
            (b"s\xc3\xbc", "ü"),
            (b"b", b""),
            (b"b\0\xff", b"\0\xff"),
            (b"i" + bytes(8), 0),
            (b"i\1" + bytes(7), 1),
            (b"i" + b"\xff" * 8, -1),
            (b"i" + b"\xff" * 7 + b"\x7f", 2**63 - 1),
            (b"i" + bytes(7) + b"\x80", -(2**63)),
            (b"I+\x80" + bytes(7), 2**63),
            (b"I-\x80" + bytes(6) + b"\1", -(2**63) - 1),
            (b"I+\1" + bytes(8), 2**64),
            (b"T", True),
            (b"F", False),
            (b"N", None),
            (b"u" + U.bytes, U),
            (b"(", ()),
            (b"(\3\0sab\1\0N", ("ab", None)),
            (b"(\x0c\0(\x09\0i\1" + bytes(7), ((1,),)),
        ],
    )
    def test_bytes(self, expected: bytes, key: Any) -> None:
        """The encoding is part of what processes of other versions share: it never changes."""
        assert expected == keys.encode(key)

    @given(any_key, any_key)
    def test_no_collisions(self, one: Any, two: Any) -> None:
        """Two keys have one encoding only if they are equal in value and type."""
        try:
            same = keys.encode(one) == keys.encode(two)
        except ValueError:
            return
        assert same == (repr(one) == repr(two))

    @pytest.mark.parametrize(
        "group",
        [
            [1, "1", b"1", True, (1,), ("1",), "i\1"],
            [("a", "b"), ("ab",), ("a,b",), (("a", "b"),), (("a",), "b"), ("a", ("b",))],
            [None, "None", (), (None,), (None, None), ((),), "", b""],
            [0, False, -1, 2**64 - 1, -(2**64) + 1],
            [U, str(U), U.bytes, U.int],
        ],
    )
    def test_lookalikes(self, group: list[Any]) -> None:
        """What looks alike, or compares equal in Python, is still told apart."""
        assert len(group) == len({keys.encode(key) for key in group})


class TestCoercion:
    @pytest.mark.parametrize(
        ("expected", "key"),
        [
            ("text", Text("text")),
            (7, Number(7)),
            (b"blob", Blob(b"blob")),
            (U, Id(int=U.int)),
            ((1, "x"), Several((1, "x"))),
            ((1, 2), Pair(1, 2)),
            ("red", Colour.RED),
            ((1, "two"), Colour.PAIR),
            (1, Level.LOW),
            ("bob", Name.BOB),
            ((1, ("red", "text")), (Level.LOW, (Colour.RED, Text("text")))),
        ],
    )
    def test_base_value(self, expected: Any, key: Any) -> None:
        """A subclass or an enum is the key that its base value is, whatever it overrides."""
        assert keys.encode(expected) == keys.encode(key)

    @given(scalars)
    def test_plain(self, key: Any) -> None:
        """A plain key is left alone."""
        assert key is keys.coerce(key)

    def test_exact(self) -> None:
        """What comes out is of the base type itself."""
        for key in (Text("x"), Number(7), Blob(b"x"), Id(int=1), Several((1,)), Pair(1, 2)):
            assert type(key).__mro__[1] is type(keys.coerce(key))


class TestRefused:
    SECRET = "hunter2"

    @pytest.mark.parametrize(
        ("error", "key", "kind"),
        [
            (TypeError, 1.5, "float"),
            (TypeError, 1j, "complex"),
            (TypeError, [SECRET], "list"),
            (TypeError, {SECRET: 1}, "dict"),
            (TypeError, frozenset({SECRET}), "frozenset"),
            (TypeError, bytearray(b"hunter2"), "bytearray"),
            (TypeError, memoryview(b"hunter2"), "memoryview"),
            (TypeError, object(), "object"),
            (TypeError, str, "type"),
            (TypeError, (SECRET, 1.5), "float"),
            (TypeError, Colour.WRONG, "float"),
            (ValueError, SECRET + "\ud800", "str"),
            (ValueError, SECRET * 100, "str"),
            (ValueError, (SECRET.encode() * 72, SECRET), "tuple"),
            (ValueError, SECRET.encode() * 100, "bytes"),
            (ValueError, 10**2000, "int"),
            (ValueError, (-(10**2000),), "int"),
        ],
    )
    def test_names_type_only(self, error: type[Exception], key: Any, kind: str) -> None:
        """The message names the type, and shows nothing of the key."""
        with pytest.raises(error) as caught:
            keys.encode(key)
        assert kind in str(caught.value)
        assert self.SECRET not in str(caught.value)
        assert caught.value.__suppress_context__ or caught.value.__context__ is None

    @pytest.mark.parametrize(
        ("longest", "longer"),
        [
            ("x" * 511, "x" * 512),
            ("ü" * 255 + "x", "ü" * 256),
            (b"x" * 511, b"x" * 512),
            (2 ** (8 * 510) - 1, 2 ** (8 * 510)),
            (("x" * 508,), ("x" * 509,)),
            ((None,) * 170, (None,) * 171),
        ],
    )
    def test_limit(self, longest: Any, longer: Any) -> None:
        """512 bytes are a key, 513 are not."""
        assert len(keys.encode(longest)) <= keys.MAX_SIZE == 512
        with pytest.raises(ValueError, match="longer than 512 bytes encoded: hash long keys"):
            keys.encode(longer)

    def test_deep(self) -> None:
        """Depth is limited by the length, not by the interpreter's stack."""
        key: tuple[Any, ...] = ()
        for _ in range(170):
            key = (key,)
        assert 511 == len(keys.encode(key))
        for _ in range(500):
            key = (key,)
        with pytest.raises(ValueError, match="longer than 512"):
            keys.encode(key)

    @given(anything)
    def test_nothing_else(self, key: Any) -> None:
        """Whatever is asked for is at most 512 bytes, a TypeError or a ValueError."""
        with contextlib.suppress(TypeError, ValueError):
            assert 1 <= len(keys.encode(key)) <= 512


class TestNativeTwin:
    """The native part encodes the same way; where there is none, nobody shares keys with it."""

    @pytest.fixture
    def native(self) -> Any:
        return pytest.importorskip("accelerator._native", reason="installed without native part")

    @given(key=anything)
    def test_same(self, key: Any) -> None:
        """Byte for byte, errors included."""
        native = pytest.importorskip("accelerator._native", reason="no native part")
        assert outcome(keys.encode, key) == outcome(native.encode_key, key)

    @pytest.mark.parametrize(
        "key",
        [
            Text("text"),
            Number(7),
            Blob(b"b"),
            Id(int=1),
            Several((1,)),
            Pair(1, 2),
            *Colour,
            Level.LOW,
            Name.BOB,
            (Level.LOW, (Colour.RED, Text("t"))),
            "x" * 511,
            "x" * 512,
            ("x" * 508,),
            ("x" * 509,),
            *(nested(levels) for levels in (1, 169, 170, 171, 5000)),
            2**4080 - 1,
            2**4080,
            1.5,
            os.environ,
        ],
    )
    def test_special(self, native: Any, key: Any) -> None:
        """Subclasses, enums and limits as well."""
        assert outcome(keys.encode, key) == outcome(native.encode_key, key)


def outcome(encode: Any, key: Any) -> Any:
    try:
        return encode(key)
    except (TypeError, ValueError) as error:
        return TypeError if isinstance(error, TypeError) else ValueError
