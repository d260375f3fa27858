"""Segments seen from outside: by commands, and by parents of workers."""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from accelerator.errors import NotAttached
from accelerator.segment.checks import check_header, check_ready, of_another_machine, read_header
from accelerator.segment.files import AVAILABLE, Refused, SegmentFile, SegmentInfo, files_of
from accelerator.segment.opened import REGISTRY, in_use, lock_owner, map_file, opened

if AVAILABLE:
    from accelerator import _native

if TYPE_CHECKING:
    from collections.abc import Iterator


def survey(uid: int | None = None) -> list[SegmentInfo]:
    """Every segment of *uid* (None: of anybody), of any version, that this user may open."""
    found = []
    with REGISTRY.lock.held():
        for file in files_of(uid):
            with contextlib.suppress(OSError, Refused), opened(file) as (fd, known):
                found.append(_info(file, fd, known))
    return found


def _info(file: SegmentFile, fd: int, known: _native.Segment | None) -> SegmentInfo:
    header, unfinished = read_header(fd)
    status = os.fstat(fd)
    return SegmentInfo(
        file=file,
        size=status.st_size,
        age=time.time() - status.st_mtime,
        alive=in_use(fd, known),
        ready=header is not None and not unfinished,
        library_version=header["library_version"] if header is not None else "",
        current=file.layout == _native.LAYOUT,
    )


@dataclass(frozen=True, slots=True)
class Found:
    """A file that is called like a segment, whatever it is."""

    file: SegmentFile
    uid: int
    """Who owns it, whatever its name says."""
    size: int
    refused: str | None
    """Why no process of its user would use it, or why it cannot be told; None: it is sound."""
    info: SegmentInfo | None = None
    """What survey() would say; None: it is refused."""
    another_machine: str | None = None
    """Why its clocks mean nothing to processes here; None: they do."""


def examine(uid: int | None = None) -> list[Found]:
    """Every file that is called like a segment of *uid* (None: of anybody), refused ones, too."""
    found = []
    with REGISTRY.lock.held():
        for file in files_of(uid):
            with contextlib.suppress(FileNotFoundError):
                found.append(_examine(file))
    return found


def _examine(file: SegmentFile) -> Found:
    status = file.path.lstat()
    try:
        with opened(file) as (fd, known):
            header, _ = read_header(fd)
            if header is not None and file.layout == _native.LAYOUT:
                check_header(header, file, status.st_size)
            return Found(
                file,
                status.st_uid,
                status.st_size,
                refused=None,
                info=_info(file, fd, known),
                another_machine=None if header is None else of_another_machine(header),
            )
    except Refused as error:
        return Found(file, status.st_uid, status.st_size, refused=str(error))
    except OSError as error:
        return Found(file, status.st_uid, status.st_size, refused=str(error.strerror))


def layout() -> int:
    """Fingerprint of the layout that this version reads, part of the name of a segment's file."""
    return _native.LAYOUT


def pid_here(segment: _native.Segment, incarnation: int) -> int:
    """
    Process that an incarnation is, by its number in the PID namespace of the caller.

    0: it is dead, or lives in a namespace that cannot be seen from here.
    """
    if incarnation == segment.incarnation:
        return os.getpid()
    return lock_owner(segment.fd, _native.LIVENESS_BASE + incarnation) or 0


def key_hash(segment: _native.Segment, area: str, key: object) -> int:
    """
    Hash by which a key is shown to an operator.

    Raises:
        TypeError, ValueError: It can be no key; or, read-only, there is no such area.
    """
    return _native.key_hash(segment, area, key)


def inspect(file: SegmentFile) -> _native.Segment:
    """
    Map a segment for reading only; our own mapping if this process has one.

    Raises:
        NotAttached: There is none, it is refused, or it is of another layout.
    """
    if file.layout != _native.LAYOUT:
        raise NotAttached(f"segment {file.path} belongs to another version of accelerator")
    with REGISTRY.lock.held():
        try:
            with opened(file) as (fd, known):
                if known is not None:
                    return known
                check_ready(fd, file)
                return map_file(fd, os.fstat(fd), readonly=True)
        except (Refused, OSError, ValueError) as error:
            raise NotAttached(f"segment {file.path} cannot be read: {error}") from error


@contextlib.contextmanager
def writable(file: SegmentFile) -> Iterator[_native.Segment]:
    """
    Map a segment for a change by a command, without entering it; our own mapping if there is one.

    What is changed through it must be one store each, as nobody would end what a command has begun.

    Raises:
        NotAttached: There is none, it is refused, or it is of another layout.
    """
    if file.layout != _native.LAYOUT:
        raise NotAttached(f"segment {file.path} belongs to another version of accelerator")
    with REGISTRY.lock.held():
        try:
            with opened(file) as (fd, known):
                if known is not None and not known.readonly:
                    borrowed = known
                else:
                    check_ready(fd, file)
                    borrowed = _borrow(fd)
        except (Refused, OSError, ValueError) as error:
            raise NotAttached(f"segment {file.path} cannot be written: {error}") from error
    yield borrowed


def reap(pid: int, uid: int) -> int:
    """
    Free what the dead process *pid* held in the segments of *uid*.  Number of slots freed.

    For the parent of worker processes, which need not be attached itself.
    """
    freed = 0
    with REGISTRY.lock.held(patience=0.05):
        for file in files_of(uid):
            if file.layout != _native.LAYOUT:
                continue
            with contextlib.suppress(Refused, OSError, ValueError), opened(file) as (fd, known):
                if known is None or known.readonly:
                    check_ready(fd, file)
                    freed += _borrow(fd).reap(pid)
                else:
                    freed += known.reap(pid)
    return freed


def _borrow(fd: int) -> _native.Segment:
    """
    Map a segment for as long as the answer is referenced.

    A parent that lives for months must not keep the memory of a segment that is long unlinked.
    """
    return _native.Segment(os.dup(fd), os.fstat(fd).st_size)  # owns, and closes, the copy
