"""The demo's Parquet files, written a row group at a time."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from rectifier_core.base.arrays import Float64, Int64
from rectifier_core.base.numerics import Progress, row_blocks
from tasks.demo.config import MODALITIES, ROW_FAULTS, DemoConfig
from tasks.demo.counter_random import permuted, stream, uniforms
from tasks.demo.features import Features
from tasks.demo.sequences import SEQUENCE_TYPE, Sequences, Splices, sequence_column
from tasks.demo.truth import PLACEHOLDER, Fault, PlantedTruth
from tasks.demo.world import CATEGORIES, DemoWorld, Events, draw_events

LAST_DAY: Final = date(2026, 6, 30)
POSITIVE_RATING: Final = 4
CATALOG_GROUP_ROWS: Final = 8192
CATALOG_FILE_ROWS: Final = 32 * CATALOG_GROUP_ROWS
LOG_GROUP_ROWS: Final = 131_072
LOG_BLOCK_ROWS: Final = 16_384

_MICROSECONDS_A_DAY = 86_400_000_000
_EMBEDDING = pa.list_(pa.float32())
_CATALOG = pa.schema(
    [("item_id", pa.string()), ("title", pa.string()), ("category", pa.string())]
    + [(f"{m}_embedding", _EMBEDDING) for m in MODALITIES]
)
_LOG = pa.schema(
    [
        ("user_id", pa.int64()),
        ("item_id", pa.string()),
        ("rating", pa.float32()),
        ("event_time", pa.timestamp("us", tz="UTC")),
    ]
)


def item_ids(items: Int64, prefix: str = "item") -> pa.Array:
    """Ids such as ``item-0000042``."""
    digits = pc.utf8_lpad(pa.array(items).cast(pa.string()), 7, "0")
    return pc.binary_join_element_wise(prefix, digits, "-")


def write_catalog(
    folder: Path,
    world: DemoWorld,
    truth: PlantedTruth,
    progress: Progress,
    sequences: Mapping[str, Sequences] | None = None,
    splices: Mapping[str, Splices] | None = None,
) -> int:
    """Write ``part-*.parquet`` and return the number of rows: all listed items in order, then the rows that repeat an id or have none."""
    sequences, splices = sequences or {}, splices or {}
    faults = [fault for fault in truth.faults if fault.kind in ROW_FAULTS]
    listed = np.delete(np.arange(world.config.items), truth.delisted)
    rows = np.concatenate([listed, np.array([fault.item for fault in faults], dtype=np.int64)])
    nameless = np.concatenate(
        [np.zeros(len(listed), dtype=np.bool_), np.array([fault.kind == "null_id" for fault in faults])]
    )
    features = {m: Features(world.config.seed, m, world.config.widths[m], world.taste) for m in MODALITIES}
    schema = pa.schema([*_CATALOG, *(pa.field(f"{m}_embedding", SEQUENCE_TYPE) for m in sequences)])
    folder.mkdir(parents=True)
    for number, part in enumerate(row_blocks(len(rows), CATALOG_FILE_ROWS)):
        with closing(_writer(folder / f"part-{number:05d}.parquet", schema, ["category"])) as writer:
            for start in range(part.start, part.stop, CATALOG_GROUP_ROWS):
                block = slice(start, min(start + CATALOG_GROUP_ROWS, part.stop))
                table = _catalog_rows(rows[block], nameless[block], world, truth, features)
                for m, made in sequences.items():
                    table = table.append_column(
                        schema.field(f"{m}_embedding"), sequence_column(rows[block], made, splices[m])
                    )
                writer.write_table(table)
                progress("catalog", block.stop, len(rows))
    return len(rows)


def _catalog_rows(
    rows: Int64, nameless: NDArray[np.bool_], world: DemoWorld, truth: PlantedTruth, features: Mapping[str, Features]
) -> pa.Table:
    names = pa.array([name for name, _ in CATEGORIES])
    columns = {
        "item_id": pc.if_else(pa.array(nameless), pa.scalar(None, pa.string()), item_ids(rows)),
        "title": pa.array([world.title(item) for item in rows.tolist()]),
        "category": names.take(pa.array(world.category[rows])),
    }
    here = set(rows.tolist())
    for m in MODALITIES:
        broken = [fault for fault in truth.faults if fault.modality == m and fault.item in here]
        takes = truth.take[m][rows] if m in truth.take else np.zeros(len(rows), np.int64)
        columns[f"{m}_embedding"] = _embeddings(rows, truth.owner[m][rows].astype(np.int64), takes, features[m], broken)
    return pa.table(columns, schema=_CATALOG)


def _embeddings(rows: Int64, owner: Int64, takes: Int64, features: Features, broken: list[Fault]) -> pa.Array:
    stock, present = owner == PLACEHOLDER, (owner >= 0) | (owner == PLACEHOLDER)
    vectors = features.rows(np.where(stock, 0, owner)[present], takes[present])
    if stock.any():
        vectors[stock[present]] = features.placeholder()
    kept = np.ones(vectors.shape, dtype=np.bool_)
    place = np.cumsum(present) - 1
    for fault in broken:
        row = place[np.flatnonzero(rows == fault.item)[0]]
        _break(fault.kind, vectors[row], kept[row])
    lengths = np.zeros(len(rows), dtype=np.int32)
    lengths[present] = kept.sum(axis=1)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    values = vectors.ravel() if kept.all() else vectors[kept]
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values), mask=pa.array(~present))


def _break(kind: str, vector: NDArray[np.float32], kept: NDArray[np.bool_]) -> None:
    width = len(vector)
    if kind == "nan":
        vector[width // 3] = np.nan
    elif kind == "infinite":
        vector[width // 3] = np.inf
    elif kind == "zero_norm":
        vector[:] = 0
    else:
        kept[width // 2 :] = False


FAULT_DETAILS: Final[Mapping[str, str]] = {
    "duplicate_id": "the row stands twice, the second time at the end of the catalog",
    "null_id": "a copy of this item's row stands at the end of the catalog with no id",
    "nan": "one value is NaN",
    "infinite": "one value is infinite",
    "zero_norm": "every value is zero",
    "wrong_width": "the second half of the vector is cut off",
}


def write_truth(folder: Path, truth: PlantedTruth) -> None:
    """Write ``mismatches.parquet``, ``placeholders.parquet`` and ``broken.parquet`` into an existing folder."""
    swapped = [(m, truth.mismatched(m)) for m in MODALITIES]
    pq.write_table(
        pa.table(
            {
                "item_id": pa.chunked_array([item_ids(items) for _, items in swapped]),
                "modality": [m for m, items in swapped for _ in range(len(items))],
                "owner_item_id": pa.chunked_array(
                    [item_ids(truth.owner[m][items].astype(np.int64)) for m, items in swapped]
                ),
            }
        ),
        folder / "mismatches.parquet",
    )
    stock = truth.placeholders("image")
    pq.write_table(
        pa.table({"item_id": item_ids(stock), "modality": ["image"] * len(stock)}), folder / "placeholders.parquet"
    )
    broken = {
        "item_id": item_ids(np.array([fault.item for fault in truth.faults], dtype=np.int64)),
        "modality": pa.array([fault.modality for fault in truth.faults], pa.string()),
        "kind": [fault.kind for fault in truth.faults],
        "detail": [FAULT_DETAILS[fault.kind] for fault in truth.faults],
    }
    pq.write_table(pa.table(broken), folder / "broken.parquet")


def write_interactions(folder: Path, world: DemoWorld, progress: Progress) -> dict[str, int]:
    """Write ``dt=YYYY-MM-DD/part-0.parquet`` for every day and return what was written, counted: rows by their fault, and cold items."""
    config = world.config
    bounds = np.rint(_share_by_end_of_day(config.days) * config.num_interactions).astype(np.int64)
    counts = dict.fromkeys(("rows", "unknown_item", "null_user", "positive"), 0)
    touched = np.zeros(config.items, dtype=np.bool_)
    for number in range(config.days):
        day = LAST_DAY - timedelta(days=config.days - 1 - number)
        write_events(folder, world, day, slice(int(bounds[number]), int(bounds[number + 1])), counts, touched)
        progress("interactions", number + 1, config.days)
    return counts | {"items_without_interactions": int(np.count_nonzero(~touched))}


def write_events(
    folder: Path, world: DemoWorld, day: date, events: slice, counts: dict[str, int], touched: NDArray[np.bool_]
) -> None:
    """Write the day's events, by their running numbers, as ``dt=YYYY-MM-DD/part-0.parquet``; add to ``counts``, mark items ``touched``."""
    home = folder / f"dt={day.isoformat()}"
    home.mkdir(parents=True)
    with closing(_writer(home / "part-0.parquet", _LOG, ["item_id", "rating"])) as writer:
        for start in range(events.start, events.stop, LOG_GROUP_ROWS):
            numbers = np.arange(start, min(start + LOG_GROUP_ROWS, events.stop))
            writer.write_table(
                _log_rows(
                    world, numbers, _times(world.config, day, numbers, events.start, events.stop), counts, touched
                )
            )


def _share_by_end_of_day(days: int) -> Float64:
    """The share of all events before each midnight, [days + 1]: weekends are busier by a third."""
    weekdays = np.array([(LAST_DAY - timedelta(days=days - 1 - number)).weekday() for number in range(days)])
    busy = np.where(weekdays >= 5, 4.0, 3.0)
    shares: Float64 = np.concatenate([[0.0], np.cumsum(busy)]) / busy.sum()
    return shares


def _times(config: DemoConfig, day: date, numbers: Int64, first: int, last: int) -> Int64:
    """Microseconds since the epoch, growing with the number. int64."""
    midnight = int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * 1_000_000
    place = (numbers - first + uniforms(stream(config.seed, "time"), numbers)) / (last - first)
    return midnight + (place * _MICROSECONDS_A_DAY).astype(np.int64)


def _log_rows(
    world: DemoWorld, numbers: Int64, times: Int64, counts: dict[str, int], touched: NDArray[np.bool_]
) -> pa.Table:
    config = world.config
    drawn = [draw_events(world, numbers[block]) for block in row_blocks(len(numbers), LOG_BLOCK_ROWS)]
    events = Events(
        users=np.concatenate([x.users for x in drawn]),
        items=np.concatenate([x.items for x in drawn]),
        ratings=np.concatenate([x.ratings for x in drawn]),
    )
    order, own = numbers.copy(), numbers < config.num_interactions
    order[own] = permuted(stream(config.seed, "broken-log"), config.num_interactions, numbers[own])
    unknown, nobody = (((order < config.broken_interactions) & (order % 2 == odd)) for odd in (0, 1))
    sound = ~(unknown | nobody)
    touched[events.items[sound]] = True
    counts["rows"] += len(numbers)
    counts["unknown_item"] += int(unknown.sum())
    counts["null_user"] += int(nobody.sum())
    counts["positive"] += int((events.ratings[sound] >= POSITIVE_RATING).sum())
    return pa.table(
        {
            "user_id": pa.array(events.users, mask=nobody),
            "item_id": pc.if_else(pa.array(unknown), item_ids(events.items, "delisted"), item_ids(events.items)),
            "rating": events.ratings,
            "event_time": pa.array(times).cast(_LOG.field("event_time").type),
        },
        schema=_LOG,
    )


def _writer(path: Path, schema: pa.Schema, repetitive: list[str]) -> pq.ParquetWriter:
    return pq.ParquetWriter(path, schema, compression="snappy", use_dictionary=repetitive)
