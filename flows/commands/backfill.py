"""``backfill``: what it would do, or doing it."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.commands.shared import FailedInPart, GivenConfig, command, required_day
from tasks.errors import InterruptedBackfillError
from tasks.runs.day_text import backfill_text

if TYPE_CHECKING:
    from flows.backfill_plan import BackfillOptions
    from flows.config.run_config import RunConfig


@command(backfill_text, prefect=True)
def backfill(
    config: GivenConfig,
    start: Annotated[str, typer.Option("--start", help="The first day, YYYY-MM-DD.")],
    end: Annotated[str, typer.Option("--end", help="The last day, YYYY-MM-DD.")],
    force: Annotated[bool, typer.Option("--force", help="Run every day again: --reprocess all.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would happen to each day, and why.")
    ] = False,
    reprocess: Annotated[
        str | None,
        typer.Option(
            "--reprocess",
            help="Which days to run: missing, failed, stale, rolled-back, all; several by commas. missing,failed by default.",
        ),
    ] = None,
    newest_first: Annotated[bool, typer.Option("--newest-first", help="Begin with the newest day.")] = False,
    parallel: Annotated[
        int, typer.Option("--parallel", help="Compute so many days side by side; memory is divided among them.")
    ] = 1,
    patience: Annotated[
        float, typer.Option("--patience", help="Seconds to wait while another run holds the table.")
    ] = 3600.0,
) -> dict[str, Any] | FailedInPart:
    """Run the days of a range that are missing or failed; a repeat goes on where it was stopped."""
    from flows.backfill_plan import BackfillOptions
    from tasks.backfill.plan import parse_reprocess

    settings, first, last = config.read(), required_day(start, "--start"), required_day(end, "--end")
    states = parse_reprocess(reprocess, force=force)
    options = BackfillOptions(states=states, newest_first=newest_first, parallel=parallel, patience=patience)
    return _run(settings, first, last, options, dry_run=dry_run)


def _run(
    settings: RunConfig, first: date, last: date, options: BackfillOptions, *, dry_run: bool
) -> dict[str, Any] | FailedInPart:
    """Plan the days, and run them if any has to be."""
    from flows.backfill_plan import backfill_result, format_failed_days, plan_backfill

    plan = plan_backfill(settings, first, last, options)
    if dry_run:
        return {"dry_run": True, **plan.values(options)}
    if not any(x.run for x in plan.days):
        return backfill_result(settings, first, last, plan, [], 0.0)
    from tasks.observe.temporary_server import temporary_server_starts

    with temporary_server_starts():
        from flows.backfill import backfill_catalog
    try:
        result: dict[str, Any] = backfill_catalog(settings, first, last, options)
    except KeyboardInterrupt:
        raise InterruptedBackfillError(
            "stopped; days that were done stay done, the same command goes on with the rest"
        ) from None
    if result["exit_code"]:
        return FailedInPart(result, result["exit_code"], format_failed_days(result))
    return result
