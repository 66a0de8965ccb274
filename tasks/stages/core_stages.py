"""The core's stages as functions from references to a reference: load, one core call, save.

Nothing here is Prefect's: ``flows.steps`` wraps these, and tests call them as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from datetime import date
from functools import partial
from typing import Any

import numpy as np
import polars as pl
import torch

from rectifier_core.affinity.affinity import AffinityConfig, find_neighbours
from rectifier_core.anchors.anchors import AnchorsConfig, train_anchors
from rectifier_core.base.arrays import Bool, Float32, Int32
from rectifier_core.base.devices import CPU
from rectifier_core.base.numerics import Progress, silent
from rectifier_core.base.published_records import QualityReport, Status
from rectifier_core.base.records import Anchors, BalanceOutcome, Copies, Interactions, Plan, Projection, Trust
from rectifier_core.copies.copies import CopiesConfig, find_copies
from rectifier_core.copies.near_copies import sketch_rows
from rectifier_core.projection.cross_modal import WitnessConfig, place_by_features, principal_axes
from rectifier_core.projection.projection import ProjectionConfig, fit_projection
from rectifier_core.quality import QualityConfig, ShadowMeasure, judge_quality, measure_modality
from rectifier_core.sequences.segments import SegmentsConfig
from rectifier_core.trust.trust import TrustConfig, judge_trust
from tasks.report.inputs import ModalityRefs
from tasks.shards.affinity import write_neighbours
from tasks.shards.projection import ShardedRows
from tasks.stages.drift import drift_since_last, last_published
from tasks.stages.sequences import segment_facts
from tasks.store.saved_records import load_record, save_axes, save_record, save_sketch
from tasks.store.store import Ref, StageStore, StageWriter
from tasks.table.config import PublishConfig
from tasks.table.embedding_models import EMBEDDING_MODEL, model_notes
from tasks.table.rate_jump import rate_jumps


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
    device: str = CPU,
    progress: Progress = silent,
) -> Ref:
    """Anchors of the interactions; ``previous`` are the ego rows of the run ``previous_run``, to start warm from."""

    def build(writer: StageWriter) -> None:
        pairs = load_interactions(source)
        save_record(
            writer, train_anchors(pairs, config, seed=seed, previous=previous, device=device, progress=progress)
        )

    return store.once("anchors", (source, config, seed, previous_run), build)


def copies_stage(
    modality: str,
    features: Ref,
    anchors: Ref,
    config: CopiesConfig,
    seed: int,
    store: StageStore,
    *,
    progress: Progress = silent,
) -> Ref:
    """Which features of one modality are copies of one another, and which of those are placeholders."""

    def build(writer: StageWriter) -> None:
        rows, present = features.array(f"features-{modality}"), np.asarray(features.array(f"present-{modality}"))
        anchor = load_record(anchors, Anchors)
        sketch = sketch_rows(rows, present, config.search, seed=seed, name=modality, progress=progress)
        found = find_copies(modality, rows, present, anchor, config, seed=seed, sketch=sketch, progress=progress)
        save_record(writer, found)
        save_sketch(writer, sketch)

    return store.once(f"copies/{modality}", (features, anchors, config, seed), build)


def telling(modality: str, features: Ref, copies: Ref) -> Bool:
    """Which items have a feature of this modality that says something of them: [I] bool, placeholders left out."""
    told: Bool = np.asarray(features.array(f"present-{modality}")) & ~load_record(copies, Copies).placeholder
    return told


def projection_stage(
    modality: str,
    features: Ref,
    copies: Ref,
    anchors: Ref,
    config: ProjectionConfig,
    seed: int,
    store: StageStore,
    *,
    onto: str | None = None,
    device: str = CPU,
    progress: Progress = silent,
) -> Ref:
    """One modality carried into anchor space, or into the space of the modality ``onto`` where ``anchors`` are its places."""

    def build(writer: StageWriter) -> None:
        rows, known = features.array(f"features-{modality}"), telling(modality, features, copies)
        with store.runner.open_work(name) as work:
            passes = ShardedRows(
                features=features,
                name=f"features-{modality}",
                work=work,
                device=CPU if store.runner.remote else device,
                block_rows=config.block_rows,
                shard_rows=store.runner.shard_rows,
            )
            anchor = load_record(anchors, Anchors)
            save_record(
                writer,
                fit_projection(modality, rows, known, anchor, config, seed=seed, passes=passes, progress=progress),
            )

    name = f"projection/{modality}" if onto is None else f"witness/{modality}-{onto}"
    return store.once(name, (features, copies, anchors, config, seed), build)


def places_stage(modality: str, features: Ref, copies: Ref, config: WitnessConfig, seed: int, store: StageStore) -> Ref:
    """Where one modality places each item, for others to be projected onto."""

    def build(writer: StageWriter) -> None:
        rows, known = features.array(f"features-{modality}"), telling(modality, features, copies)
        axes = principal_axes(modality, rows, known, config, seed=seed)
        save_record(writer, place_by_features(modality, rows, known, config, seed=seed, axes=axes))
        save_axes(writer, axes)

    return store.once(f"places/{modality}", (features, copies, config, seed), build)


def affinity_stage(
    modality: str,
    projection: Ref,
    config: AffinityConfig,
    seed: int,
    store: StageStore,
    *,
    memory: int | None = None,
    device: str = CPU,
    progress: Progress = silent,
) -> Ref:
    """The best donors of every item; ``memory`` bounds, in bytes, the index and the blocks in work."""

    def build(writer: StageWriter) -> None:
        if device == CPU or store.runner.remote:
            write_neighbours(writer, projection, config, store.runner, seed=seed, memory=memory, progress=progress)
            return
        record, threads = load_record(projection, Projection), torch.get_num_threads()
        given: dict[str, Any] = {"threads": threads, "memory": memory, "device": device}
        save_record(writer, find_neighbours(record, config, seed=seed, **given, progress=progress))

    return store.once(f"affinity/{modality}", (projection, config, seed), build)


def trust_stages(
    source: Ref,
    anchors: Ref,
    projections: Mapping[str, Ref],
    witnesses: Mapping[tuple[str, str], Ref],
    config: TrustConfig,
    seed: int,
    store: StageStore,
) -> dict[str, Ref]:
    """How far each feature can be trusted to be its item's own: an output a modality, all from one judgement."""
    judged: dict[str, Trust] = {}

    def build(modality: str, writer: StageWriter) -> None:
        if not judged:
            own = {m: load_record(ref, Projection) for m, ref in projections.items()}
            between = {pair: load_record(ref, Projection) for pair, ref in witnesses.items()}
            anchor = load_record(anchors, Anchors)
            judged.update(judge_trust(own, between, anchor, config, seed=seed, category=category_numbers(source)))
        save_record(writer, judged[modality])

    named = {f"{a}-{b}": ref for (a, b), ref in witnesses.items()}
    key = (source, anchors, dict(projections), named, config, seed)
    return {m: store.once(f"trust/{m}", (*key, m), partial(build, m)) for m in projections}


def category_numbers(source: Ref) -> Int32 | None:
    """Each item's category as a number [I], -1 for none; None where the catalog names no category column."""
    path = source.file("labels.parquet")
    if not path.exists() or "category" not in pl.scan_parquet(path).collect_schema().names():
        return None
    column = pl.scan_parquet(path).select(pl.col("category")).collect()["category"]
    return np.ascontiguousarray((column.rank("dense").cast(pl.Int64) - 1).fill_null(-1).to_numpy(), dtype=np.int32)


def judge_stage(
    source: Ref,
    matched: Mapping[str, ModalityRefs],
    rectified: Ref,
    config: QualityConfig,
    publish: PublishConfig,
    as_of: date,
    *,
    models: Mapping[str, str],
    shadow: ShadowMeasure | None = None,
) -> QualityReport:
    """The quality gate over what is about to be published, and over what the shadow evaluation says of it where there was one; ``models``
    are the embedding models by modality, where they are named."""
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
            config,
            marginal_error=plan.column_error if judged else None,
            drift=drifts[modality],
            rate_jump=jumps[modality],
        )
    report = judge_quality(
        rows_read=counts["catalog_rows_read"],
        rows_out=len(rectified.array(f"status-{next(iter(matched))}")),
        rows_quarantined=sum(counts["items_quarantined"].values()),
        modalities=measures,
        config=config,
        shadow=shadow,
    )
    drifted = [m for m, drift in drifts.items() if drift is not None and drift < config.min_drift_cosine]
    return report if last is None else replace(report, notes=model_notes(models, last.models, last.day, drifted))


RATE = ("mismatch_rate", "low", "high", "low_unlike", "high_unlike", "identifiable", "reason", "separation")


def modality_facts(
    source: Ref,
    matched: Mapping[str, ModalityRefs],
    rectified: Ref,
    segments: SegmentsConfig,
    models: Mapping[str, str],
) -> dict[str, dict[str, Any]]:
    """Per modality what was found and done, as JSON: the rate with its interval, how many items have each status, and the embedding model,
    null where ``models`` does not name it."""
    facts = {}
    for modality, refs in matched.items():
        codes = np.bincount(np.asarray(rectified.array(f"status-{modality}")), minlength=len(Status))
        copies = load_record(refs.copies, Copies)
        facts[modality] = {
            **{name: refs.trust.meta[name] for name in RATE},
            **{status.value: int(codes[status.code]) for status in Status},
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


def quality_values(quality: QualityReport) -> list[dict[str, Any]]:
    """The gate's checks as JSON."""
    return [asdict(check) for check in quality.checks]
