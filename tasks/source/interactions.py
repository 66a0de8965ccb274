"""Reading an interaction log: positive rows of the wanted days, as distinct (user, item) pairs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from rectifier_core.base.arrays import Int32, Int64, UInt64
from rectifier_core.base.numerics import Progress
from tasks.errors import InputError
from tasks.object_store import StoredFile, reading
from tasks.source.arrow_columns import INT64, Window, as_ids, as_seconds, check_time, id_family, is_text, plain_type
from tasks.source.catalog import Items
from tasks.source.config import SourceConfig
from tasks.source.files import ParquetFiles, batches, first_day, in_blocks, open_parquet, stream
from tasks.source.positive_filter import KEY as POSITIVE_KEY
from tasks.source.positive_filter import Predicate
from tasks.source.quarantine import USABLE, Quarantine, stop_if_too_many
from tasks.source.schema import ITEM_KEY
from tasks.store.store import StageWriter

REASONS = ("null_user", "null_item", "null_time", "unknown_item", "event_after_as_of")
USER_KEY, TIME_KEY = "source.user_column", "source.time_column"
BATCH_ROWS = 1 << 17
# Rows are judged and encoded this many at a time, across files: each block looks every item up anew, and a log may be many small files.
BLOCK_ROWS = 1 << 19
DAY_SECONDS = 86_400
EVENT_TIME = pa.timestamp("ms", tz="UTC")
# Further from 1970, in seconds, a time does not fit that type.
LATEST_SHOWN = 9_000_000_000_000_000


@dataclass(slots=True, kw_only=True)
class Counts:
    """What became of the rows: ``read = not_positive + quarantined + repeats_merged + used``."""

    read: int = 0
    not_positive: int = 0
    repeats_merged: int = 0
    used: int = 0
    num_users: int = 0


def read_interactions(
    files: ParquetFiles, config: SourceConfig, as_of: date, items: Items, writer: StageWriter, progress: Progress
) -> tuple[Counts, dict[str, int]]:
    """Write the distinct pairs and the quarantine; return the counts and the quarantined rows by reason.

    Raises InputError for a missing or unusable column, an unreadable file, a bad predicate, too much in quarantine, or nothing left.
    """
    log = _Log(files, config, as_of, items)
    pairs, counts = _Pairs(timed=config.time_column is not None), log.counts
    schema = pa.schema([*zip(("user_id", "item_id"), log.quarantine_types, strict=True), ("event_time", EVENT_TIME)])
    with Quarantine(writer.folder / "quarantine-interactions.parquet", schema, REASONS) as quarantine:
        for block in in_blocks(log.tables(progress), BLOCK_ROWS):
            _judge(block, log, quarantine, pairs)
    positive, kind = counts.read - counts.not_positive, "positive interactions" if config.positive else "interactions"
    remedy = (
        "check that the catalog and the log share item ids" if quarantine.counts["unknown_item"] else "mend the log"
    )
    stop_if_too_many(f"{files.uri}: {kind}", quarantine.counts, positive, config.max_quarantined, remedy)
    if not pairs.rows:
        raise InputError(
            f"{files.uri}: no interactions left as of {as_of}: {counts.read:,} read, {counts.not_positive:,} not positive, "
            f"{sum(quarantine.counts.values()):,} quarantined; check {TIME_KEY}, source.lookback_days and {POSITIVE_KEY}"
        )
    counts.used, counts.num_users = pairs.write(writer, len(items.ids))
    counts.repeats_merged = positive - sum(quarantine.counts.values()) - counts.used
    return counts, quarantine.counts


def newest_event_day(files: ParquetFiles, column: str, today: date) -> date:
    """The newest day, not after ``today``, of a time column. Raises InputError if there is none."""
    return event_days(files, column, today)[-1]


def event_days(files: ParquetFiles, column: str, today: date) -> list[date]:
    """The days, none after ``today``, that a time column holds, oldest first. Raises InputError if there is none."""
    window, found = Window.of_days(date.min, today), set[int]()
    for file in files.files:
        with open_parquet(files.filesystem, file, {column: TIME_KEY}) as parquet:
            check_time(parquet.schema_arrow.field(column).type, file, f"{TIME_KEY} {column!r}")
            for batch in batches(parquet, file, [column], BATCH_ROWS):
                seconds, valid = as_seconds(batch.column(0))
                found.update(
                    np.unique(
                        seconds[valid & (seconds >= window.start) & (seconds < window.stop)] // DAY_SECONDS
                    ).tolist()
                )
    if not found:
        raise InputError(
            f"{files.uri}: no event on or before today ({today}, UTC) in {TIME_KEY} {column!r}; say --as-of"
        )
    return [window.day(day * DAY_SECONDS) for day in sorted(found)]


class _Log:
    """The log's wanted positive rows as tables of canonical columns: user, item, and seconds (all null without a time column)."""

    def __init__(self, files: ParquetFiles, config: SourceConfig, as_of: date, items: Items) -> None:
        if config.lookback_days is not None and not files.partitioned and config.time_column is None:
            raise InputError(
                f"source.lookback_days: {files.uri} has neither dt= partitions nor a {TIME_KEY} to tell the days by"
            )
        self.files, self.config, self.items, self.counts = files, config, items, Counts()
        self.predicate = Predicate(config.positive) if config.positive is not None else None
        self.window = Window.of_days(
            None if config.lookback_days is None else first_day(as_of, config.lookback_days), as_of
        )
        self.wanted = dict.fromkeys(self.predicate.columns if self.predicate else (), POSITIVE_KEY)
        self.wanted |= {config.user_column: USER_KEY, config.item_column: ITEM_KEY}
        if config.time_column is not None:
            self.wanted[config.time_column] = TIME_KEY
        with open_parquet(files.filesystem, files.files[0], self.wanted) as parquet:
            user, item = (parquet.schema_arrow.field(x).type for x in (config.user_column, config.item_column))
        self.user_key, self.item_key = f"{USER_KEY} {config.user_column!r}", f"{ITEM_KEY} {config.item_column!r}"
        self.user_family = id_family(user, files.files[0], self.user_key)
        # Files may differ in how wide their integers are, so those are quarantined as int64.
        self.quarantine_types = [kind if is_text(kind) else pa.int64() for kind in (plain_type(user), plain_type(item))]

    def tables(self, progress: Progress) -> Iterator[pa.Table]:
        """The rows in order, counted as they pass."""
        for file, batch in stream(
            self.files, self.wanted, BATCH_ROWS, progress, "reading interactions (bytes)", self._row_groups
        ):
            seconds = None
            if self.config.time_column is not None:
                values, valid = as_seconds(batch.column(self.config.time_column))
                if self._by_time:
                    read = ~valid | ((values >= self.window.start) & (values < self.window.stop))
                    batch, values, valid = batch.filter(pa.array(read)), values[read], valid[read]
                seconds = pa.array(values, mask=~valid)
            self.counts.read += batch.num_rows
            columns = {
                "user": as_ids(batch.column(self.config.user_column), self.user_family, file, self.user_key),
                "item": as_ids(batch.column(self.config.item_column), self.items.ids.type, file, self.item_key),
                "seconds": pa.nulls(batch.num_rows, pa.int64()) if seconds is None else seconds,
            }
            table = pa.table(columns)
            if self.predicate is not None:
                table = table.filter(pa.array(self.predicate.mask(batch, file)))
                self.counts.not_positive += batch.num_rows - table.num_rows
            yield table

    @property
    def _by_time(self) -> bool:
        """Whether event times decide what is read; in a partitioned log the partitions do, and a later event in them is an error."""
        return self.config.time_column is not None and not self.files.partitioned

    def _row_groups(self, parquet: pq.ParquetFile, file: StoredFile) -> list[int] | None:
        """Check a file's types, and choose the row groups whose statistics admit an event within the window."""
        schema, time = parquet.schema_arrow, self.config.time_column
        user, item = schema.field(self.config.user_column).type, schema.field(self.config.item_column).type
        if id_family(user, file, self.user_key) != self.user_family:
            raise InputError(f"{file.uri}: {self.user_key} is {plain_type(user)}, unlike in {self.files.files[0].uri}")
        if id_family(item, file, self.item_key) != self.items.ids.type:
            raise InputError(
                f"{file.uri}: {self.item_key} is {plain_type(item)}, but {self.items.source_type} in the catalog; write both alike"
            )
        if time is None:
            return None
        check_time(schema.field(time).type, file, f"{TIME_KEY} {time!r}")
        if not self._by_time:
            return None
        with reading(file.uri):
            fragment = ds.ParquetFileFormat().make_fragment(file.path, self.files.filesystem)
            chosen = fragment.subset(self.window.predicate(time, schema.field(time).type), schema=schema)
            return [x.id for x in chosen.row_groups]


def _judge(block: pa.Table, log: _Log, quarantine: Quarantine, pairs: _Pairs) -> None:
    """Quarantine what cannot be used, the first reason that applies, and collect the rest."""
    user, item, time = (block.column(x).combine_chunks() for x in ("user", "item", "seconds"))
    codes = np.full(len(block), USABLE, dtype=np.int8)
    known = np.asarray(pc.index_in(item, value_set=log.items.ids).fill_null(-1))
    seconds = np.asarray(time.fill_null(INT64.min))
    faults = {
        "null_user": np.asarray(user.is_null()),
        "null_item": np.asarray(item.is_null()),
        "unknown_item": known < 0,
    }
    if log.config.time_column is not None:
        faults |= {"null_time": np.asarray(time.is_null()), "event_after_as_of": seconds >= log.window.stop}
    for code, reason in enumerate(REASONS):
        if reason in faults:
            codes[(codes == USABLE) & faults[reason]] = code
    shown = pc.max_element_wise(
        pc.min_element_wise(time, LATEST_SHOWN, skip_nulls=False), -LATEST_SHOWN, skip_nulls=False
    )
    rows = pa.table({"user_id": user, "item_id": item, "event_time": pc.multiply(shown, 1_000).cast(EVENT_TIME)})
    usable = quarantine.judge(rows, codes)
    pairs.add(user.filter(pa.array(usable)), known[usable], seconds[usable])


class _Pairs:
    """Usable rows as (user code, item, seconds), compact until the whole log is known."""

    def __init__(self, *, timed: bool) -> None:
        self.rows, self._timed = 0, timed
        self._users: list[pa.DictionaryArray] = []
        self._items: list[Int32] = []
        self._seconds: list[Int64] = []

    def add(self, users: pa.Array, items: Int32, seconds: Int64) -> None:
        """Append usable rows: user ids as they came, items as catalog rows."""
        self.rows += len(items)
        self._users.append(users.dictionary_encode())
        self._items.append(items)
        if self._timed:
            self._seconds.append(seconds)

    def write(self, writer: StageWriter, num_items: int) -> tuple[int, int]:
        """Write users, items and times of the distinct pairs, sorted by (user, item), the latest event of each; return pairs and users.

        A user's code is the rank of the id among all users' ids, so nothing depends on the order of the rows.
        """
        unified = pa.chunked_array(self._users).unify_dictionaries()
        dictionary = unified.chunk(0).dictionary
        rank = np.empty(len(dictionary), dtype=np.int64)
        rank[np.asarray(pc.array_sort_indices(dictionary))] = np.arange(len(dictionary))
        self._users.clear()
        writer.array("user_keys", _user_keys(dictionary, rank))
        keys = np.concatenate([rank[np.asarray(x.indices)] for x in unified.chunks])
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
        return len(starts), len(dictionary)


def _user_keys(users: pa.Array, rank: Int64) -> UInt64:
    """64 bits of a digest of every user's id, by the user's code: another night finds its users by them, and no id is kept."""
    keys = np.empty(len(users), dtype=np.uint64)
    told = (hashlib.blake2b(str(user).encode(), digest_size=8).digest() for user in users.to_pylist())
    keys[rank] = np.frombuffer(b"".join(told), dtype="<u8")
    return keys
