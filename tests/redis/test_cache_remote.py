"""
LevelCache with Redis behind it, alone (REMOTE) or behind the segment (BOTH), sync and async.

Another host is played by a client that writes as hosts do; tests with two real ones are beside
this file.
"""

import ast
import asyncio
import contextlib
import inspect
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

import accelerator
from accelerator import (
    MISS,
    BackendError,
    ConfigError,
    FnLoader,
    LevelCache,
    LoaderError,
    SerializationError,
    local,
    message,
    runtime,
    testing,
)
from accelerator.codec.raw import CODE_STR
from accelerator.compression import zstd
from accelerator.config import Settings
from accelerator.demo.redis_server import RedisServer
from accelerator.observability import oplog
from accelerator.remote import Change, seal
from accelerator.remote.names import Names

hosts: Any = sys.modules["hosts"]  # beside this file, loaded by conftest.py
until = hosts.until
failed_calls = hosts.failed_calls

GONE = "gone"
OTHER = bytes(range(16))
"""Origin of another host's messages."""

DECIDED: Any = (("add", ("new", 1)), ("incr", ("key",)), ("touch", ("key",)))
"""Methods that Redis decides, with arguments."""

Make = Callable[..., Any]


class Api:
    """A cache whose methods are called as they are, or through their async twins."""

    def __init__(self, cache: LevelCache, world: "World") -> None:
        self.plain = cache
        self._runner = world.runner
        self._world = world

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if self._runner is None or not hasattr(self.plain, f"a{name}"):
            return getattr(self.plain, name)
        runner, method = self._runner, getattr(self.plain, f"a{name}")

        async def call(arguments: Any, keywords: Any) -> Any:
            return await method(*arguments, **keywords)

        return lambda *arguments, **keywords: runner.run(call(arguments, keywords))

    def __contains__(self, key: Any) -> bool:
        return key in self.plain

    def loader(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Make a loader of a function."""
        return as_loader(function, is_async=self._runner is not None)

    def count(self, counter: str) -> int:
        return self.plain.metrics_snapshot()[counter]

    def tier(self, key: Any, **options: Any) -> str | None:
        """Where a read finds a key."""
        found = self.get_entry(key, **options)
        return None if found is None else str(found.tier)

    def listen(self) -> None:
        """
        Wait until all messages of the area have been heard.

        A set that is heard when its copy has gone from L1 is as good as a delete; it would overtake
        what the test does next.
        """
        until(lambda: self.count("invalidation_receive") >= self._world.messages(self.plain))

    def evict(self, key: Any) -> None:
        """Drop a key from L1 only."""
        self.listen()
        self.plain._delete(key)

    def local(self, key: Any) -> Any:
        """What the segment has, without asking Redis."""
        found = self.plain._read(key, touch=False)
        return GONE if found is None else found[0]

    def left(self, key: Any) -> float | None:
        """Seconds that a value is still fresh, wherever it is found."""
        found = self.get_entry(key)
        assert found is not None
        left: float | None = found.ttl
        return left


def as_loader(function: Callable[..., Any], *, is_async: bool) -> Callable[..., Any]:
    if not is_async:
        return function

    async def load(*arguments: Any) -> Any:
        await asyncio.sleep(0)
        return function(*arguments)

    load.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]
    return load


class World:
    """Redis as this host and as others see it."""

    def __init__(self, url: str, namespace: str, style: str, mode: str, clients: Any) -> None:
        self.url = url
        self.namespace = namespace
        self.mode = mode
        self.runner = asyncio.Runner() if style == "async" else None
        self._clients = clients
        self._other: Any = None
        self._raw: Any = None

    @property
    def is_both(self) -> bool:
        return self.mode == "both"

    @property
    def raw(self) -> Any:
        """A client for what no host would do."""
        if self._raw is None:
            self._raw = redis.Redis.from_url(self.url, protocol=2)
        return self._raw

    def make(self, area: str = "area", *, in_step: bool = True, **options: Any) -> Api:
        """Make a cache, whose host is in step."""
        options = {"mode": self.mode, "ttl_jitter_ratio": None, **options}
        for name in ("load", "mload"):
            assert name not in options
        if callable(options.get("loader")):
            options["loader"] = as_loader(options["loader"], is_async=self.runner is not None)
        cache = LevelCache(area, **options)
        if in_step:
            cache.peek("nothing")
            until(lambda: cache._freshness() < 1.5)  # type: ignore[operator]
        return Api(cache, self)

    # --- the other host ---

    @property
    def other(self) -> Any:
        if self._other is None:
            self._other = self._clients.connect(self.url, namespace=self.namespace)
        return self._other

    def put(self, key: Any, value: str, life: float | None = 60.0, **more: Any) -> None:
        """Another host sets a str."""
        fingerprint = more.pop("fingerprint", 0)
        sealed = seal(CODE_STR, value.encode(), fingerprint=fingerprint, **more)
        change = Change(local.encode_key(key), sealed, life, 0)
        self.other.write("area", message.SET, [change], OTHER)

    def drop(self, key: Any) -> None:
        """Another host deletes."""
        change = Change(local.encode_key(key), None, None, 0)
        self.other.write("area", message.FORGET, [change], OTHER)

    # --- what is in Redis ---

    def name(self, key: Any, area: str = "area") -> str:
        return Names(self.namespace, area).value(local.encode_key(key))

    def has(self, key: Any) -> bool:
        return bool(self.raw.exists(self.name(key)))

    def life(self, key: Any) -> float:
        """Seconds that a copy has left in Redis; negative: no expiry, or no copy."""
        return float(self.raw.pttl(self.name(key))) / 1000

    def messages(self, cache: LevelCache | None = None) -> int:
        """How many invalidations of an area were published."""
        area = "area" if cache is None else cache.config.area
        return int(self.raw.xlen(Names(self.namespace, area).log))

    def close(self) -> None:
        if self.runner is not None:
            self.runner.close()
        if self._raw is not None:
            self._raw.close()


@pytest.fixture(params=["sync", "async"])
def style(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["both", "remote"])
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@contextlib.contextmanager
def world_at(
    url: str, namespace: str, style: str, mode: str, clients: Any, **settings: Any
) -> Iterator[World]:
    settings = {"redis_timeout": 5.0, "freshness_bound": 2.0, **settings}
    made = World(url, namespace, style, mode, clients)
    with testing.isolated(redis=url, namespace=namespace, **settings):
        try:
            yield made
        finally:
            made.close()


@pytest.fixture
def world(url: str, namespace: str, style: str, mode: str, clients: Any) -> Iterator[World]:
    """A host in each of the modes, called in each of the styles."""
    with world_at(url, namespace, style, mode, clients) as made:
        yield made


@pytest.fixture
def both(url: str, namespace: str, style: str, clients: Any) -> Iterator[World]:
    """A host whose segment is in front of Redis."""
    with world_at(url, namespace, style, "both", clients) as made:
        yield made


@pytest.fixture
def calm(url: str, namespace: str, clients: Any) -> Iterator[World]:
    """The same, called in one style only."""
    with world_at(url, namespace, "sync", "both", clients) as made:
        yield made


class InPairs:
    """Each mode called in one of the styles, where the styles have nothing to do with it."""

    @pytest.fixture
    def style(self, mode: str) -> str:
        return {"both": "sync", "remote": "async"}[mode]


@pytest.fixture
def make(world: World) -> Make:
    return world.make


@pytest.fixture
def cache(world: World) -> Any:
    return world.make()


class TestValues:
    """set, get, mset, mget, peek, in, get_entry, and where the values are."""

    @pytest.mark.parametrize(
        "value",
        [b"", b"x", "text", 0, 1, 2**70, -1.5, True, None, [1, {"a": None}], (1, 2)],
        ids=repr,
    )
    def test_round_trip(self, world: World, cache: Any, value: object) -> None:
        """What was set comes back equal and of the same type, from each tier."""
        cache.set("key", value)
        for _ in range(2):
            found = cache.get("key", MISS)
            assert value == found
            assert type(value) is type(found)
            cache.evict("key")  # of L1 only
        assert world.has("key")

    def test_tiers(self, world: World, cache: Any) -> None:
        """In BOTH, what Redis answered is in L1 afterwards; in REMOTE it never is."""
        cache.set("key", "value")
        assert ("local" if world.is_both else "remote") == cache.tier("key")
        cache.evict("key")
        assert "remote" == cache.tier("key")
        assert ("local" if world.is_both else "remote") == cache.tier("key")
        assert None is cache.tier("nothing")
        assert cache.count("remote_hit") == (1 if world.is_both else 3)

    def test_mset_mget(self, world: World, cache: Any) -> None:
        """Batches have every key that was asked for, in that order, a cached None too."""
        cache.mset({"a": 1, "b": None, 3: "c"})
        cache.evict("a")
        assert [("z", GONE), (3, "c"), ("b", None), ("a", 1)] == list(
            cache.mget(["z", 3, "b", "a"], GONE).items()
        )
        assert all(world.has(key) for key in ("a", "b", 3))

    def test_large_batches(self, cache: Any) -> None:
        """Batches larger than what one command takes are complete."""
        values = {number: number for number in range(1000)}
        cache.mset(values)
        cache.listen()
        cache.plain._memory.clear_area("area")
        assert values == cache.mget(values)
        assert 1000 == cache.mdelete(values)
        assert 0 == cache.diagnostic_snapshot()["remote"]["outbox_dropped"]

    def test_look_without_touching(self, world: World, cache: Any) -> None:
        """peek and ``in`` find what is in Redis only, and leave it there."""
        world.put("key", "value")
        before = cache.count("remote_hit")
        assert "value" == cache.peek("key")
        assert "key" in cache
        assert "other" not in cache
        assert GONE == cache.local("key")
        assert before == cache.count("remote_hit")

    def test_others_values(self, world: World, cache: Any) -> None:
        """What another host sets and deletes is seen."""
        world.put("key", "theirs")
        assert "theirs" == cache.get("key")
        world.drop("key")
        until(lambda: cache.get("key", GONE) == GONE)

    def test_areas(self, world: World, make: Make) -> None:
        """The same key of another area is another one."""
        one, other = make(), make("another")
        one.set("key", 1)
        assert GONE == other.get("key", GONE)
        other.set("key", 2)
        one.clear()
        assert 2 == other.get("key")
        assert world.raw.exists(world.name("key", "another"))

    def test_one_command(
        self,
        server: RedisServer,
        namespace: str,
        style: str,
        clients: Any,
        make_monitor: Callable[..., Any],
    ) -> None:
        """A batch is one MGET and one script, however many keys it has."""
        with world_at(server.url, namespace, style, "remote", clients) as world:
            cache = world.make()
            cache.mset({0: 0})
            monitor = make_monitor(server)
            cache.mset({key: key for key in range(100)})
            assert 100 == len(cache.mget(range(100)))
            values = {world.name(key) for key in range(100)}
            seen = [words[0] for words in monitor.commands() if values & set(words)]
            counted = [seen.count(word) for word in ("EVALSHA", "SET", "MGET", "GET")]
            assert [1, 100, 1, 0] == counted


class TestAtomic:
    """add, touch, incr, decr are decided in Redis, for all hosts."""

    def test_add(self, world: World, cache: Any) -> None:
        """One of all hosts succeeds; after a delete another one may."""
        assert cache.add("key", "mine")
        assert not cache.add("key", "again")
        assert "mine" == cache.get("key")
        world.put("theirs", "theirs")
        assert not cache.add("theirs", "mine")
        assert "theirs" == cache.get("theirs")
        cache.delete("key")
        assert cache.add("key", "mine")

    def test_add_over_a_copy(self, world: World, cache: Any) -> None:
        """A copy in L1 of what is gone from Redis does not count."""
        cache.set("key", "old")
        world.raw.delete(world.name("key"))
        assert cache.add("key", "new")
        assert "new" == cache.get("key")

    def test_add_nothing(self, world: World, cache: Any) -> None:
        """With a ttl of 0 it answers, and stores nothing."""
        assert cache.add("key", 1, ttl=0)
        assert not world.has("key")
        cache.set("key", 1)
        assert not cache.add("key", 2, ttl=0)

    def test_touch(self, world: World, cache: Any) -> None:
        """It gives a new life here and there; 0 ends it; it does not create."""
        assert not cache.touch("key")
        cache.set("key", "value", ttl=5)
        assert cache.touch("key", 50)
        assert 40 < cache.left("key") <= 50
        assert 40 < world.life("key") <= 50
        assert cache.touch("key", None)
        assert 0 > world.life("key")
        assert "value" == cache.get("key")
        assert cache.touch("key", 0)
        assert not world.has("key")
        assert GONE == cache.get("key", GONE)

    def test_incr(self, world: World, cache: Any) -> None:
        """Exact to 64 bits; a present one keeps its life; what set() stored can be counted on."""
        assert 1 == cache.incr("key")
        assert 5_000_000_000_001 == cache.incr("key", 5_000_000_000_000)
        assert 4_999_999_999_999 == cache.decr("key", 2)
        cache.set("set", 10, ttl=7)
        assert 11 == cache.incr("set", ttl=50)
        assert 0 < world.life("set") <= 7
        assert 11 == cache.get("set")
        cache.evict("set")
        assert 11 == cache.get("set")
        assert None is cache.incr("absent", default=None)
        assert "absent" not in cache
        cache.set("most", 2**63 - 1)
        with pytest.raises(OverflowError):
            cache.incr("most")
        assert 2**63 - 1 == cache.get("most")

    @pytest.mark.parametrize("value", ["1", 1.5, True, None, [1], 2**70], ids=repr)
    def test_incr_of_something_else(self, cache: Any, value: object) -> None:
        """What is no int of 64 bits is not counted on."""
        cache.set("key", value)
        with pytest.raises(TypeError):
            cache.incr("key")
        assert value == cache.get("key")


class TestForget:
    """delete, mdelete, expire, clear."""

    def test_delete(self, world: World, cache: Any) -> None:
        """It tells whether the key was there, on this host or in Redis only."""
        cache.set("key", 1)
        assert cache.delete("key")
        assert not cache.delete("key")
        assert GONE == cache.get("key", GONE)
        world.put("theirs", "theirs")
        assert cache.delete("theirs")
        assert not world.has("theirs")

    def test_mdelete(self, world: World, cache: Any) -> None:
        """It counts each key once, wherever it was."""
        cache.mset({"a": 1, "b": 2})
        world.put("c", "theirs")
        assert 3 == cache.mdelete(["a", "b", "b", "c", "d"])
        assert 0 == cache.mdelete(iter([]))
        assert {"a": None, "b": None, "c": None} == cache.mget(["a", "b", "c"])

    def test_expire(self, world: World, make: Make) -> None:
        """A plain get misses; a stale copy is kept, in Redis too."""
        cache = make(stale_ttl=60)
        cache.set("key", "old", ttl=50)
        assert cache.expire("key")
        assert not cache.expire("key")
        assert GONE == cache.get("key", GONE)
        assert "key" not in cache
        assert "old" == cache.get("key", allow_stale=True)
        cache.evict("key")
        assert "old" == cache.get("key", allow_stale=True)
        found = cache.get_entry("key", allow_stale=True)
        assert (True, 0.0) == (found.stale, found.ttl)
        assert world.life("key") > 0
        cache.delete("key")
        assert GONE == cache.get("key", GONE, allow_stale=True)

    def test_expire_what_others_have(self, world: World, cache: Any) -> None:
        """It tells that a key was fresh in Redis only."""
        world.put("key", "theirs")
        assert cache.expire("key")
        assert GONE == cache.get("key", GONE)

    def test_clear(self, cache: Any) -> None:
        """All of the area is gone from both tiers, and what is set afterwards is there."""
        cache.mset({"a": 1, "b": 2})
        cache.clear()
        assert {"a": GONE, "b": GONE} == cache.mget(["a", "b"], GONE)
        assert not cache.delete("a")
        cache.set("a", 3)
        cache.evict("a")
        assert 3 == cache.get("a")


class TestLives(InPairs):
    """How long a value lives in which tier."""

    def test_configured(self, world: World, make: Make) -> None:
        """L2 lives remote_ttl, L1 local_ttl, and never longer than L2."""
        cache = make(local_ttl=10, remote_ttl=100)
        cache.set("key", 1)
        assert 90 < world.life("key") <= 100
        shorter = make(local_ttl=100, remote_ttl=10)
        shorter.set("key", 1)
        assert 0 < world.life("key") <= 10
        assert 0 < shorter.left("key") <= 10
        if world.is_both:
            assert 0 < cache.left("key") <= 10

    @pytest.mark.parametrize("ttl", [5, 50, None])
    def test_given(self, world: World, make: Make, ttl: float | None) -> None:
        """A ttl is the value's life: L2 lives it, L1 that or local_ttl, whichever is shorter."""
        cache = make(local_ttl=20, remote_ttl=30)
        cache.set("key", 1, ttl=ttl)
        if ttl is None:
            assert world.life("key") < 0
        else:
            assert ttl - 3 < world.life("key") <= ttl
        here = min(ttl or 20, 20) if world.is_both else ttl
        for _ in range(2):  # as it was set, and as it was copied from Redis
            found = cache.left("key")
            if here is None:
                assert None is found
            else:
                assert here - 3 < found <= here
            cache.evict("key")
            cache.get("key")

    def test_zero(self, world: World, cache: Any) -> None:
        """0 stores nothing, and an existing copy goes from both tiers."""
        cache.set("key", 1)
        cache.set("key", 2, ttl=0)
        assert not world.has("key")
        assert GONE == cache.get("key", GONE)

    def test_none(self, world: World, make: Make) -> None:
        """A None lives null_ttl in both tiers, or as long as the call says."""
        cache = make(null_ttl=7)
        cache.set("key", None)
        assert 0 < world.life("key") <= 7
        cache.set("given", None, ttl=50)
        assert 40 < world.life("given") <= 50
        assert None is cache.get("key", GONE)
        assert cache.count("negative_hit") == 1

    def test_none_not_cached(self, world: World, make: Make) -> None:
        """Without cache_null_value a None is not stored, and what was there goes."""
        cache = make(cache_null_value=False)
        cache.set("key", "value")
        cache.set("key", None)
        assert not world.has("key")
        assert GONE == cache.get("key", GONE)

    def test_jitter(self, world: World, make: Make) -> None:
        """Jitter shortens, by the same part in both tiers, and never an explicit ttl."""
        cache = make(local_ttl=100, remote_ttl=100, ttl_jitter_ratio=0.5)
        lives = []
        for key in range(20):
            cache.set(key, 1)
            lives.append(world.life(key))
            assert 45 < lives[-1] <= 100
            assert 45 < cache.left(key) <= lives[-1] + 0.5
        assert max(lives) - min(lives) > 1
        cache.set("given", 1, ttl=100)
        assert 95 < world.life("given") <= 100

    def test_stale_life(self, world: World, make: Make) -> None:
        """In Redis a value stays for its stale life as well; fresh it is for its life only."""
        cache = make(stale_ttl=100)
        cache.set("key", 1, ttl=10)
        assert 105 < world.life("key") <= 110
        cache.evict("key")
        assert 5 < cache.left("key") <= 10


class TestLoads:
    """A loader behind both tiers."""

    def test_loaded_once(self, world: World, make: Make) -> None:
        """What is loaded is stored in both tiers, and found in each."""
        asked: list[Any] = []

        def load(key: str) -> str:
            asked.append(key)
            return key.upper()

        cache = make(loader=load)
        assert "loader" == cache.tier("key")
        assert "KEY" == cache.get("key")
        cache.evict("key")
        assert "remote" == cache.tier("key")
        assert ["key"] == asked
        assert GONE == cache.get("other", GONE, disable_load=True)
        assert world.has("key")

    def test_batches(self, world: World, style: str, make: Make) -> None:
        """mget asks the loader only for what neither tier has."""
        asked: list[Any] = []

        def mload(keys: list[str]) -> dict[str, str]:
            asked.append(sorted(keys))
            return {key: key.upper() for key in keys}

        is_async = style == "async"
        loader = FnLoader(
            as_loader(str.upper, is_async=is_async), as_loader(mload, is_async=is_async)
        )
        cache = make(loader=loader)
        world.put("theirs", "theirs")
        cache.set("mine", "mine")
        assert {"a": "A", "theirs": "theirs", "mine": "mine", "b": "B"} == cache.mget(
            ["a", "theirs", "mine", "b"]
        )
        assert [["a", "b"]] == asked
        assert world.has("a")
        assert world.has("b")

    def test_get_or_load(self, world: World, cache: Any) -> None:
        """A loader of the call is asked when neither tier knows."""
        assert "VALUE" == cache.get_or_load("value", cache.loader(str.upper), ttl=7)
        assert 0 < world.life("value") <= 7
        assert "VALUE" == cache.get_or_load("value", cache.loader(str.title))

    def test_warmup(self, world: World, make: Make) -> None:
        """It loads what is missing, into both tiers."""
        cache = make(loader=str.upper, warmup_enabled=True, warmup_batch_size=2)
        world.put("c", "theirs")
        assert 3 == cache.warmup(["a", "b", "c"])
        assert world.has("a")
        assert "theirs" == cache.get("c")
        assert 2 == cache.count("load_success")

    def test_refresh(self, world: World, make: Make) -> None:
        """It loads although both tiers have a value, and both have the new one then."""
        answers = iter(["new", "newer"])
        cache = make(loader=lambda _key: next(answers))
        cache.set("key", "old")
        cache.listen()
        assert "new" == cache.refresh("key")
        cache.evict("key")
        assert "new" == cache.get("key")

    def test_none(self, world: World, make: Make) -> None:
        """A loader's None is a value in both tiers, or is not stored where the area says so."""
        asked: list[Any] = []
        cache = make(loader=asked.append)
        for _ in range(2):
            assert None is cache.get("key", GONE)
            cache.evict("key")
        assert ["key"] == asked
        without = make(loader=asked.append, cache_null_value=False)
        assert None is without.get("other", GONE)
        assert not world.has("other")

    def test_stale_of_redis(self, world: World, make: Make) -> None:
        """A failing loader falls back on a stale copy that only Redis has."""

        def fail(_key: str) -> str:
            raise OSError("no database")

        cache = make(loader=fail, stale_on_error=True)
        world.put("key", "old", 60.0, stale=60.0)
        world.other.expire("area", [local.encode_key("key")], [0], OTHER)
        found = cache.get_entry("key")
        assert ("old", True) == (found.value, found.stale)
        assert 1 == cache.count("stale_fallback")
        with pytest.raises(LoaderError):
            cache.get("nothing")

    def test_fill_is_refused(self, world: World, make: Make) -> None:
        """What was loaded before another host deleted the key is stored nowhere."""

        def load(_key: str) -> str:
            world.drop("key")
            until(lambda: cache.count("invalidation_receive") >= 1)
            return "old"

        cache = make(loader=load)
        assert "old" == cache.get("key")
        assert not world.has("key")
        assert GONE == cache.get("key", GONE, disable_load=True)

    def test_fill_is_refused_in_redis(self, world: World, make: Make) -> None:
        """The same when no message has told of it: Redis refuses, and L1 forgets."""

        def load(_key: str) -> str:
            change = Change(local.encode_key("key"), None, None, 0)
            world.other.write("area", message.FORGET, [change], OTHER, broadcast=False)
            return "old"

        cache = make(loader=load)
        assert "old" == cache.get("key")
        assert not world.has("key")
        assert GONE == cache.local("key")
        assert 1 == cache.count("l2_fill_refused")

    def test_refresh_ahead(self, both: World) -> None:
        """Near its end a value is loaded anew, unless Redis has a fresher copy by then."""
        asked: list[Any] = []

        def load(key: str) -> str:
            asked.append(key)
            return "loaded"

        cache = both.make(loader=load, refresh_ahead=True, refresh_ahead_window=5, local_ttl=60)
        cache.set("key", "mine", ttl=4)
        # Not told, so that L1 still has the old one.
        sealed = seal(CODE_STR, b"fresher")
        change = Change(local.encode_key("key"), sealed, 50.0, 0)
        both.other.write("area", message.SET, [change], OTHER, broadcast=False)
        assert "mine" == cache.get("key")  # and the refresh begins
        until(lambda: cache.get("key") == "fresher")
        assert [] == asked
        cache.set("another", "mine", ttl=4)
        until(lambda: cache.get("another") == "loaded")
        assert ["another"] == asked


class TestFormats(InPairs):
    """How values lie in Redis."""

    def test_version(self, world: World, make: Make) -> None:
        """A value of another version of the area is a miss, and stays beside that of the load."""
        old = make(version="1", local_ttl=0.001)
        old.set("key", "old")
        new = make(version="2", loader=lambda _key: "new", local_ttl=0.001)
        until(lambda: new.local("key") == GONE)
        assert "new" == new.get("key")
        assert "new" == new.get("key")
        assert 1 == new.count("load_success")
        until(lambda: old.local("key") == GONE)
        assert "old" == old.get("key", GONE)

    @pytest.mark.parametrize("foreign", [b"", b"x", b"\x00" * 40, os.urandom(100)])
    def test_foreign_bytes(self, world: World, make: Make, foreign: bytes) -> None:
        """What is no value of ours is a miss, counted, and replaced by the next load."""
        cache = make(loader=str.upper)
        cache.get("another")
        world.raw.set(world.name("key"), foreign)
        assert GONE == cache.get("key", GONE, disable_load=True)
        assert "key" not in cache
        assert "KEY" == cache.get("key")
        assert cache.count("l2_undecodable") >= 1
        cache.evict("key")
        assert "KEY" == cache.get("key")

    def test_another_type(self, world: World, make: Make) -> None:
        """Even a key of another type of Redis only misses."""
        cache = make(loader=str.upper)
        world.raw.rpush(world.name("key"), "a", "b")
        assert "KEY" == cache.get("key")
        assert "KEY" == cache.get("key")

    def test_raw(self, world: World, make: Make) -> None:
        """The codec "raw" takes bytes and text; nothing else is set."""
        cache = make(codec="raw")
        cache.set("key", b"\x00\xff")
        cache.evict("key")
        assert b"\x00\xff" == cache.get("key")
        with pytest.raises(SerializationError):
            cache.set("key", [1])
        assert world.has("key")

    def test_pickle(self, url: str, namespace: str, mode: str, style: str, clients: Any) -> None:
        """The codec "pickle" reads only what was signed with a secret of ours."""
        secrets = ["first secret of them", "second secret of them"]
        with world_at(url, namespace, style, mode, clients, secret=secrets[0]) as world:
            cache = world.make(codec="pickle")
            cache.set("key", {1, 2, complex(1, 2)})
            cache.evict("key")
            assert {1, 2, complex(1, 2)} == cache.get("key")
        with world_at(url, namespace, style, mode, clients, secret=secrets[1]) as world:
            cache = world.make(codec="pickle")
            assert GONE == cache.get("key", GONE)
            assert 1 == cache.count("l2_undecodable")
        with world_at(url, namespace, style, mode, clients, secret=secrets[::-1]) as world:
            cache = world.make(codec="pickle")
            assert {1, 2, complex(1, 2)} == cache.get("key")

    @pytest.mark.skipif(zstd() is None, reason="no zstd here")
    def test_compressed(self, world: World, make: Make) -> None:
        """Values over compress_over are smaller in Redis, and come back."""
        cache = make(compress_over=100)
        cache.set("key", "x" * 10_000)
        assert world.raw.strlen(world.name("key")) < 1000
        cache.evict("key")
        assert "x" * 10_000 == cache.get("key")

    @pytest.mark.skipif(zstd() is not None, reason="there is zstd")
    def test_no_compression(self, calm: World) -> None:
        """Without zstd compress_over is refused, instead of having no effect."""
        with pytest.raises(ConfigError, match="compress_over"):
            calm.make(compress_over=100)

    def test_too_large(self, world: World, make: Make) -> None:
        """A value over max_value_size is refused, and changes nothing in either tier."""
        cache = make(max_value_size=100)
        cache.set("key", b"old")
        for write in (lambda: cache.set("key", b"x" * 101), lambda: cache.add("new", b"x" * 101)):
            with pytest.raises(SerializationError):
                write()
        assert b"old" == cache.get("key")
        cache.evict("key")
        assert b"old" == cache.get("key")
        assert not world.has("new")

    def test_too_large_for_others(self, world: World, make: Make) -> None:
        """A copy that is larger than this area allows is a miss."""
        make(max_value_size=1000).set("key", b"x" * 500)
        cache = make(max_value_size=100, local_ttl=0.001)
        cache.evict("key")
        assert GONE == cache.get("key", GONE)
        assert 1 == cache.count("l2_undecodable")
        assert world.has("key")


class TestBroadcast(InPairs):
    """Who is told of what."""

    def test_explicit_writes(self, world: World, cache: Any) -> None:
        """Each explicit write is one message; reads and what changes nothing are none."""
        steps: list[tuple[Callable[[], Any], int]] = [
            (lambda: cache.set("key", 1), 1),
            (lambda: cache.mset({"key": 1, "other": 2}), 1),
            (lambda: cache.get("key"), 0),
            (lambda: cache.incr("key"), 1),
            (lambda: cache.add("key", 1), 0),
            (lambda: cache.touch("key"), 1),
            (lambda: cache.expire("key"), 1),
            (lambda: cache.mdelete(["key", "other"]), 1),
            (cache.clear, 1),
        ]
        for step, wanted in steps:
            before = world.messages()
            step()
            assert wanted == world.messages() - before

    def test_fills_are_silent(self, world: World, make: Make) -> None:
        """What a loader returned is told to nobody."""
        cache = make(loader=str.upper)
        cache.get("key")
        cache.mget(["a", "b"])
        assert 0 == world.messages()

    def test_not_told(self, world: World, cache: Any) -> None:
        """broadcast=False sets in Redis, and tells nobody."""
        cache.set("key", 1, broadcast=False)
        cache.mset({"other": 1}, broadcast=False)
        assert 0 == world.messages()
        assert world.has("key")
        assert world.has("other")

    def test_sets_of_an_area(self, world: World, make: Make) -> None:
        """broadcast_sets=False is the same for all sets of the area; deletes are told."""
        cache = make(broadcast_sets=False)
        cache.set("key", 1)
        assert 0 == world.messages()
        cache.set("key", 2, broadcast=True)
        assert 1 == world.messages()
        cache.delete("key")
        assert 2 == world.messages()

    def test_no_invalidation(self, world: World, make: Make) -> None:
        """broadcast_invalidation=False tells of nothing, unless a set is told explicitly."""
        cache = make(broadcast_invalidation=False)
        cache.set("key", 1)
        cache.delete("key")
        cache.mdelete(["key"])
        assert 0 == world.messages()
        assert not world.has("key")
        cache.set("key", 1, broadcast=True)
        assert 1 == world.messages()


class TestFreshness:
    """How far behind the other hosts an answer may be."""

    @pytest.fixture
    def deaf(self, url: str, namespace: str, clients: Any) -> Iterator[World]:
        """A host with a bound of 0.4 s, to be made deaf."""
        with world_at(url, namespace, "sync", "both", clients, freshness_bound=0.4) as made:
            yield made

    def stop_listening(self, cache: Any, bound: float = 0.4) -> None:
        """Nobody listens any more; wait until that is longer than the bound."""
        second = runtime.current().second
        assert second is not None
        second._listener.stop()
        second._listener.start = lambda: None  # type: ignore[method-assign]
        until(lambda: cache.plain._freshness() > bound)

    def test_age_is_told(self, deaf: World) -> None:
        """freshness_age is small while somebody listens, and grows when nobody does."""
        cache = deaf.make()
        shown = cache.diagnostic_snapshot()
        assert shown["invalidation_listener_started"]
        assert shown["remote_backend_ready"]
        assert shown["remote"]["freshness_age"] <= 0.4
        self.stop_listening(cache)
        shown = cache.diagnostic_snapshot()
        assert not shown["invalidation_listener_started"]
        assert not shown["remote_backend_ready"]
        assert shown["remote"]["freshness_age"] > 0.4

    def test_cap(self, deaf: World) -> None:
        """What was loaded within the bound is served, what is older is loaded again."""
        cache = deaf.make(loader=lambda _key: "loaded")
        cache.set("key", "old")
        self.stop_listening(cache)
        until(lambda: cache.get("key") != "old")
        assert "loaded" == cache.get("key")
        assert "local" == cache.tier("key")

    def test_bypass(self, deaf: World) -> None:
        """Nothing of L1 is served: each read loads."""
        asked: list[Any] = []

        def load(key: str) -> int:
            asked.append(key)
            return len(asked)

        cache = deaf.make(loader=load, on_desync="bypass")
        assert [1, 1] == [cache.get("key"), cache.get("key")]
        self.stop_listening(cache)
        assert [2, 3] == [cache.get("key"), cache.get("key")]

    def test_serve(self, deaf: World) -> None:
        """All of L1 is served, however old it is."""
        cache = deaf.make(loader=lambda _key: "loaded", on_desync="serve")
        cache.set("key", "old")
        self.stop_listening(cache, 1.0)
        assert "old" == cache.get("key")

    def test_area_limit(self, url: str, namespace: str, clients: Any) -> None:
        """An area's max_staleness below the bound is kept."""
        with world_at(url, namespace, "sync", "both", clients, freshness_bound=30.0) as world:
            cache = world.make(max_staleness=0.3, loader=lambda _key: "loaded")
            other = world.make("other", loader=lambda _key: "loaded")
            cache.set("key", "old")
            other.set("key", "old")
            self.stop_listening(cache, 0.3)
            until(lambda: cache.get("key") == "loaded")
            assert "old" == other.get("key")

    def test_limit_of_a_read(self, both: World) -> None:
        """A read's max_staleness counts for itself only; 0 always asks the loader."""
        asked: list[Any] = []

        def load(key: str) -> int:
            asked.append(key)
            return len(asked)

        cache = both.make(loader=load)
        assert 1 == cache.get("key")
        assert 1 == cache.get("key", max_staleness=60)
        assert 2 == cache.get("key", max_staleness=0)
        assert 2 == cache.get("key")
        assert 2 == len(asked)


class TestFailing:
    """Redis is not there, says no, or goes away: reads and fills go on, writes are honest."""

    @pytest.fixture(params=["port", "socket"])
    def absent(self, request: pytest.FixtureRequest) -> Iterator[str]:
        with RedisServer() as server:
            url = server.tcp_url if request.param == "port" else server.url
            server.kill()
            yield url

    def test_absent_from_the_start(
        self, absent: str, namespace: str, style: str, mode: str, clients: Any
    ) -> None:
        """Loads, sets and deletes work, though Redis has never been there; the rest says so."""
        settings = {"redis_timeout": 0.1, "freshness_bound": 30.0}
        with world_at(absent, namespace, style, mode, clients, **settings) as world:
            cache = world.make(in_step=False, loader=str.upper)
            assert "KEY" == cache.get("key")
            assert {"a": "A", "b": "B"} == cache.mget(["a", "b"])
            assert ("local" if world.is_both else "loader") == cache.tier("key")
            cache.set("set", "value")
            assert ("value" if world.is_both else "SET") == cache.get("set")
            assert world.is_both == cache.delete("set")
            assert "SET" == cache.get("set")
            with pytest.raises(BackendError) as raised:
                cache.delete("set", on_error="raise")
            assert raised.value.queued
            for method, arguments in DECIDED:
                with pytest.raises(BackendError):
                    getattr(cache, method)(*arguments)
            shown = json.loads(json.dumps(cache.diagnostic_snapshot(), allow_nan=False))
            assert not shown["remote_backend_ready"]
            assert not shown["invalidation_listener_started"]
            assert (None, None) == (
                shown["remote"]["last_ok_age"],
                shown["remote"]["freshness_age"],
            )
            error = shown["remote"]["last_error"]
            assert ("area", "connection") == (error["area"], error["reason"])
            assert failed_calls(cache.plain.metrics_snapshot()) >= 5
            assert cache.count("invalidation_queued") == 3

    @pytest.mark.parametrize("method", ["delete", "mdelete", "expire", "clear"])
    def test_queued(self, namespace: str, style: str, mode: str, method: str, clients: Any) -> None:
        """What Redis did not take is done here, queued, told to who asks, and sent later."""
        with RedisServer() as server:
            settings = {"redis_timeout": 0.1, "freshness_bound": 30.0}
            with world_at(server.url, namespace, style, mode, clients, **settings) as world:
                cache = world.make()
                arguments = {"clear": [], "mdelete": [["key"]]}.get(method, ["key"])
                cache.set("key", "old")
                server.command("REPLICAOF", "127.0.0.1", "1")
                assert getattr(cache, method)(*arguments) in {None, world.is_both}
                with pytest.raises(BackendError) as raised:
                    getattr(cache, method)(*arguments, on_error="raise")
                assert raised.value.queued
                assert "key" not in str(raised.value)
                assert GONE == cache.local("key")
                assert 2 == cache.diagnostic_snapshot()["remote"]["outbox_depth"]
                assert world.has("key")
                server.command("REPLICAOF", "NO", "ONE")
                depth = lambda: cache.diagnostic_snapshot()["remote"]["outbox_depth"]  # noqa: E731
                until(lambda: depth() == 0)
                until(lambda: cache.get("key", GONE) == GONE and "key" not in cache)
                assert 2 == cache.count("invalidation_queued")

    def test_set_is_refused(
        self,
        server: RedisServer,
        namespace: str,
        style: str,
        clients: Any,
        caplog: Any,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """L1 has the value, the log says error, and the old copy in Redis goes when it can."""
        settings = {"redis_timeout": 0.1, "freshness_bound": 30.0}
        with world_at(server.url, namespace, style, "both", clients, **settings) as world:
            cache = world.make()
            cache.set("key", "old")
            cache.listen()
            server.command("REPLICAOF", "127.0.0.1", "1")
            monkeypatch.setattr(oplog, "_last", {})  # failures of other tests limit the rate
            with caplog.at_level(logging.WARNING, "accelerator.ops"):
                cache.set("key", "new")
            assert "new" == cache.local("key") == cache.get("key")
            assert any("op=set" in it and "result=error" in it for it in caplog.messages)
            assert "key" not in caplog.text
            assert world.has("key")
            server.command("REPLICAOF", "NO", "ONE")
            until(lambda: not world.has("key"))

    def test_decided_nowhere(
        self, server: RedisServer, namespace: str, style: str, mode: str, clients: Any
    ) -> None:
        """add, incr and touch that Redis does not decide are errors, and change nothing here."""
        settings = {"redis_timeout": 0.1, "freshness_bound": 30.0}
        with world_at(server.url, namespace, style, mode, clients, **settings) as world:
            cache = world.make()
            cache.set("key", 1)
            server.command("REPLICAOF", "127.0.0.1", "1")
            for method, arguments in DECIDED:
                with pytest.raises(BackendError) as raised:
                    getattr(cache, method)(*arguments)
                assert ("area", method) == (raised.value.area, raised.value.operation)
            assert GONE == cache.local("new")
            assert cache.local("key") == (1 if world.is_both else GONE)

    def test_wrong_on_error(self, world: World, cache: Any) -> None:
        """What to do on an error is "queue" or "raise", and checked before anything is done."""
        cache.set("key", 1)
        with pytest.raises(ValueError, match="on_error"):
            cache.delete("key", on_error="ignore")
        assert world.has("key")


class TestSetUp:
    """Settings and areas that do not go together, and what is never shown."""

    @pytest.mark.parametrize("mode", ["both", "remote"])
    def test_no_redis(self, mode: str) -> None:
        """An area that insists on Redis fails at its first use where there is none."""
        with testing.isolated():
            cache = LevelCache("area", mode=mode)
            with pytest.raises(ConfigError, match="needs Redis"):
                cache.get("key")

    def test_nameless(self, url: str, caplog: pytest.LogCaptureFixture) -> None:
        """Redis without a name or a namespace: one ERROR, and areas are LOCAL."""
        former = runtime.swap(None)
        try:
            accelerator.attach(redis=url, local="process")
            cache = LevelCache("area")
            cache.set("key", 1)
            assert 1 == cache.get("key")
            assert "local" == cache.diagnostic_snapshot()["mode"]
            assert None is cache.diagnostic_snapshot()["remote"]
            errors = [it for it in caplog.records if it.levelno == logging.ERROR]
            assert 1 == len(errors)
            assert "namespace" in errors[0].getMessage()
        finally:
            runtime.swap(former)

    def test_password(self, server: RedisServer, namespace: str, caplog: Any) -> None:
        """A password is shown nowhere, whether it is right or wrong."""
        server.config("requirepass", "hunter2")
        url = f"redis://:hunter2@127.0.0.1:{server.port}/0"
        wrong = f"redis://:hunter3@127.0.0.1:{server.port}/0"
        shown = []
        for given in (url, wrong):
            settings = {"namespace": namespace, "redis_timeout": 5.0}
            with caplog.at_level(logging.DEBUG), testing.isolated(redis=given, **settings):
                cache = LevelCache("area")
                cache.set("key", 1)
                cache.get("other")
                if given == url:
                    until(lambda it=cache: it.diagnostic_snapshot()["remote_backend_ready"])
                shown += [
                    json.dumps(cache.diagnostic_snapshot(), default=str),
                    json.dumps(accelerator.diagnostics(), default=str),
                    repr(cache),
                    repr(runtime.current()),
                    repr(runtime.current().second),
                    repr(Settings(redis=given, **settings)),
                ]
        assert "hunter" not in "".join(shown) + caplog.text
        assert f"redis://127.0.0.1:{server.port}/0" in shown[0]

    def test_snapshot(self, calm: World) -> None:
        """The snapshot has what an operator looks for, and is JSON."""
        cache = calm.make()
        cache.set("key", 1)
        until(lambda: cache.count("invalidation_receive") == 1)
        shown = json.loads(json.dumps(cache.diagnostic_snapshot()))
        assert f"accelerator:invalidation:{calm.namespace}:area" == shown["invalidation_channel"]
        assert ("both", True, True) == (
            shown["mode"],
            shown["remote_backend_ready"],
            shown["invalidation_listener_started"],
        )
        remote = shown["remote"]
        assert "closed" == remote["breaker"]
        assert os.getpid() == remote["listener"]["pid"]
        assert remote["listener"]["term"] >= 1
        listener = remote["listener"]
        assert 0 <= listener["lease_age"] < 1
        assert listener["connected_since"] >= 0
        assert 0 == listener["reconnects"]
        assert listener["last_message_age"] >= 0
        assert None is listener["next_retry_in"]
        assert 0 <= remote["last_ok_age"] < 2
        assert None is remote["last_error"]
        assert 1 <= remote["calls"]["count"] == sum(remote["calls"]["histogram"]["bucket_counts"])
        assert 0 == remote["db"]

    def test_channel_of_a_database(self, server: RedisServer, namespace: str, clients: Any) -> None:
        """The channel carries the number of the database; values of another one are apart."""
        url = f"redis://127.0.0.1:{server.port}/3"
        with world_at(url, namespace, "sync", "both", clients) as world:
            cache = world.make()
            cache.set("key", 1)
            until(lambda: cache.count("own_skipped") == 1)
            channel = f"accelerator:invalidation:{namespace}:area@3"
            assert channel == cache.diagnostic_snapshot()["invalidation_channel"]
            assert server.command("PUBSUB", "NUMSUB", channel).endswith(b":1\r\n")
            assert world.has("key")
            assert b":0\r\n" == server.command("EXISTS", world.name("key"))


@pytest.mark.skipif(not local.NATIVE, reason="processes share through the native part")
class TestProcesses:
    """A process that has used Redis forks; greenlets."""

    @pytest.mark.parametrize("style", ["sync", "async"])
    def test_fork(self, url: str, namespace: str, style: str, clients: Any, fork: Any) -> None:
        """Parent and children have connections of their own: no answer goes to another."""
        settings = {"shared": True, "redis_timeout": 5.0}
        with testing.isolated(redis=url, namespace=namespace, **settings):
            world = World(url, namespace, style, "remote", clients)
            cache = world.make()
            cache.mset({key: key for key in range(50)})

            def body(meet: Any) -> None:
                mine = World(url, namespace, style, "remote", clients).make()
                meet()
                meet([mine.get(key) for _ in range(6) for key in range(50)])

            children = [fork(body) for _ in range(2)]
            for child in children:
                child.meet()
            wanted = [*range(50)] * 6
            assert wanted == [cache.get(key) for _ in range(6) for key in range(50)]
            assert [wanted] * 2 == [child.meet() for child in children]
            world.close()

    def test_greenlets(self, url: str, namespace: str, crowd: Any, fork: Any) -> None:
        """Greenlets of a patched process read, load and write through Redis."""
        settings = {"shared": True, "redis_timeout": 5.0}

        def body(meet: Any) -> None:
            here = crowd("greenlets")
            cache = LevelCache("area", loader=here.loader(lambda _key: None, 0.01, str.upper))
            meet(here.run(8, cache.get, "key"))
            until(lambda: cache._freshness() < 1.5)
            cache.set("key", "set")
            # Heard behind the next line, it would be applied: its copy is not here any more.
            until(lambda: cache.metrics_snapshot()["own_skipped"] == 1)
            cache._delete("key")
            meet(here.run(8, cache.get, "key"))
            cache.delete("key")
            meet(cache.metrics_snapshot())

        with testing.isolated(redis=url, namespace=namespace, **settings):
            child = fork(body)
            assert {"KEY"} == {answer.value or answer.error for answer in child.meet()}
            assert {"set"} == {answer.value or answer.error for answer in child.meet()}
            counters = child.meet()
            assert 1 == counters["load_success"] == counters["remote_hit"]
            assert 0 == failed_calls(counters)


class TestProcessMemory:
    """Memory of each process alone in front of Redis: processes follow each other as hosts do."""

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="the workers here fork")
    def test_native(self, make_host: Callable[..., Any]) -> None:
        """local="process": what one process sets and deletes, another one sees."""
        one, other = make_host(local="process"), make_host(local="process")
        one.call("set", "key", "value")
        assert "value" == other.call("get", "key")
        one.call("delete", "key")
        until(lambda: other.call("get", "key", GONE) == GONE)

    def test_pure(self, url: str, namespace: str) -> None:
        """The same without the native part."""
        one, other = Pure(url, namespace), Pure(url, namespace)
        try:
            one.do("cache.set('key', 'value')")
            assert "value" == other.do("cache.get('key')")
            assert "value" == other.do("cache._read('key')[0]")
            one.do("cache.delete('key')")
            until(lambda: other.do("cache.get('key', 'gone')") == "gone")
            assert False is other.do("local.NATIVE")
        finally:
            one.close()
            other.close()


class Pure:
    """A process without the native part, which evaluates what it is told about its cache."""

    PROGRAM = (
        "import sys, accelerator\n"
        "from accelerator import local\n"
        "accelerator.attach(redis=sys.argv[1], namespace=sys.argv[2], redis_timeout=5)\n"
        "cache = accelerator.LevelCache('area')\n"
        "for line in sys.stdin:\n"
        "    print(repr(eval(line)), flush=True)\n"
    )

    def __init__(self, url: str, namespace: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", self.PROGRAM, url, namespace],
            env={**os.environ, "ACCELERATOR_PURE": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # that it is not shared is said there
            text=True,
        )
        self.do("cache.peek('nothing')")
        until(lambda: self.do("cache._freshness() < 1.5"))

    def do(self, expression: str) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{expression}\n")
        self._process.stdin.flush()
        return ast.literal_eval(self._process.stdout.readline())

    def close(self) -> None:
        self._process.communicate(timeout=60)
