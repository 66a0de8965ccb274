"""The rows of the log that reading the source used, read once more: for what the source's output leaves out of them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rectifier_core.base.arrays import Bool, Int64
from rectifier_core.base.numerics import Progress, silent
from tasks.errors import InputError
from tasks.source.arrow_columns import Window, as_ids, as_seconds, as_text, id_family
from tasks.source.config import SourceConfig
from tasks.source.files import ParquetFiles, first_day, interaction_files, open_parquet, stream
from tasks.source.positive_filter import Predicate
from tasks.store.store import Ref

BATCH_ROWS = 1 << 17


def log_files(config: SourceConfig, as_of: date) -> ParquetFiles:
    """The files of the log as of a day."""
    return interaction_files(config.interactions, as_of, config.lookback_days)


def catalog_ids(source: Ref) -> pa.Array:
    """The items of a source output in their order, as int64 or large_string."""
    ids = pa.array(source.array("item_ids"))
    return ids.cast(pa.int64() if pa.types.is_integer(ids.type) else pa.large_string())


def used_rows(
    config: SourceConfig,
    as_of: date,
    ids: pa.Array,
    column: str | None = None,
    key: str = "",
    *,
    progress: Progress = silent,
    what: str = "reading the log again",
) -> Iterator[tuple[pa.Array, Int64, pa.Array | None, str]]:
    """Users, positions of the items in ``ids``, ``column`` as text (None without one) and the file, of the used rows, batch by batch.

    ``key`` is the config key that names ``column``. Raises InputError as reading the source does.
    """
    files = log_files(config, as_of)
    predicate = Predicate(config.positive) if config.positive is not None else None
    wanted = dict.fromkeys(predicate.columns if predicate else (), "source.positive")
    wanted |= {config.user_column: "source.user_column", config.item_column: "source.item_column"}
    if column is not None:
        wanted[column] = key
    if config.time_column is not None:
        wanted[config.time_column] = "source.time_column"
    with open_parquet(files.filesystem, files.files[0], wanted) as parquet:
        family = id_family(parquet.schema_arrow.field(config.user_column).type, files.files[0], "source.user_column")
    for file, batch in stream(files, wanted, BATCH_ROWS, progress, what):
        user = as_ids(batch.column(config.user_column), family, file, "source.user_column")
        item = pc.index_in(
            as_ids(batch.column(config.item_column), ids.type, file, "source.item_column"), value_set=ids
        )
        usable = np.asarray(user.is_valid()) & np.asarray(item.is_valid()) & _within(batch, files, config, as_of)
        if predicate is not None:
            usable &= predicate.mask(batch, file)
        chosen = pa.array(usable)
        told = None if column is None else as_text(batch.column(column), file, f"{key} {column!r}").filter(chosen)
        yield user.filter(chosen), np.asarray(item.fill_null(-1))[usable].astype(np.int64), told, file.uri


def user_ids(source: Ref, config: SourceConfig, as_of: date, progress: Progress = silent) -> pa.Array:
    """The id of every user of a source output, by the user's number there. Raises InputError where the log has changed since."""
    rows = used_rows(config, as_of, catalog_ids(source), progress=progress, what="reading user ids (bytes)")
    seen = pa.chunked_array([user.unique() for user, _, _, _ in rows]).unique()
    # A user's number is the rank of the id.
    ids = seen.take(pc.array_sort_indices(seen))
    if len(ids) != source.meta["num_users"]:
        raise InputError(f"{config.interactions}: changed since it was read; run again when nothing writes to it")
    return ids


def _within(batch: pa.RecordBatch, files: ParquetFiles, config: SourceConfig, as_of: date) -> Bool:
    """Rows whose event counts as of the day; all where the log has no time column."""
    if config.time_column is None:
        return np.ones(batch.num_rows, np.bool_)
    # In a partitioned log the partitions say where the window begins.
    by_time = not files.partitioned and config.lookback_days is not None
    window = Window.of_days(
        first_day(as_of, config.lookback_days) if by_time and config.lookback_days is not None else None, as_of
    )
    seconds, valid = as_seconds(batch.column(config.time_column))
    inside: Bool = valid & (seconds >= window.start) & (seconds < window.stop)
    return inside
