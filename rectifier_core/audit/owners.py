"""Probable owners: the item each suspect feature most likely belongs to, and the feature each suspect item most likely lost.

Source: probabilistic canonical correlation analysis (Bach and Jordan, 2005). In canonical coordinates with correlations r_d, the
log-likelihood ratio of feature x and anchor y, paired against unpaired, is up to a constant

    sum_d  r_d / (1 - r_d^2) x_d y_d  -  r_d^2 / (2 (1 - r_d^2)) (x_d^2 + y_d^2)

which is one inner product of two extended vectors. The square terms remove hubs. Cross-domain similarity local scaling (CSLS, Conneau et
al., ICLR 2018) removes them by neighbourhoods, and is worse here (``benchmarks/results/owners.md``).
Differs from the paper: the correlations have a ridge and an adjustment for chance.

Bayes' rule gives the probability of each owner. A wrong feature belongs to an item that lost its own, so candidate j has the prior
``1 - probability[j]``. All of this assumes that the owner is in the catalog.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from rectifier_core.affinity.index import NearestRows, exact_index, search_rows
from rectifier_core.audit.config import OwnersConfig
from rectifier_core.base.arrays import Bool, Float32, Float64, Int64
from rectifier_core.base.numerics import row_blocks
from rectifier_core.base.records import Plan, Projection
from rectifier_core.base.seeding import generator

LARGEST_CORRELATION = 0.99


@dataclass(frozen=True, slots=True, kw_only=True)
class PairEvidence:
    """``features[i] @ items[j]`` is the log-likelihood ratio that feature i is item j's, against a random item's.

    Both [I, A + 2] float32, zero rows where the item has no feature, or no anchor: ``has_feature``, ``has_anchor`` [I] bool.
    """

    features: Float32
    items: Float32
    has_feature: Bool
    has_anchor: Bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Suggestions:
    """For each of ``rows`` [S] the best others, best first: ``others`` int64 [S, K] (-1: none), and float32 [S, K] of each (NaN: none).

    ``evidence`` is the log-likelihood ratio of the pair, ``cosine`` the plain cosine between feature and anchor, ``probability`` that of
    the pair being the true one, if the true one is in the catalog.
    """

    rows: Int64
    others: Int64
    evidence: Float32
    cosine: Float32
    probability: Float32


def pair_evidence(projection: Projection, probability: Float32, config: OwnersConfig) -> PairEvidence:
    """Fit canonical correlations on the pairs of ``projection``, each weighted by its ``probability`` [I] (NaN: 0).

    All evidence is zero if the weights sum to less than twice the anchor width.
    """
    has_feature: Bool = np.any(projection.projected != 0, axis=1)
    has_anchor: Bool = np.any(projection.target != 0, axis=1)
    weight = np.where(has_feature & has_anchor, np.nan_to_num(probability, nan=0.0), 0.0)
    width = projection.target.shape[1]
    features, items = (np.zeros((len(weight), width + 2), np.float32) for _ in range(2))
    if weight.sum() >= 2 * width:
        pairs = np.flatnonzero(weight)
        to_x, to_y, mean_x, mean_y, r = _canonical(
            projection.projected[pairs], projection.target[pairs], weight[pairs], config.ridge
        )
        gain, cost = r / (1 - r**2), r**2 / (2 * (1 - r**2))
        for block in row_blocks(len(weight), 1 << 16):
            x = (projection.projected[block] - mean_x) @ to_x
            y = (projection.target[block] - mean_y) @ to_y
            ones = np.ones((len(x), 1))
            features[block] = np.hstack([x * gain, -(x**2 @ cost)[:, None], ones]) * has_feature[block, None]
            items[block] = np.hstack([y, ones, -(y**2 @ cost)[:, None]]) * has_anchor[block, None]
    return PairEvidence(features=features, items=items, has_feature=has_feature, has_anchor=has_anchor)


def _canonical(
    x: Float32, y: Float32, weight: Float64, ridge: float
) -> tuple[Float64, Float64, Float64, Float64, Float64]:
    share = (weight / weight.sum())[:, None]
    mean_x, mean_y = (share * x).sum(axis=0), (share * y).sum(axis=0)
    x_centred, y_centred = x - mean_x, y - mean_y
    to_x = _inverse_root((x_centred * share).T @ x_centred, ridge)
    to_y = _inverse_root((y_centred * share).T @ y_centred, ridge)
    left, r, right = np.linalg.svd(to_x @ ((x_centred * share).T @ y_centred) @ to_y)
    # Ezekiel's adjustment: few pairs with many coordinates correlate by chance.
    chance = min(y.shape[1] / float(weight.sum() ** 2 / (weight**2).sum()), 0.5)
    adjusted = np.sqrt(np.clip((r**2 - chance) / (1 - chance), 0.0, LARGEST_CORRELATION**2))
    return to_x @ left, to_y @ right.T, mean_x, mean_y, adjusted


def _inverse_root(covariance: Float64, ridge: float) -> Float64:
    values, vectors = np.linalg.eigh(covariance)
    lifted = np.maximum(values, 0.0) + max(ridge * float(values.mean()), np.finfo(np.float64).tiny)
    root: Float64 = (vectors / np.sqrt(lifted)) @ vectors.T
    return root


def nearest_rows(asking: Float32, asked: Float32, usable: Bool, rows: Int64, count: int) -> Int64:
    """The ``usable`` [I] rows of ``asked`` [I, D] with the largest inner product with each of ``asking[rows]``, itself excepted.

    Returns int64 [S, count], best first, -1 where there are fewer. A zero row has none.
    """
    columns, found = np.flatnonzero(usable), np.full((len(rows), count), -1, np.int64)
    places = np.flatnonzero(np.any(asking[rows] != 0, axis=1))
    if len(columns) and len(places):
        near = search_rows(asked, columns, asking[rows[places]], min(count + 1, len(columns))).items
        for place, others in zip(places, near, strict=True):
            kept = others[others != rows[place]][:count]
            found[place, : len(kept)] = kept
    return found


def lost_prior(probability: Float32, has_feature: Bool, config: OwnersConfig) -> Float64:
    """The probability that each item lost its own feature: [I] float64, 1 where it has none, 0.5 where it is not judged."""
    lost = np.where(has_feature, 1 - np.nan_to_num(probability.astype(np.float64), nan=0.5), 1.0)
    return np.clip(lost, config.least_prior, 1.0)


def suggest(
    what: Literal["owners", "features"],
    evidence: PairEvidence,
    projection: Projection,
    probability: Float32,
    rows: Int64,
    config: OwnersConfig,
    *,
    seed: int,
) -> Suggestions:
    """The likeliest partners of each of ``rows`` [S], its own item excepted.

    - "owners": the items with an anchor that the FEATURE of the row most likely belongs to.
    - "features": the items whose feature most likely belongs to the ITEM of the row.
    """
    # A candidate is ranked by evidence plus log prior: one more coordinate of the inner product that is searched.
    asking, asked, usable = evidence.features, evidence.items, evidence.has_anchor
    own, other = projection.projected, projection.target
    if what == "features":
        asking, asked, usable, own, other = asked, asking, evidence.has_feature, other, own
    columns, count = np.flatnonzero(usable), config.count
    others = np.full((len(rows), count), -1, np.int64)
    scores, cosine, share = (np.full((len(rows), count), np.nan, np.float32) for _ in range(3))
    if len(columns) > 1:
        bonus = np.log(lost_prior(probability, evidence.has_feature, config)).astype(np.float32)
        extended = np.hstack([asked[columns], bonus[columns, None]]).astype(np.float32)
        index = exact_index(extended, np.arange(len(extended)))
        sample = np.sort(generator(seed, "owners", what).permutation(len(columns))[: config.sample])
        for block in row_blocks(len(rows), config.block_rows):
            at = rows[block]
            query = np.hstack([asking[at], np.ones((len(at), 1), np.float32)])
            best, log_weight, log_total = _weigh(index, query, sample, columns, at, config)
            held = min(count, best.shape[1])
            top, weight = best[:, :held], log_weight[:, :held]
            known = np.isfinite(weight) & np.any(asking[at] != 0, axis=1, keepdims=True)
            others[block, :held] = np.where(known, top, -1)
            scores[block, :held] = np.where(known, weight - bonus[top], np.nan)
            cosine[block, :held] = np.where(known, np.einsum("ij,ikj->ik", own[at], other[top]), np.nan)
            share[block, :held] = np.where(known, np.exp(np.minimum(weight - log_total[:, None], 0.0)), np.nan)
    return Suggestions(rows=rows, others=others, evidence=scores, cosine=cosine, probability=share)


def _weigh(
    index: NearestRows, query: Float32, sample: Int64, columns: Int64, rows: Int64, config: OwnersConfig
) -> tuple[Int64, Float64, Float64]:
    """The best candidates as items [Q, K], their log weights, and the log of the weight of all candidates together [Q]."""
    width = min(max(config.exact, config.count) + 1, len(columns))
    place, found = index.search(query, width)
    weight = np.where(columns[place] == rows[:, None], -np.inf, found.astype(np.float64))
    order = np.lexsort((columns[place], -weight), axis=1)
    best, weight = np.take_along_axis(columns[place], order, axis=1), np.take_along_axis(weight, order, axis=1)
    peak = np.where(np.isfinite(weight[:, 0]), weight[:, 0], 0.0)
    total = np.exp(weight - peak[:, None]).sum(axis=1)
    if width < len(columns):
        drawn = (query @ index.vectors[sample].T).astype(np.float64)
        behind = (drawn < found[:, -1:]) & (columns[sample] != rows[:, None])
        rest = len(columns) / len(sample)
        total = total + rest * np.where(behind, np.exp(np.minimum(drawn - peak[:, None], 0.0)), 0.0).sum(axis=1)
    return best, weight, peak + np.log(total)


def clear_owners(owners: Suggestions, features: Suggestions) -> Int64:
    """Each suspect's owner where it is clear, -1 elsewhere: int64 [S], no owner twice.

    It is clear where feature and owner choose each other, each with a probability above one half.
    """
    best = zip(features.rows.tolist(), features.others[:, 0].tolist(), features.probability[:, 0].tolist(), strict=True)
    choice = {row: other for row, other, p in best if p > 0.5}
    first = np.where(owners.probability[:, 0] > 0.5, owners.others[:, 0], -1)
    clear: Int64 = np.array(
        [
            owner if choice.get(owner) == row else -1
            for row, owner in zip(owners.rows.tolist(), first.tolist(), strict=True)
        ],
        np.int64,
    )
    return clear


def plan_weights(plan: Plan, suggestions: Suggestions) -> Float32:
    """The plan's weight of each suggested feature: float32 [S, K], 0 where the plan lacks the pair, NaN for no suggestion."""
    found = np.full(suggestions.others.shape, np.nan, np.float32)
    for at, row in enumerate(suggestions.rows.tolist()):
        part = slice(int(plan.indptr[row]), int(plan.indptr[row + 1]))
        held = dict(zip(plan.indices[part].tolist(), plan.weights[part].tolist(), strict=True))
        for place, other in enumerate(suggestions.others[at].tolist()):
            if other >= 0:
                found[at, place] = held.get(other, 0.0)
    return found
