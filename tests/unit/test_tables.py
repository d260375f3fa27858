"""What is read from the tables of a segment is what the native part says of them."""

import math
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from areas import bound_area

from accelerator import LevelCache, local, segment, testing
from accelerator.observability import tables

pytestmark = pytest.mark.skipif(
    not (local.NATIVE and segment.AVAILABLE), reason="segments need the native part"
)
BOUND = 2.0


@pytest.fixture(params=["4MiB", "40MiB"])
def shared(request: pytest.FixtureRequest) -> Iterator[testing.Isolated]:
    """Of two sizes, as the sizes of the tables depend on it."""
    with testing.isolated(shared=True, size=request.param) as own:
        yield own


class TestAreas:
    def test_names(self, shared: testing.Isolated) -> None:
        """Every area by its name, the longest and foreign letters included."""
        names = ["users", "ü-日本", "x" * 104]
        for name in names:
            LevelCache(name).get(1)
        assert sorted(names) == [row.name for row in tables.areas(shared.memory)]

    def test_versions(self, shared: testing.Isolated) -> None:
        """An area once, whatever versions of it there are, and what it counted for all of them."""
        for version in ("1", None, "2"):
            LevelCache("area", version=version).get(1)
        assert ["area"] == [row.name for row in tables.areas(shared.memory)]
        [block] = tables.blocks(shared.memory).values()
        assert ("area", 3) == (block.area, block.counters[local.COUNTERS.index("local_miss")])

    def test_watched(self, shared: testing.Isolated) -> None:
        """Those that somebody has to listen for."""
        bound_area(shared.memory, "with", BOUND)
        bound_area(shared.memory, "without", None)
        rows = {row.name: row for row in tables.areas(shared.memory)}
        assert (True, False) == (rows["with"].watched, rows["without"].watched)
        assert ["with"] == shared.memory.watched()

    def test_in_step(self, shared: testing.Isolated) -> None:
        """For how long it may be believed: what the area itself says, seen from the bound."""
        area = bound_area(shared.memory, "users", BOUND)
        assert None is self.left(shared)
        assert math.isinf(area._freshness())
        shared.memory.area_extend("users", time.monotonic() + BOUND)
        left = self.left(shared)
        assert left == pytest.approx(BOUND - area._freshness(), abs=0.05)
        assert BOUND - 0.5 < left <= BOUND + 0.02

    def test_out_of_step(self, shared: testing.Isolated) -> None:
        """Past its end it tells for how long."""
        bound_area(shared.memory, "users", BOUND)
        shared.memory.area_extend("users", time.monotonic() - 1.0)
        assert -1.5 < self.left(shared) < -0.9

    @staticmethod
    def left(shared: testing.Isolated) -> Any:
        [row] = tables.areas(shared.memory)
        return row.in_step_for


class TestBlocks:
    def test_counters(self, shared: testing.Isolated) -> None:
        """The sums over blocks are those of the native part."""
        for name, reads in (("users", 3), ("prices", 5)):
            cache = LevelCache(name)
            cache.mset({n: n for n in range(reads)})
            cache.mget(range(reads + 2))
            cache.mget(range(reads))
        found: dict[str, dict[str, int]] = {}
        for block in tables.blocks(shared.memory).values():
            assert shared.memory.incarnation == block.incarnation
            found[block.area] = dict(zip(local.COUNTERS, block.counters, strict=True))
            found[block.area]["local_hit"] += found[block.area]["object_hit"]
        for name, numbers in shared.memory.stats()["areas"].items():
            del numbers["entries"], numbers["bytes"]
            assert numbers == found[name]
        assert (6, 2) == (found["users"]["local_hit"], found["users"]["local_miss"])

    def test_latencies(self, shared: testing.Isolated) -> None:
        """Histograms and their sums."""
        cache = LevelCache("users")
        cache.get(1)
        for seconds in (0.0005, 0.002, 0.02, 0.02, 99.0):
            cache._latency(seconds)
        cache._l2_latency(0.003)
        [block] = tables.blocks(shared.memory).values()
        assert cache._latencies() == list(block.loads)
        assert cache._l2_latencies() == list(block.l2)
        assert (5, 1) == (sum(block.loads[:-1]), sum(block.l2[:-1]))

    def test_read_only(self, tmp_path: Path) -> None:
        """It needs no more than a mapping for reading."""
        name = f"test-{uuid.uuid4().hex[:12]}"
        code = "import accelerator as a; a.LevelCache('users').get(1)"
        environment = {**os.environ, "ACCELERATOR_NAME": name, "ACCELERATOR_SIZE": "4MiB"}
        subprocess.run([sys.executable, "-c", code], check=True, env=environment, cwd=tmp_path)
        try:
            mapped = segment.inspect(segment.own_file(name))
            assert mapped.readonly
            assert ["users"] == [row.name for row in tables.areas(mapped)]
            [block] = tables.blocks(mapped).values()
            assert 1 == block.counters[local.COUNTERS.index("local_miss")]
        finally:
            segment.unlink(name, os.geteuid())
