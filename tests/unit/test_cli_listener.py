"""``accelerator listener`` and ``accelerator hash``."""

import json
import os
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from areas import bound_area

from accelerator import LevelCache, cli, local, segment, testing

pytestmark = pytest.mark.skipif(
    not (local.NATIVE and segment.AVAILABLE), reason="segments need the native part"
)
BOUND = 2.0


@pytest.fixture
def shared() -> Iterator[testing.Isolated]:
    with testing.isolated(shared=True) as own:
        yield own


class TestListener:
    @pytest.fixture
    def show(
        self, shared: testing.Isolated, capsys: pytest.CaptureFixture[str]
    ) -> Callable[..., str]:
        def show(*arguments: str) -> str:
            assert 0 == cli.main(["listener", "--name", shared.name, *arguments])
            return capsys.readouterr().out

        return show

    def test_without_redis(self, show: Callable[..., str], shared: testing.Isolated) -> None:
        """Where no area has Redis behind it, nobody has to listen."""
        LevelCache("users").set("key", 1)
        assert show().splitlines()[1].startswith("no Redis: ")
        assert {} == json.loads(show("--json"))["areas"]

    def test_well(self, show: Callable[..., str], shared: testing.Isolated) -> None:
        """Who listens, since when, and how current each area is."""
        memory = shared.memory
        bound_area(memory, "users", BOUND)
        term = memory.lead(1.0)
        now = time.monotonic()
        memory.link_confirm(now)
        memory.link_note(local.LINK_CONNECTED)
        memory.link_note(local.LINK_MESSAGE)
        memory.area_extend("users", now + BOUND)
        lines = show().splitlines()
        assert lines[1].startswith(f"listener pid {os.getpid()}, term {term}, beat ")
        assert lines[2].startswith("  connected for ")
        assert ", heard " in lines[2]
        assert lines[3].startswith("redis took a write ")
        assert "breaker closed" in lines[3]
        assert "outbox 0 to be told" == lines[4]
        assert ["users", "yes", "0"] == [lines[7].split()[n] for n in (0, 1, -1)]
        data = json.loads(show("--json"))
        assert (os.getpid(), term, True) == tuple(
            data["listener"][name] for name in ("pid", "term", "alive")
        )
        assert data["areas"]["users"]["in_step"]
        assert 0 < data["areas"]["users"]["in_step_for"] <= BOUND + 0.1

    def test_badly(self, show: Callable[..., str], shared: testing.Isolated) -> None:
        """Everything that is not as it should be."""
        memory = shared.memory
        bound_area(memory, "users", BOUND)
        bound_area(memory, "prices", BOUND)
        term = memory.lead(1.0)
        memory.link_note(local.LINK_LOST, 4.0)
        memory.link_refused()
        memory.outbox_settle(LevelCache("prices")._note("key", local.NOTE_FORGET), False)
        memory.area_extend("users", time.monotonic() - 3.0)
        lines = show().splitlines()
        assert lines[2].startswith("  not connected, tries again in 4 s, nothing heard yet")
        assert "took no write yet" in lines[3]
        assert "refuses writes" in lines[3]
        assert lines[4].startswith("outbox 1 to be told, the oldest for ")
        areas = {line.split()[0]: line for line in lines[6:]}
        assert "no, for 3 s" in areas["users"]
        assert "never" in areas["prices"]
        memory.lead_resign(term)
        assert f"listener none, after term {term}" == show().splitlines()[1]
        assert not json.loads(show("--json"))["listener"]["alive"]


class TestHash:
    @pytest.mark.parametrize(
        ("kind", "text", "key"),
        [
            ("str", "7", "7"),
            ("int", "7", 7),
            ("int", "-3", -3),
            ("bytes", "7", b"7"),
            (
                "uuid",
                "12345678123456781234567812345678",
                uuid.UUID(int=0x12345678 * (2**96 + 2**64 + 2**32 + 1)),
            ),
            ("json", '[1, ["a", null], true]', (1, ("a", None), True)),
            ("json", '"7"', "7"),
        ],
    )
    def test_keys(
        self,
        shared: testing.Isolated,
        capsys: pytest.CaptureFixture[str],
        kind: str,
        text: str,
        key: Any,
    ) -> None:
        """The hash of the very key that the application uses."""
        cache = LevelCache("users")
        cache.set(key, 1)
        words = ["hash", "--name", shared.name, "--type", kind, "users", "--", text]
        assert 0 == cli.main(words)
        assert f"{cache._hash(key):016x}\n" == capsys.readouterr().out

    def test_as_in_flights(
        self, shared: testing.Isolated, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """It is what flights shows."""
        shown: list[str] = []

        def load(key: object) -> object:
            cli.main(["flights", "--json", "--name", shared.name])
            shown.append(json.loads(capsys.readouterr().out)["flights"][0]["hash"])
            return key

        LevelCache("users", loader=load).get(7)
        cli.main(["hash", "--name", shared.name, "users", "7", "--type", "int"])
        assert [capsys.readouterr().out.strip()] == shown

    def test_makes_no_area(
        self, shared: testing.Isolated, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """An area that is none: what there is, and status 1; none is made by asking."""
        LevelCache("users").set(1, 1)
        assert 1 == cli.main(["hash", "--name", shared.name, "user", "7"])
        assert f"no area user in {shared.name}; there are: users" in capsys.readouterr().err
        assert ["users"] == list(shared.memory.stats()["areas"])

    @pytest.mark.parametrize(
        ("kind", "text"),
        [("int", "x"), ("uuid", "x"), ("json", "{"), ("json", '{"a": 1}'), ("json", "1.5"),
         ("str", "x" * 600)],
    )  # fmt: skip
    def test_wrong(
        self,
        shared: testing.Isolated,
        capsys: pytest.CaptureFixture[str],
        kind: str,
        text: str,
    ) -> None:
        """What can be no key is status 2, and is not repeated."""
        LevelCache("users").set(1, 1)
        assert 2 == cli.main(["hash", "--name", shared.name, "users", text, "--type", kind])
        error = capsys.readouterr().err
        assert "KEY" in error
        assert "Traceback" not in error
        assert text not in error or len(text) == 1
