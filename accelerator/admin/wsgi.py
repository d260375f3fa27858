"""The admin application for WSGI."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from accelerator.admin.core import Request, refused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from accelerator.admin.core import Authorize, Core


class WsgiApp:
    """
    A WSGI application.

    Args:
        core: What answers.
        authorize: Who may ask; see admin.wsgi_app().
    """

    def __init__(self, core: Core, authorize: Authorize) -> None:
        self._core = core
        self._authorize = authorize

    def __call__(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        """Answer one request."""
        request = Request(
            method=environ["REQUEST_METHOD"],
            path=environ.get("PATH_INFO", "") or ("" if environ.get("SCRIPT_NAME") else "/"),
            query=environ.get("QUERY_STRING", ""),
            headers={
                name[5:].replace("_", "-").lower(): value
                for name, value in environ.items()
                if name.startswith("HTTP_")
            },
            prefix=environ.get("SCRIPT_NAME", ""),
            raw=environ,
        )
        try:
            allowed = self._authorize(request)
        except Exception as error:
            allowed = refused(error)
        answer = self._core.respond(request, allowed)
        start_response(f"{answer.status} {HTTPStatus(answer.status).phrase}", list(answer.headers))
        return [answer.body] if answer.body else []
