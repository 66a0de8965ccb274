"""Stage: trust, how likely each feature is its item's own."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np
import polars as pl

from rectifier_core.base.arrays import Int32
from rectifier_core.base.records import Anchors, Projection, Trust
from rectifier_core.trust.config import TrustConfig
from rectifier_core.trust.trust import estimate_trust
from tasks.store.saved_records import load_record, save_record
from tasks.store.store import Ref, StageStore, StageWriter


def trust_stages(
    source: Ref,
    anchors: Ref,
    projections: Mapping[str, Ref],
    cross_modal: Mapping[tuple[str, str], Ref],
    config: TrustConfig,
    seed: int,
    store: StageStore,
) -> dict[str, Ref]:
    """Estimate trust in all modalities at once. Each modality gets an output of its own."""
    trusts: dict[str, Trust] = {}

    def build(modality: str, writer: StageWriter) -> None:
        if not trusts:
            own = {m: load_record(ref, Projection) for m, ref in projections.items()}
            between = {pair: load_record(ref, Projection) for pair, ref in cross_modal.items()}
            anchor = load_record(anchors, Anchors)
            trusts.update(estimate_trust(own, between, anchor, config, seed=seed, category=category_numbers(source)))
        save_record(writer, trusts[modality])

    named = {f"{a}-{b}": ref for (a, b), ref in cross_modal.items()}
    inputs = (source, anchors, dict(projections), named, config, seed)
    return {m: store.once(f"trust/{m}", (*inputs, m), partial(build, m)) for m in projections}


def category_numbers(source: Ref) -> Int32 | None:
    """Return each item's category as a number [I], -1 for none; None if the catalog has no category column."""
    path = source.file("labels.parquet")
    if not path.exists() or "category" not in pl.scan_parquet(path).collect_schema().names():
        return None
    column = pl.scan_parquet(path).select(pl.col("category")).collect()["category"]
    return np.ascontiguousarray((column.rank("dense").cast(pl.Int64) - 1).fill_null(-1).to_numpy(), dtype=np.int32)
