"""
A TCP proxy with faults that are switched while it runs, in a process of its own.

``FaultProxy`` starts it and tells it what to do.  The process ends with the one that started it.

============== ===================================================================================
mode           what happens to bytes and connections
============== ===================================================================================
pass           nothing
delay          every piece arrives *seconds* later
trickle        of what the server sends, *rate* bytes a second pass
stall          nothing passes; what was held back comes when the mode changes
half_open      what is sent is lost, in both directions, and no end is passed on: those connections
               are dead for ever, and nobody is told
refuse         new connections are reset at once; old ones go on
cut_handshake  new connections are closed when the first bytes of the client have arrived
============== ===================================================================================
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
import struct
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

HOST: Final = "127.0.0.1"
MODES: Final = ("pass", "delay", "trickle", "stall", "half_open", "refuse", "cut_handshake")
_PIECE: Final = 1 << 16


class FaultProxy:
    """
    A proxy in front of a server; a context manager.

    Args:
        target: Path of a Unix socket, or (host, port).
        tls: Paths of a certificate and its key: clients speak TLS to the proxy.
    """

    def __init__(
        self, target: str | tuple[str, int], *, tls: tuple[str, str] | None = None
    ) -> None:
        where = target if isinstance(target, str) else f"{target[0]}:{target[1]}"
        self._process = subprocess.Popen(
            [sys.executable, "-m", "accelerator.demo.fault_proxy", where, *(tls or ())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        self.port: int = self._answer()["port"]

    @property
    def url(self) -> str:
        """The server behind it, by way of it."""
        return f"redis://{HOST}:{self.port}/0"

    def mode(self, name: str, *, seconds: float = 0.0, rate: float = 1.0) -> None:
        """Switch the mode, for all connections; back when this returns, it is in force."""
        assert name in MODES, name
        self._tell({"mode": name, "seconds": seconds, "rate": rate})

    def drop(self) -> None:
        """Close all connections in order."""
        self._tell({"drop": "close"})

    def reset(self) -> None:
        """Reset all connections (RST)."""
        self._tell({"drop": "reset"})

    def accepted(self) -> int:
        """Count the connections that were ever accepted."""
        count: int = self._tell({})["accepted"]
        return count

    def close(self) -> None:
        """End the proxy."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.terminate()  # a process forked since then may hold the other end of its input
        self._process.wait()
        self._process.stdout.close()

    def _tell(self, what: dict[str, Any]) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(what).encode() + b"\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the proxy has ended")
        return json.loads(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


# --- the process ---------------------------------------------------------------------------------


class _State:
    """The mode in force, and what is connected."""

    def __init__(self) -> None:
        self.mode = "pass"
        self.seconds = 0.0
        self.rate = 1.0
        self.changed = asyncio.Event()
        self.links: set[_Link] = set()
        self.accepted = 0

    def switch(self, mode: str, seconds: float, rate: float) -> None:
        self.mode, self.seconds, self.rate = mode, seconds, rate
        self.changed.set()
        self.changed = asyncio.Event()

    async def rest(self, seconds: float) -> None:
        """Wait so long, or until the mode changes."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.changed.wait(), seconds)


class _Link:
    """One connection through the proxy."""

    def __init__(self, state: _State, client: tuple[Any, Any], server: tuple[Any, Any]) -> None:
        self._state = state
        self._client = client
        self._server = server
        self._lost = False
        """Whether bytes of it were lost, after which nothing may ever come through."""

    async def run(self) -> None:
        (from_client, to_client), (from_server, to_server) = self._client, self._server
        self._state.links.add(self)
        pumps = [
            asyncio.ensure_future(self._pump(from_client, to_server, slow=False)),
            asyncio.ensure_future(self._pump(from_server, to_client, slow=True)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            while self._lost and not all(pump.done() for pump in pumps):
                # Half-open: who is still there hears nothing of the other one's end.
                await asyncio.wait(pumps)
        finally:
            for pump in pumps:
                pump.cancel()
            self._state.links.discard(self)
            self.end("close")

    def end(self, how: str) -> None:
        for _, writer in (self._client, self._server):
            if how == "reset":
                _reset_on_close(writer)
                writer.transport.abort()
            else:
                writer.close()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, slow: bool
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(_PIECE):
                await self._pass(data, writer, slow=slow)

    async def _pass(self, data: bytes, writer: asyncio.StreamWriter, *, slow: bool) -> None:
        state = self._state
        if state.mode == "delay":
            await asyncio.sleep(state.seconds)
        while data:
            if state.mode == "half_open":
                self._lost = True
            if self._lost:
                return
            if state.mode == "stall":
                await state.changed.wait()
                continue
            trickles = slow and state.mode == "trickle"
            if trickles:
                await state.rest(1.0 / state.rate)
            size = 1 if trickles else len(data)
            writer.write(data[:size])
            await writer.drain()
            data = data[size:]


def _reset_on_close(writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        raw = writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


async def _connect(target: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, _, port = target.rpartition(":")
    if port.isdigit() and "/" not in target:
        return await asyncio.open_connection(host, int(port))
    return await asyncio.open_unix_connection(target)


async def _serve(target: str, tls: list[str]) -> None:
    state = _State()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        state.accepted += 1
        if state.mode == "cut_handshake":
            await reader.read(1)
            writer.close()
            return
        try:
            if state.mode == "refuse":
                raise ConnectionRefusedError
            server = await _connect(target)
        except OSError:
            _reset_on_close(writer)
            writer.transport.abort()
            return
        # Cancelled at the end of the process; asyncio would complain about that on Python 3.11.
        with contextlib.suppress(asyncio.CancelledError):
            await _Link(state, (reader, writer), server).run()

    server = await asyncio.start_server(accept, HOST, 0, ssl=_tls(*tls) if tls else None)
    _say({"port": server.sockets[0].getsockname()[1]})
    orders = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(orders), sys.stdin
    )
    while line := await orders.readline():
        order = json.loads(line)
        if "mode" in order:
            state.switch(order["mode"], order["seconds"], order["rate"])
        for link in list(state.links) if "drop" in order else []:
            link.end(order["drop"])
        _say({"accepted": state.accepted})


def _tls(certificate: str, key: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


def _say(what: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1], sys.argv[2:]))
