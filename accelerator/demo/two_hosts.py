"""
The demo with Redis: two hosts, which are two segments on this machine, and one Redis behind them.

The shop is the same, and so is every line of it.  What is new is in the environment: each host has
a name of its own, both have the same namespace, and Redis has a URL.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import platform
import statistics
import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from accelerator import __version__
from accelerator.demo.database import create_database
from accelerator.demo.redis_server import RedisServer, external_url
from accelerator.demo.report import Claim, show_claims
from accelerator.demo.shop import COUNTERS_NAME, DATABASE_NAME
from accelerator.demo.stage import Stage
from accelerator.demo.watch import Watch

if TYPE_CHECKING:
    import argparse
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from accelerator.demo.server import Server
    from accelerator.demo.terminal import Terminal
    from accelerator.demo.watch import Look, Passage, Seen

BOUND = 2.0
"""The default of freshness_bound, in seconds."""
GRACE = 0.05
"""Seconds beyond the bound that count as measured at its end."""
SOON = 0.1
"""Median seconds within which the other host has to show an update.  Two hosts, Redis and the
visitors share this machine's cores here, and a page takes some milliseconds of it."""
HOSTS = ("A", "B")
_PATIENCE = 15.0
_HANG_UP = 3.0
_LABEL = 46

_STAYING = """
Both hosts go on running until Ctrl-C:
  {a}/product/1       a product on host A
  {b}/product/1       the same on host B
  {b}/diagnostics     what host B says about itself; "remote" is its link to Redis
"""


@dataclass(frozen=True, kw_only=True)
class Span:
    """What both hosts' visitors saw in one part of the demo."""

    seconds: float
    answers: int
    failed: int
    loads: list[int]
    """By host: answers for which the database was asked."""
    oldest: float
    """Seconds; of the oldest answer, how long a newer version had been acknowledged."""
    stale: int
    stale_on_own: int
    """Answers older than what the same host had acknowledged."""
    p50: float
    slowest: float
    breaker_open: list[bool]
    """By host: whether its breaker was seen open."""
    outbox: list[int]
    """By host: most entries seen in its outbox."""
    settled: float | None = None
    """Seconds after the end until every host had an empty outbox and was in step; None: never."""


@dataclass(kw_only=True)
class Story:
    """All that came out of one run."""

    hosts: list[str]
    """Files of the segments."""
    subscribers: int | None
    """Connections to Redis that listen for the area; None: it was not asked."""
    own_redis: bool
    products: int
    bound: float = BOUND
    updates: int = 0
    failed_updates: int = 0
    passages: list[Passage] = field(default_factory=list)
    """While all was well."""
    passages_after: list[Passage] = field(default_factory=list)
    """After Redis was back."""
    spans: dict[str, Span] = field(default_factory=dict)

    @property
    def oldest(self) -> float:
        """Age of the oldest answer of all."""
        return max((span.oldest for span in self.spans.values()), default=0.0)


class TwoHosts(Stage):
    """One run of it."""

    def __init__(self, arguments: argparse.Namespace, terminal: Terminal) -> None:
        super().__init__(terminal)
        self._arguments = arguments
        quick = arguments.quick
        self._workers = arguments.workers or 2
        self._products = 40 if quick else 100
        self._calm = 2.0 if quick else 6.0
        # Longer than the bound, so that what the hosts hold comes to its end.
        self._outage = 3.5 if quick else 6.0

    def _segments(self) -> list[str]:
        return [f"{self._segment}-{name.lower()}" for name in HOSTS]

    async def run(self) -> int:
        """Tell the story, judge, report; the exit status."""
        self._catch_signals()
        started = time.monotonic()
        with self._scratch() as directory, contextlib.ExitStack() as stack:
            url, redis = external_url(), None
            if url is None:
                redis = stack.enter_context(RedisServer())
                url = redis.url
            self._terminal.line(
                f"Two hosts: two segments, {self._workers} Gunicorn workers each,"
                f" one database, one Redis.\n"
                f"The bound: no answer is more than {BOUND:g} s behind, whatever happens to Redis."
            )
            if redis is None:
                self._terminal.line(
                    "Redis is yours, so it is neither stopped nor killed.\n"
                    f"Some small keys stay in it, all of them named {self._segment}:..."
                )
            async with self._hosts(directory, url) as servers:
                story = await self._tell(servers, redis)
                if self._arguments.keep_running:
                    self._publish(story, judge(story))
                    await self._stay(_STAYING.format(a=servers[0].url, b=servers[1].url))
        cleaning = self._judge_cleaning(directory)
        claims = [*judge(story), cleaning]
        if self._arguments.keep_running:
            self._terminal.line(f"Stopped; {cleaning.evidence}.")
        else:
            self._publish(story, claims)
            self._terminal.line(f"\nTook {time.monotonic() - started:.0f} s.")
        return 0 if all(claim.held for claim in claims) else 1

    @contextlib.asynccontextmanager
    async def _hosts(self, directory: Path, url: str) -> AsyncIterator[list[Server]]:
        """The shop on both hosts, over one database."""
        create_database(
            directory / DATABASE_NAME, products=self._products, seed=self._arguments.seed
        )
        async with contextlib.AsyncExitStack() as stack:
            yield [
                await stack.enter_async_context(self._host(directory, url, number))
                for number in range(len(HOSTS))
            ]

    @contextlib.asynccontextmanager
    async def _host(self, directory: Path, url: str, number: int) -> AsyncIterator[Server]:
        folder = directory / HOSTS[number]
        (folder / COUNTERS_NAME).mkdir(parents=True)
        (folder / DATABASE_NAME).symlink_to(directory / DATABASE_NAME)
        environment = {
            "ACCELERATOR_NAME": self._segments()[number],
            "ACCELERATOR_SIZE": "8MiB",
            "ACCELERATOR_REDIS": url,
            "ACCELERATOR_NAMESPACE": self._segment,
        }
        async with self._server(
            "accelerator",
            folder,
            workers=self._workers,
            port=0 if number else self._arguments.port,
            environment=environment,
        ) as server:
            yield server

    # --- the story --------------------------------------------------------------------------

    async def _tell(self, servers: list[Server], redis: RedisServer | None) -> Story:
        watch = Watch(servers, products=self._products, visitors=3, seed=self._arguments.seed)
        await watch.warm()
        await self._until_in_step(watch)
        story = Story(
            hosts=[(await watch.diagnostics(number))["path"] for number in range(len(HOSTS))],
            subscribers=None if redis is None else await self._subscribers(redis),
            own_redis=redis is not None,
            products=self._products,
        )
        async with watch.running():
            await self._part(story, watch, "in step", self._in_step, self._calm)
            if redis is not None:
                await self._part(story, watch, "stopped", self._stop(redis), self._outage)
                await self._part(story, watch, "killed", self._kill(redis), self._outage)
                await self._passages(story.passages_after, watch, "back", self._calm / 2)
        story.updates, story.failed_updates = watch.updates, watch.failed_updates
        return story

    async def _part(
        self,
        story: Story,
        watch: Watch,
        name: str,
        play: Callable[[Story, Watch, float], Awaitable[None]],
        seconds: float,
    ) -> None:
        """One part, and what was seen in it until all was well again."""
        start = time.monotonic()
        await play(story, watch, seconds)
        end = time.monotonic()
        settled = await self._until_in_step(watch)
        story.spans[name] = span = _span(watch, start, end, time.monotonic(), settled)
        self._terminal.line(f"  {name:<10} {_sentence(span)}")

    async def _in_step(self, story: Story, watch: Watch, seconds: float) -> None:
        await self._passages(story.passages, watch, "in step", seconds)

    async def _passages(
        self, passages: list[Passage], watch: Watch, name: str, seconds: float
    ) -> None:
        """Update on one host and then the other, and look for it on the other one."""
        start = shown = time.monotonic()
        while (now := time.monotonic()) < start + seconds:
            found = await watch.passage(len(passages) % len(HOSTS))
            if found is not None:
                passages.append(found)
            if now - shown > self._terminal.interval:
                shown = now
                share = (now - start) / seconds
                self._terminal.progress(name, share, f"{len(passages)} updates crossed")
            await asyncio.sleep(0.03)

    def _stop(self, redis: RedisServer) -> Callable[[Story, Watch, float], Awaitable[None]]:
        async def play(_: Story, watch: Watch, seconds: float) -> None:
            redis.stop()
            try:
                await self._write_on_a(watch, "stopped", seconds)
            finally:
                redis.resume()

        return play

    def _kill(self, redis: RedisServer) -> Callable[[Story, Watch, float], Awaitable[None]]:
        async def play(_: Story, watch: Watch, seconds: float) -> None:
            redis.kill()
            await self._write_on_a(watch, "killed", seconds)
            await asyncio.to_thread(redis.start)

        return play

    async def _write_on_a(self, watch: Watch, name: str, seconds: float) -> None:
        """Go on changing prices on host A."""
        start = shown = time.monotonic()
        while (now := time.monotonic()) < start + seconds:
            await watch.update(0)
            if now - shown > self._terminal.interval:
                shown = now
                link = next((it.remote for it in reversed(watch.looks) if it.host == 0), None)
                text = link and f"host A: breaker {link['breaker']}, outbox {link['outbox_depth']}"
                self._terminal.progress(name, (now - start) / seconds, text or "")
            await asyncio.sleep(0.1)

    async def _until_in_step(self, watch: Watch) -> float | None:
        """Wait until both hosts say that all is well; seconds, or None if they do not."""
        start = time.monotonic()
        while time.monotonic() < start + _PATIENCE:
            links = [(await watch.diagnostics(host))["remote"] for host in range(len(HOSTS))]
            if all(_is_well(link) for link in links):
                return time.monotonic() - start
            await asyncio.sleep(0.02)
        return None

    async def _subscribers(self, redis: RedisServer) -> int:
        """Count who listens; on a busy machine one that was replaced may be about to hang up."""
        channel = f"accelerator:invalidation:{self._segment}:products"
        deadline = time.monotonic() + _HANG_UP
        while True:
            reply = redis.command("PUBSUB", "NUMSUB", channel)
            count = int(reply.rstrip().rpartition(b":")[2])
            if count == len(HOSTS) or time.monotonic() > deadline:
                return count
            await asyncio.sleep(0.05)

    def _publish(self, story: Story, claims: list[Claim]) -> None:
        """Show the report, and write its data where the user wants it."""
        show(story, claims, self._terminal)
        if self._arguments.json is not None:
            data = {
                "accelerator": __version__,
                "python": platform.python_version(),
                "story": asdict(story),
                "claims": [asdict(claim) for claim in claims],
                "held": all(claim.held for claim in claims),
            }
            self._arguments.json.write_text(json.dumps(data, indent=2) + "\n")


def _is_well(link: dict[str, Any]) -> bool:
    return bool(
        link["ready"]
        and link["settled"]
        and link["breaker"] == "closed"
        and link["outbox_depth"] == 0
    )


def _span(watch: Watch, start: float, end: float, until: float, settled: float | None) -> Span:
    """Sum up; what is old may be asked for until all is well again."""
    seen: list[Seen] = watch.between(start, until)
    during = watch.between(start, end)
    looks: list[list[Look]] = [
        watch.looks_between(start, until, host) for host in range(len(HOSTS))
    ]
    return Span(
        seconds=end - start,
        answers=len(seen),
        failed=sum(each.failed for each in seen),
        loads=[
            sum(not each.hit and not each.failed for each in during if each.host == host)
            for host in range(len(HOSTS))
        ],
        oldest=max((each.age for each in seen), default=0.0),
        stale=sum(each.age > 0 for each in seen),
        stale_on_own=sum(each.own for each in seen),
        p50=statistics.median([each.seconds for each in seen] or [0.0]),
        slowest=max((each.seconds for each in seen), default=0.0),
        breaker_open=[any(it.remote["breaker"] != "closed" for it in each) for each in looks],
        outbox=[max((it.remote["outbox_depth"] for it in each), default=0) for each in looks],
        settled=settled,
    )


def _sentence(span: Span) -> str:
    return (
        f"{span.answers:,} answers, {span.failed} failed,"
        f" {span.stale} stale, the oldest by {span.oldest:.2f} s"
    )


def judge(story: Story) -> list[Claim]:
    """The claims about a run."""
    calm = story.spans["in step"]
    claims = [
        Claim(
            "two-hosts",
            "The two hosts share nothing but Redis and the database.",
            len(set(story.hosts)) == len(HOSTS),
            f"{len(set(story.hosts))} segments",
        ),
        Claim(
            "seen-soon",
            "An update on one host is seen on the other at once.",
            _is_soon(story.passages),
            _times(story.passages),
        ),
        Claim(
            "own-host",
            "On the host that acknowledged an update nobody gets the old price.",
            not any(span.stale_on_own for span in story.spans.values()),
            f"{sum(span.stale_on_own for span in story.spans.values())} stale of"
            f" {sum(span.answers for span in story.spans.values()):,} answers,"
            f" {story.updates} updates",
        ),
        Claim(
            "within-bound",
            f"No answer is more than {story.bound:g} s behind, whatever happens to Redis.",
            story.oldest <= story.bound + GRACE and calm.answers > 0,
            f"the oldest answer was {story.oldest:.2f} s behind",
        ),
    ]
    if story.subscribers is not None:
        claims.insert(
            1,
            Claim(
                "one-listener",
                "One worker of each host listens to Redis, for all of its host.",
                story.subscribers == len(HOSTS),
                f"{story.subscribers} subscribers on {len(HOSTS)} hosts",
            ),
        )
    if story.own_redis:
        claims += _judge_outages(story)
    return claims


def _judge_outages(story: Story) -> list[Claim]:
    stopped, killed = story.spans["stopped"], story.spans["killed"]
    failed = sum(span.failed for span in story.spans.values()) + story.failed_updates
    # Each product once in each bound, and once more for where the spans begin.
    most = round(story.products * (stopped.seconds / story.bound + 1) * 1.2)
    return [
        Claim(
            "test-can-tell",
            "The same check finds answers that are stale, while Redis is away.",
            stopped.stale + killed.stale > 0,
            f"{stopped.stale + killed.stale} stale, none of them beyond the bound"
            if story.oldest <= story.bound + GRACE
            else f"{stopped.stale + killed.stale} stale",
        ),
        Claim(
            "no-failures",
            "No request fails, with Redis stopped (SIGSTOP) or killed.",
            failed == 0,
            f"{failed} failed",
        ),
        Claim(
            "breaker",
            "Redis stopped: each host's breaker opens, and hardly anybody waits.",
            all(stopped.breaker_open),
            f"median answer {stopped.p50 * 1000:.1f} ms ({story.spans['in step'].p50 * 1000:.1f}"
            f" ms before), slowest {stopped.slowest * 1000:.0f} ms",
        ),
        Claim(
            "loads-bounded",
            "Then a host loads a product once in each bound, not at each read.",
            max(stopped.loads) <= most,
            f"{' and '.join(map(str, stopped.loads))} loads in {stopped.seconds:.1f} s,"
            f" at most {most} allowed",
        ),
        Claim(
            "queued",
            "Redis killed: updates go on, and the outbox keeps what it missed.",
            killed.outbox[0] > 0 and story.failed_updates == 0,
            f"up to {killed.outbox[0]} deletes in the outbox of host A",
        ),
        Claim(
            "replayed",
            "When Redis is back, the outbox empties by itself.",
            killed.settled is not None and stopped.settled is not None,
            f"empty and in step {_seconds(killed.settled)} after the start,"
            f" {_seconds(stopped.settled)} after SIGCONT",
        ),
        Claim(
            "seen-again",
            "Then updates cross at once again.",
            _is_soon(story.passages_after),
            _times(story.passages_after),
        ),
    ]


def _is_soon(passages: list[Passage]) -> bool:
    times = [each.seconds for each in passages if each.seconds is not None]
    return len(times) == len(passages) > 0 and statistics.median(times) <= SOON


def _times(passages: list[Passage]) -> str:
    times = [each.seconds for each in passages if each.seconds is not None]
    if not times:
        return "none crossed"
    lost = len(passages) - len(times)
    return (
        f"{len(times)} updates: median {statistics.median(times) * 1000:.1f} ms,"
        f" at most {max(times) * 1000:.0f} ms, with the page"
        + (f"; {lost} not seen" if lost else "")
    )


def _seconds(value: float | None) -> str:
    return "never" if value is None else f"{value:.2f} s"


def show(story: Story, claims: list[Claim], terminal: Terminal) -> None:
    """Write the report for a person."""
    terminal.line()
    spans = story.spans
    heads = "".join(f"{name:>11}" for name in spans)
    terminal.line(terminal.strong(f"{'':<{_LABEL}}{heads}"))
    rows = [
        ("answers", [f"{span.answers:,}" for span in spans.values()]),
        ("failed", [str(span.failed) for span in spans.values()]),
        ("median answer", [f"{span.p50 * 1000:.1f} ms" for span in spans.values()]),
        ("slowest answer", [f"{span.slowest * 1000:.0f} ms" for span in spans.values()]),
        ("loads from the database, host A", [str(span.loads[0]) for span in spans.values()]),
        ("loads from the database, host B", [str(span.loads[1]) for span in spans.values()]),
        ("stale answers", [str(span.stale) for span in spans.values()]),
        ("oldest answer, behind by", [f"{span.oldest:.2f} s" for span in spans.values()]),
        ("most deletes in the outbox of host A", [str(span.outbox[0]) for span in spans.values()]),
        ("in step again after", [_seconds(span.settled) for span in spans.values()]),
    ]
    for label, cells in rows:
        terminal.line(f"{label:<{_LABEL}}{''.join(f'{cell:>11}' for cell in cells)}")
    terminal.line("An answer is behind by the time for which a newer price had been acknowledged")
    terminal.line("when it was asked for.")
    terminal.line()
    show_claims(claims, terminal)
