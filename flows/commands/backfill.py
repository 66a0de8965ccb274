"""``python -m flows backfill``: what it would do, or doing it."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from flows.commands.shared import (
    AsJson,
    ConfigFile,
    Debug,
    Overrides,
    end_with,
    given_day,
    read_run_config,
    run_command,
)
from tasks.errors import InputError, InterruptedBackfillError


def backfill(
    config: ConfigFile,
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
            help="Which days to run: missing, failed, stale, all; several by commas. missing,failed by default.",
        ),
    ] = None,
    newest_first: Annotated[bool, typer.Option("--newest-first", help="Begin with the newest day.")] = False,
    parallel: Annotated[
        int, typer.Option("--parallel", help="Compute so many days side by side; memory is divided among them.")
    ] = 1,
    patience: Annotated[
        float, typer.Option("--patience", help="Seconds to wait while another run holds the table.")
    ] = 3600.0,
    overrides: Overrides = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Run the days of a range that are missing or failed; a repeat goes on where it was stopped."""
    failed: list[tuple[int, str]] = []

    def work() -> dict[str, Any]:
        from flows.backfill import BackfillOptions, backfill_catalog, format_failed_days, plan_backfill
        from tasks.backfill.plan import parse_reprocess

        settings = read_run_config(config, overrides)
        first, last = given_day(start, "--start"), given_day(end, "--end")
        assert first is not None
        assert last is not None
        try:
            states = parse_reprocess(reprocess, force=force)
            options = BackfillOptions(states=states, newest_first=newest_first, parallel=parallel, patience=patience)
        except ValueError as error:
            raise InputError(str(error)) from error
        if dry_run:
            return {"dry_run": True, **plan_backfill(settings, first, last, options).values(options)}
        try:
            result = backfill_catalog(settings, first, last, options)
        except KeyboardInterrupt:
            raise InterruptedBackfillError(
                "stopped; days that were done stay done, the same command goes on with the rest"
            ) from None
        if result["exit_code"]:
            failed.append((result["exit_code"], format_failed_days(result)))
        return dict(result)

    def format_backfill(result: dict[str, Any]) -> str:
        from tasks.runs.day_text import backfill_text, plan_text

        return plan_text(result) if dry_run else backfill_text(result)

    run_command(work, as_json, debug, format_backfill, prefect=True)
    for code, line in failed:
        end_with(code, line)
