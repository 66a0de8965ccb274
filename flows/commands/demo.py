"""``demo`` and ``score``: a catalog with planted errors, and how well a run found them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from pydantic import ValidationError

from flows.commands import messages
from flows.commands.shared import GivenConfig, command
from rectifier_core.base.config import explain
from tasks.errors import InputError
from tasks.progress import advance

if TYPE_CHECKING:
    from tasks.demo.config import DemoConfig

Number = TypeVar("Number", int, float)


@command(messages.format_demo)
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
) -> dict[str, Any]:
    """Write a catalog with planted mismatches, and what was planted."""
    from tasks.demo.catalog import add_day, write_demo

    if next_day:
        return add_day(folder, changed, advance) | {"folder": str(folder)}
    size = {"items": items, "users": users, "interactions": interactions, "seed": seed, "sequences": sequences}
    return write_demo(folder, _demo_config(size, mismatch or [], width or []), advance) | {"folder": str(folder)}


@command(messages.format_score)
def score(
    config: GivenConfig, truth: Annotated[Path, typer.Option("--truth", help="The demo's truth folder.")]
) -> dict[str, Any]:
    """Compare the published trust with the mismatches that the demo planted."""
    from tasks.demo.score import score_ranking
    from tasks.object_store import storage_options

    return score_ranking(config.read().publish.uri, truth, storage_options=storage_options())


def _demo_config(size: dict[str, Any], mismatch: list[str], width: list[str]) -> DemoConfig:
    from tasks.demo.config import DEFAULT_MISMATCH, DEFAULT_WIDTHS, DemoConfig

    rates = dict(_of_modality("--mismatch", x, float, "a share: image=0.2") for x in mismatch)
    widths = dict(_of_modality("--width", x, int, "a length: image=1280") for x in width)
    try:
        return DemoConfig(mismatch={**DEFAULT_MISMATCH, **rates}, widths={**DEFAULT_WIDTHS, **widths}, **size)
    except ValidationError as error:
        raise InputError(f"demo: {explain(error, DemoConfig)}") from error


def _of_modality(option: str, text: str, number: type[Number], wanted: str) -> tuple[str, Number]:
    name, _, value = text.partition("=")
    try:
        return name.strip(), number(value)
    except ValueError:
        raise InputError(f"{option} {text}: wanted a modality and {wanted}") from None
