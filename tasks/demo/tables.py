"""The demo's Parquet files, written one row group at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rectifier_core.base.arrays import Bool, Float32, Int64
from rectifier_core.base.numerics import Progress, row_blocks
from rectifier_core.base.seeding import generator
from tasks.demo.config import MODALITIES, ROW_FAULTS, SEQUENCES, DemoConfig
from tasks.demo.features import Features
from tasks.demo.truth import PLACEHOLDER, Fault, PlantedTruth, Splices
from tasks.demo.world import CATEGORIES, DemoWorld, draw_events

LAST_DAY: Final = date(2026, 6, 30)
POSITIVE_RATING: Final = 4

_CATALOG_GROUP_ROWS = 8192
_CATALOG_FILE_ROWS = 32 * _CATALOG_GROUP_ROWS
_LOG_GROUP_ROWS = 131_072
_BROKEN_LOG_SHARE = 0.003
_DAY = 86_400_000_000  # microseconds
_VECTORS = pa.list_(pa.float32())
_LOG = pa.schema(
    {"user_id": pa.int64(), "item_id": pa.string(), "rating": pa.float32(), "event_time": pa.timestamp("us", tz="UTC")}
)
FAULT_DETAILS: Final = {
    "duplicate_id": "the row is there twice, the second time at the end of its file",
    "null_id": "a copy of this item's row without an id is at the end of the catalog",
    "nan": "one value is NaN",
    "infinite": "one value is infinite",
    "zero_norm": "every value is zero",
    "wrong_width": "the second half of the vector is missing",
}


def item_ids(items: Int64, prefix: str = "item") -> pa.Array:
    """Ids such as ``item-0000042``."""
    digits = pc.utf8_lpad(pa.array(items).cast(pa.string()), 7, "0")
    return pc.binary_join_element_wise(prefix, digits, "-")


def write_catalog(
    folder: Path, world: DemoWorld, truth: PlantedTruth, splices: Mapping[str, Splices], progress: Progress
) -> int:
    """Write ``part-*.parquet`` and return the number of rows: the listed items in order, then rows that repeat an id or have none."""
    faults = [fault for fault in truth.faults if fault.kind in ROW_FAULTS]
    listed = np.flatnonzero(truth.listed)
    # A row that repeats an id lies in the file of the first: the reader refuses an id in two files.
    file_of = np.searchsorted(listed, [fault.item for fault in faults]) // _CATALOG_FILE_ROWS
    features = {m: Features(world.config, m, world.taste) for m in (*MODALITIES, *splices)}
    schema = pa.schema(
        {"item_id": pa.string(), "title": pa.string(), "category": pa.string()}
        | {f"{m}_embedding": pa.list_(_VECTORS) if m in splices else _VECTORS for m in features}
    )
    names = pa.array([name for name, _ in CATEGORIES])
    folder.mkdir(parents=True)
    total, done = len(listed) + len(faults), 0
    for number, part in enumerate(row_blocks(len(listed), _CATALOG_FILE_ROWS)):
        added = [fault for fault, file in zip(faults, file_of, strict=True) if file == number]
        rows = np.concatenate([listed[part], np.array([fault.item for fault in added], dtype=np.int64)])
        nameless = np.arange(len(rows)) >= len(rows) - len(added)
        nameless[len(rows) - len(added) :] = [fault.kind == "null_id" for fault in added]
        with pq.ParquetWriter(folder / f"part-{number:05d}.parquet", schema, use_dictionary=["category"]) as writer:
            for start in range(0, len(rows), _CATALOG_GROUP_ROWS):
                stop = min(start + _CATALOG_GROUP_ROWS, len(rows))
                items, unnamed = rows[start:stop], pa.array(nameless[start:stop])
                columns = {
                    "item_id": pc.if_else(unnamed, pa.scalar(None, pa.string()), item_ids(items)),
                    "title": pa.array([world.title(item) for item in items.tolist()]),
                    "category": names.take(pa.array(world.category[items])),
                }
                for m in MODALITIES:
                    columns[f"{m}_embedding"] = _vector_column(items, m, truth, features[m])
                for m, spliced in splices.items():
                    columns[f"{m}_embedding"] = _sequence_column(items, spliced, features[m])
                writer.write_table(pa.table(columns, schema=schema))
                progress("catalog", done + stop, total)
        done += len(rows)
    return done


def _vector_column(items: Int64, modality: str, truth: PlantedTruth, features: Features) -> pa.Array:
    owner, take = truth.owner[modality][items], truth.take[modality][items]
    stock, present = owner == PLACEHOLDER, (owner >= 0) | (owner == PLACEHOLDER)
    vectors = features.rows(np.where(stock, 0, owner)[present], take[present])
    if stock.any():
        vectors[stock[present]] = features.placeholder()
    kept = np.ones(vectors.shape, np.bool_)
    faults = {fault.item: fault for fault in truth.faults if fault.modality == modality}
    for row in np.flatnonzero(np.isin(items[present], list(faults))):
        _break(faults[int(items[present][row])], vectors[row], kept[row])
    lengths = np.zeros(len(items), np.int64)
    lengths[present] = kept.sum(axis=1)
    return _lists(lengths, pa.array(vectors[kept]), present)


def _sequence_column(items: Int64, splices: Splices, features: Features) -> pa.Array:
    _, _, owner, time = splices.segments_of(items)
    segments = features.segments(owner, time)
    present = splices.present[items]
    inner = _lists(np.full(len(segments), features.width), pa.array(segments.ravel()), np.ones(len(segments), np.bool_))
    return _lists(np.where(present, splices.lengths[items], 0), inner, present)


def _lists(lengths: Int64, values: pa.Array, present: Bool) -> pa.Array:
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), values, mask=pa.array(~present))


def _break(fault: Fault, vector: Float32, kept: Bool) -> None:
    width = len(vector)
    if fault.kind == "wrong_width":
        kept[width // 2 :] = False
    elif fault.kind == "zero_norm":
        vector[:] = 0
    else:
        vector[width // 3] = {"nan": np.nan, "infinite": np.inf}[fault.kind]


def write_truth(folder: Path, truth: PlantedTruth, splices: Mapping[str, Splices]) -> None:
    """Write ``mismatches``, ``placeholders``, ``broken`` and, with sequences, ``segments`` as Parquet files into ``folder``."""
    swapped = {m: truth.mismatched(m) for m in MODALITIES}
    items = np.concatenate([*swapped.values()])
    mismatches = {
        "item_id": item_ids(items),
        "modality": np.repeat(list(swapped), [len(x) for x in swapped.values()]),
        "owner_item_id": item_ids(np.concatenate([truth.owner[m][x] for m, x in swapped.items()])),
    }
    stock = truth.placeholders("image")
    placeholders = {"item_id": item_ids(stock), "modality": ["image"] * len(stock)}
    broken = {
        "item_id": item_ids(np.array([fault.item for fault in truth.faults], np.int64)),
        "modality": pa.array([fault.modality for fault in truth.faults], pa.string()),
        "kind": [fault.kind for fault in truth.faults],
        "detail": [FAULT_DETAILS[fault.kind] for fault in truth.faults],
    }
    tables = {"mismatches": mismatches, "placeholders": placeholders, "broken": broken}
    for name, columns in tables.items():
        pq.write_table(pa.table(columns), folder / f"{name}.parquet")
    if splices:
        segments = pa.concat_tables([_spliced_segments(m, x) for m, x in splices.items()])
        pq.write_table(segments, folder / "segments.parquet")


def _spliced_segments(modality: str, splices: Splices) -> pa.Table:
    """Every segment that shows another item: its item and number, the owner and its number there."""
    spliced = np.flatnonzero(splices.stop > splices.first)
    place, time, owner, owner_time = splices.segments_of(spliced)
    items = spliced[place]
    wrong = items != owner
    return pa.table(
        {
            "item_id": item_ids(items[wrong]),
            "modality": pa.repeat(modality, int(wrong.sum())),
            "segment": time[wrong].astype(np.int32),
            "owner_item_id": item_ids(owner[wrong]),
            "owner_segment": owner_time[wrong].astype(np.int32),
        }
    )


def write_interactions(folder: Path, world: DemoWorld, progress: Progress) -> dict[str, int]:
    """Write ``dt=YYYY-MM-DD/part-0.parquet`` for every day and return the number of rows, broken rows and items without interactions."""
    config, counts, touched = world.config, Counter[str](), np.zeros(world.config.items, np.bool_)
    days = [LAST_DAY - timedelta(days=number) for number in reversed(range(config.days))]
    # Weekends are busier by a third.
    busy = np.cumsum([4.0 if day.weekday() >= 5 else 3.0 for day in days])
    bounds = np.rint(np.concatenate([[0.0], busy / busy[-1]]) * config.num_interactions).astype(np.int64)
    for number, day in enumerate(days):
        counts += write_day(folder, world, day, int(bounds[number + 1] - bounds[number]), touched)
        progress("interactions", number + 1, config.days)
    return dict(counts) | {"items_without_interactions": int(np.count_nonzero(~touched))}


def write_day(folder: Path, world: DemoWorld, day: date, rows: int, touched: Bool) -> Counter[str]:
    """Write one day of the log; mark the items of its sound rows in ``touched`` [I] and return the counts of its rows."""
    rng, counts = generator(world.config.seed, "demo", "events", day.isoformat()), Counter[str]()
    path = folder / f"dt={day.isoformat()}" / "part-0.parquet"
    path.parent.mkdir(parents=True)
    with pq.ParquetWriter(path, _LOG, use_dictionary=["item_id", "rating"]) as writer:
        for block in row_blocks(rows, _LOG_GROUP_ROWS):
            count = block.stop - block.start
            events = draw_events(world, count, rng)
            place = (np.arange(block.start, block.stop) + rng.random(count)) / rows
            midnight = int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * 1_000_000
            broken = rng.random(count) / _BROKEN_LOG_SHARE
            unknown, nobody = broken < 0.5, (broken >= 0.5) & (broken < 1)
            columns = {
                "user_id": pa.array(events.users, mask=nobody),
                "item_id": pc.if_else(pa.array(unknown), item_ids(events.items, "delisted"), item_ids(events.items)),
                "rating": events.ratings,
                "event_time": pa.array(midnight + (place * _DAY).astype(np.int64)).cast(_LOG.field("event_time").type),
            }
            writer.write_table(pa.table(columns, schema=_LOG))
            sound = broken >= 1
            touched[events.items[sound]] = True
            positive = int((events.ratings[sound] >= POSITIVE_RATING).sum())
            counts.update(rows=count, unknown_item=int(unknown.sum()), null_user=int(nobody.sum()), positive=positive)
    return counts


def sequence_summary(config: DemoConfig, splices: Mapping[str, Splices]) -> dict[str, object]:
    """The counts of what was planted in the sequences, JSON."""
    modalities = {
        m: {
            "width": SEQUENCES[m],
            "items_with_feature": int(x.present.sum()),
            "missing": config.items - int(x.present.sum()),
            "segments": int(x.lengths[x.present].sum()),
            "items_spliced": int(np.count_nonzero(x.stop > x.first)),
            "segments_spliced": int((x.stop - x.first).sum()),
        }
        for m, x in splices.items()
    }
    return {
        "time_offset": {"first": "video", "second": "audio", "segments": config.time_offset},
        "modalities": modalities,
    }
