"""``accelerator doctor`` in the traps that containers set: in mount namespaces of their own."""

import itertools
import json
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import accelerator
from accelerator import cli, local, segment
from accelerator.cli import snapshot
from accelerator.cli.doctor import facts

pytestmark = pytest.mark.skipif(
    not (local.NATIVE and segment.AVAILABLE), reason="segments need the native part"
)
NOBODY = 65534


def can_mount() -> bool:
    if shutil.which("unshare") is None:
        return False
    trial = ["unshare", "--map-root-user", "--mount", "mount", "-t", "tmpfs", "none", "/dev/shm"]
    return subprocess.run(trial, capture_output=True, check=False).returncode == 0


needs_mounts = pytest.mark.skipif(not can_mount(), reason="this machine lets us mount nothing")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="another user is needed")


def doctor_in(mounts: str, *before: str, prelude: str = "") -> tuple[int, dict[str, Any]]:
    """Run the doctor where *mounts* have been made; its status and findings by check."""
    code = f"{prelude}\nfrom accelerator import cli; sys.exit(cli.main(['doctor', '--json']))"
    script = f'{mounts} && exec "$@"'
    command = ["unshare", "--map-root-user", "--mount", "sh", "-ec", script, "sh", *before]
    done = subprocess.run(
        [*command, sys.executable, "-c", f"import sys, os\n{code}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout, done.stderr
    return done.returncode, {it["check"]: it for it in json.loads(done.stdout)["findings"]}


@needs_mounts
class TestContainers:
    def test_docker(self) -> None:
        """The 64 MB that an engine gives: what a segment of size auto will have there."""
        status, found = doctor_in("mount -t tmpfs -o size=64m none /dev/shm")
        assert (0, "warn") == (status, found["/dev/shm size"]["level"])
        assert found["/dev/shm size"]["what"].startswith("64.0 MiB, of which 64.0 MiB are free")
        assert "has 24.0 MiB here" in found["/dev/shm size"]["means"]
        assert "--shm-size" in found["/dev/shm size"]["cure"]
        assert "ok" == found["room"]["level"]

    def test_full(self) -> None:
        """Nothing fits any more."""
        fill = "head -c 2m /dev/zero > /dev/shm/other"
        status, found = doctor_in(f"mount -t tmpfs -o size=4m none /dev/shm && {fill}")
        assert (1, "fail") == (status, found["room"]["level"])
        assert "2.0 MiB are free" in found["room"]["what"]

    def test_smaller_will_be_made(self) -> None:
        """Less is free than is wanted."""
        fill = "head -c 50m /dev/zero > /dev/shm/other"
        status, found = doctor_in(f"mount -t tmpfs -o size=64m none /dev/shm && {fill}")
        assert (0, "warn") == (status, found["room"]["level"])

    def test_read_only(self) -> None:
        """As with docker run --read-only."""
        status, found = doctor_in("mount -t tmpfs -o ro none /dev/shm")
        assert (1, "fail") == (status, found["/dev/shm"]["level"])
        assert "read-only" in found["/dev/shm"]["what"]

    def test_none(self) -> None:
        """A machine without /dev/shm."""
        status, found = doctor_in("mount -t tmpfs none /dev")
        assert (1, "fail") == (status, found["/dev/shm"]["level"])
        assert "there is none" == found["/dev/shm"]["what"]

    def test_file_limit(self) -> None:
        """ulimit -f, in blocks of 512 bytes."""
        status, found = doctor_in("true", "sh", "-c", 'ulimit -f 16384; exec "$@"', "sh")
        assert (1, "fail") == (status, found["limits"]["level"])
        assert found["limits"]["what"].startswith("a file may have 8.0 MiB")

    def test_doctor_tells_what_attach_does(self) -> None:
        """Where it says that processes cache alone, they do."""
        attach = (
            "import accelerator; accelerator.attach()\nassert accelerator.diagnostics()['degraded']"
        )
        status, found = doctor_in("mount -t tmpfs -o ro none /dev/shm", prelude=attach)
        assert (1, "fail") == (status, found["/dev/shm"]["level"])

    @needs_root
    def test_not_writable(self) -> None:
        """A folder that only root may write to."""
        # Once before, so that all is imported: another user may not read this environment.
        code = (
            "import contextlib, io, os\nfrom accelerator import cli\n"
            "with contextlib.redirect_stdout(io.StringIO()):\n    cli.main(['doctor', '--json'])\n"
            f"os.setgid({NOBODY}); os.setuid({NOBODY})\ncli.main(['doctor', '--json'])"
        )
        script = 'mount -t tmpfs -o mode=755 none /dev/shm && exec "$@"'
        command = ["unshare", "--mount", "sh", "-ec", script, "sh", sys.executable, "-c", code]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.stdout, done.stderr
        found = {it["check"]: it for it in json.loads(done.stdout)["findings"]}
        assert "may not make files" in found["/dev/shm"]["what"]


@needs_root
class TestUsers:
    def test_namesake(self, fork: Callable[..., Any], capsys: pytest.CaptureFixture[str]) -> None:
        """The same application as another user; root may look at both."""
        name = f"test-{uuid.uuid4().hex[:12]}"

        def other(meet: Callable[..., Any]) -> None:
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            memory = segment.attach(segment.Request(segment.own_file(name), 4 << 20, 1 << 18))
            meet()
            meet()  # when the others have looked
            segment.leave(memory)
            segment.unlink(name, NOBODY)

        child = fork(other)
        child.meet()
        try:
            cli.main(["doctor", "--json", "--name", name])
            found = {it["check"]: it for it in json.loads(capsys.readouterr().out)["findings"]}
            assert f"of the same name of uid {NOBODY}" in found["other users"]["what"]
            cli.main(["doctor", "--json", "--name", name, "--uid", str(NOBODY)])
            found = {it["check"]: it for it in json.loads(capsys.readouterr().out)["findings"]}
            assert "1 process, 0 areas" in found["segment"]["what"]
        finally:
            child.finish()


class TestBusy:
    def test_sound(self, fork: Callable[..., Any]) -> None:
        """
        Writers in the middle of their work are not taken for damage.

        One look in fifty finds what is being written and does not verify; a doctor who believed it
        would call that damage.
        """
        name = f"test-{uuid.uuid4().hex[:12]}"

        def write(meet: Callable[..., Any]) -> None:
            accelerator.attach(name=name, size="4MiB")
            cache = accelerator.LevelCache("users")
            meet()
            for number in itertools.count():
                cache.set(number * 7919 % 5000, "x" * (number * 31 % 3000))

        children = [fork(write) for _ in range(2)]
        for child in children:
            child.meet()
        try:
            seen = snapshot.take(segment.own_file(name))
            memory = segment.inspect(seen.file)
            single = 0
            for _ in range(20_000):
                assert [] == list(facts._broken(seen))
                single += bool(memory.check())
                if single >= 20:
                    break
        finally:
            for child in children:
                child.kill()
            segment.unlink(name, os.geteuid(), force=True)

    @needs_mounts
    def test_other_pid_namespace(self, capsys: pytest.CaptureFixture[str]) -> None:
        """A process in a PID namespace of its own is shown by both of its numbers."""
        name = f"test-{uuid.uuid4().hex[:12]}"
        code = (
            f"import accelerator as a, os, sys; a.attach(name={name!r}, size='4MiB')\n"
            "a.LevelCache('users').set(1, 1); print(os.getpid(), flush=True); sys.stdin.read()"
        )
        process = subprocess.Popen(
            ["unshare", "--map-root-user", "--pid", "--fork", sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stdout is not None
            assert "1\n" == process.stdout.readline()
            here = int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text())
            [worker] = snapshot.take(segment.own_file(name)).workers
            assert (1, here) == (worker.pid, worker.here)
            assert worker.usage is not None
            assert 0 == cli.main(["top", "--once", "--interval", "0.1", "--name", name])
            assert f"here {here}" in capsys.readouterr().out
        finally:
            process.communicate()
            segment.unlink(name, os.geteuid(), force=True)
