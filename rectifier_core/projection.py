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

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from rectifier_core.crossfit import NormalEquations, item_folds, out_of_fold
from rectifier_core.devices import CPU
from rectifier_core.evidence import re_pairings
from rectifier_core.mixture import fit_mixture
from rectifier_core.numerics import Progress, row_blocks, silent, unit_rows
from rectifier_core.records import Anchors, Bool, Float32, Int32, Int64, Projection
from rectifier_core.seeding import generator, torch_generator

LEAST_NULL = 20_000
"""Re-paired scores at least, so that the null's tails are known well below one in a hundred."""
STRENGTH_SAMPLE = 100_000
"""The ridge strength is chosen on so many pairs: every one of the grid would be another pass over all features."""
MOST_REFITS, AT_REST = 5, 0.01
"""``keep_ratio = "auto"`` stops when the ratio moves by less than this, or after so many fits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectionConfig:
    """Hyperparameters of the projection.

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
        for name, least in (("folds", 2), ("rounds", 1), ("epochs", 1), ("ramp", 1), ("batch_size", 1), ("block_rows", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}: wanted at least {least}, got {getattr(self, name)}")
        if not self.ridge_grid or min(self.ridge_grid) <= 0:
            raise ValueError(f"ridge_grid: wanted positive strengths, got {self.ridge_grid}")


def fit_projection(
    modality: str,
    features: Float32,
    present: Bool,
    anchors: Anchors,
    config: ProjectionConfig,
    *,
    seed: int,
    device: str = CPU,
    progress: Progress = silent,
) -> Projection:
    """Fit the map of one modality and score every item that has both a feature and an anchor.

    ``features`` [I, D] float32 may be a memory map, read by blocks and never copied whole; ``present`` [I] says which rows count.
    With fewer pairs than folds nothing can be fitted out of fold: the projection is zero and every alignment NaN. ``device`` sums the Gram
    matrices of ``crossfit_ridge``, which are most of its work where features are wide.
    """
    pairs = np.flatnonzero(present & anchors.trained)
    if len(pairs) < max(2 * config.folds, 10):
        return _nothing(modality, features, anchors)
    folds = item_folds(len(present), config.folds, seed)
    keep_ratio = 1.0 if config.keep_ratio == "auto" else config.keep_ratio
    for _ in range(MOST_REFITS if config.keep_ratio == "auto" else 1):
        problem = _Problem(modality, features, pairs, folds[pairs], anchors, config, keep_ratio, seed, device, progress)
        fitted = _crossfit_ridge(problem) if config.solver == "crossfit_ridge" else _minibatch(problem)
        found = _scored(problem, fitted, present)
        wanted = _following_ratio(found, seed) if config.keep_ratio == "auto" else keep_ratio
        if abs(wanted - keep_ratio) < AT_REST:
            break
        keep_ratio = wanted
    return found


def _scored(problem: _Problem, fitted: _Fitted, present: Bool) -> Projection:
    """The record of a fit: every item with a feature projected, every pair scored."""
    modality, features, pairs, anchors = problem.modality, problem.features, problem.pairs, problem.anchors
    rest = np.flatnonzero(present & ~anchors.trained)
    raw = np.zeros(anchors.items.shape, np.float32)
    raw[pairs] = fitted.projected
    raw[rest] = _project(features, rest, fitted.weight, fitted.feature_mean, problem.config.block_rows)
    projected = unit_rows(raw)
    target = unit_rows(np.asarray(anchors.items - fitted.target_mean, dtype=np.float32))
    target[~anchors.trained] = 0
    alignment = np.full(len(projected), np.nan, np.float32)
    alignment[pairs] = np.einsum("ij,ij->i", projected[pairs], target[pairs])
    kept, fold = np.zeros(len(projected), np.bool_), np.full(len(projected), -1, np.int32)
    kept[pairs], fold[pairs] = fitted.kept, problem.folds
    moved, put_on = re_pairings(problem.folds, generator(problem.seed, "projection", modality, "null"), least=LEAST_NULL)
    return Projection(
        modality=modality,
        weight=fitted.weight,
        feature_mean=fitted.feature_mean,
        projected=projected,
        target=target,
        alignment=alignment,
        length=np.linalg.norm(raw, axis=1).astype(np.float32),
        fold=fold,
        null_alignment=np.einsum("ij,ij->i", projected[pairs[moved]], target[pairs[put_on]]).astype(np.float32),
        kept=kept,
        ridge=fitted.ridge,
    )


def _following_ratio(projection: Projection, seed: int) -> float:
    """The share to keep that the mismatch rate read off this projection asks for."""
    scores = projection.alignment[~np.isnan(projection.alignment)].astype(np.float64)
    rng = generator(seed, "projection", projection.modality, "rate")
    return max(0.05, 0.95 - fit_mixture(scores, projection.null_alignment.astype(np.float64), resamples=10, rng=rng).rate)


@dataclass(frozen=True, slots=True)
class _Problem:
    """One fit's inputs: ``folds`` [len(pairs)] names the fold of each pair."""

    modality: str
    features: Float32
    pairs: Int64
    folds: Int32
    anchors: Anchors
    config: ProjectionConfig
    keep_ratio: float
    seed: int
    device: str
    progress: Progress


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fitted:
    weight: Float32
    feature_mean: Float32
    target_mean: Float32
    projected: Float32
    kept: Bool
    ridge: float | None


def _crossfit_ridge(problem: _Problem) -> _Fitted:
    modality, features, pairs, folds, anchors = problem.modality, problem.features, problem.pairs, problem.folds, problem.anchors
    config, keep_ratio, progress = problem.config, problem.keep_ratio, problem.progress
    targets = np.ascontiguousarray(anchors.items[pairs])
    origin = _mean_unit_row(features, pairs, config.block_rows)
    sums = NormalEquations(num_folds=config.folds, origin=origin, target_width=targets.shape[1], device=problem.device)
    everything = np.ones(len(pairs), np.bool_)
    _recount(sums, features, pairs, targets, folds, ~everything, everything, config.block_rows)
    grid = config.ridge_grid
    best, highest, judged = 0, -np.inf, _judges_of_strength(problem)
    for at, strength in enumerate(grid):
        trial = out_of_fold(features, pairs[judged], folds[judged], sums.solve_folds(strength), config.block_rows)
        aligned = float(_aligned(trial, targets[judged], everything[judged]).mean())
        if aligned > highest:
            best, highest = at, aligned
        progress(f"projection of {modality}: out-of-fold alignment {aligned:.4f} at ridge {strength:g}", at + 1, len(grid))
    kept, chosen_strength = everything, grid[best]
    projected = out_of_fold(features, pairs, folds, sums.solve_folds(chosen_strength), config.block_rows)
    if config.rounds > 1 and keep_ratio < 1:
        near = grid[max(0, best - 1) : best + 2]
        trials = [np.zeros_like(projected) for _ in near]
        for fold in range(config.folds):
            own = _selected(sums, problem, targets, fold, chosen_strength)
            inside = np.flatnonzero(folds == fold)
            for trial, strength in zip(trials, near, strict=True):
                weight, feature_mean, _ = own.solve(strength, fold)
                trial[inside] = _project(features, pairs[inside], weight, feature_mean, config.block_rows)
            progress(f"projection of {modality}: selection for fold", fold + 1, config.folds)
        chosen = [_keep_best(_aligned(trial, targets, everything), keep_ratio) for trial in trials]
        at = int(np.argmax([_aligned(trial, targets, kept)[kept].mean() for trial, kept in zip(trials, chosen, strict=True)]))
        kept, chosen_strength, projected = chosen[at], near[at], trials[at]
        _recount(sums, features, pairs, targets, folds, everything, kept, config.block_rows)
    weight, feature_mean, target_mean = sums.solve(chosen_strength)
    return _Fitted(weight=weight, feature_mean=feature_mean, target_mean=target_mean, projected=projected, kept=kept, ridge=chosen_strength)


def _judges_of_strength(problem: _Problem) -> Int64:
    """Positions in ``pairs``, ascending, of those that the strength is chosen by: all, or a sample whose mean is known to a thousandth."""
    count = len(problem.pairs)
    if count <= STRENGTH_SAMPLE:
        return np.arange(count)
    rng = generator(problem.seed, "projection", problem.modality, "strength")
    return np.sort(rng.choice(count, STRENGTH_SAMPLE, replace=False))


def _selected(sums: NormalEquations, problem: _Problem, targets: Float32, fold: int, strength: float) -> NormalEquations:
    """``sums`` less the pairs that selection drops when it is made without ``fold``.

    Were one selection shared by all folds, it would carry each fold's own pairs into the map that is to score them, and features dealt out
    at random would seem aligned.
    """
    features, pairs, folds, config = problem.features, problem.pairs, problem.folds, problem.config
    own, kept, outside = sums.copy(), np.ones(len(pairs), np.bool_), np.flatnonzero(folds != fold)
    for step in range(1, config.rounds):
        projected = out_of_fold(features, pairs[outside], folds[outside], own.solve_folds(strength, fold), config.block_rows)
        score = _aligned(projected, targets[outside], kept[outside])
        now = np.zeros(len(pairs), np.bool_)
        now[outside] = _keep_best(score, 1 - (1 - problem.keep_ratio) * step / (config.rounds - 1))
        now[folds == fold] = True
        _recount(own, features, pairs, targets, folds, kept, now, config.block_rows)
        kept = now
    return own


def _project(features: Float32, rows: Int64, weight: Float32, feature_mean: Float32, block_rows: int) -> Float32:
    projected = np.zeros((len(rows), weight.shape[1]), np.float32)
    for block in row_blocks(len(rows), block_rows):
        centred: Float32 = unit_rows(np.asarray(features[rows[block]])) - feature_mean
        projected[block] = centred @ weight
    return projected


def _mean_unit_row(features: Float32, rows: Int64, block_rows: int) -> Float32:
    total = np.zeros(features.shape[1])
    for block in row_blocks(len(rows), block_rows):
        total += unit_rows(np.asarray(features[rows[block]])).sum(axis=0, dtype=np.float64)
    return (total / max(1, len(rows))).astype(np.float32)


def _recount(
    sums: NormalEquations, features: Float32, pairs: Int64, targets: Float32, folds: Int32, before: Bool, after: Bool, block_rows: int
) -> None:
    """Bring the sums from the rows ``before`` to the rows ``after`` by adding and taking out the difference."""
    for rows, sign in ((np.flatnonzero(after & ~before), 1.0), (np.flatnonzero(before & ~after), -1.0)):
        for block in row_blocks(len(rows), block_rows):
            at = rows[block]
            sums.add(unit_rows(np.asarray(features[pairs[at]])), targets[at], folds[at], sign=sign)


def _aligned(projected: Float32, targets: Float32, kept: Bool) -> Float32:
    score: Float32 = np.einsum("ij,ij->i", unit_rows(projected), unit_rows(targets - targets[kept].mean(axis=0)))
    return score


def _keep_best(score: Float32, share: float) -> Bool:
    kept = np.zeros(len(score), np.bool_)
    kept[np.argsort(-score, kind="stable")[: max(1, round(share * len(score)))]] = True
    return kept


def _minibatch(problem: _Problem) -> _Fitted:
    modality, features, pairs, anchors = problem.modality, problem.features, problem.pairs, problem.anchors
    config, keep_ratio, seed, progress = problem.config, problem.keep_ratio, problem.seed, problem.progress
    source = torch_generator(seed, "projection", modality, "weight")
    width, size = features.shape[1], anchors.items.shape[1]
    weight = (torch.randn(width, size, generator=source) / np.sqrt(width)).requires_grad_()
    optimiser = torch.optim.Adam([weight], lr=config.learning_rate, weight_decay=config.weight_decay)
    for epoch in range(config.epochs):
        order = generator(seed, "projection", modality, "epoch", epoch).permutation(len(pairs))
        share = 1 - (1 - keep_ratio) * min(1.0, epoch / config.ramp)
        total = 0.0
        for first in range(0, len(order), config.batch_size):
            rows = np.sort(pairs[order[first : first + config.batch_size]])
            loss = _cosine_losses(features, anchors, rows, weight)
            smallest = loss.topk(max(1, round(share * len(rows))), largest=False).values
            optimiser.zero_grad(set_to_none=True)
            smallest.mean().backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            total += float(smallest.detach().sum())
        progress(f"projection of {modality}: cosine loss {total / max(1.0, share * len(order)):.4f}", epoch + 1, config.epochs)
    learned = weight.detach().numpy()
    projected = np.zeros((len(pairs), size), np.float32)
    for block in row_blocks(len(pairs), config.block_rows):
        projected[block] = unit_rows(np.asarray(features[pairs[block]])) @ learned
    score: Float32 = np.einsum("ij,ij->i", unit_rows(projected), anchors.items[pairs])
    zero = np.zeros(width, np.float32)
    return _Fitted(
        weight=learned,
        feature_mean=zero,
        target_mean=np.zeros(size, np.float32),
        projected=projected,
        kept=_keep_best(score, keep_ratio),
        ridge=None,
    )


def _cosine_losses(features: Float32, anchors: Anchors, rows: Int64, weight: torch.Tensor) -> torch.Tensor:
    x = torch.from_numpy(unit_rows(np.asarray(features[rows])))
    return 1 - torch.nn.functional.cosine_similarity(x @ weight, torch.from_numpy(np.asarray(anchors.items[rows])), dim=1)


def _nothing(modality: str, features: Float32, anchors: Anchors) -> Projection:
    num_items, size = anchors.items.shape
    return Projection(
        modality=modality,
        weight=np.zeros((features.shape[1], size), np.float32),
        feature_mean=np.zeros(features.shape[1], np.float32),
        projected=np.zeros((num_items, size), np.float32),
        target=np.zeros((num_items, size), np.float32),
        alignment=np.full(num_items, np.nan, np.float32),
        length=np.zeros(num_items, np.float32),
        fold=np.full(num_items, -1, np.int32),
        null_alignment=np.zeros(0, np.float32),
        kept=np.zeros(num_items, np.bool_),
        ridge=None,
    )
