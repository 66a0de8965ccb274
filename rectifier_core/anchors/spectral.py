"""Spectral embeddings of the interaction graph: the start of LightGCN's training, and a model of its own that trains nothing.

Sources: Peng, Sugiyama, Mine, "SVD-GCN", CIKM 2022 (singular vectors with a re-weighted spectrum in place of trained layers); Shen et al.,
"How Powerful is Graph Convolution for Recommendation?" (GF-CF), CIKM 2021 (the same, and items weighted by a power of their degree); Zhang
and Rohe, "Understanding Regularized Spectral Clustering via Graph Conductance", NeurIPS 2018 (degrees raised before normalising).

Differs from the papers:
- The spectrum is weighted by a power of the singular values. Held-out Recall@20 chooses it, and the degree's power. Theirs are fixed or
  trained.
- Layers are averaged over the re-weighted vectors as LightGCN does, so the final anchors use the held-out pairs too.
- Degrees are raised by ``RAISED`` of their mean, theirs by all of it or by a constant.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from rectifier_core.anchors.propagation import ITEMS, InteractionGraph, layer_mean, leading_singular_vectors
from rectifier_core.base.arrays import Float32

RAISED = 0.3
"""Without it, the leading singular vectors of a large sparse log are its smallest components: a user and an item that have only each other
have the singular value 1. On logs of 6,000 users, .1 to .3 rank best, and .3 detects mismatched features best."""
SPREAD = 0.3
"""Standard deviation of the spectral start's entries. With smaller ones, the first epochs of BPR undo the spectrum."""
SPECTRUM = (1.0, 0.5, 0.25)
POPULARITY = (0.1, 0.0, 0.2)


def spectral_start(graph: InteractionGraph, width: int, rng: np.random.Generator) -> Float32:
    """Rows [U + I, width]: the leading singular vectors times the singular values, scaled to the deviation ``SPREAD``."""
    return _scaled(_stacked(*leading_singular_vectors(regularised(graph), width, rng), power=1.0))


def regularised(graph: InteractionGraph) -> InteractionGraph:
    """The graph normalised by degrees that are raised by ``RAISED`` times their mean."""
    shrunk = []
    for matrix in graph.towards:
        degree = matrix.crow_indices().diff().double()
        mean = degree.sum() / max(1, int(degree.count_nonzero()))
        shrunk.append((degree / (degree + RAISED * mean).clamp(min=1)).sqrt().float())

    def reweighted(side: int) -> torch.Tensor:
        matrix = graph.towards[side]
        pointers, columns = matrix.crow_indices(), matrix.col_indices()
        own = shrunk[side].repeat_interleave(pointers.diff())
        values = matrix.values() * own * shrunk[1 - side][columns]
        return torch.sparse_csr_tensor(pointers, columns, values, size=matrix.shape, check_invariants=False)

    return InteractionGraph((reweighted(0), reweighted(1)))


def spectral_embedding(
    graph: InteractionGraph,
    width: int,
    num_layers: int,
    judge: Callable[[torch.Tensor], float],
    rng: np.random.Generator,
) -> tuple[Float32, float]:
    """The rows [U + I, width] whose layer mean ``judge`` rates best, U S^a and D_i^b V S^a, and that rating.

    The search takes the best a of ``SPECTRUM`` at the first b of ``POPULARITY``, then the best b. Ties go to the earlier value.
    """
    vectors = leading_singular_vectors(regularised(graph), width, rng)
    degrees = graph.towards[ITEMS].crow_indices().diff().clamp(min=1).float()[:, None].numpy()

    def rows(power: float, popularity: float) -> Float32:
        stacked = _stacked(*vectors, power=power)
        stacked[graph.num_users :] *= degrees ** np.float32(popularity)
        return _scaled(stacked)

    def rating(power: float, popularity: float) -> float:
        return judge(layer_mean(graph, torch.from_numpy(rows(power, popularity)), num_layers))

    by_power = {power: rating(power, POPULARITY[0]) for power in SPECTRUM}
    power = max(by_power, key=lambda candidate: by_power[candidate])
    by_popularity = {POPULARITY[0]: by_power[power]} | {b: rating(power, b) for b in POPULARITY[1:]}
    popularity = max(by_popularity, key=lambda candidate: by_popularity[candidate])
    return rows(power, popularity), by_popularity[popularity]


def _stacked(u: Float32, s: Float32, v: Float32, *, power: float) -> Float32:
    # A singular value of zero stays zero whatever the power.
    weights = np.where(s > 0, np.power(np.maximum(s, np.finfo(np.float32).tiny), power), 0).astype(np.float32)
    return np.concatenate([u, v]) * weights


def _scaled(rows: Float32) -> Float32:
    return rows * np.float32(SPREAD / (float(rows.std(dtype=np.float64)) or 1.0))
