"""
Makes the pictures in docs/how-to/images again: the page and ``accelerator top`` of a real busy
host.

    python tools/pictures.py [FOLDER]

Four processes read, load, delete and fail now and then through one segment and a real Redis, which
is stopped in the end.  Takes about three minutes.  Needs an installed package, Chromium, a Redis
(see accelerator/demo/redis_server.py), and Pillow, which the group "bench" brings.
"""  # noqa: D205  one sentence

from __future__ import annotations

import contextlib
import fcntl
import html
import importlib.util
import io
import os
import pty
import random
import re
import select
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from accelerator import LevelCache, segment
from accelerator.demo.redis_server import RedisServer

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
NAME = "shop"
WORKERS = 4
BUSY = 75.0
"""Seconds until the curves have a shape."""
COLUMNS, LINES = 112, 34
COLOURS = 256
WORK = "work"

# --- the host -----------------------------------------------------------------------------------


def work() -> None:
    """Read as an application does: few keys often, many seldom, and sometimes a loader fails."""
    chance = random.Random(os.getpid())

    def slow(key: Any) -> str:
        if chance.random() < 0.01:
            raise RuntimeError("the database says no")
        time.sleep(chance.expovariate(1 / 0.006))
        return f"row {key} " * 20

    users = LevelCache("users", loader=slow, local_ttl=20, loader_timeout=2)
    prices = LevelCache("prices", loader=slow, stale_on_error=True, refresh_ahead=True)
    sessions = LevelCache("sessions", local_ttl=300)
    while True:
        for _ in range(20):
            with contextlib.suppress(Exception):
                prices.mget([int(chance.paretovariate(0.7)) % 4000 for _ in range(8)])
                for _ in range(6):
                    prices.get(7)
            with contextlib.suppress(Exception):
                users.get(int(chance.paretovariate(0.5)) % 9000)
            if sessions.get(key := chance.randrange(6000)) is None or chance.random() < 0.02:
                sessions.set(key, "s" * chance.randrange(400, 1600))
        if chance.random() < 0.05:
            prices.delete(int(chance.paretovariate(0.7)) % 4000)
        time.sleep(0.012)


@contextlib.contextmanager
def started(environment: dict[str, str], *command: str, number: int = 1) -> Iterator[Any]:
    """Run processes for the time of a block."""
    running = [
        subprocess.Popen(
            [sys.executable, *command],
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        for _ in range(number)
    ]
    try:
        yield running
    finally:
        for process in running:
            process.kill()
            process.communicate()


@contextlib.contextmanager
def host(redis: str | None, *command: str, number: int = WORKERS) -> Iterator[None]:
    """Run the workers of a host; its segment is gone afterwards."""
    environment = {"ACCELERATOR_NAME": NAME, "ACCELERATOR_SIZE": "16MiB"}
    if redis is not None:
        environment |= {"ACCELERATOR_REDIS": redis, "ACCELERATOR_NAMESPACE": NAME}
    path = segment.own_file(NAME).path
    if path.exists():
        raise SystemExit(f"{path} is there already: accelerator unlink {NAME}")
    try:
        with started(environment, *command, number=number):
            end = time.monotonic() + 30
            while not path.exists():
                assert time.monotonic() < end, "no segment appears"
                time.sleep(0.05)
            time.sleep(1.0)
            yield
    finally:
        segment.unlink(NAME, os.geteuid(), force=True)


# --- pictures -----------------------------------------------------------------------------------


def browser() -> Any:
    """A Chromium, steered as in the tests."""
    spec = importlib.util.spec_from_file_location("browser", ROOT / "tests" / "web" / "browser.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["browser"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    program = module.find()
    if program is None:
        raise SystemExit("there is no Chromium: install it, or set CHROMIUM")
    return module.Browser(program)


def small(picture: bytes) -> bytes:
    """
    Write a PNG with a palette.

    Of its own colours, the most frequent first, and none that looks like one that is there already:
    a thin curve keeps its colour, which a quantizer that looks at areas mixes with another.
    """
    image = Image.open(io.BytesIO(picture)).convert("RGB")
    counted: list[tuple[int, Any]] = image.getcolors(image.width * image.height) or []
    chosen: list[tuple[int, int, int]] = []
    for apart in (24, 12, 6, 0):
        for _, colour in sorted(counted, reverse=True):
            if len(chosen) == COLOURS:
                break
            if all(_apart(colour, each) > apart for each in chosen):
                chosen.append(colour)
    # Mapped here: Pillow takes the nearest colour of a coarse grid, which tints white cards.
    places = {
        colour: min(range(len(chosen)), key=lambda n: _apart(colour, chosen[n]))
        for _, colour in counted
    }
    parts = image.tobytes()
    colours = zip(parts[0::3], parts[1::3], parts[2::3], strict=True)
    pixels = bytes(map(places.__getitem__, colours))
    reduced = Image.frombytes("P", image.size, pixels)
    reduced.putpalette([part for colour in chosen for part in colour])
    written = io.BytesIO()
    reduced.save(written, "PNG", optimize=True, compress_level=9)
    return written.getvalue()


LEAVE_OUT = """
let isOver = false;
for (const panel of document.querySelectorAll(".panel")) {
  if (isOver) panel.remove();
  isOver ||= panel.contains(document.getElementById("%s"));
}
document.querySelector("footer").remove();
"""


def _apart(one: tuple[int, ...], other: tuple[int, ...]) -> int:
    return sum(abs(a - b) for a, b in zip(one, other, strict=True))


def page(
    running: Any,
    folder: Path,
    name: str,
    width: int,
    *,
    seconds: float,
    until: str = "true",
    last: str = "",
) -> None:
    """
    Look at the page for a while, and keep the picture.

    Args:
        running: The browser.
        folder: Where to keep it.
        name: Of the picture.
        width: Of the window.
        seconds: So long, for the curves.
        until: And until this is so, in the page's script.
        last: Id of the title of the last panel that is shown; all of them without.
    """
    with (
        started({}, "-m", "accelerator", "web", "--name", NAME, "--port", "0") as [served],
        running.tab(width=width) as tab,
    ):
        tab.open(served.stdout.readline().split()[-1])
        time.sleep(seconds)
        tab.until(until)
        tab.looks(1)
        if last:
            tab.run(LEAVE_OUT % last)
        (folder / f"{name}.png").write_bytes(small(tab.picture()))


# --- the terminal -------------------------------------------------------------------------------


def frame() -> str:
    """Run ``accelerator top`` on a terminal of its own; what it has written last."""
    main, other = pty.openpty()
    fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    command = [sys.executable, "-m", "accelerator", "top", "--name", NAME, "--interval", "3"]
    environment = {**os.environ, "TERM": "xterm-256color"}
    process = subprocess.Popen(command, stdin=other, stdout=other, env=environment)
    written, end = b"", time.monotonic() + 11
    try:
        while time.monotonic() < end:
            if select.select([main], [], [], 0.2)[0]:
                written += os.read(main, 1 << 16)
    finally:
        os.write(main, b"q")
        process.wait(20)
        os.close(main)
        os.close(other)
    frames = re.findall(r"\x1b\[H(.*?)\x1b\[J", written.decode(), re.DOTALL)
    return str(frames[-1])


STYLES = {"1": "title", "7": "head", "31;1": "bad", "2": "dim", "0": ""}
TERMINAL = """<!doctype html><meta charset="utf-8"><style>
body {{ margin: 0; background: #10161d; }}
pre {{
  margin: 0; padding: 14px 18px; color: #d7dee6;
  font: 14px/1.35 "DejaVu Sans Mono", monospace;
}}
.title {{ font-weight: 700; color: #fff; }} .head {{ background: #d7dee6; color: #10161d; }}
.bad {{ color: #ff8f86; font-weight: 700; }} .dim {{ color: #8b98a5; }}
</style><pre>{text}</pre>"""


def as_html(text: str) -> str:
    """Write what a terminal was told as a page that looks like it."""
    found, is_open = "", False
    for part in re.split(r"(\x1b\[[\d;]*[A-Za-z])", text.replace("\r\n", "\n")):
        if match := re.fullmatch(r"\x1b\[([\d;]*)m", part):
            found += "</span>" * is_open
            style = STYLES[match[1]]
            is_open = bool(style)
            found += f'<span class="{style}">' * is_open
        elif not part.startswith("\x1b"):
            found += html.escape(part)
    return TERMINAL.format(text=found.rstrip() + "</span>" * is_open)


def top(running: Any, folder: Path) -> None:
    """Keep a picture of the terminal."""
    shown = folder / "top.html"
    shown.write_text(as_html(frame()), "utf-8")
    try:
        with running.tab(width=990, height=200) as tab:
            tab.open(shown.as_uri())
            (folder / "top.png").write_bytes(small(tab.picture()))
    finally:
        shown.unlink()


# --- all of it ----------------------------------------------------------------------------------


def main() -> None:
    """Make them all."""
    default = ROOT / "docs" / "how-to" / "images"
    folder = Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else default
    running = browser()
    try:
        idle = "import accelerator, time; accelerator.attach(); time.sleep(600)"
        with host(None, "-c", idle, number=1):
            page(running, folder, "page-empty", 390, seconds=5)
        with RedisServer() as server, host(server.tcp_url, __file__, WORK):
            page(running, folder, "page-busy", 1280, seconds=BUSY)
            top(running, folder)
            server.stop()
            try:
                setting = ("set", "--name", NAME, "--for", "30m", "--yes", "allow_stale=yes")
                subprocess.run([sys.executable, "-m", "accelerator", *setting], check=True)
                warned = "document.getElementById('warnings').innerText.includes('Out of step')"
                page(
                    running,
                    folder,
                    "page-redis-down",
                    1280,
                    seconds=20,
                    until=warned,
                    last="events-title",
                )
            finally:
                server.resume()
    finally:
        running.close()
    for path in sorted(folder.glob("*.png")):
        print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    if sys.argv[1:] == [WORK]:
        work()
    else:
        main()
