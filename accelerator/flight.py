"""
Flights: leading the load of a key, or waiting for who does.

What a flight is, and who leads, is decided in the segment.  Here is how a caller waits without
stopping what else its thread does: a thread sleeps in C, a gevent hub watches one bell for all of
its waits, and so does an event loop (``aflight``).  Nothing here starts before somebody waits.
"""

from __future__ import annotations

import contextvars
import os
import sys
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any, Final

from accelerator import local
from accelerator.local import JOIN, WAIT_TIMEOUT

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

FRESH: Final = -1
"""State of a flight that is none: there is a fresh value, or with REFRESH another leads."""
REFUSED: Final = -2
"""State of a flight that is none: enough uncoordinated loads run."""


BUSY: Final = -3
"""State of a flight that is none: its place in the table was locked for too long."""


class NoFlight:
    """Stands for a flight where there is none."""

    __slots__ = ("state",)

    id: Final = 0
    alone: Final = False
    own: Final = False
    waiters: Final = 0

    def __init__(self, state: int) -> None:
        self.state = state


_FRESH: Final = NoFlight(FRESH)
_REFUSED: Final = NoFlight(REFUSED)
_BUSY: Final = NoFlight(BUSY)

BREATH: Final = 0.005
"""Seconds until a locked table is asked again."""
LOOK: Final = 0.02
"""Seconds between two looks where no bell can be had."""

# A flight must not be lost between the call that gives it and the place where its owner finds it.
# So none is kept in a local variable, which a traceback would keep alive: it goes from the stack,
# which is emptied when a frame is left, straight into what a ``with`` of the caller looks after.


def enter(cache: local.AreaBase, key: Any, lease: float, mode: int = JOIN) -> Any:
    """Lead the load of *key* on this host, or join who does; see Area._enter."""
    try:
        return cache._enter(key, lease, mode, not on_loop()) or _FRESH
    except BlockingIOError:
        return _BUSY


def enter_alone(cache: local.AreaBase, key: Any, lease: float, most: int | None) -> Any:
    """Load uncoordinated, if less than *most* of the area's loads on this host do."""
    try:
        return cache._enter_alone(key, lease, most) or _REFUSED
    except BlockingIOError:
        return _BUSY


class Unrecorded:
    """A load that no table knows of, because none could be asked: nobody joins, nothing is kept."""

    id: Final = 0
    alone: Final = True
    own: Final = True
    recorded: Final = False
    taken_over: Final = False
    overtaken: Final = False
    waiters: Final = 0

    def __init__(self) -> None:
        self.state = local.FLIGHT_LEADING

    def finish(self, *_: object, **__: object) -> int:
        """Store nothing."""
        self.state = local.FLIGHT_OVER
        return local.NOT_STORED

    def hand(self, *_: object, **__: object) -> None:
        """End."""
        self.state = local.FLIGHT_OVER

    decline = fail = hand


def end(flight: Any) -> None:
    """Free a lease, or stop waiting; nothing if the flight is over."""
    state = flight.state
    if state == local.FLIGHT_LEADING:
        flight.fail()
    elif state == local.FLIGHT_JOINED:
        flight.leave()


# --- who leads ----------------------------------------------------------------------------------

leading: Final[contextvars.ContextVar[tuple[Any, ...]]] = contextvars.ContextVar(
    "accelerator_leading", default=()
)
"""Flights whose loaders run in this context.  Some may be over: only live ones count."""

_led_by_tasks: Final[dict[tuple[int, int], asyncio.AbstractEventLoop]] = {}


def is_reentrant(flight: Any) -> bool:
    """Whether the code that asks is the loader that it would wait for."""
    return flight.own and any(
        each.id == flight.id and each.state == local.FLIGHT_LEADING for each in leading.get()
    )


def blocks_own_leader(memory: local.Segment, flight: Any) -> bool:
    """Whether a thread that waits would keep its own event loop from ending the flight."""
    loop = running_loop()
    return loop is not None and flight.own and _led_by_tasks.get((id(memory), flight.id)) is loop


def note_task(
    memory: local.Segment, flight: Any, loop: asyncio.AbstractEventLoop
) -> tuple[int, int]:
    """Remember which loop has to run for a flight to end; what to forget afterwards."""
    name = id(memory), flight.id
    _led_by_tasks[name] = loop
    return name


def forget_task(name: tuple[int, int]) -> None:
    """Forget it again."""
    _led_by_tasks.pop(name, None)


def running_loop() -> asyncio.AbstractEventLoop | None:
    """The event loop that runs in this thread."""
    events = sys.modules.get("asyncio.events")  # not imported: then there is none
    return None if events is None else events._get_running_loop()


def on_loop() -> bool:
    """Whether other tasks or greenlets stand still while this thread does."""
    return running_loop() is not None or _hub_of_thread() is not None


# --- waiting ------------------------------------------------------------------------------------


def wait(memory: local.Segment, flight: Any, seconds: float) -> int:
    """
    Block the caller, a thread or a greenlet, until a joined flight ends: WAIT_ENDED, WAIT_AGAIN
    or WAIT_TIMEOUT.
    """  # noqa: D205  one sentence
    hub = _hub_of_thread()
    if hub is None:
        return int(flight.wait(seconds))
    try:
        ringer = _hub_ringer(hub, memory)
    except OSError:
        return _look_greenlet(flight, seconds)
    return ringer.wait(flight, seconds)


def _look_greenlet(flight: Any, seconds: float) -> int:
    import gevent  # noqa: PLC0415  only where gevent runs

    end_at = time.monotonic() + seconds
    while (answer := int(flight.poll())) == WAIT_TIMEOUT and time.monotonic() < end_at:
        gevent.sleep(LOOK)
    return answer


def breathe() -> None:
    """Let the holder of a lock have the processor; the caller has waited for it already."""
    hub = _hub_of_thread()
    _sleep(hub, BREATH / 5 if hub is None else BREATH)


def sleep(seconds: float) -> None:
    """Do nothing for so long, while other greenlets run."""
    _sleep(_hub_of_thread(), seconds)


def _sleep(hub: Any, seconds: float) -> None:
    if hub is None:
        time.sleep(seconds)
        return
    import gevent  # noqa: PLC0415  only where gevent runs

    if gevent.getcurrent() is not hub:
        gevent.sleep(seconds)


def can_wait() -> bool:
    """Whether the caller may be made to wait: a callback of a hub may not."""
    hub = _hub_of_thread()
    return hub is None or caller() is not hub


def caller() -> Any:
    """Give what runs this code, and goes on when a wait is over: a task, greenlet or thread."""
    loop = running_loop()
    if loop is not None:
        import asyncio  # noqa: PLC0415  a loop runs: it is imported

        return asyncio.current_task(loop) or loop
    if _is_patched():  # whether there is a hub by now or not: it comes with the first wait
        import gevent  # noqa: PLC0415  only where gevent runs

        return gevent.getcurrent()
    return threading.current_thread()


class _Wait:
    __slots__ = ("flight", "wake")

    def __init__(self, flight: Any, wake: Callable[[int], object]) -> None:
        self.flight = flight
        self.wake = wake


class Ringer:
    """One bell, and all who wait for it in one event loop or hub.  Used in its thread only."""

    def __init__(self, memory: local.Segment) -> None:
        self.pid = os.getpid()
        self.memory = memory  # kept: its id is a key of the tables below
        self.bell = memory.bell()
        self._waits: dict[int, list[_Wait]] = {}

    def __del__(self) -> None:
        if self.pid == os.getpid():
            self.bell.close()

    def add(self, flight: Any, wake: Callable[[int], object]) -> _Wait:
        """Begin to wait; the caller must ask the flight once more afterwards."""
        one = _Wait(flight, wake)
        if not self._waits:
            self.watch()
        flights = self._waits.setdefault(flight.id, [])
        flights.append(one)
        if len(flights) == 1:  # who joined the same flight is woken with it
            flight.ring(self.bell)
        self.bell.arm(1)
        return one

    def remove(self, one: _Wait) -> None:
        """End to wait."""
        self.bell.arm(-1)
        flights = self._waits[one.flight.id]
        was_first = flights[0] is one
        flights.remove(one)
        if not flights:
            del self._waits[one.flight.id]
        elif was_first:
            flights[0].flight.ring(self.bell)
        if not self._waits:
            self.unwatch()

    def rung(self) -> None:
        """Wake those whose flights have ended, or must be entered again."""
        self.bell.clear()
        for flights in list(self._waits.values()):
            answer = flights[0].flight.poll()
            if answer != WAIT_TIMEOUT:
                for one in flights.copy():
                    one.wake(answer)

    def watch(self) -> None:
        """Have rung() called when the bell rings."""
        raise NotImplementedError

    def unwatch(self) -> None:
        """End that."""
        raise NotImplementedError


# --- gevent -------------------------------------------------------------------------------------


class _HubRinger(Ringer):
    """The bell of one hub."""

    def __init__(self, memory: local.Segment, hub: Any) -> None:
        super().__init__(memory)
        if self.bell.fileno() >= 0:
            self._watcher = hub.loop.io(self.bell.fileno(), 1)
        else:
            self._watcher = hub.loop.async_()
            self.bell.on_ring = self._watcher.send

    def wait(self, flight: Any, seconds: float) -> int:
        """Wait at most so long, while other greenlets run."""
        from gevent import event, get_hub, getcurrent  # noqa: PLC0415  only where gevent runs

        if getcurrent() is get_hub():
            return WAIT_TIMEOUT  # the hub's own callbacks cannot wait
        ended = event.AsyncResult()
        one = self.add(flight, ended.set)
        try:
            answer = int(flight.poll())
            if answer != WAIT_TIMEOUT or seconds <= 0:
                return answer
            ended.wait(seconds)
            return int(ended.value) if ended.ready() else WAIT_TIMEOUT
        finally:
            self.remove(one)

    def watch(self) -> None:
        """Have rung() called when the bell rings."""
        self._watcher.start(self.rung)

    def unwatch(self) -> None:
        """End that."""
        self._watcher.stop()


_hub_ringers: Final[weakref.WeakKeyDictionary[Any, dict[int, _HubRinger]]] = (
    weakref.WeakKeyDictionary()
)


def _hub_ringer(hub: Any, memory: local.Segment) -> _HubRinger:
    ringers = _hub_ringers.setdefault(hub, {})
    ringer = ringers.get(id(memory))
    if ringer is None or ringer.pid != os.getpid():
        ringer = ringers[id(memory)] = _HubRinger(memory, hub)
    return ringer


def _hub_of_thread() -> Any:
    """
    The gevent hub whose greenlets would stand still if this thread did.

    None without gevent, before it has patched threading, and in a real thread that runs no hub.
    Asked at each wait: under --preload gevent patches long after this module was imported.
    """
    if not _is_patched():
        return None
    from gevent._hub_local import get_hub_if_exists  # noqa: PLC0415  the only way to ask

    return get_hub_if_exists()


def _is_patched() -> bool:
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("threading"))
