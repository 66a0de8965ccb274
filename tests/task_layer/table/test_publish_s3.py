"""The published table in S3, against moto's HTTP server: the same publishing, history, rollback and sweep."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import boto3
import polars as pl
import pytest
from deltalake import DeltaTable

from tasks.errors import RectifierError, StorageError, TableHeldError
from tasks.store.store import Ref
from tasks.table.cleanup import sweep_table
from tasks.table.files import TableFiles
from tasks.table.history import list_versions, roll_back
from tasks.table.publish import PublishConfig, find_published
from tests.support.export_support import export, manifest
from tests.support.table.publish_support import command, identity, make_refs, publish, start
from tests.support.table.s3_server import SERVER

DAYS = ("2024-03-01", "2024-03-02", "2024-03-03")
SECRET = "wJalrXUtnFEMI/K7MDENG"


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    # A process of its own: delta-rs holds the interpreter while it restores, and would wait for a server of this one for ever.
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert server.stdout is not None
    assert server.stdin is not None
    yield server.stdout.readline().strip()
    server.stdin.close()
    server.wait(timeout=30)
    server.stdout.close()


@pytest.fixture
def config(endpoint: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> PublishConfig:
    for name in [x for x in os.environ if x.startswith("AWS_")]:
        monkeypatch.delenv(name)
    given = {
        "ENDPOINT_URL": endpoint,
        "ACCESS_KEY_ID": "AKIATESTING",
        "SECRET_ACCESS_KEY": SECRET,
        "REGION": "us-east-1",
        "ALLOW_HTTP": "true",
    }
    for name, value in given.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    bucket = f"bucket-{time.time_ns()}"
    boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1").create_bucket(Bucket=bucket)
    return PublishConfig(uri=f"s3://{bucket}/warehouse/features", rows_per_file=30, keep_snapshots=2)


@pytest.fixture
def refs(tmp_path: Path) -> tuple[Ref, Ref]:
    return make_refs(tmp_path / "stages")


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
    assert read.num_rows == 100
    assert str(read.schema.field("image").type) == "list<element: float>"

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
    with TableFiles(config.uri).create(orphan) as sink:
        sink.write(b"x")
    assert sweep_table(config) == []
    time.sleep(1.1)
    swept = sweep_table(PublishConfig(uri=config.uri, vacuum_after_hours=0))
    # The first day, the former third day in both of its runs, and the orphan: two files a run.
    assert orphan in swept
    assert len(swept) == 7
    assert runs(config) == {day: [identity(day).run_id] for day in DAYS[1:]}
    assert [x["version"] for x in list_versions(config) if x["restorable"]] == [5]


def test_racing_publishers_in_s3_never_mix(config: PublishConfig, refs: tuple[Ref, Ref]) -> None:
    publish(config, refs, DAYS[1])
    processes = [start(command(config, refs, DAYS[0], seed)) for seed in range(3)]
    said = [x.communicate() for x in processes]
    codes = [x.returncode for x in processes]
    assert {0} <= set(codes) <= {0, TableHeldError.exit_code}, said
    landed = [identity(DAYS[0], seed).run_id for seed, code in enumerate(codes) if code == 0]
    found = runs(config)
    assert found[DAYS[1]] == [identity(DAYS[1]).run_id]
    assert len(found[DAYS[0]]) == 1
    assert found[DAYS[0]][0] in landed
    assert DeltaTable(config.uri).version() == len(landed)


def test_a_failed_write_leaves_no_object(config: PublishConfig, refs: tuple[Ref, Ref]) -> None:
    files = TableFiles(config.uri)
    with pytest.raises(TypeError), files.create("as_of=2024-03-01/part-x.parquet") as sink:
        sink.writelines([b"half", None])
    assert files.walk() == []


@pytest.mark.parametrize("broken", ["bucket", "endpoint"])
def test_an_error_is_one_line_without_credentials(
    config: PublishConfig, refs: tuple[Ref, Ref], monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    uri = "s3://no-such-bucket/table" if broken == "bucket" else config.uri
    if broken == "endpoint":
        # Nothing listens there, and no retries, which would take minutes.
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:1/{SECRET}")
        monkeypatch.setenv("AWS_MAX_RETRIES", "0")
    with pytest.raises(RectifierError) as caught:
        publish(PublishConfig(uri=uri), refs, DAYS[0])
    said = str(caught.value)
    assert isinstance(caught.value, StorageError)
    assert uri in said
    assert "\n" not in said
    assert SECRET not in said
    assert "AKIATESTING" not in said


def test_a_table_in_s3_is_exported_as_a_local_one_is(config: PublishConfig, tmp_path: Path) -> None:
    refs = make_refs(tmp_path / "stages")
    local = PublishConfig(uri=str(tmp_path / "table"))
    for table in (config, local):
        for day in DAYS[:2]:
            publish(table, refs, day)
    found = [export(x.uri, tmp_path / name, version=0) for x, name in ((config, "from_s3"), (local, "from_disk"))]
    assert [x["digest"] for x in found] == [found[0]["digest"]] * 2
    told = manifest(tmp_path / "from_s3")
    assert (told["sources"]["table"], told["as_of"]) == (config.uri, DAYS[0])
    assert SECRET not in json.dumps(told)
