"""The lease of a day: the process that runs a day holds a file lock. The kernel frees it when the process dies."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import date
from pathlib import Path

from tasks.errors import TableHeldError
from tasks.store.file_lock import held_file
from tasks.table.config import PublishConfig

# A look by `is_held` takes a shared lock for an instant. A run must not take it for another run.
PATIENCE = 1.0


class DayHeldError(TableHeldError):
    """Another run works on the day."""


def lease_path(run_folder: str, publish: PublishConfig, day: date) -> Path:
    """The lock file of one day of a table. Two spellings of one local folder share it."""
    table = os.path.realpath(publish.folder) if publish.folder is not None else publish.uri.rstrip("/")
    return Path(run_folder) / "days" / f".{day}-{hashlib.blake2b(table.encode(), digest_size=6).hexdigest()}.lock"


@contextmanager
def lease_day(run_folder: str, publish: PublishConfig, day: date) -> Iterator[None]:
    """Hold the lease of one day of a table for the block. Raises DayHeldError if another process has it, or StorageError."""
    path, what = lease_path(run_folder, publish, day), f"{day} of table {publish.uri}"
    with ExitStack() as stack:
        try:
            stack.enter_context(held_file(path, what, run=f"rectify {day}", patience=PATIENCE))
        except TableHeldError as error:
            raise DayHeldError(str(error)) from None
        yield


def is_held(run_folder: str, publish: PublishConfig, day: date) -> bool:
    """Whether a live process runs that day."""
    try:
        with lease_path(run_folder, publish, day).open() as lease:
            fcntl.flock(lease, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
