"""``accelerator web``: the page of a segment, served to a browser on this machine."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import sys
import threading
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from accelerator.admin.core import Core, everybody
from accelerator.admin.sources import OfFile
from accelerator.admin.wsgi import WsgiApp
from accelerator.cli import common
from accelerator.config import Settings
from accelerator.errors import ConfigError

if TYPE_CHECKING:
    import argparse

    from accelerator.cli.common import Commands

PORT: Final = 8787
_PATIENCE: Final = 10.0
"""Seconds that a browser may take to ask, once it has connected."""
_AT_ONCE: Final = 32
"""Requests that are answered at the same time; more wait."""


def add_to(commands: Commands) -> None:
    """Describe the command."""
    parser = commands.add_parser(
        "web",
        help="serve a page that shows a segment live, to browsers on this machine",
        description="Serve a page that shows a segment live, its figures as JSON (/diagnostics) "
        "and for Prometheus (/metrics).  Reads only.  Whoever may open the port may see it, so "
        "only this machine may unless --allow-remote is given.  Until Ctrl-C.",
    )
    common.add_name(parser)
    parser.add_argument("--host", default="127.0.0.1", help="address (default: 127.0.0.1)")
    parser.add_argument(
        "--port", type=_port, default=PORT, help=f"port (default: {PORT}; 0: a free one)"
    )
    parser.add_argument(
        "--allow-remote",
        action="store_true",
        help="allow a --host that others can reach; there is no password",
    )
    parser.add_argument("--docs", metavar="URL", help="a copy of the documentation, to link to")
    common.add_uid(parser)
    parser.set_defaults(run=run)


def _port(text: str) -> int:
    found = int(text)
    if not 0 <= found <= 65535:
        raise ValueError(text)
    return found


def run(arguments: argparse.Namespace) -> int:
    """Serve until somebody ends it."""
    common.need_segments()
    file = common.choose(arguments.name, arguments.uid)
    local = is_loopback(arguments.host)
    if not local and not arguments.allow_remote:
        raise ConfigError(
            f"--host {arguments.host} can be reached by others, and the page has no password: "
            "tunnel to it (ssh -L), mount it in the application with authorize=, or say "
            "--allow-remote"
        )
    bound = Settings.resolve({}, {}, os.environ).freshness_bound
    try:
        server = _server(arguments.host, arguments.port)
    except OSError as error:
        print(
            f"accelerator: {arguments.host}:{arguments.port} cannot be served: {error.strerror}",
            file=sys.stderr,
        )
        return 1
    with server:
        port = server.server_port
        # On loopback only these names lead here: a site whose own name was made to point to
        # 127.0.0.1 gets nothing.
        hosts = names_of(arguments.host, port) if local else None
        core = Core(OfFile(file, bound), docs=arguments.docs, hosts=hosts)
        server.set_app(WsgiApp(core, everybody))
        print(f"segment {file.name}: http://{_in_url(arguments.host)}:{port}/", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()
    return 0


def is_loopback(host: str) -> bool:
    """Tell whether only this machine can reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def names_of(host: str, port: int) -> frozenset[str]:
    """Give what a browser of this machine may call the server."""
    names = {_in_url(host), "localhost", "127.0.0.1", "[::1]"}
    plain = set(names) if port == 80 else set()
    return frozenset({f"{name}:{port}" for name in names} | plain)


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


class _Server(ThreadingMixIn, WSGIServer):
    """One thread a request, so that a browser that is slow holds up nobody; not too many."""

    daemon_threads = True

    def __init__(self, *arguments: Any) -> None:
        self._turns = threading.BoundedSemaphore(_AT_ONCE)
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._turns.acquire()
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._turns.release()

    def server_bind(self) -> None:
        """Bind, without asking a name server what this machine is called."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = bound = self.socket.getsockname()
        self.server_name, self.server_port = str(bound[0]), int(bound[1])
        self.setup_environ()


class _Server6(_Server):
    address_family = socket.AF_INET6


class _Handler(WSGIRequestHandler):
    timeout = _PATIENCE
    server_version = "accelerator"
    sys_version = ""

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  its name there
        """Say nothing: the page asks every two seconds."""


def _server(host: str, port: int) -> _Server:
    kind = _Server6 if ":" in host else _Server
    return kind((host, port), _Handler)
