"""A Redis that is away, silent, slow or unwilling: which error, how soon, and what afterwards."""

import asyncio
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from accelerator import message
from accelerator.codec import CODE_BYTES
from accelerator.demo.fault_proxy import FaultProxy
from accelerator.demo.redis_server import RedisServer
from accelerator.errors import BackendError, RemoteError
from accelerator.local import encode_key
from accelerator.remote import Change, seal

ORIGIN = bytes(16)
KEY = encode_key("confidential-key")
VALUE = seal(CODE_BYTES, b"confidential-value")
CHANGES = [Change(KEY, VALUE, 60.0)]
LIMIT = 0.25
"""Seconds that a call may take: connecting, reading, and what a busy machine adds."""


@contextmanager
def fails(reason: str, *, within: float = LIMIT) -> Iterator[None]:
    """
    Expect an error of one kind, soon; the error tells nothing that is confidential.

    What a busy machine made us late is not looked at.
    """
    started = time.monotonic()
    with pytest.raises(RemoteError) as caught:
        yield
    took = time.monotonic() - started - caught.value.late
    assert reason == caught.value.reason, caught.value
    assert isinstance(caught.value, BackendError)
    assert "confidential" not in str(caught.value) + repr(caught.value)
    assert None is caught.value.__cause__
    assert caught.value.__suppress_context__
    assert took <= within


def get(backend: Any) -> Any:
    return backend.get("a", [KEY])


def put(backend: Any) -> Any:
    return backend.write("a", message.SET, CHANGES, ORIGIN)


OPERATIONS: dict[str, Callable[[Any], Any]] = {
    "get": get,
    "lease": lambda it: it.lease("a", [KEY], 9.0),
    "write": put,
    "expire": lambda it: it.expire("a", [KEY], [0], ORIGIN),
    "clear": lambda it: it.clear("a", 0, ORIGIN),
    "add": lambda it: it.add("a", CHANGES[0], ORIGIN),
    "touch": lambda it: it.touch("a", KEY, 9.0, 0.0, 0, ORIGIN),
    "incr": lambda it: it.incr("a", KEY, 1, None, 0, ORIGIN),
    "beat": lambda it: it.beat(["a"], "c", 1),
    "log": lambda it: it.log("a", 0, None, 9),
}


@pytest.fixture
def brief(flavour: Callable[..., Any]) -> Callable[[Any], Any]:
    """Makes clients with the time limit that they have by default."""
    return lambda redis: flavour(redis, redis_timeout=0.1)


class TestAway:
    def test_port(self, brief: Any) -> None:
        """Nobody listens on the port."""
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))  # and does not listen
            backend = brief(f"redis://127.0.0.1:{taken.getsockname()[1]}")
            get_fails(backend, "connection")

    def test_socket(self, brief: Any, tmp_path: Path) -> None:
        """There is no such Unix socket."""
        get_fails(brief(f"unix://{tmp_path}/none"), "connection")

    @pytest.mark.parametrize("name", sorted(OPERATIONS))
    def test_operations(self, brief: Any, server: RedisServer, name: str) -> None:
        """Every operation says so, on a connection that broke and on one that cannot be made."""
        backend = brief(server.url)
        OPERATIONS[name](backend)
        server.kill()
        for _ in range(2):
            with fails("connection"):
                OPERATIONS[name](backend)

    def test_back(self, brief: Any, server: RedisServer) -> None:
        """A server that is back is used again, at once."""
        backend = brief(server.url)
        put(backend)
        server.kill()
        get_fails(backend, "connection")
        server.start()
        assert eventually(lambda: get(backend) == [None])

    def test_once(self, brief: Any, server: RedisServer) -> None:
        """No call is tried twice."""
        with FaultProxy(server.socket) as proxy:
            backend = brief(proxy.url)
            proxy.mode("refuse")
            for _ in range(3):
                get_fails(backend, "connection")
            assert 3 == proxy.accepted()

    def test_connection(self, clients: Any, tmp_path: Path) -> None:
        """The listener's own connection says so, too."""
        with fails("connection"):
            clients.connect(f"unix://{tmp_path}/none", redis_timeout=0.1).connection()


def get_fails(backend: Any, reason: str) -> None:
    with fails(reason):
        get(backend)


def eventually(check: Callable[[], bool]) -> bool:
    """Try until it is so; calls that fail meanwhile are no answer."""
    deadline = time.monotonic() + 20.0
    while time.monotonic() < deadline:
        try:
            if check():
                return True
        except RemoteError:
            pass
    return False


class TestSilent:
    @pytest.mark.parametrize("known", [True, False])
    def test_stopped(self, brief: Any, server: RedisServer, known: bool) -> None:
        """A stopped server costs the time limit, with a connection or without one."""
        backend = brief(server.url)
        if known:
            assert eventually(lambda: get(backend) == [None])
        server.stop()
        for _ in range(3):
            get_fails(backend, "timeout")
        server.resume()
        assert eventually(lambda: get(backend) == [None])

    def test_late_reply(self, brief: Any, server: RedisServer) -> None:
        """A reply that came too late is never taken for that of a later call."""
        backend = brief(server.url)
        assert eventually(lambda: put(backend).found >= 0)
        server.stop()
        with fails("timeout"):
            backend.log("a", 0, None, 9)
        server.resume()
        assert eventually(lambda: len(get(backend)) == 1)
        assert eventually(lambda: get(backend)[0] is not None)

    @pytest.mark.parametrize("mode", ["stall", "half_open"])
    @pytest.mark.parametrize("known", [True, False])
    def test_network(self, brief: Any, proxy: FaultProxy, mode: str, known: bool) -> None:
        """A network that swallows bytes costs the same."""
        backend = brief(proxy.url)
        if known:
            assert eventually(lambda: get(backend) == [None])
        proxy.mode(mode)
        for _ in range(2):
            get_fails(backend, "timeout")
        proxy.mode("pass")
        assert eventually(lambda: get(backend) == [None])

    def test_trickle(self, brief: Any, proxy: FaultProxy) -> None:
        """Bytes that arrive one by one do not prolong a call."""
        backend = brief(proxy.url)
        assert eventually(lambda: put(backend).found >= 0)
        proxy.mode("trickle", rate=20.0)  # each byte well within the limit
        get_fails(backend, "timeout")

    def test_delay(self, brief: Any, proxy: FaultProxy) -> None:
        """A delay beyond the limit is a timeout, and one within it is none."""
        backend = brief(proxy.url)
        assert eventually(lambda: get(backend) == [None])
        proxy.mode("delay", seconds=0.3)
        get_fails(backend, "timeout")
        proxy.mode("delay", seconds=0.01)
        assert eventually(lambda: get(backend) == [None])

    def test_blackhole(self, brief: Any) -> None:
        """A peer whose queue of connections is full answers nothing at all."""
        with socket.socket() as full, socket.socket() as first, socket.socket() as second:
            full.bind(("127.0.0.1", 0))
            full.listen(0)
            for each in (first, second):
                each.setblocking(False)
                each.connect_ex(full.getsockname())
            get_fails(brief(f"redis://127.0.0.1:{full.getsockname()[1]}"), "timeout")


class TestBroken:
    @pytest.mark.parametrize("how", ["drop", "reset"])
    def test_cut(self, brief: Any, proxy: FaultProxy, how: str) -> None:
        """A connection that was cut while idle is made anew, before anybody notices."""
        backend = brief(proxy.url)
        assert eventually(lambda: get(backend) == [None])
        getattr(proxy, how)()
        assert eventually(lambda: get(backend) == [None])
        assert proxy.accepted() <= 3

    @pytest.mark.parametrize("mode", ["refuse", "cut_handshake"])
    def test_handshake(self, brief: Any, proxy: FaultProxy, mode: str) -> None:
        """A connection that is cut before it is ready is none."""
        backend = brief(proxy.url)
        proxy.mode(mode)
        get_fails(backend, "connection")
        proxy.mode("pass")
        assert eventually(lambda: get(backend) == [None])

    def test_garbage(self, brief: Any) -> None:
        """A peer that is no Redis is an error, and no other exception."""
        with socket.socket() as listening:
            listening.bind(("127.0.0.1", 0))
            listening.listen()

            def talk() -> None:
                for _ in range(2):
                    connection, _ = listening.accept()
                    with connection:
                        connection.recv(1000)
                        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

            thread = threading.Thread(target=talk)
            thread.start()
            backend = brief(f"redis://127.0.0.1:{listening.getsockname()[1]}")
            for _ in range(2):
                with pytest.raises(RemoteError) as caught:
                    get(backend)
                assert "HTTP" not in str(caught.value)
            thread.join()


class TestUnwilling:
    def test_replica(self, flavour: Any, server: RedisServer) -> None:
        """A server that became a replica takes no writes, and no heartbeat."""
        backend = flavour(server.url)
        put(backend)
        server.command("REPLICAOF", "127.0.0.1", "1")
        server.config("replica-serve-stale-data", "yes")
        for write in (put, OPERATIONS["beat"], OPERATIONS["clear"], OPERATIONS["touch"]):
            with fails("refused", within=5.0):
                write(backend)
        server.command("REPLICAOF", "NO", "ONE")
        assert 1 == put(backend).found

    def test_replica_without_data(self, flavour: Any, server: RedisServer) -> None:
        """A replica that has lost its master may refuse reads as well."""
        backend = flavour(server.url)
        server.config("replica-serve-stale-data", "no")
        server.command("REPLICAOF", "127.0.0.1", "1")
        with fails("refused", within=5.0):
            get(backend)

    def test_memory(self, flavour: Any, server: RedisServer) -> None:
        """A full server takes no writes, and no heartbeat."""
        backend = flavour(server.url)
        put(backend)
        server.config("maxmemory-policy", "noeviction")
        server.config("maxmemory", "1")
        for write in (put, OPERATIONS["beat"], OPERATIONS["clear"], OPERATIONS["lease"]):
            with fails("refused", within=5.0):
                write(backend)
        server.config("maxmemory", "0")
        assert 1 == put(backend).found

    def test_password(self, flavour: Any, server: RedisServer) -> None:
        """A password that is missing, or wrong."""
        server.config("requirepass", "secret")
        tcp = server.tcp_url
        for url in (tcp, tcp.replace("//", "//:confidential@")):
            for operation in (get, put, OPERATIONS["beat"]):
                with fails("refused", within=5.0):
                    operation(flavour(url))
        assert 0 == put(flavour(tcp.replace("//", "//:secret@"))).found

    def test_password_later(self, flavour: Any, server: RedisServer) -> None:
        """A user whose rights were taken away while connected."""
        server.command("ACL", "SETUSER", "cache", "on", "nopass", "~*", "&*", "+@all")
        backend = flavour(server.tcp_url.replace("//", "//cache:any@"))
        put(backend)
        server.command("ACL", "SETUSER", "cache", "-evalsha", "-mget")
        for operation in (get, put):
            with fails("refused", within=5.0):
                operation(backend)

    def test_replicas(self, flavour: Any, server: RedisServer) -> None:
        """A master that has lost its replicas takes no writes, where that is asked for."""
        backend = flavour(server.url)
        put(backend)
        server.config("min-replicas-to-write", "1")
        for write in (put, OPERATIONS["beat"]):
            with fails("refused", within=5.0):
                write(backend)

    def test_wrong_type(self, flavour: Any, server: RedisServer) -> None:
        """Somebody else's key under our name counts as absent, and is replaced."""
        backend = flavour(server.url, namespace="n")
        put(backend)
        server.command("DEL", "n:{a}:seq")
        server.command("LPUSH", "n:{a}:seq", "x")
        put(backend)
        assert server.command("TYPE", "n:{a}:seq").startswith(b"+string")

    def test_clients(self, flavour: Any, server: RedisServer) -> None:
        """A server that has no room for another client is as good as none."""
        server.config("maxclients", "1")
        with socket.socket(socket.AF_UNIX) as only:
            only.connect(server.socket)
            only.sendall(b"PING\r\n")
            assert b"+PONG\r\n" == only.recv(100)
            with pytest.raises(RemoteError) as caught:
                get(flavour(server.url))
        assert "connection" == caught.value.reason


class TestLate:
    """A thread or a loop that does not get to run is told from a slow Redis."""

    def test_loop(self, clients: Any, server: RedisServer) -> None:
        """A loop that was held up says by how much it was late."""
        backend = clients.connect(server.url, redis_timeout=0.1)

        async def held_up() -> RemoteError:
            mine = backend.for_loop()
            deadline = time.monotonic() + 20.0
            while time.monotonic() < deadline:
                try:
                    await mine.get("a", [KEY])
                    break
                except RemoteError:
                    pass
            server.stop()
            call = asyncio.ensure_future(mine.get("a", [KEY]))
            await asyncio.sleep(0.01)
            time.sleep(0.6)  # noqa: ASYNC251  this is what it is about
            with pytest.raises(RemoteError) as caught:
                await call
            return caught.value

        error = asyncio.run(held_up())
        assert "timeout" == error.reason
        assert error.late > 0.3

    def test_thread(self, clients: Any, server: RedisServer) -> None:
        """A thread that did not get to run meanwhile says by how much it was late."""
        backend = clients.connect(server.url, redis_timeout=0.2)
        server.stop()
        former = signal.signal(signal.SIGUSR1, lambda *_: time.sleep(0.6))
        timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGUSR1))
        timer.start()
        try:
            with pytest.raises(RemoteError) as caught:
                get(backend)
        finally:
            timer.join()
            signal.signal(signal.SIGUSR1, former)
        assert "timeout" == caught.value.reason
        assert caught.value.late > 0.3

    def test_in_time(self, clients: Any, server: RedisServer) -> None:
        """A timeout that is noticed in time is not late."""
        backend = clients.connect(server.url, redis_timeout=0.1)
        server.stop()
        lates = []
        for _ in range(5):
            with pytest.raises(RemoteError) as caught:
                get(backend)
            lates.append(caught.value.late)
        assert min(lates) < 0.05
