"""Judging a modality that is a sequence of vectors per item: frames of a video, windows of a sound track.

The feature of an item is the plain mean of its usable segments as they are, not of their directions. So it equals what a reader gets who
pools the published sequence. A segment of larger norm therefore weighs more.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rectifier_core.base.arrays import Float32, Int64
from tasks.source.arrow_columns import FEATURE_REASONS, embeddings, judge_features, segment_lists
from tasks.source.quarantine import USABLE

SEQUENCE_REASONS = (*FEATURE_REASONS, "no_usable_segment", *(f"segment_{reason}" for reason in FEATURE_REASONS))
FIRST_SEGMENT_REASON = len(FEATURE_REASONS) + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureBatch:
    """One batch of N rows of an embedding column.

    ``rows`` [K] have a usable feature, ``features`` [K, D] are these. ``missing`` rows have no value. ``bad_rows`` [B], ascending, and
    ``bad_codes`` [B] (of ``SEQUENCE_REASONS``) name what cannot be used.
    """

    rows: Int64
    features: Float32
    missing: int
    bad_rows: Int64
    bad_codes: NDArray[np.int8]


@dataclass(frozen=True, slots=True, kw_only=True)
class SequenceBatch(FeatureBatch):
    """A batch of a sequence column with S usable segments [S, D]; the features are their means.

    ``positions`` [S] is the place of each in its row's sequence, ``counts`` [N] how many a row has. ``segments_read`` counts all segments.
    """

    segments: Float32
    positions: Int64
    counts: Int64
    segments_read: int


def judge_sequences(column: pa.Array, width: int) -> SequenceBatch:
    """The usable segments and their means. A row whose usable segments sum to zero has none."""
    list_lengths, inner = segment_lists(column)
    lengths = np.maximum(list_lengths, 0)
    row = np.repeat(np.arange(len(lengths)), lengths)
    position = np.arange(len(inner)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    right_width, values = embeddings(inner, width)
    good, reasons = judge_features(values)
    codes = np.full(len(inner), FIRST_SEGMENT_REASON + FEATURE_REASONS.index("wrong_width"), np.int8)
    codes[right_width] = np.where(good, USABLE, FIRST_SEGMENT_REASON + reasons)
    good_rows = row[right_width[good]]
    features = _means(values[good], good_rows, len(lengths))
    usable = judge_features(features)[0]
    cancelled = ~usable & (np.bincount(good_rows, minlength=len(lengths)) > 0)
    kept = good & usable[row[right_width]]
    segment = right_width[kept]
    unusable = np.flatnonzero((lengths > 0) & ~usable)
    row_codes = np.where(
        cancelled[unusable], FEATURE_REASONS.index("zero_norm"), SEQUENCE_REASONS.index("no_usable_segment")
    )
    bad = np.flatnonzero(codes != USABLE)
    bad_rows = np.concatenate([unusable, row[bad]])
    order = np.argsort(bad_rows, kind="stable")
    counts = np.bincount(row[segment], minlength=len(lengths)).astype(np.int64)
    rows = np.flatnonzero(counts)
    return SequenceBatch(
        rows=rows,
        features=features[rows],
        missing=int((lengths == 0).sum()),
        bad_rows=bad_rows[order],
        bad_codes=np.concatenate([row_codes, codes[bad]]).astype(np.int8)[order],
        segments=values[kept],
        positions=position[segment],
        counts=counts,
        segments_read=len(inner),
    )


def _means(segments: Float32, rows: Int64, num_rows: int) -> Float32:
    means = np.zeros((num_rows, segments.shape[1]), np.float32)
    counts = np.bincount(rows, minlength=num_rows)
    filled = counts > 0
    if filled.any():
        sums = np.add.reduceat(segments, (np.cumsum(counts) - counts)[filled], axis=0, dtype=np.float64)
        means[filled] = sums / counts[filled, None]
    return means
