"""What a fit of the projection is asked and what it gives, and the pieces that both solvers share; a leaf of the projection stage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from rectifier_core.base.arrays import Bool, Float32, Int32, Int64
from rectifier_core.base.numerics import Progress, unit_rows
from rectifier_core.base.records import Anchors
from rectifier_core.projection.crossfit import FoldMaps
from rectifier_core.projection.row_passes import RowPasses


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectionConfig:
    """Hyperparameters of the projection.

    ``solver`` "crossfit_ridge" judges every pair by a map that was fitted without it; "minibatch" is the paper's loop, in sample.
    ``keep_ratio`` is the share of pairs that selection keeps; "auto" takes 1 - (rate + 0.05) from the estimated mismatch rate, fitted and
    estimated anew until it rests. It is reached after ``rounds`` fits (``crossfit_ridge``) or ``ramp`` epochs
    (``minibatch``). ``folds``, ``rounds`` and ``ridge_grid`` belong to ``crossfit_ridge``; the grid is in units of the mean eigenvalue of
    the centred Gram matrix. ``epochs``, ``ramp``, ``batch_size``, ``learning_rate`` and ``weight_decay`` belong to ``minibatch``.
    """

    solver: Literal["crossfit_ridge", "minibatch"] = "crossfit_ridge"
    keep_ratio: float | Literal["auto"] = 1.0
    folds: int = 5
    rounds: int = 2
    ridge_grid: tuple[float, ...] = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
    epochs: int = 30
    ramp: int = 10
    batch_size: int = 128
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    block_rows: int = 8192

    def __post_init__(self) -> None:
        if self.keep_ratio != "auto" and not (isinstance(self.keep_ratio, float | int) and 0 < self.keep_ratio <= 1):
            raise ValueError(f'keep_ratio: wanted a share in (0, 1] or "auto", got {self.keep_ratio}')
        for name, least in (
            ("folds", 2),
            ("rounds", 1),
            ("epochs", 1),
            ("ramp", 1),
            ("batch_size", 1),
            ("block_rows", 1),
        ):
            if getattr(self, name) < least:
                raise ValueError(f"{name}: wanted at least {least}, got {getattr(self, name)}")
        if not self.ridge_grid or min(self.ridge_grid) <= 0:
            raise ValueError(f"ridge_grid: wanted positive strengths, got {self.ridge_grid}")


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
