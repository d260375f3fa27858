"""``accelerator set`` and ``accelerator flush``: what they print, refuse and ask; exit status."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from accelerator import LevelCache, cli, local, segment, testing

pytestmark = pytest.mark.skipif(
    not (local.NATIVE and segment.AVAILABLE), reason="segments need the native part"
)

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def shop() -> Iterator[str]:
    """A segment with an area."""
    with testing.isolated(shared=True) as own:
        LevelCache("users").set("key", 1)
        yield own.name


def run(name: str, *words: str) -> int:
    return cli.main([*words, "--name", name])


class TestSet:
    def test_shown(self, shop: str, capsys: Capture) -> None:
        """What is in force, for people and programs."""
        assert 0 == run(shop, "set", "--area", "users", "--for", "10m", "--yes", "mode=off")
        assert 0 == run(shop, "set", "--yes", "ttl=90s")
        assert "in force: 1 process acts on it" in capsys.readouterr().out
        assert 0 == run(shop, "set")
        head, count, *rows = capsys.readouterr().out.splitlines()
        assert head.startswith(f"segment {shop}")
        assert ["overrides 2", "area", "(all)", "users"] == [count, *(it.split()[0] for it in rows)]
        assert "(all) ttl 90s until it is removed" == " ".join(rows[1].split())
        assert 0 == run(shop, "set", "--json")
        first, second = json.loads(capsys.readouterr().out)["overrides"]
        assert {"area": "", "option": "ttl", "value": 90.0, "left": None} == first
        assert ("users", "mode", "off") == (second["area"], second["option"], second["value"])
        assert 590 < second["left"] <= 601  # whole seconds, rounded up

    def test_reset(self, shop: str, capsys: Capture) -> None:
        """Of one area, or all that there are; nothing is nothing."""
        for more in ([], ["--area", "users"]):
            assert 0 == run(shop, "set", *more, "--yes", "max_loads=2", "ttl=3")
        assert 0 == run(shop, "set", "--area", "users", "--yes", "ttl=default")
        assert 0 == run(shop, "set", "--area", "users", "--reset", "--yes")
        capsys.readouterr()
        assert 0 == run(shop, "set", "--json")
        assert 2 == len(json.loads(capsys.readouterr().out)["overrides"])
        assert 0 == run(shop, "set", "--reset", "--yes")
        assert 0 == run(shop, "set", "--reset", "--yes")
        assert "there is nothing to be removed" in capsys.readouterr().out

    def test_cost(self, shop: str, capsys: Capture) -> None:
        """Whatever is set, it says what that does."""
        for option, values in {
            "mode": ("local", "off"),
            "loader_timeout": ("5s",),
            "max_loads": ("1",),
            "ttl": ("1h",),
            "allow_stale": ("yes", "no"),
            "penetration_protect": ("yes", "no"),
            "on_desync": ("cap", "bypass", "serve"),
            "breaker": ("open", "closed"),
        }.items():
            for value in values:
                assert 0 == run(shop, "set", "--yes", f"{option}={value}")
                _, line, cost, _ = capsys.readouterr().out.splitlines()
                assert f"  all areas: {option}={value}" == line
                assert re.match(r"    \w.{10}", cost)

    @pytest.mark.parametrize(
        ("words", "status", "why"),
        [
            (["ttl"], 2, "is no OPTION=VALUE"),
            (["tll=5"], 2, "there is no option 'tll'"),
            (["tll=default"], 2, "there is no option 'tll'"),
            (["ttl=never"], 2, "ttl is no duration"),
            (["ttl=1", "ttl=2"], 2, "an option is given twice"),
            (["--reset", "ttl=1"], 2, "--reset removes all"),
            (["--for", "5s", "ttl=default"], 2, "--for has no effect"),
            (["--area", "users", "breaker=open"], 2, "leave --area out"),
            (["--area", "users", "mode=both"], 2, "area users does not use it"),
            (["mode=remote"], 2, "no area uses it"),
            (["--area", "nobody", "ttl=1"], 1, "there are: users"),
        ],
    )
    def test_refused(
        self, shop: str, capsys: Capture, words: list[str], status: int, why: str
    ) -> None:
        """What cannot be meant is refused before anything is done."""
        assert status == run(shop, "set", "--yes", *words)
        assert why in capsys.readouterr().err
        assert 0 == run(shop, "set")
        assert "overrides 0" in capsys.readouterr().out

    def test_order(self, shop: str, capsys: Capture) -> None:
        """Options may stand on both sides of what begins with a dash."""
        assert 0 == run(shop, "set", "ttl=1m", "--yes", "max_loads=3")
        shown = capsys.readouterr().out
        assert "ttl=1m" in shown
        assert "max_loads=3" in shown
        with pytest.raises(SystemExit):
            run(shop, "set", "ttl=1m", "--nonsense", "max_loads=3")
        assert "accelerator set: error: unrecognized" in capsys.readouterr().err

    @pytest.mark.parametrize("limit", ["0", "0.5s", "91d", "soon"])
    def test_limit(self, shop: str, capsys: Capture, limit: str) -> None:
        """A time limit that is none."""
        with pytest.raises(SystemExit) as raised:
            run(shop, "set", "--yes", "--for", limit, "ttl=1")
        assert 2 == raised.value.code
        assert "--for" in capsys.readouterr().err

    def test_noted(self, shop: str, capsys: Capture) -> None:
        """Who has done it stands in the ring of events."""
        assert 0 == run(shop, "set", "--area", "users", "--yes", "ttl=5s")
        assert 0 == run(shop, "flush", "--area", "users", "--yes")
        noted = segment.inspect(segment.own_file(shop)).events()
        done = {each["op"]: each for each in noted if each["op"] in {"override", "flush"}}
        assert {"override", "flush"} == set(done)
        for each in done.values():
            assert ("users", "ok") == (each["area"], each["result"])
            assert each["error_kind"].startswith("by ")

    def test_overtaken(self, shop: str, capsys: Capture, monkeypatch: Any) -> None:
        """If somebody else is faster it does not say that it is in force."""
        from accelerator.cli import set_

        carry_out = set_._carry_out

        def overtaken(memory: Any, orders: Any, limit: Any) -> None:
            carry_out(memory, orders, limit)
            memory.override("", local.OVERRIDES.index("max_loads"), 9)

        monkeypatch.setattr(set_, "_carry_out", overtaken)
        assert 1 == run(shop, "set", "--yes", "max_loads=2")
        assert "max_loads is another by now" in capsys.readouterr().out


class TestFlush:
    def test_no_redis(self, shop: str, capsys: Capture) -> None:
        """This host is all there is; nobody owes anything."""
        assert 0 == run(shop, "flush", "--area", "users", "--yes")
        said = capsys.readouterr().out
        assert "does not use Redis" in said
        assert "this host: done" == said.splitlines()[-1]
        assert LevelCache("users").get("key") is None
        assert [] == segment.inspect(segment.own_file(shop)).outbox_owed()

    def test_unknown(self, shop: str, capsys: Capture) -> None:
        """An area that there is not."""
        assert 1 == run(shop, "flush", "--area", "orders", "--yes")
        assert "there are: users" in capsys.readouterr().err


class TestAsking:
    @pytest.mark.parametrize(
        "words", [["flush", "--area", "users"], ["set", "--area", "users", "mode=off"]]
    )
    def test_nobody(self, shop: str, capsys: Capture, monkeypatch: Any, words: list[str]) -> None:
        """Without a terminal, and without --yes, nothing is done."""
        with Path(os.devnull).open(encoding="ascii") as nothing:
            monkeypatch.setattr(sys, "stdin", nothing)
            assert 2 == run(shop, *words)
        assert "give --yes" in capsys.readouterr().err
        assert 1 == LevelCache("users").get("key")

    @pytest.mark.parametrize(
        ("answer", "status"), [("y\n", 0), ("YES\n", 0), ("n\n", 1), ("\n", 1), ("\x04", 1)]
    )
    def test_terminal(self, shop: str, answer: str, status: int) -> None:
        """On a terminal it says what it will do, and asks."""
        ours, theirs = pty.openpty()
        line = [sys.executable, "-m", "accelerator", "flush", "--area", "users", "--name", shop]
        with subprocess.Popen(
            line, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as running:
            os.close(theirs)
            os.write(ours, answer.encode())
            said, _ = running.communicate(timeout=60)
        os.close(ours)
        assert status == running.returncode, said
        assert "do it? [y/N]" in said
        assert ("nothing was done" in said) is (status == 1)
        assert LevelCache("users").get("key") == (1 if status else None)


class TestKilled:
    @pytest.mark.parametrize("after", [0, 1, 2])
    def test_set(self, shop: str, after: int) -> None:
        """Killed between two of its stores, each option is set or is not; it can be repeated."""
        pid = os.fork()
        if pid == 0:
            set_and_die(shop, after)
        _, status = os.waitpid(pid, 0)
        assert signal.SIGKILL == os.WTERMSIG(status)
        memory = segment.inspect(segment.own_file(shop))
        assert after == len(memory.overrides())
        assert [] == memory.check()
        assert 0 == run(shop, "set", "--yes", "ttl=5s", "max_loads=2")
        assert 2 == len(memory.overrides())


def set_and_die(name: str, after: int) -> None:
    """Run the command, and kill it behind so many stores."""
    from accelerator.cli import set_

    class Dying:
        def __init__(self, memory: Any) -> None:
            self._memory = memory
            self._left = after

        def override(self, *given: Any) -> None:
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            self._left -= 1
            self._memory.override(*given)

        def event(self, *_: Any) -> None:
            os.kill(os.getpid(), signal.SIGKILL)

    carry_out = set_._carry_out
    set_._carry_out = lambda memory, *rest: carry_out(Dying(memory), *rest)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    try:
        run(name, "set", "--yes", "ttl=5s", "max_loads=2")
    finally:
        os._exit(1)
