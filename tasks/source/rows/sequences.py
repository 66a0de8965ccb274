"""Judging a modality that is a sequence of vectors per item: frames of a video, windows of a sound track.

The feature of an item is the plain mean of its usable segments as they are, not of their directions. So it equals what a reader gets who
pools the published sequence. A segment of larger norm therefore weighs more.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rectifier_core.base.arrays import Bool, Float32, Int64
from tasks.source.columns.arrow import is_list
from tasks.source.columns.vectors import (
    FEATURE_REASONS,
    MISSING_KINDS,
    USABLE,
    as_lists,
    embeddings,
    judge_features,
    lengths,
    missing_kinds,
)

SEQUENCE_REASONS = (*FEATURE_REASONS, "no_usable_segment", *(f"segment_{reason}" for reason in FEATURE_REASONS))
FIRST_SEGMENT_REASON = len(FEATURE_REASONS) + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureBatch:
    """One batch of N rows of an embedding column.

    ``rows`` [K] have a usable feature, ``features`` [K, D] are these. ``missing`` [4] counts the rows without one by ``MISSING_KINDS``.
    ``bad_rows`` [B], ascending, and ``bad_codes`` [B] (of ``SEQUENCE_REASONS``) name what cannot be used.
    """

    rows: Int64
    features: Float32
    missing: Int64
    bad_rows: Int64
    bad_codes: NDArray[np.int8]


@dataclass(frozen=True, slots=True, kw_only=True)
class SequenceBatch(FeatureBatch):
    """A batch of a sequence column with S usable segments [S, D]; the features are their means.

    ``positions`` [S] is the place of each in its row's sequence, ``counts`` [N] how many a row has. ``segments_read`` counts all segments,
    ``segments_missing`` those that say nothing: null, empty, all zero or all NaN, as padding is.
    """

    segments: Float32
    positions: Int64
    counts: Int64
    segments_read: int
    segments_missing: int


def segment_lists(column: pa.Array) -> tuple[Int64, pa.Array]:
    """How many segments each row of a sequence column has [N] int64, -1 where it is null, and all segments in order, as lists."""
    lists = as_lists(column)
    counts = lengths(lists)
    if is_list(lists.type.value_type):
        return counts, lists.flatten()
    # A file in which no row holds a segment.
    return np.minimum(counts, 0), pa.array([], pa.list_(pa.float32()))


def judge_sequences(column: pa.Array, width: int) -> SequenceBatch:
    """The usable segments and their means. A row whose usable segments sum to zero has none."""
    list_lengths, inner = segment_lists(column)
    counts_read = np.maximum(list_lengths, 0)
    row = np.repeat(np.arange(len(counts_read)), counts_read)
    position = np.arange(len(inner)) - np.repeat(np.cumsum(counts_read) - counts_read, counts_read)
    right_width, values = embeddings(inner, width)
    good, reasons = judge_features(values)
    codes = np.full(len(inner), FIRST_SEGMENT_REASON + FEATURE_REASONS.index("wrong_width"), np.int8)
    codes[right_width] = np.where(good, USABLE, FIRST_SEGMENT_REASON + reasons)
    odd = np.flatnonzero(codes != USABLE)
    kinds = missing_kinds(inner.take(pa.array(odd)))
    codes[odd[kinds >= 0]] = USABLE
    good_rows = row[right_width[good]]
    features = _means(values[good], good_rows, len(counts_read))
    usable = judge_features(features)[0]
    cancelled = ~usable & (np.bincount(good_rows, minlength=len(counts_read)) > 0)
    kept = good & usable[row[right_width]]
    segment = right_width[kept]
    bad = np.flatnonzero(codes != USABLE)
    damaged = np.bincount(row[bad], minlength=len(counts_read)) > 0
    # A row of nothing but missing segments is missing itself, of the kind of the first one.
    blank = (counts_read > 0) & ~usable & ~cancelled & ~damaged
    unusable = np.flatnonzero((counts_read > 0) & ~usable & ~blank)
    row_codes = np.where(
        cancelled[unusable], FEATURE_REASONS.index("zero_norm"), SEQUENCE_REASONS.index("no_usable_segment")
    )
    bad_rows = np.concatenate([unusable, row[bad]])
    order = np.argsort(bad_rows, kind="stable")
    counts = np.bincount(row[segment], minlength=len(counts_read)).astype(np.int64)
    rows = np.flatnonzero(counts)
    return SequenceBatch(
        rows=rows,
        features=features[rows],
        missing=_missing(list_lengths, blank, row[odd], kinds),
        bad_rows=bad_rows[order],
        bad_codes=np.concatenate([row_codes, codes[bad]]).astype(np.int8)[order],
        segments=values[kept],
        positions=position[segment],
        counts=counts,
        segments_read=len(inner),
        segments_missing=int((kinds >= 0).sum()),
    )


def _missing(list_lengths: Int64, blank: Bool, row: Int64, kinds: NDArray[np.int8]) -> Int64:
    """Rows without a feature by ``MISSING_KINDS`` [4]; a ``blank`` row counts as its first segment."""
    found = np.bincount(row[kinds >= 0], minlength=len(blank)) > 0
    first = np.full(len(blank), -1, np.int8)
    first[row[::-1]] = kinds[::-1]
    counted = np.bincount(first[blank & found], minlength=len(MISSING_KINDS)).astype(np.int64)
    counted[:2] += (list_lengths < 0).sum(), (list_lengths == 0).sum()
    return counted


def _means(segments: Float32, rows: Int64, num_rows: int) -> Float32:
    means = np.zeros((num_rows, segments.shape[1]), np.float32)
    counts = np.bincount(rows, minlength=num_rows)
    filled = counts > 0
    if filled.any():
        sums = np.add.reduceat(segments, (np.cumsum(counts) - counts)[filled], axis=0, dtype=np.float64)
        means[filled] = sums / counts[filled, None]
    return means
