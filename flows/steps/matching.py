"""The stages of one modality as Prefect tasks: segments, copies, projection, affinity, sinkhorn and trust."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prefect import task

from flows.steps.options import PLAIN
from rectifier_core.affinity.config import AffinityConfig
from rectifier_core.copies.config import CopiesConfig
from rectifier_core.projection.config import ProjectionConfig, WitnessConfig
from rectifier_core.sequences.config import SegmentsConfig, TimeOffsetConfig
from rectifier_core.sinkhorn.config import SinkhornConfig
from rectifier_core.trust.config import TrustConfig
from tasks.run_logger import logged_progress, run_logger
from tasks.stages.affinity import affinity_stage
from tasks.stages.copies import copies_stage
from tasks.stages.previous_run import PreviousRun
from tasks.stages.projection import cross_modal_target_stage, projection_stage
from tasks.stages.sequences import offset_facts, segments_stage, time_offset_stage
from tasks.stages.sinkhorn import sinkhorn_stage
from tasks.stages.trust import trust_stages
from tasks.store.store import Ref, StageStore


@task(task_run_name="segments of {modality}", **PLAIN)
def judge_segments(
    modality: str, source: Ref, anchor: Ref, config: SegmentsConfig, seed: int, store: StageStore
) -> Ref:
    """Find the segments of a sequence that are not its item's own, and pool the others."""
    segments = segments_stage(modality, source, anchor, config, seed, store, progress=logged_progress())
    run_logger().info("segments of %s: %s", modality, segments.meta["reason"])
    return segments


@task(task_run_name="time offset from {first} to {second}", **PLAIN)
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
    """Estimate by how many segments one sequence runs behind another."""
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
    """Project one modality onto the anchors."""
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


@task(task_run_name="components of {modality}", **PLAIN)
def cross_modal_target(
    modality: str,
    features: Ref,
    copies: Ref,
    config: WitnessConfig,
    seed: int,
    store: StageStore,
    previous: PreviousRun | None = None,
) -> Ref:
    """Reduce one modality to its principal components, as a target for another."""
    return cross_modal_target_stage(modality, features, copies, config, seed, store, previous=previous)


@task(task_run_name="project {modality} onto {other}", **PLAIN)
def project_onto(
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
    """Project one modality onto another."""
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


@task(task_run_name="affinity of {modality}", **PLAIN)
def match(
    modality: str,
    projection: Ref,
    config: AffinityConfig,
    seed: int,
    store: StageStore,
    previous: PreviousRun | None = None,
    *,
    device: str = "cpu",
) -> Ref:
    """Find the nearest features of each anchor."""
    return affinity_stage(
        modality,
        projection,
        config,
        seed,
        store,
        previous=previous,
        device=device,
        progress=logged_progress(),
    )


@task(task_run_name="sinkhorn of {modality}", **PLAIN)
def balance(
    modality: str,
    affinity: Ref,
    config: SinkhornConfig,
    store: StageStore,
    previous: PreviousRun | None = None,
) -> Ref:
    """Balance the affinity to a plan."""
    progress = logged_progress()
    plan = sinkhorn_stage(modality, affinity, config, store, previous=previous, progress=progress)
    meta = plan.meta
    said = "matching %s: %s after %s iterations, column error %.2g"
    run_logger().info(said, modality, meta["outcome"], meta["iterations"], meta["column_error"])
    return plan


@task(task_run_name="trust", **PLAIN)
def judge_trust(
    source: Ref,
    anchor: Ref,
    projections: Mapping[str, Ref],
    cross_modal: Mapping[tuple[str, str], Ref],
    config: TrustConfig,
    seed: int,
    store: StageStore,
) -> dict[str, Ref]:
    """Estimate the trust in each feature."""
    trusts = trust_stages(source, anchor, projections, cross_modal, config, seed, store)
    for modality, trust in trusts.items():
        run_logger().info("trust in %s: %s", modality, trust.meta["reason"])
    return trusts
