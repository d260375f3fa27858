"""
For tests of applications, and our own: a cache of their own, and a clock that can be set.

``pytest_plugins = ["accelerator.testing"]`` in a conftest.py offers the fixtures below; without
pytest, :func:`isolated` does the same.

The suites prove what an application plugs in: see ``accelerator.protocols``.  To run one, subclass
it in a test module under a name that begins with Test, and give it the fixtures that it asks for.
"""

from __future__ import annotations

import contextlib
import importlib
import uuid
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from accelerator import local, runtime, segment
from accelerator.config import Settings
from accelerator.durations import Duration, seconds, size_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from accelerator.testing.codecs import CodecSuite
    from accelerator.testing.keys import KeyConverterSuite
    from accelerator.testing.loaders import LoaderSuite, MLoaderSuite
    from accelerator.testing.locals import LocalBackendSuite
    from accelerator.testing.remote import AsyncRemoteBackendSuite, RemoteBackendSuite
    from accelerator.testing.subscribers import SubscriberSuite

try:
    import pytest
except ImportError:  # isolated() works without it
    pytest = None  # type: ignore[assignment]

__all__ = [
    "AsyncRemoteBackendSuite",
    "Clock",
    "CodecSuite",
    "Isolated",
    "KeyConverterSuite",
    "LoaderSuite",
    "LocalBackendSuite",
    "MLoaderSuite",
    "RemoteBackendSuite",
    "SubscriberSuite",
    "isolated",
]

_SUITES = MappingProxyType(
    {
        "AsyncRemoteBackendSuite": "remote",
        "CodecSuite": "codecs",
        "KeyConverterSuite": "keys",
        "LoaderSuite": "loaders",
        "LocalBackendSuite": "locals",
        "MLoaderSuite": "loaders",
        "RemoteBackendSuite": "remote",
        "SubscriberSuite": "subscribers",
    }
)
"""Modules of the suites, which need pytest and are imported when they are asked for."""

_MAX_VALUE_SIZE = 1 << 18  # small enough for several shards in a few MiB


def __getattr__(name: str) -> Any:
    """Import a suite."""
    module = _SUITES.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{module}"), name)


class Clock:
    """The clock by which values expire, in this process; it runs on, and can be moved ahead."""

    def __init__(self, memory: Any) -> None:
        self._memory = memory
        self._ahead = 0.0

    @property
    def ahead(self) -> float:
        """Seconds that it is ahead of the real one."""
        return self._ahead

    def advance(self, by: Duration) -> None:
        """Move it ahead, by seconds or text such as "5m"."""
        self._ahead += seconds(by, name="by", allow_zero=True)
        self._memory.set_clock_shift(self._ahead)


class Isolated:
    """What every cache of this process uses for the time of a test."""

    def __init__(self, attachment: runtime.Attachment) -> None:
        self.memory = attachment.memory
        self.name = attachment.name
        self.clock = Clock(attachment.memory)

    def clear(self) -> None:
        """Forget everything in all areas."""
        self.memory.clear_all()


@contextlib.contextmanager
def isolated(
    *, size: int | str = "4MiB", shared: bool = False, **settings: Any
) -> Iterator[Isolated]:
    """
    Give all caches of this process fresh memory, and what they had before back at the end.

    Args:
        size: At least "2MiB".
        shared: A segment of its own in /dev/shm, for tests that fork; else memory of this process.
        settings: More settings, such as *redis* with a *namespace*.

    Raises:
        ConfigError: One of *settings* is wrong.
        NotAttached: *shared*, and no segment can be had.
    """
    bytes_wanted = size_bytes(size, name="size")
    attachment = (_shared if shared else _private)(bytes_wanted, settings)
    former = runtime.swap(attachment)
    own = Isolated(attachment)
    try:
        yield own
    finally:
        attachment.memory.set_clock_shift(0.0)
        if attachment.second is not None:
            attachment.second.stop()
        runtime.swap(former)
        if attachment.request is not None:
            segment.leave(attachment.memory)
            segment.unlink(attachment.name, attachment.request.file.uid, force=True)
            segment.release(attachment.memory)


def _private(size: int, more: Mapping[str, Any] = MappingProxyType({})) -> runtime.Attachment:
    memory = local.private_segment(size, _MAX_VALUE_SIZE)
    settings = Settings(**{"local": "process", **more})
    second = runtime.second_level(memory, settings)
    return runtime.Attachment(memory, settings, "test", second=second)


def _shared(size: int, more: Mapping[str, Any]) -> runtime.Attachment:
    name = f"test-{uuid.uuid4().hex[:16]}"
    settings = Settings(**{"name": name, **more})
    request = segment.Request(segment.own_file(name), size, _MAX_VALUE_SIZE)
    memory = segment.attach(request)
    second = runtime.second_level(memory, settings)
    return runtime.Attachment(memory, settings, name, request, second=second)


if pytest is not None:

    @pytest.fixture
    def accelerator_isolated() -> Iterator[Isolated]:
        """Fresh memory for every cache during one test."""
        with isolated() as own:
            yield own

    @pytest.fixture
    def accelerator_clock(accelerator_isolated: Isolated) -> Clock:
        """The clock by which values expire during one test."""
        return accelerator_isolated.clock
