"""Intervals, p values and the correction for many comparisons, beside SciPy's own tests and planted truth."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from rectifier_core.base.arrays import Float64
from rectifier_core.base.seeding import generator
from rectifier_core.evaluation.significance import holm, mean_estimate, ratio_estimate, relative_change


def users_and_seeds(name: str, *, seeds: int = 5, users: int = 80) -> Float64:
    rng = generator(3, name)
    hard = rng.random(users)
    return 0.2 + 0.2 * hard + rng.normal(scale=0.01, size=(seeds, 1)) + rng.normal(scale=0.05, size=(seeds, users))


def test_seeds_alone_and_users_alone_give_scipys_t_tests() -> None:
    a, b = (generator(1, name).normal(size=5) for name in "ab")
    users = generator(1, "users").normal(loc=0.1, size=(1, 60))
    for estimate, expected in (
        (mean_estimate((a - b)[:, None]), scipy.stats.ttest_rel(a, b)),
        (mean_estimate(users), scipy.stats.ttest_1samp(users[0], 0)),
    ):
        assert estimate.p == pytest.approx(expected.pvalue)
        assert (estimate.low, estimate.high) == pytest.approx(tuple(expected.confidence_interval()))


def test_a_ratio_agrees_with_scipys_bootstrap_over_users() -> None:
    rng = generator(1, "ratio")
    whole = 0.2 + 0.1 * rng.random((1, 400))
    part = 0.5 * whole + rng.normal(scale=0.05, size=whole.shape)
    estimate = ratio_estimate(part, whole)
    expected = scipy.stats.bootstrap(
        (part[0], whole[0]),
        lambda x, y, axis: x.mean(axis=axis) / y.mean(axis=axis),
        paired=True,
        vectorized=True,
        method="percentile",
        random_state=0,
    ).confidence_interval
    assert (estimate.low, estimate.high) == pytest.approx(tuple(expected), rel=0.02)


def test_a_planted_gain_is_significant_and_an_equal_pair_is_not() -> None:
    low = users_and_seeds("low")
    high = low + 0.02 + 0.02 * users_and_seeds("own")
    estimate = relative_change(high, low)
    assert estimate.mean == pytest.approx(high.mean() / low.mean() - 1)
    assert 0 < estimate.low < estimate.mean < estimate.high and estimate.p < 1e-4
    same = relative_change(low, low.copy())
    assert (same.mean, same.low, same.high, same.p) == (0, 0, 0, 1)


@pytest.mark.parametrize("of_users", [0.0, 0.1])
@pytest.mark.parametrize("seeds", [2, 5])
def test_equal_recommenders_rarely_differ_significantly(seeds: int, of_users: float) -> None:
    wrong = []
    for draw in range(400):
        rng = generator(draw, "null")
        a, b = (
            rng.normal(scale=0.02, size=(seeds, 1)) + rng.normal(scale=of_users, size=(seeds, 20)) for _ in range(2)
        )
        wrong.append(mean_estimate(a - b).p < 0.05)
    assert np.mean(wrong) <= 0.075


def test_untested_users_are_left_out() -> None:
    a, b = users_and_seeds("a"), users_and_seeds("b")
    a[:, :10], b[2, 40:] = np.nan, np.nan
    by_seed = [np.nanmean((a - b)[seed]) for seed in range(5)]
    estimate = mean_estimate(a - b)
    assert estimate.mean == pytest.approx(np.mean(by_seed))
    assert np.isfinite([estimate.low, estimate.high, estimate.p]).all()


def test_ratio_of_nothing_and_wrong_shapes() -> None:
    low = users_and_seeds("low")
    assert np.isnan(relative_change(low, np.zeros_like(low)).mean)
    with pytest.raises(ValueError, match=r"\(seeds, users\) of one shape, got \(5, 80\) and \(4, 80\)"):
        ratio_estimate(low, low[:4])
    with pytest.raises(ValueError, match="tested user in every seed"):
        mean_estimate([[1.0, 2.0], [np.nan, np.nan]])


def test_holm_gives_the_values_of_a_calculation_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert np.array_equal(holm([0.02, np.nan, 0.01]), [0.02, np.nan, 0.02], equal_nan=True)
    assert holm([]).shape == (0,)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_keeps_order_and_never_lowers(p: list[float]) -> None:
    adjusted = holm(p)
    assert (adjusted >= np.asarray(p)).all() and (adjusted <= 1).all()
    assert (np.diff(adjusted[np.argsort(p, kind="stable")]) >= 0).all()
    assert adjusted.min() == pytest.approx(min(1.0, len(p) * min(p)))
