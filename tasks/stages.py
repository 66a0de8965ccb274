"""The core's stages as functions from references to a reference: load, one core call, save.

Nothing here is Prefect's: ``tasks.prefect_tasks`` wraps these, and tests call them as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import date
from typing import Any

import numpy as np

from rectifier_core.affinity import AffinityConfig, find_neighbours
from rectifier_core.anchors import AnchorsConfig, train_anchors
from rectifier_core.numerics import Progress, row_blocks, silent
from rectifier_core.projection import ProjectionConfig, fit_projection
from rectifier_core.quality import QualityConfig, judge_quality, measure_modality
from rectifier_core.records import Affinity, Anchors, BalanceOutcome, Float32, Interactions, Plan, Projection, QualityReport, Status, Trust
from rectifier_core.rectify import RectifyConfig, decide_status, rectify_rows
from rectifier_core.sinkhorn import SinkhornConfig, balance
from rectifier_core.trust import TrustConfig, judge_trust
from tasks.drift import drift_since_last
from tasks.publish_config import PublishConfig
from tasks.references import Ref, StageStore, StageWriter
from tasks.report_inputs import ModalityRefs
from tasks.saved_records import load_record, save_record


def load_interactions(source: Ref) -> Interactions:
    """The positive pairs of a source output."""
    meta = source.meta
    users, items = (np.ascontiguousarray(source.array(name)) for name in ("users", "items"))
    return Interactions(users=users, items=items, times=None, num_users=meta["num_users"], num_items=meta["num_items"])


def anchors_stage(
    source: Ref,
    config: AnchorsConfig,
    seed: int,
    store: StageStore,
    *,
    previous: Float32 | None = None,
    previous_run: str | None = None,
    progress: Progress = silent,
) -> Ref:
    """Anchors of the interactions; ``previous`` are the ego rows of the run ``previous_run``, to start warm from."""

    def build(writer: StageWriter) -> None:
        save_record(writer, train_anchors(load_interactions(source), config, seed=seed, previous=previous, progress=progress))

    return store.once("anchors", (source, config, seed, previous_run), build)


def projection_stage(
    modality: str, source: Ref, anchors: Ref, config: ProjectionConfig, seed: int, store: StageStore, *, progress: Progress = silent
) -> Ref:
    """One modality carried into anchor space."""

    def build(writer: StageWriter) -> None:
        features, present = source.array(f"features-{modality}"), np.asarray(source.array(f"present-{modality}"))
        anchor = load_record(anchors, Anchors)
        save_record(writer, fit_projection(modality, features, present, anchor, config, seed=seed, progress=progress))

    return store.once(f"projection/{modality}", (source, anchors, config, seed), build)


def affinity_stage(
    modality: str, projection: Ref, config: AffinityConfig, seed: int, store: StageStore, *, progress: Progress = silent
) -> Ref:
    """The best donors of every item."""

    def build(writer: StageWriter) -> None:
        save_record(writer, find_neighbours(load_record(projection, Projection), config, seed=seed, progress=progress))

    return store.once(f"affinity/{modality}", (projection, config, seed), build)


def plan_stage(modality: str, affinity: Ref, config: SinkhornConfig, store: StageStore, *, progress: Progress = silent) -> Ref:
    """The balanced correspondence."""

    def build(writer: StageWriter) -> None:
        save_record(writer, balance(load_record(affinity, Affinity), config, progress=progress))

    return store.once(f"plan/{modality}", (affinity, config), build)


def trust_stage(modality: str, projection: Ref, config: TrustConfig, seed: int, store: StageStore) -> Ref:
    """How far each feature can be trusted to be its item's own."""

    def build(writer: StageWriter) -> None:
        save_record(writer, judge_trust(load_record(projection, Projection), config, seed=seed))

    return store.once(f"trust/{modality}", (projection, config, seed), build)


def rectified_stage(
    source: Ref, matched: Mapping[str, ModalityRefs], config: RectifyConfig, store: StageStore, *, progress: Progress = silent
) -> Ref:
    """Every modality rectified, written block by block: no copy of the features is held."""

    def build(writer: StageWriter) -> None:
        for modality, refs in matched.items():
            features = source.array(f"features-{modality}")
            plan, trust = load_record(refs.plan, Plan), load_record(refs.trust, Trust)
            status = decide_status(np.asarray(source.array(f"present-{modality}")), plan, trust, config)
            out = writer.memmap(f"features-{modality}", features.shape, np.float32)
            for rows in row_blocks(len(features), config.block_rows):
                out[rows] = rectify_rows(features, rows, status, plan, config)
                progress(f"rectifying {modality}", rows.stop, len(features))
            out.flush()
            writer.array(f"status-{modality}", status)
            writer.array(f"trust-{modality}", trust.probability)
        writer.meta({"features": list(matched)})

    return store.once("rectified", (source, dict(matched), config), build)


def judge_stage(
    source: Ref, matched: Mapping[str, ModalityRefs], rectified: Ref, config: QualityConfig, publish: PublishConfig, as_of: date
) -> QualityReport:
    """The quality gate over what is about to be published."""
    counts, drifts = source.meta["counts"], drift_since_last(publish, as_of, source, rectified)
    measures = {}
    for modality, refs in matched.items():
        plan, status = load_record(refs.plan, Plan), np.asarray(rectified.array(f"status-{modality}"))
        acted = bool(np.isin(status, (Status.RECTIFIED.code, Status.IMPUTED.code)).any())
        judged = acted and plan.outcome is not BalanceOutcome.ROW_ONLY
        measures[modality] = measure_modality(
            source.array(f"features-{modality}"),
            rectified.array(f"features-{modality}"),
            status,
            config,
            marginal_error=plan.column_error if judged else None,
            drift=drifts[modality],
        )
    return judge_quality(
        rows_read=counts["catalog_rows_read"],
        rows_out=len(rectified.array(f"status-{next(iter(matched))}")),
        rows_quarantined=sum(counts["items_quarantined"].values()),
        modalities=measures,
        config=config,
    )


def modality_facts(source: Ref, matched: Mapping[str, ModalityRefs], rectified: Ref) -> dict[str, dict[str, Any]]:
    """Per modality what was found and done, as JSON: the rate with its interval, and how many items have each status."""
    facts = {}
    for modality, refs in matched.items():
        trust, codes = refs.trust.meta, np.bincount(np.asarray(rectified.array(f"status-{modality}")), minlength=len(Status))
        facts[modality] = {
            **{name: trust[name] for name in ("mismatch_rate", "low", "high", "identifiable", "reason", "separation")},
            **{status.value: int(codes[status.code]) for status in Status},
            "width": source.meta["modalities"][modality]["width"],
            "outcome": refs.plan.meta["outcome"],
            "recall": refs.affinity.meta["recall"],
        }
    return facts


def quality_values(quality: QualityReport) -> list[dict[str, Any]]:
    """The gate's checks as JSON."""
    return [asdict(check) for check in quality.checks]
