"""Frames of ``accelerator top``, as text."""

import re

import cli_world as world
import pytest
from hypothesis import given
from hypothesis import strategies as st

from accelerator.cli import frame, words
from accelerator.cli.frame import Style, View, render
from accelerator.cli.snapshot import Change

FLIGHT = {
    "area": "users",
    "hash": 0xABCDEF,
    "pid": 10,
    "incarnation": 1,
    "alive": True,
    "age": 1.25,
    "lease_left": 28.5,
    "waiters": 3,
    "alone": False,
    "lock": False,
    "overtaken": False,
}


def busy(areas: int = 3, workers: int = 2, **more: object) -> Change:
    """Two seconds of a busy host."""
    names = ["users", "prices", "pages", *(f"area-{n}" for n in range(areas))][:areas]
    before = world.snapshot(
        {name: world.counted() for name in names},
        at=100.0,
        workers=[world.worker(n + 1) for n in range(workers)],
    )
    after = world.snapshot(
        {
            name: world.counted(
                local_hit=900 - 100 * n,
                object_hit=600 - 100 * n if n < 6 else 0,
                local_miss=100,
                load=10 * n,
                evictions=2 * n,
                entries=100,
                bytes=(n + 1) << 20,
            )
            if n < 9
            else world.counted()
            for n, name in enumerate(names)
        },
        at=102.0,
        workers=[world.worker(n + 1, cpu=0.5 * n) for n in range(workers)],
        blocks={
            n: world.block(n + 1, names[0], {2: 5}, local_hit=100 * (n + 1), local_miss=10)
            for n in range(workers)
        },
        **more,
    )
    return Change(before, after)


WIDE = View(columns=140)


def texts(change: Change, view: View = WIDE) -> list[str]:
    return [line.text for line in render(change, view)]


def cells(lines: list[str], first: str) -> list[str]:
    [found] = [line for line in lines if line.startswith(first)]
    return re.split(r"\s{2,}", found.strip())


class TestHead:
    def test_numbers(self) -> None:
        """Rates are by the second, shares of what was read."""
        lines = texts(busy(areas=1))
        assert "memory  45.0 MiB of 60.0 MiB live (75.0%), 12,345 entries" in lines[1]
        assert "reads   500/s, 90.0% hits (60.0% objects, 30.0% segment), sets 0/s" in lines[2]
        assert "loads   0/s, p50 <= 5 ms, p99 <= 5 ms" == lines[3]

    def test_without_redis(self) -> None:
        """Where nobody listens Redis is not spoken of."""
        assert not [line for line in texts(busy()) if "edis" in line]

    def test_redis(self) -> None:
        """The link and the listener."""
        lines = texts(busy(leader=world.LEADER, rows=[world.row("users")]))
        assert "redis   took a write 0.2 s ago, breaker closed, outbox 0" in lines
        assert "        listener pid 70, term 3, connected for 12 s, 1 reconnects" in lines

    @pytest.mark.parametrize(
        ("link", "said"),
        [
            ({"breaker": "open"}, "breaker open"),
            ({"refused": True}, "refuses writes now"),
            ({"outbox_depth": 4}, "outbox 4"),
            ({"connected_since": None, "next_retry_in": 1.5}, "connects in 1.5 s"),
        ],
    )
    def test_bad_link(self, link: dict[str, object], said: str) -> None:
        """What is not as it should be stands out."""
        lines = render(busy(leader=world.LEADER, link=link), View(columns=140))
        assert [Style.BAD] == [line.style for line in lines if said in line.text]

    def test_failing_loads(self) -> None:
        """A loader that fails stands out, too."""
        after = world.snapshot({"users": world.counted(load=4, load_error=2)}, at=101.0)
        lines = render(Change(world.snapshot(), after), View())
        [loads] = [line for line in lines if line.text.startswith("loads")]
        assert ("loads   4/s, failed 2/s", Style.BAD) == loads

    def test_overrides(self) -> None:
        """What an operator has set stands above all that it changes."""
        set_ = [
            {"area": "", "option": "mode", "value": "local", "text": "local", "left": None},
            {"area": "us\x1b[0mers", "option": "ttl", "value": 5.0, "text": "5s", "left": 59.6},
        ]
        lines = render(busy(overrides=set_, acting=(2, 2)), WIDE)
        said = "set     mode=local on all areas until reset, ttl=5s on us?[0mers for 60 s"
        assert (said, Style.BAD) == lines[1]
        lines = render(busy(overrides=set_, acting=(1, 2)), WIDE)
        assert lines[1].text.endswith("only 1 of 2 processes act on it")
        assert not [line for line in texts(busy()) if line.startswith("set ")]

    def test_harm(self) -> None:
        """Damage comes first."""
        lines = texts(busy(numbers={"resets": 2}))
        assert lines[1].startswith("memory  2 rings dropped")

    def test_first_look(self) -> None:
        """Before the second look there are no rates, and nothing pretends to be one."""
        change = Change(None, busy().after)
        assert "reads   -/s, sets -/s, deletes -/s" in texts(change)
        assert "-" == cells(texts(change), "users")[1]


class TestAreas:
    def test_row(self) -> None:
        """Each column is what it says."""
        lines = texts(busy())
        head = cells(lines, "area")
        found = dict(zip(head, cells(lines, "prices"), strict=True))
        assert {
            "area": "prices",
            "reads/s": "450",
            "hits": "88.9%",
            "objects": "55.6%",
            "loads/s": "5",
            "evicted/s": "1",
            "entries": "100",
            "memory": "2.0 MiB",
        }.items() <= found.items()

    @pytest.mark.parametrize(
        ("key", "first"),
        [("r", "users"), ("h", "pages"), ("l", "pages"), ("e", "pages"), ("m", "pages"),
         ("n", "pages"), ("p", "users")],
    )  # fmt: skip
    def test_sorted(self, key: str, first: str) -> None:
        """By what was asked for."""
        lines = texts(busy(), View(columns=140, sort=key))
        at = next(n for n, line in enumerate(lines) if line.startswith("area"))
        assert lines[at + 1].startswith(first)

    @pytest.mark.parametrize(
        ("left", "said"), [(1.5, "yes"), (-3.0, "no, for 3 s"), (None, "never")]
    )
    def test_in_step(self, left: float | None, said: str) -> None:
        """Whether the segment may be believed."""
        lines = texts(busy(leader=world.LEADER, rows=[world.row("users", left)]))
        assert said == cells(lines, "users")[-1]
        assert "-" == cells(lines, "prices")[-1]

    def test_no_area(self) -> None:
        """A segment that nobody has used."""
        assert "(no area yet)" in " ".join(texts(Change(None, world.snapshot())))

    def test_hostile_name(self) -> None:
        """A name cannot steer the terminal."""
        name = "\x1b[2J\nevil"
        after = world.snapshot({name: world.counted()}, flights=[{**FLIGHT, "area": name}])
        shown = "".join(texts(Change(None, after)))
        assert "\x1b" not in shown
        assert "\n" not in shown


class TestWorkers:
    def test_row(self) -> None:
        """What each process has done, what it takes, and what it is at."""
        change = busy(
            flights=[FLIGHT, {**FLIGHT, "lock": True}], leader={**world.LEADER, "incarnation": 1}
        )
        lines = texts(change)
        first = dict(zip(cells(lines, "process"), cells(lines, "10 "), strict=False))
        assert ("55", "90.9%", "1") == (first["reads/s"], first["hits"], first["loading"])
        assert cells(lines, "10 ")[-1] == "listens"
        second = dict(zip(cells(lines, "process"), cells(lines, "20 "), strict=False))
        assert ("105", "25.0%", "25.0 MiB") == (
            second["reads/s"],
            second["processor"],
            second["memory"],
        )

    def test_stopped(self) -> None:
        """A stopped one is seen at a glance."""
        after = world.snapshot(workers=[world.worker(1, state="T")])
        assert "stopped" == cells(texts(Change(None, after)), "10 ")[-1]

    def test_other_namespace(self) -> None:
        """In another PID namespace it has another number here, or none."""
        workers = [world.worker(1, here=4711), world.worker(2, here=0)]
        lines = texts(Change(None, world.snapshot(workers=workers)))
        assert ["here 4711", "elsewhere"] == [cells(lines, pid)[-1] for pid in ("10 ", "20 ")]


class TestFlights:
    def test_row(self) -> None:
        """As accelerator flights shows them."""
        lines = texts(busy(flights=[FLIGHT]))
        at = next(n for n, line in enumerate(lines) if "key hash" in line)
        assert ["users", "0000000000abcdef", "10", "yes", "1.2 s", "28.5 s", "3"] == lines[
            at + 1
        ].split("  ")[:1] + re.split(r"\s{2,}", lines[at + 1])[1:]

    def test_none(self) -> None:
        """Where nothing is loaded there is no table of it."""
        assert not [line for line in texts(busy()) if "key hash" in line]


class TestRoom:
    @given(
        columns=st.integers(1, 200),
        lines=st.integers(1, 60),
        areas=st.integers(1, 40),
        workers=st.integers(0, 70),
        sort=st.sampled_from(sorted(frame.SORTS)),
        keys=st.booleans(),
        notice=st.sampled_from(["", "the segment is gone"]),
    )
    def test_never_larger(
        self,
        columns: int,
        lines: int,
        areas: int,
        workers: int,
        sort: str,
        keys: bool,
        notice: str,
    ) -> None:
        """Whatever the terminal's size, no line is wider, and there are exactly as many."""
        view = View(columns, lines, sort, keys, notice)
        change = busy(areas, workers, flights=[FLIGHT] * 4, leader=world.LEADER)
        shown = render(change, view)
        assert lines == len(shown) or (lines < 2 and len(shown) <= 1)
        assert all(words.width(line.text) <= columns for line in shown)

    def test_says_what_is_missing(self) -> None:
        """Rows that do not fit are counted."""
        lines = texts(busy(areas=30, workers=2), View(columns=140, lines=24))
        at = next(n for n, line in enumerate(lines) if line.startswith("area"))
        rows = [line for line in lines[at + 1 :] if line][:30]
        shown = sum(line.startswith(("users", "prices", "pages", "area-")) for line in rows)
        [more] = [line for line in lines if line.startswith("... ")]
        assert f"... {30 - shown} more" == more
        assert cells(lines, "10 ")

    def test_low(self) -> None:
        """Where lines are few the head has one for each subject, and is not cut in two."""
        more = [line for line in texts(busy(areas=1), View(60, 40)) if line.startswith("     ")]
        assert more
        low = texts(busy(areas=1), View(60, 12))
        assert [] == [line for line in low if line.startswith("     ")]
        assert "reads   500/s, 90.0% hits (60.0% objects, 30.0% segment)" == low[2]

    def test_narrow(self) -> None:
        """On 80 columns the less important columns go, none is cut in two."""
        lines = texts(busy(leader=world.LEADER, rows=[world.row("users")]), View(80, 24))
        head = cells(lines, "area")
        assert {"reads/s", "hits", "p99 <=", "memory", "in step"} <= set(head)
        assert len(head) == len(cells(lines, "users"))

    def test_footer(self) -> None:
        """The keys, if there is somebody to press them; a notice counts more."""
        assert "q quits" in texts(busy(), View(100, 24, keys=True))[-1]
        assert "q quits" in texts(busy(), View(60, 24, keys=True))[-1]
        assert "gone" == texts(busy(), View(100, 24, keys=True, notice="gone"))[-1]


class TestKeys:
    KEYS = [  # noqa: RUF012
        {"area": f"area\x07{n}", "hash": f"{n:016x}", "rate": 9000.0 / (n + 1), "share": share}
        for n, share in enumerate((0.5, 0.25, None, 0.01, 0.001, 0.001, 0.001))
    ]

    def test_shown(self) -> None:
        """The five hottest, by their hashes."""
        lines = texts(busy(keys=self.KEYS))
        assert ["hottest keys", "key hash", "reads/s", "of all"] == cells(lines, "hottest keys")
        assert ["area?0", f"{0:016x}", "9,000", "50.0%"] == cells(lines, "area?0")
        assert ["area?2", f"{2:016x}", "3,000", "-"] == cells(lines, "area?2")
        assert not [line for line in lines if line.startswith("area?5")]

    def test_none(self) -> None:
        """Without any there is no table."""
        assert not [line for line in texts(busy()) if "hottest" in line]
