"""Evidence that a feature is its item's own: actual pairs told from re-paired ones by a small classifier; a leaf of trust.

Source: noise-contrastive estimation (Gutmann and Hyvaerinen, JMLR 2012): a logistic regression that tells actual pairs from pairs put
together at random estimates the log of how many times likelier a pair is under the one law than under the other. A re-paired feature is the
law of a mismatched one by construction.
"""

from __future__ import annotations

import numpy as np

from rectifier_core.base.arrays import Float64, Int32, Int64

RIDGE = 1e-3
"""L2 penalty on the standardised weights, the mean log loss being 1."""
NEWTON_STEPS, STILL, FLAT = 30, 1e-10, 1e-12
"""At most so many steps, until no slope is steeper; what is added to the curvature where all rows are told and the loss is flat."""
MOST_ROWS = 50_000
"""Rows of each kind that a classifier of a dozen weights is fitted on."""
MOST_PAIRS = 200_000
"""Wrong pairs that tell the law of a mismatch: its quantiles are then known to a thousandth, and a large catalog has no need of more."""

Pairings = tuple[Int64, Int64]
"""Positions of the feature and of the item it is put on, both [M]."""


def re_pairings(groups: Int32, rng: np.random.Generator, *, least: int) -> Pairings:
    """Deliberately wrong pairs within groups: rounds of one random cycle a group, so nobody keeps its own, until ``least`` pairs exist.

    ``groups`` [N] are non-negative; a group of one takes no part. Both arrays are empty where no group has two members; of more than
    ``MOST_PAIRS`` an even share is given, of every group alike.
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
    """Log likelihood ratio of actual against re-paired for every row of both kinds, from classifiers that never saw it: each was fitted
    without its fold, and without the wrong pairs that touch it.

    ``actual`` [N, F] with ``folds`` [N]; ``wrong`` [M, F] with the folds of the feature and of the item [M]. Returns [N] and [M].
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
    """An even sample of at most ``MOST_ROWS``."""
    return rows[:: max(1, -(-len(rows) // MOST_ROWS))]


def _logistic(positive: Float64, negative: Float64) -> Float64:
    """Weights [F + 1] of a ridge-penalised logistic regression with both kinds weighing half, by Newton's method."""
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
        if np.abs(slope).max() <= STILL:
            break
        curvature = (rows * (share * chance * (1 - chance))[:, None]).T @ rows
        curvature[np.diag_indices_from(curvature)] += penalty + FLAT
        step = np.linalg.solve(curvature, slope)
        further, length = rows @ step, 1.0
        while (tried := loss(logit - length * further, weights - length * step)) > reached and length > 1e-3:
            length /= 2
        reached, weights, logit = tried, weights - length * step, logit - length * further
    return weights
