"""
What users of other caches rely on when a value is missing, old, or known to be absent.

The numbers are those of the list that these behaviours were collected in.  What needs Redis is not
here yet, and said where it belongs.
"""

import asyncio
import contextlib
import logging
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from accelerator import FnLoader, LevelCache, LoadContext, LoaderError, local, testing

pytestmark = pytest.mark.skipif(not local.NATIVE, reason="processes share through the native part")

Fork = Callable[..., Any]
Meet = Callable[..., Any]
KINDS = ["threads", "tasks", "greenlets"]
OFF_THE_PATH: dict[str, Any] = {"background": contextlib.nullcontext}


@pytest.fixture
def shared() -> Iterator[testing.Isolated]:
    with testing.isolated(shared=True) as isolated:
        yield isolated
        assert [] == isolated.memory.check()
        # What a child led when it ended is the dead's, and is freed by who needs it.
        until(lambda: not any(flight["alive"] for flight in isolated.memory.flights()))


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.001)


def until_waiting(shared: testing.Isolated, number: int) -> None:
    """Wait until so many wait for loads."""
    until(lambda: number == sum(flight["waiters"] for flight in shared.memory.flights()))


def gather(children: list[Any]) -> list[Any]:
    """Let children that stand ready go, and get what all their callers got."""
    for child in children:
        child.meet()
    return [answer for child in children for answer in child.meet()]


def values(answers: list[Any]) -> Counter[Any]:
    return Counter(answer.error or answer.value for answer in answers)


def old_value(cache: LevelCache, key: str = "key") -> None:
    """Leave a value that is past its life."""
    cache.set(key, "old")
    assert cache.expire(key)


class TestStampede:
    """Many want what nobody has."""

    @pytest.mark.parametrize("kind", KINDS)
    def test_one_call_for_all_workers(
        self, shared: testing.Isolated, fork: Fork, crowd: Any, calls: Any, kind: str
    ) -> None:
        """
        1: 6 processes of 8 callers ask for one key at once, the loader takes 300 ms: it runs once,
        and all 48 get the value. (With Redis: it sees one read and one write.)
        """

        def body(meet: Meet) -> None:
            here = crowd(kind)
            cache = LevelCache("area", loader=here.loader(calls.add, 0.3, str.upper))
            meet(here.run(8, here.method(cache, "get"), "key", ready=meet))

        answers = gather([fork(body) for _ in range(6)])
        assert {"KEY": 48} == values(answers)
        assert ["key"] == calls.whats()
        counters = LevelCache("area").metrics_snapshot()
        assert 1 == counters["load_led"] == counters["load_success"]

    @pytest.mark.parametrize("kind", KINDS)
    def test_one_call_for_late_comers(
        self, shared: testing.Isolated, fork: Fork, crowd: Any, calls: Any, kind: str
    ) -> None:
        """1: the same if they come one by one while it runs, in the leader's worker too."""

        def body(meet: Meet) -> None:
            here = crowd(kind)
            cache = LevelCache("area", loader=here.loader(calls.add, 0.3, str.upper))
            get = here.method(cache, "get")
            turns = iter(range(8))

            def come(key: str) -> Any:
                here.pause(next(turns) * 0.03)
                return get(key)

            async def come_async(key: str) -> Any:
                await here.pause(next(turns) * 0.03)
                return await get(key)

            meet(here.run(8, come_async if kind == "tasks" else come, "key", ready=meet))

        assert {"KEY": 24} == values(gather([fork(body) for _ in range(3)]))
        assert ["key"] == calls.whats()
        assert 0 == LevelCache("area").metrics_snapshot()["load_alone"]

    @pytest.mark.parametrize("kind", KINDS)
    def test_failure_is_the_leaders(
        self,
        shared: testing.Isolated,
        fork: Fork,
        crowd: Any,
        calls: Any,
        gates: Any,
        kind: str,
    ) -> None:
        """
        2: 20 callers and a loader that raises on its first two calls: it runs three times, exactly
        two callers see the error, and 18 get the value.
        """
        gate = gates()

        def answer(key: str) -> str:
            if len(calls) <= 2:
                raise OSError("no database")
            return "value"

        def body(meet: Meet) -> None:
            here = crowd(kind)
            cache = LevelCache("area", loader=here.loader(calls.add, gate, answer))
            meet(here.run(5, here.method(cache, "get"), "key", ready=meet))

        children = [fork(body) for _ in range(4)]
        for child in children:
            child.meet()
        until_waiting(shared, 19)
        gate.open()
        answers = [answer for child in children for answer in child.meet()]
        assert {"value": 18, "LoaderError": 2} == values(answers)
        assert 3 == len(calls)

    @pytest.mark.parametrize("waits", [False, True], ids=["asks afterwards", "waits"])
    def test_free_after_an_error(
        self, shared: testing.Isolated, fork: Fork, calls: Any, gates: Any, waits: bool
    ) -> None:
        """
        3: after a loader has raised, that of another process that asks for the key, or waits for
        it, starts within 50 ms, not after the lease.
        """
        gate = gates()

        def load(key: str) -> str:
            if calls.add(key) == 1:
                gate.wait()
                raise OSError("no database")
            return "value"

        cache = LevelCache("area", loader=load)

        def fails(meet: Meet) -> None:
            with contextlib.suppress(LoaderError):
                cache.get("key")
            meet()

        def succeeds(meet: Meet) -> None:
            if not waits:
                meet()
            meet(cache.get("key"))

        leader = fork(fails)
        calls.wait_for(1)
        other = fork(succeeds)
        if waits:
            until_waiting(shared, 1)
        gate.open()
        failed_at = time.monotonic()
        if not waits:
            leader.meet()
            failed_at = time.monotonic()
            other.meet()
        assert "value" == other.meet()
        assert 2 == len(calls)
        assert calls.all()[1].at - failed_at < 0.05

    @pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGABRT], ids=["killed", "aborted"])
    def test_leader_dies(
        self, shared: testing.Isolated, fork: Fork, calls: Any, gates: Any, how: signal.Signals
    ) -> None:
        """
        4: a leader is killed in its loader, or aborted as Gunicorn aborts a worker past its
        timeout: a waiter in another process takes over within 150 ms, the loader runs exactly once
        more, and nobody hangs.
        """
        gate = gates()

        def load(key: str) -> str:
            if calls.add(key) == 1:
                gate.wait()
            return "value"

        cache = LevelCache("area", loader=load)

        def dies(meet: Meet) -> None:
            signal.signal(signal.SIGABRT, lambda *_: sys.exit(1))  # as Gunicorn's workers do
            cache.get("key")

        def waits(meet: Meet) -> None:
            meet(cache.get("key"))

        leader = fork(dies)
        calls.wait_for(1)
        waiters = [fork(waits) for _ in range(3)]
        until_waiting(shared, 3)
        killed_at = leader.end_by(how)
        assert ["value"] * 3 == [child.meet() for child in waiters]
        assert 2 == len(calls)
        assert calls.all()[1].at - killed_at < 0.15
        leader.wait()

    @pytest.mark.parametrize("kind", KINDS)
    def test_loaders_that_ask(
        self, shared: testing.Isolated, fork: Fork, crowd: Any, calls: Any, kind: str
    ) -> None:
        """5: the loader of A asks for B, and that of B for C: all are loaded, once each."""

        def body(meet: Meet) -> None:
            here = crowd(kind)
            rest = {"A": "B", "B": "C"}

            def load(key: str) -> str:
                calls.add(key)
                return key + (cache.get(rest[key]) if key in rest else "")

            async def load_async(key: str) -> str:
                calls.add(key)
                return key + (await cache.aget(rest[key]) if key in rest else "")

            cache = LevelCache("area", loader=load_async if kind == "tasks" else load)
            meet(here.run(4, here.method(cache, "get"), "A", ready=meet))

        assert {"ABC": 8} == values(gather([fork(body) for _ in range(2)]))
        assert ["A", "B", "C"] == calls.whats()

    @pytest.mark.parametrize("kind", KINDS)
    def test_loader_that_asks_for_its_own_key(
        self, shared: testing.Isolated, fork: Fork, crowd: Any, calls: Any, kind: str
    ) -> None:
        """5: the loader of A asks for A itself: a clear error at once, never a hang."""

        def body(meet: Meet) -> None:
            here = crowd(kind)
            said = []

            def load(key: str) -> Any:
                calls.add(key)
                try:
                    return cache.get(key)
                except LoaderError as error:
                    said.append(str(error))
                    raise

            async def load_async(key: str) -> Any:
                calls.add(key)
                try:
                    return await cache.aget(key)
                except LoaderError as error:
                    said.append(str(error))
                    raise

            cache = LevelCache("area", loader=load_async if kind == "tasks" else load)
            meet((here.run(1, here.method(cache, "get"), "A"), said))

        (answer,), (said,) = fork(body).meet()
        assert "LoaderError" == answer.error
        assert answer.seconds < 0.5
        assert "asked for the very key" in said
        assert 1 == len(calls)

    def test_loaders_that_ask_for_each_others_keys(
        self, shared: testing.Isolated, fork: Fork, gates: Any
    ) -> None:
        """
        5: the loader of A asks for B in one process while that of B asks for A in another: nobody
        can see that, so it ends when the wait does, with values.
        """
        both = {"A": gates(), "B": gates()}
        other = {"A": "B", "B": "A"}

        def body_for(key: str) -> Callable[[Meet], None]:
            loads: list[str] = []

            def load(wanted: str) -> str:
                loads.append(wanted)
                if len(loads) > 1:
                    return wanted.lower()
                both[wanted].open()
                both[other[wanted]].wait()
                return wanted + str(cache.get(other[wanted]))

            cache = LevelCache("area", loader=load, wait_timeout=0.2)
            return lambda meet: meet(cache.get(key))

        children = [fork(body_for("A")), fork(body_for("B"))]
        started = time.monotonic()
        answers = [child.meet() for child in children]
        assert answers[0] in {"Ab", "ABa"}
        assert answers[1] in {"Ba", "BAb"}
        assert 0.2 < time.monotonic() - started < 2

    def test_lock_timeout_nothing_stale(
        self, shared: testing.Isolated, fork: Fork, calls: Any, gates: Any
    ) -> None:
        """
        6: who has waited for its wait_timeout loads on its own, at that time, and the leader is not
        disturbed: it gets its own answer. The next get finds that of the load which began later.
        """
        gate = gates()

        def load(key: str) -> str:
            number = calls.add(key)
            if number == 1:
                gate.wait()
            return f"load {number}"

        cache = LevelCache("area", loader=load, wait_timeout=0.2)

        def body(meet: Meet) -> None:
            began = time.monotonic()
            meet((cache.get("key"), began))

        leader = fork(body)
        calls.wait_for(1)
        found, began = fork(body).meet()
        assert "load 2" == found
        assert 0.2 <= calls.all()[1].at - began < 0.4
        gate.open()
        assert "load 1" == leader.meet()[0]
        assert "load 2" == cache.get("key")
        assert 2 == len(calls)
        assert 1 == cache.metrics_snapshot()["load_wait_timeout"]

    def test_lock_timeout_and_too_many_loads(
        self, shared: testing.Isolated, fork: Fork, crowd: Any, calls: Any, gates: Any
    ) -> None:
        """
        6: with max_loads such loads running the outcome is LoaderTimeout, at that time; the next
        get is the leader's value, and the load that it overtook is not stored over it.
        """
        leads, alone = gates(), gates()

        def load(key: str) -> str:
            number = calls.add(key)
            (leads if number == 1 else alone).wait()
            return f"load {number}"

        cache = LevelCache("area", loader=load, wait_timeout=0.2, max_loads=1)

        def body(meet: Meet) -> None:
            meet(crowd("threads").run(1, cache.get, "key"))

        leader = fork(body)
        calls.wait_for(1)
        waiter = fork(body)
        calls.wait_for(2)
        (refused,) = fork(body).meet()
        assert "LoaderTimeout" == refused.error
        assert 0.2 <= refused.seconds < 0.4
        leads.open()
        assert {"load 1": 1} == values(leader.meet())
        assert "load 1" == cache.get("key")
        alone.open()
        assert {"load 2": 1} == values(waiter.meet())
        assert "load 1" == cache.get("key")
        assert 2 == len(calls)

    @pytest.mark.parametrize("kind", KINDS)
    def test_lock_timeout_with_stale(
        self,
        shared: testing.Isolated,
        fork: Fork,
        crowd: Any,
        calls: Any,
        gates: Any,
        kind: str,
    ) -> None:
        """
        7: with a stale value there the waiter gets it at its wait_timeout, marked stale, and it has
        no new life from that.
        """
        gate = gates()

        def make(here: Any) -> LevelCache:
            return LevelCache(
                "area",
                loader=here.loader(calls.add, gate, str.upper),
                wait_timeout=0.2,
                allow_stale=True,
                stale_ttl=30,
            )

        def leads(meet: Meet) -> None:
            here = crowd(kind)
            meet(here.run(1, here.method(make(here), "get"), "key"))

        def waits(meet: Meet) -> None:
            here = crowd(kind)
            found = here.run(3, here.method(make(here), "get_entry"), "key")
            meet([(each.value.value, each.value.stale, each.seconds) for each in found])

        cache = make(crowd("threads"))
        old_value(cache)
        leader = fork(leads)
        calls.wait_for(1)
        for found, stale, seconds in fork(waits).meet():
            assert ("old", True) == (found, stale)
            assert 0.2 <= seconds < 0.5
        assert "key" not in cache
        assert cache.peek("key") is None
        assert 1 == len(calls)
        gate.open()
        assert {"KEY": 1} == values(leader.meet())
        assert "KEY" == cache.get("key")

    @pytest.mark.parametrize("kind", KINDS)
    def test_background_refresh_holds_the_lock(
        self,
        shared: testing.Isolated,
        fork: Fork,
        crowd: Any,
        calls: Any,
        gates: Any,
        kind: str,
    ) -> None:
        """
        8: a stale value, a soft timeout of 200 ms and a slow loader: of 10 callers now and 10 more
        while it still runs, in different workers, all have the stale value, of one call.
        """
        gate = gates()

        def body(meet: Meet) -> None:
            here = crowd(kind)
            cache = LevelCache(
                "area",
                loader=here.loader(calls.add, gate, str.upper),
                soft_timeout=0.2,
                allow_stale=True,
                **OFF_THE_PATH,
            )
            meet(here.run(2, here.method(cache, "get"), "key", ready=meet))
            here.run(1, here.pause, gate)  # the loop goes on, and the load in it
            until_fresh(here, cache)
            meet()

        def until_fresh(here: Any, cache: LevelCache) -> None:
            deadline = time.monotonic() + 60
            while "key" not in cache:
                assert time.monotonic() < deadline
                here.run(1, here.pause, 0.001)

        cache = LevelCache("area", allow_stale=True)
        old_value(cache)
        children = [fork(body) for _ in range(10)]
        for half in (children[:5], children[5:]):
            answers = gather(half)
            assert {"old": 10} == values(answers)
            assert max(answer.seconds for answer in answers) < 1
            assert min(answer.seconds for answer in answers) >= 0.2
            assert 1 == len(calls)
            assert "key" not in cache
        gate.open()
        for child in children:
            child.finish()
        assert "KEY" == cache.get("key")
        assert 1 == len(calls)

    def test_early_refresh_is_joined(
        self, shared: testing.Isolated, fork: Fork, crowd: Any, calls: Any, gates: Any
    ) -> None:
        """
        9: when the value expires while an early refresh is on its way, callers wait for that and
        use its result: there is no second call.
        """
        gate = gates()

        def load(key: str) -> int:
            number = calls.add(key)
            if number == 2:
                gate.wait()
            return number

        cache = LevelCache(
            "area",
            loader=load,
            local_ttl=10,
            ttl_jitter_ratio=None,
            refresh_ahead=True,
            refresh_ahead_window=3,
            **OFF_THE_PATH,
        )

        def body(meet: Meet) -> None:
            meet(crowd("threads").run(4, cache.get, "key", ready=meet))

        assert 1 == cache.get("key")
        shared.clock.advance(8)
        assert 1 == cache.get("key")
        calls.wait_for(2)
        shared.clock.advance(3)
        assert "key" not in cache
        children = [fork(body) for _ in range(2)]
        for child in children:
            child.meet()
        until_waiting(shared, 8)
        gate.open()
        assert {2: 8} == values([answer for child in children for answer in child.meet()])
        assert 2 == len(calls)

    @pytest.mark.parametrize("how", ["delete", "expire", "clear", "set"])
    def test_invalidated_during_the_load(
        self, shared: testing.Isolated, fork: Fork, calls: Any, gates: Any, how: str
    ) -> None:
        """
        10: another process deletes or sets the key while its old data are being loaded: who asked
        before gets them, but they are not stored over the newer state. Who asks afterwards does not
        even wait for them.
        """
        gate = gates()

        def load(key: str) -> str:
            number = calls.add(key)
            if number == 1:
                gate.wait()
            return f"load {number}"

        cache = LevelCache("area", loader=load)

        def body(meet: Meet) -> None:
            meet(cache.get("key"))

        leader = fork(body)
        calls.wait_for(1)
        waiter = fork(body)
        until_waiting(shared, 1)
        arguments = {"delete": ["key"], "expire": ["key"], "clear": [], "set": ["key", "newer"]}
        getattr(cache, how)(*arguments[how])
        expected = "newer" if how == "set" else "load 2"
        assert expected == fork(body).meet()
        gate.open()
        assert "load 1" == leader.meet() == waiter.meet()
        assert expected == cache.get("key") == fork(body).meet()
        assert (1 if how == "set" else 2) == len(calls)
        assert 1 == cache.metrics_snapshot()["load_lease_lost"]

    def test_bulk_overlap(
        self, shared: testing.Isolated, fork: Fork, calls: Any, gates: Any
    ) -> None:
        """
        11: two mget() in two processes with one key in common: that is loaded once, and the other
        keys do not wait for it.
        """
        gate = gates()

        def mload(keys: list[str]) -> dict[str, str]:
            calls.add(" ".join(keys))
            if "a" in keys:
                gate.wait()
            return {key: key.upper() for key in keys}

        cache = LevelCache("area", loader=FnLoader(str.upper, mload))

        def body_for(*keys: str) -> Callable[[Meet], None]:
            return lambda meet: meet(cache.mget(keys))

        first = fork(body_for("a", "common"))
        calls.wait_for(1)
        second = fork(body_for("common", "b"))
        until(lambda: "b" in cache)
        assert "common" not in cache
        gate.open()
        assert {"a": "A", "common": "COMMON"} == first.meet()
        assert {"common": "COMMON", "b": "B"} == second.meet()
        assert ["a common", "b"] == calls.whats()

    def test_two_hosts(self, shared: testing.Isolated, fork: Fork, crowd: Any, calls: Any) -> None:
        """
        12: two hosts (segments) with two workers each load once a host. (With Redis the second ends
        with the value of the first, and with the lock across hosts only one of them loads.)
        """
        cache = LevelCache("area", loader=crowd("threads").loader(calls.add, 0.1, str.upper))

        def body(meet: Meet) -> None:
            meet(crowd("threads").run(4, cache.get, "key", ready=meet))

        children = [fork(body) for _ in range(2)]
        with testing.isolated(shared=True):
            children += [fork(body) for _ in range(2)]
            assert {"KEY": 16} == values(gather(children))
        assert ["key", "key"] == calls.whats()


class TestStale:
    """A value past its life is still better than none."""

    def test_stale_on_error(
        self, shared: testing.Isolated, calls: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        """
        13: when the loader raises, the old value is the answer, labelled stale, and counted as that
        and not as a hit; the error is logged once.
        """

        def load(key: str) -> str:
            calls.add(key)
            raise OSError("no database")

        cache = LevelCache("stale-on-error", loader=load, stale_on_error=True)
        old_value(cache)
        with caplog.at_level(logging.WARNING):
            entry = cache.get_entry("key")
            assert "old" == cache.get("key")
        assert ("old", True) == (entry.value, entry.stale)
        counters = cache.metrics_snapshot()
        assert 2 == counters["stale_fallback"]
        assert 0 == counters["local_hit"]
        assert 1 == counters["load_error"] == len(calls)
        assert 1 == len([each for each in caplog.records if each.name.startswith("accelerator")])

    def test_throttle(self, shared: testing.Isolated, fork: Fork, crowd: Any, calls: Any) -> None:
        """14: then the loader is not called in any worker until error_ttl is over; then once."""

        def fail(key: str) -> str:
            raise OSError("no database")

        def body(meet: Meet) -> None:
            here = crowd("threads")
            cache = LevelCache(
                "area",
                loader=here.loader(calls.add, 0.05, fail),
                stale_on_error=True,
                error_ttl=10,
            )
            meet(here.run(4, cache.get, "key", ready=meet))

        old_value(LevelCache("area", stale_on_error=True))
        for asked in (1, 1, 1):
            assert {"old": 12} == values(gather([fork(body) for _ in range(3)]))
            assert asked == len(calls)
            shared.clock.advance(3)
        shared.clock.advance(2)
        assert {"old": 12} == values(gather([fork(body) for _ in range(3)]))
        assert 2 == len(calls)

    def test_stale_has_an_end(self, shared: testing.Isolated, fork: Fork, calls: Any) -> None:
        """
        15: stale answers end stale_ttl after the value's life, however many there were; from then
        on the loader's own exception is the cause of what the caller gets.
        """

        def load(key: str) -> str:
            if calls.add(key) == 1:
                return "old"
            raise OSError("no database")

        cache = LevelCache(
            "area",
            loader=load,
            local_ttl=10,
            stale_ttl=20,
            stale_on_error=True,
            error_ttl=1,
            ttl_jitter_ratio=None,
        )
        assert "old" == cache.get("key")
        shared.clock.advance(11)
        for _ in range(9):
            assert "old" == cache.get("key")
            assert "old" == fork(lambda meet: meet(cache.get("key"))).meet()
            shared.clock.advance(2)
        assert 10 == len(calls)
        shared.clock.advance(2)
        with pytest.raises(LoaderError) as caught:
            cache.get("key")
        assert isinstance(caught.value.__cause__, OSError)

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize(
        "raised",
        [KeyboardInterrupt, SystemExit, GeneratorExit, asyncio.CancelledError],
        ids=lambda kind: kind.__name__,
    )
    def test_not_every_exception(
        self,
        shared: testing.Isolated,
        fork: Fork,
        crowd: Any,
        calls: Any,
        gates: Any,
        raised: type[BaseException],
        kind: str,
    ) -> None:
        """
        16: KeyboardInterrupt, SystemExit (Gunicorn's abort of a worker), GeneratorExit and
        CancelledError never become a stale answer, and free the flight: who waits loads at once.
        """
        gate = gates()

        def answer(key: str) -> str:
            if len(calls) == 1:
                raise raised
            return "new"

        def body(meet: Meet) -> None:
            here = crowd(kind)
            cache = LevelCache(
                "area", loader=here.loader(calls.add, gate, answer), stale_on_error=True
            )
            try:
                (found,) = here.run(1, here.method(cache, "get"), "key")
            except (KeyboardInterrupt, SystemExit) as error:  # these end an event loop
                meet((None, type(error).__name__))
            else:
                meet((found.value, found.error))

        old_value(LevelCache("area", stale_on_error=True))
        leader = fork(body)
        calls.wait_for(1)
        waiter = fork(body)
        until_waiting(shared, 1)
        gate.open()
        opened = time.monotonic()
        assert (None, raised.__name__) == leader.meet()
        assert ("new", None) == waiter.meet()
        assert 2 == len(calls)
        assert calls.all()[1].at - opened < 0.5

    @pytest.mark.parametrize("kind", KINDS)
    def test_soft_timeout(
        self,
        shared: testing.Isolated,
        fork: Fork,
        crowd: Any,
        calls: Any,
        gates: Any,
        kind: str,
    ) -> None:
        """
        17: a loader slower than the soft timeout: the caller has the old value at that time, and
        when the loader ends, all workers have the new one. Without an old one the caller waits.
        (With Redis: it has the new one, too, and other hosts are told.)
        """
        gate = gates()

        def body(meet: Meet) -> None:
            here = crowd(kind)
            cache = LevelCache(
                "area",
                loader=here.loader(calls.add, gate, str.upper),
                soft_timeout=0.1,
                allow_stale=True,
                **OFF_THE_PATH,
            )
            get = here.method(cache, "get")
            meet(here.run(1, get, "key"))
            here.run(1, here.pause, gate)
            while "key" not in cache:
                here.run(1, here.pause, 0.001)
            meet()
            meet()
            meet(here.run(1, get, "other"))

        cache = LevelCache("area", allow_stale=True)
        old_value(cache)
        child = fork(body)
        (answer,) = child.meet()
        assert "old" == answer.value
        assert 0.1 <= answer.seconds < 0.4
        gate.open()
        child.meet()
        assert "KEY" == cache.get("key")
        gate.shut()
        child.meet()
        calls.wait_for(2)
        time.sleep(0.2)  # longer than the soft timeout
        gate.open()
        (answer,) = child.meet()
        assert "OTHER" == answer.value
        assert answer.seconds > 0.2

    @pytest.mark.parametrize("where", [{}, OFF_THE_PATH], ids=["in the reader", "in a thread"])
    def test_failed_refresh_is_quiet(
        self, shared: testing.Isolated, calls: Any, where: dict[str, Any]
    ) -> None:
        """
        18: a refresh that fails: no unhandled exception (an error in these tests), the flight is
        over, the value is still served, and after the pause it is tried again.
        """

        def load(key: str) -> str:
            number = calls.add(key)
            if number == 2:
                raise OSError("no database")
            return f"load {number}"

        cache = LevelCache(
            "area",
            loader=load,
            local_ttl=10,
            ttl_jitter_ratio=None,
            refresh_ahead=True,
            refresh_ahead_window=5,
            error_ttl=1,
            **where,
        )
        assert "load 1" == cache.get("key")
        shared.clock.advance(6)
        assert "load 1" == cache.get("key")
        until(lambda: cache.metrics_snapshot()["refresh_failures"])
        until(lambda: not shared.memory.flights())
        assert "load 1" == cache.get("key") == cache.get("key")
        assert 1 == cache.metrics_snapshot()["refresh_attempts"]
        shared.clock.advance(1.5)
        assert "load 1" == cache.get("key")
        until(lambda: cache.metrics_snapshot()["refresh_success"])
        until(lambda: not shared.memory.flights())
        assert "load 3" == cache.get("key")
        assert 2 == cache.metrics_snapshot()["refresh_attempts"]
        assert 3 == len(calls)

    def test_failed_load_behind_a_stale_answer_is_quiet(
        self, shared: testing.Isolated, calls: Any, gates: Any
    ) -> None:
        """18: the same for a load that goes on after a soft timeout."""
        gate = gates()

        def load(key: str) -> str:
            if calls.add(key) == 1:
                gate.wait()
                raise OSError("no database")
            return "new"

        cache = LevelCache(
            "area", loader=load, soft_timeout=0.01, stale_on_error=True, error_ttl=1, **OFF_THE_PATH
        )
        old_value(cache)
        assert "old" == cache.get("key")
        gate.open()
        until(lambda: not shared.memory.flights())
        assert "old" == cache.get("key")
        assert 1 == len(calls)
        shared.clock.advance(1.5)
        assert cache.get("key") in {"old", "new"}  # the second load may be faster than 10 ms
        until(lambda: "key" in cache)
        assert "new" == cache.get("key")
        assert 2 == len(calls)

    @pytest.mark.parametrize("kind", KINDS)
    def test_no_soft_timeout_is_stale_while_revalidate(
        self,
        shared: testing.Isolated,
        fork: Fork,
        crowd: Any,
        calls: Any,
        gates: Any,
        kind: str,
    ) -> None:
        """
        19: with soft_timeout=0 all have the stale value in under 50 ms, though they might wait for
        long, while one refresh runs.
        """
        gate = gates()

        def body(meet: Meet) -> None:
            here = crowd(kind)
            cache = LevelCache(
                "area",
                loader=here.loader(calls.add, gate, str.upper),
                soft_timeout=0,
                wait_timeout=30,
                allow_stale=True,
                **OFF_THE_PATH,
            )
            get = here.method(cache, "get")
            here.run(1, get, "used before")  # what the first load of a process imports and starts
            meet()
            meet([here.run(1, get, "key")[0] for _ in range(5)])
            here.run(1, here.pause, gate)
            while "key" not in cache:
                here.run(1, here.pause, 0.001)

        cache = LevelCache("area", allow_stale=True)
        old_value(cache)
        old_value(cache, "used before")
        children = [fork(body) for _ in range(4)]
        for child in children:
            child.meet()
        answers = [answer for child in children for answer in child.meet()]
        assert {"old": 20} == values(answers)
        times = sorted(answer.seconds for answer in answers)
        assert times[-2] < 0.05, times  # one may have lost the processor to somebody else
        assert {"used before": 1, "key": 1} == Counter(calls.whats())
        gate.open()
        for child in children:
            child.finish()
        assert "KEY" == cache.get("key")
        assert 2 == len(calls)

    def test_plain_get_does_not_revive(self, shared: testing.Isolated, fork: Fork) -> None:
        """
        20: get() of an expired value is a miss, with allow_stale it is the old value, and neither
        prolongs it; ``in`` says no.
        """
        cache = LevelCache("area", local_ttl=10, stale_ttl=20, ttl_jitter_ratio=None)

        def look(meet: Meet | None = None) -> Any:
            found = (
                cache.get("key", "nothing"),
                cache.get("key", allow_stale=True),
                cache.mget(["key"], allow_stale=True),
                cache.peek("key", "nothing"),
                "key" in cache,
            )
            return meet(found) if meet else found

        cache.set("key", "old")
        shared.clock.advance(11)
        for _ in range(9):
            expected = ("nothing", "old", {"key": "old"}, "nothing", False)
            assert expected == look() == fork(look).meet()
            shared.clock.advance(2)
        shared.clock.advance(2)
        expected = ("nothing", None, {"key": None}, "nothing", False)
        assert expected == look() == fork(look).meet()

    def test_expire_against_delete(self, shared: testing.Isolated, fork: Fork) -> None:
        """
        21: after expire() a plain get misses in all workers, yet a loader that fails can still fall
        back on the old value; after delete() it cannot. (With Redis: on all hosts.)
        """

        def load(key: str) -> str:
            raise OSError("no database")

        cache = LevelCache("area", loader=load, stale_on_error=True)

        def body(meet: Meet) -> None:
            while (step := meet()) is not None:
                name, *arguments = step
                try:
                    meet(getattr(cache, name)(*arguments))
                except LoaderError as error:
                    meet(type(error).__name__)

        def run(child: Any, *step: Any) -> Any:
            child.meet(step)
            return child.meet()

        one, other = fork(body), fork(body)
        run(one, "set", "key", "old")
        assert "old" == run(other, "peek", "key")
        assert run(one, "expire", "key")
        for child in (one, other):
            assert run(child, "peek", "key") is None
            assert not run(child, "__contains__", "key")
            assert "old" == run(child, "get", "key")
        run(one, "delete", "key")
        for child in (one, other):
            assert "LoaderError" == run(child, "get", "key")

    @pytest.mark.parametrize("kind", KINDS)
    def test_early_refresh_costs_the_reader_nothing(
        self,
        shared: testing.Isolated,
        fork: Fork,
        crowd: Any,
        calls: Any,
        gates: Any,
        kind: str,
    ) -> None:
        """
        22: with a loader that takes for ever the read that starts an early refresh still answers as
        a hit. (With Redis: whatever that takes.)
        """
        gate = gates()

        def body(meet: Meet) -> None:
            here = crowd(kind)
            cache = LevelCache(
                "area",
                loader=here.loader(calls.add, gate, str.upper),
                local_ttl=10,
                ttl_jitter_ratio=None,
                refresh_ahead=True,
                refresh_ahead_window=5,
                **OFF_THE_PATH,
            )
            cache.set("key", "old")
            shared.clock.advance(6)
            meet([here.run(1, here.method(cache, "get"), "key")[0] for _ in range(5)])
            here.run(1, here.pause, gate)
            while cache.peek("key") == "old":
                here.run(1, here.pause, 0.001)

        child = fork(body)
        answers = child.meet()
        calls.wait_for(1) if kind == "threads" else None  # a loop that stands runs no task
        assert {"old": 5} == values(answers)
        assert max(answer.seconds for answer in answers) < 0.5
        cache = LevelCache("area")
        counters = cache.metrics_snapshot()
        assert 5 == counters["local_hit"]
        assert 1 == counters["refresh_attempts"]
        gate.open()
        child.finish()
        assert "KEY" == cache.get("key")
        assert 1 == len(calls)


class TestNegative:
    """That something is not there is worth knowing."""

    @pytest.mark.parametrize("value", [None, 0, False, "", b"", []], ids=repr)
    def test_none_is_a_value(
        self, shared: testing.Isolated, fork: Fork, calls: Any, value: Any
    ) -> None:
        """
        23: a loader that returns None, or anything else that is false, is called once: the next get
        in any worker is a hit that gives it, and not the default.
        """

        def load(key: str) -> Any:
            calls.add(key)
            return value

        cache = LevelCache("area", loader=load)

        def body(meet: Meet) -> None:
            found = cache.get("key", "default"), cache.get("key", "default")
            meet((*found, cache.mget(["key"], "default")["key"], "key" in cache))

        for _ in range(2):
            found = fork(body).meet()
            assert (value, value, value, True) == found
            assert type(value) is type(found[1])
        assert 1 == len(calls)

    def test_its_own_shorter_life(self, shared: testing.Isolated, fork: Fork, calls: Any) -> None:
        """24: with a life of 10 s and null_ttl 1 s None is asked again after 1 s, a value not."""

        def load(key: str) -> str | None:
            calls.add(key)
            return None if key == "absent" else "value"

        cache = LevelCache("area", loader=load, local_ttl=10, null_ttl=1, ttl_jitter_ratio=None)

        def body(meet: Meet) -> None:
            meet(cache.mget(["absent", "there"], "default"))

        expected = {"absent": None, "there": "value"}
        assert expected == fork(body).meet() == fork(body).meet()
        assert {"absent": 1, "there": 1} == Counter(calls.whats())
        shared.clock.advance(1.1)
        assert expected == fork(body).meet() == fork(body).meet()
        assert {"absent": 2, "there": 1} == Counter(calls.whats())

    def test_none_and_value_replace_each_other(
        self, shared: testing.Isolated, fork: Fork, calls: Any
    ) -> None:
        """
        25: None set over a value, and a value over None, show in every worker; no old one shines
        through. (With Redis: on the other host, too.)
        """
        cache = LevelCache("area", loader=calls.add)

        def body(meet: Meet) -> None:
            while meet():
                meet((cache.get("key", "default"), cache.get("key", "default")))

        children = [fork(body) for _ in range(3)]
        for value in ["a", None, ["b"], None, None, 3, None, "d"]:
            cache.set("key", value)
            for child in children:
                child.meet("go on")
                assert (value, value) == child.meet()
        assert 0 == len(calls)

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("how", ["skip", "ttl"])
    def test_do_not_store(
        self,
        shared: testing.Isolated,
        fork: Fork,
        crowd: Any,
        calls: Any,
        gates: Any,
        how: str,
        kind: str,
    ) -> None:
        """
        26: a loader may say that nothing is to be stored: its caller and those who wait get the
        value, and the next call runs it again.
        """
        gate = gates()

        def say(context: LoadContext) -> None:
            if how == "skip":
                context.skip()
            else:
                context.ttl = 0

        def body(meet: Meet) -> None:
            here = crowd(kind)

            def load(key: str, context: LoadContext) -> str:
                number = calls.add(key)
                say(context)
                here.pause(gate)
                return f"load {number}"

            async def load_async(key: str, context: LoadContext) -> str:
                number = calls.add(key)
                say(context)
                await here.pause(gate)
                return f"load {number}"

            cache = LevelCache("area", loader=load_async if kind == "tasks" else load)
            get = here.method(cache, "get")
            meet(here.run(4, get, "key", ready=meet))
            meet()
            meet(here.run(1, get, "key"))

        children = [fork(body) for _ in range(3)]
        for child in children:
            child.meet()
        until_waiting(shared, 11)
        gate.open()
        assert {"load 1": 12} == values([answer for child in children for answer in child.meet()])
        assert "key" not in LevelCache("area")
        assert {"load 2": 1} == values(gather(children[:1]))
        assert {"load 3": 1} == values(gather(children[1:2]))
