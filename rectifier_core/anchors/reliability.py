"""How far behaviour says the same twice: each item's place by two disjoint halves of the log; a leaf of the anchors.

Source: split-half reliability (Spearman, 1910; Brown, 1910) of the spectral embedding that LightGCN starts from, the halves' bases brought
together by orthogonal Procrustes (Schoenemann, 1966). A LightGCN trained twice would double the cost of a night for the same order.
"""

from __future__ import annotations

import numpy as np

from rectifier_core.anchors.propagation import InteractionGraph, layer_mean, normalised_bipartite, symmetric_eigen
from rectifier_core.anchors.row_products import dense_product, gram_matrix
from rectifier_core.anchors.spectral import spectral_start
from rectifier_core.base.arrays import Bool, Float32
from rectifier_core.base.numerics import unit_rows
from rectifier_core.base.records import Interactions


def split_half_reliability(interactions: Interactions, size: int, num_layers: int, rng: np.random.Generator) -> Float32:
    """Cosine per item between the places that two random halves of the pairs give it: [I] float32, 0 where a half lacks the item."""
    half = rng.permutation(np.arange(len(interactions.users), dtype=np.int32)) % 2
    first, second = (_places(interactions, half == side, size, num_layers, rng) for side in (0, 1))
    shared = gram_matrix(first, second)
    squares, axes = symmetric_eigen(shared.T @ shared)
    # The orthogonal factor of the polar decomposition; directions that the halves do not share stay out.
    inverse = np.divide(1.0, np.sqrt(np.abs(squares)), out=np.zeros(size), where=squares > 1e-12 * squares.max())
    turned = dense_product(first, (shared @ (axes * inverse) @ axes.T).astype(np.float32))
    cosine: Float32 = np.einsum("ij,ij->i", turned, second)
    return np.clip(cosine, -1, 1).astype(np.float32)


def _places(interactions: Interactions, chosen: Bool, size: int, num_layers: int, rng: np.random.Generator) -> Float32:
    users, items = interactions.users[chosen], interactions.items[chosen]
    graph = InteractionGraph.both_ways(
        normalised_bipartite(users, items, interactions.num_users, interactions.num_items)
    )
    places = unit_rows(layer_mean(graph, spectral_start(graph, size, rng), num_layers)[interactions.num_users :])
    # Where the graph has fewer axes than asked for, rounding gives rows without pairs a direction.
    places[np.bincount(items, minlength=interactions.num_items) == 0] = 0
    return places
