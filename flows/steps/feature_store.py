"""Refreshing the feature store as a Prefect task: retries where a store does not answer, and the asset that came of it."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.assets import Asset, AssetProperties, materialize

from flows.config.run_config import RunConfig
from flows.steps.options import IO, PLAIN
from tasks.feature_store.config import FeatureStoreConfig, Older
from tasks.observe.events import asset_key, key_of
from tasks.run_logger import logged_progress, run_logger
from tasks.table.config import PublishConfig


def refresh(config: FeatureStoreConfig, publish: PublishConfig, version: int | None, older: Older) -> dict[str, Any]:
    """Serve a version of the table, as the materialisation of the store's asset, which depends on the table's."""
    what = AssetProperties(name=config.service, description=f"Features online ({config.online}), a version at a time")
    asset = Asset(key=key_of(f"file://{config.folder}"), properties=what)

    @materialize(
        asset, asset_deps=[asset_key(publish)], name="refresh", task_run_name="refresh the feature store", **IO, **PLAIN
    )
    def refresh_asset() -> dict[str, Any]:
        # Feast takes seconds to import, which nobody else shall wait for.
        from tasks.feature_store.refresh import refresh_store

        refreshed = refresh_store(config, publish, version=version, older=older, progress=logged_progress())
        asset.add_metadata({name: refreshed[name] for name in ("done", "version", "as_of", "run_id", "rows")})
        run_logger().info(
            "feature store: %s: version %s as of %s, %s rows",
            refreshed["done"],
            refreshed["version"],
            refreshed["as_of"],
            refreshed["rows"],
        )
        return refreshed

    done: dict[str, Any] = refresh_asset()
    return done


@flow(name="refresh-feature-store", flow_run_name="refresh", validate_parameters=False, persist_result=False)
def refresh_feature_store(config: RunConfig, version: int | None = None, older: Older = "refuse") -> dict[str, Any]:
    """Serve the newest day of the newest or the given version; one that is served already writes nothing.

    ``older`` says what to do with a version older than what is served: "refuse" it, "serve" it, or "skip" it, as a run does that was
    triggered by a version which another has overtaken. Raises InputError, TableHeldError, OnlineStoreError or StorageError, each with one
    line for the user.
    """
    return refresh(config.feature_store, config.publish, version, older)
