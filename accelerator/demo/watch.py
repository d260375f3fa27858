"""
What visitors of two hosts see while one product after the other changes: how old, how fast.

The load is paced, not as much as the machine can do: what is shown is how old answers are, and two
hosts share one machine here.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import random
import time
from bisect import bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from accelerator.demo.client import Loss, Visitor, get, post

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Sequence

    from accelerator.demo.server import Server

PAUSE = 0.02
"""Seconds that a visitor reads a page."""
LOOK_EVERY = 0.1
"""Seconds between two looks at the diagnostics of a host."""
PATIENCE = 8.0
"""Seconds after which a change counts as not seen."""
_POLL = 0.002


class Seen(NamedTuple):
    """One answer to a visitor, or none."""

    host: int
    asked: float
    """On time.monotonic()."""
    seconds: float
    failed: bool
    hit: bool
    age: float
    """For how long a newer version had been acknowledged when it was asked for; 0: there was none.
    """
    own: bool
    """The newer version was acknowledged by this very host."""


@dataclass(frozen=True)
class Passage:
    """An update on one host that was looked for on the other."""

    to: int
    seconds: float | None
    """From its acknowledgement to the first answer there that shows it; None: not in time."""


class Look(NamedTuple):
    """What a host said of its link to Redis."""

    host: int
    at: float
    remote: dict[str, Any]


class Truth:
    """Which version of each product was acknowledged when, and by which host."""

    def __init__(self) -> None:
        self._versions: dict[int, list[int]] = {}
        self._acknowledged: dict[int, list[tuple[float, int]]] = {}

    def note(self, product: int, version: int, at: float, host: int) -> None:
        """A host acknowledged it."""
        self._versions.setdefault(product, []).append(version)
        self._acknowledged.setdefault(product, []).append((at, host))

    def behind(self, product: int, version: int, asked: float) -> tuple[float, int | None]:
        """
        For how long a newer version had been acknowledged, and by which host.

        The first one that is newer counts, as from then on the answer was wrong.
        """
        newer = bisect_right(self._versions.get(product, []), version)
        following = self._acknowledged.get(product, [])[newer:]
        if not following or following[0][0] >= asked:
            return 0.0, None
        return asked - following[0][0], following[0][1]


class Watch:
    """
    The visitors of both hosts, and what they saw.

    Args:
        servers: One of each host.
        products: How many there are.
        visitors: Of each host.
        seed: Of all that is random.
    """

    def __init__(
        self, servers: Sequence[Server], *, products: int, visitors: int, seed: int
    ) -> None:
        self.seen: list[Seen] = []
        self.looks: list[Look] = []
        self.losses: list[Loss] = []
        self.failed_updates = 0
        self.updates = 0
        self._ports = [server.port for server in servers]
        self._products = products
        self._visitors = visitors
        self._rng = random.Random(seed)
        self._truth = Truth()
        self._requests = {number: get(f"/product/{number}") for number in range(1, products + 1)}

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Have visitors on both hosts for the time of a block."""
        work = [self._browse(host) for host in self._hosts() for _ in range(self._visitors)]
        work += [self._look(host) for host in self._hosts()]
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(each) for each in work]
            try:
                yield
            finally:
                for task in tasks:
                    task.cancel()

    def between(self, start: float, end: float, host: int | None = None) -> list[Seen]:
        """What was asked for in a span of time."""
        return [
            each for each in self.seen if start <= each.asked < end and host in {None, each.host}
        ]

    def looks_between(self, start: float, end: float, host: int) -> list[Look]:
        """What a host said in a span of time."""
        return [each for each in self.looks if start <= each.at < end and each.host == host]

    # --- what the demo does -----------------------------------------------------------------

    async def update(self, host: int, product: int | None = None) -> tuple[int, int] | None:
        """Change a price on a host: product and version; None: it was not acknowledged."""
        product = product or self._rng.randint(1, self._products)
        form = f"cents={self._rng.randrange(500, 50_000)}"
        with Visitor(self._ports[host], self.losses) as visitor:
            answer = await visitor.ask(post(f"/product/{product}/price", form))
        if answer is None or answer.status != 200:
            self.failed_updates += 1
            return None
        version = int(json.loads(answer.body)["version"])
        self._truth.note(product, version, time.monotonic(), host)
        self.updates += 1
        return product, version

    async def passage(self, host: int) -> Passage | None:
        """Change a price on a host, and wait until the other one shows it."""
        other = 1 - host
        product = self._rng.randint(1, self._products)
        with Visitor(self._ports[other], self.losses) as visitor:
            await visitor.ask(self._requests[product])  # so that there is a copy to be outdated
            changed = await self.update(host, product)
            acknowledged = time.monotonic()
            if changed is None:
                return None
            _, version = changed
            while time.monotonic() - acknowledged < PATIENCE:
                answer = await visitor.ask(self._requests[product])
                if answer is not None and answer.version >= version:
                    return Passage(other, time.monotonic() - acknowledged)
                await asyncio.sleep(_POLL)
        return Passage(other, None)

    async def warm(self) -> None:
        """Have each host know each product."""
        for host in self._hosts():
            with Visitor(self._ports[host], self.losses) as visitor:
                for request in self._requests.values():
                    await visitor.ask(request)

    async def diagnostics(self, host: int) -> dict[str, Any]:
        """What a host says of itself."""
        with Visitor(self._ports[host], self.losses) as visitor:
            answer = await visitor.ask(get("/diagnostics"))
        if answer is None or answer.status != 200:
            raise OSError("a shop does not show its diagnostics")
        found: dict[str, Any] = json.loads(answer.body)
        return found

    # --- tasks ------------------------------------------------------------------------------

    def _hosts(self) -> Iterable[int]:
        return range(len(self._ports))

    async def _browse(self, host: int) -> None:
        rng = random.Random(self._rng.random())
        with Visitor(self._ports[host], self.losses) as visitor:
            for count in itertools.count(1):
                product = rng.randint(1, self._products)
                asked = time.monotonic()
                answer = await visitor.ask(self._requests[product])
                seconds = time.monotonic() - asked
                if answer is None or answer.status != 200:
                    self.seen.append(Seen(host, asked, seconds, True, False, 0.0, False))
                else:
                    age, by = self._truth.behind(product, answer.version, asked)
                    seen = Seen(host, asked, seconds, False, answer.hit, age, by == host)
                    self.seen.append(seen)
                if count % 50 == 0:
                    visitor.leave()  # and to another worker
                await asyncio.sleep(PAUSE)

    async def _look(self, host: int) -> None:
        while True:
            with contextlib.suppress(OSError):
                found = await self.diagnostics(host)
                self.looks.append(Look(host, time.monotonic(), found["remote"]))
            await asyncio.sleep(LOOK_EVERY)
