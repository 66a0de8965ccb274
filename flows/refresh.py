"""Readers of the feature store get another version of the table. Prefect is loaded only where a server is there to show it."""

from __future__ import annotations

from typing import Any

from flows.config.run_config import RunConfig
from rectifier_core.base.numerics import Progress
from tasks.feature_store.config import Older
from tasks.observe.events import has_server


def refresh_now(config: RunConfig, version: int | None, older: Older, progress: Progress) -> dict[str, Any]:
    """Refresh as a flow run where a Prefect server is there to show it, else at once: none is started for it.

    Returns and raises what ``tasks.feature_store.refresh.refresh_store`` does.
    """
    if has_server():
        from flows.steps.feature_store import refresh_feature_store

        return refresh_feature_store(config, version, older)
    from tasks.feature_store.refresh import refresh_store

    return refresh_store(config.feature_store, config.publish, version=version, older=older, progress=progress)
