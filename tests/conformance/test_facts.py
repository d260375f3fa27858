"""How areas are configured, told by the memory itself."""

from typing import Any

import pytest

from accelerator.config import AreaConfig
from accelerator.entry import CacheMode
from accelerator.observability import facts


def shown(memory: Any, area: str = "area") -> dict[str, Any]:
    return facts.decode(memory.segment.area_facts()[area])


class TestNumbers:
    def test_written(self, memory: Any, make: Any) -> None:
        """What was written is read, filled up with zeros, and how often it was changed."""
        make().get(1)
        memory.segment.area_facts_write("area", [1, 2, (1 << 32) - 1])
        numbers = memory.segment.area_facts()["area"]
        assert 31 == len(numbers)
        assert (1, 2, (1 << 32) - 1, 0) == numbers[:4]
        assert 1 == numbers[-1]
        memory.segment.area_facts_write("area", (1, 2, (1 << 32) - 1))
        assert numbers == memory.segment.area_facts()["area"]

    def test_wrong(self, memory: Any, make: Any) -> None:
        """An area that there is not; too many numbers, or too large ones."""
        make().get(1)
        before = memory.segment.area_facts()
        with pytest.raises(KeyError):
            memory.segment.area_facts_write("nobody", [1])
        with pytest.raises(ValueError, match="at most 30"):
            memory.segment.area_facts_write("area", [0] * 31)
        for wrong in (1 << 32, -1):
            with pytest.raises(OverflowError):
                memory.segment.area_facts_write("area", [wrong])
        assert before == memory.segment.area_facts()


class TestBinding:
    def test_bound(self, memory: Any, make: Any) -> None:
        """An area that is in use has its options there, under its own name."""
        make("users", local_ttl=90, loader=lambda key: key, max_loads=3).get(1)
        make("prices", version="2", stale_on_error=True, null_ttl=None).get(1)
        assert {"users", "prices"} == set(memory.segment.area_facts())
        users, prices = shown(memory, "users"), shown(memory, "prices")
        assert (90.0, True, 3, 0.0) == tuple(
            users[name] for name in ("local_ttl", "loader", "max_loads", "stale_ttl")
        )
        assert (True, True, 3600.0, None) == tuple(
            prices[name] for name in ("version", "stale_on_error", "stale_ttl", "null_ttl")
        )
        assert (CacheMode.LOCAL, False) == (users["mode"], users["redis"])

    def test_changed(self, memory: Any, make: Any) -> None:
        """Binding it alike changes nothing; binding it otherwise is counted."""
        make(local_ttl=10).get(1)
        make(local_ttl=10).get(1)
        assert 0 == shown(memory)["changed"]
        make(local_ttl=20).get(1)
        assert (20.0, 1) == (shown(memory)["local_ttl"], shown(memory)["changed"])

    def test_views(self, memory: Any, make: Any) -> None:
        """A part of the area, or a decorator with another life, is no other configuration."""
        cache = make(local_ttl=10)
        cache.get(1)
        cache.namespace("tenant").get(1)

        @cache.cacheable(ttl=5)
        def answer(number: int) -> int:
            return number

        answer(1)
        assert (10.0, 0) == (shown(memory)["local_ttl"], shown(memory)["changed"])

    def test_view_alone(self, memory: Any, make: Any) -> None:
        """Where only parts are in use, what is shown is the area's own configuration."""
        make(local_ttl=10).namespace("tenant").get(1)
        assert 10.0 == shown(memory)["local_ttl"]


class TestCode:
    def test_all(self) -> None:
        """There is room for all of them."""
        numbers = facts.encode(AreaConfig(), CacheMode.BOTH)
        assert 30 == len(numbers)
        assert all(0 <= number < 1 << 32 for number in numbers)

    @pytest.mark.parametrize("mode", list(CacheMode))
    def test_defaults(self, mode: CacheMode) -> None:
        """What is decoded is what is in force."""
        config = AreaConfig()
        found = facts.decode(facts.encode(config, mode))
        followed = {
            "mode": mode,
            "stale_ttl": config.stale_life,
            "batch_timeout": config.batch_limit,
            "wait_timeout": config.wait_limit,
            "loader": False,
            "broadcast_invalidation": mode.uses_remote,
            "broadcast_sets": mode.uses_remote,
            "redis": mode.uses_remote,
            "version": False,
            "changed": 0,
        }
        for name, value in found.items():
            expected = followed[name] if name in followed else getattr(config, name)
            assert (name, expected) == (name, value)

    @pytest.mark.parametrize(
        ("given", "told"),
        [
            (None, None),
            (0.0001, 0.001),
            (0.25, 0.25),
            (86400, 86400),
            (40 * 86400.0, 40 * 86400.0),
            (3.2e9, (1 << 31) - 2),
        ],
    )
    def test_durations(self, given: float | None, told: float | None) -> None:
        """To the millisecond; past 24 days to the second."""
        found = facts.decode(facts.encode(AreaConfig(local_ttl=given), CacheMode.LOCAL))
        assert told == found["local_ttl"]

    def test_choices(self) -> None:
        """Words come back as they were."""
        config = AreaConfig(on_desync="serve", objects="copy", ttl_jitter_ratio=None)
        found = facts.decode(facts.encode(config, CacheMode.OFF))
        assert ("serve", "copy", None) == tuple(
            found[name] for name in ("on_desync", "objects", "ttl_jitter_ratio")
        )

    def test_garbage(self) -> None:
        """Numbers that nobody writes are no error."""
        found = facts.decode([(1 << 32) - 1] * 31)
        assert (None, None) == (found["mode"], found["local_ttl"])
        assert {} == {name: each for name, each in facts.decode([]).items() if name != "changed"}
