"""
``accelerator top`` and ``stats --watch`` as they are used: on a real terminal, with real keys and
signals, and where there is no terminal at all.
"""

import contextlib
import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import pytest

from accelerator import LevelCache, cli, local, segment, testing

pytestmark = pytest.mark.skipif(
    not (local.NATIVE and segment.AVAILABLE), reason="segments need the native part"
)
PATIENCE = 30.0
LEAVES = "\x1b[?25h\x1b[?1049l"
"""The cursor, and the lines that were there before."""


@pytest.fixture
def shared() -> Iterator[testing.Isolated]:
    with testing.isolated(shared=True) as own:
        LevelCache("users").mset({n: n for n in range(10)})
        yield own


class Terminal:
    """A terminal with a command on it, which is its only process."""

    def __init__(self, *arguments: str, columns: int = 100, lines: int = 24) -> None:
        self._master, slave = pty.openpty()
        self._resize_fd(columns, lines)
        self.attributes = termios.tcgetattr(slave)
        self._slave = slave
        environment = {**os.environ, "TERM": "xterm"}
        environment.pop("COLUMNS", None)
        environment.pop("LINES", None)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "accelerator", *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=environment,
            preexec_fn=own_terminal,  # noqa: PLW1509  there are no other threads
        )
        self.output = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        for fd in (self._master, self._slave):
            with contextlib.suppress(OSError):
                os.close(fd)

    def press(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def resize(self, columns: int, lines: int) -> None:
        self._resize_fd(columns, lines)  # the kernel signals the foreground processes

    def hang_up(self) -> None:
        """Close the window."""
        os.close(self._slave)
        os.close(self._master)

    def read_until(self, condition: Callable[[str], object]) -> str:
        """Read what is shown until it is as wanted; give all of it."""
        deadline = time.monotonic() + PATIENCE
        while not condition(self.output):
            assert time.monotonic() < deadline, self.output[-3000:]
            ready, _, _ = select.select([self._master], [], [], 0.2)
            if ready:
                self.output += os.read(self._master, 65536).decode()
        return self.output

    def wait_for(self, text: str) -> str:
        """Wait until a frame after those that were read shows *text*."""
        seen = len(self.output)
        return self.read_until(lambda shown: text in plain(shown[seen:]))

    def end(self) -> int:
        """Wait for the end of the command; its status."""
        self.read_until(lambda _: self.process.poll() is not None)
        with contextlib.suppress(OSError):
            while select.select([self._master], [], [], 0)[0]:
                self.output += os.read(self._master, 65536).decode()
        return self.process.returncode

    def is_as_before(self) -> bool:
        """Echo, lines, and all the rest."""
        return self.attributes == termios.tcgetattr(self._slave)

    def echoes(self) -> bool:
        return bool(termios.tcgetattr(self._slave)[3] & termios.ECHO)

    def _resize_fd(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))


def own_terminal() -> None:
    """Make the terminal that is standard input that of a new session."""
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def plain(shown: str) -> str:
    return re.sub(r"\x1b\[[?0-9;]*[A-Za-z]", "", shown)


def last_frame(shown: str) -> list[str]:
    frames = shown.split("\x1b[?2026h")
    complete = [each for each in frames if "\x1b[?2026l" in each]
    text = plain(complete[-1].partition("\x1b[?2026l")[0])
    return [line.rstrip("\r") for line in text.split("\n")]


class TestTop:
    @pytest.fixture
    def top(self, shared: testing.Isolated) -> Iterator[Terminal]:
        with Terminal("top", "--name", shared.name, "--interval", "0.1") as terminal:
            terminal.wait_for("q quits")
            yield terminal

    def test_shows(self, top: Terminal, shared: testing.Isolated) -> None:
        """Areas, processes and rates, on all of the screen."""
        cache = LevelCache("users")
        deadline = time.monotonic() + PATIENCE
        while "90.9%" not in top.output:
            assert time.monotonic() < deadline
            cache.mget(range(11))
            seen = len(top.output)
            top.read_until(lambda shown, seen=seen: "\x1b[?2026l" in shown[seen:])
        frame = last_frame(top.output)
        assert 24 == len(frame)
        assert frame[0].startswith(f"accelerator top  {shared.name}")
        assert not top.echoes()

    def test_keys(self, top: Terminal) -> None:
        """Sorts, holds, goes on, quits; the terminal is as it was."""
        top.press("m")
        top.wait_for("by memory")
        top.press(" ")
        top.wait_for("held; space goes on")
        top.press(" ")
        top.wait_for("by memory")
        top.press("q")
        assert 0 == top.end()
        assert top.output.endswith(LEAVES)
        assert top.is_as_before()

    def test_unknown_key(self, top: Terminal) -> None:
        """Keys without a meaning, arrows among them, do nothing."""
        top.press("\x1b[A")
        top.press("n")
        top.wait_for("by name")
        assert None is top.process.poll()

    @pytest.mark.parametrize("ending", ["\x03", "\x04"])
    def test_control(self, top: Terminal, ending: str) -> None:
        """Ctrl-C is a way out; Ctrl-D is a key like others."""
        top.press(ending)
        if ending == "\x04":
            top.press("q")
        assert 0 == top.end()
        assert top.output.endswith(LEAVES)
        assert "Traceback" not in top.output
        assert top.is_as_before()

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
    def test_signals(self, top: Terminal, number: int) -> None:
        """A signal ends it, as it would have, behind a terminal that is given back."""
        top.process.send_signal(number)
        assert -number == top.end()
        assert top.output.endswith(LEAVES)
        assert top.is_as_before()

    def test_stopped_and_continued(self, top: Terminal) -> None:
        """After a stop, in which a shell may have used the terminal, it takes it again."""
        top.process.send_signal(signal.SIGSTOP)
        os.waitpid(top.process.pid, os.WUNTRACED)
        termios.tcsetattr(top._slave, termios.TCSANOW, top.attributes)
        top.process.send_signal(signal.SIGCONT)
        top.wait_for("q quits")
        top.press("n")
        top.wait_for("by name")
        assert not top.echoes()

    def test_suspended(self, top: Terminal) -> None:
        """Ctrl-Z gives the terminal back to the shell before it stops."""
        top.press("\x1a")
        os.waitpid(top.process.pid, os.WUNTRACED)
        top.read_until(lambda shown: shown.endswith(LEAVES))
        assert top.is_as_before()
        top.process.send_signal(signal.SIGCONT)
        top.wait_for("q quits")
        assert not top.echoes()

    def test_resizes(self, top: Terminal) -> None:
        """Another size of the window is filled at once."""
        top.resize(70, 12)
        top.read_until(lambda shown: 12 == len(last_frame(shown)))
        assert [] == [line for line in last_frame(top.output) if len(line) > 70]
        top.resize(120, 40)
        top.read_until(lambda shown: 40 == len(last_frame(shown)))

    def test_resizes_at_once(self, shared: testing.Isolated) -> None:
        """Long before the next look is due."""
        with Terminal("top", "--name", shared.name, "--interval", "3600") as top:
            top.wait_for("looking ...")
            top.resize(70, 12)
            top.read_until(lambda shown: 12 == len(last_frame(shown)))
            top.press("q")
            assert 0 == top.end()

    def test_window_closed(self, top: Terminal) -> None:
        """The end of the terminal is its end."""
        top.hang_up()
        assert top.process.wait(PATIENCE) in {1, -signal.SIGHUP}

    def test_exception(self, shared: testing.Isolated, tmp_path: Path) -> None:
        """Even a mistake of ours gives the terminal back, and is seen."""
        script = tmp_path / "broken.py"
        script.write_text(
            "from accelerator import cli\nfrom accelerator.cli import frame\n"
            "def broken(*_):\n    raise RuntimeError('a mistake')\n"
            f"frame.render = broken\ncli.main(['top', '--name', {shared.name!r}])\n"
        )
        with Terminal("--version") as terminal:
            terminal.end()
            process = subprocess.Popen(
                [sys.executable, str(script)],
                stdin=terminal._slave,
                stdout=terminal._slave,
                stderr=terminal._slave,
                env={**os.environ, "TERM": "xterm"},
            )
            terminal.process = process
            assert 1 == terminal.end()
            assert terminal.output.index(LEAVES) < terminal.output.index("a mistake")
            assert terminal.is_as_before()

    def test_segment_replaced(self, top: Terminal, shared: testing.Isolated) -> None:
        """A segment that goes is waited for; nothing of the old one counts for the next."""
        segment.unlink(shared.name, os.geteuid(), force=True)
        top.wait_for("the segment is gone")
        again = segment.attach(segment.Request(segment.own_file(shared.name), 4 << 20, 1 << 18))
        try:
            top.read_until(
                lambda shown: (
                    "gone" not in last_frame(shown)[-1]
                    and "(no area yet)" in "\n".join(last_frame(shown))
                )
            )
        finally:
            segment.leave(again)


class TestOnce:
    def test_prints(self, shared: testing.Isolated, capsys: pytest.CaptureFixture[str]) -> None:
        """One frame, without anything that is for terminals only."""
        assert 0 == cli.main(["top", "--once", "--name", shared.name, "--interval", "0.1"])
        shown = capsys.readouterr()
        assert "\x1b" not in shown.out
        assert "" == shown.err
        assert [f"accelerator top  {shared.name}  1 process"] == [
            line.rpartition("  ")[0] for line in shown.out.splitlines()[:1]
        ]
        assert any(line.startswith("users") for line in shown.out.splitlines())

    def test_no_terminal(self, shared: testing.Isolated) -> None:
        """Without a terminal one frame is all, and that is said."""
        done = subprocess.run(
            [sys.executable, "-m", "accelerator", "top", "--name", shared.name],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            text=True,
            check=True,
        )
        assert "accelerator: this is no terminal, so one frame is all\n" == done.stderr
        assert "\x1b" not in done.stdout
        assert "users" in done.stdout

    def test_dumb(self, shared: testing.Isolated, monkeypatch: pytest.MonkeyPatch) -> None:
        """Nor on a terminal that knows no escape sequences."""
        monkeypatch.setenv("TERM", "xterm")
        with Terminal("top", "--once", "--name", shared.name, "--interval", "0.1") as terminal:
            assert 0 == terminal.end()
            assert "\x1b" not in terminal.output

    @pytest.mark.parametrize("interval", ["0", "-1", "nan", "much", "1e9"])
    def test_wrong_interval(self, interval: str) -> None:
        """Wrong usage is status 2."""
        with pytest.raises(SystemExit) as raised:
            cli.main(["top", f"--interval={interval}"])
        assert 2 == raised.value.code

    def test_no_segment(self, capsys: pytest.CaptureFixture[str]) -> None:
        """There must be something to look at."""
        assert 1 == cli.main(["top", "--once", "--name", f"no-{uuid.uuid4().hex[:8]}"])
        assert "no segment called" in capsys.readouterr().err


class Watching:
    """``stats --watch``, whose lines can be read as they come."""

    def __init__(self, name: str, *more: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "accelerator", "stats", "--name", name, "--watch", "0.1", *more],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def interrupt(self) -> tuple[int, str]:
        self.process.send_signal(signal.SIGINT)
        _, error = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, error


class TestWatch:
    def test_lines(self, shared: testing.Isolated) -> None:
        """Titles, then a line for each look, with what has happened since the last."""
        cache = LevelCache("users")
        with Watching(shared.name) as watching:
            titles = watching.line().split()
            assert ["time", "reads/s", "hits"] == titles[:3]
            deadline = time.monotonic() + PATIENCE
            hits = "-"
            while hits == "-":
                assert time.monotonic() < deadline
                cache.mget(range(20))
                cells = watching.line().split()
                hits = cells[2]
            assert "50.0%" == hits
            assert ("10", "1") == (cells[-4] if "B" in cells[-2] else cells[-3], cells[-1])
            assert (0, "") == watching.interrupt()

    def test_json(self, shared: testing.Isolated) -> None:
        """For programs: everything, one line for each look."""
        with Watching(shared.name, "--json") as watching:
            first, second = json.loads(watching.line()), json.loads(watching.line())
            assert first["time"] < second["time"]
            assert shared.name == second["segment"]["name"]
            assert 10 == second["areas"]["users"]["set"]

    def test_segment_gone(self, shared: testing.Isolated) -> None:
        """It says so, and waits."""
        with Watching(shared.name) as watching:
            watching.line()
            segment.unlink(shared.name, os.geteuid(), force=True)
            lines: list[str] = []
            while not lines or "gone" not in lines[-1]:
                lines.append(watching.line())
                assert len(lines) < 100
            assert None is watching.process.poll()

    def test_closed_pipe(self, shared: testing.Isolated) -> None:
        """A reader that has seen enough ends it."""
        command = (
            f"{sys.executable} -m accelerator stats --watch 0.1 --name {shared.name} | head -n 2"
        )
        done = subprocess.run(
            command, shell=True, check=True, capture_output=True, text=True, timeout=PATIENCE
        )
        assert 2 == len(done.stdout.splitlines())
        assert "Traceback" not in done.stderr

    def test_default(self) -> None:
        """Without a number it is a second."""
        parsed: Any = cli.parser().parse_args(["stats", "--watch"])
        assert 1.0 == parsed.watch
        assert None is cli.parser().parse_args(["stats"]).watch
