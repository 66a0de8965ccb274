"""The stages of one modality as Prefect tasks: segments, copies, projection, affinity, sinkhorn and trust."""

from __future__ import annotations

from flows.steps.options import stage_task
from tasks.run_logger import run_logger
from tasks.stages.affinity import affinity_stage
from tasks.stages.copies import copies_stage
from tasks.stages.projection import cross_modal_target_stage, projection_stage
from tasks.stages.sequences import segments_stage, time_offset_stage
from tasks.stages.sinkhorn import sinkhorn_stage
from tasks.stages.trust import trust_stages
from tasks.store.store import Ref


def _log_reason(made: Ref) -> None:
    run_logger().info("%s: %s", made.kind.replace("/", " of "), made.meta["reason"])


def _log_reasons(made: dict[str, Ref]) -> None:
    for trust in made.values():
        _log_reason(trust)


def _log_balance(plan: Ref) -> None:
    outcome, iterations, error = (plan.meta[name] for name in ("outcome", "iterations", "column_error"))
    what = plan.kind.replace("/", " of ")
    run_logger().info("%s: %s after %s iterations, column error %.2g", what, outcome.lower(), iterations, error)


judge_segments = stage_task(segments_stage, "segments of {modality}", _log_reason)
find_copies = stage_task(copies_stage, "find copies in {modality}")
project = stage_task(projection_stage, "project {modality}")
project_onto = stage_task(projection_stage, "project {modality} onto {onto}")
cross_modal_target = stage_task(cross_modal_target_stage, "components of {modality}")
find_affinity = stage_task(affinity_stage, "affinity of {modality}")
balance = stage_task(sinkhorn_stage, "sinkhorn of {modality}", _log_balance)
estimate_trust = stage_task(trust_stages, "trust", _log_reasons)
recover_offset = stage_task(time_offset_stage, "time offset from {first} to {second}", _log_reason)
