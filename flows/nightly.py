"""The nightly flow: read, learn, match, mend, check, publish, report."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Literal

from prefect import flow
from prefect.runtime import flow_run

from flows.anchors import AnchorsResult, known_identity, make_anchors, make_cold_anchors
from flows.config.run_config import RunConfig
from flows.matching import match_catalog, time_offsets
from flows.monitoring import monitored, read_nights_config, run_keeping_result
from flows.server.publish_slot import publish_slot
from flows.steps import night as steps
from flows.steps.feature_store import refresh
from rectifier_core.base.published_records import QualityReport, TableVersion
from tasks.errors import GateRefusedError, RectifierError
from tasks.evaluation.shadow import shadow_config
from tasks.observe.watch import watch_run
from tasks.report.inputs import ReportInputs, StageTiming
from tasks.resources.memory_plan import check_memory
from tasks.resources.process import use_resources
from tasks.runs.day_journal import DayRun, hold_day
from tasks.runs.day_status import made_from_now
from tasks.runs.folders import load_summary, open_run, ref_values, save_summary, use_stages
from tasks.runs.identity import identify, making_digest, without_places
from tasks.runs.log import name_run, use_console
from tasks.shards.open_runner import open_runner
from tasks.source.read import resolve_day
from tasks.stages.previous_run import ROW_MAPPING, PreviousRun, incremental_facts
from tasks.stages.quality import modality_facts, quality_values
from tasks.store.peak_memory import peak_memory_bytes
from tasks.store.run_context import timed_stage
from tasks.store.stage_outputs import ModalityRefs
from tasks.store.store import Ref, StageStore
from tasks.table.cleanup import sweep_table
from tasks.table.config import RunIdentity
from tasks.table.publish import find_published
from tasks.table.trend import Trend


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishTurn:
    """A day's place among others, a backfill's or a server's; who gave it saw the day's journal at ``since``.

    The run ``waits`` for its turn to publish, for the table's slot where runs of a server share one (``slot``), ``patience`` seconds for
    the table then, and ``prepares`` its outputs before.
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

    Where ``feature_store.enabled`` says so, its readers get the version as well, once the table is free again. Raises InputError,
    GateRefusedError, TableHeldError, StorageError or OnlineStoreError, each with one line for the user.
    """
    summary = _rectify(config, as_of, turn)
    if config.feature_store.enabled:
        summary |= {"feature_store": refresh(config.feature_store, config.publish, None, "skip")}
    return summary


def _rectify(config: RunConfig, as_of: date, turn: PublishTurn | None) -> dict[str, Any]:
    use_resources(config.resources)
    if turn is not None:
        return _rectify_in_turn(config, as_of, turn)
    with (
        open_run(config.run, config.publish, as_of) as stages,
        hold_day(config.run.folder, config.publish, as_of) as day,
        _under_way(config, day),
        open_runner(config.resources, stages) as store,
    ):
        return day.done(_rectify_day(config, as_of, day, store))


def _rectify_in_turn(config: RunConfig, as_of: date, turn: PublishTurn) -> dict[str, Any]:
    """The same of a day that is held all the while, and the table only from its turn on."""
    with hold_day(config.run.folder, config.publish, as_of, since=turn.since) as day, _under_way(config, day):
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
            return day.done(_rectify_day(config, as_of, day, store))


def _under_way(config: RunConfig, day: DayRun) -> AbstractContextManager[None]:
    made_from = made_from_now(config.source, config.shaping, day.day)
    return day.under_way(flow_run_id=flow_run.get_id(), made_from=made_from)


def _prepare(config: RunConfig, as_of: date, store: StageStore) -> None:
    """Build what a cold run of the day will find: nothing here reads the days before it, so days may do this side by side."""
    source = steps.read(config.source, as_of, store)
    if _known(config, as_of, source) is not None:
        return
    check_memory(source, config.pipeline, config.resources)
    if shadowing := shadow_config(config.evaluation):
        steps.shadow(source, shadowing, config.pipeline, config.seed, store)
    matched = match_catalog(source, make_cold_anchors(config, as_of, source, store, "").anchors, config, store)
    steps.rectify(source, matched, config.rectify, config.segments, store)
    time_offsets(source, matched, config, store)


def _rectify_day(config: RunConfig, as_of: date, day: DayRun, store: StageStore) -> dict[str, Any]:
    """The night itself, under the table's lock and the day's lease; the same summary, the same errors."""
    shadowing = shadow_config(config.evaluation)
    source = steps.read(config.source, as_of, store)
    if (known := _known(config, as_of, source)) is not None:
        return known
    check_memory(source, config.pipeline, config.resources)
    shadow, shadow_found = (
        steps.shadow(source, shadowing, config.pipeline, config.seed, store) if shadowing else (None, None)
    )
    made = _mend(config, as_of, source, make_anchors(config, as_of, source, store), shadow, day, store)
    if not made.quality.passed and made.start.previous is not None:
        start = make_cold_anchors(config, as_of, source, store, "the quality gate refused the incremental night")
        made = _mend(config, as_of, source, start, shadow, day, store)
    identity, previous, matched, rectified, quality = (
        made.start.identity,
        made.start.previous,
        made.matched,
        made.rectified,
        made.quality,
    )
    facts: dict[str, Any] = {
        "modalities": modality_facts(source, matched, rectified, config.segments, config.source.embedding_models),
        "quality": quality_values(quality),
    }
    facts |= {} if shadow_found is None else {"shadow": shadow_found}
    facts |= {"incremental": incremental_facts(previous, made.start.reason)} if config.incremental.enabled else {}
    with timed_stage("publish"):
        version = steps.publish(config.publish, identity, source, rectified, facts) if quality.passed else None
        trend = steps.keep_trend(config.publish, identity, version, facts)
    facts["time_offsets"] = time_offsets(source, matched, config, store)
    night = _Night(
        config=config,
        identity=identity,
        source=source,
        anchors=made.start.anchors,
        previous=previous,
        matched=matched,
        rectified=rectified,
        shadow=shadow,
        quality=quality,
        version=version,
        facts=facts,
        trend=trend,
    )
    with timed_stage("report"):
        summary = _report(night)
    sweep_table(config.publish)
    return summary


def rectify_day(path: Path, overrides: Iterable[str], as_of: date | None) -> dict[str, Any]:
    """Publish the day ``as_of``, by default the newest in the data, and return the run's summary.

    A config or a source that cannot be read counts as a failed night: it is logged, and an event is sent.
    """
    config = read_nights_config(path, overrides, as_of)
    use_console(config.run.log)
    try:
        day = resolve_day(config.source, as_of)
    except RectifierError:
        with watch_run(config.watch, as_of):
            raise
    result: dict[str, Any] = run_keeping_result(rectify_catalog, config, day)
    return result


@dataclass(frozen=True, slots=True, kw_only=True)
class _Made:
    """What a run would publish, and what the gate says of it."""

    start: AnchorsResult
    matched: dict[str, ModalityRefs]
    rectified: Ref
    quality: QualityReport


def _mend(
    config: RunConfig,
    as_of: date,
    source: Ref,
    start: AnchorsResult,
    shadow: Ref | None,
    day: DayRun,
    store: StageStore,
) -> _Made:
    matched = match_catalog(source, start.anchors, config, store, start.previous)
    rectified = steps.rectify(source, matched, config.rectify, config.segments, store)
    with timed_stage("quality"):
        models = config.source.embedding_models
        quality = steps.judge_quality(source, matched, rectified, config.quality, config.publish, as_of, models, shadow)
    return _Made(start=start, matched=matched, rectified=rectified, quality=quality)


def _known(config: RunConfig, as_of: date, source: Ref) -> dict[str, Any] | None:
    """The summary of this very run, when the table shows it and its report was written."""
    identity = known_identity(config, as_of, source)
    if identity is None:
        # Raises where the day could not be published, before anything is computed.
        find_published(config.publish, identify(as_of, source, config.shaping))
        return None
    name_run(identity.run_id)
    version, summary = find_published(config.publish, identity), load_summary(config.run, identity.run_id)
    if version is None or summary is None or summary["version"] is None:
        return None
    return summary | {"version": version.version, "published": False, "table": config.publish.uri}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Night:
    """What a run has made by the time it reports; ``version`` is None where the gate refused."""

    config: RunConfig
    identity: RunIdentity
    source: Ref
    anchors: Ref
    previous: PreviousRun | None
    matched: dict[str, ModalityRefs]
    rectified: Ref
    shadow: Ref | None
    quality: QualityReport
    version: TableVersion | None
    facts: dict[str, Any]
    trend: Trend

    @property
    def stages(self) -> dict[str, Ref]:
        """Every stage output by its name."""
        refs = {"source": self.source, "anchors": self.anchors, "rectify": self.rectified}
        refs |= {} if self.shadow is None else {"shadow": self.shadow}
        refs |= {} if self.previous is None else {ROW_MAPPING: self.previous.row_mapping}
        return refs | {name: ref for m, x in self.matched.items() for name, ref in x.named(m).items()}


def _report(night: _Night) -> dict[str, Any]:
    """Write the report and return the run's summary; raises GateRefusedError, which names the report, where nothing was published."""
    path = steps.report(night.config.run.run_folder(night.identity.run_id), _report_inputs(night), night.facts)
    if night.version is None:
        failed = [
            f"{c.name}: {c.value:.4g}, wanted {c.rule} {c.bound:.4g}"
            for c in night.quality.checks
            if c.verdict == "failed"
        ]
        why = "; ".join([*failed, *night.quality.notes])
        raise GateRefusedError(
            f"{night.identity.day}: the quality gate refused, nothing was published: {why}; see {path}"
        )
    summary = {
        "run_id": night.identity.run_id,
        "as_of": night.identity.day,
        "version": night.version.version,
        "rows": night.version.rows,
        "published": night.version.published,
        "report": path,
        "table": night.config.publish.uri,
        "modalities": night.facts["modalities"],
        "time_offsets": night.facts["time_offsets"],
        "seconds": {name: round(ref.seconds, 3) for name, ref in night.stages.items()},
        "cpu_seconds": {name: round(ref.cpu_seconds, 3) for name, ref in night.stages.items()},
        "peak_memory_bytes": peak_memory_bytes(),
        "stage_memory_bytes": {name: ref.peak_memory for name, ref in night.stages.items() if not ref.reused},
        "memory_limit_bytes": night.config.resources.memory_bytes,
        "stages": {name: ref_values(ref) for name, ref in night.stages.items()},
        "making": making_digest(night.config.shaping),
        "base": None if night.previous is None else night.previous.identity,
        "nights": 0 if night.previous is None else night.previous.nights,
    }
    if "incremental" in night.facts:
        summary["incremental"] = night.facts["incremental"]
    if "shadow" in night.facts:
        summary["shadow"] = night.facts["shadow"]
    save_summary(night.config.run, summary)
    return summary


def _report_inputs(night: _Night) -> ReportInputs:
    identity, version = night.identity, night.version
    outcome: Literal["published", "unchanged", "refused"] = (
        "refused" if version is None else "published" if version.published else "unchanged"
    )
    return ReportInputs(
        outcome=outcome,
        run_id=identity.run_id,
        as_of=identity.day,
        table_uri=night.config.publish.uri,
        table_version=None if version is None else version.version,
        source=night.source,
        anchors=night.anchors,
        modalities=night.matched,
        rectified=night.rectified,
        quality=night.quality,
        timings=tuple(StageTiming.of(name, ref) for name, ref in night.stages.items()),
        peak_memory_bytes=peak_memory_bytes(),
        memory_limit=night.config.resources.memory_bytes,
        provenance={
            "digest": identity.digest,
            "config": identity.config_digest,
            "inputs": identity.inputs_digest,
            "code": identity.code_version,
        }
        | ({"incremental": night.facts["incremental"]["reason"]} if "incremental" in night.facts else {}),
        config=without_places(night.config.shaping),
        sequences={m: found["sequence"] for m, found in night.facts["modalities"].items() if "sequence" in found},
        time_offsets=tuple(night.facts["time_offsets"]),
        shadow=night.facts.get("shadow"),
        trend=night.trend.days,
        trend_damaged=night.trend.damaged,
        embedding_models=night.config.source.embedding_models,
    )
