"""The published table and its trend in S3, against moto's HTTP server."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import boto3
import polars as pl
import pytest
from deltalake import DeltaTable

from tasks.errors import StorageError, TableHeldError
from tasks.store.store import Ref
from tasks.table.cleanup import sweep_table
from tasks.table.files import TableFiles
from tasks.table.history import list_versions, roll_back
from tasks.table.publish import PublishConfig, find_published
from tasks.table.trend import read_trend, record_run, trend_uri
from tests.support.export_support import export, manifest
from tests.support.table.faults import Nursery
from tests.support.table.publish_support import identity, plain, publish
from tests.support.table.s3_server import serve_s3, use_s3
from tests.support.table.trend_samples import entry

DAYS = ("2024-03-01", "2024-03-02", "2024-03-03")
SECRET = "wJalrXUtnFEMI/K7MDENG"


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    # A process of its own: delta-rs holds the interpreter while it restores, and would wait for a server of this one for ever.
    with serve_s3() as address:
        yield address


@pytest.fixture
def config(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> PublishConfig:
    use_s3(monkeypatch, endpoint, "AKIATESTING", SECRET)
    bucket = f"bucket-{time.time_ns()}"
    boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1").create_bucket(Bucket=bucket)
    return PublishConfig(uri=f"s3://{bucket}/warehouse/features", rows_per_file=30, keep_snapshots=2, keep_trend=2)


def runs(config: PublishConfig) -> dict[str, list[str]]:
    read = pl.scan_delta(config.uri).select("as_of", "run_id").unique().sort("as_of", "run_id").collect()
    return {day.isoformat(): ids for day, ids in read.group_by("as_of", maintain_order=True).agg("run_id").iter_rows()}


def test_publish_find_list_roll_back_and_sweep(config: PublishConfig, refs: tuple[Ref, Ref]) -> None:
    assert find_published(config, identity(DAYS[0])) is None
    for day in DAYS:
        assert publish(config, refs, day).published
    assert [publish(config, refs, day).published for day in DAYS[1:]] == [False, False]
    assert publish(config, refs, DAYS[2], seed=1).version == 3
    assert runs(config) == {DAYS[1]: [identity(DAYS[1]).run_id], DAYS[2]: [identity(DAYS[2], 1).run_id]}
    read = DeltaTable(config.uri).to_pyarrow_table()
    assert read.num_rows == 100 and str(read.schema.field("image").type) == "list<element: float>"
    assert [(x["version"], x["days"], x["current"]) for x in list_versions(config)] == [
        (3, list(DAYS[1:]), True),
        (2, list(DAYS[1:]), False),
        (1, list(DAYS[:2]), False),
        (0, [DAYS[0]], False),
    ]
    assert (roll_back(config, 1).version, roll_back(config, 1).published) == (4, False)
    assert sorted(runs(config)) == list(DAYS[:2])
    assert find_published(config, identity(DAYS[0])) is not None
    assert find_published(config, identity(DAYS[2])) is None
    assert publish(config, refs, DAYS[2]).version == 5
    assert runs(config) == {day: [identity(day).run_id] for day in DAYS[1:]}

    orphan = "as_of=2024-03-02/part-orphan.parquet"
    with TableFiles(config.uri).create(orphan) as place:
        place.write_bytes(b"x")
    assert sweep_table(config) == []
    time.sleep(1.1)
    swept = sweep_table(PublishConfig(uri=config.uri, vacuum_after_hours=0))
    # The first day, the former third day in both of its runs, and the orphan: two files a run.
    assert orphan in swept and len(swept) == 7
    assert runs(config) == {day: [identity(day).run_id] for day in DAYS[1:]}
    assert [x["version"] for x in list_versions(config) if x["restorable"]] == [5]


def test_racing_publishers_never_mix(
    config: PublishConfig, refs: tuple[Ref, Ref], endpoint: str, nursery: Nursery
) -> None:
    publish(config, refs, DAYS[1])
    environment = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    jobs = [nursery.start("publish_in_s3", environment, config.uri, plain(refs), DAYS[0], seed) for seed in range(3)]
    ends = [x.wait() for x in jobs]
    codes = [x.code for x in ends]
    assert {0} <= set(codes) <= {0, TableHeldError.exit_code}, ends
    landed = [identity(DAYS[0], seed).run_id for seed, code in enumerate(codes) if code == 0]
    days = runs(config)
    assert days[DAYS[1]] == [identity(DAYS[1]).run_id]
    assert len(days[DAYS[0]]) == 1 and days[DAYS[0]][0] in landed
    assert DeltaTable(config.uri).version() == len(landed)


def test_the_trend_is_recorded_read_repeated_and_swept(config: PublishConfig) -> None:
    assert read_trend(config).days == ()
    entries = [entry(day, {"image": (0.10, 0.08, 0.12)}) for day in DAYS]
    assert [record_run(config, x) for x in entries] == [True] * 3
    assert not record_run(config, entries[-1])
    assert read_trend(config).days == tuple(entries[1:])
    files = TableFiles(trend_uri(config))
    assert [x.path for x in files.walk()] == [f"{day}.json" for day in DAYS[1:]]
    with files.create("2024-03-04.json") as place:
        place.write_bytes(b"{")
    assert (len(read_trend(config).days), read_trend(config).damaged) == (2, 1)


@pytest.mark.parametrize("broken", ["bucket", pytest.param("endpoint", marks=pytest.mark.slow), "bucket of the trend"])
def test_an_error_is_one_line_without_credentials(
    config: PublishConfig, refs: tuple[Ref, Ref], monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    uri = config.uri if broken == "endpoint" else "s3://no-such-bucket/table"
    if broken == "endpoint":
        # Nothing listens there, and no retries, which would take minutes.
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:1/{SECRET}")
        monkeypatch.setenv("AWS_MAX_RETRIES", "0")
    table = PublishConfig(uri=uri)
    with pytest.raises(StorageError) as caught:
        _ = record_run(table, entry(DAYS[0], {})) if "trend" in broken else publish(table, refs, DAYS[0])
    message = str(caught.value)
    assert uri in message
    assert not any(x in message for x in ("\n", SECRET, "AKIATESTING"))


def test_a_table_in_s3_is_exported_as_a_local_one_is(
    config: PublishConfig, tmp_path: Path, refs: tuple[Ref, Ref]
) -> None:
    local = PublishConfig(uri=str(tmp_path / "table"))
    for table in (config, local):
        for day in DAYS[:2]:
            publish(table, refs, day)
    tables = ((config, "from_s3"), (local, "from_disk"))
    remote, near = (export(x.uri, tmp_path / name, version=0) for x, name in tables)
    assert remote["digest"] == near["digest"]
    exported = manifest(tmp_path / "from_s3")
    assert (exported["sources"]["table"], exported["as_of"]) == (config.uri, DAYS[0])
    assert SECRET not in json.dumps(exported)
