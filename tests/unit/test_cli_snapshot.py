"""What has happened between two looks, and how numbers are written."""

import os
import subprocess

import cli_world as world
import pytest

from accelerator import LevelCache, local, segment, testing
from accelerator.cli import words
from accelerator.cli.snapshot import Change, latency, reads, take, tiers, usage_of


class TestChange:
    def test_difference(self) -> None:
        """What was counted between, and how much that is a second."""
        before = world.snapshot({"users": world.counted(local_hit=10, set=3)}, at=100.0)
        after = world.snapshot({"users": world.counted(local_hit=50, set=3)}, at=102.0)
        change = Change(before, after)
        assert (40, 0) == (change.area("users")["local_hit"], change.area("users")["set"])
        assert 20.0 == change.rate(change.total()["local_hit"])

    def test_new_area(self) -> None:
        """All that a new area has counted was counted since."""
        after = world.snapshot({"users": world.counted(set=5)}, at=101.0)
        assert 5 == Change(world.snapshot(), after).area("users")["set"]

    def test_first_look(self) -> None:
        """Without an earlier look nothing is known to have happened."""
        after = world.snapshot({"users": world.counted(set=5)}, blocks={0: world.block(1, "users")})
        change = Change(None, after)
        assert (0, None) == (change.area("users")["set"], change.rate(1))
        assert 0 == sum(change.loads())

    def test_another_segment(self) -> None:
        """Counters of a segment that took the place of another one began anew."""
        before = world.snapshot({"users": world.counted(set=50)}, origin=b"one")
        after = world.snapshot({"users": world.counted(set=60)}, origin=b"two", at=101.0)
        change = Change(before, after)
        assert (0, None) == (change.area("users")["set"], change.rate(1))

    def test_worker(self) -> None:
        """Over all areas; an object hit is a hit."""
        before = world.snapshot(blocks={0: world.block(1, "a", local_hit=5)})
        after = world.snapshot(
            blocks={
                0: world.block(1, "a", local_hit=7, object_hit=10),
                1: world.block(1, "b", local_miss=1),
                2: world.block(2, "a", local_hit=99),
            }
        )
        counted = Change(before, after).worker(1)
        assert (12, 10, 1) == tuple(
            counted[name] for name in ("local_hit", "object_hit", "local_miss")
        )

    def test_taken_over(self) -> None:
        """What a dead process counted in a block is not what its next owner did."""
        before = world.snapshot(blocks={0: world.block(1, "a", set=1000)})
        after = world.snapshot(blocks={0: world.block(2, "a", set=1003)})
        assert 3 == Change(before, after).worker(2)["set"]

    def test_loads(self) -> None:
        """Latencies of the time between, of one area and of all."""
        before = world.snapshot(blocks={0: world.block(1, "a", {0: 100})})
        after = world.snapshot(
            blocks={0: world.block(1, "a", {0: 101, 3: 1}), 1: world.block(1, "b", {5: 2})}
        )
        change = Change(before, after)
        assert {0: 1, 3: 1} == {n: it for n, it in enumerate(change.loads("a")) if it}
        assert 4 == sum(change.loads())
        assert local.LATENCY_BOUNDS[5] == latency(0.99, change.loads())

    def test_cpu(self) -> None:
        """Share of a processor; unknown for a process that came in between."""
        before = world.snapshot(at=100.0, workers=[world.worker(1, cpu=5.0)])
        after = world.snapshot(
            at=102.0, workers=[world.worker(1, cpu=6.0), world.worker(2, cpu=1.0)]
        )
        change = Change(before, after)
        assert [0.5, None] == [change.cpu(worker) for worker in after.workers]


class TestTiers:
    def test_shares(self) -> None:
        """Of the keys read, by what answered."""
        found = tiers(world.counted(local_hit=80, object_hit=50, local_miss=20, remote_hit=15))
        assert (0.8, 0.5, 0.3, 0.15) == tuple(pytest.approx(it) for it in found or ())

    def test_nothing_read(self) -> None:
        """No reads, no shares."""
        assert None is tiers(world.counted(set=1))
        assert 0 == reads({})


@pytest.mark.skipif(not (local.NATIVE and segment.AVAILABLE), reason="needs segments")
class TestTake:
    def test_real(self) -> None:
        """Of a real segment, with this very process in it."""
        with testing.isolated(shared=True) as own:
            file = segment.own_file(own.name)
            before = take(file)
            cache = LevelCache("users", loader=lambda key: key)
            cache.mget(range(10))
            after = take(file)
            change = Change(before, after)
            [me] = after.workers
            assert (os.getpid(), own.memory.incarnation) == (me.pid, me.incarnation)
            assert 10 == reads(change.area("users")) == reads(change.worker(me.incarnation))
            assert change.area("users")["load"] == sum(change.loads("users")[:-1])
            assert me.usage is not None
            assert me.usage.memory > 1 << 20

    def test_usage(self) -> None:
        """A stopped process is seen to be; one that is gone is not seen."""
        process = subprocess.Popen(["sleep", "60"])
        try:
            process.send_signal(19)  # SIGSTOP
            os.waitpid(process.pid, os.WUNTRACED)
            usage = usage_of(process.pid)
            assert usage is not None
            assert "T" == usage.state
        finally:
            process.kill()
            process.wait()
        assert None is usage_of(process.pid)


class TestWords:
    @pytest.mark.parametrize(
        ("number", "text"),
        [(None, "-"), (0, "0"), (3, "3"), (3.25, "3.2"), (9.97, "10"), (12345, "12,345"),
         (2_500_000, "2.5M"), (3e9, "3.0G")],
    )  # fmt: skip
    def test_count(self, number: float | None, text: str) -> None:
        """Numbers of any size in few characters."""
        assert text == words.count(number)

    @pytest.mark.parametrize(
        ("number", "text"),
        [(1.0, "100.0%"), (0.9999999, "99.9%"), (0.971, "97.1%"), (0.0, "0.0%"), (None, "-")],
    )
    def test_share(self, number: float | None, text: str) -> None:
        """100% is said of everything only."""
        assert text == words.share(number)

    @pytest.mark.parametrize(
        ("number", "text"),
        [(0.00003, "0.03 ms"), (0.0004, "0.4 ms"), (0.025, "25 ms"), (1.5, "1.5 s"), (30.0, "30 s"),
         (180, "3 min"), (7200, "2 h"), (200_000, "2 d")],
    )  # fmt: skip
    def test_seconds(self, number: float, text: str) -> None:
        """Times in the unit that suits them."""
        assert text == words.seconds(number)

    def test_width(self) -> None:
        """Letters that take two columns are cut where they do not fit."""
        assert 6 == words.width("ab日本")
        assert "ab…" == words.cut("ab日本", 4)
        assert "ab日…" == words.cut("ab日本語", 6)
        assert "?[31m" == words.printable("\x1b[31m")
