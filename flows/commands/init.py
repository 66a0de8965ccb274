"""``init``: the first run config of a catalog."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from flows.commands import messages
from flows.commands.shared import command


@command(messages.format_init)
def init(
    folder: Annotated[Path, typer.Argument(help="Where run.toml goes; the files are looked for there too.")] = Path(),
    catalog: Annotated[str | None, typer.Option("--catalog", help="The catalog: Parquet, local or s3://.")] = None,
    interactions: Annotated[
        str | None, typer.Option("--interactions", help="The log: Parquet, local or s3://.")
    ] = None,
) -> dict[str, Any]:
    """Write a commented run.toml with the columns that the files have."""
    from tasks.first_config.write import write_first_config

    return write_first_config(folder, catalog, interactions)
