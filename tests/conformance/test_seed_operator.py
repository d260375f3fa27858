"""What the crate's runbook asks an operator to see: the log and the counters of failures."""

import asyncio
import logging
import time
from collections.abc import Iterator
from typing import Any

import pytest

from accelerator import FnLoader, LoaderError, LoaderTimeout
from accelerator.observability import oplog


class Slow:
    """A loader that never answers, one key or many."""

    async def load(self, key: str) -> None:
        await asyncio.Event().wait()

    async def mload(self, keys: Any) -> dict[str, Any]:
        await asyncio.Event().wait()
        return {}


@pytest.fixture
def log(caplog: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The lines of accelerator.ops as (op, result, error_kind)."""
    monkeypatch.setattr(oplog, "_last", {})  # failures of other tests limit the rate
    with caplog.at_level(logging.WARNING, "accelerator.ops"):
        yield lambda: {
            (each.op, each.result, each.error_kind)
            for each in caplog.records
            if each.name == "accelerator.ops"
        }


class TestTimeouts:
    @pytest.mark.parametrize("batch", [False, True], ids=["get", "mget"])
    def test_counted_and_told(self, make: Any, log: Any, batch: bool) -> None:
        """R18, R20: a timeout of one load and of a batch is counted, and told with its kind."""
        cache = make(loader=Slow(), loader_timeout=0.01, batch_timeout=0.01, error_ttl=0.001)
        with pytest.raises(LoaderTimeout):
            asyncio.run(cache.amget(["a", "b"]) if batch else cache.aget("a"))
        counted = cache.metrics_snapshot()
        assert counted["load_timeout"] >= 1
        assert counted["load_total"] == counted["load_timeout"]
        assert ("mget" if batch else "get", "error", "timeout") in log()

    def test_before_it_is_asked(self, memory: Any, deaf_redis: Any) -> None:
        """R18: a load whose time passes while Redis is asked is one load and one timeout, too."""
        cache = memory.cache(loader=Slow(), loader_timeout=0.1)
        with pytest.raises(LoaderTimeout):
            asyncio.run(cache.aget("key"))
        assert deaf_redis.was_called()
        counted = cache.metrics_snapshot()
        assert (1, 1) == (counted["load_total"], counted["load_timeout"])

    @pytest.mark.parametrize("batch", [False, True], ids=["get", "mget"])
    def test_measured(self, make: Any, batch: bool) -> None:
        """R19: what a load took is in the histogram, whether it is of one key or of many."""
        cache = make(loader=FnLoader(str.upper))
        cache.mget(["a", "b"]) if batch else cache.get("a")
        assert 1 <= cache.diagnostic_snapshot()["load"]["count"]


class TestErrors:
    def test_loader(self, make: Any, log: Any) -> None:
        """R20: a loader's error is told with its kind, in get and in mget."""
        cache = make(loader=lambda key: {}[key], error_ttl=0.001)
        for read, key in ((cache.get, "a"), (cache.mget, ["b"])):
            with pytest.raises(LoaderError):
                read(key)
        assert {("get", "error", "loader"), ("mget", "error", "loader")} <= log()

    @pytest.mark.usefixtures("redis_only")
    def test_redis(self, memory: Any, make: Any, log: Any) -> None:
        """R3: a read that Redis does not answer is told, though the caller gets an answer."""
        cache = make(mode="both", loader=str.upper)
        cache.get("first")
        for _ in range(5):
            memory.segment.remote_failed(time.monotonic(), False)
        assert "KEY" == cache.get("key")
        assert ("get", "error", "backend") in log()
        assert 1 <= cache.metrics_snapshot()["l2_skipped"]
