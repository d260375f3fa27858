"""Two releases of an application on one host, each with its version of an area."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from accelerator import LevelCache, LockTimeout, local, testing

pytestmark = pytest.mark.skipif(not local.NATIVE, reason="processes share through the native part")

Fork = Callable[..., Any]
Meet = Callable[..., Any]
STALE = 600.0


@pytest.fixture
def shared() -> Iterator[testing.Isolated]:
    with testing.isolated(shared=True) as isolated:
        yield isolated
        assert [] == isolated.memory.check()


class Release:
    """A process of one release: does what it is told, one method of its cache after the other."""

    def __init__(self, fork: Fork, version: str | None, calls: Any) -> None:
        def body(meet: Meet) -> None:
            def load(key: Any) -> str:
                calls.add(f"{version} {key}")
                if key == "slow":
                    meet("loading")
                return f"{version} {key}"

            cache = LevelCache("area", version=version, ttl_jitter_ratio=None, stale_ttl=STALE)
            cache.get("bind")
            held = []
            while (step := meet("ready")) is not None:
                method, *arguments = step
                if method == "load":
                    meet(cache.get_or_load(arguments[0], load))
                elif method == "take":
                    held.append(cache.lock("name", lease=60.0, timeout=0.05))
                    try:
                        held[-1].__enter__()
                    except LockTimeout:
                        meet(held.pop() and False)
                    else:
                        meet(True)
                elif method == "give":
                    meet(held.pop().__exit__(None, None, None))
                elif method == "in":
                    meet(arguments[0] in cache)
                elif method == "stale":
                    found = cache._read(arguments[0], stale=True)
                    meet(None if found is None else (found[0], found[4]))
                else:
                    meet(getattr(cache, method)(*arguments))

        self._child = fork(body)
        assert "ready" == self._child.meet(("get", "bind"))
        assert self._child.meet() is None

    def do(self, *step: Any) -> Any:
        """Let it do one step; what came of it."""
        self.begin(*step)
        return self._child.meet()

    def begin(self, *step: Any) -> None:
        """Let it begin one."""
        assert "ready" == self._child.meet(step)

    def meet(self) -> Any:
        return self._child.meet()


@pytest.fixture(params=["1 and 2", "none and 2"])
def releases(
    request: pytest.FixtureRequest, shared: testing.Isolated, fork: Fork, calls: Any
) -> tuple[Release, Release]:
    """The one before, and this one."""
    del shared
    before = "1" if request.param == "1 and 2" else None
    return Release(fork, before, calls), Release(fork, "2", calls)


def both(releases: tuple[Release, Release], *step: Any) -> list[Any]:
    return [release.do(*step) for release in releases]


def load_both(releases: tuple[Release, Release], key: str = "key") -> list[str]:
    loaded = both(releases, "load", key)
    assert loaded == both(releases, "get", key)
    assert loaded[0] != loaded[1]
    return loaded


class TestReleases:
    def test_apart(self, releases: tuple[Release, Release], calls: Any) -> None:
        """Each loads, keeps and reads its own values."""
        old, new = releases
        assert old.do("load", "key") == old.do("get", "key")
        assert new.do("get", "key") is None
        assert new.do("in", "key") is False
        assert new.do("load", "key") == new.do("get", "key") == "2 key"
        assert old.do("get", "key") == old.do("load", "key") != "2 key"
        assert 2 == len(calls)

    @pytest.mark.parametrize("by", [0, 1])
    @pytest.mark.parametrize("forget", ["delete", "clear"])
    def test_forget(self, releases: tuple[Release, Release], forget: str, by: int) -> None:
        """What one forgets is forgotten in both, objects in the other's memory too."""
        load_both(releases)
        releases[by].do(*(("delete", "key") if forget == "delete" else ("clear",)))
        assert [None, None] == both(releases, "get", "key")
        assert [False, False] == both(releases, "in", "key")

    def test_expire(self, releases: tuple[Release, Release]) -> None:
        """Both have their stale copies left."""
        loaded = load_both(releases)
        assert releases[1].do("expire", "key")
        assert [None, None] == both(releases, "get", "key")
        assert [(value, True) for value in loaded] == both(releases, "stale", "key")

    @pytest.mark.parametrize(
        ("write", "value"),
        [
            (("set", "key", ("new",)), ("new",)),
            (("add", "absent", "new"), "new"),
            (("incr", "absent", 7), 7),
            (("touch", "key", 60.0), "2 key"),
        ],
        ids=lambda each: each[0] if isinstance(each, tuple) else "",
    )
    def test_write(
        self, releases: tuple[Release, Release], write: tuple[Any, ...], value: Any
    ) -> None:
        """What one writes, the other no longer has an older copy of."""
        old, new = releases
        key = write[1]
        load_both(releases)
        if key != "key":
            old.do("load", key)
        new.do(*write)
        assert value == new.do("get", key)
        assert old.do("get", key) is None
        assert old.do("load", key) == old.do("get", key)
        assert value == new.do("get", key)

    def test_counter(self, releases: tuple[Release, Release]) -> None:
        """An int that one counts is none that the other counts on."""
        old, new = releases
        assert [1, 2, 3] == [new.do("incr", "n") for _ in range(3)]
        assert 1 == old.do("incr", "n")
        assert new.do("get", "n") is None

    @pytest.mark.parametrize("step", [("set", "slow", "set"), ("delete", "slow"), ("clear",)])
    def test_fenced(
        self, releases: tuple[Release, Release], calls: Any, step: tuple[Any, ...]
    ) -> None:
        """What one was loading when the other wrote is given to its caller, and not kept."""
        old, new = releases
        old.begin("load", "slow")
        assert "loading" == old.meet()
        new.do(*step)
        assert old.meet().endswith(" slow")
        assert old.do("get", "slow") is None
        assert ("set" if step[0] == "set" else None) == new.do("get", "slow")
        assert 1 == len(calls)

    def test_not_fenced(self, releases: tuple[Release, Release]) -> None:
        """What the other loads meanwhile is no write."""
        old, new = releases
        old.begin("load", "slow")
        assert "loading" == old.meet()
        new.begin("load", "slow")
        assert "loading" == new.meet()
        assert "2 slow" == new.meet()
        loaded = old.meet()
        assert [loaded, "2 slow"] == both(releases, "get", "slow")

    def test_lock(self, releases: tuple[Release, Release]) -> None:
        """A named lock is held by one of both."""
        old, new = releases
        assert old.do("take")
        assert not new.do("take")
        old.do("give")
        assert new.do("take")
        assert not old.do("take")
        new.do("give")

    def test_killed(
        self, releases: tuple[Release, Release], shared: testing.Isolated, fork: Fork
    ) -> None:
        """One that goes takes nothing of the other's with it."""
        loaded = load_both(releases)
        child = fork(lambda meet: LevelCache("area", version="3").set("else", 1) or meet())
        child.meet()
        child.kill()
        assert loaded == both(releases, "get", "key")
        rows = shared.memory.stats()["areas"]
        assert ["area"] == list(rows)
        assert 3 == rows["area"]["entries"]
