"""Reading opens only the files and row groups that a day needs, locally and on S3. Bad input is one line that names it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.errors import InputError
from tasks.object_store import StorageUnreachableError
from tasks.source.files import Listing, list_log
from tasks.source.read import read_source, resolve_day
from tasks.store.store import StageStore
from tests.support.source_samples import (
    DAY,
    IDS,
    NUM_ITEMS,
    catalog_table,
    instant,
    log_table,
    read,
    sample,
    source_config,
    write,
    write_by_day,
)
from tests.support.table.s3_server import serve_s3, use_s3


def list_input(uri: str) -> Listing:
    return list_log(source_config("unused", interactions=uri))


BROKEN = b"PAR1 this is no Parquet file"


def _broken(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(BROKEN)
    return path


def test_partitions_outside_the_window_are_not_opened(tmp_path: Path) -> None:
    log = write_by_day(log_table(), tmp_path / "log", keep_column=False)
    write(catalog_table(), tmp_path / "catalog.parquet")
    later, earlier = (
        _broken(log / "dt=2024-03-08" / "part-0.parquet"),
        _broken(log / "dt=2024-03-03" / "part-0.parquet"),
    )
    config = source_config(tmp_path, interactions=str(log), time_column=None, lookback_days=4)
    assert read(config, tmp_path, date(2024, 3, 7)).meta["counts"]["interactions_read"] == 16
    for lookback, as_of, broken in ((4, date(2024, 3, 8), later), (5, date(2024, 3, 7), earlier)):
        with pytest.raises(InputError, match=f"{broken}: cannot be read as Parquet"):
            read(
                source_config(tmp_path, interactions=str(log), time_column=None, lookback_days=lookback),
                tmp_path,
                as_of,
            )


def _wipe_row_group(path: Path, index: int) -> None:
    """Overwrite the pages of one row group, so that reading it fails."""
    raw, group = bytearray(path.read_bytes()), pq.read_metadata(path).row_group(index)
    for i in range(group.num_columns):
        column = group.column(i)
        start = column.dictionary_page_offset or column.data_page_offset
        raw[start : start + column.total_compressed_size] = b"\xff" * column.total_compressed_size
    path.write_bytes(raw)


@pytest.mark.parametrize("kind", ["timestamp[us]", "timestamp[ns]", "date32", "int32", "milliseconds"])
def test_row_groups_outside_the_window_are_not_read(tmp_path: Path, kind: str) -> None:
    time = log_table().column("event_time").cast(pa.timestamp("us"))
    seconds = pa.array(time.cast(pa.int64()).to_numpy() // 1_000_000)
    forms = {"int32": seconds.cast(pa.int32()), "milliseconds": pa.array(seconds.to_numpy() * 1_000)}
    column = forms[kind] if kind in forms else time.cast(pa.type_for_alias(kind))
    config = sample(tmp_path, log=log_table(event_time=column), lookback_days=3)
    path = write(log_table(event_time=column), tmp_path / "log.parquet", row_group_size=4)
    for index in (0, 1, 2, 3, 7, 8, 9):
        _wipe_row_group(path, index)
    assert read(config, tmp_path, date(2024, 3, 7)).meta["counts"]["interactions_read"] == 12
    with pytest.raises(InputError, match=f"{path}: cannot be read as Parquet"):
        read(config, tmp_path, date(2024, 3, 8))


def test_any_date_can_be_the_day(tmp_path: Path) -> None:
    times = log_table().column("event_time").cast(pa.timestamp("ns"))
    ref = read(sample(tmp_path, log=log_table(event_time=times)), tmp_path, date.max)
    assert ref.meta["counts"]["interactions_read"] == 40
    with pytest.raises(
        InputError,
        match=r"no interactions left as of 0001-01-01, source\.lookback_days = 10: the events of .* are of 2024-03-01 to 2024-03-10",
    ):
        read(source_config(tmp_path, lookback_days=10), tmp_path, date.min)


def _drop(name: str) -> Callable[[Path], Any]:
    return lambda folder: (folder / name).unlink()


def _cut(name: str) -> Callable[[Path], Any]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-20])


def _log(**changed: Any) -> Callable[[Path], Any]:
    return lambda folder: write(log_table(**changed), folder / "log.parquet")


def _catalog(**changed: Any) -> Callable[[Path], Any]:
    return lambda folder: write(catalog_table(**changed), folder / "catalog.parquet")


def _nothing(folder: Path) -> None:
    """Leave the sample as it is."""


BAD: dict[str, tuple[Callable[[Path], Any], dict[str, Any], str]] = {
    "no catalog": (_drop("catalog.parquet"), {}, r"/catalog\.parquet: no such file or folder"),
    "other scheme": (_nothing, {"catalog": "gs://bucket/catalog"}, r"gs://bucket/catalog: only local paths and s3://"),
    "glob without match": (_nothing, {"catalog": "{}/none-*.parquet"}, r"none-\*\.parquet: no file matches"),
    "empty folder": (lambda x: (x / "empty").mkdir(), {"catalog": "{}/empty"}, r"/empty: this folder holds no file"),
    "truncated catalog": (_cut("catalog.parquet"), {}, r"/catalog\.parquet: cannot be read as Parquet"),
    "empty file": (lambda x: (x / "log.parquet").write_bytes(b""), {}, r"/log\.parquet: cannot be read as Parquet"),
    "broken delta table": (
        lambda x: _broken(x / "table" / "_delta_log" / "00000000000000000000.json"),
        {"catalog": "{}/table"},
        r"/table: this Delta table cannot be read",
    ),
    "no item column": (
        _nothing,
        {"item_column": "sku"},
        r"/catalog\.parquet: no column 'sku' \(source\.item_column\); it has item_id, title, genres, image, text, unread",
    ),
    "no user column": (
        _nothing,
        {"user_column": "visitor"},
        r"/log\.parquet: no column 'visitor' \(source\.user_column\); it has user_id,",
    ),
    "no modality column": (
        _nothing,
        {"modalities": {"audio": "sound"}},
        r"no column 'sound' \(source\.modalities\.audio\)",
    ),
    "title not text": (
        _nothing,
        {"title_column": "image", "category_column": "genres"},
        r"/catalog\.parquet: source\.title_column 'image' is list<.*> and cannot be shown as text",
    ),
    "embedding a number": (
        _catalog(image=np.arange(12.0)),
        {},
        r"source\.modalities\.image 'image' is double; an embedding is a list",
    ),
    "no embedding at all": (
        _catalog(image=pa.nulls(12, pa.list_(pa.float32()))),
        {},
        r"'image' \(source\.modalities\.image\) holds no embedding",
    ),
    "no row in the catalog": (
        lambda x: write(catalog_table().slice(0, 0), x / "catalog.parquet"),
        {},
        r"the catalog is empty",
    ),
    "no id in the catalog": (
        _catalog(item_id=pa.nulls(12, pa.string())),
        {"max_quarantined": 1.0},
        r"the catalog is empty: no row has",
    ),
    "nothing positive": (
        _nothing,
        {"positive": "rating > 9"},
        r"no interactions left as of 2024-03-10: 40 read, 40 not positive",
    ),
    "no known item": (_log(item_id=["?"] * 40), {"max_quarantined": 1.0}, r"no interactions left .* 40 quarantined"),
    "lookback without days": (
        _nothing,
        {"time_column": None, "lookback_days": 9},
        r"source\.lookback_days: .*neither day folders nor",
    ),
}
BAD_PREDICATES = [
    ("rating >=", "cannot understand 'rating >='"),
    ("rating > 1; rating > 2", "cannot understand"),
    ("1 = 1", "'1 = 1' names no column"),
    ("stars > 3", r"no column 'stars' \(source\.positive\); it has"),
    ("rating + 1", r"'rating \+ 1' gives Float64, not true or false"),
    ("kind > 3", r"'kind > 3' cannot be applied to .*/log\.parquet"),
    ("rating > (SELECT MAX(x) FROM read_csv('/etc/hostname'))", "holds a query"),
    ("rating IN ( from read_csv('/etc/hostname'))", "holds a query"),
    ("rating IN (values (4))", "holds a query"),
    ("kind = $$'$$ OR rating > (SELECT 4) OR kind = $$'$$", "holds a query"),
    ("kind = E'\\'' OR rating > (SELECT 4) OR kind = E'\\''", "holds a query"),
    ("rating > 3 -- good", "holds a query or a comment"),
    ("rating > 3 AND event_time < NOW()", "depends on the current time"),
    ("rating > AVG(rating)", "judge each row by itself"),
    ("rating > COUNT(*)", "judge each row by itself"),
    ("SUM(rating) OVER (PARTITION BY kind) > 2", "judge each row by itself"),
]


def _check_refused(folder: Path, message: str, **changed: Any) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read(source_config(folder, **changed), folder)
    assert "\n" not in str(caught.value)
    assert not list((folder / "stages").glob("*"))


@pytest.mark.parametrize(("positive", "message"), BAD_PREDICATES)
def test_a_bad_predicate_is_one_line_that_names_it(tmp_path: Path, positive: str, message: str) -> None:
    sample(tmp_path)
    _check_refused(tmp_path, rf"source\.positive.*{message}|{message}", positive=positive)


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_that_names_it(tmp_path: Path, case: str) -> None:
    spoil, changed, message = BAD[case]
    sample(tmp_path)
    spoil(tmp_path)
    changed = {k: v.replace("{}", str(tmp_path)) if isinstance(v, str) else v for k, v in changed.items()}
    _check_refused(tmp_path, message, **changed)


def test_a_log_with_no_day_in_the_window(tmp_path: Path) -> None:
    log = str(write_by_day(log_table(), tmp_path / "log"))
    with pytest.raises(InputError, match="no partition up to 2024-02-01; it holds dt=2024-03-01 to dt=2024-03-10"):
        list_input(log).log(date(2024, 2, 1), None)
    with pytest.raises(
        InputError, match=r"no partition up to 2024-04-01 from 2024-03-30 on \(source\.lookback_days = 3\)"
    ):
        list_input(log).log(date(2024, 4, 1), 3)
    write(log_table(), tmp_path / "future" / "dt=2999-01-01" / "a.parquet")
    with pytest.raises(
        InputError, match=r"every partition lies after today .*the first at dt=2999-01-01; check the clock"
    ):
        resolve_day(source_config(tmp_path, interactions=str(tmp_path / "future")), None)


def test_files_of_one_catalog_must_agree_on_the_ids(tmp_path: Path) -> None:
    write(catalog_table(), tmp_path / "catalog" / "a.parquet")
    write(catalog_table(item_id=list(range(NUM_ITEMS))), tmp_path / "catalog" / "b.parquet")
    write(log_table(), tmp_path / "log.parquet")
    with pytest.raises(
        InputError, match=r"b\.parquet: source\.item_column 'item_id' is int64, but string in .*a\.parquet"
    ):
        read(source_config(tmp_path, catalog=str(tmp_path / "catalog")), tmp_path)


@pytest.mark.parametrize("how", ["vanishes", "is overwritten", "grows", "shrinks"])
def test_a_file_that_changes_while_it_is_read(tmp_path: Path, how: str) -> None:
    config, path = sample(tmp_path), tmp_path / "catalog.parquet"

    def interfere(what: str, done: int, total: int) -> None:
        if what.startswith("reading item ids") and done == total and path.exists():
            rows = {"grows": [0, *range(NUM_ITEMS)], "shrinks": [0, 1]}.get(how, list(range(NUM_ITEMS)))
            path.unlink() if how == "vanishes" else write(catalog_table(title=["other"] * NUM_ITEMS).take(rows), path)

    with pytest.raises(InputError, match=rf"{path}: (vanished|was overwritten).*run again"):
        read_source(config, DAY, StageStore(tmp_path / "stages"), interfere)
    assert not list((tmp_path / "stages").glob("*"))


@pytest.fixture(scope="module")
def s3() -> Iterator[Any]:
    """A client of a real HTTP server that speaks S3, which the AWS environment points to."""
    with serve_s3() as address, pytest.MonkeyPatch.context() as patch:
        use_s3(patch, address, "who", "very-secret")
        client = boto3.client("s3", region_name="us-east-1")
        client.create_bucket(Bucket="shop")
        yield client


def _upload(client: Any, folder: Path, prefix: str) -> None:
    for path in sorted(x for x in folder.rglob("*") if x.is_file()):
        client.upload_file(str(path), "shop", f"{prefix}/{path.relative_to(folder)}")


def test_s3_gives_what_local_files_give(tmp_path: Path, s3: Any) -> None:
    config = sample(tmp_path / "data", positive="rating >= 4", title_column="title")
    local = read(config, tmp_path, date(2024, 3, 7))
    write_by_day(log_table(), tmp_path / "data" / "log")
    _broken(tmp_path / "data" / "log" / "dt=2024-03-08" / "part-0.parquet")
    _upload(s3, tmp_path / "data", "a")
    s3.put_object(Bucket="shop", Key="a/log/dt=2024-03-01_$folder$", Body=b"")
    for log in ("log.parquet", "log/", "log/dt=2024-03-0[1-7]/*.parquet"):
        remote = source_config(
            "s3://shop/a", interactions=f"s3://shop/a/{log}", positive="rating >= 4", title_column="title"
        )
        assert read(remote, tmp_path, date(2024, 3, 7)).digest == local.digest
    assert resolve_day(source_config("s3://shop/a", interactions="s3://shop/a/log"), None) == DAY


def test_what_is_wrong_on_s3_is_one_line(tmp_path: Path, s3: Any) -> None:
    for uri in ("s3://shop/none", "s3://shop/none/*.parquet", "s3://nobucket/catalog", "s3://nobucket/*.parquet"):
        with pytest.raises(InputError) as caught:
            read(source_config("s3://shop/none", catalog=uri), tmp_path)
        assert uri in str(caught.value)
        assert "\n" not in str(caught.value)
        assert "secret" not in str(caught.value)


def test_an_endpoint_that_does_not_answer_is_worth_a_retry(monkeypatch: pytest.MonkeyPatch, s3: Any) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    with pytest.raises(StorageUnreachableError, match=r"s3://shop/c: the object store did not answer"):
        list_input("s3://shop/c")


def test_the_window_takes_whole_days(tmp_path: Path) -> None:
    edges = [
        instant(5, 0) - timedelta(microseconds=1),
        instant(5, 0),
        instant(8, 0) - timedelta(microseconds=1),
        instant(8, 0),
    ]
    log = pa.table({"user_id": ["a", "b", "c", "d"], "item_id": IDS[:4], "event_time": edges})
    ref = read(sample(tmp_path, log=log, lookback_days=3), tmp_path, date(2024, 3, 7))
    assert ref.array("items").tolist() == [1, 2]
