"""Small multiples for the evaluation's pictures: panels of curves and of dots, in the colours of a page or of a document.

Everything is laid out in inches, so that labels keep their size and their distance whatever the number of panels.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image

from tasks.report.figures import BLUE, GREEN, GREY, GRID, INK, ORANGE, STYLE, inline_svg

__all__ = [
    "DOCUMENT",
    "PAGE",
    "Colours",
    "Dots",
    "Figure",
    "Mark",
    "Points",
    "Styled",
    "dot_panels",
    "is_narrow",
    "line_panels",
    "png",
    "svg",
]

Styled = tuple[str, str, Any]
"""Colour (a field of ``Colours``), marker and dashes of a series."""
Dots = dict[str, tuple[float, float | None, float | None]]
"""By row: where the dot is, and the ends of its bar."""
Points = list[tuple[float, float, float]]
"""Place, mean and half the bar."""
_WIDE, _HALF = 11.2, 5.6
_LETTER = 0.066
_EXTRA_VARIABLES = {"#070707": "--purple", "#080808": "--gold"}
_DPI = 110


@dataclass(frozen=True, slots=True, kw_only=True)
class Colours:
    """What a picture is painted with; Okabe and Ito's palette or close to it, darker where it is read on white."""

    ink: str
    line: str
    blue: str
    orange: str
    green: str
    grey: str
    purple: str
    gold: str
    ground: str


# Stand-ins that ``svg`` replaces by the variables of the page, which follow its light and dark scheme.
PAGE = Colours(
    ink=INK,
    line=GRID,
    blue=BLUE,
    orange=ORANGE,
    green=GREEN,
    grey=GREY,
    purple="#070707",
    gold="#080808",
    ground="none",
)
DOCUMENT = Colours(
    ink="#4a5361",
    line="#dfe3e8",
    blue="#0072b2",
    orange="#d55e00",
    green="#00805c",
    grey="#7a838f",
    purple="#b3558b",
    gold="#a87a00",
    ground="#ffffff",
)


@dataclass(frozen=True, slots=True)
class Mark:
    """A vertical line across a panel of dots; the one at zero is solid, others are dashed and may be named in the legend."""

    at: float
    name: str = ""


def svg(figure: Figure, key: str) -> str:
    """The picture, drawn in ``PAGE``'s colours, as an element of a page; ids in it start with ``key``."""
    with style.context(["default", STYLE]):
        stream = io.StringIO()
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = inline_svg(stream.getvalue(), key)
    for colour, variable in _EXTRA_VARIABLES.items():
        text = text.replace(colour, f"var({variable})")
    return text


def png(figure: Figure) -> bytes:
    """The picture as a PNG of at most 64 colours, a third of the size, without a date or a version in it."""
    drawn, stream = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", dpi=_DPI)
    with Image.open(drawn) as picture:
        picture.convert("RGB").quantize(64, dither=Image.Dither.NONE).save(stream, format="png", optimize=True)
    return stream.getvalue()


def is_narrow(figure: Figure) -> bool:
    """Whether the picture is a single panel, which a page should not stretch to its own width."""
    return bool(figure.get_figwidth() == _HALF)


def line_panels(
    colours: Colours,
    panels: Sequence[tuple[str, Sequence[tuple[str, Styled, Points]]]],
    *,
    xlabel: str,
    ylabel: str,
    ticks: Sequence[str] | None = None,
    joined: bool = True,
) -> Figure:
    """One panel a ``(title, series)``: means with bars over places, which ``ticks`` name where they are not numbers."""
    names = _names(series for _, series in panels)
    with _grid(colours, [title for title, _ in panels], names, left=0.68, height=1.75) as (figure, axes):
        for at, (_, series) in enumerate(panels):
            places = [x for _, _, points in series for x, _, _ in points]
            reach = (max(places) - min(places)) or 1.0 if places else 1.0
            for order, (name, (colour, marker, dashes), points) in enumerate(series):
                x, y, bar = (list(column) for column in zip(*points, strict=True))
                shift = (order - (len(series) - 1) / 2) * 0.011 * reach
                axes[at].errorbar(
                    [value + shift for value in x],
                    y,
                    yerr=bar,
                    color=getattr(colours, colour),
                    marker=marker,
                    markersize=4,
                    linestyle=dashes if joined else "none",
                    linewidth=1.4,
                    elinewidth=0.9,
                    capsize=1.8,
                    label=name,
                )
            axes[at].margins(x=0.06, y=0.1)
            axes[at].yaxis.set_major_locator(MaxNLocator(nbins=5))
            if ticks is not None:
                axes[at].set_xticks(range(len(ticks)), ticks)
                axes[at].set_xlim(-0.5, len(ticks) - 0.5)
            elif places:
                _number_ticks(axes[at], places)
        _label(figure, axes, xlabel, ylabel)
        _legend(figure, axes, names)
    return figure


def dot_panels(
    colours: Colours,
    panels: Sequence[tuple[str, Sequence[tuple[str, Styled, Dots]]]],
    rows: Sequence[str],
    *,
    xlabel: str,
    marks: Sequence[Mark],
) -> Figure:
    """One panel a ``(title, series)`` with a line for each of ``rows``: dots with bars along x."""
    names = _names(series for _, series in panels)
    named_marks = [mark.name for mark in marks if mark.name]
    step = max(0.26, 0.115 * len(names) + 0.12)
    height = step * len(rows) + 0.1
    left = 0.25 + _LETTER * max(map(len, rows), default=0)
    with _grid(
        colours, [title for title, _ in panels], [*names, *named_marks], left=left, height=height, shared=True
    ) as (figure, axes):
        for at, (_, series) in enumerate(panels):
            for mark in marks:
                dashes = "-" if mark.at == 0 else (0, (4, 2))
                axes[at].axvline(
                    mark.at, color=colours.ink, linewidth=0.9, linestyle=dashes, label=mark.name or None, zorder=1
                )
            for name, (colour, marker, _), dots in series:
                order = names.index(name)
                shift = (order - (len(names) - 1) / 2) * min(0.16, 0.72 / max(1, len(names)))
                for row, (mean, low, high) in dots.items():
                    bar = None if low is None or high is None else [[max(0.0, mean - low)], [max(0.0, high - mean)]]
                    axes[at].errorbar(
                        [mean],
                        [rows.index(row) + shift],
                        xerr=bar,
                        color=getattr(colours, colour),
                        marker=marker,
                        markersize=4.2,
                        elinewidth=1.1,
                        capsize=1.8,
                        linestyle="none",
                        label=name,
                    )
            axes[at].set_ylim(len(rows) - 0.5, -0.5)
            axes[at].set_yticks(range(len(rows)), rows if at % _columns(len(panels)) == 0 else [""] * len(rows))
            axes[at].grid(axis="y", visible=False)
            axes[at].xaxis.set_major_locator(MaxNLocator(nbins=5))
            axes[at].margins(x=0.06)
        _label(figure, axes, xlabel, "")
        _legend(figure, axes, [*names, *named_marks])
    return figure


def _columns(panels: int) -> int:
    """Three at most, and two for four panels, which three would leave with one alone."""
    return 2 if panels == 4 else min(3, panels)


@contextmanager
def _grid(
    colours: Colours, titles: Sequence[str], names: Sequence[str], *, left: float, height: float, shared: bool = False
) -> Iterator[tuple[Figure, list[Axes]]]:
    """Panels of ``height`` inches side by side, room for a legend above all and for labels below each."""
    columns = _columns(len(titles))
    rows = math.ceil(len(titles) / columns)
    width = _HALF if columns == 1 else _WIDE
    top = 0.14 + 0.21 * _legend_shape(names, width)[1]
    above, below = (0.26 if any(titles) else 0.02), 0.5
    between = 0.28 if shared else left
    across = (width - left - 0.12 - between * (columns - 1)) / columns
    tall = top + rows * (above + height + below)
    with style.context(["default", _painted(colours)]):
        figure = Figure(figsize=(width, tall), facecolor=colours.ground)
        axes = []
        for at, title in enumerate(titles):
            row, column = divmod(at, columns)
            bottom = tall - top - (row + 1) * (above + height) - row * below
            place = ((left + column * (across + between)) / width, bottom / tall, across / width, height / tall)
            axes.append(figure.add_axes(place))
            axes[-1].set_title(title, loc="left", fontsize=9, pad=5, color=colours.ink, fontweight="bold")
        yield figure, axes


def _painted(colours: Colours) -> dict[str, Any]:
    real = {INK: colours.ink, GRID: colours.line}
    painted = {name: real.get(value, value) if isinstance(value, str) else value for name, value in STYLE.items()}
    return painted | {"axes.titlecolor": colours.ink}


def _names(panels: Iterator[Sequence[tuple[str, Styled, Any]]]) -> list[str]:
    return list(dict.fromkeys(name for series in panels for name, _, _ in series))


def _legend_shape(names: Sequence[str], width: float) -> tuple[int, int]:
    """Columns and rows of a legend of ``names`` in ``width`` inches."""
    widest = 0.75 + _LETTER * max(map(len, names), default=1)
    columns = max(1, min(len(names), int((width - 0.2) / widest)))
    return columns, math.ceil(len(names) / columns) if names else 0


def _legend(figure: Figure, axes: Sequence[Axes], names: Sequence[str]) -> None:
    handles: dict[str, Any] = {}
    for panel in axes:
        for handle, name in zip(*panel.get_legend_handles_labels(), strict=True):
            handles.setdefault(name, handle)
    shown = [name for name in names if name in handles]
    if shown:
        columns, _ = _legend_shape(names, figure.get_figwidth())
        figure.legend(
            [handles[name] for name in shown],
            shown,
            loc="upper left",
            bbox_to_anchor=(0.005, 1.0),
            ncols=columns,
            borderaxespad=0.2,
        )


def _label(figure: Figure, axes: Sequence[Axes], xlabel: str, ylabel: str) -> None:
    """Axes named at the outer panels: below the lowest of each column, left of the first of each row."""
    columns = _columns(len(axes))
    for at, panel in enumerate(axes):
        if at + columns >= len(axes):
            panel.set_xlabel(xlabel)
        if at % columns == 0 and ylabel:
            panel.set_ylabel(ylabel)
            panel.yaxis.set_label_coords(-0.53 / (panel.get_position().width * figure.get_figwidth()), 0.5)


def _number_ticks(axes: Axes, places: Sequence[float]) -> None:
    """A tick at every place that was measured, if they are few."""
    known = sorted(set(places))
    if len(known) <= 8:
        axes.set_xticks(known, [f"{x:.4g}" for x in known])
