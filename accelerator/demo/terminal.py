"""What the demo shows while it runs: one live line on a terminal, now and then a line elsewhere."""

import os
import shutil
from typing import TextIO

_BAR = 24


class Terminal:
    """
    Writes lines that stay, and a progress line that is overwritten on a terminal.

    Where the output is no terminal, progress is a plain line every few seconds.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._live = stream.isatty() and os.environ.get("TERM") != "dumb"
        self._shown = False
        self._coloured = self._live and "NO_COLOR" not in os.environ

    @property
    def interval(self) -> float:
        """Seconds between two calls of :meth:`progress`."""
        return 0.25 if self._live else 2.0

    def line(self, text: str = "") -> None:
        """Write a line that stays."""
        self.clear()
        self._stream.write(text + "\n")
        self._stream.flush()

    def progress(self, name: str, share: float, text: str) -> None:
        """Show how far something is."""
        if self._live:
            done = round(share * _BAR)
            bar = "#" * done + "." * (_BAR - done)
            # Cut to the terminal's width: a line that wraps could not be overwritten.
            room = shutil.get_terminal_size().columns - 1
            self._write_live(f"  {name:<12} [{bar}] {text}"[:room])
            self._shown = True
        else:
            self.line(f"  {name:<12} {share:4.0%}  {text}")

    def clear(self) -> None:
        """Take the live line away."""
        if self._shown:
            self._write_live("")
            self._shown = False

    def good(self, text: str) -> str:
        """*text* in green where colours are shown."""
        return self._colour("32", text)

    def bad(self, text: str) -> str:
        """*text* in red where colours are shown."""
        return self._colour("31;1", text)

    def strong(self, text: str) -> str:
        """*text* in bold where colours are shown."""
        return self._colour("1", text)

    def _write_live(self, text: str) -> None:
        self._stream.write(f"\r\x1b[K{text}")
        self._stream.flush()

    def _colour(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._coloured else text
