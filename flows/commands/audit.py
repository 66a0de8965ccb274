"""``python -m flows audit`` and ``compare``: look at a day without publishing anything."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from flows.commands.shared import AsJson, ConfigFile, Debug, Overrides, read_config_and_day, run_command
from tasks.errors import InputError


def audit(
    config: ConfigFile,
    as_of: Annotated[
        str | None, typer.Option("--as-of", help="The day to audit, YYYY-MM-DD; the newest in the data by default.")
    ] = None,
    fdr: Annotated[
        float | None,
        typer.Option("--fdr", help="List suspects while at most this share of them are false alarms; 0.1 by default."),
    ] = None,
    top: Annotated[int | None, typer.Option("--top", help="List so many, the least trusted, instead.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Where the findings go; beside the day's report by default.")
    ] = None,
    labels: Annotated[
        Path | None, typer.Option("--labels", help="A hand check: CSV or Parquet of item_id, modality, is_mismatch.")
    ] = None,
    hand_check: Annotated[
        int, typer.Option("--hand-check", help="Draw so many judged items a modality to look at.")
    ] = 0,
    overrides: Overrides = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Name the items whose features look like another's, and whose; publish nothing."""

    def work() -> dict[str, Any]:
        from tasks.audit.inputs import AuditOptions

        if fdr is not None and top is not None:
            raise InputError("--fdr, --top: give one of the two")
        try:
            options = AuditOptions(fdr=0.1 if fdr is None else fdr, top=top, labels=labels, hand_check=hand_check)
        except ValueError as error:
            raise InputError(str(error)) from error
        settings, day = read_config_and_day(config, overrides, as_of)
        from flows.audit import audit_catalog

        return audit_catalog(settings, day, options, None if out is None else out.absolute())

    def format_audit(result: dict[str, Any]) -> str:
        from tasks.audit.explanations import describe_audit

        return describe_audit(result)

    run_command(work, as_json, debug, format_audit, prefect=True)


def compare(
    config: ConfigFile,
    as_of: Annotated[
        str | None, typer.Option("--as-of", help="The day to compare, YYYY-MM-DD; the newest in the data by default.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Where the comparison goes; beside the day's report by default.")
    ] = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Compare an incremental night with a cold run of the same day; publish nothing."""

    def work() -> dict[str, Any]:
        settings, day = read_config_and_day(config, overrides, as_of)
        from flows.compare import compare_nights

        return compare_nights(settings, day, None if out is None else out.absolute())

    def format_comparison(result: dict[str, Any]) -> str:
        from tasks.compare.compare_runs import comparison_page

        return "\n".join([*comparison_page(result), "", f"written to {result['page']}"])

    run_command(work, as_json, debug, format_comparison, prefect=True)
