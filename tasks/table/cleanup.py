"""Cleaning up after the published table: files that no version in reach needs, what killed writers left, and the log's checkpoints."""

from __future__ import annotations

import re
import time

from deltalake import DeltaTable

from tasks.table.commit import log_copy, sweep_copies
from tasks.table.config import PublishConfig
from tasks.table.files import FileEntry, TableFiles, storage_errors, storage_options
from tasks.table.log import LOG, open_table, read_log, visible_files

_DATA = re.compile(r"as_of=[^/]+/[^/]+\.parquet(#\d+|\.[^/]*tmp)?")
_LOG_LEFTOVER = re.compile(LOG + r"/[^/]*(#\d+|\.tmp)")
_CHECKPOINT = re.compile(LOG + r"/(\d{20})\.checkpoint\.[^/]*parquet")
_LATER = "the published rows are not affected; the next run sweeps again"
CHECKPOINT_EVERY = 100


def sweep_table(config: PublishConfig) -> list[str]:
    """Delete what has been of no use for ``vacuum_after_hours`` and return the paths deleted; call it under the table's lock.

    Deleted are data files that no version shows and whose drop is that long ago, and orphans and temporary files of killed writers of
    that age; copies of the log that killed writers left go at once. A file that the table shows, or that a version of the last
    ``vacuum_after_hours`` showed, is never touched. No commit is made: the log stays one entry a run. Raises StorageError where the
    storage fails.
    """
    horizon = time.time() - config.vacuum_after_hours * 3600
    files = TableFiles(config.uri)
    with storage_errors(config.uri, "sweeping it", _LATER):
        copies = sweep_copies(files)
        there = files.walk()
        table = open_table(config.uri)
        needed = _needed(files, table, horizon) if table is not None else set()
        useless = [x.path for x in there if _sweepable(x) and x.path not in needed and x.modified < horizon]
        for path in useless:
            files.delete(path)
        for folder in {path.rsplit("/", 1)[0] for path in useless} - {LOG}:
            files.delete_empty_folder(folder)
        if table is not None:
            _checkpoint(files, table, there)
    return copies + useless


def _sweepable(file: FileEntry) -> bool:
    return bool(_DATA.fullmatch(file.path) or _LOG_LEFTOVER.fullmatch(file.path))


def _needed(files: TableFiles, table: DeltaTable, horizon: float) -> set[str]:
    """What the table shows, and what was dropped from it since ``horizon``."""
    needed = {x.path for x in visible_files(table)}
    for entry in read_log(files, since=int(horizon * 1000)):
        needed.update(path for path, dropped in entry.removed.items() if dropped >= horizon * 1000)
    return needed


def _checkpoint(files: TableFiles, table: DeltaTable, there: list[FileEntry]) -> None:
    """Sum the log up every so many versions, so that opening an old table stays quick."""
    last = max((int(found[1]) for x in there if (found := _CHECKPOINT.fullmatch(x.path))), default=0)
    if table.version() - last >= CHECKPOINT_EVERY:
        with log_copy(files) as copy:
            DeltaTable(copy.uri, table.version(), storage_options=storage_options()).create_checkpoint()
            copy.reveal_checkpoint()
