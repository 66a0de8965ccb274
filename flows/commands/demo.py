"""``python -m flows demo`` and ``score``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from pydantic import ValidationError

from flows.commands.shared import AsJson, ConfigFile, Debug, Overrides, printed_progress, read_run_config, run_command
from rectifier_core.base.config import explain
from tasks.errors import InputError

Number = TypeVar("Number", int, float)


def demo(
    folder: Annotated[Path, typer.Argument(help="Where the demo catalog goes.")],
    items: Annotated[int, typer.Option(help="How many items.")] = 5000,
    users: Annotated[int | None, typer.Option(help="How many users; 1.6 an item by default.")] = None,
    interactions: Annotated[int | None, typer.Option(help="How many rows the log gets; 25 a user by default.")] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same bytes.")] = 7,
    mismatch: Annotated[
        list[str] | None, typer.Option(help="Share of a modality to swap among items: image=0.2. May be repeated.")
    ] = None,
    width: Annotated[
        list[str] | None, typer.Option(help="Length of a modality's vectors: image=1280. May be repeated.")
    ] = None,
    sequences: Annotated[
        bool,
        typer.Option("--sequences", help="Add a video and an audio modality: sequences with planted wrong segments."),
    ] = False,
    next_day: Annotated[
        bool,
        typer.Option(
            "--next-day", help="Add a day to the demo that is there: a new snapshot, and one more day of the log."
        ),
    ] = False,
    changed: Annotated[
        float, typer.Option("--changed", help="With --next-day: the share of features that change.")
    ] = 0.01,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Write a catalog with planted mismatches, and what was planted."""

    def work() -> dict[str, Any]:
        if next_day:
            from tasks.demo.catalog import add_day

            return add_day(folder, changed, printed_progress())
        from tasks.demo.catalog import write_demo
        from tasks.demo.config import DEFAULT_MISMATCH, DEFAULT_WIDTHS, DemoConfig

        try:
            rates = dict(DEFAULT_MISMATCH) | dict(
                _of_modality("--mismatch", x, float, "a share: image=0.2") for x in mismatch or ()
            )
            widths = dict(DEFAULT_WIDTHS) | dict(
                _of_modality("--width", x, int, "a length: image=1280") for x in width or ()
            )
            config = DemoConfig(
                items=items,
                users=users,
                interactions=interactions,
                seed=seed,
                mismatch=rates,
                widths=widths,
                sequences=sequences,
            )
        except ValidationError as error:
            raise InputError(f"demo: {explain(error, DemoConfig)}") from error
        return write_demo(folder, config, printed_progress())

    def format_demo(result: dict[str, Any]) -> str:
        run = f"python -m flows rectify --config {folder}/run.toml"
        return f"demo catalog of {result['last_day']} written to {folder}; run it with: {run}"

    run_command(work, as_json, debug, format_demo)


def score(
    config: ConfigFile,
    truth: Annotated[Path, typer.Option("--truth", help="The demo's truth folder.")],
    overrides: Overrides = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Compare the published trust with the mismatches that the demo planted."""

    def work() -> dict[str, Any]:
        from tasks.demo.score import score_ranking
        from tasks.table.files import storage_options

        return score_ranking(read_run_config(config, overrides).publish.uri, truth, storage_options=storage_options())

    def format_score(result: dict[str, Any]) -> str:
        from tasks.demo.score import describe_score

        return describe_score(result)

    run_command(work, as_json, debug, format_score)


def _of_modality(option: str, text: str, number: type[Number], wanted: str) -> tuple[str, Number]:
    name, _, value = text.partition("=")
    try:
        return name.strip(), number(value)
    except ValueError:
        raise InputError(f"{option} {text}: wanted a modality and {wanted}") from None
