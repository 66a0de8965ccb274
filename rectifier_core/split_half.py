"""How far behaviour says the same twice: each item's place by two disjoint halves of the log; a leaf of the anchors.

Source: split-half reliability (Spearman, 1910; Brown, 1910) of the spectral embedding that LightGCN starts from, the halves' bases brought
together by orthogonal Procrustes (Schoenemann, 1966). A LightGCN trained twice would double the cost of a night for the same order.
"""

from __future__ import annotations

import numpy as np

from rectifier_core.numerics import unit_rows
from rectifier_core.propagation import layer_mean, leading_singular_vectors, normalised_bipartite, symmetric_adjacency
from rectifier_core.records import Bool, Float32, Interactions


def split_half_reliability(interactions: Interactions, size: int, num_layers: int, rng: np.random.Generator) -> Float32:
    """Cosine per item between the places that two random halves of the pairs give it: [I] float32, 0 where a half lacks the item."""
    half = rng.permutation(len(interactions.users)) % 2
    first, second = (_places(interactions, half == side, size, num_layers, rng) for side in (0, 1))
    left, _, right = np.linalg.svd((first.T @ second).astype(np.float64))
    cosine: Float32 = np.einsum("ij,ij->i", first @ (left @ right).astype(np.float32), second)
    return np.clip(cosine, -1, 1).astype(np.float32)


def _places(interactions: Interactions, chosen: Bool, size: int, num_layers: int, rng: np.random.Generator) -> Float32:
    users, items = interactions.users[chosen], interactions.items[chosen]
    graph = normalised_bipartite(users, items, interactions.num_users, interactions.num_items)
    u, s, v = leading_singular_vectors(graph, size, rng)
    final = layer_mean(symmetric_adjacency(graph), np.ascontiguousarray(np.concatenate([u, v]) * s), num_layers)
    places = unit_rows(final[interactions.num_users :])
    # Where the graph has fewer axes than asked for, rounding gives rows without pairs a direction.
    places[np.bincount(items, minlength=interactions.num_items) == 0] = 0
    return places
