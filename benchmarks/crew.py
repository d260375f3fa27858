"""
Measuring processes: forked, pinned, told over pipes what to run, all stopped at the end.

The coordinator touches no store itself, so the children are forked from a process without threads.
Rounds of one process run inside it (``interleave``); what several processes do together runs in
windows with a common start and end, in which each counts its calls.
"""

import contextlib
import itertools
import mmap
import multiprocessing
import os
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Self

from harness import (
    KEY_OBJECTS,
    Calls,
    Chunk,
    Series,
    cores,
    die_with_parent,
    exact_sleep,
    interleave,
    pin,
    quieten,
)
from peers import Peer
from workloads import HOT_KEY, Task

_LEAD_NS = 1_500_000
"""From the order to the start of a window: enough for every process to wake up."""


class CrewError(RuntimeError):
    """A measuring process failed; the text is its traceback."""


@dataclass(frozen=True)
class Rate:
    """What one process did in one window."""

    calls: int
    elapsed_ns: int

    @property
    def per_second(self) -> float:
        return self.calls * 1e9 / self.elapsed_ns

    @property
    def ns(self) -> float:
        return self.elapsed_ns / self.calls


class Crew:
    """
    *size* measuring processes and one that only writes.

    Args:
        peers: Started contestants.
        size: Measuring processes; process ``i`` is pinned to core ``i`` modulo the cores there are.
        values: Value of key number ``n`` is ``values[n % len(values)]``.
    """

    def __init__(
        self, peers: Mapping[str, Peer], size: int, values: Sequence[Any], *, encode: bool = False
    ) -> None:
        self._flag = mmap.mmap(-1, mmap.PAGESIZE)
        self._pipes: list[Connection] = []
        self._processes: list[multiprocessing.process.BaseProcess] = []
        self.broken: dict[str, str] = {}
        self.peers = peers
        allowed = cores()
        self.writer_has_core = size < len(allowed)
        for index in range(size + 1):
            core = allowed[min(index, size) % len(allowed)]
            self._start(_Member(peers, core, values, encode, self._flag, self.writer_has_core))
        for index in range(size + 1):
            self._connect(index, fill=index == 0)
        self.size = size

    def _start(self, member: "_Member") -> None:
        context = multiprocessing.get_context("fork")
        ours, theirs = context.Pipe()
        process = context.Process(target=member.serve, args=(theirs,), daemon=True)
        process.start()
        theirs.close()
        self._pipes.append(ours)
        self._processes.append(process)

    def _connect(self, index: int, *, fill: bool) -> None:
        self.broken |= self._ask(index, "connect", fill)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for pipe in self._pipes:
            with contextlib.suppress(OSError):
                pipe.send(None)
        for process in self._processes:
            process.join(10)
            if process.is_alive():
                process.kill()

    def _order(self, index: int, *message: Any) -> None:
        self._pipes[index].send(message)

    def _answers(self, members: Sequence[int]) -> list[Any]:
        """Take all, so that no later question meets an old answer; then raise the first failure."""
        answers: list[Any] = []
        failures: list[str] = []
        for index in members:
            try:
                good, answer = self._pipes[index].recv()
            except EOFError:
                raise CrewError("a measuring process died") from None
            (answers if good else failures).append(answer)
        if failures:
            raise CrewError(failures[0])
        return answers

    def _ask(self, index: int, *message: Any) -> Any:
        self._order(index, *message)
        return self._answers([index])[0]

    def prepare(self, peer: str, task: Task, members: Sequence[int] = (0,)) -> bool:
        """
        Compile and calibrate, so that rounds and windows hold nothing but calls.

        Returns:
            False if the contestant does not offer this operation.
        """
        for index in members:
            self._order(index, "prepare", peer, task)
        return all(self._answers(members))

    def rounds(self, what: Mapping[str, tuple[str, str]], count: int) -> dict[str, Series]:
        """Interleaved rounds of ``{label: (peer, name of a prepared task)}``, in process 0."""
        answer: dict[str, Series] = self._ask(0, "rounds", dict(what), count)
        return answer

    def window(self, peer: str, task: str, members: Sequence[int], length_ns: int) -> list[Rate]:
        """Run one contestant in several processes at once, prepared in each of them."""
        start = time.perf_counter_ns() + _LEAD_NS
        for index in members:
            self._order(index, "window", peer, task, start, start + length_ns)
        return self._answers(members)

    @contextlib.contextmanager
    def writer(self, peer: str, per_second: int | None) -> Iterator[dict[str, float]]:
        """
        Let the extra process rewrite the hot key meanwhile.

        Args:
            peer: In whose store.
            per_second: Writes a second; None: as fast as it can.

        Yields:
            A dict that holds the real rate as ``per_second`` afterwards.
        """
        report: dict[str, float] = {}
        self._flag[0] = 1
        self._order(self.size, "write", peer, per_second)
        while self._flag[1] == 0 and not self._pipes[self.size].poll():
            time.sleep(0.0001)
        try:
            yield report
        finally:
            self._flag[0] = 0
            report["per_second"] = self._answers([self.size])[0]
            self._flag[1] = 0


@dataclass(frozen=True)
class _Member:
    """The life of one process."""

    peers: Mapping[str, Peer]
    core: int
    values: Sequence[Any]
    encode: bool
    flag: mmap.mmap
    writer_has_core: bool

    def serve(self, pipe: Connection) -> None:
        die_with_parent()
        exact_sleep()
        pin(self.core)
        _Server(self).loop(pipe)
        pipe.close()
        # No interpreter shutdown: a peer's exit hook must not unlink what the others still use.
        os._exit(0)


class _Server:
    def __init__(self, member: _Member) -> None:
        self._member = member
        self._calls: dict[str, Calls] = {}
        self._chunks: dict[tuple[str, str], Chunk] = {}

    def loop(self, pipe: Connection) -> None:
        while True:
            try:
                message = pipe.recv()
            except EOFError:
                return
            if message is None:
                return
            try:
                pipe.send((True, getattr(self, f"_do_{message[0]}")(*message[1:])))
            except Exception:
                pipe.send((False, traceback.format_exc()))

    def _do_connect(self, fill: bool) -> dict[str, str]:
        broken = {}
        for name, peer in self._member.peers.items():
            try:
                calls = peer.connect(encode=self._member.encode)
                if calls.set is not None and (fill or not peer.shared):
                    _fill(calls, self._member.values)
                self._calls[name] = calls
            except Exception as error:
                broken[name] = f"{type(error).__name__}: {error}"
        quieten()
        return broken

    def _do_prepare(self, peer: str, task: Task) -> bool:
        calls, workload = self._calls[peer], task.workload(self._member.values)
        if not workload.suits(calls):
            return False
        chunk = Chunk(workload, calls)
        if task.pattern == "many":
            chunk.whole()  # the fill stored only the first of them
        self._chunks[peer, task.name] = chunk
        return True

    def _do_rounds(self, what: Mapping[str, tuple[str, str]], count: int) -> dict[str, Series]:
        return interleave({label: self._chunks[name] for label, name in what.items()}, count)

    def _do_window(self, peer: str, task: str, start_ns: int, end_ns: int) -> Rate:
        return Rate(*self._chunks[peer, task].until(start_ns, end_ns))

    def _do_write(self, peer: str, per_second: int | None) -> float:
        return _rewrite(self._calls[peer], self._member, per_second)


def _fill(calls: Calls, values: Sequence[Any]) -> None:
    store = _setter(calls)
    for key, value in zip(KEY_OBJECTS, itertools.cycle(values), strict=False):
        store(key, value)


def _setter(calls: Calls) -> Any:
    assert calls.set is not None
    scope = dict(calls.names)
    exec("def _set(key, value):\n    " + calls.set.replace("{key}", "key"), scope)
    return scope["_set"]


def _rewrite(calls: Calls, member: _Member, per_second: int | None) -> float:
    """Rewrite the hot key until the flag falls; writes a second."""
    store, flag, clock = _setter(calls), member.flag, time.perf_counter_ns
    key, versions = HOT_KEY, member.values[:2]
    pause = 0 if per_second is None else 1_000_000_000 // per_second
    count, begun = 0, clock()
    due = begun
    flag[1] = 1
    while flag[0]:
        store(key, versions[count & 1])
        count += 1
        due += pause
        while pause and (left := due - clock()) > 0:
            # On a core of its own it spins, for an even pace; on a reader's core that would be
            # the reader's time.
            if not member.writer_has_core:
                time.sleep(left / 1e9)
    return count * 1e9 / (clock() - begun)
