"""Waiting for flights in an event loop: one bell for each, and no call that blocks."""

from __future__ import annotations

import asyncio
import functools
import os
import time
import weakref
from typing import TYPE_CHECKING, Any, Final

from accelerator import flight as flights
from accelerator.local import WAIT_TIMEOUT

if TYPE_CHECKING:
    from accelerator import local


async def wait(memory: local.Segment, flight: Any, seconds: float) -> int:
    """Do for a task what flight.wait() does for a thread."""
    try:
        ringer = _loop_ringer(asyncio.get_running_loop(), memory)
    except OSError:
        return await _look_async(flight, seconds)
    return await ringer.wait(flight, seconds)


async def _look_async(flight: Any, seconds: float) -> int:
    """Wait without a bell: this process has no file descriptor left for one."""
    end_at = time.monotonic() + seconds
    while (  # noqa: ASYNC110  there is nothing that could tell us
        answer := int(flight.poll())
    ) == WAIT_TIMEOUT and time.monotonic() < end_at:
        await asyncio.sleep(flights.LOOK)
    return answer


class _LoopRinger(flights.Ringer):
    """The bell of one event loop."""

    def __init__(self, memory: local.Segment, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(memory)
        self._loop = weakref.ref(loop)  # the table of ringers must not keep its own key
        if self.bell.fileno() < 0:
            self.bell.on_ring = functools.partial(_call_soon, self._loop, weakref.ref(self))

    async def wait(self, flight: Any, seconds: float) -> int:
        """Wait at most so long."""
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[int] = loop.create_future()

        def wake(answer: int) -> None:
            if not ended.done():
                ended.set_result(answer)

        timer = None
        one = self.add(flight, wake)
        try:
            answer = int(flight.poll())
            if answer != WAIT_TIMEOUT or seconds <= 0:
                return answer
            timer = loop.call_later(seconds, wake, WAIT_TIMEOUT)
            return await ended
        finally:
            if timer is not None:
                timer.cancel()
            self.remove(one)

    def watch(self) -> None:
        """Have rung() called when the bell rings."""
        loop = self._loop()
        if loop is not None and self.bell.fileno() >= 0:
            loop.add_reader(self.bell.fileno(), self.rung)

    def unwatch(self) -> None:
        """End that, so that an idle loop knows nothing of us."""
        loop = self._loop()
        if loop is not None and self.bell.fileno() >= 0 and not loop.is_closed():
            loop.remove_reader(self.bell.fileno())


def _call_soon(
    loop: weakref.ref[asyncio.AbstractEventLoop], ringer: weakref.ref[_LoopRinger]
) -> None:
    living, waiting = loop(), ringer()
    if living is not None and waiting is not None and not living.is_closed():
        living.call_soon_threadsafe(waiting.rung)


_loop_ringers: Final[
    weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[int, _LoopRinger]]
] = weakref.WeakKeyDictionary()


def _loop_ringer(loop: asyncio.AbstractEventLoop, memory: local.Segment) -> _LoopRinger:
    ringers = _loop_ringers.setdefault(loop, {})
    ringer = ringers.get(id(memory))
    if ringer is None or ringer.pid != os.getpid():
        ringer = ringers[id(memory)] = _LoopRinger(memory, loop)
    return ringer
