"""The instruments of OpenTelemetry in one process; tests/redis/test_otel.py has those of a host."""

import subprocess
import sys
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from accelerator import LevelCache, local, testing
from accelerator.observability import otel
from accelerator.observability.metrics import PREFIX
from accelerator.observability.reading import Reader, Reading


class Looks:
    """Memory of this process, and how often it was looked at."""

    def __init__(self) -> None:
        self.memory = local.private_segment(1 << 22, 1 << 16)
        self.reporting = True
        self.number = 0

    def __call__(self) -> tuple[Reading, float] | None:
        self.number += 1
        return (Reader(self.memory).read(), 2.0) if self.reporting else None


@pytest.fixture
def looks() -> Looks:
    return Looks()


@pytest.fixture
def reader(looks: Looks) -> Any:
    """What collects from instruments over these looks."""
    made = InMemoryMetricReader()
    provider = MeterProvider([made])
    made.held = otel.Instruments(looks, provider.get_meter("test"))
    yield made
    provider.shutdown()


def names(reader: Any) -> set[str]:
    """Of what is exported."""
    data = reader.get_metrics_data()
    if data is None:
        return set()
    scopes = [scope for resource in data.resource_metrics for scope in resource.scope_metrics]
    return {metric.name for scope in scopes for metric in scope.metrics}


class TestLooks:
    def test_one_a_collection(
        self, looks: Looks, reader: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """However many instruments are asked, the segment is read once."""
        monkeypatch.setattr(otel, "ONE_LOOK", 60.0)
        assert f"{PREFIX}segment_bytes" in names(reader)
        assert 1 == looks.number

    def test_anew(self, looks: Looks, reader: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """The next collection looks again."""
        monkeypatch.setattr(otel, "ONE_LOOK", 0.0)
        names(reader)
        before = looks.number
        names(reader)
        assert 2 * before == looks.number

    def test_silent(self, looks: Looks, reader: Any) -> None:
        """Who does not report is silent, and reports as soon as it is its turn."""
        looks.reporting = False
        assert set() == names(reader)
        looks.reporting = True
        assert f"{PREFIX}segment_bytes" in names(reader)


def run(code: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )


class TestReporter:
    def test_own_memory(self) -> None:
        """Memory of one process has one process that reports."""
        with testing.isolated() as own:
            LevelCache("alone").get(1)
            assert otel.is_reporter(own.memory)

    def test_without_sdk(self) -> None:
        """With the API alone the instruments do nothing, and import nothing more."""
        code = (
            "from accelerator import admin; held = admin.otel_instruments();"
            "import sys; print('opentelemetry.sdk' in sys.modules, len(held.instruments) > 50)"
        )
        found = run(code)
        assert ("", "False True\n") == (found.stderr, found.stdout)

    def test_set_later(self) -> None:
        """A provider that is set after the instruments were made gets them."""
        code = (
            "import accelerator; from accelerator import admin; held = admin.otel_instruments()\n"
            "from opentelemetry import metrics\n"
            "from opentelemetry.sdk.metrics import MeterProvider\n"
            "from opentelemetry.sdk.metrics.export import InMemoryMetricReader\n"
            "reader = InMemoryMetricReader(); metrics.set_meter_provider(MeterProvider([reader]))\n"
            "accelerator.attach(local='process'); accelerator.LevelCache('users').get(1)\n"
            "print('local_miss_total' in reader.get_metrics_data().to_json())"
        )
        found = run(code)
        assert ("", "True\n") == (found.stderr, found.stdout)
