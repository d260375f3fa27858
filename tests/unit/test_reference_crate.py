"""docs/reference/crate.md: nothing of the crate is left out, and each test that it names exists."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import accelerator.protocols  # which is there only when it was asked for
from accelerator import LevelCache
from accelerator.config import AreaConfig, Settings

TESTS = Path(__file__).parents[1]
PAGE = TESTS.parent / "docs" / "reference" / "crate.md"

pytestmark = pytest.mark.skipif(not PAGE.is_file(), reason="only the package is here")


def section(title: str) -> str:
    """What stands under a heading of the second level."""
    text = PAGE.read_text(encoding="utf-8")
    [found] = re.findall(rf"^## {title}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    return str(found)


def rows(title: str) -> list[list[str]]:
    """Cells of all rows of all tables there, heads and rules left out."""
    found = []
    tables = re.findall(r"(?:^\|.*\n)+", section(title), re.MULTILINE)
    for table in tables:
        lines = table.splitlines()[2:]
        found += [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in lines]
    return found


def named_tests(cells: list[str]) -> Iterator[str]:
    """Tests that a row names: file, or file::class::function."""
    for cell in cells:
        yield from re.findall(r"\b[a-z]+/test_\w+\.py(?:::\w+)*", cell)


@cache
def collected(file: str) -> dict[str, str]:
    """The tests of a file and their docstrings, by class::function."""
    tree = ast.parse((TESTS / file).read_text(encoding="utf-8"))
    found = {}
    for node in tree.body:
        inner = node.body if isinstance(node, ast.ClassDef) else [node]
        prefix = f"{node.name}::" if isinstance(node, ast.ClassDef) else ""
        for each in inner:
            if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef):
                found[prefix + each.name] = ast.get_docstring(each) or ""
    return {name: text for name, text in found.items() if "test_" in name}


def problem_with(named: str) -> str | None:
    """Say what is wrong with the name of a test."""
    file, _, rest = named.partition("::")
    if not (TESTS / file).is_file():
        return f"there is no {file}"
    if rest and rest not in collected(file):
        return f"there is no {rest} in {file}"
    return None


class TestTables:
    @pytest.mark.parametrize(
        ("title", "prefix", "last"),
        [("Assertions", "", 74), ("Weaknesses", "W", 47), ("Requirements", "R", 28)],
    )
    def test_complete(self, title: str, prefix: str, last: int) -> None:
        """Every number has its row, in order; only the last cell of a row may be empty."""
        found = rows(title)
        assert [f"{prefix}{n}" for n in range(1, last + 1)] == [row[0] for row in found]
        for row in found:
            assert 4 == len(row), row[0]
            assert all(row[1:3]), row[0]

    @pytest.mark.parametrize("title", ["Assertions", "Weaknesses", "Requirements"])
    def test_named(self, title: str) -> None:
        """Every test that is named exists."""
        problems = [problem_with(named) for row in rows(title) for named in named_tests(row)]
        assert [] == [problem for problem in problems if problem]

    def test_evidence(self) -> None:
        """Every assertion is held by a test; every other row names a test or a page."""
        for number, _, held_by, _ in rows("Assertions"):
            assert list(named_tests([held_by])), number
        for title in ("Weaknesses", "Requirements"):
            for row in rows(title):
                assert list(named_tests(row)) or "](" in row[3], row[0]

    def test_numbered(self) -> None:
        """Where a file has one test for each assertion, that test's docstring has its number."""
        for number, _, held_by, _ in rows("Assertions"):
            for named in named_tests([held_by]):
                file, _, rest = named.partition("::")
                if "_seed" in file:
                    wanted = "67" if number == "35" else number  # one test holds both
                    assert collected(file)[rest].startswith(f"{wanted}:"), number


class TestItems:
    """The tables of items."""

    ITEMS = (
        *("LevelCacheBuilder", "CacheConfig", "KeyConverter", "StoredEntry", "StoredValue"),
        *("LocalBackend", "RemoteBackend", "InvalidationSubscriber", "ReadOptions", "CacheMode"),
        *("CacheDiagnosticSnapshot", "CacheMetricsSnapshot", "ReadValueMode", "CacheError"),
        *("CacheResult", "FnLoader", "Loader", "MLoader", "NoopLoader", "MetricPoint"),
        *("OtelMetricPoint", "metric_points", "to_otel_points", "tracing", "LevelCache"),
        *("OtlpTelemetryBuilder", "OtlpTransport", "TelemetryGuard", "TelemetryInitError"),
        *("get", "mget", "set", "mset", "del", "mdel", "warmup", "config", "metrics_snapshot"),
        *("diagnostic_snapshot", "otel_metric_points", "area", "mode", "local", "remote"),
        *("local_ttl", "remote_ttl", "null_ttl", "ttl_jitter_ratio", "disable_ttl_jitter"),
        *("cache_null_value", "penetration_protect", "loader_timeout", "disable_loader_timeout"),
        *("warmup_enabled", "warmup_batch_size", "refresh_ahead", "refresh_ahead_window"),
        *("stale_on_error", "broadcast_invalidation", "read_value_mode", "key_converter"),
        *("loader", "loader_fn", "build", "new", "default", "with_defaults", "InvalidConfig"),
        *("Backend", "Timeout", "peek", "publish", "subscribe", "next_message", "load", "mload"),
        *("moka", "max_capacity", "redis", "url", "key_prefix", "service_name", "endpoint"),
        *("transport", "service_namespace", "service_version", "env_filter", "tracer_name"),
        *("authorization", "install", "shutdown", "cacheable", "cacheable_batch", "cache_put"),
        *("cache_evict", "cache_evict_batch", "on_cache_error", "allow_stale", "cache_none"),
    )

    def test_complete(self) -> None:
        """Every public item of the crate stands in a first column."""
        first = " ".join(row[0] for row in rows("Items"))
        missing = [item for item in self.ITEMS if not re.search(rf"(?<!\w){item}(?!\w)", first)]
        assert [] == missing

    def test_resolve(self) -> None:
        """What is here is really here."""
        owners = {
            "accelerator": accelerator,
            "AreaConfig": AreaConfig,
            "Entry": accelerator.Entry,
            "LevelCache": LevelCache,
            "Settings": Settings,
        }
        pattern = rf"`({'|'.join(owners)})\.(\w+)"
        text = PAGE.read_text(encoding="utf-8")
        found = re.findall(pattern, text)
        assert len(found) > 50
        loggers = {("accelerator", "ops")}
        annotations = {
            owner: getattr(thing, "__annotations__", {}) for owner, thing in owners.items()
        }
        missing = {
            (owner, name)
            for owner, name in found
            if not hasattr(owners[owner], name) and name not in annotations[owner]
        }
        assert set() == missing - loggers
