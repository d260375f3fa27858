"""
A small HTTP client for one request at a time on one keep-alive connection.

Hand-written because the load generator shares two cores with the servers that it measures:
the general clients of the standard library spend several times as long on a request.
It understands what the shop sends, which is a status line, headers, and a body of stated length.
"""

import asyncio
import time
from typing import NamedTuple, Self

from accelerator.demo.server import HOST

ANSWER_SECONDS = 15.0
_HEAD_END = b"\r\n\r\n"


class Answer(NamedTuple):
    """What one request brought back."""

    status: int
    worker: int
    """Pid of the worker that answered; 0 if it did not say."""
    hit: bool
    version: int
    """Version of the product shown; 0 if the page shows none."""
    body: bytes


class Loss(NamedTuple):
    """A connection that broke while a request was on it."""

    opened: float
    """When the connection was asked for, on time.monotonic()."""
    worker: int | None
    """Who had answered on that connection before; ``None`` if nobody had yet."""


def get(path: str) -> bytes:
    """The bytes of a GET request."""
    return f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode()


def post(path: str, form: str) -> bytes:
    """The bytes of a POST request with an encoded form."""
    return (
        f"POST {path} HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {len(form)}\r\n"
        f"Content-Type: application/x-www-form-urlencoded\r\n\r\n{form}"
    ).encode()


class Connection(asyncio.Protocol):
    """One connection; :meth:`ask` must not be called again before it has returned."""

    def __init__(self) -> None:
        self.worker: int | None = None
        self.closed = False
        self._loop = asyncio.get_running_loop()
        self._buffer = b""
        self._answer: asyncio.Future[Answer] | None = None
        self._transport: asyncio.Transport

    @classmethod
    async def open(cls, port: int) -> "Connection":
        """Connect to the server on this host."""
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(cls, HOST, port)
        return connection

    async def ask(self, request: bytes) -> Answer:
        """
        Send a request and wait for its answer.

        Raises:
            ConnectionError: The connection broke before the answer was complete.
            TimeoutError: No complete answer within ``ANSWER_SECONDS``.
        """
        self._answer = self._loop.create_future()
        self._transport.write(request)
        async with asyncio.timeout(ANSWER_SECONDS):
            answer = await self._answer
        self.worker = answer.worker
        return answer

    def close(self) -> None:
        """Hang up."""
        self.closed = True
        self._transport.close()

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Collect bytes until the answer is complete."""
        self._buffer += data
        head, end, rest = self._buffer.partition(_HEAD_END)
        if not end:
            return
        status, headers = _parse_head(head)
        length = int(headers.get("content-length", 0))
        if len(rest) < length:
            return
        self._buffer = b""
        if headers.get("connection") == "close":
            self.close()
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(_answer(status, headers, rest[:length]))

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever waits for an answer that there will be none."""
        self.closed = True
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(exc or ConnectionResetError("closed before the answer"))


class Visitor:
    """
    One user of the shop: asks again, once, when the connection breaks under a request.

    Browsers and proxies do the same.  Every such loss is noted in *losses*.  Leaves at the end of
    a ``with`` block.
    """

    def __init__(self, port: int, losses: list[Loss]) -> None:
        self._port = port
        self._losses = losses
        self._connection: Connection | None = None
        self._opened = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()

    @property
    def worker(self) -> int | None:
        """The worker at the other end, as far as it has shown itself."""
        return self._connection.worker if self._connection is not None else None

    async def ask(self, request: bytes) -> Answer | None:
        """The answer, or ``None`` when two tries brought none."""
        for _ in range(2):
            try:
                return await (await self._connected()).ask(request)
            except (OSError, TimeoutError):
                self._losses.append(Loss(self._opened, self.worker))
                self.leave()
        return None

    def leave(self) -> None:
        """Hang up; the next request opens a new connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    async def _connected(self) -> Connection:
        # A connection that was closed between two requests has cost nobody a request.
        if self._connection is None or self._connection.closed:
            self._connection = None
            self._opened = time.monotonic()
            self._connection = await Connection.open(self._port)
        return self._connection


def _parse_head(head: bytes) -> tuple[int, dict[str, str]]:
    """Status and headers, names in lower case."""
    status_line, *lines = head.decode("latin-1").split("\r\n")
    headers = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    return int(status_line.split(" ", 2)[1]), headers


def _answer(status: int, headers: dict[str, str], body: bytes) -> Answer:
    # The shop's ETag is "<product>-<version>", in quotes.
    version = headers.get("etag", "").strip('"').rpartition("-")[2]
    return Answer(
        status=status,
        worker=int(headers.get("x-worker", 0)),
        hit=headers.get("x-cache") == "hit",
        version=int(version or 0),
        body=body,
    )
