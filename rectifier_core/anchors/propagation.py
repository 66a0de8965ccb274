"""The interaction graph, LightGCN's layer mean over it and its leading singular vectors; a leaf that stages share.

Sources: He et al., "LightGCN", SIGIR 2020, equations 3-8: E^(l+1) = D^-1/2 A D^-1/2 E^(l), output the mean over layers 0..L; Halko,
Martinsson, Tropp, "Finding structure with randomness", SIAM Review 2011, algorithm 4.4; Stathopoulos and Wu, "A block orthogonalization
procedure with constant synchronization requirements", SISC 2002 (SVQB).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
import scipy.sparse as sp

from rectifier_core.anchors.row_products import dense_product, empty_rows, gram_matrix, multiply, product_matrix
from rectifier_core.base.arrays import Float32, Float64, Int32, Int64
from rectifier_core.base.numerics import row_blocks
from rectifier_core.base.records import Interactions
from rectifier_core.base.threads import kernel

USERS, ITEMS = 0, 1
BLOCK = 2**16


def normalised_bipartite(users: Int32, items: Int32, num_users: int, num_items: int) -> sp.csr_array:
    """D_u^-1/2 R D_i^-1/2 as CSR float32 [U, I]; repeated pairs count once, empty rows and columns stay empty."""
    matrix = sp.csr_array((np.ones(len(users), np.float32), (users, items)), shape=(num_users, num_items))
    matrix.sum_duplicates()
    row = np.repeat(_inverse_root(np.diff(matrix.indptr)), np.diff(matrix.indptr))
    matrix.data = row
    matrix.data *= _inverse_root(np.bincount(matrix.indices, minlength=num_items))[matrix.indices]
    return product_matrix(matrix)


def _inverse_root(degrees: Int32 | Int64) -> Float32:
    inverse = np.divide(1.0, np.sqrt(degrees), out=np.zeros(len(degrees)), where=degrees > 0)
    return inverse.astype(np.float32)


def symmetric_adjacency(bipartite: sp.csr_array) -> sp.csr_array:
    """[[0, R], [R^T, 0]] as CSR float32 over users, then items."""
    return product_matrix(sp.block_array([[None, bipartite], [bipartite.T, None]], format="csr", dtype=np.float32))


@dataclass(frozen=True, slots=True)
class InteractionGraph:
    """The normalised bipartite graph both ways: ``towards[USERS]`` [U, I] gathers items at users, ``towards[ITEMS]`` is its transpose.

    Propagation needs no block matrix over both: each side's rows are gathered from the other's. Rows [U + I, A] are users, then items.
    """

    towards: tuple[sp.csr_array, sp.csr_array]

    @classmethod
    def of(cls, pairs: Interactions) -> InteractionGraph:
        """The graph of these pairs; repeated ones count once."""
        return cls.both_ways(normalised_bipartite(pairs.users, pairs.items, pairs.num_users, pairs.num_items))

    @classmethod
    def both_ways(cls, bipartite: sp.csr_array) -> InteractionGraph:
        """The graph whose weights are ``bipartite`` [U, I]."""
        matrix = product_matrix(bipartite)
        return cls((matrix, product_matrix(matrix.T.tocsr())))

    @property
    def num_nodes(self) -> int:
        """U + I."""
        return sum(self.towards[USERS].shape)

    def rows(self, nodes: Float32, side: int) -> Float32:
        """The users' or the items' rows of [U + I, A], a view."""
        num_users = self.towards[USERS].shape[0]
        return nodes[:num_users] if side == USERS else nodes[num_users:]


def layer_mean(
    graph: InteractionGraph,
    ego: Float32,
    num_layers: int,
    *,
    out: Float32 | None = None,
    scratch: Float32 | None = None,
) -> Float32:
    """Mean of ``ego``, ``A ego``, ..., ``A^L ego``: [U + I, A] float32 -> the same (LightGCN equation 8, equal weights).

    The operator is symmetric, so the mean's gradient is this function of the incoming gradient. ``out`` and ``scratch`` [U + I, A] are
    written to; new ones unless given.
    """
    out = empty_rows(*ego.shape) if out is None else out
    if not num_layers:
        out[:] = ego
        return out
    scratch = empty_rows(*ego.shape) if scratch is None else scratch
    for side in (USERS, ITEMS):
        inner = inner_layers(graph, ego, num_layers, side, scratch)
        multiply(
            graph.towards[side],
            inner,
            base=graph.rows(ego, side),
            scale=1 / (num_layers + 1),
            out=graph.rows(out, side),
        )
    return out


def inner_layers(graph: InteractionGraph, ego: Float32, num_layers: int, side: int, scratch: Float32) -> Float32:
    """What the last product towards ``side`` is applied to, a view of ``scratch`` (of ``ego`` for one layer).

    By Horner's rule, E + A (E + A (E + ...)), the mean's users come of their own rows and of the items one layer in, those of the users
    two layers in, and so on: one chain for each side, and neither needs a second buffer. ``num_layers`` is at least 1.
    """
    at = (side + num_layers) % 2
    source = graph.rows(ego, at)
    for _ in range(num_layers - 1):
        at = 1 - at
        source = multiply(graph.towards[at], source, base=graph.rows(ego, at), out=graph.rows(scratch, at))
    return source


def leading_singular_vectors(
    graph: InteractionGraph, rank: int, rng: np.random.Generator, *, power_iterations: int = 4
) -> tuple[Float32, Float32, Float32]:
    """Randomised truncated SVD of ``towards[USERS]``, (U [U, rank], s [rank], V [I, rank]), the largest entry of each v positive.

    Axes beyond the matrix's rank are zero columns, so the width asked for is the width returned.
    """
    to_users, to_items = graph.towards
    # A multiple of 16 fills vector registers; at least ten axes more than asked for are what the method's bounds want.
    width = min(-(-(rank + 10) // 16) * 16, *to_users.shape)
    items = rng.standard_normal((to_users.shape[1], width), dtype=np.float32)
    users = multiply(to_users, items)
    for _ in range(power_iterations):
        multiply(to_items, orthonormal(users, passes=1), out=items)
        multiply(to_users, orthonormal(items, passes=1), out=users)
    orthonormal(users)
    multiply(to_items, users, out=items)
    values, axes = _principal(items)
    values, axes = values[:rank], axes[:, :rank]
    v = dense_product(items, (axes / np.where(values > 0, values, np.inf)).astype(np.float32))
    sign = np.where(v[np.abs(v).argmax(axis=0), np.arange(len(values))] < 0, -1, 1).astype(np.float32) if len(v) else 1
    v *= sign
    u = dense_product(users, (axes * (values > 0) * sign).astype(np.float32))
    pad = [(0, 0), (0, rank - len(values))]
    u, v = (np.pad(x, pad) if pad[1][1] else x for x in (u, v))
    return u, np.pad(values, pad[1]).astype(np.float32), v


def orthonormal(rows: Float32, passes: int = 2) -> Float32:
    """An orthonormal basis of the columns' span, written over ``rows`` [N, w]; zero columns where they have less than full rank.

    One pass leaves an error of the condition number squared, enough between power iterations; after two it is rounding. LAPACK's QR takes
    ten times as long.
    """
    for _ in range(passes):
        values, axes = _principal(rows)
        turn = (axes / np.where(values > 0, values, np.inf)).astype(np.float32)
        for block in row_blocks(len(rows), BLOCK):
            rows[block] = dense_product(rows[block], turn)
    return rows


def _principal(rows: Float32) -> tuple[Float64, Float64]:
    """Singular values, falling, and right singular vectors of ``rows`` [N, w] by their Gram matrix.

    A value below 3e-4 of the largest is rounding in the matrix of squares, and 0.
    """
    squares, axes = symmetric_eigen(gram_matrix(rows, rows))
    order = np.argsort(-squares, kind="stable")
    squares, axes = squares[order], axes[:, order]
    return np.sqrt(np.where(squares < 1e-7 * squares.max(initial=0), 0, squares)), axes


@kernel(numba.void(numba.float64[:, ::1], numba.float64[:, ::1]))
def _jacobi(matrix: Any, axes: Any) -> None:
    """Cyclic Jacobi rotations until ``matrix`` is diagonal; the rows of ``axes`` become its eigenvectors."""
    size = len(matrix)
    for _ in range(30):
        off = 0.0
        for p in range(size - 1):
            for q in range(p + 1, size):
                off = max(off, abs(matrix[p, q]) / (math.sqrt(abs(matrix[p, p] * matrix[q, q])) + 1e-300))
                if matrix[p, q] == 0.0:
                    continue
                slope = (matrix[q, q] - matrix[p, p]) / (2 * matrix[p, q])
                tangent = (1.0 if slope >= 0 else -1.0) / (abs(slope) + math.sqrt(slope * slope + 1))
                cosine = 1 / math.sqrt(tangent * tangent + 1)
                sine = tangent * cosine
                for k in range(size):
                    one, other = matrix[k, p], matrix[k, q]
                    matrix[k, p], matrix[k, q] = cosine * one - sine * other, sine * one + cosine * other
                for k in range(size):
                    one, other = matrix[p, k], matrix[q, k]
                    matrix[p, k], matrix[q, k] = cosine * one - sine * other, sine * one + cosine * other
                for k in range(size):
                    one, other = axes[p, k], axes[q, k]
                    axes[p, k], axes[q, k] = cosine * one - sine * other, sine * one + cosine * other
        if off < 1e-14:
            return


def symmetric_eigen(matrix: Float64) -> tuple[Float64, Float64]:
    """Eigenvalues and eigenvectors (columns) of a small symmetric matrix; LAPACK's depend on its number of threads in the last digits."""
    work, axes = np.array(matrix, dtype=np.float64, order="C"), np.eye(len(matrix))
    _jacobi(work, axes)
    return np.diag(work).copy(), axes.T
