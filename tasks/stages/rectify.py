"""Stage: rectify. Every night rectifies every row again, because every night moves the donors."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from rectifier_core.base.arrays import Bool, Float32
from rectifier_core.base.numerics import Progress, row_blocks, silent
from rectifier_core.base.records import Copies, Plan, Projection, Trust
from rectifier_core.base.threads import in_threads
from rectifier_core.rectify.config import RectifyConfig
from rectifier_core.rectify.rectify import Mixing, RectifiedRows, prepare_mixing, rectify_rows
from rectifier_core.sequences.config import SegmentsConfig
from tasks.shards.rectify import open_views, write_rectified
from tasks.stages.sequences import write_mended
from tasks.store.saved_records import load_record
from tasks.store.stage_outputs import ModalityRefs
from tasks.store.store import Ref, StageStore, StageWriter


def rectify_stage(
    source: Ref,
    matched: Mapping[str, ModalityRefs],
    config: RectifyConfig,
    segments: SegmentsConfig,
    seed: int,
    store: StageStore,
    *,
    progress: Progress = silent,
) -> Ref:
    """Rectify every modality and write it block by block."""

    def build(writer: StageWriter) -> None:
        for modality, refs in matched.items():
            present = np.asarray(refs.features.array(f"present-{modality}"))
            features = refs.features.array(f"features-{modality}")
            status, mixing = prepare_mixing(
                features,
                present,
                load_record(refs.copies, Copies).placeholder,
                load_record(refs.projection, Projection).fold,
                open_views(modality, matched),
                load_record(refs.plan, Plan),
                load_record(refs.trust, Trust),
                config,
                seed=seed,
            )
            rows = writer.memmap(f"features-{modality}", features.shape, np.float32)
            out = RectifiedRows(rows, status, np.empty(len(present), np.float32))
            if store.runner.remote:
                write_rectified(out, modality, matched, mixing, store.runner, progress)
            else:
                _write_rectified(out, features, present, mixing, progress)
            writer.array(f"features-{modality}", out.features)
            writer.array(f"status-{modality}", out.status)
            writer.array(f"trust-{modality}", mixing.trust.probability)
            writer.array(f"moved-{modality}", out.moved)
            if refs.segments is not None:
                write_mended(
                    writer,
                    modality,
                    source,
                    refs.segments,
                    segments,
                    trust=mixing.trust.probability,
                    features=out.features,
                    status=out.status,
                    progress=progress,
                )
        sequences = [m for m, refs in matched.items() if refs.segments is not None]
        writer.meta({"features": list(matched), "sequences": sequences})

    return store.once("rectify", (source, dict(matched), config, segments, seed), build)


def _write_rectified(out: RectifiedRows, features: Float32, present: Bool, mixing: Mixing, progress: Progress) -> None:
    blocks = list(row_blocks(len(present), mixing.config.block_rows))

    def work(rows: slice) -> None:
        out.put(rows, rectify_rows(features, present, rows, out.status, mixing))

    for rows in in_threads(work, blocks, torch.get_num_threads()):
        progress(f"rectifying {mixing.trust.modality}", rows.stop, len(present))
