"""A decorated function in several processes: one of them runs it."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from accelerator import LevelCache, local, testing

pytestmark = pytest.mark.skipif(not local.NATIVE, reason="processes share through the native part")

WORKERS = 4

CACHE: LevelCache[Any, Any] = LevelCache("decorated")


@pytest.fixture
def shared() -> Iterator[testing.Isolated]:
    with testing.isolated(shared=True) as isolated:
        yield isolated
        assert [] == isolated.memory.check()


class TestOneCall:
    def test_together(self, shared: testing.Isolated, fork: Callable[..., Any]) -> None:
        """Four processes that miss together run the function once, and all have its answer."""
        counter: LevelCache[str, int] = LevelCache("counter", local_ttl=None)

        @CACHE.cacheable(lambda x, *, y: (x, str(y)))
        def load(x: int, *, y: float) -> Any:
            counter.incr("calls")
            # Until the others wait for it: who has not come yet would be answered by the cache.
            while sum(flight["waiters"] for flight in shared.memory.flights()) < WORKERS - 1:
                pass
            return {"x": x, "y": y}

        def body(meet: Callable[..., Any]) -> None:
            meet()
            meet(load(7, y=0.5))
            meet()
            meet(load(7, y=0.5))

        children = [fork(body) for _ in range(WORKERS)]
        for child in children:
            child.meet()
        answers = [child.meet() for child in children]
        assert [{"x": 7, "y": 0.5}] * WORKERS == answers
        assert 1 == counter.get("calls") == CACHE.metrics_snapshot()["load_total"]

    def test_invalidated(self, shared: testing.Isolated, fork: Callable[..., Any]) -> None:
        """What one process invalidates is gone for the others, also from their plain hits."""
        counter: LevelCache[str, int] = LevelCache("counter", local_ttl=None)

        @CACHE.cacheable("n:{n}")
        def load(n: int) -> Any:
            return n, counter.incr("calls")

        def body(meet: Callable[..., Any]) -> None:
            while (what := meet()) is not None:
                meet(getattr(load, what)(5) if what else [load(5) for _ in range(3)])

        one, other = fork(body), fork(body)

        def ask(child: Any, what: str = "") -> Any:
            child.meet(what)
            return child.meet()

        assert [(5, 1)] * 3 == ask(one) == ask(other)
        assert ask(one, "invalidate")
        assert ask(other, "peek") is None
        assert [(5, 2)] * 3 == ask(other) == ask(one)
        assert (5, 3) == ask(one, "refresh")
        assert [(5, 3)] * 3 == ask(other)
        for child in (one, other):
            child.meet(None)
