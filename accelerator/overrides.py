"""
Overrides: what an operator has set on this host for now, in place of the application's options.

Pure: how they are written by people, as a number in the segment (a word holds 32 bits), and what
they make of an area's options.  An area's own row counts before the host's, option by option.

An override can come and go in the middle of anything, so none may ever make an area fail: what a
configuration cannot follow changes nothing, and options that go together are moved along with the
one that is overridden (a lease with the time limit of its loader, say).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from accelerator import policy
from accelerator.durations import seconds
from accelerator.entry import CacheMode

if TYPE_CHECKING:
    from collections.abc import Callable

    from accelerator.config import AreaConfig

OPTIONS: Final = (
    "mode",
    "loader_timeout",
    "max_loads",
    "ttl",
    "allow_stale",
    "penetration_protect",
    "on_desync",
    "breaker",
)
"""Names; an option's number in the segment is its place in here."""
HOST: Final = ""
"""Area of what is set for all areas of the host."""
HOST_ONLY: Final = frozenset({"breaker"})
MODES: Final = (CacheMode.LOCAL, CacheMode.REMOTE, CacheMode.BOTH, CacheMode.OFF)
ON_DESYNC: Final = ("cap", "bypass", "serve")
BREAKER: Final = ("closed", "open")
MOST_LOADS: Final = 1 << 16
MOST_MS: Final = (1 << 32) - 2
LONGEST_LIMIT: Final = float((1 << 32) - 1)
"""Seconds that a time limit could be told in; so long a clock must run first."""

Row: TypeAlias = tuple[str, int, int, float | None]
"""As the segment tells it: area, number of the option, number of the value, seconds left."""
InForce: TypeAlias = Mapping[str, Any]
"""Values by name of the option, as they are here."""

NONE: Final[InForce] = MappingProxyType({})


class Override(NamedTuple):
    """One that is in force."""

    area: str
    """HOST: of all areas."""
    option: str
    value: Any
    left: float | None
    """Seconds that it has left; None: until somebody ends it."""


# --- as numbers ---------------------------------------------------------------------------------


def encode(option: str, value: Any) -> int:
    """Give the number that stands for a value, as parse() gives it."""
    return int(_KINDS[option].encode(value))


def decode(option: int, number: int) -> tuple[str, Any] | None:
    """Give the name of an option and a value; None: no such thing, so it changes nothing."""
    if not 0 <= option < len(OPTIONS):
        return None
    name = OPTIONS[option]
    value = _KINDS[name].decode(number)
    return None if value is None else (name, value)


def listed(rows: Iterable[Row]) -> list[Override]:
    """Give what is set, the host's first, then by area."""
    found = []
    for area, option, number, left in rows:
        known = decode(option, number)
        if known is not None:
            found.append(Override(area, *known, left))
    return sorted(found, key=lambda it: (it.area, OPTIONS.index(it.option)))


def shown(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """Give the same for programs: area ("" is the host), option, value, seconds left."""
    return [
        {**each._asdict(), "value": str(each.value) if each.option == "mode" else each.value}
        for each in listed(rows)
    ]


def in_force(rows: Iterable[Row], area: str) -> InForce:
    """Give what is set for an area: its own, and the host's where it has none."""
    host: dict[str, Any] = {}
    own: dict[str, Any] = {}
    for of, option, number, _ in rows:
        known = decode(option, number) if of in {HOST, area} else None
        if known is not None:
            (own if of else host)[known[0]] = known[1]
    return {**host, **own} if host or own else NONE


def sentence(rows: Iterable[Row], area: str) -> str:
    """Write what is set for an area in one line: ``max_loads=2 mode=local for 600 s``."""
    chosen: dict[str, Override] = {}
    for each in listed(rows):  # the host's first, so that the area's own come behind
        if each.area in {HOST, area}:
            chosen[each.option] = each
    return " ".join(
        f"{name}={written(name, each.value)}"
        + ("" if each.left is None else f" for {max(each.left, 0):.0f} s")
        for name, each in sorted(chosen.items())
    )


# --- as people write them -----------------------------------------------------------------------


def parse(option: str, text: str) -> Any:
    """
    Read a value.

    Raises:
        ValueError: There is no such option, or it cannot have this value.
    """
    kind = _KINDS.get(option)
    if kind is None:
        raise ValueError(f"there is no option {option!r}: there are {', '.join(OPTIONS)}")
    return kind.parse(option, text.strip())


def written(option: str, value: Any) -> str:
    """Write a value as parse() reads it."""
    return _KINDS[option].write(value)


class _Kind(NamedTuple):
    """How values of an option are read, written and stored."""

    parse: Callable[[str, str], Any]
    write: Callable[[Any], str]
    encode: Callable[[Any], int]
    decode: Callable[[int], Any]
    """None: the number stands for nothing."""


def _one_of(values: tuple[Any, ...]) -> _Kind:
    names = tuple(map(str, values))

    def read(option: str, text: str) -> Any:
        if text.lower() not in names:
            raise ValueError(f"{option} must be one of {', '.join(names)}")
        return values[names.index(text.lower())]

    return _Kind(
        read, str, values.index, lambda number: values[number] if number < len(values) else None
    )


def _duration() -> _Kind:
    def read(option: str, text: str) -> float:
        found = seconds(text, name=option)
        if not 1 <= round(found * 1000) <= MOST_MS:
            raise ValueError(f"{option} must be 1 ms to {MOST_MS // 86_400_000} days")
        return round(found * 1000) / 1000

    def decode_ms(number: int) -> float | None:
        return number / 1000 if 1 <= number <= MOST_MS else None

    return _Kind(read, _seconds, lambda value: round(value * 1000), decode_ms)


def _seconds(value: float) -> str:
    ms = round(value * 1000)
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)):
        if ms % size == 0:
            return f"{ms // size}{unit}"
    return f"{ms}ms"


def _count(most: int) -> _Kind:
    def read(option: str, text: str) -> int:
        digits = text.lstrip("0") if text.isascii() and text.isdigit() else ""
        if not 1 <= len(digits) <= len(str(most)) or int(digits) > most:
            raise ValueError(f"{option} must be a whole number from 1 to {most}")
        return int(digits)

    return _Kind(read, str, int, lambda number: number if 1 <= number <= most else None)


_YES: Final = frozenset({"yes", "on", "true", "1"})
_NO: Final = frozenset({"no", "off", "false", "0"})


def _flag() -> _Kind:
    def read(option: str, text: str) -> bool:
        if text.lower() not in _YES | _NO:
            raise ValueError(f"{option} must be yes or no")
        return text.lower() in _YES

    def decode_flag(number: int) -> bool | None:
        return bool(number) if number in {0, 1} else None

    return _Kind(read, lambda value: "yes" if value else "no", int, decode_flag)


_KINDS: Final[Mapping[str, _Kind]] = {
    "mode": _one_of(MODES),
    "loader_timeout": _duration(),
    "max_loads": _count(MOST_LOADS),
    "ttl": _duration(),
    "allow_stale": _flag(),
    "penetration_protect": _flag(),
    "on_desync": _one_of(ON_DESYNC),
    "breaker": _one_of(BREAKER),
}


# --- what they make of an area ------------------------------------------------------------------


def mode(own: CacheMode, overrides: InForce) -> CacheMode:
    """
    Tell which tiers an area uses.

    An area that does not use Redis of its own accord does not begin to: it may have none, and
    nobody listens for it.
    """
    wanted: CacheMode = overrides.get("mode", own)
    return own if wanted.uses_remote and not own.uses_remote else wanted


def longest(overrides: InForce) -> float | None:
    """Give the longest life of whatever is stored, in seconds; None: as the application says."""
    found: float | None = overrides.get("ttl")
    return found


def apply(config: AreaConfig, overrides: InForce) -> AreaConfig:
    """
    Give the options of an area as they are to be followed, the mode apart.

    Whatever overrides there are, the answer is a sound configuration.
    """
    changes: dict[str, Any] = {
        name: overrides[name]
        for name in ("max_loads", "penetration_protect", "on_desync", "allow_stale")
        if name in overrides
    }
    if "ttl" in overrides:
        changes.update(_clamped(config, overrides["ttl"]))
    if "loader_timeout" in overrides:
        limit = overrides["loader_timeout"]
        # Else loads would be taken over while they may still run.
        changes.update(loader_timeout=limit, lease=max(config.lease, limit))
    if not changes.get("penetration_protect", True):
        changes["wait_timeout"] = None  # nobody waits
    if changes.get("allow_stale") and config.stale_life == 0:
        changes["stale_ttl"] = None  # what is kept for it by default
    changes.update(_without_soft_timeout(config, changes))
    return replace(config, **changes) if changes else config


def _clamped(config: AreaConfig, life: float) -> dict[str, Any]:
    changes: dict[str, Any] = {
        name: policy.shorter(getattr(config, name), life)
        for name in ("local_ttl", "remote_ttl", "null_ttl")
    }
    if config.refresh_ahead_window >= life:
        changes["refresh_ahead_window"] = life / 2  # not every read is to refresh
    return changes


def _without_soft_timeout(config: AreaConfig, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Take the soft timeout away where nothing stale is kept, or the hard one comes first."""
    soft = config.soft_timeout
    limit = changes.get("loader_timeout")
    allows_stale = changes.get("allow_stale", config.allow_stale) or config.stale_on_error
    keeps_stale = allows_stale or bool(config.stale_ttl)
    is_late = soft is not None and limit is not None and soft >= limit
    return {} if soft is None or (keeps_stale and not is_late) else {"soft_timeout": None}
