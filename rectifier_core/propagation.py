"""The interaction graph and LightGCN's layer mean over it; a leaf that stages share.

Source: He et al., "LightGCN", SIGIR 2020, equations 3-8: E^(l+1) = D^-1/2 A D^-1/2 E^(l), output the mean over layers 0..L.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
import torch

from rectifier_core.records import Float32, Float64, Int32


def normalised_bipartite(users: Int32, items: Int32, num_users: int, num_items: int) -> sp.csr_array:
    """D_u^-1/2 R D_i^-1/2 as CSR float32 [U, I]; repeated pairs count once, empty rows and columns stay empty."""
    matrix = sp.csr_array((np.ones(len(users), np.float32), (users, items)), shape=(num_users, num_items))
    matrix.sum_duplicates()
    matrix.data[:] = 1.0
    scaled = sp.diags_array(_inverse_root(matrix.sum(axis=1))) @ matrix @ sp.diags_array(_inverse_root(matrix.sum(axis=0)))
    return sp.csr_array(scaled.astype(np.float32))


def _inverse_root(degrees: Float64) -> Float64:
    inverse: Float64 = np.divide(1.0, np.sqrt(degrees), out=np.zeros(len(degrees)), where=degrees > 0)
    return inverse


def symmetric_adjacency(bipartite: sp.csr_array) -> sp.csr_array:
    """[[0, R], [R^T, 0]] as CSR float32 over users, then items."""
    return sp.csr_array(sp.block_array([[None, bipartite], [bipartite.T, None]], format="csr", dtype=np.float32))


def layer_mean(adjacency: sp.csr_array, ego: Float32, num_layers: int) -> Float32:
    """Mean of ``ego``, ``A ego``, ..., ``A^L ego``: [N, A] float32 -> [N, A] float32 (LightGCN equation 8, equal weights)."""
    layer, total = ego, ego.copy()
    for _ in range(num_layers):
        layer = adjacency @ layer
        total += layer
    total /= num_layers + 1
    return total


class LayerMean(torch.autograd.Function):
    """``layer_mean`` with its gradient: the operator is linear and symmetric, so the backward pass is the forward pass."""

    @staticmethod
    def forward(ctx: Any, ego: torch.Tensor, adjacency: sp.csr_array, num_layers: int) -> torch.Tensor:
        """Propagate ``ego`` [N, A]; ``adjacency`` must be symmetric."""
        ctx.adjacency, ctx.num_layers = adjacency, num_layers
        return torch.from_numpy(layer_mean(adjacency, ego.detach().numpy(), num_layers))

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        """The same propagation applied to the incoming gradient."""
        incoming = np.ascontiguousarray(gradients[0].numpy())
        return torch.from_numpy(layer_mean(ctx.adjacency, incoming, ctx.num_layers)), None, None


def leading_singular_vectors(
    matrix: sp.csr_array, rank: int, rng: np.random.Generator, *, power_iterations: int = 4
) -> tuple[Float32, Float32, Float32]:
    """Randomised truncated SVD, (U [N, rank], s [rank], V [M, rank]); Halko, Martinsson, Tropp 2011, algorithm 4.4.

    ``rank`` beyond the smaller side gives zero columns, so the width asked for is the width returned.
    """
    rows, columns = matrix.shape
    width = min(rank + 10, rows, columns)
    transposed = matrix.T.tocsr()
    basis = np.linalg.qr(matrix @ rng.standard_normal((columns, width)).astype(np.float32))[0]
    for _ in range(power_iterations):
        basis = np.linalg.qr(matrix @ np.linalg.qr(transposed @ basis)[0])[0]
    right, values, left = np.linalg.svd(transposed @ basis, full_matrices=False)
    sign = np.where(right[np.abs(right).argmax(axis=0), np.arange(width)] < 0, -1.0, 1.0).astype(np.float32)
    found = min(rank, width)
    pad = [(0, 0), (0, rank - found)]
    u = np.pad(((basis @ left.T) * sign)[:, :found], pad)
    v = np.pad((right * sign)[:, :found], pad)
    return (
        np.ascontiguousarray(u, dtype=np.float32),
        np.pad(values[:found], pad[1]).astype(np.float32),
        np.ascontiguousarray(v, dtype=np.float32),
    )
