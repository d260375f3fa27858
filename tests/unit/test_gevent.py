"""Waits of greenlets: the hub goes on, whatever was imported before gevent patched."""

import subprocess
import sys

import pytest

pytest.importorskip("gevent", reason="gevent is not installed")

STORIES = {
    "joined": """
        go_on = gevent.event.Event()
        calls = []

        def load(key):
            calls.append(key)
            assert go_on.wait(20)
            return key * 2

        cache = LevelCache("area", loader=load)
        waiting = [gevent.spawn(cache.get, 4) for _ in range(200)]
        until(lambda: counted(cache, "load_joined") == 199)
        go_on.set()
        assert [8] * 200 == [each.get(timeout=20) for each in waiting]
        assert [4] == calls
    """,
    "not blocking": """
        cache = LevelCache("area", loader=lambda key: time.sleep(0.3) or key)
        waiting = [gevent.spawn(cache.get, 4) for _ in range(20)]
        stalls, last = [], time.monotonic()
        while not all(each.ready() for each in waiting):
            gevent.sleep(0.001)
            now = time.monotonic()
            stalls.append(now - last)
            last = now
        assert max(stalls) < 0.1, max(stalls)
        assert len(stalls) > 50
    """,
    "timeout": """
        go_on = gevent.event.Event()
        cache = LevelCache("area", loader=lambda key: go_on.wait(20) and key, wait_timeout=0.05)
        waiting = [gevent.spawn(cache.get, 4) for _ in range(2)]
        until(lambda: counted(cache, "load_alone") == 1)
        go_on.set()
        assert [4, 4] == [each.get(timeout=20) for each in waiting]
    """,
    "killed": """
        started = []
        cache = LevelCache("area", stale_on_error=True,
                           loader=lambda key: started.append(key) or gevent.sleep(20))
        cache.set(4, "old")
        cache.expire(4)
        leader = gevent.spawn(cache.get, 4)
        until(lambda: started)
        leader.kill()
        assert [] == own.memory.flights()
        with pytest.raises(gevent.Timeout):
            with gevent.Timeout(0.05):
                cache.get(4)
        assert [] == own.memory.flights()
        assert 2 == len(started)
    """,
    "waiter killed": """
        go_on = gevent.event.Event()
        cache = LevelCache("area", loader=lambda key: go_on.wait(20) and key)
        leader = gevent.spawn(cache.get, 4)
        waiting = [gevent.spawn(cache.get, 4) for _ in range(3)]
        until(lambda: counted(cache, "load_joined") == 3)
        waiting[0].kill()
        assert 2 == own.memory.flights()[0]["waiters"]
        go_on.set()
        assert [4, 4, 4] == [each.get(timeout=20) for each in (leader, *waiting[1:])]
    """,
    "background": """
        go_on = gevent.event.Event()
        cache = LevelCache("area", loader=lambda key: go_on.wait(20) and "new",
                           background=contextlib.nullcontext, soft_timeout=0.05,
                           stale_on_error=True)
        cache.set(4, "old")
        cache.expire(4)
        assert "old" == cache.get(4)
        assert "old" == cache.get(4)
        go_on.set()
        until(lambda: cache.peek(4) == "new")
    """,
    "real thread": """
        started = []
        go_on = gevent.event.Event()

        def load(key):
            started.append(key)
            assert go_on.wait(20)
            return key * 2

        cache = LevelCache("area", loader=load)
        leader = gevent.spawn(cache.get, 4)
        until(lambda: started)
        pool = gevent.get_hub().threadpool
        waiting = pool.spawn(cache.get, 4)
        until(lambda: counted(cache, "load_joined") == 1)
        go_on.set()
        assert (8, 8) == (waiting.get(timeout=20), leader.get(timeout=20))
    """,
    "no bell": """
        from accelerator import flight

        def fail(*_):
            raise OSError("too many open files")

        flight._hub_ringer = fail
        cache = LevelCache("area", loader=lambda key: gevent.sleep(0.1) or key)
        assert [4] * 9 == [
            each.get(timeout=20) for each in [gevent.spawn(cache.get, 4) for _ in range(9)]
        ]
        assert 8 == counted(cache, "load_joined")
    """,
    "lock": """
        cache = LevelCache("area")
        inside, outcomes = [], []

        def work(number):
            with cache.lock("name", timeout=20):
                inside.append(number)
                gevent.sleep(0.001)
                assert [number] == inside
                inside.clear()

        with cache.lock("name"):
            waiting = [gevent.spawn(work, number) for number in range(20)]
            until(lambda: own.memory.flights()[0]["waiters"] == 20)
            with pytest.raises(LockError):
                cache.lock("name").acquire()
            hub = gevent.get_hub()
            hub.loop.run_callback(lambda: outcomes.append(cache.lock("name").acquire()))
            until(lambda: outcomes)
            waiting.pop().kill()
            assert 19 == own.memory.flights()[0]["waiters"]
        gevent.joinall(waiting, timeout=20, raise_error=True)
        assert [False] == outcomes

        def hold():
            with cache.lock("name"):
                gevent.sleep(20)

        holder = gevent.spawn(hold)
        until(own.memory.flights)
        holder.kill()
        with cache.lock("name", timeout=20):
            pass
    """,
    "hub callback": """
        go_on = gevent.event.Event()
        outcomes = []
        cache = LevelCache("area", loader=lambda key: go_on.wait(20) and "led")
        leader = gevent.spawn(cache.get, 4)
        gevent.sleep(0.01)
        hub = gevent.get_hub()
        hub.loop.run_callback(lambda: outcomes.append(cache.get_or_load(4, lambda _: "alone")))
        until(lambda: outcomes)
        go_on.set()
        assert (["alone"], "led") == (outcomes, leader.get(timeout=20))
    """,
}

FRAME = """
import contextlib, time
{imports}

def until(condition):
    with gevent.Timeout(20):
        while not condition():
            gevent.sleep(0.002)

def counted(cache, name):
    return cache.metrics_snapshot()[name]

with testing.isolated() as own:
{story}
    assert [] == own.memory.flights()
    assert [] == own.memory.check()
"""
PACKAGE = "from accelerator import LevelCache, LockError, testing\n"
GEVENT = "import gevent.monkey\ngevent.monkey.patch_all()\nimport gevent, gevent.event, pytest\n"


@pytest.mark.parametrize("preload", [False, True], ids=["patched first", "imported first"])
@pytest.mark.parametrize("name", STORIES)
def test_story(name: str, preload: bool) -> None:
    """In a process of its own, because patching cannot be undone."""
    imports = PACKAGE + GEVENT if preload else GEVENT + PACKAGE
    code = FRAME.format(imports=imports, story=STORIES[name].replace("\n    ", "\n"))
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=100, check=False
    )
    assert (0, "") == (done.returncode, done.stderr)


def test_not_imported() -> None:
    """Nobody gets gevent who does not use it."""
    code = (
        "import sys, accelerator\n"
        "cache = accelerator.LevelCache(loader=str)\n"
        "assert '4' == cache.get(4)\n"
        "assert 'gevent' not in sys.modules and 'asyncio' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=100)
