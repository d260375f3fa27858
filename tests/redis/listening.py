"""A host for tests of the listener: a segment, an area in it, Redis, and the listener."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any

from accelerator import local, message
from accelerator.config import Settings
from accelerator.invalidation import Listener
from accelerator.remote import Change, connect

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

AREA = "users"
PATIENCE = 20.0
"""Seconds that only something broken lets a test wait."""


class Watched:
    """A segment whose areas are followed, and which tells until when they are in step."""

    def __init__(self, segment: Any, areas: Iterable[str]) -> None:
        self._segment = segment
        self.areas = list(areas)
        self.until: dict[str, float] = {}

    def watched(self) -> list[str]:
        return self.areas

    def area_extend(self, area: str, until: float) -> None:
        self._segment.area_extend(area, until)
        self.until[area] = max(until, self.until.get(area, 0.0))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._segment, name)


class Host:
    """
    One host.

    Args:
        url: Of Redis.
        segment: That it shares with other processes; None: one of its own.
        areas: Names of its areas.
        settings: More settings.
    """

    def __init__(
        self, url: str, segment: Any = None, areas: Iterable[str] = (AREA,), **settings: Any
    ) -> None:
        self.settings = Settings(redis=url, name="listening", **settings)
        self.segment = segment or local.private_segment(8 << 20, 1 << 20)
        if not self.segment.incarnation:
            self.segment.register()
        self.areas: dict[str, Any] = {}
        self.memory = Watched(self.segment, [])
        for name in areas:
            self.add(name)
        self.remote = connect(self.settings)
        self.listener = Listener(self.memory, self.remote, self.settings)  # type: ignore[arg-type]

    def add(self, name: str) -> None:
        """Begin to use an area."""
        area: Any = local.AreaBase()
        area._bind(
            self.segment,
            name,
            ttl=None,
            null_ttl=None,
            stale_ttl=0.0,
            jitter=0.0,
            max_value_size=1 << 20,
            object_cache_bytes=0,
            flags=local.PLAIN_SET,
        )
        self.areas[name] = area
        self.memory.areas.append(name)

    # --- what a process of the host does ---

    def store(
        self, key: str, note: int = 0, area: str = AREA, *, tags: Iterable[bytes] = ()
    ) -> None:
        """Store something in L1, as who has loaded it does."""
        self.areas[area]._store(key, 1, b"v", None, 0.0, note=note, tags=list(tags))

    def has(self, key: str, area: str = AREA) -> bool:
        """Whether it is in L1."""
        return self.areas[area]._read(key, touch=False) is not None

    def delete(self, *keys: str, area: str = AREA) -> None:
        """Delete from L2, and tell all hosts; L1 and the outbox are not touched."""
        self.write(message.FORGET, *keys, area=area)

    def write(self, kind: int, *keys: str, note: int = 0, area: str = AREA) -> None:
        """Announce a change that has no value in L2."""
        changes = [Change(local.encode_key(key), None, None, note) for key in keys]
        self.remote.write(area, kind, changes, self.memory.origin)

    def delete_tag(self, tag: bytes, note: int = 0) -> None:
        """Delete by tag in L2, and tell all hosts; L1 and the outbox are not touched."""
        origin = self.memory.origin
        self.remote.mark_tags(AREA, message.FORGET_TAGS, [tag], [note], origin)

    # --- what is seen of it ---

    def count(self, name: str, area: str = AREA) -> int:
        """A counter of the area."""
        counted: int = self.areas[area]._counters()[name]
        return counted

    def in_step(self, area: str = AREA) -> bool:
        """Whether the area may be served now."""
        return time.monotonic() <= self.memory.until.get(area, 0.0)

    def start(self) -> None:
        """Start the listener, and wait until it is in step."""
        self.listener.start()
        for area in self.areas:
            assert wait_until(lambda area=area: self.in_step(area))

    def close(self) -> None:
        self.listener.stop()
        self.remote.close()

    def catch_up(self) -> None:
        """Wait until a heartbeat that is sent from now on has come back."""
        bound = self.settings.freshness_bound
        now = time.monotonic()
        assert wait_until(lambda: self.memory.until.get(AREA, 0.0) > now + bound)


def wait_until(check: Callable[[], object], seconds: float = PATIENCE) -> bool:
    """Wait until *check* holds, as another thread, process or host makes it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(OSError):
            if check():
                return True
        time.sleep(0.0005)
    return bool(check())
