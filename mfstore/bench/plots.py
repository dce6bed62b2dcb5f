"""The plots of a report, as SVG that stands inside the page. Needs matplotlib."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mfstore.bench.mixes import MIXED
from mfstore.bench.report import label, mix, of_mix
from mfstore.bench.scenarios import OBJECTS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f", "#000000")
"""Okabe and Ito's, which people with any colour vision can tell apart."""
INK, GRID = "#222222", "#dddddd"
THEMED = {
    **{colour: f"var(--plot-{number})" for number, colour in enumerate(COLOURS)}, INK: "var(--ink)",
    GRID: "var(--line)",
}  # fmt: skip
"""The page names the colours, for light and for dark."""
SETTINGS = {
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK),
    "svg.fonttype": "none", "font.size": 10, "font.family": "sans-serif", "axes.spines.top": False,
    "axes.spines.right": False, "axes.grid": True, "grid.color": GRID, "grid.linewidth": 0.6,
    "axes.axisbelow": True, "legend.frameon": False, "legend.fontsize": 9,
}  # fmt: skip
MOST = 8
"""Lines in one plot: more cannot be told apart."""
Cells = Sequence[Mapping[str, Any]]


def scaling(cells: Cells, operation: str) -> str | None:
    """Throughput by requests at once, a line for each size; None unless concurrency was varied."""
    lines: dict[str, list[tuple[int, float, float]]] = {}
    for cell in cells:
        scenario = cell["scenario"]
        at = scenario["concurrency"]
        if cell["operation"] == operation and at and scenario["layer"] == OBJECTS and not scenario["failure"]:
            name = mix(scenario) if len(_engines(cells)) == 1 else f"{mix(scenario)}, {cell['engine']}"
            lines.setdefault(name, []).append((at, cell["bytes_per_second"] / 1e6, cell["objects_per_second"]))
    lines = {name: sorted(points) for name, points in lines.items() if len(points) > 1}
    if not lines:
        return None
    figure, (left, right) = _figure(f"scaling-{operation}", 2, 3.4)
    for colour, (name, points) in zip(COLOURS, lines.items(), strict=False):
        at = [point[0] for point in points]
        left.plot(at, [point[1] for point in points], "o-", color=colour, label=name, markersize=4)
        right.plot(at, [point[2] for point in points], "o-", color=colour, markersize=4)
    for axes, what in ((left, "MB/s"), (right, "objects/s")):
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xlabel("requests at once")
        axes.set_title(what, loc="left", fontsize=10)
        ticks = sorted({point[0] for points in lines.values() for point in points})
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        axes.minorticks_off()
        _plain(axes.yaxis)
    _legend(figure)
    return _svg(figure)


def throughput(cells: Cells, operation: str) -> str | None:
    """A bar for each scenario, with its slowest and fastest slice; None without any that moved bytes."""
    found = [cell for cell in cells if cell["operation"] == operation and cell["bytes"]]
    if not found:
        return None
    found = sorted(found, key=lambda cell: cell["bytes"] / max(cell["objects"], 1))[:40]
    figure, (axes,) = _figure(f"throughput-{operation}", 1, 0.7 + 0.32 * len(found))
    engines = list(dict.fromkeys(cell["engine"] for cell in found))
    several = len(engines) > 1
    for row, cell in enumerate(found):
        rate = cell["bytes_per_second"] / 1e6
        colour = COLOURS[engines.index(cell["engine"]) % len(COLOURS)]
        axes.barh(row, rate, color=colour, height=0.62)
        series = [value / 1e6 for value in cell["slices"]["bytes"]]
        edge = rate
        if len(series) > 2:
            axes.plot([min(series), max(series)], [row, row], color=INK, linewidth=1.2, marker="|")
            edge = max(edge, *series)
        text = f" {rate:,.0f} MB/s" if rate >= 10 else f" {rate:.2f} MB/s"
        axes.annotate(f"{text}, {cell['objects_per_second']:,.0f}/s", (edge, row), va="center", fontsize=9,
                      xytext=(3, 0), textcoords="offset points")  # fmt: skip
    names = [f"{label(cell)}, {cell['engine']}" if several else label(cell) for cell in found]
    axes.set_yticks(range(len(found)), names)
    axes.invert_yaxis()
    axes.set_xlabel("MB/s")
    axes.margins(x=0.28)
    axes.set_xlim(left=0)
    axes.grid(visible=False, axis="y")
    return _svg(figure)


def latency(cells: Cells, operation: str) -> str | None:
    """How long objects took: the share of them that took at most so long. None with too few objects."""
    found = [cell for cell in cells if cell["operation"] == operation and cell["latency"]["count"] >= 20]
    if not found:
        return None
    # Of too many, some from the whole range.
    found = [found[number * len(found) // MOST] for number in range(MOST)] if len(found) > MOST else found
    figure, (axes,) = _figure(f"latency-{operation}", 1, 3.2)
    for colour, cell in zip(COLOURS, found, strict=False):
        name = f"{label(cell)}, {cell['engine']}" if len(_engines(found)) > 1 else label(cell)
        _curve(axes, cell["latency"]["curve"], colour, name)
    axes.set_xlabel("milliseconds from the first try to the end")
    _shares(axes)
    _legend(figure)
    return _svg(figure)


def mixed(cells: Cells) -> str | None:
    """Of each mix how long its operations took, and all of them; of an open loop also from when they really began."""
    found = [cell for cell in cells if of_mix(cell) and cell["latency"]["count"] >= 20]
    if not found:
        return None
    numbers = list(dict.fromkeys(cell["number"] for cell in found))[:MOST]
    figure, panels = _figure("mixed", 1, 3.2 * len(numbers), rows=len(numbers))
    for axes, number in zip(panels, numbers, strict=True):
        here = [cell for cell in found if cell["number"] == number]
        for colour, cell in zip(COLOURS, here, strict=False):
            whole = cell["operation"] == MIXED
            _curve(axes, cell["latency"]["curve"], colour, "all" if whole else cell["operation"], 2.2 if whole else 1.2)
            if cell.get("pace"):
                _curve(axes, cell["pace"]["service"]["curve"], colour, "all, once begun", 1.6, ":")
        axes.set_title(label(here[-1]), loc="left", fontsize=10)
        axes.set_xlabel("milliseconds to the end, from the scheduled start where there is one")
        _shares(axes)
        axes.legend(loc="lower right")
    return _svg(figure)


def over_time(cells: Cells) -> str | None:
    """Throughput in each slice of the longest measurements; None when none was long enough."""
    found = [cell for cell in cells if cell["bytes"] and len(cell["slices"]["bytes"]) >= 5]
    found = sorted(found, key=lambda cell: -cell["seconds"])[:6]
    if not found:
        return None
    figure, (axes,) = _figure("time", 1, 3.0)
    for colour, cell in zip(COLOURS, found, strict=False):
        series = [value / 1e6 for value in cell["slices"]["bytes"]]
        width = cell["slices"]["seconds"]
        at = [(number + 0.5) * width for number in range(len(series))]
        axes.plot(at, series, color=colour, label=f"{cell['operation']} {label(cell)}")
    axes.set_xlabel("seconds")
    axes.set_ylabel("MB/s")
    axes.set_ylim(bottom=0)
    axes.set_xlim(left=0)
    _legend(figure)
    return _svg(figure)


def _curve(
    axes: Axes, curve: Sequence[float], colour: str, name: str, width: float = 1.5, style: str = "-"
) -> None:  # fmt: skip
    milliseconds = [seconds * 1000 for seconds in curve]
    axes.plot(milliseconds, range(len(milliseconds)), style, color=colour, label=name, linewidth=width)


def _legend(figure: Figure) -> None:
    """Above the plot, from the left: on a narrow screen, which shows the left of it first, it is seen."""
    rows = -(-sum(len(axes.get_legend_handles_labels()[0]) for axes in figure.axes) // 2)
    figure.set_figheight(figure.get_figheight() + 0.2 * rows)
    figure.legend(loc="outside upper left", ncols=2)


def _shares(axes: Axes) -> None:
    axes.set_xscale("log")
    axes.set_ylabel("% of objects")
    axes.set_yticks([0, 25, 50, 75, 90, 99], ["0", "25", "50", "75", "90", "99"])
    _plain(axes.xaxis)


def _engines(cells: Cells) -> set[str]:
    return {cell["engine"] for cell in cells}


def _figure(name: str, columns: int, height: float, rows: int = 1) -> tuple[Figure, list[Axes]]:
    import matplotlib as mpl
    from matplotlib.figure import Figure

    # The ids in an SVG are hashed from it: two figures in one page must not share any.
    mpl.rcParams.update({**SETTINGS, "svg.hashsalt": name})
    figure = Figure(figsize=(10, height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    return figure, [one for row in axes for one in row]


def _plain(axis: Any) -> None:
    """1000 instead of 10³."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1.0, 3.0), numticks=8))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _svg(figure: Figure) -> str:
    file = io.StringIO()
    figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub("|".join(THEMED), lambda found: THEMED[found[0]], svg)
    # Names of groups, which nothing refers to, are the same in every figure.
    svg = re.sub(r' id="[a-z0-9.]+_\d+"', "", svg)
    return re.sub(r'<svg ([^>]*?)(width|height)="[^"]*" ([^>]*?)(width|height)="[^"]*"', r"<svg \1\3", svg, count=1)
