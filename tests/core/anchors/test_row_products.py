"""The sparse product against SciPy's, bit for bit over threads and shards, and how work is divided."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rectifier_core.anchors import row_products
from rectifier_core.anchors.row_products import (
    dense_product,
    empty_rows,
    gram_matrix,
    multiply,
    multiply_some,
    product_matrix,
)
from rectifier_core.base.threads import balanced_bounds, even_bounds, in_shards, num_shards
from tests.support.core_samples import normals


@pytest.fixture
def threads() -> Iterator[None]:
    """Whatever a test sets the number of threads to, the next one finds it as it was."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def sparse(rows: int, columns: int, density: float, seed: int = 0) -> sp.csr_array:
    return product_matrix(
        sp.random_array((rows, columns), density=density, rng=np.random.default_rng(seed), format="csr")
    )


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(st.integers(0, 30), st.integers(1, 30)),
    width=st.sampled_from([1, 3, 15, 16, 17, 63, 64, 65, 80, 150]),
    density=st.sampled_from([0.0, 0.1, 0.6]),
    scale=st.sampled_from([1.0, 0.25]),
    added=st.booleans(),
)
def test_the_product_is_scipys(shape: tuple[int, int], width: int, density: float, scale: float, added: bool) -> None:
    matrix, rng = sparse(*shape, density), np.random.default_rng(1)
    dense, base = normals(rng, shape[1], width), normals(rng, shape[0], width)
    wanted = scale * ((base if added else 0) + matrix.astype(np.float64) @ dense)
    found = multiply(matrix, dense, base=base if added else None, scale=scale)
    assert found.dtype == np.float32 and found.shape == (shape[0], width)
    assert np.allclose(found, wanted, atol=1e-5)


def test_the_output_may_be_what_is_added() -> None:
    matrix, base = sparse(40, 30, 0.2), normals(np.random.default_rng(2), 40, 70)
    dense = normals(np.random.default_rng(3), 30, 70)
    wanted = multiply(matrix, dense, base=base, scale=0.5)
    assert multiply(matrix, dense, base=base, scale=0.5, out=base) is base
    assert base.tobytes() == wanted.tobytes()


def test_some_rows_are_rows_of_all_rows() -> None:
    matrix, dense = sparse(40, 30, 0.2), normals(np.random.default_rng(2), 30, 64)
    base, out = normals(np.random.default_rng(3), 40, 64), empty_rows(9, 64)
    multiply_some(matrix, 7, 16, dense, base=base, scale=2.0, out=out)
    assert out.tobytes() == multiply(matrix, dense, base=base, scale=2.0)[7:16].tobytes()


@pytest.mark.usefixtures("threads")
def test_any_number_of_threads_gives_the_same_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    matrix, dense = sparse(300, 200, 0.1), normals(np.random.default_rng(2), 200, 74)
    torch.set_num_threads(1)
    wanted = multiply(matrix, dense).tobytes()
    for count, shards in ((1, 7), (2, 8), (3, 300), (5, 1)):
        torch.set_num_threads(count)
        monkeypatch.setattr(row_products, "num_shards", lambda work, shards=shards: shards)
        assert multiply(matrix, dense).tobytes() == wanted


def test_rows_lie_on_cache_lines() -> None:
    assert empty_rows(3, 16).ctypes.data % 64 == 0


def test_a_matrix_is_taken_as_it_is_if_it_fits() -> None:
    matrix = sparse(4, 5, 0.5)
    assert np.shares_memory(product_matrix(matrix).data, matrix.data)
    wide = sp.csr_array(
        (matrix.data.astype(np.float64), matrix.indices.astype(np.int64), matrix.indptr.astype(np.int64)), shape=(4, 5)
    )
    found = product_matrix(wide)
    assert (found.dtype, found.indices.dtype, found.indptr.dtype) == (np.float32, np.int32, np.int32)
    assert np.array_equal(found.toarray(), matrix.toarray())


def test_what_does_not_fit_is_refused() -> None:
    matrix, dense = sparse(4, 5, 0.5), np.zeros((5, 3), np.float32)
    for wrong in (np.zeros((4, 3), np.float32), np.zeros((5, 3)), np.zeros((3, 5), np.float32).T):
        with pytest.raises(ValueError, match=r"dense: wanted contiguous float32 \(5, 3\)"):
            multiply(matrix, wrong)
    with pytest.raises(ValueError, match=r"base: wanted contiguous float32 \(4, 3\), got float32 \(5, 3\)"):
        multiply(matrix, dense, base=dense)
    with pytest.raises(ValueError, match="matrix: wanted float32 and int32 indices, got float64"):
        multiply(matrix.astype(np.float64), dense)


@settings(max_examples=60, deadline=None)
@given(degrees=st.lists(st.integers(0, 9), max_size=40), shards=st.integers(1, 9))
def test_balanced_ranges_cover_all_rows_evenly(degrees: list[int], shards: int) -> None:
    indptr = np.concatenate([[0], np.cumsum(degrees)]).astype(np.int32)
    bounds = balanced_bounds(indptr, shards)
    assert bounds[0] == 0 and bounds[-1] == len(degrees) and sorted(bounds) == bounds and len(bounds) == shards + 1
    work = [int(indptr[last] - indptr[first]) + last - first for first, last in pairwise(bounds)]
    assert max(work) <= sum(work) / shards + 10


@settings(max_examples=30, deadline=None)
@given(count=st.integers(0, 50), shards=st.integers(1, 9))
def test_even_ranges_cover_all(count: int, shards: int) -> None:
    lengths = np.diff(even_bounds(count, shards))
    assert lengths.sum() == count and lengths.max() - lengths.min() <= 1


@pytest.mark.usefixtures("threads")
def test_shards_run_once_each_on_as_many_threads_as_torch_has() -> None:
    torch.set_num_threads(3)
    seen: list[int] = []
    together = threading.Barrier(3, timeout=20)

    def work(first: int, last: int) -> None:
        if first < 3:
            together.wait()
        seen.append(first)

    in_shards(work, list(range(21)))
    assert sorted(seen) == list(range(20))


@pytest.mark.usefixtures("threads")
def test_one_thread_starts_no_other_and_small_work_is_not_divided() -> None:
    torch.set_num_threads(1)
    found: list[threading.Thread] = []
    in_shards(lambda first, last: found.append(threading.current_thread()), [0, 1, 2, 3])
    assert found == [threading.current_thread()] * 3
    assert num_shards(1e12) == 1
    torch.set_num_threads(2)
    assert num_shards(1e12) == 8 and num_shards(1e4) == 1


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("count", [1, 3])
def test_what_a_shard_raises_is_raised(count: int) -> None:
    torch.set_num_threads(count)

    def work(first: int, last: int) -> None:
        if first == 5:
            raise ArithmeticError("shard 5")

    with pytest.raises(ArithmeticError, match="shard 5"):
        in_shards(work, list(range(9)))


@settings(max_examples=40, deadline=None)
@given(rows=st.integers(0, 23), terms=st.integers(1, 20), width=st.sampled_from([1, 15, 16, 33, 64]))
def test_dense_products_are_numpys(rows: int, terms: int, width: int) -> None:
    rng = np.random.default_rng(rows)
    left, right, other = normals(rng, rows, terms), normals(rng, terms, width), normals(rng, rows, width)
    assert np.allclose(dense_product(left, right), left.astype(np.float64) @ right, atol=1e-5)
    gram = gram_matrix(left, other)
    assert gram.shape == (terms, width) and gram.dtype == np.float64
    assert np.allclose(gram, left.T.astype(np.float64) @ other, atol=1e-5)


@pytest.mark.usefixtures("threads")
def test_dense_products_do_not_depend_on_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    left, right = normals(rng, 9001, 24), normals(rng, 24, 34)
    found = []
    for count in (1, 3):
        torch.set_num_threads(count)
        monkeypatch.setattr(row_products, "num_shards", lambda work, count=count: count**2)
        found.append(dense_product(left, right).tobytes() + gram_matrix(left, left).tobytes())
    assert found[0] == found[1]
    assert np.allclose(gram_matrix(left, left), left.T.astype(np.float64) @ left, rtol=1e-5, atol=0.01)
