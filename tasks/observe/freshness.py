"""Whether the newest published day is as new as it should be: by the day that the rows are of, not by when they were last written.

A day D is complete when it ends, at midnight in ``alerts.timezone``. It is late once it ended more than ``late_after_hours`` before now and
the day after it is not published either: with the default of 30 every day has six hours after its end to be published. A backfill of an
earlier day changes nothing of that.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime

from tasks.observe.config import AlertsConfig


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
