"""The forecast of a hand check: exact where the rate is known, covering where it is not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from rectifier_core.audit.hand_check import hand_check, rate_law


def test_with_the_rate_known_it_is_the_binomial_interval() -> None:
    found = hand_check(0.2, 0.2, 0.2, 50)
    assert found.expected == pytest.approx(10)
    law = stats.binom(50, 0.2)
    assert law.cdf(found.low - 1) <= 0.025 < law.cdf(found.low)
    assert law.sf(found.high) <= 0.025 < law.sf(found.high - 1)


@pytest.mark.parametrize(
    ("rate", "low", "high"),
    [(0.2, 0.15, 0.26), (0.02, 0.0, 0.05), (0.22, 0.0, 0.27), (0.4, 0.1, 0.45), (0.0, 0.0, 0.01)],
)
@pytest.mark.parametrize("n", [20, 100, 400])
def test_it_covers_what_people_would_find(rate: float, low: float, high: float, n: int) -> None:
    """True rates as the interval leaves them open, then a binomial count of each: at least 95 % inside, and no wider than it must be."""
    rng = np.random.default_rng(n)
    rates, weights = rate_law(rate, low, high)
    counts = rng.binomial(n, rng.choice(rates, 20_000, p=weights))
    found = hand_check(rate, low, high, n)
    inside = (counts >= found.low) & (counts <= found.high)
    assert inside.mean() > 0.945
    assert (counts < found.low).mean() < 0.03 and (counts > found.high).mean() < 0.03
    if found.high < n:
        assert (counts >= found.high).mean() > 0.02
    assert found.expected == pytest.approx(n * rate)
    if low > 0:
        assert np.median(rates.repeat(np.round(1e5 * weights).astype(int))) == pytest.approx(rate, abs=0.01)


@given(st.lists(st.floats(0, 1), min_size=3, max_size=3).map(sorted), st.integers(1, 60))
@settings(max_examples=60, deadline=None)
def test_it_is_an_interval_of_counts(rates: list[float], n: int) -> None:
    low, rate, high = rates
    found = hand_check(rate, low, high, n)
    assert 0 <= found.low <= found.high <= n
    assert found.low - 1 <= found.expected <= found.high + 1


@pytest.mark.parametrize(
    "bad", [(0.2, 0.3, 0.4, 10), (0.2, 0.1, 0.15, 10), (0.2, 0.1, 0.3, 0), (float("nan"), 0.0, 1.0, 5)]
)
def test_it_asks_for_a_rate_within_its_interval(bad: tuple[float, float, float, int]) -> None:
    with pytest.raises(ValueError, match="hand_check"):
        hand_check(*bad)
