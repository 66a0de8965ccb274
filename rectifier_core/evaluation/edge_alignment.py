"""Alignment-aware editing: how far the prior of a log can be trusted, and the strengths of pruning and completion that follow.

Sources: the second open question of arXiv 2602.00730 (editing whose strength follows the prior); split-half reliability (Spearman, 1910);
the one-standard-error rule (Breiman et al., "Classification and Regression Trees", 1984). Only the training pairs are read.

1. ``separation``: the chance that the prior scores a held-out pair above an absent pair with the same degrees.
2. ``stability``: how well the item positions of two half-data fits agree, beyond what degrees alone give.
3. ``trust`` = sqrt((2 separation - 1) * stability), 0 where either is at chance. No strength exceeds it, because noise lowers both.
4. Each remaining strength is tried on slices of the training pairs: edit the rest, fit the prior on the result, rank the slice. The smallest
   strength within one standard error of the best gain is taken if that gain is more than ``errors`` standard errors above zero. Otherwise
   nothing is edited. Pruning and completion are judged separately.

Pruning uses out-of-fold scores on centred unit rows. A prior scores pairs that it saw too high, and uncentred scores are low for unpopular
items, so pruning by them would remove the long tail instead of the noise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
import torch

from rectifier_core.anchors.reliability import split_half_reliability
from rectifier_core.base.arrays import Float32, Float64
from rectifier_core.base.numerics import separation
from rectifier_core.base.pairs import subset
from rectifier_core.base.records import Interactions
from rectifier_core.base.seeding import derive_seed, generator
from rectifier_core.evaluation.backbones.config import LightGCNConfig
from rectifier_core.evaluation.config import AlignmentConfig
from rectifier_core.evaluation.edge_prior import (
    Prior,
    degree_matched_pairs,
    fit_prior,
    fold_numbers,
    out_of_fold_scores,
)
from rectifier_core.evaluation.edges import edit_edges
from rectifier_core.evaluation.metrics import per_user_ranking
from rectifier_core.evaluation.ranking import rank_items

Operation = Literal["pruning", "completion"]
OPERATIONS: tuple[Operation, ...] = get_args(Operation)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gain:
    """The change of held-out Recall@20 on training slices at one strength: the mean over users, and its standard error."""

    mean: float
    error: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Alignment:
    """How far a log's prior can be trusted, and the strengths that follow.

    ``scores`` [E] are the out-of-fold scores for pruning. ``gains[operation][ratio]`` has the ratios that were tried, up to ``trust``.
    """

    separation: float
    stability: float
    trust: float
    pruning: float
    completion: float
    scores: Float32
    gains: Mapping[Operation, Mapping[float, Gain]]


def assess_alignment(training: Interactions, config: AlignmentConfig, *, seed: int) -> Alignment:
    """Judge the prior of these pairs and set both strengths; deterministic in ``seed``."""
    scores, null = out_of_fold_scores(training, config.prior, config.folds, seed=seed)
    separated = separation(scores[~np.isnan(scores)], null[~np.isnan(null)])
    stability = stability_of_halves(training, config.prior.model, seed=seed)
    trust = trust_in_prior(separated, stability)
    gains = _gains(training, config, [ratio for ratio in config.ratios if ratio <= trust], seed)
    pruning, completion = (choose_strength(gains[x], config.errors) for x in OPERATIONS)
    return Alignment(
        separation=separated,
        stability=stability,
        trust=trust,
        pruning=pruning,
        completion=completion,
        scores=scores,
        gains=gains,
    )


def trust_in_prior(separated: float, stability: float) -> float:
    """The geometric mean of 2 ``separated`` - 1 and ``stability``, in [0, 1]; 0 where either is at chance or NaN."""
    above = max(0.0, np.nan_to_num(2 * separated - 1)) * max(0.0, np.nan_to_num(stability))
    return float(np.sqrt(min(1.0, above)))


def stability_of_halves(training: Interactions, model: LightGCNConfig, *, seed: int) -> float:
    """How well the item positions of two halves of the pairs agree, beyond what their degrees alone give: at most 1.

    (r - r0) / (1 - r0) for the mean split-half reliability r of the log and r0 of degree-matched pairs. Single pairs cannot be compared in a
    sparse log, because a pair of one half is missing in the other.
    """
    users, items = degree_matched_pairs(training, generator(seed, "alignment", "null"))
    agreed, by_degree = (
        _mean_reliability(log, model, seed) for log in (training, replace(training, users=users, items=items))
    )
    return (agreed - by_degree) / max(1 - by_degree, 1e-6)


def _mean_reliability(log: Interactions, model: LightGCNConfig, seed: int) -> float:
    rng = generator(seed, "alignment", "halves")
    return float(split_half_reliability(log, model.embedding_size, model.num_layers, rng)[log.items].mean())


def choose_strength(gains: Mapping[float, Gain], errors: float) -> float:
    """The smallest ratio within one standard error of the best gain; 0 unless that gain is above ``errors`` of its standard errors."""
    if not gains:
        return 0.0
    best = max(gains.values(), key=lambda x: x.mean)
    if not best.mean > errors * best.error:
        return 0.0
    return min(ratio for ratio, gain in gains.items() if gain.mean >= best.mean - best.error)


def _gains(
    training: Interactions, config: AlignmentConfig, ratios: Sequence[float], seed: int
) -> dict[Operation, dict[float, Gain]]:
    """Per operation and ratio: the paired difference to no editing, over the users of all slices."""
    slices = fold_numbers(training, 5, generator(seed, "alignment", "slices"))
    differences: dict[Operation, dict[float, list[Float64]]] = {x: {r: [] for r in ratios} for x in OPERATIONS}
    for number in range(config.slices if ratios else 0):
        rest, held_out = subset(training, slices != number), subset(training, slices == number)
        if not len(rest.users) or not len(held_out.users):
            continue
        inner = derive_seed(seed, "slice", number)
        prior = fit_prior(rest, config.prior, seed=inner)
        scores, _ = out_of_fold_scores(rest, config.prior, config.folds, seed=inner)
        before = _recall(prior, rest, held_out)
        for operation in OPERATIONS:
            for ratio in ratios:
                edited = edit_edges(rest, prior, scores=scores, **{operation: ratio})
                after = _recall(fit_prior(edited.pairs, config.prior, seed=inner), rest, held_out)
                differences[operation][ratio].append(after - before)
    return {
        operation: {ratio: _gain(np.concatenate(parts)) for ratio, parts in by_ratio.items() if parts}
        for operation, by_ratio in differences.items()
    }


def _gain(differences: Float64) -> Gain:
    return Gain(mean=float(differences.mean()), error=float(differences.std() / np.sqrt(max(1, len(differences)))))


def _recall(prior: Prior, known: Interactions, held_out: Interactions) -> Float64:
    """Recall@20 per user with a pair in both, known pairs masked."""
    users = np.intersect1d(held_out.users, known.users).astype(np.int32)
    ranked = rank_items(torch.from_numpy(prior.users), torch.from_numpy(prior.items), users, known)
    return per_user_ranking(ranked, users, held_out).recall[20]
