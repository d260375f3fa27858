"""Decisions about lives."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accelerator.config import AreaConfig
from accelerator.entry import CacheMode
from accelerator.policy import (
    NOWHERE,
    Lives,
    configured_lives,
    given_lives,
    jittered,
    shorter,
)

lives = st.floats(min_value=1e-3, max_value=1e9)
ratios = st.floats(min_value=0, max_value=1)
chances = st.floats(min_value=0, max_value=1, exclude_max=True)
maybe = st.none() | lives
LOCAL, REMOTE, BOTH, OFF = CacheMode


class TestJitter:
    @given(lives, ratios, chances)
    def test_only_shortens(self, life: float, ratio: float, chance: float) -> None:
        """A life gets shorter by at most its ratio, never longer, and never 0."""
        assert 0 < jittered(life, ratio, chance) <= life
        assert life * (1 - ratio) <= jittered(life, ratio, chance) * (1 + 1e-9)

    @given(lives, ratios)
    def test_bounds(self, life: float, ratio: float) -> None:
        """With the least chance nothing goes, with the greatest the whole ratio."""
        assert life == jittered(life, ratio, 0)
        assert pytest.approx(life * (1 - ratio), abs=life * 1e-6) == jittered(life, ratio, 1 - 1e-9)

    @pytest.mark.parametrize("ratio", [None, 0, 0.0])
    def test_none(self, ratio: float | None) -> None:
        """Without a ratio nothing changes, and what does not expire never does."""
        assert 60.0 == jittered(60.0, ratio)
        assert jittered(None, 0.5) is None

    def test_spread(self) -> None:
        """What was written together ends apart."""
        found = {jittered(100.0, 0.1) for _ in range(1000)}
        assert len(found) > 900
        assert 90 < min(found) < 92
        assert 98 < max(found) <= 100


def config(**options: Any) -> AreaConfig:
    return AreaConfig.build(**{"ttl_jitter_ratio": None, **options})


class TestConfigured:
    @pytest.mark.parametrize(
        ("expected", "mode", "options"),
        [
            (Lives(60.0, 0.0), LOCAL, {}),
            (Lives(0.0, 300.0), REMOTE, {}),
            (Lives(60.0, 300.0), BOTH, {}),
            (NOWHERE, OFF, {}),
            (Lives(20.0, 20.0), BOTH, {"remote_ttl": 20}),
            (Lives(20.0, 20.0), BOTH, {"local_ttl": None, "remote_ttl": 20}),
            (Lives(60.0, None), BOTH, {"remote_ttl": None}),
            (Lives(None, 0.0), LOCAL, {"local_ttl": None}),
        ],
    )
    def test_value(self, expected: Lives, mode: CacheMode, options: dict[str, Any]) -> None:
        """Each tier has its own life, and the segment's ends no later than that in Redis."""
        assert expected == configured_lives(config(**options), mode, is_null=False)

    @pytest.mark.parametrize(
        ("expected", "mode", "options"),
        [
            (Lives(30.0, 0.0), LOCAL, {}),
            (Lives(30.0, 30.0), BOTH, {}),
            (Lives(0.0, 5.0), REMOTE, {"null_ttl": 5}),
            (NOWHERE, BOTH, {"cache_null_value": False}),
        ],
    )
    def test_null(self, expected: Lives, mode: CacheMode, options: dict[str, Any]) -> None:
        """A cached None has a life of its own, if it is stored at all."""
        assert expected == configured_lives(config(**options), mode, is_null=True)

    @given(maybe, maybe, ratios, chances)
    def test_never_longer(
        self, local: float | None, remote: float | None, ratio: float, chance: float
    ) -> None:
        """With any jitter, no life is longer than configured, nor L1 longer than L2."""
        options = config(local_ttl=local, remote_ttl=remote, ttl_jitter_ratio=ratio)
        found = configured_lives(options, BOTH, is_null=False, chance=chance)
        assert found.local == shorter(found.local, local) == shorter(found.local, found.remote)
        assert found.remote == shorter(found.remote, remote)


class TestGiven:
    @pytest.mark.parametrize(
        ("expected", "mode", "ttl"),
        [
            (Lives(90.0, 0.0), LOCAL, 90.0),
            (Lives(0.0, 90.0), REMOTE, 90.0),
            (Lives(60.0, 90.0), BOTH, 90.0),
            (Lives(5.0, 5.0), BOTH, 5.0),
            (Lives(None, 0.0), LOCAL, None),
            (Lives(60.0, None), BOTH, None),
            (NOWHERE, LOCAL, 0.0),
            (NOWHERE, BOTH, 0.0),
            (NOWHERE, OFF, 90.0),
        ],
    )
    def test_exact(self, expected: Lives, mode: CacheMode, ttl: float | None) -> None:
        """It is the life of the value, never jittered; with two tiers L1 also ends by local_ttl."""
        for jitter in (None, 1.0):
            options = config(ttl_jitter_ratio=jitter)
            assert expected == given_lives(options, mode, ttl, is_null=False)

    def test_null(self) -> None:
        """It holds for None as well, unless None is not stored."""
        assert Lives(90.0, 0.0) == given_lives(config(), LOCAL, 90.0, is_null=True)
        refusing = config(cache_null_value=False)
        assert NOWHERE == given_lives(refusing, LOCAL, 90.0, is_null=True)


class TestEnds:
    @pytest.mark.parametrize(
        ("expected", "one", "other"),
        [(1.0, 1.0, 2.0), (1.0, 1.0, None), (1.0, None, 1.0), (None, None, None), (0.0, 0.0, None)],
    )
    def test_shorter(self, expected: Any, one: Any, other: Any) -> None:
        """None is endless."""
        assert expected == shorter(one, other)
