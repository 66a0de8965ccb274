"""Inputs and outputs of a projection fit, and the helpers of both solvers."""

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
    """Inputs of one fit. ``folds`` [len(pairs)] is the fold of each pair; ``passes`` reads the rows of ``features``."""

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
    """The map of all kept pairs, the maps of the folds, and the pairs projected by these, not normalised."""

    weight: Float32
    feature_mean: Float32
    target_mean: Float32
    maps: FoldMaps
    projected: Float32
    kept: Bool
    ridge: float | None


def keep_best(score: Float32, share: float) -> Bool:
    """Return which scores are among the ``share`` of the highest, at least one."""
    kept = np.zeros(len(score), np.bool_)
    kept[np.argsort(-score, kind="stable")[: max(1, round(share * len(score)))]] = True
    return kept


def aligned(projected: Float32, targets: Float32, kept: Bool) -> Float32:
    """Return the cosine of each pair, after the targets are centred on the kept ones."""
    score: Float32 = np.einsum("ij,ij->i", unit_rows(projected), unit_rows(targets - targets[kept].mean(axis=0)))
    return score
