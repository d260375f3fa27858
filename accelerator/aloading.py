"""
Loads in an event loop: the steps of ``loading``, without ever blocking the loop.

What a caller leads is loaded by a task of its own, so that a caller may be cancelled while others
wait.  An async loader is cancelled when it is late, or when nobody on the host waits any more; one
that is not async runs in a thread, and is not stopped.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import time
from typing import TYPE_CHECKING, Any, Final

from accelerator import aflight, background, flight, local
from accelerator.joining import COUNTER, LED, Wanted
from accelerator.loading import REFRESH_ATTEMPTS, Job, Load

if TYPE_CHECKING:
    from accelerator.backend import Reading
    from accelerator.loader import BatchContext, LoadContext

_LOAD: Final = COUNTER["load"]
_ERROR: Final = COUNTER["load_error"]

AT_ONCE: Final = 16
"""Loaders of one amget() that run at the same time, where there is no mload."""
_LOOK_AGAIN: Final = 0.05
"""Seconds until it is seen that the last waiter in another process has gone."""


async def run(load: Load) -> list[Reading | None]:
    """Load in the running loop; see Load.answers()."""
    load.blocks = False
    while pending := load.pending():
        with load:  # around one call, as in loading.run()
            await _round(load, pending)
        if load.is_busy:
            await asyncio.sleep(flight.BREATH)
    return load.answers()


async def _round(load: Load, pending: list[Wanted]) -> None:
    step = len(pending) if load.is_batch else AT_ONCE
    for start in range(0, len(pending), step):
        await _lead_some(load, pending[start : start + step])
    for one in pending:
        if one.is_pending and one.is_joined:
            soft = load.soft_left(one)
            patience = load.patience(soft)
            answer = await aflight.wait(load.cache._memory, one.flight, patience)
            load.woken(one, answer, soft=soft is not None)


async def _lead_some(load: Load, chosen: list[Wanted]) -> None:
    for one in chosen:
        load.enter(one)
    led = [one for one in chosen if one.is_led]
    if not led:
        return
    since = time.monotonic()
    groups = [led] if load.is_batch else [[one] for one in led]
    jobs: list[TaskJob] = []
    try:
        for group in groups:
            jobs.append(TaskJob(load, group))  # noqa: PERF401  all but a failing one must be known
        for job in jobs:
            await job.wait()
    finally:
        for job in jobs:
            job.leave()
    load.has_led_since(since)


class TaskJob(Job):
    """A load in a task of its own."""

    def __init__(self, load: Load, group: list[Wanted]) -> None:
        super().__init__(load, group)
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._in_thread = False
        self._expired = False
        self._stopped = False
        self.goes_on = False
        """It has its purpose without a waiter."""
        self._task = self._loop.create_task(self._run())
        self._task.add_done_callback(self._over)  # also if it is cancelled before it begins
        background.keep(self._task)
        self.take_over()

    # --- for the caller ---

    async def wait(self) -> None:
        """Wait until there are answers, or until stale ones will do."""
        soft = [self.load.soft_left(one) for one in self.group]
        if None in soft:
            await asyncio.wait([self._ended])
        else:
            self.goes_on = True
            await asyncio.wait(
                [self._ended], timeout=min(left for left in soft if left is not None)
            )
            for one in self.group:
                if one.is_pending and not self.load.fall_back(one):
                    self.goes_on = False  # the stale value has gone meanwhile
                    await asyncio.wait([self._ended])
        if self._ended.done() and any(one.is_pending for one in self.group):
            raise asyncio.CancelledError  # that is what the loader raised

    def leave(self) -> None:
        """Stop the load if nobody waits for it."""
        if self._loop.is_closed():
            self.__exit__(None, None, None)  # the task never runs again
            background.drop(self._task)
            return
        if self.goes_on or self._in_thread or self._ended.done():
            return
        if any(one.flight.waiters for one in self.group):
            self._loop.call_later(_LOOK_AGAIN, self.leave)
            return
        self._stopped = True
        self._task.cancel()

    # --- the task ---

    async def _run(self) -> None:
        timer = None
        names: list[tuple[int, int]] = []
        try:
            with self:
                memory = self.load.cache._memory
                names += [flight.note_task(memory, one.flight, self._loop) for one in self.group]
                flights = (one.flight for one in self.group)
                flight.leading.set((*flight.leading.get(), *flights))
                limit = self.load.limit()
                if limit is not None:
                    timer = self._loop.call_later(limit, self._expire)
                await self._ask()
        except asyncio.CancelledError:
            if not (self._expired or self._stopped):
                raise
        except (KeyboardInterrupt, SystemExit):
            raise  # the loop passes it on
        except BaseException as error:  # GeneratorExit, or of a codec: the caller's to see
            for one in self.group:
                if one.is_pending:
                    one.error = error
        finally:
            for name in names:
                flight.forget_task(name)
            if timer is not None:
                timer.cancel()
            self._end()

    def _over(self, _: object) -> None:
        self.__exit__(None, None, None)
        self._end()

    def _end(self) -> None:
        if not self._ended.done() and not self._loop.is_closed():
            self._ended.set_result(None)

    async def _ask(self) -> None:
        load = self.load
        context = load.context(self.group)
        load.cache._count(_LOAD)
        started = time.monotonic()
        try:
            answer = await self._call(context)
        except Exception as error:
            if self._in_thread or not self._expired:
                load.failed(self.group, error, started, counted=self._expired)
            return
        except BaseException:
            if not self._expired:
                load.cache._count(_ERROR)
            raise
        if self._in_thread or not self._expired:
            load.answered(self.group, answer, context, started, counted=self._expired)

    async def _call(self, context: LoadContext | BatchContext) -> Any:
        call, argument = self.load.call, self.load.argument(self.group)
        if call.is_async:
            return await call(argument, context)
        self._in_thread = True
        answer = await self._loop.run_in_executor(
            None, contextvars.copy_context().run, self._call_in_thread, argument, context
        )
        if inspect.isawaitable(answer):  # a plain function that gives a coroutine
            self._in_thread = self._expired  # late already: then it is waited for all the same
            return await answer
        return answer

    def _call_in_thread(self, argument: Any, context: LoadContext | BatchContext) -> Any:
        try:
            with background.surroundings(self.load.config.background):
                return self.load.call(argument, context)
        except StopIteration as error:
            # A future cannot hold it, and before Python 3.12 never ends.  What a coroutine does:
            raise RuntimeError("the loader raised StopIteration") from error

    def _expire(self) -> None:
        """Judge that it is late."""
        if self._ended.done():
            return
        self._expired = True
        if self._in_thread:
            if self.load.late(self.group):
                self._end()
            return
        limit = self.load.limit() or 0.0
        self.load.failed(self.group, TimeoutError(), time.monotonic() - limit, timeout=True)
        self._task.cancel()
        self._end()


def refresh_ahead(load: Load) -> None:
    """Load a value that ends soon, in a task of the running loop."""
    [one] = load.wanted
    with load:
        one.flight = flight.enter(load.cache, one.key, load.config.lease, local.REFRESH)
        if one.is_led:
            load.cache._count(REFRESH_ATTEMPTS)
            load.cache._count(LED)
            TaskJob(load, [one]).goes_on = True
