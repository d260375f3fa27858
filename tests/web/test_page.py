"""The page in a real Chromium: what people see, in each state, width and colour scheme."""

import os
import re
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from accelerator import LevelCache, overrides, runtime, segment, testing
from accelerator.demo.redis_server import NoRedis, RedisServer

pytestmark = [
    pytest.mark.watchdog(300),  # a browser and its pictures, on two busy cores
    pytest.mark.slow,
]
Serve = Callable[..., Any]

VIEWS = [
    pytest.param(width, scheme, id=f"{width}-{scheme}")
    for width in (1280, 390)
    for scheme in ("light", "dark")
]

# Every text that is shown, with its contrast to what lies behind it, as WCAG 2 computes it.
CONTRAST = """
(() => {
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const linear = (n) => (n /= 255) <= 0.04045 ? n / 12.92 : ((n + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  const behind = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const color = parse(getComputedStyle(at).backgroundColor);
      if (color.length < 4 || color[3] === 1) return color;
    }
    return [255, 255, 255];
  };
  const found = [];
  for (const node of document.querySelectorAll("body *")) {
    const own = [...node.childNodes].some((it) => it.nodeType === 3 && it.data.trim());
    if (!own || !node.checkVisibility() || node.matches("script, style, noscript *")) continue;
    const style = getComputedStyle(node);
    const color = node instanceof SVGElement ? style.fill : style.color;
    const [a, b] = [light(parse(color)), light(behind(node))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) found.push(`${node.tagName}.${node.className} ${ratio.toFixed(2)}`);
  }
  return found;
})()
"""
WARNINGS = "[...document.querySelectorAll('#warnings strong')].map((it) => it.textContent).join()"
TABLE = """
((id) => [...document.querySelectorAll(`table[aria-labelledby="${id}"] tbody tr`)]
  .map((row) => [...row.children].map((cell) => cell.textContent)))
"""


HOSTILE = "<img src=x onerror=alert(1)>"


def memory_hash(cache: LevelCache[Any, Any], key: Any) -> str:
    """As ``accelerator hash`` writes it."""
    return f"{segment.key_hash(runtime.current().memory, cache._config.area, key):016x}"


def sound(tab: Any, url: str, width: int) -> None:
    """Nothing is amiss with the page, whatever it shows."""
    assert [] == tab.events("Runtime.exceptionThrown")
    assert [] == [each["entry"]["text"] for each in tab.events("Log.entryAdded")]
    asked = {each["request"]["url"] for each in tab.events("Network.requestWillBeSent")}
    assert {url, f"{url}diagnostics"} == {each for each in asked if not each.startswith("data:")}
    assert width >= tab.run("document.documentElement.scrollWidth"), "it is wider than the window"
    assert [] == tab.run(CONTRAST)


def keep(tab: Any, name: str) -> None:
    """Store a picture where somebody wants to look at them."""
    picture = tab.picture()
    assert picture.startswith(b"\x89PNG")
    folder = os.environ.get("PAGE_PICTURES")
    if folder:
        Path(folder, f"{name}.png").write_bytes(picture)


@pytest.fixture
def shared() -> Iterator[testing.Isolated]:
    with testing.isolated(shared=True) as own:
        yield own


class TestStates:
    @pytest.mark.parametrize(("width", "scheme"), VIEWS)
    def test_empty(
        self, browser: Any, serve: Serve, shared: testing.Isolated, width: int, scheme: str
    ) -> None:
        """Nothing has happened yet, and the page says so instead of showing nothing."""
        _, url = serve(shared.name)
        with browser.tab(width=width, scheme=scheme) as tab:
            tab.open(url)
            tab.looks(2)
            assert "Live" == tab.run("document.getElementById('state-text').textContent")
            shown = tab.run("document.body.innerText")
            assert "No area yet" in shown
            assert "no reads yet" in shown
            assert "Nothing is being loaded" in shown
            assert "Outbox" not in shown  # there is no Redis
            assert "No key stands out" in shown
            assert "No process has told its configuration" in shown
            assert "Overrides in force" not in shown
            assert tab.run("document.title") == f"{shared.name} \u2013 accelerator"
            sound(tab, url, width)
            keep(tab, f"empty-{width}-{scheme}")

    @pytest.mark.parametrize(("width", "scheme"), VIEWS)
    def test_busy(
        self, browser: Any, serve: Serve, shared: testing.Isolated, width: int, scheme: str
    ) -> None:
        """Rates, ratios and latencies of what happens between two looks."""
        users = LevelCache("users", loader=lambda key: f"user {key}")
        hostile = LevelCache(HOSTILE)
        LevelCache("a-name-of-an-area-that-is-" + "very-" * 12 + "long").get(1)
        users.mget(range(50))
        hostile.set(1, 1)
        _, url = serve(shared.name)
        with browser.tab(width=width, scheme=scheme) as tab:
            tab.open(url)
            tab.looks(1)
            for _ in range(3):
                users.mget(range(60))
                users.get(f"new {time.monotonic_ns()}")
                users._latency(0.02)
                tab.looks(1)
            rows = {row[0]: row for row in tab.run(f"{TABLE}('areas-title')")}
            assert {"users", HOSTILE} < set(rows)
            assert 0 == tab.run("document.images.length")
            # A look may fall between any two of the calls above, so the last rate may be of some.
            ratio = tab.until("document.querySelector('#tiles .big').textContent")
            assert re.fullmatch("\\d+\\.\\d%|\u2013", ratio)
            lines = tab.run("document.querySelectorAll('#charts path.line').length")
            assert lines >= 6
            shown = tab.run("document.querySelectorAll('#charts path.stack').length")
            assert shown >= 3
            [worker] = tab.run(f"{TABLE}('processes-title')")
            assert str(os.getpid()) == worker[0]
            sound(tab, url, width)
            keep(tab, f"busy-{width}-{scheme}")

    @pytest.mark.parametrize(("width", "scheme"), VIEWS)
    def test_operator(
        self, browser: Any, serve: Serve, shared: testing.Isolated, width: int, scheme: str
    ) -> None:
        """Hot keys, what has happened, what is overridden, and how areas are configured."""
        users = LevelCache("users", loader=lambda key: f"user {key}", loader_timeout=3)
        LevelCache(HOSTILE, stale_on_error=True).get(1)
        users.mget(range(40))
        memory = shared.memory
        memory.override("users", overrides.OPTIONS.index("loader_timeout"), 9000, 600.0)
        memory.override("", overrides.OPTIONS.index("allow_stale"), 1)
        for _ in range(12):
            memory.event(HOSTILE, "load", "error", "loader", 0.25, 0xABC)
        memory.event("", "listen", "elected", "none", 0.0)
        _, url = serve(shared.name)
        for number in range(200_000):
            users.get(number % 40 if number % 4 else 7)
        assert 9.0 == users._config.loader_timeout
        assert 0 < memory.event_begin("users", "mload", 0, 7)
        with browser.tab(width=width, scheme=scheme) as tab:
            tab.open(url)
            tab.looks(1)
            said = tab.run(WARNINGS)
            assert "Overridden: loader_timeout=9s for area users, for 10 min." in said
            assert "Overridden: allow_stale=yes for all areas, until it is reset." in said
            assert "12 loads have failed in the last minute" in said
            pages = tab.run("document.getElementById('warnings').innerText")
            assert pages.count("docs/runbook.md#loader-timeout") >= 3
            host, own = tab.run(f"{TABLE}('overrides-title')")
            assert ["all areas", "allow_stale", "yes", "until it is reset"] == host
            assert ["users", "loader_timeout", "9s"] == own[:3]
            hottest = tab.run(f"{TABLE}('keys-title')")[0]
            assert "users" == hottest[0]
            assert memory_hash(users, 7) == hottest[1]
            assert re.fullmatch(r"\d\d\.\d%", hottest[3])
            self.see_events(tab)
            self.see_configuration(tab)
            assert 0 == tab.run("document.images.length")
            sound(tab, url, width)
            keep(tab, f"operator-{width}-{scheme}")

    def see_events(self, tab: Any) -> None:
        """By kind and one by one; without a mouse only those that failed."""
        kinds = {(row[0], row[1], row[2]): row[3] for row in tab.run(f"{TABLE}('kinds-title')")}
        assert "12" == kinds[HOSTILE, "load", "error: loader"]
        assert "7" == kinds["users", "mload", "running"]
        assert ("the host", "listen", "elected") in kinds
        newest = tab.run(f"{TABLE}('events-title')")[0]
        assert ["users", "mload", "running", "\u2013", "7", "\u2013"] == newest[1:7]
        button = "document.querySelector('button.small')"
        tab.run(f"{button}.focus()")
        tab.key("Enter")
        assert "true" == tab.run(f"{button}.getAttribute('aria-pressed')")
        failed = tab.run(f"{TABLE}('events-title')")
        assert 12 == len(failed)
        assert {"0000000000000abc"} == {row[6] for row in failed}
        assert {"error: loader"} == {row[2] for row in tab.run(f"{TABLE}('kinds-title')")}
        tab.key("Enter")

    def see_configuration(self, tab: Any) -> None:
        """Of one area at a time, as it is in force, beside what its loads took."""
        facts = (
            "Object.fromEntries([...document.querySelectorAll('.groups dl div')]"
            ".map((it) => [it.children[0].textContent, it.children[1].textContent]))"
        )
        choice = "document.getElementById('config-area')"
        assert tab.run(f"{choice}.labels.length === 1")
        tab.run(f"{choice}.value = 'users'; {choice}.dispatchEvent(new Event('change'))")
        shown = tab.run(facts)
        assert "9s, overridden" == shown["loader_timeout"]
        assert "yes, overridden" == shown["allow_stale"]
        assert shown["its loads, all time"].startswith("p50 \u2264 ")
        tab.looks(1)
        assert "users" == tab.run(f"{choice}.value"), "a look takes the choice away"
        tab.run(f"{choice}.value = {HOSTILE!r}; {choice}.dispatchEvent(new Event('change'))")
        shown = tab.run(facts)
        assert ("yes", "yes, overridden") == (shown["stale_on_error"], shown["allow_stale"])

    @pytest.mark.parametrize(("width", "scheme"), VIEWS)
    def test_redis_down(
        self, browser: Any, serve: Serve, world: Any, width: int, scheme: str
    ) -> None:
        """A real Redis that is stopped: what it means is said in words, and told once."""
        name, server = world
        _, url = serve(name)
        with browser.tab(width=width, scheme=scheme) as tab:
            tab.open(url)
            tab.until(f"{TABLE}('areas-title').map((row) => row.at(-1)).join()", "yes".__eq__)
            assert "" == tab.run(WARNINGS)
            assert "Listener" in tab.run("document.body.innerText")
            assert "Redis latency" in tab.run("document.body.innerText")
            server.stop()
            try:
                tab.until(WARNINGS, lambda found: "Redis" in found and "not connected" in found)
                tab.until(WARNINGS, lambda found: "Out of step" in found)
                said = tab.until("document.getElementById('live').textContent")
                assert "warnings. Redis" in said
                assert tab.run("document.title").startswith("(")
                pages = tab.run("document.getElementById('warnings').innerText")
                assert "docs/runbook.md#redis-unreachable" in pages
                assert "docs/runbook.md#invalidation-broadcast-failure" in pages
                shown = "document.body.innerText"
                tab.until(shown, lambda found: "l2_" in found and "breaker" in found)
                sound(tab, url, width)
                keep(tab, f"down-{width}-{scheme}")
            finally:
                server.resume()

    @pytest.fixture
    def world(self, tmp_path: Path) -> Iterator[tuple[str, RedisServer]]:
        """A process that reads through a real Redis all the time."""
        name = f"test-{uuid.uuid4().hex[:12]}"
        code = (
            "import accelerator as a, time\n"
            "users = a.LevelCache('users', loader=lambda key: key)\n"
            "while True:\n"
            "    users.mget(range(40))\n"
            "    users.delete(1)\n"
            "    time.sleep(0.02)\n"
        )
        try:
            server = RedisServer()
        except NoRedis as problem:
            pytest.skip(str(problem))
        with server:
            settings = {"NAME": name, "SIZE": "8MiB", "REDIS": server.tcp_url}
            environment = {f"ACCELERATOR_{key}": value for key, value in settings.items()}
            process = subprocess.Popen(
                [sys.executable, "-c", code],
                env={**os.environ, **environment},
                cwd=tmp_path,
                stderr=subprocess.DEVNULL,
            )
            try:
                end = time.monotonic() + 30
                while not segment.own_file(name).path.exists():
                    assert time.monotonic() < end
                    time.sleep(0.02)
                yield name, server
            finally:
                process.kill()
                process.wait()
                segment.unlink(name, os.geteuid(), force=True)


class TestLife:
    def test_gone_and_back(self, browser: Any, serve: Serve, shared: testing.Isolated) -> None:
        """Without its server it says so, keeps the last figures, and goes on when it is back."""
        process, url = serve(shared.name)
        with browser.tab() as tab:
            tab.open(url)
            tab.looks(1)
            process.kill()
            process.wait()
            text = "document.getElementById('state-text').textContent"
            tab.until(text, lambda found: found.startswith("No answer, last at "))
            assert "No answer" == tab.run("document.getElementById('live').textContent")
            assert str(os.getpid()) == tab.run(f"{TABLE}('processes-title')")[0][0]
            serve(shared.name, int(url.rstrip("/").rpartition(":")[2]))
            tab.until(text, "Live".__eq__)

    def test_segment_gone(self, browser: Any, serve: Serve, shared: testing.Isolated) -> None:
        """The server is there and the segment is not."""
        _, url = serve(shared.name)
        with browser.tab() as tab:
            tab.open(url)
            tab.looks(1)
            segment.unlink(shared.name, os.geteuid(), force=True)
            text = "document.getElementById('state-text').textContent"
            tab.until(text, lambda found: found.startswith("There is nothing to see"))

    def test_hidden(self, browser: Any, serve: Serve, shared: testing.Isolated) -> None:
        """A tab that nobody looks at asks nothing, and asks at once when it is looked at."""
        _, url = serve(shared.name)
        with browser.tab() as tab:
            tab.open(url)
            tab.looks(1)
            hide = "Object.defineProperty(document, 'hidden', {value: %s, configurable: true});"
            tell = "document.dispatchEvent(new Event('visibilitychange'))"
            tab.run(hide % "true" + tell)
            tab.run("new Promise((done) => setTimeout(done, 500))")  # what was under way is over
            before = len(tab.events("Network.requestWillBeSent"))
            tab.run("new Promise((done) => setTimeout(done, 5000))")  # time for two looks
            assert before == len(tab.events("Network.requestWillBeSent"))
            looks = int(tab.run("document.documentElement.dataset.looks"))
            tab.run(hide % "false" + tell)
            tab.until("Number(document.documentElement.dataset.looks)", lambda n: n > looks)

    def test_another_segment(self, browser: Any, serve: Serve) -> None:
        """The application was restarted with another segment: nothing is compared with the old."""
        name = f"test-{uuid.uuid4().hex[:12]}"
        code = "import accelerator as a; c = a.LevelCache('users'); [c.get(n) for n in range(%d)]"

        def run(number: int) -> None:
            environment = {**os.environ, "ACCELERATOR_NAME": name, "ACCELERATOR_SIZE": "4MiB"}
            subprocess.run([sys.executable, "-c", code % number], check=True, env=environment)

        run(10)
        try:
            _, url = serve(name)
            with browser.tab() as tab:
                tab.open(url)
                tab.looks(2)
                reads = "document.querySelectorAll('#tiles .big')[1]"
                tab.run(
                    "window.shown = []; new MutationObserver(() =>"
                    f"window.shown.push({reads}.textContent)).observe({reads}, {{childList: true}})"
                )
                segment.unlink(name, os.geteuid(), force=True)
                run(1000)
                tab.until(f"{TABLE}('areas-title').length === 1")
                tab.looks(2)
                assert {"\u2013", "0 /s"} == set(tab.run("window.shown"))
        finally:
            segment.unlink(name, os.geteuid(), force=True)


class TestKeyboard:
    def test_order(self, browser: Any, serve: Serve, shared: testing.Isolated) -> None:
        """Everything can be reached and used with keys, and it is seen where one is."""
        LevelCache("users").get(1)
        _, url = serve(shared.name)
        with browser.tab() as tab:
            tab.open(url)
            tab.looks(2)
            here = "document.activeElement.id || document.activeElement.tagName.toLowerCase()"
            outline = "getComputedStyle(document.activeElement).outlineStyle"
            tab.key("Tab")
            assert "Skip to the figures" == tab.run("document.activeElement.textContent")
            assert "solid" == tab.run(outline)
            assert 0 <= tab.run("document.activeElement.getBoundingClientRect().top")
            tab.key("Tab")
            assert ("hold", "solid") == (tab.run(here), tab.run(outline))
            tab.key("Enter")
            button = "document.getElementById('hold')"
            assert "true" == tab.run(f"{button}.getAttribute('aria-pressed')")
            assert "Paused" == tab.run("document.getElementById('state-text').textContent")
            tab.key("Enter")
            tab.until("document.getElementById('state-text').textContent", "Live".__eq__)
            tab.key("Tab")
            assert ("svg", "solid") == (tab.run(here), tab.run(outline))
            tab.key("ArrowLeft")
            assert tab.run("document.getElementById('span').textContent").startswith("at ")
            assert 0 < tab.run("document.querySelectorAll('line.cursor').length")
            tab.key("Escape")
            assert "" == tab.run("document.getElementById('span').textContent")

    def test_names(self, browser: Any, serve: Serve, shared: testing.Isolated) -> None:
        """Regions, charts and tables have names; headers say what they are of."""
        LevelCache("users").get(1)
        _, url = serve(shared.name)
        with browser.tab() as tab:
            tab.open(url)
            tab.looks(2)
            nameless = "[...document.querySelectorAll('svg[role=img], section, table')]"
            named = "(it) => it.getAttribute('aria-label') || it.getAttribute('aria-labelledby')"
            assert 1 == tab.run(f"{nameless}.filter((it) => !({named})(it)).length")  # the grid
            labels = tab.run(
                "[...document.querySelectorAll('svg[role=img]')].map((it) => it.ariaLabel)"
            )
            assert 6 == len(labels)
            assert all(", now: " in label for label in labels)
            assert 0 == tab.run("document.querySelectorAll('thead th:not([scope=col])').length")
            assert 0 == tab.run("document.querySelectorAll('tbody th:not([scope=row])').length")
            tree = tab.call("Accessibility.getFullAXTree")["nodes"]
            roles = [node["role"]["value"] for node in tree if not node.get("ignored")]
            for role in ("banner", "main", "contentinfo", "status", "button", "columnheader"):
                assert role in roles

    def test_motion(self, browser: Any, serve: Serve, shared: testing.Isolated) -> None:
        """Nothing moves for those who do not want it."""
        _, url = serve(shared.name)
        with browser.tab() as tab:
            tab.open(url)
            tab.looks(1)
            dot = "getComputedStyle(document.querySelector('.dot')).animationName"
            assert "beat" == tab.run(dot)
            tab.prefer(**{"prefers-reduced-motion": "reduce"})
            assert "none" == tab.run(dot)


class TestPolicy:
    def test_enforced(self, browser: Any, serve: Serve, shared: testing.Isolated) -> None:
        """A script that got into the page is not run, and no other server is asked."""
        _, url = serve(shared.name)
        with browser.tab() as tab:
            tab.open(url)
            tab.looks(1)
            tab.run(
                "(() => { const it = document.createElement('script');"
                "it.textContent = 'window.owned = 1'; document.body.append(it); })()"
            )
            assert None is tab.run("window.owned")
            asked = tab.run("fetch('http://192.0.2.1/').then(() => 'sent', (error) => error.name)")
            assert "TypeError" == asked
            said = [each["entry"]["text"] for each in tab.events("Log.entryAdded")]
            said += [str(each) for each in tab.events("Runtime.consoleAPICalled")]
            assert len([text for text in said if "Content Security Policy" in text]) >= 2
