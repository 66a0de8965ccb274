"""One run at a time on one table: an operating-system lock that the kernel frees when its holder dies, however it dies.

It holds among processes of one machine (and of machines that share the disk, where the file system passes ``flock`` on). Across machines
the table format's own commit conflict is the last word. A process forked while the lock is held keeps it until it ends too.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from tasks.errors import StorageError, TableHeldError
from tasks.publish_config import PublishConfig


@contextmanager
def table_lock(config: PublishConfig, lock_folder: Path | None = None, *, run: str = "") -> Iterator[Path]:
    """Hold the table of ``config`` for the block; yields the lock file.

    The file lies beside a local table, else in ``lock_folder``; ``run`` is written into it for whoever meets the lock. Raises
    TableHeldError at once when another holds it, StorageError when the file cannot be made, ValueError for a remote table without
    ``lock_folder``.
    """
    path = lock_path(config, lock_folder)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise StorageError(
            f"table {config.uri}: the lock file {path} cannot be opened: {error.strerror}; make its folder writable"
        ) from error
    try:
        _take(handle, config, path, run)
        yield path
        # Who held it is of no interest any more; that it cannot be wiped out is no failure of the run.
        with suppress(OSError):
            os.ftruncate(handle, 0)
    finally:
        # The file itself stays: were it deleted, one process could lock a new file of that name while another holds the old one.
        os.close(handle)


def lock_path(config: PublishConfig, lock_folder: Path | None = None) -> Path:
    """Where the lock of this table lies; two spellings of one local folder share it."""
    if config.folder is not None:
        real = Path(os.path.realpath(config.folder))
        return real.with_name(f".{real.name}.lock")
    if lock_folder is None:
        raise ValueError(f"lock_folder: wanted a local folder for the lock of {config.uri}")
    return lock_folder / f".{hashlib.blake2b(config.uri.rstrip('/').encode(), digest_size=12).hexdigest()}.lock"


def _take(handle: int, config: PublishConfig, path: Path, run: str) -> None:
    holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": datetime.now(UTC).isoformat(timespec="seconds"), "run": run}
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps(holder).encode(), 0)
    except BlockingIOError:
        raise TableHeldError(
            f"table {config.uri}: {_holder(handle)} holds it ({path}); wait for it to end or stop it, then run again"
        ) from None
    except OSError as error:
        raise StorageError(f"table {config.uri}: {path} cannot be locked: {error.strerror}; put it on a disk that takes locks") from error


def _holder(handle: int) -> str:
    try:
        told = json.loads(os.pread(handle, 4096, 0))
        run = f"run {told['run']}, " if told["run"] else ""
        return f"another process ({run}pid {told['pid']} on {told['host']}, since {told['since']})"
    except (ValueError, KeyError, TypeError):
        return "another process"
