"""A night from the command line. A mistake and a repeat are answered at once; only real work starts Prefect's flow."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

from flows.config.run_config import RunConfig
from flows.refresh import refresh_now
from rectifier_core.base.published_records import TableVersion
from tasks.errors import InputError, RectifierError, StorageError
from tasks.object_store import StorageUnreachableError
from tasks.observe.events import FAILED, emit_night
from tasks.observe.temporary_server import temporary_server_starts
from tasks.observe.watch import watch_run
from tasks.progress import advance
from tasks.run_logger import logged_progress, run_logger
from tasks.runs.day_status import made_from_now
from tasks.runs.folders import runs_of, use_stages
from tasks.runs.identity import identify
from tasks.runs.log import error_text, name_run, use_console
from tasks.source.early_match import refuse_unknown_items
from tasks.source.inspect import inspect_source
from tasks.source.read import find_source, read_source, resolve_day
from tasks.store.store import Ref
from tasks.table.config import RunIdentity
from tasks.table.publish import find_published

# Bytes of input that are read before Prefect starts. That takes about a second.
READ_BYTES = 64 << 20


def rectify_day(
    path: Path, overrides: Iterable[str], as_of: date | None, *, allow_future: bool = False
) -> dict[str, Any]:
    """Publish the day ``as_of``, by default the newest in the data, and return the run's summary.

    A config or a source that cannot be read counts as a failed night. It is logged and an event is sent. The day's entry
    becomes `failed` unless the day is done.
    """
    config = read_nights_config(path, overrides, as_of)
    use_console(config.run.log)
    try:
        day = resolve_day(config.source, as_of, allow_future=allow_future)
    except RectifierError:
        with watch_run(config.watch, as_of):
            raise
    try:
        summary = _published_before(config, day)
    except RectifierError as error:
        with watch_run(config.watch, day):
            _note_failure(config, day, error)
            raise
    if summary is not None:
        return _record_repeat(config, day, summary)
    # Prefect takes some seconds to start.
    advance("start", 0, 1)
    with temporary_server_starts():
        from flows.monitoring import run_keeping_result
        from flows.nightly import rectify_catalog
    result: dict[str, Any] = run_keeping_result(rectify_catalog, config, day)
    return result


def read_nights_config(path: Path, overrides: Iterable[str], as_of: date | None) -> RunConfig:
    """Read the config of a night. A config that cannot be read sends the event of a failed night, with the file as its resource."""
    try:
        return RunConfig.from_toml(path, overrides)
    except InputError as error:
        day = None if as_of is None else as_of.isoformat()
        facts = {"as_of": day, "run_id": None, "stage": None, "exit_code": error.exit_code}
        emit_night(FAILED, f"file://{path.absolute()}", facts | {"message": error_text(error)})
        raise


def _published_before(config: RunConfig, day: date) -> dict[str, Any] | None:
    """The summary of the run that this one would repeat, None if there is work to do.

    Raises InputError for columns that are missing or of an unusable type, times in no clear unit, and ids that are another catalog's. Where
    the inputs are small, also for whatever reading them finds. The night reuses what was read.
    """
    source = find_source(config.source, day, config.run.store)
    if source is not None:
        return published_summary(config, day, source)
    found = inspect_source(config.source, day)
    # What is no mistake of the input, the night meets again, with its retries and its log.
    with suppress(StorageError, StorageUnreachableError), use_stages(config.run):
        if sum(file.size for files in (found.catalog, found.log) for file in files.files) <= READ_BYTES:
            read_source(config.source, day, config.run.store)
        else:
            refuse_unknown_items(found, config.source, day)
    return None


def _note_failure(config: RunConfig, day: date, error: RectifierError) -> None:
    """Write the failure into the day's entry, unless another run holds the day."""
    made_from = made_from_now(config.source, config.shaping, day)
    with (
        suppress(RectifierError),
        config.journal.hold(day) as held,
        held.under_way(made_from=made_from),
    ):
        raise error


def _record_repeat(config: RunConfig, day: date, summary: dict[str, Any]) -> dict[str, Any]:
    """Write that the day is done, and count the run. The seconds of the run that computed the day stay."""
    made_from = made_from_now(config.source, config.shaping, day)
    with (
        watch_run(config.watch, day) as run,
        config.journal.hold(day) as held,
        held.under_way(made_from=made_from),
    ):
        name_run(summary["run_id"])
        run_logger().info("nothing new: version %s has this run already", summary["version"])
        run.summary = held.done(summary)
    # The feature store may lag behind the table.
    if config.feature_store.enabled:
        return summary | {"feature_store": refresh_now(config, None, "skip", logged_progress())}
    return summary


class PublishedRun(NamedTuple):
    """A run that the table shows, by its identity, and its summary."""

    identity: RunIdentity
    version: TableVersion
    summary: dict[str, Any]


def find_published_run(config: RunConfig, as_of: date, source: Ref) -> PublishedRun | None:
    """The published run of that day which this one would repeat, incremental or not; None where there is none."""
    for summary in runs_of(config.run, as_of):
        last = summary.get("base")
        if last is not None and not (config.incremental.enabled and last == last | config.incremental.rows):
            continue
        identity = identify(as_of, source, config.shaping, last)
        if identity.run_id == summary["run_id"]:
            version = find_published(config.publish, identity)
            if version is not None:
                return PublishedRun(identity, version, summary)
    return None


def published_summary(config: RunConfig, as_of: date, source: Ref) -> dict[str, Any] | None:
    """The summary of the run that published the day from the same inputs and config, if the table shows it and it wrote its report."""
    known = find_published_run(config, as_of, source)
    if known is None:
        # Raises where the day could not be published, before anything is computed.
        find_published(config.publish, identify(as_of, source, config.shaping))
        return None
    name_run(known.identity.run_id)
    return known.summary | {"version": known.version.version, "published": False, "table": config.publish.uri}
