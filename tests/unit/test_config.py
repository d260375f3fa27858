"""Options of an area and settings of the process."""

import dataclasses
import os
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accelerator.backend import REMOTE_METHODS
from accelerator.config import (
    MAX_VALUE_SIZE,
    AreaConfig,
    Settings,
    derived_name,
    redacted_url,
)
from accelerator.config import area as area_module
from accelerator.entry import CacheMode
from accelerator.errors import ConfigError
from accelerator.loader import FnLoader

NAN = float("nan")
INF = float("inf")


def load(key: Any) -> Any:
    return key


async def aload(key: Any) -> Any:
    return key


def refused(setting: str, **options: Any) -> str:
    """Make sure that these options of an area are refused because of *setting*; the message."""
    with pytest.raises(ConfigError) as caught:
        AreaConfig.build(**options)
    assert setting == caught.value.setting
    return str(caught.value)


class TestAreaDefaults:
    def test_contract(self) -> None:
        """The defaults are those that the documentation promises."""
        assert {
            "area": "default",
            "mode": None,
            "local_ttl": 60.0,
            "remote_ttl": 300.0,
            "null_ttl": 30.0,
            "ttl_jitter_ratio": 0.1,
            "cache_null_value": True,
            "stale_ttl": None,
            "stale_on_error": False,
            "allow_stale": False,
            "error_ttl": 1.0,
            "max_staleness": None,
            "on_desync": "cap",
            "max_value_size": 1 << 20,
            "objects": "auto",
            "codec": "msgpack",
            "local": None,
            "verify": "sample",
            "version": None,
            "loader": None,
            "loader_timeout": 5.0,
            "batch_timeout": None,
            "wait_timeout": None,
            "soft_timeout": None,
            "lease": 30.0,
            "max_loads": 8,
            "penetration_protect": True,
            "background": None,
            "key_converter": None,
            "warmup_enabled": False,
            "warmup_batch_size": 256,
            "refresh_ahead": False,
            "refresh_ahead_window": 3.0,
            "broadcast_invalidation": None,
            "broadcast_sets": None,
            "compress_over": None,
            "quota": None,
            "tags": (),
        } == dataclasses.asdict(AreaConfig())

    def test_frozen(self) -> None:
        """A configuration in force does not change."""
        with pytest.raises(dataclasses.FrozenInstanceError):
            AreaConfig().local_ttl = 5  # type: ignore[misc]

    def test_replace(self) -> None:
        """A changed copy is checked as well, and keeps the rest."""
        config = AreaConfig.build(area="users", local_ttl="5m")
        assert ("users", 300.0, 9) == (
            (changed := dataclasses.replace(config, max_loads=9)).area,
            changed.local_ttl,
            changed.max_loads,
        )
        with pytest.raises(ConfigError):
            dataclasses.replace(config, max_loads=0)


class TestAreaDurations:
    @pytest.mark.parametrize("value", [300, 300.0, "5m", timedelta(minutes=5)])
    def test_forms(self, value: Any) -> None:
        """Every form of duration is kept as float seconds."""
        config = AreaConfig.build(local_ttl=value, lease=value)
        assert ("300.0", "300.0") == (repr(config.local_ttl), repr(config.lease))

    @pytest.mark.parametrize("name", ["local_ttl", "remote_ttl", "null_ttl", "loader_timeout"])
    def test_endless(self, name: str) -> None:
        """None is no expiry, and no time limit."""
        assert getattr(AreaConfig.build(**{name: None}), name) is None

    @pytest.mark.parametrize("name", ["lease", "error_ttl", "refresh_ahead_window"])
    def test_not_endless(self, name: str) -> None:
        """Where an end is needed, None is refused."""
        refused(name, **{name: None})

    @pytest.mark.parametrize(
        "name",
        [
            "local_ttl",
            "remote_ttl",
            "null_ttl",
            "loader_timeout",
            "batch_timeout",
            "wait_timeout",
            "lease",
            "refresh_ahead_window",
            "max_staleness",
        ],
    )
    @pytest.mark.parametrize("value", [0, -1, NAN, INF, True, "0s", "soon", b"5s", [5]])
    def test_wrong(self, name: str, value: Any) -> None:
        """0, negative, NaN, infinite, bool and other text or types name the option."""
        assert name in refused(name, **{name: value})

    @pytest.mark.parametrize("name", ["stale_ttl", "error_ttl"])
    def test_zero(self, name: str) -> None:
        """Where 0 means "not at all", it is allowed."""
        assert 0.0 == getattr(AreaConfig.build(**{name: 0}), name)


class TestAreaOptions:
    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("area", ""),
            ("area", "  "),
            ("area", " users"),
            ("area", "users\n"),
            ("area", "us\0ers"),
            ("area", "us\ud800ers"),
            ("area", "u" * 105),
            ("area", "ü" * 53),
            ("area", None),
            ("area", b"users"),
            ("mode", "l1"),
            ("mode", 1),
            ("mode", True),
            ("ttl_jitter_ratio", -0.1),
            ("ttl_jitter_ratio", 1.1),
            ("ttl_jitter_ratio", NAN),
            ("ttl_jitter_ratio", True),
            ("ttl_jitter_ratio", "0.1"),
            ("cache_null_value", 1),
            ("cache_null_value", None),
            ("stale_on_error", "yes"),
            ("penetration_protect", 0),
            ("warmup_enabled", 1),
            ("refresh_ahead", 1),
            ("broadcast_invalidation", 1),
            ("broadcast_sets", "no"),
            ("max_loads", 0),
            ("max_loads", True),
            ("max_loads", 1.0),
            ("warmup_batch_size", 0),
            ("warmup_batch_size", -5),
            ("max_value_size", 0),
            ("max_value_size", True),
            ("max_value_size", 1.5),
            ("max_value_size", MAX_VALUE_SIZE + 1),
            ("max_value_size", "big"),
            ("on_desync", "ignore"),
            ("on_desync", None),
            ("objects", "share"),
            ("verify", True),
            ("codec", "json"),
            ("codec", None),
            ("codec", b"msgpack"),
            ("codec", dict),
            ("codec", object()),
            ("version", 1.5),
            ("version", True),
            ("version", ""),
            ("loader", "load"),
            ("background", 5),
            ("key_converter", "str"),
        ],
    )
    def test_wrong(self, name: str, value: Any) -> None:
        """Wrong types and values are refused, and the message names the option."""
        assert name in refused(name, **{name: value})

    def test_not_built(self) -> None:
        """An option that nothing acts on is refused, instead of ignored."""
        assert "no effect in this version" in refused("quota", quota=5)

    def test_tags(self) -> None:
        """Tags are kept as a tuple, each once, in the order in which they came."""
        assert ("b", "a", "ü") == AreaConfig.build(tags=["b", "a", "ü", "b"]).tags
        assert () == AreaConfig.build(tags=None).tags
        assert 8 == len(AreaConfig.build(tags=map(str, range(8))).tags)

    @pytest.mark.parametrize(
        "wrong",
        [5, "abc", b"abc", [5], [""], ["x" * 256], ["\ud800"], list("abcdefghi")],
        ids=["int", "str", "bytes", "no str", "empty", "long", "surrogate", "nine"],
    )
    def test_wrong_tags(self, wrong: Any) -> None:
        """What cannot be tags of an area is refused, and the message names the option."""
        assert "tag" in refused("tags", tags=wrong)

    def test_compression(self) -> None:
        """With a zstd, values over a size are compressed; a size is text or bytes."""
        assert 4096 == AreaConfig.build(compress_over="4KiB").compress_over

    def test_no_compression(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without a zstd the option is refused, and the message names what to install."""
        monkeypatch.setattr(area_module, "zstd", lambda: None)
        assert "accelerator-cache[zstd]" in refused("compress_over", compress_over=1)
        assert None is AreaConfig.build().compress_over

    def test_compression_of_nothing(self) -> None:
        """In LOCAL mode nothing is ever compressed, so asking for it is a mistake."""
        assert "mode='local'" in refused("compress_over", mode="local", compress_over=1)

    def test_unknown(self) -> None:
        """A name that is misspelt is refused, with the one that was meant."""
        assert "did you mean local_ttl?" in refused("local_tll", local_tll=5)
        assert "there are " in refused("zzz", zzz=5)

    def test_place(self) -> None:
        """The error tells which area it was."""
        with pytest.raises(ConfigError) as caught:
            AreaConfig.build(area="users", local_ttl=0)
        assert "users" == caught.value.area
        assert "[area=users]" in str(caught.value)

    def test_area_of_no_type(self) -> None:
        """A wrong area does not get in the way of its own error."""
        refused("area", area=["users"])
        refused("local_tll", area=["users"], local_tll=5)

    @pytest.mark.parametrize("mode", CacheMode)
    def test_mode(self, mode: CacheMode) -> None:
        """Modes are given as such or as text."""
        for given_as in (mode, mode.value, mode.value.upper()):
            assert mode is AreaConfig.build(mode=given_as).mode

    @pytest.mark.parametrize("area", ["users", "a b", "ünïcode", "x" * 104, "ü" * 52, "a:b{c}%"])
    def test_area(self, area: str) -> None:
        """Every printable name that fits the segment's table is a name."""
        assert area == AreaConfig.build(area=area).area

    def test_sizes(self) -> None:
        """Sizes may be text."""
        assert 2 << 20 == AreaConfig.build(max_value_size="2MiB").max_value_size

    def test_version(self) -> None:
        """A version may be a number, and is kept as text."""
        assert ("3", "a1b2") == tuple(AreaConfig.build(version=v).version for v in (3, "a1b2"))

    def test_loader_object(self) -> None:
        """A loader is a function, or an object with one."""

        class Loader:
            def load(self, key: Any) -> Any:
                return key

        for loader in (load, Loader()):
            assert loader is AreaConfig.build(loader=loader).loader

    def test_codec_object(self) -> None:
        """A codec of the user's is an object with both methods."""

        class Codec:
            def encode(self, value: Any) -> tuple[int, bytes]:
                return 32, value

            def decode(self, code: int, payload: bytes) -> tuple[Any, bool]:
                return payload, True

        codec = Codec()
        assert codec is AreaConfig.build(codec=codec).codec
        refused("codec", codec=Codec)


class TestNeverEffective:
    """Combinations that no set-up can give an effect."""

    @pytest.mark.parametrize(
        ("setting", "options"),
        [
            ("broadcast_invalidation", {"mode": "local", "broadcast_invalidation": True}),
            ("broadcast_sets", {"mode": "local", "broadcast_sets": True}),
            ("broadcast_sets", {"broadcast_invalidation": False, "broadcast_sets": True}),
            ("refresh_ahead", {"refresh_ahead": True}),
            ("refresh_ahead", {"refresh_ahead": True, "loader": load, "local_ttl": None}),
            (
                "refresh_ahead_window",
                {"refresh_ahead": True, "loader": load, "refresh_ahead_window": 60},
            ),
            (
                "refresh_ahead_window",
                {
                    "refresh_ahead": True,
                    "loader": load,
                    "mode": "both",
                    "remote_ttl": 10,
                    "refresh_ahead_window": 10,
                },
            ),
            (
                "refresh_ahead_window",
                {
                    "refresh_ahead": True,
                    "loader": load,
                    "mode": "remote",
                    "refresh_ahead_window": 300,
                },
            ),
            ("warmup_enabled", {"warmup_enabled": True, "mode": "local"}),
            ("stale_ttl", {"stale_on_error": True, "stale_ttl": 0}),
            ("stale_ttl", {"allow_stale": True, "stale_ttl": 0}),
            ("lease", {"lease": 4.9}),
            ("lease", {"lease": 20, "batch_timeout": 21}),
            ("soft_timeout", {"soft_timeout": 1}),
            ("soft_timeout", {"soft_timeout": 1, "stale_on_error": True, "loader": load}),
            ("soft_timeout", {"soft_timeout": 5, "stale_on_error": True}),
            ("wait_timeout", {"wait_timeout": 5, "penetration_protect": False}),
            ("batch_timeout", {"batch_timeout": 5, "loader": load}),
            ("objects", {"mode": "remote", "objects": "shared"}),
            ("verify", {"mode": "remote", "verify": "full"}),
        ],
    )
    def test_refused(self, setting: str, options: dict[str, Any]) -> None:
        """Each is refused, with what to do about it."""
        message = refused(setting, **options)
        assert any(cure in message for cure in ("leave", "give a", "make it"))

    @pytest.mark.parametrize(
        "options",
        [
            {"broadcast_invalidation": True, "broadcast_sets": True},
            {"mode": "both", "broadcast_invalidation": True},
            {"mode": "local", "broadcast_invalidation": False, "broadcast_sets": False},
            {"refresh_ahead": True, "loader": load, "refresh_ahead_window": 59.9},
            {"refresh_ahead_window": 100},
            {"refresh_ahead": True, "loader": load, "mode": "both", "local_ttl": None},
            {"warmup_enabled": True},
            {"warmup_enabled": True, "loader": load, "mode": "local"},
            {"stale_on_error": True},
            {"stale_ttl": 0},
            {"soft_timeout": 0, "stale_on_error": True},
            {"soft_timeout": 1, "stale_ttl": 60},
            {"soft_timeout": 1, "allow_stale": True, "loader": aload},
            {"soft_timeout": 1, "allow_stale": True, "loader": load, "background": list},
            {"batch_timeout": 5},
            {"batch_timeout": 5, "loader": FnLoader(load, load)},
            {"wait_timeout": 0.1, "max_loads": 1},
            {"loader_timeout": None, "lease": 1},
            {"mode": "local", "on_desync": "serve", "remote_ttl": 5},
            {"mode": "off", "objects": "shared", "verify": "full"},
        ],
    )
    def test_accepted(self, options: dict[str, Any]) -> None:
        """What has an effect somewhere is accepted: the same code runs without Redis, too."""
        AreaConfig.build(**options)


class TestDerivedOptions:
    def test_stale_life(self) -> None:
        """An hour once anything may be served stale, else nothing, and always what is said."""
        assert [0.0, 3600.0, 3600.0, 5.0, 0.0] == [
            AreaConfig.build(**options).stale_life
            for options in (
                {},
                {"stale_on_error": True},
                {"allow_stale": True},
                {"allow_stale": True, "stale_ttl": 5},
                {"stale_ttl": 0},
            )
        ]

    def test_limits(self) -> None:
        """Limits that are not given follow loader_timeout; a wait is never endless."""
        limits = [
            (config.batch_limit, config.wait_limit)
            for config in (
                AreaConfig(),
                AreaConfig.build(loader_timeout=2),
                AreaConfig.build(batch_timeout=9, wait_timeout=1),
                AreaConfig.build(batch_timeout=9),
                AreaConfig.build(loader_timeout=None),
            )
        ]
        assert [(5.0, 5.0), (2.0, 2.0), (9.0, 1.0), (9.0, 9.0), (None, 30.0)] == limits


class TestModeUnder:
    """Which tiers an area has is known when the settings are."""

    LOCAL = Settings()
    REDIS = Settings(redis="redis://h", name="shop")

    def test_follows_redis(self) -> None:
        """An area that says nothing uses Redis where there is one."""
        assert CacheMode.LOCAL is AreaConfig().mode_under(self.LOCAL)
        assert CacheMode.BOTH is AreaConfig().mode_under(self.REDIS)

    @pytest.mark.parametrize("mode", ["both", "remote"])
    def test_needs_redis(self, mode: str) -> None:
        """An area that asks for Redis is refused where there is none."""
        config = AreaConfig.build(area="users", mode=mode)
        assert mode == config.mode_under(self.REDIS)
        with pytest.raises(ConfigError, match="needs Redis") as caught:
            config.mode_under(self.LOCAL)
        assert ("mode", "users") == (caught.value.setting, caught.value.area)

    def test_redis_of_nobody(self) -> None:
        """Redis without a name for our part of it is not used, and asking for it tells why."""
        settings = Settings(redis="redis://h")
        assert CacheMode.LOCAL is AreaConfig().mode_under(settings)
        with pytest.raises(ConfigError, match="explicit name or namespace"):
            AreaConfig.build(mode="both").mode_under(settings)

    def test_overridden(self) -> None:
        """The setting counts more than the area's own mode."""
        off = Settings(mode=CacheMode.OFF)
        assert CacheMode.OFF is AreaConfig.build(mode="both").mode_under(off)

    def test_pickle_needs_secret(self) -> None:
        """Nothing is unpickled that nobody signed."""
        config = AreaConfig.build(codec="pickle")
        assert CacheMode.LOCAL is config.mode_under(Settings(secret=(b"s",)))
        with pytest.raises(ConfigError, match="secret") as caught:
            config.mode_under(self.LOCAL)
        assert "codec" == caught.value.setting


def refused_setting(setting: str, **settings: Any) -> str:
    """Make sure that these settings are refused because of *setting*; the message."""
    with pytest.raises(ConfigError) as caught:
        Settings.resolve(settings, {}, {})
    assert setting == caught.value.setting
    return str(caught.value)


class TestSettings:
    def test_defaults(self) -> None:
        """The defaults are those that the documentation promises."""
        assert {
            "name": None,
            "size": "auto",
            "local": "shared",
            "mode": None,
            "redis": None,
            "remote": None,
            "namespace": None,
            "redis_timeout": 0.1,
            "reconnect": [0.1, 5.0],
            "freshness_bound": 2.0,
            "secret": None,
            "strict": False,
        } == Settings().describe()

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("name", ""),
            ("name", "Shop"),
            ("name", "sh op"),
            ("name", "shop\n"),
            ("name", "../shop"),
            ("name", "x" * 41),
            ("name", 5),
            ("size", 0),
            ("size", True),
            ("size", 1.5),
            ("size", "1MiB"),
            ("size", "huge"),
            ("size", "2TiB"),
            ("local", "private"),
            ("local", None),
            ("mode", "l1"),
            ("redis", "localhost:6379"),
            ("redis", "http://localhost"),
            ("redis", 5),
            ("redis", b"redis://h"),
            ("namespace", ""),
            ("namespace", "a\nb"),
            ("redis_timeout", 0),
            ("redis_timeout", None),
            ("redis_timeout", NAN),
            ("reconnect", 5),
            ("reconnect", (1,)),
            ("reconnect", (5, 1)),
            ("reconnect", (0, 1)),
            ("reconnect", "15"),
            ("freshness_bound", 0),
            ("freshness_bound", "2 fortnights"),
            ("secret", ""),
            ("secret", [b"a", ""]),
            ("secret", 5),
            ("strict", 1),
            ("strict", None),
        ],
    )
    def test_wrong(self, name: str, value: Any) -> None:
        """Wrong types and values are refused, and the message names the setting."""
        assert name in refused_setting(name, **{name: value})

    def test_unknown(self) -> None:
        """A name that is misspelt is refused, with the one that was meant."""
        assert "did you mean redis?" in refused_setting("reddis", reddis="redis://h")

    def test_good(self) -> None:
        """Everything in one."""
        settings = Settings.resolve(
            {
                "name": "shop_1-a",
                "size": "256MiB",
                "local": "process",
                "mode": "LOCAL",
                "redis": "rediss://h:6380/2",
                "namespace": "shop:eu",
                "redis_timeout": "50ms",
                "reconnect": ["1s", 10],
                "freshness_bound": timedelta(seconds=1),
                "secret": ["new", b"old"],
                "strict": True,
            },
            {},
            {},
        )
        assert ("shop_1-a", 256 << 20, "process", CacheMode.LOCAL, 0.05, (1.0, 10.0), 1.0) == (
            settings.name,
            settings.size,
            settings.local,
            settings.mode,
            settings.redis_timeout,
            settings.reconnect,
            settings.freshness_bound,
        )
        assert (b"new", b"old") == settings.secret

    @pytest.mark.parametrize("mode", ["both", "remote"])
    def test_mode_needs_redis(self, mode: str) -> None:
        """To ask every area to use Redis without giving one is refused."""
        assert "give the setting redis" in refused_setting("mode", mode=mode)

    def test_client(self) -> None:
        """Redis may be a client, but not the class of one."""

        class Client:
            def execute_command(self) -> None: ...

        client = Client()
        assert client is Settings(redis=client, name="shop").redis
        refused_setting("redis", redis=Client)

    def test_remote_problem(self) -> None:
        """Redis needs a name that all hosts know, of either kind."""
        assert Settings().remote_problem is None
        assert Settings(redis="redis://h", name="shop").remote_problem is None
        assert Settings(redis="redis://h", namespace="shop").remote_problem is None
        assert "explicit name" in str(Settings(redis="redis://h").remote_problem)

    def test_remote(self) -> None:
        """A second level of one's own has all methods of the protocol, and is the only one."""
        own = SimpleNamespace(**dict.fromkeys(REMOTE_METHODS, print))
        settings = Settings(remote=own, name="shop")
        assert (own, "SimpleNamespace") == (settings.remote, settings.describe()["remote"])
        assert settings.has_remote
        assert "remote needs" in str(Settings(remote=own).remote_problem)
        assert CacheMode.BOTH is AreaConfig().mode_under(settings)
        assert CacheMode.REMOTE is Settings(remote=own, name="shop", mode="remote").mode  # type: ignore[arg-type]
        assert "one second level" in refused_setting("remote", remote=own, redis="redis://h")
        assert "the class" in refused_setting("remote", remote=type(own))
        del own.log, own.beat
        assert "SimpleNamespace has no beat, log" in refused_setting("remote", remote=own)

    def test_equal(self) -> None:
        """Settings that say the same are equal, however they say it."""
        one = Settings.resolve({"size": "64m", "secret": "s"}, {}, {})
        two = Settings.resolve({}, {"size": 64 << 20}, {"ACCELERATOR_SECRET": "s"})
        assert one == two
        assert one != Settings.resolve({"size": "64m", "secret": "t"}, {}, {})


class TestSources:
    """call > configure() > environment > defaults"""

    @pytest.mark.parametrize(
        ("expected", "call", "configured", "environ"),
        [
            ("call", {"name": "call"}, {"name": "conf"}, {"ACCELERATOR_NAME": "env"}),
            ("conf", {}, {"name": "conf"}, {"ACCELERATOR_NAME": "env"}),
            ("env", {}, {}, {"ACCELERATOR_NAME": " env "}),
            (None, {}, {}, {}),
            (None, {}, {}, {"ACCELERATOR_NAME": ""}),
            (None, {"name": None}, {"name": "conf"}, {"ACCELERATOR_NAME": "env"}),
        ],
    )
    def test_order(self, expected: Any, call: Any, configured: Any, environ: Any) -> None:
        """The nearest source that says anything decides, None included."""
        assert expected == Settings.resolve(call, configured, environ).name

    def test_environment(self) -> None:
        """Every setting can come from the environment."""
        settings = Settings.resolve(
            {},
            {},
            {
                "ACCELERATOR_NAME": "shop",
                "ACCELERATOR_SIZE": "128m",
                "ACCELERATOR_LOCAL": "process",
                "ACCELERATOR_MODE": "Both",
                "ACCELERATOR_REDIS": "redis://h",
                "ACCELERATOR_NAMESPACE": "eu",
                "ACCELERATOR_REDIS_TIMEOUT": "0.2",
                "ACCELERATOR_RECONNECT": "100ms, 2s",
                "ACCELERATOR_FRESHNESS_BOUND": "3",
                "ACCELERATOR_SECRET": " s, t ",
                "ACCELERATOR_STRICT": "Yes",
                "ACCELERATOR_UNRELATED": "x",
                "NAME": "not ours",
            },
        )
        expected = Settings(
            name="shop",
            size=128 << 20,
            local="process",
            mode=CacheMode.BOTH,
            redis="redis://h",
            namespace="eu",
            redis_timeout=0.2,
            reconnect=(0.1, 2.0),
            freshness_bound=3.0,
            secret=(b" s, t ",),  # one secret: a comma may be part of it
            strict=True,
        )
        assert expected == settings

    @pytest.mark.parametrize(("expected", "text"), [(True, "1"), (True, "ON"), (False, "false")])
    def test_flag(self, expected: bool, text: str) -> None:
        """A flag has the usual spellings."""
        assert expected is Settings.resolve({}, {}, {"ACCELERATOR_STRICT": text}).strict

    @pytest.mark.parametrize(
        ("name", "text"),
        [("size", "huge"), ("strict", "maybe"), ("reconnect", "5"), ("redis_timeout", "-1")],
    )
    def test_wrong_variable(self, name: str, text: str) -> None:
        """A wrong variable is refused by name."""
        variable = f"ACCELERATOR_{name.upper()}"
        with pytest.raises(ConfigError, match=variable) as caught:
            Settings.resolve({}, {}, {variable: text})
        assert name == caught.value.setting

    def test_overridden_variable(self) -> None:
        """A wrong variable that does not count does no harm."""
        settings = Settings.resolve({"size": "64m"}, {}, {"ACCELERATOR_SIZE": "huge"})
        assert 64 << 20 == settings.size

    def test_blame(self) -> None:
        """The environment is not blamed for what the call says."""
        with pytest.raises(ConfigError) as caught:
            Settings.resolve({"size": 1}, {}, {"ACCELERATOR_SIZE": "64m"})
        assert "ACCELERATOR" not in str(caught.value)


class TestSecrecy:
    SECRET = "hunter2-correct-horse"

    def test_shown_nowhere(self) -> None:
        """Neither secret nor password shows in repr or description."""
        settings = Settings(
            redis=f"redis://me:{self.SECRET}@h:6379/1", name="x", secret=self.SECRET
        )
        for shown in (repr(settings), str(settings), repr(settings.describe())):
            assert self.SECRET not in shown
        assert ("redis://h:6379/1", "1 given") == (
            settings.describe()["redis"],
            settings.describe()["secret"],
        )

    @pytest.mark.parametrize(
        "settings",
        [
            {"redis": f"http://me:{SECRET}@h"},
            {"redis": f"{SECRET}"},
            {"secret": f"{SECRET}\ud800"},
            {"secret": [SECRET, 5]},
        ],
    )
    def test_errors(self, settings: dict[str, Any]) -> None:
        """Nor in what a mistake leads to, chained exceptions included."""
        with pytest.raises(ConfigError) as caught:
            Settings.resolve(settings, {}, {})
        assert self.SECRET not in str(caught.value)
        assert caught.value.__cause__ is None
        assert caught.value.__suppress_context__

    @pytest.mark.parametrize(
        ("expected", "url"),
        [
            ("redis://h:1/2", "redis://user:pass@h:1/2?password=pass"),
            ("unix:///run/redis.sock", "unix://user:pass@/run/redis.sock?db=1"),
            ("redis://h", "redis://a:b@c@h"),
            ("?", "redis://[pass"),
            ("?", "user:pass"),
            ("?", "pass"),
        ],
    )
    def test_redacted_url(self, expected: str, url: str) -> None:
        """A URL is shown without anything that may be secret."""
        assert expected == redacted_url(url)

    @given(st.text(min_size=1))
    def test_redacted_anything(self, text: str) -> None:
        """Whatever is written as user, password or query is not shown."""
        marked = text.replace("/", "").replace("#", "").replace("?", "")
        assert "hunter2" not in redacted_url(f"redis://u:{marked}hunter2@h/0?x=hunter2")


class TestDerivedName:
    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        folder = tmp_path / "My Shop!"
        folder.mkdir()
        monkeypatch.chdir(folder)

    def test_valid(self) -> None:
        """It is a valid name, and shows where it comes from."""
        name = derived_name("shop:app", {})
        assert name == Settings(name=name).name
        assert name.startswith("my-shop-")

    def test_same(self) -> None:
        """Processes of one application agree on it."""
        assert derived_name("shop:app", {}) == derived_name("shop:app", {"PATH": "/bin"})

    def test_different(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Other applications, other directories and other users have other names."""
        names = [
            derived_name("shop:app", {}),
            derived_name("blog:app", {}),
            derived_name(None, {}),
            derived_name("shop:app", {"DJANGO_SETTINGS_MODULE": "shop.settings"}),
        ]
        monkeypatch.setattr("sys.prefix", str(tmp_path))
        names.append(derived_name("shop:app", {}))
        monkeypatch.setattr("os.getuid", lambda: 12345)
        names.append(derived_name("shop:app", {}))
        monkeypatch.chdir(tmp_path)
        names.append(derived_name("shop:app", {}))
        assert len(names) == len(set(names))

    def test_django(self) -> None:
        """With Django's settings module, what Gunicorn was told to run does not matter."""
        environ = {"DJANGO_SETTINGS_MODULE": "shop.settings"}
        assert derived_name("shop.wsgi", environ) == derived_name(None, environ)

    def test_symbolic_link(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """It is the real directory that counts."""
        name = derived_name("shop:app", {})
        (tmp_path / "current").symlink_to(tmp_path / "My Shop!")
        monkeypatch.chdir(tmp_path / "current")
        assert name == derived_name("shop:app", {})

    def test_directory_gone(self, tmp_path: Path) -> None:
        """A working directory that was removed is no reason to fail."""
        (tmp_path / "My Shop!").rmdir()
        assert derived_name("shop:app", {}).startswith("app-")

    def test_directory_without_text(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Nor is one whose name is no text."""
        folder = tmp_path / os.fsdecode(b"caf\xe9")
        folder.mkdir()
        monkeypatch.chdir(folder)
        assert derived_name("shop:app", {}) == Settings(name=derived_name("shop:app", {})).name
