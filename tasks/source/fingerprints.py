"""What a day's run would read: fingerprints of the catalog's and the log's files by path, size and modification time.

They show a file that was added, removed or written again, but not its content. A file that was written again with the same rows counts as
changed; a run of the day then finds nothing new. Without ``dt=`` partitions every day reads the same files, so a new file changes all
days. Paths are relative to the input, so a copy elsewhere that keeps its times has the same fingerprints.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

from tasks.errors import InputError
from tasks.source.config import SourceConfig
from tasks.source.files import Listing, ParquetFiles, list_catalog, list_log
from tasks.source.read import days_of_events, today_in

Fingerprints = dict[str, dict[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """The catalog and the log as they were listed."""

    config: SourceConfig
    catalog: Listing
    log: Listing

    @classmethod
    def listed(cls, config: SourceConfig) -> Inputs:
        """Both as they are now. Raises InputError where one is missing."""
        return cls(config=config, catalog=list_catalog(config), log=list_log(config))

    def fingerprints(self, day: date) -> Fingerprints | None:
        """``catalog`` and ``log``, each ``{digest, files, bytes, newest}``; None where a run of that day would find one of them missing."""
        try:
            catalog, log = self.catalog.catalog(day), self.log.log(day, self.config.lookback_days)
        except InputError:
            return None
        return {"catalog": _fingerprint(catalog), "log": _fingerprint(log)}

    def days(self, *, today: date | None = None) -> list[date]:
        """The days that have data of their own, oldest first, none after ``today``.

        They are the ``dt=`` partitions of both inputs. For a log without partitions they are the days of its events, or only today
        without a time column. Raises InputError.
        """
        today = today or today_in(self.config)
        days = {*self.log.by_day, *self.catalog.by_day}
        if not self.log.by_day:
            days.update([today] if self.config.time_column is None else days_of_events(self.config, today))
        return sorted(day for day in days if day <= today and self.fingerprints(day) is not None)


def input_fingerprints(config: SourceConfig, day: date) -> Fingerprints | None:
    """What a run of that day would read. None where it cannot be listed; the run itself reports why."""
    try:
        return Inputs.listed(config).fingerprints(day)
    except InputError:
        return None


def changed_inputs(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What differs, in words: ``log changed: 9 files, 10 now``."""
    changes = []
    for name in ("catalog", "log"):
        if name in old and name in new and old[name]["digest"] != new[name]["digest"]:
            counts = old[name]["files"], new[name]["files"]
            now = (
                f"{counts[0]:,} files, {counts[1]:,} now"
                if counts[0] != counts[1]
                else f"written {new[name]['newest']}"
            )
            changes.append(f"{name} changed: {now}")
    return changes


def _fingerprint(files: ParquetFiles) -> dict[str, Any]:
    state, base = hashlib.blake2b(digest_size=12), files.uri.rstrip("/")
    for file in files.files:
        state.update(f"{file.uri.removeprefix(base)}\0{file.size}\0{file.modified_ns}\n".encode())
    newest = datetime.fromtimestamp(max((file.modified_ns for file in files.files), default=0) / 1e9, UTC)
    return {
        "digest": state.hexdigest(),
        "files": len(files.files),
        "bytes": sum(file.size for file in files.files),
        "newest": newest.isoformat(timespec="seconds"),
    }
