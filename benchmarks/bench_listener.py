"""
How fast does a host hear what others have changed?

    python benchmarks/bench_listener.py [--messages N] [--rounds N] [--json FILE]

Three questions, each with a Redis of its own:

- drain: the listener is stopped (SIGSTOP) while N invalidations of one key each come, and then
  goes on.  From then until all are applied.
- latency: another host deletes a key.  From before its call until a process of this host, which is
  not the one that listens, finds the key gone; and until its call has returned.
- take-over: the leader of three processes is killed, stopped or ended.  From the signal until
  another one leads.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import sys
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "redis"))

import listening

import accelerator
from accelerator import local, message, runtime
from accelerator.demo.redis_server import RedisServer

if TYPE_CHECKING:
    from collections.abc import Callable

OTHER = b"b" * 32


class Process:
    """A forked process that listens, and runs what it is given."""

    def __init__(self, url: str, body: Callable[[Any, Any], None], name: str = "") -> None:
        self._reading, writing = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            self._run(url, body, name, writing)
        os.close(writing)

    @staticmethod
    def _run(url: str, body: Callable[[Any, Any], None], name: str, writing: int) -> None:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        if name:
            accelerator.attach(name=name)
        host = listening.Host(url, runtime.current().memory if name else None)
        host.listener.start()

        def tell(what: Any) -> None:
            os.write(writing, json.dumps(what).encode() + b"\n")

        try:
            body(host, tell)
        except SystemExit:
            host.listener.stop()
        finally:
            os._exit(0)

    def hear(self) -> Any:
        line = b""
        while not line.endswith(b"\n"):
            part = os.read(self._reading, 1)
            if not part:
                raise SystemExit("a process has ended too soon")
            line += part
        return json.loads(line)

    def end(self, number: int = signal.SIGKILL) -> None:
        os.kill(self.pid, signal.SIGCONT)
        os.kill(self.pid, number)
        os.waitpid(self.pid, 0)


def idle(_: Any, tell: Callable[[Any], None]) -> None:
    """Listen, and nothing else."""
    tell("ready")
    while True:
        signal.pause()


# --- drain --------------------------------------------------------------------------------------


def drain(messages: int, keys: int) -> float:
    """Invalidations applied in a second, after a backlog of so many with so many keys each."""

    def body(host: Any, tell: Callable[[Any], None]) -> None:
        began: list[float] = []
        host.catch_up()
        for number in range(1_000):
            host.store(f"key{number}")
        signal.signal(signal.SIGCONT, lambda *_: began.append(time.monotonic()))
        first = host.memory.area_state(listening.AREA)[1]
        tell(first)
        while host.memory.area_state(listening.AREA)[1] < first + messages:
            time.sleep(0.002)
        tell([time.monotonic() - began[-1], host.count("flush"), host.count("replayed")])
        signal.pause()

    # As much may wait for a subscriber as comes here.
    with RedisServer("client-output-buffer-limit", "pubsub 0 0 0") as server:
        process = Process(server.url, body)
        first = process.hear()
        os.kill(process.pid, signal.SIGSTOP)
        host = listening.Host(server.url)
        client = host.remote._own_client()
        client.connection_pool.connection_kwargs["socket_timeout"] = 60
        channel = host.remote.channel(listening.AREA)
        for start in range(0, messages, 5_000):
            pipeline = client.pipeline(transaction=False)
            for number in range(start, min(messages, start + 5_000)):
                names = [b"skey%d" % ((number * keys + k) % 100_000) for k in range(keys)]
                body_bytes = message.body(message.FORGET, names, [0] * keys)
                data = b"1 %s %d %s" % (OTHER, first + 1 + number, body_bytes)
                pipeline.execute_command("PUBLISH", channel, data)
            pipeline.execute()
        seq = host.remote.plans.names(listening.AREA).seq
        client.execute_command("SET", seq, first + messages)
        os.kill(process.pid, signal.SIGCONT)
        seconds, flushes, replayed = process.hear()
        if flushes or replayed:
            raise SystemExit(f"{flushes} flushes and {replayed} replayed: not what is measured")
        process.end()
        return messages / seconds


# --- latency ------------------------------------------------------------------------------------


def latency(rounds: int) -> dict[str, float]:
    """Milliseconds until a delete of another host is seen."""
    name = f"bench-{uuid.uuid4().hex[:12]}"
    with RedisServer() as server:
        accelerator.attach(name=name, size="4MiB")
        here = listening.Host(server.url, runtime.current().memory)
        process = Process(server.url, idle, name)
        process.hear()
        there = listening.Host(server.url)
        assert listening.wait_until(lambda: here.memory.area_state(listening.AREA)[0])
        seen, returned = [], []
        for number in range(rounds):
            key = f"key{number}"
            here.store(key)
            time.sleep(0.002)  # no back to back: as it comes in real life
            began = time.perf_counter()
            there.delete(key)
            back = time.perf_counter()
            while here.has(key):
                pass
            seen.append((time.perf_counter() - began) * 1e3)
            returned.append((back - began) * 1e3)
        process.end()
    accelerator.detach()
    seen.sort()
    return {
        "seen_median_ms": statistics.median(seen),
        "seen_p99_ms": seen[int(len(seen) * 0.99)],
        "seen_max_ms": seen[-1],
        "returned_median_ms": statistics.median(returned),
    }


# --- take-over ----------------------------------------------------------------------------------


def take_over(rounds: int) -> dict[str, dict[str, float]]:
    """Milliseconds until another process leads."""
    found = {}
    for number in (signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM):
        times = [take_over_once(number) for _ in range(rounds)]
        found[number.name] = {"median_ms": statistics.median(times), "max_ms": max(times)}
    return found


def take_over_once(number: int) -> float:
    """Do it once, in a new segment."""
    name = f"bench-{uuid.uuid4().hex[:12]}"
    with RedisServer() as server:
        accelerator.attach(name=name, size="4MiB")
        memory: Any = runtime.current().memory
        processes = [Process(server.url, idle, name) for _ in range(3)]
        for process in processes:
            process.hear()
        assert listening.wait_until(lambda: memory.area_state(listening.AREA)[0])
        leader = memory.leader()["pid"]
        began = time.perf_counter()
        os.kill(leader, number)
        while memory.leader()["pid"] in {0, leader}:
            time.sleep(0.0002)
        taken = (time.perf_counter() - began) * 1e3
        for process in processes:
            process.end()
    accelerator.detach()
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--messages", type=int, default=75_000)
    parser.add_argument("--rounds", type=int, default=1_000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if not local.NATIVE:
        raise SystemExit("needs the native part: processes share a segment")
    result: dict[str, Any] = {}
    for keys in (1, 10):
        count = options.messages // keys
        rates = [drain(count, keys) for _ in range(3)]
        result[f"drain_{keys}"] = {"per_second": statistics.median(rates), "of": count}
        print(
            f"drain: {statistics.median(rates):,.0f} invalidations a second of {keys} keys each "
            f"(three runs of {count:,}: {', '.join(f'{rate:,.0f}' for rate in rates)})"
        )
    result["latency"] = found = latency(options.rounds)
    print(
        f"latency: seen on the other host after {found['seen_median_ms']:.2f} ms "
        f"(p99 {found['seen_p99_ms']:.2f}, most {found['seen_max_ms']:.2f}); the delete itself "
        f"returned after {found['returned_median_ms']:.2f} ms"
    )
    result["take_over"] = take_over(max(3, options.rounds // 100))
    for name, times in result["take_over"].items():
        print(
            f"take-over after {name}: {times['median_ms']:.0f} ms, at most {times['max_ms']:.0f} ms"
        )
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
