"""The link to L2: how current its answers are, and whether it is asked at all."""

import math
import os
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from accelerator.process_local import (
    LINK_CONNECTED,
    LINK_LOST,
    LINK_MESSAGE,
    REMOTE_GO,
    REMOTE_NO,
    REMOTE_PROBE,
)

BOUND = 2.0
FAILURES = 5
LONG = 10.0
"""Seconds that only a broken link lets a test wait."""


class Link:
    """The link of a memory, and its clock."""

    def __init__(self, memory: Any) -> None:
        memory.segment.register()
        self.segment = memory.segment
        self.clock = memory.clock

    @property
    def now(self) -> float:
        """Time as it is passed to the segment."""
        return time.monotonic() + float(self.clock.ahead)

    @property
    def shown(self) -> dict[str, Any]:
        return dict(self.segment.link())

    def confirm(self, ago: float = 0.0) -> None:
        self.segment.link_confirm(self.now - ago)

    def fail(self, times: int = 1, *, probe: bool = False) -> None:
        for _ in range(times):
            self.segment.remote_failed(self.now, probe)

    def read(self, bound: float = BOUND) -> int:
        return int(self.segment.remote_ask(bound, True))

    def write(self) -> int:
        return int(self.segment.remote_ask(BOUND, False))

    def half_open(self) -> None:
        """Open the breaker, and wait until a probe is due."""
        self.fail(FAILURES)
        self.clock.advance(0.7)


@pytest.fixture
def link(memory: Any) -> Link:
    return Link(memory)


@pytest.fixture
def open_link(link: Link) -> Link:
    """One whose breaker has just opened."""
    link.fail(FAILURES)
    assert "open" == link.shown["breaker"]
    return link


def at_once(count: int, work: Callable[[], Any]) -> list[Any]:
    """What *count* threads get that call *work* at the same time."""
    start = threading.Barrier(count)
    answers = []

    def run() -> None:
        start.wait(LONG)
        answers.append(work())

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG)
    return answers


class TestBreaker:
    def test_at_first(self, link: Link) -> None:
        """Whoever asks is sent to L2."""
        assert (REMOTE_GO, REMOTE_GO) == (link.read(), link.write())
        assert ("closed", 0) == (link.shown["breaker"], link.shown["failures"])

    def test_opens(self, link: Link) -> None:
        """It opens with the fifth failure, not before, for who reads and who writes."""
        link.fail(FAILURES - 1)
        assert (REMOTE_GO, REMOTE_GO) == (link.read(), link.write())
        assert FAILURES - 1 == link.shown["failures"]
        link.fail()
        assert (REMOTE_NO, REMOTE_NO) == (link.read(), link.write())
        assert ("open", FAILURES) == (link.shown["breaker"], link.shown["failures"])

    def test_success(self, link: Link) -> None:
        """Only failures in a row open it."""
        link.fail(FAILURES - 1)
        link.segment.remote_ok(False)
        assert 0 == link.shown["failures"]
        link.fail(FAILURES - 1)
        assert REMOTE_GO == link.read()

    def test_heard_since(self, link: Link) -> None:
        """A call that failed while L2 was heard from tells of its caller, not of L2."""
        since = link.now
        link.clock.advance(0.05)
        link.confirm()
        for _ in range(2 * FAILURES):
            link.segment.remote_failed(since, False)
        assert (REMOTE_GO, 0) == (link.read(), link.shown["failures"])

    def test_heard_before(self, link: Link) -> None:
        """What was heard before the call began does not excuse it."""
        link.confirm()
        link.clock.advance(0.05)
        link.fail(FAILURES)
        assert REMOTE_NO == link.read()

    def test_late_success(self, open_link: Link) -> None:
        """A call that was under way when it opened does not close it."""
        open_link.segment.remote_ok(False)
        assert REMOTE_NO == open_link.read()

    def test_late_failures(self, open_link: Link) -> None:
        """Nor do such calls keep it open for longer."""
        open_link.clock.advance(0.3)
        open_link.fail(3)
        open_link.clock.advance(0.31)
        assert REMOTE_PROBE == open_link.read()

    def test_confirmed(self, open_link: Link) -> None:
        """A heartbeat that came back closes it."""
        open_link.confirm()
        assert (REMOTE_GO, REMOTE_GO) == (open_link.read(), open_link.write())
        assert ("closed", 0) == (open_link.shown["breaker"], open_link.shown["failures"])

    def test_threads(self, link: Link) -> None:
        """Failures of many threads at once are all counted, and one of them opens it once."""
        at_once(FAILURES - 1, link.fail)
        assert FAILURES - 1 == link.shown["failures"]
        at_once(8, link.fail)
        assert FAILURES <= link.shown["failures"]
        link.clock.advance(0.61)
        assert REMOTE_PROBE == link.read()

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork() here")
    def test_processes(self, memory: Any, link: Link) -> None:
        """One failure in each of five processes opens it for all of them."""
        if memory.kind != "shared":
            pytest.skip("memory of one process")
        for count in range(FAILURES):
            assert REMOTE_GO == link.write()
            assert count == link.shown["failures"]
            pid = os.fork()
            if pid == 0:
                try:
                    link.fail()
                finally:
                    os._exit(0)
            os.waitpid(pid, 0)
        assert (REMOTE_NO, REMOTE_NO) == (link.read(), link.write())

    @pytest.mark.parametrize("since", [math.nan, math.inf, -math.inf])
    def test_no_time(self, link: Link, since: float) -> None:
        """What is no time is an error."""
        with pytest.raises(ValueError, match="time"):
            link.segment.remote_failed(since, False)


class TestProbe:
    def test_due(self, open_link: Link) -> None:
        """After half a second, more or less, one caller may ask."""
        open_link.clock.advance(0.2)
        assert REMOTE_NO == open_link.read()
        open_link.clock.advance(0.41)
        assert "half-open" == open_link.shown["breaker"]
        assert REMOTE_PROBE == open_link.read()

    def test_one(self, link: Link) -> None:
        """While it asks nobody else does."""
        link.half_open()
        answers = at_once(8, link.write)
        assert (1, 7) == (answers.count(REMOTE_PROBE), answers.count(REMOTE_NO))

    def test_deadline(self, link: Link) -> None:
        """After a second another one may: the first may have been killed."""
        link.half_open()
        assert REMOTE_PROBE == link.read()
        link.clock.advance(0.6)
        assert REMOTE_NO == link.read()
        link.clock.advance(0.41)
        assert (REMOTE_PROBE, REMOTE_NO) == (link.read(), link.read())

    def test_success(self, link: Link) -> None:
        """Its success lets everybody ask."""
        link.half_open()
        assert REMOTE_PROBE == link.read()
        link.segment.remote_ok(True)
        assert (REMOTE_GO, REMOTE_GO) == (link.read(), link.read())
        assert ("closed", 0) == (link.shown["breaker"], link.shown["failures"])

    def test_back_off(self, link: Link) -> None:
        """Each failed probe doubles the pause, up to 8 seconds, give or take a fifth."""
        link.half_open()
        for pause in (1.0, 2.0, 4.0, 8.0, 8.0):
            assert REMOTE_PROBE == link.read()
            link.fail(probe=True)
            link.clock.advance(0.6 * pause)
            assert REMOTE_NO == link.read()
            link.clock.advance(0.61 * pause)
        assert REMOTE_PROBE == link.read()

    def test_back_off_ends(self, link: Link) -> None:
        """A success makes the next pause a short one again."""
        link.half_open()
        for _ in range(3):
            assert REMOTE_PROBE == link.read()
            link.fail(probe=True)
            link.clock.advance(10)
        assert REMOTE_PROBE == link.read()
        link.segment.remote_ok(True)
        link.half_open()
        assert REMOTE_PROBE == link.read()

    def test_spread(self, link: Link) -> None:
        """Pauses differ at random, so that hosts do not come back as one."""
        pauses = set()
        for _ in range(20):
            link.fail(FAILURES)
            pauses.add(round(link.shown["open_for"], 2))
            link.confirm()
        assert 2 < len(pauses)
        assert 0.35 <= min(pauses)
        assert max(pauses) <= 0.6

    def test_not_taken(self, link: Link) -> None:
        """A reader that may not read does not use up the probe."""
        link.confirm()
        link.clock.advance(10)
        link.half_open()
        assert (REMOTE_NO, REMOTE_PROBE) == (link.read(), link.write())

    def test_late(self, link: Link) -> None:
        """One that failed long after its time was counted when another one had its turn."""
        link.half_open()
        since = link.now
        assert REMOTE_PROBE == link.write()
        link.clock.advance(5)
        assert REMOTE_PROBE == link.write()
        link.segment.remote_failed(since, True)
        assert "half-open" == link.shown["breaker"]
        link.clock.advance(0.6)
        assert REMOTE_NO == link.write()
        link.clock.advance(0.41)
        assert REMOTE_PROBE == link.write()

    def test_heard_since(self, link: Link) -> None:
        """A probe that failed while L2 was heard from changes nothing."""
        link.half_open()
        since = link.now
        assert REMOTE_PROBE == link.write()
        link.clock.advance(0.05)
        link.confirm()
        link.segment.remote_failed(since, True)
        assert REMOTE_GO == link.write()


class TestConfirmed:
    def test_never(self, link: Link) -> None:
        """As long as no heartbeat came back there is no bound to hold."""
        assert math.inf == link.segment.confirmed_age()
        assert REMOTE_GO == link.read()

    def test_bound(self, link: Link) -> None:
        """What is read must be current to within the bound; who writes need not care."""
        link.confirm()
        link.clock.advance(BOUND - 0.5)
        assert REMOTE_GO == link.read()
        link.clock.advance(0.51)
        assert (REMOTE_NO, REMOTE_GO) == (link.read(), link.write())
        assert REMOTE_GO == link.read(bound=2 * BOUND)

    def test_lost(self, link: Link) -> None:
        """Behind a lost connection may be another server: a heartbeat sent since then must tell."""
        link.confirm()
        link.clock.advance(0.1)
        link.segment.link_note(LINK_LOST, 1.0)
        assert (REMOTE_NO, REMOTE_GO) == (link.read(), link.write())
        link.segment.link_note(LINK_CONNECTED)
        link.confirm(ago=0.05)  # it was on its way when the connection broke
        assert REMOTE_NO == link.read()
        link.clock.advance(0.1)
        link.confirm()
        assert REMOTE_GO == link.read()

    def test_sent(self, link: Link) -> None:
        """It counts when the heartbeat was sent, not when its answer came."""
        link.confirm(ago=1.5)
        assert 1.5 <= link.segment.confirmed_age() < 2.5
        shown = link.shown
        assert 1.5 <= shown["confirmed_age"] < 2.5
        assert shown["heard_age"] < 1.0
        assert REMOTE_NO == link.read(bound=1.4)

    def test_older(self, link: Link) -> None:
        """An answer that comes late takes nothing back."""
        link.confirm()
        link.confirm(ago=1.5)
        assert link.segment.confirmed_age() < 1.0

    def test_ahead(self, link: Link) -> None:
        """Nothing is current beyond now."""
        link.confirm(ago=-3600)
        link.clock.advance(BOUND + 0.1)
        assert REMOTE_NO == link.read()

    @pytest.mark.parametrize("sent", [math.nan, math.inf, -math.inf])
    def test_no_time(self, link: Link, sent: float) -> None:
        """What is no time is an error, and confirms nothing."""
        with pytest.raises(ValueError, match="time"):
            link.segment.link_confirm(sent)
        assert math.inf == link.segment.confirmed_age()


class TestRefused:
    def test_refused(self, link: Link) -> None:
        """Who refuses a heartbeat refuses deletes as well: nobody asks until one is taken."""
        link.confirm()
        link.segment.link_refused()
        assert link.shown["refused"]
        assert (REMOTE_NO, REMOTE_NO) == (link.read(), link.write())
        link.segment.remote_ok(False)
        assert (REMOTE_NO, REMOTE_NO) == (link.read(), link.write())
        link.confirm()
        assert not link.shown["refused"]
        assert (REMOTE_GO, REMOTE_GO) == (link.read(), link.write())

    def test_no_probe(self, link: Link) -> None:
        """Nor does anybody probe."""
        link.half_open()
        link.segment.link_refused()
        assert REMOTE_NO == link.write()


class TestSettled:
    def test_first(self, link: Link) -> None:
        """The first heartbeat ends no interruption."""
        link.clock.advance(60)
        link.confirm()
        assert link.shown["settled"]
        assert REMOTE_GO == link.read()

    def test_interrupted(self, link: Link) -> None:
        """After an interruption L2 is not read for a second: outboxes are replayed meanwhile."""
        link.confirm()
        link.clock.advance(1.1)
        link.confirm()
        assert not link.shown["settled"]
        assert (REMOTE_NO, REMOTE_GO) == (link.read(), link.write())
        link.clock.advance(0.7)
        assert REMOTE_NO == link.read()
        link.clock.advance(0.31)
        assert link.shown["settled"]
        assert REMOTE_GO == link.read()

    def test_steady(self, link: Link) -> None:
        """Heartbeats that come in time are none."""
        for _ in range(5):
            link.confirm()
            link.clock.advance(0.6)
        assert link.shown["settled"]
        assert REMOTE_GO == link.read()

    def test_meanwhile(self, link: Link) -> None:
        """Heartbeats in that second do not prolong it."""
        link.confirm()
        link.clock.advance(5)
        link.confirm()
        for _ in range(2):
            link.clock.advance(0.51)
            link.confirm()
        assert REMOTE_GO == link.read()


class TestShown:
    def test_nothing(self, link: Link) -> None:
        """What has not happened yet has no age."""
        ages = ("confirmed_age", "heard_age", "connected_since", "last_message_age")
        assert [None] * 4 == [link.shown[age] for age in ages]
        assert (0, None) == (link.shown["reconnects"], link.shown["next_retry_in"])
        assert (0.0, True, False) == (
            link.shown["open_for"],
            link.shown["settled"],
            link.shown["refused"],
        )

    def test_statistics(self, link: Link) -> None:
        """The statistics show the same."""
        assert link.shown == link.segment.stats()["link"]

    def test_connected(self, link: Link) -> None:
        """Connections are seen to come and go."""
        link.segment.link_note(LINK_CONNECTED)
        link.clock.advance(60)
        assert 60 <= link.shown["connected_since"] < 70
        assert 0 == link.shown["reconnects"]
        link.segment.link_note(LINK_LOST, 3.0)
        assert link.shown["connected_since"] is None
        assert 2 < link.shown["next_retry_in"] <= 3
        link.segment.link_note(LINK_CONNECTED)
        assert (1, None) == (link.shown["reconnects"], link.shown["next_retry_in"])

    def test_message(self, link: Link) -> None:
        """So is the last message."""
        link.segment.link_note(LINK_MESSAGE)
        link.clock.advance(5)
        assert 5 <= link.shown["last_message_age"] < 15

    def test_event(self, link: Link) -> None:
        """There are no other events."""
        with pytest.raises(ValueError, match="event"):
            link.segment.link_note(99)
