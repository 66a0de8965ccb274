"""Balancing: marginals, oracles, invariances, and the graphs on which plain scaling stalls."""

from __future__ import annotations

import numpy as np
import ot
import pytest
from core_samples import affinity_of, dense, projection_of, random_units
from hypothesis import given, settings
from hypothesis import strategies as st

from rectifier_core.affinity import AffinityConfig, find_neighbours
from rectifier_core.numerics import unit_rows
from rectifier_core.records import Affinity, BalanceOutcome, Plan
from rectifier_core.sinkhorn import SinkhornConfig, balance


def matrix_of(plan: Plan) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    size = len(plan.indptr) - 1
    full = np.zeros((size, size))
    full[np.repeat(np.arange(size), np.diff(plan.indptr)), plan.indices] = plan.weights
    return full


def full_affinity(seed: int, size: int, spread: float = 1.0) -> Affinity:
    scores = spread * np.random.default_rng(seed).standard_normal((size, size))
    return affinity_of(np.tile(np.arange(size), (size, 1)), scores)


def clustered(seed: int, *, items: int = 900, clusters: int = 12, neighbours: int = 15) -> Affinity:
    """Cross-modal and hubby: clusters of very different size, features noisier than anchors."""
    rng = np.random.default_rng(seed)
    centre = random_units(rng, clusters, 16)
    where = np.minimum((clusters * rng.power(0.6, items)).astype(int), clusters - 1)
    anchors = unit_rows((centre[where] + 0.15 * rng.standard_normal((items, 16))).astype(np.float32))
    features = unit_rows((centre[where] + 0.35 * rng.standard_normal((items, 16))).astype(np.float32))
    return find_neighbours(projection_of(features, anchors), AffinityConfig(num_neighbours=neighbours), seed=0)


@pytest.mark.parametrize("method", ["anderson", "knopp"])
def test_a_full_support_equals_pot(method: str) -> None:
    affinity = full_affinity(3, 40)
    plan = balance(affinity, SinkhornConfig(method=method, tolerance=1e-9, max_iterations=2000))  # type: ignore[arg-type]
    even = np.full(40, 1 / 40)
    wanted = 40 * ot.sinkhorn(even, even, -dense(affinity), reg=1.0, stopThr=1e-13, numItermax=20_000)
    assert plan.outcome is BalanceOutcome.CONVERGED
    np.testing.assert_allclose(matrix_of(plan), wanted, rtol=1e-5, atol=1e-8)


def test_a_sparse_support_equals_pot_with_the_rest_forbidden() -> None:
    rng = np.random.default_rng(1)
    neighbours = np.stack([np.append(row, rng.choice(np.delete(np.arange(60), row), 11, replace=False)) for row in range(60)])
    affinity = affinity_of(neighbours, rng.standard_normal((60, 12)))
    plan = balance(affinity, SinkhornConfig(tolerance=1e-10, max_iterations=5000))
    scores = dense(affinity)
    cost = np.where(np.isfinite(scores), -scores, 1e3)
    even = np.full(60, 1 / 60)
    wanted = 60 * ot.bregman.sinkhorn_log(even, even, cost, reg=1.0, stopThr=1e-13, numItermax=5000)
    assert plan.outcome is BalanceOutcome.CONVERGED
    np.testing.assert_allclose(matrix_of(plan), wanted, atol=1e-6)


@given(seed=st.integers(0, 10_000), size=st.integers(3, 40), width=st.integers(1, 6))
@settings(max_examples=25, deadline=None)
def test_rows_always_sum_to_one_and_the_stated_error_is_the_columns(seed: int, size: int, width: int) -> None:
    rng = np.random.default_rng(seed)
    neighbours = np.stack([rng.permutation(size)[: min(width, size)] for _ in range(size)])
    plan = balance(affinity_of(neighbours, 3 * rng.standard_normal(neighbours.shape)), SinkhornConfig(max_iterations=60))
    matrix = matrix_of(plan)
    np.testing.assert_allclose(matrix.sum(axis=1), 1, atol=1e-5)
    reached = np.isin(np.arange(size), neighbours)
    columns = matrix.sum(axis=0)[reached] * reached.sum() / size
    assert plan.column_error == pytest.approx(np.abs(columns - 1).mean(), abs=1e-5)
    np.testing.assert_allclose(plan.column_sums[reached], columns, atol=1e-4)
    if plan.outcome is BalanceOutcome.CONVERGED:
        assert plan.column_error <= 1e-3 * 1.01


@given(seed=st.integers(0, 10_000), block=st.integers(1, 400))
@settings(max_examples=10, deadline=None)
def test_block_size_changes_no_bit(seed: int, block: int) -> None:
    affinity = clustered(seed, items=150, clusters=4, neighbours=8)
    one, other = (balance(affinity, SinkhornConfig(), memory=memory) for memory in (None, 40 * block))
    assert one.weights.tobytes() == other.weights.tobytes()
    assert one.marginal_errors.tobytes() == other.marginal_errors.tobytes()


def test_relabelling_items_relabels_the_plan() -> None:
    affinity = clustered(7, items=200, clusters=5, neighbours=10)
    order = np.random.default_rng(0).permutation(200)
    place = np.argsort(order)
    moved = affinity_of(np.where(affinity.neighbours[order] < 0, -1, place[affinity.neighbours[order]]), affinity.scores[order])
    config = SinkhornConfig(tolerance=1e-8, max_iterations=3000)
    there, here = matrix_of(balance(moved, config)), matrix_of(balance(affinity, config))
    np.testing.assert_allclose(there, here[np.ix_(order, order)], atol=1e-5)


def test_a_rectangular_problem_shares_the_rows_evenly_among_the_columns_reached() -> None:
    rng = np.random.default_rng(2)
    neighbours = np.full((30, 12), -1)
    neighbours[:20] = np.stack([18 + rng.permutation(12) for _ in range(20)])
    plan = balance(
        affinity_of(neighbours, np.where(neighbours >= 0, rng.standard_normal((30, 12)), -np.inf)), SinkhornConfig(tolerance=1e-6)
    )
    matrix = matrix_of(plan)
    assert plan.outcome is BalanceOutcome.CONVERGED
    assert not matrix[20:].any()
    np.testing.assert_allclose(matrix[:20].sum(axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(matrix.sum(axis=0)[18:], 20 / 12, atol=1e-4)
    np.testing.assert_allclose(plan.column_sums[18:], 1, atol=1e-4)


def test_a_graph_without_balance_stalls_and_says_so() -> None:
    # Items 0 to 3 all want donor 0 alone: its column cannot come down to its share.
    neighbours = np.array([[0, -1], [0, -1], [0, -1], [0, 4], [4, 5], [5, 4]])
    plan = balance(affinity_of(neighbours, np.where(neighbours >= 0, 1.0, -np.inf)), SinkhornConfig(max_iterations=500))
    assert plan.outcome is BalanceOutcome.INFEASIBLE
    assert "num_neighbours" in plan.outcome.value
    assert np.isfinite(plan.weights).all()
    assert plan.column_error > 0.3


def test_the_iteration_limit_is_an_outcome_of_its_own() -> None:
    plan = balance(clustered(4), SinkhornConfig(method="knopp", max_iterations=3, tolerance=1e-9))
    assert plan.outcome is BalanceOutcome.MAX_ITERATIONS
    assert plan.iterations == 3
    assert len(plan.marginal_errors) == 4


@pytest.mark.parametrize("spread", [100.0, 1000.0])
def test_extreme_temperatures_stay_finite(spread: float) -> None:
    plan = balance(full_affinity(5, 30, spread), SinkhornConfig(max_iterations=300))
    assert np.isfinite(plan.weights).all()
    assert np.isfinite(plan.marginal_errors).all()
    np.testing.assert_allclose(matrix_of(plan).sum(axis=1), 1, atol=1e-5)


def test_mixing_beats_plain_scaling_on_a_clustered_graph() -> None:
    affinity = clustered(11)
    fast, plain = (balance(affinity, SinkhornConfig(method=m, max_iterations=2000)) for m in ("anderson", "knopp"))
    assert fast.outcome is BalanceOutcome.CONVERGED
    assert fast.iterations < plain.iterations / 2
    assert (np.diff(plain.marginal_errors[:20]) < 1e-9).all()


def test_balancing_takes_the_hubs_away_and_the_row_ablation_leaves_them() -> None:
    affinity = clustered(13)
    balanced, rows = balance(affinity, SinkhornConfig()), balance(affinity, SinkhornConfig(balance="row"))
    assert rows.outcome is BalanceOutcome.ROW_ONLY
    assert rows.iterations == 0
    assert rows.column_sums.max() > 2
    assert balanced.column_sums.max() < 1.1
    scores = dense(affinity)
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    np.testing.assert_allclose(matrix_of(rows), weights / weights.sum(axis=1, keepdims=True), atol=1e-5)


def test_a_diagonal_graph_is_its_own_plan() -> None:
    plan = balance(affinity_of(np.arange(9)[:, None], np.linspace(-3, 3, 9)[:, None]), SinkhornConfig())
    assert plan.outcome is BalanceOutcome.CONVERGED
    assert plan.diagonal_mass == pytest.approx(1.0)
    np.testing.assert_array_equal(matrix_of(plan), np.eye(9))


def test_nothing_to_balance_is_an_outcome() -> None:
    plan = balance(affinity_of(np.full((4, 3), -1), np.full((4, 3), -np.inf)), SinkhornConfig())
    assert plan.outcome is BalanceOutcome.EMPTY
    assert plan.indptr.tolist() == [0, 0, 0, 0, 0]


@pytest.mark.parametrize(("field", "value"), [("max_iterations", 0), ("memory", 0), ("tolerance", 0.0)])
def test_bad_hyperparameters_are_named(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=field):
        SinkhornConfig(**{field: value})  # type: ignore[arg-type]
