"""What goes over the wire: how many commands, which scripts, and from which process."""

import asyncio
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

import accelerator
from accelerator import message, testing
from accelerator.codec import CODE_BYTES, CODE_INT
from accelerator.demo.fault_proxy import FaultProxy
from accelerator.demo.redis_server import RedisServer
from accelerator.local import encode_key
from accelerator.remote import Change, Fill, seal

ORIGIN = bytes(16)
KEYS = [encode_key(number) for number in range(100)]
VALUE = seal(CODE_BYTES, b"value")
CHANGES = [Change(key, VALUE, 60.0) for key in KEYS]


@contextmanager
def commands(server: RedisServer) -> Iterator[dict[str, int]]:
    """Count the commands that clients send to a server, scripts' own left out of the keys asked."""
    with redis.Redis(unix_socket_path=server.socket, protocol=2) as raw:
        raw.config_resetstat()
        found: dict[str, int] = {}
        yield found
        stats = raw.info("commandstats")
        found.update({name.removeprefix("cmdstat_"): stats[name]["calls"] for name in stats})


class TestBatches:
    def test_get(self, server: RedisServer, clients: Any) -> None:
        """A batch is read by one MGET; the lives come with it."""
        backend = clients.connect(server.url)
        backend.write("a", message.SET, CHANGES, ORIGIN)
        with commands(server) as seen:
            assert None not in backend.get("a", KEYS)
        assert (1, 100, 0) == (seen["mget"], seen["pttl"], seen.get("get", 0))

    @pytest.mark.parametrize("kind", [message.SET, message.FORGET])
    def test_write(self, server: RedisServer, clients: Any, kind: int) -> None:
        """A batch is written by one script, with one number and one message."""
        backend = clients.connect(server.url)
        backend.write("a", kind, CHANGES, ORIGIN)  # from now on the script is known
        with commands(server) as seen:
            backend.write("a", kind, CHANGES, ORIGIN)
        once = ["evalsha", "incr", "xadd", "publish"]
        assert dict.fromkeys(once, 1) == {name: seen[name] for name in once}
        assert "eval" not in seen

    def test_load(self, server: RedisServer, clients: Any) -> None:
        """Leases of a batch are one script, fills of a batch one more."""
        backend = clients.connect(server.url)
        for _ in range(2):
            with commands(server) as leased:
                leases = backend.lease("a", KEYS, 30.0)
            fills = [Fill(key, VALUE, 60.0, lease) for key, lease in zip(KEYS, leases, strict=True)]
            with commands(server) as filled:
                assert all(backend.fill("a", fills))
        assert (2, 1) == (leased["evalsha"], filled["evalsha"])  # and one for the generation
        assert "publish" not in filled

    def test_round_trips(self, server: RedisServer, clients: Any) -> None:
        """Nothing else is ever sent: no PING, no script check, no new connection."""
        backend = clients.connect(server.url)
        backend.get("a", KEYS)
        with commands(server) as seen:
            for _ in range(10):
                backend.get("a", KEYS[:1])
        expected = {"mget": 10, "pttl": 10, "multi": 10, "exec": 10}
        assert expected == {
            name: calls for name, calls in seen.items() if name not in {"config|resetstat", "info"}
        }


class TestCosts:
    """An area without tags and versions pays for neither: this is all that is ever sent."""

    @staticmethod
    def sent(monitor: Any) -> list[str]:
        """Names of the commands since the last call."""
        return [words[0].upper() for words in monitor.commands(by_scripts=False)]

    def test_operations(self, server: RedisServer, clients: Any, make_monitor: Any) -> None:
        """Reads are one transaction, loads two scripts and a third, changes one script each."""
        backend = clients.connect(server.url)
        key = KEYS[0]

        def load() -> None:
            (lease,) = backend.lease("a", [key], 30.0)
            assert [True] == backend.fill("a", [Fill(key, VALUE, 60.0, lease)])

        def forget() -> None:
            backend.write("a", message.FORGET, [Change(key, None)], ORIGIN)

        number = Change(key, seal(CODE_INT, bytes(8)), 60.0)
        read = ["MULTI", "MGET", "PTTL", "EXEC"]
        cases: list[tuple[list[str], Callable[[], object]]] = [
            (read, lambda: backend.get("a", [key])),
            (["EVALSHA"] * 3, load),
            (read, lambda: backend.get("a", [key])),
            (["EVALSHA"], lambda: backend.write("a", message.SET, CHANGES[:1], ORIGIN)),
            (["EVALSHA"], lambda: backend.touch("a", key, 9.0, 0.0, 0, ORIGIN)),
            (["EVALSHA"], lambda: backend.expire("a", [key], [0], ORIGIN)),
            (["EVALSHA"], forget),
            (["EVALSHA"], lambda: backend.add("a", CHANGES[0], ORIGIN)),
            (["EVALSHA"], forget),
            (["EVALSHA"], lambda: backend.incr("a", key, 1, number, 0, ORIGIN)),
            (["EVALSHA"], lambda: backend.tell("a", message.FORGET, [key], [0], ORIGIN)),
            (["EVALSHA"], lambda: backend.clear("a", 0, ORIGIN)),
        ]
        for _, do in cases:
            do()  # from now on the scripts are known
        backend.clear("a", 0, ORIGIN)
        monitor = make_monitor(server)
        for expected, do in cases:
            do()
            assert expected == self.sent(monitor)

    def test_with_tags(self, server: RedisServer, clients: Any, make_monitor: Any) -> None:
        """Where values have tags, it is one command more to read some, and one to store them."""
        backend = clients.connect(server.url)
        values = [Change(key, seal(CODE_BYTES, b"x", tags=[b"red"]), 60.0) for key in KEYS]
        (lease,) = backend.lease("a", KEYS[:1], 30.0)
        fills = [Fill(KEYS[0], values[0].value, 60.0, lease)]
        cases: list[tuple[list[str], Callable[[], object]]] = [
            (["EVALSHA"], lambda: backend.write("a", message.SET, values, ORIGIN)),
            (["EVALSHA"] * 2, lambda: backend.fill("a", fills)),
            (
                ["MULTI", "MGET", *["PTTL"] * len(KEYS), "EXEC", "EVALSHA"],
                lambda: backend.get("a", KEYS),
            ),
            (
                ["EVALSHA"],
                lambda: backend.mark_tags("a", message.FORGET_TAGS, [b"red"], [0], ORIGIN),
            ),
        ]
        for _, do in cases:
            do()
        monitor = make_monitor(server)
        for expected, do in cases:
            do()
            assert expected == self.sent(monitor)

    def test_with_versions(self, server: RedisServer, clients: Any, make_monitor: Any) -> None:
        """Where values have versions it is none more, once each host knows of all of them."""
        one, two = (clients.connect(server.url, namespace="n") for _ in range(2))
        change = [Change(KEYS[0], None, None)]
        for _ in range(2):
            for own, backend in enumerate((one, two), 1):
                backend.write("a", message.FORGET, change, ORIGIN, fingerprint=own)
        monitor = make_monitor(server)
        one.write("a", message.FORGET, change, ORIGIN, fingerprint=1)
        assert ["EVALSHA"] == self.sent(monitor)
        one.get("a", KEYS[:1], fingerprint=1)
        assert ["MULTI", "MGET", "PTTL", "EXEC"] == self.sent(monitor)

    def test_nothing_left(self, server: RedisServer, clients: Any) -> None:
        """Nor does it leave anything there for them."""
        backend = clients.connect(server.url, namespace="n")
        (lease,) = backend.lease("a", KEYS[:1], 30.0)
        backend.fill("a", [Fill(KEYS[0], VALUE, 60.0, lease)])
        backend.write("a", message.SET, CHANGES, ORIGIN)
        with redis.Redis(unix_socket_path=server.socket, protocol=2) as raw:
            assert [0, 0] == [raw.exists(f"n:{{a}}:{word}") for word in ("tags", "versions")]


class TestScripts:
    def test_forgotten(self, server: RedisServer, clients: Any) -> None:
        """After SCRIPT FLUSH every operation goes on as before."""
        backend = clients.connect(server.url)
        key = KEYS[0]
        for _ in range(2):
            (lease,) = backend.lease("a", [key], 30.0)
            assert [True] == backend.fill("a", [Fill(key, VALUE, 60.0, lease)])
            server.command("SCRIPT", "FLUSH")
            assert 1 == backend.write("a", message.SET, CHANGES[:1], ORIGIN).found
            server.command("SCRIPT", "FLUSH")
            assert backend.touch("a", key, 9.0, 0.0, 0, ORIGIN)
            server.command("SCRIPT", "FLUSH")
            assert backend.beat(["a"], "c", 1)[1] != [0]
            server.command("SCRIPT", "FLUSH")
            backend.clear("a", 0, ORIGIN)
            server.command("SCRIPT", "FLUSH")

    def test_once(self, server: RedisServer, clients: Any) -> None:
        """A script that Redis does not know is sent once, and then goes by its digest."""
        backend = clients.connect(server.url)
        with commands(server) as seen:
            for _ in range(5):
                backend.write("a", message.SET, CHANGES, ORIGIN)
        assert (5, 1) == (seen["evalsha"], seen["eval"])


class TestProcesses:
    def test_lazy(self) -> None:
        """To import the package, and to make the second level, imports no redis-py."""
        script = (
            "import sys, accelerator\n"
            "from accelerator import remote\n"
            "from accelerator.config import Settings\n"
            "remote.connect(Settings(redis='redis://127.0.0.1:1', name='n')).describe()\n"
            "assert 'redis' not in sys.modules\n"
        )
        subprocess.run([sys.executable, "-c", script], check=True)

    def test_fork(self, server: RedisServer, clients: Any) -> None:
        """A child has connections of its own, while its parent goes on with the old ones."""
        backend = clients.connect(server.url)
        backend.write("a", message.SET, CHANGES, ORIGIN)
        before = self.connections(server)
        children = []
        for _ in range(4):
            pid = os.fork()
            if not pid:
                status = 1
                try:
                    status = not all(None not in backend.get("a", KEYS) for _ in range(50))
                finally:
                    os._exit(status)
            children.append(pid)
        for _ in range(50):
            assert None not in backend.get("a", KEYS)
        assert [0] * 4 == [os.waitpid(pid, 0)[1] for pid in children]
        # One for each child, one for the counting before and none for the parent.
        assert 5 == self.connections(server) - before

    def connections(self, server: RedisServer) -> int:
        """Count the connections that a server ever had."""
        with redis.Redis(unix_socket_path=server.socket, protocol=2) as raw:
            found = raw.info("stats")["total_connections_received"]
            assert isinstance(found, int)
            return found

    def test_fork_in_loop(self, server: RedisServer, clients: Any) -> None:
        """A child that was forked beside a loop has connections of its own there, too."""
        backend = clients.connect(server.url)

        async def read() -> bool:
            return [None] == await backend.for_loop().get("a", KEYS[:1])

        async def parent() -> int:
            assert await read()
            pid = os.fork()
            if not pid:
                status = 1
                try:
                    # The loop cannot go on in two processes; the child has one of its own.
                    asyncio._set_running_loop(None)
                    status = not asyncio.run(read())
                finally:
                    os._exit(status)
            assert await read()
            return pid

        assert 0 == os.waitpid(asyncio.run(parent()), 0)[1]

    def test_threads(self, server: RedisServer, clients: Any) -> None:
        """Threads use one client at the same time, and none sees another's replies."""
        backend = clients.connect(server.url)
        backend.write("a", message.SET, CHANGES, ORIGIN)
        wrong: list[Any] = []

        def work(number: int) -> None:
            mine = KEYS[number : number + 1]
            for _ in range(100):
                (found,) = backend.get("a", mine)
                (lease,) = backend.lease("b", mine, 9.0)
                if found is None or not lease.token:
                    wrong.append(number)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [] == wrong

    def test_loop_ends(self, server: RedisServer, clients: Any) -> None:
        """The connections of a loop end with it, and the next loop has its own."""
        backend = clients.connect(server.url)

        async def many() -> None:
            mine = backend.for_loop()
            assert mine is backend.for_loop()
            await asyncio.gather(*(mine.get("a", KEYS[:1]) for _ in range(300)))

        for _ in range(3):
            asyncio.run(many())
        assert 1 == len(backend._loops)  # the last one, until there is another
        with redis.Redis(unix_socket_path=server.socket, protocol=2) as raw:
            assert 1 == len(raw.client_list())

    def test_limited(self, server: RedisServer, clients: Any) -> None:
        """However many tasks ask at a time, a loop has a bounded number of connections."""
        backend = clients.connect(server.url)

        async def many() -> int:
            mine = backend.for_loop()
            await asyncio.gather(*(mine.get("a", KEYS[:1]) for _ in range(1000)))
            with redis.Redis(unix_socket_path=server.socket, protocol=2) as raw:
                return len(raw.client_list())

        assert asyncio.run(many()) <= 129


def until(condition: Callable[[], object]) -> None:
    """Look every few milliseconds until something holds."""
    deadline = time.monotonic() + 30.0
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.01)


def documented_user(server: RedisServer) -> str:
    """Make the user of the documentation; gives a URL with it."""
    page = Path(__file__).parents[2] / "docs" / "how-to" / "use-redis.md"
    if not page.exists():
        pytest.skip("only the package is here")
    [line] = re.findall(r"^(ACL SETUSER .*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    server.command(*line.split())
    return server.tcp_url.replace("//", "//shop:PASSWORD@")


class TestClients:
    def test_ready(self, server: RedisServer, clients: Any) -> None:
        """A ready client says where and who; limits, retries and connections are ours."""
        given = redis.Redis(
            unix_socket_path=server.socket,
            db=3,
            decode_responses=True,
            socket_timeout=50,
            client_name="theirs",
        )
        with given:
            backend = clients.connect(given, redis_timeout=0.3)
            assert {"redis": "Redis", "db": 3, "kind": "client"} == backend.describe()
            backend.write("a", message.SET, CHANGES, ORIGIN)
            assert None not in backend.get("a", KEYS)
            connection = backend.connection()
            try:
                assert (0.3, 0.3) == (
                    connection.socket_timeout,
                    connection.socket_connect_timeout,
                )
                assert 0 == connection.retry._retries
            finally:
                connection.disconnect()
            assert 0 < given.dbsize()

    @pytest.mark.parametrize("awaited", [False, True])
    def test_twins(self, server: RedisServer, clients: Any, awaited: bool) -> None:
        """A client of either world serves threads and loops."""
        kind = redis.asyncio.Redis if awaited else redis.Redis
        given = kind(host="127.0.0.1", port=server.port)
        for make in (clients.connect, clients.awaited):
            assert [None] == make(given).get("a", KEYS[:1])

    def test_user(self, server: RedisServer, clients: Any) -> None:
        """An ACL user with the rights that the documentation names, and no others, is enough."""
        url = documented_user(server)
        backend = clients.connect(url, namespace="shop")
        channel = "accelerator:heartbeat:shop:00"
        assert 0 == backend.write("a", message.SET, CHANGES, ORIGIN).found
        assert backend.touch("a", KEYS[0], 9.0, 0.0, 0, ORIGIN)
        assert 1 == backend.expire("a", KEYS[:1], [0], ORIGIN)
        (lease,) = backend.lease("a", KEYS[:1], 9.0)
        assert [True] == backend.fill("a", [Fill(KEYS[0], VALUE, 9.0, lease)])
        tagged = Change(KEYS[1], seal(CODE_BYTES, b"x", tags=[b"red"], fingerprint=1), 9.0)
        backend.write("b", message.SET, [tagged], ORIGIN, fingerprint=1)
        assert [None] != backend.get("b", KEYS[1:2], fingerprint=1)
        backend.mark_tags("b", message.FORGET_TAGS, [b"red"], [0], ORIGIN)
        assert [None] == backend.get("b", KEYS[1:2], fingerprint=1)
        told = backend.log("a", 0, None, 9)
        assert 3 == len(told)
        replication, seqs = backend.beat(["a"], channel, 1)
        assert re.fullmatch("[0-9a-f]{40}", replication)
        assert [told[-1][0]] == seqs

    def test_listening_user(self, server: RedisServer) -> None:
        """They are enough for the listener, too: nothing is refused."""
        url = documented_user(server)
        server.command("ACL", "LOG", "RESET")
        with testing.isolated(redis=url, namespace="shop", redis_timeout=5.0) as own:
            cache = accelerator.LevelCache("a")
            cache.set("key", 1)
            cache.incr("key")
            cache.delete("key")
            cache.clear()
            # Some heartbeats, so that each kind of command has been sent.
            until(lambda: own.memory.link()["confirmed_age"] is not None)
            until(lambda: cache.diagnostic_snapshot()["invalidation_listener_started"])
            term = own.memory.leader()["term"]
            until(lambda: cache._freshness() < 0.1)
            assert term == own.memory.leader()["term"]
            assert 0 == own.memory.link()["reconnects"]
        assert b"*0\r\n" == server.command("ACL", "LOG")

    def test_database(self, server: RedisServer, clients: Any) -> None:
        """Databases of one server are apart, channels included."""
        one = clients.connect(server.tcp_url.replace("/0", "/1"), namespace="n")
        two = clients.connect(server.tcp_url.replace("/0", "/2"), namespace="n")
        one.write("a", message.SET, CHANGES, ORIGIN)
        assert [None] == two.get("a", KEYS[:1])
        assert "accelerator:invalidation:n:a@1" == one.channel("a")

    def test_introduction(self, server: RedisServer, clients: Any) -> None:
        """CLIENT LIST shows whose connection it is."""
        backend = clients.connect(server.url)
        backend.get("a", KEYS[:1])
        with redis.Redis(unix_socket_path=server.socket, protocol=2) as raw:
            shown = [each.get("lib-name", "") for each in raw.client_list()]
        assert any("accelerator" in each for each in shown)

    def test_valkey(self, server: RedisServer, clients: Any) -> None:
        """URLs of Valkey are understood."""
        backend = clients.connect(server.tcp_url.replace("redis://", "valkey://"))
        assert [None] == backend.get("a", KEYS[:1])


class TestTls:
    @pytest.fixture
    def certificate(self, tmp_path: Any) -> Any:
        """A self-signed certificate of localhost, and its key."""
        made = subprocess.run(
            [
                *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
                *("-keyout", tmp_path / "key", "-out", tmp_path / "cert"),
                *("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"),
            ],
            check=False,
            capture_output=True,
        )
        assert 0 == made.returncode, made.stderr
        return tmp_path

    @pytest.fixture
    def port(self, server: RedisServer, certificate: Any) -> Iterator[int]:
        """A port that takes TLS off in front of the server."""
        files = str(certificate / "cert"), str(certificate / "key")
        with FaultProxy(server.socket, tls=files) as proxy:
            yield proxy.port

    def test_verified(self, clients: Any, certificate: Any, port: int) -> None:
        """With the right certificate it works, for threads and loops."""
        url = f"rediss://localhost:{port}/0?ssl_ca_certs={certificate / 'cert'}"
        for make in (clients.connect, clients.awaited):
            assert [None] == make(url).get("a", KEYS[:1])

    @pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
    def test_refused(self, clients: Any, certificate: Any, port: int, host: str) -> None:
        """An unknown certificate, or one of another host, is no connection."""
        trust = "" if host == "localhost" else f"?ssl_ca_certs={certificate / 'cert'}"
        backend = clients.connect(f"rediss://{host}:{port}/0{trust}")
        with pytest.raises(Exception, match="no connection") as caught:
            backend.get("a", KEYS[:1])
        assert "connection" == caught.value.reason
