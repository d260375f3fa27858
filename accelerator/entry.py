"""What a read is asked, and what it answers: MISS, Entry, ReadOptions, CacheMode."""

from __future__ import annotations

import enum
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, TypedDict, final

from accelerator.durations import seconds

if TYPE_CHECKING:
    from collections.abc import Mapping

    # What type checkers know by themselves, and Python from 3.13 on: a LevelCache without types in
    # brackets is one of anything, and none that a type has to be given for.
    from typing_extensions import TypeVar

    from accelerator.durations import Duration

    K = TypeVar("K", default=Any)
    V = TypeVar("V", default=Any)
    V_co = TypeVar("V_co", covariant=True, default=Any)
else:
    from typing import TypeVar

    K = TypeVar("K")
    V = TypeVar("V")
    V_co = TypeVar("V_co", covariant=True)


@final
class MissType:
    """Type of MISS."""

    __slots__ = ()

    def __new__(cls) -> MissType:
        """Give the one there is."""
        return _miss

    def __bool__(self) -> Literal[False]:
        return False

    def __repr__(self) -> str:
        return "MISS"

    def __reduce__(self) -> str:
        return "MISS"  # the name under which pickle and copy find the one that there is


@final
class UnsetType:
    """Type of UNSET."""

    __slots__ = ()

    def __new__(cls) -> UnsetType:
        """Give the one there is."""
        return _unset

    def __repr__(self) -> str:
        return "UNSET"

    def __reduce__(self) -> str:
        return "UNSET"


_miss: Final[MissType] = object.__new__(MissType)
_unset: Final[UnsetType] = object.__new__(UnsetType)

MISS: Final[MissType] = _miss
"""Default to pass to ``get`` where a cached ``None`` must be told from "not known"; it is falsy."""
UNSET: Final[UnsetType] = _unset
"""Default of ``ttl`` where there is no native part: the life that the area's configuration says."""


class CacheMode(enum.StrEnum):
    """
    Which tiers an area uses: LOCAL, REMOTE, BOTH or OFF; its text will do in each place.

    LOCAL is the segment of this host only, REMOTE is Redis only, BOTH the segment in front of
    Redis.  OFF: nothing is cached, every read loads, every write is dropped.
    """

    LOCAL = "local"
    """The segment of this host only."""
    REMOTE = "remote"
    """Redis only."""
    BOTH = "both"
    """The segment in front of Redis."""
    OFF = "off"
    """Nothing is cached: every read loads, every write is dropped."""

    @classmethod
    def _missing_(cls, value: object) -> CacheMode | None:
        """Accept any letter case, because the value may come from the environment."""
        if isinstance(value, str):
            return next((mode for mode in cls if mode.value == value.strip().lower()), None)
        return None

    @property
    def uses_local(self) -> bool:
        """Whether values lie in the segment."""
        return self in {CacheMode.LOCAL, CacheMode.BOTH}

    @property
    def uses_remote(self) -> bool:
        """Whether values lie in Redis."""
        return self in {CacheMode.REMOTE, CacheMode.BOTH}


@dataclass(frozen=True, slots=True)
class Entry(Generic[V_co]):
    """
    A value and what is known about it, from LevelCache.get_entry(); times are in seconds.

    Args:
        value: The value; None: known to be absent.
        tier: Where it was found: "local", "remote", or "loader".
        age: Seconds since its load or write.
        ttl: Seconds until it is no longer fresh, 0 if it is stale; None: it does not expire.
        stale: Whether it is past its life, and still usable where staleness is allowed.
        version: Changes with each write of the key.
    """

    value: V_co
    tier: str
    age: float
    ttl: float | None
    stale: bool
    version: int

    @property
    def is_null(self) -> bool:
        """Whether the key is known to be absent (a cached ``None``)."""
        return self.value is None


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """
    What a single read allows; also what its keywords of the same names say.

    Args:
        allow_stale: A value past its life will do if there is no fresh one.
        disable_load: Stop before the loader.
        max_staleness: Nothing that may be further behind the source of truth than this will do
            (seconds, or another duration; None: what the area says).

    Raises:
        TypeError, ValueError: One of these is wrong.
    """

    allow_stale: bool = False
    disable_load: bool = False
    max_staleness: float | None = None

    if TYPE_CHECKING:  # a limit is kept in seconds, and may be given in each form of Duration

        def __init__(
            self,
            allow_stale: bool = ...,
            disable_load: bool = ...,
            max_staleness: Duration | None = ...,
        ) -> None: ...

    def __post_init__(self) -> None:
        for name in ("allow_stale", "disable_load"):
            if not isinstance(getattr(self, name), bool):
                kind = type(getattr(self, name)).__name__
                raise TypeError(f"{name} must be True or False, not {kind}")
        limit = seconds(self.max_staleness, name="max_staleness", allow_none=True, allow_zero=True)
        object.__setattr__(self, "max_staleness", limit)

    @classmethod
    def of(cls, options: ReadOptions | None, keywords: Mapping[str, Any]) -> ReadOptions:
        """
        Join what a call gave as ``options=`` and as keywords; a keyword counts more.

        Raises:
            TypeError: An unknown keyword, or a wrong type.
            ValueError: A negative or NaN max_staleness.
        """
        if options is not None and not isinstance(options, ReadOptions):
            raise TypeError(f"options must be ReadOptions or None, not {type(options).__name__}")
        if not keywords:
            return options if options is not None else _DEFAULT
        known = {field.name for field in fields(cls)}
        for name in keywords:
            if name not in known:
                raise TypeError(f"unknown read option {name!r}: there are {sorted(known)}")
        return replace(options if options is not None else _DEFAULT, **keywords)


class ReadOptionValues(TypedDict, total=False):
    """The same as keywords of a read; ReadOptions tells what each does."""

    allow_stale: bool
    disable_load: bool
    max_staleness: Duration | None


_DEFAULT: Final = ReadOptions()
