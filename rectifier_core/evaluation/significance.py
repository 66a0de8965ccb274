"""Paired comparison of recommenders: a difference with its interval and p value, and Holm's correction for many comparisons.

Values are arranged by seed (one training each) and test user. Both are samples: another training or other users would give other numbers.
The variance of a mean therefore has two parts, one from the seeds and one from the users. Their sum counts the noise of a single
(seed, user) twice, so intervals err on the wide side, as those of the pigeonhole bootstrap do (Owen, Annals of Applied Statistics 2007).

Seeds are few, so intervals and p values come from Student's t with as many degrees of freedom as there are seeds less one. Ratios use the
delta method. With one seed the interval describes the users only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.stats
from numpy.typing import ArrayLike

from rectifier_core.base.arrays import Float64

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A value with its 95 % interval, and the two-sided p value of the hypothesis that it is zero; NaN where it does not exist."""

    mean: float
    low: float
    high: float
    p: float


UNKNOWN = Estimate(mean=float("nan"), low=float("nan"), high=float("nan"), p=float("nan"))


def mean_estimate(values: ArrayLike) -> Estimate:
    """The mean of ``values`` [S, N] over users, then over seeds; see ``ratio_estimate``."""
    return ratio_estimate(values, np.ones_like(values, dtype=np.float64))


def relative_change(a: ArrayLike, b: ArrayLike, *, student: bool = True) -> Estimate:
    """The change from ``b`` to ``a`` relative to the mean of ``b``, both [S, N]; see ``ratio_estimate``."""
    return ratio_estimate(np.subtract(a, b), b, student=student)


def ratio_estimate(part: ArrayLike, whole: ArrayLike, *, student: bool = True) -> Estimate:
    """The ratio of the means of ``part`` and ``whole``, both [S, N] by seed and user.

    NaN marks a user that a seed did not test. Without ``student`` the normal distribution replaces Student's t. That interval is too narrow
    for a few seeds. All fields are NaN where ``whole`` has mean zero. Raises ValueError for other shapes or a seed without users.
    """
    top, bottom = (np.asarray(x, dtype=np.float64) for x in (part, whole))
    if top.ndim != 2 or top.shape != bottom.shape:
        raise ValueError(f"wanted two arrays (seeds, users) of one shape, got {top.shape} and {bottom.shape}")
    known = np.isfinite(top) & np.isfinite(bottom)
    if not known.size or not known.any(axis=1).all():
        raise ValueError("wanted at least one tested user in every seed")
    top, bottom = (np.where(known, x, np.nan)[:, known.any(axis=0)] for x in (top, bottom))
    scale = float(np.nanmean(bottom, axis=1).mean())
    if scale == 0:
        return UNKNOWN
    value = float(np.nanmean(top, axis=1).mean()) / scale
    error = _standard_error((top - value * bottom) / scale)
    seeds, users = top.shape
    degrees = max(1, seeds - 1 if seeds > 1 else users - 1) if student else np.inf
    reach = error * float(scipy.stats.t.ppf((1 + CONFIDENCE) / 2, degrees))
    p = 2 * float(scipy.stats.t.sf(abs(value) / error, degrees)) if error > 0 else float(value == 0)
    return Estimate(mean=value, low=value - reach, high=value + reach, p=p)


def _standard_error(influence: Float64) -> float:
    """The standard error of the mean of ``influence`` [S, N], from the spread of its seeds and of its users."""
    parts = (np.nanmean(influence, axis=axis) for axis in (0, 1))
    return float(np.sqrt(sum(x.var(ddof=1) / len(x) for x in parts if len(x) > 1)))


def holm(p: Sequence[float] | Float64) -> Float64:
    """Holm's step-down correction of ``p`` [M] (Scandinavian Journal of Statistics 1979); NaN entries stay NaN and do not count."""
    values = np.asarray(p, dtype=np.float64)
    adjusted = np.full(values.shape, np.nan)
    tested = np.flatnonzero(np.isfinite(values))
    order = tested[np.argsort(values[tested], kind="stable")]
    adjusted[order] = np.minimum(np.maximum.accumulate(values[order] * np.arange(len(order), 0, -1)), 1.0)
    return adjusted
