"""The parts of a run's config that those need who watch it, and no stage of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tasks.feature_store.config import SERVED, FeatureStoreConfig
from tasks.observe.freshness import AlertsConfig
from tasks.runs.identity import RunSettings
from tasks.source.config import SourceConfig
from tasks.table.config import PublishConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchConfig:
    """Where a run reads, publishes, serves and leaves its files, and when its table is late."""

    run: RunSettings
    source: SourceConfig
    publish: PublishConfig
    feature_store: FeatureStoreConfig
    alerts: AlertsConfig

    @property
    def folder(self) -> Path:
        """The run folder."""
        return Path(self.run.folder)

    @property
    def served(self) -> Path:
        """What a refresh tells monitors of the version that is served."""
        return self.feature_store.root / SERVED
