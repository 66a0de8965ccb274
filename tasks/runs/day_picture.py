"""The states of days as a picture: weeks side by side, a letter a day, so that it reads without its colours."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from tasks.errors import InputError
from tasks.runs.day_status import STATES, DayStatus
from tasks.store.atomic_files import write_whole

# Okabe and Ito's colours, which most eyes tell apart; a letter says the same.
LOOKS = {
    "done": ("#009e73", "D"),
    "stale": ("#e69f00", "S"),
    "running": ("#56b4e9", "r"),
    "dead": ("#1a1a1a", "x"),
    "failed": ("#d55e00", "F"),
    "refused": ("#cc79a7", "R"),
    "missing": ("#ffffff", "M"),
    "no-data": ("#e8e8e8", ""),
}
WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
FORMATS = (".png", ".svg")


def draw_days(days: Sequence[DayStatus], path: Path) -> None:
    """Draw ``days`` (oldest first) into a PNG or SVG file. Raises InputError for another ending, StorageError where it cannot be."""
    if path.suffix.lower() not in FORMATS:
        raise InputError(f"--picture {path}: wanted a file that ends in {' or '.join(FORMATS)}")
    monday = _monday(days[0].day)
    weeks = (_monday(days[-1].day) - monday).days // 7 + 1
    figure = Figure(figsize=(max(5.0, 1.2 + 0.42 * weeks), 3.9))
    axes = figure.add_axes((0.9 / figure.get_figwidth(), 0.27, 1 - 1.1 / figure.get_figwidth(), 0.62))
    for x in days:
        colour, letter = LOOKS[x.state]
        week, weekday = (x.day - monday).days // 7, x.day.weekday()
        axes.add_patch(
            Rectangle((week + 0.06, weekday + 0.06), 0.88, 0.88, facecolor=colour, edgecolor="#555555", linewidth=0.6)
        )
        ink = "white" if x.state in ("dead", "done", "failed") else "black"
        axes.text(week + 0.5, weekday + 0.64, f"{x.day.day}", ha="center", va="center", fontsize=7, color=ink)
        axes.text(week + 0.5, weekday + 0.3, letter, ha="center", va="center", fontsize=6, color=ink)
    axes.set(xlim=(0, weeks), ylim=(7, 0), aspect="equal" if weeks > 8 else "auto")
    axes.set_yticks([x + 0.5 for x in range(7)], WEEKDAYS, fontsize=8)
    starts = range(0, weeks, max(1, weeks // 26))
    axes.set_xticks(
        [x + 0.5 for x in starts], [f"{monday + timedelta(weeks=x):%-d %b}" for x in starts], fontsize=7, rotation=45
    )
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_visible(False)
    figure.suptitle(f"{days[0].day} to {days[-1].day}", fontsize=10)
    present = [state for state in STATES if any(x.state == state for x in days)]
    handles = [Patch(facecolor=LOOKS[x][0], edgecolor="#555555", label=_label(x, days)) for x in present]
    figure.legend(handles=handles, loc="lower center", ncols=4, fontsize=8, frameon=False)
    form = path.suffix.lower().removeprefix(".")
    said = "--picture {path}: cannot be written: {why}; make its folder writable"
    write_whole(path, lambda temporary: figure.savefig(temporary, format=form, dpi=150), failed=said)


def _label(state: str, days: Sequence[DayStatus]) -> str:
    letter = LOOKS[state][1]
    return f"{letter} {state} ({sum(x.state == state for x in days)})".strip()


def _monday(day: date) -> date:
    return day - timedelta(days=day.weekday())
