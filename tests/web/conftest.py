"""A real browser, if there is one, and the page served by its own command."""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from accelerator import local, segment


def load(name: str) -> ModuleType:
    """Import what is no test."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """One for all tests."""
    if not (local.NATIVE and segment.AVAILABLE):
        pytest.skip("segments need the native part")
    module = load("browser")
    program = module.find()
    if program is None:
        pytest.skip("there is no Chromium here: install chromium, or set CHROMIUM")
    running = module.Browser(program)
    yield running
    running.close()


@pytest.fixture
def serve() -> Iterator[Callable[..., Any]]:
    """Start ``accelerator web`` for a segment: the process and the URL."""
    started: list[subprocess.Popen[str]] = []

    def start(name: str, port: int = 0, *options: str) -> tuple[subprocess.Popen[str], str]:
        command = [sys.executable, "-m", "accelerator", "web", "--name", name, "--port", str(port)]
        process = subprocess.Popen(
            [*command, *options], stdout=subprocess.PIPE, text=True, env=dict(os.environ)
        )
        started.append(process)
        assert process.stdout is not None
        return process, process.stdout.readline().split()[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()
