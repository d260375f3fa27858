"""How segments come to be, whom they refuse, and when they go."""

import contextlib
import fcntl
import importlib
import logging
import os
import re
import signal
import stat
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

pytest.importorskip("accelerator._native", reason="segments need the native part")

from accelerator import _native, segment
from accelerator.errors import NotAttached
from accelerator.segment import Request, SegmentFile, Supervisor

MIB = 1 << 20
SIZE = 4 * MIB
UID = os.geteuid()
Fork = Callable[..., "object"]

needs_root = pytest.mark.skipif(UID != 0, reason="only root can act as another user")


def file_of(name: str, uid: int = UID) -> SegmentFile:
    return SegmentFile(uid, name, _native.LAYOUT)


def request(name: str, size: int = SIZE, supervisor: Supervisor | None = None) -> Request:
    return Request(file_of(name), size, MIB // 4, supervisor)


def attach(name: str, **options: object) -> _native.Segment:
    return segment.attach(request(name, **options))


def locked_from_outside(path: Path, start: int, length: int) -> bool:
    """Whether some other process holds a lock there, as a new process sees it."""
    code = (
        "import fcntl, os, struct, sys\n"
        "fd = os.open(sys.argv[1], os.O_RDONLY)\n"
        "flock = struct.pack('hhqqi4x', fcntl.F_WRLCK, 0, int(sys.argv[2]), int(sys.argv[3]), 0)\n"
        "answer = fcntl.fcntl(fd, fcntl.F_GETLK, flock)\n"
        "print(struct.unpack('hhqqi4x', answer)[0] != fcntl.F_UNLCK)\n"
    )
    command = [sys.executable, "-c", code, str(path), str(start), str(length)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return output == "True\n"


def alive_from_outside(name: str) -> bool:
    return locked_from_outside(file_of(name).path, _native.LIVENESS_BASE, 0)


def interpreters_module() -> ModuleType:
    """Python's own module for interpreters, which has had several names."""
    for candidate in ("_interpreters", "_xxsubinterpreters"):
        with contextlib.suppress(ImportError):
            return importlib.import_module(candidate)
    pytest.skip("this Python has no interpreters module")


def make_old(path: Path) -> None:
    long_ago = time.time() - 2 * segment.DEAD_AFTER
    os.utime(path, (long_ago, long_ago))


class Area(_native.Area):
    """The least that can store and read."""

    def __init__(self, mapped: _native.Segment) -> None:
        self._bind(
            mapped,
            "area",
            ttl=None,
            null_ttl=None,
            stale_ttl=0,
            jitter=0,
            max_value_size=1000,
            object_cache_bytes=0,
            flags=_native.PLAIN_MISS | _native.PLAIN_SET,
        )


def leave_dead(fork: Fork, name: str, supervisor: Supervisor | None = None) -> None:
    """Leave a segment that a killed process was attached to, with a value in it."""

    def body(meet: Callable[..., object]) -> None:
        Area(attach(name, supervisor=supervisor)).set("key", "kept")
        meet()
        meet()

    child = fork(body)
    child.meet()
    child.kill()


class TestName:
    def test_round_trip(self) -> None:
        """The parts of a name can be read back from it."""
        file = SegmentFile(1000, "shop_1-a", 0xBEEF)
        assert "/accelerator.1000.shop_1-a.0000beef" == file.posix_name
        assert file == SegmentFile.parse(file.path.name)

    @pytest.mark.parametrize(
        "other",
        [
            "sem.accelerator",
            "accelerator.0.shop",
            "accelerator.0.Shop.00000000",
            "accelerator.0.shop.0000000g",
            "accelerator.-1.shop.00000000",
            f"accelerator.0.{'x' * 41}.00000000",
        ],
    )
    def test_other_files(self, other: str) -> None:
        """A file that is called otherwise is none of ours."""
        assert SegmentFile.parse(other) is None


class TestCreation:
    def test_file(self, name: str) -> None:
        """Only its owner can reach it, and all of its bytes exist."""
        old = os.umask(0)
        try:
            attach(name)
        finally:
            os.umask(old)
        status = file_of(name).path.stat()
        assert 0o600 == stat.S_IMODE(status.st_mode)
        assert SIZE == status.st_size == status.st_blocks * 512

    def test_hostile_umask(self, name: str) -> None:
        """The umask of a service cannot lock its own workers out."""
        old = os.umask(0o777)
        try:
            attach(name)
        finally:
            os.umask(old)
        assert 0o600 == stat.S_IMODE(file_of(name).path.stat().st_mode)

    def test_idempotent(self, name: str) -> None:
        """A second attach in one process is the first one's mapping."""
        assert attach(name) is attach(name)

    def test_many_at_once(self, name: str, fork: Fork) -> None:
        """Workers that start together share one segment, each under its own incarnation."""

        def body(meet: Callable[..., object]) -> None:
            meet()
            mine = attach(name)
            meet((mine.incarnation, os.fstat(mine.fd).st_ino))
            meet()

        children = [fork(body) for _ in range(8)]
        for child in children:
            child.meet()
        seen = [child.meet() for child in children]
        assert 8 == len({incarnation for incarnation, _ in seen})
        assert 1 == len({inode for _, inode in seen})

    @pytest.mark.parametrize("killed_before", [False, True])
    def test_many_over_a_dead_one(self, name: str, fork: Fork, killed_before: bool) -> None:
        """Workers that start together over a dead segment of another size share one new one."""
        if killed_before:
            leave_dead(fork, name)

        def body(meet: Callable[..., object]) -> None:
            meet()
            mine = attach(name, size=2 * SIZE)
            meet((mine.size, os.fstat(mine.fd).st_ino))
            meet()

        for _ in range(5):
            children = [fork(body) for _ in range(6)]
            for child in children:
                child.meet()
            (size, inode), *others = {child.meet() for child in children}
            assert (2 * SIZE, file_of(name).path.stat().st_ino, []) == (size, inode, others)
            for child in children:
                child.kill()

    def test_creators_killed(self, name: str, fork: Fork) -> None:
        """Creators killed anywhere on the way leave what the next attach can use."""

        def body(meet: Callable[..., object]) -> None:
            meet()
            attach(name)
            meet()

        for delay in range(30):
            child = fork(body)
            child.meet()
            time.sleep(delay / 10_000)
            child.kill()
            if delay % 3 == 2:
                attached = attach(name)
                assert [] == attached.check()
                segment.leave(attached)
                segment.unlink(name, UID)

    @pytest.mark.parametrize("size", [0, 100, SIZE])
    def test_half_made(self, name: str, size: int) -> None:
        """A file whose header was never finished is made anew."""
        path = file_of(name).path
        path.touch(0o600)
        os.truncate(path, size)
        assert SIZE == attach(name).size

    def test_half_made_prefix(self, name: str) -> None:
        """A killed creator may have written any field before the magic word."""
        path = file_of(name).path
        path.touch(0o600)
        path.write_bytes(bytes(8) + b"\x01" * 248 + bytes(SIZE - 256))
        assert SIZE == attach(name).size

    def test_initialiser_stopped(
        self, name: str, fork: Fork, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Who holds INIT_BYTE and does nothing is waited for, but not for ever."""
        monkeypatch.setattr(segment.opened, "PATIENCE", 0.2)
        path = file_of(name).path
        path.touch(0o600)

        def body(meet: Callable[..., object]) -> None:
            fd = os.open(path, os.O_RDWR)
            fcntl.lockf(fd, fcntl.LOCK_EX, 1, _native.INIT_BYTE)
            meet()
            meet()

        child = fork(body)
        child.meet()
        with pytest.raises(NotAttached, match=f"process {child.pid} "):
            attach(name)
        child.kill()
        assert SIZE == attach(name).size

    def test_progress_is_patience(
        self, name: str, fork: Fork, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Nobody gives up while the file that another process creates still grows."""
        monkeypatch.setattr(segment.opened, "PATIENCE", 0.3)
        path = file_of(name).path
        path.touch(0o600)

        def body(meet: Callable[..., object]) -> None:
            fd = os.open(path, os.O_RDWR)
            fcntl.lockf(fd, fcntl.LOCK_EX, 1, _native.INIT_BYTE)
            meet()
            for size in range(10):
                time.sleep(0.1)
                os.truncate(path, size + 1)

        child = fork(body)
        child.meet()
        started = time.monotonic()
        assert SIZE == attach(name).size
        assert 0.8 < time.monotonic() - started

    def test_large_logs_progress(
        self, name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The creation of a large segment can be followed, and keeps its worker's heart beating."""
        monkeypatch.setattr(segment.creation, "LARGE", 8 * MIB)
        monkeypatch.setattr(segment.creation, "CHUNK", MIB)
        beats: list[int] = []
        with caplog.at_level(logging.INFO, "accelerator"):
            segment.attach(Request(file_of(name), 16 * MIB, MIB, heartbeat=lambda: beats.append(1)))
        lines = [record.getMessage() for record in caplog.records if "reserved" in record.msg]
        assert 8 <= len(lines) <= 11
        assert lines[-1].endswith("16 of 16 MiB reserved")
        assert 16 <= len(beats)


class TestRefusal:
    """What squats on a name is refused, and not one byte of it changes."""

    @staticmethod
    def assert_refused(name: str, reason: str) -> None:
        with pytest.raises(NotAttached, match=reason):
            attach(name)

    @pytest.fixture
    def path(self, name: str) -> Path:
        return file_of(name).path

    @pytest.fixture
    def sound(self, name: str, path: Path, fork: Fork) -> bytes:
        """The bytes of a sound segment, whose file is gone."""
        leave_dead(fork, name)
        content = path.read_bytes()
        path.unlink()
        return content

    @needs_root
    def test_foreign_owner(self, name: str, path: Path, sound: bytes) -> None:
        """A file of another user."""
        path.touch(0o600)
        path.write_bytes(sound)
        os.chown(path, 12345, 12345)
        self.assert_refused(name, "belongs to uid 12345")
        assert sound == path.read_bytes()

    @needs_root
    def test_foreign_owner_for_all(self, name: str, path: Path, fork: Fork, sound: bytes) -> None:
        """A file that another user made writable for everybody, met by somebody who is not root."""
        theirs = file_of(name, 12346).path
        theirs.touch(0o600)
        theirs.write_bytes(sound)
        theirs.chmod(0o666)
        os.chown(theirs, 12345, 12345)

        def body(meet: Callable[..., object]) -> None:
            os.setgroups([])
            os.setresgid(12346, 12346, 12346)
            os.setresuid(12346, 12346, 12346)
            try:
                segment.attach(Request(file_of(name, 12346), SIZE, MIB))
            except NotAttached as error:
                meet(str(error))

        assert "belongs to uid 12345" in fork(body).meet()
        assert sound == theirs.read_bytes()

    @pytest.mark.parametrize("mode", [0o666, 0o640, 0o601])
    def test_mode(self, name: str, path: Path, sound: bytes, mode: int) -> None:
        """A file that others may touch."""
        path.write_bytes(sound)
        path.chmod(mode)
        self.assert_refused(name, f"{mode:04o}")
        assert sound == path.read_bytes()

    def test_symbolic_link(self, name: str, path: Path, tmp_path: Path, sound: bytes) -> None:
        """A symbolic link, whatever it points to."""
        target = tmp_path / "target"
        target.touch(0o600)
        target.write_bytes(sound)
        path.symlink_to(target)
        self.assert_refused(name, "not a regular file")
        assert sound == target.read_bytes()

    def test_dangling_link(self, name: str, path: Path, tmp_path: Path) -> None:
        """A symbolic link to nothing: nothing is created through it."""
        path.symlink_to(tmp_path / "target")
        self.assert_refused(name, "not a regular file")
        assert not (tmp_path / "target").exists()

    def test_fifo(self, name: str, path: Path) -> None:
        """A FIFO, without waiting for a reader of it."""
        os.mkfifo(path, 0o600)
        self.assert_refused(name, "not a regular file")

    def test_hard_link(self, name: str, path: Path, sound: bytes) -> None:
        """A file that can be reached under a second name."""
        path.touch(0o600)
        path.write_bytes(sound)
        second = path.with_name(f"{path.name}.second")
        second.hardlink_to(path)
        try:
            self.assert_refused(name, "2 names")
            assert sound == second.read_bytes()
        finally:
            second.unlink()

    @pytest.mark.parametrize("size", [SIZE - 4096, SIZE + 4096, 4096, 256])
    def test_size(self, name: str, path: Path, sound: bytes, size: int) -> None:
        """A file that is shorter or longer than its header says."""
        path.touch(0o600)
        path.write_bytes(sound[:size].ljust(size, b"\0"))
        self.assert_refused(name, "size")
        assert size == path.stat().st_size

    def test_other_content(self, name: str, path: Path) -> None:
        """A file that is something else."""
        path.touch(0o600)
        path.write_bytes(b"precious" * 1000)
        self.assert_refused(name, "not a segment")
        assert b"precious" * 1000 == path.read_bytes()

    def test_other_name(self, name: str, path: Path, sound: bytes) -> None:
        """A segment that was moved here."""
        moved = file_of(f"{name}-b").path
        moved.touch(0o600)
        moved.write_bytes(sound)
        try:
            self.assert_refused(f"{name}-b", "name")
            assert sound == moved.read_bytes()
        finally:
            moved.unlink()

    def test_other_layout(self, name: str, sound: bytes) -> None:
        """A segment whose header disagrees with its file about the layout."""
        other = SegmentFile(UID, name, _native.LAYOUT ^ 1)
        other.path.touch(0o600)
        other.path.write_bytes(sound)
        with pytest.raises(NotAttached, match="layout"):
            segment.attach(Request(other, SIZE, MIB))
        assert sound == other.path.read_bytes()

    def test_other_clocks_in_use(
        self, name: str, fork: Fork, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A segment of another time namespace, whose processes live."""

        def body(meet: Callable[..., object]) -> None:
            attach(name)
            meet()
            meet()

        fork(body).meet()
        monkeypatch.setattr(_native, "sys_namespaces", lambda: (1, 2))
        self.assert_refused(name, "another time namespace, and processes use it")

    @needs_root
    def test_namesake(self, name: str, caplog: pytest.LogCaptureFixture) -> None:
        """The same name of another user is a segment of its own, and a warning."""
        theirs = file_of(name, 12345).path
        theirs.touch(0o600)
        os.chown(theirs, 12345, 12345)
        attach(name)
        assert any("of uid 12345" in record.getMessage() for record in caplog.records)
        assert 0 == theirs.stat().st_size


class TestSpace:
    """A /dev/shm that is too small, in a mount namespace of its own."""

    @staticmethod
    def run(mib: int, code: str) -> str:
        script = (
            f"mount -t tmpfs -o size={mib}m tmpfs /dev/shm && exec {sys.executable} -c '{code}'"
        )
        command = ["unshare", "--mount", "sh", "-c", script]
        result = subprocess.run(command, check=False, capture_output=True, text=True)
        assert 0 == result.returncode, result.stderr
        return result.stdout

    CODE = (
        "import logging, sys; logging.basicConfig(stream=sys.stdout, level=30)\n"
        "from accelerator import segment as s, _native\n"
        "from accelerator.errors import NotAttached\n"
        "file = s.SegmentFile(0, 'small', _native.LAYOUT)\n"
        "try:\n"
        "    print('got', s.attach(s.Request(file, SIZE, 1 << 20)).size >> 20)\n"
        "except NotAttached as error:\n"
        "    print('none', error)\n"
        "print('left', len(list(s.SHM_DIR.iterdir())))\n"
    ).replace("'", '"')

    @pytest.fixture(autouse=True)
    def _namespaces(self) -> None:
        command = ["unshare", "--mount", "true"]
        if UID != 0 or subprocess.run(command, check=False, capture_output=True).returncode != 0:
            pytest.skip("mount namespaces need root")

    @pytest.mark.parametrize(("room", "got"), [(70, 64), (40, 32), (30, 16), (5, 4)])
    def test_halves(self, room: int, got: int) -> None:
        """The size is halved until it fits; each step is a warning with the cure."""
        output = self.run(room, self.CODE.replace("SIZE", str(64 * MIB)))
        assert f"got {got}\n" in output
        steps = re.findall(r"WARNING.*does not fit; trying ([\d.]+) MiB.*--shm-size", output)
        assert [64 / 2**n for n in range(1, 5) if 64 / 2**n >= got] == [float(s) for s in steps]

    def test_none(self) -> None:
        """Less than the smallest size: refused, with the cure, and nothing is left behind."""
        output = self.run(3, self.CODE.replace("SIZE", str(64 * MIB)))
        assert re.search(r"none .*not even 4 MiB are free.*--shm-size", output)
        assert "left 0\n" in output

    @pytest.mark.parametrize(
        ("mount", "reason"),
        [
            ("-o size=3m tmpfs /dev/shm", "--shm-size"),
            ("-o ro tmpfs /dev/shm", "Read-only"),
            ("tmpfs /dev", "there is no /dev/shm"),
        ],
    )
    def test_goes_on(self, mount: str, reason: str) -> None:
        """An application that gets no segment runs all the same, with one WARNING."""
        code = (
            "import logging, sys; logging.basicConfig(stream=sys.stdout, level=30)\n"
            "import accelerator\n"
            'accelerator.attach(name="test")\n'
            'cache = accelerator.LevelCache("area")\n'
            'cache.set("key", 1)\n'
            'print("got", cache.get("key"))\n'
        )
        script = f"mount -t tmpfs {mount} && exec {sys.executable} -c '{code}'"
        command = ["unshare", "--mount", "sh", "-c", script]
        result = subprocess.run(command, check=True, capture_output=True, text=True)
        warning, answer = result.stdout.splitlines()
        assert warning.startswith("WARNING:accelerator:segment /dev/shm/")
        assert reason in warning
        assert "got 1" == answer

    def test_auto(self) -> None:
        """Docker's 64 MiB: three eighths of it, so that two segments of a rolling deploy fit."""
        code = "from accelerator import segment; print(segment.auto_size() / 2**20)"
        assert "24.0\n" == self.run(64, code)
        assert "64.0\n" == self.run(1024, code)
        assert "4.0\n" == self.run(4, code)


class TestRestart:
    """What a process finds that comes after all others have gone."""

    MASTER = Supervisor(4_000_001, 12345)

    def test_starts_empty(self, name: str, fork: Fork) -> None:
        """Nobody heard deletes meanwhile, so nothing is believed."""
        leave_dead(fork, name)
        assert Area(attach(name)).get("key") is None

    def test_keeps_counters(self, name: str, fork: Fork) -> None:
        """What was counted stays counted."""
        leave_dead(fork, name)
        assert 1 == attach(name).stats()["areas"]["area"]["set"]

    def test_same_master(self, name: str, fork: Fork) -> None:
        """Workers of one Gunicorn master find what earlier ones stored."""
        leave_dead(fork, name, self.MASTER)
        assert "kept" == Area(attach(name, supervisor=self.MASTER)).get("key")

    @pytest.mark.parametrize("other", [Supervisor(4_000_001, 99), Supervisor(1, 12345), None])
    def test_other_master(self, name: str, fork: Fork, other: Supervisor | None) -> None:
        """Workers of a restarted server do not."""
        leave_dead(fork, name, self.MASTER)
        assert Area(attach(name, supervisor=other)).get("key") is None

    def test_others_alive(self, name: str, fork: Fork) -> None:
        """While anybody lives, a newcomer joins what is there."""

        def body(meet: Callable[..., object]) -> None:
            Area(attach(name)).set("key", "kept")
            meet()
            meet()

        fork(body).meet()
        assert "kept" == Area(attach(name)).get("key")

    def test_came_back(self, name: str) -> None:
        """So does a process that had left it."""
        mine = attach(name)
        Area(mine).set("key", "kept")
        segment.leave(mine)
        assert Area(attach(name)).get("key") is None

    def test_other_size(self, name: str, fork: Fork) -> None:
        """A changed size makes a new segment of a dead one, and is only noted beside a living."""
        leave_dead(fork, name)
        assert 2 * SIZE == attach(name, size=2 * SIZE).size

        def body(meet: Callable[..., object]) -> None:
            meet(attach(name, size=SIZE).size)

        assert 2 * SIZE == fork(body).meet()

    @pytest.mark.parametrize("change", ["boot", "clock"])
    def test_other_machine(
        self, name: str, fork: Fork, monkeypatch: pytest.MonkeyPatch, change: str
    ) -> None:
        """A dead segment whose clocks mean nothing here is replaced."""
        leave_dead(fork, name)
        if change == "boot":
            monkeypatch.setattr(_native, "sys_boot_id", lambda: bytes(16))
        else:
            monkeypatch.setattr(_native, "sys_namespaces", lambda: (1, 2))
        assert {} == attach(name).stats()["areas"]


class TestLiveness:
    def test_fork(self, name: str, fork: Fork) -> None:
        """The child of an attached process is somebody else, and enters on its own."""
        mine = attach(name)
        incarnation = mine.incarnation

        def body(meet: Callable[..., object]) -> None:
            meet(mine.incarnation)
            again = attach(name)
            meet((again is mine, again.incarnation, again.any_alive()))

        child = fork(body)
        assert 0 == child.meet()
        assert (True, incarnation + 1, True) == child.meet()
        assert incarnation == mine.incarnation

    def test_nothing_drops_it(self, name: str, fork: Fork) -> None:
        """
        Looking at segments in an attached process does not drop its liveness byte.

        Any close() of any descriptor of the file would, silently.
        """
        mine = attach(name)
        leave_dead(fork, f"{name}-b")
        make_old(file_of(f"{name}-b").path)
        alias = file_of(f"{name}-c").path
        alias.hardlink_to(file_of(name).path)
        try:
            for _ in range(3):
                segment.survey()
                segment.survey(UID)
                segment.collect(UID)
                assert segment.inspect(file_of(name)) is mine
                segment.reap(2**22 - 1, UID)
                with pytest.raises(NotAttached, match="in use"):
                    segment.unlink(name, UID)
                with pytest.raises(NotAttached):
                    segment.unlink(f"{name}-c", UID)
                with contextlib.suppress(NotAttached):
                    attach(f"{name}-c")
                attach(f"{name}-d")
                mine.stats()
                assert alive_from_outside(name)
        finally:
            alias.unlink()
            segment.unlink(f"{name}-d", UID, force=True)
        assert attach(name) is mine
        assert not file_of(f"{name}-b").path.exists()

    def test_closed_by_somebody(self, name: str) -> None:
        """A descriptor closed under us (os.closerange() for one) is replaced within ticks."""
        mine = attach(name)
        os.close(mine.fd)
        with Path("/dev/null").open() as taken:  # something else now has its number
            deadline = time.monotonic() + 10
            while not alive_from_outside(name) and time.monotonic() < deadline:
                time.sleep(0.01)
            assert alive_from_outside(name)
            assert taken.fileno() != mine.fd
        assert attach(name) is mine

    def test_other_interpreter(self, name: str) -> None:
        """A second interpreter of this process, which has a registry of its own, does no harm."""
        interpreters = interpreters_module()
        attach(name)
        code = (
            f"import sys; sys.path[:] = {sys.path!r}\n"
            "import accelerator\n"
            "from accelerator import segment\n"
            f"accelerator.configure(name={name!r}, size={SIZE})\n"
            "accelerator.LevelCache('area').set('key', 1)\n"
            "if segment.AVAILABLE:\n"
            f"    segment.survey(); segment.collect({UID})\n"
            "    try:\n"
            f"        segment.unlink({name!r}, {UID})\n"
            "    except accelerator.NotAttached:\n"
            "        pass\n"
            "    else:\n"
            "        raise AssertionError('unlinked a segment that is in use')\n"
            "accelerator.detach()\n"
        )
        other = interpreters.create()
        failure = interpreters.run_string(other, code)
        assert failure is None, failure
        assert alive_from_outside(name)
        interpreters.destroy(other)
        time.sleep(0.3)  # a few ticks
        assert alive_from_outside(name)

    def test_interpreter_left_over(self, name: str) -> None:
        """A process ends although another interpreter, attached as well, was never destroyed."""
        module = interpreters_module().__name__
        code = (
            f"import sys; sys.path[:] = {sys.path!r}\n"
            "import accelerator\n"
            f"accelerator.configure(name={name!r}, size={SIZE})\n"
            "accelerator.LevelCache('area').set('key', 1)\n"
        )
        both = (
            f"{code}import {module} as interpreters\n"
            f"interpreters.run_string(interpreters.create(), {code!r})\n"
        )
        # It used to become a zombie whose maintenance thread lived on.
        ended = subprocess.run([sys.executable, "-c", both], timeout=20, check=False)
        assert ended.returncode == 0

    def test_given_back(self, name: str) -> None:
        """After leave() nothing is held, and attach() enters again through the same mapping."""
        mine = attach(name)
        segment.leave(mine)
        assert not alive_from_outside(name)
        assert attach(name) is mine
        assert alive_from_outside(name)

    def test_init_byte_given_back(self, name: str) -> None:
        """No call keeps others out after it has returned."""
        attach(name)
        segment.collect(UID)
        with pytest.raises(NotAttached):
            segment.unlink(name, UID)
        assert not locked_from_outside(file_of(name).path, _native.INIT_BYTE, 1)

    def test_lock_owner(self, name: str, fork: Fork) -> None:
        """The process behind a byte can be named."""

        def body(meet: Callable[..., object]) -> None:
            mine = attach(name)
            meet(mine.incarnation)
            meet()

        child = fork(body)
        byte = _native.LIVENESS_BASE + child.meet()
        with file_of(name).path.open("rb") as opened:
            assert child.pid == segment.lock_owner(opened.fileno(), byte)
            assert child.pid == segment.lock_owner(opened.fileno(), _native.LIVENESS_BASE, 0)
            assert segment.lock_owner(opened.fileno(), _native.INIT_BYTE) is None


class TestCollect:
    def test_dead(self, name: str, fork: Fork) -> None:
        """Dead and old: it goes."""
        leave_dead(fork, name)
        make_old(file_of(name).path)
        assert file_of(name) in segment.collect(UID)
        assert not file_of(name).path.exists()

    def test_master_without_init(self) -> None:
        """A master that has ended is gone, also where nobody waits for it."""
        assert segment.process_start_time(os.getpid()) is not None
        with subprocess.Popen([sys.executable, "-c", ""]) as master:
            os.waitid(os.P_PID, master.pid, os.WEXITED | os.WNOWAIT)
            assert segment.process_start_time(master.pid) is None

    def test_by_attach(self, name: str, fork: Fork) -> None:
        """Any attach does the same."""
        leave_dead(fork, name)
        make_old(file_of(name).path)
        attach(f"{name}-b")
        segment.unlink(f"{name}-b", UID, force=True)
        assert not file_of(name).path.exists()

    def test_young(self, name: str, fork: Fork) -> None:
        """Dead for less than a minute: somebody may be about to come back."""
        leave_dead(fork, name)
        assert file_of(name) not in segment.collect(UID)

    def test_alive(self, name: str, fork: Fork) -> None:
        """Old, but somebody lives."""

        def body(meet: Callable[..., object]) -> None:
            attach(name)
            meet()
            meet()

        fork(body).meet()
        make_old(file_of(name).path)
        assert file_of(name) not in segment.collect(UID)

    def test_own(self, name: str) -> None:
        """One's own locks cannot be seen by asking the kernel, and count all the same."""
        attach(name)
        make_old(file_of(name).path)
        assert file_of(name) not in segment.collect(UID)

    def test_master_alive(self, name: str, fork: Fork) -> None:
        """A server with one worker has none while that worker is replaced."""
        start = segment.process_start_time(os.getpid())
        assert start is not None
        leave_dead(fork, name, Supervisor(os.getpid(), start))
        make_old(file_of(name).path)
        assert file_of(name) not in segment.collect(UID)

    def test_being_initialised(self, name: str, fork: Fork) -> None:
        """Somebody is at work on it."""
        leave_dead(fork, name)
        path = file_of(name).path
        make_old(path)

        def body(meet: Callable[..., object]) -> None:
            fd = os.open(path, os.O_RDWR)
            fcntl.lockf(fd, fcntl.LOCK_EX, 1, _native.INIT_BYTE)
            meet()
            meet()

        fork(body).meet()
        assert file_of(name) not in segment.collect(UID)

    def test_half_made(self, name: str) -> None:
        """What a killed creator of any layout left."""
        file = SegmentFile(UID, name, 0x1234)
        file.path.touch(0o600)
        make_old(file.path)
        assert file in segment.collect(UID)

    def test_other_version(self, name: str, fork: Fork) -> None:
        """Only the first bytes are interpreted, which are the same in all versions."""
        leave_dead(fork, name)
        file = SegmentFile(UID, name, 0x1234)
        content = bytearray(file_of(name).path.read_bytes())
        content[12:16] = struct.pack("<I", file.layout)
        content[256:] = os.urandom(len(content) - 256)
        file.path.touch(0o600)
        file.path.write_bytes(content)
        make_old(file.path)
        assert file in segment.collect(UID)

    def test_not_ours(self, name: str) -> None:
        """A file that only is called like a segment stays."""
        path = file_of(name).path
        path.touch(0o600)
        path.write_bytes(b"precious" * 1000)
        make_old(path)
        segment.collect(UID)
        assert path.exists()


class TestUnlink:
    def test_dead(self, name: str, fork: Fork) -> None:
        """Nobody uses it: it goes."""
        leave_dead(fork, name)
        assert [file_of(name)] == segment.unlink(name, UID)
        assert not file_of(name).path.exists()

    def test_alive(self, name: str, fork: Fork) -> None:
        """Somebody uses it: it stays, unless forced; then newcomers start anew."""

        def body(meet: Callable[..., object]) -> None:
            Area(attach(name)).set("key", "value")
            meet()
            meet()

        fork(body).meet()
        with pytest.raises(NotAttached, match="in use"):
            segment.unlink(name, UID)
        segment.unlink(name, UID, force=True)
        assert {} == attach(name).stats()["areas"]

    def test_between_open_and_lock(self, name: str, fork: Fork) -> None:
        """Who opened a file that was unlinked before the lock was had starts over."""
        path = file_of(name).path
        path.touch(0o600)

        def body(meet: Callable[..., object]) -> None:
            fd = os.open(path, os.O_RDWR)
            fcntl.lockf(fd, fcntl.LOCK_EX, 1, _native.INIT_BYTE)
            meet()
            time.sleep(0.2)  # the parent is in its waiting loop by now
            path.unlink()

        fork(body).meet()
        mine = attach(name)
        assert 1 == os.fstat(mine.fd).st_nlink

    @pytest.mark.parametrize("kind", ["link", "fifo"])
    def test_squatter(self, name: str, kind: str) -> None:
        """What is no file at all goes without being opened."""
        path = file_of(name).path
        if kind == "link":
            path.symlink_to("/nowhere")
        else:
            os.mkfifo(path)
        segment.unlink(name, UID)
        assert not path.is_symlink()
        assert not path.exists()

    def test_unsound(self, name: str) -> None:
        """A file that would be refused goes by force only."""
        path = file_of(name).path
        path.touch(0o644)
        with pytest.raises(NotAttached, match="--force"):
            segment.unlink(name, UID)
        segment.unlink(name, UID, force=True)
        assert not path.exists()


class TestSurvey:
    def test_states(self, name: str, fork: Fork) -> None:
        """Living, dead and half-made segments of this and of other versions are told apart."""
        leave_dead(fork, name)
        SegmentFile(UID, name, 0x1234).path.touch(0o600)
        found = {info.file.layout: info for info in segment.survey(UID) if info.file.name == name}
        dead, half = found[_native.LAYOUT], found[0x1234]
        assert (False, True, True) == (dead.alive, dead.ready, dead.current)
        assert (False, False, False) == (half.alive, half.ready, half.current)
        attach(name)
        (own,) = [info for info in segment.survey(UID) if info.file == file_of(name)]
        assert own.alive

    def test_inspect(self, name: str, fork: Fork) -> None:
        """A segment can be read without entering it, and attached to later."""
        leave_dead(fork, name)
        seen = segment.inspect(file_of(name))
        assert seen.readonly
        assert not alive_from_outside(name)
        mine = attach(name)
        assert not mine.readonly
        assert segment.inspect(file_of(name)) is mine
        assert alive_from_outside(name)

    def test_other_version(self, name: str) -> None:
        """Another layout is not read."""
        with pytest.raises(NotAttached, match="another version"):
            segment.inspect(SegmentFile(UID, name, 0x1234))

    def test_absent(self, name: str) -> None:
        """There is none."""
        with pytest.raises(NotAttached, match=name):
            segment.inspect(file_of(name))


class TestProcessStartTime:
    def test_odd_command(self, tmp_path: Path) -> None:
        """A command with spaces and parentheses in its name is no obstacle."""
        odd = tmp_path / "a) b ("
        odd.symlink_to("/bin/sleep")
        with subprocess.Popen([odd, "60"]) as process:
            try:
                while odd.name not in Path(f"/proc/{process.pid}/stat").read_text():
                    time.sleep(0.001)
                started = segment.process_start_time(process.pid)
            finally:
                process.send_signal(signal.SIGKILL)
        assert started is not None
        ours = segment.process_start_time(os.getpid())
        assert ours is not None
        assert started > ours

    def test_nobody(self) -> None:
        """No such process."""
        assert segment.process_start_time(2**22 + 1) is None
