"""What applications write, as type checkers must understand it; nothing here is run."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, assert_type

import accelerator
from accelerator import MISS, BatchContext, Entry, FnLoader, LevelCache, LoadContext, ReadOptions
from accelerator.entry import MissType


@dataclass(frozen=True)
class User:
    name: str


def load_user(key: int) -> User | None:
    return User("Ada") if key == 7 else None


def load_rate(key: str, context: LoadContext) -> float:
    context.ttl = "10s"
    context.tags = ["rates", f"rate {key}"]
    context.tags.add("all")
    if key == "draft":
        context.skip()
    return 1.25


async def load_async(key: int) -> User:
    await asyncio.sleep(0)
    return User(str(key))


async def load_async_context(key: int, context: LoadContext) -> User:
    await asyncio.sleep(0)
    context.ttl = None
    return User(str(key))


class Prices:
    def load(self, key: int) -> int:
        return 100 + key

    def mload(self, keys: list[int], context: BatchContext) -> Mapping[int, int]:
        context.tags_of(keys[0], "first")
        return {key: 100 + key for key in keys}


class AsyncPrices:
    async def load(self, key: int, context: LoadContext) -> int:
        return 100 + key


# What a loader says about keys and values is known of the cache.
users = LevelCache("users", local_ttl="5m", loader=load_user, tags=["users"])
assert_type(users, LevelCache[int, User | None])
rates = LevelCache("rates", loader=load_rate, stale_on_error=True)
assert_type(rates, LevelCache[str, float])
prices = LevelCache("prices", loader=Prices(), warmup_enabled=True)
assert_type(prices, LevelCache[int, int])
later = LevelCache("later", loader=load_async)
assert_type(later, LevelCache[int, User])
later_context = LevelCache("later", loader=load_async_context)
assert_type(later_context, LevelCache[int, User])
functions = LevelCache[int, int]("prices", loader=FnLoader(Prices().load, Prices().mload))
async_prices = LevelCache("prices", loader=AsyncPrices())
assert_type(async_prices, LevelCache[int, int])
explicit = LevelCache[int, User]("users", loader=load_async)
assert_type(explicit, LevelCache[int, User])
explicit2: LevelCache[int, User] = LevelCache("users", local_ttl=5)
lambdas = LevelCache[int, str]("users", loader=lambda key: f"{key}!")

# Without types it is a cache of anything.
anything = LevelCache("anything")
assert_type(anything, LevelCache[Any, Any])
anything.set("key", 1)
anything.set(("a", 1), [1])
value = anything.get("key")

names = LevelCache[int, str]("names")
assert_type(names.get(7), str | None)
assert_type(names.get(7, "nobody"), str)
assert_type(names.get(7, 0), str | int)
assert_type(names.get(7, MISS), str | MissType)
assert_type(names.get(7, allow_stale=True, max_staleness="5s"), str | None)
assert_type(names.get(7, options=ReadOptions(allow_stale=True, max_staleness="1s")), str | None)
assert_type(names.mget([1, 2]), dict[int, str | None])
assert_type(names.mget(range(5), ""), dict[int, str])
assert_type(names.peek(7), str | None)
assert_type(names.peek(7, MISS), str | MissType)
assert_type(names.get_entry(7), Entry[str] | None)
entry = names.get_entry(7, disable_load=True)
if entry is not None:
    assert_type(entry.value, str)
    assert_type(entry.ttl, float | None)
assert_type(names.get_or_load(7, str), str)
assert_type(names.get_or_load(7, lambda key: f"{key}", ttl="5m", tags=["a"]), str)
assert_type(names.get_or_load(7, str, disable_load=True), str | None)
assert_type(7 in names, bool)
names.set(7, "Ada")
names.set(7, "Ada", 60)
names.set(7, "Ada", ttl="5m", tags={"people", "a"}, broadcast=False)
names.mset({7: "Ada"}, None, tags=("people",))
assert_type(names.add(7, "Ada"), bool)
assert_type(names.touch(7, 5.5), bool)
assert_type(names.delete(7), bool)
assert_type(names.mdelete([7, 8], on_error="raise"), int)
assert_type(names.expire(7), bool)
names.delete_tags("people", "a", on_error="raise")
names.expire_tags("people")
names.clear()
assert_type(prices.refresh(7), int)
assert_type(prices.warmup(range(5)), int)

hits = LevelCache[str, int]("hits")
assert_type(hits.incr("page"), int)
assert_type(hits.incr("page", 5, ttl="1m"), int)
assert_type(hits.decr("page", default=None), int | None)

maybe = LevelCache[int, User | None]("maybe")
assert_type(maybe.get(7, MISS), User | MissType | None)
found = maybe.get(7, MISS)
if found is MISS:
    pass

with names.lock("nightly", timeout="5s") as lock:
    assert_type(lock.lost, bool)

counted = names.metrics_snapshot()
assert_type(counted, accelerator.MetricsSnapshot)
assert_type(counted["local_hit"], int)
shown = names.diagnostic_snapshot()
assert_type(shown, accelerator.DiagnosticSnapshot)
assert_type(shown["load"]["p99"], float | None)
if shown["remote"] is not None:
    assert_type(shown["remote"]["listener"]["pid"], int | None)
for point in names.otel_metric_points():
    assert_type(point, accelerator.MetricPoint)
    assert_type(point["attributes"], dict[str, str])


class Users(LevelCache[int, User]):
    """A subclass with a name and an operation of its own."""

    def __init__(self) -> None:
        super().__init__("users", local_ttl="5m")

    def by_number(self, number: int) -> User | None:
        return self.get(number)

    async def rename(self, number: int, name: str) -> None:
        await self.aset(number, User(name), tags=["names"])
        await self.aio.delete_tags("names")


own = Users()
assert_type(own.get(1), User | None)
assert_type(own.by_number(1), User | None)


async def main() -> None:
    assert_type(await names.aget(7), str | None)
    assert_type(await names.aget(7, ""), str)
    assert_type(await names.amget([7]), dict[int, str | None])
    assert_type(await later.aget_or_load(7, load_async, tags=["a"]), User)
    assert_type(await later.aget_or_load(7, load_async_context), User)
    assert_type(await later.aget_or_load(7, lambda key: User(str(key))), User)
    assert_type(await names.adelete(7), bool)
    assert_type(await hits.aincr("page"), int)
    aio = names.aio
    assert_type(await aio.get(7), str | None)
    assert_type(await aio.get(7, 0), str | int)
    assert_type(await aio.mget([7], ""), dict[int, str])
    assert_type(await aio.get_entry(7), Entry[str] | None)
    assert_type(await later.aio.get_or_load(7, load_async), User)
    assert_type(await aio.add(7, "Ada", tags=["people"]), bool)
    await aio.set(7, "Ada", 5, tags=["people"])
    await aio.delete_tags("people")
    async with aio.lock("nightly"):
        pass


accelerator.configure(size="64MiB", redis="redis://localhost", namespace="shop")
