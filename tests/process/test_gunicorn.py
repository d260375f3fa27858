"""Real Gunicorn: the hooks, worker classes, recycling, reloads, restarts."""

import contextlib
import http.client
import importlib.util
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from accelerator import local

pytestmark = [
    pytest.mark.skipif(not local.NATIVE, reason="workers share through the native part"),
    pytest.mark.skipif(importlib.util.find_spec("gunicorn") is None, reason="needs gunicorn"),
]

APP = """
import json, os, time, urllib.parse
import accelerator

cache = accelerator.LevelCache("area", local_ttl="1h")
AT_IMPORT

def note():
    with open("calls", "a") as calls:
        calls.write(f"{os.getpid()} {time.monotonic()!r}\\n")

def load(key):
    note()
    time.sleep(30 if key == "hangs" and os.path.getsize("calls") < 40 else 0.3)
    return key.upper()

async def load_async(key):
    import asyncio  # not where the user of a worker may not even read it
    note()
    await asyncio.sleep(0.3)
    return key.upper()

loads = accelerator.LevelCache("loads", loader=load, loader_timeout=20)
aloads = accelerator.LevelCache("loads", loader=load_async)

def app(environ, start_response):
    method = environ["PATH_INFO"].strip("/")
    arguments = json.loads(urllib.parse.unquote(environ["QUERY_STRING"] or "[]"))
    if method == "diagnostics":
        answer = accelerator.diagnostics()
    elif method == "load":
        answer = loads.get(*arguments)
    else:
        answer = getattr(cache, method)(*arguments)
    body = json.dumps([os.getpid(), answer]).encode()
    start_response("200 OK", [("Content-Length", str(len(body))), ("Connection", "close")])
    return [body]

async def asgi(scope, receive, send):
    if scope["type"] != "http":
        return
    arguments = json.loads(urllib.parse.unquote(scope["query_string"].decode()))
    body = json.dumps([os.getpid(), await aloads.aget(*arguments)]).encode()
    headers = [(b"content-length", b"%d" % len(body)), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
"""

HOOKS = """
import accelerator
post_worker_init = accelerator.attach
child_exit = accelerator.on_child_exit
"""


class Server:
    """One Gunicorn over the application above."""

    def __init__(
        self,
        folder: Path,
        config: str = HOOKS,
        *,
        at_import: str = "",
        app: str = "app:app",
        **environment: str,
    ) -> None:
        self.folder = folder
        (folder / "app.py").write_text(APP.replace("AT_IMPORT", at_import))
        (folder / "gunicorn.conf.py").write_text(config)
        self.socket = folder / "socket"
        self.log = folder / "log"
        self._environment = {**os.environ, "PYTHONWARNINGS": "default", **environment}
        self._arguments = ["--bind", f"unix:{self.socket}", "--graceful-timeout", "5", app]
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "gunicorn", "--no-control-socket", *self._arguments],
                cwd=self.folder,
                env=self._environment,
                stdout=log,
                stderr=log,
            )

    def call(self, method: str, *arguments: object) -> tuple[int, Any]:
        """Ask any worker; its pid and the answer."""
        deadline = time.monotonic() + 30
        while True:
            try:
                return self._ask(method, arguments)
            except (OSError, http.client.HTTPException):
                if time.monotonic() > deadline or self.process.poll() is not None:
                    pytest.fail(f"no answer:\n{self.log.read_text()}")
                time.sleep(0.02)

    def _ask(self, method: str, arguments: tuple[object, ...]) -> tuple[int, Any]:
        with contextlib.closing(socket.socket(socket.AF_UNIX)) as plain:
            plain.settimeout(10)
            plain.connect(str(self.socket))
            connection = http.client.HTTPConnection("localhost")
            connection.sock = plain
            query = urllib.parse.quote(json.dumps(arguments))
            connection.request("GET", f"/{method}?{query}")
            response = connection.getresponse()
            assert 200 == response.status
            pid, answer = json.loads(response.read())
            return pid, answer

    def from_all(self, workers: int, method: str, *arguments: object) -> dict[int, Any]:
        """Ask until as many workers have answered; by pid."""
        found: dict[int, Any] = {}
        deadline = time.monotonic() + 30
        while len(found) < workers:
            pid, answer = self.call(method, *arguments)
            found[pid] = answer
            assert time.monotonic() < deadline, f"only {len(found)} workers answered"
        return found

    def path(self) -> Path:
        return Path(self.call("diagnostics")[1]["path"])

    def living(self) -> set[int]:
        processes = self.call("diagnostics")[1]["processes"]
        return {each["pid"] for each in processes if each["alive"]}

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def restart(self) -> None:
        self.stop()
        self.process = self._start()


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []
    shm = Path("/dev/shm")
    before = set(shm.glob("accelerator.*"))

    def start(config: str = HOOKS, **options: Any) -> Server:
        servers.append(Server(tmp_path, config, **options))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()
    for path in set(shm.glob("accelerator.*")) - before:
        if tmp_path.name[:12] in path.name or "gunicorn-test" in path.name:
            path.unlink()


CLASSES = ["sync", "gthread"]
if importlib.util.find_spec("gevent") is not None:
    CLASSES.append("gevent")


class TestWorkers:
    @pytest.mark.parametrize("worker_class", CLASSES)
    def test_share(self, serve: Callable[..., Server], worker_class: str) -> None:
        """Three workers, one cache: set in one, read in all, deleted for all."""
        server = serve(f"{HOOKS}\nworkers = 3\nworker_class = {worker_class!r}\nthreads = 2")
        server.call("set", "key", {"a": 1})
        assert {"a": 1} == server.call("get", "key")[1]
        assert [{"a": 1}] * 3 == list(server.from_all(3, "get", "key").values())
        assert server.call("delete", "key")[1] is True
        assert [None] * 3 == list(server.from_all(3, "get", "key").values())
        assert 3 == len(server.living())

    def test_lines(self, serve: Callable[..., Server]) -> None:
        """The two lines alone: no warning, no error, and one segment that only we can reach."""
        server = serve(f"{HOOKS}\nworkers = 2")
        server.from_all(2, "incr", "count")
        log = server.log.read_text()
        assert not re.search(r"WARN|ERROR|Traceback", log), log
        assert 0o600 == server.path().stat().st_mode & 0o777

    def test_no_hook(self, serve: Callable[..., Server]) -> None:
        """Without any hook the first use attaches."""
        server = serve("workers = 2")
        server.call("set", "key", 1)
        assert [1, 1] == list(server.from_all(2, "get", "key").values())

    @pytest.mark.parametrize("preload", [False, True])
    def test_used_at_import(self, serve: Callable[..., Server], preload: bool) -> None:
        """A cache that is used while the application is imported, in the master or in workers."""
        server = serve(
            f"{HOOKS}\nworkers = 2\npreload_app = {preload}", at_import="cache.add('boot', 'x')"
        )
        assert ["x", "x"] == list(server.from_all(2, "get", "boot").values())
        server.call("set", "key", 1)
        assert [1, 1] == list(server.from_all(2, "get", "key").values())
        pids = set(server.from_all(2, "get", "key"))
        assert pids <= server.living()
        assert (server.process.pid in server.living()) is preload

    def test_bad_settings(self, serve: Callable[..., Server]) -> None:
        """Bad settings in the hook: an ERROR, and a server that serves."""
        config = (
            "import accelerator, logging\nlogging.basicConfig()\nworkers = 2\n"
            "def post_worker_init(worker):\n    accelerator.attach(worker, size='much')\n"
        )
        server = serve(config)
        server.call("set", "key", 1)
        _, shown = server.call("diagnostics")
        assert "process" == shown["local"]
        assert "size" in shown["degraded"]
        assert re.search(r"ERROR.*setting size", server.log.read_text())

    def test_squatted(self, serve: Callable[..., Server]) -> None:
        """A name that somebody else took: a server that serves, on memory of each worker."""
        from accelerator import segment

        path = segment.own_file("gunicorn-test-squat").path
        path.touch(0o644)
        server = serve(f"{HOOKS}\nworkers = 2", ACCELERATOR_NAME="gunicorn-test-squat")
        server.call("set", "key", 1)
        shown = server.call("diagnostics")[1]
        assert "0644" in shown["degraded"]

    @pytest.mark.parametrize("preload", [False, True], ids=["", "preload"])
    @pytest.mark.parametrize("worker_class", [*CLASSES[1:], "asgi"])
    def test_one_load(self, serve: Callable[..., Server], worker_class: str, preload: bool) -> None:
        """40 requests at once for what nobody has, 3 workers: the loader runs once on this host."""
        config = f"{HOOKS}\nworkers = 3\nworker_class = {worker_class!r}\npreload_app = {preload}\n"
        if worker_class == "gthread":
            config += "threads = 16\n"
        server = serve(config, app="app:asgi" if worker_class == "asgi" else "app:app")
        server.call("load", "first")  # it serves
        with ThreadPoolExecutor(40) as pool:
            answers = list(pool.map(lambda _: server.call("load", "key"), range(40)))
        assert {"KEY"} == {answer for _, answer in answers}
        assert len({pid for pid, _ in answers}) > 1
        assert 2 == len((server.folder / "calls").read_text().splitlines())

    def test_aborted_in_a_load(self, serve: Callable[..., Server]) -> None:
        """
        A worker that is aborted because its load takes longer than Gunicorn's timeout: the other
        worker, which waits for it, loads at once.
        """
        server = serve(f"{HOOKS}\nworkers = 2\ntimeout = 5")
        with ThreadPoolExecutor(2) as pool:
            first = pool.submit(server.call, "load", "hangs")
            eventually((server.folder / "calls").exists)
            time.sleep(3.5)  # else the one that waits would be aborted with it
            pid, answer = server.call("load", "hangs")
            assert "HANGS" == answer
            first.exception()  # it may be told that there was an error, or be disconnected
        calls = [line.split() for line in (server.folder / "calls").read_text().splitlines()]
        assert 2 == len(calls)
        assert str(pid) == calls[1][0]
        assert calls[0][0] != calls[1][0]
        assert float(calls[1][1]) - float(calls[0][1]) < 8


class TestLifeCycle:
    def test_max_requests(self, serve: Callable[..., Server]) -> None:
        """One worker that is replaced after every third request: its successors find its values."""
        server = serve(f"{HOOKS}\nworkers = 1\nmax_requests = 3")
        server.call("set", "key", "kept")
        pids = set()
        while len(pids) < 4:
            pid, found = server.call("get", "key")
            assert "kept" == found
            pids.add(pid)

    def test_max_requests_without_hook(self, serve: Callable[..., Server]) -> None:
        """The same without a hook: the master is recognised from the worker."""
        server = serve("workers = 1\nmax_requests = 3")
        server.call("set", "key", "kept")
        pids = set()
        while len(pids) < 3:
            pid, found = server.call("get", "key")
            assert "kept" == found
            pids.add(pid)

    def test_restart(self, serve: Callable[..., Server]) -> None:
        """A restarted server starts empty, in the same segment, with its counters."""
        server = serve(f"{HOOKS}\nworkers = 2")
        server.call("set", "key", "old")
        path = server.path()
        server.restart()
        assert server.call("get", "key")[1] is None
        assert path == server.path()
        assert 1 == server.call("metrics_snapshot")[1]["set"]

    def test_reload(self, serve: Callable[..., Server]) -> None:
        """HUP: new workers beside old ones, the cache stays."""
        server = serve(f"{HOOKS}\nworkers = 2")
        server.call("set", "key", "kept")
        before = set(server.from_all(2, "get", "key"))
        server.process.send_signal(signal.SIGHUP)

        def replaced() -> bool:
            pid, found = server.call("get", "key")
            assert "kept" == found
            return pid not in before and not (server.living() & before)

        eventually(replaced)

    def test_killed(self, serve: Callable[..., Server]) -> None:
        """SIGKILL: the cache stays, the hook frees the slot, the successor takes part."""
        server = serve(f"{HOOKS}\nworkers = 2")
        server.call("set", "key", "kept")
        before = set(server.from_all(2, "get", "key"))
        victim = before.pop()
        os.kill(victim, signal.SIGKILL)

        def replaced() -> bool:
            processes = server.call("diagnostics")[1]["processes"]
            pids = {each["pid"] for each in processes}
            return victim not in pids and len(pids) == 2

        eventually(replaced)
        assert ["kept", "kept"] == list(server.from_all(2, "get", "key").values())

    def test_two_masters(self, serve: Callable[..., Server]) -> None:
        """USR2: a second master; the cache survives the end of the first."""
        server = serve(f"{HOOKS}\nworkers = 1\npidfile = 'pid'")
        server.call("set", "key", "kept")
        server.process.send_signal(signal.SIGUSR2)
        second = server.folder / "pid.2"
        eventually(lambda: second.exists() and second.read_text().strip() != "")
        pid = int(second.read_text())
        try:
            assert {"kept"} == set(server.from_all(2, "get", "key").values())
            os.kill(server.process.pid, signal.SIGQUIT)
            server.process.wait(20)
            server.process.returncode = None  # the socket is the second one's now
            assert "kept" == server.call("get", "key")[1]
        finally:
            os.kill(pid, signal.SIGTERM)
            eventually(lambda: not Path(f"/proc/{pid}").exists() or "Z" in state_of(pid))
            server.process.returncode = 0


def state_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


class TestOtherUser:
    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can start workers of another user")
    def test_workers_drop_root(self, serve: Callable[..., Server], tmp_path: Path) -> None:
        """A master that is root, workers that are not: the segment is the workers'."""
        for folder in [tmp_path, *tmp_path.parents][:3]:
            folder.chmod(0o755)
        server = serve(f"{HOOKS}\nworkers = 2\nuser = 12345\ngroup = 12345")
        server.call("set", "key", 1)
        assert [1, 1] == list(server.from_all(2, "get", "key").values())
        path = server.path()
        assert 12345 == path.stat().st_uid
        victim = server.from_all(2, "get", "key").popitem()[0]
        os.kill(victim, signal.SIGKILL)
        eventually(
            lambda: (
                victim not in {each["pid"] for each in server.call("diagnostics")[1]["processes"]}
            )
        )
        server.stop()
        path.unlink()
