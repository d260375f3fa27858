"""What every test gets: a watchdog, hypothesis profiles, and the built package under test."""

import faulthandler
import importlib.util
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import hypothesis
import pytest

ROOT = Path(__file__).parent.parent
WATCHDOG_SECONDS = 120.0
"""Far above the slowest unmarked test on two busy cores; a hang is a hang, not slowness."""
GRACE_SECONDS = 20.0

URL_VARIABLE = "ACCELERATOR_REDIS_URL"
"""The Redis to be tested with, if not one of the tests' own."""

_terminal_fd = pytest.StashKey[int]()

hypothesis.settings.register_profile("dev", max_examples=50, deadline=None)
hypothesis.settings.register_profile(
    "ci", max_examples=200, deadline=None, derandomize=True, print_blob=True
)
hypothesis.settings.register_profile("deep", max_examples=5_000, deadline=None, print_blob=True)


def pytest_configure(config: pytest.Config) -> None:
    """Prepare the process before the first test module is imported."""
    hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))
    forget_settings_of_the_shell()
    refuse_outdated_package()
    config.stash[_terminal_fd] = copy_of_standard_error(config)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Close what pytest_configure opened."""
    fd = config.stash.get(_terminal_fd, None)
    if fd is not None:
        os.close(fd)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """
    End a test that hangs, with the traceback of every thread.

    A signal fails the one test.  If it cannot, because the test hangs in C or with every exception
    caught, faulthandler's own thread, which needs no GIL, ends the whole run a little later.
    """
    marker = item.get_closest_marker("watchdog")
    seconds = marker.args[0] if marker else WATCHDOG_SECONDS
    terminal = item.config.stash[_terminal_fd]

    def fail(signum: int, frame: FrameType | None) -> None:
        faulthandler.dump_traceback(file=terminal)
        pytest.fail(f"hung: no end after {seconds:g} s")

    previous = signal.signal(signal.SIGALRM, fail)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    faulthandler.dump_traceback_later(seconds + GRACE_SECONDS, exit=True, file=terminal)
    try:
        return (yield)
    finally:
        faulthandler.cancel_dump_traceback_later()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def copy_of_standard_error(config: pytest.Config) -> int:
    """Open standard error once more, as it is outside pytest's capture."""
    capture = config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        return os.dup(2)


def forget_settings_of_the_shell() -> None:
    """Keep a developer's ACCELERATOR_* out of the tests, but for what says what is tested."""
    for name in list(os.environ):
        if name.startswith("ACCELERATOR_") and name not in {"ACCELERATOR_PURE", URL_VARIABLE}:
            del os.environ[name]


def refuse_outdated_package() -> None:
    """Stop when the installed package was built from other sources than those beside the tests."""
    spec = importlib.util.find_spec("accelerator")
    if spec is None or spec.origin is None:
        raise pytest.UsageError("accelerator is not installed here: ./dev test")
    sources, installed = ROOT / "accelerator", Path(spec.origin).parent
    outdated = [
        str(source.relative_to(ROOT))
        for source in sources.rglob("*.py")
        if not same(source, installed / source.relative_to(sources))
    ]
    if outdated:
        message = "the installed package is older than {}: ./dev build"
        raise pytest.UsageError(message.format(", ".join(sorted(outdated))))


def same(source: Path, copy: Path) -> bool:
    """Tell whether two files have the same content."""
    return copy.exists() and copy.read_bytes() == source.read_bytes()
