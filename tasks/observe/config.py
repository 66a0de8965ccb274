"""The ``[alerts]`` section, and the parts of a run's config that monitoring needs."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from datetime import time as clock
from pathlib import Path
from zoneinfo import ZoneInfo, available_timezones

from pydantic import Field, field_validator
from pydantic.dataclasses import dataclass

from rectifier_core.base.config import STRICT, Float
from tasks.feature_store.config import SERVED, FeatureStoreConfig
from tasks.runs.config import RunSettings
from tasks.table.config import PublishConfig

DAY_HOURS = 24


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class AlertsConfig:
    """When a day is late."""

    late_after_hours: Float = Field(
        default=30.0, ge=DAY_HOURS, description="A table is late if its newest day ended more than so many hours ago."
    )
    timezone: str = Field(default="UTC", description="Time zone in which days end, at midnight.")

    @field_validator("timezone")
    @classmethod
    def _check_timezone(cls, name: str) -> str:
        if name != "UTC" and name not in available_timezones():
            raise ValueError(f"wanted a name like Europe/Berlin, got {name!r}")
        return name

    def end_of(self, day: date) -> datetime:
        """When a day ends, in UTC."""
        zone = UTC if self.timezone == "UTC" else ZoneInfo(self.timezone)
        return datetime.combine(day + timedelta(days=1), clock(), tzinfo=zone).astimezone(UTC)

    def expected(self, now: datetime) -> date:
        """The newest day that should be published by ``now``."""
        zone = UTC if self.timezone == "UTC" else ZoneInfo(self.timezone)
        day = now.astimezone(zone).date()
        while now < self.end_of(day) + timedelta(hours=self.late_after_hours - DAY_HOURS):
            day -= timedelta(days=1)
        return day


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class WatchConfig:
    """Where a run publishes, serves and keeps its files, and when its table is late."""

    run: RunSettings
    publish: PublishConfig
    feature_store: FeatureStoreConfig
    alerts: AlertsConfig

    @property
    def folder(self) -> Path:
        """The run folder."""
        return Path(self.run.folder)

    @property
    def served(self) -> Path:
        """The file in which a refresh notes the served version."""
        return self.feature_store.root / SERVED
