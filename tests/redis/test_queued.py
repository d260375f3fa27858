"""A change that Redis has missed, though it is well: the host does not get what was before."""

import contextlib
import time
import uuid
from collections.abc import Callable, Iterator

import pytest

from accelerator import BackendError, LevelCache, testing
from accelerator.demo.fault_proxy import FaultProxy


def until(condition: Callable[[], object]) -> None:
    """Look every few milliseconds until something holds."""
    deadline = time.monotonic() + 30.0
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.002)


@pytest.fixture
def host(proxy: FaultProxy) -> Iterator[testing.Isolated]:
    """A host whose way to Redis can be cut."""
    namespace = f"test-{uuid.uuid4().hex}"
    with testing.isolated(redis=proxy.url, namespace=namespace) as own:
        yield own


@pytest.fixture
def cache(host: testing.Isolated) -> LevelCache:
    """An area in step, with one value that lies in both tiers."""
    made = LevelCache("area")
    made.peek("key")
    until(lambda: made.diagnostic_snapshot()["invalidation_listener_started"])
    made.set("key", "old")
    assert "old" == made.get("key")
    return made


def lose(proxy: FaultProxy, change: Callable[[], object]) -> None:
    """Have a change be lost on its way; other connections are fine when it has returned."""
    proxy.mode("half_open")
    change()
    proxy.mode("pass")


class TestOwnHost:
    @pytest.mark.parametrize("change", ["delete", "expire", "clear"])
    def test_forgotten(
        self, host: testing.Isolated, proxy: FaultProxy, cache: LevelCache, change: str
    ) -> None:
        """From when a delete has returned, until Redis knows and after it."""
        arguments = () if change == "clear" else ("key",)
        lose(proxy, lambda: getattr(cache, change)(*arguments))
        assert 1 == host.memory.link()["outbox_depth"]

        def settled() -> bool:
            assert cache.get("key") is None
            return bool(host.memory.link()["outbox_depth"] == 0)

        until(settled)
        assert cache.get("key") is None
        assert 0 < cache.metrics_snapshot()["l2_skipped"]

    def test_replaced(self, host: testing.Isolated, proxy: FaultProxy, cache: LevelCache) -> None:
        """A value that a set has replaced does not come back when the new one is evicted."""
        lose(proxy, lambda: cache.set("key", "new"))
        host.memory.clear_all()

        def settled() -> bool:
            assert cache.get("key") is None
            return bool(host.memory.link()["outbox_depth"] == 0)

        until(settled)
        assert cache.get("key") is None

    def test_decided(self, host: testing.Isolated, proxy: FaultProxy, cache: LevelCache) -> None:
        """Redis does not count on from what was deleted, nor is its count deleted later."""
        cache.incr("count", 5)
        lose(proxy, lambda: cache.delete("count"))
        answers = []

        def is_counted() -> bool:
            with contextlib.suppress(BackendError):
                answers.append(cache.incr("count"))
            return bool(answers)

        until(is_counted)
        until(lambda: host.memory.link()["outbox_depth"] == 0)
        assert [1, 2] == [*answers, cache.incr("count")]

    def test_others_decided(
        self, host: testing.Isolated, proxy: FaultProxy, cache: LevelCache
    ) -> None:
        """What is queued of one key does not keep others from being counted."""
        lose(proxy, lambda: cache.delete("key"))
        assert 1 == cache.incr("count")

    def test_read_again(self, host: testing.Isolated, proxy: FaultProxy, cache: LevelCache) -> None:
        """When all is told, Redis is read again."""
        lose(proxy, lambda: cache.delete("key"))
        until(lambda: host.memory.link()["outbox_depth"] == 0)
        cache.set("key", "newer")
        host.memory.clear_all()
        until(lambda: cache.get("key") == "newer")
