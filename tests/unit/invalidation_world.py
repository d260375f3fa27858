"""
A small world for the protocol of invalidation: Redis, the network, one host, and time.

A schedule says what happens at which point; everything else goes its normal way.  The host is read
after each step, and a read of something that Redis has known to be old for longer than the bound
is a violation.  A reader that finds nothing stores at once what is true then, which is the worst
that it can do to a host that is about to miss something.
"""

from __future__ import annotations

import itertools
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from accelerator import message

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

OWN = b"a" * 32
OTHER = b"b" * 32
BOUND = 3.0
"""Of the host; a heartbeat is sent at each whole second, as far as nothing is in its way."""
POINTS = 4
"""Points of a second at which something can happen: see World.second()."""
ERA = 1_000_000
"""How far above the last number ever given a counter starts that was lost."""
AREA = "area"
KEY = b"skey"

TAG = b"tag"
"""Carried by the value of the key, whoever has stored it."""

WRITES = (
    *("write", "own", "cross", "clear", "tag", "own_tag", "dying_tag", "probed"),
    *("queued", "queued_cross", "dying"),
)
FAULTS: Mapping[str, float] = {
    "beat_late": 2.0,
    "beat_lost": 0.0,
    "cut": 0.0,
    "die": 0.0,
    **{f"die_at_{call}": 2.0 for call in range(5)},
    "evict_log": 0.0,
    "evict_seq": 0.0,
    "failover": 0.0,
    "failover_kept": 0.0,
    "failover_unread": 1.0,
    "flushall": 0.0,
    "garbage": 0.0,
    "halfopen": 3.0,
    "hold": 0.0,
    "log_fails": 0.0,
    "lose": 0.0,
    "restart": 0.0,
    "slow": 0.0,
    "stall": BOUND + 1.0,
    "stop": 2.0,
}
"""What can go wrong, and for how many seconds it goes on."""
RECOVERY = 2
"""Seconds, and so heartbeats, after which the host is in step again once nothing is wrong."""


class Violation(AssertionError):  # noqa: N818  it is what it says
    """The host served what it must not, or does not serve what it should."""


class Killed(BaseException):
    """The leader died in the middle of a step."""


@dataclass
class Server:
    """One history of writes: what a master has, and a replica of it would."""

    name: str
    counter: int | None
    lost: int
    """Where the counter starts if it was lost."""
    era: int
    log: list[tuple[int, bytes]] = field(default_factory=list)
    wires: list[Wire] = field(default_factory=list)

    def write(self, origin: bytes, kind: int, notes: Sequence[int], key: bytes = KEY) -> None:
        """Do what the script of an explicit write does, but for the value."""
        self.number()
        assert self.counter is not None
        self.counter += 1
        keys = [key] if kind != message.CLEAR else []
        body = message.body(kind, keys, notes)
        data = b"1 %s %d %s" % (origin, self.counter, body)
        if self.log and self.log[-1][0] >= self.counter:
            self.log.clear()  # XADD refuses: the script deletes the log and tries again
        self.log.append((self.counter, data))
        self.publish("message", data)

    def number(self) -> int:
        """Give the last number; make it if it was lost."""
        if self.counter is None:
            self.counter = self.lost
            self.lost += self.era
        return self.counter

    def beat(self, number: int) -> None:
        """Do what the script of a heartbeat does, for the one area."""
        data = b"1 H %d %s %d" % (number, self.name.encode(), self.number())
        self.publish("beat", data)

    def publish(self, kind: str, data: bytes) -> None:
        """Put it on every wire."""
        for wire in self.wires:
            if wire.filled:
                wire.queue.append((kind, data))

    def entries(self, first: int, last: int, limit: int) -> list[tuple[int, bytes]]:
        """Read the log."""
        return [entry for entry in self.log if first <= entry[0] <= last][:limit]


@dataclass
class Wire:
    """A subscription; what Redis has sent and the host has not yet read."""

    queue: deque[tuple[str, bytes]] = field(default_factory=deque)
    filled: bool = True
    """Whether Redis still sends into it."""
    broken_at: float | None = None
    """When the host will notice that it is dead; None: it is not."""


class Memory:
    """The host's segment, as far as one key of one area goes."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.value: int | None = None
        self.token = 0
        self.stored: dict[int, int] = {}
        """What each note of the outbox has stored, by its token."""
        self.settled: set[int] = set()
        """Notes of deletes by tag whose sender has dropped twice."""
        self.state = (0, 0)
        self.fresh_until = -1.0
        self.counts: dict[str, int] = {}
        self.calls_left: int | None = None
        """The leader dies instead of making this call; None: it lives."""

    def step(self) -> None:
        """A call of the leader's: it may die before."""
        if self.calls_left is not None:
            if self.calls_left == 0:
                self.calls_left = None
                raise Killed
            self.calls_left -= 1

    def invalidate(self, area: str, keys: list[bytes], expire: bool = False) -> int:
        self.step()
        assert area == AREA
        if KEY in keys:
            self.value = None
        self.world.read()
        return len(keys)

    def invalidate_tags(self, area: str, tags: list[bytes], expire: bool = False) -> None:
        self.step()
        assert area == AREA
        if TAG in tags:
            self.value = None
        self.world.read()

    def clear_area(self, area: str) -> None:
        self.step()
        self.value = None
        self.world.read()

    def area_state(self, area: str) -> tuple[int, int]:
        self.step()
        return self.state

    def area_applied(self, area: str, replication: int, seq: int) -> None:
        self.step()
        if self.state[0] != replication or self.state[1] < seq:
            self.state = (replication, seq)

    def area_extend(self, area: str, until: float) -> None:
        self.step()
        self.fresh_until = max(self.fresh_until, until)
        self.world.read()

    def outbox_heard(self, number: int) -> bool:
        self.step()
        if number in self.settled:
            return True
        return self.value is not None and self.stored.get(number) == self.token

    def outbox_given_up(self, number: int) -> bool:
        return False

    def count(self, area: str, name: str, n: int) -> None:
        self.counts[name] = self.counts.get(name, 0) + n

    def store(self, value: int, note: int = 0) -> None:
        """A process of the host stores."""
        self.value = value
        self.token += 1
        if note:
            self.stored[note] = self.token


class Leader:
    """A leader: what it has in memory, its subscription, and what holds it up."""

    def __init__(self, world: World, term: int) -> None:
        self.world = world
        self.follower: Any = world.make(
            world.memory,
            origin=OWN,
            bound=BOUND,
            term=term,
            count=world.memory.count,
            repair=world.repair,
        )
        self.wire: Wire | None = None
        self.stopped_until = -1.0
        self.follower.watch([AREA])

    @property
    def runs(self) -> bool:
        return self.world.now >= self.stopped_until

    def connect(self) -> None:
        """Notice a dead connection, and make one if there is none."""
        now = self.world.now
        wire = self.wire
        if wire is not None and wire.broken_at is not None and wire.broken_at <= now:
            wire = self.wire = None
        if wire is None:
            self.wire = Wire(deque([("confirmed", b"")]))
            self.world.server.wires.append(self.wire)
            self.follower.connected()

    def send(self) -> None:
        """Send a heartbeat; what holds it up is the world's."""
        number, areas = self.follower.sending(self.world.now)
        assert areas == [AREA]
        self.world.carry(number)

    def drain(self) -> None:
        """Take what has come."""
        wire = self.wire
        left = self.world.drained
        while wire is not None and wire.queue and left > 0:
            left -= 1
            kind, data = wire.queue.popleft()
            if kind == "confirmed":
                self.follower.confirmed(AREA)
            elif kind == "message":
                self.follower.message(AREA, data, self.world.now)
            else:
                self.follower.heartbeat(data)
            self.world.read()
        self.answer()
        self.follower.flush()
        self.world.read()

    def answer(self) -> None:
        """Answer probes; one is answered too early if what came before it is still to be done."""
        for probe in self.follower.probes():
            self.world.answers += 1
            server, value = self.world.probed[probe.nonce]
            history = message.replication_hash(server.name.encode())
            # Of a history whose end this host has not heard of, nothing can be said.
            if self.follower._areas[AREA].replication != history or server is not self.world.server:
                continue
            if self.world.memory.value is not None and self.world.memory.value < value:
                raise Violation(f"at {self.world.now} it answered before it had come so far")

    def replay(self) -> None:
        """Read the parts of the log that are asked for."""
        for replay in self.follower.replays(self.world.now):
            if self.world.log_fails:
                self.follower.replay_failed(replay, self.world.now)
                continue
            entries = self.world.server.entries(replay.first, replay.last, replay.limit)
            self.follower.replayed(replay, entries, self.world.now)
            self.answer()
            self.world.read()


class World:
    """Everything, run by a schedule."""

    def __init__(self, make: Callable[..., Any], *, era: int = ERA) -> None:
        self.make = make
        self.now = 0.0
        self.current = 1
        self.old_since: dict[int, float] = {}
        """When Redis took the write that made a value old."""
        self.era = era
        self.server = Server("history-1", None, era, era)
        self.histories = itertools.count(2)
        self.terms = itertools.count(1)
        self.notes = itertools.count(1)
        self.memory = Memory(self)
        self.late: list[tuple[float, Server, int]] = []
        self.beats_lost = False
        self.beats_late = False
        self.log_fails = False
        self.drained = 1_000
        """How much of what has come a leader takes this second."""
        self.repairs = 0
        self.served = 0
        self.answers = 0
        self.probed: dict[bytes, tuple[Server, int]] = {}
        """By the nonce of each probe: where it was sent, and what was true then."""
        self.memory.store(self.current)
        self.leaders: list[Leader] = []
        self.lead()

    # --- the course of things ---------------------------------------------------------------

    def run(self, seconds: int, schedule: Mapping[int, Iterable[str]]) -> None:
        """Let time go by; *schedule* has the events by point, POINTS of them to a second."""
        for second in range(seconds):
            self.second([schedule.get(second * POINTS + point, ()) for point in range(POINTS)])

    def second(self, events: Sequence[Iterable[str]]) -> None:
        """One second: connect, send a heartbeat, hear, read logs; events between these."""
        self.happen(events[0])
        self.each(Leader.connect)
        self.happen(events[1])
        for due, server, number in self.late:
            if due <= self.now:
                server.beat(number)
        self.late = [each for each in self.late if each[0] > self.now]
        self.each(Leader.send)
        self.happen(events[2])
        self.each(Leader.drain)
        self.happen(events[3])
        self.each(Leader.replay)
        self.beats_lost = self.beats_late = self.log_fails = False
        self.drained = 1_000
        self.each(self.hurry)
        self.now += 1.0
        self.read()

    @staticmethod
    def hurry(leader: Leader) -> None:
        """Send the heartbeat that need not wait for its time."""
        if leader.follower.eager:
            leader.send()
            leader.drain()

    def each(self, step: Callable[[Leader], None]) -> None:
        """Let every leader that runs take a step; where one dies, the next one starts."""
        for leader in list(self.leaders):
            if leader.runs:
                try:
                    step(leader)
                except Killed:
                    self.succeed(leader)

    def carry(self, number: int) -> None:
        """Bring a heartbeat to Redis, or not."""
        if self.beats_late:
            self.late.append((self.now + 2.0, self.server, number))
        elif not self.beats_lost:
            self.server.beat(number)

    def read(self) -> None:
        """Read the key as a process of the host does, and load it if it is not there."""
        memory = self.memory
        if memory.value is None:
            memory.store(self.current)
        elif self.now <= memory.fresh_until:
            self.served += 1
            since = self.old_since.get(memory.value)
            if since is not None and self.now > since + BOUND:
                raise Violation(f"at {self.now} it served what was old since {since}")

    # --- events -----------------------------------------------------------------------------

    def happen(self, events: Iterable[str]) -> None:
        for event in events:
            getattr(self, "do_" + event)()
            self.read()

    def change(self) -> int:
        """A new value is the truth."""
        self.old_since[self.current] = self.now
        self.current += 1
        return self.current

    def do_write(self) -> None:
        """Another host writes."""
        self.change()
        self.server.write(OTHER, message.FORGET, [0])

    def do_other(self) -> None:
        """Another host writes another key, which nobody reads here."""
        self.server.write(OTHER, message.FORGET, [0], b"sother")

    def do_probed(self) -> None:
        """Another host writes, and somebody asks who has heard of it."""
        self.do_write()
        self.do_probe()

    def do_probe(self) -> None:
        """Somebody asks who has come so far."""
        nonce = len(self.probed).to_bytes(message.NONCE_SIZE, "big")
        self.probed[nonce] = self.server, self.current
        self.server.write(OTHER, message.PROBE, [0], nonce)

    def do_clear(self) -> None:
        """Another host clears the area."""
        self.change()
        self.server.write(OTHER, message.CLEAR, [0])

    def do_tag(self) -> None:
        """Another host deletes a tag of the value."""
        self.change()
        self.server.write(OTHER, message.FORGET_TAGS, [0], TAG)

    def do_own_tag(self) -> None:
        """A process of this host does; a reader fetches the old copy just before Redis knows."""
        self.memory.settled.add(self.delete_tag())
        self.memory.value = None

    def do_dying_tag(self) -> None:
        """The same, and the process dies before it drops a second time."""
        self.delete_tag()

    def delete_tag(self) -> int:
        """Delete by tag, but for the second drop; give the note."""
        note = next(self.notes)
        self.memory.value = None
        self.memory.store(self.current)
        self.change()
        self.server.write(OWN, message.FORGET_TAGS, [note], TAG)
        return note

    def do_cross(self) -> None:
        """Two processes of this host set, and Redis takes them in the other order."""
        first, second = next(self.notes), next(self.notes)
        self.memory.store(self.current + 2, first)
        self.memory.store(self.current + 1, second)
        self.change()
        self.server.write(OWN, message.SET, [second])
        self.change()
        self.server.write(OWN, message.SET, [first])

    def do_own(self) -> None:
        """A process of this host sets."""
        note = next(self.notes)
        self.memory.store(self.current + 1, note)
        self.change()
        self.server.write(OWN, message.SET, [note])

    def do_queued(self) -> None:
        """A process of this host sets while it is kept from Redis: it is told as a delete."""
        note = next(self.notes)
        self.memory.store(self.current + 1, note)
        self.change()
        self.server.write(OWN, message.FORGET, [note])

    def do_queued_cross(self) -> None:
        """The same, and before it is told another process sets, here and in Redis."""
        queued, direct = next(self.notes), next(self.notes)
        self.memory.store(self.current + 2, queued)
        self.memory.store(self.current + 1, direct)
        self.change()
        self.server.write(OWN, message.SET, [direct])
        self.change()
        self.server.write(OWN, message.FORGET, [queued])

    def do_dying(self) -> None:
        """A process deletes, a reader fetches the old copy, and it dies before it drops again."""
        note = next(self.notes)
        self.memory.value = None
        self.memory.store(self.current)
        self.change()
        self.server.write(OWN, message.FORGET, [note])

    def do_garbage(self) -> None:
        """The last message that is on its way turns out unreadable."""
        for leader in self.leaders:
            if leader.wire is not None:
                for place in reversed(range(len(leader.wire.queue))):
                    if leader.wire.queue[place][0] == "message":
                        leader.wire.queue[place] = ("message", b"\xff garbage")
                        break

    def do_lose(self) -> None:
        """What is on its way is lost, and the connection stays."""
        for leader in self.leaders:
            if leader.wire is not None:
                kept = [each for each in leader.wire.queue if each[0] == "confirmed"]
                leader.wire.queue = deque(kept)

    def do_cut(self) -> None:
        """The connections break."""
        for leader in self.leaders:
            self.leave(leader.wire)
            leader.wire = None

    def do_halfopen(self) -> None:
        """The connections are dead, and nobody notices for three seconds."""
        for leader in self.leaders:
            self.leave(leader.wire)
            if leader.wire is not None:
                leader.wire.queue.clear()
                leader.wire.broken_at = self.now + 3.0

    def leave(self, wire: Wire | None) -> None:
        if wire is not None:
            wire.filled = False

    def history(self, lost: int) -> Server:
        """What goes on from here without the last *lost* writes, under another name."""
        old = self.server
        number = old.counter
        log = old.log[: len(old.log) - lost]
        if number is not None and lost and len(log) < len(old.log):
            number = number - (len(old.log) - len(log))
        return Server(f"history-{next(self.histories)}", number, old.lost, self.era, list(log))

    def do_failover(self) -> None:
        """A replica that lacks the last write is the master now; connections break."""
        self.server = self.history(1)
        self.do_cut()

    def do_failover_unread(self) -> None:
        """The same, and what the old master sent can still be read before the break is seen."""
        self.server = self.history(1)
        for leader in self.leaders:
            self.leave(leader.wire)
            if leader.wire is not None:
                leader.wire.broken_at = self.now + 1.0

    def do_failover_kept(self) -> None:
        """The same, but the subscriptions were at the replica all the time, and stay."""
        new = self.history(1)
        lost = {data for _, data in self.server.log} - {data for _, data in new.log}
        for leader in self.leaders:
            if leader.wire is not None and leader.wire.filled:
                queue = leader.wire.queue
                leader.wire.queue = deque(itertools.takewhile(lambda it: it[1] not in lost, queue))
                new.wires.append(leader.wire)
        self.server = new

    def do_restart(self) -> None:
        """Redis restarts with all it had."""
        self.server = self.history(0)
        self.do_cut()

    def do_flushall(self) -> None:
        """Everything in Redis is gone."""
        self.do_evict_seq()
        self.do_evict_log()

    def do_evict_seq(self) -> None:
        self.server.counter = None

    def do_evict_log(self) -> None:
        self.server.log.clear()

    def do_die(self) -> None:
        """The leaders are killed; another process leads at once."""
        for leader in list(self.leaders):
            self.succeed(leader)

    def do_stop(self) -> None:
        """The leader is stopped for two seconds, replaced, and goes on beside its successor."""
        stopped = self.leaders[0]
        stopped.stopped_until = self.now + 2.0
        self.lead()

    def do_stall(self) -> None:
        """The leader does nothing for longer than the bound, and nobody replaces it."""
        self.leaders[0].stopped_until = self.now + BOUND + 1.0

    def do_beat_lost(self) -> None:
        self.beats_lost = True

    def do_beat_late(self) -> None:
        self.beats_late = True

    def do_hold(self) -> None:
        """What is on its way takes a second longer."""
        self.drained = 0

    def do_slow(self) -> None:
        """A leader takes only the first of what has come."""
        self.drained = 1

    def do_log_fails(self) -> None:
        self.log_fails = True

    def lead(self) -> None:
        """A process of the host becomes the leader, and so the next one if it dies of that."""
        while True:
            try:
                self.leaders.append(Leader(self, next(self.terms)))
            except Killed:
                continue
            return

    def succeed(self, dead: Leader) -> None:
        self.leave(dead.wire)
        self.leaders.remove(dead)
        if not self.leaders:
            self.lead()

    def die_at(self, call: int) -> None:
        self.memory.calls_left = call

    def __getattr__(self, name: str) -> Any:
        if name.startswith("do_die_at_"):
            return lambda: self.die_at(int(name.removeprefix("do_die_at_")))
        raise AttributeError(name)

    def repair(self) -> None:
        """The leader sends the deletes of its own recent writes once more."""
        self.repairs += 1


# --- schedules ----------------------------------------------------------------------------------

Events = tuple[tuple[int, str], ...]
"""Points and what happens there, in order."""


def check(make: Callable[..., Any], events: Events, *, era: int = ERA) -> World:
    """
    Run a schedule.

    Raises:
        Violation: The host served what it must not, or is not in step again when it should be.
    """
    schedule: dict[int, list[str]] = {}
    for point, event in sorted(events, key=lambda each: each[0]):
        schedule.setdefault(point, []).append(event)
    world = World(make, era=era)
    quiet = max((point // POINTS + 1 + FAULTS.get(name, 0.0) for point, name in events), default=1)
    world.run(int(quiet), schedule)
    world.memory.calls_left = None
    world.run(RECOVERY, {})
    if world.now > world.memory.fresh_until:
        raise Violation(f"out of step at {world.now}, though nothing is wrong any more")
    if world.memory.value != world.current:
        raise Violation("in step, and holds what is old")
    if era == ERA and world.memory.counts.get("consistency_violation"):
        raise Violation("a fault is taken for what no fault can do")
    return world


def one_fault(writes: Iterable[str], points: Iterable[int]) -> Iterator[Events]:
    """Every write with every fault, each at any of the points."""
    places = list(points)
    for write, fault in itertools.product(writes, FAULTS):
        for pair in itertools.product(places, places):
            yield tuple(zip(pair, (write, fault), strict=True))


def two_faults(writes: Sequence[str], points: Iterable[int]) -> Iterator[Events]:
    """Every series of these writes with every pair of faults, each at any of the points."""
    places = list(points)
    for pair in itertools.combinations_with_replacement(FAULTS, 2):
        names = (*writes, *pair)
        for where in itertools.product(places, repeat=len(names)):
            if all(a <= b for a, b in itertools.pairwise(where[: len(writes)])):
                yield tuple(zip(where, names, strict=True))
