"""The audit of what was written: every file read back and held against the run's arrays, before anything is committed."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from rectifier_core.base.numerics import row_blocks
from tasks.errors import StorageError
from tasks.table.files import TableFiles
from tasks.table.parquet_pages import PageError, vector_pages
from tasks.table.rows import PublishedRows
from tasks.table.write import WrittenFile, blocks_of


def audit_files(files: TableFiles, rows: PublishedRows, written: list[WrittenFile]) -> str:
    """Read back every file, as many at a time as torch has threads, and hold it against the run's arrays; the digest of the item ids in
    their order.

    Raises StorageError naming the first file that does not hold exactly its rows, or holds a value that must not be published.
    """
    if [x.rows.start for x in written] != [0, *(x.rows.stop for x in written[:-1])] or written[-1].rows.stop != len(
        rows
    ):
        raise StorageError(
            f"table {files.uri}: the files written do not cover the {len(rows)} rows of the run; nothing was published, run again"
        )
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        faults = pool.map(lambda file: _fault(files, rows, file), written)
        ids = _ids_digest(rows)
        for file, fault in zip(written, faults, strict=True):
            if fault is not None:
                pool.shutdown(cancel_futures=True)
                raise StorageError(
                    f"table {files.uri}: {file.path} {fault}; nothing was published; check the disk, then run again"
                )
    return ids


def _ids_digest(rows: PublishedRows) -> str:
    ids = hashlib.blake2b(digest_size=16)
    for block in row_blocks(len(rows), rows.block_rows):
        ids.update("\0".join([*map(str, rows.item_ids[block].tolist()), ""]).encode())
    return ids.hexdigest()


def _fault(files: TableFiles, rows: PublishedRows, file: WrittenFile) -> str | None:
    with files.open(file.path) as stream, pq.ParquetFile(stream) as parquet:
        blocks = list(blocks_of(file.rows, rows.block_rows))
        if not parquet.schema_arrow.equals(rows.schema):
            return "reads back with another schema than was written"
        if parquet.metadata.num_rows != file.rows.stop - file.rows.start or parquet.num_row_groups != len(blocks):
            return f"reads back with {parquet.metadata.num_rows} rows where {file.rows.stop - file.rows.start} were written"
        for group, block in enumerate(blocks):
            wanted = rows.block(block)
            fault = _group_fault(stream, parquet, group, wanted, rows)
            if fault is not None:
                return f"{fault}, in rows {block.start} to {block.stop}"
    return None


def _group_fault(
    stream: Any, parquet: pq.ParquetFile, group: int, wanted: pa.RecordBatch, rows: PublishedRows
) -> str | None:
    """What is wrong with one row group: the embeddings read page by page, all else decoded."""
    embeddings = {x.name: x.features.shape[1] for x in rows.modalities if x.features.shape[1]}
    for name in (x for modality in rows.modalities for x in modality.vectors):
        if not _all_finite(_numbers(wanted.column(name))):
            return f"holds a value of {name} that is not finite"
    try:
        same = all(
            _same_vectors(stream, parquet, group, name, width, wanted.column(name))
            for name, width in embeddings.items()
        )
    except PageError as error:
        return f"reads back with other values than were written ({error})"
    others = [x for x in wanted.schema.names if x not in embeddings]
    read = parquet.read_row_group(group, columns=others).select(others).combine_chunks().to_batches()[0]
    return None if same and read.equals(wanted.select(others)) else "reads back with other values than were written"


def _all_finite(numbers: np.ndarray[Any, Any]) -> bool:
    with np.errstate(over="ignore", invalid="ignore"):
        # No sum over a NaN or an infinity is finite; one that is not may have overflowed.
        return bool(np.isfinite(numbers.sum()) or np.isfinite(numbers).all())


def _same_vectors(
    stream: Any, parquet: pq.ParquetFile, group: int, name: str, width: int, wanted: pa.ListArray
) -> bool:
    """Whether the pages of one column hold these rows, bit by bit."""
    path, found = f"{name}.list.element", parquet.metadata.row_group(group)
    at = next(x for x in range(found.num_columns) if found.column(x).path_in_schema == path)
    column = found.column(at)
    if column.has_dictionary_page or column.compression != "UNCOMPRESSED":
        raise PageError(f"{column.compression}, dictionary: {column.has_dictionary_page}")
    stream.seek(column.data_page_offset)
    chunk = stream.read_buffer(column.total_compressed_size)
    given, done = wanted.is_valid().to_numpy(zero_copy_only=False), 0
    numbers = pa.py_buffer(_numbers(wanted))
    for page in vector_pages(chunk, given, width, parquet.schema.column(at).max_definition_level):
        if not page.equals(numbers.slice(done, page.size)):
            return False
        done += page.size
    return bool(done == numbers.size)


def _numbers(column: pa.Array) -> np.ndarray[Any, Any]:
    """The numbers of lists, however deep, side by side."""
    while pa.types.is_list(column.type):
        column = column.flatten()
    found: np.ndarray[Any, Any] = column.to_numpy(zero_copy_only=False)
    return found
