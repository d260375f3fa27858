"""
How an area is configured, as numbers that are kept in the segment for those who look at it.

What is kept is what is in force: where a tier, or a time limit, follows from other options, that
which follows.  A duration has milliseconds, or seconds where those do not fit; what is shorter than
a millisecond is shown as one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from accelerator.entry import CacheMode

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from accelerator.config import AreaConfig

    Encode = Callable[[Any], int]
    Decode = Callable[[int], Any]

_NONE: Final = (1 << 32) - 1
_IN_SECONDS: Final = 1 << 31
_MOST: Final = _IN_SECONDS - 2
_RATIO: Final = 1_000_000


def _encode_duration(seconds: float | None) -> int:
    if seconds is None:
        return _NONE
    ms = round(seconds * 1000)
    if ms <= _MOST:
        return ms if ms or not seconds else 1
    return _IN_SECONDS | min(round(seconds), _MOST)


def _decode_duration(number: int) -> float | None:
    if number == _NONE:
        return None
    if number & _IN_SECONDS:
        return float(number & ~_IN_SECONDS)
    return number / 1000


def _encode_ratio(ratio: float | None) -> int:
    return _NONE if ratio is None else round(ratio * _RATIO)


def _decode_ratio(number: int) -> float | None:
    return None if number == _NONE else number / _RATIO


def _encode_size(size: int | None) -> int:
    return _NONE if size is None else min(size, _NONE - 1)


def _decode_size(number: int) -> int | None:
    return None if number == _NONE else number


def _choice(*names: str) -> tuple[Encode, Decode]:
    def decode(number: int) -> str | None:
        return names[number] if number < len(names) else None

    return names.index, decode


_DURATION: Final = (_encode_duration, _decode_duration)
_SIZE: Final = (_encode_size, _decode_size)
_FLAG: Final = (int, bool)

_FIELDS: Final[dict[str, tuple[Encode, Decode]]] = {
    "mode": _choice(*CacheMode),
    "local_ttl": _DURATION,
    "remote_ttl": _DURATION,
    "null_ttl": _DURATION,
    "ttl_jitter_ratio": (_encode_ratio, _decode_ratio),
    "cache_null_value": _FLAG,
    "stale_ttl": _DURATION,
    "stale_on_error": _FLAG,
    "allow_stale": _FLAG,
    "error_ttl": _DURATION,
    "max_staleness": _DURATION,
    "on_desync": _choice("cap", "bypass", "serve"),
    "max_value_size": _SIZE,
    "objects": _choice("auto", "shared", "copy"),
    "loader": _FLAG,
    "loader_timeout": _DURATION,
    "batch_timeout": _DURATION,
    "wait_timeout": _DURATION,
    "soft_timeout": _DURATION,
    "lease": _DURATION,
    "max_loads": _SIZE,
    "penetration_protect": _FLAG,
    "refresh_ahead": _FLAG,
    "refresh_ahead_window": _DURATION,
    "warmup_enabled": _FLAG,
    "broadcast_invalidation": _FLAG,
    "broadcast_sets": _FLAG,
    "compress_over": _SIZE,
    "redis": _FLAG,
    "version": _FLAG,
}
"""In the order of the numbers."""


def encode(config: AreaConfig, mode: CacheMode) -> list[int]:
    """
    Give the numbers to be kept.

    Args:
        config: Of the area, with what operators have set for now.
        mode: The tiers that it uses.
    """
    redis = mode.uses_remote
    told = redis if config.broadcast_invalidation is None else config.broadcast_invalidation
    followed = {
        "mode": mode,
        "stale_ttl": config.stale_life,
        "batch_timeout": config.batch_limit,
        "wait_timeout": config.wait_limit,
        "loader": config.loader is not None,
        "broadcast_invalidation": told,
        "broadcast_sets": told if config.broadcast_sets is None else config.broadcast_sets,
        "redis": redis,
        "version": config.version is not None,
    }
    found = []
    for name, (number_of, _) in _FIELDS.items():
        value = followed[name] if name in followed else getattr(config, name)
        found.append(number_of(value))
    return found


def decode(numbers: Sequence[int]) -> dict[str, Any]:
    """
    Give them their names: those of AreaConfig, and *redis* and *changed*.

    *loader* and *version* tell whether there is one.  *changed* is how often an area was bound with
    other options than it was before: by a deploy, an override, or because workers differ.
    """
    pairs = zip(_FIELDS.items(), numbers, strict=False)
    found = {name: value_of(number) for (name, (_, value_of)), number in pairs}
    return {**found, "changed": numbers[len(_FIELDS)] if len(numbers) > len(_FIELDS) else 0}
