"""What an item's feature would be, if its own were unknown: the expected feature.

Two predictions are combined, each made without the item's own feature:

- the mean of its donors (arXiv 2602.00730: e_hat = P e), every donor weighted by its trust;
- ridge regression on the item's anchor and on the places of its other modalities, each weighted by the trust in it. It is fitted out of
  fold, every item weighted by its trust.

Both predict the difference from the mean unit feature. Least squares on trusted items scales and adds them, with weights between 0 and 1.
So an unsure prediction is short and moves its item little: that is the difference from the paper, whose aggregate has its full weight
everywhere.

Source: stacked regressions (Breiman, Machine Learning 1996), with weights held to [0, 1].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rectifier_core.base.arrays import Bool, Float32, Float64, Int32, Int64, check_array
from rectifier_core.base.numerics import unit_rows
from rectifier_core.base.records import Plan, Trust
from rectifier_core.base.seeding import generator
from rectifier_core.base.weighted_sums import weighted_sums
from rectifier_core.rectify.donors import donors_of, trust_or_average

PENALTIES = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0)
"""Ridge penalties to choose from, in units of the mean eigenvalue of the Gram matrix."""
MOST_ROWS, MOST_BYTES = 20_000, 64 << 20
"""Most items, and most bytes of their features, that the regression is fitted to."""
COMBINED_ROWS = 4_000
"""Items that weigh the two predictions: two numbers need no more."""


@dataclass(frozen=True, slots=True)
class Views:
    """What is known of every item beside the feature itself: its anchor, and its other modalities' places, each weighted by its trust.

    ``anchors`` [I, A] and each of ``places`` [I, C] are float32, zero where there is none; ``trusts`` [I] float32 hold no NaN.
    """

    anchors: Float32
    places: Sequence[Float32]
    trusts: Sequence[Float32]

    @classmethod
    def beside(cls, anchors: Float32, others: Sequence[tuple[Float32, Trust]]) -> Views:
        """Return the views of a modality's items from their anchors, and the places of each other modality with the trust in it."""
        return cls(anchors, [places for places, _ in others], [trust_or_average(trust) for _, trust in others])

    def of(self, rows: Int64) -> Float32:
        """Return the predictors of the items ``rows`` [N]: [N, A + C + ... + 1] float32. The last column is 1."""
        others = [place[rows] * trust[rows, None] for place, trust in zip(self.places, self.trusts, strict=True)]
        return np.hstack([self.anchors[rows], *others, np.ones((len(rows), 1), np.float32)])


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectedFeature:
    """A modality's fitted predictions.

    ``mean`` [D] is the mean trusted unit feature. ``maps`` [F, P, D] predict the difference from it from ``Views``, each fitted without
    its fold. ``donor_weight`` is the weight of the donors' mean; that of the maps is in them. Both arrays are float32.
    """

    modality: str
    mean: Float32
    maps: Float32
    donor_weight: float

    def __post_init__(self) -> None:
        check_array("mean", self.mean, (None,), np.float32)
        check_array("maps", self.maps, (None, None, len(self.mean)), np.float32)

    def by_views(self, views: Float32, folds: Int32) -> Float32:
        """Return what the maps of ``folds`` [N] predict from ``views`` [N, P]: [N, D] float32."""
        return _predicted(self.maps, views, folds)


def fit_expected(
    modality: str,
    features: Float32,
    lengths: Float32,
    known: Bool,
    folds: Int32,
    views: Views,
    plan: Plan,
    trust: Trust,
    *,
    seed: int,
) -> ExpectedFeature:
    """Fit the predictions of one modality to its ``known`` items [I], those with a feature and an anchor.

    ``features`` [I, D] may be a memory map, and ``lengths`` [I] are its rows'. ``folds`` [I] are the items' folds, at least 0 where they
    are known. Of a large catalog a sample is fitted.
    """
    rng = generator(seed, "rectify", modality, "sample")
    rows = np.flatnonzero(known)
    most = min(MOST_ROWS, max(1, MOST_BYTES // (4 * features.shape[1])))
    rows = np.sort(rng.choice(rows, min(len(rows), most), replace=False))
    weight = trust_or_average(trust, rows)
    units = unit_rows(np.asarray(features[rows]))
    mean = (weight @ units / max(float(weight.sum()), 1e-12)).astype(np.float32)
    centred = units - mean
    maps = _ridge_by_fold(views.of(rows), centred, weight, folds[rows])
    few = np.sort(rng.choice(len(rows), min(len(rows), COMBINED_ROWS), replace=False))
    by_donors = _donors_means(features, lengths, rows[few], mean, plan, trust)
    by_views = _predicted(maps, views.of(rows[few]), folds[rows[few]])
    donor_weight, view_weight = _combine(by_donors, by_views, centred[few], weight[few])
    return ExpectedFeature(
        modality=modality,
        mean=mean,
        maps=maps * np.float32(view_weight),
        donor_weight=donor_weight,
    )


def _ridge_by_fold(views: Float32, wanted: Float32, weight: Float32, folds: Int32) -> Float32:
    """Return the map of every fold [F, P, D] float32, fitted without it, at the penalty with the least error out of fold.

    In the eigenvectors of its Gram matrix a fold's map is a product for every penalty, so each fold is solved once.
    """
    count, width = int(folds.max(initial=0)) + 1, views.shape[1]
    grams, crosses = np.zeros((count, width, width)), np.zeros((count, width, wanted.shape[1]))
    for fold in range(count):
        inside = folds == fold
        weighted = (views[inside] * weight[inside, None]).astype(np.float64)
        grams[fold], crosses[fold] = weighted.T @ views[inside], weighted.T @ wanted[inside]
    gram, cross, errors = grams.sum(axis=0), crosses.sum(axis=0), np.zeros(len(PENALTIES))
    solved: list[tuple[Float64, Float64, Float64]] = []
    for fold in range(count):
        values, vectors = np.linalg.eigh(gram - grams[fold])
        along = vectors.T @ (cross - crosses[fold])
        shrunk = 1 / (values + np.array(PENALTIES)[:, None] * values.mean() + 1e-9)
        solved.append((vectors, shrunk, along))
        # The squared error of the fold's own rows, less the part that no map changes.
        squares = (vectors.T @ grams[fold] @ vectors) * (along @ along.T)
        errors += np.einsum("lp,lq,pq->l", shrunk, shrunk, squares)
        errors -= 2 * shrunk @ np.einsum("pd,pd->p", along, vectors.T @ crosses[fold])
    best = errors.argmin()
    return np.stack([vectors @ (shrunk[best][:, None] * along) for vectors, shrunk, along in solved]).astype(np.float32)


def _predicted(maps: Float32, views: Float32, folds: Int32) -> Float32:
    count, width = views.shape
    places = folds[:, None] * width + np.arange(width, dtype=np.int32)
    return weighted_sums(maps.reshape(-1, maps.shape[2]), np.arange(count + 1) * width, places.ravel(), views.ravel())


def _donors_means(features: Float32, lengths: Float32, rows: Int64, mean: Float32, plan: Plan, trust: Trust) -> Float32:
    """Return the mean of each item's donors, as the difference from ``mean``: [N, D] float32, zeros without donors."""
    sums, totals, _ = donors_of(plan, rows, trust, adaptive=True).sums(features, lengths, unit=True)
    return sums - totals[:, None] * mean


def _combine(by_donors: Float32, by_views: Float32, wanted: Float32, weight: Float32) -> tuple[float, float]:
    """Return the weights in [0, 1] of the two predictions that least squares gives, each row weighted."""
    both = np.stack([by_donors, by_views]).astype(np.float64)
    gram = np.einsum("i,aid,bid->ab", weight, both, both) + 1e-12 * np.eye(2)
    across = np.einsum("i,aid,id->a", weight, both, wanted)
    solved = np.linalg.solve(gram, across)
    if solved.min() < 0:
        # One of them only disturbs: the other is scaled alone.
        alone = across / np.diag(gram)
        solved = np.where(solved < 0, 0.0, alone)
    held = np.clip(solved, 0.0, 1.0)
    return float(held[0]), float(held[1])
