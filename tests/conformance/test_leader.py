"""Who runs the listener: a heartbeat lease with a term."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

LONG = 10.0
"""Seconds that only a broken election lets a test wait."""
SOON = 2.0
"""Seconds by which what happens at once has happened, also on a busy machine."""
BEAT_MAX = 0.5


@pytest.fixture
def segment(memory: Any) -> Any:
    """A memory that this process is registered in."""
    memory.segment.register()
    return memory.segment


@pytest.fixture
def term(segment: Any) -> int:
    """Term of this process, which leads."""
    term: int = segment.lead(0.0)
    assert 0 < term
    return term


@pytest.fixture
def waiting(segment: Any) -> Iterator[Callable[[], list[int]]]:
    """Start a thread that wants to lead; give the list that it will put its term into."""
    threads = []

    def start() -> list[int]:
        terms: list[int] = []
        began = threading.Event()

        def wait() -> None:
            began.set()
            terms.append(segment.lead(LONG))

        threads.append(threading.Thread(target=wait))
        threads[-1].start()
        assert began.wait(LONG)
        return terms

    yield start
    segment.lead_resign(segment.leader()["term"])
    for thread in threads:
        thread.join(2 * LONG)
        assert not thread.is_alive()


def ends(check: Callable[[], object]) -> bool:
    """Wait until *check* holds, as another thread or process makes it."""
    end = time.monotonic() + LONG
    while not check() and time.monotonic() < end:
        time.sleep(0.001)
    return bool(check())


class TestClaim:
    def test_nobody(self, segment: Any) -> None:
        """As long as nobody has led there is no term."""
        shown = segment.leader()
        assert (0, 0, 0) == (shown["term"], shown["incarnation"], shown["pid"])

    def test_first(self, segment: Any) -> None:
        """Who asks first leads at once."""
        term = segment.lead(0.0)
        shown = segment.leader()
        assert (term, segment.incarnation, os.getpid()) == (
            shown["term"],
            shown["incarnation"],
            shown["pid"],
        )
        assert 0 <= shown["beat_age"] < BEAT_MAX

    def test_second(self, segment: Any, term: int) -> None:
        """While somebody leads nobody else does, however long it waits for that."""
        began = time.monotonic()
        assert segment.lead_beat(term)
        assert 0 == segment.lead(0.1)
        assert 0.1 <= time.monotonic() - began

    def test_threads(self, segment: Any) -> None:
        """Of many that ask at once one leads."""
        start = threading.Barrier(8)
        terms = []

        def ask() -> None:
            start.wait(LONG)
            terms.append(segment.lead(0.0))

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(LONG)
        assert 7 == terms.count(0)
        assert segment.leader()["term"] == max(terms)

    def test_not_registered(self, memory: Any) -> None:
        """A process that has left does not lead, and does not wait for it."""
        memory.segment.register()
        memory.segment.unregister()
        began = time.monotonic()
        assert 0 == memory.segment.lead(LONG)
        assert time.monotonic() - began < SOON

    def test_shown(self, segment: Any, term: int) -> None:
        """The statistics show who leads."""
        shown = segment.stats()["leader"]
        assert (term, os.getpid()) == (shown["term"], shown["pid"])


class TestBeat:
    def test_beat(self, segment: Any, term: int, clock: Any) -> None:
        """Who shows in time that it is well goes on to lead."""
        for _ in range(4):
            clock.advance(0.3)
            assert segment.lead_beat(term)
            assert 0 == segment.lead(0.0)
        assert term == segment.leader()["term"]

    def test_late(self, segment: Any, term: int, clock: Any) -> None:
        """A beat that is late is one, as long as nobody else leads."""
        clock.advance(60)
        assert 60 <= segment.leader()["beat_age"]
        assert segment.lead_beat(term)
        assert segment.leader()["beat_age"] < BEAT_MAX
        assert 0 == segment.lead(0.0)

    def test_taken_over(self, segment: Any, term: int, clock: Any) -> None:
        """Without a beat for half a second another one leads, and the old term is refused."""
        assert segment.lead_beat(term)
        clock.advance(0.3)
        assert 0 == segment.lead(0.0)
        clock.advance(0.2 + 0.01)
        newer = segment.lead(0.0)
        assert term < newer
        assert not segment.lead_beat(term)
        assert segment.lead_beat(newer)

    def test_waiting(self, segment: Any, term: int, waiting: Any, clock: Any) -> None:
        """Who waits takes over without being woken by anybody."""
        terms = waiting()
        assert segment.lead_beat(term)
        clock.advance(0.6)
        assert ends(lambda: terms)
        assert term < terms[0]

    def test_no_term(self, segment: Any, term: int) -> None:
        """What never was a term is refused."""
        assert not segment.lead_beat(0)
        assert not segment.lead_beat(term + 1)


class TestResign:
    def test_resign(self, segment: Any, term: int) -> None:
        """The next one leads at once, in a term of its own."""
        segment.lead_resign(term)
        assert 0 == segment.leader()["incarnation"]
        assert not segment.lead_beat(term)
        assert term < segment.lead(0.0)

    def test_woken(self, segment: Any, term: int, waiting: Any) -> None:
        """Who waits is woken, long before it would have looked again by itself."""
        delays = []
        for _ in range(5):
            terms = waiting()
            assert segment.lead_beat(term)
            time.sleep(0.01)  # it is asleep by then, for 50 ms
            began = time.monotonic()
            segment.lead_resign(term)
            assert ends(lambda terms=terms: terms)
            delays.append(time.monotonic() - began)
            assert term < terms[0]
            term = terms[0]
        assert min(delays) < 0.025

    def test_old(self, segment: Any, term: int, clock: Any) -> None:
        """Who was taken over from cannot end the term of who did."""
        clock.advance(1)
        newer = segment.lead(0.0)
        segment.lead_resign(term)
        assert segment.lead_beat(newer)
        assert 0 == segment.lead(0.0)

    def test_left(self, segment: Any, term: int) -> None:
        """A process that leaves the memory leads no more."""
        assert segment.lead_beat(term)
        segment.unregister()
        assert not segment.lead_beat(term)
        segment.register()
        assert term < segment.lead(0.0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork() here")
class TestFork:
    def test_child(self, segment: Any, term: int) -> None:
        """A forked child has neither its parent's term nor, unregistered, one of its own."""

        def work() -> bool:
            began = time.monotonic()
            refused = not segment.lead_beat(term) and 0 == segment.lead(LONG)
            return refused and time.monotonic() - began < SOON

        assert in_child(work)
        assert segment.lead_beat(term)

    @pytest.mark.parametrize("death", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
    def test_gone(self, memory: Any, segment: Any, death: int) -> None:
        """A leader that is killed or stopped is followed by who waits."""
        if memory.kind != "shared":
            pytest.skip("memory of one process")
        pid = os.fork()
        if pid == 0:
            segment.register()
            segment.lead(LONG)
            os.kill(os.getpid(), death)
            os._exit(1)
        try:
            _, status = os.waitpid(pid, os.WUNTRACED)
            assert os.WIFSTOPPED(status) if death == signal.SIGSTOP else os.WIFSIGNALED(status)
            assert pid == segment.leader()["pid"]
            term = segment.leader()["term"]
            began = time.monotonic()
            assert term < segment.lead(LONG)
            assert time.monotonic() - began < SOON
            assert os.getpid() == segment.leader()["pid"]
        finally:
            if death == signal.SIGSTOP:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)


def in_child(work: Callable[[], bool]) -> bool:
    """Whether *work* holds in a forked child."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            code = 0 if work() else 1
        finally:
            os._exit(code)
    return os.waitpid(pid, 0)[1] == 0
