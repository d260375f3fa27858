"""More areas than the segment has room for in its table."""

import time
import uuid
from pathlib import Path

import pytest

from accelerator import LevelCache, local, testing

AREAS = 80
"""A segment of 4 MiB has room for 64."""
ENOUGH = "area70"
TASKS = Path("/proc/self/task")


@pytest.mark.skipif(not local.NATIVE, reason="memory of one process has no table")
class TestManyAreas:
    def test_one_listener_for_the_rest(self, url: str, caplog: pytest.LogCaptureFixture) -> None:
        """Those that lie in spare memory share a thread and connections, and end with the rest."""
        namespace = f"test-{uuid.uuid4().hex}"
        with testing.isolated(shared=True, redis=url, namespace=namespace):
            made = [LevelCache(f"area{number}") for number in range(AREAS)]
            for number, each in enumerate(made):
                each.set("key", number)
                if each.config.area == ENOUGH:
                    threads = len(list(TASKS.iterdir()))
            assert list(range(AREAS)) == [each.get("key") for each in made]
            assert "in memory of this process, alone" in caplog.text
            # Of other tests some may end meanwhile.
            assert threads >= len(list(TASKS.iterdir()))
            seconds = {each._second._second for each in made if each._second is not None}
            assert 2 == len(seconds)
        deadline = time.monotonic() + 30.0
        while any(each._listener.running for each in seconds):
            assert time.monotonic() < deadline, "a thread stays"
            time.sleep(0.01)
