"""
The application of test_counters: random operations, and a ledger of what each has come to.

The ledger is one file that all workers append to.  A line before an operation says what it can add
to the counters of its area at most; a line after it says what it has added.  Neither comes from a
counter: what a read was is told by what it returned (the object that it returned, where it matters
whether it had been decoded before), what a load was by the loader itself, and the rest by what the
application knows of keys that only one thread uses.

A worker that is killed leaves first lines without second ones: what was in flight.
"""

import asyncio
import collections
import itertools
import json
import os
import random
import threading
import time
import traceback
import urllib.parse
from collections.abc import Callable, Iterable
from typing import Any, Self

import accelerator
from accelerator import MISS, CacheMode, LevelCache, LoaderError, LoaderTimeout
from accelerator.admin import everybody, wsgi_app
from accelerator.errors import SerializationError

WITH_REDIS = bool(os.environ.get("ACCELERATOR_REDIS"))
LIMIT = 1.0
"""Seconds that loaders may take."""
SLOW = 1.1
"""Seconds that those take which are to be late."""
WITNESS = 3.0
"""Seconds that a loader of a pair waits for the other one to join."""

STALE_ON_ERROR = {"loads", "aloads"}
"""Areas whose loads may be answered with what is stale."""

_ledger = os.open(os.environ["LEDGER"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
_numbers = itertools.count()


def write(**line: Any) -> None:
    """Append a line: with one call of the system, so that those of many processes do not mix."""
    os.write(_ledger, json.dumps(line).encode() + b"\n")


class Step:
    """
    One operation of one area, in the ledger before and after.

    Args:
        area: Its name.
        what: For whoever reads the ledger.
        most: What it adds to the counters at most; exactly, unless did() says otherwise.
    """

    def __init__(self, area: str, what: str, **most: int) -> None:
        self._area = area
        self._did = self._most = allowing(area, most)
        self._what = what
        self._more: dict[str, Any] = {}
        self._number = f"{os.getpid()}-{next(_numbers)}"

    def __enter__(self) -> Self:
        pid = os.getpid()
        self._started = time.monotonic()  # the same clock in all workers
        write(
            begun=self._number,
            pid=pid,
            area=self._area,
            what=self._what,
            most=self._most,
            at=self._started,
        )
        return self

    def did(self, **counted: int) -> None:
        """Say what it has added."""
        self._did = allowing(self._area, counted)

    def also(self, **more: Any) -> None:
        """Note what the test has to know."""
        self._more = more

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        end = time.monotonic()
        failure = None if kind is None else traceback.format_exc()
        did, took = self._did, end - self._started
        write(done=self._number, did=did, took=took, at=end, failure=failure, **self._more)


def allowing(area: str, counted: dict[str, int]) -> dict[str, int]:
    """Add what areas count that answer with what is stale: each of their misses allows it."""
    missed = counted.get("local_miss", 0)
    return {**counted, "stale_allowed": missed} if area in STALE_ON_ERROR else counted


# --- loaders ------------------------------------------------------------------------------------

_loading = threading.local()


def loads_of_thread() -> list[str]:
    """Keys for which a loader was called in this thread since the last look."""
    found: list[str] = getattr(_loading, "keys", [])
    _loading.keys = []
    return found


def note_load(key: str) -> None:
    """Remember that a loader was called in this thread."""
    _loading.keys = [*getattr(_loading, "keys", []), key]


class RefusedError(Exception):
    """What loaders raise."""


def load(key: str) -> Any:
    """Answer as the first word of the key says."""
    note_load(key)
    kind = key.partition(":")[0]
    if kind == "raise":
        raise RefusedError(key)
    if kind == "slow":
        time.sleep(SLOW)
    if kind == "odd":
        return object()
    if kind == "overtaken":
        with Step("loads", "delete in a load", delete=1):
            loads.delete(key)
    if kind == "again":
        return loads.get(key)
    return None if kind == "none" else f"value of {key}"


async def aload(key: str) -> Any:
    """Do as load(), in a task."""
    kind = key.partition(":")[0]
    if kind in {"slow", "cancelled"}:
        await asyncio.sleep(60)
    return load(key)


class Batches:
    """A loader of many keys at once."""

    def load(self, key: str) -> Any:
        """Load one key."""
        return load(key)

    def mload(self, keys: list[str]) -> dict[str, Any]:
        """Load all keys but those that are to be missing."""
        if any(key.startswith("raise") for key in keys):
            raise RefusedError(keys[0])
        return {key: load(key) for key in keys if not key.startswith("none")}


class Counting:
    """A loader that is seen by the process that waits for it, in whatever worker that is."""

    def load(self, key: str) -> str:
        """Wait until another caller has joined."""
        note_load(key)
        wanted = pairs._hash(key)
        deadline = time.monotonic() + WITNESS
        while not any(
            each["waiters"] for each in pairs._memory.flights() if each["hash"] == wanted
        ):
            if time.monotonic() > deadline:
                _loading.joined = False
                return "alone"
            time.sleep(0.002)
        _loading.joined = True
        return "together"


# --- areas --------------------------------------------------------------------------------------

HERE: dict[str, Any] = {"mode": CacheMode.LOCAL, "local_ttl": "1h", "null_ttl": "1h"}
LOADED: dict[str, Any] = {**HERE, "loader_timeout": LIMIT, "error_ttl": 600}

plain: LevelCache[str, Any] = LevelCache("plain", **HERE)
twice: LevelCache[str, Any] = LevelCache("twice", **HERE)  # never cleared
nulls: LevelCache[str, Any] = LevelCache("nulls", **HERE, objects="copy")
numbers: LevelCache[str, int] = LevelCache("numbers", **HERE)
loads: LevelCache[str, Any] = LevelCache("loads", loader=load, stale_on_error=True, **LOADED)
aloads: LevelCache[str, Any] = LevelCache("aloads", loader=aload, stale_on_error=True, **LOADED)
threads: LevelCache[str, Any] = LevelCache("threads", loader=load, **LOADED)
batches: LevelCache[str, Any] = LevelCache(
    "batches", loader=Batches(), warmup_enabled=True, batch_timeout=LIMIT, **LOADED
)
ahead: LevelCache[str, Any] = LevelCache(
    "ahead", loader=load, refresh_ahead=True, refresh_ahead_window=60, **LOADED
)
alone: LevelCache[str, Any] = LevelCache("alone", loader=load, penetration_protect=False, **LOADED)
pairs: LevelCache[str, Any] = LevelCache(
    "pairs", loader=Counting(), **{**LOADED, "loader_timeout": 20}
)
functions: LevelCache[Any, Any] = LevelCache("functions", **HERE)
far: LevelCache[str, Any] = LevelCache(
    "far", local_ttl="1h" if not WITH_REDIS else 600, remote_ttl="1h", ttl_jitter_ratio=None
)
decided: LevelCache[str, int] = LevelCache("decided", local_ttl="1h")
brief: LevelCache[str, Any] = LevelCache(
    "brief", **({"local_ttl": 0.05, "remote_ttl": "1h"} if WITH_REDIS else HERE)
)
farloads: LevelCache[str, Any] = LevelCache(
    "farloads", loader=load, remote_ttl="1h", loader_timeout=LIMIT
)

LOAD = {"load_total": 1, "load_latency": 1}
LED = {"local_miss": 1, "load_led": 1, **LOAD}
GOOD = {**LED, "load_success": 1, "set": 1}
BAD = {**LED, "load_error": 1}


def fresh(kind: str) -> str:
    """Make a key that nobody else uses."""
    return f"{kind}:{os.getpid()}-{next(_numbers)}"


# --- reads --------------------------------------------------------------------------------------

READ = {"local_hit": 1, "local_miss": 1, "object_hit": 1, "negative_hit": 1}
_reading = threading.RLock()
_seen: dict[int, Any] = {}


def seen(found: Any) -> bool:
    """
    Tell whether this process had this very object before, and keep it.

    It is kept, so no other can come to lie where it is: a value that is decoded anew is another
    object, and one that was decoded before is the same.
    """
    known = id(found) in _seen
    _seen[id(found)] = found
    return known


def told_by(found: Any) -> dict[str, int]:
    """Tell from what a read has returned what it has added."""
    if found is MISS:
        return {"local_miss": 1}
    if found is None:
        return {"local_hit": 1, "negative_hit": 1}
    return {"local_hit": 1, "object_hit": int(seen(found))}


def get(cache: LevelCache[Any, Any], key: Any, **options: Any) -> Any:
    """Read a key of an area that has no loader."""
    with _reading, Step(cache.config.area, "get", **READ) as step:
        found = cache.get(key, MISS, **options)
        step.did(**told_by(found))
    return found


def total(parts: Iterable[dict[str, int]]) -> dict[str, int]:
    """Add up."""
    summed: collections.Counter[str] = collections.Counter()
    for part in parts:
        summed.update(part)
    return dict(summed)


def mget(cache: LevelCache[Any, Any], keys: list[str], **options: Any) -> None:
    """Read many keys of an area that has no loader."""
    most = {name: len(keys) for name in READ}
    with _reading, Step(cache.config.area, "mget", **most) as step:
        found = cache.mget(keys, MISS, **options)
        step.did(**total(told_by(value) for value in found.values()))


def hit(cache: LevelCache[Any, Any], key: Any) -> None:
    """Read a key that is there, of an area that has a loader."""
    with _reading, Step(cache.config.area, "hit", **READ) as step:
        found = cache.get(key)
        step.did(**told_by(found))


def fails(error: type[Exception], call: Callable[[], Any]) -> None:
    """Call what must raise."""
    try:
        call()
    except error:
        return
    raise AssertionError(f"no {error.__name__}")


# --- operations without Redis -------------------------------------------------------------------

VALUES = (b"bytes " * 20, "some text", 12345.5, (1, "two", 3.0), {"a": [1, 2]}, 10**9, "\u00e4" * 9)


def some_key(rng: random.Random) -> str:
    """Give a key that all workers use."""
    return f"key {rng.randrange(12)}"


def some_keys(rng: random.Random) -> list[str]:
    """Give some of those."""
    return rng.sample([f"key {n}" for n in range(12)], rng.randint(1, 12))


def op_get(rng: random.Random) -> None:
    """Read, mostly with hits."""
    key = some_key(rng)
    for _ in range(rng.randint(1, 5)):
        get(plain, key)
    get(nulls, key)


def op_get_with_options(rng: random.Random) -> None:
    """Read through Python."""
    get(plain, some_key(rng), max_staleness=3600)
    with _reading, Step("plain", "get, stale allowed", **READ, stale_allowed=1) as step:
        told = told_by(plain.get(some_key(rng), MISS, allow_stale=True))
        step.did(**told, stale_allowed=told.get("local_miss", 0))
    get(plain, some_key(rng), disable_load=True)
    with _reading, Step("plain", "get_entry", **READ) as step:
        found = plain.get_entry(some_key(rng))
        step.did(**told_by(MISS if found is None else found.value))


def op_not_counted(rng: random.Random) -> None:
    """Look without reading."""
    with _reading, Step("plain", "peek"):
        seen(plain.peek(some_key(rng), MISS))
        _ = some_key(rng) in plain


def op_mget(rng: random.Random) -> None:
    """Read many keys at once."""
    keys = some_keys(rng)
    mget(plain, keys)
    mget(plain, keys, max_staleness=3600)
    mget(plain, [*keys, *keys[:3]], max_staleness=3600)
    mget(nulls, keys)
    own = fresh("twice")
    with Step("twice", "set", set=1):
        twice.set(own, ("a", 1))
    with Step("twice", "mget of one key twice", local_hit=3, object_hit=2, local_miss=1):
        twice.mget([own, "nowhere", own, "nowhere", own])


def op_aget(rng: random.Random) -> None:
    """Read in an event loop."""
    keys = some_keys(rng)
    with _reading, Step("plain", "aget", **READ) as step:
        step.did(**told_by(asyncio.run(plain.aget(keys[0], MISS))))
    with _reading, Step("plain", "amget", **{name: len(keys) for name in READ}) as step:
        found = asyncio.run(plain.amget(keys, MISS))
        step.did(**total(told_by(value) for value in found.values()))


def op_set(rng: random.Random) -> None:
    """Store what is plain, and what is not."""
    with Step("plain", "set", set=1):
        plain.set(some_key(rng), rng.choice(VALUES))
    with Step("plain", "set with a ttl", set=1):
        plain.set(some_key(rng), rng.choice(VALUES), ttl=rng.choice([0.2, 5, None]))
    with Step("plain", "set with tags", set=1):
        plain.set(some_key(rng), rng.choice(VALUES), tags=["red"])
    with Step("nulls", "set None", set=1):
        nulls.set(some_key(rng), None)
    with Step("plain", "aset", set=1):
        asyncio.run(plain.aset(some_key(rng), rng.choice(VALUES)))
    with Step("plain", "set for 0 s", delete=1):
        plain.set(fresh("short"), 1.5, ttl=0)


def op_mset(rng: random.Random) -> None:
    """Store many."""
    mapping = {key: rng.choice(VALUES) for key in some_keys(rng)}
    with Step("plain", "mset", set=len(mapping)):
        plain.mset(mapping)
    with Step("plain", "amset", set=len(mapping)):
        asyncio.run(plain.amset(mapping))


def op_refused(rng: random.Random) -> None:
    """Store what cannot be."""
    with Step("plain", "too large", store_rejected_size=1):
        fails(SerializationError, lambda: plain.set(some_key(rng), b"x" * (1 << 20) + b"x"))
    with Step("plain", "not to be encoded", store_rejected_encode=1):
        fails(SerializationError, lambda: plain.set(some_key(rng), object()))


def op_add(rng: random.Random) -> None:
    """Store what is not there."""
    with Step("plain", "add", set=1) as step:
        step.did(set=int(plain.add(some_key(rng), rng.choice(VALUES))))


def op_numbers(rng: random.Random) -> None:
    """Count."""
    key = some_key(rng)
    with Step("numbers", "incr"):
        numbers.incr(key, default=10**6)
        numbers.decr(key, 3, default=10**6)
    get(numbers, key)
    get(numbers, key)
    with Step("numbers", "touch"):
        numbers.touch(key, 60)
    with Step("numbers", "add", set=1) as step:
        step.did(set=int(numbers.add(some_key(rng), 10**6)))


def op_forget(rng: random.Random) -> None:
    """Forget keys."""
    keys = some_keys(rng)
    with Step("plain", "delete", delete=1):
        plain.delete(some_key(rng))
    with Step("plain", "mdelete", delete=len(keys)):
        plain.mdelete([*keys, keys[0]])
    with Step("plain", "adelete", delete=1):
        asyncio.run(plain.adelete(some_key(rng)))
    with Step("plain", "expire"):
        plain.expire(some_key(rng))
    with Step("nulls", "delete", delete=1):
        nulls.delete(some_key(rng))
    with Step("numbers", "delete", delete=1):
        numbers.delete(some_key(rng))


def op_forget_all(rng: random.Random) -> None:
    """Forget areas and tags."""
    cache = rng.choice([plain, nulls, numbers])
    with Step(cache.config.area, "clear"):
        cache.clear()
    with Step("plain", "delete_tags", tag_delete=2):
        plain.delete_tags("red", "blue")
    with Step("plain", "expire_tags", tag_delete=1):
        plain.expire_tags("red")


def op_load(rng: random.Random) -> None:
    """Load what is there, what is not, and what fails."""
    key = fresh("good")
    with Step("loads", "load", **GOOD):
        loads.get(key)
    hit(loads, key)
    hit(loads, key)
    with Step("loads", "load None", **GOOD):
        loads.get(none := fresh("none"))
    with Step("loads", "stored None", local_hit=1, negative_hit=1):
        loads.get(none)
    with Step("loads", "load that raises", **BAD):
        fails(LoaderError, lambda: loads.get(fresh("raise")))
    with Step(
        "loads", "load of what cannot be stored", store_rejected_encode=1, **{**GOOD, "set": 0}
    ):
        loads.get(fresh("odd"))
    del rng


def op_slow_load(rng: random.Random) -> None:
    """Load what takes too long; it is stored all the same."""
    if rng.random() < 0.25:
        with Step("loads", "late load", **LED, load_timeout=1, set=1):
            loads.get(fresh("slow"))


def op_overtaken(rng: random.Random) -> None:
    """Load what is deleted meanwhile."""
    lost = {**GOOD, "set": 0, "store_rejected_race": 1, "load_lease_lost": 1}
    with Step("loads", "overtaken load", **lost):
        loads.get(fresh("overtaken"))
    with Step("loads", "load that asks for its own key", **{**BAD, "local_miss": 2}):
        fails(LoaderError, lambda: loads.get(fresh("again")))
    del rng


def op_get_or_load(rng: random.Random) -> None:
    """Load by a loader of the call."""
    key = fresh("given")
    with Step("threads", "get_or_load", **GOOD):
        threads.get_or_load(key, load)
    hit(threads, key)
    with Step("plain", "get_or_load without a loader of the area", **GOOD):
        plain.get_or_load(fresh("given"), load, ttl=60)
    with Step("alone", "uncoordinated load", **{**GOOD, "load_led": 0}, load_alone=1):
        alone.get(fresh("good"))
    del rng


def op_stale(rng: random.Random) -> None:
    """Answer with what is stale, as the loader fails; the second time it is not asked."""
    key = fresh("raise")
    with Step("loads", "set", set=1):
        loads.set(key, "old")
    with Step("loads", "expire"):
        loads.expire(key)
    with Step("loads", "stale", **BAD, stale_fallback=1):
        assert "old" == loads.get(key)
    loads_of_thread()
    with Step("loads", "stale, paused", **BAD, stale_fallback=1, load_paused=1) as step:
        assert "old" == loads.get(key)
        if loads_of_thread():  # the note of the failed load was not stored: a lock was held
            step.did(**BAD, stale_fallback=1)
        else:
            step.did(local_miss=1, stale_fallback=1, load_paused=1)
    with Step("loads", "stale without a load", local_miss=1, stale_fallback=1):
        assert "old" == loads.get(key, disable_load=True, allow_stale=True)
    del rng


def op_refresh(rng: random.Random) -> None:
    """Load again."""
    refreshed = {"refresh_attempts": 1, **LOAD, "load_led": 1}
    key = fresh("good")
    with Step("loads", "refresh", **refreshed, load_success=1, refresh_success=1, set=1):
        loads.refresh(key)
    with Step("loads", "refresh that fails", **refreshed, load_error=1, refresh_failures=1):
        fails(LoaderError, lambda: loads.refresh(fresh("raise")))
    with Step("ahead", "set", set=1):
        ahead.set(key, "old", ttl=30)
    again = {**refreshed, "load_success": 1, "refresh_success": 1, "set": 1}
    with Step("ahead", "refresh ahead", local_hit=1, **again):
        assert "old" == ahead.get(key)
    del rng


def op_batch(rng: random.Random) -> None:
    """Load many at once."""
    n = rng.randint(2, 8)
    keys = [fresh("good") for _ in range(n)]
    many = {"local_miss": n, "load_led": n, "set": n, **LOAD, "load_success": 1}
    with Step("batches", "mget", **many):
        batches.mget(keys)
    with Step("batches", "mget with hits", **{**many, "local_hit": n, "set": 0}):
        batches.mget([*keys, *(fresh("none") for _ in range(n))], max_staleness=3600)
    with Step("batches", "warmup", **many):
        batches.warmup([fresh("good") for _ in range(n)])
    bad = {"local_miss": n, "load_led": n, **LOAD, "load_error": 1}
    with Step("batches", "mget that fails", **bad):
        fails(LoaderError, lambda: batches.mget([fresh("raise") for _ in range(n)]))
    with Step("loads", "mget one by one", **{name: n * k for name, k in GOOD.items()}):
        loads.mget([fresh("good") for _ in range(n)])


def op_async(rng: random.Random) -> None:
    """Load in an event loop."""
    with Step("aloads", "aget", **GOOD):
        asyncio.run(aloads.aget(key := fresh("good")))
    with _reading, Step("aloads", "aget of what is there", **READ) as step:
        step.did(**told_by(asyncio.run(aloads.aget(key))))
    with Step("aloads", "aget that fails", **BAD):
        fails(LoaderError, lambda: asyncio.run(aloads.aget(fresh("raise"))))
    n = rng.randint(2, 5)
    with Step("aloads", "amget", **{name: n * k for name, k in GOOD.items()}):
        asyncio.run(aloads.amget([fresh("good") for _ in range(n)]))
    with Step("threads", "aget by a sync loader", **GOOD):
        asyncio.run(threads.aget(fresh("good")))
    with Step(
        "batches", "amget of a batch", local_miss=n, load_led=n, set=n, **LOAD, load_success=1
    ):
        asyncio.run(batches.amget([fresh("good") for _ in range(n)]))


def op_async_ended(rng: random.Random) -> None:
    """Load in an event loop what takes too long, or nobody wants any more."""
    if rng.random() < 0.2:
        with Step("aloads", "late aget", **LED, load_timeout=1):
            fails(LoaderTimeout, lambda: asyncio.run(aloads.aget(fresh("slow"))))
    with Step("aloads", "cancelled aget", **BAD):
        asyncio.run(_cancelled(fresh("cancelled")))


async def _cancelled(key: str) -> None:
    task = asyncio.create_task(aloads.aget(key))
    await asyncio.sleep(0.05)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()  # its load ends before the loop does


# --- decorated functions ------------------------------------------------------------------------


@functions.cacheable()
def square(n: int, key: str = "") -> str:
    """Cached by its arguments."""
    note_load(key)
    return f"{n * n} {key}"


@functions.cacheable()
async def asquare(n: int, key: str = "") -> str:
    """Cached by its arguments."""
    note_load(key)
    return f"{n * n} {key}"


@functions.cacheable_batch()
def squares(keys: list[str]) -> dict[str, str]:
    """Cached item by item."""
    return {key: f"square of {key}" for key in keys}


@functions.cache_put(key="{key}")
def put(key: str) -> str:
    """Stored each time."""
    return f"put {key}"


@functions.cache_evict(key="{key}")
def evict(key: str) -> None:
    """Forget it."""


def op_function(rng: random.Random) -> None:
    """Call decorated functions."""
    n, key = rng.randrange(10**6), fresh("function")
    with Step("functions", "first call", **GOOD):
        square(n, key)
    for _ in range(2):
        with _reading, Step("functions", "call", **READ) as step:
            step.did(**told_by(square(n, key=key)))
    with Step("functions", "peek of a call"):
        square.peek(n, key)
    with Step("functions", "invalidate", delete=1):
        square.invalidate(n, key)
    again = {"refresh_attempts": 1, "refresh_success": 1, **GOOD, "local_miss": 0}
    with Step("functions", "refresh", **again):
        square.refresh(n, key)


def op_other_functions(rng: random.Random) -> None:
    """Call the other kinds of decorated functions."""
    n = rng.randint(2, 6)
    keys = [fresh("item") for _ in range(n)]
    many = {"local_miss": n, "load_led": n, "set": n, **LOAD, "load_success": 1}
    with Step("functions", "batch", **many):
        squares(keys)
    with _reading, Step("functions", "batch again", **dict.fromkeys(READ, n)) as step:
        step.did(**total(told_by(value) for value in squares(keys).values()))
    with Step("functions", "put", set=1):
        put(keys[0])
    with Step("functions", "evict", delete=1):
        evict(keys[0])
    with Step("functions", "first await", **GOOD):
        asyncio.run(_call(asquare, n, keys[0]))
    with _reading, Step("functions", "await", **READ) as step:
        step.did(**told_by(asyncio.run(_call(asquare, n, keys[0]))))


async def _call(function: Any, *args: Any) -> Any:
    return await function(*args)


HERE_ONLY = [
    *(op_get, op_get_with_options, op_not_counted, op_mget, op_aget, op_set, op_mset, op_refused),
    *(op_add, op_numbers, op_forget, op_forget_all, op_load, op_slow_load, op_overtaken),
    *(op_get_or_load, op_stale, op_refresh, op_batch, op_async, op_async_ended, op_function),
    op_other_functions,
]


# --- operations with Redis ----------------------------------------------------------------------

CALL = {"l2_latency": 1}
TOLD = {"invalidation_publish": 1, **CALL}
EITHER = {"local_hit": 1, "local_miss": 1, "remote_hit": 1, "remote_miss": 1, "set": 1, **CALL}
FAR_GOOD = {**GOOD, "remote_miss": 1, "l2_latency": 3}
"""Redis is asked for the key, noted that it is loaded, and given the value."""


def entry_of(cache: LevelCache[str, Any], key: str) -> None:
    """Read a key that is in memory, in Redis, or nowhere."""
    with Step(cache.config.area, "get_entry", **EITHER) as step:
        found = cache.get_entry(key)
        if found is None:
            step.did(local_miss=1, remote_miss=1, **CALL)
        elif found.tier == "local":
            step.did(local_hit=1)
        else:
            step.did(local_miss=1, remote_hit=1, set=1, **CALL)


def op_far_reads(rng: random.Random) -> None:
    """Read what is in memory, in Redis only, and nowhere."""
    for _ in range(3):
        entry_of(far, some_key(rng))
        entry_of(brief, some_key(rng))
    entry_of(far, fresh("nowhere"))
    n = rng.randint(1, 5)
    with Step("far", "mget", local_miss=n, remote_miss=n, **CALL):
        far.mget([fresh("nowhere") for _ in range(n)])
    with Step("far", "aget", local_miss=1, remote_miss=1, **CALL):
        asyncio.run(far.aget(fresh("nowhere")))
    with Step("far", "peek of what is nowhere", **CALL):
        far.peek(fresh("nowhere"))


def op_far_writes(rng: random.Random) -> None:
    """Store, and tell the others."""
    with Step("far", "set", set=1, **TOLD):
        far.set(some_key(rng), rng.choice(VALUES))
    with Step("brief", "set", set=1, **TOLD):
        brief.set(some_key(rng), rng.choice(VALUES))
    with Step("far", "set, untold", set=1, **CALL):
        far.set(some_key(rng), rng.choice(VALUES), broadcast=False)
    mapping = {key: rng.choice(VALUES) for key in some_keys(rng)}
    with Step("far", "mset", set=len(mapping), **TOLD):
        far.mset(mapping)
    with Step("far", "aset", set=1, **TOLD):
        asyncio.run(far.aset(some_key(rng), rng.choice(VALUES)))


def op_far_decided(rng: random.Random) -> None:
    """Have Redis decide."""
    key = fresh("decided")
    with Step("decided", "add", **TOLD):
        assert decided.add(key, 10**6)
    with Step("decided", "add of what is there", **CALL):
        assert not decided.add(key, 1)
    with Step("decided", "incr", **TOLD):
        assert 10**6 + 1 == decided.incr(key)
    with Step("decided", "incr of what is not there", **CALL):
        assert decided.incr(fresh("nowhere"), default=None) is None
    with Step("decided", "touch", **TOLD):
        assert decided.touch(key, 600)
    with Step("decided", "touch of what is not there", **CALL):
        assert not decided.touch(fresh("nowhere"), 60)
    del rng


def op_far_forgets(rng: random.Random) -> None:
    """Forget, and tell the others."""
    keys = some_keys(rng)
    with Step("far", "delete", delete=1, **TOLD):
        far.delete(some_key(rng))
    with Step("far", "mdelete", delete=len(keys), **TOLD):
        far.mdelete(keys)
    with Step("far", "expire", **TOLD):
        far.expire(some_key(rng))
    if rng.random() < 0.3:
        with Step("far", "delete_tags", tag_delete=1, **TOLD):
            far.delete_tags("red")
        with Step("far", "clear", **TOLD):
            far.clear()


def op_far_loads(rng: random.Random) -> None:
    """Load what Redis does not have."""
    with Step("farloads", "load", **FAR_GOOD):
        farloads.get(fresh("good"))
    bad = {**BAD, "remote_miss": 1, "l2_latency": 2}
    with Step("farloads", "load that fails", **bad):
        fails(LoaderError, lambda: farloads.get(fresh("raise")))
    n = rng.randint(2, 4)
    each = {name: n * k for name, k in GOOD.items()}
    with Step("farloads", "mget one by one", **each, remote_miss=n, l2_latency=1 + 2 * n):
        farloads.mget([fresh("good") for _ in range(n)])
    with Step("farloads", "amget one by one", **each, remote_miss=n, l2_latency=1 + 2 * n):
        with_async_loads = [fresh("good") for _ in range(n)]
        asyncio.run(farloads.amget(with_async_loads))


WITH_REDIS_TOO = [op_far_reads, op_far_writes, op_far_decided, op_far_forgets, op_far_loads]


# --- two workers and one load -------------------------------------------------------------------


def pair(name: str) -> None:
    """Load a key that another worker asks for as well: one loads, the other one joins."""
    led = {**GOOD, "local_miss": 1}
    most = {**led, "load_joined": 1, "load_taken_over": 1, "local_hit": 1, "object_hit": 1}
    with Step("pairs", "pair", **most) as step:
        loads_of_thread()
        pairs.get(name)
        if loads_of_thread():
            step.did(**led)
            step.also(pair=name, role="led", joined=_loading.joined)
        else:
            step.did(local_miss=1, load_joined=1)
            step.also(pair=name, role="followed")


# --- the application ----------------------------------------------------------------------------


def show() -> dict[str, Any]:
    """Show the counters in every way that a worker can."""
    caches = [plain, twice, nulls, numbers, loads, aloads, threads, batches, ahead, alone, pairs]
    caches += [functions, far, decided, brief, farloads]
    return {
        "diagnostics": accelerator.diagnostics(),
        "heard": [
            cache.diagnostic_snapshot()["invalidation_listener_started"]
            for cache in (far, decided, brief, farloads)
        ],
        "areas": {
            cache.config.area: {
                "metrics": cache.metrics_snapshot(),
                "points": cache.otel_metric_points(),
                "diagnostic": cache.diagnostic_snapshot()["metrics"],
            }
            for cache in caches
        },
    }


def run(seed: str) -> None:
    """Do some operations."""
    rng = random.Random(seed)
    for operation in rng.choices(WITH_REDIS_TOO if WITH_REDIS else HERE_ONLY, k=6):
        operation(rng)


admin = wsgi_app(authorize=everybody)


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answer ``/run``, ``/pair``, ``/show`` and ``/metrics``."""
    what = environ["PATH_INFO"].strip("/")
    argument = urllib.parse.unquote(environ["QUERY_STRING"])
    if what == "metrics":
        return admin(environ, start_response)
    answer: Any = None
    try:
        answer = {"run": run, "pair": pair}[what](argument) if argument else show()
    except Exception:
        write(failure=traceback.format_exc())
        raise
    body = json.dumps([os.getpid(), answer]).encode()
    start_response("200 OK", [("Content-Length", str(len(body))), ("Connection", "close")])
    return [body]
