"""Export as one plain Parquet file, for readers that know no Delta: the table's columns, ``as_of`` first, in row groups of one size."""

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
    """``--format parquet``."""
    return Export(format="parquet", write=_write)


def _write(snapshot: Snapshot, writer: StageWriter, progress: Progress) -> dict[str, Any]:
    day = pa.scalar(date.fromisoformat(snapshot.day), pa.date32())
    schema = snapshot.schema.insert(0, pa.field("as_of", pa.date32()))
    groups = 0
    with pq.ParquetWriter(writer.folder / FILE, schema, **_options(schema)) as sink:
        for block in snapshot.blocks(snapshot.schema.names, progress):
            rows = block.add_column(0, schema.field("as_of"), pa.repeat(day, len(block)))
            sink.write_table(rows, row_group_size=len(rows))
            groups += 1
    columns = {x.name: str(x.type).replace("element: ", "").replace("item: ", "") for x in schema}
    return {
        FILE: {"columns": columns, "rows": snapshot.rows, "row_groups": groups, "rows_per_group": snapshot.block_rows}
    }


def _options(schema: pa.Schema) -> dict[str, Any]:
    """Vectors plain, which costs least to write and to read; the small columns compressed and with statistics."""
    small = [x.name for x in schema if not pa.types.is_list(x.type)]
    return {
        "compression": dict.fromkeys(small, "zstd"),
        "use_dictionary": [column for column in small if column == "run_id" or column.endswith("_status")],
        "write_statistics": small,
        "store_schema": False,
    }
