"""Writing one modality's features, and the segments of a sequence, straight to disk while the catalog is read in order."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash
from numpy.lib.format import header_data_from_array_1_0, write_array_header_1_0
from numpy.typing import NDArray

from rectifier_core.base.arrays import Float32, Int64, UInt64
from tasks.errors import InputError
from tasks.source.columns.vectors import (
    FEATURE_REASONS,
    MISSING_KINDS,
    USABLE,
    Format,
    as_lists,
    embeddings,
    judge_features,
    missing_kinds,
    unreadable,
)
from tasks.source.rows.quarantine import stop_if_too_many
from tasks.source.rows.sequences import (
    FIRST_SEGMENT_REASON,
    SEQUENCE_REASONS,
    FeatureBatch,
    SequenceBatch,
    judge_sequences,
)
from tasks.store.store import StageWriter


def _row_digests(rows: Float32) -> UInt64:
    """Return a 64-bit digest of every row's bytes. An incremental run compares digests to find the changed rows."""
    return np.fromiter(map(xxhash.xxh3_64_intdigest, np.ascontiguousarray(rows)), np.uint64, len(rows))


class FeatureColumn:
    """The output files of one modality of a catalog of I items, and the counts of what cannot be used."""

    def __init__(
        self,
        writer: StageWriter,
        name: str,
        column: str,
        width: int,
        num_items: int,
        *,
        is_sequence: bool,
        given: Format | None = None,
    ) -> None:
        """``given`` is the format of vectors in text or bytes."""
        self.name, self.column, self.width, self.is_sequence = name, column, width, is_sequence
        self._writer, self._given = writer, given
        self._features = writer.memmap(f"features-{name}", (num_items, width), np.float32)
        self._present = np.zeros(num_items, np.bool_)
        self._digest = np.full(num_items, _row_digests(np.zeros((1, width), np.float32))[0])
        self._missing = np.zeros(len(MISSING_KINDS), np.int64)
        self._segments_read = self._segments_missing = 0
        self._reason_counts = np.zeros(len(SEQUENCE_REASONS), np.int64)
        if is_sequence:
            self._counts = np.zeros(num_items, np.int64)
            self._segments = NpyAppender(writer.folder / f"segments-{name}.npy", np.empty((0, width), np.float32))
            self._positions = NpyAppender(writer.folder / f"positions-{name}.npy", np.empty(0, np.int32))

    def add(self, column: pa.Array, items: slice) -> tuple[Int64, NDArray[np.int8]]:
        """Write the usable features of these items. Return the rows with something bad, ascending, and the codes of the reasons."""
        judge = judge_sequences if self.is_sequence else partial(judge_vectors, given=self._given)
        batch = judge(column, self.width)
        # A slice is copied at once, an index row by row.
        rows = slice(None) if len(batch.rows) == len(column) else batch.rows
        self._features[items][rows] = batch.features
        self._present[items][rows] = True
        self._digest[items][rows] = _row_digests(batch.features)
        self._missing += batch.missing
        self._reason_counts += np.bincount(batch.bad_codes, minlength=len(SEQUENCE_REASONS))
        if isinstance(batch, SequenceBatch):
            self._counts[items] = batch.counts
            self._segments.append(batch.segments)
            self._positions.append(batch.positions)
            self._segments_read += batch.segments_read
            self._segments_missing += batch.segments_missing
        return batch.bad_rows, batch.bad_codes

    def close(self) -> None:
        """Close the files of the segments."""
        if self.is_sequence:
            self._segments.close()
            self._positions.close()

    def finish(self, uri: str, max_quarantined: float) -> dict[str, Any]:
        """Write the remaining arrays, and return the modality's part of ``meta.json``.

        Raises InputError if too much cannot be used or nothing is left; ``uri`` names the catalog in it.
        """
        self._writer.array(f"present-{self.name}", self._present)
        self._writer.array(f"digest-{self.name}", self._digest)
        key, summary = f"source.modalities.{self.name}", {"column": self.column, "width": self.width}
        reasons = ("zero_norm", "no_usable_segment") if self.is_sequence else FEATURE_REASONS
        quarantined, of_segments = self._counted(reasons), self._counted(SEQUENCE_REASONS[FIRST_SEGMENT_REASON:])
        if self.is_sequence:
            self._writer.array(f"offsets-{self.name}", np.concatenate([[0], np.cumsum(self._counts)]).astype(np.int64))
            what = f"{key}, the segments in column {self.column!r} of {uri}"
            given = self._segments_read - self._segments_missing
            stop_if_too_many(what, of_segments, given, max_quarantined, lambda: "mend the segments")
        what, missing = f"{key}, the features in column {self.column!r} of {uri}", int(self._missing.sum())
        stop_if_too_many(what, quarantined, len(self._present) - missing, max_quarantined, lambda: "mend the features")
        if not self._present.any():
            raise InputError(f"{uri}: column {self.column!r} ({key}) holds no usable feature")
        kinds = {kind: int(count) for kind, count in zip(MISSING_KINDS, self._missing, strict=True)}
        summary |= {"present": int(self._present.sum()), "missing": kinds, "quarantined": quarantined}
        if self.is_sequence:
            summary |= {"segments": self._segments.length, "segments_missing": self._segments_missing}
            summary |= {"segments_quarantined": of_segments}
        return summary

    def _counted(self, reasons: tuple[str, ...]) -> dict[str, int]:
        return {reason: int(self._reason_counts[SEQUENCE_REASONS.index(reason)]) for reason in reasons}


def judge_vectors(column: pa.Array, width: int, given: Format | None = None) -> FeatureBatch:
    """The usable features of a batch of a vector column."""
    lists = as_lists(column, given)
    right_width, values = embeddings(lists, width)
    good, reasons = judge_features(values)
    codes = np.full(len(lists), FEATURE_REASONS.index("wrong_width"), np.int8)
    codes[right_width] = reasons
    odd = np.flatnonzero(codes != USABLE)
    rest = lists.take(pa.array(odd))
    missing = missing_kinds(rest)
    if given is not None:
        codes[odd[unreadable(rest)]] = FEATURE_REASONS.index("unreadable")
    bad = odd[missing < 0]
    return FeatureBatch(
        rows=right_width[good],
        features=values if good.all() else values[good],
        missing=np.bincount(missing[missing >= 0], minlength=len(MISSING_KINDS)),
        bad_rows=bad,
        bad_codes=codes[bad],
    )


class NpyAppender:
    """A ``.npy`` file that grows along its first axis. NumPy leaves room in the header for the final length."""

    def __init__(self, path: Path, empty: np.ndarray[Any, Any]) -> None:
        """``empty`` [0, ...] has the dtype and shape of the rows."""
        self._empty, self.length = empty, 0
        self._stream = path.open("wb")
        self._write_header()

    def append(self, rows: np.ndarray[Any, Any]) -> None:
        """Add rows at the end."""
        self._stream.write(np.ascontiguousarray(rows, dtype=self._empty.dtype).data)
        self.length += len(rows)

    def close(self) -> None:
        """Write the final length and close."""
        with self._stream:
            self._stream.seek(0)
            self._write_header()

    def _write_header(self) -> None:
        header = header_data_from_array_1_0(self._empty) | {"shape": (self.length, *self._empty.shape[1:])}
        write_array_header_1_0(self._stream, header)
