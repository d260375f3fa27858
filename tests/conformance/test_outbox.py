"""The outbox: explicit writes that L2 and the other hosts have yet to learn of."""

import os
import signal
import threading
from typing import Any

import pytest

from accelerator import codec
from accelerator.keys import encode
from accelerator.process_local import (
    ADD,
    NOT_STORED,
    NOTE_CLEAR,
    NOTE_EXPIRE,
    NOTE_EXPIRE_TAG,
    NOTE_FORGET,
    NOTE_FORGET_TAG,
    NOTE_SET,
    SET,
    STORED,
    TOO_LARGE,
)

ENTRIES_MOST = 1 << 17
"""More than any outbox has room for."""
LONG = 10.0


@pytest.fixture
def segment(memory: Any) -> Any:
    memory.segment.register()
    return memory.segment


def queued(cache: Any, key: Any, kind: int = NOTE_FORGET) -> int:
    """Note a write that L2 could not be told of."""
    number = int(cache._note(key, kind))
    settle(cache, number, sent=False)
    return number


def sent(cache: Any, key: Any, kind: int = NOTE_FORGET) -> int:
    """Note a write that L2 has taken."""
    number = int(cache._note(key, kind))
    settle(cache, number, sent=True)
    return number


def settle(cache: Any, number: int, *, sent: bool) -> None:
    cache.memory.outbox_settle(number, sent)


def store(cache: Any, key: Any, value: Any, **options: Any) -> int:
    """Set a key as an explicit write does: its entry first; give the entry's number."""
    number = int(cache._note(key, NOTE_SET))
    assert STORED == cache._store(key, *codec.encode(value), 60.0, 0.0, note=number, **options)
    return number


def numbers(notes: list[Any]) -> list[int]:
    return [number for number, *_ in notes]


def overflow(cache: Any, segment: Any) -> int:
    """Queue entries until the first one that nobody has heard of is lost; give how many."""
    for count in range(1, ENTRIES_MOST):
        queued(cache, f"filler {count}")
        if segment.outbox_owed():
            return count
    raise AssertionError("the outbox has no bound")


@pytest.fixture
def cache(cache: Any, segment: Any) -> Any:
    """One that has an outbox at hand."""
    cache.memory = segment
    return cache


class TestNote:
    def test_numbers(self, cache: Any) -> None:
        """Numbers are above 0, and rise."""
        found = [cache._note("key", NOTE_SET), cache._note("other", NOTE_FORGET)]
        found.append(cache._note_clear())
        assert sorted({0, *found}) == [0, *found]

    def test_pending(self, cache: Any, segment: Any) -> None:
        """What its owner is about to tell L2 is not replayed."""
        cache._note("key", NOTE_FORGET)
        assert [] == segment.outbox_due()

    def test_kinds(self, cache: Any) -> None:
        """A key is forgotten, set or expired; nothing else is done to it."""
        for wrong in (NOTE_CLEAR, -1, 99):
            with pytest.raises(ValueError, match="kind"):
                cache._note("key", wrong)

    def test_key(self, cache: Any) -> None:
        """What is no key is an error."""
        with pytest.raises(TypeError):
            cache._note(1.5, NOTE_FORGET)

    def test_long_key(self, cache: Any, segment: Any) -> None:
        """Keys are kept in full."""
        key = "k" * 511
        number = queued(cache, key)
        assert [(number, "area", NOTE_FORGET, encode(key))] == segment.outbox_due()

    def test_threads(self, cache: Any, segment: Any) -> None:
        """Each of many threads gets numbers of its own, and no entry is lost."""
        found: list[list[int]] = [[] for _ in range(4)]

        def note(mine: list[int], name: int) -> None:
            mine.extend(queued(cache, (name, count)) for count in range(100))

        threads = [threading.Thread(target=note, args=(found[name], name)) for name in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(LONG)
        every = sorted(number for mine in found for number in mine)
        assert 400 == len(set(every))
        assert every == numbers(segment.outbox_due(1000))


class TestSettle:
    def test_queued(self, cache: Any, segment: Any) -> None:
        """What L2 could not be told of is replayed, with all there is to know about it."""
        clear = cache._note_clear()
        segment.outbox_settle(clear, False)
        found = [
            (queued(cache, "one", NOTE_FORGET), "area", NOTE_FORGET, encode("one")),
            (queued(cache, 2, NOTE_SET), "area", NOTE_SET, encode(2)),
            (queued(cache, b"three", NOTE_EXPIRE), "area", NOTE_EXPIRE, encode(b"three")),
        ]
        assert [(clear, "area", NOTE_CLEAR, b""), *found] == segment.outbox_due()

    def test_order(self, cache: Any, make: Any, segment: Any) -> None:
        """The oldest write comes first, whatever its area and whenever it was queued."""
        other = make("other")
        pairs = [(cache, "one"), (other, "two"), (cache, "three"), (other, "four")]
        found = [area._note(key, NOTE_FORGET) for area, key in pairs]
        for number in reversed(found):
            segment.outbox_settle(number, False)
        assert ["area", "other"] * 2 == [area for _, area, *_ in segment.outbox_due()]
        assert found == numbers(segment.outbox_due())
        assert found[:2] == numbers(segment.outbox_due(2))

    def test_sent(self, cache: Any, segment: Any) -> None:
        """What L2 has taken is not replayed."""
        sent(cache, "key")
        assert [] == segment.outbox_due()

    def test_replayed(self, cache: Any, segment: Any) -> None:
        """Nor is what was queued, once it was replayed."""
        number = queued(cache, "key")
        segment.outbox_settle(number, True)
        assert [] == segment.outbox_due()
        assert [number] == numbers(segment.outbox_recent(60.0))

    def test_failed_replay(self, cache: Any, segment: Any) -> None:
        """A replay that failed is due again."""
        number = queued(cache, "key")
        segment.outbox_settle(number, False)
        assert [number] == numbers(segment.outbox_due())

    def test_stays_sent(self, cache: Any, segment: Any) -> None:
        """What L2 has taken it has taken, whatever a late caller believes."""
        number = sent(cache, "key")
        segment.outbox_settle(number, False)
        assert [] == segment.outbox_due()

    def test_unknown(self, cache: Any, segment: Any) -> None:
        """A number that is no entry's changes nothing."""
        number = queued(cache, "key")
        for wrong in (0, number + 1, number + ENTRIES_MOST):
            segment.outbox_settle(wrong, True)
        assert [number] == numbers(segment.outbox_due())

    def test_left(self, cache: Any, segment: Any) -> None:
        """What a process leaves behind unsettled is replayed."""
        number = cache._note("key", NOTE_FORGET)
        segment.unregister()
        segment.register()
        assert [number] == numbers(segment.outbox_due())


class TestMoot:
    @pytest.mark.parametrize("kind", [NOTE_FORGET, NOTE_SET, NOTE_EXPIRE])
    def test_sent(self, cache: Any, segment: Any, kind: int) -> None:
        """A newer write of the key that L2 has taken makes up for older ones."""
        queued(cache, "key", kind)
        queued(cache, "key", kind)
        other = queued(cache, "other", kind)
        sent(cache, "key", NOTE_SET)
        assert [other] == numbers(segment.outbox_due())
        assert 1 == segment.link()["outbox_depth"]

    def test_heard(self, cache: Any, segment: Any) -> None:
        """So does one whose message has come back."""
        queued(cache, "key")
        newer = cache._note("key", NOTE_FORGET)
        segment.outbox_heard(newer)
        assert [] == segment.outbox_due()

    def test_older(self, cache: Any, segment: Any) -> None:
        """An older one does not."""
        sent(cache, "key")
        number = queued(cache, "key")
        assert [number] == numbers(segment.outbox_due())

    def test_settled_later(self, cache: Any, segment: Any) -> None:
        """Which write is newer is a matter of when it was noted, not of when it was settled."""
        older = cache._note("key", NOTE_SET)
        newer = queued(cache, "key")
        segment.outbox_settle(older, True)
        assert [newer] == numbers(segment.outbox_due())

    def test_unsent(self, cache: Any, segment: Any) -> None:
        """Nor does one that L2 has not taken yet."""
        number = queued(cache, "key")
        cache._note("key", NOTE_FORGET)
        assert [number] == numbers(segment.outbox_due())

    def test_area(self, cache: Any, make: Any, segment: Any) -> None:
        """Nor does one of the same key in another area."""
        number = queued(cache, "key")
        other = make("other")
        segment.outbox_settle(other._note("key", NOTE_FORGET), True)
        assert [number] == numbers(segment.outbox_due())

    def test_queued(self, cache: Any, segment: Any) -> None:
        """Of those to be replayed the newest of a key is enough: each is replayed as a delete."""
        queued(cache, "key", NOTE_SET)
        number = queued(cache, "key", NOTE_FORGET)
        assert [number] == numbers(segment.outbox_due())
        assert 1 == segment.link()["outbox_depth"]

    def test_clear(self, cache: Any, make: Any, segment: Any) -> None:
        """A clear makes up for all that is older in its area."""
        queued(cache, "key")
        other = make("other")
        number = other._note("key", NOTE_FORGET)
        segment.outbox_settle(number, False)
        segment.outbox_settle(cache._note_clear(), True)
        newer = queued(cache, "newer")
        assert [number, newer] == numbers(segment.outbox_due())

    def test_not_clear(self, cache: Any, segment: Any) -> None:
        """What is newer in its area does not make up for a clear."""
        number = cache._note_clear()
        segment.outbox_settle(number, False)
        sent(cache, "key")
        assert [number] == numbers(segment.outbox_due())

    def test_expire(self, cache: Any, segment: Any) -> None:
        """An expire leaves the stale copy, which is what the older delete was about."""
        number = queued(cache, "key", NOTE_FORGET)
        sent(cache, "key", NOTE_EXPIRE)
        assert [number] == numbers(segment.outbox_due())
        queued(cache, "other", NOTE_EXPIRE)
        sent(cache, "other", NOTE_EXPIRE)
        assert [number] == numbers(segment.outbox_due())
        queued(cache, "third", NOTE_EXPIRE)
        third = queued(cache, "third", NOTE_FORGET)
        assert [number, third] == numbers(segment.outbox_due())


class TestOverflow:
    def test_owed(self, cache: Any, make: Any, segment: Any) -> None:
        """An area that loses an entry unsent owes a clear, until it is paid."""
        make("other")._note("key", NOTE_FORGET)
        for _ in range(2):
            overflow(cache, segment)
            owed = segment.outbox_owed()
            assert owed in (["other"], ["area"])
            segment.outbox_paid(owed[0])
            assert [] == segment.outbox_owed()

    def test_owe(self, cache: Any, make: Any, segment: Any) -> None:
        """An area may be made to owe one: Redis is not read until it is paid, here and nowhere."""
        for each in (cache, make("other")):
            each.peek("nothing")
        assert frozenset() == segment.outbox_unsent("area")
        segment.outbox_owe("area")
        assert ["area"] == segment.outbox_owed()
        assert segment.outbox_unsent("area") is None
        assert frozenset() == segment.outbox_unsent("other")
        segment.outbox_owe("area")  # while it is being cleared: that was too early for this one
        segment.outbox_paid("area")
        assert ["area"] == segment.outbox_owed()
        segment.outbox_paid("area")
        assert [] == segment.outbox_owed()

    def test_owe_unknown(self, segment: Any) -> None:
        """Nobody would pay what an area owes that there is not."""
        with pytest.raises(KeyError, match="nobody"):
            segment.outbox_owe("nobody")

    def test_dropped(self, cache: Any, segment: Any) -> None:
        """What is lost is counted; the newest entries stay."""
        count = overflow(cache, segment)
        assert 1 == segment.link()["outbox_dropped"]
        assert count - 1 == segment.link()["outbox_depth"]
        due = segment.outbox_due(ENTRIES_MOST)
        assert encode(f"filler {count}") == due[-1][3]
        assert encode("filler 2") == due[0][3]

    def test_sent(self, cache: Any, segment: Any) -> None:
        """What L2 has taken may go."""
        count = overflow(cache, segment)
        segment.outbox_paid("area")
        for note in segment.outbox_due(ENTRIES_MOST):
            segment.outbox_settle(note[0], True)
        for number in range(count + 10):
            sent(cache, f"sent {number}")
        assert [] == segment.outbox_owed()
        assert 1 == segment.link()["outbox_dropped"]

    def test_pending(self, cache: Any, segment: Any) -> None:
        """An entry that is lost while its owner tells L2 is owed for all the same."""
        pending = cache._note("key", NOTE_FORGET)
        overflow(cache, segment)
        depth = segment.link()["outbox_depth"]
        segment.outbox_settle(pending, True)
        assert depth == segment.link()["outbox_depth"]
        assert ["area"] == segment.outbox_owed()

    def test_heard(self, cache: Any, segment: Any) -> None:
        """Nothing is known of an own message whose entry is lost, so it is applied."""
        number = store(cache, "key", "value")
        overflow(cache, segment)
        assert not segment.outbox_heard(number)

    def test_paid_early(self, cache: Any, segment: Any) -> None:
        """What is lost between a look at the debts and their payment is still owed for."""
        overflow(cache, segment)
        queued(cache, "one more")
        segment.outbox_paid("area")
        assert ["area"] == segment.outbox_owed()

    def test_paid_unknown(self, segment: Any) -> None:
        """An area that is not there owes nothing."""
        segment.outbox_paid("nobody")
        assert [] == segment.outbox_owed()


class TestHeard:
    def test_unchanged(self, cache: Any, segment: Any) -> None:
        """An own set whose value is still there has nothing to tell."""
        number = store(cache, "key", "value")
        assert segment.outbox_heard(number)
        assert segment.outbox_heard(number)

    def test_read(self, cache: Any, segment: Any) -> None:
        """Reads do not change that."""
        number = store(cache, "key", ["decoded"])
        for _ in range(5):
            cache.get("key")
        assert segment.outbox_heard(number)

    def test_rewritten(self, cache: Any, segment: Any) -> None:
        """One that was overwritten is applied: L2 may have the other value."""
        number = store(cache, "key", "value")
        newer = store(cache, "key", "newer")
        assert not segment.outbox_heard(number)
        assert segment.outbox_heard(newer)

    @pytest.mark.parametrize("kind", [NOTE_FORGET_TAG, NOTE_EXPIRE_TAG])
    def test_tag(self, cache: Any, segment: Any, kind: int) -> None:
        """A delete by tag is applied until it was settled as sent, or heard before."""
        number = cache._note_tag(b"red", kind)
        assert not segment.outbox_heard(number)
        assert segment.outbox_heard(number)
        queued = cache._note_tag(b"red", kind)
        segment.outbox_settle(queued, False)
        assert not segment.outbox_heard(queued)
        sent = cache._note_tag(b"red", kind)
        segment.outbox_settle(sent, True)
        assert segment.outbox_heard(sent)

    def test_incremented(self, cache: Any, segment: Any) -> None:
        """So is one that was added to."""
        number = store(cache, "key", 1)
        cache.incr("key")
        assert not segment.outbox_heard(number)

    def test_deleted(self, cache: Any, segment: Any) -> None:
        """So is one that is gone."""
        number = store(cache, "key", "value")
        cache._delete("key")
        assert not segment.outbox_heard(number)

    def test_refilled(self, cache: Any, segment: Any) -> None:
        """So is one in whose place there is another copy, be it equal."""
        number = store(cache, "key", "value")
        cache._delete("key")
        assert STORED == cache._store("key", *codec.encode("value"), 60.0, 0.0)
        assert not segment.outbox_heard(number)

    def test_evicted(self, cache: Any, segment: Any) -> None:
        """So is one that had to go for others."""
        number = store(cache, "key", "value")
        for count in range(ENTRIES_MOST):
            cache.set(count, b"x" * 10_000)
            cache.get(count - 15)  # what is asked for again after a while pushes out what is not
            if cache.peek("key") is None:
                break
        assert cache.peek("key") is None
        assert not segment.outbox_heard(number)

    def test_not_stored(self, cache: Any, memory: Any, segment: Any) -> None:
        """A write that stored nothing here names nothing."""
        cache.set("key", "present")
        number = cache._note("key", NOTE_SET)
        found = cache._store("key", *codec.encode("value"), 60.0, 0.0, ADD, None, note=number)
        assert NOT_STORED == found
        assert not segment.outbox_heard(number)
        large = b"x" * memory.segment.max_item
        number = cache._note("large", NOTE_SET)
        found = cache._store("large", *codec.encode(large), 60.0, 0.0, SET, None, note=number)
        assert TOO_LARGE == found
        assert not segment.outbox_heard(number)

    def test_other_kinds(self, cache: Any, segment: Any) -> None:
        """What is no set is applied again: that is its second bump."""
        cache.set("key", "value")
        for kind in (NOTE_FORGET, NOTE_EXPIRE):
            assert not segment.outbox_heard(cache._note("key", kind))
        assert not segment.outbox_heard(cache._note_clear())

    def test_other_key(self, cache: Any, segment: Any) -> None:
        """The value of another key is not named."""
        number = cache._note("key", NOTE_SET)
        cache._store("other", *codec.encode("value"), 60.0, 0.0, note=number)
        assert not segment.outbox_heard(number)

    def test_unknown(self, segment: Any) -> None:
        """Of a number that is no entry's nothing is known."""
        assert [False] * 3 == [segment.outbox_heard(number) for number in (0, 1, 1 << 40)]

    @pytest.mark.parametrize("later", [True, False])
    def test_settled_later(self, cache: Any, segment: Any, later: bool) -> None:
        """L2 has taken what has come back, even if its caller never had the answer."""
        number = cache._note("key", NOTE_FORGET)
        segment.outbox_heard(number)
        segment.outbox_settle(number, later)
        assert [] == segment.outbox_due()
        assert [number] == numbers(segment.outbox_recent(60.0))

    def test_queued(self, cache: Any, segment: Any) -> None:
        """A call that ran out of time may have reached L2: then it is not replayed."""
        number = queued(cache, "key")
        segment.outbox_heard(number)
        assert [] == segment.outbox_due()


class TestRecent:
    def test_recent(self, cache: Any, segment: Any, clock: Any) -> None:
        """What L2 took of late, and a failover may have lost, is listed."""
        sent(cache, "old")
        clock.advance(10)
        newer = sent(cache, "newer", NOTE_EXPIRE)
        heard = store(cache, "heard", "value")
        segment.outbox_heard(heard)
        queued(cache, "queued")
        cache._note("pending", NOTE_FORGET)
        assert [
            (newer, "area", NOTE_EXPIRE, encode("newer")),
            (heard, "area", NOTE_SET, encode("heard")),
        ] == segment.outbox_recent(5.0)
        assert 3 == len(segment.outbox_recent(60.0))

    def test_settled(self, cache: Any, segment: Any, clock: Any) -> None:
        """It counts when L2 took it, not when it was noted."""
        number = queued(cache, "key")
        clock.advance(10)
        segment.outbox_settle(number, True)
        assert [number] == numbers(segment.outbox_recent(5.0))
        clock.advance(10)
        assert [] == segment.outbox_recent(5.0)

    def test_heard(self, cache: Any, segment: Any, clock: Any) -> None:
        """Or when its message came back, the first time."""
        number = sent(cache, "key")
        for expected in ([number], []):
            clock.advance(10)
            segment.outbox_heard(number)
            assert expected == numbers(segment.outbox_recent(5.0))


class TestShown:
    def test_depth(self, cache: Any, segment: Any, clock: Any) -> None:
        """How much is waiting to be replayed is seen, and since when."""
        assert (0, 0) == (segment.link()["outbox_depth"], segment.link()["outbox_dropped"])
        assert segment.link()["outbox_oldest_age"] is None
        number = queued(cache, "key")
        clock.advance(5)
        queued(cache, "other")
        assert 2 == segment.link()["outbox_depth"]
        assert 5 <= segment.link()["outbox_oldest_age"] < 15
        segment.outbox_settle(number, True)
        assert 1 == segment.link()["outbox_depth"]
        assert segment.link()["outbox_oldest_age"] < 5


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork() here")
class TestFork:
    def test_killed(self, cache: Any, memory: Any, segment: Any) -> None:
        """What a process was about to tell when it was killed is replayed; not while it lives."""
        if memory.kind != "shared":
            pytest.skip("memory of one process")
        cache.set("key", "value")
        answer, result = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.write(result, str(cache._note("key", NOTE_FORGET)).encode())
            signal.pause()
            os._exit(1)
        try:
            number = int(os.read(answer, 100))
            assert [] == segment.outbox_due()
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            os.close(answer)
            os.close(result)
        assert [(number, "area", NOTE_FORGET, encode("key"))] == segment.outbox_due()

    def test_child(self, cache: Any, memory: Any, segment: Any) -> None:
        """A child that has memory of its own is another origin, with nothing to send yet."""
        if memory.kind == "shared":
            pytest.skip("the memory is shared")
        number = queued(cache, "key")
        origin = segment.origin
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                is_noted = 0 < cache._note("key", NOTE_SET)
                is_other = segment.origin != origin and 16 == len(segment.origin)
                code = 0 if is_noted and is_other and [] == segment.outbox_due() else 1
            finally:
                os._exit(code)
        assert 0 == os.waitpid(pid, 0)[1]
        assert [number] == numbers(segment.outbox_due())
        assert origin == segment.origin


class TestUnsent:
    """What L2 has yet to hear of, for whoever reads there."""

    def test_queued(self, cache: Any, segment: Any) -> None:
        """Keys whose change is queued, until it is sent; not one whose call has not returned."""
        assert frozenset() == segment.outbox_unsent("area")
        numbers = [queued(cache, key, kind) for key, kind in (("a", NOTE_SET), ("b", NOTE_EXPIRE))]
        cache._note("under way", NOTE_FORGET)
        sent(cache, "sent")
        assert {encode("a"), encode("b")} == segment.outbox_unsent("area")
        settle(cache, numbers[0], sent=True)
        assert {encode("b")} == segment.outbox_unsent("area")
        settle(cache, numbers[1], sent=True)
        assert frozenset() == segment.outbox_unsent("area")

    def test_long_key(self, cache: Any, segment: Any) -> None:
        """A key that takes more than one slot is told in full."""
        queued(cache, "k" * 500)
        assert {encode("k" * 500)} == segment.outbox_unsent("area")

    def test_other_area(self, cache: Any, segment: Any) -> None:
        """Other areas have nothing to do with it, known or not."""
        queued(cache, "key")
        assert frozenset() == segment.outbox_unsent("nobody's")

    def test_clear(self, cache: Any, segment: Any) -> None:
        """A clear that is queued is about every key."""
        number = int(cache._note_clear())
        settle(cache, number, sent=False)
        assert segment.outbox_unsent("area") is None
        settle(cache, number, sent=True)
        assert frozenset() == segment.outbox_unsent("area")

    def test_owed(self, cache: Any, segment: Any) -> None:
        """Nor is any key to be believed in an area that owes a clear; to look pays nothing."""
        overflow(cache, segment)
        segment.outbox_owed()
        queued(cache, "one more")
        assert segment.outbox_unsent("area") is None
        segment.outbox_paid("area")
        assert segment.outbox_unsent("area") is None


class TestGivenUp:
    """Whose message comes late."""

    def test_states(self, cache: Any, segment: Any) -> None:
        """What was queued is given up, whatever becomes of it; nothing else is."""
        pending = int(cache._note("pending", NOTE_SET))
        given_up = queued(cache, "key", NOTE_SET)
        taken = sent(cache, "taken", NOTE_SET)
        assert segment.outbox_given_up(given_up)
        settle(cache, given_up, sent=True)
        assert segment.outbox_given_up(given_up)
        segment.outbox_heard(given_up)
        assert segment.outbox_given_up(given_up)
        assert not segment.outbox_given_up(pending)
        for number in (pending, taken):
            segment.outbox_heard(number)
            assert not segment.outbox_given_up(number)

    def test_needless(self, cache: Any, segment: Any) -> None:
        """Also one that a newer write has made needless to send."""
        given_up = queued(cache, "key", NOTE_SET)
        sent(cache, "key")
        assert [] == segment.outbox_due()
        assert segment.outbox_given_up(given_up)

    def test_unknown(self, segment: Any) -> None:
        """Of a number that is no entry's nothing is known."""
        assert [False] * 3 == [segment.outbox_given_up(number) for number in (0, 1, 1 << 40)]
