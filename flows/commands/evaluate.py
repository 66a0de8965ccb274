"""``evaluate``: what recommenders gain."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from flows.commands import messages
from flows.commands.shared import AsOf, FailedInPart, GivenConfig, command


@command(messages.format_evaluation, prefect=True)
def evaluate(
    config: GivenConfig,
    backbones: Annotated[
        str | None, typer.Option("--backbones", help="Recommenders to train: vbpr,freedom. All six by default.")
    ] = None,
    modality: Annotated[
        str | None, typer.Option("--modality", help="What to damage: all, or one modality; several by commas.")
    ] = None,
    corruption: Annotated[
        str | None, typer.Option("--corruption", help="Shares of features to damage: 0,0.2,0.4.")
    ] = None,
    seeds: Annotated[int | None, typer.Option("--seeds", help="How many seeds; 5 by default.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Where results and report go; beside the runs by default.")
    ] = None,
    as_of: AsOf = None,
) -> dict[str, Any] | FailedInPart:
    """Train recommenders on raw and on rectified features, and compare their rankings."""
    settings, day = config.read_with_day(as_of)
    from flows.config.options import with_evaluation_options
    from tasks.observe.temporary_server import temporary_server_starts

    settings = with_evaluation_options(
        settings, backbones=backbones, modality=modality, corruption=corruption, seeds=seeds, out=out
    )
    with temporary_server_starts():
        from flows.evaluate import evaluate_catalog, format_failed_cells
    result = evaluate_catalog(settings, day)
    return FailedInPart(result, 1, format_failed_cells(result)) if result["failed"] else result
