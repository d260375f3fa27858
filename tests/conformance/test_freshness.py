"""How stale reads may be: areas that are in step with a second level, and no longer are."""

import math
import time
from collections.abc import Callable
from typing import Any

import pytest

from accelerator import MISS, codec
from accelerator.process_local import (
    ADD,
    BYPASS,
    CAP,
    FILL,
    FLIGHT_JOINED,
    FLIGHT_LEADING,
    FORCE,
    NOT_STORED,
    REFRESH,
    RESULT_HANDED,
    RESULT_STORED,
    SERVE,
    STORED,
)

BOUND = 2.0
LEASE = 30.0
FLAGS = {"auto": 0, "shared": 4, "copy": 8}


def bind(memory: Any, cache: Any, on_desync: int = CAP, **options: Any) -> Any:
    """Have an area keep a bound, as an area with a second level does."""
    if not cache._bound:
        cache._attach()
    cache._bind(
        memory.segment,
        cache.config.area,
        **{
            "ttl": 600.0,
            "null_ttl": 600.0,
            "stale_ttl": 600.0,
            "jitter": 0.0,
            "max_value_size": 1 << 16,
            "object_cache_bytes": 1 << 20,
            "flags": 0,
            "bound": BOUND,
            "limit": BOUND,
            "on_desync": on_desync,
            **options,
        },
    )
    return cache


class Step:
    """An area of which the test says when it is in step, by the clock that it sets."""

    def __init__(self, memory: Any, area: str) -> None:
        self._memory = memory
        self._area = area

    def now(self) -> float:
        return time.monotonic() + self._memory.clock.ahead

    def heartbeat(self, ago: float = 0.0) -> None:
        """All that was told up to *ago* seconds before now is in the segment."""
        self._memory.segment.area_extend(self._area, self.now() - ago + BOUND)

    def lose(self) -> None:
        """Hear nothing any more, until the bound is over."""
        self._memory.clock.advance(BOUND + 0.1)


@pytest.fixture
def step(memory: Any) -> Step:
    return Step(memory, "area")


@pytest.fixture(params=sorted(FLAGS))
def objects(request: pytest.FixtureRequest) -> int:
    return FLAGS[request.param]


@pytest.fixture
def bound(memory: Any, cache: Any, objects: int) -> Callable[..., Any]:
    """Bind the cache anew."""
    return lambda on_desync=CAP, **options: bind(
        memory, cache, on_desync, **{"flags": objects, **options}
    )


def store(cache: Any, key: Any, value: Any, ttl: float | None = 600.0, **more: Any) -> int:
    answer: int = cache._store(key, *cache._codec.encode(value), ttl, 600.0, **more)
    return answer


def read(cache: Any, key: Any) -> Any:
    """What every way to read a key agrees on; MISS."""
    values = [
        cache.get(key, MISS),
        cache.mget([key], MISS)[key],
        cache.get(key, MISS),
        cache.peek(key, MISS),
        *(value for value in [cache._read(key)] if value is not None),
    ]
    value = values[0]
    if value is MISS:
        assert [MISS] * 4 == values
    else:
        assert [value] * 4 == values[:4]
        assert (value, False) == (values[4][0], values[4][4])
    assert (value is not MISS) == (key in cache)
    return value


VALUES = [1, "text", b"bytes", None, ("a", 1), {"a": [1]}]


class TestInStep:
    @pytest.mark.parametrize("value", VALUES, ids=repr)
    def test_serves(self, bound: Callable[..., Any], step: Step, value: object) -> None:
        """While the area is in step, age does not matter."""
        cache = bound()
        step.heartbeat()
        store(cache, "key", value, age=100.0)
        assert value == read(cache, "key")

    def test_extended(self, bound: Callable[..., Any], step: Step, memory: Any) -> None:
        """Each extension lasts for the bound, whatever was remembered in between."""
        cache = bound()
        store(cache, "key", "text", age=100.0)
        for _ in range(3):
            step.heartbeat()
            assert "text" == read(cache, "key")
            memory.clock.advance(BOUND - 0.1)
            assert "text" == read(cache, "key")
            memory.clock.advance(0.2)
            assert read(cache, "key") is MISS

    def test_only_raised(self, bound: Callable[..., Any], step: Step) -> None:
        """An older heartbeat takes nothing back."""
        cache = bound()
        store(cache, "key", 1, age=100.0)
        step.heartbeat()
        step.heartbeat(ago=1.9)
        step.heartbeat(ago=60.0)
        assert 1 == read(cache, "key")

    def test_never(self, bound: Callable[..., Any]) -> None:
        """An area that was never in step is given what is young enough."""
        cache = bound()
        store(cache, "old", 1, age=BOUND + 0.1)
        store(cache, "new", 1)
        assert (MISS, 1) == (read(cache, "old"), read(cache, "new"))

    def test_unbound(self, cache: Any, step: Step, memory: Any) -> None:
        """Without a bound nothing of this has an effect."""
        cache.set("key", 1)
        store(cache, "old", 1, age=1e6)
        step.heartbeat(ago=1.0)
        memory.clock.advance(50)
        assert (1, 1) == (cache.get("key"), cache.get("old"))
        assert 1 == cache._read("old", within=0.0)[0]
        assert cache._freshness() is None
        assert cache._enter("old", LEASE) is None


class TestCapped:
    @pytest.mark.parametrize("value", VALUES, ids=repr)
    def test_cap(self, bound: Callable[..., Any], step: Step, memory: Any, value: object) -> None:
        """CAP gives what was loaded no longer ago than the limit, and not a moment longer."""
        cache = bound()
        step.heartbeat()
        store(cache, "old", value)
        assert value == read(cache, "old")
        step.lose()
        assert read(cache, "old") is MISS
        store(cache, "new", value)
        assert value == read(cache, "new")
        memory.clock.advance(BOUND - 0.1)
        assert (value, MISS) == (read(cache, "new"), read(cache, "old"))
        memory.clock.advance(0.2)
        assert read(cache, "new") is MISS

    @pytest.mark.parametrize("value", VALUES, ids=repr)
    def test_bypass(self, bound: Callable[..., Any], step: Step, value: object) -> None:
        """BYPASS gives nothing."""
        cache = bound(BYPASS)
        step.heartbeat()
        store(cache, "key", value)
        assert value == read(cache, "key")
        step.lose()
        store(cache, "new", value)
        assert (MISS, MISS) == (read(cache, "key"), read(cache, "new"))

    @pytest.mark.parametrize("value", VALUES, ids=repr)
    def test_serve(self, bound: Callable[..., Any], step: Step, value: object) -> None:
        """SERVE gives everything, for as long as it lives."""
        cache = bound(SERVE)
        store(cache, "key", value, age=100.0)
        step.lose()
        assert value == read(cache, "key")
        assert cache._enter("key", LEASE) is None

    def test_limit(self, bound: Callable[..., Any], step: Step, memory: Any) -> None:
        """A limit below the bound caps the sooner, and at its age."""
        cache = bound(limit=0.5)
        step.heartbeat()
        store(cache, "key", "text", age=100.0)
        store(cache, "new", "text")
        memory.clock.advance(0.4)
        assert ("text", "text") == (read(cache, "key"), read(cache, "new"))
        memory.clock.advance(0.2)
        assert (MISS, MISS) == (read(cache, "key"), read(cache, "new"))
        store(cache, "new", "text", age=0.4)
        assert "text" == read(cache, "new")

    def test_no_limit(self, bound: Callable[..., Any], step: Step) -> None:
        """A limit of 0 gives nothing that the source did not give just now."""
        cache = bound(limit=0.0)
        step.heartbeat()
        store(cache, "key", 1, age=0.05)
        assert read(cache, "key") is MISS

    def test_back(self, bound: Callable[..., Any], step: Step) -> None:
        """In step again, what is still valid is given again; what was forgotten is not."""
        cache = bound()
        step.heartbeat()
        for key in ("kept", "gone"):
            store(cache, key, "text")
            assert "text" == read(cache, key)
        step.lose()
        cache._delete("gone")
        assert read(cache, "kept") is MISS
        step.heartbeat()
        assert ("text", MISS) == (read(cache, "kept"), read(cache, "gone"))
        step.lose()
        cache.clear()
        step.heartbeat()
        assert read(cache, "kept") is MISS

    def test_two_bindings(self, memory: Any, make: Callable[..., Any], step: Step) -> None:
        """Each cache object of an area judges by its own limit, and shares what is remembered."""
        strict, lax, free = (bind(memory, make(), limit=0.2), bind(memory, make()), make())
        step.heartbeat()
        store(lax, "key", ("a", 1))
        for cache in (strict, lax, free):
            assert ("a", 1) == cache.get("key") == cache.get("key")
        memory.clock.advance(0.5)
        assert (MISS, ("a", 1)) == (read(strict, "key"), read(lax, "key"))
        step.lose()
        assert (MISS, ("a", 1)) == (read(lax, "key"), free.get("key"))

    def test_rewritten(self, bound: Callable[..., Any], step: Step, memory: Any) -> None:
        """What is rewritten where it lies is as old as its last load."""
        cache = bound()
        step.heartbeat()
        for _ in range(6):
            store(cache, "key", "text")
            assert "text" == read(cache, "key")
        step.lose()
        for _ in range(4):
            store(cache, "key", "newer")
            assert "newer" == read(cache, "key")
            memory.clock.advance(BOUND + 0.1)
            assert read(cache, "key") is MISS

    def test_expired(self, bound: Callable[..., Any], step: Step, memory: Any) -> None:
        """The life of a value is what it was: capped or not, its end is its end."""
        cache = bound()
        step.heartbeat()
        store(cache, "key", 1, 1.0)
        memory.clock.advance(0.9)
        assert 1 == read(cache, "key")
        memory.clock.advance(0.2)
        assert read(cache, "key") is MISS


class TestStale:
    def test_flagged(self, bound: Callable[..., Any], step: Step) -> None:
        """What is capped is stale: a read that takes stale values gets it, told so."""
        cache = bound()
        step.heartbeat()
        store(cache, "key", {"a": 1})
        step.lose()
        assert cache._read("key") is None
        value, _, age, ttl, stale, version = cache._read("key", stale=True)
        assert ({"a": 1}, True) == (value, stale)
        assert BOUND < age < BOUND + 5
        assert 500 < ttl < 600
        assert version
        step.heartbeat()
        assert cache._read("key", stale=True)[4] is False

    @pytest.mark.parametrize("on_desync", [CAP, BYPASS])
    def test_no_expiry(self, bound: Callable[..., Any], step: Step, on_desync: int) -> None:
        """So is what never expires."""
        cache = bound(on_desync)
        store(cache, "key", 1, None)
        step.lose()
        found = cache._read("key", stale=True)
        assert (1, None, True) == (found[0], found[3], found[4])

    def test_ended(self, bound: Callable[..., Any], step: Step, memory: Any) -> None:
        """What has physically ended is gone."""
        cache = bound()
        cache._store("key", *codec.encode(1), 1.0, 0.0)
        step.lose()
        assert cache._read("key", stale=True) is None

    def test_no_object_is_kept(self, bound: Callable[..., Any], step: Step) -> None:
        """A stale value that was read as such is not given as fresh by the next read."""
        cache = bound()
        store(cache, "key", ("a", 1), age=100.0)
        for _ in range(3):
            assert cache._read("key", stale=True)[4]
            assert read(cache, "key") is MISS


class TestWithin:
    def test_area(self, bound: Callable[..., Any], step: Step, memory: Any) -> None:
        """An old value will do if the area was in step recently enough."""
        cache = bound()
        step.heartbeat()
        store(cache, "key", 1, age=100.0)
        memory.clock.advance(0.5)
        assert cache._read("key", within=0.4) is None
        assert (1, False) == cache._read("key", within=0.6)[0:5:4]
        assert (1, True) == cache._read("key", within=0.4, stale=True)[0:5:4]

    def test_item(self, bound: Callable[..., Any], step: Step, memory: Any) -> None:
        """So will a young one, however long ago that was."""
        cache = bound()
        step.heartbeat()
        memory.clock.advance(1.0)
        store(cache, "key", 1)
        memory.clock.advance(0.3)
        assert cache._read("key", within=0.2) is None
        assert 1 == cache._read("key", within=0.4)[0]

    def test_no_wider(self, bound: Callable[..., Any], step: Step) -> None:
        """It narrows what reads are given, and never widens it."""
        cache = bound()
        step.heartbeat()
        store(cache, "key", 1)
        step.lose()
        assert cache._read("key", within=1e9) is None
        assert cache._read("key", within=math.inf) is None
        assert 1 == bound(SERVE)._read("key", within=100.0)[0]
        assert bound(SERVE)._read("key", within=1.0) is None

    def test_never_in_step(self, bound: Callable[..., Any]) -> None:
        """An area that was never in step is as old as can be."""
        cache = bound(SERVE)
        store(cache, "key", 1, age=100.0)
        assert cache._read("key", within=99.0) is None
        assert 1 == cache._read("key", within=101.0)[0]

    @pytest.mark.parametrize("within", [-1, math.nan])
    def test_wrong(self, cache: Any, within: float) -> None:
        """Less than nothing, and no number, are refused."""
        with pytest.raises(ValueError, match="within"):
            cache._read("key", within=within)


class TestLoads:
    @pytest.mark.parametrize("on_desync", [CAP, BYPASS])
    def test_enter(self, bound: Callable[..., Any], step: Step, on_desync: int) -> None:
        """What a read is not given is to be loaded, by one; and then it is there for both."""
        cache = bound(on_desync)
        step.heartbeat()
        store(cache, "key", 1)
        assert cache._enter("key", LEASE) is None
        step.lose()
        leader, joined = cache._enter("key", LEASE), cache._enter("key", LEASE)
        assert (FLIGHT_LEADING, FLIGHT_JOINED) == (leader.state, joined.state)
        assert STORED == leader.finish(*codec.encode(2), 600.0, 0.0)
        joined.leave()
        again = cache._enter("key", LEASE)
        if on_desync == CAP:
            assert again is None
            assert 2 == read(cache, "key")
        else:
            assert FLIGHT_LEADING == again.state
            again.fail()

    def test_refresh(self, bound: Callable[..., Any], step: Step) -> None:
        """A refresh ahead is due for what reads are not given."""
        cache = bound(refresh_window=10.0)
        step.heartbeat()
        store(cache, "key", 1)
        assert cache._enter("key", LEASE, REFRESH) is None
        step.lose()
        flight = cache._enter("key", LEASE, REFRESH)
        assert FLIGHT_LEADING == flight.state
        flight.fail()

    @pytest.mark.parametrize("mode", [ADD, FILL])
    def test_store(self, bound: Callable[..., Any], step: Step, mode: int) -> None:
        """An add and a fill find there what a read would."""
        cache = bound()
        step.heartbeat()
        store(cache, "key", 1)
        assert NOT_STORED == store(cache, "key", 2, mode=mode)
        step.lose()
        assert STORED == store(cache, "key", 2, mode=mode)
        assert 2 == read(cache, "key")
        assert NOT_STORED == store(cache, "key", 3, mode=mode)

    def test_kept_life(self, bound: Callable[..., Any], step: Step, memory: Any) -> None:
        """touch and expire go by the life alone, and make nothing younger."""
        cache = bound()
        step.heartbeat()
        store(cache, "key", 1)
        step.lose()
        assert STORED == cache._touch("key", 900.0, 0.0)
        assert read(cache, "key") is MISS
        assert BOUND < cache._read("key", stale=True)[2] < BOUND + 5

    def test_life_of_a_load(self, bound: Callable[..., Any], step: Step, memory: Any) -> None:
        """What was loaded is as old as its flight, not as its end."""
        cache = bound()
        flight = cache._enter("key", LEASE)
        memory.clock.advance(1.5)
        assert STORED == flight.finish(*codec.encode(1), 600.0, 0.0)
        _, _, age, ttl, _, _ = cache._read("key")
        assert 1.5 <= age + 0.01 < 2
        assert 599 < ttl <= 600.01
        memory.clock.advance(0.6)
        assert read(cache, "key") is MISS

    def test_alone(self, bound: Callable[..., Any], memory: Any) -> None:
        """So is what was loaded without coordination."""
        cache = bound()
        flight = cache._enter_alone("key", LEASE, None)
        memory.clock.advance(1.5)
        assert STORED == flight.finish(*codec.encode(1), 600.0, 0.0)
        assert 1.5 <= cache._read("key")[2] + 0.01 < 2

    @pytest.mark.parametrize("on_desync", [CAP, BYPASS])
    def test_too_old_to_join(self, bound: Callable[..., Any], memory: Any, on_desync: int) -> None:
        """Capped readers do not join a load older than the limit, and it is not stored."""
        cache = bound(on_desync)
        old, patient = cache._enter("key", LEASE), cache._enter("key", LEASE)
        memory.clock.advance(BOUND - 0.1)
        assert old.id == cache._enter("key", LEASE).id
        memory.clock.advance(0.2)
        new, joined = cache._enter("key", LEASE), cache._enter("key", LEASE)
        assert (FLIGHT_LEADING, FLIGHT_JOINED) == (new.state, joined.state)
        assert old.id != new.id == joined.id
        assert old.overtaken
        assert NOT_STORED == old.finish(*codec.encode(1), 600.0, 0.0)
        assert (RESULT_HANDED, (1,)) == (patient.result(), patient.take())
        assert STORED == new.finish(*codec.encode(2), 600.0, 0.0)
        patient.leave()
        joined.leave()

    @pytest.mark.parametrize("limit", [0.0, BOUND])
    def test_just_begun(self, bound: Callable[..., Any], limit: float) -> None:
        """One that has only just begun is joined whatever the limit."""
        cache = bound(limit=limit)
        leader, joined = cache._enter("key", LEASE), cache._enter("key", LEASE)
        assert leader.id == joined.id
        leader.fail()
        joined.leave()

    def test_in_step_joins(self, bound: Callable[..., Any], step: Step, memory: Any) -> None:
        """In step, or without a bound that holds, a load is joined whatever its age."""
        for cache in (bound(), bound(SERVE)):
            leader = cache._enter("key", LEASE)
            memory.clock.advance(BOUND + 1)
            step.heartbeat()
            joined = cache._enter("key", LEASE)
            assert leader.id == joined.id
            leader.fail()
            joined.leave()

    @pytest.mark.parametrize(("on_desync", "took"), [(CAP, BOUND + 0.1), (BYPASS, 0.0)])
    def test_handed(
        self, bound: Callable[..., Any], memory: Any, on_desync: int, took: float
    ) -> None:
        """Who has joined is handed what is stored and nobody is given, instead of loading again."""
        cache = bound(on_desync)
        leader, joined = cache._enter("key", LEASE), cache._enter("key", LEASE)
        memory.clock.advance(took)
        assert STORED == leader.finish(*codec.encode(1), 600.0, 600.0)
        assert read(cache, "key") is MISS
        assert (1, True) == cache._read("key", stale=True)[0:5:4]
        assert (RESULT_HANDED, (1,)) == (joined.result(), joined.take())
        joined.leave()

    def test_readable(self, bound: Callable[..., Any], step: Step, memory: Any) -> None:
        """Who will be given what was stored reads it."""
        cache = bound()
        for heard in (False, True):
            leader, joined = cache._enter("key", LEASE), cache._enter("key", LEASE)
            memory.clock.advance(BOUND + 0.1 if heard else 0.5)
            if heard:
                step.heartbeat()
            assert STORED == leader.finish(*codec.encode(1), 600.0, 0.0)
            assert RESULT_STORED == joined.result()
            assert 1 == read(cache, "key")
            joined.leave()
            cache.delete("key")

    def test_taken_over(self, bound: Callable[..., Any], memory: Any) -> None:
        """Who takes a lease over begins anew."""
        cache = bound()
        late = cache._enter("key", 1.0)
        memory.clock.advance(1.5)
        flight = cache._enter("key", LEASE)
        assert flight.taken_over
        assert STORED == flight.finish(*codec.encode(1), 600.0, 0.0)
        assert 0 <= cache._read("key")[2] < 0.5
        late.fail()

    def test_given_age(self, bound: Callable[..., Any], memory: Any) -> None:
        """An age that is given counts, for flights and for stores."""
        cache = bound()
        flight = cache._enter("key", LEASE, FORCE)
        memory.clock.advance(1.0)
        assert STORED == flight.finish(*codec.encode(1), 600.0, 0.0, 0.25)
        assert 0.25 <= cache._read("key")[2] < 0.75
        assert STORED == store(cache, "key", 1, age=1.25)
        assert 1.25 <= cache._read("key")[2] < 1.75

    @pytest.mark.parametrize("age", [-0.1, math.nan])
    def test_wrong_age(self, cache: Any, age: float) -> None:
        """An age below 0 is refused, and a flight goes on."""
        with pytest.raises(ValueError, match="age"):
            cache._store("key", *codec.encode(1), 600.0, 0.0, age=age)
        with cache._enter("key", LEASE) as flight:
            with pytest.raises(ValueError, match="age"):
                flight.finish(*codec.encode(1), 600.0, 0.0, age)
            assert FLIGHT_LEADING == flight.state
        assert cache._read("key") is None


class TestFreshness:
    def test_age(self, bound: Callable[..., Any], step: Step, memory: Any) -> None:
        """It is how long ago the last heartbeat set out."""
        cache = bound()
        assert math.inf == cache._freshness()
        step.heartbeat()
        assert 0 <= cache._freshness() < 0.5
        memory.clock.advance(10)
        assert 10 <= cache._freshness() + 0.02 < 10.5
        step.heartbeat(ago=1.0)
        assert 1 <= cache._freshness() + 0.02 < 1.5

    def test_per_area(self, memory: Any, make: Callable[..., Any], step: Step) -> None:
        """Each area is in step for itself."""
        one, other = bind(memory, make()), bind(memory, make("other"))
        step.heartbeat()
        assert (True, math.inf) == (one._freshness() < 1, other._freshness())

    def test_unknown_area(self, memory: Any) -> None:
        """An area that was never opened is left alone, and not made."""
        memory.segment.area_extend("nobody's", time.monotonic() + 1)
        assert "nobody's" not in memory.segment.stats()["areas"]

    @pytest.mark.parametrize("until", [-1.0, math.nan, math.inf, 1e12])
    def test_wrong_time(self, memory: Any, until: float) -> None:
        """What can be no time is refused."""
        with pytest.raises(ValueError, match="until"):
            memory.segment.area_extend("area", until)

    @pytest.mark.parametrize(
        "wrong",
        [
            {"bound": 0.0},
            {"bound": -1.0},
            {"bound": math.inf},
            {"bound": math.nan},
            {"limit": -0.1},
            {"limit": 2.1},
            {"limit": math.nan},
            {"on_desync": 3},
            {"on_desync": -1},
        ],
        ids=str,
    )
    def test_wrong_binding(self, memory: Any, cache: Any, wrong: dict[str, Any]) -> None:
        """A binding that can mean nothing is refused, and the former stays."""
        cache.set("key", 1)
        with pytest.raises(ValueError, match="_bind"):
            bind(memory, cache, **wrong)
        assert 1 == cache.get("key")
