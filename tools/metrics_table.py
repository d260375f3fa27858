"""
Write the table of metrics into docs/reference/metrics.md, from the one in the package.

Run it after a change of METRICS: .venv/bin/python tools/metrics_table.py
"""

import os
import re

from accelerator.observability.metrics import METRICS, PREFIX, Metric, counters_of_area

PAGE = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "docs")
PAGE = os.path.join(PAGE, "reference", "metrics.md")
BLOCK = re.compile(r"(?<=<!-- metrics: begin -->\n).*?(?=<!-- metrics: end -->\n)", re.DOTALL)
HEAD = """\
| metric | kind | unit | labels | in `metrics_snapshot()` | counts or shows |
| --- | --- | --- | --- | --- | --- |
"""


def render() -> str:
    """Render the table."""
    return HEAD + "".join(map(_row, METRICS))


def _row(metric: Metric) -> str:
    counted = set(counters_of_area())
    labels = ", ".join("`{}`".format(label) for label in metric.labels) or "none"
    given = ", ".join("`{}`".format(value) for value in metric.sources if value)
    fields = [source for source in metric.sources.values() if source in counted]
    cells = (
        "`{}`".format(metric.name[len(PREFIX) :]),
        metric.kind,
        metric.unit,
        "{}: {}".format(labels, given) if given else labels,
        ", ".join("`{}`".format(field) for field in fields),
        metric.help,
    )
    return "| {} |\n".format(" | ".join(cells))


def main() -> None:
    """Rewrite the page."""
    with open(PAGE, encoding="utf-8") as file:
        text = file.read()
    with open(PAGE, "w", encoding="utf-8") as file:
        file.write(BLOCK.sub(lambda _: render(), text))


if __name__ == "__main__":
    main()
