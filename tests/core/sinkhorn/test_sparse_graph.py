"""The support in both orders and the work on its blocks, against SciPy and plain formulas; Anderson mixing against its definition."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rectifier_core.base.records import Affinity
from rectifier_core.sinkhorn.anderson import CHUNK, Anderson
from rectifier_core.sinkhorn.config import SinkhornConfig
from rectifier_core.sinkhorn.scaling import in_order, kernel_sums, lowest_of_rows, make_columns, make_rows, weigh_rows
from rectifier_core.sinkhorn.sinkhorn import balance
from rectifier_core.sinkhorn.sparse_graph import Side, build_support
from tests.support.core_samples import affinity_of, dense


@pytest.fixture
def threads() -> Iterator[None]:
    """Whatever a test sets, it is as before after it."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def sparse_affinity(seed: int, size: int, width: int, spread: float = 3.0) -> Affinity:
    rng = np.random.default_rng(seed)
    neighbours = np.stack([rng.permutation(size)[: min(width, size)] for _ in range(size)])
    gone = rng.random(neighbours.shape) < 0.3
    return affinity_of(
        np.where(gone, -1, neighbours), np.where(gone, -np.inf, spread * rng.standard_normal(neighbours.shape))
    )


def matrix_of(side: Side, values: str) -> sp.csr_array:
    return sp.csr_array((getattr(side, values), side.indices, side.indptr), (len(side.indptr) - 1,) * 2)


@given(
    seed=st.integers(0, 999), size=st.integers(1, 60), width=st.integers(1, 8), memory=st.none() | st.integers(1, 5000)
)
@settings(max_examples=40, deadline=None)
def test_both_orders_hold_the_graph(seed: int, size: int, width: int, memory: int | None) -> None:
    affinity = sparse_affinity(seed, size, width)
    support = build_support(affinity, memory=memory)
    wanted = dense(affinity)
    held = np.where(np.isfinite(wanted), wanted, 0)
    np.testing.assert_array_equal(matrix_of(support.rows, "logits").toarray(), held.astype(np.float32))
    np.testing.assert_array_equal(matrix_of(support.columns, "logits").toarray(), held.T.astype(np.float32))
    assert matrix_of(support.columns, "logits").has_sorted_indices
    np.testing.assert_array_equal(support.reached, np.isfinite(wanted).any(axis=0))
    np.testing.assert_array_equal(support.asking, np.isfinite(wanted).any(axis=1))
    for blocks in (support.row_blocks, support.column_blocks):
        assert [block.first for block in blocks] == [0, *(block.last for block in blocks[:-1])]
        assert blocks[-1].last == size


def test_a_score_that_is_not_finite_is_off_the_support() -> None:
    support = build_support(affinity_of([[0, 1], [1, 0]], [[np.nan, 1], [-np.inf, np.inf]]))
    assert support.num_entries == 1 and support.rows.indices.tolist() == [1]


@pytest.mark.parametrize("spread", [1.0, 60.0, 2000.0])
def test_rows_and_columns_see_one_matrix(spread: float) -> None:
    affinity = sparse_affinity(4, 50, 7, spread)
    support = build_support(affinity)
    rng = np.random.default_rng(0)
    potential, vector = spread * rng.standard_normal(50), rng.random(50)
    top = in_order(make_rows, support.row_blocks, (potential,))
    scale = in_order(make_columns, support.column_blocks, (potential, top))
    exponents = dense(affinity) + potential
    np.testing.assert_array_equal(top[support.asking], exponents.max(axis=1)[support.asking])
    with np.errstate(invalid="ignore", divide="ignore", under="ignore"):
        wanted = np.exp(exponents - exponents.max(axis=1, keepdims=True))
        columns = np.exp(exponents - exponents.max(axis=1, keepdims=True) - scale)
    wanted[~support.asking] = columns[~support.asking] = 0
    np.testing.assert_allclose(matrix_of(support.rows, "kernel").toarray(), wanted, rtol=1e-6, atol=1e-37)
    highest = matrix_of(support.columns, "kernel").toarray().max(axis=1)[support.reached]
    assert ((highest >= 1) & (highest <= 2)).all()
    np.testing.assert_allclose(in_order(kernel_sums, support.row_blocks, (vector,)), wanted @ vector, rtol=1e-6)
    rounded = in_order(kernel_sums, support.row_blocks, (vector.astype(np.float32),))
    np.testing.assert_allclose(rounded, wanted @ vector.astype(np.float32), rtol=1e-6)
    sums = in_order(kernel_sums, support.column_blocks, (vector,))
    np.testing.assert_allclose(sums, columns.T @ vector, rtol=2e-6)
    least = in_order(lowest_of_rows, support.row_blocks, (vector,))
    np.testing.assert_array_equal(least, np.where(np.isfinite(exponents), vector, np.inf).min(axis=1))
    own = in_order(weigh_rows, support.row_blocks, (vector, vector))
    np.testing.assert_allclose(
        matrix_of(support.rows, "kernel").toarray(), wanted * vector * vector[:, None], rtol=1e-6, atol=1e-37
    )
    np.testing.assert_array_equal(np.isnan(own), ~np.isfinite(np.diagonal(exponents)))


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("memory", [None, 30_000])
def test_threads_change_no_bit_of_a_plan(memory: int | None) -> None:
    affinity, plans = sparse_affinity(9, 700, 12), []
    for count in (1, 2, 5):
        torch.set_num_threads(count)
        plans.append(balance(affinity, SinkhornConfig(max_iterations=15), memory=memory))
    for plan in plans[1:]:
        for name in ("indptr", "indices", "weights", "potential", "marginal_errors", "column_sums"):
            assert getattr(plan, name).tobytes() == getattr(plans[0], name).tobytes()
        assert plan.diagonal_mass == plans[0].diagonal_mass


def test_mixing_solves_a_linear_fixed_point_in_few_steps() -> None:
    size = 3 * CHUNK + 17
    modes = np.random.default_rng(0).standard_normal((3, size))
    basis, _ = np.linalg.qr(modes.T)
    factors, wanted = np.array([0.9, 0.5, -0.5]), np.random.default_rng(1).standard_normal(size)

    def residual(point: np.ndarray[tuple[int], np.dtype[np.float64]]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        off = point - wanted
        moved: np.ndarray[tuple[int], np.dtype[np.float64]] = basis @ (factors * (basis.T @ off)) - off
        return moved

    mixing, point = Anderson(5, size), np.zeros(size)
    for _ in range(9):
        point = mixing.next(point, residual(point))
    np.testing.assert_allclose(point, wanted, atol=1e-4)
    mixing.forget()
    np.testing.assert_array_equal(mixing.next(point, residual(point)), point + residual(point))


def test_mixing_keeps_the_last_iterates_only() -> None:
    rng = np.random.default_rng(2)
    points, residuals = rng.standard_normal((8, 40)), rng.standard_normal((8, 40))
    mixing = Anderson(3, 40)
    for point, step in zip(points, residuals, strict=True):
        found = mixing.next(point, step)
    changes, moves = np.diff(residuals[-4:], axis=0), np.diff(points[-4:], axis=0)
    mixture = np.linalg.lstsq(changes.T, residuals[-1], rcond=None)[0]
    np.testing.assert_allclose(found, points[-1] + residuals[-1] - mixture @ (moves + changes), atol=1e-5)
