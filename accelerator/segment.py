"""
Segments: their names, how they come to be, how they are checked, and when they go.

One file in /dev/shm per application, user and layout.  Three rules hold everywhere below:

- Creation, attach, "start empty", garbage collection and unlinking are serialised by a POSIX write
  lock on byte INIT_BYTE of the file.  A file whose header does not say "ready" belongs to whoever
  holds that lock, so a creator that was killed half-way is simply redone by the next one.
- A process loses *all* its POSIX locks on a file, its liveness byte among them, when it closes
  *any* descriptor of that file.  So a file that this process has mapped is never opened and closed
  again: ``_registry`` knows each by device and inode and lends out the one descriptor.  INIT_BYTE
  is given back by F_UNLCK, never by close().
- A file is believed only after its owner, mode, type, links and size were checked on the open
  descriptor.  What fails is refused, and never written to.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import math
import os
import re
import stat
import struct
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from accelerator.errors import NotAttached

try:
    import fcntl

    import posix_ipc

    from accelerator import _native
except ImportError:  # macOS, Windows, or no compiler at installation: there are no segments
    AVAILABLE = False
else:
    AVAILABLE = True

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LOG = logging.getLogger("accelerator")

SHM_DIR: Final = Path("/dev/shm")  # noqa: S108  where shm_open() of Linux keeps its files
MIN_SIZE: Final = 4 << 20
"""Smallest size that the ladder of a full /dev/shm goes down to."""
AUTO_SIZE: Final = 64 << 20
DEAD_AFTER: Final = 60.0
"""Seconds after the last attach before a segment without processes may be unlinked."""

_PAGE: Final = 4096
_CHUNK: Final = 64 << 20  # reserved in one call: a signal makes the kernel undo the whole call
_LARGE: Final = 1 << 30  # from here on creation takes long enough to be worth progress lines
_PATIENCE: Final = 20.0  # seconds without any progress of another process that initialises
_SLICE: Final = 0.005
_GC_LIMIT: Final = 64  # files that an attach looks at
_FILE_NAME: Final = re.compile(r"accelerator\.(\d{1,10})\.([a-z0-9_-]{1,40})\.([0-9a-f]{8})")
_FLOCK: Final = struct.Struct("hhqqi4x")  # struct flock of 64-bit Linux

_REMOVE: Final = "remove it (accelerator unlink --force NAME) or choose another name"
CURE: Final = (
    "free space in /dev/shm or make it larger (docker run --shm-size=256m; Kubernetes: an emptyDir "
    "of medium Memory mounted at /dev/shm), or set a smaller size"
)

Inode = tuple[int, int]


@dataclass(frozen=True, slots=True)
class SegmentFile:
    """Which segment: of which user, name and layout."""

    uid: int
    name: str
    layout: int

    @property
    def posix_name(self) -> str:
        """Name as shm_open() wants it."""
        return f"/accelerator.{self.uid}.{self.name}.{self.layout:08x}"

    @property
    def path(self) -> Path:
        """The file behind it."""
        return SHM_DIR / self.posix_name[1:]

    @classmethod
    def parse(cls, file_name: str) -> SegmentFile | None:
        """Inverse of *path*; None for a file that is not called like a segment."""
        match = _FILE_NAME.fullmatch(file_name)
        if match is None:
            return None
        uid, name, layout = match.groups()
        return cls(int(uid), name, int(layout, 16))


def own_file(name: str) -> SegmentFile:
    """The segment of this user and of this version that is called *name*."""
    return SegmentFile(os.geteuid(), name, _native.LAYOUT)


@dataclass(frozen=True, slots=True)
class SegmentInfo:
    """What can be known of a segment of any version from outside."""

    file: SegmentFile
    size: int
    age: float
    """Seconds since a process last attached."""
    alive: bool
    ready: bool
    library_version: str
    current: bool
    """Of the layout that this version reads."""


@dataclass(frozen=True, slots=True)
class Supervisor:
    """A Gunicorn master: its workers may find again what earlier workers of it stored."""

    pid: int
    start_time: int


@dataclass(frozen=True, slots=True)
class Request:
    """What attach() is to bring about."""

    file: SegmentFile
    size: int
    max_value_size: int
    supervisor: Supervisor | None = None
    heartbeat: Callable[[], object] = field(default=lambda: None)
    """Called now and then while a large segment is created (Gunicorn kills silent workers)."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", self.size // _PAGE * _PAGE)


class _StartOver(Exception):  # noqa: N818  no error: the file was replaced, look again
    pass


class _Refused(Exception):  # noqa: N818  becomes NotAttached with the name of the file
    pass


# --- what this process has open -----------------------------------------------------------------


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
        if self.find(_inode(os.fstat(fd))) is None and not _other_descriptors(fd):
            os.close(fd)


def _inode(status: os.stat_result) -> Inode:
    return status.st_dev, status.st_ino


def _is_descriptor_of(fd: int, inode: Inode) -> bool:
    try:
        return _inode(os.fstat(fd)) == inode
    except OSError:
        return False


def _other_descriptors(fd: int) -> list[int]:
    """Descriptors of this process that are open on the same file as *fd*."""
    inode = _inode(os.fstat(fd))
    numbers = (int(name) for name in os.listdir("/proc/self/fd"))  # noqa: PTH208  names only
    return [other for other in numbers if other != fd and _is_descriptor_of(other, inode)]


_registry = _Registry()


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
            size, deadline = grown, time.monotonic() + _PATIENCE
        elif time.monotonic() >= deadline:
            raise _Refused(
                f"process {lock_owner(fd, _native.INIT_BYTE)} has been initialising it for "
                f"{_PATIENCE:g} s without progress: find out what stops it, or end it"
            )
        time.sleep(_SLICE)


@contextlib.contextmanager
def _init_lock(fd: int, request: Request | None = None) -> Iterator[bool]:
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


# --- checks -------------------------------------------------------------------------------------


def process_start_time(pid: int) -> int | None:
    """Clock ticks between boot and the start of *pid*; None if there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    # The command is in parentheses and may itself contain anything, parentheses included.
    fields = text.rpartition(b")")[2].split()
    return int(fields[19])


def _check_status(status: os.stat_result, uid: int) -> None:
    """Is this a file that only *uid* could have made and can reach?"""
    if not stat.S_ISREG(status.st_mode):
        raise _Refused(f"it is not a regular file; {_REMOVE}")
    if status.st_uid != uid:
        raise _Refused(f"it belongs to uid {status.st_uid}, not {uid}; choose another name")
    if status.st_mode & 0o077:
        mode = stat.S_IMODE(status.st_mode)
        raise _Refused(f"others may change it, its mode is {mode:04o}; {_REMOVE}")
    if status.st_nlink > 1:
        raise _Refused(f"it has {status.st_nlink} names, others may keep it; {_REMOVE}")


def _read_header(fd: int) -> tuple[dict[str, Any] | None, bool]:
    """Header, None if there is none; and whether the file is what a killed creator leaves."""
    data = os.pread(fd, _native.HEADER_SIZE, 0)
    # The first word is written when all other fields are there (see format in segment.c).
    unfinished = not any(data[:8])
    header = None if unfinished else _native.peek_header(data)
    if header is not None and not header["magic_ok"]:
        header = None
    return header, unfinished or (header is not None and header["state"] != "ready")


def _check_header(header: dict[str, Any], file: SegmentFile, size: int) -> None:
    """Does a ready header agree with the file that it lies in?"""
    for what, found, expected in (
        ("layout", header["layout"], file.layout),
        ("size", header["size"], size),
        ("uid", header["uid"], file.uid),
        ("name", header["name"], file.name),
    ):
        if found != expected:
            raise _Refused(f"its header says {what} {found}, its file {expected}; {_REMOVE}")


def _of_another_machine(header: dict[str, Any]) -> str | None:
    """Why the clocks in a segment mean nothing here; None if they do."""
    if header["boot_id"] != _native.sys_boot_id():
        return "it was made before the last boot"
    if header["time_ns"] != _native.sys_namespaces()[0]:
        return "it was made in another time namespace"
    return None


# --- creation -----------------------------------------------------------------------------------


def auto_size() -> int:
    """Size of a segment when the user names none: at most 3/8 of the shared memory there is."""
    try:
        room = os.statvfs(SHM_DIR)
    except OSError:
        return AUTO_SIZE
    share = room.f_blocks * room.f_frsize * 3 // 8
    return max(MIN_SIZE, min(AUTO_SIZE, share // _PAGE * _PAGE))


def _open_or_create(file: SegmentFile) -> int:
    """Open the file for reading and writing, or make an empty one."""
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        _check_status(file.path.lstat(), file.uid)
        return os.open(file.path, flags)
    except FileNotFoundError:
        pass
    try:
        # The object is dropped at once: it does not close its descriptor, and close_fd() never is
        # called, because the descriptor soon carries our locks.
        fd: int = posix_ipc.SharedMemory(file.posix_name, posix_ipc.O_CREX, mode=0o600).fd
    except posix_ipc.ExistentialError:
        if not SHM_DIR.is_dir():
            raise _Refused(f"there is no {SHM_DIR}") from None
        raise _StartOver from None
    os.fchmod(fd, 0o600)  # the umask may have taken our own access away
    return fd


def _reserve(fd: int, size: int, request: Request) -> None:
    """
    Give the file *size* bytes that really exist.

    ftruncate() alone would promise bytes that a full tmpfs cannot deliver: touching them is SIGBUS.
    """
    large = size >= _LARGE
    reported = 0
    for start in range(0, size, _CHUNK):
        end = min(start + _CHUNK, size)
        os.posix_fallocate(fd, start, end - start)
        request.heartbeat()
        if large and (end - reported >= size // 10 or end == size):
            reported = end
            LOG.info("creating %s: %d of %d MiB reserved", request.file.path, end >> 20, size >> 20)


def _fits(fd: int, size: int, request: Request) -> bool:
    """Reserve *size* bytes; if they do not exist, leave the file empty."""
    room = os.fstatvfs(fd)
    # Asked first, so that a segment that cannot fit does not fill /dev/shm for others meanwhile.
    if room.f_bavail * room.f_frsize < size:
        return False
    try:
        _reserve(fd, size, request)
    except OSError as error:
        os.ftruncate(fd, 0)
        if error.errno not in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.ENOMEM}:
            raise
        return False
    return True


def _sizes(size: int) -> Iterator[int]:
    """Sizes to try: the one that is wanted, then halves of it down to MIN_SIZE."""
    yield size
    while size > MIN_SIZE:
        size = max(MIN_SIZE, size // 2 // _PAGE * _PAGE)
        yield size


def _create(fd: int, request: Request) -> None:
    """Fill an empty (or half-made) file with an empty segment.  Caller holds INIT_BYTE."""
    os.ftruncate(fd, 0)  # whatever a killed creator left
    for size in _sizes(request.size):
        if size != request.size:
            LOG.warning(
                "%s: a segment of %.1f MiB does not fit; trying %.1f MiB.  Cure: %s",
                request.file.path,
                request.size / 2**20,
                size / 2**20,
                CURE,
            )
        if _fits(fd, size, request):
            break
    else:
        posix_ipc.unlink_shared_memory(request.file.posix_name)
        raise _Refused(f"not even {size / 2**20:g} MiB are free in {SHM_DIR}; {CURE}")
    _native.format_segment(
        fd,
        size,
        name=request.file.name,
        max_value_size=request.max_value_size,
        boot_id=_native.sys_boot_id(),
        time_ns=_native.sys_namespaces()[0],
    )


# --- attach -------------------------------------------------------------------------------------


def attach(request: Request) -> _native.Segment:
    """
    Map the segment that *request* asks for, create it if need be, and register this process.

    Idempotent, and to be called once more in a forked child.

    Raises:
        NotAttached: It cannot be made, or what lies there is refused; the message says why.

    Blocks while another process initialises the segment.
    """
    with _registry.lock.held():
        try:
            segment = _attach_locked(request)
        except (_Refused, OSError, ValueError, posix_ipc.Error) as error:
            raise NotAttached(f"segment {request.file.path} cannot be used: {error}") from error
        _warn_of_namesakes(request.file)
        _collect_locked(request.file.uid, limit=_GC_LIMIT)
    return segment


def leave(segment: _native.Segment) -> None:
    """Take this process out of *segment*; descriptor and mapping stay."""
    with _registry.lock.held():
        segment.unregister()
        if not segment.is_private:
            _note_visit(segment.fd)


def release(segment: _native.Segment) -> None:
    """Let go of a segment that is unlinked and left: it is unmapped with its last area."""
    with _registry.lock.held():
        _registry.release(segment)


def _attach_locked(request: Request) -> _native.Segment:
    for _ in range(1000):
        with contextlib.suppress(_StartOver):
            known = _registered_at(request.file.path)
            if known is not None:
                return _enter(known.fd, known, request)
            fd = _open_or_create(request.file)
            try:
                return _enter(fd, _registry.find(_inode(os.fstat(fd))), request)
            finally:
                _registry.close(fd)  # leaves it open if it now is a segment's
    raise _Refused("it was replaced again and again while it was opened")


def _registered_at(path: Path) -> _native.Segment | None:
    """Our mapping of the file that has this name now."""
    try:
        return _registry.find(_inode(path.lstat()))
    except FileNotFoundError:
        return None


def _enter(fd: int, known: _native.Segment | None, request: Request) -> _native.Segment:
    """Everything that happens under INIT_BYTE, registration included: nobody unlinks in between."""
    with _init_lock(fd, request):
        created = _prepare(fd, request)
        header, _ = _read_header(fd)
        status = os.fstat(fd)
        if header is None:
            raise _Refused(f"it is not a segment; {_REMOVE}")
        _check_header(header, request.file, status.st_size)
        ours = request.supervisor is not None and request.supervisor == _supervisor_of(header)
        alive = _in_use(fd, known)
        if not created:
            _refuse_or_replace(header, request, alive=alive, ours=ours)
        segment = known
        if segment is None or segment.readonly or not _can_register(segment):
            segment = _map(fd, status)
        if not alive and not ours and not created:
            segment.empty()
        if request.supervisor is not None:
            segment.set_supervisor(request.supervisor.pid, request.supervisor.start_time)
        segment.register()
        _note_visit(fd)
        return segment


def _can_register(segment: _native.Segment) -> bool:
    """Whether this process may (still) act in a segment that it has mapped before."""
    try:
        segment.register()
    except ValueError:  # fenced: its descriptor once was not what it should be
        return False
    return True


def _map(fd: int, status: os.stat_result, *, readonly: bool = False) -> _native.Segment:
    segment = _native.Segment(fd, status.st_size, readonly=readonly)
    _registry.add(_inode(status), segment)
    return segment


def _prepare(fd: int, request: Request) -> bool:
    """Check the file, and finish it if nobody has.  True if that made a new segment of it."""
    status = os.fstat(fd)
    if status.st_nlink == 0:
        raise _StartOver  # unlinked between our open and our lock
    _check_status(status, request.file.uid)
    _, unfinished = _read_header(fd)
    if unfinished:
        _create(fd, request)
    return unfinished


def _refuse_or_replace(
    header: dict[str, Any], request: Request, *, alive: bool, ours: bool
) -> None:
    """Decide about a sound segment that was there before: keep it, start anew, or refuse."""
    another = _of_another_machine(header)
    if alive and another:
        raise _Refused(f"{another}, and processes use it: choose another name")
    if alive or (ours and not another):
        if header["size"] != request.size:
            LOG.info(
                "%s has %d bytes, not %d: the size of a segment changes when no process uses it",
                request.file.path,
                header["size"],
                request.size,
            )
        return
    if another or header["size"] != request.size:
        posix_ipc.unlink_shared_memory(request.file.posix_name)
        raise _StartOver


def _supervisor_of(header: dict[str, Any]) -> Supervisor | None:
    pid, start_time = header["supervisor"]
    return Supervisor(pid, start_time) if pid else None


def _note_visit(fd: int) -> None:
    """Stores through a mapping do not change a file's time, so it tells when somebody last came."""
    os.utime(fd)


def _warn_of_namesakes(file: SegmentFile) -> None:
    for other in _files():
        if other.name == file.name and other.uid != file.uid:
            LOG.warning(
                "%s is a segment of the same name of uid %d: processes of different users do not "
                "share a segment, and do not hear each other's deletes",
                other.path,
                other.uid,
            )
            return


# --- seen from outside --------------------------------------------------------------------------


def _files(uid: int | None = None) -> list[SegmentFile]:
    """All files that are called like segments."""
    try:
        names = sorted(os.listdir(SHM_DIR))  # noqa: PTH208  names are all that is wanted
    except OSError:
        return []
    parsed = (SegmentFile.parse(name) for name in names)
    return [file for file in parsed if file is not None and uid in {None, file.uid}]


@contextlib.contextmanager
def _opened(file: SegmentFile) -> Iterator[tuple[int, _native.Segment | None]]:
    """Descriptor of a checked file: that of our own mapping if we have one."""
    known = _registered_at(file.path)
    if known is not None:
        yield known.fd, known
        return
    _check_status(file.path.lstat(), file.uid)
    fd = os.open(file.path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        _check_status(os.fstat(fd), file.uid)
        yield fd, _registry.find(_inode(os.fstat(fd)))
    finally:
        _registry.close(fd)


def _in_use(fd: int, known: _native.Segment | None) -> bool:
    """Whether any process uses it; the kernel does not show us our own locks."""
    if known is not None and known.incarnation != 0:
        return True
    # Another descriptor of ours: another interpreter of this process may have attached.
    return _others_alive(fd) or bool(_other_descriptors(fd))


def survey(uid: int | None = None) -> list[SegmentInfo]:
    """Every segment of *uid* (None: of anybody), of any version, that this user may open."""
    found = []
    with _registry.lock.held():
        for file in _files(uid):
            with contextlib.suppress(OSError, _Refused), _opened(file) as (fd, known):
                found.append(_info(file, fd, known))
    return found


def _info(file: SegmentFile, fd: int, known: _native.Segment | None) -> SegmentInfo:
    header, unfinished = _read_header(fd)
    status = os.fstat(fd)
    return SegmentInfo(
        file=file,
        size=status.st_size,
        age=time.time() - status.st_mtime,
        alive=_in_use(fd, known),
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
    with _registry.lock.held():
        for file in _files(uid):
            with contextlib.suppress(FileNotFoundError):
                found.append(_examine(file))
    return found


def _examine(file: SegmentFile) -> Found:
    status = file.path.lstat()
    try:
        with _opened(file) as (fd, known):
            header, _ = _read_header(fd)
            if header is not None and file.layout == _native.LAYOUT:
                _check_header(header, file, status.st_size)
            return Found(
                file,
                status.st_uid,
                status.st_size,
                refused=None,
                info=_info(file, fd, known),
                another_machine=None if header is None else _of_another_machine(header),
            )
    except _Refused as error:
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
    with _registry.lock.held():
        try:
            with _opened(file) as (fd, known):
                if known is not None:
                    return known
                _check_ready(fd, file)
                return _map(fd, os.fstat(fd), readonly=True)
        except (_Refused, OSError, ValueError) as error:
            raise NotAttached(f"segment {file.path} cannot be read: {error}") from error


def _check_ready(fd: int, file: SegmentFile) -> None:
    header, unfinished = _read_header(fd)
    if header is None or unfinished:
        raise _Refused("it is not a segment, or not a finished one")
    _check_header(header, file, os.fstat(fd).st_size)


def reap(pid: int, uid: int) -> int:
    """
    Free what the dead process *pid* held in the segments of *uid*.  Number of slots freed.

    For the parent of worker processes, which need not be attached itself.
    """
    freed = 0
    with _registry.lock.held(patience=0.05):
        for file in _files(uid):
            if file.layout != _native.LAYOUT:
                continue
            with contextlib.suppress(_Refused, OSError, ValueError), _opened(file) as (fd, known):
                if known is None or known.readonly:
                    _check_ready(fd, file)
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


# --- the end of a segment -----------------------------------------------------------------------


def collect(uid: int) -> list[SegmentFile]:
    """
    Unlink the dead segments of *uid*, of any version.

    Dead: no process holds a liveness byte, the Gunicorn master that it belongs to (if any) is gone,
    and nobody attached within DEAD_AFTER seconds.
    """
    with _registry.lock.held():
        return _collect_locked(uid)


def _collect_locked(uid: int, limit: int | None = None) -> list[SegmentFile]:
    removed = []
    for file in _files(uid)[:limit]:
        with contextlib.suppress(OSError, _Refused, posix_ipc.Error):
            # Most files are young or ours: they need not even be opened.
            if _is_old(file.path.lstat()) and _registered_at(file.path) is None:
                with _opened(file) as (fd, known), _init_lock(fd) as taken:
                    if taken and _is_dead(fd, known):
                        posix_ipc.unlink_shared_memory(file.posix_name)
                        removed.append(file)
                        LOG.info("unlinked %s: no process has used it for a while", file.path)
    return removed


def _is_old(status: os.stat_result) -> bool:
    return time.time() - status.st_mtime > DEAD_AFTER


def _is_dead(fd: int, known: _native.Segment | None) -> bool:
    status = os.fstat(fd)
    if status.st_nlink != 1 or not _is_old(status) or _in_use(fd, known):
        return False
    header, unfinished = _read_header(fd)
    if header is None:
        return unfinished  # a creator was killed; anything else without a header is not ours
    supervisor = _supervisor_of(header)
    # A server with one worker has none for a moment, whenever that worker is replaced.
    return supervisor is None or process_start_time(supervisor.pid) != supervisor.start_time


def unlink(name: str, uid: int, *, force: bool = False) -> list[SegmentFile]:
    """
    Unlink the segments called *name* of *uid*, of any version, and whatever squats on such a name.

    Raises:
        NotAttached: Processes use one and *force* is not set; that one is left.
    """
    removed = []
    with _registry.lock.held():
        for file in _files(uid):
            if file.name == name:
                _unlink_locked(file, force=force)
                removed.append(file)
    return removed


def _unlink_locked(file: SegmentFile, *, force: bool) -> None:
    if not stat.S_ISREG(file.path.lstat().st_mode):
        file.path.unlink()  # a symbolic link, a FIFO: there is nobody to ask
        return
    try:
        with _opened(file) as (fd, known), _init_lock(fd) as taken:
            if not force and (not taken or _in_use(fd, known)):
                raise NotAttached(
                    f"segment {file.path} is in use: stop its processes, or use --force"
                )
            posix_ipc.unlink_shared_memory(file.posix_name)
    except (OSError, posix_ipc.Error) as error:
        raise NotAttached(f"segment {file.path} cannot be unlinked: {error}") from error
    except _Refused as error:
        if not force:
            raise NotAttached(
                f"{file.path} is no sound segment: {error}; --force unlinks it all the same"
            ) from error
        file.path.unlink()
