"""Balancing: marginals, oracles, invariances, and the graphs on which plain scaling stalls."""

from __future__ import annotations

import numpy as np
import ot
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from rectifier_core.affinity.affinity import find_affinity
from rectifier_core.affinity.config import AffinityConfig
from rectifier_core.base.numerics import unit_rows
from rectifier_core.base.records import Affinity, BalanceOutcome, Plan
from rectifier_core.sinkhorn.config import SinkhornConfig
from rectifier_core.sinkhorn.sinkhorn import balance
from tests.support.core_samples import affinity_of, dense, places_of, random_units


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
    return find_affinity(places_of(features, anchors), AffinityConfig(num_neighbours=neighbours), seed=0)


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
    neighbours = np.stack(
        [np.append(row, rng.choice(np.delete(np.arange(60), row), 11, replace=False)) for row in range(60)]
    )
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
    plan = balance(
        affinity_of(neighbours, 3 * rng.standard_normal(neighbours.shape)), SinkhornConfig(max_iterations=60)
    )
    matrix = matrix_of(plan)
    np.testing.assert_allclose(matrix.sum(axis=1), 1, atol=1e-5)
    reached = np.isin(np.arange(size), neighbours)
    columns = matrix.sum(axis=0)[reached] * reached.sum() / size
    assert plan.column_error == pytest.approx(np.abs(columns - 1).mean(), abs=1e-5)
    np.testing.assert_allclose(plan.column_sums[reached], columns, atol=1e-4)
    if plan.outcome is BalanceOutcome.CONVERGED:
        assert plan.column_error <= 1e-3 * 1.01


def test_the_same_graph_gives_the_same_bytes() -> None:
    one, other = (balance(clustered(5), SinkhornConfig()) for _ in range(2))
    for name in ("indptr", "indices", "weights", "potential", "marginal_errors", "column_sums"):
        assert getattr(one, name).tobytes() == getattr(other, name).tobytes()


def test_a_score_that_is_not_finite_is_off_the_support() -> None:
    plan = balance(affinity_of([[0, 1], [1, 0]], [[np.nan, 1], [-np.inf, np.inf]]), SinkhornConfig())
    assert (plan.indptr.tolist(), plan.indices.tolist(), plan.weights.tolist()) == ([0, 1, 1], [1], [1.0])


@pytest.mark.parametrize("method", ["anderson", "knopp"])
def test_relabelling_items_relabels_the_plan(method: str) -> None:
    affinity = clustered(7, items=200, clusters=5, neighbours=40)
    order = np.random.default_rng(0).permutation(200)
    place = np.argsort(order)
    moved = affinity_of(
        np.where(affinity.neighbours[order] < 0, -1, place[affinity.neighbours[order]]), affinity.scores[order]
    )
    config = SinkhornConfig(method=method, tolerance=1e-8, max_iterations=3000)  # type: ignore[arg-type]
    there, here = balance(moved, config), balance(affinity, config)
    assert there.outcome is here.outcome is BalanceOutcome.CONVERGED
    np.testing.assert_allclose(matrix_of(there), matrix_of(here)[np.ix_(order, order)], atol=1e-6)
    np.testing.assert_allclose(there.potential, here.potential[order], atol=1e-4)


def test_a_rectangular_problem_shares_the_rows_evenly_among_the_columns_reached() -> None:
    rng = np.random.default_rng(2)
    neighbours = np.full((30, 12), -1)
    neighbours[:20] = np.stack([18 + rng.permutation(12) for _ in range(20)])
    plan = balance(
        affinity_of(neighbours, np.where(neighbours >= 0, rng.standard_normal((30, 12)), -np.inf)),
        SinkhornConfig(tolerance=1e-6),
    )
    matrix = matrix_of(plan)
    assert plan.outcome is BalanceOutcome.CONVERGED
    assert not matrix[20:].any()
    np.testing.assert_allclose(matrix[:20].sum(axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(matrix.sum(axis=0)[18:], 20 / 12, atol=1e-4)
    np.testing.assert_allclose(plan.column_sums[18:], 1, atol=1e-4)


@st.composite
def supports(draw: st.DrawFn) -> Affinity:
    """Anything: empty rows and columns, parts that do not meet, one item, scores from nothing to thousands, lone entries in a row."""
    size, width = draw(st.integers(1, 24)), draw(st.integers(1, 6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    parts = draw(st.integers(1, 3))
    neighbours = (
        np.stack([rng.permutation(size)[: min(width, size)] // parts * parts + row % parts for row in range(size)])
        % size
    )
    scores = draw(st.sampled_from([1e-6, 1.0, 30.0, 1000.0])) * rng.standard_normal(neighbours.shape)
    gone = rng.random(neighbours.shape) < draw(st.sampled_from([0.0, 0.3, 0.9]))
    gone[rng.random(size) < draw(st.sampled_from([0.0, 0.5]))] = True
    gone |= np.array([[x in row[:at] for at, x in enumerate(row)] for row in neighbours.tolist()]).reshape(
        neighbours.shape
    )
    return affinity_of(np.where(gone, -1, neighbours), np.where(gone, -np.inf, scores))


@given(
    affinity=supports(), method=st.sampled_from(["anderson", "knopp"]), balanced=st.sampled_from(["sinkhorn", "row"])
)
@settings(max_examples=150, deadline=None)
def test_whatever_the_support_nothing_is_nan_and_the_outcome_is_true(
    affinity: Affinity, method: str, balanced: str
) -> None:
    config = SinkhornConfig(method=method, balance=balanced, max_iterations=120)  # type: ignore[arg-type]
    with np.errstate(all="raise", under="ignore"):
        plan = balance(affinity, config)
    for array in (plan.weights, plan.potential, plan.marginal_errors, plan.column_sums):
        assert np.isfinite(array).all()
    held = np.flatnonzero((affinity.neighbours >= 0).any(axis=1))
    assert np.isfinite([plan.column_error, plan.diagonal_mass]).all()
    matrix = matrix_of(plan)
    np.testing.assert_allclose(matrix.sum(axis=1)[held], 1, atol=1e-5)
    reached = np.unique(plan.indices)
    assert (plan.outcome is BalanceOutcome.EMPTY) == (len(held) == 0)
    if not len(held):
        return
    np.testing.assert_allclose(
        plan.column_sums[reached], matrix.sum(axis=0)[reached] * len(reached) / len(held), rtol=1e-4, atol=1e-5
    )
    if plan.outcome is BalanceOutcome.CONVERGED:
        assert plan.column_error <= config.tolerance
    if plan.outcome is BalanceOutcome.INFEASIBLE:
        assert least_error(dense(affinity) > -np.inf) > config.tolerance


def least_error(support: np.ndarray[tuple[int, int], np.dtype[np.bool_]]) -> float:
    """The least mean column error of any plan on a support, by linear programming."""
    rows, columns = np.nonzero(support)
    asking, reached = np.unique(rows), np.unique(columns)
    share, entries = len(asking) / len(reached), len(rows)
    size = entries + 2 * len(reached)
    fixed, balance_of = np.zeros((len(asking), size)), np.zeros((len(reached), size))
    fixed[np.searchsorted(asking, rows), np.arange(entries)] = 1
    balance_of[np.searchsorted(reached, columns), np.arange(entries)] = 1
    over, under = entries + np.arange(len(reached)), entries + len(reached) + np.arange(len(reached))
    balance_of[np.arange(len(reached)), over], balance_of[np.arange(len(reached)), under] = -1, 1
    cost = np.concatenate([np.zeros(entries), np.ones(2 * len(reached))]) / share / len(reached)
    sums = np.concatenate([np.ones(len(asking)), np.full(len(reached), share)])
    found = linprog(cost, A_eq=np.vstack([fixed, balance_of]), b_eq=sums)
    return float(found.fun)


@pytest.mark.parametrize("seed", range(8))
def test_infeasible_means_that_no_plan_is_within_tolerance(seed: int) -> None:
    rng = np.random.default_rng(seed)
    neighbours = np.stack([rng.choice(40, 3, replace=False, p=np.arange(40, 0, -1) ** 2 / 22140) for _ in range(40)])
    # With itself in each row there is a balance, if only itself.
    if seed % 2:
        neighbours = np.hstack([np.where(neighbours == np.arange(40)[:, None], -1, neighbours), np.arange(40)[:, None]])
    affinity = affinity_of(neighbours, np.where(neighbours >= 0, rng.standard_normal(neighbours.shape), -np.inf))
    least, config = least_error(dense(affinity) > -np.inf), SinkhornConfig(max_iterations=1000)
    plan = balance(affinity, config)
    assert (plan.outcome is BalanceOutcome.INFEASIBLE) == (least > config.tolerance)
    assert (least > config.tolerance) == (seed % 2 == 0)
    if least > config.tolerance:
        assert least - 1e-7 <= plan.column_error < 1.3 * least


def test_it_starts_where_an_earlier_plan_ended() -> None:
    affinity = clustered(3)
    cold = balance(affinity, SinkhornConfig(tolerance=1e-4))
    again = balance(affinity, SinkhornConfig(tolerance=1.001e-4), potential=cold.potential)
    assert cold.iterations > 10 and again.iterations == 0 and again.outcome is BalanceOutcome.CONVERGED
    np.testing.assert_allclose(again.weights, cold.weights, rtol=1e-5, atol=1e-8)
    assert cold.potential.mean() == pytest.approx(0, abs=1e-9)
    # A changed item, and one that nothing is known of.
    scores, known = affinity.scores.copy(), cold.potential.copy()
    scores[5] -= 1
    known[17] = np.nan
    changed = affinity_of(affinity.neighbours, scores)
    warm, wanted = balance(changed, SinkhornConfig(), potential=known), balance(changed, SinkhornConfig())
    assert warm.outcome is BalanceOutcome.CONVERGED and warm.iterations < wanted.iterations
    with pytest.raises(ValueError, match="potential"):
        balance(affinity, SinkhornConfig(), potential=cold.potential[:-1])


def test_it_recovers_from_a_distant_potential() -> None:
    affinity = full_affinity(1, 30)
    far = 400 * np.random.default_rng(0).standard_normal(30)
    plan, wanted = (
        balance(affinity, SinkhornConfig(max_iterations=5000), potential=far),
        balance(affinity, SinkhornConfig()),
    )
    assert np.isfinite(plan.weights).all()
    assert plan.column_error < 1 and wanted.outcome is BalanceOutcome.CONVERGED


@pytest.mark.parametrize("seed", range(4))
def test_an_infeasible_graph_ends_near_the_least_error(seed: int) -> None:
    rng = np.random.default_rng(seed)
    neighbours = np.stack([rng.choice(60, 4, replace=False, p=np.arange(60, 0, -1) ** 2 / 73810) for _ in range(60)])
    affinity = affinity_of(neighbours, rng.standard_normal(neighbours.shape))
    least, plan = least_error(dense(affinity) > -np.inf), balance(affinity, SinkhornConfig())
    assert plan.outcome is BalanceOutcome.INFEASIBLE
    assert least <= plan.column_error + 1e-7 < 1.15 * least + 2e-3
    again = balance(affinity, SinkhornConfig(), potential=plan.potential)
    assert again.outcome is BalanceOutcome.INFEASIBLE
    assert again.iterations <= 10 < plan.iterations + 10
    assert again.column_error <= plan.column_error + 1e-4


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


def test_balancing_removes_hubs_and_the_row_ablation_keeps_them() -> None:
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
