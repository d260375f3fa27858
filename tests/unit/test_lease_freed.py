"""An exception at every bytecode of a leader's path: its lease is free when the call is left."""

import asyncio
import os
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest

import accelerator
from accelerator import FnLoader, LevelCache, testing

PACKAGE = f"{Path(accelerator.__file__).parent}{os.sep}"
TWIN = f"{PACKAGE}process_local{os.sep}"


@pytest.fixture(autouse=True)
def isolated() -> Iterator[testing.Isolated]:
    with testing.isolated() as own:
        yield own
        assert [] == own.memory.check()


def make(loader: Any = None, **options: Any) -> LevelCache:
    return LevelCache("area", **{"loader": loader, **options})


class Injected(BaseException):
    pass


def ours(name: str) -> bool:
    return name.startswith(PACKAGE) and not name.startswith(TWIN)


class Injection:
    """Raises in the package's own code at its bytecode number *at*, if there is one."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.count = 0
        self.thrown = False

    def step(self) -> None:
        if self.thrown:
            return
        self.count += 1
        if self.count > self.at:
            self.thrown = True
            raise Injected

    def call(self, function: Callable[[], Any]) -> BaseException | None:
        """Give what came out, with its traceback: it keeps frames alive."""
        self.begin()
        try:
            function()
        except BaseException as error:
            return error
        finally:
            self.end()
        return None

    def begin(self) -> None:
        threading.settrace(self.trace)  # of those that begin from now on
        sys.settrace(self.trace)

    def end(self) -> None:
        sys.settrace(None)
        threading.settrace(None)

    def trace(self, frame: FrameType, event: str, argument: Any) -> Any:
        if event == "call":
            if self.thrown or not ours(frame.f_code.co_filename):
                return None
            frame.f_trace_opcodes = True
            frame.f_trace_lines = False
        elif event == "opcode":
            self.step()
        return self.trace


class MonitoredInjection(Injection):
    """The same where settrace() does not see every bytecode any more."""

    TOOL = 4

    def begin(self) -> None:
        monitoring = sys.monitoring
        monitoring.use_tool_id(self.TOOL, "test_lease_freed")
        monitoring.register_callback(self.TOOL, monitoring.events.INSTRUCTION, self.instruction)
        monitoring.set_events(self.TOOL, monitoring.events.INSTRUCTION)

    def end(self) -> None:
        sys.monitoring.set_events(self.TOOL, 0)
        sys.monitoring.free_tool_id(self.TOOL)

    def instruction(self, code: CodeType, offset: int) -> Any:
        if not ours(code.co_filename):
            return sys.monitoring.DISABLE
        self.step()
        return None


def injection_at(at: int) -> Injection:
    return (MonitoredInjection if sys.version_info >= (3, 12) else Injection)(at)


def inject(function: Callable[[], Any], at: int) -> tuple[bool, BaseException | None]:
    """Tell whether there was such a bytecode, and what came out."""
    injection = injection_at(at)
    error = injection.call(function)
    return injection.thrown, error


class TestEveryBytecode:
    """Whatever is raised wherever: when the call has been left, nobody waits for its lease."""

    def calls(self) -> dict[str, tuple[Callable[[], LevelCache], Callable[[LevelCache], Any]]]:
        def fail(key: Any) -> Any:
            raise ValueError

        batches = FnLoader(str, lambda keys: {key: str(key) for key in keys})
        failing = FnLoader(fail, fail)
        stale = {"stale_on_error": True, "stale_ttl": 100}
        return {
            "get": (lambda: make(str), lambda cache: cache.get(1)),
            "get_or_load": (make, lambda cache: cache.get_or_load(1, str)),
            "mget": (lambda: make(str), lambda cache: cache.mget([1, 2])),
            "batch": (lambda: make(batches), lambda cache: cache.mget([1, 2])),
            "failing": (lambda: make(fail, **stale), lambda cache: cache.get(1)),
            "failing batch": (lambda: make(failing, **stale), lambda cache: cache.mget([1, 2])),
            "refresh": (lambda: make(str), lambda cache: cache.refresh(1)),
            "alone": (
                lambda: make(str, penetration_protect=False),
                lambda cache: cache.get(1),
            ),
        }

    @pytest.mark.parametrize(
        "name",
        ["get", "get_or_load", "mget", "batch", "failing", "failing batch", "refresh", "alone"],
    )
    def test_lease_is_free(self, name: str, isolated: testing.Isolated) -> None:
        """It is free while the traceback is still held, and the next get loads."""
        prepare, call = self.calls()[name]
        cache = prepare()
        cache.get(0, disable_load=True)  # attached
        at = 0
        while True:
            cache.delete(1)
            cache.delete(2)
            thrown, error = inject(lambda: call(cache), at)
            assert [] == isolated.memory.flights(), (at, error)
            if not thrown:
                break
            assert "1" == make().get_or_load(1, str), at
            del error
            at += 1
        assert at > 200

    def test_refresh_ahead(self, isolated: testing.Isolated) -> None:
        """The same for a hit that refreshes."""
        cache = make(str, refresh_ahead=True, refresh_ahead_window=5)
        at = 0
        while True:
            cache.set(1, "old", ttl=4)
            thrown, _ = inject(lambda: cache.get(1), at)
            assert [] == isolated.memory.flights(), at
            if not thrown:
                break
            at += 1
        assert at > 100


Left = tuple[list[Any], BaseException | None]
"""The flights that are listed at the moment when an await is left, and what it was left by."""


async def leave(memory: Any, awaitable: Awaitable[Any], injection: Injection) -> Left:
    injection.begin()
    try:
        async with asyncio.timeout(20):
            await awaitable
    except BaseException as error:
        return memory.flights(), error
    finally:
        injection.end()
    return memory.flights(), None


# What a coroutine is not awaited for, or a generator not closed for, is the injection.
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
class TestEveryBytecodeOfAsync:
    """The same when an await is left, although the load runs in a task or thread of its own."""

    def calls(self) -> dict[str, tuple[Callable[[], LevelCache], Callable[[LevelCache], Any]]]:
        async def load(key: Any) -> str:
            await asyncio.sleep(0)
            return str(key)

        async def mload(keys: list[Any]) -> dict[Any, str]:
            return {key: await load(key) for key in keys}

        async def fail(key: Any) -> Any:
            await asyncio.sleep(0)
            raise ValueError

        stale = {"stale_on_error": True, "stale_ttl": 100}
        return {
            "aget": (lambda: make(load), lambda cache: cache.aget(1)),
            "aget_or_load": (make, lambda cache: cache.aget_or_load(1, load)),
            "arefresh": (lambda: make(load), lambda cache: cache.arefresh(1)),
            "failing": (lambda: make(fail, **stale), lambda cache: cache.aget(1)),
            "alone": (
                lambda: make(load, penetration_protect=False),
                lambda cache: cache.aget(1),
            ),
            "thread": (lambda: make(str), lambda cache: cache.aget(1)),
            "amget": (lambda: make(load), lambda cache: cache.amget([1, 2])),
            "batch": (lambda: make(FnLoader(load, mload)), lambda cache: cache.amget([1, 2])),
            "threads": (lambda: make(str), lambda cache: cache.amget([1, 2])),
        }

    def check(self, name: str, isolated: testing.Isolated, step: int) -> None:
        prepare, call = self.calls()[name]
        cache = prepare()
        cache.get(0, disable_load=True)  # attached

        at = 0
        while True:
            cache.delete(1)
            cache.delete(2)
            injection = injection_at(at)
            flights, error = asyncio.run(leave(isolated.memory, call(cache), injection))
            assert [] == flights, (at, error)
            assert not isinstance(error, TimeoutError), at
            if not injection.thrown:
                break
            assert [] == isolated.memory.flights(), at
            assert "1" == make().get_or_load(1, str), at
            del error
            at += step
        assert at > 1000

    @pytest.mark.parametrize(
        "name", ["aget", "aget_or_load", "arefresh", "failing", "alone", "thread"]
    )
    def test_lease_is_free(self, name: str, isolated: testing.Isolated) -> None:
        """It is free in the very step of the loop in which the caller goes on."""
        self.check(name, isolated, 1)

    @pytest.mark.parametrize("name", ["amget", "batch", "threads"])
    @pytest.mark.parametrize("step", [7, pytest.param(1, marks=pytest.mark.nightly)])
    def test_leases_are_free(self, name: str, step: int, isolated: testing.Isolated) -> None:
        """Those of several keys, at each seventh bytecode."""
        self.check(name, isolated, step)

    @pytest.mark.parametrize("name", ["aget", "arefresh", "amget", "batch"])
    def test_cancelled(self, name: str, isolated: testing.Isolated) -> None:
        """Also if something else is raised on the way out of a caller that was cancelled."""
        at = 0
        while self.cancel(name, isolated, at):
            at += 1
        assert at > 100

    def cancel(self, name: str, isolated: testing.Isolated, at: int) -> bool:
        injection = injection_at(sys.maxsize)

        async def story() -> Left:
            begun = asyncio.Semaphore(0)

            async def load(_: Any) -> None:
                begun.release()
                await asyncio.sleep(20)

            cache = make(FnLoader(load, load) if name == "batch" else load)
            call = {"aget": cache.aget, "arefresh": cache.arefresh}.get(name)
            waiting = cache.amget([1, 2]) if call is None else call(1)
            caller = asyncio.create_task(leave(isolated.memory, waiting, injection))
            for _ in range(2 if name == "amget" else 1):
                await begun.acquire()
            injection.at = injection.count + at
            caller.cancel()
            return await caller

        flights, error = asyncio.run(story())
        assert [] == flights, (at, error)
        assert isinstance(error, Injected if injection.thrown else asyncio.CancelledError)
        return injection.thrown
