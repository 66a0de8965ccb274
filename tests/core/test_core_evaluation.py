"""Damage with known truth, and the measures held against it."""

from __future__ import annotations

import numpy as np
import pytest
from core_samples import log_of, normals
from hypothesis import given, settings
from hypothesis import strategies as st

from rectifier_core.evaluation.corruption import derangement, swap_features
from rectifier_core.evaluation.metrics import pair_closeness


@given(count=st.integers(2, 300), seed=st.integers(0, 1000))
@settings(max_examples=50, deadline=None)
def test_a_derangement_moves_everything_and_loses_nothing(count: int, seed: int) -> None:
    moved = derangement(count, np.random.default_rng(seed))
    assert (moved != np.arange(count)).all()
    assert sorted(moved) == list(range(count))


def test_one_element_cannot_be_moved() -> None:
    with pytest.raises(ValueError, match="count"):
        derangement(1, np.random.default_rng(0))


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5])
def test_exactly_the_share_of_present_rows_is_swapped_among_itself(share: float) -> None:
    rng = np.random.default_rng(0)
    features, present = normals(rng, 200, 3), rng.random(200) < 0.7
    features[~present] = 0
    swapped, truth = swap_features(features, present, share, seed=1, name="image")
    assert truth.sum() == round(share * present.sum())
    assert not truth[~present].any()
    np.testing.assert_array_equal((swapped != features).any(axis=1), truth)
    np.testing.assert_array_equal(np.sort(swapped[truth], axis=0), np.sort(features[truth], axis=0))


def test_damage_is_seeded_and_modalities_are_damaged_apart() -> None:
    features, present = normals(np.random.default_rng(0), 100, 3), np.ones(100, np.bool_)
    first, again, other, text = (
        swap_features(features, present, 0.3, seed=s, name=m)[1] for s, m in ((1, "image"), (1, "image"), (2, "image"), (1, "text"))
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert (first != text).any()


def test_closeness_tells_features_that_follow_the_users_from_noise() -> None:
    rng = np.random.default_rng(0)
    group = np.arange(60) % 3
    users, items = np.nonzero((np.arange(90)[:, None] % 3 == group[None, :]) & (rng.random((90, 60)) < 0.5))
    held = rng.random(len(users)) < 0.3
    training, held_out = (log_of(users[at], items[at], 90, 60) for at in (~held, held))
    follow = (np.eye(3)[group] + 0.1 * rng.standard_normal((60, 3))).astype(np.float32)
    assert pair_closeness(follow, training, held_out, seed=0, draws=5000) > 0.75
    assert pair_closeness(normals(rng, 60, 3), training, held_out, seed=0, draws=5000) == pytest.approx(0.5, abs=0.08)
    assert pair_closeness(np.ones((60, 3), np.float32), training, held_out, seed=0, draws=500) == 0.5
