"""
The load: visitors who browse, and a writer who changes prices and hunts for stale answers.

Visitors follow one seeded, zipf-like stream of products, the same for every kind of cache, in a
closed loop: each sends its next request when it has its answer.  So slow answers lower the rate
instead of queueing up, and the latencies are those of this number of users, not of a given rate.
"""

# array.array takes type arguments at run time from Python 3.12 on only.
from __future__ import annotations

import asyncio
import itertools
import json
import random
import time
from array import array
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from accelerator.demo.client import Loss, Visitor, get, post

if TYPE_CHECKING:
    from collections.abc import Iterator

REQUESTS_PER_CONNECTION = 100
"""Then a visitor connects anew, so that visitors spread over the workers again and again."""

HOT_PRODUCTS = 40
"""The writer changes one of the most wanted products, those that every worker has in its cache."""

UPDATE_SECONDS = 0.2
"""A price changes this often, or as often as the reads that follow the change allow."""

READ_BACK_ROUNDS = 20


@dataclass
class Tally:
    """What the visitors saw: one entry per answer in each of four columns, and the exceptions."""

    at: array[float] = field(default_factory=lambda: array("d"))
    """Moment of the answer, on time.monotonic()."""
    seconds: array[float] = field(default_factory=lambda: array("d"))
    hit: bytearray = field(default_factory=bytearray)
    worker: array[int] = field(default_factory=lambda: array("l"))

    products: set[int] = field(default_factory=set)
    """Which products were looked at."""
    stale: int = 0
    """Answers older than what the shop had acknowledged before they were asked for."""
    failed: int = 0
    """Requests that got no answer, or an error, from two tries."""
    losses: list[Loss] = field(default_factory=list)
    """Connections that broke under a request, which then was tried again."""

    @property
    def answers(self) -> int:
        """Number of pages that came."""
        return len(self.at)

    @property
    def hits(self) -> int:
        """Number of pages for which a cache knew the product."""
        return self.hit.count(1)

    def hit_ratio(self, start: float, end: float) -> float | None:
        """Share of hits among the answers of a span of time; ``None`` if there were none."""
        chosen = [hit for at, hit in zip(self.at, self.hit, strict=True) if start <= at < end]
        return sum(chosen) / len(chosen) if chosen else None


@dataclass
class ReadBacks:
    """What the writer saw after its updates."""

    updates: int = 0
    reads: int = 0
    hits: int = 0
    stale: int = 0
    failed: int = 0
    by_all_workers: int = 0
    """Updates after which every worker was seen to answer."""


class Popularity:
    """Which products are wanted how often: the n-th in rank 1/n times as often as the first."""

    def __init__(self, products: int, seed: int) -> None:
        self._rng = random.Random(seed)
        self.ranking = self._rng.sample(range(1, products + 1), products)
        self._weights = list(itertools.accumulate(1 / rank for rank in range(1, products + 1)))

    def stream(self) -> Iterator[int]:
        """Products in the order in which they are asked for, without end."""
        while True:
            yield from self._rng.choices(self.ranking, cum_weights=self._weights, k=1000)


class Load:
    """Everything that happens to one server during one phase."""

    def __init__(self, port: int, *, products: int, visitors: int, workers: int, seed: int) -> None:
        popularity = Popularity(products, seed)
        self.tally = Tally()
        self.read_backs = ReadBacks()
        self._port = port
        self._workers = workers
        self._stream = popularity.stream()
        self._hot = popularity.ranking[:HOT_PRODUCTS]
        self._rng = random.Random(seed + 1)
        self._requests = {product: get(f"/product/{product}") for product in popularity.ranking}
        self._visitors = [Visitor(port, self.tally.losses) for _ in range(visitors)]
        self._acknowledged: dict[int, int] = {}
        self._end = 0.0

    def connections(self) -> Counter[int]:
        """Number of the visitors' connections to each worker."""
        return Counter(visitor.worker for visitor in self._visitors if visitor.worker is not None)

    @property
    def pages(self) -> int:
        """Number of product pages that came, the writer's included."""
        return self.tally.answers + self.read_backs.reads

    @property
    def loads_per_version(self) -> float:
        """
        How often the database was asked for each state of a product that anybody looked at.

        A new state comes with every update.  1.0 is the least that a right cache can do.
        """
        loads = self.pages - self.tally.hits - self.read_backs.hits
        return loads / max(1, len(self.tally.products) + self.read_backs.updates)

    async def run(self, seconds: float) -> None:
        """Browse and write for a while, or for longer if :meth:`go_on` is called meanwhile."""
        self.go_on(seconds)
        async with asyncio.TaskGroup() as group:
            for visitor in self._visitors:
                group.create_task(self._browse(visitor))
            group.create_task(self._write())

    def go_on(self, seconds: float) -> None:
        """Do not end before this much time has passed from now on."""
        self._end = max(self._end, time.monotonic() + seconds)

    async def _browse(self, visitor: Visitor) -> None:
        with visitor:
            for count in itertools.count(1):
                if time.monotonic() >= self._end:
                    break
                await self._look(visitor, next(self._stream))
                if count % REQUESTS_PER_CONNECTION == 0:
                    visitor.leave()

    async def _look(self, visitor: Visitor, product: int) -> None:
        """Ask for one product's page and write down what came."""
        tally = self.tally
        known = self._acknowledged.get(product, 0)
        start = time.monotonic()
        answer = await visitor.ask(self._requests[product])
        now = time.monotonic()
        if answer is None or answer.status != 200:
            tally.failed += 1
            return
        tally.at.append(now)
        tally.seconds.append(now - start)
        tally.hit.append(answer.hit)
        tally.worker.append(answer.worker)
        tally.products.add(product)
        tally.stale += answer.version < known

    async def _write(self) -> None:
        while (start := time.monotonic()) < self._end:
            product = self._rng.choice(self._hot)
            version = await self._update(product)
            if version is not None:
                await self._read_back(product, version)
            await asyncio.sleep(UPDATE_SECONDS - (time.monotonic() - start))

    async def _update(self, product: int) -> int | None:
        """Change a price; the version that the shop acknowledged."""
        request = post(f"/product/{product}/price", f"cents={self._rng.randrange(500, 50_000)}")
        with Visitor(self._port, self.tally.losses) as visitor:
            answer = await visitor.ask(request)
        if answer is None or answer.status != 200:
            self.read_backs.failed += 1
            return None
        version: int = json.loads(answer.body)["version"]
        self._acknowledged[product] = version
        self.read_backs.updates += 1
        return version

    async def _read_back(self, product: int, version: int) -> None:
        """Read a changed product on fresh connections until every worker has answered."""
        seen: set[int] = set()
        for _ in range(READ_BACK_ROUNDS):
            reads = (self._read_once(product, version) for _ in range(self._workers))
            seen.update(await asyncio.gather(*reads))
            if len(seen - {0}) >= self._workers:
                self.read_backs.by_all_workers += 1
                return

    async def _read_once(self, product: int, version: int) -> int:
        """One read on a connection of its own; the worker that answered, 0 if none did."""
        with Visitor(self._port, self.tally.losses) as visitor:
            answer = await visitor.ask(self._requests[product])
        if answer is None or answer.status != 200:
            self.read_backs.failed += 1
            return 0
        self.read_backs.reads += 1
        self.read_backs.hits += answer.hit
        self.read_backs.stale += answer.version < version
        return answer.worker
