"""A small catalog and log on real Parquet files, for the tests of reading."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.source.read import SourceConfig, read_source
from tasks.store.store import Ref, StageStore

DAY = date(2024, 3, 10)
NUM_ITEMS = 12
IDS = [f"i{x:02d}" for x in range(NUM_ITEMS)]


def instant(day: int, hour: int = 12) -> datetime:
    """An instant of March 2024, UTC."""
    return datetime(2024, 3, day, hour, tzinfo=UTC)


def image_rows(num_items: int = NUM_ITEMS, width: int = 6) -> list[list[float] | None]:
    """Embeddings that half precision holds exactly; the item at index 3 has none."""
    rows = np.random.default_rng(1).integers(1, 60, (num_items, width)) / 4
    return [None if i == 3 else row.tolist() for i, row in enumerate(rows)]


def catalog_table(**changed: Any) -> pa.Table:
    """Twelve items with image, text, title and genres; ``changed`` replaces or adds columns."""
    text = np.random.default_rng(2).standard_normal((NUM_ITEMS, 4)).astype(np.float32)
    columns: dict[str, Any] = {
        "item_id": IDS,
        "title": [f"Title {x}" for x in IDS],
        "genres": [["drama", "war"] if i % 2 else ["comedy"] for i in range(NUM_ITEMS)],
        "image": pa.array(image_rows(), pa.list_(pa.float32())),
        "text": pa.array(text.tolist(), pa.list_(pa.float32())),
        "unread": ["x"] * NUM_ITEMS,
    }
    return pa.table(columns | changed)


def log_table(**changed: Any) -> pa.Table:
    """Forty interactions of five users from the 1st to the 10th of March 2024, in the order of time; four are dislikes."""
    rows = range(40)
    columns: dict[str, Any] = {
        "user_id": [f"u{r % 5}" for r in rows],
        "item_id": [IDS[(r * 7) % NUM_ITEMS] for r in rows],
        "rating": [2.0 if r % 5 == 4 and r % 2 else 5.0 for r in rows],
        "event_time": pa.array([instant(1 + r // 4, r % 24) for r in rows], pa.timestamp("us", tz="UTC")),
        "kind": ["buy" if r % 3 else "view" for r in rows],
    }
    return pa.table(columns | changed)


def write(table: pa.Table, path: Path, **options: Any) -> Path:
    """Write one Parquet file, with its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, **options)
    return path


def write_by_day(table: pa.Table, folder: Path, *, keep_column: bool = True) -> Path:
    """Write a log as ``dt=`` partitions by the day of its event time."""
    days = table.column("event_time").cast(pa.date32()).to_pylist()
    for day in sorted(set(days)):
        part = table.filter(pa.array([x == day for x in days]))
        write(part if keep_column else part.drop_columns(["event_time"]), folder / f"dt={day}" / "part-0.parquet")
    return folder


def source_config(folder: Path | str, **changed: Any) -> SourceConfig:
    """The config of ``folder``/catalog.parquet and ``folder``/log.parquet."""
    values: dict[str, Any] = {
        "catalog": f"{folder}/catalog.parquet",
        "interactions": f"{folder}/log.parquet",
        "item_column": "item_id",
        "user_column": "user_id",
        "time_column": "event_time",
        "modalities": {"image": "image", "text": "text"},
    }
    return SourceConfig(**values | changed)


def sample(folder: Path, catalog: pa.Table | None = None, log: pa.Table | None = None, **changed: Any) -> SourceConfig:
    """Write the catalog and the log as single files, and return the config that reads them."""
    write(catalog_table() if catalog is None else catalog, folder / "catalog.parquet")
    write(log_table() if log is None else log, folder / "log.parquet")
    return source_config(folder, **changed)


def read(config: SourceConfig, folder: Path, as_of: date = DAY) -> Ref:
    """Read into a store under ``folder``."""
    return read_source(config, as_of, StageStore(folder / "stages"))


def quarantined(ref: Ref, what: str) -> list[dict[str, Any]]:
    """The rows of one quarantine file."""
    found: list[dict[str, Any]] = pq.read_table(ref.file(f"quarantine-{what}.parquet")).to_pylist()
    return found
