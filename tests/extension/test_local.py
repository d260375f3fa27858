"""A first level of the application's own."""

import asyncio
import json
import multiprocessing
import os
import pickle
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from accelerator import MISS, ConfigError, LevelCache, local, testing
from accelerator.testing import LocalBackendSuite


class Dict:
    """Of one process."""

    def __init__(self) -> None:
        self.entries: dict[bytes, Any] = {}

    def get(self, key: bytes) -> Any:
        return self.entries.get(key)

    def set(self, key: bytes, entry: Any) -> None:
        self.entries[key] = entry

    def delete(self, key: bytes) -> None:
        self.entries.pop(key, None)

    def clear(self) -> None:
        self.entries.clear()


class Files:
    """Of all processes of a host."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)

    def path(self, key: bytes) -> Path:
        return self.folder / (key.hex()[:200] + f"-{len(key)}-{hash(key)}")

    def get(self, key: bytes) -> Any:
        try:
            return pickle.loads(self.path(key).read_bytes())
        except FileNotFoundError:
            return None

    def set(self, key: bytes, entry: Any) -> None:
        new = self.folder / f"new-{os.getpid()}-{threading.get_ident()}"
        new.write_bytes(pickle.dumps(entry))
        new.rename(self.path(key))

    def delete(self, key: bytes) -> None:
        self.path(key).unlink(missing_ok=True)

    def clear(self) -> None:
        for path in self.folder.iterdir():
            path.unlink(missing_ok=True)


class TestDict(LocalBackendSuite):
    @pytest.fixture
    def backend(self) -> Any:
        return Dict()


class TestFiles(LocalBackendSuite):
    @pytest.fixture
    def backend(self, tmp_path: Path) -> Any:
        return Files(tmp_path / "entries")


class TestForgetful(LocalBackendSuite):
    """One that keeps nothing is one, too."""

    keeps = False

    @pytest.fixture
    def backend(self) -> Any:
        made = Dict()
        made.set = lambda key, entry: None  # type: ignore[method-assign]
        return made


def set_folded(self: Any, key: bytes, entry: Any) -> None:
    self.entries[key.lower()] = entry


FAULTS: dict[str, tuple[str, dict[str, Any]]] = {
    "folds keys": (
        "test_keys",
        {"set": set_folded, "get": lambda self, key: self.entries.get(key.lower())},
    ),
    "rounds times": (
        "test_stored",
        {
            "get": lambda self, key: (
                (found := self.entries.get(key))
                and found._replace(loaded_at=round(found.loaded_at, 3))
            )
        },
    ),
    "keeps the first": (
        "test_replaced",
        {"set": lambda self, key, entry: self.entries.setdefault(key, entry)},
    ),
    "does not delete": ("test_replaced", {"delete": lambda self, key: None}),
    "does not clear": ("test_clear", {"clear": lambda self: None}),
    "raises for what is absent": ("test_absent", {"get": lambda self, key: self.entries[key]}),
    "loses everything": ("test_stored", {"set": lambda self, key, entry: None}),
}


class TestSuite:
    @pytest.mark.parametrize("fault", FAULTS)
    def test_finds(self, fault: str) -> None:
        """Each fault is found, by a test that passes without it."""
        test, methods = FAULTS[fault]
        getattr(LocalBackendSuite(), test)(Dict())
        broken = type("Broken", (Dict,), methods)()
        with pytest.raises((AssertionError, KeyError)):
            getattr(LocalBackendSuite(), test)(broken)


class TestCoherence:
    """The object is told nothing that it would have to hear of."""

    def pair(self, **options: Any) -> tuple[Any, Any]:
        """Two processes' caches of one area, as their segment is the same."""
        more = {"ttl_jitter_ratio": None, "stale_ttl": 60, **options}
        return tuple(LevelCache("area", local=Dict(), **more) for _ in range(2))  # type: ignore[return-value]

    @pytest.mark.parametrize(
        "change",
        [
            lambda it: it.set("key", 2),
            lambda it: it.delete("key"),
            lambda it: it.expire("key"),
            lambda it: it.clear(),
            lambda it: it._memory.invalidate("area", [b"skey"]),
            lambda it: it._memory.invalidate("area", [b"skey"], expire=True),
            lambda it: it._memory.clear_area("area"),
        ],
    )
    def test_changes(self, change: Any) -> None:
        """Whatever changes a key elsewhere makes the copy here worthless."""
        with testing.isolated():
            mine, theirs = self.pair()
            theirs.set("key", 1)
            assert 1 == theirs.get("key")
            mine.get("key")  # attaches
            change(mine)
            assert MISS is theirs.get("key", MISS)

    def test_tags(self) -> None:
        """A delete by tag makes all values with tags worthless, and no others."""
        with testing.isolated():
            mine, theirs = self.pair()
            theirs.set("key", 1, tags=["x"])
            theirs.set("other", 2)
            assert [1, 2] == [theirs.get("key"), theirs.get("other")]
            mine.delete_tags("x")
            assert [None, 2] == [theirs.get("key"), theirs.get("other")]

    def test_own_expire(self) -> None:
        """expire() keeps the stale copy in the object that it was called on."""
        with testing.isolated():
            cache, _ = self.pair()
            cache.set("key", 1)
            assert cache.expire("key")
            assert not cache.expire("key")
            assert MISS is cache.get("key", MISS)
            assert 1 == cache.get("key", allow_stale=True)
            cache.delete("key")
            assert MISS is cache.get("key", MISS, allow_stale=True)

    def test_delete_within_expire(self) -> None:
        """A delete that comes while expire() looks at the value is not undone by it."""
        with testing.isolated():
            mine, theirs = self.pair()
            theirs.get("key")
            mine.set("key", 1)
            own = mine.config.local
            looks = iter([None, lambda: theirs.delete("key")])

            def get(key: bytes) -> Any:
                found = Dict.get(own, key)
                (next(looks, None) or int)()
                return found

            own.get = get
            mine.expire("key")
            assert MISS is mine.get("key", MISS, allow_stale=True)

    def test_late(self) -> None:
        """Who enters a load after it has ended finds its value, and does not load again."""
        with testing.isolated():
            cache, _ = self.pair()
            cache.set("key", 1)
            assert cache._enter("key", 30.0) is None
            forced = cache._enter("key", 30.0, local.FORCE)
            assert local.FLIGHT_LEADING == forced.state
            forced.fail()

    def test_another_segment(self) -> None:
        """What was stored beside another segment is not believed beside this one."""
        own = Dict()
        for _ in range(2):
            with testing.isolated():
                cache = LevelCache("area", local=own)
                assert MISS is cache.get("key", MISS)
                cache.set("key", 1)
                assert 1 == cache.get("key")

    def test_overtaken(self) -> None:
        """What a delete has overtaken is the caller's answer, and never stored as current."""
        with testing.isolated():
            mine, theirs = self.pair()

            def load(key: str) -> str:
                mine.delete(key)
                return "old"

            assert "old" == theirs.get_or_load("key", load)
            assert MISS is theirs.get("key", MISS)
            assert "new" == theirs.get_or_load("key", lambda key: "new")
            assert "new" == theirs.get("key")

    def test_sets_at_once(self) -> None:
        """Two processes that set a key at the same moment never believe two values."""
        with testing.isolated():
            mine, theirs = self.pair()
            mine.get("key")
            theirs.get("key")
            for turn in range(200):
                gate = threading.Barrier(2)

                def store(cache: Any, value: str, gate: Any = gate) -> None:
                    gate.wait(20)
                    cache.set("key", value)

                threads = [
                    threading.Thread(target=store, args=(cache, f"{turn} {name}"))
                    for name, cache in (("mine", mine), ("theirs", theirs))
                ]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
                found = {cache.get("key") for cache in (mine, theirs)} - {None}
                assert len(found) <= 1
            mine.set("key", "last")
            assert ["last", None] == [mine.get("key"), theirs.get("key")]

    def test_between(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A set that another one comes into is as good as evicted."""
        with testing.isolated():
            mine, theirs = self.pair()
            mine.get("key")
            theirs.get("key")
            whole = type(mine)._token
            intruders = iter([lambda: theirs.set("key", "theirs")])

            def token(self: Any, key: Any) -> Any:
                found = whole(self, key)
                if self is mine:
                    next(intruders, lambda: None)()
                return found

            monkeypatch.setattr(type(mine), "_token", token)
            mine.set("key", "mine")
            assert [None, None] == [mine.get("key"), theirs.get("key")]

    def test_one_load(self) -> None:
        """One of many threads loads, the others wait and have its value."""
        calls: list[str] = []
        gate = threading.Event()

        def load(key: str) -> str:
            calls.append(key)
            gate.wait(20)
            return "loaded"

        with testing.isolated():
            cache = LevelCache("area", local=Dict(), loader=load)
            found: list[Any] = []
            threads = [
                threading.Thread(target=lambda: found.append(cache.get("key"))) for _ in range(5)
            ]
            for thread in threads:
                thread.start()
            end = time.monotonic() + 20
            while cache._memory.flights()[0]["waiters"] < 4 if calls else True:
                assert time.monotonic() < end
                time.sleep(0.001)
            gate.set()
            for thread in threads:
                thread.join()
            assert (["key"], ["loaded"] * 5) == (calls, found)
            assert {"key": "loaded"} == cache.mget(["key"])
            assert "loaded" == asyncio.run(cache.aget("key"))
            assert ["key"] == calls

    def test_lives(self) -> None:
        """Values end as they should."""
        with testing.isolated():
            cache, _ = self.pair()
            cache.set("key", 1, ttl=0.01)
            end = time.monotonic() + 20
            while cache.get("key", MISS) is not MISS:
                assert time.monotonic() < end
            assert 1 == cache.get("key", allow_stale=True)
            cache.set("key", 1, ttl=0)
            assert MISS is cache.get("key", MISS, allow_stale=True)
            found = cache.get_entry("key")
            assert found is None
            cache.set("key", 2, ttl=None)
            found = cache.get_entry("key")
            assert (2, "local", None, False) == (found.value, found.tier, found.ttl, found.stale)

    def test_views(self) -> None:
        """Namespaces and decorators of such an area work, and the diagnostics can be shown."""
        with testing.isolated():
            cache, _ = self.pair()
            part = cache.namespace("tenant")
            part.set("key", 1)
            cache.set("key", 2)
            assert [1, 2] == [part.get("key"), cache.get("key")]
            part.clear()
            assert [None, 2] == [part.get("key"), cache.get("key")]
            calls: list[int] = []

            @cache.cacheable("n:{number}")
            def double(number: int) -> int:
                calls.append(number)
                return 2 * number

            assert [4, 4, [2]] == [double(2), double(2), calls]
            assert "Dict" in json.dumps(cache.diagnostic_snapshot())

    def test_counted(self) -> None:
        """Hits, misses and sets are counted, as in any area."""
        with testing.isolated():
            cache, _ = self.pair()
            cache.get("key")
            cache.set("key", None)
            cache.get("key")
            names = ("local_hit", "local_miss", "negative_hit", "set")
            counted = cache.metrics_snapshot()
            assert [1, 1, 1, 1] == [counted[name] for name in names]


class TestRefused:
    @pytest.mark.parametrize(
        "call", [lambda it: it.add("a", 1), lambda it: it.incr("a"), lambda it: it.touch("a", 9)]
    )
    def test_decided(self, call: Any) -> None:
        """What must be decided in one step is refused where nothing can."""
        with testing.isolated():
            cache = LevelCache("area", local=Dict())
            cache.set("a", 1)
            with pytest.raises(ConfigError, match="second level only"):
                call(cache)
            assert 1 == cache.get("a")

    @pytest.mark.parametrize(
        "options",
        [{"mode": "remote"}, {"mode": "off"}, {"objects": "shared"}, {"verify": "full"}],
    )
    def test_useless(self, options: Any) -> None:
        """What can never have an effect with it is refused."""
        with pytest.raises(ConfigError, match="local"):
            LevelCache("area", local=Dict(), **options)

    @pytest.mark.parametrize("given", [Dict, object(), {}, "shared"])
    def test_kind(self, given: Any) -> None:
        """It is an object with all methods."""
        with pytest.raises(ConfigError, match="LocalBackend"):
            LevelCache("area", local=given)


@pytest.mark.skipif(not local.NATIVE, reason="processes share through the native part")
class TestProcesses:
    def test_fork(self, tmp_path: Path) -> None:
        """What one process deletes is gone for the others, whichever object they have."""
        context = multiprocessing.get_context("fork")
        for own in (Dict(), Files(tmp_path / "entries")):
            with testing.isolated(shared=True):
                cache = LevelCache("area", local=own)
                cache.set("key", 1)
                cache.set("other", 2)
                child = context.Process(target=lambda cache=cache: cache.delete("key"))
                child.start()
                child.join(20)
                assert 0 == child.exitcode
                assert [MISS, 2] == [cache.get(key, MISS) for key in ("key", "other")]


class TestBehindAnother:
    def test_both(self, example: Any, tmp_path: Path) -> None:
        """In front of a second level it is filled from there, and incr() is decided there."""
        remote = example.SqliteBackend(tmp_path / "cache.db", wait=10.0)
        settings = {"remote": remote, "namespace": "shop", "freshness_bound": 60.0}
        own = Dict()
        with testing.isolated(**settings):
            cache = LevelCache("area", local=own)
            cache.set("key", 1)
            assert ("local", "remote") == (
                cache.get_entry("key").tier,  # type: ignore[union-attr]
                (own.clear(), cache.get_entry("key").tier)[1],  # type: ignore[union-attr]
            )
            assert b"skey" in own.entries
            assert [1, 2, 2] == [cache.incr("n"), cache.incr("n"), cache.get("n")]
            assert cache.add("new", 1)
            cache.delete("key")
            assert MISS is cache.get("key", MISS)
