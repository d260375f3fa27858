"""
Loads in an event loop: the steps of ``loading``, without ever blocking the loop.

What a caller leads is loaded by a task of its own, so that a caller may be cancelled while others
wait.  An async loader is cancelled when it is late, or when nobody on the host waits any more; one
that is not async runs in a thread, and is not stopped.

What must hold: when a caller's await is left by an exception, whichever and wherever it was raised,
none of the flights that it led is still loading, unless somebody else waits for it.  The load's
task cannot see to that, because it runs only after the caller has gone.  So the flights stay the
caller's, whose ``with`` frees them on the way out, until it is certain that their load shall go on
without it: because others wait, or because it left with a stale answer.  A task whose flights were
ended under it stores nothing.

One load goes on unasked: that of a thread whose caller is cancelled.  It cannot be stopped, and if
its flight were ended, the next caller would start a second load beside it.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import time
from typing import TYPE_CHECKING, Any, Final

from accelerator import aflight, background, flight, local
from accelerator.binding import COUNTER
from accelerator.errors import LoaderTimeout
from accelerator.loading import CANCELLED, REFRESH_ATTEMPTS, Job, Load
from accelerator.observability import oplog

if TYPE_CHECKING:
    from accelerator.joining import Wanted
    from accelerator.loader import BatchContext, LoadContext
    from accelerator.memory import Reading

_LOAD: Final = COUNTER["load"]

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
    if load.looks_first(chosen):
        await load.cache._ado(load.looking_first(chosen))
    for one in chosen:
        if one.is_pending and one.flight is None:
            load.enter(one)
    led = [one for one in chosen if one.is_led]
    if not led:
        return
    since = time.monotonic()
    groups = [led] if load.is_batch else [[one] for one in led]
    jobs = [TaskJob(load, group) for group in groups]
    try:
        await _run_all(jobs)
    except BaseException as error:
        for job in jobs:
            job.abandon(error)
        raise
    for job in jobs:
        job.take_over()  # for those that go on behind a stale answer
    load.has_led_since(since)


async def _run_all(jobs: list[TaskJob]) -> None:
    for job in jobs:
        job.start()
    for job in jobs:
        await job.wait()


class TaskJob(Job):
    """A load in a task of its own."""

    def __init__(self, load: Load, group: list[Wanted]) -> None:
        super().__init__(load, group)
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._task: asyncio.Task[None] | None = None
        self._asked = False
        self._begun: oplog.Begun | None = None
        self._in_thread = False
        self._answered = False
        self._expired = False
        self._stopped = False

    # --- for the caller ---

    def start(self) -> None:
        """
        Have the task begin soon.

        The caller must take_over() or abandon() it; whatever keeps it from that leads to the end
        of the flights, and a task that begins afterwards does nothing.
        """
        task = self._task = self._loop.create_task(self._run())
        task.add_done_callback(self._over)  # also if it is cancelled before it begins
        background.keep(task)

    async def wait(self) -> None:
        """Wait until there are answers, or until stale ones will do."""
        soft = [self.load.soft_left(one) for one in self.group]
        if None in soft:
            await asyncio.wait([self._ended])
        else:
            await asyncio.wait(
                [self._ended], timeout=min(left for left in soft if left is not None)
            )
            for one in self.group:
                if one.is_pending and not self.load.fall_back(one):
                    await asyncio.wait([self._ended])  # the stale value has gone meanwhile
        if self._ended.done() and any(one.is_pending for one in self.group):
            raise asyncio.CancelledError  # that is what the loader raised

    def abandon(self, error: BaseException) -> None:
        """Stop the load if it is of no use to others; its caller is left by *error*."""
        if self._loop.is_closed():
            self.__exit__(None, None, None)  # the task never runs again
            if self._task is not None:
                background.drop(self._task)
        elif self._is_awaited():
            self.take_over()
            self._loop.call_later(_LOOK_AGAIN, self._look_again)
        elif self._in_thread and isinstance(error, asyncio.CancelledError):
            self.take_over()
        else:
            self._stop()

    def _is_awaited(self) -> bool:
        return any(one.flight.waiters for one in self.group)

    def _look_again(self) -> None:
        if self._in_thread or self._ended.done():
            return
        if self._is_awaited():
            self._loop.call_later(_LOOK_AGAIN, self._look_again)
        else:
            self._stop()

    def _stop(self) -> None:
        """End the flights now: the loader may take its time to end, and nobody waits for that."""
        self.__exit__(None, None, None)
        if self._in_thread or not self._expired:  # else it is cancelled already
            self._stopped = True
            self._cancel()

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    # --- the task ---

    async def _run(self) -> None:
        timer = None
        names: list[tuple[int, int]] = []
        try:
            with self:
                if not any(one.is_led for one in self.group):
                    return  # its caller has gone before it began
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
        load, cache = self.load, self.load.cache
        self.group = await cache._ado(load.fetching(self.group))
        if not self.group:
            return
        await cache._ado(load.leasing(self.group))
        context = load.context(self.group)
        cache._count(_LOAD)
        self._asked = True
        begun = self._begun = load.begun(self.group)
        try:
            await self._ask_loader(context, begun)
        finally:
            begun.end("error", CANCELLED)  # unless it has ended otherwise

    async def _ask_loader(self, context: LoadContext | BatchContext, begun: oplog.Begun) -> None:
        load, cache = self.load, self.load.cache
        try:
            answer = await self._call(context)
        except Exception as error:
            if self._is_of_use(begun):
                if self._expired:
                    load.ended(begun)
                load.failed(self.group, error, begun, counted=self._expired)
            return
        except BaseException:
            self._count_broken(begun)
            raise
        if self._is_of_use(begun):
            self._answered = True
            counted = self._expired
            await cache._ado(load.answered(self.group, answer, context, begun, counted=counted))

    def _is_of_use(self, begun: oplog.Begun) -> bool:
        """Judge whether what a loader says still counts: not if it was stopped, or is late."""
        if self._stopped:
            self._count_broken(begun)  # as if it had ended when it was cancelled
            return False
        return self._in_thread or not self._expired

    def _count_broken(self, begun: oplog.Begun) -> None:
        """Count a load whose end nobody hears of; that it was late has been counted."""
        if not self._expired:
            self.load.broken(begun)
        elif self._in_thread:
            self.load.ended(begun)

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
        if self._ended.done() or self._stopped or self._answered:
            return
        self._expired = True
        if self._in_thread:
            if self.load.late(self.group):
                self._end()
            return
        if not self._asked:
            self.load.cache._count(_LOAD)  # its time has passed before the loader was reached
        if self._begun is not None:
            self._begun.end("error", LoaderTimeout.kind)
        limit = self.load.limit() or 0.0
        since = oplog.Begun(time.monotonic() - limit)
        self.load.failed(self.group, TimeoutError(), since, timeout=True)
        self._cancel()
        self._end()


def refresh_ahead(load: Load) -> None:
    """Load a value that ends soon, in a task of the running loop."""
    [one] = load.wanted
    with load:
        one.flight = flight.enter(load.cache, one.key, load.config.lease, local.REFRESH)
        if one.is_led:
            load.cache._count(REFRESH_ATTEMPTS)
            load.count_led(one)
            job = TaskJob(load, [one])
            job.start()
            job.take_over()
