"""
A terminal that is taken over for a while, and given back on every way out.

What must hold: whoever leaves the block of :class:`Screen`, by whatever exception, a signal among
them, leaves the terminal as it was: echo, cursor, the lines that were there before.  Signals that
would end the process become exceptions, so that they take that way, too; after it the process ends
by the signal, as it would have.  Only SIGKILL cannot be helped (``reset`` mends that).
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import shutil
import signal
import sys
from typing import TYPE_CHECKING, Final

try:
    import termios
    import tty
except ImportError:  # Windows: there are no segments, so nobody comes here
    pass

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import FrameType, TracebackType
    from typing import Any, Self

    from accelerator.cli.frame import Line

_ENTER: Final = "\x1b[?1049h\x1b[?25l\x1b[2J"  # the other screen, no cursor, empty
_LEAVE: Final = "\x1b[?25h\x1b[?1049l"
_HOME: Final = "\x1b[H"
_TO_END_OF_LINE: Final = "\x1b[K"
_TO_END: Final = "\x1b[J"
_SYNCHRONIZE: Final = "\x1b[?2026h", "\x1b[?2026l"  # ignored by terminals that do not know it

_KEY: Final = re.compile(r"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|O.|.)?|.", re.DOTALL)
"""What one key sends: a letter, or a sequence that begins with Escape."""

RESIZED: Final = "resized"
"""What key() answers when the terminal has another size."""


class Ended(BaseException):
    """A signal wants this process to end."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def usable() -> bool:
    """Whether there is a terminal to take over: one to write to, and one to hear keys from."""
    return sys.stdin.isatty() and sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


class Screen:
    """The terminal of this process, taken over for the time of a block."""

    def __init__(self) -> None:
        self._in = sys.stdin.fileno()
        self._out = sys.stdout.fileno()
        self._coloured = "NO_COLOR" not in os.environ
        self._wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._typed: list[str] = []
        self._before: list[Any] = []
        self._handlers: dict[int, Any] = {}

    @property
    def size(self) -> os.terminal_size:
        """Columns and lines."""
        try:
            return os.get_terminal_size(self._out)
        except OSError:
            return shutil.get_terminal_size()

    def __enter__(self) -> Self:
        self._before = termios.tcgetattr(self._in)
        self._handle(signal.SIGWINCH, self._wake_up)
        self._handle(signal.SIGTSTP, self._suspended)
        self._handle(signal.SIGCONT, self._continued)
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
            self._handle(number, _end)
        try:
            self._take()
        except BaseException:
            self._give_back()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._give_back()
        for fd in self._wake:
            os.close(fd)

    def show(self, lines: Sequence[Line]) -> None:
        """
        Show a frame instead of the one before.

        Raises:
            OSError: The terminal is gone.
        """
        begin, end = _SYNCHRONIZE
        body = "\r\n".join(self._styled(line) + _TO_END_OF_LINE for line in lines)
        self._write(f"{begin}{_HOME}{body}{_TO_END}{end}")

    def key(self, seconds: float) -> str | None:
        """
        Wait for a key: what it sends; RESIZED; "" at the end of input; None: there was none.

        Raises:
            OSError: The terminal is gone.
        """
        if self._typed:
            return self._typed.pop(0)
        ready, _, _ = select.select([self._in, self._wake[0]], [], [], max(0.0, seconds))
        if self._wake[0] in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(self._wake[0], 4096)
            return RESIZED
        if self._in in ready:
            typed = os.read(self._in, 1024).decode("utf-8", "replace")
            first, *self._typed = _KEY.findall(typed) or [""]
            return str(first)
        return None

    # --- details ----------------------------------------------------------------------------

    def _take(self) -> None:
        tty.setcbreak(self._in, termios.TCSADRAIN)  # keys come at once; Ctrl-C still is a signal
        self._write(_ENTER)

    def _restore(self) -> None:
        # Each for itself: a terminal that is gone must not keep the rest from being done.
        with contextlib.suppress(OSError):
            self._write(_LEAVE)
        with contextlib.suppress(termios.error):
            termios.tcsetattr(self._in, termios.TCSADRAIN, self._before)

    def _give_back(self) -> None:
        self._restore()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers.clear()

    def _handle(self, number: int, handler: Callable[[int, FrameType | None], None]) -> None:
        self._handlers[number] = signal.signal(number, handler)

    def _wake_up(self, _number: int, _frame: FrameType | None) -> None:
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake[1], b"!")

    def _suspended(self, _number: int, _frame: FrameType | None) -> None:
        """Ctrl-Z: the shell gets the terminal as it was."""
        self._restore()
        os.kill(os.getpid(), signal.SIGSTOP)  # SIGTSTP would come back here

    def _continued(self, number: int, frame: FrameType | None) -> None:
        """After Ctrl-Z and fg: the shell has had the terminal meanwhile."""
        self._take()
        self._wake_up(number, frame)

    def _styled(self, line: Line) -> str:
        style = line.style.value
        return f"\x1b[{style}m{line.text}\x1b[0m" if style and self._coloured else line.text

    def _write(self, text: str) -> None:
        # Not through sys.stdout: after a failed write its buffer would be tried again at exit.
        data = text.encode(sys.stdout.encoding, "replace")
        while data:
            data = data[os.write(self._out, data) :]


def _end(number: int, _frame: FrameType | None) -> None:
    raise Ended(number)


def end_by(number: int) -> None:
    """End this process by the signal that asked for it, so that whoever waits for it is told."""
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
