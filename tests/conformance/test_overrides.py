"""What an operator's overrides do to an area, on every kind of memory, with and without Redis."""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from accelerator import overrides
from accelerator.entry import MISS, CacheMode
from accelerator.errors import BackendError

Make = Callable[..., Any]


class Operator:
    """Sets options of an area, as the command does."""

    def __init__(self, segment: Any) -> None:
        self._segment = segment

    def set(self, area: str = "area", **options: Any) -> None:
        for name, value in options.items():
            number = None if value is None else overrides.encode(name, value)
            self._segment.override(area, overrides.OPTIONS.index(name), number)


@pytest.fixture
def operator(memory: Any) -> Operator:
    memory.cache().peek("nothing")  # so that there is such an area
    return Operator(memory.segment)


def forget_here(memory: Any) -> None:
    """Drop what this host holds of an area, but not what Redis has."""
    memory.segment.clear_area("area")


CHANGES: dict[str, Callable[[Any], Any]] = {
    "set": lambda cache: cache.set("key", "new"),
    "set a tagged": lambda cache: cache.set("key", "new", tags=["other"]),
    "mset": lambda cache: cache.mset({"key": "new"}),
    "set for a time": lambda cache: cache.set("key", "new", 30),
    "set nothing": lambda cache: cache.set("key", "new", 0),
    "aset": lambda cache: asyncio.run(cache.aset("key", "new")),
    "delete": lambda cache: cache.delete("key"),
    "adelete": lambda cache: asyncio.run(cache.adelete("key")),
    "mdelete": lambda cache: cache.mdelete(["key"]),
    "expire": lambda cache: cache.expire("key"),
    "delete_tags": lambda cache: cache.delete_tags("tag"),
    "expire_tags": lambda cache: cache.expire_tags("tag"),
    "clear": lambda cache: cache.clear(),
    "in a namespace": lambda cache: cache.namespace("n").clear(),
}
DECIDED: dict[str, Callable[[Any], Any]] = {
    "add": lambda cache: cache.add("new", 1),
    "touch": lambda cache: cache.touch("key", 30),
    "touch, to forget": lambda cache: cache.touch("key", 0),
    "incr": lambda cache: cache.incr("counter"),
    "decr": lambda cache: cache.decr("counter"),
    "aincr": lambda cache: asyncio.run(cache.aincr("counter")),
}
HELD = [CacheMode.LOCAL, CacheMode.OFF]


class TestKeptFromRedis:
    @pytest.fixture
    def cache(self, make: Make, redis_only: None) -> Any:
        cache = make(stale_ttl=60)
        cache.set("key", "old", tags=["tag"])
        cache.set("counter", 5)
        return cache

    @pytest.mark.parametrize("mode", HELD)
    def test_reads(self, cache: Any, memory: Any, operator: Operator, mode: CacheMode) -> None:
        """Redis is not read, and is again afterwards."""
        operator.set(mode=mode)
        forget_here(memory)
        before = cache.metrics_snapshot()
        assert cache.get("key") is None
        assert cache.peek("key") is None
        assert "key" not in cache
        assert {"key": None} == cache.mget(["key"])
        assert asyncio.run(cache.aget("key")) is None
        after = cache.metrics_snapshot()
        asked = ("remote_hit", "remote_miss", "l2_skipped")
        assert [before[name] for name in asked] == [after[name] for name in asked]
        operator.set(mode=None)
        assert "old" == cache.get("key")

    def test_local_keeps(self, cache: Any, operator: Operator) -> None:
        """In LOCAL mode values are kept on this host, and served for as long as they live."""
        operator.set(mode=CacheMode.LOCAL)
        cache.set("key", "new")
        cache.mset({1: 2})
        assert ["new", 2] == [cache.get("key"), cache.get(1)]
        assert CacheMode.LOCAL is cache._mode

    def test_no_bound(self, make: Make, operator: Operator, redis_only: None) -> None:
        """Nothing of others is known, and what is here is served all the same."""
        cache = make(on_desync="bypass")
        operator.set(mode=CacheMode.LOCAL)
        cache.set("key", 1)
        assert 1 == cache.get("key")
        operator.set(mode=None)
        assert cache.get("key") is None

    def test_comes_back_within_a_read(self, cache: Any, memory: Any, operator: Operator) -> None:
        """A read that has not asked Redis at first does not ask it at last."""
        memory.segment.link_confirm(time.monotonic())
        operator.set(mode=CacheMode.LOCAL)
        forget_here(memory)
        cache._begin()
        count = cache._count_local

        def counting(found: Any) -> None:
            operator.set(mode=None)
            cache._begin()  # as another thread would
            count(found)

        cache._count_local = counting
        try:
            assert cache.get("key", max_staleness=50) is None
        finally:
            del cache._count_local
        assert "old" == cache.get("key")

    @pytest.mark.parametrize("mode", HELD)
    @pytest.mark.parametrize("change", CHANGES)
    def test_changes(
        self, cache: Any, memory: Any, operator: Operator, mode: CacheMode, change: str
    ) -> None:
        """Each change is queued for Redis, whose copy is not read before it has been told."""
        operator.set(mode=mode)
        CHANGES[change](cache)
        unsent = memory.segment.outbox_unsent("area")
        assert unsent is None or len(unsent) == 1
        operator.set(mode=None)
        if change != "in a namespace":
            assert "old" != cache.get("key")
        elif unsent is not None:
            [tag] = unsent
            assert b"namespace" in tag

    @pytest.mark.parametrize("mode", HELD)
    @pytest.mark.parametrize("change", DECIDED)
    def test_decided(self, cache: Any, operator: Operator, mode: CacheMode, change: str) -> None:
        """What Redis decides is decided by nobody else; it has changed nothing."""
        operator.set(mode=mode)
        with pytest.raises(BackendError, match="mode is overridden"):
            DECIDED[change](cache)
        operator.set(mode=None)
        assert (5, "old", MISS) == (cache.get("counter"), cache.get("key"), cache.get("new", MISS))

    def test_raise(self, cache: Any, operator: Operator) -> None:
        """Who wants to know is told that Redis has not heard of a delete; it is done here."""
        operator.set(mode=CacheMode.LOCAL)
        with pytest.raises(BackendError, match="override of mode") as raised:
            cache.delete("key", on_error="raise")
        assert raised.value.queued
        assert cache.get("key") is None

    def test_put(self, cache: Any, operator: Operator) -> None:
        """A function whose answer is stored here has stored it, as far as there is to be done."""
        operator.set(mode=CacheMode.LOCAL)

        @cache.cache_put(key="{x}", on_cache_error="propagate")
        def make(x: str) -> str:
            return x + "!"

        assert "a!" == make("a")
        assert "a!" == cache.get("a")

    @pytest.mark.parametrize("mode", HELD)
    def test_loads(
        self, make: Make, memory: Any, operator: Operator, redis_only: None, mode: CacheMode
    ) -> None:
        """Loads ask the loader, not Redis, and none of them fails."""
        loaded: list[Any] = []
        cache = make(loader=lambda key: loaded.append(key) or f"{key} {len(loaded)}")
        assert "key 1" == cache.get("key")
        operator.set(mode=mode)
        forget_here(memory)
        assert "key 2" == cache.get("key")
        assert ("key 3" if mode is CacheMode.OFF else "key 2") == cache.get("key")
        assert "again 4" == cache.refresh("again") or mode is CacheMode.LOCAL

    def test_host(self, cache: Any, memory: Any, operator: Operator) -> None:
        """What is set for the host is for all; the area's own counts before it."""
        operator.set("", mode=CacheMode.OFF)
        assert cache.get("key") is None
        operator.set("area", mode=CacheMode.BOTH)
        assert "old" == cache.get("key")

    def test_listened_to(
        self, make: Make, memory: Any, operator: Operator, redis_only: None
    ) -> None:
        """An area that was never used otherwise is listened to all the same."""
        operator.set("", mode=CacheMode.LOCAL)
        make("later").set("key", 1)
        assert "later" in memory.segment.watched()


class TestMode:
    def test_off(self, make: Make, operator: Operator) -> None:
        """Nothing is stored or read; when it ends, what is from before it is not believed."""
        cache = make()
        cache.set("key", 1)
        operator.set(mode=CacheMode.OFF)
        assert cache.get("key") is None
        cache.set("other", 2)
        assert cache.get("other") is None
        operator.set(mode=None)
        assert cache.get("other") is None

    @pytest.mark.parametrize("mode", [CacheMode.REMOTE, CacheMode.BOTH])
    def test_no_redis(
        self, make: Make, operator: Operator, local_only: None, mode: CacheMode
    ) -> None:
        """Where there is no Redis, none begins to be used."""
        cache = make()
        operator.set("", mode=mode)
        cache.set("key", 1)
        assert (1, CacheMode.LOCAL) == (cache.get("key"), cache._mode)

    def test_remote(self, make: Make, memory: Any, operator: Operator, redis_only: None) -> None:
        """Values are kept in Redis only, and what is there is read from now on."""
        cache = make()
        cache.set("key", 1)
        operator.set(mode=CacheMode.REMOTE)
        assert 1 == cache.get("key")
        assert "remote" == cache.get_entry("key").tier
        cache.set("key", 2)
        operator.set(mode=None)
        assert 2 == cache.get("key")

    def test_both(self, make: Make, memory: Any, operator: Operator, redis_only: None) -> None:
        """An area that keeps values in Redis only can have them on this host as well."""
        memory.segment.link_confirm(time.monotonic())
        cache = make(mode="remote")
        cache.set("key", 1)
        operator.set(mode=CacheMode.BOTH)
        assert 1 == cache.get("key")
        assert "local" == cache.get_entry("key").tier

    def test_own_local(self, make: Make, memory: Any, operator: Operator, local_only: None) -> None:
        """Values in an object of the application's are not read either, nor believed later."""
        if memory.kind == "process":
            pytest.skip("the class for it is made for one kind of memory in a process")
        own = Own()
        cache = make("own", local=own)
        cache.set("key", 1)
        assert 1 == cache.get("key")
        operator.set("own", mode=CacheMode.OFF)
        assert cache.get("key") is None
        cache.set("other", 1)
        assert cache.get_entry("other") is None
        operator.set("own", mode=None)
        assert [None, None] == [cache.get("key"), cache.get("other")]


class Own:
    """A first level of the application's own: a dict."""

    def __init__(self) -> None:
        self._entries: dict[bytes, Any] = {}

    def get(self, key: bytes) -> Any:
        return self._entries.get(key)

    def set(self, key: bytes, entry: Any) -> None:
        self._entries[key] = entry

    def delete(self, key: bytes) -> None:
        self._entries.pop(key, None)

    def clear(self) -> None:
        self._entries.clear()


MODES = [None, *CacheMode]


@pytest.mark.parametrize("first", MODES)
@pytest.mark.parametrize("second", MODES)
class TestInTheMiddle:
    """One comes, goes, or is replaced while something is under way: nothing fails."""

    @pytest.fixture(autouse=True)
    def both(self, redis_only: None) -> None:
        """With Redis there is more that could."""

    def test_load(
        self, make: Make, operator: Operator, first: CacheMode | None, second: CacheMode | None
    ) -> None:
        """The loader's answer is the answer; a new one is found if it was deleted meanwhile."""
        cache: Any = None

        def load(key: str) -> str:
            if key == "deleted":
                operator.set(mode=second)
                cache.delete(key)
                return f"old {key}"
            operator.set(mode=second)
            return f"new {key}"

        cache = make(loader=load)
        operator.set(mode=first)
        assert "new key" == cache.get("key")
        operator.set(mode=first)
        assert {"a": "new a", "b": "new b"} == cache.mget(["a", "b"])
        operator.set(mode=first)
        assert "old deleted" == cache.get("deleted")
        operator.set(mode=None)
        assert cache.peek("deleted") is None

    @pytest.mark.parametrize("change", [*CHANGES, *DECIDED])
    def test_changes(
        self,
        make: Make,
        memory: Any,
        operator: Operator,
        first: CacheMode | None,
        second: CacheMode | None,
        change: str,
    ) -> None:
        """A change that has begun is done, or refused as it would have been before."""
        cache = make()
        cache.set("key", "old", tags=["tag"])
        cache.set("counter", 5)
        operator.set(mode=first)
        asked = memory.modules["runtime"].current().second
        ask, aask = asked.ask, asked.aask

        def changing(*arguments: Any) -> Any:
            operator.set(mode=second)
            cache._begin()  # binds anew, as another thread would
            return ask(*arguments)

        async def achanging(*arguments: Any) -> Any:
            operator.set(mode=second)
            cache._begin()
            return await aask(*arguments)

        asked.ask, asked.aask = changing, achanging
        try:
            {**CHANGES, **DECIDED}[change](cache)
        except BackendError:
            assert change in DECIDED
            assert first in HELD
        finally:
            del asked.ask, asked.aask
        operator.set(mode=None)
        if change in CHANGES and change != "in a namespace":
            assert "old" != cache.get("key")


class TestLives:
    @pytest.fixture
    def cache(self, make: Make, operator: Operator) -> Any:
        operator.set(ttl=5.0)
        return make(loader=lambda key: "loaded", null_ttl=None, local_ttl=None, remote_ttl=None)

    STORES: tuple[Callable[[Any], Any], ...] = (
        lambda cache: cache.set("key", 1),
        lambda cache: cache.set("key", 1, 300),
        lambda cache: cache.set("key", 1, None),
        lambda cache: cache.set("key", None),
        lambda cache: cache.mset({"key": 1}, ttl="5m"),
        lambda cache: cache.get("key"),
        lambda cache: cache.get_or_load("key", lambda key: 1, ttl=300),
        lambda cache: cache.add("key", 1, ttl=300),
        lambda cache: cache.incr("key", ttl=300),
        lambda cache: (cache.set("key", 1, 1), cache.touch("key", 300)),
        lambda cache: asyncio.run(cache.aset("key", 1, 300)),
        lambda cache: cache.namespace("n").set("key", 1) or cache.set("key", 1),
    )

    @pytest.mark.parametrize("store", STORES)
    def test_cut(self, cache: Any, store: Callable[[Any], Any]) -> None:
        """Nothing lives longer, whoever says how long it is to."""
        store(cache)
        left = cache.get_entry("key").ttl
        assert left is not None
        assert 0 < left <= 5

    def test_from_redis(
        self, make: Make, memory: Any, operator: Operator, redis_only: None
    ) -> None:
        """A copy that Redis has lives no longer on this host."""
        memory.segment.link_confirm(time.monotonic())
        cache = make()
        cache.set("key", 1)
        operator.set(ttl=5.0)
        forget_here(memory)
        cache.get("key")
        assert cache.get_entry("key").ttl <= 5

    def test_before_and_after(self, make: Make, operator: Operator) -> None:
        """What was stored before lives on, what is stored afterwards lives as long as it is to."""
        cache = make()
        cache.set("key", 1, 50)
        operator.set(ttl=5.0)
        assert cache.get_entry("key").ttl > 5
        operator.set(ttl=None)
        cache.set("key", 2, 50)
        assert cache.get_entry("key").ttl > 5

    def test_shorter(self, make: Make, operator: Operator) -> None:
        """It prolongs nothing; 0 is still what is not stored."""
        cache = make(local_ttl=3)
        operator.set(ttl=500.0)
        cache.set("key", 1)
        assert cache.get_entry("key").ttl <= 3
        cache.set("key", 1, 0)
        assert cache.get_entry("key") is None


class TestLoads:
    def test_loader_timeout(self, make: Make, operator: Operator) -> None:
        """A load that takes longer is late."""
        cache = make(loader=lambda key: time.sleep(0.02) or key)
        cache.get(1)
        operator.set(loader_timeout=0.001)
        assert 2 == cache.get(2)
        counters = cache.metrics_snapshot()
        assert (1, 1) == (counters["load_success"], counters["load_timeout"])

    def test_penetration_protect(self, make: Make, operator: Operator) -> None:
        """Without it nobody leads for others."""
        cache = make(loader=str, wait_timeout=3)
        cache.get(1)
        operator.set(penetration_protect=False)
        cache.get(2)
        operator.set(penetration_protect=True)
        cache.get(3)
        counters = cache.metrics_snapshot()
        assert (2, 1) == (counters["load_led"], counters["load_alone"])

    def test_max_loads(self, make: Make, operator: Operator) -> None:
        """Of what is loaded alone no more runs at a time than that."""
        cache = make(loader=str, max_loads=1)
        operator.set(max_loads=2)
        cache.peek("nothing")
        alone = [cache._enter_alone(n, 30, cache._config.max_loads) for n in range(3)]
        assert [True, True, False] == [each is not None for each in alone]

    def test_allow_stale(self, make: Make, operator: Operator, clock: Any) -> None:
        """Values past their lives are given to readers that have not asked for them."""
        cache = make(local_ttl=1)
        operator.set(allow_stale=True)
        cache.set("key", 1)
        clock.advance(2)
        assert 1 == cache.get("key")
        operator.set(allow_stale=False)
        assert cache.get("key") is None

    def test_on_desync(self, make: Make, memory: Any, operator: Operator, redis_only: None) -> None:
        """What is on this host is given, or is not, while nobody has heard of the others."""
        cache = make()
        cache.set("key", 1)
        tiers = []
        for value in (None, "bypass", "serve"):
            operator.set(on_desync=value)
            tiers.append(cache.get_entry("key").tier)
        assert ["local", "remote", "local"] == tiers

    def test_breaker(self, make: Make, memory: Any, operator: Operator, redis_only: None) -> None:
        """Open, Redis is asked nothing and told nothing; closed, it is."""
        cache = make()
        cache.set("key", 1)
        forget_here(memory)
        operator.set("", breaker="open")
        assert cache.get("key") is None
        cache.delete("other")
        assert 1 == len(memory.segment.outbox_unsent("area"))
        operator.set("", breaker="closed")
        assert 1 == cache.get("key")


class TestWhoFollows:
    """Whatever stands for the area: views, versions, functions, other objects."""

    def test_all(self, make: Make, operator: Operator) -> None:
        caches = [
            make(),
            make(version="2"),
            make().namespace("n"),
            make().namespace("n").namespace("m"),
        ]

        @make().cacheable("{x}")
        def function(x: int) -> int:
            return x

        function(1)
        operator.set(mode=CacheMode.OFF)
        for cache in caches:
            cache.set("key", 1)
            assert cache.get("key") is None
        assert 1 == function(1)
        assert function.peek(1) is None
        operator.set(mode=None)
        assert 1 == function(1)
        assert 1 == function.peek(1)

    def test_made_meanwhile(self, make: Make, operator: Operator) -> None:
        """What is made of an area while there is one does not keep it."""
        operator.set(ttl=5.0, max_loads=2)
        cache = make()
        cache.set("key", 1)
        inner = cache.namespace("n")
        assert 8 == cache.config.max_loads
        operator.set(ttl=None, max_loads=None)
        inner.set("key", 1)
        assert inner.get_entry("key").ttl > 5
        assert 8 == inner._config.max_loads

    def test_other_areas(self, make: Make, operator: Operator) -> None:
        """An area of another name is left alone."""
        operator.set(mode=CacheMode.OFF)
        cache = make("other")
        cache.set("key", 1)
        assert 1 == cache.get("key")


class TestBinding:
    def test_changes_within_it(
        self, make: Make, memory: Any, operator: Operator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What changes between the look at the overrides and the binding is not missed."""
        module = memory.modules["binding"].overrides
        in_force = module.in_force
        changes = [7, 6]

        def changing(*given: Any) -> Any:
            found = in_force(*given)
            if changes:
                operator.set(max_loads=changes.pop())
            return found

        monkeypatch.setattr(module, "in_force", changing)
        cache = make()
        cache.get("key")
        cache.get("key")
        assert 7 == cache._config.max_loads
        assert [] == changes

    def test_change_and_back_within_it(
        self, make: Make, memory: Any, operator: Operator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What was in force between two looks is not followed for ever."""
        binding = memory.modules["binding"]
        attachment = memory.modules["runtime"].current()
        segment = attachment.memory

        class Between:
            """The segment, where an operator comes and goes between two calls."""

            def overrides(self) -> Any:
                operator.set(max_loads=7)
                try:
                    return segment.overrides()
                finally:
                    operator.set(max_loads=None)

            def __getattr__(self, name: str) -> Any:
                return getattr(segment, name)

        class Seen:
            memory = Between()

            def __getattr__(self, name: str) -> Any:
                return getattr(attachment, name)

        class Cache(memory.cache_class):  # type: ignore[misc]
            def _bind_to(self, of: Any, seen: Any) -> None:
                super()._bind_to(segment if isinstance(of, Between) else of, seen)

        monkeypatch.setattr(binding.runtime, "current", Seen)
        cache = Cache("area", max_loads=3)
        cache.get("key")
        assert 3 == cache._config.max_loads
        assert cache._bound

    def test_changes_every_time(self, memory: Any, operator: Operator) -> None:
        """Where they change faster than it is bound, operations go on, and the last one counts."""
        changes = iter(range(1000))

        class Cache(memory.cache_class):  # type: ignore[misc]
            unsteady = True

            def _attach(self) -> None:
                super()._attach()
                if self.unsteady:
                    operator.set(max_loads=next(changes))

        cache = Cache("area", ttl_jitter_ratio=None)
        cache.set("key", 1)
        assert 1 == cache.get("key")
        assert [1, None] == list(cache.mget(["key", "other"]).values())
        assert cache.delete("key")
        cache.unsteady = False
        cache.get("key")
        assert next(changes) - 1 == cache._config.max_loads

    def test_threads_at_once(self, memory: Any, operator: Operator) -> None:
        """Two threads bind it under different overrides, by turns: it ends under the later ones."""
        gates = {name: threading.Event() for name in ("first", "second", "bound", "go")}
        arrived = {name: threading.Event() for name in gates}

        def stop(at: str) -> None:
            if threading.current_thread().name == {"first": "1", "bound": "1"}.get(at, "2"):
                arrived[at].set()
                assert gates[at].wait(30)

        class Cache(memory.cache_class):  # type: ignore[misc]
            def _followed(self, given: Any, mode: Any) -> Any:
                found = super()._followed(given, mode)
                stop("first")
                return found

            def _tiers_of(self, *given: Any) -> Any:
                stop("second")  # behind what it has stored, before it is bound
                return super()._tiers_of(*given)

            def _tell_overrides(self, rows: Any) -> None:
                stop("bound")

        cache = Cache("area", max_loads=3, ttl_jitter_ratio=None)
        one, two = (threading.Thread(target=cache.get, args=("k",), name=name) for name in "12")
        one.start()
        assert arrived["first"].wait(30)  # it has looked, and not stored
        operator.set(max_loads=7)
        two.start()
        assert arrived["second"].wait(30)  # it has stored, and not bound
        gates["first"].set()
        assert arrived["bound"].wait(30)  # it has stored over that, and bound
        gates["second"].set()
        two.join(30)
        gates["bound"].set()
        one.join(30)
        cache.get("key")
        assert 7 == cache._config.max_loads
        assert cache._bound

    def test_where_there_is_no_room(
        self, make: Make, memory: Any, operator: Operator, caplog: pytest.LogCaptureFixture
    ) -> None:
        """An area that the segment has no room for follows nothing that nobody could take back."""
        if memory.kind == "process":
            pytest.skip("it has room for all")
        slots = memory.segment.stats()["segment"]["area_slots"]
        for number in range(slots):
            make(f"area{number}").peek("key")
        caplog.clear()
        memory.segment.override("", overrides.OPTIONS.index("mode"), 3)
        cache = make("one too many")
        cache.set("key", 1)
        assert 1 == cache.get("key")
        assert "one too many" not in memory.segment.stats()["areas"]


class TestTold:
    @pytest.fixture(autouse=True)
    def forget(self, memory: Any) -> Iterator[None]:
        said = memory.modules["binding"]._SAID
        said.clear()
        yield
        said.clear()

    def test_once(self, make: Make, operator: Operator, caplog: pytest.LogCaptureFixture) -> None:
        """Each process says once what is in force, and once that it is no more."""
        caplog.set_level(logging.INFO, "accelerator.ops")
        caches = [make(), make(), make().namespace("n")]
        for options in ({"mode": CacheMode.OFF, "ttl": 5.0}, {"mode": None, "ttl": None}):
            operator.set(**options)
            for cache in caches:
                cache.get("key")
        lines = [each for each in caplog.records if "op=override" in each.getMessage()]
        assert [
            (logging.WARNING, "area=area op=override result=ok mode=off ttl=5s"),
            (logging.INFO, "area=area op=override result=ended"),
        ] == [(each.levelno, each.getMessage()) for each in lines]
