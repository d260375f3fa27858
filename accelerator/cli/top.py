"""``accelerator top``: what happens in a segment, live."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from accelerator.cli import common, frame, screen, snapshot
from accelerator.errors import NotAttached

if TYPE_CHECKING:
    import argparse

    from accelerator import segment
    from accelerator.cli.common import Commands

_INTERVAL = 1.0
_PAUSE = 10
"""How much longer than a look takes it is at least to the next one."""
_QUITS = frozenset({"q", "Q", "\x03", ""})


def add_to(commands: Commands) -> None:
    """Describe the command."""
    parser = commands.add_parser(
        "top",
        help="watch a segment live: rates, hit ratios, latencies, by area and by process",
        description="Watch what happens in a segment: rates, hit ratios by tier, latencies of "
        "loads, memory, the link to Redis, by area and by process, and the loads that run.  Reads "
        "only.  q or Ctrl-C quits; r, h, l, p, e, m, n sort; space holds.",
    )
    common.add_name(parser)
    common.add_interval(parser, _INTERVAL)
    parser.add_argument("--once", action="store_true", help="print one frame, and no more")
    parser.add_argument(
        "--sort", choices=sorted(frame.SORTS), default="r", help="as the key does (default: r)"
    )
    common.add_uid(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Show it until somebody quits."""
    common.need_segments()
    file = common.choose(arguments.name, arguments.uid)
    if arguments.once or not screen.usable():
        if not arguments.once:
            print("accelerator: this is no terminal, so one frame is all", file=sys.stderr)
        return _once(file, arguments)
    try:
        with screen.Screen() as terminal:
            _Live(file, terminal, arguments).run()
    except KeyboardInterrupt:
        pass  # how one leaves it
    except OSError:
        return 1  # the terminal is gone: there is nobody to tell
    except screen.Ended as ended:
        screen.end_by(ended.number)
    return 0


def _once(file: segment.SegmentFile, arguments: argparse.Namespace) -> int:
    before = snapshot.take(file)
    time.sleep(arguments.interval)
    change = snapshot.Change(before, snapshot.take(file))
    view = frame.View(columns=common.columns(), sort=arguments.sort)
    for line in frame.render(change, view):
        print(line.text.rstrip())
    return 0


class _Live:
    """
    The loop.

    Args:
        file: The segment.
        terminal: Taken over.
        arguments: Of the command.
    """

    def __init__(
        self,
        file: segment.SegmentFile,
        terminal: screen.Screen,
        arguments: argparse.Namespace,
    ) -> None:
        self._file = file
        self._terminal = terminal
        self._interval: float = arguments.interval
        self._sort: str = arguments.sort
        self._held = False
        self._change = snapshot.Change(None, snapshot.take(file))
        self._notice = "looking ..."

    def run(self) -> None:
        """Show frames until somebody quits."""
        due = time.monotonic() + self._interval
        self._show()
        while True:
            pressed = self._terminal.key(due - time.monotonic())
            if pressed is None:
                began = time.monotonic()
                if not self._held:
                    self._look()
                # To look at a segment of gigabytes takes a second: do it a tenth of the time.
                due = began + max(self._interval, _PAUSE * (time.monotonic() - began))
                if self._held:
                    continue
            elif not self._understand(pressed):
                return
            self._show()

    def _look(self) -> None:
        try:
            after = snapshot.take(self._file)
        except NotAttached:
            # A restart of the application makes another one of that name.
            self._notice = "the segment is gone; waiting for another one"
            return
        self._change = snapshot.Change(self._change.after, after)
        self._notice = ""

    def _understand(self, pressed: str) -> bool:
        """Do what a key says; False: to quit."""
        if pressed in _QUITS:
            return False
        if pressed in frame.SORTS:
            self._sort = pressed
        elif pressed == " ":
            self._held = not self._held
            self._notice = "held; space goes on" if self._held else ""
        return True

    def _show(self) -> None:
        columns, lines = self._terminal.size
        view = frame.View(columns, lines, self._sort, keys=True, notice=self._notice)
        self._terminal.show(frame.render(self._change, view))
