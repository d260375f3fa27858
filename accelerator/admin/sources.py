"""Where the page looks: at what this process is attached to, or at a segment from outside."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from accelerator import runtime, segment
from accelerator.observability import otel
from accelerator.observability.reading import Reader, Reading

if TYPE_CHECKING:
    from collections.abc import Mapping

    from accelerator import local


@dataclass(frozen=True, slots=True)
class Seen:
    """
    What there is to see at one moment.

    Args:
        reading: Of the memory.
        memory: Itself.
        name: What processes share to share it.
        path: File of the segment; None: memory of this process alone.
        bound: The setting ``freshness_bound``, in seconds.
        pid: The process that uses it and answers; None: it is looked at from outside.
        settings: As Settings.describe() shows them; None: from outside they are not known.
        degraded: Why the process does not use what its settings ask for.
        remote: As SecondLevel.describe() shows it, of the process that answers.
    """

    reading: Reading
    memory: local.Segment
    name: str
    path: str | None
    bound: float
    pid: int | None = None
    settings: Mapping[str, Any] | None = None
    degraded: str | None = None
    remote: Mapping[str, Any] | None = None


class Source(Protocol):
    """What can be looked at."""

    def look(self, *, processes: bool = True) -> Seen:
        """
        Look.

        Args:
            processes: Whether it is wanted what each process has counted.

        Raises:
            CacheError: There is nothing to see.
        """
        ...


class _Readers:
    """The reader of a memory, for as long as the same memory is looked at."""

    def __init__(self) -> None:
        self._reader: Reader | None = None

    def of(self, memory: local.Segment) -> Reader:
        """Give it; threads that race for a new memory make one each, which does no harm."""
        reader = self._reader
        if reader is None or reader.memory is not memory:
            reader = self._reader = Reader(memory)
        return reader


class ThisProcess:
    """
    What the process that answers is attached to.

    It attaches if it is not, as the first use of a cache would: a worker that is only let in when
    it says that it is ready may not wait for its first request to become it.
    """

    def __init__(self) -> None:
        self._readers = _Readers()

    def look(self, *, processes: bool = True) -> Seen:
        """Look; see Source."""
        return self._look(runtime.current(), processes=processes)

    def look_if_reporter(self) -> tuple[Reading, float] | None:
        """
        Look if this process is the one of its host that reports to others; None: it is not.

        Attaches nothing: it may be asked in a process that has no use for a cache, such as the one
        that forks the workers.
        """
        attachment = runtime.entered()
        if attachment is None or not otel.is_reporter(attachment.memory):
            return None
        seen = self._look(attachment, processes=False)
        return seen.reading, seen.bound

    def _look(self, attachment: runtime.Attachment, *, processes: bool) -> Seen:
        request = attachment.request
        reading = self._readers.of(attachment.memory).read(processes=processes)
        return Seen(
            reading=reading,
            memory=attachment.memory,
            name=attachment.name,
            path=None if request is None else str(request.file.path),
            bound=attachment.settings.freshness_bound,
            pid=os.getpid(),
            settings=attachment.settings.describe(),
            degraded=attachment.degraded,
            remote=None if attachment.second is None else attachment.second.describe(),
        )


class OfFile:
    """
    A segment, read-only, from outside.

    Args:
        file: The segment; another one of that name is looked at when it is replaced.
        bound: The setting ``freshness_bound``, which a segment does not know.
    """

    def __init__(self, file: segment.SegmentFile, bound: float) -> None:
        self._file = file
        self._bound = bound
        self._readers = _Readers()

    def look(self, *, processes: bool = True) -> Seen:
        """Look; see Source."""
        memory = segment.inspect(self._file)
        reading = self._readers.of(memory).read(processes=processes)
        return Seen(
            reading=reading,
            memory=memory,
            name=self._file.name,
            path=str(self._file.path),
            bound=self._bound,
        )
