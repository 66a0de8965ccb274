"""Graphs to balance: found by search among planted clusters, or drawn at once where they are large."""

from __future__ import annotations

import numpy as np

from rectifier_core.affinity.affinity import find_affinity
from rectifier_core.affinity.config import AffinityConfig
from rectifier_core.base.arrays import Float32
from rectifier_core.base.numerics import unit_rows
from rectifier_core.base.records import Affinity
from rectifier_core.base.seeding import generator
from tests.support.core_samples import places_of

CLUSTER, WIDTH, NEIGHBOURS = 250, 64, 20
SPREADS = {"iid": (0.0, 0.5), "clustered, tight": (0.3, 0.7), "clustered": (0.6, 1.2), "clustered, loose": (1.0, 1.0)}
"""How far anchors lie from their cluster's centre, and features from their anchor, per coordinate in units of 1/8."""


def points(kind: str, items: int) -> tuple[Float32, Float32]:
    """Anchors and features [I, 64], unit rows, side by side as projected features lie; clusters of very unequal size."""
    rng, (spread, noise), scale = generator(0, "sinkhorn", kind), SPREADS[kind], 1 / np.sqrt(WIDTH)
    if kind == "iid":
        places = unit_rows(rng.standard_normal((items, WIDTH), dtype=np.float32))
    else:
        clusters = max(4, items // CLUSTER)
        centres = unit_rows(rng.standard_normal((clusters, WIDTH), dtype=np.float32))
        cluster = np.minimum((clusters * rng.power(0.6, items)).astype(np.int64), clusters - 1)
        places = centres[cluster] + np.float32(spread * scale) * rng.standard_normal((items, WIDTH), dtype=np.float32)
    features = places + np.float32(noise * scale) * rng.standard_normal((items, WIDTH), dtype=np.float32)
    return unit_rows(places), unit_rows(features)


def found(kind: str, items: int) -> Affinity:
    """The twenty best features of every anchor, cosine over a temperature of .1."""
    anchors, features = points(kind, items)
    return find_affinity(places_of(features, anchors), AffinityConfig(num_neighbours=NEIGHBOURS, index="flat"), seed=0)


def drawn(items: int, *, near: float = 0.9, shuffled: bool = True) -> Affinity:
    """A graph without a search: itself and, mostly, the popular items of one's cluster. Items are in order of clusters, or shuffled."""
    rng, width = generator(0, "sinkhorn", items), NEIGHBOURS - 1
    first = np.arange(items)[:, None] // CLUSTER * CLUSTER
    inside = np.minimum(first + (CLUSTER * rng.random((items, width)) ** 1.5).astype(np.int64), items - 1)
    others = np.where(rng.random((items, width)) < near, inside, rng.integers(items, size=(items, width)))
    neighbours = np.hstack([np.arange(items)[:, None], others])
    if shuffled:
        order = rng.permutation(items)
        place = np.argsort(order)
        neighbours = place[neighbours[order]]
    return graph(neighbours)


def graph(neighbours: np.ndarray) -> Affinity:
    """The affinity over these neighbours [I, K], scores at random."""
    scores = 4 * generator(0, "sinkhorn", "scores").random(neighbours.shape, dtype=np.float32)
    return Affinity(modality="drawn", neighbours=neighbours.astype(np.int32), scores=scores, recall=1.0, index="none")
