"""LevelCache itself: options, subclasses, async twins, logs, and what is not there yet."""

import asyncio
import gc
import inspect
import logging
import os
import subprocess
import sys
import textwrap
import threading
import types
import weakref
from collections.abc import Callable, Iterator
from dataclasses import fields
from typing import Any

import pytest

import accelerator
from accelerator import (
    MISS,
    BackendError,
    CacheMode,
    ConfigError,
    LevelCache,
    LoaderError,
    ReadOptions,
    SerializationError,
    local,
    runtime,
    testing,
)
from accelerator.cache import AreaOptions
from accelerator.config import AreaConfig, Settings
from accelerator.observability import oplog
from accelerator.runtime import SettingValues

HIT_METHODS = ("get", "mget", "set")
TWINS = {
    "get",
    "mget",
    "peek",
    "get_entry",
    "get_or_load",
    "refresh",
    "warmup",
    "set",
    "mset",
    "add",
    "touch",
    "incr",
    "decr",
    "delete",
    "mdelete",
    "expire",
    "clear",
    "delete_tags",
    "expire_tags",
}


@pytest.fixture(autouse=True)
def isolated() -> Iterator[testing.Isolated]:
    with testing.isolated() as own:
        yield own


@pytest.fixture
def cache() -> LevelCache:
    return LevelCache("area")


class TestOptions:
    def test_defaults(self) -> None:
        """No argument at all is the area "default"."""
        config = LevelCache().config
        assert ("default", None, 60.0, 30.0) == (
            config.area,
            config.mode,
            config.local_ttl,
            config.null_ttl,
        )

    def test_known_to_type_checkers(self) -> None:
        """What type checkers are told about options and settings is all that there is."""
        named = set(AreaOptions.__annotations__) | {"area", "loader"}
        assert named == {f.name for f in fields(AreaConfig)}
        assert set(SettingValues.__annotations__) == {f.name for f in fields(Settings)}

    @pytest.mark.parametrize(
        ("options", "setting"),
        [
            ({"local_ttl": 0}, "local_ttl"),
            ({"local_ttl": "soon"}, "local_ttl"),
            ({"null_ttl": -1}, "null_ttl"),
            ({"ttl_jitter_ratio": 1.5}, "ttl_jitter_ratio"),
            ({"max_value_size": 0}, "max_value_size"),
            ({"objects": "all"}, "objects"),
            ({"codec": "json"}, "codec"),
            ({"mode": "sideways"}, "mode"),
            ({"nonsense": 1}, "nonsense"),
            ({"refresh_ahead": True}, "refresh_ahead"),
            ({"mode": "local", "broadcast_invalidation": True}, "broadcast_invalidation"),
            ({"allow_stale": True, "stale_ttl": 0}, "stale_ttl"),
            ({"soft_timeout": 1}, "soft_timeout"),
            ({"loader": 5}, "loader"),
        ],
        ids=str,
    )
    def test_wrong(self, options: dict[str, Any], setting: str) -> None:
        """What is wrong or can never have an effect is refused at once, by name."""
        with pytest.raises(ConfigError, match=setting) as raised:
            LevelCache("area", **options)
        assert (setting, "area") == (raised.value.setting, raised.value.area)

    @pytest.mark.parametrize("mode", ["both", CacheMode.REMOTE])
    def test_needs_redis(self, mode: Any) -> None:
        """A mode with Redis needs one: said when the settings are known, at the first use."""
        cache = LevelCache("area", mode=mode)
        with pytest.raises(ConfigError, match="redis is not given") as raised:
            cache.get("key")
        assert "mode" == raised.value.setting

    @pytest.mark.parametrize(
        "options", [{"remote_ttl": 10}, {"on_desync": "serve"}, {"broadcast_sets": True}], ids=str
    )
    def test_of_the_absent_tier(self, options: dict[str, Any]) -> None:
        """Options of Redis are unused without Redis: the same code runs in development."""
        cache = LevelCache("area", **options)
        cache.set("key", 1)
        assert 1 == cache.get("key")

    @pytest.mark.parametrize("mode", [None, "local", CacheMode.LOCAL, "LOCAL"])
    def test_local(self, mode: Any) -> None:
        """Without Redis, no mode is LOCAL."""
        assert "local" == LevelCache(mode=mode).diagnostic_snapshot()["mode"]

    def test_off(self) -> None:
        """An area may be switched off on its own."""
        off, on = LevelCache("off", mode="off"), LevelCache("on")
        for cache in (off, on):
            cache.set("key", 1)
            cache.set("other", {"a": 1})
        assert (None, 1) == (off.get("key"), on.get("key"))
        assert "off" == off.diagnostic_snapshot()["mode"]

    def test_pickle(self) -> None:
        """codec="pickle" with a secret stores any class, and raw types as ever."""
        attachment = runtime.Attachment(
            local.private_segment(4 << 20, 1 << 18), Settings(secret="s"), "test"
        )
        former = runtime.swap(attachment)
        try:
            cache = LevelCache("area", codec="pickle")
            cache.mset({"a": types.SimpleNamespace(x=1), "b": 5})
            assert types.SimpleNamespace(x=1) == cache.get("a")
            assert 6 == cache.incr("b")
        finally:
            runtime.swap(former)


class TestClass:
    @pytest.mark.skipif(not local.NATIVE, reason="there is nothing to install")
    def test_own_methods(self) -> None:
        """The hit methods are C, and the class's own."""

        class Plain(LevelCache):
            pass

        for cls in (LevelCache, Plain):
            for name in HIT_METHODS:
                assert isinstance(cls.__dict__[name], types.MethodDescriptorType)
                assert cls is cls.__dict__[name].__objclass__

    def test_overridden(self) -> None:
        """A subclass's own method counts, also for its subclasses."""

        class Loud(LevelCache):
            def get(self, key: Any, default: Any = None, **options: Any) -> Any:
                return f"{super().get(key, default, **options)}!"

        class Louder(Loud):
            def set(self, key: Any, value: Any, *arguments: Any, **options: Any) -> None:
                super().set(key, f"{value}?", *arguments, **options)

        class Loudest(Louder):
            pass

        for cls, expected in ((Loud, "x!"), (Louder, "x?!"), (Loudest, "x?!")):
            cache = cls(cls.__name__)
            cache.set("key", "x")
            assert expected == cache.get("key")
            assert ["key"] == list(cache.mget(["key"]))

    def test_subclass_with_own_constructor(self) -> None:
        """A subclass may have attributes and arguments of its own."""

        class Own(LevelCache):
            def __init__(self, extra: int) -> None:
                super().__init__("own", local_ttl=5)
                self.extra = extra

        cache = Own(3)
        cache.set("key", 1)
        assert (3, 1) == (cache.extra, cache.get("key"))

    def test_collected(self) -> None:
        """Nothing keeps a cache object that nobody has any more."""
        cache = LevelCache("area")
        cache.set("key", (1, 2))
        cache.get("key")
        seen = weakref.ref(cache)
        del cache
        gc.collect()
        assert seen() is None

    def test_repr(self, cache: LevelCache) -> None:
        """It says which area it is."""
        assert "LevelCache('area')" == repr(cache)

    def test_many_objects(self) -> None:
        """Cache objects are thin handles: thousands of one area are one cache."""
        for number in range(2000):
            LevelCache("area").set(number, number)
        assert {n: n for n in range(2000)} == LevelCache("area").mget(range(2000))


class TestAsync:
    def test_all_have_one(self) -> None:
        """Every operation has an async twin with the same parameters."""
        for name in TWINS:
            twin = getattr(LevelCache, f"a{name}")
            assert inspect.iscoroutinefunction(twin)
            if name not in HIT_METHODS:
                ours = inspect.signature(getattr(LevelCache, name)).parameters.values()
                theirs = inspect.signature(twin).parameters.values()
                assert [(p.name, p.kind, p.default) for p in ours] == [
                    (p.name, p.kind, p.default) for p in theirs
                ]

    def test_same_answers(self, cache: LevelCache) -> None:
        """They do what their twins do."""

        async def run() -> None:
            await cache.aset("a", {"x": 1}, ttl=50)
            await cache.amset({"b": None, "c": 1})
            assert {"x": 1} == await cache.aget("a")
            assert "?" == await cache.aget("unknown", "?")
            assert "?" == await cache.aget("unknown", default="?", allow_stale=True)
            assert {"a": {"x": 1}, "b": None, "d": 0} == await cache.amget(["a", "b", "d"], 0)
            assert {"a": {"x": 1}} == await cache.amget(["a"], options=ReadOptions())
            assert 1 == await cache.apeek("c")
            entry = await cache.aget_entry("a")
            assert entry is not None
            assert {"x": 1} == entry.value
            assert not await cache.aadd("a", 1)
            assert await cache.atouch("a", 10)
            assert 3 == await cache.aincr("c", 2)
            assert 2 == await cache.adecr("c")
            assert await cache.aexpire("a")
            assert await cache.adelete("b")
            assert 1 == await cache.amdelete(["c", "c", "d"])
            await cache.aset("e", 1)
            await cache.aclear()
            assert await cache.aget("e", MISS) is MISS

        asyncio.run(run())

    def test_loaders(self, cache: LevelCache) -> None:
        """A loader may be async or not; what it raises is the cause of a LoaderError."""

        async def load(key: Any) -> Any:
            await asyncio.sleep(0)
            return [key]

        async def fail(key: Any) -> Any:
            raise ValueError(key)

        async def run() -> None:
            assert ["a"] == await cache.aget_or_load("a", load)
            assert ["a"] == await cache.aget_or_load("a", fail)
            assert "b" == await cache.aget_or_load("b", str)
            assert await cache.aget_or_load("c", fail, disable_load=True) is None
            with pytest.raises(LoaderError) as raised:
                await cache.aget_or_load("c", fail)
            assert isinstance(raised.value.__cause__, ValueError)

        asyncio.run(run())

    def test_cancelled(self, cache: LevelCache) -> None:
        """Cancelling a load is no error of the loader, and stores nothing."""

        async def load(key: Any) -> Any:
            await asyncio.sleep(60)

        async def run() -> None:
            task = asyncio.create_task(cache.aget_or_load("a", load))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        asyncio.run(run())
        assert "a" not in cache


class TestAio:
    """The view of a cache for async code."""

    def test_all(self, cache: LevelCache) -> None:
        """It has every twin under its name without the prefix, lock(), and nothing else."""
        view = {name: thing for name, thing in vars(cache.aio).items() if not name.startswith("_")}
        assert TWINS | {"lock"} == set(view)
        assert cache.lock == view.pop("lock")
        assert {name: getattr(cache, f"a{name}") for name in TWINS} == view

    def test_works(self, cache: LevelCache) -> None:
        """What is awaited there is done to the cache."""

        async def run() -> None:
            await cache.aio.set("key", [1], tags=["a"])
            assert [1] == await cache.aio.get("key")
            assert {"key": [1], "no": 0} == await cache.aio.mget(["key", "no"], 0)
            async with cache.aio.lock("name") as lock:
                assert lock.locked()
            await cache.aio.delete_tags("a")

        asyncio.run(run())
        assert "key" not in cache

    def test_kept(self, cache: LevelCache) -> None:
        """There is one for each cache object, and it keeps nothing alive."""
        assert cache.aio is cache.aio
        assert cache.aio is not LevelCache("area").aio
        assert "LevelCache('area').aio" == repr(cache.aio)
        seen = weakref.ref(LevelCache("other").aio)
        gc.collect()
        assert seen() is None

    def test_overridden(self) -> None:
        """A subclass's own methods are the view's."""

        class Loud(LevelCache):
            async def aget(self, key: Any, default: Any = None, **options: Any) -> Any:
                return f"{await super().aget(key, default, **options)}!"

        cache = Loud("loud")
        cache.set("key", "x")
        assert "x!" == asyncio.run(cache.aio.get("key"))


class TestTypes:
    """Types of keys and values: for type checkers, and without effect."""

    def test_in_brackets(self) -> None:
        """A class with types makes objects of the same class, with its hit methods."""
        cache = LevelCache[int, str]("area")
        assert type(cache) is LevelCache
        cache.set("no int", 5)  # type: ignore[arg-type]
        assert 5 == cache.get("no int")  # type: ignore[call-overload]

    def test_subclass(self) -> None:
        """So does a subclass of one."""

        class Users(LevelCache[int, str]):
            pass

        cache = Users("users", loader=str)
        assert "7" == cache.get(7)
        if local.NATIVE:
            assert Users is Users.__dict__["get"].__objclass__


class TestBusy:
    """A shard whose lock is held by somebody who does not move."""

    @pytest.fixture
    def busy(self, cache: LevelCache, isolated: testing.Isolated) -> Iterator[LevelCache]:
        if not local.NATIVE:
            pytest.skip("without the native part nobody keeps a lock")
        cache.mset({"key": 5, "other": [1]})
        shards = range(isolated.memory.stats()["segment"]["shards"])
        for shard in shards:
            isolated.memory.lock_shard(shard)
        yield cache
        for shard in shards:
            isolated.memory.unlock_shard(shard)

    def test_reads(self, busy: LevelCache) -> None:
        """Reads do not even notice."""
        assert {"key": 5, "other": [1]} == busy.mget(["key", "other"])

    def test_deletes(self, busy: LevelCache) -> None:
        """Nor do deletes."""
        assert busy.delete("key")
        assert busy.mdelete(["other"]) == 1
        busy.clear()

    def test_sets(self, busy: LevelCache) -> None:
        """A set that cannot be stored takes the older copy with it, and is logged as an error."""
        busy.set("key", 6)
        busy.set("other", {"a": 1})
        assert {"key": None, "other": None} == busy.mget(["key", "other"])
        assert 2 == busy.metrics_snapshot()["lock_giveup"]

    @pytest.mark.parametrize(
        "operation",
        [
            lambda cache: cache.incr("key"),
            lambda cache: cache.add("new", 1),
            lambda cache: cache.touch("key"),
        ],
    )
    def test_decisions(self, busy: LevelCache, operation: Callable[..., Any]) -> None:
        """What must be decided, and cannot be, is a BackendError."""
        with pytest.raises(BackendError, match="busy") as raised:
            operation(busy)
        assert "area" == raised.value.area
        assert raised.value.operation in {"incr", "add", "touch"}


class TestLog:
    @pytest.fixture(autouse=True)
    def fresh(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(oplog, "_last", {})

    def test_failure(self, cache: LevelCache, caplog: pytest.LogCaptureFixture) -> None:
        """A failed write is one line, with its fields for people and for machines."""
        with pytest.raises(SerializationError):
            cache.set("the-key", object())
        (record,) = [each for each in caplog.records if each.name == "accelerator.ops"]
        message = record.getMessage()
        assert message.startswith("area=area op=set result=error error_kind=serialization latency")
        assert ("area", "set", "error") == (record.area, record.op, record.result)
        assert "the-key" not in message

    def test_rate(
        self,
        cache: LevelCache,
        caplog: pytest.LogCaptureFixture,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """A failure that repeats is one line a second, which tells how many there were."""
        for _ in range(100):
            with pytest.raises(SerializationError):
                cache.set("key", object())
        assert 1 == len(caplog.records)
        monkeypatch.setattr(oplog, "INTERVAL", 0.0)
        with pytest.raises(SerializationError):
            cache.set("key", object())
        assert caplog.records[-1].getMessage().endswith(" suppressed=99")

    def test_success(self, cache: LevelCache, caplog: pytest.LogCaptureFixture) -> None:
        """Success is a line at DEBUG; a hit is none."""
        caplog.set_level(logging.DEBUG, "accelerator.ops")
        cache.mset({"a": 1})
        cache.set("b", {"a": 1})
        cache.get("a")
        cache.delete("a")
        cache.mdelete(["b"])
        cache.expire("c")
        cache.clear()
        assert [
            ("mset", "ok"),
            ("set", "ok"),
            ("del", "found"),
            ("mdel", "ok"),
            ("expire", "absent"),
            ("clear", "ok"),
        ] == [(record.op, record.result) for record in caplog.records]

    def test_lost_write(self, caplog: pytest.LogCaptureFixture, isolated: testing.Isolated) -> None:
        """A value that does not fit is logged as an error, and explained once."""
        cache = LevelCache("area", max_value_size="16MiB")
        for _ in range(3):
            cache.set("key", [b"x" * isolated.memory.max_item])
        cache.mset({"key": [b"x" * isolated.memory.max_item]})
        told = [each for each in caplog.records if "setting size" in each.getMessage()]
        assert 1 == len(told)
        failed = [each for each in caplog.records if each.name == "accelerator.ops"]
        assert {"set", "mset"} == {each.op for each in failed}
        assert {"error"} == {each.result for each in failed}


class TestSnapshots:
    def test_metrics(self, cache: LevelCache) -> None:
        """The counters by their public names."""
        cache.set("key", (1, 2))
        cache.mget(["key", "key", "unknown"])
        cache.get("key")
        counted = cache.metrics_snapshot()
        assert (3, 1) == (counted["local_hit"], counted["local_miss"])
        first = list(counted)[:16]
        assert ["local_hit", "local_miss", "remote_hit", "remote_miss", "load_total"] == first[:5]
        assert "invalidation_receive_failures" == first[15]

    def test_diagnostics(self) -> None:
        """Configuration as plain data, objects by name."""

        class Own:
            def encode(self, value: Any) -> tuple[int, bytes]:
                raise NotImplementedError

            def decode(self, code: int, payload: bytes) -> tuple[Any, bool]:
                raise NotImplementedError

        shown = LevelCache("area", codec=Own(), local_ttl="5m").diagnostic_snapshot()
        assert 300.0 == shown["config"]["local_ttl"]
        assert shown["config"]["codec"].endswith("Own")
        assert (True, False, False, False) == (
            shown["local_backend_ready"],
            shown["remote_backend_ready"],
            shown["loader_configured"],
            shown["invalidation_listener_started"],
        )
        assert shown["degraded"] is None


class TestThreads:
    def test_mixed(self, cache: LevelCache) -> None:
        """Threads that do everything at once see whole values only."""
        wrong: list[object] = []
        stop = threading.Event()

        def run(me: int) -> None:
            number = 0
            while not stop.is_set():
                number += 1
                key = number % 7
                cache.set(key, {"me": me, "again": me})
                found = cache.get(key)
                if found is not None and found["me"] != found["again"]:
                    wrong.append(found)
                if number % 5 == 0:
                    cache.delete(key)
                if number % 50 == 0:
                    cache.clear()
                cache.mget(range(7))

        threads = [threading.Thread(target=run, args=[n]) for n in range(4)]
        for thread in threads:
            thread.start()
        stop.wait(0.5)
        stop.set()
        for thread in threads:
            thread.join()
        assert [] == wrong


class TestSurface:
    def test_exports(self) -> None:
        """Everything in __all__ is there, and documented."""
        for name in accelerator.__all__:
            thing = getattr(accelerator, name)
            if inspect.isclass(thing) or inspect.isfunction(thing):
                assert thing.__doc__


class TestConvertedKeys:
    def test_answer_that_nobody_holds(self) -> None:
        """What a converter answers may be gone while the key made of it is still in use."""
        code = """
            from accelerator import LevelCache, testing
            with testing.isolated():
                cache = LevelCache("area", key_converter=lambda key: f"a key: {key}")
                plain = LevelCache("area")
                for key in range(100):
                    cache.set(key, key)
                    assert cache.get_or_load(key + 1000, lambda given: given) == key + 1000
                    assert plain.get(f"a key: {key}") == key, key
                    assert plain.get(f"a key: {key + 1000}") == key + 1000, key
                    assert cache.delete(key)
        """
        subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code)],
            env={**os.environ, "PYTHONMALLOC": "debug"},  # overwrites what is freed
            check=True,
        )
