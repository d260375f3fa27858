"""Loads in an event loop: nothing blocks it, and a caller may go while others wait."""

import asyncio
import contextlib
import contextvars
import gc
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from accelerator import (
    MISS,
    BatchContext,
    FnLoader,
    LevelCache,
    LoadContext,
    LoaderError,
    LoaderTimeout,
    aflight,
    flight,
    testing,
)


@pytest.fixture(autouse=True)
def isolated() -> Iterator[testing.Isolated]:
    with testing.isolated() as own:
        yield own
        assert [] == own.memory.check()
        assert [] == own.memory.flights()
        assert {} == flight._led_by_tasks


def make(loader: Any = None, **options: Any) -> LevelCache:
    return LevelCache("area", **{"ttl_jitter_ratio": None, "loader": loader, **options})


def counted(cache: LevelCache, *names: str) -> tuple[int, ...]:
    metrics = cache.metrics_snapshot()
    return tuple(metrics[name] for name in names)


class Source:
    """An async loader that can be told to wait and to fail."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.cancelled = 0
        self.error: BaseException | None = None
        self.go_on = asyncio.Event()
        self.go_on.set()

    async def load(self, key: Any) -> Any:
        self.calls.append(key)
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.error is not None:
            raise self.error
        return f"{key}!"


class Batches(Source):
    def __init__(self) -> None:
        super().__init__()
        self.batches: list[list[Any]] = []

    async def mload(self, keys: list[Any]) -> dict[Any, Any]:
        self.batches.append(keys)
        return {key: await self.load(key) for key in keys}


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110  of what happens in threads, too
            await asyncio.sleep(0.002)


def run(story: Callable[[Source], Awaitable[None]]) -> None:
    """Run a story; nothing may be left of it in the loop."""

    async def whole() -> None:
        await story(Source())
        await asyncio.sleep(0)
        assert {asyncio.current_task()} == asyncio.all_tasks()

    asyncio.run(whole(), debug=False)


class TestGet:
    def test_loads_once(self) -> None:
        """Many tasks, one load."""

        async def story(source: Source) -> None:
            source.go_on.clear()
            cache = make(source)
            tasks = [asyncio.create_task(cache.aget("a")) for _ in range(200)]
            await until(lambda: counted(cache, "load_joined") == (199,))
            source.go_on.set()
            assert ["a!"] * 200 == await asyncio.gather(*tasks)
            assert ["a"] == source.calls
            assert "a!" == await cache.aget("a")
            assert 1 == counted(cache, "load_total")[0]

        run(story)

    def test_entry_and_options(self) -> None:
        """The twins of the others."""

        async def story(source: Source) -> None:
            cache = make(source)
            assert await cache.aget("a", MISS, disable_load=True) is MISS
            entry = await cache.aget_entry("a")
            assert ("a!", "loader") == (entry.value, entry.tier)
            entry = await cache.aget_entry("a")
            assert ("a!", "local") == (entry.value, entry.tier)
            assert "b!" == await LevelCache("other").aget_or_load("b", source.load, ttl=5)
            assert "a!" == await cache.arefresh("a")

        run(story)

    def test_errors(self) -> None:
        """A loader that raises, with and without a stale value."""

        async def story(source: Source) -> None:
            cache = make(source, stale_on_error=True)
            source.error = ValueError()
            with pytest.raises(LoaderError) as raised:
                await cache.aget("a")
            assert source.error is raised.value.__cause__
            cache.set("a", "old")
            cache.expire("a")
            entries = [await cache.aget_entry("a") for _ in range(3)]
            assert [("old", True)] * 3 == [(each.value, each.stale) for each in entries]
            assert 2 == len(source.calls)

        run(story)

    def test_failure_is_the_leaders(self) -> None:
        """The next of those who wait loads."""

        async def story(source: Source) -> None:
            cache = make(source)
            source.go_on.clear()
            source.error = ValueError()
            tasks = [asyncio.create_task(cache.aget("a")) for _ in range(5)]
            await until(lambda: counted(cache, "load_joined") == (4,))
            source.go_on.set()
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
            assert 5 == sum(isinstance(each, LoaderError) for each in outcomes)
            assert 5 == len(source.calls)

        run(story)

    def test_reentry(self) -> None:
        """A loader that asks for its own key, also in a task of its own."""

        async def load(key: Any) -> Any:
            return await asyncio.create_task(cache.aget(key))

        async def story(_: Source) -> None:
            with pytest.raises(LoaderError) as raised:
                await cache.aget("a")
            assert "very key" in str(raised.value.__cause__)

        cache = make(load)
        run(story)

    def test_context(self) -> None:
        """It is given what a sync one is, and sees the caller's context variables."""
        variable = contextvars.ContextVar("variable", default=0)

        async def load(key: Any, context: LoadContext) -> Any:
            context.skip()
            return variable.get()

        async def story(_: Source) -> None:
            variable.set(5)
            assert 5 == await make(load).aget("a")
            assert "a" not in make(load)

        run(story)

    def test_sync_on_the_loop(self) -> None:
        """A sync get that would wait for a task of its own loop loads on its own."""

        async def story(source: Source) -> None:
            source.go_on.clear()
            cache, other = make(source), make(str)
            task = asyncio.create_task(cache.aget("a"))
            await until(lambda: source.calls)
            assert "a" == other.get("a")
            source.go_on.set()
            assert "a!" == await task

        run(story)

    def test_threads_and_loops(self) -> None:
        """Two loops and a thread share one load."""
        go_on = threading.Event()
        calls = []

        def load(key: Any) -> Any:
            calls.append(key)
            assert go_on.wait(20)
            return "value"

        cache = make(load)
        outcomes: list[Any] = []
        threads = [
            threading.Thread(target=lambda: outcomes.append(asyncio.run(cache.aget("a")))),
            threading.Thread(target=lambda: outcomes.append(asyncio.run(cache.aget("a")))),
            threading.Thread(target=lambda: outcomes.append(cache.get("a"))),
        ]
        for each in threads:
            each.start()
        while counted(cache, "load_joined") != (2,):
            time.sleep(0.002)
        go_on.set()
        for each in threads:
            each.join(20)
        assert (["value"] * 3, ["a"]) == (outcomes, calls)


class TestSyncLoader:
    def test_not_on_the_loop(self) -> None:
        """It runs in a thread, in the area's surroundings, with the caller's context."""
        variable = contextvars.ContextVar("variable", default=0)
        where: list[Any] = []

        @contextlib.contextmanager
        def around() -> Iterator[None]:
            where.append("begin")
            yield
            where.append("end")

        def load(key: Any) -> Any:
            where.append((threading.current_thread() is threading.main_thread(), variable.get()))
            time.sleep(0.1)
            return key

        async def story(_: Source) -> None:
            variable.set(7)
            cache = make(load, background=around)
            ticks = 0
            task = asyncio.create_task(cache.aget("a"))
            while not task.done():
                await asyncio.sleep(0.01)
                ticks += 1
            assert "a" == await task
            assert ticks > 3
            assert ["begin", (False, 7), "end"] == where

        run(story)

    def test_plain_function_with_coroutine(self) -> None:
        """A function that makes a coroutine is as good as an async one."""

        async def story(source: Source) -> None:
            cache = make(lambda key: source.load(key * 2))
            assert "aa!" == await cache.aget("a")
            source.error = ValueError()
            with pytest.raises(LoaderError):
                await cache.aget("b")

        run(story)

    def test_late(self) -> None:
        """A late one is not stopped: its value counts, or a stale one answers at once."""

        async def story(_: Source) -> None:
            cache = make(lambda key: time.sleep(0.1) or "late", loader_timeout=0.03)
            assert "late" == await cache.aget("a")
            assert (1, 0) == counted(cache, "load_timeout", "load_success")
            cache = make(
                lambda key: time.sleep(0.1) or "late", loader_timeout=0.03, stale_on_error=True
            )
            cache.set("b", "old")
            cache.expire("b")
            assert "old" == await cache.aget("b")
            await until(lambda: cache.peek("b") == "late")
            assert (2, 0) == counted(cache, "load_timeout", "load_success")
            await asyncio.sleep(0.01)

        run(story)

    def test_late_and_failing(self) -> None:
        """A late one that raises in the end has failed: its caller is not cancelled."""

        def load(key: str) -> Any:
            time.sleep(0.1)
            raise ValueError(key)

        async def story(_: Source) -> None:
            cache = make(load, loader_timeout=0.03)
            with pytest.raises(LoaderError) as caught:
                await cache.aget("a")
            assert isinstance(caught.value.__cause__, ValueError)
            assert (1, 1, 0) == counted(cache, "load_total", "load_timeout", "load_error")

        run(story)

    def test_late_and_failing_with_stale(self) -> None:
        """Who was answered with a stale value when it was late is not answered twice."""

        def load(key: str) -> Any:
            time.sleep(0.1)
            raise ValueError(key)

        async def story(_: Source) -> None:
            cache = make(load, loader_timeout=0.03, stale_on_error=True, error_ttl=60)
            cache.set("a", "old")
            cache.expire("a")
            assert "old" == await cache.aget("a")
            await until(lambda: cache._pausing("a"))
            await asyncio.sleep(0.01)
            assert (1, 0, 1) == counted(cache, "load_timeout", "load_error", "stale_fallback")

        run(story)

    def test_late_before_its_coroutine(self) -> None:
        """A function that makes a coroutine too late gives the late value."""

        async def story(source: Source) -> None:
            cache = make(lambda key: time.sleep(0.1) or source.load(key), loader_timeout=0.03)
            assert "a!" == await cache.aget("a")
            assert (1, 0) == counted(cache, "load_timeout", "load_success")

        run(story)

    def test_stop_iteration(self) -> None:
        """next() of nothing in a loader is a failure like others, and hangs nobody."""

        async def story(_: Source) -> None:
            with pytest.raises(LoaderError):
                await asyncio.wait_for(make(lambda key: next(iter(()))).aget("a"), 5)

        run(story)

    def test_its_own_key(self) -> None:
        """Re-entry is noticed across the thread."""

        async def story(_: Source) -> None:
            with pytest.raises(LoaderError):
                await cache.aget("a")

        cache = make(FnLoader(lambda key: [cache.get(key)]))
        run(story)


class TestTimeouts:
    def test_loader(self) -> None:
        """An async loader is cancelled; waiters lead next."""

        async def story(source: Source) -> None:
            source.go_on.clear()
            cache = make(source, loader_timeout=0.03)
            with pytest.raises(LoaderTimeout):
                await cache.aget("a")
            assert 1 == source.cancelled
            assert (1, 0) == counted(cache, "load_timeout", "load_error")

        run(story)

    def test_loader_with_stale(self) -> None:
        """Or the stale value is the answer, with a pause."""

        async def story(source: Source) -> None:
            source.go_on.clear()
            cache = make(source, loader_timeout=0.03, stale_on_error=True)
            cache.set("a", "old")
            cache.expire("a")
            assert ["old", "old"] == [await cache.aget("a") for _ in range(2)]
            assert ["a"] == source.calls

        run(story)

    def test_stubborn_loader(self) -> None:
        """One that does not end when it is cancelled delays nobody."""
        go_on = asyncio.Event()

        async def load(key: Any) -> Any:
            while not go_on.is_set():
                with contextlib.suppress(asyncio.CancelledError):
                    await go_on.wait()
            return "too late"

        async def story(_: Source) -> None:
            cache = make(load, loader_timeout=0.03)
            with pytest.raises(LoaderTimeout):
                await cache.aget("a")
            go_on.set()
            await asyncio.sleep(0.01)
            assert "a" not in cache

        run(story)

    def test_wait(self) -> None:
        """Past its limit a waiter loads on its own."""

        async def story(source: Source) -> None:
            source.go_on.clear()
            cache = make(source, wait_timeout=0.03)
            tasks = [asyncio.create_task(cache.aget("a")) for _ in range(2)]
            await until(lambda: len(source.calls) == 2)
            source.go_on.set()
            assert ["a!", "a!"] == await asyncio.gather(*tasks)
            assert (1, 1) == counted(cache, "load_wait_timeout", "load_alone")

        run(story)

    def test_lease(self, isolated: testing.Isolated) -> None:
        """A lease that has passed is taken over."""

        async def story(source: Source) -> None:
            source.go_on.clear()
            cache = make(source)
            first = asyncio.create_task(cache.aget("a"))
            await until(lambda: source.calls)
            second = asyncio.create_task(cache.aget("a"))
            await until(lambda: counted(cache, "load_joined") == (1,))
            isolated.clock.advance(31)
            await until(lambda: len(source.calls) == 2)
            source.go_on.set()
            assert ["a!", "a!"] == await asyncio.gather(first, second)
            assert (1,) == counted(cache, "load_taken_over")

        run(story)


class TestCancel:
    def test_last_waiter(self, isolated: testing.Isolated) -> None:
        """With the last who waits goes the load."""

        async def story(source: Source) -> None:
            source.go_on.clear()
            cache = make(source, stale_on_error=True)
            cache.set("a", "old")
            cache.expire("a")
            task = asyncio.create_task(cache.aget("a"))
            await until(lambda: source.calls)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert [] == isolated.memory.flights()
            await until(lambda: source.cancelled)
            source.go_on.set()
            assert "a!" == await cache.aget("a")

        run(story)

    def test_stubborn_loader(self, isolated: testing.Isolated) -> None:
        """The next caller does not wait for a loader that does not end; what it says is lost."""

        async def story(source: Source) -> None:
            go_on = asyncio.Event()

            async def load(key: Any) -> Any:
                begun.release()
                while not go_on.is_set():
                    with contextlib.suppress(asyncio.CancelledError):
                        await go_on.wait()
                if key == "b":
                    raise ValueError
                return "too late"

            begun = asyncio.Semaphore(0)
            cache = make(load, loader_timeout=0.1)
            for key in "ab":
                task = asyncio.create_task(cache.aget(key))
                await begun.acquire()
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                assert [] == isolated.memory.flights()
            assert "a!" == await cache.aget_or_load("a", source.load)
            await asyncio.sleep(0.15)
            go_on.set()
            await until(lambda: counted(cache, "load_error") == (2,))
            assert "a!" == cache.peek("a")
            assert (3, 1, 0, 0) == counted(
                cache, "load_total", "load_success", "load_timeout", "load_lease_lost"
            )
            await asyncio.sleep(0)

        run(story)

    def test_sync_loader(self, isolated: testing.Isolated) -> None:
        """What runs in a thread cannot be stopped: who asks next waits for it, and gets it."""
        go_on = threading.Event()
        calls: list[Any] = []

        def load(key: Any) -> Any:
            calls.append(key)
            assert go_on.wait(20)
            return f"{key}!"

        async def story(_: Source) -> None:
            cache = make(load)
            task = asyncio.create_task(cache.aget("a"))
            await until(lambda: calls)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert 1 == len(isolated.memory.flights())
            task = asyncio.create_task(cache.aget("a"))
            await until(lambda: counted(cache, "load_joined") == (1,))
            go_on.set()
            assert "a!" == await task
            assert ["a"] == calls
            await asyncio.sleep(0)

        run(story)

    def test_before_a_soft_timeout(self, isolated: testing.Isolated) -> None:
        """A load goes on behind an answer, and not for a caller that has gone without one."""

        async def story(source: Source) -> None:
            source.go_on.clear()
            cache = make(source, soft_timeout=3, stale_on_error=True)
            cache.set("a", "old")
            cache.expire("a")
            task = asyncio.create_task(cache.aget("a"))
            await until(lambda: source.calls)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert [] == isolated.memory.flights()
            await until(lambda: source.cancelled)

        run(story)

    def test_at_once(self, isolated: testing.Isolated) -> None:
        """Also before the load has begun."""

        async def story(source: Source) -> None:
            cache = make(source)
            task = asyncio.create_task(cache.aget("a"))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert [] == isolated.memory.flights()

        run(story)

    def test_others_wait(self) -> None:
        """A leader's caller that goes does not take the load with it; the last waiter does."""

        async def story(source: Source) -> None:
            source.go_on.clear()
            cache = make(source)
            tasks = [asyncio.create_task(cache.aget("a")) for _ in range(3)]
            await until(lambda: counted(cache, "load_joined") == (2,))
            tasks[0].cancel()
            await asyncio.sleep(0.12)
            assert 0 == source.cancelled
            tasks[1].cancel()
            source.go_on.set()
            assert "a!" == await tasks[2]
            assert ["a"] == source.calls

            source.go_on.clear()
            tasks = [asyncio.create_task(cache.aget("b")) for _ in range(3)]
            await until(lambda: counted(cache, "load_joined") == (4,))
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await until(lambda: source.cancelled)

        run(story)

    def test_loader_cancels_itself(self) -> None:
        """What a loader lets through is no stale answer."""

        async def load(key: Any) -> Any:
            raise asyncio.CancelledError

        async def story(_: Source) -> None:
            cache = make(load, stale_on_error=True)
            cache.set("a", "old")
            cache.expire("a")
            with pytest.raises(asyncio.CancelledError):
                await cache.aget("a")

        run(story)

    def test_generator_exit(self) -> None:
        """Whatever a loader raises is what its caller gets."""

        async def load(key: Any) -> Any:
            raise GeneratorExit

        async def story(_: Source) -> None:
            cache = make(load, stale_on_error=True)
            cache.set("a", "old")
            cache.expire("a")
            with pytest.raises(GeneratorExit):
                await cache.aget("a")

        run(story)

    def test_loop_ends(self, isolated: testing.Isolated) -> None:
        """A loop that ends frees what its tasks led."""

        async def whole() -> None:
            source = Source()
            source.go_on.clear()
            tasks.append(asyncio.create_task(make(source).aget("a")))
            await until(lambda: source.calls)

        tasks: list[Any] = []
        asyncio.run(whole())
        assert [] == isolated.memory.flights()

    @pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
    def test_closed_loop(self, isolated: testing.Isolated) -> None:
        """A caller that is ended after its loop was closed under it frees what it led."""
        source = Source()
        source.go_on.clear()
        calls = source.calls
        loop = asyncio.new_event_loop()
        caller = make(source).aget("a")
        task = loop.create_task(caller)
        loop.run_until_complete(until(lambda: calls))
        loop.close()
        assert 1 == len(isolated.memory.flights())
        caller.close()
        assert [] == isolated.memory.flights()
        del task, caller, source, loop
        gc.collect()

    def test_deadline_of_the_caller(self) -> None:
        """asyncio.timeout around a get works as around anything."""

        async def story(source: Source) -> None:
            source.go_on.clear()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.03):
                    await make(source).aget("a")
            await until(lambda: source.cancelled)

        run(story)


class TestSoft:
    def test_leader(self) -> None:
        """The stale value in time, and the load goes on."""

        async def story(source: Source) -> None:
            cache = make(source, soft_timeout=0.03, stale_on_error=True)
            assert "a!" == await cache.aget("a")
            cache.expire("a")
            source.go_on.clear()
            assert ["a!", "a!"] == [await cache.aget("a") for _ in range(2)]
            source.go_on.set()
            await until(lambda: "a" in cache)
            assert ["a", "a"] == source.calls
            await asyncio.sleep(0.01)

        run(story)

    def test_at_once(self) -> None:
        """Zero answers at once."""

        async def story(source: Source) -> None:
            cache = make(source, soft_timeout=0, stale_on_error=True)
            cache.set("a", "old")
            cache.expire("a")
            source.go_on.clear()
            assert ["old"] * 20 == await asyncio.gather(*(cache.aget("a") for _ in range(20)))
            assert {"a": "old"} == await cache.amget(["a"])
            source.go_on.set()
            await until(lambda: "a" in cache)
            assert ["a"] == source.calls
            await asyncio.sleep(0.01)

        run(story)

    def test_failing(self) -> None:
        """A failure in the background is quiet."""

        async def story(source: Source) -> None:
            told = []
            asyncio.get_running_loop().set_exception_handler(lambda _, what: told.append(what))
            cache = make(source, soft_timeout=0, stale_on_error=True)
            cache.set("a", "old")
            cache.expire("a")
            source.error = ValueError()
            assert "old" == await cache.aget("a")
            await until(lambda: counted(cache, "load_error") == (1,))
            assert ["old"] * 3 == [await cache.aget("a") for _ in range(3)]
            assert ([], ["a"]) == (told, source.calls)

        run(story)


class TestRefreshAhead:
    @pytest.mark.parametrize("is_async", [False, True])
    def test_in_a_task(self, isolated: testing.Isolated, is_async: bool) -> None:
        """A task of the loop does it, whatever the loader is, and whatever method found it."""

        async def story(source: Source) -> None:
            loader = source.load if is_async else (lambda key: time.sleep(0.05) or f"{key}!")
            options = {"refresh_ahead": True, "refresh_ahead_window": 5}
            cache = make(loader, **options)
            for method in (cache.aget, cache.amget, cache.get):
                cache.set("a", "old")
                isolated.clock.advance(56)
                before = time.monotonic()
                if method == cache.amget:
                    assert {"a": "old"} == await method(["a"])
                elif method == cache.aget:
                    assert "old" == await method("a")
                else:
                    assert "old" == method("a")
                assert time.monotonic() - before < 0.04
                await until(lambda: cache.peek("a") == "a!")
            await asyncio.sleep(0.01)
            assert (3, 3) == counted(cache, "refresh_attempts", "refresh_success")

        run(story)

    def test_failing(self, isolated: testing.Isolated) -> None:
        """Quiet, counted, paused."""

        async def story(source: Source) -> None:
            cache = make(source, refresh_ahead=True, refresh_ahead_window=5)
            cache.set("a", "old")
            source.error = ValueError()
            isolated.clock.advance(56)
            for _ in range(3):
                assert "old" == await cache.aget("a")
                await until(lambda: counted(cache, "refresh_failures") == (1,))
            assert ["a"] == source.calls

        run(story)

    def test_async_loader_without_loop(self, isolated: testing.Isolated) -> None:
        """A sync hit cannot refresh with it, and is a hit all the same."""

        async def load(key: Any) -> Any:
            return key

        cache = make(load, refresh_ahead=True, refresh_ahead_window=5)
        cache.set("a", "old")
        isolated.clock.advance(56)
        assert "old" == cache.get("a")
        assert (0,) == counted(cache, "refresh_attempts")


class TestMget:
    def test_one_batch(self) -> None:
        """One call for all that is missing."""

        async def story(_: Source) -> None:
            source = Batches()
            cache = make(source)
            cache.set("b", "there")
            assert {"a": "a!", "b": "there", "c": "c!"} == await cache.amget(["a", "b", "c"])
            assert [["a", "c"]] == source.batches

        run(story)

    def test_at_the_same_time(self) -> None:
        """Without mload, several loaders run at a time."""

        async def story(source: Source) -> None:
            cache = make(source)
            source.go_on.clear()
            task = asyncio.create_task(cache.amget(range(40)))
            await until(lambda: len(source.calls) == 16)
            await asyncio.sleep(0.01)
            assert 16 == len(source.calls)
            source.go_on.set()
            assert {n: f"{n}!" for n in range(40)} == await task

        run(story)

    def test_overlap(self) -> None:
        """Keys that others load are joined."""

        async def story(source: Source) -> None:
            batches = Batches()
            cache, other = make(source), make(batches)
            source.go_on.clear()
            first = asyncio.create_task(cache.aget("b"))
            await until(lambda: source.calls)
            second = asyncio.create_task(other.amget(["a", "b", "c"]))
            await until(lambda: "a" in cache and "c" in cache)
            source.go_on.set()
            assert {"a": "a!", "b": "b!", "c": "c!"} == await second
            assert "b!" == await first
            assert [["a", "c"]] == batches.batches

        run(story)

    def test_sync_batch(self) -> None:
        """A batch loader that is not async runs in a thread."""

        def mload(keys: list[Any], context: BatchContext) -> dict[Any, Any]:
            context.complete()
            assert threading.current_thread() is not threading.main_thread()
            return {"a": 1}

        async def story(_: Source) -> None:
            cache = make(FnLoader(lambda key: 0, mload))
            assert {"a": 1, "b": None} == await cache.amget(["a", "b"], 5)

        run(story)

    def test_failing(self) -> None:
        """One key's failure is the call's, after the others are stored."""

        async def load(key: Any) -> Any:
            if key == "b":
                raise ValueError
            return key

        async def story(_: Source) -> None:
            cache = make(load)
            with pytest.raises(LoaderError):
                await cache.amget(["a", "b", "c"])
            assert "c" in cache

        run(story)

    def test_cancelled(self) -> None:
        """A batch that nobody waits for is cancelled."""

        async def story(_: Source) -> None:
            source = Batches()
            source.go_on.clear()
            task = asyncio.create_task(make(source).amget(["a", "b"]))
            await until(lambda: source.calls)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await until(lambda: source.cancelled)

        run(story)

    def test_warmup(self) -> None:
        """The twin of warmup."""

        async def story(source: Source) -> None:
            cache = make(source, warmup_enabled=True, warmup_batch_size=4)
            assert 10 == await cache.awarmup(range(10))
            source.error = ValueError()
            with pytest.raises(LoaderError):
                await cache.awarmup([11])

        run(story)


class TestBell:
    def test_without_a_bell(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A process that has no file descriptor left looks by itself."""

        def fail(*_: Any) -> Any:
            raise OSError("too many open files")

        monkeypatch.setattr(aflight, "_loop_ringer", fail)
        TestGet().test_loads_once()

    def test_gone_with_the_loop(self) -> None:
        """Nothing of a loop is kept when it has ended."""
        TestGet().test_loads_once()
        gc.collect()
        assert [] == [loop for loop in aflight._loop_ringers if loop.is_closed()]
