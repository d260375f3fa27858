"""What the listener does to a memory, and knows of it."""

import math
from typing import Any

import pytest

from accelerator.keys import encode
from accelerator.process_local import COUNTERS, LATENCY_BOUNDS, NOT_STORED

UINT64_MAX = (1 << 64) - 1
SEQ_MAX = (1 << 48) - 1
OPS = ("get", "fill", "set", "del", "atomic")


@pytest.fixture
def segment(memory: Any, cache: Any) -> Any:
    """A memory in which there is an area."""
    cache.set("here", "value")
    return memory.segment


class TestOrigin:
    def test_origin(self, segment: Any) -> None:
        """A memory has a name among those that send messages, and keeps it."""
        assert (16, bytes) == (len(segment.origin), type(segment.origin))
        assert segment.origin == segment.origin
        assert bytes(16) != segment.origin


class TestWatched:
    def test_not_bound(self, segment: Any) -> None:
        """An area without a second level is not listened to."""
        assert [] == segment.watched()


class TestState:
    def test_never(self, segment: Any) -> None:
        """An area that was never in step, or does not exist, is at nothing."""
        assert (0, 0) == segment.area_state("area")
        assert (0, 0) == segment.area_state("nobody")

    def test_raised(self, segment: Any) -> None:
        """Within one replication id the number only rises."""
        for given, expected in ((5, 5), (3, 5), (9, 9), (9, 9)):
            segment.area_applied("area", 7, given)
            assert (7, expected) == segment.area_state("area")

    def test_replaced(self, segment: Any) -> None:
        """Another replication id begins anew, also below; so does the first when it returns."""
        segment.area_applied("area", 7, 100)
        segment.area_applied("area", 8, 5)
        assert (8, 5) == segment.area_state("area")
        segment.area_applied("area", 7, 4)
        assert (7, 4) == segment.area_state("area")

    def test_large(self, segment: Any) -> None:
        """Both may be large; a number that no server gets to is not believed."""
        segment.area_applied("area", UINT64_MAX, SEQ_MAX)
        assert (UINT64_MAX, SEQ_MAX) == segment.area_state("area")
        segment.area_applied("area", UINT64_MAX, SEQ_MAX + 1)
        assert (0, 0) == segment.area_state("area")

    def test_forgotten(self, segment: Any) -> None:
        """No replication id: not in step."""
        segment.area_applied("area", 7, 5)
        segment.area_applied("area", 0, 6)
        assert (0, 0) == segment.area_state("area")

    def test_areas(self, segment: Any, make: Any) -> None:
        """Each area has its own; one that is not there is not made."""
        make("other").set("key", "value")
        segment.area_applied("other", 7, 1)
        segment.area_applied("nobody", 7, 2)
        assert [(0, 0), (7, 1), (0, 0)] == [
            segment.area_state(area) for area in ("area", "other", "nobody")
        ]
        assert "nobody" not in segment.stats()["areas"]

    def test_cleared(self, cache: Any, segment: Any) -> None:
        """A clear is one more message, and changes nothing of it."""
        segment.area_applied("area", 7, 5)
        cache.clear()
        assert (7, 5) == segment.area_state("area")


class TestInvalidate:
    def test_delete(self, cache: Any, segment: Any) -> None:
        """Encoded keys are forgotten, as by a delete, and those that were there counted."""
        keys = ["key", 7, b"bytes", ("tuple", 1), None, True]
        for key in keys:
            cache.set(key, "value")
        cache.set("stays", "value")
        gone = [encode(key) for key in keys]
        assert len(keys) == segment.invalidate("area", [*gone, encode("absent")])
        assert [] == [key for key in keys if key in cache]
        assert "value" == cache.get("stays")
        assert 0 == segment.invalidate("area", gone)

    def test_expire(self, make: Any, segment: Any) -> None:
        """With *expire* the stale copy stays, as by an expire; those that were fresh count."""
        cache = make("stale", stale_ttl=60)
        cache.set("key", "value", ttl=60)
        cache.set("other", "value", ttl=60)
        keys = [encode("key"), encode("absent")]
        assert 1 == segment.invalidate("stale", keys, True)
        assert cache._read("key") is None
        assert "value" == cache._read("key", stale=True)[0]
        assert 0 == segment.invalidate("stale", keys, expire=True)
        assert cache._expire("other")
        for key in ("key", "other"):
            assert cache._read(key, stale=True)[4]

    @pytest.mark.parametrize("expire", [False, True])
    def test_loads(self, cache: Any, segment: Any, expire: bool) -> None:
        """Loads that run are overtaken, and so are tokens."""
        flight = cache._enter("key", 30.0)
        token = cache._token("key")
        segment.invalidate("area", [encode("key")], expire)
        assert flight.overtaken
        assert NOT_STORED == flight.finish(2, b"value", 60.0, 0.0)
        assert NOT_STORED == cache._store("key", 2, b"value", 60.0, 0.0, 2, token)

    def test_many(self, cache: Any, segment: Any) -> None:
        """As many as a message has are done in one call."""
        for number in range(1000):
            cache.set(number, number)
        keys = [encode(number) for number in range(4096)]
        there = sum(number in cache for number in range(1000))
        # A delete may take along a neighbour that shares its generation, which then is not there.
        assert 0.9 * there < segment.invalidate("area", keys) <= there
        assert [] == [number for number in range(1000) if number in cache]

    def test_unknown(self, segment: Any) -> None:
        """In an area that is not there nothing is, and it is not made."""
        assert 0 == segment.invalidate("nobody", [encode("here")])
        assert "nobody" not in segment.stats()["areas"]

    def test_other_area(self, cache: Any, make: Any, segment: Any) -> None:
        """Other areas are left alone."""
        make("other").set("here", "value")
        assert 1 == segment.invalidate("other", [encode("here")])
        assert "value" == cache.get("here")

    def test_not_counted(self, cache: Any, segment: Any) -> None:
        """Nobody has called delete()."""
        segment.invalidate("area", [encode("here")])
        assert 0 == cache._counters()["delete"]

    def test_no_key(self, cache: Any, segment: Any) -> None:
        """What cannot be an encoded key is an error, and nothing is done."""
        with pytest.raises(TypeError):
            segment.invalidate("area", ["here"])
        for wrong in (b"", b"s" * 600):
            with pytest.raises(ValueError, match="key"):
                segment.invalidate("area", [encode("here"), wrong])
        assert "value" == cache.get("here")


class TestClear:
    def test_clear(self, cache: Any, make: Any, segment: Any) -> None:
        """A whole area is forgotten, and no other."""
        other = make("other")
        other.set("key", "value")
        flight = cache._enter("key", 30.0)
        segment.clear_area("area")
        assert "here" not in cache
        assert flight.overtaken
        assert "value" == other.get("key")

    def test_unknown(self, cache: Any, segment: Any) -> None:
        """One that is not there is not made."""
        segment.clear_area("nobody")
        assert "nobody" not in segment.stats()["areas"]
        assert "here" in cache


class TestCounting:
    def test_count(self, cache: Any, segment: Any) -> None:
        """The listener counts in the name of an area."""
        for name in ("gap", "replayed", "invalidation_receive", "desync_read"):
            segment.area_count("area", COUNTERS.index(name))
            segment.area_count("area", COUNTERS.index(name), 4)
            assert 5 == cache._counters()[name]

    def test_unknown(self, segment: Any) -> None:
        """An area that is not there counts nothing; there is no other counter."""
        segment.area_count("nobody", 0)
        assert "nobody" not in segment.stats()["areas"]
        for wrong in (-1, len(COUNTERS)):
            with pytest.raises(ValueError, match="counter"):
                segment.area_count("area", wrong)

    def test_names(self, cache: Any) -> None:
        """Each counter of the second level has its name."""
        names = {
            *(f"l2_{kind}_{op}" for kind in ("error", "timeout") for op in OPS),
            "l2_undecodable",
            "l2_fill_refused",
            "l2_skipped",
            "gap",
            "replayed",
            "flush",
            "invalidation_queued",
            "own_skipped",
            "receive_error_subscribe",
            "receive_error_decode",
            "receive_error_apply",
            "desync_read",
        }
        assert names == names & set(COUNTERS)
        assert set(COUNTERS) == set(cache._counters())

    def test_latency(self, cache: Any) -> None:
        """Calls of L2 are counted in a histogram of their own."""
        cache._latency(0.5)
        for seconds in (0.0, 0.001, 0.0011, 100.0):
            cache._l2_latency(seconds)
        found = cache._l2_latencies()
        assert len(LATENCY_BOUNDS) + 2 == len(found)
        assert [2, 1] == found[:2]
        assert 1 == found[len(LATENCY_BOUNDS)]
        assert 100_002_100 == found[-1]
        assert 1 == sum(cache._latencies()[:-1])

    def test_latency_wrong(self, cache: Any) -> None:
        """What is no span of time is an error."""
        for wrong in (-1, math.nan, math.inf):
            with pytest.raises(ValueError, match="seconds"):
                cache._l2_latency(wrong)
