"""Decorated functions as a program has them: nothing here may be reported."""

from typing import assert_type

from accelerator import LevelCache, cacheable

users = LevelCache[str, object]("users")


class User:
    def __init__(self, number: int) -> None:
        self.id = number


@users.cacheable("user:{user_id}", ttl="10m", tags=["users"])
def load(user_id: int, *, lang: str = "en") -> User | None:
    return User(user_id)


@users.cacheable("later:{user_id}")
async def load_later(user_id: int) -> User:
    return User(user_id)


@users.cacheable_batch("user:{id}", param="ids")
def load_many(ids: list[int]) -> dict[int, User | None]:
    return {one: User(one) for one in ids}


@users.cache_put("user:{user.id}")
def save(user: User) -> User:
    return user


@users.cache_evict("user:{user_id}", before=True)
async def drop(user_id: int) -> bool:
    return True


class Repository:
    def __init__(self) -> None:
        self.cache = users

    @users.cacheable("method:{x}")
    def method(self, x: int) -> str:
        return str(x)

    @cacheable(lambda self: self.cache, "own:{x}")
    async def own(self, x: int) -> str:
        return str(x)


assert_type(load(7), User | None)
assert_type(load(7, lang="de"), User | None)
assert_type(load.invalidate(7), bool)
assert_type(load.peek(7), User | None)
assert_type(load.refresh(7), User | None)
assert_type(load.uncached(7, lang="fr"), User | None)
assert_type(load_many([7]), dict[int, User | None])
assert_type(save(User(1)), User)

repository = Repository()
assert_type(repository.method(7), str)
assert_type(Repository.method(repository, 7), str)
assert_type(repository.method.peek(7), str | None)
assert_type(repository.method.invalidate(7), bool)


async def main() -> None:
    assert_type(await load_later(7), User)
    assert_type(await load_later.peek(7), User | None)
    assert_type(await load_later.invalidate(7), bool)
    assert_type(await drop(7), bool)
    assert_type(await repository.own(7), str)
    assert_type(await repository.own.refresh(7), str)
