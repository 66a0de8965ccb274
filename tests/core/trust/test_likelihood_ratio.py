"""Evidence: wrong pairs that are wrong, and a classifier that learns what there is to learn and nothing else."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rectifier_core.base.arrays import Float64, Int32
from rectifier_core.base.numerics import separation
from rectifier_core.trust.likelihood_ratio import contrast, re_pairings

FOLDS = 5


@given(groups=st.lists(st.integers(0, 5), max_size=60), least=st.integers(1, 300), seed=st.integers(0, 99))
@settings(max_examples=80, deadline=None)
def test_wrong_pairs_are_wrong_within_groups_and_enough(groups: list[int], least: int, seed: int) -> None:
    group = np.array(groups, np.int32)
    features, items = re_pairings(group, np.random.default_rng(seed), least=least)
    usable = np.flatnonzero(np.bincount(group, minlength=6)[group] > 1)
    assert len(features) == len(items)
    assert (features != items).all()
    assert (group[features] == group[items]).all()
    if not len(usable):
        assert not len(features)
        return
    rounds = -(-least // len(usable))
    assert len(features) == rounds * len(usable) >= least
    # Every round deals each usable row out once, and to each usable row once.
    assert (np.bincount(features, minlength=len(group))[usable] == rounds).all()
    assert (np.bincount(items, minlength=len(group))[usable] == rounds).all()


def told(actual: Float64, wrong: Float64, seed: int) -> tuple[Float64, Float64, Int32, tuple[Int32, Int32]]:
    """Scores of both kinds with folds drawn at random."""
    rng = np.random.default_rng(seed)
    folds = rng.integers(0, FOLDS, len(actual)).astype(np.int32)
    of_pairs = (
        rng.integers(0, FOLDS, len(wrong)).astype(np.int32),
        rng.integers(0, FOLDS, len(wrong)).astype(np.int32),
    )
    return *contrast(actual, folds, wrong, of_pairs), folds, of_pairs


def test_where_there_is_nothing_to_tell_nothing_leaks() -> None:
    """Twelve columns of noise on 300 rows could be learned by heart; scored without its own fold a row stays at chance."""
    found = []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        scores, null, _, _ = told(rng.standard_normal((300, 12)), rng.standard_normal((3000, 12)), seed)
        found.append(separation(scores, null))
    # One AUC's standard error is .0175 here, and the rows of a fold share a map: four of the mean's.
    assert abs(np.mean(found) - 0.5) < 0.02


@pytest.mark.parametrize("ratio", [0.2, 1.0])
def test_the_log_ratio_of_two_normal_laws_is_recovered(ratio: float) -> None:
    """N(mu, 1) against N(0, 1): the log ratio is mu x - mu^2 / 2, whatever the two kinds' numbers."""
    rng = np.random.default_rng(0)
    mean = np.array([1.0, -0.5, 0.0])
    count = 4000
    actual, wrong = rng.standard_normal((count, 3)) + mean, rng.standard_normal((round(count / ratio), 3))
    scores, null, _, _ = told(actual, wrong, 0)
    for rows, found in ((actual, scores), (wrong, null)):
        truth = rows @ mean - mean @ mean / 2
        assert np.corrcoef(truth, found)[0, 1] > 0.99
        assert np.abs(found - truth).mean() < 0.15


def test_a_row_is_scored_by_a_map_that_never_saw_its_fold() -> None:
    """Changing rows of one fold leaves the scores of that fold's own map alone, and moves the others'."""
    rng = np.random.default_rng(1)
    actual, wrong = rng.standard_normal((400, 3)) + 0.5, rng.standard_normal((1200, 3))
    scores, _, folds, of_pairs = told(actual, wrong, 1)
    changed = actual.copy()
    rows = np.flatnonzero(folds == 2)
    changed[rows[1:]] -= 3.0
    again, _ = contrast(changed, folds, wrong, of_pairs)
    assert again[rows[0]] == scores[rows[0]]
    assert np.abs(again[folds == 3] - scores[folds == 3]).max() > 0.1


def test_columns_that_never_change_are_harmless() -> None:
    rng = np.random.default_rng(2)
    actual, wrong = rng.standard_normal((500, 2)) + 1, rng.standard_normal((2000, 2))
    plain, null, _, _ = told(actual, wrong, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        flat = [np.column_stack([rows, np.full(len(rows), 1e6), np.zeros(len(rows))]) for rows in (actual, wrong)]
        found, found_null, _, _ = told(flat[0], flat[1], 2)
        only, only_null, _, _ = told(flat[0][:, 2:], flat[1][:, 2:], 2)
    assert np.allclose(found, plain, atol=1e-3) and np.allclose(found_null, null, atol=1e-3)
    assert separation(only, only_null) == 0.5


def test_a_kind_that_is_missing_from_the_other_folds_says_nothing() -> None:
    actual = np.ones((3, 2))
    folds = np.zeros(3, np.int32)
    scores, null = contrast(actual, folds, np.zeros((2, 2)), (np.zeros(2, np.int32), np.zeros(2, np.int32)))
    assert not scores.any() and not null.any()
