"""The backfill flow: run the days of a range that need a run, and publish them one after the other."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, replace
from datetime import date
from typing import Any
from uuid import UUID

from prefect import flow

from flows.config.run_config import RunConfig
from flows.nightly import PublishTurn, rectify_catalog
from flows.prefect_settings import hide_tracebacks
from tasks.backfill import flow_runs as runs
from tasks.backfill.day_process import DayProcess
from tasks.backfill.execute import DayOutcome, ProgressEstimate, divided, run_days
from tasks.backfill.plan import PlannedDay, dropped_days, exit_code, expected_seconds, plan_days, windows
from tasks.errors import InputError
from tasks.run_logger import run_logger
from tasks.runs.day_status import latest_day, published_days, read_status
from tasks.runs.day_text import dropped_lines

PRELOAD = ("flows.backfill", "tasks.report.figures")


@dataclass(frozen=True, slots=True, kw_only=True)
class BackfillOptions:
    """How to run the days.

    - ``states``: the states of the days that are run.
    - ``parallel``: how many days are computed at the same time.
    - ``patience``: seconds that a day waits for a table which another run holds.
    - ``slot``: wait for the slot that the server's runs on one table share.
    """

    states: frozenset[str]
    newest_first: bool = False
    parallel: int = 1
    patience: float = 3600.0
    slot: bool = False

    def __post_init__(self) -> None:
        if self.parallel < 1:
            raise ValueError(f"--parallel {self.parallel}: wanted at least 1")
        if not self.patience >= 0:
            raise ValueError(f"--patience {self.patience}: wanted seconds of at least 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class BackfillPlan:
    """What a backfill would do: ``days`` in order, the days that the table would drop, and the expected seconds of ``each`` day."""

    days: tuple[PlannedDay, ...]
    dropped: tuple[date, ...]
    each: float | None

    def values(self, options: BackfillOptions) -> dict[str, Any]:
        """The plan as JSON values."""
        to_run = sum(x.run for x in self.days)
        return {
            "days": [x.values for x in self.days],
            "to_run": to_run,
            "parallel": options.parallel,
            "dropped": [x.isoformat() for x in self.dropped],
            "expected_seconds": None if self.each is None else round(self.each * to_run / options.parallel, 1),
        }


def plan_backfill(config: RunConfig, start: date, end: date, options: BackfillOptions) -> BackfillPlan:
    """Plan a backfill without computing anything. Raises InputError or StorageError."""
    _check_order(config, options)
    divided(config.resources, options.parallel)
    shown = published_days(config.publish)
    days = read_status(config.source, config.publish, config.run, config.shaping, shown, start, end)
    plan = plan_days(days, options.states, newest_first=options.newest_first)
    dropped = dropped_days(plan, shown, config.publish.keep_snapshots)
    return BackfillPlan(days=tuple(plan), dropped=tuple(dropped), each=expected_seconds(days))


def _check_order(config: RunConfig, options: BackfillOptions) -> None:
    """Refuse an order in which a day would run before the nights that its rows depend on."""
    key = (
        "incremental.enabled"
        if config.incremental.enabled
        else "anchors.warm_start"
        if config.anchors.warm_start
        else None
    )
    asked = (
        f"--parallel {options.parallel}" if options.parallel > 1 else "--newest-first" if options.newest_first else None
    )
    if key and asked:
        raise InputError(
            f"{asked}: with {key} a day's rows depend on the nights before it; leave it out, or say --set {key}=false"
        )


@flow(
    name="backfill-catalog", flow_run_name="backfill {start} to {end}", validate_parameters=False, persist_result=False
)
def backfill_catalog(config: RunConfig, start: date, end: date, options: BackfillOptions) -> dict[str, Any]:
    """Run the days from ``start`` to ``end`` that are in one of the wanted states, and return what became of each.

    A day that fails stops no other; ``exit_code`` says whether any did. A day that another run holds, or has had meanwhile, is left to it.
    Raises InputError or StorageError, each with one line for the user.
    """
    begun = time.monotonic()
    plan = plan_backfill(config, start, end, options)
    chosen = windows(plan.days, options.parallel)
    total = sum(map(len, chosen))
    estimate = ProgressEstimate(total, plan.each, options.parallel)
    run_logger().info("%s", estimate.expected())
    for warning in dropped_lines(plan.values(options)):
        run_logger().warning("%s", warning)
    url, flow_runs = runs.server_url(), dict[date, UUID]()
    day_config = replace(config, resources=divided(config.resources, options.parallel))
    turn = {"prepares": options.parallel > 1, "patience": options.patience, "slot": options.slot}

    def start_day(planned: PlannedDay) -> DayProcess:
        flow_runs[planned.day] = run_id = runs.create_day_run(rectify_catalog, planned.day)
        arguments = (day_config, planned.day, run_id, url, turn | {"since": planned.seen})
        return DayProcess(run_day, arguments, PRELOAD)

    def each_done(planned: PlannedDay, outcome: DayOutcome, answered: bool) -> None:
        if not answered or outcome.outcome == "skipped":
            message = outcome.message or outcome.reason
            runs.end_day_run(flow_runs[planned.day], crashed=not answered, message=message)
        estimate.log(outcome)

    outcomes = run_days(chosen, start_day, config.run, each_done)
    return _result(config, start, end, plan, outcomes, round(time.monotonic() - begun, 3))


def run_day(config: RunConfig, day: date, run_id: UUID, url: str, turn: dict[str, Any], waits: Any) -> dict[str, Any]:
    """Run the nightly flow in the process of one day, as the flow run that was created for it."""
    hide_tracebacks()
    parameters = {"config": config, "as_of": day, "turn": PublishTurn(waits=waits, **turn)}
    summary: dict[str, Any] = runs.run_as(rectify_catalog, run_id, url, parameters)
    return {name: summary[name] for name in ("run_id", "version", "rows", "published")}


def _result(
    config: RunConfig, start: date, end: date, plan: BackfillPlan, outcomes: list[DayOutcome], seconds: float
) -> dict[str, Any]:
    done = {x.day: x for x in outcomes}
    days = [
        {
            "state": x.state,
            **(done[x.day] if x.run else DayOutcome(day=x.day, outcome="skipped", reason=x.reason)).values,
        }
        for x in plan.days
    ]
    runs.show_days(days, f"backfill {start} to {end}")
    return {
        "table": config.publish.uri,
        "start": start.isoformat(),
        "end": end.isoformat(),
        "days": days,
        "counts": dict(Counter(x["outcome"] for x in days)),
        "exit_code": exit_code(x.exit_code for x in outcomes),
        "dropped": [x.isoformat() for x in plan.dropped],
        "latest": latest_day(published_days(config.publish)),
        "seconds": seconds,
    }


def format_failed_days(result: dict[str, Any]) -> str:
    """One line that names the days that failed, and why the first did."""
    bad = [x for x in result["days"] if x["exit_code"]]
    days = ", ".join(x["day"] for x in bad[:10]) + (f" and {len(bad) - 10} more" if len(bad) > 10 else "")
    line = f"{len(bad)} of {len(result['days'])} days failed ({days}), the first: {bad[0]['message']}"
    return f"{line}; run them again alone with --reprocess failed"
