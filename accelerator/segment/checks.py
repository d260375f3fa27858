"""What is believed of a file that is called like a segment: nothing that was not checked."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

from accelerator.segment.files import AVAILABLE, REMOVE, Refused, SegmentFile, Supervisor

if AVAILABLE:
    from accelerator import _native


def process_start_time(pid: int) -> int | None:
    """
    Clock ticks between boot and the start of *pid*; None if there is no such process.

    Nor is one that has ended and that nobody has waited for: some containers have no init that
    does, and a master's segment would lie there for as long as they live.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    # The command is in parentheses and may itself contain anything, parentheses included.
    fields = text.rpartition(b")")[2].split()
    return None if fields[0] in {b"Z", b"X"} else int(fields[19])


def check_status(status: os.stat_result, uid: int) -> None:
    """Is this a file that only *uid* could have made and can reach?"""
    if not stat.S_ISREG(status.st_mode):
        raise Refused(f"it is not a regular file; {REMOVE}")
    if status.st_uid != uid:
        raise Refused(f"it belongs to uid {status.st_uid}, not {uid}; choose another name")
    if status.st_mode & 0o077:
        mode = stat.S_IMODE(status.st_mode)
        raise Refused(f"others may change it, its mode is {mode:04o}; {REMOVE}")
    if status.st_nlink > 1:
        raise Refused(f"it has {status.st_nlink} names, others may keep it; {REMOVE}")


def read_header(fd: int) -> tuple[dict[str, Any] | None, bool]:
    """Header, None if there is none; and whether the file is what a killed creator leaves."""
    data = os.pread(fd, _native.HEADER_SIZE, 0)
    # The first word is written when all other fields are there (see format in segment.c).
    unfinished = not any(data[:8])
    header = None if unfinished else _native.peek_header(data)
    if header is not None and not header["magic_ok"]:
        header = None
    return header, unfinished or (header is not None and header["state"] != "ready")


def check_header(header: dict[str, Any], file: SegmentFile, size: int) -> None:
    """Does a ready header agree with the file that it lies in?"""
    for what, found, expected in (
        ("layout", header["layout"], file.layout),
        ("size", header["size"], size),
        ("uid", header["uid"], file.uid),
        ("name", header["name"], file.name),
    ):
        if found != expected:
            raise Refused(f"its header says {what} {found}, its file {expected}; {REMOVE}")


def check_ready(fd: int, file: SegmentFile) -> None:
    """Is this a finished segment, and the one that its name says?"""
    header, unfinished = read_header(fd)
    if header is None or unfinished:
        raise Refused("it is not a segment, or not a finished one")
    check_header(header, file, os.fstat(fd).st_size)


def of_another_machine(header: dict[str, Any]) -> str | None:
    """Why the clocks in a segment mean nothing here; None if they do."""
    if header["boot_id"] != _native.sys_boot_id():
        return "it was made before the last boot"
    if header["time_ns"] != _native.sys_namespaces()[0]:
        return "it was made in another time namespace"
    return None


def supervisor_of(header: dict[str, Any]) -> Supervisor | None:
    """Master whose workers find again what is in it; None: nobody's."""
    pid, start_time = header["supervisor"]
    return Supervisor(pid, start_time) if pid else None
