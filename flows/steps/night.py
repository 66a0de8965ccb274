"""A night's steps as Prefect tasks: read, anchors, rectify, quality, publish and report."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

from prefect import task
from prefect.assets import Asset, AssetProperties, materialize

from flows.steps.options import IO, PLAIN, stage_task
from rectifier_core.anchors.config import AnchorsConfig
from rectifier_core.base.published_records import QualityReport, TableVersion
from rectifier_core.config import PipelineConfig, QualityConfig
from tasks.evaluation.config import EvaluationConfig
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
from tasks.stages.anchors import anchors_stage, recall_drop, updated_anchors_stage
from tasks.stages.config import IncrementalConfig
from tasks.stages.previous_run import PreviousRun, find_previous_run
from tasks.stages.quality import quality_stage
from tasks.stages.rectify import rectify_stage
from tasks.store.peak_memory import peak_memory_bytes
from tasks.store.stage_outputs import ModalityRefs
from tasks.store.store import Ref, StageStore
from tasks.table.config import PublishConfig, RunIdentity
from tasks.table.publish import find_published, publish_rectified
from tasks.table.trend import Trend, find_jumps, read_trend, record_run, trend_entry

_VERDICTS = {
    "passed": (logging.INFO, "passed"),
    "warning": (logging.WARNING, "a warning, published all the same"),
    "failed": (logging.ERROR, "failed"),
}


rectify = stage_task(rectify_stage, "rectify")


@task(task_run_name="read as of {as_of}", **IO, **PLAIN)
def read(config: SourceConfig, as_of: date, store: StageStore) -> Ref:
    """Read and validate the catalog and the log."""
    source = read_source(config, as_of, store, logged_progress())
    counts, notes = source.meta["counts"], source.notes
    for reading in notes["readings"]:
        run_logger().info("%s %s: %s", reading["input"], reading["column"], reading["taken_for"])
    for warning in notes["warnings"]:
        run_logger().warning("%s", warning)
    if counts["anonymous"]:
        run_logger().info("%s interactions have no user and are left out", f"{counts['anonymous']:,}")
    for name, kinds in counts["features_missing"].items():
        if any(kinds.values()):
            shown = ", ".join(f"{count:,} {kind}" for kind, count in kinds.items() if count)
            run_logger().info("%s is missing for %s items: %s", name, f"{sum(kinds.values()):,}", shown)
    run_logger().info(
        "read %s items and %s positive pairs as of %s",
        f"{counts['items']:,}",
        f"{counts['interactions_used']:,}",
        as_of,
    )
    return source


@task(task_run_name="find the previous run", **PLAIN)
def find_previous(
    source: Ref,
    shaping: Mapping[str, Any],
    config: IncrementalConfig,
    store: StageStore,
    settings: RunSettings,
    publish_config: PublishConfig,
    as_of: date,
) -> tuple[PreviousRun | None, str]:
    """The previous run that this one updates, or None; and the reason."""
    previous, reason = find_previous_run(settings, publish_config.uri, as_of, source, shaping, config, store)
    run_logger().info("incremental: %s", reason if previous is not None else f"computes everything: {reason}")
    return previous, reason


@task(task_run_name="update anchors", **PLAIN)
def update_anchors(
    source: Ref, config: AnchorsConfig, seed: int, store: StageStore, previous: PreviousRun
) -> tuple[Ref, str | None]:
    """Update the previous run's anchors; and why they cannot be used, None where they can."""
    updated = updated_anchors_stage(source, config, seed, previous, store)
    drop = recall_drop(updated, previous)
    if drop is not None:
        run_logger().info("incremental: computes everything: %s", drop)
    return updated, drop


@task(task_run_name="train anchors", **PLAIN)
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
    """Train the anchors."""
    start_rows, run_id = None, None
    if config.warm_start:
        start_rows, run_id = previous_ego(
            settings, publish_config.uri, as_of, source.array("item_ids"), config.embedding_size
        )
        run_logger().info("anchors start from %s", run_id or f"a {config.start} start: no earlier run is here")
    made = anchors_stage(
        source,
        config,
        seed,
        store,
        start_rows=start_rows,
        start_run=run_id,
        device=device,
        progress=logged_progress(),
    )
    pairs = source.meta["counts"]["interactions_used"]
    run_logger().info("anchors: %s on %s pairs (anchors.method = %s)", made.meta["method"], f"{pairs:,}", config.method)
    return made


@task(task_run_name="train the shadow", **PLAIN)
def shadow(
    source: Ref, config: EvaluationConfig, pipeline: PipelineConfig, seed: int, store: StageStore
) -> tuple[Ref, dict[str, Any]]:
    """Train a recommender on raw and on rectified features; the output, and whether it does worse and what that cost."""
    # Imported here: the recommenders and SciPy's statistics take a second to load, and few nights have a shadow.
    from tasks.evaluation.shadow import shadow_config, shadow_facts, shadow_stage

    before = peak_memory_bytes()
    output = shadow_stage(source, shadow_config(config), pipeline, seed, store, progress=logged_progress())
    facts = shadow_facts(output, (before, peak_memory_bytes()))
    # Who asked for the check must learn that it neither refused nor approved.
    log = run_logger().warning if facts["not_worse"] is None else run_logger().info
    log("%s", shadow_phrase(facts))
    return output, facts


@task(task_run_name="quality gate", **IO, **PLAIN)
def check_quality(
    source: Ref,
    anchors: Ref,
    matched: Mapping[str, ModalityRefs],
    rectified: Ref,
    config: QualityConfig,
    publish_config: PublishConfig,
    as_of: date,
    models: Mapping[str, str],
    shadow: Ref | None = None,
) -> QualityReport:
    """Run the quality gate."""
    measure = None
    if shadow is not None:
        from tasks.evaluation.shadow import shadow_measure

        measure = shadow_measure(shadow)
    report = quality_stage(
        source, anchors, matched, rectified, config, publish_config, as_of, models=models, shadow=measure
    )
    for check in report.checks:
        level, verdict = _VERDICTS[check.verdict]
        run_logger().log(
            level, "gate: %s: %.4g, %s %.4g: %s", check.name, check.value, check.rule, check.bound, verdict
        )
    for note in report.notes:
        run_logger().info("gate: %s", note)
    return report


def publish(
    config: PublishConfig, identity: RunIdentity, source: Ref, rectified: Ref, anchors: Ref, facts: Mapping[str, Any]
) -> TableVersion:
    """Publish the day as one commit, which materialises the table's asset. A repeat commits nothing."""
    properties = AssetProperties(name=Path(config.uri).name, description="Rectified item features, a day a partition")
    asset = Asset(key=asset_key(config), properties=properties)

    @materialize(asset, name="publish", task_run_name=f"publish {identity.day}", **IO, **PLAIN)
    def publish_table() -> TableVersion:
        version = find_published(config, identity)
        if version is None:
            version = publish_rectified(config, identity, source, rectified, facts, anchors=anchors)
            emit_published(config, version)
            asset.add_metadata({name: getattr(version, name) for name in ("version", "rows", "run_id", "as_of")})
        done = "published" if version.published else "already holds this run:"
        run_logger().info("table version %s %s %s rows of %s", version.version, done, f"{version.rows:,}", identity.day)
        return version

    published: TableVersion = publish_table()
    return published


@task(task_run_name="keep the trend", **IO, **PLAIN)
def keep_trend(
    config: PublishConfig, identity: RunIdentity, version: TableVersion | None, facts: Mapping[str, Any]
) -> Trend:
    """Record the run's findings beside the table, and send an event if a rate jumped; the trend."""
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
    """Write the report as HTML and JSON with the quarantined rows beside it, and create Prefect's artifacts; the report's path."""
    copy_quarantine(inputs.source, folder)
    path = write_report(folder, inputs)
    leave_artifacts(inputs, facts, path)
    return str(path)
