"""Where progress is shown: on the terminal of a command, or nowhere, as in a worker."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Display(Protocol):
    """Shows the stages of a run and how far they are."""

    def begin(self, stage: str) -> None:
        """A stage begins."""

    def end(self, stage: str, seconds: float) -> None:
        """A stage has ended after so many seconds."""

    def advance(self, what: str, done: int, total: int) -> None:
        """So much of the current stage is done, or of `what` outside a stage."""

    def note(self, text: str) -> None:
        """A line that stays."""


_shown: list[Display] = []


@contextmanager
def show_on(display: Display) -> Iterator[None]:
    """Show progress on `display` for the block, unless `stop_showing` is called."""
    _shown.append(display)
    try:
        yield
    finally:
        _shown.clear()


def stop_showing() -> None:
    """Show progress nowhere: the terminal gets the log instead."""
    _shown.clear()


def displays() -> tuple[Display, ...]:
    """The display of this process, if it has one."""
    return tuple(_shown)


def advance(what: str, done: int, total: int) -> None:
    """Show that so much of `what` is done. For commands that keep no log."""
    for display in displays():
        display.advance(what, done, total)


def note(text: str) -> None:
    """Show a line that stays."""
    for display in displays():
        display.note(text)
