"""Reading the rows of the interaction log that a day uses: its time window, the positive feedback, and which rows are unusable."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from numpy.typing import NDArray

from rectifier_core.base.arrays import Int64
from rectifier_core.base.numerics import Progress, silent
from tasks.errors import InputError
from tasks.object_store import StoredFile, reading
from tasks.source.arrow_columns import INT64_MIN, Window, as_ids, as_seconds, as_text, check_time, id_family, plain_type
from tasks.source.config import SourceConfig
from tasks.source.files import ParquetFiles, list_input, open_parquet, stream
from tasks.source.positive_filter import KEY as POSITIVE_KEY
from tasks.source.positive_filter import Predicate
from tasks.source.quarantine import USABLE
from tasks.source.schema import ITEM_KEY
from tasks.store.store import Ref

REASONS = ("null_user", "null_item", "null_time", "unknown_item", "event_after_as_of")
USER_KEY, TIME_KEY = "source.user_column", "source.time_column"
BATCH_ROWS = 1 << 17


class RawLog:
    """The log's positive rows in the time window, and how many rows were read and were not positive."""

    def __init__(
        self,
        files: ParquetFiles,
        config: SourceConfig,
        as_of: date,
        ids: pa.Array,
        label: tuple[str, str] | None = None,
    ) -> None:
        """``ids`` are the catalog's items. ``label`` is one more column to read as text and the config key that names it.

        Raises InputError for a bad predicate, a missing column, and a lookback that neither partitions nor times can apply.
        """
        if config.lookback_days is not None and not files.partitioned and config.time_column is None:
            raise InputError(
                f"source.lookback_days: {files.uri} has neither dt= partitions nor a {TIME_KEY} to tell the days by"
            )
        self.files, self.config, self.ids, self.label = files, config, ids, label
        self.rows_read = self.not_positive = 0
        self.window = Window.of_days(as_of, config.lookback_days)
        self.predicate = Predicate(config.positive) if config.positive is not None else None
        self.columns = dict.fromkeys(self.predicate.columns if self.predicate else (), POSITIVE_KEY)
        self.columns |= {config.user_column: USER_KEY, config.item_column: ITEM_KEY}
        if config.time_column is not None:
            self.columns[config.time_column] = TIME_KEY
        if label is not None:
            self.columns[label[0]] = label[1]
        with open_parquet(files.filesystem, files.files[0], self.columns) as parquet:
            schema = parquet.schema_arrow
        self.user_type, self.item_type = (
            plain_type(schema.field(column).type) for column in (config.user_column, config.item_column)
        )
        self.user_key, self.item_key = f"{USER_KEY} {config.user_column!r}", f"{ITEM_KEY} {config.item_column!r}"
        self.user_family = id_family(self.user_type, files.files[0], self.user_key)

    def tables(self, progress: Progress, what: str) -> Iterator[tuple[StoredFile, pa.Table]]:
        """The rows in order as ``user``, ``item``, ``seconds`` (null without a time column) and, if wanted, ``label``."""
        time, config = self.config.time_column, self.config
        for file, batch in stream(self.files, self.columns, BATCH_ROWS, progress, what, self._row_groups):
            seconds = pa.nulls(batch.num_rows, pa.int64())
            if time is not None:
                values, valid = as_seconds(batch.column(time))
                seconds = pa.array(values, mask=~valid)
                if self._time_selects:
                    in_window = pa.array(~valid | self.window.contains(values))
                    batch, seconds = batch.filter(in_window), seconds.filter(in_window)
            self.rows_read += batch.num_rows
            columns = {
                "user": as_ids(batch.column(config.user_column), self.user_family, file, self.user_key),
                "item": as_ids(batch.column(config.item_column), self.ids.type, file, self.item_key),
                "seconds": seconds,
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
        """Each row's position in the catalog, -1 if unknown, and its first reason of ``REASONS`` or ``USABLE``, both [N]."""
        user, item, time = (table.column(name).combine_chunks() for name in ("user", "item", "seconds"))
        position = np.asarray(pc.index_in(item, value_set=self.ids).fill_null(-1))
        timed = self.config.time_column is not None
        faults = {
            "null_user": np.asarray(user.is_null()),
            "null_item": np.asarray(item.is_null()),
            "null_time": np.asarray(time.is_null()) & timed,
            "unknown_item": position < 0,
            "event_after_as_of": np.asarray(time.fill_null(INT64_MIN)) >= self.window.stop,
        }
        codes = np.full(len(table), USABLE, dtype=np.int8)
        for code, reason in enumerate(REASONS):
            codes[(codes == USABLE) & faults[reason]] = code
        return position, codes

    @property
    def _time_selects(self) -> bool:
        """Whether event times select the rows. In a partitioned log the partitions do, and a later event there is an error."""
        return self.config.time_column is not None and not self.files.partitioned

    def _row_groups(self, parquet: pq.ParquetFile, file: StoredFile) -> list[int] | None:
        """Check a file's types, and select the row groups whose statistics allow an event in the window."""
        schema, time = parquet.schema_arrow, self.config.time_column
        user, item = schema.field(self.config.user_column).type, schema.field(self.config.item_column).type
        if id_family(user, file, self.user_key) != self.user_family:
            raise InputError(f"{file.uri}: {self.user_key} is {plain_type(user)}, unlike in {self.files.files[0].uri}")
        if id_family(item, file, self.item_key) != self.ids.type:
            catalog = "string" if pa.types.is_large_string(self.ids.type) else self.ids.type
            raise InputError(
                f"{file.uri}: {self.item_key} is {plain_type(item)}, but {catalog} in the catalog; write both alike"
            )
        if time is None:
            return None
        check_time(schema.field(time).type, file, f"{TIME_KEY} {time!r}")
        if not self._time_selects:
            return None
        with reading(file.uri):
            fragment = ds.ParquetFileFormat().make_fragment(file.path, self.files.filesystem)
            selected = fragment.subset(self.window.predicate(time, schema.field(time).type), schema=schema)
            return [group.id for group in selected.row_groups]


def log_files(config: SourceConfig, as_of: date) -> ParquetFiles:
    """The files of the log that a run of that day may open. Raises InputError if there is none."""
    return list_input(config.interactions).log(as_of, config.lookback_days)


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
    log = RawLog(log_files(config, as_of), config, as_of, ids, label)
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
