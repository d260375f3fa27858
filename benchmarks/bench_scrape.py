"""
What a look at a busy host costs: 64 workers, 50 areas, 120,000 values.

Each worker counts in every area, so that all of the segment's tables of counters are in use; then
one process answers what the admin application is asked.  Medians in milliseconds.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import sys
import time
import uuid
from functools import partial
from typing import TYPE_CHECKING

import accelerator
from accelerator import runtime, segment
from accelerator.admin.core import Core, Request
from accelerator.admin.sources import ThisProcess

if TYPE_CHECKING:
    from collections.abc import Callable

WORKERS, AREAS, VALUES = 64, 50, 2400
LIMIT_MS = 5.0
"""For a scrape; what --gate asks for."""


def work(number: int, ready: int) -> None:
    for area in range(AREAS):
        cache: accelerator.LevelCache[tuple[int, int], int] = accelerator.LevelCache(f"area{area}")
        cache.mset({(number, n): n for n in range(VALUES // WORKERS)})
        cache.get((number, 0))
    os.write(ready, b".")
    time.sleep(3600)


def median_ms(call: Callable[[], object]) -> float:
    taken = []
    for _ in range(40):
        began = time.perf_counter()
        call()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken) * 1e3


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gate", action="store_true", help=f"fail above {LIMIT_MS:g} ms a scrape")
    arguments = parser.parse_args()
    name = f"bench-{uuid.uuid4().hex[:8]}"
    accelerator.configure(name=name, size="128MiB")
    read, write = os.pipe()
    workers = []
    for number in range(WORKERS):
        pid = os.fork()
        if pid == 0:
            work(number, write)
        workers.append(pid)
    try:
        ready = 0
        while ready < WORKERS:
            ready += len(os.read(read, WORKERS))
        core, memory = Core(ThisProcess()), runtime.current().memory
        entries = memory.stats()["segment"]["entries"]
        print(f"{WORKERS} workers, {AREAS} areas, {entries:,} values")
        scrape = 0.0
        for path in ("/metrics", "/diagnostics", "/healthz"):
            request = Request("GET", path)
            took = median_ms(partial(core.respond, request, True))
            scrape = scrape or took
            print(f"{path:14}{took:8.2f} ms")
        print(f"{'stats()':14}{median_ms(memory.stats):8.2f} ms, which walks all values")
        return int(arguments.gate and scrape > LIMIT_MS)
    finally:
        for pid in workers:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        segment.unlink(name, os.geteuid(), force=True)


if __name__ == "__main__":
    sys.exit(main())
