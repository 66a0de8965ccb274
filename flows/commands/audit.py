"""``audit`` and ``compare``: look at a day without publishing anything."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from flows.commands import messages
from flows.commands.shared import AsOf, GivenConfig, command


@command(messages.format_audit, prefect=True)
def audit(
    config: GivenConfig,
    as_of: AsOf = None,
    fdr: Annotated[
        float | None,
        typer.Option(
            "--fdr",
            help="List suspects while at most this share of them is expected to be false alarms; 0.1 by default.",
        ),
    ] = None,
    conservative: Annotated[
        bool, typer.Option("--conservative", help="End the list where the upper bound of that share reaches --fdr.")
    ] = False,
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
) -> dict[str, Any]:
    """Name the items whose features look like another's, and whose; publish nothing."""
    from tasks.audit.inputs import AuditOptions

    options = AuditOptions(fdr=fdr, top=top, conservative=conservative, labels=labels, hand_check=hand_check)
    settings, day = config.read_with_day(as_of)
    from tasks.observe.temporary_server import temporary_server_starts

    with temporary_server_starts():
        from flows.audit import audit_catalog
    return audit_catalog(settings, day, options, None if out is None else out.absolute())


@command(messages.format_comparison, prefect=True)
def compare(
    config: GivenConfig,
    as_of: AsOf = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Where the comparison goes; beside the day's report by default.")
    ] = None,
) -> dict[str, Any]:
    """Compare an incremental night with a cold run of the same day; publish nothing."""
    settings, day = config.read_with_day(as_of)
    from tasks.observe.temporary_server import temporary_server_starts

    with temporary_server_starts():
        from flows.compare import compare_nights
    return compare_nights(settings, day, None if out is None else out.absolute())
