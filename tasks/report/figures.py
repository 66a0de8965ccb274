"""The report's plots as inline SVG; the same facts give the same bytes.

Colours are CSS variables of the page, so plots follow its light and dark scheme. Text stays text in the page's font. The palette is Okabe
and Ito's, safe for the common forms of colour blindness, and lines differ in dash too. No text from a catalog is drawn.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from tasks.report.phrases import number, plan_name
from tasks.report.summaries import Facts

# Colours that Matplotlib writes unchanged, and the CSS variables that replace them.
INK, GRID, BLUE, ORANGE, GREEN, GREY = "#010101", "#020202", "#030303", "#040404", "#050505", "#060606"
_VARIABLES = {INK: "--ink-2", GRID: "--line", BLUE: "--blue", ORANGE: "--orange", GREEN: "--green", GREY: "--grey"}
_SIZE = (5.4, 2.75)
_FRAME = (0.118, 0.155, 0.855, 0.75)
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "report",
    "font.family": "DejaVu Sans",
    "font.size": 8.5,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": GRID,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "legend.handlelength": 2.2,
    "lines.linewidth": 1.6,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
}
HUB_SERIES = (
    ("raw", "raw top-K", GREY, (1.2, 1.2)),
    ("row", "row-normalised", ORANGE, (5, 1.6)),
    ("sinkhorn", "Sinkhorn", BLUE, ()),
)


def anchor_loss(facts: Facts) -> str:
    """Mean BPR loss per epoch."""
    with _axes("loss", "epoch", "BPR loss") as (axes, svg):
        _series(axes, facts["anchors"]["loss"], ORANGE)
    return svg[0]


def anchor_recall(facts: Facts) -> str:
    """Held-out Recall@20 after each epoch; a dot marks the epoch that was kept."""
    anchors = facts["anchors"]
    with _axes("recall", "epochs done", "held-out Recall@20") as (axes, svg):
        _series(axes, anchors["recall"], BLUE)
        if anchors["best_epoch"] is not None:
            axes.plot([anchors["best_epoch"]], [anchors["best_recall"]], "o", color=BLUE, label="the kept epoch")
            _legend_above(axes)
    return svg[0]


def alignment(modality: Facts, key: str) -> str:
    """Alignment of items with their own feature, and with another item's feature, as shares over the same bins."""
    matched, null = modality["alignment"]["matched"], modality["alignment"]["null"]
    with _axes(f"{key}-alignment", "alignment of feature and anchor (cosine)", "share per bin, %") as (axes, svg):
        for histogram, colour, dash, label in (
            (null, GREY, "--", "with another item's feature"),
            (matched, BLUE, "-", "with the item's own feature"),
        ):
            heights = np.asarray(histogram["counts"], dtype=float) * (100 / max(1, histogram["total"]))
            axes.stairs(heights, histogram["edges"], fill=True, color=colour, alpha=0.25, linewidth=0)
            axes.stairs(heights, histogram["edges"], color=colour, linewidth=1.5, linestyle=dash, label=label)
        axes.set_ylim(bottom=0)
        _legend_above(axes)
    return svg[0]


def trust(modality: Facts, key: str) -> str:
    """Distribution of the published trust."""
    histogram = modality["trust"]["histogram"]
    with _axes(f"{key}-trust", "trust (how likely the feature is the item's own)", "items") as (axes, svg):
        axes.stairs(histogram["counts"], histogram["edges"], fill=True, color=GREEN, alpha=0.28, linewidth=0)
        axes.stairs(histogram["counts"], histogram["edges"], color=GREEN, linewidth=1.5)
        axes.set_xlim(0, 1)
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _short(value)))
    return svg[0]


def hubs(modality: Facts, key: str) -> str:
    """How often each feature is picked, in multiples of a fair share, most picked first, on logarithmic axes."""
    with _axes(f"{key}-hubs", "features, most picked first (rank)", "picked / fair share") as (axes, svg):
        axes.set(xscale="log", yscale="log")
        axes.axhline(1, color=INK, linewidth=0.8, linestyle=(0, (1, 2)))
        lowest = 1.0
        for which, label, colour, dashes in HUB_SERIES:
            facts = modality["hubs"][which]
            if facts is None:
                continue
            rank, use = (np.asarray(facts["curve"][name], dtype=float) for name in ("rank", "use"))
            shown = use > 0
            name = plan_name(modality["balance"]["outcome"]) if which == "sinkhorn" else label
            axes.plot(rank[shown], use[shown], color=colour, dashes=dashes or (None, None), label=name)
            lowest = min(lowest, float(np.quantile(use[shown], 0.02)))
        axes.set_ylim(bottom=max(lowest * 0.7, 1e-3))
        _plain_log(axes)
        _legend_above(axes)
    return svg[0]


def balance(modality: Facts, key: str) -> str:
    """Column error before each iteration of the balancing."""
    errors = modality["balance"]["errors"]
    with _axes(f"{key}-balance", "iterations done", "mean column error") as (axes, svg):
        if any(error is not None and error > 0 for error in errors["y"]):
            axes.set_yscale("log")
        _series(axes, errors, BLUE, marker="o" if errors["length"] <= 30 else "")
        _plain_log(axes)
    return svg[0]


def trend_rate(trend: Facts, modality: Facts, key: str) -> str:
    """A modality's mismatch rate over the last days with its interval; crosses mark days that the gate refused."""
    with _axes(key, "day", "mismatch rate, %") as (axes, svg):
        days = _days(trend)
        rate, *bands = (
            100 * _floats(modality[x]) for x in ("mismatch_rate", "low", "high", "low_unlike", "high_unlike")
        )
        axes.vlines(days, bands[0], bands[1], color=BLUE, linewidth=4, alpha=0.25)
        axes.plot(days, rate, color=BLUE, marker="o", markersize=3, label="estimate and 95 % interval")
        if np.isfinite(bands[2]).any():
            axes.vlines(days, bands[2], bands[3], color=BLUE, linewidth=4, alpha=0.4, label="unlike items only")
        _mark_refused(axes, trend, rate)
        axes.set_ylim(bottom=0)
        _date_axis(axes, days)
    return svg[0]


def trend_drift(trend: Facts, modality: Facts, key: str) -> str:
    """A modality's mean cosine to the last published version over the last days."""
    with _axes(key, "day", "mean cosine") as (axes, svg):
        days, drift = _days(trend), _floats(modality["drift"])
        axes.plot(
            days, drift, color=GREEN, marker="o", markersize=3, label="rows of the day against the last published"
        )
        _mark_refused(axes, trend, drift)
        _date_axis(axes, days)
        room = max(0.01, 1 - float(np.nanmin(drift)))
        axes.set_ylim(1 - 1.15 * room, 1 + 0.05 * room)
        axes.yaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10]))
        axes.ticklabel_format(axis="y", useOffset=False)
    return svg[0]


def sparkline(values: list[float | None], *, width: int = 132, height: int = 22) -> str:
    """A line without axes for a table cell: one value a day, with a dot at the last one."""
    known = [(at, value) for at, value in enumerate(values) if value is not None]
    low, high = min(value for _, value in known), max(value for _, value in known)
    step, scale = (width - 8) / max(1, len(values) - 1), (height - 8) / (high - low) if high > low else 0.0
    points = [(4 + at * step, height - 4 - (value - low) * scale if scale else height / 2) for at, value in known]
    line, (x, y), blue = " ".join(f"{x:.1f},{y:.1f}" for x, y in points), points[-1], f"var({_VARIABLES[BLUE]})"
    shape = f'<polyline points="{line}" fill="none" stroke="{blue}" stroke-width="1.4"/>' if len(points) > 1 else ""
    dot = f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.4" fill="{blue}"/>'
    return f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" class="spark" aria-hidden="true">{shape}{dot}</svg>'


def _days(trend: Facts) -> np.ndarray:
    return np.array([day["as_of"] for day in trend["days"]], dtype="datetime64[D]")


def _floats(values: list[float | None]) -> np.ndarray:
    return np.array([np.nan if x is None else x for x in values], dtype=float)


def _mark_refused(axes: Axes, trend: Facts, values: np.ndarray) -> None:
    refused = np.array([day["outcome"] == "refused" for day in trend["days"]]) & np.isfinite(values)
    if refused.any():
        days = _days(trend)[refused]
        axes.plot(days, values[refused], "x", color=ORANGE, markersize=7, markeredgewidth=1.8, label="refused")


def _date_axis(axes: Axes, days: np.ndarray) -> None:
    """At most six ticks, each at a whole day, and the legend."""
    at = np.unique(np.linspace(0, len(days) - 1, min(len(days), 6)).round().astype(int))
    axes.set_xticks(days[at], [str(day)[5:] for day in days[at]])
    margin = np.timedelta64(max(8, int((days[-1] - days[0]) / np.timedelta64(1, "h")) // 50), "h")
    axes.set_xlim(days[0] - margin, days[-1] + margin)
    _legend_above(axes)


@contextmanager
def _axes(key: str, xlabel: str, ylabel: str) -> Iterator[tuple[Axes, list[str]]]:
    """An empty plot and a list; on leaving, the plot's SVG is appended to the list."""
    with style.context(["default", STYLE]):
        figure = Figure(figsize=_SIZE)
        axes = figure.add_axes(_FRAME)
        axes.set(xlabel=xlabel, ylabel=ylabel)
        axes.yaxis.set_label_coords(-0.105, 0.5)
        svg: list[str] = []
        yield axes, svg
        stream = io.StringIO()
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
        svg.append(inline_svg(stream.getvalue(), key))


def _short(value: float) -> str:
    """A short number for a tick: ``50k``, ``1.5M``."""
    for least, unit, name in ((1e9, 1e9, "G"), (1e6, 1e6, "M"), (1e4, 1e3, "k")):
        if value >= least:
            return f"{value / unit:.3g}{name}"
    return number(value)


def _series(axes: Axes, curve: Facts, colour: str, *, marker: str = "") -> None:
    y = [float("nan") if value is None else value for value in curve["y"]]
    axes.plot(curve["x"], y, color=colour, marker="o" if len(y) == 1 else marker, markersize=3.5)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=7, integer=True, steps=[1, 2, 5, 10]))


def _legend_above(axes: Axes) -> None:
    axes.legend(loc="lower left", bbox_to_anchor=(-0.01, 0.99), ncols=3, borderaxespad=0.1, columnspacing=1.6)


def _plain_log(axes: Axes) -> None:
    """Plain numbers as ticks of logarithmic axes, also at 2 and 5 where the axis spans few powers of ten."""
    for axis, scale, (low, high) in (
        (axes.xaxis, axes.get_xscale(), axes.get_xlim()),
        (axes.yaxis, axes.get_yscale(), axes.get_ylim()),
    ):
        if scale == "log":
            axis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5) if high / low < 200 else (1,), numticks=9))
            axis.set_minor_locator(NullLocator())
            axis.set_major_formatter(FuncFormatter(lambda value, _: _short(value)))


def inline_svg(svg: str, key: str) -> str:
    """An SVG document as an element of the page: no prolog, no namespaces, ids that start with ``key``, colours as CSS variables."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*|<style[^>]*>.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", svg).replace("xlink:href", "href")
    svg = re.sub(r'<svg [^>]*?viewBox="([^"]*)"[^>]*>', r'<svg viewBox="\1" aria-hidden="true">', svg, count=1)
    svg = re.sub(r'<g id="[^"]*"(/?)>', r"<g\1>", svg).replace("<g/>", "")
    svg = re.sub(r'\bid="', f'id="{key}-', svg).replace('href="#', f'href="#{key}-').replace("url(#", f"url(#{key}-")
    svg = re.sub(r"font(?:-family)?: [^;\"]*'DejaVu Sans'[^;\"]*;?", _font_size, svg)
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, f"var({variable})")
    return re.sub(r">\s+<", "><", svg).strip()


def _font_size(match: re.Match[str]) -> str:
    """The size of a CSS ``font`` shorthand without the family, which the page chooses."""
    pixels = re.search(r"([\d.]+)px", match[0])
    return f"font-size: {pixels[1]}px;" if pixels else ""
