"""Tags in Redis: what a delete by tag does to values there, and to every host."""

import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import msgpack
import pytest
import redis

from accelerator import (
    BackendError,
    LevelCache,
    local,
    message,
    runtime,
    testing,
)
from accelerator.codec import CODE_BYTES, CODE_INT
from accelerator.demo.fault_proxy import FaultProxy
from accelerator.demo.redis_server import RedisServer
from accelerator.errors import RemoteError
from accelerator.local import encode_key
from accelerator.remote import (
    Change,
    EnvelopeError,
    Fill,
    Lease,
    Opened,
    RedisRemote,
    scripts,
    seal,
    tagging,
    unseal,
)
from accelerator.remote import plans as plans_module
from accelerator.remote.envelope import HEADER_SIZE
from accelerator.remote.names import Names
from accelerator.remote.plans import Batch, Call

hosts: Any = sys.modules["hosts"]  # beside this file, loaded by conftest.py
until = hosts.until

ORIGIN = bytes(range(16))
AREA = "users"
GONE = "gone"


def sealed(text: str = "value", *tags: bytes, **more: Any) -> Any:
    return seal(CODE_BYTES, text.encode(), tags=tags, **more)


def number(value: int, *tags: bytes) -> Any:
    return seal(CODE_INT, value.to_bytes(8, "little", signed=True), tags=tags)


def change(key: Any, value: Any = None, life: float | None = 60.0) -> Change:
    return Change(encode_key(key), value, life, 0)


def put(backend: Any, key: Any, value: Any, life: float | None = 60.0) -> None:
    backend.write(AREA, message.SET, [change(key, value, life)], ORIGIN)


def delete_tags(backend: Any, *tags: bytes) -> None:
    backend.mark_tags(AREA, message.FORGET_TAGS, tags, [0] * len(tags), ORIGIN)


def expire_tags(backend: Any, *tags: bytes) -> None:
    backend.mark_tags(AREA, message.EXPIRE_TAGS, tags, [0] * len(tags), ORIGIN)


def stored(backend: Any, key: Any) -> Any:
    (found,) = backend.get(AREA, [encode_key(key)])
    return found


def read(backend: Any, key: Any) -> Opened | None:
    found = stored(backend, key)
    return None if found is None else unseal(found.blob, limit=1 << 20)


def lease(backend: Any, key: Any) -> Lease:
    (found,) = backend.lease(AREA, [encode_key(key)], 30.0)
    return found


def fill(backend: Any, key: Any, value: Any, given: Lease) -> bool:
    (done,) = backend.fill(AREA, [Fill(encode_key(key), value, 60.0, given)])
    return bool(done)


def answered(remote: RedisRemote, batch: Batch) -> list[Any]:
    """Send one batch."""

    def alone() -> Any:
        return (yield batch)

    return remote._run(alone(), AREA, "test")  # type: ignore[no-any-return]


def told(backend: Any) -> list[Any]:
    """Kind, keys and notes of all that is in the log."""
    entries = backend.log(AREA, 0, None, 1000)
    return [msgpack.unpackb(packed.split(b" ", 3)[3]) for _, packed in entries]


def plain(backend: Any) -> RedisRemote:
    """The client behind it that is for threads."""
    return backend if isinstance(backend, RedisRemote) else backend._backend


@pytest.fixture
def names(backend: Any) -> Names:
    return plain(backend).plans.names(AREA)


class TestDeleted:
    def test_set(self, backend: Any) -> None:
        """What was set before is a miss, what carries other tags or none is not."""
        put(backend, "a", sealed("a", b"red", b"round"))
        put(backend, "b", sealed("b", b"green"))
        put(backend, "c", sealed("c"))
        found = read(backend, "a")
        assert found is not None
        assert (b"a", (b"red", b"round")) == (found.payload, found.tags)
        delete_tags(backend, b"round")
        assert None is read(backend, "a")
        assert [b"b", b"c"] == [read(backend, key).payload for key in "bc"]  # type: ignore[union-attr]

    def test_set_again(self, backend: Any) -> None:
        """What is set after it is there."""
        for text in ("first", "second"):
            put(backend, "a", sealed(text, b"red"))
            assert text.encode() == read(backend, "a").payload  # type: ignore[union-attr]
            delete_tags(backend, b"red")
            assert None is read(backend, "a")

    def test_loads(self, backend: Any) -> None:
        """A load that began before it is dead, whenever it comes; one that began after is not."""
        put(backend, "nothing", sealed("x", b"red"))  # there is a table
        early, late = lease(backend, "early"), lease(backend, "late")
        assert fill(backend, "early", sealed("old", b"red"), early)
        delete_tags(backend, b"red")
        assert fill(backend, "late", sealed("old", b"red"), late)  # only whoever reads it knows
        assert [None, None] == [read(backend, key) for key in ("early", "late")]
        again = lease(backend, "late")
        assert again.seq > late.seq
        assert fill(backend, "late", sealed("new", b"red"), again)
        assert b"new" == read(backend, "late").payload  # type: ignore[union-attr]

    def test_first_of_all(self, backend: Any) -> None:
        """The first value with tags that an area ever has is there."""
        given = lease(backend, "a")
        assert fill(backend, "a", sealed("a", b"red"), given)
        assert b"a" == read(backend, "a").payload  # type: ignore[union-attr]

    def test_many(self, backend: Any) -> None:
        """A batch is judged value by value."""
        keys = list(range(300))
        backend.write(
            AREA,
            message.SET,
            [change(key, sealed(str(key), b"%d" % (key % 3), b"all")) for key in keys],
            ORIGIN,
        )
        delete_tags(backend, b"0", b"1")
        found = backend.get(AREA, [encode_key(key) for key in keys])
        assert [key % 3 == 2 for key in keys] == [each is not None for each in found]

    def test_told(self, backend: Any, raw: Any, names: Names) -> None:
        """Each is one message, with the tags and their notes, and a number of its own."""
        with raw.pubsub() as heard:
            heard.subscribe(names.channel)
            assert "subscribe" == heard.get_message(timeout=5)["type"]
            backend.mark_tags(AREA, message.FORGET_TAGS, [b"a", b"b"], [7, 8], ORIGIN)
            published = heard.get_message(timeout=5)["data"]
        backend.mark_tags(AREA, message.EXPIRE_TAGS, [b"c"], [9], ORIGIN)
        assert [
            [message.FORGET_TAGS, [b"a", b"b"], [7, 8]],
            [message.EXPIRE_TAGS, [b"c"], [9]],
        ] == told(backend)
        parsed = message.parse(published)
        assert (message.FORGET_TAGS, [b"a", b"b"]) == (parsed.kind, parsed.keys)
        first = parsed.seq
        entries = backend.log(AREA, 0, None, 9)
        assert [first, first + 1] == [seq for seq, _ in entries]

    def test_large(self, backend: Any) -> None:
        """As many tags as anybody likes go in parts."""
        tags = [b"%d" % each for each in range(300)]
        put(backend, "a", sealed("a", tags[-1]))
        delete_tags(backend, *tags)
        assert None is read(backend, "a")
        assert [128, 128, 44] == [len(each[1]) for each in told(backend)[1:]]

    def test_neighbour(self, backend: Any) -> None:
        """A tag that shares one of its two places with a deleted one is not hurt by it."""
        first = tagging.slots_of(b"red")
        shares = next(
            tag
            for tag in (b"%d" % each for each in range(100_000))
            if len(set(tagging.slots_of(tag)) & set(first)) == 1
        )
        put(backend, "a", sealed("a", shares))
        delete_tags(backend, b"red")
        assert None is not read(backend, "a")
        assert not backend.add(AREA, change("a", sealed("b")), ORIGIN)  # scripts see it so, too
        delete_tags(backend, shares)
        assert None is read(backend, "a")

    def test_cleared(self, backend: Any) -> None:
        """A clear is one for values with tags, too."""
        put(backend, "a", sealed("a", b"red"))
        backend.clear(AREA, 0, ORIGIN)
        assert None is read(backend, "a")


class TestBetween:
    """What comes between two steps of an operation, which are one batch each."""

    def interrupted(self, backend: Any, name: str, what: Callable[[], object]) -> None:
        """Have *what* be done once, behind the first batch of a plan."""
        plans = plain(backend).plans
        make = getattr(plans, name)

        def wrapped(*arguments: Any, **keywords: Any) -> Any:
            setattr(plans, name, make)
            steps = make(*arguments, **keywords)
            replies = yield next(steps)
            what()
            try:
                batch = steps.send(replies)
                while True:
                    batch = steps.send((yield batch))
            except StopIteration as end:
                return end.value

        setattr(plans, name, wrapped)

    @pytest.fixture
    def one(self, cluster: tuple[str, int], clients: Any) -> Iterator[Any]:
        """A client of a cluster: on one server such operations are one step."""
        host, port = cluster
        with redis.RedisCluster(host, port, protocol=2) as given:
            yield clients.connect(given)

    def test_read(self, backend: Any) -> None:
        """A delete between the value and the words of its tags is seen."""
        one = plain(backend)
        put(one, "a", sealed("a", b"red"))
        self.interrupted(one, "get", lambda: delete_tags(one, b"red"))
        assert None is read(one, "a")

    def test_decided(self, one: Any) -> None:
        """A value that is replaced while its tags are looked up is looked up again."""
        initial = change("n", number(0, b"red"))
        assert 1 == one.incr(AREA, encode_key("n"), 1, initial, 0, ORIGIN)
        delete_tags(one, b"red")

        def replace() -> None:
            put(one, "n", number(40, b"red"))

        self.interrupted(one, "_verdict", replace)
        assert 41 == one.incr(AREA, encode_key("n"), 1, initial, 0, ORIGIN)

    def test_overtaken(self, one: Any) -> None:
        """Who is overtaken each time gives up, and says so."""
        put(one, "a", sealed("a", b"red"))
        verdict = one.plans._verdict

        def overtaken(*arguments: Any) -> Any:
            found = yield from verdict(*arguments)
            put(one, "a", sealed("a", b"red"))
            return found

        one.plans._verdict = overtaken  # type: ignore[method-assign]
        with pytest.raises(RemoteError, match="all the time"):
            one.add(AREA, change("a", sealed("b", b"red")), ORIGIN)


class TestExpired:
    def test_stale(self, backend: Any) -> None:
        """What has a stale life stays, as stale; what has none is a miss."""
        put(backend, "a", sealed("a", b"red", stale=60.0))
        put(backend, "b", sealed("b", b"red"))
        expire_tags(backend, b"red")
        found = stored(backend, "a")
        assert found.expired
        assert b"a" == unseal(found.blob, limit=99).payload
        assert None is stored(backend, "b")
        delete_tags(backend, b"red")
        assert None is stored(backend, "a")

    def test_after(self, backend: Any) -> None:
        """What is set after it is fresh."""
        put(backend, "a", sealed("old", b"red", stale=60.0))
        expire_tags(backend, b"red")
        put(backend, "a", sealed("new", b"red", stale=60.0))
        assert not stored(backend, "a").expired


class TestDecided:
    """What Redis decides about a value that is dead, or stale, by one of its tags."""

    @pytest.fixture(params=["deleted", "expired"])
    def mark(self, request: pytest.FixtureRequest) -> Callable[..., None]:
        return {"deleted": delete_tags, "expired": expire_tags}[request.param]

    def test_add(self, backend: Any, mark: Callable[..., None]) -> None:
        """It can be added; one that is alive cannot."""
        put(backend, "a", sealed("old", b"red", stale=60.0))
        assert not backend.add(AREA, change("a", sealed("new", b"red")), ORIGIN)
        mark(backend, b"red")
        assert backend.add(AREA, change("a", sealed("new", b"red")), ORIGIN)
        assert b"new" == read(backend, "a").payload  # type: ignore[union-attr]
        assert not backend.add(AREA, change("a", sealed("newer", b"red")), ORIGIN)

    def test_touch(self, backend: Any, mark: Callable[..., None]) -> None:
        """It is not touched; and a touch does not save what was loaded before a delete."""
        put(backend, "a", sealed("a", b"red", stale=60.0))
        assert backend.touch(AREA, encode_key("a"), 90.0, 60.0, 0, ORIGIN)
        mark(backend, b"red")
        assert not backend.touch(AREA, encode_key("a"), 90.0, 60.0, 0, ORIGIN)
        found = stored(backend, "a")
        assert found is None or found.expired

    def test_incr(self, backend: Any, mark: Callable[..., None]) -> None:
        """It begins anew; what is alive is added to, and keeps its tags."""
        initial = change("n", number(0, b"red"))
        for expected in (1, 2):
            assert expected == backend.incr(AREA, encode_key("n"), 1, initial, 0, ORIGIN)
        found = read(backend, "n")
        assert found is not None
        assert (b"red",) == found.tags
        mark(backend, b"red")
        assert None is backend.incr(AREA, encode_key("n"), 1, None, 0, ORIGIN)
        assert 1 == backend.incr(AREA, encode_key("n"), 1, initial, 0, ORIGIN)
        assert 2 == backend.incr(AREA, encode_key("n"), 1, None, 0, ORIGIN)

    def test_expire(self, backend: Any, mark: Callable[..., None]) -> None:
        """It does not count as fresh."""
        put(backend, "a", sealed("a", b"red", stale=60.0))
        put(backend, "b", sealed("b", b"green", stale=60.0))
        mark(backend, b"red")
        keys = [encode_key("a"), encode_key("b")]
        assert 1 == backend.expire(AREA, keys, [0, 0], ORIGIN)

    def test_delete(self, backend: Any, mark: Callable[..., None]) -> None:
        """A stale copy counts as found, a dead one does not."""
        put(backend, "a", sealed("a", b"red", stale=60.0))
        mark(backend, b"red")
        found = backend.write(AREA, message.FORGET, [change("a")], ORIGIN).found
        assert (0 if mark is delete_tags else 1) == found


class TestLost:
    """Whatever of the area's own keys is gone or wrong: values with tags miss, none comes back."""

    @pytest.fixture(autouse=True)
    def dead(self, backend: Any) -> None:
        """A value that a delete has killed, and one that is alive."""
        put(backend, "dead", sealed("old", b"red"))
        delete_tags(backend, b"red")
        put(backend, "alive", sealed("new", b"red"))

    def check(self, backend: Any) -> None:
        """Nothing is back, and from a new load on all is as ever."""
        assert None is read(backend, "dead")
        given = lease(backend, "dead")
        assert fill(backend, "dead", sealed("new", b"red"), given)
        given = lease(backend, "dead")  # the first may have been before there was a table
        assert fill(backend, "dead", sealed("new", b"red"), given)
        assert b"new" == read(backend, "dead").payload  # type: ignore[union-attr]
        delete_tags(backend, b"red")
        assert [None, None] == [read(backend, key) for key in ("dead", "alive")]

    @pytest.mark.parametrize("table", [None, b"", b"x", b"\xff" * 60_000, 3])
    def test_table(self, backend: Any, raw: Any, names: Names, table: Any) -> None:
        """Without the table, or with foreign bytes in its place, values with tags miss."""
        raw.delete(names.tags)
        if isinstance(table, int):
            raw.rpush(names.tags, "a", "list")
        elif table is not None:
            raw.set(names.tags, table)
        assert [None, None] == [read(backend, key) for key in ("dead", "alive")]
        self.check(backend)

    def test_table_while_loading(self, backend: Any, raw: Any, names: Names) -> None:
        """A load that began before the table was lost is dead: nobody knows what it missed."""
        given = lease(backend, "late")
        delete_tags(backend, b"red")
        raw.delete(names.tags)
        assert fill(backend, "late", sealed("old", b"red"), given)
        assert None is read(backend, "late")
        self.check(backend)

    @pytest.mark.parametrize("garbage", [None, b"x", b"9" * 30, b"9" * 15, b"%d" % (1 << 48)])
    def test_number(self, backend: Any, raw: Any, names: Names, garbage: Any) -> None:
        """A number that is lost goes on above all that were given."""
        before = int(raw.get(names.seq))
        raw.delete(names.seq)
        if garbage is not None:
            raw.set(names.seq, garbage)
        assert None is read(backend, "alive")
        assert lease(backend, "any").seq > before
        assert None is read(backend, "dead")
        assert b"new" == read(backend, "alive").payload  # type: ignore[union-attr]
        self.check(backend)

    @pytest.mark.parametrize("last", [(1 << 48) - 2, (1 << 48) - 1, 1 << 48, 10**15 - 1, 10**19])
    def test_largest_number(self, backend: Any, raw: Any, names: Names, last: int) -> None:
        """A number at the end of what messages can carry, or past it, stops nothing for good."""
        raw.set(names.seq, last)
        raw.delete(names.tags)
        for _ in range(3):
            put(backend, "any", sealed("any", b"red"))
            history, numbers = backend.beat([AREA, "another"], "channel", 1)
            beat = message.parse_heartbeat(message.heartbeat(1, history, numbers))
            (_, said), *_ = reversed(backend.log(AREA, 0, None, 9))
            assert message.parse(said).seq == beat.seqs[0]
        self.check(backend)

    def test_words_in_parts(self, backend: Any, raw: Any, names: Names) -> None:
        """However many tags are read, no script reads many; a table lost meanwhile is none."""
        keys = [encode_key(key) for key in range(200)]
        changes = [
            Change(key, sealed("x", *(key + b"%d" % tag for tag in range(8))), 60.0, 0)
            for key in keys
        ]
        backend.write(AREA, message.SET, changes, ORIGIN)
        delete_tags(backend, keys[3] + b"7", keys[150] + b"0")
        plans = plain(backend).plans
        steps = plans.get(AREA, keys)
        asked: list[Any] = []
        batch = next(steps)
        try:
            while True:
                asked += [each for each in batch.commands if isinstance(each, Call)]
                batch = steps.send(answered(plain(backend), batch))
        except StopIteration as end:
            found = end.value
        assert [3, 150] == [at for at, each in enumerate(found) if each is None]
        assert {scripts.WORDS} == {call.script for call in asked}
        assert len(asked) > 1
        assert all(len(call.args) <= plans_module.WORDS_CHUNK for call in asked)
        first = tagging.Words(3, 20, {1: (0, 0)})
        made_anew = tagging.Words(9, 21, {2: (0, 0)})
        assert (9, 20, {1: (0, 0), 2: (0, 0)}) == tagging.Words.joined([first, made_anew])
        assert None is tagging.Words.joined([first, None])

    def test_words(self, backend: Any, raw: Any, names: Names) -> None:
        """Foreign bytes inside of the table kill too much, until the next delete of the tag."""
        raw.setrange(names.tags, tagging.PAIR, b"\xff" * (tagging.PAIR * tagging.SLOTS))
        assert None is read(backend, "alive")
        delete_tags(backend, b"red")
        self.check(backend)

    def test_bounded(self, backend: Any, raw: Any, names: Names) -> None:
        """The table has its size, however many tags there are; and it stays."""
        delete_tags(backend, *(b"%d" % each for each in range(2_000)))
        assert raw.strlen(names.tags) <= tagging.PAIR * (1 + tagging.SLOTS)
        assert -1 == raw.pttl(names.tags)

    def test_other_history(self, backend: Any, raw: Any, names: Names) -> None:
        """
        After a failover the number goes on above what the lost history may have given.

        A load with a lease of the lost one would else be above the deletes of the new one.
        """
        given = lease(backend, "late")
        lost = given.seq + 3
        raw.set(names.run, "0" * 40 + f" {int(time.time()) + 1000}")
        assert [] == plain(backend).recheck([AREA], ORIGIN)
        delete_tags(backend, b"red")
        for _ in range(5):
            put(backend, "any", sealed("any"))
        assert fill(backend, "late", sealed("old", b"red"), given._replace(seq=lost))
        assert None is read(backend, "late")
        put(backend, "alive", sealed("new", b"red"))
        assert b"new" == read(backend, "alive").payload  # type: ignore[union-attr]

    def test_from_the_future(self, backend: Any) -> None:
        """A stamp above the number is of another history, and dead."""
        given = lease(backend, "late")
        assert fill(backend, "late", sealed("old", b"red"), given._replace(seq=given.seq + 9))
        assert None is read(backend, "late")
        assert backend.add(AREA, change("late", sealed("new", b"red")), ORIGIN)


class TestGarbage:
    """What is said of tags may be any bytes."""

    @pytest.fixture
    def blob(self, backend: Any, raw: Any, names: Names) -> bytes:
        put(backend, "a", sealed("a", b"red", b"green"))
        found = raw.get(names.value(encode_key("a")))
        assert isinstance(found, bytes)
        return found

    def test_read(self, backend: Any, raw: Any, names: Names, blob: bytes) -> None:
        """Whoever opens it is told; nobody is given it."""
        end = len(blob) - 1
        for at in range(HEADER_SIZE + tagging.STAMP_SIZE, end):
            damaged = blob[:at] + bytes((blob[at] ^ 0x55,)) + blob[at + 1 :]
            raw.set(names.value(encode_key("a")), damaged)
            found = stored(backend, "a")
            assert found is not None
            with pytest.raises(EnvelopeError):
                unseal(found.blob, limit=99)
        for size in range(HEADER_SIZE, end):
            raw.set(names.value(encode_key("a")), blob[:size])
            with pytest.raises(EnvelopeError):
                unseal(stored(backend, "a").blob, limit=99)

    def test_scripts(self, backend: Any, raw: Any, names: Names, blob: bytes) -> None:
        """Scripts get over it, and replace it."""
        name = names.value(encode_key("a"))
        for size in range(HEADER_SIZE, len(blob)):
            raw.set(name, blob[:size])
            backend.add(AREA, change("a", sealed("new", b"red")), ORIGIN)
            backend.touch(AREA, encode_key("a"), 9.0, 0.0, 0, ORIGIN)
            backend.expire(AREA, [encode_key("a")], [0], ORIGIN)
            put(backend, "a", sealed("new", b"red"))
            assert b"new" == read(backend, "a").payload  # type: ignore[union-attr]

    def test_many_tags(self, backend: Any) -> None:
        """As many tags as there may be, as long as they may be."""
        tags = [bytes((each,)) * 255 for each in range(1, 9)]
        put(backend, "a", sealed("a", *tags))
        assert tuple(tags) == read(backend, "a").tags  # type: ignore[union-attr]
        assert not backend.add(AREA, change("a", sealed("b", *tags)), ORIGIN)
        delete_tags(backend, tags[-1])
        assert None is read(backend, "a")

    def test_compressed(self, backend: Any) -> None:
        """What is compressed may have tags."""
        put(backend, "a", sealed("a" * 1000, b"red", compress_over=100))
        assert b"a" * 1000 == read(backend, "a").payload  # type: ignore[union-attr]


# --- hosts --------------------------------------------------------------------------------------

MakeHost = Callable[..., Any]
cache = hosts.cache

shared = pytest.mark.skipif(not local.NATIVE, reason="processes share through the native part")

LASTING = {"area": {"local_ttl": "1h", "remote_ttl": "1h"}}
"""What a test waits for does not come because a life has passed."""

_held: dict[str, Any] = {}
"""Gates that were made before the workers were forked."""


def tier(key: Any, **options: Any) -> tuple[Any, str] | None:
    """Value and tier of what a read finds without a load, in a worker."""
    found = cache().get_entry(key, disable_load=True, **options)
    return None if found is None else (found.value, found.tier)


def mset_tagged(values: dict[str, Any]) -> None:
    """Set keys that each carry a tag of their own name and "all", in a worker."""
    for key, value in values.items():
        cache().set(key, value, tags=[key, "all"])


def load_at_gates(_key: str, context: Any) -> str:
    """Load what is true now, and be held up."""
    context.tags.add("red")
    found = _held["truth"].is_open()
    _held["reached"].open()
    _held["gate"].wait()
    return "new" if found else "old"


def hang_at_tags() -> None:
    """From now on, whoever would tell Redis of tags waits for ever, in a worker."""
    second = runtime.current().second
    assert second is not None
    ask = second.ask

    def held(area: Any, name: str, wanted: Any) -> Any:
        if wanted.method == "mark_tags":
            _held["reached"].open()
            _held["gate"].wait()
        return ask(area, name, wanted)

    second.ask = held  # type: ignore[method-assign]


@shared
class TestHosts:
    def test_other_host(self, make_host: MakeHost) -> None:
        """What one host deletes by tag is gone on the other, and nothing else is."""
        a, b = make_host(LASTING), make_host(LASTING)
        a.call(mset_tagged, {"one": 1, "two": 2})
        until(lambda: b.count("invalidation_receive") >= 2)
        assert [1, 2] == [b.call("get", key) for key in ("one", "two")]
        assert [(1, "local"), (2, "local")] == [b.call(tier, key) for key in ("one", "two")]
        a.call("delete_tags", "one")
        assert None is a.call(tier, "one")
        until(lambda: b.call(tier, "one") is None)
        assert (2, "local") == b.call(tier, "two")
        assert (2, "local") == a.call(tier, "two")
        assert 0 == b.count("flush") == b.count("gap")

    def test_later_host(self, make_host: MakeHost) -> None:
        """A host that starts later does not find the copy in Redis either."""
        a = make_host(LASTING)
        a.call(mset_tagged, {"one": 1, "two": 2})
        a.call("delete_tags", "one")
        c = make_host(LASTING)
        assert [None, (2, "remote")] == [c.call(tier, key) for key in ("one", "two")]

    def test_found_by_a_load(self, make_host: MakeHost) -> None:
        """What a load finds in Redis, before it asks the loader, keeps its tags in the segment."""
        areas = {"area": {**LASTING["area"], "loader": lambda _key: "loaded"}}
        a, b = make_host(areas), make_host(areas)
        a.call("set", "key", "old", tags=["red"])
        until(lambda: b.count("invalidation_receive") >= 1)
        assert "old" == b.call("get", "key")
        assert ("old", "local") == b.call(tier, "key")
        b.call("delete_tags", "red")
        assert None is b.call(tier, "key")
        assert "loaded" == b.call("get", "key")

    def test_expired(self, make_host: MakeHost) -> None:
        """After an expiry the stale copies are still there, on all hosts, for who asks for them."""
        areas = {"area": {"stale_ttl": 60, "local_ttl": "1h"}}
        a, b = make_host(areas), make_host(areas)
        a.call(mset_tagged, {"one": 1})
        until(lambda: b.count("invalidation_receive") >= 1)
        assert 1 == b.call("get", "one")
        a.call("expire_tags", "one")
        until(lambda: b.call(tier, "one") is None)
        c = make_host(areas)
        for host in (a, b, c):
            assert None is host.call(tier, "one")
            assert 1 == host.call("get", "one", allow_stale=True)
        a.call("delete_tags", "one")
        until(lambda: b.call("get", "one", allow_stale=True) is None)
        assert None is c.call("get", "one", allow_stale=True)

    @pytest.mark.parametrize("mode", ["both", "remote"])
    def test_load_in_flight(self, make_host: MakeHost, gates: Any, mode: str) -> None:
        """A load that was running on B when A deleted its tag is B's answer, and nobody's later."""
        _held.update(reached=gates(), gate=gates(), truth=gates())
        areas = {"area": {"loader": load_at_gates, "mode": mode}}
        a, b = make_host(areas), make_host(areas)
        a.call("set", "other", 1, tags=["red"])  # so that there is a table
        b.workers[0].begin("get", "key")
        _held["reached"].wait()
        _held["truth"].open()
        a.call("delete_tags", "red")
        _held["gate"].open()
        assert "old" == b.workers[0].end()
        assert [None, None] == [host.call(tier, "key") for host in (a, b)]
        assert "new" == b.call("get", "key")
        until(lambda: a.call(tier, "key") == ("new", "remote" if mode == "remote" else "local"))
        assert "new" == a.call("get", "key")

    def test_decided(self, make_host: MakeHost) -> None:
        """Nothing is decided on what a tag has killed, whichever host asks."""
        a, b = make_host(LASTING), make_host(LASTING)
        a.call("set", "key", 1, tags=["red"])
        a.call("set", "count", 5, tags=["red"])
        assert not b.call("add", "key", 2)
        assert 6 == b.call("incr", "count")
        a.call("delete_tags", "red")
        assert not b.call("touch", "key")
        assert 1 == b.call("incr", "count")
        assert b.call("add", "key", 2, tags=["red"])
        assert not a.call("add", "key", 3)
        assert 2 == a.call("get", "key")

    def test_newer_own_value(self, make_host: MakeHost) -> None:
        """A host's own message does not take what it has set since."""
        a, b = make_host(LASTING), make_host(LASTING)
        for number in range(50):
            a.call(mset_tagged, {"one": number})
            a.call("delete_tags", "all")
            a.call(mset_tagged, {"one": -number})
        until(lambda: a.count("invalidation_receive") >= 150)
        assert (-49, "local") == a.call(tier, "one")
        until(lambda: b.count("invalidation_receive") >= 150)
        assert -49 == b.call("get", "one")

    def test_missed(self, make_host: MakeHost, server: RedisServer, proxy: FaultProxy) -> None:
        """What a cut link has kept from a host is read from the log; till then the bound holds."""
        a = make_host(LASTING, redis=server.url)
        b = make_host(LASTING, redis=proxy.url, freshness_bound=0.6, redis_timeout=0.1)
        a.call(mset_tagged, {"one": 1, "two": 2})
        until(lambda: b.count("invalidation_receive") >= 2)
        until(lambda: [b.call("get", key) for key in ("one", "two")] == [1, 2])
        assert (1, "local") == b.call(tier, "one")
        proxy.mode("half_open")
        a.call("delete_tags", "one")
        deleted = time.monotonic()
        while b.call(tier, "one") is not None:
            assert time.monotonic() < deleted + 5.0  # of which 0.6 would do, were it alone here
        until(lambda: time.monotonic() > deleted + 0.6)
        proxy.mode("pass")
        until(lambda: b.count("replayed") >= 1)
        assert None is b.call(tier, "one")
        assert 0 == b.count("flush")
        until(lambda: b.call(tier, "two") == (2, "local"))

    @pytest.mark.parametrize("how", ["delete_tags", "expire_tags"])
    def test_killed(self, make_host: MakeHost, gates: Any, how: str) -> None:
        """What a worker was about to tell when it was killed, another tells, as what it is."""
        _held.update(reached=gates(), gate=gates())
        areas = {"area": {"stale_ttl": 60, "local_ttl": "1h"}}
        a, b = make_host(areas, workers=2), make_host(areas)
        a.call(mset_tagged, {"one": 1, "two": 2})
        until(lambda: b.count("invalidation_receive") >= 2)
        assert 1 == b.call("get", "one")
        a.call(hang_at_tags)
        a.workers[0].begin(how, "one")
        _held["reached"].wait()
        # It has not returned, and Redis has the old copy: so it may be read, and is kept here.
        assert [(1, "remote"), (1, "local")] == [a.workers[1].call(tier, "one") for _ in range(2)]
        a.workers[0].kill()
        del a.workers[0]
        for host in (a, b):
            until(lambda host=host: host.call(tier, "one") is None)
        stale = None if how == "delete_tags" else 1
        for host in (a, b):
            until(lambda host=host: host.call("get", "one", allow_stale=True) == stale)
            assert 2 == host.call("get", "two")
        until(lambda: a.link()["outbox_depth"] == 0)

    def test_garbage(self, make_host: MakeHost, server: RedisServer) -> None:
        """What nobody can read on the channel is counted, and the log asked."""
        a = make_host(LASTING, redis=server.url)
        a.call(mset_tagged, {"one": 1})
        until(lambda: a.count("invalidation_receive") >= 1)
        for kind, tags in ((4, [b"t" * 256]), (5, []), (4, ["text"]), (6, [b"tag"])):
            body = msgpack.packb([kind, tags, [0] * len(tags)], use_bin_type=True)
            data = b"1 %s 7 %s" % (ORIGIN.hex().encode(), body)
            hosts.publish(server, a.names().channel, data)
        until(lambda: a.count("receive_error_decode") == 4)
        assert (1, "local") == a.call(tier, "one")
        assert 0 == a.count("flush")

    def test_large(self, make_host: MakeHost) -> None:
        """More tags than one message has, at a time."""
        a, b = make_host(LASTING), make_host(LASTING)
        a.call("set", "key", 1, tags=["299"])
        assert 1 == b.call("get", "key")
        a.call("delete_tags", *map(str, range(300)))
        until(lambda: b.call(tier, "key") is None)
        assert 3 == a.count("invalidation_publish") - 1


def lose(proxy: FaultProxy, change: Callable[[], object]) -> None:
    """Have a change be lost on its way; other connections are fine when it has returned."""
    proxy.mode("half_open")
    change()
    proxy.mode("pass")


class TestQueued:
    """Deletes by tag that Redis has not taken."""

    @pytest.fixture
    def host(self, proxy: FaultProxy, namespace: str) -> Iterator[testing.Isolated]:
        """A host whose way to Redis can be cut."""
        with testing.isolated(redis=proxy.url, namespace=namespace) as own:
            yield own

    @pytest.fixture
    def area(self, host: testing.Isolated) -> LevelCache[Any, Any]:
        """An area in step, with values in both tiers."""
        made: LevelCache[Any, Any] = LevelCache("area", stale_ttl=60)
        made.peek("key")
        until(lambda: made.diagnostic_snapshot()["invalidation_listener_started"])
        made.set("key", "old", tags=["red"])
        made.set("other", "other", tags=["green"])
        return made

    def other(self, server: RedisServer, namespace: str, clients: Any) -> Any:
        """Another host's view of Redis."""
        return clients.connect(server.url, namespace=namespace)

    def known(self, backend: Any, key: str) -> Any:
        (found,) = backend.get("area", [encode_key(key)])
        return found

    @pytest.mark.parametrize("how", ["delete_tags", "expire_tags"])
    def test_sent(
        self,
        host: testing.Isolated,
        proxy: FaultProxy,
        server: RedisServer,
        area: LevelCache[Any, Any],
        namespace: str,
        clients: Any,
        how: str,
    ) -> None:
        """No reader of the host is given the old copy meanwhile; then it is sent as what it is."""
        other = self.other(server, namespace, clients)
        lose(proxy, lambda: getattr(area, how)("red"))
        assert 1 == host.memory.link()["outbox_depth"]
        host.memory.clear_all()  # what is here is read from Redis, if it may be
        while host.memory.link()["outbox_depth"]:
            assert area.get("key") is None
        assert area.get("key") is None
        found = self.known(other, "key")
        assert (found is None) == (how == "delete_tags")
        assert found is None or found.expired
        assert 0 < area.metrics_snapshot()["l2_skipped"]
        until(lambda: area.get("other") == "other")  # once Redis has settled

    def test_raised(
        self, host: testing.Isolated, proxy: FaultProxy, area: LevelCache[Any, Any]
    ) -> None:
        """A caller that wants to know is told, and it is queued all the same."""
        proxy.mode("half_open")
        with pytest.raises(BackendError) as caught:
            area.delete_tags("red", on_error="raise")
        assert caught.value.queued
        assert area.get("key") is None
        proxy.mode("pass")
        until(lambda: host.memory.link()["outbox_depth"] == 0)
        assert area.get("key") is None

    def test_set_meanwhile(
        self, host: testing.Isolated, proxy: FaultProxy, area: LevelCache[Any, Any]
    ) -> None:
        """What is set while the delete is queued is there on this host at once."""
        lose(proxy, lambda: area.delete_tags("red"))
        area.set("key", "new", tags=["red"])
        assert "new" == area.get("key")
        until(lambda: host.memory.link()["outbox_depth"] == 0)
        assert area.get("key") in {"new", None}

    def test_decided(
        self, host: testing.Isolated, proxy: FaultProxy, area: LevelCache[Any, Any]
    ) -> None:
        """Redis decides nothing on what it does not know yet to be dead."""
        area.set("count", 5, tags=["red"])
        lose(proxy, lambda: area.delete_tags("red"))
        answers: list[Any] = []

        def is_counted() -> bool:
            try:
                answers.append(area.incr("count"))
            except BackendError:
                return False
            return True

        until(is_counted)
        assert [1] == answers

    @pytest.mark.parametrize("queued", ["tag", "key"])
    def test_decided_before_it_is_heard_of(
        self, host: testing.Isolated, proxy: FaultProxy, area: LevelCache[Any, Any], queued: str
    ) -> None:
        """Nor when it is back after a long time, and asked before anything else has reached it."""
        lose(proxy, lambda: area.delete_tags("red") if queued == "tag" else area.delete("key"))
        proxy.mode("refuse")
        proxy.drop()
        runtime.current().second._listener.stop()  # type: ignore[union-attr]
        until(lambda: 2.0 < host.memory.confirmed_age())
        proxy.mode("pass")
        with pytest.raises(BackendError, match="not yet been told"):
            area.add("key", "new")
        runtime.current().second._listener.start()  # type: ignore[union-attr]
        until(lambda: host.memory.outbox_unsent("area") == frozenset())
        assert area.add("key", "new")

    def test_overflow(
        self, host: testing.Isolated, proxy: FaultProxy, area: LevelCache[Any, Any]
    ) -> None:
        """More than the outbox holds is a clear of the area."""
        proxy.mode("refuse")
        runtime.current().second._listener.stop()  # type: ignore[union-attr]
        for number in range(5_000):
            note = area._note_tag(b"%d" % number, local.NOTE_FORGET_TAG)
            host.memory.outbox_settle(note, False)
        assert None is host.memory.outbox_unsent("area")
        proxy.mode("pass")
        runtime.current().second._listener.start()  # type: ignore[union-attr]
        until(lambda: host.memory.outbox_unsent("area") == frozenset())
        host.memory.clear_all()
        assert area.get("other") is None

    def test_only_its_copies(self, host: testing.Isolated, area: LevelCache[Any, Any]) -> None:
        """Copies with other tags are read from Redis while a delete by tag is queued."""
        second = runtime.current().second
        assert second is not None
        second._listener.stop()  # else it is sent at once
        second._listener.start = lambda: None  # type: ignore[method-assign]
        note = area._note_tag(b"red", local.NOTE_FORGET_TAG)
        host.memory.outbox_settle(note, False)
        host.memory.clear_all()
        assert {"key": "gone", "other": "other"} == area.mget(["key", "other"], "gone")
        assert 1 <= area.metrics_snapshot()["l2_skipped"]
