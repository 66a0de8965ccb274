"""The lock of a table: one run at a time. It holds among the processes of one machine.

Across machines, the second of two commits to the same version fails.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import AbstractContextManager
from pathlib import Path

from tasks.store.file_lock import held_file
from tasks.table.config import PublishConfig


def table_lock(
    config: PublishConfig, lock_folder: Path | None = None, *, run: str = "", patience: float = 0.0
) -> AbstractContextManager[Path]:
    """Hold the table of ``config`` for the block and yield the lock file: beside a local table, else in ``lock_folder``.

    The file names ``run``. Raises TableHeldError if another process holds it for all of ``patience`` seconds, StorageError if the file
    cannot be made, ValueError for a remote table without ``lock_folder``.
    """
    return held_file(lock_path(config, lock_folder), f"table {config.uri}", run=run, patience=patience)


def lock_path(config: PublishConfig, lock_folder: Path | None = None) -> Path:
    """Return the lock file of this table. Two spellings of one local folder share it."""
    if config.folder is not None:
        real = Path(os.path.realpath(config.folder))
        return real.with_name(f".{real.name}.lock")
    if lock_folder is None:
        raise ValueError(f"lock_folder: wanted a local folder for the lock of {config.uri}")
    return lock_folder / f".{hashlib.blake2b(config.uri.rstrip('/').encode(), digest_size=12).hexdigest()}.lock"
