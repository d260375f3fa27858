"""Versions of an area: values of two releases side by side, and what is said of one said of all."""

import itertools
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from accelerator import codec
from accelerator.codec import fingerprint_of
from accelerator.keys import encode
from accelerator.process_local import (
    ADD,
    FILL,
    LOCK,
    NOT_STORED,
    NOTE_FORGET,
    NOTE_SET,
    OBJECTS_SHARED,
    STORED,
    TOO_LARGE,
)

LONG = 10.0
"""Seconds that only a broken lock lets a test wait."""

VERSIONS_KEPT = 4
"""Of how many an expire keeps the stale copies."""


@pytest.fixture
def segment(memory: Any) -> Any:
    memory.segment.register()
    return memory.segment


@pytest.fixture
def old(make: Callable[..., Any]) -> Any:
    """Give the area as the release before uses it."""
    return bound(make(version="1", stale_ttl=60.0))


@pytest.fixture
def new(make: Callable[..., Any]) -> Any:
    """Give the same area as this release uses it."""
    return bound(make(version="2", stale_ttl=60.0))


def bound(cache: Any) -> Any:
    """Bind a cache to its memory, which is when its version becomes known there."""
    cache._counters()
    return cache


def fill(cache: Any, key: Any, value: Any, *, stale: float = 0.0) -> None:
    """Store as a load does: other versions are not concerned."""
    token = cache._token(key)
    assert STORED == cache._store(key, *codec.encode(value), 60.0, stale, FILL, token)


def fill_both(old: Any, new: Any, key: Any = "key", *, stale: float = 0.0) -> None:
    fill(old, key, "old", stale=stale)
    fill(new, key, "new", stale=stale)
    assert ("old", "new") == (old.get(key), new.get(key))


def stale_copy(cache: Any, key: Any = "key") -> Any:
    """Give what is left behind an expire, None: nothing."""
    found = cache._read(key, stale=True)
    assert found is None or found[4]
    return None if found is None else found[0]


class TestApart:
    def test_fingerprint(self) -> None:
        """It is 0 without a version and as it ever was: segments and Redis hold it."""
        assert 0 == fingerprint_of(None)
        assert 0x245BDA1B == fingerprint_of("1")

    def test_values(self, old: Any, new: Any) -> None:
        """Each reads its own value and no other's."""
        fill(old, "key", "old")
        assert new.get("key") is None
        assert "key" not in new
        assert new.peek("key") is None
        assert {"key": None} == new.mget(["key"])
        fill(new, "key", "new")
        assert ("old", "new") == (old.get("key"), new.get("key"))

    def test_plain(self, make: Callable[..., Any], new: Any) -> None:
        """An area without a version is one more."""
        plain = bound(make())
        fill(plain, "key", "plain")
        assert new.get("key") is None
        fill(new, "key", "new")
        assert ("plain", "new") == (plain.get("key"), new.get("key"))
        plain.delete("key")
        assert new.get("key") is None

    def test_same(self, make: Callable[..., Any], new: Any) -> None:
        """Two caches of one version have the same values."""
        new.set("key", "value")
        assert "value" == make(version="2").get("key")

    def test_objects(self, old: Any, new: Any) -> None:
        """Decoded objects are those of one version."""
        for cache, value in ((old, ("old",)), (new, ("new",))):
            fill(cache, "key", value)
        for cache, value in ((old, ("old",)), (new, ("new",))) * 2:
            assert value == cache.get("key")

    def test_bound_at_once(self, make: Callable[..., Any], segment: Any) -> None:
        """Threads that bind one version at the same time get the same one."""
        caches = [make(version="9") for _ in range(8)]
        start = threading.Barrier(len(caches))

        def work(cache: Any) -> None:
            start.wait(LONG)
            cache._counters()

        threads = [threading.Thread(target=work, args=(cache,)) for cache in caches]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(LONG)
        caches[0].set("key", "value")
        assert ["value"] * len(caches) == [cache.get("key") for cache in caches]
        assert 1 == segment.stats()["areas"]["area"]["entries"]

    def test_variant_wrong(self, make: Callable[..., Any], segment: Any) -> None:
        """The fingerprint has 32 bits."""
        cache = make()
        more = {"ttl": None, "null_ttl": None, "stale_ttl": 0.0, "jitter": 0.0}
        more |= {"max_value_size": 1, "object_cache_bytes": 0, "flags": 0}
        for wrong in (-1, 1 << 32):
            with pytest.raises(ValueError, match="32 bits"):
                cache._bind(segment, "area", **more, variant=wrong)
        cache._bind(segment, "area", **more, variant=(1 << 32) - 1)


class TestDelete:
    def test_delete(self, old: Any, new: Any) -> None:
        """A delete is one of all versions, also of objects that are kept."""
        for value in ("text", ("kept", "object")):
            fill(old, "key", value)
            fill(new, "key", value)
            assert (value, value) == (old.get("key"), new.get("key"))
            assert old._delete("key") is True
            assert (None, None) == (old.get("key"), new.get("key"))
            assert old._delete("key") is False

    def test_delete_other(self, old: Any, new: Any) -> None:
        """What only another version has was there too."""
        fill(old, "key", "old")
        assert new._delete("key") is True
        assert old.get("key") is None

    def test_delete_in_place(self, make: Callable[..., Any]) -> None:
        """So is one of a value that was rewritten where it lies while there was one version."""
        old = make(version="1")
        for n in range(5):
            old.set("key", f"value {n}")
        new = bound(make(version="2"))
        assert "value 4" == old.get("key")
        new.delete("key")
        assert old.get("key") is None

    def test_clear(self, old: Any, new: Any) -> None:
        """A clear forgets all versions."""
        fill_both(old, new)
        old.clear()
        assert (None, None) == (old.get("key"), new.get("key"))

    def test_more(self, make: Callable[..., Any]) -> None:
        """All of many versions lose the key."""
        caches = [bound(make(version=str(n))) for n in range(9)]
        for n, cache in enumerate(caches):
            fill(cache, "key", n)
        assert list(range(9)) == [cache.get("key") for cache in caches]
        caches[3].delete("key")
        assert [None] * 9 == [cache.get("key") for cache in caches]

    def test_neighbours(self, old: Any, new: Any) -> None:
        """Other keys, and the same key of another area, stay."""
        for key in range(100):
            fill(old, key, key)
            fill(new, key, key)
        new.delete(50)
        left = [key for key in range(100) if old.get(key) == new.get(key) == key]
        assert [*range(50), *range(51, 100)] == left


class TestExpire:
    def test_expire(self, old: Any, new: Any) -> None:
        """It ends the fresh life of all, and each keeps its own stale copy."""
        fill_both(old, new, stale=60.0)
        assert old._expire("key") is True
        assert (None, None) == (old.get("key"), new.get("key"))
        assert ("old", "new") == (stale_copy(old), stale_copy(new))
        assert new._expire("key") is False
        assert ("old", "new") == (stale_copy(old), stale_copy(new))

    def test_expire_other(self, old: Any, new: Any) -> None:
        """What only another version has counts, too."""
        fill(old, "key", "old", stale=60.0)
        assert new._expire("key") is True
        assert ("old", None) == (stale_copy(old), stale_copy(new))

    def test_without_stale(self, old: Any, new: Any) -> None:
        """A value without a stale life goes, beside one that has one."""
        fill(old, "key", "old")
        fill(new, "key", "new", stale=60.0)
        assert old._expire("key") is True
        assert (None, "new") == (stale_copy(old), stale_copy(new))

    def test_most(self, make: Callable[..., Any]) -> None:
        """Of more than four versions four keep their copies, the caller's among them."""
        caches = [bound(make(version=str(n))) for n in range(7)]
        for n, cache in enumerate(caches):
            fill(cache, "key", n, stale=60.0)
        assert caches[6]._expire("key") is True
        assert [None] * 7 == [cache.get("key") for cache in caches]
        kept = [copy for copy in map(stale_copy, caches) if copy is not None]
        assert VERSIONS_KEPT == len(kept)
        assert 6 in kept


WRITES = {
    "set": lambda cache: cache.set("key", "new"),
    "set object": lambda cache: cache.set("key", ("new",)),
    "add": lambda cache: cache.add("key", "new"),
    "touch": lambda cache: cache.touch("key", 30.0),
    "incr": lambda cache: cache.incr("key"),
}


class TestWrites:
    @pytest.mark.parametrize("write", ["set", "set object", "add", "incr"])
    def test_new(self, old: Any, new: Any, write: str) -> None:
        """The other's copy is older than an explicit write."""
        fill(old, "key", "old")
        assert "old" == old.get("key")
        WRITES[write](new)
        assert old.get("key") is None
        assert "key" in new

    @pytest.mark.parametrize("write", ["set", "set object", "touch", "incr"])
    def test_again(self, old: Any, new: Any, write: str) -> None:
        """Also where the one who writes has a value, however often."""
        wanted = {"set": "new", "set object": ("new",), "touch": 3, "incr": 4}
        for _ in range(4):
            new.set("key", 3)
            fill(old, "key", "old")
            assert (3, "old") == (new.get("key"), old.get("key"))
            WRITES[write](new)
            assert old.get("key") is None
            assert wanted[write] == new.get("key")

    def test_touch_life(self, old: Any, new: Any) -> None:
        """A touch keeps value and gives the life it says."""
        fill_both(old, new)
        assert new.touch("key", 500.0)
        assert "new" == new.get("key")
        assert 490 < new.get_entry("key").ttl <= 500

    def test_not_added(self, old: Any, new: Any) -> None:
        """An add that finds a value changes nothing."""
        fill_both(old, new)
        assert NOT_STORED == new._store("key", *codec.encode("x"), 60.0, 0.0, ADD)
        assert ("old", "new") == (old.get("key"), new.get("key"))

    def test_added_beside(self, old: Any, new: Any) -> None:
        """Another version's value is none for an add."""
        fill(old, "key", "old")
        assert new.add("key", "new") is True
        assert (None, "new") == (old.get("key"), new.get("key"))

    def test_not_touched(self, old: Any, new: Any) -> None:
        """A touch or incr of what only the other has changes nothing."""
        fill(old, "key", 7)
        assert new.touch("key", 30.0) is False
        assert new._incr("key", 1, None, None, 0.0) is None
        assert 7 == old.get("key")

    def test_wrong_incr(self, old: Any, new: Any) -> None:
        """One that fails changes nothing either."""
        fill_both(old, new)
        with pytest.raises(TypeError):
            new._incr("key", 1, 0, None, 0.0)
        assert ("old", "new") == (old.get("key"), new.get("key"))

    def test_counting(self, old: Any, new: Any) -> None:
        """An int counts on, whichever other version comes between."""
        for n in range(5):
            assert n + 1 == new._incr("key", 1, 0, None, 0.0)
            assert old.get("key") is None

    def test_too_large(self, old: Any, new: Any, segment: Any) -> None:
        """A set that does not fit deletes all; an add that does not fit deletes nothing."""
        large = b"x" * (segment.max_item + 1)
        fill_both(old, new)
        assert NOT_STORED == new._store("key", codec.CODE_BYTES, large, 60.0, 0.0, ADD)
        new._delete("key")
        fill(old, "key", "old")
        assert TOO_LARGE == new._store("key", codec.CODE_BYTES, large, 60.0, 0.0, ADD)
        assert "old" == old.get("key")
        assert TOO_LARGE == new._store("key", codec.CODE_BYTES, large, 60.0, 0.0)
        assert old.get("key") is None

    def test_fill(self, old: Any, new: Any) -> None:
        """A loaded value concerns its own version only."""
        fill(old, "key", "old")
        token = old._token("key")
        fill(new, "key", "new")
        assert "old" == old.get("key")
        assert token == old._token("key")

    def test_alone(self, make: Callable[..., Any]) -> None:
        """As long as there is one version, a set is no delete."""
        for version in (None, "1"):
            cache = make(f"area of {version}", version=version)
            cache.set("key", "value")
            token = cache._token("key")
            cache.set("key", "another")
            assert token == cache._token("key")

    def test_token(self, old: Any, new: Any) -> None:
        """What one loads without a flight is refused behind the other's write."""
        for write in ("set", "add", "incr"):
            token = old._token("key")
            WRITES[write](new)
            assert NOT_STORED == old._store("key", *codec.encode("x"), 60.0, 0.0, FILL, token)
            assert old.get("key") is None
            new._delete("key")


class TestLoads:
    def test_apart(self, old: Any, new: Any) -> None:
        """Both lead the load of one key, and each value goes to its own."""
        with old._enter("key", LONG) as first, new._enter("key", LONG) as second:
            assert first.state == second.state
            assert first.finish(*codec.encode("old"), 60.0, 0.0) == STORED
            assert second.finish(*codec.encode("new"), 60.0, 0.0) == STORED
        assert ("old", "new") == (old.get("key"), new.get("key"))

    @pytest.mark.parametrize("write", ["set", "add", "incr"])
    def test_fenced(self, old: Any, new: Any, write: str) -> None:
        """A load in flight of one is out of date behind a write of the other."""
        with old._enter("key", LONG) as flight:
            WRITES[write](new)
            assert flight.overtaken
            assert NOT_STORED == flight.finish(*codec.encode("old"), 60.0, 0.0)
        assert old.get("key") is None
        assert "key" in new

    def test_fenced_touch(self, old: Any, new: Any) -> None:
        """A touch too, which in one version fences nothing."""
        fill(new, "key", "new")
        with old._enter("key", LONG) as flight:
            assert new.touch("key", 30.0)
            assert NOT_STORED == flight.finish(*codec.encode("old"), 60.0, 0.0)

    def test_fenced_delete(self, old: Any, new: Any) -> None:
        """Deletes, expiries and clears fence the loads of all."""
        for forget in (new._delete, new._expire, lambda _: new._clear()):
            with old._enter("key", LONG) as flight:
                forget("key")
                assert NOT_STORED == flight.finish(*codec.encode("old"), 60.0, 0.0)
            assert old.get("key") is None

    def test_not_fenced(self, old: Any, new: Any) -> None:
        """The load of one stores while the other's goes on."""
        with old._enter("key", LONG) as flight:
            fill(new, "key", "new")
            assert not flight.overtaken
            assert STORED == flight.finish(*codec.encode("old"), 60.0, 0.0)
        assert ("old", "new") == (old.get("key"), new.get("key"))

    def test_loaders(self, make: Callable[..., Any]) -> None:
        """Each release's loader is asked once."""
        asked: list[str] = []

        def loading(value: str) -> Any:
            def load(key: Any) -> str:
                asked.append(value)
                return f"{value} {key}"

            return make(version=value, loader=load)

        caches = [loading("old"), loading("new")]
        for cache, value in zip(caches * 2, ["old", "new"] * 2, strict=True):
            assert f"{value} key" == cache.get("key")
        assert ["old", "new"] == asked
        caches[0].delete("key")
        assert "new key" == caches[1].get("key")
        assert ["old", "new", "new"] == asked

    def test_pauses(self, old: Any, new: Any) -> None:
        """A pause of one is none of the other, and ends alone."""
        old._pause("key", 5)
        assert (True, False) == (old._pausing("key"), new._pausing("key"))
        new._pause("key", 5)
        assert (True, True) == (old._pausing("key"), new._pausing("key"))
        old._pause("key", 0)
        assert (False, True) == (old._pausing("key"), new._pausing("key"))

    def test_turns(self, old: Any, new: Any) -> None:
        """Loads alone are counted for the area."""
        with old._enter_alone("a", LONG, 2), new._enter_alone("b", LONG, 2):
            assert old._enter_alone("c", LONG, 2) is None
            assert new._enter_alone("c", LONG, 2) is None
        with new._enter_alone("c", LONG, 1) as flight:
            assert flight is not None

    def test_locks(self, old: Any, new: Any) -> None:
        """A lock is one of the area."""
        with old._enter("name", LONG, LOCK):
            joined = new._enter("name", LONG, LOCK)
            assert joined.state != old._enter("other", LONG, LOCK).state
            joined.leave()

    def test_shown(self, old: Any, new: Any, segment: Any) -> None:
        """Loads are shown under the area's name."""
        with old._enter("key", LONG), new._enter("key", LONG):
            shown = segment.flights()
            assert ["area", "area"] == [each["area"] for each in shown]
            assert 1 == len({each["hash"] for each in shown})


class TestListener:
    @pytest.fixture(params=["both", "one"])
    def caches(self, request: pytest.FixtureRequest, old: Any, make: Callable[..., Any]) -> Any:
        """Give the versions there are, in an area that was never used without one."""
        return [old] if request.param == "one" else [old, bound(make(version="2"))]

    def test_invalidate(self, caches: Any, segment: Any) -> None:
        """What the listener forgets, it forgets in every version, objects and all."""
        for value in ("text", ("object",)):
            for cache in caches:
                fill(cache, "key", value)
                assert value == cache.get("key")
            assert 1 == segment.invalidate("area", [encode("key"), encode("absent")])
            assert [None] * len(caches) == [cache.get("key") for cache in caches]
        assert 0 == segment.invalidate("area", [encode("key")])

    def test_expire(self, caches: Any, segment: Any) -> None:
        """What it expires keeps each version's stale copy."""
        for n, cache in enumerate(caches):
            fill(cache, "key", n, stale=60.0)
        assert 1 == segment.invalidate("area", [encode("key")], expire=True)
        for n, cache in enumerate(caches):
            assert cache.get("key") is None
            assert n == stale_copy(cache)

    def test_clear(self, caches: Any, segment: Any) -> None:
        """A clear likewise."""
        for cache in caches:
            fill(cache, "key", "value")
        segment.clear_area("area")
        assert [None] * len(caches) == [cache.get("key") for cache in caches]

    def test_fences(self, caches: Any, segment: Any) -> None:
        """And loads in flight are out of date."""
        for cache in caches:
            with cache._enter("key", LONG) as flight:
                segment.invalidate("area", [encode("key")])
                assert NOT_STORED == flight.finish(*codec.encode("x"), 60.0, 0.0)

    def test_unknown(self, segment: Any) -> None:
        """An area of which nothing is known has nothing."""
        assert 0 == segment.invalidate("unknown", [encode("key")])
        assert "unknown" not in segment.stats()["areas"]

    def test_heard(self, old: Any, new: Any, segment: Any) -> None:
        """The message of an own set is known by whichever version's item it stored."""
        for cache, other in itertools.permutations((old, new)):
            number = cache._note("key", NOTE_SET)
            cache._store("key", *codec.encode("value"), 60.0, 0.0, note=number)
            segment.outbox_settle(number, True)
            assert segment.outbox_heard(number) is True
            fill(other, "key", "loaded later")
            assert segment.outbox_heard(number) is True
            other.set("key", "written later")
            assert segment.outbox_heard(number) is False
            other.delete("key")

    def test_notes(self, old: Any, new: Any, segment: Any) -> None:
        """Entries of the outbox are the area's."""
        for cache in (old, new):
            segment.outbox_settle(cache._note(f"of {cache._config.version}", NOTE_FORGET), False)
        assert {encode("of 1"), encode("of 2")} == segment.outbox_unsent("area")
        assert ["area", "area"] == [area for _, area, _, _ in segment.outbox_due()]
        segment.outbox_settle(new._note_clear(), False)
        assert segment.outbox_unsent("area") is None
        assert [b""] == [key for *_, key in segment.outbox_due()]

    def test_freshness(self, make: Callable[..., Any], segment: Any, clock: Any) -> None:
        """Watched, and in step, is the area."""
        cache = make(version="1")
        more = {"ttl": None, "null_ttl": None, "stale_ttl": 0.0, "jitter": 0.0}
        more |= {"max_value_size": 1 << 20, "object_cache_bytes": 0, "flags": OBJECTS_SHARED}
        for variant in (8, 7):
            cache._bind(segment, "area", **more, bound=2.0, limit=1.0, variant=variant)
        assert ["area"] == segment.watched()
        segment.area_extend("area", time.monotonic() + clock.ahead + 2.0)
        assert cache._freshness() < 1.0
        segment.area_applied("area", 5, 6)
        assert (5, 6) == segment.area_state("area")


class TestShown:
    def test_stats(self, old: Any, new: Any, make: Callable[..., Any], segment: Any) -> None:
        """One row a name: counters of the area, sums of what its versions hold."""
        fill(old, "a", "old")
        fill(new, "a", "new")
        fill(new, "b", "new")
        old.get("a")
        new.get("a")
        new._delete("absent")
        stats = segment.stats()["areas"]
        assert ["area"] == list(stats)
        row = stats["area"]
        assert (3, 3, 2, 1) == tuple(
            row[name] for name in ("entries", "set", "local_hit", "delete")
        )
        fill(make("other"), "a", "old")
        assert 3 * segment.stats()["areas"]["other"]["bytes"] == row["bytes"]

    def test_counters(self, old: Any, new: Any) -> None:
        """Counters and latencies are told by each as those of all."""
        old.get("absent")
        new.get("absent")
        assert 2 == old._counters()["local_miss"] == new._counters()["local_miss"]
        old._latency(0.001)
        new._l2_latency(0.001)
        assert old._latencies() == new._latencies()
        assert old._l2_latencies() == new._l2_latencies()
        assert 1 == sum(new._latencies()[:-1]) == sum(old._l2_latencies()[:-1])

    def test_hash(self, old: Any, new: Any) -> None:
        """A key has one hash in the area."""
        assert old._hash("key") == new._hash("key")

    def test_fallback(self, memory: Any, make: Callable[..., Any], caplog: Any) -> None:
        """Where the table of areas is full, a version caches in memory of its own."""
        if memory.kind == "process":
            pytest.skip("the table has no bound")
        slots = memory.segment.stats()["segment"]["area_slots"]
        full = [bound(make("area", version=str(n))) for n in range(slots - 1)]
        full[-1].set("key", "last")
        extra = make("area", version="extra")
        extra.set("key", "extra")
        assert "extra" == extra.get("key")
        assert "last" == full[-1].get("key")
        assert "no free slot" in caplog.text
