"""Carrying a backfill out: windows of days, each day a process, published one after the other in the order of the plan."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

from tasks.backfill.day_process import DayProcess, Ended
from tasks.backfill.plan import PlannedDay
from tasks.errors import InputError
from tasks.resources.config import ResourcesConfig
from tasks.run_logger import run_logger
from tasks.runs.config import RunSettings
from tasks.runs.day_text import duration
from tasks.runs.identity import sweep_stages, use_stages

SKIPPED = ("DayHeldError", "DayTakenError")


@dataclass(frozen=True, slots=True, kw_only=True)
class DayOutcome:
    """What became of a day: "published", "unchanged" (the table showed this very run), "refused", "failed" or "skipped"."""

    day: date
    outcome: str
    reason: str = ""
    exit_code: int = 0
    message: str | None = None
    run_id: str | None = None
    version: int | None = None
    rows: int | None = None
    seconds: float = 0.0

    @classmethod
    def of(cls, planned: PlannedDay, ended: Ended, seconds: float) -> DayOutcome:
        """How a day that was run ended."""
        if ended.kind in SKIPPED:
            return cls(day=planned.day, outcome="skipped", reason=ended.message, seconds=seconds)
        if ended.found is None:
            outcome = "refused" if ended.code == 3 else "failed"
            return cls(day=planned.day, outcome=outcome, exit_code=ended.code, message=ended.message, seconds=seconds)
        found = {name: ended.found[name] for name in ("run_id", "version", "rows")}
        return cls(
            day=planned.day, outcome="published" if ended.found["published"] else "unchanged", seconds=seconds, **found
        )

    @property
    def values(self) -> dict[str, Any]:
        """As JSON."""
        names = ("outcome", "reason", "exit_code", "message", "run_id", "version", "rows", "seconds")
        return {"day": self.day.isoformat(), **{name: getattr(self, name) for name in names}}


class Pace:
    """How many days are done, and how long the rest will take at the pace so far."""

    def __init__(self, total: int, each: float | None, parallel: int) -> None:
        self._total, self._done, self._each, self._parallel = total, 0, each, parallel
        self._start = time.monotonic()

    def told(self, outcome: DayOutcome) -> str:
        """Count a day, and say so."""
        self._done += 1
        left = self._total - self._done
        said = f"version {outcome.version}" if outcome.version is not None else outcome.message or outcome.reason
        # The days of a window end nearly together: while one is published the others have been computed.
        computed = min(self._total, -(-self._done // self._parallel) * self._parallel)
        still = f"; {left} left, about {duration((time.monotonic() - self._start) / computed * left)}" if left else ""
        return f"day {self._done} of {self._total}: {outcome.day} {outcome.outcome}: {said}{still}"

    def expected(self) -> str:
        """What is known before the first day is done."""
        if self._each is None:
            return f"{self._total} days to run, {self._parallel} at a time"
        return f"{self._total} days to run, {self._parallel} at a time, about {duration(self._each * self._total / self._parallel)}"


def carry_out(
    windows: Sequence[Sequence[PlannedDay]],
    launch: Callable[[PlannedDay], DayProcess | DayOutcome],
    settings: RunSettings,
    each_done: Callable[[PlannedDay, DayOutcome, bool], None],
) -> list[DayOutcome]:
    """Run every window; ``each_done`` hears of each day and whether its process said how it ended. However this is left, no process stays.

    The days of a window compute side by side, and publish in order: what they computed stays in the store until they have, and beyond
    ``keep_stages`` no longer.
    """
    outcomes = []
    for window in windows:
        with _kept(settings, len(window)), ExitStack() as running:
            begun = time.monotonic()
            started = [(planned, _launched(running, launch(planned))) for planned in window]
            for planned, process in started:
                if isinstance(process, DayOutcome):
                    outcome, answered = process, True
                else:
                    ended = _end(process)
                    outcome, answered = (
                        DayOutcome.of(planned, ended, round(time.monotonic() - begun, 3)),
                        ended.answered,
                    )
                outcomes.append(outcome)
                each_done(planned, outcome, answered)
    return outcomes


@contextmanager
def _kept(settings: RunSettings, days: int) -> Iterator[None]:
    if days < 2:
        yield
        return
    with use_stages(settings):
        yield
    sweep_stages(settings)


def _launched(running: ExitStack, process: DayProcess | DayOutcome) -> DayProcess | DayOutcome:
    if isinstance(process, DayProcess):
        running.callback(process.join)
        running.callback(process.stop)
    return process


def _end(process: DayProcess) -> Ended:
    ended = process.wait()
    while ended is None:
        process.go()
        ended = process.wait()
    return ended


def divided(resources: ResourcesConfig, days: int) -> ResourcesConfig:
    """What each of so many days gets. Raises InputError where that is too little, or where days would share a cluster or a card."""
    if days == 1:
        return resources
    if resources.runner != "local":
        raise InputError(
            "--parallel: resources.runner is a cluster, which works on each day together already; run one day at a time"
        )
    try:
        memory = f"{resources.memory_bytes // days // 2**20}MiB"
        return replace(resources, memory=memory, threads=max(1, resources.thread_count // days))
    except ValueError as error:
        raise InputError(
            f"--parallel {days}: {error} a day; run fewer days at a time or raise resources.memory"
        ) from error


def log_day(pace: Pace, outcome: DayOutcome) -> None:
    """Say in the log what became of a day."""
    level = run_logger().warning if outcome.exit_code or outcome.outcome == "skipped" else run_logger().info
    level("%s", pace.told(outcome))
