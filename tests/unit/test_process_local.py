"""The segment's twin in process memory, and whether the two are twins."""

import contextlib
import gc
import importlib
import inspect
import itertools
import os
import pickle
import random
import signal
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from accelerator import codec, process_local
from accelerator.process_local import ProcessLocalArea, ProcessLocalSegment, items
from accelerator.process_local.flights import RECORDS_MAX
from accelerator.process_local.tags import TagTable

TWINS = ["accelerator.process_local", "accelerator._native"]
SIZE = 4 << 20
DEFAULTS: dict[str, Any] = {
    "ttl": 60.0,
    "null_ttl": 30.0,
    "stale_ttl": 0.0,
    "jitter": 0.0,
    "max_value_size": 1 << 20,
    "object_cache_bytes": 1 << 20,
    "flags": 3,  # PLAIN_MISS | PLAIN_SET
}
MSGPACK = codec.CODE_MSGPACK


@pytest.fixture(params=TWINS, ids=["process_local", "native"])
def twin(request: pytest.FixtureRequest) -> Any:
    """Each of the two implementations."""
    return pytest.importorskip(request.param, reason="installed without the native part")


def make_area(twin: Any, segment: Any = None, name: str = "area", **bound: Any) -> Any:
    """An area of a private segment that notes which methods it falls through to."""

    class Noting(twin.Area):  # type: ignore[misc]
        def __init__(self) -> None:
            self.segment = segment or twin.Segment.private(SIZE, 1 << 20)
            self.calls: list[Any] = []

        def _attach(self) -> None:
            self._bind(self.segment, name, **{**DEFAULTS, **bound})

        def _miss(self, *args: Any) -> Any:
            self.calls.append(("miss", *args))
            return "missed"

        def _mmiss(self, *args: Any) -> None:
            self.calls.append(("mmiss", *args))
            missing, result, *_ = args
            result.update(dict.fromkeys(missing, "missed"))

        def _contains_miss(self, *args: Any) -> Any:
            self.calls.append(("contains_miss", *args))
            return 1

        def _set(self, *args: Any) -> None:
            self.calls.append(("set", *args))

        def _decode(self, code: int, payload: bytes) -> Any:
            return codec.decode(code, payload)

    return Noting()


@pytest.fixture
def area(twin: Any) -> Any:
    return make_area(twin)


def put(area: Any, key: Any, value: Any, ttl: float | None = 60, stale: float = 0) -> Any:
    return area._store(key, *codec.encode(value), ttl, stale)


class TestNames:
    def test_constants(self) -> None:
        """Every constant has the value that it has in the native part."""
        native = pytest.importorskip("accelerator._native", reason="no native part")
        own = {"LAYOUT", "MIN_SIZE", "MAX_SIZE", "UNSET"}  # where they differ, it is on purpose
        names = [name for name in process_local.__all__ if name.isupper() and name not in own]
        assert {name: getattr(native, name) for name in names} == {
            name: getattr(process_local, name) for name in names
        }

    def test_methods(self) -> None:
        """Every method is there, but for those that show shared memory to tests."""
        native = pytest.importorskip("accelerator._native", reason="no native part")
        mine, its = (make_area(twin) for twin in (process_local, native))
        for one, other in ((mine, its), (mine.segment, its.segment)):
            names = {name for name in dir(other) if not name.startswith("__")}
            assert set() == names - {"raw", "lock_shard", "unlock_shard"} - set(dir(one))

    def test_statistics(self) -> None:
        """The statistics have the same shape."""
        native = pytest.importorskip("accelerator._native", reason="no native part")
        shapes = []
        for twin in (process_local, native):
            area = make_area(twin)
            area.set("k", b"v")
            found = area.segment.stats()
            shapes.append(
                [set(found), set(found["segment"]), *map(set, found["areas"].values())]
                + [set(process) for process in found["processes"]]
                + [set(found["link"]), set(found["leader"])]
            )
        assert shapes[0] == shapes[1]

    def test_tables(self) -> None:
        """So have the tables, with the same numbers."""
        native = pytest.importorskip("accelerator._native", reason="no native part")
        found = []
        for twin in (process_local, native):
            area = make_area(twin)
            area._store("object", *codec.encode((1, 2)), None, 0.0)
            area.set("raw", b"v")
            assert 1 == len(area.segment.blocks())
            for _ in range(3):
                area.get("object")
            area.get("raw")
            area._latency(0.002)
            [(_, incarnation, *block)] = area.segment.blocks()
            assert area.segment.incarnation == incarnation
            found.append((area.segment.areas(), block))
        assert found[0] == found[1]

    def test_local(self) -> None:
        """ACCELERATOR_PURE=1 puts this twin in the place of the other one."""
        local = importlib.import_module("accelerator.local")
        if os.environ.get("ACCELERATOR_PURE") == "1":
            assert ProcessLocalArea is local.AreaBase
        for name in local.__all__:
            if name not in {"AreaBase", "NATIVE", "private_segment"}:
                assert hasattr(process_local, name)

    def test_install(self, twin: Any) -> None:
        """install() takes a subclass, and changes nothing that one could see."""
        area = make_area(twin)
        twin.install(type(area))
        area.set("k", b"v")
        assert b"v" == area.get("k")


class TestWatching:
    def test_watched(self) -> None:
        """The listener follows the areas it is told to, and no others."""
        segment = ProcessLocalSegment(SIZE, 1 << 20)
        for name in ("one", "two", "three"):
            segment.area(name)
        segment.watch(segment.area("three"))
        segment.watch(segment.area("one"))
        segment.watch(segment.area("one"))
        assert ["one", "three"] == segment.watched()


class TestBinding:
    def test_first_use(self, area: Any) -> None:
        """The first operation attaches, and so does the first after _unbind()."""
        assert not area._bound
        area.set("k", b"v")
        assert area._bound
        area._unbind()
        assert not area._bound
        assert b"v" == area.get("k")

    def test_not_bound(self, twin: Any) -> None:
        """An _attach() that does not bind is an error, not an endless loop."""

        class Lazy(twin.Area):  # type: ignore[misc]
            def _attach(self) -> None:
                pass

        with pytest.raises(RuntimeError, match="did not bind"):
            Lazy().get("k")

    def test_detached_meanwhile(self, twin: Any) -> None:
        """Another thread detaches while this one attaches, more than once."""
        segment = twin.Segment.private(SIZE, 1 << 20)
        attached = []

        class Lazy(twin.Area):  # type: ignore[misc]
            def _attach(self) -> None:
                self._bind(segment, "area", **DEFAULTS)
                attached.append(self)
                if len(attached) < 4:
                    self._unbind()

        assert None is Lazy().get("k")
        assert 4 == len(attached)

    @pytest.mark.parametrize(
        "wrong",
        [
            {"ttl": 0},
            {"ttl": -1},
            {"ttl": float("nan")},
            {"null_ttl": 0},
            {"stale_ttl": -1},
            {"jitter": 1.1},
            {"jitter": -0.1},
            {"jitter": float("nan")},
        ],
    )
    def test_wrong(self, twin: Any, wrong: dict[str, Any]) -> None:
        """What can mean nothing is refused."""
        with pytest.raises(ValueError, match="_bind"):
            make_area(twin, **wrong).get("k")

    @pytest.mark.parametrize("name", ["", "x" * 105])
    def test_area_name(self, twin: Any, name: str) -> None:
        """A name has to fit the table."""
        with pytest.raises(ValueError):  # noqa: PT011  the words differ
            make_area(twin, name=name).get("k")

    def test_areas_apart(self, twin: Any) -> None:
        """Two areas of a segment share no key, two objects of an area share all."""
        one = make_area(twin)
        two = make_area(twin, one.segment)
        other = make_area(twin, one.segment, "other")
        one.set("k", b"v")
        assert (b"v", None) == (two.get("k"), other.get("k"))
        two._clear()
        other.set("k", b"w")
        assert (None, b"w") == (one.get("k"), other.get("k"))

    def test_arguments(self, twin: Any) -> None:
        """Arguments of a subclass's __init__ are no concern of the base."""

        class WithArguments(twin.Area):  # type: ignore[misc]
            def __init__(self, *args: Any, **keywords: Any) -> None:
                self.args = args, keywords

        assert (((1,), {"a": 2})) == WithArguments(1, a=2).args


class TestHits:
    RAW = (b"", b"\0\xff", "", "text", "ü\U0001f600", 0, -(2**63), 2**63 - 1, -0.0, True, False)

    @pytest.mark.parametrize("value", RAW, ids=repr)
    def test_raw(self, area: Any, value: Any) -> None:
        """What goes in comes out, in value and type."""
        put(area, "k", value)
        found = area.get("k")
        assert (repr(value), type(value)) == (repr(found), type(found))
        assert {"k": value} == area.mget(["k"])
        assert "k" in area
        assert [] == area.calls

    def test_null(self, area: Any) -> None:
        """A cached None is a hit."""
        put(area, "k", None)
        assert area.get("k", "default") is None
        assert {"k": None} == area.mget(["k"], "default")
        assert "k" in area
        assert 2 == area._counters()["negative_hit"]

    def test_plain_miss(self, area: Any) -> None:
        """A miss is the default, None if there is none."""
        assert (None, 5, 6) == (area.get("k"), area.get("k", 5), area.get("k", default=6))
        assert {"k": 5} == area.mget(["k"], 5)
        assert "k" not in area
        assert [] == area.calls

    def test_miss_in_python(self, twin: Any) -> None:
        """Without PLAIN_MISS each method has its fall-through, with the arguments as they came."""
        area = make_area(twin, flags=0)
        put(area, "there", b"v")
        assert "missed" == area.get("k", 5)
        assert {"there": b"v", "k": "missed", "l": "missed"} == area.mget(["there", "k", "l", "k"])
        assert "k" in area
        assert [
            ("miss", "k", 5, None, {}),
            ("mmiss", ["k", "l"], {"there": b"v", "k": "missed", "l": "missed"}, None, None, {}),
            ("contains_miss", "k"),
        ] == area.calls

    def test_options(self, area: Any) -> None:
        """With any option Python decides, whether the value is there or not."""
        put(area, "k", b"v")
        options = object()
        assert "missed" == area.get("k", options=options)
        assert "missed" == area.get("k", 5, allow_stale=True)
        assert {"k": "missed"} == area.mget(["k"], disable_load=True)
        assert [
            ("miss", "k", None, options, {}),
            ("miss", "k", 5, None, {"allow_stale": True}),
            ("mmiss", ["k"], {"k": "missed"}, None, None, {"disable_load": True}),
        ] == area.calls

    def test_mget_order(self, area: Any) -> None:
        """The answer has every key once, in the order of the request."""
        for key in (3, 1):
            put(area, key, key)
        assert [(2, None), (1, 1), (3, 3)] == list(area.mget(k for k in (2, 1, 3, 2, 1)).items())
        assert {} == area.mget([])

    @pytest.mark.parametrize("keys", [None, 5])
    def test_mget_of_nothing(self, area: Any, keys: Any) -> None:
        """Something that is not iterable is a TypeError that says so."""
        with pytest.raises(TypeError, match="iterable of keys"):
            area.mget(keys)

    def test_wrong_keys(self, area: Any) -> None:
        """A wrong key is an error from every method, and changes nothing."""
        for key, error in ((1.5, TypeError), ([], TypeError), ("x" * 600, ValueError)):
            for call in (
                area.get,
                lambda key: area.mget([key]),
                lambda key: key in area,
                lambda key: area.set(key, b"v"),
                lambda key: put(area, key, 1),
                area._delete,
                lambda key: area._incr(key, 1, 0, None, 0),
            ):
                with pytest.raises(error):
                    call(key)
        assert 0 == area.segment.stats()["segment"]["entries"]

    def test_keys(self, area: Any) -> None:
        """1, "1", True and b"1" are four keys."""
        keys = [1, "1", True, b"1", None, (1,), ("1",)]
        for number, key in enumerate(keys):
            put(area, key, number)
        assert list(range(len(keys))) == [area.get(key) for key in keys]

    def test_arguments(self, area: Any) -> None:
        """Too many or too few arguments are a TypeError."""
        for args in ((), (1, 2, 3)):
            with pytest.raises(TypeError):
                area.get(*args)
        for args in ((), (1,), (1, 2, 3, 4)):
            with pytest.raises(TypeError):
                area.set(*args)


class TestSet:
    def test_plain(self, area: Any) -> None:
        """Raw types are stored at once."""
        for key, value in {"b": b"v", "s": "v", "i": 7, "f": 1.5, "t": True}.items():
            area.set(key, value)
            assert value == area.get(key)
        assert [] == area.calls
        assert 5 == area._counters()["set"]

    @pytest.mark.parametrize("value", [None, [1], 2**64, bytearray(b"x"), "\ud800", b"x" * 101])
    def test_other_values(self, twin: Any, value: Any) -> None:
        """Everything else, and what is too large, is for Python."""
        area = make_area(twin, max_value_size=100)
        area.set("k", value)
        assert [("set", "k", value, twin.UNSET, {})] == area.calls
        assert "k" not in area

    @pytest.mark.parametrize(
        "ttl", [0, -1, 0.0, float("nan"), float("inf"), "5m", True, 10**30, object()], ids=repr
    )
    def test_other_ttls(self, area: Any, ttl: Any) -> None:
        """A ttl that needs judgement is for Python."""
        area.set("k", b"v", ttl)
        area.set("k", b"v", ttl=ttl)
        assert [("set", "k", b"v", ttl, {})] * 2 == area.calls

    def test_options(self, twin: Any) -> None:
        """So is a call with options, and any call without PLAIN_SET."""
        area = make_area(twin, flags=1)
        area.set("k", b"v", 5, broadcast=True)
        area.set("k", b"v")
        assert [
            ("set", "k", b"v", 5, {"broadcast": True}),
            ("set", "k", b"v", twin.UNSET, {}),
        ] == area.calls

    def test_lives(self, twin: Any) -> None:
        """The area's life unless the call says another one; None is no expiry."""
        area = make_area(twin, ttl=60, stale_ttl=10)
        area.set("configured", b"v")
        area.set("given", b"v", 20)
        area.set("endless", b"v", ttl=None)
        assert pytest.approx(60, abs=0.1) == area._read("configured")[3]
        assert pytest.approx(20, abs=0.1) == area._read("given")[3]
        assert area._read("endless")[3] is None
        area.segment.set_clock_shift(25)
        assert (None, b"v") == (area.get("given"), area._read("given", stale=True)[0])
        area.segment.set_clock_shift(10**6)
        assert (b"v", None) == (area.get("endless"), area._read("configured", stale=True))

    def test_endless_area(self, twin: Any) -> None:
        """An area without expiry."""
        area = make_area(twin, ttl=None)
        area.set("k", b"v")
        assert area._read("k")[3] is None

    def test_jitter(self, twin: Any) -> None:
        """Jitter shortens configured lives by up to its ratio, and given lives never."""
        area = make_area(twin, ttl=100, jitter=0.5)
        for number in range(300):
            area.set(number, b"v")
            area.set(-number - 1, b"v", 100)
        configured = [area._read(number)[3] for number in range(300)]
        given = [area._read(-number - 1)[3] for number in range(300)]
        assert 49 < min(configured) < 60
        assert 90 < max(configured) <= 100.1
        assert 99 < min(given) <= max(given) <= 100.1


class TestLives:
    def test_expiry(self, area: Any) -> None:
        """A value is there until its life is over."""
        put(area, "k", 1, ttl=10)
        area.segment.set_clock_shift(9.5)
        assert 1 == area.get("k")
        area.segment.set_clock_shift(10.5)
        assert area.get("k") is None
        assert "k" not in area
        assert area._read("k", stale=True) is None
        assert not area._delete("k")

    def test_stale(self, area: Any) -> None:
        """After that it is there as stale, for those who ask, until that is over, too."""
        put(area, "k", [1], ttl=10, stale=20)
        area.segment.set_clock_shift(15)
        assert area.get("k") is None
        assert area._read("k") is None
        value, code, age, ttl, is_stale, _ = area._read("k", stale=True)
        assert ([1], MSGPACK, True) == (value, code, is_stale)
        assert (pytest.approx(15, abs=0.1), pytest.approx(-5, abs=0.1)) == (age, ttl)
        area.segment.set_clock_shift(31)
        assert area._read("k", stale=True) is None

    def test_read(self, area: Any) -> None:
        """What is known about a fresh value."""
        put(area, "k", "v", ttl=10, stale=20)
        area.segment.set_clock_shift(4)
        for keywords in ({}, {"stale": True}, {"touch": False}):
            value, code, age, ttl, is_stale, _ = area._read("k", **keywords)
            assert ("v", codec.CODE_STR, False) == (value, code, is_stale)
            assert (pytest.approx(4, abs=0.1), pytest.approx(6, abs=0.1)) == (age, ttl)

    def test_version(self, area: Any) -> None:
        """The version is another one after each write, and stays between."""
        versions = []
        for value in (b"a", b"b", b"b"):
            area.set("k", value)
            versions.append(area._read("k")[5])
            assert versions[-1] == area._read("k")[5]
        assert 3 == len(set(versions))

    def test_expire(self, area: Any) -> None:
        """expire ends the fresh life and keeps the stale copy for its time."""
        put(area, "k", 1, ttl=10, stale=20)
        assert area._expire("k")
        assert (None, 1) == (area.get("k"), area._read("k", stale=True)[0])
        assert not area._expire("k")
        area.segment.set_clock_shift(29)
        assert 1 == area._read("k", stale=True)[0]
        area.segment.set_clock_shift(31)
        assert area._read("k", stale=True) is None

    def test_expire_without_stale(self, area: Any) -> None:
        """Without a stale copy nothing is left."""
        put(area, "k", 1)
        assert area._expire("k")
        assert area._read("k", stale=True) is None
        assert not area._expire("k")
        assert not area._expire("never there")

    def test_touch(self, twin: Any, area: Any) -> None:
        """touch gives a fresh value a new life, and no other."""
        put(area, "k", [1], ttl=10, stale=20)
        assert twin.STORED == area._touch("k", 100, 0)
        area.segment.set_clock_shift(50)
        assert [1] == area.get("k")
        assert pytest.approx(50, abs=0.1) == area._read("k")[2]
        assert twin.STORED == area._touch("k", None, 0)
        area.segment.set_clock_shift(10**6)
        assert [1] == area.get("k")
        assert twin.NOT_STORED == area._touch("absent", 10, 0)
        put(area, "k", [1], ttl=10, stale=20)
        area.segment.set_clock_shift(10**6 + 15)
        assert twin.NOT_STORED == area._touch("k", 10, 0)

    @pytest.mark.parametrize("ttl", [0, -1, float("nan")])
    def test_wrong(self, area: Any, ttl: float) -> None:
        """A life that can mean nothing is refused, and nothing changes."""
        put(area, "k", 1)
        for call in (
            lambda: put(area, "k", 2, ttl=ttl),
            lambda: area._touch("k", ttl, 0),
            lambda: area._incr("k", 1, 0, ttl, 0),
            lambda: put(area, "k", 2, ttl=5, stale=-1),
        ):
            with pytest.raises(ValueError, match="life"):
                call()
        assert 1 == area.get("k")


class TestStore:
    def test_add(self, twin: Any, area: Any) -> None:
        """ADD stores only what is not there fresh."""
        assert twin.STORED == area._store("k", MSGPACK, b"\x01", 10, 20, twin.ADD)
        assert twin.NOT_STORED == area._store("k", MSGPACK, b"\x02", 10, 20, twin.ADD)
        assert 1 == area.get("k")
        area.segment.set_clock_shift(15)
        assert twin.STORED == area._store("k", MSGPACK, b"\x03", 10, 20, mode=twin.ADD)
        assert 3 == area.get("k")

    def test_fill(self, twin: Any, area: Any) -> None:
        """A fill never replaces what somebody stored while it loaded."""
        token = area._token("k")
        put(area, "k", "newer")
        status = area._store("k", MSGPACK, b"\x01", 10, 0, mode=twin.FILL, token=token)
        assert (twin.NOT_STORED, "newer") == (status, area.get("k"))
        assert 1 == area._counters()["store_rejected_race"]

    @pytest.mark.parametrize("forget", ["_delete", "_expire"])
    def test_overtaken(self, twin: Any, area: Any, forget: str) -> None:
        """A fill whose load began before a delete is not stored, there or not there."""
        for present in (False, True):
            if present:
                put(area, "k", 1)
            token = area._token("k")
            getattr(area, forget)("k")
            assert twin.NOT_STORED == area._store("k", MSGPACK, b"\x01", 9, 0, twin.FILL, token)
            assert area.get("k") is None
            token = area._token("k")
            assert twin.STORED == area._store("k", MSGPACK, b"\x01", 9, 0, twin.FILL, token)
            area._delete("k")

    def test_overtaken_by_clear(self, twin: Any, area: Any) -> None:
        """Nor one whose load began before a clear, of the area or of all."""
        for clear in (area._clear, area.segment.clear_all):
            token = area._token("k")
            clear()
            assert twin.NOT_STORED == area._store("k", MSGPACK, b"\x01", 9, 0, twin.FILL, token)

    def test_not_overtaken(self, twin: Any, area: Any) -> None:
        """
        A delete of another key does not overtake.

        Keys share generations in groups, so that once in some thousand times it may cost a fill.
        """
        found = []
        for other in ("x", "y", "z"):
            token = area._token("k")
            area._delete(other)
            found.append(area._store("k", MSGPACK, b"\x01", 9, 0, twin.FILL, token))
            area._delete("k")
        assert twin.STORED in found

    def test_too_large(self, twin: Any, area: Any) -> None:
        """What does not fit takes its older copy with it; a fill leaves that alone."""
        payload = bytes(area.segment.max_item + 1)
        put(area, "k", 1)
        token = area._token("l")
        assert twin.TOO_LARGE == area._store("k", codec.CODE_BYTES, payload, 9, 0)
        assert area.get("k") is None
        status = area._store("l", codec.CODE_BYTES, payload, 9, 0, twin.FILL, token)
        assert twin.TOO_LARGE == status
        assert 2 == area._counters()["store_rejected_size"]

    def test_too_large_fill(self, twin: Any, area: Any) -> None:
        """A fill that does not fit leaves the stale copy alone."""
        put(area, "k", 1, ttl=10, stale=100)
        area.segment.set_clock_shift(15)
        payload = bytes(area.segment.max_item + 1)
        token = area._token("k")
        assert twin.TOO_LARGE == area._store("k", 1, payload, 9, 0, twin.FILL, token)
        assert 1 == area._read("k", stale=True)[0]

    def test_largest(self, twin: Any, area: Any) -> None:
        """What just fits is stored."""
        payload = bytes(area.segment.max_item - 1024)
        assert twin.STORED == area._store("k", codec.CODE_BYTES, payload, 9, 0)
        assert payload == area.get("k")

    @pytest.mark.parametrize(("code", "mode"), [(0, 0), (32, 0), (-1, 0), (8, 3), (8, -1)])
    def test_wrong(self, area: Any, code: int, mode: int) -> None:
        """Codes and modes that do not exist are refused."""
        with pytest.raises(ValueError, match="code or mode"):
            area._store("k", code, b"", None, 0, mode)

    def test_buffers(self, area: Any) -> None:
        """Payloads of every kind are copied."""
        payload = bytearray(b"abc")
        area._store("k", codec.CODE_BYTES, payload, 9, 0)
        payload[0] = 0
        assert b"abc" == area.get("k")

    def test_delete(self, area: Any) -> None:
        """delete tells whether something was there, fresh or stale."""
        put(area, "k", 1, ttl=10, stale=20)
        area.segment.set_clock_shift(15)
        assert area._delete("k")
        assert not area._delete("k")
        assert area._read("k", stale=True) is None
        assert 2 == area._counters()["delete"]

    def test_clear(self, twin: Any, area: Any) -> None:
        """clear forgets the area, and what is stored after it stays."""
        for number in range(100):
            put(area, number, [number])
        area.mget(range(100))
        area._clear()
        assert dict.fromkeys(range(100)) == area.mget(range(100))
        put(area, 1, [2])
        assert [2] == area.get(1)
        assert [] == area.segment.check()

    def test_empty(self, area: Any) -> None:
        """empty drops values and keeps counters."""
        put(area, "k", 1)
        assert 1 == area.get("k")
        area.segment.empty()
        assert area.get("k") is None
        assert (1, 1) == (area._counters()["set"], area._counters()["local_hit"])
        assert 0 == area.segment.stats()["segment"]["entries"]


class TestIncr:
    def test_counts(self, area: Any) -> None:
        """From the initial value when absent, then from what is there."""
        assert (15, 12, 12) == (
            area._incr("n", 5, 10, 60, 0),
            area._incr("n", -3, 10, 60, 0),
            area.get("n"),
        )
        assert area._incr("m", 1, None, 60, 0) is None
        assert "m" not in area

    def test_life(self, area: Any) -> None:
        """A present counter keeps its life, an expired one starts anew."""
        area._incr("n", 1, 0, 10, 0)
        area._incr("n", 1, 0, 1000, 0)
        assert pytest.approx(10, abs=0.1) == area._read("n")[3]
        area.segment.set_clock_shift(11)
        assert 1 == area._incr("n", 1, 0, 10, 0)

    @pytest.mark.parametrize("value", ["1", b"1", 1.0, True, None, [1]])
    def test_wrong_value(self, area: Any, value: Any) -> None:
        """Only an int can be counted up, and nothing changes otherwise."""
        put(area, "n", value)
        with pytest.raises(TypeError, match="no 64-bit int"):
            area._incr("n", 1, 0, 60, 0)
        assert value == area.get("n")

    @pytest.mark.parametrize(("start", "delta"), [(2**63 - 1, 1), (-(2**63), -1)])
    def test_overflow(self, area: Any, start: int, delta: int) -> None:
        """Past 64 bits is an error, and the counter stays as it is."""
        put(area, "n", start)
        with pytest.raises(OverflowError):
            area._incr("n", delta, 0, 60, 0)
        assert start == area.get("n")

    @pytest.mark.parametrize(
        ("error", "delta", "initial"),
        [
            (OverflowError, 2**63, 0),
            (OverflowError, 1, 2**63),
            (TypeError, 1.5, 0),
            (TypeError, "1", 0),
            (TypeError, 1, "0"),
        ],
    )
    def test_wrong_arguments(self, area: Any, error: Any, delta: Any, initial: Any) -> None:
        """So are arguments that are no 64-bit ints."""
        with pytest.raises(error):
            area._incr("n", delta, initial, 60, 0)
        assert "n" not in area


class TestObjects:
    """Which decoded objects are returned again."""

    @pytest.mark.parametrize("value", [(1, "x"), frozenset({1})])
    def test_immutable(self, twin: Any, value: Any) -> None:
        """Immutable ones are, until the key is written, deleted or expired."""
        area = make_area(twin)
        put(area, "k", value)
        first = area.get("k")
        assert first is area.get("k") is area.mget(["k"])["k"]
        put(area, "k", value)
        assert value == area.get("k")
        assert first is not area.get("k")
        area._delete("k")
        assert area.get("k") is None
        put(area, "k", value, ttl=10)
        assert value == area.get("k")
        area.segment.set_clock_shift(11)
        assert area.get("k") is None

    def test_mutable(self, area: Any) -> None:
        """Mutable ones are not: nobody can change another one's value."""
        put(area, "k", [1])
        area.get("k").append(2)
        assert [1] == area.get("k")

    def test_shared(self, twin: Any) -> None:
        """With OBJECTS_SHARED they are, but not to those who did not ask for it."""
        shared = make_area(twin, flags=3 | twin.OBJECTS_SHARED)
        put(shared, "k", [1])
        assert shared.get("k") is shared.get("k")
        plain = make_area(twin, shared.segment)
        assert plain.get("k") is not plain.get("k") is not shared.get("k")

    def test_copies(self, twin: Any) -> None:
        """With OBJECTS_COPY every read decodes."""
        area = make_area(twin, flags=3 | twin.OBJECTS_COPY)
        put(area, "k", (1, 2))
        assert area.get("k") is not area.get("k")

    def test_cleared(self, twin: Any) -> None:
        """A clear through another object of the area counts as well."""
        area = make_area(twin)
        put(area, "k", (1,))
        area.get("k")
        make_area(twin, area.segment)._clear()
        assert area.get("k") is None

    def test_undecodable(self, twin: Any) -> None:
        """What cannot be decoded is a miss that is counted, and dropped."""
        area = make_area(twin)
        type(area)._decode = lambda *_: None
        put(area, "k", [1])
        assert "default" == area.get("k", "default")
        assert "k" not in area
        assert 1 == area._counters()["corrupt_item"]

    def test_damaged_raw(self, area: Any) -> None:
        """So are bytes that are not what their code says."""
        area._store("k", codec.CODE_STR, b"\xff", 9, 0)
        area._store("n", codec.CODE_INT, b"123", 9, 0)
        assert (None, None) == (area.get("k"), area.get("n"))
        assert 2 == area._counters()["corrupt_item"]

    def test_wrong_decoder(self, twin: Any) -> None:
        """A decoder that answers something else is a mistake in the program."""
        area = make_area(twin)
        type(area)._decode = lambda *_: [1, True]
        put(area, "k", [1])
        with pytest.raises(TypeError, match="_decode must answer"):
            area.get("k")

    def test_decoder_raises(self, twin: Any) -> None:
        """What a decoder raises reaches the caller."""
        area = make_area(twin)
        type(area)._decode = lambda *_: 1 / 0
        put(area, "k", [1])
        with pytest.raises(ZeroDivisionError):
            area.get("k")
        with pytest.raises(ZeroDivisionError):
            area.mget(["k"])

    def test_decoder_writes(self, twin: Any) -> None:
        """A decoder may use the cache itself, even change the key that is being read."""
        area = make_area(twin)

        def decode(code: int, payload: bytes) -> Any:
            area.set("k", b"newer")
            return codec.decode(code, payload)

        area._decode = decode
        put(area, "k", (1,))
        assert (1,) == area.get("k")
        assert b"newer" == area.get("k")


class TestOff:
    def test_nothing(self, twin: Any) -> None:
        """With OFF nothing is found and nothing stored, whoever stored it."""
        on = make_area(twin)
        put(on, "k", b"v")
        off = make_area(twin, on.segment, flags=3 | twin.OFF)
        assert off.get("k") is None
        assert {"k": None} == off.mget(["k"])
        assert twin.NOT_STORED == put(off, "l", b"v")
        off.set("m", b"v")
        assert [("set", "m", b"v", twin.UNSET, {})] == off.calls
        assert off._read("k") is None


class TestFresh:
    def test_tables(self, twin: Any) -> None:
        """Memory that nobody uses yet can be looked at: nothing is in it, nobody has counted."""
        found = twin.Segment.private(SIZE, 1 << 20).tables()
        assert ([], {}) == (found["areas"], found["processes"])


class TestCounters:
    def test_hits(self, area: Any) -> None:
        """Hits and misses are counted, key by key."""
        put(area, "k", b"v")
        area.get("k")
        area.get("absent")
        area.mget(["k", "absent", "also absent"])
        counters = area._counters()
        assert (2, 3, 1) == (counters["local_hit"], counters["local_miss"], counters["set"])

    def test_count(self, twin: Any, area: Any) -> None:
        """Python counts what only it knows."""
        number = twin.COUNTERS.index("load_success")
        area._count(number)
        area._count(number, 4)
        assert 5 == area._counters()["load_success"] == _stats(area)["load_success"]
        for wrong in (-1, len(twin.COUNTERS)):
            with pytest.raises(ValueError, match="no such counter"):
                area._count(wrong)

    def test_gauges(self, area: Any) -> None:
        """Entries and bytes are those of what can be read."""
        for number in range(10):
            put(area, number, b"x" * 1000, ttl=10 if number < 4 else 100)
        assert 10 == _stats(area)["entries"]
        assert 10_000 <= _stats(area)["bytes"] <= 20_000
        area._delete(9)
        area.segment.set_clock_shift(11)
        area.segment.measure()
        assert 5 == _stats(area)["entries"] == area.segment.stats()["segment"]["entries"]

    def test_process(self, area: Any) -> None:
        """One process is registered, once."""
        area.get("k")
        (process,) = area.segment.alive()
        assert (os.getpid(), True, True) == (process["pid"], process["alive"], process["self"])
        assert area.segment.incarnation == process["incarnation"] == area.segment.register()
        assert not area.segment.any_alive()
        assert 0 == area.segment.reap(os.getpid())
        area.segment.unregister()
        assert (0, []) == (area.segment.incarnation, area.segment.alive())
        put(area, "k", 1)
        assert 1 == area.get("k")

    def test_hash(self, twin: Any, area: Any) -> None:
        """The hash of a key is the same each time, and another one for each key and area."""
        other = make_area(twin, area.segment, "other")
        hashes = [
            area._hash("k"),
            area._hash("l"),
            area._hash(1),
            area._hash("1"),
            other._hash("k"),
        ]
        assert len(hashes) == len(set(hashes))
        assert hashes[0] == area._hash("k") == twin.key_hash(area.segment, "area", "k")
        assert all(0 <= found < 2**64 for found in hashes)


def _stats(area: Any) -> Any:
    return area.segment.stats()["areas"]["area"]


# --- the two, side by side ---------------------------------------------------------------------

POOL = ["a", "b", 1, (1, "a")]
KEYS = st.sampled_from(POOL)
VALUES = st.sampled_from([None, 1, 5, "text", b"bytes", 2.5, True, (1, 2), [1], {"a": 1}, 2**64])
TTLS = st.sampled_from([None, 5.0, 15.0, 25.0, 95.0])
STALES = st.sampled_from([0.0, 10.0, 40.0])


class SideBySide(RuleBasedStateMachine):
    """Whatever is done to both, both answer the same."""

    @initialize()
    def make(self) -> None:
        native = importlib.import_module("accelerator._native")
        self.twins = [without_neighbours(twin) for twin in (process_local, native)]
        self.tokens: dict[Any, list[Any]] = {}
        self.now = 0.0

    def both(self, call: Callable[[Any], Any]) -> Any:
        answers = [outcome(call, area) for area in self.twins]
        assert answers[0] == answers[1]
        return answers[0]

    @rule(step=st.sampled_from([10, 20, 50]))
    def wait(self, step: float) -> None:
        self.now += step
        for area in self.twins:
            area.segment.set_clock_shift(self.now)

    @rule(key=KEYS, value=st.sampled_from([1, "text", b"bytes", 2.5, True]))
    def set(self, key: Any, value: Any) -> None:
        self.both(lambda area: area.set(key, value))

    @rule(key=KEYS, value=VALUES, ttl=TTLS, stale=STALES, mode=st.integers(0, 2))
    def store(self, key: Any, value: Any, ttl: float, stale: float, mode: int) -> None:
        encoded = codec.encode(value)
        self.both(lambda area: area._store(key, *encoded, ttl, stale, mode))

    @rule(key=KEYS)
    def begin_load(self, key: Any) -> None:
        self.tokens[key] = [area._token(key) for area in self.twins]

    @rule(key=KEYS, value=VALUES)
    def fill(self, key: Any, value: Any) -> None:
        tokens = self.tokens.pop(key, None)
        if tokens is not None:
            found = [
                area._store(key, *codec.encode(value), 15, 40, 2, token)
                for area, token in zip(self.twins, tokens, strict=True)
            ]
            assert found[0] == found[1]

    @rule(key=KEYS)
    def delete(self, key: Any) -> None:
        self.both(lambda area: area._delete(key))

    @rule(key=KEYS)
    def expire(self, key: Any) -> None:
        self.both(lambda area: area._expire(key))

    @rule(key=KEYS, ttl=TTLS, stale=STALES)
    def touch(self, key: Any, ttl: float, stale: float) -> None:
        self.both(lambda area: area._touch(key, ttl, stale))

    @rule(
        key=KEYS,
        delta=st.sampled_from([1, -7, 2**62, -(2**63), 2**63]),
        initial=st.sampled_from([None, 0, 2**62]),
        ttl=TTLS,
        stale=STALES,
    )
    def incr(self, key: Any, delta: int, initial: Any, ttl: float, stale: float) -> None:
        self.both(lambda area: area._incr(key, delta, initial, ttl, stale))

    @rule()
    def clear(self) -> None:
        self.both(lambda area: area._clear())

    @rule()
    def empty(self) -> None:
        self.both(lambda area: area.segment.empty())

    @rule(keys=st.lists(KEYS, max_size=5))
    def mget(self, keys: list[Any]) -> None:
        self.both(lambda area: list(area.mget(keys, "default").items()))

    @invariant()
    def same_content(self) -> None:
        for key in POOL:
            self.both(lambda area, key=key: (area.get(key, "default"), key in area))
            for stale in (False, True):
                self.both(lambda area, key=key, stale=stale: described(area, key, stale=stale))
        assert [[], []] == [area.segment.check() for area in self.twins]

    def teardown(self) -> None:
        counted = ("local_hit", "local_miss", "negative_hit", "set", "delete", "corrupt_item")
        sums = [{name: area._counters()[name] for name in counted} for area in self.twins]
        assert sums[0] == sums[1]
        for area in self.twins:
            area.segment.unregister()


def without_neighbours(twin: Any) -> Any:
    """
    An area in which no two of the keys share a generation.

    Keys that do (once in thousands of times) are told apart in different ways, all of them right.
    """
    for attempt in itertools.count():
        segment = twin.Segment.private(SIZE, 1 << 20)
        for number in range(attempt):  # another number of the area gives other hashes
            make_area(twin, segment, f"other {number}").get("k")
        area = make_area(twin, segment, stale_ttl=10, ttl=35)
        shared = [shares_generation(area, *pair) for pair in itertools.permutations(POOL, 2)]
        if not any(shared):
            return area
    raise AssertionError("unreachable")


def shares_generation(area: Any, key: Any, other: Any) -> bool:
    before = area._token(key)
    area._delete(other)
    return bool(before != area._token(key))


def described(area: Any, key: Any, *, stale: bool) -> Any:
    found = area._read(key, touch=False, stale=stale)
    if found is None:
        return None
    value, code, age, ttl, is_stale, _ = found
    # The native clock moves in steps of some milliseconds; lives here differ by seconds.
    return value, code, round(age / 5), None if ttl is None else round(ttl / 5), is_stale


def outcome(call: Callable[[Any], Any], area: Any) -> Any:
    try:
        return call(area)
    except (TypeError, ValueError, OverflowError) as error:
        return type(error)


class TestSideBySide:
    def test_same(self) -> None:
        """The twin and the native part cannot be told apart by what they answer."""
        pytest.importorskip("accelerator._native", reason="installed without the native part")
        SideBySide.TestCase.settings = settings(settings.default, stateful_step_count=40)
        SideBySide.TestCase("runTest").runTest()


# --- what only the twin has to prove -----------------------------------------------------------


@pytest.fixture
def memory() -> ProcessLocalSegment:
    return ProcessLocalSegment(process_local.MIN_SIZE, 1 << 20)


class TestEviction:
    def test_bounded(self, memory: ProcessLocalSegment) -> None:
        """Whatever is stored, no more bytes are used than there are; and most are used."""
        area = make_area(process_local, memory)
        rng = random.Random(5)
        for number in range(5_000):
            assert process_local.STORED == put(area, number, rng.randbytes(rng.randrange(20_000)))
            summary = memory.stats()["segment"] if number % 250 == 0 else None
            if summary and number:
                assert 0.8 * memory.size < summary["used_bytes"] <= memory.size
        assert [] == memory.check()
        assert area._counters()["evictions"] > 4_000

    def test_overhead(self) -> None:
        """What is counted for an item is what Python really takes for it."""
        segment = ProcessLocalSegment(64 << 20, 1 << 20)
        area = make_area(process_local, segment)
        area.set("first", b"x")
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            for number in range(20_000):
                area.set(f"key {number:8}", number.to_bytes(20, "big"))
                area.get(f"key {number:8}")
            taken = tracemalloc.get_traced_memory()[0] - before
        finally:
            tracemalloc.stop()
        assert 0.6 < taken / segment.stats()["segment"]["used_bytes"] < 1.05
        assert items.OVERHEAD > 0

    def test_scan(self, memory: ProcessLocalSegment) -> None:
        """Keys that are asked for survive any number of keys that are not."""
        area = make_area(process_local, memory)
        hot = [f"hot {number}" for number in range(100)]
        for key in hot:
            put(area, key, bytes(1000))
        for number in range(20_000):
            put(area, number, bytes(1000))
            area.get(hot[number % 100])
        assert 99 <= sum(key in area for key in hot)

    def test_asked_for_once(self, memory: ProcessLocalSegment) -> None:
        """A new key that is asked for stays, also where everything is full already."""
        area = make_area(process_local, memory)
        for number in range(3_000):
            put(area, number, bytes(1000))
        put(area, "asked for", bytes(1000))
        put(area, "not asked for", bytes(1000))
        area.get("asked for")
        for number in range(10_000, 10_300):
            put(area, number, bytes(1000))
        assert "asked for" in area
        assert "not asked for" not in area

    def test_returning(self, memory: ProcessLocalSegment) -> None:
        """A key that returns after it was evicted is kept longer than a new one."""
        area = make_area(process_local, memory)
        for number in range(3_000):
            put(area, number, bytes(1000))
        evicted = next(number for number in range(2_000, 3_000) if number not in area)
        put(area, evicted, bytes(1000))
        for number in range(10_000, 10_000 + 3 * 130):  # three times what small holds
            put(area, number, bytes(1000))
        assert evicted in area
        assert 10_000 not in area

    def test_expired_first(self, memory: ProcessLocalSegment) -> None:
        """What is over goes before what is not, and is counted apart."""
        area = make_area(process_local, memory)
        for number in range(500):
            put(area, number, bytes(1000), ttl=10)
        area.segment.set_clock_shift(11)
        for number in range(1000, 1500):
            put(area, number, bytes(1000))
        area.segment.measure()
        counters = area._counters()
        assert (0, 500) == (counters["evictions"], counters["expired"])
        assert 500 == sum(number in area for number in range(1000, 1500))

    def test_rewrites(self, memory: ProcessLocalSegment) -> None:
        """A key that is rewritten all the time pushes nobody out."""
        area = make_area(process_local, memory)
        for number in range(500):
            put(area, number, bytes(1000))
        for size in range(20_000):
            put(area, "hot", bytes(size % 3000))
        assert 500 == sum(number in area for number in range(500))
        assert 0 == area._counters()["evictions"]

    def test_all_asked_for(self, memory: ProcessLocalSegment) -> None:
        """Where everything is asked for all the time, a write still finds room."""
        area = make_area(process_local, memory)
        for number in range(1_500):
            assert process_local.STORED == put(area, number, bytes(1000))
            if number > 1_200:
                area.mget(range(number))
                assert number in area
        assert [] == memory.check()
        assert area._counters()["evictions"] > 100

    def test_bounded_work(self, memory: ProcessLocalSegment) -> None:
        """However many items were asked for, a write looks at a few of them only."""
        area = make_area(process_local, memory)
        for number in range(1_200):
            put(area, number, bytes(1000))
        for _ in range(3):
            area.mget(range(1_200))
        marks = memory._queues._marks
        assert {3} == set(marks.values())
        for number in range(10_000, 10_300):
            put(area, number, bytes(1000))
            area.get(number)
            if area._counters()["evictions"]:
                break
        assert 1 == area._counters()["evictions"]
        assert 0 < sum(marks.get((0, process_local.encode_key(n))) == 2 for n in range(1_200)) <= 32

    def test_sizes(self) -> None:
        """A size that makes no sense is refused."""
        for size in (0, process_local.MIN_SIZE - 1, process_local.MAX_SIZE + 1):
            with pytest.raises(ValueError, match="size must be"):
                ProcessLocalSegment(size, 1 << 20)

    def test_object_memory(self, memory: ProcessLocalSegment) -> None:
        """Kept objects are bounded by the bytes they were decoded from."""
        area = make_area(process_local, memory, object_cache_bytes=10_000)
        for number in range(100):
            put(area, number, (b"x" * 1000,))
            area.get(number)
        kept = [area.get(number) is area.get(number) for number in range(100)]
        state = memory.area("area")
        assert all(kept)
        assert len(state.immutable._kept) <= 10
        put(area, "large", (b"x" * 20_000,))
        assert area.get("large") is not area.get("large")

    def test_object_of_another_item(self, memory: ProcessLocalSegment) -> None:
        """An object is that of one item, and of no other one of the key."""
        area = make_area(process_local, memory)
        put(area, "k", (1,))
        state, key = memory.area("area"), process_local.encode_key("k")
        found = memory.find(state, key, mark=False, stale=False)
        put(area, "k", (2,))
        found_later = memory.find(state, key, mark=False, stale=False)
        assert found is not None
        assert found_later is not None
        (first, _), (second, _) = found, found_later
        memory.keep_object(first, (1,), 1_000, shared=False)  # a reader that was overtaken
        assert memory.find_object(first, shared=False) is None
        memory.keep_object(second, (2,), 1_000, shared=False)
        assert memory.find_object(first, shared=False) is None
        assert (second, (2,)) == memory.find_object(second, shared=False)

    def test_object_of_deleted(self, memory: ProcessLocalSegment) -> None:
        """The object of a key that is gone is free at once."""

        class Value:
            pass

        area = make_area(process_local, memory)
        area._decode = lambda *_: (Value(), True)
        for forget in (area._delete, area._expire, lambda _: area._clear()):
            put(area, "k", [1])
            assert area.get("k") is area.get("k")
            forget("k")
            gc.collect()
            assert not [each for each in gc.get_objects() if type(each) is Value]


class TestThreads:
    def test_storm(self, memory: ProcessLocalSegment) -> None:
        """Threads that do everything at the same time read nothing torn and leave it sound."""
        area = make_area(process_local, memory)
        stop = time.monotonic() + 1.5
        wrong: list[Any] = []

        def work(seed: int) -> None:
            rng = random.Random(seed)
            with noting(wrong):
                while time.monotonic() < stop:
                    key = rng.randrange(300)
                    what = rng.randrange(10)
                    if what < 4:
                        found = area.get(key)
                        assert found is None or found[0] == key == found[2]
                    elif what < 7:
                        put(area, key, (key, "x" * rng.randrange(20_000), key))
                    elif what == 7:
                        area._delete(key)
                    elif what == 8:
                        area._store(key, *codec.encode((key, "", key)), 9, 0, 2, area._token(key))
                    else:
                        area._touch(key, 5, 5)
                    area._incr("n", 1, 0, None, 0)

        run_threads([lambda seed=seed: work(seed) for seed in range(6)])
        assert [] == wrong
        assert [] == memory.check()

    def test_counters(self, memory: ProcessLocalSegment) -> None:
        """No increment and no count is lost."""
        area = make_area(process_local, memory)

        def work() -> None:
            for _ in range(500):
                area._incr("n", 1, 0, None, 0)
                area.get("n")

        run_threads([work] * 8)
        assert (4_000, 4_000) == (area.get("n"), area._counters()["local_hit"] - 1)

    def test_add(self, memory: ProcessLocalSegment) -> None:
        """Of many that add a key at once, one succeeds."""
        area = make_area(process_local, memory)
        won: list[Any] = []

        def work() -> None:
            for key in range(200):
                if area._store(key, codec.CODE_TRUE, b"", None, 0, process_local.ADD) == 0:
                    won.append(key)  # noqa: PERF401  at once, not at the end

        run_threads([work] * 6)
        assert list(range(200)) == sorted(won)


def run_threads(works: list[Callable[[], None]]) -> None:
    threads = [threading.Thread(target=work) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@contextlib.contextmanager
def noting(wrong: list[Any]) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        wrong.append(error)
        raise


class TestReentry:
    def test_signal(self, memory: ProcessLocalSegment) -> None:
        """A signal handler that uses the cache, whatever was under way, does not hang."""
        area = make_area(process_local, memory)
        calls = []

        def handler(*_: Any) -> None:
            put(area, "signal", bytes(1000))
            area._delete(len(calls))
            calls.append(area.get("signal"))

        former = signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
        try:
            stop = time.monotonic() + 1
            number = 0
            while time.monotonic() < stop:
                number += 1
                put(area, number % 3_000, bytes(1000))
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, former)
        assert len(calls) > 50
        assert memory.stats()["segment"]["used_bytes"] < 1.05 * memory.size

    def test_finaliser(self, memory: ProcessLocalSegment) -> None:
        """So does a finaliser, which may run at any allocation."""
        area = make_area(process_local, memory)
        finalised = []

        class Cycle:
            def __init__(self) -> None:
                self.me = self

            def __del__(self) -> None:
                finalised.append(area._delete("k"))

        thresholds = gc.get_threshold()
        gc.set_threshold(1)
        try:
            for number in range(300):
                Cycle()
                put(area, number, (number,))
                area.get(number)
        finally:
            gc.set_threshold(*thresholds)
        assert len(finalised) > 100
        assert [] == memory.check()


class TestNearEnd:
    @pytest.fixture
    def near(self, twin: Any) -> Any:
        """An area that notes for which keys it is told that they are near their end."""
        area = make_area(twin, refresh_window=10.0)
        area.near = []
        type(area)._near_end = lambda self, key: self.near.append(key)
        return area

    def test_window(self, near: Any) -> None:
        """A hit with less than the window left tells so, each time; one with more does not."""
        put(near, "k", (1,))
        assert ((1,), []) == (near.get("k"), near.near)
        near.segment.set_clock_shift(51)
        assert (1,) == near.get("k") == near.get("k")
        assert ["k", "k"] == near.near

    def test_quiet(self, near: Any) -> None:
        """What has no end, what is missed and what is not a plain get() is not told."""
        put(near, "k", 1, None)
        put(near, "short", 1, 5)
        assert 1 == near.get("k")
        near.get("absent")
        near.mget(["short"])
        assert "short" in near
        near.get("short", options=object())
        assert [] == near.near

    def test_off(self, twin: Any) -> None:
        """Without a window nobody has to listen."""
        area = make_area(twin)
        put(area, "k", 1, 1)
        assert 1 == area.get("k")
        with pytest.raises(ValueError, match="refresh_window"):
            make_area(twin, refresh_window=-1.0).get("k")

    def test_raises(self, near: Any) -> None:
        """An Exception is dropped and the hit stands; what must not be caught goes on."""

        def fail(error: BaseException) -> Callable[..., None]:
            def near_end(*_: Any) -> None:
                raise error

            return near_end

        put(near, "k", 1, 5)
        type(near)._near_end = fail(RuntimeError())
        assert 1 == near.get("k")
        type(near)._near_end = fail(KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            near.get("k")


class TestFlights:
    """What a flight promises is in the conformance tests; here is what only the twin can show."""

    def test_off(self) -> None:
        """An area that is off stores nothing, and who joined gets the value."""
        area = make_area(process_local, flags=process_local.OFF)
        leader, joined = area._enter("k", 30), area._enter("k", 30)
        assert process_local.NOT_STORED == leader.finish(*codec.encode(1), 60, 0)
        assert (1,) == joined.take()

    def test_handed_memory(self) -> None:
        """A value that is handed over lives as long as somebody waits."""
        area = make_area(process_local)
        leader = area._enter("k", 30)
        leader.hand(codec.CODE_BYTES, b"x")
        assert leader._seat.record.handed is None
        leader = area._enter("k", 30)
        first, second = area._enter("k", 30), area._enter("k", 30)
        leader.hand(codec.CODE_BYTES, b"x")
        first.leave()
        assert (b"x",) == second.take()
        record = second._seat.record
        del second
        gc.collect()
        assert record.handed is None

    def test_without_record(self) -> None:
        """Loads alone that have no room for a record count, and store nothing."""
        area = make_area(process_local)
        flights = [area._enter(number, 30) for number in range(RECORDS_MAX)]
        alone = area._enter_alone("k", 30, 1)
        assert (True, False) == (alone.alone, alone.recorded)
        assert area._enter_alone("other", 30, 1) is None
        assert process_local.NOT_STORED == alone.finish(*codec.encode(1), 60, 0)
        assert area._enter_alone("other", 30, 1) is not None
        assert RECORDS_MAX == len(area.segment.flights())
        flights.clear()

    def test_pauses_bounded(self) -> None:
        """Notes of failed loads do not pile up."""
        area = make_area(process_local)
        for number in range(3000):
            area._pause(number, 60)
        assert area._pausing(2999)
        assert not area._pausing(0)
        assert len(area.segment.area("area").pauses) <= 1024

    @pytest.mark.watchdog(60)
    @pytest.mark.parametrize("end", ["finish", "fail", "forget"])
    def test_interrupted(self, end: str) -> None:
        """An exception at any instruction of a leader's path leaves no flight behind."""
        area = make_area(process_local)
        area.get("attach")

        def load(joined: list[Any]) -> None:
            with area._enter("k", 30) as leader:
                joined.append(area._enter("k", 30))
                if end == "finish":
                    leader.finish(process_local.CODE_BYTES, b"v", 60, 0)
                elif end == "fail":
                    leader.fail()

        for number in itertools.count():
            joined: list[Any] = []
            interrupted = interrupt(number, lambda joined=joined: load(joined))
            assert [] == area.segment.flights()
            assert [] == area.segment.table.check()
            assert [process_local.WAIT_ENDED] * len(joined) == [f.wait(1) for f in joined]
            joined.clear()
            area._delete("k")
            if not interrupted:
                break
        assert number > 100


def in_finaliser(frame: Any) -> bool:
    while frame is not None:
        if frame.f_code.co_name in {"__del__", "gc_callback"}:
            return True
        frame = frame.f_back
    return False


def interrupt(number: int, work: Callable[[], None]) -> bool:
    """Do *work*, raise KeyboardInterrupt before its *number*th instruction; whether it came."""
    left = number

    def trace(frame: Any, event: str, _: Any) -> Any:
        nonlocal left
        if in_finaliser(frame):
            return None  # what is raised there (and in what pytest's plug-ins hook up) is dropped
        frame.f_trace_opcodes = True
        if event == "opcode":
            left -= 1
            if left < 0:
                sys.settrace(None)
                raise KeyboardInterrupt
        return trace

    former = sys.gettrace()
    try:
        sys.settrace(trace)
        work()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(former)
    return False


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork() here")
class TestFork:
    def test_own_copy(self, memory: ProcessLocalSegment) -> None:
        """The child starts with what the parent had, and neither sees the other's writes."""
        area = make_area(process_local, memory)
        put(area, "k", (1,))
        before = area.get("k"), area.segment.incarnation

        def child() -> Any:
            found = area.get("k")
            put(area, "k", 2)
            return found, area.get("k"), area.segment.incarnation, area.segment.alive()[0]["pid"]

        found, changed, incarnation, pid = in_child(child)
        assert ((1,), 2) == (found, changed)
        assert incarnation > before[1]
        assert os.getpid() != pid
        assert ((1,), before[1]) == (area.get("k"), area.segment.incarnation)

    @pytest.mark.watchdog(30)
    def test_lock_held(self, memory: ProcessLocalSegment) -> None:
        """A lock that another thread held when the process forked does not stop the child."""
        area = make_area(process_local, memory)
        put(area, "k", 1)
        held, done = threading.Event(), threading.Event()

        def hold() -> None:
            with memory.lock():
                memory._queues.small.used += 12_345  # as in the middle of a change
                held.set()
                done.wait()
                memory._queues.small.used -= 12_345

        holder = threading.Thread(target=hold)
        holder.start()
        held.wait()
        try:
            found = in_child(
                lambda: (
                    area.get("k"),
                    area._incr("k", 1, 0, None, 0),
                    memory.check(),
                    len(memory._locks),
                )
            )
            assert (1, 2, [], 1) == found
        finally:
            done.set()
            holder.join()

    @pytest.mark.watchdog(60)
    def test_in_the_middle(self, memory: ProcessLocalSegment) -> None:
        """A fork in the middle of another thread's writes leaves the child something sound."""
        area = make_area(process_local, memory)
        stop = threading.Event()

        def write() -> None:
            rng = random.Random(5)
            while not stop.is_set():
                put(area, rng.randrange(3_000), bytes(rng.randrange(3_000)))
                area.get(rng.randrange(3_000))

        writer = threading.Thread(target=write)
        writer.start()

        def child() -> Any:
            for number in range(200):
                put(area, number, bytes(1_000))
            return memory.check(), sum(number in area for number in range(200))

        try:
            for _ in range(15):
                problems, there = in_child(child)
                assert [] == problems
                assert there > 50
        finally:
            stop.set()
            writer.join()


def in_child(work: Callable[[], Any]) -> Any:
    """Run *work* in a forked child; what it returns."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.close(read)
            os.write(write, pickle.dumps(work()))
            status = 0
        finally:
            os._exit(status)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        answer = pipe.read()
    assert 0 == os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return pickle.loads(answer)


class TestSignatures:
    @pytest.mark.parametrize("name", ["get", "mget", "set"])
    def test_documented(self, name: str) -> None:
        """The hit methods tell what they take."""
        signature = inspect.signature(getattr(ProcessLocalArea, name))
        first = list(signature.parameters.values())[1]
        assert inspect.Parameter.POSITIONAL_ONLY is first.kind


class TestTagTable:
    def table(self) -> TagTable:
        return TagTable(b"key")

    def test_neighbours(self) -> None:
        """A tag is only hurt by neighbours if both its slots are raised."""
        table = self.table()
        table.raise_all([(1, 3)], expire=False)
        assert table.deleted([(1, 2)]) == 0
        table.raise_all([(2, 4)], expire=True)
        assert table.changed([(1, 2)]) == 0
        table.raise_all([(2, 4)], expire=False)
        assert table.deleted([(1, 2)]) == 1  # the lesser: never less than the truth

    def test_slots(self) -> None:
        """A tag has two slots, others in another area, the same each time."""
        table = self.table()
        for n in range(1000):
            first, second = table.slots(0, b"%d" % n)
            assert first != second
            assert (first, second) == table.slots(0, b"%d" % n)
            assert (first, second) != table.slots(1, b"%d" % n)

    def test_check(self) -> None:
        """A count that was not given out is found."""
        table = self.table()
        table.raise_all([(1, 2)], expire=False)
        assert table.check() == []
        table.clock = 0
        assert len(table.check()) == 1
