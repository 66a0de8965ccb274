"""A projection after few features changed: the maps of the previous run project the changed features, and every pair is scored again."""

from __future__ import annotations

import numpy as np

from rectifier_core.base.arrays import Bool, Float32
from rectifier_core.base.numerics import row_lengths, unit_rows
from rectifier_core.base.records import Anchors, Projection
from rectifier_core.incremental.row_mapping import RowMapping
from rectifier_core.projection.config import ProjectionConfig
from rectifier_core.projection.crossfit import FoldMaps, out_of_fold, project
from rectifier_core.projection.projection import score_pairs


def update_projection(
    previous: Projection,
    mapping: RowMapping,
    features: Float32,
    present: Bool,
    anchors: Anchors,
    config: ProjectionConfig,
    *,
    seed: int,
) -> Projection:
    """``features`` [I, D] projected by the maps of ``previous``; ``anchors`` must lie in the same space as the previous anchors.

    A changed feature goes through the map of its item's fold, as if it had been there when the maps were fitted. A projected row is copied
    only where it went through the same map. ``kept`` says which of the previous items were selected when the maps were fitted.
    """
    pairs: Bool = present & anchors.trained
    fold = np.where(pairs, mapping.fold, -1).astype(np.int32)
    projected = mapping.rows(previous.projected, 0)
    length = mapping.rows(previous.length, 0)
    unchanged: Bool = mapping.same & present & (mapping.rows(previous.fold, -2) == fold) & projected.any(axis=1)
    projected[~unchanged], length[~unchanged] = 0, 0
    maps = FoldMaps(
        weights=previous.fold_weights, feature_means=previous.fold_means, target_means=np.zeros((0, 0), np.float32)
    )
    fitted, rest = np.flatnonzero(pairs & ~unchanged), np.flatnonzero(present & ~pairs & ~unchanged)
    raw = out_of_fold(features, fitted, fold[fitted], maps, config.block_rows)
    projected[fitted], length[fitted] = unit_rows(raw), row_lengths(raw)
    raw = project(features, rest, previous.weight, previous.feature_mean, config.block_rows)
    projected[rest], length[rest] = unit_rows(raw), row_lengths(raw)
    kept = np.asarray(mapping.rows(previous.kept, True)) & pairs
    return score_pairs(previous, projected, length, fold, kept, anchors, seed=seed)
