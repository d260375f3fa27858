"""
What a Redis is like, and whether it lets us do what we need; nothing of it changes.

Rights are tried and not read, because a user that has what we need, and no more, may not read them.
Every command is sent within MULTI, where the server checks name, rights, role and memory as it
queues the command, and the connection is closed before EXEC: nothing of it is ever executed.  Only
reading commands, an empty MULTI/EXEC and a SUBSCRIBE of a moment are executed.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from accelerator.errors import RemoteError
from accelerator.remote import failures
from accelerator.remote.names import Names, host_beat, host_channel, scratch

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from accelerator.remote.sync import RedisRemote

PINGS: Final = 20
_NO_AREA: Final = "doctor"
"""Where no area is known, its names stand for those of all."""
_CODES: Final = {
    "NoPermissionError": "NOPERM",
    "OutOfMemoryError": "OOM",
    "ReadOnlyError": "READONLY",
    "AuthenticationError": "NOAUTH",
    "AuthenticationWrongNumberOfArgsError": "NOAUTH",
    "AuthorizationError": "NOPERM",
    "BusyLoadingError": "LOADING",
    "ClusterDownError": "CLUSTERDOWN",
    "MasterDownError": "MASTERDOWN",
    "MovedError": "MOVED",
    "AskError": "ASK",
    "TryAgainError": "TRYAGAIN",
    "ExecAbortError": "EXECABORT",
}
"""redis-py takes the first word off the errors that it knows."""
_REFUSALS: Final = frozenset(
    {"OOM", "READONLY", "MISCONF", "LOADING", "MASTERDOWN", "CLUSTERDOWN", "NOREPLICAS"}
)


class Refusal(NamedTuple):
    """What a command was answered instead of a reply."""

    code: str
    """NOPERM, OOM, ...; UNKNOWN for a command that does not exist; else the first word."""


@dataclass(frozen=True)
class Seen:
    """
    What was found.

    Args:
        where: As Source.describe().
        error: Why there is nothing more to tell; None: it answers.
        code: Of that error, such as NOAUTH, if the server gave one.
        connecting: Seconds that it took to connect.
        pings: Seconds of each of some PINGs.
        info: Fields of INFO; None: this user may not read it.
        denied: Commands, with what they are about, that this user may not give.
        missing: Commands that the server does not have.
        refusals: Why it takes no writes now: codes such as OOM and READONLY.
        clock: Seconds by which its clock is ahead of the one here; None: it was not told.
        clock_error: By how much that may be wrong.
        subscribers: Number of each channel's subscribers; None: this user may not ask for it.
    """

    where: Mapping[str, Any]
    error: str | None = None
    code: str = ""
    connecting: float = 0.0
    pings: Sequence[float] = ()
    info: Mapping[str, str] | None = None
    denied: Sequence[str] = ()
    missing: Sequence[str] = ()
    refusals: Sequence[str] = ()
    clock: float | None = None
    clock_error: float = 0.0
    subscribers: Mapping[str, int] | None = field(default=None)


def needed(namespace: str, area: str, origin: bytes, db: int = 0) -> list[tuple[str, ...]]:
    """List the commands that an area needs, each as it may be queued."""
    names = Names(namespace, area, db)
    value = names.value(b"sdoctor")
    heartbeat = host_channel(namespace, origin, db)
    return [
        ("GET", value),
        ("MGET", value),
        ("SET", value, "", "PX", "1"),
        ("DEL", value),
        ("GETRANGE", value, "0", "1"),
        ("SETRANGE", value, "0", ""),
        ("PTTL", value),
        ("PEXPIRE", value, "1"),
        ("PERSIST", value),
        ("INCRBY", scratch(value), "1"),
        ("SET", names.gen, ""),
        ("INCR", names.seq),
        ("XADD", names.log, "*", "m", ""),
        ("XRANGE", names.log, "-", "+"),
        ("SET", names.run, ""),
        ("SET", names.beat, ""),
        ("SET", host_beat(namespace), ""),
        ("TIME",),
        ("PING",),
        ("PUBLISH", names.channel, ""),
        ("PUBLISH", heartbeat, ""),
        ("EVAL", "return 1", "1", value),
        ("EVALSHA", "0" * 40, "1", value),
    ]


def probe(remote: RedisRemote, areas: Iterable[str], origin: bytes) -> Seen:
    """
    Look at the server behind *remote*; never raises RemoteError.

    Args:
        remote: What the settings say, with a time limit that is long enough to find out.
        areas: Names of the areas that use it.
        origin: Name of this host's segment in messages.
    """
    where = remote.describe()
    try:
        connection = remote.connection()
    except RemoteError as error:
        return Seen(where, error=_why(error), code=_code_behind(error))
    try:
        return _looked(remote, connection, list(areas), origin)
    except Exception as error:
        found = failures.failure(error, None, "doctor")
        return Seen(where, error=_why(found, error), code=_code(error))
    finally:
        connection.disconnect()


def _looked(remote: RedisRemote, connection: Any, areas: list[str], origin: bytes) -> Seen:
    where, db = remote.describe(), int(remote.describe()["db"])
    connecting = _connecting(remote)
    pings = [_timed(connection) for _ in range(PINGS)]
    clock, error = _clock(connection)
    channels = [Names(remote.namespace, area, db).channel for area in areas]
    channels.append(host_channel(remote.namespace, origin, db))
    heard = subscribers(connection, channels)
    info = _info(connection)
    denied, missing, refusals = [], [], set()
    answers: list[tuple[tuple[str, ...], Any]]
    answers = [((word,), ask(connection, word)) for word in ("MULTI", "EXEC")]
    answers += _queued(remote, needed(remote.namespace, (areas or [_NO_AREA])[0], origin, db))
    answers += _subscribed(remote, channels[-1:] + channels[:1])
    for words, answer in answers:
        if isinstance(answer, Refusal):
            if answer.code in {"NOPERM", "NOAUTH"}:
                denied.append(" ".join(words[:2]) if _about(words) else words[0])
            elif answer.code == "UNKNOWN":
                missing.append(words[0])
            elif answer.code in _REFUSALS:
                refusals.add(answer.code)
    return Seen(
        where=where,
        connecting=connecting,
        pings=pings,
        info=info,
        denied=denied,
        missing=missing,
        refusals=sorted(refusals),
        clock=clock,
        clock_error=error,
        subscribers=heard,
    )


def _connecting(remote: RedisRemote) -> float:
    """Time a connection that is not the first one, which has redis-py imported, too."""
    started = time.monotonic()
    remote.connection().disconnect()
    return time.monotonic() - started


def _about(words: Sequence[str]) -> bool:
    return len(words) > 1 and not words[0].startswith("EVAL")


def ask(connection: Any, *words: str) -> Any:
    """Send one command: the reply, or why there is none."""
    from redis.exceptions import ResponseError  # noqa: PLC0415  the connection has imported it

    connection.send_command(*words)
    try:
        return connection.read_response()
    except ResponseError as error:
        return Refusal(_code(error))


def _code(error: BaseException) -> str:
    known, text = _CODES.get(type(error).__name__), str(error)
    if known == "NOAUTH" and "invalid" in text.lower():
        return "WRONGPASS"
    if known == "EXECABORT" and "NOPERM" in text:
        return "NOPERM"  # of EXEC itself
    if known is not None:
        return known
    if "unknown command" in text.lower():
        return "UNKNOWN"
    found = re.match(r"[A-Z]{3,}\b", text)
    return found.group() if found else ""


def _code_behind(error: BaseException) -> str:
    """Find the server's own word behind an error of ours."""
    behind = error.__context__
    while behind is not None:
        code = _code(behind)
        if code:
            return code
        behind = behind.__context__
    return ""


def _why(error: RemoteError, behind: BaseException | None = None) -> str:
    """Tell a failure with what the operating system said, which holds no secret."""
    behind = behind or error.__context__
    while behind is not None:
        if isinstance(behind, OSError) and behind.strerror:
            return f"{error.args[0]}: {behind.strerror}"
        behind = behind.__cause__ or behind.__context__
    return str(error.args[0])


def _timed(connection: Any) -> float:
    started = time.monotonic()
    answer = ask(connection, "PING")
    if isinstance(answer, Refusal) and answer.code != "NOPERM":
        raise RemoteError(f"it answers PING with {answer.code or 'an error'}", reason="refused")
    return time.monotonic() - started


def _clock(connection: Any) -> tuple[float | None, float]:
    before = time.time()
    answer = ask(connection, "TIME")
    after = time.time()
    if isinstance(answer, Refusal):
        return None, 0.0
    theirs = int(answer[0]) + int(answer[1]) / 1e6
    return theirs - (before + after) / 2, (after - before) / 2


def subscribers(connection: Any, channels: Sequence[str]) -> dict[str, int] | None:
    """Ask how many hear each of *channels*; None: this user may not."""
    answer = ask(connection, "PUBSUB", "NUMSUB", *channels)
    if isinstance(answer, Refusal):
        return None
    pairs = zip(answer[::2], answer[1::2], strict=True)
    return {name.decode(): int(number) for name, number in pairs}


def _info(connection: Any) -> dict[str, str] | None:
    answer = ask(connection, "INFO")
    if isinstance(answer, Refusal):
        return None
    lines = (line.partition(":") for line in answer.decode("utf-8", "replace").splitlines())
    return {name: value for name, colon, value in lines if colon}


def _queued(
    remote: RedisRemote, commands: Iterable[tuple[str, ...]]
) -> list[tuple[tuple[str, ...], Any]]:
    """Have commands checked and queued, and never executed."""
    connection = remote.connection()
    try:
        if isinstance(ask(connection, "MULTI"), Refusal):
            return []  # that is known already, and these would be executed
        # On a cluster another node may have the key: that is said when the rights are in order.
        return [(words, ask(connection, *words)) for words in commands]
    finally:
        connection.disconnect()  # forgets the queue; DISCARD would be one right more to need


def _subscribed(remote: RedisRemote, channels: Iterable[str]) -> list[tuple[tuple[str, ...], Any]]:
    connection = remote.connection()
    try:
        return [
            (("SUBSCRIBE", channel), ask(connection, "SUBSCRIBE", channel)) for channel in channels
        ]
    finally:
        connection.disconnect()
