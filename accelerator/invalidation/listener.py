"""
The thread that listens for all processes of a host.

Every process has one; all but one of them wait, in C and without the GIL, to become the leader.
The leader follows the channels of all areas, sends the host's heartbeats, and sends what is queued
in the outbox.  It shows that it is well by getting on with its work: a leader that is stopped, or
does not get to run, is replaced within half a second, and finds that out before it does anything
that only one may.  (Nothing here is such a thing: two leaders do each other no harm.)

A real thread of the operating system, also under gevent: a greenlet that does not yield must not
stop the host from hearing.
"""

from __future__ import annotations

import _thread
import atexit
import logging
import os
import random
import socket
import sys
import time
import weakref
from typing import TYPE_CHECKING, Any, Final

from accelerator import message
from accelerator.backend import HEARD_BEAT, HEARD_CONFIRMED, HEARD_MESSAGE
from accelerator.errors import CacheError, RemoteError
from accelerator.invalidation.protocol import MOST_PROBES, REPAIR_SECONDS, Follower
from accelerator.invalidation.resend import Deposed, Resender
from accelerator.local import COUNTERS, LINK_CONNECTED, LINK_LOST, LINK_MESSAGE
from accelerator.message import MessageError
from accelerator.observability import events, oplog

if TYPE_CHECKING:
    from accelerator import local
    from accelerator.backend import Heard, InvalidationSubscriber, Remote
    from accelerator.config import Settings
    from accelerator.invalidation.protocol import Replay

LOG: Final = logging.getLogger("accelerator")

PARKED: Final = 0.25
"""Seconds that a process waits in C before it looks whether it is to end."""
TURN: Final = 0.08
"""Seconds after which the leader shows that it is well; others wait for 0.5."""
BUSY: Final = 0.05
"""Seconds of one turn in which messages are taken, while more of them come."""
BREATH: Final = 0.05
"""Seconds between two heartbeats at least."""
DEAD_AFTER: Final = 3
"""Heartbeats without a sign of life after which a connection is given up."""
OUTBOX_EVERY: Final = 0.1
"""Seconds between two looks into the outbox."""
ANSWERS: Final = 10
"""Answers to probes in a second at most, in the long run: more of them are a flood."""
ANSWERS_AT_ONCE: Final = message.MOST_PROBED
"""As many as somebody gets who asks about all areas, if each is answered by itself."""
COMPLAINT_EVERY: Final = 10.0
RECHECK_EVERY: Final = 60.0
"""Seconds between two looks whether the server has begun anew."""
PAUSE_AFTER_ERROR: Final = 0.5
STOP_PATIENCE: Final = 1.0
"""Seconds that stop() waits at most for the thread: a call of Redis may take two time limits."""

_COUNTER: Final = {name: number for number, name in enumerate(COUNTERS)}
_SAID: Final = {
    "receive_error_decode": ("decode", logging.WARNING),
    "gap": ("gap", logging.DEBUG),
    "flush": ("flush", logging.WARNING),
}
"""Counters that are worth an event, its error_kind, and the level of its line."""


def heartbeat_interval(bound: float) -> float:
    """Seconds between two heartbeats, so that four in a row must fail before the bound ends."""
    return min(0.5, bound / 4)


class Listener:
    """
    This process's part in listening for its host.

    Args:
        memory: The segment, entered by this process.
        remote: The second level.  Best one of the listener's own, with a time limit of at most
            0.2 s: it is used in a thread of the operating system, also under gevent, and a leader
            that waits for longer is replaced.
        settings: Of the process.
    """

    def __init__(self, memory: local.Segment, remote: Remote, settings: Settings) -> None:
        self.memory = memory
        self.remote = remote
        self.settings = settings
        self._lock = _unpatched("allocate_lock")()
        self._worker: _Worker | None = None
        self._at_exit = False

    @property
    def running(self) -> bool:
        """Whether this very process has its thread."""
        worker = self._worker
        return worker is not None and worker.pid == os.getpid() and not worker.over

    @property
    def leading(self) -> bool:
        """Whether this process is the one that listens."""
        worker = self._worker
        return worker is not None and worker.pid == os.getpid() and worker.term != 0

    def start(self) -> None:
        """
        Have the thread run.  Idempotent; to be called again in a forked child.

        Does not wait for Redis, or for anything else.
        """
        worker = self._worker
        if worker is not None and worker.pid == os.getpid() and not worker.stopping:
            return
        if worker is not None and worker.pid != os.getpid():
            # A child: the parent's thread is not here, and may have held the lock.
            self._lock = _unpatched("allocate_lock")()
        with self._lock:
            if self._worker is not worker:
                return
            made = _Worker(self.memory, self.remote, self.settings)
            try:
                _unpatched("start_new_thread")(made.run, ())
            except RuntimeError:  # no thread can be started any more: the interpreter ends
                LOG.debug("no thread for the listener", exc_info=True)
                return
            self._worker = made
        if not self._at_exit:
            self._at_exit = True  # a forked child inherits it
            atexit.register(_stop, weakref.ref(self))

    def stop(self) -> None:
        """
        End it: another process leads at once.  Waits until this one has let go of Redis.

        Idempotent; to be called when the process leaves the segment or ends.
        """
        worker = self._worker
        if worker is None or worker.pid != os.getpid():
            return
        self._worker = None
        worker.stop()


def _stop(reference: weakref.ref[Listener]) -> None:
    listener = reference()
    if listener is not None:
        listener.stop()


def _unpatched(name: str) -> Any:
    """Give what _thread has by that name, whatever gevent has put in its place."""
    monkey = sys.modules.get("gevent.monkey")
    return monkey.get_original("_thread", name) if monkey else getattr(_thread, name)


class _Worker:
    """The thread of one process."""

    def __init__(self, memory: Any, remote: Any, settings: Settings) -> None:
        self.pid = os.getpid()
        self.term = 0
        self.stopping = False
        self.over = False
        self._memory = memory
        self._remote = remote
        self._settings = settings
        self._running = _unpatched("allocate_lock")()  # held while the thread runs
        self._running.acquire()
        self._pause = _unpatched("allocate_lock")()  # never given back: to wait for a while
        self._pause.acquire()

    def run(self) -> None:
        """Do it.  Nothing ever leaves this function but its end."""
        try:
            while not self.stopping and self._memory.incarnation:
                self._once()
        finally:
            self.over = True
            self._running.release()

    def stop(self) -> None:
        """Ask the thread to end, and wait a little if it has anything to let go of."""
        self.stopping = True
        term = self.term
        if term:
            # Here, not in the thread: the others need not wait until it gets to run.
            self._memory.lead_resign(term)
            self._running.acquire(timeout=STOP_PATIENCE)

    def _once(self) -> None:
        started = time.monotonic()
        try:
            self.term = self._memory.lead(PARKED)
            if self.term and not self.stopping:
                _Leadership(self, self._memory, self._remote, self._settings).hold()
        except BaseException:  # such as gevent's Timeout: nobody above would see it, or listen
            LOG.exception("the listener failed, and starts anew")
        finally:
            term, self.term = self.term, 0
            if term:
                self._memory.lead_resign(term)
        if time.monotonic() - started < PAUSE_AFTER_ERROR / 10:
            # It failed, or there is nothing to wait for: not in a loop without rest.
            self.sleep(PAUSE_AFTER_ERROR)

    def sleep(self, seconds: float) -> None:
        """Wait, in steps in which it is noticed that the thread is to end."""
        end = time.monotonic() + seconds
        while not self.stopping and (left := end - time.monotonic()) > 0:
            self._pause.acquire(timeout=min(left, TURN))


class _Leadership:
    """One term of this process as the leader."""

    def __init__(self, worker: _Worker, memory: Any, remote: Any, settings: Settings) -> None:
        self._worker = worker
        self._term = worker.term
        self._memory = memory
        self._remote = remote
        self._interval = heartbeat_interval(settings.freshness_bound)
        self._pauses = settings.reconnect
        origin: bytes = memory.origin
        self._host_channel: str = remote.heartbeat_channel(origin)
        self._areas: list[str] = []
        self._resender = Resender(memory, remote, origin, self._prove)
        self._follower = Follower(
            memory,
            origin=origin.hex().encode(),
            bound=settings.freshness_bound,
            term=self._term,
            count=self._count,
            repair=self._repair,
            forget=self._resender.forget,
            settled=lambda: bool(memory.link()["settled"]),
        )
        self._subscription: InvalidationSubscriber | None = None
        self._host_confirmed = False
        self._silence = 0.0
        """
        Seconds that we have listened since the last byte.  Not those in which this process did not
        get to run: what came meanwhile is still to be read.
        """
        self._unreturned = 0
        """Heartbeats that Redis has executed since the last one came back."""
        self._connect_at = 0.0
        self._failures = 0
        """Connections in a row on which no heartbeat came back."""
        self._beat_at = 0.0
        self._beaten_at = float("-inf")
        self._recheck_at = float("-inf")
        """When to look whether the server has begun anew; always before the first heartbeat."""
        self._linked = False
        """Whether Redis has executed the last heartbeat."""
        self._outbox_at = 0.0
        self._reading = False
        """Whether there is more of a log to be read."""
        self._asked: dict[bytes, list[tuple[str, int]]] = {}
        """Areas and numbers that are to be told, by the nonce of who asked."""
        self._answers_left = float(ANSWERS_AT_ONCE)
        self._answers_at = time.monotonic()
        """How many probes may be answered, and when that was so."""
        self._complaints: dict[str, float] = {}
        """What was warned of, and when."""
        self._is_heard = False
        """Whether a heartbeat has come back on this connection."""
        self._is_breaker_open = events.breaker_was_open(memory.events(1 << 13))
        """As the host was last told, by whoever led then."""

    # --- the loop ---

    def hold(self) -> None:
        """Lead until another one does, or this process is to end."""
        LOG.debug("leading term %d", self._term)
        self._note("elected")
        ended = "error"
        try:
            while self._alive():
                self._turn()
            ended = "resigned" if self._worker.stopping else "deposed"
        except Deposed:
            ended = "deposed"
        finally:
            self._note(ended)
            if self._subscription is not None:
                self._subscription.close()

    def _alive(self) -> bool:
        """Show that work goes on; False: it is another one's."""
        return not self._worker.stopping and bool(self._memory.lead_beat(self._term))

    def _prove(self) -> None:
        """
        Show that work goes on, before a call of Redis, which may take two time limits.

        Raises:
            Deposed: It is another one's.
        """
        if not self._alive():
            raise Deposed

    def _turn(self) -> None:
        self._watch_breaker()
        self._watch()
        if self._subscription is None and time.monotonic() >= self._connect_at:
            self._connect()
        self._beat()
        self._listen()
        self._follower.flush()
        self._answer()
        self._replay()
        self._send()

    def _listen(self) -> None:
        """Wait for messages until something else is to be done; take those that come."""
        subscription = self._subscription
        if subscription is None:
            until = self._connect_at - time.monotonic() if self._areas else TURN
            self._worker.sleep(max(0.001, min(TURN, until)))
            return
        began = time.monotonic()
        # Not at all while a log is being read.
        wait = 0.0 if self._reading else max(0.0, min(TURN, self._next_beat() - began))
        try:
            while True:
                heard, is_alive, is_more = subscription.read(wait)
                now = time.monotonic()
                if not is_alive:
                    self._silence += min(now - began, 2 * TURN)
                    break
                self._silence = 0.0
                for each in heard:
                    self._take(each, now)
                self._follower.flush()
                if not is_more or now - began > BUSY:
                    break
                wait = 0.0
            self._check()
        except (RemoteError, OSError) as error:
            self._lose_by(error)

    def _take(self, heard: Heard, now: float) -> None:
        """Take what was heard."""
        kind, area, data = heard
        if kind == HEARD_CONFIRMED:
            if area:
                self._follower.confirmed(area)
            else:
                self._host_confirmed = True
            return
        self._memory.link_note(LINK_MESSAGE)
        if kind == HEARD_MESSAGE:
            if data is not None:
                self._follower.message(area, data, now)
            else:
                self._follower.unreadable(area, now)
        elif kind == HEARD_BEAT and data is not None:
            self._take_heartbeat(data)

    def _take_heartbeat(self, data: bytes) -> None:
        try:
            own = self._follower.heartbeat(data)
        except MessageError:
            # Nothing stands on it: the next one comes soon.
            self._failed("", "decode", level=logging.WARNING)
            return
        if own:
            if not self._is_heard:
                self._is_heard = True
                self._note("connected")
            self._unreturned = 0
            if self._failures:
                LOG.info("invalidations of other hosts are heard again")
            self._failures = 0

    # --- the subscription ---

    def _watch(self) -> None:
        """Follow the areas that processes of this host have begun to use."""
        new = self._follower.watch(self._memory.watched())
        if not new:
            return
        self._areas += new
        self._recheck_at = float("-inf")
        if self._subscription is not None:
            try:
                self._subscription.subscribe(new)
            except (RemoteError, OSError) as error:
                self._lose_by(error)

    def _connect(self) -> None:
        """Make the connection, and ask for all channels."""
        if not self._areas:
            return  # nobody uses it yet
        try:
            made = self._remote.subscriber(self._host_channel)
        except (CacheError, OSError) as error:
            self._lose(getattr(error, "reason", type(error).__name__))
            return
        self._subscription = made
        self._host_confirmed = self._is_heard = False
        self._follower.connected()
        self._silence = 0.0
        self._unreturned = 0
        self._memory.link_note(LINK_CONNECTED)
        try:
            made.subscribe(self._areas)
        except (RemoteError, OSError) as error:
            self._lose_by(error)

    def _check(self) -> None:
        """
        Give the connection up when it is dead, or leads to where our heartbeats do not.

        Nor is it of use when so much is to be read before a heartbeat that the bound would pass:
        then it is faster to read the log, or to drop what is here.
        """
        if self._silence > DEAD_AFTER * self._interval:
            self._lose("silence")
        elif self._unreturned > DEAD_AFTER:
            self._lose("no heartbeat came back", kind="no_heartbeat")

    def _lose_by(self, error: RemoteError | OSError) -> None:
        """Close the connection because of an error on it."""
        if not isinstance(error, RemoteError):
            self._lose(type(error).__name__)
        elif error.reason == "refused":
            self._host_confirmed = False  # of what was asked for, something is refused
            self._lose(str(error), kind=error.reason)
        else:
            self._lose(error.reason)

    def _lose(self, why: str, *, kind: str = "") -> None:
        """
        Close the connection, and decide when to make the next.

        Args:
            why: In words.
            kind: In one word for the log of operations; "": *why* is one.
        """
        if self._is_heard:
            self._note("lost", kind or why)
        else:
            self._failed("", kind or why)
        self._is_heard = False
        if not self._host_confirmed:
            self._count_all("receive_error_subscribe", "invalidation_receive_failures")
        self._host_confirmed = False
        if self._subscription is not None:
            self._subscription.close()
            self._subscription = None
        first, longest = self._pauses
        pause = min(longest, first * 2.0 ** min(self._failures, 30)) * random.uniform(0.5, 1.0)  # noqa: S311  no secret
        self._failures += 1
        # Nobody reads what may be another server now, until a heartbeat behind this look tells.
        self._recheck_at = self._beat_at = float("-inf")
        self._connect_at = time.monotonic() + pause
        self._memory.link_note(LINK_LOST, pause)
        self._complain(
            f"invalidations of other hosts are not heard ({why}); what is older than the bound is "
            "not served until they are"
        )

    def _complain(self, what: str) -> None:
        """Warn of each thing now and then."""
        now = time.monotonic()
        if now - self._complaints.get(what, float("-inf")) > COMPLAINT_EVERY:
            self._complaints[what] = now
            LOG.warning("%s", what)

    # --- heartbeats ---

    def _next_beat(self) -> float:
        """When to send a heartbeat: at its time, or soon if it would help."""
        if self._follower.eager and self._host_confirmed and self._subscription is not None:
            return min(self._beat_at, self._beaten_at + BREATH)
        return self._beat_at

    def _beat(self) -> None:
        """Send a heartbeat when it is time, or when it would help."""
        now = time.monotonic()
        if not self._areas or now < self._next_beat():
            return
        self._beat_at = now + self._interval
        if self._subscription is not None:
            try:
                self._subscription.ping()
            except (RemoteError, OSError) as error:
                self._lose_by(error)
        self._prove()
        try:
            self._recheck(now)
            sent = self._beaten_at = time.monotonic()
            number, areas = self._follower.sending(sent)
            self._remote.beat(areas, self._host_channel, number)
        except CacheError as error:
            self._unlinked(getattr(error, "reason", "setting"))
            return
        self._memory.link_confirm(sent)
        self._unreturned += 1
        if not self._linked:
            # It is back: the pause before the next connection was for when it is not.
            self._linked = True
            self._connect_at = min(self._connect_at, time.monotonic() + self._pauses[0])
            self._outbox_at = 0.0

    def _recheck(self, now: float) -> None:
        """
        See to it that nobody is given what a server has read from its disk.

        Also now and then without cause, so that the time of the last look, which is noted there,
        tells a server that has begun anew from one that ran already, and was promoted.
        """
        if now < self._recheck_at:
            return
        for area in self._remote.recheck(self._areas, self._memory.origin):
            self._complain(
                f"{self._remote.title} has begun anew from its disk: area {area} is dropped there"
            )
        self._recheck_at = now + RECHECK_EVERY
        self._prove()

    def _unlinked(self, why: str) -> None:
        self._linked = False
        if why in {"refused", "other"}:
            self._memory.link_refused()
        self._complain(
            f"{self._remote.title} does not take heartbeats ({why}), so that it is not read"
        )

    # --- probes ---

    def _answer(self) -> None:
        """
        Answer the probes to which this host has come: at once, unless they are a flood.

        One answer tells of all areas that somebody asks about, as far as they are due.
        """
        for probe in self._follower.probes():
            areas = self._asked.setdefault(probe.nonce, [])
            if len(areas) < message.MOST_PROBED:
                areas.append((probe.area, probe.seq))
        while len(self._asked) > MOST_PROBES:
            del self._asked[next(iter(self._asked))]
        for _ in range(self._answers_now(len(self._asked))):
            nonce = next(iter(self._asked))
            applied = self._asked.pop(nonce)
            self._prove()
            said = message.answer(self._memory.origin, os.getpid(), socket.gethostname(), applied)
            try:
                self._remote.answer(nonce, said)
            except RemoteError as error:
                self._complain(f"{self._remote.title} does not take answers ({error.reason})")
                self._asked.clear()  # the others would fail, too, each after its time limit
                return

    def _answers_now(self, wanted: int) -> int:
        """Take so many of the answers that may be given, or those that are left."""
        now = time.monotonic()
        earned = (now - self._answers_at) * ANSWERS
        self._answers_left = min(float(ANSWERS_AT_ONCE), self._answers_left + earned)
        self._answers_at = now
        granted = min(wanted, int(self._answers_left))
        self._answers_left -= granted
        return granted

    # --- what was missed, here and there ---

    def _replay(self) -> None:
        """Read what was missed from the logs."""
        began = time.monotonic()
        while wanted := self._follower.replays(time.monotonic()):
            if time.monotonic() - began > BUSY:
                break
            for replay in wanted:
                self._prove()
                self._replay_one(replay)
        self._reading = bool(wanted)

    def _replay_one(self, replay: Replay) -> None:
        try:
            entries = self._remote.log(replay.area, replay.first, replay.last, replay.limit)
        except RemoteError as error:
            self._follower.replay_failed(replay, time.monotonic())
            self._failed(replay.area, error.reason, level=logging.WARNING)
            return
        self._follower.replayed(replay, entries, time.monotonic())

    def _send(self) -> None:
        """Send what is queued, as soon as Redis takes it."""
        now = time.monotonic()
        if not self._linked or now < self._outbox_at:
            return
        self._outbox_at = now + OUTBOX_EVERY
        try:
            self._resender.repair()
            if self._resender.send_due():
                self._outbox_at = 0.0
        except RemoteError as error:
            # The next heartbeat tells when to try again.
            self._outbox_at = time.monotonic() + self._interval / 2
            self._complain(f"{self._remote.title} does not take what is queued ({error.reason})")

    def _repair(self) -> None:
        """Called by the follower when a history has ended."""
        self._resender.ask_for_repair(REPAIR_SECONDS)
        try:
            self._resender.repair()
        except RemoteError as error:
            self._complain(
                f"{self._remote.title} does not take what a failover may have lost ({error.reason})"
            )

    # --- telling ---

    def _watch_breaker(self) -> None:
        """
        Tell that the breaker has opened or closed: by who listens, as one process must.

        Whoever reports the failure that opens it cannot tell that it did, and all others only see
        the state.  What opens and closes between two turns, 80 ms apart, is not told.
        """
        is_open = self._memory.link()["breaker"] != "closed"
        if is_open == self._is_breaker_open:
            return
        self._is_breaker_open = is_open
        self._note(
            events.OPENED if is_open else events.CLOSED,
            "backend" if is_open else oplog.NO_ERROR,
            op=events.BREAKER,
            level=logging.WARNING if is_open else logging.INFO,
        )

    def _note(
        self,
        result: str,
        error_kind: str = oplog.NO_ERROR,
        *,
        op: str = "listen",
        level: int = logging.DEBUG,
    ) -> None:
        """Note what changes seldom."""
        oplog.recorded(
            *("", op, result, time.monotonic()),
            error_kind=error_kind,
            memory=self._memory,
            level=level,
        )

    def _failed(self, area: str, kind: str, *, level: int = logging.DEBUG) -> None:
        """Note what went wrong; at DEBUG where a line in words tells of it."""
        oplog.failed(area, "listen", kind, time.monotonic(), memory=self._memory, level=level)

    def _count(self, area: str, name: str, n: int) -> None:
        self._memory.area_count(area, _COUNTER[name], n)
        if name in _SAID:
            kind, level = _SAID[name]
            self._failed(area, kind, level=level)

    def _count_all(self, *names: str) -> None:
        for area in self._areas:
            for name in names:
                self._memory.area_count(area, _COUNTER[name], 1)
