"""Stage: projection. One linear map per modality from features to anchors, fitted on the pairs that look matched.

Source: "Towards Trustworthy Multimodal Recommendation", arXiv 2602.00730, projection with small-loss selection. The ramp of the kept
share is from Co-teaching (Han et al., NeurIPS 2018, section 3). The paper's numbers fit only if its rho means "drop eta + 0.05", so
``keep_ratio`` is ``1 - (eta + 0.05)``. The default 1.0 selects nothing.

Solvers:
- ``minibatch``: the paper's. Adam on the cosine loss, small-loss selection inside each mini-batch. Scores are in-sample.
- ``crossfit_ridge``: ridge regression out of fold, selection on the out-of-fold score.

Differs from the paper (``crossfit_ridge`` only):
- Features and anchors are centred. Each item is scored by a map fitted without it, because in sample a wide map fits mismatched pairs too.
- The loss is squared error with a ridge penalty. Its strength maximises the out-of-fold alignment over a grid, without labels.
- Selection is over all items at once, and repeated for every fold without that fold. It is off by default: at 20 % swapped features it
  gains nothing (``benchmarks/results/detection.md``).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from rectifier_core.base.arrays import Bool, Float32, Int32
from rectifier_core.base.devices import CPU
from rectifier_core.base.numerics import Progress, row_lengths, silent, unit_rows
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

LEAST_NULL = 20_000
"""Fewest re-paired scores. With so many, the tails of the null are known well below one in a hundred."""
MOST_REFITS, MIN_CHANGE = 5, 0.01
"""``keep_ratio = "auto"`` stops after so many fits, or when the ratio changes by less than this."""


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

    ``features`` [I, D] float32 may be a memory map, read by blocks. Only ``present`` rows [I] count. With too few pairs to fit out of fold,
    the projection is zero and every alignment NaN. ``device`` sums the Gram matrices of ``crossfit_ridge``, which are most of its work for
    wide features. ``passes`` replaces ``device``: it reads and multiplies the rows elsewhere.
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
        projection = _scored(problem, fitted, present)
        next_ratio = _next_ratio(projection, seed) if config.keep_ratio == "auto" else keep_ratio
        if abs(next_ratio - keep_ratio) < MIN_CHANGE:
            break
        keep_ratio = next_ratio
    return projection


def _scored(problem: Problem, fitted: Fitted, present: Bool) -> Projection:
    """Return the record of a fit: every item with a feature projected, every pair scored."""
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
    return score_pairs(maps, unit_rows(raw), row_lengths(raw), fold, kept, anchors, seed=problem.seed)


def score_pairs(
    maps: Projection, projected: Float32, length: Float32, fold: Int32, kept: Bool, anchors: Anchors, *, seed: int
) -> Projection:
    """Return the record ``maps`` with the unit rows ``projected`` [I, A], the score of every pair and those of random wrong pairs.

    ``length`` [I] is the length of the rows before they were normalised. ``fold`` [I] is the fold of each pair, -1 for other items.
    """
    pairs = np.flatnonzero(fold >= 0)
    target = unit_rows(np.asarray(anchors.items - maps.target_mean, dtype=np.float32))
    target[~anchors.trained] = 0
    alignment = np.full(len(projected), np.nan, np.float32)
    alignment[pairs] = np.einsum("ij,ij->i", projected[pairs], target[pairs])
    feature_of, item_of = re_pairings(
        fold[pairs], generator(seed, "projection", maps.modality, "null"), least=LEAST_NULL
    )
    return replace(
        maps,
        projected=projected,
        target=target,
        alignment=alignment,
        length=length,
        fold=fold,
        null_alignment=np.einsum("ij,ij->i", projected[pairs[feature_of]], target[pairs[item_of]]).astype(np.float32),
        kept=kept,
    )


def _next_ratio(projection: Projection, seed: int) -> float:
    """Return the share to keep, from the mismatch rate that this projection shows."""
    scores = projection.alignment[~np.isnan(projection.alignment)].astype(np.float64)
    rng = generator(seed, "projection", projection.modality, "rate")
    mixture = fit_mixture(scores, projection.null_alignment.astype(np.float64), resamples=10, rng=rng)
    return max(0.05, 0.95 - mixture.rate)


def _nothing(modality: str, features: Float32, anchors: Anchors, config: ProjectionConfig) -> Projection:
    """Return the record of a modality that has no map."""
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
