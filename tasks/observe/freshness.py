"""Whether the newest published day is late, by the day of the rows and not by when they were written.

A day ends at midnight in `alerts.timezone`. It is late when it ended more than `late_after_hours` ago and the day after it is not
published. With the default of 30 hours every day has six hours after its end. A backfill of an earlier day changes nothing here.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime

from tasks.observe.config import AlertsConfig
from tasks.table.config import PublishConfig
from tasks.table.files import TableFiles, storage_errors
from tasks.table.log import LOOK, DataFile, commit_of, open_table, read_log, visible_files


@dataclass(frozen=True, slots=True, kw_only=True)
class Freshness:
    """The newest published day or None, the day that should be published, hours since the newest ended, and whether it is late."""

    newest_day: date | None
    expected_day: date
    age_hours: float | None
    late: bool


def newest_day(config: PublishConfig) -> tuple[date | None, int | None]:
    """The newest day with data and the version of the table, None where there is none. Raises StorageError.

    A published day whose log had no event of that day counts as the day of the newest event that its run saw.
    """
    table = open_table(config.uri)
    if table is None:
        return None, None
    with storage_errors(config.uri, "reading it", LOOK):
        return newest_data_day(config, visible_files(table)), table.version()


def newest_data_day(config: PublishConfig, files: list[DataFile]) -> date | None:
    """The day of the newest data that these files of the table were made from."""
    newest = max((file.day for file in files), default=None)
    if newest is None:
        return None
    commit = commit_of(read_log(TableFiles(config.uri)), [file.path for file in files if file.day == newest])
    facts = commit.get("facts")
    event = facts.get("newest_event") if isinstance(facts, dict) else None
    return date.fromisoformat(min(newest, event or newest))


def judge_freshness(newest: date | None, config: AlertsConfig, now: datetime) -> Freshness:
    """Return how fresh a table is whose newest day is `newest`."""
    expected = config.expected(now)
    age = None if newest is None else (now - config.end_of(newest)).total_seconds() / 3600
    return Freshness(newest_day=newest, expected_day=expected, age_hours=age, late=newest is None or newest < expected)
