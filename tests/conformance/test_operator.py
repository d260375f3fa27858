"""What operators change and see: overrides, events, the limiter of log lines."""

import itertools
import os
import sys
import threading
import time
from typing import Any

import pytest

from accelerator.process_local import COUNTERS, OVERRIDES, REMOTE_GO, REMOTE_NO

MODE, LOADER_TIMEOUT, MAX_LOADS, TTL, ALLOW_STALE = range(5)
ON_DESYNC, BREAKER = 6, 7
LOCAL, REMOTE, BOTH, OFF = range(4)
GAP, FLUSH = (COUNTERS.index(name) for name in ("gap", "flush"))


@pytest.fixture
def segment(memory: Any) -> Any:
    """A memory with the areas "users" and "other"."""
    memory.segment.register()
    for name in ("users", "other"):
        memory.cache(name).set("key", name)
    return memory.segment


class TestOverrides:
    def test_options(self, memory: Any) -> None:
        """Both kinds of memory know the same options by the same numbers."""
        assert OVERRIDES == memory.modules["local"].OVERRIDES
        assert "mode" == OVERRIDES[MODE]
        assert "breaker" == OVERRIDES[BREAKER]

    def test_none(self, segment: Any) -> None:
        """At first there are none."""
        assert [] == segment.overrides()
        assert (1, 1) == segment.overrides_seen()

    def test_set_and_remove(self, segment: Any) -> None:
        """What was set is in force until it is removed, each area and option apart."""
        segment.override("users", TTL, 5000)
        segment.override("", MAX_LOADS, 0)
        segment.override("other", TTL, 7000)
        assert [("", MAX_LOADS, 0), ("other", TTL, 7000), ("users", TTL, 5000)] == sorted(
            shown[:3] for shown in segment.overrides()
        )
        segment.override("users", TTL, 6000)
        segment.override("other", TTL, None)
        segment.override("other", MODE, None)
        assert [("", MAX_LOADS, 0, None), ("users", TTL, 6000, None)] == sorted(segment.overrides())

    def test_time_limit(self, memory: Any, segment: Any) -> None:
        """One with a limit goes by itself; what is left of it is told."""
        segment.override("users", ALLOW_STALE, 1, 9.5)
        [(_, _, _, left)] = segment.overrides()
        assert 9.0 < left <= 10.5
        memory.clock.advance(8.0)
        [(_, _, _, left)] = segment.overrides()
        assert 1.0 < left <= 2.5
        memory.clock.advance(3.0)
        wait_until(lambda: segment.overrides() == [])

    @pytest.mark.parametrize(
        ("option", "value", "seconds"),
        [
            (8, 1, None),
            (-1, 1, None),
            (MODE, 4, None),
            (MODE, -1, None),
            (ALLOW_STALE, 2, None),
            (ON_DESYNC, 3, None),
            (TTL, (1 << 32) - 1, None),
            (TTL, 1, 0.0),
            (TTL, 1, -1.0),
            (TTL, 1, float("nan")),
            (TTL, 1, float("inf")),
            (BREAKER, 1, None),
        ],
    )
    def test_wrong(self, segment: Any, option: int, value: int, seconds: float | None) -> None:
        """What cannot be is refused, and nothing is changed."""
        with pytest.raises(ValueError, match="override"):
            segment.override("users", option, value, seconds)
        assert [] == segment.overrides()

    def test_no_such_area(self, segment: Any) -> None:
        """An area that nobody ever opened has no overrides."""
        with pytest.raises(KeyError):
            segment.override("nobody", TTL, 5)

    def test_of_all_versions(self, memory: Any) -> None:
        """An override is of an area whatever versions it has: they are rebound, too."""
        memory.segment.register()
        cache = memory.cache("users", version="2")
        cache.set("key", 1)
        memory.segment.override("users", TTL, 5000)
        assert not cache._bound

    def test_print(self, segment: Any) -> None:
        """It changes with what is in force, and with nothing else."""
        first = segment.overrides_print()
        segment.event("users", "set", "ok", "none", 0.1)
        assert first == segment.overrides_print()
        segment.override("users", TTL, 5000)
        second = segment.overrides_print()
        assert first != second
        segment.override("users", TTL, 5001)
        assert second != segment.overrides_print()

    def test_taken(self, segment: Any) -> None:
        """One look tells the rows, and the print of these."""
        segment.override("users", TTL, 5000)
        print_, rows = segment.overrides_taken()
        assert (segment.overrides_print(), segment.overrides()) == (print_, rows)
        assert [("users", TTL, 5000, None)] == rows

    def test_taken_while_they_change(self, segment: Any) -> None:
        """The same print, the same rows, whatever changes meanwhile."""
        over = threading.Event()

        def change() -> None:
            numbers = itertools.cycle(range(3))
            while not over.is_set():
                segment.override("users", TTL, 5000)
                segment.override("", MAX_LOADS, next(numbers))
                segment.override("users", TTL, None)
                segment.override("other", ALLOW_STALE, 1)
                segment.override("other", ALLOW_STALE, None)

        thread = threading.Thread(target=change)
        before = sys.getswitchinterval()
        sys.setswitchinterval(1e-5)
        thread.start()
        seen: dict[int, set[Any]] = {}
        try:
            deadline = time.monotonic() + 30
            looks = 0
            while looks < 3000 or (len(seen) < 4 and time.monotonic() < deadline):
                print_, rows = segment.overrides_taken()
                seen.setdefault(print_, set()).add(tuple(rows))
                looks += 1
        finally:
            over.set()
            thread.join()
            sys.setswitchinterval(before)
        assert [] == [rows for rows in seen.values() if len(rows) > 1]
        assert len(seen) >= 4


class TestLeavingLocal:
    """Before an area hears of changes again, it forgets what it has."""

    def counts(self, memory: Any, area: str) -> tuple[int, int]:
        counters = memory.segment.stats()["areas"][area]
        return counters["gap"], counters["flush"]

    @pytest.mark.parametrize("former", [LOCAL, OFF])
    @pytest.mark.parametrize("new", [None, BOTH])
    def test_forgets(self, memory: Any, segment: Any, former: int, new: int | None) -> None:
        """Removed or replaced: the area is empty, the others are not."""
        segment.override("users", MODE, former)
        assert (None if former == OFF else "users") == memory.cache("users").get("key")
        segment.override("users", MODE, new)
        assert memory.cache("users").get("key") is None
        assert "other" == memory.cache("other").get("key")
        assert (1, 1) == self.counts(memory, "users")
        assert (0, 0) == self.counts(memory, "other")

    def test_host(self, memory: Any, segment: Any) -> None:
        """That of the host concerns all areas."""
        segment.override("", MODE, LOCAL)
        segment.override("", MODE, None)
        for name in ("users", "other"):
            assert memory.cache(name).get("key") is None
            assert (1, 1) == self.counts(memory, name)

    @pytest.mark.parametrize("host", [LOCAL, OFF])
    def test_leaves_the_host(self, memory: Any, segment: Any, host: int) -> None:
        """An area that is told of its own what the host is not leaves what the host is told."""
        segment.override("", MODE, host)
        segment.override("users", MODE, BOTH, 5)
        assert memory.cache("users").get("key") is None
        assert (1, 1) == self.counts(memory, "users")
        assert (0, 0) == self.counts(memory, "other")

    def test_same_as_the_host(self, memory: Any, segment: Any) -> None:
        """What an area is told of its own is what the host is told: nothing is left."""
        segment.override("", MODE, LOCAL)
        segment.override("users", MODE, LOCAL)
        segment.override("users", TTL, 5000)
        assert "users" == memory.cache("users").get("key")
        assert (0, 0) == self.counts(memory, "users")

    @pytest.mark.parametrize(("former", "new"), [(LOCAL, LOCAL), (BOTH, LOCAL), (REMOTE, None)])
    def test_keeps(self, memory: Any, segment: Any, former: int, new: int | None) -> None:
        """Nothing was missed: nothing is forgotten."""
        segment.override("users", MODE, former)
        segment.override("users", MODE, new, None if new is None else 60)
        assert "users" == memory.cache("users").get("key")
        assert (0, 0) == self.counts(memory, "users")

    def test_end_of_its_time(self, memory: Any, segment: Any) -> None:
        """It ends as if it was removed."""
        segment.override("users", MODE, LOCAL, 5)
        memory.clock.advance(7)
        wait_until(lambda: segment.overrides() == [])
        assert memory.cache("users").get("key") is None
        assert (1, 1) == self.counts(memory, "users")


class TestRebinding:
    """Every area object of the process is bound anew once the overrides have changed."""

    def test_next_operation(self, memory: Any) -> None:
        """It calls _attach() once, and not again."""
        attached = []

        class Cache(memory.cache_class):  # type: ignore[misc,name-defined]
            def _attach(self) -> None:
                attached.append(1)
                super()._attach()

        cache = Cache("users", ttl_jitter_ratio=None)
        cache.set("key", 1)
        assert 1 == len(attached)
        assert cache._bound
        memory.segment.override("users", TTL, 5000)
        assert not cache._bound
        assert 1 == cache.get("key")
        assert 2 == len(attached)
        assert cache._bound
        assert 1 == cache.get("key")
        assert 2 == len(attached)
        memory.segment.override("users", TTL, None)
        assert 1 == cache.get("key")
        assert 3 == len(attached)

    def test_end_of_its_time(self, memory: Any, segment: Any) -> None:
        """The end of a time limit is a change."""
        cache = memory.cache("users")
        segment.override("users", TTL, 5000, 5)
        cache.get("key")
        assert cache._bound
        memory.clock.advance(7)
        wait_until(lambda: not cache._bound)
        cache.get("key")
        assert cache._bound

    def test_change_while_it_attaches(self, memory: Any, segment: Any) -> None:
        """A change between the look at the overrides and _bind() is not missed."""
        cache = memory.cache("users")
        cache.get("key")
        before = segment.overrides_print()
        segment.override("users", TTL, 5000)
        bind(cache, segment, overrides=before)
        assert not cache._bound
        bind(cache, segment, overrides=segment.overrides_print())
        assert cache._bound

    def test_running_operation(self, memory: Any, segment: Any) -> None:
        """An operation under way ends as it began, also when the area is bound anew below it."""
        loaded = []

        def load(key: str) -> str:
            segment.override("users", TTL, 5000 + len(loaded))
            loaded.append(key)
            if key == "outer":
                assert "value of inner" == cache.get("inner")
            return "value of " + key

        cache = memory.cache("loading", loader=load)
        assert "value of outer" == cache.get("outer")
        assert ["outer", "inner"] == loaded
        assert "value of outer" == cache.get("outer")
        assert ["outer", "inner"] == loaded


class TestBreaker:
    def test_forced_open(self, segment: Any) -> None:
        """Nobody asks, whatever the breaker itself says."""
        assert segment.link()["breaker_forced"] is None
        segment.override("", BREAKER, 1)
        assert REMOTE_NO == segment.remote_ask(2.0, False)
        assert REMOTE_NO == segment.remote_ask(2.0, True)
        assert "open" == segment.link()["breaker_forced"]
        assert "closed" == segment.link()["breaker"]
        segment.override("", BREAKER, None)
        assert REMOTE_GO == segment.remote_ask(2.0, False)
        assert segment.link()["breaker_forced"] is None

    def test_forced_closed(self, segment: Any) -> None:
        """Everybody asks, although the breaker is open."""
        for _ in range(5):
            segment.remote_failed(time.monotonic(), False)
        assert REMOTE_NO == segment.remote_ask(2.0, False)
        segment.override("", BREAKER, 0)
        assert REMOTE_GO == segment.remote_ask(2.0, False)
        assert "closed" == segment.link()["breaker_forced"]

    def test_not_past_the_bound(self, memory: Any, segment: Any) -> None:
        """By order or not, what is out of step is not read."""
        segment.override("", BREAKER, 0)
        segment.link_confirm(time.monotonic())
        memory.clock.advance(5.0)
        assert REMOTE_NO == segment.remote_ask(2.0, True)
        assert REMOTE_GO == segment.remote_ask(2.0, False)


class TestEvents:
    def test_one(self, segment: Any) -> None:
        """All that is known of an operation that is over."""
        before = time.time()
        segment.event("users", "delete", "error", "backend", 0.25, 1 << 63, 7)
        [seen] = segment.events()
        number, at = seen.pop("number"), seen.pop("time")
        assert number > 0
        assert before - 1 <= at <= time.time() + 1
        assert 250.0 == pytest.approx(seen.pop("latency_ms"), rel=1e-6)
        assert seen == {
            "pid": os.getpid(),
            "incarnation": segment.incarnation,
            "alive": True,
            "area": "users",
            "op": "delete",
            "result": "error",
            "error_kind": "backend",
            "hash": 1 << 63,
            "count": 7,
            "running": False,
        }

    def test_newest_first(self, segment: Any) -> None:
        """The newest is the first; no more than were asked for."""
        for n in range(20):
            segment.event("users", f"op{n}", "ok", "none", 0)
        assert [f"op{n}" for n in reversed(range(20))] == [seen["op"] for seen in segment.events()]
        assert ["op19", "op18"] == [seen["op"] for seen in segment.events(2)]
        assert [] == segment.events(0)

    def test_load(self, segment: Any) -> None:
        """One that has begun runs until it is over, and is one event."""
        number = segment.event_begin("users", "mload", 42, 7)
        [seen] = segment.events()
        assert (number, True, True, None, "", 42, 7) == (
            seen["number"],
            seen["running"],
            seen["alive"],
            seen["latency_ms"],
            seen["result"],
            seen["hash"],
            seen["count"],
        )
        segment.event_end(number, "timeout", "loader", 1.5)
        [seen] = segment.events()
        assert (number, False, 1500.0, "timeout", "loader") == (
            seen["number"],
            seen["running"],
            seen["latency_ms"],
            seen["result"],
            seen["error_kind"],
        )

    def test_end_twice(self, segment: Any) -> None:
        """The first end counts."""
        number = segment.event_begin("users", "load")
        segment.event_end(number, "ok", "none", 1)
        segment.event_end(number, "error", "loader", 2)
        assert ["ok"] == [seen["result"] for seen in segment.events()]

    def test_end_of_nothing(self, segment: Any) -> None:
        """The end of what is not there changes nothing."""
        segment.event_end(0, "ok", "none", 1)
        segment.event_end(17, "ok", "none", 1)
        segment.event("users", "set", "ok", "none", 0)
        segment.event_end(segment.events()[0]["number"], "error", "none", 1)
        assert ["ok"] == [seen["result"] for seen in segment.events()]

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="no processes to fork")
    def test_end_by_child(self, segment: Any) -> None:
        """A child that was forked in the middle does not end what its parent has begun."""
        number = segment.event_begin("users", "load")
        child = os.fork()
        if child == 0:
            try:
                segment.event_end(number, "error", "child", 1)
                [seen] = segment.events()
                os._exit(0 if seen["running"] else 1)
            finally:
                os._exit(2)
        assert 0 == os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        segment.event_end(number, "ok", "none", 1)
        assert ["ok"] == [seen["result"] for seen in segment.events()]

    def test_lapped(self, segment: Any) -> None:
        """The ring holds the newest; who ends what it has overwritten changes nothing."""
        number = segment.event_begin("users", "load")
        for _ in range(10_000):
            segment.event("users", "set", "ok", "none", 0)
        segment.event_end(number, "error", "loader", 2)
        seen = segment.events(100_000)
        assert {("set", "ok", False)} == {
            (one["op"], one["result"], one["running"]) for one in seen
        }
        assert 128 <= len(seen) <= 8192
        numbers = [one["number"] for one in seen]
        assert sorted(numbers, reverse=True) == numbers

    def test_texts(self, segment: Any) -> None:
        """They are cut, and not ASCII is a question mark; an unknown area has no name."""
        segment.event("nobody", "o" * 20, "ü" * 20, "k" * 20, 0)
        [seen] = segment.events()
        assert ("", "o" * 12, "?" * 12, "k" * 16) == (
            seen["area"],
            seen["op"],
            seen["result"],
            seen["error_kind"],
        )

    @pytest.mark.parametrize("seconds", [-1.0, float("nan"), float("inf")])
    def test_wrong(self, segment: Any, seconds: float) -> None:
        """An event takes some time."""
        with pytest.raises(ValueError, match="event"):
            segment.event("users", "set", "ok", "none", seconds)

    def test_unregistered(self, memory: Any, segment: Any) -> None:
        """A command notes what it does without being one of the host's processes."""
        memory.segment.unregister()
        segment.event("users", "flush", "ok", "none", 0.1)
        assert 0 == segment.incarnation
        [seen] = segment.events()
        assert (os.getpid(), 0, "flush") == (seen["pid"], seen["incarnation"], seen["op"])


class TestLogLimit:
    def test_interval(self, memory: Any, segment: Any) -> None:
        """One line per kind and interval, which tells how many were left out."""
        kind = ("users", "load", "error", "loader")
        assert 0 == segment.log_allowed(*kind, 10.0)
        for _ in range(3):
            assert -1 == segment.log_allowed(*kind, 10.0)
        memory.clock.advance(9.0)
        assert -1 == segment.log_allowed(*kind, 10.0)
        memory.clock.advance(2.0)
        assert 4 == segment.log_allowed(*kind, 10.0)
        memory.clock.advance(11.0)
        assert 0 == segment.log_allowed(*kind, 10.0)

    @pytest.mark.parametrize("place", range(4))
    def test_kinds_apart(self, segment: Any, place: int) -> None:
        """Each of the four texts makes another kind; where one ends is no matter of chance."""
        kind = ["aa", "aa", "aa", "aa"]
        assert 0 == segment.log_allowed(*kind, 10.0)
        kind[place] = "aaa"
        assert 0 == segment.log_allowed(*kind, 10.0)
        kind = ["aa", "aa", "aa", "aa"]
        kind[place] = "a"
        kind[(place + 1) % 4] = "aaa"
        assert 0 == segment.log_allowed(*kind, 10.0)
        assert -1 == segment.log_allowed(*kind, 10.0)

    def test_many_kinds(self, segment: Any) -> None:
        """A table that is full lets lines through; it never keeps a new kind back."""
        assert [0] * 5000 == [
            segment.log_allowed("users", f"op{n}", "error", "loader", 10.0) for n in range(5000)
        ]


def wait_until(is_so: Any, seconds: float = 10.0) -> None:
    """Until the thread that ticks has noticed."""
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.01)


def bind(cache: Any, segment: Any, **more: Any) -> None:
    cache._bind(
        segment,
        "users",
        ttl=None,
        null_ttl=None,
        stale_ttl=0.0,
        jitter=0.0,
        max_value_size=1000,
        object_cache_bytes=0,
        flags=0,
        **more,
    )
