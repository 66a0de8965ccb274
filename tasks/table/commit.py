"""Commits that survive a power cut: a new log file gets its name after it was flushed.

delta-rs gives a commit its name and flushes nothing, so a power cut could leave the name without the bytes. No reader opens such a table.
On a local disk delta-rs therefore commits to a copy of the log, made of hard links in a hidden folder. The new files are flushed and then
linked into the log. A link fails if another process has committed that version. In S3 delta-rs commits to the table itself.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex

from deltalake import PostCommitHookProperties

from tasks.store.atomic_files import fsync
from tasks.table.files import TableFiles, make_folders
from tasks.table.log import LOG

_COPY = ".commit-"
# A checkpoint and a clean-up of the log are no part of a commit: ``sweep_table`` makes checkpoints, and nothing deletes history.
NO_HOOKS = PostCommitHookProperties(create_checkpoint=False, cleanup_expired_logs=False)


@contextmanager
def flushed_log(files: TableFiles) -> Iterator[str]:
    """Yield the uri that delta-rs must commit to. The commit is visible and flushed after the block.

    Raises FileExistsError if another process committed the same version first, else OSError.
    """
    if files.root is None:
        yield files.uri
        return
    make_folders(files.root)
    log, folder = files.root / LOG, files.root / f"{_COPY}{os.getpid()}-{token_hex(4)}"
    copy = folder / LOG
    try:
        copy.mkdir(parents=True)
        # Oldest first: a version that another process commits meanwhile may be missing at the end, but never in between.
        for path in sorted(log.iterdir()) if log.is_dir() else ():
            os.link(path, copy / path.name)
        yield str(folder)
        make_folders(log)
        # The hint at the last checkpoint comes after the checkpoint.
        for path in sorted(copy.iterdir(), key=lambda x: (x.name == "_last_checkpoint", x.name)):
            if not _is_linked(path, log):
                fsync(path)
                if path.suffix == ".json":
                    os.link(path, log / path.name)
                else:
                    path.rename(log / path.name)
                fsync(log)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _is_linked(path: Path, log: Path) -> bool:
    try:
        return path.samefile(log / path.name)
    except FileNotFoundError:
        return False


def delete_copies(files: TableFiles) -> list[str]:
    """Delete the copies of the log that killed processes left, and return their names. Call it under the table's lock."""
    left = sorted(files.root.glob(f"{_COPY}*")) if files.root is not None else []
    for folder in left:
        shutil.rmtree(folder)
    return [x.name for x in left]
