"""Values as bytes, and back."""

import array
import dataclasses
import enum
import math
import pickle
import resource
import struct
import threading
import uuid
from collections import OrderedDict, defaultdict, deque
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from accelerator import codec
from accelerator.codec import MsgpackCodec, PickleCodec, RawCodec, extensions
from accelerator.errors import ConfigError, SerializationError

FAST = MsgpackCodec(fast=True)
PLAIN = MsgpackCodec(fast=False)
BOTH = [pytest.param(FAST, id="ormsgpack"), pytest.param(PLAIN, id="msgpack")]
BERLIN = ZoneInfo("Europe/Berlin")
SECRET = "hunter2"


# --- what there is to store -------------------------------------------------------------------


@codec.register_dataclass
@dataclasses.dataclass(frozen=True, slots=True)
class Point:
    x: Any
    y: Any = 0


@codec.register_dataclass(name="test-user")
@dataclasses.dataclass
class User:
    name: str
    tags: Any = ()
    made: int = dataclasses.field(default=0, init=False)

    def __post_init__(self) -> None:
        self.made += 1


class Money:
    def __init__(self, amount: Any) -> None:
        self.amount = amount

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Money) and self.amount == other.amount

    __hash__ = None  # type: ignore[assignment]


codec.register(Money, 100, lambda money: [money.amount], lambda parts: Money(*parts))

zones = st.one_of(
    st.none(),
    st.just(UTC),
    st.sampled_from([BERLIN, ZoneInfo("UTC"), ZoneInfo("America/New_York")]),
    st.timedeltas(timedelta(hours=-23), timedelta(hours=23)).map(timezone),
    st.builds(timezone, st.just(timedelta(hours=1)), st.text(max_size=5).filter(str.isprintable)),
)
hashables = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(),
    st.binary(),
    st.uuids(),
    st.decimals().filter(lambda number: not number.is_snan()),  # which has no hash
    st.dates(),
    st.times(timezones=zones),
    st.datetimes(timezones=zones),
    st.timedeltas(),
)
frozen = st.recursive(
    hashables,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4).map(tuple),
        st.frozensets(inner, max_size=4),
        st.builds(Point, inner, inner),
    ),
    max_leaves=6,
)
values = st.recursive(
    frozen,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(frozen, inner, max_size=4),
        st.lists(inner, max_size=3).map(tuple),
        st.sets(frozen, max_size=4),
        st.builds(Point, inner, inner),
        st.builds(User, st.text(), inner),
        st.builds(Money, inner),
    ),
    max_leaves=12,
)


def same(one: Any, two: Any) -> bool:
    """Equal in value and type, all the way down; NaN is NaN, and 0.0 is not -0.0."""
    if type(one) is not type(two):
        return False
    if isinstance(one, float):
        return struct.pack("<d", one) == struct.pack("<d", two)
    if isinstance(one, Decimal):
        return str(one) == str(two)
    if isinstance(one, list | tuple):
        return len(one) == len(two) and all(map(same, one, two))
    if isinstance(one, dict):
        return same(list(one), list(two)) and same(list(one.values()), list(two.values()))
    if isinstance(one, set | frozenset):
        if len(one) > 20:  # not by the square of that
            return bool(one == two)
        rest = list(two)
        return len(one) == len(rest) and all(any(same(a, b) for b in rest) for a in one)
    if isinstance(one, datetime | time):
        return (repr(one), one.fold) == (repr(two), two.fold)
    if dataclasses.is_dataclass(one):
        return all(
            same(getattr(one, f.name), getattr(two, f.name)) for f in dataclasses.fields(one)
        )
    if isinstance(one, Money):
        return same(one.amount, two.amount)
    return bool(one == two)


def immutable(value: Any) -> bool:
    """Second opinion on what readers may share."""
    if isinstance(value, tuple | frozenset):
        return all(map(immutable, value))
    if isinstance(value, Point):
        return immutable(value.x) and immutable(value.y)
    return not isinstance(value, list | dict | set | User | Money)


@pytest.fixture
def registry() -> Iterator[None]:
    """Forget what a test registers."""
    tables = [getattr(extensions, f"_{name}") for name in ("by_type", "by_code")]
    tables += [extensions._user_types, extensions._dataclasses]
    before = [dict(table) for table in tables]
    yield
    for table, content in zip(tables, before, strict=True):
        table.clear()
        table.update(content)


# --- tests -------------------------------------------------------------------------------------


class TestRaw:
    @pytest.mark.parametrize(
        ("expected", "value"),
        [
            ((1, b"\0\xff"), b"\0\xff"),
            ((2, b"\xc3\xbc"), "ü"),
            ((2, b""), ""),
            ((3, b"\1" + bytes(7)), 1),
            ((3, b"\xff" * 8), -1),
            ((4, bytes(6) + b"\xf0\x3f"), 1.0),
            ((5, b""), True),
            ((6, b""), False),
            ((7, b""), None),
        ],
    )
    @pytest.mark.parametrize("one", BOTH)
    def test_bytes(self, one: MsgpackCodec, expected: Any, value: Any) -> None:
        """The codec of the native part reads and writes the very same bytes."""
        assert expected == one.encode(value) == codec.encode_raw(value)
        assert (value, True) == one.decode(*expected)

    def test_codes(self) -> None:
        """The codes are those of the native part."""
        native = pytest.importorskip("accelerator._native", reason="no native part")
        for name in dir(codec):
            if name.startswith("CODE_"):
                assert getattr(native, name) == getattr(codec, name)

    @pytest.mark.parametrize(
        ("code", "payload"),
        [(2, b"\xff"), (3, b""), (3, b"123456789"), (4, b"1234"), (0, b""), (99, b"x"), (8, b"")],
    )
    def test_damaged(self, code: int, payload: bytes) -> None:
        """What no codec wrote is a SerializationError."""
        with pytest.raises(SerializationError):
            codec.decode_raw(code, payload)

    @given(st.integers())
    @example(2**63 - 1)
    @example(2**63)
    @example(-(2**63))
    @example(-(2**63) - 1)
    @example(2**64)
    def test_ints(self, number: int) -> None:
        """An int of any size comes back."""
        for one in (FAST, PLAIN):
            code, payload = one.encode(number)
            assert (number, True) == one.decode(code, payload)
            assert (code == codec.CODE_INT) == (-(2**63) <= number < 2**63)


class TestRoundTrip:
    @given(values)
    def test_anything(self, value: Any) -> None:
        """Both packers write the same bytes, read each other's, and give back what went in."""
        encoded = PLAIN.encode(value)
        assert encoded == FAST.encode(value)
        for one in (FAST, PLAIN):
            decoded, shareable = one.decode(*encoded)
            assert same(value, decoded)
            assert immutable(value) is shareable

    @pytest.mark.parametrize(
        "value",
        [
            [math.nan, -0.0, 0.0, math.inf, -math.inf, struct.unpack("<d", b"\1" + b"\xff" * 7)[0]],
            (Decimal("NaN"), Decimal("sNaN12"), Decimal("-0E-7"), Decimal("1E+999999")),
            [datetime.max, datetime.min],  # noqa: DTZ901  naive ones are stored, too
            [date.max, date.min, time.max, time.min],
            [timedelta.max, timedelta.min, timedelta.resolution],
            [datetime(2020, 10, 25, 2, 30, fold=fold, tzinfo=BERLIN) for fold in (0, 1)],
            datetime(2020, 1, 1, tzinfo=timezone(timedelta(microseconds=1), "odd")),
            {None: 1, 1: 2, "1": 3, b"1": 4, 2.5: 5, (1, 2): 6, uuid.UUID(int=1): 7},
            {frozenset({frozenset(), frozenset({1})}), frozenset({2})},
            [[], {}, (), set(), frozenset(), "", b""],
            {"a": ((((),),),)},
            [2**63, 2**64 - 1, 2**64, -(2**63), -(2**63) - 1],
            ["x" * n for n in (31, 32, 255, 256, 65535, 65536)],
            [b"x" * n for n in (255, 256, 65535, 65536)],
            [list(range(n)) for n in (15, 16, 65535, 65536)],
            [dict.fromkeys(map(str, range(n))) for n in (15, 16, 65536)],
            [set(range(n)) for n in (15, 16, 65536)],
            [tuple(range(n)) for n in (1, 15, 16, 70000)],
        ],
        ids=lambda value: type(value).__name__,
    )
    def test_corners(self, value: Any) -> None:
        """The values at the edges of each type, and at each change of a length's form."""
        encoded = PLAIN.encode(value)
        assert encoded == FAST.encode(value)
        assert same(value, PLAIN.decode(*encoded)[0])
        assert same(value, FAST.decode(*encoded)[0])

    @pytest.mark.parametrize(
        ("expected", "value"),
        [
            ("d6 01 92 01 a161", (1, "a")),
            ("c703 02 92 01 02", {2, 1}),
            ("c703 03 91 a178", frozenset({"x"})),
            (
                "c715 04 e807021d 010203 04000000 00 01 00a493d600000000",
                datetime(2024, 2, 29, 1, 2, 3, 4, tzinfo=timezone(timedelta(hours=1))),
            ),
            (
                "d8 04 e807021d 000000 00000000 00 02 555443",
                datetime(2024, 2, 29, tzinfo=ZoneInfo("UTC")),
            ),
            ("d6 05 e807021d", date(2024, 2, 29)),
            ("c709 06 010203 00000000 01 00", time(1, 2, 3, fold=1)),
            ("c70c 07 ffffffff 00000000 01000000", timedelta(days=-1, microseconds=1)),
            ("d8 08 00000000000000000000000000000001", uuid.UUID(int=1)),
            ("d6 09 312e3530", Decimal("1.50")),
            ("c709 0a 010000000000000000", 2**64),
            ("c714 0b 95 a9746573742d75736572 ce1c5f7d6c a162 90 01", User("b", [])),
            ("c703 64 91 a178", Money("x")),
        ],
    )
    @pytest.mark.parametrize("one", BOTH)
    def test_wire(self, one: MsgpackCodec, expected: str, value: Any) -> None:
        """The bytes are what processes of other versions share: they never change."""
        assert "91" + expected.replace(" ", "") == one.encode([value])[1].hex()

    @pytest.mark.parametrize("one", BOTH)
    def test_buffers(self, one: MsgpackCodec) -> None:
        """A bytearray or memoryview comes back as bytes, as the documentation says."""
        value = [bytearray(b"ab"), memoryview(b"cd")]
        assert [b"ab", b"cd"] == one.decode(*one.encode(value))[0]

    @pytest.mark.parametrize("one", BOTH)
    def test_copies(self, one: MsgpackCodec) -> None:
        """A mutable value never comes back as the object that went in."""
        value = {"a": [1]}
        encoded = one.encode(value)
        first, second = one.decode(*encoded)[0], one.decode(*encoded)[0]
        assert value == first == second
        assert value["a"] is not first["a"] is not second["a"]

    def test_threads(self) -> None:
        """Packers are not shared by threads that run at the same time."""
        wrong: list[Any] = []

        def work(seed: int) -> None:
            value = [(seed, {seed}, [seed] * 50) for _ in range(20)]
            found = [PLAIN.decode(*PLAIN.encode(value))[0] for _ in range(100)]
            wrong.extend(each for each in found if each != value)

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [] == wrong


class TestDeterminism:
    @given(st.sets(frozen, max_size=8))
    def test_sets(self, members: set[Any]) -> None:
        """Equal sets have equal bytes, in whatever order they were filled."""
        one, two = with_histories(members)
        if same(one, two):
            assert PLAIN.encode(one) == PLAIN.encode(two) == FAST.encode(two)

    def test_subsets(self) -> None:
        """Sets within sets, for which "less" is "subset", are ordered as well."""
        one, two = with_histories({frozenset({n}) for n in range(40)})
        assert list(one) != list(two)
        assert PLAIN.encode(one) == PLAIN.encode(two) == FAST.encode(two)


def with_histories(members: set[Any]) -> tuple[set[Any], set[Any]]:
    """Two equal sets, of which one was larger once, and so has another order."""
    ordered = list(members)
    one, two = set(ordered), set()
    two.update(range(1000, 2000))
    two.difference_update(range(1000, 2000))
    two.update(reversed(ordered))
    return one, two


class SafeString(str):
    __slots__ = ()


class Level(enum.IntEnum):
    LOW = 1


class Colour(enum.Enum):
    RED = SECRET


class Pair(NamedTuple):
    one: Any
    two: Any


@dataclasses.dataclass
class Unknown:
    x: str = SECRET


class Zone(tzinfo):
    def utcoffset(self, when: datetime | None) -> timedelta:
        return timedelta(0)


class Sub(dict[Any, Any]):
    pass


class Moment(datetime):
    pass


class Key(uuid.UUID):
    pass


class SubPoint(Point):
    __slots__ = ()


def nested(depth: int, wrap: Any) -> Any:
    value = wrap(None) if wrap is not frozenset_of else frozenset()
    for _ in range(depth - 1):
        value = wrap(value)
    return value


def frozenset_of(value: Any) -> Any:
    return frozenset({value})


class TestRefused:
    @pytest.mark.parametrize(
        ("value", "place", "kind"),
        [
            (SafeString(SECRET), "value is", "SafeString, a subclass of str"),
            (Level.LOW, "value is", "Level, a subclass of int"),
            (Colour.RED, "value is", "Colour"),
            (OrderedDict({SECRET: 1}), "value is", "collections.OrderedDict, a subclass of dict"),
            (defaultdict(int), "value is", "defaultdict"),
            (Sub(), "value is", "Sub, a subclass of dict"),
            (Pair(SECRET, 1), "value is", "Pair, a subclass of tuple"),
            (Moment(2020, 1, 1), "value is", "Moment, a subclass of datetime"),
            (Key(int=1), "value is", "Key"),
            (SubPoint(1), "value is", "SubPoint"),
            (deque([SECRET]), "value is", "collections.deque"),
            (array.array("i", [1]), "value is", "array.array"),
            (range(3), "value is", "range"),
            (1j, "value is", "complex"),
            (object(), "value is", "object"),
            (int, "value is", "type"),
            (Unknown(), "value is", "Unknown: make it known by codec.register_dataclass()"),
            ([1, {"rows": (2, SafeString(SECRET))}], "value[1]['rows'][1] is", "SafeString"),
            ({SECRET + "!": SafeString(SECRET)}, "value[<str>] is", "SafeString"),
            ({12345: [Level.LOW]}, "value[<int>][0] is", "Level"),
            ({SafeString(SECRET): 1}, "value.<key> is", "SafeString"),
            ({(1, Level.LOW): 1}, "value.<key>[1] is", "Level"),
            ({Level.LOW: 1}, "value.<key> is", "Level"),
            ({SafeString(SECRET)}, "value.<element> is", "SafeString"),
            (Point(1, [SafeString(SECRET)]), "value.y[0] is", "SafeString"),
            (Money(SafeString(SECRET)), "value.<encoded>[0] is", "SafeString"),
            ([datetime(2020, 1, 1, tzinfo=Zone())], "value[0] has a tzinfo", "Zone"),
            ([time(1, tzinfo=Zone())], "value[0] has a tzinfo", "Zone"),
            (SECRET + "\ud800", "value is text with a lone surrogate", ""),
            ([SECRET + "\udfff"], "value[0] is text with a lone surrogate", ""),
            ({SECRET + "\ud800": 1}, "value.<key> is text with a lone surrogate", ""),
        ],
        ids=lambda value: type(value).__name__,
    )
    @pytest.mark.parametrize("one", BOTH)
    def test_named(self, one: MsgpackCodec, value: Any, place: str, kind: str) -> None:
        """The message names type and place, and shows nothing of the value."""
        with pytest.raises(SerializationError) as caught:
            one.encode(value)
        message = str(caught.value)
        assert message.startswith(f"not stored: {place}")
        assert kind in message
        assert SECRET not in message
        assert caught.value.__suppress_context__

    @pytest.mark.parametrize(
        "wrap",
        [
            lambda value: [value],
            lambda value: {"k": value},
            lambda value: (value,),
            frozenset_of,
            Point,
            lambda value: [{"k": (value, date.min)}],
        ],
    )
    @pytest.mark.parametrize("one", BOTH)
    def test_depth(self, one: MsgpackCodec, wrap: Any) -> None:
        """64 levels are stored and read, 65 are refused."""
        per_wrap = 3 if type(wrap(None)) is list and type(wrap(None)[0]) is dict else 1
        value = nested(63 // per_wrap, wrap)
        for _ in range(64 - 63 // per_wrap * per_wrap):
            value = [value]
        assert same(value, one.decode(*one.encode(value))[0])
        with pytest.raises(SerializationError, match="deeper than 64 levels"):
            one.encode([value])

    @pytest.mark.parametrize("depth", [65, 512, 2_000, 100_000])
    @pytest.mark.parametrize("one", BOTH)
    def test_very_deep(self, one: MsgpackCodec, depth: int) -> None:
        """However deep, it is an error and no crash."""
        for wrap in (lambda value: [value], lambda value: (value,)):
            value = nested(depth, wrap)
            with pytest.raises(SerializationError, match="deeper than 64 levels"):
                one.encode(value)
            while value:  # to take it apart is recursive, too
                (value,) = value

    @pytest.mark.parametrize("one", BOTH)
    def test_contains_itself(self, one: MsgpackCodec) -> None:
        """A value that contains itself, even often, is noticed at once."""
        loop: list[Any] = []
        loop += [loop, loop]
        with pytest.raises(SerializationError, match="contains itself"):
            one.encode({"a": loop})

    @given(values, st.sampled_from([SafeString("x"), Level.LOW, Pair(1, 2), 1j, Sub()]))
    def test_anywhere(self, value: Any, wrong: Any) -> None:
        """One part that cannot be stored is found wherever it is, by both packers."""
        for one in (FAST, PLAIN):
            for whole in ([value, wrong], {"a": (value, [wrong])}, {"k": Point(wrong, value)}):
                with pytest.raises(SerializationError):
                    one.encode(whole)


def damaged(payload: bytes) -> st.SearchStrategy[bytes]:
    """Strategy for *payload* with a byte changed, cut off, or something added."""
    places = st.integers(0, max(0, len(payload) - 1))
    return st.one_of(
        st.builds(
            lambda i, b: payload[:i] + bytes([b]) + payload[i + 1 :], places, st.integers(0, 255)
        ),
        places.map(lambda i: payload[:i]),
        st.binary(min_size=1, max_size=4).map(lambda more: payload + more),
    )


class TestGarbage:
    @given(st.binary(max_size=64), st.integers(0, 31))
    def test_random(self, payload: bytes, code: int) -> None:
        """Any bytes are a value or a SerializationError, never another exception."""
        for one in (FAST, PLAIN, RawCodec(), PickleCodec((b"s",))):
            assert outcome(one, code, payload) is not None

    @given(st.data())
    def test_damaged(self, data: st.DataObject) -> None:
        """So are the bytes of a real value with a byte changed, missing or added."""
        payload = PLAIN.encode([data.draw(values)])[1]
        wrong = data.draw(damaged(payload))
        for one in (FAST, PLAIN):
            assert outcome(one, codec.CODE_MSGPACK, wrong) is not None

    @given(st.integers(0, 15), st.binary(max_size=40))
    def test_extensions(self, code: int, data: bytes) -> None:
        """So is any content of an extension, and both readers agree about it."""
        payload = b"\xc7" + bytes([len(data), code]) + data
        assert outcome(FAST, 8, payload) == outcome(PLAIN, 8, payload)

    @pytest.mark.parametrize(
        "payload",
        [
            b"",
            b"\xc1",
            b"\x01\x02",
            b"\xa1\xff",
            b"\xa3\xed\xa0\x80",
            b"\x81\x80\x01",
            b"\xdd\xff\xff\xff\xff",
            b"\xdf\xff\xff\xff\xff",
            b"\xc6\xff\xff\xff\xff",
            b"\xc9\xff\xff\xff\xff\x01",
            b"\x92\x01",
            b"\xd4\x0c\x00",
            b"\xd4\x7f\x00",
            b"\xd4\x80\x00",
            b"\xd4\x01\x05",
            b"\xd4\x08\x00",
            b"\xd4\x09x",
            b"\xd6\x05\xff\xff\xff\xff",
            b"\xc7\x03\x0b\x92\x01\x02",
            b"\x91" * 2_000 + b"\xc0",
            b"\xc7\x05\x01" * 90 + b"\x90",
        ],
    )
    @pytest.mark.parametrize("one", BOTH)
    def test_certain(self, one: MsgpackCodec, payload: bytes) -> None:
        """What is certainly no value is never taken for one."""
        with pytest.raises(SerializationError) as caught:
            one.decode(codec.CODE_MSGPACK, payload)
        assert caught.value.__suppress_context__ or caught.value.__context__ is None

    def test_zone(self) -> None:
        """A zone is a zone and no path in the file system."""
        good = PLAIN.encode(datetime(2020, 1, 1, tzinfo=ZoneInfo("UTC")))[1]
        for key in (b"../UTC", b"/UTC", b"", b"\0\0\0"):
            body = good[3:-3] + key
            with pytest.raises(SerializationError):
                PLAIN.decode(8, b"\xc7" + bytes([len(body), 4]) + body)

    @pytest.mark.parametrize("one", BOTH)
    def test_other_codes(self, one: MsgpackCodec) -> None:
        """Who writes the bytes does not choose the codec: pickles are not read here."""
        pickled = PickleCodec((b"s",)).encode({1})
        with pytest.raises(SerializationError, match="code 10"):
            one.decode(*pickled)

    @pytest.mark.parametrize(
        "payload",
        [
            b"\xdd\x00\x0f\xff\xff" * 1_000 + bytes(1 << 20),
            b"\xdf\x00\x07\xff\xff" * 1_000 + bytes(1 << 20),
            b"\xdc\xff\xff" * 1_000 + bytes(1 << 17),
        ],
        ids=["arrays", "maps", "short arrays"],
    )
    @pytest.mark.parametrize("one", BOTH)
    def test_memory(self, one: MsgpackCodec, payload: bytes) -> None:
        """Lengths that are claimed, but not there, do not take memory to speak of."""
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with pytest.raises(SerializationError):
            one.decode(codec.CODE_MSGPACK, payload)
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        assert grown < 128 << 10  # KiB


def outcome(one: Any, code: int, payload: bytes) -> str:
    try:
        return repr(one.decode(code, payload))
    except SerializationError:
        return "error"


class TestDataclasses:
    def test_state(self) -> None:
        """Fields come back as they were; __init__ and __post_init__ do not run again."""
        user = User("bob", [1])
        user.made = 7
        user.other = SECRET  # type: ignore[attr-defined]  # no field: not stored
        found = PLAIN.decode(*PLAIN.encode(user))[0]
        assert ("bob", [1], 7) == (found.name, found.tags, found.made)
        assert not hasattr(found, "other")

    def test_shareable(self) -> None:
        """Frozen ones may be shared by readers if all that they hold may."""
        shareable = [PLAIN.decode(*PLAIN.encode(v))[1] for v in (Point(1), Point([1]), User("bob"))]
        assert [True, False, False] == shareable

    def test_missing_field(self) -> None:
        """An instance without one of its fields is refused."""
        point = object.__new__(Point)
        with pytest.raises(SerializationError, match="value lacks one of its fields"):
            PLAIN.encode(point)

    def test_changed(self, registry: None) -> None:
        """What was stored when the class had other fields is not read."""

        def version(*fields: Any) -> Any:
            kind = dataclasses.make_dataclass("Item", fields)
            return codec.register_dataclass(name="item")(kind)

        encoded = PLAIN.encode(version("a", "b")(1, 2))
        assert 1 == PLAIN.decode(*encoded)[0].a
        for fields in (("a",), ("b", "a"), ("a", "b", "c"), ("a", "c")):
            version(*fields)
            with pytest.raises(SerializationError, match="other fields"):
                PLAIN.decode(*encoded)

    def test_unknown(self, registry: None) -> None:
        """What another process registered and this one did not is not read."""
        kind = codec.register_dataclass(dataclasses.make_dataclass("Item", ["a"]))
        encoded = PLAIN.encode([kind(1)])
        extensions._dataclasses.clear()
        with pytest.raises(SerializationError, match="not registered in this process"):
            PLAIN.decode(*encoded)

    def test_decorator(self) -> None:
        """The decorator gives back the class."""
        assert Point is codec.register_dataclass(Point)

    def test_refused(self, registry: None) -> None:
        """Only dataclasses, and one class a name."""
        for wrong in (int, Money, Point(1), "Point"):
            with pytest.raises(ConfigError, match="takes a dataclass"):
                codec.register_dataclass(wrong)
        with pytest.raises(ConfigError, match="'test-user' is already that of"):
            codec.register_dataclass(name="test-user")(Unknown)


class TestRegister:
    def test_shareable(self, registry: None) -> None:
        """Whether readers may share values is what the registration says."""
        assert not PLAIN.decode(*PLAIN.encode(Money(1)))[1]
        codec.register(
            complex, 101, lambda c: [c.real, c.imag], lambda p: complex(*p), immutable=True
        )
        assert (1j, True) == PLAIN.decode(*PLAIN.encode(1j))
        assert ((1j,), True) == FAST.decode(*FAST.encode((1j,)))

    def test_exact(self) -> None:
        """A subclass of a registered type is another type."""

        class Coin(Money):
            pass

        with pytest.raises(SerializationError, match="Coin"):
            PLAIN.encode(Coin(1))

    @pytest.mark.parametrize("one", BOTH)
    def test_encoder_fails(self, registry: None, one: MsgpackCodec) -> None:
        """What the user's encoder raises is the cause of a SerializationError."""
        codec.register(complex, 101, lambda _: 1 / 0, lambda _: 1j)
        with pytest.raises(SerializationError, match="encoder of complex failed") as caught:
            one.encode([1j])
        assert isinstance(caught.value.__cause__, ZeroDivisionError)

    @pytest.mark.parametrize("one", BOTH)
    def test_decoder_fails(self, registry: None, one: MsgpackCodec) -> None:
        """So is what the user's decoder raises."""
        codec.register(complex, 101, lambda c: [c.real], lambda _: 1 / 0)
        with pytest.raises(SerializationError, match="decoder of complex failed") as caught:
            one.decode(*one.encode([1j]))
        assert isinstance(caught.value.__cause__, ZeroDivisionError)

    def test_encoder_reenters(self, registry: None) -> None:
        """An encoder may use the codec itself."""
        codec.register(
            complex,
            101,
            lambda c: PLAIN.encode([c.real, c.imag])[1],
            lambda data: complex(*PLAIN.decode(8, data)[0]),
        )
        assert [1j, [2j]] == PLAIN.decode(*PLAIN.encode([1j, [2j]]))[0]

    def test_not_registered(self, registry: None) -> None:
        """The message tells what to do when only the writer knows the type."""
        codec.register(complex, 101, lambda c: [c.real, c.imag], lambda p: complex(*p))
        encoded = PLAIN.encode([1j])
        del extensions._by_code[101]
        with pytest.raises(SerializationError, match=r"ext code 101.*codec\.register"):
            PLAIN.decode(*encoded)

    @pytest.mark.parametrize("code", [0, 31, 128, -1, True, 50.0, "50", None])
    def test_codes(self, code: Any) -> None:
        """The codes of users are 32 to 127."""
        with pytest.raises(ConfigError, match="32 to 127"):
            codec.register(complex, code, list, list)

    @pytest.mark.parametrize("kind", [str, int, dict, list, tuple, datetime, "Money", None, 5])
    def test_types(self, kind: Any) -> None:
        """Types that are known already are not registered."""
        with pytest.raises(ConfigError, match="must be a class"):
            codec.register(kind, 101, list, list)

    def test_functions(self) -> None:
        """Encoder and decoder are functions."""
        with pytest.raises(ConfigError, match="must be functions"):
            codec.register(complex, 101, None, list)  # type: ignore[arg-type]

    def test_taken(self, registry: None) -> None:
        """One code a type, one type a code; the same once more is a module that was reloaded."""
        codec.register(complex, 101, lambda c: c.real, complex)
        codec.register(complex, 101, lambda c: [c.real, c.imag], lambda p: complex(*p))
        assert [1j] == PLAIN.decode(*PLAIN.encode([1j]))[0]
        with pytest.raises(ConfigError, match="code 101 is already that of complex"):
            codec.register(range, 101, list, list)
        with pytest.raises(ConfigError, match="already registered, with ext code 101"):
            codec.register(complex, 102, list, list)


class TestRawCodec:
    def test_bytes_only(self) -> None:
        """Bytes and None are stored, as the native part stores them."""
        raw = RawCodec()
        assert (codec.CODE_BYTES, b"x") == raw.encode(b"x")
        assert (codec.CODE_NULL, b"") == raw.encode(None)
        assert [(b"x", True), (None, True), (b"x", True)] == [
            raw.decode(*stored) for stored in ((1, b"x"), (7, b""), (9, b"x"))
        ]

    @pytest.mark.parametrize("value", ["x", 1, bytearray(b"x"), [b"x"], True])
    def test_nothing_else(self, value: Any) -> None:
        """Anything else is refused, naming the type."""
        with pytest.raises(SerializationError, match=f"not {type(value).__name__}"):
            RawCodec().encode(value)

    @pytest.mark.parametrize("code", [2, 3, 4, 5, 6, 8, 10, 40])
    def test_other_codes(self, code: int) -> None:
        """What another codec wrote is not read."""
        with pytest.raises(SerializationError, match=f"code {code}"):
            RawCodec().decode(code, b"12345678")


executed: list[str] = []


def execute() -> int:
    executed.append("executed")
    return 1


class Trap:
    def __reduce__(self) -> Any:
        return execute, ()


class TestPickleCodec:
    ONE = PickleCodec((b"one",))

    def test_anything(self) -> None:
        """Subclasses, and whatever else can be pickled."""
        for value in (Pair(1, 2), Level.LOW, Money([1]), {"a": SafeString("x")}, [1], 1j):
            found, shareable = self.ONE.decode(*self.ONE.encode(value))
            assert (value, type(value), False) == (found, type(found), shareable)
        assert ((1, (2,)), True) == self.ONE.decode(*self.ONE.encode((1, (2,))))

    @given(hashables)
    def test_raw(self, value: Any) -> None:
        """The types that need no codec are stored as ever."""
        assert same(value, self.ONE.decode(*self.ONE.encode(value))[0])
        if type(value) in {str, bytes, float, bool, type(None)}:
            assert PLAIN.encode(value) == self.ONE.encode(value)

    def test_rotation(self) -> None:
        """The first secret signs, all of them verify."""
        both = PickleCodec((b"two", b"one"))
        assert [1] == both.decode(*self.ONE.encode([1]))[0]
        assert [2] == PickleCodec((b"two",)).decode(*both.encode([2]))[0]
        with pytest.raises(SerializationError, match="none of the secrets"):
            self.ONE.decode(*both.encode([2]))

    def test_not_executed(self) -> None:
        """What was signed by nobody we know is not even looked at."""
        executed.clear()
        code, payload = self.ONE.encode(Trap())
        for forged in (payload[:32][::-1] + payload[32:], payload[32:], bytes(32) + payload[32:]):
            with pytest.raises(SerializationError):
                self.ONE.decode(code, forged)
        with pytest.raises(SerializationError):
            PickleCodec((b"two",)).decode(code, payload)
        assert [] == executed
        self.ONE.decode(code, payload)
        assert ["executed"] == executed

    @given(st.data())
    def test_tampered(self, data: st.DataObject) -> None:
        """A byte changed, missing or added is noticed."""
        code, payload = self.ONE.encode([1, {"a": 2}])
        wrong = data.draw(damaged(payload))
        if wrong != payload:
            with pytest.raises(SerializationError, match="none of the secrets"):
                self.ONE.decode(code, wrong)

    def test_other_codec(self) -> None:
        """Bytes of msgpack are not read as a pickle, nor the other way round."""
        with pytest.raises(SerializationError, match="code 8"):
            self.ONE.decode(*PLAIN.encode([1]))

    def test_not_picklable(self) -> None:
        """What cannot be pickled is named by its type."""
        with pytest.raises(SerializationError, match="of type generator cannot be pickled"):
            self.ONE.encode(x for x in (SECRET,))

    def test_gone(self) -> None:
        """A class that is gone is a value that cannot be decoded."""
        data = pickle.dumps(Money(1), 5).replace(b"Money", b"Penny")
        signed = self.ONE.encode([1])
        assert signed[1][32:] == pickle.dumps([1], 5)
        from accelerator.codec import codecs

        with pytest.raises(SerializationError, match="code 10 cannot be decoded"):
            self.ONE.decode(10, codecs._sign(b"one", data) + data)

    def test_secret_hidden(self) -> None:
        """The secret does not show, and there must be one."""
        assert "one" not in repr(self.ONE)
        with pytest.raises(ConfigError, match="secret"):
            PickleCodec(())


class Upper:
    """A codec of a user's."""

    def encode(self, value: Any) -> Any:
        if value == "bad":
            return 99, "text"
        return 20, value.upper().encode()

    def decode(self, code: int, payload: bytes) -> Any:
        return payload.decode(), 1


class TestMake:
    def test_names(self) -> None:
        """The names of the codecs are those of the option."""
        kinds = [type(codec.make(name, (b"s",))) for name in ("msgpack", "raw", "pickle")]
        assert [MsgpackCodec, RawCodec, PickleCodec] == kinds

    def test_fastest(self) -> None:
        """ormsgpack is used where it is installed."""
        assert codec.make("msgpack")._fast is not None  # type: ignore[attr-defined]

    @pytest.mark.parametrize("name", ["json", None, 5])
    def test_unknown(self, name: Any) -> None:
        """There are no others."""
        with pytest.raises(ConfigError):
            codec.make(name)

    def test_pickle_needs_secret(self) -> None:
        """Nothing is unpickled that nobody signed."""
        with pytest.raises(ConfigError, match="secret"):
            codec.make("pickle")

    def test_own(self) -> None:
        """A user's codec does as it likes, but answers and raises what a codec may."""
        own = codec.make(Upper())
        assert (20, b"ABC") == own.encode("abc")
        assert ("ABC", False) == own.decode(20, b"ABC")  # 1 is no promise: only True is
        with pytest.raises(SerializationError, match="code from 1 to 31"):
            own.encode("bad")
        with pytest.raises(SerializationError, match="failed on a value of type int") as caught:
            own.encode(5)
        assert isinstance(caught.value.__cause__, AttributeError)
        with pytest.raises(SerializationError, match="failed on bytes of code 20"):
            own.decode(20, b"\xff")

    @pytest.mark.parametrize("name", ["msgpack", "raw", "pickle"])
    def test_protocol(self, name: str) -> None:
        """All of them are what the protocol asks for."""
        assert isinstance(codec.make(name, (b"s",)), codec.Codec)
