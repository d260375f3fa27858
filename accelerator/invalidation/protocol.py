"""
What a host knows of the writes of others, and when that lets it serve what it holds.

No socket, no thread, no clock: the listener brings what it hears and the time, and the tests bring
every order of events there is.

Redis gives each explicit write of an area a number (*seq*), in one step with the write itself, a
log entry and a message.  *known* is the number up to which this host has dropped what the writes
made old.  A heartbeat is a script of our own that reads the numbers and publishes them to us.

**The bound.**  When heartbeat n, sent at *sent*, says seq S and S <= known, then every write that
Redis took before *sent* has been dropped here, so what this host holds is at most as old as *sent*:
it may be served until ``sent + bound``.  Nothing else extends it.  Which messages were lost or late
does not matter for that, only for how soon *known* catches up.  What the argument stands on:

- *known* is never too high.  It is raised by the next number, after its keys were dropped; by a
  number read from Redis before the whole area was dropped; and by nothing else.
- What a message asks for is done by then to all that this host holds, loads that run included: a
  key's items go, or their lives end; a delete by tag kills what was loaded before it was applied
  here, whether that is stored yet or not (see *since* in the segment), and leaves what is loaded
  after it.  That is enough: a load that began after the message was applied began after Redis had
  taken the delete.  A copy that a reader fetches from Redis was current by the table there *after*
  it was read, and is kept as loaded before that: so it is dead as soon as the message of a delete
  that came later is applied.
- A number is given once in a history.  A history has a name, the replication id: a failover that
  lost the tail of the last one gives the same numbers again, to other writes, under another name.
  (Within a history, a counter that was lost starts again far above: see the write script.)
- A heartbeat's numbers are at least those known when it was sent.  Less means that the counter was
  lost; then nothing of what is known is worth anything.
- After an interruption it waits until the link has *settled* (see the segment's link): a host that
  could not tell Redis of its writes meanwhile tells it before then.  So where Redis was away from
  all hosts, nobody who hears of it again serves what was old when it went away, although Redis has
  not been told yet.  (A host that alone is cut off tells nobody; that no other host can know.)
- The log does not say which history it is of, and a failover may come between a heartbeat and the
  replay that it asked for.  So what a replay has raised counts only for heartbeats sent after it:
  if they still tell the same history, the log was of that one.

**Tags** need nothing else: their messages are numbered, logged, lost, replayed and repaired like
all others.  They are applied at once, not gathered: it is O(1), and *known* is written behind all
drops in any case.  To apply one twice kills what was loaded between; so an own one is skipped if
its note says that its sender has dropped a second time behind Redis.  Until it says so the message
is applied: the sender may have died, or be stopped, just before.

**Probes** make nothing old.  They are numbered like all others, and an answer to one with number n
says that all up to n has been applied here: it is given when n <= *known* and nothing is left
gathered.  It stands on no heartbeat, so what it says holds for the history that this host takes to
go on: whether it has ended is known half a second later.  One whose history has ended gets no
answer, nor does one whose leader is killed in between: whoever asked asks again.

**Violations** are counted where something is so that no fault makes so: neither a lost message, nor
a failover, a restart, an eviction, a kill at any point.  What is left is a mistake of ours, or
somebody else's hand on what is ours in Redis or in the segment.  They are three, each only as long
as the history has a name and keeps it:

- Redis says a lower number than this host has applied, or than the segment says that it has.
- A number is heard a second time on one connection, or a lower one.  A failover of the server that
  gives them may do that on a cluster, so it counts when a heartbeat sent later tells that there was
  none.
- An entry of the log holds a message of another number.

What is done about them is what is done about a counter, or a log, that was lost; so they cost no
correctness that this host could keep.

**Killed anywhere.**  The next leader starts from ``area_state``.  It is written after the drops
that it speaks of and before the extension that stands on it, so it is never too high either.  One
that is too low costs a replay, whose drops do no harm.

**Two leaders** (one stopped, replaced, and running again) each argue from their own *known* and
their own heartbeats, whose numbers are theirs alone.  A drop too many is harmless, and the time
until which an area may be served is only ever raised, by leaders that each may.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from accelerator.message import (
    CLEAR,
    EXPIRE,
    EXPIRE_TAGS,
    FORGET,
    FORGET_TAGS,
    PROBE,
    SET,
    MessageError,
    parse,
    parse_heartbeat,
    replication_hash,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from accelerator.message import Heartbeat, Invalidation

GARBAGE_PAUSE: Final = 1.0
"""Seconds between two replays of an area that are asked for by bytes nobody can read."""
LONGEST_REPLAY: Final = 50_000
"""Messages; above that it is cheaper to drop the area than to read the log."""
REPLAY_CHUNK: Final = 2_000
"""Messages that are asked for in one go: some 20 ms of work."""
RETRY_PAUSE: Final = 0.1
"""Seconds until a log that could not be read is asked for again."""
BATCH: Final = 4_096
"""Keys that are gathered before they are dropped."""
REPAIR_SECONDS: Final = 10.0
"""Own writes of so long ago may be missing in what a failover made the truth."""
MOST_PROBES: Final = 256
"""Probes that wait for an answer; of more, the oldest get none."""
MOST_BEATS: Final = 64
"""Heartbeats that are remembered; older ones would extend nothing any more."""
_LAST: Final = 2**63 - 1
_UNNAMED: Final = replication_hash(b"?")
"""Of all histories where the server does not tell their names: any of them may be another one."""


class Memory(Protocol):
    """What is used of the segment; see there."""

    def invalidate(self, area: str, keys: list[bytes], expire: bool = False) -> int: ...  # noqa: D102
    def invalidate_tags(self, area: str, tags: list[bytes], expire: bool = False, /) -> None: ...  # noqa: D102
    def clear_area(self, area: str, /) -> None: ...  # noqa: D102
    def area_state(self, area: str, /) -> tuple[int, int]: ...  # noqa: D102
    def area_applied(self, area: str, replication: int, seq: int, /) -> None: ...  # noqa: D102
    def area_extend(self, area: str, until: float, /) -> None: ...  # noqa: D102
    def outbox_heard(self, number: int, /) -> bool: ...  # noqa: D102
    def outbox_given_up(self, number: int, /) -> bool: ...  # noqa: D102


class Replay(NamedTuple):
    """A part of an area's log that is to be read and handed to replayed()."""

    area: str
    first: int
    last: int
    limit: int


class Probe(NamedTuple):
    """A probe that may be answered."""

    nonce: bytes
    area: str
    seq: int


class _Area:
    """What is known of one area."""

    __slots__ = (
        "again_at",
        "batch",
        "confirmed",
        "early",
        "expired",
        "heard",
        "known",
        "name",
        "proof",
        "received",
        "replication",
        "suspect",
        "suspect_at",
        "target",
        "twice_at",
        "written",
    )

    def __init__(self, name: str, replication: int, known: int) -> None:
        self.name = name
        self.replication = replication
        """The history that *known* belongs to; 0: in none yet, or lost."""
        self.known = known
        self.written = known
        """What area_state says."""
        self.target = known
        """The highest number heard of; above *known*: something between is missing."""
        self.proof = 0
        """Only heartbeats with a higher number than this extend."""
        self.confirmed = False
        """Whether the subscription of the present connection is known to Redis."""
        self.suspect = False
        """Whether something unreadable came that may have been a message."""
        self.suspect_at = 0.0
        """Not before then is something unreadable a reason to ask for a replay again."""
        self.again_at = 0.0
        """Not before then is a replay asked for."""
        self.heard = 0
        """The highest number heard on the present connection, in the present history."""
        self.twice_at = 0
        """The heartbeat sent last before a number was heard again there; 0: none was."""
        self.received = 0
        """
        Messages that were taken, and not yet counted.

        One that comes before its turn is no part of it before *known* passes it: the next leader,
        who begins at *written*, would read it from the log, and count it, too.
        """
        self.early: set[int] = set()
        """Numbers of those that came before their turn: the log will give them once more."""
        self.batch: list[bytes] = []
        self.expired: list[bytes] = []

    @property
    def gap(self) -> bool:
        return self.target > self.known


class _Asked(NamedTuple):
    """An area that a heartbeat asks about, and what was known when it was sent."""

    area: _Area
    confirmed: bool
    replication: int
    known: int


class _Beat(NamedTuple):
    """A heartbeat on its way."""

    sent: float
    asked: tuple[_Asked, ...]


class Follower:
    """
    Follows the writes of all hosts for one leadership of this host's listener.

    Args:
        memory: The segment, or what a test has for it.
        origin: Hexadecimal digits of this segment, as its own messages carry them.
        bound: Seconds that a host may lag behind.
        term: Of this leadership; no two leaderships of a segment have the same.
        count: Called with area, name of a counter, and by how much it rises.
        repair: Called before anything is forgotten of a history that ended: to send once more the
            deletes of own recent writes, which may be missing in what goes on instead.
        settled: Tells whether all hosts have had time to send what they could not.
        forget: Called with area and keys of own sets that Redis took after their callers had been
            told that it had not: they may have undone what came later, and are to be deleted.
    """

    def __init__(
        self,
        memory: Memory,
        *,
        origin: bytes,
        bound: float,
        term: int,
        count: Callable[[str, str, int], None],
        repair: Callable[[], None],
        settled: Callable[[], bool] = lambda: True,
        forget: Callable[[str, list[bytes]], None] = lambda _area, _keys: None,
    ) -> None:
        self._memory = memory
        self._origin = origin
        self._bound = bound
        self._count = count
        self._repair = repair
        self._forget = forget
        self._settled = settled
        self._areas: dict[str, _Area] = {}
        self._beats: dict[int, _Beat] = {}
        # Two leaders hear each other's heartbeats, and must not take them for their own.
        self._number = term << 32
        self._dirty: set[_Area] = set()
        # As many as anybody likes to send come, and some may never be answered.
        self._probes: deque[Probe] = deque(maxlen=MOST_PROBES)
        self.eager = False
        """Whether a heartbeat sent now would extend what the last one did not."""

    # --- the connection ---------------------------------------------------------------------

    def watch(self, names: Iterable[str]) -> list[str]:
        """Follow these areas too; gives those that are new, for which to subscribe."""
        new = [name for name in names if name not in self._areas]
        for name in new:
            self._areas[name] = _Area(name, *self._memory.area_state(name))
        return new

    @property
    def areas(self) -> list[str]:
        """The areas that are followed."""
        return list(self._areas)

    def connected(self) -> None:
        """There is a new connection; nothing is subscribed to on it."""
        self._beats.clear()
        for area in self._areas.values():
            area.confirmed = False
            area.heard = area.twice_at = 0

    def confirmed(self, name: str) -> bool:
        """Redis has confirmed the subscription of an area; False: it was known, or is not ours."""
        area = self._areas.get(name)
        if area is None or area.confirmed:
            return False
        area.confirmed = self.eager = True
        return True

    # --- heartbeats -------------------------------------------------------------------------

    def sending(self, now: float) -> tuple[int, list[str]]:
        """Note that a heartbeat is sent now; gives its number and the areas to ask about."""
        self.flush()  # what is known now is what the answer is compared with
        self._number += 1
        self.eager = False
        asked = tuple(
            _Asked(area, area.confirmed, area.replication, area.known)
            for area in self._areas.values()
        )
        self._beats[self._number] = _Beat(now, asked)
        while len(self._beats) > MOST_BEATS:
            del self._beats[next(iter(self._beats))]
        return self._number, list(self._areas)

    def heartbeat(self, data: bytes) -> bool:
        """
        Take what came on this host's own channel; True: it was a heartbeat of this leader.

        Raises:
            MessageError: Nobody can read it.
        """
        heard = parse_heartbeat(data)
        beat = self._beats.get(heard.number)
        if beat is None:
            return False  # another leader's, or one of a connection that is gone
        if len(heard.seqs) != len(beat.asked):
            raise MessageError("a heartbeat with other areas than were asked about")
        del self._beats[heard.number]
        self.flush()  # drops come before what stands on them
        answers = [
            (asked, seq)
            for asked, seq in zip(beat.asked, heard.seqs, strict=True)
            if asked.confirmed
        ]
        for asked, seq in answers:
            self._check(asked, seq, heard)
        if any(_history_ended(asked, seq, heard.replication) for asked, seq in answers):
            self._start_over()
        settled = self._settled()
        for asked, seq in answers:
            if self._judge(asked.area, heard.replication, seq, heard.number) and settled:
                self._memory.area_extend(asked.area.name, beat.sent + self._bound)
        return True

    def _check(self, asked: _Asked, seq: int, heard: Heartbeat) -> None:
        """Count what nothing but a mistake or somebody's hand can have done: see Violations."""
        area = asked.area
        is_named = heard.replication != _UNNAMED
        if is_named and asked.replication == area.replication == heard.replication:
            if asked.known > seq:
                self._count(area.name, "consistency_violation", 1)
            if area.twice_at and heard.number > area.twice_at:
                self._count(area.name, "consistency_violation", 1)
        if heard.number > area.twice_at:
            area.twice_at = 0

    def _start_over(self) -> None:
        """The history that is known has ended: no number of it says anything any more."""
        self._repair()
        self._probes.clear()  # their numbers are of the history that has ended
        for area in self._areas.values():
            area.replication = 0

    def _judge(self, area: _Area, replication: int, seq: int, number: int) -> bool:
        """Compare what Redis has given with what is known here; True: it is all done."""
        if not area.replication:
            area.heard = area.twice_at = 0  # numbers of this history, from now on
            # The first heartbeat since its subscription: whatever was stored before it was may
            # have missed a message.
            self._clear(area, replication, seq)
            return True
        if seq > area.known:
            # Redis sends in order, so this is no longer on its way.
            self._miss(area, seq)
            return False
        return number > area.proof

    # --- messages ---------------------------------------------------------------------------

    def message(self, name: str, data: bytes, now: float) -> None:
        """Take what came on the channel of an area.  Done at the latest by flush()."""
        area = self._areas.get(name)
        if area is None:
            return
        try:
            message = parse(data)
        except MessageError:
            self.unreadable(name, now)
            return
        if area.replication and message.seq <= area.heard:
            area.twice_at = area.twice_at or max(1, self._number)
        area.heard = max(area.heard, message.seq)
        if area.replication and message.seq <= area.known:
            if message.kind == PROBE:
                self._note_probe(area, message)  # what was given up was not looked at
            return  # a replay was faster
        # It is done whatever number it has, as a drop too many does no harm; what it proves
        # depends on the number.
        self._take(area, message)
        if not area.replication:
            area.received += 1
            return
        if message.seq == area.known + 1:
            area.received += 1
            area.known = message.seq
        else:
            area.early.add(message.seq)
            self._miss(area, message.seq)

    def unreadable(self, name: str, now: float) -> None:
        """Something came on the channel of an area that nobody here can read."""
        area = self._areas.get(name)
        if area is None:
            return
        self._count_unreadable(name)
        if now >= area.suspect_at:
            # If it was a message, it has a number and an entry in the log.
            area.suspect_at = now + GARBAGE_PAUSE
            area.suspect = True
            self._count(name, "gap", 1)

    def _count_unreadable(self, name: str) -> None:
        self._count(name, "receive_error_decode", 1)
        self._count(name, "invalidation_receive_failures", 1)

    def _miss(self, area: _Area, seq: int) -> None:
        if not area.gap:
            self._count(area.name, "gap", 1)
        area.target = max(area.target, seq)

    def _take(self, area: _Area, message: Invalidation) -> None:
        """Drop what a message names, but not what its own sender has stored here."""
        again = message.seq in area.early
        area.early.discard(message.seq)
        if message.kind == PROBE:
            self._note_probe(area, message)
            self._dirty.add(area)
            return
        keys = message.keys
        if message.origin == self._origin:
            keys = self._own(area, message, again=again)
        if message.kind == CLEAR:
            self._memory.clear_area(area.name)
        elif message.kind in {FORGET_TAGS, EXPIRE_TAGS}:
            self._drop_tags(area, keys, expire=message.kind == EXPIRE_TAGS)
        elif message.kind == EXPIRE:
            area.expired += keys
        else:
            area.batch += keys
        self._dirty.add(area)
        if len(area.batch) + len(area.expired) >= BATCH:
            self.flush()

    def _own(self, area: _Area, message: Invalidation, *, again: bool) -> list[bytes]:
        """
        Note own messages as heard; give the keys that are to be dropped all the same.

        A delete is done again: its sender may have died between Redis and its second drop.  A set
        is not if the copy here is the very one that it stored, be it told as a delete, as Redis was
        not asked at first: whatever came before has been applied, so that copy is newer; nor is a
        delete by tag if its note tells of the second drop.
        """
        late = [note != 0 and self._memory.outbox_given_up(note) for note in message.notes]
        heard = [note != 0 and self._memory.outbox_heard(note) for note in message.notes]
        if message.kind not in {SET, FORGET, FORGET_TAGS, EXPIRE_TAGS}:
            return message.keys
        if message.kind == SET and any(late):
            # A connection that was given up carried it on: maybe past a delete that was done since.
            self._forget(
                area.name, [key for key, is_late in zip(message.keys, late, strict=True) if is_late]
            )
            return message.keys
        keys = [key for key, same in zip(message.keys, heard, strict=True) if not same]
        if len(keys) < len(message.keys) and not again:
            self._count(area.name, "own_skipped", len(message.keys) - len(keys))
        return keys

    def _note_probe(self, area: _Area, message: Invalidation) -> None:
        self._probes.append(Probe(message.keys[0], area.name, message.seq))

    def probes(self) -> list[Probe]:
        """Give the probes up to which all has been applied here, each once: to be answered now."""
        if not self._probes:
            return []
        self.flush()
        waiting = [probe for probe in self._probes if not self._has_come_to(probe)]
        due = [probe for probe in self._probes if self._has_come_to(probe)]
        self._probes = deque(waiting, MOST_PROBES)
        return due

    def _has_come_to(self, probe: Probe) -> bool:
        area = self._areas[probe.area]
        return area.replication != 0 and probe.seq <= area.known

    def flush(self) -> None:
        """Do what was gathered.  To be called after each part of the stream."""
        for area in self._dirty:
            if area.expired:
                self._drop(area, area.expired, expire=True)
                area.expired = []
            if area.batch:
                self._drop(area, area.batch, expire=False)
                area.batch = []
            if area.received:
                self._count(area.name, "invalidation_receive", area.received)
                area.received = 0
            # After the drops: whoever leads next believes it.
            if area.replication and area.written != area.known:
                self._memory.area_applied(area.name, area.replication, area.known)
                area.written = area.known
        self._dirty.clear()

    def _drop(self, area: _Area, keys: list[bytes], *, expire: bool) -> None:
        try:
            self._memory.invalidate(area.name, keys, expire)
        except (TypeError, ValueError):
            self._drop_all(area)

    def _drop_tags(self, area: _Area, tags: list[bytes], *, expire: bool) -> None:
        if not tags:
            return
        try:
            self._memory.invalidate_tags(area.name, tags, expire)
        except (TypeError, ValueError):
            self._drop_all(area)

    def _drop_all(self, area: _Area) -> None:
        """
        Drop an area as a message names what nobody knows here.

        One that is not followed must not be believed either, and one that ends the listener would
        do so for ever.
        """
        self._count(area.name, "receive_error_apply", 1)
        self._count(area.name, "invalidation_receive_failures", 1)
        self._memory.clear_area(area.name)

    # --- what was missed --------------------------------------------------------------------

    def replays(self, now: float) -> list[Replay]:
        """Give the parts of logs that are to be read now."""
        wanted = []
        for area in self._areas.values():
            if not (area.gap or area.suspect) or not area.replication or now < area.again_at:
                continue
            if area.target - area.known > LONGEST_REPLAY:
                self._give_up(area, area.target)
                continue
            last = _LAST if area.suspect else area.target
            wanted.append(Replay(area.name, area.known + 1, last, REPLAY_CHUNK))
        return wanted

    def replayed(self, replay: Replay, entries: Sequence[tuple[int, bytes]], now: float) -> None:
        """Take the entries of the log that were asked for, in their order."""
        area = self._areas[replay.area]
        if not area.replication:
            return  # the history that was asked about has ended meanwhile
        before = area.known
        for seq, data in entries:
            if seq <= area.known:
                continue
            try:
                message = parse(data)
            except MessageError:
                self._count_unreadable(area.name)
                area.again_at = area.suspect_at = now + GARBAGE_PAUSE
                message = None
            if message is not None and message.seq != seq:
                self._count(area.name, "consistency_violation", 1)
            if message is None or message.seq != seq or seq != area.known + 1:
                self._give_up(area, max(area.target, entries[-1][0]))
                return
            self._take(area, message)
            area.received += 1
            area.known = seq
            area.proof = self._number
        if area.known > before:
            self._count(area.name, "replayed", area.known - before)
            self.eager = True
        elif area.gap:
            self._give_up(area, area.target)
        if len(entries) < replay.limit:
            area.suspect = False
        self.flush()

    def replay_failed(self, replay: Replay, now: float) -> None:
        """Note that the log could not be read: again a little later."""
        area = self._areas[replay.area]
        area.again_at = max(area.again_at, now + RETRY_PAUSE)

    def _give_up(self, area: _Area, known: int) -> None:
        """What is missing cannot be had: drop everything."""
        self._count(area.name, "flush", 1)
        area.proof = self._number
        self._clear(area, area.replication, known)
        self.eager = True

    def _clear(self, area: _Area, replication: int, known: int) -> None:
        """
        Drop the area, and know all that Redis had done before.

        *known* was read from Redis, so the writes up to it were done before this drop: whatever is
        loaded after it has seen them.
        """
        self._memory.clear_area(area.name)
        self._memory.area_applied(area.name, replication, known)
        # Applied when they came, and not read from the log any more: of another history all.
        is_same = area.replication == replication
        later = {seq for seq in area.early if is_same and seq > known}
        area.received += len(area.early) - len(later)
        area.early = later
        self._dirty.add(area)
        area.replication = replication
        area.known = area.written = area.target = known
        area.suspect = False
        area.batch = []
        area.expired = []


def _history_ended(asked: _Asked, seq: int, replication: int) -> bool:
    """Tell whether the numbers known are of another history than those that Redis gives now."""
    area = asked.area
    if not area.replication:
        return False
    return area.replication != replication or (
        asked.replication == area.replication and seq < asked.known
    )
