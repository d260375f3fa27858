"""A second level of the application's own, under all that stands on one: hosts and processes."""

import asyncio
import contextlib
import importlib.util
import sqlite3
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

import accelerator
from accelerator import BackendError, ConfigError, LevelCache, local, runtime, testing
from accelerator.backend import Stored, Written

if not local.NATIVE:
    pytest.skip("processes share through the native part", allow_module_level=True)


def load(name: str, path: str) -> Any:
    """Import what is no test, once."""
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).parent / path)
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules[name]


hosts = load("hosts", "../redis/hosts.py")
until = hosts.until
AREAS: Mapping[str, Any] = {"area": {"ttl_jitter_ratio": None, "stale_ttl": "1h"}}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "cache.db"


@pytest.fixture
def make_host(example: Any, file: Path) -> Iterator[Callable[..., Any]]:
    """Make hosts of two workers over one file."""
    made: list[Any] = []
    namespace = uuid.uuid4().hex

    def make(*, in_step: bool = True, **settings: Any) -> Any:
        settings = {"namespace": namespace, "wait": 10.0, **settings}
        remote = example.SqliteBackend(file, wait=settings.pop("wait"))
        host = hosts.Host(None, AREAS, workers=2, remote=remote, **settings)
        made.append(host)
        return host.wait_in_step() if in_step else host

    yield make
    for host in made:
        host.close()


@pytest.fixture
def pair(make_host: Callable[..., Any]) -> tuple[Any, Any]:
    return make_host(), make_host()


class TestHosts:
    CHANGES: Mapping[str, tuple[str, tuple[Any, ...], Any]] = {
        "set": ("set", ("key", 2), 2),
        "delete": ("delete", ("key",), None),
        "mdelete": ("mdelete", (["other", "key"],), None),
        "incr": ("incr", ("key", 4), 5),
        "expire": ("expire", ("key",), None),
        "clear": ("clear", (), None),
        "add": ("add", ("key", 3), 1),
    }

    @pytest.mark.parametrize("change", CHANGES)
    def test_changes(self, pair: tuple[Any, Any], change: str) -> None:
        """What one host changes is seen by every worker of the other, soon, without a flush."""
        method, arguments, expected = self.CHANGES[change]
        mine, theirs = pair
        mine.call("area.set", "key", 1)
        until(lambda: theirs.workers[1].call("area.get", "key") == 1)
        mine.workers[1].call(f"area.{method}", *arguments)
        for worker in theirs.workers:
            until(
                lambda worker=worker: worker.call("area.get", "key") == expected,
                patience=1.5,
            )
        assert 0 == theirs.count("flush")

    def test_soon(self, pair: tuple[Any, Any]) -> None:
        """Of a few tries the fastest takes less than 0.2 s."""
        mine, theirs = pair
        fastest = 10.0
        for turn in range(5):
            mine.call("area.set", turn, "old")
            until(lambda turn=turn: theirs.call("area.get", turn) == "old")
            began = time.monotonic()
            mine.call("area.delete", turn)
            until(lambda turn=turn: theirs.call("area.get", turn) is None)
            fastest = min(fastest, time.monotonic() - began)
        assert 0.2 > fastest

    def test_one_listens(self, pair: tuple[Any, Any]) -> None:
        """One worker of a host listens, and when it is killed, the other goes on."""
        mine, theirs = pair
        leader = theirs.leading_worker()
        [rest] = [worker for worker in theirs.workers if worker is not leader]
        mine.call("area.set", "key", 1)
        until(lambda: rest.call("area.get", "key") == 1)
        leader.kill()
        mine.call("area.set", "key", 2)
        until(lambda: rest.call("area.get", "key") == 2, patience=5.0)

    def test_loads(self, pair: tuple[Any, Any]) -> None:
        """What one host has loaded the other finds; a load that a delete overtakes is no value."""
        mine, theirs = pair
        assert "loaded" == mine.call(load_slowly, "key", "loaded", 0.0)
        assert ("loaded", "remote") == theirs.call(entry, "key")
        mine.workers[0].begin(load_slowly, "late", "old", 0.3)
        until(lambda: mine.workers[1].call(flights) == 1)
        theirs.call("area.delete", "late")
        assert "old" == mine.workers[0].end()
        for host in pair:
            until(lambda host=host: host.call("area.get", "late") is None)

    def test_away(self, pair: tuple[Any, Any], file: Path, make_host: Callable[..., Any]) -> None:
        """While it takes no writes a delete is queued, readers go on, and it is sent later."""
        mine, theirs = pair
        brief = make_host(wait=0.05)
        mine.call("area.set", "key", 1)
        until(lambda: theirs.call("area.get", "key") == 1 == brief.call("area.get", "key"))
        with locked(file):
            brief.call("area.delete", "key")
            assert 1 <= brief.link()["outbox_depth"]
            assert brief.call("area.get", "key") is None
            assert brief.call(deleting, "other")
        for host in (mine, theirs, brief):
            until(lambda host=host: host.call("area.get", "key") is None)
        until(lambda: brief.link()["outbox_depth"] == 0)

    def test_namespaces(self, make_host: Callable[..., Any]) -> None:
        """Two applications share a file, and nothing in it."""
        mine, theirs = make_host(), make_host(namespace="other")
        mine.call("area.set", "key", 1)
        assert theirs.call("area.get", "key") is None
        theirs.call("area.clear")
        assert 1 == mine.call("area.get", "key")


class TestPluggedIn:
    def test_settings(self, example: Any, file: Path) -> None:
        """It is shown, named, and used in every mode that has a second level."""
        own = example.SqliteBackend(file)
        with testing.isolated(remote=own, namespace="shop") as isolated:
            cache = LevelCache("area", mode="remote")
            cache.set("key", 1)
            assert 1 == cache.get("key")
            shown = accelerator.diagnostics()
            assert "SqliteBackend" == shown["settings"]["remote"]
            assert {"kind": "custom", "backend": "SqliteBackend", "file": "cache.db"}.items() <= (
                shown["remote"].items()
            )
            assert "shop:area" == cache.diagnostic_snapshot()["remote"]["channel"]
            isolated.clear()
            assert 1 == cache.get("key")

    def test_needs_a_name(self, example: Any, file: Path) -> None:
        """As for Redis: without a name that all hosts know there is no second level."""
        own = example.SqliteBackend(file)
        with pytest.raises(ConfigError, match="remote needs an explicit name"):
            accelerator.configure(remote=own)

    def test_async(self, example: Any, file: Path) -> None:
        """Async methods run it in threads, and a cancelled one leaves nothing behind."""

        async def use(cache: LevelCache) -> list[Any]:
            await cache.aset("key", 1)
            slow = asyncio.create_task(cache.aset("late", 1))
            await asyncio.sleep(0)
            slow.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await slow
            found = [await cache.aget("key"), await cache.aincr("n"), await cache.adelete("key")]
            return [*found, await cache.aget("key")]

        own = example.SqliteBackend(file)
        with testing.isolated(remote=own, namespace="shop"):
            assert [1, 1, True, None] == asyncio.run(use(LevelCache("area")))

    @pytest.mark.parametrize(
        ("error", "reason", "opens"),
        [
            (ValueError("key 17"), "connection", True),
            (TimeoutError("key 17"), "timeout", True),
            (sqlite3.OperationalError("key 17"), "connection", True),
            (accelerator.errors.RemoteError("no such key", reason="other"), "other", False),
            (ConfigError("key 17"), "connection", True),
        ],
        ids=lambda each: type(each).__name__ if isinstance(each, Exception) else str(each),
    )
    def test_errors(
        self, example: Any, file: Path, error: Exception, reason: str, opens: bool
    ) -> None:
        """Whatever it raises, readers go on; failures in a row have it left alone for a while."""

        class Broken(example.SqliteBackend):  # type: ignore[misc]
            asked = 0

            def get(self, area: str, keys: Any, **more: Any) -> Any:
                Broken.asked += 1
                raise error

            def fail(self, *arguments: Any, **more: Any) -> Any:
                raise error

            add = lease = fail

        with testing.isolated(remote=Broken(file), namespace="shop", freshness_bound=60.0):
            cache = LevelCache("area", loader=lambda key: key)
            with pytest.raises(BackendError) as caught:
                cache.add("key", 1)
            assert reason == caught.value.reason  # type: ignore[attr-defined]
            assert "key 17" not in str(caught.value)
            assert [*range(20)] == [cache.get(key) for key in range(20)]
            assert opens == (Broken.asked < 20)

    @pytest.mark.parametrize(
        "answer",
        [
            None,
            [],
            [None, None],
            (None,),
            "x",
            ["x"],
            [7],
            [Stored("x", None)],  # type: ignore[arg-type]
            [Stored(b"x", float("nan"))],
        ],
    )
    def test_answers(self, example: Any, file: Path, answer: Any) -> None:
        """An answer of another shape is no answer."""

        class Broken(example.SqliteBackend):  # type: ignore[misc]
            def get(self, area: str, keys: Any, **more: Any) -> Any:
                return answer

            def lease(self, area: str, keys: Any, seconds: float, **more: Any) -> Any:
                return answer

        with testing.isolated(remote=Broken(file), namespace="shop", freshness_bound=60.0):
            cache = LevelCache("area", loader=lambda key: key)
            assert 7 == cache.get(7)
            assert 0 < cache.metrics_snapshot()["l2_error_fill"]

    @pytest.mark.parametrize("answer", [None, 7, "x", (1,), [None], object(), Written("x", "y")])  # type: ignore[arg-type]
    def test_answers_to_changes(self, example: Any, file: Path, answer: Any) -> None:
        """What a change answers is no reason to fail, and is not passed on if it is none."""
        broken = example.SqliteBackend(file)
        for method in ("write", "expire", "clear", "mark_tags", "fill", "tell"):
            setattr(broken, method, lambda *_, **__: answer)
        with testing.isolated(remote=broken, namespace="shop", freshness_bound=60.0):
            cache = LevelCache("area", stale_ttl=60)
            cache.mset({"key": 1, "other": 2})
            assert 1 == cache.get("key")
            assert cache.expire("key")
            assert cache.delete("other")
            cache.delete_tags("tag")
            cache.expire_tags("tag")
            cache.clear()
            assert 7 == cache.get_or_load("key", lambda _: 7)

    @pytest.mark.parametrize("answer", ["x", (1,), [None], object(), 1.5])
    @pytest.mark.parametrize(
        ("method", "arguments"), [("add", ("key", 1)), ("touch", ("key", 5)), ("incr", ("key",))]
    )
    def test_answers_that_decide(
        self, example: Any, file: Path, method: str, arguments: Any, answer: Any
    ) -> None:
        """What is no answer decides nothing."""
        broken = example.SqliteBackend(file)
        setattr(broken, method, lambda *_, **__: answer)
        with testing.isolated(remote=broken, namespace="shop", freshness_bound=60.0):
            cache: LevelCache[Any, Any] = LevelCache("area")
            with pytest.raises(BackendError, match="is not what the protocol says"):
                getattr(cache, method)(*arguments)

    @pytest.mark.parametrize("answer", [None, 7, ["x"], [(1, 2)], (None, None, None), object()])
    @pytest.mark.parametrize("method", ["recheck", "log", "beat", "read"])
    def test_answers_to_the_listener(
        self,
        example: Any,
        file: Path,
        method: str,
        answer: Any,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """No answer ends a leadership; when they are right again, the host is in step."""
        broken, right = example.SqliteBackend(file), example.SqliteBackend(file)
        asked = threading.Event()

        def odd(*_: Any) -> Any:
            asked.set()
            return answer

        def subscriber(channel: str) -> Any:
            made = right.subscriber(channel)
            made.read = odd
            return made

        if method == "read":
            broken.subscriber = subscriber
        else:
            setattr(broken, method, odd)
        with testing.isolated(remote=broken, namespace="shop", freshness_bound=1.0):
            cache: LevelCache[Any, Any] = LevelCache("area", loader=lambda key: key)
            assert 7 == cache.get(7)
            if method == "log":
                until(lambda: cache.diagnostic_snapshot()["invalidation_listener_started"])
                with contextlib.closing(sqlite3.connect(file, timeout=30.0)) as own, own:
                    # Nobody can read it, so the log is asked.
                    own.execute("INSERT INTO told VALUES (NULL, 'shop:area', 0, x'00')")
            assert asked.wait(60)
            assert 8 == cache.get(8)
            for name in (method, "subscriber"):
                setattr(broken, name, getattr(right, name, None))
            until(lambda: cache.diagnostic_snapshot()["invalidation_listener_started"])
        assert "the listener failed" not in caplog.text

    def test_no_exception(self, example: Any, file: Path) -> None:
        """What is no Exception, such as gevent's Timeout, ends no listener."""
        broken = example.SqliteBackend(file)
        raised = threading.Event()

        class Timeout(BaseException):
            pass

        def raises(*_: Any) -> Any:
            if not raised.is_set():
                raised.set()
                raise Timeout
            return []

        broken.recheck = raises
        with testing.isolated(remote=broken, namespace="shop"):
            cache: LevelCache[Any, Any] = LevelCache("area")
            cache.get(7)
            assert raised.wait(60)
            until(lambda: cache.diagnostic_snapshot()["invalidation_listener_started"])


@contextlib.contextmanager
def locked(file: Path) -> Iterator[None]:
    """Keep all writers out of a file."""
    with contextlib.closing(sqlite3.connect(file, isolation_level=None, timeout=30.0)) as own:
        own.execute("BEGIN IMMEDIATE")
        yield
        own.execute("ROLLBACK")


# --- in the workers -----------------------------------------------------------------------------


def load_slowly(key: Any, value: Any, seconds: float) -> Any:
    def load(_: Any) -> Any:
        time.sleep(seconds)  # the load is what takes time
        return value

    return hosts.cache().get_or_load(key, load)


def flights() -> int:
    return len(runtime.current().memory.flights())


def entry(key: Any) -> Any:
    found = hosts.get_entry(key)
    return found and (found.value, found.tier)


def deleting(key: Any) -> bool:
    """Whether a delete that must be told raises, and says that it is queued."""
    try:
        hosts.cache().delete(key, on_error="raise")
    except BackendError as error:
        return error.queued
    return False
