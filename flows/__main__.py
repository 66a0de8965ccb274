"""The command line: ``python -m flows …``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from pydantic import ValidationError

from flows.commands.backfill import backfill
from flows.commands.observe import freshness, metrics
from flows.commands.refresh import refresh
from flows.commands.rollback import rollback
from flows.commands.server import server
from flows.commands.shared import (
    AsJson,
    ConfigFile,
    Debug,
    Overrides,
    end_with,
    given_day,
    hide_tracebacks,
    printed_progress,
    read_config_and_day,
    read_run_config,
    run_app,
    run_command,
    set_prefect_defaults,
    told_by,
)
from flows.commands.status import status
from rectifier_core.base.config import explain
from tasks.errors import InputError

Number = TypeVar("Number", int, float)

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Find and mend features that belong to another item.",
)
app.add_typer(server, name="server")


@app.command()
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

    run_command(
        work,
        as_json,
        debug,
        lambda found: (
            f"demo catalog of {found['last_day']} written to {folder}; run it with: python -m flows rectify --config {folder}/run.toml"
        ),
    )


@app.command()
def rectify(
    config: ConfigFile,
    as_of: Annotated[
        str | None, typer.Option("--as-of", help="The day to publish, YYYY-MM-DD; the newest in the data by default.")
    ] = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Publish the rectified features of one day."""

    def work() -> dict[str, Any]:
        set_prefect_defaults()
        from flows.commands.rectify import rectify_day

        if not debug:
            hide_tracebacks()
        return rectify_day(config, overrides or (), as_of)

    run_command(work, as_json, debug, told_by("told_rectify"))


@app.command()
def audit(
    config: ConfigFile,
    as_of: Annotated[
        str | None, typer.Option("--as-of", help="The day to audit, YYYY-MM-DD; the newest in the data by default.")
    ] = None,
    fdr: Annotated[
        float | None, typer.Option("--fdr", help="List suspects while this share of them is innocent; 0.1 by default.")
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
        set_prefect_defaults()
        from tasks.audit.inputs import AuditOptions

        if fdr is not None and top is not None:
            raise InputError("--fdr, --top: give one of the two")
        try:
            options = AuditOptions(fdr=0.1 if fdr is None else fdr, top=top, labels=labels, hand_check=hand_check)
        except ValueError as error:
            raise InputError(str(error)) from error
        settings, day = read_config_and_day(config, overrides, as_of)
        from flows.audit import audit_catalog

        if not debug:
            hide_tracebacks()
        return audit_catalog(settings, day, options, None if out is None else out.absolute())

    def told(found: dict[str, Any]) -> str:
        from tasks.audit.explanations import told_audit

        return told_audit(found)

    run_command(work, as_json, debug, told)


@app.command()
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
    """Hold an incremental night against a cold run of the same day; publish nothing."""

    def work() -> dict[str, Any]:
        set_prefect_defaults()
        settings, day = read_config_and_day(config, overrides, as_of)
        from flows.compare import compare_nights

        if not debug:
            hide_tracebacks()
        return compare_nights(settings, day, None if out is None else out.absolute())

    def told(found: dict[str, Any]) -> str:
        from tasks.compare.compare_runs import comparison_page

        return "\n".join([*comparison_page(found), "", f"written to {found['page']}"])

    run_command(work, as_json, debug, told)


@app.command()
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
    """Train recommenders on raw and on rectified features, and say what rectification is worth to them."""
    options = {"backbones": backbones, "modality": modality, "corruption": corruption, "seeds": seeds, "out": out}
    failed: list[str] = []

    def work() -> dict[str, Any]:
        set_prefect_defaults()
        from flows.commands.evaluate import evaluate_day, failed_told

        if not debug:
            hide_tracebacks()
        found = evaluate_day(config, overrides or (), given_day(as_of), options)
        failed.extend(failed_told(found))
        return found

    run_command(work, as_json, debug, told_by("told_evaluation"))
    if failed:
        end_with(1, failed[0])


@app.command()
def versions(config: ConfigFile, overrides: Overrides = None, as_json: AsJson = False, debug: Debug = False) -> None:
    """List the versions of the published table, newest first."""

    def work() -> dict[str, Any]:
        from tasks.table.history import list_versions

        return {"versions": list_versions(read_run_config(config, overrides).publish)}

    run_command(work, as_json, debug, told_by("told_versions"))


app.command()(rollback)
app.command()(refresh)


@app.command()
def export(
    config: ConfigFile,
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
    overrides: Overrides = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Write published features to a folder for a consumer that reads no Delta tables."""

    def work() -> dict[str, Any]:
        from flows.export import ExportOptions, export_table

        options = ExportOptions(format=format, out=out, version=version, day=given_day(day, "--day"), split=split)
        return export_table(config, overrides or (), options, printed_progress())

    run_command(work, as_json, debug, told_by("told_export"))


@app.command()
def score(
    config: ConfigFile,
    truth: Annotated[Path, typer.Option("--truth", help="The demo's truth folder.")],
    overrides: Overrides = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Hold the published trust against what the demo planted."""

    def work() -> dict[str, Any]:
        from tasks.demo.score import score_ranking
        from tasks.table.files import storage_options

        return score_ranking(read_run_config(config, overrides).publish.uri, truth, storage_options=storage_options())

    def told(found: dict[str, Any]) -> str:
        from tasks.demo.score import describe_score

        return describe_score(found)

    run_command(work, as_json, debug, told)


app.command()(freshness)
app.command()(metrics)
app.command()(status)
app.command()(backfill)


def _of_modality(option: str, text: str, number: type[Number], wanted: str) -> tuple[str, Number]:
    name, _, value = text.partition("=")
    try:
        return name.strip(), number(value)
    except ValueError:
        raise InputError(f"{option} {text}: wanted a modality and {wanted}") from None


if __name__ == "__main__":
    run_app(app)
