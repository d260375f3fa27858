"""The admin application: what it answers, and what it never does, whatever the server."""

import asyncio
import base64
import hashlib
import http.client
import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, ClassVar, get_args
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_of
from prometheus_client.parser import text_string_to_metric_families as families_of

from accelerator import LevelCache, NotAttached, admin, cli, local, overrides, segment, testing
from accelerator.admin import page, serve, warn
from accelerator.admin.core import Core, Request, Response, everybody
from accelerator.admin.sources import ThisProcess
from accelerator.errors import LoaderError, LoaderTimeout

NATIVE = local.NATIVE and segment.AVAILABLE
ROUTES = ("/", "/diagnostics", "/metrics", "/healthz", "/readyz")
SECRET = "the-secret-key"


@pytest.fixture
def own() -> Iterator[testing.Isolated]:
    with testing.isolated() as found:
        yield found


def ask(path: str = "/", method: str = "GET", core: Core | None = None, **more: Any) -> Response:
    request = Request(method, path, more.pop("query", ""), more.pop("headers", {}), **more)
    return (core or Core(ThisProcess())).respond(request, True)


def header(answer: Response, name: str) -> str:
    [found] = [value for key, value in answer.headers if key == name]
    return found


def document(query: str = "", core: Core | None = None) -> dict[str, Any]:
    return dict(json.loads(ask("/diagnostics", query=query, core=core).body))


@pytest.mark.usefixtures("own")
class TestRoutes:
    @pytest.mark.parametrize("path", ROUTES)
    def test_get_and_head(self, path: str) -> None:
        """Both are answered alike, HEAD without a body and with its length."""
        get, head = ask(path), ask(path, "HEAD")
        assert (200, 200, b"") == (get.status, head.status, head.body)
        assert str(len(get.body)) == header(get, "Content-Length")
        assert header(get, "Content-Type") == header(head, "Content-Type")
        assert int(header(head, "Content-Length")) > 0

    @pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "X"])
    def test_read_only(self, method: str) -> None:
        """Nothing else is answered, and nothing is changed."""
        LevelCache("users").set(1, 1)
        for path in (*ROUTES, ""):
            answer = ask(path, method)
            assert (405, "GET, HEAD") == (answer.status, header(answer, "Allow"))
        assert 1 == LevelCache("users").get(1)

    @pytest.mark.parametrize(
        "path", ["/nothing", "/metrics/", "//", "/../metrics", "/diagnostics/users", "/flush"]
    )
    def test_unknown(self, path: str) -> None:
        """There are no other pages."""
        assert 404 == ask(path).status

    @pytest.mark.parametrize("path", [*ROUTES, "/nothing", ""])
    def test_headers(self, path: str) -> None:
        """Every answer says that it is not to be kept, framed, guessed at or followed."""
        answer = ask(path, prefix="/x")
        assert "no-store" == header(answer, "Cache-Control")
        assert "nosniff" == header(answer, "X-Content-Type-Options")
        assert "no-referrer" == header(answer, "Referrer-Policy")
        assert "DENY" == header(answer, "X-Frame-Options")
        policy = dict(
            part.split(" ", 1) for part in header(answer, "Content-Security-Policy").split("; ")
        )
        assert ("'none'", "'none'", "'self'") == (
            policy["default-src"],
            policy["frame-ancestors"],
            policy["connect-src"],
        )
        assert "unsafe" not in str(policy)

    @pytest.mark.parametrize(
        ("prefix", "expected"), [("/ops/cache", "./cache/"), ("//evil.example", "./evil.example/")]
    )
    def test_slash(self, prefix: str, expected: str) -> None:
        """The prefix leads to the page, and never to another host."""
        answer = ask("", prefix=prefix)
        assert (308, expected) == (answer.status, header(answer, "Location"))

    def test_host(self) -> None:
        """A name that was made to lead here from elsewhere gets nothing."""
        core = Core(ThisProcess(), hosts=serve.names_of("127.0.0.1", 8787))
        for host, expected in (
            ("127.0.0.1:8787", 200),
            ("LocalHost:8787", 200),
            ("[::1]:8787", 200),
            ("evil.example:8787", 421),
            ("localhost", 421),
            ("localhost:80", 421),
            ("", 421),
        ):
            assert expected == ask("/metrics", core=core, headers={"host": host}).status
        assert 421 == ask("/metrics", core=core).status

    def test_metrics(self) -> None:
        """In both formats, as it was asked for."""
        LevelCache("users").get(1)
        plain, open_ = (
            ask("/metrics", headers={"accept": accept})
            for accept in ("*/*", "application/openmetrics-text;version=1.0.0,text/plain;q=0.5")
        )
        assert header(plain, "Content-Type").startswith("text/plain; version=0.0.4")
        assert header(open_, "Content-Type").startswith(
            "application/openmetrics-text; version=1.0.0"
        )
        counted = (
            len(list(families_of(plain.body.decode()))),
            len(list(openmetrics_of(open_.body.decode()))),
        )
        assert counted[0] == counted[1] > 40


@pytest.mark.usefixtures("own")
class TestDiagnostics:
    def test_no_keys(self) -> None:
        """No key, no value and no secret is in anything that is shown."""
        loading: list[bytes] = []

        def load(key: object) -> str:
            loading.extend(ask(path, query="points=1").body for path in ROUTES)
            return "the-value"

        LevelCache("users", loader=load).get(SECRET)
        shown = b"".join([*loading, *(ask(path, query="points=1").body for path in ROUTES)])
        assert SECRET.encode() not in shown
        assert b"the-value" not in shown
        [flight] = json.loads(loading[1])["flights"]
        assert ("users", os.getpid()) == (flight["area"], flight["pid"])
        assert re.fullmatch(r"[0-9a-f]{16}", flight["hash"])

    def test_numbers(self, own: testing.Isolated) -> None:
        """Areas, processes and memory, by the names that diagnostics() has."""
        cache = LevelCache("users")
        cache.mset({1: 1, 2: 2})
        cache.mget([1, 2, 3])
        own.memory.measure()
        shown = document()
        users = shown["areas"]["users"]
        assert (2, 1, 2, 0.6667) == tuple(
            users[name] for name in ("local_hit", "local_miss", "entries", "hit_ratio")
        )
        [process] = [each for each in shown["processes"] if each["alive"]]
        assert (os.getpid(), 2, 1) == tuple(
            process[name] for name in ("pid", "local_hit", "local_miss")
        )
        assert shown["segment"]["size"] == own.memory.size
        assert (None, "process") == (shown["remote"], shown["local"])

    def test_points(self) -> None:
        """The data points of OpenTelemetry, when they are asked for."""
        cache = LevelCache("users")
        cache.get(1)
        assert "points" not in document()
        points = document("points=1")["points"]
        expected = [(each["name"], each["attributes"]) for each in cache.otel_metric_points()]
        found = [(each["name"], each["attributes"]) for each in points]
        assert sorted(map(str, expected)) == sorted(map(str, found))

    def test_nothing_to_see(self) -> None:
        """What cannot be seen is 503, in words."""

        class Nothing:
            def look(self, *, processes: bool = True) -> Any:
                raise NotAttached("the segment is gone")

        for path in ROUTES[1:]:
            answer = ask(path, core=Core(Nothing()))
            assert 503 == answer.status
            assert {"error": "not_attached", "message": "the segment is gone"} == json.loads(
                answer.body
            )
        assert 200 == ask("/", core=Core(Nothing())).status

    def test_no_redis_is_asked(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """All of it comes from the segment: no connection is made."""
        import socket

        def connect(*_: object) -> None:
            raise AssertionError("it connects")

        LevelCache("users").get(1)
        monkeypatch.setattr(socket.socket, "connect", connect)
        monkeypatch.setattr(socket.socket, "connect_ex", connect)
        assert [200] * 5 == [ask(path).status for path in ROUTES]


class TestHealth:
    def test_ready(self, own: testing.Isolated) -> None:
        """A process with all that it asks for is ready."""
        assert "ok" == json.loads(ask("/healthz").body)["status"]
        answer = json.loads(ask("/readyz").body)
        assert ("ok", None, None) == tuple(
            answer[name] for name in ("status", "degraded", "remote")
        )

    @pytest.mark.skipif(not NATIVE, reason="segments need the native part")
    @pytest.mark.parametrize(("allowed", "status"), [(True, 200), (False, 503)])
    def test_without_redis(self, allowed: bool, status: int) -> None:
        """Redis is away: ready if that is allowed; alive in any case."""
        with testing.isolated(shared=True) as own:
            assert own.memory.lead(1.0)  # as a process with Redis does
            core = Core(ThisProcess(), ready_when_degraded=allowed)
            answer = ask("/readyz", core=core)
            assert status == answer.status
            assert False is json.loads(answer.body)["remote"]
            assert 200 == ask("/healthz", core=core).status
            own.memory.link_confirm(time.monotonic())
            assert "ok" == json.loads(ask("/readyz", core=core).body)["status"]


class TestAuthorize:
    @staticmethod
    def answer(authorize: Any) -> tuple[int, dict[str, str]]:
        status: list[Any] = []
        environ: dict[str, Any] = {
            "HTTP_AUTHORIZATION": "Bearer x",
            "SCRIPT_NAME": "/ops",
            "PATH_INFO": "/metrics",
        }
        setup_testing_defaults(environ)
        app = admin.wsgi_app(authorize=authorize)
        list(app(environ, lambda code, headers: status.extend((code, headers))))
        return int(status[0].split()[0]), dict(status[1])

    @pytest.mark.parametrize(
        ("said", "status"),
        [(True, 200), (False, 403), (None, 403), (1, 403), ('Basic realm="cache"', 401)],
    )
    @pytest.mark.usefixtures("own")
    def test_answers(self, said: Any, status: int) -> None:
        """True lets in, text is a challenge, everything else is no."""
        code, headers = self.answer(lambda request: said)
        assert (status, said if status == 401 else None) == (code, headers.get("WWW-Authenticate"))

    @pytest.mark.usefixtures("own")
    def test_what_it_is_given(self) -> None:
        """The request, with what the server has of it."""
        seen: list[Request] = []
        assert 403 == self.answer(lambda request: bool(seen.append(request)))[0]
        [request] = seen
        assert ("GET", "/metrics", "/ops", "Bearer x") == (
            request.method,
            request.path,
            request.prefix,
            request.headers["authorization"],
        )
        assert "wsgi.input" in request.raw

    def test_raises(self, caplog: pytest.LogCaptureFixture) -> None:
        """One that fails lets nobody in, and says why in the log."""
        assert 403 == self.answer(lambda request: 1 / 0)[0]
        assert "authorize failed" in caplog.text

    def test_required(self) -> None:
        """Nobody mounts it for everybody without having said so."""
        with pytest.raises(TypeError):
            admin.wsgi_app()  # type: ignore[call-arg]
        with pytest.raises(TypeError):
            admin.asgi_app()  # type: ignore[call-arg]


@pytest.mark.usefixtures("own")
class TestWsgi:
    @staticmethod
    def get(path: str, prefix: str = "", method: str = "GET") -> tuple[str, dict[str, str], bytes]:
        environ: dict[str, Any] = {
            "REQUEST_METHOD": method,
            "PATH_INFO": path,
            "SCRIPT_NAME": prefix,
            "QUERY_STRING": "",
        }
        setup_testing_defaults(environ)
        told: list[Any] = []

        def start(status: str, headers: list[tuple[str, str]], *_: Any) -> Callable[[bytes], None]:
            told.extend((status, dict(headers)))
            return lambda data: None

        answer = validator(admin.wsgi_app(authorize=everybody))(environ, start)
        body = b"".join(answer)
        answer.close()  # type: ignore[attr-defined]
        return told[0], told[1], body

    @pytest.mark.parametrize("prefix", ["", "/ops/cache"])
    @pytest.mark.parametrize("path", ROUTES)
    @pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
    def test_standard(self, path: str, prefix: str, method: str) -> None:
        """It keeps to PEP 3333, as wsgiref judges it, mounted or alone."""
        status, headers, body = self.get(path, prefix, method)
        assert ("405 Method Not Allowed" if method == "POST" else "200 OK") == status
        if method == "GET":
            assert str(len(body)) == headers["Content-Length"]

    def test_prefix(self) -> None:
        """The prefix alone leads to the page; without a prefix there is nothing to add."""
        status, headers, _ = self.get("", "/ops/cache")
        assert ("308 Permanent Redirect", "./cache/") == (status, headers["Location"])
        assert "200 OK" == self.get("")[0]


Scope = dict[str, Any]


@pytest.mark.usefixtures("own")
class TestAsgi:
    @staticmethod
    def call(app: Any, scope: Scope, *received: dict[str, Any]) -> list[dict[str, Any]]:
        sent: list[dict[str, Any]] = []
        queue = list(received)

        async def receive() -> dict[str, Any]:
            return queue.pop(0)

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        asyncio.run(app(scope, receive, send))
        return sent

    def get(
        self, path: str, root: str = "", method: str = "GET", authorize: Any = everybody
    ) -> tuple[int, dict[bytes, bytes], bytes]:
        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "root_path": root,
            "query_string": b"",
            "headers": [(b"host", b"x"), (b"cookie", b"a=b")],
        }
        start, body = self.call(admin.asgi_app(authorize=authorize), scope)
        assert ("http.response.start", "http.response.body") == (start["type"], body["type"])
        headers = dict(start["headers"])
        assert all(name == name.lower() for name in headers)
        return start["status"], headers, body["body"]

    @pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
    @pytest.mark.parametrize("path", ROUTES)
    @pytest.mark.parametrize(
        ("root", "shown"),
        [("", "{}"), ("/ops/cache", "/ops/cache{}"), ("/ops/cache", "{}")],
        ids=["alone", "path has the prefix", "path is behind it"],
    )
    def test_answers(self, path: str, root: str, shown: str, method: str) -> None:
        """Alone and mounted, whether the path has the prefix in it (Starlette now) or not."""
        status, headers, body = self.get(shown.format(path), root, method)
        assert (405 if method == "POST" else 200) == status
        if method == "GET":
            assert str(len(body)).encode() == headers[b"content-length"]

    def test_prefix(self) -> None:
        """The prefix alone leads to the page."""
        for path in ("/ops/cache", ""):
            status, headers, _ = self.get(path, "/ops/cache")
            assert (308, b"./cache/") == (status, headers[b"location"])
        assert 404 == self.get("/ops/cachemetrics", "/ops/cache")[0]

    def test_authorize(self) -> None:
        """It may be a coroutine; one that fails lets nobody in."""

        async def cookie(request: Request) -> bool:
            await asyncio.sleep(0)
            return request.headers["cookie"] == "a=b"

        async def fails(request: Request) -> bool:
            raise LookupError

        assert 200 == self.get("/metrics", authorize=cookie)[0]
        assert 403 == self.get("/metrics", authorize=fails)[0]
        assert 401 == self.get("/metrics", authorize=lambda request: "Bearer")[0]

    def test_loop_goes_on(self) -> None:
        """The segment is read in another thread than the loop's."""
        threads: list[int] = []

        class Source(ThisProcess):
            def look(self, *, processes: bool = True) -> Any:
                threads.append(threading.get_ident())
                return super().look(processes=processes)

        from accelerator.admin.asgi import AsgiApp

        scope = {"type": "http", "method": "GET", "path": "/metrics", "headers": []}
        self.call(AsgiApp(Core(Source()), everybody), scope)
        assert [threading.get_ident()] != threads
        assert 1 == len(threads)

    def test_lifespan(self) -> None:
        """A server that starts and stops its applications gets its answers."""
        received = ({"type": "lifespan.startup"}, {"type": "lifespan.shutdown"})
        sent = self.call(admin.asgi_app(authorize=everybody), {"type": "lifespan"}, *received)
        assert ["lifespan.startup.complete", "lifespan.shutdown.complete"] == [
            each["type"] for each in sent
        ]

    def test_websocket(self) -> None:
        """There are none."""
        sent = self.call(
            admin.asgi_app(authorize=everybody),
            {"type": "websocket"},
            {"type": "websocket.connect"},
        )
        assert ["websocket.close"] == [each["type"] for each in sent]


class Elements(HTMLParser):
    """All elements of a page, with their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


class TestPage:
    TEXT: ClassVar = page.HTML.decode()

    def test_nothing_from_elsewhere(self) -> None:
        """It asks no other server, for nothing: no address stands in it but relative ones."""
        for tag, attributes in Elements(self.TEXT).found:
            assert tag not in {"iframe", "object", "embed", "base", "form", "img", "audio", "video"}
            for name in ("src", "href", "action", "srcset", "data", "poster"):
                value = attributes.get(name)
                assert value is None or re.match(r"(data:image/svg\+xml,|#|[a-z]+$)", value), value
            assert not [name for name in attributes if name.startswith("on") or name == "style"]
        addresses = set(re.findall(r"(?:https?:)?//[\w.-]+\.\w+[^\s\"']*", self.TEXT))
        assert {"http://www.w3.org/2000/svg"} == addresses  # a name, which nobody asks
        assert not re.search(
            r"@import|url\(|@font-face|eval\(|innerHTML|document\.write", self.TEXT
        )

    def test_hashes(self) -> None:
        """The policy allows the one style and the one script, and no other."""
        for kind, tag in (("script-src", "script"), ("style-src", "style")):
            [text] = re.findall(rf"<{tag}>(.*?)</{tag}>", self.TEXT, re.DOTALL)
            digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
            assert f"{kind} 'sha256-{digest}'" in page.POLICY.split("; ")

    def test_landmarks(self) -> None:
        """Language, title, one main, one h1, a skip link, a place where changes are told."""
        found = Elements(self.TEXT).found
        tags = [tag for tag, _ in found]
        assert {"lang": "en"} == dict(found)["html"]
        for tag in ("header", "main", "footer", "h1", "title"):
            assert 1 == tags.count(tag)
        assert [{"aria-live": "polite", "role": "status"}] == [
            {name: it[name] for name in ("aria-live", "role")}
            for _, it in found
            if it.get("id") == "live"
        ]
        assert "#main" in [it.get("href") for _, it in found]


class TestWarnings:
    def shown(self, **more: Any) -> dict[str, Any]:
        listener = {"pid": 7, "connected_since": 3.0, "next_retry_in": None}
        remote = {
            "refused": False,
            "breaker": "closed",
            "open_for": 0.0,
            "ready": True,
            "settled": True,
            "confirmed_age": 0.1,
            "outbox_depth": 0,
            "outbox_oldest_age": None,
            "listener": {**listener, **more.pop("listener", {})},
            **more.pop("remote", {}),
        }
        config = {"loader_timeout": 1.0, "batch_timeout": 4.0}
        area = {"in_step": True, "owes_clear": False, "config": config}
        process = {"pid": 7, "alive": True, "state": "S", "listens": False}
        return {
            "time": 1000.0,
            "overrides": [],
            "overrides_seen": [1, 1],
            "hot_keys": [],
            "degraded": None,
            "segment": {"resets": 0, "stats_lost": 0, "process_slots": 64, "created": 0.0},
            "processes": [process],
            "flights": [],
            "areas": {"users": area},
            "remote": remote,
            **more,
        }

    def test_all_well(self) -> None:
        """Then nothing is said."""
        assert [] == list(warn.of(self.shown()))

    @pytest.mark.parametrize(
        ("more", "level", "said"),
        [
            ({"degraded": "no room"}, "bad", "caches alone"),
            (
                {"segment": {"resets": 2, "stats_lost": 0, "created": 0.0}},
                "bad",
                "2 rings did not verify",
            ),
            (
                {"segment": {"resets": 0, "stats_lost": 2, "created": 0.0}},
                "warn",
                "no room for their counters",
            ),
            ({"processes": []}, "warn", "No process uses"),
            (
                {"processes": [{"pid": 9, "alive": True, "state": "T", "listens": True}]},
                "bad",
                "Stopped: process 9.",
            ),
            ({"remote": {"refused": True}}, "bad", "takes no writes"),
            ({"remote": {"breaker": "open", "open_for": 3.0}}, "bad", "asked again in 3 s"),
            ({"remote": {"ready": False, "confirmed_age": 9.0}}, "bad", "took no write for 9 s"),
            (
                {"remote": {"ready": False, "confirmed_age": None}},
                "bad",
                "has not taken a write yet",
            ),
            ({"remote": {"breaker": "half-open"}}, "warn", "tried again"),
            ({"remote": {"settled": False}}, "warn", "just come back"),
            (
                {"remote": {"outbox_depth": 2, "outbox_oldest_age": 9.0}},
                "warn",
                "2 changes not told",
            ),
            ({"listener": {"pid": None}}, "bad", "Nobody of this host listens"),
            (
                {"listener": {"connected_since": None, "next_retry_in": 2.0}},
                "bad",
                "tries again in 2.0 s",
            ),
            ({"areas": {"Users": {"in_step": False, "owes_clear": False}}}, "warn", "area Users"),
            (
                {"areas": {"users": {"in_step": None, "owes_clear": True}}},
                "bad",
                "owed a clear of area users",
            ),
            (
                {"flights": [{"lock": False, "lease_left": -1.0, "alive": True, "area": "users"}]},
                "warn",
                "1 load should have ended, in area users",
            ),
        ],
    )
    def test_said(self, more: dict[str, Any], level: str, said: str) -> None:
        """Each trouble is said in words, once."""
        [found] = warn.of(self.shown(**more))
        assert (level, True) == (found.level, said in found.what)

    def test_worst_first(self) -> None:
        """What is bad stands before what is only to be watched."""
        found = warn.of(self.shown(processes=[], degraded="no room"))
        assert ["bad", "warn"] == [each.level for each in found]

    def test_links(self) -> None:
        """Each section that a warning can name is one of the runbook; a given copy is linked to."""
        sections = get_args(warn.Section)
        text = Path(warn.__file__).read_text("utf-8")
        assert all(text.count(f'"{section}"') > 1 for section in sections[:-1])
        [trouble] = re.findall(r"const TROUBLE = \{.*?\};", page.HTML.decode(), re.DOTALL)
        named = set(re.findall(r'"([a-z-]+)"\],$', trouble, re.MULTILINE))
        assert {"loader-timeout", "segment-full"} < named <= set(sections)
        runbook = Path(__file__).parents[2] / "docs" / "runbook.md"
        if not runbook.parent.is_dir():
            pytest.skip("only the package is here")
        heads = re.findall(r"^#+ (.*)$", runbook.read_text("utf-8"), re.MULTILINE)
        anchors = {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}
        assert set() == set(sections) - anchors
        [found] = warn.of(self.shown(degraded="no room"))
        shown = found.plain(None)
        assert ("docs/runbook.md#dev-shm-too-small", None) == (shown["page"], shown["url"])
        url = found.plain("https://x/docs/")["url"]
        assert "https://x/docs/runbook.md#dev-shm-too-small" == url

    # --- what an operator has set ---

    @staticmethod
    def override(option: str, value: Any, area: str = "", left: float | None = None) -> Any:
        text = overrides.written(option, value)
        return {"area": area, "option": option, "value": value, "text": text, "left": left}

    @pytest.mark.parametrize(
        ("option", "value"),
        [
            *(("mode", mode) for mode in ("local", "remote", "both", "off")),
            ("loader_timeout", 5.0),
            ("max_loads", 2),
            ("ttl", 60.0),
            *(("allow_stale", value) for value in (True, False)),
            *(("penetration_protect", value) for value in (True, False)),
            *(("on_desync", value) for value in overrides.ON_DESYNC),
            *(("breaker", value) for value in overrides.BREAKER),
        ],
    )
    def test_override(self, option: str, value: Any) -> None:
        """Every override that there can be is told, with what it means."""
        [found] = warn.of(self.shown(overrides=[self.override(option, value)]))
        text = overrides.written(option, value)
        said = f"Overridden: {option}={text} for all areas, until it is reset."
        assert ("warn", said) == (found.level, found.what)
        assert len(found.means) > 20

    def test_every_override(self) -> None:
        """The test above leaves out none."""
        assert set(overrides.OPTIONS) == set(warn._OVERRIDES)

    def test_overrides_alike(self) -> None:
        """The same for several areas is told once, by the longest; not all may act on it yet."""
        shown = self.shown(
            overrides=[
                self.override("mode", "local", "users", 30.0),
                self.override("mode", "local", "prices", 90.0),
                self.override("mode", "off", "pages", 600.0),
            ],
            overrides_seen=[3, 4],
        )
        local, off = warn.of(shown)
        assert "Overridden: mode=local for areas prices and users, for 90 s." == local.what
        assert "Overridden: mode=off for area pages, for 10 min." == off.what
        assert local.means.endswith("So far 3 of 4 processes act on it.")

    # --- what the last minutes tell ---

    @staticmethod
    def event(op: str = "load", result: str = "ok", kind: str = "none", **more: Any) -> Any:
        noted = {
            "number": 1,
            "time": 990.0,
            "pid": 7,
            "incarnation": 1,
            "alive": True,
            "area": "users",
            "op": op,
            "result": result,
            "error_kind": kind,
            "latency_ms": 1.0,
            "hash": 0,
            "count": 1,
            "running": False,
        }
        return {**noted, **more}

    def told(self, *events: Any, **more: Any) -> list[warn.Warning_]:
        return list(warn.of(self.shown(**more), events))

    @pytest.mark.parametrize(
        ("op", "took", "said"),
        [
            ("load", 480.0, None),
            ("load", 520.0, "Loads of area users come near loader_timeout: p99 is 520 ms of 1 s."),
            ("mload", 1900.0, None),
            ("mload", 2500.0, "Batches of loads of area users come near batch_timeout"),
            ("del", 5000.0, None),
        ],
    )
    def test_slow_loads(self, op: str, took: float, said: str | None) -> None:
        """Loads that take half of what they may, by what limits them."""
        found = self.told(*[self.event(op, latency_ms=took)] * 20)
        assert [said is not None] * len(found) == [str(said) in it.what for it in found]
        assert (said is not None) == bool(found)
        assert [] == self.told(*[self.event(op, latency_ms=took)] * 19)
        assert [] == self.told(*[self.event(op, latency_ms=took, time=939.0)] * 20)

    def test_few_slow_loads(self) -> None:
        """One in a hundred may take its time; two are what p99 is there for."""
        slow, quick = self.event(latency_ms=900.0), self.event()
        assert [] == self.told(slow, *[quick] * 99)
        assert 1 == len(self.told(slow, slow, *[quick] * 98))

    def test_no_limit(self) -> None:
        """Without a time limit, or where none was told, there is nothing to come near to."""
        for config in (None, {"loader_timeout": None, "batch_timeout": None}):
            areas = {"users": {"in_step": True, "owes_clear": False, "config": config}}
            assert [] == self.told(*[self.event(latency_ms=1e6)] * 20, areas=areas)

    @pytest.mark.parametrize(
        ("op", "kind", "section", "said"),
        [
            ("load", "loader", "loader-timeout", "12 loads have failed in the last minute: load"),
            ("get", "backend", "redis-unreachable", "12 operations have done without Redis"),
            ("listen", "decode", "invalidation-broadcast-failure", "12 messages have not been"),
            ("set", "serialization", "wrong-data-suspected", "12 operations have failed"),
        ],
    )
    def test_failures(self, op: str, kind: str, section: str, said: str) -> None:
        """Many failures within a minute, by what they are about; a few are for the table."""
        failed = self.event(op, "error", kind)
        [found] = self.told(*[failed] * 12)
        assert found.what.startswith(said)
        assert f"{op} users {kind} 12" in found.what
        assert section == found.section
        assert [] == self.told(*[failed] * 9)
        assert [] == self.told(*[{**failed, "time": 939.0}] * 12)

    def test_failures_counted(self) -> None:
        """An event may stand for several; a batch of keys that failed is one failure."""
        assert 1 == len(self.told(self.event("set", "error", "serialization", count=10)))
        assert [] == self.told(self.event("mload", "error", "loader", count=500))

    def test_failures_once(self) -> None:
        """A read that failed because its load did is no failure beside that load."""
        read = self.event("get", "error", LoaderError.kind, count=50)
        late = self.event("mget", "error", LoaderTimeout.kind, count=50)
        assert [] == self.told(read, late)
        call = self.event(
            "l2_get", "error", "timeout", count=50
        )  # the read has an event of its own
        assert [] == self.told(call)

    def test_failures_while_open(self) -> None:
        """A breaker that is open says that Redis is done without: once is enough."""
        failed = self.event("get", "error", "backend", count=50)
        assert 1 == len(self.told(failed))
        [found] = self.told(failed, remote={"breaker": "open", "open_for": 3.0})
        assert "Redis does not answer (asked again in 3 s)." == found.what

    @pytest.mark.parametrize(
        ("area", "mode", "warned"),
        [("users", "local", 0), ("", "off", 0), ("users", "remote", 1), ("other", "local", 1)],
    )
    def test_failures_by_order(self, area: str, mode: str, warned: int) -> None:
        """What an area does not tell Redis because somebody said so is no failure of Redis."""
        queued = self.event("del", "queued", "backend", count=50)
        override = self.override("mode", mode, area)
        found = [it.what for it in self.told(queued, overrides=[override])]
        assert warned == len([what for what in found if "without Redis" in what])

    def test_killed(self) -> None:
        """One load that was cut off is enough, as somebody killed a process."""
        running = self.event(result="", kind="", running=True, latency_ms=None)
        assert [] == self.told(running)
        [found] = self.told({**running, "alive": False})
        assert "1 operation of area users cut off by the death of a process." == found.what
        assert "worker-killed" == found.section

    @pytest.mark.parametrize(
        ("rate", "share", "warned"),
        [(2000.0, 0.5, True), (2000.0, 0.49, False), (900.0, 0.9, False), (2000.0, None, False)],
    )
    def test_hot_key(self, rate: float, share: float | None, warned: bool) -> None:
        """Half of the reads of a busy host are for one key."""
        key = {"area": "users", "hash": "00000000000000ff", "rate": rate, "share": share}
        found = list(warn.of(self.shown(hot_keys=[key])))
        assert warned == bool(found)
        said = "One key has 50% of all reads: 00000000000000ff of area users, 2,000/s."
        assert [said] * warned == [it.what for it in found]

    def test_hot_key_unsure(self) -> None:
        """One sample of a segment that was just made says nothing."""
        key = {"area": "users", "hash": "00000000000000ff", "rate": 2000.0, "share": 1.0}
        for age, number in ((2.0, 0), (9.0, 0), (11.0, 1)):
            segment = {"resets": 0, "stats_lost": 0, "created": 1000.0 - age}
            assert number == len(list(warn.of(self.shown(hot_keys=[key], segment=segment))))

    def test_configurations(self) -> None:
        """Two processes that say different things by turns; a deploy or an override is neither."""
        first = self.event("config", "changed", pid=1)
        second = self.event("config", "changed", pid=2)
        [found] = self.told(first, second)
        assert "Processes configure area users differently." == found.what
        assert [] == self.told(first, first)
        assert [] == self.told(first, {**second, "area": "prices"})
        assert [] == self.told(first, {**second, "time": 399.0})
        assert [] == self.told(first, second, self.event("override"))


@pytest.mark.usefixtures("own")
class TestParticulars:
    """What is shown of a segment beside its numbers."""

    def test_configuration(self) -> None:
        """The options of an area, and beside its time limit what its loads took."""
        cache = LevelCache("users", loader=lambda key: key, loader_timeout=3)
        cache.get(1)
        users = document()["areas"]["users"]
        assert (3.0, True, "local") == tuple(
            users["config"][name] for name in ("loader_timeout", "loader", "mode")
        )
        assert 0 < users["load_p50"] <= users["load_p99"]

    def test_override(self, own: testing.Isolated) -> None:
        """What is set is shown as it is typed, and warned of."""
        LevelCache("users").get(1)
        own.memory.override("users", overrides.OPTIONS.index("loader_timeout"), 5000, 60.0)
        shown = document()
        [found] = shown["overrides"]
        assert ("users", "loader_timeout", 5.0, "5s") == tuple(
            found[name] for name in ("area", "option", "value", "text")
        )
        assert 0 < found["left"] < 62  # the native part counts whole seconds
        assert "docs/runbook.md#loader-timeout" in [it["page"] for it in shown["warnings"]]

    def test_events(self, own: testing.Isolated) -> None:
        """The newest events, with hashes as accelerator hash writes them, and their sums."""
        LevelCache("users").get(1)
        for number in range(60):
            own.memory.event("users", "load", "error", "loader", 0.5, 0xFF, 2)
            own.memory.event("users", f"op{number % 3}", "ok", "none", 0.0)
        shown = document()
        assert 100 == len(shown["events"])
        plain, load = shown["events"][:2]
        assert (None, "00000000000000ff", 500.0) == (
            plain["hash"],
            load["hash"],
            load["latency_ms"],
        )
        sums = {each["op"]: each["count"] for each in shown["events_by"]}
        assert (120, 20) == (sums["load"], sums["op1"])

    def test_hot_keys(self) -> None:
        """Keys that are read much, by their hashes, the hottest first."""
        cache = LevelCache("users")
        cache.mset({SECRET: 1, "other": 2})
        for number in range(60_000):
            cache.get("other" if number % 4 == 0 else SECRET)
        first, *_ = document()["hot_keys"]
        assert ("users", True) == (first["area"], first["share"] > 0.5)
        assert re.fullmatch(r"[0-9a-f]{16}", first["hash"])
        assert first["rate"] > 0

    def test_differs(self) -> None:
        """An area that is configured anew is an event."""
        LevelCache("users", local_ttl=10).get(1)
        assert "config" not in {each["op"] for each in document()["events"]}
        LevelCache("users", local_ttl=20).get(1)
        assert "config" in {each["op"] for each in document()["events"]}


@pytest.mark.skipif(not NATIVE, reason="segments need the native part")
class TestCommand:
    """``accelerator web``, as a process of its own."""

    @pytest.fixture
    def shared(self) -> Iterator[testing.Isolated]:
        with testing.isolated(shared=True) as found:
            yield found

    @pytest.fixture
    def served(self, shared: testing.Isolated) -> Iterator[tuple[subprocess.Popen[str], str]]:
        LevelCache("users").get(1)
        command = [sys.executable, "-m", "accelerator", "web", "--port", "0", "--name", shared.name]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        yield process, process.stdout.readline().split("//")[-1].strip().rstrip("/")
        process.kill()
        process.communicate()

    @staticmethod
    def get(address: str, path: str, **headers: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(address, timeout=20)
        try:
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def test_serves(self, served: Any, shared: testing.Isolated) -> None:
        """All pages, of a segment that it is no process of, to whoever calls it by its name."""
        process, address = served
        assert [200] * 5 == [self.get(address, path)[0] for path in ROUTES]
        shown = json.loads(self.get(address, "/diagnostics")[1])
        assert [os.getpid()] == [each["pid"] for each in shown["processes"] if each["alive"]]
        assert 1 == shown["areas"]["users"]["local_miss"]
        assert (None, False) == (shown["pid"], shown["attached"])
        assert 421 == self.get(address, "/diagnostics", Host="evil.example")[0]
        process.send_signal(signal.SIGINT)
        assert 0 == process.wait(20)

    def test_gone(self, served: Any, shared: testing.Isolated) -> None:
        """The segment is unlinked: 503, and the server goes on."""
        _, address = served
        segment.unlink(shared.name, os.geteuid(), force=True)
        assert 503 == self.get(address, "/diagnostics")[0]
        assert 503 == self.get(address, "/healthz")[0]
        assert 200 == self.get(address, "/")[0]

    def test_slow_client(self, served: Any) -> None:
        """Somebody who connects and says nothing holds up nobody."""
        import socket

        _, address = served
        host, port = address.split(":")
        with socket.create_connection((host, int(port))):
            assert 200 == self.get(address, "/healthz")[0]

    @pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])
    def test_loopback_only(
        self, host: str, shared: testing.Isolated, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Other addresses are refused unless it is said."""
        assert 2 == cli.main(["web", "--host", host, "--name", shared.name, "--port", "0"])
        assert "--allow-remote" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("host", "local_only"),
        [
            ("127.0.0.1", True),
            ("127.9.9.9", True),
            ("::1", True),
            ("localhost", True),
            ("10.0.0.1", False),
            ("", False),
        ],
    )
    def test_is_loopback(self, host: str, local_only: bool) -> None:
        """What only this machine can reach."""
        assert local_only is serve.is_loopback(host)

    def test_taken(
        self, served: Any, shared: testing.Isolated, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """A port that is in use is said, not a traceback."""
        port = served[1].split(":")[1]
        assert 1 == cli.main(["web", "--port", port, "--name", shared.name])
        assert "cannot be served" in capsys.readouterr().err
        with pytest.raises(SystemExit), io.StringIO():
            cli.main(["web", "--port", "70000"])
