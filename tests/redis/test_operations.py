"""Every operation against a real server, for threads and for a loop."""

import re
import time
from collections.abc import Callable
from typing import Any

import msgpack
import pytest
import redis

from accelerator import message
from accelerator.codec import CODE_BYTES, CODE_INT
from accelerator.local import encode_key
from accelerator.remote import Change, Fill, Opened, RedisRemote, seal, unseal
from accelerator.remote.plans import READ_CHUNK, WRITE_CHUNK

ORIGIN = bytes(range(16))
INT64_MAX, INT64_MIN = (1 << 63) - 1, -(1 << 63)
AREA = "users"


def sealed(text: str = "value", **more: Any) -> Any:
    return seal(CODE_BYTES, text.encode(), **more)


def number(value: int) -> Any:
    return seal(CODE_INT, value.to_bytes(8, "little", signed=True))


def change(key: Any, value: Any = None, life: float | None = 60.0, note: int = 0) -> Change:
    return Change(encode_key(key), value, life, note)


def put(backend: Any, key: Any, value: Any = None, life: float | None = 60.0) -> None:
    backend.write(AREA, message.SET, [change(key, value or sealed(), life)], ORIGIN)


def forget(backend: Any, *keys: Any) -> Any:
    return backend.write(AREA, message.FORGET, [change(key) for key in keys], ORIGIN)


def read(backend: Any, key: Any) -> Opened | None:
    (found,) = backend.get(AREA, [encode_key(key)])
    return None if found is None else unseal(found.blob, limit=1 << 20)


def fresh_left(backend: Any, key: Any) -> float | None:
    (found,) = backend.get(AREA, [encode_key(key)])
    return unseal(found.blob, limit=1 << 20).fresh_left(found.left)


def text(backend: Any, key: Any) -> str | None:
    found = read(backend, key)
    return None if found is None else found.payload.decode()


def told(backend: Any) -> list[tuple[int, int, list[bytes], list[int]]]:
    """Everything in the log: number (counted from 1), kind, keys, notes."""
    found: list[Any] = []
    entries = backend.log(AREA, 0, None, 1000)
    for seq, packed in entries:
        version, origin, said, body = packed.split(b" ", 3)
        assert (b"1", ORIGIN.hex().encode(), seq) == (version, origin, int(said))
        found.append((seq - entries[0][0] + 1, *msgpack.unpackb(body)))
    return found


def tenths_of_milliseconds() -> int:
    """What a counter that is not there starts at."""
    return int(time.time() * 10_000)


@pytest.fixture
def names(backend: Any) -> Any:
    plans = backend._backend.plans if not isinstance(backend, RedisRemote) else backend.plans
    return plans.names(AREA)


class TestReads:
    def test_absent(self, backend: Any) -> None:
        """What is not there is None, each on its own."""
        put(backend, "b")
        a, b, c = backend.get(AREA, [encode_key(key) for key in "abc"])
        assert [None, None] == [a, c]
        assert b is not None

    def test_life(self, backend: Any) -> None:
        """What is left of a life comes along; without expiry it is None."""
        put(backend, "a", sealed(stale=5.0), 10.0)
        (found,) = backend.get(AREA, [encode_key("a")])
        assert 14.0 < found.left <= 15.0
        put(backend, "a", sealed(), None)
        (found,) = backend.get(AREA, [encode_key("a")])
        assert None is found.left

    def test_ends(self, backend: Any) -> None:
        """A value ends with its life."""
        put(backend, "a", sealed(), 0.03)
        deadline = time.monotonic() + 5.0
        while read(backend, "a") is not None:
            assert time.monotonic() < deadline
        assert None is read(backend, "a")

    def test_many(self, backend: Any) -> None:
        """A batch of any size answers in order."""
        keys = list(range(2 * READ_CHUNK + 3))
        changes = [change(key, sealed(str(key))) for key in keys if key % 2]
        backend.write(AREA, message.SET, changes, ORIGIN)
        found = backend.get(AREA, [encode_key(key) for key in keys])
        expected = [str(key).encode() if key % 2 else None for key in keys]
        assert expected == [each and unseal(each.blob, limit=99).payload for each in found]

    def test_nothing(self, backend: Any) -> None:
        """An empty batch asks nothing."""
        assert [] == backend.get(AREA, [])
        assert [] == backend.lease(AREA, [], 1.0)
        assert [] == backend.fill(AREA, [])
        assert (0, 0) == backend.write(AREA, message.FORGET, [], ORIGIN)
        assert 0 == backend.expire(AREA, [], [], ORIGIN)

    def test_foreign(self, backend: Any, raw: Any, names: Any) -> None:
        """Bytes that are no envelope are handed out, for the reader to count."""
        put(backend, "b")  # there is a generation
        raw.set(names.value(encode_key("a")), b"garbage")
        (found,) = backend.get(AREA, [encode_key("a")])
        assert b"garbage" == found.blob


class TestWrites:
    def test_set(self, backend: Any) -> None:
        """A value that was set is read; the answer says how many were there."""
        changes = [change(1, sealed("one"), note=5), change(2, sealed("two"), note=6)]
        first, absent = backend.write(AREA, message.SET, changes, ORIGIN)
        second, found = backend.write(AREA, message.SET, changes, ORIGIN)
        assert (1, 0, 2) == (second - first, absent, found)
        assert ["one", "two"] == [text(backend, 1), text(backend, 2)]
        keys = [encode_key(1), encode_key(2)]
        assert [(1, message.SET, keys, [5, 6]), (2, message.SET, keys, [5, 6])] == told(backend)

    def test_delete(self, backend: Any) -> None:
        """A delete counts what was there, stale copies too, and tells of all keys."""
        put(backend, "fresh")
        put(backend, "stale", sealed(stale=60.0))
        backend.expire(AREA, [encode_key("stale")], [0], ORIGIN)
        assert 2 == forget(backend, "fresh", "stale", "absent").found
        assert [None, None] == [read(backend, "fresh"), read(backend, "stale")]
        assert [b"sfresh", b"sstale", b"sabsent"] == told(backend)[-1][2]

    def test_large_batch(self, backend: Any) -> None:
        """A batch beyond what one script may take is several of them, each told."""
        changes = [change(key, sealed()) for key in range(2 * WRITE_CHUNK + 1)]
        last, found = backend.write(AREA, message.SET, changes, ORIGIN)
        assert (0, 2) == (found, last - backend.log(AREA, 0, None, 1)[0][0])
        assert [128, 128, 1] == [len(keys) for _, _, keys, _ in told(backend)]
        assert 257 == backend.write(AREA, message.FORGET, changes, ORIGIN).found

    def test_large_values(self, backend: Any) -> None:
        """A script takes no more than a few MiB at a time."""
        changes = [change(key, seal(CODE_BYTES, bytes(1 << 20))) for key in range(10)]
        last, found = backend.write(AREA, message.SET, changes, ORIGIN)
        assert (0, 2) == (found, last - backend.log(AREA, 0, None, 1)[0][0])

    def test_unheard(self, backend: Any) -> None:
        """Without broadcast nobody is told, and no number is used."""
        changes = [change("a", sealed())]
        assert (0, 0) == backend.write(AREA, message.SET, changes, ORIGIN, broadcast=False)
        assert "value" == text(backend, "a")
        assert [] == told(backend)

    def test_published(self, backend: Any, raw: Any, names: Any) -> None:
        """What is in the log has been published, byte for byte."""
        with raw.pubsub() as heard:
            heard.subscribe(names.channel)
            assert "subscribe" == heard.get_message(timeout=5)["type"]
            put(backend, "a")
            published = heard.get_message(timeout=5)["data"]
        assert [published] == [packed for _, packed in backend.log(AREA, 0, None, 10)]

    def test_areas(self, backend: Any) -> None:
        """The same key in another area, and another namespace, is another value."""
        put(backend, "a")
        assert [None] == backend.get("others", [encode_key("a")])

    def test_namespaces(self, flavour: Callable[..., Any], url: str) -> None:
        """Two namespaces on one server know nothing of each other."""
        one, other = flavour(url), flavour(url)
        put(one, "a", sealed("one"))
        put(other, "a", sealed("other"))
        other.clear(AREA, 0, ORIGIN)
        assert ["one", None] == [text(one, "a"), text(other, "a")]


class TestExpire:
    def test_stale(self, backend: Any) -> None:
        """The fresh life ends, the stale copy stays to its end."""
        put(backend, "a", sealed(stale=100.0), 60.0)
        assert 1 == backend.expire(AREA, [encode_key("a")], [4], ORIGIN)
        found = read(backend, "a")
        assert found is not None
        assert (True, b"value") == (found.expired, found.payload)
        assert 0.0 == fresh_left(backend, "a")
        (stored,) = backend.get(AREA, [encode_key("a")])
        assert 150.0 < stored.left <= 160.0
        assert (2, message.EXPIRE, [b"sa"], [4]) == told(backend)[-1]

    def test_again(self, backend: Any) -> None:
        """Only a fresh one counts; all are told."""
        put(backend, "a", sealed(stale=100.0))
        keys = [encode_key("a"), encode_key("b")]
        assert [1, 0] == [backend.expire(AREA, keys, [0, 0], ORIGIN) for _ in range(2)]
        assert keys == told(backend)[-1][2]

    @pytest.mark.parametrize(("stale", "life"), [(0.0, 60.0), (60.0, None)])
    def test_nothing_stays(self, backend: Any, stale: float, life: float | None) -> None:
        """Without a stale life, or an end of the fresh one, the key goes."""
        put(backend, "a", sealed(stale=stale), life)
        assert 1 == backend.expire(AREA, [encode_key("a")], [0], ORIGIN)
        assert None is read(backend, "a")


class TestClear:
    def test_all(self, backend: Any) -> None:
        """Everything of the area is gone, and told once; others stay."""
        put(backend, "a")
        backend.write("others", message.SET, [change("a", sealed())], ORIGIN)
        backend.clear(AREA, 9, ORIGIN)
        assert None is read(backend, "a")
        assert [None] != backend.get("others", [encode_key("a")])
        assert (2, message.CLEAR, [], [9]) == told(backend)[-1]

    def test_afterwards(self, backend: Any) -> None:
        """What is set afterwards is there; what was there before counts as absent."""
        put(backend, "a")
        put(backend, "n", number(5))
        backend.clear(AREA, 0, ORIGIN)
        assert 0 == forget(backend, "a").found
        assert None is backend.incr(AREA, encode_key("n"), 1, None, 0, ORIGIN)
        assert backend.add(AREA, change("n", number(1)), ORIGIN)
        put(backend, "a")
        assert "value" == text(backend, "a")

    def test_load(self, backend: Any) -> None:
        """What was loaded before a clear is not read after it."""
        (lease,) = backend.lease(AREA, [encode_key("a")], 30.0)
        backend.clear(AREA, 0, ORIGIN)
        backend.fill(AREA, [Fill(encode_key("a"), sealed(), 60.0, lease)])
        assert None is read(backend, "a")


class TestAdd:
    def test_once(self, backend: Any) -> None:
        """Only the first one is stored, and only that is told."""
        assert backend.add(AREA, change("a", sealed("first"), note=3), ORIGIN)
        assert not backend.add(AREA, change("a", sealed("second")), ORIGIN)
        assert "first" == text(backend, "a")
        assert [(1, message.SET, [b"sa"], [3])] == told(backend)

    def test_stale(self, backend: Any) -> None:
        """A stale copy, or one of another version, counts as absent."""
        put(backend, "a", sealed(stale=60.0))
        backend.expire(AREA, [encode_key("a")], [0], ORIGIN)
        assert backend.add(AREA, change("a", sealed("new")), ORIGIN)
        assert "new" == text(backend, "a")
        assert backend.add(AREA, change("a", sealed("newer", fingerprint=1)), ORIGIN)

    def test_short_stale(self, backend: Any) -> None:
        """A copy whose fresh life has run out by itself counts as absent, too."""
        put(backend, "a", sealed(stale=60.0), 0.001)
        deadline = time.monotonic() + 5.0
        while not backend.add(AREA, change("a", sealed("new")), ORIGIN):
            assert time.monotonic() < deadline
        assert "new" == text(backend, "a")


class TestTouch:
    def test_fresh(self, backend: Any) -> None:
        """A fresh value gets its new life, fresh and stale, and that is told."""
        put(backend, "a", sealed(stale=5.0), 10.0)
        assert backend.touch(AREA, encode_key("a"), 100.0, 50.0, 2, ORIGIN)
        (found,) = backend.get(AREA, [encode_key("a")])
        assert 149.0 < found.left <= 150.0
        left = fresh_left(backend, "a")
        assert left is not None
        assert 99.0 < left <= 100.0
        assert (2, message.SET, [b"sa"], [2]) == told(backend)[-1]

    def test_for_ever(self, backend: Any) -> None:
        """A life without end."""
        put(backend, "a", sealed(), 10.0)
        assert backend.touch(AREA, encode_key("a"), None, 0.0, 0, ORIGIN)
        assert None is fresh_left(backend, "a")

    def test_absent(self, backend: Any) -> None:
        """Absent, stale and of another version: nothing changes, nothing is told."""
        assert not backend.touch(AREA, encode_key("a"), 9.0, 0.0, 0, ORIGIN)
        put(backend, "a", sealed(stale=60.0))
        assert not backend.touch(AREA, encode_key("a"), 9.0, 0.0, 0, ORIGIN, fingerprint=1)
        assert backend.touch(AREA, encode_key("a"), 9.0, 60.0, 0, ORIGIN, fingerprint=0)
        backend.expire(AREA, [encode_key("a")], [0], ORIGIN)
        assert not backend.touch(AREA, encode_key("a"), 9.0, 0.0, 0, ORIGIN)
        assert 3 == len(told(backend))


class TestIncr:
    def incr(self, backend: Any, delta: int, initial: int | None = None, note: int = 0) -> Any:
        begin = None if initial is None else change("n", number(initial), 60.0)
        return backend.incr(AREA, encode_key("n"), delta, begin, note, ORIGIN)

    def test_absent(self, backend: Any) -> None:
        """An absent one stays so, or begins as it is told and is added to."""
        assert None is self.incr(backend, 1)
        assert [] == told(backend)
        assert 42 == self.incr(backend, 2, 40, note=7)
        assert [(1, message.SET, [b"sn"], [7])] == told(backend)
        found = read(backend, "n")
        assert found is not None
        assert (CODE_INT, (42).to_bytes(8, "little")) == (found.code, found.payload)

    def test_life(self, backend: Any) -> None:
        """A present one keeps its life."""
        put(backend, "n", number(1), 30.0)
        assert 2 == self.incr(backend, 1, 100)
        left = fresh_left(backend, "n")
        assert left is not None
        assert 29.0 < left <= 30.0

    @pytest.mark.parametrize(
        ("start", "delta"),
        [
            (INT64_MAX - 1, 1),
            (INT64_MIN + 1, -1),
            (INT64_MAX, INT64_MIN),
            (0, INT64_MIN),
            (0, INT64_MAX),
            ((1 << 53) + 1, 2),
        ],
    )
    def test_edges(self, backend: Any, start: int, delta: int) -> None:
        """64 bits are exact, also where floats are not."""
        assert start + delta == self.incr(backend, delta, start)
        put(backend, "n", number(start))
        assert start + delta == self.incr(backend, delta)

    @pytest.mark.parametrize(("start", "delta"), [(INT64_MAX, 1), (INT64_MIN, -1)])
    def test_overflow(self, backend: Any, start: int, delta: int) -> None:
        """Past 64 bits: an error, the number stays, nothing is told."""
        put(backend, "n", number(start))
        with pytest.raises(OverflowError):
            self.incr(backend, delta)
        found = read(backend, "n")
        assert found is not None
        assert start == int.from_bytes(found.payload, "little", signed=True)
        assert 1 == len(told(backend))

    @pytest.mark.parametrize("delta", [INT64_MAX + 1, INT64_MIN - 1])
    def test_large_delta(self, backend: Any, delta: int) -> None:
        """What is added must fit, too."""
        with pytest.raises(OverflowError):
            self.incr(backend, delta, 0)

    def test_no_int(self, backend: Any) -> None:
        """Another type is refused and stays, be it text of digits."""
        put(backend, "n", sealed("17"))
        with pytest.raises(TypeError):
            self.incr(backend, 1)
        assert "17" == text(backend, "n")

    def test_damaged(self, backend: Any, raw: Any, names: Any) -> None:
        """A number that was damaged is no int, and no trace of the attempt is left."""
        put(backend, "n", number(17))
        raw.append(names.value(encode_key("n")), b"x")
        with pytest.raises(TypeError):
            self.incr(backend, 1)
        assert [] == raw.keys("*:n")


class TestLease:
    def fill(self, backend: Any, key: Any, lease: Any, value: str = "loaded") -> bool:
        (stored,) = backend.fill(AREA, [Fill(encode_key(key), sealed(value), 60.0, lease)])
        assert isinstance(stored, bool)
        return stored

    def test_fill(self, backend: Any) -> None:
        """What was loaded under a lease is stored, with its life, and not told."""
        (lease,) = backend.lease(AREA, [encode_key("a")], 30.0)
        assert self.fill(backend, "a", lease)
        left = fresh_left(backend, "a")
        assert left is not None
        assert 59.0 < left <= 60.0
        assert [] == told(backend)

    def test_shared(self, backend: Any) -> None:
        """Hosts that load at the same time share a lease, and each may store."""
        (mine,) = backend.lease(AREA, [encode_key("a")], 30.0)
        (other,) = backend.lease(AREA, [encode_key("a")], 30.0)
        assert mine == other
        assert [True, True] == [self.fill(backend, "a", mine), self.fill(backend, "a", other)]

    def test_longest(self, backend: Any, raw: Any, names: Any) -> None:
        """A shared lease lives as long as the longest of the loads, never shorter."""
        lives = []
        for seconds in (10.0, 100.0, 10.0):
            backend.lease(AREA, [encode_key("a")], seconds)
            lives.append(raw.pttl(names.value(encode_key("a")) + ":l") > 50_000)
        assert [False, True, True] == lives

    @pytest.mark.parametrize("what", ["set", "delete", "expire", "touch", "add", "incr"])
    def test_overtaken(self, backend: Any, what: str) -> None:
        """A load that began before an explicit write of its key is refused."""
        key = encode_key("a")
        if what in {"expire", "touch", "incr"}:
            put(backend, "a", number(1) if what == "incr" else sealed(stale=60.0))
        (lease,) = backend.lease(AREA, [key], 30.0)
        {
            "set": lambda: put(backend, "a"),
            "delete": lambda: forget(backend, "a"),
            "expire": lambda: backend.expire(AREA, [key], [0], ORIGIN),
            "touch": lambda: backend.touch(AREA, key, 9.0, 0.0, 0, ORIGIN),
            "add": lambda: backend.add(AREA, change("a", sealed()), ORIGIN),
            "incr": lambda: backend.incr(AREA, key, 1, None, 0, ORIGIN),
        }[what]()
        before = read(backend, "a")
        assert not self.fill(backend, "a", lease)
        assert before == read(backend, "a")

    def test_expired(self, backend: Any) -> None:
        """A lease that has run out holds no more, and its load is refused."""
        (lease,) = backend.lease(AREA, [encode_key("a")], 0.001)
        deadline = time.monotonic() + 5.0
        while self.fill(backend, "a", lease):
            assert time.monotonic() < deadline
        assert not self.fill(backend, "a", lease)

    def test_batch(self, backend: Any) -> None:
        """Of a batch the overtaken keys are refused, and no other."""
        keys = list(range(READ_CHUNK + 5))
        leases = backend.lease(AREA, [encode_key(key) for key in keys], 30.0)
        assert len(keys) == len({lease.token for lease in leases})
        forget(backend, 3, 200)
        fills = [
            Fill(encode_key(key), sealed(), 60.0, lease)
            for key, lease in zip(keys, leases, strict=True)
        ]
        assert [key not in {3, 200} for key in keys] == backend.fill(AREA, fills)


class TestListener:
    def test_beat(self, backend: Any, raw: Any) -> None:
        """A heartbeat names the areas' last numbers, and comes back on the host's channel."""
        put(backend, "a")
        put(backend, "a")
        with raw.pubsub() as heard:
            heard.subscribe("host")
            assert "subscribe" == heard.get_message(timeout=5)["type"]
            before = tenths_of_milliseconds()
            replication, seqs = backend.beat([AREA, "others"], "host", 7)
            published = heard.get_message(timeout=5)["data"]
        assert backend.log(AREA, 0, None, 10)[-1][0] == seqs[0]
        assert before <= seqs[1] <= tenths_of_milliseconds()
        assert seqs == backend.beat([AREA, "others"], "host", 8)[1]
        if isinstance(raw, redis.RedisCluster):
            assert re.fullmatch("[0-9a-f]{40}", replication)
        else:
            assert raw.info("replication")["master_replid"] == replication
        assert f"1 H 7 {replication} {seqs[0]} {seqs[1]}".encode() == published

    def test_no_areas(self, backend: Any) -> None:
        """A heartbeat of a host without areas is one, too."""
        assert [] == backend.beat([], "host", 1)[1]

    def test_log(self, backend: Any) -> None:
        """A part of the log is read by number, and no more than asked for."""
        first, second, third, fourth, last = [forget(backend, "a").seq for _ in range(5)]
        middle = backend.log(AREA, second, fourth, 10)
        assert [second, third, fourth] == [seq for seq, _ in middle]
        assert [second, third] == [seq for seq, _ in backend.log(AREA, second, None, 2)]
        assert [] == backend.log(AREA, last + 1, None, 10)
        assert 4 == last - first

    def test_connection(self, clients: Any, url: str) -> None:
        """A connection of the listener's own is authenticated and speaks RESP2."""
        connection = clients.connect(url).connection()
        try:
            connection.send_command("SUBSCRIBE", "a")
            assert [b"subscribe", b"a", 1] == connection.read_response()
        finally:
            connection.disconnect()


class TestEviction:
    """Redis may evict any key, those of control as well."""

    def test_generation(self, backend: Any, raw: Any, names: Any) -> None:
        """Without the generation nothing is known, and a new one never is an old one."""
        put(backend, "a")
        raw.delete(names.gen)
        assert None is read(backend, "a")
        put(backend, "b")
        assert [None, "value"] == [text(backend, "a"), text(backend, "b")]

    def test_number(self, backend: Any, raw: Any, names: Any) -> None:
        """A number that was lost starts far above all that were given, and so does the log."""
        last = [forget(backend, "a").seq for _ in range(3)][-1]
        time.sleep(0.01)
        raw.delete(names.seq)
        before = tenths_of_milliseconds()
        after = forget(backend, "b").seq
        assert last < before <= after
        assert after == backend.log(AREA, 0, None, 10)[-1][0]

    def test_number_back(self, backend: Any, raw: Any, names: Any) -> None:
        """When the number went back, the log begins anew: it holds nothing of another time."""
        for _ in range(3):
            forget(backend, "a")
        raw.set(names.seq, 100)
        assert 101 == forget(backend, "b").seq
        assert [(1, message.FORGET, [b"sb"], [0])] == told(backend)

    def test_log(self, backend: Any, raw: Any, names: Any) -> None:
        """Without the log the number goes on."""
        last = [forget(backend, "a").seq for _ in range(3)][-1]
        raw.delete(names.log)
        assert last + 1 == forget(backend, "b").seq
        assert [last + 1] == [seq for seq, _ in backend.log(AREA, 0, None, 10)]

    def test_lease(self, backend: Any, raw: Any, names: Any) -> None:
        """Without its lease a load is refused."""
        (lease,) = backend.lease(AREA, [encode_key("a")], 30.0)
        raw.delete(names.value(encode_key("a")) + ":l")
        assert [False] == backend.fill(AREA, [Fill(encode_key("a"), sealed(), 60.0, lease)])

    def test_foreign_log(self, backend: Any, raw: Any, names: Any) -> None:
        """A log that is none is replaced."""
        raw.set(names.log, b"garbage")
        seq = forget(backend, "a").seq
        assert [seq] == [found for found, _ in backend.log(AREA, 0, None, 10)]
