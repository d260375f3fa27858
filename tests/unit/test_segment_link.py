"""What the native segment offers to those who talk to the second level."""

import math
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

native: Any = pytest.importorskip("accelerator._native", reason="installed without the native part")

SIZE = 2 << 20
BOUND = 2.0


class Area(native.Area):  # type: ignore[misc]  untyped here
    """An area that is bound once, and decodes nothing."""

    def __init__(self, segment: Any, name: str) -> None:
        self.segment = segment
        self.name = name

    def _attach(self) -> None:
        self._bind(
            self.segment,
            self.name,
            ttl=None,
            null_ttl=None,
            stale_ttl=60.0,
            jitter=0.0,
            max_value_size=1 << 16,
            object_cache_bytes=1 << 20,
            flags=native.PLAIN_MISS | native.PLAIN_SET,
        )

    def _decode(self, code: int, payload: bytes) -> tuple[Any, bool]:
        return payload, True

    def write(self, key: str, kind: int, payload: bytes = b"value") -> int:
        """Note a write and store it; the number."""
        number: int = self._note(key, kind)
        assert native.STORED == self._store(key, native.CODE_BYTES, payload, None, 0.0, note=number)
        return number


@pytest.fixture
def segment() -> Any:
    """A registered private segment."""
    segment = native.Segment.private(SIZE, 1 << 16)
    segment.register()
    return segment


@pytest.fixture
def area(segment: Any) -> Area:
    """An area of it."""
    area = Area(segment, "area")
    area.get("bind")
    return area


@pytest.fixture
def file() -> Iterator[Path]:
    """A formatted segment's file."""
    path = Path(f"/dev/shm/accelerator-test-link.{os.getpid()}")
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.posix_fallocate(fd, 0, SIZE)
        native.format_segment(
            fd,
            SIZE,
            name="link",
            max_value_size=1 << 16,
            boot_id=native.sys_boot_id(),
            time_ns=native.sys_namespaces()[0],
        )
        os.close(fd)
        yield path
    finally:
        path.unlink()


def attach(file: Path) -> Any:
    segment = native.Segment(os.open(file, os.O_RDWR | os.O_CLOEXEC), SIZE)
    segment.register()
    return segment


def fork() -> int:
    """Fork; a test's child ends with os._exit()."""
    return os.fork()


class TestAreas:
    def test_origin(self, segment: Any) -> None:
        """Each memory has a name of its own, and a private one's copy in a child another."""
        origin = segment.origin
        assert 16 == len(origin)
        assert origin == segment.origin
        assert origin != native.Segment.private(SIZE, 1 << 16).origin
        pid = fork()
        if pid == 0:
            segment.register()
            os._exit(0 if segment.origin != origin else 1)
        assert 0 == os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def test_applied(self, segment: Any, area: Area) -> None:
        """A sequence is only raised within one replication id, and replaced with another."""
        assert (0, 0) == segment.area_state("area")
        segment.area_applied("area", 2**64 - 1, 5)
        segment.area_applied("area", 2**64 - 1, 4)
        assert (2**64 - 1, 5) == segment.area_state("area")
        segment.area_applied("area", 7, 1)
        assert (7, 1) == segment.area_state("area")
        segment.area_applied("area", 0, 0)
        assert (0, 0) == segment.area_state("area")
        with pytest.raises(OverflowError):
            segment.area_applied("area", 7, 2**64)

    def test_unknown(self, segment: Any) -> None:
        """An area that nobody has bound has no state, and nothing is done to it."""
        segment.area_applied("none", 7, 5)
        segment.area_extend("none", time.monotonic())
        segment.clear_area("none")
        segment.area_count("none", 0)
        segment.outbox_paid("none")
        assert (0, 0) == segment.area_state("none")
        assert 0 == segment.invalidate("none", [b"sk"])
        assert "none" not in segment.stats()["areas"]
        with pytest.raises(TypeError):
            segment.area_state(b"area")

    def test_invalidate(self, segment: Any, area: Area) -> None:
        """Encoded keys are forgotten; the answer says how many were there."""
        keys: list[Any] = ["text", 5, b"bytes", ("a", 1)]
        for key in keys:
            area.set(key, "value")
        encoded = [native.encode_key(key) for key in keys]
        assert 4 == segment.invalidate("area", [*encoded, b"sabsent"])
        assert [None] * 4 == [area.get(key) for key in keys]
        assert 0 == segment.invalidate("area", encoded)

    def test_invalidate_many(self, segment: Any, area: Area) -> None:
        """So many that the GIL is released."""
        for number in range(500):
            area.set(number, number)
        encoded = [native.encode_key(number) for number in range(1000)]
        # Keys share generation words: a delete may take another item with it, before its turn.
        assert 400 < segment.invalidate("area", encoded) <= 500
        assert {None} == set(area.mget(range(500)).values())

    def test_expire(self, segment: Any, area: Area) -> None:
        """An expired copy can still be read as stale."""
        area.set("k", "value")
        area._store("k", native.CODE_BYTES, b"value", 60.0, 60.0)
        assert 1 == segment.invalidate("area", [b"sk"], expire=True)
        assert area.get("k") is None
        found = area._read("k", stale=True)
        assert found is not None
        assert found[4]

    @pytest.mark.parametrize(
        ("keys", "error"), [(["sk"], TypeError), ([b""], ValueError), ([b"s" * 513], ValueError)]
    )
    def test_bad_keys(self, segment: Any, area: Area, keys: Any, error: type[Exception]) -> None:
        """What is no encoded key forgets none of those beside it."""
        area.set("k", "value")
        with pytest.raises(error):
            segment.invalidate("area", [b"sk", *keys])
        assert "value" == area.get("k")

    def test_clear_and_count(self, segment: Any, area: Area) -> None:
        """By the name of the area."""
        area.set("k", "value")
        segment.clear_area("area")
        assert area.get("k") is None
        segment.area_count("area", native.COUNTERS.index("gap"), 3)
        assert 3 == area._counters()["gap"]
        with pytest.raises(ValueError, match="no such counter"):
            segment.area_count("area", len(native.COUNTERS))

    def test_l2_latencies(self, area: Area) -> None:
        """Calls of the second level have a histogram of their own."""
        area._l2_latency(0.0005)
        area._l2_latency(100.0)
        assert [1, *[0] * 13, 1, 100_000_500] == area._l2_latencies()
        assert 0 == sum(area._latencies())
        with pytest.raises(ValueError, match="finite"):
            area._l2_latency(math.nan)


class TestElection:
    def test_terms(self, segment: Any) -> None:
        """One leads at a time, and each claim has a term of its own."""
        assert 0 == segment.leader()["incarnation"]
        term = segment.lead(1.0)
        leader = segment.leader()
        assert (term, segment.incarnation, os.getpid()) == (
            leader["term"],
            leader["incarnation"],
            leader["pid"],
        )
        assert 0 <= leader["beat_age"] < 0.5
        assert 0 == segment.lead(0.0)
        assert segment.lead_beat(term)
        assert not segment.lead_beat(term + 1)
        segment.lead_resign(term)
        assert not segment.lead_beat(term)
        assert term + 1 == segment.lead(0.0)

    def test_unregistered(self) -> None:
        """Who is not registered is told so at once."""
        segment = native.Segment.private(SIZE, 1 << 16)
        begin = time.monotonic()
        assert 0 == segment.lead(30.0)
        assert time.monotonic() - begin < 5

    def test_timeout(self, segment: Any) -> None:
        """Who waits for a leader that beats gives up in time."""
        term = segment.lead(0.0)
        begin = time.monotonic()
        assert 0 == segment.lead(0.1)
        assert 0.1 <= time.monotonic() - begin < 0.5
        assert segment.lead_beat(term)

    def test_resignation_wakes(self, segment: Any) -> None:
        """A thread that waits leads as soon as the leader has resigned."""
        first, terms = segment.lead(0.0), []
        thread = threading.Thread(target=lambda: terms.append(segment.lead(10.0)))
        thread.start()
        segment.lead_resign(first)
        thread.join(5)
        assert [first + 1] == terms

    def test_killed_leader(self, file: Path) -> None:
        """The lease of a killed process passes on at once."""
        segment = attach(file)
        read_end, write_end = os.pipe()
        pid = fork()
        if pid == 0:
            segment.register()
            os.write(write_end, bytes([segment.lead(5.0)]))
            signal.pause()
        term = os.read(read_end, 1)[0]
        os.close(read_end)
        os.close(write_end)
        assert 0 == segment.lead(0.0)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        begin = time.monotonic()
        assert term + 1 == segment.lead(5.0)
        assert time.monotonic() - begin < 0.75

    def test_forked_child(self, segment: Any) -> None:
        """A child has no part in its parent's lease."""
        term = segment.lead(0.0)
        pid = fork()
        if pid == 0:
            os._exit(0 if not segment.lead_beat(term) and segment.lead(5.0) == 0 else 1)
        assert 0 == os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        assert segment.lead_beat(term)


class TestLink:
    def test_nobody_listens(self, segment: Any) -> None:
        """Where no heartbeat was ever confirmed, nothing is known against the second level."""
        assert math.inf == segment.confirmed_age()
        assert segment.link()["confirmed_age"] is None
        assert native.REMOTE_GO == segment.remote_ask(BOUND, True)

    def test_bound(self, segment: Any) -> None:
        """Reading ends with the bound, writing does not."""
        segment.link_confirm(time.monotonic())
        assert native.REMOTE_GO == segment.remote_ask(BOUND, True)
        segment.set_clock_shift(BOUND + 0.1)
        assert native.REMOTE_NO == segment.remote_ask(BOUND, True)
        assert native.REMOTE_GO == segment.remote_ask(BOUND, False)
        assert BOUND < segment.confirmed_age() < BOUND + 5

    def test_refused(self, segment: Any) -> None:
        """Who refuses writes is not asked at all."""
        segment.link_refused()
        assert segment.link()["refused"]
        assert native.REMOTE_NO == segment.remote_ask(BOUND, False)
        segment.link_confirm(time.monotonic())
        assert native.REMOTE_GO == segment.remote_ask(BOUND, False)

    def test_settling(self, segment: Any) -> None:
        """Behind an interruption reading begins a second later."""
        segment.link_confirm(time.monotonic())
        segment.set_clock_shift(5.0)
        segment.link_confirm(time.monotonic() + 5.0)
        assert not segment.link()["settled"]
        assert native.REMOTE_NO == segment.remote_ask(BOUND, True)
        segment.set_clock_shift(6.1)
        assert segment.link()["settled"]
        assert native.REMOTE_GO == segment.remote_ask(BOUND, True)

    def test_breaker(self, segment: Any) -> None:
        """Five failures in a row open it; one probe asks for all."""
        for _ in range(5):
            assert "closed" == segment.link()["breaker"]
            segment.remote_failed(time.monotonic(), False)
        link = segment.link()
        assert ("open", 5) == (link["breaker"], link["failures"])
        assert 0.3 < link["open_for"] <= 0.6
        assert native.REMOTE_NO == segment.remote_ask(BOUND, False)
        segment.set_clock_shift(0.7)
        assert "half-open" == segment.link()["breaker"]
        assert native.REMOTE_PROBE == segment.remote_ask(BOUND, False)
        assert native.REMOTE_NO == segment.remote_ask(BOUND, False)
        segment.remote_ok(True)
        assert native.REMOTE_GO == segment.remote_ask(BOUND, False)

    def test_heard_later(self, segment: Any) -> None:
        """A call that failed while the listener was answered was the caller's own fault."""
        since = time.monotonic()
        segment.link_confirm(since)
        for _ in range(9):
            segment.remote_failed(since, False)
        assert 0 == segment.link()["failures"]

    def test_diagnostics(self, segment: Any) -> None:
        """What happened to the connection is shown."""
        segment.link_note(native.LINK_CONNECTED)
        segment.link_note(native.LINK_LOST, 2.0)
        link = segment.link()
        assert link["connected_since"] is None
        assert 0 < link["next_retry_in"] <= 2.0
        segment.link_note(native.LINK_CONNECTED)
        segment.link_note(native.LINK_MESSAGE)
        link = segment.stats()["link"]
        assert 1 == link["reconnects"]
        assert link["next_retry_in"] is None
        assert 0 <= link["last_message_age"] <= link["connected_since"] < 5
        with pytest.raises(ValueError, match="no such event"):
            segment.link_note(9)

    @pytest.mark.parametrize("bad", [math.nan, math.inf])
    def test_bad_times(self, segment: Any, bad: float) -> None:
        """A time that is none is refused."""
        with pytest.raises(ValueError, match="finite"):
            segment.link_confirm(bad)
        with pytest.raises(ValueError, match="finite"):
            segment.remote_failed(bad, False)

    def test_readonly(self, file: Path) -> None:
        """Looking needs no right to write; the rest is refused and does not fault."""
        segment = native.Segment(os.open(file, os.O_RDONLY | os.O_CLOEXEC), SIZE, readonly=True)
        assert "closed" == segment.link()["breaker"]
        assert [] == segment.outbox_recent(5.0) == segment.watched()
        assert 0 == segment.lead(0.0) == segment.leader()["term"]
        for call in (
            lambda: segment.link_confirm(time.monotonic()),
            lambda: segment.area_extend("area", 1.0),
            segment.outbox_due,
            lambda: segment.remote_ask(BOUND, True),
            lambda: segment.invalidate("area", [b"sk"]),
        ):
            with pytest.raises(ValueError, match="read-only"):
                call()


class TestOutbox:
    def test_states(self, segment: Any, area: Area) -> None:
        """Due is what was not sent, as long as it was not."""
        number = area._note("k", native.NOTE_FORGET)
        assert number > 0
        assert [] == segment.outbox_due()
        segment.outbox_settle(number, False)
        assert [(number, "area", native.NOTE_FORGET, b"sk")] == segment.outbox_due()
        link = segment.link()
        assert 1 == link["outbox_depth"]
        assert 0 <= link["outbox_oldest_age"] < 5
        segment.outbox_settle(number, True)
        assert [] == segment.outbox_due()
        assert [(number, "area", native.NOTE_FORGET, b"sk")] == segment.outbox_recent(5.0)
        assert segment.link()["outbox_oldest_age"] is None

    def test_clear(self, segment: Any, area: Area) -> None:
        """A clear has no key."""
        number = area._note_clear()
        segment.outbox_settle(number, False)
        assert [(number, "area", native.NOTE_CLEAR, b"")] == segment.outbox_due()

    def test_limit(self, segment: Any, area: Area) -> None:
        """The oldest come first."""
        numbers = [area._note(key, native.NOTE_SET) for key in range(5)]
        for number in numbers:
            segment.outbox_settle(number, False)
        assert numbers[:2] == [entry[0] for entry in segment.outbox_due(2)]

    @pytest.mark.parametrize("kind", [-1, native.NOTE_CLEAR, 9])
    def test_bad_kind(self, area: Area, kind: int) -> None:
        """A note of one key is of a kind of one key."""
        with pytest.raises(ValueError, match="no such kind"):
            area._note("k", kind)

    def test_own_set(self, segment: Any, area: Area) -> None:
        """The own message of a set is skipped while its item is the key's."""
        number = area.write("k", native.NOTE_SET)
        assert segment.outbox_heard(number)
        newer = area.write("k", native.NOTE_SET, b"newer")
        assert not segment.outbox_heard(number)
        assert segment.outbox_heard(newer)
        area._delete("k")
        assert not segment.outbox_heard(newer)
        assert not segment.outbox_heard(area.write("k", native.NOTE_FORGET))
        assert not segment.outbox_heard(2**63)

    def test_owner_killed(self, file: Path) -> None:
        """What a killed process had begun is due."""
        segment = attach(file)
        area = Area(segment, "area")
        area.get("bind")
        pid = fork()
        if pid == 0:
            area._note("k", native.NOTE_FORGET)
            os.kill(os.getpid(), signal.SIGKILL)
        os.waitpid(pid, 0)
        [entry] = segment.outbox_due()
        assert ("area", native.NOTE_FORGET, b"sk") == entry[1:]

    def test_overflow(self, segment: Any, area: Area) -> None:
        """An area of which an entry was overwritten unsent owes a clear until that is paid."""
        other = Area(segment, "other")
        for key in range(1000):
            segment.outbox_settle(area._note(key, native.NOTE_FORGET), False)
            segment.outbox_settle(other._note(key, native.NOTE_FORGET), True)
        assert ["area"] == segment.outbox_owed()
        assert segment.link()["outbox_dropped"] > 0
        segment.outbox_paid("area")
        assert [] == segment.outbox_owed()
        assert [] == segment.check()

    def test_check(self, segment: Any, area: Area) -> None:
        """A sound segment with entries in every state has no violations; a damaged one has."""
        number = 0
        for key in range(40):
            number = area.write(str(key) * 30, native.NOTE_SET)
            if key % 3:
                segment.outbox_settle(number, key % 3 == 1)
        assert [] == segment.check()
        raw = segment.raw().cast("B")
        at = bytes(raw).index(b"39" * 30)
        raw[at] ^= 1
        assert ["outbox: an entry does not verify"] == [
            text for text in segment.check() if "outbox" in text
        ]


class TestSpeed:
    def test_invalidate(self, segment: Any, area: Area) -> None:
        """A listener that is flooded is not held up by the segment: 1,000,000 keys a second."""
        keys = [native.encode_key(f"user:{number}") for number in range(100_000)]
        best = math.inf
        for _ in range(5):
            begin = time.perf_counter()
            segment.invalidate("area", keys)
            best = min(best, time.perf_counter() - begin)
        assert best < 0.4  # a quarter of it, so that a busy machine does not fail it
