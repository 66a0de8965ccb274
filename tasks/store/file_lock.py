"""A lock file that one process holds at a time. The kernel frees it when the process dies, also by kill -9."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from tasks.errors import StorageError, TableHeldError


@contextmanager
def held_file(
    path: Path, what: str, *, run: str = "", patience: float = 0.0, error: type[TableHeldError] = TableHeldError
) -> Iterator[Path]:
    """Hold the lock file ``path`` for the block and yield it. The file stays, since deleting it would let two processes lock one name.

    ``what`` names the locked thing in messages. The file names ``run``, the process and the time for whoever is locked out. Raises
    ``error`` if another process holds the lock for all of ``patience`` seconds, StorageError if the file cannot be made or locked.
    """
    holder = "unknown"
    lock = FileLock(path, timeout=patience, fallback_to_soft=False)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(poll_interval=0.1)
    except Timeout as timeout:
        with suppress(OSError):
            holder = path.read_text(encoding="utf-8") or holder
        raise error(
            f"{what}: another process ({holder}) holds it ({path}); wait for it to end or stop it, then run again"
        ) from timeout
    except OSError as failure:
        raise StorageError(
            f"{what}: the lock file {path} cannot be locked: {failure.strerror}; make its folder writable, on a disk that takes locks"
        ) from failure
    since = datetime.now(UTC).isoformat(timespec="seconds")
    holder = f"run {run}, " if run else ""
    try:
        # The lock holds without this text.
        with suppress(OSError):
            path.write_text(f"{holder}pid {os.getpid()} on {socket.gethostname()}, since {since}", "utf-8")
        yield path
        with suppress(OSError):
            path.write_text("")
    finally:
        lock.release()
