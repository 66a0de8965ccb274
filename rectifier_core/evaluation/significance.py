"""Whether a difference between two recommenders is more than chance: paired tests, intervals, and many of them at once.

Values are arranged by seed (one training each) and user. Both are samples: another training and other users would have given other
numbers, so both are resampled, each by itself and the same draws for every recommender, which keeps the comparison paired.

Sources: Wilcoxon (Biometrics Bulletin 1945); Efron and Tibshirani, An Introduction to the Bootstrap (1993), ch. 13 (percentile interval)
and 16 (test by a replicate distribution shifted to the null); Owen, The pigeonhole bootstrap (Annals of Applied Statistics 2007), for
resampling the two sides of a crossed design separately, which errs on the wide side; Smucker, Allan and Carterette (CIKM 2007), who found
bootstrap and randomisation tests of per-query means to agree, and the Wilcoxon test to lose power; Holm (Scandinavian Journal of
Statistics 1979).

Seeds are few, and a plain bootstrap of five calls chance a finding far too often: whenever five differences happen to agree in sign, one
time in sixteen, no replicate crosses zero and p is as small as the replicates allow, which no correction for many comparisons mends.
So S - 1 of S seeds are drawn, not S, which gives the mean over seeds its full variance (Rao and Wu, JASA 1988), and what a draw of seeds
does is stretched by a random sqrt((S - 1) / chi-square), which turns the normal distribution of such a mean into Student's t with S - 1
degrees of freedom (Student, Biometrika 1908; Hesterberg, The American Statistician 2015, on bootstrap intervals of small samples being
too narrow by just this). Two or three seeds then hardly prove anything; a gate that must speak up on so few can leave the stretch out
(``student=False``) and live with false alarms. With one seed there is nothing to draw, and an interval speaks of the users only.

``n`` pairs give the two-sided Wilcoxon test at best ``2 ** (1 - n)``: five seeds cannot go below .0625.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.stats
from numpy.typing import ArrayLike

from rectifier_core.base.arrays import Bool, Float64
from rectifier_core.base.numerics import row_blocks
from rectifier_core.base.seeding import generator

RESAMPLES = 10_000
CONFIDENCE = 0.95
BLOCK_DRAWS = 4_000_000
"""Draws of users held at a time: 64 MB as counts and indices."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wilcoxon:
    """Two-sided ``p`` over ``pairs`` pairs, and the ``smallest`` p that so many pairs can give."""

    p: float
    pairs: int
    smallest: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """An estimate with its interval and the two-sided p of the hypothesis that it is zero."""

    mean: float
    low: float
    high: float
    p: float


def wilcoxon_paired(a: ArrayLike, b: ArrayLike) -> Wilcoxon:
    """Signed-rank test of ``a`` [S] against ``b`` [S], one value a seed; exact up to 50 pairs, or 13 where differences tie.

    Pairs without a difference are dropped, as Wilcoxon did; with none left, p is 1. NaN without pairs.
    """
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if first.ndim != 1 or first.shape != second.shape:
        raise ValueError(f"wilcoxon: wanted two series of one length, got shapes {first.shape} and {second.shape}")
    pairs = len(first)
    if not pairs:
        return Wilcoxon(p=float("nan"), pairs=0, smallest=float("nan"))
    change = first - second
    change = change[change != 0]
    p = float(scipy.stats.wilcoxon(change).pvalue) if len(change) else 1.0
    return Wilcoxon(p=p, pairs=pairs, smallest=2.0 ** (1 - pairs))


def resampled_means(values: ArrayLike, *, seed: int, resamples: int = RESAMPLES, student: bool = True) -> Float64:
    """Replicates of each recommender's mean, float64 [resamples, M], under one set of draws of seeds and users for all of them.

    ``values`` [M, S, N] of M recommenders, S seeds and N users, NaN where a user was not tested; a (seed, user) that any recommender lacks
    counts for none. A mean is over users within a seed, then over seeds. Any function of a row is a replicate of the same function of
    the means: a difference, a ratio, a share. Without ``student`` the draws of seeds are not stretched (see above). Raises ValueError for
    another shape, or a seed without a user common to all.
    """
    table = _table(values)
    known = np.isfinite(table).all(axis=0)
    cells, seeds, users = table.shape
    rng = generator(seed, "significance")
    weights = _seed_weights(rng, resamples, seeds, student)
    filled = np.where(known, table, 0.0)
    flat, by_seed = filled.reshape(cells * seeds, users).T, filled.sum(axis=2) / known.sum(axis=1)
    means = np.empty((resamples, cells))
    for rows in row_blocks(resamples, max(1, BLOCK_DRAWS // users)):
        counts = _counts(rng, rows.stop - rows.start, users)
        there = (counts @ known.T.astype(np.float64))[:, None, :]
        # A draw may miss every user of a small seed; that seed then keeps its own mean.
        drawn = np.where(there > 0, (counts @ flat).reshape(-1, cells, seeds) / np.maximum(there, 1), by_seed)
        means[rows] = np.einsum("rcs,rs->rc", drawn, weights[rows])
    return means


def common_means(values: ArrayLike) -> Float64:
    """The means [M] that ``resampled_means`` has replicates of."""
    table = _table(values)
    known = np.isfinite(table).all(axis=0)
    means: Float64 = (np.where(known, table, 0.0).sum(axis=2) / known.sum(axis=1)).mean(axis=1)
    return means


def interval(estimate: float, replicates: Float64, *, confidence: float = CONFIDENCE) -> Difference:
    """``estimate`` with the percentile interval of its ``replicates`` [B] and the p of a true value of zero.

    p is the share of replicates at least as far from the estimate as zero is, the estimate itself counted as one: never below 1 / (B + 1).
    Replicates that are not finite are left out.
    """
    kept = replicates[np.isfinite(replicates)]
    if not len(kept) or not np.isfinite(estimate):
        return Difference(mean=float(estimate), low=float("nan"), high=float("nan"), p=float("nan"))
    low, high = np.quantile(kept, [(1 - confidence) / 2, (1 + confidence) / 2])
    # Sums of the same numbers in another order must not part two recommenders that are equal.
    slack = 1e-12 * max(1.0, float(np.abs(kept).max()))
    beyond = int((np.abs(kept - estimate) >= abs(estimate) - slack).sum())
    return Difference(mean=float(estimate), low=float(low), high=float(high), p=(1 + beyond) / (1 + len(kept)))


def paired_bootstrap(
    a: ArrayLike, b: ArrayLike, *, seed: int, resamples: int = RESAMPLES, student: bool = True
) -> Difference:
    """The mean difference ``a - b`` of per-user values, both [S, N] over the same seeds and users, with interval and p."""
    values = _pair(a, b)
    replicates = resampled_means(values, seed=seed, resamples=resamples, student=student)
    means = common_means(values)
    return interval(float(means[0] - means[1]), replicates[:, 0] - replicates[:, 1])


def relative_change(
    a: ArrayLike, b: ArrayLike, *, seed: int, resamples: int = RESAMPLES, student: bool = True
) -> Difference:
    """The change ``(a - b) / b`` of the means of per-user values, both [S, N], with interval and p; NaN where ``b`` has mean zero."""
    values = _pair(a, b)
    replicates = resampled_means(values, seed=seed, resamples=resamples, student=student)
    means = common_means(values)
    return interval(
        ratio(means[0] - means[1], means[1]).item(), ratio(replicates[:, 0] - replicates[:, 1], replicates[:, 1])
    )


def ratio(part: ArrayLike, whole: ArrayLike) -> Float64:
    """``part / whole``, NaN where the whole is zero."""
    top, bottom = np.broadcast_arrays(np.asarray(part, dtype=np.float64), np.asarray(whole, dtype=np.float64))
    divided: Float64 = np.divide(top, bottom, out=np.full(top.shape, np.nan), where=bottom != 0)
    return divided


def holm(p: Sequence[float] | Float64) -> Float64:
    """Holm's step-down adjustment of ``p`` [M], float64 [M]: rejecting those below a level errs anywhere in the family at most that often.

    NaN (no test was possible) stays NaN and counts for nothing.
    """
    given = np.asarray(p, dtype=np.float64)
    adjusted = np.full(given.shape, np.nan)
    tested = np.flatnonzero(np.isfinite(given))
    order = tested[np.argsort(given[tested], kind="stable")]
    adjusted[order] = np.minimum(np.maximum.accumulate(given[order] * np.arange(len(order), 0, -1)), 1.0)
    return adjusted


def _table(values: ArrayLike) -> Float64:
    table = np.asarray(values, dtype=np.float64)
    if table.ndim != 3 or 0 in table.shape:
        raise ValueError(f"values: wanted shape (recommenders, seeds, users), none of them 0, got {table.shape}")
    known: Bool = np.isfinite(table)
    if not np.any(np.all(known, axis=0), axis=1).all():
        raise ValueError(
            "values: wanted in every seed at least one user that all recommenders were tested on, got a seed without"
        )
    return table


def _pair(a: ArrayLike, b: ArrayLike) -> Float64:
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if first.ndim != 2 or first.shape != second.shape:
        raise ValueError(f"pair: wanted two arrays (seeds, users) of one shape, got {first.shape} and {second.shape}")
    return np.stack([first, second])


def _seed_weights(rng: np.random.Generator, rows: int, seeds: int, student: bool) -> Float64:
    """What each seed counts for in a replicate, [rows, seeds]; a row sums to 1 and may hold weights below 0."""
    if seeds == 1:
        return np.ones((rows, 1))
    drawn = rng.multinomial(seeds - 1, np.full(seeds, 1 / seeds), size=rows) / (seeds - 1)
    stretch = np.sqrt((seeds - 1) / rng.chisquare(seeds - 1, size=rows)) if student else np.ones(rows)
    weights: Float64 = 1 / seeds + stretch[:, None] * (drawn - 1 / seeds)
    return weights


def _counts(rng: np.random.Generator, rows: int, users: int) -> Float64:
    """How often each user is drawn, [rows, users], ``users`` draws with replacement a row."""
    drawn = rng.integers(0, users, size=(rows, users)) + users * np.arange(rows)[:, None]
    return np.bincount(drawn.ravel(), minlength=rows * users).reshape(rows, users).astype(np.float64)
