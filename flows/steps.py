"""The stages as Prefect tasks: names, retries on I/O only, and the run's artifacts.

Results are references a few hundred bytes long, so nothing is hashed or persisted by Prefect (``NO_CACHE``): resuming is the stage store's
work, whose keys hold the inputs' digests, the config and the code, and it needs no server.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

from prefect import task
from prefect.assets import Asset, AssetProperties, materialize
from prefect.cache_policies import NO_CACHE

from rectifier_core.affinity.config import AffinityConfig
from rectifier_core.anchors.config import AnchorsConfig
from rectifier_core.base.published_records import QualityReport, TableVersion
from rectifier_core.config import PipelineConfig, QualityConfig
from rectifier_core.copies.config import CopiesConfig
from rectifier_core.projection.config import ProjectionConfig, WitnessConfig
from rectifier_core.rectify.config import RectifyConfig
from rectifier_core.sequences.config import SegmentsConfig, TimeOffsetConfig
from rectifier_core.sinkhorn.config import SinkhornConfig
from rectifier_core.trust.config import TrustConfig
from tasks.errors import OnlineStoreError, RectifierError
from tasks.evaluation.shadow import ShadowConfig, shadow_facts, shadow_measure, shadow_stage
from tasks.object_store import StorageUnreachableError
from tasks.observe.artifacts import leave_artifacts
from tasks.observe.events import asset_key, emit_jumps, emit_published
from tasks.report.inputs import ReportInputs
from tasks.report.phrases import shadow_phrase
from tasks.report.render import write_report
from tasks.run_logger import logged_progress, run_logger
from tasks.runs.config import RunSettings
from tasks.runs.folders import copy_quarantine, previous_ego
from tasks.source.config import SourceConfig
from tasks.source.read import read_source
from tasks.stages.affinity import affinity_stage
from tasks.stages.anchors import anchors_stage, recall_drop, updated_anchors_stage
from tasks.stages.config import IncrementalConfig
from tasks.stages.copies import copies_stage
from tasks.stages.previous_run import PreviousRun, find_previous_run
from tasks.stages.projection import cross_modal_target_stage, projection_stage
from tasks.stages.quality import quality_stage
from tasks.stages.rectify import rectify_stage
from tasks.stages.sequences import offset_facts, segments_stage, time_offset_stage
from tasks.stages.sinkhorn import sinkhorn_stage
from tasks.stages.trust import trust_stages
from tasks.store.peak_memory import peak_memory_bytes
from tasks.store.stage_outputs import ModalityRefs
from tasks.store.store import Ref, StageStore
from tasks.table.config import PublishConfig, RunIdentity
from tasks.table.publish import find_published, publish_rectified
from tasks.table.trend import Trend, find_jumps, read_trend, record_run, trend_entry


def _is_transient(_task: Any, _run: Any, state: Any) -> bool:
    """Retry a store that did not answer or an I/O error nobody explained; never bad input, a held table or a refused gate."""
    error = state.result(raise_on_failure=False)
    return isinstance(error, StorageUnreachableError | OnlineStoreError) or (
        isinstance(error, OSError) and not isinstance(error, RectifierError)
    )


IO: dict[str, Any] = {"retries": 2, "retry_delay_seconds": [2, 10], "retry_condition_fn": _is_transient}
_TOLD = {
    "passed": (logging.INFO, "passed"),
    "warning": (logging.WARNING, "WARNING, published all the same"),
    "failed": (logging.ERROR, "FAILED"),
}
PLAIN: dict[str, Any] = {"cache_policy": NO_CACHE, "persist_result": False}


@task(task_run_name="read as of {as_of}", **IO, **PLAIN)
def read(config: SourceConfig, as_of: date, store: StageStore) -> Ref:
    """Read and validate the catalog and the log."""
    source = read_source(config, as_of, store, logged_progress())
    counts = source.meta["counts"]
    run_logger().info(
        "read %s items and %s positive pairs as of %s",
        f"{counts['items']:,}",
        f"{counts['interactions_used']:,}",
        as_of,
    )
    return source


@task(task_run_name="find what to bring up to date", **PLAIN)
def find_base(
    source: Ref,
    shaping: Mapping[str, Any],
    config: IncrementalConfig,
    store: StageStore,
    settings: RunSettings,
    publish_config: PublishConfig,
    as_of: date,
) -> tuple[PreviousRun | None, str]:
    """The earlier run that this one brings up to date, or None; and why."""
    previous, reason = find_previous_run(settings, publish_config.uri, as_of, source, shaping, config, store)
    run_logger().info("incremental: %s", reason if previous is not None else f"runs cold: {reason}")
    return previous, reason


@task(task_run_name="fold anchors", **PLAIN)
def refold(
    source: Ref, config: AnchorsConfig, seed: int, store: StageStore, previous: PreviousRun
) -> tuple[Ref, str | None]:
    """Fold what is new into the earlier run's anchors; and why they will not do, None where they do."""
    updated = updated_anchors_stage(source, config, seed, previous, store)
    drop = recall_drop(updated, previous)
    if drop is not None:
        run_logger().info("incremental: runs cold: %s", drop)
    return updated, drop


@task(task_run_name="learn anchors", **PLAIN)
def anchors(
    source: Ref,
    config: AnchorsConfig,
    seed: int,
    store: StageStore,
    settings: RunSettings,
    publish_config: PublishConfig,
    as_of: date,
    *,
    device: str = "cpu",
) -> Ref:
    """Learn from behaviour where each item belongs."""
    start_rows, run_id = None, None
    if config.warm_start:
        start_rows, run_id = previous_ego(
            settings, publish_config.uri, as_of, source.array("item_ids"), config.embedding_size
        )
        run_logger().info("anchors start from %s", run_id or f"a {config.start} start: no earlier run is here")
    return anchors_stage(
        source,
        config,
        seed,
        store,
        start_rows=start_rows,
        start_run=run_id,
        device=device,
        progress=logged_progress(),
    )


@task(task_run_name="judge the segments of {modality}", **PLAIN)
def judge_segments(
    modality: str, source: Ref, anchor: Ref, config: SegmentsConfig, seed: int, store: StageStore
) -> Ref:
    """Say which parts of a sequence are its item's own, and pool the others out."""
    segments = segments_stage(modality, source, anchor, config, seed, store, progress=logged_progress())
    run_logger().info("segments of %s: %s", modality, segments.meta["reason"])
    return segments


@task(task_run_name="time from {first} to {second}", **PLAIN)
def recover_offset(
    first: str,
    second: str,
    source: Ref,
    segments: dict[str, Ref],
    config: TimeOffsetConfig,
    doubtful: float,
    seed: int,
    store: StageStore,
) -> dict[str, Any]:
    """Find by how many segments one sequence runs behind another."""
    offset = time_offset_stage(
        first, second, source, segments, doubtful, config, seed, store, progress=logged_progress()
    )
    run_logger().info("time from %s to %s: %s", first, second, offset.meta["reason"])
    return offset_facts(offset)


@task(task_run_name="find copies in {modality}", **PLAIN)
def find_copies(
    modality: str,
    features: Ref,
    anchor: Ref,
    config: CopiesConfig,
    seed: int,
    store: StageStore,
    previous: PreviousRun | None = None,
) -> Ref:
    """Find features that many items share."""
    progress = logged_progress()
    return copies_stage(modality, features, anchor, config, seed, store, previous=previous, progress=progress)


@task(task_run_name="project {modality}", **PLAIN)
def project(
    modality: str,
    features: Ref,
    copies: Ref,
    anchor: Ref,
    config: ProjectionConfig,
    seed: int,
    store: StageStore,
    previous: PreviousRun | None = None,
    *,
    device: str = "cpu",
) -> Ref:
    """Carry one modality into anchor space."""
    return projection_stage(
        modality,
        features,
        copies,
        anchor,
        config,
        seed,
        store,
        previous=previous,
        device=device,
        progress=logged_progress(),
    )


@task(task_run_name="place items by {modality}", **PLAIN)
def place(
    modality: str,
    features: Ref,
    copies: Ref,
    config: WitnessConfig,
    seed: int,
    store: StageStore,
    previous: PreviousRun | None = None,
) -> Ref:
    """Say where one modality places each item."""
    return cross_modal_target_stage(modality, features, copies, config, seed, store, previous=previous)


@task(task_run_name="hold {modality} against {other}", **PLAIN)
def witness(
    modality: str,
    other: str,
    features: Ref,
    copies: Ref,
    places: Ref,
    config: ProjectionConfig,
    seed: int,
    store: StageStore,
    previous: PreviousRun | None = None,
    *,
    device: str = "cpu",
) -> Ref:
    """Carry one modality into the space of another."""
    return projection_stage(
        modality,
        features,
        copies,
        places,
        config,
        seed,
        store,
        onto=other,
        previous=previous,
        device=device,
        progress=logged_progress(),
    )


@task(task_run_name="match {modality}", **PLAIN)
def match(
    modality: str,
    projection: Ref,
    config: AffinityConfig,
    seed: int,
    store: StageStore,
    memory: int,
    previous: PreviousRun | None = None,
    *,
    device: str = "cpu",
) -> Ref:
    """Find each item's best donors."""
    return affinity_stage(
        modality,
        projection,
        config,
        seed,
        store,
        previous=previous,
        memory=memory,
        device=device,
        progress=logged_progress(),
    )


@task(task_run_name="balance {modality}", **PLAIN)
def balance(
    modality: str,
    affinity: Ref,
    config: SinkhornConfig,
    store: StageStore,
    previous: PreviousRun | None = None,
) -> Ref:
    """Balance the correspondence."""
    progress = logged_progress()
    plan = sinkhorn_stage(modality, affinity, config, store, previous=previous, progress=progress)
    meta = plan.meta
    said = "matching %s: %s after %s iterations, column error %.2g"
    run_logger().info(said, modality, meta["outcome"], meta["iterations"], meta["column_error"])
    return plan


@task(task_run_name="judge trust", **PLAIN)
def judge_trust(
    source: Ref,
    anchor: Ref,
    projections: Mapping[str, Ref],
    cross_modal: Mapping[tuple[str, str], Ref],
    config: TrustConfig,
    seed: int,
    store: StageStore,
) -> dict[str, Ref]:
    """Say how far each feature can be trusted."""
    trusts = trust_stages(source, anchor, projections, cross_modal, config, seed, store)
    for modality, trust in trusts.items():
        run_logger().info("trust in %s: %s", modality, trust.meta["reason"])
    return trusts


@task(task_run_name="mend", **PLAIN)
def rectify(
    source: Ref,
    matched: Mapping[str, ModalityRefs],
    config: RectifyConfig,
    segments: SegmentsConfig,
    store: StageStore,
    memory: int,
) -> Ref:
    """Mend every modality."""
    return rectify_stage(source, matched, config, segments, store, memory=memory, progress=logged_progress())


@task(task_run_name="train the shadow", **PLAIN)
def shadow(
    source: Ref, config: ShadowConfig, pipeline: PipelineConfig, seed: int, store: StageStore
) -> tuple[Ref, dict[str, Any]]:
    """Train a recommender on raw and on rectified features, and say whether it does worse, and what saying it cost."""
    before = peak_memory_bytes()
    output = shadow_stage(source, config, pipeline, seed, store, progress=logged_progress())
    found = shadow_facts(output, (before, peak_memory_bytes()))
    run_logger().info("%s", shadow_phrase(found))
    return output, found


@task(task_run_name="check quality", **IO, **PLAIN)
def judge_quality(
    source: Ref,
    matched: Mapping[str, ModalityRefs],
    rectified: Ref,
    config: QualityConfig,
    publish_config: PublishConfig,
    as_of: date,
    models: Mapping[str, str],
    shadow: Ref | None = None,
) -> QualityReport:
    """Check what is about to be published."""
    report = quality_stage(
        source, matched, rectified, config, publish_config, as_of, models=models, shadow=shadow_measure(shadow)
    )
    for check in report.checks:
        level, said = _TOLD[check.verdict]
        run_logger().log(level, "gate: %s: %.4g, %s %.4g: %s", check.name, check.value, check.rule, check.bound, said)
    for note in report.notes:
        run_logger().info("gate: %s", note)
    return report


def publish(
    config: PublishConfig, identity: RunIdentity, source: Ref, rectified: Ref, facts: Mapping[str, Any]
) -> TableVersion:
    """Publish the day as one commit, as the materialisation of the table's asset; a repeat commits nothing."""
    what = AssetProperties(name=Path(config.uri).name, description="Rectified item features, a day a partition")
    asset = Asset(key=asset_key(config), properties=what)

    @materialize(asset, name="publish", task_run_name=f"publish {identity.day}", **IO, **PLAIN)
    def publish_table() -> TableVersion:
        found = find_published(config, identity)
        if found is None:
            found = publish_rectified(config, identity, source, rectified, facts)
            emit_published(config, found)
            asset.add_metadata(
                {"version": found.version, "rows": found.rows, "run_id": found.run_id, "as_of": found.as_of}
            )
        done = "published" if found.published else "already holds this run:"
        run_logger().info("table version %s %s %s rows of %s", found.version, done, f"{found.rows:,}", identity.day)
        return found

    version: TableVersion = publish_table()
    return version


@task(task_run_name="keep the trend", **IO, **PLAIN)
def keep_trend(
    config: PublishConfig, identity: RunIdentity, version: TableVersion | None, facts: Mapping[str, Any]
) -> Trend:
    """Record what the run found beside the table, and raise an event where a rate jumped; the last days come back."""
    outcome = "refused" if version is None else "published" if version.published else "unchanged"
    entry = trend_entry(
        identity, outcome, None if version is None else version.version, facts["modalities"], facts["quality"]
    )
    new = record_run(config, entry)
    trend = read_trend(config, until=identity.day)
    if new:
        emit_jumps(asset_key(config), find_jumps(trend.days, identity.day))
    return trend


@task(task_run_name="write the report", **PLAIN)
def report(folder: Path, inputs: ReportInputs, facts: Mapping[str, Any]) -> str:
    """Write the report and its JSON twin, put the quarantined rows beside them, and leave artifacts with Prefect."""
    copy_quarantine(inputs.source, folder)
    path = write_report(folder, inputs)
    leave_artifacts(inputs, facts, path)
    return str(path)
