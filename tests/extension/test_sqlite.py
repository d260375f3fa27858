"""The example of a second level in a file keeps to the protocols."""

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from accelerator.testing import RemoteBackendSuite, SubscriberSuite

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "sqlite_backend.py"

pytestmark = pytest.mark.skipif(not EXAMPLE.exists(), reason="only the package is here")


def load() -> Any:
    """Import the example, once."""
    if "sqlite_backend" not in sys.modules:
        spec = importlib.util.spec_from_file_location("sqlite_backend", EXAMPLE)
        assert spec is not None
        assert spec.loader is not None
        sys.modules["sqlite_backend"] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules["sqlite_backend"]


class Given:
    """What the suites ask for."""

    @pytest.fixture
    def backend(self, tmp_path: Path) -> Iterator[Any]:
        made = load().SqliteBackend(tmp_path / "cache.db", wait=10.0)
        yield made
        made.close()

    @pytest.fixture
    def another(self, backend: Any, tmp_path: Path) -> Iterator[Any]:
        made = load().SqliteBackend(tmp_path / "cache.db", wait=10.0)
        yield made
        made.close()


class TestBackend(Given, RemoteBackendSuite):
    pass


class TestSubscriber(Given, SubscriberSuite):
    pass
