"""Values that carry tags, and what goes with a tag."""

import itertools
import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from accelerator import codec
from accelerator.process_local import (
    ADD,
    FILL,
    FORCE,
    JOIN,
    NOT_STORED,
    NOTE_EXPIRE_TAG,
    NOTE_FORGET,
    NOTE_FORGET_TAG,
    RESULT_HANDED,
    RESULT_STORED,
    SET,
    STORED,
    TAG_SIZE_MAX,
    TAGS_MAX,
)

LEASE = 30.0
VALUES = ["text", b"bytes", 5, 2.5, True, None, ["a", 1], (1, "tuple")]


def store(cache: Any, key: Any, *tags: bytes, value: Any = "value", **options: Any) -> int:
    """Store a value that is fresh for 60 seconds, and for *stale* more usable."""
    stale = options.pop("stale", 0.0)
    mode, token = options.pop("mode", SET), options.pop("token", None)
    encoded = codec.encode(value)
    return int(cache._store(key, *encoded, 60.0, stale, mode, token, tags=tags, **options))


def put(cache: Any, key: Any, *tags: bytes, **options: Any) -> None:
    assert STORED == store(cache, key, *tags, **options)


def fill(flight: Any, *tags: bytes, value: Any = "value") -> int:
    return int(flight.finish(*codec.encode(value), 60.0, 0.0, tags=tags))


def delete(cache: Any, *tags: bytes) -> None:
    cache._delete_tags(tags)


def expire(cache: Any, *tags: bytes) -> None:
    cache._expire_tags(tags)


OBJECTS = pytest.mark.parametrize("objects", ["auto", "shared", "copy"])
OPERATIONS = pytest.mark.parametrize("operate", [delete, expire])

in_child = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork() here")


class Child:
    """A process that answers what it reads, when it is asked."""

    def __init__(self, work: Callable[[], Any]) -> None:
        asked, self._ask = os.pipe()
        self._answers, answer = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            try:
                os.close(self._ask)
                while os.read(asked, 1):
                    os.write(answer, repr(work()).encode() + b"\n")
            finally:
                os._exit(0)
        os.close(asked)
        os.close(answer)
        self._lines = os.fdopen(self._answers, encoding="utf-8")

    def ask(self) -> str:
        os.write(self._ask, b".")
        return self._lines.readline().strip()

    def end(self) -> None:
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        os.close(self._ask)
        self._lines.close()


class TestDeleted:
    @OBJECTS
    @pytest.mark.parametrize("value", VALUES, ids=repr)
    def test_every_read(self, make: Any, objects: str, value: Any) -> None:
        """A value with a deleted tag is gone for every way of reading, also as an object."""
        cache = make(objects=objects)
        for times in range(3):  # read as often, so that it is remembered in every way there is
            put(cache, "key", b"tag", value=value)
            put(cache, "other", b"another", value=value)
            for _ in range(times):
                assert (value, value) == (cache.get("key", 0), cache.mget(["key"])["key"])
            delete(cache, b"tag")
            assert cache.get("key", "gone") == "gone"
            assert {"key": "gone", "other": value} == cache.mget(["key", "other"], "gone")
            assert "key" not in cache
            assert cache.get_entry("key") is None
            assert cache.peek("key", "gone") == "gone"
            assert cache._read("key", stale=True) is None
            assert cache.get("other", "gone") == value

    @pytest.mark.parametrize("n", range(TAGS_MAX))
    def test_any_of_them(self, cache: Any, n: int) -> None:
        """One of its tags is enough."""
        tags = [b"%d" % i for i in range(TAGS_MAX)]
        put(cache, "key", *tags)
        delete(cache, b"unknown")
        assert cache.get("key") == "value"
        delete(cache, b"unknown", tags[n])
        assert cache.get("key") is None

    def test_stale_copy(self, cache: Any) -> None:
        """Its stale copy is gone, too."""
        put(cache, "key", b"tag", stale=60.0)
        delete(cache, b"tag")
        assert cache._read("key", stale=True) is None

    def test_stored_after(self, cache: Any) -> None:
        """What is stored behind it stays, with the same tag, until the next time."""
        for value in ("a", "b", "c"):
            delete(cache, b"tag")
            put(cache, "key", b"tag", value=value)
            assert cache.get("key") == value

    def test_untagged(self, cache: Any) -> None:
        """A value without tags is not concerned; nor is one that has replaced a tagged one."""
        cache.set("plain", "value")
        put(cache, "key", b"tag")
        cache.set("key", "replaced")
        delete(cache, b"tag")
        assert ["value", "replaced"] == list(cache.mget(["plain", "key"]).values())

    def test_area(self, make: Any) -> None:
        """A tag belongs to its area."""
        ours, theirs = make("ours"), make("theirs")
        put(ours, "key", b"tag")
        put(theirs, "key", b"tag")
        delete(ours, b"tag")
        assert (None, "value") == (ours.get("key"), theirs.get("key"))

    def test_many_values(self, cache: Any) -> None:
        """All of them go, and no other."""
        for i in range(500):
            put(cache, i, b"even" if i % 2 == 0 else b"odd")
        delete(cache, b"even")
        assert [i % 2 == 1 for i in range(500)] == [i in cache for i in range(500)]

    def test_rewritten(self, make: Any) -> None:
        """A key that is rewritten where it lies has the tags of its last value."""
        cache = make(objects="shared")
        for n, tags in enumerate(itertools.cycle([(b"a",), (), (b"b", b"a"), (b"b",)])):
            put(cache, "key", *tags, value=[n])
            assert cache.get("key") == [n]
            delete(cache, b"c")
            assert cache.get("key") == [n]
            if n % 7 == 6:
                delete(cache, b"a")
                assert cache.get("key") == (None if b"a" in tags else [n])
            if n > 60:
                break


class TestExpired:
    def test_stale_copy(self, make: Any) -> None:
        """The fresh life is over for every way of reading, the stale copy stays."""
        cache = make(objects="shared", stale_ttl=60)
        for value in VALUES:
            put(cache, "key", b"tag", value=value, stale=60.0)
            put(cache, "other", b"another", value=value, stale=60.0)
            assert (value, value) == (cache.get("key", 0), cache.get("key", 0))
            expire(cache, b"tag")
            assert cache.get("key", "gone") == "gone"
            assert {"key": "gone", "other": value} == cache.mget(["key", "other"], "gone")
            assert "key" not in cache
            found, _, _, ttl, is_stale, _ = cache._read("key", stale=True)
            assert (value, True) == (found, is_stale)
            assert ttl is not None
            assert ttl <= 0

    def test_no_stale_life(self, cache: Any) -> None:
        """What has no stale life is gone."""
        put(cache, "key", b"tag")
        assert STORED == cache._store("lasting", *codec.encode(1), None, 0.0, tags=[b"tag"])
        expire(cache, b"tag")
        assert cache._read("key", stale=True) is None
        assert cache._read("lasting", stale=True) is None

    def test_end_of_stale_life(self, cache: Any, clock: Any) -> None:
        """The stale life ends when it would have."""
        put(cache, "key", b"tag", stale=60.0)
        expire(cache, b"tag")
        clock.advance(119)
        assert cache._read("key", stale=True) is not None
        clock.advance(2)
        assert cache._read("key", stale=True) is None

    def test_deleted_later(self, cache: Any) -> None:
        """A delete takes the stale copy, also one of another tag; an expiry brings nothing back."""
        put(cache, "key", b"a", b"b", stale=60.0)
        expire(cache, b"a")
        delete(cache, b"b")
        expire(cache, b"b")
        assert cache._read("key", stale=True) is None

    def test_by_key(self, cache: Any) -> None:
        """An expiry of the key finds it expired, and leaves its stale copy."""
        put(cache, "key", b"tag", stale=60.0)
        expire(cache, b"tag")
        assert not cache._expire("key")
        assert cache._read("key", stale=True) is not None
        assert cache._delete("key")


class TestWrites:
    @OPERATIONS
    def test_add(self, cache: Any, operate: Any) -> None:
        """A value whose tag is gone is no reason not to add another; one that is there is."""
        put(cache, "key", b"tag", stale=60.0)
        assert NOT_STORED == store(cache, "key", b"tag", mode=ADD)
        operate(cache, b"tag")
        put(cache, "key", b"tag", value="added", mode=ADD)
        assert cache.get("key") == "added"
        operate(cache, b"tag")
        assert cache.get("key") is None

    @OPERATIONS
    def test_touch(self, cache: Any, operate: Any) -> None:
        """A touch keeps the tags, and revives nothing."""
        put(cache, "key", b"tag", stale=60.0)
        for _ in range(3):
            assert STORED == cache._touch("key", 100.0, 60.0)
        operate(cache, b"tag")
        assert cache.get("key") is None
        assert NOT_STORED == cache._touch("key", 100.0, 60.0)
        assert cache.get("key") is None

    @OPERATIONS
    def test_incr(self, cache: Any, operate: Any) -> None:
        """A counter keeps its tags; once they are gone it begins anew, without them."""
        put(cache, "n", b"tag", value=5, stale=60.0)
        for n in range(6, 10):
            assert n == cache._incr("n", 1, None, None, 0.0)
        operate(cache, b"tag")
        assert cache._incr("n", 1, None, None, 0.0) is None
        assert cache._incr("n", 1, 0, 60.0, 0.0) == 1
        operate(cache, b"tag")
        assert cache._incr("n", 1, None, None, 0.0) == 2

    @OPERATIONS
    def test_expire_keeps_tags(self, cache: Any, operate: Any) -> None:
        """The stale copy of an expired key carries its tags."""
        put(cache, "key", b"tag", stale=60.0)
        assert cache._expire("key")
        operate(cache, b"tag")
        assert (operate is expire) == (cache._read("key", stale=True) is not None)

    @OPERATIONS
    def test_delete_of_key(self, cache: Any, operate: Any) -> None:
        """A delete by key says whether anything was left."""
        put(cache, "key", b"tag", stale=60.0)
        operate(cache, b"tag")
        assert (operate is expire) == cache._delete("key")
        assert not cache._delete("key")

    @OPERATIONS
    def test_token(self, cache: Any, operate: Any) -> None:
        """A fill whose load began before is not stored, one that began behind it is."""
        token = cache._token("key")
        operate(cache, b"tag")
        assert NOT_STORED == store(cache, "key", b"tag", mode=FILL, token=token)
        assert NOT_STORED == store(cache, "key", b"tag", token=token)
        assert cache._counters()["store_rejected_race"] == 1
        put(cache, "key", b"other", mode=FILL, token=token)
        put(cache, "key", b"tag", token=cache._token("key"))
        operate(cache, b"other")
        assert cache.get("key") == "value"

    def test_begins_at_token(self, cache: Any) -> None:
        """What was stored under a token is as old as that, not as the store."""
        token = cache._token("key")
        put(cache, "key", b"tag", token=token)
        assert cache.get("key") == "value"
        delete(cache, b"tag")
        assert cache.get("key") is None


class TestLoads:
    @OPERATIONS
    @pytest.mark.parametrize("mode", [JOIN, FORCE])
    def test_enter(self, cache: Any, operate: Any, mode: int) -> None:
        """A value whose tag is gone is to be loaded."""
        put(cache, "key", b"tag", stale=60.0)
        assert cache._enter("key", LEASE, JOIN) is None
        operate(cache, b"tag")
        with cache._enter("key", LEASE, mode) as flight:
            assert STORED == fill(flight, b"tag")
        assert cache.get("key") == "value"

    @OPERATIONS
    def test_began_before(self, cache: Any, operate: Any) -> None:
        """A load that began before is not stored; who joined it before is given it, later not."""
        leader, before = cache._enter("key", LEASE), cache._enter("key", LEASE)
        operate(cache, b"tag")
        after = cache._enter("key", LEASE)
        assert NOT_STORED == fill(leader, b"tag", b"other")
        assert cache._read("key", stale=True) is None
        assert (RESULT_HANDED, RESULT_HANDED) == (before.result(), after.result())
        assert (("value",), None) == (before.take(), after.take())
        operate(cache, b"tag")
        assert (("value",), None) == (before.take(), after.take())
        assert cache._counters()["store_rejected_race"] == 1

    @OPERATIONS
    def test_other_tags(self, cache: Any, operate: Any) -> None:
        """A load whose tags were not concerned is stored, and handed to all."""
        leader, before = cache._enter("key", LEASE), cache._enter("key", LEASE)
        operate(cache, b"tag")
        after = cache._enter("key", LEASE)
        assert STORED == fill(leader, b"other")
        assert (RESULT_STORED, RESULT_STORED) == (before.result(), after.result())
        assert cache.get("key") == "value"
        operate(cache, b"other")
        assert cache.get("key") is None

    def test_handed_over(self, cache: Any) -> None:
        """hand() gives the value only to those who entered before its tag was deleted."""
        leader, before = cache._enter("key", LEASE), cache._enter("key", LEASE)
        delete(cache, b"tag")
        after = cache._enter("key", LEASE)
        leader.hand(*codec.encode("value"), tags=[b"tag"])
        assert (("value",), None) == (before.take(), after.take())
        assert "key" not in cache

    def test_handed_untagged(self, cache: Any) -> None:
        """A value without tags is handed to all."""
        leader, before = cache._enter("key", LEASE), cache._enter("key", LEASE)
        delete(cache, b"tag")
        after = cache._enter("key", LEASE)
        leader.hand(*codec.encode("value"))
        assert (("value",), ("value",)) == (before.take(), after.take())

    @OPERATIONS
    def test_alone(self, cache: Any, operate: Any) -> None:
        """So it is for a load that nobody joins."""
        flight = cache._enter_alone("key", LEASE, None)
        operate(cache, b"tag")
        assert NOT_STORED == fill(flight, b"tag")
        assert STORED == fill(cache._enter_alone("key", LEASE, None), b"tag")

    @OPERATIONS
    def test_refresh(self, cache: Any, operate: Any) -> None:
        """A refresh that is overtaken leaves what there is as the operation has left it."""
        put(cache, "key", b"tag", value="old", stale=60.0)
        leader = cache._enter("key", LEASE, FORCE)
        operate(cache, b"tag")
        assert NOT_STORED == fill(leader, b"tag")
        found = cache._read("key", stale=True)
        assert (found is not None) == (operate is expire)


class TestListener:
    @OPERATIONS
    def test_invalidate_tags(self, cache: Any, memory: Any, operate: Any) -> None:
        """What the listener is told does the same, and is not counted."""
        put(cache, "key", b"tag", stale=60.0)
        put(cache, "other", b"another")
        memory.segment.invalidate_tags("area", [b"tag", b"more"], operate is expire)
        assert (None, "value") == (cache.get("key"), cache.get("other"))
        assert (operate is expire) == (cache._read("key", stale=True) is not None)
        assert cache._counters()["tag_delete"] == 0

    def test_unknown_area(self, memory: Any) -> None:
        """An area that nobody has opened has nothing to forget."""
        memory.segment.invalidate_tags("nobody's", [b"tag"])
        with pytest.raises(TypeError):
            memory.segment.invalidate_tags("nobody's", ["tag"])

    @pytest.mark.parametrize("kind", [NOTE_FORGET_TAG, NOTE_EXPIRE_TAG])
    def test_outbox(self, cache: Any, memory: Any, kind: int) -> None:
        """Entries of tags are sent again, told apart from keys of the same bytes."""
        segment = memory.segment
        segment.register()
        for settled in (True, False):
            number = cache._note_tag(b"tag", kind)
            segment.outbox_settle(number, settled)
        key = cache._note(b"tag", NOTE_FORGET)
        segment.outbox_settle(key, False)
        assert [(number, "area", kind, b"\xfetag")] == segment.outbox_due()[:1]
        assert b"\xfetag" in segment.outbox_unsent("area")
        assert len(segment.outbox_due()) == 2
        assert [(kind, b"\xfetag")] == [each[2:] for each in segment.outbox_recent(60.0)]
        assert not segment.outbox_heard(number)

    def test_newer_speaks(self, cache: Any, memory: Any) -> None:
        """A newer delete of the tag makes older ones needless, an expiry only expiries."""
        memory.segment.register()

        def queued(kind: int) -> int:
            number = int(cache._note_tag(b"tag", kind))
            memory.segment.outbox_settle(number, False)
            return number

        first, _, last = queued(NOTE_FORGET_TAG), queued(NOTE_EXPIRE_TAG), queued(NOTE_EXPIRE_TAG)
        assert [first, last] == [number for number, *_ in memory.segment.outbox_due()]
        newest = queued(NOTE_FORGET_TAG)
        assert [newest] == [number for number, *_ in memory.segment.outbox_due()]

    def test_long_tag(self, cache: Any, memory: Any) -> None:
        """The longest tag takes several slots, and comes back whole."""
        memory.segment.register()
        tag = bytes(range(1, TAG_SIZE_MAX + 1))
        memory.segment.outbox_settle(cache._note_tag(tag, NOTE_FORGET_TAG), False)
        assert [b"\xfe" + tag] == [each[3] for each in memory.segment.outbox_due()]
        put(cache, "key", tag)
        delete(cache, tag[:-1])
        assert "key" in cache
        delete(cache, tag)
        assert "key" not in cache

    @pytest.mark.parametrize("kind", [0, 1, 2, 3, 6, -1])
    def test_kinds(self, cache: Any, kind: int) -> None:
        """A tag has kinds of its own."""
        with pytest.raises(ValueError, match="kind"):
            cache._note_tag(b"tag", kind)
        with pytest.raises(ValueError, match="kind"):
            cache._note("key", NOTE_FORGET_TAG)


class TestWrongTags:
    WRONG = pytest.mark.parametrize(
        ("tags", "error"),
        [
            ([b""], ValueError),
            ([b"x" * (TAG_SIZE_MAX + 1)], ValueError),
            (["text"], TypeError),
            ([b"good", None], TypeError),
            (b"tag", TypeError),
            ("tag", TypeError),
            (5, TypeError),
            ([bytearray(b"tag")], TypeError),
        ],
        ids=repr,
    )

    @WRONG
    def test_refused(self, cache: Any, memory: Any, tags: Any, error: Any) -> None:
        """Every call refuses them, and has done nothing."""
        put(cache, "key", b"good")
        with pytest.raises(error):
            cache._store("key", *codec.encode("new"), 60.0, 0.0, tags=tags)
        flight = cache._enter("flight", LEASE)
        with pytest.raises(error):
            flight.finish(*codec.encode("new"), 60.0, 0.0, tags=tags)
        with pytest.raises(error):
            flight.hand(*codec.encode("new"), tags=tags)
        assert STORED == fill(flight)
        for operate in (cache._delete_tags, cache._expire_tags):
            with pytest.raises(error):
                operate(tags)
        with pytest.raises(error):
            memory.segment.invalidate_tags("area", tags)
        assert cache.get("key") == "value"
        assert cache._counters()["tag_delete"] == 0

    def test_too_many(self, cache: Any) -> None:
        """A value has at most eight; an operation may name more."""
        tags = [b"%d" % i for i in range(TAGS_MAX + 1)]
        flight = cache._enter("flight", LEASE)
        with pytest.raises(ValueError, match="at most 8"):
            store(cache, "key", *tags)
        with pytest.raises(ValueError, match="at most 8"):
            fill(flight, *tags)
        put(cache, "key", *tags[:TAGS_MAX])
        assert cache.get("key") == "value"
        delete(cache, *[b"other %d" % i for i in range(10)], b"7")
        assert cache.get("key") is None

    def test_none_at_all(self, cache: Any) -> None:
        """An operation on no tags is nothing, and not counted."""
        put(cache, "key", b"tag")
        delete(cache)
        expire(cache)
        assert cache.get("key") == "value"
        assert cache._counters()["tag_delete"] == 0

    def test_counted(self, cache: Any) -> None:
        """Each tag of an operation is counted."""
        delete(cache, b"a", b"b")
        expire(cache, b"a")
        assert cache._counters()["tag_delete"] == 3


class TestRoom:
    def test_eviction(self, cache: Any, memory: Any) -> None:
        """What tags have made dead gives its room to others, and counts as no eviction."""
        payload = bytes(20_000)
        room = memory.segment.size // 2
        fit = room // (len(payload) + 1000)
        for i in range(fit):
            put(cache, i, b"old", value=payload)
        before = cache._counters()["evictions"]
        delete(cache, b"old")
        memory.segment.measure()
        assert memory.segment.stats()["areas"]["area"]["entries"] == 0
        for i in range(fit):
            put(cache, -1 - i, b"new", value=payload)
        assert before == cache._counters()["evictions"]
        assert all(-1 - i in cache for i in range(fit))

    def test_measured(self, cache: Any, memory: Any) -> None:
        """An expired value counts as long as its stale copy is usable."""
        put(cache, "stale", b"tag", stale=60.0)
        put(cache, "gone", b"tag")
        put(cache, "other", b"another")
        expire(cache, b"tag")
        memory.segment.measure()
        assert memory.segment.stats()["areas"]["area"]["entries"] == 2

    def test_collisions(self, cache: Any) -> None:
        """A neighbour in the table is hurt only if both its slots are: hardly any ever is."""
        for i in range(200):
            put(cache, i, b"kept %d" % i)
        delete(cache, *[b"deleted %d" % i for i in range(20)])
        assert sum(i in cache for i in range(200)) >= 190


@in_child
class TestProcesses:
    @pytest.fixture(autouse=True)
    def shared(self, memory: Any) -> None:
        if memory.kind != "shared":
            pytest.skip("memory of one process")

    @pytest.fixture
    def child(self) -> Iterator[Callable[[Callable[[], Any]], Child]]:
        """Make processes that answer; they end with the test."""
        children: list[Child] = []

        def make(work: Callable[[], Any]) -> Child:
            children.append(Child(work))
            return children[-1]

        yield make
        for each in children:
            each.end()

    @OBJECTS
    @OPERATIONS
    @pytest.mark.parametrize("value", [["an", "object"], b"bytes", 5], ids=repr)
    def test_objects_of_another(
        self, make: Any, child: Any, objects: str, operate: Any, value: Any
    ) -> None:
        """What another process remembers goes with the call that returns here, and only that."""
        cache = make(objects=objects, stale_ttl=60)
        put(cache, "key", b"tag", value=value, stale=60.0)
        put(cache, "other", b"another", value=value, stale=60.0)
        reader = child(lambda: (cache.get("key"), cache.get("other")))
        for _ in range(3):
            assert reader.ask() == repr((value, value))
            operate(cache, b"neither")
        assert reader.ask() == repr((value, value))
        operate(cache, b"tag")
        for _ in range(3):
            assert reader.ask() == repr((None, value))
        put(cache, "key", b"tag", value=value, stale=60.0)
        for _ in range(3):
            assert reader.ask() == repr((value, value))
        operate(cache, b"tag")
        assert reader.ask() == repr((None, value))

    def test_object_hits(self, make: Any) -> None:
        """An operation by another tag of the area costs a look at the tags, not the object."""
        cache = make(objects="shared")
        put(cache, "key", b"tag", value=["object"])
        found = [cache.get("key") for _ in range(3)]
        before = cache._counters()["object_hit"]
        for _ in range(10):
            delete(cache, b"another")
            assert cache.get("key") is found[-1]
        assert cache._counters()["object_hit"] == before + 10

    def test_killed(self, cache: Any) -> None:
        """Whoever is killed between two calls has deleted what the first was for, and no more."""
        put(cache, "key", b"tag")
        put(cache, "other", b"another")
        pid = os.fork()
        if pid == 0:
            delete(cache, b"tag")
            os.kill(os.getpid(), signal.SIGKILL)
        os.waitpid(pid, 0)
        assert (None, "value") == (cache.get("key"), cache.get("other"))

    def test_joined_elsewhere(self, cache: Any, child: Any) -> None:
        """Who joins from another process is given a value only if it entered before the delete."""
        leader = cache._enter("key", LEASE)
        before: list[Any] = []

        def take() -> Any:
            if not before:
                before.append(cache._enter("key", LEASE))
                return "joined"
            return before[0].take()

        early, late = child(take), child(take)
        assert early.ask() == "'joined'"
        delete(cache, b"tag")
        assert late.ask() == "'joined'"
        assert NOT_STORED == fill(leader, b"tag")
        assert ["('value',)", "None"] == [early.ask(), late.ask()]
