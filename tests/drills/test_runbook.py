"""The runbook as a text, and what the drills are made of: a misspelt word must not pass."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import promql
import pytest
import runbook

from accelerator.observability.metrics import METRICS

ANCHORS = (
    "redis-unreachable",
    "invalidation-broadcast-failure",
    "loader-timeout",
    "worker-killed",
    "segment-full",
    "dev-shm-too-small",
    "leader-stalled",
    "deploy-with-a-new-layout",
    "hot-key",
    "wrong-data-suspected",
)
"""Public: warnings and alerts lead there."""
ALERTS = runbook.PAGE.parent / "how-to" / "alerts.md"


class TestPage:
    def test_sections(self) -> None:
        """First the minute, then the incidents, then the endpoint."""
        assert ["is-it-the-cache", *ANCHORS, "the-endpoint"] == list(runbook.read())

    @pytest.mark.parametrize("anchor", ANCHORS)
    def test_parts(self, anchor: str) -> None:
        """Each incident has the same parts, with something in each."""
        incident = runbook.read()[anchor]
        assert list(runbook.PARTS) == list(incident.parts)
        assert all(text.strip() for text in incident.parts.values())
        typed = {block.part for block in incident.blocks}
        assert {"Quick checks", "Mitigation", "How it ends"} <= typed

    @pytest.mark.parametrize("anchor", ["is-it-the-cache", *ANCHORS, "the-endpoint"])
    def test_drilled(self, anchor: str) -> None:
        """Each section has a drill."""
        drills = Path(__file__).with_name("test_incidents.py").read_text(encoding="utf-8")
        assert f"\ndef test_{anchor.replace('-', '_')}(" in drills
        assert f'drill("{anchor}", ' in drills

    def test_minute(self) -> None:
        """Three commands answer the first question, and each row of the answers leads somewhere."""
        first = runbook.read()["is-it-the-cache"]
        assert 3 == sum(len(block.commands) for block in first.blocks)
        answers = runbook.answers(first)
        assert set(ANCHORS) == set(answers)
        assert ["fail  redis"] == answers["redis-unreachable"][0].phrases
        # In all of the others a command says something: a drill looks for it.
        silent = [it for it, said in answers.items() if not any(each.phrases for each in said)]
        assert ["wrong-data-suspected"] == silent

    def test_metrics(self) -> None:
        """Every metric that is named exists."""
        text = runbook.PAGE.read_text(encoding="utf-8") + ALERTS.read_text(encoding="utf-8")
        known = {metric.name for metric in METRICS}
        named = {
            re.sub(r"_(bucket|sum|count)$", "", name)
            for name in re.findall(r"accelerator_cache_\w+", text)
        }
        assert set() == named - known

    def test_expressions(self) -> None:
        """Every expression of the page, and of the alerts, can be read."""
        nothing = promql.Scrape(0.0, {}), promql.Scrape(1.0, {})
        for incident in runbook.read().values():
            for symptom in (*incident.symptoms, *incident.ends):
                if symptom.place == "metric":
                    promql.evaluate(symptom.what, *nothing)


PAGE = """
# A page

## An incident

### Symptoms

| where | what it shows |
| --- | --- |
| metric | `up == 1` |
| log | `a line of *`, `another` |

### Quick checks

```sh
echo one two
false  # status 1
```

```text
one *wo
```

### How it ends

| where | what it shows |
| --- | --- |
| log | `over` |
"""


class TestReading:
    def test_incident(self) -> None:
        """Symptoms, ends, commands with their status, and what they print."""
        incident = runbook.read(PAGE)["an-incident"]
        assert ["metric", "log", "log"] == [each.place for each in incident.symptoms]
        assert [runbook.Symptom("log", "over")] == incident.ends
        [block] = incident.blocks
        assert [("echo one two", 0), ("false", 1)] == [
            (it.text, it.status) for it in block.commands
        ]
        assert ["one *wo"] == block.printed

    @pytest.mark.parametrize(
        ("shown", "lines", "expected"),
        [
            (["a * c"], ["x a b c d"], None),
            (["a   b"], ["a b"], None),
            (["a b"], ["ab"], "a b"),
            (["a.c"], ["abc"], "a.c"),
            (["one", "two"], ["one", "two"], None),
            (["two", "one"], ["one", "two"], "one"),
            (["one", "one"], ["one"], "one"),
        ],
    )
    def test_missing(self, shown: list[str], lines: list[str], expected: str | None) -> None:
        """Lines are looked for in their order, and only ``*`` stands for anything."""
        assert expected == runbook.missing(shown, lines)


class FakeShop:
    """No host: these tests are about what a drill does with answers."""

    def __init__(self, folder: Path, shell: Callable[..., Any]) -> None:
        self.shell = shell
        self.log = folder / "log"
        self.log.write_text("WARNING before\n")

    def scrape(self) -> promql.Scrape:
        return promql.scrape("up 1", 0.0)

    def warnings(self) -> list[str]:
        return []

    def tail(self) -> str:
        return ""


class TestDrill:
    @pytest.fixture
    def exercise(self, tmp_path: Path, open_shop: Callable[..., Any], request: Any) -> Any:
        shell = open_shop().shell
        kind = request.getfixturevalue("drill_class")
        return lambda page: kind(
            runbook.read(page)["an-incident"],
            FakeShop(tmp_path, shell),  # type: ignore[arg-type]
        )

    def test_well(self, exercise: Any) -> None:
        """All is seen, all is typed, nothing is left."""
        drill = exercise(PAGE)
        drill.shop.log.write_text("WARNING before\na line of text\nanother\n")
        drill.symptoms()
        drill.run("Quick checks")
        drill.shop.log.write_text("WARNING before\nover\n")
        drill.is_over()
        assert [] == drill.left()

    @pytest.mark.parametrize(
        ("right", "wrong"),
        [
            ("echo one two", "ecoh one two"),
            ("echo one two", "accelerator dcotor"),
            ("false  # status 1", "false"),
            ("false  # status 1", "true  # status 1"),
            ("one *wo", "one *we"),
        ],
    )
    def test_misspelt(self, exercise: Any, right: str, wrong: str) -> None:
        """A command that does not exist, another status, other words: the drill fails."""
        drill = exercise(PAGE.replace(right, wrong))
        with pytest.raises(pytest.fail.Exception, match="An incident, Quick checks"):
            drill.run("Quick checks")

    @pytest.mark.parametrize(
        ("right", "wrong"), [("up == 1", "up == 2"), ("up == 1", "upp == 1"), ("another", "before")]
    )
    def test_unseen(
        self, exercise: Any, right: str, wrong: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A symptom that does not appear, or was there before, fails."""
        drill = exercise(PAGE.replace(right, wrong))
        drill.shop.log.write_text("WARNING before\na line of text\nanother\n")
        monkeypatch.setitem(type(drill)._see.__globals__, "PATIENCE", 0.1)
        with pytest.raises(pytest.fail.Exception, match="not seen"):
            drill.symptoms()

    def test_left(self, exercise: Any) -> None:
        """What was not typed and not looked for is told."""
        assert 6 == len(exercise(PAGE).left())


class TestExpressions:
    BEFORE = """
# HELP calls_total calls
calls_total{area="a",kind="error"} 1
calls_total{area="b",kind="error"} 5
seconds_bucket{area="a",le="0.1"} 10
seconds_bucket{area="a",le="1"} 10
seconds_bucket{area="a",le="+Inf"} 10
state 1
"""
    AFTER = """
calls_total{area="a",kind="error"} 3
calls_total{area="a",kind="timeout"} 4
calls_total{area="b",kind="error"} 2
seconds_bucket{area="a",le="0.1"} 19
seconds_bucket{area="a",le="1"} 109
seconds_bucket{area="a",le="+Inf"} 110
state 2
"""

    @pytest.mark.parametrize(
        ("expression", "expected"),
        [
            ("state", [2]),
            ("state == 2", [2]),
            ("state == 1", []),
            ("state > 1 + 1", []),
            ("nothing == 0", []),
            ("delta(state[5m])", [1]),
            ('increase(calls_total{kind="error"}[5m])', [2, 2]),
            ("sum by (area) (increase(calls_total[5m]))", [2, 6]),
            ("sum by (instance) (increase(calls_total[5m])) > 7", [8]),
            ("sum(rate(calls_total[5m]))", [4]),
            ("max by (kind) (calls_total)", [3, 4]),
            ("count(calls_total)", [3]),
            ("resets(calls_total[5m]) > 0", [1]),
            ("calls_total * 2 - 1", [3, 5, 7]),
            ("sum(calls_total) > 0.5 * sum(calls_total)", [9]),
            ("histogram_quantile(0.9, sum by (area, le) (rate(seconds_bucket[5m]))) > 0.25", [1]),
            ("histogram_quantile(0.05, rate(seconds_bucket[5m]))", [0.1]),
        ],
    )
    def test_value(self, expression: str, expected: list[float]) -> None:
        """As Prometheus would say; two seconds lie between the scrapes."""
        before, after = promql.scrape(self.BEFORE, 10.0), promql.scrape(self.AFTER, 12.0)
        assert expected == sorted(promql.evaluate(expression, before, after).values())

    @pytest.mark.parametrize(
        "expression",
        ["", "rate(calls_total)", "sum by (area calls_total", "state ==", "a b", "1 ~ 2"],
    )
    def test_wrong(self, expression: str) -> None:
        """What is none is refused."""
        with pytest.raises(SyntaxError):
            promql.evaluate(expression, promql.scrape("", 0.0), promql.scrape("", 1.0))
