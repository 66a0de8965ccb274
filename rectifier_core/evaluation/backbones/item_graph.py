"""Item-item graphs of nearest neighbours by cosine, as LATTICE, FREEDOM, MGCN and SMORE build them.

A graph is built from the features handed in, every time; nothing is cached under a name or a k, so that new features can never meet an
old graph.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from rectifier_core.affinity.index import search_rows
from rectifier_core.base.arrays import Bool, Float32, Int32
from rectifier_core.base.numerics import unit_rows


def nearest_items(features: Float32, present: Bool, num_neighbours: int) -> tuple[Int32, Float32]:
    """The most similar items by cosine, always the item itself among them: neighbours [I, K] int32 and cosines [I, K] float32.

    Items without a feature have themselves alone, at cosine 1, and are nobody's neighbour; places left over hold -1 and 0.
    """
    count = len(features)
    neighbours = np.full((count, num_neighbours), -1, np.int32)
    cosines = np.zeros((count, num_neighbours), np.float32)
    neighbours[:, 0], cosines[:, 0] = np.arange(count), 1.0
    rows = np.flatnonzero(present & np.any(features != 0, axis=1))
    width = min(num_neighbours, len(rows))
    if width < 2:
        return neighbours, cosines
    unit = unit_rows(np.ascontiguousarray(features[rows]))
    found, found_cosines = search_rows(unit, np.arange(len(unit)), unit, width)
    # Copies of an item tie with it, and the search may then leave the item itself out.
    without = np.flatnonzero(~(found == np.arange(len(rows))[:, None]).any(axis=1))
    found[without, -1] = without
    neighbours[rows, :width], cosines[rows, :width] = rows[found], found_cosines
    return neighbours, cosines


def as_matrix(neighbours: Int32, weights: Float32) -> sp.csr_array:
    """[I, K] neighbours (-1: none) and weights as CSR float32 [I, I]."""
    count, width = neighbours.shape
    there = neighbours.ravel() >= 0
    rows = np.repeat(np.arange(count, dtype=np.int32), width)[there]
    return sp.csr_array((weights.ravel()[there], (rows, neighbours.ravel()[there])), shape=(count, count))


def normalised_by_rows(graph: sp.csr_array) -> sp.csr_array:
    """D_r^-1/2 S D_r^-1/2 with the row sums on both sides, for a directed S; rows that sum to 0 or less stay empty."""
    sums = np.asarray(graph.sum(axis=1), dtype=np.float64).ravel()
    scale = np.divide(1.0, np.sqrt(np.maximum(sums, 0)), out=np.zeros_like(sums), where=sums > 0)
    scaled = sp.diags_array(scale) @ graph @ sp.diags_array(scale)
    return sp.csr_array(scaled.astype(np.float32))
