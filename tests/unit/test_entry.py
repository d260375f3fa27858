"""What a read is asked, and what it answers."""

import copy
import dataclasses
import pickle

import pytest

from accelerator.entry import MISS, UNSET, CacheMode, Entry, MissType, ReadOptions, UnsetType


class TestMiss:
    def test_falsy(self) -> None:
        """It reads as "nothing" in a condition, and is nobody's value."""
        assert not MISS
        assert MISS is not None
        assert "MISS" == repr(MISS)

    @pytest.mark.parametrize("one", [MISS, UNSET])
    def test_one_only(self, one: object) -> None:
        """Every way to copy it, or to make another one, gives the one there is."""
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            assert one is pickle.loads(pickle.dumps(one, protocol))
        assert one is copy.copy(one) is copy.deepcopy(one) is type(one)()

    def test_unset(self) -> None:
        """UNSET shows its name in signatures."""
        assert "UNSET" == repr(UNSET)
        assert MissType is not UnsetType


class TestCacheMode:
    @pytest.mark.parametrize("mode", CacheMode)
    def test_text(self, mode: CacheMode) -> None:
        """Modes may be given as text, in any letter case."""
        assert mode is CacheMode(mode.value) is CacheMode(f" {mode.value.upper()} ")

    @pytest.mark.parametrize("value", ["", "l1", "none", None, 1])
    def test_unknown(self, value: object) -> None:
        """Anything else is refused."""
        with pytest.raises(ValueError, match="CacheMode"):
            CacheMode(value)

    def test_tiers(self) -> None:
        """Each mode says which tiers it has."""
        assert {"local": (True, False), "remote": (False, True), "both": (True, True)} | {
            "off": (False, False)
        } == {mode.value: (mode.uses_local, mode.uses_remote) for mode in CacheMode}


class TestEntry:
    def test_null(self) -> None:
        """A cached None is told from a value, even from a false one."""
        entry = Entry(value=None, tier="local", age=0.5, ttl=None, stale=False, version=3)
        assert entry.is_null
        assert not dataclasses.replace(entry, value=0).is_null

    def test_frozen(self) -> None:
        """What was read does not change."""
        entry = Entry(value=1, tier="local", age=0.5, ttl=None, stale=False, version=3)
        with pytest.raises(dataclasses.FrozenInstanceError):
            entry.value = 2  # type: ignore[misc]


class TestReadOptions:
    def test_defaults(self) -> None:
        """Nothing stale, and the loader is asked."""
        assert (False, False, None) == dataclasses.astuple(ReadOptions())

    def test_duration(self) -> None:
        """max_staleness takes every form of duration, 0 included."""
        assert 300.0 == ReadOptions(max_staleness="5m").max_staleness  # type: ignore[arg-type]
        assert 0.0 == ReadOptions(max_staleness=0).max_staleness

    @pytest.mark.parametrize(
        ("error", "options"),
        [
            (TypeError, {"allow_stale": 1}),
            (TypeError, {"disable_load": "yes"}),
            (TypeError, {"max_staleness": True}),
            (ValueError, {"max_staleness": -1}),
            (ValueError, {"max_staleness": float("nan")}),
        ],
    )
    def test_wrong(self, error: type[Exception], options: dict[str, object]) -> None:
        """Wrong types and values are refused by name, however they come."""
        (name,) = options
        with pytest.raises(error, match=name):
            ReadOptions(**options)  # type: ignore[arg-type]
        with pytest.raises(error, match=name):
            ReadOptions.of(None, options)

    def test_keywords(self) -> None:
        """A keyword counts more than options, and the rest of the options stays."""
        given = ReadOptions(allow_stale=True, max_staleness=5)
        assert given is ReadOptions.of(given, {})
        assert ReadOptions() == ReadOptions.of(None, {})
        assert ReadOptions(allow_stale=True, max_staleness=1) == ReadOptions.of(
            given, {"max_staleness": "1s"}
        )

    def test_unknown_keyword(self) -> None:
        """A keyword that is misspelt is not ignored."""
        with pytest.raises(TypeError, match=r"'alow_stale'.*allow_stale"):
            ReadOptions.of(None, {"alow_stale": True})

    def test_wrong_options(self) -> None:
        """A dict is no ReadOptions."""
        with pytest.raises(TypeError, match="not dict"):
            ReadOptions.of({"allow_stale": True}, {})  # type: ignore[arg-type]
