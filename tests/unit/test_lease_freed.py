"""An exception at every bytecode of a leader's path: its lease is free when the call is left."""

import os
import sys
from collections.abc import Callable, Iterator
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
        sys.settrace(self.trace)

    def end(self) -> None:
        sys.settrace(None)

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


def inject(function: Callable[[], Any], at: int) -> tuple[bool, BaseException | None]:
    """Tell whether there was such a bytecode, and what came out."""
    kind = MonitoredInjection if sys.version_info >= (3, 12) else Injection
    injection = kind(at)
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
