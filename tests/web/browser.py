"""
A real Chromium without a window, steered through its debugging pipe with the standard library.

One browser for all tests; a tab for each, which is told how large it is and what it prefers.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PATIENCE = 40.0
"""Seconds that only something broken needs, on two busy cores."""
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def find() -> str | None:
    """Program of the browser, if there is one on this machine."""
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
    """A running Chromium."""

    def __init__(self, program: str) -> None:
        self._folder = tempfile.mkdtemp(prefix="accelerator-chromium-")
        read, self._write = os.pipe()
        self._read, write = os.pipe()
        # It reads from descriptor 3 and writes to descriptor 4.
        script = f'exec 3<&{read} 4>&{write}; exec "$@"'
        self._process = subprocess.Popen(
            ["bash", "-c", script, "bash", program, *self._options()],
            pass_fds=(read, write),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(read)
        os.close(write)
        self._buffer = b""
        self._number = 0
        self.events: list[dict[str, Any]] = []

    def _options(self) -> list[str]:
        return [
            "--headless",
            "--remote-debugging-pipe",
            "--no-sandbox",  # tests run in containers, as root
            "--disable-gpu",
            "--disable-dev-shm-usage",  # that is where segments are
            "--disable-background-networking",
            "--disable-component-update",
            "--no-first-run",
            "--hide-scrollbars",
            "--force-device-scale-factor=1",
            f"--user-data-dir={self._folder}",
            "about:blank",
        ]

    def close(self) -> None:
        """End it."""
        with contextlib.suppress(OSError, AssertionError):
            self.call("Browser.close")
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._write)
        os.close(self._read)
        shutil.rmtree(self._folder, ignore_errors=True)

    def call(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        """Ask for something, and give what it answers."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if session is not None:
            message["sessionId"] = session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        end = time.monotonic() + PATIENCE
        while True:
            answer = self._next(end)
            if answer.get("id") == self._number:
                assert "error" not in answer, (method, answer.get("error"))
                return dict(answer["result"])
            self.events.append(answer)

    def _next(self, end: float) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            left = end - time.monotonic()
            assert left > 0, "the browser does not answer"
            if select.select([self._read], [], [], left)[0]:
                data = os.read(self._read, 1 << 16)
                assert data, "the browser is gone"
                self._buffer += data
        message, _, self._buffer = self._buffer.partition(b"\0")
        return dict(json.loads(message))

    @contextlib.contextmanager
    def tab(self, *, width: int = 1280, height: int = 900, scheme: str = "light") -> Iterator[Tab]:
        """Open a tab of its own, without anything that another has stored."""
        context = self.call("Target.createBrowserContext")["browserContextId"]
        target = self.call("Target.createTarget", url="about:blank", browserContextId=context)
        attached = self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        tab = Tab(self, attached["sessionId"])
        tab.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        tab.prefer(**{"prefers-color-scheme": scheme})
        for domain in ("Page", "Runtime", "Network", "Log"):
            tab.call(f"{domain}.enable")
        try:
            yield tab
        finally:
            self.call("Target.disposeBrowserContext", browserContextId=context)


class Tab:
    """One page."""

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser = browser
        self._session = session

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Ask something of this tab."""
        return self._browser.call(method, self._session, **params)

    def prefer(self, **features: str) -> None:
        """Say what the person prefers."""
        listed = [{"name": name, "value": value} for name, value in features.items()]
        self.call("Emulation.setEmulatedMedia", features=listed)

    def open(self, url: str) -> None:
        """Go to a page, and wait until it is there."""
        self.call("Page.navigate", url=url)
        # Between two documents there is none.
        there = "location.href !== 'about:blank' && document.readyState === 'complete'"
        self.until(f"!!document.documentElement && {there}")

    def run(self, script: str) -> Any:
        """Give the value of an expression."""
        answer = self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def until(self, script: str, holds: Callable[[Any], object] = bool) -> Any:
        """Wait until an expression has a value as wanted."""
        end = time.monotonic() + PATIENCE
        while True:
            found = self.run(script)
            if holds(found):
                return found
            assert time.monotonic() < end, f"{script} stays {found!r}"
            time.sleep(0.05)

    def looks(self, more: int) -> None:
        """Wait until it has asked so many times more."""
        number = int(self.run("document.documentElement.dataset.looks || 0"))
        script = "Number(document.documentElement.dataset.looks || 0)"
        self.until(script, lambda found: found >= number + more)

    def key(self, key: str) -> None:
        """Press a key."""
        codes = {"Tab": 9, "Enter": 13, "Escape": 27, "ArrowLeft": 37, "ArrowRight": 39}
        common = {"key": key, "code": key, "windowsVirtualKeyCode": codes[key]}
        text = {"text": "\r"} if key == "Enter" else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", **common, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", **common)

    def picture(self) -> bytes:
        """Give all of the page as a PNG."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        answer = self.call(
            "Page.captureScreenshot", format="png", clip=clip, captureBeyondViewport=True
        )
        return base64.b64decode(answer["data"])

    def events(self, method: str) -> list[dict[str, Any]]:
        """Give what has happened in this tab."""
        self.run("0")  # takes in what is on its way
        found = [
            each["params"]
            for each in self._browser.events
            if each.get("sessionId") == self._session and each.get("method") == method
        ]
        return [dict(each) for each in found]
