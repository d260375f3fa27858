"""What an operation leaves in the ring of events, and in the log; over every kind of memory."""

import asyncio
import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from accelerator import CacheError, ConfigError, FnLoader, LoaderError, LoaderTimeout, LockTimeout
from accelerator.observability import events, oplog

Told = list[tuple[str, str, str]]


@pytest.fixture
def told(memory: Any) -> Callable[[], Told]:
    """Give op, result and error_kind of each event, the oldest first."""

    def give() -> Told:
        return [
            (each["op"], events.outcome(each), each["error_kind"])
            for each in reversed(memory.segment.events())
        ]

    return give


class Never:
    """A loader that never answers, one key or many."""

    async def load(self, key: str) -> None:
        await asyncio.Event().wait()

    async def mload(self, keys: Any) -> dict[str, Any]:
        await asyncio.Event().wait()
        return {}


class TestLoads:
    def test_ok(self, memory: Any, make: Any) -> None:
        """A load is one event with the hash of its key, its area and its process."""
        cache = make("users", loader=str.upper)
        before = time.time()
        assert "KEY" == cache.get("key")
        (event,) = memory.segment.events()
        assert ("users", "load", "ok", "none") == (
            event["area"],
            event["op"],
            event["result"],
            event["error_kind"],
        )
        assert (os.getpid(), cache._hash("key"), 1) == (
            event["pid"],
            event["hash"],
            event["count"],
        )
        assert before - 1 <= event["time"] <= time.time() + 1
        assert not event["running"]
        assert 0 <= event["latency_ms"] < 60_000

    def test_running(self, memory: Any, make: Any) -> None:
        """While the loader is asked, it is seen running, by whoever looks."""
        seen = []

        def load(key: str) -> str:
            seen.extend(memory.segment.events())
            return key

        make(loader=load).get("key")
        (event,) = seen
        assert (True, True, None) == (event["running"], event["alive"], event["latency_ms"])
        assert events.RUNNING == events.outcome(event)

    def test_batch(self, memory: Any, make: Any) -> None:
        """A load of many keys is one event of so many, without a hash."""
        loader = FnLoader(str.upper, lambda keys: {key: key.upper() for key in keys})
        make(loader=loader).mget(["a", "b", "c"])
        (event,) = memory.segment.events()
        assert ("mload", "ok", 3, 0) == (
            event["op"],
            event["result"],
            event["count"],
            event["hash"],
        )

    def test_one_by_one(self, memory: Any, make: Any) -> None:
        """Without mload each key of a batch is a load."""
        cache = make(loader=str.upper)
        cache.mget(["a", "b"])
        found = {each["hash"]: each["op"] for each in memory.segment.events()}
        assert {cache._hash("a"): "load", cache._hash("b"): "load"} == found

    def test_async(self, make: Any, told: Any) -> None:
        """An async loader's load is an event, too; so is a plain one's that runs in a thread."""

        async def load(key: str) -> str:
            return key.upper()

        assert "KEY" == asyncio.run(make(loader=load).aget("key"))
        assert "KEY" == asyncio.run(make("other", loader=str.upper).aget("key"))
        assert 2 * [("load", "ok", "none")] == told()

    @pytest.mark.parametrize("batch", [False, True], ids=["get", "mget"])
    def test_raises(self, make: Any, told: Any, batch: bool) -> None:
        """A loader that raises: its load has failed, and so has the operation."""

        def load(_: object) -> Any:
            raise KeyError

        cache = make(loader=FnLoader(load, load), error_ttl=0.001)
        with pytest.raises(LoaderError):
            cache.mget(["a", "b"]) if batch else cache.get("a")
        op = "mget" if batch else "get"
        load_op = "mload" if batch else "load"
        assert [(load_op, "error", "loader"), (op, "error", "loader")] == told()

    def test_no_mapping(self, make: Any, told: Any) -> None:
        """An mload that returns no mapping has failed."""
        cache = make(loader=FnLoader(str.upper, list), error_ttl=0.001)
        with pytest.raises(LoaderError):
            cache.mget(["a", "b"])
        assert ("mload", "error", "loader") == told()[0]

    @pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
    def test_ended_from_outside(self, make: Any, told: Any, error: Any) -> None:
        """What is no Exception ends the event as well."""

        def load(_: object) -> Any:
            raise error

        with pytest.raises(error):
            make(loader=load).get("key")
        assert [("load", "error", "cancelled")] == told()

    def test_awaitable(self, make: Any, told: Any) -> None:
        """A plain function that gives a coroutine to a plain get is a wrong configuration."""

        async def answer() -> None:
            pass

        with pytest.raises(ConfigError):
            make(loader=lambda _: answer()).get("key")
        assert [("load", "error", "invalid_config")] == told()

    def test_late(self, make: Any, told: Any) -> None:
        """One that cannot be stopped, and answers after its time."""

        def load(key: str) -> str:
            end = time.monotonic() + 0.02
            while time.monotonic() < end:
                pass
            return key

        assert "key" == make(loader=load, loader_timeout=0.001).get("key")
        assert [("load", "late", "timeout"), ("get", "error", "timeout")] == told()

    def test_late_in_a_thread(self, make: Any, told: Any) -> None:
        """The same under aget(): told when its time has passed, and ended when it answers."""

        def load(key: str) -> str:
            end = time.monotonic() + 5
            while ("get", "error", "timeout") not in told() and time.monotonic() < end:
                time.sleep(0.001)
            assert ("load", "running", "") in told()
            return key

        assert "key" == asyncio.run(make(loader=load, loader_timeout=0.2).aget("key"))
        assert [("load", "late", "timeout"), ("get", "error", "timeout")] == told()

    @pytest.mark.parametrize("batch", [False, True], ids=["aget", "amget"])
    def test_timeout(self, make: Any, told: Any, batch: bool) -> None:
        """An async loader that is stopped when its time has passed."""
        # So long that the second level has answered by then.
        cache = make(loader=Never(), loader_timeout=0.2, batch_timeout=0.2, error_ttl=0.001)
        with pytest.raises(LoaderTimeout):
            asyncio.run(cache.amget(["a", "b"]) if batch else cache.aget("a"))
        op = "mget" if batch else "get"
        load_op = "mload" if batch else "load"
        assert [(load_op, "error", "timeout"), (op, "error", "timeout")] == told()

    def test_cancelled(self, make: Any, told: Any) -> None:
        """A load whose last caller has gone."""

        async def leave() -> None:
            entered = asyncio.Event()

            async def load(_: object) -> None:
                entered.set()
                await asyncio.Event().wait()

            task = asyncio.create_task(make(loader=load).aget("key"))
            await entered.wait()
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

        asyncio.run(leave())
        assert [("load", "error", "cancelled")] == told()

    def test_in_the_background(self, make: Any, told: Any) -> None:
        """What is around a load in the background fails: then no loader was asked."""

        def background() -> Any:
            raise RuntimeError

        options = {"soft_timeout": 0.001, "stale_on_error": True, "error_ttl": 0.001}
        cache = make(loader=str.upper, background=background, **options)
        cache.set("key", "old", ttl=100)
        cache.expire("key")
        assert "old" == cache.get("key")
        end = time.monotonic() + 5
        while ("get", "error", "loader") not in told() and time.monotonic() < end:
            time.sleep(0.001)
        assert [("expire", "found", "none"), ("get", "error", "loader")] == told()

    @pytest.mark.usefixtures("redis_only")
    def test_found_in_redis(self, memory: Any, make: Any, told: Any) -> None:
        """What Redis has is no load."""
        cache = make(loader=str.upper)
        cache.get("key")
        memory.segment.clear_area("area")
        assert "KEY" == cache.get("key")
        assert [("load", "ok", "none")] == told()


class TestRefresh:
    def test_refresh(self, memory: Any, make: Any, told: Any) -> None:
        """A refresh that somebody asked for is told beside its load."""
        make(loader=str.upper).refresh("key")
        assert [("load", "ok", "none"), ("refresh", "ok", "none")] == told()
        assert 1 == memory.segment.events()[0]["count"]

    def test_fails(self, make: Any, told: Any) -> None:
        """One that fails is told as that."""
        cache = make(loader=lambda key: {}[key], error_ttl=0.001)
        with pytest.raises(LoaderError):
            asyncio.run(cache.arefresh("key"))
        assert [("load", "error", "loader"), ("refresh", "error", "loader")] == told()

    def test_warmup(self, make: Any, told: Any) -> None:
        """So is a warmup, with its batches."""
        loader = FnLoader(str.upper, lambda keys: {key: key.upper() for key in keys})
        assert 3 == make(loader=loader, warmup_batch_size=2, warmup_enabled=True).warmup(
            ["a", "b", "c"]
        )
        assert [
            ("mload", "ok", "none"),
            ("mload", "ok", "none"),
            ("warmup", "ok", "none"),
        ] == told()


class TestForgetting:
    @pytest.mark.parametrize(
        ("act", "expected"),
        [
            (lambda cache: cache.delete("a"), ("del", "found", 1)),
            (lambda cache: cache.delete("none"), ("del", "absent", 1)),
            (lambda cache: cache.mdelete(["a", "none"]), ("mdel", "ok", 2)),
            (lambda cache: cache.expire("a"), ("expire", "found", 1)),
            (lambda cache: cache.expire("none"), ("expire", "absent", 1)),
            (lambda cache: cache.clear(), ("clear", "ok", 1)),
            (lambda cache: cache.delete_tags("tag"), ("delete_tags", "ok", 1)),
            (lambda cache: cache.expire_tags("tag"), ("expire_tags", "ok", 1)),
            (lambda cache: asyncio.run(cache.adelete("a")), ("del", "found", 1)),
            (lambda cache: asyncio.run(cache.amdelete(["a", "b"])), ("mdel", "ok", 2)),
            (lambda cache: asyncio.run(cache.aexpire("a")), ("expire", "found", 1)),
            (lambda cache: asyncio.run(cache.aclear()), ("clear", "ok", 1)),
            (lambda cache: asyncio.run(cache.adelete_tags("tag")), ("delete_tags", "ok", 1)),
            (lambda cache: asyncio.run(cache.aexpire_tags("tag")), ("expire_tags", "ok", 1)),
        ],
    )
    def test_told(self, memory: Any, make: Any, act: Any, expected: Any) -> None:
        """What is forgotten on purpose is an event each."""
        cache = make(stale_ttl=60)
        cache.set("a", 1)
        act(cache)
        (event,) = memory.segment.events()
        assert expected == (event["op"], event["result"], event["count"])
        assert ("area", "none", False) == (event["area"], event["error_kind"], event["running"])

    def test_hash(self, memory: Any, make: Any) -> None:
        """One of a single key has its hash."""
        cache = make()
        cache.delete("key")
        cache.expire("other")
        cache.mdelete(["one"])
        hashes = [each["hash"] for each in memory.segment.events()]
        assert [cache._hash("one"), cache._hash("other"), cache._hash("key")] == hashes

    def test_nothing(self, make: Any, told: Any) -> None:
        """No keys are no event."""
        make().mdelete([])
        assert [] == told()

    @pytest.mark.usefixtures("redis_only")
    @pytest.mark.parametrize(
        ("op", "act"),
        [
            ("del", lambda cache: cache.delete("a")),
            ("mdel", lambda cache: cache.mdelete(["a", "b"])),
            ("expire", lambda cache: cache.expire("a")),
            ("clear", lambda cache: cache.clear()),
            ("delete_tags", lambda cache: cache.delete_tags("tag")),
        ],
    )
    def test_queued(self, memory: Any, make: Any, told: Any, op: str, act: Any) -> None:
        """What Redis does not take is queued, and that is all that is said of it."""
        cache = make()
        cache.set("a", 1)
        for _ in range(5):
            memory.segment.remote_failed(time.monotonic(), False)
        act(cache)
        assert [(op, "queued", "backend")] == told()


class TestNotTold:
    def test_reads_and_sets(self, make: Any, told: Any) -> None:
        """Hits, misses, sets, counters, locks that are taken: none is an event."""
        cache = make(tags=["own"])
        cache.set("a", 1)
        cache.mset({"b": 2, "c": 3})
        cache.add("d", 4)
        cache.incr("a")
        cache.touch("a", 60)
        cache.get("a")
        cache.get("none")
        cache.mget(["a", "none"])
        assert "a" in cache
        with cache.lock("name"):
            pass
        assert [] == told()


class TestFailures:
    def test_lock(self, make: Any, told: Any) -> None:
        """A lock that did not become free in time."""
        cache = make()
        held = cache.lock("name")
        holder = threading.Thread(target=held.acquire)  # else the caller would wait for itself
        holder.start()
        holder.join()
        with pytest.raises(LockTimeout), cache.lock("name", timeout=0):
            pass
        held.release()
        assert [("lock", "error", "lock_timeout")] == told()

    def test_set(self, make: Any, told: Any) -> None:
        """A value that cannot be stored."""
        with pytest.raises(CacheError):
            make().set("key", object())
        assert [("set", "error", "serialization")] == told()

    def test_limited(self, memory: Any, make: Any, clock: Any, caplog: Any) -> None:
        """Those that repeat are one event and one line a second, and none is lost from the sum."""
        cache = make()
        with caplog.at_level(logging.WARNING, "accelerator.ops"):
            for pause in (0, 0, 0, 2, 0, 2):
                clock.advance(pause)
                with pytest.raises(CacheError):
                    cache.set("key", object())
        assert [2, 3, 1] == [each["count"] for each in memory.segment.events()]
        lines = [each.getMessage() for each in caplog.records if each.name == "accelerator.ops"]
        assert ["", " suppressed=2", " suppressed=1"] == [
            text[text.index("latency_ms") :].partition(" ")[1]
            + text[text.index("latency_ms") :].partition(" ")[2]
            for text in lines
        ]

    def test_kinds_apart(self, memory: Any, make: Any, told: Any) -> None:
        """Each area and operation has a limit of its own."""
        for area in ("one", "two"):
            cache = make(area)
            for act in (cache.set, cache.add):
                with pytest.raises(CacheError):
                    act("key", object())
        kinds = {(each["area"], each["op"], each["count"]) for each in memory.segment.events()}
        assert {(area, op, 1) for area in ("one", "two") for op in ("set", "add")} == kinds
        assert 4 == len(told())


@pytest.fixture
def handler(caplog: Any) -> Iterator[Any]:
    """A handler of the application's, which runs what a test gives it."""

    class Handler(logging.Handler):
        act: Callable[[], object]
        called = 0

        def emit(self, record: logging.LogRecord) -> None:
            self.called += 1
            self.act()

    made = Handler()
    logger = logging.getLogger("accelerator.ops")
    logger.addHandler(made)
    with caplog.at_level(logging.DEBUG, "accelerator.ops"):
        yield made
    logger.removeHandler(made)


class TestHandlers:
    @pytest.mark.parametrize("interval", [0.0, 1.0])
    def test_uses_a_cache(
        self, memory: Any, make: Any, handler: Any, monkeypatch: Any, interval: float
    ) -> None:
        """A handler whose cache fails, and forgets, is not the cause of its own next line."""
        monkeypatch.setattr(oplog, "INTERVAL", interval)
        cache = make()

        def act() -> None:
            cache.delete("key")
            with contextlib.suppress(CacheError):
                cache.set("key", object())
            with contextlib.suppress(CacheError):
                cache.add("key", object())

        handler.act = act
        with pytest.raises(CacheError):
            cache.set("key", object())
        cache.delete("key")
        assert 2 == handler.called
        told = {(each["op"], each["result"]) for each in memory.segment.events()}
        assert {("set", "error"), ("add", "error"), ("del", "absent")} == told

    def test_counted(self, memory: Any, make: Any, handler: Any, clock: Any, caplog: Any) -> None:
        """What fails in a handler has no line, and is told by the next one that has."""
        cache = make()

        def fail(method: Any) -> None:
            with contextlib.suppress(CacheError):
                method("key", object())

        handler.act = lambda: fail(cache.add)
        for _ in range(3):
            fail(cache.set)
            clock.advance(2)
        handler.act = int
        fail(cache.add)
        assert "suppressed=2" in caplog.messages[-1]
        assert 4 == sum(each["count"] for each in memory.segment.events() if each["op"] == "add")

    def test_raises(self, make: Any, handler: Any) -> None:
        """One that raises does not keep an operation from being done."""

        def act() -> None:
            raise RuntimeError

        handler.act = act
        cache = make()
        cache.set("key", 1)
        assert cache.delete("key")
        assert handler.called
        with pytest.raises(CacheError):
            cache.set("key", object())

    def test_ring_raises(self, make: Any, monkeypatch: Any, caplog: Any) -> None:
        """Nor does a ring that cannot be written; the line is written all the same."""

        class Broken:
            def __getattr__(self, name: str) -> Any:
                raise OSError

        monkeypatch.setattr(oplog, "_memory", Broken())
        monkeypatch.setattr(oplog, "_last", {})
        cache = make(loader=str.upper)
        assert "KEY" == cache.get("key")
        assert cache.delete("key")
        with caplog.at_level(logging.WARNING, "accelerator.ops"), pytest.raises(CacheError):
            cache.set("key", object())
        assert 1 == len(caplog.records)


class TestMemory:
    """The ring is that of the memory which this process is attached to."""

    def test_isolated(self, memory: Any, make: Any, told: Any) -> None:
        """Within isolated() another one, and the former again behind it."""
        cache = make()
        cache.delete("before")
        with memory.modules["testing"].isolated() as inner:
            cache.delete("inside")
            assert [cache._hash("inside")] == [each["hash"] for each in inner.memory.events()]
        cache.delete("behind")
        assert 2 * [("del", "absent", "none")] == told()

    def test_load_across(self, memory: Any, make: Any, told: Any) -> None:
        """A load that began in one is ended there."""
        inner = []

        def load(key: str) -> str:
            manager = memory.modules["testing"].isolated()
            inner.append((manager, manager.__enter__()))
            return key

        make(loader=load).get("key")
        ((manager, isolated),) = inner
        assert [] == isolated.memory.events()
        manager.__exit__(None, None, None)
        assert [("load", "ok", "none")] == told()

    def test_fork(self, memory: Any, make: Any, local_only: None) -> None:
        """A child notes in the same shared memory under its own pid."""
        cache = make()
        cache.set("key", 1)
        child = os.fork()
        if not child:
            code = 1
            with contextlib.suppress(BaseException):
                cache.delete("key")
                code = 0
            os._exit(code)
        assert 0 == os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        pids = [each["pid"] for each in memory.segment.events() if each["op"] == "del"]
        assert ([child] if memory.kind == "shared" else []) == pids

    def test_fork_in_a_loader(self, memory: Any, make: Any, local_only: None) -> None:
        """A child that was forked by a loader, and leaves it, has not ended its parent's load."""
        parent = os.getpid()
        running = []

        class Child(BaseException):
            pass

        def load(key: str) -> str:
            child = os.fork()
            if not child:
                raise Child
            os.waitpid(child, 0)
            running.extend(memory.segment.events())
            return key

        try:
            make(loader=load).get("key")
        finally:
            if os.getpid() != parent:
                os._exit(0)
        (event,) = [each for each in running if each["op"] == "load"]
        assert event["running"]


class TestCrate:
    """What the Rust crate calls it: one line for each operation, with op, result, error_kind."""

    OPS = ("get", "mget", "set", "mset", "del", "mdel", "warmup")
    ERROR_KINDS = ("invalid_config", "backend", "loader", "timeout")

    def act(self, cache: Any, op: str) -> None:
        calls: dict[str, Callable[[], object]] = {
            "get": lambda: cache.get("key"),
            "mget": lambda: cache.mget(["key", "other"]),
            "set": lambda: cache.set("key", 1),
            "mset": lambda: cache.mset({"key": 1, "other": 2}),
            "del": lambda: cache.delete("key"),
            "mdel": lambda: cache.mdelete(["key", "other"]),
            "warmup": lambda: cache.warmup(["key"]),
        }
        calls[op]()

    @pytest.mark.usefixtures("redis_only")
    @pytest.mark.parametrize("op", OPS)
    def test_backend(self, memory: Any, make: Any, told: Any, op: str) -> None:
        """
        Redis away is told under the crate's op and kind; the crate says "error" of reads and "done"
        of writes, whatever came of them: here it is "error", or "queued" where it will be done.
        """
        cache = make(loader=str.upper, warmup_enabled=True)
        cache.get("first")
        for _ in range(5):
            memory.segment.remote_failed(time.monotonic(), False)
        self.act(cache, op)
        result = "queued" if op in {"del", "mdel"} else "error"
        # A warmup reads, and is told as a read there, too.
        assert ("get" if op in {"mget", "warmup"} else op, result, "backend") in told()

    @pytest.mark.parametrize("op", ["get", "mget", "warmup"])
    def test_loader(self, make: Any, told: Any, op: str) -> None:
        """A loader that raises, or is late."""

        def load(_: object) -> Any:
            raise KeyError

        cache = make(loader=load, error_ttl=0.001, warmup_enabled=True)
        with pytest.raises(LoaderError):
            self.act(cache, op)
        assert (op, "error", "loader") in told()
        late = make("late", loader=Never(), loader_timeout=0.2, error_ttl=0.001)
        if op == "get":
            with pytest.raises(LoaderTimeout):
                asyncio.run(late.aget("key"))
            assert (op, "error", "timeout") in told()

    @pytest.mark.parametrize("op", OPS)
    def test_success(self, make: Any, told: Any, caplog: Any, op: str) -> None:
        """One that goes well has error_kind "none", as there; reads and sets are counted only."""
        cache = make(warmup_enabled=True, loader=str.upper)
        cache.set("key", 1)
        cache.set("other", 2)
        with caplog.at_level(logging.DEBUG, "accelerator.ops"):
            caplog.clear()
            self.act(cache, op)
        mine = [it for it in told() if it[0] == op]
        expected = {"del": ["found"], "mdel": ["ok"], "warmup": ["ok"]}.get(op, [])
        assert [(op, result, "none") for result in expected] == mine
        lines = [it for it in caplog.records if it.name == "accelerator.ops"]
        assert len(expected) <= len(lines) <= 1
        assert {"none"} >= {getattr(it, "error_kind", None) for it in lines}

    def test_kinds(self) -> None:
        """Each of the crate's kinds is one of ours."""
        kinds = {error.kind for error in _subclasses(CacheError)}
        assert set(self.ERROR_KINDS) <= kinds


def _subclasses(kind: type[CacheError]) -> Iterator[type[CacheError]]:
    yield kind
    for each in kind.__subclasses__():
        yield from _subclasses(each)
