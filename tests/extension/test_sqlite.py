"""The example of a second level in a file keeps to the protocols."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from accelerator.remote import ForeignRemote
from accelerator.testing import AsyncRemoteBackendSuite, RemoteBackendSuite, SubscriberSuite


class Given:
    """What the suites ask for."""

    @pytest.fixture
    def make(self, example: Any, tmp_path: Path) -> Callable[[], Any]:
        # On a busy machine 0.2 s are soon over.
        return lambda: example.SqliteBackend(tmp_path / "cache.db", wait=10.0)

    @pytest.fixture
    def backend(self, make: Callable[[], Any]) -> Iterator[Any]:
        made = make()
        yield made
        made.close()

    @pytest.fixture
    def another(self, make: Callable[[], Any]) -> Iterator[Any]:
        made = make()
        yield made
        made.close()


class Wrapped(Given):
    """The same as the package uses it: by other names of areas, with its errors translated."""

    @pytest.fixture
    def make(self, example: Any, tmp_path: Path) -> Callable[[], Any]:
        own = example.SqliteBackend
        return lambda: ForeignRemote(own(tmp_path / "cache.db", wait=10.0), "shop: {1}")


class TestBackend(Given, RemoteBackendSuite):
    pass


class TestSubscriber(Given, SubscriberSuite):
    pass


class TestWrapped(Wrapped, RemoteBackendSuite):
    pass


class TestWrappedInThreads(Wrapped, AsyncRemoteBackendSuite):
    pass


class TestWrappedSubscriber(Wrapped, SubscriberSuite):
    pass
