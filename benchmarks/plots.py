"""Tables and plots of the results of bench_hot_path.py."""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

Cell = Mapping[str, Any]

OURS, THEIRS, BOUND = "#b5442e", "#7d8ca3", "#2f3b4c"


def _cells(document: Mapping[str, Any], **wanted: Any) -> list[Cell]:
    return [
        cell
        for cell in document["cells"]
        if all(cell[name] == value for name, value in wanted.items())
    ]


def _figures(cell: Cell) -> dict[str, Mapping[str, Any]]:
    return {name: one for name, one in cell["results"].items() if "error" not in one}


def _time(ns: float) -> str:
    return f"{ns:.0f} ns" if ns < 1000 else f"{ns / 1000:.1f} us"


# --- tables -------------------------------------------------------------------------------------
# -------------


def tables(document: Mapping[str, Any]) -> Iterator[str]:
    """Everything measured, for a terminal."""
    kinds = list(dict.fromkeys(cell["value"] for cell in document["cells"]))
    for kind in kinds:
        yield from _alone(document, kind)
        yield from _in_company(document, kind)
    yield from _web(document.get("web", []))
    for name, reason in document["missing"].items():
        yield f"not measured: {name}: {reason}"


def _alone(document: Mapping[str, Any], kind: str) -> Iterator[str]:
    cells = _cells(document, value=kind, processes=1, writer=None)
    yield ""
    yield f"{kind}, one process: best chunk (x dict in the same run)"
    heads = [f"{cell['operation']} {cell['keys']}" for cell in cells]
    yield from _grid(
        heads,
        cells,
        lambda one: f"{_time(one['best'])} ({one['to_dict']['best']:.3g})",
    )


def _in_company(document: Mapping[str, Any], kind: str) -> Iterator[str]:
    cells = [
        cell
        for cell in _cells(document, value=kind)
        if cell["processes"] > 1 or cell["writer"] is not None
    ]
    for writer in dict.fromkeys(cell["writer"] for cell in cells):
        chosen = [cell for cell in cells if cell["writer"] == writer and cell["keys"] == "hot"]
        beside = "" if writer is None else f", its hot key rewritten {writer}"
        said = "x one process" if writer is None else "x the time of an undisturbed call"
        yield ""
        yield f"{kind}, hot key{beside}: best M calls/s of all processes ({said})"
        heads = [f"{cell['operation']} x{cell['processes']}" for cell in chosen]
        yield from _grid(heads, chosen, _shared_figure)


def _shared_figure(one: Mapping[str, Any]) -> str:
    beside = one.get("to_one_process_median", one.get("ns_a_call_to_quiet_median"))
    return f"{one['best'] / 1e6:.3g} ({beside:.2f})"


def _grid(heads: Sequence[str], cells: Sequence[Cell], text: Any) -> Iterator[str]:
    names = dict.fromkeys(name for cell in cells for name in cell["results"])
    rows = [["", *heads]]
    for name in names:
        row = [name]
        for cell in cells:
            one = cell["results"].get(name, {})
            row.append("error" if "error" in one else text(one) if one else "-")
        rows.append(row)
    yield from aligned(rows)


def aligned(rows: list[list[str]]) -> Iterator[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        first = f"{row[0]:{widths[0]}}"
        rest = (f"{text:>{width}}" for text, width in zip(row[1:], widths[1:], strict=True))
        yield "  ".join((first, *rest))


def _web(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if not rows:
        return
    yield ""
    yield "Gunicorn, hot keys: requests/s (worker CPU in us a request)"
    columns = list(dict.fromkeys((row["reads"], row["workers"]) for row in rows))
    heads = [f"{reads} read(s), {workers} w" for reads, workers in sorted(columns)]
    lines = [["", *heads]]
    for name in dict.fromkeys(row["contestant"] for row in rows):
        found = {(row["reads"], row["workers"]): row for row in rows if row["contestant"] == name}
        lines.append([name, *(_web_text(found.get(column)) for column in sorted(columns))])
    yield from aligned(lines)


def _web_text(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return "-"
    return f"{row['requests_per_second_best']:,.0f} ({row['worker_cpu_us_best']:.0f})"


# --- plot ---------------------------------------------------------------------------------------
# -------------


def draw(document: Mapping[str, Any], path: Path) -> None:
    """Three panels: the cost of a hot get, scaling over processes, requests a second."""
    import matplotlib as mpl  # noqa: PLC0415  slow, and not needed by --gate

    mpl.use("svg")
    mpl.rcParams.update({"svg.fonttype": "none", "font.size": 9, "svg.hashsalt": "accelerator"})
    import matplotlib.pyplot as plt  # noqa: PLC0415  after use()

    panels = [_draw_costs, _draw_scaling] + ([_draw_web] if document.get("web") else [])
    figure, axes = plt.subplots(len(panels), 1, figsize=(9, 4.2 * len(panels)))
    for panel, ax in zip(panels, axes, strict=True):
        panel(document, ax)
        ax.spines[["top", "right"]].set_visible(False)
    cpu, python = document["machine"]["cpu"], document["versions"]["python"]
    cores = document["machine"]["cores"]
    figure.suptitle(f"accelerator and its peers: {cpu}, {cores} cores, Python {python}")
    figure.tight_layout(rect=(0, 0, 1, 0.98))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def _colour(name: str) -> str:
    if name.startswith("accelerator"):
        return OURS
    return BOUND if name in ("empty loop", "dict", "constant") else THEIRS


def _bars(ax: Any, figures: Mapping[str, float], text: Any, *, fewer: bool) -> None:
    """The best on top: the one with the fewer, or the more, of it."""
    names = sorted(figures, key=lambda name: figures[name], reverse=fewer)
    bars = ax.barh(names, [figures[name] for name in names], color=[_colour(n) for n in names])
    ax.bar_label(bars, [text(figures[name]) for name in names], padding=3)


def _draw_costs(document: Mapping[str, Any], ax: Any) -> None:
    (cell,) = _cells(
        document, value="bytes 100 B", processes=1, writer=None, operation="get", keys="hot"
    )
    figures = {name: one["best"] for name, one in _figures(cell).items()}
    _bars(ax, figures, _time, fewer=True)
    ax.set_xscale("log")
    ax.set_title("Hot get of 100 bytes, one process (log scale)")
    ax.set_xlabel("ns a call, best chunk, loop included")


def _draw_scaling(document: Mapping[str, Any], ax: Any) -> None:
    one = _cells(
        document, value="bytes 100 B", processes=1, writer=None, operation="get", keys="hot"
    )
    rates: dict[str, dict[int, float]] = {}
    for cell in one:
        for name, result in _figures(cell).items():
            rates.setdefault(name, {})[1] = 1e9 / result["best"]
    for cell in _cells(document, value="bytes 100 B", writer=None, operation="get", keys="hot"):
        if cell["processes"] > 1:
            for name, result in _figures(cell).items():
                rates.setdefault(name, {})[cell["processes"]] = result["best"]
    order = sorted(rates, key=lambda name: max(rates[name].values()), reverse=True)
    for name, marker in zip(order, itertools.cycle("osD^vP*X")):
        counts = sorted(rates[name])
        figures = [rates[name][count] / 1e6 for count in counts]
        ax.plot(counts, figures, marker=marker, color=_colour(name), label=name)
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    ax.set_yscale("log")
    ax.set_xticks(sorted({count for points in rates.values() for count in points}))
    ax.set_title(f"Hot get of 100 bytes, several processes on {document['machine']['cores']} cores")
    ax.set_xlabel("processes")
    ax.set_ylabel("million calls a second, together")


def _draw_web(document: Mapping[str, Any], ax: Any) -> None:
    rows = document["web"]
    workers = max(row["workers"] for row in rows)
    reads = max(row["reads"] for row in rows)
    chosen: Iterable[Mapping[str, Any]] = [
        row for row in rows if (row["workers"], row["reads"]) == (workers, reads)
    ]
    figures = {row["contestant"]: row["requests_per_second_best"] for row in chosen}
    _bars(ax, figures, lambda value: f"{value:,.0f}", fewer=False)
    ax.set_title(f"Gunicorn, {workers} workers, {reads} reads of hot keys a request")
    ax.set_xlabel("requests a second, best round")
