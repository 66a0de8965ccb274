"""The published table's log: open the table, list its files, and read what each commit added and removed.

delta-rs returns no list of removed files, so commits are read here as the Delta protocol writes them: one JSON action a line.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import TableNotFoundError

from tasks.errors import InputError
from tasks.object_store import storage_options
from tasks.table.config import RunIdentity
from tasks.table.files import TableFiles, storage_errors

LOG = "_delta_log"
LOOK = "check that the storage can be reached and that the table's _delta_log is whole"
_COMMIT = re.compile(LOG + r"/(\d{20})\.json")
_PART = re.compile(r"as_of=[\d-]{10}/part-(?P<run>.+)-(?P<transaction>[0-9a-f]{16})-\d{2,}-\d{5}\.parquet")
_READERS = 16


@dataclass(frozen=True, slots=True)
class DataFile:
    """One data file of a version. ``run_id`` and ``transaction`` are None if another tool named the file."""

    path: str
    day: str
    rows: int | None
    run_id: str | None
    transaction: int | None


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One commit: its ``info``, the files it added (path to day), and those it removed (path to milliseconds since the epoch)."""

    version: int
    info: dict[str, Any]
    added: dict[str, str] = field(default_factory=dict)
    removed: dict[str, int] = field(default_factory=dict)

    @property
    def timestamp(self) -> int:
        """The time of the commit, milliseconds since the epoch."""
        return int(self.info.get("timestamp", 0))


def part_path(identity: RunIdentity, version: int, index: int) -> str:
    """Return the path of a run's data file.

    It names the run and the version that will add it. A repeat after a crash overwrites its own files, and no two commits share a file.
    """
    return f"as_of={identity.day}/part-{identity.run_id}-{identity.transaction:016x}-{version:02d}-{index:05d}.parquet"


def open_table(uri: str, version: int | None = None) -> DeltaTable | None:
    """Return the table at ``version`` (None: the newest), or None if there is no table.

    Raises StorageError if it cannot be read, InputError for a table of another layout.
    """
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
    """Return the data files of this version of the table, sorted by path."""
    actions = pa.table(table.get_add_actions(flatten=True)).to_pydict()
    paths = [unquote(x) for x in actions["path"]]
    counts = actions.get("num_records") or [None] * len(paths)
    files = []
    for path, day, rows in zip(paths, actions["partition.as_of"], counts, strict=True):
        part = _PART.fullmatch(path)
        run_id, transaction = (part["run"], int(part["transaction"], 16)) if part else (None, None)
        files.append(DataFile(path, str(day), rows, run_id, transaction))
    return sorted(files, key=lambda x: x.path)


def days_shown(files: Iterable[DataFile]) -> list[str]:
    """Return the days of data files, oldest first."""
    return sorted({x.day for x in files})


def read_log(files: TableFiles) -> list[LogEntry]:
    """Return the commits in the log, oldest first. Other tools may have deleted the first ones."""
    versions = [int(name[1]) for x in files.walk(LOG) if (name := _COMMIT.fullmatch(x.path))]
    with ThreadPoolExecutor(_READERS) as pool:
        return list(pool.map(lambda version: read_commit(files, version), versions))


def read_commit(files: TableFiles, version: int) -> LogEntry:
    """Return one commit. Raises FileNotFoundError if there is no such version."""
    entry = LogEntry(version, {})
    for action in map(json.loads, files.read_text(f"{LOG}/{version:020d}.json").splitlines()):
        if "commitInfo" in action:
            entry.info.update(action["commitInfo"])
        elif "add" in action:
            entry.added[unquote(action["add"]["path"])] = action["add"].get("partitionValues", {}).get("as_of", "")
        elif "remove" in action:
            entry.removed[unquote(action["remove"]["path"])] = action["remove"].get("deletionTimestamp") or 0
    return entry


def commit_of(log: Sequence[LogEntry], paths: Iterable[str]) -> dict[str, Any]:
    """Return the info of the commit that published these data files, empty if the log (oldest first) does not hold it."""
    wanted = set(paths)
    # A rollback adds files as well, but its commit has no run.
    return next((x.info for x in reversed(log) if "run_id" in x.info and x.added.keys() & wanted), {})
