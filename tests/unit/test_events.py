"""Events: how one has ended, their sums, what failed last, and how the command shows them."""

import argparse
import json
import re
import time
from typing import Any

import pytest

from accelerator import cli, local, segment, testing
from accelerator.cli import events as command
from accelerator.observability import events, oplog


def event(number: int = 1, **other: Any) -> dict[str, Any]:
    """One event, as a segment gives it."""
    made: dict[str, Any] = {
        "number": number,
        "time": time.time(),
        "pid": 70,
        "incarnation": 1,
        "alive": True,
        "area": "users",
        "op": "load",
        "result": "ok",
        "error_kind": "none",
        "latency_ms": 1.5,
        "hash": 0xABC,
        "count": 1,
        "running": False,
    }
    return {**made, **other}


def running(number: int = 1, **other: Any) -> dict[str, Any]:
    """One that has not ended."""
    blank = {"result": "", "error_kind": "", "latency_ms": None, "running": True}
    return event(number, **{**blank, **other})


class TestOutcome:
    @pytest.mark.parametrize(
        ("one", "outcome", "is_failure"),
        [
            (event(), "ok", False),
            (event(result="error", error_kind="loader"), "error", True),
            (event(result="late", error_kind="timeout"), "late", True),
            (event(result="queued", error_kind="backend"), "queued", True),
            (event(alive=False), "ok", False),
            (event(op="flush", error_kind="by ann"), "ok", False),  # who has given the command
            (running(), "running", False),
            (running(alive=False), "killed", True),
        ],
    )
    def test_each(self, one: Any, outcome: str, is_failure: bool) -> None:
        """Of one that has ended what it says; else whether its process lives."""
        assert outcome == events.outcome(one)
        assert is_failure == events.is_failure(one)


class TestAggregate:
    def test_nothing(self) -> None:
        """Of no events no sums."""
        assert [] == events.aggregate([])

    def test_sums(self) -> None:
        """By area, op, result and kind; what happened last comes first."""
        sums = events.aggregate(
            [
                event(time=5.0),
                event(time=4.0, count=7, op="get", result="error", error_kind="loader"),
                event(time=9.0, count=2, pid=71),
                running(time=8.0),
                running(time=7.0, alive=False),
                event(time=1.0, area="other"),
            ]
        )
        assert [
            ("users", "load", "ok", "none", 3, 9.0),
            ("users", "load", "running", "none", 1, 8.0),
            ("users", "load", "killed", "none", 1, 7.0),
            ("users", "get", "error", "loader", 7, 4.0),
            ("other", "load", "ok", "none", 1, 1.0),
        ] == [tuple(each.values()) for each in sums]


class TestLastError:
    def test_newest(self) -> None:
        """The newest failed call of the second level, whatever else failed since."""
        failed = {"result": "error", "error_kind": "timeout", "area": "users"}
        found = events.last_error(
            [
                event(3, op="get", result="error", error_kind="backend"),
                event(2, op="l2_fill", time=time.time() - 30, **failed),
                event(1, op="l2_get", time=time.time() - 60, **failed),
            ]
        )
        assert found is not None
        assert 29 < found.pop("age") < 40  # type: ignore[misc]
        assert {"area": "users", "operation": "fill", "reason": "timeout"} == found

    def test_none(self) -> None:
        """There is none."""
        assert events.last_error([event(), event(op="get", error_kind="backend")]) is None


class TestBreaker:
    @pytest.mark.parametrize(
        ("told", "expected"), [([], False), (["opened", "closed"], True), (["closed"], False)]
    )
    def test_last(self, told: list[str], expected: bool) -> None:
        """What was told last counts."""
        found = [event(), *(event(op="breaker", result=each) for each in told)]
        assert expected == events.breaker_was_open(found)


class Ring:
    """A memory that has these events."""

    def __init__(self, *found: Any, origin: bytes = b"one") -> None:
        self.origin = origin
        self.found = list(found)

    def events(self, limit: int) -> list[Any]:
        return self.found[:limit]


class TestFollowing:
    def numbers(self, found: Any) -> list[int]:
        return [each["number"] for each in found]

    def test_each_once(self) -> None:
        """Each event is new once, and once more when it has ended, however it has."""
        ring = Ring(running(2), event(1))
        following = command.Following()
        assert [2, 1] == self.numbers(following.new(ring))
        assert [] == self.numbers(following.new(ring))
        ring.found = [event(3), event(2), event(1)]
        assert [3, 2] == self.numbers(following.new(ring))
        ring.found = [running(4, alive=False), event(3)]
        assert [4] == self.numbers(following.new(ring))

    def test_seen_late(self) -> None:
        """One that was half written at the last look is new, though its number is not."""
        ring = Ring(event(3), event(1))
        following = command.Following()
        following.new(ring)
        ring.found = [event(3), event(2), event(1)]
        assert [2] == self.numbers(following.new(ring))

    def test_another_segment(self) -> None:
        """Of another segment everything is new."""
        following = command.Following()
        following.new(Ring(event(1)))
        assert [1] == self.numbers(following.new(Ring(event(1), origin=b"two")))


class TestLine:
    def test_cells(self) -> None:
        """Time, process, area, operation, result, kind, how long, how many, hash."""
        text = command.line(event(op="get", result="error", error_kind="timeout", count=1234))
        assert ["70", "users", "get", "error", "timeout", "1.5", "ms", "1,234"] == text.split()[1:9]
        assert text.endswith(f"{0xABC:016x}")

    def test_columns(self) -> None:
        """They stand below their titles."""
        text = command.line(event())
        assert text.index("users") == command.HEAD.index("area")
        assert text.index(f"{0xABC:016x}") == command.HEAD.index("key hash")

    def test_dead(self) -> None:
        """One that its process's death has cut off says so."""
        assert "cut off by death  -  " in command.line(running(alive=False))

    def test_running(self) -> None:
        """One that runs says for how long it has."""
        text = command.line(running(time=time.time() - 30.0))
        assert re.search(r" running +- +3\d s\+ ", text)

    def test_older(self) -> None:
        """One of another day has its date."""
        assert command.line(event(time=0.0)).strip().startswith(("1970-01-01", "1969-12-31"))

    def test_letters(self) -> None:
        """What was stored steers no terminal."""
        assert "\x1b" not in command.line(event(area="\x1b[31m", op="\x1b", error_kind="\x07"))


class TestLimit:
    @pytest.mark.parametrize("text", ["0", "-1", "8193", "many", "1.5"])
    def test_wrong(self, text: str) -> None:
        """A number of events that cannot be."""
        with pytest.raises(argparse.ArgumentTypeError):
            command.limit_option(text)


needs_segment = pytest.mark.skipif(
    not (local.NATIVE and segment.AVAILABLE), reason="segments need the native part"
)


@needs_segment
class TestCommand:
    @pytest.fixture
    def name(self) -> Any:
        with testing.isolated(shared=True) as own:
            now = oplog.started()
            yield own.name, now

    def shown(self, capsys: Any, name: Any, *arguments: str) -> str:
        capsys.readouterr()
        assert 0 == cli.main(["events", "--name", name[0], *arguments])
        text: str = capsys.readouterr().out
        return text

    def test_empty(self, name: Any, capsys: Any) -> None:
        """No events: that is said."""
        assert "events 0" == self.shown(capsys, name).splitlines()[1]
        assert [] == json.loads(self.shown(capsys, name, "--json"))["events"]
        assert "kinds of events 0" == self.shown(capsys, name, "--summary").splitlines()[1]

    def test_order(self, name: Any, capsys: Any) -> None:
        """The newest N, the newest last."""
        for number in range(5):
            oplog.recorded("", f"op{number}", "ok", name[1])
        text = self.shown(capsys, name, "--limit", "3")
        assert ["op2", "op3", "op4"] == [line.split()[3] for line in text.splitlines()[3:]]
        data = json.loads(self.shown(capsys, name, "--json", "--limit", "2"))["events"]
        assert ["op3", "op4"] == [each["op"] for each in data]
        assert [None, "ok"] == [data[0]["hash"], data[0]["outcome"]]

    def test_chosen(self, name: Any, capsys: Any) -> None:
        """By process, operation, area, and only what failed."""
        oplog.recorded("", "attach", "ok", name[1])
        oplog.failed("", "get", "loader", name[1])
        oplog.failed("", "set", "backend", name[1])

        def ops(*arguments: str) -> list[str]:
            data = json.loads(self.shown(capsys, name, "--json", *arguments))
            return [each["op"] for each in data["events"]]

        assert ["attach", "get", "set"] == ops()
        assert ["get", "set"] == ops("--failed")
        assert ["get"] == ops("--op", "get")
        assert [] == ops("--pid", "1")
        assert ["attach", "get", "set"] == ops("--area", "")

    def test_unknown_area(self, name: Any, capsys: Any) -> None:
        """An area that is none is said to be none: no events would look as if all were well."""
        assert 1 == cli.main(["events", "--name", name[0], "--area", "users"])
        assert "there is no area users" in capsys.readouterr().err

    def test_summary(self, name: Any, capsys: Any) -> None:
        """Sums, of what was chosen."""
        for _ in range(3):
            oplog.recorded("", "del", "found", name[1], 0, 2)
        oplog.failed("", "get", "loader", name[1])
        text = self.shown(capsys, name, "--summary").splitlines()
        assert ["(host)", "get", "error", "loader", "1"] == text[3].split()[:5]
        assert ["(host)", "del", "found", "-", "6"] == text[4].split()[:5]
        data = json.loads(self.shown(capsys, name, "--summary", "--json", "--op", "del"))
        assert [6] == [each["count"] for each in data["summary"]]

    def test_both(self, name: Any, capsys: Any) -> None:
        """Sums of what is still to come are none."""
        assert 2 == cli.main(["events", "--name", name[0], "--summary", "--follow"])
        assert "--follow" in capsys.readouterr().err
