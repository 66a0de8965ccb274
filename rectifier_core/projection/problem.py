"""What a fit of the projection is asked and what it gives, and the pieces that both solvers share; a leaf of the projection stage."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rectifier_core.base.arrays import Bool, Float32, Int32, Int64
from rectifier_core.base.numerics import Progress, unit_rows
from rectifier_core.base.records import Anchors
from rectifier_core.projection.config import ProjectionConfig
from rectifier_core.projection.crossfit import FoldMaps
from rectifier_core.projection.row_passes import RowPasses


@dataclass(frozen=True, slots=True)
class Problem:
    """One fit's inputs: ``folds`` [len(pairs)] names the fold of each pair; ``passes`` are over ``features``, wherever they are made."""

    modality: str
    features: Float32
    pairs: Int64
    folds: Int32
    anchors: Anchors
    config: ProjectionConfig
    keep_ratio: float
    seed: int
    progress: Progress
    passes: RowPasses


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """The map fitted on all kept pairs, those of the folds, and the pairs as these carry them, at their own length."""

    weight: Float32
    feature_mean: Float32
    target_mean: Float32
    maps: FoldMaps
    projected: Float32
    kept: Bool
    ridge: float | None


def keep_best(score: Float32, share: float) -> Bool:
    """The ``share`` of the highest scores, at least one."""
    kept = np.zeros(len(score), np.bool_)
    kept[np.argsort(-score, kind="stable")[: max(1, round(share * len(score)))]] = True
    return kept


def aligned(projected: Float32, targets: Float32, kept: Bool) -> Float32:
    """Cosine of each pair, targets centred on those kept."""
    score: Float32 = np.einsum("ij,ij->i", unit_rows(projected), unit_rows(targets - targets[kept].mean(axis=0)))
    return score
