"""Running a backfill: windows of days, one process for each day. The days are published in the order of the plan."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import asdict, dataclass, replace
from datetime import date
from typing import Any

from pydantic import ValidationError

from rectifier_core.base.config import explain
from tasks.backfill.day_process import DayProcess, Ended
from tasks.backfill.plan import PlannedDay
from tasks.errors import GateRefusedError, InputError
from tasks.progress import advance
from tasks.resources.config import ResourcesConfig
from tasks.run_logger import run_logger
from tasks.runs.config import RunSettings
from tasks.runs.day_text import duration
from tasks.runs.folders import sweep_stages, use_stages

SKIPPED = ("DayHeldError", "DayTakenError")


@dataclass(frozen=True, slots=True, kw_only=True)
class DayOutcome:
    """How a day ended: "published", "unchanged" (the table had this very run), "refused", "failed" or "skipped"."""

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
        """The outcome of a day that was run."""
        if ended.kind in SKIPPED:
            return cls(day=planned.day, outcome="skipped", reason=ended.message, seconds=seconds)
        if ended.result is None:
            outcome = "refused" if ended.code == GateRefusedError.exit_code else "failed"
            return cls(day=planned.day, outcome=outcome, exit_code=ended.code, message=ended.message, seconds=seconds)
        facts = dict(ended.result)
        outcome = "published" if facts.pop("published") else "unchanged"
        return cls(day=planned.day, outcome=outcome, seconds=seconds, **facts)

    @property
    def values(self) -> dict[str, Any]:
        """The outcome as JSON values."""
        return asdict(self) | {"day": self.day.isoformat()}


class ProgressEstimate:
    """Counts the days that ended and estimates the time for the rest."""

    def __init__(self, total: int, each: float | None, parallel: int) -> None:
        self._total, self._done, self._each, self._parallel = total, 0, each, parallel
        self._start = time.monotonic()

    def expected(self) -> str:
        """A sentence on the days to run and, if earlier runs give the seconds of one day, on the time."""
        text = f"{self._total} days to run, {self._parallel} at a time"
        return text if self._each is None else f"{text}, about {duration(self._each * self._total / self._parallel)}"

    def log(self, outcome: DayOutcome) -> None:
        """Count a day, and log its outcome and the time left."""
        self._done += 1
        left = self._total - self._done
        result = f"version {outcome.version}" if outcome.version is not None else outcome.message or outcome.reason
        text = f"day {self._done} of {self._total}: {outcome.day} {outcome.outcome}: {result}"
        if left:
            # The days of a window end nearly together: while one is published the others were already computed.
            computed = min(self._total, -(-self._done // self._parallel) * self._parallel)
            text += f"; {left} left, about {duration((time.monotonic() - self._start) / computed * left)}"
        log = run_logger().warning if outcome.exit_code or outcome.outcome == "skipped" else run_logger().info
        log("%s", text)
        advance("days", self._done, self._total)


def run_days(
    windows: Sequence[Sequence[PlannedDay]],
    start: Callable[[PlannedDay], DayProcess],
    settings: RunSettings,
    each_done: Callable[[PlannedDay, DayOutcome, bool], None],
) -> list[DayOutcome]:
    """Run every window. `each_done` gets each day, its outcome, and whether its process answered. No process outlives this call.

    The days of a window compute in parallel and publish in order. Until they have published, no sweep removes their stage outputs.
    """
    outcomes = []
    for window in windows:
        together = len(window) > 1
        with use_stages(settings) if together else nullcontext(), ExitStack() as stack:
            begun, processes = time.monotonic(), []
            for planned in window:
                process = start(planned)
                stack.callback(process.join)
                stack.callback(process.stop)
                processes.append((planned, process))
            for planned, process in processes:
                ended = process.finish()
                outcome = DayOutcome.of(planned, ended, round(time.monotonic() - begun, 3))
                outcomes.append(outcome)
                each_done(planned, outcome, ended.answered)
        if together:
            sweep_stages(settings)
    return outcomes


def divided(resources: ResourcesConfig, days: int) -> ResourcesConfig:
    """The resources of each of so many parallel days. Raises InputError if that is too little, or if the runner is a cluster."""
    if days == 1:
        return resources
    if resources.runner != "local":
        raise InputError("--parallel: resources.runner is a cluster, which shares each day out; run one day at a time")
    try:
        memory = f"{resources.memory_bytes // days // 2**20}MiB"
        return replace(resources, memory=memory, threads=max(1, resources.thread_count // days))
    except ValidationError as error:
        way_out = "run fewer days at a time or raise resources.memory"
        raise InputError(f"--parallel {days}: {explain(error, ResourcesConfig)} a day; {way_out}") from error
