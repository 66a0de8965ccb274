"""The donors of items and their weights, cut out of the plan."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from rectifier_core.base.arrays import Float32, Int32, Int64
from rectifier_core.base.records import Plan, Trust


@dataclass(frozen=True, slots=True)
class Donors:
    """Row n has the donors ``indices[indptr[n]:indptr[n + 1]]`` (items, int32) with ``weights`` (float32). They sum to 1, or to 0."""

    indptr: Int64
    indices: Int32
    weights: Float32

    def matrix(self, columns: NDArray[np.integer], num_columns: int) -> scipy.sparse.csr_matrix:
        """Return the weights as a sparse matrix whose columns are ``columns``, one an entry."""
        shape = (len(self.indptr) - 1, num_columns)
        return scipy.sparse.csr_matrix((self.weights, columns, self.indptr), shape=shape)


def trust_or_average(trust: Trust, items: Int32 | Int64 | slice = slice(None)) -> Float32:
    """Return the trust of ``items``, by default of all: float32. An item of unknown trust counts as an average one."""
    known = trust.probability[items]
    return np.where(np.isnan(known), np.float32(1 - (trust.mismatch_rate or 0.0)), known)


def donors_of(plan: Plan, rows: Int64, trust: Trust, *, adaptive: bool) -> Donors:
    """Return the donors of the items ``rows`` [N].

    With ``adaptive`` a weight is the plan's times the donor's trust, and 0 for the item itself.
    """
    first, last = np.asarray(plan.indptr[rows]), np.asarray(plan.indptr[rows + 1])
    counts = last - first
    indptr = np.append(0, np.cumsum(counts)).astype(np.int64)
    entries = np.repeat(first - indptr[:-1], counts) + np.arange(indptr[-1])
    indices, weights = np.asarray(plan.indices[entries], dtype=np.int32), np.array(plan.weights[entries])
    if adaptive and len(indices):
        weights *= trust_or_average(trust, indices)
        weights[indices == np.repeat(rows, counts)] = 0
        sums = np.add.reduceat(np.append(weights, np.float32(0)), indptr[:-1]) * (counts > 0)
        weights /= np.repeat(np.maximum(sums, np.finfo(np.float32).tiny), counts)
    return Donors(indptr, indices, weights)
