"""
What goes wrong with Redis, told in four words.

redis-py's own messages may show keys, commands, users and addresses, so nothing of them is passed
on: an error of ours says what was wanted and which kind of thing happened.
"""

from __future__ import annotations

import re
from typing import Final

from accelerator.errors import RemoteError

_REFUSALS: Final = re.compile(
    r"\b(READONLY|OOM|NOAUTH|WRONGPASS|NOPERM|NOREPLICAS|MISCONF|LOADING|MASTERDOWN|CLUSTERDOWN"
    r"|TRYAGAIN|BUSY|NOMULTI|DENIED|UNKILLABLE)\b"
)
_MESSAGES: Final = {
    "timeout": "Redis did not answer in time",
    "connection": "there is no connection to Redis",
    "refused": "Redis answers, but refuses",
    "other": "Redis answered with an error",
}


def failure(
    error: BaseException, area: str | None, operation: str, *, late: float = 0.0
) -> RemoteError:
    """
    Translate what redis-py raised or gave as a reply; to be raised ``from None``.

    Args:
        error: The error.
        area: The area it happened in.
        operation: What was to be done.
        late: See RemoteError.
    """
    if isinstance(error, RemoteError):
        return error
    try:
        reason = reason_of(error)
    except ImportError:  # the interpreter ends: nothing can be imported, nor sent, any more
        reason = "connection"
    message = f"{_MESSAGES[reason]} ({type(error).__name__})"
    return RemoteError(message, reason=reason, late=late, area=area, operation=operation)


def reason_of(error: BaseException) -> str:  # noqa: PLR0911  one for each kind
    """Tell which kind of failure it is."""
    from redis import exceptions  # noqa: PLC0415  imported by whatever raised it

    # redis-py's asyncio part calls all that happens before a connection is ready an error of it.
    cause = error.__cause__
    if type(error) is exceptions.ConnectionError and isinstance(cause, exceptions.RedisError):
        return reason_of(cause)
    if isinstance(error, exceptions.TimeoutError | TimeoutError):
        return "timeout"
    # Some of these are connection errors to redis-py; but the server is there, and says no.
    refusals = (
        exceptions.AuthenticationError,
        exceptions.AuthorizationError,
        exceptions.BusyLoadingError,
        exceptions.ClusterDownError,
        exceptions.ReadOnlyError,
    )
    if isinstance(error, refusals):
        return "refused"
    if type(error).__name__ in {"NoPermissionError", "OutOfMemoryError", "MasterDownError"}:
        return "refused"  # names that not every version has
    if isinstance(error, exceptions.ResponseError):
        return "refused" if _REFUSALS.search(str(error)) else "other"
    if isinstance(error, exceptions.ConnectionError | OSError):
        return "connection"
    if isinstance(error, exceptions.RedisClusterException):  # no node of it could be reached
        return "connection"
    return "other"


def is_error(reply: object) -> bool:
    """Tell whether a reply is an error."""
    return isinstance(reply, Exception)


def is_unknown_script(reply: object) -> bool:
    """Tell whether a reply says that the script is not known (any more)."""
    return isinstance(reply, Exception) and type(reply).__name__ == "NoScriptError"
