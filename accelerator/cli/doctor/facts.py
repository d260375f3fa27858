"""
Everything that the doctor's checks judge by, gathered in one place.

The checks see nothing but a :class:`Facts`, so that a test can give them those of any machine.
Gathering reads only: nothing is created in /dev/shm, no segment is entered, nothing is written to
Redis.
"""

from __future__ import annotations

import errno
import importlib.metadata
import mmap
import os
import platform
import re
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from accelerator import __version__, segment
from accelerator.cli import snapshot
from accelerator.config import Origin, Settings, derived_name, origins, unknown_variables
from accelerator.errors import CacheError, ConfigError, NotAttached

try:
    import fcntl
    import resource
except ImportError:  # Windows
    pass

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from accelerator.remote import Seen

PACKAGES: Final = ("redis", "msgpack", "posix_ipc", "ormsgpack", "zstandard", "hiredis")
_PATIENCE: Final = 2.0
"""Seconds that Redis is given to answer here, whatever ``redis_timeout`` says."""
_SECRET: Final = frozenset({"ACCELERATOR_SECRET", "ACCELERATOR_REDIS", "ACCELERATOR_REDIS_URL"})


@dataclass(frozen=True)
class Shm:
    """
    The folder in which segments lie.

    Args:
        exists: It is a folder.
        size: Bytes in all.
        free: Bytes that may be taken.
        kind: Its file system.
        readonly: It is mounted so.
        writable: This user may make files there.
    """

    exists: bool
    size: int = 0
    free: int = 0
    kind: str = ""
    readonly: bool = False
    writable: bool = False

    @property
    def usable(self) -> bool:
        """Whether a segment could be made there at all."""
        return self.exists and self.writable and not self.readonly


@dataclass(frozen=True)
class Facts:
    """
    What the checks judge by.

    Args:
        uid: Whose segments are meant.
        platform: As sys.platform.
        python: Version of the interpreter.
        native: Whether there can be segments: the native part and posix_ipc are installed.
        pure: ACCELERATOR_PURE asks for none.
        versions: Of packages; None: not installed.
        container: What kind of container this is, as far as that shows.
        shm: Of /dev/shm.
        operations: What a segment needs of the kernel, and why it is refused; None: it is not.
        memory_limit: Bytes that this container may use; None: no limit.
        file_limit: Bytes that a file may have; None: no limit.
        origins: Of the settings.
        unknown: Variables that look like settings, and the setting that was perhaps meant.
        settings: All together; None: they are wrong.
        problem: What is wrong with them.
        name: Of the segment.
        wanted: Bytes that a new segment would have.
        found: What lies in /dev/shm.
        seen: The segment; None: there is none, or none that can be read.
        broken: Invariants of it that are violated.
        others: Variables that living workers have with another value than here: by pid.
        redis: None: there is none in the settings.
    """

    uid: int = 0
    platform: str = "linux"
    python: str = ""
    native: bool = True
    pure: bool = False
    versions: Mapping[str, str | None] = field(default_factory=dict)
    container: str | None = None
    shm: Shm = field(default_factory=lambda: Shm(exists=False))
    operations: Mapping[str, str | None] = field(default_factory=dict)
    memory_limit: int | None = None
    file_limit: int | None = None
    origins: Sequence[Origin] = ()
    unknown: Mapping[str, str | None] = field(default_factory=dict)
    settings: Settings | None = None
    problem: str | None = None
    name: str = ""
    wanted: int = 0
    found: Sequence[segment.Found] = ()
    seen: snapshot.Snapshot | None = None
    broken: Sequence[str] = ()
    others: Mapping[int, Sequence[str]] = field(default_factory=dict)
    redis: Seen | None = None

    def given(self, setting: str) -> bool:
        """Whether a setting is given, and not the default."""
        return any(it.setting == setting and it.source != "default" for it in self.origins)


def gather(call: Mapping[str, Any], uid: int) -> Facts:
    """
    Look at everything.

    Args:
        call: Settings that count more than the environment.
        uid: Whose segments are meant.
    """
    settings, problem = _settings(call)
    available = segment.AVAILABLE
    name = _name(settings, call, uid)
    found = segment.examine() if available else []
    seen = _look(name, uid) if available else None
    return Facts(
        uid=uid,
        platform=sys.platform,
        python=platform.python_version(),
        native=available,
        pure=os.environ.get("ACCELERATOR_PURE") == "1",
        versions={"accelerator-cache": __version__, **{name: version(name) for name in PACKAGES}},
        container=container(),
        shm=look_at_shm(segment.SHM_DIR),
        operations=operations() if available else {},
        memory_limit=memory_limit(),
        file_limit=_file_limit(),
        origins=origins(call, os.environ),
        unknown=unknown_variables(os.environ),
        settings=settings,
        problem=problem,
        name=name,
        wanted=(settings.size if settings else None) or segment.auto_size(),
        found=found,
        seen=seen,
        broken=_broken(seen) if seen else (),
        others=_others(seen) if seen else {},
        redis=_redis(settings, seen) if settings else None,
    )


# --- settings and segment -----------------------------------------------------------------------


def _settings(call: Mapping[str, Any]) -> tuple[Settings | None, str | None]:
    try:
        return Settings.resolve(call, {}, os.environ), None
    except ConfigError as error:
        return None, str(error)


def _name(settings: Settings | None, call: Mapping[str, Any], uid: int) -> str:
    """Choose as the other commands do: the setting, else this directory's, else the only one."""
    name = call.get("name") if settings is None else settings.name
    if name is not None:
        return str(name)
    derived = derived_name()
    if not segment.AVAILABLE:
        return derived
    usable = [info for info in segment.survey(uid) if info.current and info.ready]
    if any(info.file.name == derived for info in usable):
        return derived
    alive = [info.file.name for info in usable if info.alive]
    return alive[0] if len(alive) == 1 else derived


def _look(name: str, uid: int) -> snapshot.Snapshot | None:
    try:
        return snapshot.take(segment.SegmentFile(uid, name, segment.layout()))
    except NotAttached:
        return None


def _broken(seen: snapshot.Snapshot) -> Sequence[str]:
    """
    Give violated invariants.

    A write that is in the middle looks like one, as a reader takes no lock: what is broken is so at
    every look.
    """
    memory = segment.inspect(seen.file)
    broken = memory.check()
    for _ in range(2):
        if not broken:
            break
        again = set(memory.check())
        broken = [each for each in broken if each in again]
    return broken


def _others(seen: snapshot.Snapshot) -> dict[int, Sequence[str]]:
    """Find settings in the environment of living workers that are not those of this shell."""
    own = _variables(dict(os.environ))
    found: dict[int, Sequence[str]] = {}
    for pid in (worker.here for worker in seen.workers):
        theirs = environment_of(pid) if pid and pid != os.getpid() else None
        if theirs is not None:
            # Not the other way round: a shell may well say more, if only which segment is meant.
            differ = sorted(name for name in theirs if own.get(name) != theirs[name])
            if differ:
                found[pid] = [_told(name, theirs[name]) for name in differ]
    return found


def environment_of(pid: int) -> dict[str, str] | None:
    """Settings in the environment that a process was started with; None: not ours to see."""
    try:
        data = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return None
    pairs = (os.fsdecode(each).partition("=") for each in data.split(b"\0") if each)
    return _variables({name: value for name, _, value in pairs})


def _variables(environ: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environ.items() if name.startswith("ACCELERATOR_")}


def _told(name: str, value: str) -> str:
    return f"another {name}" if name in _SECRET else f"{name}={value}"


def _redis(settings: Settings, seen: snapshot.Snapshot | None) -> Seen | None:
    if settings.redis is None or settings.remote_problem is not None:
        return None
    from accelerator import remote  # noqa: PLC0415  only where there is Redis

    patient = replace(settings, redis_timeout=max(_PATIENCE, settings.redis_timeout))
    areas = [row.name for row in seen.rows if row.watched] if seen else []
    try:
        client = remote.connect(patient)
    except CacheError as error:
        return remote.Seen({"redis": "?", "db": 0, "kind": "?"}, error=str(error))
    try:
        return remote.probe(client, areas, seen.origin if seen else bytes(16))
    finally:
        client.close()


# --- the machine --------------------------------------------------------------------------------


def version(package: str) -> str | None:
    """Version of an installed package; None: it is not."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def container() -> str | None:
    """What kind of container this is, as far as that shows."""
    if "KUBERNETES_SERVICE_HOST" in os.environ:
        return "kubernetes"
    if Path("/.dockerenv").exists():
        return "docker"
    return "podman" if Path("/run/.containerenv").exists() else None


def look_at_shm(folder: Path) -> Shm:
    """What the folder of segments is like."""
    try:
        room = os.statvfs(folder)
    except (OSError, AttributeError):
        return Shm(exists=False)
    return Shm(
        exists=folder.is_dir(),
        size=room.f_blocks * room.f_frsize,
        free=room.f_bavail * room.f_frsize,
        kind=file_system(folder),
        readonly=bool(room.f_flag & os.ST_RDONLY),
        writable=os.access(folder, os.W_OK | os.X_OK),
    )


def file_system(folder: Path, mounts: Path = Path("/proc/self/mounts")) -> str:
    """Kind of the file system that a folder lies in; "": it is not told."""
    best, kind = "", ""
    try:
        lines = mounts.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    for line in lines:
        _, point, found, *_ = line.split(" ")
        inside = folder.is_relative_to(point)
        if inside and len(point) >= len(best):
            best, kind = point, found
    return kind


def operations() -> dict[str, str | None]:
    """
    Try what a segment needs of the kernel, on memory that has no name.

    Old or strict seccomp filters, gVisor and some FUSE file systems refuse one or the other.
    """
    fd = os.memfd_create("accelerator-doctor", os.MFD_CLOEXEC)
    liveness = 1 << 40
    tried: dict[str, Callable[[], object]] = {
        "posix_fallocate": lambda: os.posix_fallocate(fd, 0, mmap.PAGESIZE),
        "fcntl locks": lambda: fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, liveness),
        "fcntl F_GETLK": lambda: segment.lock_owner(fd, liveness),
        "mmap": lambda: mmap.mmap(fd, mmap.PAGESIZE).close(),
        "eventfd": lambda: os.close(os.eventfd(0)),
    }
    try:
        return {name: _refused(trial) for name, trial in tried.items()}
    finally:
        os.close(fd)


def _refused(trial: Callable[[], object]) -> str | None:
    try:
        trial()
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error.errno))
    return None


_CGROUP_LIMITS: Final = (
    "/sys/fs/cgroup/memory.max",
    "/sys/fs/cgroup/memory/memory.limit_in_bytes",
)
_NO_LIMIT: Final = 1 << 60


def memory_limit(files: Sequence[str] = _CGROUP_LIMITS) -> int | None:
    """Bytes that the processes of this container may use together; None: no limit is told."""
    for name in files:
        try:
            text = Path(name).read_text(encoding="ascii").strip()
        except (OSError, ValueError):
            continue
        if re.fullmatch(r"\d+", text) and int(text) < _NO_LIMIT:
            return int(text)
    return None


def _file_limit() -> int | None:
    try:
        soft, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    except (NameError, OSError):
        return None
    return None if soft == resource.RLIM_INFINITY else soft
