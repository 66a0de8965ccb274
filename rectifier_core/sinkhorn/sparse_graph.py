"""The sparse affinity graph, and its scaling to a plan whose rows sum to 1.

Shape letters: R rows with a neighbour, C columns that some row reaches, V entries. Every entry is float64 while it is scaled.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from rectifier_core.base.arrays import Bool, Float32, Float64, Int32, Int64
from rectifier_core.base.numerics import row_blocks
from rectifier_core.base.records import Affinity

MAX_LOG_CHANGE = 100.0
"""A larger change of the potential builds the kernel again. Entries below e^-745 vanish in float64, and stay below e^-545 of a row."""
SMALLEST_SUM = 1e-300
BLOCK_ROWS = 1 << 16
"""Rows of one batch: temporary arrays stay in the cache, and small beside the graph."""


class SparseGraph:
    """The entries of an affinity in CSR order, without rows that have no neighbour and columns that no row reaches.

    ``rows`` [R] and ``columns`` [C] int64 are item numbers. ``indptr`` [R + 1] int64, ``indices`` [V] int32 and ``scores`` [V] float32 are
    the CSR arrays, ``indices`` counting columns of the graph.
    """

    def __init__(self, affinity: Affinity) -> None:
        neighbours, scores = np.asarray(affinity.neighbours), np.asarray(affinity.scores)
        self.num_items = len(neighbours)
        valid = (neighbours >= 0) & np.isfinite(scores)
        counts, items = valid.sum(axis=1), neighbours[valid]
        self.rows = np.flatnonzero(counts)
        reached: Bool = np.bincount(items, minlength=self.num_items) > 0
        self.columns = np.flatnonzero(reached)
        self.indptr: Int64 = np.concatenate([[0], np.cumsum(counts[self.rows])])
        self.indices: Int32 = (np.cumsum(reached, dtype=np.int32) - 1)[items]
        self.scores: Float32 = scores[valid]

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the graph."""
        return len(self.rows), len(self.columns)

    def blocks(self) -> list[tuple[slice, slice]]:
        """Return batches of rows, each with the slice of its entries."""
        return [
            (rows, slice(self.indptr[rows.start], self.indptr[rows.stop]))
            for rows in row_blocks(self.shape[0], BLOCK_ROWS)
        ]

    def row_minimum(self, values: Float64) -> Float64:
        """Return the smallest of ``values`` [C] among each row's columns: [R]."""
        smallest = np.empty(self.shape[0])
        for rows, entries in self.blocks():
            starts = self.indptr[rows] - entries.start
            smallest[rows] = np.minimum.reduceat(values[self.indices[entries]], starts)
        return smallest


class Scaling:
    """Row-normalised plans of a graph: ``diag(u) K diag(v)`` with ``K = exp(score + reference[column] - row maximum)``.

    Building the potential's reference into ``K`` keeps every exponential in range: Schmitzer, SIAM J. Sci. Comput. 41 (2019), section 3.
    """

    def __init__(self, graph: SparseGraph) -> None:
        self.graph = graph
        kernel = np.empty(len(graph.indices))
        self._kernel = sp.csr_array((kernel, graph.indices, graph.indptr), shape=graph.shape)
        self._build_kernel(np.zeros(graph.shape[1]))

    def column_sums(self, potential: Float64) -> Float64:
        """Return the plan's column sums [C] in units of the fair share, which is R / C. ``potential`` [C] is ``log v``, up to a constant."""
        if np.abs(potential - self._reference).max() > MAX_LOG_CHANGE:
            self._build_kernel(potential)
        self._v: Float64 = np.exp(potential - self._reference)
        self._u: Float64 = 1 / np.asarray(self._kernel @ self._v)
        num_rows, num_columns = self.graph.shape
        sums: Float64 = self._v * np.asarray(self._kernel.T @ self._u) * (num_columns / num_rows)
        # A column whose entries all vanished gets a large step instead of an infinite one.
        return np.maximum(sums, SMALLEST_SUM)

    def weights(self) -> Float32:
        """Return the entries [V] of the plan that ``column_sums`` last summed."""
        graph, weights = self.graph, np.empty(len(self.graph.indices), np.float32)
        for rows, entries in graph.blocks():
            u = np.repeat(self._u[rows], np.diff(graph.indptr[rows.start : rows.stop + 1]))
            weights[entries] = self._kernel.data[entries] * self._v[graph.indices[entries]] * u
        return weights

    def _build_kernel(self, reference: Float64) -> None:
        graph = self.graph
        self._reference: Float64 = reference
        for rows, entries in graph.blocks():
            exponents = graph.scores[entries] + reference[graph.indices[entries]]
            starts = graph.indptr[rows] - entries.start
            highest = np.maximum.reduceat(exponents, starts)
            exponents -= np.repeat(highest, np.diff(graph.indptr[rows.start : rows.stop + 1]))
            np.exp(exponents, out=self._kernel.data[entries])


def least_column_error(graph: SparseGraph, potential: Float64, column_sums: Float64) -> float:
    """Return a lower bound on the mean column error of any plan on this graph. All arrays are [C].

    Suppose n rows reach only columns of a set S. Then S receives at least n, and the mean error is at least twice the excess over its fair
    share (Hall, J. London Math. Soc. 10, 1935). We try the sets of the most wanted columns: by their sums, and by how far scaling has
    lowered their potential. Where no balance exists, scaling lowers the potential of such a set without end.
    """
    (num_rows, num_columns), largest = graph.shape, 0.0
    for wanted in (column_sums, -potential):
        inside = np.sort(graph.row_minimum(wanted))
        levels, counts = np.unique(wanted, return_counts=True)
        columns_above = np.cumsum(counts[::-1])[::-1]
        rows_above = num_rows - np.searchsorted(inside, levels, side="left")
        excess = rows_above * num_columns / num_rows - columns_above
        largest = max(largest, float(2 * excess.max() / num_columns))
    return largest
