"""What can be measured of a table at any time, runs or none: its newest day and version, and what the trend says of that day."""

from __future__ import annotations

import json
import time
from collections import Counter
from datetime import date
from pathlib import Path
from typing import Any

from rectifier_core.base.published_records import Status
from tasks.runs.day_journal import STATES, is_held, read_days
from tasks.table.config import PublishConfig
from tasks.table.files import storage_errors
from tasks.table.log import LOOK, open_table, visible_files
from tasks.table.trend import find_jumps, read_trend

Facts = dict[str, Any]
DEAD = "dead"


def newest_day(config: PublishConfig) -> tuple[date | None, int | None]:
    """The newest day that the table's newest version shows, and that version; None where there is none. Raises as ``open_table``."""
    table = open_table(config.uri)
    if table is None:
        return None, None
    with storage_errors(config.uri, "reading it", LOOK):
        newest = max((x.day for x in visible_files(table)), default=None)
    return None if newest is None else date.fromisoformat(newest), table.version()


def count_days(run_folder: str, config: PublishConfig) -> dict[str, int]:
    """How many days of the journal are in each state; "dead" are those that say that they run while nobody holds them."""
    found = Counter(dict.fromkeys((*STATES, DEAD), 0))
    for day, entry in read_days(run_folder, config).items():
        dead = entry["state"] == "running" and not is_held(run_folder, config, day)
        found[DEAD if dead else entry["state"]] += 1
    return dict(found)


def see_table(config: PublishConfig) -> Facts:
    """The table and the newest day of its trend now, as JSON values; raises as ``open_table``.

    Keys: at (seconds since the epoch), version, newest_day, days, rows (of the newest day), found_day, modalities, gate and jumped
    (modalities whose rate jumped on the day that was found last; empty where no run left anything).
    """
    table = open_table(config.uri)
    rows: Counter[str] = Counter()
    if table is not None:
        with storage_errors(config.uri, "reading it", LOOK):
            for file in visible_files(table):
                rows[file.day] += file.rows or 0
    newest = max(rows, default=None)
    trend = read_trend(config, last=8).days
    last = trend[-1] if trend else None
    return {
        "at": time.time(),
        "version": None if table is None else table.version(),
        "newest_day": newest,
        "days": len(rows),
        "rows": None if newest is None else rows[newest],
        "found_day": None if last is None else last["as_of"],
        "modalities": {} if last is None else {m: _modality(found) for m, found in last["modalities"].items()},
        "gate": [] if last is None else last["gate"],
        "jumped": [] if last is None else sorted({x["modality"] for x in find_jumps(trend, last["as_of"])}),
    }


def see_served(path: Path) -> Facts:
    """What the feature store serves, as a refresh told it; empty where there is none, or it cannot be read."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _modality(found: Facts) -> Facts:
    return {name: found[name] for name in ("mismatch_rate", "low", "high", "identifiable", *(x.value for x in Status))}
