"""Loads of one process: who loads, who waits, what each failure gives the caller."""

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from accelerator import (
    MISS,
    BatchContext,
    ConfigError,
    FnLoader,
    LevelCache,
    LoadContext,
    LoaderError,
    LoaderTimeout,
    background,
    flight,
    local,
    testing,
)
from accelerator.observability import oplog


@pytest.fixture(autouse=True)
def fresh_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oplog, "_last", {})


@pytest.fixture(autouse=True)
def isolated() -> Iterator[testing.Isolated]:
    with testing.isolated() as own:
        yield own
        assert [] == own.memory.check()
        assert [] == own.memory.flights()


def make(loader: Any = None, **options: Any) -> LevelCache:
    return LevelCache("area", **{"ttl_jitter_ratio": None, "loader": loader, **options})


def counted(cache: LevelCache, *names: str) -> tuple[int, ...]:
    metrics = cache.metrics_snapshot()
    return tuple(metrics[name] for name in names)


class Source:
    """A loader that can be told to wait, to fail, and what to answer."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.batches: list[list[Any]] = []
        self.error: BaseException | None = None
        self.answers: dict[Any, Any] = {}
        self.began = threading.Event()
        self.go_on = threading.Event()
        self.go_on.set()

    def load(self, key: Any) -> Any:
        self.calls.append(key)
        self.began.set()
        assert self.go_on.wait(20)
        if self.error is not None:
            raise self.error
        return self.answers.get(key, f"{key}!")

    def held(self) -> None:
        self.began.clear()
        self.go_on.clear()


class Batches(Source):
    def mload(self, keys: list[Any]) -> dict[Any, Any]:
        self.batches.append(list(keys))
        return {key: self.load(key) for key in keys if key != "absent"}


class Awaitable:
    def __await__(self) -> Iterator[None]:
        yield


class Thread(threading.Thread):
    """A thread whose outcome can be asked for."""

    def __init__(self, function: Callable[[], Any]) -> None:
        super().__init__(daemon=True)
        self.function = function
        self.answer: Any = None
        self.start()

    def run(self) -> None:
        try:
            self.answer = self.function()
        except BaseException as error:
            self.answer = error

    def outcome(self) -> Any:
        self.join(20)
        assert not self.is_alive()
        return self.answer


def until(condition: Callable[[], Any]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


@pytest.fixture
def source() -> Source:
    return Source()


class TestGet:
    def test_loads_once(self, source: Source) -> None:
        """A miss loads, the next get is a hit."""
        cache = make(source)
        assert ("a!", "a!") == (cache.get("a"), cache.get("a"))
        assert ["a"] == source.calls
        assert (1, 1, 1, 1) == counted(cache, "local_hit", "local_miss", "load_total", "load_led")

    @pytest.mark.parametrize("value", [None, 0, False, "", b"", [], {}])
    def test_falsy(self, source: Source, value: Any) -> None:
        """None and what is as good as nothing are values."""
        source.answers["a"] = value
        cache = make(source)
        assert [value] * 2 == [cache.get("a", "default") for _ in range(2)]
        assert ["a"] == source.calls

    def test_disable_load(self, source: Source) -> None:
        """Whoever says so gets the default."""
        cache = make(source)
        assert cache.get("a", MISS, disable_load=True) is MISS
        assert cache.get_entry("a", disable_load=True) is None
        assert {"a": 0} == cache.mget(["a"], 0, disable_load=True)
        assert [] == source.calls

    def test_never_loading(self, source: Source) -> None:
        """To look is not to load."""
        cache = make(source)
        assert ("a" in cache, cache.peek("a", 5)) == (False, 5)
        assert [] == source.calls

    def test_entry(self, source: Source) -> None:
        """get_entry reads like get, and says where the value came from."""
        cache = make(source)
        first, second = cache.get_entry("a"), cache.get_entry("a")
        assert first is not None
        assert second is not None
        assert ("a!", "loader", False) == (first.value, first.tier, first.stale)
        assert ("a!", "local", False) == (second.value, second.tier, second.stale)

    def test_joined(self, source: Source) -> None:
        """Many threads, one load."""
        source.held()
        cache = make(source)
        threads = [Thread(lambda: cache.get("a")) for _ in range(20)]
        until(lambda: counted(cache, "load_joined") == (19,))
        source.go_on.set()
        assert ["a!"] * 20 == [thread.outcome() for thread in threads]
        assert ["a"] == source.calls

    def test_two_failures(self, source: Source) -> None:
        """Failure is the leader's: twenty callers, two failures, two errors."""
        source.held()
        errors = [ValueError(1), ValueError(2)]

        def load(key: Any) -> Any:
            source.load(key)
            if errors:
                raise errors.pop()
            return "fine"

        cache = make(load)
        threads = [Thread(lambda: cache.get("a")) for _ in range(20)]
        until(lambda: counted(cache, "load_joined") == (19,))
        source.go_on.set()
        outcomes = [thread.outcome() for thread in threads]
        assert 18 == outcomes.count("fine")
        assert 2 == sum(isinstance(each, LoaderError) for each in outcomes)
        assert 3 == len(source.calls)

    def test_error(self, source: Source) -> None:
        """What the loader raised is the cause; the next get asks again at once."""
        source.error = KeyError("secret")
        cache = make(source)
        for _ in range(2):
            with pytest.raises(LoaderError) as raised:
                cache.get("a")
            assert source.error is raised.value.__cause__
            assert "secret" not in str(raised.value)
        assert (2, 2, 0) == counted(cache, "load_total", "load_error", "load_success")

    @pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, GeneratorExit])
    def test_no_error_of_the_loader(
        self, source: Source, isolated: testing.Isolated, kind: type[BaseException]
    ) -> None:
        """What ends a program passes, also where a stale answer is allowed."""
        cache = make(source, stale_on_error=True)
        cache.set("a", "old")
        cache.expire("a")
        source.error = kind()
        with pytest.raises(kind):
            cache.get("a")
        assert [] == isolated.memory.flights()

    def test_overtaken(self, source: Source) -> None:
        """A load that a delete overtakes is returned, not stored; a later get does not join it."""
        source.held()
        cache = make(source)
        first = Thread(lambda: cache.get("a"))
        assert source.began.wait(20)
        joined = Thread(lambda: cache.get("a"))
        until(lambda: counted(cache, "load_joined") == (1,))
        cache.delete("a")
        source.answers["a"] = "new"
        later = Thread(lambda: cache.get("a"))
        until(lambda: len(source.calls) == 2)
        source.go_on.set()
        assert ["new"] * 3 == [each.outcome() for each in (first, joined, later)]
        assert 2 == len(source.calls)
        assert (1,) == counted(cache, "load_lease_lost")

    def test_set_meanwhile(self, source: Source) -> None:
        """A newer set stays."""
        source.held()
        cache = make(source)
        loading = Thread(lambda: cache.get("a"))
        assert source.began.wait(20)
        cache.set("a", "newer")
        source.go_on.set()
        assert "a!" == loading.outcome()
        assert "newer" == cache.get("a")

    def test_async_loader(self) -> None:
        """An async loader needs an async method."""

        async def load(key: Any) -> Any:
            return key

        cache = make(load)
        for operation in (cache.get, cache.get_entry, cache.refresh):
            with pytest.raises(ConfigError, match="async") as raised:
                operation("a")
            assert "loader" == raised.value.setting
        with pytest.raises(ConfigError, match="async"):
            cache.mget(["a"])
        with pytest.raises(ConfigError, match="async"):
            make(lambda key: load([key])).get("a")  # does not look like an async function
        with pytest.raises(ConfigError, match="async"):
            LevelCache("other").get_or_load("a", load)

    def test_off(self, source: Source) -> None:
        """In an area that is off every read loads."""
        cache = make(source, mode="off")
        assert ["a!", "a!"] == [cache.get("a"), cache.mget(["a"])["a"]]
        assert 2 == len(source.calls)

    def test_unprotected(self, source: Source) -> None:
        """Without protection nobody waits, and no limit holds."""
        source.held()
        cache = make(source, penetration_protect=False, max_loads=1)
        threads = [Thread(lambda: cache.get("a")) for _ in range(5)]
        until(lambda: len(source.calls) == 5)
        source.go_on.set()
        assert ["a!"] * 5 == [each.outcome() for each in threads]


class TestReentry:
    def test_chain(self) -> None:
        """A loader may ask for other keys."""

        def load(key: int) -> int:
            return 1 if key == 0 else cache.get(key - 1) + 1

        cache = make(load)
        assert 4 == cache.get(3)

    def test_itself(self) -> None:
        """One that asks for its own key is told so at once."""
        cache = make(lambda key: [cache.get(key)])
        since = time.monotonic()
        with pytest.raises(LoaderError) as raised:
            cache.get("a")
        assert isinstance(raised.value.__cause__, LoaderError)
        assert "very key" in str(raised.value.__cause__)
        assert time.monotonic() - since < 1

    def test_itself_with_stale(self) -> None:
        """Or gets the stale value."""
        cache = make(lambda key: cache.get(key) + "er", stale_on_error=True)
        cache.set("a", "old")
        cache.expire("a")
        assert "older" == cache.get("a")


class TestUnstorable:
    def test_cannot_be_encoded(self, source: Source, caplog: pytest.LogCaptureFixture) -> None:
        """Returned, not stored, said once."""
        source.answers["a"] = thing = object()
        cache = make(source)
        assert [thing] * 2 == [cache.get("a") for _ in range(2)]
        told = [each for each in caplog.records if "what a loader returned" in each.getMessage()]
        assert 1 == len(told)
        assert (2, 2) == counted(cache, "store_rejected_encode", "load_total")

    def test_too_large(self, source: Source) -> None:
        """The same for what is larger than allowed."""
        source.answers["a"] = "x" * 100
        cache = make(source, max_value_size=50)
        assert "x" * 100 == cache.get("a")
        assert "a" not in cache
        assert (1,) == counted(cache, "store_rejected_size")

    def test_waiters(self, source: Source) -> None:
        """Who waited for it loads on its own."""
        source.held()
        source.answers["a"] = thing = object()
        cache = make(source)
        threads = [Thread(lambda: cache.get("a")) for _ in range(4)]
        until(lambda: counted(cache, "load_joined") == (3,))
        source.go_on.set()
        assert [thing] * 4 == [each.outcome() for each in threads]
        assert (3,) == counted(cache, "load_alone")

    def test_null_is_not_cached(self, source: Source) -> None:
        """None that is not to be stored goes to the waiters all the same."""
        source.held()
        source.answers["a"] = None
        cache = make(source, cache_null_value=False)
        threads = [Thread(lambda: cache.get("a", "default")) for _ in range(4)]
        until(lambda: counted(cache, "load_joined") == (3,))
        source.go_on.set()
        assert [None] * 4 == [each.outcome() for each in threads]
        assert 1 == len(source.calls)
        assert cache.get("a", "default") is None
        assert 2 == len(source.calls)


class TestContext:
    def test_skip(self, source: Source) -> None:
        """What is skipped goes to the caller and who waits, and nowhere else."""
        source.held()

        def load(key: Any, context: LoadContext) -> Any:
            context.skip()
            return source.load(key)

        cache = make(load)
        threads = [Thread(lambda: cache.get("a")) for _ in range(4)]
        until(lambda: counted(cache, "load_joined") == (3,))
        source.go_on.set()
        assert ["a!"] * 4 == [each.outcome() for each in threads]
        assert (["a"], False) == (source.calls, "a" in cache)

    def test_ttl(self, isolated: testing.Isolated) -> None:
        """A loader may say how long its answer lives."""
        lives = {"short": 5, "endless": None, "none": 0, "text": "1m"}

        def load(key: Any, *, context: LoadContext) -> Any:
            context.ttl = lives[key]
            return key

        cache = make(load)
        cache.set("none", "old")
        cache.expire("none")
        cache.mget(lives)
        assert cache.get_entry("short").ttl == pytest.approx(5, abs=0.1)
        assert cache.get_entry("text").ttl == pytest.approx(60, abs=0.1)
        assert cache.get_entry("endless").ttl is None
        assert "none" not in cache
        assert cache.get("none", MISS, disable_load=True, allow_stale=True) is MISS

    def test_wrong_ttl(self) -> None:
        """A wrong life is the loader's error."""

        def load(key: Any, context: LoadContext) -> Any:
            context.ttl = -1
            return key

        with pytest.raises(LoaderError) as raised:
            make(load).get("a")
        assert isinstance(raised.value.__cause__, ValueError)

    def test_known_to_it(self) -> None:
        """It knows the area, and the value that there was."""
        seen = []

        def load(key: Any, context: LoadContext) -> Any:
            seen.append((context.area, context.stale_value))
            return "new"

        cache = make(load, stale_ttl=60)
        cache.get("a")
        cache.expire("a")
        cache.get("a")
        assert [("area", MISS), ("area", "new")] == seen

    def test_fail(self) -> None:
        """It may give up."""

        def load(key: Any, context: LoadContext) -> Any:
            context.fail("no answer from there")

        cache = make(load, stale_on_error=True)
        with pytest.raises(LoaderError) as raised:
            cache.get("a")
        assert "no answer from there" in str(raised.value.__cause__)
        cache.set("a", "old")
        cache.expire("a")
        assert "old" == cache.get("a")


class TestStale:
    @pytest.fixture
    def cache(self, source: Source) -> LevelCache:
        cache = make(source, stale_on_error=True, local_ttl=10, stale_ttl=100, error_ttl=1)
        cache.set("a", "old")
        return cache

    def test_on_error(
        self,
        cache: LevelCache,
        source: Source,
        isolated: testing.Isolated,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """The old value, labelled, again and again; the loader is asked once per pause."""
        source.error = ValueError()
        isolated.clock.advance(11)
        entries = [cache.get_entry("a") for _ in range(5)]
        assert [("old", True, 0)] * 5 == [(each.value, each.stale, each.ttl) for each in entries]
        assert 1 == len(source.calls)
        assert (5, 4, 0) == counted(cache, "stale_fallback", "load_paused", "local_hit")
        assert 1 == len([each for each in caplog.records if each.name == "accelerator.ops"])
        isolated.clock.advance(1.1)
        assert "old" == cache.get("a")
        assert 2 == len(source.calls)

    def test_end(self, cache: LevelCache, source: Source, isolated: testing.Isolated) -> None:
        """However often it is given, it ends."""
        source.error = ValueError()
        for _ in range(10):
            isolated.clock.advance(10.9)
            assert "old" == cache.get("a")
        isolated.clock.advance(2)
        with pytest.raises(LoaderError):
            cache.get("a")

    def test_recovery(self, cache: LevelCache, source: Source, isolated: testing.Isolated) -> None:
        """With the source comes the new value."""
        isolated.clock.advance(11)
        assert ("a!", "a!") == (cache.get("a"), cache.get("a"))

    def test_not_allowed(self, source: Source, isolated: testing.Isolated) -> None:
        """Where nobody allowed it, the error is the answer; where the read does, it is not."""
        cache = make(source, stale_ttl=100)
        cache.set("a", "old")
        cache.expire("a")
        source.error = ValueError()
        with pytest.raises(LoaderError):
            cache.get("a")
        assert "old" == cache.get("a", allow_stale=True)
        assert {"a": "old"} == cache.mget(["a"], allow_stale=True)

    def test_after_delete(self, cache: LevelCache, source: Source) -> None:
        """A deleted value is no fallback, an expired one is."""
        source.error = ValueError()
        cache.expire("a")
        assert "old" == cache.get("a")
        cache.delete("a")
        with pytest.raises(LoaderError):
            cache.get("a")

    def test_null(self, source: Source, isolated: testing.Isolated) -> None:
        """That there was nothing once is no answer to a failure."""
        cache = make(source, stale_on_error=True)
        cache.set("a", None)
        cache.expire("a")
        source.error = ValueError()
        with pytest.raises(LoaderError):
            cache.get("a")

    def test_max_staleness(self, cache: LevelCache, source: Source, isolated: Any) -> None:
        """A read may want it younger."""
        source.error = ValueError()
        isolated.clock.advance(30)
        assert "old" == cache.get("a", max_staleness=25)
        with pytest.raises(LoaderError):
            cache.get("a", max_staleness=15)

    def test_loads_first(self, source: Source) -> None:
        """An area that allows stale answers loads all the same."""
        cache = make(source, allow_stale=True)
        cache.set("a", "old")
        cache.expire("a")
        assert "old" == cache.get("a", disable_load=True)
        assert "a!" == cache.get("a")


class TestTimeouts:
    def test_late(self) -> None:
        """A late answer is an answer, and is stored."""
        cache = make(lambda key: time.sleep(0.05) or "late", loader_timeout=0.02)
        assert ("late", True) == (cache.get("a"), "a" in cache)
        assert (1, 0) == counted(cache, "load_timeout", "load_success")

    def test_late_with_stale(self) -> None:
        """Where a stale value is allowed it is the answer, and the late one is stored."""
        cache = make(
            lambda key: time.sleep(0.05) or "late", loader_timeout=0.02, stale_on_error=True
        )
        cache.set("a", "old")
        cache.expire("a")
        assert ("old", "late") == (cache.get("a"), cache.get("a"))

    def test_wait(self, source: Source) -> None:
        """Past its limit a waiter loads on its own; the leader is not disturbed."""
        source.held()
        cache = make(source, wait_timeout=0.05)
        first = Thread(lambda: cache.get("a"))
        assert source.began.wait(20)
        second = Thread(lambda: cache.get("a"))
        until(lambda: len(source.calls) == 2)
        source.go_on.set()
        assert ["a!", "a!"] == [first.outcome(), second.outcome()]
        assert (1, 1) == counted(cache, "load_wait_timeout", "load_alone")

    def test_wait_with_stale(self, source: Source) -> None:
        """Or gets the stale value, which does not live longer by that."""
        cache = make(source, wait_timeout=0.05, stale_on_error=True)
        cache.set("a", "old")
        cache.expire("a")
        source.held()
        first = Thread(lambda: cache.get("a"))
        assert source.began.wait(20)
        entry = cache.get_entry("a")
        assert ("old", True, 0) == (entry.value, entry.stale, entry.ttl)
        source.go_on.set()
        assert "a!" == first.outcome()

    def test_wait_for_what_is_set(self, source: Source) -> None:
        """A value that was set while the leader did not come back is the answer."""
        cache = make(source, wait_timeout=0.2)
        source.held()
        leader = Thread(lambda: cache.get("a"))
        assert source.began.wait(20)
        joined = Thread(lambda: cache.get("a"))
        until(lambda: counted(cache, "load_joined") == (1,))
        cache.set("a", "new")
        assert "new" == joined.outcome()
        source.go_on.set()
        assert "a!" == leader.outcome()
        assert ["a"] == source.calls

    def test_refused(self, source: Source) -> None:
        """When enough load on their own already, it is an error."""
        source.held()
        cache = make(source, wait_timeout=0.05, max_loads=2)
        threads = [Thread(lambda: cache.get("a")) for _ in range(5)]
        until(lambda: counted(cache, "load_refused") == (2,))
        source.go_on.set()
        outcomes = [each.outcome() for each in threads]
        assert 2 == sum(isinstance(each, LoaderTimeout) for each in outcomes)
        assert 3 == outcomes.count("a!")

    @pytest.mark.parametrize("blocked", [False, True])
    def test_crowded(self, source: Source, monkeypatch: pytest.MonkeyPatch, blocked: bool) -> None:
        """Without room in the table, or a lock: alone, under the same limit."""

        def enter(*_: Any) -> Any:
            if blocked:
                raise BlockingIOError
            return flight.NoFlight(local.FLIGHT_CROWDED)

        cache = make(source, stale_ttl=50, wait_timeout=0.02)
        monkeypatch.setattr(LevelCache, "_enter", enter)
        assert "a!" == cache.get("a")
        assert (1, 1) == counted(cache, "load_crowded", "load_alone")
        monkeypatch.setattr(LevelCache, "_enter_alone", lambda *_: None)
        cache.expire("a")
        assert "a!" == cache.get("a", allow_stale=True)
        with pytest.raises(LoaderTimeout, match="max_loads"):
            cache.get("a")

    def test_locked(self, source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
        """A lock that is held for a moment costs that moment, and no second load."""
        locked_until = time.monotonic() + 0.1

        def enter(cache: Any, *arguments: Any) -> Any:
            if time.monotonic() < locked_until:
                raise BlockingIOError
            return really(cache, *arguments)

        cache = make(source)
        really = LevelCache._enter
        monkeypatch.setattr(LevelCache, "_enter", enter)
        threads = [Thread(lambda: cache.get("a")) for _ in range(10)]
        assert ["a!"] * 10 == [each.outcome() for each in threads]
        assert ["a"] == source.calls

    def test_locked_for_ever(self, source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
        """Nor is it ever an error."""

        def enter(*_: Any) -> Any:
            raise BlockingIOError

        cache = make(source, wait_timeout=0.05)
        monkeypatch.setattr(LevelCache, "_enter", enter)
        monkeypatch.setattr(LevelCache, "_enter_alone", enter)
        assert "a!" == cache.get("a")
        assert "a" not in cache

    def test_lease(self, source: Source, isolated: testing.Isolated) -> None:
        """A leader that takes longer than its lease loses it."""
        source.held()
        cache = make(source)
        first = Thread(lambda: cache.get("a"))
        assert source.began.wait(20)
        isolated.clock.advance(31)
        source.go_on.set()
        second = Thread(lambda: cache.get("a"))
        assert ["a!", "a!"] == [first.outcome(), second.outcome()]


class TestSoft:
    @pytest.fixture
    def options(self) -> dict[str, Any]:
        return {"stale_on_error": True, "background": contextlib.nullcontext}

    def test_leader(self, source: Source, options: dict[str, Any]) -> None:
        """The caller has the old value at that time, and the load goes on."""
        cache = make(source, soft_timeout=0.05, **options)
        cache.set("a", "old")
        cache.expire("a")
        source.held()
        since = time.monotonic()
        assert "old" == cache.get("a")
        assert 0.04 < time.monotonic() - since < 2
        assert "old" == cache.get("a")  # joined
        source.go_on.set()
        until(lambda: "a" in cache)
        assert ("a!", ["a"]) == (cache.get("a"), source.calls)

    def test_at_once(self, source: Source, options: dict[str, Any]) -> None:
        """Zero answers at once, while one load runs."""
        cache = make(source, soft_timeout=0, **options)
        cache.set("a", "old")
        cache.expire("a")
        source.held()
        since = time.monotonic()
        assert ["old"] * 10 == [cache.get("a") for _ in range(10)]
        assert {"a": "old"} == cache.mget(["a"])
        assert time.monotonic() - since < 1
        source.go_on.set()
        until(lambda: "a" in cache)
        assert ["a"] == source.calls

    def test_fast(self, source: Source, options: dict[str, Any]) -> None:
        """A load that is faster is the answer."""
        cache = make(source, soft_timeout=4, **options)
        cache.set("a", "old")
        cache.expire("a")
        assert "a!" == cache.get("a")

    def test_nothing_stale(self, source: Source, options: dict[str, Any]) -> None:
        """Without a stale value the caller waits."""
        cache = make(source, soft_timeout=0, **options)
        assert "a!" == cache.get("a")

    def test_failing(self, source: Source, options: dict[str, Any]) -> None:
        """A load that fails in the background is quiet, and is paused."""
        cache = make(source, soft_timeout=0, **options)
        cache.set("a", "old")
        cache.expire("a")
        source.error = ValueError()
        assert "old" == cache.get("a")
        until(lambda: counted(cache, "load_error") == (1,))
        assert (1,) == counted(cache, "stale_fallback")  # its own, and not also the load's
        assert ["old"] * 3 == [cache.get("a") for _ in range(3)]
        assert ["a"] == source.calls

    def test_surroundings(self, source: Source) -> None:
        """It runs inside the area's context manager; what that raises hurts nobody."""
        where = []

        @contextlib.contextmanager
        def around() -> Iterator[None]:
            where.append(threading.current_thread().name)
            yield
            where.append("after")
            raise RuntimeError("on leaving")

        cache = make(source, soft_timeout=0, stale_on_error=True, background=around)
        cache.set("a", "old")
        cache.expire("a")
        assert "old" == cache.get("a")
        until(lambda: len(where) == 2)
        assert where[0].startswith("accelerator-load")
        assert "a!" == cache.get("a")

    def test_surroundings_that_fail(self, source: Source) -> None:
        """Without surroundings there is no load."""

        def around() -> Any:
            raise RuntimeError("on entering")

        cache = make(source, soft_timeout=0.5, stale_on_error=True, background=around)
        cache.set("a", "old")
        cache.expire("a")
        assert "old" == cache.get("a")
        assert [] == source.calls
        until(lambda: counted(cache, "load_error") == (1,))
        assert ["old"] * 3 == [cache.get("a") for _ in range(3)]  # paused
        assert (1, 1) == counted(cache, "load_total", "load_error")

    def test_wrong_loader(self, source: Source, caplog: pytest.LogCaptureFixture) -> None:
        """A plain function that gives an awaitable is one failed load; the log shows no value."""

        def around() -> Any:
            raise RuntimeError("private")

        cache = make(
            lambda key: Awaitable(), soft_timeout=4, stale_on_error=True, background=around
        )
        cache.set("a", "old")
        cache.expire("a")
        assert "old" == cache.get("a")
        assert "private" not in caplog.text
        cache = make(
            lambda key: Awaitable(),
            soft_timeout=4,
            stale_on_error=True,
            background=contextlib.nullcontext,
        )
        cache.set("b", "old")
        cache.expire("b")
        assert "old" == cache.get("b")
        assert (2, 2) == counted(cache, "load_total", "load_error")

    def test_busy_pool(
        self, source: Source, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """When the pool is busy, the caller loads."""
        monkeypatch.setattr(background, "submit", lambda _: None)
        cache = make(source, soft_timeout=0, **options)
        cache.set("a", "old")
        cache.expire("a")
        assert "a!" == cache.get("a")


class TestRefreshAhead:
    @pytest.fixture
    def options(self) -> dict[str, Any]:
        return {"refresh_ahead": True, "refresh_ahead_window": 5, "local_ttl": 60}

    def test_in_the_reader(
        self, source: Source, options: dict[str, Any], isolated: testing.Isolated
    ) -> None:
        """Without background, one reader pays for it, and has the value it found."""
        cache = make(source, **options)
        cache.set("a", "old")
        isolated.clock.advance(56)
        assert ("old", "a!") == (cache.get("a"), cache.get("a"))
        assert (1, 1, 0) == counted(
            cache, "refresh_attempts", "refresh_success", "refresh_failures"
        )
        assert 60 == pytest.approx(cache.get_entry("a").ttl, abs=0.1)

    def test_in_the_background(
        self, source: Source, options: dict[str, Any], isolated: testing.Isolated
    ) -> None:
        """With it, nobody waits."""
        cache = make(source, background=contextlib.nullcontext, **options)
        cache.set("a", "old")
        source.held()
        isolated.clock.advance(56)
        assert ["old"] * 5 == [cache.get("a") for _ in range(5)]
        assert {"a": "old"} == cache.mget(["a"], disable_load=False)
        source.go_on.set()
        until(lambda: cache.peek("a") == "a!")
        assert ["a"] == source.calls

    def test_joined(
        self, source: Source, options: dict[str, Any], isolated: testing.Isolated
    ) -> None:
        """When the value ends meanwhile, readers wait for the refresh."""
        cache = make(source, background=contextlib.nullcontext, **options)
        cache.set("a", "old")
        source.held()
        isolated.clock.advance(56)
        assert "old" == cache.get("a")
        assert source.began.wait(20)
        isolated.clock.advance(6)
        waiting = Thread(lambda: cache.get("a"))
        until(lambda: counted(cache, "load_joined") == (1,))
        source.go_on.set()
        assert ("a!", ["a"]) == (waiting.outcome(), source.calls)

    @pytest.mark.parametrize("in_background", [False, True])
    def test_failing(
        self,
        source: Source,
        options: dict[str, Any],
        isolated: testing.Isolated,
        in_background: bool,
    ) -> None:
        """A failure is quiet, counted, and tried again after the pause."""
        if in_background:
            options["background"] = contextlib.nullcontext
        cache = make(source, **options)
        cache.set("a", "old")
        source.error = ValueError()
        isolated.clock.advance(56)
        assert "old" == cache.get("a")
        until(lambda: counted(cache, "refresh_failures") == (1,))
        assert ["old"] * 3 == [cache.get("a") for _ in range(3)]
        assert 1 == len(source.calls)
        source.error = None
        isolated.clock.advance(1.1)
        assert "old" == cache.get("a")
        until(lambda: cache.peek("a") == "a!")

    def test_interrupted(
        self, source: Source, options: dict[str, Any], isolated: testing.Isolated
    ) -> None:
        """What ends a program passes."""
        cache = make(source, **options)
        cache.set("a", "old")
        source.error = KeyboardInterrupt()
        isolated.clock.advance(56)
        with pytest.raises(KeyboardInterrupt):
            cache.get("a")


class TestRefresh:
    def test_now(self, source: Source) -> None:
        """It asks whatever is stored."""
        cache = make(source)
        cache.set("a", "old")
        assert ("a!", "a!") == (cache.refresh("a"), cache.get("a"))

    def test_failing(self, source: Source) -> None:
        """What fails leaves the old value, and is the caller's to know, stale values or not."""
        cache = make(source, stale_on_error=True)
        cache.set("a", "old")
        source.error = ValueError()
        with pytest.raises(LoaderError):
            cache.refresh("a")
        assert "old" == cache.get("a")

    def test_beside_a_load(self, source: Source) -> None:
        """It does not take what has begun before; many that come meanwhile share one load."""
        source.held()
        cache = make(lambda key: (source.load(key), time.sleep(0.1))[0])
        first = Thread(lambda: cache.get("a"))
        assert source.began.wait(20)
        threads = [Thread(lambda: cache.refresh("a")) for _ in range(10)]
        until(lambda: counted(cache, "load_joined") == (10,))
        source.go_on.set()
        assert ["a!"] * 11 == [each.outcome() for each in (first, *threads)]
        assert 2 <= len(source.calls) < 11  # one that wakes late may come after the second

    def test_without_loader(self) -> None:
        """There has to be something to ask."""
        with pytest.raises(ConfigError, match="loader"):
            make().refresh("a")


class TestMget:
    def test_one_batch(self) -> None:
        """One call for all that is missing."""
        source = Batches()
        cache = make(source)
        cache.set("b", "there")
        assert {"a": "a!", "b": "there", "c": "c!"} == cache.mget(["a", "b", "c", "a"])
        assert [["a", "c"]] == source.batches
        assert (1, 1, 2) == counted(cache, "load_total", "load_success", "load_led")
        assert {"a": "a!", "c": "c!"} == cache.mget(["a", "c"])

    def test_one_by_one(self, source: Source) -> None:
        """Without mload each key on its own."""
        cache = make(source)
        assert {"a": "a!", "b": "b!"} == cache.mget(["a", "b"])
        assert ["a", "b"] == source.calls

    def test_partial(self) -> None:
        """What a batch says nothing about is not known, and not remembered."""
        source = Batches()
        cache = make(source)
        assert {"a": "a!", "absent": 0} == cache.mget(["a", "absent"], 0)
        assert cache.peek("absent", MISS) is MISS
        cache.mget(["absent"])
        assert [["a", "absent"], ["absent"]] == source.batches

    def test_complete(self) -> None:
        """Unless the loader says that it does not exist."""

        def mload(keys: list[Any], context: BatchContext) -> dict[Any, Any]:
            assert keys == context.keys
            context.complete()
            context.ttl = 50
            context.ttl_of("a", 7)
            context.skip("c")
            return {"a": 1, "c": 3, "d": 4, "foreign": 5}

        cache = make(FnLoader(lambda key: 0, mload))
        assert {"a": 1, "b": None, "c": 3, "d": 4} == cache.mget(["a", "b", "c", "d"], "default")
        assert cache.peek("b", MISS) is None
        assert ("c" in cache, "foreign" in cache) == (False, False)
        lives = [cache.get_entry(key).ttl for key in ("a", "b", "d")]
        assert lives == pytest.approx([7, 50, 50], abs=0.1)

    def test_overlap(self, source: Source) -> None:
        """A key that another is loading is joined; the others do not wait for it."""
        source.held()
        batches = Batches()
        cache, other = make(source), make(batches)
        first = Thread(lambda: cache.get("b"))
        assert source.began.wait(20)
        second = Thread(lambda: other.mget(["a", "b", "c"]))
        until(lambda: "a" in cache and "c" in cache)
        source.go_on.set()
        assert {"a": "a!", "b": "b!", "c": "c!"} == second.outcome()
        assert "b!" == first.outcome()
        assert ([["a", "c"]], ["b"]) == (batches.batches, source.calls)

    @pytest.mark.parametrize("is_async", [False, True])
    def test_own_load_is_no_wait(self, is_async: bool) -> None:
        """The time that the own batch takes does not count as a wait for others'."""
        others, own = Batches(), Batches()
        others.held()
        leader = Thread(lambda: make(others).mget(["a", "b"]))
        assert others.began.wait(20)

        def mload(keys: list[Any]) -> dict[Any, Any]:
            time.sleep(0.3)
            threading.Timer(0.05, others.go_on.set).start()
            return own.mload(keys)

        cache = make(FnLoader(own.load, mload), wait_timeout=0.2)
        want = ["b", "c"]
        found = asyncio.run(cache.amget(want)) if is_async else cache.mget(want)
        assert {"b": "b!", "c": "c!"} == found
        assert {"a": "a!", "b": "b!"} == leader.outcome()
        assert [["c"]] == own.batches
        assert (0, 0) == counted(cache, "load_wait_timeout", "load_alone")

    def test_crossing(self) -> None:
        """Batches that want each other's keys do not block each other."""
        source = Batches()
        cache = make(source)
        for _ in range(50):
            threads = [Thread(lambda: cache.mget(range(20)))]
            threads.append(Thread(lambda: cache.mget(reversed(range(20)))))
            for each in threads:
                assert {n: f"{n}!" for n in range(20)} == each.outcome()
            cache.clear()

    def test_failing(self) -> None:
        """A failed batch falls back key by key, or fails the call."""
        source = Batches()
        cache = make(source, stale_on_error=True)
        cache.mset({"a": "old a", "b": "old b"})
        cache.expire("a")
        cache.expire("b")
        source.error = ValueError()
        assert {"a": "old a", "b": "old b"} == cache.mget(["a", "b"])
        with pytest.raises(LoaderError):
            cache.mget(["a", "c"])
        assert 2 == len(source.batches)

    def test_no_mapping(self) -> None:
        """An answer of the wrong kind is the loader's error."""
        cache = make(FnLoader(lambda key: 0, lambda keys: [1]))
        with pytest.raises(LoaderError) as raised:
            cache.mget(["a"])
        assert isinstance(raised.value.__cause__, TypeError)

    def test_its_own_keys(self) -> None:
        """A batch that asks for one of its keys is told so."""

        def mload(keys: list[Any]) -> Any:
            return {"a": cache.get("b")}

        cache = make(FnLoader(lambda key: 0, mload))
        with pytest.raises(LoaderError):
            cache.mget(["a", "b"])

    def test_crowded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """All keys of a batch are one uncoordinated load."""
        source = Batches()
        cache = make(source, max_loads=1)
        monkeypatch.setattr(LevelCache, "_enter", lambda *_: flight.NoFlight(local.FLIGHT_CROWDED))
        assert {n: f"{n}!" for n in range(9)} == cache.mget(range(9))
        assert 1 == len(source.batches)

    def test_fills_the_table(self) -> None:
        """Keys that find no room beside the first of their own batch are one more batch."""
        source = Batches()
        cache = make(source)
        assert 2_000 == len(cache.mget(range(2_000)))
        assert 2 <= len(source.batches) < 50
        assert list(range(2_000)) == sorted(source.calls)
        assert (2_000, 0, 0) == counted(cache, "load_led", "load_alone", "load_crowded")
        assert (0,) == counted(cache, "store_rejected_race")


class TestWarmup:
    def test_counts(self) -> None:
        """Values that are known afterwards; None is none."""
        source = Batches()
        source.answers[3] = None
        cache = make(source, warmup_enabled=True, warmup_batch_size=4)
        cache.set(0, "there")
        assert 9 == cache.warmup(iter(range(10)))
        assert [[1, 2, 3], [4, 5, 6, 7], [8, 9]] == source.batches

    def test_disabled(self) -> None:
        """Nothing happens unless it is enabled, and with nothing to do."""
        source = Batches()
        assert 0 == make(source).warmup([1])
        assert 0 == make(source, warmup_enabled=True).warmup([])
        assert [] == source.batches

    def test_failing(self, caplog: pytest.LogCaptureFixture) -> None:
        """A batch that fails does not lose the others; only nothing but failures is an error."""

        def mload(keys: list[Any]) -> dict[Any, Any]:
            if 2 in keys:
                raise ValueError
            return dict.fromkeys(keys, 1)

        cache = make(FnLoader(lambda key: 0, mload), warmup_enabled=True, warmup_batch_size=2)
        assert 4 == cache.warmup(range(6))
        assert "warmup" in {getattr(each, "op", "") for each in caplog.records}
        with pytest.raises(LoaderError):
            cache.warmup([2])
