"""One run at a time on one table: an operating-system lock that the kernel frees when its holder dies, however it dies.

It holds among processes of one machine (and of machines that share the disk, where the file system passes ``flock`` on). Across machines
the table format's own commit conflict is the last word. A process forked while the lock is held keeps it until it ends too.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tasks.store.file_lock import held_file
from tasks.table.config import PublishConfig


@contextmanager
def table_lock(
    config: PublishConfig, lock_folder: Path | None = None, *, run: str = "", patience: float = 0.0
) -> Iterator[Path]:
    """Hold the table of ``config`` for the block; yields the lock file.

    The file lies beside a local table, else in ``lock_folder``; ``run`` is written into it for whoever meets the lock. Raises
    TableHeldError when another holds it and still does after ``patience`` seconds, StorageError when the file cannot be made, ValueError
    for a remote table without ``lock_folder``.
    """
    with held_file(lock_path(config, lock_folder), f"table {config.uri}", run=run, patience=patience) as path:
        yield path


def lock_path(config: PublishConfig, lock_folder: Path | None = None) -> Path:
    """Where the lock of this table lies; two spellings of one local folder share it."""
    if config.folder is not None:
        real = Path(os.path.realpath(config.folder))
        return real.with_name(f".{real.name}.lock")
    if lock_folder is None:
        raise ValueError(f"lock_folder: wanted a local folder for the lock of {config.uri}")
    return lock_folder / f".{hashlib.blake2b(config.uri.rstrip('/').encode(), digest_size=12).hexdigest()}.lock"
