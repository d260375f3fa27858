"""accelerator.testing, as the tests of an application use it."""

import gc
from pathlib import Path

import pytest

from accelerator import LevelCache, local, testing

pytest_plugins = ["pytester"]

CACHE = LevelCache("made-at-import", ttl_jitter_ratio=None)


class TestIsolated:
    def test_fresh_and_back(self) -> None:
        """Caches have fresh memory inside, and what they had before outside."""
        with testing.isolated():
            CACHE.set("key", "outer")
            with testing.isolated():
                assert CACHE.get("key") is None
                CACHE.set("key", "inner")
            assert "outer" == CACHE.get("key")
        with testing.isolated():
            assert CACHE.get("key") is None

    def test_clock(self) -> None:
        """Time can be moved ahead, in any way to write a duration."""
        with testing.isolated() as own:
            CACHE.set("key", 1)
            own.clock.advance("59s")
            assert 1 == CACHE.get("key")
            own.clock.advance(2)
            assert CACHE.get("key") is None
            assert 61 == own.clock.ahead
            with pytest.raises(ValueError, match="by"):
                own.clock.advance(-1)

    def test_clear(self) -> None:
        """Everything in all areas."""
        with testing.isolated() as own:
            other = LevelCache("other")
            for cache in (CACHE, other):
                cache.set("key", 1)
            own.clear()
            assert (None, None) == (CACHE.get("key"), other.get("key"))

    def test_smallest(self) -> None:
        """2 MiB will do for a test."""
        with testing.isolated(size="2MiB") as own:
            CACHE.set("key", b"x" * 10_000)
            assert 10_000 == len(CACHE.get("key"))
            assert 2 << 20 == own.memory.size

    @pytest.mark.skipif(not local.NATIVE, reason="segments need the native part")
    def test_shared(self) -> None:
        """A segment of its own, gone afterwards."""
        from accelerator import segment

        with testing.isolated(shared=True, size="2MiB") as own:
            CACHE.set("key", 1)
            path = segment.own_file(own.name).path
            assert 2 << 20 == path.stat().st_size
        assert not path.exists()

    @pytest.mark.skipif(not local.NATIVE, reason="segments need the native part")
    def test_given_back(self) -> None:
        """Tests with a segment each use up neither descriptors nor memory."""

        def segments() -> int:
            gc.collect()
            fds = Path("/proc/self/fd")
            return sum(
                "accelerator" in str(fd.readlink()) for fd in fds.iterdir() if fd.is_symlink()
            )

        before = segments()
        for _ in range(5):
            with testing.isolated(shared=True, size="2MiB"):
                cache = LevelCache("area")
                cache.set("key", "value")
                assert segments() <= before + 2  # the one before may not have gone yet
        assert segments() <= before + 1


class TestFixtures:
    def test_in_a_project(self, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
        """The fixtures work in somebody else's project."""
        monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
        pytester.makeconftest('pytest_plugins = ["accelerator.testing"]')
        pytester.makepyfile(
            """
            import accelerator

            cache = accelerator.LevelCache("area")

            def test_expiry(accelerator_clock):
                cache.set("key", 1, 10)
                accelerator_clock.advance("11s")
                assert cache.get("key") is None
                cache.set("left", 1)

            def test_isolation(accelerator_isolated):
                assert cache.get("left") is None
            """
        )
        pytester.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(passed=2)
