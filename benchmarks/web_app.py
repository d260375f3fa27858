"""
The application behind the Gunicorn part: ``/<contestant>/<reads>`` reads that often and answers.

``ACCBENCH_WEB`` holds JSON: the names of the contestants, the directory of lmdb and the URL of
Redis, so that workers find what the benchmark started; other names come from ``ACCBENCH_RUN``.
"""

import json
import os
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from harness import KEY_OBJECTS, Calls
from peers import ALL, Lmdb, Peer, Redis
from workloads import BATCH, values

BODY = b"x" * 200
_HEADERS = [("Content-Type", "text/plain"), ("Content-Length", str(len(BODY)))]

StartResponse = Callable[[str, list[tuple[str, str]]], object]
Reader = Callable[[], None]


def _peer(kind: type[Peer], setup: dict[str, Any]) -> Peer:
    peer = kind()
    if isinstance(peer, Lmdb):
        peer.directory = Path(setup["lmdb"])
    elif isinstance(peer, Redis):
        peer.url = setup["redis"]
    return peer


def _readers(setup: dict[str, Any]) -> dict[tuple[str, int], Reader]:
    readers: dict[tuple[str, int], Reader] = {}
    for reads in (1, BATCH):
        readers["constant", reads] = lambda: None
    kinds = {kind.name: kind for kind in ALL}
    for name in setup["names"]:
        calls = _peer(kinds[name], setup).connect(encode=False)
        _fill(calls)
        for reads in (1, BATCH):
            readers[name, reads] = _reader(calls, reads, many=False)
            if calls.mget is not None:
                readers[f"{name} mget", reads] = _reader(calls, reads, many=True)
    return readers


def _fill(calls: Calls) -> None:
    if calls.set is None:
        return
    scope: dict[str, Any] = dict(calls.names)
    exec("def _set(key, value):\n    " + calls.set.replace("{key}", "key"), scope)
    for key, value in zip(KEY_OBJECTS[:BATCH], values("bytes 1 KiB", BATCH), strict=True):
        scope["_set"](key, value)


def _reader(calls: Calls, reads: int, *, many: bool) -> Reader:
    """The first key, or the first BATCH keys: they are the hot ones of this application."""
    scope: dict[str, Any] = {**calls.names, "keys": KEY_OBJECTS[:reads]}
    body = calls.read_many() if many else "for one in {keys}: " + calls.get.replace("{key}", "one")
    exec("def _read():\n    " + body.replace("{keys}", "keys"), scope)
    read: Reader = scope["_read"]
    return read


class Application:
    """WSGI; connects at the first request, so in the worker, whatever preloads."""

    def __init__(self) -> None:
        self._readers: dict[tuple[str, int], Reader] = {}
        self._connecting = threading.Lock()

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        if not self._readers:
            self._connect()
        _, name, reads = environ["PATH_INFO"].split("/")
        self._readers[name, int(reads)]()
        start_response("200 OK", _HEADERS)
        return [BODY]

    def _connect(self) -> None:
        with self._connecting:
            if not self._readers:
                self._readers = _readers(json.loads(os.environ["ACCBENCH_WEB"]))


application = Application()
