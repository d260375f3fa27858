"""What an InvalidationSubscriber must hold."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import pytest

from accelerator import message
from accelerator.backend import HEARD_BEAT, HEARD_CONFIRMED, HEARD_MESSAGE
from accelerator.testing.remote import RemoteBackendSuite, Store, number
from accelerator.testing.support import PATIENCE, check, equal, together

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from accelerator.backend import Heard

CHANNEL: Final = "channel"
SLOW: Final = 0.4
"""Seconds by which a read may be late; above it the listener would be replaced."""


class Ears:
    """
    A subscriber and what it has heard.

    Args:
        subscriber: The one under test.
    """

    def __init__(self, subscriber: Any) -> None:
        self.subscriber = subscriber
        self.heard: list[Heard] = []

    def listen(self, holds: Callable[[], object], what: str) -> None:
        """Read until it holds."""
        end = time.monotonic() + PATIENCE
        while not holds():
            check(time.monotonic() < end, f"{what}: was never heard")
            self.read(0.1)

    def read(self, timeout: float) -> bool:
        """Read once; whether there was a sign of life."""
        heard, alive, _ = self.subscriber.read(timeout)
        for kind, area, data in heard:
            check(kind in {HEARD_MESSAGE, HEARD_BEAT, HEARD_CONFIRMED}, "a kind of what is heard")
            check(type(area) is str, "an area's name")
            check((type(data) is bytes) == (kind != HEARD_CONFIRMED), "bytes, unless confirmed")
        check(alive or not heard, "whoever hears something is alive")
        self.heard += heard
        return bool(alive)

    def subscribe(self, *areas: str) -> None:
        """Subscribe, and wait until it is confirmed."""
        self.subscriber.subscribe(list(areas))
        for area in (*areas, ""):
            self.listen(partial(self._is_confirmed, area), "a confirmation")

    def _is_confirmed(self, area: str) -> bool:
        return (HEARD_CONFIRMED, area, None) in self.heard

    def messages(self, area: str) -> list[bytes]:
        """Messages of an area, in the order in which they came."""
        return [
            data
            for kind, name, data in self.heard
            if (kind, name) == (HEARD_MESSAGE, area) and data is not None
        ]

    def beats(self) -> list[int]:
        """Numbers of the heartbeats, in the order in which they came."""
        return [
            message.parse_heartbeat(data).number
            for kind, _, data in self.heard
            if kind == HEARD_BEAT and data is not None
        ]

    def beat(self, backend: Any, areas: list[str], n: int = 1) -> message.Heartbeat:
        """Send a heartbeat, and wait until it is heard."""
        backend.beat(areas, CHANNEL, n)
        self.listen(lambda: n in self.beats(), "a heartbeat")
        kind, area, data = next(each for each in reversed(self.heard) if each[0] == HEARD_BEAT)
        equal((HEARD_BEAT, ""), (kind, area), "a heartbeat")
        assert data is not None
        return message.parse_heartbeat(data)


class SubscriberSuite:
    """
    Tests of what RemoteBackend.subscriber() gives: subclass it, and give the fixture ``backend``.

    ``another`` may give a second backend on the same store, as another host has one.
    """

    another = RemoteBackendSuite.another
    area = RemoteBackendSuite.area
    other = RemoteBackendSuite.other

    @pytest.fixture
    def ears(self, backend: Any) -> Iterator[Ears]:
        """Give a subscriber."""
        made = Ears(backend.subscriber(CHANNEL))
        yield made
        made.subscriber.close()

    def test_confirmed(self, ears: Ears, area: str) -> None:
        """Each area, and the heartbeats, are confirmed once."""
        ears.subscribe(area, f"{area}2")
        ears.read(0.05)
        names = sorted(name for kind, name, _ in ears.heard if kind == HEARD_CONFIRMED)
        equal(["", area, f"{area}2"], names, "what was confirmed")

    def test_later(self, ears: Ears, other: Store, area: str) -> None:
        """Areas may be added at any time; what was not asked for is not heard."""
        ears.subscribe(area)
        elsewhere = Store(other.backend, f"{area}2")
        elsewhere.put("unheard")
        ears.beat(other.backend, [area])
        equal([], ears.messages(elsewhere.area), "messages of an area that was not asked for")
        ears.subscribe(elsewhere.area)
        elsewhere.put("heard")
        ears.listen(lambda: ears.messages(elsewhere.area), "a message of an area added later")
        equal(elsewhere.log()[-1][1], ears.messages(elsewhere.area)[-1], "the message")

    def test_messages(self, ears: Ears, other: Store, area: str) -> None:
        """Every kind of change is heard, in order, byte for byte as the log has it."""
        ears.subscribe(area)
        other.put("a")
        other.expire("a")
        other.add("b", number(1))
        other.touch("b", 9.0)
        other.incr("n", 1, 0)
        other.forget("a", "b")
        other.backend.tell(area, message.FORGET, [b"sx"], [0], bytes(16))
        other.mark(message.FORGET_TAGS, "x", "y")
        other.mark(message.EXPIRE_TAGS, "x")
        other.backend.clear(area, 0, bytes(16))
        ears.listen(lambda: len(ears.messages(area)) >= 10, "ten messages")
        equal([data for _, data in other.log()], ears.messages(area), "what was heard")

    def test_unheard(self, ears: Ears, other: Store, area: str) -> None:
        """What tells nobody is not heard: fills, and writes without broadcast."""
        ears.subscribe(area)
        other.fill("a", other.lease("a"))
        other.write(message.SET, other.change("b", number(1)), broadcast=False)
        other.get("a")
        ears.beat(other.backend, [area])
        equal([], ears.messages(area), "messages")

    def test_behind(self, ears: Ears, other: Store, area: str) -> None:
        """A heartbeat comes behind every message up to the number that it tells."""
        ears.subscribe(area)
        for turn in range(1, 21):
            for key in range(turn % 4):
                other.put(key)
            told = ears.beat(other.backend, [area], turn)
            at = next(i for i, each in enumerate(ears.heard) if each[0] == HEARD_BEAT)
            before = Ears(None)
            before.heard = ears.heard[:at]
            numbers = [message.parse(data).seq for data in before.messages(area)]
            if numbers or turn % 4:
                equal(told.seqs, numbers[-1:], "the last number before the heartbeat")
            ears.heard = []

    def test_own_heartbeats(self, ears: Ears, other: Store, area: str, backend: Any) -> None:
        """Other hosts' heartbeats are not heard, and other hosts do not hear ours."""
        theirs = Ears(backend.subscriber("another"))
        try:
            ears.subscribe(area)
            theirs.subscribe(area)
            other.backend.beat([area], "another", 5)
            ears.beat(other.backend, [area], 6)
            theirs.listen(theirs.beats, "their heartbeat")
            equal(([6], [5]), (ears.beats(), theirs.beats()), "heartbeats")
        finally:
            theirs.subscriber.close()

    def test_many(self, ears: Ears, other: Store, area: str) -> None:
        """Nothing is lost or out of order when many write at once, and we are slow."""
        ears.subscribe(area)

        def write(name: str) -> None:
            for turn in range(100):
                other.put(f"{name}{turn}")

        together(*[partial(write, str(name)) for name in range(4)])
        ears.beat(other.backend, [area])
        equal([data for _, data in other.log()], ears.messages(area), "what was heard")

    def test_large(self, ears: Ears, other: Store, area: str) -> None:
        """A message may name many keys, of any size."""
        ears.subscribe(area)
        keys = [b"s" + b"%d" % at + b"x" * 500 for at in range(100)]
        other.backend.tell(area, message.FORGET, keys, [0] * 100, bytes(16))
        ears.beat(other.backend, [area])
        said = [key for data in ears.messages(area) for key in message.parse(data).keys]
        equal(keys, said, "keys")

    def test_patience(self, ears: Ears, other: Store, area: str) -> None:
        """A read takes as long as it is told, not more, and ends early when there is something."""
        ears.subscribe(area)
        for timeout in (0.0, 0.05):
            began = time.monotonic()
            ears.read(timeout)
            check(time.monotonic() - began < timeout + SLOW, "a read keeps to its time")
        other.put("a")
        began = time.monotonic()
        while not ears.messages(area):
            ears.read(5.0)
        check(time.monotonic() - began < 2.0, "a read ends when there is something")

    def test_sign_of_life(self, ears: Ears, area: str) -> None:
        """What is asked for is answered, without anything to be heard."""
        ears.subscribe(area)
        ears.subscriber.ping()
        end = time.monotonic() + PATIENCE
        while not ears.read(0.1):
            check(time.monotonic() < end, "a ping is answered")

    def test_close(self, ears: Ears, area: str, backend: Any) -> None:
        """It may be closed in any state, more than once, and the next one works."""
        for areas in ((), (area,)):
            made = backend.subscriber(CHANNEL)
            if areas:
                made.subscribe(list(areas))
            made.close()
            made.close()
        ears.subscribe(area)
