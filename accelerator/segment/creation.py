"""How a segment comes to be: an empty file, bytes that really exist, a header."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Final

from accelerator.segment.checks import check_status
from accelerator.segment.files import (
    AVAILABLE,
    LOG,
    PAGE,
    SHM_DIR,
    Refused,
    Request,
    SegmentFile,
    StartOver,
)

if AVAILABLE:
    import posix_ipc

    from accelerator import _native

if TYPE_CHECKING:
    from collections.abc import Iterator


MIN_SIZE: Final = 4 << 20
"""Smallest size that the ladder of a full /dev/shm goes down to."""
AUTO_SIZE: Final = 64 << 20
CHUNK: Final = 64 << 20  # reserved in one call: a signal makes the kernel undo the whole call
LARGE: Final = 1 << 30  # from here on creation takes long enough to be worth progress lines
CURE: Final = (
    "free space in /dev/shm or make it larger (docker run --shm-size=256m; Kubernetes: an emptyDir "
    "of medium Memory mounted at /dev/shm), or set a smaller size"
)


def auto_size() -> int:
    """Size of a segment when the user names none: at most 3/8 of the shared memory there is."""
    try:
        room = os.statvfs(SHM_DIR)
    except OSError:
        return AUTO_SIZE
    share = room.f_blocks * room.f_frsize * 3 // 8
    return max(MIN_SIZE, min(AUTO_SIZE, share // PAGE * PAGE))


def open_or_create(file: SegmentFile) -> int:
    """Open the file for reading and writing, or make an empty one."""
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        check_status(file.path.lstat(), file.uid)
        return os.open(file.path, flags)
    except FileNotFoundError:
        pass
    try:
        # The object is dropped at once: it does not close its descriptor, and close_fd() never is
        # called, because the descriptor soon carries our locks.
        fd: int = posix_ipc.SharedMemory(file.posix_name, posix_ipc.O_CREX, mode=0o600).fd
    except posix_ipc.ExistentialError:
        if not SHM_DIR.is_dir():
            raise Refused(f"there is no {SHM_DIR}") from None
        raise StartOver from None
    os.fchmod(fd, 0o600)  # the umask may have taken our own access away
    return fd


def _reserve(fd: int, size: int, request: Request) -> None:
    """
    Give the file *size* bytes that really exist.

    ftruncate() alone would promise bytes that a full tmpfs cannot deliver: touching them is SIGBUS.
    """
    large = size >= LARGE
    reported = 0
    for start in range(0, size, CHUNK):
        end = min(start + CHUNK, size)
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
        size = max(MIN_SIZE, size // 2 // PAGE * PAGE)
        yield size


def create(fd: int, request: Request) -> None:
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
        raise Refused(f"not even {size / 2**20:g} MiB are free in {SHM_DIR}; {CURE}")
    _native.format_segment(
        fd,
        size,
        name=request.file.name,
        max_value_size=request.max_value_size,
        boot_id=_native.sys_boot_id(),
        time_ns=_native.sys_namespaces()[0],
    )
