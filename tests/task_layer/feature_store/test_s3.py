"""A table in S3 behind a feature store: rows are read there, and the offline store has files of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import boto3
import pandas as pd
import pytest

from tasks.errors import StorageError
from tasks.feature_store.config import FeatureStoreConfig
from tasks.feature_store.refresh import refresh_store
from tasks.table.config import PublishConfig
from tests.support.feature_store.feature_store_support import open_store, publish_items, read_online
from tests.support.table.s3_server import serve_s3, use_s3

SECRET = "wJalrXUtnFEMI-secret"
ITEMS = [f"item-{x}" for x in range(20)]


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> Iterator[PublishConfig]:
    with serve_s3() as address:
        use_s3(monkeypatch, address, "AKIATESTING", SECRET)
        boto3.client("s3", endpoint_url=address, region_name="us-east-1").create_bucket(Bucket="shop")
        yield PublishConfig(uri="s3://shop/features")


def test_a_table_in_s3(table: PublishConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = FeatureStoreConfig(folder=str(tmp_path / "store"), grace=0)
    for seed, day in enumerate(("2024-03-01", "2024-03-02")):
        publish_items(table, tmp_path / "stages", day, ITEMS, seed=seed)
    assert refresh_store(config, table)["done"] == "rows"
    assert {x["image_version"] for x in read_online(config, ITEMS).values()} == {1}
    assert refresh_store(config, table)["done"] == "unchanged"
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(StorageError) as caught:
        refresh_store(config, table)
    assert SECRET not in str(caught.value)
    # Without the bucket: what is served does not need it.
    asked = pd.DataFrame({"item_id": ["item-1"], "event_timestamp": pd.to_datetime(["2024-03-01T12:00"], utc=True)})
    store = open_store(config)
    found = store.get_historical_features(asked, store.get_feature_service(config.service)).to_df()
    assert pd.Timestamp(found["text_as_of"][0]).date().isoformat() == "2024-03-01"
    assert not [x for x in config.root.rglob("*") if x.is_file() and SECRET.encode() in x.read_bytes()]
