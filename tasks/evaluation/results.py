"""Write the results of a grid as files, and read them back by condition.

``results.parquet`` has one row a cell, ``per_user.parquet`` one row a cell and user. Both have the same bytes whenever the same code evaluates
the same cells. ``timings.parquet`` and ``summary.json`` hold what differs from run to run.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from rectifier_core.base.arrays import Float64
from tasks.errors import InputError
from tasks.evaluation.arrays import facts_of
from tasks.evaluation.config import ALL, BACKBONES, NONE
from tasks.evaluation.grid import RECTIFIED_APPENDED, Cell, Condition, Grid
from tasks.evaluation.work_items import TIMING
from tasks.store.atomic_files import write_text, write_whole
from tasks.store.store import Ref, plain

RESULTS, PER_USER, TIMINGS, SUMMARY = "results.parquet", "per_user.parquet", "timings.parquet", "summary.json"
RECALL, NDCG = "recall@20", "ndcg@20"
PER_USER_METRICS = (RECALL, NDCG)
CONTROLS = ("shuffled_anchors", "smoothed", "smoothed_by_anchors", "anchors_appended")
BATCH_CELLS = 100


def write_results(folder: Path, grid: Grid, cells: Mapping[Cell, Ref], made: Mapping[Cell, Sequence[Ref]]) -> Path:
    """Write the three tables of the finished ``cells`` and return the path of ``results.parquet``.

    A row has the cell's name and settings, every metric, the epochs run and the one kept, the facts of the outputs in ``made``, and
    ``digest``, a hash of everything that the numbers depend on. Raises StorageError if a file cannot be written.
    """
    done = [cell for cell in grid.cells if cell in cells]
    rows = [_row(cell, cells[cell], made.get(cell, ())) for cell in done]
    names = list(dict.fromkeys(name for row in rows for name in row))
    table = pa.table({name: [row.get(name) for row in rows] for name in names})
    timings = pa.table(
        {"cell": [x.name for x in done], "seconds": pa.array([_seconds(cells[x]) for x in done], pa.float64())}
    )
    write_whole(folder / TIMINGS, lambda path: pq.write_table(timings, path))
    write_whole(folder / PER_USER, lambda path: _write_users(path, {cell.name: cells[cell] for cell in done}))
    write_whole(folder / RESULTS, lambda path: pq.write_table(table, path, compression="zstd"))
    return folder / RESULTS


def write_summary(folder: Path, summary: Mapping[str, Any]) -> Path:
    """Write ``summary`` as ``summary.json`` and return its path."""
    text = json.dumps(plain(summary), indent=1, allow_nan=False)
    write_text(folder / SUMMARY, text)
    return folder / SUMMARY


def _row(cell: Cell, ref: Ref, made: Sequence[Ref]) -> dict[str, Any]:
    meta = ref.meta
    facts = {name: value for part in made for name, value in facts_of(part).items() if name not in meta["metrics"]}
    return {
        "cell": cell.name,
        **asdict(cell),
        **{name: None if value is None else float(value) for name, value in meta["metrics"].items()},
        "epochs": int(meta["epochs"]),
        "best_epoch": int(meta["best_epoch"]),
        **{name: None if value is None else float(value) for name, value in facts.items()},
        "digest": Path(ref.path).name.rpartition("-")[2],
    }


def _seconds(ref: Ref) -> float:
    return float(json.loads(ref.file(TIMING).read_text(encoding="utf-8"))["seconds"])


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """``metrics[condition][seed][name]`` of every finished cell, and ``users[condition][seed]``: user numbers and values by metric."""

    metrics: Mapping[Condition, Mapping[int, Mapping[str, float]]]
    users: Mapping[Condition, Mapping[int, tuple[np.ndarray[Any, Any], Mapping[str, Float64]]]]
    num_users: int

    @property
    def conditions(self) -> list[Condition]:
        """All conditions in display order."""
        return sorted(self.metrics, key=_display_order)

    def seeds(self, *conditions: Condition, metric: str = RECALL) -> list[int]:
        """The seeds for which all of ``conditions`` have ``metric``."""
        found = [{seed for seed, row in self.metrics[c].items() if metric in row} for c in conditions]
        return sorted(set.intersection(*found))

    def by_seed(self, condition: Condition, metric: str, seeds: Iterable[int]) -> Float64:
        """``metric`` of each seed: [S]."""
        return np.array([self.metrics[condition][seed][metric] for seed in seeds])

    def by_user(self, condition: Condition, metric: str, seeds: Sequence[int]) -> Float64:
        """``metric`` of each seed and user: [S, N], NaN where a user was not tested."""
        table = np.full((len(seeds), self.num_users), np.nan)
        for row, seed in zip(table, seeds, strict=True):
            users, values = self.users[condition][seed]
            row[users] = values[metric]
        return table


def _display_order(x: Condition) -> tuple[Any, ...]:
    """Settings from mild to strong, raw first, then rectified, controls, and the rest."""
    variants = ("raw", "rectified", *CONTROLS, RECTIFIED_APPENDED)
    return (
        BACKBONES.index(x.backbone),
        (x.kind, x.damaged != ALL, x.damaged, x.share, x.noise_kind, x.noise_share),
        variants.index(x.variant) if x.variant in variants else len(variants),
        (x.variant, x.editing != NONE, x.editing),
    )


def read_results(path: Path) -> Results:
    """Read ``results.parquet`` and the ``per_user.parquet`` beside it.

    Raises InputError, with file and column, for a file that is missing, is not Parquet, lacks a column, or has no row.
    """
    names = [field.name for field in fields(Condition)]
    frame = _read(path, ("cell", "seed", RECALL, *names))
    metrics: dict[Condition, dict[int, dict[str, float]]] = {}
    cells: dict[str, tuple[Condition, int]] = {}
    for row in frame.iter_rows(named=True):
        condition, seed = Condition(**{name: row.pop(name) for name in names}), row.pop("seed")
        cells[row["cell"]] = (condition, seed)
        values = {name: float(x) for name, x in row.items() if isinstance(x, (int, float)) and math.isfinite(x)}
        metrics.setdefault(condition, {})[seed] = values
    users = _read(path.with_name(PER_USER), ("cell", "user", *PER_USER_METRICS))
    users = users.with_columns((pl.col("user").rank("dense") - 1).cast(pl.Int64))
    per_user: dict[Condition, dict[int, Any]] = {}
    for (cell,), part in users.partition_by("cell", as_dict=True).items():
        condition, seed = cells[str(cell)]
        columns = {name: part[name].cast(pl.Float64).to_numpy() for name in PER_USER_METRICS}
        per_user.setdefault(condition, {})[seed] = (part["user"].to_numpy(), columns)
    return Results(metrics=metrics, users=per_user, num_users=users["user"].n_unique())


def _read(path: Path, columns: Iterable[str]) -> pl.DataFrame:
    try:
        frame = pl.read_parquet(path)
    except (OSError, pl.exceptions.PolarsError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{path}: cannot be read as Parquet ({reason}); run the evaluation first") from error
    missing = [name for name in columns if name not in frame.columns]
    if missing:
        raise InputError(f"{path}: lacks the column {missing[0]!r}; wanted the results that the evaluation writes")
    if not frame.height:
        raise InputError(f"{path}: no cell is finished yet; run the evaluation again")
    return frame
