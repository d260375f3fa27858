"""Tables and plot of the results of bench_stampede.py."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from plots import BOUND, OURS, THEIRS, aligned

Row = Mapping[str, Any]

EVENTS = {
    "expiry": "The key expires",
    "delete": "The key is deleted",
    "busy source": "The key expires, and the source runs 8 loads at a time",
}
BOUNDS = ("HTTP alone", "no cache", "get, then set")


def _chosen(document: Mapping[str, Any], **wanted: Any) -> list[Row]:
    rows: list[Row] = document["rows"]
    return [row for row in rows if all(row[name] == value for name, value in wanted.items())]


def _contestants(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row["contestant"] for row in rows))


def _workers(rows: Sequence[Row]) -> list[int]:
    return sorted({row["workers"] for row in rows})


# --- tables --------------------------------------------------------------------------------------


def _loads(row: Row) -> str:
    return f"{row['loads']['median']:.3g} ({row['loads']['worst']})"


def _p50(row: Row) -> str:
    return f"{row['p50_ms']['median']:.1f}"


def _p99(row: Row) -> str:
    return f"{row['p99_ms']['median']:.1f} ({row['p99_ms']['best']:.1f})"


def _max(row: Row) -> str:
    return f"{row['max_ms']['median']:.1f} ({row['pooled_ms']['max']:.1f})"


def _old(row: Row) -> str:
    return f"{row['old_answers_median']:.3g}"


COLUMNS: Mapping[str, Callable[[Row], str]] = {
    "loads (worst)": _loads,
    "p50 ms": _p50,
    "p99 ms (best)": _p99,
    "max ms (worst)": _max,
    "old": _old,
}


def tables(document: Mapping[str, Any]) -> Iterator[str]:
    """Everything measured, for a terminal: medians of the expiries."""
    for event, title in EVENTS.items():
        rows = _chosen(document, event=event)
        for workers in _workers(rows):
            chosen = _chosen(document, event=event, workers=workers)
            yield ""
            yield f"{title}: {workers} worker(s), median of the expiries"
            lines = [["", *COLUMNS]]
            lines += [
                [row["contestant"], *(column(row) for column in COLUMNS.values())] for row in chosen
            ]
            yield from aligned(lines)
            for row in chosen:
                if row["errors"]:
                    yield f"{row['contestant']}: {row['errors']} reads ended in an ERROR"
    for name, reason in document["missing"].items():
        yield f"not measured: {name}: {reason}"


# --- plot ----------------------------------------------------------------------------------------

_MARKERS = dict(zip(EVENTS, "oDs", strict=True))


def draw(document: Mapping[str, Any], path: Path) -> None:
    """Loads and p99 over the number of workers; below, p99 of all events with the most workers."""
    import matplotlib as mpl  # noqa: PLC0415  slow, and needed at the very end only

    mpl.use("svg")
    mpl.rcParams.update({"svg.fonttype": "none", "font.size": 9, "svg.hashsalt": "accelerator"})
    import matplotlib.pyplot as plt  # noqa: PLC0415  after use()

    figure = plt.figure(figsize=(12, 10))
    above = figure.add_gridspec(1, 2, left=0.05, right=0.77, top=0.9, bottom=0.51, wspace=1.0)
    below = figure.add_gridspec(1, 1, left=0.19, right=0.95, top=0.43, bottom=0.08)
    expiry = _chosen(document, event="expiry")
    if len(_workers(expiry)) > 1:
        _draw_lines(
            figure.add_subplot(above[0, 0]),
            [row for row in expiry if row["contestant"] != "HTTP alone"],
            lambda row: row["loads"]["median"],
            "loads of the source of truth",
            "{:g}",
        )
        _draw_lines(
            figure.add_subplot(above[0, 1]),
            expiry,
            lambda row: row["p99_ms"]["median"],
            "p99 of the reads around it, ms",
            "{:.1f} ms",
        )
    _draw_events(figure.add_subplot(below[0, 0]), document)
    cpu, python = document["machine"]["cpu"], document["versions"]["python"]
    cores = document["machine"]["cores"]
    figure.suptitle(
        "A hot key expires: Gunicorn, 8 threads a worker, all reading it; a load takes 50 ms\n"
        f"{cpu}, {cores} cores, Python {python}; median expiry"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def _colour(name: str) -> str:
    if name.startswith("accelerator"):
        return OURS
    return BOUND if name in BOUNDS else THEIRS


def _style(name: str) -> dict[str, Any]:
    """Ours on top; what has no protection is dashed."""
    ours = _colour(name) == OURS
    bare = name in BOUNDS or "get_or_set" in name
    return {
        "color": _colour(name),
        "linestyle": "--" if bare else "-",
        "linewidth": 2 if ours else 1.2,
        "zorder": 3 if ours else 2,
    }


def _draw_lines(
    ax: Any, rows: Sequence[Row], figure: Callable[[Row], float], title: str, text: str
) -> None:
    workers = _workers(rows)
    ends = {}
    for name in _contestants(rows):
        points = {row["workers"]: figure(row) for row in rows if row["contestant"] == name}
        heights = [points[count] for count in sorted(points)]
        ax.plot(sorted(points), heights, marker="o", markersize=4, **_style(name))
        ends[name] = heights[-1]
    ax.set_xscale("log", base=2)
    ax.set_yscale("log")
    ax.set_xticks(workers, [str(count) for count in workers])
    ax.minorticks_off()
    ax.yaxis.set_major_formatter("{x:g}")
    ax.set_xlabel("workers")
    ax.set_title(title, loc="left")
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(axis="y", color="#e3e6ea")
    _label_ends(ax, ends, text)


def _label_ends(ax: Any, ends: Mapping[str, float], text: str) -> None:
    """Write each name beside the end of its line, moved apart where lines end at one place."""
    low, high = ax.get_ylim()
    order = sorted(ends, key=lambda name: (ends[name], name))
    heights = [math.log(ends[name] / low) / math.log(high / low) for name in order]
    for name, height, place in zip(order, heights, _apart(heights, 0.065), strict=True):
        ax.annotate(
            f"{name}: {text.format(ends[name])}",
            xy=(1.0, height),
            xytext=(1.1, place),
            xycoords="axes fraction",
            textcoords="axes fraction",
            va="center",
            color=_colour(name),
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "color": _colour(name),
                "linewidth": 0.6,
                "relpos": (0, 0.5),
                "shrinkA": 1,
                "shrinkB": 2,
            },
        )


def _apart(places: Sequence[float], distance: float) -> list[float]:
    """Move *places*, which ascend from 0 to 1, until they are *distance* apart."""
    groups: list[tuple[float, int]] = []  # of neighbours that touch: sum of their places, how many
    for place in places:
        groups.append((place, 1))
        while len(groups) > 1:
            (below, fewer), (above, more) = groups[-2:]
            if above / more - below / fewer >= distance * (fewer + more) / 2:
                break
            groups[-2:] = [(below + above, fewer + more)]
    moved: list[float] = []
    for total, count in groups:
        first = total / count - distance * (count - 1) / 2
        moved += [first + distance * step for step in range(count)]
    for step in range(len(moved)):
        moved[step] = max(moved[step], distance * step)
    for step in range(len(moved)):
        moved[-1 - step] = min(moved[-1 - step], 1 - distance * step)
    return moved


def _draw_events(ax: Any, document: Mapping[str, Any]) -> None:
    """One row for each contestant, one mark for each event."""
    most = max(_workers(document["rows"]))
    rows = [row for row in _chosen(document, workers=most) if row["contestant"] != "no cache"]
    names = _contestants(rows)[::-1]
    for (event, title), shift in zip(EVENTS.items(), (0.2, 0, -0.2), strict=True):
        chosen = {row["contestant"]: row for row in rows if row["event"] == event}
        colours = [_colour(name) for name in names if name in chosen]
        ax.scatter(
            [chosen[name]["p99_ms"]["median"] for name in names if name in chosen],
            [place + shift for place, name in enumerate(names) if name in chosen],
            marker=_MARKERS[event],
            s=46,
            facecolors="none" if event == "delete" else colours,
            edgecolors=colours,
            zorder=3,
        )
        filled = "none" if event == "delete" else BOUND
        ax.scatter(
            [], [], marker=_MARKERS[event], facecolors=filled, edgecolors=BOUND, label=title.lower()
        )
    ax.set_yticks(range(len(names)), names)
    for label, name in zip(ax.get_yticklabels(), names, strict=True):
        label.set_color(_colour(name))
    ax.set_xscale("log")
    low, high = ax.get_xlim()
    ticks = [tick * ten for ten in (1, 10, 100) for tick in (1, 2, 5)]
    ax.set_xticks([tick for tick in ticks if low <= tick <= high])
    ax.minorticks_off()
    ax.xaxis.set_major_formatter("{x:g}")
    ax.grid(axis="both", color="#e3e6ea")
    ax.spines[["top", "right"]].set_visible(False)
    ax.set_title(f"p99 of the reads around it, ms, {most} workers", loc="left")
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.08), ncols=3, frameon=False)
