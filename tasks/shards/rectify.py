"""Rectified rows as shards: each reads its rows, their plan and their donors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rectifier_core.base.arrays import Float32
from rectifier_core.base.numerics import Progress, row_blocks
from rectifier_core.base.records import Plan, Trust
from rectifier_core.rectify.config import RectifyConfig
from rectifier_core.rectify.rectify import rectify_rows
from tasks.store.runner import Arrays, Runner, Shared, row_shards
from tasks.store.saved_records import open_record
from tasks.store.stage_outputs import ModalityRefs


@dataclass(frozen=True, slots=True, kw_only=True)
class RectifyShard:
    """Items ``first`` to ``last`` of one modality. ``shared`` holds the ``status`` of all items."""

    modality: str
    outputs: ModalityRefs
    shared: Shared
    config: RectifyConfig
    first: int
    last: int


def rectify_shard(shard: RectifyShard) -> Arrays:
    """Rectify the shard's rows."""
    features, status = shard.outputs.features.array(f"features-{shard.modality}"), shard.shared["status"]
    plan, trust = open_record(shard.outputs.plan, Plan), open_record(shard.outputs.trust, Trust)
    rectified = np.empty((shard.last - shard.first, features.shape[1]), np.float32)
    for block in row_blocks(len(rectified), shard.config.block_rows):
        rows = slice(shard.first + block.start, shard.first + block.stop)
        rectified[block] = rectify_rows(features, rows, status, plan, trust, shard.config)
    return {"features": rectified}


def write_rectified(
    out: Float32,
    modality: str,
    refs: ModalityRefs,
    status: NDArray[np.int8],
    config: RectifyConfig,
    runner: Runner,
    progress: Progress,
) -> None:
    """Fill ``out`` [I, D] with the rectified rows, shard by shard."""
    spans = row_shards(len(out), runner.shard_rows)
    with runner.open_work(f"rectify/{modality}") as work:
        shared = work.share(status=status)
        shards = [
            RectifyShard(
                modality=modality, outputs=refs, shared=shared, config=config, first=span.start, last=span.stop
            )
            for span in spans
        ]
        for span, arrays in zip(spans, work.map(rectify_shard, shards), strict=True):
            out[span] = arrays["features"]
            progress(f"rectifying {modality}", span.stop, len(out))
