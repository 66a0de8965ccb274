"""How inputs lie: day folders of every kind, empty files, tables of other formats, snapshots that nothing tells apart."""

from __future__ import annotations

import shutil
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import deltalake
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.errors import InputError
from tasks.source.inspect import find_problems
from tasks.source.layout.partitions import day_of
from tasks.source.read import resolve_day
from tests.support.source_samples import (
    DAY,
    NUM_ITEMS,
    catalog_table,
    log_table,
    quarantined,
    read,
    sample,
    source_config,
    write,
    write_by_day,
)

OLD, NEW = "2024-03-05", "2024-03-09"
FOLDERS = {
    "dt": (f"dt={OLD}", f"dt={NEW}"),
    "date": (f"date={OLD}", f"date={NEW}"),
    "ds": (f"ds={OLD}", f"ds={NEW}"),
    "DT": (f"DT={OLD}", f"DT={NEW}"),
    "snapshot_date": (f"snapshot_date={OLD}", f"snapshot_date={NEW}"),
    "any other key": (f"loaded={OLD}", f"loaded={NEW}"),
    "plain": (OLD, NEW),
    "plain, compact": ("20240305", "20240309"),
    "compact": ("dt=20240305", "dt=20240309"),
    "URL-encoded": (f"dt={OLD}%2000%3A00%3A00", f"dt={NEW}%2000%3A00%3A00"),
    "with an hour": (f"dt={OLD}-13", f"dt={NEW}T02:00"),
    "hours below": (f"dt={OLD}/hour=00", f"dt={NEW}/hour=13"),
    "year, month, day": ("year=2024/month=3/day=5", "year=2024/month=03/day=09"),
    "plain year, month, day": ("2024/03/05", "2024/03/09"),
    "another key above": (f"region=eu/dt={OLD}", f"region=eu/dt={NEW}"),
    "another key of nulls": (f"dt={OLD}/shop=__HIVE_DEFAULT_PARTITION__", f"dt={NEW}/shop=1"),
}


def two_snapshots(folder: Path, old: str, new: str) -> Any:
    """An old snapshot of nine items whose titles are old, and a newer one of all."""
    write(catalog_table(title=["old"] * NUM_ITEMS).slice(0, 9), folder / "catalog" / old / "part-0.parquet")
    write(catalog_table(), folder / "catalog" / new / "part-0.parquet")
    write(log_table(), folder / "log.parquet")
    return source_config(folder, catalog=str(folder / "catalog"), title_column="title", max_quarantined=0.5)


@pytest.mark.parametrize("kind", FOLDERS)
def test_the_newest_snapshot_wins_in_any_day_folder(tmp_path: Path, kind: str) -> None:
    config = two_snapshots(tmp_path, *FOLDERS[kind])
    newest = read(config, tmp_path)
    assert newest.meta["num_items"] == NUM_ITEMS
    assert pq.read_table(newest.file("labels.parquet")).column("title")[0].as_py() == "Title i00"
    assert newest.notes["readings"][0]["taken_for"].startswith("snapshot ")
    assert read(config, tmp_path, date(2024, 3, 8)).meta["num_items"] == 9
    with pytest.raises(InputError, match="no catalog snapshot on or before 2024-03-04"):
        read(config, tmp_path, date(2024, 3, 4))


@pytest.mark.parametrize("kind", FOLDERS)
def test_a_log_of_any_day_folder_is_cut_at_the_day(tmp_path: Path, kind: str) -> None:
    old, new = FOLDERS[kind]
    write(catalog_table(), tmp_path / "catalog.parquet")
    write(log_table().slice(0, 20), tmp_path / "log" / old / "a.parquet")
    write(log_table().slice(20), tmp_path / "log" / new / "a.parquet")
    config = source_config(tmp_path, interactions=str(tmp_path / "log"), time_column=None)
    assert resolve_day(config, None) == date(2024, 3, 9)
    first, second = (read(config, tmp_path, date(2024, 3, day)).meta["counts"]["interactions_read"] for day in (8, 9))
    assert (first, second) == (20, 40)


@pytest.mark.parametrize(
    ("value", "day"),
    [
        ("2024-03-05", date(2024, 3, 5)),
        ("20240305", date(2024, 3, 5)),
        ("2024030513", date(2024, 3, 5)),
        ("2024-03-05+00%3A00%3A00", date(2024, 3, 5)),
        ("2024-03-05T00:00:00Z", date(2024, 3, 5)),
        ("2024-03-05 00%3A00%3A00.000", date(2024, 3, 5)),
        ("20241305", None),
        ("2024-02-30", None),
        ("2024-3-5", None),
        ("2024-03", None),
        ("17520305", None),
        ("202403051234567890", None),
        ("latest", None),
        ("", None),
    ],
)
def test_what_is_a_day(value: str, day: date | None) -> None:
    assert day_of(value) == day


AMBIGUOUS: dict[str, tuple[str, str, str]] = {
    "no day": ("v1", "v2", r"9 ids stand in two files .*'i00' is in .*v1/part-0\.parquet and in .*v2/part-0\.parquet"),
    "months": ("month=2024-02", "month=2024-03", r"9 ids stand in two files"),
    "one day twice": (f"dt={NEW}", "dt=20240309", r"9 ids stand in two files .*dt=2024-03-09.* and in .*dt=20240309"),
    "two keys": (f"dt={OLD}", f"ds={NEW}", r"ds and dt both tell a day .*; keep one kind"),
    "two keys in one path": (
        f"dt={OLD}/loaded={NEW}",
        f"dt={NEW}/loaded={NEW}",
        r'dt and loaded both tell a day .*source\.catalog_partition = "dt" or "loaded"',
    ),
    "a value that is no day": (f"dt={OLD}", "dt=latest", r"its partition 'dt=latest' is no day; wanted dt=YYYY-MM-DD"),
    "one outside": (f"dt={OLD}", "rest", r"rest/part-0\.parquet: lies outside the dt= partitions"),
}


@pytest.mark.parametrize("kind", AMBIGUOUS)
def test_two_snapshots_that_nothing_tells_apart_are_refused(tmp_path: Path, kind: str) -> None:
    old, new, message = AMBIGUOUS[kind]
    with pytest.raises(InputError, match=message):
        read(two_snapshots(tmp_path, old, new), tmp_path)


def test_a_setting_names_the_key(tmp_path: Path) -> None:
    config = two_snapshots(tmp_path, f"dt={OLD}/loaded={NEW}", f"dt={NEW}/loaded={NEW}")
    named = source_config(tmp_path, catalog=config.catalog, catalog_partition="dt", max_quarantined=0.5)
    assert read(named, tmp_path, date(2024, 3, 8)).meta["num_items"] == 9
    wrong = source_config(tmp_path, catalog=config.catalog, catalog_partition="ds")
    with pytest.raises(InputError, match=r"source\.catalog_partition = 'ds', but no folder of it is called ds="):
        read(wrong, tmp_path)


def test_a_feed_of_changes_is_not_taken_for_a_snapshot_in_silence(tmp_path: Path) -> None:
    write(catalog_table(), tmp_path / "catalog" / f"dt={OLD}" / "a.parquet")
    write(
        catalog_table().slice(0, 1).select(["item_id", "image", "text"]),
        tmp_path / "catalog" / f"dt={NEW}" / "a.parquet",
    )
    write(log_table(item_id=["i00"] * 40), tmp_path / "log.parquet")
    ref = read(source_config(tmp_path, catalog=str(tmp_path / "catalog")), tmp_path)
    assert "each must hold every item, not only what changed" in ref.notes["warnings"][0]


def test_the_partition_without_a_day_goes_to_quarantine(tmp_path: Path) -> None:
    write(catalog_table(), tmp_path / "catalog" / f"dt={NEW}" / "a.parquet")
    write(catalog_table().slice(0, 3), tmp_path / "catalog" / "dt=__HIVE_DEFAULT_PARTITION__" / "a.parquet")
    log = write_by_day(log_table(), tmp_path / "log")
    write(log_table().slice(0, 30), log / "dt=__HIVE_DEFAULT_PARTITION__" / "a.parquet")
    config = source_config(tmp_path, catalog=str(tmp_path / "catalog"), interactions=str(log), positive="rating >= 4")
    ref = read(config, tmp_path)
    assert [x["reason"] for x in quarantined(ref, "items")] == ["no_day"] * 3
    counts = ref.meta["counts"]
    assert (counts["items"], counts["catalog_rows_read"]) == (12, 15)
    assert counts["interactions_quarantined"]["no_day"] == len(quarantined(ref, "interactions")) == 27
    assert (counts["interactions_read"], counts["not_positive"]) == (70, 7)


EMPTY = {
    "without columns": pa.table({}),
    "of nulls": pa.table({x: pa.nulls(0) for x in log_table().column_names}),
    "of its types": log_table().slice(0, 0),
}


@pytest.mark.parametrize("kind", EMPTY)
def test_an_empty_day_is_no_rows(tmp_path: Path, kind: str) -> None:
    plain = read(sample(tmp_path / "plain"), tmp_path)
    log = write_by_day(log_table(), tmp_path / "log")
    for name in ("dt=2024-03-04/empty.parquet", "dt=2024-02-01/first.parquet"):
        write(EMPTY[kind], log / name)
    write(catalog_table(), tmp_path / "catalog" / "a.parquet")
    write(
        pa.table({}) if kind != "of nulls" else pa.table({"item_id": pa.nulls(0)}), tmp_path / "catalog" / "0.parquet"
    )
    config = source_config(tmp_path, catalog=str(tmp_path / "catalog"), interactions=str(log))
    assert read(config, tmp_path).digest == plain.digest


def test_a_schema_that_changes_from_day_to_day(tmp_path: Path) -> None:
    ids = pa.array([str(x) for x in range(NUM_ITEMS)])
    numbers = [(r * 7) % NUM_ITEMS for r in range(40)]
    plain_log = log_table(item_id=[str(x) for x in numbers])
    plain = read(sample(tmp_path / "plain", catalog=catalog_table(item_id=ids), log=plain_log), tmp_path)
    forms = [
        log_table(item_id=pa.array(numbers, pa.int32())),
        log_table(item_id=pa.array(numbers, pa.int64()), more=["x"] * 40),
        log_table(item_id=pa.array(numbers, pa.float64())),
        log_table(item_id=[str(x) for x in numbers], rating=pa.array([5] * 40, pa.int8())),
    ]
    for at, form in enumerate(forms):
        write(form.slice(10 * at, 10), tmp_path / "log" / f"{at}.parquet")
    fixed = catalog_table(item_id=ids)
    rows = [x or [1.0] * 6 for x in fixed.column("image").to_pylist()]
    image = pa.array([None if at == 3 else x for at, x in enumerate(rows)], pa.list_(pa.float32(), 6))
    write(fixed.slice(0, 6), tmp_path / "catalog" / "a.parquet")
    changed = fixed.set_column(fixed.column_names.index("image"), "image", image)
    write(changed.slice(6), tmp_path / "catalog" / "b.parquet")
    config = source_config(tmp_path, catalog=str(tmp_path / "catalog"), interactions=str(tmp_path / "log"))
    assert read(config, tmp_path).digest == plain.digest


def delta_catalog(folder: Path, days: tuple[str, ...] = ()) -> str:
    """A Delta table of two versions: nine items, then all with new titles, and files of rows that were deleted."""
    uri = str(folder / "catalog")
    for title, rows in (("old", 9), ("new", NUM_ITEMS)):
        table = catalog_table(title=[title] * NUM_ITEMS).slice(0, rows)
        deltalake.write_deltalake(uri, table, mode="overwrite")
    for version, day in enumerate(days):
        path = folder / "catalog" / "_delta_log" / f"{version:020d}.json"
        at = int(datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp() * 1000)
        text = path.read_text()
        start = text.index('"commitInfo":{"timestamp":') + len('"commitInfo":{"timestamp":')
        path.write_text(text[:start] + str(at) + text[start + 13 :])
    return uri


def test_a_delta_table_is_read_by_version_and_by_day(tmp_path: Path) -> None:
    write(log_table(), tmp_path / "log.parquet")
    uri = delta_catalog(tmp_path, ("2024-03-05T10:00", "2024-03-09T10:00"))
    config = source_config(tmp_path, catalog=uri, max_quarantined=0.5)
    newest, older = read(config, tmp_path), read(config, tmp_path, date(2024, 3, 8))
    assert (newest.meta["num_items"], older.meta["num_items"]) == (NUM_ITEMS, 9)
    assert (
        "Delta table, version 1 of 1 (current at the end of 2024-03-10 UTC)" in newest.notes["readings"][0]["taken_for"]
    )
    fixed = source_config(tmp_path, catalog=uri, catalog_version=0, max_quarantined=0.5)
    assert read(fixed, tmp_path).meta["num_items"] == 9
    # A table that is younger than the day has only what it has now.
    assert "younger than 2024-03-01" in read(config, tmp_path, date(2024, 3, 1)).notes["readings"][0]["taken_for"]
    with pytest.raises(InputError, match=r"source\.catalog_version = 7: .* has versions up to 1"):
        read(source_config(tmp_path, catalog=uri, catalog_version=7), tmp_path)


def test_delta_tables_by_day_folders(tmp_path: Path) -> None:
    catalog, log = str(tmp_path / "catalog"), str(tmp_path / "log")
    for day, rows in ((OLD, 9), (NEW, NUM_ITEMS)):
        table = catalog_table().slice(0, rows).append_column("ds", pa.array([date.fromisoformat(day)] * rows))
        deltalake.write_deltalake(catalog, table, mode="append", partition_by=["ds"])
    days = [f"{x:%Y%m%d}" for x in log_table().column("event_time").to_pylist()]
    deltalake.write_deltalake(log, log_table(day=days), partition_by=["day"])
    deltalake.DeltaTable(log).delete("user_id = 'u1'")
    config = source_config(tmp_path, catalog=catalog, interactions=log, max_quarantined=0.5)
    ref = read(config, tmp_path)
    assert (ref.meta["num_items"], ref.meta["num_users"]) == (NUM_ITEMS, 4)
    earlier = read(config, tmp_path, date(2024, 3, 7)).meta
    assert (earlier["num_items"], earlier["counts"]["interactions_read"]) == (9, 22)


@pytest.mark.parametrize("place", ["{}", "{}/*.parquet", "{}/../*/*.parquet"])
def test_a_delta_table_is_never_read_as_plain_files(tmp_path: Path, place: str) -> None:
    write(log_table(), tmp_path / "log.parquet")
    uri = delta_catalog(tmp_path / "lake")
    config = source_config(tmp_path, catalog=place.format(uri), title_column="title")
    if place == "{}":
        labels = pq.read_table(read(config, tmp_path).file("labels.parquet"))
        assert set(labels.column("title").to_pylist()) == {"new"}
        return
    with pytest.raises(InputError, match=r"Delta table .*whose files also keep deleted rows; name"):
        read(config, tmp_path)


@pytest.mark.parametrize("place", ["", "/data", "/data/*.parquet", "/../table"])
def test_iceberg_is_refused_by_name(tmp_path: Path, place: str) -> None:
    write(log_table(), tmp_path / "log.parquet")
    write(catalog_table(), tmp_path / "table" / "data" / "a.parquet")
    (tmp_path / "table" / "metadata").mkdir()
    (tmp_path / "table" / "metadata" / "v1.metadata.json").write_text("{}")
    with pytest.raises(InputError, match=r"an Iceberg table .*export it to Parquet or Delta"):
        read(source_config(tmp_path, catalog=f"{tmp_path}/table{place}"), tmp_path)


@pytest.mark.parametrize("place", ["", "/eu", "/../*"])
def test_hudi_is_refused_by_name(tmp_path: Path, place: str) -> None:
    write(log_table(), tmp_path / "log.parquet")
    write(catalog_table(), tmp_path / "lake" / "table" / "eu" / "a_0_1.parquet")
    (tmp_path / "lake" / "table" / ".hoodie").mkdir()
    (tmp_path / "lake" / "table" / ".hoodie" / "hoodie.properties").write_text("hoodie.table.name=x")
    with pytest.raises(InputError, match=r"a Hudi table .*export it to Parquet or Delta"):
        read(source_config(tmp_path, catalog=f"{tmp_path}/lake/table{place}"), tmp_path)


def test_a_day_after_today_is_refused(tmp_path: Path) -> None:
    config = sample(tmp_path)
    with pytest.raises(InputError, match=r"--as-of 2062-01-01: is after today .*--allow-future"):
        resolve_day(config, date(2062, 1, 1))
    assert resolve_day(config, date(2062, 1, 1), allow_future=True) == date(2062, 1, 1)


def test_a_day_without_events_is_warned_of(tmp_path: Path) -> None:
    ref = read(sample(tmp_path), tmp_path, date(2024, 3, 20))
    assert ref.notes["warnings"] == ["the log has no event on 2024-03-20; the newest is of 2024-03-10"]
    assert ref.notes["newest_event"] == "2024-03-10"
    assert read(sample(tmp_path), tmp_path).notes["warnings"] == []


def test_every_mistake_is_found_at_once(tmp_path: Path) -> None:
    config = sample(
        tmp_path,
        catalog=catalog_table(image=["x"] * NUM_ITEMS, item_id=np.arange(12.0) > 3),
        log=log_table(event_time=["yesterday"] * 40),
        positive="stars > 3",
        title_column="name",
        user_column="visitor",
    )
    found, problems = find_problems(config, DAY)
    assert found is None
    text = "\n".join(problems)
    for words in ("'name'", "'visitor'", "'stars'"):
        assert f"no column {words}" in text
    assert len(problems) == 3
    shutil.rmtree(tmp_path / "catalog.parquet", ignore_errors=True)
    good, none = find_problems(sample(tmp_path), DAY)
    assert none == []
    assert good is not None
    assert str(good.readings[0]).startswith("catalog files: no day folders: 1 file, 12 rows")


@pytest.mark.parametrize("year", [2010, 2062])
def test_a_log_without_a_day_to_read_says_of_which_days_it_is(tmp_path: Path, year: int) -> None:
    times = [x.replace(year=year) for x in log_table().column("event_time").to_pylist()]
    config = sample(tmp_path, log=log_table(event_time=pa.array(times)), lookback_days=30)
    message = (
        f"no interactions left as of 2024-03-10.* the events of .*'event_time' are of {year}-03-01 to {year}-03-10"
    )
    with pytest.raises(InputError, match=message):
        read(config, tmp_path)


def test_a_few_times_that_are_none_do_not_hide_the_range(tmp_path: Path) -> None:
    times = log_table().column("event_time").to_pylist()
    times[3] = times[3].replace(year=9999)
    ref = read(sample(tmp_path, log=log_table(event_time=pa.array(times))), tmp_path)
    assert "2024-03-01 to 2024-03-10" in next(
        x["taken_for"] for x in ref.notes["readings"] if x["column"] == "event_time"
    )
    assert [x["reason"] for x in quarantined(ref, "interactions")] == ["time_out_of_range"]
