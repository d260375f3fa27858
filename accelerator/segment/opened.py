"""What this process has mapped and opened, and the locks on it."""

from __future__ import annotations

import contextlib
import math
import os
import struct
import threading
import time
from typing import TYPE_CHECKING, Final

from accelerator.errors import NotAttached
from accelerator.segment.checks import check_status
from accelerator.segment.files import AVAILABLE, Refused, Request, SegmentFile

if AVAILABLE:
    import fcntl

    from accelerator import _native

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


PATIENCE: Final = 20.0  # seconds without any progress of another process that initialises
_SLICE: Final = 0.005
_FLOCK: Final = struct.Struct("hhqqi4x")  # struct flock of 64-bit Linux
Inode = tuple[int, int]


class PatientLock:
    """
    A lock for threads and greenlets that survives fork.

    Not a threading.Lock that is waited for in one go: under gevent that may be a native lock, whose
    waiter would stop the very greenlet that holds it.  Tries and short sleeps work for both.
    """

    def __init__(self) -> None:
        self._renew()

    def _renew(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._owner: int | None = None

    @contextlib.contextmanager
    def held(self, patience: float = math.inf) -> Iterator[None]:
        """
        Hold the lock.

        Raises:
            NotAttached: It was not to be had for *patience* seconds, or this thread has it already
                (a signal handler or a log handler that uses a cache while it is attached).
        """
        if self._pid != os.getpid():
            self._renew()  # forked: the thread that held it, if any, does not exist here
        lock, deadline = self._lock, time.monotonic() + patience
        while not lock.acquire(blocking=False):
            if self._owner == threading.get_ident():
                raise NotAttached("this thread is about to attach: try again when it has")
            if time.monotonic() >= deadline:
                raise NotAttached(f"another thread was busy with segments for {patience:g} s")
            time.sleep(_SLICE)
        self._owner = threading.get_ident()
        try:
            yield
        finally:
            self._owner = None
            lock.release()


class _Registry:
    """Every segment that this process has mapped, by device and inode, and the lock over it all."""

    def __init__(self) -> None:
        self.lock = PatientLock()
        self._segments: dict[Inode, _native.Segment] = {}
        self._retired: list[_native.Segment] = []

    def find(self, inode: Inode) -> _native.Segment | None:
        """Our mapping of a file, if its descriptor still is that file's."""
        segment = self._segments.get(inode)
        if segment is not None and not _is_descriptor_of(segment.fd, inode):
            self._retire(inode)  # somebody closed it, os.closerange() for one
            return None
        return segment

    def add(self, inode: Inode, segment: _native.Segment) -> None:
        self._retire(inode)
        self._segments[inode] = segment

    def _retire(self, inode: Inode) -> None:
        """Forget a mapping, but never finalise it: that would close a descriptor not its own."""
        segment = self._segments.pop(inode, None)
        if segment is not None:
            self._retired.append(segment)

    def release(self, segment: _native.Segment) -> None:
        """
        Let a mapping go with the last area that uses it, if its file has no name any more.

        Nobody can open such a file again, so no other descriptor of it could drop our locks.
        """
        for inode, known in list(self._segments.items()):
            is_ours = known is segment and self.find(inode) is segment
            if is_ours and os.fstat(segment.fd).st_nlink == 0:
                del self._segments[inode]

    def close(self, fd: int) -> None:
        """
        Close *fd* unless this process has its file open elsewhere: that would drop our locks.

        Looks at all descriptors, because there may be another interpreter in this process.
        """
        if self.find(inode_of(os.fstat(fd))) is None and not _other_descriptors(fd):
            os.close(fd)


def inode_of(status: os.stat_result) -> Inode:
    """Identity of a file, whatever it is called."""
    return status.st_dev, status.st_ino


def _is_descriptor_of(fd: int, inode: Inode) -> bool:
    try:
        return inode_of(os.fstat(fd)) == inode
    except OSError:
        return False


def _other_descriptors(fd: int) -> list[int]:
    """Descriptors of this process that are open on the same file as *fd*."""
    inode = inode_of(os.fstat(fd))
    numbers = (int(name) for name in os.listdir("/proc/self/fd"))  # noqa: PTH208  names only
    return [other for other in numbers if other != fd and _is_descriptor_of(other, inode)]


REGISTRY = _Registry()


def registered_at(path: Path) -> _native.Segment | None:
    """Our mapping of the file that has this name now."""
    try:
        return REGISTRY.find(inode_of(path.lstat()))
    except FileNotFoundError:
        return None


def map_file(fd: int, status: os.stat_result, *, readonly: bool = False) -> _native.Segment:
    """Map a checked file; from now on its descriptor stays open."""
    segment = _native.Segment(fd, status.st_size, readonly=readonly)
    REGISTRY.add(inode_of(status), segment)
    return segment


@contextlib.contextmanager
def opened(file: SegmentFile) -> Iterator[tuple[int, _native.Segment | None]]:
    """Descriptor of a checked file: that of our own mapping if we have one."""
    known = registered_at(file.path)
    if known is not None:
        yield known.fd, known
        return
    check_status(file.path.lstat(), file.uid)
    fd = os.open(file.path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        check_status(os.fstat(fd), file.uid)
        yield fd, REGISTRY.find(inode_of(os.fstat(fd)))
    finally:
        REGISTRY.close(fd)


# --- locks --------------------------------------------------------------------------------------


def lock_owner(fd: int, start: int, length: int = 1) -> int | None:
    """
    Process that holds a lock on these bytes; None if there is none but perhaps our own.

    0 stands for a process of another PID namespace.  Length 0: to the end of all offsets.
    """
    asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, start, length, 0)
    kind, _, _, _, pid = _FLOCK.unpack(fcntl.fcntl(fd, fcntl.F_GETLK, asked))
    return None if kind == fcntl.F_UNLCK else pid


def _others_alive(fd: int) -> bool:
    return lock_owner(fd, _native.LIVENESS_BASE, 0) is not None


def in_use(fd: int, known: _native.Segment | None) -> bool:
    """Whether any process uses it; the kernel does not show us our own locks."""
    if known is not None and known.incarnation != 0:
        return True
    # Another descriptor of ours: another interpreter of this process may have attached.
    return _others_alive(fd) or bool(_other_descriptors(fd))


def _try_init_lock(fd: int) -> bool:
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _native.INIT_BYTE)
    except (BlockingIOError, PermissionError):
        return False
    return True


def _wait_for_init_lock(fd: int, request: Request) -> None:
    """Take INIT_BYTE.  As long as its holder makes the file grow, there is no hurry."""
    size, deadline = -1, 0.0
    while not _try_init_lock(fd):
        request.heartbeat()
        grown = os.fstat(fd).st_size
        if grown != size:
            size, deadline = grown, time.monotonic() + PATIENCE
        elif time.monotonic() >= deadline:
            raise Refused(
                f"process {lock_owner(fd, _native.INIT_BYTE)} has been initialising it for "
                f"{PATIENCE:g} s without progress: find out what stops it, or end it"
            )
        time.sleep(_SLICE)


@contextlib.contextmanager
def init_lock(fd: int, request: Request | None = None) -> Iterator[bool]:
    """Hold INIT_BYTE.  Without *request*: only if it is free at once; yields whether it was."""
    if request is not None:
        _wait_for_init_lock(fd, request)
        taken = True
    else:
        taken = _try_init_lock(fd)
    try:
        yield taken
    finally:
        if taken:
            fcntl.lockf(fd, fcntl.LOCK_UN, 1, _native.INIT_BYTE)
