"""
Segments: their names, how they come to be, how they are checked, and when they go.

One file in /dev/shm per application, user and layout.  Three rules hold everywhere in here:

- Creation, attach, "start empty", garbage collection and unlinking are serialised by a POSIX write
  lock on byte INIT_BYTE of the file.  A file whose header does not say "ready" belongs to whoever
  holds that lock, so a creator that was killed half-way is simply redone by the next one.
- A process loses *all* its POSIX locks on a file, its liveness byte among them, when it closes
  *any* descriptor of that file.  So a file that this process has mapped is never opened and closed
  again: ``opened`` knows each by device and inode and lends out the one descriptor.  INIT_BYTE
  is given back by F_UNLCK, never by close().
- A file is believed only after its owner, mode, type, links and size were checked on the open
  descriptor.  What fails is refused, and never written to.
"""

from __future__ import annotations

from accelerator.segment.attaching import attach, leave, release
from accelerator.segment.checks import process_start_time
from accelerator.segment.creation import AUTO_SIZE, CURE, MIN_SIZE, auto_size
from accelerator.segment.ending import DEAD_AFTER, collect, unlink
from accelerator.segment.files import (
    AVAILABLE,
    SHM_DIR,
    Request,
    SegmentFile,
    SegmentInfo,
    Supervisor,
    own_file,
)
from accelerator.segment.opened import PatientLock, lock_owner
from accelerator.segment.outside import (
    Found,
    examine,
    inspect,
    key_hash,
    layout,
    pid_here,
    reap,
    survey,
    writable,
)

__all__ = [
    "AUTO_SIZE",
    "AVAILABLE",
    "CURE",
    "DEAD_AFTER",
    "MIN_SIZE",
    "SHM_DIR",
    "Found",
    "PatientLock",
    "Request",
    "SegmentFile",
    "SegmentInfo",
    "Supervisor",
    "attach",
    "auto_size",
    "collect",
    "examine",
    "inspect",
    "key_hash",
    "layout",
    "leave",
    "lock_owner",
    "own_file",
    "pid_here",
    "process_start_time",
    "reap",
    "release",
    "survey",
    "unlink",
    "writable",
]
