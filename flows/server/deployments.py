"""The flows that the deployments run. Their parameters are plain values from a schedule, an event or a form.

Prefect accepts a parameter like `2026-02-30` as a day, so each flow checks its parameters itself. A user's mistake, a refused gate and a
held table each end the run in a state of its own name. Its message is the line that the command line would print.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.flows import Flow
from prefect.runtime import flow_run
from prefect.states import Failed
from pydantic import ConfigDict, Field, ValidationError, create_model

from flows.audit import audit_catalog
from flows.backfill import backfill_catalog
from flows.backfill_plan import BackfillOptions, format_failed_days
from flows.config.options import with_evaluation_options
from flows.config.run_config import RunConfig
from flows.evaluate import evaluate_catalog, format_failed_cells
from flows.freshness import check_freshness
from flows.nightly import PublishTurn, rectify_catalog
from flows.rectify_day import read_nights_config
from flows.steps.feature_store import refresh_feature_store
from rectifier_core.base.config import explain
from tasks.audit.inputs import AuditOptions
from tasks.backfill.plan import parse_reprocess
from tasks.errors import InputError, RectifierError
from tasks.feature_store.config import Older
from tasks.runs.day_journal import entry_version
from tasks.source.read import resolve_day

ENDINGS = {2: "BadInput", 3: "Refused", 4: "Held"}
PATIENCE = 6 * 3600.0
"""Seconds that a run waits for a table which a run without a slot, one from a command line, holds."""

ConfigFile = Annotated[str, Field(description="The run config, a TOML file as the worker sees it.", min_length=1)]
Day = Annotated[date | None, Field(description="The day, YYYY-MM-DD; the newest in the data by default.")]
Overrides = Annotated[list[str], Field(description="Keys of the config to override, each as a.b=value.")]


def deployed(name: str, run_name: str | Callable[[], str]) -> Callable[[Callable[..., Any]], Flow[..., Any]]:
    """Make a function of checked parameters a flow; its failures for a user become states, named by ``ENDINGS``."""

    def decorate(work: Callable[..., Any]) -> Flow[..., Any]:
        @functools.wraps(work)
        def body(*args: Any, **given: Any) -> Any:
            try:
                return work(**_checked(work, inspect.signature(work).bind_partial(*args, **given).arguments))
            except RectifierError as error:
                return Failed(name=ENDINGS.get(error.exit_code, "Failed"), message=" ".join(str(error).split()))

        # Prefect's form takes what it says of a parameter from here alone.
        described = "\n".join(f"    {x.name}: {x.annotation.__metadata__[0].description}" for x in _parameters(work))
        body.__doc__ = f"{work.__doc__}\n\nArgs:\n{described}"
        return flow(name=name, flow_run_name=run_name, validate_parameters=False, persist_result=False)(body)

    return decorate


def _checked(work: Callable[..., Any], given: dict[str, Any]) -> dict[str, Any]:
    """``given`` as the types that ``work`` declares. Raises InputError naming the parameter."""
    takes = {x.name: (x.annotation, ... if x.default is x.empty else x.default) for x in _parameters(work)}
    model = create_model(work.__name__, __config__=ConfigDict(extra="forbid", allow_inf_nan=False), **takes)  # type: ignore[call-overload]
    try:
        checked = model.model_validate(given)
    except ValidationError as error:
        raise InputError(f"{work.__name__}: {explain(error, model)}") from error
    return {x: getattr(checked, x) for x in takes}


def _parameters(work: Callable[..., Any]) -> list[inspect.Parameter]:
    return list(inspect.signature(work, eval_str=True).parameters.values())


def _of_day(word: str) -> Callable[[], str]:
    return lambda: f"{word} {flow_run.parameters.get('as_of') or 'the newest day'}"


def _night_name() -> str:
    return (
        f"nightly {flow_run.parameters.get('as_of') or _yesterday(flow_run.parameters.get('timezone', 'UTC')) or '?'}"
    )


def _refresh_name() -> str:
    version = flow_run.parameters.get("version")
    return "refresh the newest version" if version is None else f"refresh version {version}"


def _yesterday(timezone: str) -> date | None:
    """The day before the one that this run was scheduled for, however late it starts; None in a time zone that is none."""
    try:
        zone = ZoneInfo(timezone)
    except (ZoneInfoNotFoundError, ValueError, TypeError):
        return None
    scheduled: datetime = flow_run.scheduled_start_time
    return scheduled.astimezone(zone).date() - timedelta(days=1)


@deployed("rectify", _night_name)
def nightly(
    config: ConfigFile,
    as_of: Annotated[
        date | None, Field(description="The day to publish, YYYY-MM-DD; the day before the scheduled one by default.")
    ] = None,
    timezone: Annotated[str, Field(description="Where a day ends, for the default day: an IANA time zone.")] = "UTC",
    overrides: Overrides = [],  # noqa: B006
) -> dict[str, Any]:
    """Publish the rectified features of a day; a repeat publishes nothing."""
    day = as_of or _yesterday(timezone)
    if day is None:
        raise InputError(f"nightly: timezone: {timezone!r} is no IANA time zone such as Europe/Berlin")
    settings = read_nights_config(Path(config), overrides, day)
    day = resolve_day(settings.source, day)
    seen = entry_version(settings.journal.read(day))
    turn = PublishTurn(since=seen, prepares=False, patience=PATIENCE, waits=lambda: None, slot=True)
    result: dict[str, Any] = rectify_catalog.fn(settings, day, turn)
    return result


@deployed("backfill", "backfill {start} to {end}")
def backfill(
    config: ConfigFile,
    start: Annotated[date, Field(description="The first day, YYYY-MM-DD.")],
    end: Annotated[date, Field(description="The last day, YYYY-MM-DD.")],
    reprocess: Annotated[
        str, Field(description="Which days to run: missing, failed, stale, rolled-back, all; several by commas.")
    ] = "missing,failed",
    newest_first: Annotated[bool, Field(description="Begin with the newest day.")] = False,
    parallel: Annotated[
        int, Field(description="Compute so many days side by side; memory is divided among them.", ge=1)
    ] = 1,
    overrides: Overrides = [],  # noqa: B006
) -> dict[str, Any]:
    """Run the days of a range that want a run, one at a time with the night; a repeat goes on where it was stopped."""
    settings = RunConfig.from_toml(Path(config), overrides)
    states = parse_reprocess(reprocess, force=False)
    options = BackfillOptions(states=states, newest_first=newest_first, parallel=parallel, patience=PATIENCE, slot=True)
    result: dict[str, Any] = backfill_catalog.fn(settings, start, end, options)
    if result["exit_code"]:
        error = RectifierError(format_failed_days(result))
        error.exit_code = result["exit_code"]
        raise error
    return result


@deployed("refresh", _refresh_name)
def refresh(
    config: ConfigFile,
    version: Annotated[int | None, Field(description="The version to serve; the newest by default.", ge=0)] = None,
    older: Annotated[
        Older,
        Field(
            description="With a version older than what is served: refuse it, serve it, or skip it as one that was overtaken."
        ),
    ] = "refuse",
    overrides: Overrides = [],  # noqa: B006
) -> dict[str, Any]:
    """Let readers of the feature store have another version of the table; one that is served already writes nothing."""
    result: dict[str, Any] = refresh_feature_store.fn(RunConfig.from_toml(Path(config), overrides), version, older)
    return result


@deployed("freshness", "freshness")
def freshness(
    config: ConfigFile,
    within: Annotated[
        float | None, Field(description="Hours after a day's end by which it should be published.", gt=0)
    ] = None,
    overrides: Overrides = [],  # noqa: B006
) -> dict[str, Any] | State[Any]:
    """Say whether the newest published day is late. Send an event if it is."""
    result = check_freshness(RunConfig.from_toml(Path(config), overrides), within)
    return Failed(name="Overdue", message=result["message"]) if result["late"] else result


@deployed("audit", _of_day("audit"))
def audit(
    config: ConfigFile,
    as_of: Day = None,
    fdr: Annotated[
        float | None,
        Field(
            description="List suspects while at most this share of them is expected to be false alarms; 0.1 by default."
        ),
    ] = None,
    conservative: Annotated[
        bool, Field(description="End the list where the upper bound of that share reaches fdr.")
    ] = False,
    top: Annotated[int | None, Field(description="List so many, the least trusted, instead.")] = None,
    hand_check: Annotated[int, Field(description="Draw so many judged items a modality to look at.")] = 0,
    out: Annotated[str | None, Field(description="Where the findings go; beside the day's report by default.")] = None,
    overrides: Overrides = [],  # noqa: B006
) -> dict[str, Any]:
    """Name the items whose features look like another's, and whose; publish nothing."""
    options = AuditOptions(fdr=fdr, top=top, conservative=conservative, hand_check=hand_check)
    settings = RunConfig.from_toml(Path(config), overrides)
    day = resolve_day(settings.source, as_of)
    result: dict[str, Any] = audit_catalog.fn(settings, day, options, None if out is None else Path(out).absolute())
    return result


@deployed("evaluate", _of_day("evaluate"))
def evaluate(
    config: ConfigFile,
    as_of: Day = None,
    backbones: Annotated[
        str | None, Field(description="Recommenders to train: vbpr,freedom. All six by default.")
    ] = None,
    modality: Annotated[
        str | None, Field(description="What to damage: all, or one modality; several by commas.")
    ] = None,
    corruption: Annotated[str | None, Field(description="Shares of features to damage: 0,0.2,0.4.")] = None,
    seeds: Annotated[int | None, Field(description="How many seeds; 5 by default.", ge=1)] = None,
    out: Annotated[str | None, Field(description="Where results and report go; beside the runs by default.")] = None,
    overrides: Overrides = [],  # noqa: B006
) -> dict[str, Any]:
    """Train recommenders on raw and on rectified features, and say what rectification is worth to them."""
    settings = with_evaluation_options(
        RunConfig.from_toml(Path(config), overrides),
        backbones=backbones,
        modality=modality,
        corruption=corruption,
        seeds=seeds,
        out=None if out is None else Path(out),
    )
    result = evaluate_catalog(settings, resolve_day(settings.source, as_of))
    if result["failed"]:
        raise RectifierError(format_failed_cells(result))
    return result
