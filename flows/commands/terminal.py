"""What a command shows while it works: a bar a stage on a terminal, a line for each long stage elsewhere, or the log."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.text import Text

from tasks.progress import Display, show_on
from tasks.runs.day_text import duration
from tasks.runs.log import show_warnings_only
from tasks.store.run_context import current_stage

# Elsewhere than on a terminal: the seconds that make a stage worth a line, and those between two lines of one stage.
LONG, OFTEN = 1.0, 60.0
# Training stops when it no longer gains, mostly long before its last epoch.
_MAY_STOP = ("anchors",)
_WORDS = {"source": "read", "sinkhorn": "matching", "cross_modal_target": "cross-modal", "cross_modal": "cross-modal"}


@contextmanager
def terminal(*, verbose: bool, quiet: bool) -> Iterator[None]:
    """Show the work of the block: its progress and warnings, with ``verbose`` its log, with ``quiet`` nothing."""
    if verbose:
        yield
        return
    show_warnings_only()
    if quiet:
        yield
        return
    display = Bars() if sys.stderr.isatty() else Lines()
    with show_on(display):
        try:
            yield
        finally:
            display.close()


def row_of(stage: str) -> str:
    """The name that a stage has for users; all modalities share it."""
    name = stage.partition("/")[0]
    return _WORDS.get(name, name.replace("_", " "))


def _current(stages: set[str]) -> str | None:
    """The stage that this thread is in, None if it has ended."""
    stage = current_stage()
    return stage if stage in stages else None


class Lines(Display):
    """A line for each stage that took a second, and one a minute for a stage that is at work."""

    def __init__(self) -> None:
        self._began = self._last = time.monotonic()
        self._open: set[str] = set()

    def begin(self, stage: str) -> None:
        """Start a new minute."""
        self._open.add(stage)
        self._began = self._last = time.monotonic()

    def end(self, stage: str, seconds: float) -> None:
        """Print what took long."""
        self._open.discard(stage)
        if seconds >= LONG:
            self.note(f"{stage.replace('_', ' ')}: {duration(seconds)}")

    def advance(self, what: str, done: int, total: int) -> None:
        """Print a line a minute."""
        now = time.monotonic()
        if 0 < done < total and now - self._last >= OFTEN:
            self._last = now
            left = (now - self._began) / done * (total - done)
            stage = _current(self._open) or what
            about = "at most" if stage in _MAY_STOP else "about"
            self.note(f"{stage}: {done:,} of {total:,}, {about} {duration(left)} left")

    def note(self, text: str) -> None:
        """Print a line."""
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()

    def close(self) -> None:
        """Nothing is left open."""


class _Time(ProgressColumn):
    """How long a stage took, or how long it will still take, or how long it has been at work."""

    def render(self, task: Task) -> Text:
        if (spent := task.fields["spent"]) is not None:
            return Text(duration(spent) if spent >= LONG else "", style="dim")
        if task.finished:
            return Text()
        if (left := task.time_remaining) is not None:
            return Text(f"{'at most ' if task.description in _MAY_STOP else ''}{duration(left)} left")
        return Text(duration(task.elapsed or 0.0), style="dim")


class Bars(Display):
    """One live bar for each stage, with the time that is left. All of them go when the command ends."""

    def __init__(self, console: Console | None = None) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(bar_width=32), _Time())
        console = console or Console(stderr=True)
        self._progress = Progress(*columns, console=console, transient=True, redirect_stdout=False)
        self._rows: dict[str, TaskID] = {}
        self._spent: dict[str, float] = {}
        self._open: set[str] = set()

    def begin(self, stage: str) -> None:
        """Let the bar of a stage move."""
        self._open.add(stage)
        task = self._row(row_of(stage))
        self._progress.reset(task, spent=None)
        self._progress.tasks[task].total = None

    def end(self, stage: str, seconds: float) -> None:
        """Fill the bar of a stage."""
        self._open.discard(stage)
        name = row_of(stage)
        self._spent[name] = self._spent.get(name, 0.0) + seconds
        self._progress.update(self._row(name), total=1, completed=1, spent=self._spent[name])

    def advance(self, what: str, done: int, total: int) -> None:
        """Move the bar of the current stage. Outside a stage the work has a bar of its own."""
        stage = _current(self._open)
        task = self._row(what if stage is None else row_of(stage))
        if self._progress.tasks[task].completed > done:
            self._progress.reset(task, total=total, spent=None)
        self._progress.update(task, completed=done, total=total)

    def note(self, text: str) -> None:
        """Print a line above the bars."""
        self._progress.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Take the bars away."""
        self._progress.stop()

    def _row(self, name: str) -> TaskID:
        self._progress.start()
        if name not in self._rows:
            self._rows[name] = self._progress.add_task(name, total=None, spent=None)
        return self._rows[name]
