"""Reading a catalog in two passes: first the ids, which give the items and their order, then labels and features."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rectifier_core.base.arrays import Int64
from rectifier_core.base.numerics import Progress, row_blocks, silent
from tasks.errors import InputError
from tasks.source.columns.arrow import as_text
from tasks.source.columns.ids import common_family, in_family, read_ids
from tasks.source.columns.vectors import USABLE, Format, as_lists, lengths
from tasks.source.config import SourceConfig
from tasks.source.files import ParquetFiles, open_parquet, stream
from tasks.source.rows.features import FeatureColumn
from tasks.source.rows.quarantine import ParquetSink, Quarantine, stop_if_too_many
from tasks.source.rows.sequences import SEQUENCE_REASONS, segment_lists
from tasks.source.schema import ITEM_KEY, CatalogSchema, label_columns, wanted_columns
from tasks.store.store import StageWriter

ITEM_REASONS = ("null_id", "duplicate_id", "id_too_long", "id_ends_with_nul", "no_day")
# Ids are stored as text of the width of the longest id, so one extremely long id would make all of them large.
LONGEST_ID = 512
ID_ROWS = 1 << 18
# A batch of features takes about this many bytes as float32.
FEATURE_BYTES = 1 << 22
WIDTH_SAMPLE = 10_000
WIDTH_ROWS = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Items:
    """The usable items in catalog order.

    ``ids`` [I] as int64 or large_string, ``source_type`` the type they are published in. ``target[r]`` is the item of catalog row r, or -1.
    """

    ids: pa.Array
    source_type: pa.DataType
    target: Int64
    quarantined: Mapping[str, int]


def read_items(
    files: ParquetFiles, config: SourceConfig, schema: CatalogSchema, writer: StageWriter, progress: Progress
) -> Items:
    """Write the ids of the items and the quarantine of the others, and return the items.

    Raises InputError for an unreadable file, an empty catalog, one id in two files, or too much in quarantine.
    """
    items = _judged_items(files, config, schema, writer, progress)
    _write_ids(writer, items.ids)
    return items


def read_features(
    files: ParquetFiles,
    config: SourceConfig,
    schema: CatalogSchema,
    items: Items,
    writer: StageWriter,
    progress: Progress,
) -> dict[str, Any]:
    """Write labels, features and their quarantine. Return each modality's part of ``meta.json``. Raises InputError as ``read_items``."""
    sequences = schema.sequences
    # What one row of a sequence column holds differs, so the batch size follows the longest row group.
    numbers = _numbers_per_row(files, {config.modalities[name]: f"source.modalities.{name}" for name in sequences})
    widths = {
        name: _most_common_width(
            files, name, column, numbers if name in sequences else 0, config.vector_formats.get(name)
        )
        for name, column in config.modalities.items()
    }
    with ExitStack() as stack:
        columns = [
            FeatureColumn(
                writer,
                name,
                column,
                widths[name],
                len(items.ids),
                is_sequence=name in sequences,
                given=config.vector_formats.get(name),
            )
            for name, column in sorted(config.modalities.items())
        ]
        for column in columns:
            stack.enter_context(closing(column))
        numbers += sum(column.width for column in columns if not column.is_sequence)
        _read_features(files, config, items, columns, _batch_rows(numbers), writer, progress)
    return {column.name: column.finish(files.uri, config.max_quarantined) for column in columns}


def _read_ids(
    files: ParquetFiles, config: SourceConfig, schema: CatalogSchema, progress: Progress
) -> tuple[list[pa.Array], list[str]]:
    """The ids of every row, and the file of every chunk of them."""
    wanted, key = {config.item_column: ITEM_KEY}, f"{ITEM_KEY} {config.item_column!r}"
    chunks, names = [], []
    for file, batch in stream(files, wanted, ID_ROWS, progress, "reading item ids (bytes)"):
        chunks.append(read_ids(batch.column(0), schema.items.uuid, file, key))
        names.append(file.uri)
    return chunks, names


def _judged_items(
    files: ParquetFiles, config: SourceConfig, schema: CatalogSchema, writer: StageWriter, progress: Progress
) -> Items:
    chunks, names = _read_ids(files, config, schema, progress)
    undated = _read_ids(replace(files, files=files.undated), config, schema, silent)[0] if files.undated else []
    family = common_family(chunks)
    ids = pa.chunked_array([in_family(chunk, family) for chunk in chunks], type=family).combine_chunks()
    if not len(ids):
        raise InputError(f"{files.uri}: the catalog is empty: it has no rows")
    source_type = schema.items.published_type(family)
    # Codes count up in order of first appearance, so a row is the first of its id where its code exceeds all previous codes.
    codes = np.asarray(pc.dictionary_encode(ids).indices.fill_null(-1)).astype(np.int64)
    highest = np.concatenate([[-1], np.maximum.accumulate(codes)[:-1]])
    reasons = np.where(codes < 0, np.int8(0), np.where(codes > highest, np.int8(USABLE), np.int8(1)))
    _check_two_files(files, config, ids, codes, reasons, [len(x) for x in chunks], names)
    if pa.types.is_large_string(ids.type):
        # Fixed-width text drops NULs at the end, so two ids could become one.
        ends_with_nul, too_long = pc.ends_with(ids, "\0"), pc.greater(pc.utf8_length(ids), LONGEST_ID)
        for reason, faulty in (("id_ends_with_nul", ends_with_nul), ("id_too_long", too_long)):
            reasons[(reasons == USABLE) & np.asarray(faulty.fill_null(False))] = ITEM_REASONS.index(reason)
    table = pa.schema([("row_number", pa.int64()), ("item_id", family)])
    with Quarantine(writer.folder / "quarantine-items.parquet", table, ITEM_REASONS) as quarantine:
        usable = quarantine.judge(pa.table({"row_number": np.arange(len(ids)), "item_id": ids}), reasons)
        for chunk in undated:
            rows = pa.table({"row_number": pa.nulls(len(chunk), pa.int64()), "item_id": in_family(chunk, family)})
            quarantine.judge(rows, np.full(len(chunk), ITEM_REASONS.index("no_day"), np.int8))
    counts = {reason: count for reason, count in quarantine.counts.items() if reason != "no_day"}
    stop_if_too_many(
        f"{files.uri}: catalog rows",
        counts,
        len(ids),
        config.max_quarantined,
        lambda: f"mend {ITEM_KEY} {config.item_column!r}",
    )
    if not usable.any():
        raise InputError(
            f"{files.uri}: the catalog is empty: no row has a usable item id ({ITEM_KEY} {config.item_column!r})"
        )
    target = np.where(usable, np.cumsum(usable) - 1, -1)
    kept = ids.filter(pa.array(usable))
    return Items(ids=kept, source_type=source_type, target=target, quarantined=quarantine.counts)


def _check_two_files(
    files: ParquetFiles,
    config: SourceConfig,
    ids: pa.Array,
    codes: Int64,
    reasons: NDArray[np.int8],
    lengths_of_chunks: list[int],
    names: list[str],
) -> None:
    """Raise InputError if one id stands in two files: nothing tells which of the two rows is the right one."""
    repeated = np.flatnonzero(reasons == ITEM_REASONS.index("duplicate_id"))
    if not len(repeated) or len(set(names)) < 2:
        return
    numbers = {name: at for at, name in enumerate(dict.fromkeys(names))}
    file = np.repeat([numbers[name] for name in names], lengths_of_chunks)
    first = np.zeros(codes.max() + 1, np.int64)
    seen = np.flatnonzero(reasons != ITEM_REASONS.index("duplicate_id"))
    first[codes[seen]] = file[seen]
    elsewhere = repeated[file[repeated] != first[codes[repeated]]]
    if not len(elsewhere):
        return
    row, uris = int(elsewhere[0]), list(numbers)
    raise InputError(
        f"{files.uri}: {len(elsewhere):,} ids stand in two files and nothing tells which row is newer:"
        f" {ITEM_KEY} {config.item_column!r} {ids[row].as_py()!r} is in {uris[first[codes[row]]]} and in {uris[file[row]]};"
        " write each snapshot into a folder of its day (dt=YYYY-MM-DD), or one row an item"
    )


def _write_ids(writer: StageWriter, ids: pa.Array) -> None:
    if pa.types.is_int64(ids.type):
        writer.array("item_ids", ids.to_numpy())
        return
    width = max(1, pc.max(pc.utf8_length(ids)).as_py())
    out = writer.memmap("item_ids", (len(ids),), f"<U{width}")
    for rows in row_blocks(len(ids), 1 << 16):
        out[rows] = ids[rows].to_numpy(zero_copy_only=False)
    out.flush()


def _batch_rows(numbers: int) -> int:
    return max(1, FEATURE_BYTES // (4 * max(1, numbers)))


def _numbers_per_row(files: ParquetFiles, columns: Mapping[str, str]) -> int:
    """The most numbers that a row of any row group holds in these columns together, on average over the group."""
    if not columns:
        return 0
    most = 1
    for file in files.files:
        with open_parquet(files.filesystem, file, columns) as parquet:
            for index in range(parquet.metadata.num_row_groups):
                group = parquet.metadata.row_group(index)
                chunks = [group.column(number) for number in range(group.num_columns)]
                # The path of a nested column is column.list.element, but a column's own name may hold dots.
                numbers = sum(
                    chunk.num_values
                    for chunk in chunks
                    if any(f"{chunk.path_in_schema}.".startswith(f"{column}.") for column in columns)
                )
                most = max(most, -(-numbers // max(1, group.num_rows)))
    return most


def _most_common_width(files: ParquetFiles, name: str, column: str, numbers_per_row: int, given: Format | None) -> int:
    """The most common length of the first embeddings, the larger one of a tie. ``numbers_per_row`` is 0 for vectors."""
    key, seen = f"source.modalities.{name}", Counter[int]()
    batch_rows = min(WIDTH_ROWS, _batch_rows(numbers_per_row)) if numbers_per_row else WIDTH_ROWS
    for _, batch in stream(files, {column: key}, batch_rows):
        vectors = segment_lists(batch.column(0))[1] if numbers_per_row else as_lists(batch.column(0), given)
        seen.update(lengths(vectors).tolist())
        if seen.total() - seen[-1] >= WIDTH_SAMPLE:
            break
    del seen[-1], seen[0]
    if not seen:
        raise InputError(
            f"{files.uri}: column {column!r} ({key}) holds no embedding; leave the modality out, or mend the column"
        )
    return max(seen, key=lambda width: (seen[width], width))


def _read_features(
    files: ParquetFiles,
    config: SourceConfig,
    items: Items,
    columns: list[FeatureColumn],
    batch_rows: int,
    writer: StageWriter,
    progress: Progress,
) -> None:
    labels = label_columns(config)
    label_schema = pa.schema([("item_id", items.source_type), *((name, pa.large_string()) for name, _, _ in labels)])
    bad_schema = pa.schema([("item_id", items.source_type), ("modality", pa.string())])
    start = 0
    with (
        ParquetSink(writer.folder / "labels.parquet", label_schema) as label_sink,
        Quarantine(writer.folder / "quarantine-features.parquet", bad_schema, SEQUENCE_REASONS) as quarantine,
    ):
        for file, batch in stream(files, wanted_columns(config), batch_rows, progress, "reading features (bytes)"):
            target = items.target[start : start + batch.num_rows]
            start += batch.num_rows
            if start > len(items.target):
                break
            kept = np.flatnonzero(target >= 0)
            rows = batch if len(kept) == len(target) else batch.take(pa.array(kept))
            first = int(target[kept[0]]) if len(kept) else 0
            ids = items.ids.slice(first, len(kept)).cast(items.source_type)
            texts = [as_text(rows.column(column), file, f"{key} {column!r}") for _, column, key in labels]
            label_sink.add(pa.table([ids, *texts], schema=label_schema))
            item_rows = slice(first, first + len(kept))
            bad = [column.add(rows.column(column.column), item_rows) for column in columns]
            _quarantine_features(quarantine, ids, [column.name for column in columns], bad)
    if start != len(items.target):
        raise InputError(f"{files.uri}: was overwritten while it was being read; run again when nothing writes to it")


def _quarantine_features(
    quarantine: Quarantine, ids: pa.Array, names: list[str], bad: list[tuple[Int64, NDArray[np.int8]]]
) -> None:
    rows = np.concatenate([bad_rows for bad_rows, _ in bad])
    if not len(rows):
        return
    columns = np.repeat(np.arange(len(bad)), [len(bad_rows) for bad_rows, _ in bad])
    reasons = np.concatenate([codes for _, codes in bad])
    # Item by item, then modality by modality: the order does not depend on where a batch ends.
    order = np.lexsort((columns, rows))
    modality = pa.array(names, pa.string()).take(pa.array(columns[order]))
    quarantine.judge(pa.table({"item_id": ids.take(pa.array(rows[order])), "modality": modality}), reasons[order])
