"""What a loader may be, and what is found out about it."""

import functools
import threading
from collections.abc import Callable
from typing import Any

import pytest

from accelerator import BatchContext, FnLoader, Loader, MLoader, background, entry
from accelerator.loader import LoadContext, LoadFailed, Source, is_async, takes_context


def plain(key: Any) -> Any:
    return key


def with_context(key: Any, context: Any = None) -> Any:
    return context


def keyword_only(key: Any, *, context: Any) -> Any:
    return context


def positional_only(context: Any, /) -> Any:
    return context


def anything(*arguments: Any, **options: Any) -> Any:
    return options


async def coroutine(key: Any, context: Any) -> Any:
    return context


def wrapped(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*arguments: Any, **options: Any) -> Any:
        return function(*arguments, **options)

    return wrapper


def narrow(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(key: Any) -> Any:
        return function(key, context=5)

    return wrapper


class Whole:
    def load(self, key: Any, context: Any) -> Any:
        return context

    async def mload(self, keys: list[Any]) -> dict[Any, Any]:
        return {}


class Called:
    def __call__(self, key: Any, context: Any) -> Any:
        return context


class AsyncCalled:
    async def __call__(self, key: Any) -> Any:
        return key


class TestCall:
    @pytest.mark.parametrize(
        ("function", "expected"),
        [
            (plain, False),
            (with_context, True),
            (keyword_only, True),
            (positional_only, False),
            (anything, False),
            (coroutine, True),
            (wrapped(with_context), True),
            (wrapped(wrapped(keyword_only)), True),
            (wrapped(plain), False),
            (narrow(with_context), False),
            (Whole().load, True),
            (Whole().mload, False),
            (Called(), True),
            (functools.partial(with_context), True),
            (functools.partial(with_context, context=1), False),
            (str, False),
            (int, False),
            (dict.get, False),
            (lambda key: key, False),
            (lambda context: context, True),
        ],
    )
    def test_context(self, function: Any, expected: bool) -> None:
        """The context is given to whom has a parameter of that name."""
        assert expected is takes_context(function)

    @pytest.mark.parametrize(
        ("function", "expected"),
        [
            (plain, False),
            (coroutine, True),
            (functools.partial(coroutine, 1), True),
            (AsyncCalled(), True),
            (Called(), False),
            (Whole().mload, True),
        ],
    )
    def test_async(self, function: Any, expected: bool) -> None:
        """Whether it is async is known without calling it."""
        assert expected is is_async(function)

    def test_source(self) -> None:
        """An object with load is that, also if it can be called."""
        source = Source(Whole())
        assert 7 == source.of(batch=False)("key", 7)
        assert source.of(batch=True).is_async
        assert Source(plain).mload is None
        with pytest.raises(TypeError, match="int"):
            Source(5)


class TestProtocols:
    def test_kinds(self) -> None:
        """FnLoader is one or the other, by what it was given."""
        one, many = FnLoader(plain), FnLoader(plain, plain)
        assert isinstance(one, Loader)
        assert not isinstance(one, MLoader)
        assert isinstance(many, MLoader)
        assert "FnLoader(plain)" == repr(one)
        with pytest.raises(TypeError, match="mload"):
            FnLoader(plain, 5)  # type: ignore[arg-type]


class TestContexts:
    def test_one(self) -> None:
        """What a loader of one key says."""
        context = LoadContext("area", lambda: 3)
        assert (3, "area", entry.UNSET) == (context.stale_value, context.area, context.ttl)
        assert not context.skips("key")
        context.skip()
        context.ttl = "1m"
        assert (True, 60.0) == (context.skips("key"), context.ttl_for("key"))
        context.ttl = entry.UNSET  # type: ignore[assignment]
        assert entry.UNSET is context.ttl
        for wrong in (-1, "soon", float("nan")):
            with pytest.raises(ValueError, match="ttl"):
                context.ttl = wrong
        with pytest.raises(LoadFailed, match="because"):
            context.fail("because")

    def test_tags(self) -> None:
        """Tags are a set that may be added to, or replaced by any iterable of str."""
        context = LoadContext("area", lambda: None)
        assert set() == context.tags == context.tags_for("key")
        context.tags.add("a")
        assert {"a"} == context.tags_for("key")
        context.tags = ("b", "c", "b")
        assert {"b", "c"} == context.tags == context.tags_for("key")
        context.tags |= {"d"}
        assert {"b", "c", "d"} == context.tags

    @pytest.mark.parametrize("wrong", ["abc", b"abc", 5, None, ["a", 5], [None]], ids=repr)
    def test_wrong_tags(self, wrong: Any) -> None:
        """What is no iterable of str is refused at once; one str is none."""
        context = LoadContext("area", lambda: None)
        with pytest.raises(TypeError, match="tag"):
            context.tags = wrong
        assert set() == context.tags

    def test_tags_of_many(self) -> None:
        """Tags of a batch are on all of its values, those of a key on that one, too."""
        context = BatchContext("area", ["a", "b"], lambda _: None)
        context.tags = ["all"]
        context.tags_of("a", "one", "two")
        context.tags_of("a", "three")
        assert {"all", "one", "two", "three"} == context.tags_for("a")
        assert {"all"} == context.tags_for("b") == context.tags
        with pytest.raises(TypeError, match="tag"):
            context.tags_of("b", 5)  # type: ignore[arg-type]
        assert {"all"} == context.tags_for("b")

    def test_many(self) -> None:
        """What a loader of many says."""
        context = BatchContext("area", ["a", "b"], {"a": 1}.get)
        assert (["a", "b"], 1, False) == (
            context.keys,
            context.stale_value_of("a"),
            context.is_complete,
        )
        context.ttl = 5
        context.ttl_of("a", None)
        context.skip("b")
        context.complete()
        assert (None, 5) == (context.ttl_for("a"), context.ttl_for("b"))
        assert (False, True, True) == (
            context.skips("a"),
            context.skips("b"),
            context.is_complete,
        )
        context.skip()
        assert context.skips("a")


class TestPool:
    def test_full(self) -> None:
        """No more loads wait than it is good for the keys that they lead."""
        go_on = threading.Event()
        most = background.WORKERS + background.MOST_WAITING
        futures = [background.submit(lambda: go_on.wait(20)) for _ in range(most)]
        assert None not in futures
        assert background.submit(plain) is None  # type: ignore[arg-type]
        go_on.set()
        for future in futures:
            assert future is not None
            assert future.result(20)
        late = background.submit(lambda: 5)
        assert late is not None
        assert 5 == late.result(20)
