"""What a backfill will do and did. Nothing of Prefect is imported, so a plan takes a second."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import date
from typing import Any

from flows.config.run_config import RunConfig
from tasks.backfill.execute import DayOutcome, divided
from tasks.backfill.plan import PlannedDay, dropped_days, exit_code, expected_seconds, plan_days
from tasks.errors import InputError
from tasks.runs.day_status import read_status
from tasks.runs.table_days import read_table_days
from tasks.source.read import today_in


@dataclass(frozen=True, slots=True, kw_only=True)
class BackfillOptions:
    """How to run the days.

    - ``states``: the states of the days that are run.
    - ``parallel``: how many days are computed at the same time.
    - ``patience``: seconds that a day waits for a table which another run holds.
    - ``slot``: wait for the slot that the server's runs on one table share.

    Raises InputError naming the option.
    """

    states: frozenset[str]
    newest_first: bool = False
    parallel: int = 1
    patience: float = 3600.0
    slot: bool = False

    def __post_init__(self) -> None:
        if self.parallel < 1:
            raise InputError(f"--parallel {self.parallel}: wanted at least 1")
        if not self.patience >= 0:
            raise InputError(f"--patience {self.patience}: wanted seconds of at least 0")


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
    table = read_table_days(config.publish)
    days = read_status(config.source, config.publish, config.run, config.shaping, table, start, end)
    plan = plan_days(days, options.states, today_in(config.source), newest_first=options.newest_first)
    dropped = dropped_days(plan, table.published, config.publish.keep_snapshots)
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


def backfill_result(
    config: RunConfig, start: date, end: date, plan: BackfillPlan, outcomes: list[DayOutcome], seconds: float
) -> dict[str, Any]:
    """What became of each day of the plan, as JSON values."""
    done = {x.day: x for x in outcomes}
    days = [
        {
            "state": x.state,
            **(done[x.day] if x.run else DayOutcome(day=x.day, outcome="skipped", reason=x.reason)).values,
        }
        for x in plan.days
    ]
    return {
        "table": config.publish.uri,
        "start": start.isoformat(),
        "end": end.isoformat(),
        "days": days,
        "counts": dict(Counter(x["outcome"] for x in days)),
        "exit_code": exit_code(x.exit_code for x in outcomes),
        "dropped": [x.isoformat() for x in plan.dropped],
        "latest": read_table_days(config.publish).latest,
        "seconds": seconds,
    }


def format_failed_days(result: dict[str, Any]) -> str:
    """One line that names the days that failed, and why the first did."""
    bad = [x for x in result["days"] if x["exit_code"]]
    days = ", ".join(x["day"] for x in bad[:10]) + (f" and {len(bad) - 10} more" if len(bad) > 10 else "")
    line = f"{len(bad)} of {len(result['days'])} days failed ({days}), the first: {bad[0]['message']}"
    return f"{line}; run them again alone with --reprocess failed"
