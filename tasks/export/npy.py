"""Export as plain NumPy arrays, one file a column, all in the same row order, nothing pickled.

- ``item_ids.npy`` [I]: int64 or fixed-width text.
- ``<m>.npy`` [I, D] float32: zeros without a feature.
- ``<m>_trust.npy`` [I] float32: NaN where trust is unknown.
- ``<m>_moved.npy`` [I] float32: 1 - cosine between the feature that was read and the published one, NaN where there was none.
- ``<m>_status.npy`` [I] uint8: a position in the manifest's ``statuses``.
- ``behaviour.npy`` [I, A] float32: the anchors, where the table has them; zeros for an item without interactions.
- A sequence has ``<m>_segments.npy`` [S, D] float32, ``<m>_segment_positions.npy`` [S] int32, ``<m>_segment_trust.npy`` [S] float32 and
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
from tasks.source.columns.vectors import embeddings
from tasks.source.config import BEHAVIOUR
from tasks.store.store import StageWriter
from tasks.table.snapshot import POSITIONS, Snapshot, SnapshotModality

STATUSES = [x.value for x in Status]
Arrays = dict[str, np.memmap[Any, Any]]


def arrays_export() -> Export:
    """Return the export of ``--format npy``."""
    return Export(format="npy", write=_write, about={"statuses": STATUSES})


def vectors(column: pa.ChunkedArray, width: int, what: str) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return the rows that have a vector [K] int64 and the vectors [K, width] float32. Raises StorageError for another width."""
    if column.null_count == len(column):
        return np.empty(0, np.int64), np.empty((0, width), np.float32)
    rows, values = embeddings(column.combine_chunks(), width)
    if len(rows) != len(column) - column.null_count:
        raise StorageError(f"{what} holds vectors of different widths; publish that day again")
    return rows, values


def _write(snapshot: Snapshot, writer: StageWriter, progress: Progress) -> dict[str, Any]:
    arrays = _create(snapshot, writer)
    first = 0
    for block in snapshot.blocks([x for x in snapshot.schema.names if x != "run_id"], progress):
        rows = slice(first, first + len(block))
        arrays["item_ids"][rows] = block["item_id"].to_numpy()
        for modality in snapshot.modalities:
            _fill(arrays, block, modality, rows, snapshot.uri)
            if modality.segments is not None:
                _fill_segments(arrays, block, modality, rows, snapshot.uri)
        if snapshot.behaviour is not None:
            _fill_vectors(arrays, block, BEHAVIOUR, snapshot.behaviour, rows, snapshot.uri)
        first = rows.stop
    for array in arrays.values():
        array.flush()
    return {f"{name}.npy": {"dtype": x.dtype.str, "shape": list(x.shape)} for name, x in arrays.items()}


def _create(snapshot: Snapshot, writer: StageWriter) -> Arrays:
    rows, integers = snapshot.rows, pa.types.is_integer(snapshot.schema.field("item_id").type)
    planned: list[tuple[str, tuple[int, ...], Any]] = [
        ("item_ids", (rows,), np.int64 if integers else f"<U{max(1, snapshot.longest_id)}")
    ]
    for modality in snapshot.modalities:
        name, width, segments = modality.name, modality.width, modality.segments
        planned += [
            (name, (rows, width), np.float32),
            (f"{name}_trust", (rows,), np.float32),
            (f"{name}_moved", (rows,), np.float32),
            (f"{name}_status", (rows,), np.uint8),
        ]
        if segments is not None:
            planned += [
                (f"{name}_segments", (segments, width), np.float32),
                (f"{name}{POSITIONS}", (segments,), np.int32),
                (f"{name}_segment_trust", (segments,), np.float32),
                (f"{name}_segment_offsets", (rows + 1,), np.int64),
            ]
    if snapshot.behaviour is not None:
        planned.append((BEHAVIOUR, (rows, snapshot.behaviour), np.float32))
    arrays: Arrays = {}
    for name, shape, dtype in planned:
        # Some file systems ignore case.
        if name.casefold() in {x.casefold() for x in arrays}:
            raise InputError(f"--format npy: two columns need {name}.npy; export as parquet, or rename the modality")
        arrays[name] = writer.memmap(name, shape, dtype)
    return arrays


def _fill(arrays: Arrays, block: pa.Table, modality: SnapshotModality, rows: slice, uri: str) -> None:
    name = modality.name
    _fill_vectors(arrays, block, name, modality.width, rows, uri)
    for kind in ("trust", "moved"):
        arrays[f"{name}_{kind}"][rows] = _floats(block[f"{name}_{kind}"])
    codes = pc.index_in(block[f"{name}_status"], value_set=pa.array(STATUSES))
    if codes.null_count:
        raise StorageError(f"{name}_status of {uri} holds an unknown status; publish that day again")
    arrays[f"{name}_status"][rows] = codes.to_numpy()


def _fill_vectors(arrays: Arrays, block: pa.Table, name: str, width: int, rows: slice, uri: str) -> None:
    present, values = vectors(block[name], width, f"{name} of {uri}")
    arrays[name][rows.start + present] = values


def _fill_segments(arrays: Arrays, block: pa.Table, modality: SnapshotModality, rows: slice, uri: str) -> None:
    name, offsets = modality.name, arrays[f"{modality.name}_segment_offsets"]
    counts = pc.list_value_length(block[f"{name}{POSITIONS}"]).fill_null(0).to_numpy()
    offsets[rows.start + 1 : rows.stop + 1] = offsets[rows.start] + np.cumsum(counts)
    part = slice(offsets[rows.start], offsets[rows.stop])
    segments = pc.list_flatten(block[f"{name}_segments"])
    arrays[f"{name}_segments"][part] = vectors(segments, modality.width, f"{name}_segments of {uri}")[1]
    arrays[f"{name}{POSITIONS}"][part] = pc.list_flatten(block[f"{name}{POSITIONS}"]).to_numpy()
    arrays[f"{name}_segment_trust"][part] = _floats(pc.list_flatten(block[f"{name}_segment_trust"]))


def _floats(column: pa.ChunkedArray) -> np.ndarray[Any, Any]:
    values: np.ndarray[Any, Any] = pc.fill_null(column, float("nan")).to_numpy()
    return values
