"""``python -m flows evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from flows.commands import messages
from flows.commands.shared import AsJson, ConfigFile, Debug, Overrides, end_with, given_day, run_command


def evaluate(
    config: ConfigFile,
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
    as_of: Annotated[
        str | None, typer.Option("--as-of", help="The day to evaluate, YYYY-MM-DD; the newest by default.")
    ] = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Train recommenders on raw and on rectified features, and compare their rankings."""
    options = {"backbones": backbones, "modality": modality, "corruption": corruption, "seeds": seeds, "out": out}
    failed: list[str] = []

    def work() -> dict[str, Any]:
        from flows.evaluate import evaluate_day, format_failed_cells

        result = evaluate_day(config, overrides or (), given_day(as_of), options)
        failed.extend(format_failed_cells(result))
        return result

    run_command(work, as_json, debug, messages.format_evaluation, prefect=True)
    if failed:
        end_with(1, failed[0])
