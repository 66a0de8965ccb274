"""Whether the newest published day is late, and an event where it is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flows.config.run_config import RunConfig
from tasks.errors import InputError
from tasks.observe.events import LATE, asset_key, emit_night
from tasks.observe.freshness import judge_freshness, newest_day


def check_freshness(path: Path, overrides: Iterable[str], within: float | None) -> dict[str, Any]:
    """How fresh the table is now, as JSON values and ``told`` in words."""
    config = RunConfig.from_toml(path, overrides)
    try:
        alerts = config.alerts if within is None else replace(config.alerts, late_after_hours=within)
    except ValueError as error:
        raise InputError(f"--within {within:g}: {str(error).removeprefix('late_after_hours: ')}") from error
    newest, version = newest_day(config.publish)
    found = judge_freshness(newest, alerts, datetime.now(UTC))
    if newest is None:
        told = f"{config.publish.uri}: no day is published, {found.expected_day} should be"
    else:
        ended = (
            f"ended {found.age_hours:.1f} hours ago"
            if found.age_hours is not None and found.age_hours >= 0
            else "has not ended yet"
        )
        due = (
            f"late: {found.expected_day} should be published"
            if found.late
            else f"in time, no day after {found.expected_day} is due"
        )
        told = f"{config.publish.uri}: the newest published day is {newest}, which {ended}; {due}"
    values = {
        "table": config.publish.uri,
        "version": version,
        "newest_day": None if newest is None else newest.isoformat(),
        "expected_day": found.expected_day.isoformat(),
        "age_hours": None if found.age_hours is None else round(found.age_hours, 2),
        "late_after_hours": alerts.late_after_hours,
        "late": found.late,
        "told": told,
    }
    if found.late:
        emit_night(
            LATE, asset_key(config.publish), values | {"as_of": values["expected_day"], "exit_code": 1, "message": told}
        )
    return values
