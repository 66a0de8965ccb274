"""Weighted sums of a table's rows, against a sparse product."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp

from rectifier_core.base.weighted_sums import weighted_sums
from tests.support.core_samples import normals


@pytest.mark.parametrize("width", [1, 7, 64, 1280])
def test_a_sum_is_that_of_the_sparse_product_and_does_not_depend_on_the_others(width: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(width)
    counts = rng.integers(0, 9, 50)
    indptr = np.append(0, np.cumsum(counts))
    indices = rng.integers(0, 30, indptr[-1]).astype(np.int32)
    weights = rng.standard_normal(indptr[-1]).astype(np.float32)
    np.save(tmp_path / "table.npy", normals(rng, 30, width))
    table = np.load(tmp_path / "table.npy", mmap_mode="r")
    found = weighted_sums(table, indptr, indices, weights)
    wanted = sp.csr_array((weights.astype(np.float64), indices, indptr), shape=(50, 30)) @ table.astype(np.float64)
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    assert found.dtype == np.float32 and (counts == 0).any() and not found[counts == 0].any()
    for row in range(50):
        span = slice(indptr[row], indptr[row + 1])
        alone = weighted_sums(table, np.array([0, counts[row]]), indices[span], weights[span])
        assert alone[0].tobytes() == found[row].tobytes()
