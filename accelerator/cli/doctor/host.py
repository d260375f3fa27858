"""Checks of the machine: whether a segment can be made here, and of which size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from accelerator.cli import words
from accelerator.cli.doctor.finding import Finding, fail, ok, warn
from accelerator.segment import CURE, MIN_SIZE, SHM_DIR

if TYPE_CHECKING:
    from collections.abc import Iterator

    from accelerator.cli.doctor.facts import Facts

ALONE: Final = "each process caches in its own memory, and workers do not share"
_SHM: Final = str(SHM_DIR)
_SHM_SIZE: Final = f"{SHM_DIR} size"
_SMALL: Final = 64 << 20
"""What container engines give without being asked."""


def native(facts: Facts) -> Iterator[Finding]:
    """The native part."""
    if facts.native and not facts.pure:
        yield ok("native part", f"installed; Python {facts.python}")
    elif facts.pure:
        yield warn("native part", "ACCELERATOR_PURE=1 is set", ALONE, "unset it")
    elif facts.platform != "linux":
        yield warn("native part", f"there is none for {facts.platform}", ALONE, "run it on Linux")
    else:
        yield fail(
            "native part",
            "it, or posix_ipc, is not installed",
            ALONE,
            "install accelerator-cache again with a C compiler and Python's headers at hand, and "
            "read what pip says",
        )


def shm_there(facts: Facts) -> Iterator[Finding]:
    """The folder of segments."""
    shm = facts.shm
    if not facts.native:
        return
    if not shm.exists:
        yield fail(_SHM, "there is none", ALONE, "mount a tmpfs there; " + CURE)
    elif shm.readonly:
        yield fail(
            _SHM,
            "it is mounted read-only",
            ALONE,
            "mount a writable tmpfs there (docker run --read-only needs --tmpfs /dev/shm; "
            "Kubernetes: an emptyDir of medium Memory)",
        )
    elif not shm.writable:
        yield fail(
            _SHM,
            "this user may not make files there",
            ALONE,
            "give it the mode 1777, as it has everywhere (chmod 1777 /dev/shm)",
        )
    elif shm.kind not in {"tmpfs", "ramfs", ""}:
        yield warn(
            _SHM,
            f"it is of the kind {shm.kind}, not tmpfs",
            "pages of the segment may be written to a disk, and writes may wait for it",
            "mount a tmpfs there",
        )


def shm_size(facts: Facts) -> Iterator[Finding]:
    """Its size."""
    shm = facts.shm
    if not (facts.native and shm.usable):
        return
    told = f"{words.size(shm.size)}, of which {words.size(shm.free)} are free"
    if shm.size <= _SMALL:
        where = f" of {facts.container}" if facts.container else ""
        yield warn(
            _SHM_SIZE,
            f"{told}: no more than the default{where}",
            f"a segment of size auto has {words.size(facts.wanted)} here, and everything else that "
            "uses /dev/shm competes for the rest",
            CURE,
        )
    else:
        yield ok(_SHM_SIZE, told)


def room(facts: Facts) -> Iterator[Finding]:
    """Whether a segment of the size asked for could be made now."""
    shm = facts.shm
    if not (facts.native and shm.usable) or facts.seen is not None:
        return  # what is there needs no room
    told = f"a segment of {words.size(facts.wanted)} is wanted, {words.size(shm.free)} are free"
    if shm.free < MIN_SIZE:
        yield fail("room", told, f"not even the smallest fits: {ALONE}", CURE)
    elif shm.free < facts.wanted:
        yield warn("room", told, "a smaller segment is made, half as large or less", CURE)
    else:
        yield ok("room", told)


def limits(facts: Facts) -> Iterator[Finding]:
    """Limits of processes and containers."""
    if facts.file_limit is not None and facts.file_limit < facts.wanted:
        yield fail(
            "limits",
            f"a file may have {words.size(facts.file_limit)} (ulimit -f), a segment of "
            f"{words.size(facts.wanted)} is wanted",
            "a smaller segment is made, or none",
            "raise the limit (ulimit -f unlimited; systemd: LimitFSIZE=infinity)",
        )
    limit = facts.memory_limit
    if limit is not None and facts.wanted > limit // 2:
        yield warn(
            "limits",
            f"the container may use {words.size(limit)} of memory, and a segment of "
            f"{words.size(facts.wanted)} counts against it, from the first moment",
            "the workers share what is left, and the kernel ends one of them when that is used up",
            "raise the memory limit, or make the segment smaller",
        )


def operations(facts: Facts) -> Iterator[Finding]:
    """What a segment needs of the kernel."""
    refused = {name: why for name, why in facts.operations.items() if why is not None}
    for name, why in refused.items():
        yield fail(
            "kernel",
            f"{name} is refused ({why})",
            ALONE,
            "look at the seccomp profile and at the runtime of the container: gVisor and filters "
            "of one's own refuse what Docker's default allows",
        )
    if facts.operations and not refused:
        yield ok("kernel", f"allows {', '.join(facts.operations)}")


def versions(facts: Facts) -> Iterator[Finding]:
    """Versions of what it is built on."""
    there = [f"{name} {found}" for name, found in facts.versions.items() if found is not None]
    yield ok("versions", ", ".join(there))
    for name in ("msgpack", "redis"):
        if name in facts.versions and facts.versions[name] is None:
            yield fail(
                "versions",
                f"{name} is not installed",
                "accelerator-cache needs it",
                f"python -m pip install {name}",
            )


CHECKS: Final = (native, shm_there, shm_size, room, limits, operations, versions)
