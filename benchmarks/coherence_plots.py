"""Tables and plots of bench_staleness.py, bench_outage.py and bench_coherence.py."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from plots import BOUND, OURS, THEIRS

_LEAST = 0.001
"""Seconds: what is younger lies on the lower edge of the plot."""


def counts(document: Mapping[str, Any]) -> Counter[str]:
    """How often each fault happened; one that takes two lanes is in the list twice."""
    return Counter(what for what, *_ in _distinct(document["faults"]))


def _distinct(faults: Sequence[Sequence[Any]]) -> list[Sequence[Any]]:
    return [one for one in faults if one[:2] != ["slow listener", "host"]]


def staleness_summary(document: Mapping[str, Any]) -> Iterator[str]:
    """What came out, for a terminal."""
    method = document["method"]
    limit = method["bound_s"] + method["allowance_s"]
    yield ""
    yield (
        f"{document['reads']} reads, {document['writes']} writes ({document['queued']} not taken "
        f"at once), {counts(document).total()} faults, {document['loads']} loads"
    )
    yield f"reads that failed: {document['errors']}"
    yield (
        f"reads more than {limit:g} s older than Redis took the invalidation: "
        f"{document['beyond']}; oldest: {document['worst_since_taken']:.3f} s"
    )
    yield (
        f"the same since the commit: {document['beyond_since_commit']}; oldest: "
        f"{document['worst_since_commit']:.3f} s"
    )
    yield (
        f"of these, while no host alone was cut off from Redis: "
        f"{document['beyond_since_commit_together']}; oldest: {document['worst_together']:.3f} s"
    )
    yield (
        f"plain pub/sub, since the commit: oldest {document['plain_worst']:.1f} s; beyond in "
        f"{document['plain_beyond_tenths'] / 10:.1f} s of the run"
    )
    for one in document["examples"][:10]:
        yield f"  {one}"


def _begin() -> Any:
    import matplotlib as mpl  # noqa: PLC0415  slow, and needed at the very end only

    mpl.use("svg")
    mpl.rcParams.update({"svg.fonttype": "none", "font.size": 9, "svg.hashsalt": "accelerator"})
    import matplotlib.pyplot as plt  # noqa: PLC0415  after use()

    return plt


def _save(plt: Any, figure: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def _place(document: Mapping[str, Any]) -> str:
    machine, python = document["machine"], document["versions"]["python"]
    return f"{machine['cpu']}, {machine['cores']} cores, Python {python}"


def draw_staleness(document: Mapping[str, Any], path: Path) -> None:
    """Staleness over time of both contestants; below, what was wrong when."""
    plt = _begin()
    method = document["method"]
    figure, (above, below) = plt.subplots(
        2, 1, figsize=(12, 8), sharex=True, gridspec_kw={"height_ratios": (3, 2)}
    )
    record = document["record"]
    for name, column, colour, width in (
        ("plain pub/sub", "since_commit", THEIRS, 1.0),
        ("accelerator", "since_commit", "#e0a396", 1.0),
        ("accelerator", "since_taken", OURS, 1.4),
    ):
        at, stale = _peaks(record[name]["at"], record[name][column], 0.5)
        since = "the commit" if column == "since_commit" else "Redis took the invalidation"
        label = f"{name}, since {since}"
        above.plot(at, [max(_LEAST, one) for one in stale], color=colour, lw=width, label=label)
    above.axhline(method["bound_s"], color=BOUND, lw=1, ls="--")
    above.annotate(
        f"the bound, {method['bound_s']:g} s",
        xy=(1.0, method["bound_s"]),
        xycoords=("axes fraction", "data"),
        ha="right",
        va="bottom",
        color=BOUND,
    )
    above.set_yscale("log")
    above.set_ylabel("oldest read of each half second, s")
    above.yaxis.set_major_formatter("{x:g}")
    above.legend(loc="upper center", bbox_to_anchor=(0.5, 1.12), ncols=3, frameon=False)
    above.grid(axis="y", color="#e3e6ea")
    _draw_faults(below, document["faults"])
    below.set_xlabel("seconds")
    for ax in (above, below):
        ax.spines[["top", "right"]].set_visible(False)
    figure.suptitle(
        f"Two hosts with {method['workers_a_host']} reading workers each, one Redis, a fault about "
        f"every second\n{_place(document)}"
    )
    figure.tight_layout(rect=(0, 0, 1, 0.98))
    _save(plt, figure, path)


def _draw_faults(ax: Any, faults: Sequence[Sequence[Any]]) -> None:
    names = list(dict.fromkeys(what for what, *_ in sorted(faults, key=lambda one: one[1:2])))
    for what, _, began, ended in _distinct(faults):
        row = names.index(what)
        ax.barh(row, max(ended - began, 0.3), left=began, height=0.7, color=BOUND)
    ax.set_yticks(range(len(names)), names)
    ax.grid(axis="x", color="#e3e6ea")


def _peaks(
    at: Sequence[float], values: Sequence[float], width: float
) -> tuple[list[float], list[float]]:
    """The highest value of each *width* seconds."""
    found: dict[int, float] = {}
    for time, value in zip(at, values, strict=True):
        place = int(time / width)
        found[place] = max(found.get(place, 0.0), value)
    return [place * width for place in sorted(found)], [found[place] for place in sorted(found)]


# --- claims -------------------------------------------------------------------------------------


def claims(document: Mapping[str, Any], names: Sequence[str]) -> Iterator[str]:
    """Each claim with what was measured, for a terminal."""
    for name in names:
        yield ""
        yield name
        for one in document[name]["claims"]:
            limit = "" if one["limit"] is None else f" (limit {figure(one['limit'])})"
            verdict = "" if one["held"] else "   MISSED"
            yield f"  {one['claim']}: {figure(one['value'])}{limit}{verdict}"


def figure(value: Any) -> str:
    """A number as one reads it."""
    return f"{value:.3g}" if isinstance(value, float) and value < 1000 else f"{value}"


def draw_outage(document: Mapping[str, Any], path: Path) -> None:
    """The p99 and the slowest read of each second, around the time without Redis."""
    plt = _begin()
    killed, method = document["killed"], document["method"]
    figure_, ax = plt.subplots(figsize=(10, 4.2))
    ax.axvspan(killed["down_at"], killed["up_at"], color="#f0e4e1", label="without Redis")
    milli = [1000 * one for one in killed["max_s"]]
    ax.plot(killed["seconds"], milli, color=THEIRS, lw=1, label="slowest")
    milli = [1000 * one for one in killed["p99_s"]]
    ax.plot(killed["seconds"], milli, color=OURS, lw=1.6, label="p99")
    ax.set_yscale("log")
    ax.yaxis.set_major_formatter("{x:g}")
    ax.set_xlabel("seconds")
    ax.set_ylabel("reads of each second, ms")
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, 1.14), ncols=3, frameon=False)
    ax.grid(axis="y", color="#e3e6ea")
    ax.spines[["top", "right"]].set_visible(False)
    figure_.suptitle(
        f"Redis killed for {method['down_s']:g} s: two hosts, {method['workers_a_host']} workers "
        f"each, {method['keys']} hot keys\n{_place(document)}"
    )
    figure_.tight_layout(rect=(0, 0, 1, 0.98))
    _save(plt, figure_, path)
