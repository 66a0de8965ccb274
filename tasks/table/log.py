"""The published table's log: opening the table, what it shows, and what each commit added and removed.

The log is read as the Delta protocol writes it (one JSON action a line), because delta-rs gives no list of removed files.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import date
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import TableNotFoundError

from tasks.errors import InputError
from tasks.table.config import RunIdentity
from tasks.table.files import TableFiles, storage_errors, storage_options

LOG = "_delta_log"
LOOK = "check that the storage can be reached and that the table's _delta_log is whole"
_COMMIT = re.compile(LOG + r"/(\d{20})\.json")
_PART = re.compile(
    r"as_of=\d{4}-\d\d-\d\d/part-(?P<run>.+)-(?P<transaction>[0-9a-f]{16})-(?P<attempt>\d{2,})-\d{5}\.parquet"
)
_READERS = 16


@dataclass(frozen=True, slots=True)
class DataFile:
    """One data file that a version shows; ``run_id``, ``transaction`` and ``attempt`` are None where another tool named the file."""

    path: str
    day: str
    rows: int | None
    run_id: str | None
    transaction: int | None


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One commit: what it says of itself, the paths it added, and the paths it removed with the time in milliseconds since the epoch."""

    version: int
    info: dict[str, Any]
    added: dict[str, str] = field(default_factory=dict)
    removed: dict[str, int] = field(default_factory=dict)

    @property
    def timestamp(self) -> int:
        """When it was committed, milliseconds since the epoch."""
        return int(self.info.get("timestamp", 0))


def commit_path(version: int) -> str:
    """The log file of one version."""
    return f"{LOG}/{version:020d}.json"


def part_path(identity: RunIdentity, attempt: int, index: int) -> str:
    """The name of a run's data file: the same run always writes the same names, and a name tells whose it is."""
    return f"as_of={identity.day}/part-{identity.run_id}-{identity.transaction:016x}-{attempt:02d}-{index:05d}.parquet"


def attempt_of(path: str, identity: RunIdentity) -> int | None:
    """The attempt that a path of this very run was written in, else None."""
    found = _PART.fullmatch(path)
    if found is None or found["run"] != identity.run_id or int(found["transaction"], 16) != identity.transaction:
        return None
    return int(found["attempt"])


def open_table(uri: str, version: int | None = None) -> DeltaTable | None:
    """The table at its newest or at one version; None where there is none. Raises StorageError, and InputError for a foreign table."""
    with storage_errors(uri, "opening it", LOOK):
        try:
            table = DeltaTable(uri, version=version, storage_options=storage_options())
        except TableNotFoundError:
            return None
        columns = {x.name for x in table.schema().fields}
        if table.metadata().partition_columns != ["as_of"] or not {"item_id", "run_id"} <= columns:
            raise InputError(
                f"publish.uri: {uri} is a Delta table of another layout; choose a folder of its own for the published table"
            )
        return table


def visible_files(table: DeltaTable) -> list[DataFile]:
    """The data files that this version of the table shows, by path."""
    actions = pa.table(table.get_add_actions(flatten=True)).to_pydict()
    counts = actions.get("num_records") or [None] * len(actions["path"])
    return sorted(
        (
            _data_file(unquote(path), day, rows)
            for path, day, rows in zip(actions["path"], actions["partition.as_of"], counts, strict=True)
        ),
        key=lambda x: x.path,
    )


def _data_file(path: str, day: date | str, rows: int | None) -> DataFile:
    found = _PART.fullmatch(path)
    return DataFile(
        path=path,
        day=str(day),
        rows=rows,
        run_id=found["run"] if found else None,
        transaction=int(found["transaction"], 16) if found else None,
    )


def read_log(files: TableFiles, *, since: int | None = None) -> list[LogEntry]:
    """The commits that the log still holds, oldest first; with ``since`` (milliseconds) only about as far back as that."""
    entries: list[LogEntry] = []
    for some in _newest_first(files):
        entries += some
        # One commit alone may have been made while the clock was wrong.
        if since is not None and all(x.timestamp < since for x in some):
            break
    return entries[::-1]


def read_back(files: TableFiles) -> Iterator[LogEntry]:
    """The commits that the log still holds, newest first, a few read at a time."""
    for some in _newest_first(files):
        yield from some


def commit_of(newest_first: Iterable[LogEntry], paths: Iterable[str]) -> dict[str, Any]:
    """What the commit that published these data files says of itself; empty where none of the commits did."""
    wanted = set(paths)
    # A rollback adds files as well, and says nothing of them.
    return next((x.info for x in newest_first if "run_id" in x.info and x.added.keys() & wanted), {})


def _newest_first(files: TableFiles) -> Iterator[list[LogEntry]]:
    versions = sorted((int(x[1]) for entry in files.walk(LOG) if (x := _COMMIT.fullmatch(entry.path))), reverse=True)
    with ThreadPoolExecutor(_READERS) as pool:
        for first in range(0, len(versions), _READERS):
            some = versions[first : first + _READERS]
            yield list(pool.map(lambda version: _parse(version, files.read_text(commit_path(version))), some))


def _parse(version: int, text: str) -> LogEntry:
    entry = LogEntry(version, {})
    for action in map(json.loads, filter(None, text.splitlines())):
        if "commitInfo" in action:
            entry.info.update(action["commitInfo"])
        elif "add" in action:
            entry.added[unquote(action["add"]["path"])] = action["add"].get("partitionValues", {}).get("as_of", "")
        elif "remove" in action:
            entry.removed[unquote(action["remove"]["path"])] = action["remove"].get("deletionTimestamp") or 0
    for path, when in entry.removed.items():
        entry.removed[path] = when or entry.timestamp
    return entry


def days_shown(paths: Iterable[DataFile]) -> list[str]:
    """The days among data files, oldest first."""
    return sorted({x.day for x in paths})
