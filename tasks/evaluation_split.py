"""The division that a log brings along: a column that says of every row whether it is for training, validation or test."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rectifier_core.evaluation.splits import Split
from rectifier_core.records import Bool, Int64, Interactions
from tasks.errors import InputError
from tasks.references import Ref
from tasks.source_columns import Window, as_ids, as_seconds, as_text, id_family
from tasks.source_config import SourceConfig
from tasks.source_files import ParquetFiles, first_day, interaction_files, open_parquet, stream
from tasks.source_predicate import Predicate
from tasks.stages import load_interactions

KEY = "evaluation.split_column"
PARTS = {"train": 0, "training": 0, "0": 0, "valid": 1, "validation": 1, "val": 1, "1": 1, "test": 2, "2": 2}
BATCH_ROWS = 1 << 17


def log_files(config: SourceConfig, as_of: date) -> ParquetFiles:
    """The files of the log as of a day."""
    return interaction_files(config.interactions, as_of, config.lookback_days)


def split_by_column(source: Ref, config: SourceConfig, as_of: date, column: str) -> Split:
    """The pairs of ``source`` divided as ``column`` says; of a pair that is there more than once the part nearest to training counts.

    Raises InputError for a missing column, for a value that names no part, and where a part is left without any pair.
    """
    pairs = load_interactions(source)
    keys, parts = _labelled(source, config, as_of, column)
    order = np.lexsort((parts, keys))
    first = np.flatnonzero(np.concatenate([[True], keys[order][1:] != keys[order][:-1]]))
    found = order[first]
    if not np.array_equal(keys[found], pairs.users.astype(np.int64) * pairs.num_items + pairs.items):
        raise InputError(f"{config.interactions}: changed since it was read; run again when nothing writes to it")
    part = parts[found]
    for name, code in (("train", 0), ("valid", 1), ("test", 2)):
        if not (part == code).any():
            raise InputError(f"{config.interactions}: {KEY} {column!r} leaves no pair for {name}")
    chosen = [_chosen(pairs, part == code) for code in range(3)]
    return Split(training=chosen[0], validation=chosen[1], test=chosen[2])


def _chosen(pairs: Interactions, rows: Bool) -> Interactions:
    return Interactions(users=pairs.users[rows], items=pairs.items[rows], times=None, num_users=pairs.num_users, num_items=pairs.num_items)


def _labelled(source: Ref, config: SourceConfig, as_of: date, column: str) -> tuple[Int64, Int64]:
    """Every usable row as the key of its pair, user rank times items plus item, and its part's number."""
    ids = pa.array(source.array("item_ids"))
    ids = ids.cast(pa.int64() if pa.types.is_integer(ids.type) else pa.large_string())
    users, items, parts = [], [], []
    for user, item, part in _rows(config, as_of, column, ids):
        users.append(user.dictionary_encode())
        items.append(item)
        parts.append(part)
    unified = pa.chunked_array(users).unify_dictionaries()
    dictionary = unified.chunk(0).dictionary
    # A user's number is the rank of the id, as in the source output.
    rank = np.empty(len(dictionary), np.int64)
    rank[np.asarray(pc.array_sort_indices(dictionary))] = np.arange(len(dictionary))
    return np.concatenate([rank[np.asarray(x.indices)] for x in unified.chunks]) * len(ids) + np.concatenate(items), np.concatenate(parts)


def _rows(config: SourceConfig, as_of: date, column: str, ids: pa.Array) -> Iterator[tuple[pa.Array, Int64, Int64]]:
    """Users, item rows and parts, batch by batch, of the rows that reading the source used."""
    files = log_files(config, as_of)
    predicate = Predicate(config.positive) if config.positive is not None else None
    wanted = dict.fromkeys(predicate.columns if predicate else (), "source.positive")
    wanted |= {config.user_column: "source.user_column", config.item_column: "source.item_column", column: KEY}
    if config.time_column is not None:
        wanted[config.time_column] = "source.time_column"
    with open_parquet(files.filesystem, files.files[0], wanted) as parquet:
        family = id_family(parquet.schema_arrow.field(config.user_column).type, files.files[0], "source.user_column")
    for file, batch in stream(files, wanted, BATCH_ROWS, lambda what, done, total: None, "reading the split"):
        user = as_ids(batch.column(config.user_column), family, file, "source.user_column")
        item = pc.index_in(as_ids(batch.column(config.item_column), ids.type, file, "source.item_column"), value_set=ids)
        usable = np.asarray(user.is_valid()) & np.asarray(item.is_valid()) & _within(batch, files, config, as_of)
        if predicate is not None:
            usable &= predicate.mask(batch, file)
        told = as_text(batch.column(column), file, f"{KEY} {column!r}").filter(pa.array(usable))
        strange = next((x for x in told.unique().to_pylist() if str(x).lower() not in PARTS), PARTS)
        if strange is not PARTS:
            raise InputError(f"{file.uri}: {KEY} {column!r} holds {strange!r}; wanted train, valid or test")
        part = np.array([PARTS[x.lower()] for x in told.to_pylist()], np.int64)
        yield user.filter(pa.array(usable)), np.asarray(item.fill_null(-1))[usable].astype(np.int64), part


def _within(batch: pa.RecordBatch, files: ParquetFiles, config: SourceConfig, as_of: date) -> Bool:
    """Rows whose event counts as of the day; all where the log has no time column."""
    if config.time_column is None:
        return np.ones(batch.num_rows, np.bool_)
    # In a partitioned log the partitions say where the window begins.
    by_time = not files.partitioned and config.lookback_days is not None
    window = Window.of_days(first_day(as_of, config.lookback_days) if by_time and config.lookback_days is not None else None, as_of)
    seconds, valid = as_seconds(batch.column(config.time_column))
    inside: Bool = valid & (seconds >= window.start) & (seconds < window.stop)
    return inside
