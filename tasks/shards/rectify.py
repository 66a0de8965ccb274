"""Rectified rows as shards: each reads its rows, their plan and their donors, wherever these lie."""

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
from tasks.store.store import Ref


@dataclass(frozen=True, slots=True, kw_only=True)
class RectifyShard:
    """Items ``first`` to ``last`` of one modality; ``decided`` holds their ``status``."""

    modality: str
    features: Ref
    plan: Ref
    trust: Ref
    decided: Shared
    config: RectifyConfig
    first: int
    last: int

    @classmethod
    def of(cls, modality: str, refs: ModalityRefs, decided: Shared, config: RectifyConfig, rows: slice) -> RectifyShard:
        """The shard of some rows of a modality."""
        return cls(
            modality=modality,
            features=refs.features,
            plan=refs.plan,
            trust=refs.trust,
            decided=decided,
            config=config,
            first=rows.start,
            last=rows.stop,
        )


def rectify_shard(shard: RectifyShard) -> Arrays:
    """The shard's rows, mended."""
    features, status = shard.features.array(f"features-{shard.modality}"), shard.decided["status"]
    plan, trust = open_record(shard.plan, Plan), open_record(shard.trust, Trust)
    mended = np.empty((shard.last - shard.first, features.shape[1]), np.float32)
    for block in row_blocks(len(mended), shard.config.block_rows):
        rows = slice(shard.first + block.start, shard.first + block.stop)
        mended[block] = rectify_rows(features, rows, status, plan, trust, shard.config)
    return {"features": mended}


def write_rectified(
    out: Float32,
    modality: str,
    refs: ModalityRefs,
    status: NDArray[np.int8],
    config: RectifyConfig,
    runner: Runner,
    progress: Progress,
) -> None:
    """Fill ``out`` [I, D] with the rectified rows, as shards give them."""
    spans = row_shards(len(out), runner.shard_rows)
    with runner.open_work(f"rectify/{modality}") as work:
        decided = work.share(status=status)
        shards = [RectifyShard.of(modality, refs, decided, config, x) for x in spans]
        for rows, found in zip(spans, work.map(rectify_shard, shards), strict=True):
            out[rows] = found["features"]
            progress(f"rectifying {modality}", rows.stop, len(out))
