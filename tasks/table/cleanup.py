"""Delete files that no version in reach needs and what killed writers left, and write the log's checkpoints."""

from __future__ import annotations

import re
import time

from deltalake import DeltaTable

from tasks.object_store import storage_options
from tasks.table.commit import delete_copies, flushed_log
from tasks.table.config import PublishConfig
from tasks.table.files import TableFiles, storage_errors
from tasks.table.log import LOG, open_table, read_log, visible_files

_DATA = re.compile(r"as_of=[^/]+/[^/]+\.(parquet|tmp)")
_CHECKPOINT = re.compile(LOG + r"/(\d{20})\.checkpoint\.parquet")
_LATER = "the published rows are not affected; the next run sweeps again"
CHECKPOINT_EVERY = 100


def sweep_table(config: PublishConfig) -> list[str]:
    """Delete what no version has needed for ``vacuum_after_hours``, and return the deleted paths. Call it under the table's lock.

    These are data files that were removed that long ago, and files of that age that killed writers left. Files that a version of the last
    ``vacuum_after_hours`` shows stay. Copies of the log are deleted at once. No commit is made. Raises StorageError.
    """
    horizon = time.time() - config.vacuum_after_hours * 3600
    files = TableFiles(config.uri)
    with storage_errors(config.uri, "sweeping it", _LATER):
        copies = delete_copies(files)
        stored, table = files.walk(), open_table(config.uri)
        needed = {x.path for x in visible_files(table)} if table is not None else set()
        for entry in read_log(files):
            needed.update(path for path, when in entry.removed.items() if (when or entry.timestamp) >= horizon * 1000)
        useless = [
            x.path for x in stored if _DATA.fullmatch(x.path) and x.path not in needed and x.mtime.timestamp() < horizon
        ]
        for path in useless:
            files.delete(path)
        if table is not None:
            last = max((int(name[1]) for x in stored if (name := _CHECKPOINT.fullmatch(x.path))), default=0)
            if table.version() - last >= CHECKPOINT_EVERY:
                # Without a checkpoint, opening an old table reads every commit.
                with flushed_log(files) as uri:
                    DeltaTable(uri, table.version(), storage_options=storage_options()).create_checkpoint()
    return copies + useless
