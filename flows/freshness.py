"""Whether the newest published day is late, and an event where it is."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from flows.config.options import with_option
from flows.config.run_config import RunConfig
from tasks.observe.events import LATE, asset_key, emit_night
from tasks.observe.freshness import Freshness, judge_freshness, newest_day


def check_freshness(config: RunConfig, within: float | None) -> dict[str, Any]:
    """How fresh the table is now, as JSON values and as a ``message``. Sends an event if the newest day is late."""
    alerts = config.alerts
    if within is not None:
        alerts = with_option(f"--within {within:g}", alerts, "late_after_hours", within)
    newest, version = newest_day(config.publish)
    fresh = judge_freshness(newest, alerts, datetime.now(UTC))
    values = {
        "table": config.publish.uri,
        "version": version,
        "newest_day": None if newest is None else newest.isoformat(),
        "expected_day": fresh.expected_day.isoformat(),
        "age_hours": None if fresh.age_hours is None else round(fresh.age_hours, 2),
        "late_after_hours": alerts.late_after_hours,
        "late": fresh.late,
        "message": f"{config.publish.uri}: {_describe(fresh)}",
    }
    if fresh.late:
        emit_night(LATE, asset_key(config.publish), values | {"as_of": values["expected_day"], "exit_code": 1})
    return values


def _describe(fresh: Freshness) -> str:
    if fresh.newest_day is None:
        return f"no day is published, {fresh.expected_day} should be"
    age = fresh.age_hours
    ended = f"ended {age:.1f} hours ago" if age is not None and age >= 0 else "has not ended yet"
    due = "late: {} should be published" if fresh.late else "in time, no day after {} is due"
    return f"the newest published day is {fresh.newest_day}, which {ended}; {due.format(fresh.expected_day)}"
