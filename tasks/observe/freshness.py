"""Whether the newest published day is as new as it should be: by the day that the rows are of, not by when they were last written.

A day D is complete when it ends, at midnight in ``alerts.timezone``. It is late once it ended more than ``late_after_hours`` before now and
the day after it is not published either: with the default of 30 every day has six hours after its end to be published. A backfill of an
earlier day changes nothing of that.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from datetime import time as clock
from zoneinfo import ZoneInfo, available_timezones

DAY_HOURS = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertsConfig:
    """When a day is late.

    ``late_after_hours``: a table is late whose newest day ended more than so many hours ago. ``timezone``: where days end, at midnight.
    """

    late_after_hours: float = 30.0
    timezone: str = "UTC"

    def __post_init__(self) -> None:
        if not (math.isfinite(self.late_after_hours) and self.late_after_hours >= DAY_HOURS):
            raise ValueError(f"late_after_hours: wanted at least {DAY_HOURS}, a day, got {self.late_after_hours}")
        if self.timezone != "UTC" and self.timezone not in available_timezones():
            raise ValueError(f"timezone: wanted a name like Europe/Berlin, got {self.timezone!r}")

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Freshness:
    """The newest published day (None: none), the one that should be there, hours since the newest ended, and whether that is late."""

    newest_day: date | None
    expected_day: date
    age_hours: float | None
    late: bool


def judge_freshness(newest: date | None, config: AlertsConfig, now: datetime) -> Freshness:
    """How fresh a table is whose newest day is ``newest``."""
    expected = config.expected(now)
    age = None if newest is None else (now - config.end_of(newest)).total_seconds() / 3600
    return Freshness(newest_day=newest, expected_day=expected, age_hours=age, late=newest is None or newest < expected)
