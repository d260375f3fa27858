"""The example of a second level, for its own tests and those of the suites."""

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "sqlite_backend.py"


@pytest.fixture(scope="session")
def example() -> Any:
    """Import it, once."""
    if not EXAMPLE.exists():
        pytest.skip("only the package is here")
    if "sqlite_backend" not in sys.modules:
        spec = importlib.util.spec_from_file_location("sqlite_backend", EXAMPLE)
        assert spec is not None
        assert spec.loader is not None
        sys.modules["sqlite_backend"] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules["sqlite_backend"]
