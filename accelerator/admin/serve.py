"""A server of the standard library for the page of one segment, for browsers on this machine."""

from __future__ import annotations

import ipaddress
import socket
import threading
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from accelerator.admin.core import Core, everybody
from accelerator.admin.sources import OfFile
from accelerator.admin.wsgi import WsgiApp

if TYPE_CHECKING:
    from accelerator import segment

_PATIENCE: Final = 10.0
"""Seconds that a browser may take to ask, once it has connected."""
_AT_ONCE: Final = 32
"""Requests that are answered at the same time; more wait."""


def server(
    file: segment.SegmentFile, host: str, port: int, *, bound: float, docs: str | None
) -> Server:
    """
    Listen; ``serve_forever()`` answers.

    Args:
        file: The segment.
        host: An address of this machine.
        port: 0: a free one.
        bound: The setting ``freshness_bound``, in seconds.
        docs: URL of the documentation.

    Raises:
        OSError: It cannot be listened there.
    """
    kind = _Server6 if ":" in host else Server
    found = kind((host, port), _Handler)
    # On loopback only these names lead here: a site whose own name was made to point to this
    # machine gets nothing.
    hosts = names_of(host, found.server_port) if is_loopback(host) else None
    found.set_app(WsgiApp(Core(OfFile(file, bound), docs=docs, hosts=hosts), everybody))
    found.url = f"http://{_in_url(host)}:{found.server_port}/"
    return found


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
    plain = names if port == 80 else set()
    return frozenset({f"{name}:{port}" for name in names} | plain)


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


class Server(ThreadingMixIn, WSGIServer):
    """One thread a request, so that a browser that is slow holds up nobody; not too many."""

    daemon_threads = True
    url = ""

    def __init__(self, *arguments: Any) -> None:
        self._turns = threading.BoundedSemaphore(_AT_ONCE)
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Begin to answer, when it is its turn."""
        self._turns.acquire()
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer, in the thread."""
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


class _Server6(Server):
    address_family = socket.AF_INET6


class _Handler(WSGIRequestHandler):
    timeout = _PATIENCE
    server_version = "accelerator"
    sys_version = ""

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  its name there
        """Say nothing: the page asks every two seconds."""
