"""
The application behind bench_stampede.py.

    /read/N      read the hot key as contestant N does, and answer with the value
    /fill/N      store the value that is about to expire
    /forget/N    delete the key
    /worker      the process id of the worker that answers

``ACCBENCH_STAMPEDE`` holds JSON: names of the contestants, where the source listens, and where
Redis and the shared folder are.
"""

import json
import os
import threading
import traceback
from collections.abc import Callable, Iterable
from typing import Any

from stampede_peers import ALL, Contestant
from stampede_source import VALUE_SIZE, Source

_HEADERS = [("Content-Type", "text/plain"), ("Content-Length", str(VALUE_SIZE))]

StartResponse = Callable[[str, list[tuple[str, str]]], object]


class Application:
    """WSGI; connects at the first request, so in the worker, whatever preloads."""

    def __init__(self) -> None:
        self._contestants: list[Contestant] = []
        self._connecting = threading.Lock()

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        try:
            status, body = "200 OK", self._answer(environ["PATH_INFO"])
        except Exception:
            status = "500 Internal Server Error"  # the client counts it, and says which
            body = traceback.format_exc()[-VALUE_SIZE:].encode()
        start_response(status, _HEADERS)
        return [body.ljust(VALUE_SIZE)[:VALUE_SIZE]]

    def _answer(self, path: str) -> bytes:
        _, action, *number = path.split("/")
        if action == "worker":
            self._connect()
            return str(os.getpid()).encode()
        contestant = self._contestants[int(number[0])]
        if action == "read":
            return contestant.read()
        (contestant.fill if action == "fill" else contestant.forget)()
        return b""

    def _connect(self) -> None:
        with self._connecting:
            if not self._contestants:
                setup = json.loads(os.environ["ACCBENCH_STAMPEDE"])
                kinds = {kind.name: kind for kind in ALL}
                self._contestants = [
                    kinds[name](Source(setup["source"], str(place)), setup["places"])
                    for place, name in enumerate(setup["names"])
                ]


application = Application()
