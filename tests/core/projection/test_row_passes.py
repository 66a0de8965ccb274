"""Passes over rows: parts in order, and the sums they add up to."""

from __future__ import annotations

import numpy as np
import pytest

from rectifier_core.base.numerics import unit_rows
from rectifier_core.projection.crossfit import NormalEquations
from rectifier_core.projection.row_passes import HeldRows
from tests.support.core_samples import normals, random_units

ROWS, WIDTH, SIZE, FOLDS, BLOCK = 150, 9, 4, 3, 3


@pytest.fixture
def given() -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(0)
    features, rows = normals(rng, 2 * ROWS, WIDTH), np.sort(rng.choice(2 * ROWS, ROWS, replace=False))
    return features, rows, random_units(rng, ROWS, SIZE), rng.integers(0, FOLDS, ROWS).astype(np.int32)


def test_parts_add_up_to_all_rows_and_can_be_taken_out_again(given: tuple[np.ndarray, ...]) -> None:
    features, rows, targets, folds = given
    held, origin = HeldRows(features, BLOCK), features.mean(axis=0)
    assert np.allclose(sum(held.sums(rows)), unit_rows(features[rows]).sum(axis=0, dtype=np.float64))
    sums = NormalEquations(num_folds=FOLDS, origin=origin, target_width=SIZE)
    for part in held.moments(rows, targets, folds, origin, FOLDS):
        sums.merge(part)
    x = (unit_rows(features[rows]) - origin).astype(np.float64)
    for fold in range(FOLDS):
        inside = folds == fold
        assert sums.counts[fold] == inside.sum()
        assert np.allclose(sums.grams[fold], x[inside].T @ x[inside], atol=1e-5)
        assert np.allclose(sums.crosses[fold], x[inside].T @ targets[inside], atol=1e-5)
    for part in held.moments(rows, targets, folds, origin, FOLDS):
        sums.merge(part, sign=-1)
    assert all(np.abs(left).max() < 1e-9 for left in sums.arrays.values())
