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

from rectifier_core.base.arrays import Bool, Float32, Int64, UInt64
from rectifier_core.base.numerics import Progress, row_blocks
from tasks.errors import InputError
from tasks.source.arrow_columns import (
    FEATURE_REASONS,
    as_ids,
    as_text,
    embeddings,
    judge_features,
    lengths,
    segment_lists,
)
from tasks.source.config import SourceConfig
from tasks.source.files import ParquetFiles, ahead, batches, open_parquet, stream
from tasks.source.quarantine import USABLE, ParquetSink, Quarantine, stop_if_too_many
from tasks.source.schema import ITEM_KEY, check_columns, label_columns, wanted_columns
from tasks.source.sequences import (
    FIRST_SEGMENT_REASON,
    SEQUENCE_REASONS,
    SequenceWriter,
    judge_sequences,
    numbers_per_row,
)
from tasks.store.store import StageWriter

ITEM_REASONS = ("null_id", "duplicate_id", "id_too_long", "id_ends_with_nul")
# Ids are kept as text of a fixed width, that of the longest: one beyond all measure would make every other as large.
LONGEST_ID = 512
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
    """One modality while it is being read; ``quarantined`` counts items, ``dropped`` the segments of a sequence by reason."""

    name: str
    column: str
    width: int
    present: Bool
    digest: UInt64
    missing: int
    quarantined: dict[str, int]
    dropped: dict[str, int]
    segments_read: int = 0
    writer: SequenceWriter | None = None
    features: Float32 | None = None

    def count(self, codes: NDArray[np.int8]) -> None:
        """Take note of what cannot be used."""
        for code, number in enumerate(np.bincount(codes, minlength=len(SEQUENCE_REASONS)).tolist()):
            found = self.quarantined if code < FIRST_SEGMENT_REASON else self.dropped
            if number or SEQUENCE_REASONS[code] in found:
                found[SEQUENCE_REASONS[code]] += number


def read_catalog(
    files: ParquetFiles, config: SourceConfig, writer: StageWriter, progress: Progress
) -> tuple[Items, dict[str, Any]]:
    """Write the items, labels, features and their quarantine; return the items and each modality's share of ``meta.json``.

    Raises InputError for a missing or unusable column, an unreadable file, an empty catalog, or too much in quarantine.
    """
    # Imported here: this loads torch and numba, and `status` imports this module without reading a catalog.
    from rectifier_core.base.row_digest import row_digests

    family, source_type, sequences = check_columns(files, config)
    items = _read_items(files, config, family, source_type, writer, progress)
    _write_ids(writer, items.ids)
    widths = {name: _common_width(files, name, column, name in sequences) for name, column in config.modalities.items()}
    modalities = [
        _Modality(
            name=name,
            column=column,
            width=widths[name],
            present=np.zeros(len(items.ids), dtype=np.bool_),
            digest=np.full(len(items.ids), row_digests(np.zeros((1, widths[name]), np.float32))[0], np.uint64),
            missing=0,
            quarantined=dict.fromkeys(("zero_norm", "no_usable_segment") if name in sequences else FEATURE_REASONS, 0),
            dropped=dict.fromkeys(SEQUENCE_REASONS[FIRST_SEGMENT_REASON:], 0) if name in sequences else {},
        )
        for name, column in sorted(config.modalities.items())
    ]
    _read_features(files, config, items, modalities, writer, progress)
    for modality in modalities:
        writer.array(f"present-{modality.name}", modality.present)
        writer.array(f"digest-{modality.name}", modality.digest)
        if modality.writer is not None:
            stop_if_too_many(
                f"source.modalities.{modality.name}, the segments in column {modality.column!r} of {files.uri}",
                modality.dropped,
                modality.segments_read,
                config.max_quarantined,
                "mend the segments",
            )
        stop_if_too_many(
            f"source.modalities.{modality.name}, the features in column {modality.column!r} of {files.uri}",
            modality.quarantined,
            len(modality.present) - modality.missing,
            config.max_quarantined,
            "mend the features",
        )
        if not modality.present.any():
            raise InputError(
                f"{files.uri}: column {modality.column!r} (source.modalities.{modality.name}) holds no usable feature"
            )
    return items, {x.name: _summary(x) for x in modalities}


def _summary(modality: _Modality) -> dict[str, Any]:
    found = {
        "column": modality.column,
        "width": modality.width,
        "present": int(modality.present.sum()),
        "missing": modality.missing,
        "quarantined": modality.quarantined,
    }
    return (
        found
        if modality.writer is None
        else found | {"segments": modality.writer.length, "segments_quarantined": modality.dropped}
    )


def _read_items(
    files: ParquetFiles,
    config: SourceConfig,
    family: pa.DataType,
    source_type: pa.DataType,
    writer: StageWriter,
    progress: Progress,
) -> Items:
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
    if pa.types.is_large_string(ids.type):
        # Fixed-width text drops the NULs at its end, so two ids would become one.
        for reason, found in (
            ("id_ends_with_nul", pc.ends_with(ids, "\0")),
            ("id_too_long", pc.greater(pc.utf8_length(ids), LONGEST_ID)),
        ):
            reasons[(reasons == USABLE) & np.asarray(found.fill_null(False))] = ITEM_REASONS.index(reason)
    schema = pa.schema([("row_number", pa.int64()), ("item_id", source_type)])
    with Quarantine(writer.folder / "quarantine-items.parquet", schema, ITEM_REASONS) as quarantine:
        usable = quarantine.judge(pa.table({"row_number": np.arange(len(ids)), "item_id": ids}), reasons)
    stop_if_too_many(
        f"{files.uri}: catalog rows", quarantine.counts, len(ids), config.max_quarantined, f"mend {ITEM_KEY}"
    )
    if not usable.any():
        raise InputError(
            f"{files.uri}: the catalog is empty: no row has a usable item id ({ITEM_KEY} {config.item_column!r})"
        )
    target = np.where(usable, np.cumsum(usable) - 1, -1)
    return Items(
        ids=ids.filter(pa.array(usable)), source_type=source_type, target=target, quarantined=quarantine.counts
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


def _common_width(files: ParquetFiles, name: str, column: str, sequence: bool) -> int:
    """The most common length of the first embeddings, the larger one of a tie."""
    key, seen = f"source.modalities.{name}", Counter[int]()
    batch_rows = WIDTH_ROWS if not sequence else min(WIDTH_ROWS, _batch_rows(numbers_per_row(files, {column: key})))
    for file in files.files:
        with open_parquet(files.filesystem, file, {column: key}) as parquet:
            for batch in batches(parquet, file, [column], batch_rows):
                seen.update(lengths(segment_lists(batch.column(0))[1] if sequence else batch.column(0)).tolist())
                if seen.total() - seen[-1] >= WIDTH_SAMPLE:
                    break
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
    modalities: list[_Modality],
    writer: StageWriter,
    progress: Progress,
) -> None:
    for modality in modalities:
        modality.features = writer.memmap(f"features-{modality.name}", (len(items.ids), modality.width), np.float32)
    sequences = {x.column: f"source.modalities.{x.name}" for x in modalities if x.dropped}
    labels = label_columns(config)
    label_schema = pa.schema([("item_id", items.source_type), *((name, pa.large_string()) for name, _, _ in labels)])
    bad_schema = pa.schema([("item_id", items.source_type), ("modality", pa.string())])
    numbers = sum(x.width for x in modalities if not x.dropped) + (
        numbers_per_row(files, sequences) if sequences else 0
    )
    start = 0
    with ExitStack() as stack:
        label_sink = stack.enter_context(ParquetSink(writer.folder / "labels.parquet", label_schema))
        quarantine = stack.enter_context(
            Quarantine(writer.folder / "quarantine-features.parquet", bad_schema, SEQUENCE_REASONS)
        )
        for modality in modalities:
            if modality.dropped:
                opened = SequenceWriter(writer.folder, modality.name, modality.width, len(items.ids))
                modality.writer = stack.enter_context(opened)
        for file, batch in ahead(
            stream(files, wanted_columns(config), _batch_rows(numbers), progress, "reading features (bytes)")
        ):
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
            place = slice(first, first + len(kept))
            bad = [_store(rows.column(x.column), x, place) for x in modalities]
            _quarantine_features(quarantine, ids, modalities, bad)
    if start != len(items.target):
        raise InputError(f"{files.uri}: was overwritten while it was being read; run again when nothing writes to it")


def _batch_rows(numbers: int) -> int:
    return max(1, FEATURE_BYTES // (4 * numbers))


def _store(column: pa.Array, modality: _Modality, rows: slice) -> tuple[Int64, NDArray[np.int8]]:
    """Write what is good of one batch to its rows, and return which rows hold something bad, ascending, and the reason's index."""
    return _store_sequences(column, modality, rows) if modality.writer else _store_features(column, modality, rows)


def _store_features(column: pa.Array, modality: _Modality, rows: slice) -> tuple[Int64, NDArray[np.int8]]:
    given = lengths(column) >= 0
    right, values = embeddings(column, modality.width)
    good, reasons = judge_features(values)
    codes = np.where(given, np.int8(FEATURE_REASONS.index("wrong_width")), np.int8(USABLE))
    codes[right] = reasons
    modality.missing += int((~given).sum())
    _write_features(modality, rows, right[good], values if good.all() else values[good])
    bad = np.flatnonzero(codes != USABLE)
    return bad, codes[bad]


def _store_sequences(column: pa.Array, modality: _Modality, rows: slice) -> tuple[Int64, NDArray[np.int8]]:
    found = judge_sequences(column, modality.width)
    good = np.flatnonzero(found.counts)
    modality.missing += int(found.missing.sum())
    modality.segments_read += found.read
    if modality.writer is not None:
        modality.writer.append(rows, found.counts, found.segments, found.positions)
    _write_features(modality, rows, good, found.features[good])
    return found.bad_rows, found.bad_codes


def _write_features(modality: _Modality, rows: slice, good: Int64, values: Float32) -> None:
    from rectifier_core.base.row_digest import row_digests

    modality.present[rows][good] = True
    modality.digest[rows][good] = row_digests(values)
    if modality.features is not None and len(good):
        if len(good) < rows.stop - rows.start:
            values, there = np.zeros((rows.stop - rows.start, modality.width), np.float32), values
            values[good] = there
        modality.features[rows] = values


def _quarantine_features(
    quarantine: Quarantine, ids: pa.Array, modalities: list[_Modality], bad: list[tuple[Int64, NDArray[np.int8]]]
) -> None:
    for modality, (_, codes) in zip(modalities, bad, strict=True):
        modality.count(codes)
    rows = np.concatenate([found for found, _ in bad])
    if not len(rows):
        return
    columns = np.repeat(np.arange(len(bad)), [len(found) for found, _ in bad])
    reasons = np.concatenate([codes for _, codes in bad])
    # Item by item, then modality by modality: the order does not depend on where a batch ends.
    order = np.lexsort((columns, rows))
    rows, columns, reasons = rows[order], columns[order], reasons[order]
    names = pa.array([x.name for x in modalities], pa.string())
    quarantine.judge(
        pa.table({"item_id": ids.take(pa.array(rows)), "modality": names.take(pa.array(columns))}), reasons
    )
