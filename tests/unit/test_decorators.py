"""What decorated functions do: calls, receivers, async code, options, and what is beside them."""

import asyncio
import contextlib
import copy
import functools
import gc
import inspect
import pickle
import threading
import weakref
from collections.abc import Iterator
from typing import Any, get_type_hints
from unittest import mock
from uuid import UUID

import pytest

import accelerator
from accelerator import (
    MISS,
    ConfigError,
    LevelCache,
    LoaderError,
    LoaderTimeout,
    local,
    testing,
)

Cache = LevelCache[Any, Any]


@pytest.fixture
def isolated() -> Iterator[testing.Isolated]:
    with testing.isolated() as own:
        yield own


@pytest.fixture
def cache(isolated: testing.Isolated) -> Cache:
    return LevelCache("area", ttl_jitter_ratio=None)


@pytest.fixture
def calls() -> list[Any]:
    return []


MODULE: Cache = LevelCache("module")


@MODULE.cacheable("module:{x}")
def at_module_level(x: int) -> int:
    """Say what it does."""
    return x * 2


class TestFunction:
    def test_what_it_looks_like(self) -> None:
        """Name, docstring, module, signature, the function itself."""
        assert "at_module_level" == at_module_level.__name__
        assert "Say what it does." == inspect.getdoc(at_module_level)
        assert "(x: int) -> int" == str(inspect.signature(at_module_level))
        assert 8 == at_module_level.__wrapped__(4)
        assert not inspect.iscoroutinefunction(at_module_level)
        assert "at_module_level" in repr(at_module_level)

    def test_who_looks_at_it(self, cache: Cache) -> None:
        """What tools look at: ``__call__`` as Celery and mock do, names, type hints."""
        assert ["x"] == list(inspect.signature(at_module_level.__call__).parameters)
        assert 8 == at_module_level.__call__(4)
        copied = mock.create_autospec(at_module_level)
        copied(1)
        with pytest.raises(TypeError):
            copied(1, 2)
        with mock.patch.object(Repository, "plain", autospec=True) as plain:
            Repository("x").plain(1)
        assert plain.called
        assert {"x": int, "return": int} == get_type_hints(at_module_level)

        async def base(a: int, x: int) -> int:
            return a + x

        partial: Any = cache.cacheable("{x}")(functools.partial(base, 5))
        assert inspect.iscoroutinefunction(partial)
        assert (6, "partial") == (asyncio.run(partial(1)), partial.__name__)

    def test_coroutine_as_answer(self, cache: Cache) -> None:
        """A function that is not async and answers with a coroutine is told so."""

        async def base(x: int) -> int:
            return x

        decorated = cache.cacheable("{x}")(lambda x: base(x))  # noqa: PLW0108
        with pytest.raises(TypeError, match="answered with a coroutine"):
            decorated(1)

    def test_pickled_by_name(self) -> None:
        """As functions are, so that tasks may name it."""
        assert pickle.loads(pickle.dumps(at_module_level)) is at_module_level
        assert copy.deepcopy([at_module_level])[0] is at_module_level

    def test_arguments(self, cache: Cache, calls: list[Any]) -> None:
        """However the arguments are given, it is one call."""

        @cache.cacheable("{a}:{b}")
        def load(a: int, b: int = 2, *, c: int = 3) -> Any:
            calls.append((a, b, c))
            return a, b, c

        assert [(1, 2, 3)] * 3 == [load(1), load(1, 2), load(b=2, a=1)]
        assert [(1, 2, 3)] == calls

    def test_types_differ(self, cache: Cache, calls: list[Any]) -> None:
        """1, True, "1" and b"1" are four calls."""

        @cache.cacheable("{x}")
        def load(x: Any) -> Any:
            calls.append(x)
            return type(x).__name__

        for _ in range(2):
            assert ["int", "bool", "str", "bytes"] == [load(x) for x in (1, True, "1", b"1")]
        assert 4 == len(calls)

    def test_wrong_call(self, cache: Cache) -> None:
        """A call that the function would refuse is refused, without a load."""

        @cache.cacheable("{a}")
        def load(a: int) -> int:
            return a

        for arguments in ((), (1, 2)):
            with pytest.raises(TypeError, match="load"):
                load(*arguments)
        with pytest.raises(TypeError, match="load"):
            load(1, z=2)

    def test_changed_elsewhere(self, cache: Cache) -> None:
        """The area's own methods are about the same values."""

        @cache.cacheable("{x}")
        def load(x: int) -> Any:
            return "loaded", x

        assert ("loaded", 7) == load(7) == load(7) == cache.get(7)
        cache.set(7, "set")
        assert "set" == load(7)
        cache.delete(7)
        assert ("loaded", 7) == load(7)
        cache.clear()
        assert load.peek(7) is None

    def test_own_error(self, cache: Cache) -> None:
        """What the function raises is raised as it is: no LoaderError around it."""
        raised = KeyError("mine")

        @cache.cacheable("{x}")
        def load(x: int) -> Any:
            raise raised

        with pytest.raises(KeyError) as found:
            load(1)
        assert found.value is raised
        assert found.value.__cause__ is None

    def test_own_error_is_let_go(self, cache: Cache) -> None:
        """What a failed call had in its hands is free when its error is, without a collection."""
        held: list[Any] = []

        class Resource:
            pass

        def fail(x: Any) -> Any:
            resource = Resource()
            held.append(weakref.ref(resource))
            raise KeyError(x)

        async def afail(x: Any) -> Any:
            fail(x)

        single, batch = cache.cacheable("{x[0]}")(fail), cache.cacheable_batch("b{i}")(fail)
        asingle, abatch = cache.cacheable("a{x[0]}")(afail), cache.cacheable_batch("ab{i}")(afail)

        async def fail_all() -> None:
            for acall in (asingle, asingle.refresh, abatch, abatch.refresh):
                with contextlib.suppress(KeyError):
                    await acall([1])

        gc.disable()
        try:
            for call in (single, single.refresh, batch, batch.refresh):
                with contextlib.suppress(KeyError):
                    call([1])
            asyncio.run(fail_all())
            assert [None] * len(held) == [each() for each in held]
        finally:
            gc.enable()
        assert 8 == len(held)

    def test_stale_on_error(self, isolated: testing.Isolated, cache: Cache) -> None:
        """Unless the area allows a stale answer, and there is one."""
        fails = False

        @cache.cacheable("{x}", ttl=10, stale_on_error=True)
        def load(x: int) -> Any:
            if fails:
                raise KeyError
            return "value"

        load(1)
        isolated.clock.advance(11)
        fails = True
        assert "value" == load(1)

    def test_context(self, cache: Cache) -> None:
        """A function with a parameter ``context`` is given one, and its callers do not see it."""

        @cache.cacheable("{x}")
        def load(x: int, context: Any) -> Any:
            context.ttl = 5
            return context.area, context.stale_value is MISS

        assert ("area", True) == load(1) == load.uncached(1)
        assert ["x"] == list(inspect.signature(load).parameters)
        entry = cache.get_entry(1)
        assert entry is not None
        assert entry.ttl is not None
        assert 4 < entry.ttl <= 5

    def test_context_that_fails(self, cache: Cache) -> None:
        @cache.cacheable("{x}")
        def load(x: int, context: Any) -> Any:
            context.fail("because")

        with pytest.raises(LoaderError):
            load(1)

    def test_one_load(self, cache: Cache) -> None:
        """Threads that miss together run the function once."""
        begun, may_end, ran = threading.Event(), threading.Event(), []

        @cache.cacheable("{x}")
        def load(x: int) -> Any:
            ran.append(x)
            begun.set()
            assert may_end.wait(30)
            return "value"

        found: list[Any] = []
        threads = [threading.Thread(target=lambda: found.append(load(7))) for _ in range(4)]
        threads[0].start()
        assert begun.wait(30)
        for thread in threads[1:]:
            thread.start()
        may_end.set()
        for thread in threads:
            thread.join(30)
        assert (["value"] * 4, [7]) == (found, ran)

    def test_refresh_ahead(self, isolated: testing.Isolated, cache: Cache) -> None:
        """A plain call that finds a value near its end has it refreshed."""
        ran: list[Any] = []

        @cache.cacheable("{x}", ttl=60, refresh_ahead=True, refresh_ahead_window=20)
        def load(x: int) -> Any:
            ran.append(x)
            return len(ran)

        assert [1, 1, 1] == [load(7) for _ in range(3)]
        isolated.clock.advance(45)
        assert 1 == load(7)
        assert 2 == load(7)
        assert [7, 7] == ran

    def test_key_of_its_own(self, cache: Cache) -> None:
        """A function makes keys of the same arguments."""

        @cache.cacheable(lambda user, **_: ("user", user["id"]))
        def load(user: Any, extra: int = 0) -> Any:
            return user["id"]

        assert 5 == load({"id": 5}) == cache.get(("user", 5))
        assert ("user", 5) == load.key({"id": 5}, extra=1)

    def test_key_of_what_is_around(self, cache: Cache) -> None:
        """A function that makes keys may ask for more than the arguments, at each call."""
        language = "en"

        @cache.cacheable(lambda x: (language, x))
        def load(x: int) -> Any:
            return language, x

        for _ in range(2):
            language = "en"
            assert ("en", 7) == load(7) == load(7)
            language = "fr"
            assert ("fr", 7) == load(7) == load(7)

    def test_no_leak(self, cache: Cache) -> None:
        """A function that goes takes its views with it."""

        def function(x: int) -> Any:
            return x

        decorated: Any = cache.cacheable("{x}")(function)
        decorated(1)
        gone = weakref.ref(decorated)
        del decorated
        gc.collect()
        assert gone() is None


class TestBeside:
    def test_all(self, cache: Cache, calls: list[Any]) -> None:
        """invalidate, peek, refresh, uncached, key and cache."""

        @cache.cacheable("x:{x}")
        def load(x: int) -> Any:
            calls.append(x)
            return len(calls)

        assert (None, False) == (load.peek(7), load.invalidate(7))
        assert (1, 1, 1) == (load(7), load.peek(7), load(7))
        assert ("x:7", cache) == (load.key(7), load.cache)
        assert (2, 1) == (load.uncached(7), load(7))
        assert (3, 3) == (load.refresh(7), load(7))
        assert load.invalidate(7)
        assert 4 == load(7)

    def test_refresh_raises_its_own(self, cache: Cache) -> None:
        @cache.cacheable("x:{x}")
        def load(x: int) -> Any:
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            load.refresh(1)


class Repository:
    """Methods of every kind."""

    shared: Cache = LevelCache("repository")

    def __init__(self, name: str, cache: Cache | None = None) -> None:
        self.name = name
        self.cache = cache if cache is not None else LevelCache("own")
        self.calls: list[Any] = []

    @shared.cacheable("plain:{x}")
    def plain(self, x: int) -> Any:
        self.calls.append(x)
        return x

    @shared.cacheable("named:{self.name}:{x}")
    def named(self, x: int) -> Any:
        return self.name, x

    @shared.cacheable(ignore=["self"])
    def automatic(self, x: Any, *, y: Any = 1) -> Any:
        self.calls.append((x, y))
        return x, y

    @accelerator.cacheable(lambda self: self.cache, "own:{x}")
    def own(self, x: int) -> Any:
        return self.name, x

    @shared.cacheable("class:{x}")
    @classmethod
    def of_class(cls, x: int) -> Any:
        return cls.__name__, x

    @classmethod
    @shared.cacheable("outside:{x}")
    def outside(cls, x: int) -> Any:
        return cls.__name__, x

    @shared.cacheable("static:{x}")
    @staticmethod
    def static(x: int) -> Any:
        return x

    @staticmethod
    @shared.cacheable("static2:{x}")
    def static_outside(x: int) -> Any:
        return x

    @shared.cacheable("async:{x}")
    async def later(self, x: int) -> Any:
        self.calls.append(x)
        return x

    @shared.cacheable_batch("plain:{id}")
    def many(self, ids: list[int]) -> Any:
        self.calls.append(ids)
        return ids

    @accelerator.cache_put(lambda self: self.cache, "own:{x}")
    def put(self, x: int) -> Any:
        return "put", x

    @accelerator.cache_evict(lambda self: self.cache, "own:{x}")
    def evict(self, x: int) -> None:
        pass


class TestMethods:
    @pytest.fixture
    def repository(self, isolated: testing.Isolated) -> Repository:
        return Repository("first")

    def test_plain(self, repository: Repository) -> None:
        """The receiver is no part of the key, and is given to the function."""
        other = Repository("second")
        assert [7, 7, 7] == [repository.plain(7), other.plain(7), Repository.plain(other, 7)]
        assert ([7], []) == (repository.calls, other.calls)
        assert 7 == repository.shared.get("plain:7")

    def test_named(self, repository: Repository) -> None:
        """Unless a template names it."""
        assert ("first", 1) == repository.named(1) == repository.named(1)
        assert ("second", 1) == Repository("second").named(1)

    def test_automatic(self, repository: Repository) -> None:
        assert (1, 1) == repository.automatic(1) == repository.automatic(x=1, y=1)
        assert [(1, 1)] == repository.calls

    def test_beside(self, repository: Repository) -> None:
        """What is beside it is bound, too."""
        bound: Any = repository.plain
        assert (7, 7, "plain:7") == (bound(7), bound.peek(7), bound.key(7))
        assert bound.invalidate(7)
        assert bound.peek(7) is None
        assert (7, 7) == (bound.refresh(7), bound.uncached(7))
        assert ["x"] == list(inspect.signature(bound).parameters)
        assert ("plain", repository.shared) == (bound.__name__, bound.cache)
        assert bound == repository.plain != Repository("other").plain
        assert hash(bound) == hash(repository.plain)
        assert "Repository" in repr(bound)

    def test_own_cache(self, isolated: testing.Isolated) -> None:
        """A cache that the receiver has: each its own, found when it is called."""
        one = Repository("one", LevelCache("one"))
        two = Repository("two", LevelCache("two"))
        assert (("one", 1), ("two", 1)) == (one.own(1), two.own(1))
        assert one.cache.get("own:1") == one.own(1)
        assert (one.cache, two.cache) == (one.own.cache, two.own.cache)
        assert ("put", 1) == one.put(1) == one.own(1)
        one.evict(1)
        assert (None, ("two", 1)) == (one.own.peek(1), two.own.peek(1))
        with pytest.raises(AttributeError):
            _ = Repository.own.cache

    def test_class_methods(self, repository: Repository) -> None:
        """In either order of the decorators."""

        class Child(Repository):
            pass

        assert ("Repository", 1) == Repository.of_class(1) == repository.of_class(1)
        assert ("Child", 2) == Child.of_class(2) == Repository.of_class(2)
        assert Repository.of_class.invalidate(2)
        assert ("Repository", 3) == Repository.outside(3) == repository.outside(3)

    def test_beside_class_methods(self, repository: Repository) -> None:
        """What is beside one knows the class, or needs none, or says so."""
        outside: Any = Repository.outside
        assert (
            "outside:3" == outside.key(3) == Repository.of_class.key(3).replace("class", "outside")
        )
        assert (None, False) == (outside.peek(3), outside.invalidate(3))
        assert ("Repository", 3) == outside(3) == outside.peek(3)
        assert outside.invalidate(3)
        # As classmethod gives it from Python 3.13 on: the class is known to calls alone.
        beside: Any = vars(Repository)["outside"].__func__
        assert ("Repository", 3) == beside(Repository, 3)
        assert "outside:3" == beside.key(3) == beside.key(Repository, 3)
        assert beside.invalidate(3)
        assert beside.peek(3) is None
        for alone in (beside.refresh, beside.uncached):
            assert ("Repository", 3) == alone(Repository, 3)
            with pytest.raises(TypeError, match="above @classmethod"):
                alone(3)

    def test_class_as_argument(self, cache: Cache) -> None:
        """A class that is an argument is no receiver."""

        class Made:
            @classmethod
            @cache.cacheable("made:{kind.__name__}:{x}")
            def make(cls, kind: type = int, x: int = 1) -> Any:
                return kind.__name__, x

        beside: Any = vars(Made)["make"].__func__
        assert "made:str:2" == beside.key(str, 2) == beside.key(Made, str, 2)

    def test_static_methods(self, repository: Repository) -> None:
        assert 1 == Repository.static(1) == repository.static(1)
        assert repository.static.invalidate(1)
        assert 2 == Repository.static_outside(2) == repository.static_outside(2)
        assert Repository.static_outside.invalidate(2)

    def test_async(self, repository: Repository) -> None:
        async def main() -> None:
            assert 5 == await repository.later(5) == await repository.later(5)
            assert await repository.later.invalidate(5)

        assert inspect.iscoroutinefunction(Repository.later)
        assert inspect.iscoroutinefunction(repository.later)
        asyncio.run(main())
        assert [5] == repository.calls

    def test_batch(self, repository: Repository) -> None:
        """A batch and single calls with the same keys are about the same values."""
        assert {1: 1, 2: 2} == repository.many([1, 2])
        assert 1 == repository.plain(1)
        assert {1: 1, 3: 3} == repository.many([1, 3])
        assert [[1, 2], [3]] == repository.calls


class TestAsync:
    def test_call(self, cache: Cache, calls: list[Any]) -> None:
        """A coroutine function stays one, and so does what is beside it."""

        @cache.cacheable("{x}")
        async def load(x: int) -> Any:
            calls.append(x)
            await asyncio.sleep(0)
            return len(calls)

        async def main() -> None:
            assert [1, 1, 1] == await asyncio.gather(load(7), load(7), load(7))
            assert 1 == await load(7) == await load.peek(7)
            assert 2 == await load.refresh(7) == await load(7)
            assert 3 == await load.uncached(7)
            assert await load.invalidate(7)
            assert await load.peek(7) is None

        assert inspect.iscoroutinefunction(load)
        asyncio.run(main())

    @pytest.mark.skipif(not local.NATIVE, reason="the twin has no fast way")
    def test_plain_calls(self, cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
        """The key of a plain call is made once, as it is where the function is not async."""

        class Things:
            @cache.cacheable("{a}:{b}", soft_timeout=1, stale_on_error=True)
            async def load(self, a: Any, b: Any = 2) -> Any:
                return repr((a, b))

        things = Things()
        calls: list[tuple[tuple[Any, ...], dict[str, Any]]]
        calls = [((1,), {}), (("1",), {}), ((1, b"x"), {}), ((1,), {"b": None})]

        async def main() -> None:
            for args, kwargs in calls:
                await things.load(*args, **kwargs)
                await things.load(*args, **kwargs)
                with monkeypatch.context() as without_keys:
                    without_keys.setattr(Things.load.__cached__, "_key", None)  # type: ignore[attr-defined]
                    found = await things.load(*args, **kwargs)
                assert await Things.load.__wrapped__(things, *args, **kwargs) == found
            with pytest.raises(TypeError, match="float"):
                await things.load(a=1.5)

        asyncio.run(main())

    def test_own_error(self, cache: Cache) -> None:
        @cache.cacheable("{x}")
        async def load(x: int) -> Any:
            raise ZeroDivisionError

        for call in (load, load.refresh):
            with pytest.raises(ZeroDivisionError):
                asyncio.run(call(1))

    def test_timeout(self, cache: Cache) -> None:
        """It is stopped at its time limit."""

        @cache.cacheable("{x}", loader_timeout=0.02)
        async def load(x: int) -> Any:
            await asyncio.Event().wait()

        with pytest.raises(LoaderTimeout):
            asyncio.run(load(1))

    def test_batch(self, cache: Cache, calls: list[Any]) -> None:
        @cache.cacheable_batch("{id}")
        async def load(ids: list[int]) -> Any:
            calls.append(ids)
            return {one: one * 2 for one in ids if one < 100}

        async def main() -> None:
            assert {1: 2, 200: None} == await load([1, 200, 1])
            assert {1: 2, 3: 6} == await load([1, 3])
            assert {1: 2, 9: None} == await load.peek([1, 9])
            assert {3: 6} == await load.refresh([3])
            assert {4: 8} == await load.uncached([4])
            assert 2 == await load.invalidate([1, 3, 9])
            assert {} == await load([]) == await load.refresh([])

        asyncio.run(main())
        assert [[1, 200], [3], [3], [4]] == calls

    def test_changes(self, cache: Cache) -> None:
        @cache.cache_put("{x}")
        async def put(x: int) -> Any:
            return "value"

        @cache.cache_evict("{x}")
        async def evict(x: int) -> Any:
            return "done"

        @cache.cache_evict_batch("{x}", param="xs")
        async def evict_all(xs: list[int]) -> Any:
            return len(xs)

        async def main() -> None:
            assert "value" == await put(1) == await cache.aget(1)
            assert "done" == await evict(1)
            assert await cache.aget(1) is None
            await put(2)
            assert 2 == await evict_all([2, 3])
            assert await cache.aget(2) is None

        assert inspect.iscoroutinefunction(put)
        asyncio.run(main())


class TestOptions:
    def test_ttl(self, isolated: testing.Isolated, cache: Cache, calls: list[Any]) -> None:
        """A life of its own, also shorter for None."""

        @cache.cacheable("{x}", ttl="20s")
        def load(x: int) -> Any:
            calls.append(x)
            return x or None

        load(1), load(0)
        isolated.clock.advance(19)
        load(1), load(0)
        assert [1, 0] == calls
        isolated.clock.advance(2)
        load(1), load(0)
        assert [1, 0, 1, 0] == calls

    def test_ttl_of_none(self, isolated: testing.Isolated) -> None:
        """It never prolongs the life of a None, wherever the cache is found."""
        area: Cache = LevelCache("area", null_ttl=5)

        class Found:
            @area.cacheable("method:{x}", ttl=50)
            def method(self, x: int) -> Any:
                return None

            @accelerator.cacheable(lambda self: area, "found:{x}", ttl=50)
            def found(self, x: int) -> Any:
                return None

        Found().method(1), Found().found(1)
        for key in ("method:1", "found:1"):
            entry = area.get_entry(key)
            assert entry is not None
            assert entry.ttl is not None
            assert entry.ttl <= 5

    @pytest.mark.parametrize(
        ("mode", "ttl", "more", "lives"),
        [
            ("local", 500, {}, (500, 0)),
            ("remote", 500, {}, (0, 500)),
            ("both", 500, {}, (60, 500)),
            ("both", 20, {}, (20, 20)),
            ("both", None, {}, (60, None)),
            ("local", None, {}, (None, 0)),
            ("both", 500, {"local_ttl": 100}, (100, 500)),
            ("local", 500, {"local_ttl": 100}, (100, 0)),
        ],
    )
    def test_lives(self, mode: str, ttl: Any, more: Any, lives: Any) -> None:
        """As ``ttl=`` of a call: in two tiers Redis lives it, and the segment to its own limit."""
        with testing.isolated(redis="redis://127.0.0.1:1/0", namespace="nobody"):
            area: Cache = LevelCache("area", mode=mode, local_ttl=60, ttl_jitter_ratio=None)
            decorated = area.cacheable("{x}", ttl=ttl, **more)(lambda x: x)
            decorated(1)
            assert lives == decorated.__cached__.view(())._lives("value")

    @pytest.mark.parametrize(("mode", "window"), [("local", 100), ("both", 30), ("remote", 100)])
    def test_window_beyond_the_limit(self, mode: str, window: float) -> None:
        """A window for the whole life does not make every read of a shorter copy refresh."""
        with testing.isolated(redis="redis://127.0.0.1:1/0", namespace="nobody"):
            area: Cache = LevelCache("area", mode=mode, local_ttl=60)
            decorated = area.cacheable(
                "{x}", ttl=500, refresh_ahead=True, refresh_ahead_window=100
            )(lambda x: x)
            decorated(1)
            config = decorated.__cached__.view(()).config
            assert window == config.refresh_ahead_window

    def test_lives_follow_the_mode(self) -> None:
        """Lives are those of the tiers there are, also after another attach."""
        area: Cache = LevelCache("area", local_ttl=60, ttl_jitter_ratio=None)
        decorated = area.cacheable("{x}", ttl=500)(lambda x: x)
        for settings, life in (
            ({"redis": "redis://127.0.0.1:1/0", "namespace": "nobody"}, 60),
            ({}, 500),
        ):
            with testing.isolated(**settings):
                decorated(1)
                assert life == decorated.__cached__.view(())._lives("value").local

    def test_ttl_of_the_answer(self, cache: Cache) -> None:
        @cache.cacheable("{x}", ttl=lambda result: result)
        def load(x: int) -> Any:
            return x

        load(5), load(500), load(0)
        lives = [
            None if entry is None else entry.ttl for entry in map(cache.get_entry, (5, 500, 0))
        ]
        assert lives[0] is not None
        assert 4 < lives[0] <= 5
        assert lives[1] is not None
        assert 499 < lives[1] <= 500
        assert lives[2] is None

    def test_condition(self, cache: Cache, calls: list[Any]) -> None:
        """What the condition does not want is returned, and not stored."""

        @cache.cacheable("{x}", condition=lambda result: result > 1)
        def load(x: int) -> Any:
            calls.append(x)
            return x

        assert [1, 1, 2, 2] == [load(1), load(1), load(2), load(2)]
        assert [1, 1, 2] == calls

    def test_unless(self, cache: Cache, calls: list[Any]) -> None:
        """A call that is bypassed neither reads nor stores."""

        @cache.cacheable("{x}", unless=lambda x, fresh=False: fresh)
        def load(x: int, fresh: bool = False) -> Any:
            calls.append(x)
            return len(calls)

        assert [1, 2, 1] == [load(7), load(7, True), load(7)]
        assert 3 == load(7, fresh=True)

    def test_tags(self, cache: Cache) -> None:
        """Tags of arguments and of the answer."""

        @cache.cacheable("{x}", tags=["all", "x:{x}", "team:{result[team]}"])
        def load(x: int) -> Any:
            return {"team": x % 2} if x else None

        def present() -> list[int]:
            return [x for x in range(4) if cache.get_entry(x) is not None]

        def fill() -> None:
            for x in range(4):
                load(x)

        fill()
        assert [0, 1, 2, 3] == present()
        cache.delete_tags("team:1")
        assert [0, 2] == present()
        cache.delete_tags("x:2")
        assert [0] == present()
        fill()
        cache.delete_tags("all")
        assert [] == present()

    def test_tags_by_function(self, cache: Cache) -> None:
        @cache.cacheable("{x}", tags=lambda result, x: [f"r{result}", f"x{x}"])
        def load(x: int) -> Any:
            return x * 10

        load(1), load(2)
        cache.delete_tags("r10")
        assert (None, 20) == (cache.get(1), cache.get(2))

    def test_batch_options(self, cache: Cache, calls: list[Any]) -> None:
        """For each item by itself."""

        @cache.cacheable_batch(
            "{id}",
            param="ids",
            cache_none=False,
            condition=lambda value: value != 3,
            ttl=lambda value: 5 if value == 1 else 500,
            tags=["n:{id}"],
        )
        def load(ids: list[int], offset: int = 0) -> Any:
            calls.append(ids)
            return [one or None for one in ids]

        assert {0: None, 1: 1, 2: 2, 3: 3} == load((0, 1, 2, 3))
        assert {0: None, 1: 1, 2: 2, 3: 3} == load([0, 1, 2, 3])
        assert [(0, 1, 2, 3), [0, 3]] == calls
        entry = cache.get_entry(1)
        assert entry is not None
        assert entry.ttl is not None
        assert entry.ttl <= 5
        cache.delete_tags("n:2")
        assert (None, 1) == (cache.get(2), cache.get(1))

    def test_omitted(self, cache: Cache, calls: list[Any]) -> None:
        """What the answer of a batch lacks is None, and is asked for again (W24)."""

        @cache.cacheable_batch("{id}")
        def load(ids: list[int]) -> Any:
            calls.append(ids)
            return {}

        assert [{1: None}, {1: None}] == [load([1]), load([1])]
        assert [[1], [1]] == calls

    @pytest.mark.parametrize("answer", [[1], "ab", 5, None])
    def test_wrong_batch(self, cache: Cache, answer: Any) -> None:
        @cache.cacheable_batch("{id}")
        def load(ids: list[int]) -> Any:
            return answer

        with pytest.raises(TypeError, match="must answer a mapping"):
            load([1, 2])

    def test_equal_items(self, cache: Cache) -> None:
        """1 and True are one key of the answer, and two items."""

        @cache.cacheable_batch("{id}")
        def load(ids: list[Any]) -> Any:
            return [repr(one) for one in ids]

        with pytest.raises(ValueError, match="two calls"):
            load([1, True])

    def test_generator_of_items(self, cache: Cache, calls: list[Any]) -> None:
        """What can be asked once is given to all who ask."""

        def unless(ids: list[int]) -> bool:
            calls.append(list(ids))
            return ids[0] > 5

        @cache.cacheable_batch("{id}", unless=unless)
        def load(ids: list[int]) -> Any:
            calls.append(ids)
            return ids

        assert {1: 1, 2: 2} == load(iter([1, 2])) == load([1, 2])
        assert {7: 7} == load(iter([7])) == load.uncached(iter([7]))
        assert [[1, 2], [1, 2], [1, 2], [7], [7], [7]] == calls
        assert {} == load.uncached([])

    def test_items_without_hash(self, cache: Cache) -> None:
        """An item that can be no key of the answer is refused before anything is loaded."""

        @cache.cacheable_batch("{row[id]}")
        def load(rows: list[Any]) -> Any:
            raise AssertionError

        with pytest.raises(TypeError, match="dict of its items, in which a dict"):
            load([{"id": 1}])

    def test_evicted_generator(self, cache: Cache) -> None:
        """Keys cannot be made of items that would be gone then."""

        @cache.cache_evict_batch("{id}", param="ids")
        def remove(ids: Any) -> None:
            raise AssertionError

        for wrong in (iter([1]), "abc", {1: 2}, 5):
            with pytest.raises(TypeError, match="takes a list of items as ids"):
                remove(wrong)

    def test_batch_of_text(self, cache: Cache) -> None:
        @cache.cacheable_batch("{id}")
        def load(ids: list[str]) -> Any:
            return ids

        with pytest.raises(TypeError, match="list of items"):
            load("abc")

    @pytest.mark.parametrize(
        "options",
        [
            {"ttl": -1},
            {"ttl": "soon"},
            {"on_cache_error": "explode"},
            {"cache_none": 1},
            {"condition": 5},
            {"unless": "x"},
            {"tags": "one"},
            {"tags": [1]},
            {"nonsense": 1},
            {"mode": "local"},
            {"refresh_ahead": True, "ttl": 1},
            {"soft_timeout": 1},
            {"ignore": ["x"]},
            {"key": 5},
            {"key": "{nonsense}"},
            {"tags": ["{nonsense}"]},
        ],
        ids=str,
    )
    def test_wrong(self, cache: Cache, options: dict[str, Any]) -> None:
        """What is wrong or can have no effect is refused when the function is decorated."""
        with pytest.raises(ConfigError):
            cache.cacheable(**{"key": "{x}", **options})(lambda x: x)

    def test_receiver_of_all_arguments(self, cache: Cache) -> None:
        """All objects would share one answer: whoever wants that has to say so."""

        class User:
            def __init__(self, name: str) -> None:
                self.name = name

            def roles(self, of: list[int]) -> Any:
                return [self.name for _ in of]

        for decorate in (cache.cacheable, cache.cacheable_batch):
            with pytest.raises(ConfigError, match=r"all objects would share.*ignore=\['self'\]"):
                decorate()(User.roles)
            decorate(ignore=["self"])(User.roles)
        own = accelerator.cacheable(lambda self: cache, ignore=["of"])(User.roles)
        assert ["ada"] == own(User("ada"), [1])

    def test_wrong_ignore(self, cache: Cache) -> None:
        for ignore in (["nonsense"], "x"):
            with pytest.raises(ConfigError, match="ignore"):
                cache.cacheable(ignore=ignore)(lambda x: x)

    @pytest.mark.parametrize(
        ("key", "param"), [("{id}", None), ("{ids}", "ids"), ("{a}:{b}", "ids")]
    )
    def test_wrong_batch_decorator(self, cache: Cache, key: str, param: str | None) -> None:
        """A batch must know where its items are, and what one is called."""
        with pytest.raises(ConfigError):
            cache.cacheable_batch(key, param=param)(lambda ids, more: ids)

    def test_generators(self, cache: Cache) -> None:
        """An answer that can be used up only once cannot be cached."""

        def generate() -> Iterator[int]:
            yield 1

        async def agenerate() -> Any:
            yield 1

        for function in (generate, agenerate):
            with pytest.raises(ConfigError, match="generator"):
                cache.cacheable("k")(function)

    @pytest.mark.parametrize("function", [int, 5])
    def test_no_function(self, cache: Cache, function: Any) -> None:
        with pytest.raises(ConfigError, match="no function"):
            cache.cacheable("k")(function)

    @pytest.mark.parametrize("source", [5, None, "cache"])
    def test_no_cache(self, source: Any) -> None:
        with pytest.raises(ConfigError, match="LevelCache"):
            accelerator.cacheable(source, "k")(lambda: 1)

    def test_no_cache_at_the_call(self) -> None:
        decorated = accelerator.cacheable(lambda: 5, "k")(lambda: 1)
        with pytest.raises(TypeError, match="LevelCache"):
            decorated()

    def test_found_at_the_call(self, cache: Cache) -> None:
        """A function that gives the cache, without a receiver."""
        decorated = accelerator.cacheable(lambda: cache, "k:{x}")(lambda x: x)
        assert 5 == decorated(5) == cache.get("k:5")

    def test_soft_timeout(self, cache: Cache) -> None:
        """Options that need each other are given together, as for an area."""
        decorated = cache.cacheable(
            "{x}", soft_timeout=1, stale_on_error=True, background=contextlib.nullcontext
        )(lambda x: x)
        assert 1 == decorated(1)


class TestChanges:
    def test_put(self, cache: Cache) -> None:
        """Keys may be made of the answer; what is not to be stored is not."""

        @cache.cache_put(
            "user:{result[id]}",
            ttl=50,
            tags=["t"],
            value=lambda result, name: MISS if name == "no" else result,
            condition=lambda result: result["id"] != 3,
            unless=lambda name: name == "never",
        )
        def create(name: str) -> Any:
            return {"id": len(name), "name": name}

        create("Adam"), create("Bob"), create("no"), create("never")
        known = cache.mget([f"user:{n}" for n in range(2, 6)])
        assert ["user:4"] == [key for key, value in known.items() if value is not None]
        entry = cache.get_entry("user:4")
        assert entry is not None
        assert entry.ttl is not None
        assert 49 < entry.ttl <= 50
        cache.delete_tags("t")
        assert cache.get("user:4") is None

    def test_put_without_none(self, cache: Cache) -> None:
        @cache.cache_put("{x}", cache_none=False)
        def put(x: int) -> Any:
            return None

        put(1)
        assert cache.get_entry(1) is None

    def test_key_refused_first(self, cache: Cache, calls: list[Any]) -> None:
        """What is no key is refused before the function has done anything."""

        @cache.cache_put("{x}")
        def put(x: Any) -> Any:
            calls.append(x)

        with pytest.raises(TypeError, match="key"):
            put(1.5)
        assert [] == calls

    def test_result_is_kept(self, cache: Cache) -> None:
        """What fails after the function has its answer."""

        @cache.cache_put("{result}")
        def put(x: Any) -> Any:
            return {"committed": x}

        with pytest.raises(TypeError) as raised:
            put(5)
        assert {"committed": 5} == raised.value.result  # type: ignore[attr-defined]

    def test_evict_twice(self, cache: Cache) -> None:
        """What others load while the function runs goes, too (W22)."""

        @cache.cache_evict("{x}", before=True)
        def change(x: int) -> Any:
            assert cache.get(x) is None
            cache.set(x, "loaded meanwhile")

        cache.set(1, "old")
        change(1)
        assert cache.get(1) is None

    def test_evict_tags(self, cache: Cache) -> None:
        @cache.cache_evict(tags=["team:{team}"])
        def change(team: int) -> None:
            pass

        for x in range(4):
            cache.set(x, x, tags=[f"team:{x % 2}"])
        change(1)
        assert {0: 0, 1: None, 2: 2, 3: None} == cache.mget(range(4))

    def test_evict_all(self, cache: Cache) -> None:
        """All of the area, or of the namespace that it is a method of."""
        inner = cache.namespace("n")

        @inner.cache_evict(all=True)
        def change_inner() -> None:
            pass

        @cache.cache_evict(all=True)
        def change() -> None:
            pass

        cache.set(1, "one")
        inner.set(1, "one")
        change_inner()
        assert ("one", None) == (cache.get(1), inner.get(1))
        change()
        assert cache.get(1) is None

    def test_expire(self) -> None:
        """Stale copies stay."""
        with testing.isolated():
            cache: Cache = LevelCache("area", stale_ttl=60)

            @cache.cache_evict("{x}", expire=True)
            def change(x: int) -> None:
                pass

            cache.set(1, "old")
            change(1)
            assert (None, "old") == (cache.get(1), cache.get(1, allow_stale=True))

    def test_conditions(self, cache: Cache) -> None:
        @cache.cache_evict("{x}", condition=bool, unless=lambda x, done: x == 2)
        def change(x: int, done: bool) -> bool:
            return done

        cache.mset({1: 1, 2: 2, 3: 3})
        change(1, False), change(2, True), change(3, True)
        assert {1: 1, 2: 2, 3: None} == cache.mget([1, 2, 3])

    def test_wrong(self, cache: Cache) -> None:
        with pytest.raises(ConfigError, match="what to forget"):
            cache.cache_evict()
        with pytest.raises(ConfigError, match="before"):
            cache.cache_evict("{result}", before=True)(lambda: 1)
        with pytest.raises(ConfigError, match="keys"):
            cache.cache_evict_batch(5)(lambda: 1)  # type: ignore[arg-type]

    def test_static_and_class(self, cache: Cache) -> None:
        class Changes:
            @cache.cache_evict("{x}")
            @staticmethod
            def static(x: int) -> Any:
                return x

            @cache.cache_evict("{x}")
            @classmethod
            def of_class(cls, x: int) -> Any:
                return cls.__name__, x

        cache.mset({1: 1, 2: 2})
        assert (1, ("Changes", 2)) == (Changes.static(1), Changes().of_class(2))
        assert {1: None, 2: None} == cache.mget([1, 2])


class TestCall:
    """The callable itself, over whichever memory there is."""

    def test_arguments(self) -> None:
        def echo(*args: Any, **kwargs: Any) -> Any:
            return args, kwargs

        call = local.Call(echo, lambda call, receiver: ("bound", receiver))
        assert ((1, 2), {"x": 3}) == call(1, 2, x=3)
        assert ("bound", 5) == call.__get__(5)
        assert call.__get__(None, int) is call
        with pytest.raises(ValueError, match="position"):
            local.Call(echo, echo, None, 2)

    def test_attribute_of_a_class(self) -> None:
        """It is called with the receiver, as a function is."""

        class Thing:
            call = local.Call(lambda *args: args, functools.partial)

        thing = Thing()
        assert (thing, 1) == thing.call(1)  # type: ignore[comparison-overlap,misc]

    @pytest.mark.skipif(not local.NATIVE, reason="the twin has no fast way")
    def test_plain_hit(self, cache: Cache) -> None:
        """A hit does not come to Python, whatever is around it does."""
        came: list[Any] = []
        call = local.Call(lambda *args: came.append(args), lambda *_: None, cache, 1)
        cache.mset({1: None, "a": "A"})
        assert [None, "A"] == [call(0, 1), call(0, "a")]
        assert [] == came
        for arguments in ((0, True), (0, 2), (1,), (0, 1, 2), (0, (1,)), (0, b"b")):
            call(*arguments)
            assert arguments == came.pop()

    @pytest.mark.skipif(not local.NATIVE, reason="the twin has no fast way")
    def test_plain_calls(self, cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
        """Nor does one of a call with any plain arguments, by position or by name."""

        @cache.cacheable("{a}:{b}:{c}")
        def load(a: Any, b: Any = 2, *, c: Any = 3) -> Any:
            return repr((a, b, c))

        number = UUID(int=5)
        values = [1, -1, 1 << 62, "1", "text", "\xfc", "", b"1", b"", None, True, False, number]
        calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
        for one in values:
            calls += [((one,), {}), ((one, 1), {}), ((1, one), {}), ((), {"a": one, "b": 1})]
            calls += [((1,), {"c": one, "b": one}), ((1,), {"b": one, "c": one})]
        for one in values:
            calls += [((1,), {"b": one}), ((1,), {"c": one})]
        # What would be the name of another call if types, lengths or keywords were not in it.
        eight = [(number).to_bytes(8, "little") for number in (1, 2)]
        calls += [((1, 2), {}), ((b"i\x08\0" + eight[0] + b"i\x08\0" + eight[1],), {})]
        calls += [((1, eight[0].decode()), {}), ((1, 1), {}), ((1, eight[0]), {}), ((1, ""), {})]
        calls += [(("a", "bc"), {}), (("ab", "c"), {}), (("as", "b"), {}), (("a", "sb"), {})]
        for args, kwargs in calls:
            load(*args, **kwargs), load(*args, **kwargs)
            with monkeypatch.context() as without_keys:
                without_keys.setattr(load.__cached__, "_key", None)
                assert load.__wrapped__(*args, **kwargs) == load(*args, **kwargs)
        # Each pair together, as few are remembered at a time.
        for number, (args, kwargs) in enumerate(calls):
            for other, named in calls[number - 8 : number]:
                for given in ((args, kwargs), (other, named), (args, kwargs)):
                    found = load(*given[0], **given[1])
                    assert load.__wrapped__(*given[0], **given[1]) == found

    @pytest.mark.parametrize("wrong", [(), (1, 2, 3)])
    def test_plain_calls_refused(self, cache: Cache, wrong: Any) -> None:
        """A call that does not fit the function is refused with and without a receiver."""

        class Things:
            @cache.cacheable("{a}:{b}")
            def load(self, a: int, b: int) -> Any:
                return a, b

        assert (1, 2) == Things().load(1, 2) == Things().load(1, b=2)
        with pytest.raises(TypeError, match=r"load\(\)"):
            Things().load(*wrong)
        with pytest.raises(TypeError, match=r"load\(\)"):
            Things().load(1, 2, a=1)
        with pytest.raises(TypeError, match=r"load\(\)"):
            Things().load(1, 2, z=1)

    def test_forgotten_by_other_calls(self, cache: Cache) -> None:
        """What one call remembers is forgotten with its value, however that was asked for."""
        values = iter(range(10))
        load = cache.cacheable("{a}:{b}")(lambda a, b=2: next(values))
        assert [0] * 4 == [load(1), load(1, 2), load(a=1), load(b=2, a=1)]
        load.invalidate(1)
        assert [1] * 4 == [load(b=2, a=1), load(a=1), load(1, 2), load(1)]
        cache.set("1:2", 50)
        assert [50] * 3 == [load(1), load(1, 2), load(a=1)]

    @pytest.mark.skipif(not local.NATIVE, reason="the twin has no fast way")
    def test_counted(self, cache: Cache) -> None:
        """A hit is counted as the area's own are; a miss once, by who asks then."""

        @cache.cacheable("{x}")
        def load(x: int) -> Any:
            return None

        load(1)
        before = cache.metrics_snapshot()
        assert [None] * 3 == [load(1) for _ in range(3)]
        after = cache.metrics_snapshot()
        names = ("local_hit", "negative_hit", "local_miss", "load_total")
        assert [3, 3, 0, 0] == [after[name] - before[name] for name in names]
