"""attach, configure, detach: which settings count, what is refused, what is degraded."""

import inspect
import logging
import os
import stat
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import accelerator
from accelerator import ConfigError, LevelCache, NotAttached, local, runtime, segment
from accelerator.errors import CacheError

needs_segments = pytest.mark.skipif(
    not (local.NATIVE and segment.AVAILABLE), reason="segments need the native part"
)
SHM_DIR = Path("/dev/shm")


@pytest.fixture
def name() -> Iterator[str]:
    unique = f"test-{uuid.uuid4().hex[:12]}"
    yield unique
    for path in SHM_DIR.glob(f"accelerator.*.{unique}*"):
        path.unlink()


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A process that has not attached, in a directory that no other application has."""
    monkeypatch.setattr(runtime, "_runtime", runtime._Runtime())
    monkeypatch.chdir(tmp_path)
    yield
    attachment = runtime._runtime.attachment
    accelerator.detach()
    if attachment is not None and attachment.request is not None:
        attachment.request.file.path.unlink(missing_ok=True)


def attachment() -> runtime.Attachment:
    found = runtime._runtime.attachment
    assert found is not None
    return found


def messages(caplog: pytest.LogCaptureFixture, level: int) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == level]


@needs_segments
class TestAttach:
    def test_signature(self) -> None:
        """Gunicorn accepts a hook by its number of positional parameters."""
        positional = {inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD}
        for hook, arity in ((accelerator.attach, 1), (accelerator.on_child_exit, 2)):
            parameters = inspect.signature(hook).parameters.values()
            assert arity == sum(parameter.kind in positional for parameter in parameters)

    def test_shared(self, name: str, caplog: pytest.LogCaptureFixture) -> None:
        """One call, one segment, one line."""
        caplog.set_level(logging.INFO, "accelerator")
        accelerator.attach(name=name)
        assert attachment().shared
        assert attachment().degraded is None
        lines = [line for line in messages(caplog, logging.INFO) if "attached to" in line]
        assert 1 == len(lines)
        assert name in lines[0]

    def test_idempotent(self, name: str, caplog: pytest.LogCaptureFixture) -> None:
        """Calling it again changes nothing and complains about nothing."""
        caplog.set_level(logging.INFO, "accelerator")
        accelerator.attach(name=name)
        cache = LevelCache()
        cache.set("key", 1)
        accelerator.attach(name=name)
        accelerator.attach()
        assert 1 == cache.get("key")
        assert 1 == len([line for line in messages(caplog, logging.INFO) if "attached" in line])
        assert [] == messages(caplog, logging.ERROR)

    def test_lazy(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """The first use of a cache attaches, as the environment says then."""
        cache = LevelCache()
        assert runtime._runtime.attachment is None
        monkeypatch.setenv("ACCELERATOR_NAME", name)
        cache.set("key", 1)
        assert name == attachment().name

    def test_precedence(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """The call counts more than configure(), that more than the environment."""
        monkeypatch.setenv("ACCELERATOR_NAME", "from-environment")
        monkeypatch.setenv("ACCELERATOR_SIZE", "8MiB")
        monkeypatch.setenv("ACCELERATOR_FRESHNESS_BOUND", "9s")
        accelerator.configure(name="from-configure", size="16MiB")
        accelerator.attach(name=name)
        settings = attachment().settings
        assert (name, 16 << 20, 9.0) == (settings.name, settings.size, settings.freshness_bound)
        assert 16 << 20 == attachment().memory.size

    def test_other_settings_later(self, name: str, caplog: pytest.LogCaptureFixture) -> None:
        """Settings other than those in force: an ERROR once, and the first ones stay."""
        accelerator.attach(name=name)
        for _ in range(3):
            accelerator.attach(name=f"{name}-b")
        assert name == attachment().name
        (line,) = messages(caplog, logging.ERROR)
        assert "setting name" in line
        with pytest.raises(ConfigError) as raised:
            accelerator.attach(name=f"{name}-b", strict=True)
        assert "name" == raised.value.setting

    def test_many_threads(self, name: str) -> None:
        """Threads that use their first cache together attach once."""
        accelerator.configure(name=name)
        cache = LevelCache()
        start = threading.Barrier(8)

        def run() -> None:
            start.wait()
            cache.incr("count")

        threads = [threading.Thread(target=run) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert 8 == cache.get("count")
        assert 1 == len(attachment().memory.alive())

    def test_derived_name(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """Without a name: by directory and application, so that strangers do not meet."""
        worker = SimpleNamespace(app=SimpleNamespace(app_uri="shop:app"), ppid=None)
        accelerator.attach(worker)
        first = attachment().name
        path = attachment().memory.name
        accelerator.detach()
        SHM_DIR.joinpath(attachment_file(first)).unlink()
        accelerator.attach(SimpleNamespace(app=SimpleNamespace(app_uri="blog:app"), ppid=None))
        assert first == path
        assert first != attachment().name

    def test_values_size_the_segment(self, name: str) -> None:
        """A new segment is laid out for the largest values of the caches that there are."""
        LevelCache("large", max_value_size="4MiB")
        accelerator.attach(name=name, size="64MiB")
        assert attachment().memory.max_item > 4 << 20

    def test_default_fits_default(self, name: str) -> None:
        """Any value up to the default max_value_size fits a segment of default size."""
        accelerator.attach(name=name)
        cache = LevelCache()
        cache.set("key", b"x" * (1 << 20))
        assert 1 << 20 == len(cache.get("key"))

    def test_odd_size(self, name: str) -> None:
        """A size need not be a number of whole pages."""
        accelerator.attach(name=name, size=10_000_001, strict=True)
        assert 10_000_001 // 4096 * 4096 == attachment().memory.size

    def test_detach(self, name: str) -> None:
        """After detach() the process is gone from the segment; the next use attaches again."""
        accelerator.attach(name=name)
        cache = LevelCache()
        cache.set("key", 1)
        memory = attachment().memory
        accelerator.detach()
        assert [] == [each for each in memory.alive() if each["alive"]]
        assert not cache._bound
        accelerator.configure(name=name)
        assert cache.get("key") is None  # nobody was there to hear deletes
        assert attachment().memory is memory
        accelerator.detach()
        accelerator.detach()


def attachment_file(name: str) -> str:
    return segment.own_file(name).path.name


class TestBadSettings:
    BAD: tuple[dict[str, Any], ...] = (
        {"name": "Not A Name"},
        {"size": "much"},
        {"size": "2MiB"},
        {"local": "nowhere"},
        {"mode": "both"},
        {"nonsense": 1},
        {"freshness_bound": -1},
        {"redis": "http://example.com"},
    )

    @pytest.mark.parametrize("bad", BAD, ids=str)
    def test_attach_does_not_raise(
        self, bad: dict[str, Any], caplog: pytest.LogCaptureFixture
    ) -> None:
        """A hook must not stop the server: one ERROR with the setting, and own memory."""
        accelerator.attach(**bad)
        (line,) = messages(caplog, logging.ERROR)
        assert f"setting {next(iter(bad))}" in line
        cache = LevelCache()
        cache.set("key", 1)
        assert 1 == cache.get("key")
        assert not attachment().shared
        assert accelerator.diagnostics()["degraded"]

    @pytest.mark.parametrize("bad", BAD, ids=str)
    def test_strict(self, bad: dict[str, Any]) -> None:
        """With strict it raises, and attaches nothing."""
        with pytest.raises(ConfigError) as raised:
            accelerator.attach(**bad, strict=True)
        assert next(iter(bad)) == raised.value.setting
        assert runtime._runtime.attachment is None

    @pytest.mark.parametrize("bad", BAD, ids=str)
    def test_configure(self, bad: dict[str, Any], name: str) -> None:
        """configure() raises, and keeps what was configured before."""
        accelerator.configure(name=name)
        with pytest.raises(ConfigError):
            accelerator.configure(**bad)
        assert {"name": name} == runtime._runtime.configured

    def test_environment(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A bad variable is named; a first use of a cache does not raise either."""
        monkeypatch.setenv("ACCELERATOR_SIZE", "much")
        cache = LevelCache()
        cache.set("key", 1)
        assert 1 == cache.get("key")
        (line,) = messages(caplog, logging.ERROR)
        assert "setting size" in line
        assert "ACCELERATOR_SIZE" in line

    @pytest.mark.parametrize("text", ["1", "true", "yes"])
    def test_strict_environment(self, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
        """It may come from the environment."""
        monkeypatch.setenv("ACCELERATOR_STRICT", text)
        with pytest.raises(ConfigError):
            accelerator.attach(size="much")
        monkeypatch.setenv("ACCELERATOR_SIZE", "much")
        with pytest.raises(ConfigError):
            LevelCache().get("key")

    def test_redis(self, caplog: pytest.LogCaptureFixture) -> None:
        """Redis without a name that other hosts know: an ERROR, and LOCAL mode."""
        with pytest.raises(ConfigError, match="explicit name or namespace"):
            accelerator.configure(redis="redis://localhost")
        accelerator.attach(redis="redis://localhost", local="process")
        assert any("redis" in line for line in messages(caplog, logging.ERROR))
        assert "local" == LevelCache().diagnostic_snapshot()["mode"]

    def test_unexpected(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str
    ) -> None:
        """Even a fault of our own does not stop the server."""

        def fail(*_: object, **__: object) -> None:
            raise RuntimeError("a fault")

        monkeypatch.setattr(runtime, "_with_sound_remote", fail)
        accelerator.attach(name=name)
        assert 1 <= len(messages(caplog, logging.ERROR))
        cache = LevelCache()
        cache.set("key", 1)
        assert 1 == cache.get("key")


class TestConfigure:
    def test_adds_up(self, name: str) -> None:
        """Later calls add to earlier ones."""
        accelerator.configure(name=name)
        accelerator.configure(size="8MiB")
        assert {"name": name, "size": "8MiB"} == runtime._runtime.configured

    def test_after_attach(self, name: str) -> None:
        """Too late for what is in force; repeating it is fine."""
        accelerator.attach(name=name, size="8MiB")
        accelerator.configure(name=name)
        with pytest.raises(ConfigError, match="size cannot change") as raised:
            accelerator.configure(size="16MiB")
        assert "size" == raised.value.setting


class TestOwnMemory:
    def test_on_purpose(self, name: str, caplog: pytest.LogCaptureFixture) -> None:
        """local="process": no segment, no warning, not degraded."""
        caplog.set_level(logging.INFO, "accelerator")
        accelerator.attach(name=name, local="process", size="8MiB")
        assert (False, None) == (attachment().shared, attachment().degraded)
        assert 8 << 20 == attachment().memory.size
        assert [] == messages(caplog, logging.WARNING)
        assert not list(SHM_DIR.glob(f"*{name}*"))

    def test_off(self, name: str) -> None:
        """mode="off": nothing is cached, in any area."""
        accelerator.attach(name=name, mode="off")
        cache = LevelCache()
        cache.set("key", 1)
        cache.mset({"key": 1, "other": {"a": 1}})
        assert cache.get("key") is None
        assert "key" not in cache
        assert cache.add("key", 1) is True
        assert 1 == cache.incr("count")
        assert 1 == cache.incr("count")
        assert cache.touch("key") is False
        assert cache.delete("key") is False
        assert "loaded" == cache.get_or_load("key", lambda _: "loaded")
        assert "key" not in cache
        assert "off" == cache.diagnostic_snapshot()["mode"]
        assert not list(SHM_DIR.glob(f"*{name}*"))

    @needs_segments
    def test_refused(self, name: str, caplog: pytest.LogCaptureFixture) -> None:
        """A squatted name: one loud WARNING with the reason, and a bounded amount of own memory."""
        path = segment.own_file(name).path
        os.mkfifo(path)
        accelerator.attach(name=name, size="1GiB")
        (line,) = messages(caplog, logging.WARNING)
        assert "not a regular file" in line
        assert "in its own memory" in line
        assert runtime.PRIVATE_SIZE == attachment().memory.size
        shown = accelerator.diagnostics()
        assert ("process", None) == (shown["local"], shown["path"])
        assert "not a regular file" in shown["degraded"]
        assert stat.S_ISFIFO(path.stat().st_mode)

    @needs_segments
    def test_refused_strict(self, name: str) -> None:
        """With strict it is an error."""
        os.mkfifo(segment.own_file(name).path)
        with pytest.raises(NotAttached, match="not a regular file"):
            accelerator.attach(name=name, strict=True)
        accelerator.configure(name=name, strict=True)
        with pytest.raises(NotAttached, match="not a regular file"):
            LevelCache().get("key")


@needs_segments
class TestLife:
    def test_unlinked(self, name: str) -> None:
        """When the segment was unlinked by force, a process moves on to a new one by itself."""
        accelerator.attach(name=name)
        cache = LevelCache()
        cache.set("key", 1)
        segment.unlink(name, os.geteuid(), force=True)
        deadline = time.monotonic() + 10
        while cache.get("key") is not None and time.monotonic() < deadline:
            time.sleep(0.01)
        assert cache.get("key") is None
        cache.set("key", 2)
        assert segment.own_file(name).path.exists()
        assert 2 == cache.get("key")
        other = LevelCache("other")
        other.set("key", 3)
        assert {"default", "other"} == set(attachment().memory.stats()["areas"])

    def test_more_areas_than_places(self, name: str, caplog: pytest.LogCaptureFixture) -> None:
        """When the table of areas is full, further areas work in memory of this process."""
        accelerator.attach(name=name, size="4MiB")
        places = attachment().memory.stats()["segment"]["area_slots"]
        caches = [LevelCache(f"area-{number}") for number in range(places + 3)]
        for number, cache in enumerate(caches):
            cache.set("key", number)
        assert list(range(places + 3)) == [cache.get("key") for cache in caches]
        assert 3 == len([line for line in messages(caplog, logging.WARNING) if "alone" in line])


class TestDiagnostics:
    def test_detached(self) -> None:
        """Looking attaches nothing."""
        assert {"pid": os.getpid(), "attached": False} == accelerator.diagnostics()
        assert runtime._runtime.attachment is None

    def test_attached(self, name: str) -> None:
        """Segment, areas, processes and settings; no secret."""
        accelerator.attach(name=name, secret="s3cret")
        cache = LevelCache("users")
        cache.set("key", 1)
        cache.get("key")
        cache.get("unknown")
        shown = accelerator.diagnostics()
        users = shown["areas"]["users"]
        assert (1, 1, 0.5) == (users["local_hit"], users["local_miss"], users["hit_ratio"])
        assert (1, 1) == (users["entries"], shown["segment"]["entries"])
        assert [os.getpid()] == [each["pid"] for each in shown["processes"]]
        assert "s3cret" not in repr(shown)


class TestOnChildExit:
    @pytest.mark.parametrize(
        "arguments", [(None, None), (object(), object()), (None, SimpleNamespace(pid="x"))], ids=str
    )
    def test_never_raises(self, arguments: tuple[object, object]) -> None:
        """An exception here would stop the master."""
        accelerator.on_child_exit(*arguments)

    def test_creates_nothing(self) -> None:
        """It neither attaches nor creates."""
        before = set(SHM_DIR.glob("accelerator.*"))
        server = SimpleNamespace(cfg=SimpleNamespace(uid=os.geteuid()))
        accelerator.on_child_exit(server, SimpleNamespace(pid=2**22))
        assert before == set(SHM_DIR.glob("accelerator.*"))
        assert runtime._runtime.attachment is None


class TestReentry:
    @needs_segments
    def test_log_handler_uses_cache(self, name: str) -> None:
        """A handler that uses a cache while it is attached gets an error, not a dead-lock."""
        cache = LevelCache()
        errors: list[CacheError] = []

        class Handler(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                try:
                    cache.get("key")
                except CacheError as error:
                    errors.append(error)

        logger, handler = logging.getLogger("accelerator"), Handler(logging.INFO)
        logger.addHandler(handler)
        level = logger.level
        logger.setLevel(logging.INFO)
        try:
            os.mkfifo(segment.own_file(name).path)
            accelerator.attach(name=name)
        finally:
            logger.removeHandler(handler)
            logger.setLevel(level)
        assert errors
        cache.set("key", 1)
        assert 1 == cache.get("key")
