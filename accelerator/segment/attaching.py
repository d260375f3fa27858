"""How a process enters a segment, and leaves it."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any, Final

from accelerator.errors import NotAttached
from accelerator.segment.checks import (
    check_header,
    check_status,
    of_another_machine,
    read_header,
    supervisor_of,
)
from accelerator.segment.creation import create, open_or_create
from accelerator.segment.ending import collect_locked
from accelerator.segment.files import (
    AVAILABLE,
    LOG,
    REMOVE,
    Refused,
    Request,
    SegmentFile,
    StartOver,
    files_of,
)
from accelerator.segment.opened import (
    REGISTRY,
    in_use,
    init_lock,
    inode_of,
    map_file,
    registered_at,
)

if AVAILABLE:
    import posix_ipc

if TYPE_CHECKING:
    from accelerator import _native


_GC_LIMIT: Final = 64  # files that an attach looks at


def attach(request: Request) -> _native.Segment:
    """
    Map the segment that *request* asks for, create it if need be, and register this process.

    Idempotent, and to be called once more in a forked child.

    Raises:
        NotAttached: It cannot be made, or what lies there is refused; the message says why.

    Blocks while another process initialises the segment.
    """
    with REGISTRY.lock.held():
        try:
            segment = _attach_locked(request)
        except (Refused, OSError, ValueError, posix_ipc.Error) as error:
            raise NotAttached(f"segment {request.file.path} cannot be used: {error}") from error
        _warn_of_namesakes(request.file)
        collect_locked(request.file.uid, limit=_GC_LIMIT)
    return segment


def leave(segment: _native.Segment) -> None:
    """Take this process out of *segment*; descriptor and mapping stay."""
    with REGISTRY.lock.held():
        segment.unregister()
        if not segment.is_private:
            _note_visit(segment.fd)


def release(segment: _native.Segment) -> None:
    """Let go of a segment that is unlinked and left: it is unmapped with its last area."""
    with REGISTRY.lock.held():
        REGISTRY.release(segment)


def _attach_locked(request: Request) -> _native.Segment:
    for _ in range(1000):
        with contextlib.suppress(StartOver):
            known = registered_at(request.file.path)
            if known is not None:
                return _enter(known.fd, known, request)
            fd = open_or_create(request.file)
            try:
                return _enter(fd, REGISTRY.find(inode_of(os.fstat(fd))), request)
            finally:
                REGISTRY.close(fd)  # leaves it open if it now is a segment's
    raise Refused("it was replaced again and again while it was opened")


def _enter(fd: int, known: _native.Segment | None, request: Request) -> _native.Segment:
    """Everything that happens under INIT_BYTE, registration included: nobody unlinks in between."""
    with init_lock(fd, request):
        created = _prepare(fd, request)
        header, _ = read_header(fd)
        status = os.fstat(fd)
        if header is None:
            raise Refused(f"it is not a segment; {REMOVE}")
        check_header(header, request.file, status.st_size)
        ours = request.supervisor is not None and request.supervisor == supervisor_of(header)
        alive = in_use(fd, known)
        if not created:
            _refuse_or_replace(header, request, alive=alive, ours=ours)
        segment = known
        if segment is None or segment.readonly or not _can_register(segment):
            segment = map_file(fd, status)
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


def _prepare(fd: int, request: Request) -> bool:
    """Check the file, and finish it if nobody has.  True if that made a new segment of it."""
    status = os.fstat(fd)
    if status.st_nlink == 0:
        raise StartOver  # unlinked between our open and our lock
    check_status(status, request.file.uid)
    _, unfinished = read_header(fd)
    if unfinished:
        create(fd, request)
    return unfinished


def _refuse_or_replace(
    header: dict[str, Any], request: Request, *, alive: bool, ours: bool
) -> None:
    """Decide about a sound segment that was there before: keep it, start anew, or refuse."""
    another = of_another_machine(header)
    if alive and another:
        raise Refused(f"{another}, and processes use it: choose another name")
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
        raise StartOver


def _note_visit(fd: int) -> None:
    """Stores through a mapping do not change a file's time, so it tells when somebody last came."""
    os.utime(fd)


def _warn_of_namesakes(file: SegmentFile) -> None:
    for other in files_of():
        if other.name == file.name and other.uid != file.uid:
            LOG.warning(
                "%s is a segment of the same name of uid %d: processes of different users do not "
                "share a segment, and do not hear each other's deletes",
                other.path,
                other.uid,
            )
            return
