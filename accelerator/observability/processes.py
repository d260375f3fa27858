"""What the kernel says of a process, for those who look at a segment."""

from __future__ import annotations

import os
from pathlib import Path
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
    folder = Path("/proc") / str(pid)
    try:
        # The command is in parentheses and may itself contain anything, parentheses included.
        fields = (folder / "stat").read_bytes().rpartition(b")")[2].split()
        status = (folder / "status").read_bytes()
    except OSError:
        return None
    cpu = (int(fields[11]) + int(fields[12])) / _TICKS
    own = [line.split()[1] for line in status.splitlines() if line.startswith(b"RssAnon:")]
    return Usage(fields[0].decode(), cpu, int(own[0]) * 1024 if own else 0)
