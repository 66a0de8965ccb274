"""LightGCN's layer mean against dense algebra, and the randomised SVD against LAPACK's."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from rectifier_core.anchors.propagation import (
    InteractionGraph,
    layer_mean_rows,
    leading_singular_vectors,
    normalised_bipartite,
    symmetric_adjacency,
)
from rectifier_core.base.arrays import Float32, Float64
from rectifier_core.base.seeding import generator
from tests.support.core_samples import normals

PAIRS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 6)), max_size=40)


def normalised_by_hand(pairs: list[tuple[int, int]]) -> Float64:
    matrix = np.zeros((5, 7))
    for user, item in pairs:
        matrix[user, item] = 1
    users, items = np.maximum(matrix.sum(axis=1), 1), np.maximum(matrix.sum(axis=0), 1)
    return np.asarray(matrix / np.sqrt(users)[:, None] / np.sqrt(items)[None, :])


def bipartite(pairs: list[tuple[int, int]]) -> sp.csr_array:
    users, items = (np.array([pair[side] for pair in pairs], np.int32) for side in (0, 1))
    return normalised_bipartite(users, items, 5, 7)


@settings(max_examples=40, deadline=None)
@given(pairs=PAIRS)
def test_the_normalised_graph_is_the_dense_one_and_repeats_count_once(pairs: list[tuple[int, int]]) -> None:
    graph = bipartite(pairs + pairs[:3])
    assert graph.dtype == np.float32 and graph.nnz == len(set(pairs))
    assert np.allclose(graph.toarray(), normalised_by_hand(pairs), atol=1e-6)
    whole = symmetric_adjacency(graph).toarray()
    assert np.array_equal(whole[:5, 5:], graph.toarray()) and np.array_equal(whole, whole.T)
    assert not whole[:5, :5].any() and not whole[5:, 5:].any()


@settings(max_examples=25, deadline=None)
@given(pairs=PAIRS, layers=st.integers(0, 4))
def test_the_layer_mean_is_the_mean_of_the_powers(pairs: list[tuple[int, int]], layers: int) -> None:
    matrix = bipartite(pairs)
    graph, ego = InteractionGraph.both_ways(matrix), normals(np.random.default_rng(len(pairs)), 12, 3)
    before = ego.copy()
    dense = symmetric_adjacency(matrix).toarray().astype(np.float64)
    wanted = sum(np.linalg.matrix_power(dense, power) for power in range(layers + 1)) @ ego / (layers + 1)
    found = layer_mean_rows(graph, ego, layers)
    assert found.dtype == np.float32 and np.array_equal(ego, before)
    assert np.allclose(found, wanted, atol=1e-6)


def decaying(rows: int, columns: int) -> sp.csr_array:
    """A sparse matrix with known leading singular values 8, 4, 2, 1 above a small noise floor."""
    rng = np.random.default_rng(1)
    left, right = (np.linalg.qr(rng.standard_normal((size, 4)))[0] for size in (rows, columns))
    noise = sp.random_array((rows, columns), density=0.05, rng=rng) * 0.01
    return sp.csr_array((left * [8, 4, 2, 1]) @ right.T + noise.toarray(), dtype=np.float32)


def singular_vectors(matrix: sp.csr_array, rank: int, rng: np.random.Generator) -> tuple[Float32, Float32, Float32]:
    return leading_singular_vectors(InteractionGraph.both_ways(matrix), rank, rng)


@pytest.mark.parametrize("shape", [(90, 60), (40, 120)])
def test_leading_singular_vectors_are_lapacks(shape: tuple[int, int]) -> None:
    matrix = decaying(*shape)
    u, s, v = singular_vectors(matrix, 4, generator(0, "svd"))
    wanted_u, wanted_s, wanted_vt = np.linalg.svd(matrix.toarray().astype(np.float64))
    assert np.allclose(s, wanted_s[:4], rtol=1e-4)
    assert np.allclose(np.abs((u * wanted_u[:, :4]).sum(axis=0)), 1, atol=1e-4)
    assert np.allclose(np.abs((v * wanted_vt[:4].T).sum(axis=0)), 1, atol=1e-4)
    assert np.allclose(u * s, matrix @ v, atol=1e-3)
    assert (v[np.abs(v).argmax(axis=0), range(4)] > 0).all(), "the sign is fixed by the largest entry"


def test_the_subspace_of_a_flat_spectrum_is_nearly_optimal() -> None:
    """With no gap in the spectrum single vectors are arbitrary; what counts is how much of the matrix they hold."""
    matrix = sp.csr_array(sp.random_array((150, 100), density=0.1, rng=np.random.default_rng(2)).astype(np.float32))
    _, s, v = singular_vectors(matrix, 12, generator(0, "svd"))
    best = np.linalg.svd(matrix.toarray(), compute_uv=False)[:12]
    assert np.allclose(v.T @ v, np.eye(12), atol=1e-4)
    assert np.linalg.norm(matrix @ v) ** 2 > 0.98 * (best**2).sum()
    assert (s <= best * 1.0001).all() and (np.diff(s) <= 0).all()


def test_a_rank_beyond_the_size_is_padded_with_zeros() -> None:
    matrix = sp.csr_array(normals(np.random.default_rng(5), 6, 5))
    u, s, v = singular_vectors(matrix, 9, generator(0, "svd"))
    assert u.shape == (6, 9) and s.shape == (9,) and v.shape == (5, 9)
    assert not u[:, 5:].any() and not s[5:].any() and not v[:, 5:].any()
    assert np.allclose((u * s) @ v.T, matrix.toarray(), atol=1e-4)


def test_the_same_stream_gives_the_same_bytes() -> None:
    first, second = (singular_vectors(decaying(30, 20), 4, generator(3, "svd")) for _ in range(2))
    assert [part.tobytes() for part in first] == [part.tobytes() for part in second]
    assert all(part.dtype == np.float32 and part.flags.c_contiguous for part in first)
