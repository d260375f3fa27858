"""Areas by themselves, without a LevelCache."""

from typing import Any

from accelerator import local


def bound_area(memory: Any, name: str, bound: float | None) -> Any:
    """An area with an item in it; with a *bound* it has Redis behind it."""
    area: Any = local.AreaBase()
    area._bind(
        memory,
        name,
        ttl=None,
        null_ttl=None,
        stale_ttl=0.0,
        jitter=0.0,
        max_value_size=1 << 10,
        object_cache_bytes=0,
        flags=local.PLAIN_SET,
        bound=bound,
    )
    area.set("key", 1)
    return area
