"""What a day's run would read, told from the listing alone: a print of the catalog's and of the log's files by path, size and time.

It sees a file that came, went, or was written again, and not what is in it: a file that was written again with the same rows counts as
changed, and a run of the day then finds nothing new. Without ``dt=`` partitions every day reads the same files, so what arrives for
one day changes all. Paths are told from where the input lies, so that a copy elsewhere that kept its times is the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

from tasks.errors import InputError
from tasks.source.config import SourceConfig
from tasks.source.files import Listed, ParquetFiles, list_input, log_of, snapshot_of
from tasks.source.interactions import event_days

Fingerprints = dict[str, dict[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """The catalog and the log as they were listed."""

    config: SourceConfig
    catalog: Listed
    log: Listed

    @classmethod
    def listed(cls, config: SourceConfig) -> Inputs:
        """Both as they are now. Raises InputError where one is missing."""
        return cls(config=config, catalog=list_input(config.catalog), log=list_input(config.interactions))

    def fingerprints(self, day: date) -> Fingerprints | None:
        """``catalog`` and ``log``, each ``{digest, files, bytes, newest}``; None where a run of that day would find one of them missing."""
        try:
            catalog, log = snapshot_of(self.catalog, day), log_of(self.log, day, self.config.lookback_days)
        except InputError:
            return None
        return {"catalog": _print(catalog), "log": _print(log)}

    def days(self, *, today: date | None = None) -> list[date]:
        """The days that have data of their own, oldest first, none after ``today`` (UTC).

        They are the ``dt=`` partitions of either; of a log without any the days of its events, for which all its times are read, and
        without a time column only today. Raises InputError.
        """
        today = today or datetime.now(UTC).date()
        own = {*self.log[1], *self.catalog[1]}
        if not self.log[1]:
            column = self.config.time_column
            own.update([today] if column is None else event_days(self.log[0], column, today))
        return sorted(day for day in own if day <= today and self.fingerprints(day) is not None)


def input_fingerprints(config: SourceConfig, day: date) -> Fingerprints | None:
    """What a run of that day is about to read; None where it cannot be listed, which the run will say itself."""
    try:
        return Inputs.listed(config).fingerprints(day)
    except InputError:
        return None


def changed_inputs(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs, in words: ``log changed: 9 files, 10 now``."""
    found = []
    for name in ("catalog", "log"):
        old, new = before.get(name), now.get(name)
        if old is None or new is None or old["digest"] == new["digest"]:
            continue
        if old["files"] != new["files"]:
            found.append(f"{name} changed: {old['files']:,} files, {new['files']:,} now")
        else:
            found.append(f"{name} changed: written {new['newest']}")
    return found


def _print(found: ParquetFiles) -> dict[str, Any]:
    state, base = hashlib.blake2b(digest_size=12), found.uri.rstrip("/")
    for file in found.files:
        state.update(f"{file.uri.removeprefix(base)}\0{file.size}\0{file.modified_ns}\n".encode())
    newest = datetime.fromtimestamp(max((x.modified_ns for x in found.files), default=0) / 1e9, UTC)
    return {
        "digest": state.hexdigest(),
        "files": len(found.files),
        "bytes": sum(x.size for x in found.files),
        "newest": newest.isoformat(timespec="seconds"),
    }
