"""A refresh as a job for another process."""

from __future__ import annotations

import os
from typing import Any

from tasks.feature_store.config import FeatureStoreConfig
from tasks.feature_store.refresh import refresh_store
from tasks.table.config import PublishConfig
from tests.support.table.night_jobs import exit_status


def refresh(config: dict[str, Any], uri: str, environment: dict[str, str]) -> int:
    """Refresh the store from the table at ``uri``, and end as the command line would."""
    os.environ.update(environment)
    return exit_status(lambda: refresh_store(FeatureStoreConfig(**config), PublishConfig(uri=uri)))
