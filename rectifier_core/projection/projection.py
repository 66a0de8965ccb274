"""Stage: projection, one linear map per modality from feature space to anchor space, fitted on the pairs that look matched.

Source: "Towards Trustworthy Multimodal Recommendation", arXiv 2602.00730, projection with small-loss selection; the ramp of the kept
share is Co-teaching's (Han et al., NeurIPS 2018, section 3). Its rho means "drop eta + 0.05" in the only reading that fits its numbers, so
``keep_ratio = 1 - (eta + 0.05)`` here; 1.0 is the ablation "no selection".

Two solvers:
- ``minibatch``: the paper's. Adam on the cosine loss, small-loss selection inside each mini-batch. Scores are in-sample.
- ``crossfit_ridge``: ridge regression out of fold, selection on the out-of-fold score.

Differs from the paper (``crossfit_ridge`` only):
- Features and anchors are centred, and each item's score comes from a map fitted without that item: in sample, a wide map learns
  mismatched pairs by heart and hides them.
- The loss is squared error with a ridge penalty, whose strength maximises the out-of-fold alignment over a grid; no truth is asked.
- Selection is over all items at once, not inside a mini-batch, and made anew for every fold without that fold. It is off by default: with
  scores out of fold and a heavy ridge it gains nothing at 20 % swapped (``benchmarks/results/detection.md``).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from rectifier_core.base.arrays import Bool, Float32, Int32
from rectifier_core.base.devices import CPU
from rectifier_core.base.numerics import Progress, silent, unit_rows
from rectifier_core.base.records import Anchors, Projection
from rectifier_core.base.seeding import generator
from rectifier_core.projection.config import ProjectionConfig
from rectifier_core.projection.crossfit import item_folds
from rectifier_core.projection.minibatch_fit import fit_minibatch
from rectifier_core.projection.problem import Fitted, Problem
from rectifier_core.projection.ridge_fit import fit_ridge
from rectifier_core.projection.row_passes import HeldRows, RowPasses
from rectifier_core.trust.likelihood_ratio import re_pairings
from rectifier_core.trust.mixture import fit_mixture

__all__ = ["ProjectionConfig", "fit_projection", "score_pairs"]

LEAST_NULL = 20_000
"""Re-paired scores at least, so that the null's tails are known well below one in a hundred."""
MOST_REFITS, AT_REST = 5, 0.01
"""``keep_ratio = "auto"`` stops when the ratio moves by less than this, or after so many fits."""


def fit_projection(
    modality: str,
    features: Float32,
    present: Bool,
    anchors: Anchors,
    config: ProjectionConfig,
    *,
    seed: int,
    device: str = CPU,
    passes: RowPasses | None = None,
    progress: Progress = silent,
) -> Projection:
    """Fit the map of one modality and score every item that has both a feature and an anchor.

    ``features`` [I, D] float32 may be a memory map, read by blocks and never copied whole; ``present`` [I] says which rows count.
    With fewer pairs than folds nothing can be fitted out of fold: the projection is zero and every alignment NaN. ``device`` sums the Gram
    matrices of ``crossfit_ridge``, which are most of its work where features are wide; ``passes`` over the features may be made elsewhere,
    and then where they say.
    """
    pairs = np.flatnonzero(present & anchors.trained)
    if len(pairs) < max(2 * config.folds, 10):
        return _nothing(modality, features, anchors, config)
    folds = item_folds(len(present), config.folds, seed)
    keep_ratio = 1.0 if config.keep_ratio == "auto" else config.keep_ratio
    passes = passes or HeldRows(features, config.block_rows, device)
    for _ in range(MOST_REFITS if config.keep_ratio == "auto" else 1):
        problem = Problem(modality, features, pairs, folds[pairs], anchors, config, keep_ratio, seed, progress, passes)
        fitted = fit_ridge(problem) if config.solver == "crossfit_ridge" else fit_minibatch(problem)
        found = _scored(problem, fitted, present)
        wanted = _following_ratio(found, seed) if config.keep_ratio == "auto" else keep_ratio
        if abs(wanted - keep_ratio) < AT_REST:
            break
        keep_ratio = wanted
    return found


def _scored(problem: Problem, fitted: Fitted, present: Bool) -> Projection:
    """The record of a fit: every item with a feature projected, every pair scored."""
    modality, pairs, anchors = problem.modality, problem.pairs, problem.anchors
    rest = np.flatnonzero(present & ~anchors.trained)
    raw = np.zeros(anchors.items.shape, np.float32)
    raw[pairs] = fitted.projected
    raw[rest] = problem.passes.project(rest, fitted.weight, fitted.feature_mean)
    kept, fold = np.zeros(len(raw), np.bool_), np.full(len(raw), -1, np.int32)
    kept[pairs], fold[pairs] = fitted.kept, problem.folds
    nothing = _nothing(modality, problem.features, anchors, problem.config)
    maps = replace(
        nothing,
        weight=fitted.weight,
        feature_mean=fitted.feature_mean,
        target_mean=fitted.target_mean,
        fold_weights=fitted.maps.weights,
        fold_means=fitted.maps.feature_means,
        ridge=fitted.ridge,
    )
    return score_pairs(
        maps, unit_rows(raw), np.linalg.norm(raw, axis=1).astype(np.float32), fold, kept, anchors, seed=problem.seed
    )


def score_pairs(
    maps: Projection, projected: Float32, length: Float32, fold: Int32, kept: Bool, anchors: Anchors, *, seed: int
) -> Projection:
    """The record of the unit rows ``projected`` [I, A] by ``maps``, every pair scored, and wrong pairs drawn and scored likewise.

    ``length`` [I] is that of the rows before they were made unit ones, ``fold`` [I] the fold of each pair, -1 for items that are none.
    """
    pairs = np.flatnonzero(fold >= 0)
    target = unit_rows(np.asarray(anchors.items - maps.target_mean, dtype=np.float32))
    target[~anchors.trained] = 0
    alignment = np.full(len(projected), np.nan, np.float32)
    alignment[pairs] = np.einsum("ij,ij->i", projected[pairs], target[pairs])
    moved, put_on = re_pairings(fold[pairs], generator(seed, "projection", maps.modality, "null"), least=LEAST_NULL)
    return replace(
        maps,
        projected=projected,
        target=target,
        alignment=alignment,
        length=length,
        fold=fold,
        null_alignment=np.einsum("ij,ij->i", projected[pairs[moved]], target[pairs[put_on]]).astype(np.float32),
        kept=kept,
    )


def _following_ratio(projection: Projection, seed: int) -> float:
    """The share to keep that the mismatch rate read off this projection asks for."""
    scores = projection.alignment[~np.isnan(projection.alignment)].astype(np.float64)
    rng = generator(seed, "projection", projection.modality, "rate")
    return max(
        0.05, 0.95 - fit_mixture(scores, projection.null_alignment.astype(np.float64), resamples=10, rng=rng).rate
    )


def _nothing(modality: str, features: Float32, anchors: Anchors, config: ProjectionConfig) -> Projection:
    num_items, size = anchors.items.shape
    return Projection(
        modality=modality,
        weight=np.zeros((features.shape[1], size), np.float32),
        feature_mean=np.zeros(features.shape[1], np.float32),
        target_mean=np.zeros(size, np.float32),
        fold_weights=np.zeros((config.folds, features.shape[1], size), np.float32),
        fold_means=np.zeros((config.folds, features.shape[1]), np.float32),
        projected=np.zeros((num_items, size), np.float32),
        target=np.zeros((num_items, size), np.float32),
        alignment=np.full(num_items, np.nan, np.float32),
        length=np.zeros(num_items, np.float32),
        fold=np.full(num_items, -1, np.int32),
        null_alignment=np.zeros(0, np.float32),
        kept=np.zeros(num_items, np.bool_),
        ridge=None,
    )
