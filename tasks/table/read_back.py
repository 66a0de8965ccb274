"""Read back every written file and compare it with the run's arrays, before anything is committed."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rectifier_core.base.numerics import row_blocks
from tasks.errors import StorageError
from tasks.source.config import BEHAVIOUR
from tasks.table.files import TableFiles
from tasks.table.rows import PublishedRows
from tasks.table.write import WrittenFile, blocks_of


def audit_files(files: TableFiles, rows: PublishedRows, written: list[WrittenFile]) -> str:
    """Read back every file, as many at a time as torch has threads, and return a digest of the item ids in their order.

    Raises StorageError with the first file that does not hold exactly its rows, or that holds a number that is not finite.
    """
    # Imported here: looking for a published day loads this module, and torch takes a second.
    import torch

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        faults = pool.map(lambda file: _fault(files, rows, file), written)
        ids = hashlib.blake2b(digest_size=16)
        for block in row_blocks(len(rows), rows.block_rows):
            ids.update("\0".join([*map(str, rows.item_ids[block].tolist()), ""]).encode())
        for file, fault in zip(written, faults, strict=True):
            if fault is not None:
                pool.shutdown(cancel_futures=True)
                raise StorageError(
                    f"table {files.uri}: {file.path} {fault}; nothing was published; check the disk, then run again"
                )
    return ids.hexdigest()


def _fault(files: TableFiles, rows: PublishedRows, file: WrittenFile) -> str | None:
    """Return what is wrong with one file, or None."""
    with files.open(file.path) as stream, pq.ParquetFile(stream) as parquet:
        blocks = list(blocks_of(file.rows, rows.block_rows))
        if not parquet.schema_arrow.equals(rows.schema):
            return "reads back with another schema than was written"
        if parquet.metadata.num_rows != file.rows.stop - file.rows.start or parquet.num_row_groups != len(blocks):
            return f"reads back with {parquet.metadata.num_rows} rows where {file.rows.stop - file.rows.start} were written"
        for group, block in enumerate(blocks):
            wanted, place = rows.block(block), f"in rows {block.start} to {block.stop}"
            names = [BEHAVIOUR, *(x for m in rows.modalities for x in (m.name, f"{m.name}_segments"))]
            for name in names:
                if name in wanted.schema.names and not np.isfinite(_numbers(wanted.column(name))).all():
                    return f"holds a value of {name} that is not finite, {place}"
            if not parquet.read_row_group(group).combine_chunks().to_batches()[0].equals(wanted):
                return f"reads back with other values than were written, {place}"
    return None


def _numbers(column: pa.Array) -> np.ndarray[Any, Any]:
    """Return the numbers of nested lists as one array."""
    while pa.types.is_list(column.type):
        column = column.flatten()
    numbers: np.ndarray[Any, Any] = column.to_numpy(zero_copy_only=False)
    return numbers
