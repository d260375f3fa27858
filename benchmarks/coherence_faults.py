"""
What happens to Redis, to the way to it, and to the workers that listen, about every second.

Faults are of three kinds, of which one each can be in force: in the server, on the way (each host
has a proxy of its own in front of Redis), and in a host.  A fault is begun by its function, which
returns for how long it is to last and what ends it.
"""

import multiprocessing
import random
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import harness
from coherence_hosts import Host
from coherence_ledger import Ledger
from coherence_recorder import FLOOD

from accelerator.demo.fault_proxy import FaultProxy
from accelerator.demo.redis_server import RedisServer

ADMIN: Final = "bench"
"""A user that no fault locks out."""
SERVER, WAY, HOST = "server", "way", "host"
PASSWORD: Final = "some"
LONG_STOP: Final = 10.0
LONG: Final = {"long stop", "slow listener"}
"""What takes ten seconds and more would hide the others if it came as often."""

Ending = Callable[[], object]
Begun = tuple[float, Ending | None]
"""Seconds until it is to end, and what ends it; None: it has happened."""

_FLOOD: Final = """
for i = 1, tonumber(ARGV[2]) do
  local seq = string.format('%.0f', redis.call('INCR', KEYS[1]))
  local message = ARGV[3] .. seq .. ' ' .. ARGV[4]
  redis.call('XADD', KEYS[2], 'MAXLEN', '~', '100000', seq .. '-0', 'm', message)
  redis.call('PUBLISH', ARGV[1], message)
end
"""


class Happened(NamedTuple):
    """A fault that was."""

    what: str
    where: str
    """Lane."""
    began: float
    ended: float


@dataclass
class Running:
    what: str
    where: str
    began: float
    until: float
    end: Ending | None


class Faults:
    """
    Begins and ends faults; nothing here waits for long, and nothing is threaded, as it forks.

    Args:
        server: Started with admin_options().
        proxies: One for each host.
        hosts: Both.
        ledger: What is shared.
        namespace: Of the hosts.
        flood: Invalidations of a slow listener's fault.
    """

    def __init__(
        self,
        server: RedisServer,
        proxies: Sequence[FaultProxy],
        hosts: Sequence[Host],
        ledger: Ledger,
        namespace: str,
        flood: int,
    ) -> None:
        self._server = server
        self._proxies = proxies
        self._hosts = hosts
        self._ledger = ledger
        self._namespace = namespace
        self._flood = flood
        self._chance = random.Random(4)
        self._running: list[Running] = []
        self._stock: list[str] = []
        self._decks = 0
        self._slowed = 0.0
        self._flooding: Any = None
        self.happened: list[Happened] = []

    # --- in order of time ---

    def busy(self, lane: str) -> bool:
        return any(one.where == lane for one in self._running)

    def begin_any(self, only: Sequence[str] | None = None) -> str | None:
        """Begin a fault of a kind that did not happen for long; None: all lanes are busy."""
        if not self._stock:
            self._decks += 1
            all_of_them = self._decks % 3 == 1 or only
            self._stock = [one for one in only or KINDS if all_of_them or one not in LONG]
            self._chance.shuffle(self._stock)
        for place, what in enumerate(self._stock):
            lanes = KINDS[what]
            if not any(self.busy(lane) for lane in lanes):
                del self._stock[place]
                self.begin(what)
                return what
        return None

    def begin(self, what: str) -> None:
        began = time.monotonic()
        seconds, end = getattr(self, f"_{what.replace(' ', '_').replace('-', '_')}")()
        for lane in KINDS[what]:
            self._running.append(Running(what, lane, began, time.monotonic() + seconds, end))
            end = None

    def turn(self) -> None:
        """End what is to end; to be called every few milliseconds."""
        now = time.monotonic()
        for one in [one for one in self._running if one.until <= now]:
            if one.what == "slow listener" and self._flooding.is_alive():
                one.until = now + 0.1
            else:
                self._end(one)
        self._pulse(now)

    def _end(self, one: Running) -> None:
        self._running.remove(one)
        if one.end is not None:
            one.end()
        self.happened.append(Happened(one.what, one.where, one.began, time.monotonic()))

    def end_all(self) -> None:
        for one in sorted(self._running, key=lambda one: one.until):
            while time.monotonic() < one.until and one.end is None:
                time.sleep(0.01)  # what ends by itself would hold us up
                self._pulse(time.monotonic())
            self._end(one)
        self._slowed = 0.0

    # --- the server ---

    def _admin(self) -> Any:
        return admin(self._server)

    def _execute(self, *words: str) -> None:
        client = self._admin()
        client.execute_command(*words)
        client.close()

    def _kill_and_restart(self) -> Begun:
        self._server.kill()
        return self._chance.uniform(0.05, 1.5), self._restart

    def _restart(self) -> None:
        self._ledger.redis_started = time.monotonic()
        self._server.start()

    def _stop(self) -> Begun:
        self._server.stop()
        return self._chance.uniform(0.2, 3.0), self._server.resume

    def _long_stop(self) -> Begun:
        self._server.stop()
        return LONG_STOP, self._server.resume

    def _client_kill_pubsub(self) -> Begun:
        self._execute("CLIENT", "KILL", "TYPE", "pubsub")
        return 0.2, None

    def _client_kill_normal(self) -> Begun:
        self._execute("CLIENT", "KILL", "TYPE", "normal")
        return 0.2, None

    def _client_pause(self) -> Begun:
        seconds = self._chance.uniform(0.3, 3.0)
        self._execute("CLIENT", "PAUSE", str(int(seconds * 1000)), "ALL")
        return seconds, None

    def _flushall(self) -> Begun:
        self._execute("FLUSHALL")
        return 0.2, None

    def _readonly(self) -> Begun:
        self._execute("REPLICAOF", "127.0.0.1", "1")
        return self._chance.uniform(0.3, 3.0), lambda: self._execute("REPLICAOF", "NO", "ONE")

    def _noauth(self) -> Begun:
        self._execute("CONFIG", "SET", "requirepass", PASSWORD)
        self._execute("CLIENT", "KILL", "TYPE", "normal")
        self._execute("CLIENT", "KILL", "TYPE", "pubsub")
        return (
            self._chance.uniform(0.3, 3.0),
            lambda: self._execute("CONFIG", "SET", "requirepass", ""),
        )

    def _oom(self) -> Begun:
        self._execute("CONFIG", "SET", "maxmemory", "1")
        return (
            self._chance.uniform(0.3, 3.0),
            lambda: self._execute("CONFIG", "SET", "maxmemory", "0"),
        )

    def _slow_listener(self) -> Begun:
        self._flooding = multiprocessing.get_context("fork").Process(
            target=_run_flood, args=(self._server, self._namespace, self._flood), daemon=True
        )
        self._flooding.start()
        self._slowed = time.monotonic()
        return max(2.0, self._flood / 100_000), self._end_flood

    def _end_flood(self) -> None:
        self._flooding.join(30)
        self._slowed = 0.0
        self._resume_leaders()

    def _pulse(self, now: float) -> None:
        """Slow the leader of host B: it runs for a fifth of the time, and stays the leader."""
        if not self._slowed or now < self._slowed:
            return
        host = self._hosts[1]
        if host.leader is None:
            return
        pid = host.leader
        host.signal(pid, signal.SIGSTOP)
        time.sleep(0.16)
        host.signal(pid, signal.SIGCONT)
        self._slowed = time.monotonic() + 0.04

    def _resume_leaders(self) -> None:
        for host in self._hosts:
            if host.leader is not None:
                host.signal(host.leader, signal.SIGCONT)

    # --- the way ---

    def _some(self) -> list[FaultProxy]:
        """The way of one host, or of both."""
        return self._chance.choice([[self._proxies[0]], [self._proxies[1]], list(self._proxies)])

    def _switched(self, mode: str, longest: float, **more: float) -> Begun:
        chosen = self._some()
        for proxy in chosen:
            proxy.mode(mode, **more)
        return self._chance.uniform(0.3, longest), lambda: [proxy.mode("pass") for proxy in chosen]

    def _half_open(self) -> Begun:
        return self._switched("half_open", 4.0)

    def _stall(self) -> Begun:
        return self._switched("stall", 3.0)

    def _delay(self) -> Begun:
        return self._switched("delay", 3.0, seconds=0.3)

    def _reset(self) -> Begun:
        for proxy in self._some():
            proxy.reset()
        return 0.2, None

    # --- a host ---

    def _leader_killed(self) -> Begun:
        host = self._chance.choice(self._hosts)
        if host.leader is not None:
            host.replace(host.leader)
        return 0.2, None

    def _leader_stopped(self) -> Begun:
        host = self._chance.choice(self._hosts)
        pid = host.leader
        if pid is None:
            return 0.0, None
        host.signal(pid, signal.SIGSTOP)
        return self._chance.uniform(0.3, 4.0), lambda: host.signal(pid, signal.SIGCONT)


KINDS: Final[dict[str, tuple[str, ...]]] = {
    "kill and restart": (SERVER,),
    "stop": (SERVER,),
    "long stop": (SERVER,),
    "client kill pubsub": (SERVER,),
    "client kill normal": (SERVER,),
    "client pause": (SERVER,),
    "flushall": (SERVER,),
    "readonly": (SERVER,),
    "noauth": (SERVER,),
    "oom": (SERVER,),
    "slow listener": (SERVER, HOST),
    "half-open": (WAY,),
    "stall": (WAY,),
    "delay": (WAY,),
    "reset": (WAY,),
    "leader killed": (HOST,),
    "leader stopped": (HOST,),
}
"""Each fault, and the lanes that it takes."""


def admin_options() -> tuple[str, ...]:
    """Options of the server under test."""
    return ("user", f"{ADMIN} on >{PASSWORD} ~* &* +@all")


def admin(server: RedisServer) -> Any:
    """Make a client past all proxies."""
    import redis  # noqa: PLC0415

    return redis.Redis(
        unix_socket_path=server.socket, username=ADMIN, password=PASSWORD, socket_timeout=15
    )


def _run_flood(server: RedisServer, namespace: str, count: int) -> None:
    """Write as another host would that has nothing else to do."""
    import redis  # noqa: PLC0415

    from accelerator import local, message  # noqa: PLC0415
    from accelerator.remote.names import Names  # noqa: PLC0415

    harness.die_with_parent()
    names = Names(namespace, "deleted")
    client = admin(server)
    head = f"1 {'f' * 32} ".encode()
    portion = 500
    try:
        script = client.register_script(_FLOOD)
        for start in range(0, count, portion):
            body = message.body(message.FORGET, [local.encode_key(f"{FLOOD}{start}")], [0])
            script(keys=[names.seq, names.log], args=[names.channel, portion, head, body])
    except redis.RedisError as error:
        print(f"  the flood ended early: {error}", flush=True)


def schedule(chance: random.Random) -> Iterator[float]:
    """Pauses between the beginnings of faults: a second on average."""
    while True:
        yield chance.uniform(0.6, 1.4)
