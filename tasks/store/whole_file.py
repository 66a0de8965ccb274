"""Writing a file so that it is there whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import polars as pl

from tasks.errors import StorageError
from tasks.store.atomic_files import fsync
from tasks.store.store import TEMPORARY


def write_whole(path: Path, write: Callable[[Path], object], *, failed: str) -> None:
    """Let ``write`` fill a temporary file, flush it and give it its name.

    Raises StorageError with ``failed``, whose ``{path}`` and ``{why}`` are filled in.
    """
    temporary = path.with_name(f"{TEMPORARY}{path.name}-{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            write(temporary)
            fsync(temporary)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        fsync(path.parent)
    except (OSError, pl.exceptions.ComputeError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise StorageError(failed.format(path=path, why=why)) from error
