"""The results of a grid as files: one row a cell, one row a cell and user, what took how long, and a summary.

``results.parquet`` and ``per_user.parquet`` are the same bytes whenever the same cells are evaluated by the same code; seconds lie apart,
in ``timings.parquet``, with what else differs from run to run in ``summary.json``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.evaluation.arrays import facts_of
from tasks.evaluation.grid import Cell, Grid
from tasks.evaluation.work_items import TIMING
from tasks.store.atomic_files import write_whole
from tasks.store.store import Ref, plain

RESULTS, PER_USER, TIMINGS, SUMMARY = "results.parquet", "per_user.parquet", "timings.parquet", "summary.json"
PER_USER_METRICS = ("recall@20", "ndcg@20")
BATCH_CELLS = 100


def write_results(folder: Path, grid: Grid, cells: Mapping[Cell, Ref], made: Mapping[Cell, Sequence[Ref]]) -> Path:
    """Write the three tables of the cells that are done; returns the path of the first.

    A row names its cell, what the trial was of (see ``Cell``), every metric, how many epochs were run and which was kept, what the outputs
    ``made`` for the cell say of themselves, and ``digest``, which stands for everything that the numbers depend on. Raises StorageError
    when the disk refuses.
    """
    done = [cell for cell in grid.cells if cell in cells]
    rows = [_row(cell, cells[cell], made.get(cell, ())) for cell in done]
    names = list(dict.fromkeys(name for row in rows for name in row))
    table = pa.table({name: [row.get(name) for row in rows] for name in names})
    timings = pa.table(
        {"cell": [x.name for x in done], "seconds": pa.array([_seconds(cells[x]) for x in done], pa.float64())}
    )
    _write(folder / TIMINGS, lambda path: pq.write_table(timings, path))
    _write(folder / PER_USER, lambda path: _write_users(path, {cell.name: cells[cell] for cell in done}))
    _write(folder / RESULTS, lambda path: pq.write_table(table, path, compression="zstd"))
    return folder / RESULTS


def write_summary(folder: Path, summary: Mapping[str, Any]) -> Path:
    """Write what a run says of itself as ``summary.json``."""
    text = json.dumps(plain(summary), indent=1, allow_nan=False)
    _write(folder / SUMMARY, lambda path: path.write_text(text))
    return folder / SUMMARY


def _row(cell: Cell, ref: Ref, made: Sequence[Ref]) -> dict[str, Any]:
    meta = ref.meta
    told = {name: value for part in made for name, value in facts_of(part).items() if name not in meta["metrics"]}
    return {
        "cell": cell.name,
        "backbone": cell.backbone,
        "damaged": cell.damage.damaged,
        "kind": cell.damage.kind,
        "share": float(cell.damage.share),
        "noise_kind": cell.noise.kind,
        "noise_share": float(cell.noise.share),
        "variant": cell.variant,
        "editing": cell.editing,
        "seed": cell.seed,
        **{name: None if value is None else float(value) for name, value in meta["metrics"].items()},
        "epochs": int(meta["epochs"]),
        "best_epoch": int(meta["best_epoch"]),
        **{name: None if value is None else float(value) for name, value in told.items()},
        "digest": Path(ref.path).name.rpartition("-")[2],
    }


def _seconds(ref: Ref) -> float:
    return float(json.loads(ref.file(TIMING).read_text())["seconds"])


def _write_users(path: Path, cells: Mapping[str, Ref]) -> None:
    fields = [("cell", pa.string()), ("user", pa.int32()), *((name, pa.float32()) for name in PER_USER_METRICS)]
    schema, names = pa.schema(fields), list(cells)
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for first in range(0, len(names), BATCH_CELLS):
            parts = [_user_rows(name, cells[name], schema) for name in names[first : first + BATCH_CELLS]]
            writer.write_table(pa.concat_tables(parts))


def _user_rows(name: str, ref: Ref, schema: pa.Schema) -> pa.Table:
    users = ref.array("users")
    columns = [
        pa.repeat(name, len(users)),
        pa.array(users),
        *(pa.array(ref.array(metric)) for metric in PER_USER_METRICS),
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def _write(path: Path, write: Callable[[Path], Any]) -> None:
    write_whole(path, write, failed="{path}: cannot be written: {why}; fix the disk, then run again")
