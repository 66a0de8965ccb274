"""How reliable each anchor is: how well two disjoint halves of the log agree on the item's place.

Source: split-half reliability (Spearman, 1910; Brown, 1910), with the halves' bases aligned by orthogonal Procrustes (Schoenemann, 1966).
It uses the spectral embedding that LightGCN starts from: training LightGCN twice would double the cost for the same order of items.
"""

from __future__ import annotations

import numpy as np
import scipy.linalg

from rectifier_core.anchors.propagation import InteractionGraph, layer_mean_rows, normalised_bipartite
from rectifier_core.anchors.spectral import spectral_start
from rectifier_core.base.arrays import Bool, Float32
from rectifier_core.base.numerics import unit_rows
from rectifier_core.base.records import Interactions


def split_half_reliability(interactions: Interactions, size: int, num_layers: int, rng: np.random.Generator) -> Float32:
    """Cosine between the places that two random halves of the pairs give an item: [I] float32, 0 where a half lacks the item."""
    half = rng.permutation(np.arange(len(interactions.users), dtype=np.int32)) % 2
    first, second = (_places(interactions, half == side, size, num_layers, rng) for side in (0, 1))
    rotation = scipy.linalg.orthogonal_procrustes(first, second)[0].astype(np.float32)
    cosine: Float32 = np.einsum("ij,ij->i", first @ rotation, second)
    return np.clip(cosine, -1, 1)


def _places(interactions: Interactions, chosen: Bool, size: int, num_layers: int, rng: np.random.Generator) -> Float32:
    users, items = interactions.users[chosen], interactions.items[chosen]
    graph = InteractionGraph.both_ways(
        normalised_bipartite(users, items, interactions.num_users, interactions.num_items)
    )
    places = unit_rows(layer_mean_rows(graph, spectral_start(graph, size, rng), num_layers)[interactions.num_users :])
    # Rounding may give an item without pairs a direction.
    places[np.bincount(items, minlength=interactions.num_items) == 0] = 0
    return places
