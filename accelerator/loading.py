"""
Loads: asking the loader for what a caller leads, and how a thread or greenlet goes through it all.

A round: enter the flight of each key; ask for what is led, and store or hand over what comes back;
then wait for what others lead.  What that did not settle is entered again.  All that can be led is
loaded before anything is waited for, so callers that want each other's keys cannot block each
other.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Mapping
from concurrent import futures
from typing import TYPE_CHECKING, Any, Final, Self

from accelerator import background, flight, local
from accelerator import tags as tagging
from accelerator.binding import COUNTER
from accelerator.entry import MISS, ReadOptions, UnsetType
from accelerator.errors import (
    CacheError,
    ConfigError,
    LoaderError,
    LoaderTimeout,
    SerializationError,
)
from accelerator.keeping import Keeping, Loaded
from accelerator.loader import BatchContext, LoadContext
from accelerator.observability import oplog

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from types import TracebackType

    from accelerator.joining import Wanted
    from accelerator.loader import Call, Source
    from accelerator.memory import Reading
    from accelerator.operations import Operations
    from accelerator.steps import Steps

_LOAD: Final = COUNTER["load"]
_SUCCESS: Final = COUNTER["load_success"]
_TIMEOUT: Final = COUNTER["load_timeout"]
_ERROR: Final = COUNTER["load_error"]
_REFRESH_SUCCESS: Final = COUNTER["refresh_success"]
_REJECTED_ENCODE: Final = COUNTER["store_rejected_encode"]
_REFRESH_FAILURES: Final = COUNTER["refresh_failures"]
REFRESH_ATTEMPTS: Final = COUNTER["refresh_attempts"]

CANCELLED: Final = "cancelled"
"""Kind of the error of a load that was ended from outside, or by what is no Exception."""


class Load(Keeping):
    """
    What one call wants loaded, and the loader for it.

    Args:
        cache: The area.
        source: Its loader, or the one that the call was given.
        keys: No two are equal.
        op: Name of the operation in logs and errors.
        options: Of the read.
        given: Life that the call was given, if it was.
        tags: Encoded tags that the call was given, those of the area among them; none: the area's.
        batch: Several keys may be asked for at once.
        refreshes: Load although there is a fresh value; never answer with a stale one.
        enough: A copy that Redis has will do if it is fresh for longer than this; None: none will.
    """

    def __init__(
        self,
        cache: Operations,
        source: Source,
        keys: Iterable[Any],
        *,
        op: str,
        options: ReadOptions,
        given: tuple[Any, ...] = (),
        tags: tuple[bytes, ...] = (),
        batch: bool = False,
        refreshes: bool = False,
        enough: float | None = 0.0,
    ) -> None:
        is_batch = batch and source.mload is not None
        super().__init__(
            cache, keys, op=op, options=options, is_batch=is_batch, refreshes=refreshes
        )
        self.enough = enough
        self.source = source
        self.given = given
        self.tags = tags or cache._tags()

    @property
    def call(self) -> Call:
        """The function of the loader that is asked."""
        return self.source.of(batch=self.is_batch)

    def context(self, group: Sequence[Wanted]) -> LoadContext | BatchContext:
        """What the loader is given, if it wants it."""
        context: LoadContext | BatchContext
        if self.is_batch:
            keys = [one.key for one in group]
            context = BatchContext(self.config.area, keys, self._old_value)
        else:
            key = group[0].key
            context = LoadContext(self.config.area, lambda: self._old_value(key))
        context.namespace = self.cache._path
        return context

    def _old_value(self, key: Any) -> Any:
        found = self.cache._read(key, touch=False, stale=True)
        if found is None:
            found = next((one.copy for one in self.wanted if one.key == key), None)
        return MISS if found is None else found[0]

    def argument(self, group: Sequence[Wanted]) -> Any:
        """What the loader is asked for."""
        return [one.key for one in group] if self.is_batch else group[0].key

    def ask(self, group: Sequence[Wanted]) -> None:
        """Ask Redis and then the loader for keys that this caller leads; pass the answers on."""
        do = self.cache._do
        group = do(self.fetching(group))
        if group:
            do(self.leasing(group))
            self._ask_loader(group)

    def _ask_loader(self, group: Sequence[Wanted]) -> None:
        context = self.context(group)
        self.cache._count(_LOAD)
        begun = self.begun(group)
        token = flight.leading.set((*flight.leading.get(), *(one.flight for one in group)))
        try:
            try:
                answer = self.call(self.argument(group), context)
            except Exception as error:  # what is none passes, and frees the flights on its way
                self.failed(group, error, begun)
                return
            except BaseException:
                self.broken(begun)
                raise
            self._refuse_awaitable(answer, begun)
            self.cache._do(self.answered(group, answer, context, begun))
        finally:
            flight.leading.reset(token)
            begun.end("error", CANCELLED)  # unless it has ended otherwise

    def begun(self, group: Sequence[Wanted]) -> oplog.Begun:
        """Note that the loader is asked, for others to see if it never answers."""
        area = self.config.area
        if self.is_batch:
            return oplog.begun(area, "mload", count=len(group))
        try:
            key_hash = self.cache._hash(group[0].key)
        except Exception:  # a converter that fails only now; the load does not depend on it
            key_hash = 0
        return oplog.begun(area, "load", key_hash)

    def _refuse_awaitable(self, answer: Any, begun: oplog.Begun) -> None:
        if inspect.isawaitable(answer):
            if inspect.iscoroutine(answer):
                answer.close()
            self.broken(begun)
            begun.end("error", ConfigError.kind)
            raise async_loader(self.config.area, self.op)

    def broken(self, begun: oplog.Begun) -> None:
        """Count a load that has ended without an answer, and without an error to be handed on."""
        self.ended(begun)
        self.cache._count(_ERROR)

    def ended(self, begun: oplog.Begun) -> None:
        """Count how long a load took: once for each, however it has ended."""
        self.cache._latency(max(0.0, time.monotonic() - begun.since))

    def limit(self) -> float | None:
        """Seconds that the loader may take."""
        return self.config.batch_limit if self.is_batch else self.config.loader_timeout

    def answered(
        self,
        group: Sequence[Wanted],
        answer: Any,
        context: LoadContext | BatchContext,
        begun: oplog.Begun,
        *,
        counted: bool = False,
    ) -> Steps[None]:
        """
        Store what the loader answered, or give it to those who wait.

        Args:
            group: The keys.
            answer: A value, or a mapping for a batch.
            context: What the loader said about it.
            begun: That it was asked.
            counted: It was late, and that has been noted.
        """
        if isinstance(context, BatchContext) and not isinstance(answer, Mapping):
            kind = type(answer).__name__
            self.failed(group, TypeError(f"mload must return a mapping, not {kind}"), begun)
            return
        took = time.monotonic() - begun.since
        limit = self.limit()
        # Its time may have begun before the loader's, with what was asked of Redis.
        late = counted or (limit is not None and took > limit)
        if late:
            begun.end("late", LoaderTimeout.kind)
        else:
            begun.end("ok")
        self.cache._latency(took)
        if not counted:
            self.cache._count(_TIMEOUT if late else _SUCCESS)
            self._count_refresh(succeeded=True)
            if late:
                oplog.failed(self.config.area, self.op, LoaderTimeout.kind, self.since)
        loaded = []
        for one in group:
            value = answer
            if isinstance(context, BatchContext):
                value = answer.get(one.key, MISS)
                if value is MISS:
                    if not context.is_complete:
                        one.absent = True
                        one.flight.fail()
                        continue
                    value = None
            said = context.ttl_for(one.key)
            # Not passed on as it is: the native part has an UNSET of its own.
            life = self.given if isinstance(said, UnsetType) else (said,)
            tags = self._tags_for(context.tags_for(one.key))
            loaded.append(Loaded(one, value, life, context.skips(one.key), tags))
        yield from self.keeping(loaded, late=late)

    def _tags_for(self, said: Iterable[str]) -> tuple[bytes, ...] | None:
        """All tags of a value, with those that its loader said; None: these are wrong, or many."""
        if not said:
            return self.tags
        try:
            return tagging.joined(self.tags, tagging.encoded(said))
        except (TypeError, ValueError) as error:
            self.cache._count(_REJECTED_ENCODE)
            self.cache._tell("tags", "what a loader returned is not cached: %s", error)
            oplog.failed(self.config.area, self.op, SerializationError.kind, self.since)
            return None

    def failed(
        self,
        group: Sequence[Wanted],
        error: Exception,
        begun: oplog.Begun,
        *,
        timeout: bool = False,
        counted: bool = False,
    ) -> None:
        """
        Free what is led, after a note to those who may have a stale value; answer that.

        Args:
            group: The keys; some may have been answered with stale values meanwhile.
            error: What the loader raised.
            begun: That it was asked.
            timeout: It was stopped, because it took too long.
            counted: What has become of this load has been counted, and how long it took.
        """
        kind: type[CacheError] = LoaderTimeout if timeout else LoaderError
        begun.end("error", kind.kind)
        for one in group:
            keeps = self.config.stale_life > 0 and self.stale(one) is not None
            if self.config.error_ttl and (keeps or self.refreshes):
                self.cache._pause(one.key, self.config.error_ttl)
            one.flight.fail()
            if not one.is_pending or (self.stale_ok and self.fall_back(one)):
                continue
            limit = self.limit()
            text = f"the loader took more than {limit} seconds" if timeout else "the loader raised"
            one.error = self.error(kind, text)
            one.error.__cause__ = error
        if not counted:
            self.ended(begun)
            self.cache._count(_TIMEOUT if timeout else _ERROR)
            self._count_refresh(succeeded=False)
        oplog.failed(self.config.area, self.op, kind.kind, self.since)

    def late(self, group: Sequence[Wanted]) -> bool:
        """Note that a loader which cannot be stopped is late; whether stale values will do."""
        self.cache._count(_TIMEOUT)
        self._count_refresh(succeeded=False)
        oplog.failed(self.config.area, self.op, LoaderTimeout.kind, self.since)
        return self.stale_ok and self._all_fall_back(group)

    def _all_fall_back(self, group: Sequence[Wanted]) -> bool:
        # Who has had a stale answer already, after soft_timeout, is not given another one.
        return [not one.is_pending or self.fall_back(one) for one in group].count(False) == 0

    def _count_refresh(self, *, succeeded: bool) -> None:
        if self.refreshes:
            self.cache._count(_REFRESH_SUCCESS if succeeded else _REFRESH_FAILURES)


def async_loader(area: str, op: str) -> ConfigError:
    """Say that there is no event loop to run a loader in."""
    return ConfigError(
        "the loader is async, and this method is not: use the one with the prefix a (aget, amget, "
        "aget_or_load)",
        setting="loader",
        area=area,
        operation=op,
    )


# --- in a thread or greenlet --------------------------------------------------------------------


def run(load: Load) -> list[Reading | None]:
    """
    Load in the caller's thread; see Load.answers().

    Raises:
        ConfigError: The loader is async.
    """
    if load.call.is_async:
        raise async_loader(load.config.area, load.op)
    while pending := load.pending():
        # One call and no more: of the jumps in the body of a ``with`` CPython 3.12 leaves some
        # uncovered, and a signal's exception that arrives there does not pass __exit__.
        with load:
            _round(load, pending)
        if load.is_busy:
            flight.breathe()
    return load.answers()


def _round(load: Load, pending: list[Wanted]) -> None:
    if load.looks_first(pending):
        load.cache._do(load.looking_first(pending))
    for one in pending:
        if one.is_pending and one.flight is None:
            load.enter(one)
        if one.is_led and not load.is_batch:
            _lead(load, [one])
    led = [one for one in pending if one.is_led and one.owner is None]
    if led:
        _lead(load, led)
    for one in pending:
        if one.is_pending and one.is_joined:
            soft = load.soft_left(one)
            answer = flight.wait(load.cache._memory, one.flight, load.patience(soft))
            load.woken(one, answer, soft=soft is not None)


def _lead(load: Load, group: list[Wanted]) -> None:
    since = time.monotonic()
    _ask_or_submit(load, group)
    load.has_led_since(since)


def _ask_or_submit(load: Load, group: list[Wanted]) -> None:
    soft = [load.soft_left(one) for one in group]
    if load.config.background is None or None in soft:
        load.ask(group)
        return
    job = Job(load, group)
    future = background.submit(job.run)
    if future is None:
        load.ask(group)
        return
    job.take_over()
    futures.wait([future], min(left for left in soft if left is not None))
    for one in group:
        if one.is_pending and not load.fall_back(one):
            futures.wait([future])  # the stale value has gone meanwhile


class Job:
    """A load that goes on when its caller has an answer: it ends the flights, and not the Load."""

    def __init__(self, load: Load, group: list[Wanted]) -> None:
        self.load = load
        self.group = group

    def take_over(self) -> None:
        """
        Be the one who ends the flights from now on.

        Called when it is certain that the job runs.  Until then both may end them, which is
        harmless: the second does nothing.
        """
        for one in self.group:
            one.owner = self

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for one in self.group:
            flight.end(one.flight)

    def run(self) -> None:
        """Run it in another thread."""
        with self:
            self._ask_inside()

    def _ask_inside(self) -> None:
        load = self.load
        is_asked = False
        try:
            with background.surroundings(load.config.background):
                is_asked = True
                load.ask(self.group)
        except Exception as error:  # not the loader's, which is an answer: what is around it
            name = type(error).__name__  # and no more of it: it may tell a key
            load.cache._tell("background", "around a load in the background: %s", name)
            if not is_asked:
                load.cache._count(_LOAD)
            group = [one for one in self.group if one.is_pending or not is_asked]
            if group:
                load.failed(group, error, oplog.Begun(time.monotonic()), counted=is_asked)


def refresh_ahead(load: Load) -> None:
    """Load a value that ends soon, off the reader's path if that can be; nothing is raised."""
    with load:
        _refresh(load, load.wanted[0])


def _refresh(load: Load, one: Wanted) -> None:
    one.flight = flight.enter(load.cache, one.key, load.config.lease, local.REFRESH)
    if not one.is_led:
        return
    load.cache._count(REFRESH_ATTEMPTS)
    load.count_led(one)
    if load.config.background is None:
        load.ask([one])
        return
    job = Job(load, [one])
    if background.submit(job.run) is not None:
        job.take_over()
