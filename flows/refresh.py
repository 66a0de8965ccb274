"""The refresh flow: readers of the feature store get another version of the table."""

from __future__ import annotations

from typing import Any

from prefect import flow

from flows.config.run_config import RunConfig
from flows.steps import feature_store as steps
from rectifier_core.base.numerics import Progress
from tasks.feature_store.served_version import Older
from tasks.observe.events import has_server


@flow(name="refresh-feature-store", flow_run_name="refresh", validate_parameters=False, persist_result=False)
def refresh_feature_store(config: RunConfig, version: int | None = None, older: Older = "refuse") -> dict[str, Any]:
    """Serve the newest day of the newest or the given version; one that is served already writes nothing.

    ``older`` says what to do with a version older than what is served: "refuse" it, "serve" it, or "skip" it, as a run does that was
    triggered by a version which another has overtaken. Raises InputError, TableHeldError, OnlineStoreError or StorageError, each with one
    line for the user.
    """
    return steps.refresh(config.feature_store, config.publish, version, older)


def refresh_now(config: RunConfig, version: int | None, older: Older, progress: Progress) -> dict[str, Any]:
    """The same as a flow run where a Prefect server is there to show it, else at once: none is started for it."""
    if has_server():
        return refresh_feature_store(config, version, older)
    from tasks.feature_store.refresh import refresh_store

    return refresh_store(config.feature_store, config.publish, version=version, older=older, progress=progress)
