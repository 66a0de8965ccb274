"""Writing the published rows as Parquet files, a block of rows at a time; the same rows give the same bytes.

The writer is Polars': Arrow's makes two levels for every number of a list and encodes them one by one, at three times the cost. It
writes to a path, so that of its threads only the one that asks for the next block ever waits for the interpreter. Nothing is compressed,
which takes two to three times the time to save a tenth of the size of float vectors; short words get a dictionary.
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

from rectifier_core.base.numerics import row_blocks
from tasks.table.files import FileEntry, TableFiles
from tasks.table.rows import PublishedRows


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


def blocks_of(part: slice, block_rows: int) -> Iterator[slice]:
    """The rows of one file, a row group at a time."""
    for block in row_blocks(part.stop - part.start, block_rows):
        yield slice(part.start + block.start, part.start + block.stop)


def write_files(
    files: TableFiles, rows: PublishedRows, rows_per_file: int, name: Callable[[int], str]
) -> Iterator[WrittenFile]:
    """Write every row, ``rows_per_file`` to a file called ``name(index)``; each file is yielded once it is whole and flushed."""
    for index, part in enumerate(row_blocks(len(rows), rows_per_file)):
        path = name(index)
        with files.create(path) as place:
            _write(place, rows, part)
        yield WrittenFile(entry=files.entries([path])[path], rows=part)


def _write(place: Path, rows: PublishedRows, part: slice) -> None:
    def frames(*_: object) -> Iterator[pl.DataFrame]:
        for block in blocks_of(part, rows.block_rows):
            yield pl.DataFrame(pa.Table.from_batches([rows.block(block)]))

    # What Polars would write here has every list and string large; with the table's own schema, whoever reads a file by itself gets that.
    said = {"ARROW:schema": base64.b64encode(rows.schema.serialize().to_pybytes()).decode()}
    source = register_io_source(frames, schema=pl.DataFrame(rows.schema.empty_table()).schema)
    source.sink_parquet(place, compression="uncompressed", row_group_size=rows.block_rows, metadata=said)
