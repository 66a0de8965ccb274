"""Reading an interaction log: positive rows of the wanted days, as distinct (user, item) pairs."""

from __future__ import annotations

import hashlib
from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rectifier_core.base.arrays import Int32, Int64
from rectifier_core.base.numerics import Progress
from tasks.errors import InputError
from tasks.source.arrow_columns import DAY_SECONDS, EPOCH, INT64_MIN, Window, as_seconds, check_time, is_text
from tasks.source.catalog import Items
from tasks.source.config import SourceConfig
from tasks.source.files import ParquetFiles, in_blocks, stream
from tasks.source.positive_filter import KEY as POSITIVE_KEY
from tasks.source.quarantine import Quarantine, stop_if_too_many
from tasks.source.raw_log import BATCH_ROWS, REASONS, TIME_KEY, RawLog, rank_ids
from tasks.store.store import StageWriter

# Rows are judged this many at a time, across files: each block looks every item up again, and a log may be many small files.
BLOCK_ROWS = 1 << 19
EVENT_TIME = pa.timestamp("ms", tz="UTC")
# In seconds. A time further from 1970 does not fit EVENT_TIME.
LATEST_SHOWN = 9_000_000_000_000_000


def read_interactions(
    files: ParquetFiles, config: SourceConfig, as_of: date, items: Items, writer: StageWriter, progress: Progress
) -> tuple[int, dict[str, Any]]:
    """Write the distinct pairs and the quarantine. Return the number of users and what became of the rows, for ``meta.json``.

    Rows read = not positive + quarantined + repeats merged + used.
    Raises InputError for a missing or unusable column, an unreadable file, a bad predicate, too much in quarantine, or nothing left.
    """
    log, pairs = RawLog(files, config, as_of, items.ids), Pairs(timed=config.time_column is not None)
    # Files may differ in the width of their integers, so those are quarantined as int64.
    user_type, item_type = (kind if is_text(kind) else pa.int64() for kind in (log.user_type, log.item_type))
    schema = pa.schema([("user_id", user_type), ("item_id", item_type), ("event_time", EVENT_TIME)])
    with Quarantine(writer.folder / "quarantine-interactions.parquet", schema, REASONS) as quarantine:
        tables = (table for _, table in log.tables(progress, "reading interactions (bytes)"))
        for block in in_blocks(tables, BLOCK_ROWS):
            position, codes = log.judge(block)
            user, item, time = (block.column(name).combine_chunks() for name in ("user", "item", "seconds"))
            shown = {"user_id": user, "item_id": item, "event_time": _event_time(time)}
            usable = quarantine.judge(pa.table(shown), codes)
            pairs.add(user.filter(pa.array(usable)), position[usable], np.asarray(time.fill_null(INT64_MIN))[usable])
    num_positive, num_quarantined = log.rows_read - log.not_positive, sum(quarantine.counts.values())
    remedy = (
        "check that the catalog and the log share item ids" if quarantine.counts["unknown_item"] else "mend the log"
    )
    kind = "positive interactions" if config.positive else "interactions"
    stop_if_too_many(f"{files.uri}: {kind}", quarantine.counts, num_positive, config.max_quarantined, remedy)
    if num_positive == num_quarantined:
        raise InputError(
            f"{files.uri}: no interactions left as of {as_of}: {log.rows_read:,} read, {log.not_positive:,} not positive, "
            f"{num_quarantined:,} quarantined; check {TIME_KEY}, source.lookback_days and {POSITIVE_KEY}"
        )
    num_pairs, num_users = pairs.write(writer, len(items.ids))
    return num_users, {
        "interactions_read": log.rows_read,
        "interactions_used": num_pairs,
        "not_positive": log.not_positive,
        "repeats_merged": num_positive - num_quarantined - num_pairs,
        "interactions_quarantined": quarantine.counts,
    }


def event_days(files: ParquetFiles, column: str, today: date) -> list[date]:
    """The days, none after ``today``, that a time column holds, oldest first. Raises InputError if there is none."""
    window, days = Window.of_days(today), set[int]()
    for file, batch in stream(files, {column: TIME_KEY}, BATCH_ROWS):
        check_time(batch.schema.field(column).type, file, f"{TIME_KEY} {column!r}")
        seconds, valid = as_seconds(batch.column(0))
        days.update(np.unique(seconds[valid & window.contains(seconds)] // DAY_SECONDS).tolist())
    # Days before year 1 have no date.
    dates = [date.fromordinal(EPOCH + day) for day in sorted(days) if EPOCH + day > 0]
    if not dates:
        raise InputError(
            f"{files.uri}: no event on or before today ({today}, UTC) in {TIME_KEY} {column!r}; say --as-of"
        )
    return dates


def _event_time(seconds: pa.Array) -> pa.Array:
    clipped = pc.min_element_wise(seconds, LATEST_SHOWN, skip_nulls=False)
    clipped = pc.max_element_wise(clipped, -LATEST_SHOWN, skip_nulls=False)
    return pc.multiply(clipped, 1_000).cast(EVENT_TIME)


class Pairs:
    """Usable rows as (user, item, seconds). User ids are dictionary-encoded block by block until the whole log is known."""

    def __init__(self, *, timed: bool) -> None:
        self._timed = timed
        self._users: list[pa.DictionaryArray] = []
        self._items: list[Int32] = []
        self._seconds: list[Int64] = []

    def add(self, users: pa.Array, items: Int32, seconds: Int64) -> None:
        """Append usable rows: user ids, items by their position in the catalog, and event times."""
        self._users.append(users.dictionary_encode())
        self._items.append(items)
        if self._timed:
            self._seconds.append(seconds)

    def write(self, writer: StageWriter, num_items: int) -> tuple[int, int]:
        """Write users, items and times of the distinct pairs, sorted by (user, item). Return the number of pairs and of users.

        The time of a pair is that of its latest event. A user's number is the rank of the id, so the order of the rows does not matter.
        """
        ids, keys = rank_ids(self._users)
        self._users.clear()
        # Another night finds its users by these digests, so no id is stored.
        digests = [hashlib.blake2b(str(user).encode(), digest_size=8).digest() for user in ids.to_pylist()]
        writer.array("user_keys", np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64))
        keys *= num_items
        keys += np.concatenate(self._items)
        self._items.clear()
        order = np.argsort(keys)
        keys = keys[order]
        starts = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
        if self._timed:
            seconds = np.concatenate(self._seconds)[order]
            self._seconds.clear()
            writer.array("times", np.maximum.reduceat(seconds, starts))
        distinct = keys[starts]
        writer.array("users", (distinct // num_items).astype(np.int32))
        writer.array("items", (distinct % num_items).astype(np.int32))
        return len(starts), len(ids)
