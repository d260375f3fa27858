"""Redis keeps to the protocols: on one server and on a cluster, for threads and for a loop."""

from collections.abc import Callable
from typing import Any

import pytest
import redis

from accelerator.testing import AsyncRemoteBackendSuite, RemoteBackendSuite, SubscriberSuite


class Given:
    """What the suites ask for."""

    @pytest.fixture
    def connect(self, raw: Any, clients: Any, request: pytest.FixtureRequest) -> Callable[[], Any]:
        """Make clients of one namespace."""
        where = raw if isinstance(raw, redis.RedisCluster) else request.getfixturevalue("url")
        namespace = request.getfixturevalue("namespace")
        return lambda: clients.connect(where, namespace=namespace)

    @pytest.fixture
    def backend(self, connect: Callable[[], Any]) -> Any:
        return connect()

    @pytest.fixture
    def another(self, connect: Callable[[], Any]) -> Any:
        return connect()


class TestBackend(Given, RemoteBackendSuite):
    pass


class TestAsyncBackend(Given, AsyncRemoteBackendSuite):
    pass


class TestSubscriber(Given, SubscriberSuite):
    pass
