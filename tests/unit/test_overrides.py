"""What an operator may set, how it is written, and what it makes of an area's options."""

import itertools
from typing import Any

import pytest

from accelerator import local, overrides
from accelerator.config import STALE_LIFE, AreaConfig
from accelerator.entry import CacheMode

INDEX = {name: number for number, name in enumerate(overrides.OPTIONS)}

WRITTEN = [
    ("mode", "local", CacheMode.LOCAL, 0),
    ("mode", "REMOTE", CacheMode.REMOTE, 1),
    ("mode", "both", CacheMode.BOTH, 2),
    ("mode", "off", CacheMode.OFF, 3),
    ("loader_timeout", "5", 5.0, 5000),
    ("loader_timeout", "250ms", 0.25, 250),
    ("ttl", "1h30m", 5400.0, 5_400_000),
    ("max_loads", "1", 1, 1),
    ("max_loads", "65536", 65536, 65536),
    ("allow_stale", "yes", True, 1),
    ("allow_stale", "off", False, 0),
    ("penetration_protect", "no", False, 0),
    ("on_desync", "cap", "cap", 0),
    ("on_desync", "serve", "serve", 2),
    ("breaker", "open", "open", 1),
]


def row(area: str, option: str, value: Any, left: float | None = None) -> overrides.Row:
    """Make what the segment would tell."""
    return area, INDEX[option], overrides.encode(option, value), left


class TestWords:
    def test_names(self) -> None:
        """They are numbered as in the segment."""
        assert local.OVERRIDES == overrides.OPTIONS

    @pytest.mark.parametrize(("option", "text", "value", "number"), WRITTEN)
    def test_written(self, option: str, text: str, value: Any, number: int) -> None:
        """What people type becomes a number, and what it was again."""
        assert value == overrides.parse(option, text)
        assert number == overrides.encode(option, value)
        assert (option, value) == overrides.decode(INDEX[option], number)
        assert value == overrides.parse(option, overrides.written(option, value))

    @pytest.mark.parametrize(
        ("option", "text"),
        [
            ("mode", "none"),
            ("mode", ""),
            ("loader_timeout", "0"),
            ("loader_timeout", "0.1ms"),
            ("loader_timeout", "-1s"),
            ("loader_timeout", "50d"),
            ("ttl", "soon"),
            ("max_loads", "0"),
            ("max_loads", "65537"),
            ("max_loads", "\N{SUPERSCRIPT TWO}"),
            ("max_loads", "9" * 5000),
            ("max_loads", "0" * 8 + "1" + "0" * 8),
            ("allow_stale", "perhaps"),
            ("on_desync", "bybass"),
            ("breaker", "half-open"),
        ],
    )
    def test_refused(self, option: str, text: str) -> None:
        """Anything else is refused, with the name of the option."""
        with pytest.raises(ValueError, match=option):
            overrides.parse(option, text)

    def test_unknown_option(self) -> None:
        """A name that there is not is answered with those that there are."""
        with pytest.raises(ValueError, match="penetration_protect"):
            overrides.parse("tll", "5s")

    @pytest.mark.parametrize(
        ("option", "number"),
        [(8, 0), (-1, 0), (0, 4), (1, 0), (2, 0), (2, 65537), (3, 2**32 - 1), (4, 2), (6, 3)],
    )
    def test_garbage(self, option: int, number: int) -> None:
        """A word that means nothing changes nothing."""
        assert overrides.decode(option, number) is None
        assert overrides.listed([("users", option, number, None)]) == []
        assert overrides.in_force([("users", option, number, None)], "users") == {}


class TestInForce:
    ROWS = (
        row("users", "mode", CacheMode.OFF, 3.0),
        row("", "mode", CacheMode.LOCAL),
        row("", "ttl", 5.0),
        row("orders", "max_loads", 2),
    )

    def test_own_before_host(self) -> None:
        """An area's own counts, option by option, and the host's where it has none."""
        assert {"mode": CacheMode.OFF, "ttl": 5.0} == overrides.in_force(self.ROWS, "users")
        orders = {"mode": CacheMode.LOCAL, "ttl": 5.0, "max_loads": 2}
        assert orders == overrides.in_force(self.ROWS, "orders")
        assert {"mode": CacheMode.LOCAL, "ttl": 5.0} == overrides.in_force(self.ROWS, "other")

    def test_shown(self) -> None:
        """Programs are shown the host's first, and what a person would type."""
        first, *_, last = overrides.shown(self.ROWS)
        assert {"area": "", "option": "mode", "value": "local", "left": None} == first
        assert {"area": "users", "option": "mode", "value": "off", "left": 3.0} == last

    def test_sentence(self) -> None:
        """One line for the log."""
        assert overrides.sentence(self.ROWS, "users") == "mode=off for 3 s ttl=5s"


class TestMode:
    @pytest.mark.parametrize("own", list(CacheMode))
    @pytest.mark.parametrize("wanted", [None, *CacheMode])
    def test_modes(self, own: CacheMode, wanted: CacheMode | None) -> None:
        """Any mode may be left for another, but none begins to use Redis that did not."""
        found = overrides.mode(own, {} if wanted is None else {"mode": wanted})
        allowed = wanted is not None and (own.uses_remote or not wanted.uses_remote)
        assert found is (wanted if allowed else own)


class TestApply:
    def applied(self, config: dict[str, Any], **given: Any) -> AreaConfig:
        """Apply overrides to options."""
        return overrides.apply(AreaConfig(**config), given)

    def test_nothing(self) -> None:
        """Without overrides it is the very same, also with those that concern others."""
        config = AreaConfig()
        assert config is overrides.apply(config, overrides.NONE)
        assert config is overrides.apply(config, {"mode": CacheMode.OFF, "breaker": "open"})

    def test_ttl(self) -> None:
        """Lives are cut and never prolonged; not every read refreshes then."""
        config = {"local_ttl": None, "remote_ttl": 300, "null_ttl": 2}
        found = self.applied(config, ttl=10.0)
        assert (10.0, 10.0, 2.0) == (found.local_ttl, found.remote_ttl, found.null_ttl)
        refreshing = {"loader": str, "refresh_ahead": True, "refresh_ahead_window": 20}
        assert self.applied(refreshing, ttl=10.0).refresh_ahead_window == 5.0
        assert self.applied(refreshing, ttl=30.0).refresh_ahead_window == 20.0

    def test_loader_timeout(self) -> None:
        """The lease is no shorter, so that a load that may still run is not taken over."""
        found = self.applied({"lease": 30}, loader_timeout=45.0)
        assert (45.0, 45.0) == (found.loader_timeout, found.lease)
        assert self.applied({"lease": 30}, loader_timeout=1.0).lease == 30

    def test_allow_stale(self) -> None:
        """Something stale is kept where nothing was; else what the area says of it counts."""
        assert STALE_LIFE == self.applied({}, allow_stale=True).stale_life
        assert STALE_LIFE == self.applied({"stale_ttl": 0}, allow_stale=True).stale_life
        assert self.applied({"stale_ttl": 7}, allow_stale=True).stale_life == 7
        assert self.applied({"allow_stale": True}, allow_stale=False).stale_life == 0

    def test_sound(self) -> None:
        """Whatever is overridden of whatever configuration, the answer is one."""
        configs: list[dict[str, Any]] = [
            {},
            {"stale_ttl": 0},
            {"local_ttl": None, "remote_ttl": None, "null_ttl": None},
            {"loader": str, "refresh_ahead": True, "refresh_ahead_window": 59},
            {"loader": str, "refresh_ahead": True, "mode": "remote", "refresh_ahead_window": 299},
            {"allow_stale": True, "soft_timeout": 2, "loader_timeout": 4, "lease": 4},
            {"stale_ttl": 5, "soft_timeout": 0, "loader_timeout": None},
            {"stale_on_error": True, "soft_timeout": 1, "wait_timeout": 3},
            {"mode": "local", "wait_timeout": 3, "max_loads": 1},
            {"mode": "off"},
            {"mode": "both", "broadcast_invalidation": True, "broadcast_sets": True},
        ]
        values: dict[str, tuple[Any, ...]] = {
            "loader_timeout": (0.001, 1.0, 1e6),
            "max_loads": (1, overrides.MOST_LOADS),
            "ttl": (0.001, 30.0, 1e6),
            "allow_stale": (True, False),
            "penetration_protect": (True, False),
            "on_desync": overrides.ON_DESYNC,
            "mode": tuple(CacheMode),
        }
        choices = [(None, *values[name]) for name in values]
        for config in (AreaConfig(**options) for options in configs):
            for chosen in itertools.product(*choices):
                given = {
                    name: value
                    for name, value in zip(values, chosen, strict=True)
                    if value is not None
                }
                found = overrides.apply(config, given)
                for name in given.keys() - {"ttl", "mode"}:
                    assert given[name] == getattr(found, name)
