"""The mixture: planted shares found, intervals that hold, probabilities that are what they say, whatever the score's scale."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rectifier_core.base.arrays import Bool, Float64
from rectifier_core.trust.mixture import Mixture, fit_mixture

RATES = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5)


def planted(
    seed: int, rate: float, *, items: int = 2000, shift: float = 2.0, spread: float = 0.8
) -> tuple[Float64, Float64, Bool]:
    """Scores of which ``rate`` follow the standard normal null and the rest N(shift, spread), the null itself, and which those are."""
    rng = np.random.default_rng(seed)
    wrong = rng.random(items) < rate
    return (
        np.where(wrong, rng.standard_normal(items), shift + spread * rng.standard_normal(items)),
        rng.standard_normal(8000),
        wrong,
    )


def fit(scores: Float64, null: Float64, *, seed: int = 0, resamples: int = 20) -> Mixture:
    return fit_mixture(scores, null, resamples=resamples, rng=np.random.default_rng(seed))


def test_a_95_percent_interval_holds_the_planted_share_and_the_estimate_is_near() -> None:
    """72 planted worlds of three strengths; 90 % of 72 is 65, two standard errors below 95 %."""
    inside, off = [], []
    for seed in range(4):
        for shift, spread in ((1.5, 0.85), (2.0, 0.8), (3.0, 0.7)):
            for at, rate in enumerate(RATES):
                scores, null, wrong = planted(1000 * seed + 10 * at + round(shift), rate, shift=shift, spread=spread)
                found = fit(scores, null, seed=seed)
                inside.append(found.low - 0.003 <= wrong.mean() <= found.high)
                off.append(found.rate - wrong.mean())
                assert found.low <= found.rate <= found.high
    assert np.mean(inside) >= 0.9
    assert abs(np.mean(off)) < 0.02 and np.abs(off).max() < 0.1


def test_none_reads_as_about_none_and_nothing_but_the_null_as_anything_up_to_all() -> None:
    for seed in range(5):
        scores, null, _ = planted(seed, 0.0, shift=3.0, spread=0.7)
        assert fit(scores, null).rate < 0.01
        nothing = np.random.default_rng(seed).standard_normal(2000)
        assert fit(nothing, null).high > 0.95
        assert fit(nothing, null).rate > 0.5


TRANSFORMS: dict[str, Callable[[Float64], Float64]] = {
    "exponential": np.exp,
    "cubic": lambda x: x**3 + x,
    "logistic": lambda x: 1 / (1 + np.exp(-x)),
    "affine": lambda x: 1e-3 * x - 7,
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_monotone_transform_of_the_score_changes_nothing_but_interpolation(name: str) -> None:
    """Counts between the null's quantiles are what is fitted. An order statistic moves with the transform, a mean of two nearly so."""
    scores, null, _ = planted(5, 0.25)
    plain, bent = fit(scores, null), fit(TRANSFORMS[name](scores), TRANSFORMS[name](null))
    assert (bent.rate, bent.low, bent.high) == pytest.approx((plain.rate, plain.low, plain.high), abs=2e-3)
    p, q = plain.probability(scores), bent.probability(TRANSFORMS[name](scores))
    inside = np.abs(scores) < np.quantile(null, 0.99)
    assert np.abs(p - q)[inside].max() < 0.03


@given(
    seed=st.integers(0, 10_000),
    rate=st.sampled_from(RATES),
    shift=st.floats(0, 4),
    scale=st.sampled_from([1e-3, 1.0, 1e4]),
)
@settings(max_examples=25, deadline=None)
def test_probability_rises_with_the_score_and_never_passes_its_upper_bound(
    seed: int, rate: float, shift: float, scale: float
) -> None:
    scores, null, _ = planted(seed, rate, shift=shift, items=300)
    found = fit(scale * scores, scale * null, resamples=5)
    # Far enough apart for float32 to tell them apart near 1.
    grid = scale * np.linspace(-6, 6, 41)
    p, upper = found.probability(grid), found.probability_upper(grid)
    assert p.dtype == upper.dtype == np.float32
    assert (p >= 0).all() and (upper <= 1).all()
    steps = np.diff(p.astype(np.float64))
    assert (steps >= 0).all() and (steps[p[:-1] < 0.9999] > 0).all()
    assert (upper >= p).all()


@given(order=st.permutations(range(60)), seed=st.integers(0, 50))
@settings(max_examples=15, deadline=None)
def test_the_order_of_the_rows_changes_no_bit(order: list[int], seed: int) -> None:
    scores, null, _ = planted(seed, 0.3, items=60)
    plain, moved = fit(scores, null, resamples=5), fit(scores[order], null[::-1], resamples=5)
    assert (moved.rate, moved.low, moved.high) == (plain.rate, plain.low, plain.high)
    assert moved.probability(scores[order]).tobytes() == plain.probability(scores)[order].tobytes()


@pytest.mark.parametrize(("items", "nulls"), [(1, 1), (1, 50), (50, 1), (2, 2), (3, 1000)])
def test_the_smallest_inputs_are_answered_with_wide_intervals(items: int, nulls: int) -> None:
    rng = np.random.default_rng(items)
    scores, null = rng.standard_normal(items), rng.standard_normal(nulls)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = fit(scores, null)
        p = found.probability(scores)
    assert 0 <= found.low <= found.rate <= found.high <= 1
    assert np.isfinite(p).all()
    if items <= 3:
        assert found.high - found.low > 0.5


@pytest.mark.parametrize("value", [0.0, -3.5, 1e9])
def test_a_null_and_scores_of_one_value_are_answered(value: float) -> None:
    found = fit(np.full(200, value), np.full(1000, value))
    assert 0 <= found.low <= found.rate <= found.high <= 1
    assert np.isfinite(found.probability(np.array([value - 1, value, value + 1]))).all()
