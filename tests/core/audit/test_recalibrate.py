"""Labels against probabilities: agreement by hand-counted cases, recalibration that mends, does little harm and keeps the order."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from rectifier_core.audit.recalibrate import recalibrate
from rectifier_core.base.arrays import Bool, Float32
from rectifier_core.base.numerics import logit


def world(count: int = 20_000, seed: int = 0) -> tuple[Float32, Bool]:
    """Calibrated probabilities of being an item's own, and which items are mismatched."""
    rng = np.random.default_rng(seed)
    p = rng.beta(1.2, 0.4, count).astype(np.float32)
    return p, rng.random(count) >= p


def test_agreement_counts() -> None:
    p = np.array([0.1, 0.2, 0.9, 0.8, 0.4, np.nan], np.float32)
    found = recalibrate(p, np.arange(6), np.array([True, False, False, True, True, True]))
    assert found is not None
    a = found.agreement
    assert (a.labelled, a.unjudged, a.mismatches) == (5, 1, 3)
    assert (a.caught, a.missed, a.blamed, a.cleared) == (2, 1, 1, 1)
    assert a.brier == pytest.approx((0.01 + 0.64 + 0.01 + 0.64 + 0.16) / 5, abs=1e-6)
    # Own items 0.2, 0.9 above mismatched 0.1, 0.8, 0.4: of six pairs four are in order.
    assert a.auc == pytest.approx(4 / 6)
    assert a.rate_by_labels == 0.6
    exact = stats.beta.ppf(0.025, 3, 3), stats.beta.ppf(0.975, 4, 2)
    assert (a.rate_low, a.rate_high) == pytest.approx(exact)
    assert sum(x.labelled for x in a.bins) == 5
    assert np.isnan(found.probability[5])


def test_a_distorted_probability_is_mended_by_many_labels() -> None:
    p, wrong = world()
    distorted = (1 / (1 + np.exp(-(2.5 * logit(p) + 1.0)))).astype(np.float32)
    rows = np.random.default_rng(1).permutation(len(p))[:4000]
    found = recalibrate(distorted, rows, wrong[rows])
    assert found is not None
    assert found.slope == pytest.approx(1 / 2.5, abs=0.05)
    assert np.abs(found.probability - p).mean() < 0.02
    assert found.rate == pytest.approx(wrong.mean(), abs=0.02)
    assert abs(1 - distorted.mean() - wrong.mean()) > 0.04
    assert found.log_loss < found.agreement.log_loss
    assert found.agreement.like_random


def test_ten_labels_do_not_wreck_it() -> None:
    p, wrong = world()
    moved = []
    for seed in range(40):
        rows = np.random.default_rng(seed).permutation(len(p))[:10]
        found = recalibrate(p, rows, wrong[rows])
        assert found is not None
        moved.append(float(np.abs(found.probability - p).mean()))
        assert 0.4 < found.slope < 2.5
    assert np.mean(moved) < 0.06
    # Nor do ten that are all alike, which no slope could explain.
    for verdict in (True, False):
        found = recalibrate(p, np.arange(10), np.full(10, verdict))
        assert found is not None and found.agreement.auc is None and np.isfinite(found.probability).all()


@given(st.lists(st.floats(0, 1), min_size=3, max_size=30), st.integers(0, 2**31))
@settings(max_examples=60, deadline=None)
def test_the_order_of_the_items_stays(values: list[float], seed: int) -> None:
    p = np.array(values, np.float32)
    rng = np.random.default_rng(seed)
    rows = rng.permutation(len(p))[: max(1, len(p) // 2)]
    found = recalibrate(p, rows, rng.random(len(rows)) < 0.5)
    assert found is not None
    assert (np.diff(found.probability[np.argsort(p, kind="stable")]) >= 0).all()
    assert ((found.probability >= 0) & (found.probability <= 1)).all()


def test_labels_of_the_worst_items_are_flagged_and_do_not_bias_the_rate() -> None:
    p, wrong = world()
    worst = np.argsort(p)[:400]
    found = recalibrate(p, worst, wrong[worst])
    assert found is not None
    assert not found.agreement.like_random
    assert found.agreement.rate_by_labels > 2 * wrong.mean()
    assert found.rate == pytest.approx(wrong.mean(), abs=0.08)


def test_no_labelled_item_with_a_probability_is_nothing_to_compare() -> None:
    p = np.array([np.nan, 0.4], np.float32)
    assert recalibrate(p, np.array([0]), np.array([True])) is None
    assert recalibrate(p, np.empty(0, np.int64), np.empty(0, np.bool_)) is None
    with pytest.raises(ValueError, match="one verdict an item"):
        recalibrate(p, np.array([1, 1]), np.array([True, False]))


def test_the_interval_of_the_mended_rate_covers_it() -> None:
    covered, wide = [], []
    p, wrong = world()
    distorted = (1 / (1 + np.exp(-(1.4 * logit(p) + 0.5)))).astype(np.float32)
    for seed in range(120):
        rows = np.random.default_rng(seed).permutation(len(p))[:200]
        found = recalibrate(distorted, rows, wrong[rows])
        assert found is not None
        covered.append(found.rate_low <= wrong.mean() <= found.rate_high)
        wide.append(found.rate_high - found.rate_low < found.agreement.rate_high - found.agreement.rate_low)
    assert np.mean(covered) > 0.92
    assert np.mean(wide) > 0.95
