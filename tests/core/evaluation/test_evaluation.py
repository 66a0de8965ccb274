"""Damage with known truth, and the measures held against it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rectifier_core.evaluation.corruption import derangement, shift_blocks, swap_within
from rectifier_core.evaluation.metrics import pair_closeness
from tests.support.core_samples import log_of, normals


@given(count=st.integers(2, 300), seed=st.integers(0, 1000))
@settings(max_examples=50, deadline=None)
def test_a_derangement_moves_everything_and_loses_nothing(count: int, seed: int) -> None:
    moved = derangement(count, np.random.default_rng(seed))
    assert (moved != np.arange(count)).all()
    assert sorted(moved) == list(range(count))


@given(seed=st.integers(0, 500), share=st.floats(0, 1), most=st.integers(1, 40))
@settings(max_examples=40, deadline=None)
def test_swaps_within_groups_stay_there_and_truth_marks_what_changed(seed: int, share: float, most: int) -> None:
    rng = np.random.default_rng(seed)
    features, present, groups = (
        normals(rng, 150, 3),
        rng.random(150) < 0.8,
        rng.integers(-1, most, 150).astype(np.int32),
    )
    before = features.copy()
    swapped, truth = swap_within(features, present, groups, share, seed=seed, name="image")
    np.testing.assert_array_equal(features, before)
    np.testing.assert_array_equal((swapped != features).any(axis=1), truth)
    assert not truth[~present].any()
    assert truth.sum() <= round(share * present.sum())
    for group in np.unique(groups):
        rows = groups == group
        np.testing.assert_array_equal(np.sort(swapped[rows], axis=0), np.sort(features[rows], axis=0))


@given(
    seed=st.integers(0, 500),
    share=st.floats(0, 0.6),
    rows=st.integers(0, 400),
    longest=st.integers(21, 300),
    most=st.integers(1, 5),
)
@settings(max_examples=60, deadline=None)
def test_shifted_blocks_move_rows_within_blocks_and_truth_marks_what_changed(
    seed: int, share: float, rows: int, longest: int, most: int
) -> None:
    rng = np.random.default_rng(seed)
    features, present = np.arange(rows, dtype=np.float32)[:, None], rng.random(rows) < 0.9
    shifted, truth = shift_blocks(features, present, share, seed=seed, name="image", longest=longest, most_shift=most)
    np.testing.assert_array_equal((shifted != features).any(axis=1), truth)
    assert not truth[~present].any() and truth.sum() <= round(share * present.sum())
    np.testing.assert_array_equal(np.sort(shifted[truth], axis=0), features[truth])


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
