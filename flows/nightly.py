"""The nightly flow: read, train anchors, match, rectify, check the quality, publish, report."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import date
from typing import Any

from prefect import flow
from prefect.runtime import flow_run

from flows.anchors import AnchorsResult, make_anchors, make_cold_anchors
from flows.config.run_config import RunConfig
from flows.matching import match_catalog, time_offsets
from flows.monitoring import monitored
from flows.night_report import Candidate, Night, report_night
from flows.rectify_day import published_summary
from flows.steps import night as steps
from flows.steps.feature_store import refresh
from flows.steps.publish_slot import publish_slot
from tasks.resources.memory_plan import check_memory
from tasks.resources.process import use_resources
from tasks.runs.day_journal import DayRun
from tasks.runs.day_status import made_from_now
from tasks.runs.folders import open_run, use_stages
from tasks.shards.open_runner import open_runner
from tasks.stages.previous_run import incremental_facts
from tasks.stages.quality import modality_facts, quality_values
from tasks.store.run_context import timed_stage
from tasks.store.store import Ref, StageStore
from tasks.table.cleanup import sweep_table


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishTurn:
    """A day's place among the days of a backfill, or among the runs of a server.

    - ``since``: the version of the day's journal when the run was planned.
    - ``prepares``: compute the outputs before ``waits`` is called.
    - ``waits``: returns when the run may publish.
    - ``slot``: then take the slot that the server's runs on one table share.
    - ``patience``: seconds to wait for a table that another run holds.
    """

    since: str
    prepares: bool
    patience: float
    waits: Callable[[], None]
    slot: bool = False


@flow(name="rectify-catalog", flow_run_name="rectify {as_of}", validate_parameters=False, persist_result=False)
@monitored
def rectify_catalog(config: RunConfig, as_of: date, turn: PublishTurn | None = None) -> dict[str, Any]:
    """Publish the rectified features of one day and return the run's summary; a repeat publishes nothing.

    With ``feature_store.enabled`` it then refreshes the feature store, when the table is free again. Raises InputError, GateRefusedError,
    TableHeldError, StorageError or OnlineStoreError, each with one line for the user.
    """
    use_resources(config.resources)
    summary = _run_alone(config, as_of) if turn is None else _run_in_turn(config, as_of, turn)
    if config.feature_store.enabled:
        summary |= {"feature_store": refresh(config.feature_store, config.publish, None, "skip")}
    return summary


def _run_alone(config: RunConfig, as_of: date) -> dict[str, Any]:
    """Run a day that holds the table from its start to its end."""
    with (
        open_run(config.run, config.publish, as_of) as stages,
        config.journal.hold(as_of) as day,
        _journaled(config, day),
        open_runner(config.resources, stages) as store,
    ):
        return day.done(_run_day(config, as_of, store))


def _run_in_turn(config: RunConfig, as_of: date, turn: PublishTurn) -> dict[str, Any]:
    """Run a day that holds the table only after it waited for its turn."""
    with config.journal.hold(as_of, since=turn.since) as day, _journaled(config, day):
        if turn.prepares:
            with use_stages(config.run) as stages, open_runner(config.resources, stages) as store:
                _prepare(config, as_of, store)
        day.enter("its turn")
        turn.waits()
        with (
            publish_slot(config.publish) if turn.slot else nullcontext(),
            open_run(config.run, config.publish, as_of, patience=turn.patience) as stages,
            open_runner(config.resources, stages) as store,
        ):
            return day.done(_run_day(config, as_of, store))


def _journaled(config: RunConfig, day: DayRun) -> AbstractContextManager[None]:
    made_from = made_from_now(config.source, config.shaping, day.day)
    return day.under_way(flow_run_id=flow_run.get_id(), made_from=made_from)


def _prepare(config: RunConfig, as_of: date, store: StageStore) -> None:
    """Compute the outputs that a cold run of the day will reuse. They depend on no other day, so days can do this in parallel."""
    source = steps.read(config.source, as_of, store)
    if published_summary(config, as_of, source) is not None:
        return
    check_memory(source, config.pipeline, config.resources)
    _run_shadow(config, source, store)
    matched = match_catalog(source, make_cold_anchors(config, as_of, source, store, "").anchors, config, store)
    steps.rectify(source, matched, config.rectify, config.segments, config.seed, store)
    time_offsets(source, matched, config, store)


def _run_day(config: RunConfig, as_of: date, store: StageStore) -> dict[str, Any]:
    """Run the night and return its summary. The caller holds the table and the day."""
    source = steps.read(config.source, as_of, store)
    summary = published_summary(config, as_of, source)
    if summary is not None:
        return summary
    check_memory(source, config.pipeline, config.resources)
    shadow, shadow_facts = _run_shadow(config, source, store)
    made = _make_candidate(config, as_of, source, make_anchors(config, as_of, source, store), shadow, store)
    if not made.quality.passed and made.start.previous is not None:
        start = make_cold_anchors(config, as_of, source, store, "the quality gate refused the incremental night")
        made = _make_candidate(config, as_of, source, start, shadow, store)
    night = _publish(config, made, shadow_facts, store)
    with timed_stage("report"):
        summary = report_night(night)
    sweep_table(config.publish)
    return summary


def _run_shadow(config: RunConfig, source: Ref, store: StageStore) -> tuple[Ref | None, dict[str, Any] | None]:
    """The shadow evaluation's output and its facts, None and None where the config does not ask for one."""
    if config.evaluation.shadow is None:
        return None, None
    made: tuple[Ref, dict[str, Any]] = steps.shadow(source, config.evaluation, config.pipeline, config.seed, store)
    return made


def _make_candidate(
    config: RunConfig, as_of: date, source: Ref, start: AnchorsResult, shadow: Ref | None, store: StageStore
) -> Candidate:
    """Match, rectify, and run the quality gate."""
    matched = match_catalog(source, start.anchors, config, store, start.previous)
    rectified = steps.rectify(source, matched, config.rectify, config.segments, config.seed, store)
    with timed_stage("quality"):
        models = config.source.embedding_models
        quality = steps.check_quality(
            source, start.anchors, matched, rectified, config.quality, config.publish, as_of, models, shadow
        )
    return Candidate(source=source, shadow=shadow, start=start, matched=matched, rectified=rectified, quality=quality)


def _publish(config: RunConfig, made: Candidate, shadow_facts: dict[str, Any] | None, store: StageStore) -> Night:
    """Publish the candidate if it passed the gate, and record the run's findings either way."""
    source, start, rectified = made.source, made.start, made.rectified
    facts: dict[str, Any] = {
        "modalities": modality_facts(source, made.matched, rectified, config.segments, config.source.embedding_models),
        "quality": quality_values(made.quality),
        "newest_event": source.notes["newest_event"],
        "warnings": source.notes["warnings"],
    }
    if shadow_facts is not None:
        facts["shadow"] = shadow_facts
    if config.incremental.enabled:
        facts["incremental"] = incremental_facts(start.previous, start.reason)
    with timed_stage("publish"):
        version = None
        if made.quality.passed:
            version = steps.publish(config.publish, start.identity, source, rectified, start.anchors, facts)
        trend = steps.keep_trend(config.publish, start.identity, version, facts)
    facts["time_offsets"] = time_offsets(source, made.matched, config, store)
    return Night(config=config, made=made, version=version, facts=facts, trend=trend)
