"""Forecast of a hand check: how many of n random items are mismatched if the estimated rate is right.

Given the true rate, the count is binomial. The rate itself is uncertain, so the forecast mixes the binomial over two half normals, cut to
[0, 1]. The rate is as likely below the estimate as above it. The interval's ends are its 2.5 % and 97.5 % points.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from rectifier_core.base.arrays import Float64

GRID = 801
TAIL = 0.025


@dataclass(frozen=True, slots=True, kw_only=True)
class HandCheck:
    """Of ``n`` items ``expected`` are mismatched by the estimate, and in at least 95 % of checks from ``low`` to ``high``, both included.

    Fewer than ``low`` or more than ``high`` contradict the estimate.
    """

    n: int
    expected: float
    low: int
    high: int


def hand_check(rate: float, low: float, high: float, n: int) -> HandCheck:
    """The forecast for ``n`` items drawn at random from those judged, at an estimated ``rate`` with the 95 % interval [low, high].

    Raises ValueError unless 0 <= low <= rate <= high <= 1 and n >= 1.
    """
    if n < 1 or not 0 <= low <= rate <= high <= 1:
        raise ValueError(f"hand_check: wanted 0 <= low <= rate <= high <= 1 and n >= 1, got {low}, {rate}, {high}, {n}")
    rates, weights = rate_law(rate, low, high)
    counts = np.arange(n + 1)
    below = np.cumsum(np.array([float(weights @ stats.binom.pmf(count, n, rates)) for count in counts]))
    # The ends are the widest counts whose outer side has at most 2.5 % each.
    return HandCheck(
        n=n,
        expected=n * rate,
        low=int(np.searchsorted(below, TAIL, side="right")),
        high=min(int(np.searchsorted(below, 1 - TAIL, side="left")), n),
    )


def rate_law(rate: float, low: float, high: float) -> tuple[Float64, Float64]:
    """The rates [G] that the interval leaves open and their weights [G], which sum to 1."""
    reach = float(stats.norm.ppf(1 - TAIL))
    spreads = (max((rate - low) / reach, 1e-9), max((high - rate) / reach, 1e-9))
    points = np.clip(np.linspace(rate - 5 * spreads[0], rate + 5 * spreads[1], GRID), 0.0, 1.0)
    spread = np.where(points < rate, spreads[0], spreads[1])
    inside = (points > 0) & (points < 1) | (points == rate)
    weights = np.exp(-0.5 * ((points - rate) / spread) ** 2) * inside
    below = points < rate
    halves = [half for half in (below, ~below) if weights[half].sum() > 0]
    for half in halves:
        weights[half] /= len(halves) * weights[half].sum()
    return points, weights
