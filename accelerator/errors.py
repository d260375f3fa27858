"""The errors that users see: one class per kind, all of them a CacheError."""

from __future__ import annotations

from typing import Any, ClassVar


class CacheError(Exception):
    """
    Base of every error of this package.

    Args:
        message: What happened and what to do about it; never a value, never a key.
        area: The area in which it happened, if it was in one.
        operation: The operation that failed, by its name in logs: get, mget, set, mset, del, ...
    """

    kind: ClassVar[str] = "cache"
    """Stable name of the class of error, as in logs and metrics (``error_kind``)."""
    result: Any
    """
    What the decorated function has returned, where the cache failed after it: only set then.
    """

    def __init__(
        self, message: str, *, area: str | None = None, operation: str | None = None
    ) -> None:
        # Only the message goes to args: unpickling calls the class with args, and then restores
        # the attributes, those of subclasses included.
        super().__init__(message)
        self.area = area
        self.operation = operation

    def __str__(self) -> str:
        message = super().__str__()
        where = [
            f"{name}={value}"
            for name, value in (("area", self.area), ("op", self.operation))
            if value is not None
        ]
        return f"{message} [{' '.join(where)}]" if where else message


class ConfigError(CacheError):
    """A setting or option that is wrong, or that can never have an effect; *setting* names it."""

    kind = "invalid_config"

    def __init__(
        self,
        message: str,
        *,
        setting: str | None = None,
        area: str | None = None,
        operation: str | None = None,
    ) -> None:
        super().__init__(message, area=area, operation=operation)
        self.setting = setting


class BackendError(CacheError):
    """
    The segment or Redis could not do what was asked.

    *queued* tells whether it will be done later: an invalidation that Redis did not take is queued
    on the host and sent when Redis is back.
    """

    kind = "backend"

    def __init__(
        self,
        message: str,
        *,
        queued: bool = False,
        area: str | None = None,
        operation: str | None = None,
    ) -> None:
        super().__init__(message, area=area, operation=operation)
        self.queued = queued


class RemoteError(BackendError):
    """
    Redis did not do what was asked.

    *reason* is "timeout", "connection" (there is none, or it broke), "refused" (it answers, but
    takes no writes, or none of ours), "skipped" (it was not asked, because it is known to be
    away) or "other".  *late* is how many seconds after the time limit a timeout was noticed: a
    thread that did not get to run is no sign of a slow Redis.
    """

    def __init__(
        self,
        message: str,
        *,
        reason: str = "other",
        late: float = 0.0,
        queued: bool = False,
        area: str | None = None,
        operation: str | None = None,
    ) -> None:
        super().__init__(message, queued=queued, area=area, operation=operation)
        self.reason = reason
        self.late = late


class LoaderError(CacheError):
    """The loader raised; ``__cause__`` is what it raised."""

    kind = "loader"


class LoaderTimeout(CacheError):  # noqa: N818  the public name
    """The loader, or the wait for another worker's loader, took longer than allowed."""

    kind = "timeout"


class SerializationError(CacheError):
    """A value that cannot be stored faithfully, or stored bytes that are no value."""

    kind = "serialization"


class LockError(CacheError):
    """A lock is used wrongly: to wait for it would never end, or it is not held and released."""

    kind = "lock"


class LockTimeout(CacheError):  # noqa: N818  as LoaderTimeout
    """A lock did not become free within its *timeout*."""

    kind = "lock_timeout"


class NotAttached(CacheError):  # noqa: N818  the public name
    """There is no segment to work on."""

    kind = "not_attached"
