"""Settings of the process, the sources they come from, and the name that it has without any."""

from __future__ import annotations

import difflib
import hashlib
import os
import re
import sys
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import urlsplit

from accelerator.backend import REMOTE_METHODS
from accelerator.config.checks import (
    Check,
    checked,
    duration,
    flag,
    mode_or_none,
    name_of_area,
    one_of,
    refuse_unknown,
    within,
)
from accelerator.durations import seconds, size_bytes
from accelerator.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from accelerator.entry import CacheMode

_NAME: Final = re.compile(r"[a-z0-9_-]{1,40}")
_ENV_PREFIX: Final = "ACCELERATOR_"
_OTHER_VARIABLES: Final = ("ACCELERATOR_PURE", "ACCELERATOR_REDIS_URL")
"""Variables that are no settings."""
_URL_SCHEMES: Final = ("redis", "rediss", "unix", "valkey", "valkeys")
_SEGMENT_MIN: Final = 2 << 20
_SEGMENT_MAX: Final = 1 << 40  # file offsets from here on are the liveness bytes


def _segment_name(name: str, value: Any) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise TypeError(f"{name} must be text, or None, not {type(value).__name__}")
    if not _NAME.fullmatch(value):
        raise ValueError(f"{name} must be 1 to 40 characters out of a-z, 0-9, '_' and '-'")
    return str(value)


def _segment_size(name: str, value: Any) -> int | None:
    if value is None or value == "auto":
        return None
    return within(name, size_bytes(value, name=name), _SEGMENT_MIN, _SEGMENT_MAX)


def _namespace(name: str, value: Any) -> str | None:
    return None if value is None else name_of_area(name, value)


def _redis(name: str, value: Any) -> Any:
    """Check a URL or a client of redis-py; the message must not show the URL's password."""
    if value is None:
        return None
    if isinstance(value, str):
        scheme, separator, _ = value.partition("://")
        if not separator or scheme.lower() not in _URL_SCHEMES:
            raise ValueError(
                f"{name} must be a URL such as redis://host:6379/0, rediss://host:6379/0 (TLS) or "
                "unix:///run/redis.sock"
            )
        return str(value)
    if not isinstance(value, type) and callable(getattr(value, "execute_command", None)):
        return value
    raise TypeError(f"{name} must be a URL, a redis-py client, or None, not {type(value).__name__}")


def _remote(name: str, value: Any) -> Any:
    """Check a second level of the application's own."""
    if value is None:
        return None
    kind = type(value).__name__
    if isinstance(value, type):
        raise TypeError(f"{name} must be an object, not the class {value.__name__} itself")
    missing = [each for each in REMOTE_METHODS if not callable(getattr(value, each, None))]
    if missing:
        raise TypeError(
            f"{name} must be a RemoteBackend (see accelerator.protocols), or None; {kind} has no "
            f"{', '.join(missing)}"
        )
    return value


def _reconnect(name: str, value: Any) -> tuple[float, float]:
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise TypeError(f"{name} must be two durations: the first pause and the longest one")
    first = seconds(value[0], name=f"the first pause of {name}")
    longest = seconds(value[1], name=f"the longest pause of {name}")
    if first > longest:
        raise ValueError(f"the first pause of {name} must not be longer than the longest")
    return first, longest


def _secret(name: str, value: Any) -> tuple[bytes, ...]:
    if value is None:
        return ()
    found = []
    for each in value if isinstance(value, tuple | list) else [value]:
        if not isinstance(each, str | bytes):
            raise TypeError(f"{name} must be text, bytes or a list of those, or None")
        if not each:
            raise ValueError(f"{name} must not be empty: leave it out to have none")
        found.append(bytes(each) if isinstance(each, bytes) else _secret_bytes(name, each))
    return tuple(found)


def _secret_bytes(name: str, text: str) -> bytes:
    try:
        # surrogateescape: an environment variable may hold bytes that are no text
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # its own message shows a part of the secret
        raise ValueError(f"{name} holds a lone surrogate: give it as bytes") from None


_SETTING_CHECKS: Final[Mapping[str, Check]] = {
    "name": _segment_name,
    "size": _segment_size,
    "local": one_of("shared", "process"),
    "mode": mode_or_none,
    "redis": _redis,
    "remote": _remote,
    "namespace": _namespace,
    "redis_timeout": duration(),
    "reconnect": _reconnect,
    "freshness_bound": duration(),
    "secret": _secret,
    "strict": flag,
}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """
    Settings of the process: what ``attach`` and ``configure`` take.

    Raises:
        ConfigError: A setting is wrong, or *mode* asks for Redis and there is none.
    """

    name: str | None = None
    """What processes must share to share a cache; None: *derived_name*."""
    size: int | None = None
    """Bytes of the segment; None, also written "auto": by the shared memory there is."""
    local: str = "shared"
    """"shared", or "process": memory of this process on purpose."""
    mode: CacheMode | None = None
    """Instead of every area's own mode."""
    redis: Any = field(default=None, repr=False)  # the URL may hold a password
    remote: Any = field(default=None, repr=False)
    """A second level of the application's own, instead of Redis: see protocols.RemoteBackend."""
    namespace: str | None = None
    """First part of all names in Redis; None: as *name*."""
    redis_timeout: float = 0.1
    reconnect: tuple[float, float] = (0.1, 5.0)
    freshness_bound: float = 2.0
    """Longest time in seconds that a change on another host may take to be seen here."""
    secret: tuple[bytes, ...] = field(default=(), repr=False)
    """The first signs, all verify."""
    strict: bool = False
    """``attach`` raises instead of carrying on with less."""

    def __post_init__(self) -> None:
        for name, check in _SETTING_CHECKS.items():
            object.__setattr__(self, name, checked(name, check, getattr(self, name)))
        if self.redis is not None and self.remote is not None:
            raise ConfigError(
                "there is one second level: give redis, or remote, and leave the other out",
                setting="remote",
            )
        if self.mode is not None and self.mode.uses_remote and not self.has_remote:
            raise ConfigError(
                f"mode={self.mode.value!r} needs Redis: give the setting redis, or leave mode out",
                setting="mode",
            )

    @classmethod
    def resolve(
        cls,
        call: Mapping[str, Any],
        configured: Mapping[str, Any],
        environ: Mapping[str, str],
    ) -> Settings:
        """
        Join the sources of settings: *call* counts more than *configured* (of ``configure()``),
        that more than ``ACCELERATOR_*`` in *environ*, and that more than the defaults.
        """  # noqa: D205  one sentence
        for given in (call, configured):
            refuse_unknown(given, _SETTING_CHECKS)
        found = {
            name: environ[_variable(name)]
            for name in _SETTING_CHECKS
            if environ.get(_variable(name), "").strip() and name not in {*call, *configured}
        }
        parsed = {name: _from_text(name, text) for name, text in found.items()}
        try:
            return cls(**{**parsed, **configured, **call})
        except ConfigError as error:
            if error.setting not in found:
                raise
            variable = _variable(error.setting)
            message = f"{error} (it comes from the environment variable {variable})"
            raise ConfigError(message, setting=error.setting) from None

    @property
    def has_remote(self) -> bool:
        """Whether there is a second level, be it Redis or the application's own."""
        return self.redis is not None or self.remote is not None

    @property
    def remote_setting(self) -> str:
        """Name of the setting that says which."""
        return "redis" if self.remote is None else "remote"

    @property
    def remote_problem(self) -> str | None:
        """Why a second level is given but must not be used; None if nothing is wrong with it."""
        if not self.has_remote or self.name is not None or self.namespace is not None:
            return None
        return (
            f"{self.remote_setting} needs an explicit name or namespace, equal on all hosts of "
            "this application and different for others: give one"
        )

    def describe(self) -> dict[str, Any]:
        """Everything that may be shown: no secret, and no password of the URL."""
        return {each.name: _shown(each.name, getattr(self, each.name)) for each in fields(self)}


def _shown(name: str, value: Any) -> Any:
    """Give a checked setting without what must not be shown."""
    if name == "size":
        return "auto" if value is None else value
    if name == "mode":
        return None if value is None else value.value
    if name == "reconnect":
        return list(value)
    if name == "secret":
        return f"{len(value)} given" if value else None
    if name in {"redis", "remote"} and value is not None:
        return redacted_url(value) if isinstance(value, str) else type(value).__name__
    return value


class Origin(NamedTuple):
    """One setting: what it is, and where it comes from."""

    setting: str
    source: str
    """"call", the name of an environment variable, or "default"."""
    shown: Any
    """Its value as it may be shown; None as well where it is wrong."""
    problem: str | None = None
    """What is wrong with it."""


def origins(call: Mapping[str, Any], environ: Mapping[str, str]) -> list[Origin]:
    """Tell of each setting where it comes from, and of all that are wrong what is wrong."""
    return [_origin(name, call, environ) for name in _SETTING_CHECKS]


def _origin(name: str, call: Mapping[str, Any], environ: Mapping[str, str]) -> Origin:
    text = environ.get(_variable(name), "")
    if name in call:
        source, value = "call", call[name]
    elif text.strip():
        source, value = _variable(name), _from_text(name, text)
    else:
        return Origin(name, "default", Settings().describe()[name])
    try:
        kept = checked(name, _SETTING_CHECKS[name], value)
    except ConfigError as error:
        return Origin(name, source, None, str(error))
    return Origin(name, source, _shown(name, kept))


def unknown_variables(environ: Mapping[str, str]) -> dict[str, str | None]:
    """Give the variables that look like settings and are none, with the one that was meant."""
    known = {*map(_variable, _SETTING_CHECKS), *_OTHER_VARIABLES}
    found = sorted(name for name in environ if name.startswith(_ENV_PREFIX))
    return {name: _meant(name) for name in found if name not in known}


def _meant(variable: str) -> str | None:
    given = variable.removeprefix(_ENV_PREFIX).lower()  # with it all of them are alike
    close = difflib.get_close_matches(given, _SETTING_CHECKS, n=1)
    return _variable(close[0]) if close else None


def _variable(name: str) -> str:
    return _ENV_PREFIX + name.upper()


def _from_text(name: str, text: str) -> Any:
    """Turn the text of an environment variable into what the setting takes."""
    text = text if name == "secret" else text.strip()
    if name == "strict":
        known = {**dict.fromkeys(("1", "true", "yes", "on"), True)}
        known.update(dict.fromkeys(("0", "false", "no", "off"), False))
        return known.get(text.lower(), text)
    if name == "reconnect":
        return tuple(part.strip() for part in text.split(","))
    return text


def redacted_url(url: str) -> str:
    """*url* without user, password and query, any of which may hold a secret."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "?"
    if not parts.scheme or not url.lower().startswith(f"{parts.scheme}://"):
        return "?"
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}"


def derived_name(app_uri: str | None = None, environ: Mapping[str, str] = os.environ) -> str:
    """
    Name of a segment for an application that was given none.

    Processes of one application agree on it, and unrelated applications do not meet: it is made of
    the user, the real working directory, the virtual environment, the PID namespace, and Django's
    settings module or else *app_uri* (what Gunicorn was told to run).
    """
    try:
        folder = os.path.realpath(Path.cwd())
    except OSError:  # removed under our feet
        folder = ""
    parts = (
        _uid(),
        os.fsencode(folder),
        os.fsencode(os.path.realpath(sys.prefix)),
        _pid_namespace(),
        environ.get("DJANGO_SETTINGS_MODULE") or app_uri or "",
    )
    digest = hashlib.sha256(repr(parts).encode("utf-8", "surrogateescape")).hexdigest()[:16]
    label = re.sub(r"[^a-z0-9_-]+", "-", Path(folder).name.lower()).strip("-")[:20]
    return f"{label or 'app'}-{digest}"


def _uid() -> int:
    return os.getuid() if hasattr(os, "getuid") else 0


def _pid_namespace() -> int:
    try:
        return Path("/proc/self/ns/pid").stat().st_ino
    except OSError:
        return 0
