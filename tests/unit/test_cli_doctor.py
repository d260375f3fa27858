"""
``accelerator doctor``: each check by the facts of machines that are not at hand, and the whole by
this one.
"""

import json
import os
import re
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cli_world as world
import pytest

from accelerator import LevelCache, cli, config, local, remote, segment, testing
from accelerator.cli import doctor
from accelerator.cli.doctor import facts as gathering
from accelerator.cli.doctor.facts import Facts, Shm
from accelerator.cli.doctor.finding import Level
from accelerator.config import Settings
from accelerator.errors import ConfigError

ROOT = Path(__file__).parents[2]


MIB = 1 << 20
FINE = Facts(
    uid=1000,
    python="3.13.1",
    versions={"msgpack": "1.1", "redis": "6.0", "zstandard": None},
    shm=Shm(exists=True, size=512 * MIB, free=400 * MIB, kind="tmpfs", writable=True),
    operations={"mmap": None},
    settings=Settings(),
    name="shop",
    wanted=64 * MIB,
)
WITH_REDIS = Settings(redis="redis://cache:6379/0", name="shop")
ANSWERS = remote.Seen(
    {"redis": "redis://cache:6379/0", "db": 0, "kind": "url"},
    connecting=0.001,
    pings=(0.0002, 0.0003, 0.0004),
    info={
        "redis_version": "7.2.4",
        "redis_mode": "standalone",
        "role": "master",
        "maxmemory": "1000000",
        "maxmemory_policy": "volatile-lru",
    },
    clock=0.01,
    subscribers={"accelerator:invalidation:shop:users": 2, "accelerator:heartbeat:shop:0": 1},
)


def with_redis(**seen: Any) -> Facts:
    return replace(FINE, settings=WITH_REDIS, redis=replace(ANSWERS, **seen))


def info(**fields: str) -> Facts:
    assert ANSWERS.info is not None
    return with_redis(info={**ANSWERS.info, **fields})


def settings(**values: Any) -> Facts:
    environ = {f"ACCELERATOR_{name.upper()}": str(value) for name, value in values.items()}
    try:
        resolved, problem = Settings.resolve({}, {}, environ), None
    except ConfigError as error:
        resolved, problem = None, str(error)
    return replace(FINE, settings=resolved, problem=problem, origins=config.origins({}, environ))


def shm(**values: Any) -> Facts:
    return replace(FINE, shm=replace(FINE.shm, **values))


def seen(**values: Any) -> Facts:
    areas = values.pop("areas", {"users": world.counted()})
    values.setdefault("workers", [world.worker(7)])
    return replace(FINE, seen=world.snapshot(areas, **values))


def listening(**values: Any) -> Facts:
    values = {"rows": [world.row("users")], "leader": world.LEADER, **values}
    return seen(**values)


def found(name: str = "shop", **values: Any) -> Facts:
    """One file in /dev/shm."""
    uid = values.pop("uid", FINE.uid)
    layout = values.pop("layout", segment.layout())
    file = segment.SegmentFile(uid, name, layout)
    about = {
        "size": 64 * MIB,
        "age": 1.0,
        "alive": True,
        "ready": True,
        "library_version": "0.0.9",
        "current": layout == segment.layout(),
    }
    refused = values.pop("refused", None)
    another = values.pop("another_machine", None)
    known = None if refused else segment.SegmentInfo(file=file, **{**about, **values})
    return replace(FINE, found=[segment.Found(file, uid, 64 * MIB, refused, known, another)])


OLD = 0x0BADCAFE
REDIS_AND_SEEN = replace(listening(), settings=WITH_REDIS, redis=ANSWERS)

BAD: list[tuple[Callable[[], Facts], str, Level, str]] = [
    # settings
    (lambda: settings(size="much"), "settings", Level.FAIL, "size, from ACCELERATOR_SIZE"),
    (lambda: settings(mode="both"), "settings", Level.FAIL, "needs Redis"),
    (lambda: settings(redis="redis://cache"), "settings", Level.FAIL, "explicit name"),
    (lambda: settings(mode="off"), "combinations", Level.WARN, "mode=off"),
    (lambda: settings(namespace="x"), "combinations", Level.WARN, "namespace without redis"),
    (
        lambda: settings(redis="redis://cache", name="x", mode="local"),
        "combinations",
        Level.WARN,
        "mode=local beside redis",
    ),
    (lambda: settings(local="process"), "combinations", Level.WARN, "local=process"),
    (
        lambda: settings(redis="redis://cache", name="x", redis_timeout="2"),
        "combinations",
        Level.WARN,
        "freshness_bound=2 beside redis_timeout=2",
    ),
    (
        lambda: replace(FINE, unknown={"ACCELERATOR_NAMESPCE": "ACCELERATOR_NAMESPACE"}),
        "variables",
        Level.WARN,
        "ACCELERATOR_NAMESPCE is no setting",
    ),
    (
        lambda: replace(FINE, others={7: ["ACCELERATOR_SIZE=8m"], 8: ["ACCELERATOR_SIZE=8m"]}),
        "environment",
        Level.WARN,
        "2 processes of the segment have ACCELERATOR_SIZE=8m",
    ),
    # the machine
    (lambda: replace(FINE, native=False), "native part", Level.FAIL, "not installed"),
    (
        lambda: replace(FINE, native=False, platform="darwin"),
        "native part",
        Level.WARN,
        "none for darwin",
    ),
    (lambda: replace(FINE, pure=True), "native part", Level.WARN, "ACCELERATOR_PURE=1"),
    (lambda: shm(exists=False), "/dev/shm", Level.FAIL, "there is none"),
    (lambda: shm(readonly=True), "/dev/shm", Level.FAIL, "mounted read-only"),
    (lambda: shm(writable=False), "/dev/shm", Level.FAIL, "may not make files"),
    (lambda: shm(kind="ext4"), "/dev/shm", Level.WARN, "of the kind ext4"),
    (lambda: shm(size=64 * MIB), "/dev/shm size", Level.WARN, "64.0 MiB, of which"),
    (lambda: shm(free=3 * MIB), "room", Level.FAIL, "3.0 MiB are free"),
    (lambda: shm(free=30 * MIB), "room", Level.WARN, "30.0 MiB are free"),
    (lambda: replace(FINE, file_limit=MIB), "limits", Level.FAIL, "ulimit -f"),
    (lambda: replace(FINE, memory_limit=100 * MIB), "limits", Level.WARN, "may use 100.0 MiB"),
    (
        lambda: replace(FINE, operations={"mmap": None, "fcntl locks": "ENOSYS"}),
        "kernel",
        Level.FAIL,
        "fcntl locks is refused (ENOSYS)",
    ),
    (lambda: replace(FINE, versions={"redis": None}), "versions", Level.FAIL, "redis is not"),
    # segments
    (
        lambda: found(refused="it belongs to uid 7, not 1000"),
        "permissions",
        Level.FAIL,
        "it belongs to uid 7",
    ),
    (lambda: found("other", refused="odd"), "permissions", Level.WARN, "odd"),
    (lambda: found(uid=7), "other users", Level.WARN, "same name of uid 7"),
    (lambda: found(layout=OLD), "layouts", Level.WARN, "version 0.0.9; processes use it"),
    (lambda: found(layout=OLD, alive=False), "layouts", Level.WARN, "nobody uses it any more"),
    (
        lambda: found(another_machine="it was made in another time namespace"),
        "clock",
        Level.FAIL,
        "another time namespace",
    ),
    (
        lambda: found(another_machine="it was made before the last boot", alive=False),
        "clock",
        Level.WARN,
        "before the last boot",
    ),
    (
        lambda: found("old", alive=False, age=1e6),
        "unused segments",
        Level.WARN,
        "1 segment without processes, 64.0 MiB: old",
    ),
    (
        lambda: replace(settings(size="128m"), wanted=128 * MIB, seen=seen().seen),
        "segment size",
        Level.WARN,
        "it has 64.0 MiB, 128.0 MiB is asked for",
    ),
    (
        lambda: seen(processes=[{"alive": True}] * 60),
        "processes",
        Level.WARN,
        "60 of 64 slots",
    ),
    (lambda: seen(workers=[world.worker(7, state="T")]), "processes", Level.WARN, "pid 70 is stop"),
    (
        lambda: seen(areas={f"a{n}": world.counted() for n in range(60)}),
        "areas",
        Level.WARN,
        "60 of 64",
    ),
    (lambda: replace(seen(), broken=["a hole"]), "soundness", Level.FAIL, "the first: a hole"),
    (lambda: seen(numbers={"resets": 2}), "soundness", Level.WARN, "2 rings and 0 items"),
    (
        lambda: seen(areas={"users": world.counted(corrupt_item=3)}),
        "soundness",
        Level.WARN,
        "0 rings and 3 items",
    ),
    (lambda: seen(numbers={"stats_lost": 2}), "soundness", Level.WARN, "no block of counters"),
    (
        lambda: listening(link={"connected_since": None}),
        "listener",
        Level.FAIL,
        "nobody of this host is connected",
    ),
    (
        lambda: listening(leader={**world.LEADER, "incarnation": 0, "pid": 0}),
        "listener",
        Level.FAIL,
        "nobody of this host is connected",
    ),
    (
        lambda: listening(rows=[world.row("users", -3.0)]),
        "listener",
        Level.WARN,
        "out of step: users",
    ),
    (lambda: listening(link={"outbox_depth": 3}), "outbox", Level.WARN, "3 changes, and 0 clears"),
    (lambda: listening(owed=["users"]), "outbox", Level.WARN, "0 changes, and 1 clears"),
    # Redis
    (lambda: with_redis(error="it is away", code="NOAUTH"), "redis", Level.FAIL, "away (NOAUTH)"),
    (lambda: with_redis(pings=(0.2, 0.2)), "latency", Level.FAIL, "PING took 200 ms"),
    (lambda: with_redis(pings=(0.01, 0.01, 0.08)), "latency", Level.WARN, "the longest of 3 80 ms"),
    (lambda: with_redis(connecting=0.09), "latency", Level.WARN, "PING took"),
    (lambda: with_redis(info=None), "version", Level.WARN, "may not read INFO"),
    (lambda: info(redis_version="6.0.16"), "version", Level.FAIL, "Redis 6.0.16"),
    (lambda: info(role="slave"), "writes", Level.FAIL, "a replica"),
    (lambda: with_redis(refusals=["READONLY"]), "writes", Level.FAIL, "a replica"),
    (lambda: with_redis(refusals=["OOM"]), "writes", Level.FAIL, "refuses writes now: OOM"),
    (lambda: with_redis(missing=["XADD"]), "features", Level.FAIL, "it has no XADD"),
    (lambda: with_redis(denied=["INCR a"]), "rights", Level.FAIL, "may not: INCR a"),
    (lambda: info(maxmemory="0"), "eviction", Level.WARN, "not set"),
    (lambda: info(maxmemory_policy="noeviction"), "eviction", Level.WARN, "noeviction"),
    (lambda: info(maxmemory_policy="allkeys-lru"), "eviction", Level.WARN, "allkeys-lru"),
    (lambda: with_redis(clock=-2.0, clock_error=0.1), "clock", Level.WARN, "2 s behind"),
    (
        lambda: replace(REDIS_AND_SEEN, redis=replace(ANSWERS, subscribers={"c": 1, "own": 0})),
        "subscribers",
        Level.FAIL,
        "has no subscriber of it",
    ),
    (
        lambda: replace(REDIS_AND_SEEN, redis=replace(ANSWERS, subscribers={"c": 0, "own": 1})),
        "subscribers",
        Level.WARN,
        "nobody listens to c",
    ),
]  # fmt: skip


class TestChecks:
    @pytest.mark.parametrize(
        "facts", [FINE, REDIS_AND_SEEN, with_redis()], ids=["alone", "busy", "redis"]
    )
    def test_fine(self, facts: Facts) -> None:
        """Where all is well nothing is found fault with."""
        assert [] == [it for it in doctor.examine(facts) if it.level is not Level.OK]

    @pytest.mark.parametrize(
        ("facts", "check", "level", "what"), BAD, ids=[f"{it[1]}-{it[3]}" for it in BAD]
    )
    def test_bad(self, facts: Callable[[], Facts], check: str, level: Level, what: str) -> None:
        """One thing is wrong: one finding says so, what it means, and what to do."""
        bad = [it for it in doctor.examine(facts()) if it.level is not Level.OK]
        [finding] = [it for it in bad if it.check == check and what in it.what]
        assert level is finding.level
        assert finding.means
        assert finding.cure
        assert [finding] == [it for it in bad if it.check == check]

    def test_every_check_is_tried(self) -> None:
        """No check is left out of the table above."""
        silent = {check.__name__ for check in doctor.CHECKS}
        for facts, *_ in BAD:
            for check in doctor.CHECKS:
                if any(it.level is not Level.OK for it in check(facts())):
                    silent.discard(check.__name__)
        assert {"there"} == silent  # that a segment is not made yet is no fault

    def test_all_that_are_wrong(self) -> None:
        """Every wrong setting is named, not only the first; and no value of a secret."""
        findings = doctor.examine(
            settings(size="much", redis="http://me:hidden@x", strict="perhaps")
        )
        wrong = [it.what for it in findings if it.config]
        assert ["size", "redis", "strict"] == [it.partition(",")[0] for it in wrong]
        assert "hidden" not in "".join(wrong)

    def test_sources(self) -> None:
        """What is given is shown with where it comes from; the password is not."""
        shown = [
            it.what for it in doctor.examine(settings(redis="redis://me:hidden@x/1", name="n"))
        ]
        assert "name=n (ACCELERATOR_NAME), redis=redis://x/1 (ACCELERATOR_REDIS)" in shown


class TestStatus:
    @pytest.mark.parametrize(
        ("facts", "usual", "strict"),
        [
            (FINE, 0, 0),
            (shm(kind="ext4"), 0, 1),
            (shm(exists=False), 1, 1),
            (settings(size="much"), 2, 2),
            (settings(redis="redis://cache"), 2, 2),
        ],
        ids=["fine", "warning", "failure", "setting", "no name"],
    )
    def test_status(self, facts: Facts, usual: int, strict: int) -> None:
        """0 nothing fails, 1 something does, 2 the settings are wrong."""
        findings = doctor.examine(facts)
        assert usual == doctor.status(findings)
        assert strict == doctor.status(findings, strict=True)


class TestShown:
    def test_people(self) -> None:
        """A line for each finding, wrapped; below the bad ones what it means and what to do."""
        facts = shm(exists=False)
        lines = doctor.render(facts, doctor.examine(facts), 90)
        assert "accelerator doctor  shop" == lines[0]
        at = next(n for n, line in enumerate(lines) if line.startswith("fail"))
        assert ["fail", "/dev/shm", "there is none"] == re.split(r"\s{2,}", lines[at])
        assert lines[at + 1].lstrip().startswith("means: each process caches in its own memory")
        assert any(line.lstrip().startswith("do:    mount a tmpfs") for line in lines)
        assert all(len(line) <= 90 for line in lines)
        assert re.fullmatch(r"\d+ ok, 0 warnings, 1 failed", lines[-1])

    def test_hostile(self) -> None:
        """What comes from elsewhere cannot steer the terminal."""
        facts = replace(FINE, others={7: ["ACCELERATOR_NAME=\x1b[2J"]})
        assert "\x1b" not in "".join(doctor.render(facts, doctor.examine(facts), 90))

    def test_json(self) -> None:
        """The same for programs."""
        facts = shm(exists=False)
        shown = doctor.as_data(facts, doctor.examine(facts))
        assert (1, 1) == (shown["status"], shown["counts"]["fail"])
        assert json.dumps(shown)


@pytest.mark.skipif(not (local.NATIVE and segment.AVAILABLE), reason="needs segments")
class TestHere:
    """On this very machine."""

    @pytest.fixture
    def shared(self) -> Iterator[testing.Isolated]:
        with testing.isolated(shared=True) as own:
            LevelCache("users").set("key", 1)
            yield own

    def run(self, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, Any]:
        status = cli.main(["doctor", "--json", *arguments])
        return status, json.loads(capsys.readouterr().out)

    def test_segment(self, shared: testing.Isolated, capsys: pytest.CaptureFixture[str]) -> None:
        """A segment in use is fine."""
        status, shown = self.run(capsys, "--name", shared.name)
        assert (0, shared.name) == (status, shown["name"])
        told = {it["check"]: it["what"] for it in shown["findings"]}
        assert (
            f"{segment.own_file(shared.name).path}: 4.0 MiB, 1 process, 1 area" == told["segment"]
        )
        assert "every item that can be found verifies" == told["soundness"]
        assert told["kernel"].startswith("allows posix_fallocate, fcntl locks")
        assert "call" == shown["settings"]["name"]["source"]

    def test_reads_only(self, capsys: pytest.CaptureFixture[str]) -> None:
        """Nothing is made where nothing was."""
        name = f"test-{uuid.uuid4().hex[:12]}"
        _, shown = self.run(capsys, "--name", name)
        assert name == shown["name"]
        assert [] == list(segment.SHM_DIR.glob(f"*{name}*"))

    def test_wrong_setting(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Every check that does not need the setting is made all the same."""
        monkeypatch.setenv("ACCELERATOR_SIZE", "much")
        monkeypatch.setenv("ACCELERATOR_SIZ", "8m")
        status, shown = self.run(capsys)
        assert 2 == status == shown["status"]
        checks = {it["check"]: it["level"] for it in shown["findings"]}
        assert ("fail", "warn", "ok") == (
            checks["settings"],
            checks["variables"],
            checks["kernel"],
        )

    def test_squatter(self, capsys: pytest.CaptureFixture[str]) -> None:
        """A file that is no segment, and one that others may change."""
        name = f"test-{uuid.uuid4().hex[:12]}"
        path = segment.own_file(name).path
        path.write_bytes(b"x" * 4096)
        path.chmod(0o666)
        try:
            status, shown = self.run(capsys, "--name", name)
            assert 1 == status
            [told] = [
                it
                for it in shown["findings"]
                if it["check"] == "permissions" and name in it["what"]
            ]
            assert "others may change it, its mode is 0666" in told["what"]
        finally:
            path.unlink()

    def test_header(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        """A segment whose header and file disagree."""
        name = f"test-{uuid.uuid4().hex[:12]}"
        code = "import accelerator as a; a.LevelCache('area').set('key', 1)"
        environment = {**os.environ, "ACCELERATOR_NAME": name, "ACCELERATOR_SIZE": "4m"}
        subprocess.run([sys.executable, "-c", code], check=True, env=environment, cwd=tmp_path)
        path = segment.own_file(name).path
        os.truncate(path, 8 * MIB)
        try:
            status, shown = self.run(capsys, "--name", name)
            told = {it["check"]: it["what"] for it in shown["findings"] if name in it["what"]}
            assert 1 == status
            assert "its header says size 4194304, its file 8388608" in told["permissions"]
        finally:
            path.unlink()

    def test_damage(self, shared: testing.Isolated, capsys: pytest.CaptureFixture[str]) -> None:
        """Damage that stays is found at every look."""
        LevelCache("users").mset(dict.fromkeys(range(100), "x" * 100))
        raw = shared.memory.raw()
        at = bytes(raw).index(b"x" * 100)
        raw[at - 60 : at - 20] = b"\xff" * 40  # the header of the item
        status, shown = self.run(capsys, "--name", shared.name)
        told = {it["check"]: it for it in shown["findings"]}["soundness"]
        assert (1, "fail") == (status, told["level"])
        assert "violation" in told["what"]

    def test_environment_of_workers(
        self, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        """What a worker was told and this shell was not, its secrets apart."""
        name = f"test-{uuid.uuid4().hex[:12]}"
        code = (
            "import accelerator as a, sys; a.LevelCache('area').set('key', 1);"
            "print(flush=True); sys.stdin.read()"
        )
        environment = {**os.environ, "ACCELERATOR_NAME": name, "ACCELERATOR_SIZE": "4m"}
        environment["ACCELERATOR_SECRET"] = "hidden"
        worker = subprocess.Popen(
            [sys.executable, "-c", code],
            env=environment,
            cwd=tmp_path,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        try:
            assert worker.stdout is not None
            worker.stdout.readline()
            _, shown = self.run(capsys, "--name", name)
            [told] = [it["what"] for it in shown["findings"] if it["check"] == "environment"]
            assert (
                f"process {worker.pid} of the segment has ACCELERATOR_NAME={name}, "
                "another ACCELERATOR_SECRET, ACCELERATOR_SIZE=4m"
            ) == told
            assert "hidden" not in json.dumps(shown)
        finally:
            worker.communicate()
            segment.unlink(name, os.geteuid(), force=True)

    def test_unused(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        """A segment that nobody has used for long."""
        name = f"test-{uuid.uuid4().hex[:12]}"
        code = "import accelerator as a; a.LevelCache('area').set('key', 1)"
        environment = {**os.environ, "ACCELERATOR_NAME": name, "ACCELERATOR_SIZE": "4m"}
        subprocess.run([sys.executable, "-c", code], check=True, env=environment, cwd=tmp_path)
        long_ago = time.time() - 2 * segment.DEAD_AFTER
        os.utime(segment.own_file(name).path, (long_ago, long_ago))
        try:
            _, shown = self.run(capsys, "--name", name)
            [told] = [it for it in shown["findings"] if it["check"] == "unused segments"]
            assert name in told["what"]
        finally:
            segment.unlink(name, os.geteuid(), force=True)


class TestGathering:
    def test_file_system(self, tmp_path: Path) -> None:
        """The mount that is nearest to the folder."""
        mounts = tmp_path / "mounts"
        mounts.write_text(
            "/dev/sda / ext4 rw 0 0\nudev /dev devtmpfs rw 0 0\ntmpfs /dev/shm tmpfs rw 0 0\n"
            "tmpfs /dev/shmother xfs rw 0 0\n"
        )
        assert "tmpfs" == gathering.file_system(Path("/dev/shm"), mounts)
        assert "devtmpfs" == gathering.file_system(Path("/dev/pts"), mounts)
        assert "ext4" == gathering.file_system(Path("/home"), mounts)
        assert "" == gathering.file_system(Path("/home"), tmp_path / "none")

    @pytest.mark.parametrize(
        ("text", "limit"),
        [("max\n", None), ("104857600\n", 104857600), ("9223372036854771712\n", None), ("", None)],
    )
    def test_memory_limit(self, text: str, limit: int | None, tmp_path: Path) -> None:
        """Of either version of cgroups."""
        file = tmp_path / "memory.max"
        file.write_text(text)
        assert limit == gathering.memory_limit([str(tmp_path / "none"), str(file)])

    def test_no_folder(self, tmp_path: Path) -> None:
        """A machine without /dev/shm."""
        assert not gathering.look_at_shm(tmp_path / "none").exists

    @pytest.mark.skipif(sys.platform != "linux", reason="of Linux")
    def test_operations(self) -> None:
        """All of it is allowed here, or nothing else would work either."""
        tried = gathering.operations()
        assert {None} == set(tried.values())
        assert {"posix_fallocate", "fcntl locks", "mmap"} <= set(tried)


class TestImports:
    def test_no_redis(self) -> None:
        """Commands that need no Redis import none, nor asyncio."""
        code = (
            "import sys\nfrom accelerator import cli\n"
            "for words in (['doctor'], ['top', '--once', '--interval', '0.1'], ['listener']):\n"
            "    cli.main(words)\n"
            "print([m for m in ('redis', 'asyncio', 'ssl') if m in sys.modules], file=sys.stderr)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        assert "[]" == done.stderr.splitlines()[-1]


class TestUnknownVariables:
    def test_names(self) -> None:
        """What looks like a setting and is none, with the one that was meant."""
        environ = {
            "ACCELERATOR_NAMESPCE": "x",
            "ACCELERATOR_QQQQQQ": "x",
            "ACCELERATOR_NAME": "x",
            "ACCELERATOR_PURE": "1",
            "OTHER": "x",
        }
        assert {
            "ACCELERATOR_NAMESPCE": "ACCELERATOR_NAMESPACE",
            "ACCELERATOR_QQQQQQ": None,
        } == config.unknown_variables(environ)
