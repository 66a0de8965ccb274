"""The donors of items and their weights, cut out of the plan."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rectifier_core.base.arrays import Float32, Int32, Int64
from rectifier_core.base.records import Plan, Trust
from rectifier_core.base.weighted_sums import weighted_sums


@dataclass(frozen=True, slots=True)
class Donors:
    """Row n has the donors ``indices[indptr[n]:indptr[n + 1]]`` (items, int32) with ``weights`` (float32). They sum to 1, or to 0."""

    indptr: Int64
    indices: Int32
    weights: Float32

    def sums(self, features: Float32, lengths: Float32, *, unit: bool) -> tuple[Float32, Float32, Float32]:
        """Return the weighted sums of the rows' donors [N, D], of their weights [N], and of their lengths [N]: float32.

        ``features`` [I, D] may be a memory map, and ``lengths`` [I] are those of its rows. ``unit`` sums unit rows. A donor without length
        gives nothing.
        """
        given = lengths[self.indices]
        weights = np.where(given > 0, self.weights, np.float32(0))
        scale = np.asarray(weights / np.where(given > 0, given, 1) if unit else weights, dtype=np.float32)
        sums = weighted_sums(features, self.indptr, self.indices, scale)
        return sums, _sums(weights, self.indptr), _sums(weights * given, self.indptr)


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
        weights /= np.repeat(np.maximum(_sums(weights, indptr), np.finfo(np.float32).tiny), counts)
    return Donors(indptr, indices, weights)


def _sums(values: Float32, indptr: Int64) -> Float32:
    """Return the sum of each row's values, 0 for a row without one."""
    sums: Float32 = np.add.reduceat(np.append(values, np.float32(0)), indptr[:-1]) * (np.diff(indptr) > 0)
    return sums
