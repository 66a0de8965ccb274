"""Whether a segment goes with the other segments of its item; a leaf of the segments stage.

Source: leave-one-out cosine to a robust centre, the centre by iterative re-weighting (Huber, "Robust Statistics", 1981), in the
space whitened by the within-item scatter (within-class covariance normalisation: Hatch et al., Interspeech 2006). The weights of a
segment's companions never depend on that segment, so a foreign segment put in its place has the law of a wrong one, and is the null.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import scipy.linalg

from rectifier_core.base.arrays import Float32, Float64, Int32, Int64
from rectifier_core.base.numerics import unit_rows

Weigh = Callable[[Float64, Float64, Float64], Float64]
"""``weigh(said, consensus, companions)``: how far each segment counts in the centre, in (0, 1); ``said`` is what is known of it besides.
A consensus that there is not is NaN."""

_CELLS = 1 << 20
_LEAST_WEIGHT = 1e-6
_VANISHING = 1e-9


def item_blocks(offsets: Int64, block_rows: int) -> Iterator[slice]:
    """Runs of whole items in order, each of at most ``block_rows`` segments, or of one item that has more. ``offsets`` [I + 1]."""
    start, last = 0, len(offsets) - 1
    while start < last:
        stop = int(np.searchsorted(offsets, offsets[start] + block_rows, side="right")) - 1
        stop = min(max(stop, start + 1), last)
        yield slice(start, stop)
        start = stop


class Whitening:
    """Maps to the space where an item's segments scatter alike in every direction, one a fold, each fitted without its fold.

    The scatter counts with its mean eigenvalue times ``shrinkage`` added to the diagonal, so that it can always be inverted.
    """

    def __init__(self, num_folds: int, width: int) -> None:
        self.counts, self.sums = np.zeros(num_folds), np.zeros((num_folds, width))
        self.scatters = np.zeros((num_folds, width, width))
        self.maps: Float32 = np.zeros((0, width, width), np.float32)
        self.means: Float32 = np.zeros((0, width), np.float32)

    def add(self, units: Float32, offsets: Int64, folds: Int32) -> None:
        """Add whole items: unit rows [N, D], the items' bounds in them [B + 1], their folds [B]."""
        counts = np.diff(offsets)
        given = counts > 0
        means = np.add.reduceat(units, offsets[:-1][given], axis=0, dtype=np.float64) / counts[given, None]
        fold = np.repeat(folds, counts)
        residuals = units - np.repeat(means, counts[given], axis=0).astype(np.float32)
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
    """``score`` [N] is the cosine of each segment to the centre of its companions (NaN without any), ``companions`` [N] what they weigh.

    ``null`` [M] is the score that each stand-in has in the place it was put.
    """

    score: Float64
    companions: Float64
    null: Float64


def leave_one_out(
    rows: Float32,
    offsets: Int64,
    said: Float64,
    places: Int64,
    stand_ins: Float32,
    weigh: Weigh | None,
    rounds: int,
    window: int,
) -> Consensus:
    """Score segments against their companions: unit rows [N, D] of whole items with bounds ``offsets``; ``said`` [N] goes to ``weigh``.

    ``stand_ins`` [M, D] are tried in the ``places`` [M] (indices of rows). ``rounds`` times the companions are weighed by ``weigh`` (None:
    all alike). Items of more than ``window`` segments are taken as so many items, one after the other.
    """
    score, companions = np.full(len(rows), np.nan), np.zeros(len(rows))
    null = np.full(len(places), np.nan)
    starts, counts = _windows(offsets, window)
    order = np.argsort(places, kind="stable")
    for count in np.unique(counts[counts > 1]):
        alike = starts[counts == count]
        for first in range(0, len(alike), max(1, _CELLS // int(count) ** 2)):
            at = alike[first : first + max(1, _CELLS // int(count) ** 2), None] + np.arange(count)
            weights = _weights(rows[at], said[at], weigh, rounds)
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


def _weights(rows: Float32, said: Float64, weigh: Weigh | None, rounds: int) -> Float64:
    """What companion j weighs in the centre that segment s is held against: [B, n, n], rows [B, n, D], zero on the diagonal."""
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
            np.maximum(weigh(np.broadcast_to(said[:, None, :], cosine.shape), cosine, left), _LEAST_WEIGHT) * apart
        )
    return weights
