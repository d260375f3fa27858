"""Segments by their names, what is asked of one and known of it, and why one is refused."""

from __future__ import annotations

import logging
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

try:
    import fcntl  # noqa: F401

    import posix_ipc  # noqa: F401

    from accelerator import _native
except ImportError:  # macOS, Windows, or no compiler at installation: there are no segments
    AVAILABLE = False
else:
    AVAILABLE = True

if TYPE_CHECKING:
    from collections.abc import Callable


LOG = logging.getLogger("accelerator")
SHM_DIR: Final = Path("/dev/shm")  # noqa: S108  where shm_open() of Linux keeps its files
PAGE: Final = 4096
_FILE_NAME: Final = re.compile(r"accelerator\.(\d{1,10})\.([a-z0-9_-]{1,40})\.([0-9a-f]{8})")
REMOVE: Final = "remove it (accelerator unlink --force NAME) or choose another name"


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


def files_of(uid: int | None = None) -> list[SegmentFile]:
    """All files that are called like segments."""
    try:
        names = sorted(os.listdir(SHM_DIR))  # noqa: PTH208  names are all that is wanted
    except OSError:
        return []
    parsed = (SegmentFile.parse(name) for name in names)
    return [file for file in parsed if file is not None and uid in {None, file.uid}]


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
        object.__setattr__(self, "size", self.size // PAGE * PAGE)


class StartOver(Exception):  # noqa: N818  no error
    """The file was replaced: look again."""


class Refused(Exception):  # noqa: N818  becomes NotAttached with the name of the file
    """What lies there is not used; why, and what to do."""
