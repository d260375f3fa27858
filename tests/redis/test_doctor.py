"""``accelerator doctor`` against real servers, and users who may not do everything."""

import json
import re
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from accelerator import cli, remote
from accelerator.config import Settings
from accelerator.demo.redis_server import HOST, RedisServer
from accelerator.remote.probe import PINGS, needed

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "how-to" / "use-redis.md"
ORIGIN = bytes(16)


def rights_of_the_page() -> list[str]:
    """The user that the documentation describes, without its name and password."""
    [line] = re.findall(r"^ACL SETUSER shop (.*)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    return [word for word in line.split() if not word.startswith(">")]


def look(url: Any, areas: tuple[str, ...] = ("users",), **settings: Any) -> remote.Seen:
    client = remote.connect(Settings(redis=url, namespace="shop", redis_timeout=5.0, **settings))
    try:
        return remote.probe(client, areas, ORIGIN)
    finally:
        client.close()


@pytest.fixture
def as_user(server: RedisServer) -> Callable[..., str]:
    """Make a user with the rights of the documentation, changed by *rules*; its URL."""

    def make(*rules: str) -> str:
        server.command("ACL", "SETUSER", "shop", "reset")
        server.command("ACL", "SETUSER", "shop", *rights_of_the_page(), ">secret", *rules)
        return f"redis://shop:secret@{HOST}:{server.port}/0"

    return make


class TestProbe:
    def test_fine(self, server: RedisServer) -> None:
        """Everything that there is to see of a server that lets us do all."""
        seen = look(server.url)
        assert (None, (), (), ()) == (
            seen.error,
            tuple(seen.denied),
            tuple(seen.missing),
            tuple(seen.refusals),
        )
        assert PINGS == len(seen.pings)
        assert seen.info is not None
        assert "master" == seen.info["role"]
        assert seen.clock == pytest.approx(0.0, abs=0.2 + seen.clock_error)
        assert {"accelerator:invalidation:shop:users": 0} == {
            name: number for name, number in (seen.subscribers or {}).items() if "inval" in name
        }

    def test_changes_nothing(self, server: RedisServer, make_monitor: Callable[..., Any]) -> None:
        """Not a key is written, nothing is published, and EXEC never follows a command."""
        monitor = make_monitor(server)
        look(server.url)
        assert b":0" in server.command("DBSIZE")
        commands = [words[0].upper() for words in monitor.commands()]
        # MONITOR shows what is executed: what was queued and forgotten is not among it.
        assert {"PING", "TIME", "INFO", "PUBSUB", "SUBSCRIBE", "MULTI", "EXEC"} >= (
            set(commands) - {"CLIENT", "SELECT", "HELLO", "DBSIZE", "ECHO"}
        )

    def test_rights_of_the_documentation(self, as_user: Callable[..., str]) -> None:
        """The user that the documentation describes may do all that is tried."""
        seen = look(as_user())
        assert (None, []) == (seen.error, seen.denied)
        assert None is not seen.info
        assert None is seen.subscribers  # PUBSUB is not among what the application needs

    def test_tries_what_is_documented(self) -> None:
        """And what is tried is what the documentation lists."""
        listed = {word[1:] for word in rights_of_the_page() if word.startswith("+")}
        tried = {words[0].lower() for words in needed("shop", "users", ORIGIN)}
        # Connecting needs the last two, INFO and SUBSCRIBE are used and not only queued.
        others = {"multi", "exec", "info", "subscribe", "select", "client|setinfo"}
        assert listed == tried | others

    @pytest.mark.parametrize(
        "command",
        ["get", "mget", "set", "del", "getrange", "setrange", "pttl", "pexpire", "persist", "incr",
         "incrby", "time", "xadd", "xrange", "publish", "subscribe", "ping", "eval", "evalsha",
         "multi", "exec"],
    )  # fmt: skip
    def test_each_right(self, as_user: Callable[..., str], command: str) -> None:
        """Each command that is taken away is missed, and no other."""
        seen = look(as_user(f"-{command}"))
        assert None is seen.error
        names = {told.partition(" ")[0].lower() for told in seen.denied}
        assert {command} == names

    def test_info(self, as_user: Callable[..., str]) -> None:
        """Without INFO the rest goes on."""
        seen = look(as_user("-info"))
        assert (None, None, []) == (seen.error, seen.info, seen.denied)

    @pytest.mark.parametrize(
        ("rules", "denied"),
        [
            (("resetkeys", "~other:*"), "GET shop:{users:"),
            (("resetchannels", "&accelerator:heartbeat:shop:*"), "SUBSCRIBE accelerator:inval"),
            (("resetchannels", "&accelerator:invalidation:shop:*"), "PUBLISH accelerator:heart"),
        ],
    )
    def test_patterns(
        self, as_user: Callable[..., str], rules: tuple[str, ...], denied: str
    ) -> None:
        """Keys and channels that the user may not touch."""
        assert [told for told in look(as_user(*rules)).denied if told.startswith(denied)]

    @pytest.mark.parametrize(
        ("url", "code"), [("shop:wrong@", "WRONGPASS"), ("", "NOAUTH")], ids=["wrong", "none"]
    )
    def test_password(
        self, as_user: Callable[..., str], server: RedisServer, url: str, code: str
    ) -> None:
        """A wrong password, and none where one is needed."""
        as_user()
        server.command("ACL", "SETUSER", "default", "off")
        seen = look(f"redis://{url}{HOST}:{server.port}/0")
        assert code == seen.code
        assert seen.error is not None
        assert "wrong" not in seen.error

    def test_renamed(self) -> None:
        """Commands that the server does not have."""
        with RedisServer("rename-command", 'XADD ""') as server:
            assert ["XADD"] == look(server.url).missing

    def test_full(self, server: RedisServer) -> None:
        """A full server refuses writes."""
        server.config("maxmemory", "1")
        assert ["OOM"] == look(server.url).refusals

    def test_replica(self, server: RedisServer) -> None:
        """A replica takes none."""
        with RedisServer("replicaof", f"{HOST} {server.port}") as replica:
            seen = look(replica.url)
            assert "READONLY" in seen.refusals
            assert seen.info is not None
            assert "slave" == seen.info["role"]

    def test_database(self, server: RedisServer) -> None:
        """Channels carry the number of the database."""
        seen = look(f"redis://{HOST}:{server.port}/3")
        assert 3 == seen.where["db"]
        assert all(name.endswith("@3") for name in seen.subscribers or {})

    def test_cluster(self, cluster: tuple[str, int]) -> None:
        """What lies on another node is not taken for a right that lacks."""
        import redis

        with redis.RedisCluster(*cluster, protocol=2) as client:
            for area in ("users", "prices", "pages", "other"):
                seen = look(client, (area,))
                assert (None, [], [], []) == (
                    seen.error,
                    seen.denied,
                    seen.missing,
                    seen.refusals,
                )

    def test_away(self) -> None:
        """Nobody there: what the operating system says of it."""
        with socket.socket() as probe:
            probe.bind((HOST, 0))
            seen = look(f"redis://{HOST}:{probe.getsockname()[1]}/0")
        assert seen.error is not None
        assert seen.error.endswith("Connection refused")

    def test_silent(self) -> None:
        """Somebody who accepts, and never answers."""
        with socket.socket() as silent:
            silent.bind((HOST, 0))
            silent.listen()
            address = f"redis://{HOST}:{silent.getsockname()[1]}/0"
            client = remote.connect(Settings(redis=address, namespace="shop", redis_timeout=0.2))
            try:
                seen = remote.probe(client, (), ORIGIN)
            finally:
                client.close()
        assert seen.error is not None
        assert "did not answer in time" in seen.error

    def test_garbage(self) -> None:
        """Somebody who is no Redis."""
        with socket.socket() as other:
            other.bind((HOST, 0))
            other.listen()

            def answer() -> None:
                for _ in range(2):
                    connection, _ = other.accept()
                    with connection:
                        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 50)

            thread = threading.Thread(target=answer, daemon=True)
            thread.start()
            seen = look(f"redis://{HOST}:{other.getsockname()[1]}/0")
        assert seen.error is not None

    def test_unix_socket(self, server: RedisServer) -> None:
        """As well."""
        assert None is look(f"unix://{server.socket}").error


class TestDoctor:
    @pytest.fixture
    def host(self, make_host: Callable[..., Any]) -> Any:
        return make_host({"users": {}, "prices": {}}, workers=2)

    @pytest.fixture
    def run(
        self,
        host: Any,
        url: str,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> Callable[..., tuple[int, dict[str, Any]]]:
        def run(**variables: str) -> tuple[int, dict[str, Any]]:
            told = {"NAME": host.name, "NAMESPACE": host.settings["namespace"], "REDIS": url}
            for name, value in {**told, **variables}.items():
                monkeypatch.setenv(f"ACCELERATOR_{name}", value)
            status = cli.main(["doctor", "--json"])
            shown = json.loads(capsys.readouterr().out)
            return status, {it["check"]: it for it in shown["findings"]}

        return run

    def test_host(self, run: Callable[..., Any]) -> None:
        """A host with two workers: one of them listens, for both areas."""
        status, found = run()
        assert 0 == status
        assert "answers" in found["redis"]["what"]
        assert "users 1" in found["subscribers"]["what"]
        assert "prices 1" in found["subscribers"]["what"]
        assert "2 areas in step" in found["listener"]["what"]

    def test_another_redis(self, run: Callable[..., Any], server: RedisServer) -> None:
        """The application uses another Redis than the settings of this shell say."""
        status, found = run(REDIS=server.url)
        assert 1 == status
        assert "no subscriber of it" in found["subscribers"]["what"]

    def test_listener_command(self, host: Any, capsys: pytest.CaptureFixture[str]) -> None:
        """The listener command agrees with the host."""
        leader = host.leading_worker()
        assert 0 == cli.main(["listener", "--json", "--name", host.name])
        shown = json.loads(capsys.readouterr().out)
        assert leader.pid == shown["listener"]["pid"]
        assert {"users", "prices"} == {
            name for name, area in shown["areas"].items() if area["in_step"]
        }

    def test_top(self, host: Any, capsys: pytest.CaptureFixture[str]) -> None:
        """A frame with Redis in it."""
        host.call("users.set", 1, 2)
        assert 0 == cli.main(["top", "--once", "--interval", "0.1", "--name", host.name])
        shown = capsys.readouterr().out
        assert f"listener pid {host.leading_worker().pid}" in shown
        assert [] == [
            line for line in shown.splitlines() if line.startswith("users") and "yes" not in line
        ]
