"""Which days a table shows, by which commits, and which days a rollback took out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from tasks.table.config import PublishConfig
from tasks.table.files import TableFiles, storage_errors
from tasks.table.log import LOOK, DataFile, LogEntry, open_table, read_log, visible_files


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedDay:
    """What the table shows for a day, and the commit that published it. ``rewritten`` names what another tool did to its files since."""

    version: int | None
    run_id: str | None
    rows: int
    commit: Mapping[str, Any]
    rewritten: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TableDays:
    """The days that the newest version of a table shows, and the days that a rollback took out, with the version of the rollback."""

    published: Mapping[date, PublishedDay] = field(default_factory=dict)
    rolled_back: Mapping[date, int] = field(default_factory=dict)

    @property
    def latest(self) -> str | None:
        """The newest day of the table, which readers get by default."""
        return max(self.published).isoformat() if self.published else None


def read_table_days(publish: PublishConfig) -> TableDays:
    """The days of a table, from its log; none without a table. Raises StorageError."""
    table = open_table(publish.uri)
    if table is None:
        return TableDays()
    with storage_errors(publish.uri, "reading its versions", LOOK):
        files, log = visible_files(table), read_log(TableFiles(publish.uri))
    return TableDays(published=_published(files, log), rolled_back=_rolled_back(log))


def _published(files: Sequence[DataFile], log: Sequence[LogEntry]) -> dict[date, PublishedDay]:
    commits, changes = _publishing_commits(log)
    days = {}
    for day in sorted({file.day for file in files}):
        of_day = [file for file in files if file.day == day]
        commit = commits.get(day)
        days[date.fromisoformat(day)] = PublishedDay(
            version=None if commit is None else commit.version,
            run_id=of_day[0].run_id or (None if commit is None else commit.info["run_id"]),
            rows=sum(file.rows or 0 for file in of_day),
            commit={} if commit is None else commit.info,
            rewritten=changes.get(day),
        )
    return days


def _publishing_commits(log: Sequence[LogEntry]) -> tuple[dict[str, LogEntry], dict[str, str]]:
    """Of each day the commit whose rows the table shows, and what another tool did to the day's files since, in words."""
    of_path: dict[str, LogEntry] = {}
    commits: dict[str, LogEntry] = {}
    changes: dict[str, str] = {}
    for entry in log:
        operation = str(entry.info.get("operation", "unknown"))
        for path, day in entry.added.items():
            if "run_id" in entry.info:
                commits[day] = of_path[path] = entry
                changes.pop(day, None)
            elif operation == "RESTORE" and path in of_path:
                commits[day] = of_path[path]
                changes.pop(day, None)
            elif day in commits:
                # The rows of a file that another tool wrote are still those of the day's run, as it read them.
                of_path[path] = commits[day]
                changes[day] = f"{operation} of another tool in version {entry.version}"
    return commits, changes


def _rolled_back(log: Sequence[LogEntry]) -> dict[date, int]:
    shown: dict[str, str] = {}
    gone: dict[str, int] = {}
    for entry in log:
        before = set(shown.values())
        shown = {path: day for path, day in shown.items() if path not in entry.removed} | entry.added
        now = set(shown.values())
        if entry.info.get("operation") == "RESTORE":
            gone |= dict.fromkeys(before - now, entry.version)
        gone = {day: version for day, version in gone.items() if day not in now}
    return {date.fromisoformat(day): version for day, version in sorted(gone.items())}
