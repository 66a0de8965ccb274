"""A picture of the states of days: one column for each week, one square for each day, with a colour and a letter."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from tasks.errors import InputError
from tasks.runs.day_status import DayStatus
from tasks.store.atomic_files import write_whole

# The colours of Okabe and Ito, which most colour-blind readers can tell apart. The letter has the same meaning.
LOOKS = {
    "done": ("#009e73", "D"),
    "stale": ("#e69f00", "S"),
    "running": ("#56b4e9", "r"),
    "dead": ("#1a1a1a", "x"),
    "failed": ("#d55e00", "F"),
    "refused": ("#cc79a7", "R"),
    "rolled-back": ("#f0e442", "B"),
    "missing": ("#ffffff", "M"),
    "no-data": ("#e8e8e8", ""),
}
DARK = ("dead", "done", "failed")
WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
FORMATS = (".png", ".svg")
EDGE = "#555555"


def draw_days(days: Sequence[DayStatus], path: Path) -> None:
    """Draw ``days`` (oldest first) into a PNG or SVG file.

    Raises InputError for another file name, StorageError if the file cannot be written.
    """
    if path.suffix.lower() not in FORMATS:
        raise InputError(f"--picture {path}: wanted a file that ends in {' or '.join(FORMATS)}")
    first, last = days[0].day, days[-1].day
    monday = first - timedelta(days=first.weekday())
    weeks = (last - monday).days // 7 + 1
    figure = Figure(figsize=(max(5.0, 1.2 + 0.42 * weeks), 3.9), layout="constrained")
    axes = figure.add_subplot(title=f"{first} to {last}", xlim=(0, weeks), ylim=(7, 0))
    for x in days:
        (week, weekday), (colour, letter) = divmod((x.day - monday).days, 7), LOOKS[x.state]
        axes.add_patch(Rectangle((week + 0.06, weekday + 0.06), 0.88, 0.88, facecolor=colour, edgecolor=EDGE))
        text, ink = f"{letter}\n{x.day.day}", "white" if x.state in DARK else "black"
        axes.text(week + 0.5, weekday + 0.5, text, ha="center", va="center", fontsize=6, color=ink)
    axes.set_yticks([x + 0.5 for x in range(7)], WEEKDAYS)
    starts = range(0, weeks, max(1, weeks // 26))
    axes.set_xticks([x + 0.5 for x in starts], [f"{monday + timedelta(weeks=x):%-d %b}" for x in starts], rotation=45)
    axes.tick_params(length=0, labelsize=7)
    counts = Counter(x.state for x in days)
    names = {state: f"{letter} {state} ({counts[state]})".strip() for state, (_, letter) in LOOKS.items()}
    handles = [Patch(facecolor=LOOKS[state][0], edgecolor=EDGE, label=names[state]) for state in LOOKS if counts[state]]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    kind = path.suffix.lower().removeprefix(".")
    way_out = "name a file in a folder that can be written with --picture"
    write_whole(path, lambda temporary: figure.savefig(temporary, format=kind, dpi=150), way_out=way_out)
