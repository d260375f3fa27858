"""Every incident of docs/runbook.md, provoked for real, seen and ended as the page says."""

import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import runbook

from accelerator import local
from accelerator.demo.fault_proxy import FaultProxy
from accelerator.demo.redis_server import RedisServer

pytestmark = [
    pytest.mark.skipif(not local.NATIVE, reason="workers share through the native part"),
    pytest.mark.slow,
]
SHM_DIR = Path("/dev/shm")
USE_REDIS = runbook.PAGE.parent / "how-to" / "use-redis.md"
Drills = Callable[..., Any]
Shops = Callable[..., Any]


def test_is_it_the_cache(shop: Any, drill: Drills) -> None:
    """The three commands of the first minute, on a host on which all is well."""
    shop.ask("/get", key="a")
    drill("is-it-the-cache", shop).run("")


def test_redis_unreachable(linked: Any, server: RedisServer, drill: Drills) -> None:
    """Redis is killed, and comes back."""
    shop = linked
    shop.ask("/get", key="kept")
    exercise = drill("redis-unreachable", shop)
    server.kill()
    assert shop.ask("/delete", key="kept") is True
    with shop.busy("/get"):
        exercise.symptoms()
    exercise.run("Quick checks")
    exercise.run_next("Mitigation")
    # What this host has is believed again, for as long as Redis is away.
    shop.ask("/get", key="local")
    shop.truth(local="changed")
    time.sleep(2.2)  # longer than the bound: nothing tells that it has passed
    assert "value of local" == shop.ask("/get", key="local")
    exercise.run("Mitigation")
    server.start()
    exercise.is_over()
    assert "changed" == shop.ask("/get", key="local")


def test_invalidation_broadcast_failure(
    open_shop: Shops, server: RedisServer, drill: Drills, in_step: Callable[[Any], Any]
) -> None:
    """Two hosts: one is cut off from Redis; then the user there loses the right to publish."""
    for words in rights("drill"):
        server.command(*words)
    with FaultProxy(server.socket) as proxy:
        urls = (url.replace("//", "//drill:secret@") for url in (server.tcp_url, proxy.url))
        admin = {"REDIS_ADMIN": server.tcp_url, "REDIS_USER": "drill"}
        here, there = (
            open_shop(name, ACCELERATOR_REDIS=url, ACCELERATOR_NAMESPACE="drill", **admin).start()
            for name, url in zip(("here", "there"), urls, strict=True)
        )
        for shop in (here, there):
            in_step(shop)
            assert "value of key" == shop.ask("/get", key="key")
        exercise = drill("invalidation-broadcast-failure", here)
        proxy.mode("stall")
        changed = change((here, there), key="new")
        exercise.run_next("Quick checks")
        until(lambda: "new" == there.ask("/get", key="key"))
        assert time.monotonic() - changed < 10.0  # the probe took most of it
        proxy.mode("pass")
        in_step(there)
        assert ["new"] * 2 == [shop.ask("/get", key="key") for shop in (here, there)]
        server.command("ACL", "SETUSER", "drill", "-publish")
        change((here, there), key="newer")
        exercise.symptoms()
        exercise.run("Quick checks")
        exercise.run("Mitigation")
        exercise.is_over()
        assert ["newer"] * 2 == [shop.ask("/get", key="key") for shop in (here, there)]


def change(shops: tuple[Any, Any], key: str) -> float:
    """Change the row for all hosts, and have the first one forget it; when that was."""
    for shop in shops:
        shop.truth(key=key)
    assert shops[0].ask("/delete", key="key") is True
    return time.monotonic()


def test_loader_timeout(shop: Any, drill: Drills) -> None:
    """The source of truth is slower than the limit, and then as fast as ever."""
    exercise = drill("loader-timeout", shop)
    shop.ask("/get", key="old")
    shop.ask("/expire", key="old")
    shop.truth(slow=0.4)
    with shop.busy("/get"):
        exercise.symptoms()
        exercise.run("Quick checks")
        exercise.run_next("Mitigation")
        assert "value of old" == shop.ask("/get", key="old")
        assert 1 <= counter(shop, "stale_fallback")
        exercise.run("Mitigation")
        shop.ask("/get", key="before")  # while it runs, what began before the override ends
        before = counter(shop, "load_timeout")
        assert "value of late" == shop.ask("/get", key="late")
        assert before == counter(shop, "load_timeout")
    shop.truth()
    exercise.is_over(lambda: shop.ask("/get", key="well"))


def test_worker_killed(shop: Any, drill: Drills) -> None:
    """SIGKILL for a worker that loads what others wait for."""
    exercise = drill("worker-killed", shop)
    shop.truth(slow=8.0, key="the answer")
    asked = []
    while len(asked_processes(shop)) < 2:
        asked.append(shop.meanwhile("/tell_and_get", key="key"))
        time.sleep(0.05)  # several at once might all be taken by one worker
    until(lambda: waiters(shop) == len(asked) - 1)
    [flight] = shop.diagnostics()["flights"]
    shop.truth(key="the answer")
    os.kill(flight["pid"], signal.SIGKILL)
    exercise.variables["PID"] = str(flight["pid"])
    answers = [each.result(20) for each in asked if each.exception(20) is None]
    assert {"the answer"} == set(answers)
    exercise.symptoms()
    shop.wait()
    exercise.run("Quick checks")
    exercise.variables["MASTER"] = str(shop.master)
    old = shop.pids()
    exercise.run_next("Mitigation")
    until(lambda: not old & shop.pids() and len(shop.pids()) == 4, shop.tail)
    assert 1 == counter(shop, "entries")  # still warm
    exercise.run("Mitigation")
    exercise.is_over()


def test_segment_full(open_shop: Shops, drill: Drills) -> None:
    """Far more values than the segment holds."""
    shop = open_shop(ACCELERATOR_SIZE="4MiB").start()
    exercise = drill("segment-full", shop)
    shop.environment["AREA"] = "pages"
    shop.ask("/fill", area="pages", begin=0, end=600)
    exercise.symptoms()
    exercise.run("Quick checks")
    exercise.run_next("Mitigation")
    until(lambda: 0 == counter(shop, "entries", "pages"))
    shop.environment["ACCELERATOR_SIZE"] = "64MiB"
    exercise.run("Mitigation")
    shop.wait()
    exercise.is_over(lambda: shop.ask("/fill", area="pages", begin=0, end=600))


def test_dev_shm_too_small(open_shop: Shops, drill: Drills, mounts: tuple[str, ...]) -> None:
    """A /dev/shm of 2 MiB: each worker alone; of 9 MiB: a smaller segment; then of 64 MiB."""
    shop = open_shop()
    holder = subprocess.Popen(
        [*mounts, "sh", "-euc", "mount -t tmpfs -o size=9m tmpfs /dev/shm; echo; exec sleep 600"],
        stdout=subprocess.PIPE,
    )
    try:
        assert holder.stdout is not None
        assert b"\n" == holder.stdout.readline()
        shop.inside = ("nsenter", f"--target={holder.pid}", "--mount")
        shop.start()
        exercise = drill("dev-shm-too-small", shop)
        exercise.symptoms("metric")
        shop.shell("./end; rm /dev/shm/*; mount -o remount,size=2m /dev/shm; ./start")
        shop.wait()
        exercise.symptoms()
        exercise.run("Quick checks")
        exercise.run("Mitigation")
        shop.wait()
        exercise.is_over()
    finally:
        shop.stop()
        holder.kill()
        holder.wait()
        holder.stdout.close()


@pytest.fixture
def mounts() -> tuple[str, ...]:
    """
    How to get a namespace of mounts of one's own.

    Without privileges there is one as well, in which ``mount -o remount`` is refused.
    """
    command = ("unshare", "--mount")
    if shutil.which("unshare") and shutil.which("nsenter"):
        probe = [*command, "mount", "-t", "tmpfs", "tmpfs", "/dev/shm"]
        if subprocess.run(probe, check=False, capture_output=True).returncode == 0:
            return command
    pytest.skip("no file system can be mounted here, which takes root's rights")


def test_leader_stalled(linked: Any, drill: Drills) -> None:
    """The process that listens is stopped; then the next one's GIL is held."""
    shop = linked
    exercise = drill("leader-stalled", shop)
    first = shop.listener()
    os.kill(first, signal.SIGSTOP)
    exercise.variables["PID"] = str(first)
    exercise.symptoms()
    exercise.run("Quick checks")
    exercise.run_next("Mitigation")
    until(lambda: "T" != state_of(first))
    second = shop.listener()
    assert first != second
    hogged = []
    while not hogged or hogged[-1].done():
        hogged.append(shop.meanwhile("/hog", seconds=10.0))
        time.sleep(0.1)  # an answer at once says that it was another process
    until(lambda: shop.listener() != second, shop.tail)
    exercise.variables["PID"] = str(second)
    exercise.run_next("Mitigation")
    until(lambda: second not in shop.pids() and len(shop.pids()) == 4, shop.tail)
    exercise.is_over()


def test_deploy_with_a_new_layout(shop: Any, drill: Drills) -> None:
    """A segment of an older layout lies there, with a process that uses it."""
    shop.ask("/get_many", key="key", times=100)
    exercise = drill("deploy-with-a-new-layout", shop)
    [new] = SHM_DIR.glob(f"accelerator.*.{shop.name}.*")
    shop.shell("./end")
    old = new.with_name(f"{new.name[:-8]}0badc0de")
    new.rename(old)
    with old.open("r+b") as file:
        file.seek(12)
        file.write(struct.pack("<I", 0x0BADC0DE))
    with used_by_another(old) as user:
        shop.shell("./start")
        shop.wait()
        shop.ask("/get_many", key="key", times=3)
        exercise.symptoms()
        exercise.run("Quick checks")
        user.kill()
        user.wait()
        content = old.read_bytes()

        def let_a_minute_pass() -> None:
            """Whatever attaches on this machine, of any test, collects it then."""
            old.touch(0o600)
            old.write_bytes(content)
            os.utime(old, (0, time.time() - 61))

        exercise.run_next("Mitigation", let_a_minute_pass)
        exercise.run("Mitigation")
    assert not old.exists()
    exercise.is_over()


def test_hot_key(shop: Any, drill: Drills) -> None:
    """One key has nearly all reads, and its loader is slow when it ends."""
    shop.ask("/get", key="hot")
    exercise = drill("hot-key", shop)
    exercise.variables["KEY"] = "hot"
    read = shop.meanwhile("/get_many", key="hot", times=1_000_000)
    exercise.symptoms()
    top, hashed = exercise.run_next("Quick checks").rstrip().rsplit("\n", 1)
    assert hashed in re.findall(r"hottest keys.*\n.* (\w{16}) ", top)
    exercise.run("Quick checks")
    read.result(20)
    exercise.run("Mitigation")
    shop.ask("/expire", key="hot")
    shop.truth(slow=0.4, hot="too late")
    assert "value of hot" == shop.ask("/get", key="hot")
    assert 1 == counter(shop, "stale_fallback")
    exercise.is_over()


def test_wrong_data_suspected(linked: Any, drill: Drills) -> None:
    """A row is changed, and nobody tells the cache."""
    shop = linked
    assert "value of key" == shop.ask("/get", key="key")
    shop.truth(key="right")
    exercise = drill("wrong-data-suspected", shop)
    exercise.variables["KEY"] = "key"
    assert "value of key" == shop.ask("/get", key="key")
    exercise.run("Quick checks")
    assert "right" == shop.ask("/get", key="key")  # it was the cache: off, the value is right
    exercise.run_next("Mitigation")
    assert "right" == shop.ask("/get", key="key")
    exercise.run("Mitigation")
    exercise.is_over()


def test_the_endpoint(shop: Any, drill: Drills) -> None:
    """Everything that the page answers, and that it changes nothing."""
    if shutil.which("curl") is None:
        pytest.skip("there is no curl")
    shop.ask("/get", key="key")
    drill("the-endpoint", shop).run("")


# --- what happens to a host ----------------------------------------------------------------------


def rights(namespace: str) -> Iterator[list[str]]:
    """The command of the documentation that makes a user who may do what is needed."""
    [line] = re.findall(r"^ACL SETUSER .*$", USE_REDIS.read_text("utf-8"), re.MULTILINE)
    words = line.replace(">PASSWORD", ">secret").split()
    yield [
        namespace if word == "shop" else word.replace("shop:", f"{namespace}:") for word in words
    ]


def used_by_another(path: Path) -> Any:
    """A process that holds a lock of a segment, as every process does that uses one."""
    code = (
        "import fcntl, sys\nfile = open(sys.argv[1], 'r+b')\n"
        "fcntl.lockf(file, fcntl.LOCK_EX, 1, (1 << 40) + 99)\nprint(flush=True)\nsys.stdin.read()"
    )
    user = subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert user.stdout is not None
    assert b"\n" == user.stdout.readline()
    return user


def counter(shop: Any, name: str, area: str = "prices") -> int:
    return int(shop.diagnostics()["areas"][area][name])


def asked_processes(shop: Any) -> set[str]:
    """Workers that were asked for the key."""
    return set(re.findall(r"\[(\d+)\] INFO is asked for key", shop.log.read_text()))


def waiters(shop: Any) -> int:
    return sum(each["waiters"] for each in shop.diagnostics()["flights"])


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def until(condition: Callable[[], object], told: Callable[[], object] = lambda: "") -> None:
    deadline = time.monotonic() + 20.0
    while not condition():
        assert time.monotonic() < deadline, f"it never came true\n{told()}"
        time.sleep(0.02)
