"""Publishing: one commit a run, partitions by day, repeats, and what is refused."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from tasks.errors import InputError
from tasks.store.store import Ref
from tasks.table.publish import PublishConfig, find_published, publish_rectified
from tests.support.table.publish_support import FACTS, data_files, identity, make_refs, publish, shown

DAYS = ("2024-03-01", "2024-03-02", "2024-03-03")


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
    assert table.version() == 2 and len(table.history()) == 3
    assert table.metadata().partition_columns == ["as_of"]
    assert shown(config.uri) == {day: {identity(day).run_id} for day in DAYS}
    assert data_files(config.uri) == before


def test_a_changed_run_replaces_its_own_day_and_no_other(config: PublishConfig, refs: tuple[Ref, Ref]) -> None:
    for day in DAYS:
        publish(config, refs, day)
    before = data_files(config.uri)
    assert find_published(config, identity(DAYS[1], 1)) is None
    assert publish(config, refs, DAYS[1], seed=1).version == 3
    assert shown(config.uri) == {day: {identity(day, int(day == DAYS[1])).run_id} for day in DAYS}
    assert before.items() <= data_files(config.uri).items()
    assert find_published(config, identity(DAYS[1])) is None
    assert shown(config.uri, version=2) == {day: {identity(day).run_id} for day in DAYS}


def test_a_run_is_known_after_another_tools_commit(config: PublishConfig, refs: tuple[Ref, Ref]) -> None:
    publish(config, refs, DAYS[0])
    DeltaTable(config.uri).alter.set_table_properties({"delta.logRetentionDuration": "interval 90 days"})
    again = publish(config, refs, DAYS[0])
    assert (again.published, again.version) == (False, 1)


def test_the_commit_holds_the_runs_provenance(config: PublishConfig, refs: tuple[Ref, Ref]) -> None:
    publish(config, refs, DAYS[0])
    [commit] = DeltaTable(config.uri).history()
    run = identity(DAYS[0])
    wanted = asdict(run) | {"as_of": DAYS[0], "rows": 50, "facts": FACTS}
    assert wanted.items() <= commit.items()
    assert DeltaTable(config.uri).transaction_version(f"catalog-rectifier/{DAYS[0]}") == run.transaction


def test_only_the_newest_days_stay(tmp_path: Path, refs: tuple[Ref, Ref]) -> None:
    config = PublishConfig(uri=str(tmp_path / "table"), keep_snapshots=2)
    for day in DAYS:
        publish(config, refs, day)
    assert sorted(shown(config.uri)) == list(DAYS[1:])
    assert sorted(shown(config.uri, version=1)) == list(DAYS[:2])
    assert find_published(config, identity(DAYS[2])) is not None
    for refused in (
        lambda: find_published(config, identity(DAYS[0])),
        lambda: publish_rectified(config, identity(DAYS[0]), *refs, FACTS),
    ):
        with pytest.raises(InputError, match=r"publish\.keep_snapshots: 2024-03-01 is older"):
            refused()
    assert DeltaTable(config.uri).version() == 2


def test_a_new_modality_joins_in_the_same_commit_and_a_dropped_one_stays_away(
    tmp_path: Path, config: PublishConfig
) -> None:
    for version, widths in enumerate(({"image": 4}, {"image": 6, "audio": 2}, {"audio": 2})):
        assert publish(config, make_refs(tmp_path / str(version), widths=widths), DAYS[version]).version == version
    read = pl.scan_delta(config.uri).sort("as_of", "item_id").collect()
    columns = [f"{m}{part}" for m in ("image", "audio") for part in ("", "_trust", "_status", "_moved")]
    assert read.columns == ["as_of", "item_id", *columns, "run_id"]
    by_day = {key[0].isoformat(): frame for key, frame in read.partition_by("as_of", as_dict=True).items()}
    assert by_day[DAYS[0]]["audio_status"].null_count() == by_day[DAYS[2]]["image"].null_count() == 50
    assert by_day[DAYS[1]]["image"].list.len().drop_nulls().unique().to_list() == [6]
    assert by_day[DAYS[0]]["image"].list.len().drop_nulls().unique().to_list() == [4]
    assert DeltaTable(config.uri).to_pyarrow_table().num_rows == 150
    assert pl.scan_delta(config.uri, version=0).collect().width == 7


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


@pytest.mark.parametrize("case", ["table", "file"])
def test_a_folder_that_holds_something_else_is_left_alone(
    config: PublishConfig, refs: tuple[Ref, Ref], case: str
) -> None:
    place = Path(config.uri)
    place.mkdir(parents=True)
    if case == "table":
        write_deltalake(config.uri, pa.table({"x": [1]}))
    else:
        (place / "items.parquet").write_text("x")
    before = sorted(place.rglob("*"))
    message = "another layout" if case == "table" else r"holds items\.parquet and no table; choose a folder of its own"
    with pytest.raises(InputError, match=message):
        find_published(config, identity(DAYS[0]))
    with pytest.raises(InputError, match=message):
        publish_rectified(config, identity(DAYS[0]), *refs, FACTS)
    assert sorted(place.rglob("*")) == before


@pytest.mark.parametrize("name", ["a b", "füü", "x=1", "a#b?", "[a]", "table/"])
def test_any_folder_name_will_do(tmp_path: Path, refs: tuple[Ref, Ref], name: str) -> None:
    config = PublishConfig(uri=f"{tmp_path}/{name}")
    assert publish(config, refs, DAYS[0]).published
    assert not publish(config, refs, DAYS[0]).published
    assert [x.name for x in tmp_path.iterdir() if x.name != "stages"] == [name.rstrip("/")]
    assert shown(config.uri) == {DAYS[0]: {identity(DAYS[0]).run_id}}


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
    assert "key:secret" not in str(caught.value)
