"""The rows of a published table: their columns and values, how they are stored, and that writing is read back before the commit."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

from rectifier_core.base.published_records import Status
from tasks.errors import InputError, StorageError
from tasks.store.peak_memory import watch_memory
from tasks.store.store import Ref
from tasks.table.files import TableFiles
from tasks.table.publish import PublishConfig, publish_rectified
from tasks.table.read_back import audit_files
from tasks.table.rows import open_rows
from tasks.table.write import write_files
from tests.support.table.publish_support import anchors_ref, data_files, identity, make_refs, publish, sequence_refs

DAYS = ("2024-03-01", "2024-03-02", "2024-03-03")
ITEMS = 50


def segment_columns(refs: tuple[Ref, Ref]) -> dict[str, list[Any]]:
    """The published columns of the sequence modality "video" as Python values."""
    source, rectified = refs
    offsets = source.array("offsets-video").tolist()
    parts = {
        "video_segments": rectified.array("segments-video").tolist(),
        "video_segment_positions": source.array("positions-video").tolist(),
        "video_segment_trust": [None if np.isnan(x) else x for x in rectified.array("segment_trust-video").tolist()],
    }
    bounds = list(itertools.pairwise(offsets))
    return {name: [values[a:b] if b > a else None for a, b in bounds] for name, values in parts.items()}


@pytest.mark.parametrize("rows_per_file", [7, 250_000])
def test_every_value_reads_back_in_order(tmp_path: Path, refs: tuple[Ref, Ref], rows_per_file: int) -> None:
    config = PublishConfig(uri=str(tmp_path / "table"), rows_per_file=rows_per_file)
    done = publish(config, refs, DAYS[0])
    assert (done.version, done.rows, done.published, done.as_of) == (0, 50, True, DAYS[0])
    source, rectified = refs
    paths = sorted(data_files(config.uri))
    assert len(paths) == -(-50 // rows_per_file)
    read = pa.concat_tables([pq.ParquetFile(f"{config.uri}/{path}").read() for path in paths])
    assert read["item_id"].to_pylist() == source.array("item_ids").tolist()
    for name in ("image", "text"):
        status, features, trust = (rectified.array(f"{part}-{name}") for part in ("status", "features", "trust"))
        vectors = [
            x.tolist() if code != Status.MISSING.code else None for code, x in zip(status, features, strict=True)
        ]
        assert read[name].to_pylist() == vectors
        assert read[f"{name}_status"].to_pylist() == [list(Status)[code].value for code in status]
        assert read[f"{name}_trust"].to_pylist() == [None if np.isnan(x) else x for x in trust.tolist()]
    assert set(read["run_id"].to_pylist()) == {identity(DAYS[0]).run_id}
    types = pl.scan_delta(config.uri).collect().schema
    expected = {"": pl.List(pl.Float32()), "_trust": pl.Float32(), "_status": pl.String(), "_moved": pl.Float32()}
    columns = {f"{m}{part}": kind for m in ("image", "text") for part, kind in expected.items()}
    assert types == pl.Schema({"as_of": pl.Date(), "item_id": pl.String(), **columns, "run_id": pl.String()})


@pytest.mark.parametrize("rows_per_file", [7, 250_000])
def test_segments_read_back(tmp_path: Path, config: PublishConfig, rows_per_file: int) -> None:
    refs = sequence_refs(tmp_path / "stages")
    publish(replace(config, rows_per_file=rows_per_file), refs, DAYS[0])
    by_polars = pl.scan_delta(config.uri).sort("item_id").collect()
    by_arrow = DeltaTable(config.uri).to_pyarrow_table().sort_by("item_id")
    assert by_polars.schema["video_segments"] == pl.List(pl.List(pl.Float32()))
    for name, values in segment_columns(refs).items():
        assert by_polars[name].to_list() == by_arrow[name].to_pylist() == values


def test_a_table_gains_segments_and_keeps_its_past(tmp_path: Path, config: PublishConfig) -> None:
    refs, plain = sequence_refs(tmp_path / "stages"), make_refs(tmp_path / "stages", widths={"video": 3})
    publish(config, plain, DAYS[0])
    publish(config, refs, DAYS[1])
    publish(replace(config, sequences=False), refs, DAYS[2], seed=1)
    read = pl.scan_delta(config.uri).sort("as_of", "item_id").collect()
    none = [None] * ITEMS
    assert read["video_segments"].to_list() == [*none, *segment_columns(refs)["video_segments"], *none]
    without = replace(config, uri=f"{config.uri}-2", sequences=False)
    publish(without, refs, DAYS[0])
    columns = ["as_of", "item_id", "video", "video_trust", "video_status", "video_moved", "run_id"]
    assert pl.scan_delta(without.uri).collect_schema().names() == columns


def test_a_table_gains_the_anchors_and_keeps_its_past(tmp_path: Path, refs: tuple[Ref, Ref]) -> None:
    config = PublishConfig(uri=str(tmp_path / "table"), rows_per_file=7)
    anchors = anchors_ref(tmp_path / "stages")
    publish(config, refs, DAYS[0])
    publish(config, refs, DAYS[1], anchors=anchors)
    publish(config, refs, DAYS[2])
    source, trained = refs[0].array("item_ids").tolist(), anchors.array("trained")
    rows = zip(source, trained, anchors.array("items").tolist(), strict=True)
    wanted = {item: place if known else None for item, known, place in rows}
    read = pl.scan_delta(config.uri).collect()
    assert read.columns[-2:] == ["behaviour", "run_id"] and read.schema["behaviour"] == pl.List(pl.Float32())
    of_day = {str(day): frame for (day,), frame in read.partition_by("as_of", as_dict=True).items()}
    assert dict(of_day[DAYS[1]].select("item_id", "behaviour").iter_rows()) == wanted
    assert None in wanted.values() and not trained.all()
    assert of_day[DAYS[0]]["behaviour"].null_count() == of_day[DAYS[2]]["behaviour"].null_count() == ITEMS
    by_arrow = DeltaTable(config.uri).to_pyarrow_table(filters=[("as_of", "=", date.fromisoformat(DAYS[1]))])
    assert dict(zip(by_arrow["item_id"].to_pylist(), by_arrow["behaviour"].to_pylist(), strict=True)) == wanted


def test_anchors_that_are_missing_or_of_other_items_are_refused(
    tmp_path: Path, config: PublishConfig, refs: tuple[Ref, Ref]
) -> None:
    with pytest.raises(ValueError, match="anchors: the arrays are not of the 50 items"):
        publish(config, refs, DAYS[0], anchors=anchors_ref(tmp_path / "stages", items=49))
    with pytest.raises(ValueError, match="wanted the anchors"):
        publish_rectified(replace(config, behaviour=True), identity(DAYS[0]), *refs, {})


@pytest.mark.parametrize(
    ("id_type", "published"),
    [("large_string", pa.string()), ("int32", pa.int32()), ("uint32", pa.int64())],
)
def test_ids_keep_their_type(tmp_path: Path, config: PublishConfig, id_type: str, published: pa.DataType) -> None:
    refs = make_refs(tmp_path / "stages", id_type=id_type)
    publish(config, refs, DAYS[0])
    read = DeltaTable(config.uri).to_pyarrow_table()
    assert read.schema.field("item_id").type == published
    assert read["item_id"].to_pylist() == refs[0].array("item_ids").tolist()
    assert pl.scan_delta(config.uri).select(pl.len()).collect().item() == 50


def test_a_filter_on_any_column_finds_its_rows(tmp_path: Path) -> None:
    config = PublishConfig(uri=str(tmp_path / "table"), rows_per_file=20)
    # The later day has a modality more, which the earlier day's files do not hold.
    publish(config, make_refs(tmp_path / "one", widths={"image": 4}), DAYS[0])
    publish(config, make_refs(tmp_path / "two"), DAYS[1], seed=1)
    dataset = DeltaTable(config.uri).to_pyarrow_dataset()
    rows, lazy, run_id = dataset.to_table(), pl.scan_delta(config.uri), identity(DAYS[1], 1).run_id
    filters = {
        "image_trust < 0.5": pc.field("image_trust") < 0.5,
        "image_trust is null": pc.field("image_trust").is_null(),
        "text_status is null": pc.field("text_status").is_null(),
        "image_status = 'missing'": pc.field("image_status") == "missing",
        f"run_id = '{run_id}'": pc.field("run_id") == run_id,
        "item_id = 'item-00012'": pc.field("item_id") == "item-00012",
    }
    for sql, expression in filters.items():
        wanted = rows.filter(expression).num_rows
        assert 0 < wanted < len(rows)
        assert dataset.to_table(filter=expression).num_rows == wanted, sql
        assert duckdb.sql(f"SELECT count(*) FROM dataset WHERE {sql}").fetchall() == [(wanted,)], sql
        assert lazy.filter(pl.sql_expr(sql)).collect().height == wanted, sql


def test_the_same_rows_give_the_same_bytes(tmp_path: Path) -> None:
    refs = sequence_refs(tmp_path / "stages")
    first, second = (PublishConfig(uri=str(tmp_path / name), rows_per_file=20) for name in ("first", "second"))
    for config in (first, second):
        publish(config, refs, DAYS[0])
    assert len(data_files(first.uri)) == 3 and data_files(first.uri) == data_files(second.uri)


def test_a_larger_table_is_written_a_block_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.table.rows._BLOCK_BYTES", 1 << 20)
    source, rectified = make_refs(tmp_path / "stages", items=30_000, widths={"image": 512})
    config = PublishConfig(uri=str(tmp_path / "table"), rows_per_file=20_000)
    with watch_memory() as usual:
        publish(PublishConfig(uri=str(tmp_path / "small")), make_refs(tmp_path / "few"), DAYS[0])
    with watch_memory() as peak:
        assert publish(config, (source, rectified), DAYS[0]).rows == 30_000
    assert peak.size - usual.size < 40 << 20 < rectified.array("features-image").nbytes
    files = [pq.ParquetFile(f"{config.uri}/{path}").metadata for path in sorted(data_files(config.uri))]
    assert [x.num_rows for x in files] == [20_000, 10_000]
    assert max(x.row_group(i).num_rows for x in files for i in range(x.num_row_groups)) < 512


def test_a_damaged_file_and_one_that_lacks_rows_are_found(tmp_path: Path, refs: tuple[Ref, Ref]) -> None:
    files, rows = TableFiles(str(tmp_path / "table")), open_rows(*refs, "run")
    written = list(write_files(files, rows, 20, "as_of=2024-03-01/{}.parquet".format))
    assert audit_files(files, rows, written) == audit_files(files, rows, written)
    first, second = ((tmp_path / "table" / x.path) for x in written[:2])
    original = first.read_bytes()
    one_bit = bytearray(original)
    one_bit[original.index(np.asarray(rows.modalities[0].features[0]).tobytes())] ^= 1
    for damaged in (second.read_bytes(), bytes(one_bit)):
        first.write_bytes(damaged)
        with pytest.raises(StorageError, match=r"0\.parquet reads back with other values"):
            audit_files(files, rows, written)


@pytest.mark.parametrize(
    ("column", "bad"), [("image", np.inf), ("video", np.nan), ("video_segments", np.inf), ("behaviour", np.nan)]
)
def test_a_number_that_is_not_finite_is_never_published(
    tmp_path: Path, config: PublishConfig, column: str, bad: float
) -> None:
    make = sequence_refs if column.startswith("video") else make_refs
    refs, anchors = make(tmp_path / "stages"), anchors_ref(tmp_path / "stages")
    names = {"video_segments": "segments-video", "behaviour": "items"}
    name, ref = names.get(column, f"features-{column}"), anchors if column == "behaviour" else refs[1]
    broken = np.array(ref.array(name))
    broken[7, 1] = bad
    np.save(ref.file(f"{name}.npy"), broken)
    with pytest.raises(StorageError, match=f"holds a value of {column} that is not finite"):
        publish(config, refs, DAYS[0], anchors=anchors)
    assert data_files(config.uri) == {}
    assert not (Path(config.uri) / "_delta_log").exists()


@pytest.mark.parametrize(
    "widths",
    [{"run_id": 2}, {"image": 2, "image_trust": 2}, {"Item_ID": 2}, {"a b": 2}, {"AS_OF": 2}, {"Behaviour": 2}],
)
def test_a_modality_whose_name_is_taken_is_refused(
    tmp_path: Path, config: PublishConfig, widths: dict[str, int]
) -> None:
    refs, anchors = make_refs(tmp_path / "stages", widths=widths), anchors_ref(tmp_path / "stages")
    with pytest.raises(InputError, match=r"source\.modalities\."):
        publish(config, refs, DAYS[0], anchors=anchors)


def test_arrays_of_other_items_are_refused(tmp_path: Path) -> None:
    (source, _), (_, rectified) = make_refs(tmp_path / "a", items=50), make_refs(tmp_path / "b", items=49)
    with pytest.raises(ValueError, match="features-image"):
        open_rows(source, rectified, "run")
