"""
The protocol of invalidation against a simulated network, Redis and clock.

The schedules are every combination of a few writes and faults at every point of a short time; see
``invalidation_world`` for what is checked at each step.  That these checks find something is shown
by MUTANTS, each of which is one way to get the protocol wrong.
"""

import collections
import importlib.util
import itertools
import sys
import types
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import hypothesis.strategies as st
import pytest

from accelerator import message
from accelerator.invalidation import protocol
from accelerator.invalidation.protocol import Follower


def load_world() -> Any:
    """Import the world, which lies beside this file and is no test."""
    path = Path(__file__).with_name("invalidation_world.py")
    spec = importlib.util.spec_from_file_location("invalidation_world", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


world = load_world()
Events = tuple[tuple[int, str], ...]


def find_violation(make: Callable[..., Any], schedules: Iterable[Events], **era: int) -> Any:
    """Give the first schedule that goes wrong, with what went wrong; None: none does."""
    for events in schedules:
        try:
            world.check(make, events, **era)
        except world.Violation as violation:
            return events, str(violation)
    return None


# --- schedules ----------------------------------------------------------------------------------

FIRST = 3
"""The point before which nothing of interest can go wrong: the host has just begun to listen."""

DIRECTED: tuple[Events, ...] = (
    # a message missed, the log gone, and a younger entry in it
    ((5, "cut"), (5, "write"), (6, "evict_log"), (6, "other")),
    ((5, "cut"), (5, "write"), (6, "evict_log")),
    # a message missed, and the next one heard
    ((6, "write"), (6, "lose"), (6, "other")),
    # a message missed, and a probe heard behind it
    ((6, "write"), (6, "lose"), (6, "probe")),
    # a probe heard together with what came before it
    ((6, "probed"),),
    # a long stall, with messages and heartbeats behind one another when it ends
    ((4, "stall"), (6, "write"), (7, "write")),
    # a message lost with its history, and a leader that dies while it drops everything for that
    ((6, "write"), (6, "failover"), (7, "die_at_1")),
    # missed, then a failover between the heartbeat that tells so and the reading of the log, while
    # another heartbeat of the old history is still to be read; then nothing for a while
    (
        (4, "write"),
        (9, "write"),
        (9, "lose"),
        (9, "hold"),
        (13, "slow"),
        (15, "failover_unread"),
        (15, "other"),
        (16, "stall"),
    ),
)


def no_counter_back() -> Iterator[Events]:
    """A Redis whose counters start at 0 again, and fewer writes after than before."""
    for lost, point in itertools.product(("evict_seq", "flushall"), range(8, 14)):
        before = ((4, "write"), (5, "write"), (6, "write"))
        for later in range(point, 14):
            yield (*before, (point, lost), (later, "write"))


def kept_history() -> Iterator[Events]:
    """Around a failover between a heartbeat and the replay that it asks for."""
    for lose, write, fail in itertools.product(range(8, 12), repeat=3):
        for failover in ("failover", "failover_unread", "failover_kept"):
            for again in range(fail, 13):
                yield (
                    (4, "write"),
                    (write, "write"),
                    (lose, "lose"),
                    (fail, failover),
                    (again, "write"),
                )


class TestSchedules:
    @pytest.mark.parametrize("write", world.WRITES)
    def test_one_fault(self, write: str) -> None:
        """No write with one fault, at any points of three seconds, is served too long."""
        schedules = world.one_fault([write], range(FIRST, 15))
        assert None is find_violation(Follower, schedules)

    @pytest.mark.slow  # some 20,000 schedules
    def test_two_writes(self) -> None:
        """No two writes with one fault are served too long."""
        schedules = (
            ((first, "write"), (second, "write"), (place, fault))
            for first, second in itertools.combinations_with_replacement(range(4, 12), 2)
            for place in range(4, 12)
            for fault in world.FAULTS
        )
        assert None is find_violation(Follower, schedules)

    @pytest.mark.slow  # some 35,000 schedules
    def test_two_faults(self) -> None:
        """No write with two faults, at any points of a second and a half, is served too long."""
        assert None is find_violation(Follower, world.two_faults(["write"], range(6, 11)))

    @pytest.mark.nightly
    @pytest.mark.watchdog(3600)  # some million schedules
    @pytest.mark.parametrize("writes", [("write",), ("own",), ("cross",), ("write", "write")])
    def test_two_faults_long(self, writes: tuple[str, ...]) -> None:
        """The same at any points of more than two seconds, and with more writes."""
        points = range(4, 14) if len(writes) == 1 else range(5, 11)
        assert None is find_violation(Follower, world.two_faults(writes, points))

    def test_around_a_failover(self) -> None:
        """What a log of another history says is not taken for what was missed."""
        assert None is find_violation(Follower, kept_history())

    def test_directed(self) -> None:
        """The schedules by which single mutants are found."""
        assert None is find_violation(Follower, DIRECTED)

    def test_counter_from_zero(self) -> None:
        """A counter that is lost, and starts at 0 again, is noticed by its going back."""
        assert None is find_violation(Follower, no_counter_back(), era=0)

    def test_counter_must_start_above(self) -> None:
        """
        Why the write script starts a lost counter far above: from 0, a host that was away while
        as many writes came as it knew before takes them for those.
        """
        away = (*((5, "write") for _ in range(3)), (9, "halfopen"), (9, "flushall"))
        events = (*away, (10, "write"), *((10, "other") for _ in range(3)))
        assert None is find_violation(Follower, [events])
        assert find_violation(Follower, [events], era=0) is not None

    @hypothesis.given(
        st.lists(
            st.tuples(
                st.integers(0, 79),
                st.sampled_from((*world.WRITES * 4, *world.FAULTS)),
            ),
            max_size=25,
        )
    )
    @hypothesis.settings(max_examples=300)
    def test_many(self, events: list[tuple[int, str]]) -> None:
        """Twenty seconds with up to 25 writes and faults."""
        world.check(Follower, tuple(events))


class TestSettling:
    def test_waits(self) -> None:
        """After an interruption nothing is in step before the link has settled."""
        memory = world.Memory(types.SimpleNamespace(read=lambda: None))
        settled = [False]
        follower = Follower(
            memory,
            origin=world.OWN,
            bound=2.0,
            term=1,
            count=memory.count,
            repair=lambda: None,
            settled=lambda: settled[0],
        )
        follower.watch([world.AREA])
        follower.connected()
        follower.confirmed(world.AREA)

        def beat(at: float) -> float:
            number, _ = follower.sending(at)
            assert follower.heartbeat(b"1 H %d %s 5" % (number, b"a" * 40))
            return float(memory.fresh_until)

        assert -1.0 == beat(10.0)
        settled[0] = True
        assert 12.5 == beat(10.5)


def received(peace: Any, before: collections.Counter[str]) -> int:
    """Give how many messages were counted since."""
    now = collections.Counter(peace.memory.counts)
    return now["invalidation_receive"] - before["invalidation_receive"]


class TestPrecision:
    """What is dropped is what has to be: a cache that drops everything would be in step, too."""

    def test_nothing_happens(self) -> None:
        """In peace nothing is dropped after the first heartbeat."""
        peace = world.World(Follower)
        peace.run(1, {})
        value = peace.memory.token
        peace.run(20, {})
        assert (value, {}) == (peace.memory.token, peace.memory.counts)

    @pytest.mark.parametrize(
        "fault", ["cut", "lose", "die", "stop", "hold", "beat_lost", "beat_late", "garbage"]
    )
    def test_replayed(self, fault: str) -> None:
        """What was only missed is read from the log: nothing else is dropped."""
        events = ((6, "other"), (6, fault), (9, "other"))
        seen = world.check(Follower, events)
        kept = seen.memory.token
        assert 0 == seen.memory.counts.get("flush", 0)
        assert 2 == kept  # as it was before the first heartbeat, and after

    def test_own_set(self) -> None:
        """A host's own set stays, and so does what it set last of two."""
        seen = world.check(Follower, ((6, "own"), (9, "own")))
        assert (2, 4) == (seen.memory.counts["own_skipped"], seen.memory.token)

    def test_queued_set(self) -> None:
        """So does one that was queued and comes as a delete; an older one than what is here not."""
        seen = world.check(Follower, ((6, "queued"), (9, "queued")))
        assert (2, 4) == (seen.memory.counts["own_skipped"], seen.memory.token)
        seen = world.check(Follower, ((6, "queued_cross"),))
        assert (1, 5) == (seen.memory.counts["own_skipped"], seen.memory.token)

    def test_own_tag(self) -> None:
        """What a host has loaded since its own delete by tag stays when it hears of that."""
        seen = world.check(Follower, ((6, "own_tag"),))
        assert 1 == seen.memory.counts["own_skipped"]
        assert 4 == seen.memory.token  # first, in step, the old copy, and the one after the delete

    def test_unknown_tag(self) -> None:
        """A tag that the segment refuses drops the area, and does not end the listener."""
        peace = world.World(Follower)
        peace.run(2, {})

        def refuse(*_: object) -> None:
            raise ValueError

        peace.memory.invalidate_tags = refuse
        before = peace.memory.token
        peace.do_tag()
        peace.run(2, {})
        assert 1 == peace.memory.counts["receive_error_apply"]
        assert before < peace.memory.token

    def test_repair(self) -> None:
        """Own writes are sent again when the history is another one, and then only."""
        for fault, repairs in (("failover", 1), ("restart", 1), ("cut", 0), ("flushall", 0)):
            assert repairs == world.check(Follower, ((6, "write"), (9, fault))).repairs, fault

    def test_garbage(self) -> None:
        """Garbage without an end is one replay a second, and drops nothing."""
        peace = world.World(Follower)
        peace.run(2, {})
        follower = peace.leaders[0].follower
        before = peace.memory.token
        asked = 0
        for tenth in range(100):
            now = peace.now + tenth / 10
            follower.message(world.AREA, b"garbage", now)
            for replay in follower.replays(now):
                asked += 1
                follower.replayed(replay, [], now)
        assert (10, 100) == (asked, peace.memory.counts["receive_error_decode"])
        assert before == peace.memory.token

    def test_far_behind(self) -> None:
        """Too much to be replayed is dropped as a whole, without reading the log."""
        peace = world.World(Follower)
        peace.run(2, {})
        follower = peace.leaders[0].follower
        seq = peace.server.number() + protocol.LONGEST_REPLAY + 2
        data = b"1 %s %d %s" % (world.OTHER, seq, message.body(message.FORGET, [b"sother"], [0]))
        follower.message(world.AREA, data, peace.now)
        assert [] == follower.replays(peace.now)
        assert (1, seq) == (peace.memory.counts["flush"], peace.memory.state[1])

    def test_received_once(self) -> None:
        """A message that comes before its turn is done twice, and is one message."""
        peace = world.World(Follower)
        peace.run(2, {})
        follower = peace.leaders[0].follower
        before = collections.Counter(peace.memory.counts)
        next_seq = peace.server.number() + 1

        def written(seq: int, kind: int) -> bytes:
            return b"1 %s %d %s" % (world.OWN, seq, message.body(kind, [b"sown"], [99]))

        peace.memory.outbox_heard = lambda number: number == 99
        early = [written(next_seq + n, message.SET) for n in (1, 2)]
        for data in early:
            follower.message(world.AREA, data, peace.now)
        follower.flush()
        [replay] = follower.replays(peace.now)
        missed = written(next_seq, message.EXPIRE)
        entries = [(next_seq + n, data) for n, data in enumerate([missed, *early])]
        follower.replayed(replay, entries, peace.now)
        follower.message(world.AREA, written(next_seq + 3, message.SET), peace.now)
        follower.flush()
        counted = collections.Counter(peace.memory.counts) - before
        assert (4, 3, 1, 3) == tuple(
            counted[name] for name in ("invalidation_receive", "own_skipped", "gap", "replayed")
        )

    def test_received_once_by_two(self) -> None:
        """Nor does a listener that is killed count what the next one will read from the log."""
        peace = world.World(Follower)
        peace.run(2, {})
        before = collections.Counter(peace.memory.counts)
        known = peace.server.number()
        data = [
            b"1 %s %d %s" % (world.OTHER, known + n, message.body(message.FORGET, [b"k"], [0]))
            for n in (1, 2, 3)
        ]
        killed = peace.leaders[0].follower
        killed.message(world.AREA, data[1], peace.now)
        killed.message(world.AREA, data[2], peace.now)
        killed.flush()
        assert (0, known) == (received(peace, before), peace.memory.state[1])
        following = Follower(
            peace.memory,
            origin=world.OWN,
            bound=world.BOUND,
            term=9,
            count=peace.memory.count,
            repair=lambda: None,
        )
        following.watch([world.AREA])
        following.message(world.AREA, data[2], peace.now)
        [replay] = following.replays(peace.now)
        following.replayed(replay, [(known + n, each) for n, each in enumerate(data, 1)], peace.now)
        assert (3, known + 3) == (received(peace, before), peace.memory.state[1])

    def test_received_and_given_up(self) -> None:
        """What came before its turn was applied, also if what is missing cannot be had."""
        peace = world.World(Follower)
        peace.run(2, {})
        before = collections.Counter(peace.memory.counts)
        follower = peace.leaders[0].follower
        known = peace.server.number()
        for n in (2, 3):
            body = message.body(message.FORGET, [b"k"], [0])
            follower.message(world.AREA, b"1 %s %d %s" % (world.OTHER, known + n, body), peace.now)
        [replay] = follower.replays(peace.now)
        follower.replayed(replay, [], peace.now)
        follower.flush()
        assert (2, known + 3) == (received(peace, before), peace.memory.state[1])

    @pytest.mark.parametrize("fault", ["cut", "lose", "stop", "hold", "beat_lost", "evict_log"])
    def test_probe(self, fault: str) -> None:
        """A probe is answered, also one that was missed at first; it drops nothing."""
        seen = world.check(Follower, ((6, "write"), (6, "probe"), (6, fault), (9, "other")))
        assert 1 <= seen.answers
        alone = world.check(Follower, ((6, "probe"),))
        assert (1, 2, 1) == (
            alone.answers,
            alone.memory.token,  # as it was before the first heartbeat, and after
            alone.memory.counts["invalidation_receive"],
        )

    def test_probe_of_a_history_that_ended(self) -> None:
        """What waits for a number that will not come any more is not answered by another one."""
        peace = world.World(Follower)
        peace.run(2, {})
        follower = peace.leaders[0].follower
        seq = peace.server.number() + 2  # one before it is missing
        nonce = bytes(message.NONCE_SIZE)
        data = b"1 %s %d %s" % (world.OTHER, seq, message.body(message.PROBE, [nonce], [0]))
        follower.message(world.AREA, data, peace.now)
        assert [] == follower.probes()
        number, _ = follower.sending(peace.now)
        assert follower.heartbeat(message.heartbeat(number, "history-2", [seq + 1]))
        assert (message.replication_hash(b"history-2"), seq + 1) == peace.memory.state
        assert [] == follower.probes()

    def test_probe_given_up(self) -> None:
        """One that was given up with all before it, and comes only then, is answered."""
        peace = world.World(Follower)
        peace.run(2, {})
        follower = peace.leaders[0].follower
        far = peace.server.number() + protocol.LONGEST_REPLAY + 2
        head = b"1 %s %d " % (world.OTHER, far)
        body = message.body(message.FORGET, [b"sother"], [0])
        follower.message(world.AREA, head + body, peace.now)
        assert [] == follower.replays(peace.now)
        nonce = bytes(message.NONCE_SIZE)
        head = b"1 %s %d " % (world.OTHER, far - 1)
        follower.message(world.AREA, head + message.body(message.PROBE, [nonce], [0]), peace.now)
        assert [(nonce, world.AREA, far - 1)] == follower.probes()
        assert [] == follower.probes()

    def test_probes_are_bounded(self) -> None:
        """However many wait, the newest are kept, and no more than that."""
        peace = world.World(Follower)
        peace.run(2, {})
        follower = peace.leaders[0].follower
        first = peace.server.number() + 2
        for number in range(protocol.MOST_PROBES + 50):
            nonce = number.to_bytes(message.NONCE_SIZE, "big")
            body = message.body(message.PROBE, [nonce], [0])
            data = b"1 %s %d %s" % (world.OTHER, first + number, body)
            follower.message(world.AREA, data, peace.now)
        assert protocol.MOST_PROBES == len(follower._probes)
        assert first + 50 == follower._probes[0].seq

    def test_unknown_key(self) -> None:
        """A key that the segment refuses drops the area, and does not end the listener."""
        peace = world.World(Follower)
        peace.run(2, {})

        def refuse(*_: object) -> int:
            raise ValueError

        peace.memory.invalidate = refuse
        before = peace.memory.token
        peace.do_write()
        peace.run(2, {})
        assert 1 == peace.memory.counts["receive_error_apply"]
        assert 1 == peace.memory.counts["invalidation_receive_failures"]
        assert before < peace.memory.token


class TestViolations:
    """What no fault does is counted; that none of them is, the schedules above show."""

    @staticmethod
    def counted(seen: Any) -> int:
        found: int = seen.memory.counts.get("consistency_violation", 0)
        return found

    def test_number_goes_back(self) -> None:
        """Somebody writes a lower number into Redis: once, and the host is in step again."""
        peace = world.World(Follower)
        for _ in range(5):
            peace.do_other()
        peace.run(2, {})
        peace.server.counter -= 3
        peace.run(4, {})
        assert 1 == self.counted(peace)
        assert peace.now <= peace.memory.fresh_until

    def test_applied_is_ahead(self) -> None:
        """So is what a segment says that it has applied of what was never written."""
        peace = world.World(Follower)
        peace.run(2, {})
        replication, seq = peace.memory.state
        peace.memory.state = (replication, seq + 1000)
        peace.do_die()
        peace.run(3, {})
        assert 1 == self.counted(peace)

    def test_number_heard_twice(self) -> None:
        """A message that somebody has made up, with a number that was given before."""
        peace = world.World(Follower)
        peace.run(2, {})
        peace.do_other()
        peace.run(1, {})
        _, data = peace.server.log[-1]
        peace.server.publish("message", data)
        peace.run(3, {})
        assert 1 == self.counted(peace)

    def test_number_heard_twice_in_a_failover(self) -> None:
        """The same where the history turns out to be another one: that is a failover."""
        peace = world.World(Follower)
        peace.run(2, {})
        peace.do_other()
        peace.run(1, {})
        follower = peace.leaders[0].follower
        seq, data = peace.server.log[-1]
        follower.message(world.AREA, data, peace.now)
        number, _ = follower.sending(peace.now)
        follower.heartbeat(message.heartbeat(number, "history-2", [seq]))
        number, _ = follower.sending(peace.now)
        follower.heartbeat(message.heartbeat(number, "history-2", [seq]))
        assert 0 == self.counted(peace)

    def test_before_the_heartbeat(self) -> None:
        """A heartbeat sent before the number was heard again proves nothing."""
        peace = world.World(Follower)
        peace.run(2, {})
        peace.do_other()
        peace.run(1, {})
        follower = peace.leaders[0].follower
        number, _ = follower.sending(peace.now)
        seq, data = peace.server.log[-1]
        follower.message(world.AREA, data, peace.now)
        history = peace.server.name
        follower.heartbeat(message.heartbeat(number, history, [seq]))
        assert 0 == self.counted(peace)
        number, _ = follower.sending(peace.now)
        follower.heartbeat(message.heartbeat(number, history, [seq]))
        assert 1 == self.counted(peace)

    def test_log_of_other_numbers(self) -> None:
        """An entry of the log that holds a message of another number drops the area."""
        peace = world.World(Follower)
        peace.run(2, {})
        peace.do_cut()
        peace.do_other()
        seq, data = peace.server.log[-1]
        peace.server.log[-1] = (seq, data.replace(b" %d " % seq, b" %d " % (seq + 7)))
        peace.run(5, {})
        assert 1 == self.counted(peace)
        assert 1 == peace.memory.counts["flush"]

    def test_without_a_name(self) -> None:
        """Where the server does not tell its history, a number that goes back may be a failover."""
        peace = world.World(Follower)
        peace.server.name = "?"
        for _ in range(5):
            peace.do_other()
        peace.run(2, {})
        peace.server.counter -= 3
        peace.run(4, {})
        assert 0 == self.counted(peace)


# --- the mutants --------------------------------------------------------------------------------

MUTANTS: dict[str, tuple[str, str]] = {
    "extends with a gap": (
        "            self._miss(area, seq)\n            return False\n",
        "            self._miss(area, seq)\n            return True\n",
    ),
    "extends from the latest heartbeat sent, not the one that came back": (
        "beat.sent + self._bound",
        "max(each.sent for each in [beat, *self._beats.values()]) + self._bound",
    ),
    "extends from when it came back": (
        "self._memory.area_extend(asked.area.name, beat.sent + self._bound)",
        "self._memory.area_extend(asked.area.name, self._memory.world.now + self._bound)",
    ),
    "says applied before the drop": (
        "            area.known = message.seq\n        else:\n",
        (
            "            area.known = message.seq\n"
            "            self._memory.area_applied(area.name, area.replication, area.known)\n"
            "        else:\n"
        ),
    ),
    "says applied before the area is dropped": (
        (
            "        self._memory.clear_area(area.name)\n"
            "        self._memory.area_applied(area.name, replication, known)\n"
        ),
        (
            "        self._memory.area_applied(area.name, replication, known)\n"
            "        self._memory.clear_area(area.name)\n"
        ),
    ),
    "extends before what was gathered is dropped": (
        "        self.flush()  # drops come before what stands on them\n",
        "",
    ),
    "ignores the replication id": ("area.replication != replication or (", "False or ("),
    "ignores a counter that goes back": ("seq < asked.known", "False"),
    "skips own sets always": (
        "zip(message.keys, heard, strict=True) if not same",
        "zip(message.keys, heard, strict=True) if False",
    ),
    "takes own deletes for sets that are here": (
        "zip(message.keys, heard, strict=True) if not same",
        "zip(message.keys, heard, strict=True) if not same and message.kind != FORGET",
    ),
    "takes a replay with a hole for complete": ("or seq != area.known + 1", ""),
    "takes an empty replay for complete": (
        "            self._give_up(area, area.target)\n        if len",
        "            area.known = area.target\n        if len",
    ),
    "takes a message after a gap for the next one": (
        "if message.seq == area.known + 1:",
        "if message.seq > area.known:",
    ),
    "does not drop what was there before its subscription": (
        "            self._clear(area, replication, seq)\n            return True\n",
        (
            "            area.replication, area.known, area.target = replication, seq, seq\n"
            "            return True\n"
        ),
    ),
    "gives up without dropping": (
        "        self._clear(area, area.replication, known)\n",
        "        area.known = known\n",
    ),
    "believes a log of whatever history": ("return number > area.proof", "return True"),
    "does nothing about deletes by tag": (
        "            self._drop_tags(area, keys, expire=message.kind == EXPIRE_TAGS)\n",
        "            pass\n",
    ),
    "believes that who deletes by tag here drops twice": (
        "        if message.kind == SET and any(late):\n",
        "        if message.kind != SET:\n            return []\n        if any(late):\n",
    ),
    "answers a probe before it has come so far": ("and probe.seq <= area.known", ""),
    "answers before what was gathered is dropped": (
        "            return []\n        self.flush()\n",
        "            return []\n",
    ),
    "keeps a number of the history before": (
        "            area.replication = 0\n",
        "            pass\n",
    ),
    "takes numbers that begin anew for a violation": (
        "            area.heard = area.twice_at = 0  # numbers of this history, from now on\n",
        "",
    ),
}
"""What is replaced by what in the source of the protocol."""


def mutant(name: str) -> Callable[..., Any]:
    """Build the protocol with one thing wrong."""
    right, wrong = MUTANTS[name]
    source = Path(protocol.__file__).read_text(encoding="utf-8")
    assert 1 == source.count(right), f"{name}: the protocol does not read like that any more"
    module = types.ModuleType("mutant")
    module.__dict__["__name__"] = "mutant"
    sys.modules["mutant"] = module
    exec(compile(source.replace(right, wrong), name, "exec"), module.__dict__)
    made: Callable[..., Any] = module.__dict__["Follower"]
    return made


class TestMutants:
    @pytest.mark.parametrize("name", MUTANTS)
    def test_killed(self, name: str) -> None:
        """The schedules above find it."""
        made = mutant(name)
        found = find_violation(
            made,
            itertools.chain(
                DIRECTED,
                world.one_fault(["write", "cross", "tag", "dying_tag", "dying"], range(4, 12)),
                kept_history(),
            ),
        ) or find_violation(made, no_counter_back(), era=0)
        if found is None:
            found = find_violation(made, world.two_faults(["write"], range(4, 11)))
        assert found is not None
