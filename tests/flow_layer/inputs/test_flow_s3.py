"""A whole run whose catalog, log and table lie in S3, against moto's HTTP server; the credentials show nowhere."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from deltalake import DeltaTable

from tests.support.flow.flow_support import CommandLine, Published, move_to_s3, rows_of, table_uri
from tests.support.table.s3_server import serve_s3, use_s3

KEY, SECRET = "AKIAFLOWTESTING", "jalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY"


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """The AWS environment of a real HTTP server in a process of its own."""
    with serve_s3() as address:
        yield use_s3(monkeypatch, address, KEY, SECRET)


def test_everything_in_s3(
    demo: Path,
    cli: CommandLine,
    one_day: Published,
    s3: dict[str, str],
    prefect_server: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    client = boto3.client("s3", endpoint_url=s3["AWS_ENDPOINT_URL"], region_name="us-east-1")
    move_to_s3(demo, client)

    day = one_day.days[0]
    finished = cli.rectify(demo, day, environment=s3)
    assert finished.code == 0, finished.err
    result = finished.result
    # The same day from a local disk is the same run.
    assert result["run_id"] == one_day.results[0]["run_id"]
    uri = "s3://lake/shop/warehouse/item_features"
    assert result["table"] == uri
    assert rows_of(uri, day).equals(rows_of(table_uri(one_day.demo), day))
    repeat = cli.rectify(demo, day, environment=s3)
    assert repeat.code == 0, repeat.err
    assert not repeat.result["published"]
    assert DeltaTable(uri).version() == 0
    listed = cli("versions", "--config", demo / "run.toml", "--json", environment=s3)
    assert [x["run_id"] for x in listed.result["versions"]] == [result["run_id"]]
    missing = cli.rectify(demo, day, "--set", "source.catalog='s3://lake/nowhere'", environment=s3)
    assert missing.code == 2, missing.err
    assert "s3://lake/nowhere" in missing.error

    said = "".join(x.out + x.err for x in (finished, repeat, listed, missing)).encode()
    written = [x.read_bytes() for x in sorted((demo / "runs").rglob("*")) if x.is_file()]
    objects = client.list_objects_v2(Bucket="lake", Prefix="shop/warehouse")["Contents"]
    stored = [client.get_object(Bucket="lake", Key=x["Key"])["Body"].read() for x in objects]
    assert any(result["run_id"].encode() in x for x in stored)
    served = [x.read_bytes() for x in sorted(tmp_path_factory.getbasetemp().glob("prefect-server*/*")) if x.is_file()]
    assert any(result["run_id"].encode() in x for x in served), "the server's database was not found"
    home = [x.read_bytes() for x in sorted(Path(os.environ["PREFECT_HOME"]).rglob("*")) if x.is_file()]
    for what, found in (
        ("output", [said]),
        ("run folder", written),
        ("table", stored),
        ("server", served),
        ("home", home),
    ):
        for secret in (SECRET, KEY):
            assert not any(secret.encode() in x for x in found), what
