"""Export as plain NumPy arrays, one file a column, all in the same order of rows; nothing is pickled.

- ``item_ids.npy`` [I] int64 or fixed-width text;
- ``<m>.npy`` [I, D] float32, zeros where there is nothing to give; ``<m>_trust.npy`` [I] float32, NaN where it cannot be told;
  ``<m>_status.npy`` [I] uint8, a position in the manifest's ``statuses``;
- of a sequence ``<m>_segments.npy`` [S, D] float32, ``<m>_segment_positions.npy`` [S] int32, ``<m>_segment_trust.npy`` [S] float32 and
  ``<m>_segment_offsets.npy`` [I + 1] int64: item i has the segments from offset i up to offset i + 1.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rectifier_core.base.numerics import Progress
from rectifier_core.base.published_records import Status
from tasks.errors import InputError, StorageError
from tasks.export.write import Export
from tasks.source.arrow_columns import embeddings, lengths
from tasks.store.store import StageWriter
from tasks.table.snapshot import POSITIONS, Snapshot, SnapshotModality

STATUSES = [x.value for x in Status]


def arrays_export() -> Export:
    """``--format npy``."""
    return Export(format="npy", write=_write, about={"statuses": STATUSES})


def _write(snapshot: Snapshot, writer: StageWriter, progress: Progress) -> dict[str, Any]:
    arrays = _Arrays(snapshot, writer)
    for block in snapshot.blocks([x for x in snapshot.schema.names if x != "run_id"], progress):
        arrays.add(block)
    return arrays.close()


class _Arrays:
    """The files while they are being filled, block by block."""

    def __init__(self, snapshot: Snapshot, writer: StageWriter) -> None:
        self._snapshot, self._writer, self._at = snapshot, writer, 0
        self._maps: dict[str, np.memmap[Any, Any]] = {}
        self._segments = {x.name: 0 for x in snapshot.modalities if x.segments is not None}
        rows, ids = snapshot.rows, snapshot.schema.field("item_id").type
        self._make("item_ids", (rows,), np.int64 if pa.types.is_integer(ids) else f"<U{max(1, snapshot.longest_id)}")
        for modality in snapshot.modalities:
            self._make(modality.name, (rows, modality.width), np.float32)
            self._make(f"{modality.name}_trust", (rows,), np.float32)
            self._make(f"{modality.name}_status", (rows,), np.uint8)
            if modality.segments is not None:
                self._make(f"{modality.name}_segments", (modality.segments, modality.width), np.float32)
                self._make(f"{modality.name}{POSITIONS}", (modality.segments,), np.int32)
                self._make(f"{modality.name}_segment_trust", (modality.segments,), np.float32)
                self._make(f"{modality.name}_segment_offsets", (rows + 1,), np.int64)

    def _make(self, name: str, shape: tuple[int, ...], dtype: Any) -> None:
        if name.casefold() in {x.casefold() for x in self._maps}:
            raise InputError(
                f"--format npy: two columns would be {name}.npy; export as parquet, or rename the modality"
            )
        self._maps[name] = self._writer.memmap(name, shape, dtype)

    def add(self, block: pa.Table) -> None:
        """Append a block of rows."""
        rows = slice(self._at, self._at + len(block))
        ids = block["item_id"].combine_chunks()
        self._maps["item_ids"][rows] = ids.to_numpy(zero_copy_only=False)
        for modality in self._snapshot.modalities:
            name = modality.name
            given, values = vectors(block[name].combine_chunks(), modality.width, f"{name} of {self._snapshot.uri}")
            self._maps[name][rows] = filled(given, values, len(block))
            self._maps[f"{name}_trust"][rows] = floats(block[f"{name}_trust"])
            self._maps[f"{name}_status"][rows] = status_codes(
                block[f"{name}_status"], f"{name}_status of {self._snapshot.uri}"
            )
            if modality.segments is not None:
                self._add_segments(block, modality, rows)
        self._at = rows.stop

    def _add_segments(self, block: pa.Table, modality: SnapshotModality, rows: slice) -> None:
        name = modality.name
        first = self._segments[name]
        counts = np.maximum(lengths(block[f"{name}{POSITIONS}"].combine_chunks()), 0)
        part = slice(first, first + int(counts.sum()))
        self._maps[f"{name}_segment_offsets"][rows.start + 1 : rows.stop + 1] = first + np.cumsum(counts)
        segments = block[f"{name}_segments"].combine_chunks().flatten()
        self._maps[f"{name}_segments"][part] = vectors(
            segments, modality.width, f"{name}_segments of {self._snapshot.uri}"
        )[1]
        self._maps[f"{name}{POSITIONS}"][part] = (
            block[f"{name}{POSITIONS}"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        )
        self._maps[f"{name}_segment_trust"][part] = floats(block[f"{name}_segment_trust"].combine_chunks().flatten())
        self._segments[name] = part.stop

    def close(self) -> dict[str, Any]:
        """Let go of the files; the name, type and shape of each."""
        contents = {
            f"{x}.npy": {"dtype": array.dtype.str, "shape": list(array.shape)} for x, array in self._maps.items()
        }
        for array in self._maps.values():
            array.flush()
        self._maps.clear()
        return contents


def vectors(column: pa.Array, width: int, what: str) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """The rows that have a vector [K] int64, and the vectors [K, width] float32. Raises StorageError where one has another width."""
    if column.null_count == len(column):
        return np.empty(0, np.int64), np.empty((0, width), np.float32)
    given, values = embeddings(column, width)
    if len(given) != len(column) - column.null_count:
        raise StorageError(f"{what} holds vectors of different widths; publish that day again")
    return given, values


def filled(given: np.ndarray[Any, Any], values: np.ndarray[Any, Any], rows: int) -> np.ndarray[Any, Any]:
    """All rows, zeros where none is given."""
    if len(given) == rows:
        return values
    found = np.zeros((rows, values.shape[1]), values.dtype)
    found[given] = values
    return found


def floats(column: pa.Array | pa.ChunkedArray) -> np.ndarray[Any, Any]:
    """Float32 values, NaN for null."""
    found: np.ndarray[Any, Any] = pc.fill_null(column, float("nan")).to_numpy()
    return found


def status_codes(column: pa.ChunkedArray, what: str) -> np.ndarray[Any, Any]:
    """The position of each status in ``STATUSES``. Raises StorageError for a word that is none."""
    codes = pc.index_in(column, value_set=pa.array(STATUSES))
    if codes.null_count:
        raise StorageError(f"{what} holds a status that is none of {', '.join(STATUSES)}; publish that day again")
    found: np.ndarray[Any, Any] = codes.to_numpy().astype(np.uint8)
    return found
