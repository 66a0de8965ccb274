"""Reading an interaction log: positive rows of the wanted days, as distinct (user, item) pairs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash
from numpy.typing import NDArray

from rectifier_core.base.arrays import Int32, Int64
from rectifier_core.base.numerics import Progress, silent
from tasks.errors import InputError
from tasks.source.catalog import Items
from tasks.source.columns.times import EPOCH, INT64_MIN, TimeReading, Window
from tasks.source.columns.vectors import USABLE
from tasks.source.config import SourceConfig
from tasks.source.files import ParquetFiles, in_blocks, stream
from tasks.source.id_hints import no_match_remedy
from tasks.source.positive_filter import KEY as POSITIVE_KEY
from tasks.source.raw_log import ANONYMOUS, BATCH_ROWS, REASONS, RawLog, rank_ids
from tasks.source.rows.quarantine import Quarantine, stop_if_too_many
from tasks.source.schema import LogSchema
from tasks.source.time_unit import TIME_KEY
from tasks.store.store import StageWriter

# Rows are judged this many at a time, across files: each block looks every item up again, and a log may be many small files.
BLOCK_ROWS = 1 << 19
EVENT_TIME = pa.timestamp("ms", tz="UTC")
# The end of the year 9999 and the start of year 1, in seconds: readers of the quarantine have no dates beyond.
LATEST_SHOWN, EARLIEST_SHOWN = 253_402_300_799, -62_135_596_800
EXAMPLES = 10_000
LONGEST_ZONE_HOURS = 14


def read_interactions(
    files: ParquetFiles,
    config: SourceConfig,
    as_of: date,
    items: Items,
    schema: LogSchema,
    writer: StageWriter,
    progress: Progress,
) -> tuple[int, dict[str, Any]]:
    """Write the distinct pairs and the quarantine. Return the number of users and what became of the rows, for ``meta.json``.

    Rows read = not positive + anonymous + quarantined + repeats merged + used. Rows of the partition without a day are quarantined besides.
    Raises InputError for an unreadable file, a predicate that does not fit, too much in quarantine, or nothing left.
    """
    log, pairs = RawLog(files, config, as_of, items.ids, schema), Pairs(timed=config.time_column is not None)
    seen = _Seen()
    table = pa.schema([("user_id", schema.users.family), ("item_id", schema.items.family), ("event_time", EVENT_TIME)])
    with Quarantine(writer.folder / "quarantine-interactions.parquet", table, REASONS) as quarantine:
        tables = (table for _, table in log.tables(progress, "reading interactions (bytes)"))
        for block in in_blocks(tables, BLOCK_ROWS):
            position, codes = log.judge(block)
            user, item, time = (block.column(name).combine_chunks() for name in ("user", "item", "seconds"))
            named = codes != ANONYMOUS
            quarantine.judge(_shown(user, item, time).filter(pa.array(named)), codes[named])
            seen.add(item, time, codes, log.window.stop)
            used = codes == USABLE
            pairs.add(user.filter(pa.array(used)), position[used], np.asarray(time.fill_null(INT64_MIN))[used])
        _quarantine_undated(log, quarantine)
    # The partition without a day belongs to no day, so its rows do not count against one.
    counts = {reason: count for reason, count in quarantine.counts.items() if reason != "no_day"}
    num_positive = log.rows_read - log.not_positive - seen.anonymous - quarantine.counts["no_day"]
    num_quarantined = sum(counts.values())
    kind = "positive interactions" if config.positive else "interactions"
    stop_if_too_many(
        f"{files.uri}: {kind}",
        counts,
        num_positive,
        config.max_quarantined,
        lambda: _remedy(counts, seen, config, files, items),
    )
    if num_positive == num_quarantined:
        raise InputError(
            f"{files.uri}: no interactions left as of {as_of}: {log.rows_read:,} read, {log.not_positive:,} not positive, "
            f"{seen.anonymous:,} without a user, {num_quarantined:,} quarantined; check {TIME_KEY}, source.lookback_days and {POSITIVE_KEY}"
        )
    num_pairs, num_users = pairs.write(writer, len(items.ids))
    newest = None if log.newest is None else int(schema.times.days(np.array([log.newest]))[0])
    return num_users, {
        "interactions_read": log.rows_read,
        "interactions_used": num_pairs,
        "not_positive": log.not_positive,
        "anonymous": seen.anonymous,
        "repeats_merged": num_positive - num_quarantined - num_pairs,
        "interactions_quarantined": quarantine.counts,
        "newest_event": None if newest is None else date.fromordinal(newest + EPOCH).isoformat(),
    }


def _shown(user: pa.Array, item: pa.Array, time: pa.Array) -> pa.Table:
    return pa.table({"user_id": user, "item_id": item, "event_time": _event_time(time)})


def _quarantine_undated(log: RawLog, quarantine: Quarantine) -> None:
    """Put the positive rows of the partition without a day into quarantine."""
    if not log.files.undated:
        return
    files = replace(log.files, files=log.files.undated, undated=())
    for _, table in log.tables(silent, "", files):
        rows = _shown(*(table.column(name).combine_chunks() for name in ("user", "item", "seconds")))
        quarantine.judge(rows, np.full(len(rows), REASONS.index("no_day"), np.int8))


class _Seen:
    """What the messages need of the rows: how many have no user, unknown items, and how late the latest event is."""

    def __init__(self) -> None:
        self.anonymous = 0
        self.unknown: list[pa.Array] = []
        self.late_by = 0
        self._examples = 0

    def add(self, item: pa.Array, time: pa.Array, codes: NDArray[np.int8], stop: int) -> None:
        """Count one block of rows."""
        self.anonymous += int((codes == ANONYMOUS).sum())
        seconds = np.asarray(time.fill_null(INT64_MIN))
        unknown = codes == REASONS.index("unknown_item")
        if unknown.any() and self._examples < EXAMPLES:
            self.unknown.append(item.filter(pa.array(unknown)).unique().slice(0, EXAMPLES))
            self._examples += len(self.unknown[-1])
        late = seconds[codes == REASONS.index("event_after_as_of")]
        if len(late):
            self.late_by = max(self.late_by, int(late.max()) - stop)


def _remedy(counts: Mapping[str, int], seen: _Seen, config: SourceConfig, files: ParquetFiles, items: Items) -> str:
    """What to do about the largest reason."""
    worst = max(counts, key=lambda reason: counts[reason])
    if worst == "unknown_item":
        return no_match_remedy(pa.chunked_array(seen.unknown).combine_chunks(), items.ids, config)
    if worst == "event_after_as_of":
        hours = seen.late_by / 3600
        if files.partitioned and hours <= LONGEST_ZONE_HOURS:
            return (
                f"the newest event lies {hours:.1f} hours after the day ends in {config.time_zone or 'UTC'}: if the folders are days of"
                " another time zone, set source.time_zone"
            )
        return "mend the folders of these events, which name an earlier day"
    if worst == "null_item":
        return f"mend source.item_column {config.item_column!r} in the log"
    return f"mend {TIME_KEY} {config.time_column!r}"


def event_days(files: ParquetFiles, column: str, today: date, reading: TimeReading) -> list[date]:
    """The days, none after ``today``, that a time column holds, oldest first. Raises InputError if there is none."""
    window, days = Window.of_days(today, None, reading), set[int]()
    for _, batch in stream(files, {column: TIME_KEY}, BATCH_ROWS):
        seconds, _, readable = reading.seconds(batch.column(0))
        days.update(np.unique(reading.days(seconds[readable & window.contains(seconds)])).tolist())
    if not days:
        raise InputError(
            f"{files.uri}: no event on or before today ({today}) in {TIME_KEY} {column!r}; check the log, or say --as-of"
        )
    return [date.fromordinal(day + EPOCH) for day in sorted(days)]


def _event_time(seconds: pa.Array) -> pa.Array:
    clipped = pc.min_element_wise(seconds, LATEST_SHOWN, skip_nulls=False)
    clipped = pc.max_element_wise(clipped, EARLIEST_SHOWN, skip_nulls=False)
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
        digests = (xxhash.xxh3_64_intdigest(str(user).encode()) for user in ids.to_pylist())
        writer.array("user_keys", np.fromiter(digests, np.uint64, len(ids)))
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
