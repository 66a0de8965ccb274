"""Reading a catalog in two passes: the ids, which settle the items and their order, then labels and features straight to disk."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rectifier_core.numerics import Progress, row_blocks
from rectifier_core.records import Bool, Float32, Int64
from tasks.errors import InputError
from tasks.references import StageWriter
from tasks.source_columns import as_ids, as_text, check_embedding, embeddings, id_family, lengths, plain_type
from tasks.source_config import SourceConfig
from tasks.source_files import ParquetFiles, batches, open_parquet, stream
from tasks.source_quarantine import USABLE, ParquetSink, Quarantine, stop_if_too_many

ITEM_REASONS = ("null_id", "duplicate_id")
FEATURE_REASONS = ("nan_or_infinite", "zero_norm", "wrong_width")
ITEM_KEY = "source.item_column"
ID_ROWS = 1 << 18
# Rows of features are read so many at a time that one batch stays near this many bytes as float32.
FEATURE_BYTES = 1 << 22
WIDTH_SAMPLE = 10_000
WIDTH_ROWS = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Items:
    """The usable items in catalog order: ``ids`` [I] as int64 or large_string, and what the catalog was found to hold.

    ``target[r]`` is the item that catalog row r became, or -1.
    """

    ids: pa.Array
    source_type: pa.DataType
    target: Int64
    quarantined: Mapping[str, int]


@dataclass(slots=True, kw_only=True)
class _Modality:
    """One modality while it is being read."""

    name: str
    column: str
    width: int
    present: Bool
    missing: int
    quarantined: dict[str, int]


def read_catalog(files: ParquetFiles, config: SourceConfig, writer: StageWriter, progress: Progress) -> tuple[Items, dict[str, Any]]:
    """Write the items, labels, features and their quarantine; return the items and each modality's share of ``meta.json``.

    Raises InputError for a missing or unusable column, an unreadable file, an empty catalog, or too much in quarantine.
    """
    items = _read_items(files, config, writer, progress)
    _write_ids(writer, items.ids)
    modalities = [
        _Modality(
            name=name,
            column=column,
            width=_common_width(files, name, column),
            present=np.zeros(len(items.ids), dtype=np.bool_),
            missing=0,
            quarantined=dict.fromkeys(FEATURE_REASONS, 0),
        )
        for name, column in sorted(config.modalities.items())
    ]
    _read_features(files, config, items, modalities, writer, progress)
    for modality in modalities:
        writer.array(f"present-{modality.name}", modality.present)
        stop_if_too_many(
            f"source.modalities.{modality.name}, the features in column {modality.column!r} of {files.uri}",
            modality.quarantined,
            len(modality.present) - modality.missing,
            config.max_quarantined,
            "mend the features",
        )
        if not modality.present.any():
            raise InputError(f"{files.uri}: column {modality.column!r} (source.modalities.{modality.name}) holds no usable feature")
    return items, {x.name: _summary(x) for x in modalities}


def _summary(modality: _Modality) -> dict[str, Any]:
    return {
        "column": modality.column,
        "width": modality.width,
        "present": int(modality.present.sum()),
        "missing": modality.missing,
        "quarantined": modality.quarantined,
    }


def _wanted(config: SourceConfig) -> dict[str, str]:
    wanted = {column: f"source.modalities.{name}" for name, column in config.modalities.items()}
    wanted |= {column: key for _, column, key in _labels(config)}
    return wanted | {config.item_column: ITEM_KEY}


def _labels(config: SourceConfig) -> list[tuple[str, str, str]]:
    """The configured label columns: name in ``labels.parquet``, name in the catalog, config key."""
    found = []
    if config.title_column is not None:
        found.append(("title", config.title_column, "source.title_column"))
    if config.category_column is not None:
        found.append(("category", config.category_column, "source.category_column"))
    return found


def _check_columns(files: ParquetFiles, config: SourceConfig) -> tuple[pa.DataType, pa.DataType]:
    """The common type of the ids and their type in the files; every file's columns are looked at before any row is read."""
    families, types = [], []
    for file in files.files:
        with open_parquet(files.filesystem, file, _wanted(config)) as parquet:
            schema = parquet.schema_arrow
        kind = schema.field(config.item_column).type
        families.append(id_family(kind, file, f"{ITEM_KEY} {config.item_column!r}"))
        types.append(plain_type(kind))
        if families[-1] != families[0]:
            raise InputError(f"{file.uri}: {ITEM_KEY} {config.item_column!r} is {types[-1]}, but {types[0]} in {files.files[0].uri}")
        for name, column in config.modalities.items():
            check_embedding(schema.field(column).type, file, f"source.modalities.{name} {column!r}")
    return families[0], types[0] if all(x == types[0] for x in types) else families[0]


def _read_items(files: ParquetFiles, config: SourceConfig, writer: StageWriter, progress: Progress) -> Items:
    family, source_type = _check_columns(files, config)
    wanted = {config.item_column: ITEM_KEY}
    chunks = [
        as_ids(batch.column(0), family, file, f"{ITEM_KEY} {config.item_column!r}")
        for file, batch in stream(files, wanted, ID_ROWS, progress, "reading item ids (bytes)")
    ]
    ids = pa.chunked_array(chunks, type=family).combine_chunks()
    if not len(ids):
        raise InputError(f"{files.uri}: the catalog is empty: it has no rows")
    # Codes count up in order of first appearance, so a row is the first of its id where its code exceeds all before it.
    codes = np.asarray(pc.dictionary_encode(ids).indices.fill_null(-1)).astype(np.int64)
    before = np.concatenate([[-1], np.maximum.accumulate(codes)[:-1]])
    reasons = np.where(codes < 0, np.int8(0), np.where(codes > before, np.int8(USABLE), np.int8(1)))
    schema = pa.schema([("row_number", pa.int64()), ("item_id", source_type)])
    with Quarantine(writer.folder / "quarantine-items.parquet", schema, ITEM_REASONS) as quarantine:
        usable = quarantine.judge(pa.table({"row_number": np.arange(len(ids)), "item_id": ids}), reasons)
    stop_if_too_many(f"{files.uri}: catalog rows", quarantine.counts, len(ids), config.max_quarantined, f"mend {ITEM_KEY}")
    if not usable.any():
        raise InputError(f"{files.uri}: the catalog is empty: no row has an item id ({ITEM_KEY} {config.item_column!r})")
    target = np.where(usable, np.cumsum(usable) - 1, -1)
    return Items(ids=ids.filter(pa.array(usable)), source_type=source_type, target=target, quarantined=quarantine.counts)


def _write_ids(writer: StageWriter, ids: pa.Array) -> None:
    if pa.types.is_int64(ids.type):
        writer.array("item_ids", ids.to_numpy())
        return
    if pc.any(pc.ends_with(ids, pattern="\0")).as_py():
        raise InputError(f"{ITEM_KEY}: an item id ends with a NUL character, which fixed-width text cannot hold; strip it")
    width = max(1, pc.max(pc.utf8_length(ids)).as_py())
    out = writer.memmap("item_ids", (len(ids),), f"<U{width}")
    for rows in row_blocks(len(ids), 1 << 16):
        out[rows] = ids[rows].to_numpy(zero_copy_only=False)
    out.flush()


def _common_width(files: ParquetFiles, name: str, column: str) -> int:
    """The most common length of the first embeddings, the larger one of a tie."""
    key, seen = f"source.modalities.{name}", Counter[int]()
    for file in files.files:
        with open_parquet(files.filesystem, file, {column: key}) as parquet:
            for batch in batches(parquet, file, [column], WIDTH_ROWS):
                seen.update(lengths(batch.column(0)).tolist())
                if seen.total() - seen[-1] >= WIDTH_SAMPLE:
                    break
        if seen.total() - seen[-1] >= WIDTH_SAMPLE:
            break
    del seen[-1], seen[0]
    if not seen:
        raise InputError(f"{files.uri}: column {column!r} ({key}) holds no embedding; leave the modality out, or mend the column")
    return max(seen, key=lambda width: (seen[width], width))


def _read_features(
    files: ParquetFiles, config: SourceConfig, items: Items, modalities: list[_Modality], writer: StageWriter, progress: Progress
) -> None:
    for modality in modalities:
        writer.memmap(f"features-{modality.name}", (len(items.ids), modality.width), np.float32).flush()
    labels = _labels(config)
    label_schema = pa.schema([("item_id", items.source_type), *((name, pa.large_string()) for name, _, _ in labels)])
    bad_schema = pa.schema([("item_id", items.source_type), ("modality", pa.string())])
    batch_rows = max(1, FEATURE_BYTES // (4 * sum(x.width for x in modalities)))
    start = 0
    with ExitStack() as stack:
        label_sink = stack.enter_context(ParquetSink(writer.folder / "labels.parquet", label_schema))
        quarantine = stack.enter_context(Quarantine(writer.folder / "quarantine-features.parquet", bad_schema, FEATURE_REASONS))
        for file, batch in stream(files, _wanted(config), batch_rows, progress, "reading features (bytes)"):
            target = items.target[start : start + batch.num_rows]
            start += batch.num_rows
            if start > len(items.target):
                break
            kept = np.flatnonzero(target >= 0)
            rows = batch if len(kept) == len(target) else batch.take(pa.array(kept))
            first = int(target[kept[0]]) if len(kept) else 0
            ids = items.ids.slice(first, len(kept)).cast(items.source_type)
            shown = [as_text(rows.column(column), file, f"{key} {column!r}") for _, column, key in labels]
            label_sink.add(pa.table([ids, *shown], schema=label_schema))
            codes = [_store_features(rows.column(x.column), x, slice(first, first + len(kept)), writer) for x in modalities]
            _quarantine_features(quarantine, ids, modalities, codes)
    if start != len(items.target):
        raise InputError(f"{files.uri}: was overwritten while it was being read; run again when nothing writes to it")


def _store_features(column: pa.Array, modality: _Modality, rows: slice, writer: StageWriter) -> NDArray[np.int8]:
    """Write the good features of one batch to their rows, and return a reason's index or ``USABLE`` for each row."""
    given = lengths(column) >= 0
    right, values = embeddings(column, modality.width)
    good, reasons = _judge_features(values)
    codes = np.where(given, np.int8(FEATURE_REASONS.index("wrong_width")), np.int8(USABLE))
    codes[right] = reasons
    modality.missing += int((~given).sum())
    modality.present[rows][right[good]] = True
    # Mapped anew for each batch: a map kept open would hold every page written so far in this process's memory.
    out = np.load(writer.folder / f"features-{modality.name}.npy", mmap_mode="r+", allow_pickle=False)
    if len(right) == len(given) and good.all():
        out[rows] = values
    else:
        out[rows][right[good]] = values[good]
    return codes


def _judge_features(values: Float32) -> tuple[Bool, NDArray[np.int8]]:
    """Which rows [K, D] can be used [K] bool, and the reason's index or ``USABLE`` [K] int8.

    The norm is judged in float32, as everything after works in it: a row whose squares overflow or vanish there is of no use either.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        squares = np.einsum("ij,ij->i", values, values)
    finite, zero = np.isfinite(squares), squares == 0
    codes = np.full(len(values), USABLE, dtype=np.int8)
    codes[zero] = FEATURE_REASONS.index("zero_norm")
    codes[~finite] = FEATURE_REASONS.index("nan_or_infinite")
    return finite & ~zero, codes


def _quarantine_features(quarantine: Quarantine, ids: pa.Array, modalities: list[_Modality], codes: list[NDArray[np.int8]]) -> None:
    found = np.stack(codes, axis=1)
    # Item by item, then modality by modality: the order does not depend on where a batch ends.
    rows, columns = np.nonzero(found != USABLE)
    if not len(rows):
        return
    reasons = found[rows, columns]
    for index, modality in enumerate(modalities):
        for code, reason in enumerate(FEATURE_REASONS):
            modality.quarantined[reason] += int(((columns == index) & (reasons == code)).sum())
    names = pa.array([x.name for x in modalities], pa.string())
    quarantine.judge(pa.table({"item_id": ids.take(pa.array(rows)), "modality": names.take(pa.array(columns))}), reasons)
