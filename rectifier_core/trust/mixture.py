"""Two-component mixture with one known component: the share of the null in the scores, and each score's posterior.

Source: the binormal model of an ROC curve (Dorfman and Alf, J. Math. Psychol. 1969): some monotone transform makes both distributions
normal. The interval is a bagged posterior (Buehlmann, 2014; Huggins and Miller, 2023): the posterior averaged over bootstrap resamples.
It is wide enough for matched scores that are not quite normal.

Differs from the papers:
- The null is measured, so its quantiles are the transform. In them the matched scores are N(shift, spread).
- Only counts between null quantiles enter. So any monotone transform of the score gives the same answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy.special import ndtr, ndtri

from rectifier_core.base.arrays import Float32, Float64, Int64
from rectifier_core.base.numerics import logit

TAIL = (0.0, 0.002, 0.005, 0.01, 0.02, 0.035, 0.05, 0.075)
EDGES: Float64 = np.concatenate([TAIL, np.arange(0.1, 0.901, 0.05), 1 - np.array(TAIL[::-1])])
"""Null quantiles between which scores are counted; finer in both tails, where the two components differ."""
RATES: Float64 = np.concatenate([np.arange(0.0, 0.1, 0.005), np.arange(0.1, 0.991, 0.01)])
SHIFTS: Float64 = np.arange(0.0, 5.01, 0.1)
SPREADS: Float64 = np.arange(0.5, 1.201, 0.05)
SPREAD_SLOPE, SPREAD_DEVIATION = 0.1, 0.08
"""The prior of the spread is N(1 - 0.1 shift, 0.08): a cosine that is high on average has less room to vary."""
EFFECTIVE = 1_500
"""More scores than this do not make the interval narrower: only the model's own error is left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixture:
    """A fitted mixture: ``rate`` is the share of the null and [``low``, ``high``] its 95 % interval.

    ``knots`` [B] are rising scores. ``own`` [B] is the logit of the probability that such a score is not from the null, and ``own_upper``
    [B] that of its upper 90 % bound.
    """

    rate: float
    low: float
    high: float
    knots: Float64
    own: Float64
    own_upper: Float64

    def probability(self, scores: Float64) -> Float32:
        """Return the probability that each score is not from the null: [N] float32, strictly rising in the score."""
        return _curve(scores, self.knots, self.own)

    def log_ratio(self, scores: Float64) -> Float64:
        """Return the log of how many times likelier each score is where it is not from the null: [N]."""
        return logit(self.probability(scores)) - logit(1 - self.rate)

    def probability_upper(self, scores: Float64) -> Float32:
        """Return the upper 90 % bound of ``probability``: [N] float32."""
        return np.maximum(_curve(scores, self.knots, self.own_upper), self.probability(scores))


def fit_mixture(scores: Float64, null: Float64, *, resamples: int, rng: np.random.Generator) -> Mixture:
    """Fit the share of ``null`` [M] in ``scores`` [N], by ``resamples`` bootstrap draws. Both need at least one value."""
    quantiles = np.quantile(null, EDGES[1:-1])
    counts = np.bincount(np.searchsorted(quantiles, scores, side="left"), minlength=len(EDGES) - 1).astype(np.int64)
    posterior = _bagged_posterior(counts, resamples, rng)
    marginal = posterior.sum(axis=1)
    low, high = _quantile(RATES, marginal, 0.025), _quantile(RATES, marginal, 0.975)
    own, upper = _own(posterior)
    knots = np.quantile(null, (EDGES[1:] + EDGES[:-1]) / 2)
    return Mixture(rate=float(marginal @ RATES), low=low, high=high, knots=_rising(knots), own=own, own_upper=upper)


@cache
def _matched_masses() -> Float32:
    """Return the mass of every matched distribution between the edges: [shifts * spreads, B]."""
    z = ndtri(EDGES)
    laws = ndtr((z[None, None] - SHIFTS[:, None, None]) / SPREADS[None, :, None])
    masses: Float32 = np.diff(laws, axis=2).reshape(-1, len(EDGES) - 1).astype(np.float32)
    return masses


@cache
def _log_masses() -> Float32:
    """Return the log mass of every mixture between the edges: [rates, shifts * spreads, B]."""
    rates = RATES[:, None, None].astype(np.float32)
    mixed = rates * np.diff(EDGES).astype(np.float32) + (1 - rates) * _matched_masses()[None]
    logged: Float32 = np.log(np.maximum(mixed, np.float32(1e-9)))
    return logged


@cache
def _log_prior() -> Float32:
    """Return the log prior [rates, shifts * spreads]: flat in rate (the grid is uneven) and shift, normal in spread."""
    spread = -0.5 * ((SPREADS[None] - (1 - SPREAD_SLOPE * SHIFTS[:, None])) / SPREAD_DEVIATION) ** 2
    logged: Float32 = (np.log(np.gradient(RATES))[:, None] + spread.reshape(1, -1)).astype(np.float32)
    return logged


def _bagged_posterior(counts: Int64, resamples: int, rng: np.random.Generator) -> Float64:
    """Return the posterior [rates, shifts * spreads], averaged over resampled counts."""
    total = int(counts.sum())
    draws = rng.multinomial(total, counts / total, size=resamples) * min(1.0, EFFECTIVE / total)
    masses, prior = _log_masses(), _log_prior()
    posterior = np.zeros(prior.shape)
    for draw in draws.astype(np.float32):
        logged = masses @ draw + prior
        weight = np.exp(logged - logged.max(), dtype=np.float64)
        posterior += weight / weight.sum()
    return posterior / resamples


def _quantile(values: Float64, weights: Float64, level: float) -> float:
    """Return the weighted quantile, interpolated between grid values."""
    cumulative = np.cumsum(weights) - weights / 2
    return float(np.interp(level * weights.sum(), cumulative, values))


def _own(posterior: Float64) -> tuple[Float64, Float64]:
    """Return the logit per bin of the probability of not being from the null, and of its upper 90 % bound, both rising."""
    rate, law = np.nonzero(posterior > 1e-7 * posterior.max())
    weight = posterior[rate, law] / posterior[rate, law].sum()
    matched = (1 - RATES[rate])[:, None] * _matched_masses()[law]
    share = matched / np.maximum(matched + RATES[rate][:, None] * np.diff(EDGES), 1e-12)
    order = np.argsort(share, axis=0)
    reached = np.cumsum(weight[order], axis=0) >= 0.9
    upper = np.take_along_axis(share, order, axis=0)[reached.argmax(axis=0), np.arange(share.shape[1])]
    return logit(np.maximum.accumulate(weight @ share)), logit(np.maximum.accumulate(upper))


def _rising(knots: Float64) -> Float64:
    """Return the knots without ties, as interpolation needs them."""
    step = max(1e-12, 1e-9 * float(np.abs(knots).max()))
    rising: Float64 = np.maximum.accumulate(knots + step * np.arange(len(knots)))
    return rising


def _curve(scores: Float64, knots: Float64, logits: Float64) -> Float32:
    """Return the logistic of ``logits``, interpolated between the knots and extended beyond them at the mean slope."""
    spread = max(float(knots[-1] - knots[0]), 1e-12)
    log_odds = np.interp(scores, knots, logits) + (scores - np.clip(scores, knots[0], knots[-1])) * (
        np.ptp(logits) / spread
    )
    tilted = log_odds + 1e-3 * (scores - knots[0]) / spread
    probability: Float32 = (1 / (1 + np.exp(-np.clip(tilted, -60, 60)))).astype(np.float32)
    return probability
