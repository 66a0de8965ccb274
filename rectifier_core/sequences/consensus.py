"""The similarity of each segment to the other segments of its item (its companions).

Source: leave-one-out cosine to a robust centre, by iterative re-weighting (Huber, "Robust Statistics", 1981), after whitening by the
scatter within items (within-class covariance normalisation: Hatch et al., Interspeech 2006).
Differs from the paper: the weights of a segment's companions never depend on that segment. A foreign segment in its place is therefore
scored like a wrong one, and gives the null distribution.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import scipy.linalg

from rectifier_core.base.arrays import Float32, Float64, Int32, Int64
from rectifier_core.base.numerics import unit_rows

Weigh = Callable[[Float64, Float64, Float64], Float64]
"""``weigh(prior, consensus, companions)``: the weight in (0, 1) of each segment in the centre, from its log ratio ``prior`` by the anchor.
NaN where there is no consensus."""

_CELLS = 1 << 20
_LEAST_WEIGHT = 1e-6
_VANISHING = 1e-9


def item_blocks(offsets: Int64, block_rows: int) -> Iterator[slice]:
    """Slices of items in order with at most ``block_rows`` segments each, or one item with more. ``offsets`` [I + 1]."""
    start, last = 0, len(offsets) - 1
    while start < last:
        stop = int(np.searchsorted(offsets, offsets[start] + block_rows, side="right")) - 1
        stop = min(max(stop, start + 1), last)
        yield slice(start, stop)
        start = stop


class Whitening:
    """One map for each fold, fitted without it, to a space where the segments of an item scatter equally in every direction.

    The mean eigenvalue times ``shrinkage`` is added to the diagonal, so that the scatter can be inverted.
    """

    def __init__(self, num_folds: int, width: int) -> None:
        self.counts, self.sums = np.zeros(num_folds), np.zeros((num_folds, width))
        self.scatters = np.zeros((num_folds, width, width))
        self.maps: Float32 = np.zeros((0, width, width), np.float32)
        self.means: Float32 = np.zeros((0, width), np.float32)

    def add(self, units: Float32, offsets: Int64, folds: Int32) -> None:
        """Add whole items: unit rows [N, D], the items' bounds in them [B + 1], their folds [B]."""
        counts = np.diff(offsets)
        filled = counts > 0
        means = np.add.reduceat(units, offsets[:-1][filled], axis=0, dtype=np.float64) / counts[filled, None]
        fold = np.repeat(folds, counts)
        residuals = units - np.repeat(means, counts[filled], axis=0).astype(np.float32)
        for f in np.unique(fold):
            inside = fold == f
            self.counts[f] += inside.sum()
            self.sums[f] += units[inside].sum(axis=0, dtype=np.float64)
            self.scatters[f] += residuals[inside].T @ residuals[inside]

    def solve(self, shrinkage: float) -> None:
        """Fit the maps on what was added."""
        maps, means, width = [], [], self.sums.shape[1]
        for f in range(len(self.counts)):
            count = max(1.0, float(self.counts.sum() - self.counts[f]))
            scatter = (self.scatters.sum(axis=0) - self.scatters[f]) / count
            scatter[np.diag_indices(width)] += max(
                shrinkage * float(np.trace(scatter)) / width, float(np.finfo(np.float32).tiny)
            )
            root = scipy.linalg.cholesky(scatter, lower=True)
            maps.append(scipy.linalg.solve_triangular(root, np.eye(width), lower=True).T)
            means.append((self.sums.sum(axis=0) - self.sums[f]) / count)
        self.maps, self.means = np.stack(maps).astype(np.float32), np.stack(means).astype(np.float32)

    def apply(self, units: Float32, folds: Int32) -> Float32:
        """Unit rows [N, D] of the folds [N] in the whitened space, unit rows again."""
        white = np.zeros_like(units)
        for f in np.unique(folds):
            inside = folds == f
            white[inside] = unit_rows((units[inside] - self.means[f]) @ self.maps[f])
        return white


@dataclass(frozen=True, slots=True, kw_only=True)
class Consensus:
    """``score`` [N]: cosine of each segment to the centre of its companions, NaN without any. ``companions`` [N]: their total weight.

    ``null`` [M]: the score of each stand-in at its place.
    """

    score: Float64
    companions: Float64
    null: Float64


def leave_one_out(
    rows: Float32,
    offsets: Int64,
    prior: Float64,
    places: Int64,
    stand_ins: Float32,
    weigh: Weigh | None,
    rounds: int,
    window: int,
) -> Consensus:
    """Score segments against their companions: unit rows [N, D] of whole items with bounds ``offsets``; ``prior`` [N] goes to ``weigh``.

    ``stand_ins`` [M, D] are scored at the ``places`` [M] (indices of rows). ``weigh`` computes the companions' weights ``rounds`` times
    (None: equal weights). An item with more than ``window`` segments is split into several.
    """
    score, companions = np.full(len(rows), np.nan), np.zeros(len(rows))
    null = np.full(len(places), np.nan)
    starts, counts = _windows(offsets, window)
    order = np.argsort(places, kind="stable")
    for count in np.unique(counts[counts > 1]):
        alike = starts[counts == count]
        for first in range(0, len(alike), max(1, _CELLS // int(count) ** 2)):
            at = alike[first : first + max(1, _CELLS // int(count) ** 2), None] + np.arange(count)
            weights = _weights(rows[at], prior[at], weigh, rounds)
            centres = unit_rows((weights.astype(np.float32) @ rows[at]).reshape(-1, rows.shape[1]))
            flat = at.ravel()
            score[flat] = np.einsum("ij,ij->i", rows[flat], centres)
            companions[flat] = weights.sum(axis=2).ravel()
            tried = order[_within(places[order], flat)]
            where = np.searchsorted(flat, places[tried])
            null[tried] = np.einsum("ij,ij->i", stand_ins[tried], centres[where])
    return Consensus(score=score, companions=companions, null=null)


def _windows(offsets: Int64, window: int) -> tuple[Int64, Int64]:
    counts = np.diff(offsets)
    pieces = -(-counts // window)
    nth = np.arange(int(pieces.sum())) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    starts = np.repeat(offsets[:-1], pieces) + nth * window
    return starts, np.minimum(np.repeat(offsets[1:], pieces) - starts, window)


def _within(sought: Int64, found: Int64) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    at = np.minimum(np.searchsorted(found, sought), len(found) - 1)
    inside: np.ndarray[tuple[int], np.dtype[np.bool_]] = found[at] == sought
    return inside


def _weights(rows: Float32, prior: Float64, weigh: Weigh | None, rounds: int) -> Float64:
    """Weight of companion j in the centre for segment s: [B, n, n], zero on the diagonal. ``rows`` is [B, n, D]."""
    count = rows.shape[1]
    apart = 1.0 - np.eye(count)
    weights = np.broadcast_to(apart, (len(rows), count, count)).copy()
    if weigh is None:
        return weights
    gram = (rows @ rows.transpose(0, 2, 1)).astype(np.float64)
    own = np.diagonal(gram, axis1=1, axis2=2)[:, None, :]
    for _ in range(rounds):
        # Entry (s, j): companion j against the centre of the others, with s and j themselves taken out of it.
        pulled = weights @ gram
        inner = pulled - weights * own
        square = np.sum(pulled * weights, axis=2, keepdims=True) - 2 * weights * pulled + weights**2 * own
        cosine = np.divide(
            inner, np.sqrt(np.maximum(square, _VANISHING)), out=np.full_like(inner, np.nan), where=square > _VANISHING
        )
        left = weights.sum(axis=2, keepdims=True) - weights
        weights = (
            np.maximum(weigh(np.broadcast_to(prior[:, None, :], cosine.shape), cosine, left), _LEAST_WEIGHT) * apart
        )
    return weights
