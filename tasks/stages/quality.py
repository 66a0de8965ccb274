"""Stage: quality gate, and the facts of a run as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from datetime import date
from typing import Any

import numpy as np

from rectifier_core.base.arrays import Float32
from rectifier_core.base.published_records import QualityReport, Status
from rectifier_core.base.records import BalanceOutcome, Copies, Plan
from rectifier_core.config import QualityConfig
from rectifier_core.quality import FAR, ShadowMeasure, check_quality, measure_modality
from rectifier_core.sequences.config import SegmentsConfig
from tasks.stages.drift import drift_since_last, last_published
from tasks.stages.sequences import segment_facts
from tasks.store.saved_records import load_record
from tasks.store.stage_outputs import ModalityRefs
from tasks.store.store import Ref
from tasks.table.config import PublishConfig
from tasks.table.embedding_models import EMBEDDING_MODEL, model_notes
from tasks.table.trend import rate_jumps

RATE = ("mismatch_rate", "low", "high", "low_unlike", "high_unlike", "identifiable", "reason", "separation")


def quality_stage(
    source: Ref,
    anchors: Ref,
    matched: Mapping[str, ModalityRefs],
    rectified: Ref,
    config: QualityConfig,
    publish: PublishConfig,
    as_of: date,
    *,
    models: Mapping[str, str],
    shadow: ShadowMeasure | None = None,
) -> QualityReport:
    """Check the rows that are about to be published, and the result of the shadow evaluation if there is one.

    ``models`` are the embedding models by modality, if the config names them.
    """
    counts, last = source.meta["counts"], last_published(publish, as_of)
    drifts = drift_since_last(last, source, rectified, models)
    jumps = rate_jumps(
        publish, as_of, {m: refs.trust.meta | {EMBEDDING_MODEL: models.get(m)} for m, refs in matched.items()}
    )
    measures = {}
    for modality, refs in matched.items():
        plan, status = load_record(refs.plan, Plan), np.asarray(rectified.array(f"status-{modality}"))
        acted = bool(np.isin(status, (Status.RECTIFIED.code, Status.IMPUTED.code)).any())
        judged = acted and plan.outcome is not BalanceOutcome.ROW_ONLY
        measures[modality] = measure_modality(
            refs.features.array(f"features-{modality}"),
            rectified.array(f"features-{modality}"),
            status,
            rectified.array(f"trust-{modality}"),
            np.asarray(rectified.array(f"moved-{modality}")),
            config,
            marginal_error=plan.column_error if judged else None,
            drift=drifts[modality],
            rate_jump=jumps[modality],
            rate_low=refs.trust.meta["low"],
        )
    report = check_quality(
        rows_read=counts["catalog_rows_read"],
        rows_out=len(rectified.array(f"status-{next(iter(matched))}")),
        rows_quarantined=sum(counts["items_quarantined"].values()),
        modalities=measures,
        config=config,
        shadow=shadow,
        unexplained=_unexplained(anchors, matched),
        whole_rows_low=_whole_rows_low(matched),
    )
    drifted = [m for m, drift in drifts.items() if drift is not None and drift < config.min_drift_cosine]
    return report if last is None else replace(report, notes=model_notes(models, last.models, last.day, drifted))


def _whole_rows_low(matched: Mapping[str, ModalityRefs]) -> float | None:
    """Return the largest lower end of the rates whose errors come with another modality's, None where there is none."""
    trusts = [refs.trust.meta for refs in matched.values()]
    return max((x["low"] for x in trusts if x["whole_rows"] and x["low"] is not None), default=None)


def _unexplained(anchors: Ref, matched: Mapping[str, ModalityRefs]) -> float | None:
    """Return the anchors' median reliability where no modality fits them, None where one does or too few items say so."""
    trained, trusts = np.asarray(anchors.array("trained")), [refs.trust.meta for refs in matched.values()]
    if any(x["identifiable"] or x["separation"] is None for x in trusts) or not trained.any():
        return None
    return float(np.median(anchors.array("reliability")[trained]))


def modality_facts(
    source: Ref,
    matched: Mapping[str, ModalityRefs],
    rectified: Ref,
    segments: SegmentsConfig,
    models: Mapping[str, str],
) -> dict[str, dict[str, Any]]:
    """Return the facts of each modality as JSON: its rate with interval, the items by status, and its embedding model or null."""
    facts = {}
    for modality, refs in matched.items():
        codes = np.bincount(np.asarray(rectified.array(f"status-{modality}")), minlength=len(Status))
        copies = load_record(refs.copies, Copies)
        facts[modality] = {
            **{name: refs.trust.meta[name] for name in RATE},
            **{status.value: int(codes[status.code]) for status in Status},
            "moved": count_moved(np.asarray(rectified.array(f"moved-{modality}"))),
            "judged": int((~np.isnan(refs.trust.array("probability"))).sum()),
            "placeholders": int(copies.placeholder.sum()),
            "placeholder_groups": int(copies.unlike.sum()),
            EMBEDDING_MODEL: models.get(modality),
            "width": source.meta["modalities"][modality]["width"],
            "outcome": refs.plan.meta["outcome"],
            "recall": refs.affinity.meta["recall"],
        }
        if refs.segments is not None:
            facts[modality]["sequence"] = segment_facts(modality, source, refs.segments, segments)
    return facts


def count_moved(moved: Float32) -> dict[str, int]:
    """Return how many features moved clearly and how many slightly, as JSON: by more than .1, and by more than .01."""
    return {"more_than_0.1": int((moved > FAR).sum()), "more_than_0.01": int((moved > 0.01).sum())}


def quality_values(quality: QualityReport) -> list[dict[str, Any]]:
    """Return the checks as JSON."""
    return [asdict(check) for check in quality.checks]
