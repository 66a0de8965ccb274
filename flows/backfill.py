"""The backfill flow: run the days of a range that need a run, and publish them one after the other."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import date
from typing import Any
from uuid import UUID

from prefect import flow

from flows.backfill_plan import BackfillOptions, backfill_result, plan_backfill
from flows.config.prefect_settings import hide_tracebacks
from flows.config.run_config import RunConfig
from flows.nightly import PublishTurn, rectify_catalog
from tasks.backfill import flow_runs as runs
from tasks.backfill.day_process import DayProcess
from tasks.backfill.execute import DayOutcome, ProgressEstimate, divided, run_days
from tasks.backfill.plan import PlannedDay, windows
from tasks.progress import advance
from tasks.run_logger import run_logger
from tasks.runs.day_text import dropped_lines

PRELOAD = ("flows.backfill", "tasks.report.figures")


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
    advance("days", 0, total)
    for line in dropped_lines(plan.values(options)):
        run_logger().info("%s", line)
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
    result = backfill_result(config, start, end, plan, outcomes, round(time.monotonic() - begun, 3))
    runs.show_days(result["days"], f"backfill {start} to {end}")
    return result


def run_day(config: RunConfig, day: date, run_id: UUID, url: str, turn: dict[str, Any], waits: Any) -> dict[str, Any]:
    """Run the nightly flow in the process of one day, as the flow run that was created for it."""
    hide_tracebacks()
    parameters = {"config": config, "as_of": day, "turn": PublishTurn(waits=waits, **turn)}
    summary: dict[str, Any] = runs.run_as(rectify_catalog, run_id, url, parameters)
    return {name: summary[name] for name in ("run_id", "version", "rows", "published")}
