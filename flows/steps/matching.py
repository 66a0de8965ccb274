"""The stages of one modality as Prefect tasks: segments, copies, projection, affinity, sinkhorn and trust."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prefect import task

from flows.steps.options import PLAIN, stage_task
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

find_copies = stage_task(copies_stage, "find copies in {modality}")
project = stage_task(projection_stage, "project {modality}")
project_onto = stage_task(projection_stage, "project {modality} onto {onto}")
find_affinity = stage_task(affinity_stage, "affinity of {modality}")
cross_modal_target = task(task_run_name="components of {modality}", **PLAIN)(cross_modal_target_stage)


@task(task_run_name="segments of {modality}", **PLAIN)
def judge_segments(
    modality: str, source: Ref, anchors: Ref, config: SegmentsConfig, seed: int, store: StageStore
) -> Ref:
    """Find the segments of a sequence that are not its item's own, and pool the others."""
    segments = segments_stage(modality, source, anchors, config, seed, store, progress=logged_progress())
    run_logger().info("segments of %s: %s", modality, segments.meta["reason"])
    return segments


@task(task_run_name="sinkhorn of {modality}", **PLAIN)
def balance(
    modality: str,
    affinity: Ref,
    config: SinkhornConfig,
    store: StageStore,
    *,
    previous: PreviousRun | None = None,
) -> Ref:
    """Balance the affinity to a plan."""
    plan = sinkhorn_stage(modality, affinity, config, store, previous=previous, progress=logged_progress())
    outcome, iterations, error = (plan.meta[name] for name in ("outcome", "iterations", "column_error"))
    run_logger().info(
        "matching %s: %s after %s iterations, column error %.2g", modality, outcome.lower(), iterations, error
    )
    return plan


@task(task_run_name="trust", **PLAIN)
def estimate_trust(
    source: Ref,
    anchors: Ref,
    projections: Mapping[str, Ref],
    cross_modal: Mapping[tuple[str, str], Ref],
    config: TrustConfig,
    seed: int,
    store: StageStore,
) -> dict[str, Ref]:
    """Estimate the trust in each feature."""
    trusts = trust_stages(source, anchors, projections, cross_modal, config, seed, store)
    for modality, trust in trusts.items():
        run_logger().info("trust in %s: %s", modality, trust.meta["reason"])
    return trusts


@task(task_run_name="time offset from {first} to {second}", **PLAIN)
def recover_offset(
    first: str,
    second: str,
    source: Ref,
    segments: dict[str, Ref],
    doubtful: float,
    config: TimeOffsetConfig,
    seed: int,
    store: StageStore,
) -> dict[str, Any]:
    """Estimate by how many segments one sequence runs behind another."""
    offset = time_offset_stage(
        first, second, source, segments, doubtful, config, seed, store, progress=logged_progress()
    )
    run_logger().info("time from %s to %s: %s", first, second, offset.meta["reason"])
    return offset_facts(offset)
