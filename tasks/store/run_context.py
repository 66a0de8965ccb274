"""The run and the stage that a thread works for: what every log line says, and what a run leaves for its metrics.

A run is bound to the thread of its flow and to the threads that Prefect starts for its tasks. Two runs in one process do not mix.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tasks.progress import displays


@dataclass(frozen=True, slots=True, kw_only=True)
class StageSpent:
    """Wall seconds, processor seconds and peak bytes (0: not measured) of a stage."""

    seconds: float
    cpu_seconds: float = 0.0
    peak_memory: int = 0

    def __add__(self, other: StageSpent) -> StageSpent:
        return StageSpent(
            seconds=self.seconds + other.seconds,
            cpu_seconds=self.cpu_seconds + other.cpu_seconds,
            peak_memory=max(self.peak_memory, other.peak_memory),
        )


@dataclass(slots=True, kw_only=True)
class RunContext:
    """A run. `folder` is the run folder of its config.

    `as_of` is None until the day is known, `run_id` until the input was read. `summary` is the flow's, once it succeeded.
    `stages` are in the order of their first end. `on_stage` is called with the name of each stage that begins.
    """

    folder: Path
    as_of: str | None = None
    run_id: str | None = None
    stages: dict[str, StageSpent] = field(default_factory=dict)
    summary: dict[str, Any] | None = None
    on_stage: Callable[[str], None] | None = None


_RUN: ContextVar[RunContext | None] = ContextVar("run", default=None)
_STAGE: ContextVar[str | None] = ContextVar("stage", default=None)


def current_run() -> RunContext | None:
    """The run that this thread works for."""
    return _RUN.get()


def current_stage() -> str | None:
    """The stage that this thread is in, or was in last."""
    return _STAGE.get()


@contextmanager
def bind_run(run: RunContext) -> Iterator[None]:
    """Work for `run` in this thread for the block."""
    previous, previous_stage = _RUN.set(run), _STAGE.set(None)
    try:
        yield
    finally:
        _RUN.reset(previous)
        _STAGE.reset(previous_stage)


def begin_stage(name: str) -> None:
    """Note that this thread begins a stage."""
    _STAGE.set(name)
    for display in displays():
        display.begin(name)
    run = _RUN.get()
    if run is not None and run.on_stage is not None:
        run.on_stage(name)


def end_stage(name: str, spent: StageSpent) -> None:
    """Add to what the run spent on a stage. A stage that was computed first and reused later keeps what it took."""
    for display in displays():
        display.end(name, spent.seconds)
    run = _RUN.get()
    if run is not None:
        run.stages[name] = run.stages[name] + spent if name in run.stages else spent


@contextmanager
def timed_stage(name: str) -> Iterator[None]:
    """Run the block as a stage and note the time that it took."""
    begin_stage(name)
    start, worked = time.monotonic(), time.process_time()
    yield
    end_stage(name, StageSpent(seconds=time.monotonic() - start, cpu_seconds=time.process_time() - worked))
