"""Sequences in the published table: their columns, that every value reads back, and that they can join and leave."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

from rectifier_core.base.published_records import Status
from tasks.errors import StorageError
from tasks.store.store import Ref, StageStore, StageWriter
from tasks.table.columns import most_bytes
from tasks.table.files import TableFiles
from tasks.table.publish import PublishConfig
from tasks.table.read_back import audit_files
from tasks.table.rows import open_rows
from tasks.table.write import write_files
from tests.support.table.publish_support import make_refs, publish

DAYS = ("2024-03-01", "2024-03-02")
ITEMS = 50


def sequence_refs(root: Path, *, bad: float | None = None, longest: int = 6) -> tuple[Ref, Ref]:
    """A source and a rectified output with the sequence modality "video" of width 3; items without segments are MISSING."""
    rng = np.random.default_rng(4)
    counts = rng.integers(0, longest + 1, ITEMS)
    counts[:2] = 0
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)

    def source(writer: StageWriter) -> None:
        writer.array("item_ids", np.array([f"item-{x:05d}" for x in range(ITEMS)]))
        writer.array("offsets-video", offsets)
        writer.array(
            "positions-video", (2 * (np.arange(offsets[-1]) - np.repeat(offsets[:-1], counts))).astype(np.int32)
        )
        writer.meta({"id_type": "string"})

    def rectified(writer: StageWriter) -> None:
        segments, trust = (
            rng.normal(size=(int(offsets[-1]), 3)).astype(np.float32),
            rng.random(int(offsets[-1]), dtype=np.float32),
        )
        trust[::3] = np.nan
        if bad is not None:
            segments[7, 1] = bad
        features = rng.normal(size=(ITEMS, 3)).astype(np.float32)
        features[counts == 0] = 0
        writer.array("features-video", features)
        writer.array("status-video", np.where(counts > 0, Status.RECTIFIED.code, Status.MISSING.code).astype(np.int8))
        writer.array("trust-video", np.full(ITEMS, 0.5, np.float32))
        writer.array("segments-video", segments)
        writer.array("segment_trust-video", trust)
        writer.meta({"features": ["video"], "sequences": ["video"]})

    store = StageStore(root)
    return store.once("source", ("sequences", longest), source), store.once(
        "rectified", ("sequences", bad, longest), rectified
    )


def wanted(refs: tuple[Ref, Ref]) -> dict[str, list[Any]]:
    """The published sequence columns as Python values."""
    source, rectified = refs
    offsets = source.array("offsets-video")
    parts = {
        "video_segments": rectified.array("segments-video").tolist(),
        "video_segment_positions": source.array("positions-video").tolist(),
        "video_segment_trust": [None if np.isnan(x) else x for x in rectified.array("segment_trust-video").tolist()],
    }
    bounds = list(zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True))
    return {name: [values[a:b] if b > a else None for a, b in bounds] for name, values in parts.items()}


@pytest.fixture
def config(tmp_path: Path) -> PublishConfig:
    return PublishConfig(uri=str(tmp_path / "warehouse" / "features"))


@pytest.mark.parametrize("rows_per_file", [7, 250_000])
def test_sequences_read_back_with_polars_and_pyarrow(tmp_path: Path, config: PublishConfig, rows_per_file: int) -> None:
    refs = sequence_refs(tmp_path / "stages")
    publish(replace(config, rows_per_file=rows_per_file), refs, DAYS[0])
    by_polars = pl.scan_delta(config.uri).sort("item_id").collect()
    assert by_polars.schema["video_segments"] == pl.List(pl.List(pl.Float32()))
    assert by_polars.schema["video_segment_trust"] == pl.List(pl.Float32())
    assert by_polars.schema["video_segment_positions"] == pl.List(pl.Int32())
    by_arrow = DeltaTable(config.uri).to_pyarrow_table().sort_by("item_id")
    for name, values in wanted(refs).items():
        assert by_polars[name].to_list() == values
        assert by_arrow[name].to_pylist() == values
    assert by_polars["video"].to_list() == [
        row.tolist() if code != Status.MISSING.code else None
        for row, code in zip(refs[1].array("features-video"), refs[1].array("status-video"), strict=True)
    ]


def test_a_table_without_sequences_gains_them_and_keeps_its_past(tmp_path: Path, config: PublishConfig) -> None:
    refs, plain = sequence_refs(tmp_path / "stages"), make_refs(tmp_path / "stages", widths={"video": 3})
    publish(config, plain, DAYS[0])
    publish(config, refs, DAYS[1])
    read = pl.scan_delta(config.uri).sort("as_of", "item_id").collect()
    assert read.columns[-1] == "run_id"
    assert read["video_segments"][:ITEMS].null_count() == ITEMS
    assert read["video_segments"][ITEMS:].to_list() == wanted(refs)["video_segments"]
    assert pa.table(DeltaTable(config.uri).to_pyarrow_table())["video_segment_trust"].null_count >= ITEMS
    publish(config, make_refs(tmp_path / "stages", widths={"video": 3}, seed=1), "2024-03-03")
    again = pl.scan_delta(config.uri).sort("as_of", "item_id").collect()
    assert again["video_segments"].to_list() == [*read["video_segments"].to_list(), *[None] * ITEMS]


def test_sequences_can_be_left_out(tmp_path: Path, config: PublishConfig) -> None:
    publish(replace(config, sequences=False), sequence_refs(tmp_path / "stages"), DAYS[0])
    assert pl.scan_delta(config.uri).collect_schema().names() == [
        "as_of",
        "item_id",
        "video",
        "video_trust",
        "video_status",
        "run_id",
    ]


def test_segments_are_stored_plain(tmp_path: Path, config: PublishConfig) -> None:
    publish(config, sequence_refs(tmp_path / "stages"), DAYS[0])
    path = next(Path(config.uri).rglob("*.parquet"))
    group = pq.ParquetFile(path).metadata.row_group(0)
    column = next(
        x for x in (group.column(i) for i in range(group.num_columns)) if x.path_in_schema.startswith("video_segments.")
    )
    assert (column.compression, column.has_dictionary_page) == ("UNCOMPRESSED", False)


def test_the_same_rows_give_the_same_bytes(tmp_path: Path) -> None:
    refs = sequence_refs(tmp_path / "stages")
    digests = set()
    for name in ("a", "b"):
        files = TableFiles(str(tmp_path / name))
        written = list(write_files(files, open_rows(*refs, "run"), 20, lambda index: f"part-{index}.parquet"))
        assert audit_files(files, open_rows(*refs, "run"), written)
        digests.add(tuple((tmp_path / name / x.path).read_bytes() for x in written))
    assert len(digests) == 1


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_segment_that_is_not_finite_is_not_published(tmp_path: Path, config: PublishConfig, bad: float) -> None:
    with pytest.raises(StorageError, match="a value of video_segments that is not finite"):
        publish(config, sequence_refs(tmp_path / "stages", bad=bad), DAYS[0])
    assert not list(Path(config.uri).rglob("*.parquet"))


def test_the_audit_sees_other_segments_and_other_trust(tmp_path: Path) -> None:
    refs = sequence_refs(tmp_path / "stages")
    files, rows = TableFiles(str(tmp_path / "table")), open_rows(*refs, "run")
    written = list(write_files(files, rows, 250_000, lambda index: f"part-{index}.parquet"))
    sequence = rows.modalities[0].sequence
    assert sequence is not None
    for field in ("segments", "trust", "positions"):
        other = np.array(getattr(sequence, field))
        other[1] = 7
        changed = replace(rows.modalities[0], sequence=replace(sequence, **{field: other}))
        with pytest.raises(StorageError, match="other values than were written"):
            audit_files(files, replace(rows, modalities=(changed,)), written)


def test_blocks_shrink_where_long_sequences_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = open_rows(*sequence_refs(tmp_path / "stages", longest=40), "run")
    sequence = rows.modalities[0].sequence
    assert sequence is not None
    monkeypatch.setattr("tasks.table.rows._BLOCK_BYTES", 4000)
    assert 1 <= rows.block_rows < ITEMS
    assert most_bytes(sequence, rows.block_rows) <= 4000 or rows.block_rows == 1
    files = TableFiles(str(tmp_path / "table"))
    written = list(write_files(files, rows, 250_000, lambda index: f"part-{index}.parquet"))
    assert audit_files(files, rows, written)
    found = [x for file in written for x in pq.read_table(tmp_path / "table" / file.path)["video_segments"].to_pylist()]
    assert found == wanted(sequence_refs(tmp_path / "stages", longest=40))["video_segments"]


def test_arrays_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    source, rectified = sequence_refs(tmp_path / "stages")
    other, _ = sequence_refs(tmp_path / "stages", longest=9)
    with pytest.raises(ValueError, match="offsets-video"):
        open_rows(other, rectified, "run")
    assert open_rows(source, rectified, "run").modalities[0].sequence is not None
