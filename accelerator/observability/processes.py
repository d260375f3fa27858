"""What the kernel says of a process, for those who look at a segment."""

from __future__ import annotations

import os
from typing import Final, NamedTuple

_TICKS: Final = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


class Usage(NamedTuple):
    """What the kernel says of a process."""

    state: str
    """One letter, as ps shows it: R, S, D, T (stopped), Z."""
    cpu: float
    """Seconds of processor time since its start."""
    memory: int
    """Bytes of its own: the pages of the segment are not among them."""


def usage_of(pid: int) -> Usage | None:
    """What the kernel says of a process; None: nothing, it has ended or is not ours to see."""
    try:
        # The command is in parentheses and may itself contain anything, parentheses included.
        fields = _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
        status = _read(f"/proc/{pid}/status")
    except OSError:
        return None
    cpu = (int(fields[11]) + int(fields[12])) / _TICKS
    # The first line has the command, too, but escaped: no line begins within it.
    own = status.partition(b"\nRssAnon:")[2].split(None, 1)
    return Usage(fields[0].decode(), cpu, int(own[0]) * 1024 if own else 0)


def _read(path: str) -> bytes:
    """Read a small file of the kernel; of 64 processes at each look, so without more than that."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, 1 << 16)
    finally:
        os.close(fd)
