"""
attach, configure, detach: what this process is attached to; what is degraded, and why.

One attachment per process, made by the hook or by the first use of a cache, whichever comes first.
A forked child is another process, and notices by itself: its segment has no incarnation.  (Hooks of
os.register_at_fork are not run by every server that forks.)

Nothing here raises into a request or into a server's hook unless ``strict``: what cannot be shared
runs on memory of this process, is logged once, and is shown by :func:`diagnostics`.
"""

from __future__ import annotations

import logging
import os
import sys
import weakref
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypedDict

from accelerator import local, segment
from accelerator.config import Settings, derived_name
from accelerator.entry import CacheMode
from accelerator.errors import CacheError, ConfigError, NotAttached
from accelerator.lazy import Importing
from accelerator.observability import diagnostics as view
from accelerator.observability import oplog, particulars

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import timedelta
    from typing import Unpack

    from accelerator.second import SecondLevel

LOG: Final = logging.getLogger("accelerator")

PRIVATE_SIZE: Final = 64 << 20
"""Most memory that a process takes for itself when it should have shared a segment."""
_MAX_VALUE_SIZE: Final = 1 << 20  # of an area that says nothing; a segment is laid out for it


class SettingValues(TypedDict, total=False):
    """Settings as attach() and configure() take them; see Settings."""

    name: str | None
    size: int | str
    local: str
    mode: CacheMode | str | None
    redis: Any
    remote: Any
    namespace: str | None
    redis_timeout: float | str | timedelta
    reconnect: tuple[float | str | timedelta, float | str | timedelta]
    freshness_bound: float | str | timedelta
    secret: str | bytes | list[str | bytes] | None
    strict: bool


@dataclass(frozen=True, slots=True)
class Attachment:
    """What this process uses as L1."""

    memory: local.Segment
    settings: Settings
    name: str
    request: segment.Request | None = None
    """How the segment was asked for; None: it is memory of this process alone."""
    degraded: str | None = None
    """Why this is not what the settings ask for; None: it is."""
    second: SecondLevel | None = None
    """Redis behind it, if the settings have one; nothing is connected before it is used."""

    @property
    def shared(self) -> bool:
        """Whether other processes see what this one stores."""
        return self.request is not None

    @property
    def entered(self) -> bool:
        """False in the child of the process that attached, and after the segment was unlinked."""
        return self.request is None or self.memory.incarnation != 0


class _Runtime:
    """The state of this process."""

    def __init__(self) -> None:
        self.lock = segment.PatientLock()
        self.attachment: Attachment | None = None
        self.configured: dict[str, Any] = {}
        # By id: a subclass may define equality; and a copy of it can be taken while others add.
        self.caches: weakref.WeakValueDictionary[int, local.AreaBase] = (
            weakref.WeakValueDictionary()
        )
        self.former: Attachment | None = None
        self.max_value_size = _MAX_VALUE_SIZE
        self.spare: local.Segment | None = None
        self.spare_second: SecondLevel | None = None
        self.complained: set[str | None] = set()

    def use(self, attachment: Attachment | None) -> None:
        """Make every cache bind anew at its next operation."""
        self.former = self.attachment  # kept: other threads may be inside its memory right now
        self.attachment = attachment
        oplog.use(None if attachment is None else attachment.memory)
        second, self.spare_second = self.spare_second, None
        if second is not None:
            second.stop()
        for reference in self.caches.valuerefs():
            cache = reference()
            if cache is not None:
                cache._unbind()


_runtime = _Runtime()


# --- the public functions -----------------------------------------------------------------------


def attach(worker: object = None, /, **settings: Unpack[SettingValues]) -> None:
    """
    Attach this process to the segment of its application; create the segment if there is none.

    To be set as Gunicorn's ``post_worker_init``, or called once per process; without it, the first
    use of a cache attaches.  Idempotent.

    Args:
        worker: Gunicorn's worker, when it is the hook.
        settings: Settings of this process; they count more than those of configure() and of the
            environment.

    Raises:
        CacheError: Only with ``strict``.  Otherwise one ERROR or WARNING is logged, and this
            process caches in its own memory.

    Blocks while another process creates the segment; never waits for Redis.
    """
    strict = _is_strict(settings)
    try:
        with _runtime.lock.held():
            _attach_locked(settings, worker, strict=strict)
    except Exception as error:
        if strict:
            raise
        _carry_on(error)


def configure(**settings: Unpack[SettingValues]) -> None:
    """
    Give settings before this process attaches; attach() may override them.

    Args:
        settings: Durations are seconds, timedelta, or text such as "5m", sizes are bytes or text
            such as "64MiB".

    Raises:
        ConfigError: A setting is wrong, not supported, or comes after this process has attached.

    Blocks while another thread attaches; never waits for Redis.
    """
    with _runtime.lock.held():
        merged = {**_runtime.configured, **settings}
        resolved = _resolve({}, merged)
        _check_remote(resolved)
        attachment = _runtime.attachment
        if attachment is not None:
            changed = _differences(settings, resolved, attachment.settings)
            if changed:
                raise ConfigError(
                    f"{', '.join(changed)} cannot change after this process has attached: call "
                    "configure() before the first use of a cache",
                    setting=changed[0],
                )
        _runtime.configured = merged


def detach() -> None:
    """
    Leave the segment.  The next use of a cache attaches again.

    Not needed at exit: the kernel notices that a process is gone.  Ends this process's connections
    to Redis; blocks while another thread attaches.
    """
    with _runtime.lock.held():
        attachment = _runtime.attachment
        if attachment is not None and attachment.shared and attachment.entered:
            oplog.recorded("", "detach", "ok", oplog.started())
        _runtime.use(None)
        _runtime.complained.clear()
        if attachment is not None and attachment.second is not None:
            attachment.second.stop()
        if attachment is not None and attachment.shared:
            segment.leave(attachment.memory)


def on_child_exit(server: object, worker: object) -> None:
    """
    Free at once what a worker held that has ended; to be set as Gunicorn's ``child_exit``.

    Optional: the others find out by themselves, a little later.  Runs in the master, perhaps as
    root and without the application: attaches nothing, creates nothing, never raises.  Waits for
    another thread that is busy with segments for at most 50 ms.
    """
    try:
        if segment.AVAILABLE:
            pid = int(getattr(worker, "pid", 0))
            uid = getattr(getattr(server, "cfg", None), "uid", None)
            segment.reap(pid, os.geteuid() if uid is None else int(uid))
    except Exception:  # an exception in this hook would stop the server
        LOG.debug("could not free what a dead worker held", exc_info=True)


def diagnostics() -> dict[str, Any]:
    """
    Show everything there is to see on this host, for an operator, times in seconds.

    Attaches nothing, asks Redis nothing, does not block.
    """
    attachment = _runtime.attachment
    if attachment is None:
        return view.detached()
    request = attachment.request
    return view.attached(
        name=attachment.name,
        path=None if request is None else str(request.file.path),
        settings=attachment.settings.describe(),
        degraded=attachment.degraded,
        stats=attachment.memory.stats(),
        remote=None if attachment.second is None else attachment.second.describe(),
        told=particulars.of_areas(attachment.memory),
        overrides=particulars.in_force(attachment.memory),
    )


# --- for LevelCache -----------------------------------------------------------------------------


def add(cache: local.AreaBase, max_value_size: int) -> None:
    """Know a cache: it has to bind anew after detach(), and a new segment must fit its values."""
    _runtime.caches[id(cache)] = cache
    _runtime.max_value_size = max(_runtime.max_value_size, max_value_size)


def current() -> Attachment:
    """
    What caches bind to.  Attaches if this process is not attached (any more).

    Raises:
        CacheError: Only with ``strict``.
    """
    attachment = _runtime.attachment
    if attachment is not None and attachment.entered:
        return attachment
    with _runtime.lock.held():
        attachment = _runtime.attachment
        if attachment is not None and attachment.entered:
            return attachment
        strict = _is_strict({})
        try:
            if attachment is None:
                return _first(_resolve({}, _runtime.configured), None, strict=strict)
            return _enter_again(attachment, None, strict=strict)
        except Exception as error:
            if strict:
                raise
            _complain(error)
            return _degrade(error)


def entered() -> Attachment | None:
    """What this process is attached to; None: to nothing.  Attaches nothing, unlike current()."""
    attachment = _runtime.attachment
    return attachment if attachment is not None and attachment.entered else None


def spare_memory() -> local.Segment:
    """Memory of this process for areas that the segment has no room for in its table."""
    with _runtime.lock.held():
        if _runtime.spare is None:
            _runtime.spare = local.private_segment(PRIVATE_SIZE, _runtime.max_value_size)
        return _runtime.spare


def spare_second() -> SecondLevel | None:
    """Redis behind the spare memory: one for all areas there, as it has a thread."""
    memory = spare_memory()
    with _runtime.lock.held():
        if _runtime.spare_second is None and _runtime.attachment is not None:
            _runtime.spare_second = second_level(memory, _runtime.attachment.settings)
        return _runtime.spare_second


def swap(attachment: Attachment | None) -> Attachment | None:
    """Tests: use *attachment* instead of what there is, and give that back."""
    with _runtime.lock.held():
        former = _runtime.attachment
        _runtime.use(attachment)
    return former


# --- attaching, under the lock ------------------------------------------------------------------


def _attach_locked(call: Mapping[str, Any], worker: object, *, strict: bool) -> None:
    resolved = _resolve(call, _runtime.configured)
    attachment = _runtime.attachment
    if attachment is None:
        _first(resolved, worker, strict=strict)
        return
    if attachment.shared:
        _enter_again(attachment, worker, strict=strict)
    changed = _differences(call, resolved, attachment.settings)
    if changed:
        raise ConfigError(
            f"{', '.join(changed)} cannot change, this process has attached with other settings: "
            "give them in the first attach(), in configure(), or in the environment",
            setting=changed[0],
        )


def _first(settings: Settings, worker: object, *, strict: bool) -> Attachment:
    """Attach a process that is not attached."""
    settings = _with_sound_remote(settings, strict=strict)
    name = settings.name or derived_name(_app_uri(worker))
    private = _why_private(settings)
    if private is not None:
        LOG.info("%s: this process caches in its own memory", private)
        _runtime.use(_private(settings, name))
        return _attached()
    if not local.NATIVE or not segment.AVAILABLE:
        reason = "the native part of accelerator is not installed"
        # On Linux it should be there; elsewhere it cannot be.
        level = logging.WARNING if sys.platform == "linux" else logging.INFO
        LOG.log(level, "%s: this process caches in its own memory", reason)
        _runtime.use(_private(settings, name, degraded=reason))
        return _attached()
    return _share(settings, name, worker, strict=strict)


def _share(settings: Settings, name: str, worker: object, *, strict: bool) -> Attachment:
    since = oplog.started()
    request = segment.Request(
        file=segment.own_file(name),
        size=settings.size or segment.auto_size(),
        max_value_size=_runtime.max_value_size,
        supervisor=_supervisor(worker),
        heartbeat=_heartbeat(worker),
    )
    try:
        mapped = segment.attach(request)
    except NotAttached as error:
        if strict:
            raise
        LOG.warning("%s.  This process caches in its own memory, alone.", error)
        _runtime.use(_private(settings, name, degraded=str(error)))
        return _attached()
    _runtime.use(Attachment(mapped, settings, name, request, second=second_level(mapped, settings)))
    oplog.recorded("", "attach", "ok", since)
    LOG.info(
        "attached to %s: %.1f MiB, incarnation %d, name %s%s",
        request.file.path,
        mapped.size / 2**20,
        mapped.incarnation,
        name,
        "" if settings.name else " (derived: set one to share it from other directories)",
    )
    return _attached()


def _attached() -> Attachment:
    attachment = _runtime.attachment
    assert attachment is not None
    return attachment


def _enter_again(attachment: Attachment, worker: object, *, strict: bool) -> Attachment:
    """
    Enter what this process knew before: after a fork, after the segment was replaced, or with a
    worker at hand that tells who the supervisor is.
    """  # noqa: D205  one sentence
    request = attachment.request
    assert request is not None
    supervisor = _supervisor(worker)
    if attachment.entered and supervisor in {None, request.supervisor}:
        return attachment
    request = replace(request, supervisor=supervisor, heartbeat=_heartbeat(worker))
    was_entered, since = attachment.entered, oplog.started()
    try:
        mapped = segment.attach(request)
    except NotAttached as error:
        if strict:
            raise
        LOG.warning("%s.  From now on this process caches in its own memory, alone.", error)
        _runtime.use(_private(attachment.settings, attachment.name, degraded=str(error)))
        return _attached()
    second = attachment.second
    if mapped is not attachment.memory:
        if second is not None:
            second.stop()
        second = second_level(mapped, attachment.settings)
    entered = replace(attachment, memory=mapped, request=request, second=second)
    if mapped is attachment.memory:
        _runtime.attachment = entered  # the caches are bound to it
    else:
        _runtime.use(entered)
    if not was_entered:
        oplog.recorded("", "attach", "ok", since)
    return entered


def _private(settings: Settings, name: str, degraded: str | None = None) -> Attachment:
    """Memory of this process alone."""
    size = settings.size or segment.AUTO_SIZE
    if degraded is not None:
        size = min(size, PRIVATE_SIZE)  # every worker takes it, not all of them together
    memory = local.private_segment(size, _runtime.max_value_size)
    second = second_level(memory, settings)
    return Attachment(memory, settings, name, degraded=degraded, second=second)


def second_level(memory: local.Segment, settings: Settings) -> SecondLevel | None:
    """Make what stands for Redis behind *memory*; None: the settings have none."""
    if not settings.has_remote:
        return None
    with Importing():
        from accelerator.second import SecondLevel  # noqa: PLC0415  only where there is one

    return SecondLevel(memory, settings)


def _why_private(settings: Settings) -> str | None:
    if settings.mode is CacheMode.OFF:
        return "mode='off', nothing is cached"
    return "local='process'" if settings.local == "process" else None


def _carry_on(error: Exception) -> None:
    """Log why attach() could not do what it was asked, and see to it that caches work."""
    _complain(error)
    try:
        with _runtime.lock.held():
            if _runtime.attachment is None:
                _degrade(error)
    except Exception:
        LOG.exception("attach: no cache at all")


def _complain(error: Exception) -> None:
    """One ERROR per setting, however many workers' hooks and caches run into it."""
    setting = getattr(error, "setting", None)
    if setting not in _runtime.complained:
        _runtime.complained.add(setting)
        expected = isinstance(error, CacheError)
        what = f"setting {setting}" if setting else type(error).__name__
        LOG.error("attach: %s: %s", what, error, exc_info=None if expected else error)


def _degrade(error: Exception) -> Attachment:
    """Own memory and default settings, because the settings given cannot be followed."""
    settings = Settings()
    name = _runtime.attachment.name if _runtime.attachment else derived_name()
    _runtime.use(_private(settings, name, degraded=str(error)))
    return _attached()


# --- settings -----------------------------------------------------------------------------------


def _resolve(call: Mapping[str, Any], configured: Mapping[str, Any]) -> Settings:
    settings = Settings.resolve(call, configured, os.environ)
    if settings.size is not None and settings.size < segment.MIN_SIZE:
        raise ConfigError(f"size must be at least {segment.MIN_SIZE >> 20} MiB", setting="size")
    return settings


def _is_strict(call: Mapping[str, Any]) -> bool:
    """Whether to raise; the settings as a whole may be the very thing that is wrong."""
    for given in (call, _runtime.configured):
        if "strict" in given:
            return given["strict"] is True
    text = os.environ.get("ACCELERATOR_STRICT", "")
    try:
        return Settings.resolve({}, {}, {"ACCELERATOR_STRICT": text}).strict
    except ConfigError:
        return False


def _differences(call: Mapping[str, Any], wanted: Settings, in_force: Settings) -> list[str]:
    """Settings that were asked for and are not in force."""
    return [name for name in call if getattr(wanted, name) != getattr(in_force, name)]


def _check_remote(settings: Settings) -> None:
    if settings.remote_problem is not None:
        raise ConfigError(settings.remote_problem, setting=settings.remote_setting)


def _with_sound_remote(settings: Settings, *, strict: bool) -> Settings:
    """LOCAL mode instead of no cache at all."""
    try:
        _check_remote(settings)
    except ConfigError as error:
        if strict:
            raise
        name = settings.remote_setting
        LOG.error("attach: setting %s: %s; until then areas are LOCAL", name, error)  # noqa: TRY400
        mode = CacheMode.OFF if settings.mode is CacheMode.OFF else None
        size: Any = settings.size or "auto"
        settings = replace(settings, redis=None, remote=None, mode=mode, size=size)
    return settings


# --- Gunicorn -----------------------------------------------------------------------------------


def _app_uri(worker: object) -> str | None:
    uri = getattr(getattr(worker, "app", None), "app_uri", None)
    return uri if isinstance(uri, str) else None


def _heartbeat(worker: object) -> Any:
    notify = getattr(worker, "notify", None)
    return notify if callable(notify) else int  # int() does nothing


def _supervisor(worker: object) -> segment.Supervisor | None:
    """Find the Gunicorn master above this process, if there is one."""
    pid = getattr(worker, "ppid", None)
    if not isinstance(pid, int):
        if "gunicorn.arbiter" not in sys.modules or not _parent_is_gunicorn():
            return None
        pid = os.getppid()
    start_time = segment.process_start_time(pid)
    return None if start_time is None else segment.Supervisor(pid, start_time)


def _parent_is_gunicorn() -> bool:
    """Tell a worker from a master that uses a cache itself (``preload_app``)."""
    try:
        parent = Path(f"/proc/{os.getppid()}/cmdline").read_bytes()
        return parent.startswith(b"gunicorn: master") or (
            parent == Path("/proc/self/cmdline").read_bytes()
        )
    except OSError:
        return False
