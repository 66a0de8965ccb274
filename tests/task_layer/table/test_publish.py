"""The published table: its columns, its partitions, its one commit a run, and who can read it."""

from __future__ import annotations

from pathlib import Path

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake

from rectifier_core.base.published_records import Status
from tasks.errors import InputError, StorageError
from tasks.store import mapped
from tasks.store.peak_memory import watch_memory
from tasks.store.store import Ref
from tasks.table import rows as table_rows
from tasks.table.files import TableFiles
from tasks.table.publish import PublishConfig, find_published, publish_rectified
from tasks.table.read_back import audit_files
from tasks.table.rows import open_rows
from tasks.table.write import write_files
from tests.support.table.publish_support import FACTS, data_files, identity, make_refs, publish, shown

DAYS = ("2024-03-01", "2024-03-02", "2024-03-03")


@pytest.fixture
def config(tmp_path: Path) -> PublishConfig:
    return PublishConfig(uri=str(tmp_path / "warehouse" / "features"))


@pytest.fixture
def refs(tmp_path: Path) -> tuple[Ref, Ref]:
    return make_refs(tmp_path / "stages")


def test_the_columns_are_those_of_the_contract(config: PublishConfig, refs: tuple[Ref, Ref]) -> None:
    done = publish(config, refs, DAYS[0])
    assert (done.version, done.rows, done.published, done.as_of) == (0, 50, True, DAYS[0])
    read = pl.scan_delta(config.uri).collect()
    assert read.schema == pl.Schema(
        {
            "as_of": pl.Date(),
            "item_id": pl.String(),
            "image": pl.List(pl.Float32()),
            "image_trust": pl.Float32(),
            "image_status": pl.String(),
            "text": pl.List(pl.Float32()),
            "text_trust": pl.Float32(),
            "text_status": pl.String(),
            "run_id": pl.String(),
        }
    )
    assert DeltaTable(config.uri).metadata().partition_columns == ["as_of"]


@pytest.mark.parametrize("rows_per_file", [7, 250_000])
def test_every_value_reads_back_in_order(tmp_path: Path, refs: tuple[Ref, Ref], rows_per_file: int) -> None:
    config = PublishConfig(uri=str(tmp_path / "table"), rows_per_file=rows_per_file)
    publish(config, refs, DAYS[0])
    source, rectified = refs
    paths = sorted(data_files(config.uri))
    assert len(paths) == -(-50 // rows_per_file)
    read = pa.concat_tables([pq.ParquetFile(f"{config.uri}/{path}").read() for path in paths])
    assert read["item_id"].to_pylist() == source.array("item_ids").tolist()
    for name in ("image", "text"):
        status, features, trust = (rectified.array(f"{part}-{name}") for part in ("status", "features", "trust"))
        wanted = [
            None if code == Status.MISSING.code else row.tolist() for code, row in zip(status, features, strict=True)
        ]
        assert read[name].to_pylist() == wanted
        assert read[f"{name}_status"].to_pylist() == [list(Status)[code].value for code in status]
        assert read[f"{name}_trust"].to_pylist() == [None if np.isnan(x) else x for x in trust.tolist()]


def test_row_groups_have_statistics_and_embeddings_are_stored_plain(tmp_path: Path, refs: tuple[Ref, Ref]) -> None:
    config = PublishConfig(uri=str(tmp_path / "table"), rows_per_file=20)
    publish(config, refs, DAYS[0])
    actions = pa.table(DeltaTable(config.uri).get_add_actions(flatten=True)).to_pylist()
    assert sorted(x["num_records"] for x in actions) == [10, 20, 20]
    group = pq.ParquetFile(f"{config.uri}/{actions[0]['path']}").metadata.row_group(0)
    columns = {group.column(i).path_in_schema: group.column(i) for i in range(group.num_columns)}
    embedding = columns["image.list.element"]
    assert (embedding.compression, embedding.has_dictionary_page) == ("UNCOMPRESSED", False)
    assert columns["image_status"].has_dictionary_page
    assert columns["item_id"].is_stats_set
    assert pl.scan_delta(config.uri).filter(pl.col("item_id") == "item-00012").select("item_id").collect().height == 1


def test_a_filter_on_any_column_finds_its_rows(tmp_path: Path) -> None:
    config = PublishConfig(uri=str(tmp_path / "table"), rows_per_file=20)
    # The later day has a modality more, which the earlier day's files do not hold.
    publish(config, make_refs(tmp_path / "one", widths={"image": 4}), DAYS[0])
    publish(config, make_refs(tmp_path / "two"), DAYS[1], seed=1)
    dataset = DeltaTable(config.uri).to_pyarrow_dataset()
    rows, lazy, run_id = dataset.to_table(), pl.scan_delta(config.uri), identity(DAYS[1], 1).run_id
    asked = {
        "image_trust < 0.5": pc.field("image_trust") < 0.5,
        "image_trust is null": pc.field("image_trust").is_null(),
        "image is null": pc.field("image").is_null(),
        "text_trust >= 0.5": pc.field("text_trust") >= 0.5,
        "text_status is null": pc.field("text_status").is_null(),
        "image_status = 'missing'": pc.field("image_status") == "missing",
        f"run_id = '{run_id}'": pc.field("run_id") == run_id,
        "item_id = 'item-00012'": pc.field("item_id") == "item-00012",
    }
    for sql, expression in asked.items():
        wanted = rows.filter(expression).num_rows
        assert 0 < wanted < len(rows)
        assert dataset.to_table(filter=expression).num_rows == wanted, sql
        assert duckdb.sql(f"SELECT count(*) FROM dataset WHERE {sql}").fetchall() == [(wanted,)], sql
        assert lazy.filter(pl.sql_expr(sql)).collect().height == wanted, sql


@pytest.mark.parametrize(
    ("given", "published"),
    [
        ("large_string", pa.string()),
        ("int32", pa.int32()),
        ("int64", pa.int64()),
        ("int16", pa.int16()),
        ("uint32", pa.int64()),
    ],
)
def test_ids_are_published_as_they_came(
    tmp_path: Path, config: PublishConfig, given: str, published: pa.DataType
) -> None:
    refs = make_refs(tmp_path / "stages", id_type=given)
    publish(config, refs, DAYS[0])
    read = DeltaTable(config.uri).to_pyarrow_table()
    assert read.schema.field("item_id").type == published
    assert read["item_id"].to_pylist() == refs[0].array("item_ids").tolist()
    assert pl.scan_delta(config.uri).select(pl.len()).collect().item() == 50


def test_three_days_are_three_partitions_and_a_repeat_publishes_nothing(
    config: PublishConfig, refs: tuple[Ref, Ref]
) -> None:
    for day in DAYS:
        assert publish(config, refs, day).published
    before = data_files(config.uri)
    for day in DAYS:
        again = publish(config, refs, day)
        assert (again.published, again.version, again.rows, again.run_id) == (False, 2, 50, identity(day).run_id)
    table = DeltaTable(config.uri)
    assert table.version() == 2
    assert len(table.history()) == 3
    assert shown(config.uri) == {day: {identity(day).run_id} for day in DAYS}
    assert data_files(config.uri) == before


def test_a_changed_run_replaces_its_own_day_and_no_other(
    tmp_path: Path, config: PublishConfig, refs: tuple[Ref, Ref]
) -> None:
    for day in DAYS:
        publish(config, refs, day)
    before = data_files(config.uri)
    changed = make_refs(tmp_path / "stages", seed=1)
    assert find_published(config, identity(DAYS[1], 1)) is None
    assert publish(config, changed, DAYS[1], seed=1).version == 3
    assert shown(config.uri) == {day: {identity(day, int(day == DAYS[1])).run_id} for day in DAYS}
    assert before.items() <= data_files(config.uri).items()
    assert find_published(config, identity(DAYS[1])) is None
    assert shown(config.uri, version=2) == {day: {identity(day).run_id} for day in DAYS}


def test_the_commit_carries_its_provenance(config: PublishConfig, refs: tuple[Ref, Ref]) -> None:
    publish(config, refs, DAYS[0])
    [commit] = DeltaTable(config.uri).history()
    run = identity(DAYS[0])
    wanted = {
        "run_id": run.run_id,
        "as_of": DAYS[0],
        "digest": run.digest,
        "config_digest": "c0ffee",
        "inputs_digest": "0000",
    }
    assert wanted.items() <= commit.items()
    assert (commit["rows"], commit["facts"], commit["code_version"]) == (50, FACTS, "1.2.3")
    assert DeltaTable(config.uri).transaction_version(f"catalog-rectifier/{DAYS[0]}") == run.transaction


def test_facts_that_are_not_json_are_refused_before_anything_is_written(
    config: PublishConfig, refs: tuple[Ref, Ref]
) -> None:
    with pytest.raises(ValueError, match="facts"):
        publish_rectified(config, identity(DAYS[0]), *refs, {"mismatch_rate": float("nan")})
    assert not Path(config.uri).exists()


def test_the_same_rows_give_the_same_bytes(tmp_path: Path, refs: tuple[Ref, Ref]) -> None:
    first, second = (PublishConfig(uri=str(tmp_path / name), rows_per_file=20) for name in ("first", "second"))
    for config in (first, second):
        publish(config, refs, DAYS[0])
    assert data_files(first.uri) == data_files(second.uri)
    assert len(data_files(first.uri)) == 3


def test_only_the_newest_days_stay(tmp_path: Path, refs: tuple[Ref, Ref]) -> None:
    config = PublishConfig(uri=str(tmp_path / "table"), keep_snapshots=2)
    for day in DAYS:
        publish(config, refs, day)
    assert sorted(shown(config.uri)) == list(DAYS[1:])
    assert len(DeltaTable(config.uri).history()) == 3
    assert sorted(shown(config.uri, version=1)) == list(DAYS[:2])
    assert find_published(config, identity(DAYS[2])) is not None
    with pytest.raises(InputError, match=r"publish\.keep_snapshots: 2024-03-01 is older"):
        find_published(config, identity(DAYS[0]))
    with pytest.raises(InputError, match=r"publish\.keep_snapshots: 2024-03-01 is older"):
        publish_rectified(config, identity(DAYS[0]), *refs, FACTS)
    assert DeltaTable(config.uri).version() == 2


def test_a_new_modality_joins_in_the_same_commit_and_a_dropped_one_stays_away(
    tmp_path: Path, config: PublishConfig
) -> None:
    publish(config, make_refs(tmp_path / "a", widths={"image": 4}), DAYS[0])
    done = publish(config, make_refs(tmp_path / "b", widths={"image": 6, "audio": 2}), DAYS[1])
    assert done.version == 1
    publish(config, make_refs(tmp_path / "c", widths={"audio": 2}), DAYS[2])
    read = pl.scan_delta(config.uri).sort("as_of", "item_id").collect()
    assert read.columns == [
        "as_of",
        "item_id",
        "image",
        "image_trust",
        "image_status",
        "audio",
        "audio_trust",
        "audio_status",
        "run_id",
    ]
    by_day = {key[0].isoformat(): frame for key, frame in read.partition_by("as_of", as_dict=True).items()}
    assert by_day[DAYS[0]]["audio_status"].null_count() == 50
    assert by_day[DAYS[2]]["image"].null_count() == 50
    assert by_day[DAYS[1]]["image"].list.len().drop_nulls().unique().to_list() == [6]
    assert by_day[DAYS[0]]["image"].list.len().drop_nulls().unique().to_list() == [4]
    assert DeltaTable(config.uri).to_pyarrow_table().num_rows == 150
    assert pl.scan_delta(config.uri, version=0).collect().width == 6


def test_another_id_type_is_refused_unless_it_replaces_everything(tmp_path: Path, config: PublishConfig) -> None:
    text, numbers = make_refs(tmp_path / "a"), make_refs(tmp_path / "b", id_type="int64", seed=1)
    publish(config, text, DAYS[0])
    publish(config, text, DAYS[1])
    before = data_files(config.uri)
    with pytest.raises(InputError, match=r"column item_id is string in .* and int64 in this run"):
        publish(config, numbers, DAYS[1], seed=1)
    assert data_files(config.uri) == before
    alone = PublishConfig(uri=str(tmp_path / "alone"))
    publish(alone, text, DAYS[0])
    publish(alone, numbers, DAYS[0], seed=1)
    assert pl.scan_delta(alone.uri).collect().schema["item_id"] == pl.Int64()


def test_a_foreign_table_is_left_alone(config: PublishConfig, refs: tuple[Ref, Ref]) -> None:
    write_deltalake(config.uri, pa.table({"x": [1]}))
    with pytest.raises(InputError, match="another layout"):
        find_published(config, identity(DAYS[0]))
    with pytest.raises(InputError, match="another layout"):
        publish_rectified(config, identity(DAYS[0]), *refs, FACTS)
    assert DeltaTable(config.uri).version() == 0


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path: Path, refs: tuple[Ref, Ref]) -> None:
    config = PublishConfig(uri=str(tmp_path / "catalog"))
    (tmp_path / "catalog").mkdir()
    (tmp_path / "catalog" / "items.parquet").write_text("x")
    with pytest.raises(InputError, match=r"holds items\.parquet and no table; choose a folder of its own"):
        find_published(config, identity(DAYS[0]))
    with pytest.raises(InputError, match="holds items"):
        publish_rectified(config, identity(DAYS[0]), *refs, FACTS)
    assert [x.name for x in (tmp_path / "catalog").iterdir()] == ["items.parquet"]


@pytest.mark.parametrize("name", ["a b", "füü", "x=1", "a#b", "a?b", "a:b", "[a]", "table/"])
def test_any_folder_name_will_do(tmp_path: Path, refs: tuple[Ref, Ref], name: str) -> None:
    config = PublishConfig(uri=f"{tmp_path}/{name}")
    assert publish(config, refs, DAYS[0]).published
    assert not publish(config, refs, DAYS[0]).published
    assert [x.name for x in tmp_path.iterdir() if x.name != "stages"] == [name.rstrip("/")]
    assert shown(config.uri) == {DAYS[0]: {identity(DAYS[0]).run_id}}


@pytest.mark.parametrize(
    "widths", [{"run_id": 2}, {"image": 2, "image_trust": 2}, {"Item_ID": 2}, {"a b": 2}, {"AS_OF": 2}]
)
def test_a_modality_whose_name_is_taken_is_refused(
    tmp_path: Path, config: PublishConfig, widths: dict[str, int]
) -> None:
    with pytest.raises(InputError, match=r"source\.modalities\."):
        publish(config, make_refs(tmp_path / "stages", widths=widths), DAYS[0])


def test_arrays_that_do_not_fit_the_ids_are_refused(tmp_path: Path, config: PublishConfig) -> None:
    (source, _), (_, rectified) = make_refs(tmp_path / "a", items=50), make_refs(tmp_path / "b", items=49)
    with pytest.raises(ValueError, match="features-image"):
        publish(config, (source, rectified), DAYS[0])


def test_a_larger_table_is_written_a_block_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_rows, "_BLOCK_BYTES", 1 << 20)
    monkeypatch.setattr(mapped, "_ROOM", mapped._Room(8 << 20))
    source, rectified = make_refs(tmp_path / "stages", items=60_000, widths={"image": 512})
    config = PublishConfig(uri=str(tmp_path / "table"), rows_per_file=50_000)
    with watch_memory() as usual:
        publish(PublishConfig(uri=str(tmp_path / "small")), make_refs(tmp_path / "few"), DAYS[0])
    with watch_memory() as peak:
        done = publish(config, (source, rectified), DAYS[0])
    assert done.rows == 60_000
    assert peak.size - usual.size < 64 << 20 < rectified.array("features-image").nbytes
    groups = [pq.ParquetFile(f"{config.uri}/{path}").metadata for path in sorted(data_files(config.uri))]
    assert [x.num_rows for x in groups] == [50_000, 10_000]
    assert max(x.row_group(i).num_rows for x in groups for i in range(x.num_row_groups)) < 512
    assert pl.scan_delta(config.uri).select(
        pl.col("image").drop_nulls().list.len().unique()
    ).collect().to_series().to_list() == [512]


def test_the_audit_finds_a_damaged_file_and_one_that_lacks_rows(tmp_path: Path, refs: tuple[Ref, Ref]) -> None:
    files, rows = TableFiles(str(tmp_path / "table")), open_rows(*refs, "run")
    written = list(write_files(files, rows, 20, "as_of=2024-03-01/{}.parquet".format))
    digest = audit_files(files, rows, written)
    assert digest == audit_files(files, rows, written)
    with pytest.raises(StorageError, match="do not cover the 50 rows"):
        audit_files(files, rows, written[:-1])
    first, second = (tmp_path / "table" / x.path for x in written[:2])
    original = first.read_bytes()
    first.write_bytes(second.read_bytes())
    with pytest.raises(StorageError, match=r"0\.parquet reads back with other values"):
        audit_files(files, rows, written)
    first.write_bytes(original)
    changed = bytearray(original)
    value = np.asarray(rows.modalities[0].features[0]).tobytes()
    changed[original.index(value)] ^= 1
    first.write_bytes(bytes(changed))
    with pytest.raises(StorageError, match=r"0\.parquet reads back with other values"):
        audit_files(files, rows, written)


def test_a_value_that_is_not_finite_is_never_published(tmp_path: Path, config: PublishConfig) -> None:
    source, rectified = make_refs(tmp_path / "stages")
    broken = np.array(rectified.array("features-text"))
    broken[1, 0] = np.inf
    np.save(rectified.file("features-text.npy"), broken)
    with pytest.raises(StorageError, match="holds a value of text that is not finite"):
        publish(config, (source, rectified), DAYS[0])
    assert data_files(config.uri) == {}
    assert not (Path(config.uri) / "_delta_log").exists()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("uri", "warehouse/table"),
        ("uri", "s3://key:secret@bucket/table"),
        ("uri", "s3://bucket"),
        ("uri", "/ware%20house/table"),
        ("vacuum_after_hours", -1),
    ],
)
def test_a_bad_setting_names_its_key(key: str, value: object) -> None:
    with pytest.raises(ValueError, match=key) as caught:
        PublishConfig(**{"uri": "/table", key: value})  # type: ignore[arg-type]
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(("key", "value"), [("run_id", "../x"), ("run_id", ""), ("digest", "XYZ"), ("digest", "ab")])
def test_a_bad_identity_is_refused(key: str, value: str) -> None:
    given = {"run_id": "r", "digest": "0123456789abcdef", "config_digest": "", "inputs_digest": "", "code_version": ""}
    with pytest.raises(ValueError, match=key):
        type(identity(DAYS[0]))(as_of=identity(DAYS[0]).as_of, **{**given, key: value})


def test_a_foreign_commit_between_does_not_hide_a_published_run(config: PublishConfig, refs: tuple[Ref, Ref]) -> None:
    publish(config, refs, DAYS[0])
    DeltaTable(config.uri).alter.set_table_properties({"delta.logRetentionDuration": "interval 90 days"})
    again = publish(config, refs, DAYS[0])
    assert (again.published, again.version) == (False, 1)
