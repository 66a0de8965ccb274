"""Rectified rows as shards: each reads its rows, their plan and their donors, wherever these lie."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rectifier_core.numerics import row_blocks
from rectifier_core.records import Plan, Trust
from rectifier_core.rectify import RectifyConfig, rectify_rows
from tasks.references import Ref
from tasks.report_inputs import ModalityRefs
from tasks.saved_records import open_record
from tasks.shard_runner import Arrays, Shared


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
