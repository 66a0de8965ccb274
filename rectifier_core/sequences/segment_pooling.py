"""The pooled feature and the mended sequence without doubtful segments.

Source: a trimmed mean, and the mixing of "Towards Trustworthy Multimodal Recommendation" (arXiv 2602.00730): e_rect = lambda e +
(1 - lambda) e_hat. Differs from the paper: lambda is the segment's probability, and e_hat the mean of the item's trusted segments.

A segment is doubtful below the probability ``doubtful``. A segment without a probability (NaN) is not. Both functions work on a slice of
items, so that sequences can be streamed.
"""

from __future__ import annotations

import numpy as np

from rectifier_core.base.arrays import Bool, Float32, Int64
from rectifier_core.base.numerics import unit_rows


def pool_segments(
    features: Float32, segments: Float32, offsets: Int64, probability: Float32, items: slice, doubtful: float
) -> Float32:
    """The pooled features of ``items`` without their doubtful segments: [len, D] float32.

    An item with no doubtful segment, or with only doubtful ones, keeps its row of ``features`` [I, D] (the plain mean) bit for bit.
    """
    pooled = np.array(features[items], dtype=np.float32)
    bounds, trusted = _trusted(offsets, probability, items, doubtful)
    counts = np.diff(bounds)
    kept = np.add.reduceat(np.append(trusted, False), bounds[:-1], dtype=np.int64) * (counts > 0)
    for row in np.flatnonzero((kept > 0) & (kept < counts)):
        at = offsets[items.start] + bounds[row] + np.flatnonzero(trusted[bounds[row] : bounds[row + 1]])
        mean = np.asarray(segments[at]).mean(axis=0, dtype=np.float64).astype(np.float32)
        if mean.any():
            pooled[row] = mean
    return pooled


def mend_segments(
    pooled: Float32,
    segments: Float32,
    offsets: Int64,
    probability: Float32,
    items: slice,
    doubtful: float,
    *,
    known: Bool | None = None,
) -> Float32:
    """The mended segments of ``items``: rows ``offsets[items.start]`` up to ``offsets[items.stop]``, [n, D] float32.

    A doubtful segment keeps its length. Its direction is mixed with that of its item's row of ``pooled`` [I, D], weighted by its
    probability. All other segments stay bit for bit the same. So do items with only doubtful segments, unless ``known`` [I] marks their
    row of ``pooled`` as rectified.
    """
    bounds, trusted = _trusted(offsets, probability, items, doubtful)
    mended = np.array(segments[offsets[items.start] : offsets[items.stop]], dtype=np.float32)
    counts = np.diff(bounds)
    some = np.add.reduceat(np.append(trusted, False), bounds[:-1], dtype=np.int64) * (counts > 0) > 0
    if known is not None:
        some |= known[items]
    rows = np.flatnonzero(~trusted & np.repeat(some, counts))
    if not len(rows):
        return mended
    place = np.repeat(np.arange(items.start, items.stop), counts)[rows]
    own = probability[offsets[items.start] + rows, None]
    mixed = unit_rows(own * unit_rows(mended[rows]) + (1 - own) * unit_rows(np.asarray(pooled[place])))
    lengths = np.linalg.norm(mended[rows], axis=1, keepdims=True)
    mended[rows] = np.where(mixed.any(axis=1, keepdims=True), mixed * lengths, mended[rows])
    return mended


def _trusted(offsets: Int64, probability: Float32, items: slice, doubtful: float) -> tuple[Int64, Bool]:
    bounds = np.asarray(offsets[items.start : items.stop + 1]) - offsets[items.start]
    own = np.asarray(probability[offsets[items.start] : offsets[items.stop]])
    return bounds, np.isnan(own) | (own >= doubtful)
