"""
Options of an area and settings of the process, checked once, when they are given.

Whatever is wrong, and whatever can never have an effect, is a ConfigError that names the option and
says what to write instead.  What merely has no effect *here* (an option of Redis on a developer's
machine without Redis) is accepted: the same code has to run there.
"""

from __future__ import annotations

import difflib
import hashlib
import math
import os
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from accelerator.durations import seconds, size_bytes
from accelerator.entry import CacheMode
from accelerator.errors import ConfigError

Check = Callable[[str, Any], Any]
"""Takes name and value of an option; returns it as kept, or raises TypeError or ValueError."""

MAX_VALUE_SIZE: Final = (64 << 20) - 1
"""Largest value that a segment's layout can describe."""
STALE_LIFE: Final = 3600.0
"""Default ``stale_ttl`` of an area that allows stale answers at all, in seconds."""

_AREA_BYTES: Final = 104  # what the segment's table of areas has room for
_NAME: Final = re.compile(r"[a-z0-9_-]{1,40}")
_ENV_PREFIX: Final = "ACCELERATOR_"
_URL_SCHEMES: Final = ("redis", "rediss", "unix", "valkey", "valkeys")
_SEGMENT_MIN: Final = 2 << 20
_SEGMENT_MAX: Final = 1 << 40  # file offsets from here on are the liveness bytes


# --- checks of one value ------------------------------------------------------------------------


def _duration(*, allow_none: bool = False, allow_zero: bool = False) -> Check:
    def check(name: str, value: Any) -> float | None:
        return seconds(value, name=name, allow_none=allow_none, allow_zero=allow_zero)

    return check


def _whole(minimum: int, maximum: int) -> Check:
    def check(name: str, value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"{name} must be a whole number, not {type(value).__name__}")
        return _within(name, int(value), minimum, maximum)

    return check


def _size(minimum: int, maximum: int) -> Check:
    def check(name: str, value: Any) -> int:
        return _within(name, size_bytes(value, name=name), minimum, maximum)

    return check


def _within(name: str, value: int, minimum: int, maximum: int) -> int:
    if not minimum <= value <= maximum:
        raise ValueError(f"{name} must be {minimum} to {maximum}, not {value}")
    return value


def _ratio(name: str, value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number from 0 to 1, or None, not {type(value).__name__}")
    if not 0 <= value <= 1:  # NaN, too
        raise ValueError(f"{name} must be from 0 to 1 (0.1 shortens lives by up to a tenth)")
    return float(value)


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, not {type(value).__name__}")
    return value


def _maybe_flag(name: str, value: Any) -> bool | None:
    return None if value is None else _flag(name, value)


def _one_of(*choices: str) -> Check:
    def check(name: str, value: Any) -> str:
        if not isinstance(value, str):
            raise TypeError(f"{name} must be one of {_listed(choices)}, not {type(value).__name__}")
        if value not in choices:
            raise ValueError(f"{name} must be one of {_listed(choices)}")
        return str(value)

    return check


def _listed(choices: tuple[str, ...]) -> str:
    return ", ".join(repr(choice) for choice in choices)


def _mode(name: str, value: Any) -> CacheMode | None:
    if value is None:
        return None
    choices = tuple(mode.value for mode in CacheMode)
    if not isinstance(value, str):
        kind = type(value).__name__
        raise TypeError(
            f"{name} must be a CacheMode, one of {_listed(choices)}, or None, not {kind}"
        )
    try:
        return CacheMode(value)
    except ValueError:
        raise ValueError(f"{name} must be one of {_listed(choices)}, or None") from None


def _area(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name} must be text, not {type(value).__name__}")
    return _label(name, str(value), _AREA_BYTES)


def _label(name: str, value: str, most: int) -> str:
    """Check text that ends up in log lines and names of Redis keys."""
    if not value or value != value.strip() or not value.isprintable():
        raise ValueError(
            f"{name} must be printable text that is not empty and neither begins nor ends with "
            "a space"
        )
    if len(value.encode("utf-8")) > most:  # printable text has no surrogates
        raise ValueError(f"{name} must be at most {most} bytes long in UTF-8")
    return value


def _maybe_callable(name: str, value: Any) -> Any:
    if value is not None and not callable(value):
        raise TypeError(f"{name} must be something to call, or None, not {type(value).__name__}")
    return value


def _loader(name: str, value: Any) -> Any:
    if value is None or callable(value) or callable(getattr(value, "load", None)):
        return value
    raise TypeError(
        f"{name} must be a function of the key, or an object with a method load, "
        f"not {type(value).__name__}"
    )


_CODECS: Final = ("msgpack", "raw", "pickle")


def _codec(name: str, value: Any) -> Any:
    if isinstance(value, str):
        return _one_of(*_CODECS)(name, value)
    methods = (getattr(value, method, None) for method in ("encode", "decode"))
    # A class has the methods, too, but lacks the self; and bytes can decode, but are no codec.
    if not isinstance(value, type | bytes) and all(map(callable, methods)):
        return value
    raise TypeError(
        f"{name} must be one of {_listed(_CODECS)}, or an object with methods encode and decode, "
        f"not {type(value).__name__}"
    )


def _version(name: str, value: Any) -> str | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise TypeError(f"{name} must be text, a whole number, or None, not {type(value).__name__}")
    return _label(name, str(value), 64)


def _not_built(name: str, value: Any) -> None:
    """Refuse what no part of this version would act on: silence would be a promise."""
    if value is not None:
        raise ValueError(f"{name} has no effect in this version: leave it out")


# --- areas --------------------------------------------------------------------------------------

_AREA_CHECKS: Final[Mapping[str, Check]] = {
    "area": _area,
    "mode": _mode,
    "local_ttl": _duration(allow_none=True),
    "remote_ttl": _duration(allow_none=True),
    "null_ttl": _duration(allow_none=True),
    "ttl_jitter_ratio": _ratio,
    "cache_null_value": _flag,
    "stale_ttl": _duration(allow_none=True, allow_zero=True),
    "stale_on_error": _flag,
    "allow_stale": _flag,
    "error_ttl": _duration(allow_zero=True),
    "max_staleness": _duration(allow_none=True),
    "on_desync": _one_of("cap", "bypass", "serve"),
    "max_value_size": _size(1, MAX_VALUE_SIZE),
    "objects": _one_of("auto", "shared", "copy"),
    "codec": _codec,
    "verify": _one_of("sample", "full"),
    "version": _version,
    "loader": _loader,
    "loader_timeout": _duration(allow_none=True),
    "batch_timeout": _duration(allow_none=True),
    "wait_timeout": _duration(allow_none=True),
    "lease": _duration(),
    "max_loads": _whole(1, 1 << 16),
    "penetration_protect": _flag,
    "background": _maybe_callable,
    "key_converter": _maybe_callable,
    "warmup_enabled": _flag,
    "warmup_batch_size": _whole(1, 1 << 20),
    "refresh_ahead": _flag,
    "refresh_ahead_window": _duration(),
    "broadcast_invalidation": _maybe_flag,
    "broadcast_sets": _maybe_flag,
    "compress_over": _not_built,
    "quota": _not_built,
    "tags": _not_built,
}


@dataclass(frozen=True, kw_only=True)
class AreaConfig:
    """
    Options of one area.  A duration may be given in each form of Duration and is kept in seconds.

    Raises:
        ConfigError: An option is wrong, or can never have an effect with the others.
    """

    area: str = "default"
    mode: CacheMode | None = None
    """None: BOTH with Redis, LOCAL without."""

    local_ttl: float | None = 60.0
    """Life in the segment; None: no expiry (it may still be evicted)."""
    remote_ttl: float | None = 300.0
    """Life in Redis."""
    null_ttl: float | None = 30.0
    """Life of a cached ``None``."""
    ttl_jitter_ratio: float | None = 0.1
    """Lives from here are shortened by a random share of up to this; None: never."""
    cache_null_value: bool = True
    """Whether ``None`` is stored at all; without it, setting ``None`` deletes."""

    stale_ttl: float | None = None
    """How long after its life a value stays usable as stale; None: see *stale_life*."""
    stale_on_error: bool = False
    """Answer with the stale value when the loader failed."""
    allow_stale: bool = False
    """Reads of this area allow stale answers without being asked to."""
    error_ttl: float = 1.0
    """Pause after a failed load."""
    max_staleness: float | None = None
    """Nothing that may be further behind the source of truth than this is served."""
    on_desync: str = "cap"
    """What to do while Redis cannot confirm that the segment is current: cap, bypass, serve."""

    max_value_size: int = 1 << 20
    """Bytes of an encoded value."""
    objects: str = "auto"
    """
    Which decoded objects a process keeps and returns again: "auto": the immutable ones, "shared":
    all (callers promise not to change them), "copy": none.
    """
    codec: Any = "msgpack"
    verify: str = "sample"
    """How often the checksum of a value is verified: "sample" or "full"."""
    version: str | None = None
    """Fingerprint of what values look like; values of another version are not read."""

    loader: Any = None
    """Function of the key, or object with ``load`` and perhaps ``mload``."""
    loader_timeout: float | None = 5.0
    """None: no limit."""
    batch_timeout: float | None = None
    """The same for a batch; None: see *batch_limit*."""
    wait_timeout: float | None = None
    """Longest wait for another worker's load; None: see *wait_limit*."""
    lease: float = 30.0
    """After this long a living leader's load may be taken over."""
    max_loads: int = 8
    """Uncoordinated loads that may run at the same time, per host."""
    penetration_protect: bool = True
    """One load per missed key and host, however many workers ask for it."""
    background: Any = None
    """Context manager factory around background loads."""
    key_converter: Any = None

    warmup_enabled: bool = False
    warmup_batch_size: int = 256
    refresh_ahead: bool = False
    refresh_ahead_window: float = 3.0

    broadcast_invalidation: bool | None = None
    """None: on wherever there is Redis."""
    broadcast_sets: bool | None = None
    """None: as *broadcast_invalidation*."""

    compress_over: int | None = None
    quota: int | None = None
    tags: Any = None

    def __post_init__(self) -> None:
        area = _text_or_none(self.area)
        for name, check in _AREA_CHECKS.items():
            checked = _checked(name, check, getattr(self, name), area=area)
            object.__setattr__(self, name, checked)
        for rule in _USELESS:
            if rule.applies(self):
                raise ConfigError(rule.message, setting=rule.setting, area=self.area)

    @classmethod
    def build(cls, **options: Any) -> AreaConfig:
        """Make one of options whose names are not known to be right, or whose types vary."""
        area = _text_or_none(options.get("area", "default"))
        _refuse_unknown(options, _AREA_CHECKS, area=area)
        return cls(**options)

    @property
    def stale_life(self) -> float:
        """How long after its life a value stays usable as stale, in seconds."""
        if self.stale_ttl is not None:
            return self.stale_ttl
        return STALE_LIFE if self.stale_on_error or self.allow_stale else 0.0

    @property
    def batch_limit(self) -> float | None:
        """Time limit of a batch load; None: none."""
        return self.loader_timeout if self.batch_timeout is None else self.batch_timeout

    @property
    def wait_limit(self) -> float:
        """Longest wait for another worker's load; never endless."""
        for limit in (self.wait_timeout, self.loader_timeout):
            if limit is not None:
                return limit
        return self.lease

    def mode_under(self, settings: Settings) -> CacheMode:
        """
        Tell which tiers this area has under *settings*.

        Raises:
            ConfigError: It needs Redis, or a secret, and there is none.
        """
        if self.codec == "pickle" and not settings.secret:
            raise ConfigError(
                "codec='pickle' needs the setting secret, because unpickling bytes that somebody "
                "else wrote runs their code: set secret, or use codec='msgpack'",
                setting="codec",
                area=self.area,
            )
        redis = settings.redis is not None and settings.redis_problem is None
        mode = self.mode if settings.mode is None else settings.mode
        if mode is None:
            return CacheMode.BOTH if redis else CacheMode.LOCAL
        if mode.uses_remote and not redis:
            reason = settings.redis_problem or "the setting redis is not given"
            raise ConfigError(
                f"mode={mode.value!r} needs Redis, but {reason}; or leave mode out, then Redis is "
                "used where there is one",
                setting="mode",
                area=self.area,
            )
        return mode


class _Rule(NamedTuple):
    """Something that cannot have an effect in any set-up, and what to do about it."""

    setting: str
    applies: Callable[[AreaConfig], bool]
    message: str


def _shortest_life(config: AreaConfig) -> float:
    """Life of a value in the tier that readers meet first; infinite without expiry."""
    # With mode None it is the local one, too: in BOTH no local life is longer than local_ttl.
    lives = {
        CacheMode.REMOTE: [config.remote_ttl],
        CacheMode.BOTH: [config.local_ttl, config.remote_ttl],
    }.get(config.mode or CacheMode.LOCAL, [config.local_ttl])
    return min((life for life in lives if life is not None), default=math.inf)


_USELESS: Final = (
    _Rule(
        "broadcast_invalidation",
        lambda it: bool(it.broadcast_invalidation) and it.mode is CacheMode.LOCAL,
        "broadcast_invalidation=True reaches nobody with mode='local': leave one of them out",
    ),
    _Rule(
        "broadcast_sets",
        lambda it: bool(it.broadcast_sets) and it.mode is CacheMode.LOCAL,
        "broadcast_sets=True reaches nobody with mode='local': leave one of them out",
    ),
    _Rule(
        "broadcast_sets",
        lambda it: bool(it.broadcast_sets) and it.broadcast_invalidation is False,
        "broadcast_sets=True has no effect with broadcast_invalidation=False: leave one of them "
        "out",
    ),
    _Rule(
        "refresh_ahead",
        lambda it: it.refresh_ahead and it.loader is None,
        "refresh_ahead=True has nothing to refresh with: give a loader, or leave it out",
    ),
    _Rule(
        "refresh_ahead",
        lambda it: it.refresh_ahead and _shortest_life(it) == math.inf,
        "refresh_ahead=True has no effect on values that never expire: give a ttl, or leave it out",
    ),
    _Rule(
        "refresh_ahead_window",
        lambda it: it.refresh_ahead and it.refresh_ahead_window >= _shortest_life(it),
        "refresh_ahead_window must be shorter than the life of a value, else every read refreshes: "
        "make it shorter, or the ttl longer",
    ),
    _Rule(
        "warmup_enabled",
        lambda it: it.warmup_enabled and it.loader is None and it.mode is CacheMode.LOCAL,
        "warmup_enabled=True has nothing to load with: give a loader, or leave it out",
    ),
    _Rule(
        "stale_ttl",
        lambda it: (it.stale_on_error or it.allow_stale) and it.stale_ttl == 0,
        "stale_ttl=0 keeps nothing that stale_on_error or allow_stale could serve: leave it out, "
        "or both of them",
    ),
    _Rule(
        "lease",
        lambda it: it.loader_timeout is not None and it.lease < it.loader_timeout,
        "lease must be at least loader_timeout, else loads are taken over while they may still "
        "run: make it longer",
    ),
    _Rule(
        "objects",
        lambda it: it.objects == "shared" and it.mode is CacheMode.REMOTE,
        "objects='shared' has no effect with mode='remote', which keeps nothing on this host: "
        "leave one of them out",
    ),
    _Rule(
        "verify",
        lambda it: it.verify == "full" and it.mode is CacheMode.REMOTE,
        "verify='full' has no effect with mode='remote', which keeps nothing on this host: "
        "leave one of them out",
    ),
)


# --- settings of the process --------------------------------------------------------------------


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
    return _within(name, size_bytes(value, name=name), _SEGMENT_MIN, _SEGMENT_MAX)


def _namespace(name: str, value: Any) -> str | None:
    return None if value is None else _area(name, value)


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
    "local": _one_of("shared", "process"),
    "mode": _mode,
    "redis": _redis,
    "namespace": _namespace,
    "redis_timeout": _duration(),
    "reconnect": _reconnect,
    "freshness_bound": _duration(),
    "secret": _secret,
    "strict": _flag,
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
            object.__setattr__(self, name, _checked(name, check, getattr(self, name)))
        if self.mode is not None and self.mode.uses_remote and self.redis is None:
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
            _refuse_unknown(given, _SETTING_CHECKS)
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
    def redis_problem(self) -> str | None:
        """Why *redis* is given but must not be used; None if nothing is wrong with it."""
        if self.redis is None or self.name is not None or self.namespace is not None:
            return None
        return (
            "redis needs an explicit name or namespace, equal on all hosts of this application "
            "and different for others: give one"
        )

    def describe(self) -> dict[str, Any]:
        """Everything that may be shown: no secret, and no password of the URL."""
        shown = {each.name: getattr(self, each.name) for each in fields(self)}
        shown["size"] = "auto" if self.size is None else self.size
        shown["mode"] = None if self.mode is None else self.mode.value
        shown["reconnect"] = list(self.reconnect)
        shown["secret"] = f"{len(self.secret)} given" if self.secret else None
        if self.redis is not None:
            text = isinstance(self.redis, str)
            shown["redis"] = redacted_url(self.redis) if text else type(self.redis).__name__
        return shown


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


# --- common -------------------------------------------------------------------------------------


def _text_or_none(area: Any) -> str | None:
    """Give the area for an error message, which must not fail for a wrong area."""
    return area if isinstance(area, str) else None


def _checked(name: str, check: Check, value: Any, *, area: str | None = None) -> Any:
    try:
        return check(name, value)
    except (TypeError, ValueError) as error:
        # Not "from error": some of the causes show the value, and it may be a secret.
        where = None if name == "area" else area
        raise ConfigError(str(error), setting=name, area=where) from None


def _refuse_unknown(
    given: Mapping[str, Any], known: Mapping[str, Check], *, area: str | None = None
) -> None:
    for name in given:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(sorted(known))}"
            raise ConfigError(f"there is no option {name}: {hint}", setting=name, area=area)
