"""Ridge regression out of fold, with small-loss selection on the out-of-fold score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from rectifier_core.base.arrays import Bool, Float32, Int64
from rectifier_core.base.numerics import unit_rows
from rectifier_core.base.seeding import generator
from rectifier_core.projection.crossfit import FoldMaps, NormalEquations, Solved
from rectifier_core.projection.problem import Fitted, Problem, aligned, keep_best
from rectifier_core.projection.row_passes import HeldRows

STRENGTH_SAMPLE = 100_000
"""Most pairs that the ridge strength is chosen on, because every strength is another pass over their features."""


def fit_ridge(problem: Problem) -> Fitted:
    """Fit the map of every fold without that fold, at the strength that aligns best out of fold, and the map of all kept pairs.

    With fewer pairs than columns the fit is done in the span of the pairs' rows: N x N equations instead of D x D, with the same solution.
    """
    width, targets = problem.features.shape[1], np.ascontiguousarray(problem.anchors.items[problem.pairs])
    return (_fit_in_span if len(problem.pairs) < width else _fit)(problem, targets, width)


def _fit_in_span(problem: Problem, targets: Float32, width: int) -> Fitted:
    """``fit_ridge`` in coordinates of an orthonormal basis of the pairs' rows.

    A ridge solution is a combination of the rows it was fitted on, and the basis keeps every product of two rows. So nothing is lost.
    """
    rows = unit_rows(np.asarray(problem.features[problem.pairs])).astype(np.float64)
    basis, coordinates = np.linalg.qr(rows.T)
    features = np.ascontiguousarray(coordinates.T, dtype=np.float32)
    inner = replace(
        problem,
        features=features,
        pairs=np.arange(len(features)),
        passes=HeldRows(features, problem.config.block_rows),
    )
    fitted = _fit(inner, targets, width)
    maps = FoldMaps(
        weights=np.stack([(basis @ weight).astype(np.float32) for weight in fitted.maps.weights]),
        feature_means=(fitted.maps.feature_means @ basis.T).astype(np.float32),
        target_means=fitted.maps.target_means,
    )
    weight, mean = (basis @ fitted.weight).astype(np.float32), (basis @ fitted.feature_mean).astype(np.float32)
    return replace(fitted, weight=weight, feature_mean=mean, maps=maps)


def _fit(problem: Problem, targets: Float32, width: int) -> Fitted:
    """``fit_ridge`` to the ``targets`` of the pairs, on the columns of ``problem.features``. The penalty is in units of ``width`` columns."""
    modality, pairs, folds, passes = problem.modality, problem.pairs, problem.folds, problem.passes
    config, keep_ratio, progress = problem.config, problem.keep_ratio, problem.progress
    origin = _mean_unit_row(problem)
    sums = NormalEquations(num_folds=config.folds, origin=origin, target_width=targets.shape[1], penalty_width=width)
    everything = np.ones(len(pairs), np.bool_)
    _recount(sums, problem, targets, ~everything, everything)
    grid = sorted(config.ridge_grid)
    best, maps = _best_strength(sums, grid, problem, targets)
    kept, chosen_strength = everything, grid[best]
    projected = passes.out_of_fold(pairs, folds, maps)
    if config.rounds > 1 and keep_ratio < 1:
        near = grid[max(0, best - 1) : best + 2]
        solved: list[list[Solved]] = [[] for _ in near]
        for fold in range(config.folds):
            own = _selected(sums, problem, targets, fold, chosen_strength)
            for maps_of, strength in zip(solved, near, strict=True):
                maps_of.append(own.solve(strength, fold))
            progress(f"projection of {modality}: selection for fold", fold + 1, config.folds)
        tried = [FoldMaps.of(parts) for parts in solved]
        trials = [passes.out_of_fold(pairs, folds, x) for x in tried]
        chosen = [keep_best(aligned(trial, targets, everything), keep_ratio) for trial in trials]
        at = int(
            np.argmax([aligned(trial, targets, kept)[kept].mean() for trial, kept in zip(trials, chosen, strict=True)])
        )
        kept, chosen_strength, projected, maps = chosen[at], near[at], trials[at], tried[at]
        _recount(sums, problem, targets, everything, kept)
    weight, feature_mean, target_mean = sums.solve(chosen_strength)
    return Fitted(
        weight=weight,
        feature_mean=feature_mean,
        target_mean=target_mean,
        maps=maps,
        projected=projected,
        kept=kept,
        ridge=chosen_strength,
    )


def _best_strength(
    sums: NormalEquations, grid: Sequence[float], problem: Problem, targets: Float32
) -> tuple[int, FoldMaps]:
    """Return the place in the rising ``grid`` of the strength that aligns best out of fold, and its maps.

    Alignment rises with the strength to one peak, so the search climbs from the middle of the grid until both neighbours are lower.
    """
    pairs, folds, judged = problem.pairs, problem.folds, _strength_sample(problem)
    everyone, reached, best = np.ones(len(judged), np.bool_), dict[int, float](), len(grid) // 2
    kept: dict[int, FoldMaps] = {}
    while True:
        for at in sorted({best, max(best - 1, 0), min(best + 1, len(grid) - 1)} - reached.keys()):
            kept[at] = sums.solve_folds(grid[at])
            trial = problem.passes.out_of_fold(pairs[judged], folds[judged], kept[at])
            reached[at] = float(aligned(trial, targets[judged], everyone).mean())
            what = f"projection of {problem.modality}: out-of-fold alignment {reached[at]:.4f} at ridge {grid[at]:g}"
            problem.progress(what, len(reached), len(grid))
        highest = max(sorted(reached), key=lambda at: reached[at])
        if highest == best:
            return best, kept[best]
        best = highest


def _strength_sample(problem: Problem) -> Int64:
    """Return the rising positions in ``pairs`` that choose the strength: all, or a sample of ``STRENGTH_SAMPLE``."""
    count = len(problem.pairs)
    if count <= STRENGTH_SAMPLE:
        return np.arange(count)
    rng = generator(problem.seed, "projection", problem.modality, "strength")
    return np.sort(rng.choice(count, STRENGTH_SAMPLE, replace=False))


def _selected(sums: NormalEquations, problem: Problem, targets: Float32, fold: int, strength: float) -> NormalEquations:
    """Return ``sums`` without the pairs that selection drops, where the selection does not see ``fold``.

    One selection for all folds would let a fold's pairs influence the map that scores them. Then even shuffled features would look aligned.
    """
    pairs, folds, config = problem.pairs, problem.folds, problem.config
    own, kept, outside = sums.copy(), np.ones(len(pairs), np.bool_), np.flatnonzero(folds != fold)
    for step in range(1, config.rounds):
        projected = problem.passes.out_of_fold(pairs[outside], folds[outside], own.solve_folds(strength, fold))
        score = aligned(projected, targets[outside], kept[outside])
        now = np.zeros(len(pairs), np.bool_)
        now[outside] = keep_best(score, 1 - (1 - problem.keep_ratio) * step / (config.rounds - 1))
        now[folds == fold] = True
        _recount(own, problem, targets, kept, now)
        kept = now
    return own


def _mean_unit_row(problem: Problem) -> Float32:
    """Return the mean of the pairs' unit rows: [D]."""
    total = np.zeros(problem.features.shape[1])
    for part in problem.passes.sums(problem.pairs):
        total += part
    return (total / max(1, len(problem.pairs))).astype(np.float32)


def _recount(sums: NormalEquations, problem: Problem, targets: Float32, before: Bool, after: Bool) -> None:
    """Update the sums from the rows ``before`` to the rows ``after``, by adding and removing the difference."""
    for rows, sign in ((np.flatnonzero(after & ~before), 1.0), (np.flatnonzero(before & ~after), -1.0)):
        parts = problem.passes.moments(
            problem.pairs[rows], targets[rows], problem.folds[rows], sums.origin, len(sums.counts)
        )
        for part in parts:
            sums.merge(part, sign=sign)
