"""The normalised interaction graph, LightGCN's layer mean over it, and its leading singular vectors.

Sources: He et al., "LightGCN", SIGIR 2020, equations 3-8: E^(l+1) = D^-1/2 A D^-1/2 E^(l), the output is the mean over layers 0..L; Halko,
Martinsson, Tropp, "Finding structure with randomness", SIAM Review 2011, algorithm 4.4; Stathopoulos and Wu, "A block orthogonalization
procedure with constant synchronization requirements", SISC 2002 (SVQB).

Differs from the papers:
- The layer mean is computed by Horner's rule, E + A (E + A (E + ...)), so that no layer but the current one is kept.
- Bases are made orthonormal by SVQB instead of QR, which takes five times as long.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch

from rectifier_core.base.arrays import Float32, Int32, Int64
from rectifier_core.base.devices import CPU, sparse_to_device, to_device
from rectifier_core.base.records import Interactions
from rectifier_core.base.weighted_sums import sparse_product

USERS, ITEMS = 0, 1
LEAST_SINGULAR_VALUE = 3e-4
"""A singular value below this share of the largest is float32 rounding in the Gram matrix, and counts as 0."""


def normalised_bipartite(users: Int32, items: Int32, num_users: int, num_items: int) -> sp.csr_array:
    """D_u^-1/2 R D_i^-1/2 as CSR float32 [U, I]. Repeated pairs count once, empty rows and columns stay empty."""
    matrix = sp.csr_array((np.ones(len(users), np.float32), (users, items)), shape=(num_users, num_items))
    matrix.sum_duplicates()
    row = np.repeat(_inverse_root(np.diff(matrix.indptr)), np.diff(matrix.indptr))
    matrix.data = row
    matrix.data *= _inverse_root(np.bincount(matrix.indices, minlength=num_items))[matrix.indices]
    return matrix


def _inverse_root(degrees: Int32 | Int64) -> Float32:
    inverse = np.divide(1.0, np.sqrt(degrees), out=np.zeros(len(degrees)), where=degrees > 0)
    return inverse.astype(np.float32)


def symmetric_adjacency(bipartite: sp.csr_array) -> sp.csr_array:
    """[[0, R], [R^T, 0]] as CSR float32 over users, then items."""
    return sp.csr_array(sp.block_array([[None, bipartite], [bipartite.T, None]], format="csr", dtype=np.float32))


@dataclass(frozen=True, slots=True)
class InteractionGraph:
    """The normalised bipartite graph both ways, as torch CSR matrices on one device.

    ``towards[USERS]`` [U, I] gathers items at users, ``towards[ITEMS]`` is its transpose. Node rows [U + I, A] are users, then items.
    """

    towards: tuple[torch.Tensor, torch.Tensor]

    @classmethod
    def of(cls, pairs: Interactions) -> InteractionGraph:
        """The graph of these pairs on the CPU; repeated ones count once."""
        return cls.both_ways(normalised_bipartite(pairs.users, pairs.items, pairs.num_users, pairs.num_items))

    @classmethod
    def both_ways(cls, bipartite: sp.csr_array) -> InteractionGraph:
        """The graph whose weights are ``bipartite`` [U, I], on the CPU."""
        return cls((sparse_to_device(bipartite, CPU), sparse_to_device(bipartite.T.tocsr(), CPU)))

    def to(self, device: str) -> InteractionGraph:
        """The same graph on another device."""
        users, items = (matrix.to(device) for matrix in self.towards)
        return InteractionGraph((users, items))

    @property
    def device(self) -> str:
        """Torch's name of the device that holds the graph."""
        return str(self.towards[USERS].device)

    @property
    def num_users(self) -> int:
        """U."""
        return int(self.towards[USERS].shape[0])

    @property
    def num_nodes(self) -> int:
        """U + I."""
        return sum(self.towards[USERS].shape)

    @property
    def num_entries(self) -> int:
        """Entries of both matrices."""
        return 2 * len(self.towards[USERS].values())


def layer_mean(
    graph: InteractionGraph,
    ego: torch.Tensor,
    num_layers: int,
    *,
    out: torch.Tensor | None = None,
    scratch: torch.Tensor | None = None,
) -> torch.Tensor:
    """Mean of ``ego``, ``A ego``, ..., ``A^L ego``: [U + I, A] float32 -> the same shape (LightGCN equation 8, equal weights).

    The operator is symmetric, so the gradient of this mean is the same function of the incoming gradient. ``out`` and ``scratch``
    [U + I, A] are written to; new ones unless passed.
    """
    out = torch.empty_like(ego) if out is None else out
    if not num_layers:
        return out.copy_(ego)
    scratch = torch.empty_like(ego) if scratch is None and num_layers > 1 else scratch
    source = ego
    for layer in range(num_layers):
        last = layer == num_layers - 1
        # The two buffers take turns, so that the last layer is written to ``out``.
        target = out if (num_layers - layer) % 2 or scratch is None else scratch
        base, inner, result = (rows.tensor_split([graph.num_users]) for rows in (ego, source, target))
        scale = 1 / (num_layers + 1) if last else 1.0
        for side in (USERS, ITEMS):
            sparse_product(graph.towards[side], inner[1 - side], add=base[side], scale=scale, out=result[side])
        source = target
    return out


def layer_mean_rows(graph: InteractionGraph, ego: Float32, num_layers: int) -> Float32:
    """``layer_mean`` of an array, as an array."""
    mean: Float32 = layer_mean(graph, to_device(ego, graph.device), num_layers).cpu().numpy()
    return mean


def leading_singular_vectors(
    graph: InteractionGraph, rank: int, rng: np.random.Generator, *, power_iterations: int = 4
) -> tuple[Float32, Float32, Float32]:
    """Randomised truncated SVD of ``towards[USERS]``: U [U, rank], s [rank], V [I, rank]; the largest entry of each v is positive.

    Axes beyond the matrix's rank are zero columns, so the width asked for is the width returned.
    """
    to_users, to_items = graph.towards
    # Ten axes more than asked for is what the method's error bounds want.
    width = min(rank + 10, *to_users.shape)
    users = sparse_product(
        to_users, torch.from_numpy(rng.standard_normal((to_users.shape[1], width), dtype=np.float32))
    )
    for _ in range(power_iterations):
        users = sparse_product(to_users, orthonormal(sparse_product(to_items, orthonormal(users))))
    # One pass leaves the error of the squared condition number; two leave rounding.
    users = orthonormal(orthonormal(users))
    items = sparse_product(to_items, users)
    values, axes = _principal(items)
    count = min(rank, int((values > 0).sum()))
    values, axes = values[:count], axes[:, :count]
    u, s, v = (np.zeros((*size, rank), np.float32) for size in (to_users.shape[:1], (), to_users.shape[1:]))
    u[:, :count], s[:count], v[:, :count] = users @ axes, values, items @ (axes / values)
    if len(v):
        sign = np.where(v[np.abs(v).argmax(axis=0), np.arange(rank)] < 0, np.float32(-1), np.float32(1))
        u, v = u * sign, v * sign
    return u, s, v


def orthonormal(rows: torch.Tensor) -> torch.Tensor:
    """An orthonormal basis of the span of the columns of ``rows`` [N, w], with zero columns where the rank is lower."""
    values, axes = _principal(rows)
    return rows @ torch.where(values > 0, axes / values, 0)


def _principal(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Singular values [w], falling, and right singular vectors [w, w] of ``rows`` [N, w], by their Gram matrix."""
    # NumPy's product: the bits of torch's depend on its threads where the sum is as long as here.
    gram = (rows.numpy().T @ rows.numpy()).astype(np.float64)
    squares, axes = (torch.from_numpy(part) for part in np.linalg.eigh(gram))
    values = squares.clamp(min=0).sqrt().flip(0)
    values[values <= LEAST_SINGULAR_VALUE * values[:1]] = 0
    return values.float(), axes.flip(1).float()
