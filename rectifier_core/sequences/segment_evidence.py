"""Likelihood ratio of a segment's scores: its own item against a random one.

Source: density ratio by logistic regression (Qin, Biometrika 1998; Sugiyama et al., "Density Ratio Estimation", 2012) of actual against
re-paired scores. Differs from the paper: actual scores are weighted by the probability that the segment is right. This is
expectation-maximisation of a mixture with one known component (Blanchard et al., JMLR 2010). Without the weights the ratio would level off
at the share of wrong segments.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rectifier_core.base.arrays import Float64, Int64
from rectifier_core.base.numerics import row_blocks

LEVELS = np.linspace(0.05, 0.5, 10)
_PENALTY = 1e-4
_STEPS = 50
_LARGEST = 30.0
_BLOCK_ROWS = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """Scores of N segments, [N] float64 each, NaN where a score is missing. ``companions`` is their total weight, ``reliability`` the anchor's."""

    anchor: Float64
    consensus: Float64
    companions: Float64
    reliability: Float64

    def take(self, rows: Int64) -> Scores:
        """Some of the segments."""
        return Scores(
            anchor=self.anchor[rows],
            consensus=self.consensus[rows],
            companions=self.companions[rows],
            reliability=self.reliability[rows],
        )

    def terms(self) -> Float64:
        """The terms of the log ratio: [N, 9], five of the anchor, then four of the companions. A missing score adds 0."""
        return np.concatenate(
            [_anchor_terms(self.anchor, self.reliability), _consensus_terms(self.consensus, self.companions)], axis=1
        )


def _anchor_terms(anchor: Float64, reliability: Float64) -> Float64:
    has = ~np.isnan(anchor)
    score, known = np.where(has, anchor, 0.0), np.where(has, reliability, 0.0)
    return np.stack([has, known, score, score * known, score**2], axis=1)


def _consensus_terms(consensus: Float64, companions: Float64) -> Float64:
    has = ~np.isnan(consensus)
    score, weight = np.where(has, consensus, 0.0), np.log(np.maximum(companions, 1e-3))
    return np.stack([has, score, score * weight, score**2], axis=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogRatio:
    """A fitted log density ratio, linear in the terms: ``weights`` [10], the constant first.

    Scores are clipped to ``anchor_range`` and ``consensus_range``, where the fit has data. Beyond them the square could reverse the slope.
    """

    weights: Float64
    anchor_range: tuple[float, float]
    consensus_range: tuple[float, float]

    def of(self, scores: Scores) -> Float64:
        """The log-likelihood ratio of each segment, right against wrong: [N]."""
        value = np.zeros(len(scores.anchor))
        for block in row_blocks(len(value), _BLOCK_ROWS):
            said = self.by_anchor(scores.anchor[block], scores.reliability[block])
            value[block] = said + self.by_consensus(scores.consensus[block], scores.companions[block])
        return np.clip(value, -_LARGEST, _LARGEST)

    def by_anchor(self, anchor: Float64, reliability: Float64) -> Float64:
        """The anchor's part of the log ratio, with the constant."""
        said: Float64 = (
            _anchor_terms(np.clip(anchor, *self.anchor_range), reliability) @ self.weights[1:6] + self.weights[0]
        )
        return said

    def by_consensus(self, consensus: Float64, companions: Float64) -> Float64:
        """The companions' part of the log ratio, without the constant."""
        said: Float64 = _consensus_terms(np.clip(consensus, *self.consensus_range), companions) @ self.weights[6:]
        return said


def fit_log_ratio(actual: Scores, null: Scores, prior: float, rounds: int = 3) -> LogRatio:
    """Fit on actual and re-paired scores. ``prior`` is the assumed share of wrong segments among the actual ones."""
    observed, drawn = actual.terms(), null.terms()
    terms = np.concatenate([observed, drawn])
    centre, scale = terms.mean(axis=0), terms.std(axis=0)
    scale = np.where(scale > 0, scale, 1.0)
    design = np.column_stack([np.ones(len(terms)), (terms - centre) / scale])
    target = np.concatenate([np.ones(len(observed)), np.zeros(len(drawn))])
    ranges = _range(actual.anchor, null.anchor), _range(actual.consensus, null.consensus)
    sound, standard = np.ones(len(observed)), np.zeros(design.shape[1])
    for _ in range(rounds):
        shares = np.concatenate([sound / sound.sum(), np.full(len(drawn), 1 / len(drawn))])
        standard = _logistic(design, target, shares, standard)
        weights = np.concatenate([[standard[0] - standard[1:] @ (centre / scale)], standard[1:] / scale])
        found = LogRatio(weights=weights, anchor_range=ranges[0], consensus_range=ranges[1])
        sound = own_probability(found.of(actual), prior)
    return found


def _range(*scores: Float64) -> tuple[float, float]:
    known = np.concatenate(scores)
    known = known[~np.isnan(known)]
    low, high = np.quantile(known, [0.005, 0.995]) if len(known) else (-1.0, 1.0)
    return float(low), float(high)


def own_probability(log_ratio: Float64, wrong_rate: float) -> Float64:
    """The probability that a segment is its item's own, from its log ratio and the prior ``wrong_rate``."""
    probability: Float64 = 1 / (1 + np.exp(-np.clip(log_ratio, -_LARGEST, _LARGEST)) * wrong_rate / (1 - wrong_rate))
    return probability


def wrong_share(actual: Float64, null: Float64) -> float:
    """The share of wrong segments: the ratio of the two distribution functions, averaged over the null's lower half."""
    below = [float((actual <= bound).mean()) for bound in np.quantile(null, LEVELS)]
    return float(np.clip(np.mean(below / LEVELS), 0.0, 1.0))


def _logistic(design: Float64, target: Float64, shares: Float64, start: Float64) -> Float64:
    weights = start.copy()
    penalty = 2 * _PENALTY * np.concatenate([[0.0], np.ones(design.shape[1] - 1)])
    for _ in range(_STEPS):
        chance = 1 / (1 + np.exp(-np.clip(design @ weights, -_LARGEST, _LARGEST)))
        slope = design.T @ (shares * (target - chance)) - penalty * weights
        # The tiny ridge on the constant keeps the system solvable when the two samples part completely.
        curve = (design * (shares * chance * (1 - chance))[:, None]).T @ design + np.diag(penalty + 1e-9)
        step = np.linalg.solve(curve, slope)
        # A Newton step far from the optimum can overshoot; no sensible weight of a standardised term moves by more than this at once.
        step *= min(1.0, 5.0 / max(float(np.abs(step).max()), 1e-12))
        weights += step
        if np.abs(step).max() < 1e-7:
            break
    return weights
