"""
What the admin application answers, whatever the server: a request in, a status, headers and a body
out.

There is no route that changes anything, and none that takes input other than its path.
"""  # noqa: D205  one sentence

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from urllib.parse import quote

from accelerator.admin import page, view
from accelerator.errors import CacheError
from accelerator.observability import prometheus

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from accelerator.admin.sources import Source

LOG: Final = logging.getLogger("accelerator")

_JSON: Final = "application/json; charset=utf-8"
_PLAIN: Final = "text/plain; charset=utf-8"
_METHODS: Final = ("GET", "HEAD")
_SECURITY: Final = (
    ("Cache-Control", "no-store"),
    ("Content-Security-Policy", page.POLICY),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Referrer-Policy", "no-referrer"),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
)
"""Of every answer."""


@dataclass(frozen=True, slots=True)
class Request:
    """
    What is asked.

    Args:
        method: "GET", ...
        path: Behind the prefix; "" is the prefix without its slash.
        query: What stands behind the question mark.
        headers: By name in lower case.
        prefix: Under which the application is mounted.
        raw: The environ of WSGI, the scope of ASGI.
    """

    method: str
    path: str
    query: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    prefix: str = ""
    raw: Any = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Response:
    """What is answered; the body of HEAD is empty, and its length told all the same."""

    status: int
    headers: Sequence[tuple[str, str]]
    body: bytes


Authorize: TypeAlias = Callable[[Request], "bool | str"]
AsyncAuthorize: TypeAlias = Callable[[Request], "Awaitable[bool | str]"]


def everybody(request: Request) -> bool:  # noqa: ARG001  whoever asks
    """Let everybody in who can reach the URL."""
    return True


def refused(error: Exception) -> bool:
    """Log what an *authorize* raised, which lets nobody in."""
    LOG.error("admin: authorize failed, so nobody is let in", exc_info=error)
    return False


class Core:
    """
    The application.

    Args:
        source: Where to look.
        docs: URL of the documentation; None: warnings name its pages, and link to none.
        ready_when_degraded: Whether an application without Redis or segment is ready.
        hosts: What the Host of a request may be, in lower case; None: anything.  Keeps a page of
            another site, whose name was made to lead here, from reading what is shown.
    """

    def __init__(
        self,
        source: Source,
        *,
        docs: str | None = None,
        ready_when_degraded: bool = True,
        hosts: frozenset[str] | None = None,
    ) -> None:
        self._source = source
        self._docs = docs
        self._ready_when_degraded = ready_when_degraded
        self._hosts = hosts
        self._routes: Mapping[str, Callable[[Request], Response]] = {
            "/": self._page,
            "/diagnostics": self._diagnostics,
            "/metrics": self._metrics,
            "/healthz": self._health,
            "/readyz": self._ready,
        }

    def respond(self, request: Request, allowed: bool | str) -> Response:
        """
        Answer a request.

        Args:
            request: Of anybody.
            allowed: What *authorize* says of it.
        """
        answer = self._respond(request, allowed)
        headers = [*answer.headers, ("Content-Length", str(len(answer.body))), *_SECURITY]
        return Response(answer.status, headers, b"" if request.method == "HEAD" else answer.body)

    def _respond(self, request: Request, allowed: bool | str) -> Response:
        refusal = self._refusal(request, allowed)
        if refusal is not None:
            return refusal
        if request.path == "":
            # Relative, so that whatever stands before us cannot be sent to another host.
            last = quote(request.prefix.rpartition("/")[2])
            return _plain(308, "the page is one slash further", ("Location", f"./{last}/"))
        try:
            return self._routes[request.path](request)
        except CacheError as error:
            return _json(503, {"error": error.kind, "message": str(error)})

    def _refusal(self, request: Request, allowed: bool | str) -> Response | None:
        """Say why a request is not answered; None: it is."""
        if self._hosts is not None and request.headers.get("host", "").lower() not in self._hosts:
            return _plain(421, "this name does not lead here")
        if isinstance(allowed, str):
            return _plain(401, "who are you?", ("WWW-Authenticate", allowed))
        if allowed is not True:
            return _plain(403, "not for you")
        if request.path and request.path not in self._routes:
            return _plain(404, "no such page")
        if request.method not in _METHODS:
            return _plain(405, "this can be read only", ("Allow", ", ".join(_METHODS)))
        return None

    def _page(self, request: Request) -> Response:  # noqa: ARG002  the same for everybody
        return Response(200, [("Content-Type", "text/html; charset=utf-8")], page.HTML)

    def _diagnostics(self, request: Request) -> Response:
        points = "points=1" in request.query.split("&")
        return _json(200, view.document(self._source.look(), docs=self._docs, points=points))

    def _metrics(self, request: Request) -> Response:
        seen = self._source.look(processes=False)
        openmetrics = prometheus.wanted(request.headers.get("accept", ""))
        text = prometheus.text(seen.reading, seen.bound, openmetrics=openmetrics)
        kind = prometheus.OPENMETRICS if openmetrics else prometheus.TEXT
        return Response(200, [("Content-Type", kind)], text.encode())

    def _health(self, request: Request) -> Response:  # noqa: ARG002  the same for everybody
        seen = self._source.look(processes=False)
        return _json(200, {"status": "ok", "segment": seen.path, "size": seen.memory.size})

    def _ready(self, request: Request) -> Response:  # noqa: ARG002  the same for everybody
        found = view.readiness(self._source.look(processes=False))
        degraded = found["degraded"] is not None or found["remote"] is False
        ready = self._ready_when_degraded or not degraded
        status = "not ready" if not ready else "degraded" if degraded else "ok"
        return _json(200 if ready else 503, {"status": status, **found})


def _plain(status: int, text: str, *headers: tuple[str, str]) -> Response:
    return Response(status, [("Content-Type", _PLAIN), *headers], f"{text}\n".encode())


def _json(status: int, data: Mapping[str, Any]) -> Response:
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return Response(status, [("Content-Type", _JSON)], text.encode())
