"""Stage: trust, how likely each item's own feature is truly its own.

Source: two-component view of DivideMix (Li et al., ICLR 2020) with the corrupted component known by construction: the alignment of
deliberately
re-paired items. The rate is the ratio of the two distribution functions over the null's lower half (Blanchard et al., JMLR 2010, mixture
proportion estimation); the probability is the equal-variance two-class posterior, a logistic curve in the score, hence monotone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rectifier_core.numerics import separation
from rectifier_core.records import Float32, Float64, Int64, Projection, Trust
from rectifier_core.seeding import generator

LEVELS = np.linspace(0.05, 0.5, 10)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustConfig:
    """When to speak at all: at least ``min_items`` judged items and an AUC of matched against re-paired alignment of ``min_separation``.

    The AUC must clear the bound by three standard errors. ``resamples`` bootstrap draws give the 95 % interval of the rate; its lower
    end is 0 unless the pairs taken for matched separate from the null with an AUC of at least ``sharp_separation``.
    """

    min_items: int = 100
    min_separation: float = 0.52
    sharp_separation: float = 0.9
    resamples: int = 200

    def __post_init__(self) -> None:
        if self.min_items < 2 or self.resamples < 2:
            raise ValueError(f"min_items, resamples: wanted at least 2, got {self.min_items}, {self.resamples}")
        for name in ("min_separation", "sharp_separation"):
            if not 0.5 <= getattr(self, name) < 1:
                raise ValueError(f"{name}: wanted an AUC in [0.5, 1), got {getattr(self, name)}")


def judge_trust(projection: Projection, config: TrustConfig, *, seed: int) -> Trust:
    """Rate, interval and per-item probability of one modality from ``projection.alignment`` against ``projection.null_alignment``."""
    judged = ~np.isnan(projection.alignment)
    scores, null = projection.alignment[judged].astype(np.float64), projection.null_alignment.astype(np.float64)
    auc = separation(scores, null)
    reason = _why_not(len(scores), auc, len(null), config)
    probability = np.full(len(judged), np.nan, np.float32)
    if reason is not None:
        return _trust(projection.modality, probability, None, None, None, False, auc, reason)
    rate = mismatch_rate(scores, null)
    low, high = _interval(scores, null, config.resamples, generator(seed, "trust", projection.modality, "bootstrap"))
    probability[judged] = _posterior(scores, null, rate)
    said = f"matched pairs align better than re-paired ones (AUC {auc:.3f} over {len(scores)} items)"
    # The ratio is an upper bound: what overlaps the null may be matched but weakly aligned. Only a well separated rest gives a lower one.
    rest = (auc - rate / 2) / (1 - rate) if rate < 1 else 0.5
    if rest < config.sharp_separation:
        low, said = 0.0, f"{said}, too weakly for a lower bound of the rate"
    return _trust(projection.modality, probability, rate, float(min(low, rate)), float(max(high, rate)), True, auc, said)


def mismatch_rate(scores: Float64, null: Float64) -> float:
    """Share of the null in ``scores``: the mean over the null's lower quantiles of F(t) / F0(t), clipped to [0, 1]."""
    return float(_rates(_counts(scores, null)[None])[0])


def _interval(scores: Float64, null: Float64, resamples: int, rng: np.random.Generator) -> tuple[float, float]:
    """The 95 % bootstrap interval over items: only counts between thresholds matter, and resampling items draws those as a multinomial."""
    counts = _counts(scores, null)
    low, high = np.quantile(_rates(rng.multinomial(len(scores), counts / len(scores), size=resamples)), [0.025, 0.975])
    return float(low), float(high)


def _counts(scores: Float64, null: Float64) -> Int64:
    """Scores up to the first threshold, between the thresholds, and above the last: [len(LEVELS) + 1]."""
    return np.bincount(np.searchsorted(np.quantile(null, LEVELS), scores, side="left"), minlength=len(LEVELS) + 1).astype(np.int64)


def _rates(counts: Int64) -> Float64:
    below = np.cumsum(counts[:, :-1], axis=1) / counts.sum(axis=1, keepdims=True)
    rates: Float64 = np.clip((below / LEVELS).mean(axis=1), 0.0, 1.0)
    return rates


def _why_not(count: int, auc: float, null_count: int, config: TrustConfig) -> str | None:
    if count < config.min_items:
        return f"only {count} items have both a feature and an anchor, fewer than min_items = {config.min_items}"
    error = 3 * float(np.sqrt((1 / count + 1 / null_count) / 12))
    if not auc - error >= config.min_separation:
        return (
            f"matched pairs align no better than re-paired ones: AUC {auc:.3f} with a standard error of {error / 3:.3f} does not clear "
            f"min_separation = {config.min_separation}"
        )
    return None


def _posterior(scores: Float64, null: Float64, rate: float) -> Float32:
    prior = float(np.clip(rate, 0.01, 0.9))
    low = float(null.mean())
    high = (float(scores.mean()) - prior * low) / (1 - prior)
    spread = max(float(null.var()), np.finfo(np.float64).tiny)
    logit = np.log((1 - prior) / prior) + max(high - low, 0.0) * (scores - (low + high) / 2) / spread
    probability: Float32 = (1 / (1 + np.exp(-np.clip(logit, -60, 60)))).astype(np.float32)
    return probability


def _trust(
    modality: str,
    probability: Float32,
    rate: float | None,
    low: float | None,
    high: float | None,
    identifiable: bool,
    auc: float,
    reason: str,
) -> Trust:
    return Trust(
        modality=modality,
        probability=probability,
        mismatch_rate=rate,
        low=low,
        high=high,
        identifiable=identifiable,
        separation=auc,
        reason=reason,
    )
