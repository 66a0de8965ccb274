"""A projection after few features changed: the earlier run's maps kept, what changed projected by them, every pair scored anew."""

from __future__ import annotations

import numpy as np

from rectifier_core.base.arrays import Bool, Float32
from rectifier_core.base.numerics import unit_rows
from rectifier_core.base.records import Anchors, Projection
from rectifier_core.incremental.carried import Carried
from rectifier_core.projection.config import ProjectionConfig
from rectifier_core.projection.crossfit import FoldMaps, out_of_fold, project
from rectifier_core.projection.projection import score_pairs


def update_projection(
    before: Projection,
    carried: Carried,
    features: Float32,
    present: Bool,
    anchors: Anchors,
    config: ProjectionConfig,
    *,
    seed: int,
) -> Projection:
    """``features`` [I, D] carried by the maps of ``before`` into the space of ``anchors``, which has to be that of its own.

    A feature that is new goes through the map of its item's fold, as if it had been there when the maps were fitted; a row is taken as it
    was only where it went through the same map. ``kept`` says of the earlier items what was selected when the maps were fitted.
    """
    pairs: Bool = present & anchors.trained
    fold = np.where(pairs, carried.fold, -1).astype(np.int32)
    projected = carried.rows(before.projected, 0)
    length = carried.rows(before.length, 0)
    unchanged: Bool = carried.same & present & (carried.rows(before.fold, -2) == fold) & projected.any(axis=1)
    projected[~unchanged], length[~unchanged] = 0, 0
    maps = FoldMaps(
        weights=before.fold_weights, feature_means=before.fold_means, target_means=np.zeros((0, 0), np.float32)
    )
    fitted, rest = np.flatnonzero(pairs & ~unchanged), np.flatnonzero(present & ~pairs & ~unchanged)
    raw = out_of_fold(features, fitted, fold[fitted], maps, config.block_rows)
    projected[fitted], length[fitted] = unit_rows(raw), np.linalg.norm(raw, axis=1)
    raw = project(features, rest, before.weight, before.feature_mean, config.block_rows)
    projected[rest], length[rest] = unit_rows(raw), np.linalg.norm(raw, axis=1)
    kept = np.asarray(carried.rows(before.kept, True)) & pairs
    return score_pairs(before, projected, length, fold, kept, anchors, seed=seed)
