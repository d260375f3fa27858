"""Pure decisions about lives: how long a value lives in which tier, and how long as stale."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, NamedTuple, overload

if TYPE_CHECKING:
    from accelerator.config import AreaConfig
    from accelerator.entry import CacheMode
    from accelerator.memory import Reading


class Lives(NamedTuple):
    """Seconds that a value lives in each tier.  None: no expiry; 0: it is not stored there."""

    local: float | None
    remote: float | None


NOWHERE = Lives(0.0, 0.0)


@overload
def jittered(life: float, ratio: float | None, chance: float | None = ...) -> float: ...
@overload
def jittered(
    life: float | None, ratio: float | None, chance: float | None = ...
) -> float | None: ...
def jittered(life: float | None, ratio: float | None, chance: float | None = None) -> float | None:
    """
    Shorten a configured life by a random part, so that what was written together ends apart.

    Args:
        life: Seconds; None (no expiry) stays None.
        ratio: The largest part that may go, 0 to 1; None for no jitter.
        chance: 0 (nothing goes) to just below 1 (the largest part does); None: at random.

    Returns:
        Seconds, more than 0 and at most *life*: jitter never prolongs.
    """
    if life is None or not ratio:
        return life
    if chance is None:
        chance = random.random()  # noqa: S311  not a secret
    return life * (1.0 - ratio * chance)


def configured_lives(
    config: AreaConfig, mode: CacheMode, *, is_null: bool, chance: float | None = None
) -> Lives:
    """Give the lives of a write that says nothing about its life."""
    if is_null and not config.cache_null_value:
        return NOWHERE
    remote = jittered(
        config.null_ttl if is_null else config.remote_ttl, config.ttl_jitter_ratio, chance
    )
    local = jittered(
        config.null_ttl if is_null else config.local_ttl, config.ttl_jitter_ratio, chance
    )
    return _in_tiers(mode, local, remote)


def given_lives(config: AreaConfig, mode: CacheMode, ttl: float | None, *, is_null: bool) -> Lives:
    """
    Give the lives of a write with an explicit *ttl*, which is never jittered.

    It is the life of the value: in the only tier there is exactly that; with two, that of the copy
    in Redis, while the one in the segment also ends by ``local_ttl``.
    """
    if is_null and not config.cache_null_value:
        return NOWHERE
    if mode.uses_local and mode.uses_remote:
        return _in_tiers(mode, shorter(ttl, config.local_ttl), ttl)
    return _in_tiers(mode, ttl, ttl)


def _in_tiers(mode: CacheMode, local: float | None, remote: float | None) -> Lives:
    if mode.uses_local and mode.uses_remote:
        # A copy in the segment must not outlive what it is a copy of.
        return Lives(shorter(local, remote), remote)
    return Lives(local if mode.uses_local else 0.0, remote if mode.uses_remote else 0.0)


def shorter(one: float | None, other: float | None) -> float | None:
    """Give the shorter of two lives, of which None is endless."""
    if one is None or other is None:
        return other if one is None else one
    return min(one, other)


def behind(reading: Reading) -> float:
    """
    Tell by how many seconds a value that was read may be behind the source of truth.

    Past its life by so much; or within it, and not to be believed since it was loaded.
    """
    _, _, age, ttl, _, _ = reading
    return age if ttl is None or ttl > 0 else -ttl
