"""Options of one area."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from accelerator import tags
from accelerator.backend import LOCAL_METHODS
from accelerator.compression import zstd
from accelerator.config.checks import (
    Check,
    checked,
    duration,
    flag,
    label,
    listed,
    maybe_callable,
    maybe_flag,
    mode_or_none,
    name_of_area,
    one_of,
    ratio,
    refuse_unknown,
    size,
    text_or_none,
    whole,
)
from accelerator.entry import CacheMode
from accelerator.errors import ConfigError
from accelerator.loader import Source

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from accelerator.config.settings import Settings

MAX_VALUE_SIZE: Final = (64 << 20) - 1
"""Largest value that a segment's layout can describe."""
STALE_LIFE: Final = 3600.0
"""Default ``stale_ttl`` of an area that allows stale answers at all, in seconds."""


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
        return one_of(*_CODECS)(name, value)
    methods = (getattr(value, method, None) for method in ("encode", "decode"))
    # A class has the methods, too, but lacks the self; and bytes can decode, but are no codec.
    if not isinstance(value, type | bytes) and all(map(callable, methods)):
        return value
    raise TypeError(
        f"{name} must be one of {listed(_CODECS)}, or an object with methods encode and decode, "
        f"not {type(value).__name__}"
    )


def _local(name: str, value: Any) -> Any:
    """Check a first level of the application's own."""
    if value is None:
        return None
    missing = [each for each in LOCAL_METHODS if not callable(getattr(value, each, None))]
    if isinstance(value, type) or missing:
        raise TypeError(
            f"{name} must be a LocalBackend (see accelerator.protocols), an object with the "
            f"methods {', '.join(LOCAL_METHODS)}, or None, not {type(value).__name__}"
        )
    return value


def _version(name: str, value: Any) -> str | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise TypeError(f"{name} must be text, a whole number, or None, not {type(value).__name__}")
    return label(name, str(value), 64)


def _compress_over(name: str, value: Any) -> int | None:
    if value is None:
        return None
    found: int = size(0, MAX_VALUE_SIZE)(name, value)
    if zstd() is None:
        raise ValueError(
            f"{name} needs zstd, and there is none here: install accelerator-cache[zstd] "
            "(Python 3.14 has it by itself), or leave it out"
        )
    return found


def _tags(name: str, value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    found = tags.encoded(value, name=name)
    if len(found) > tags.MOST:
        raise ValueError(f"{name} must be at most {tags.MOST} tags, not {len(found)}")
    return tuple(tag.decode() for tag in found)


def _not_built(name: str, value: Any) -> None:
    """Refuse what no part of this version would act on: silence would be a promise."""
    if value is not None:
        raise ValueError(f"{name} has no effect in this version: leave it out")


_AREA_CHECKS: Final[Mapping[str, Check]] = {
    "area": name_of_area,
    "mode": mode_or_none,
    "local_ttl": duration(allow_none=True),
    "remote_ttl": duration(allow_none=True),
    "null_ttl": duration(allow_none=True),
    "ttl_jitter_ratio": ratio,
    "cache_null_value": flag,
    "stale_ttl": duration(allow_none=True, allow_zero=True),
    "stale_on_error": flag,
    "allow_stale": flag,
    "error_ttl": duration(allow_zero=True),
    "max_staleness": duration(allow_none=True),
    "on_desync": one_of("cap", "bypass", "serve"),
    "max_value_size": size(1, MAX_VALUE_SIZE),
    "objects": one_of("auto", "shared", "copy"),
    "codec": _codec,
    "local": _local,
    "verify": one_of("sample", "full"),
    "version": _version,
    "loader": _loader,
    "loader_timeout": duration(allow_none=True),
    "batch_timeout": duration(allow_none=True),
    "wait_timeout": duration(allow_none=True),
    "soft_timeout": duration(allow_none=True, allow_zero=True),
    "lease": duration(),
    "max_loads": whole(1, 1 << 16),
    "penetration_protect": flag,
    "background": maybe_callable,
    "key_converter": maybe_callable,
    "warmup_enabled": flag,
    "warmup_batch_size": whole(1, 1 << 20),
    "refresh_ahead": flag,
    "refresh_ahead_window": duration(),
    "broadcast_invalidation": maybe_flag,
    "broadcast_sets": maybe_flag,
    "compress_over": _compress_over,
    "quota": _not_built,
    "tags": _tags,
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
    local: Any = None
    """Where values lie instead of the segment: see protocols.LocalBackend."""
    verify: str = "sample"
    """How often the checksum of a value is verified: "sample" or "full"."""
    version: str | None = None
    """What values look like; those of another version lie apart, and are not read."""

    loader: Any = None
    """Function of the key, or object with ``load`` and perhaps ``mload``."""
    loader_timeout: float | None = 5.0
    """None: no limit."""
    batch_timeout: float | None = None
    """The same for a batch; None: see *batch_limit*."""
    wait_timeout: float | None = None
    """Longest wait for another worker's load; None: see *wait_limit*."""
    soft_timeout: float | None = None
    """
    After this long a read that has a stale value answers it, and the load goes on in the
    background; 0: at once.  None: never.
    """
    lease: float = 30.0
    """After this long a living leader's load may be taken over."""
    max_loads: int = 8
    """Uncoordinated loads that may run at the same time, per host."""
    penetration_protect: bool = True
    """One load per missed key and host, however many workers ask for it."""
    background: Any = None
    """Context manager factory around background loads."""
    key_converter: Any = None
    """
    Makes a key of what callers of this area give for one, which then may be anything hashable.  It
    must answer the same for equal arguments in every process.
    """

    warmup_enabled: bool = False
    warmup_batch_size: int = 256
    refresh_ahead: bool = False
    refresh_ahead_window: float = 3.0

    broadcast_invalidation: bool | None = None
    """None: on wherever there is Redis."""
    broadcast_sets: bool | None = None
    """None: as *broadcast_invalidation*."""

    compress_over: int | None = None
    """Encoded values of more bytes than this are compressed in Redis; None: none are."""
    quota: int | None = None
    tags: tuple[str, ...] = ()
    """What every value of the area carries, beside the tags of its own."""

    def __post_init__(self) -> None:
        area = text_or_none(self.area)
        for name, check in _AREA_CHECKS.items():
            value = checked(name, check, getattr(self, name), area=area)
            object.__setattr__(self, name, value)
        for rule in _USELESS:
            if rule.applies(self):
                raise ConfigError(rule.message, setting=rule.setting, area=self.area)

    @classmethod
    def build(cls, **options: Any) -> AreaConfig:
        """Make one of options whose names are not known to be right, or whose types vary."""
        area = text_or_none(options.get("area", "default"))
        refuse_unknown(options, _AREA_CHECKS, area=area)
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
        """
        Longest wait for another worker's load; never endless.

        By default as long as a load may take, be it of one key or of a batch.
        """
        if self.wait_timeout is not None:
            return self.wait_timeout
        if self.loader_timeout is None or self.batch_limit is None:
            return self.lease
        return max(self.loader_timeout, self.batch_limit)

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
        redis = settings.has_remote and settings.remote_problem is None
        mode = self.mode if settings.mode is None else settings.mode
        if mode is None:
            return CacheMode.BOTH if redis else CacheMode.LOCAL
        if mode.uses_remote and not redis:
            reason = settings.remote_problem or "the setting redis is not given"
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


def _is_sync(loader: Any) -> bool:
    return loader is not None and not Source(loader).load.is_async


def _has_no_batches(loader: Any) -> bool:
    return loader is not None and Source(loader).mload is None


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
        "local",
        lambda it: it.local is not None and it.mode in {CacheMode.REMOTE, CacheMode.OFF},
        "local has no effect with mode='remote' or 'off', which keep nothing on this host: leave "
        "one of them out",
    ),
    _Rule(
        "objects",
        lambda it: it.objects == "shared" and it.local is not None,
        "objects='shared' has no effect with local=, which keeps bytes: leave one of them out",
    ),
    _Rule(
        "verify",
        lambda it: it.verify == "full" and it.local is not None,
        "verify='full' has no effect with local=, which keeps nothing in the segment: leave one "
        "of them out",
    ),
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
        "compress_over",
        lambda it: it.compress_over is not None and it.mode is CacheMode.LOCAL,
        "compress_over has no effect with mode='local', as values are compressed in Redis only: "
        "leave one of them out",
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
        "soft_timeout",
        lambda it: it.soft_timeout is not None and it.stale_life == 0,
        "soft_timeout answers with a stale value, and none is kept: allow it with stale_on_error "
        "or allow_stale, or give a stale_ttl",
    ),
    _Rule(
        "soft_timeout",
        lambda it: it.soft_timeout is not None and it.background is None and _is_sync(it.loader),
        "soft_timeout lets a load go on in another thread, and a loader that is no async function "
        "needs a context manager around it there: give a background=, such as "
        "contextlib.nullcontext",
    ),
    _Rule(
        "soft_timeout",
        lambda it: (
            it.soft_timeout is not None
            and it.loader_timeout is not None
            and it.soft_timeout >= it.loader_timeout
        ),
        "soft_timeout must be shorter than loader_timeout, after which a stale value is the answer "
        "anyway: make it shorter",
    ),
    _Rule(
        "wait_timeout",
        lambda it: it.wait_timeout is not None and not it.penetration_protect,
        "wait_timeout has no effect with penetration_protect=False, with which nobody waits: leave "
        "one of them out",
    ),
    _Rule(
        "batch_timeout",
        lambda it: it.batch_timeout is not None and _has_no_batches(it.loader),
        "batch_timeout has no effect on a loader without mload: leave it out, or add mload",
    ),
    _Rule(
        "lease",
        lambda it: it.batch_timeout is not None and it.lease < it.batch_timeout,
        "lease must be at least batch_timeout, else loads are taken over while they may still run: "
        "make it longer",
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
