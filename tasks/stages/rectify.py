"""Stage: rectify. Every night rectifies every row again, because every night moves the donors."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from rectifier_core.base.arrays import Float32
from rectifier_core.base.numerics import Progress, row_blocks, silent
from rectifier_core.base.records import Copies, Plan, Trust
from rectifier_core.base.threads import in_threads
from rectifier_core.rectify.config import RectifyConfig
from rectifier_core.rectify.rectify import decide_status, rectify_rows
from rectifier_core.sequences.config import SegmentsConfig
from tasks.shards.rectify import write_rectified
from tasks.stages.sequences import write_mended
from tasks.store.saved_records import load_record
from tasks.store.stage_outputs import ModalityRefs
from tasks.store.store import Ref, StageStore, StageWriter


def rectify_stage(
    source: Ref,
    matched: Mapping[str, ModalityRefs],
    config: RectifyConfig,
    segments: SegmentsConfig,
    store: StageStore,
    *,
    progress: Progress = silent,
) -> Ref:
    """Rectify every modality and write it block by block."""

    def build(writer: StageWriter) -> None:
        for modality, refs in matched.items():
            plan, trust = load_record(refs.plan, Plan), load_record(refs.trust, Trust)
            present = np.asarray(refs.features.array(f"present-{modality}"))
            status = decide_status(present, plan, trust, config, load_record(refs.copies, Copies).placeholder)
            features = refs.features.array(f"features-{modality}")
            out = writer.memmap(f"features-{modality}", features.shape, np.float32)
            if store.runner.remote:
                write_rectified(out, modality, refs, status, config, store.runner, progress)
            else:
                _write_rectified(out, features, status, plan, trust, config, progress)
            writer.array(f"features-{modality}", out)
            writer.array(f"status-{modality}", status)
            writer.array(f"trust-{modality}", trust.probability)
            if refs.segments is not None:
                write_mended(
                    writer,
                    modality,
                    source,
                    refs.segments,
                    segments,
                    trust=trust.probability,
                    features=out,
                    status=status,
                    progress=progress,
                )
        sequences = [m for m, refs in matched.items() if refs.segments is not None]
        writer.meta({"features": list(matched), "sequences": sequences})

    return store.once("rectify", (source, dict(matched), config, segments), build)


def _write_rectified(
    out: Float32,
    features: Float32,
    status: NDArray[np.int8],
    plan: Plan,
    trust: Trust,
    config: RectifyConfig,
    progress: Progress,
) -> None:
    def work(rows: slice) -> None:
        out[rows] = rectify_rows(features, rows, status, plan, trust, config)

    for rows in in_threads(work, list(row_blocks(len(out), config.block_rows)), torch.get_num_threads()):
        progress(f"rectifying {trust.modality}", rows.stop, len(out))
