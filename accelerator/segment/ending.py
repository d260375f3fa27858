"""The end of segments: those that nobody uses, and those that somebody wants to be gone."""

from __future__ import annotations

import contextlib
import os
import stat
import time
from typing import TYPE_CHECKING, Final

from accelerator.errors import NotAttached
from accelerator.segment.checks import process_start_time, read_header, supervisor_of
from accelerator.segment.files import AVAILABLE, LOG, Refused, SegmentFile, files_of
from accelerator.segment.opened import REGISTRY, in_use, init_lock, opened, registered_at

if AVAILABLE:
    import posix_ipc

if TYPE_CHECKING:
    from accelerator import _native


DEAD_AFTER: Final = 60.0
"""Seconds after the last attach before a segment without processes may be unlinked."""


def collect(uid: int) -> list[SegmentFile]:
    """
    Unlink the dead segments of *uid*, of any version.

    Dead: no process holds a liveness byte, the Gunicorn master that it belongs to (if any) is gone,
    and nobody attached within DEAD_AFTER seconds.
    """
    with REGISTRY.lock.held():
        return collect_locked(uid)


def collect_locked(uid: int, limit: int | None = None) -> list[SegmentFile]:
    """Do what collect() does, of the first *limit* files.  Caller holds REGISTRY.lock."""
    removed = []
    for file in files_of(uid)[:limit]:
        with contextlib.suppress(OSError, Refused, posix_ipc.Error):
            # Most files are young or ours: they need not even be opened.
            if _is_old(file.path.lstat()) and registered_at(file.path) is None:
                with opened(file) as (fd, known), init_lock(fd) as taken:
                    if taken and _is_dead(fd, known):
                        posix_ipc.unlink_shared_memory(file.posix_name)
                        removed.append(file)
                        LOG.info("unlinked %s: no process has used it for a while", file.path)
    return removed


def _is_old(status: os.stat_result) -> bool:
    return time.time() - status.st_mtime > DEAD_AFTER


def _is_dead(fd: int, known: _native.Segment | None) -> bool:
    status = os.fstat(fd)
    if status.st_nlink != 1 or not _is_old(status) or in_use(fd, known):
        return False
    header, unfinished = read_header(fd)
    if header is None:
        return unfinished  # a creator was killed; anything else without a header is not ours
    supervisor = supervisor_of(header)
    # A server with one worker has none for a moment, whenever that worker is replaced.
    return supervisor is None or process_start_time(supervisor.pid) != supervisor.start_time


def unlink(name: str, uid: int, *, force: bool = False) -> list[SegmentFile]:
    """
    Unlink the segments called *name* of *uid*, of any version, and whatever squats on such a name.

    Raises:
        NotAttached: Processes use one and *force* is not set; that one is left.
    """
    removed = []
    with REGISTRY.lock.held():
        for file in files_of(uid):
            if file.name == name:
                _unlink_locked(file, force=force)
                removed.append(file)
    return removed


def _unlink_locked(file: SegmentFile, *, force: bool) -> None:
    if not stat.S_ISREG(file.path.lstat().st_mode):
        file.path.unlink()  # a symbolic link, a FIFO: there is nobody to ask
        return
    try:
        with opened(file) as (fd, known), init_lock(fd) as taken:
            if not force and (not taken or in_use(fd, known)):
                raise NotAttached(
                    f"segment {file.path} is in use: stop its processes, or use --force"
                )
            posix_ipc.unlink_shared_memory(file.posix_name)
    except (OSError, posix_ipc.Error) as error:
        raise NotAttached(f"segment {file.path} cannot be unlinked: {error}") from error
    except Refused as error:
        if not force:
            raise NotAttached(
                f"{file.path} is no sound segment: {error}; --force unlinks it all the same"
            ) from error
        file.path.unlink()
