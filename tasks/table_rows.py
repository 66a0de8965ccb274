"""The published rows: from a run's memory maps to audited Parquet files, a block of rows at a time.

Embeddings are stored plain: no dictionary and no statistics, which cost most of the writing time and help no reader, and no compression,
which takes two to three times the time to save a tenth of the size of float vectors. The small columns get both. The same rows give the
same bytes.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rectifier_core.numerics import row_blocks
from tasks.errors import InputError, StorageError
from tasks.references import Ref
from tasks.table_columns import ModalityRows, SequenceRows, check_shapes, most_bytes, published_columns, published_fields
from tasks.table_files import FileEntry, TableFiles

_BLOCK_BYTES = 32 << 20
_MOST_BLOCK_ROWS = 100_000
_WIDENED = {"uint8": "int16", "uint16": "int32", "uint32": "int64", "uint64": "int64"}
_UNUSABLE_NAME = re.compile(r"[ ,;{}()\n\t=]|^$")


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedRows:
    """All rows of one run, in the catalog's order; ``schema`` is that of the data files, without the partition column ``as_of``."""

    item_ids: np.ndarray[Any, Any]
    modalities: tuple[ModalityRows, ...]
    run_id: str
    schema: pa.Schema

    def __len__(self) -> int:
        return len(self.item_ids)

    @property
    def block_rows(self) -> int:
        """How many rows are in memory at once, and in one row group of a file."""
        row_bytes = 64 + sum(4 * x.features.shape[1] for x in self.modalities)
        rows = int(max(1, min(_MOST_BLOCK_ROWS, len(self), _BLOCK_BYTES // row_bytes)))
        # The longest sequences may lie side by side: no block of them, wherever it starts, is to pass the same bound.
        while rows > 1 and sum(most_bytes(x.sequence, rows) for x in self.modalities if x.sequence) > _BLOCK_BYTES:
            rows //= 2
        return rows

    def block(self, rows: slice) -> pa.RecordBatch:
        """The published columns of these rows."""
        ids = pa.array(self.item_ids[rows]).cast(self.schema.field("item_id").type)
        columns = [ids]
        for modality in self.modalities:
            columns += published_columns(modality, rows)
        return pa.record_batch([*columns, pa.repeat(self.run_id, len(ids))], schema=self.schema)


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenFile:
    """One data file as written, and its rows among the run's."""

    entry: FileEntry
    rows: slice

    @property
    def path(self) -> str:
        """The file's path in the table."""
        return self.entry.path

    @property
    def stats(self) -> str:
        """The Delta statistics of the file, JSON: its number of rows and no more.

        As soon as one column has bounds, delta-rs tells pyarrow that every other column lies between null and null, and a filter finds
        nothing there. Row groups have their own bounds, in the file.
        """
        return json.dumps({"numRecords": self.rows.stop - self.rows.start})


def open_rows(source: Ref, rectified: Ref, run_id: str, *, sequences: bool = True) -> PublishedRows:
    """The rows to publish, memory-mapped.

    Of each modality m that ``meta["sequences"]`` of ``rectified`` lists, unless ``sequences`` is False, the segments as well:
    ``segments-<m>`` and ``segment_trust-<m>`` of ``rectified`` with ``offsets-<m>`` and ``positions-<m>`` of ``source``.

    Raises InputError for a modality whose name cannot be a column or an id that fits no Delta type, ValueError for arrays that do not fit
    together.
    """
    item_ids = source.array("item_ids")
    meta = rectified.meta
    names, segmented = [str(x) for x in meta["features"]], meta.get("sequences", []) if sequences else []
    modalities = tuple(
        ModalityRows(
            name=name,
            features=rectified.array(f"features-{name}"),
            status=rectified.array(f"status-{name}"),
            trust=rectified.array(f"trust-{name}"),
            sequence=_open_sequence(source, rectified, name) if name in segmented else None,
        )
        for name in names
    )
    for modality in modalities:
        check_shapes(modality, len(item_ids))
    return PublishedRows(
        item_ids=item_ids, modalities=modalities, run_id=run_id, schema=_schema(modalities, _id_type(source.meta["id_type"], item_ids))
    )


def _open_sequence(source: Ref, rectified: Ref, name: str) -> SequenceRows:
    return SequenceRows(
        segments=rectified.array(f"segments-{name}"),
        trust=rectified.array(f"segment_trust-{name}"),
        positions=source.array(f"positions-{name}"),
        offsets=source.array(f"offsets-{name}"),
    )


def _schema(modalities: tuple[ModalityRows, ...], id_type: pa.DataType) -> pa.Schema:
    own = {modality.name: published_fields(modality) for modality in modalities}
    fields = [pa.field("item_id", id_type), *(field for found in own.values() for field in found), pa.field("run_id", pa.string())]
    columns = ["as_of", *(x.name.casefold() for x in fields)]
    for name, found in own.items():
        if _UNUSABLE_NAME.search(name) or any(columns.count(field.name.casefold()) > 1 for field in found):
            raise InputError(
                f"source.modalities.{name}: the name cannot be a column of the published table beside the others; rename the modality"
            )
    return pa.schema(fields)


def _id_type(name: str, item_ids: np.ndarray[Any, Any]) -> pa.DataType:
    if item_ids.dtype.kind in "US":
        return pa.string()
    if item_ids.dtype.kind not in "iu":
        raise InputError(f"source.item_column: an id of type {name} cannot be published; make it a string or an integer")
    given = name if name in _WIDENED or re.fullmatch(r"int(8|16|32|64)", name) else str(item_ids.dtype)
    if item_ids.dtype == np.uint64 and int(item_ids.max(initial=0)) >= 2**63:
        raise InputError("source.item_column: an unsigned id of 2^63 or more fits no Delta type; make the ids strings")
    return pa.type_for_alias(_WIDENED.get(given, given))


def write_files(files: TableFiles, rows: PublishedRows, rows_per_file: int, name: Callable[[int], str]) -> Iterator[WrittenFile]:
    """Write every row, ``rows_per_file`` to a file called ``name(index)``; each file is yielded once it is whole and flushed."""
    for index, part in enumerate(row_blocks(len(rows), rows_per_file)):
        path = name(index)
        with files.create(path) as sink, pq.ParquetWriter(sink, rows.schema, **parquet_options(rows.schema)) as writer:
            for block in _blocks(part, rows.block_rows):
                writer.write_batch(rows.block(block), row_group_size=block.stop - block.start)
        yield WrittenFile(entry=files.entries([path])[path], rows=part)


def parquet_options(schema: pa.Schema) -> dict[str, Any]:
    """How published columns are written as Parquet: see above."""
    small = [x.name for x in schema if not pa.types.is_list(x.type)]
    return {
        "compression": dict.fromkeys(small, "zstd"),
        "use_dictionary": [column for column in small if column == "run_id" or column.endswith("_status")],
        "write_statistics": small,
        "store_schema": False,
    }


def audit_files(files: TableFiles, rows: PublishedRows, written: list[WrittenFile]) -> str:
    """Read back every file and hold it against the run's arrays; the digest of the item ids in their order.

    Raises StorageError naming the first file that does not hold exactly its rows, or holds a value that must not be published.
    """
    if [x.rows.start for x in written] != [0, *(x.rows.stop for x in written[:-1])] or written[-1].rows.stop != len(rows):
        raise StorageError(
            f"table {files.uri}: the files written do not cover the {len(rows)} rows of the run; nothing was published, run again"
        )
    ids = hashlib.blake2b(digest_size=16)
    for file in written:
        fault = _fault(files, rows, file, ids)
        if fault is not None:
            raise StorageError(f"table {files.uri}: {file.path} {fault}; nothing was published; check the disk, then run again")
    return ids.hexdigest()


def _fault(files: TableFiles, rows: PublishedRows, file: WrittenFile, ids: Any) -> str | None:
    with files.open(file.path) as stream, pq.ParquetFile(stream) as parquet:
        blocks = list(_blocks(file.rows, rows.block_rows))
        if not parquet.schema_arrow.equals(rows.schema):
            return "reads back with another schema than was written"
        if parquet.metadata.num_rows != file.rows.stop - file.rows.start or parquet.num_row_groups != len(blocks):
            return f"reads back with {parquet.metadata.num_rows} rows where {file.rows.stop - file.rows.start} were written"
        for group, block in enumerate(blocks):
            read = parquet.read_row_group(group).combine_chunks().to_batches()[0]
            for column in (x for modality in rows.modalities for x in modality.vectors):
                if not np.isfinite(_numbers(read.column(column))).all():
                    return f"holds a value of {column} that is not finite"
            if not read.equals(rows.block(block)):
                return f"reads back with other values than were written, in rows {block.start} to {block.stop}"
            ids.update("".join(f"{item}\0" for item in read.column("item_id").to_pylist()).encode())
    return None


def _numbers(column: pa.Array) -> np.ndarray[Any, Any]:
    while pa.types.is_list(column.type):
        column = column.flatten()
    found: np.ndarray[Any, Any] = column.to_numpy(zero_copy_only=False)
    return found


def _blocks(part: slice, block_rows: int) -> Iterator[slice]:
    for block in row_blocks(part.stop - part.start, block_rows):
        yield slice(part.start + block.start, part.start + block.stop)
