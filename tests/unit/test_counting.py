"""What is counted where it once was wrong; ``test_counters`` is about all of it."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from accelerator import BackendError, ConfigError, LevelCache, LoaderError, local, testing


@pytest.fixture(autouse=True)
def isolated() -> Iterator[testing.Isolated]:
    with testing.isolated() as own:
        yield own


def make(loader: Any = None, **options: Any) -> LevelCache:
    return LevelCache("area", **{"ttl_jitter_ratio": None, "loader": loader, **options})


def counted(cache: LevelCache, *names: str) -> tuple[int, ...]:
    metrics = cache.metrics_snapshot()
    return tuple(metrics[name] for name in names)


def timed(cache: LevelCache) -> int:
    """How many loads the histogram has."""
    return sum(cache._latencies()[:-1])


class End(BaseException):
    """What ends a worker."""


class TestLatency:
    """Each load that has ended is in the histogram, once, however it has ended."""

    def test_base_exception(self) -> None:
        """A loader that is left by what is no Exception."""

        def load(key: str) -> str:
            raise End

        cache = make(load)
        with pytest.raises(End):
            cache.get("key")
        assert (1, 1) == counted(cache, "load_total", "load_error")
        assert 1 == timed(cache)

    def test_async_base_exception(self) -> None:
        """The same in a task."""

        async def load(key: str) -> str:
            raise End

        cache = make(load)
        with pytest.raises(End):
            asyncio.run(cache.aget("key"))
        assert (1, 1) == counted(cache, "load_total", "load_error")
        assert 1 == timed(cache)

    def test_awaitable(self) -> None:
        """A plain function that answers with a coroutine where there is no loop."""

        async def answer() -> str:
            return ""

        cache = make(lambda _: answer())
        with pytest.raises(ConfigError):
            cache.get("key")
        assert (1, 1) == counted(cache, "load_total", "load_error")
        assert 1 == timed(cache)

    def test_cancelled(self) -> None:
        """A load that was cancelled, as nobody wanted it any more."""

        async def load(key: str) -> None:
            await asyncio.sleep(60)

        async def cancel() -> None:
            task = asyncio.create_task(cache.aget("key"))
            await asyncio.sleep(0.01)
            task.cancel()
            await asyncio.wait([task])

        cache = make(load)
        asyncio.run(cancel())
        assert (1, 1) == counted(cache, "load_total", "load_error")
        assert 1 == timed(cache)

    def test_does_not_mind_being_cancelled(self) -> None:
        """One that ends in an answer all the same."""

        async def load(key: str) -> str:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                ended.set()
            return "late"

        async def cancel() -> None:
            task = asyncio.create_task(cache.aget("key"))
            await asyncio.sleep(0.01)
            task.cancel()
            await ended.wait()
            await asyncio.wait([task])

        ended = asyncio.Event()
        cache = make(load)
        asyncio.run(cancel())
        assert (1, 1) == counted(cache, "load_total", "load_error")
        assert 1 == timed(cache)

    @pytest.mark.parametrize("raises", [False, True])
    def test_late_in_a_thread(self, raises: bool) -> None:
        """One in a thread that is late, and is waited for all the same."""

        def load(key: str) -> str:
            late.wait(20)
            if raises:
                raise ValueError
            return "late"

        async def get() -> None:
            task = asyncio.create_task(cache.aget("key"))
            while counted(cache, "load_timeout") == (0,):  # noqa: ASYNC110  nothing tells
                await asyncio.sleep(0.002)
            late.set()
            await asyncio.wait([task])
            task.exception()

        late = threading.Event()
        cache = make(load, loader_timeout=0.02)
        asyncio.run(get())
        assert (1, 1, 0, 0) == counted(
            cache, "load_total", "load_timeout", "load_success", "load_error"
        )
        assert 1 == timed(cache)

    def test_surroundings_that_fail(self) -> None:
        """What is around a load in the background fails behind it: still one load."""

        class Around:
            def __enter__(self) -> None:
                pass

            def __exit__(self, *_: object) -> None:
                left.set()
                raise ValueError

        def load(key: str) -> str:
            return "new"

        left = threading.Event()
        options = {"refresh_ahead": True, "refresh_ahead_window": 50, "local_ttl": 60}
        cache = make(load, background=Around, **options)
        cache.set("key", "old", ttl=30)
        assert "old" == cache.get("key")
        assert left.wait(20)
        for thread in threading.enumerate():
            if thread.name.startswith("accelerator"):
                thread.join(0.05)
        assert (1, 1, 0) == counted(cache, "load_total", "load_success", "load_error")
        assert 1 == timed(cache)


class TestStale:
    def test_soft_and_late(self) -> None:
        """A read that is answered with a stale value after a while, and whose load then is late."""

        def load(key: str) -> str:
            late.wait(20)
            return "new"

        async def get() -> None:
            assert "old" == await cache.aget("key")
            assert (1,) == counted(cache, "stale_fallback")
            while counted(cache, "load_timeout") == (0,):  # noqa: ASYNC110  nothing tells
                await asyncio.sleep(0.002)
            late.set()

        late = threading.Event()
        cache = make(
            load,
            soft_timeout=0.01,
            loader_timeout=0.05,
            stale_on_error=True,
            background=contextlib.nullcontext,
        )
        cache.set("key", "old")
        cache.expire("key")
        asyncio.run(get())
        assert (1, 1) == counted(cache, "local_miss", "stale_fallback")


class TestReads:
    @pytest.mark.parametrize("loader", [None, lambda key: key], ids=["", "loader"])
    def test_same_key_twice(self, loader: Any) -> None:
        """A key that many are asked for with is one read, also where Python asks."""
        cache = make(loader, warmup_enabled=loader is not None)
        cache.set("here", 1.5)
        asyncio.run(cache.amget(["here", "here", "gone", "gone"], disable_load=True))
        assert (1, 1) == counted(cache, "local_hit", "local_miss")
        cache.mget(["here", "here", "gone", "gone"], max_staleness=9)
        assert (2, 2) == counted(cache, "local_hit", "local_miss")

    def test_warmup(self) -> None:
        """The same of a warmup."""
        cache = make(lambda key: key, warmup_enabled=True)
        assert 2 == cache.warmup(["one", "one", "two"])
        assert (0, 2, 2) == counted(cache, "local_hit", "local_miss", "load_total")


class TestBusy:
    @pytest.mark.skipif(not local.NATIVE, reason="private memory has no locks")
    @pytest.mark.parametrize(
        "operation",
        [
            lambda cache: cache.incr("key"),
            lambda cache: cache.add("new", 1),
            lambda cache: cache.touch("key"),
        ],
    )
    def test_decisions(
        self, isolated: testing.Isolated, operation: Callable[[LevelCache], Any]
    ) -> None:
        """Each write that was given up is counted, whatever it was."""
        cache = make()
        cache.set("key", 5)
        shards = range(isolated.memory.stats()["segment"]["shards"])
        for shard in shards:
            isolated.memory.lock_shard(shard)
        with pytest.raises(BackendError):
            operation(cache)
        for shard in shards:
            isolated.memory.unlock_shard(shard)
        assert (1,) == counted(cache, "lock_giveup")


def test_error_is_what_a_loader_error_is() -> None:
    """A load that raises is one load, one error, one duration."""

    def load(key: str) -> str:
        raise ValueError

    cache = make(load)
    with pytest.raises(LoaderError):
        cache.get("key")
    assert (1, 1, 0, 0) == counted(
        cache, "load_total", "load_error", "load_success", "load_timeout"
    )
    assert 1 == timed(cache)
