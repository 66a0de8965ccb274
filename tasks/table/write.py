"""Write the published rows as Parquet files, a block of rows at a time. The same rows give the same bytes.

Polars writes lists of numbers three times as fast as Arrow. Nothing is compressed: that takes two to three times as long and saves a tenth
of the size of float vectors.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pyarrow as pa
from polars.io.plugins import register_io_source
from pyarrow import fs

from rectifier_core.base.numerics import row_blocks
from tasks.table.files import TableFiles
from tasks.table.rows import PublishedRows


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenFile:
    """One data file, and its rows among the run's."""

    info: fs.FileInfo
    rows: slice

    @property
    def path(self) -> str:
        """The file's path in the table."""
        return str(self.info.path)

    @property
    def stats(self) -> str:
        """The Delta statistics of the file as JSON: its number of rows only.

        If one column had bounds, delta-rs would tell pyarrow that every other column is null, and filters would miss rows. Row groups have
        bounds of their own in the file.
        """
        return json.dumps({"numRecords": self.rows.stop - self.rows.start})


def blocks_of(part: slice, block_rows: int) -> Iterator[slice]:
    """Yield the rows of one file, a row group at a time."""
    for block in row_blocks(part.stop - part.start, block_rows):
        yield slice(part.start + block.start, part.start + block.stop)


def write_files(
    files: TableFiles, rows: PublishedRows, rows_per_file: int, name: Callable[[int], str]
) -> Iterator[WrittenFile]:
    """Write all rows, ``rows_per_file`` to a file called ``name(index)``. Yield each file when it is complete and flushed."""
    for index, part in enumerate(row_blocks(len(rows), rows_per_file)):
        path = name(index)
        with files.create(path) as place:
            _write(place, rows, part)
        yield WrittenFile(info=files.entries([path])[path], rows=part)


def _write(place: Path, rows: PublishedRows, part: slice) -> None:
    def frames(*_: object) -> Iterator[pl.DataFrame]:
        for block in blocks_of(part, rows.block_rows):
            yield pl.DataFrame(pa.Table.from_batches([rows.block(block)]))

    # Polars would name every list and string type large. Readers of a single file must get the table's types.
    metadata = {"ARROW:schema": base64.b64encode(rows.schema.serialize().to_pybytes()).decode()}
    source = register_io_source(frames, schema=pl.DataFrame(rows.schema.empty_table()).schema)
    source.sink_parquet(place, compression="uncompressed", row_group_size=rows.block_rows, metadata=metadata)
