"""The command ``accelerator``: what it prints, what it refuses, its exit status."""

import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

import accelerator
from accelerator import LevelCache, cli, local, overrides, runtime, segment, testing
from accelerator.cli import stats
from accelerator.observability import diagnostics

pytestmark = pytest.mark.skipif(
    not (local.NATIVE and segment.AVAILABLE), reason="segments need the native part"
)


@pytest.fixture
def shared() -> Iterator[testing.Isolated]:
    with testing.isolated(shared=True) as own:
        yield own


@pytest.fixture
def dead(tmp_path: Path) -> Iterator[str]:
    """A segment that a process has left behind."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    code = "import accelerator as a; a.LevelCache('area').set('key', 1)"
    environment = {**os.environ, "ACCELERATOR_NAME": name}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, cwd=tmp_path)
    yield name
    segment.own_file(name).path.unlink(missing_ok=True)


def make_old(name: str) -> None:
    long_ago = time.time() - 2 * segment.DEAD_AFTER
    os.utime(segment.own_file(name).path, (long_ago, long_ago))


class TestFlights:
    def test_people(self, shared: testing.Isolated, capsys: pytest.CaptureFixture[str]) -> None:
        """Who loads, for how long, and who waits; keys as hashes."""
        shown: list[str] = []

        def load(key: object) -> object:
            assert 0 == cli.main(["flights", "--name", shared.name])
            shown.append(capsys.readouterr().out)
            assert 0 == cli.main(["flights", "--json", "--name", shared.name])
            shown.append(capsys.readouterr().out)
            return key

        LevelCache("users", loader=load).get("the-key")
        lines = shown[0].splitlines()
        assert ["flights 1", "area"] == [lines[1], lines[2].split()[0]]
        assert ["users", str(os.getpid()), "yes"] == lines[3].split()[:1] + lines[3].split()[2:4]
        assert "the-key" not in "".join(shown)
        (flight,) = json.loads(shown[1])["flights"]
        assert ("users", 0, lines[3].split()[1]) == (
            flight["area"],
            flight["waiters"],
            flight["hash"],
        )
        assert 0 == cli.main(["flights", "--name", shared.name])
        assert "flights 0" == capsys.readouterr().out.splitlines()[1]


def redis_lines(shown: str) -> list[str]:
    """The lines about Redis."""
    lines = shown.splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("redis "))
    return lines[first : first + 2]


class TestStats:
    def test_people(self, shared: testing.Isolated, capsys: pytest.CaptureFixture[str]) -> None:
        """Segment, processes, areas, in columns that line up."""
        cache = LevelCache("users")
        cache.mset({n: n for n in range(10)})
        cache.mget(range(15))
        LevelCache("a-very-long-name-of-an-area").get("x")
        assert 0 == cli.main(["stats", "--name", shared.name])
        lines = capsys.readouterr().out.splitlines()
        assert lines[0].startswith(f"segment {shared.name}  /dev/shm/accelerator.")
        assert "4.0 MiB" in lines[1]
        assert "10 entries" in lines[2]
        assert "processes 1" == lines[3]
        assert f"  pid {os.getpid()}, attached" in lines[4]
        assert "areas 2" == lines[5]
        assert ["area", "hit", "ratio", "hits", "misses"] == lines[6].split()[:5]
        assert ["users", "66.7%", "10", "5", "10"] == lines[8].split()[:5]
        assert len(lines[6]) == len(lines[7]) == len(lines[8])

    def test_json(self, shared: testing.Isolated, capsys: pytest.CaptureFixture[str]) -> None:
        """The same for programs."""
        LevelCache("users").set("key", 1)
        assert 0 == cli.main(["stats", "--json", "--name", shared.name])
        shown = json.loads(capsys.readouterr().out)
        assert str(segment.own_file(shared.name).path) == shown["path"]
        assert 1 == shown["areas"]["users"]["set"]
        assert shared.memory.size == shown["segment"]["size"]

    def test_config(self, shared: testing.Isolated, capsys: pytest.CaptureFixture[str]) -> None:
        """How areas are configured, overrides included, and what their loads took."""
        users = LevelCache("users", loader=lambda key: key, loader_timeout=3, stale_ttl=60)
        users.get(1)
        number = overrides.OPTIONS.index("max_loads")
        shared.memory.override("users", number, 2, 60.0)
        users.get(2)
        assert 0 == cli.main(["stats", "--config", "--name", shared.name])
        lines = capsys.readouterr().out.splitlines()
        assert "area users" == lines[0]
        assert lines[1].startswith("  values  mode local, local_ttl 60 s, remote_ttl 5 min,")
        text = " ".join(" ".join(lines).split())
        assert "loader yes, loader_timeout 3 s, its loads p50 <= " in text
        assert "max_loads 2, penetration_protect yes" in text
        assert "stale_ttl 60 s, max_staleness none, on_desync cap" in text
        assert max(map(len, lines)) <= 100
        assert 0 == cli.main(["stats", "--name", shared.name])
        assert "  max_loads=2 on users for " in capsys.readouterr().out
        assert 0 == cli.main(["stats", "--json", "--name", shared.name])
        shown = json.loads(capsys.readouterr().out)
        assert 2 == shown["areas"]["users"]["config"]["max_loads"]
        assert 0 < shown["areas"]["users"]["load_p99"]
        assert ["max_loads"] == [each["option"] for each in shown["overrides"]]

    def test_config_untold(
        self, shared: testing.Isolated, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """An area may be there, and nobody has told how it is configured."""
        assert ["area a?b", "  no process has told its configuration yet"] == stats.configurations(
            {"a\nb": diagnostics.UNTOLD}
        )

    def test_redis(self, shared: testing.Isolated, capsys: pytest.CaptureFixture[str]) -> None:
        """Whether Redis takes writes, who listens, and what is still to be told."""
        memory = shared.memory
        memory.outbox_settle(LevelCache("users")._note("key", local.NOTE_FORGET), False)
        term = memory.lead(1.0)
        memory.link_confirm(time.monotonic())
        memory.link_note(local.LINK_CONNECTED)
        assert 0 == cli.main(["stats", "--name", shared.name])
        head, listener = redis_lines(capsys.readouterr().out)
        assert head.startswith("redis took a write ")
        assert head.endswith("breaker closed, outbox 1")
        assert f"  listener pid {os.getpid()}, term {term}, connected for 0 s" in listener
        memory.link_refused()
        memory.link_note(local.LINK_LOST, 30.0)
        memory.lead_resign(term)
        assert 0 == cli.main(["stats", "--name", shared.name])
        head, listener = redis_lines(capsys.readouterr().out)
        assert "refuses writes now" in head
        assert listener.startswith("  nobody listens")

    def test_of_the_dead(self, dead: str, capsys: pytest.CaptureFixture[str]) -> None:
        """A segment without processes can be looked at, and is not entered by that."""
        assert 0 == cli.main(["stats", "--name", dead])
        assert "processes 0" in capsys.readouterr().out
        (info,) = [info for info in segment.survey() if info.file.name == dead]
        assert not info.alive

    def test_by_environment(
        self,
        shared: testing.Isolated,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Without --name: the application's own setting."""
        monkeypatch.setenv("ACCELERATOR_NAME", shared.name)
        assert 0 == cli.main(["stats"])
        assert shared.name in capsys.readouterr().out

    def test_derived(
        self,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
        tmp_path: Path,
    ) -> None:
        """Or the one of this directory."""
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(runtime, "_runtime", runtime._Runtime())
        accelerator.attach()
        try:
            shown = accelerator.diagnostics()
            assert 0 == cli.main(["stats"])
            assert shown["name"] in capsys.readouterr().out
        finally:
            accelerator.detach()
            Path(shown["path"]).unlink()

    def test_unknown(self, dead: str, capsys: pytest.CaptureFixture[str]) -> None:
        """A name that is none: what there is, and status 1."""
        assert 1 == cli.main(["stats", "--name", "no-such-name"])
        error = capsys.readouterr().err
        assert "no segment called no-such-name" in error
        assert f"{dead} (unused)" in error

    def test_another_user(
        self, shared: testing.Isolated, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Who works as another user than the service is told whose segment it is."""
        assert 1 == cli.main(["stats", "--name", shared.name, "--uid", "54321"])
        error = capsys.readouterr().err
        assert f"{shared.name} of uid {os.geteuid()}" in error
        assert f"--uid {os.geteuid()}" in error

    def test_bad_environment(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Bad configuration is status 2."""
        monkeypatch.setenv("ACCELERATOR_SIZE", "much")
        assert 2 == cli.main(["stats"])
        assert "ACCELERATOR_SIZE" in capsys.readouterr().err


class TestGc:
    def test_removes(self, dead: str, capsys: pytest.CaptureFixture[str]) -> None:
        """What is dead and old goes; there is something to read either way."""
        cli.main(["gc"])
        assert segment.own_file(dead).path.exists()
        make_old(dead)
        capsys.readouterr()
        assert 0 == cli.main(["gc"])
        assert f"unlinked {segment.own_file(dead).path}\n" in capsys.readouterr().out
        assert 0 == cli.main(["gc"])
        assert "nothing to unlink\n" == capsys.readouterr().out


class TestUnlink:
    def test_dead(self, dead: str, capsys: pytest.CaptureFixture[str]) -> None:
        """Nobody uses it."""
        assert 0 == cli.main(["unlink", dead])
        assert f"unlinked {segment.own_file(dead).path}\n" == capsys.readouterr().out
        assert 1 == cli.main(["unlink", dead])
        assert "no segment called" in capsys.readouterr().err

    def test_alive(self, shared: testing.Isolated, capsys: pytest.CaptureFixture[str]) -> None:
        """Somebody does: refused, unless forced."""
        assert 1 == cli.main(["unlink", shared.name])
        assert "in use" in capsys.readouterr().err
        assert 0 == cli.main(["unlink", "--force", shared.name])
        assert not segment.own_file(shared.name).path.exists()


class TestCommand:
    def test_help(self, capsys: pytest.CaptureFixture[str]) -> None:
        """--help and --version work, for every command."""
        for arguments in (["--help"], ["--version"], *([name, "--help"] for name in COMMANDS)):
            with pytest.raises(SystemExit) as raised:
                cli.main(arguments)
            assert 0 == raised.value.code
            assert capsys.readouterr().out

    @pytest.mark.parametrize("arguments", [[], ["nonsense"], ["stats", "--nonsense"], ["unlink"]])
    def test_wrong(self, arguments: list[str]) -> None:
        """Wrong usage is status 2."""
        with pytest.raises(SystemExit) as raised:
            cli.main(arguments)
        assert 2 == raised.value.code

    def test_as_module(self) -> None:
        """``python -m accelerator`` is the command."""
        result = subprocess.run(
            [sys.executable, "-m", "accelerator", "--version"],
            check=True,
            capture_output=True,
            text=True,
        )
        assert f"accelerator {accelerator.__version__}\n" == result.stdout

    def test_demo(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Whatever follows "demo" is the demo's."""
        given: list[list[str]] = []

        def fake(argv: list[str]) -> int:
            given.append(argv)
            return 7

        monkeypatch.setattr("accelerator.demo.main", fake)
        assert 7 == cli.main(["demo", "--keep-running", "-x", "y"])
        assert [["--keep-running", "-x", "y"]] == given

    def test_closed_pipe(self, shared: testing.Isolated) -> None:
        """A reader that has seen enough is no traceback."""
        command = f"{sys.executable} -m accelerator stats --json --name {shared.name} | true"
        result = subprocess.run(command, shell=True, check=True, capture_output=True, text=True)
        assert "Traceback" not in result.stderr

    def test_poor_locale(self, shared: testing.Isolated) -> None:
        """Letters that the output cannot show are no reason to fail."""
        LevelCache("ü-日本").set("key", 1)
        result = subprocess.run(
            [sys.executable, "-m", "accelerator", "stats", "--name", shared.name],
            check=True,
            capture_output=True,
            env={**os.environ, "PYTHONIOENCODING": "ascii"},
        )
        assert b"?-??" in result.stdout


COMMANDS = (
    "doctor",
    "stats",
    "top",
    "listener",
    "probe",
    "flights",
    "events",
    "hash",
    "gc",
    "unlink",
    "demo",
)
