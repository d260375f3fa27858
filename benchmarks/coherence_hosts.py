"""
Hosts of the experiments on staleness: a segment each, workers that read, and one that writes.

Beside the cache every worker has what one writes without it: a dict, a thread that listens to a
channel of Redis with redis-py and drops what it hears of, and a new subscription with an empty dict
whenever redis-py says that the connection was lost.
"""

import contextlib
import os
import queue
import random
import signal
import sys
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import harness
from coherence_ledger import DELETED, KEYS, OURS, PLAIN, Ledger

PLAIN_CHANNEL: Final = "plain"
PLAIN_TTL: Final = 60.0
"""Life of a value in the dict: the default of the cache's local_ttl."""
PACE: Final = 0.005
"""Seconds between two rounds of reads of a worker."""
READS: Final = 4
"""Keys that are read in a round, by each contestant."""
SLOW_LOADS: Final = 0.25
"""Share of loads that take a while between reading the source of truth and returning."""
SLOW_LOAD: Final = 0.005
"""Seconds that they take at most."""
WRITES: Final = (24.0, 8.0)
"""Writes a second of each host."""
ELSEWHERE: Final = 0.15
"""Share of the deletes that the other host's cache is told of."""
SHM: Final = Path("/dev/shm")

AREAS: Final[Mapping[str, Mapping[str, Any]]] = {"deleted": {}, "set": {}}

Role = Callable[[Ledger, int, int, dict[str, Any]], None]


def name_of(key: int) -> str:
    """The key as the cache knows it."""
    return f"item:{key}"


def area_of(key: int) -> str:
    return "deleted" if key < DELETED else "set"


class Host:
    """
    One segment and its processes.

    Args:
        number: 0 or 1.
        url: Of Redis, as this host reaches it.
        namespace: Of both hosts.
        ledger: What is shared.
        roles: What each of its processes does; called with the ledger, the number of the process
            among all, the number of the host, and its settings.
        settings: More of them.
    """

    def __init__(
        self,
        number: int,
        url: str,
        namespace: str,
        ledger: Ledger,
        roles: Sequence[Role],
        **settings: Any,
    ) -> None:
        self.number = number
        self.letter = "AB"[number]
        self._ledger = ledger
        self._settings = {
            "name": f"bench-{uuid.uuid4().hex[:12]}",
            "namespace": namespace,
            "redis": url,
            "size": "8MiB",
            "strict": True,
            **settings,
        }
        self._roles = roles
        self._slots = range(number * len(roles), (number + 1) * len(roles))
        self._pids: dict[int, int] = {}

    def start(self) -> None:
        """Fork the processes."""
        for slot in self._slots:
            self._fork(slot)

    def _fork(self, slot: int) -> None:
        role = self._roles[slot - self._slots[0]]
        sys.stdout.flush()
        pid = os.fork()
        if pid:
            self._pids[pid] = slot
            return
        status = 1
        try:
            harness.die_with_parent()
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            role(self._ledger, slot, self.number, self._settings)
            status = 0
        except SystemExit:
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)

    @property
    def leader(self) -> int | None:
        """The process that listens, as its workers last said."""
        pid = int(self._ledger.leaders[self.number])
        return pid if pid in self._pids else None

    def replace(self, pid: int) -> None:
        """Kill a process, and fork another for it."""
        slot = self._pids.pop(pid)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        self._fork(slot)

    def check(self) -> None:
        """Raise if a process has ended by itself."""
        for pid, slot in self._pids.items():
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                raise RuntimeError(f"process {slot} of host {self.letter} ended: status {status}")

    def signal(self, pid: int, number: int) -> None:
        """Send a signal to one of its processes."""
        if pid in self._pids:
            os.kill(pid, number)

    def join(self, patience: float = 20.0) -> None:
        """Wait for the end of all processes, which the ledger has announced."""
        deadline = time.monotonic() + patience
        for pid in list(self._pids):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
            while not os.waitpid(pid, os.WNOHANG)[0]:
                if time.monotonic() > deadline:
                    print(f"process {self._pids[pid]} had to be killed", flush=True)
                    os.kill(pid, signal.SIGKILL)
                    os.waitpid(pid, 0)
                    break
                time.sleep(0.01)
            del self._pids[pid]

    def close(self) -> None:
        """Kill what is left, and remove the segment."""
        for pid in self._pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        self._pids.clear()
        for path in SHM.glob(f"accelerator.*.{self._settings['name']}.*"):
            path.unlink()


# --- in the processes -----------------------------------------------------------------------------


class Caches:
    """
    The areas of a process, and their loader.

    Args:
        ledger: The source of truth.
        slot: Number of the process among all.
        settings: For attach().
        areas: Options of each.
        slow_loads: Share of loads that take a while.
    """

    def __init__(
        self,
        ledger: Ledger,
        slot: int,
        settings: dict[str, Any],
        areas: Mapping[str, Mapping[str, Any]] = AREAS,
        slow_loads: float = 0.0,
    ) -> None:
        import accelerator  # noqa: PLC0415  the controlling process does not need it
        from accelerator import runtime  # noqa: PLC0415

        self._ledger = ledger
        self._slot = slot
        accelerator.attach(**settings)
        self.areas = {
            area: accelerator.LevelCache(area, loader=self.load, **options)
            for area, options in areas.items()
        }
        attachment = runtime.current()
        self.memory: Any = attachment.memory
        self.second: Any = attachment.second
        self._chance = random.Random(slot)
        self._slow_loads = slow_loads

    def load(self, name: str) -> dict[str, int]:
        """Ask the source of truth, as the loader of an area."""
        self._ledger.loads[self._slot] += 1
        return {"version": self.version(int(name.partition(":")[2]))}

    def version(self, key: int) -> int:
        """Ask the source of truth; some of its answers are on their way for a while."""
        version = self._ledger.version(key)
        if self._chance.random() < self._slow_loads:
            time.sleep(self._chance.uniform(0, SLOW_LOAD))
        return version

    def of(self, key: int) -> Any:
        return self.areas[area_of(key)]

    def leader(self) -> float:
        return float(self.memory.leader()["pid"])


def reader(ledger: Ledger, slot: int, host: int, settings: dict[str, Any]) -> None:
    """Read as a worker does, until the experiment is over."""
    caches = Caches(ledger, slot, settings, slow_loads=SLOW_LOADS)
    plain = Plain(settings["redis"], caches.version)
    chance = random.Random(os.getpid())
    complaint = Complaint()
    while not ledger.stopped:
        time.sleep(PACE)
        ledger.leaders[host] = caches.leader()
        for _ in range(READS):
            key = chance.randrange(KEYS)
            name, cache = name_of(key), caches.of(key)
            began = time.monotonic()
            try:
                version = cache.get(name)["version"]
            except Exception:
                complaint.raised()
                version = -1
            ended = time.monotonic()
            ledger.record(slot, OURS, key, version, began, ended)
            began = time.monotonic()
            version = plain.get(key)
            ledger.record(slot, PLAIN, key, version, began, time.monotonic())


def writer(ledger: Ledger, slot: int, host: int, settings: dict[str, Any]) -> None:
    """Commit, and tell the cache, until the experiment is over."""
    caches = Caches(ledger, slot, settings, slow_loads=SLOW_LOADS)
    chance = random.Random(os.getpid())
    own = [key for key in range(KEYS) if (key % 4 == 3) == (host == 1)]
    publisher = PlainPublisher(settings["redis"])
    queued = Queued(caches)
    due = time.monotonic()
    while not ledger.stopped:
        time.sleep(max(0.001, min(0.01, due - time.monotonic())))
        if host == 1:
            for key, version in ledger.posted():
                tell(ledger, caches, key, version, queued)
        if not ledger.writing or time.monotonic() < due:
            continue
        due = max(due, time.monotonic() - 0.1) + chance.expovariate(WRITES[host])
        key = chance.choice(own)
        version = ledger.commit(key)
        publisher.publish(key)
        if host == 0 and key < DELETED and chance.random() < ELSEWHERE:
            ledger.post(key, version)
        else:
            tell(ledger, caches, key, version, queued)


def tell(ledger: Ledger, caches: Caches, key: int, version: int, queued: "Queued") -> None:
    """Tell the cache of a commit."""
    from accelerator import BackendError  # noqa: PLC0415

    name, cache = name_of(key), caches.of(key)
    ledger.called(key, version)
    if key < DELETED:
        try:
            cache.delete(name, on_error="raise")
        except BackendError as error:
            if not error.queued:
                raise
            ledger.returned(key, version, queued=True)
        else:
            ledger.returned(key, version, queued=False)
    else:
        cache.set(name, {"version": version})
        ledger.returned(key, version, queued=queued.risen())


class Queued:
    """Whether a set was queued: this process is the only one of its host that sets."""

    def __init__(self, caches: Caches) -> None:
        self._cache = caches.areas["set"]
        self._count = self._read()

    def _read(self) -> int:
        return int(self._cache.metrics_snapshot()["invalidation_queued"])

    def risen(self) -> bool:
        before, self._count = self._count, self._read()
        return self._count > before


class Complaint:
    """Shows the first error of a process in full."""

    def __init__(self) -> None:
        self._said = False

    def raised(self) -> None:
        if not self._said:
            self._said = True
            traceback.print_exc()


# --- plain pub/sub --------------------------------------------------------------------------------


class Plain:
    """A dict of this process, and a thread that drops what it hears of."""

    def __init__(self, url: str, load: Callable[[int], int]) -> None:
        self._url = url
        self._load = load
        self._values: dict[int, tuple[int, float]] = {}
        threading.Thread(target=self._listen, daemon=True).start()

    def get(self, key: int) -> int:
        now = time.monotonic()
        found = self._values.get(key)
        if found is not None and now < found[1]:
            return found[0]
        version = self._load(key)
        self._values[key] = (version, now + PLAIN_TTL)
        return version

    def _listen(self) -> None:
        import redis  # noqa: PLC0415

        while True:
            # As usual: errors show that the connection was lost, and what was cached is dropped.
            try:
                client = redis.Redis.from_url(self._url, socket_timeout=5, health_check_interval=5)
                subscription = client.pubsub()
                subscription.subscribe(PLAIN_CHANNEL)
                while True:
                    message = subscription.get_message(timeout=1.0)
                    if message is None:
                        continue
                    if message["type"] == "subscribe":
                        self._values.clear()  # also after a reconnect that redis-py made by itself
                    elif message["type"] == "message":
                        self._values.pop(int(message["data"]), None)
            except (redis.RedisError, OSError):
                self._values.clear()
                time.sleep(0.1)


class PlainPublisher:
    """Publishes in a thread, so that neither contestant waits for the other."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._keys: queue.SimpleQueue[int] = queue.SimpleQueue()
        threading.Thread(target=self._run, daemon=True).start()

    def publish(self, key: int) -> None:
        self._keys.put(key)

    def _run(self) -> None:
        import redis  # noqa: PLC0415

        client = redis.Redis.from_url(self._url, socket_timeout=0.5, socket_connect_timeout=0.5)
        while True:
            key = self._keys.get()
            with contextlib.suppress(redis.RedisError, OSError):
                client.publish(PLAIN_CHANNEL, key)
