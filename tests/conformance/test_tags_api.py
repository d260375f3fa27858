"""
Tags through the public methods: who gives them to a value, and what is forgotten with them.

What a tag is in memory or in Redis has its tests beside those.
"""

import asyncio
import enum
import inspect
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from accelerator import MISS, BatchContext, ConfigError, LoadContext, LoaderError

Call = Callable[..., Any]


@pytest.fixture(params=["sync", "async"])
def call(request: pytest.FixtureRequest) -> Iterator[Call]:
    """Calls a method of a cache, or its async twin on one loop."""
    if request.param == "sync":
        yield lambda cache, name, *args, **options: getattr(cache, name)(*args, **options)
        return
    with asyncio.Runner() as runner:

        def on_loop(cache: Any, name: str, *args: Any, **options: Any) -> Any:
            return runner.run(getattr(cache, f"a{name}")(*args, **options))

        yield on_loop


def count(cache: Any, counter: str) -> int:
    return int(cache.metrics_snapshot()[counter])


class TestWrites:
    def test_set(self, cache: Any, call: Call) -> None:
        """A value is forgotten with each of its tags, and others are not."""
        call(cache, "set", "a", [1], tags=["x", "y"])
        call(cache, "set", "b", [2], 60, tags=("y",))
        call(cache, "set", "c", [3])
        call(cache, "delete_tags", "x")
        assert {"a": None, "b": [2], "c": [3]} == call(cache, "mget", ["a", "b", "c"])
        call(cache, "delete_tags", "y", "unknown")
        assert {"a": None, "b": None, "c": [3]} == call(cache, "mget", ["a", "b", "c"])

    @pytest.mark.parametrize("value", [5, "text", b"bytes", None, 1.5, True], ids=repr)
    def test_plain_values(self, cache: Any, call: Call, value: Any) -> None:
        """Values that need no codec carry tags as well."""
        call(cache, "set", "a", value, tags=["x"])
        assert value == call(cache, "get", "a", MISS)
        call(cache, "delete_tags", "x")
        assert call(cache, "get", "a", MISS) is MISS
        assert "a" not in cache

    def test_mset(self, cache: Any, call: Call) -> None:
        """All of a batch carry them."""
        call(cache, "mset", {"a": 1, "b": [2], "c": None}, tags={"x"})
        cache.set("d", 4)
        call(cache, "delete_tags", "x")
        expected = {"a": MISS, "b": MISS, "c": MISS, "d": 4}
        assert expected == call(cache, "mget", ["a", "b", "c", "d"], MISS)

    def test_add(self, cache: Any, call: Call) -> None:
        """What is added carries them; what is forgotten with them is not there for the next."""
        assert call(cache, "add", "a", 1, tags=["x"])
        assert not call(cache, "add", "a", 2, tags=["y"])
        call(cache, "delete_tags", "y")
        assert 1 == cache.get("a")
        call(cache, "delete_tags", "x")
        assert call(cache, "add", "a", 3)
        assert 3 == cache.get("a")

    def test_set_again(self, cache: Any, call: Call) -> None:
        """A value has the tags of its last write, not of those before."""
        call(cache, "set", "a", [1], tags=["x"])
        call(cache, "set", "a", [2], tags=["y"])
        call(cache, "delete_tags", "x")
        assert [2] == cache.get("a")
        call(cache, "set", "a", [3])
        call(cache, "delete_tags", "x", "y")
        assert [3] == cache.get("a")

    def test_stored_after(self, cache: Any, call: Call) -> None:
        """What is stored after a delete is not concerned by it."""
        call(cache, "delete_tags", "x")
        call(cache, "set", "a", 1, tags=["x"])
        assert 1 == cache.get("a")

    def test_touch(self, cache: Any, call: Call) -> None:
        """A new life keeps the tags; a value forgotten with them gets none."""
        call(cache, "set", "a", [1], 50, tags=["x"])
        assert call(cache, "touch", "a", 60)
        call(cache, "delete_tags", "x")
        assert not call(cache, "touch", "a", 60)
        assert "a" not in cache

    def test_incr(self, cache: Any, call: Call) -> None:
        """A counter keeps its tags, and begins anew when it was forgotten with them."""
        call(cache, "set", "n", 5, tags=["x"])
        assert 6 == call(cache, "incr", "n")
        call(cache, "delete_tags", "x")
        assert call(cache, "incr", "n", default=None) is None
        assert 1 == call(cache, "incr", "n")

    def test_reads(self, cache: Any) -> None:
        """No read gives what is forgotten."""
        cache.set("a", [1], tags=["x"])
        assert [1] == cache.get("a")
        cache.delete_tags("x")
        assert cache.get("a") is None
        assert cache.get("a", allow_stale=True) is None
        assert cache.peek("a") is None
        assert cache.get_entry("a") is None
        assert {"a": None} == cache.mget(["a"], allow_stale=True)
        assert "a" not in cache
        assert not cache.delete("a")

    def test_ttl_of_zero(self, cache: Any, call: Call) -> None:
        """What is not to be stored needs no tags, and drops the older copy."""
        call(cache, "set", "a", 1, tags=["x"])
        call(cache, "set", "a", 2, 0, tags=["x"])
        assert "a" not in cache


class TestExpire:
    def test_stale(self, make: Callable[..., Any], call: Call) -> None:
        """The stale copy stays; what has no stale life is gone, and so is what was deleted."""
        kept, gone = make("kept", stale_ttl=600), make("gone")
        for cache in (kept, gone):
            call(cache, "set", "a", [1], tags=["x"])
            call(cache, "expire_tags", "x")
            assert "a" not in cache
            assert cache.get("a") is None
        assert [1] == call(kept, "get", "a", allow_stale=True)
        assert call(gone, "get", "a", allow_stale=True) is None
        call(kept, "delete_tags", "x")
        assert call(kept, "get", "a", allow_stale=True) is None

    def test_fallback(self, make: Callable[..., Any]) -> None:
        """A load that fails may be answered with what was expired, not with what was deleted."""

        def load(key: Any) -> Any:
            raise ValueError(key)

        cache = make(loader=load, stale_on_error=True, error_ttl=0)
        cache.set("a", [1], tags=["x"])
        cache.expire_tags("x")
        assert [1] == cache.get("a")
        cache.delete_tags("x")
        with pytest.raises(LoaderError):
            cache.get("a")

    def test_set_again(self, make: Callable[..., Any], call: Call) -> None:
        """What is stored afterwards is fresh."""
        cache = make(stale_ttl=600)
        call(cache, "set", "a", [1], tags=["x"])
        call(cache, "expire_tags", "x")
        call(cache, "set", "a", [2], tags=["x"])
        assert [2] == cache.get("a")


class TestArea:
    def test_option(self, make: Callable[..., Any], call: Call) -> None:
        """Every value carries the tags of its area, whatever stored it."""
        cache = make(tags=["all"])
        call(cache, "set", "set", 1)
        call(cache, "set", "object", [1], tags=["x"])
        call(cache, "mset", {"mset": 1})
        call(cache, "add", "add", 1)
        call(cache, "incr", "incr")
        call(cache, "get_or_load", "load", lambda _: 1)
        keys = ["set", "object", "mset", "add", "incr", "load"]
        assert MISS not in call(cache, "mget", keys, MISS).values()
        call(cache, "delete_tags", "all")
        assert dict.fromkeys(keys, MISS) == call(cache, "mget", keys, MISS)

    def test_areas(self, make: Callable[..., Any], call: Call) -> None:
        """A tag belongs to an area."""
        one, other = make("one", tags=["x"]), make("other", tags=["x"])
        one.set("a", 1)
        other.set("a", 1)
        call(one, "delete_tags", "x")
        assert ("a" in one, "a" in other) == (False, True)

    def test_counter(self, make: Callable[..., Any], call: Call) -> None:
        """A counter begins, goes on, and is forgotten, as in an area without tags."""
        cache = make(tags=["all"])
        assert call(cache, "incr", "n", default=None) is None
        assert 12 == call(cache, "incr", "n", 2, default=10)
        assert 11 == call(cache, "decr", "n")
        with pytest.raises(OverflowError):
            call(cache, "incr", "m", 1, default=(1 << 63) - 1)
        assert "m" not in cache
        assert 3 == call(cache, "incr", "none", 3, ttl=0)
        assert "none" not in cache
        call(cache, "delete_tags", "all")
        assert 1 == call(cache, "incr", "n")

    def test_counter_of_many(self, make: Callable[..., Any]) -> None:
        """Threads that begin the same counter lose nothing."""
        cache = make(tags=["all"])
        barrier = threading.Barrier(4)

        def run() -> None:
            for number in range(20):
                barrier.wait(20)
                cache.incr(number)

        threads = [threading.Thread(target=run) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert dict.fromkeys(range(20), 4) == cache.mget(range(20))

    def test_shown(self, make: Callable[..., Any]) -> None:
        """They are options, and diagnostics show them."""
        cache = make(tags=["b", "a", "b"])
        assert ("b", "a") == cache.config.tags
        assert ["b", "a"] == cache.diagnostic_snapshot()["config"]["tags"]


class TestLoaders:
    def test_call(self, cache: Any, call: Call) -> None:
        """What get_or_load() loads carries the tags of the call."""
        assert [1] == call(cache, "get_or_load", "a", lambda _: [1], tags=["x"])
        assert [1] == call(cache, "get_or_load", "a", lambda _: [2], tags=["y"])
        call(cache, "delete_tags", "y")
        assert [1] == cache.get("a")
        call(cache, "delete_tags", "x")
        assert [2] == call(cache, "get_or_load", "a", lambda _: [2])

    def test_context(self, make: Callable[..., Any], call: Call) -> None:
        """A loader says tags and life of what it answers."""

        def load(key: Any, context: LoadContext) -> Any:
            context.ttl = "90s"
            context.tags = [f"key {key}"]
            context.tags.add("loaded")
            return [key]

        cache = make(loader=load, tags=["all"])
        for tag in ("key a", "loaded", "all"):
            assert ["a"] == call(cache, "get", "a")
            assert "a" in cache
            call(cache, "delete_tags", tag)
            assert "a" not in cache

    def test_async_loader(self, make: Callable[..., Any]) -> None:
        """An async one does, too; with the tags of the call."""

        async def load(key: Any, context: LoadContext) -> Any:
            await asyncio.sleep(0)
            context.ttl = 120
            context.tags.add("loaded")
            return [key]

        async def run() -> None:
            cache = make(loader=load)
            assert ["a"] == await cache.aget("a")
            assert "a" in cache
            await cache.adelete_tags("loaded")
            assert "a" not in cache
            for tag in ("loaded", "given"):
                assert ["b"] == await cache.aio.get_or_load("b", load, tags=["given"])
                assert "b" in cache
                await cache.aio.delete_tags(tag)
                assert "b" not in cache

        asyncio.run(run())

    def test_life(self, make: Callable[..., Any], call: Call, local_only: None) -> None:
        """The life that the loader says goes with the tags that it says."""

        def load(key: Any, context: LoadContext) -> Any:
            context.ttl, context.tags = 20, ["x"]
            return [key]

        cache = make(loader=load, local_ttl=500)
        entry = call(cache, "get_entry", "a")
        entry = call(cache, "get_entry", "a")
        assert 19 < entry.ttl <= 20.1

    def test_batch(self, make: Callable[..., Any], call: Call) -> None:
        """Of a batch all carry what is said of all, and each what is said of it."""

        class Source:
            def load(self, key: Any) -> Any:
                raise AssertionError(key)

            def mload(self, keys: list[Any], context: BatchContext) -> dict[Any, Any]:
                context.tags = ["all"]
                for key in keys:
                    context.tags_of(key, f"key {key}")
                context.complete()
                return {key: [key] for key in keys if key != "none"}

        cache = make(loader=Source())
        keys = ["a", "b", "none"]
        assert {"a": ["a"], "b": ["b"], "none": None} == call(cache, "mget", keys)
        call(cache, "delete_tags", "key a", "key none")
        assert [False, True, False] == [key in cache for key in keys]
        call(cache, "delete_tags", "all")
        assert [False, False, False] == [key in cache for key in keys]

    def test_refresh(self, make: Callable[..., Any], call: Call) -> None:
        """A value that is loaded anew has the tags that this load gives, and its area's."""
        said = ["first"]

        def load(key: Any, context: LoadContext) -> Any:
            context.tags = said
            return list(said)

        cache = make(loader=load, tags=["area"])
        assert ["first"] == call(cache, "get", "a")
        said[:] = ["second"]
        assert ["second"] == call(cache, "refresh", "a")
        call(cache, "delete_tags", "first")
        assert ["second"] == cache.peek("a")
        for tag in ("second", "area"):
            call(cache, "refresh", "a")
            assert "a" in cache
            call(cache, "delete_tags", tag)
            assert "a" not in cache

    def test_skip(self, make: Callable[..., Any], call: Call) -> None:
        """What a loader does not want stored is not, whatever its tags."""

        def load(key: Any, context: LoadContext) -> Any:
            context.tags = ["x"]
            context.skip()
            return [key]

        cache = make(loader=load)
        assert ["a"] == call(cache, "get", "a")
        assert "a" not in cache

    @pytest.mark.parametrize("tag", ["said", "given", "area"])
    def test_overtaken(self, make: Callable[..., Any], call: Call, tag: str) -> None:
        """A value whose tag was deleted while it was loaded is answered, and not stored."""
        cache = make(tags=["area"])

        def load(key: Any, context: LoadContext) -> Any:
            context.tags = ["said"]
            other.delete_tags(tag)
            return [key]

        other = make(tags=["area"])
        assert ["a"] == call(cache, "get_or_load", "a", load, tags=["given"])
        assert "a" not in cache

    @pytest.mark.parametrize("mode", [None, "remote"])
    @pytest.mark.parametrize("how", ["stored", "skipped", "of no life"])
    def test_joined(self, memory: Any, how: str, mode: str | None) -> None:
        """Who asks after the delete is not given what was loaded before, though he waits for it."""
        answers = iter(["old", "new"])
        started, go = threading.Event(), threading.Event()

        def load(key: Any, context: LoadContext) -> Any:
            answer = next(answers)
            context.tags = ["x"]
            if how == "skipped":
                context.skip()
            elif how == "of no life":
                context.ttl = 0
            if answer == "old":
                started.set()
                assert go.wait(20)
            return answer

        cache = memory.cache(loader=load, mode=mode if memory.kind == "redis" else None)
        with ThreadPoolExecutor(2) as pool:
            first = pool.submit(cache.get, "a")
            assert started.wait(20)
            cache.delete_tags("x")
            second = pool.submit(cache.get, "a")
            deadline = time.monotonic() + 20
            while not count(cache, "load_joined") and time.monotonic() < deadline:
                time.sleep(0.001)
            go.set()
            assert ("old", "new") == (first.result(20), second.result(20))

    def test_not_overtaken(self, make: Callable[..., Any], call: Call) -> None:
        """Another tag's delete is no reason."""
        cache = make()

        def load(key: Any, context: LoadContext) -> Any:
            context.tags = ["said"]
            cache.delete_tags("other")
            return [key]

        assert ["a"] == call(cache, "get_or_load", "a", load)
        assert "a" in cache

    @pytest.mark.parametrize(
        "tags",
        [{f"tag {n}" for n in range(9)}, {""}, {"x" * 256}, {5}, {"\ud800"}],
        ids=["nine", "empty", "long", "no str", "surrogate"],
    )
    def test_wrong(self, make: Callable[..., Any], call: Call, tags: set[Any]) -> None:
        """Tags that cannot be: the caller gets the value, it is not stored, and that is counted."""

        def load(key: Any, context: LoadContext) -> Any:
            context.tags.update(tags)
            return [key]

        cache = make(loader=load)
        before = count(cache, "store_rejected_encode")
        assert ["a"] == call(cache, "get", "a")
        assert "a" not in cache
        assert before + 1 == count(cache, "store_rejected_encode")

    def test_too_many_with_the_area(
        self, make: Callable[..., Any], call: Call, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Those of the area, the call and the loader are counted together; it is told once."""
        fitting = [f"tag {n}" for n in range(6)]

        def load(key: Any, context: LoadContext) -> Any:
            context.tags = [*fitting, *(["seventh", "eighth"] if key == "many" else [])]
            return [key]

        cache = make(tags=["area"])
        assert ["a"] == call(cache, "get_or_load", "a", load, tags=["given"])
        assert "a" in cache
        for _ in range(2):
            assert ["many"] == call(cache, "get_or_load", "many", load, tags=["given"])
        assert "many" not in cache
        told = [each for each in caplog.records if "at most 8 tags" in each.getMessage()]
        assert 1 == len(told)
        assert "seventh" not in told[0].getMessage()

    def test_wrong_in_a_batch(self, make: Callable[..., Any], call: Call) -> None:
        """Only the values with wrong tags are not stored."""

        class Source:
            def load(self, key: Any) -> Any:
                raise AssertionError(key)

            def mload(self, keys: list[Any], context: BatchContext) -> dict[Any, Any]:
                context.tags_of("a", *map(str, range(9)))
                return {key: [key] for key in keys}

        cache = make(loader=Source())
        assert {"a": ["a"], "b": ["b"]} == call(cache, "mget", ["a", "b"])
        assert [False, True] == [key in cache for key in "ab"]

    def test_refused_at_once(self, make: Callable[..., Any], call: Call) -> None:
        """What is no iterable of str fails in the loader, whose load has failed then."""

        def load(key: Any, context: LoadContext) -> Any:
            context.tags = "text"

        with pytest.raises(LoaderError) as raised:
            call(make(loader=load), "get", "a")
        assert isinstance(raised.value.__cause__, TypeError)


class TestWrong:
    NAMES = ("set", "mset", "add", "get_or_load")

    @staticmethod
    def arguments(name: str) -> tuple[Any, ...]:
        return {"mset": ({"a": 1},), "get_or_load": ("a", lambda _: 1)}.get(name, ("a", 1))

    @pytest.mark.parametrize("name", NAMES)
    @pytest.mark.parametrize(
        ("tags", "error"),
        [
            (5, TypeError),
            ("text", TypeError),
            (b"text", TypeError),
            ([b"text"], TypeError),
            ([None], TypeError),
            ([""], ValueError),
            (["x" * 256], ValueError),
            (["ü" * 128], ValueError),
            (["\ud800"], ValueError),
            ([str(n) for n in range(9)], ValueError),
        ],
        ids=["int", "str", "bytes", "of bytes", "None", "empty", "long", "utf-8", "half", "nine"],
    )
    def test_given(
        self, cache: Any, call: Call, name: str, tags: Any, error: type[Exception]
    ) -> None:
        """Wrong tags are refused at once, and nothing is stored."""
        with pytest.raises(error, match="tag") as raised:
            call(cache, name, *self.arguments(name), tags=tags)
        assert "\ud800" not in str(raised.value)
        assert "a" not in cache

    @pytest.mark.parametrize("name", NAMES)
    def test_right(self, cache: Any, call: Call, name: str) -> None:
        """At most eight, of at most 255 bytes each; one that comes twice counts once."""

        class Own(enum.StrEnum):
            TAG = "enum"

        tags = [Own.TAG, "x" * 255, *(str(n) for n in range(6))]
        call(cache, name, *self.arguments(name), tags=iter([*tags, *tags]))
        assert "a" in cache
        call(cache, "delete_tags", "enum")
        assert "a" not in cache

    def test_with_the_area(self, make: Callable[..., Any], call: Call) -> None:
        """Those of the area count."""
        cache = make(tags=["one", "two"])
        call(cache, "set", "a", 1, tags=["one", *(str(n) for n in range(6))])
        with pytest.raises(ValueError, match="at most 8 tags"):
            call(cache, "set", "b", 1, tags=[str(n) for n in range(7)])
        assert ["a"] == [key for key in "ab" if key in cache]

    def test_of_the_area(self, make: Callable[..., Any]) -> None:
        """Wrong ones of an area are a ConfigError."""
        with pytest.raises(ConfigError, match="tags") as raised:
            make(tags="text")
        assert "tags" == raised.value.setting

    @pytest.mark.parametrize("name", ["delete_tags", "expire_tags"])
    def test_forgotten(self, cache: Any, call: Call, name: str) -> None:
        """So are wrong ones that are to be forgotten, and nothing is; none and many are right."""
        call(cache, "set", "a", 1, tags=["x"])
        for wrong, error in ((5, TypeError), (["x"], TypeError), ("", ValueError)):
            with pytest.raises(error, match="tag"):
                call(cache, name, "x", wrong)
        with pytest.raises(ValueError, match="on_error"):
            call(cache, name, "x", on_error="ignore")
        call(cache, name)
        assert "a" in cache
        call(cache, name, "x", *(str(n) for n in range(100)))
        assert "a" not in cache


class TestWithoutMemory:
    def test_all(self, memory: Any, call: Call) -> None:
        """Where values lie in Redis only, their tags do; elsewhere this is one test more."""
        mode = "remote" if memory.kind == "redis" else None
        cache = memory.cache(mode=mode, tags=["area"], stale_ttl=600)

        def load(key: Any, context: LoadContext) -> Any:
            context.tags = ["said"]
            return [key]

        call(cache, "set", "set", 1, tags=["given"])
        call(cache, "add", "add", 1, tags=["given"])
        call(cache, "get_or_load", "load", load, tags=["given"])
        call(cache, "incr", "incr")
        keys = ["set", "add", "load", "incr"]
        assert {"set": 1, "add": 1, "load": ["load"], "incr": 1} == call(cache, "mget", keys)
        call(cache, "expire_tags", "said")
        assert ["set", "add", "incr"] == [key for key in keys if key in cache]
        assert ["load"] == call(cache, "get", "load", allow_stale=True)
        call(cache, "delete_tags", "given")
        assert ["incr"] == [key for key in keys if key in cache]
        assert call(cache, "get", "load", allow_stale=True) is None
        call(cache, "delete_tags", "area")
        assert "incr" not in cache


class TestOff:
    @pytest.mark.usefixtures("local_only")
    def test_nothing(self, make: Callable[..., Any], call: Call) -> None:
        """Where nothing is cached, tags are checked, and that is all."""
        cache = make(mode="off", tags=["all"])
        call(cache, "set", "a", 1, tags=["x"])
        assert 1 == call(cache, "incr", "n")
        assert [1] == call(cache, "get_or_load", "a", lambda _: [1], tags=["x"])
        call(cache, "delete_tags", "x")
        call(cache, "expire_tags", "x")
        with pytest.raises(TypeError):
            call(cache, "set", "a", 1, tags="x")


def test_signatures(cache: Any) -> None:
    """Tags are given by keyword, and default to none."""
    for name in ("aset", "mset", "add", "get_or_load"):
        parameter = inspect.signature(getattr(cache, name)).parameters["tags"]
        assert (inspect.Parameter.KEYWORD_ONLY, None) == (parameter.kind, parameter.default)
