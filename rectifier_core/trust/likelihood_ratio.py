"""Log likelihood ratio of actual against re-paired features, by a small logistic regression.

Source: noise-contrastive estimation (Gutmann and Hyvaerinen, JMLR 2012). A logistic regression that separates actual pairs from random
ones estimates the log of how many times likelier a pair is among the actual ones.

Differs from the paper: the regression is cross-fitted, so no pair is scored by weights that were fitted to it.
"""

from __future__ import annotations

import numpy as np

from rectifier_core.base.arrays import Float64, Int32, Int64

RIDGE = 1e-3
"""L2 penalty on the standardised weights, the mean log loss being 1."""
NEWTON_STEPS, MIN_SLOPE, MIN_CURVATURE = 30, 1e-10, 1e-12
"""Newton stops after so many steps or below this slope. The curvature gets a little more, so that a flat loss can be solved."""
MOST_ROWS = 50_000
"""Most rows of each kind that the weights are fitted to. More rows do not move a dozen weights."""
MOST_PAIRS = 200_000
"""Most wrong pairs. With so many, the quantiles of their scores are known to a thousandth."""

Pairings = tuple[Int64, Int64]
"""Positions of the feature and of the item it is put on, both [M]."""


def re_pairings(groups: Int32, rng: np.random.Generator, *, least: int) -> Pairings:
    """Return at least ``least`` wrong pairs within groups. Every round is one random cycle a group, so no item keeps its feature.

    ``groups`` [N] are non-negative. A group of one gives no pair. Both arrays are empty where no group has two members. Of more than
    ``MOST_PAIRS`` pairs an even share is returned.
    """
    largest = np.bincount(groups, minlength=1)
    usable = np.flatnonzero(largest[groups] > 1)
    if not len(usable):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    features, items = [], []
    for _ in range(max(1, -(-least // len(usable)))):
        shuffled = rng.permutation(usable)
        cycle = shuffled[np.argsort(groups[shuffled], kind="stable")]
        first = np.flatnonzero(np.diff(groups[cycle], prepend=-1))
        following = np.arange(1, len(cycle) + 1)
        following[np.append(first[1:], len(cycle)) - 1] = first
        features.append(cycle)
        items.append(cycle[following])
    step = max(1, -(-sum(map(len, features)) // MOST_PAIRS))
    return np.concatenate(features)[::step], np.concatenate(items)[::step]


def contrast(
    actual: Float64, folds: Int32, wrong: Float64, wrong_folds: tuple[Int32, Int32]
) -> tuple[Float64, Float64]:
    """Return the log likelihood ratio of every actual row [N] and every wrong row [M].

    ``actual`` [N, F] has ``folds`` [N]. ``wrong`` [M, F] has the folds of the feature and of the item, [M] each. The weights that score a
    row were fitted without its fold, and without the wrong pairs that touch this fold.
    """
    centre, scale = wrong.mean(axis=0), wrong.std(axis=0)
    scale = np.where(scale > 1e-9 * (1 + np.abs(centre)), scale, np.inf)
    own, other = _design((actual - centre) / scale), _design((wrong - centre) / scale)
    scores, null = np.zeros(len(own)), np.zeros(len(other))
    for fold in np.unique(folds):
        seen = (wrong_folds[0] != fold) & (wrong_folds[1] != fold)
        weights = _logistic(_thinned(own[folds != fold]), _thinned(other[seen]))
        scores[folds == fold] = own[folds == fold] @ weights
        null[wrong_folds[1] == fold] = other[wrong_folds[1] == fold] @ weights
    return scores, null


def _design(columns: Float64) -> Float64:
    return np.concatenate([columns, np.ones((len(columns), 1))], axis=1)


def _thinned(rows: Float64) -> Float64:
    """Return an even sample of at most ``MOST_ROWS`` rows."""
    return rows[:: max(1, -(-len(rows) // MOST_ROWS))]


def _logistic(positive: Float64, negative: Float64) -> Float64:
    """Return the weights [F + 1] of a ridge-penalised logistic regression, both kinds weighted half, by Newton's method."""
    if not len(positive) or not len(negative):
        return np.zeros(positive.shape[1])
    rows = np.concatenate([positive, negative])
    truth = np.concatenate([np.ones(len(positive)), np.zeros(len(negative))])
    share = np.where(truth == 1, 0.5 / len(positive), 0.5 / len(negative))
    penalty = np.full(rows.shape[1], RIDGE)
    penalty[-1] = 0

    def loss(logit: Float64, weights: Float64) -> float:
        return float(share @ (np.logaddexp(0, logit) - truth * logit) + 0.5 * penalty @ weights**2)

    weights = np.zeros(rows.shape[1])
    logit = rows @ weights
    reached = loss(logit, weights)
    for _ in range(NEWTON_STEPS):
        chance = 1 / (1 + np.exp(-logit))
        slope = rows.T @ (share * (chance - truth)) + penalty * weights
        if np.abs(slope).max() <= MIN_SLOPE:
            break
        curvature = (rows * (share * chance * (1 - chance))[:, None]).T @ rows
        curvature[np.diag_indices_from(curvature)] += penalty + MIN_CURVATURE
        step = np.linalg.solve(curvature, slope)
        further, length = rows @ step, 1.0
        while (tried := loss(logit - length * further, weights - length * step)) > reached and length > 1e-3:
            length /= 2
        reached, weights, logit = tried, weights - length * step, logit - length * further
    return weights
