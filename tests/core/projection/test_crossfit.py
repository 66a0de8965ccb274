"""Blocked normal equations against ridge regression written out on explicit matrices."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from rectifier_core.base.arrays import Float32, Float64, Int32
from rectifier_core.base.numerics import row_blocks, unit_rows
from rectifier_core.projection.crossfit import NormalEquations, item_folds, out_of_fold
from tests.support.core_samples import normals, random_units

ROWS, WIDTH, SIZE, FOLDS = 90, 14, 6, 4


def data(seed: int = 0) -> tuple[Float32, Float32, Int32]:
    rng = np.random.default_rng(seed)
    features = unit_rows(normals(rng, ROWS, WIDTH) + np.float32(1.5))
    return features, random_units(rng, ROWS, SIZE), rng.integers(0, FOLDS, ROWS).astype(np.int32)


def sums_of(features: Float32, targets: Float32, folds: Int32, block: int = 17) -> NormalEquations:
    sums = NormalEquations(num_folds=FOLDS, origin=features.mean(axis=0), target_width=SIZE)
    for rows in row_blocks(len(features), block):
        sums.add(features[rows], targets[rows], folds[rows])
    return sums


def ridge(features: Float32, targets: Float32, strength: float) -> tuple[Float64, Float64, Float64]:
    """Centred ridge by least squares on stacked rows, a route that shares no step with the normal equations."""
    x, y = features.astype(np.float64), targets.astype(np.float64)
    centred = x - x.mean(axis=0)
    penalty = strength * (centred**2).sum() / x.shape[1]
    stacked = np.concatenate([centred, np.sqrt(penalty) * np.eye(x.shape[1])])
    wanted = np.concatenate([y - y.mean(axis=0), np.zeros((x.shape[1], y.shape[1]))])
    return np.linalg.lstsq(stacked, wanted)[0], x.mean(axis=0), y.mean(axis=0)


@pytest.mark.parametrize("strength", [0.01, 0.3, 30.0])
@pytest.mark.parametrize("left_out", [(), (0,), (3,), (3, 1)])
def test_the_map_is_centred_ridge_on_the_rows_outside_the_folds_left_out(
    strength: float, left_out: tuple[int, ...]
) -> None:
    features, targets, folds = data()
    outside = np.array([fold not in left_out for fold in folds])
    found = sums_of(features, targets, folds).solve(strength, *left_out)
    wanted = ridge(features[outside], targets[outside], strength)
    for ours, theirs in zip(found, wanted, strict=True):
        assert ours.dtype == np.float32 and np.allclose(ours, theirs, atol=2e-5 * np.abs(theirs).max())


def test_rows_taken_out_leave_no_trace() -> None:
    features, targets, folds = data()
    kept = np.random.default_rng(1).random(ROWS) < 0.6
    sums = sums_of(features, targets, folds)
    sums.add(features[~kept], targets[~kept], folds[~kept], sign=-1.0)
    found, wanted = sums.solve(0.3, 2), ridge(features[kept & (folds != 2)], targets[kept & (folds != 2)], 0.3)
    for ours, theirs in zip(found, wanted, strict=True):
        assert np.allclose(ours, theirs, atol=1e-4 * np.abs(theirs).max())
    sums.add(features[kept], targets[kept], folds[kept], sign=-1.0)
    assert np.abs(sums.grams).max() < 1e-5 and np.abs(sums.crosses).max() < 1e-5 and not sums.counts.any()


def test_a_large_common_mean_costs_no_precision() -> None:
    """All rows close to one direction, as unnormalised text embeddings are: the spread is a thousandth of the mean."""
    rng = np.random.default_rng(3)
    features = unit_rows(np.float32(1000) * random_units(rng, 1, WIDTH) + normals(rng, ROWS, WIDTH))
    _, targets, folds = data()
    weight, _, _ = sums_of(features, targets, folds).solve(0.3)
    wanted, _, _ = ridge(features, targets, 0.3)
    assert np.allclose(weight, wanted, atol=5e-3 * np.abs(wanted).max())


@pytest.mark.parametrize("distinct", [0, 1, 2])
def test_a_modality_of_placeholders_is_solved_without_alarm(distinct: int) -> None:
    """Every row equal (or all but ``distinct``): the Gram matrix is rounding, and still a finite map must come out."""
    rng = np.random.default_rng(5)
    features = np.repeat(random_units(rng, 1, WIDTH), ROWS, axis=0)
    features[:distinct] = random_units(rng, distinct, WIDTH)
    _, targets, folds = data()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        maps = sums_of(features, targets, folds).solve_folds(0.03)
    assert np.isfinite(maps.weights).all()


@pytest.mark.parametrize("block", [1, 13, 1000])
def test_each_row_is_projected_by_the_map_that_never_saw_it(block: int) -> None:
    features, targets, folds = data()
    rows = np.random.default_rng(2).permutation(ROWS)[:50]
    raw = features * np.float32(7)
    maps = sums_of(features, targets, folds).solve_folds(0.3)
    found = out_of_fold(raw, rows, folds[rows], maps, block)
    for at, row in enumerate(rows):
        weight, mean, _ = ridge(features[folds != folds[row]], targets[folds != folds[row]], 0.3)
        wanted = (features[row] - mean) @ weight
        assert np.allclose(found[at], wanted, atol=1e-4 * np.abs(wanted).max())


@pytest.mark.parametrize(("items", "count"), [(1, 2), (10, 5), (101, 5), (7, 10)])
def test_folds_are_even_seeded_and_the_same_for_every_map_of_a_run(items: int, count: int) -> None:
    folds = item_folds(items, count, 3)
    sizes = np.bincount(folds, minlength=count)
    assert folds.dtype == np.int32 and len(folds) == items and sizes.max() - sizes.min() <= 1
    assert np.array_equal(folds, item_folds(items, count, 3))
    if items > 50:
        assert not np.array_equal(folds, item_folds(items, count, 4))
