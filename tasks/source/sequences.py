"""Reading a modality that is a sequence of vectors per item: frames of a video, windows of a sound track.

Files beside ``features-<m>.npy`` and ``present-<m>.npy``, S usable segments in all: ``segments-<m>.npy`` [S, D] float32, item by item in
their order; ``offsets-<m>.npy`` [I + 1] int64, item i owning the rows from ``offsets[i]`` up to ``offsets[i + 1]``; ``positions-<m>.npy``
[S] int32, a segment's place in its item's sequence as it came, which tells where unusable ones were left out.

The feature of an item is the plain mean of its usable segments as they are, not of their directions: that is what anyone who pools the
published sequence gets, at its scale. A loud segment therefore weighs more, which the source meant or can change.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.lib.format import header_data_from_array_1_0, write_array_header_1_0
from numpy.typing import NDArray

from rectifier_core.base.arrays import Bool, Float32, Int64
from tasks.source.arrow_columns import FEATURE_REASONS, embeddings, judge_features, segment_lists
from tasks.source.files import ParquetFiles, open_parquet
from tasks.source.quarantine import USABLE

SEQUENCE_REASONS = (*FEATURE_REASONS, "no_usable_segment", *(f"segment_{reason}" for reason in FEATURE_REASONS))
FIRST_SEGMENT_REASON = len(FEATURE_REASONS) + 1


def numbers_per_row(files: ParquetFiles, columns: Mapping[str, str]) -> int:
    """The most numbers that a row of any row group holds in these columns together, on average over the group; at least 1."""
    most = 1
    for file in files.files:
        with open_parquet(files.filesystem, file, columns) as parquet:
            for index in range(parquet.metadata.num_row_groups):
                most = max(most, _numbers_per_row(parquet.metadata.row_group(index), columns))
    return most


def _numbers_per_row(group: pq.RowGroupMetaData, columns: Mapping[str, str]) -> int:
    found = [group.column(x) for x in range(group.num_columns)]
    wanted = sum(
        x.num_values
        for x in found
        if any(x.path_in_schema == c or x.path_in_schema.startswith(f"{c}.") for c in columns)
    )
    return int(-(-wanted // max(1, group.num_rows)))


class NpyAppender:
    """A ``.npy`` file that grows along its first axis: NumPy leaves room in the header for the length that is known at the end."""

    def __init__(self, path: Path, row: np.ndarray[Any, Any]) -> None:
        """``row`` [0, ...] gives the dtype and the shape of what is appended."""
        self._empty, self.length = row, 0
        self._stream = path.open("wb")
        self._start = self._write_header()

    def append(self, rows: np.ndarray[Any, Any]) -> None:
        """Add rows at the end."""
        self._stream.write(np.ascontiguousarray(rows, dtype=self._empty.dtype).data)
        self.length += len(rows)

    def close(self) -> None:
        """Write the final length and close."""
        try:
            self._stream.seek(0)
            if self._write_header() != self._start:
                raise ValueError(f"the header of an array of {self.length} rows outgrew its room")
        finally:
            self._stream.close()

    def _write_header(self) -> int:
        header = header_data_from_array_1_0(self._empty) | {"shape": (self.length, *self._empty.shape[1:])}
        write_array_header_1_0(self._stream, header)
        return self._stream.tell()


class SequenceWriter:
    """The segments, positions and offsets of one modality while its items are read in order."""

    def __init__(self, folder: Path, name: str, width: int, num_items: int) -> None:
        self._folder, self._name = folder, name
        self._counts = np.zeros(num_items, np.int64)
        self._segments = NpyAppender(folder / f"segments-{name}.npy", np.empty((0, width), np.float32))
        self._positions = NpyAppender(folder / f"positions-{name}.npy", np.empty(0, np.int32))

    @property
    def length(self) -> int:
        """Segments so far."""
        return self._segments.length

    def append(self, items: slice, counts: Int64, segments: Float32, positions: Int64) -> None:
        """The usable segments of these items, ``counts`` each."""
        self._counts[items] = counts
        self._segments.append(segments)
        self._positions.append(positions)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the files, and write the offsets when all went well."""
        self._segments.close()
        self._positions.close()
        if kind is None:
            np.save(
                self._folder / f"offsets-{self._name}.npy",
                np.concatenate([[0], np.cumsum(self._counts)]).astype(np.int64),
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class SequenceBatch:
    """One batch of a sequence column of N rows with K usable segments [K, D].

    ``rows`` [K] says whose each is and ``positions`` [K] its place there, ``counts`` [N] how many a row has. ``features`` [N, D] are
    their means. ``bad_rows`` [B] and ``bad_codes`` [B] (of ``SEQUENCE_REASONS``) name what cannot be used, row by row; ``missing`` [N]
    are the rows without any segment, ``read`` counts all of them.
    """

    segments: Float32
    rows: Int64
    positions: Int64
    counts: Int64
    features: Float32
    missing: Bool
    bad_rows: Int64
    bad_codes: NDArray[np.int8]
    read: int


def judge_sequences(column: pa.Array, width: int) -> SequenceBatch:
    """Take a batch of a sequence column apart. A row whose usable segments cancel out has none."""
    given, inner = segment_lists(column)
    counts = np.maximum(given, 0)
    row, position = (
        np.repeat(np.arange(len(counts)), counts),
        np.arange(len(inner)) - np.repeat(np.cumsum(counts) - counts, counts),
    )
    right, values = embeddings(inner, width)
    good, reasons = judge_features(values)
    codes = np.full(len(inner), FIRST_SEGMENT_REASON + FEATURE_REASONS.index("wrong_width"), np.int8)
    codes[right] = np.where(good, USABLE, FIRST_SEGMENT_REASON + reasons)
    features = _means(values[good], row[right[good]], len(counts))
    usable = judge_features(features)[0]
    cancelled = ~usable & (np.bincount(row[right[good]], minlength=len(counts)) > 0)
    chosen = good & usable[row[right]]
    kept = right[chosen]
    lost = np.flatnonzero((counts > 0) & ~usable)
    bad = np.flatnonzero(codes != USABLE)
    bad_rows = np.concatenate([lost, row[bad]])
    fallen = np.where(cancelled[lost], FEATURE_REASONS.index("zero_norm"), SEQUENCE_REASONS.index("no_usable_segment"))
    order = np.argsort(bad_rows, kind="stable")
    return SequenceBatch(
        segments=values[chosen],
        rows=row[kept],
        positions=position[kept],
        counts=np.bincount(row[kept], minlength=len(counts)).astype(np.int64),
        features=features,
        missing=counts == 0,
        bad_rows=bad_rows[order],
        bad_codes=np.concatenate([fallen, codes[bad]]).astype(np.int8)[order],
        read=len(inner),
    )


def _means(segments: Float32, rows: Int64, num_rows: int) -> Float32:
    means = np.zeros((num_rows, segments.shape[1]), np.float32)
    counts = np.bincount(rows, minlength=num_rows)
    given = counts > 0
    if given.any():
        sums = np.add.reduceat(segments, (np.cumsum(counts) - counts)[given], axis=0, dtype=np.float64)
        means[given] = sums / counts[given, None]
    return means
