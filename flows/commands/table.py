"""Commands on the published table: ``versions``, ``rollback``, ``refresh`` and ``export``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from flows.commands import messages
from flows.commands.shared import GivenConfig, command, given_day
from tasks.progress import advance


@command(messages.format_versions)
def versions(config: GivenConfig) -> dict[str, Any]:
    """List the versions of the published table, newest first."""
    from tasks.table.history import list_versions

    return {"versions": list_versions(config.read().publish)}


@command(messages.format_rollback, prefect=True)
def rollback(
    config: GivenConfig,
    to: Annotated[int, typer.Option("--to", help="The version whose contents the table shall show again.")],
) -> dict[str, Any]:
    """Make the table show an earlier version again, as a new commit; and the feature store, where it is enabled."""
    from tasks.table.history import roll_back
    from tasks.table.lock import table_lock

    settings = config.read()
    with table_lock(settings.publish, Path(settings.run.folder), run=f"rollback to {to}"):
        result = roll_back(settings.publish, to)
    if result.published:
        from tasks.observe.events import emit_published

        emit_published(settings.publish, result)
    if not settings.feature_store.enabled:
        return asdict(result) | {"to": to}
    from flows.refresh import refresh_now

    return asdict(result) | {"to": to, "feature_store": refresh_now(settings, None, "refuse", advance)}


@command(messages.format_refresh, prefect=True)
def refresh(
    config: GivenConfig,
    version: Annotated[
        int | None, typer.Option("--version", help="The version to serve; the newest by default.")
    ] = None,
    allow_older: Annotated[
        bool,
        typer.Option("--allow-older", help="Serve it though a newer version, a later day or another table is served."),
    ] = False,
) -> dict[str, Any]:
    """Let readers of the feature store have another version of the table."""
    settings = config.read()
    from flows.refresh import refresh_now

    return refresh_now(settings, version, "serve" if allow_older else "refuse", advance)


@command(messages.format_export)
def export(
    config: GivenConfig,
    format: Annotated[str, typer.Option("--format", help="mmrec, npy or parquet.")],
    out: Annotated[
        Path, typer.Option("--out", help="The folder to write; an earlier export in it is replaced in one step.")
    ],
    version: Annotated[
        int | None, typer.Option("--version", help="The version to export; the newest by default.")
    ] = None,
    day: Annotated[
        str | None, typer.Option("--day", help="The day to export, YYYY-MM-DD; the version's newest by default.")
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            "--split",
            help="How mmrec divides the log: column, random or time. By evaluation.split_column, else random.",
        ),
    ] = None,
    append_behaviour: Annotated[
        bool,
        typer.Option(
            "--append-behaviour",
            help="mmrec: put each item's anchor behind its features. The table needs [publish] behaviour = true.",
        ),
    ] = False,
) -> dict[str, Any]:
    """Write published features to a folder for a consumer that reads no Delta tables."""
    from flows.export import ExportOptions, export_table

    options = ExportOptions(
        format=format,
        out=out,
        version=version,
        day=given_day(day, "--day"),
        split=split,
        append_behaviour=append_behaviour,
    )
    return export_table(config.read(), options, advance)
