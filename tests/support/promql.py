"""
As much of PromQL as the documentation uses, over two scrapes of one host.

A range, whatever it says, is the time between the two scrapes; without one the later scrape counts.
A series that the first scrape lacks began at 0, as a counter of a new area does.
"""

from __future__ import annotations

import math
import operator
import re
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

Labels = frozenset[tuple[str, str]]
Vector = dict[Labels, float]
"""Values by their labels, the name of the metric left out."""


class Scrape(NamedTuple):
    """Everything that one look at ``/metrics`` has told."""

    at: float
    samples: Mapping[str, Vector]


_SAMPLE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_TOKEN = re.compile(
    r"\s*(?:(?P<number>\d+(?:\.\d+)?)(?![\w.])|(?P<range>\[\w+\])|(?P<selector>\{[^}]*\})"
    r"|(?P<name>[A-Za-z_]\w*(?::\w+)*)|(?P<sign>==|!=|>=|<=|[-+*/()<>,]))"
)
_COMPARE: dict[str, Callable[[float, float], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
_REDUCE: dict[str, Callable[[Iterable[float]], float]] = {"sum": sum, "max": max, "min": min}


def scrape(text: str, at: float) -> Scrape:
    """Read what ``/metrics`` answers."""
    found: dict[str, Vector] = {}
    for name, labels, value in _SAMPLE.findall(text):
        found.setdefault(name, {})[frozenset(_LABEL.findall(labels))] = float(value)
    return Scrape(at, found)


def names(expression: str) -> set[str]:
    """Metrics that an expression asks for."""
    return {name for name in _words(expression) if name.startswith("accelerator_cache_")}


def _words(expression: str) -> list[str]:
    return [match["name"] for match in _TOKEN.finditer(expression) if match["name"]]


def holds(expression: str, before: Scrape, after: Scrape) -> bool:
    """Whether an alert on the expression would fire: a comparison keeps what it is true of."""
    return bool(evaluate(expression, before, after))


def evaluate(expression: str, before: Scrape, after: Scrape) -> Vector:
    """
    Evaluate an expression.

    Raises:
        SyntaxError: It is none, or uses what is not known here.
    """
    parser = _Parser(expression, before, after)
    value = parser.comparison()
    if parser.kind != "end":
        raise parser.error()
    return value if isinstance(value, dict) else {frozenset(): value}


class _Parser:
    """One expression, evaluated as it is read."""

    def __init__(self, text: str, before: Scrape, after: Scrape) -> None:
        self._text = text
        self._before = before
        self._after = after
        self._at = 0
        self.kind = self._word = ""
        self._next()

    def error(self) -> SyntaxError:
        return SyntaxError(f"not understood at {self._word!r} in: {self._text}")

    def _next(self) -> str:
        last = self._word
        if not self._text[self._at :].strip():
            self.kind, self._word = "end", ""
            return last
        match = _TOKEN.match(self._text, self._at)
        if match is None:
            raise SyntaxError(f"not understood: {self._text[self._at :]!r}")
        assert match.lastgroup is not None
        self.kind, self._word = match.lastgroup, match[match.lastgroup]
        self._at = match.end()
        return last

    def _take(self, word: str) -> None:
        if self._word != word:
            raise self.error()
        self._next()

    def comparison(self) -> Any:
        left = self._terms(("+", "-"), lambda: self._terms(("*", "/"), self._value))
        if self._word not in _COMPARE:
            return left
        compare = _COMPARE[self._next()]
        right = self._terms(("+", "-"), lambda: self._terms(("*", "/"), self._value))
        if not isinstance(left, dict):
            left = {frozenset(): left}
        pairs = ((labels, value, _other(right, labels)) for labels, value in left.items())
        return {
            labels: value
            for labels, value, other in pairs
            if other is not None and compare(value, other)
        }

    def _terms(self, signs: tuple[str, ...], term: Callable[[], Any]) -> Any:
        left = term()
        while self._word in signs:
            sign = self._next()
            left = _calculate(sign, left, term())
        return left

    def _value(self) -> Any:
        if self.kind == "number":
            return float(self._next())
        if self._word == "(":
            self._next()
            value = self.comparison()
            self._take(")")
            return value
        if self.kind != "name":
            raise self.error()
        name = self._next()
        if name in _REDUCE or name == "count":
            return self._aggregate(name)
        if name in {"rate", "increase", "delta", "resets"}:
            self._take("(")
            value = self._over_time(name)
            self._take(")")
            return value
        if name == "histogram_quantile":
            self._take("(")
            quantile = float(self._next())
            self._take(",")
            buckets = self.comparison()
            self._take(")")
            return _quantile(quantile, buckets)
        return self._select(name, self._after, self._matchers())

    def _matchers(self) -> dict[str, str]:
        return dict(_LABEL.findall(self._next())) if self.kind == "selector" else {}

    @staticmethod
    def _select(name: str, scrape_: Scrape, wanted: Mapping[str, str]) -> Vector:
        found = scrape_.samples.get(name, {})
        return {labels: value for labels, value in found.items() if wanted.items() <= labels}

    def _over_time(self, function: str) -> Vector:
        if self.kind != "name":
            raise self.error()
        name = self._next()
        wanted = self._matchers()
        if self.kind != "range":
            raise self.error()
        self._next()
        first = self._select(name, self._before, wanted)
        last = self._select(name, self._after, wanted)
        if function == "resets":
            return {it: float(value < first.get(it, 0.0)) for it, value in last.items()}
        # A counter that is lower than it was has begun anew.
        begun = {
            it: 0.0 if function != "delta" and value < first.get(it, 0.0) else first.get(it, 0.0)
            for it, value in last.items()
        }
        seconds = self._after.at - self._before.at if function == "rate" else 1.0
        return {it: (value - begun[it]) / seconds for it, value in last.items()}

    def _aggregate(self, function: str) -> Vector:
        by: tuple[str, ...] = ()
        if self._word == "by":
            self._next()
            self._take("(")
            listed = []
            while self.kind == "name":
                listed.append(self._next())
                if self._word == ",":
                    self._next()
            self._take(")")
            by = tuple(listed)
        self._take("(")
        inner = self.comparison()
        self._take(")")
        groups: dict[Labels, list[float]] = {}
        for labels, value in inner.items():
            group = frozenset(pair for pair in labels if pair[0] in by)
            groups.setdefault(group, []).append(value)
        if function == "count":
            return {group: float(len(values)) for group, values in groups.items()}
        return {group: _REDUCE[function](values) for group, values in groups.items()}


def _other(right: Any, labels: Labels) -> float | None:
    return right.get(labels) if isinstance(right, dict) else right


def _calculate(sign: str, left: Any, right: Any) -> Any:
    work: Callable[[float, float], float] = {
        "+": operator.add,
        "-": operator.sub,
        "*": operator.mul,
        "/": lambda one, two: one / two if two else math.nan,
    }[sign]
    if isinstance(left, dict):
        pairs = ((labels, value, _other(right, labels)) for labels, value in left.items())
        return {labels: work(value, two) for labels, value, two in pairs if two is not None}
    if isinstance(right, dict):
        return {labels: work(left, value) for labels, value in right.items()}
    return work(left, right)


def _quantile(quantile: float, buckets: Vector) -> Vector:
    """Give the upper bound of the bucket, which is no less than what Prometheus makes of it."""
    groups: dict[Labels, list[tuple[float, float]]] = {}
    for labels, value in buckets.items():
        bound = float(dict(labels)["le"])
        rest = frozenset(pair for pair in labels if pair[0] != "le")
        groups.setdefault(rest, []).append((bound, value))
    found = {}
    for labels, pairs in groups.items():
        pairs.sort()
        total = pairs[-1][1]
        if total:
            found[labels] = next(bound for bound, count in pairs if count >= quantile * total)
    return found
