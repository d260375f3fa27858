"""Uses that type checkers must report; behind each what mypy and pyright call it."""

from accelerator import BatchContext, LevelCache, LoadContext


def load_name(key: int) -> str:
    return str(key)


async def load_later(key: int) -> str:
    return str(key)


def load_with_context(key: int, context: LoadContext) -> str:
    context.tags = 5  # assignment, reportAttributeAccessIssue
    context.ttl = [5]  # assignment, reportAttributeAccessIssue
    context.tags_of(key, "a")  # attr-defined, reportAttributeAccessIssue
    context.complete()  # attr-defined, reportAttributeAccessIssue
    return str(key)


def load_wrong_context(key: int, context: BatchContext) -> str:
    return str(key)


def load_two(key: int, other: int) -> str:
    return str(key + other)


names = LevelCache[int, str]("names")
hits = LevelCache[str, int]("hits")


@names.cacheable("{key}", ttl="10m")
def decorated(key: int) -> str:
    return str(key)


@names.cacheable_batch("{key}", param="keys")
def decorated_batch(keys: list[int]) -> dict[int, float]:
    return {key: key / 2 for key in keys}


@names.cacheable("{key}")
async def decorated_later(key: int) -> str:
    return str(key)


class Row:
    @names.cacheable("{key}")
    def method(self, key: int) -> str:
        return str(key)


# options
LevelCache("names", local_tll=5)  # call-overload, reportCallIssue
LevelCache("names", local_ttl=[5])  # call-overload, reportArgumentType
LevelCache("names", tags=5)  # call-overload, reportArgumentType
LevelCache[int, int]("names", loader=load_name)  # arg-type, reportArgumentType
LevelCache[str, str]("names", loader=load_name)  # arg-type, reportArgumentType
LevelCache("names", loader=load_wrong_context)  # arg-type, reportArgumentType
LevelCache("names", loader=load_two)  # arg-type, reportArgumentType
LevelCache("names", loader=5)  # call-overload, reportArgumentType

# keys and values
names.get("7")  # call-overload, reportArgumentType
names.set("7", "Ada")  # arg-type, reportArgumentType
names.set(7, 5)  # arg-type, reportArgumentType
names.set(7, None)  # arg-type, reportArgumentType
names.mset({7: 5})  # dict-item, reportArgumentType
names.mget(["7"])  # list-item, reportArgumentType
names.add("7", "Ada")  # arg-type, reportArgumentType
names.delete("7")  # arg-type, reportArgumentType
names.get_entry("7")  # arg-type, reportArgumentType
names.get_or_load("7", load_name)  # call-overload, reportArgumentType
hits.incr(7)  # call-overload, reportArgumentType

# what may be missing
name: str = names.get(7)  # assignment, reportAssignmentType
many: dict[int, str] = names.mget([7])  # assignment, reportAssignmentType
number: int = names.get(7, 0)  # assignment, reportAssignmentType
print(names.get_entry(7).value)  # union-attr, reportOptionalMemberAccess
text: str = names.get_or_load(7, load_name, disable_load=True)  # assignment, reportAssignmentType

# arguments
names.get(7, allow_stales=True)  # call-overload, reportCallIssue
names.get(7, allow_stale="yes")  # call-overload, reportArgumentType
names.get(7, max_staleness=[1])  # call-overload, reportArgumentType
names.set(7, "Ada", ttl=[5])  # arg-type, reportArgumentType
names.set(7, "Ada", tags=5)  # arg-type, reportArgumentType
names.set(7, "Ada", tags=[5])  # list-item, reportArgumentType
names.set(7, "Ada", broadcast="no")  # arg-type, reportArgumentType
names.set(7, "Ada", nonsense=1)  # call-arg, reportCallIssue
names.delete_tags(5)  # arg-type, reportArgumentType
names.delete(7, on_errors="raise")  # call-arg, reportCallIssue
hits.incr("page", "5")  # call-overload, reportArgumentType
names.get_or_load(7, load_later)  # arg-type, reportArgumentType
names.get_or_load(7, len)  # arg-type, reportArgumentType
names.nothing(7)  # attr-defined, reportAttributeAccessIssue

# decorated functions
decorated("7")  # arg-type, reportArgumentType
decorated(7, 8)  # call-arg, reportCallIssue
decorated.peek("7")  # arg-type, reportArgumentType
decorated.invalidate(other=7)  # call-arg, reportCallIssue
decorated.nothing(7)  # attr-defined, reportAttributeAccessIssue
number = decorated(7)  # assignment, reportAssignmentType
number = decorated.peek(7)  # assignment, reportAssignmentType
names.cacheable("{key}", tttl=5)  # call-arg, reportCallIssue
names.cacheable(5)  # arg-type, reportArgumentType
names.cache_evict("{key}", befor=True)  # call-arg, reportCallIssue
names.cacheable_batch("{key}", param=5)  # arg-type, reportArgumentType
Row.method(7)  # arg-type, reportCallIssue
Row().method("7")  # arg-type, reportArgumentType
many = decorated_batch([7, 8])  # assignment, reportAssignmentType
decorated_batch(["7"])  # list-item, reportArgumentType


class Users(LevelCache[int, str]):
    def shout(self, key: int) -> str:
        return self.get(key).upper()  # union-attr, reportOptionalMemberAccess


async def main() -> None:
    await names.aget("7")  # call-overload, reportArgumentType
    await names.aio.get("7")  # call-overload, reportArgumentType
    await names.aio.set(7, 5)  # arg-type, reportArgumentType
    print(names.aio.get(7).upper())  # attr-defined, reportAttributeAccessIssue
    await names.aio.nothing(7)  # attr-defined, reportAttributeAccessIssue
    print(decorated_later(7).upper())  # attr-defined, reportAttributeAccessIssue
    await decorated_later("7")  # arg-type, reportArgumentType
    print(decorated_later.invalidate(7).real)  # attr-defined, reportAttributeAccessIssue
    await names.aget_or_load(7, load_two)  # arg-type, reportArgumentType
