"""Reading the rows of the interaction log that a day uses: its time window, the positive feedback, and which rows are unusable."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from rectifier_core.base.arrays import Int64
from rectifier_core.base.numerics import Progress, silent
from tasks.errors import InputError
from tasks.object_store import StoredFile
from tasks.source.columns.arrow import as_text
from tasks.source.columns.ids import in_family, positions, read_ids
from tasks.source.columns.times import INT64_MIN, Window
from tasks.source.columns.vectors import USABLE
from tasks.source.config import SourceConfig
from tasks.source.files import ParquetFiles, list_log, stream
from tasks.source.footers import Problems, read_footers, value_range
from tasks.source.positive_filter import Predicate
from tasks.source.schema import ITEM_KEY, USER_KEY, LogSchema, log_columns, log_schema
from tasks.store.store import Ref

REASONS = (
    "null_item",
    "null_time",
    "time_out_of_range",
    "unknown_item",
    "event_after_as_of",
    "no_day",
)
# Rows of no user are not damage: they are left out and counted.
ANONYMOUS = len(REASONS)
BATCH_ROWS = 1 << 17


class RawLog:
    """The log's positive rows in the time window, how many rows were read and were not positive, and the time of the newest event."""

    def __init__(
        self,
        files: ParquetFiles,
        config: SourceConfig,
        as_of: date,
        ids: pa.Array,
        schema: LogSchema,
        label: tuple[str, str] | None = None,
    ) -> None:
        """``ids`` are the catalog's items. ``label`` is one more column to read as text and the config key that names it.

        Raises InputError for a bad predicate.
        """
        self.files, self.config, self.ids, self.schema, self.label = files, config, ids, schema, label
        self.rows_read = self.not_positive = 0
        self.newest: int | None = None
        self.window = Window.of_days(as_of, config.lookback_days, schema.times)
        self.predicate = Predicate(config.positive) if config.positive is not None else None
        self.columns = log_columns(config, self.predicate)
        if label is not None:
            self.columns[label[0]] = label[1]
        self.user_key, self.item_key = f"{USER_KEY} {config.user_column!r}", f"{ITEM_KEY} {config.item_column!r}"

    def tables(
        self, progress: Progress, what: str, files: ParquetFiles | None = None
    ) -> Iterator[tuple[StoredFile, pa.Table]]:
        """The rows in order as ``user``, ``item``, ``seconds``, ``readable`` and, if wanted, ``label``.

        ``seconds`` is null without a time, and ``readable`` False for a time that is none. ``files`` are others than the log's own.
        """
        time, config, schema = self.config.time_column, self.config, self.schema
        for file, batch in stream(files or self.files, self.columns, BATCH_ROWS, progress, what, self._row_groups):
            seconds, readable = pa.nulls(batch.num_rows, pa.int64()), pa.array(np.ones(batch.num_rows, np.bool_))
            if time is not None:
                values, valid, usable = schema.times.seconds(batch.column(time))
                seconds, readable = pa.array(values, mask=~valid), pa.array(usable | ~valid)
                inside = values[usable & self.window.contains(values)]
                if len(inside):
                    self.newest = max(self.newest or INT64_MIN, int(inside.max()))
                if self._time_selects:
                    selected = pa.array(~valid | ~usable | self.window.contains(values))
                    batch, seconds, readable = (x.filter(selected) for x in (batch, seconds, readable))
            self.rows_read += batch.num_rows
            user = read_ids(batch.column(config.user_column), schema.users.uuid, file, self.user_key)
            item = read_ids(batch.column(config.item_column), schema.items.uuid, file, self.item_key)
            columns = {
                "user": in_family(user, schema.users.family),
                "item": in_family(item, schema.items.family),
                "seconds": seconds,
                "readable": readable,
            }
            if self.label is not None:
                column, key = self.label
                columns["label"] = as_text(batch.column(column), file, f"{key} {column!r}")
            table = pa.table(columns)
            if self.predicate is not None:
                table = table.filter(pa.array(self.predicate.mask(batch, file)))
                self.not_positive += batch.num_rows - table.num_rows
            yield file, table

    def judge(self, table: pa.Table) -> tuple[NDArray[np.int32], NDArray[np.int8]]:
        """Each row's position in the catalog, -1 if unknown, and its first reason of ``REASONS``, ``ANONYMOUS`` or ``USABLE``, both [N]."""
        user, item, time, readable = (
            table.column(name).combine_chunks() for name in ("user", "item", "seconds", "readable")
        )
        position = np.asarray(positions(item, self.ids).fill_null(-1))
        timed = self.config.time_column is not None
        faults = {
            "null_item": np.asarray(item.is_null()),
            "null_time": np.asarray(time.is_null()) & timed,
            "time_out_of_range": ~np.asarray(readable),
            "unknown_item": position < 0,
            "event_after_as_of": np.asarray(time.fill_null(INT64_MIN)) >= self.window.stop,
        }
        codes = np.full(len(table), USABLE, dtype=np.int8)
        codes[np.asarray(user.is_null())] = ANONYMOUS
        for code, reason in enumerate(REASONS):
            if reason in faults:
                codes[(codes == USABLE) & faults[reason]] = code
        return position, codes

    @property
    def _time_selects(self) -> bool:
        """Whether event times select the rows. In a partitioned log the partitions do, and a later event there is an error."""
        return self.config.time_column is not None and not self.files.partitioned

    def _row_groups(self, parquet: pq.ParquetFile, file: StoredFile) -> list[int] | None:
        """The row groups that may hold an event in the window, or a time for the quarantine. None: all."""
        time, metadata = self.config.time_column, parquet.metadata
        if time is None or not self._time_selects:
            return None
        kind = parquet.schema_arrow.field(time).type
        # The order of text is not the order of times.
        if not (pa.types.is_timestamp(kind) or pa.types.is_date(kind) or pa.types.is_integer(kind)):
            return None
        groups = [metadata.row_group(at) for at in range(metadata.num_row_groups)]
        index = [groups[0].column(at).path_in_schema for at in range(metadata.num_columns)].index(time)
        return [at for at, group in enumerate(groups) if not self._is_outside(group.column(index), kind)]

    def _is_outside(self, chunk: pq.ColumnChunkMetaData, kind: pa.DataType) -> bool:
        """Whether the statistics say that every row has a time, and none lies in the window."""
        ends = value_range(chunk, kind)
        if ends is None or not chunk.statistics.has_null_count or chunk.statistics.null_count:
            return False
        seconds, _, readable = self.schema.times.seconds(ends)
        return bool(readable.all() and (seconds[1] < self.window.start or seconds[0] >= self.window.stop))


def log_files(config: SourceConfig, as_of: date) -> ParquetFiles:
    """The files of the log that a run of that day may open. Raises InputError if there is none."""
    return list_log(config).log(as_of, config.lookback_days)


def open_log(config: SourceConfig, as_of: date, ids: pa.Array, label: tuple[str, str] | None = None) -> RawLog:
    """The log of a day as ``read_source`` reads it, with the types of its columns. Raises InputError as that does."""
    files, problems = log_files(config, as_of), Problems()
    predicate = Predicate(config.positive) if config.positive is not None else None
    columns = log_columns(config, predicate) | ({} if label is None else {label[0]: label[1]})
    footers = read_footers(files, columns, problems)
    return RawLog(files, config, as_of, ids, log_schema(files, footers, config, problems), label)


def catalog_ids(source: Ref) -> pa.Array:
    """The items of a source output in their order, as int64 or large_string."""
    ids = pa.array(source.array("item_ids"))
    return ids.cast(pa.int64() if pa.types.is_integer(ids.type) else pa.large_string())


def rank_ids(chunks: list[pa.DictionaryArray]) -> tuple[pa.Array, Int64]:
    """The distinct ids in ascending order, and the rank of each row's id [N]. A user's number is this rank."""
    unified = pa.chunked_array(chunks).unify_dictionaries()
    dictionary = unified.chunk(0).dictionary
    order = pc.array_sort_indices(dictionary)
    rank = np.empty(len(dictionary), dtype=np.int64)
    rank[np.asarray(order)] = np.arange(len(dictionary))
    return dictionary.take(order), np.concatenate([rank[np.asarray(chunk.indices)] for chunk in unified.chunks])


def used_rows(
    config: SourceConfig,
    as_of: date,
    ids: pa.Array,
    label: tuple[str, str] | None = None,
    progress: Progress = silent,
) -> Iterator[tuple[StoredFile, pa.Table, Int64]]:
    """The rows that reading the source used, batch by batch: file, ``user`` and ``label`` columns, positions of the items in ``ids``.

    The source's output leaves out user ids and other columns, so the log is read once more. Raises InputError as reading the source does.
    """
    log = open_log(config, as_of, ids, label)
    for file, table in log.tables(progress, "reading the log again (bytes)"):
        position, codes = log.judge(table)
        usable = codes == USABLE
        yield file, table.filter(pa.array(usable)), position[usable].astype(np.int64)


def user_ids(source: Ref, config: SourceConfig, as_of: date, progress: Progress = silent) -> pa.Array:
    """The id of every user of a source output, by the user's number there. Raises InputError where the log has changed since."""
    rows = used_rows(config, as_of, catalog_ids(source), progress=progress)
    distinct = pa.chunked_array([table.column("user").unique() for _, table, _ in rows]).unique()
    ids = distinct.take(pc.array_sort_indices(distinct))
    if len(ids) != source.meta["num_users"]:
        raise InputError(f"{config.interactions}: changed since it was read; run again when nothing writes to it")
    return ids
