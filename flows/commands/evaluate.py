"""``evaluate``: what recommenders gain."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from flows.commands import messages
from flows.commands.shared import AsOf, FailedInPart, GivenConfig, command, given_day


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
    config.read()
    from flows.evaluate import evaluate_day, format_failed_cells

    options = {"backbones": backbones, "modality": modality, "corruption": corruption, "seeds": seeds, "out": out}
    result = evaluate_day(config.path, config.overrides, given_day(as_of), options)
    failed = format_failed_cells(result)
    return FailedInPart(result, 1, failed[0]) if failed else result
