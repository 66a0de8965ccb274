"""Which run this is and where it stands: what every log line of a run says, and what is left to tell when it ends.

A run is bound to the thread that runs its flow, and to those that Prefect starts for its tasks; two runs in one process do not mix.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class StageSpent:
    """What a stage took: seconds by the clock and of the processors, its peak in bytes (0: not watched), and whether it was reused."""

    seconds: float
    cpu_seconds: float = 0.0
    peak_memory: int = 0
    reused: bool = False


@dataclass(slots=True, kw_only=True)
class RunContext:
    """A run under way; ``folder`` is the run folder of its config.

    ``as_of`` is None until the day is known, ``run_id`` until what is read is; ``stages`` are in the order they ended; ``summary`` is the
    flow's, once it has ended well. ``flow_run_id`` is Prefect's.
    """

    folder: Path
    as_of: str | None = None
    run_id: str | None = None
    flow_run_id: str | None = None
    stages: dict[str, StageSpent] = field(default_factory=dict)
    summary: dict[str, Any] | None = None


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
    """Work for ``run`` in this thread for the block."""
    before, stage_before = _RUN.set(run), _STAGE.set(None)
    try:
        yield
    finally:
        _RUN.reset(before)
        _STAGE.reset(stage_before)


def stage_ended(name: str, spent: StageSpent) -> None:
    """Note what a stage took."""
    run = _RUN.get()
    if run is not None:
        run.stages[name] = spent


@contextmanager
def timed_stage(name: str) -> Iterator[None]:
    """Be in a stage for the block, in this thread; it stays named until the next begins."""
    _STAGE.set(name)
    start, worked = time.monotonic(), time.process_time()
    yield
    stage_ended(name, StageSpent(seconds=time.monotonic() - start, cpu_seconds=time.process_time() - worked))
