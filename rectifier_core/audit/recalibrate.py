"""Compare the probabilities with hand-made labels, and recalibrate them.

Source: Platt scaling (Platt, 1999) on the logit, logit p' = shift + exp(log_slope) logit p. Differs from the paper: a normal prior holds
shift and log_slope near 0, so ten labels change little and thousands decide. The slope is positive, so the order of the items stays. The
fit conditions on the probability, so the labelled items need not be a random sample. The plain share of the labels needs one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import optimize, stats

from rectifier_core.base.arrays import Bool, Float32, Float64, Int64
from rectifier_core.base.numerics import logit, separation

SHIFT_SPREAD = 1.0
SLOPE_SPREAD = 0.5
LIMIT = 1e-6
REACH = 1.96
EDGES = np.linspace(0.0, 1.0, 6)


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationBin:
    """Labelled items with a probability in [low, high): how many, the mean probability that they are their own, and the share that is."""

    low: float
    high: float
    labelled: int
    mean_probability: float
    share_own: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """Labels against probabilities, of ``labelled`` items that were judged (``unjudged`` more were labelled but have no probability).

    ``caught`` mismatches had a probability below one half and ``missed`` did not; ``blamed`` innocents had one below it and
    ``cleared`` did not. ``auc`` (None without both kinds) has the 95 % interval [auc_low, auc_high]. ``rate_by_labels`` with its 95 %
    Clopper-Pearson interval holds for all judged items only if the labelled ones were drawn at random. ``like_random`` is False where
    their mean probability differs from everyone's by more than three standard errors.
    """

    labelled: int
    unjudged: int
    mismatches: int
    caught: int
    missed: int
    blamed: int
    cleared: int
    brier: float
    log_loss: float
    auc: float | None
    auc_low: float | None
    auc_high: float | None
    rate_by_labels: float
    rate_low: float
    rate_high: float
    like_random: bool
    bins: tuple[CalibrationBin, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recalibration:
    """``probability`` [I] recalibrated by the labels, NaN where it was NaN.

    ``rate`` is the mismatch rate it implies over all judged items. [rate_low, rate_high] is its 95 % interval by the curvature of the fit
    (Laplace). It covers the uncertainty of the labels, not that of the items.
    """

    probability: Float32
    shift: float
    slope: float
    rate: float
    rate_low: float
    rate_high: float
    brier: float
    log_loss: float
    agreement: Agreement

    def apply(self, probability: Float32) -> Float32:
        """The same correction of other values on the same scale, such as bounds of the probabilities; NaN stays NaN."""
        mended = np.full(len(probability), np.nan, np.float32)
        known = ~np.isnan(probability)
        mended[known] = _moved(probability[known].astype(np.float64), self.shift, self.slope)
        return mended


def recalibrate(probability: Float32, rows: Int64, is_mismatch: Bool) -> Recalibration | None:
    """Compare labels with ``probability`` [I] and recalibrate it. ``rows`` [L] are the labelled items, each once, ``is_mismatch`` [L] the labels.

    None when no labelled item has a probability. Raises ValueError when rows repeat or the lengths differ.
    """
    if len(rows) != len(is_mismatch) or len(np.unique(rows)) != len(rows):
        raise ValueError(
            f"rows, is_mismatch: wanted one verdict an item, got {len(rows)} rows and {len(is_mismatch)} verdicts"
        )
    judged = ~np.isnan(probability[rows])
    if not judged.any():
        return None
    p, own = probability[rows[judged]].astype(np.float64), ~is_mismatch[judged]
    at, covariance = _fit(logit(p), own)
    shift, slope = float(at[0]), float(np.exp(at[1]))
    everyone = np.flatnonzero(~np.isnan(probability))
    rate, error = _rate(probability[everyone].astype(np.float64), at, covariance)
    mended = np.full(len(probability), np.nan, np.float32)
    mended[everyone] = _moved(probability[everyone].astype(np.float64), shift, slope)
    after = mended[rows[judged]].astype(np.float64)
    return Recalibration(
        probability=mended,
        shift=shift,
        slope=slope,
        rate=rate,
        rate_low=max(0.0, rate - REACH * error),
        rate_high=min(1.0, rate + REACH * error),
        brier=_brier(after, own),
        log_loss=_log_loss(after, own),
        agreement=_agreement(probability[everyone].astype(np.float64), p, own, int((~judged).sum())),
    )


def _fit(log_odds: Float64, own: Bool) -> tuple[Float64, Float64]:
    """The most likely (shift, log slope) given the labels and the prior, and their covariance there."""
    sign = np.where(own, -1.0, 1.0)

    def loss(at: Float64) -> float:
        wrong = np.logaddexp(0.0, sign * (at[0] + np.exp(at[1]) * log_odds)).sum()
        return float(wrong + 0.5 * (at[0] / SHIFT_SPREAD) ** 2 + 0.5 * (at[1] / SLOPE_SPREAD) ** 2)

    found = optimize.minimize(loss, np.zeros(2), method="L-BFGS-B", bounds=[(-10.0, 10.0), (-3.0, 3.0)])
    at: Float64 = found.x
    slope = np.exp(at[1])
    p = 1 / (1 + np.exp(-(at[0] + slope * log_odds)))
    curvature = p * (1 - p)
    directions = np.stack([np.ones_like(log_odds), slope * log_odds])
    information = (directions * curvature) @ directions.T + np.diag([SHIFT_SPREAD**-2, SLOPE_SPREAD**-2])
    return at, np.linalg.inv(information)


def _rate(p: Float64, at: Float64, covariance: Float64) -> tuple[float, float]:
    """The mismatch rate that mended probabilities imply, and its standard error by the delta method."""
    steps = 1e-4 * np.eye(2)
    centre = float(1 - _moved(p, float(at[0]), float(np.exp(at[1]))).astype(np.float64).mean())
    slopes = np.array(
        [(1 - _moved64(p, at + step).mean() - (1 - _moved64(p, at - step).mean())) / 2e-4 for step in steps]
    )
    return centre, float(np.sqrt(slopes @ covariance @ slopes))


def _moved64(p: Float64, at: Float64) -> Float64:
    moved: Float64 = 1 / (1 + np.exp(-(at[0] + np.exp(at[1]) * logit(p))))
    return moved


def _moved(p: Float64, shift: float, slope: float) -> Float32:
    moved: Float32 = _moved64(p, np.array([shift, np.log(slope)])).astype(np.float32)
    return moved


def _brier(p: Float64, own: Bool) -> float:
    return float(((p - own) ** 2).mean())


def _log_loss(p: Float64, own: Bool) -> float:
    held = np.clip(p, LIMIT, 1 - LIMIT)
    return float(-np.log(np.where(own, held, 1 - held)).mean())


def _agreement(everyone: Float64, p: Float64, own: Bool, unjudged: int) -> Agreement:
    suspected, mismatches = p < 0.5, int((~own).sum())
    auc = separation(p[own], p[~own])
    known = not np.isnan(auc)
    auc_low, auc_high = _auc_interval(auc, int(own.sum()), mismatches) if known else (None, None)
    interval = stats.binomtest(mismatches, len(own)).proportion_ci(0.95, method="exact")
    error = float(everyone.std() / np.sqrt(len(p)))
    return Agreement(
        labelled=len(own),
        unjudged=unjudged,
        mismatches=mismatches,
        caught=int((suspected & ~own).sum()),
        missed=int((~suspected & ~own).sum()),
        blamed=int((suspected & own).sum()),
        cleared=int((~suspected & own).sum()),
        brier=_brier(p, own),
        log_loss=_log_loss(p, own),
        auc=auc if known else None,
        auc_low=auc_low,
        auc_high=auc_high,
        rate_by_labels=mismatches / len(own),
        rate_low=float(interval.low),
        rate_high=float(interval.high),
        like_random=bool(abs(p.mean() - everyone.mean()) <= 3 * error),
        bins=_bins(p, own),
    )


def _auc_interval(auc: float, positives: int, negatives: int) -> tuple[float, float]:
    """The values that ``auc`` is within 1.96 of their own standard errors of (Hanley and McNeil, 1982). Unlike +- 1.96, it also works at 1."""
    true = np.linspace(0.0, 1.0, 2001)
    one, two = true / (2 - true), 2 * true**2 / (1 + true)
    variance = true * (1 - true) + (positives - 1) * (one - true**2) + (negatives - 1) * (two - true**2)
    error = np.sqrt(np.maximum(variance, 0.0) / (positives * negatives))
    inside = true[np.abs(auc - true) <= REACH * error + 5e-4]
    return float(min(inside.min(), auc)), float(max(inside.max(), auc))


def _bins(p: Float64, own: Bool) -> tuple[CalibrationBin, ...]:
    place = np.minimum(np.digitize(p, EDGES) - 1, len(EDGES) - 2)
    return tuple(
        CalibrationBin(
            low=float(EDGES[at]),
            high=float(EDGES[at + 1]),
            labelled=int((place == at).sum()),
            mean_probability=float(p[place == at].mean()),
            share_own=float(own[place == at].mean()),
        )
        for at in np.unique(place)
    )
