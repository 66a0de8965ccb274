"""The trend of a table in S3, against moto's HTTP server."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import boto3
import pytest

from tasks.errors import StorageError
from tasks.table.config import PublishConfig
from tasks.table.files import TableFiles
from tasks.table.trend import read_trend, record_run, trend_uri
from tests.support.table.s3_server import SERVER
from tests.support.table.trend_samples import Rate, entry

STEADY: Rate = (0.10, 0.08, 0.12)
SECRET = "wJalrXUtnFEMI/K7MDENG"


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert server.stdout is not None and server.stdin is not None
    yield server.stdout.readline().strip()
    server.stdin.close()
    server.wait(timeout=30)
    server.stdout.close()


@pytest.fixture
def config(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> PublishConfig:
    for name in [x for x in os.environ if x.startswith("AWS_")]:
        monkeypatch.delenv(name)
    given = {
        "ENDPOINT_URL": endpoint,
        "ACCESS_KEY_ID": "AKIATESTING",
        "SECRET_ACCESS_KEY": SECRET,
        "REGION": "us-east-1",
    }
    for name, value in given.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1").create_bucket(Bucket="trend")
    return PublishConfig(uri="s3://trend/warehouse/features", keep_trend=2)


def test_recorded_read_repeated_and_swept(config: PublishConfig) -> None:
    assert read_trend(config).days == ()
    days = ("2024-03-01", "2024-03-02", "2024-03-03")
    entries = [entry(day, {"image": STEADY}) for day in days]
    assert [record_run(config, x) for x in entries] == [True] * 3
    assert not record_run(config, entries[-1])
    assert read_trend(config).days == tuple(entries[1:])
    files = TableFiles(trend_uri(config))
    assert [x.path.split("/")[0] for x in files.walk()] == list(days[1:])
    with files.create(f"{days[2]}/20240303-broken.json") as sink:
        sink.write(b"{")
    assert (len(read_trend(config).days), read_trend(config).damaged) == (2, 1)


def test_a_store_that_is_away_is_one_line_without_credentials(
    config: PublishConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(StorageError) as caught:
        record_run(PublishConfig(uri="s3://no-such-bucket/features"), entry("2024-03-01", {"image": STEADY}))
    assert "\n" not in str(caught.value)
    assert SECRET not in str(caught.value)
