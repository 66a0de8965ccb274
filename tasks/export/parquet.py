"""Export as one plain Parquet file, for readers without Delta: the table's columns, ``as_of`` first, in row groups of equal size."""

from __future__ import annotations

from datetime import date
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rectifier_core.base.numerics import Progress
from tasks.export.write import Export
from tasks.store.store import StageWriter
from tasks.table.snapshot import Snapshot

FILE = "features.parquet"


def parquet_export() -> Export:
    """Return the export of ``--format parquet``."""
    return Export(format="parquet", write=_write)


def _write(snapshot: Snapshot, writer: StageWriter, progress: Progress) -> dict[str, Any]:
    day = pa.scalar(date.fromisoformat(snapshot.day), pa.date32())
    schema = snapshot.schema.insert(0, pa.field("as_of", pa.date32()))
    # Vectors do not compress: plain values cost least to write and to read.
    small = [x.name for x in schema if not pa.types.is_list(x.type)]
    options = {
        "compression": dict.fromkeys(small, "zstd"),
        "use_dictionary": [x for x in small if x == "run_id" or x.endswith("_status")],
        "write_statistics": small,
        "store_schema": False,
    }
    with pq.ParquetWriter(writer.folder / FILE, schema, **options) as sink:
        for block in snapshot.blocks(snapshot.schema.names, progress):
            rows = block.add_column(0, schema.field("as_of"), pa.repeat(day, len(block)))
            sink.write_table(rows, row_group_size=len(rows))
    columns = {x.name: str(x.type).replace("element: ", "").replace("item: ", "") for x in schema}
    return {FILE: {"columns": columns, "rows": snapshot.rows, "rows_per_group": snapshot.block_rows}}
