"""
Where Redis is, and how clients of our own are made for it.

Whatever is given, a URL or a ready client, what we use has our time limits, no retries and no
health checks, speaks RESP2 and returns bytes, and shares no connection with the application.
redis-py is imported when the first client is made: it takes a quarter of a second.
"""

from __future__ import annotations

import inspect
from importlib import metadata
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from accelerator.config.settings import Settings, redacted_url
from accelerator.errors import ConfigError
from accelerator.lazy import Importing
from accelerator.remote.bounded import bounded

_SCHEMES: Final = {"valkey": "redis", "valkeys": "rediss"}
_MOST_CONNECTIONS: Final = 1 << 16
"""Of a pool.  No limit in practice: a thread uses one, and tasks are limited elsewhere."""
_NOT_OURS: Final = frozenset(
    {
        # Ours instead, or of the client's own world (sync or asyncio), or of its other ways.
        *("cache", "cache_config", "command_packer", "connection_class", "connection_pool"),
        *("decode_responses", "driver_info", "event_dispatcher", "health_check_interval"),
        *("himport_registry", "legacy_responses", "lib_name", "lib_version"),
        *("maint_notifications_config", "maint_notifications_pool_handler"),
        *("maintenance_notification_hash", "maintenance_state"),
        *("orig_host_address", "orig_socket_connect_timeout", "orig_socket_timeout"),
        *("oss_cluster_maint_notifications_handler", "parser_class", "protocol"),
        *("redis_connect_func", "retry", "retry_on_error", "retry_on_timeout"),
        *("socket_connect_timeout", "socket_timeout", "is_master", "check_connection"),
    }
)


class Source:
    """
    What the setting ``redis`` says.

    Args:
        settings: With ``redis`` given.

    Raises:
        ConfigError: The URL cannot be one.
    """

    def __init__(self, settings: Settings) -> None:
        self.given: Any = settings.redis
        self.timeout = settings.redis_timeout
        self.db = 0
        if isinstance(self.given, str):
            self.kind = "url"
            self.db = _db_of_url(self.given)
            return
        names = {each.__name__ for each in type(self.given).__mro__}
        if "RedisCluster" in names:
            self.kind = "cluster"
            return
        pool = getattr(self.given, "connection_pool", None)
        kwargs = getattr(pool, "connection_kwargs", None)
        if not isinstance(kwargs, dict):
            raise ConfigError("redis must be a URL or a client of redis-py", setting="redis")
        is_sentinel = "SentinelConnectionPool" in {each.__name__ for each in type(pool).__mro__}
        self.kind = "sentinel" if is_sentinel else "client"
        self.db = int(kwargs.get("db") or 0)

    @property
    def cluster(self) -> bool:
        """Whether keys lie on several servers."""
        return self.kind == "cluster"

    def describe(self) -> dict[str, Any]:
        """Everything that may be shown."""
        given = self.given
        where = redacted_url(given) if isinstance(given, str) else type(given).__name__
        return {"redis": where, "db": self.db, "kind": self.kind}

    def client(self) -> Any:
        """Make a client for threads."""
        with Importing():
            return self._client()

    def _client(self) -> Any:
        from redis import connection  # noqa: PLC0415  see above
        from redis.backoff import NoBackoff  # noqa: PLC0415
        from redis.client import Redis  # noqa: PLC0415
        from redis.retry import Retry  # noqa: PLC0415

        ours = self._ours(Retry(NoBackoff(), 0), connection.Connection)
        if self.kind == "cluster":
            return self._cluster(False, ours)
        if self.kind == "sentinel":
            return Redis(connection_pool=self._sentinel_pool(False, ours))
        kind, kwargs = self._standalone(connection)
        made = connection.ConnectionPool(
            connection_class=bounded(kind), max_connections=_MOST_CONNECTIONS, **{**kwargs, **ours}
        )
        return Redis(connection_pool=made)

    def async_client(self) -> Any:
        """Make a client for one event loop."""
        with Importing():
            return self._async_client()

    def _async_client(self) -> Any:
        from redis.asyncio import connection  # noqa: PLC0415  see above
        from redis.asyncio.client import Redis  # noqa: PLC0415
        from redis.asyncio.retry import Retry  # noqa: PLC0415
        from redis.backoff import NoBackoff  # noqa: PLC0415

        ours = self._ours(Retry(NoBackoff(), 0), connection.Connection)
        if self.kind == "cluster":
            return self._cluster(True, ours)
        if self.kind == "sentinel":
            return Redis(connection_pool=self._sentinel_pool(True, ours))
        kind, kwargs = self._standalone(connection)
        made = connection.ConnectionPool(
            connection_class=kind, max_connections=_MOST_CONNECTIONS, **{**kwargs, **ours}
        )
        return Redis(connection_pool=made)

    def _ours(self, retry: Any, connection_class: type) -> dict[str, Any]:
        """Give what every connection of ours has, whatever was given."""
        return {
            "socket_timeout": self.timeout,
            "socket_connect_timeout": self.timeout,
            "retry": retry,
            "health_check_interval": 0,
            "decode_responses": False,
            "encoding": "utf-8",
            "protocol": 2,
            **_introduction(connection_class),
        }

    def _standalone(self, connection: Any) -> tuple[Any, dict[str, Any]]:
        """
        Give class and arguments of connections to one server.

        Args:
            connection: ``redis.connection`` or ``redis.asyncio.connection``.
        """
        if self.kind != "url":
            pool = self.given.connection_pool
            return _twin(pool.connection_class, connection), _kept(pool.connection_kwargs)
        scheme, _, rest = self.given.partition("://")
        scheme = _SCHEMES.get(scheme.lower(), scheme.lower())
        try:
            parsed = connection.parse_url(f"{scheme}://{rest}")
        except ValueError:  # its message may show a part of the URL
            raise ConfigError("redis is a URL that redis-py refuses", setting="redis") from None
        kind = parsed.get("connection_class", connection.Connection)
        kwargs = _kept(parsed)
        if scheme == "rediss" and kwargs.get("ssl_cert_reqs") not in {"none", "optional"}:
            # Older versions of redis-py do not check it by themselves.
            kwargs.setdefault("ssl_check_hostname", True)
        return kind, kwargs

    def _sentinel_pool(self, is_async: bool, ours: dict[str, Any]) -> Any:
        """Make a pool that asks the same sentinels, with our limits for them, too."""
        sentinel: Any
        if is_async:
            from redis.asyncio import sentinel  # noqa: PLC0415
        else:
            from redis import sentinel  # noqa: PLC0415

        pool = self.given.connection_pool
        manager = pool.sentinel_manager
        asked: list[dict[str, Any]] = [
            each.connection_pool.connection_kwargs for each in manager.sentinels
        ]
        known: dict[str, Any] = _kept(manager.sentinel_kwargs)
        sentinel_ours = {name: ours[name] for name in _FOR_SENTINELS if name in ours}
        own = sentinel.Sentinel(
            [(each["host"], each["port"]) for each in asked],
            min_other_sentinels=manager.min_other_sentinels,
            sentinel_kwargs=known | sentinel_ours,
            force_master_ip=getattr(manager, "_force_master_ip", None),
        )
        secure = any(each.__name__ == "SSLConnection" for each in pool.connection_class.__mro__)
        kind = sentinel.SentinelManagedSSLConnection if secure else None
        kind = kind or sentinel.SentinelManagedConnection
        return sentinel.SentinelConnectionPool(
            pool.service_name,
            own,
            connection_class=kind if is_async else bounded(kind),
            max_connections=_MOST_CONNECTIONS,
            **{**_kept(pool.connection_kwargs), **ours},
        )

    def _cluster(self, is_async: bool, ours: dict[str, Any]) -> Any:
        """Make a cluster client that begins with the nodes that the given one knows."""
        cluster: Any
        if is_async:
            from redis.asyncio import cluster  # noqa: PLC0415
        else:
            from redis import cluster  # noqa: PLC0415

        manager = self.given.nodes_manager
        nodes = [cluster.ClusterNode(each.host, each.port) for each in _nodes(manager)]
        kwargs = _kept(manager.connection_kwargs)
        for name in ("db", "host", "port", "path", "response_callbacks", "himport_registry"):
            kwargs.pop(name, None)
        accepted = inspect.signature(cluster.RedisCluster.__init__).parameters
        takes_all = any(each.kind is each.VAR_KEYWORD for each in accepted.values())
        kwargs = {**kwargs, **ours}
        if not takes_all:
            kwargs = {name: value for name, value in kwargs.items() if name in accepted}
        return cluster.RedisCluster(startup_nodes=nodes, **kwargs)


_FOR_SENTINELS: Final = (
    *("socket_timeout", "socket_connect_timeout", "retry", "health_check_interval", "protocol"),
)


def _nodes(manager: Any) -> list[Any]:
    """List the nodes that a cluster client knows; before its first use: what it begins with."""
    return list(manager.startup_nodes.values())


def _kept(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Give the arguments of a connection that we take over: where it is, who we are, TLS."""
    return {name: value for name, value in kwargs.items() if name not in _NOT_OURS}


def _twin(kind: type, connection: Any) -> Any:
    """Give the class of *connection*'s world that stands for a connection of the other one."""
    if issubclass(kind, connection.AbstractConnection):
        return kind
    for each in kind.__mro__:
        found = getattr(connection, each.__name__, None)
        if isinstance(found, type) and issubclass(found, connection.AbstractConnection):
            return found
    return connection.Connection


def _introduction(connection_class: type) -> dict[str, Any]:
    """Tell Redis who we are, as ``CLIENT LIST`` shows it, in the way this redis-py knows."""
    try:
        from redis import DriverInfo  # noqa: PLC0415
    except ImportError:
        accepted = inspect.signature(connection_class.__init__).parameters  # type: ignore[misc]
        base = inspect.signature(connection_class.__mro__[1].__init__).parameters  # type: ignore[misc]
        known = "lib_name" in accepted or "lib_name" in base
        return {"lib_name": "redis-py(accelerator)"} if known else {}
    version = metadata.version("accelerator-cache")
    return {"driver_info": DriverInfo().add_upstream_driver("accelerator", version)}


def _db_of_url(url: str) -> int:
    """
    Read the number of the database, as redis-py does.

    Raises:
        ConfigError: The URL has a port or a database that is no number; the message shows nothing
            of it.
    """
    wrong = ConfigError(
        "redis is no valid URL: it must look like redis://host:6379/0, and port and database must "
        "be numbers",
        setting="redis",
    )
    try:
        parts = urlsplit(url)
        _ = parts.port
        query = parse_qs(parts.query).get("db")
    except ValueError:
        raise wrong from None
    if query:
        text = query[0]
    elif parts.scheme.lower() == "unix":
        text = "0"
    else:
        text = parts.path.replace("/", "") or "0"
    if not text.isascii() or not text.isdigit():
        raise wrong
    return int(text)
