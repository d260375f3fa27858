"""The admin application for ASGI."""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING, Any

from accelerator.admin.core import Request, Response, refused

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from accelerator.admin.core import AsyncAuthorize, Authorize, Core


class AsgiApp:
    """
    An ASGI 3 application.

    Args:
        core: What answers.
        authorize: Who may ask; see admin.asgi_app().
    """

    def __init__(self, core: Core, authorize: Authorize | AsyncAuthorize) -> None:
        self._core = core
        self._authorize = authorize

    async def __call__(
        self,
        scope: dict[str, Any],
        receive: Callable[[], Awaitable[dict[str, Any]]],
        send: Callable[[dict[str, Any]], Awaitable[None]],
    ) -> None:
        """Answer one request; start and end with the server where it asks for that."""
        if scope["type"] == "lifespan":
            await _live(receive, send)
            return
        if scope["type"] != "http":
            await receive()
            await send({"type": "websocket.close", "code": 1000})
            return
        answer = await self._respond(_request(scope))
        headers = [
            (name.lower().encode("latin-1"), value.encode("latin-1"))
            for name, value in answer.headers
        ]
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": answer.body})

    async def _respond(self, request: Request) -> Response:
        try:
            found = self._authorize(request)
            allowed = await found if inspect.isawaitable(found) else found
        except Exception as error:
            allowed = refused(error)
        try:
            asyncio.get_running_loop()
        except RuntimeError:  # another kind of loop: some milliseconds are no reason to need it
            return self._core.respond(request, allowed)
        return await asyncio.to_thread(self._core.respond, request, allowed)


async def _live(
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        elif message["type"] == "lifespan.shutdown":
            await send({"type": "lifespan.shutdown.complete"})
            return


def _request(scope: dict[str, Any]) -> Request:
    prefix, path = scope.get("root_path", ""), scope["path"]
    # Servers and frameworks disagree on whether the path has the prefix in it.
    if prefix and (path == prefix or path.startswith(f"{prefix}/")):
        path = path[len(prefix) :]
    return Request(
        method=scope["method"],
        path=path or ("" if prefix else "/"),
        query=scope.get("query_string", b"").decode("latin-1"),
        headers={
            name.decode("latin-1").lower(): value.decode("latin-1")
            for name, value in scope["headers"]
        },
        prefix=prefix,
        raw=scope,
    )
