"""Shared by the tests of the feature store: published days of chosen items, and what a reader gets of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from deltalake import DeltaTable
from feast import FeatureStore

from rectifier_core.base.published_records import TableVersion
from tasks.feature_store.config import FeatureStoreConfig
from tasks.table.config import PublishConfig
from tests.support.table.publish_support import anchors_ref, make_refs, publish


def publish_items(
    config: PublishConfig,
    stages: Path,
    day: str,
    items: Sequence[str] | Sequence[int],
    *,
    seed: int = 0,
    widths: Mapping[str, int] | None = None,
    empty: Sequence[str] = (),
    models: Mapping[str, str] | None = None,
    behaviour: bool = False,
) -> TableVersion:
    """Publish made-up features of ``items`` as a day, all missing of the modalities in ``empty``, with ``behaviour`` made-up anchors too."""
    id_type = "string" if isinstance(items[0], str) else "int64"
    refs = make_refs(stages, ids=items, widths=widths, id_type=id_type, seed=seed, empty=empty)
    anchors = anchors_ref(stages, items=len(items), seed=seed) if behaviour else None
    return publish(config, refs, day, seed, models=models, anchors=anchors)


def table_rows(uri: str, day: str, version: int | None = None) -> dict[Any, dict[str, Any]]:
    """What the table shows for a day, by item."""
    found = DeltaTable(uri, version=version).to_pyarrow_table(filters=[("as_of", "=", date.fromisoformat(day))])
    return {x["item_id"]: x for x in found.to_pylist()}


def open_store(config: FeatureStoreConfig) -> FeatureStore:
    """The store as a reader opens it."""
    return FeatureStore(config.folder)


def read_online(
    config: FeatureStoreConfig, items: Sequence[Any], store: FeatureStore | None = None
) -> dict[Any, dict[str, Any]]:
    """What a reader gets for these items, by item."""
    store = open_store(config) if store is None else store
    found = store.get_online_features(
        store.get_feature_service(config.service, allow_cache=True), [{"item_id": x} for x in items]
    ).to_dict()
    return {
        item: {name: values[row] for name, values in found.items() if name != "item_id"}
        for row, item in enumerate(items)
    }


def wanted_online(row: Mapping[str, Any], views: Sequence[str], version: int, day: str) -> dict[str, Any]:
    """What a reader should get for a row of the table."""
    when = datetime.combine(date.fromisoformat(day), datetime.min.time(), UTC)
    found: dict[str, Any] = {}
    for m in views:
        found |= {name: row[name] for name in ([m] if m == "behaviour" else [m, f"{m}_trust", f"{m}_status"])}
        found |= {f"{m}_run_id": row["run_id"], f"{m}_version": version, f"{m}_as_of": when}
    return found


def assert_served(
    config: FeatureStoreConfig, uri: str, day: str, version: int, views: Sequence[str] = ("image", "text")
) -> None:
    """Readers get all of the table's rows of that day, and each says that it is of that version."""
    rows = table_rows(uri, day)
    assert read_online(config, list(rows)) == {k: wanted_online(x, views, version, day) for k, x in rows.items()}
